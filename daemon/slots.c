#include "slots.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "clients.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/cpu.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/membarrier.h"

/*
 * The oldest segment's slot on its way to its next life (s = its seq, N = ring.segments):
 *
 *   NOT    log_start; journal RETIRING; CAS (s,OPEN,b) -> (s,RETIRING,b)      retire.marked
 *   SCAN   membarrier; whose pins hold s?                                     retire.scanned
 *     none:  header and hint for s+N                                          retire.reset
 *   ZERO     zero the frames, slice by slice                                  retire.zero_half
 *   HELD   somebody's pin holds it. If the ring needs the slot: a spare buffer takes b's place,
 *          b is DETACHED until the pin goes                                   retire.swapped
 *   then   index zeroed; journal (s+N,READY,..); the ring's word, release     ready.before
 *
 * Whoever checked the slot's word after its pin and before the CAS is seen by the scan, because of
 * the membarrier; whoever checks later finds RETIRING and takes the pin back. So a later look at the pins
 * needs no membarrier: pins on s only go. A producer pins from before its claim until after its
 * publish, so "no pin" also means that no live client has an unpublished claim in s.
 */

#define SLICE (UINT64_C(1) << 20)      /* zeroed at a time */
#define AHEAD_MIN (UINT64_C(1) << 20)  /* memory ahead of the tail: as much as was written ... */
#define AHEAD_MAX (UINT64_C(8) << 20)  /* ... four times over, within these */
#define NEXT_AHEAD (UINT64_C(2) << 20) /* of the next segment */
#define BUSY (UINT64_C(8) << 20)       /* so many bytes since it woke: fill the READY slots, too */
#define AWAKE_NS (100 * EG_NS_PER_MS)
#define FAST_TURN_NS (10 * EG_NS_PER_MS)
#define POLL_NS EG_NS_PER_MS
#define HELD_NS (10 * EG_NS_PER_MS) /* looks at pins while nothing else happens */
#define DETACHED_NS (100 * EG_NS_PER_MS)
#define RETRY_NS EG_NS_PER_S /* after memory or the store was refused */
#define TICK_NS (200 * EG_NS_PER_US)

static uint32_t slot_of(const struct eg_partition *p, uint64_t seq) {
    return (uint32_t)(seq % eg_partition_slots(p));
}
static uint64_t noted(const struct eg_partition *p, uint64_t seq) {
    return eg_load_relaxed(&p->status->slot[slot_of(p, seq)]);
}
static uint32_t buffer_of(const struct eg_partition *p, uint64_t seq) {
    return eg_slot_buffer(noted(p, seq));
}
static uint32_t use_of(const struct eg_partition *p, uint32_t n) {
    return eg_load_relaxed(&p->status->buffer[n].use);
}

/* Highest seq that producers can go to. */
static uint64_t last_ready(const struct eg_partition *p) {
    return p->first + eg_partition_slots(p) - 1;
}

/* ---- what producers did -------------------------------------------------------------------------- */

static void see_activity(struct eg_partition *p, uint64_t bytes, int64_t now) {
    p->written += bytes;
    p->awake_until = now + AWAKE_NS;
}

/* Everything here can be written by producers: each value is loaded once and must fit. */
bool eg_slots_follow(struct eg_partition *p, int64_t now) {
    uint64_t capacity = eg_partition_capacity(p);
    uint64_t active = eg_load_acquire(&p->ring->active);
    if (active < p->active || active > last_ready(p)) {
        eg_partition_fail(p, "active segment %" PRIu64 " after %" PRIu64, active, p->active);
        return false;
    }
    if (active > p->active) {
        p->turn_ns = (now - p->turned_ns) / (int64_t)(active - p->active);
        p->turned_ns = now;
    }
    while (p->active < active) {
        uint64_t seq = p->active + 1;
        uint32_t i = slot_of(p, seq), n = buffer_of(p, seq);
        uint64_t word = eg_load_acquire(&p->ring->slot[i].word);
        int64_t base = eg_load_acquire(&eg_buffer_header(p, n)->base);
        int64_t before = p->base[slot_of(p, p->active)];
        if (word != eg_slot_make(seq, n, EG_SLOT_OPEN)) {
            eg_partition_fail(p, "slot of segment %" PRIu64 " says %016" PRIx64, seq, word);
            return false;
        }
        if (base < before || base - before > eg_partition_records_max(p)) {
            eg_partition_fail(
                p, "segment %" PRIu64 " begins at offset %" PRId64 ", the one before at %" PRId64,
                seq, base, before);
            return false;
        }
        eg_store_relaxed(&p->status->sealed_ns[slot_of(p, p->active)], eg_now_coarse_ns());
        p->base[i] = base;
        p->active = seq;
        see_activity(p, capacity - p->tail, now);
        p->tail = EG_SEGMENT_DATA;
    }
    uint64_t tail = eg_hint_pos(eg_load_relaxed(&eg_buffer_header(p, buffer_of(p, active))->hint));
    if (tail > p->tail && tail <= capacity) {
        see_activity(p, tail - p->tail, now);
        p->tail = tail;
    }
    return true;
}

/* ---- memory ahead -------------------------------------------------------------------------------- */

/* One batch for the buffer of segment seq. True: something was done. */
static bool fill(struct eg_daemon *d, struct eg_partition *p, uint64_t seq, uint64_t to,
                 int64_t now) {
    static struct eg_log_limit limit;
    uint64_t capacity = eg_partition_capacity(p);
    uint32_t n = buffer_of(p, seq);
    to = to < capacity ? to : capacity;
    if (eg_buffer_allocated(p, n) >= to)
        return false;
    (void)eg_buffer_sync(d, p, n); /* what it cannot confirm is allocated here */
    if (eg_buffer_allocated(p, n) >= to)
        return false;
    int rc = eg_buffer_allocate(d, p, n, to);
    if (rc < 0) {
        eg_log_limited(&limit, EG_LOG_WARNING, "%s", eg_error_text());
        p->memory_retry = now + RETRY_NS;
        return false;
    }
    return true;
}

static bool fill_ahead(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    if (now < p->memory_retry)
        return false;
    uint64_t capacity = eg_partition_capacity(p);
    uint64_t ahead = 4 * (p->tail - EG_SEGMENT_DATA);
    ahead = ahead < AHEAD_MIN ? AHEAD_MIN : ahead > AHEAD_MAX ? AHEAD_MAX : ahead;
    if (p->written > 0 && fill(d, p, p->active, p->tail + ahead, now))
        return true;
    if (p->written < BUSY && p->tail < capacity / 2)
        return false;
    for (uint64_t seq = p->active + 1; seq <= last_ready(p); seq++)
        if (fill(d, p, seq, p->written >= BUSY ? capacity : NEXT_AHEAD, now))
            return true;
    return false;
}

/* ---- zeroing ------------------------------------------------------------------------------------- */

/* One slice of the buffer's frames; *at: how far it is. True: all of it is zero. */
static bool zero_slice(struct eg_partition *p, uint32_t n, uint64_t *at) {
    uint64_t end = eg_buffer_allocated(p, n);
    if (*at < end) {
        uint64_t bytes = end - *at < SLICE ? end - *at : SLICE;
        eg_zero_stream(p->buffers[n].base + *at, bytes);
        *at += bytes;
    }
    return *at >= end;
}

static void free_buffer(struct eg_daemon *d, struct eg_partition *p, uint32_t n) {
    eg_topic_count_extra(d, p->topic, -1);
    eg_buffer_drop(d, p, n);
}

static uint32_t find_use(const struct eg_partition *p, enum eg_buffer_use use) {
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        if (p->buffers[n].fd >= 0 && use_of(p, n) == use && n != p->building)
            return n;
    return EG_NO_BUFFER;
}

/* One slice of cleaning what readers held. True: there was something to do. */
static bool clean(struct eg_daemon *d, struct eg_partition *p) {
    if (p->cleaning == EG_NO_BUFFER) {
        if (p->dirty == (p->building != EG_NO_BUFFER))
            return false;
        p->cleaning = find_use(p, EG_BUFFER_DIRTY);
        if (p->cleaning == EG_NO_BUFFER)
            return false;
        p->clean_at = EG_SEGMENT_DATA;
    }
    uint32_t n = p->cleaning;
    bool drop = find_use(p, EG_BUFFER_SPARE) != EG_NO_BUFFER; /* one is enough */
    if (!drop && p->clean_at == EG_SEGMENT_DATA && !eg_buffer_sync(d, p, n))
        drop = true; /* who knows what lies behind what we may touch */
    if (!drop && !zero_slice(p, n, &p->clean_at))
        return true;
    p->cleaning = EG_NO_BUFFER;
    p->dirty--;
    if (drop)
        free_buffer(d, p, n);
    else
        eg_buffer_use(p, n, EG_BUFFER_SPARE, 0);
    return true;
}

/* Detached buffers whose last pin went are dirty from now on. */
static void look_at_detached(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    if (p->detached == 0 || now < p->detached_look)
        return;
    p->detached_look = now + POLL_NS;
    for (uint32_t n = 0; p->detached > 0 && n < EG_BUFFERS_MAX; n++) {
        if (use_of(p, n) != EG_BUFFER_DETACHED ||
            eg_clients_pinned(p->topic, p->index, eg_load_relaxed(&p->status->buffer[n].seq), NULL,
                              0, NULL))
            continue;
        eg_buffer_use(p, n, EG_BUFFER_DIRTY, 0);
        p->detached--;
        p->dirty++;
        p->topic->pinned_bytes -= eg_partition_capacity(p);
        d->figures.memory_pinned -= eg_partition_capacity(p);
    }
}

/* ---- retiring ------------------------------------------------------------------------------------ */

/* Must the oldest segment go, for producers to have slots READY ahead? One; half of the ring while
 * segments go by almost as fast as we look. */
static bool needs_slot(const struct eg_partition *p) {
    uint64_t wanted = p->turn_ns < FAST_TURN_NS ? eg_partition_slots(p) / 2 : 1;
    return last_ready(p) - p->active < wanted;
}

/* May it go, because of retention? */
static bool is_expired(const struct eg_partition *p, int64_t *due) {
    const struct eg_settings *s = &p->topic->settings;
    if (p->first >= p->active || p->archive != NULL) /* then files expire, not slots */
        return false;
    int64_t bytes = s->v[EG_SET_RETENTION_BYTES], ms = s->v[EG_SET_RETENTION_MS];
    uint64_t others = (p->active - p->first - 1) * eg_partition_capacity(p) + p->tail;
    if (bytes >= 0 && others >= (uint64_t)bytes)
        return true;
    if (ms < 0)
        return false;
    int64_t age_ns =
        eg_now_coarse_ns() - eg_load_relaxed(&p->status->sealed_ns[slot_of(p, p->first)]);
    int64_t rest_ns = ms * EG_NS_PER_MS - age_ns;
    if (rest_ns > 0 && rest_ns < *due)
        *due = rest_ns;
    return rest_ns <= 0;
}

/* Is the oldest segment to go now? What is not on disk yet stays: producers wait for the disk then. */
static bool may_retire(const struct eg_partition *p, int64_t *due) {
    return p->retire == EG_RETIRE_NOT && p->first < p->active &&
           (p->archive == NULL || eg_archive_has(p, p->first)) && (needs_slot(p) || is_expired(p, due));
}

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

static void retire_mark(struct eg_partition *p) {
    uint64_t seq = p->first;
    uint32_t i = slot_of(p, seq), n = buffer_of(p, seq);
    uint64_t word = eg_slot_make(seq, n, EG_SLOT_OPEN);
    uint64_t start = (uint64_t)p->base[slot_of(p, seq + 1)];
    /* Release: a reader that finds the slot gone learns from it where the log begins now. */
    if (p->archive == NULL && eg_load_relaxed(&p->status->log_start) < start)
        eg_store_release(&p->status->log_start, start);
    eg_store_release(&p->status->slot[i], eg_slot_make(seq, n, EG_SLOT_RETIRING));
    if (!eg_cas_acq_rel(&p->ring->slot[i].word, &word, eg_slot_make(seq, n, EG_SLOT_RETIRING))) {
        eg_partition_fail(p, "slot of segment %" PRIu64 " says %016" PRIx64, seq, word);
        return;
    }
    EG_FAULT("retire.marked");
    p->retire = EG_RETIRE_SCAN;
}

/* The slot's next life begins: n is zeroed and its header says seq. */
static void retire_ready(struct eg_partition *p, uint64_t seq, uint32_t n) {
    uint32_t i = slot_of(p, seq);
    uint64_t word = eg_slot_make(seq, n, EG_SLOT_READY);
    /* Relaxed: readers that are pinned on what the slot held before a swap may still look here. What they find
     * is only where they begin to walk, and checked (src/log/reader.c). */
    _Atomic uint64_t *index = eg_ring_index(p->ring, eg_partition_slots(p), i, eg_partition_capacity(p));
    for (size_t k = 0; k < eg_index_blocks(eg_partition_capacity(p)); k++)
        eg_store_relaxed(&index[k], 0);
    EG_FAULT("ready.before");
    eg_store_release(&p->status->slot[i], word);
    /* Release: zeroed bytes, header and index come first. Partner: the producers' next.seen. */
    eg_store_release(&p->ring->slot[i].word, word);
    p->first++;
    p->retire = EG_RETIRE_NOT;
    eg_partition_room(p->status);
}

static void prepare_header(struct eg_partition *p, uint32_t n, uint64_t seq) {
    eg_segment_init(eg_buffer_header(p, n), p->topic->status, p->number, p->uid, seq, eg_now_ns());
    /* Before the journal: a successor must not take the age of the slot's last life for the next one's. */
    eg_store_relaxed(&p->status->sealed_ns[slot_of(p, seq)], 0);
}

static void show_blocked(struct eg_partition *p, const uint32_t *pids, size_t count) {
    for (size_t i = 0; i < 8; i++)
        eg_store_relaxed(&p->status->blocked_pid[i], i < count ? pids[i] : 0);
}

/* A spare buffer takes the place of the one that pins hold. */
static void swap_in(struct eg_daemon *d, struct eg_partition *p, uint32_t spare) {
    uint64_t seq = p->first, next = seq + eg_partition_slots(p),
             capacity = eg_partition_capacity(p);
    uint32_t i = slot_of(p, seq), old = buffer_of(p, seq);
    prepare_header(p, spare, next);
    EG_FAULT("retire.reset");
    eg_buffer_use(p, spare, EG_BUFFER_SLOT, next);
    eg_store_release(&p->status->slot[i],
                     eg_slot_make(next, spare, EG_SLOT_READY)); /* the swap is done here */
    eg_buffer_use(p, old, EG_BUFFER_DETACHED, seq);
    EG_FAULT("retire.swapped");
    p->detached++;
    p->topic->pinned_bytes += capacity;
    d->figures.memory_pinned += capacity;
    retire_ready(p, next, spare);
}

/* Work on a buffer to swap to. True: there was something to do (look again at once). */
static bool build_spare(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    struct eg_topic *t = p->topic;
    uint64_t capacity = eg_partition_capacity(p);
    if (p->dirty > (p->building != EG_NO_BUFFER) || now < p->memory_retry)
        return false; /* one is being cleaned: that is faster */
    if (p->building == EG_NO_BUFFER) {
        if (t->pinned_bytes + capacity > (uint64_t)t->settings.v[EG_SET_PINNED_BYTES_MAX] ||
            d->figures.memory_committed + d->topics->extra_bytes + capacity > d->config.memory_max ||
            eg_quota_check(d, t->account, EG_QUOTA_MEMORY, capacity) != EAGRE_OK ||
            eg_quota_check(d, t->account, EG_QUOTA_BUFFERS, 1) != EAGRE_OK)
            return false;
        if (eg_buffer_make(d, p, &p->building) != EAGRE_OK) {
            eg_log_warning("%s", eg_error_text());
            p->building = EG_NO_BUFFER;
            p->memory_retry = now + RETRY_NS;
            return false;
        }
        p->dirty++;
        eg_topic_count_extra(d, t, 1);
    }
    int rc = eg_buffer_allocate(d, p, p->building, NEXT_AHEAD < capacity ? NEXT_AHEAD : capacity);
    if (rc < 0) {
        eg_log_warning("%s", eg_error_text());
        p->memory_retry = now + RETRY_NS;
        p->building = EG_NO_BUFFER; /* clean() drops it */
        return false;
    }
    if (rc == EAGRE_OK) {
        eg_buffer_use(p, p->building, EG_BUFFER_SPARE, 0);
        p->building = EG_NO_BUFFER;
        p->dirty--;
    }
    return true;
}

/* One step. True: look again at once. */
static bool retire_step(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    uint32_t pids[8];
    size_t count = 0;
    uint64_t next = p->first + eg_partition_slots(p);
    uint32_t n = buffer_of(p, p->first);
    if (p->retire == EG_RETIRE_SCAN)
        eg_membarrier();
    if (p->retire == EG_RETIRE_SCAN || p->retire == EG_RETIRE_HELD) {
        bool held = eg_clients_pinned(p->topic, p->index, p->first, pids, 8, &count);
        if (p->retire == EG_RETIRE_SCAN)
            EG_FAULT("retire.scanned");
        p->retire = EG_RETIRE_HELD;
        /* The mark first: what this slot's next life gives out must lie below it. */
        if ((!held || needs_slot(p)) && eg_partition_mark_ahead(d, p, next) != EAGRE_OK) {
            static struct eg_log_limit limit;
            eg_log_limited(&limit, EG_LOG_ERROR, "%s", eg_error_text());
            return false;
        }
        if (held) {
            if (!needs_slot(p))
                return false;
            uint32_t spare = find_use(p, EG_BUFFER_SPARE);
            if (spare != EG_NO_BUFFER) {
                show_blocked(p, pids, 0);
                swap_in(d, p, spare);
                return true;
            }
            if (build_spare(d, p, now))
                return true;
            show_blocked(p, pids, count);
            return false;
        }
        show_blocked(p, pids, 0);
        if (!eg_buffer_sync(d, p, n)) { /* beyond what we may touch its old frames would stay */
            static struct eg_log_limit limit;
            eg_log_limited(&limit, EG_LOG_WARNING, "topic '%s' partition %u: a segment cannot be cleaned yet: %s",
                           eg_topic_name(p->topic), p->number, eg_error_text());
            return false;
        }
        prepare_header(p, n, next);
        EG_FAULT("retire.reset");
        p->zero_at = EG_SEGMENT_DATA;
        p->retire = EG_RETIRE_ZERO;
    }
    uint64_t before = p->zero_at, half = eg_partition_capacity(p) / 2;
    bool done = zero_slice(p, n, &p->zero_at);
    if (before < half && p->zero_at >= half)
        EG_FAULT("retire.zero_half");
    if (done) {
        eg_buffer_use(p, n, EG_BUFFER_SLOT, next);
        retire_ready(p, next, n);
    }
    return true;
}

int64_t eg_slots_work(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    if (p->buffers == NULL || eg_partition_failed(p) || !eg_slots_follow(p, now)) {
        eg_archive_failed(p);
        return INT64_MAX;
    }
    int64_t due = INT64_MAX;
    bool more = false;
    int64_t archive_due = p->archive != NULL ? eg_archive_work(d, p, now) : INT64_MAX;
    if (eg_partition_failed(p)) {
        eg_archive_failed(p);
        return INT64_MAX;
    }
    if (may_retire(p, &due))
        retire_mark(p);
    if (p->retire != EG_RETIRE_NOT && !eg_partition_failed(p))
        more = retire_step(d, p, now);
    else if (p->building != EG_NO_BUFFER)
        p->building = EG_NO_BUFFER; /* not needed any more: clean() drops it */
    if (eg_partition_failed(p))
        return INT64_MAX;
    if (!more)
        more = fill_ahead(d, p, now);
    look_at_detached(d, p, now);
    if (!more)
        more = clean(d, p);
    /* The next may be due, too. */
    if (more || archive_due == 0 || may_retire(p, &due))
        return 0;
    if (now < p->awake_until)
        return earlier(now + POLL_NS, archive_due);
    p->written = 0;
    p->turn_ns = INT64_MAX;
    if (p->retire != EG_RETIRE_NOT)
        return earlier(now + (needs_slot(p) ? HELD_NS : DETACHED_NS), archive_due);
    if (p->detached > 0)
        return earlier(now + DETACHED_NS, archive_due);
    for (uint32_t n; (n = find_use(p, EG_BUFFER_SPARE)) != EG_NO_BUFFER;)
        free_buffer(d, p, n);
    return archive_due;
}

/* ---- the service --------------------------------------------------------------------------------- */

void eg_slots_wake(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_topics *all = d->topics;
    p->next_look = 0;
    p->awake_until = eg_mono_ns() + AWAKE_NS;
    if (p->is_awake)
        return;
    /* Acq_rel: who finds it set has moved `active` before we look. Partner: tell_daemon()'s exchange. */
    eg_exchange_acq_rel(&p->ring->watched, 1);
    p->is_awake = true;
    p->previous_awake = NULL;
    p->next_awake = all->awake;
    if (all->awake != NULL)
        all->awake->previous_awake = p;
    all->awake = p;
}

void eg_slots_forget(struct eg_daemon *d, struct eg_partition *p) {
    if (!p->is_awake)
        return;
    p->is_awake = false;
    if (p->previous_awake != NULL)
        p->previous_awake->next_awake = p->next_awake;
    else
        d->topics->awake = p->next_awake;
    if (p->next_awake != NULL)
        p->next_awake->previous_awake = p->previous_awake;
}

/* Nothing happens there: from now on its producers have to ring. */
static void stop_watching(struct eg_daemon *d, struct eg_partition *p) {
    eg_slots_forget(d, p);
    if (eg_partition_failed(p))
        return;
    EG_FAULT("unwatch.before");
    /* Acq_rel: who moved `active` before this exchange, and so did not ring, is seen by the look that follows;
     * who exchanges later finds 0 and rings. Partner: tell_daemon()'s exchange. */
    eg_exchange_acq_rel(&p->ring->watched, 0);
    if (eg_load_acquire(&p->ring->active) != p->active)
        eg_slots_wake(d, p);
}

bool eg_slots_moved(struct eg_daemon *d) {
    bool moved = false;
    for (struct eg_partition *p = d->topics->awake; p != NULL; p = p->next_awake)
        if (eg_load_relaxed(&p->ring->active) != p->active) {
            p->next_look = 0;
            moved = true;
        }
    return moved;
}

/* Wakes what retention.ms is due for. When to look again. */
static int64_t look_at_retention(struct eg_daemon *d, int64_t now) {
    int64_t soonest = INT64_MAX;
    for (size_t i = 0; i < d->topics->count; i++) {
        struct eg_topic *t = d->topics->list[i];
        for (uint32_t k = 0; t->settings.v[EG_SET_RETENTION_MS] >= 0 && k < t->partitions; k++) {
            struct eg_partition *p = t->part[k];
            if (p->buffers == NULL || p->is_awake || eg_partition_failed(p) ||
                p->retire != EG_RETIRE_NOT)
                continue;
            if (is_expired(p, &soonest))
                eg_slots_wake(d, p);
        }
    }
    if (soonest == INT64_MAX)
        return INT64_MAX;
    return now + (soonest < EG_NS_PER_S ? EG_NS_PER_S : soonest);
}

static int64_t tick(struct eg_daemon *d, int64_t now) {
    struct eg_topics *all = d->topics;
    if (now >= all->retention_ns)
        all->retention_ns = look_at_retention(d, now);
    int64_t soonest = all->retention_ns, stop = now + TICK_NS;
    struct eg_partition *p = all->awake, *next = NULL;
    for (; p != NULL; p = next) {
        next = p->next_awake;
        if (p->next_look <= now) {
            p->next_look = eg_slots_work(d, p, now);
            if (p->next_look == INT64_MAX) {
                stop_watching(d, p);
                /* It may have a segment now whose time will come. */
                if (p->topic->settings.v[EG_SET_RETENTION_MS] >= 0 &&
                    all->retention_ns > now + EG_NS_PER_S)
                    soonest = all->retention_ns = now + EG_NS_PER_S;
                continue;
            }
            if (eg_mono_ns() >= stop) {
                soonest = 0;
                break;
            }
        }
        soonest = p->next_look < soonest ? p->next_look : soonest;
    }
    /* Cut short: go on behind it next time, so that everybody gets a turn. */
    if (p != NULL && next != NULL) {
        struct eg_partition *tail = all->awake;
        while (tail->next_awake != NULL)
            tail = tail->next_awake;
        tail->next_awake = all->awake;
        all->awake->previous_awake = tail;
        all->awake = next;
        next->previous_awake->next_awake = NULL;
        next->previous_awake = NULL;
    }
    return soonest;
}

static int start(struct eg_daemon *d) {
    /* What a predecessor left unfinished is gone on with; and producers may have gone on without us. */
    for (uint32_t i = 0; i < EG_PARTITIONS_MAX; i++)
        if (d->topics->by_index[i] != NULL && d->topics->by_index[i]->buffers != NULL)
            eg_slots_wake(d, d->topics->by_index[i]);
    return EAGRE_OK;
}

const struct eg_service eg_slots_service = {.name = "slots", .start = start, .tick = tick};
