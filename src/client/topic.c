#include "client/topic.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/attach.h"
#include "log/cold.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/futex.h"
#include "sys/shm.h"

struct eg_mapped {
    struct eg_partition_map map; /* first: this is what others know */
    bool filled;
    struct eg_late *late;  /* BUFFERS is under way, */
    uint32_t wanted;       /* for this one, or ALL */
    struct eg_late *late_file; /* SEGMENT is, */
    bool file_by_seq;          /* for this */
    uint64_t file_value;
    uint8_t *const *user;  /* points into a buffer that must stay */
};

#define ALL UINT32_MAX
#define OPEN_FDS 5 /* status, ring, waiters; to producers also bells, the topic's eventfd */

static int outdated(const struct eg_topic *t) {
    return eg_error_set(EAGRE_E_NO_DAEMON,
                        "topic '%s': eagred was replaced by another instance, with new "
                        "memory",
                        t->name);
}

static bool is_outdated(const struct eg_topic *t) {
    return t->generation != eg_load_acquire(&t->e->generation);
}

static struct eg_mapped *mapped_of(struct eg_partition_map *m) { return (struct eg_mapped *)(void *)m; }

int64_t eg_until_end(const struct eg_until *until, const struct eg_late *late) {
    int64_t patience = until->impatient && until->ns > 0 ? eg_session_patience(late) : INT64_MAX;
    return until->ns < patience ? until->ns : patience;
}

static int64_t until_of(const struct eg_topic *t, const struct eg_late *late) {
    return t->until == NULL ? eg_mono_ns() + eg_request_limit_ns : eg_until_end(t->until, late);
}

/* ---- buffers ------------------------------------------------------------------------------------- */

static void drop_buffer(const struct eg_topic *t, struct eg_partition_map *m, uint32_t number) {
    struct eg_buffer_map *b = &m->bufs[number];
    if (b->base != NULL)
        eg_unmap(b->base, m->capacity);
    eg_session_close_fd(t->e, b->fd);
    *b = (struct eg_buffer_map){.fd = -1};
}

/* fd is taken over, also on failure. */
static int put_buffer(struct eg_partition_map *m, uint32_t number, int fd) {
    void *base = NULL;
    int rc;
    if (number >= EG_BUFFERS_MAX)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred sent a buffer number %u", number);
    else /* In the old one's place: what points into it (polled records, a writer's segment) stays mapped,
            even if a hostile producer's slot words made us ask for a buffer that is in use. */
        rc = eg_session_map(fd, m->capacity, m->writable, m->bufs[number].base, "buffer", &base);
    if (rc != EAGRE_OK) {
        close(fd);
        return rc;
    }
    struct eg_buffer_map *b = &m->bufs[number];
    if (b->base != NULL && b->fd >= 0)
        close(b->fd);
    *b = (struct eg_buffer_map){.base = base, .fd = -1};
    if (m->writable)
        b->fd = fd; /* to allocate */
    else
        close(fd);
    return EAGRE_OK;
}

/* Buffers that no slot names are not the ring's any more. A lie costs a producer's own topic a request. */
static void trim(struct eg_mapped *p, uint32_t but) {
    struct eg_partition_map *m = &p->map;
    uint64_t named[EG_BUFFERS_MAX / 64] = {0};
    for (uint32_t i = 0; i < m->slots; i++) {
        uint32_t n = eg_slot_buffer(eg_load_relaxed(&m->ring->slot[i].word));
        if (n < EG_BUFFERS_MAX)
            named[n / 64] |= 1ull << n % 64;
    }
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        if (m->bufs[n].base != NULL && n != but && (named[n / 64] >> n % 64 & 1) == 0 &&
            (p->user == NULL || m->bufs[n].base != *p->user))
            drop_buffer(m->ctx, m, n);
}

void eg_topic_trim(struct eg_topic *t) {
    for (uint32_t i = 0; i < t->partitions_mapped; i++)
        if (t->maps[i] != NULL && t->maps[i]->filled)
            trim(t->maps[i], ALL);
}

void eg_topic_used_by(struct eg_partition_map *m, uint8_t *const *base) { mapped_of(m)->user = base; }

bool eg_topic_waits(const struct eg_partition_map *m) { return ((const struct eg_mapped *)(const void *)m)->late != NULL; }

/* Ask for one buffer, or for ALL that the ring uses, and map what comes. */
static int get_buffers(struct eg_topic *t, struct eg_mapped *p, uint32_t wanted) {
    uint8_t buf[64];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    int fds[EG_RING_SEGMENTS_MAX];
    size_t nfds = 0;
    uint16_t numbers[EG_RING_SEGMENTS_MAX];

    if (p->wanted != wanted)
        eg_session_give_up(t->e, &p->late);
    p->wanted = wanted;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_BUFFERS, 0, 0);
    eg_enc_u8(&req, (uint8_t)t->role);
    eg_enc_u32(&req, t->uid);
    eg_enc_u32(&req, p->map.number);
    eg_enc_u16(&req, wanted == ALL ? 0 : 1);
    if (wanted != ALL)
        eg_enc_u16(&req, (uint16_t)wanted);
    int rc = eg_session_request_late(t->e, &p->late, &req, answer, sizeof(answer), &reply, fds,
                                     EG_RING_SEGMENTS_MAX, &nfds, until_of(t, p->late), NULL);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return eg_error_add(rc, "partition %u: its memory", p->map.number);
    if (rc != EAGRE_OK)
        return is_outdated(t) ? outdated(t)
                              : rc; /* the request itself may have found another instance */
    size_t n = eg_dec_u16(&reply);
    for (size_t i = 0; i < n && i < EG_RING_SEGMENTS_MAX; i++)
        numbers[i] = eg_dec_u16(&reply);
    if (!eg_dec_end(&reply) || n != nfds || n > t->slots ||
        (wanted != ALL && (n != 1 || numbers[0] != wanted)))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "topic '%s': eagred's answer to BUFFERS is malformed",
                          t->name);
    else if (is_outdated(t))
        rc = outdated(t);
    for (size_t i = 0; i < nfds; i++) {
        if (rc == EAGRE_OK)
            rc = put_buffer(&p->map, numbers[i], fds[i]);
        else
            close(fds[i]);
    }
    if (rc == EAGRE_OK && wanted != ALL)
        trim(p, wanted);
    return rc;
}

static int op_fetch_buffer(struct eg_partition_map *m, uint32_t number) {
    struct eg_topic *t = m->ctx;
    if (is_outdated(t))
        return outdated(t);
    return get_buffers(t, mapped_of(m), number);
}

static int op_allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    if (number >= EG_BUFFERS_MAX || m->bufs[number].base == NULL || m->bufs[number].fd < 0)
        return eg_error_set(EAGRE_E_STATE, "buffer %u is not mapped", number);
    struct eg_buffer_map *b = &m->bufs[number];
    from &= ~(uint64_t)(EG_PAGE - 1);
    to = to > m->capacity ? m->capacity : eg_align_up(to, EG_PAGE);
    if (from >= to)
        return EAGRE_OK;
    int rc = eg_shm_allocate(b->fd, from, to - from);
    if (rc != EAGRE_OK) {
        const struct eg_topic *t = m->ctx;
        return eg_error_add(rc, "topic '%s' partition %u", t->name, m->number);
    }
    eg_populate(b->base + from, to - from, true);
    if (from <= b->ready_to && to > b->ready_to)
        b->ready_to = to;
    return EAGRE_OK;
}

static void op_wake_daemon(struct eg_partition_map *m) {
    const struct eg_topic *t = m->ctx;
    uint64_t one = 1;
    /* The eventfd's counter being full means that it has been rung: nothing to retry. */
    ssize_t done;
    do
        done = write(t->event_fd, &one, sizeof(one));
    while (done < 0 && errno == EINTR);
}

static void op_ring_bells(struct eg_partition_map *m, uint32_t word, uint64_t mask) {
    if (!m->writable || word >= EG_BELLS_MAX / 64)
        return;
    while (mask != 0) {
        struct eg_bell *bell = &m->bells->bell[word * 64 + (unsigned)__builtin_ctzll(mask)];
        mask &= mask - 1;
        /* Release: its sleeper, who acquires it, sees what was published before. */
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_release);
        eg_futex_wake(&bell->rings, INT_MAX);
    }
}

/* ---- log files ------------------------------------------------------------------------------------ */

static void op_drop_file(struct eg_partition_map *m, struct eg_cold_file *f) {
    (void)m;
    if (f->data != NULL)
        eg_unmap((void *)(uintptr_t)f->data, f->bytes);
    if (f->index != NULL)
        eg_unmap((void *)(uintptr_t)f->index, f->index_bytes);
    *f = (struct eg_cold_file){0};
}

/* The daemon's file, read from front to back. Without an index it is only slower. */
static int map_file(struct eg_cold_file *f, const int *fds, size_t nfds) {
    struct stat st;
    void *at = MAP_FAILED;
    if (fstat(fds[0], &st) == 0 && st.st_size >= (off_t)EG_PAGE)
        at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fds[0], 0);
    if (at == MAP_FAILED)
        return eg_error_set(EAGRE_E_IO, "a log file from eagred cannot be mapped: %s", strerror(errno));
    f->data = at;
    f->bytes = (uint64_t)st.st_size;
    (void)madvise(at, f->bytes, MADV_SEQUENTIAL);
    (void)madvise(at, f->bytes, MADV_WILLNEED);
    if (nfds < 2 || fstat(fds[1], &st) != 0 || st.st_size == 0)
        return EAGRE_OK;
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fds[1], 0);
    if (at != MAP_FAILED) {
        f->index = at;
        f->index_bytes = (uint64_t)st.st_size;
    }
    return EAGRE_OK;
}

static int op_fetch_file(struct eg_partition_map *m, bool by_seq, uint64_t value, struct eg_cold_file *out, int *where) {
    struct eg_topic *t = m->ctx;
    struct eg_mapped *p = mapped_of(m);
    uint8_t buf[64], answer[256];
    struct eg_enc req;
    struct eg_dec reply;
    int fds[2];
    size_t nfds = 0;
    *out = (struct eg_cold_file){0};
    if (is_outdated(t))
        return outdated(t);
    if (p->file_by_seq != by_seq || p->file_value != value)
        eg_session_give_up(t->e, &p->late_file);
    p->file_by_seq = by_seq;
    p->file_value = value;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_SEGMENT, 0, 0);
    eg_enc_u32(&req, t->uid);
    eg_enc_u32(&req, m->number);
    eg_enc_u8(&req, by_seq);
    eg_enc_i64(&req, (int64_t)value);
    int rc = eg_session_request_late(t->e, &p->late_file, &req, answer, sizeof(answer), &reply, fds, 2, &nfds,
                                     until_of(t, p->late_file), NULL);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return eg_error_add(rc, "partition %u: its log files", m->number);
    if (rc != EAGRE_OK)
        return is_outdated(t) ? outdated(t) : rc;
    *where = eg_dec_u8(&reply);
    out->seq = eg_dec_u64(&reply);
    out->base = eg_dec_i64(&reply);
    out->end = eg_dec_i64(&reply);
    (void)eg_dec_u64(&reply);
    out->first_seq = eg_dec_u64(&reply);
    out->last_seq = eg_dec_u64(&reply);
    if (!eg_dec_end(&reply) || *where > EG_COLD_LOST || (nfds > 0) != (*where == EG_COLD_HERE))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "topic '%s': eagred's answer to SEGMENT is malformed", t->name);
    else if (is_outdated(t))
        rc = outdated(t);
    else if (nfds > 0)
        rc = map_file(out, fds, nfds);
    for (size_t i = 0; i < nfds; i++)
        close(fds[i]);
    return rc;
}

static const struct eg_map_ops map_ops = {
    .fetch_buffer = op_fetch_buffer,
    .allocate = op_allocate,
    .wake_daemon = op_wake_daemon,
    .ring_bells = op_ring_bells,
    .fetch_file = op_fetch_file,
    .drop_file = op_drop_file,
};

/* ---- one partition ------------------------------------------------------------------------------- */

static void clear_map(const struct eg_topic *t, struct eg_mapped *p) {
    struct eg_partition_map *m = &p->map;
    eg_session_give_up(t->e, &p->late);
    eg_session_give_up(t->e, &p->late_file);
    if (m->ring != NULL)
        eg_unmap(m->ring, t->ring_stride);
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        drop_buffer(t, m, i);
}

static int check_ring(const struct eg_topic *t, const struct eg_partition_map *m) {
    int rc = eg_magic_check(&m->ring->magic, EG_MAGIC_RING, "ring");
    if (rc == EAGRE_OK &&
        (m->ring->partition_uid != m->uid || m->ring->partition_index != m->index))
        rc = eg_error_set(EAGRE_E_CORRUPT, "ring: is of partition id %u, expected %u",
                          m->ring->partition_uid, m->uid);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "topic '%s' partition %u", t->name, m->number);
}

/* Fill an empty map, but for its buffers. On failure it holds nothing that clear_map does not drop. */
static int fill_map(struct eg_topic *t, uint32_t partition, struct eg_partition_map *m) {
    bool producer = t->role == EG_ROLE_PRODUCER;
    void *ring;

    *m = (struct eg_partition_map){
        .ops = &map_ops,
        .ctx = t,
        .bus = t->e->bus,
        .topic = t->status,
        .status = eg_status_of(t->status, partition),
        .waiters = t->waiters + partition,
        .bells = producer ? t->e->bells_rw : t->e->bells_ro,
        .capacity = t->capacity,
        .slots = t->slots,
        .align = t->align,
        .number = partition,
        .writable = producer,
        .single_writer = t->single_writer,
        .on_disk = t->status->storage == EG_STORAGE_DISK,
    };
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        m->bufs[i].fd = -1;
    m->uid = m->status->uid;
    m->index = m->status->index;
    if (m->index >= EG_PARTITIONS_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "topic '%s' partition %u: index %u is not possible",
                            t->name, partition, m->index);
    int rc = eg_map(t->ring_fd, partition * t->ring_stride, t->ring_stride, producer, &ring);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "topic '%s' partition %u: ring", t->name, partition);
    m->ring = ring;
    return check_ring(t, m);
}

uint32_t eg_topic_partitions(struct eg_topic *t) {
    /* Acquire: with the number we see the new partitions complete. Partner: the daemon's growth. */
    uint32_t n = eg_load_acquire(&t->status->partitions);
    if (n <= t->partitions_mapped)
        return t->partitions_mapped;
    /* Sealed objects cannot grow: what does not fit in ours is not there for us. */
    if (n > EG_TOPIC_PARTITIONS_MAX || eg_status_bytes(n) > t->status_bytes ||
        eg_waiters_bytes(n) > t->waiters_bytes || n > t->ring_bytes / t->ring_stride)
        return t->partitions_mapped;
    struct eg_mapped **maps = reallocarray(t->maps, n, sizeof(*maps));
    if (maps == NULL)
        return t->partitions_mapped; /* we look again next time */
    for (uint32_t p = t->partitions_mapped; p < n; p++)
        maps[p] = NULL;
    t->maps = maps;
    t->partitions_mapped = n;
    return n;
}

int eg_topic_partition(struct eg_topic *t, uint32_t partition, struct eg_partition_map **out) {
    struct eg_mapped *p = partition < t->partitions_mapped ? t->maps[partition] : NULL;
    int rc = EAGRE_OK;
    if (p != NULL && p->filled) {
        *out = &p->map;
        return EAGRE_OK;
    }
    uint32_t n = eg_topic_partitions(t);
    if (partition >= n)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION,
                            "topic '%s' has no partition %u: it has %u, from 0", t->name, partition,
                            n);
    if (is_outdated(t))
        return outdated(t);
    if (p == NULL) {
        p = calloc(1, sizeof(*p));
        if (p == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", t->name, strerror(errno));
        t->maps[partition] = p;
        rc = fill_map(t, partition, &p->map);
    }
    if (rc == EAGRE_OK)
        rc = get_buffers(t, p, ALL);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc;
    if (rc != EAGRE_OK) {
        t->maps[partition] = NULL;
        clear_map(t, p);
        free(p);
        return rc;
    }
    p->filled = true;
    *out = &p->map;
    return EAGRE_OK;
}

/* ---- the topic ----------------------------------------------------------------------------------- */

static int map_objects(struct eg_topic *t, const int *fds) {
    void *status;
    void *waiters;
    int rc = eg_memfd_check(fds[0], &t->status_bytes);
    if (rc == EAGRE_OK)
        rc = eg_memfd_check(fds[1], &t->ring_bytes);
    if (rc == EAGRE_OK)
        rc = eg_memfd_check(fds[2], &t->waiters_bytes);
    if (rc == EAGRE_OK && (t->status_bytes < EG_PAGE || t->waiters_bytes < EG_PAGE))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "objects from eagred are too small");
    /* Whole: they are made for the most partitions that there can be, memory comes with use. */
    if (rc == EAGRE_OK)
        rc = eg_map(fds[0], 0, t->status_bytes, false, &status);
    if (rc != EAGRE_OK)
        return rc;
    t->status = status;
    rc = eg_map(fds[2], 0, t->waiters_bytes, true, &waiters);
    if (rc != EAGRE_OK)
        return rc;
    t->waiters = waiters;
    rc = eg_topic_status_check(t->status, t->status_bytes);
    if (rc != EAGRE_OK)
        return rc;
    if (t->status->topic_uid != t->uid)
        return eg_error_set(EAGRE_E_PROTOCOL, "topic status is of topic id %u, expected %u",
                            t->status->topic_uid, t->uid);
    t->capacity = t->status->segment_bytes;
    t->slots = t->status->ring_segments;
    t->align = t->status->align;
    t->single_writer = (eg_load_acquire(&t->status->flags) & EG_TOPIC_SINGLE_WRITER) != 0;
    t->ring_stride = eg_ring_stride(t->slots, t->capacity);
    return EAGRE_OK;
}

static void release(const struct eg_topic *t) {
    eg_session_return(t->e, EG_MSG_OPEN, (uint8_t)t->role, t->uid, t->generation);
}

/* One OPEN. Fills everything but maps. On failure t holds what unmap_objects drops. */
static int open_once(struct eg_topic *t) {
    uint8_t buf[1024];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    int fds[OPEN_FDS];
    size_t nfds = 0;
    size_t expected = t->role == EG_ROLE_PRODUCER ? OPEN_FDS : 3;
    unsigned cpu;
    unsigned node;

    if (getcpu(&cpu, &node) != 0)
        node = UINT32_MAX;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_OPEN, 0, 0);
    eg_enc_u8(&req, (uint8_t)t->role);
    eg_enc_u32(&req, node);
    eg_enc_str(&req, t->name);
    /* The generation of who granted it: the request itself may find that the instance was replaced, and a grant
     * that is not given back blocks a topic with writers=single. */
    int rc = eg_session_request_late(t->e, &t->late, &req, answer, sizeof(answer), &reply, fds, OPEN_FDS, &nfds,
                                     until_of(t, t->late), &t->generation);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return eg_error_add(rc, "topic '%s'", t->name);
    if (rc != EAGRE_OK)
        return rc;
    t->uid = eg_dec_u32(&reply);
    uint32_t partitions = eg_dec_u32(&reply);
    if (!eg_dec_end(&reply) || nfds != expected)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to OPEN is malformed");
    else if (is_outdated(t)) /* replaced after this OPEN: the grant went with it */
        rc = outdated(t);
    else if (expected == OPEN_FDS)
        rc = eg_attach_producer(t->e, t->generation, fds[3]);
    if (rc == EAGRE_OK)
        rc = map_objects(t, fds);
    if (rc == EAGRE_OK) {
        t->ring_fd = fds[1];
        fds[1] = -1;
        if (expected == OPEN_FDS) {
            t->event_fd = fds[4];
            fds[4] = -1;
        }
        uint32_t seen = eg_topic_partitions(t);
        if (partitions == 0 || seen < partitions)
            rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred says %u partitions, its objects hold %u",
                              partitions, seen);
    }
    for (size_t i = 0; i < nfds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (rc != EAGRE_OK)
        release(t);
    return rc;
}

static void unmap_objects(struct eg_topic *t) {
    for (uint32_t p = 0; p < t->partitions_mapped; p++) {
        if (t->maps[p] == NULL)
            continue;
        clear_map(t, t->maps[p]);
        free(t->maps[p]);
    }
    free(t->maps);
    if (t->status != NULL)
        eg_unmap(t->status, t->status_bytes);
    if (t->waiters != NULL)
        eg_unmap(t->waiters, t->waiters_bytes);
    eg_session_close_fd(t->e, t->ring_fd);
    eg_session_close_fd(t->e, t->event_fd);
}

static void make_empty(struct eg_topic *t, struct eagre *e, int role, const char *name, const struct eg_until *until) {
    *t = (struct eg_topic){.e = e, .role = role, .ring_fd = -1, .event_fd = -1, .until = until};
    memcpy(t->name, name, strlen(name) + 1);
}

/* Open t->name for t->role in t, which is otherwise empty; once more if eagred was replaced. */
static int open_objects(struct eg_topic *t) {
    int rc = EAGRE_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        rc = open_once(t);
        if (rc == EAGRE_OK || rc == EAGRE_E_WOULD_BLOCK)
            return rc;
        char name[sizeof(t->name)];
        bool again = is_outdated(t);
        memcpy(name, t->name, sizeof(name));
        unmap_objects(t);
        make_empty(t, t->e, t->role, name, t->until);
        if (!again)
            break;
    }
    return rc;
}

int eg_topic_open_late(struct eagre *e, int role, const char *name, const struct eg_until *until, struct eg_topic **out) {
    struct eg_topic *t = *out;
    if (t == NULL) {
        size_t n = strlen(name);
        if (n == 0 || n > EG_TOPIC_NAME_MAX)
            return eg_error_set(EAGRE_E_INVALID, "a topic's name has 1 to %u bytes, this one has %zu",
                                EG_TOPIC_NAME_MAX, n);
        t = malloc(sizeof(*t));
        if (t == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", name, strerror(errno));
        make_empty(t, e, role, name, until);
    }
    int rc = open_objects(t);
    if (rc != EAGRE_OK && rc != EAGRE_E_WOULD_BLOCK) {
        free(t);
        t = NULL;
    }
    *out = t;
    return rc;
}

int eg_topic_open(struct eagre *e, int role, const char *name, const struct eg_until *until, struct eg_topic **out) {
    int rc = eg_client_attach(e);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_topic *t = NULL;
    rc = eg_topic_open_late(e, role, name, NULL, &t);
    if (rc != EAGRE_OK) {
        eg_topic_close(t);
        return rc == EAGRE_E_WOULD_BLOCK ? EAGRE_E_TIMED_OUT : rc;
    }
    t->until = until;
    *out = t;
    return EAGRE_OK;
}

/* What a reopening has got so far goes back. opened: its OPEN was granted. */
static void drop_next(struct eg_topic *t, bool opened) {
    struct eg_topic *next = t->next;
    if (next == NULL)
        return;
    t->next = NULL;
    eg_session_give_up(next->e, &next->late);
    if (opened)
        release(next);
    unmap_objects(next);
    free(next);
}

void eg_topic_close(struct eg_topic *t) {
    if (t == NULL)
        return;
    drop_next(t, t->next != NULL && t->next->status != NULL);
    eg_session_give_up(t->e, &t->late); /* of one that is not open yet */
    if (t->status != NULL)
        release(t);
    unmap_objects(t);
    free(t);
}

/* Open the topic in t->next. */
static int open_next(struct eg_topic *t) {
    if (t->next != NULL && t->next->status != NULL && !is_outdated(t->next))
        return EAGRE_OK;
    if (t->next != NULL && t->next->status != NULL)
        drop_next(t, false); /* its instance was replaced, too */
    if (t->next == NULL) {
        t->next = malloc(sizeof(*t->next));
        if (t->next == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", t->name, strerror(errno));
        make_empty(t->next, t->e, t->role, t->name, t->until);
    }
    int rc = open_objects(t->next);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc;
    bool gone = rc == EAGRE_E_UNKNOWN_TOPIC || (rc == EAGRE_OK && t->next->uid != t->uid);
    if (rc != EAGRE_OK || gone)
        drop_next(t, rc == EAGRE_OK);
    return gone ? eg_error_set(EAGRE_E_TOPIC_DELETED, "topic '%s' was deleted while eagred was replaced", t->name) : rc;
}

int eg_topic_reopen(struct eg_topic *t) {
    int rc = open_next(t);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_topic *now = t->next;

    /* New maps for those that are in use, then their contents move to the old places. */
    for (uint32_t p = 0; p < t->partitions_mapped && rc == EAGRE_OK; p++) {
        struct eg_partition_map *unused;
        if (t->maps[p] != NULL && t->maps[p]->filled)
            rc = eg_topic_partition(now, p, &unused);
    }
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc;
    if (rc != EAGRE_OK) {
        drop_next(t, true);
        return rc;
    }
    for (uint32_t p = 0; p < t->partitions_mapped; p++) {
        if (t->maps[p] == NULL || !t->maps[p]->filled)
            continue;
        struct eg_partition_map old = t->maps[p]->map;
        t->maps[p]->map = now->maps[p]->map;
        t->maps[p]->map.ctx = t;
        eg_session_give_up(t->e, &t->maps[p]->late);
        now->maps[p]->map = old; /* to be dropped with the rest */
        struct eg_mapped *place = now->maps[p];
        now->maps[p] = t->maps[p];
        t->maps[p] = place;
    }
    struct eg_topic old = *t;
    *t = *now;
    free(now);
    unmap_objects(&old);
    return EAGRE_OK;
}
