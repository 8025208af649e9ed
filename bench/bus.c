/* The daemon that the scenarios use: a private one in a temporary directory, or one that runs. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000
#define STOP_TIMEOUT_MS 10000

static struct eb_bus the_bus; /* one a process: the signal handler must find it */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* 1 when the process has ended within the time, 0 if it lives on. */
static int wait_gone(pid_t pid, int timeout_ms) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == ESRCH;
    struct pollfd p = {fd, POLLIN, 0};
    int r = poll(&p, 1, timeout_ms);
    close(fd);
    return r > 0;
}

static pid_t read_pid(const char *dir, const char *file) {
    char path[128], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "re");
    if (f) {
        if (!fgets(text, sizeof text, f))
            text[0] = 0;
        fclose(f);
    }
    return atoi(text);
}

static void show_log(const char *dir) {
    char path[128], line[400];
    snprintf(path, sizeof path, "%s/log", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

static const char *bin_dir(const struct eb_options *o, char *buf, size_t cap) {
    if (o->bin)
        return o->bin;
    ssize_t n = readlink("/proc/self/exe", buf, cap - 1);
    buf[n > 0 ? n : 0] = 0;
    char *slash = strrchr(buf, '/');
    if (slash)
        *slash = 0;
    return buf;
}

static void exec_daemon(const struct eb_options *o, const struct eb_bus *bus, int ready) {
    char dir[512], program[600], data[128], fd[12], log[128];
    snprintf(program, sizeof program, "%s/eagred", bin_dir(o, dir, sizeof dir));
    snprintf(data, sizeof data, "%s/data", bus->dir);
    snprintf(log, sizeof log, "%s/log", bus->dir);
    snprintf(fd, sizeof fd, "%d", ready);
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    if (o->daemon_cpu >= 0)
        eb_pin(o->daemon_cpu);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0); /* a Ctrl-C is for us: we stop it in good order */
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out >= 0) {
        dup2(out, 1);
        dup2(out, 2);
    }
    execl(program, program, "--dir", data, "--socket", bus->socket, "--ready-fd", fd, (char *)NULL);
    fprintf(stderr, "eagre-bench: cannot run %s: %s (see --bin)\n", program, strerror(errno));
    _exit(127);
}

static int launch(struct eb_bench *b, struct eb_bus *bus) {
    int ready[2];
    if (pipe(ready) != 0) {
        fprintf(stderr, "eagre-bench: pipe: %s\n", strerror(errno));
        return -1;
    }
    bus->pid = fork();
    if (bus->pid == 0) {
        close(ready[0]);
        exec_daemon(&b->opt, bus, ready[1]);
    }
    close(ready[1]);
    struct pollfd p = {ready[0], POLLIN, 0};
    char byte;
    bool up = bus->pid > 0 && poll(&p, 1, START_TIMEOUT_MS) == 1 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!up) {
        fprintf(stderr, "eagre-bench: eagred does not start; its log:\n");
        show_log(bus->dir);
        return -1;
    }
    bus->keeper = read_pid(bus->dir, "s.keeper.pid");
    return 0;
}

static int start(struct eb_bench *b, struct eb_bus *bus) {
    const char *tmp = getenv("TMPDIR");
    snprintf(bus->dir, sizeof bus->dir, "%.40s/eagre-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(bus->dir)) {
        fprintf(stderr, "eagre-bench: cannot make %s: %s\n", bus->dir, strerror(errno));
        return -1;
    }
    bus->own = true;
    snprintf(bus->socket, sizeof bus->socket, "%s/s", bus->dir);
    return launch(b, bus);
}

int eb_bus_cold_start(struct eb_bench *b, double *ns) {
    struct eb_bus *bus = b->bus;
    if (!bus || !bus->own || bus->keeper <= 0) {
        fprintf(stderr, "eagre-bench: a cold start needs a private daemon with a keeper\n");
        return -1;
    }
    kill(bus->pid, SIGKILL);
    waitpid(bus->pid, NULL, 0);
    kill(bus->keeper, SIGKILL);
    if (!wait_gone(bus->keeper, STOP_TIMEOUT_MS)) {
        fprintf(stderr, "eagre-bench: the keeper does not end\n");
        return -1;
    }
    int64_t began = eb_now_ns();
    if (launch(b, bus) != 0)
        return -1;
    *ns = (double)(eb_now_ns() - began);
    return 0;
}

struct eb_bus *eb_bus(struct eb_bench *b) {
    if (b->bus)
        return b->bus;
    b->bus = &the_bus;
    if (b->opt.socket) {
        snprintf(the_bus.socket, sizeof the_bus.socket, "%s", b->opt.socket);
        eagre_t *e;
        int r = eagre_open(the_bus.socket, &e);
        if (r == EAGRE_OK) {
            the_bus.pid = eagre_daemon_pid(e);
            eagre_close(e);
            return b->bus;
        }
        fprintf(stderr, "eagre-bench: %s\n", eagre_error_detail());
    } else if (start(b, &the_bus) == 0) {
        return b->bus;
    }
    eb_bus_stop(b);
    return NULL;
}

void eb_bus_stop(struct eb_bench *b) {
    struct eb_bus *bus = b->bus;
    b->bus = NULL;
    if (!bus || !bus->own)
        return;
    if (bus->pid > 0) {
        kill(bus->pid, SIGTERM);
        if (!wait_gone(bus->pid, STOP_TIMEOUT_MS)) {
            fprintf(stderr, "eagre-bench: eagred does not stop: killed\n");
            kill(bus->pid, SIGKILL);
        }
        waitpid(bus->pid, NULL, 0);
    }
    if (bus->keeper > 0 && !wait_gone(bus->keeper, 1000)) {
        fprintf(stderr, "eagre-bench: the keeper outlived its daemon: killed\n");
        kill(bus->keeper, SIGTERM);
        if (!wait_gone(bus->keeper, 1000))
            kill(bus->keeper, SIGKILL);
    }
    nftw(bus->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    memset(bus, 0, sizeof *bus);
}

/* ---- topics ------------------------------------------------------------------------------------------ */

int eb_fail_status(struct eb_worker *w, const char *what, int status) {
    return eb_fail(w, "%s: %s: %s", what, eagre_status_name(status), eagre_error_detail());
}

struct topic_order {
    const char *socket, *name;
    const eagre_setting_t *setting;
    size_t settings;
    bool create;
};

static int topic_worker(struct eb_worker *w) {
    const struct topic_order *o = w->arg;
    eagre_t *e;
    int r = eagre_open(o->socket, &e);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "eagre_open", r);
    r = o->create ? eagre_topic_create(e, o->name, o->setting, o->settings)
                  : eagre_topic_delete(e, o->name);
    if (r != EAGRE_OK)
        return eb_fail_status(w, o->create ? "eagre_topic_create" : "eagre_topic_delete", r);
    eagre_close(e);
    return 0;
}

static int topic_order(const struct topic_order *o) {
    struct eb_area *a = eb_area_create(1);
    int r = a && eb_worker_start(a, 0, topic_worker, o, -1) == 0 ? eb_workers_wait(a, 20000) : -1;
    eb_area_free(a);
    return r;
}

int eb_topic_create(struct eb_bench *b, const struct eb_ring *ring, const eagre_setting_t *extra,
                    char name[64]) {
    struct eb_bus *bus = eb_bus(b);
    if (!bus)
        return -1;
    snprintf(name, 64, "bench-%d-%u", (int)getpid(), bus->topics++);
    char segment[24], segments[12];
    snprintf(segment, sizeof segment, "%llu", (unsigned long long)ring->segment_bytes);
    snprintf(segments, sizeof segments, "%u", ring->segments);
    eagre_setting_t s[2 * EB_SETTINGS + 3] = {
        {"storage", "memory"}, {"segment.bytes", segment}, {"ring.segments", segments}};
    size_t n = 3;
    for (; extra && extra->name && n < EB_SETTINGS; extra++)
        s[n++] = *extra;
    for (size_t i = 0; i < b->opt.settings; i++)
        s[n++] = b->opt.setting[i];
    return topic_order(&(struct topic_order){bus->socket, name, s, n, true});
}

void eb_topic_delete(struct eb_bench *b, const char *name) {
    if (b->bus)
        topic_order(&(struct topic_order){b->bus->socket, name, NULL, 0, false});
}

void eb_bus_settle(struct eb_bench *b) {
    int64_t before = eb_cpu_time_ns(b->bus->pid);
    for (int i = 0; i < 60; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        int64_t now = eb_cpu_time_ns(b->bus->pid);
        if (now - before < 50000)
            return;
        before = now;
    }
}
