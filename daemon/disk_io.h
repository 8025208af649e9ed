/*
 * disk_io.h - what takes as long as a disk does, beside the daemon's loop: writes and flushes through io_uring (or,
 * where the kernel does not let us, through threads), and calls of functions that block, in threads.
 *
 * A job belongs to its caller until done() is called, in the loop. Jobs are not ordered, but for `then`. A write
 * is complete or has failed: short ones are gone on with, EINTR and EAGAIN tried again; no other error is.
 */
#ifndef EG_DISK_IO_H
#define EG_DISK_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eg_daemon;
struct eg_disk_io;

enum eg_io_op { EG_IO_WRITE = 1, EG_IO_DATASYNC, EG_IO_WRITEBACK, EG_IO_CALL };

struct eg_io_job {
    enum eg_io_op op;
    int fd;
    const void *data; /* WRITE: these bytes at this place; must stay until done */
    size_t bytes;     /* WRITEBACK: this range: the kernel begins to write it to the medium, and nobody waits for that */
    uint64_t at;
    int (*call)(void *arg); /* CALL: in a worker thread; 0 or -errno. Touches nothing of the daemon's */
    void *arg;
    struct eg_io_job *then; /* begun when this one has succeeded; else never: its done() is not called. The two dones
                               may be called together, this one's first */
    int result;             /* 0 or -errno */
    void (*done)(struct eg_daemon *d, struct eg_io_job *job);

    /* disk_io's */
    struct eg_io_job *next;
    size_t so_far;
    bool linked;      /* `then` was handed over together with it: no way back to the loop between the two */
    uint8_t awaited;  /* io_uring: completions of the two that have not come */
    int then_result;  /* io_uring: of `then`, as it came */
    int fault;        /* disk_fault.h: what its result will be, whatever happens */
};

/* With its completions watched by the daemon's loop (NULL: a test, which calls eg_io_wait). */
int eg_io_open(struct eg_daemon *d, struct eg_disk_io **out);
void eg_io_submit(struct eg_disk_io *io, struct eg_io_job *job);
/* Wait for at least one job and call what is done. False: none was under way. For a clean stop. */
bool eg_io_wait(struct eg_disk_io *io);
uint32_t eg_io_in_flight(const struct eg_disk_io *io);
/* Waits for all that is under way; their done() is called. */
void eg_io_close(struct eg_disk_io *io);
const char *eg_io_kind(const struct eg_disk_io *io); /* "io_uring" or "threads" */

#endif
