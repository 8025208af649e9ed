/*
 * faultpoint.h - named places in protocols where a test can kill, stop or interpose.
 *
 * EG_FAULT("claim.done") is nothing unless EG_FAULTPOINTS is defined. Then the environment tells
 * what to do, read once when the program starts:
 *
 *     EAGRE_FAULT=name[@N]=action[,...]
 *
 * action: kill (SIGKILL), stop (SIGSTOP), abort, or call (the hook below). It happens at the Nth
 * hit of the point in this process (default: the first), and once. A hook that was set is called at
 * every hit of every point, unless `call` entries say at which. A malformed EAGRE_FAULT aborts the
 * program, lest a test pass because of a typing error.
 */
#ifndef EG_SYS_FAULTPOINT_H
#define EG_SYS_FAULTPOINT_H

#include "sys/atomic.h"

typedef void eg_fault_hook(const char *name, void *arg);

/* Set (or with NULL remove) the hook. Not while other threads may hit points. */
void eg_fault_set_hook(eg_fault_hook *hook, void *arg);

/* What EAGRE_FAULT does, for tests in one process; NULL or "" disarms. EAGRE_E_INVALID if malformed.
 * Not while other threads may hit points. */
int eg_fault_configure(const char *spec);

void eg_fault_hit(const char *name);
extern _Atomic uint32_t eg_fault_armed; /* whether eg_fault_hit() has anything to do */

#ifdef EG_FAULTPOINTS
#define EG_FAULT(name)                                                                             \
    do {                                                                                           \
        if (__builtin_expect(eg_load_relaxed(&eg_fault_armed) != 0, 0)) {                          \
            eg_fault_hit(name);                                                                    \
        }                                                                                          \
    } while (0)
#else
#define EG_FAULT(name) ((void)0)
#endif

#endif
