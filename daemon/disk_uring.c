#include "disk_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "sys/errbuf.h"

#ifdef HAVE_LIBURING

#include <liburing.h>

#define ENTRIES 256u
#define SMALL (UINT32_C(64) << 10) /* bytes: copied sooner than a thread is woken */

struct eg_uring {
    struct io_uring ring;
};

int eg_uring_open(int event_fd, struct eg_uring **out) {
    struct eg_uring *u = calloc(1, sizeof(*u));
    if (u == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for io_uring");
    int e = io_uring_queue_init(ENTRIES, &u->ring, 0);
    if (e == 0) {
        e = io_uring_register_eventfd(&u->ring, event_fd);
        if (e != 0)
            io_uring_queue_exit(&u->ring);
    }
    if (e != 0) {
        free(u);
        return eg_error_set(EAGRE_E_UNSUPPORTED, "io_uring: %s", strerror(-e));
    }
    *out = u;
    return EAGRE_OK;
}

void eg_uring_close(struct eg_uring *u) {
    if (u != NULL)
        io_uring_queue_exit(&u->ring);
    free(u);
}

static void prepare(struct io_uring_sqe *sqe, const struct eg_io_job *j) {
    if (j->op == EG_IO_DATASYNC) {
        io_uring_prep_fsync(sqe, j->fd, IORING_FSYNC_DATASYNC);
    } else if (j->op == EG_IO_WRITEBACK) {
        io_uring_prep_sync_file_range(sqe, j->fd, (unsigned)j->bytes, j->at, SYNC_FILE_RANGE_WRITE);
    } else {
        size_t left = j->bytes - j->so_far;
        io_uring_prep_write(sqe, j->fd, (const char *)j->data + j->so_far, left > (1u << 30) ? 1u << 30 : (unsigned)left,
                            j->at + j->so_far);
        if (left > SMALL)
            io_uring_sqe_set_flags(sqe, IOSQE_ASYNC); /* else the loop copies to the page cache itself */
    }
}

/* The kernel did not take it now. It stays in the queue and will be taken with the next: as nothing. */
static void forget(struct io_uring_sqe *sqe) {
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, 0);
}

/* A completion's data: the job; of its `then`, that + 1. */
bool eg_uring_submit(struct eg_uring *u, struct eg_io_job *j) {
    if (io_uring_sq_space_left(&u->ring) < 2)
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring), *then = NULL;
    j->awaited = 1;
    prepare(sqe, j);
    io_uring_sqe_set_data64(sqe, (uintptr_t)j);
    if (j->linked) {
        j->awaited = 2;
        sqe->flags |= IOSQE_IO_LINK;
        then = io_uring_get_sqe(&u->ring);
        prepare(then, j->then);
        io_uring_sqe_set_data64(then, (uintptr_t)j + 1);
    }
    while (io_uring_submit(&u->ring) == -EINTR) {}
    unsigned left = io_uring_sq_ready(&u->ring);
    if (left == 0)
        return true;
    if (then != NULL)
        forget(then);
    if (left == 1 && then != NULL) { /* the first one was taken: alone */
        j->linked = false;
        j->awaited = 1;
        return true;
    }
    forget(sqe);
    return false;
}

void eg_uring_reap(struct eg_uring *u, void (*done)(void *ctx, struct eg_io_job *job, bool of_then, int result), void *ctx) {
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        uintptr_t data = (uintptr_t)io_uring_cqe_get_data64(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        if (data != 0)
            done(ctx, (struct eg_io_job *)(data & ~(uintptr_t)1), (data & 1) != 0, result);
    }
}

#else

int eg_uring_open(int event_fd, struct eg_uring **out) {
    (void)event_fd;
    (void)out;
    return eg_error_set(EAGRE_E_UNSUPPORTED, "this eagred was built without liburing");
}
void eg_uring_close(struct eg_uring *u) { (void)u; }
bool eg_uring_submit(struct eg_uring *u, struct eg_io_job *job) {
    (void)u;
    (void)job;
    return false;
}
void eg_uring_reap(struct eg_uring *u, void (*done)(void *ctx, struct eg_io_job *job, bool of_then, int result), void *ctx) {
    (void)u;
    (void)done;
    (void)ctx;
}

#endif
