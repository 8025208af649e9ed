/*
 * exchange.h - requests and replies on the control socket. A caller may go away before its reply comes and
 * come back for it later, so replies are kept apart by their ids. All of it with the instance's lock held.
 */
#ifndef EG_CLIENT_EXCHANGE_H
#define EG_CLIENT_EXCHANGE_H

#include "client/session.h"
#include "sys/fdpass.h"

/* A request that was sent, and its reply. */
struct eg_late {
    struct eg_late *next; /* of those that wait for a reply */
    uint32_t id;
    uint16_t type;
    uint8_t role;    /* of OPEN; of GROUP_JOIN: how its member leaves, if nobody comes for it */
    bool waits;      /* in the list */
    bool given_up;   /* nobody comes for it: it is freed when it comes */
    int64_t sent_ns; /* monotonic */

    /* When it does not wait any more: */
    int rc; /* EAGRE_OK: there is a reply */
    uint32_t generation;
    uint8_t *data;
    size_t n;
    int fds[EG_FDPASS_MAX];
    size_t nfds;
};

/* Send. EAGRE_E_NO_DAEMON (and then there is no connection any more), EAGRE_E_TIMED_OUT (it takes no more
 * requests), EAGRE_E_NO_MEMORY. */
int eg_late_send(struct eagre *e, struct eg_enc *req, int64_t deadline_ns, struct eg_late **out);

/* Until its reply has come, or never will (EAGRE_OK), or the deadline is over (EAGRE_E_WOULD_BLOCK). */
int eg_late_wait(struct eagre *e, struct eg_late *l, int64_t deadline_ns);

/* The reply of one that does not wait; it is freed. Status and descriptors as eg_session_request. */
int eg_late_take(struct eagre *e, struct eg_late *l, void *buf, size_t cap, struct eg_dec *reply,
                 int *fds, size_t fds_cap, size_t *nfds);

/* Nobody comes for it. What it brings is closed, and given back if the daemon counts it. NULL is fine. */
void eg_late_give_up(struct eagre *e, struct eg_late *l);

/* Give back what an OPEN, BELL or GROUP_JOIN gave: RELEASE, BELL_FREE or GROUP_LEAVE (role: how). Fails if it cannot be
 * sent now. */
int eg_late_return(struct eagre *e, uint16_t type, uint8_t role, uint64_t number, struct eg_late **out);

/* It is none of ours any more. False: it was not. */
bool eg_late_forget_member(struct eagre *e, uint64_t member);

/* Take what has come, without waiting. False: the connection is gone. */
bool eg_late_drain(struct eagre *e);

/* Is the daemon late with an answer that nobody waits for? Then it is no use to wait for another. */
bool eg_late_overdue(const struct eagre *e);

/* Close the connection: no reply will come. */
void eg_late_disconnect(struct eagre *e);

#endif
