/* A client is killed or stopped at each instruction of what it does. */
#include "step/scenario.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>

static void relax(void *ctx) { step_drain(ctx); }

static bool is_end(struct trace *t, uint64_t at) {
    (void)t;
    return at == (uintptr_t)step_end;
}

/* What the victim needs to find: records to read, behind and before a segment's end; a sleeper to wake. */
static void set_up(struct step_world *w, enum step_operation op) {
    if (!step_is_reader(op))
        return;
    if (op == STEP_READ_FIRST) /* nothing is left that these logs do not know */
        step_laps(w, 4, true);
    step_fill(&w->source, 0, relax, w);
    int64_t first = step_produce(&w->source, STEP_SMALL);
    for (int i = 0; i < 9; i++)
        step_produce(&w->source, STEP_SMALL);
    step_victim_position(op == STEP_READ_NEXT ? first : first + 9);
    step_drain(w);
}

static void begin(struct trace *t, struct step_world *w, enum step_operation op) {
    set_up(w, op);
    step_victim_start(t, w, op);
    step_drain(w); /* arms the sleeper, too */
}

static void world_for(struct step_world *w, enum step_operation op) {
    int fd;
    step_world_open(w, op == STEP_SINGLE);
    if (op == STEP_WAKE)
        STEP_OK(eagre_consumer_fd(w->sink.c, &fd));
}

/* Once through, to know the way. The victim stands at step_end() then. */
static void dry_run(struct trace *t, struct step_points *points) {
    while (trace_pc(t) != (uintptr_t)step_end) {
        step_points_add(points, trace_pc(t));
        if (!trace_step(t))
            step_victim_failed(t);
    }
}

/* The longest way of some: the daemon may just have rung the bell that the victim was to ring. */
static void learn(struct trace *t, struct step_world *w, enum step_operation op,
                  struct step_points *points) {
    for (int i = 0; i < (op == STEP_WAKE ? 4 : 1); i++) {
        struct step_points now = {0}, shorter;
        if (i > 0) {
            step_victim_again(t, w);
            step_drain(w);
        }
        dry_run(t, &now);
        shorter = now.instructions > points->instructions ? *points : now;
        if (now.instructions > points->instructions)
            *points = now;
        step_points_free(&shorter);
    }
}

/* False: the operation was over before the point. */
static bool reach(struct trace *t, const struct step_point *p) {
    bool reached = step_points_reach(t, p, is_end);
    if (!reached && trace_pc(t) != (uintptr_t)step_end)
        step_victim_failed(t);
    return reached;
}

/* ---- killed -------------------------------------------------------------------------------------------- */

/* The others go on. Every other time nobody produces at first: what the dead one has left must not wait
 * for it. Now and then the ring goes round: the dead one must not hold its slots. */
static void go_on(struct step_world *w, unsigned round) {
    if (w->source.p == NULL || round % 2 == 0)
        step_read_all(w);
    if (w->source.p == NULL)
        return;
    w->last = step_produce(&w->source, STEP_SMALL);
    step_read_to(w, w->last + 1);
    if (round % 16 == 15)
        step_laps(w, 4, true);
}

void step_client_killed(enum step_operation op, const struct step_options *o) {
    struct step_world w;
    struct step_points points = {0};
    struct step_walk walk;
    struct trace t;
    unsigned round = 0;
    world_for(&w, op);
    begin(&t, &w, op);
    learn(&t, &w, op, &points);
    trace_kill(&t, false);
    go_on(&w, round);
    step_walk_begin(&walk, o, &points);
    for (const struct step_point *p; (p = step_walk_next(&walk)) != NULL; round++) {
        step_points_say(p, step_operation_name(op), "killed");
        begin(&t, &w, op);
        step_walk_count(&walk, reach(&t, p));
        trace_kill(&t, false);
        go_on(&w, round);
        step_check(&w);
        step_new_logs(&w);
    }
    step_walk_end(&walk, step_operation_name(op), "kill");
    step_points_free(&points);
    step_world_close(&w);
}

/* ---- stopped ------------------------------------------------------------------------------------------- */

/* What others do while it stands still. Nobody may have to wait for it but who reads at its place. Only in
 * every other set of logs so much that a reader cannot follow: in the others nobody may miss anything. */
static void meanwhile(struct step_world *w, enum step_operation op, unsigned round) {
    bool laps = round / STEP_ROUNDS_A_LOG % 2 == 1;
    switch (w->source.p == NULL ? 0 : round % (laps ? 4 : 3)) {
    case 0:
        break;
    case 1: /* somebody takes the place that it has in mind */
        w->last = step_produce(&w->source, STEP_TINY);
        break;
    case 2: /* the segment ends */
        w->gaps |= step_is_reader(op);
        step_fill(&w->source, 0, relax, w);
        w->last = step_produce(&w->source, STEP_SMALL);
        break;
    default: /* the ring goes round, and over its place */
        w->sink.may_miss = w->gaps = true;
        step_laps(w, 5, true);
        break;
    }
    step_drain(w);
}

void step_client_stopped(enum step_operation op, const struct step_options *o) {
    struct step_world w;
    struct step_points points = {0};
    struct step_walk walk;
    struct trace t;
    unsigned round = 0;
    world_for(&w, op);
    begin(&t, &w, op);
    learn(&t, &w, op, &points);
    step_victim_again(&t, &w);
    step_walk_begin(&walk, o, &points);
    for (const struct step_point *p; (p = step_walk_next(&walk)) != NULL; round++) {
        step_points_say(p, step_operation_name(op), "stopped");
        step_walk_count(&walk, reach(&t, p));
        meanwhile(&w, op, round);
        while (trace_pc(&t) != (uintptr_t)step_end)
            if (trace_go(&t, "a client to end its operation") == 0)
                step_victim_failed(&t);
        set_up(&w, op);
        step_victim_again(&t, &w);
        step_drain(&w);
        step_check(&w);
        w.sink.may_miss = false;
        if (w.rounds >= STEP_ROUNDS_A_LOG) { /* only while it has no log open: another victim */
            trace_kill(&t, false);
            step_read_all(&w);
            step_new_logs(&w);
            begin(&t, &w, op);
        }
    }
    trace_kill(&t, false);
    step_walk_end(&walk, step_operation_name(op), "stop");
    step_points_free(&points);
    step_world_close(&w);
}
