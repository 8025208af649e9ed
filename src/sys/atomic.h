/*
 * atomic.h - the memory orders that this project uses, by name.
 *
 * A thin layer on <stdatomic.h>: every access to a shared word names its order, and nothing else
 * (no plain `x = y` on an _Atomic object, which would silently be sequentially consistent).
 * p is always a pointer to an _Atomic object of fixed width.
 */
#ifndef EG_SYS_ATOMIC_H
#define EG_SYS_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What is shared between processes must not hide a lock, which would live in one process only. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LONG_LOCK_FREE == 2 &&
                   ATOMIC_LLONG_LOCK_FREE == 2,
               "atomics of 32 and 64 bits must be lock-free");

/* Acquire: what the writer stored before its release store of this value is visible after it. */
#define eg_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)

/* Relaxed: only the value itself matters: counters, hints, a word that a later CAS re-checks, or a
 * word that only this thread writes. */
#define eg_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)

/* Release: publishes everything that this thread stored before. */
#define eg_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)

/* Relaxed: for hints and statistics, or where a later release store or fence publishes it. */
#define eg_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)

/*
 * Strong compare-and-swap; true if it swapped, else *expected holds what was found.
 * Acq_rel: to take something over (acquire: see what its last owner did) and at once to sign it
 * (release: whoever acquires the new value sees what we did before). A failure acquires, too,
 * since the caller goes on with what somebody else has published.
 */
#define eg_cas_acq_rel(p, expected, desired)                                                       \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acq_rel,      \
                                            memory_order_acquire)

/* Relaxed CAS: the word alone is the whole message (a hint that must not go back, a maximum). */
#define eg_cas_relaxed(p, expected, desired)                                                       \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_relaxed,      \
                                            memory_order_relaxed)

/* Take all and leave v: waiter bits and similar mailboxes, where both directions carry data. */
#define eg_exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)

/* Set bits in a total order with all seq_cst operations: "I am going to sleep", before the last
 * look (store-load order, see fence below). */
#define eg_fetch_or_seq_cst(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)

/* The other halves of that order: take the bits back, or take all that were set. */
#define eg_fetch_and_seq_cst(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define eg_exchange_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)

/* Count. Orders nothing. */
#define eg_fetch_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

/*
 * Full fence: the only thing that keeps an earlier store before a later load (Dekker: pin, then
 * look; set the waiter bit, then look). Where the other side calls eg_membarrier(), this side
 * needs eg_compiler_barrier() only.
 */
#define eg_fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)

/* The compiler may not move memory accesses over this point; the CPU may. */
#define eg_compiler_barrier() atomic_signal_fence(memory_order_seq_cst)

#endif
