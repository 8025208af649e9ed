/* archive_turns.c - flushes that nobody waits for, of all partitions: so many at a time, first come, first served. */
#include "archive_internal.h"
#include "slots.h"

#define TURNS 8u

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
