/*
 * repair.h - what a dead producer left: its claimed frames become pads. Who is dead is the caller's
 * business (the daemon's janitor); here is only the walk.
 */
#ifndef EG_LOG_REPAIR_H
#define EG_LOG_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Walk the chain of one segment (buffer: its mapping from the header page on) and turn each claimed
 * frame whose owner is dead, by CAS, into a published pad of the same length and count. Never
 * touches another's claim (D1); can be cut off anywhere and repeated (D4: "repair.claim_k").
 * allocated: bytes of the buffer that may be touched. *pads is the number of pads made.
 * EAGRE_E_CORRUPT: the chain has a word that is none; what lies before was repaired.
 */
int eg_repair_segment(uint8_t *buffer, uint64_t capacity, uint64_t allocated, uint32_t align,
                      bool (*is_dead)(void *ctx, uint32_t owner), void *ctx, uint64_t *pads);

#endif
