#include "log/waiters.h"

#include "sys/faultpoint.h"

void eg_sleep_announce(struct eg_waiters *w, uint32_t bell) {
    eg_fetch_or_seq_cst(&w->bits[bell / 64], 1ull << bell % 64);
    EG_FAULT("sleep.bit_set");
    eg_fetch_or_seq_cst(&w->summary, 1ull << bell / 64);
    EG_FAULT("sleep.summary_set");
}

void eg_sleep_retract(struct eg_waiters *w, uint32_t bell) {
    /* The summary bit may stay: it costs a waker one look at an empty word. */
    eg_fetch_and_seq_cst(&w->bits[bell / 64], ~(1ull << bell % 64));
}

static void take(struct eg_waiters *w, uint64_t words,
                 void (*ring)(void *ctx, uint32_t word, uint64_t mask), void *ctx) {
    while (words != 0) {
        uint32_t word = (uint32_t)__builtin_ctzll(words);
        words &= words - 1;
        uint64_t mask = eg_exchange_seq_cst(&w->bits[word], 0);
        EG_FAULT("wake.bits_taken");
        if (mask != 0)
            ring(ctx, word, mask);
        EG_FAULT("wake.bell_rung");
    }
}

void eg_wake_collect(struct eg_waiters *w, void (*ring)(void *ctx, uint32_t word, uint64_t mask),
                     void *ctx) {
    uint64_t words = eg_exchange_seq_cst(&w->summary, 0);
    EG_FAULT("wake.summary_cleared");
    take(w, words, ring, ctx);
}

void eg_wake_collect_all(struct eg_waiters *w, void (*ring)(void *ctx, uint32_t word, uint64_t mask),
                         void *ctx) {
    eg_exchange_seq_cst(&w->summary, 0);
    take(w, ~0ull, ring, ctx);
}

static void ring_by_ops(void *ctx, uint32_t word, uint64_t mask) {
    struct eg_partition_map *m = ctx;
    m->ops->ring_bells(m, word, mask);
}

void eg_wake_waiters(struct eg_partition_map *m) { eg_wake_collect(m->waiters, ring_by_ops, m); }
