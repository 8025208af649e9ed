/* The witnesses of death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/errbuf.h"
#include "sys/liveness.h"
#include "sys/shm.h"

/* A child that runs prepare(arg), says that it has, and lives until SIGKILL. */
static pid_t spawn(int (*prepare)(void *), void *arg) {
    int ready[2];
    char ok = 0;
    assert_int_equal(pipe(ready), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(ready[0]);
        ok = prepare == NULL || prepare(arg) == 0;
        (void)!write(ready[1], &ok, 1);
        for (;;) {
            (void)pause();
        }
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &ok, 1), 1);
    (void)close(ready[0]);
    assert_int_equal(ok, 1);
    return pid;
}

/* Kill it and wait until it is a zombie. */
static void end(pid_t pid) {
    siginfo_t info;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void reap(pid_t pid) { assert_int_equal(waitpid(pid, NULL, 0), pid); }

static int take_evil_name(void *arg) {
    (void)arg;
    return prctl(PR_SET_NAME, "a) R 1 (2) 3 4");
}

static void start_time_survives_evil_names(void **state) {
    (void)state;
    uint64_t own, again, child_start;
    assert_int_equal(eg_process_start_time(getpid(), &own), 0);
    assert_int_equal(eg_process_start_time(getpid(), &again), 0);
    assert_int_equal(own, again);
    const pid_t child = spawn(take_evil_name, NULL);
    assert_int_equal(eg_process_start_time(child, &child_start), 0);
    assert_true(child_start >= own);
    assert_true(child_start - own < 3600 * 100); /* ticks: about now, not another field */
    end(child);
    reap(child);
    child_start = 77;
    assert_int_equal(eg_process_start_time(child, &child_start), EAGRE_E_SYSTEM);
    assert_int_equal(child_start, 77);
}

static void gone_means_this_process_and_no_other(void **state) {
    (void)state;
    uint64_t start;
    const pid_t child = spawn(NULL, NULL);
    assert_int_equal(eg_process_start_time(child, &start), 0);
    assert_false(eg_process_is_gone(child, start));
    assert_true(eg_process_is_gone(child, start + 1)); /* the pid is another's now */
    assert_int_equal(kill(child, SIGSTOP), 0);
    assert_false(eg_process_is_gone(child, start)); /* stopped is not dead */
    end(child);
    assert_true(eg_process_is_gone(child, start)); /* a zombie */
    reap(child);
    assert_true(eg_process_is_gone(child, start));
}

static struct sockaddr_un address;
static socklen_t address_len;

static int connect_to_parent(void *arg) {
    (void)arg;
    int sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    return connect(sock, (const struct sockaddr *)&address, address_len);
}

static void pidfd_of_a_peer_tells_its_death(void **state) {
    (void)state;
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    address.sun_family = AF_UNIX; /* and no name: the kernel picks one */
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    address_len = sizeof address;
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &address_len), 0);
    assert_int_equal(listen(listener, 4), 0);

    const pid_t child = spawn(connect_to_parent, NULL);
    int sock = accept(listener, NULL, NULL);
    assert_true(sock >= 0);
    int pidfd = eg_pidfd_of_peer(sock, child);
    assert_true(pidfd >= 0);
    assert_true((fcntl(pidfd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_false(eg_pidfd_is_dead(pidfd));
    end(child);
    assert_true(eg_pidfd_is_dead(pidfd));
    reap(child);
    assert_true(eg_pidfd_is_dead(pidfd));
    (void)close(pidfd);
    /* Of a process that is reaped newer kernels still give a pidfd. */
    pidfd = eg_pidfd_of_peer(sock, child);
    assert_true(pidfd < 0 ? errno == ESRCH : eg_pidfd_is_dead(pidfd));
    if (pidfd >= 0) {
        (void)close(pidfd);
    }
    assert_false(eg_pidfd_is_dead(pidfd)); /* not a descriptor: no evidence */
    (void)close(sock);
    (void)close(listener);
}

static int lock_page(void *arg) { return eg_page_lock(*(int *)arg); }

static void page_lock_lasts_as_long_as_its_process(void **state) {
    (void)state;
    int fd, readonly;
    assert_int_equal(eg_memfd_create("page", 4096, false, &fd), 0);
    assert_int_equal(eg_memfd_readonly(fd, &readonly), 0);
    assert_true(eg_page_lock_is_free(fd));
    const pid_t child = spawn(lock_page, &fd);
    assert_false(eg_page_lock_is_free(fd));
    assert_false(eg_page_lock_is_free(readonly));
    assert_int_equal(eg_page_lock(fd), EAGRE_E_BUSY);
    end(child);
    assert_true(eg_page_lock_is_free(fd)); /* before it is reaped */
    reap(child);
    assert_true(eg_page_lock_is_free(readonly));

    assert_int_equal(eg_page_lock(readonly), EAGRE_E_SYSTEM);
    assert_int_equal(eg_page_lock(fd), 0);
    assert_int_equal(eg_page_lock(fd), 0);
    (void)close(readonly);
    (void)close(fd);
    assert_false(eg_page_lock_is_free(fd)); /* not a descriptor: no evidence */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_time_survives_evil_names),
        cmocka_unit_test(gone_means_this_process_and_no_other),
        cmocka_unit_test(pidfd_of_a_peer_tells_its_death),
        cmocka_unit_test(page_lock_lasts_as_long_as_its_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
