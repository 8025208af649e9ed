/*
 * Clients and daemons in pid and mount namespaces of their own, as in containers: they work, and the death of one
 * is found. Nothing of the host is needed inside but the socket.
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
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_client.h"

/* A process that did this and forks has its child in a pid namespace of its own, where it is pid 1. */
static bool can_have_namespaces(void) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0 ? 0 : 1);
    return eg_wait_exit(pid) == 0;
}

static void stay_behind(pid_t child) { /* what we wait for has all the descriptors */
    int status;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* An empty root with nothing but the socket: no /proc, no /dev/shm, no /tmp. */
static void enter_an_empty_container(void) {
    char root[128], inside[160];
    CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    snprintf(root, sizeof(root), "%s/root", bus->dir);
    CHECK(mkdir(root, 0700) == 0 || errno == EEXIST);
    CHECK(mount("none", root, "tmpfs", 0, "size=64k") == 0);
    snprintf(inside, sizeof(inside), "%s/s", root);
    int fd = open(inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    CHECK(mount(bus->socket, inside, NULL, MS_BIND, NULL) == 0);
    CHECK(chroot(root) == 0 && chdir("/") == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        stay_behind(pid);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(getpid() == 1);
}

static void claim_in_a_container(int ready, int extra) {
    eagre_t *own;
    eagre_claim_t open_claim;
    eagre_consumer_t *reader;
    eagre_record_t r;
    size_t n;
    (void)extra;
    eg_close_except(ready);
    enter_an_empty_container();
    eagre_producer_t *by = eg_attach("/s", "contained", &own);
    CHECK(eagre_consumer_open(own, NULL, &reader) == EAGRE_OK);
    CHECK(eagre_consumer_assign(reader, "t", 0) == EAGRE_OK);
    CHECK(eagre_consumer_seek(reader, "t", 0, EAGRE_OFFSET_BEGINNING) == EAGRE_OK);
    CHECK(eagre_consumer_poll(reader, &r, 1, EG_TEST_LIMIT_MS, &n) == EAGRE_OK && n == 1);
    for (int i = 0; i < 4000; i++) /* around the ring: memory comes from us, too */
        CHECK(eg_put(by, "some more text to fill segments with, so that the ring turns") == 0);
    CHECK(eg_put(by, "around") == EAGRE_OK);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &open_claim) == EAGRE_OK);
    eg_say(ready);
}

static void a_client_in_a_container(void **state) {
    (void)state;
    if (!can_have_namespaces()) {
        print_message("no permission to make namespaces: skipped\n");
        skip();
    }
    for (int with_restart = 0; with_restart < 2; with_restart++) {
        pid_t pid = eg_start(claim_in_a_container, 0);
        OK(eagre_consumer_seek_tail(c, "t", 0, 2)); /* the claim's offset is the last */
        eg_expect("around");
        OK(eg_put(p, "after"));
        if (with_restart) {
            eg_bus_kill(bus);
            eg_bus_start(bus, NULL);
        }
        eg_wait_figure("clients", 2);
        kill(pid, SIGKILL);
        assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
        eg_expect("after");
        eg_wait_figure("clients", 1);
    }
}

/* A daemon in a pid namespace sees no pids of clients outside: their connection stands for them. */
static pid_t contained_daemon(const struct eg_test_bus *b) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        eg_close_except(-1);
        CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0);
        CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        pid_t init = fork();
        if (init > 0)
            stay_behind(init);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK(mount("proc", "/proc", "proc", 0, NULL) == 0);
        int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execl(EG_TEST_BIN_DIR "/eagred", "eagred", "--dir", b->data, "--socket", b->socket,
              "--keeper=process", (char *)NULL);
        _exit(1);
    }
    return pid;
}

static bool answers(void *ctx) {
    eagre_t *own;
    if (eagre_open(((struct eg_test_bus *)ctx)->socket, &own) != EAGRE_OK)
        return false;
    return eagre_close(own) == EAGRE_OK;
}

static void claim_and_stay(int ready, int extra) {
    eagre_t *own;
    eagre_claim_t open_claim;
    (void)extra;
    eg_close_except(ready);
    eagre_producer_t *by = eg_attach(bus->socket, "outside", &own);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &open_claim) == EAGRE_OK);
    eg_say(ready);
}

static void a_daemon_in_a_container(void **state) {
    struct eg_test_bus inner, *outer = bus;
    if (!can_have_namespaces()) {
        print_message("no permission to make namespaces: skipped\n");
        skip();
    }
    (void)state;
    eg_client_close();
    eg_bus_init(&inner);
    pid_t container = contained_daemon(&inner);
    eg_wait_until(answers, &inner, "the daemon in the container answers");
    bus = &inner;
    eg_client_open(inner.socket);
    pid_t pid = eg_start(claim_and_stay, 0);
    eg_expect("outside");
    OK(eg_put(p, "after"));
    kill(pid, SIGSTOP);
    assert_int_equal(eg_figure("clients"), 2);
    kill(pid, SIGKILL);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_expect("after");
    eg_wait_figure("clients", 1);
    bus = outer;
    kill(container, SIGKILL); /* its pid 1, and so all there, with it */
    assert_int_equal(eg_wait_exit(container), 128 + SIGKILL);
    eg_bus_remove(&inner);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_client, eg_teardown_client)
        T(a_client_in_a_container),
        T(a_daemon_in_a_container),
    };
    return cmocka_run_group_tests_name("system/container", tests, NULL, NULL);
}
