#include "keep_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "lock.h"
#include "logger.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/fdpass.h"

#define ANSWER_MS 5000

int eg_keeper_connect(struct eg_keeper_link *l, const struct eg_config *c) {
    int sock;
    int rc = eg_keeper_dial(c->socket, &sock);
    if (rc != EAGRE_OK)
        return rc;

    /* Who could bind that path? Nobody but us and root, but this costs nothing. */
    struct ucred peer;
    socklen_t n = sizeof(peer);
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        close(sock);
        return eg_error_set(EAGRE_E_PERMISSION,
                            "%s" EG_KEEPER_SUFFIX " belongs to another user: remove it", c->socket);
    }
    *l = (struct eg_keeper_link){.sock = sock};
    return EAGRE_OK;
}

static int bind_listener(const struct eg_config *c, struct eg_keeper_place *p, int *fd_out) {
    int rc = eg_keeper_find_place(c->socket, p);
    if (rc != EAGRE_OK)
        return rc;
    unlinkat(p->directory, strrchr(p->path, '/') + 1,
             0); /* of a dead keeper: nobody answered there */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    if (fd < 0 || bind(fd, (struct sockaddr *)&p->address, sizeof(p->address)) != 0 ||
        listen(fd, 8) != 0) {
        rc = eg_error_set(EAGRE_E_SYSTEM, "%s: cannot make the keeper's socket: %s", p->path,
                          strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    umask(mask);
    close(p->directory);
    if (rc == EAGRE_OK)
        *fd_out = fd;
    return rc;
}

/* Beside eagred, or in ../libexec/eagre. */
static int find_program(char *buf, size_t cap) {
    static const char *const places[] = {"eagre-keeper", "../libexec/eagre/eagre-keeper"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        return eg_error_set(EAGRE_E_SYSTEM, "cannot find out where eagred lies: %s",
                            strerror(errno));
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(buf, cap, "%.3800s/%s", self, places[i]);
        if (access(buf, X_OK) == 0)
            return EAGRE_OK;
    }
    return eg_error_set(
        EAGRE_E_IO,
        "there is no eagre-keeper in %s or in %s/../libexec/eagre: install it, or give "
        "--keeper=none (then a crash of eagred loses what is in memory)",
        self, self);
}

/* After fork(): only calls that are safe there. Does not return. */
static void become_keeper(const char *program, const char *const *argv, int listener, int report) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setsid() < 0 || fork() != 0)
        _exit(0);
    int nothing = open("/dev/null", O_RDWR);
    /* The listener as 3, the report pipe (close-on-exec) as 4; neither may be overwritten before. */
    int high = fcntl(listener, F_DUPFD, 16);
    int pipe_end = fcntl(report, F_DUPFD_CLOEXEC, 16);
    if (nothing >= 0 && high >= 0 && pipe_end >= 0 && dup2(nothing, 0) == 0 &&
        dup2(nothing, 1) == 1 && dup2(nothing, 2) == 2 && dup2(high, 3) == 3 &&
        dup3(pipe_end, 4, O_CLOEXEC) == 4 && chdir("/") == 0) {
        syscall(SYS_close_range, 5u, ~0u,
                0u); /* all ours are close-on-exec; libraries' may not be */
        execv(program, (char *const *)argv);
        pipe_end = 4;
    }
    int e = errno;
    ssize_t ignored = write(pipe_end, &e, sizeof(e));
    (void)ignored;
    _exit(127);
}

int eg_keeper_start(struct eg_keeper_link *l, const struct eg_config *c) {
    char program[PATH_MAX], pid_file[PATH_MAX], linger[24];
    struct eg_keeper_place p;
    int listener, report[2], status, e = 0;

    int rc = find_program(program, sizeof(program));
    if (rc != EAGRE_OK)
        return rc;
    rc = bind_listener(c, &p, &listener);
    if (rc != EAGRE_OK)
        return rc;
    eg_side_path(c, EG_KEEPER_SUFFIX ".pid", pid_file, sizeof(pid_file));
    snprintf(linger, sizeof(linger), "%lld", (long long)c->keeper_linger_ms);
    const char *argv[] = {"eagre-keeper", "--listen-fd", "3",      "--socket",
                          p.path,         "--pid-file",  pid_file, "--idle-exit-ms",
                          linger,         NULL};
    if (pipe2(report, O_CLOEXEC) != 0) {
        close(listener);
        return eg_error_set(EAGRE_E_SYSTEM, "cannot start the keeper: pipe: %s", strerror(errno));
    }
    pid_t child = fork();
    if (child == 0)
        become_keeper(program, argv, listener, report[1]);
    int fork_errno = errno;
    close(listener);
    close(report[1]);
    if (child > 0) {
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        ssize_t n;
        while ((n = read(report[0], &e, sizeof(e))) < 0 && errno == EINTR) {}
        if (n == 0)
            e = 0; /* closed by exec: it runs */
    } else {
        e = fork_errno;
    }
    close(report[0]);
    if (e != 0)
        return eg_error_set(EAGRE_E_SYSTEM, "cannot start %s: %s", program, strerror(e));
    return eg_keeper_connect(l, c);
}

void eg_keeper_hang_up(struct eg_keeper_link *l) {
    if (l->sock >= 0)
        close(l->sock);
    *l = (struct eg_keeper_link){.sock = -1};
}

static int broken(struct eg_keeper_link *l, const char *why) {
    int rc = eg_error_set(EAGRE_E_CLOSED, "the keeper (pid %d) %s", (int)l->pid, why);
    eg_keeper_hang_up(l);
    return rc;
}

static int wait_readable(int sock) {
    int64_t deadline = eg_mono_ns() + ANSWER_MS * EG_NS_PER_MS;
    for (;;) {
        struct pollfd p = {.fd = sock, .events = POLLIN};
        int64_t left = (deadline - eg_mono_ns()) / EG_NS_PER_MS;
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n >= 0 || errno != EINTR)
            return n;
    }
}

int eg_keeper_ask(struct eg_keeper_link *l, struct eg_keeper_message *m, const int *fds,
                  size_t nfds, int *out_fds, size_t *out_nfds) {
    m->magic = EG_KEEPER_MAGIC;
    uint16_t op = m->op;
    size_t bytes = eg_keeper_message_bytes(op == EG_KEEPER_LIST ? 0 : m->count);
    if (eg_sendmsg_fds(l->sock, m, bytes, fds, nfds, 0) < 0) {
        if (errno == ETOOMANYREFS)
            return eg_error_set(EAGRE_E_LIMIT,
                                "too many descriptors are on their way: raise RLIMIT_NOFILE");
        return broken(l, "does not listen any more");
    }
    EG_FAULT("keep.sent");
    int readable = wait_readable(l->sock);
    if (readable <= 0) {
        /* It does nothing but answer, so something has stopped it for good. What it holds, we hold
         * too - unless we have just come: then nobody else has it, and it must not be ended. */
        if (l->pid > 0 && op != EG_KEEPER_LIST)
            kill(l->pid, SIGKILL);
        return broken(l, "does not answer");
    }
    bool cut;
    size_t got = 0;
    ssize_t n = eg_recvmsg_fds(l->sock, m, sizeof(*m), out_fds,
                               out_fds != NULL ? EG_KEEPER_BATCH : 0, &got, &cut, MSG_DONTWAIT);
    bool sound = eg_keeper_is_reply(m, n, op);
    if (n > 0 && (!sound || (op == EG_KEEPER_LIST ? got != m->count : got != 0))) {
        for (size_t i = 0; i < got; i++)
            close(out_fds[i]);
        if (sound && cut)
            return eg_error_set(EAGRE_E_LIMIT,
                                "the keeper holds more descriptors than this process may "
                                "have: raise RLIMIT_NOFILE (LimitNOFILE of the unit)");
    }
    if (!sound || (op == EG_KEEPER_LIST && got != m->count))
        return broken(l, n == 0 ? "has hung up" : "sent nonsense");
    EG_FAULT("keep.taken");
    l->pid = m->pid;
    if (m->status == EMFILE || m->status == ENOSPC)
        return eg_error_set(EAGRE_E_LIMIT, "the keeper cannot hold more descriptors: %s",
                            m->status == EMFILE ? "raise RLIMIT_NOFILE (LimitNOFILE of the unit)"
                                                : "65,536 are its limit");
    if (m->status != 0)
        return eg_error_set(EAGRE_E_INTERNAL, "the keeper refused: %s", strerror(m->status));
    if (out_nfds != NULL)
        *out_nfds = got;
    return EAGRE_OK;
}

void eg_keeper_remove_files(const struct eg_config *c) {
    char path[PATH_MAX];
    eg_side_path(c, EG_KEEPER_SUFFIX ".pid", path, sizeof(path));
    unlink(path);
    eg_side_path(c, EG_KEEPER_SUFFIX, path, sizeof(path));
    unlink(path);
}
