/*
 * futex.c - see futex.h.
 */
#include "sys/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"

int eg_futex_wait(_Atomic uint32_t *addr, uint32_t expected, int64_t timeout_ns) {
    struct timespec ts = {.tv_sec = 0, .tv_nsec = 0};
    if (timeout_ns > 0) {
        ts.tv_sec = (time_t)(timeout_ns / EG_NS_PER_S);
        ts.tv_nsec = (long)(timeout_ns % EG_NS_PER_S);
    }
    /* The kernel loads *addr and sleeps as one step against eg_futex_wake(): no wake-up that
     * follows a change of the word is lost. */
    long rc = syscall(SYS_futex, addr, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &ts, NULL, 0);
    return rc != 0 && errno == ETIMEDOUT;
}

void eg_futex_wake(_Atomic uint32_t *addr, int n) {
    (void)syscall(SYS_futex, addr, FUTEX_WAKE, n, NULL, NULL, 0);
}
