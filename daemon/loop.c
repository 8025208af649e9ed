#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define ROUND 64

struct eg_loop {
    int epoll_fd;
    bool stop;
    bool coarse; /* this kernel waits in milliseconds */
    int count; /* events of this round, those before `next` are done */
    int next;
    struct epoll_event events[ROUND];
};

int eg_loop_open(struct eg_loop **out) {
    struct eg_loop *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the event loop");
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0) {
        free(l);
        return eg_error_set(EAGRE_E_SYSTEM, "epoll_create1: %s", strerror(errno));
    }
    *out = l;
    return EAGRE_OK;
}

void eg_loop_close(struct eg_loop *l) {
    if (l != NULL)
        close(l->epoll_fd);
    free(l);
}

static int control(struct eg_loop *l, int op, struct eg_watch *w, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = w};
    if (epoll_ctl(l->epoll_fd, op, w->fd, &e) != 0)
        return eg_error_set(EAGRE_E_SYSTEM, "epoll_ctl on descriptor %d: %s", w->fd,
                            strerror(errno));
    return EAGRE_OK;
}

int eg_loop_add(struct eg_loop *l, struct eg_watch *w, uint32_t events) {
    return control(l, EPOLL_CTL_ADD, w, events);
}

int eg_loop_change(struct eg_loop *l, struct eg_watch *w, uint32_t events) {
    return control(l, EPOLL_CTL_MOD, w, events);
}

void eg_loop_remove(struct eg_loop *l, struct eg_watch *w) {
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    for (int i = l->next; i < l->count; i++)
        if (l->events[i].data.ptr == w)
            l->events[i].data.ptr = NULL;
}

void eg_loop_stop(struct eg_loop *l) { l->stop = true; }

#define NAP_NS (2 * EG_NS_PER_MS)
#define FOR_EVER (-1)

/* Rather late than a round too many: in whole milliseconds, but for who cannot wait for one. */
static int64_t timeout_ns(int64_t now, int64_t next) {
    if (next == INT64_MAX)
        return FOR_EVER;
    if (next <= now)
        return 0;
    if (next - now < EG_NS_PER_MS / 2)
        return next - now;
    int64_t ms = (next - now - 1) / EG_NS_PER_MS + 1;
    return (ms > 3600000 ? 3600000 : ms) * EG_NS_PER_MS;
}

static int wait_events(struct eg_loop *l, int64_t timeout) {
    if (timeout > 0 && timeout < EG_NS_PER_MS && !l->coarse) {
        struct timespec ts = {.tv_nsec = (long)timeout};
        int n = epoll_pwait2(l->epoll_fd, l->events, ROUND, &ts, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
        l->coarse = true; /* Linux 5.10 */
    }
    return epoll_wait(l->epoll_fd, l->events, ROUND, timeout < 0 ? -1 : (int)((timeout + EG_NS_PER_MS - 1) / EG_NS_PER_MS));
}

static void wait_and_call(struct eg_daemon *d, int64_t timeout) {
    struct eg_loop *l = d->loop;
    bool announce = timeout != 0;
    if (announce) {
        eg_store_relaxed(&d->bus->asleep, timeout > 0 && timeout <= NAP_NS ? EG_NAPPING : EG_ASLEEP);
        eg_fence_seq_cst(); /* before the last look; partner: tell_daemon()'s in src/log/rotate.c */
        if (eg_slots_moved(d))
            timeout = 0;
    }
    int n = wait_events(l, timeout);
    if (announce)
        eg_store_relaxed(&d->bus->asleep, EG_AWAKE); /* late: somebody rings for nothing */
    if (n < 0) {
        if (errno == EINTR)
            return;
        eg_log_error("epoll_wait: %s", strerror(errno));
        l->stop = true;
        return;
    }
    l->count = n;
    for (l->next = 0; l->next < l->count;) {
        struct epoll_event *e = &l->events[l->next++];
        struct eg_watch *w = e->data.ptr;
        if (w != NULL)
            w->ready(d, w, e->events);
    }
    l->count = 0;
}

void eg_loop_run(struct eg_daemon *d) {
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul); /* ns; 50 us is as long as a flush */
    while (!d->loop->stop) {
        int64_t now = eg_mono_ns();
        int64_t next = eg_services_tick(d, now);
        if (d->loop->stop)
            break;
        wait_and_call(d, timeout_ns(eg_mono_ns(), next));
    }
}
