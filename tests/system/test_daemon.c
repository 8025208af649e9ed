/* Start, stop, crash and restart of the daemon and its keeper; what is refused, and how it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "harness_raw.h"
#include "sys/errbuf.h"

static struct eg_raw raw; /* large */

static uint64_t instance_of(struct eg_test_bus *b, uint32_t *epoch) {
    eg_raw_connect(&raw, b->socket);
    uint64_t id = eg_raw_hello(&raw, epoch);
    eg_raw_close(&raw);
    return id;
}

static bool exists(const struct eg_test_bus *b, const char *name) {
    char path[128];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", b->dir, name);
    return lstat(path, &st) == 0;
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A start that must fail: exit status, and what the log must speak of. */
static void refused(struct eg_test_bus *b, int status, const char *text,
                    const char *const *arguments) {
    int got = eg_bus_try_start(b, NULL, arguments);
    char *log = eg_bus_log(b);
    if (got != status || strstr(log, text) == NULL)
        fail_msg("exit status %d, log: %s", got, log);
    assert_int_equal(b->pid, 0);
    free(log);
}

#define REFUSED(b, status, text, ...)                                                              \
    refused((b), (status), (text), (const char *const[]){__VA_ARGS__, NULL})

/* ---- start and stop ---------------------------------------------------------------------------------- */

static void a_clean_stop_leaves_nothing_running_or_lying_about(void **state) {
    struct eg_test_bus *b = *state;
    pid_t keeper = eg_bus_keeper(b);
    assert_true(keeper > 0);
    assert_true(exists(b, "s") && exists(b, "s.pid") && exists(b, "s.lock") &&
                exists(b, "s.keeper"));
    assert_int_equal(eg_bus_stop(b), 0);
    assert_int_not_equal(kill(keeper, 0), 0);
    assert_false(exists(b, "s") || exists(b, "s.pid") || exists(b, "s.lock") ||
                 exists(b, "s.keeper") || exists(b, "s.keeper.pid"));
}

static void sigint_stops_too_and_sighup_does_not(void **state) {
    struct eg_test_bus *b = *state;
    kill(b->pid, SIGHUP);
    instance_of(b, NULL);
    kill(b->pid, SIGINT);
    assert_int_equal(eg_bus_wait(b), 0);
}

static void a_second_daemon_is_refused_and_told_whose_it_is(void **state) {
    struct eg_test_bus *b = *state, other;
    char text[64];
    snprintf(text, sizeof(text), "in use by eagred pid %d", (int)b->pid);
    eg_bus_init(&other);
    REFUSED(&other, 1, text, "--socket", b->socket);
    REFUSED(&other, 1, text, "--dir", b->data);
    instance_of(b, NULL); /* and the first one is well */
    eg_bus_start(&other, NULL);
    assert_int_equal(eg_bus_stop(&other), 0);
    eg_bus_remove(&other);
}

static void a_stale_socket_is_replaced(void **state) {
    struct eg_test_bus *b = *state;
    pid_t keeper = eg_bus_keeper(b);
    uint64_t before = instance_of(b, NULL);
    uint32_t epoch;
    eg_bus_kill(b);
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
    assert_true(exists(b, "s") && exists(b, "s.keeper"));
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, &epoch) != before);
    assert_int_equal(epoch, 1);
}

static void the_socket_has_its_mode(void **state) {
    struct eg_test_bus *b = *state;
    struct stat st;
    eg_bus_start(b, "--socket.mode=0604", NULL);
    assert_int_equal(stat(b->socket, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0604);
}

/* ---- crashes ------------------------------------------------------------------------------------------ */

static void memory_outlives_sigkill(void **state) {
    struct eg_test_bus *b = *state;
    uint32_t epoch;
    uint64_t id = instance_of(b, &epoch);
    assert_int_equal(epoch, 1);
    pid_t keeper = eg_bus_keeper(b);
    for (uint32_t i = 2; i < 6; i++) {
        eg_bus_kill(b);
        eg_bus_start(b, NULL);
        assert_true(instance_of(b, &epoch) == id);
        assert_int_equal(epoch, i);
        assert_int_equal(eg_bus_keeper(b), keeper);
    }
    eg_bus_stop(b);
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, &epoch) != id); /* a clean stop lets go of it */
    assert_int_equal(epoch, 1);
}

static void memory_of_another_directory_is_refused(void **state) {
    struct eg_test_bus *b = *state, other;
    uint32_t epoch;
    uint64_t id = instance_of(b, &epoch);
    eg_bus_kill(b);
    eg_bus_init(&other);
    REFUSED(&other, 1, "did not use", "--socket", b->socket);
    eg_bus_start(b, NULL); /* and nothing is lost */
    assert_true(instance_of(b, &epoch) == id);
    eg_bus_remove(&other);
}

static void memory_outlives_sigusr2(void **state) {
    struct eg_test_bus *b = *state;
    uint32_t epoch;
    uint64_t id = instance_of(b, NULL);
    kill(b->pid, SIGUSR2);
    assert_int_equal(eg_bus_wait(b), 0);
    assert_false(exists(b, "s.pid"));
    assert_int_equal(kill(eg_bus_keeper(b), 0), 0);
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, &epoch) == id);
    assert_int_equal(epoch, 2);
}

struct changed {
    struct eg_test_bus *b;
    pid_t before;
};

static bool keeper_changed(void *ctx) {
    struct changed *c = ctx;
    char pid[16];
    eg_raw_figure(&raw, "keeper.pid", pid, sizeof(pid));
    return atoi(pid) > 0 && atoi(pid) != c->before;
}

static void a_killed_keeper_is_replaced_and_gets_everything(void **state) {
    struct eg_test_bus *b = *state;
    uint32_t epoch;
    uint64_t id = instance_of(b, NULL);
    for (int i = 0; i < 3; i++) {
        struct changed c = {b, eg_bus_keeper(b)};
        eg_raw_connect(&raw, b->socket);
        eg_raw_hello(&raw, NULL);
        kill(c.before, SIGKILL);
        eg_wait_until(keeper_changed, &c, "another keeper");
        eg_raw_close(&raw);
        eg_wait_gone(c.before);
    }
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, &epoch) == id);
    assert_int_equal(epoch, 2);
}

/* The daemon learns of one death twice at once: by what it asks the keeper, and by the end of the connection. */
static void a_keeper_killed_under_a_request_is_replaced_once(void **state) {
    struct eg_test_bus *b = *state;
    pid_t keeper = eg_bus_keeper(b);
    siginfo_t info;
    char pid[16];
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    kill(b->pid, SIGSTOP);
    assert_int_equal(waitid(P_PID, (id_t)b->pid, &info, WSTOPPED), 0);
    eg_raw_begin(&raw, EG_MSG_ATTACH); /* its page goes to the keeper */
    eg_enc_u32(&raw.enc, 0);
    eg_enc_u64(&raw.enc, 0);
    assert_int_equal(eg_raw_send(&raw, raw.enc.data, raw.enc.used), 0);
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
    kill(b->pid, SIGCONT);
    assert_int_equal(eg_raw_receive(&raw), 0);
    eg_raw_figure(&raw, "keeper.pid", pid, sizeof(pid)); /* whatever came with the request is over */
    char *log = eg_bus_log(b), *first = strstr(log, "starting another");
    assert_non_null(first);
    assert_null(strstr(first + 1, "starting another"));
    free(log);
    eg_raw_close(&raw);
}

static void a_keeper_without_daemon_ends_after_its_time(void **state) {
    struct eg_test_bus *b = *state;
    eg_bus_start(b, "--keeper.linger.ms=1", NULL);
    pid_t keeper = eg_bus_keeper(b);
    instance_of(b, NULL); /* with a daemon it stays */
    assert_int_equal(kill(keeper, 0), 0);
    eg_bus_kill(b);
    eg_wait_gone(keeper);
    assert_false(exists(b, "s.keeper.pid") || exists(b, "s.keeper"));
}

static void the_keeper_ignores_the_terminal_and_obeys_sigterm(void **state) {
    struct eg_test_bus *b = *state;
    pid_t keeper = eg_bus_keeper(b);
    eg_bus_kill(b);
    kill(keeper, SIGINT);
    kill(keeper, SIGHUP);
    eg_bus_start(b, NULL);
    assert_int_equal(eg_bus_keeper(b), keeper);
    eg_bus_kill(b);
    kill(keeper, SIGTERM);
    eg_wait_gone(keeper);
    assert_false(exists(b, "s.keeper.pid") || exists(b, "s.keeper"));
}

static void without_keeper_memory_ends_with_the_daemon(void **state) {
    struct eg_test_bus *b = *state;
    eg_bus_start(b, "--keeper=none", NULL);
    uint64_t id = instance_of(b, NULL);
    assert_int_equal(eg_bus_keeper(b), 0);
    eg_bus_kill(b);
    eg_bus_start(b, "--keeper=none", NULL);
    assert_true(instance_of(b, NULL) != id);
}

/* ---- SHUTDOWN, STATUS ---------------------------------------------------------------------------------- */

static int ask_shutdown(uint8_t keep) {
    eg_raw_begin(&raw, EG_MSG_SHUTDOWN);
    eg_enc_u8(&raw.enc, keep);
    return eg_raw_ask(&raw);
}

static void shutdown_by_message(void **state) {
    struct eg_test_bus *b = *state;
    uint32_t epoch;
    uint64_t id = instance_of(b, NULL);
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    assert_int_equal(ask_shutdown(1), 0);
    assert_int_equal(eg_bus_wait(b), 0);
    eg_raw_close(&raw);
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, &epoch) == id);
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    pid_t keeper = eg_bus_keeper(b);
    assert_int_equal(ask_shutdown(0), 0);
    assert_int_equal(eg_raw_receive(&raw), 1);
    assert_int_equal(eg_bus_wait(b), 0);
    eg_wait_gone(keeper);
    eg_raw_close(&raw);
}

static void others_may_not_shut_down(void **state) {
    struct eg_test_bus *b = *state;
    if (geteuid() != 0)
        skip();
    eg_bus_start(b, "--socket.mode=0666", NULL);
    assert_int_equal(chmod(b->dir, 0755), 0);
    char *slash = strrchr(b->dir, '/');
    *slash = '\0';
    assert_int_equal(chmod(b->dir, 0755), 0);
    *slash = '/';
    pid_t child = fork();
    if (child == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(2);
        eg_raw_connect(&raw, b->socket);
        eg_raw_hello(&raw, NULL);
        _exit(ask_shutdown(0) == EAGRE_E_PERMISSION ? 0 : 1);
    }
    assert_int_equal(eg_wait_exit(child), 0);
    instance_of(b, NULL);
}

static void status_tells_what_is_so(void **state) {
    struct eg_test_bus *b = *state;
    char value[256];
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    eg_raw_figure(&raw, "pid", value, sizeof(value));
    assert_int_equal(atoi(value), b->pid);
    eg_raw_figure(&raw, "keeper.pid", value, sizeof(value));
    assert_int_equal(atoi(value), eg_bus_keeper(b));
    eg_raw_figure(&raw, "keeper", value, sizeof(value));
    assert_string_equal(value, "process");
    eg_raw_figure(&raw, "socket", value, sizeof(value));
    assert_string_equal(value, b->socket);
    eg_raw_figure(&raw, "dir", value, sizeof(value));
    assert_string_equal(value, b->data);
    eg_raw_figure(&raw, "sessions", value, sizeof(value));
    assert_string_equal(value, "1");
    eg_raw_figure(&raw, "epoch", value, sizeof(value));
    assert_string_equal(value, "1");
    eg_raw_close(&raw);
}

/* ---- what is refused -------------------------------------------------------------------------------------- */

static void directories_that_cannot_be_written(void **state) {
    struct eg_test_bus *b = *state;
    write_file(b->data, "a file");
    REFUSED(b, 1, b->data, "--log.level=info");
    unlink(b->data);
    REFUSED(b, 1, "/proc/eagre", "--dir=/proc/eagre");
    REFUSED(b, 1, "/proc/eagre", "--socket=/proc/eagre/s");
    if (geteuid() != 0) { /* root may write anywhere */
        chmod(b->data, 0500);
        REFUSED(b, 1, "Permission denied", "--log.level=info");
    }
    assert_int_equal(eg_bus_keeper(b), 0);
}

static void a_path_that_is_no_socket(void **state) {
    struct eg_test_bus *b = *state;
    write_file(b->socket, "precious");
    REFUSED(b, 1, "no socket", "--log.level=info");
    assert_true(exists(b, "s"));
    assert_int_equal(eg_bus_keeper(b), 0); /* the keeper that it had begun is gone */
}

static void usage_errors(void **state) {
    struct eg_test_bus *b = *state;
    char arg[300], path[200];
    memset(path, 'x', sizeof(path) - 1);
    path[199] = '\0';
    snprintf(arg, sizeof(arg), "--socket=/tmp/%s", path);
    REFUSED(b, 2, "at most 107", arg);
    REFUSED(b, 2, "did you mean 'memory.max'", "--memory.max_=1G");
    REFUSED(b, 2, "it must be 1 to 16383", "--clients.max=0");
    REFUSED(b, 2, "needs a value", "--cpus");
    REFUSED(b, 2, "not understood", "topic");
    snprintf(arg, sizeof(arg), "%s/conf", b->dir);
    write_file(arg, "# comment\n\n log.level = loud # no\n");
    REFUSED(b, 2, "conf:3: log.level=loud", "--config", arg);
    assert_false(exists(b, "data"));
}

/* 107 bytes; the keeper's socket has a longer name than the kernel takes. */
static void the_longest_socket_path_works(void **state) {
    struct eg_test_bus *b = *state;
    char path[108];
    size_t n = strlen(b->dir);
    memset(path, 'd', sizeof(path) - 1);
    memcpy(path, b->dir, n);
    path[n] = '/';
    path[105] = '/';
    path[107] = '\0';
    eg_bus_start(b, "--socket", path, NULL);
    eg_raw_connect(&raw, path);
    eg_raw_hello(&raw, NULL);
    eg_raw_close(&raw);
    assert_int_equal(eg_bus_stop(b), 0);
}

/* Its file name is limited by the keeper's, which lies beside it and whose name is longer. */
static void the_longest_socket_name_works(void **state) {
    struct eg_test_bus *b = *state;
    char path[160];
    snprintf(path, sizeof(path), "%.20s/", b->dir);
    size_t n = strlen(path);
    assert_true(n <= 31);
    memset(path + n, 's', 76);
    path[n + 76] = '\0';
    REFUSED(b, 2, "its file name has 76 bytes, at most 75 are possible", "--socket", path);
    path[n + 75] = '\0';
    eg_bus_start(b, "--socket", path, NULL);
    eg_raw_connect(&raw, path);
    eg_raw_hello(&raw, NULL);
    eg_raw_close(&raw);
    assert_int_equal(eg_bus_stop(b), 0);
}

/* Sockets of several instances may lie in one directory: what lies beside them is each one's own. */
static void two_instances_in_one_directory(void **state) {
    struct eg_test_bus *b = *state, other;
    eg_bus_init(&other);
    snprintf(other.socket, sizeof(other.socket), "%.70s/s2", b->dir);
    eg_bus_start(&other, NULL);
    pid_t keeper = eg_bus_keeper(b), others = eg_bus_keeper(&other);
    assert_true(keeper > 0 && others > 0 && keeper != others);
    assert_true(exists(b, "s.pid") && exists(b, "s2.pid"));
    uint64_t first = instance_of(b, NULL);
    assert_true(first != instance_of(&other, NULL));
    eg_bus_kill(&other);
    eg_bus_start(&other, NULL);
    assert_int_equal(eg_bus_keeper(&other), others);
    assert_int_equal(eg_bus_stop(&other), 0);
    assert_true(exists(b, "s") && exists(b, "s.pid") && exists(b, "s.lock") &&
                exists(b, "s.keeper") && exists(b, "s.keeper.pid"));
    assert_false(exists(b, "s2") || exists(b, "s2.pid") || exists(b, "s2.lock") ||
                 exists(b, "s2.keeper") || exists(b, "s2.keeper.pid"));
    assert_int_equal(instance_of(b, NULL), first);
    assert_int_equal(eg_bus_keeper(b), keeper);
    eg_bus_remove(&other);
}

static void flags_win_over_the_file(void **state) {
    struct eg_test_bus *b = *state;
    char path[100];
    struct stat st;
    snprintf(path, sizeof(path), "%s/conf", b->dir);
    write_file(path, "socket.mode=0600\nmemory.max=3G\n");
    eg_bus_start(b, "--socket.mode=0640", "--config", path, NULL);
    assert_int_equal(stat(b->socket, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    char value[32];
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    eg_raw_figure(&raw, "memory.max", value, sizeof(value));
    assert_string_equal(value, "3221225472");
    eg_raw_close(&raw);
}

static void help_texts(void **state) {
    struct eg_run r;
    (void)state;
    EG_RUN(&r, NULL, NULL, "eagred", "--help");
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "--ready-fd"));
    eg_run_free(&r);
    EG_RUN(&r, NULL, NULL, "eagred", "--help-config");
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "keeper.linger.ms"));
    eg_run_free(&r);
    EG_RUN(&r, NULL, NULL, "eagred", "--version");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    EG_RUN(&r, NULL, NULL, "eagre-keeper");
    assert_int_equal(r.status, 2);
    eg_run_free(&r);
}

static void a_damaged_database_is_named(void **state) {
    struct eg_test_bus *b = *state;
    char path[120];
    eg_bus_stop(b);
    snprintf(path, sizeof(path), "%s/meta/data.mdb", b->data);

    assert_int_equal(truncate(path, 8192), 0);
    REFUSED(b, 1, "cut off", "--log.level=info");

    int fd = open(path, O_WRONLY | O_TRUNC);
    for (int i = 0; i < 32768; i++)
        assert_int_equal(write(fd, "garbage!", 8), 8);
    close(fd);
    REFUSED(b, 1, "not a sound LMDB database", "--log.level=info");

    unlink(path); /* as the message says */
    eg_bus_start(b, NULL);
}

#define STARTED(f) cmocka_unit_test_setup_teardown(f, eg_setup_bus, eg_teardown_bus)
#define STOPPED(f) cmocka_unit_test_setup_teardown(f, eg_setup_bus_stopped, eg_teardown_bus)

int main(void) {
    const struct CMUnitTest tests[] = {
        STARTED(a_clean_stop_leaves_nothing_running_or_lying_about),
        STARTED(sigint_stops_too_and_sighup_does_not),
        STARTED(a_second_daemon_is_refused_and_told_whose_it_is),
        STARTED(a_stale_socket_is_replaced),
        STOPPED(the_socket_has_its_mode),
        STARTED(memory_outlives_sigkill),
        STARTED(memory_of_another_directory_is_refused),
        STARTED(memory_outlives_sigusr2),
        STARTED(a_killed_keeper_is_replaced_and_gets_everything),
        STARTED(a_keeper_killed_under_a_request_is_replaced_once),
        STOPPED(a_keeper_without_daemon_ends_after_its_time),
        STARTED(the_keeper_ignores_the_terminal_and_obeys_sigterm),
        STOPPED(without_keeper_memory_ends_with_the_daemon),
        STARTED(shutdown_by_message),
        STOPPED(others_may_not_shut_down),
        STARTED(status_tells_what_is_so),
        STOPPED(directories_that_cannot_be_written),
        STOPPED(a_path_that_is_no_socket),
        STOPPED(usage_errors),
        STOPPED(the_longest_socket_path_works),
        STOPPED(the_longest_socket_name_works),
        STARTED(two_instances_in_one_directory),
        STOPPED(flags_win_over_the_file),
        cmocka_unit_test(help_texts),
        STARTED(a_damaged_database_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
