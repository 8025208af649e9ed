/* scenario.h - what eg-step can do; see main.c. */
#ifndef EG_TESTS_STEP_SCENARIO_H
#define EG_TESTS_STEP_SCENARIO_H

#include "step/points.h"
#include "step/victim.h"

/* clients.c: a client is killed, or stopped while others go on, at each instruction of an operation. */
void step_client_killed(enum step_operation op, const struct step_options *o);
void step_client_stopped(enum step_operation op, const struct step_options *o);

/* daemon.c: the daemon likewise, while it makes a segment's slot READY again, while it gives the slot
 * another buffer because a reader holds the old one (one that it has, or a new one), and while it buries a
 * client. */
bool step_daemon_possible(const char **why); /* asks before the first is started, and prepares it */
enum step_daemon { STEP_RETIRE, STEP_SWAP, STEP_SWAP_NEW, STEP_REPAIR };
void step_daemon_killed(enum step_daemon what, const struct step_options *o);
void step_daemon_stopped(enum step_daemon what, const struct step_options *o);

#endif
