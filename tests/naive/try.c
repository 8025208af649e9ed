/* Lists run in a child each, so that a crash or a hang is a failure like others; and are shrunk. */
#include "naive/naive.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES_MAX 20000u

static void child(const struct naive_list *l, int fd, bool quiet) {
    static const struct rlimit none;
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    (void)setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < sizeof(crashes) / sizeof(*crashes); i++)
        (void)signal(crashes[i], SIG_DFL); /* cmocka's would go on with the next test here */
    if (quiet && freopen("/dev/null", "w", stderr) == NULL)
        _exit(3);
    naive_run(l, fd);
    _exit(0);
}

static bool try(const struct naive_list *l, char text[NAIVE_TEXT], bool quiet) {
    int ends[2], status;
    (void)fflush(NULL);
    if (pipe(ends) != 0)
        abort();
    pid_t pid = fork();
    if (pid == 0)
        child(l, ends[1], quiet);
    (void)close(ends[1]);
    ssize_t n = read(ends[0], text, NAIVE_TEXT - 1);
    text[n > 0 ? n : 0] = '\0';
    (void)close(ends[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (text[0] == '\0')
        (void)snprintf(text, NAIVE_TEXT,
                       WIFSIGNALED(status) ? "it ended by signal %d" : "it ended with exit code %d",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

bool naive_try(const struct naive_list *l, char text[NAIVE_TEXT]) { return try(l, text, false); }

/* ---- shrinking -------------------------------------------------------------------------------------- */

struct shrink {
    struct naive_list *l;
    char *text;
    uint32_t tries;
};

static bool still_fails(struct shrink *s, const struct naive_list *l) {
    char text[NAIVE_TEXT];
    if (s->tries++ >= TRIES_MAX || try(l, text, true))
        return false;
    memcpy(s->text, text, NAIVE_TEXT);
    return true;
}

/* Without count ops from `at`? */
static bool drop(struct shrink *s, size_t at, size_t count) {
    struct naive_list less;
    naive_copy(&less, s->l);
    memmove(less.op + at, less.op + at + count, (less.count - at - count) * sizeof(*less.op));
    less.count -= count;
    bool good = still_fails(s, &less);
    if (good) {
        memcpy(s->l->op, less.op, less.count * sizeof(*less.op));
        s->l->count = less.count;
    }
    naive_free(&less);
    return good;
}

static bool drop_some(struct shrink *s) {
    bool any = false;
    for (size_t size = (s->l->count + 1) / 2; size > 0; size /= 2)
        for (size_t at = 0; at + size <= s->l->count;)
            if (drop(s, at, size))
                any = true;
            else
                at += size;
    return any;
}

/* The least value: a very small one, or by halving the way down from what fails. */
static bool lower(struct shrink *s, uint32_t *value, uint32_t least) {
    uint32_t before = *value;
    for (*value = least; *value < before && *value < least + 8; ++*value)
        if (still_fails(s, s->l))
            return true;
    *value = before;
    for (uint32_t step = before - least; step > 0; step /= 2)
        while (*value - least >= step) {
            *value -= step;
            if (!still_fails(s, s->l)) {
                *value += step;
                break;
            }
        }
    return *value != before;
}

/* Whatever `from` does, `to` does it. */
static bool rename_who(struct shrink *s, uint32_t from, uint32_t to) {
    struct naive_list other;
    naive_copy(&other, s->l);
    bool any = false;
    for (size_t i = 0; i < other.count; i++)
        if (other.op[i].who == from) {
            other.op[i].who = to;
            any = true;
        }
    any = any && still_fails(s, &other);
    if (any)
        memcpy(s->l->op, other.op, other.count * sizeof(*other.op));
    naive_free(&other);
    return any;
}

static bool lower_some(struct shrink *s) {
    bool any = rename_who(s, 2, 0);
    any |= rename_who(s, 1, 0);
    any |= rename_who(s, 2, 1);
    for (size_t i = 0; i < s->l->count; i++) {
        struct naive_op *op = &s->l->op[i];
        any |= lower(s, &op->size, 0);
        any |= lower(s, &op->what, 0);
        any |= lower(s, &op->who, 0);
    }
    any |= lower(s, &s->l->single, 0);
    any |= lower(s, &s->l->slots, 3);
    for (uint32_t *v = &s->l->align; *v > 8; any = true) {
        *v /= 2;
        if (!still_fails(s, s->l)) {
            *v *= 2;
            break;
        }
    }
    for (uint32_t *v = &s->l->capacity; *v > 65536; any = true) {
        *v /= 2;
        if (!still_fails(s, s->l)) {
            *v *= 2;
            break;
        }
    }
    return any;
}

void naive_shrink(struct naive_list *l, char text[NAIVE_TEXT]) {
    struct shrink s = {l, text, 0};
    bool any = true;
    while (any && s.tries < TRIES_MAX) {
        any = drop_some(&s);
        any |= lower_some(&s);
    }
}
