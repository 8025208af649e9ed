/*
 * liveness.c - see liveness.h.
 */
#include "sys/liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/errbuf.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5; newer than some C libraries */
#endif

/*
 * /proc/PID/stat is "PID (comm) S ppid ...", where comm may hold anything, blanks and ')' included:
 * so the last ')' ends it. The start time is the 20th word from there.
 */
static bool parse_start_time(const char *stat, uint64_t *ticks_out) {
    const char *p = strrchr(stat, ')');
    for (int field = 2; p != NULL && field < 22; field++) {
        p = strchr(p + 1, ' ');
    }
    if (p == NULL || p[1] < '0' || p[1] > '9') {
        return false;
    }
    *ticks_out = strtoull(p + 1, NULL, 10);
    return true;
}

int eg_process_start_time(pid_t pid, uint64_t *ticks_out) {
    char path[64];
    char stat[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return eg_error_set(EAGRE_E_SYSTEM, "%s: %s", path, strerror(errno));
    }
    ssize_t n = read(fd, stat, sizeof stat - 1);
    int error = errno; /* ESRCH: the process ended in between */
    (void)close(fd);
    if (n < 0) {
        return eg_error_set(EAGRE_E_SYSTEM, "%s: %s", path, strerror(error));
    }
    stat[n] = '\0';
    if (!parse_start_time(stat, ticks_out)) {
        return eg_error_set(EAGRE_E_SYSTEM, "%s: no start time in it", path);
    }
    return EAGRE_OK;
}

static int open_pidfd(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int eg_pidfd_of_peer(int sock, pid_t pid) {
    int fd;
    socklen_t len = sizeof fd;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0) {
        return fd;
    }
    if (errno == ENOPROTOOPT) {
        return open_pidfd(pid);
    }
    /* The option is known, but the peer is reaped, and its pid may be another's by now. */
    if (errno == EINVAL || errno == ENODATA) {
        errno = ESRCH;
    }
    return -1;
}

bool eg_pidfd_is_dead(int pidfd) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;
    do {
        n = poll(&p, 1, 0);
    } while (n < 0 && errno == EINTR);
    return n == 1 && (p.revents & POLLIN) != 0;
}

bool eg_process_is_gone(pid_t pid, uint64_t start_ticks) {
    uint64_t ticks;
    /* The pidfd comes first: what is read below is then about this process or a later one. */
    int pidfd = open_pidfd(pid);
    if (pidfd < 0) {
        return errno == ESRCH || (kill(pid, 0) != 0 && errno == ESRCH);
    }
    bool gone = eg_pidfd_is_dead(pidfd) ||
                (eg_process_start_time(pid, &ticks) == EAGRE_OK && ticks != start_ticks);
    (void)close(pidfd);
    return gone;
}

static struct flock page_lock(void) {
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
}

int eg_page_lock(int fd) {
    struct flock lock = page_lock();
    if (fcntl(fd, F_SETLK, &lock) == 0) {
        return EAGRE_OK;
    }
    if (errno == EAGAIN || errno == EACCES) {
        return eg_error_set(EAGRE_E_BUSY, "client page: another process holds its lock");
    }
    return eg_error_set(EAGRE_E_SYSTEM, "client page: cannot lock it: %s", strerror(errno));
}

bool eg_page_lock_is_free(int fd) {
    struct flock lock = page_lock();
    return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}
