/*
 * keep_process.h - the daemon's end of eagre-keeper: start it, find it, speak to it.
 */
#ifndef EG_KEEP_PROCESS_H
#define EG_KEEP_PROCESS_H

#include "proto/keeper.h"

#include <stdbool.h>
#include <sys/types.h>

struct eg_config;

struct eg_keeper_link {
    int sock;  /* -1: none */
    pid_t pid; /* of the keeper, as it says; 0: not known yet */
};

/* Connect to a keeper that is there; EAGRE_E_NO_DAEMON if there is none. */
int eg_keeper_connect(struct eg_keeper_link *l, const struct eg_config *c);
/* Start one and connect to it. */
int eg_keeper_start(struct eg_keeper_link *l, const struct eg_config *c);
/*
 * Send m and fds, wait for the reply into m and out_fds (EG_KEEPER_BATCH; NULL but for LIST). EAGRE_E_CLOSED: the
 * connection or the keeper is broken (and is closed, and a keeper that does not answer is ended);
 * EAGRE_E_LIMIT: it is full.
 */
int eg_keeper_ask(struct eg_keeper_link *l, struct eg_keeper_message *m, const int *fds,
                  size_t nfds, int *out_fds, size_t *out_nfds);
void eg_keeper_hang_up(struct eg_keeper_link *l);
/* Files that a keeper which was killed leaves. Not while one may run. */
void eg_keeper_remove_files(const struct eg_config *c);

#endif
