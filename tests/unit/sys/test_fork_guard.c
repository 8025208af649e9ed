/* A handle knows that it came through a fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/fork_guard.h"

static void *take_guard(void *arg) {
    *(const uint32_t **)arg = eg_fork_guard();
    return NULL;
}

/* First, so that the threads really race for the first guard. */
static void threads_share_one_guard(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    const uint32_t *guard[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, take_guard, &guard[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(thread[i], NULL);
        assert_ptr_equal(guard[i], eg_fork_guard());
        assert_int_equal(*guard[i], 1);
    }
}

/* 0 if all is well in a child that has inherited the guard, else where it is not. */
static int check_in_child(const uint32_t *inherited) {
    if (*inherited != 0) {
        return 1;
    }
    const uint32_t *own = eg_fork_guard();
    if (own == inherited || *own != 1 || *inherited != 0 || own != eg_fork_guard()) {
        return 2;
    }
    const pid_t grandchild = fork();
    if (grandchild == 0) {
        _exit(*own == 0 && *inherited == 0 && *eg_fork_guard() == 1 ? 0 : 3);
    }
    int status;
    if (waitpid(grandchild, &status, 0) != grandchild || !WIFEXITED(status)) {
        return 4;
    }
    return *own == 1 ? WEXITSTATUS(status) : 5;
}

static void assert_child(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void reads_0_in_children_alone(void **state) {
    (void)state;
    const uint32_t *guard = eg_fork_guard();
    assert_int_equal(*guard, 1);
    const pid_t child = fork();
    if (child == 0) {
        _exit(check_in_child(guard));
    }
    assert_child(child);
    assert_int_equal(*guard, 1);
    assert_ptr_equal(eg_fork_guard(), guard);
}

/* No handler of libc's runs here: the kernel itself wipes the page. */
static void reads_0_after_a_bare_system_call(void **state) {
    (void)state;
    const uint32_t *guard = eg_fork_guard();
    const pid_t child = (pid_t)syscall(SYS_clone, 17 /* SIGCHLD */, NULL, NULL, NULL, NULL);
    if (child == 0) {
        _exit(*guard == 0 ? 0 : 1);
    }
    assert_child(child);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_one_guard),
        cmocka_unit_test(reads_0_in_children_alone),
        cmocka_unit_test(reads_0_after_a_bare_system_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
