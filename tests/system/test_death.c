/* Clients that die, stop, exec, close everything or leave: what happens to them and to the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "sys/liveness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

static eagre_t *e;
static eagre_producer_t *p;
static eagre_consumer_t *c;

static int setup(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    eg_setup_bus(state);
    OK(eagre_open(((struct eg_test_bus *)*state)->socket, &e));
    OK(eagre_topic_create(e, "t", settings, 2));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    return 0;
}

static int teardown(void **state) {
    eagre_consumer_close(c);
    eagre_producer_close(p);
    eagre_close(e);
    return eg_teardown_bus(state);
}

static long long figure(const char *name) {
    eagre_status_entry_t *list;
    size_t n;
    long long value = -1;
    OK(eagre_daemon_status(e, &list, &n));
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            value = atoll(list[i].value);
    free(list);
    return value;
}

static long long wanted;
static bool has_clients(void *ctx) {
    (void)ctx;
    return figure("clients") == wanted;
}
static void wait_for_clients(long long n) {
    wanted = n;
    eg_wait_until(has_clients, NULL, "clients found dead");
}

static int produce(eagre_producer_t *by, const char *text) {
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = 0};
    return eagre_produce(by, &m, NULL, NULL);
}

static void expect(const char *text, int64_t offset) {
    eagre_record_t r;
    size_t n = 0;
    OK(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
    assert_int_equal(r.offset, offset);
    assert_int_equal(r.value_len, strlen(text));
    assert_memory_equal(r.value, text, strlen(text));
}

/* ---- a child process ------------------------------------------------------------------------------ */

struct child {
    pid_t pid;
    int said[2];  /* it writes a byte when it is where it should be */
    int go_on[2]; /* and waits for one before it goes on */
};

static void child_ready(const struct child *k) {
    char byte;
    if (write(k->said[1], "x", 1) != 1 || read(k->go_on[0], &byte, 1) != 1)
        _exit(90);
}

static void start(struct child *k, const struct eg_test_bus *b,
                  int (*f)(const struct child *k, eagre_t *own, eagre_producer_t *by)) {
    char byte;
    assert_int_equal(pipe(k->said), 0);
    assert_int_equal(pipe(k->go_on), 0);
    k->pid = fork();
    if (k->pid == 0) {
        eagre_t *own;
        eagre_producer_t *by;
        for (int fd = 3; fd < 1000; fd++) /* the harness's guard waits for the end of one of them */
            if (fd != k->said[1] && fd != k->go_on[0])
                close(fd);
        if (eagre_open(b->socket, &own) != EAGRE_OK ||
            eagre_producer_open(own, "t", NULL, &by) != EAGRE_OK)
            _exit(91);
        _exit(f(k, own, by));
    }
    close(k->said[1]);
    close(k->go_on[0]);
    if (read(k->said[0], &byte, 1) != 1)
        fail_msg("the child ended early");
}

static void go_on(struct child *k) { assert_int_equal(write(k->go_on[1], "x", 1), 1); }

static void finish(struct child *k, int status) {
    assert_int_equal(eg_wait_exit(k->pid), status);
    close(k->said[0]);
    close(k->go_on[1]);
}

/* Takes a place and does not publish it before it is told. */
static int claim_and_wait(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_claim_t claim;
    (void)own;
    if (eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) != EAGRE_OK)
        return 92;
    child_ready(k);
    memcpy(claim.value, "child", 5);
    return -eagre_producer_commit(by, &claim);
}

/* ---- tests ---------------------------------------------------------------------------------------- */

static void a_dead_producers_claim_is_skipped(void **state) {
    struct child k;
    OK(produce(p, "before"));
    start(&k, *state, claim_and_wait);
    OK(produce(p, "after"));
    expect("before", 0);
    assert_int_equal(figure("clients"), 2);
    kill(k.pid, SIGKILL);
    expect("after", 2);
    finish(&k, 128 + SIGKILL);
    wait_for_clients(1);
}

static void a_stopped_producers_claim_is_waited_for_and_nobody_else_waits(void **state) {
    eagre_record_t r;
    size_t n;
    struct child k;
    start(&k, *state, claim_and_wait);
    kill(k.pid, SIGSTOP);
    OK(produce(p, "after"));
    OK(eagre_consumer_poll(c, &r, 1, 300, &n)); /* longer than any look at who is dead takes */
    assert_int_equal(n, 0);
    assert_int_equal(figure("clients"), 2);
    for (int i = 0; i < 5000; i++) /* several laps of the ring */
        OK(produce(
            p, "some more text to fill segments with, so that the ring goes round several times"));
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_END));
    OK(produce(p, "at the end"));
    expect("at the end", 5002);
    kill(k.pid, SIGCONT);
    go_on(&k);
    finish(&k, 0); /* its publish succeeds all the same */
    wait_for_clients(1);
}

static void its_record_comes_when_it_goes_on(void **state) {
    struct child k;
    start(&k, *state, claim_and_wait);
    kill(k.pid, SIGSTOP);
    OK(produce(p, "after"));
    kill(k.pid, SIGCONT);
    go_on(&k);
    expect("child", 0);
    expect("after", 1);
    finish(&k, 0);
}

static int leave(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_producer_close(by);
    if (eagre_close(own) != EAGRE_OK)
        return 93;
    child_ready(k);
    return 0;
}

static void who_closes_and_lives_on_is_forgotten(void **state) {
    struct child k;
    start(&k, *state, leave);
    wait_for_clients(1);
    go_on(&k);
    finish(&k, 0);
}

static int become_another_program(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_claim_t claim;
    (void)own;
    if (eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) != EAGRE_OK ||
        write(k->said[1], "x", 1) != 1)
        return 92;
    dup2(k->go_on[0], 0);
    execlp("cat", "cat", (char *)NULL);
    return 94;
}

/* The process lives, but nothing of the client does: its memory is gone. */
static void who_does_exec_is_dead(void **state) {
    struct child k;
    start(&k, *state, become_another_program);
    OK(produce(p, "after"));
    expect("after", 1);
    wait_for_clients(1);
    assert_int_equal(kill(k.pid, 0), 0);
    close(k.go_on[1]);
    k.go_on[1] = -1;
    finish(&k, 0);
}

static int close_everything(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_claim_t claim;
    (void)own;
    if (eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) != EAGRE_OK)
        return 92;
    for (int fd = 3; fd < 1000; fd++)
        if (fd != k->said[1] && fd != k->go_on[0])
            close(fd);
    child_ready(k);
    memcpy(claim.value, "child", 5);
    if (eagre_producer_commit(by, &claim) != EAGRE_OK)
        return 93;
    child_ready(k);
    return 0;
}

/* A daemonizing library closes all descriptors: connection and lock are lost, but it lives and writes. */
static void who_loses_its_lock_but_lives_is_left_alone(void **state) {
    eagre_record_t r;
    struct child k;
    size_t n;
    char byte;
    start(&k, *state, close_everything);
    OK(produce(p, "after"));
    OK(eagre_consumer_poll(c, &r, 1, 300, &n)); /* longer than any look at who is dead takes */
    assert_int_equal(n, 0);
    assert_int_equal(figure("clients"), 2);
    go_on(&k);
    assert_int_equal(read(k.said[0], &byte, 1), 1);
    expect("child", 0);
    expect("after", 1);
    go_on(&k);
    finish(&k, 0);
    wait_for_clients(1);
}

/* Any descriptor of its page that a process closes takes the process's lock with it. */
static bool lose_lock(void) {
    char name[32], path[64];
    for (int fd = 3; fd < 1000; fd++) {
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, path, sizeof(path) - 1);
        if (n < 0)
            continue;
        path[n] = '\0';
        unsigned owner;
        if (sscanf(path, "/memfd:eagre:c%u", &owner) == 1)
            return close(open(name, O_RDONLY)) == 0;
    }
    return false;
}

static int forgotten(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_consumer_t *mine;
    eagre_record_t r;
    size_t n;
    eagre_producer_close(by);
    if (eagre_consumer_open(own, NULL, &mine) != EAGRE_OK || !lose_lock())
        return 92;
    child_ready(k);
    if (eagre_consumer_assign(mine, "t", 0) != EAGRE_OK ||
        eagre_consumer_seek(mine, "t", 0, 0) != EAGRE_OK ||
        eagre_consumer_poll(mine, &r, 1, EG_TEST_LIMIT_MS, &n) != EAGRE_OK || n != 1)
        return 93;
    eagre_consumer_close(mine);
    return -eagre_close(own);
}

/* As one is that had no time to take its lock before the daemon died. */
static void who_held_nothing_and_was_forgotten_begins_anew(void **state) {
    struct eg_test_bus *b = *state;
    struct child k;
    OK(produce(p, "x"));
    start(&k, b, forgotten);
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    wait_for_clients(1);
    go_on(&k);
    finish(&k, 0);
}

/* The descriptor of our client page. */
static int find_page(void) {
    char link[32], name[64];
    for (int fd = 3; fd < 1000; fd++) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, name, sizeof(name) - 1);
        name[n < 0 ? 0 : n] = '\0';
        if (strncmp(name, "/memfd:eagre:c", 14) == 0 && name[14] >= '0' && name[14] <= '9')
            return fd;
    }
    return -1;
}

/* A child of it has the page, too, and its lock. */
static int leave_the_lock_to_a_child(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    eagre_claim_t claim;
    (void)own;
    if (eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) != EAGRE_OK)
        return 92;
    int page = find_page();
    if (page < 0)
        return 93;
    close(dup(page)); /* any close of the file drops the lock */
    if (fork() == 0) {
        if (eg_page_lock(page) != EAGRE_OK)
            _exit(94);
        child_ready(k);
        _exit(0);
    }
    for (;;)
        pause();
}

static bool lock_is_reported(void *ctx) {
    char *log = eg_bus_log(ctx);
    bool found = strstr(log, "its process has ended, but its page is locked by another") != NULL;
    free(log);
    return found;
}

/* The other way round: the process is gone, but somebody holds the lock. */
static void who_is_gone_but_whose_page_is_locked_is_left_alone(void **state) {
    eagre_record_t r;
    struct child k;
    size_t n;
    start(&k, *state, leave_the_lock_to_a_child);
    OK(produce(p, "after"));
    kill(k.pid, SIGKILL);
    assert_int_equal(eg_wait_exit(k.pid), 128 + SIGKILL);
    eg_wait_until(lock_is_reported, *state, "one witness alone is reported");
    OK(eagre_consumer_poll(c, &r, 1, 0, &n));
    assert_int_equal(n, 0);
    assert_int_equal(figure("clients"), 2);
    go_on(&k); /* the lock goes, too */
    expect("after", 1);
    wait_for_clients(1);
    close(k.said[0]);
    close(k.go_on[1]);
}

#define MANY 50

static void many_die_at_once_with_claims_side_by_side(void **state) {
    static struct child k[MANY];
    for (int i = 0; i < MANY; i++)
        start(&k[i], *state, claim_and_wait);
    OK(produce(p, "after"));
    assert_int_equal(figure("clients"), MANY + 1);
    for (int i = 0; i < MANY; i++)
        if (i != 7)
            kill(k[i].pid, SIGKILL);
    for (int i = 0; i < MANY; i++)
        if (i != 7)
            finish(&k[i], 128 + SIGKILL);
    wait_for_clients(2);
    go_on(&k[7]); /* the living one's was not touched */
    finish(&k[7], 0);
    expect("child", 7);
    expect("after", MANY);
    wait_for_clients(1);
}

static int produce_and_wait(const struct child *k, eagre_t *own, eagre_producer_t *by) {
    (void)own;
    if (produce(by, "child") != EAGRE_OK)
        return 92;
    child_ready(k);
    return 0;
}

static void deaths_while_there_is_no_daemon_are_found_later(void **state) {
    struct eg_test_bus *b = *state;
    struct child dead, alive;
    start(&dead, b, claim_and_wait);
    start(&alive, b, produce_and_wait);
    OK(produce(p, "after"));
    eg_bus_kill(b);
    kill(dead.pid, SIGKILL);
    finish(&dead, 128 + SIGKILL);
    eg_bus_start(b, NULL);
    expect("child", 1); /* offset 0 was the dead one's */
    expect("after", 2);
    wait_for_clients(2); /* the other one, and us */
    go_on(&alive);
    finish(&alive, 0);
    wait_for_clients(1);
}

static void owner_numbers_are_used_again(void **state) {
    struct eg_test_bus *b = *state;
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            eagre_t *own;
            eagre_producer_t *by;
            if (eagre_open(b->socket, &own) != EAGRE_OK ||
                eagre_producer_open(own, "t", NULL, &by) != EAGRE_OK ||
                produce(by, "x") != EAGRE_OK)
                _exit(1);
            if (i % 3 == 0)
                kill(getpid(), SIGKILL);
            _exit(0); /* without closing anything */
        }
        int status = eg_wait_exit(pid);
        assert_int_equal(status, i % 3 == 0 ? 128 + SIGKILL : 0);
    }
    wait_for_clients(1);
    for (int64_t i = 0; i < 100; i++)
        expect("x", i);
}

static void a_single_writer_is_one_at_a_time(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"writers", "single"}};
    eagre_producer_t *mine, *second;
    char pid[16];
    struct child k;
    (void)state;
    OK(eagre_topic_delete(e, "t"));
    eagre_consumer_close(c);
    eagre_producer_close(p);
    p = NULL;
    OK(eagre_topic_create(e, "t", settings, 3));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    OK(eagre_producer_open(e, "t", NULL, &mine));
    assert_int_equal(eagre_producer_open(e, "t", NULL, &second), EAGRE_E_BUSY);
    snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    assert_non_null(strstr(eagre_error_detail(), pid));
    OK(produce(mine, "mine"));
    eagre_producer_close(mine);
    start(&k, *state, claim_and_wait);
    assert_int_equal(eagre_producer_open(e, "t", NULL, &mine), EAGRE_E_BUSY);
    snprintf(pid, sizeof(pid), "pid %d", (int)k.pid);
    assert_non_null(strstr(eagre_error_detail(), pid));
    kill(k.pid, SIGKILL);
    finish(&k, 128 + SIGKILL);
    wait_for_clients(1);
    OK(eagre_producer_open(e, "t", NULL, &mine));
    OK(produce(mine, "again"));
    expect("mine", 0);
    expect("again", 2); /* 1 was claimed by the dead one */
    eagre_producer_close(mine);
}

static void quotas_name_what_to_raise(void **state) {
    struct eg_test_bus *b = *state;
    struct child k[2];
    OK(produce(p, "first"));
    eg_bus_stop(b);
    eg_bus_start(b, "--clients.max=3", NULL);
    for (int i = 0; i < 2; i++)
        start(&k[i], b, produce_and_wait);
    OK(produce(p, "third")); /* we come back */
    pid_t pid = fork();
    if (pid == 0) {
        eagre_t *own;
        eagre_producer_t *by;
        if (eagre_open(b->socket, &own) != EAGRE_OK ||
            eagre_producer_open(own, "t", NULL, &by) != EAGRE_E_LIMIT)
            _exit(1);
        _exit(strstr(eagre_error_detail(), "clients.max=3") != NULL ? 0 : 2);
    }
    assert_int_equal(eg_wait_exit(pid), 0);
    for (int i = 0; i < 2; i++) {
        go_on(&k[i]);
        finish(&k[i], 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(a_dead_producers_claim_is_skipped),
        T(a_stopped_producers_claim_is_waited_for_and_nobody_else_waits),
        T(its_record_comes_when_it_goes_on),
        T(who_closes_and_lives_on_is_forgotten),
        T(who_does_exec_is_dead),
        T(who_loses_its_lock_but_lives_is_left_alone),
        T(who_held_nothing_and_was_forgotten_begins_anew),
        T(who_is_gone_but_whose_page_is_locked_is_left_alone),
        T(many_die_at_once_with_claims_side_by_side),
        T(deaths_while_there_is_no_daemon_are_found_later),
        T(owner_numbers_are_used_again),
        T(a_single_writer_is_one_at_a_time),
        T(quotas_name_what_to_raise),
    };
    return cmocka_run_group_tests_name("system/death", tests, NULL, NULL);
}
