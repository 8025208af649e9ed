/*
 * harness_raw.h - the control protocol by hand: for tests of the daemon without libeagre, and for
 * saying what libeagre never would.
 */
#ifndef EG_TESTS_HARNESS_RAW_H
#define EG_TESTS_HARNESS_RAW_H

#include "proto/codec.h"

#include <sys/types.h>

#define EG_RAW_FDS 64

struct eg_raw {
    int fd;
    uint32_t next_id;
    uint8_t out[EG_MSG_MAX];
    uint8_t in[EG_MSG_MAX];
    struct eg_enc enc;      /* the request that is being written */
    struct eg_msg_header h; /* of the last reply */
    struct eg_dec dec;      /* its body */
    int fds[EG_RAW_FDS];    /* its descriptors, the caller's */
    size_t nfds;
    char detail[600]; /* if h.status is not 0 */
};

/* Connect; no HELLO yet. Fails the test if nobody listens. */
void eg_raw_connect(struct eg_raw *r, const char *socket);
void eg_raw_close(struct eg_raw *r);
/* Begin a request; write its body to r->enc. */
void eg_raw_begin(struct eg_raw *r, uint16_t type);
/* Send it, wait for the reply. Returns its status; 1: the connection was closed instead. */
int eg_raw_ask(struct eg_raw *r);
/* Any bytes, as a message. 0, or -1 with errno. */
int eg_raw_send(struct eg_raw *r, const void *data, size_t n);
/* Wait for a message: status of the reply, or 1. */
int eg_raw_receive(struct eg_raw *r);
/* A HELLO as a message; returns its size. */
size_t eg_make_hello(uint8_t *buf, size_t cap);
/* HELLO; fails the test unless it is answered well. Returns the instance id. */
uint64_t eg_raw_hello(struct eg_raw *r, uint32_t *epoch_out);
/* One figure of STATUS; "" if there is no such name. */
void eg_raw_figure(struct eg_raw *r, const char *name, char *buf, size_t cap);

#endif
