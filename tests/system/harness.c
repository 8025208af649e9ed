#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char base[48]; /* "": not made yet */
static pid_t owner, guard;
static int guard_pipe = -1;

static int64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- cleaning up -------------------------------------------------------------------------------------- */

static bool file_names(pid_t pid, const char *file, const char *path) {
    char name[40], text[8192];
    snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, file);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool found = false;
    size_t kept = 0,
           length = strlen(path); /* the end of one read is looked at again with the next */
    for (ssize_t n; !found && (n = read(fd, text + kept, sizeof(text) - kept)) > 0;) {
        size_t all = kept + (size_t)n;
        found = memmem(text, all, path, length) != NULL;
        kept = all < length ? all : length;
        memmove(text, text + all - kept, kept);
    }
    close(fd);
    return found;
}

/* On its command line, or in the environment that it was started with (EAGRE_SOCKET, EG_TEST_DIR). */
static bool names(pid_t pid, const char *path) {
    return file_names(pid, "cmdline", path) || file_names(pid, "environ", path);
}

/* SIGKILL everybody who names this path. Repeated, for one may have just forked. */
static void kill_all(const char *path) {
    for (bool found = true; found;) {
        found = false;
        DIR *d = opendir("/proc");
        if (d == NULL)
            return;
        for (struct dirent *e; (e = readdir(d)) != NULL;) {
            pid_t pid = (pid_t)atoi(e->d_name);
            if (pid <= 0 || pid == getpid() || !names(pid, path))
                continue;
            found = true;
            kill(pid, SIGKILL);
            eg_wait_gone(pid);
        }
        closedir(d);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    remove(path);
    return 0;
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static void run_guard(int end) {
    char c;
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    for (int fd = 0; fd < 64; fd++) /* not to keep anybody's pipe open */
        if (fd != end)
            close(fd);
    while (read(end, &c, 1) < 0 && errno == EINTR) {}
    kill_all(base);
    remove_tree(base);
    _exit(0);
}

static void finish(void) {
    if (getpid() != owner) /* a fork child that calls exit() */
        return;
    close(guard_pipe);
    while (waitpid(guard, NULL, 0) < 0 && errno == EINTR) {}
}

static void make_base(void) {
    int ends[2];
    if (base[0] != '\0')
        return;
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL || tmp[0] != '/' ||
        strlen(tmp) > sizeof(base) - 11) /* sockets need short names */
        tmp = "/tmp";
    snprintf(base, sizeof(base), "%s/eg-XXXXXX", tmp);
    if (mkdtemp(base) == NULL || pipe2(ends, O_CLOEXEC) != 0)
        fail_msg("%s: %s", base, strerror(errno));
    setenv("EG_TEST_DIR", base, 1);   /* by which the guard knows whatever we start */
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* keepers become ours, so that we can reap them */
    signal(SIGPIPE, SIG_IGN);
    owner = getpid();
    guard = fork();
    if (guard == 0)
        run_guard(ends[0]);
    close(ends[0]);
    guard_pipe = ends[1];
    atexit(finish);
}

/* ---- processes ------------------------------------------------------------------------------------------- */

void eg_wait_gone(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n;
        while ((n = poll(&p, 1, EG_TEST_LIMIT_MS)) < 0 && errno == EINTR) {}
        close(fd);
        if (n == 0)
            fail_msg("process %d does not end", (int)pid);
    }
    waitpid(pid, NULL, WNOHANG); /* if it is ours */
}

static int decode(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int eg_wait_exit(pid_t pid) {
    int status;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    while ((n = poll(&p, 1, EG_TEST_LIMIT_MS)) < 0 && errno == EINTR) {}
    close(fd);
    if (n == 0)
        kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        fail_msg("waitpid(%d): %s", (int)pid, strerror(errno));
    if (n == 0)
        fail_msg("process %d did not end in %d ms", (int)pid, EG_TEST_LIMIT_MS);
    return decode(status);
}

size_t eg_count_fds(pid_t pid) {
    char path[40];
    size_t n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

void eg_wait_until(bool (*f)(void *ctx), void *ctx, const char *what) {
    int64_t deadline = now_ms() + EG_TEST_LIMIT_MS;
    while (!f(ctx)) {
        if (now_ms() > deadline)
            fail_msg("waited in vain: %s", what);
        poll(NULL, 0, 1); /* asks again; how often does not matter */
    }
}

static void as_fd(int fd, int number) {
    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    dup2(fd, number);
}

pid_t eg_spawn(const struct eg_test_bus *b, int in, int out, int err, const char *const *argv) {
    char program[512];
    make_base();
    snprintf(program, sizeof(program), "%s%s",
             strchr(argv[0], '/') != NULL ? "" : EG_TEST_BIN_DIR "/", argv[0]);
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    int fds[3];
    const int given[3] = {in, out, err};
    for (int i = 0; i < 3; i++) /* away from 0, 1, 2, which may be among them */
        fds[i] = given[i] < 0 ? -1 : fcntl(given[i], F_DUPFD_CLOEXEC, 10);
    for (int i = 0; i < 3; i++)
        as_fd(fds[i], i);
    if (b != NULL)
        setenv("EAGRE_SOCKET", b->socket, 1);
    signal(SIGPIPE, SIG_DFL);
    execv(program, (char *const *)argv);
    dprintf(2, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

static void drain(int *fd, char **text, size_t *length) {
    char *more = realloc(*text, *length + 65536 + 1);
    assert_non_null(more);
    *text = more;
    ssize_t n = read(*fd, more + *length, 65536);
    if (n > 0) {
        *length += (size_t)n;
    } else if (n == 0 || errno != EINTR) {
        close(*fd);
        *fd = -1;
    }
    more[*length] = '\0';
}

void eg_run(struct eg_run *r, const struct eg_test_bus *b, const char *input,
            const char *const *argv) {
    int in[2] = {-1, -1}, out[2], err[2];
    size_t left = input != NULL ? strlen(input) : 0;
    *r = (struct eg_run){0};
    if ((input != NULL && pipe2(in, O_CLOEXEC) != 0) || pipe2(out, O_CLOEXEC) != 0 ||
        pipe2(err, O_CLOEXEC) != 0)
        fail_msg("pipe: %s", strerror(errno));
    pid_t pid = eg_spawn(b, in[0], out[1], err[1], argv);
    if (input != NULL) {
        close(in[0]);
        fcntl(in[1], F_SETFL, O_NONBLOCK);
    }
    close(out[1]);
    close(err[1]);
    int64_t deadline = now_ms() + EG_TEST_LIMIT_MS;
    while (out[0] >= 0 || err[0] >= 0) {
        if (in[1] >= 0 && left == 0) {
            close(in[1]);
            in[1] = -1;
        }
        struct pollfd p[3] = {{.fd = out[0], .events = POLLIN},
                              {.fd = err[0], .events = POLLIN},
                              {.fd = in[1], .events = POLLOUT}};
        int64_t limit = deadline - now_ms();
        int n = poll(p, 3, limit > 0 ? (int)limit : 0);
        if (n == 0) {
            kill(pid, SIGKILL);
            deadline = now_ms() + EG_TEST_LIMIT_MS;
            continue;
        }
        if (p[0].revents != 0)
            drain(&out[0], &r->out, &r->out_length);
        if (p[1].revents != 0)
            drain(&err[0], &r->err, &r->err_length);
        if (p[2].revents != 0) {
            ssize_t w = write(in[1], input, left);
            if (w > 0) {
                input += w;
                left -= (size_t)w;
            } else if (w < 0 && errno != EAGAIN && errno != EINTR) {
                left = 0; /* it does not want to read more */
            }
        }
    }
    if (in[1] >= 0)
        close(in[1]);
    r->status = eg_wait_exit(pid);
}

void eg_run_free(struct eg_run *r) {
    free(r->out);
    free(r->err);
    *r = (struct eg_run){0};
}

/* ---- a bus ------------------------------------------------------------------------------------------------- */

void eg_bus_init(struct eg_test_bus *b) {
    static unsigned number;
    make_base();
    *b = (struct eg_test_bus){0};
    snprintf(b->dir, sizeof(b->dir), "%s/%u", base, number++);
    snprintf(b->data, sizeof(b->data), "%s/data", b->dir);
    snprintf(b->socket, sizeof(b->socket), "%s/s", b->dir);
    snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
    if (mkdir(b->dir, 0700) != 0)
        fail_msg("%s: %s", b->dir, strerror(errno));
}

int eg_bus_try_start(struct eg_test_bus *b, const char *const *environment,
                     const char *const *arguments) {
    const char *argv[40] = {"eagred",           "--dir",       b->data, "--socket", b->socket,
                            "--keeper=process", "--ready-fd=9"};
    size_t n = 7;
    int ready[2];
    char byte;
    assert_int_equal(b->pid, 0);
    for (; arguments != NULL && *arguments != NULL; arguments++) {
        assert_true(n < 39);
        argv[n++] = *arguments;
    }
    int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || pipe2(ready, O_CLOEXEC) != 0)
        fail_msg("%s: %s", b->log, strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("fork: %s", strerror(errno));
    if (pid == 0) {
        int high = fcntl(ready[1], F_DUPFD_CLOEXEC, 10);
        as_fd(-1, 0);
        as_fd(log, 1);
        as_fd(log, 2);
        dup2(high, 9);
        for (; environment != NULL && *environment != NULL; environment++)
            putenv((char *)(uintptr_t)*environment);
        signal(SIGPIPE, SIG_DFL);
        execv(EG_TEST_BIN_DIR "/eagred", (char *const *)argv);
        dprintf(2, EG_TEST_BIN_DIR "/eagred: %s\n", strerror(errno));
        _exit(127);
    }
    close(log);
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    int polled;
    while ((polled = poll(&p, 1, EG_TEST_LIMIT_MS)) < 0 && errno == EINTR) {}
    ssize_t got = polled > 0 ? read(ready[0], &byte, 1) : -1;
    close(ready[0]);
    if (got < 0)
        kill(pid, SIGKILL);
    if (got <= 0)
        return eg_wait_exit(pid);
    b->pid = pid;
    return 0;
}

void eg_bus_start(struct eg_test_bus *b, ...) {
    const char *arguments[32];
    size_t n = 0;
    va_list ap;
    va_start(ap, b);
    do {
        assert_true(n < 32);
        arguments[n] = va_arg(ap, const char *);
    } while (arguments[n++] != NULL);
    va_end(ap);
    int status = eg_bus_try_start(b, NULL, arguments);
    if (b->pid == 0) {
        char *log = eg_bus_log(b);
        print_error("%s", log);
        free(log);
        fail_msg("eagred did not start: exit status %d", status);
    }
}

int eg_bus_wait(struct eg_test_bus *b) {
    pid_t pid = b->pid;
    b->pid = 0;
    return eg_wait_exit(pid);
}

int eg_bus_stop(struct eg_test_bus *b) {
    pid_t keeper = eg_bus_keeper(b);
    kill(b->pid, SIGTERM);
    int status = eg_bus_wait(b);
    if (keeper > 0)
        eg_wait_gone(keeper);
    return status;
}

void eg_bus_kill(struct eg_test_bus *b) {
    kill(b->pid, SIGKILL);
    assert_int_equal(eg_bus_wait(b), 128 + SIGKILL);
}

pid_t eg_bus_keeper(const struct eg_test_bus *b) {
    char path[96];
    int pid = 0;
    snprintf(path, sizeof(path), "%s.keeper.pid", b->socket);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    if (fscanf(f, "%d", &pid) != 1)
        pid = 0;
    fclose(f);
    return pid;
}

char *eg_bus_log(const struct eg_test_bus *b) {
    FILE *f = fopen(b->log, "re");
    char *text = NULL;
    size_t cap = 0;
    if (f == NULL || getdelim(&text, &cap, '\0', f) < 0) {
        free(text);
        text = strdup("");
    }
    if (f != NULL)
        fclose(f);
    return text;
}

void eg_bus_remove(struct eg_test_bus *b) {
    if (b->dir[0] == '\0')
        return;
    char below[80];
    snprintf(below, sizeof(below), "%s/", b->dir);
    kill_all(below);
    if (b->pid > 0)
        waitpid(b->pid, NULL, 0);
    remove_tree(b->dir);
    *b = (struct eg_test_bus){0};
}

int eg_setup_bus_stopped(void **state) {
    struct eg_test_bus *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    *state = b;
    eg_bus_init(b);
    return 0;
}

int eg_setup_bus(void **state) {
    eg_setup_bus_stopped(state);
    eg_bus_start(*state, NULL);
    return 0;
}

int eg_teardown_bus(void **state) {
    struct eg_test_bus *b = *state;
    if (b != NULL)
        eg_bus_remove(b);
    free(b);
    *state = NULL;
    return 0;
}
