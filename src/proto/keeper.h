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
 *
 * `eagre log --keeper` sends LIST, too, while no daemon runs, and nothing else.
 *
 * Names: "bus" "bells" "clients"           instance-wide objects
 *        "c<owner>"                        a client's page
 *        "m<member number>"                a group member's page
 *        "g<group uid>.p<partition uid>"   a share group's cells
 *        "t<topic uid>.status|ring|waiters|event"
 *        "p<partition uid>.b<buffer>"      a buffer
 */
#ifndef EG_KEEPER_H
#define EG_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#define EG_KEEPER_MAGIC 0x314b4745u /* "EGK1" */
#define EG_KEEPER_BATCH 64u         /* EG_FDPASS_MAX */
#define EG_KEEPER_SUFFIX ".keeper"
#define EG_KEPT_NAME 64u /* with its NUL */

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

/* Are these n bytes an answer to a request of that kind? (LIST: with `count` descriptors; else with none.) */
static inline bool eg_keeper_is_reply(const struct eg_keeper_message *m, ssize_t n, uint16_t op) {
    return n >= (ssize_t)eg_keeper_message_bytes(0) && m->magic == EG_KEEPER_MAGIC && m->op == op &&
           m->count <= EG_KEEPER_BATCH &&
           (op != EG_KEEPER_LIST || (size_t)n == eg_keeper_message_bytes(m->count));
}

/* SOCKET.keeper may be too long for sun_path where SOCKET just fits, so it is named by way of its
 * directory's descriptor. */
struct eg_keeper_place {
    int directory; /* the caller's to close */
    struct sockaddr_un address;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(EG_KEEPER_SUFFIX)];
};

int eg_keeper_find_place(const char *socket, struct eg_keeper_place *p);
/* A non-blocking connection to the keeper; EAGRE_E_NO_DAEMON if there is none. */
int eg_keeper_dial(const char *socket, int *sock_out);

#endif
