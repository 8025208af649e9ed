/*
 * clock.h - the clocks, in nanoseconds.
 */
#ifndef EG_SYS_CLOCK_H
#define EG_SYS_CLOCK_H

#include <stdint.h>
#include <time.h>

#define EG_NS_PER_S INT64_C(1000000000)
#define EG_NS_PER_MS INT64_C(1000000)
#define EG_NS_PER_US INT64_C(1000)

static inline int64_t eg_clock_read_ns(clockid_t id) {
    struct timespec ts;
    (void)clock_gettime(id, &ts); /* cannot fail for the clocks below */
    return (int64_t)ts.tv_sec * EG_NS_PER_S + ts.tv_nsec;
}

/* Since the epoch, as of the last tick of the kernel: 1 to 4 ms coarse, some 5 ns to read. */
static inline int64_t eg_now_coarse_ns(void) { return eg_clock_read_ns(CLOCK_REALTIME_COARSE); }

/* Since the epoch, exact. May step when somebody sets the clock. */
static inline int64_t eg_now_ns(void) { return eg_clock_read_ns(CLOCK_REALTIME); }

/* For intervals and deadlines: never steps back; the same in all processes of the host. */
static inline int64_t eg_mono_ns(void) { return eg_clock_read_ns(CLOCK_MONOTONIC); }

#endif
