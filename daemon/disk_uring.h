/* disk_uring.h - disk_io's writes and flushes through io_uring. */
#ifndef EG_DISK_URING_H
#define EG_DISK_URING_H

#include "disk_io.h"

struct eg_uring;

/* Ends are told by event_fd. EAGRE_E_UNSUPPORTED: this build or this kernel has none, or does not let us. */
int eg_uring_open(int event_fd, struct eg_uring **out);
void eg_uring_close(struct eg_uring *u);
/* What is left of the job (from so_far on), and its `then` behind it if it is linked. False: the queue is full. */
bool eg_uring_submit(struct eg_uring *u, struct eg_io_job *job);
/* done: of the job, or of its `then`; each has a completion of its own. */
void eg_uring_reap(struct eg_uring *u, void (*done)(void *ctx, struct eg_io_job *job, bool of_then, int result), void *ctx);

#endif
