/* consumer.c - the public consumer: turns, waiting, its session. */
#include "client/group.h"
#include "client/share.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "log/waiters.h"
#include "sys/clock.h"
#include "sys/cpu.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"
#include "sys/membarrier.h"

#define SPIN_BEFORE_SLEEP_NS 20000     /* EAGRE_WAIT_SLEEP: a record on its way is met awake */
#define SPINS 64                       /* polls in a row between looks at the clock */
#define LOOK_MIN_NS 250                /* while it is awake; see look() */
#define LOOK_MAX_NS 16000
#define LOOK_FEW 8                     /* records at one go: look more often; see adapt() */
#define LOOK_MANY 32                   /* look less often */
#define SESSION_CHECK_NS 1000000000    /* a waiting consumer looks after its session so often */
#define LOOK_AFTER_NS 100000000        /* who polls without waiting looks after its session so often */
#define MISSING_NAP_NS 1000000         /* a partition cannot be read until the daemon answers: look again after, */
#define MISSING_LONG_NAP_NS 10000000   /* or, if it has not for so long */
#define MISSING_LONG_NS 100000000
#define SLEEP_WITHOUT_MEMBARRIER 1000000 /* this process may not membarrier: sleep in short naps */

/* ---- open and close ------------------------------------------------------------------------------- */

int eagre_consumer_open(eagre_t *e, const eagre_consumer_options_t *options, eagre_consumer_t **out) {
    static const eagre_consumer_options_t defaults = EAGRE_CONSUMER_OPTIONS_INIT;
    if (e == NULL || out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_open: instance and out must be given");
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    if (options == NULL)
        options = &defaults;
    if (options->size != sizeof(*options))
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_open: options.size is %zu, not %zu: use "
                                             "EAGRE_CONSUMER_OPTIONS_INIT",
                            options->size, sizeof(*options));
    if (options->auto_offset_reset > EAGRE_RESET_UNSET || options->wait > EAGRE_WAIT_SPIN ||
        options->isolation > EAGRE_ISOLATION_DURABLE)
        return eg_error_set(EAGRE_E_INVALID,
                            "eagre_consumer_open: auto_offset_reset %d, wait %d or isolation %d is out of range",
                            (int)options->auto_offset_reset, (int)options->wait, (int)options->isolation);
    rc = eg_client_attach(e);
    if (rc != EAGRE_OK)
        return rc;
    eagre_consumer_t *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a consumer");
    c->e = e;
    c->options = *options;
    rc = eg_group_open(c);
    if (rc != EAGRE_OK) {
        free(c);
        return rc;
    }
    if (options->auto_offset_reset == EAGRE_RESET_UNSET)
        c->options.auto_offset_reset = EAGRE_RESET_LATEST;
    c->fork_guard = e->fork_guard;
    c->look_ns = LOOK_MIN_NS;
    c->generation = eg_load_relaxed(&e->generation);
    c->may_membarrier = eg_membarrier_available();
    rc = eg_pin_cell_get(e, &c->pin);
    if (rc == EAGRE_OK && (rc = eg_pin_cell_get(e, &c->look_pin)) != EAGRE_OK)
        eg_pin_cell_put(e, c->pin);
    if (rc != EAGRE_OK) {
        eg_group_close(c);
        free(c);
        return rc;
    }
    eg_fetch_add_relaxed(&e->handles, 1);
    *out = c;
    return EAGRE_OK;
}

void eg_consumer_retract(eagre_consumer_t *c) {
    if (!c->announced)
        return;
    for (size_t i = 0; i < c->part_count; i++)
        eg_sleep_retract(c->parts[i]->reader.map->waiters, c->bell);
    c->announced = false;
}

void eagre_consumer_close(eagre_consumer_t *c) {
    if (c == NULL || (c->group != NULL && c->group->in_callback))
        return;
    eg_group_close(c);
    if (*c->fork_guard != 0) {
        eg_notifier_close(c->notifier);
        eg_consumer_retract(c);
        eg_session_give_up(c->e, &c->late_bell);
        if (c->has_bell)
            eg_session_return(c->e, EG_MSG_BELL, 0, c->bell, c->bell_generation);
        eg_pin_cell_put(c->e, c->pin);
        eg_pin_cell_put(c->e, c->look_pin);
        eg_fetch_add_relaxed(&c->e->handles, -1);
    }
    for (size_t i = 0; i < c->part_count; i++) {
        eg_reader_drop_file(&c->parts[i]->reader);
        free(c->parts[i]);
    }
    for (size_t i = 0; i < c->topic_count; i++) {
        eg_topic_close(c->topics[i]->topic);
        free(c->topics[i]);
    }
    free(c->parts);
    free(c->topics);
    free(c);
}

/* ---- the session behind ------------------------------------------------------------------------------ */

/* The instance is another one: map everything anew and look for our offsets there. */
int eg_consumer_reopen(eagre_consumer_t *c) {
    c->current = NULL;
    c->announced = false;
    c->has_bell = false;
    eg_session_give_up(c->e, &c->late_bell);
    for (size_t i = 0; i < c->topic_count; i++) {
        struct eg_topic *t = c->topics[i]->topic;
        if (t->generation != eg_load_relaxed(&c->e->generation)) {
            int rc = eg_topic_reopen(t);
            if (rc != EAGRE_OK)
                return rc;
        }
    }
    for (size_t i = 0; i < c->part_count; i++) {
        struct eg_reader *r = &c->parts[i]->reader;
        eg_reader_release(r);
        bool durable = r->durable;
        eg_reader_init(r, r->map, c->pin, c->e->full_fence, r->check_crcs, r->topic, r->offset);
        r->keep_pin = c->options.wait != EAGRE_WAIT_SLEEP;
        r->durable = durable;
    }
    c->generation = eg_load_relaxed(&c->e->generation);
    return EAGRE_OK;
}

/* Buffers that readers held and nobody needs any more. */
static void trim(eagre_consumer_t *c) {
    for (size_t i = 0; i < c->part_count; i++) {
        struct eg_reader *r = &c->parts[i]->reader;
        if (r->placed && !r->pinned && eg_load_relaxed(&r->slot->word) != r->slot_word) {
            r->placed = false; /* it looks its offset up again */
            r->base = NULL;
        }
    }
    for (size_t i = 0; i < c->topic_count; i++)
        eg_topic_trim(c->topics[i]->topic);
}

int eg_consumer_check_session(eagre_consumer_t *c) {
    eg_consumer_let_go(c); /* who stays pinned never sees that the topic was deleted; and what it unmaps was polled */
    int rc = eg_session_check(c->e, c->until.ns);
    trim(c);
    if (eg_load_relaxed(&c->e->generation) != c->generation && !eg_group_outdated(c)) {
        rc = eg_consumer_reopen(c);
        if (rc == EAGRE_E_WOULD_BLOCK)
            rc = EAGRE_OK; /* half done: nothing comes yet, and the next call goes on */
    }
    return rc;
}

/* Is it said already that what is mapped is of the past? Then what is found there says nothing. */
static bool outdated(const eagre_consumer_t *c) {
    return eg_consumer_stopped(c) || eg_load_acquire(&c->e->generation) != c->generation;
}

/* ---- poll ---------------------------------------------------------------------------------------------- */

/* It cannot be read now. That is as if nothing were there; the others are read. */
static __attribute__((cold)) int missing(eagre_consumer_t *c, struct assigned *a, int rc) {
    a->missing = rc == EAGRE_E_NO_DAEMON ? rc : EAGRE_E_WOULD_BLOCK;
    if (c->missing_ns == 0)
        c->missing_ns = eg_mono_ns();
    if (c->missing != EAGRE_E_NO_DAEMON)
        c->missing = a->missing;
    return EAGRE_OK;
}

static __attribute__((cold)) int nowhere(const eagre_consumer_t *c, const struct assigned *a) {
    const char *topic = a->of->topic->name, *group = c->group != NULL ? c->group->id : NULL;
    if (a->cell == NULL)
        return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE,
                            "topic '%s' partition %u: no position and auto.offset.reset is none: seek first", topic,
                            a->number);
    return eg_error_set(EAGRE_E_NO_OFFSET,
                        "group '%s': topic '%s' partition %u: the group has no committed offset there, and "
                        "auto.offset.reset %s: set it to earliest or latest, or seek, or, while the group has no members: "
                        "eagre group seek %s --topic %s:%u --to beginning|end|OFFSET",
                        group, topic, a->number, c->group->reset_unset ? "is not set" : "is none", group, topic, a->number);
}

/* One partition; EAGRE_OK with *n = 0: nothing there now. */
static int poll_one(eagre_consumer_t *c, struct assigned *a, eagre_record_t *records, size_t max, size_t *n) {
    if (__builtin_expect(c->current != a, 0)) {
        eg_consumer_let_go(c);
        c->current = a;
        c->last = a;
    }
    int rc = EAGRE_OK;
    if (__builtin_expect(a->how == EG_READ, 1))
        rc = eg_reader_poll(&a->reader, records, max, n);
    else
        rc = a->how == EG_SHARED ? eg_shared_poll(c, a, records, max, n) : nowhere(c, a);
    a->missing = EAGRE_OK;
    if (__builtin_expect(rc == EAGRE_OK, 1))
        return rc;
    if (rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON || outdated(c))
        return missing(c, a, rc); /* closed for now, or its memory has not come: the session says when it is back */
    if (rc == EAGRE_E_TOPIC_DELETED && (a->cell != NULL || a->how == EG_SHARED))
        return missing(c, a, rc); /* the daemon is about to take it away */
    if (rc != EAGRE_E_OFFSET_OUT_OF_RANGE || c->options.auto_offset_reset == EAGRE_RESET_NONE || a->how != EG_READ)
        return a->how == EG_NOWHERE ? rc : eg_assigned_error(a, rc);
    for (int tries = 0; rc == EAGRE_E_OFFSET_OUT_OF_RANGE && tries < 8; tries++) {
        rc = eg_consumer_reset(c, a);
        if (rc == EAGRE_OK)
            rc = eg_reader_poll(&a->reader, records, max, n);
    }
    /* A log that runs away from us all the time: go on from what it is then. */
    if (rc == EAGRE_OK || rc == EAGRE_E_OFFSET_OUT_OF_RANGE)
        return EAGRE_OK;
    return rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON ? missing(c, a, rc) : eg_assigned_error(a, rc);
}

static int poll_all(eagre_consumer_t *c, eagre_record_t *records, size_t max, size_t *n) {
    size_t count = c->part_count;
    c->missing = EAGRE_OK;
    for (size_t i = 0; i < count; i++) {
        if (c->turn >= count)
            c->turn = 0;
        struct assigned *a = c->parts[c->turn++];
        if (a->paused) { /* it holds no file meanwhile, which may be the last one to hold disk space of what has expired */
            eg_reader_drop_file(&a->reader);
            continue;
        }
        int rc = poll_one(c, a, records, max, n);
        if (rc != EAGRE_OK || *n > 0)
            return rc;
    }
    if (__builtin_expect(c->missing == EAGRE_OK, 1))
        c->missing_ns = 0;
    return EAGRE_OK;
}

static bool news(const eagre_consumer_t *c) {
    for (size_t i = 0; i < c->part_count; i++) {
        const struct assigned *a = c->parts[i];
        if (!a->paused && a->missing == EAGRE_OK &&
            (a->how == EG_SHARED ? eg_shared_has_news(a) : eg_reader_has_news(&a->reader)))
            return true;
    }
    return eg_group_has_news(c);
}

/* Tell all who publish that we sleep; then the caller looks once more. Returns the bell's count. */
static uint32_t announce(eagre_consumer_t *c) {
    uint32_t seen = eg_load_acquire(&c->e->bells_ro->bell[c->bell].rings);
    for (size_t i = 0; i < c->part_count; i++)
        eg_sleep_announce(c->parts[i]->reader.map->waiters, c->bell);
    c->announced = true;
    eg_group_sleeps(c);
    eg_membarrier();
    return seen;
}

/* Without waiting: whoever needs one naps until it comes. */
static int need_bell(eagre_consumer_t *c) {
    if (c->has_bell)
        return EAGRE_OK;
    int rc = eg_bell_get_late(c->e, &c->late_bell, 0, &c->bell, &c->bell_generation);
    if (rc != EAGRE_OK)
        return rc;
    c->has_bell = c->bell_generation == c->generation;
    if (!c->has_bell) /* we have not changed over yet */
        eg_session_return(c->e, EG_MSG_BELL, 0, c->bell, c->bell_generation);
    return c->has_bell ? EAGRE_OK : EAGRE_E_NO_DAEMON;
}

/* How soon to look again at what only the daemon can give us. */
static int64_t missing_nap(const eagre_consumer_t *c) {
    return eg_mono_ns() - c->missing_ns < MISSING_LONG_NS ? MISSING_NAP_NS : MISSING_LONG_NAP_NS;
}

/* Awake, for who will sleep: look again until something may be there or `until` (monotonic) is reached.
 * Each look takes the line that a producer is about to write. So look seldom, and let it get some
 * records ahead: a fast producer stays fast, and they are read at one go. */
static bool look(const eagre_consumer_t *c, int64_t until) {
    for (int64_t now = eg_mono_ns(); now < until;) {
        for (int64_t next = now + c->look_ns; now < next; now = eg_mono_ns())
            eg_cpu_pause();
        if (news(c))
            return true;
    }
    return false;
}

/* EAGRE_WAIT_SPIN and _YIELD: some polls in a row, pinned all the while. */
static inline int poll_spin(eagre_consumer_t *c, eagre_record_t *records, size_t max, size_t *n) {
    int rc = EAGRE_OK;
    for (int i = 0; i < SPINS && rc == EAGRE_OK && *n == 0; i++) {
        if (c->options.wait == EAGRE_WAIT_SPIN)
            eg_cpu_pause();
        else
            sched_yield();
        rc = poll_all(c, records, max, n);
    }
    return rc;
}

/* All who publish have fences of their own. */
static bool producers_fence(const eagre_consumer_t *c) {
    return (eg_load_relaxed(&c->e->bus->flags) & EG_BUS_NO_MEMBARRIER) != 0;
}

static _Atomic uint32_t nobody; /* a futex that nobody rings */

/* Nothing was there: sleep until something may be, at most left_ns (and at most so long that the
 * session is looked after). idle: nothing came during the last sleep, so do not stay awake again. */
static void wait_for_news(eagre_consumer_t *c, int64_t left_ns, bool idle) {
    int64_t limit = left_ns < SESSION_CHECK_NS ? left_ns : SESSION_CHECK_NS;
    bool closed = outdated(c); /* then the slots say "news" all the time, and there is none */
    if (!closed && !idle) {
        bool sleeps = limit > SPIN_BEFORE_SLEEP_NS;
        if (look(c, eg_mono_ns() + (sleeps ? SPIN_BEFORE_SLEEP_NS : limit)) || !sleeps)
            return;
    }
    if (need_bell(c) != EAGRE_OK) { /* no daemon, or no bell left: nap on a futex that nobody rings */
        eg_futex_wait(&nobody, 0, limit < MISSING_NAP_NS ? limit : MISSING_NAP_NS);
        return;
    }
    eg_consumer_let_go(c);
    _Atomic uint32_t *bell = &c->e->bells_ro->bell[c->bell].rings;
    int64_t nap = c->may_membarrier || producers_fence(c) ? EG_SLEEP_MAX_NS : SLEEP_WITHOUT_MEMBARRIER;
    if (!closed && c->missing != EAGRE_OK) {
        int64_t soon = missing_nap(c);
        limit = soon < limit ? soon : limit;
    }
    if (c->group != NULL) {
        int64_t soon = eg_group_nap(c);
        limit = soon < limit ? soon : limit;
    }
    int64_t until = eg_mono_ns() + limit;
    uint32_t seen = announce(c);
    EG_FAULT("sleep.before_futex");
    /* Bounded: a waker may die before it rings. As long as nobody has rung, our bits stand and another look is
     * all that has to be done in between: an idle consumer costs next to nothing. */
    for (int64_t left = limit; left > 0 && (closed || !news(c)); left = until - eg_mono_ns()) {
        eg_futex_wait(bell, seen, left < nap ? left : nap);
        eg_group_pulse(c);
        if (closed || eg_load_acquire(bell) != seen || outdated(c))
            break;
    }
    eg_consumer_retract(c);
}

/*
 * The edge was met again. Each look at it takes the line that a producer is about to write, and costs it
 * more than a record does. So the time between looks follows the producer: long, and many records are read
 * at one go, while they come fast; short while they come one by one.
 */
static void adapt(eagre_consumer_t *c) {
    if (c->got >= LOOK_MANY && c->look_ns < LOOK_MAX_NS)
        c->look_ns *= 2;
    else if (c->got < LOOK_FEW && c->look_ns > LOOK_MIN_NS)
        c->look_ns /= 2;
    c->got = 0;
}

/* A poll ends with nothing: EAGRE_OK, unless that is because there is no daemon. */
static int nothing(const eagre_consumer_t *c, int session) {
    char away[96];
    if (c->missing != EAGRE_E_NO_DAEMON && !(outdated(c) && session != EAGRE_OK) && !eg_group_stranded(c))
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_NO_DAEMON, "what comes next cannot be read before a daemon answers at %s%s: start "
                                           "eagred again",
                        c->e->path, eg_session_away(c->e, away, sizeof(away)));
}

static __attribute__((noinline)) int poll_wait(eagre_consumer_t *c, eagre_record_t *records, size_t max,
                                               int32_t timeout_ms, size_t *n) {
    bool spins = c->options.wait != EAGRE_WAIT_SLEEP;
    int rc = spins ? poll_spin(c, records, max, n) : EAGRE_OK; /* before the first look at the clock */
    if (rc != EAGRE_OK || *n > 0)
        return rc;
    adapt(c);
    bool idle = false;
    int64_t start = eg_mono_ns(), checked = start;
    int64_t limit = timeout_ms < 0 ? INT64_MAX - start : (int64_t)timeout_ms * 1000000;
    c->until = (struct eg_until){.ns = start + limit, .impatient = true};
    if (c->missing != EAGRE_OK) /* the daemon is asked; it will answer soon */
        rc = poll_all(c, records, max, n);
    while (rc == EAGRE_OK && *n == 0) {
        if (c->group != NULL && (rc = eg_group_poll(c)) != EAGRE_OK)
            break;
        int64_t now = eg_mono_ns();
        int64_t left = limit - (now - start);
        int session = EAGRE_OK;
        if (now - checked >= SESSION_CHECK_NS || left <= 0 || outdated(c)) {
            session = eg_consumer_check_session(c);
            checked = now;
            if (session != EAGRE_OK && session != EAGRE_E_NO_DAEMON)
                return session;
        }
        if (left <= 0)
            return nothing(c, session);
        if (spins && !outdated(c)) {
            rc = poll_spin(c, records, max, n);
        } else {
            wait_for_news(c, left, idle);
            idle = true;
            rc = poll_all(c, records, max, n);
        }
    }
    return rc;
}

/* A poll that does not wait found nothing. */
static int poll_no_wait(eagre_consumer_t *c) {
    int64_t now = eg_clock_read_ns(CLOCK_MONOTONIC_COARSE);
    int session = EAGRE_OK;
    if (outdated(c) || now - c->looked_ns >= LOOK_AFTER_NS) {
        c->looked_ns = now;
        session = eg_consumer_check_session(c);
        if (session != EAGRE_OK && session != EAGRE_E_NO_DAEMON)
            return session;
    }
    return nothing(c, session);
}

/* A poll found nothing and there is an fd: have it become readable when that changes. */
static __attribute__((cold)) void arm(eagre_consumer_t *c) {
    bool waits = outdated(c) || c->missing != EAGRE_OK || (c->group != NULL && eg_group_nap(c) != INT64_MAX);
    if (need_bell(c) != EAGRE_OK) {
        eg_notifier_arm(c->notifier, &nobody, 0, waits ? MISSING_LONG_NAP_NS : MISSING_NAP_NS);
        return;
    }
    uint32_t seen = announce(c);
    if (!outdated(c) && news(c))
        eg_notifier_signal(c->notifier);
    else
        eg_notifier_arm(c->notifier, &c->e->bells_ro->bell[c->bell].rings, seen,
                        waits ? MISSING_LONG_NAP_NS : EG_SLEEP_MAX_NS);
}

int eagre_consumer_poll(eagre_consumer_t *c, eagre_record_t *records, size_t max, int32_t timeout_ms, size_t *n) {
    if (__builtin_expect(c == NULL || records == NULL || max == 0 || n == NULL || timeout_ms < -1, 0))
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_poll: consumer, records, max, n and timeout_ms >= -1 must be given");
    *n = 0;
    if (__builtin_expect(*c->fork_guard == 0, 0))
        return eg_session_forked(c->e);
    if (c->notifier != NULL) {
        eg_notifier_drain(c->notifier);
        eg_consumer_retract(c);
    }
    int rc = EAGRE_OK;
    if (c->group != NULL) {
        eg_shared_begin(c);
        rc = eg_group_poll(c);
    }
    if (__builtin_expect(rc == EAGRE_OK, 1))
        rc = poll_all(c, records, max, n);
    c->got += *n;
    if (__builtin_expect(rc != EAGRE_OK || *n > 0, 1)) {
        if (rc != EAGRE_OK && c->notifier != NULL)
            eg_notifier_signal(c->notifier); /* the next poll goes on */
        return rc;
    }
    rc = timeout_ms != 0 ? poll_wait(c, records, max, timeout_ms, n) : poll_no_wait(c);
    c->until = (struct eg_until){0};
    c->got += *n;
    if (*n == 0)
        eg_consumer_let_go(c);
    if (c->notifier != NULL && *n == 0) {
        if (rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON)
            arm(c);
        else
            eg_notifier_signal(c->notifier); /* the next poll says it again */
    }
    return rc;
}

int eagre_consumer_fd(eagre_consumer_t *c, int *fd) {
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    if (fd == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_fd: no place for the descriptor");
    if (c->notifier == NULL) {
        rc = eg_notifier_open(&c->notifier);
        if (rc != EAGRE_OK)
            return rc;
        eg_notifier_signal(c->notifier); /* the first poll has not been yet */
    }
    *fd = eg_notifier_fd(c->notifier);
    return EAGRE_OK;
}

int eagre_record_header(const eagre_record_t *r, size_t i, eagre_header_t *out) {
    if (r == NULL || out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_record_header: record and out must be given");
    const uint8_t *at = r->headers;
    uint64_t left = at != NULL ? r->headers_len : 0;
    for (size_t k = 0; left > 0; k++) {
        uint32_t lengths[2];
        if (left < sizeof(lengths))
            return eg_error_set(EAGRE_E_CORRUPT, "header %zu: its lengths do not fit the block", k);
        memcpy(lengths, at, sizeof(lengths));
        at += sizeof(lengths);
        left -= sizeof(lengths);
        uint32_t value = lengths[1] != EG_NULL_LENGTH ? lengths[1] : 0;
        if (lengths[0] > left || value > left - lengths[0])
            return eg_error_set(EAGRE_E_CORRUPT, "header %zu: its lengths do not fit the block", k);
        if (k == i) {
            *out = (eagre_header_t){(const char *)at, lengths[0],
                                    lengths[1] != EG_NULL_LENGTH ? at + lengths[0] : NULL, value};
            return EAGRE_OK;
        }
        at += lengths[0] + value;
        left -= lengths[0] + value;
    }
    return eg_error_set(EAGRE_E_INVALID, "the record has no header %zu", i);
}
