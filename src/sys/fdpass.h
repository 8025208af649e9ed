/*
 * fdpass.h - messages with file descriptors over a SOCK_SEQPACKET Unix socket.
 */
#ifndef EG_SYS_FDPASS_H
#define EG_SYS_FDPASS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define EG_FDPASS_MAX 64 /* descriptors in a message */

/*
 * Send n bytes and nfds descriptors as one message. As sendmsg(2): the bytes sent or -1 with
 * errno, never SIGPIPE; EINTR is retried; EINVAL if nfds > EG_FDPASS_MAX. The caller keeps its
 * descriptors.
 */
ssize_t eg_sendmsg_fds(int sock, const void *buf, size_t n, const int *fds, size_t nfds, int flags);

/*
 * Receive one message. As recvmsg(2): bytes received, 0 at the end (or for an empty message), -1
 * with errno; EINTR is retried. *nfds descriptors, close-on-exec and now the caller's, are in fds;
 * what goes beyond fds_cap is closed. *truncated: bytes or descriptors were lost, so the message
 * must not be believed; the descriptors that are there still need to be closed.
 */
ssize_t eg_recvmsg_fds(int sock, void *buf, size_t cap, int *fds, size_t fds_cap, size_t *nfds,
                       bool *truncated, int flags);

#endif
