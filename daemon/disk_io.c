/*
 * disk_io.c - jobs, and the threads that do them. Everything but the threads' queue and the list of what they have
 * done belongs to the loop; one mutex for those two.
 */
#include "disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon.h"
#include "disk_fault.h"
#include "disk_uring.h"
#include "loop.h"
#include "sys/errbuf.h"

#define THREADS 4

struct eg_disk_io {
    struct eg_daemon *d;
    struct eg_watch watch; /* of the eventfd that ends of jobs write */
    struct eg_uring *uring; /* NULL: threads */
    uint32_t in_flight;

    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct eg_io_job *first, *last; /* to do */
    struct eg_io_job *done;
    bool stop;
    size_t threads;
    pthread_t thread[THREADS];
};

/* ---- threads --------------------------------------------------------------------------------------------- */

static int write_all(struct eg_io_job *j) {
    while (j->so_far < j->bytes) {
        ssize_t n = pwrite(j->fd, (const char *)j->data + j->so_far, j->bytes - j->so_far, (off_t)(j->at + j->so_far));
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (n == 0)
            return -EIO;
        j->so_far += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int do_job(struct eg_io_job *j) {
    switch (j->op) {
    case EG_IO_WRITE:
        return write_all(j);
    case EG_IO_DATASYNC:
        return fdatasync(j->fd) == 0 ? 0 : -errno; /* never a second time */
    case EG_IO_WRITEBACK:
        return sync_file_range(j->fd, (off_t)j->at, (off_t)j->bytes, SYNC_FILE_RANGE_WRITE) == 0 ? 0 : -errno;
    default:
        return j->call(j->arg);
    }
}

static void put_done(struct eg_disk_io *io, struct eg_io_job *j) {
    uint64_t one = 1;
    pthread_mutex_lock(&io->mutex);
    j->next = io->done;
    io->done = j;
    pthread_mutex_unlock(&io->mutex);
    ssize_t ignored = write(io->watch.fd, &one, sizeof(one));
    (void)ignored;
}

static void *worker(void *arg) {
    struct eg_disk_io *io = arg;
    pthread_mutex_lock(&io->mutex);
    for (;;) {
        while (io->first == NULL && !io->stop)
            pthread_cond_wait(&io->work, &io->mutex);
        struct eg_io_job *j = io->first;
        if (j == NULL)
            break;
        io->first = j->next;
        pthread_mutex_unlock(&io->mutex);
        j->result = do_job(j);
        if (j->result == 0 && j->linked)
            j->then->result = do_job(j->then);
        put_done(io, j);
        pthread_mutex_lock(&io->mutex);
    }
    pthread_mutex_unlock(&io->mutex);
    return NULL;
}

static void give_to_threads(struct eg_disk_io *io, struct eg_io_job *j) {
    pthread_mutex_lock(&io->mutex);
    j->next = NULL;
    if (io->first == NULL)
        io->first = j;
    else
        io->last->next = j;
    io->last = j;
    pthread_cond_signal(&io->work);
    pthread_mutex_unlock(&io->mutex);
}

/* ---- jobs ---------------------------------------------------------------------------------------------------- */

static void dispatch(struct eg_disk_io *io, struct eg_io_job *j) {
    if (j->fault != 0) {
        j->result = -j->fault;
        put_done(io, j);
        return;
    }
    j->linked = j->then != NULL;
    if (j->linked) {
        j->then->so_far = 0;
        j->then->result = 0;
        j->then->fault = eg_disk_fault(j->then);
    }
    if (j->op == EG_IO_CALL || io->uring == NULL || !eg_uring_submit(io->uring, j))
        give_to_threads(io, j);
}

void eg_io_submit(struct eg_disk_io *io, struct eg_io_job *job) {
    job->so_far = 0;
    job->result = 0;
    job->fault = eg_disk_fault(job);
    io->in_flight++;
    dispatch(io, job);
}

static void finish(struct eg_disk_io *io, struct eg_io_job *j) {
    struct eg_io_job *then = j->result == 0 ? j->then : NULL;
    bool linked = j->linked;
    io->in_flight--;
    if (then != NULL) {
        io->in_flight++;
        if (linked && then->fault != 0)
            then->result = -then->fault;
        else if (!linked)
            dispatch(io, then);
    }
    j->done(io->d, j); /* j may be gone after this */
    if (then != NULL && linked)
        finish(io, then);
}

/* The kernel did not do all of a write: on with the rest, alone. */
static void go_on(struct eg_disk_io *io, struct eg_io_job *j) {
    j->linked = false;
    if (!eg_uring_submit(io->uring, j))
        give_to_threads(io, j);
}

static bool is_again(int result) { return result == -EINTR || result == -EAGAIN; }

/* A step of a write or flush through io_uring: its result is the system call's. */
static void uring_done(void *ctx, struct eg_io_job *j, bool of_then, int result) {
    struct eg_disk_io *io = ctx;
    if (of_then)
        j->then_result = result;
    else
        j->result = result;
    if (j->linked && --j->awaited > 0)
        return; /* the other one comes, too: -ECANCELED if this one did not do all that it should */
    result = j->result;
    if (is_again(result) || (j->op == EG_IO_WRITE && result > 0)) {
        j->so_far += result > 0 ? (size_t)result : 0;
        if (j->op != EG_IO_WRITE || j->so_far < j->bytes) {
            go_on(io, j);
            return;
        }
        result = 0;
    } else if (j->op == EG_IO_WRITE && result == 0 && j->so_far < j->bytes) {
        result = -EIO;
    }
    j->result = result;
    if (j->linked && (is_again(j->then_result) || j->then_result == -ECANCELED))
        j->linked = false; /* it was not begun */
    else if (j->linked)
        j->then->result = j->then_result;
    finish(io, j);
}

static void reap(struct eg_disk_io *io) {
    uint64_t count;
    ssize_t ignored = read(io->watch.fd, &count, sizeof(count));
    (void)ignored;
    pthread_mutex_lock(&io->mutex);
    struct eg_io_job *j = io->done, *first = NULL, *next;
    io->done = NULL;
    pthread_mutex_unlock(&io->mutex);
    for (; j != NULL; j = next) { /* in the order of their ends */
        next = j->next;
        j->next = first;
        first = j;
    }
    for (j = first; j != NULL; j = next) {
        next = j->next;
        finish(io, j);
    }
    if (io->uring != NULL)
        eg_uring_reap(io->uring, uring_done, io);
}

static void ready(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    (void)d;
    (void)events;
    reap(eg_container_of(w, struct eg_disk_io, watch));
}

bool eg_io_wait(struct eg_disk_io *io) {
    if (io->in_flight == 0)
        return false;
    struct pollfd p = {.fd = io->watch.fd, .events = POLLIN};
    while (poll(&p, 1, -1) < 0 && errno == EINTR) {}
    reap(io);
    return true;
}

uint32_t eg_io_in_flight(const struct eg_disk_io *io) { return io->in_flight; }

const char *eg_io_kind(const struct eg_disk_io *io) { return io->uring != NULL ? "io_uring" : "threads"; }

/* ---- beginning and end ------------------------------------------------------------------------------------------ */

static int start_threads(struct eg_disk_io *io) {
    sigset_t all, before;
    int e = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    for (; io->threads < THREADS && e == 0; io->threads += e == 0)
        e = pthread_create(&io->thread[io->threads], NULL, worker, io);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e == 0 ? EAGRE_OK : eg_error_set(EAGRE_E_SYSTEM, "a thread for disk jobs: %s", strerror(e));
}

int eg_io_open(struct eg_daemon *d, struct eg_disk_io **out) {
    struct eg_disk_io *io = calloc(1, sizeof(*io));
    if (io == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for disk jobs");
    io->d = d;
    pthread_mutex_init(&io->mutex, NULL);
    pthread_cond_init(&io->work, NULL);
    io->watch = (struct eg_watch){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = ready};
    int rc = io->watch.fd >= 0 ? EAGRE_OK : eg_error_set(EAGRE_E_SYSTEM, "eventfd: %s", strerror(errno));
    if (rc == EAGRE_OK)
        rc = eg_disk_fault_init();
    if (rc == EAGRE_OK && d->config.disk_io != EG_DISK_IO_THREADS) {
        rc = eg_uring_open(io->watch.fd, &io->uring);
        if (rc != EAGRE_OK && d->config.disk_io == EG_DISK_IO_AUTO) {
            eg_log_info("log files are written by threads: %s", eg_error_text());
            rc = EAGRE_OK;
        }
    }
    if (rc == EAGRE_OK)
        rc = start_threads(io);
    if (rc == EAGRE_OK && d->loop != NULL)
        rc = eg_loop_add(d->loop, &io->watch, EPOLLIN);
    if (rc != EAGRE_OK) {
        eg_io_close(io);
        return rc;
    }
    *out = io;
    return EAGRE_OK;
}

void eg_io_close(struct eg_disk_io *io) {
    if (io == NULL)
        return;
    while (eg_io_wait(io)) {}
    pthread_mutex_lock(&io->mutex);
    io->stop = true;
    pthread_cond_broadcast(&io->work);
    pthread_mutex_unlock(&io->mutex);
    while (io->threads > 0)
        pthread_join(io->thread[--io->threads], NULL);
    eg_uring_close(io->uring);
    if (io->watch.fd >= 0) {
        if (io->d->loop != NULL)
            eg_loop_remove(io->d->loop, &io->watch);
        close(io->watch.fd);
    }
    pthread_cond_destroy(&io->work);
    pthread_mutex_destroy(&io->mutex);
    free(io);
}
