#include "harness_cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
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

/* ---- what runs beside the test ---- */

int eg_cli_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

void eg_cli_start(struct eg_cli_child *m, const struct eg_test_bus *b, const char *name, const char *const *argv) {
    snprintf(m->out, sizeof(m->out), "%s/%s.out", b->dir, name);
    snprintf(m->err, sizeof(m->err), "%s/%s.err", b->dir, name);
    int out = eg_cli_file(m->out), err = eg_cli_file(m->err);
    m->pid = eg_spawn(b, -1, out, err, argv);
    close(out);
    close(err);
}

void eg_cli_interrupt(const struct eg_cli_child *m) {
    kill(m->pid, SIGINT);
    assert_int_equal(eg_wait_exit(m->pid), 130);
}

char *eg_cli_text_of(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t cap = 1 << 20, n = 0;
    char *text = malloc(cap);
    assert_true(fd >= 0 && text != NULL);
    for (ssize_t got; n < cap - 1 && (got = read(fd, text + n, cap - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(fd);
    return text;
}

bool eg_cli_has(const char *path, const char *what) {
    char *text = eg_cli_text_of(path);
    bool found = strstr(text, what) != NULL;
    free(text);
    return found;
}

struct hope {
    const char *path, *what; /* a file has it */
    const struct eg_test_bus *b;
    const char *const *argv; /* or what a command prints */
};

static bool came_true(void *ctx) {
    const struct hope *h = ctx;
    struct eg_run r;
    if (h->path != NULL)
        return eg_cli_has(h->path, h->what);
    eg_run(&r, h->b, NULL, h->argv);
    bool found = strstr(r.out, h->what) != NULL;
    eg_run_free(&r);
    return found;
}

void eg_cli_wait_file(const char *path, const char *what) {
    struct hope h = {.path = path, .what = what};
    eg_wait_until(came_true, &h, what);
}

void eg_cli_wait(const struct eg_test_bus *b, const char *what, const char *const *argv) {
    struct hope h = {.what = what, .b = b, .argv = argv};
    eg_wait_until(came_true, &h, what);
}
