#include "client/session.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "sys/shm.h"

#define CHECK_LIMIT_NS EG_NS_PER_S /* what eg_session_check may take with a daemon that hangs */
#define RETRY_AFTER_NS (20 * EG_NS_PER_MS)

int eg_session_forked(const struct eagre *e) {
    /* Written by the kernel at fork (the page is wiped), not by a thread: any load will do. */
    if (__atomic_load_n(e->fork_guard, __ATOMIC_RELAXED) != 0)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_FORKED,
                        "this instance was opened before fork(), in the parent: open "
                        "one in the child, or exec");
}

static void close_fds(int *fds, size_t n) {
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

int eg_session_map(int fd, size_t len, bool writable, void *at, const char *what, void **out) {
    size_t size;
    int rc = eg_memfd_check(fd, &size);
    if (rc != EAGRE_OK) {
        eg_error_add(rc, "%s from eagred", what);
        return rc;
    }
    if (size < len) {
        eg_error_set(EAGRE_E_PROTOCOL, "%s from eagred: %zu bytes, needs %zu", what, size, len);
        return EAGRE_E_PROTOCOL;
    }
    if (at == NULL) {
        rc = eg_map(fd, 0, len, writable, out);
        if (rc != EAGRE_OK)
            eg_error_add(rc, "%s", what);
        return rc;
    }
    /* Over the old one, in one step: other threads keep valid pointers. */
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (mmap(at, len, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        eg_error_set(EAGRE_E_SYSTEM, "%s: mmap of %zu bytes: %s", what, len, strerror(errno));
        return EAGRE_E_SYSTEM;
    }
    *out = at;
    return EAGRE_OK;
}

static int no_daemon(const struct eagre *e) {
    return eg_error_set(EAGRE_E_NO_DAEMON,
                        "no eagred answers at %s: start one with `eagre up` (or: eagred --dir DIR "
                        "--socket %s)",
                        e->path, e->path);
}

void eg_session_close_fd(const struct eagre *e, int fd) {
    if (fd >= 0 && *e->fork_guard != 0)
        close(fd);
}

void eg_session_disconnect(struct eagre *e) {
    eg_session_close_fd(e, e->sock);
    e->sock = -1;
}

/* Wait until the socket is ready; false when the deadline has passed. */
static bool wait_for(int sock, short events, int64_t deadline_ns) {
    for (;;) {
        int64_t left = deadline_ns - eg_mono_ns();
        if (left <= 0)
            return false;
        struct pollfd p = {.fd = sock, .events = events};
        if (poll(&p, 1, (int)(left / EG_NS_PER_MS) + 1) > 0)
            return true; /* errors and hang-ups, too: the call that follows tells which */
    }
}

static int send_request(struct eagre *e, const struct eg_enc *req, int64_t deadline_ns) {
    for (;;) {
        if (eg_sendmsg_fds(e->sock, req->data, req->used, NULL, 0, MSG_DONTWAIT) >= 0)
            return EAGRE_OK;
        if (errno != EAGAIN)
            return eg_error_set(EAGRE_E_NO_DAEMON, "eagred at %s closed the connection (%s)",
                                e->path, strerror(errno));
        if (!wait_for(e->sock, POLLOUT, deadline_ns))
            return eg_error_set(EAGRE_E_TIMED_OUT, "eagred at %s accepts no requests", e->path);
    }
}

static int receive_reply(struct eagre *e, void *buf, size_t cap, size_t *n, int *fds,
                         size_t fds_cap, size_t *nfds, int64_t deadline_ns) {
    bool truncated = false;
    for (;;) {
        if (!wait_for(e->sock, POLLIN, deadline_ns))
            return eg_error_set(EAGRE_E_TIMED_OUT,
                                "eagred at %s does not answer in time: is it stopped?", e->path);
        ssize_t got =
            eg_recvmsg_fds(e->sock, buf, cap, fds, fds_cap, nfds, &truncated, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            continue;
        if (got <= 0)
            return eg_error_set(EAGRE_E_NO_DAEMON,
                                "eagred at %s closed the connection before it answered", e->path);
        *n = (size_t)got;
        break;
    }
    if (truncated)
        return eg_error_set(EAGRE_E_LIMIT, "eagred's answer did not fit, or this process has no "
                                           "descriptors left (`ulimit -n`)");
    return EAGRE_OK;
}

/* What the daemon said instead of yes. */
static int refused(const struct eg_msg_header *h, struct eg_dec *d) {
    char text[EG_ERROR_TEXT_MAX];
    eg_dec_str(d, text, sizeof(text));
    if (h->status > 0 || d->bad)
        return eg_error_set(EAGRE_E_PROTOCOL,
                            "eagred's answer to a request of type %u is malformed",
                            h->type & ~EG_MSG_REPLY);
    return eg_error_set(h->status, "%s", text);
}

int eg_session_exchange(struct eagre *e, struct eg_enc *req, void *reply_buf, size_t reply_cap,
                        struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                        int64_t deadline_ns, bool *sent) {
    struct eg_msg_header asked;
    struct eg_msg_header got;
    size_t n = 0;
    size_t fds_got = 0;
    int none; /* eg_recvmsg_fds closes what goes beyond fds_cap */
    int *into = fds_cap > 0 ? fds : &none;

    if (req->overflow)
        return eg_error_set(EAGRE_E_INVALID, "the request is larger than %u bytes", EG_MSG_MAX);
    if (sent != NULL)
        *sent = false;
    memcpy(&asked, req->data, sizeof(asked));
    asked.id = ++e->next_id;
    memcpy(req->data, &asked, sizeof(asked));

    /* A connection too many gets its refusal unasked, with id 0, and may be closed before HELLO is sent. */
    bool hello = asked.type == EG_MSG_HELLO;
    int rc = send_request(e, req, deadline_ns);
    if (rc != EAGRE_OK && !(hello && rc == EAGRE_E_NO_DAEMON)) {
        eg_session_disconnect(e);
        return rc;
    }
    if (sent != NULL)
        *sent = true;
    rc = receive_reply(e, reply_buf, reply_cap, &n, into, fds_cap, &fds_got, deadline_ns);
    if (rc == EAGRE_OK)
        rc = eg_dec_begin(reply, reply_buf, n, &got);
    bool unasked = rc == EAGRE_OK && hello && got.id == 0 && got.status != EAGRE_OK;
    if (rc == EAGRE_OK && !unasked &&
        (got.id != asked.id || got.type != (asked.type | EG_MSG_REPLY)))
        rc = eg_error_set(EAGRE_E_PROTOCOL,
                          "eagred answered request %u of type %u with %u of type %u", asked.id,
                          asked.type, got.id, got.type);
    if (rc != EAGRE_OK) {
        /* Whatever comes now on this connection could be the answer to something else. */
        eg_session_disconnect(e);
        close_fds(into, fds_got);
        return rc;
    }
    if (got.status != EAGRE_OK) {
        close_fds(into, fds_got);
        return refused(&got, reply);
    }
    if (nfds != NULL)
        *nfds = fds_got;
    else
        close_fds(into, fds_got);
    return EAGRE_OK;
}

static int open_socket(struct eagre *e) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return eg_error_set(EAGRE_E_SYSTEM, "socket: %s", strerror(errno));
    /* A full backlog (a stopped daemon) makes connect wait. */
    struct timeval limit = {.tv_sec = EG_REQUEST_LIMIT_NS / EG_NS_PER_S};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, e->path, sizeof(to.sun_path));
    int rc;
    do
        rc = connect(fd, (struct sockaddr *)&to, sizeof(to));
    while (rc != 0 && errno == EINTR);
    if (rc == 0) {
        e->sock = fd;
        return EAGRE_OK;
    }
    int why = errno;
    close(fd);
    switch (why) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
        return no_daemon(e);
    case EACCES:
    case EPERM:
        return eg_error_set(
            EAGRE_E_PERMISSION,
            "%s: %s: the socket's mode decides who may connect (eagred's socket.mode)", e->path,
            strerror(why));
    case EPROTOTYPE:
        return eg_error_set(EAGRE_E_PROTOCOL, "%s: is no eagred socket", e->path);
    case EAGAIN:
        return eg_error_set(EAGRE_E_TIMED_OUT,
                            "eagred at %s accepts no connections: is it stopped?", e->path);
    default:
        return eg_error_set(EAGRE_E_SYSTEM, "connect to %s: %s", e->path, strerror(why));
    }
}

static int check_bus(const struct eg_bus *bus, uint64_t instance_id) {
    int rc = eg_magic_check(&bus->magic, EG_MAGIC_BUS, "bus page from eagred");
    if (rc == EAGRE_OK && bus->instance_id != instance_id)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's bus page is of another instance than eagred");
    return rc;
}

/* ---- what we hold: the lock is held -------------------------------------------------------------- */

static struct eg_held *find_held(struct eagre *e, uint32_t topic_uid) {
    for (size_t i = 0; i < e->held_count; i++)
        if (e->held[i].topic_uid == topic_uid)
            return &e->held[i];
    return NULL;
}

/* Before an OPEN is sent: what it brings must not be lost for want of memory. */
static int reserve_held(struct eagre *e) {
    struct eg_held *more = reallocarray(e->held, e->held_count + 1, sizeof(*more));
    if (more == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for one handle more");
    e->held = more;
    return EAGRE_OK;
}

static uint16_t *handles_of(struct eg_held *h, uint8_t role) {
    return role == EG_ROLE_PRODUCER ? &h->producers : &h->consumers;
}

/* An OPEN was answered: one handle more. Room was reserved. */
static void note_open(struct eagre *e, const struct eg_enc *req, struct eg_dec reply) {
    uint8_t role = req->data[sizeof(struct eg_msg_header)];
    uint32_t uid = eg_dec_u32(&reply);
    struct eg_held *h = find_held(e, uid);
    if (h == NULL) {
        h = &e->held[e->held_count++];
        *h = (struct eg_held){.topic_uid = uid};
    }
    ++*handles_of(h, role);
}

/* False: there was none. */
static bool note_release(struct eagre *e, uint8_t role, uint32_t uid) {
    struct eg_held *h = find_held(e, uid);
    if (h == NULL || *handles_of(h, role) == 0)
        return false;
    --*handles_of(h, role);
    if (h->producers == 0 && h->consumers == 0)
        *h = e->held[--e->held_count];
    return true;
}

/* The daemon that greeted us is of instance_id: go on with the same memory, or change over. */
static int settle(struct eagre *e, uint64_t instance_id, int bus_fd, int64_t deadline_ns) {
    bool first = e->bus == NULL;
    bool other = !first && instance_id != e->instance_id;
    void *bus = NULL;
    int rc = EAGRE_OK;

    if (first || other) {
        rc = eg_session_map(bus_fd, EG_PAGE, false, (void *)(uintptr_t)e->bus, "bus page", &bus);
        if (rc != EAGRE_OK)
            return rc;
        rc = check_bus(bus, instance_id);
        if (rc != EAGRE_OK) {
            if (first)
                eg_unmap(bus, EG_PAGE);
            return rc;
        }
        e->bus = bus;
    }
    if (e->owner != 0) {
        uint32_t owner = e->owner;
        if (other)
            e->owner = 0; /* the new instance has never seen us */
        rc = eg_session_attach(e, deadline_ns);
        if (rc != EAGRE_OK) {
            e->owner = owner;
            return rc;
        }
    }
    e->instance_id = instance_id;
    if (other) {
        e->held_count = 0;
        atomic_fetch_add_explicit(&e->generation, 1, memory_order_release);
    }
    return e->sock >= 0 ? EAGRE_OK : no_daemon(e);
}

int eg_session_connect(struct eagre *e, int64_t deadline_ns) {
    uint8_t buf[1024];
    uint8_t answer[4096];
    char version[64];
    struct eg_enc req;
    struct eg_dec reply;
    int bus_fd = -1;
    size_t nfds = 0;

    eg_session_disconnect(e);
    int rc = open_socket(e);
    if (rc != EAGRE_OK)
        return rc;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_HELLO, 0, 0);
    eg_enc_u32(&req, EG_LAYOUT_VERSION);
    eg_enc_u32(&req, eg_layout_fingerprint());
    eg_enc_u32(&req, (uint32_t)getpid());
    char name[64];
    snprintf(name, sizeof(name), "%.63s", program_invocation_short_name);
    eg_enc_str(&req, name);
    rc = eg_session_exchange(e, &req, answer, sizeof(answer), &reply, &bus_fd, 1, &nfds,
                             deadline_ns, NULL);
    if (rc != EAGRE_OK) {
        eg_session_disconnect(e);
        return rc;
    }
    uint64_t instance_id = eg_dec_u64(&reply);
    uint32_t epoch = eg_dec_u32(&reply);
    uint32_t pid = eg_dec_u32(&reply);
    eg_dec_str(&reply, version, sizeof(version));
    if (!eg_dec_end(&reply) || nfds != 1)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's greeting is malformed");
    else
        rc = settle(e, instance_id, bus_fd, deadline_ns);
    close_fds(&bus_fd, nfds);
    if (rc != EAGRE_OK) {
        eg_session_disconnect(e);
        return rc;
    }
    e->epoch = epoch;
    eg_store_relaxed(&e->daemon_pid, pid);
    return EAGRE_OK;
}

static uint16_t type_of(const struct eg_enc *req) {
    struct eg_msg_header h;
    memcpy(&h, req->data, sizeof(h));
    return h.type;
}

/* Those that would do harm if a daemon that died had done them before it could answer. */
static bool may_be_repeated(const struct eg_enc *req) {
    switch (type_of(req)) {
    case EG_MSG_RELEASE:
    case EG_MSG_TOPIC_CREATE:
    case EG_MSG_TOPIC_ALTER:
    case EG_MSG_TOPIC_DELETE:
    case EG_MSG_SHUTDOWN:
        return false;
    default:
        return true;
    }
}

int eg_session_request(struct eagre *e, struct eg_enc *req, void *reply_buf, size_t reply_cap,
                       struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds) {
    uint32_t unused;
    return eg_session_request_in(e, req, reply_buf, reply_cap, reply, fds, fds_cap, nfds, &unused);
}

int eg_session_request_in(struct eagre *e, struct eg_enc *req, void *reply_buf, size_t reply_cap,
                          struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                          uint32_t *generation) {
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    int64_t deadline = eg_mono_ns() + EG_REQUEST_LIMIT_NS;
    bool opens = !req->overflow && type_of(req) == EG_MSG_OPEN;
    pthread_mutex_lock(&e->lock);
    for (int attempt = 0; attempt < 2; attempt++) {
        bool sent = false;
        rc = opens ? reserve_held(e) : EAGRE_OK;
        if (rc != EAGRE_OK)
            break;
        rc = e->sock >= 0 ? EAGRE_OK : eg_session_connect(e, deadline);
        if (rc != EAGRE_OK)
            break;
        rc = eg_session_exchange(e, req, reply_buf, reply_cap, reply, fds, fds_cap, nfds, deadline,
                                 &sent);
        bool died = rc == EAGRE_E_NO_DAEMON && e->sock < 0;
        if (!died || (sent && !may_be_repeated(req)))
            break;
    }
    if (rc == EAGRE_OK && opens)
        note_open(e, req, *reply);
    *generation = eg_load_relaxed(&e->generation); /* written under the lock */
    pthread_mutex_unlock(&e->lock);
    return rc;
}

/* Nothing is ever sent to us unasked, so readable means closed. */
static bool is_connected(const struct eagre *e) {
    char byte;
    return e->sock >= 0 && eg_load_acquire(&e->bus->state) == EG_BUS_RUNNING &&
           eg_load_acquire(&e->bus->epoch) == e->epoch &&
           recv(e->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

int eg_session_check(struct eagre *e) {
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    if (pthread_mutex_trylock(&e->lock) != 0)
        return EAGRE_OK; /* another thread is talking to it */
    if (!is_connected(e)) {
        int64_t now = eg_mono_ns();
        if (now < e->retry_ns) {
            rc = no_daemon(e);
        } else {
            rc = eg_session_connect(e, now + CHECK_LIMIT_NS);
            int64_t after = eg_mono_ns();
            /* One that hangs is asked ever less than half of the time. */
            e->retry_ns = rc == EAGRE_OK ? 0 : after + (after - now) + RETRY_AFTER_NS;
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc == EAGRE_OK ? EAGRE_OK : EAGRE_E_NO_DAEMON;
}

void eg_session_release(struct eagre *e, uint8_t role, uint32_t topic_uid, uint32_t generation) {
    uint8_t buf[256];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    if (eg_session_forked(e) != EAGRE_OK)
        return;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_RELEASE, 0, 0);
    eg_enc_u8(&req, role);
    eg_enc_u32(&req, topic_uid);
    pthread_mutex_lock(&e->lock);
    /* Of another generation: the grant went with its instance. Without a connection, or if it breaks now, we say
     * what is left when we attach again. */
    if (generation == eg_load_relaxed(&e->generation) && note_release(e, role, topic_uid) &&
        e->sock >= 0)
        eg_session_exchange(e, &req, answer, sizeof(answer), &reply, NULL, 0, NULL,
                            eg_mono_ns() + EG_REQUEST_LIMIT_NS, NULL);
    pthread_mutex_unlock(&e->lock);
}
