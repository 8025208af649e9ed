/*
 * eagre-keeper - holds the bus's memory while no daemon runs, and does nothing else. It trusts its
 * daemon (same user, socket of mode 0600) but no other process, allocates nothing, and ends only
 * when told: by its daemon, by SIGTERM, or when no daemon came for --idle-exit-ms.
 *
 * eagre-keeper --listen-fd N --socket PATH --pid-file PATH [--idle-exit-ms N]
 * The socket on N is bound and listens already, so that its daemon can connect at once.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/fdpass.h"
#include "table.h"

static struct eg_kept_table table;
static int listener = -1, daemon_fd = -1;
static const char *socket_path, *pid_file;
static volatile sig_atomic_t told_to_end;

static void on_term(int signal_number) {
    (void)signal_number;
    told_to_end = 1;
}

static void close_fds(const int *fds, size_t n) {
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

static void drop(uint32_t i) {
    close(table.entry[i].fd);
    eg_kept_remove(&table, i);
}

static int32_t put(const char *name, int fd) {
    uint32_t i = eg_kept_find(&table, name);
    if (i != 0) {
        close(table.entry[i].fd);
        table.entry[i].fd = fd;
        return 0;
    }
    return eg_kept_add(&table, name, fd) != 0 ? 0 : ENOSPC;
}

static bool names_are_sound(struct eg_keeper_message *m) {
    for (uint16_t i = 0; i < m->count; i++)
        if (m->names[i][0] == '\0' || memchr(m->names[i], '\0', EG_KEPT_NAME) == NULL)
            return false;
    return true;
}

/* Turns the request m into its reply; fds likewise. Returns the number of fds to send. */
static size_t answer(struct eg_keeper_message *m, int *fds, size_t nfds, bool cut) {
    size_t out = 0;
    uint16_t done = 0;
    m->status = 0;
    m->pid = (int32_t)getpid();
    if (!names_are_sound(m) || (m->op != EG_KEEPER_PUT && nfds > 0)) {
        close_fds(fds, nfds);
        m->status = EINVAL;
        m->count = 0;
        return 0;
    }
    switch (m->op) {
    case EG_KEEPER_PUT:
        if (cut || nfds != m->count) { /* cut: this process cannot have more descriptors */
            close_fds(fds, nfds);
            m->status = cut ? EMFILE : EINVAL;
            break;
        }
        while (done < nfds && (m->status = put(m->names[done], fds[done])) == 0)
            done++;
        close_fds(fds + done, nfds - done);
        break;
    case EG_KEEPER_DROP:
        for (uint16_t i = 0; i < m->count; i++) {
            uint32_t entry = eg_kept_find(&table, m->names[i]);
            if (entry != 0) {
                drop(entry);
                done++;
            }
        }
        break;
    case EG_KEEPER_LIST: {
        uint32_t i = m->from + 1;
        for (; i <= table.used && out < EG_KEEPER_BATCH; i++) {
            if (table.entry[i].name[0] == '\0')
                continue;
            memcpy(m->names[out], table.entry[i].name, EG_KEPT_NAME);
            fds[out++] = table.entry[i].fd;
        }
        m->from = i <= table.used ? i - 1 : 0;
        m->count = (uint16_t)out;
        return out;
    }
    case EG_KEEPER_STOP:
        told_to_end = 1;
        break;
    default:
        m->status = ENOSYS;
    }
    m->count = done;
    return 0;
}

static void hang_up(void) {
    close(daemon_fd);
    daemon_fd = -1;
}

static void serve(void) {
    static struct eg_keeper_message m;
    int fds[EG_FDPASS_MAX];
    size_t nfds;
    bool cut;
    ssize_t n =
        eg_recvmsg_fds(daemon_fd, &m, sizeof(m), fds, EG_FDPASS_MAX, &nfds, &cut, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < (ssize_t)eg_keeper_message_bytes(0) || m.magic != EG_KEEPER_MAGIC ||
        m.count > EG_KEEPER_BATCH || (size_t)n != eg_keeper_message_bytes(m.count)) {
        if (n >= 0) /* an empty message can bring some, too */
            close_fds(fds, nfds);
        hang_up();
        return;
    }
    bool list = m.op == EG_KEEPER_LIST;
    size_t out = answer(&m, fds, nfds, cut);
    if (eg_sendmsg_fds(daemon_fd, &m, eg_keeper_message_bytes(list ? m.count : 0), fds, out,
                       MSG_DONTWAIT) < 0)
        hang_up();
}

/* Our own user or root. One at a time: a successor waits in the queue until its predecessor is gone. */
static void welcome(void) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct ucred peer;
    socklen_t n = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0)) {
        close(fd);
        return;
    }
    daemon_fd = fd;
}

static void write_pid_file(void) {
    FILE *f = fopen(pid_file, "we");
    if (f == NULL)
        return; /* for people and scripts; nothing depends on it */
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

/* Only what is ours: another keeper may have taken our place. */
static void remove_files(void) {
    int pid = 0;
    FILE *f = fopen(pid_file, "re");
    if (f == NULL)
        return;
    if (fscanf(f, "%d", &pid) == 1 && pid == (int)getpid()) {
        unlink(pid_file);
        unlink(socket_path);
    }
    fclose(f);
}

static void set_up_process(void) {
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    struct sigaction term = {.sa_handler = on_term};
    sigaction(SIGTERM, &term, NULL);
    sigset_t blocked; /* but in ppoll(), so that none is lost between test and sleep */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_SETMASK, &blocked, NULL);

    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int usage(void) {
    fputs("usage: eagre-keeper --listen-fd N --socket PATH --pid-file PATH [--idle-exit-ms N]\n"
          "eagred starts it. It keeps the memory of the bus while no eagred runs.\n",
          stderr);
    return 2;
}

#define FIRST_DAEMON_MS 10000

int main(int argc, char **argv) {
    long long idle_exit_ms = -1;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value == NULL)
            return usage();
        if (strcmp(argv[i], "--listen-fd") == 0)
            listener = atoi(value);
        else if (strcmp(argv[i], "--socket") == 0)
            socket_path = value;
        else if (strcmp(argv[i], "--pid-file") == 0)
            pid_file = value;
        else if (strcmp(argv[i], "--idle-exit-ms") == 0)
            idle_exit_ms = atoll(value);
        else
            return usage();
    }
    if (listener < 0 || socket_path == NULL || pid_file == NULL)
        return usage();
    set_up_process();
    write_pid_file();

    bool met = false; /* a daemon: the first one gets its time, however short the limit is */
    while (!told_to_end) {
        bool idle = daemon_fd < 0;
        met = met || !idle;
        long long limit_ms = met || idle_exit_ms > FIRST_DAEMON_MS ? idle_exit_ms : FIRST_DAEMON_MS;
        struct pollfd watched = {.fd = idle ? listener : daemon_fd, .events = POLLIN};
        struct timespec limit = {limit_ms / 1000, limit_ms % 1000 * 1000000};
        sigset_t none;
        sigemptyset(&none);
        int n = ppoll(&watched, 1, idle && idle_exit_ms >= 0 ? &limit : NULL, &none);
        if (n == 0)
            break;
        if (n > 0 && idle)
            welcome();
        else if (n > 0)
            serve();
    }
    remove_files();
    return 0;
}
