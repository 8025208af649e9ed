/*
 * points.h - where to kill or stop: each instruction that an operation executes.
 *
 * A dry run gives the list. An instruction in a loop counts when it comes for the first, second, third,
 * 8th, 64th, 512th time and so on: what a loop over bytes or pins does is the same each time. A point is
 * then found again by a breakpoint, so that a look at the clock that takes longer shifts nothing.
 */
#ifndef EG_TESTS_STEP_POINTS_H
#define EG_TESTS_STEP_POINTS_H

#include "step/trace.h"

#include <stddef.h>

struct step_point {
    uint64_t pc;
    uint32_t occurrence; /* from 1 */
    uint32_t number;     /* of the instruction, in the dry run; 0: before the first */
};

struct step_points {
    struct step_point *list;
    size_t count;
    size_t instructions; /* of the whole operation */
    size_t capacity;
    struct seen *seen; /* while it is made */
    size_t seen_capacity;
};

/* During the dry run: the process is at pc. */
void step_points_add(struct step_points *p, uint64_t pc);
/* Only those that another dry run came by, too: what is different each time is not worth waiting for. */
void step_points_common(struct step_points *p, struct step_points *other);
void step_points_free(struct step_points *p);

/* Into step_when: it is done with this one now. */
void step_points_say(const struct step_point *p, const char *scenario, const char *what);
/* Go on until the point. False: the operation was over before (is_end said so), or the process ended. */
bool step_points_reach(struct trace *t, const struct step_point *p,
                       bool (*is_end)(struct trace *t, uint64_t at));

/* ---- which of them, in which order ------------------------------------------------------------------- */

struct step_options {
    size_t
        stride; /* each stride-th, from phase on; 0: as many as there is time for, in an order that
                      the seed and the count give */
    size_t phase;
    double seconds; /* for one scenario in one mode; 0: no limit */
    uint64_t seed;
    bool kill, stop; /* which modes */
    bool verbose;    /* tell each point, on stderr */
};

struct step_walk {
    const struct step_options *options;
    const struct step_points *points;
    size_t done, missed, index, stride, total;
    int64_t until_ns;
};

void step_walk_begin(struct step_walk *w, const struct step_options *o,
                     const struct step_points *p);
/* NULL: all done, or time is over. */
const struct step_point *step_walk_next(struct step_walk *w);
/* Whether the last one was reached. */
void step_walk_count(struct step_walk *w, bool reached);
/* Tell what was done, on stdout. */
void step_walk_end(const struct step_walk *w, const char *scenario, const char *mode);

#endif
