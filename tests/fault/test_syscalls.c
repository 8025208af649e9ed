/*
 * The daemon is killed at its k-th system call - at its entry or at its exit - after something began: while it
 * starts, makes, changes, deletes, opens a topic, prepares a segment, exchanges a buffer, buries a client. The next
 * one is started; what was acknowledged is there, whole; what was not is there whole or not at all; attached clients
 * have gone on; the keeper holds nothing too much.
 *
 * test_syscalls [--every] [--stride K] [--phase P]: by default a few k of each kind, chosen by the phase.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/harness_client.h"

#define KILLS 8 /* of each kind, if no stride is given */
#define ALL 1000000ul

static unsigned long stride, phase = 3;

/* ---- a daemon that is traced ------------------------------------------------------------------------------ */

/* The system call that it stops at, at its entry as at its exit. */
static long call_at(pid_t pid, long before) {
    struct __ptrace_syscall_info info;
    long n = ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
    return n > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY ? (long)info.entry.nr : before;
}

/* Let it run until its k-th stop at a system call, and kill it there. Ends before if SIGCONT comes (from whoever waits
 * for what it does) or `ready` has something to read; then it is detached and runs. Returns the number of stops. What
 * comes before the call `from` (-1: all counts) is the loader's; and wake-ups, of thousands of bells, are all alike. */
static unsigned long kill_at(pid_t pid, unsigned long k, long from, int ready) {
    unsigned long stops = 0;
    long call = -1;
    int status, signal_number = 0;
    bool counting = from < 0;
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, pid, 0, signal_number), 0);
        assert_int_equal(waitpid(pid, &status, __WALL), pid);
        if (!WIFSTOPPED(status))
            fail_msg("eagred has ended, wait status 0x%x", (unsigned)status);
        signal_number = 0;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            call = call_at(pid, call);
            counting |= call == from;
            if (counting && call != SYS_futex && ++stops == k) {
                kill(pid, SIGKILL);
                return stops;
            }
            char byte;
            if (ready >= 0 && read(ready, &byte, 1) == 1)
                break;
        } else if (WSTOPSIG(status) == SIGCONT) {
            break;
        } else if (status >> 16 == 0) {
            signal_number = WSTOPSIG(status);
        }
    }
    assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
    return stops;
}

static bool seize(pid_t pid) {
    int status;
    if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) != 0)
        return false;
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, 0, 0), 0);
    assert_int_equal(waitpid(pid, &status, __WALL), pid);
    return true;
}

/* As eg_bus_start(), but traced from exec on, and killed at k. Returns the number of stops. */
static unsigned long start_and_kill_at(struct eg_test_bus *b, unsigned long k) {
    int ready[2], status;
    assert_int_equal(pipe2(ready, O_CLOEXEC | O_NONBLOCK), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(log, 1);
        dup2(log, 2);
        dup2(ready[1], 9);
        raise(SIGSTOP);
        execl(EG_TEST_BIN_DIR "/eagred", "eagred", "--dir", b->data, "--socket", b->socket,
              "--keeper=process", "--ready-fd=9", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(seize(pid));
    close(ready[1]);
    b->pid = pid;
    kill(pid, SIGCONT);
    /* Its own SIGCONT is the first thing that comes; then it is on its way. */
    for (bool continued = false; !continued;) {
        assert_int_equal(ptrace(PTRACE_CONT, pid, 0, 0), 0);
        assert_int_equal(waitpid(pid, &status, __WALL), pid);
        continued = WIFSTOPPED(status) && WSTOPSIG(status) == SIGCONT && status >> 16 == 0;
    }
    unsigned long stops = kill_at(pid, k, SYS_flock, ready[0]);
    close(ready[0]);
    return stops;
}

/* ---- what is done meanwhile -------------------------------------------------------------------------------- */

struct scene {
    const char *name;
    void (*prepare)(void);              /* before the daemon is traced; cmocka may fail here */
    int (*act)(void);                   /* in another thread; the status of what it asked for */
    void (*check)(int rc, bool killed); /* with the next daemon */
    bool at_start; /* the daemon is not there; what is traced is how it comes */
};

static struct eg_test_bus here;
static unsigned long put_count, seen_count; /* records of topic t: each has its number */
static char large[1500];
static const char *broken; /* what a thread found; NULL: nothing */

static int put_next(void) {
    snprintf(large, sizeof(large), "%lu", put_count);
    eagre_message_t m = {.value = large, .value_len = sizeof(large), .partition = 0};
    int rc = eagre_produce(p, &m, NULL, NULL);
    put_count += rc == EAGRE_OK;
    return rc;
}

/* Everything that was put and not seen comes, in order. */
static int see_all(void) {
    while (seen_count < put_count) {
        eagre_record_t r[16];
        size_t n = 0;
        int rc = eagre_consumer_poll(c, r, 16, EG_TEST_LIMIT_MS, &n);
        if (rc != EAGRE_OK || n == 0) {
            broken = "a record did not come";
            return rc;
        }
        for (size_t i = 0; i < n; i++)
            if (r[i].value_len != sizeof(large) || strtoul(r[i].value, NULL, 10) != seen_count++)
                broken = "a record came that should not, or another";
    }
    return EAGRE_OK;
}

static const eagre_setting_t small[] = {
    {"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", "2"}};
static eagre_producer_t *other;
static eagre_consumer_t *holder;

static bool has_topic(const char *name, size_t *partitions) {
    eagre_topic_info_t *info;
    int rc = eagre_topic_describe(e, name, &info);
    if (rc == EAGRE_E_UNKNOWN_TOPIC)
        return false;
    OK(rc);
    *partitions = info->partition_count;
    eagre_topic_info_free(info);
    return true;
}

/* It is whole: each of its partitions can be used. */
static void use_and_delete(size_t partitions) {
    eagre_producer_t *by;
    OK(eagre_producer_open(e, "x", NULL, &by));
    assert_int_equal(eagre_producer_partitions(by), partitions);
    for (size_t i = 0; i < partitions; i++) {
        eagre_message_t m = {.value = "x", .value_len = 1, .partition = (int32_t)i};
        OK(eagre_produce(by, &m, NULL, NULL));
    }
    OK(eagre_topic_delete(e, "x"));
    eagre_producer_close(by);
}

static void nothing(void) {}
static void make_x(void) { OK(eagre_topic_create(e, "x", small, 3)); }
static void make_and_open_x(void) {
    make_x();
    OK(eagre_producer_open(e, "x", NULL, &other));
    OK(eg_put(other, "before"));
}

static int create(void) { return eagre_topic_create(e, "x", small, 3); }
static void is_whole_or_not(int rc, bool killed) {
    size_t partitions;
    bool there = has_topic("x", &partitions);
    assert_true(rc != EAGRE_OK || there);
    assert_true(rc == EAGRE_OK || killed);
    if (there)
        use_and_delete(2);
}

static int grow(void) {
    return eagre_topic_alter(e, "x", &(eagre_setting_t){"partitions", "5"}, 1);
}
static void has_grown_or_not(int rc, bool killed) {
    size_t partitions = 0;
    assert_true(has_topic("x", &partitions));
    assert_true(partitions == 5 || (partitions == 2 && rc != EAGRE_OK && killed));
    OK(eg_put(other, "after"));
    use_and_delete(partitions);
    eagre_producer_close(other);
}

static int delete_x(void) { return eagre_topic_delete(e, "x"); }
static void is_gone_or_not(int rc, bool killed) {
    size_t partitions;
    bool there = has_topic("x", &partitions);
    assert_true(!there || (rc != EAGRE_OK && killed));
    if (there) {
        OK(eg_put(other, "after"));
        use_and_delete(2);
    } else {
        while ((rc = eg_put(other, "after")) == EAGRE_OK || eagre_status_is_retriable(rc)) {}
        assert_int_equal(rc, EAGRE_E_TOPIC_DELETED);
    }
    eagre_producer_close(other);
}

static int open_and_use(void) {
    int rc = eagre_producer_open(e, "x", NULL, &other);
    if (rc == EAGRE_OK) {
        rc = eg_put(other, "first"); /* waits for the next daemon */
        eagre_producer_close(other);
    }
    return rc;
}
static void is_open(int rc, bool killed) {
    assert_true(rc == EAGRE_OK || (killed && eagre_status_is_retriable(rc)));
    use_and_delete(2);
}

/* Around the ring, so that the daemon prepares each slot anew; what readers hold it exchanges. */
static int turn(void) {
    int rc = EAGRE_OK;
    for (int i = 0; rc == EAGRE_OK && i < 4 * 45; i++) {
        rc = put_next();
        if (rc == EAGRE_OK && i % 10 == 9)
            rc = see_all();
    }
    return rc;
}
static void has_turned(int rc, bool killed) {
    (void)killed;
    assert_int_equal(rc, EAGRE_OK); /* producers wait for a daemon; none of them fails */
}
static void hold(void) {
    eagre_record_t r;
    size_t n;
    OK(put_next());
    OK(eagre_consumer_open(e, NULL, &holder));
    OK(eagre_consumer_assign(holder, "t", 0));
    OK(eagre_consumer_seek_tail(holder, "t", 0, 1));
    OK(eagre_consumer_poll(holder, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
}
static void has_turned_and_lets_go(int rc, bool killed) {
    has_turned(rc, killed);
    eagre_consumer_close(holder);
    eg_wait_figure("memory.pinned", 0);
}

static pid_t dying;
static void claim_and_wait(int ready, int extra) {
    eagre_t *own;
    eagre_producer_t *by;
    eagre_claim_t claim;
    (void)extra;
    eg_close_except(ready);
    CHECK(eagre_open(here.socket, &own) == EAGRE_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(eagre_producer_open(own, "t", NULL, &by) == EAGRE_OK);
        CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 100, &claim) == EAGRE_OK);
    }
    eg_say(ready);
}
static void another_claims(void) { dying = eg_start(claim_and_wait, 0); }
static int kill_it(void) {
    kill(dying, SIGKILL);
    int rc = put_next();
    return rc == EAGRE_OK ? see_all() : rc; /* behind its claims, when they are pads */
}
static void is_buried(int rc, bool killed) {
    (void)killed;
    assert_int_equal(rc, EAGRE_OK);
    eg_wait_exit(dying);
    eg_wait_figure("clients", 1);
}

/* While nobody is there: a client dies with claims, producers go on, a reader holds a segment. */
static void leave_work(void) {
    another_claims();
    hold();
    eg_bus_kill(&here);
    kill(dying, SIGKILL);
    OK(put_next());
}
static int wait_for_it(void) { return see_all(); }
static void has_recovered(int rc, bool killed) {
    is_buried(rc, killed);
    eagre_consumer_close(holder);
}

/* Flushes, new files, and files that go: what is acknowledged as durable, or trimmed, stays so. */
static size_t flushed;
static int64_t trimmed;
static void make_files(void) {
    const eagre_setting_t files[] = {
        {"storage", "disk"}, {"segment.bytes", "64K"}, {"ring.segments", "3"}, {"flush.ms", "1"}};
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    o.acks = EAGRE_ACKS_DISK;
    OK(eagre_topic_create(e, "x", files, 4));
    OK(eagre_producer_open(e, "x", &o, &other));
    flushed = 0;
    trimmed = 0;
}
static int write_files(void) {
    static char value[1500];
    int rc = EAGRE_OK;
    for (; rc == EAGRE_OK && flushed < 110; flushed += rc == EAGRE_OK) {
        snprintf(value, sizeof(value), "%zu", flushed);
        eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
        rc = eagre_produce(other, &m, NULL, NULL);
        int64_t start; /* who asks while nobody is there is told so */
        if (rc == EAGRE_OK && flushed % 30 == 29 &&
            eagre_topic_trim(e, "x", 0, (int64_t)flushed - 15, &start) == EAGRE_OK)
            trimmed = start;
    }
    return rc;
}
static void has_files(int rc, bool killed) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *by;
    int64_t start;
    (void)killed;
    assert_int_equal(rc, EAGRE_OK); /* the next daemon goes on with the flush */
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.isolation = EAGRE_ISOLATION_DURABLE;
    OK(eagre_consumer_open(e, &o, &by));
    OK(eagre_consumer_assign(by, "x", 0));
    OK(eagre_consumer_beginning_offset(by, "x", 0, &start));
    assert_in_range(start, trimmed, flushed - 15);
    for (size_t next = (size_t)start; next < flushed;) {
        eagre_record_t r[16];
        size_t n = 0;
        OK(eagre_consumer_poll(by, r, 16, EG_TEST_LIMIT_MS, &n));
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++, next++)
            if (r[i].offset != (int64_t)next || strtoul(r[i].value, NULL, 10) != next)
                fail_msg("offset %zu: there is offset %lld, record %s", next,
                         (long long)r[i].offset, (const char *)r[i].value);
    }
    eagre_consumer_close(by);
    eagre_producer_close(other);
    OK(eagre_topic_delete(e, "x"));
}

static const struct scene scenes[] = {
    {"create", nothing, create, is_whole_or_not, false},
    {"grow", make_and_open_x, grow, has_grown_or_not, false},
    {"delete", make_and_open_x, delete_x, is_gone_or_not, false},
    {"open", make_x, open_and_use, is_open, false},
    {"turn", nothing, turn, has_turned, false},
    {"swap", hold, turn, has_turned_and_lets_go, false},
    {"files", make_files, write_files, has_files, false},
    {"bury", another_claims, kill_it, is_buried, false},
    {"start", leave_work, wait_for_it, has_recovered, true},
};

/* ---- one scene, killed at each k ----------------------------------------------------------------------------- */

static const struct scene *scene;
static pid_t traced;

static void *act(void *arg) {
    (void)arg;
    int rc = scene->act();
    if (!scene->at_start)
        kill(traced, SIGCONT); /* tells the tracer: see kill_at() */
    return (void *)(intptr_t)rc;
}

static size_t keeper_descriptors(void) {
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)eg_bus_keeper(&here));
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* Play it once and kill the daemon at k. Returns the number of stops that there were. */
static unsigned long play(unsigned long k) {
    pthread_t thread;
    void *result;
    unsigned long stops;
    scene->prepare();
    if (!scene->at_start && !seize(here.pid)) {
        print_message("ptrace is not permitted here: skipped\n");
        skip();
    }
    traced = here.pid;
    assert_int_equal(pthread_create(&thread, NULL, act, NULL), 0);
    if (scene->at_start)
        stops = start_and_kill_at(&here, k);
    else
        stops = kill_at(here.pid, k, -1, -1);
    bool killed = stops == k;
    if (killed) {
        assert_int_equal(eg_bus_wait(&here), 128 + SIGKILL);
        eg_bus_start(&here, NULL);
    }
    pthread_join(thread, &result);
    scene->check((int)(intptr_t)result, killed);
    OK(put_next()); /* the handles of before go on, nothing is missing */
    OK(see_all());
    if (broken != NULL)
        fail_msg("%s, k %lu: record %lu: %s", scene->name, k, seen_count, broken);
    return stops;
}

/* None of the daemons had anything to complain about. A topic that was noted but had no memory yet cannot be told
 * from one whose memory was lost, so that is complained about. */
static void say_errors(void) {
    char *log = eg_bus_log(&here), *rest = log, *line;
    bool found = false;
    while ((line = strsep(&rest, "\n")) != NULL) {
        bool error = strstr(line, ": error: ") != NULL &&
                     strstr(line, "topic 'x' gets fresh memory") == NULL;
        if (error)
            print_error("%s\n", line);
        found |= error;
    }
    free(log);
    assert_false(found);
}

static void killed_anywhere(void **state) {
    const eagre_setting_t settings[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"ring.segments", "4"}};
    scene = *state;
    put_count = seen_count = 0;
    broken = NULL;
    eg_client_setup();
    eg_bus_init(&here);
    eg_bus_start(&here, NULL);
    OK(eagre_open(here.socket, &e));
    OK(eagre_topic_create(e, "t", settings, 3));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    OK(put_next());
    OK(see_all());
    unsigned long stops = play(ALL), kills = 0;
    size_t kept = keeper_descriptors();
    unsigned long step = stride > 0 ? stride : stops / KILLS + 1;
    for (unsigned long k = 1 + phase % step; k <= stops; k += step, kills++)
        play(k);
    print_message("%s: %lu stops at system calls, killed at %lu of them\n", scene->name, stops,
                  kills);
    eg_bus_kill(&here); /* and once more, with nothing to do */
    eg_bus_start(&here, NULL);
    OK(put_next());
    OK(see_all());
    eg_wait_figure("clients", 1);
    eg_wait_figure("memory.pinned", 0);
    assert_int_equal(eg_figure("topics"), 1);
    assert_true(keeper_descriptors() <= kept);
    say_errors();
    eg_client_close();
    assert_int_equal(eg_bus_stop(&here), 0);
}

static int tear_down(void **state) {
    (void)state;
    eg_client_close();
    eg_bus_remove(&here);
    return 0;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"every", no_argument, NULL, 'e'},
                                            {"stride", required_argument, NULL, 's'},
                                            {"phase", required_argument, NULL, 'p'},
                                            {NULL, 0, NULL, 0}};
    enum { SCENES = sizeof(scenes) / sizeof(scenes[0]) };
#ifdef __SANITIZE_THREAD__
    return 77; /* the daemon has one thread, and there it is slow */
#endif
    struct CMUnitTest tests[SCENES];
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == '?')
            return 2;
        if (o == 'e')
            stride = 1;
        else
            *(o == 's' ? &stride : &phase) = strtoul(optarg, NULL, 0);
    }
    for (size_t i = 0; i < SCENES; i++)
        tests[i] = (struct CMUnitTest){.name = scenes[i].name,
                                       .test_func = killed_anywhere,
                                       .teardown_func = tear_down,
                                       .initial_state = (void *)(uintptr_t)&scenes[i]};
    return cmocka_run_group_tests_name("fault/syscalls", tests, NULL, NULL);
}
