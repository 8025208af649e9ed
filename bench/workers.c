#include "workers.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct eb_area *eb_area_create(unsigned count) {
    if (count > EB_WORKERS_MAX) {
        fprintf(stderr, "eagre-bench: %u workers, at most %d are possible\n", count,
                EB_WORKERS_MAX);
        return NULL;
    }
    size_t bytes = sizeof(struct eb_area) + count * sizeof(struct eb_worker);
    struct eb_area *a =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (a == MAP_FAILED) {
        fprintf(stderr, "eagre-bench: no memory for %u workers: %s\n", count, strerror(errno));
        return NULL;
    }
    a->count = count;
    a->bytes = bytes;
    for (unsigned i = 0; i < count; i++)
        a->worker[i].area = a;
    return a;
}

static void kill_all(struct eb_area *a) {
    for (unsigned i = 0; i < a->count; i++)
        if (a->worker[i].pid > 0) {
            kill(a->worker[i].pid, SIGKILL);
            waitpid(a->worker[i].pid, NULL, 0);
            a->worker[i].pid = 0;
        }
}

void eb_area_free(struct eb_area *a) {
    if (!a)
        return;
    kill_all(a);
    munmap(a, a->bytes);
}

int eb_worker_start(struct eb_area *a, unsigned i, eb_worker_fn *fn, const void *arg, int cpu) {
    struct eb_worker *w = &a->worker[i];
    w->arg = arg;
    w->cpu = cpu;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "eagre-bench: fork: %s\n", strerror(errno));
        return -1;
    }
    if (pid > 0) {
        w->pid = pid;
        return 0;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (getppid() != parent)
        _exit(1);
    if (cpu >= 0 && !eb_pin(cpu)) {
        eb_fail(w, "cannot run on CPU %d: %s (see --cpus)", cpu, strerror(errno));
        _exit(1);
    }
    _exit(fn(w) ? 1 : 0);
}

/* 0: it ended well or still runs; -1: it failed. */
static int look_at(struct eb_worker *w, unsigned i) {
    int status;
    if (w->pid <= 0 || waitpid(w->pid, &status, WNOHANG) != w->pid)
        return 0;
    w->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        fprintf(stderr, "eagre-bench: worker %u was ended by signal %d\n", i, WTERMSIG(status));
    else
        fprintf(stderr, "eagre-bench: worker %u: %s\n", i, w->error[0] ? w->error : "failed");
    return -1;
}

int eb_workers_wait(struct eb_area *a, unsigned timeout_ms) {
    int64_t end = eb_now_ns() + (int64_t)timeout_ms * 1000000;
    for (;;) {
        struct pollfd fds[EB_WORKERS_MAX];
        unsigned n = 0;
        for (unsigned i = 0; i < a->count; i++) {
            if (look_at(&a->worker[i], i) != 0) {
                kill_all(a);
                return -1;
            }
            if (a->worker[i].pid > 0)
                fds[n++] =
                    (struct pollfd){(int)syscall(SYS_pidfd_open, a->worker[i].pid, 0), POLLIN, 0};
        }
        if (n == 0)
            return 0;
        int64_t left = (end - eb_now_ns()) / 1000000;
        int r = left > 0 ? poll(fds, n, (int)left) : 0;
        int e = errno;
        for (unsigned i = 0; i < n; i++)
            close(fds[i].fd);
        if (r == 0 || (r < 0 && e == EINTR)) {
            fprintf(stderr, "eagre-bench: %s\n",
                    r == 0 ? "a run did not end in time" : "interrupted");
            kill_all(a);
            return -1;
        }
    }
}

int eb_pair_run(struct eb_area *a, eb_worker_fn *fn0, eb_worker_fn *fn1, const void *arg,
                const int cpu[2], unsigned timeout_ms) {
    if (eb_worker_start(a, 0, fn0, arg, cpu[0]) != 0 ||
        eb_worker_start(a, 1, fn1, arg, cpu[1]) != 0) {
        kill_all(a);
        return -1;
    }
    return eb_workers_wait(a, timeout_ms);
}

void eb_barrier(struct eb_area *a, unsigned parties) {
    uint32_t mine = atomic_fetch_add_explicit(&a->arrived, 1, memory_order_acq_rel);
    uint32_t all = (mine / parties + 1) * parties;
    for (uint32_t i = 0;
         (int32_t)(atomic_load_explicit(&a->arrived, memory_order_acquire) - all) < 0; i++) {
        eb_cpu_pause();
        if (i > 2000) /* many that yield would keep the last ones from the CPU */
            nanosleep(&(struct timespec){0, 50000}, NULL);
        else if (i > 1000)
            sched_yield();
    }
}

int eb_fail(struct eb_worker *w, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vsnprintf(w->error, sizeof w->error, format, ap);
    va_end(ap);
    return 1;
}

double eb_tick_ns(void) {
    static double tick;
    if (tick == 0) {
        int64_t t0 = eb_now_ns();
        uint64_t c0 = eb_ticks();
        nanosleep(&(struct timespec){0, 20000000}, NULL);
        uint64_t c1 = eb_ticks();
        int64_t t1 = eb_now_ns();
        tick = (double)(t1 - t0) / (double)(c1 - c0);
    }
    return tick;
}

bool eb_pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}
