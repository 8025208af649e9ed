/*
 * futex.h - sleeping on a word in shared memory.
 *
 * Shared futexes: the word may lie in a MAP_SHARED mapping of several processes. The waiter needs
 * no right to write to it.
 */
#ifndef EG_SYS_FUTEX_H
#define EG_SYS_FUTEX_H

#include <stdint.h>

/*
 * Sleep while *addr == expected, until woken or for timeout_ns (relative, CLOCK_MONOTONIC; below 0:
 * for ever). Returns 1 if the time is over; 0 if woken, if the value differs, if a signal came or
 * if the wait was not possible at all: so the caller looks again after every 0.
 */
int eg_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t timeout_ns);

/* The same for who cares for some of what the word stands for: woken if any bit is in the waker's. Not 0. */
int eg_futex_wait_bits(_Atomic uint32_t *addr, uint32_t expected, uint32_t bits, int64_t timeout_ns);

/* Wake all whose bits have one of these, and all who wait without bits. Returns how many there were. */
uint32_t eg_futex_wake_bits(_Atomic uint32_t *addr, uint32_t bits);

/* Wake up to n waiters (INT_MAX: all). Orders nothing by itself: store the word first. */
void eg_futex_wake(_Atomic uint32_t *addr, int n);

#endif
