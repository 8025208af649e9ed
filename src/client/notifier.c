#include "client/notifier.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log/waiters.h"
#include "sys/errbuf.h"
#include "sys/futex.h"

struct eg_notifier {
    int fd;
    pthread_t thread;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    _Atomic uint32_t *bell; /* NULL: not armed */
    uint32_t seen;
    int64_t limit_ns;
    bool stop;
};

static void *run(void *arg) {
    struct eg_notifier *n = arg;
    pthread_mutex_lock(&n->lock);
    while (!n->stop) {
        if (n->bell == NULL) {
            pthread_cond_wait(&n->changed, &n->lock);
            continue;
        }
        _Atomic uint32_t *bell = n->bell;
        uint32_t seen = n->seen;
        int64_t limit_ns = n->limit_ns;
        pthread_mutex_unlock(&n->lock);
        /* Bounded: then the owner polls, which also looks after the session, and arms again. */
        eg_futex_wait(bell, seen, limit_ns);
        pthread_mutex_lock(&n->lock);
        if (n->bell == bell && n->seen == seen) {
            n->bell = NULL;
            eg_notifier_signal(n);
        }
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

int eg_notifier_open(struct eg_notifier **out) {
    struct eg_notifier *n = calloc(1, sizeof(*n));
    if (n == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a notifier");
    n->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (n->fd < 0) {
        int rc = eg_error_set(EAGRE_E_SYSTEM, "cannot make an eventfd: %s", strerror(errno));
        free(n);
        return rc;
    }
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->changed, NULL);
    /* The application's signals are for the application's threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&n->thread, NULL, run, n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0) {
        close(n->fd);
        free(n);
        return eg_error_set(EAGRE_E_SYSTEM, "cannot start the notifier's thread: %s", strerror(err));
    }
    *out = n;
    return EAGRE_OK;
}

void eg_notifier_close(struct eg_notifier *n) {
    if (n == NULL)
        return;
    pthread_mutex_lock(&n->lock);
    n->stop = true;
    pthread_cond_signal(&n->changed);
    pthread_mutex_unlock(&n->lock);
    pthread_join(n->thread, NULL); /* at most EG_SLEEP_MAX_NS in the futex */
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
    close(n->fd);
    free(n);
}

int eg_notifier_fd(const struct eg_notifier *n) { return n->fd; }

void eg_notifier_arm(struct eg_notifier *n, _Atomic uint32_t *bell, uint32_t seen, int64_t limit_ns) {
    pthread_mutex_lock(&n->lock);
    n->bell = bell;
    n->seen = seen;
    n->limit_ns = limit_ns;
    pthread_cond_signal(&n->changed);
    pthread_mutex_unlock(&n->lock);
}

void eg_notifier_signal(struct eg_notifier *n) {
    uint64_t one = 1;
    ssize_t ignored = write(n->fd, &one, sizeof(one)); /* full: it is readable already */
    (void)ignored;
}

void eg_notifier_drain(struct eg_notifier *n) {
    uint64_t count;
    ssize_t ignored = read(n->fd, &count, sizeof(count)); /* empty: nothing to drain */
    (void)ignored;
}
