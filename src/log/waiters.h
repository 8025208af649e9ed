/*
 * waiters.h - sleep without lost wake-ups, at the price of one load for who publishes.
 *
 *   sleeper                                    waker
 *   sleep.bit_set      bits[w] |= bit          publish (release)
 *   sleep.summary_set  summary |= 1 << w       compiler barrier
 *                      membarrier              if (summary != 0)
 *                      look once more            wake.summary_cleared  summary = 0
 *   sleep.before_futex wait on own bell          wake.bits_taken       bits[w] = 0
 *                                                wake.bell_rung        bell += 1, FUTEX_WAKE
 *
 * Either the waker's load of the summary comes after the sleeper's membarrier, then it sees the
 * bit; or it came before, then its publish came before too (the membarrier is a full barrier on
 * the waker's CPU, wherever it was) and the sleeper's second look sees the record. A waker that
 * cannot register for membarriers uses a full fence instead of the compiler barrier. The bell is
 * read before the bit is set, so a ring in between makes the futex wait return at once. The summary
 * is cleared before the bits are taken: a bit set later sets the summary again. A waker that dies
 * in between delays the sleeper by its bounded sleep (EG_SLEEP_MAX_NS), no longer.
 */
#ifndef EG_LOG_WAITERS_H
#define EG_LOG_WAITERS_H

#include "log/map.h"
#include "sys/atomic.h"

#define EG_SLEEP_MAX_NS 100000000ll

/* Sleeper, for each partition it waits for. The caller then does eg_membarrier() and looks again. */
void eg_sleep_announce(struct eg_waiters *w, uint32_t bell);
/* Sleeper, after it woke: take the bit back, so that nobody rings for nothing. */
void eg_sleep_retract(struct eg_waiters *w, uint32_t bell);

/* Waker's slow half: somebody waits. */
void eg_wake_waiters(struct eg_partition_map *m) __attribute__((cold));
/* The same for who has no partition map (the daemon): calls ring for each non-empty word. */
void eg_wake_collect(struct eg_waiters *w, void (*ring)(void *ctx, uint32_t word, uint64_t mask), void *ctx);
/* Whatever the summary says: every set bit is taken (the daemon, after a death and at its start). */
void eg_wake_collect_all(struct eg_waiters *w, void (*ring)(void *ctx, uint32_t word, uint64_t mask), void *ctx);

/* After publishing. */
static inline void eg_wake(struct eg_partition_map *m, bool fence) {
    if (__builtin_expect(fence, 0))
        eg_fence_seq_cst();
    else
        eg_compiler_barrier();
    if (__builtin_expect(eg_load_relaxed(&m->waiters->summary) != 0, 0))
        eg_wake_waiters(m);
}

/* Who waits on a partition's `durable` for an end in (from, to], as bits of its futex: so a flush wakes whom it serves, and
 * not those that the next one will. */
static inline uint32_t eg_durable_bits(int64_t from, int64_t to) {
    uint64_t first = ((uint64_t)from + 1) >> 2, last = (uint64_t)to >> 2, n = last - first + 1;
    uint32_t bits = n >= 32 ? UINT32_MAX : (UINT32_C(1) << n) - 1;
    uint32_t by = (uint32_t)first % 32;
    return by == 0 ? bits : bits << by | bits >> (32 - by);
}

#endif
