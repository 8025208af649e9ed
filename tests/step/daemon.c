/* The daemon is killed or stopped at each instruction of what it does for the ring and after a death. */
#include "step/scenario.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/personality.h>

#include "partition.h" /* the daemon's: to know which call is the one that finds work */

#define LAPS_EVERY 8
#define HOLDERS 2
#define DRY_RUNS 20
#define READER_MS 5

static const struct {
    const char *name;
    const char *function;
    const char
        *end; /* the function whose call is the end; NULL: when it returns, and not 0, for that
                        says that it wants to be called again at once */
    enum step_operation victim;
    unsigned hold; /* so many records, in one segment each */
} kinds[] = {
    [STEP_RETIRE] = {"retire", "eg_slots_work", NULL, STEP_ROTATE_NEW, 0},
    [STEP_SWAP] = {"swap", "eg_slots_work", NULL, STEP_ROTATE_NEW, 1},
    [STEP_SWAP_NEW] = {"swap-new", "eg_slots_work", NULL, STEP_ROTATE_NEW, 2},
    [STEP_REPAIR] = {"repair", "eg_client_bury", "eg_clients_ring_all", STEP_CLAIMS, 0},
};

/* One test: the world, the daemon that is traced, and a client that gives it something to do: it goes on
 * to the next segment, or dies with claims. The holders keep a record for a long time. */
struct run {
    struct step_world w;
    enum step_daemon what;
    struct step_sink holder[HOLDERS];
    struct trace daemon, victim, reader; /* pid 0: there is none */
    unsigned round;
};

static uint64_t end_at;
static bool by_return; /* that is where the function returns to */

static bool is_end(struct trace *t, uint64_t at) {
    return at == end_at && (!by_return || trace_result(t) != 0);
}

static void relax(void *ctx) { step_drain(ctx); }

static void ended(void) { fail_msg("%s: eagred ended by itself", step_when); }

/* Each daemon has its instructions where the first one had them. */
bool step_daemon_possible(const char **why) {
    *why = "personality(ADDR_NO_RANDOMIZE) is forbidden";
    return personality(ADDR_NO_RANDOMIZE) != -1;
}

/* ---- up to where it begins ---------------------------------------------------------------------------- */

/* Keep a record of the segment that will have to go when somebody goes on to the next. */
static void hold_one(struct run *r, struct step_sink *holder) {
    step_fill(&r->w.source, 0, relax, &r->w);
    step_seek(holder, step_produce(&r->w.source, STEP_SMALL));
    while (step_poll(holder, 1, 100) == 0) {}
    step_fill(&r->w.source, 0, relax, &r->w);
    step_produce(&r->w.source, STEP_SMALL);
    step_drain(&r->w);
}

static void look_at_held(struct run *r) {
    for (unsigned i = 0; i < HOLDERS; i++)
        step_look_again(&r->holder[i]);
}

/* The victim stands at its step_begin(); it goes on from where it is, if there is one. */
static void ready_victim(struct run *r) {
    /* What they held before becomes the daemon's spare buffer, one at most, while the ring goes on. What the
     * first one holds uses that up: for the second the daemon needs a new one. */
    for (unsigned i = 0; i < kinds[r->what].hold; i++)
        step_seek(&r->holder[i], step_position(&r->w.sink));
    if (kinds[r->what].hold > 0)
        step_laps(&r->w, 2, true);
    for (unsigned i = 0; i < kinds[r->what].hold; i++)
        hold_one(r, &r->holder[i]);
    if (r->victim.pid != 0)
        step_victim_again(&r->victim, &r->w);
    else
        step_victim_start(&r->victim, &r->w, kinds[r->what].victim);
    step_drain(&r->w);
}

static uint64_t symbol(const struct trace *daemon, const char *name) {
    uint64_t at = trace_symbol(daemon->pid, name);
    if (at == 0)
        fail_msg("eagred has no symbol %s", name);
    return at;
}

/* Is there news for it in the ring? */
static bool has_news(struct trace *daemon) {
    uint64_t p = trace_second_argument(daemon);
    uint64_t ring = trace_word(daemon, p + offsetof(struct eg_partition, ring));
    return trace_word(daemon, ring + offsetof(struct eg_ring, active)) >
           trace_word(daemon, p + offsetof(struct eg_partition, active));
}

static void finish_victim(struct run *r) {
    if (r->what != STEP_REPAIR &&
        trace_catch(&r->victim, "a client to end its operation") != (uintptr_t)step_end)
        step_victim_failed(&r->victim);
}

/* False: the daemon was just about to look when the victim went on, in a call that had begun before. */
static bool find_call(struct run *r, uint64_t function) {
    struct trace *d = &r->daemon;
    trace_break(d, function);
    if (r->what == STEP_REPAIR)
        trace_kill(&r->victim, false);
    else if (trace_step(&r->victim))
        trace_run(&r->victim);
    for (;;) {
        if (trace_go(d, "eagred to begin") == 0)
            ended();
        bool over = r->what != STEP_REPAIR && trace_has_stopped(&r->victim);
        if (r->what == STEP_REPAIR || has_news(d))
            return true;
        if (over)
            return false;
    }
}

/* The daemon stands at the first instruction of the call that does what we look at. */
static void ready_daemon(struct run *r) {
    struct trace *d = &r->daemon;
    const char *end = kinds[r->what].end;
    uint64_t function;
    for (;;) {
        ready_victim(r);
        if (r->what == STEP_REPAIR) {
            while (trace_go(&r->victim, "a client to take its places") != (uintptr_t)step_end) {}
            step_produce(&r->w.source, STEP_SMALL);
        }
        trace_begin(d, r->w.bus.pid);
        function = symbol(d, kinds[r->what].function);
        if (find_call(r, function))
            break;
        trace_end(d);
        finish_victim(r);
    }
    by_return = end == NULL;
    end_at = by_return ? trace_return_address(d) : symbol(d, end);
    trace_unbreak(d, function);
    trace_break(d, end_at);
}

/* ---- and behind it --------------------------------------------------------------------------------------- */

static void open_holders(struct run *r) {
    for (unsigned i = 0; i < HOLDERS; i++) {
        step_sink_open(&r->holder[i], r->w.e, r->w.dir, STEP_HOLDER + i);
        step_seek(&r->holder[i], step_position(&r->w.sink));
    }
}

static void close_holders(struct run *r) {
    for (unsigned i = 0; i < HOLDERS; i++)
        step_sink_close(&r->holder[i]);
}

static void end_clients(struct run *r) {
    if (r->victim.pid != 0)
        trace_kill(&r->victim, false);
    if (r->reader.pid != 0)
        trace_kill(&r->reader, false);
}

static void check(struct run *r) {
    struct step_world *w = &r->w;
    step_read_all(w);
    if (r->round % LAPS_EVERY == LAPS_EVERY - 1)
        step_laps(w, 5, true);
    look_at_held(r);
    step_check(w);
    r->round++;
    if (w->rounds < STEP_ROUNDS_A_LOG)
        return;
    end_clients(r);
    step_read_all(w);
    close_holders(r);
    step_new_logs(w);
    open_holders(r);
    step_laps(w, 4, true); /* nothing is left that these logs do not know */
}

static void open_run(struct run *r, enum step_daemon what) {
    *r = (struct run){.what = what};
    snprintf(step_when, sizeof(step_when), "%s, dry run", kinds[what].name);
    step_world_open(&r->w, false);
    open_holders(r);
}

static void close_run(struct run *r) {
    end_clients(r);
    close_holders(r);
    step_world_close(&r->w);
}

static void finish_reader(struct run *r) {
    if (trace_catch(&r->reader, "a reader to end its poll") != (uintptr_t)step_end)
        step_victim_failed(&r->reader);
}

/* Killed; another takes over. */
static void revive(struct run *r) {
    trace_kill(&r->daemon, true);
    if (eg_bus_wait(&r->w.bus) != 128 + SIGKILL)
        ended();
    /* Those whose memory is mapped go on without it. */
    look_at_held(r);
    step_use_up(&r->w);
    eg_bus_start(&r->w.bus, NULL);
    finish_victim(r); /* it may have waited for the daemon */
    check(r);
}

/* It goes on. */
static void resume(struct run *r) {
    trace_end(&r->daemon);
    finish_victim(r);
    if (r->reader.pid != 0)
        finish_reader(r);
    check(r);
}

/* True: it made a new buffer on the way. */
static bool dry_run(struct run *r, struct step_points *points) {
    bool made = false;
    ready_daemon(r);
    uint64_t making = symbol(&r->daemon, "eg_buffer_make");
    while (!is_end(&r->daemon, trace_pc(&r->daemon))) {
        made |= trace_pc(&r->daemon) == making;
        step_points_add(points, trace_pc(&r->daemon));
        if (!trace_step(&r->daemon))
            ended();
    }
    return made;
}

/* Twice the way that is meant: whether the daemon has a spare buffer depends on what went before. The daemon
 * stands at the end of the second. */
static void learn(struct run *r, struct step_points *points, void (*go_on)(struct run *r)) {
    struct step_points first = {0};
    for (int i = 0; i < DRY_RUNS; i++) {
        bool made = dry_run(r, points);
        if (made != (r->what == STEP_SWAP_NEW)) {
            step_points_free(points);
        } else if (first.count == 0) {
            first = *points;
            *points = (struct step_points){0};
        } else {
            step_points_common(points, &first);
            step_points_free(&first);
            return;
        }
        go_on(r);
    }
    fail_msg("%s: it goes another way each time", step_when);
}

/* False: the operation was over before the point. */
static bool reach(struct run *r, const struct step_point *p) {
    ready_daemon(r);
    bool reached = step_points_reach(&r->daemon, p, is_end);
    if (!reached && trace_pc(&r->daemon) != end_at)
        ended();
    return reached;
}

void step_daemon_killed(enum step_daemon what, const struct step_options *o) {
    struct run r;
    struct step_points points = {0};
    struct step_walk walk;
    open_run(&r, what);
    learn(&r, &points, revive);
    revive(&r);
    step_walk_begin(&walk, o, &points);
    for (const struct step_point *p; (p = step_walk_next(&walk)) != NULL;) {
        step_points_say(p, kinds[what].name, "killed");
        step_walk_count(&walk, reach(&r, p));
        revive(&r);
    }
    step_walk_end(&walk, kinds[what].name, "kill");
    step_points_free(&points);
    close_run(&r);
}

/* While it stands still, somebody may take the oldest segment in hand, which it is about to clean. (That is
 * another process: what is not mapped yet cannot be had now, and who wants it waits for the daemon.) */
static void meanwhile(struct run *r) {
    step_use_up(&r->w);
    if (r->what == STEP_RETIRE && trace_step(&r->reader)) {
        trace_run(&r->reader);
        for (int i = 0; i < READER_MS && !trace_has_stopped(&r->reader); i++)
            poll(NULL, 0, 1); /* it need not come to its end: then it is on its way */
    }
}

/* What it took in hand is what it was: it looks at it now, and once more before it lets go. */
static void ready_reader(struct run *r) {
    r->w.gaps = true;
    if (r->reader.pid == 0)
        step_victim_start(&r->reader, &r->w, STEP_READ_FIRST);
    else
        step_victim_again(&r->reader, &r->w);
}

void step_daemon_stopped(enum step_daemon what, const struct step_options *o) {
    struct run r;
    struct step_points points = {0};
    struct step_walk walk;
    open_run(&r, what);
    learn(&r, &points, resume);
    resume(&r);
    step_walk_begin(&walk, o, &points);
    for (const struct step_point *p; (p = step_walk_next(&walk)) != NULL;) {
        step_points_say(p, kinds[what].name, "stopped");
        if (what == STEP_RETIRE)
            ready_reader(&r);
        step_walk_count(&walk, reach(&r, p));
        meanwhile(&r);
        resume(&r);
    }
    step_walk_end(&walk, kinds[what].name, "stop");
    step_points_free(&points);
    close_run(&r);
}
