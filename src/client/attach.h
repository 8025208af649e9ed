/* attach.h - between session.c, topic.c and attach.c. */
#ifndef EG_CLIENT_ATTACH_H
#define EG_CLIENT_ATTACH_H

#include "client/session.h"

/* Take over what a producer's OPEN brings for all of them: the bells, writable (the fd stays the
 * caller's). EAGRE_E_NO_DAEMON if the instance is not of that generation any more. */
int eg_attach_producer(struct eagre *e, uint32_t generation, int bells_fd);

/* ATTACH: anew (owner 0) or again; the lock is held. Then its reply, as that of a client of this bus. */
int eg_attach_send(struct eagre *e, uint32_t owner, int64_t deadline_ns, struct eg_late **out);
int eg_attach_take(struct eagre *e, struct eg_late *l, bool again, const struct eg_bus *bus);

#endif
