#include "bus.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/futex.h"
#include "sys/membarrier.h"
#include "sys/rand.h"
#include "sys/shm.h"

#define BELLS_BYTES eg_align_up(sizeof(struct eg_bells), EG_PAGE)

/* Map the kept object `name` of exactly `bytes`; *fd_out = -1 if there is none of that kind. */
static void *take(struct eg_daemon *d, const char *name, size_t bytes, int *fd_out) {
    void *at;
    size_t there;
    *fd_out = -1;
    int fd = eg_keep_take(d->keep, name);
    if (fd < 0)
        return NULL;
    int rc = eg_memfd_check(fd, &there);
    if (rc == EAGRE_OK && there != bytes)
        rc = eg_error_set(EAGRE_E_CORRUPT, "it has %zu bytes, not %zu", there, bytes);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, bytes, true, &at);
    if (rc != EAGRE_OK) {
        eg_log_error("the keeper's '%s' is not usable: %s", name, eg_error_text());
        eg_keep_drop(d->keep, name);
        close(fd);
        return NULL;
    }
    *fd_out = fd;
    return at;
}

static int make(const char *name, size_t bytes, int *fd_out, void **at_out) {
    int fd;
    int rc = eg_memfd_create(name, bytes, false, &fd);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_shm_allocate(fd, 0, bytes);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, bytes, true, at_out);
    if (rc != EAGRE_OK) {
        close(fd);
        return rc;
    }
    *fd_out = fd;
    return EAGRE_OK;
}

/* The memory belongs to an instance that we cannot continue: all of it goes. */
static void drop_all(struct eg_daemon *d) {
    const char *name;
    while ((name = eg_keep_left(d->keep, 0)) != NULL)
        eg_keep_drop(d->keep, name);
    d->fresh = true;
}

/* A keeper is found by the socket, topics by the directory. Another directory's topics, or these in a state that
 * is not this memory's, have the same ids and may have the same settings: only this tells. */
static int check_directory(struct eg_daemon *d) {
    uint64_t noted;
    int rc = eg_meta_instance_get(d->meta, &noted);
    if (rc != EAGRE_OK || noted == d->bus->instance_id)
        return rc;
    return eg_error_set(EAGRE_E_STATE,
                        "the keeper of %s holds the memory of a daemon that did not use %s, or used it in another "
                        "state: start eagred with that one's --dir, or end the keeper (its pid is in "
                        "%s.keeper.pid) to start empty",
                        d->config.socket, d->config.dir, d->config.socket);
}

static int start_page(struct eg_daemon *d) {
    d->bus = take(d, "bus", EG_PAGE, &d->bus_fd);
    if (d->bus != NULL &&
        eg_magic_check(&d->bus->magic, EG_MAGIC_BUS, "the keeper's bus page") != EAGRE_OK) {
        eg_log_error("the memory of the last daemon cannot be used: %s", eg_error_text());
        eg_store_release(&d->bus->state, EG_BUS_STOPPED); /* for clients that still look at it */
        eg_keep_drop(d->keep, "bus");
        eg_unmap(d->bus, EG_PAGE);
        close(d->bus_fd);
        d->bus = NULL;
    }
    if (d->bus != NULL && eg_load_relaxed(&d->bus->state) == EG_BUS_STOPPED) {
        /* Killed in its clean stop, which lets the memory go: its logs may be closed already. */
        eg_log_warning("the last daemon was killed while it stopped: topics start with empty memory");
        eg_keep_drop(d->keep, "bus");
        eg_unmap(d->bus, EG_PAGE);
        close(d->bus_fd);
        d->bus = NULL;
        drop_all(d);
    }
    if (d->bus == NULL) {
        if (!d->fresh)
            eg_log_error("the keeper has no usable bus page: topics start with empty memory");
        drop_all(d);
        void *at;
        int rc = make("eagre-bus", EG_PAGE, &d->bus_fd, &at);
        if (rc != EAGRE_OK)
            return rc;
        d->bus = at;
        eg_magic_init(&d->bus->magic);
        rc = eg_random_bytes(&d->bus->instance_id, sizeof(d->bus->instance_id));
        if (rc == EAGRE_OK) /* before anybody keeps it */
            rc = eg_meta_instance_put(d->meta, d->bus->instance_id);
        if (rc != EAGRE_OK)
            return rc;
    } else {
        int rc = check_directory(d);
        if (rc != EAGRE_OK)
            return rc;
    }
    d->instance_id = d->bus->instance_id;
    return eg_memfd_readonly(d->bus_fd, &d->bus_ro_fd);
}

/* Producers can write to the bells, so nothing in them is believed, not even the magic. */
static int start_bells(struct eg_daemon *d) {
    d->bells = take(d, "bells", BELLS_BYTES, &d->bells_fd);
    if (d->bells == NULL) {
        void *at;
        int rc = make("eagre-bells", BELLS_BYTES, &d->bells_fd, &at);
        if (rc != EAGRE_OK)
            return rc;
        d->bells = at;
    }
    eg_magic_init(&d->bells->magic);
    eg_magic_publish(&d->bells->magic, EG_MAGIC_BELLS);
    return eg_memfd_readonly(d->bells_fd, &d->bells_ro_fd);
}

static int put_all(struct eg_daemon *d) {
    int rc = eg_keep_put(d->keep, "bells", d->bells_fd);
    if (rc == EAGRE_OK)
        rc = eg_keep_put(d->keep, "bus", d->bus_fd); /* last: where it is, the others are */
    return rc;
}

static void close_all(struct eg_daemon *d) {
    int *const fds[] = {&d->bus_fd, &d->bus_ro_fd, &d->bells_fd, &d->bells_ro_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    if (d->bus != NULL)
        eg_unmap(d->bus, EG_PAGE);
    if (d->bells != NULL)
        eg_unmap(d->bells, BELLS_BYTES);
    d->bus = NULL;
    d->bells = NULL;
}

static int bus_start(struct eg_daemon *d) {
    d->bus_fd = d->bus_ro_fd = d->bells_fd = d->bells_ro_fd = -1;
    int rc = start_page(d);
    if (rc == EAGRE_OK)
        rc = start_bells(d);
    if (rc != EAGRE_OK) {
        close_all(d);
        return rc;
    }
    eg_membarrier_register(); /* as a producer of pads; where that fails, so does what follows */
    d->membarrier = eg_membarrier_available();
    /* Clients that are attached rely on it, and nothing that we could store would reach them in time. */
    if (!d->membarrier && !d->fresh && (eg_load_relaxed(&d->bus->flags) & EG_BUS_NO_MEMBARRIER) == 0) {
        close_all(d);
        return eg_error_set(EAGRE_E_UNSUPPORTED,
                            "membarrier(2) is not available (a seccomp filter?), but clients of the last daemon rely "
                            "on it: allow it, or end the keeper (its pid is in %s.keeper.pid) to start empty",
                            d->config.socket);
    }
    if (!d->membarrier)
        eg_log_warning("membarrier is not available here: clients use full fences, which costs "
                       "producers some nanoseconds a record");

    d->epoch =
        eg_load_relaxed(&d->bus->epoch) + 1; /* only daemons write it, and we hold the lock */
    eg_store_relaxed(&d->bus->flags, d->membarrier ? 0 : EG_BUS_NO_MEMBARRIER);
    eg_store_relaxed(&d->bus->asleep, EG_AWAKE);
    eg_store_relaxed(&d->bus->daemon_pid, (uint32_t)getpid());
    eg_store_relaxed(&d->bus->state, EG_BUS_RUNNING);
    /* Release: who sees the epoch sees the lines above. Partner: clients' acquire. */
    eg_store_release(&d->bus->epoch, d->epoch);
    eg_magic_publish(&d->bus->magic, EG_MAGIC_BUS);
    rc = put_all(d);
    if (rc != EAGRE_OK) {
        close_all(d);
        return rc;
    }
    if (!d->fresh)
        eg_bus_ring_all(d); /* a waker may have died between its bit and the bell */
    eg_log_info("%s instance %016" PRIx64 ", epoch %u", d->fresh ? "new" : "continuing",
                d->instance_id, d->epoch);
    return EAGRE_OK;
}

void eg_bus_ring_all(struct eg_daemon *d) {
    for (size_t i = 0; i < EG_BELLS_MAX; i++) {
        /* Release: whoever wakes by it sees what happened before. */
        atomic_fetch_add_explicit(&d->bells->bell[i].rings, 1, memory_order_release);
        eg_futex_wake(&d->bells->bell[i].rings, INT_MAX);
    }
}

static void bus_stop(struct eg_daemon *d, bool keep) {
    eg_store_relaxed(&d->bus->daemon_pid, 0);
    if (!keep) {
        /* Release: who sees it sees the slots that the other services closed. Partner: clients' acquire. */
        eg_store_release(&d->bus->state, EG_BUS_STOPPED);
        eg_bus_ring_all(d);
    }
    close_all(d);
}

const struct eg_service eg_bus_service = {.name = "bus", .start = bus_start, .stop = bus_stop};
