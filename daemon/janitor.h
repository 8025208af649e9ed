/*
 * janitor.h - finds out who is dead, and has them buried (burial.h).
 *
 * Dead: two witnesses agree - the process (pidfd, or pid and start time), and the lock on its client page.
 */
#ifndef EG_JANITOR_H
#define EG_JANITOR_H

#include "clients.h"

enum eg_verdict { EG_VERDICT_LIVES, EG_VERDICT_DEAD, EG_VERDICT_LEFT };

/* LEFT: it lives, but closed its instance in an orderly way. */
enum eg_verdict eg_client_verdict(struct eg_client *c);

#endif
