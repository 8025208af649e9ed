#include "histogram.h"

#include <string.h>

void eb_hist_reset(struct eb_hist *h) { memset(h, 0, sizeof *h); }

void eb_hist_merge(struct eb_hist *into, const struct eb_hist *from) {
    into->count += from->count;
    if (from->max > into->max)
        into->max = from->max;
    for (uint32_t i = 0; i < EB_HIST_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

/* The middle of the values that fall in bucket i. */
static double bucket_value(uint32_t i) {
    if (i < EB_HIST_STEPS)
        return i;
    uint32_t power = i / EB_HIST_STEPS - 1;
    double low = (double)((uint64_t)(i % EB_HIST_STEPS + EB_HIST_STEPS) << power);
    return low + (double)((1ull << power) - 1) / 2;
}

double eb_hist_quantile(const struct eb_hist *h, double q) {
    if (h->count == 0)
        return 0;
    uint64_t need = (uint64_t)(q * (double)h->count);
    if ((double)need < q * (double)h->count || need == 0)
        need++;
    if (need >= h->count)
        return (double)h->max;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < EB_HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= need)
            return bucket_value(i) < (double)h->max ? bucket_value(i) : (double)h->max;
    }
    return (double)h->max;
}
