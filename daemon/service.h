/*
 * service.h - what the daemon is made of. A service has its part of the work and its own file; the
 * services meet here, in loop.h and in topics.h alone. (Aeron's agents with do_work.)
 *
 * The daemon is one thread. Work that takes long (zeroing a segment, filling memory) is done in
 * slices of at most about 200 us, one a tick, so that nobody at the socket waits.
 */
#ifndef EG_SERVICE_H
#define EG_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

struct eg_daemon; /* daemon.h */

struct eg_service {
    const char *name;
    /* Called once, in table order; a failure (EAGRE_E_*, detail text) ends the start. */
    int (*start)(struct eg_daemon *d);
    /* Do a slice of work. Returns when it wants to be called again, on eg_mono_ns()'s clock: 0 = at
     * once, INT64_MAX = when something happens. Called after every round of events. */
    int64_t (*tick)(struct eg_daemon *d, int64_t now_ns);
    /* Called in reverse order at a clean stop; keep: the keeper stays, leave memory as it is. */
    void (*stop)(struct eg_daemon *d, bool keep);
};

#endif
