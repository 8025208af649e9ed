/* How many records a second, against the bare log that moves the same bytes. */
#include "stream.h"

static int run(struct eb_bench *b, const void *arg, double *out) {
    double v[EB_VALUES];
    if (eb_stream_run(b, arg, v) != 0)
        return -1;
    out[0] = v[EB_WARM_RECORDS] / v[EB_WARM_NS] * 1e3;
    out[1] = v[EB_COLD_RECORDS] / v[EB_COLD_NS] * 1e3;
    out[2] = v[EB_LOST];
    return 0;
}

static const struct eb_metric metrics[EB_METRICS] = {
    {"warm", "M/s", 2}, {"cold", "M/s", 2}, {"lost", "rec", 0}, {0}};

static void title(char *buf, size_t cap, const struct eb_bench *b, const struct eb_ring *ring,
                  uint64_t size) {
    uint64_t window = eb_stream_window(b, ring);
    snprintf(buf, cap, "%llu-byte values, ring of %u x %llu KiB, producer at most %llu KiB ahead",
             (unsigned long long)size, ring->segments,
             (unsigned long long)(ring->segment_bytes >> 10), (unsigned long long)(window >> 10));
}

/* Every way to produce small values. */
static int small(struct eb_bench *b, struct eb_ring ring, uint64_t size) {
    char text[160];
    title(text, sizeof text, b, &ring, size);
#define S(...)                                                                                     \
    &(const struct eb_stream) { .size = size, .ring = ring, __VA_ARGS__ }
    struct eb_comparison c = {
        "throughput",
        text,
        {metrics[0], metrics[1], metrics[2]},
        {{"bare log", run, S(.way = EB_BARE), -1, {{0}}},
         {"one by one", run, S(.way = EB_ONE, .check_crcs = true), 0, {{'>', false, 0, 0.35}}},
         {"batches of 16", run, S(.way = EB_BATCH, .check_crcs = true), 0, {{'>', false, 0, 0.60}}},
         {"writers=single",
          run,
          S(.way = EB_ONE, .single = true, .check_crcs = true),
          0,
          {{'>', false, 0, 0.60}}},
         {"claim, commit", run, S(.way = EB_CLAIM, .check_crcs = true), 0, {{0}}},
         {"one by one, check.crcs off", run, S(.way = EB_ONE), 0, {{'>', false, 0, 0.35}}},
         {"batches of 16, check.crcs off", run, S(.way = EB_BATCH), 0, {{'>', false, 0, 0.60}}},
         {"writers=single, check.crcs off",
          run,
          S(.way = EB_ONE, .single = true),
          0,
          {{'>', false, 0, 0.60}}},
         {"claim, commit, check.crcs off", run, S(.way = EB_CLAIM), 0, {{0}}}},
        0};
    return eb_compare(b, &c);
}

static int large(struct eb_bench *b, struct eb_ring ring, uint64_t size) {
    char text[160];
    title(text, sizeof text, b, &ring, size);
    struct eb_comparison c = {
        "throughput",
        text,
        {metrics[0], metrics[1], metrics[2]},
        {{"bare log", run, S(.way = EB_BARE), -1, {{0}}},
         {"one by one", run, S(.way = EB_ONE, .check_crcs = true), 0, {{'>', false, 0, 0.60}}},
         {"one by one, check.crcs off", run, S(.way = EB_ONE), 0, {{'>', false, 0, 0.60}}}},
        0};
    return eb_compare(b, &c);
}

static const struct eb_ring default_ring = {64u << 20, 3}, cache_ring = {1u << 20, 8};

int eb_throughput(struct eb_bench *b) {
    struct eb_ring ring[2] = {default_ring, cache_ring};
    int rings = 2;
    if (b->opt.ring.segments) {
        ring[0] = b->opt.ring;
        rings = 1;
    }
    for (int i = 0; i < rings; i++) {
        if (b->opt.size) {
            if (small(b, ring[i], b->opt.size) != 0)
                return -1;
        } else if (small(b, ring[i], 64) != 0 || large(b, ring[i], 1024) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- sizes: the largest record and the empty one ------------------------------------------------------- */

static int run_bytes(struct eb_bench *b, const void *arg, double *out) {
    const struct eb_stream *s = arg;
    double v[EB_VALUES];
    if (eb_stream_run(b, arg, v) != 0)
        return -1;
    double records = v[EB_WARM_RECORDS] / v[EB_WARM_NS] * 1e9;
    out[0] = records / 1e6;
    out[1] = records * (double)s->size / 1e9;
    out[2] = v[EB_LOST];
    return 0;
}

int eb_sizes(struct eb_bench *b) {
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : default_ring;
    uint64_t size = ring.segment_bytes / 8 - 32;
    char text[160];
    snprintf(text, sizeof text,
             "the largest record (%llu bytes, an eighth of a segment) and the empty one, ring of "
             "%u x %llu KiB",
             (unsigned long long)size, ring.segments,
             (unsigned long long)(ring.segment_bytes >> 10));
    struct eb_comparison c = {
        "sizes",
        text,
        {{"records", "M/s", 4}, {"values", "GB/s", 2}, {"lost", "rec", 0}},
        {{"bare log, largest", run_bytes, S(.way = EB_BARE), -1, {{0}}},
         {"one by one, largest", run_bytes, S(.way = EB_ONE, .check_crcs = true), 0, {{0}}},
         {"largest, check.crcs off", run_bytes, S(.way = EB_ONE), 0, {{0}}},
         {"claim, commit, check.crcs off", run_bytes, S(.way = EB_CLAIM), 0, {{0}}}},
        0};
    if (eb_compare(b, &c) != 0)
        return -1;
    size = 0;
    struct eb_comparison empty = {
        "sizes",
        "the empty record",
        {{"records", "M/s", 2}, {"values", "GB/s", 2}, {"lost", "rec", 0}},
        {{"bare log, empty", run_bytes, S(.way = EB_BARE), -1, {{0}}},
         {"one by one, empty", run_bytes, S(.way = EB_ONE, .check_crcs = true), 0, {{0}}},
         {"batches of 16, empty", run_bytes, S(.way = EB_BATCH, .check_crcs = true), 0, {{0}}}},
        0};
    return eb_compare(b, &empty);
}
