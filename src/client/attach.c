/* What a client has: its owner number, its page of pins, its bells. */
#include "client/session.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/attach.h"
#include "client/exchange.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/liveness.h"
#include "sys/membarrier.h"
#include "sys/shm.h"

/* The page that a daemon handed us again must be the one that we have mapped. */
static int check_same_page(struct eagre *e, int fd) {
    struct stat ours;
    struct stat theirs;
    if (fstat(e->page_fd, &ours) != 0 || fstat(fd, &theirs) != 0)
        return eg_error_set(EAGRE_E_SYSTEM, "client page: fstat: %s", strerror(errno));
    if (ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev)
        return eg_error_set(EAGRE_E_PROTOCOL, "eagred knows another client page of this client");
    return EAGRE_OK;
}

/* Said before any of these cells holds a pin; see layout.h. Release, relaxed would do: who pins there and then finds
 * its segment open is seen by the daemon with all that it stored before. */
static void say_cells(struct eagre *e, uint32_t cells) {
    if (eg_load_relaxed(&e->page->cells) < cells)
        eg_store_release(&e->page->cells, cells);
}

/* Map the page and the bells of a new life: over the old ones, if there are. */
static int take_page(struct eagre *e, int page_fd, int bells_fd, const struct eg_bus *bus) {
    void *page;
    void *bells;
    int rc =
        eg_session_map(page_fd, sizeof(struct eg_client_page), true, e->page, "client page", &page);
    if (rc != EAGRE_OK)
        return rc;
    e->page = page;
    rc = eg_session_map(bells_fd, sizeof(struct eg_bells), false, e->bells_ro, "bells", &bells);
    if (rc != EAGRE_OK)
        return rc;
    e->bells_ro = bells;
    /* The bells' magic tells nothing: every topic's producers can write to them. Their size was looked at. */
    rc = eg_magic_check(&e->page->magic, EG_MAGIC_CLIENT, "client page from eagred");
    if (rc == EAGRE_OK)
        rc = eg_page_lock(page_fd);
    if (rc != EAGRE_OK)
        return rc;
    for (uint32_t w = 0; w < EG_CLIENT_PINS / 64; w++) /* of handles that go on to the new life */
        if (e->pins_used[w] != 0)
            say_cells(e, w * 64 + 64 - (uint32_t)__builtin_clzll(e->pins_used[w]));
    bool registered = eg_membarrier_register();
    eg_store_release(&e->page->flags, registered ? EG_CLIENT_MEMBARRIER : 0);
    e->full_fence = !registered || (eg_load_acquire(&bus->flags) & EG_BUS_NO_MEMBARRIER) != 0;
    return EAGRE_OK;
}

int eg_attach_send(struct eagre *e, uint32_t owner, int64_t deadline_ns, struct eg_late **out) {
    struct eg_enc req;
    eg_enc_begin(&req, e->in, sizeof(e->in), EG_MSG_ATTACH, 0, 0); /* nothing that came is in use now */
    eg_enc_u32(&req, owner);
    eg_enc_u64(&req, owner != 0 ? e->cookie : 0);
    if (owner != 0) {
        eg_enc_u16(&req, (uint16_t)e->held_count);
        for (size_t i = 0; i < e->held_count; i++) {
            eg_enc_u32(&req, e->held[i].topic_uid);
            eg_enc_u16(&req, e->held[i].producers);
            eg_enc_u16(&req, e->held[i].consumers);
        }
        eg_enc_u16(&req, (uint16_t)e->member_count);
        for (size_t i = 0; i < e->member_count; i++)
            eg_enc_u64(&req, e->members[i]);
    }
    return eg_late_send(e, &req, deadline_ns, out);
}

int eg_attach_take(struct eagre *e, struct eg_late *l, bool again, const struct eg_bus *bus) {
    uint8_t answer[1024];
    struct eg_dec reply;
    int fds[2] = {-1, -1};
    size_t nfds = 0;
    int rc = eg_late_take(e, l, answer, sizeof(answer), &reply, fds, 2, &nfds);
    if (rc != EAGRE_OK)
        return rc;
    uint32_t owner = eg_dec_u32(&reply);
    uint64_t cookie = eg_dec_u64(&reply);
    if (!eg_dec_end(&reply) || nfds != 2 || owner == 0 || owner > EG_CLIENTS_MAX ||
        (again && owner != e->owner))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to ATTACH is malformed");
    else
        rc = again ? check_same_page(e, fds[0]) : take_page(e, fds[0], fds[1], bus);

    if (rc == EAGRE_OK && !again) {
        if (e->page_fd >= 0)
            close(e->page_fd);
        e->page_fd = fds[0];
        fds[0] = -1;
        e->owner = owner;
    }
    if (rc == EAGRE_OK)
        e->cookie = cookie;
    for (size_t i = 0; i < nfds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    /* To close any descriptor of the page gives up the lock on it: take it again. Our pidfd has
     * spoken for us meanwhile. */
    if (again && e->page_fd >= 0) {
        int locked = eg_page_lock(e->page_fd);
        if (rc == EAGRE_OK)
            rc = locked;
    }
    return rc;
}

int eg_client_attach(struct eagre *e) {
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    int64_t deadline = eg_mono_ns() + eg_request_limit_ns;
    if (!eg_session_lock(e, deadline))
        return eg_session_timed_out(e);
    for (int attempt = 0; attempt < 2 && e->owner == 0; attempt++) {
        struct eg_late *l = NULL;
        rc = eg_session_connect(e, deadline);
        if (rc == EAGRE_OK && e->owner != 0)
            break; /* that was part of it */
        if (rc == EAGRE_OK)
            rc = eg_attach_send(e, 0, deadline, &l);
        bool asked = l != NULL;
        if (rc == EAGRE_OK && (rc = eg_late_wait(e, l, deadline)) == EAGRE_OK) {
            rc = eg_attach_take(e, l, false, e->bus);
            l = NULL;
        }
        /* To the daemon this connection may be a client now, once and for all, whose page we do not have. */
        if (rc != EAGRE_OK && asked)
            eg_session_disconnect(e);
        eg_late_give_up(e, l);
        if (rc == EAGRE_E_WOULD_BLOCK)
            rc = eg_session_timed_out(e);
        if (rc != EAGRE_E_NO_DAEMON)
            break; /* else it died since the last request: once more */
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int eg_attach_producer(struct eagre *e, uint32_t generation, int bells_fd) {
    int rc = EAGRE_OK;
    pthread_mutex_lock(&e->lock);
    if (generation != eg_load_relaxed(&e->generation)) {
        rc = eg_error_set(EAGRE_E_NO_DAEMON, "eagred was replaced by another instance meanwhile");
    } else if (e->bells_rw == NULL || e->bells_rw_generation != generation) {
        void *bells = NULL;
        rc = eg_session_map(bells_fd, sizeof(struct eg_bells), true, e->bells_rw, "bells", &bells);
        if (rc == EAGRE_OK) {
            e->bells_rw = bells;
            e->bells_rw_generation = generation;
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int eg_pin_cell_get(struct eagre *e, _Atomic uint64_t **cell) {
    int rc = EAGRE_E_LIMIT;
    pthread_mutex_lock(&e->lock);
    for (size_t w = 0; w < EG_CLIENT_PINS / 64; w++) {
        if (e->pins_used[w] == UINT64_MAX)
            continue;
        unsigned b = (unsigned)__builtin_ctzll(~e->pins_used[w]);
        e->pins_used[w] |= 1ull << b;
        *cell = &e->page->pin[w * 64 + b].pin;
        say_cells(e, (uint32_t)w * 64 + b + 1);
        rc = EAGRE_OK;
        break;
    }
    pthread_mutex_unlock(&e->lock);
    if (rc != EAGRE_OK)
        eg_error_set(rc,
                     "an instance can have %u producers and consumers: close some, or open another "
                     "instance",
                     EG_CLIENT_PINS);
    return rc;
}

void eg_pin_cell_put(struct eagre *e, _Atomic uint64_t *cell) {
    struct eg_pin_cell *c = (struct eg_pin_cell *)(void *)cell;
    size_t i = (size_t)(c - e->page->pin);
    if (eg_session_forked(e) != EAGRE_OK)
        return; /* the page is the parent's */
    /* Release: what we read under the pin was read before. Partner: the daemon's scan. */
    eg_store_release(&c->pin, EG_PIN_NONE);
    pthread_mutex_lock(&e->lock);
    e->pins_used[i / 64] &= ~(1ull << i % 64);
    pthread_mutex_unlock(&e->lock);
}

int eg_bell_get_late(struct eagre *e, struct eg_late **late, int64_t until_ns, uint32_t *bell,
                     uint32_t *generation) {
    uint8_t buf[64];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_BELL, 0, 0);
    int rc = eg_session_request_late(e, late, &req, answer, sizeof(answer), &reply, NULL, 0, NULL, until_ns,
                                     generation);
    if (rc != EAGRE_OK)
        return rc;
    uint32_t got = eg_dec_u32(&reply);
    if (!eg_dec_end(&reply) || got >= EG_BELLS_MAX)
        return eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to BELL is malformed");
    *bell = got;
    return EAGRE_OK;
}

int eg_bell_get(struct eagre *e, uint32_t *bell) {
    struct eg_late *late = NULL;
    int rc = eg_bell_get_late(e, &late, eg_mono_ns() + eg_request_limit_ns, bell, NULL);
    eg_session_give_up(e, &late);
    return rc == EAGRE_E_WOULD_BLOCK ? EAGRE_E_TIMED_OUT : rc;
}

void eg_bell_put(struct eagre *e, uint32_t bell) {
    eg_session_return(e, EG_MSG_BELL, 0, bell, eg_load_relaxed(&e->generation));
}
