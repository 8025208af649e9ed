/*
 * session.h - an instance: the connection to the daemon, and what this process is to it.
 *
 * An instance connects and greets (HELLO) when it is opened. It becomes a client - an owner number,
 * a page of pins, bells - with its first producer or consumer. When the daemon goes away, handles go
 * on in what they have mapped; the next request or eg_session_check() connects again. The daemon
 * may then be
 *   - a successor on the same memory (same instance id, epoch + 1): all mappings are still the
 *     right ones, the owner number is taken up again with its cookie;
 *   - another instance (the memory is new): `generation` grows. bus, page and bells have by then
 *     been replaced at their addresses, so pin cells stay valid pointers; bells must be got anew and
 *     topics reopened (eg_topic_reopen) by whoever holds them.
 *
 * `lock` guards the socket and the tables; no function here is called with it held. Everything a
 * handle's fast path reads (bus, page, bells, full_fence, fork_guard) is constant once
 * eg_client_attach or eg_topic_open returned.
 */
#ifndef EG_CLIENT_SESSION_H
#define EG_CLIENT_SESSION_H

#include "eagre/eagre.h"
#include "layout/layout.h"
#include "proto/codec.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

/* How long a request may take in all, reconnecting included: 10 s. A test may have less patience. */
extern int64_t eg_request_limit_ns;

/* Who cannot wait so long still waits so long, once for each request and only as far as its own timeout goes: a
 * daemon that is well answers sooner. */
#define EG_PATIENCE_NS 20000000ll

struct eg_late;

/* Handles that are open on a topic: what a daemon is told that takes us up again. */
struct eg_held {
    uint32_t topic_uid;
    uint16_t producers, consumers;
};

enum eg_stage {
    EG_OFFLINE = 0, /* no connection */
    EG_GREETING,    /* HELLO is sent */
    EG_ATTACHING,   /* ATTACH is sent: a client that reconnects */
    EG_ONLINE
};

struct eagre {
    pthread_mutex_t lock;
    const uint32_t *fork_guard; /* reads 0 in a fork child */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

    int sock; /* -1: no connection */
    enum eg_stage stage;
    uint32_t next_id;      /* of requests */
    struct eg_late *late;  /* requests that wait for their replies, in order; see exchange.h */
    struct eg_late *step;  /* the one that connecting waits for */
    int64_t connect_ns;    /* when it began to connect (monotonic) */
    int64_t retry_ns;      /* eg_session_check does not try to connect before */
    _Atomic int64_t away_ns; /* since when no daemon has answered (monotonic); 0: one does */
    int32_t peer_pid;      /* of who listens at the socket; 0: unknown */
    struct {               /* what HELLO said, until we are online */
        uint64_t instance_id;
        uint32_t epoch;
        uint32_t pid;
        struct eg_bus *bus; /* of another instance than e->bus, or NULL */
    } greeting;
    uint64_t instance_id;
    uint32_t epoch; /* of the daemon that we greeted last */
    _Atomic uint32_t daemon_pid;
    const struct eg_bus *bus;

    uint32_t owner; /* 0: not a client yet */
    uint64_t cookie;
    struct eg_client_page *page;
    int page_fd;               /* carries the lock that says we live: never close a copy of it */
    struct eg_bells *bells_ro; /* once a client */
    struct eg_bells *bells_rw; /* once it has had a producer */
    uint32_t bells_rw_generation;
    uint64_t pins_used[EG_CLIENT_PINS / 64];
    struct eg_held *held;
    size_t held_count;
    uint64_t *members; /* of groups, that our consumers are */
    size_t member_count;

    bool full_fence; /* membarrier not registered here, or the bus says EG_BUS_NO_MEMBARRIER: pins
                        and wake-ups need a full fence. Valid once a client */
    _Atomic uint32_t generation; /* + 1 when a reconnect found another instance */
    _Atomic uint32_t handles;    /* open producers and consumers; eagre_close refuses above 0 */
    uint8_t in[EG_MSG_MAX];      /* a message as it comes */
};

/* EAGRE_E_FORKED, with a detail, in a fork child. Every entry of the public API asks first. */
int eg_session_forked(const struct eagre *e);

/* Close a descriptor that a handle of e holds; -1 is fine. In a fork child it stays: there the number may be
 * another's by now (a daemon closes all that it inherited, and opens its own). */
void eg_session_close_fd(const struct eagre *e, int fd);

/*
 * Send a request (begun by eg_enc_begin; its id is filled in here) and wait for the reply, whose
 * body `reply` then reads from reply_buf. A failure that the daemon reported is returned with its
 * text as the detail. Connects again, once, if there is no connection; eg_request_limit_ns in all, then
 * EAGRE_E_TIMED_OUT; a reply that comes after that is given back. Received descriptors go to fds (the caller
 * owns them; *nfds of them; nfds NULL: none expected). On failure there are none.
 */
int eg_session_request(struct eagre *e, struct eg_enc *req, void *reply_buf, size_t reply_cap,
                       struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds);

/*
 * The same for who has less time: until_ns (monotonic; in the past: without waiting). *late is NULL at first.
 * EAGRE_E_WOULD_BLOCK: not answered yet; *late remembers the request, so call again with the same one, or
 * eg_session_give_up. *generation (may be NULL): of the instance that answered.
 */
int eg_session_request_late(struct eagre *e, struct eg_late **late, struct eg_enc *req, void *reply_buf,
                            size_t reply_cap, struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                            int64_t until_ns, uint32_t *generation);
void eg_session_give_up(struct eagre *e, struct eg_late **late);

/* What an EAGRE_E_WOULD_BLOCK of the above becomes for a call that has no timeout of its own. */
int eg_session_timed_out(const struct eagre *e);

/* When a request that is (or will be) under way is not worth waiting for any more. */
int64_t eg_session_patience(const struct eg_late *late);

/*
 * For slow paths: is there a daemon? Takes late replies, notices a closed socket or a changed bus and tries to
 * connect: at most each 20 ms, waiting until until_ns (monotonic) and EG_PATIENCE_NS at most; it goes on
 * with the next call. EAGRE_OK, or EAGRE_E_NO_DAEMON while none answers. Compare `generation` afterwards.
 */
int eg_session_check(struct eagre *e, int64_t until_ns);

/* "; the daemon (pid 17) is away for 3.2 s", or "" if it is not. */
const char *eg_session_away(const struct eagre *e, char *buf, size_t cap);

/* Become a client: owner number, page, bells. Idempotent. */
int eg_client_attach(struct eagre *e);

/* A pin cell for one handle; EAGRE_E_LIMIT when all EG_CLIENT_PINS are in use. put clears it. */
int eg_pin_cell_get(struct eagre *e, _Atomic uint64_t **cell);
void eg_pin_cell_put(struct eagre *e, _Atomic uint64_t *cell);

/* A doorbell for one consumer; the second as eg_session_request_late. */
int eg_bell_get(struct eagre *e, uint32_t *bell);
int eg_bell_get_late(struct eagre *e, struct eg_late **late, int64_t until_ns, uint32_t *bell,
                     uint32_t *generation);
void eg_bell_put(struct eagre *e, uint32_t bell);

/* Give back what an EG_MSG_OPEN (number: the topic's uid), EG_MSG_BELL or EG_MSG_GROUP_JOIN (the member; role: how it
 * leaves) gave in that generation. Waits a second at most; a daemon that is away is told later. */
void eg_session_return(struct eagre *e, uint16_t type, uint8_t role, uint64_t number, uint32_t generation);
/* We do not take it for a member any more. It leaves, if the daemon thinks otherwise; nobody waits for that. */
void eg_session_leave(struct eagre *e, uint64_t member, uint8_t how, uint32_t generation);

/* ---- between session.c, attach.c and instance.c; the lock is held -------------------------------- */

/* The lock, unless that takes longer. */
bool eg_session_lock(struct eagre *e, int64_t until_ns);
/* Connect, greet, and be again the client that we were. EAGRE_E_WOULD_BLOCK: it goes on with the next call.
 * Another failure (EAGRE_E_NO_DAEMON and so on): there is no connection. */
int eg_session_connect(struct eagre *e, int64_t deadline_ns);
void eg_session_disconnect(struct eagre *e);
/* Map a received object of at least len bytes; at `at` if that is not NULL. Closes nothing. */
int eg_session_map(int fd, size_t len, bool writable, void *at, const char *what, void **out);

#endif
