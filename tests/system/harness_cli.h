/* harness_cli.h - the eagre command, run with expectations. */
#ifndef EG_TESTS_HARNESS_CLI_H
#define EG_TESTS_HARNESS_CLI_H

#include "harness.h"

/* Exit status, stdout, a part of stderr ("": it is empty). NULL: whatever. */
void eg_cli_expect(const struct eg_test_bus *b, int status, const char *out, const char *err, const char *input,
                   const char *const *argv);
/* What it prints; free() it. It works. */
char *eg_cli_output(const struct eg_test_bus *b, const char *const *argv);
/* Until that has come through the descriptor; more, or anything else, fails the test. */
void eg_cli_read(int fd, const char *expected);

/* Where `b` is the bus: */
#define ARGV(...) (const char *const[]){"eagre", __VA_ARGS__, NULL}
#define EXPECT(status, out, err, input, ...) eg_cli_expect(b, (status), (out), (err), (input), ARGV(__VA_ARGS__))
/* It works, prints just that, and has nothing to complain about. */
#define PRINTS(out, ...) EXPECT(0, (out), "", NULL, __VA_ARGS__)
#define FEED(input, ...) EXPECT(0, "", "", (input), __VA_ARGS__)
#define FAILS(status, err, ...) EXPECT((status), NULL, (err), NULL, __VA_ARGS__)
#define OUTPUT(...) eg_cli_output(b, ARGV(__VA_ARGS__))

/* ---- what runs beside the test ---- */

struct eg_cli_child {
    char out[128], err[128]; /* files: what it has printed so far */
    pid_t pid;
};

/* Name a file in the bus's directory for each of them. It must name the socket on its command line. */
void eg_cli_start(struct eg_cli_child *m, const struct eg_test_bus *b, const char *name, const char *const *argv);
/* SIGINT, and it ends as one does. */
void eg_cli_interrupt(const struct eg_cli_child *m);
/* Appends; the descriptor. */
int eg_cli_file(const char *path);
char *eg_cli_text_of(const char *path); /* free() it */
bool eg_cli_has(const char *path, const char *what);
/* Until a file has it, or a command prints it. */
void eg_cli_wait_file(const char *path, const char *what);
void eg_cli_wait(const struct eg_test_bus *b, const char *what, const char *const *argv);
#define WAIT(what, ...) eg_cli_wait(b, (what), ARGV(__VA_ARGS__))

#endif
