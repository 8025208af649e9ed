#include "client/exchange.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "layout/group.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define OVERDUE_NS EG_NS_PER_S

static void close_fds(const int *fds, size_t n) {
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

static void late_free(struct eg_late *l) {
    free(l->data);
    free(l);
}

/* Nothing comes for it any more. */
static void fail(struct eg_late *l, int rc) {
    l->waits = false;
    l->rc = rc;
    if (l->given_up)
        late_free(l);
}

void eg_late_disconnect(struct eagre *e) {
    eg_session_close_fd(e, e->sock);
    e->sock = -1;
    e->stage = EG_OFFLINE;
    while (e->late != NULL) {
        struct eg_late *l = e->late;
        e->late = l->next;
        fail(l, EAGRE_E_NO_DAEMON);
    }
}

/* ---- what the daemon counts for us ----------------------------------------------------------------- */

/* The handles of the topic, or NULL. */
static struct eg_held *held_of(struct eagre *e, uint32_t uid) {
    for (size_t i = 0; i < e->held_count; i++)
        if (e->held[i].topic_uid == uid)
            return &e->held[i];
    return NULL;
}

static int note_handle(struct eagre *e, uint8_t role, uint32_t uid) {
    struct eg_held *h = held_of(e, uid);
    if (h == NULL) {
        h = reallocarray(e->held, e->held_count + 1, sizeof(*h));
        if (h == NULL)
            return EAGRE_E_NO_MEMORY;
        e->held = h;
        h += e->held_count++;
        *h = (struct eg_held){.topic_uid = uid};
    }
    (*(role == EG_ROLE_PRODUCER ? &h->producers : &h->consumers))++;
    return EAGRE_OK;
}

/* False: there was none. */
static bool forget_handle(struct eagre *e, uint8_t role, uint32_t uid) {
    struct eg_held *h = held_of(e, uid);
    uint16_t *n = h == NULL ? NULL : role == EG_ROLE_PRODUCER ? &h->producers : &h->consumers;
    if (n == NULL || *n == 0)
        return false;
    if (--*n == 0 && h->producers + h->consumers == 0)
        *h = e->held[--e->held_count];
    return true;
}

static int note_member(struct eagre *e, uint64_t member) {
    uint64_t *members = reallocarray(e->members, e->member_count + 1, sizeof(*members));
    if (members == NULL)
        return EAGRE_E_NO_MEMORY;
    e->members = members;
    members[e->member_count++] = member;
    return EAGRE_OK;
}

bool eg_late_forget_member(struct eagre *e, uint64_t member) {
    for (size_t i = 0; i < e->member_count; i++)
        if (e->members[i] == member) {
            e->members[i] = e->members[--e->member_count];
            return true;
        }
    return false;
}

/* An OPEN or GROUP_JOIN was answered: one handle or member more. */
static int note(struct eagre *e, const struct eg_late *l, const struct eg_msg_header *h, struct eg_dec body) {
    if (h->status != EAGRE_OK || (l->type != EG_MSG_OPEN && l->type != EG_MSG_GROUP_JOIN))
        return EAGRE_OK;
    uint64_t number = l->type == EG_MSG_OPEN ? eg_dec_u32(&body) : eg_dec_u64(&body);
    if (body.bad)
        return EAGRE_OK;
    return l->type == EG_MSG_OPEN ? note_handle(e, l->role, (uint32_t)number) : note_member(e, number);
}

int eg_late_return(struct eagre *e, uint16_t type, uint8_t role, uint64_t number, struct eg_late **out) {
    uint8_t buf[64];
    struct eg_enc req;
    if (type == EG_MSG_OPEN) {
        if (!forget_handle(e, role, (uint32_t)number))
            return EAGRE_E_STATE;
        eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_RELEASE, 0, 0);
        eg_enc_u8(&req, role);
        eg_enc_u32(&req, (uint32_t)number);
    } else if (type == EG_MSG_GROUP_JOIN) {
        if (!eg_late_forget_member(e, number))
            return EAGRE_E_STATE;
        eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_GROUP_LEAVE, 0, 0);
        eg_enc_u64(&req, number);
        eg_enc_u8(&req, role);
    } else {
        eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_BELL_FREE, 0, 0);
        eg_enc_u32(&req, (uint32_t)number);
    }
    int rc = e->stage == EG_ONLINE ? eg_late_send(e, &req, 0, out) : EAGRE_E_NO_DAEMON;
    /* Without a connection a daemon is told what is left when we attach again. One that was told (or is just being told)
     * otherwise, and cannot be told this, would count it for ever: so we do attach again. */
    bool said = e->stage == EG_ONLINE || (e->stage == EG_ATTACHING && e->greeting.bus == NULL);
    if (rc != EAGRE_OK && said && type != EG_MSG_BELL)
        eg_late_disconnect(e);
    return rc;
}

/* ---- what came ----------------------------------------------------------------------------------------- */

static struct eg_late *take_by_id(struct eagre *e, uint32_t id) {
    for (struct eg_late **link = &e->late; *link != NULL; link = &(*link)->next) {
        struct eg_late *l = *link;
        if (l->id != id)
            continue;
        *link = l->next;
        return l;
    }
    return NULL;
}

/* What came with a reply that nobody will use. */
static void give_back(struct eagre *e, struct eg_late *l, const struct eg_msg_header *h, struct eg_dec *body) {
    close_fds(l->fds, l->nfds);
    if (h->status == EAGRE_OK && (l->type == EG_MSG_OPEN || l->type == EG_MSG_BELL || l->type == EG_MSG_GROUP_JOIN)) {
        uint64_t number = l->type == EG_MSG_GROUP_JOIN ? eg_dec_u64(body) : eg_dec_u32(body);
        struct eg_late *sent;
        if (!body->bad && eg_late_return(e, l->type, l->role, number, &sent) == EAGRE_OK)
            sent->given_up = true;
    }
}

/* e->in holds a message of n bytes: it is somebody's. False: it is nobody's, so no message that follows can
 * be believed. The descriptors are taken over. */
static bool deliver(struct eagre *e, size_t n, const int *fds, size_t nfds, bool truncated) {
    struct eg_msg_header h = {0};
    struct eg_dec body = {0};
    int rc = eg_dec_begin(&body, e->in, n, &h);
    /* A connection too many gets its refusal unasked, with id 0. */
    bool unasked = rc == EAGRE_OK && h.id == 0 && h.status != EAGRE_OK && e->late != NULL &&
                   e->late->type == EG_MSG_HELLO;
    struct eg_late *l = rc == EAGRE_OK ? take_by_id(e, unasked ? e->late->id : h.id) : NULL;
    if (l == NULL) {
        close_fds(fds, nfds);
        return false;
    }
    if (h.type != (l->type | EG_MSG_REPLY)) {
        close_fds(fds, nfds);
        l->next = e->late; /* where receive() finds it */
        e->late = l;
        return false;
    }
    memcpy(l->fds, fds, nfds * sizeof(*fds));
    l->nfds = nfds;
    l->waits = false;
    l->generation = atomic_load_explicit(&e->generation, memory_order_relaxed);
    l->rc = truncated ? EAGRE_E_LIMIT : EAGRE_OK;
    int noted = note(e, l, &h, body);
    if (l->rc == EAGRE_OK && noted == EAGRE_OK && !l->given_up && (l->data = malloc(n)) == NULL)
        noted = EAGRE_E_NO_MEMORY;
    if (l->given_up || l->rc != EAGRE_OK || noted != EAGRE_OK) {
        give_back(e, l, &h, &body);
        l->nfds = 0;
        if (l->rc == EAGRE_OK)
            l->rc = noted;
        if (l->given_up)
            late_free(l);
        return true;
    }
    memcpy(l->data, e->in, n);
    l->n = n;
    return true;
}

/* One message. 1: it was delivered; 0: there is none now; -1: the connection is gone. */
static int receive(struct eagre *e) {
    int fds[EG_FDPASS_MAX];
    size_t nfds = 0;
    bool truncated = false;
    if (e->sock < 0)
        return -1;
    ssize_t got = eg_recvmsg_fds(e->sock, e->in, sizeof(e->in), fds, EG_FDPASS_MAX, &nfds, &truncated, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got > 0 && deliver(e, (size_t)got, fds, nfds, truncated))
        return 1;
    if (got == 0)
        close_fds(fds, nfds); /* an empty message can bring some, too */
    if (got > 0 && e->late != NULL) {
        /* Who waits longest is told. */
        struct eg_late *l = e->late;
        e->late = l->next;
        fail(l, EAGRE_E_PROTOCOL);
    }
    eg_late_disconnect(e);
    return -1;
}

bool eg_late_drain(struct eagre *e) {
    int rc;
    while ((rc = receive(e)) > 0) {}
    return rc == 0;
}

bool eg_late_overdue(const struct eagre *e) {
    return e->late != NULL && e->late->given_up && eg_mono_ns() - e->late->sent_ns > OVERDUE_NS;
}

/* ---- asking ---------------------------------------------------------------------------------------------- */

/* Wait until the socket is ready; false when the deadline has passed. */
static bool wait_for(int sock, short events, int64_t deadline_ns) {
    for (;;) {
        int64_t left = deadline_ns - eg_mono_ns();
        if (left <= 0)
            return false;
        struct pollfd p = {.fd = sock, .events = events};
        if (poll(&p, 1, left < EG_NS_PER_S ? (int)(left / EG_NS_PER_MS) + 1 : 1000) > 0)
            return true; /* errors and hang-ups, too: the call that follows tells which */
    }
}

/* What eg_late_return needs: the role of an OPEN; how a JOIN's member leaves: a static one will be back. */
static uint8_t role_of(const struct eg_enc *req) {
    char text[EG_GROUP_NAME_MAX + 1];
    struct eg_msg_header h;
    struct eg_dec d;
    if (eg_dec_begin(&d, req->data, req->used, &h) != EAGRE_OK || (h.type != EG_MSG_OPEN && h.type != EG_MSG_GROUP_JOIN))
        return 0;
    if (h.type == EG_MSG_OPEN)
        return eg_dec_u8(&d);
    eg_dec_str(&d, text, sizeof(text));
    eg_dec_u8(&d); /* its type */
    eg_dec_str(&d, text, sizeof(text));
    return text[0] != '\0';
}

int eg_late_send(struct eagre *e, struct eg_enc *req, int64_t deadline_ns, struct eg_late **out) {
    struct eg_msg_header asked;
    if (req->overflow)
        return eg_error_set(EAGRE_E_INVALID, "the request is larger than %u bytes", EG_MSG_MAX);
    struct eg_late *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a request to eagred");
    memcpy(&asked, req->data, sizeof(asked));
    do
        asked.id = ++e->next_id;
    while (asked.id == 0);
    memcpy(req->data, &asked, sizeof(asked));
    l->id = asked.id;
    l->type = asked.type;
    l->role = role_of(req);
    l->sent_ns = eg_mono_ns();
    while (eg_sendmsg_fds(e->sock, req->data, req->used, NULL, 0, MSG_DONTWAIT) < 0) {
        int rc = EAGRE_OK;
        if (errno != EAGAIN) {
            /* One connection too many is closed before HELLO is sent; the refusal may be there. */
            if (asked.type == EG_MSG_HELLO)
                break;
            rc = eg_error_set(EAGRE_E_NO_DAEMON, "eagred at %s closed the connection (%s)", e->path,
                              strerror(errno));
            eg_late_disconnect(e);
        } else if (!wait_for(e->sock, POLLOUT, deadline_ns)) {
            rc = eg_error_set(EAGRE_E_TIMED_OUT, "eagred at %s accepts no requests", e->path);
        }
        if (rc != EAGRE_OK) {
            free(l);
            return rc;
        }
    }
    l->waits = true;
    struct eg_late **link = &e->late;
    while (*link != NULL)
        link = &(*link)->next;
    *link = l;
    *out = l;
    return EAGRE_OK;
}

int eg_late_wait(struct eagre *e, struct eg_late *l, int64_t deadline_ns) {
    while (l->waits) {
        int rc = receive(e);
        if (rc == 0 && !wait_for(e->sock, POLLIN, deadline_ns))
            return EAGRE_E_WOULD_BLOCK;
    }
    return EAGRE_OK;
}

/* What the daemon said instead of yes. */
static int refused(const struct eg_msg_header *h, struct eg_dec *d) {
    char text[EG_ERROR_TEXT_MAX];
    eg_dec_str(d, text, sizeof(text));
    if (h->status > 0 || d->bad)
        return eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to a request of type %u is malformed",
                            h->type & ~EG_MSG_REPLY);
    return eg_error_set(h->status, "%s", text);
}

static int none_came(const struct eagre *e, const struct eg_late *l) {
    switch (l->rc) {
    case EAGRE_E_LIMIT:
        return eg_error_set(EAGRE_E_LIMIT, "eagred's answer did not fit, or this process has no descriptors left "
                                           "(`ulimit -n`)");
    case EAGRE_E_PROTOCOL:
        return eg_error_set(EAGRE_E_PROTOCOL, "eagred answered request %u of type %u with something else", l->id,
                            l->type);
    case EAGRE_E_NO_MEMORY:
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for eagred's answer");
    default:
        return eg_error_set(EAGRE_E_NO_DAEMON, "eagred at %s closed the connection before it answered", e->path);
    }
}

int eg_late_take(struct eagre *e, struct eg_late *l, void *buf, size_t cap, struct eg_dec *reply, int *fds,
                 size_t fds_cap, size_t *nfds) {
    struct eg_msg_header h;
    int rc = l->rc == EAGRE_OK ? EAGRE_OK : none_came(e, l);
    if (rc == EAGRE_OK && (l->n > cap || (fds_cap > 0 && l->nfds > fds_cap)))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to a request of type %u is too long", l->type);
    if (rc == EAGRE_OK) {
        memcpy(buf, l->data, l->n);
        rc = eg_dec_begin(reply, buf, l->n, &h);
    }
    if (rc == EAGRE_OK && h.status != EAGRE_OK)
        rc = refused(&h, reply);
    if (rc == EAGRE_OK && fds_cap > 0) {
        memcpy(fds, l->fds, l->nfds * sizeof(*fds));
        *nfds = l->nfds;
    } else {
        close_fds(l->fds, l->nfds);
    }
    late_free(l);
    return rc;
}

void eg_late_give_up(struct eagre *e, struct eg_late *l) {
    if (l == NULL)
        return;
    l->given_up = true;
    if (l->waits)
        return;
    struct eg_msg_header h = {.status = EAGRE_E_NO_DAEMON};
    struct eg_dec body = {0};
    /* Of another instance there is nothing left to be given back. */
    if (l->rc == EAGRE_OK && l->generation == atomic_load_explicit(&e->generation, memory_order_relaxed))
        eg_dec_begin(&body, l->data, l->n, &h);
    give_back(e, l, &h, &body);
    late_free(l);
}
