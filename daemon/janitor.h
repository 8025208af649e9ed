/*
 * janitor.h - finds out who is dead, and cleans up after them.
 *
 * Dead: two witnesses agree - the process (pidfd, or pid and start time), and the lock on its client page.
 * What a dead producer had claimed and not published is where its pins are: a pin is set before the claim
 * and cleared after the publish. Only writers=single works without pins: there it is in the active segment.
 */
#ifndef EG_JANITOR_H
#define EG_JANITOR_H

#include "clients.h"

enum eg_verdict { EG_VERDICT_LIVES, EG_VERDICT_DEAD, EG_VERDICT_LEFT };

/* LEFT: it lives, but closed its instance in an orderly way. */
enum eg_verdict eg_client_verdict(struct eg_client *c);
/* Turn its unpublished claims into pads, wake who waited for them, free the owner. False: memory is short and
 * not all of its claims can be looked at: nothing is freed, call it again later. */
bool eg_client_bury(struct eg_daemon *d, struct eg_client *c);

#endif
