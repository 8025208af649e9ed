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

#endif
