/*
 * durable.c - from published to durable: who wants it says so in the ring, rings the daemon's bell and sleeps on the
 * partition's `durable` futex, which the archiver moves with the durable end and with the disk's state.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>

#include "client/producer.h"
#include "log/waiters.h"
#include "sys/clock.h"
#include "sys/futex.h"

#define WRITE_FAILED "a write to its log files failed; see `eagre topic resume`"

int eg_producer_has_disk(const eagre_producer_t *p) {
    if (p->topic->status->storage == EG_STORAGE_DISK)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_UNSUPPORTED, "topic '%s' has storage=memory: its records never are on disk", p->topic->name);
}

const char *eg_producer_disk_trouble(const struct eg_partition_map *m) {
    switch (m->on_disk ? eg_load_acquire(&m->status->disk) : EG_DISK_OK) {
    case EG_DISK_FULL:
        return "the disk of its log files is full (disk.min.free.bytes)";
    case EG_DISK_ERROR:
        return WRITE_FAILED;
    default:
        return NULL;
    }
}

/* Acquire: records below are on disk. Partner: the archiver's release. */
static inline bool covers(const struct eg_partition_map *m, int64_t end) {
    return (int64_t)eg_load_acquire(&m->status->durable_end) >= end;
}

bool eg_producer_owes(const eagre_producer_t *p) {
    for (uint32_t i = 0; i < p->partitions; i++)
        if (p->writers[i] != NULL && p->writers[i]->map->on_disk && !covers(p->writers[i]->map, p->writers[i]->end))
            return true;
    return false;
}

/* Ask for a flush. Who finds that somebody did since the daemon looked last does not ring: that one rings, or the daemon is
 * at it. again: but that one may have been stopped or killed before it rang. */
static void ask(struct eg_partition_map *m, int64_t end, bool again) {
    int64_t wanted = eg_load_relaxed(&m->ring->durable_wanted);
    /* Acq_rel: who takes it (the daemon's exchange, by 0) sees our record. */
    while (wanted < end && !eg_cas_acq_rel(&m->ring->durable_wanted, &wanted, end)) {}
    if (wanted != 0 && !again)
        return;
    eg_exchange_acq_rel(&m->ring->watched, 1);
    m->ops->wake_daemon(m);
}

static const char *name_of(const eagre_producer_t *p, const struct eg_writer *w, char *buf, size_t cap) {
    snprintf(buf, cap, "topic '%s' partition %u: published up to offset %" PRId64, p->topic->name, w->map->number,
             w->end - 1);
    return buf;
}

static int failed(const eagre_producer_t *p, const struct eg_writer *w) {
    char name[400];
    return eg_error_set(EAGRE_E_IO, "%s, but from %" PRIu64 " on not known to be on disk: " WRITE_FAILED,
                        name_of(p, w, name, sizeof(name)), eg_load_relaxed(&w->map->status->durable_end));
}

static int not_yet(const eagre_producer_t *p, const struct eg_writer *w, int status, int session) {
    char name[400], away[96] = "";
    const char *trouble = eg_producer_disk_trouble(w->map);
    if (session != EAGRE_OK) {
        trouble = "no daemon answers that could bring it there";
        eg_session_away(p->e, away, sizeof(away));
    }
    return eg_error_set(status, "%s, but not known to be on disk%s%s%s", name_of(p, w, name, sizeof(name)),
                        trouble != NULL ? ": " : "", trouble != NULL ? trouble : "", away);
}

/* The instance that it was written to has ended. What it said last may still be good news. */
static int replaced(eagre_producer_t *p, struct eg_writer *w) {
    char name[400];
    bool durable = covers(w->map, w->end);
    name_of(p, w, name, sizeof(name));
    if (!durable)
        w->end = 0; /* told here, and not again by the next flush */
    int rc = eg_producer_check_session(p); /* what comes next goes to the new one */
    if (durable || (rc != EAGRE_OK && rc != EAGRE_E_NO_DAEMON))
        return durable ? EAGRE_OK : rc;
    return eg_error_set(EAGRE_E_NO_DAEMON, "%s, but eagred was stopped, or replaced by another instance, before it was known "
                                           "to be on disk: it may be lost", name);
}

int eg_producer_await(eagre_producer_t *p, struct eg_writer *w, int64_t until) {
    struct eg_partition_map *m = w->map;
    int64_t ask_ns = 0;
    int session = EAGRE_OK;
    for (;;) {
        /* Acquire, and first: what the archiver does after this load ends the wait below. Partner: its tell(). */
        uint32_t seen = eg_load_acquire(&m->status->durable);
        if (covers(m, w->end))
            return EAGRE_OK;
        if (eg_load_acquire(&m->status->disk) == EG_DISK_ERROR)
            return failed(p, w);
        int rc = eg_partition_usable(m);
        if (rc != EAGRE_OK)
            return eg_error_add(rc, "topic '%s'", p->topic->name);
        int64_t now = eg_mono_ns();
        if (now >= ask_ns) {
            ask(m, w->end, ask_ns != 0);
            ask_ns = now + EG_SLEEP_MAX_NS;
            session = until > now ? eg_session_check(p->e, until < ask_ns ? until : ask_ns) : EAGRE_OK;
        }
        if (eg_load_relaxed(&p->e->generation) != p->topic->generation) {
            eg_producer_begin_waiting(p, until);
            rc = replaced(p, w);
            eg_producer_end_waiting(p);
            return rc;
        }
        if (until <= now)
            return not_yet(p, w, EAGRE_E_TIMED_OUT, session);
        int64_t left = until < ask_ns ? until - now : ask_ns - now;
        if (p->options.wait == EAGRE_WAIT_SLEEP)
            eg_futex_wait_bits(&m->status->durable, seen, eg_durable_bits(w->end - 1, w->end), left);
        else if (p->options.wait == EAGRE_WAIT_YIELD)
            sched_yield();
        else
            eg_cpu_pause();
    }
}

/* ---- the public ways ------------------------------------------------------------------------------------ */

static int usable(const eagre_producer_t *p) {
    if (p == NULL)
        return eg_error_set(EAGRE_E_INVALID, "a producer must be given");
    if (*p->fork_guard == 0)
        return eg_session_forked(p->e);
    return eg_producer_has_disk(p);
}

int eagre_producer_durable_offset(eagre_producer_t *p, int32_t partition, int64_t *offset) {
    int rc = usable(p);
    if (rc != EAGRE_OK)
        return rc;
    if (offset == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_producer_durable_offset: offset must be given");
    uint32_t count = eg_topic_partitions(p->topic);
    if (partition < 0 || (uint32_t)partition >= count)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %d, not %d", p->topic->name,
                            (int)count - 1, partition);
    const struct eg_partition_status *s = eg_status_of(p->topic->status, (uint32_t)partition);
    *offset = (int64_t)eg_load_acquire(&s->durable_end);
    if (__builtin_expect(eg_load_acquire(&s->disk) == EG_DISK_ERROR, 0))
        return eg_error_set(EAGRE_E_IO, "topic '%s' partition %d: " WRITE_FAILED, p->topic->name, partition);
    return EAGRE_OK;
}

int eagre_producer_flush(eagre_producer_t *p, int32_t timeout_ms) {
    int rc = usable(p);
    if (rc != EAGRE_OK)
        return rc;
    int64_t until = eg_producer_until(timeout_ms);
    for (uint32_t i = 0; i < p->partitions; i++) /* of all at once, then wait for each */
        if (p->writers[i] != NULL && !covers(p->writers[i]->map, p->writers[i]->end))
            ask(p->writers[i]->map, p->writers[i]->end, false);
    for (uint32_t i = 0; i < p->partitions && rc == EAGRE_OK; i++)
        if (p->writers[i] != NULL)
            rc = eg_producer_await(p, p->writers[i], until);
    bool lost = p->lost;
    p->lost = false;
    if (rc == EAGRE_OK && lost)
        rc = eg_error_set(EAGRE_E_NO_DAEMON, "topic '%s': eagred was stopped, or replaced by another instance, before all that "
                                             "was produced was known to be on disk: some of it may be lost",
                          p->topic->name);
    return timeout_ms == 0 && rc == EAGRE_E_TIMED_OUT ? EAGRE_E_WOULD_BLOCK : rc;
}
