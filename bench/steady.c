/*
 * Steady state: once warm, producer and consumer make no system call and take no page fault. Faults
 * and context switches are the kernel's own counts (/proc); system calls are counted by ptrace, which
 * stops a process at each one and otherwise leaves it alone.
 */
#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define WARM_LAPS 3

struct count {
    double faults, switches, calls;
};

static long field_of(pid_t pid, int n) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    size_t got = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[got] = 0;
    char *at = strrchr(text, ')'); /* the name may hold anything; field 3 follows it */
    for (int i = 2; at && i < n; i++)
        at = strchr(at + 1, ' ');
    return at ? atol(at) : -1;
}

static long voluntary_switches(pid_t pid) {
    char path[40], line[256];
    long n = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
            break;
    if (f)
        fclose(f);
    return n;
}

static long faults(pid_t pid) { return field_of(pid, 10) + field_of(pid, 12); }

/* Count the system calls that pids make within span_ns. 0 or -1. */
static int count_calls(const pid_t pid[2], int64_t span_ns, double calls[2]) {
    for (int i = 0; i < 2; i++)
        if (ptrace(PTRACE_SEIZE, pid[i], NULL, (void *)(long)PTRACE_O_TRACESYSGOOD) != 0 ||
            ptrace(PTRACE_INTERRUPT, pid[i], NULL, NULL) != 0) {
            fprintf(stderr, "eagre-bench: ptrace: %s (system calls cannot be counted)\n",
                    strerror(errno));
            return -1;
        }
    int64_t end = eb_now_ns() + span_ns;
    double stops[2] = {0, 0};
    while (eb_now_ns() < end) {
        bool any = false;
        for (int i = 0; i < 2; i++) {
            int status;
            if (waitpid(pid[i], &status, WNOHANG | __WALL) != pid[i])
                continue;
            any = true;
            if (!WIFSTOPPED(status)) {
                fprintf(stderr, "eagre-bench: worker %d ended while it was looked at\n", i);
                return -1;
            }
            int signal = WSTOPSIG(status);
            if (signal == (SIGTRAP | 0x80))
                stops[i]++; /* at its entry and at its exit */
            bool injected = status >> 16 == 0 && signal != (SIGTRAP | 0x80) && signal != SIGTRAP;
            ptrace(PTRACE_SYSCALL, pid[i], NULL, (void *)(long)(injected ? signal : 0));
        }
        if (!any)
            nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
    calls[0] = stops[0] / 2;
    calls[1] = stops[1] / 2;
    return 0; /* the workers are killed as they are: nothing needs to be detached */
}

static void warm_up(struct eb_area *a, const struct eb_stream *s) {
    int64_t end = eb_now_ns() + 20000000000;
    while (atomic_load_explicit(&a->cell[0].v, memory_order_relaxed) < WARM_LAPS * s->lap &&
           eb_now_ns() < end && !a->worker[0].error[0] && !a->worker[1].error[0])
        nanosleep(&(struct timespec){0, 2000000}, NULL);
}

static int measure(struct eb_bench *b, struct eb_area *a, const struct eb_stream *s, double *out) {
    pid_t pid[2] = {a->worker[0].pid, a->worker[1].pid};
    int64_t span = (int64_t)(b->opt.seconds * 1e9);
    warm_up(a, s);
    uint64_t from = atomic_load_explicit(&a->cell[0].v, memory_order_relaxed);
    if (from < WARM_LAPS * s->lap) {
        fprintf(stderr, "eagre-bench: no steady state was reached: %s%s\n", a->worker[0].error,
                a->worker[1].error);
        return -1;
    }
    long fault[2] = {faults(pid[0]), faults(pid[1])};
    long turn[2] = {voluntary_switches(pid[0]), voluntary_switches(pid[1])};
    nanosleep(&(struct timespec){span / 1000000000, span % 1000000000}, NULL);
    double calls[2];
    out[0] = (double)(atomic_load_explicit(&a->cell[0].v, memory_order_relaxed) - from) /
             (double)span * 1e3;
    out[1] = (double)(faults(pid[0]) - fault[0]) + (double)(faults(pid[1]) - fault[1]);
    out[2] = (double)(voluntary_switches(pid[0]) - turn[0]) +
             (double)(voluntary_switches(pid[1]) - turn[1]);
    if (count_calls(pid, span, calls) != 0)
        return -1;
    out[3] = calls[0];
    out[4] = calls[1];
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    struct eb_stream s = *(const struct eb_stream *)arg;
    struct eb_area *a = eb_area_create(2);
    int r = -1;
    if (a && eb_stream_prepare(b, &s) == 0) {
        if (eb_worker_start(a, 0, eb_stream_produce, &s, b->opt.cpu[0]) == 0 &&
            eb_worker_start(a, 1, eb_stream_consume, &s, b->opt.cpu[1]) == 0)
            r = measure(b, a, &s, out);
        eb_area_free(a); /* ends the workers, who would go on for ever */
        a = NULL;
        eb_stream_end(b, &s);
    }
    eb_area_free(a);
    return r;
}

int eb_steady(struct eb_bench *b) {
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){1u << 20, 8};
    uint64_t size = b->opt.size ? b->opt.size : 64;
    char text[160];
    snprintf(
        text, sizeof text,
        "faults, sleeps and system calls in %.0f s after %d laps, %llu-byte values, ring of %u x "
        "%llu KiB",
        b->opt.seconds, WARM_LAPS, (unsigned long long)size, ring.segments,
        (unsigned long long)(ring.segment_bytes >> 10));
#define S(...)                                                                                     \
    &(const struct eb_stream) {                                                                    \
        .size = size, .ring = ring, .total = UINT64_MAX, .check_crcs = true, .spins = true,        \
        __VA_ARGS__                                                                                \
    }
#define NONE                                                                                       \
    -1, {                                                                                          \
        {'<', true, 1, 0}, { '<', true, 3, 0 }                                                     \
    }
    struct eb_comparison c = {"steady",
                              text,
                              {{"warm", "M/s", 2},
                               {"faults", "", 0},
                               {"sleeps", "", 0},
                               {"calls-p", "", 0},
                               {"calls-c", "", 0}},
                              {{"one by one, 1 M/s", run, S(.way = EB_ONE, .rate = 1e6), NONE},
                               {"batches of 16, 4 M/s", run, S(.way = EB_BATCH, .rate = 4e6), NONE},
                               {"one by one, full speed", run, S(.way = EB_ONE), -1, {{0}}},
                               {"batches of 16, full speed", run, S(.way = EB_BATCH), -1, {{0}}}},
                              1};
    return eb_compare(b, &c);
}
