/*
 * systemd.h - all that eagred says to systemd, or nothing where libsystemd is not compiled in or
 * systemd has not started us.
 */
#ifndef EG_SYSTEMD_H
#define EG_SYSTEMD_H

#include <stdbool.h>

bool eg_systemd_is_there(void);            /* $NOTIFY_SOCKET, and libsystemd is compiled in */
void eg_systemd_notify(const char *state); /* "READY=1" ... */

/* The descriptor store. Both return when systemd has done it. */
int eg_systemd_store(const char *name, int fd);
int eg_systemd_remove(const char *name);
/* Calls f for each descriptor that systemd handed back at our start; f owns the fd. */
int eg_systemd_stored(int (*f)(void *ctx, const char *name, int fd), void *ctx);

#endif
