/* Sleeping on shared words, and the barrier that replaces fences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/futex.h"
#include "sys/membarrier.h"
#include "sys/shm.h"

/* Returns once the process sleeps in the kernel. */
static void until_asleep(pid_t pid) {
    char path[64], stat[512];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    for (;;) {
        FILE *f = fopen(path, "re");
        assert_non_null(f);
        const size_t n = fread(stat, 1, sizeof stat - 1, f);
        (void)fclose(f);
        stat[n] = '\0';
        if (strstr(stat, ") S ") != NULL) {
            return;
        }
        (void)sched_yield();
    }
}

/* The word in a memfd, mapped twice. */
static _Atomic uint32_t *map_word(int *fd_out) {
    void *p;
    assert_int_equal(eg_memfd_create("futex", 4096, false, fd_out), 0);
    assert_int_equal(eg_map(*fd_out, 0, 4096, true, &p), 0);
    return p;
}

static void returns_at_once_if_the_value_differs(void **state) {
    (void)state;
    _Atomic uint32_t word = 1;
    assert_int_equal(eg_futex_wait(&word, 0, -1), 0);
}

static void times_out(void **state) {
    (void)state;
    _Atomic uint32_t word = 0;
    const int64_t start = eg_mono_ns();
    assert_int_equal(eg_futex_wait(&word, 0, 2 * EG_NS_PER_MS), 1);
    assert_true(eg_mono_ns() - start >= 2 * EG_NS_PER_MS);
    assert_int_equal(eg_futex_wait(&word, 0, 0), 1);
    eg_futex_wake(&word, INT_MAX); /* nobody there: nothing happens */
}

/* Another process, which may only read, sleeps for ever unless it is woken. */
static void wakes_a_process_with_a_read_only_mapping(void **state) {
    (void)state;
    int fd, readonly;
    _Atomic uint32_t *word = map_word(&fd);
    assert_int_equal(eg_memfd_readonly(fd, &readonly), 0);
    const pid_t child = fork();
    if (child == 0) {
        void *p;
        (void)alarm(60); /* a lost wake-up ends here */
        if (eg_map(readonly, 0, 4096, false, &p) != 0) {
            _exit(1);
        }
        /* Exactly one call: it must really sleep, and its return be the wake-up. */
        _exit(eg_futex_wait(p, 0, -1) == 0 && eg_load_acquire((_Atomic uint32_t *)p) == 1 ? 0 : 2);
    }
    until_asleep(child);
    eg_store_release(word, 1);
    eg_futex_wake(word, 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    eg_unmap(word, 4096);
    (void)close(readonly);
    (void)close(fd);
}

static void on_signal(int sig) { (void)sig; }

static void a_signal_is_no_time_out(void **state) {
    (void)state;
    const struct sigaction sa = {.sa_handler = on_signal};
    assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
    const pid_t child = fork();
    if (child == 0) {
        _Atomic uint32_t word = 0;
        (void)alarm(60);
        _exit(eg_futex_wait(&word, 0, 50 * EG_NS_PER_S));
    }
    until_asleep(child);
    assert_int_equal(kill(child, SIGUSR1), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void the_environment_forbids_membarrier(void **state) {
    (void)state;
    assert_int_equal(setenv("EAGRE_NO_MEMBARRIER", "1", 1), 0);
    assert_false(eg_membarrier_available());
    assert_false(eg_membarrier_register());
    assert_int_equal(unsetenv("EAGRE_NO_MEMBARRIER"), 0);
    if (!eg_membarrier_available()) {
        skip();
    }
    assert_true(eg_membarrier_register());
    assert_true(eg_membarrier_register());
}

/*
 * Two threads store to a word each and then look at the other's. Only one of them pays for the
 * order; still they must never both miss the other's store.
 */
#define ROUNDS 30000

static struct {
    _Atomic uint32_t x, y, round, done;
    uint32_t seen_y;
    char pad[64];
} duel;

static void spin_until(_Atomic uint32_t *word, uint32_t value) {
    for (unsigned spins = 0; eg_load_acquire(word) != value; spins++) {
        if (spins > 1000) {
            (void)sched_yield();
        }
    }
}

static void *frequent_side(void *arg) {
    (void)arg;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        spin_until(&duel.round, i);
        eg_store_relaxed(&duel.x, i);
        eg_compiler_barrier();
        duel.seen_y = eg_load_relaxed(&duel.y);
        eg_store_release(&duel.done, i);
    }
    return NULL;
}

static void membarrier_replaces_the_other_sides_fence(void **state) {
    (void)state;
    if (!eg_membarrier_register()) {
        skip();
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, frequent_side, NULL), 0);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        eg_store_release(&duel.round, i);
        eg_store_relaxed(&duel.y, i);
        eg_membarrier();
        const uint32_t seen_x = eg_load_relaxed(&duel.x);
        spin_until(&duel.done, i);
        assert_true(seen_x == i || duel.seen_y == i);
    }
    (void)pthread_join(thread, NULL);
}

struct sleeper {
    _Atomic uint32_t *word;
    uint32_t bits;
    pid_t pid;
};

static void begin_sleep(struct sleeper *s) {
    s->pid = fork();
    if (s->pid == 0)
        _exit(eg_futex_wait_bits(s->word, 0, s->bits, 30 * EG_NS_PER_S));
    until_asleep(s->pid);
}

static void end_sleep(const struct sleeper *s) {
    int status;
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void bits_wake_whom_they_are_for(void **state) {
    (void)state;
    int fd;
    _Atomic uint32_t *word = map_word(&fd);
    struct sleeper one = {word, 1, 0}, two = {word, 2, 0}, any = {word, UINT32_MAX, 0};
    begin_sleep(&one);
    begin_sleep(&two);
    begin_sleep(&any);
    eg_futex_wake_bits(word, 2); /* the word is as before: who wakes was woken */
    end_sleep(&two);
    end_sleep(&any);
    until_asleep(one.pid);
    eg_futex_wake_bits(word, 5);
    end_sleep(&one);
    eg_unmap((void *)word, 4096);
    (void)close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(returns_at_once_if_the_value_differs),
        cmocka_unit_test(times_out),
        cmocka_unit_test(wakes_a_process_with_a_read_only_mapping),
        cmocka_unit_test(a_signal_is_no_time_out),
        cmocka_unit_test(bits_wake_whom_they_are_for),
        cmocka_unit_test(the_environment_forbids_membarrier),
        cmocka_unit_test(membarrier_replaces_the_other_sides_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
