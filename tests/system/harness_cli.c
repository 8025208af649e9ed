#include "harness_cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void eg_cli_expect(const struct eg_test_bus *b, int status, const char *out, const char *err, const char *input,
                   const char *const *argv) {
    struct eg_run r;
    eg_run(&r, b, input, argv);
    if (r.status != status || (out != NULL && strcmp(r.out, out) != 0) ||
        (err != NULL && (err[0] == '\0' ? r.err[0] != '\0' : strstr(r.err, err) == NULL)))
        fail_msg("%s %s %s: exit status %d, stdout:\n%s\nstderr:\n%s\nexpected %d:\n%s\n%s",
                 argv[0], argv[1], argv[1] != NULL && argv[2] != NULL ? argv[2] : "", r.status,
                 r.out, r.err, status, out != NULL ? out : "(any)", err != NULL ? err : "(any)");
    eg_run_free(&r);
}

char *eg_cli_output(const struct eg_test_bus *b, const char *const *argv) {
    struct eg_run r;
    eg_run(&r, b, NULL, argv);
    if (r.status != 0)
        fail_msg("%s %s: exit status %d, stderr:\n%s", argv[0], argv[1], r.status, r.err);
    free(r.err);
    return r.out;
}

void eg_cli_read(int fd, const char *expected) {
    size_t cap = strlen(expected) + 256, n = 0;
    char *got = calloc(1, cap);
    while (n < strlen(expected)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, EG_TEST_LIMIT_MS), 1);
        ssize_t r = read(fd, got + n, cap - 1 - n);
        assert_true(r > 0);
        n += (size_t)r;
        got[n] = '\0';
    }
    assert_string_equal(got, expected);
    free(got);
}
