/*
 * sessions.h - connections on the control socket: framing, credentials, dispatch to handlers.
 */
#ifndef EG_SESSIONS_H
#define EG_SESSIONS_H

#include "proto/codec.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct eg_daemon;
struct eg_client; /* clients.h */

struct eg_session {
    struct eg_session *next;
    int fd;
    pid_t pid; /* SO_PEERCRED */
    uid_t uid;
    gid_t gid;
    bool greeted;             /* HELLO done */
    struct eg_client *client; /* after ATTACH; NULL */
    struct eg_account *account;
    uint32_t opened_uid; /* topic that its last request was granted, 0: none; and the role. Taken back */
    uint8_t opened_role; /* if the answer did not arrive */
    char name[64];            /* what it calls itself */
};

#define EG_REPLY_FDS 64

/* A handler decodes `in` (and checks eg_dec_end), encodes its reply's body to `out` (begun already)
 * and adds fds (borrowed: they are not closed). On failure it returns EAGRE_E_* with a detail and
 * the session layer sends that instead. */
struct eg_reply {
    struct eg_enc *out;
    int fds[EG_REPLY_FDS];
    bool close_after[EG_REPLY_FDS]; /* close that fd once it is sent */
    size_t nfds;
};
typedef int eg_handler(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                       struct eg_reply *r);

/* Filled in by the services that answer: one table in daemon/handlers.c. NULL: unsupported. */
eg_handler *eg_handler_of(uint16_t type);

void eg_session_closed(struct eg_daemon *d,
                       struct eg_session *s); /* clients.c: called before it is freed */

/* Hang up on a peer, at once; not from within a handler for its own session. */
void eg_session_close(struct eg_daemon *d, struct eg_session *s);

#endif
