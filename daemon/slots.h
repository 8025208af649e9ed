/*
 * slots.h - keeps the ring of every partition going: memory ahead of the tail, a slot READY ahead of the
 * active one, segments let go for retention, buffers that readers held cleaned afterwards.
 */
#ifndef EG_SLOTS_H
#define EG_SLOTS_H

#include "partition.h"

/* Look at it every tick for a while: something happens there. */
void eg_slots_wake(struct eg_daemon *d, struct eg_partition *p);
/* The last look before the loop sleeps, see loop.h. True: a producer has opened a segment that was not seen yet. */
bool eg_slots_moved(struct eg_daemon *d);
/* It goes away. */
void eg_slots_forget(struct eg_daemon *d, struct eg_partition *p);
/* See how far producers got. False: the partition has failed. */
bool eg_slots_follow(struct eg_partition *p, int64_t now_ns);
/* One slice of work. When it wants to be called again: 0: at once; INT64_MAX: when woken. */
int64_t eg_slots_work(struct eg_daemon *d, struct eg_partition *p, int64_t now_ns);

#endif
