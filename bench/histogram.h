/*
 * histogram.h - latencies in logarithmic buckets of 128 steps per power of two: any quantile to
 * better than 1 %, constant memory, no allocation, may lie in shared memory (HdrHistogram's idea).
 */
#ifndef EB_HISTOGRAM_H
#define EB_HISTOGRAM_H

#include <stdint.h>

#define EB_HIST_STEPS_LOG2 7
#define EB_HIST_STEPS (1u << EB_HIST_STEPS_LOG2)
#define EB_HIST_POWERS 34 /* values up to 2^40 ns, 18 minutes; longer ones count as that */
#define EB_HIST_BUCKETS ((EB_HIST_POWERS + 1) * EB_HIST_STEPS)

struct eb_hist {
    uint64_t count;
    uint64_t max;
    uint64_t bucket[EB_HIST_BUCKETS];
};

void eb_hist_reset(struct eb_hist *h);
void eb_hist_merge(struct eb_hist *into, const struct eb_hist *from);

/* The smallest recorded value that at least q (0 .. 1) of all values are not above; 0 if empty. */
double eb_hist_quantile(const struct eb_hist *h, double q);

static inline uint32_t eb_hist_index(uint64_t value) {
    if (value < EB_HIST_STEPS)
        return (uint32_t)value;
    uint32_t power = 63u - (uint32_t)__builtin_clzll(value) - EB_HIST_STEPS_LOG2;
    uint32_t i = (power + 1) * EB_HIST_STEPS + ((uint32_t)(value >> power) - EB_HIST_STEPS);
    return i < EB_HIST_BUCKETS ? i : EB_HIST_BUCKETS - 1;
}

static inline void eb_hist_add(struct eb_hist *h, uint64_t value) {
    h->bucket[eb_hist_index(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

#endif
