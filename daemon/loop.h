/*
 * loop.h - the daemon's one loop: epoll, the services' ticks, and the sleep that producers end.
 *
 *   forever: tick every service; the earliest answer is how long epoll may wait; wait; call the
 *   watches that are ready (at most 64 a round, so that ticks are never far apart).
 *
 * Sleep: a partition at which something happens is watched: slots.c looks at it every millisecond or so, and its
 * producers need not ring. One that is quiet is not, and its next event rings (ring->watched says which). Every
 * wait is announced in bus->asleep, then the watched partitions are looked at once more. A producer that opens a
 * segment moves `active`, then looks at both (src/log/rotate.c): of two who look after they stored, at least one
 * sees the other, so nothing is slept through. A nap between two ticks is announced as such: producers of a watched
 * partition then ring only if the next segment may be needed before it is over, so that in steady state they make
 * no system call, and with a small ring they do not wait.
 */
#ifndef EG_LOOP_H
#define EG_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct eg_daemon;
struct eg_loop;

/* One watched descriptor; lives inside its owner's struct (container_of), which must stay until
 * eg_loop_remove(). The watch does not own the fd. */
struct eg_watch {
    int fd;
    void (*ready)(struct eg_daemon *d, struct eg_watch *w, uint32_t events); /* EPOLL* */
};

int eg_loop_open(struct eg_loop **out);
void eg_loop_close(struct eg_loop *l);
int eg_loop_add(struct eg_loop *l, struct eg_watch *w, uint32_t events);
int eg_loop_change(struct eg_loop *l, struct eg_watch *w, uint32_t events);
/* Before the fd is closed. Safe anywhere, also from within a ready() for another watch of the same
 * round: w's pending event is forgotten, so that its owner may be freed at once. */
void eg_loop_remove(struct eg_loop *l, struct eg_watch *w);

/* Runs until eg_loop_stop(). */
void eg_loop_run(struct eg_daemon *d);
void eg_loop_stop(struct eg_loop *l);

#define eg_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
