/*
 * futex.c - see futex.h.
 */
#include "sys/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"

int eg_futex_wait_bits(_Atomic uint32_t *addr, uint32_t expected, uint32_t bits, int64_t timeout_ns) {
    struct timespec ts;
    if (timeout_ns >= 0) { /* the kernel wants to know until when */
        int64_t now = eg_mono_ns(), until = timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
        ts.tv_sec = (time_t)(until / EG_NS_PER_S);
        ts.tv_nsec = (long)(until % EG_NS_PER_S);
    }
    /* The kernel loads *addr and sleeps as one step against eg_futex_wake(): no wake-up that
     * follows a change of the word is lost. */
    long rc = syscall(SYS_futex, addr, FUTEX_WAIT_BITSET, expected, timeout_ns < 0 ? NULL : &ts, NULL, bits);
    return rc != 0 && errno == ETIMEDOUT;
}

int eg_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t timeout_ns) {
    return eg_futex_wait_bits(addr, expected, FUTEX_BITSET_MATCH_ANY, timeout_ns);
}

void eg_futex_wake(_Atomic uint32_t *addr, int n) {
    (void)syscall(SYS_futex, addr, FUTEX_WAKE, n, NULL, NULL, 0);
}

uint32_t eg_futex_wake_bits(_Atomic uint32_t *addr, uint32_t bits) {
    long n = syscall(SYS_futex, addr, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, bits);
    return n > 0 ? (uint32_t)n : 0;
}
