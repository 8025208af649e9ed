/* The limits on memory, from imitations of /proc and of cgroup file systems; and a real cgroup. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/errbuf.h"
#include "sys/memory.h"
#include "sys/shm.h"

#define MIB (UINT64_C(1) << 20)

static char root[64]; /* holds proc/ and cg/ */

static int setup(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(root, sizeof root, "%s/eagre-memory-XXXXXX", tmp != NULL ? tmp : "/tmp");
    return mkdtemp(root) == NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int teardown(void **state) {
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Write root/path, with the directories it needs. */
__attribute__((format(printf, 2, 3))) static void put(const char *path, const char *format, ...) {
    char full[256];
    (void)snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *p = '/';
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    va_list args;
    va_start(args, format);
    assert_true(vfprintf(f, format, args) >= 0);
    va_end(args);
    assert_int_equal(fclose(f), 0);
}

static void put_host(unsigned total_mib, unsigned available_mib) {
    put("proc/meminfo",
        "MemTotal:    %u kB\nMemFree:  1 kB\nMemAvailable:   %u kB\nBuffers: 1 kB\n",
        total_mib * 1024, available_mib * 1024);
}

static struct eg_memory_room measure(const char *self_cgroup) {
    char proc[128];
    struct eg_cgroups groups;
    struct eg_memory_room room;
    (void)snprintf(proc, sizeof proc, "%s/proc", root);
    eg_cgroups_find(proc, self_cgroup, &groups);
    assert_int_equal(eg_memory_measure(proc, &groups, &room), 0);
    return room;
}

static void the_host_alone(void **state) {
    (void)state;
    put_host(1000, 300);
    const struct eg_memory_room room = measure("0::/\n");
    assert_int_equal(room.limit, 1000 * MIB);
    assert_int_equal(room.left, 300 * MIB);
    assert_non_null(strstr(room.what, "314572800 are available"));
}

static void no_figures_is_an_error(void **state) {
    (void)state;
    struct eg_cgroups none = {.count = 0};
    struct eg_memory_room room = {.limit = 3};
    assert_int_equal(eg_memory_measure(root, &none, &room), EAGRE_E_SYSTEM);
    assert_int_equal(room.limit, 3);
}

static void put_v2(void) {
    put("proc/self/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/x rw\n"
        "30 22 0:26 / %s/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        root);
    put("cg/memory.stat", "file 1\n"); /* the root has no limit */
    put("cg/a/memory.max", "%llu\n", 500ull << 20);
    put("cg/a/memory.current", "%llu\n", 490ull << 20);
    put("cg/a/memory.stat", "anon 5\nfile 999\ninactive_file %llu\nactive_file %llu\n", 20ull << 20,
        30ull << 20);
    put("cg/a/b/memory.max", "max\n");
    put("cg/a/b/memory.current", "1\n");
}

static void v2_every_ancestor_counts(void **state) {
    (void)state;
    put_host(1000, 300);
    put_v2();
    struct eg_memory_room room = measure("0::/a/b\n");
    assert_int_equal(room.limit, 500 * MIB);
    assert_int_equal(room.left, 60 * MIB); /* 10 free, 50 of page cache */
    assert_non_null(strstr(room.what, "cg/a allows 524288000 bytes"));
    put("cg/a/b/memory.max", "%llu\n", 20ull << 20);
    put("cg/a/b/memory.current", "%llu\n", 25ull << 20);
    room = measure("0::/a/b\n");
    assert_int_equal(room.limit, 20 * MIB);
    assert_int_equal(room.left, 0);
}

static void v2_the_host_may_be_tighter(void **state) {
    (void)state;
    put_host(1000, 7);
    put_v2();
    const struct eg_memory_room room = measure("0::/a/b\n");
    assert_int_equal(room.limit, 500 * MIB);
    assert_int_equal(room.left, 7 * MIB);
}

static void put_v1(const char *mount_root) {
    put("proc/self/mountinfo",
        "31 1 0:27 / %s/cpu rw - cgroup cgroup rw,cpu\n"
        "32 1 0:28 %s %s/cg rw - cgroup cgroup rw,memory\n"
        "33 1 0:29 / %s/unified rw - cgroup2 cgroup2 rw\n",
        root, mount_root, root, root);
    put("cg/memory.limit_in_bytes", "9223372036854771712\n");
    put("cg/memory.usage_in_bytes", "1\n");
    put("cg/docker/x/memory.limit_in_bytes", "%llu\n", 100ull << 20);
    put("cg/docker/x/memory.usage_in_bytes", "%llu\n", 90ull << 20);
    put("cg/docker/x/memory.stat",
        "inactive_file 1\ntotal_inactive_file %llu\ntotal_active_file %llu\n", 1ull << 20,
        2ull << 20);
    put("unified/cgroup.procs", "1\n");
}

static void v1_with_an_empty_v2_beside_it(void **state) {
    (void)state;
    put_host(1000, 300);
    put_v1("/");
    const struct eg_memory_room room =
        measure("9:name=systemd:/\n5:cpu:/wrong\n4:hugetlb,memory:/docker/x\n0::/\n");
    assert_int_equal(room.limit, 100 * MIB);
    assert_int_equal(room.left, 13 * MIB);
}

/* The container sees its own subtree as the root, but its path as the host does. */
static void v1_in_a_container(void **state) {
    (void)state;
    put_host(1000, 300);
    put_v1("/kube/pod");
    assert_int_equal(measure("4:memory:/kube/pod/docker/x\n").left, 13 * MIB);
    /* Paths that lead nowhere: the limits of what is mounted. */
    put("cg/memory.limit_in_bytes", "%llu\n", 50ull << 20);
    assert_int_equal(measure("4:memory:/kube/podium/docker/x\n").limit, 50 * MIB);
    assert_int_equal(measure("4:memory:/kube/pod/gone\n").limit, 50 * MIB);
    assert_int_equal(measure("4:memory:/../../y\n").limit, 50 * MIB);
}

static void nonsense_is_survived(void **state) {
    (void)state;
    put_host(1000, 300);
    put_v2();
    static const char *const texts[] = {
        "", "\n", "::", "0::", "0:", "x", "0::\n\n", "4:memory", ":,:"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(measure(texts[i]).limit, 1000 * MIB);
    }
    put("proc/self/mountinfo", "a - cgroup\n - cgroup2 x y\n1 2 3 4 5 - cgroup2 x y\n\n");
    assert_int_equal(measure("0::/a\n").limit, 1000 * MIB);
}

/* ---- the real thing ------------------------------------------------------------------------ */

/* A new group below the first that this process is in, with a limit; false if we may not. */
static bool make_group(char *dir, size_t cap, bool *v2) {
    char text[4096] = "", file[EG_CGROUP_PATH_MAX + 128];
    struct eg_cgroups groups;
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    const ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0) {
        return false;
    }
    eg_cgroups_find("/proc", text, &groups);
    for (size_t i = 0; i < groups.count; i++) {
        (void)snprintf(dir, cap, "%s/eagre-test-%d", groups.group[i].dir, (int)getpid());
        *v2 = groups.group[i].v2;
        if (mkdir(dir, 0700) != 0) {
            continue;
        }
        (void)snprintf(file, sizeof file, "%s/%s", dir,
                       *v2 ? "memory.max" : "memory.limit_in_bytes");
        fd = open(file, O_WRONLY | O_CLOEXEC);
        const bool set = fd >= 0 && write(fd, "67108864", 8) == 8;
        if (fd >= 0) {
            (void)close(fd);
        }
        if (set) {
            return true;
        }
        (void)rmdir(dir);
    }
    return false;
}

/* 0 if a process that is moved into the group notices its limit. */
static int check_in_group(const char *dir) {
    char file[EG_CGROUP_PATH_MAX + 128];
    uint64_t limit;
    int shm;
    if (eg_memory_limit(&limit) != 0 ||
        limit == 64 * MIB) { /* fills the cache with the old group */
        return 1;
    }
    (void)snprintf(file, sizeof file, "%s/cgroup.procs", dir);
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1) {
        return 2;
    }
    (void)close(fd);
    if (eg_memory_limit(&limit) != 0 || limit != 64 * MIB) {
        return 3;
    }
    if (eg_memfd_create("t", 256 * MIB, false, &shm) != 0) {
        return 4;
    }
    /* Step by step to the limit: an error there, and never the OOM killer. */
    for (size_t at = 0; at < 256 * MIB; at += 4 * MIB) {
        const int status = eg_shm_allocate(shm, at, 4 * MIB);
        if (status == EAGRE_E_NO_MEMORY) {
            return at >= 32 * MIB && strstr(eg_error_text(), dir) != NULL ? 0 : 5;
        }
        if (status != 0) {
            return 6;
        }
    }
    return 7;
}

static void a_real_cgroup_refuses_instead_of_killing(void **state) {
    (void)state;
    char dir[EG_CGROUP_PATH_MAX + 64];
    bool v2;
    if (!make_group(dir, sizeof dir, &v2)) {
        skip();
    }
    const pid_t child = fork();
    if (child == 0) {
        _exit(check_in_group(dir));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(rmdir(dir), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_host_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(no_figures_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(v2_every_ancestor_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(v2_the_host_may_be_tighter, setup, teardown),
        cmocka_unit_test_setup_teardown(v1_with_an_empty_v2_beside_it, setup, teardown),
        cmocka_unit_test_setup_teardown(v1_in_a_container, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_survived, setup, teardown),
        cmocka_unit_test(a_real_cgroup_refuses_instead_of_killing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
