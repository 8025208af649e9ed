/*
 * keep.h - descriptors that outlive the daemon. A keeper (systemd's descriptor store, or the
 * eagre-keeper process) holds a copy of each under a name (proto/keeper.h lists them) and gives them back to the
 * next daemon.
 */
#ifndef EG_KEEP_H
#define EG_KEEP_H

#include <stdbool.h>
#include <stddef.h>

struct eg_config;
struct eg_keep;

#define EG_KEEP_NAME_MAX 63

/* Find or start the keeper that config->keeper asks for. *fresh: it held nothing (cold start). With
 * EG_KEEPER_NONE nothing outlives the daemon and all else works the same. */
int eg_keep_open(const struct eg_config *config, struct eg_keep **out, bool *fresh);
/*
 * Hand a copy over; the caller keeps its own fd. Returns when the keeper has it (fault points
 * keep.sent before waiting for its answer, keep.taken after). A name that is there is replaced.
 * The fd's number is remembered until the drop: a keeper that dies is replaced and given
 * everything again. So drop first, then close. Fails if the keeper or the table is full; without a
 * keeper (reported, retried each second) the daemon goes on.
 */
int eg_keep_put(struct eg_keep *k, const char *name, int fd);
/* A name that is not there is no error. An fd that was never taken is closed. */
int eg_keep_drop(struct eg_keep *k, const char *name);
/* At start: the fds that were handed back. Take moves one out (the caller owns it; -1: no such). */
int eg_keep_take(struct eg_keep *k, const char *name);
/* Names not yet taken, in no order: i = 0, 1, ... until NULL. */
const char *eg_keep_left(struct eg_keep *k, size_t i);
/* For STATUS: "process", "systemd", "none", "lost"; and the keeper process's pid or 0. */
const char *eg_keep_kind(const struct eg_keep *k);
int eg_keep_pid(const struct eg_keep *k);
/* Close this end; stop_keeper: the keeper forgets everything and ends. */
void eg_keep_close(struct eg_keep *k, bool stop_keeper);

#endif
