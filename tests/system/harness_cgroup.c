#include "harness_cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/memory.h"

static bool put(const struct eg_cgroup_dir *g, const char *file, long long value) {
    char path[1200];
    snprintf(path, sizeof(path), "%s/%s", g->path, file);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return false;
    bool good = fprintf(f, "%lld\n", value) > 0;
    return fclose(f) == 0 && good;
}

/* The number behind "key ", or the first one. */
static long long get(const struct eg_cgroup_dir *g, const char *file, const char *key) {
    char path[1200], line[256];
    long long value = -1;
    snprintf(path, sizeof(path), "%s/%s", g->path, file);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    while (value < 0 && fgets(line, sizeof(line), f) != NULL)
        if (key == NULL || (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ' '))
            value = atoll(line + (key == NULL ? 0 : strlen(key)));
    fclose(f);
    return value;
}

bool eg_cgroup_make(struct eg_cgroup_dir *g) {
    static struct eg_cgroups ours;
    static unsigned number;
    char text[EG_CGROUP_TEXT_MAX];
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f == NULL)
        return false;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    eg_cgroups_find("/proc", text, &ours);
    for (size_t i = 0; i < ours.count; i++) {
        g->v2 = ours.group[i].v2;
        snprintf(g->path, sizeof(g->path), "%s/eg-test-%d-%u", ours.group[i].dir, (int)getpid(),
                 number++);
        if (mkdir(g->path, 0755) != 0)
            continue;
        /* Without the controller (v2: ours has processes, so its children have none) there are no such files. */
        if (eg_cgroup_usage(g) >= 0 &&
            put(g, g->v2 ? "memory.max" : "memory.limit_in_bytes", 1ll << 40))
            return true;
        rmdir(g->path);
    }
    return false;
}

void eg_cgroup_remove(const struct eg_cgroup_dir *g) {
    if (rmdir(g->path) != 0)
        fail_msg("%s: %s", g->path, strerror(errno));
}

void eg_cgroup_add(const struct eg_cgroup_dir *g, pid_t pid) {
    if (!put(g, "cgroup.procs", pid))
        fail_msg("%s: cannot move process %d there", g->path, (int)pid);
}

void eg_cgroup_limit(const struct eg_cgroup_dir *g, long long bytes) {
    if (!put(g, g->v2 ? "memory.max" : "memory.limit_in_bytes", bytes))
        fail_msg("%s: cannot set its limit to %lld", g->path, bytes);
}

long long eg_cgroup_usage(const struct eg_cgroup_dir *g) {
    return get(g, g->v2 ? "memory.current" : "memory.usage_in_bytes", NULL);
}

long long eg_cgroup_ooms(const struct eg_cgroup_dir *g) {
    return get(g, g->v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}
