/*
 * rotate.h - go on to the next segment. Anyone who finds no room may do, or repeat, every step;
 * nobody needs the one who began. Each step is an exact CAS: a late repeater's fails.
 *
 *   eos.set       the free word at the chain's end becomes end-of-segment; base of the next is fixed
 *   next.seen     the next slot is (seq+1, READY, buffer)
 *   base.set      that buffer's base becomes base + index, from unset
 *   slot.opened   the slot's word becomes (seq+1, OPEN, buffer)
 *   active.moved  active becomes seq+1
 */
#ifndef EG_LOG_ROTATE_H
#define EG_LOG_ROTATE_H

#include "log/writer.h"

/*
 * The writer is pinned on w->seq and found that the chain ends at (pos, index) with too little room.
 * EG_LOG_AGAIN: it moved (or somebody did): enter the active segment anew. EAGRE_E_WOULD_BLOCK: the
 * next slot is not READY. Else a failure. The pin is as it was.
 */
int eg_rotate(struct eg_writer *w, uint64_t pos, uint64_t index);

#endif
