#include "harness.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* First line of a file, without its end; "" if there is none. */
static const char *first_line(const char *path, char *buf, size_t cap) {
    FILE *f = fopen(path, "re");
    buf[0] = 0;
    if (f) {
        if (fgets(buf, (int)cap, f))
            buf[strcspn(buf, "\n")] = 0;
        fclose(f);
    }
    return buf;
}

/* The value of the first "name : value" line of /proc/cpuinfo, or of a CPU that has no such line. */
static const char *cpu_model(char *buf, size_t cap) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512];
    snprintf(buf, cap, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (colon && (strncmp(line, "model name", 10) == 0 || strncmp(line, "CPU part", 8) == 0)) {
            line[strcspn(line, "\n")] = 0;
            snprintf(buf, cap, "%s", colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
    return buf;
}

static bool is_virtual(void) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[8192];
    bool yes = false;
    while (f && !yes && fgets(line, sizeof line, f))
        yes = strncmp(line, "flags", 5) == 0 && strstr(line, " hypervisor");
    if (f)
        fclose(f);
    return yes;
}

struct description {
    char cpu[160], kernel[200], governor[80], thp[80], shmem[100], clock[40], autogroup[80];
    long cpus;
    double memory_gib;
};

static void describe(struct description *d) {
    struct utsname u;
    memset(d, 0, sizeof *d);
    cpu_model(d->cpu, sizeof d->cpu - 20);
    if (is_virtual())
        strcat(d->cpu, " (virtual)");
    uname(&u);
    snprintf(d->kernel, sizeof d->kernel, "%s %s", u.release, u.machine);
    d->cpus = sysconf(_SC_NPROCESSORS_ONLN);
    d->memory_gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", d->governor,
               sizeof d->governor);
    if (!d->governor[0])
        strcpy(d->governor, "none visible");
    first_line("/sys/kernel/mm/transparent_hugepage/enabled", d->thp, sizeof d->thp);
    first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", d->shmem, sizeof d->shmem);
    first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", d->clock,
               sizeof d->clock);
    first_line("/proc/self/autogroup", d->autogroup, sizeof d->autogroup);
}

void eb_machine_report(struct eb_bench *b) {
    struct description d;
    describe(&d);
    fprintf(b->text,
            "eagre-bench %s, gcc-compatible %s\n"
            "cpu       %s, %ld CPUs online, %.1f GiB; pinned to CPUs %d and %d\n"
            "kernel    %s, clock source %s, governor: %s\n"
            "thp       enabled: %s; shmem: %s\n"
            "autogroup %s; load %.2f\n",
            eagre_version(), __VERSION__, d.cpu, d.cpus, d.memory_gib, b->opt.cpu[0], b->opt.cpu[1],
            d.kernel, d.clock, d.governor, d.thp, d.shmem, d.autogroup[0] ? d.autogroup : "off",
            eb_load());
    fprintf(b->text, "line      round trip of one cache line between the two CPUs: %.0f ns\n",
            eb_rtt_ns(b->opt.cpu));
}

void eb_json_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fputc('\\', f);
        if ((unsigned char)*s >= 0x20)
            fputc(*s, f);
    }
    fputc('"', f);
}

void eb_machine_json(struct eb_bench *b, FILE *f) {
    struct description d;
    describe(&d);
    const char *pair[][2] = {{"version", eagre_version()},
                             {"compiler", __VERSION__},
                             {"cpu", d.cpu},
                             {"kernel", d.kernel},
                             {"clock_source", d.clock},
                             {"governor", d.governor},
                             {"thp", d.thp},
                             {"thp_shmem", d.shmem},
                             {"autogroup", d.autogroup}};
    fprintf(f, "{");
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        fprintf(f, "\"%s\":", pair[i][0]);
        eb_json_string(f, pair[i][1]);
        fputc(',', f);
    }
    fprintf(f, "\"cpus\":%ld,\"memory_gib\":%.1f,\"pinned\":[%d,%d]}", d.cpus, d.memory_gib,
            b->opt.cpu[0], b->opt.cpu[1]);
}

/* ---- round trip of one line ------------------------------------------------------------------------ */

#define RTT_BLOCKS 21
#define RTT_TRIPS 400

static int rtt_ping(struct eb_worker *w) {
    _Atomic uint64_t *line = &w->area->cell[0].v;
    eb_barrier(w->area, 2);
    uint64_t turn = 0;
    for (unsigned k = 0; k < RTT_BLOCKS; k++) {
        int64_t t0 = eb_now_ns();
        for (unsigned i = 0; i < RTT_TRIPS; i++, turn += 2) {
            atomic_store_explicit(line, turn + 1, memory_order_release);
            while (atomic_load_explicit(line, memory_order_acquire) != turn + 2) {}
        }
        eb_hist_add(&w->hist, (uint64_t)(eb_now_ns() - t0) * 10 / RTT_TRIPS);
    }
    return 0;
}

static int rtt_pong(struct eb_worker *w) {
    _Atomic uint64_t *line = &w->area->cell[0].v;
    eb_barrier(w->area, 2);
    for (uint64_t turn = 1; turn < 2ull * RTT_BLOCKS * RTT_TRIPS; turn += 2) {
        while (atomic_load_explicit(line, memory_order_acquire) != turn) {}
        atomic_store_explicit(line, turn + 1, memory_order_release);
    }
    return 0;
}

double eb_rtt_ns(const int cpu[2]) {
    struct eb_area *a = eb_area_create(2);
    double rtt = 0;
    if (a && eb_pair_run(a, rtt_ping, rtt_pong, NULL, cpu, 10000) == 0)
        rtt = eb_hist_quantile(&a->worker[0].hist, 0.5) / 10;
    eb_area_free(a);
    return rtt;
}

/* ---- what disturbs --------------------------------------------------------------------------------- */

uint64_t eb_steal_ticks(void) {
    unsigned long long f[8] = {0};
    char line[512];
    sscanf(first_line("/proc/stat", line, sizeof line),
           "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5],
           &f[6], &f[7]);
    return f[7];
}

double eb_load(void) {
    double load = 0;
    return getloadavg(&load, 1) == 1 ? load : 0;
}

int64_t eb_cpu_time_ns(pid_t pid) {
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    int64_t sum = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.10s/schedstat", (int)pid, e->d_name);
        sum += strtoll(first_line(path, line, sizeof line), NULL, 10);
    }
    closedir(d);
    return sum;
}

static int autogroup_before;
static bool autogroup_raised;

static bool autogroup_set(int nice) {
    FILE *f = fopen("/proc/self/autogroup", "we");
    if (!f)
        return false;
    fprintf(f, "%d", nice);
    return fclose(f) == 0;
}

void eb_autogroup_raise(void) {
    char line[80];
    const char *nice = strstr(first_line("/proc/self/autogroup", line, sizeof line), " nice ");
    if (!nice || geteuid() != 0)
        return;
    autogroup_before = atoi(nice + 6);
    autogroup_raised = autogroup_set(-19);
}

void eb_autogroup_restore(void) {
    if (autogroup_raised)
        autogroup_set(autogroup_before);
}
