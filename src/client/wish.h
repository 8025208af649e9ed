/* wish.h - what a member is subscribed to: names, and what matches patterns now; and how the daemon is told. */
#ifndef EG_CLIENT_WISH_H
#define EG_CLIENT_WISH_H

#include "client/group.h"

/* Names, and patterns (which begin with '^'). EAGRE_E_INVALID: a bad expression. */
int eg_wish_make(struct eg_wish *w, const char *const *topics, size_t count);
void eg_wish_free(struct eg_wish *w);
/* TOPIC_LIST: what matches now. */
int eg_wish_list(eagre_consumer_t *c, struct eg_wish *w);
/* GROUP_SUBSCRIBE. EAGRE_E_UNKNOWN_TOPIC ... of a name; a member that joins anew leaves such names out. */
int eg_wish_send(eagre_consumer_t *c, struct eg_wish *w);

#endif
