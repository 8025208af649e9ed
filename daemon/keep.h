/*
 * keep.h - descriptors that outlive the daemon. A keeper (systemd's descriptor store, or the
 * eagre-keeper process) holds a copy of each under a name and gives them back to the next daemon.
 *
 * Names: "bus" "bells" "clients" "event"   instance-wide objects
 *        "c<owner>"                        a client's page
 *        "t<topic uid>.status|ring|waiters"
 *        "p<partition uid>.b<buffer>"      a buffer
 */
#ifndef EG_KEEP_H
#define EG_KEEP_H

#include <stdbool.h>
#include <stddef.h>

struct eg_keep;

#define EG_KEEP_NAME_MAX 63

/* Find or start the keeper. *fresh: it held nothing (cold start). */
int eg_keep_open(const char *socket_path, struct eg_keep **out, bool *fresh);
/* Hand a copy over; the caller keeps its own fd. Returns when the keeper has it (fault points
 * keep.sent before waiting for its answer, keep.taken after). */
int eg_keep_put(struct eg_keep *k, const char *name, int fd);
int eg_keep_drop(struct eg_keep *k, const char *name);
/* At start: the fds that were handed back. Take moves one out (the caller owns it; -1: no such). */
int eg_keep_take(struct eg_keep *k, const char *name);
/* Names not yet taken, in no order: i = 0, 1, ... until NULL. */
const char *eg_keep_left(struct eg_keep *k, size_t i);
/* Close this end; stop_keeper: the keeper forgets everything and ends. */
void eg_keep_close(struct eg_keep *k, bool stop_keeper);

#endif
