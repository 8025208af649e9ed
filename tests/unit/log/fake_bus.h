/*
 * fake_bus.h - a bus of one partition in one process: the objects in memfds, maps for writers and
 * readers, and a miniature daemon that retires, zeroes and swaps.
 *
 * A reader's map has the ring and the buffers read-only, so a store of a reader is a crash. Before and
 * behind every mapping of a buffer and of the ring lies a guard page, so an access outside is one, too.
 */
#ifndef EG_TESTS_FAKE_BUS_H
#define EG_TESTS_FAKE_BUS_H

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "log/check.h"
#include "log/frame.h"
#include "log/reader.h"
#include "log/repair.h"
#include "log/writer.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"
#include "sys/membarrier.h"
#include "sys/rand.h"
#include "sys/shm.h"

#define FAKE_UID 4711u
#define FAKE_INDEX 70u
#define FAKE_CELLS 64u
#define FAKE_SEGMENT ((uint64_t)EG_SEGMENT_BYTES_MIN)

struct fake_buffer {
    int fd;        /* -1: none */
    uint8_t *base; /* the daemon's mapping */
    enum eg_buffer_use use;
    uint64_t seq;
};

struct fake_bus {
    struct eg_bus *bus;
    struct eg_topic_status *topic;
    struct eg_partition_status *status;
    struct eg_ring *ring; /* writable */
    int ring_fd;
    size_t ring_bytes;
    struct eg_waiters *waiters;
    struct eg_bells *bells;
    struct eg_pin_cell *cells; /* all handles' pins */
    _Atomic uint32_t cells_used;

    uint64_t capacity;
    uint32_t slots;
    uint32_t align;

    /* The miniature daemon. */
    pthread_mutex_t lock; /* of buffers: clients fetch in their threads */
    struct fake_buffer buffers[EG_BUFFERS_MAX];
    uint64_t first; /* seq of the oldest segment in the ring */

    /* What clients asked for, and what they are refused. */
    _Atomic uint32_t fetches;
    _Atomic uint32_t allocations;
    _Atomic uint32_t wakes;
    _Atomic bool refuse_fetch;
    _Atomic bool refuse_memory;
};

/* A failure that cmocka, which knows one thread, cannot take. */
#define FAKE_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: failed: %s (%s)\n", __FILE__, __LINE__, #condition,      \
                          eg_error_text());                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- memory ------------------------------------------------------------------------------------ */

static inline uint8_t *fake_map_guarded(int fd, size_t bytes, bool writable, uint8_t *at) {
    if (at == NULL) {
        uint8_t *area = mmap(NULL, bytes + 2 * EG_PAGE, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        FAKE_REQUIRE(area != MAP_FAILED);
        at = area + EG_PAGE;
    }
    void *p = mmap(at, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED, fd, 0);
    FAKE_REQUIRE(p == at);
    return at;
}

static inline void fake_unmap_guarded(void *at, size_t bytes) {
    FAKE_REQUIRE(munmap((uint8_t *)at - EG_PAGE, bytes + 2 * EG_PAGE) == 0);
}

static inline void *fake_pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    FAKE_REQUIRE(p != MAP_FAILED);
    return p;
}

static inline struct eg_segment_header *fake_header(const struct fake_bus *b, uint32_t number) {
    return (struct eg_segment_header *)(void *)b->buffers[number].base;
}

static inline uint32_t fake_buffer_make(struct fake_bus *b) {
    uint32_t n = 0;
    while (b->buffers[n].fd >= 0)
        n++;
    FAKE_REQUIRE(n < EG_BUFFERS_MAX);
    int fd = -1;
    FAKE_REQUIRE(eg_memfd_create("fake-buffer", b->capacity, false, &fd) == EAGRE_OK);
    b->buffers[n] = (struct fake_buffer){.fd = fd, .base = fake_map_guarded(fd, b->capacity, true, NULL)};
    eg_store_relaxed(&fake_header(b, n)->allocated, EG_PAGE); /* producers allocate the rest */
    return n;
}

static inline void fake_buffer_drop(struct fake_bus *b, uint32_t n) {
    fake_unmap_guarded(b->buffers[n].base, b->capacity);
    (void)close(b->buffers[n].fd);
    b->buffers[n] = (struct fake_buffer){.fd = -1};
}

/* Bytes of the buffer that really have memory: reading a hole of a memfd fills it. */
static inline uint64_t fake_buffer_memory(const struct fake_bus *b, uint32_t n) {
    struct stat st;
    FAKE_REQUIRE(fstat(b->buffers[n].fd, &st) == 0);
    return (uint64_t)st.st_blocks * 512;
}

/* ---- the bus ------------------------------------------------------------------------------------ */

static inline struct eg_slot *fake_slot(const struct fake_bus *b, uint64_t seq) {
    return &b->ring->slot[seq % b->slots];
}

static inline uint32_t fake_buffer_of(const struct fake_bus *b, uint64_t seq) {
    uint64_t word = eg_load_acquire(&fake_slot(b, seq)->word);
    FAKE_REQUIRE(eg_slot_seq(word) == seq);
    return eg_slot_buffer(word);
}

/* The bytes of segment seq, as the daemon has them mapped. */
static inline uint8_t *fake_segment(const struct fake_bus *b, uint64_t seq) {
    return b->buffers[fake_buffer_of(b, seq)].base;
}

static inline struct fake_bus *fake_bus_open(uint64_t capacity, uint32_t slots, uint32_t align,
                                             int64_t first_offset) {
    struct fake_bus *b = calloc(1, sizeof(*b));
    FAKE_REQUIRE(b != NULL);
    b->capacity = capacity;
    b->slots = slots;
    b->align = align;
    FAKE_REQUIRE(pthread_mutex_init(&b->lock, NULL) == 0);
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        b->buffers[n].fd = -1;

    b->topic = fake_pages(eg_status_bytes(1));
    b->status = eg_status_of(b->topic, 0);
    b->topic->topic_uid = 3;
    b->topic->align = align;
    b->topic->segment_bytes = capacity;
    b->topic->ring_segments = slots;
    eg_store_relaxed(&b->topic->partitions, 1);
    eg_store_relaxed(&b->topic->state, EG_TOPIC_ACTIVE);
    eg_store_relaxed(&b->topic->max_message_bytes, UINT32_MAX);
    eg_magic_init(&b->topic->magic);
    eg_magic_publish(&b->topic->magic, EG_MAGIC_STATUS);
    b->status->uid = FAKE_UID;
    b->status->index = FAKE_INDEX;
    eg_store_relaxed(&b->status->state, EG_PARTITION_ACTIVE);
    eg_store_relaxed(&b->status->log_start, (uint64_t)first_offset);
    b->waiters = fake_pages(eg_waiters_bytes(1));
    b->bells = fake_pages(sizeof(*b->bells));
    b->bus = fake_pages(sizeof(*b->bus));
    b->cells = fake_pages(FAKE_CELLS * sizeof(*b->cells));

    b->ring_bytes = eg_ring_stride(slots, capacity);
    FAKE_REQUIRE(eg_memfd_create("fake-ring", b->ring_bytes, false, &b->ring_fd) == EAGRE_OK);
    b->ring = (struct eg_ring *)(void *)fake_map_guarded(b->ring_fd, b->ring_bytes, true, NULL);
    for (uint32_t s = 0; s < slots; s++) {
        uint32_t n = fake_buffer_make(b);
        b->buffers[n].use = EG_BUFFER_SLOT;
        b->buffers[n].seq = s;
        eg_segment_init(fake_header(b, n), b->topic, 0, FAKE_UID, s, 1);
        eg_store_release(&b->ring->slot[s].word, eg_slot_make(s, n, s == 0 ? EG_SLOT_OPEN : EG_SLOT_READY));
    }
    eg_store_release(&fake_header(b, 0)->base, first_offset);
    return b;
}

static inline void fake_bus_close(struct fake_bus *b) {
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        if (b->buffers[n].fd >= 0)
            fake_buffer_drop(b, n);
    fake_unmap_guarded(b->ring, b->ring_bytes);
    (void)close(b->ring_fd);
    (void)munmap(b->topic, eg_status_bytes(1));
    (void)munmap(b->waiters, eg_waiters_bytes(1));
    (void)munmap(b->bells, sizeof(*b->bells));
    (void)munmap(b->bus, sizeof(*b->bus));
    (void)munmap(b->cells, FAKE_CELLS * sizeof(*b->cells));
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

static inline _Atomic uint64_t *fake_cell(struct fake_bus *b) {
    uint32_t n = eg_fetch_add_relaxed(&b->cells_used, 1);
    FAKE_REQUIRE(n < FAKE_CELLS);
    return &b->cells[n].pin;
}

/* ---- maps --------------------------------------------------------------------------------------- */

static inline int fake_op_fetch(struct eg_partition_map *m, uint32_t number) {
    struct fake_bus *b = m->ctx;
    int rc = EAGRE_OK;
    eg_fetch_add_relaxed(&b->fetches, 1);
    if (eg_load_relaxed(&b->refuse_fetch))
        return eg_error_set(EAGRE_E_NO_DAEMON, "nobody there");
    (void)pthread_mutex_lock(&b->lock);
    if (number >= EG_BUFFERS_MAX || b->buffers[number].fd < 0) {
        rc = eg_error_set(EAGRE_E_INVALID, "there is no buffer %u", number);
    } else {
        struct eg_buffer_map *to = &m->bufs[number];
        if (to->fd >= 0)
            (void)close(to->fd);
        to->base = fake_map_guarded(b->buffers[number].fd, b->capacity, m->writable, to->base);
        to->ready_to = 0;
        to->fd = m->writable ? dup(b->buffers[number].fd) : -1;
    }
    (void)pthread_mutex_unlock(&b->lock);
    return rc;
}

static inline int fake_op_allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    struct fake_bus *b = m->ctx;
    eg_fetch_add_relaxed(&b->allocations, 1);
    FAKE_REQUIRE(m->writable && number < EG_BUFFERS_MAX && from < to && to <= b->capacity);
    if (eg_load_relaxed(&b->refuse_memory))
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory");
    FAKE_REQUIRE(fallocate(m->bufs[number].fd, 0, (off_t)from, (off_t)(to - from)) == 0);
    return EAGRE_OK;
}

static inline void fake_op_wake_daemon(struct eg_partition_map *m) {
    eg_fetch_add_relaxed(&((struct fake_bus *)m->ctx)->wakes, 1);
}

static inline void fake_op_ring_bells(struct eg_partition_map *m, uint32_t word, uint64_t mask) {
    for (; mask != 0; mask &= mask - 1) {
        struct eg_bell *bell = &m->bells->bell[word * 64 + (uint32_t)__builtin_ctzll(mask)];
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_release);
        eg_futex_wake(&bell->rings, INT_MAX);
    }
}

static const struct eg_map_ops fake_ops = {fake_op_fetch, fake_op_allocate, fake_op_wake_daemon, fake_op_ring_bells, NULL, NULL};

/* Buffers are mapped when they are needed. */
static inline void fake_map_open(struct fake_bus *b, struct eg_partition_map *m, bool writable) {
    *m = (struct eg_partition_map){
        .ops = &fake_ops,
        .ctx = b,
        .bus = b->bus,
        .topic = b->topic,
        .status = b->status,
        .ring = (struct eg_ring *)(void *)fake_map_guarded(b->ring_fd, b->ring_bytes, writable, NULL),
        .waiters = b->waiters,
        .bells = b->bells,
        .capacity = b->capacity,
        .slots = b->slots,
        .align = b->align,
        .uid = FAKE_UID,
        .index = FAKE_INDEX,
        .writable = writable,
        .single_writer = (eg_load_relaxed(&b->topic->flags) & EG_TOPIC_SINGLE_WRITER) != 0,
    };
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        m->bufs[n].fd = -1;
}

static inline void fake_map_close(struct eg_partition_map *m) {
    struct fake_bus *b = m->ctx;
    fake_unmap_guarded(m->ring, b->ring_bytes);
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        if (m->bufs[n].base != NULL)
            fake_unmap_guarded(m->bufs[n].base, b->capacity);
        if (m->bufs[n].fd >= 0)
            (void)close(m->bufs[n].fd);
    }
}

/* ---- the miniature daemon -------------------------------------------------------------------------- */

static inline bool fake_pinned(const struct fake_bus *b, uint64_t seq) {
    for (uint32_t i = 0; i < FAKE_CELLS; i++) {
        uint64_t pin = eg_load_acquire(&b->cells[i].pin);
        if (pin != EG_PIN_NONE && eg_pin_is_on(pin, FAKE_INDEX) &&
            (eg_pin_seq(pin) == seq || (eg_pin_is_producer(pin) && eg_pin_seq(pin) + 1 == seq)))
            return true;
    }
    return false;
}

static inline void fake_zero(struct fake_bus *b, uint32_t n) {
    uint64_t end = eg_load_acquire(&fake_header(b, n)->allocated);
    FAKE_REQUIRE(end >= EG_PAGE && end <= b->capacity);
    memset(b->buffers[n].base + EG_SEGMENT_DATA, 0, end - EG_SEGMENT_DATA);
}

/* The oldest segment's slot becomes READY for its next life. False: it is pinned and no other buffer
 * may take its place; call again. */
static inline bool fake_retire(struct fake_bus *b, bool may_swap) {
    uint64_t seq = b->first, next = seq + b->slots;
    uint32_t n = fake_buffer_of(b, seq);
    struct eg_slot *slot = fake_slot(b, seq);
    uint64_t word = eg_slot_make(seq, n, EG_SLOT_OPEN);
    if (eg_load_acquire(&slot->word) == word) {
        FAKE_REQUIRE(eg_load_acquire(&b->ring->active) > seq);
        int64_t start = eg_load_acquire(&fake_header(b, fake_buffer_of(b, seq + 1))->base);
        eg_store_release(&b->status->log_start, (uint64_t)start);
        FAKE_REQUIRE(eg_cas_acq_rel(&slot->word, &word, eg_slot_make(seq, n, EG_SLOT_RETIRING)));
    }
    EG_FAULT("retire.marked");
    eg_membarrier();
    if (!fake_pinned(b, seq)) {
        eg_segment_init(fake_header(b, n), b->topic, 0, FAKE_UID, next, 1);
        fake_zero(b, n);
        b->buffers[n].seq = next;
    } else if (may_swap) {
        (void)pthread_mutex_lock(&b->lock);
        b->buffers[n].use = EG_BUFFER_DETACHED;
        n = fake_buffer_make(b);
        b->buffers[n].use = EG_BUFFER_SLOT;
        b->buffers[n].seq = next;
        eg_segment_init(fake_header(b, n), b->topic, 0, FAKE_UID, next, 1);
        (void)pthread_mutex_unlock(&b->lock);
    } else {
        return false;
    }
    _Atomic uint64_t *index = eg_ring_index(b->ring, b->slots, (uint32_t)(seq % b->slots), b->capacity);
    for (size_t i = 0; i < eg_index_blocks(b->capacity); i++)
        eg_store_relaxed(&index[i], 0);
    eg_store_release(&slot->word, eg_slot_make(next, n, EG_SLOT_READY));
    b->first++;
    atomic_fetch_add_explicit(&b->status->room, 1, memory_order_release);
    eg_futex_wake(&b->status->room, INT_MAX);
    return true;
}

/* Buffers that pins held and hold no more are freed; their numbers will name others. */
static inline void fake_free_detached(struct fake_bus *b) {
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        if (b->buffers[n].fd < 0 || b->buffers[n].use != EG_BUFFER_DETACHED || fake_pinned(b, b->buffers[n].seq))
            continue;
        (void)pthread_mutex_lock(&b->lock);
        fake_buffer_drop(b, n);
        (void)pthread_mutex_unlock(&b->lock);
    }
}

/* Keep `ahead` slots READY. */
static inline void fake_daemon_work(struct fake_bus *b, uint64_t ahead, bool may_swap) {
    uint64_t active = eg_load_acquire(&b->ring->active);
    while (b->first < active && b->first + b->slots - 1 - active < ahead && fake_retire(b, may_swap)) {
    }
    fake_free_detached(b);
}

/* ---- handles -------------------------------------------------------------------------------------- */

struct fake_writer {
    struct eg_partition_map map;
    struct eg_writer w;
};

struct fake_reader {
    struct eg_partition_map map;
    struct eg_reader r;
};

static inline void fake_writer_open(struct fake_bus *b, struct fake_writer *w, uint32_t owner) {
    fake_map_open(b, &w->map, true);
    eg_writer_init(&w->w, &w->map, fake_cell(b), owner, false);
}
static inline void fake_writer_close(struct fake_writer *w) { fake_map_close(&w->map); }

static inline void fake_reader_open(struct fake_bus *b, struct fake_reader *r, int64_t offset) {
    fake_map_open(b, &r->map, false);
    eg_reader_init(&r->r, &r->map, fake_cell(b), false, true, "topic", offset);
}
static inline void fake_reader_close(struct fake_reader *r) {
    eg_reader_unpin(&r->r);
    fake_map_close(&r->map);
}

/* ---- records --------------------------------------------------------------------------------------- */

struct fake_record {
    const void *key; /* NULL: none */
    const void *value;
    const void *headers; /* the block behind its length; NULL: none */
    uint32_t key_length;
    uint32_t value_length;
    uint32_t headers_length;
    int64_t timestamp_ns;
};

static inline uint64_t fake_payload(const struct fake_record *r) {
    return (r->key != NULL ? r->key_length : 0) + (r->value != NULL ? r->value_length : 0) +
           (r->headers != NULL ? 4 + r->headers_length : 0);
}

/* Write all but the word; returns the word that publishes it. */
static inline uint64_t fake_frame_write(const struct eg_writer *w, struct eg_frame *f, uint64_t pos, uint64_t length,
                                        uint32_t index, const struct fake_record *r) {
    uint8_t *to = f->payload;
    uint32_t klen = EG_NULL_LENGTH, vlen = EG_NULL_LENGTH;
    if (r->key != NULL) {
        memcpy(to, r->key, klen = r->key_length);
        to += klen;
    }
    if (r->value != NULL) {
        memcpy(to, r->value, vlen = r->value_length);
        to += vlen;
    }
    if (r->headers != NULL) {
        memcpy(to, &r->headers_length, 4);
        memcpy(to + 4, r->headers, r->headers_length);
    }
    return eg_frame_finish(f, pos, length, index, w->seed, w->owner, r->timestamp_ns, klen, vlen, r->headers != NULL,
                           fake_payload(r));
}

static inline int fake_put(struct eg_writer *w, const struct fake_record *r, int64_t *offset) {
    struct eg_claim c;
    int rc = eg_writer_claim(w, eg_frame_length(fake_payload(r), w->map->align), 1, &c);
    if (rc != EAGRE_OK)
        return rc;
    eg_writer_publish(w, &c, fake_frame_write(w, c.frame, c.pos, c.length, c.index, r));
    if (offset != NULL)
        *offset = c.offset;
    return EAGRE_OK;
}

/* n bytes that follow from the offset alone. */
static inline void fake_bytes(int64_t offset, void *to, size_t n) {
    uint64_t state = (uint64_t)offset * 0xd1342543de82ef95u + 1;
    uint8_t *p = to;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = eg_rand_next(&state);
        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

/* FAKE_PROBE bytes of no meaning, for who cannot know its offset. */
#define FAKE_PROBE 200u
static inline int fake_put_probe(struct eg_writer *w, int64_t *offset) {
    static const uint8_t value[FAKE_PROBE];
    return fake_put(w, &(struct fake_record){.value = value, .value_length = FAKE_PROBE}, offset);
}

/* A value whose bytes follow from the offset that it gets (single-threaded tests know it before). */
static inline int fake_put_numbered(struct eg_writer *w, int64_t offset, uint32_t length) {
    static uint8_t value[EG_SEGMENT_BYTES_MIN];
    int64_t got = -1;
    FAKE_REQUIRE(length <= sizeof(value));
    fake_bytes(offset, value, length);
    int rc = fake_put(w, &(struct fake_record){.value = value, .value_length = length, .timestamp_ns = offset}, &got);
    FAKE_REQUIRE(rc != EAGRE_OK || got == offset);
    return rc;
}

static inline bool fake_is_numbered(const eagre_record_t *r) {
    static uint8_t expected[EG_SEGMENT_BYTES_MIN];
    if (r->value_len > sizeof(expected) || r->key != NULL || r->headers != NULL || r->timestamp_ns != r->offset)
        return false;
    fake_bytes(r->offset, expected, r->value_len);
    return memcmp(expected, r->value, r->value_len) == 0;
}

/* ---- the end of a test -------------------------------------------------------------------------------- */

/* What eg_check_partition finds; the first problem is printed. */
static inline uint64_t fake_problems(struct fake_bus *b, struct eg_check_report *out) {
    struct eg_check_report mine;
    struct eg_partition_map m;
    if (out == NULL)
        out = &mine;
    fake_map_open(b, &m, false);
    eg_check_partition(&m, out);
    eg_check_waiters(b->waiters, out);
    fake_map_close(&m);
    return out->problems;
}

#define assert_log_is_good(b, out)                                                                 \
    do {                                                                                           \
        struct eg_check_report report_;                                                            \
        if (fake_problems((b), &report_) > 0)                                                      \
            fail_msg("%s", report_.first);                                                         \
        struct eg_check_report *out_ = (out);                                                      \
        if (out_ != NULL)                                                                          \
            *out_ = report_;                                                                       \
    } while (0)

#define assert_ok(rc)                                                                              \
    do {                                                                                           \
        int rc_ = (rc);                                                                            \
        if (rc_ != EAGRE_OK)                                                                       \
            fail_msg("%s: %d: %s", #rc, rc_, eg_error_text());                                     \
    } while (0)

static inline bool fake_nothing_is_pinned(const struct fake_bus *b) {
    for (uint32_t i = 0; i < FAKE_CELLS; i++)
        if (eg_load_acquire(&b->cells[i].pin) != EG_PIN_NONE)
            return false;
    return true;
}

/* ---- interposing at named steps ----------------------------------------------------------------------- */

/* At the hit-th time that `name` is reached, act is called, once; the hook is off while it runs. */
struct fake_interpose {
    const char *name;
    uint32_t hit;
    void (*act)(void *ctx);
    void *ctx;
    uint32_t seen;
    bool done;
};

static inline void fake_hook(const char *name, void *arg) {
    struct fake_interpose *i = arg;
    if (i->done || strcmp(name, i->name) != 0 || ++i->seen != i->hit)
        return;
    i->done = true;
    i->act(i->ctx);
}

static inline void fake_at(struct fake_interpose *i) { eg_fault_set_hook(fake_hook, i); }
static inline void fake_at_none(void) { eg_fault_set_hook(NULL, NULL); }

/* The writer dies at the step: it comes back from nothing, its pin and its claim stay. False: the step was
 * not reached, and the record (of FAKE_PROBE bytes) was put. */
static inline void fake_jump(void *ctx) { longjmp(*(jmp_buf *)ctx, 1); }
static inline bool fake_put_dies_at(struct eg_writer *w, const char *step, uint32_t hit) {
    jmp_buf there;
    struct fake_interpose at = {.name = step, .hit = hit, .act = fake_jump, .ctx = &there};
    fake_at(&at);
    if (setjmp(there) == 0)
        FAKE_REQUIRE(fake_put_probe(w, NULL) == EAGRE_OK);
    fake_at_none();
    return at.done;
}

#ifdef EG_FAULTPOINTS
#define FAKE_NEEDS_FAULTPOINTS() ((void)0)
#else
#define FAKE_NEEDS_FAULTPOINTS() skip()
#endif

#endif
