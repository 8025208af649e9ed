/* The daemon's sleep, and that of producers that wait for room: see wake.h. */
#include "wake.h"

#include <string.h>

enum { WAITERS_MAX = 3 };

enum waiter_step { P_TRY, P_BIT, P_LOAD_ASLEEP, P_RING, P_ROOM, P_FUTEX, P_SLEEPING };
enum idle_step { D_TAKE, D_FOLLOW, D_READY, D_ROOM, D_FUTEX, D_ASLEEP, D_LOOK, D_EPOLL };

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
struct waiter {
    uint8_t step;
    uint8_t segments; /* that it has gone on to */
    bool starved;     /* its last try found no slot READY */
    bool waiting;     /* it has loaded `room`: the next failure sleeps */
    bool asleep_seen;
    bool awake_again;
    uint8_t seen; /* of room */
};
struct idle {
    bool work, asleep, event;
    uint8_t room;
    uint8_t ready, taken; /* segments made READY, and gone on to */
    uint8_t step;         /* the daemon's */
    /* In the daemon's store buffer. */
    bool ready_unseen, asleep_unseen;
    struct waiter producer[WAITERS_MAX];
};
#pragma GCC diagnostic pop

static void drain(struct idle *s) {
    s->ready += s->ready_unseen;
    s->asleep |= s->asleep_unseen;
    s->ready_unseen = s->asleep_unseen = false;
}

/* claim_wait(), eg_rotate(), tell_daemon(). */
static bool producer_step(struct idle *s, unsigned who, const char **name) {
    struct waiter *p = &s->producer[who];
    switch (p->step) {
    case P_TRY:
        if (p->segments == options.records)
            return false;
        p->starved = s->ready == s->taken;
        *name = p->starved ? "next.seen: not READY" : "active.moved";
        if (!p->starved) {
            s->taken++;
            p->segments++;
            p->waiting = false;
            p->seen = 0;
        }
        p->step = broken(BREAK_work_after_asleep) ? P_LOAD_ASLEEP : P_BIT;
        return true;
    case P_BIT:
        *name = "set the bit in work";
        s->work = true;
        p->step = broken(BREAK_work_after_asleep) ? P_RING : P_LOAD_ASLEEP;
        return true;
    case P_LOAD_ASLEEP:
        *name = "load asleep";
        p->asleep_seen = s->asleep;
        p->step = broken(BREAK_work_after_asleep) ? P_BIT : P_RING;
        return true;
    case P_RING:
        *name = p->starved || p->asleep_seen ? "write the eventfd" : "the daemon is awake";
        s->event |= p->starved || p->asleep_seen;
        p->asleep_seen = false;
        p->step = !p->starved ? P_TRY : p->waiting ? P_FUTEX : P_ROOM;
        if (p->waiting && broken(BREAK_room_after_try))
            p->seen = s->room;
        return true;
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

/* eg_loop_run(), eg_slots_work(), retire_ready(). */
static bool daemon_step(struct idle *s, const char **name) {
    switch (s->step) {
    case D_TAKE:
        *name = s->work ? "take the bits of work" : "no work";
        s->step = s->work ? D_FOLLOW : D_ASLEEP;
        if (s->work) /* an exchange */
            drain(s);
        s->work = false;
        return true;
    case D_FOLLOW:
        *name = "follow the ring";
        s->step = s->ready + s->ready_unseen > s->taken ? D_ASLEEP
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
    case D_ASLEEP:
        *name = "set asleep";
        s->asleep_unseen = true;
        if (options.memory == SC || !broken(BREAK_asleep_relaxed))
            drain(s);
        s->step = broken(BREAK_asleep_no_look) ? D_EPOLL : D_LOOK;
        return true;
    case D_LOOK:
        *name = "look at work once more";
        if (!s->work) {
            s->step = D_EPOLL;
            return true;
        }
        drain(s);
        s->asleep = false;
        s->step = D_TAKE;
        return true;
    default: /* D_EPOLL */
        if (!s->event)
            return false;
        *name = "woken by the eventfd";
        drain(s);
        s->event = s->asleep = false;
        s->step = D_TAKE;
        return true;
    }
}

static void init(void *state) { memset(state, 0, sizeof(struct idle)); }

static void expand(const void *state, struct explorer *x) {
    const char *name = "";
    struct idle s = *(const struct idle *)state;
    for (unsigned i = 0; i < options.producers; i++) {
        if (producer_step(&s, i, &name))
            explorer_emit(x, &s, i, "producer", i, name, false);
        s = *(const struct idle *)state;
    }
    if (daemon_step(&s, &name))
        explorer_emit(x, &s, 10, "daemon", 0, name, false);
    s = *(const struct idle *)state;
    if (s.ready_unseen || s.asleep_unseen) {
        drain(&s);
        explorer_emit(x, &s, 11, "daemon", 0, "its stores become visible", false);
    }
}

static void quiet(const void *state) {
    const struct idle *s = state;
    CHECK(!s->work, "W1: the daemon sleeps, and there is work");
    for (unsigned i = 0; i < options.producers; i++)
        CHECK(s->producer[i].segments == options.records,
              "W1: a producer sleeps, and nobody will wake it");
}

static void describe(const void *state, FILE *out) {
    const struct idle *s = state;
    fprintf(out, "work %d asleep %d event %d room %u ready %u taken %u%s%s", s->work, s->asleep,
            s->event, s->room, s->ready, s->taken, s->ready_unseen ? ", READY invisible" : "",
            s->asleep_unseen ? ", asleep invisible" : "");
    for (unsigned i = 0; i < options.producers; i++)
        fprintf(out, ", producer %u %s %u of %u", i,
                s->producer[i].step == P_SLEEPING ? "sleeps at" : "is at", s->producer[i].segments,
                options.records);
}

const struct model *idle_model(void) {
    static const struct model m = {sizeof(struct idle), init, expand, quiet, describe};
    return &m;
}
