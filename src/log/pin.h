/*
 * pin.h - "I am using segment seq of this partition."
 *
 * pin.stored, then pin.checked: the pin cell is stored, then the slot's word is loaded; the daemon
 * sets the word to RETIRING, then reads the cells. Each side must not have its load pass its store.
 * The daemon does a membarrier between the two, which is a full barrier in this process as well;
 * so here a compiler barrier will do - unless this process could not register for membarriers
 * (or the daemon has none), then it is a fence of its own (`fence`).
 * Modelled: "no re-check after the pin" and "producers' pins on seq-1 ignored" are caught.
 */
#ifndef EG_LOG_PIN_H
#define EG_LOG_PIN_H

#include "layout/layout.h"
#include "sys/atomic.h"

static inline void eg_pin_set(_Atomic uint64_t *cell, uint64_t pin, bool fence) {
    eg_store_relaxed(cell, pin); /* ordered by the barrier, as told above */
    if (__builtin_expect(fence, 0))
        eg_fence_seq_cst();
    else
        eg_compiler_barrier();
}

/* Release: all that was done under the pin happened before. Partner: the daemon's acquire scan. */
static inline void eg_pin_clear(_Atomic uint64_t *cell) { eg_store_release(cell, EG_PIN_NONE); }

#endif
