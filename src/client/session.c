#include "client/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/attach.h"
#include "client/exchange.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

#define RETRY_AFTER_NS (20 * EG_NS_PER_MS)
#define RELEASE_NS EG_NS_PER_S /* what closing a handle may wait for */

int64_t eg_request_limit_ns = 10 * EG_NS_PER_S;

int eg_session_forked(const struct eagre *e) {
    /* Written by the kernel at fork (the page is wiped), not by a thread: any load will do. */
    if (__atomic_load_n(e->fork_guard, __ATOMIC_RELAXED) != 0)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_FORKED,
                        "this instance was opened before fork(), in the parent: open "
                        "one in the child, or exec");
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

void eg_session_close_fd(const struct eagre *e, int fd) {
    if (fd >= 0 && *e->fork_guard != 0)
        close(fd);
}

static int no_daemon(const struct eagre *e) {
    return eg_error_set(EAGRE_E_NO_DAEMON,
                        "no eagred answers at %s: start one with `eagre up` (or: eagred --dir DIR "
                        "--socket %s)",
                        e->path, e->path);
}

int eg_session_timed_out(const struct eagre *e) {
    char who[32] = "";
    if (e->peer_pid > 0)
        snprintf(who, sizeof(who), " (pid %d)", e->peer_pid);
    return eg_error_set(EAGRE_E_TIMED_OUT, "eagred%s at %s has not answered: is it stopped?", who, e->path);
}

const char *eg_session_away(const struct eagre *e, char *buf, size_t cap) {
    int64_t since = eg_load_relaxed(&e->away_ns);
    buf[0] = '\0';
    if (since != 0)
        snprintf(buf, cap, "; the daemon (pid %u) is away for %.1f s", eg_load_relaxed(&e->daemon_pid),
                 (double)(eg_mono_ns() - since) / EG_NS_PER_S);
    return buf;
}

bool eg_session_lock(struct eagre *e, int64_t until_ns) {
    if (pthread_mutex_trylock(&e->lock) == 0)
        return true;
    int64_t left = until_ns - eg_mono_ns();
    if (left <= 0)
        return false;
    int64_t end = eg_now_ns() + left;
    struct timespec ts = {.tv_sec = end / EG_NS_PER_S, .tv_nsec = end % EG_NS_PER_S};
    return pthread_mutex_timedlock(&e->lock, &ts) == 0;
}

/* ---- connecting -------------------------------------------------------------------------------------- */

static int open_socket(struct eagre *e, int64_t deadline_ns) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return eg_error_set(EAGRE_E_SYSTEM, "socket: %s", strerror(errno));
    /* A full backlog (a stopped daemon) makes connect wait. No limit at all would be 0. */
    int64_t left = deadline_ns - eg_mono_ns();
    struct timeval limit = {.tv_usec = 1000};
    if (left > EG_NS_PER_MS)
        limit = (struct timeval){.tv_sec = left / EG_NS_PER_S, .tv_usec = left % EG_NS_PER_S / EG_NS_PER_US};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, e->path, sizeof(to.sun_path));
    int rc;
    do
        rc = connect(fd, (struct sockaddr *)&to, sizeof(to));
    while (rc != 0 && errno == EINTR);
    if (rc == 0) {
        struct ucred peer;
        socklen_t n = sizeof(peer);
        e->peer_pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 ? peer.pid : 0;
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

/* The bus page: ours at first, or another instance's. */
static int take_bus(struct eagre *e, uint64_t instance_id, int fd) {
    void *bus = NULL;
    int rc = eg_session_map(fd, EG_PAGE, false, NULL, "bus page", &bus);
    if (rc != EAGRE_OK)
        return rc;
    rc = check_bus(bus, instance_id);
    if (rc != EAGRE_OK)
        eg_unmap(bus, EG_PAGE);
    else if (e->bus == NULL)
        e->bus = bus;
    else
        e->greeting.bus = bus;
    return rc;
}

static int send_hello(struct eagre *e) {
    uint8_t buf[1024];
    char name[64];
    struct eg_enc req;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_HELLO, 0, 0);
    eg_enc_u32(&req, EG_LAYOUT_VERSION);
    eg_enc_u32(&req, eg_layout_fingerprint());
    eg_enc_u32(&req, (uint32_t)getpid());
    snprintf(name, sizeof(name), "%.63s", program_invocation_short_name);
    eg_enc_str(&req, name);
    e->stage = EG_GREETING;
    return eg_late_send(e, &req, 0, &e->step);
}

static int online(struct eagre *e) {
    if (e->greeting.bus != NULL) {
        /* First the generation: who finds the new bus running knows that it is not the one of its maps. */
        atomic_fetch_add_explicit(&e->generation, 1, memory_order_release);
        e->held_count = 0;
        e->member_count = 0;
        if (mremap(e->greeting.bus, EG_PAGE, EG_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, e->bus) == MAP_FAILED)
            return eg_error_set(EAGRE_E_SYSTEM, "bus page: mremap: %s", strerror(errno));
        e->greeting.bus = NULL;
    }
    e->instance_id = e->greeting.instance_id;
    e->epoch = e->greeting.epoch;
    eg_store_relaxed(&e->away_ns, 0);
    eg_store_relaxed(&e->daemon_pid, e->greeting.pid);
    e->stage = EG_ONLINE;
    return EAGRE_OK;
}

static int greeted(struct eagre *e, struct eg_late *l) {
    uint8_t answer[4096];
    char version[64];
    struct eg_dec reply;
    int bus_fd = -1;
    size_t nfds = 0;
    int rc = eg_late_take(e, l, answer, sizeof(answer), &reply, &bus_fd, 1, &nfds);
    if (rc != EAGRE_OK)
        return rc;
    e->greeting.instance_id = eg_dec_u64(&reply);
    e->greeting.epoch = eg_dec_u32(&reply);
    e->greeting.pid = eg_dec_u32(&reply);
    eg_dec_str(&reply, version, sizeof(version));
    if (!eg_dec_end(&reply) || nfds != 1)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's greeting is malformed");
    else if (e->bus == NULL || e->greeting.instance_id != e->instance_id)
        rc = take_bus(e, e->greeting.instance_id, bus_fd);
    if (nfds > 0)
        close(bus_fd);
    if (rc != EAGRE_OK || (e->owner == 0 && e->page_fd < 0)) /* a page: it was a client, and a daemon forgot it */
        return rc == EAGRE_OK ? online(e) : rc;
    e->stage = EG_ATTACHING;
    /* Another instance has never seen us. */
    return eg_attach_send(e, e->greeting.bus == NULL ? e->owner : 0, 0, &e->step);
}

/* The reply to the step that we are at has come (or never will): go on. */
static int next_step(struct eagre *e, struct eg_late *l) {
    if (e->stage != EG_ATTACHING)
        return greeted(e, l);
    const struct eg_bus *bus = e->greeting.bus != NULL ? e->greeting.bus : e->bus;
    bool again = bus == e->bus && e->owner != 0;
    int rc = eg_attach_take(e, l, again, bus);
    /* A client that holds nothing is forgotten if a daemon finds neither its connection nor its lock, which it has
     * not taken yet when the daemon before dies right after its answer. Nothing is lost: begin anew. */
    if (rc == EAGRE_E_PERMISSION && again && e->held_count == 0) {
        e->owner = 0;
        return eg_attach_send(e, 0, 0, &e->step);
    }
    return rc == EAGRE_OK ? online(e) : rc;
}

/* Nothing is left of an attempt to connect. */
void eg_session_disconnect(struct eagre *e) {
    eg_late_disconnect(e);
    eg_late_give_up(e, e->step);
    e->step = NULL;
    if (e->greeting.bus != NULL)
        eg_unmap(e->greeting.bus, EG_PAGE);
    e->greeting.bus = NULL;
    if (e->bus != NULL && eg_load_relaxed(&e->away_ns) == 0)
        eg_store_relaxed(&e->away_ns, eg_mono_ns());
}

int eg_session_connect(struct eagre *e, int64_t deadline_ns) {
    int rc = EAGRE_OK;
    if (e->stage == EG_OFFLINE) {
        eg_session_disconnect(e); /* what another call found to be closed */
        rc = open_socket(e, deadline_ns);
        if (rc != EAGRE_OK)
            return rc;
        e->connect_ns = eg_mono_ns();
        rc = send_hello(e);
    }
    while (rc == EAGRE_OK && e->stage != EG_ONLINE) {
        if (eg_late_wait(e, e->step, deadline_ns) != EAGRE_OK) {
            eg_session_timed_out(e);
            return EAGRE_E_WOULD_BLOCK;
        }
        struct eg_late *l = e->step;
        e->step = NULL;
        rc = next_step(e, l);
    }
    if (rc != EAGRE_OK)
        eg_session_disconnect(e);
    return rc;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

/* Those that would do harm if a daemon that died had done them before it could answer. */
static bool may_be_repeated(const struct eg_enc *req) {
    struct eg_msg_header h;
    memcpy(&h, req->data, sizeof(h));
    switch (h.type) {
    case EG_MSG_RELEASE:
    case EG_MSG_GROUP_DELETE:
    case EG_MSG_TOPIC_CREATE:
    case EG_MSG_TOPIC_ALTER:
    case EG_MSG_TOPIC_DELETE:
    case EG_MSG_SHUTDOWN:
        return false;
    default:
        return true;
    }
}

int64_t eg_session_patience(const struct eg_late *late) {
    return (late != NULL ? late->sent_ns : eg_mono_ns()) + EG_PATIENCE_NS;
}

void eg_session_give_up(struct eagre *e, struct eg_late **late) {
    if (*late == NULL || eg_session_forked(e) != EAGRE_OK)
        return;
    pthread_mutex_lock(&e->lock);
    eg_late_give_up(e, *late);
    pthread_mutex_unlock(&e->lock);
    *late = NULL;
}

int eg_session_request_late(struct eagre *e, struct eg_late **late, struct eg_enc *req, void *reply_buf,
                            size_t reply_cap, struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                            int64_t until_ns, uint32_t *generation) {
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    if (!eg_session_lock(e, until_ns)) {
        eg_error_set(EAGRE_E_TIMED_OUT, "another thread waits for an answer of eagred at %s: is it stopped?", e->path);
        return EAGRE_E_WOULD_BLOCK;
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        if (*late == NULL) {
            rc = eg_session_connect(e, until_ns);
            if (rc == EAGRE_OK)
                rc = eg_late_send(e, req, until_ns, late);
            if (rc == EAGRE_E_NO_DAEMON && e->stage == EG_OFFLINE)
                continue; /* it was closed since: once more */
            if (rc == EAGRE_E_TIMED_OUT)
                rc = EAGRE_E_WOULD_BLOCK;
            if (rc != EAGRE_OK)
                break;
        }
        rc = eg_late_wait(e, *late, until_ns);
        if (rc != EAGRE_OK) {
            eg_session_timed_out(e);
            break;
        }
        bool died = (*late)->rc == EAGRE_E_NO_DAEMON;
        if (generation != NULL)
            *generation = (*late)->generation;
        rc = eg_late_take(e, *late, reply_buf, reply_cap, reply, fds, fds_cap, nfds);
        *late = NULL;
        if (!died || !may_be_repeated(req))
            break;
    }
    if (rc != EAGRE_OK && generation != NULL)
        *generation = eg_load_relaxed(&e->generation);
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int eg_session_request(struct eagre *e, struct eg_enc *req, void *reply_buf, size_t reply_cap,
                       struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds) {
    struct eg_late *late = NULL;
    int rc = eg_session_request_late(e, &late, req, reply_buf, reply_cap, reply, fds, fds_cap, nfds,
                                     eg_mono_ns() + eg_request_limit_ns, NULL);
    if (rc != EAGRE_E_WOULD_BLOCK)
        return rc;
    eg_session_give_up(e, &late);
    return EAGRE_E_TIMED_OUT;
}

static bool is_connected(struct eagre *e) {
    return e->stage == EG_ONLINE && eg_load_acquire(&e->bus->state) == EG_BUS_RUNNING &&
           eg_load_acquire(&e->bus->epoch) == e->epoch && eg_late_drain(e);
}

int eg_session_check(struct eagre *e, int64_t until_ns) {
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    if (pthread_mutex_trylock(&e->lock) != 0)
        return EAGRE_OK; /* another thread is talking to it */
    if (!is_connected(e)) {
        int64_t now = eg_mono_ns();
        if (e->stage == EG_ONLINE)
            eg_session_disconnect(e);
        if (e->stage == EG_OFFLINE && now < e->retry_ns) {
            rc = no_daemon(e);
        } else {
            int64_t patience = (e->stage == EG_OFFLINE ? now : e->connect_ns) + EG_PATIENCE_NS;
            rc = eg_session_connect(e, until_ns < patience ? until_ns : patience);
            if (e->stage == EG_OFFLINE)
                e->retry_ns = eg_mono_ns() + RETRY_AFTER_NS;
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc == EAGRE_OK ? EAGRE_OK : EAGRE_E_NO_DAEMON;
}

/* RELEASE, BELL_FREE or GROUP_LEAVE. Who opens the next handle wants to find it done, so wait - unless the daemon hangs. */
void eg_session_return(struct eagre *e, uint16_t type, uint8_t role, uint64_t number, uint32_t generation) {
    struct eg_late *l;
    if (eg_session_forked(e) != EAGRE_OK)
        return;
    pthread_mutex_lock(&e->lock);
    if (generation == eg_load_relaxed(&e->generation) && /* else it went with its instance */
        eg_late_return(e, type, role, number, &l) == EAGRE_OK) {
        int64_t now = eg_mono_ns();
        eg_late_wait(e, l, eg_late_overdue(e) ? now : now + RELEASE_NS);
        eg_late_give_up(e, l);
    }
    pthread_mutex_unlock(&e->lock);
}

void eg_session_leave(struct eagre *e, uint64_t member, uint8_t how, uint32_t generation) {
    struct eg_late *l;
    if (eg_session_forked(e) != EAGRE_OK)
        return;
    pthread_mutex_lock(&e->lock);
    if (generation != eg_load_relaxed(&e->generation)) /* it went with its instance */
        eg_late_forget_member(e, member);
    else if (eg_late_return(e, EG_MSG_GROUP_JOIN, how, member, &l) == EAGRE_OK)
        eg_late_give_up(e, l);
    pthread_mutex_unlock(&e->lock);
}
