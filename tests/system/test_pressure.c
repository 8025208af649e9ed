/*
 * Memory, descriptors, address space and disk run out, for the daemon or for a client: whoever asks for more is
 * told which limit it is; all others go on; and when there is more again, so does he, without a restart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_cgroup.h"
#include "harness_client.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* whose shadow needs more memory and address space than any limit here */
#else
#define SANITIZED 0
#endif

#define MIB (1ll << 20)

/* 2000 bytes of text: 30 of them are a segment of the smallest size. */
static char large[2001];

static void make_topic(const char *name, const char *segment, const char *partitions) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", segment}, {"partitions", partitions}};
    OK(eagre_topic_create(e, name, settings, 3));
}

static eagre_producer_t *producer(const char *topic, int32_t max_block_ms) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *by;
    o.max_block_ms = max_block_ms;
    OK(eagre_producer_open(e, topic, &o, &by));
    return by;
}

/* Around the ring of t some times; what is put then is seen, from wherever its consumer stands by now. */
static void t_goes_on(void) {
    static unsigned times;
    char text[32];
    bool seen = false;
    snprintf(text, sizeof(text), "still there %u", times++);
    for (int i = 0; i < 300; i++)
        OK(eg_put(p, large));
    for (int i = 0; !seen && i < 1000; i++) {
        eagre_record_t r[64];
        size_t n;
        OK(eg_put(p, text));
        OK(eagre_consumer_poll(c, r, 64, 100, &n));
        for (size_t k = 0; k < n; k++)
            seen |= r[k].value_len == strlen(text) && memcmp(r[k].value, text, r[k].value_len) == 0;
    }
    assert_true(seen);
}

/* The first record of a producer: its buffers are made when it is opened or when it produces. */
static int use(const char *topic) {
    eagre_producer_t *by;
    int rc = eagre_producer_open(e, topic, NULL, &by);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_put(by, "x");
    eagre_producer_close(by);
    return rc;
}

static int setup(void **state) {
    memset(large, 'x', sizeof(large) - 1);
    return eg_setup_client(state);
}

static void restart_with(struct eg_test_bus *b, const char *argument) {
    eg_client_close();
    assert_int_equal(eg_bus_stop(b), 0);
    eg_bus_start(b, argument, NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_delete(e, "t"));
    OK(eagre_close(e));
    eg_client_open(b->socket);
}

/* ---- memory.max --------------------------------------------------------------------------------------- */

/* Topics fit exactly; what readers hold does not. */
static void memory_max_is_reached_by_what_readers_hold(void **state) {
    enum { READERS = 40 };
    eagre_consumer_t *reader[READERS];
    eagre_record_t r;
    size_t n;
    char us[32];
    int rc = EAGRE_OK, readers = 0;
    restart_with(*state, "--memory.max=1M");
    make_topic("held", "64K", "1");
    OK(eagre_topic_alter(e, "held", &(eagre_setting_t){"pinned.bytes.max", "1G"}, 1));
    eagre_producer_t *by = producer("held", 300);
    while (rc == EAGRE_OK && readers < READERS) {
        for (int i = 0; rc == EAGRE_OK && i < 32; i++)
            rc = eg_put(by, large);
        if (rc != EAGRE_OK)
            break;
        OK(eagre_consumer_open(e, NULL, &reader[readers]));
        OK(eagre_consumer_assign(reader[readers], "held", 0));
        OK(eagre_consumer_seek_tail(reader[readers], "held", 0, 1));
        OK(eagre_consumer_poll(reader[readers++], &r, 1, EG_TEST_LIMIT_MS, &n));
    }
    snprintf(us, sizeof(us), "pid %d", (int)getpid());
    assert_int_equal(rc, EAGRE_E_TIMED_OUT);
    assert_non_null(strstr(eagre_error_detail(), "'held'"));
    assert_non_null(strstr(eagre_error_detail(), "memory.max"));
    assert_non_null(strstr(eagre_error_detail(), us));
    assert_true(eg_figure("memory.pinned") > 0);
    t_goes_on();
    eagre_consumer_close(reader[--readers]);
    while (readers > 0)
        eagre_consumer_close(reader[--readers]);
    for (int i = 0; i < 300; i++)
        OK(eg_put(by, large));
    eg_wait_figure("memory.pinned", 0);
    eagre_producer_close(by);
}

static void memory_max_is_reached_by_topics(void **state) {
    char name[16];
    int rc, n = 0;
    restart_with(*state, "--memory.max=2M");
    do {
        snprintf(name, sizeof(name), "more-%d", n++);
        rc = eagre_topic_create(e, name, &(eagre_setting_t){"segment.bytes", "64K"}, 1);
    } while (rc == EAGRE_OK && n < 50);
    assert_int_equal(rc, EAGRE_E_NO_MEMORY);
    assert_non_null(strstr(eagre_error_detail(), name));
    assert_non_null(strstr(eagre_error_detail(), "memory.max=2 MiB"));
    REFUSED(eagre_topic_alter(e, "t", &(eagre_setting_t){"partitions", "40"}, 1), EAGRE_E_NO_MEMORY,
            "topic 't'");
    t_goes_on();
    OK(eagre_topic_delete(e, "more-0"));
    OK(eagre_topic_create(e, name, &(eagre_setting_t){"segment.bytes", "64K"}, 1));
}

/* ---- a memory cgroup ------------------------------------------------------------------------------------ */

static bool little_room(struct eg_cgroup_dir *g, pid_t pid) {
    if (!eg_cgroup_make(g)) {
        print_message("no memory cgroup can be made here: skipped\n");
        return false;
    }
    eg_cgroup_add(g, pid);
    /* What a daemon allocates to work with fits; the 4 MiB that are always kept free leave no more. */
    eg_cgroup_limit(g, eg_cgroup_usage(g) + 5 * MIB);
    return true;
}

/* What it allocates is charged to it; what producers must allocate themselves, to them. */
static void the_daemon_is_in_a_small_group(void **state) {
    enum { WIDE = 128 };
    struct eg_test_bus *b = *state;
    struct eg_cgroup_dir g;
    make_topic("big", "16M", "1");
    make_topic("wide", "64K", "128"); /* alone, it takes most of the room */
    if (SANITIZED || !little_room(&g, b->pid)) {
        skip();
    }
    eagre_producer_t *big = producer("big", 2000), *wide = producer("wide", 2000);
    int rc = EAGRE_OK;
    eagre_message_t m = {.value = large, .value_len = 2000};
    for (m.partition = 0; rc == EAGRE_OK && m.partition < WIDE; m.partition++)
        rc = eagre_produce(wide, &m, NULL, NULL);
    assert_int_equal(rc, EAGRE_E_NO_MEMORY); /* buffers of some partition are too much */
    assert_non_null(strstr(eagre_error_detail(), "'wide'"));
    assert_non_null(strstr(eagre_error_detail(), g.path));
    t_goes_on();
    eagre_producer_t *another = producer("t", EG_TEST_LIMIT_MS);
    OK(eg_put(another, "another handle"));
    eagre_producer_close(another);
    rc = eg_put(big, large);
    assert_true(rc == EAGRE_OK || rc == EAGRE_E_NO_MEMORY);
    /* What a reader holds cannot be exchanged now; with memory it can, though he goes on holding it. (What the
     * failures above gave back could be enough for one buffer.) */
    eg_cgroup_limit(&g, eg_cgroup_usage(&g) + 3 * MIB);
    eagre_producer_t *patient = producer("t", EG_TEST_LIMIT_MS), *hasty = producer("t", 300);
    eagre_consumer_t *reader;
    eagre_record_t r;
    size_t n;
    OK(eagre_consumer_open(e, NULL, &reader));
    OK(eagre_consumer_assign(reader, "t", 0));
    OK(eagre_consumer_seek_tail(reader, "t", 0, 1));
    OK(eagre_consumer_poll(reader, &r, 1, EG_TEST_LIMIT_MS, &n));
    rc = EAGRE_OK;
    for (int i = 0; rc == EAGRE_OK && i < 300; i++)
        rc = eg_put(hasty, large);
    assert_int_equal(rc, EAGRE_E_TIMED_OUT);
    eg_cgroup_limit(&g, eg_cgroup_usage(&g) + 64 * MIB);
    for (int i = 0; i < 300; i++)
        OK(eg_put(patient, large));
    eagre_consumer_close(reader);
    eagre_producer_close(hasty);
    eagre_producer_close(patient);
    for (m.partition = 0; m.partition < WIDE; m.partition++)
        OK(eagre_produce(wide, &m, NULL, NULL));
    OK(eg_put(big, large));
    eg_cgroup_limit(&g, eg_cgroup_usage(&g) + 2 * MIB);
    for (int i = 0; i < 20000; i++) /* 40 MB: more than it could ever give */
        OK(eg_put(big, large));
    assert_int_equal(eg_cgroup_ooms(&g), 0);
    eagre_producer_close(big);
    eagre_producer_close(wide);
    eg_client_close();
    assert_int_equal(eg_bus_stop(b), 0);
    eg_cgroup_remove(&g);
}

static struct eg_cgroup_dir small_group;

/* In a child: a producer whose own group is small, while the daemon is stopped and gives nothing. */
static void allocate_myself(int ready, int daemon_pid) {
    eagre_t *own;
    eagre_producer_t *by;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    int rc = EAGRE_OK, n = 0;
    eg_close_except(ready);
    o.max_block_ms = 0;
    CHECK(eagre_open(bus->socket, &own) == EAGRE_OK);
    CHECK(eagre_producer_open(own, "big", &o, &by) == EAGRE_OK);
    CHECK(eg_put(by, large) == EAGRE_OK);
    CHECK(kill(daemon_pid, SIGSTOP) == 0);
    while (rc == EAGRE_OK && n++ < 20000)
        rc = eg_put(by, large);
    CHECK(rc == EAGRE_E_NO_MEMORY);
    CHECK(strstr(eagre_error_detail(), "topic 'big'") != NULL);
    CHECK(strstr(eagre_error_detail(), small_group.path) != NULL);
    CHECK(eg_put(by, large) == EAGRE_E_NO_MEMORY);
    eg_cgroup_limit(&small_group, eg_cgroup_usage(&small_group) + 64 * MIB);
    CHECK(eg_put(by, large) == EAGRE_OK);
    CHECK(kill(daemon_pid, SIGCONT) == 0);
    eg_say(ready);
    _exit(0);
}

static void allocate_in_a_small_group(int ready, int daemon_pid) {
    eg_cgroup_add(&small_group, getpid());
    eg_cgroup_limit(&small_group, eg_cgroup_usage(&small_group) + 10 * MIB);
    allocate_myself(ready, daemon_pid);
}

static void a_client_is_in_a_small_group(void **state) {
    struct eg_test_bus *b = *state;
    if (SANITIZED || !eg_cgroup_make(&small_group)) {
        print_message("no memory cgroup can be made here: skipped\n");
        skip();
    }
    make_topic("big", "32M", "1");
    pid_t pid = eg_start(allocate_in_a_small_group, b->pid);
    assert_int_equal(eg_wait_exit(pid), 0);
    t_goes_on();
    assert_int_equal(eg_cgroup_ooms(&small_group), 0);
    eg_cgroup_remove(&small_group);
}

/* ---- /dev/shm and /tmp ---------------------------------------------------------------------------------- */

static bool private_mounts(void) {
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        return true;
    print_message("no mount namespace can be made here: skipped\n");
    return false;
}

/* As in a container, only smaller. Memory is from memfds, which no mount limits. */
static void what_is_mounted_at_dev_shm_does_not_matter(void **state) {
    struct eg_test_bus *b = *state;
    int64_t offset = -1;
    eagre_message_t m = {.value = large, .value_len = 2000, .partition = 0};
    if (!private_mounts() || mount("none", "/dev/shm", "tmpfs", 0, "size=4k") != 0)
        skip();
    eg_client_close();
    eg_bus_stop(b);
    eg_bus_start(b, NULL); /* it sees what we see */
    OK(eagre_open(b->socket, &e));
    make_topic("big", "64M", "1");
    eagre_producer_t *big = producer("big", EG_TEST_LIMIT_MS);
    for (int i = 0; i < 40000; i++) /* 80 MB, with a rotation */
        OK(eagre_produce(big, &m, NULL, &offset));
    assert_int_equal(offset, 39999);
    eagre_producer_close(big);
    umount("/dev/shm");
}

/* ---- limits of a process ---------------------------------------------------------------------------------- */

static struct rlimit limit_of(pid_t pid, int what, rlim_t soft) {
    struct rlimit now, to;
    assert_int_equal(prlimit(pid, (__rlimit_resource_t)what, NULL, &now), 0);
    to = (struct rlimit){soft, now.rlim_max};
    assert_int_equal(prlimit(pid, (__rlimit_resource_t)what, &to, NULL), 0);
    return now;
}

static void give_back(pid_t pid, int what, struct rlimit to) {
    assert_int_equal(prlimit(pid, (__rlimit_resource_t)what, &to, NULL), 0);
}

static rlim_t address_space(pid_t pid) {
    char path[64];
    long long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lld", &pages), 1);
    fclose(f);
    return (rlim_t)pages * 4096;
}

static int descriptors(pid_t pid) {
    char path[64];
    struct stat st;
    int n = 0;
    for (int fd = 0; fd < 4096; fd++) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        n += lstat(path, &st) == 0;
    }
    return n;
}

static void the_daemon_has_little_address_space(void **state) {
    struct eg_test_bus *b = *state;
    if (SANITIZED)
        skip();
    make_topic("big", "64M", "1");
    struct rlimit was = limit_of(b->pid, RLIMIT_AS, address_space(b->pid) + 32 * MIB);
    REFUSED(use("big"), EAGRE_E_NO_MEMORY, "ulimit -v");
    assert_non_null(strstr(eagre_error_detail(), "'big'"));
    t_goes_on();
    give_back(b->pid, RLIMIT_AS, was);
    OK(use("big"));
}

static void the_daemon_has_few_descriptors(void **state) {
    struct eg_test_bus *b = *state;
    make_topic("wide", "64K", "64");
    eagre_producer_t *by = producer("wide", EG_TEST_LIMIT_MS);
    struct rlimit was = limit_of(b->pid, RLIMIT_NOFILE, (rlim_t)descriptors(b->pid) + 10);
    eagre_message_t m = {.value = "x", .value_len = 1};
    int rc = EAGRE_OK;
    for (m.partition = 0; rc == EAGRE_OK && m.partition < 64; m.partition++)
        rc = eagre_produce(by, &m, NULL, NULL);
    assert_int_equal(rc, EAGRE_E_LIMIT);
    assert_non_null(strstr(eagre_error_detail(), "'wide'"));
    assert_non_null(strstr(eagre_error_detail(), "RLIMIT_NOFILE"));
    t_goes_on();
    give_back(b->pid, RLIMIT_NOFILE, was);
    for (m.partition = 0; m.partition < 64; m.partition++)
        OK(eagre_produce(by, &m, NULL, NULL));
    eagre_producer_close(by);
}

static void the_keeper_can_have_few_descriptors(void **state) {
    struct eg_test_bus *b = *state;
    pid_t keeper = eg_bus_keeper(b);
    make_topic("wide", "64K", "64");
    eagre_producer_t *by = producer("wide", EG_TEST_LIMIT_MS);
    struct rlimit was = limit_of(keeper, RLIMIT_NOFILE, (rlim_t)descriptors(keeper) + 10);
    eagre_message_t m = {.value = "x", .value_len = 1};
    int rc = EAGRE_OK;
    for (m.partition = 0; rc == EAGRE_OK && m.partition < 64; m.partition++)
        rc = eagre_produce(by, &m, NULL, NULL);
    assert_int_equal(rc, EAGRE_E_LIMIT);
    assert_non_null(strstr(eagre_error_detail(), "RLIMIT_NOFILE"));
    t_goes_on();
    give_back(keeper, RLIMIT_NOFILE, was);
    for (m.partition = 0; m.partition < 64; m.partition++)
        OK(eagre_produce(by, &m, NULL, NULL));
    assert_int_equal(eg_bus_keeper(b), keeper);
    eg_bus_kill(b); /* all of it was kept */
    eg_bus_start(b, NULL);
    for (m.partition = 0; m.partition < 64; m.partition++)
        OK(eagre_produce(by, &m, NULL, NULL));
    eagre_producer_close(by);
}

/* Memfds are files for this limit: what cannot be made is refused, and nobody is ended by SIGXFSZ. */
static void the_daemon_may_have_small_files_only(void **state) {
    struct eg_test_bus *b = *state;
    make_topic("big", "16M", "1");
    struct rlimit was = limit_of(b->pid, RLIMIT_FSIZE, 1 * MIB);
    REFUSED(use("big"), EAGRE_E_LIMIT, "RLIMIT_FSIZE");
    assert_non_null(strstr(eagre_error_detail(), "'big'"));
    t_goes_on();
    give_back(b->pid, RLIMIT_FSIZE, was);
    OK(use("big"));
}

/* In a child, with every limit of ours that could matter as small as it may be. */
static void work_with_small_limits(int ready, int extra) {
    const struct rlimit none = {0, 0}, small = {64 << 10, 64 << 10};
    struct rlimit files = {24, 24};
    eagre_t *own;
    eagre_producer_t *wide;
    eagre_consumer_t *reader;
    int rc = EAGRE_OK;
    (void)extra;
    eg_close_except(ready);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &none) == 0 && setrlimit(RLIMIT_FSIZE, &small) == 0 &&
          setrlimit(RLIMIT_NOFILE, &files) == 0);
    eagre_producer_t *by = eg_attach(bus->socket, "from a small process", &own);
    CHECK(eagre_consumer_open(own, NULL, &reader) == EAGRE_OK);
    CHECK(eagre_consumer_assign(reader, "t", 0) == EAGRE_OK);
    for (int i = 0; i < 300; i++)
        CHECK(eg_put(by, large) == EAGRE_OK);
    /* Each partition's buffers are descriptors of ours. */
    eagre_message_t m = {.value = "x", .value_len = 1};
    CHECK(eagre_producer_open(own, "wide", NULL, &wide) == EAGRE_OK);
    for (m.partition = 0; rc == EAGRE_OK && m.partition < 16; m.partition++)
        rc = eagre_produce(wide, &m, NULL, NULL);
    CHECK(rc == EAGRE_E_LIMIT);
    CHECK(strstr(eagre_error_detail(), "'wide'") != NULL);
    CHECK(strstr(eagre_error_detail(), "ulimit -n") != NULL);
    CHECK(eg_put(by, "goes on") == EAGRE_OK);
    eagre_producer_close(wide);
    CHECK(eg_put(by, "and on") == EAGRE_OK);
    eg_say(ready);
}

static void a_client_with_small_limits(void **state) {
    (void)state;
    make_topic("wide", "64K", "16");
    pid_t pid = eg_start(work_with_small_limits, 0);
    OK(eagre_consumer_seek_tail(c, "t", 0, 2));
    eg_expect("goes on");
    eg_expect("and on");
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
    t_goes_on();
}

/* ---- the data directory -------------------------------------------------------------------------------------- */

static void fill(const char *path) {
    char block[4096] = {1};
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0) {}
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static size_t count_topics(void) {
    eagre_topic_entry_t *list;
    size_t n;
    OK(eagre_topic_list(e, &list, &n));
    free(list);
    return n;
}

static void the_data_directory_is_full(void **state) {
    struct eg_test_bus *b = *state;
    char filler[120], name[32], access[256];
    size_t made = 0;
    int rc;
    eg_client_close();
    eg_bus_stop(b);
    if (!private_mounts() || mount("none", b->data, "tmpfs", 0, "size=512k") != 0)
        skip();
    snprintf(filler, sizeof(filler), "%s/filler", b->data);
    eg_bus_start(b, NULL);
    eg_client_open(b->socket);
    make_topic("unused", "64K", "1");
    fill(filler);
    memset(access, 0, sizeof(access));
    for (int i = 0; i < 20; i++) /* long settings take pages */
        snprintf(access + strlen(access), sizeof(access) - strlen(access), "user:%d,", 70000 + i);
    access[strlen(access) - 1] = '\0';
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"access.consume", access}};
    do {
        snprintf(name, sizeof(name), "more-%zu", made);
        rc = eagre_topic_create(e, name, settings, 3);
    } while (rc == EAGRE_OK && ++made < 2000);
    assert_int_equal(rc, EAGRE_E_IO);
    assert_non_null(strstr(eagre_error_detail(), b->data));
    assert_non_null(strstr(eagre_error_detail(), "No space left"));
    fill(filler);
    rc = eagre_topic_alter(e, "t", &(eagre_setting_t){"partitions", "3"}, 1);
    assert_true(rc == EAGRE_OK || rc == EAGRE_E_IO);
    size_t there = count_topics();
    assert_int_equal(there, made + 2);
    t_goes_on();
    rc = use("unused"); /* its first use puts a mark: perhaps there is a page left for it */
    assert_true(rc == EAGRE_OK || rc == EAGRE_E_IO);

    assert_int_equal(unlink(filler), 0);
    OK(eagre_topic_create(e, name, settings, 3));
    OK(eagre_topic_alter(e, "t", &(eagre_setting_t){"partitions", "4"}, 1));
    OK(use("unused"));
    t_goes_on();
    for (int clean = 0; clean < 2; clean++) { /* what was said is there, and nothing else */
        if (clean)
            eg_bus_stop(b);
        else
            eg_bus_kill(b);
        eg_bus_start(b, NULL);
        assert_int_equal(count_topics(), there + 1);
        assert_int_equal(eagre_producer_partitions(p), 4);
    }
    t_goes_on();
    eg_client_close();
    eg_bus_stop(b);
    umount(b->data);
}

/* Starting needs a few pages: without them it says so. */
static void a_start_in_a_full_directory(void **state) {
    struct eg_test_bus *b = *state;
    char filler[120];
    eg_client_close();
    eg_bus_stop(b);
    if (!private_mounts() || mount("none", b->data, "tmpfs", 0, "size=512k") != 0)
        skip();
    snprintf(filler, sizeof(filler), "%s/filler", b->data);
    fill(filler);
    assert_int_equal(eg_bus_try_start(b, NULL, NULL), 1);
    char *log = eg_bus_log(b);
    bool told = strstr(log, "No space left") != NULL;
    free(log);
    assert_true(told);
    assert_int_equal(unlink(filler), 0);
    eg_bus_start(b, NULL);
    eg_client_open(b->socket);
    t_goes_on();
    eg_client_close();
    eg_bus_stop(b);
    umount(b->data);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    return 77; /* there are no threads here */
#endif
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, eg_teardown_client)
        T(memory_max_is_reached_by_what_readers_hold),
        T(memory_max_is_reached_by_topics),
        T(the_daemon_is_in_a_small_group),
        T(a_client_is_in_a_small_group),
        T(the_daemon_has_little_address_space),
        T(the_daemon_has_few_descriptors),
        T(the_keeper_can_have_few_descriptors),
        T(the_daemon_may_have_small_files_only),
        T(a_client_with_small_limits),
        T(what_is_mounted_at_dev_shm_does_not_matter),
        T(the_data_directory_is_full),
        T(a_start_in_a_full_directory),
    };
    return cmocka_run_group_tests_name("system/pressure", tests, NULL, NULL);
}
