/* eagre up: a daemon in the background, as the user who calls. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

#define READY_LIMIT_MS 120000 /* recovery of many topics takes its time */
#define ARGS_MAX 70

struct up {
    const struct cli *c;
    char socket[PATH_MAX];
    char dir[PATH_MAX];
    char log[PATH_MAX];
    char program[PATH_MAX];
    char *args[ARGS_MAX + 1];
    size_t arg_count;
};

static char *joined(const char *a, const char *b, const char *c) {
    char *text = NULL;
    if (asprintf(&text, "%s%s%s", a, b, c) < 0)
        abort();
    return text;
}

/* The daemon works in "/", so that it keeps no file system busy. */
static int make_absolute(const struct cli *c, const char *path, char *out) {
    char cwd[PATH_MAX];
    int n;
    if (path[0] == '/') {
        n = snprintf(out, PATH_MAX, "%s", path);
    } else {
        if (getcwd(cwd, sizeof(cwd)) == NULL) {
            cli_error(c, "the current directory: %s", strerror(errno));
            return CLI_FAILED;
        }
        n = snprintf(out, PATH_MAX, "%s/%s", cwd, path);
    }
    if (n >= PATH_MAX)
        cli_usage(c, "%.60s...: the path is too long", path);
    return CLI_OK;
}

static const char *default_dir(const struct cli *c, char *buf, size_t cap) {
    const char *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    if (geteuid() == 0)
        return "/var/lib/eagre";
    if (data != NULL && data[0] == '/')
        snprintf(buf, cap, "%s/eagre", data);
    else if (home != NULL && home[0] == '/')
        snprintf(buf, cap, "%s/.local/share/eagre", home);
    else
        cli_usage(c, "$HOME is not set: say where with --dir");
    return buf;
}

static int make_directories(const struct cli *c, const char *path) {
    char part[PATH_MAX];
    for (size_t i = 1; path[i - 1] != '\0'; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            cli_error(c, "cannot create the directory %s: %s", part, strerror(errno));
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

/* Beside this program, else somewhere on $PATH. */
static void find_eagred(struct up *u) {
    ssize_t n = readlink("/proc/self/exe", u->program, sizeof(u->program) - sizeof("eagred"));
    while (n > 0 && u->program[n - 1] != '/')
        n--;
    if (n > 0) {
        memcpy(u->program + n, "eagred", sizeof("eagred"));
        if (access(u->program, X_OK) == 0)
            return;
    }
    snprintf(u->program, sizeof(u->program), "eagred");
}

static void add_arg(struct up *u, char *arg) {
    if (u->arg_count == ARGS_MAX)
        cli_usage(u->c, "more than %d settings", ARGS_MAX - 8);
    u->args[u->arg_count++] = arg;
}

static int parse(struct cli *c, int argc, char **argv, struct up *u) {
    enum { DIR_OPTION = 1, CONFIG_OPTION };
    static const struct option longs[] = {{"dir", required_argument, NULL, DIR_OPTION},
                                          {"config", required_argument, NULL, CONFIG_OPTION},
                                          {"set", required_argument, NULL, 'c'},
                                          CLI_COMMON_OPTIONS};
    char buf[PATH_MAX];
    const char *dir = NULL;
    u->c = c;
    add_arg(u, u->program);
    for (int o; (o = cli_getopt(c, argc, argv, ":hc:", longs)) != -1;) {
        if (o == DIR_OPTION) {
            dir = optarg;
        } else if (o == CONFIG_OPTION) {
            if (make_absolute(c, optarg, buf) != CLI_OK)
                return CLI_FAILED;
            add_arg(u, joined("--config", "=", buf));
        } else {
            if (strchr(optarg, '=') == NULL)
                cli_usage(c, "-c %s: a setting is NAME=VALUE", optarg);
            add_arg(u, joined("--", optarg, ""));
        }
    }
    if (optind < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind]);
    if (dir == NULL)
        dir = default_dir(c, buf, sizeof(buf));
    if (make_absolute(c, dir, u->dir) != CLI_OK)
        return CLI_FAILED;
    if (c->socket == NULL) {
        if (eagre_default_socket(buf, sizeof(buf)) != EAGRE_OK)
            return cli_fail(c, EAGRE_E_INVALID);
        c->socket = buf;
    }
    int code = make_absolute(c, c->socket, u->socket);
    c->socket = u->socket;
    add_arg(u, joined("--dir", "=", u->dir));
    add_arg(u, joined("--socket", "=", u->socket));
    return code;
}

/* ---- the child ------------------------------------------------------------------------------------ */

/* Become the daemon; returns only if that fails. */
static void become_eagred(struct up *u, int log, int ready) {
    char fd[16];
    int null = open("/dev/null", O_RDONLY);
    setsid();
    if (null < 0 || chdir("/") != 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 ||
        dup2(ready, 3) < 0)
        return;
    fcntl(3, F_SETFD, 0); /* where it was 3 already */
    close_range(4, ~0u, 0);
    snprintf(fd, sizeof(fd), "%d", 3);
    add_arg(u, joined("--ready-fd", "=", fd));
    execvp(u->program, u->args);
    fprintf(stderr, "eagre: cannot run %s: %s\n", u->program, strerror(errno));
}

/* What it said since `from`, for who waits at the terminal. */
static void show_log(const struct up *u, off_t from) {
    char line[1024];
    FILE *f = fopen(u->log, "re");
    if (f == NULL)
        return;
    fseeko(f, from, SEEK_SET);
    while (fgets(line, sizeof(line), f) != NULL)
        fprintf(stderr, "  %s", line);
    fclose(f);
}

/* One byte from the daemon when it listens; the end of the pipe when it died before. */
static int wait_until_ready(const struct up *u, pid_t child, int ready, off_t log_from) {
    struct pollfd p = {.fd = ready, .events = POLLIN};
    char byte;
    int n;
    do
        n = poll(&p, 1, READY_LIMIT_MS);
    while (n < 0 && errno == EINTR);
    if (n == 0) {
        cli_error(u->c, "eagred (pid %d) is not ready after %d s and goes on; see %s", (int)child,
                  READY_LIMIT_MS / 1000, u->log);
        return CLI_FAILED;
    }
    if (read(ready, &byte, 1) == 1)
        return CLI_OK;
    int status = 0;
    waitpid(child, &status, 0);
    cli_error(u->c, "eagred did not start (%s %d):", WIFSIGNALED(status) ? "signal" : "exit status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    show_log(u, log_from);
    return CLI_FAILED;
}

static int start(struct up *u) {
    int ready[2];
    struct stat st;
    if (snprintf(u->log, sizeof(u->log), "%s/eagred.log", u->dir) >= (int)sizeof(u->log))
        cli_usage(u->c, "%.60s...: the path is too long", u->dir);
    int code = make_directories(u->c, u->dir);
    if (code != CLI_OK)
        return code;
    int log = open(u->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || fstat(log, &st) != 0) {
        cli_error(u->c, "%s: %s", u->log, strerror(errno));
        return CLI_FAILED;
    }
    find_eagred(u);
    if (pipe2(ready, O_CLOEXEC) != 0) {
        cli_error(u->c, "pipe: %s", strerror(errno));
        close(log);
        return CLI_FAILED;
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        become_eagred(u, log, ready[1]);
        _exit(127);
    }
    close(ready[1]);
    close(log);
    if (child < 0) {
        cli_error(u->c, "fork: %s", strerror(errno));
        code = CLI_FAILED;
    } else {
        code = wait_until_ready(u, child, ready[0], st.st_size);
    }
    close(ready[0]);
    return code;
}

int cmd_up(struct cli *c, int argc, char **argv) {
    static struct up u;
    eagre_t *e;
    int code = parse(c, argc, argv, &u);
    if (code != CLI_OK)
        return code;
    const char *how = "answers already";
    int rc = eagre_open(u.socket, &e);
    if (rc == EAGRE_E_NO_DAEMON) {
        how = "is up";
        code = start(&u);
        if (code == CLI_OK)
            rc = eagre_open(u.socket, &e);
    }
    if (code == CLI_OK && rc != EAGRE_OK)
        code = cli_fail(c, rc);
    if (code == CLI_OK) {
        printf("eagred %s: socket %s, pid %d\n", how, u.socket, (int)eagre_daemon_pid(e));
        eagre_close(e);
    }
    for (size_t i = 1; i < u.arg_count; i++)
        free(u.args[i]);
    return code;
}
