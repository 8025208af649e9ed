/*
 * What the headers say about fork and exec: a fork child is told and can do no harm, whatever it does with what
 * it inherited and however long it lives; nothing of a client survives exec.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_client.h"

/* ---- what the kernel says about us -------------------------------------------------------------------- */

/* The client page of this process: its inode; the lock on it is what says that we live. */
static unsigned long page_inode(void) {
    char path[300], target[64];
    struct stat st = {0};
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strncmp(target, "/memfd:eagre:c", 14) == 0)
            assert_int_equal(stat(path, &st), 0);
    }
    closedir(d);
    assert_int_not_equal(st.st_ino, 0);
    return st.st_ino;
}

static bool is_locked_by(unsigned long inode, pid_t pid) {
    char line[256];
    bool found = false;
    FILE *f = fopen("/proc/locks", "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        int holder;
        unsigned long of;
        if (sscanf(line, "%*s POSIX %*s WRITE %d %*x:%*x:%lu", &holder, &of) == 2)
            found |= holder == pid && of == inode;
    }
    fclose(f);
    return found;
}

/* We are a client in good standing: nothing that we have was given away or repaired. */
static void we_are_well(eagre_claim_t *open_claim) {
    assert_true(is_locked_by(page_inode(), getpid()));
    OK(eagre_producer_commit(p, open_claim));
    eg_expect("claim");
    OK(eg_put(p, "after"));
    eg_expect("after");
    eg_wait_figure("clients", 1);
    char us[32], *log = eg_bus_log(bus);
    snprintf(us, sizeof(us), "pid %d): ", (int)getpid());
    bool suspected =
        strstr(log, us) != NULL; /* "has closed its connection and its lock", for one */
    free(log);
    assert_false(suspected);
}

/* ---- fork: the child is told ------------------------------------------------------------------------------ */

#define FORKED(call) CHECK((call) == EAGRE_E_FORKED)

static void use_everything(eagre_claim_t *open_claim) {
    static const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    eagre_message_t m = {.value = "x", .value_len = 1};
    eagre_producer_t *p2;
    eagre_consumer_t *c2;
    eagre_claim_t another;
    eagre_topic_info_t *info;
    eagre_topic_entry_t *topics;
    eagre_status_entry_t *status;
    eagre_record_t r;
    int64_t offset;
    size_t n;
    int fd;
    FORKED(eagre_produce(p, &m, NULL, NULL));
    FORKED(eagre_produce_batch(p, 0, &m, 1, NULL));
    FORKED(eagre_producer_commit(p, open_claim));
    FORKED(eagre_producer_abort(p, open_claim));
    FORKED(eagre_producer_claim(p, 0, 0, 1, &another));
    FORKED(eagre_consumer_poll(c, &r, 1, 0, &n));
    FORKED(eagre_consumer_assign(c, "t", 0));
    FORKED(eagre_consumer_unassign(c, "t", 0));
    FORKED(eagre_consumer_seek(c, "t", 0, 0));
    FORKED(eagre_consumer_seek_tail(c, "t", 0, 1));
    FORKED(eagre_consumer_position(c, "t", 0, &offset));
    FORKED(eagre_consumer_beginning_offset(c, "t", 0, &offset));
    FORKED(eagre_consumer_end_offset(c, "t", 0, &offset));
    FORKED(eagre_consumer_lag(c, "t", 0, &offset));
    FORKED(eagre_consumer_pause(c, "t", 0));
    FORKED(eagre_consumer_resume(c, "t", 0));
    FORKED(eagre_consumer_fd(c, &fd));
    FORKED(eagre_producer_open(e, "t", NULL, &p2));
    FORKED(eagre_consumer_open(e, NULL, &c2));
    FORKED(eagre_topic_create(e, "u", settings, 2));
    FORKED(eagre_topic_alter(e, "t", settings, 1));
    FORKED(eagre_topic_delete(e, "t"));
    FORKED(eagre_topic_describe(e, "t", &info));
    FORKED(eagre_topic_list(e, &topics, &n));
    FORKED(eagre_daemon_status(e, &status, &n));
    FORKED(eagre_daemon_shutdown(e, 0));
    CHECK(strstr(eagre_error_detail(), "fork") != NULL);
}

static void close_inherited(void) {
    eagre_consumer_close(c);
    eagre_producer_close(p);
    CHECK(eagre_close(e) == EAGRE_OK);
}

enum leaving { BY_EXIT, BY_CLOSE, BY_EXEC, BY_KILL };

static void a_child_can_do_no_harm(void **state) {
    (void)state;
    OK(eg_put(p, "before"));
    eg_expect("before"); /* pinned by c until its next poll */
    for (enum leaving how = BY_EXIT; how <= BY_KILL; how++) {
        eagre_claim_t open_claim;
        eg_claim(p, &open_claim);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            use_everything(&open_claim);
            switch (how) {
            case BY_CLOSE:
                close_inherited();
                break;
            case BY_EXEC:
                execlp("true", "true", (char *)NULL);
                _exit(1);
            case BY_KILL:
                raise(SIGKILL);
                break;
            default:
                break;
            }
            _exit(0);
        }
        assert_int_equal(eg_wait_exit(pid), how == BY_KILL ? 128 + SIGKILL : 0);
        we_are_well(&open_claim);
    }
}

static void a_child_may_have_an_instance_of_its_own(void **state) {
    eagre_claim_t open_claim;
    eagre_t *own;
    (void)state;
    eg_claim(p, &open_claim);
    pid_t pid = fork();
    if (pid == 0) {
        eagre_producer_t *by = eg_attach(bus->socket, "child", &own);
        close_inherited(); /* closes nothing of what it has itself */
        CHECK(eg_put(by, "again") == EAGRE_OK);
        eagre_producer_close(by);
        CHECK(eagre_close(own) == EAGRE_OK);
        _exit(0);
    }
    assert_int_equal(eg_wait_exit(pid), 0);
    OK(eagre_producer_commit(p, &open_claim));
    eg_expect("claim");
    eg_expect("child");
    eg_expect("again");
    eg_claim(p, &open_claim);
    we_are_well(&open_claim);
}

/* The numbers of what it inherited are others' by now: a close that went by them would take those. */
static void a_child_that_closed_all_descriptors_first(void **state) {
    eagre_claim_t open_claim;
    eagre_t *own;
    (void)state;
    eg_claim(p, &open_claim);
    pid_t pid = fork();
    if (pid == 0) {
        eg_close_except(-1);
        eagre_producer_t *by = eg_attach(bus->socket, "child", &own);
        eagre_topic_entry_t *topics;
        size_t n;
        int mine[64];
        for (size_t i = 0; i < 64; i++)
            mine[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        close_inherited();
        for (size_t i = 0; i < 64; i++)
            CHECK(fcntl(mine[i], F_GETFD) >= 0);
        CHECK(eg_put(by, "again") == EAGRE_OK);
        CHECK(eagre_topic_list(own, &topics, &n) == EAGRE_OK); /* on the same connection */
        free(topics);
        raise(SIGKILL); /* with nothing open that says it lives but its own lock */
    }
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    OK(eagre_producer_commit(p, &open_claim));
    eg_expect("claim");
    eg_expect("child");
    eg_expect("again");
    eg_claim(p, &open_claim);
    we_are_well(&open_claim);
}

/* A consumer whose thread did not come along through fork. */
static void a_child_closes_a_consumer_that_had_a_thread(void **state) {
    eagre_claim_t open_claim;
    eagre_record_t r;
    size_t n;
    int fd;
    (void)state;
    OK(eagre_consumer_fd(c, &fd));
    OK(eagre_consumer_poll(c, &r, 1, 0, &n)); /* arms it */
    eg_claim(p, &open_claim);
    pid_t pid = fork();
    if (pid == 0) {
        close_inherited();
        _exit(0);
    }
    assert_int_equal(eg_wait_exit(pid), 0);
    we_are_well(&open_claim);
}

static _Atomic bool enough;
static void *ask_and_ask(void *arg) {
    (void)arg;
    while (!enough) {
        eagre_topic_entry_t *topics;
        size_t n;
        eagre_producer_t *by;
        if (eagre_topic_list(e, &topics, &n) != EAGRE_OK ||
            eagre_producer_open(e, "t", NULL, &by) != EAGRE_OK)
            return &enough;
        free(topics);
        eagre_producer_close(by);
    }
    return NULL;
}

/* The child inherits the locks of the library as they are just then. */
static void forks_while_a_thread_is_talking_to_the_daemon(void **state) {
    pthread_t thread;
    void *failed;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, ask_and_ask, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (eg_put(p, "x") != EAGRE_E_FORKED)
                _exit(1);
            eagre_consumer_close(c);
            eagre_producer_close(p);
            eagre_close(e);
            _exit(0);
        }
        assert_int_equal(eg_wait_exit(pid), 0);
    }
    enough = true;
    pthread_join(thread, &failed);
    assert_null(failed);
    enough = false;
    OK(eg_put(p, "after"));
    eg_expect("after");
}

/* ---- fork: who lives longer -------------------------------------------------------------------------------- */

static void claim_and_fork(int ready, int extra) {
    eagre_t *own;
    eagre_claim_t open_claim;
    int pids[2];
    eg_close_except(ready);
    eagre_producer_t *by = eg_attach(bus->socket, "child", &own);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &open_claim) == EAGRE_OK);
    CHECK(pipe(pids) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        eagre_t *another;
        if (extra) /* a client as well */
            eg_attach(bus->socket, "grandchild", &another);
        eg_say(pids[1]);
        eg_stay();
    }
    char byte;
    CHECK(read(pids[0], &byte, 1) == 1);
    eg_say(ready);
}

/* Its child has every descriptor and mapping of it, the page with its pins among them; and lives. */
static void a_child_that_lives_longer_does_not_hide_the_death(void **state) {
    (void)state;
    for (int with_instance = 0; with_instance < 2; with_instance++) {
        pid_t pid = eg_start(claim_and_fork, with_instance);
        eg_expect("child");
        OK(eg_put(p, "after"));
        assert_int_equal(eg_figure("clients"), 2 + with_instance);
        kill(pid, SIGKILL);
        assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
        if (with_instance)
            eg_expect("grandchild");
        eg_expect("after");
        eg_wait_figure("clients", 1 + with_instance);
        eg_wait_figure("sessions", 1 + with_instance); /* the inherited connection is nobody's */
        eg_bus_kill(bus); /* nor does the next daemon believe that it lives */
        eg_bus_start(bus, NULL);
        OK(eg_put(p, "next"));
        eg_expect("next");
        eg_wait_figure("clients", 1 + with_instance);
    }
}

/* Found by a successor that has never seen the connection. */
static void nor_does_it_while_there_is_no_daemon(void **state) {
    (void)state;
    pid_t pid = eg_start(claim_and_fork, 0);
    eg_expect("child");
    OK(eg_put(p, "after"));
    eg_bus_kill(bus);
    kill(pid, SIGKILL);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_bus_start(bus, NULL);
    eg_expect("after");
    eg_wait_figure("clients", 1);
}

/* ---- daemons --------------------------------------------------------------------------------------------- */

static void daemonise(int report) {
    if (fork() != 0)
        _exit(0);
    CHECK(setsid() > 0);
    if (fork() != 0)
        _exit(0);
    pid_t me = getpid();
    CHECK(write(report, &me, sizeof(me)) == sizeof(me));
}

static void attach_as_a_daemon(int ready, int attach_before) {
    eagre_t *own, *first;
    eagre_producer_t *old = NULL;
    int report[2];
    eg_close_except(ready);
    CHECK(pipe(report) == 0);
    if (attach_before)
        old = eg_attach(bus->socket, "before", &first);
    daemonise(report[1]);
    if (old != NULL)
        CHECK(eg_put(old, "x") == EAGRE_E_FORKED);
    eagre_producer_t *by = eg_attach(bus->socket, "daemon", &own);
    eagre_claim_t open_claim;
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &open_claim) == EAGRE_OK);
    pid_t me;
    CHECK(read(report[0], &me, sizeof(me)) == sizeof(me) && me == getpid());
    CHECK(write(ready, &me, sizeof(me)) == sizeof(me));
}

static void a_process_becomes_a_daemon(void **state) {
    (void)state;
    for (int attach_before = 0; attach_before < 2; attach_before++) {
        int ready[2];
        pid_t the_daemon;
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        if (pid == 0) {
            attach_as_a_daemon(ready[1], attach_before);
            eg_stay();
        }
        close(ready[1]);
        assert_int_equal(eg_wait_exit(pid), 0);
        assert_int_equal(read(ready[0], &the_daemon, sizeof(the_daemon)), sizeof(the_daemon));
        if (attach_before)
            eg_expect("before");
        eg_expect("daemon");
        eg_wait_figure("clients", 2); /* it and we: who attached before is gone */
        OK(eg_put(p, "after"));
        kill(the_daemon, SIGKILL);
        eg_expect("after");
        eg_wait_gone(the_daemon);
        eg_wait_figure("clients", 1);
        close(ready[0]);
    }
}

/* ---- exec -------------------------------------------------------------------------------------------------- */

static void everything_is_close_on_exec(void **state) {
    char path[300], target[128];
    int fd;
    (void)state;
    OK(eg_put(p, "x"));
    eg_expect("x");
    OK(eagre_consumer_fd(c, &fd));
    int count = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strstr(target, "eagre") == NULL && strstr(target, "eventfd") == NULL &&
            strncmp(target, "socket:", 7) != 0)
            continue;
        count++;
        if ((fcntl(atoi(entry->d_name), F_GETFD) & FD_CLOEXEC) == 0)
            fail_msg("descriptor %s (%s) would survive exec", entry->d_name, target);
    }
    closedir(d);
    assert_true(count >= 3);
}

static void claim_and_exec(int ready, int extra) {
    eagre_t *own;
    eagre_claim_t open_claim;
    (void)extra;
    eg_close_except(ready);
    eagre_producer_t *by = eg_attach(bus->socket, "before exec", &own);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &open_claim) == EAGRE_OK);
    int in = open("/proc/self/comm", O_RDONLY); /* the new program's name, when it reads it */
    CHECK(in >= 0 && dup2(in, 0) == 0);
    eg_say(ready);
    execl(EG_TEST_BIN_DIR "/eagre", "eagre", "--socket", bus->socket, "produce", "t", (char *)NULL);
    _exit(1);
}

/* Same pid, same start time, another program that is a client, too. */
static void exec_of_a_program_that_is_a_client_again(void **state) {
    (void)state;
    pid_t pid = eg_start(claim_and_exec, 0);
    eg_expect("before exec");
    assert_int_equal(eg_wait_exit(pid), 0);
    eg_expect("eagre"); /* behind the claim, which is a pad now */
    eg_wait_figure("clients", 1);
}

static void programs_are_started_in_between(void **state) {
    extern char **environ;
    eagre_claim_t open_claim;
    char name[] = "true", *const argv[] = {name, NULL};
    pid_t pid;
    (void)state;
    eg_claim(p, &open_claim);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(posix_spawnp(&pid, "true", NULL, NULL, argv, environ), 0);
        assert_int_equal(eg_wait_exit(pid), 0);
        pid = vfork();
        if (pid == 0) {
            execvp("true", argv);
            _exit(1);
        }
        assert_int_equal(eg_wait_exit(pid), 0);
        assert_int_equal(system("true"), 0);
    }
    we_are_well(&open_claim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_client, eg_teardown_client)
        T(a_child_can_do_no_harm),
        T(a_child_may_have_an_instance_of_its_own),
        T(a_child_that_closed_all_descriptors_first),
        T(a_child_closes_a_consumer_that_had_a_thread),
        T(forks_while_a_thread_is_talking_to_the_daemon),
        T(a_child_that_lives_longer_does_not_hide_the_death),
        T(nor_does_it_while_there_is_no_daemon),
        T(a_process_becomes_a_daemon),
        T(everything_is_close_on_exec),
        T(exec_of_a_program_that_is_a_client_again),
        T(programs_are_started_in_between),
    };
    return cmocka_run_group_tests_name("system/fork", tests, NULL, NULL);
}
