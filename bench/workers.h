/*
 * workers.h - the processes of one run: forked, pinned, started together, watched, and never left
 * behind. They and the parent share one area, which holds what they tell each other and the results.
 */
#ifndef EB_WORKERS_H
#define EB_WORKERS_H

#include "histogram.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define EB_VALUES 12
#define EB_CELLS 4
#define EB_WORKERS_MAX 256

struct eb_cell {
    _Alignas(64) _Atomic uint64_t v;
    uint64_t pad[7];
};

struct eb_worker {
    struct eb_area *area;
    const void *arg;
    pid_t pid;
    int cpu; /* -1: not pinned */
    double value[EB_VALUES];
    struct eb_hist hist;
    char error[600];
};

struct eb_area {
    unsigned count;
    size_t bytes;
    _Alignas(64) _Atomic uint32_t arrived;
    struct eb_cell cell[EB_CELLS]; /* the scenario's own, zero at start: one writer each */
    struct eb_worker worker[];
};

/* Runs in the child. 0, or 1 after eb_fail(). */
typedef int eb_worker_fn(struct eb_worker *w);

/* NULL: no memory. */
struct eb_area *eb_area_create(unsigned count);
void eb_area_free(struct eb_area *a); /* kills and reaps what still runs */

/* Fork worker i: runs fn(&a->worker[i]), then exits. 0 or -1. */
int eb_worker_start(struct eb_area *a, unsigned i, eb_worker_fn *fn, const void *arg, int cpu);

/* Wait until all started ones have ended; the first failure, or the time limit, kills the others.
 * 0, or -1 with the reason on stderr. */
int eb_workers_wait(struct eb_area *a, unsigned timeout_ms);

/* Start two pinned workers, wait for them: 0 or -1. */
int eb_pair_run(struct eb_area *a, eb_worker_fn *fn0, eb_worker_fn *fn1, const void *arg,
                const int cpu[2], unsigned timeout_ms);

/* All `count` workers (and the parent if it is one of `parties`) meet here. Reusable. */
void eb_barrier(struct eb_area *a, unsigned parties);

/* Note why a worker failed; returns 1. */
int eb_fail(struct eb_worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- time and CPU ------------------------------------------------------------------------------- */

static inline int64_t eb_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void eb_cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* A counter that is cheaper to read than the clock, for intervals on one CPU. */
static inline uint64_t eb_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return (uint64_t)eb_now_ns();
#endif
}

/* How long one tick is. Measured at the first call (20 ms). */
double eb_tick_ns(void);

bool eb_pin(int cpu);

/* Do not keep the compiler from anything but leaving the value out. */
#define EB_USE(value) __asm__ volatile("" : : "g"(value) : "memory")

#endif
