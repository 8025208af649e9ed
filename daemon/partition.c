#include "partition.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "archive.h"
#include "recover.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/futex.h"
#include "sys/shm.h"

bool eg_partition_failed(const struct eg_partition *p) {
    return eg_load_relaxed(&p->status->state) == EG_PARTITION_ERROR;
}

void eg_partition_room(struct eg_partition_status *status) {
    /* Release: who has seen the new count sees the slot, too, so that the count it waits on is never
     * newer than what it looked at. Partner: the acquire in claim_wait(). */
    atomic_fetch_add_explicit(&status->room, 1, memory_order_release);
    eg_futex_wake(&status->room, INT_MAX);
}

void eg_partition_fail(struct eg_partition *p, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!eg_partition_failed(p))
        eg_log_error("topic '%s' partition %u is destroyed: %s. Its producers can write its "
                     "memory, and one of them "
                     "wrote nonsense; delete the topic and create it again",
                     eg_topic_name(p->topic), p->number, text);
    eg_store_release(&p->status->state, EG_PARTITION_ERROR);
    eg_partition_room(p->status);
}

/* The part that is in this process only. */
static struct eg_partition *partition_new(struct eg_topic *t, uint32_t number, uint32_t uid) {
    struct eg_partition *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory for partition %u", eg_topic_name(t),
                     number);
        return NULL;
    }
    p->topic = t;
    p->number = number;
    p->uid = uid;
    p->status = eg_status_of(t->status, number);
    p->ring = (struct eg_ring *)(void *)(t->ring + number * t->ring_stride);
    p->waiters = &t->waiters[number];
    p->building = p->cleaning = EG_NO_BUFFER;
    p->next_look = p->turn_ns = INT64_MAX;
    return p;
}

static int take_index(struct eg_daemon *d, struct eg_partition *p, uint32_t index) {
    struct eg_topics *all = d->topics;
    if (index == UINT32_MAX) {
        for (uint32_t i = 0; i < EG_PARTITIONS_MAX && index == UINT32_MAX; i++)
            if (all->by_index[(all->index_hint + i) % EG_PARTITIONS_MAX] == NULL)
                index = (all->index_hint + i) % EG_PARTITIONS_MAX;
        if (index == UINT32_MAX)
            return eg_error_set(EAGRE_E_LIMIT,
                                "topic '%s': an instance has at most %u partitions, and has them",
                                eg_topic_name(p->topic), EG_PARTITIONS_MAX);
        all->index_hint = (index + 1) % EG_PARTITIONS_MAX;
    } else if (index >= EG_PARTITIONS_MAX || all->by_index[index] != NULL) {
        return eg_error_set(EAGRE_E_CORRUPT,
                            "topic '%s' partition %u: its index %u is not possible",
                            eg_topic_name(p->topic), p->number, index);
    }
    p->index = index;
    all->by_index[index] = p;
    return EAGRE_OK;
}

static bool is_on_disk(const struct eg_topic *t) { return t->settings.v[EG_SET_STORAGE] == EG_STORAGE_DISK; }

/* Its archiver, with the files that were recovered. That they could not be is an error of this partition alone. cold: its
 * memory is new. */
static int open_archive(struct eg_daemon *d, struct eg_partition *p, bool cold, struct eg_recovered *found) {
    int rc = eg_recover_take(d, p->uid, cold, found);
    if (rc != EAGRE_OK)
        eg_log_error("topic '%s' partition %u: nothing can be read from it or produced to it: %s", eg_topic_name(p->topic), p->number,
                     eg_error_text());
    int opened = eg_archive_open(d, p, &found->files, rc != EAGRE_OK ? eg_error_text() : NULL);
    eg_files_free(&found->files);
    return opened;
}

/* Where the log begins and, with new memory, goes on: at `start` and in segment seq, or behind what was found. */
static void store_start(struct eg_partition *p, int64_t start, uint64_t seq, const struct eg_recovered *found, bool known) {
    struct eg_partition_status *s = p->status;
    int64_t log_start;
    start = start > found->end ? start : found->end;
    seq = seq > found->next_seq ? seq : found->next_seq;
    log_start = !known ? 0 : found->log_start < found->end ? found->log_start : start;
    int64_t said = (int64_t)eg_load_relaxed(&s->log_start);
    eg_store_release(&s->log_start, (uint64_t)(log_start > said ? log_start : said)); /* partner: readers' acquire */
    eg_store_relaxed(&s->start_offset, start);
    eg_store_relaxed(&s->start_seq, seq);
    eg_store_relaxed(&s->durable_end, (uint64_t)start);
    eg_store_relaxed(&s->archived_flush, 1);
    eg_store_relaxed(&s->archived_at, eg_hint_make(EG_SEGMENT_DATA, 0));
    eg_store_relaxed(&s->archived_seq, seq);
}

/* Where the log goes on, with new memory. again: a predecessor has said where, and nobody was here since: that stays true,
 * though the mark may lie far ahead by now. Else the mark: exact after a clean stop, otherwise beyond every offset that
 * somebody may have seen: those that are lost are not given out again. */
static int note_start(struct eg_daemon *d, struct eg_partition *p, bool again) {
    struct eg_partition_status *s = p->status;
    struct eg_recovered found = {0};
    bool known = true;
    if (is_on_disk(p->topic)) {
        int rc = open_archive(d, p, true, &found);
        if (rc != EAGRE_OK)
            return rc;
        known = eg_archive_unrecovered(p) == NULL;
        if (known)
            eg_store_relaxed(&s->disk, EG_DISK_OK);
    }
    store_start(p, again ? eg_load_relaxed(&s->start_offset) : p->mark.end, again ? eg_load_relaxed(&s->start_seq) : p->mark.seq,
                &found, known);
    return EAGRE_OK;
}

void eg_partition_recovered(struct eg_partition *p, const struct eg_recovered *found) {
    if (p->buffers == NULL)
        store_start(p, eg_load_relaxed(&p->status->start_offset), eg_load_relaxed(&p->status->start_seq), found, true);
}

int eg_partition_make(struct eg_daemon *d, struct eg_topic *t, uint32_t number, uint32_t uid,
                      struct eg_partition **out) {
    struct eg_partition *p = partition_new(t, number, uid);
    if (p == NULL)
        return EAGRE_E_NO_MEMORY;
    int rc = eg_meta_mark_get(d->meta, uid, &p->mark);
    if (rc == EAGRE_OK)
        rc = take_index(d, p, UINT32_MAX);
    if (rc != EAGRE_OK) {
        free(p);
        return rc;
    }
    rc = note_start(d, p, false);
    if (rc != EAGRE_OK) {
        d->topics->by_index[p->index] = NULL;
        free(p);
        return rc;
    }
    p->status->uid = uid;
    p->status->index = p->index;
    eg_store_release(&p->status->state, EG_PARTITION_ACTIVE);
    eg_magic_init(&p->ring->magic);
    p->ring->partition_uid = uid;
    p->ring->partition_index = p->index;
    eg_magic_publish(&p->ring->magic, EG_MAGIC_RING);
    *out = p;
    return EAGRE_OK;
}

static void buffers_free(struct eg_daemon *d, struct eg_partition *p, bool drop) {
    for (uint32_t n = 0; p->buffers != NULL && n < EG_BUFFERS_MAX; n++) {
        if (p->buffers[n].fd < 0)
            continue;
        if (drop) {
            eg_buffer_drop(d, p, n);
        } else {
            eg_unmap(p->buffers[n].base, eg_partition_capacity(p));
            close(p->buffers[n].fd);
        }
    }
    free(p->buffers);
    p->buffers = NULL;
}

void eg_partition_free(struct eg_daemon *d, struct eg_partition *p, bool drop) {
    int64_t extra = (int64_t)p->detached + p->dirty;
    for (uint32_t n = 0; p->buffers != NULL && n < EG_BUFFERS_MAX; n++)
        extra += eg_load_relaxed(&p->status->buffer[n].use) == EG_BUFFER_SPARE;
    eg_topic_count_extra(d, p->topic, -extra);
    d->figures.memory_pinned -= p->detached * eg_partition_capacity(p);
    eg_slots_forget(d, p);
    eg_archive_close(d, p);
    buffers_free(d, p, drop);
    if (d->topics->by_index[p->index] == p)
        d->topics->by_index[p->index] = NULL;
    free(p);
}

int eg_partition_open(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_topic *t = p->topic;
    uint32_t slots = eg_partition_slots(p), number;
    if (eg_partition_failed(p))
        return eg_error_set(
            EAGRE_E_CORRUPT,
            "topic '%s' partition %u is in error state: a producer destroyed its ring; delete the "
            "topic and create it again",
            eg_topic_name(t), p->number);
    if (p->buffers != NULL)
        return EAGRE_OK;
    if (p->archive != NULL && eg_archive_unrecovered(p) != NULL)
        return eg_error_set(EAGRE_E_IO, "topic '%s' partition %u: %s", eg_topic_name(t), p->number, eg_archive_unrecovered(p));
    p->buffers = malloc(EG_BUFFERS_MAX * sizeof(*p->buffers));
    if (p->buffers == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory for partition %u",
                            eg_topic_name(t), p->number);
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        p->buffers[n] = (struct eg_buffer){.fd = -1};

    int64_t start = eg_load_relaxed(&p->status->start_offset), now = eg_now_ns();
    uint64_t words[EG_RING_SEGMENTS_MAX];
    p->first = p->active = eg_load_relaxed(&p->status->start_seq);
    p->base[p->first % slots] = start;
    int rc = eg_partition_mark_ahead(d, p, p->first + slots - 1);
    for (uint32_t i = 0; rc == EAGRE_OK && i < slots; i++) {
        uint64_t seq = p->first + i;
        rc = eg_buffer_make(d, p, &number);
        if (rc != EAGRE_OK)
            break;
        struct eg_segment_header *h = eg_buffer_header(p, number);
        eg_segment_init(h, t->status, p->number, p->uid, seq, now);
        if (i == 0)
            eg_store_relaxed(&h->base, start);
        words[seq % slots] = eg_slot_make(seq, number, i == 0 ? EG_SLOT_OPEN : EG_SLOT_READY);
        eg_buffer_use(p, number, EG_BUFFER_SLOT, seq);
    }
    if (rc != EAGRE_OK) {
        buffers_free(d, p, true);
        return rc;
    }
    /* All that a word leads to comes before it, and the journal before the ring (partition.h). */
    eg_store_release(&p->ring->active, p->first);
    for (uint32_t i = 0; i < slots; i++)
        eg_store_release(&p->status->slot[i], words[i]);
    for (uint32_t i = 0; i < slots; i++)
        eg_store_release(&p->ring->slot[i].word, words[i]);
    p->tail = EG_SEGMENT_DATA;
    if (p->archive != NULL)
        eg_archive_begin(p);
    eg_slots_wake(d, p);
    return EAGRE_OK;
}

/* ---- after a predecessor ------------------------------------------------------------------------- */

/* One journalled buffer from the keeper. False: it is not there or not what it should be. */
static bool take_buffer(struct eg_daemon *d, struct eg_partition *p, uint32_t n) {
    char name[EG_KEEP_NAME_MAX + 1];
    uint64_t capacity = eg_partition_capacity(p);
    size_t size;
    void *base;
    int fd = eg_keep_take(d->keep, eg_partition_keep_name(p, n, name, sizeof(name)));
    if (fd < 0)
        return false;
    if (eg_memfd_check(fd, &size) != EAGRE_OK || size != capacity ||
        eg_buffer_allocated(p, n) > capacity || eg_buffer_allocated(p, n) < EG_PAGE ||
        eg_map(fd, 0, size, true, &base) != EAGRE_OK) {
        if (eg_keep_drop(d->keep, name) != EAGRE_OK)
            eg_log_warning("%s", eg_error_text());
        close(fd);
        return false;
    }
    p->buffers[n] = (struct eg_buffer){.fd = fd, .base = base};
    d->figures.memory_allocated += eg_buffer_allocated(p, n);
    return true;
}

static void take_buffers(struct eg_daemon *d, struct eg_partition *p, uint32_t slots) {
    int64_t extra = 0;
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        struct eg_buffer_journal *j = &p->status->buffer[n];
        p->buffers[n] = (struct eg_buffer){.fd = -1};
        uint32_t use = eg_load_relaxed(&j->use);
        if (use == EG_BUFFER_NONE)
            continue;
        if (!take_buffer(d, p, n)) {
            eg_store_relaxed(&j->allocated, 0);
            eg_buffer_use(p, n, EG_BUFFER_NONE, 0);
            continue;
        }
        uint64_t seq = eg_load_relaxed(&j->seq), newest = 0;
        bool named = false;
        for (uint32_t i = 0; i < slots; i++) {
            uint64_t noted = eg_load_relaxed(&p->status->slot[i]);
            named |= eg_slot_buffer(noted) == n;
            newest = eg_slot_seq(noted) > newest ? eg_slot_seq(noted) : newest;
        }
        if (named) {
            eg_buffer_use(p, n, EG_BUFFER_SLOT, seq);
            continue;
        }
        extra++;
        /* SLOT: cut off in the middle of a swap. The old buffer may be pinned; the new one, whose segment no
         * slot has had yet, is nobody's. */
        if (use == EG_BUFFER_DETACHED || (use == EG_BUFFER_SLOT && seq <= newest)) {
            eg_buffer_use(p, n, EG_BUFFER_DETACHED, seq);
            p->detached++;
        } else if (use != EG_BUFFER_SPARE) {
            eg_buffer_use(p, n, EG_BUFFER_DIRTY, 0);
            p->dirty++;
        }
    }
    eg_topic_count_extra(d, p->topic, extra);
    d->figures.memory_pinned += p->detached * eg_partition_capacity(p);
    p->topic->pinned_bytes += p->detached * eg_partition_capacity(p);
}

/* Bring the ring's word of slot i up to the journal's, if what it says can be explained. */
static bool settle_word(struct eg_partition *p, uint32_t i, uint32_t slots) {
    uint64_t noted = eg_load_relaxed(&p->status->slot[i]);
    uint64_t word = eg_load_acquire(&p->ring->slot[i].word);
    uint64_t seq = eg_slot_seq(noted);
    uint32_t buffer = eg_slot_buffer(noted);
    if (word == noted)
        return true;
    switch (eg_slot_state(noted)) {
    case EG_SLOT_READY:
        if (word == eg_slot_make(seq, buffer, EG_SLOT_OPEN))
            return true; /* a producer went on to it */
        if (word != 0 &&
            (eg_slot_state(word) != EG_SLOT_RETIRING || eg_slot_seq(word) != seq - slots))
            return false;
        break; /* cut off behind the journal's store */
    case EG_SLOT_OPEN:
        if (word != 0)
            return false;
        break;
    case EG_SLOT_RETIRING:
        if (word != eg_slot_make(seq, buffer, EG_SLOT_OPEN))
            return false;
        break;
    default:
        return false;
    }
    eg_store_release(&p->ring->slot[i].word, noted);
    return true;
}

/* first, active and bases from the ring. False: it contradicts itself. */
static bool take_ring(struct eg_partition *p, uint32_t slots) {
    uint64_t first = UINT64_MAX, capacity = eg_partition_capacity(p);
    for (uint32_t i = 0; i < slots; i++) {
        uint64_t seq = eg_slot_seq(eg_load_relaxed(&p->status->slot[i]));
        first = seq < first ? seq : first;
    }
    uint64_t active = eg_load_acquire(&p->ring->active);
    if (active < first || active - first >= slots)
        return false;
    int64_t before = -1;
    for (uint32_t k = 0; k < slots; k++) {
        uint64_t seq = first + k, noted = eg_load_relaxed(&p->status->slot[seq % slots]);
        uint32_t n = eg_slot_buffer(noted);
        if (eg_slot_seq(noted) != seq || n >= EG_BUFFERS_MAX || p->buffers[n].fd < 0 ||
            !settle_word(p, (uint32_t)(seq % slots), slots))
            return false;
        uint32_t state = eg_slot_state(eg_load_acquire(&p->ring->slot[seq % slots].word));
        if (state == EG_SLOT_RETIRING && k == 0 && active > first) {
            p->retire = EG_RETIRE_SCAN; /* from the beginning: each step can be repeated */
            continue;
        }
        /* Producers go on all the while: what is open now was opened when active was one before it. */
        bool moved = state == EG_SLOT_OPEN && eg_load_acquire(&p->ring->active) + 1 >= seq;
        if (seq > active + 1 ? state != EG_SLOT_READY && !moved
            : seq <= active  ? state != EG_SLOT_OPEN
                             : state == EG_SLOT_RETIRING)
            return false;
        if (seq > active)
            continue;
        const struct eg_segment_header *h = eg_buffer_header(p, n);
        int64_t base = eg_load_acquire(&h->base);
        if (eg_segment_check(h, p->uid, seq, capacity) != EAGRE_OK || base < 0 ||
            (before >= 0 && (base < before || base - before > eg_partition_records_max(p))))
            return false;
        p->base[seq % slots] = before = base;
        if (seq < active && eg_load_relaxed(&p->status->sealed_ns[seq % slots]) == 0)
            eg_store_relaxed(&p->status->sealed_ns[seq % slots], eg_now_ns());
    }
    p->first = first;
    p->active = active;
    p->tail = EG_SEGMENT_DATA;
    return true;
}

int eg_partition_take(struct eg_daemon *d, struct eg_topic *t, uint32_t number, uint32_t uid,
                      struct eg_partition **out) {
    uint32_t slots = (uint32_t)t->settings.v[EG_SET_RING_SEGMENTS];
    struct eg_partition *p = partition_new(t, number, uid);
    if (p == NULL)
        return EAGRE_E_NO_MEMORY;
    int rc = EAGRE_OK;
    if (p->status->uid != uid)
        rc = eg_error_set(EAGRE_E_CORRUPT, "topic '%s' partition %u: has id %u, expected %u",
                          eg_topic_name(t), number, p->status->uid, uid);
    if (rc == EAGRE_OK)
        rc = eg_meta_mark_get(d->meta, uid, &p->mark);
    if (rc == EAGRE_OK)
        rc = take_index(d, p, p->status->index);
    bool opened = true; /* else: never, or cut off before anybody got a buffer */
    for (uint32_t i = 0; i < slots; i++)
        opened &= eg_load_relaxed(&p->status->slot[i]) != 0;
    if (rc == EAGRE_OK && is_on_disk(t)) {
        struct eg_recovered found = {0};
        rc = opened ? open_archive(d, p, false, &found) : note_start(d, p, true);
        if (rc != EAGRE_OK)
            d->topics->by_index[p->index] = NULL;
    }
    if (rc != EAGRE_OK) {
        free(p);
        return rc;
    }
    *out = p;
    if (!opened) {
        for (uint32_t i = 0; i < slots; i++)
            eg_store_relaxed(&p->status->slot[i], 0);
        for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
            eg_buffer_use(p, n, EG_BUFFER_NONE, 0);
        return EAGRE_OK;
    }
    p->buffers = malloc(EG_BUFFERS_MAX * sizeof(*p->buffers));
    if (p->buffers == NULL) {
        d->topics->by_index[p->index] = NULL;
        eg_archive_close(d, p);
        free(p);
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory for partition %u",
                            eg_topic_name(t), number);
    }
    take_buffers(d, p, slots);
    if (!eg_partition_failed(p) && !take_ring(p, slots))
        eg_partition_fail(p, "what the daemon noted and what the ring says cannot both be");
    if (p->archive != NULL)
        eg_archive_begin(p);
    return EAGRE_OK;
}
