/* Consumers' sleep: see wake.h. */
#include "wake.h"

#include <string.h>

enum { SLEEPERS_MAX = 2, WAKERS_MAX = 2, FRAMES_MAX = 6 };

enum waker_step {
    W_PUBLISH,
    W_LOAD_SUMMARY,
    W_SUMMARY_CLEARED,
    W_TAKE_BITS,
    W_RING,
    W_LATE_PUBLISH
};
enum sleeper_step {
    S_READ,
    S_BELL,
    S_BIT,
    S_SUMMARY,
    S_MEMBARRIER,
    S_LOOK,
    S_LOOK_AGAIN,
    S_FUTEX,
    S_SLEEPING,
    S_RETRACT
};

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"
struct waker {
    uint8_t step;
    bool dead;
    uint8_t published; /* frames, by now */
    uint8_t unseen;    /* the last so many of them are in its store buffer */
    uint8_t mask;      /* bits that it took */
};
struct sleeper {
    uint8_t step;
    bool awake_again; /* from the futex, by who rang */
    uint8_t next;     /* frame that it waits for */
    uint8_t seen;     /* of its bell */
    uint8_t k;        /* next client that the membarrier reaches */
    bool slot_same;   /* what the look found so far */
};
struct wake {
    uint8_t summary; /* one bit: there is one word of bits */
    uint8_t bits;    /* of sleepers */
    uint8_t bell[SLEEPERS_MAX];
    bool frame[FRAMES_MAX]; /* published (and visible) */
    bool retired;           /* the slot's word says another life */
    bool zeroed;            /* and the frames are gone */
    uint8_t deaths, rung;   /* so many deaths the daemon has dealt with */
    struct waker waker[WAKERS_MAX];
    struct sleeper sleeper[SLEEPERS_MAX];
};
#pragma GCC diagnostic pop

static unsigned frames(void) { return options.wakers * options.records; }

/* Frames lie in turns: 0 of waker 0, 1 of waker 1, ... */
static unsigned frame_of(unsigned waker, unsigned n) { return n * options.wakers + waker; }

/* Its store buffer is emptied. */
static void drain(struct wake *s, unsigned waker) {
    struct waker *w = &s->waker[waker];
    for (; w->unseen > 0; w->unseen--)
        s->frame[frame_of(waker, w->published - w->unseen)] = true;
}

static bool is_news(const struct wake *s, const struct sleeper *p) {
    return s->retired || (p->next < frames() && s->frame[p->next]);
}

/* futex_wake: who sleeps there goes on. */
static void ring_bell(struct wake *s, unsigned sleeper) {
    s->bell[sleeper]++;
    if (s->sleeper[sleeper].step == S_SLEEPING)
        s->sleeper[sleeper].awake_again = true;
}

/* ---- a producer: eg_writer_publish, eg_wake, eg_wake_collect ------------------------------------------ */

static bool waker_step(struct wake *s, unsigned who, const char **name) {
    struct waker *w = &s->waker[who];
    if (w->dead || (w->published == options.records && w->step == W_PUBLISH))
        return false;
    bool unreached = options.fence; /* no membarrier reaches it */
    switch (w->step) {
    case W_PUBLISH:
        if (broken(BREAK_wake_before_publish)) {
            *name = "load summary";
            w->step = s->summary != 0 ? W_SUMMARY_CLEARED : W_LATE_PUBLISH;
            return true;
        }
        *name = "publish.done";
        w->published++;
        w->unseen++;
        if (options.memory == SC || (unreached && !broken(BREAK_wake_no_fence)))
            drain(s, who);
        w->step = W_LOAD_SUMMARY;
        return true;
    case W_LOAD_SUMMARY:
        *name = "load summary";
        w->step = s->summary == 0                    ? W_PUBLISH
                  : broken(BREAK_summary_after_bits) ? W_TAKE_BITS
                                                     : W_SUMMARY_CLEARED;
        return true;
    case W_SUMMARY_CLEARED:
        *name = "wake.summary_cleared";
        drain(s, who);
        w->step = s->summary != 0 && !broken(BREAK_summary_after_bits) ? W_TAKE_BITS : W_RING;
        s->summary = 0;
        break;
    case W_TAKE_BITS:
        *name = "wake.bits_taken";
        drain(s, who);
        w->mask = s->bits;
        s->bits = 0;
        w->step = broken(BREAK_summary_after_bits) ? W_SUMMARY_CLEARED : W_RING;
        break;
    case W_LATE_PUBLISH:
        *name = "publish.done";
        w->published++;
        w->unseen++;
        if (options.memory == SC)
            drain(s, who);
        w->step = W_PUBLISH;
        return true;
    default: { /* W_RING */
        *name = "wake.bell_rung";
        unsigned sleeper = w->mask & 1 ? 0 : 1;
        drain(s, who);
        w->mask &= (uint8_t) ~(1u << sleeper);
        ring_bell(s, sleeper);
    }
    }
    if (w->step == W_RING && w->mask == 0)
        w->step = broken(BREAK_wake_before_publish) ? W_LATE_PUBLISH : W_PUBLISH;
    return true;
}

/* ---- a consumer: poll, announce, the last look, the futex ---------------------------------------------- */

static bool sleeper_step(struct wake *s, unsigned who, const char **name) {
    struct sleeper *p = &s->sleeper[who];
    switch (p->step) {
    case S_READ:
        if (p->next == frames())
            return false;
        *name = "read";
        if (s->retired) /* out of range: it goes on behind it all */
            p->next = (uint8_t)frames();
        else if (s->frame[p->next])
            p->next++;
        else
            p->step = broken(BREAK_bell_after_bit) ? S_BIT : S_BELL;
        return true;
    case S_BELL:
        *name = "load the bell";
        p->seen = s->bell[who];
        p->step = broken(BREAK_bell_after_bit) ? S_MEMBARRIER : S_BIT;
        if (broken(BREAK_summary_before_bit))
            p->step = S_SUMMARY;
        return true;
    case S_BIT:
        *name = "sleep.bit_set";
        s->bits |= (uint8_t)(1u << who);
        p->step = broken(BREAK_summary_before_bit) ? S_MEMBARRIER : S_SUMMARY;
        return true;
    case S_SUMMARY:
        *name = "sleep.summary_set";
        s->summary = 1;
        p->step = broken(BREAK_bell_after_bit)       ? S_BELL
                  : broken(BREAK_summary_before_bit) ? S_BIT
                                                     : S_MEMBARRIER;
        return true;
    case S_MEMBARRIER: /* one producer after the other, as the interrupts come */
        *name = "membarrier reaches a producer";
        if (!broken(BREAK_sleep_no_membarrier) && !options.fence)
            drain(s, p->k);
        if (++p->k == options.wakers) {
            p->k = 0;
            p->step = broken(BREAK_sleep_no_look) ? S_FUTEX : S_LOOK;
        }
        return true;
    /* eg_reader_has_news(): two loads, of the frame's word and of the slot's. */
    case S_LOOK:
        *name = "the last look: one word";
        p->slot_same =
            broken(BREAK_news_word_first) ? !s->retired : !s->frame[p->next] || s->zeroed;
        p->step = S_LOOK_AGAIN;
        return true;
    case S_LOOK_AGAIN:
        *name = "the last look: the other word";
        p->slot_same &=
            broken(BREAK_news_word_first) ? !s->frame[p->next] || s->zeroed : !s->retired;
        p->step = p->slot_same ? S_FUTEX : S_RETRACT;
        p->slot_same = false;
        return true;
    case S_FUTEX:
        *name = "sleep.before_futex";
        p->step = s->bell[who] == p->seen ? S_SLEEPING : S_RETRACT;
        p->seen = 0;
        return true;
    case S_SLEEPING:
        if (!p->awake_again)
            return false;
        *name = "wakes";
        p->awake_again = false;
        p->step = S_RETRACT;
        return true;
    default: /* S_RETRACT */
        *name = "retract the bit";
        s->bits &= (uint8_t) ~(1u << who);
        p->step = S_READ;
        return true;
    }
}

/* ---- the daemon: retires the segment, buries who died ------------------------------------------------------ */

static bool daemon_step(struct wake *s, unsigned job, const char **name) {
    if (job == 0) {
        *name = s->retired ? "zero the frames" : "retire.marked";
        for (unsigned i = 0; i < frames(); i++)
            if (!s->frame[i] || !options.retention)
                return false;
        if (s->zeroed)
            return false;
        s->zeroed = s->retired;
        s->retired = true;
        return true;
    }
    *name = "repair, then ring all bells";
    if (s->rung == s->deaths)
        return false;
    s->rung = s->deaths;
    for (unsigned w = 0; w < options.wakers; w++)
        for (unsigned n = 0; s->waker[w].dead && n < options.records; n++)
            s->frame[frame_of(w, n)] = true; /* pads */
    for (unsigned i = 0; i < options.sleepers && !broken(BREAK_death_no_ring); i++)
        ring_bell(s, i);
    return true;
}

static bool die(struct wake *s, unsigned who) {
    struct waker *w = &s->waker[who];
    if (s->deaths >= options.deaths || w->dead)
        return false;
    drain(s, who);
    *w = (struct waker){.dead = true};
    s->deaths++;
    return true;
}

/* ---- the model ------------------------------------------------------------------------------------------------ */

static void init(void *state) { memset(state, 0, sizeof(struct wake)); }

static void expand(const void *state, struct explorer *x) {
    const char *name = "";
    struct wake s = *(const struct wake *)state;
    for (unsigned i = 0; i < options.wakers; i++) {
        if (waker_step(&s, i, &name))
            explorer_emit(x, &s, i, "producer", i, name, false);
        s = *(const struct wake *)state;
        if (s.waker[i].unseen > 0) {
            struct waker *w = &s.waker[i];
            s.frame[frame_of(i, w->published - w->unseen)] = true;
            w->unseen--;
            explorer_emit(x, &s, 10 + i, "producer", i, "a store becomes visible", false);
            s = *(const struct wake *)state;
        }
        if (die(&s, i))
            explorer_emit(x, &s, 20 + i, "producer", i, "dies", true);
        s = *(const struct wake *)state;
    }
    for (unsigned i = 0; i < options.sleepers; i++) {
        if (sleeper_step(&s, i, &name))
            explorer_emit(x, &s, 30 + i, "consumer", i, name, false);
        s = *(const struct wake *)state;
    }
    for (unsigned job = 0; job < 2; job++) {
        if (daemon_step(&s, job, &name))
            explorer_emit(x, &s, 40 + job, "daemon", 0, name, false);
        s = *(const struct wake *)state;
    }
}

static void quiet(const void *state) {
    const struct wake *s = state;
    for (unsigned i = 0; i < options.sleepers; i++)
        CHECK(s->sleeper[i].step != S_SLEEPING || !is_news(s, &s->sleeper[i]),
              s->deaths > 0 ? "D2: a consumer sleeps on after a death, and there is news"
                            : "W1: a consumer sleeps, and there is news");
}

static void describe(const void *state, FILE *out) {
    const struct wake *s = state;
    fprintf(out, "summary %u bits %x bells %u %u frames ", s->summary, s->bits, s->bell[0],
            s->bell[1]);
    for (unsigned i = 0; i < frames(); i++)
        fputc(s->frame[i] ? 'd' : '.', out);
    fprintf(out, "%s%s", s->retired ? " retired" : "", s->zeroed ? " zeroed" : "");
    for (unsigned i = 0; i < options.wakers; i++)
        fprintf(out, ", producer %u %s%u published, %u of them invisible", i,
                s->waker[i].dead ? "dead " : "", s->waker[i].published, s->waker[i].unseen);
    for (unsigned i = 0; i < options.sleepers; i++)
        fprintf(out, ", consumer %u wants %u%s", i, s->sleeper[i].next,
                s->sleeper[i].step == S_SLEEPING ? " and sleeps" : "");
}

const struct model *wake_model(void) {
    static const struct model m = {sizeof(struct wake), init, expand, quiet, describe};
    return &m;
}
