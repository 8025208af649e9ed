/* attach.h - between topic.c and attach.c. */
#ifndef EG_CLIENT_ATTACH_H
#define EG_CLIENT_ATTACH_H

#include "client/session.h"

/* Take over what a producer's OPEN brings for all of them: the bells, writable (the fd stays the
 * caller's). EAGRE_E_NO_DAEMON if the instance is not of that generation any more. */
int eg_attach_producer(struct eagre *e, uint32_t generation, int bells_fd);

#endif
