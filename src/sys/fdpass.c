/*
 * fdpass.c - see fdpass.h.
 */
#include "sys/fdpass.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* A buffer for EG_FDPASS_MAX descriptors, aligned for its headers. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(EG_FDPASS_MAX * sizeof(int))];
};

ssize_t eg_sendmsg_fds(int sock, const void *buf, size_t n, const int *fds, size_t nfds,
                       int flags) {
    if (nfds > EG_FDPASS_MAX) {
        errno = EINVAL;
        return -1;
    }
    union control control;
    memset(&control, 0, sizeof control);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (nfds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

/* Move the descriptors of one SCM_RIGHTS block to fds; false if some had to be closed. */
static bool take_fds(struct cmsghdr *c, int *fds, size_t fds_cap, size_t *nfds) {
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    bool all = true;
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (*nfds < fds_cap) {
            fds[(*nfds)++] = fd;
        } else {
            (void)close(fd);
            all = false;
        }
    }
    return all;
}

ssize_t eg_recvmsg_fds(int sock, void *buf, size_t cap, int *fds, size_t fds_cap, size_t *nfds,
                       bool *truncated, int flags) {
    union control control;
    struct iovec iov = {.iov_base = buf, .iov_len = cap};
    struct msghdr msg;
    ssize_t got;
    *nfds = 0;
    *truncated = false;
    do {
        msg = (struct msghdr){.msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes};
        got = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return -1;
    }
    *truncated = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            !take_fds(c, fds, fds_cap, nfds)) {
            *truncated = true;
        }
    }
    return got;
}
