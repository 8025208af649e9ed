/* sigbus.h - what to do when memory that clients can write to is gone under the daemon. */
#ifndef EG_SIGBUS_H
#define EG_SIGBUS_H

struct eg_daemon;

/* From now on, for this process. */
int eg_sigbus_mend(struct eg_daemon *d);

#endif
