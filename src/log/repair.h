/*
 * repair.h - what dead producers left: their claimed frames become pads. Who is dead is the caller's
 * business (the daemon's janitor); here is only the walk.
 */
#ifndef EG_LOG_REPAIR_H
#define EG_LOG_REPAIR_H

#include "log/chain.h"

#define EG_REPAIR_MORE 1

/*
 * Go on along the chain, at most *steps frames, and turn each claimed frame whose owner is dead, by CAS, into
 * a published pad of the same length and count. Never touches another's claim (D1); can be cut off anywhere
 * and repeated (D4: "repair.claim_k"). *pads grows by the pads made. EAGRE_OK: the chain ends here;
 * EG_REPAIR_MORE: no steps left; EAGRE_E_CORRUPT: the chain has a word that is none; what lies before was
 * repaired.
 */
int eg_repair_chain(struct eg_chain *c, uint32_t *steps, bool (*is_dead)(void *ctx, uint32_t owner),
                    void *ctx, uint64_t *pads);

/* All of a segment at once, for who has the time. *pads is the number of pads made. */
int eg_repair_segment(uint8_t *buffer, uint64_t capacity, uint64_t allocated, uint32_t align,
                      bool (*is_dead)(void *ctx, uint32_t owner), void *ctx, uint64_t *pads);

#endif
