/*
 * sessions.c - the control socket. Any local user may connect where socket.mode lets them, so:
 * nothing here waits for a peer, each has bounded memory and descriptors in flight, and one request
 * a round, so that nobody else waits for them.
 */
#include "sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clients.h"
#include "daemon.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"

#define GREET_NS (30 * EG_NS_PER_S)   /* who says no HELLO for so long is closed */
#define PAUSE_NS (100 * EG_NS_PER_MS) /* without descriptors: how long not to accept */
#define UNREAD_FDS_MAX 256u           /* descriptors sent to a peer that it has not taken */

_Static_assert(EG_REPLY_FDS == EG_FDPASS_MAX, "a reply is one message");

/* A reply that the peer's full socket buffer has not taken yet. Its fds are copies. */
struct pending {
    size_t used, nfds;
    int fds[EG_REPLY_FDS];
    uint8_t data[];
};

struct session {
    struct eg_session base;
    struct eg_watch watch;
    struct pending *pending; /* while set, nothing is read from this peer */
    uint32_t unread_fds;     /* sent since its queue was last seen empty */
    int64_t connected_ns;
    bool unread; /* the last answer was not sent, or the peer went away without taking it */
};

struct eg_sessions {
    struct eg_watch listener;
    int reserve_fd;    /* closed to have one when descriptors are out */
    int64_t resume_ns; /* listener is paused until then; 0: it is not */
    uint32_t ungreeted;
    struct eg_session *first;
    uint8_t in[EG_MSG_MAX];
    uint8_t out[EG_MSG_MAX];
};

static struct eg_log_limit refused_limit, hostile_limit, descriptors_limit;

static struct session *session_of(struct eg_session *s) {
    return eg_container_of(s, struct session, base);
}

static void free_pending(struct session *s) {
    if (s->pending == NULL)
        return;
    for (size_t i = 0; i < s->pending->nfds; i++)
        close(s->pending->fds[i]);
    free(s->pending);
    s->pending = NULL;
}

/* A close with unread requests would let the peer see ECONNRESET in place of our last reply: so first
 * let no more come, then take what is there. */
static void hang_up(struct eg_daemon *d, int fd) {
    shutdown(fd, SHUT_RD);
    for (int i = 0; i < 1024 && recv(fd, d->sessions->in, 1, MSG_DONTWAIT) > 0; i++) {}
    close(fd);
}

/* The kernel tells by ECONNRESET that a peer closed with something unread in its queue. */
static bool is_unread(const struct session *s) {
    int error = 0;
    socklen_t n = sizeof(error);
    return s->unread || s->pending != NULL ||
           (getsockopt(s->base.fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == ECONNRESET);
}

/* It does not know that it was granted the topic, and may live on without ever asking us again. */
static void take_back(struct eg_daemon *d, struct eg_session *base) {
    struct eg_grant *g = NULL;
    if (base->opened_uid != 0 && base->client != NULL && is_unread(session_of(base)))
        g = eg_client_grant(base->client, base->opened_uid);
    if (g != NULL)
        eg_client_grant_lower(d, base->client, g, base->opened_role);
}

void eg_session_close(struct eg_daemon *d, struct eg_session *base) {
    struct session *s = session_of(base);
    struct eg_session **link = &d->sessions->first;
    while (*link != base)
        link = &(*link)->next;
    *link = base->next;
    take_back(d, base);
    eg_session_closed(d, base);
    eg_loop_remove(d->loop, &s->watch);
    hang_up(d, base->fd);
    free_pending(s);
    d->sessions->ungreeted -= !base->greeted;
    d->figures.sessions--;
    base->account->used[EG_QUOTA_CONNECTIONS]--;
    eg_account_put(d, base->account);
    free(s);
}

/* ---- replies --------------------------------------------------------------------------------------------- */

static bool keep_pending(struct eg_daemon *d, struct session *s, const void *data, size_t n,
                         const int *fds, size_t nfds) {
    struct pending *p = malloc(sizeof(*p) + n);
    if (p == NULL)
        return false;
    *p = (struct pending){.used = n};
    memcpy(p->data, data, n);
    s->pending = p;
    for (; p->nfds < nfds; p->nfds++) {
        p->fds[p->nfds] = fcntl(fds[p->nfds], F_DUPFD_CLOEXEC, 3);
        if (p->fds[p->nfds] < 0)
            return false;
    }
    return eg_loop_change(d->loop, &s->watch, EPOLLOUT) == EAGRE_OK;
}

/* False: the session is of no more use. */
static bool send_reply(struct eg_daemon *d, struct session *s, const void *data, size_t n,
                       const int *fds, size_t nfds) {
    if (eg_sendmsg_fds(s->base.fd, data, n, fds, nfds, MSG_DONTWAIT) >= 0) {
        s->unread_fds += (uint32_t)nfds;
        return true;
    }
    if (errno == EAGAIN)
        return keep_pending(d, s, data, n, fds, nfds);
    if (errno != EPIPE && errno != ECONNRESET)
        eg_log_limited(&descriptors_limit, EG_LOG_WARNING, "cannot reply to pid %d: %s",
                       (int)s->base.pid, strerror(errno));
    s->unread = true;
    return false;
}

static bool send_failure(struct eg_daemon *d, struct session *s, const struct eg_msg_header *h,
                         int status) {
    struct eg_enc e;
    eg_enc_begin(&e, d->sessions->out, sizeof(d->sessions->out), h->type | EG_MSG_REPLY, h->id,
                 status);
    eg_enc_str(&e, eg_error_text());
    return send_reply(d, s, e.data, e.used, NULL, 0);
}

static bool flush_pending(struct eg_daemon *d, struct session *s) {
    struct pending *p = s->pending;
    if (eg_sendmsg_fds(s->base.fd, p->data, p->used, p->fds, p->nfds, MSG_DONTWAIT) < 0)
        return errno == EAGAIN;
    s->unread_fds += (uint32_t)p->nfds;
    free_pending(s);
    return eg_loop_change(d->loop, &s->watch, EPOLLIN) == EAGRE_OK;
}

/* ---- requests -------------------------------------------------------------------------------------------- */

static bool serve(struct eg_daemon *d, struct session *s, const struct eg_msg_header *h,
                  struct eg_dec *in) {
    struct eg_enc out;
    struct eg_reply reply = {.out = &out};
    bool greeted = s->base.greeted;
    int rc;

    s->base.opened_uid = 0;

    eg_enc_begin(&out, d->sessions->out, sizeof(d->sessions->out), h->type | EG_MSG_REPLY, h->id,
                 0);
    eg_handler *handler = eg_handler_of(h->type);
    if (!greeted && h->type != EG_MSG_HELLO)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "request %u before HELLO", h->type);
    else if (handler == NULL)
        rc = eg_error_set(EAGRE_E_UNSUPPORTED, "this eagred (%s) does not know request %u",
                          EG_VERSION, h->type);
    else
        rc = handler(d, &s->base, in, &reply);
    if (rc == EAGRE_OK && out.overflow)
        rc = eg_error_set(EAGRE_E_INTERNAL, "the reply to request %u does not fit a message",
                          h->type);
    d->sessions->ungreeted -= !greeted && s->base.greeted;

    bool alive = rc == EAGRE_OK ? send_reply(d, s, out.data, out.used, reply.fds, reply.nfds)
                                : send_failure(d, s, h, rc);
    for (size_t i = 0; i < reply.nfds; i++)
        if (reply.close_after[i])
            close(reply.fds[i]);
    return alive && rc != EAGRE_E_PROTOCOL;
}

/* A peer that asks and asks without taking what it got would collect descriptors in flight, of
 * which the kernel gives all of our user's processes together a limited number. */
static bool takes_replies(struct session *s) {
    int unread = 0;
    if (s->unread_fds > 0 && ioctl(s->base.fd, SIOCOUTQ, &unread) == 0 && unread == 0)
        s->unread_fds = 0;
    return s->unread_fds < UNREAD_FDS_MAX;
}

static bool receive(struct eg_daemon *d, struct session *s) {
    struct eg_msg_header h = {0};
    struct eg_dec in;
    if (!takes_replies(s)) {
        eg_log_limited(&hostile_limit, EG_LOG_WARNING,
                       "pid %d (user %u) does not read its replies: its connection is closed",
                       (int)s->base.pid, (unsigned)s->base.uid);
        return false;
    }
    /* Without a control buffer, the kernel closes descriptors that somebody sends us. */
    ssize_t n =
        recv(s->base.fd, d->sessions->in, sizeof(d->sessions->in), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0) {
        s->unread |= errno == ECONNRESET;
        return errno == EAGAIN || errno == EINTR;
    }
    if (n == 0)
        return false;
    int rc = eg_dec_begin(&in, d->sessions->in, (size_t)n, &h);
    if (rc == EAGRE_OK)
        return serve(d, s, &h, &in);
    eg_log_limited(&hostile_limit, EG_LOG_WARNING, "pid %d (user %u): %s: its connection is closed",
                   (int)s->base.pid, (unsigned)s->base.uid, eg_error_text());
    send_failure(d, s, &h, rc);
    return false;
}

static void session_ready(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    struct session *s = eg_container_of(w, struct session, watch);
    bool alive = true;
    if (s->pending != NULL)
        alive = (events & (EPOLLHUP | EPOLLERR)) == 0 && flush_pending(d, s);
    else if ((events & EPOLLIN) != 0)
        alive = receive(d, s);
    else if ((events & (EPOLLHUP | EPOLLERR)) != 0)
        alive = false;
    if (!alive)
        eg_session_close(d, &s->base);
}

/* ---- accepting ------------------------------------------------------------------------------------------- */

static void refuse(struct eg_daemon *d, int fd, int status) {
    uint8_t buf[sizeof(struct eg_msg_header) + 2 + EG_ERROR_TEXT_MAX];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_HELLO | EG_MSG_REPLY, 0, status);
    eg_enc_str(&e, eg_error_text());
    send(fd, e.data, e.used, MSG_DONTWAIT | MSG_NOSIGNAL);
    eg_log_limited(&refused_limit, EG_LOG_WARNING, "a connection is refused: %s", eg_error_text());
    hang_up(d, fd);
}

static int check_quota(const struct eg_daemon *d, const struct eg_account *account) {
    const struct eg_config *c = &d->config;
    if (d->figures.sessions >= c->connections_max)
        return eg_error_set(EAGRE_E_LIMIT,
                            "connections.max=%u is reached: raise it, or close connections",
                            c->connections_max);
    return eg_quota_check(d, account, EG_QUOTA_CONNECTIONS, 1);
}

static void welcome(struct eg_daemon *d, int fd) {
    struct ucred peer;
    socklen_t n = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0) {
        close(fd);
        return;
    }
    struct eg_account *account = eg_account_take(d, peer.uid);
    int rc = account != NULL ? check_quota(d, account) : EAGRE_E_NO_MEMORY;
    struct session *s = rc == EAGRE_OK ? calloc(1, sizeof(*s)) : NULL;
    if (rc == EAGRE_OK && s == NULL)
        rc = eg_error_set(EAGRE_E_NO_MEMORY, "eagred has no memory for another connection");
    if (rc != EAGRE_OK) {
        refuse(d, fd, rc);
        eg_account_put(d, account);
        return;
    }
    s->base = (struct eg_session){
        .fd = fd, .pid = peer.pid, .uid = peer.uid, .gid = peer.gid, .account = account};
    s->watch = (struct eg_watch){.fd = fd, .ready = session_ready};
    s->connected_ns = eg_mono_ns();
    rc = eg_loop_add(d->loop, &s->watch, EPOLLIN);
    if (rc != EAGRE_OK) {
        refuse(d, fd, rc);
        eg_account_put(d, account);
        free(s);
        return;
    }
    account->used[EG_QUOTA_CONNECTIONS]++;
    s->base.next = d->sessions->first;
    d->sessions->first = &s->base;
    d->sessions->ungreeted++;
    d->figures.sessions++;
}

/* Descriptors are out: the reserve lets us take the next in the queue and hang up on it, for else
 * it would stay there and keep the loop spinning. */
static void turn_away(struct eg_daemon *d) {
    struct eg_sessions *all = d->sessions;
    eg_log_limited(
        &descriptors_limit, EG_LOG_ERROR,
        "descriptors are used up: a connection is closed; raise RLIMIT_NOFILE (LimitNOFILE of the "
        "unit) or lower connections.max");
    if (all->reserve_fd >= 0)
        close(all->reserve_fd);
    int fd = accept4(all->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    all->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || all->reserve_fd < 0) {
        eg_loop_change(d->loop, &all->listener, 0);
        all->resume_ns = eg_mono_ns() + PAUSE_NS;
    }
}

static void listener_ready(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    (void)events;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        welcome(d, fd);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
        turn_away(d);
}

/* ---- as a service ------------------------------------------------------------------------------------------ */

static int open_listener(const struct eg_config *c, int *fd_out) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (lstat(c->socket, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return eg_error_set(EAGRE_E_IO,
                                "%s is there and is no socket: remove it, or choose another place",
                                c->socket);
        unlink(c->socket); /* we hold its lock: nobody listens there */
    }
    memcpy(address.sun_path, c->socket, strlen(c->socket) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0777);
    bool good = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                chmod(c->socket, c->socket_mode) == 0 && listen(fd, SOMAXCONN) == 0;
    int e = errno;
    umask(mask);
    if (!good) {
        if (fd >= 0)
            close(fd);
        return eg_error_set(EAGRE_E_IO, "cannot listen on the socket %s: %s", c->socket,
                            strerror(e));
    }
    *fd_out = fd;
    return EAGRE_OK;
}

static int sessions_start(struct eg_daemon *d) {
    struct eg_sessions *all = calloc(1, sizeof(*all));
    if (all == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the control socket");
    all->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int rc = open_listener(&d->config, &all->listener.fd);
    if (rc == EAGRE_OK) {
        all->listener.ready = listener_ready;
        rc = eg_loop_add(d->loop, &all->listener, EPOLLIN);
        if (rc != EAGRE_OK)
            close(all->listener.fd);
    }
    if (rc != EAGRE_OK) {
        if (all->reserve_fd >= 0)
            close(all->reserve_fd);
        free(all);
        return rc;
    }
    d->sessions = all;
    return EAGRE_OK;
}

static int64_t sessions_tick(struct eg_daemon *d, int64_t now_ns) {
    struct eg_sessions *all = d->sessions;
    int64_t next = INT64_MAX;
    if (all->resume_ns != 0) {
        if (now_ns < all->resume_ns)
            return all->resume_ns;
        all->resume_ns = 0;
        eg_loop_change(d->loop, &all->listener, EPOLLIN);
    }
    if (all->ungreeted == 0)
        return next;
    struct eg_session *after;
    for (struct eg_session *s = all->first; s != NULL; s = after) {
        after = s->next;
        if (s->greeted)
            continue;
        int64_t due = session_of(s)->connected_ns + GREET_NS;
        if (due <= now_ns)
            eg_session_close(d, s);
        else if (due < next)
            next = due;
    }
    return next;
}

static void sessions_stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    struct eg_sessions *all = d->sessions;
    while (all->first != NULL)
        eg_session_close(d, all->first);
    eg_loop_remove(d->loop, &all->listener);
    close(all->listener.fd);
    unlink(d->config.socket);
    if (all->reserve_fd >= 0)
        close(all->reserve_fd);
    free(all);
    d->sessions = NULL;
}

const struct eg_service eg_sessions_service = {
    .name = "sessions", .start = sessions_start, .tick = sessions_tick, .stop = sessions_stop};
