/*
 * memory.h - how memory.c finds the limits on memory; open to its test. Others use shm.h.
 *
 * The memory controller may hang in a v1 hierarchy or in the v2 one, a container may see only a
 * part of it, and every ancestor may have a limit of its own. proc is "/proc", or a test's imitation
 * of it.
 */
#ifndef EG_SYS_MEMORY_H
#define EG_SYS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EG_CGROUP_PATH_MAX 1024
#define EG_CGROUP_TEXT_MAX 4096

/* A directory of a cgroup file system: this process's group; its ancestors up to the mount point
 * (the first top_len bytes) are those that limit it, too. */
struct eg_cgroup {
    char dir[EG_CGROUP_PATH_MAX];
    size_t top_len;
    bool v2;
};

struct eg_cgroups {
    char text[EG_CGROUP_TEXT_MAX]; /* of proc/self/cgroup, from which this was derived */
    struct eg_cgroup group[2];     /* v1 and v2 may both be mounted */
    size_t count;
    struct eg_cgroups *older;
};

struct eg_memory_room {
    uint64_t limit;                      /* the smallest of RAM and all groups' limits, bytes */
    uint64_t left;                       /* the least that any of them has left, bytes ... */
    char what[EG_CGROUP_PATH_MAX + 128]; /* ... and which one that is, with its figures */
};

/* Find the groups of the process whose proc/self/cgroup says text. None is no error. */
void eg_cgroups_find(const char *proc, const char *text, struct eg_cgroups *out);

/* Measure RAM and the groups. */
int eg_memory_measure(const char *proc, const struct eg_cgroups *groups,
                      struct eg_memory_room *out);

#endif
