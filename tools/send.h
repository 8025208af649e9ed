/* send.h - many messages to a topic, in as few units as they fit in. */
#ifndef EAGRE_TOOLS_SEND_H
#define EAGRE_TOOLS_SEND_H

#include "cli.h"
#include "eagre/producer.h"

#define BATCH_MAX 512
#define BATCH_BYTES_MAX (256u << 10)

struct sender {
    eagre_producer_t *p;
    size_t batch_bytes; /* what a unit may have: smaller where segments are */
    uint64_t sent;
    size_t first, count; /* of the messages last given: the unit that was refused */
};

void send_begin(struct sender *s, eagre_producer_t *p);
/* In their order; neighbours of one partition as one unit. */
int send_messages(struct sender *s, const eagre_message_t *m, size_t n);

/* "memory" or "disk", or a usage error. */
eagre_acks_t send_acks(const struct cli *c, const char *text);

/* Messages that wait to be sent; what they point to must stay until then. */
struct batch {
    struct sender to;
    size_t count, bytes;
    eagre_message_t m[BATCH_MAX];
    eagre_header_t *headers; /* of them all */
    size_t header_cap, header_used;
};

/* There is room for one more with so many headers, at b->headers + b->header_used: sends if need be. */
int batch_room(struct batch *b, size_t headers);
/* headers: how many of those it has. */
void batch_put(struct batch *b, const eagre_message_t *m, size_t headers);
int batch_flush(struct batch *b);
void batch_free(struct batch *b);

#endif
