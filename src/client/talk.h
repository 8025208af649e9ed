/* talk.h - one administrative request and its answer; for admin*.c. */
#ifndef EG_CLIENT_TALK_H
#define EG_CLIENT_TALK_H

#include "client/session.h"
#include "sys/errbuf.h"

/* A conversation: request, answer and the buffers of both. Too large for some stacks. */
struct eg_talk {
    struct eg_enc req;
    struct eg_dec reply;
    uint8_t out[EG_MSG_MAX];
    uint8_t in[EG_MSG_MAX];
};

struct eg_talk *eg_talk_begin(uint16_t type); /* NULL: EAGRE_E_NO_MEMORY is said. free() it */
int eg_talk_send(struct eg_talk *t, eagre_t *e);
int eg_talk_malformed(const char *what);
/* A string for a person: one that is too long is cut. */
void eg_talk_text(struct eg_talk *t, char *to, size_t cap);

/* A growing array of items of one size. */
struct eg_list {
    void *items;
    size_t count;
    size_t item;
};

/* One more, of zeros; NULL: EAGRE_E_NO_MEMORY is said. */
void *eg_list_add(struct eg_list *l);

#endif
