#include "keep.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"
#include "keep_process.h"
#include "keeper/table.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "systemd.h"

_Static_assert(EG_KEEP_NAME_MAX + 1 == EG_KEPT_NAME, "names fit the keeper's table");

#define RETRY_NS EG_NS_PER_S

enum kind { NONE, PROCESS, SYSTEMD };

struct eg_keep {
    enum kind kind;
    struct eg_config config;
    struct eg_keeper_link link; /* PROCESS */
    struct eg_watch watch;      /* of link.sock: notices that the keeper ended */
    struct eg_loop *loop;       /* NULL until eg_keep_service watches */
    int64_t retry_ns;           /* lost: when to start another; 0: not lost */

    /* All that is kept. The fd of an entry is ours until it is taken, afterwards its user's. */
    struct eg_kept_table table;
    ino_t inode[EG_KEPT_MAX + 1];
    uint32_t left[EG_KEPT_MAX]; /* entries that were not taken, in no order */
    uint32_t left_count;
    uint32_t left_at[EG_KEPT_MAX + 1]; /* entry's place in left, +1; 0: taken */
};

static const char *const kinds[] = {"none", "process", "systemd"};

static bool is_kept_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > EG_KEEP_NAME_MAX)
        return false;
    if (strcmp(name, "bus") == 0 || strcmp(name, "bells") == 0 ||
        strcmp(name, "clients") == 0)
        return true;
    return strchr("cgmtp", name[0]) != NULL && name[1] >= '0' && name[1] <= '9';
}

static ino_t inode_of(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void mark_left(struct eg_keep *k, uint32_t entry) {
    k->left[k->left_count++] = entry;
    k->left_at[entry] = k->left_count;
}

static void unmark_left(struct eg_keep *k, uint32_t entry) {
    uint32_t at = k->left_at[entry] - 1;
    uint32_t last = k->left[--k->left_count];
    k->left[at] = last;
    k->left_at[last] = at + 1;
    k->left_at[entry] = 0;
}

/* ---- finding what the last daemon left ------------------------------------------------------------- */

static int adopt(void *ctx, const char *name, int fd) {
    struct eg_keep *k = ctx;
    uint32_t i = 0;
    if (!is_kept_name(name) || eg_kept_find(&k->table, name) != 0 ||
        (i = eg_kept_add(&k->table, name, fd)) == 0) {
        eg_log_warning(
            "a descriptor named '%.63s' was handed back, which is not one of ours: closed", name);
        close(fd);
        return EAGRE_OK;
    }
    k->inode[i] = inode_of(fd);
    mark_left(k, i);
    return EAGRE_OK;
}

static int list_process(struct eg_keep *k) {
    struct eg_keeper_message m = {.op = EG_KEEPER_LIST};
    int fds[EG_KEEPER_BATCH];
    do {
        size_t n;
        m.count = 0;
        int rc = eg_keeper_ask(&k->link, &m, NULL, 0, fds, &n);
        if (rc != EAGRE_OK)
            return rc;
        for (size_t i = 0; i < n; i++) {
            m.names[i][EG_KEEP_NAME_MAX] = '\0';
            adopt(k, m.names[i], fds[i]);
        }
    } while (m.from != 0);
    return EAGRE_OK;
}

static int open_process(struct eg_keep *k) {
    int rc = eg_keeper_connect(&k->link, &k->config);
    if (rc == EAGRE_E_NO_DAEMON)
        rc = eg_keeper_start(&k->link, &k->config);
    if (rc == EAGRE_OK)
        rc = list_process(k);
    if (rc == EAGRE_E_CLOSED)
        return eg_error_set(
            EAGRE_E_STATE,
            "the keeper at %s" EG_KEEPER_SUFFIX " does not answer; it may hold the memory of the "
            "last daemon: continue it if it is stopped, or end it to start empty (its pid is "
            "in %s" EG_KEEPER_SUFFIX ".pid)",
            k->config.socket, k->config.socket);
    return rc;
}

int eg_keep_open(const struct eg_config *config, struct eg_keep **out, bool *fresh) {
    struct eg_keep *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the list of kept descriptors");
    k->config = *config;
    k->link.sock = -1;
    switch (config->keeper) {
    case EG_KEEPER_NONE:
        k->kind = NONE;
        break;
    case EG_KEEPER_SYSTEMD:
        k->kind = SYSTEMD;
        break;
    case EG_KEEPER_AUTO:
        k->kind = eg_systemd_is_there() ? SYSTEMD : PROCESS;
        break;
    default:
        k->kind = PROCESS;
    }
    int rc = EAGRE_OK;
    if (k->kind == PROCESS)
        rc = open_process(k);
    else if (k->kind == SYSTEMD)
        rc = eg_systemd_stored(adopt, k);
    if (rc != EAGRE_OK) {
        eg_keep_close(k, false);
        return rc;
    }
    *fresh = k->table.count == 0;
    *out = k;
    return EAGRE_OK;
}

/* ---- a keeper process that dies is replaced --------------------------------------------------------- */

static void watch(struct eg_keep *k, bool on);

static int put_batch(struct eg_keep *k, struct eg_keeper_message *m, const int *fds) {
    int rc = m->count > 0 ? eg_keeper_ask(&k->link, m, fds, m->count, NULL, NULL) : EAGRE_OK;
    *m = (struct eg_keeper_message){.op = EG_KEEPER_PUT};
    return rc;
}

/* The bus page last, on its own: should we die on the way, a successor that does not find it knows that what it
 * finds is not all, and takes none of it. */
static int put_everything(struct eg_keep *k) {
    struct eg_keeper_message m = {.op = EG_KEEPER_PUT};
    int fds[EG_KEEPER_BATCH], rc = EAGRE_OK;
    const uint32_t bus = eg_kept_find(&k->table, "bus"), used = k->table.used;
    for (uint32_t i = 1; rc == EAGRE_OK && i <= used + 1; i++) {
        if (i > used || m.count == EG_KEEPER_BATCH)
            rc = put_batch(k, &m, fds);
        const struct eg_kept *e = &k->table.entry[i > used ? bus : i];
        if (rc == EAGRE_OK && e->name[0] != '\0' && (i > used || i != bus)) {
            memcpy(m.names[m.count], e->name, EG_KEPT_NAME);
            fds[m.count++] = e->fd;
        }
    }
    return rc == EAGRE_OK ? put_batch(k, &m, fds) : rc;
}

static void replace_keeper(struct eg_keep *k) {
    watch(k, false);
    eg_keeper_hang_up(&k->link);
    int rc = eg_keeper_start(&k->link, &k->config);
    if (rc == EAGRE_OK)
        rc = put_everything(k);
    if (rc != EAGRE_OK) {
        eg_log_error("no keeper: a crash of this daemon would now lose what is in memory: %s",
                     eg_error_text());
        eg_keeper_hang_up(&k->link);
        k->retry_ns = eg_mono_ns() + RETRY_NS;
        return;
    }
    k->retry_ns = 0;
    watch(k, true);
    eg_log_info("a new keeper, pid %d, holds all %u objects", (int)k->link.pid, k->table.count);
}

static void lost(struct eg_keep *k) {
    eg_log_warning("%s: starting another", eg_error_text());
    replace_keeper(k);
}

static void link_ready(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    struct eg_keep *k = eg_container_of(w, struct eg_keep, watch);
    (void)d;
    (void)events; /* it never speaks without being asked: this is its end */
    eg_error_set(EAGRE_E_CLOSED, "the keeper (pid %d) has ended", (int)k->link.pid);
    lost(k);
}

static void watch(struct eg_keep *k, bool on) {
    if (k->loop == NULL || k->kind != PROCESS)
        return;
    if (k->watch.fd >= 0)
        eg_loop_remove(k->loop, &k->watch);
    k->watch = (struct eg_watch){.fd = on ? k->link.sock : -1, .ready = link_ready};
    if (on && eg_loop_add(k->loop, &k->watch, EPOLLIN | EPOLLRDHUP) != EAGRE_OK)
        eg_log_error("the keeper is not watched: %s", eg_error_text());
}

/* ---- put, drop, take --------------------------------------------------------------------------------- */

static int tell(struct eg_keep *k, enum eg_keeper_op op, const char *name, int fd) {
    if (k->kind == SYSTEMD && op == EG_KEEPER_PUT)
        return eg_systemd_store(name, fd);
    if (k->kind == SYSTEMD)
        return eg_systemd_remove(name);
    if (k->kind == NONE || k->retry_ns != 0)
        return EAGRE_OK;
    struct eg_keeper_message m = {.op = (uint16_t)op, .count = 1};
    strcpy(m.names[0], name);
    int before = k->link.sock;
    int rc = eg_keeper_ask(&k->link, &m, &fd, op == EG_KEEPER_PUT, NULL, NULL);
    if (rc != EAGRE_E_CLOSED)
        return rc;
    if (k->watch.fd == before) {
        /* Closed, so epoll has forgotten it. But its end may be among the events of this round, too, and would
         * then be taken for that of the new keeper. */
        eg_loop_remove(k->loop, &k->watch);
        k->watch.fd = -1;
    }
    lost(k);              /* gives the new one what the table says, this change included */
    return EAGRE_OK;
}

int eg_keep_put(struct eg_keep *k, const char *name, int fd) {
    if (!is_kept_name(name))
        return eg_error_set(EAGRE_E_INTERNAL, "'%s' is no name for a kept object", name);
    uint32_t i = eg_kept_find(&k->table, name);
    if (i != 0) {
        struct eg_kept *e = &k->table.entry[i];
        if (e->fd == fd && k->inode[i] == inode_of(fd))
            return EAGRE_OK; /* taken at the start, and still the same */
        if (k->left_at[i] != 0) {
            unmark_left(k, i);
            close(e->fd);
        }
        e->fd = fd;
        /* The keeper replaces in one step; systemd would keep both. */
        int rc = k->kind == SYSTEMD ? eg_systemd_remove(name) : EAGRE_OK;
        if (rc != EAGRE_OK) {
            eg_kept_remove(&k->table, i);
            return rc;
        }
    } else {
        i = eg_kept_add(&k->table, name, fd);
    }
    if (i == 0)
        return eg_error_set(
            EAGRE_E_LIMIT,
            "%u objects are in memory, which is the limit: use fewer topics, partitions or "
            "ring.segments",
            EG_KEPT_MAX);
    k->inode[i] = inode_of(fd);
    int rc = tell(k, EG_KEEPER_PUT, name, fd);
    if (rc != EAGRE_OK) /* the caller closes it */
        eg_kept_remove(&k->table, i);
    return rc;
}

int eg_keep_drop(struct eg_keep *k, const char *name) {
    uint32_t i = eg_kept_find(&k->table, name);
    if (i == 0)
        return EAGRE_OK;
    char copy[EG_KEPT_NAME]; /* name may lie in the table */
    strcpy(copy, k->table.entry[i].name);
    if (k->left_at[i] != 0) {
        unmark_left(k, i);
        close(k->table.entry[i].fd);
    }
    eg_kept_remove(&k->table, i);
    return tell(k, EG_KEEPER_DROP, copy, -1);
}

int eg_keep_take(struct eg_keep *k, const char *name) {
    uint32_t i = eg_kept_find(&k->table, name);
    if (i == 0 || k->left_at[i] == 0)
        return -1;
    unmark_left(k, i);
    return k->table.entry[i].fd;
}

const char *eg_keep_left(struct eg_keep *k, size_t i) {
    return i < k->left_count ? k->table.entry[k->left[i]].name : NULL;
}

const char *eg_keep_kind(const struct eg_keep *k) {
    return k->retry_ns != 0 ? "lost" : kinds[k->kind];
}

int eg_keep_pid(const struct eg_keep *k) { return (int)k->link.pid; }

static void stop_keeper(struct eg_keep *k) {
    if (k->kind == SYSTEMD) {
        for (uint32_t i = 1; i <= k->table.used; i++)
            if (k->table.entry[i].name[0] != '\0' &&
                eg_systemd_remove(k->table.entry[i].name) != EAGRE_OK)
                eg_log_warning("%s", eg_error_text());
    } else if (k->kind == PROCESS) {
        struct eg_keeper_message m = {.op = EG_KEEPER_STOP};
        if (k->link.sock >= 0 && eg_keeper_ask(&k->link, &m, NULL, 0, NULL, NULL) != EAGRE_OK)
            eg_log_warning("%s", eg_error_text());
        eg_keeper_remove_files(&k->config);
    }
}

void eg_keep_close(struct eg_keep *k, bool stop) {
    if (k == NULL)
        return;
    watch(k, false);
    if (stop)
        stop_keeper(k);
    while (k->left_count > 0) {
        uint32_t i = k->left[k->left_count - 1];
        unmark_left(k, i);
        close(k->table.entry[i].fd);
    }
    eg_keeper_hang_up(&k->link);
    free(k);
}

/* ---- as a service -------------------------------------------------------------------------------------- */

static int keep_start(struct eg_daemon *d) {
    int rc = eg_keep_open(&d->config, &d->keep, &d->fresh);
    if (rc != EAGRE_OK)
        return rc;
    d->keep->loop = d->loop;
    d->keep->watch.fd = -1;
    watch(d->keep, true);
    if (d->keep->kind == NONE)
        eg_log_warning("keeper=none: a crash or restart of this daemon loses what is in memory");
    return EAGRE_OK;
}

static int64_t keep_tick(struct eg_daemon *d, int64_t now_ns) {
    struct eg_keep *k = d->keep;
    if (k->retry_ns != 0 && now_ns >= k->retry_ns)
        replace_keeper(k);
    return k->retry_ns != 0 ? k->retry_ns : INT64_MAX;
}

static void keep_stop(struct eg_daemon *d, bool keep) {
    eg_keep_close(d->keep, !keep);
    d->keep = NULL;
}

const struct eg_service eg_keep_service = {
    .name = "keep", .start = keep_start, .tick = keep_tick, .stop = keep_stop};
