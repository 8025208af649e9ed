/*
 * topic_bell.c - the eventfd by which a topic's producers wake the daemon. One a topic: who may ring it may also
 * empty it, fill it up or make it block, and must not harm other topics by that.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "partition.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"

static void keep_name(const struct eg_topic *t, char *buf, size_t cap) {
    snprintf(buf, cap, "t%u.event", t->meta.uid);
}

static bool is_eventfd(int fd) {
    char link[64], target[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    return strcmp(target, "anon_inode:[eventfd]") == 0;
}

static void rung(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    struct eg_topic *t = eg_container_of(w, struct eg_topic, bell);
    uint64_t count;
    struct iovec to = {&count, sizeof(count)};
    (void)events;
    /* RWF_NOWAIT: O_NONBLOCK is a flag of the open file, which any producer can clear. */
    ssize_t ignored = preadv2(w->fd, &to, 1, -1, RWF_NOWAIT);
    (void)ignored;
    for (uint32_t k = 0; k < t->partitions; k++) {
        struct eg_partition *p = t->part[k];
        /* Set before the eventfd was written. A partition that is watched is looked at now, too. */
        if (p->buffers != NULL && eg_load_relaxed(&p->ring->watched) != 0)
            eg_slots_wake(d, p);
    }
}

int eg_topic_bell_open(struct eg_daemon *d, struct eg_topic *t) {
    char name[EG_KEEP_NAME_MAX + 1];
    keep_name(t, name, sizeof(name));
    int fd = eg_keep_take(d->keep, name);
    if (fd >= 0 && !is_eventfd(fd)) {
        eg_log_error("the keeper's '%s' is no eventfd", name);
        eg_keep_drop(d->keep, name);
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return eg_error_set(EAGRE_E_SYSTEM, "eventfd: %s", strerror(errno));
    t->bell = (struct eg_watch){.fd = fd, .ready = rung};
    int rc = eg_keep_put(d->keep, name, fd);
    if (rc == EAGRE_OK) {
        rc = eg_loop_add(d->loop, &t->bell, EPOLLIN | EPOLLET);
        if (rc != EAGRE_OK)
            eg_keep_drop(d->keep, name);
    }
    if (rc != EAGRE_OK)
        close(fd);
    return rc;
}

void eg_topic_bell_close(struct eg_daemon *d, struct eg_topic *t, bool drop) {
    char name[EG_KEEP_NAME_MAX + 1];
    keep_name(t, name, sizeof(name));
    eg_loop_remove(d->loop, &t->bell);
    if (drop && eg_keep_drop(d->keep, name) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    close(t->bell.fd);
}
