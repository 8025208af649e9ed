/*
 * harness.h - a real daemon in a directory of its own, for tests.
 *
 * Everything that a test process makes lies below one temporary directory ($TMPDIR/eg-XXXXXX), and a
 * guard process outlives it: however the test ends, every program that it started is killed (they name
 * the directory on their command line or in their environment) and the directory removed. Nothing waits by sleeping; what should happen
 * is waited for at most EG_TEST_LIMIT_MS, then the test fails.
 *
 * Failures are cmocka's (fail_msg), so call these from tests, set-ups and tear-downs only.
 */
#ifndef EG_TESTS_HARNESS_H
#define EG_TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EG_TEST_LIMIT_MS 60000

struct eg_test_bus {
    char dir[64];    /* below the temporary directory */
    char data[80];   /* --dir */
    char socket[80]; /* --socket */
    char log[80];    /* the daemon's stderr, all runs */
    pid_t pid;       /* the daemon; 0: none runs */
};

/* ---- a bus ----------------------------------------------------------------------------------------- */

/* Directory only. */
void eg_bus_init(struct eg_test_bus *b);
/* Start eagred and wait until clients can connect. Arguments, if any, end with NULL. */
void eg_bus_start(struct eg_test_bus *b, ...) __attribute__((sentinel));
/* The same with variables for its environment ("EAGRE_FAULT=...", NULL-terminated list or NULL). Returns
 * 0, or its exit status (128 + signal) if it ended before it was ready. */
int eg_bus_try_start(struct eg_test_bus *b, const char *const *environment,
                     const char *const *arguments);
/* SIGTERM; returns the exit status. It and its keeper are gone then. */
int eg_bus_stop(struct eg_test_bus *b);
/* SIGKILL: the keeper stays. */
void eg_bus_kill(struct eg_test_bus *b);
/* It ends by itself (SHUTDOWN, a fault point): returns the exit status. */
int eg_bus_wait(struct eg_test_bus *b);
/* From SOCKET.keeper.pid; 0: there is none. */
pid_t eg_bus_keeper(const struct eg_test_bus *b);
/* Kill whatever runs, remove the directory. For tear-downs: also after failures, also twice. */
void eg_bus_remove(struct eg_test_bus *b);
/* The log so far; free() it. */
char *eg_bus_log(const struct eg_test_bus *b);
/* cmocka set-up and tear-down: *state is a started bus, or one that is not started yet. */
int eg_setup_bus(void **state);
int eg_setup_bus_stopped(void **state);
int eg_teardown_bus(void **state);

/* ---- programs -------------------------------------------------------------------------------------- */

struct eg_run {
    int status; /* exit status, or 128 + signal */
    char *out;  /* stdout and stderr, each with a NUL behind it */
    size_t out_length;
    char *err;
    size_t err_length;
};

/* Run a program to its end; a name without '/' is one of ours. b: sets EAGRE_SOCKET, or NULL.
 * input: its stdin; NULL: /dev/null. */
void eg_run(struct eg_run *r, const struct eg_test_bus *b, const char *input,
            const char *const *argv);
#define EG_RUN(r, b, input, ...) eg_run((r), (b), (input), (const char *const[]){__VA_ARGS__, NULL})
void eg_run_free(struct eg_run *r);

/* Start a program and go on. Its fds 0, 1, 2 are copies of these; -1: /dev/null. */
pid_t eg_spawn(const struct eg_test_bus *b, int in, int out, int err, const char *const *argv);
#define EG_SPAWN(b, in, out, err, ...)                                                             \
    eg_spawn((b), (in), (out), (err), (const char *const[]){__VA_ARGS__, NULL})
/* Exit status as above; kills it and fails the test if it does not end. */
int eg_wait_exit(pid_t pid);
/* Until a process that need not be a child is gone (a zombie is). */
void eg_wait_gone(pid_t pid);
/* Descriptors that a process has. */
size_t eg_count_fds(pid_t pid);
/* Until f(ctx) is true. */
void eg_wait_until(bool (*f)(void *ctx), void *ctx, const char *what);

#endif
