/* harness_cgroup.h - a memory cgroup below our own, v1 or v2: for tests of what happens when it is full. */
#ifndef EG_TESTS_HARNESS_CGROUP_H
#define EG_TESTS_HARNESS_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

struct eg_cgroup_dir {
    char path[1100];
    bool v2;
};

/* False: none can be made here (no permission, no controller). */
bool eg_cgroup_make(struct eg_cgroup_dir *g);
/* When nobody is in it any more. */
void eg_cgroup_remove(const struct eg_cgroup_dir *g);
/* What the process allocates from now on is charged to the group. */
void eg_cgroup_add(const struct eg_cgroup_dir *g, pid_t pid);
void eg_cgroup_limit(const struct eg_cgroup_dir *g, long long bytes);
long long eg_cgroup_usage(const struct eg_cgroup_dir *g);
/* How often the kernel had to end somebody there. */
long long eg_cgroup_ooms(const struct eg_cgroup_dir *g);

#endif
