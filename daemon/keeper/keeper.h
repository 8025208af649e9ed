/*
 * keeper.h - what eagred and eagre-keeper say to each other, over SOCKET.keeper (SOCK_SEQPACKET).
 * One request, one reply. A keeper outlives upgrades of the daemon: never change a number here.
 *
 * Both are struct eg_keeper_message, of which the first `count` names are sent.
 *
 *   PUT   > names, and as many fds       < count taken. A name that is there is replaced
 *   DROP  > names                        < count found
 *   LIST  > from (0 at first)            < names and fds, from: where to go on, 0: that was all
 *   STOP  >                              < then the keeper closes everything and ends
 *
 * status: 0 or an errno value.
 */
#ifndef EG_KEEPER_H
#define EG_KEEPER_H

#include <stddef.h>
#include <stdint.h>

#include "table.h"

#define EG_KEEPER_MAGIC 0x314b4745u /* "EGK1" */
#define EG_KEEPER_BATCH 64u         /* EG_FDPASS_MAX */
#define EG_KEEPER_SUFFIX ".keeper"

enum eg_keeper_op { EG_KEEPER_PUT = 1, EG_KEEPER_DROP = 2, EG_KEEPER_LIST = 3, EG_KEEPER_STOP = 4 };

struct eg_keeper_message {
    uint32_t magic;
    uint16_t op;
    uint16_t count;
    int32_t status;
    uint32_t from;
    int32_t pid; /* the keeper's, in replies */
    uint32_t pad;
    char names[EG_KEEPER_BATCH][EG_KEPT_NAME];
};

static inline size_t eg_keeper_message_bytes(uint16_t count) {
    return offsetof(struct eg_keeper_message, names) + (size_t)count * EG_KEPT_NAME;
}

#endif
