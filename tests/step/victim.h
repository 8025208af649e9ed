/*
 * victim.h - the process that is stepped: a client of the bus that does one thing again and again.
 *
 * A nursery makes them: a process forked before this one connects to the bus, so that its children
 * inherit nothing. Each waits until it is traced, prepares itself, and then calls step_begin(), does the
 * one operation, calls step_end(), logs what came of it and starts over. The tracer has breakpoints on
 * these functions (and on step_relax(), where it lets the reader of this process follow); all of them are
 * at the same addresses here and there.
 */
#ifndef EG_TESTS_STEP_VICTIM_H
#define EG_TESTS_STEP_VICTIM_H

#include "step/trace.h"
#include "step/world.h"

/* X(enumerator, name) */
#define STEP_OPERATIONS(X)                                                                         \
    X(PRODUCE, "produce")         /* a small record: made before its place is claimed */           \
    X(LARGE, "large")             /* with key and header: written in its place */                  \
    X(BATCH, "batch")             /* three records as a unit */                                    \
    X(COMMIT, "commit")           /* claim, write, commit */                                       \
    X(ABORT, "abort")             /* claim, abort */                                               \
    X(SINGLE, "single")           /* a topic with writers=single */                                \
    X(WAKE, "wake")               /* produce while a consumer sleeps */                            \
    X(ROTATE, "rotate")           /* no room: end the segment, open the next */                    \
    X(ROTATE_FULL, "rotate-full") /* no byte of room */                                            \
    X(ROTATE_NEW, "rotate-new")   /* into a buffer that is not mapped yet */                       \
    X(ROTATE_BATCH, "rotate-batch")                                                                \
    X(READ, "read")             /* poll, records are there */                                      \
    X(READ_NEXT, "read-next")   /* poll, from one segment to the next */                           \
    X(READ_FIRST, "read-first") /* poll, after a seek to the beginning */                          \
    X(SLEEP, "sleep")           /* poll, nothing comes */                                          \
    X(CLAIMS, "claims")         /* three claims beside each other; dies before it publishes any */

enum step_operation {
#define X(id, name) STEP_##id,
    STEP_OPERATIONS(X)
#undef X
        STEP_OPERATION_COUNT
};
const char *step_operation_name(enum step_operation op);
static inline bool step_is_reader(enum step_operation op) {
    return op == STEP_READ || op == STEP_READ_NEXT || op == STEP_READ_FIRST || op == STEP_SLEEP;
}

__attribute__((noinline)) void step_begin(void);
__attribute__((noinline)) void step_end(void);
__attribute__((noinline)) void step_relax(void *ctx);

/* Fork the nursery. Before anything else. */
void step_nursery_open(void);
void step_nursery_close(void);

/* A victim at its step_begin(). relax() is called at each of its step_relax(). */
void step_victim_start(struct trace *t, struct step_world *w, enum step_operation op);
/* From wherever it is, to its next step_begin(). */
void step_victim_again(struct trace *t, struct step_world *w);
/* Where the reading victims start: the record before this one is the last of its segment. */
void step_victim_position(int64_t offset);
/* It ended although it should not: say why. */
void step_victim_failed(struct trace *t);

#endif
