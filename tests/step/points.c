#include "step/points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "step/world.h"

/* How often each instruction came: open addressing by its address. */
struct seen {
    uint64_t pc;
    uint32_t times;
};

static _Noreturn void no_memory(void) {
    fprintf(stderr, "no memory\n");
    exit(1);
}

static struct seen *find(struct step_points *p, uint64_t pc) {
    size_t i = (size_t)(pc * 0x9e3779b97f4a7c15ull) & (p->seen_capacity - 1);
    while (p->seen[i].pc != 0 && p->seen[i].pc != pc)
        i = (i + 1) & (p->seen_capacity - 1);
    p->seen[i].pc = pc;
    return &p->seen[i];
}

static bool counts(uint32_t times) {
    if (times <= 3)
        return true;
    while (times > 1 && times % 8 == 0)
        times /= 8;
    return times == 1;
}

void step_points_add(struct step_points *p, uint64_t pc) {
    if (p->seen == NULL) {
        p->seen_capacity = 1u << 16; /* more instructions than any of our operations has */
        p->seen = calloc(p->seen_capacity, sizeof(*p->seen));
        if (p->seen == NULL)
            no_memory();
    }
    uint32_t number = (uint32_t)p->instructions++;
    uint32_t times = ++find(p, pc)->times;
    if (!counts(times))
        return;
    if (p->count == p->capacity) {
        p->capacity = p->capacity == 0 ? 1024 : 2 * p->capacity;
        p->list = realloc(p->list, p->capacity * sizeof(*p->list));
        if (p->list == NULL)
            no_memory();
    }
    p->list[p->count++] = (struct step_point){pc, times, number};
}

void step_points_common(struct step_points *p, struct step_points *other) {
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++)
        if (find(other, p->list[i].pc)->times >= p->list[i].occurrence)
            p->list[kept++] = p->list[i];
    p->count = kept;
}

void step_points_free(struct step_points *p) {
    free(p->list);
    free(p->seen);
    *p = (struct step_points){0};
}

void step_points_say(const struct step_point *p, const char *scenario, const char *what) {
    snprintf(step_when, sizeof(step_when),
             "%s, %s before instruction %" PRIu32 " (pc %#" PRIx64 ", time %" PRIu32 ")", scenario,
             what, p->number, p->pc, p->occurrence);
}

bool step_points_reach(struct trace *t, const struct step_point *p,
                       bool (*is_end)(struct trace *t, uint64_t at)) {
    uint32_t times = trace_pc(t) == p->pc;
    bool ours = !trace_has_break(t, p->pc);
    bool reached = times == p->occurrence;
    if (reached)
        return true;
    trace_break(t, p->pc);
    while (!reached) {
        uint64_t at = trace_go(t, "an instruction to be reached");
        if (at == 0)
            return false;
        if (at == p->pc)
            reached = ++times == p->occurrence;
        if (!reached && is_end(t, at))
            break;
    }
    if (ours)
        trace_unbreak(t, p->pc);
    return reached;
}

/* ---- the order ---------------------------------------------------------------------------------------- */

static size_t common_divisor(size_t a, size_t b) { return b == 0 ? a : common_divisor(b, a % b); }

void step_walk_begin(struct step_walk *w, const struct step_options *o,
                     const struct step_points *p) {
    size_t stride = o->stride, n = p->count;
    *w = (struct step_walk){.options = o, .points = p, .index = o->phase, .total = n};
    if (stride != 0) {
        w->total = o->phase < n ? (n - o->phase + stride - 1) / stride : 0;
    } else {
        /* Any prefix of this order is spread over the whole. */
        stride = (size_t)((double)n * 0.6180339887) | 1;
        while (common_divisor(stride, n) > 1)
            stride++;
        w->index = n > 0 ? (size_t)(o->seed % n) : 0;
    }
    w->stride = stride;
    w->until_ns = o->seconds > 0 ? history_now() + (int64_t)(o->seconds * 1e9) : INT64_MAX;
}

const struct step_point *step_walk_next(struct step_walk *w) {
    if (w->done == w->total || history_now() >= w->until_ns)
        return NULL;
    size_t index = w->index;
    w->index += w->stride;
    if (w->options->stride == 0)
        w->index %= w->points->count;
    w->done++;
    return &w->points->list[index];
}

void step_walk_count(struct step_walk *w, bool reached) {
    w->missed += !reached;
    if (w->options->verbose)
        fprintf(stderr, "%s%s\n", step_when, reached ? "" : ": not reached");
}

void step_walk_end(const struct step_walk *w, const char *scenario, const char *mode) {
    printf("%-14s %-5s %6zu instructions, %5zu points, %5zu done, %zu not reached\n", scenario,
           mode, w->points->instructions, w->points->count, w->done, w->missed);
    fflush(stdout);
}
