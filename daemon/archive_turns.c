/* archive_turns.c - when a flush begins that could: those that nobody waits for take turns, those that somebody waits for
 * wait for more who do. */
#include "archive_internal.h"
#include "slots.h"
#include "sys/clock.h"

#define TURNS 8u
#define GATHER_MAX_NS (2 * EG_NS_PER_MS)
#define GATHER_STEP_NS 20000
#define GATHER_MISSES 32u /* flushes */

void eg_archive_turn_end(struct eg_daemon *d) {
    struct eg_archive *a = d->syncs.first;
    if (a == NULL) {
        d->syncs.busy--;
        return;
    }
    d->syncs.first = a->next;
    a->queued = false;
    a->has_turn = true;
    eg_slots_wake(d, a->p); /* if it was destroyed meanwhile, it gives the turn on: eg_archive_failed() */
}

bool eg_archive_turn_take(struct eg_archive *a) {
    struct eg_daemon *d = a->d;
    if (a->has_turn || a->queued)
        return a->has_turn;
    if (d->syncs.busy < TURNS) {
        d->syncs.busy++;
        a->has_turn = true;
        return true;
    }
    if (d->syncs.first == NULL)
        d->syncs.first = a;
    else
        d->syncs.last->next = a;
    d->syncs.last = a;
    a->next = NULL;
    a->queued = true;
    return false;
}

void eg_archive_turn_drop(struct eg_archive *a) {
    struct eg_archive *before = NULL;
    if (a->queued) {
        for (struct eg_archive *b = a->d->syncs.first; b != a; b = b->next)
            before = b;
        if (before == NULL)
            a->d->syncs.first = a->next;
        else
            before->next = a->next;
        if (a->d->syncs.last == a)
            a->d->syncs.last = before;
        a->queued = false;
    }
    if (a->has_turn) {
        a->has_turn = false;
        eg_archive_turn_end(a->d);
    }
}

void eg_archive_gather_begin(struct eg_archive *a, int64_t took_ns) {
    const struct eg_archive_file *f = a->cur;
    a->gather.woken = 0;
    a->gather.others = f != NULL ? f->copied.index - f->synced.index : 0;
    a->gather.until_ns = eg_mono_ns() + (took_ns < GATHER_MAX_NS ? took_ns : GATHER_MAX_NS);
}

bool eg_archive_gathers(struct eg_archive *a, const struct eg_archive_file *f, int64_t now, int64_t *due) {
    uint32_t there = f->copied.index - f->synced.index;
    if (a->gather.woken > 0) {
        a->gather.together = a->gather.misses == 0 ? a->gather.woken + a->gather.others : 0;
        a->gather.misses -= a->gather.misses > 0;
        a->gather.woken = 0;
    }
    if (there >= a->gather.together || f->sealed || a->finishing || a->fill.used >= EG_ARCHIVE_SLICE)
        return false;
    if (now >= a->gather.until_ns) {
        if (there < a->gather.together / 2)
            a->gather.misses = GATHER_MISSES;
        a->gather.together = 0;
        return false;
    }
    *due = now + GATHER_STEP_NS;
    return true;
}
