/*
 * stalls.h - readers wait at a place that a living producer has taken and not published. Nothing may be done to
 * such a claim (DESIGN D1); after stall.warn.ms it is told, and with stall.kill=true its process is ended.
 *
 * How they are found. A producer that has a claim has a pin, and who is not in the middle of something has none.
 * So the producers' pin cells are looked at every stall.warn.ms/4; a busy one shows another or none sooner or later.
 * Only where a cell stays the same is the pinned segment's chain walked, from the last place that is known to be
 * published, for its first unpublished frame; its age begins when it is found. While there is a suspect, looks
 * come four times as often. With writers=single there are no pins: there the tail hint must have come to rest.
 *
 * Whom it kills. The owner in a frame's word was written by a producer of the topic, perhaps not by the one that it
 * names. Proof is the page that only its client can write: one and the same of its pin cells has been on that segment
 * at every look since the claim was found, and it has no more claims there than pins.
 */
#ifndef EG_STALLS_H
#define EG_STALLS_H

#include "partition.h"

struct eg_stalls; /* stalls.c */

struct eg_stall_info {
    const char *topic;
    uint32_t partition;
    int64_t offset;
    int32_t pid; /* 0: of nobody that may produce there, or of a pid namespace that we cannot see */
    int64_t ms;
};

/* Those that last longer than stall.warn.ms: how many partitions, and which is the oldest. */
uint32_t eg_stalls_now(const struct eg_daemon *d, struct eg_stall_info *oldest);
/* So many since the daemon started, and processes that were ended for it. */
void eg_stalls_so_far(const struct eg_daemon *d, uint64_t *stalls, uint64_t *kills);
/* Is there one in this partition? */
bool eg_stall_of(const struct eg_partition *p, struct eg_stall_info *out);

#endif
