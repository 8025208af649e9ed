/* The daemon's sleep, and that of producers that wait for room: see wake.h. */
#include "wake.h"

#include <string.h>

enum { WAITERS_MAX = 3 };

enum waiter_step { P_TRY, P_EXCHANGE, P_LOAD_ASLEEP, P_RING, P_ROOM, P_FUTEX, P_SLEEPING };
enum idle_step { D_WATCH, D_FOLLOW, D_READY, D_ROOM, D_FUTEX, D_UNWATCH, D_LOOK, D_ASLEEP, D_EPOLL };

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
struct waiter {
    uint8_t step;
    uint8_t segments; /* that it has gone on to */
    bool starved;     /* its last try found no slot READY */
    bool waiting;     /* it has loaded `room`: the next failure sleeps */
    bool watched_seen, asleep_seen;
    bool awake_again;
    bool gone; /* died, or is stopped for good, before it rang */
    uint8_t seen; /* of room */
};
struct idle {
    bool watched, asleep, event;
    uint8_t room;
    uint8_t ready, taken; /* segments made READY, and gone on to: `active` */
    uint8_t step;         /* the daemon's */
    uint8_t followed;     /* `active` as the daemon last saw it */
    uint8_t deaths;
    /* In the daemon's store buffer. */
    bool ready_unseen, watched_unseen, asleep_unseen;
    struct waiter producer[WAITERS_MAX];
};
#pragma GCC diagnostic pop

static void drain(struct idle *s) {
    s->ready += s->ready_unseen;
    s->asleep |= s->asleep_unseen;
    s->watched &= !s->watched_unseen;
    s->ready_unseen = s->asleep_unseen = s->watched_unseen = false;
}

/* claim_wait(), eg_rotate(), tell_daemon(). */
static bool producer_step(struct idle *s, unsigned who, const char **name) {
    struct waiter *p = &s->producer[who];
    switch (p->step) {
    case P_TRY:
        if (p->segments == options.records)
            return false;
        p->starved = s->ready == s->taken;
        if (!p->starved && broken(BREAK_watched_before_active) && !p->waiting) {
            *name = "set watched";
            p->watched_seen = s->watched;
            s->watched = true;
            p->waiting = true; /* here: it has asked already */
            return true;
        }
        *name = p->starved ? "next.seen: not READY" : "active.moved";
        if (!p->starved) {
            s->taken++;
            p->segments++;
            p->waiting = false;
            p->seen = 0;
        }
        p->step = !p->starved && broken(BREAK_watched_before_active) ? P_LOAD_ASLEEP : P_EXCHANGE;
        return true;
    case P_EXCHANGE:
        *name = "set watched";
        p->watched_seen = s->watched;
        s->watched = true;
        p->step = P_LOAD_ASLEEP;
        return true;
    case P_LOAD_ASLEEP:
        *name = "load asleep";
        p->asleep_seen = s->asleep;
        p->step = P_RING;
        return true;
    case P_RING: {
        bool ring = p->starved || !p->watched_seen || p->asleep_seen;
        *name = ring ? "write the eventfd" : "the daemon looks by itself";
        s->event |= ring;
        p->watched_seen = p->asleep_seen = false;
        p->step = !p->starved ? P_TRY : p->waiting ? P_FUTEX : P_ROOM;
        if (p->waiting && broken(BREAK_room_after_try))
            p->seen = s->room;
        return true;
    }
    case P_ROOM:
        *name = "load room";
        p->seen = s->room;
        p->waiting = true;
        p->step = P_TRY;
        return true;
    case P_FUTEX:
        *name = "wait on room";
        p->step = s->room == p->seen ? P_SLEEPING : P_ROOM;
        p->seen = 0;
        return true;
    default: /* P_SLEEPING */
        if (!p->awake_again)
            return false;
        *name = "wakes";
        p->awake_again = false;
        p->step = P_ROOM;
        return true;
    }
}

/* eg_slots_wake(), eg_slots_work(), retire_ready(), stop_watching(), eg_loop_run(). */
static bool daemon_step(struct idle *s, const char **name) {
    switch (s->step) {
    case D_WATCH:
        *name = "watch";
        drain(s); /* an exchange */
        s->watched = true;
        s->step = D_FOLLOW;
        return true;
    case D_FOLLOW:
        *name = "follow the ring";
        s->followed = s->taken;
        s->step = s->ready + s->ready_unseen > s->taken ? D_UNWATCH
                  : broken(BREAK_room_before_ready)     ? D_ROOM
                                                        : D_READY;
        return true;
    case D_READY:
        *name = "the slot is READY";
        s->ready_unseen = true;
        if (options.memory == SC)
            drain(s);
        s->step = broken(BREAK_room_before_ready) ? D_FUTEX : D_ROOM;
        return true;
    case D_ROOM:
        *name = "add 1 to room";
        /* A release waits for READY to be visible; x86 has no other addition. */
        if (!(broken(BREAK_room_relaxed) && options.memory == WEAK))
            drain(s);
        s->room++;
        s->step = D_FUTEX;
        if (broken(BREAK_room_before_ready)) {
            for (unsigned i = 0; i < options.producers; i++)
                s->producer[i].awake_again |= s->producer[i].step == P_SLEEPING;
            s->step = D_READY;
        }
        return true;
    case D_FUTEX:
        *name = "wake who waits on room";
        drain(s); /* the system call */
        for (unsigned i = 0; i < options.producers && !broken(BREAK_room_before_ready); i++)
            s->producer[i].awake_again |= s->producer[i].step == P_SLEEPING;
        s->step = D_FOLLOW;
        return true;
    case D_UNWATCH:
        *name = "do not watch any more";
        if (broken(BREAK_unwatch_by_store)) {
            s->watched_unseen = true;
            if (options.memory == SC)
                drain(s);
        } else { /* an exchange */
            drain(s);
            s->watched = false;
        }
        s->step = broken(BREAK_unwatch_no_look) ? D_ASLEEP : D_LOOK;
        return true;
    case D_LOOK:
        *name = "look at active once more";
        s->step = s->taken != s->followed ? D_WATCH : D_ASLEEP;
        return true;
    case D_ASLEEP:
        *name = "set asleep";
        s->asleep_unseen = true;
        drain(s); /* the fence */
        s->step = D_EPOLL;
        return true;
    default: /* D_EPOLL */
        if (!s->event)
            return false;
        *name = "woken by the eventfd";
        drain(s);
        s->event = s->asleep = false;
        s->step = D_WATCH;
        return true;
    }
}

static void init(void *state) { memset(state, 0, sizeof(struct idle)); }

static void expand(const void *state, struct explorer *x) {
    const char *name = "";
    struct idle s = *(const struct idle *)state;
    for (unsigned i = 0; i < options.producers; i++) {
        if (!s.producer[i].gone && producer_step(&s, i, &name))
            explorer_emit(x, &s, i, "producer", i, name, false);
        s = *(const struct idle *)state;
        /* Between `active.moved` and the bell. */
        struct waiter *p = &s.producer[i];
        if (s.deaths < options.deaths && !p->gone && (p->step == P_LOAD_ASLEEP || p->step == P_RING)) {
            s.deaths++;
            *p = (struct waiter){.gone = true};
            explorer_emit(x, &s, i, "producer", i, "dies", false);
        }
        s = *(const struct idle *)state;
    }
    if (daemon_step(&s, &name))
        explorer_emit(x, &s, 10, "daemon", 0, name, false);
    s = *(const struct idle *)state;
    if (s.ready_unseen || s.asleep_unseen || s.watched_unseen) {
        drain(&s);
        explorer_emit(x, &s, 11, "daemon", 0, "its stores become visible", false);
    }
}

static void quiet(const void *state) {
    const struct idle *s = state;
    CHECK(s->taken == s->followed || s->deaths > 0,
          "W1: the daemon sleeps, and a segment was opened that it has not seen");
    for (unsigned i = 0; i < options.producers; i++)
        CHECK(s->producer[i].gone || s->producer[i].segments == options.records,
              "W1: a producer sleeps, and nobody will wake it");
}

static void describe(const void *state, FILE *out) {
    const struct idle *s = state;
    fprintf(out, "watched %d asleep %d event %d room %u ready %u taken %u, seen %u%s%s", s->watched, s->asleep,
            s->event, s->room, s->ready, s->taken, s->followed, s->ready_unseen ? ", READY invisible" : "",
            s->watched_unseen ? ", watched invisible" : "");
    for (unsigned i = 0; i < options.producers; i++)
        fprintf(out, ", producer %u %s %u of %u", i,
                s->producer[i].step == P_SLEEPING ? "sleeps at" : "is at", s->producer[i].segments,
                options.records);
}

const struct model *idle_model(void) {
    static const struct model m = {sizeof(struct idle), init, expand, quiet, describe};
    return &m;
}
