/*
 * burial.h - what a dead client leaves is put in order, slice by slice.
 *
 * What it had claimed and not published is where its pins are: a pin is set before the claim and cleared after
 * the publish. Only writers=single works without pins: there it is in the active segment. Each of these
 * segments is walked; one walk pads what all dead clients left there, so that a thousand who die at once cost
 * one. Topics get their slices in turn: a long chain in one of them keeps no other from going on.
 *
 * Who dies is DEAD in the client table first and FREE last; its pins stay until its claims are pads. So a
 * successor of this daemon begins again, and finds what is still to be done.
 */
#ifndef EG_BURIAL_H
#define EG_BURIAL_H

#include "clients.h"

/* Begin: it is dead, or has left and holds nothing. False: no memory for that; try again later. */
bool eg_client_bury(struct eg_daemon *d, struct eg_client *c);
/* Go on with all of them until about stop_ns. When it wants to be called again. */
int64_t eg_burials_work(struct eg_daemon *d, int64_t now_ns, int64_t stop_ns);
/* The daemon ends: forget what was to be done. */
void eg_burials_forget(struct eg_daemon *d);

#endif
