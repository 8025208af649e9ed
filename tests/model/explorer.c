#include "explorer.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 };

/* States that were found and not expanded yet, first in first out. */
struct chunk {
    struct chunk *next;
    size_t used, taken;
    unsigned char bytes[];
};

struct explorer {
    const struct model *model;
    /* Set of hashes, open addressing; 0 is no hash. */
    uint64_t *set;
    size_t mask;
    /* State number n was reached from state parent[n] by its successor via[n]. */
    uint32_t *parent;
    uint8_t *via;
    size_t capacity;
    uint64_t states;
    struct chunk *first, *last;
    /* The expansion that is going on. */
    uint32_t current;
    bool any_step;
    bool found_violation;
    unsigned violating_id;
    /* Replaying a trace: nothing is stored, only this successor is wanted. */
    bool replaying;
    unsigned wanted;
    void *replayed;
    FILE *trace;
    unsigned line;
};

static const char *violated; /* by the step that is being taken */

/* How often each step was taken, by the address of its name. */
enum { STEPS_MAX = 256 };
static struct {
    const char *actor, *step;
    uint64_t times;
} steps[STEPS_MAX];

static void count_step(const char *actor, const char *step) {
    size_t at = ((uintptr_t)step ^ (uintptr_t)step >> 7) % STEPS_MAX;
    while (steps[at].step != NULL && (steps[at].step != step || steps[at].actor != actor))
        at = (at + 1) % STEPS_MAX;
    steps[at].actor = actor;
    steps[at].step = step;
    steps[at].times++;
}

void explorer_print_steps(FILE *out) {
    for (size_t i = 0; i < STEPS_MAX; i++)
        if (steps[i].step != NULL)
            fprintf(out, "%12llu  %s: %s\n", (unsigned long long)steps[i].times, steps[i].actor,
                    steps[i].step);
}

void explorer_violated(const char *invariant) {
    if (violated == NULL)
        violated = invariant;
}

static void *must(void *memory) {
    if (memory == NULL) {
        fprintf(stderr, "eg-model: no memory\n");
        exit(2);
    }
    return memory;
}

/* ---- the set of visited states ------------------------------------------------------------------- */

static uint64_t hash_of(const void *state, size_t bytes) {
    const unsigned char *at = state;
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ bytes;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, at + i, bytes - i < 8 ? bytes - i : 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    h ^= h >> 29;
    return h != 0 ? h : 1;
}

static bool set_add(struct explorer *x, uint64_t hash) {
    if (4 * x->states >= 3 * (x->mask + 1)) {
        uint64_t *old = x->set;
        size_t size = x->mask + 1;
        x->mask = 2 * size - 1;
        x->set = must(calloc(2 * size, sizeof(*x->set)));
        for (size_t i = 0; i < size; i++) {
            size_t at = old[i] & x->mask;
            while (old[i] != 0 && x->set[at] != 0)
                at = (at + 1) & x->mask;
            if (old[i] != 0)
                x->set[at] = old[i];
        }
        free(old);
    }
    size_t at = hash & x->mask;
    while (x->set[at] != 0) {
        if (x->set[at] == hash)
            return false;
        at = (at + 1) & x->mask;
    }
    x->set[at] = hash;
    return true;
}

static void remember(struct explorer *x, const void *state, unsigned id) {
    size_t bytes = x->model->bytes;
    if (x->states == x->capacity) {
        x->capacity = x->capacity == 0 ? 4096 : 2 * x->capacity;
        x->parent = must(realloc(x->parent, x->capacity * sizeof(*x->parent)));
        x->via = must(realloc(x->via, x->capacity * sizeof(*x->via)));
    }
    x->parent[x->states] = x->current;
    x->via[x->states] = (uint8_t)id;
    x->states++;
    if (x->last == NULL || x->last->used + bytes > CHUNK_BYTES) {
        struct chunk *c = must(malloc(sizeof(*c) + CHUNK_BYTES));
        *c = (struct chunk){0};
        if (x->last != NULL)
            x->last->next = c;
        else
            x->first = c;
        x->last = c;
    }
    memcpy(x->last->bytes + x->last->used, state, bytes);
    x->last->used += bytes;
}

/* ---- steps --------------------------------------------------------------------------------------- */

void explorer_emit(struct explorer *x, const void *state, unsigned id, const char *actor,
                   unsigned number, const char *step, bool environment) {
    x->any_step |= !environment;
    if (x->replaying) {
        if (id != x->wanted)
            return;
        memcpy(x->replayed, state, x->model->bytes);
        fprintf(x->trace, "%4u  %s %u: %s\n          ", ++x->line, actor, number, step);
        x->model->describe(state, x->trace);
        fputc('\n', x->trace);
        return;
    }
    if (x->found_violation)
        return;
    if (violated != NULL) {
        x->found_violation = true;
        x->violating_id = id;
        return;
    }
    count_step(actor, step);
    if (set_add(x, hash_of(state, x->model->bytes)))
        remember(x, state, id);
}

/* From the first state to state number `last`, and by its successor `id` (-1: not further). */
static void print_trace(struct explorer *x, uint32_t last, int id) {
    size_t depth = 0, bytes = x->model->bytes;
    const char *invariant = violated;
    for (uint32_t n = last; n != 0; n = x->parent[n])
        depth++;
    uint8_t *way = must(calloc(depth + 1, 1));
    size_t at = depth;
    for (uint32_t n = last; n != 0; n = x->parent[n])
        way[--at] = x->via[n];
    unsigned char *state = must(malloc(bytes)), *next = must(calloc(1, bytes));
    x->model->init(state);
    x->replaying = true;
    x->replayed = next;
    fprintf(x->trace, "VIOLATION: %s\n          ", invariant);
    x->model->describe(state, x->trace);
    fputc('\n', x->trace);
    for (size_t i = 0; i < depth + (id >= 0); i++) {
        x->wanted = i < depth ? way[i] : (unsigned)id;
        x->model->expand(state, x);
        memcpy(state, next, bytes);
    }
    fprintf(x->trace, "VIOLATION: %s\n", invariant);
    free(way);
    free(state);
    free(next);
}

static bool take(struct explorer *x, void *state) {
    struct chunk *c = x->first;
    if (c != NULL && c->taken == c->used && c->next != NULL) {
        x->first = c->next;
        free(c);
        c = x->first;
    }
    if (c == NULL || c->taken == c->used)
        return false;
    memcpy(state, c->bytes + c->taken, x->model->bytes);
    c->taken += x->model->bytes;
    return true;
}

struct result explore(const struct model *m, uint64_t max_states, FILE *trace) {
    struct explorer x = {.model = m, .mask = (1 << 16) - 1, .trace = trace};
    struct result r = {.verdict = HOLDS};
    uint64_t level_ends = 1;
    unsigned char *state = must(malloc(m->bytes));
    x.set = must(calloc(x.mask + 1, sizeof(*x.set)));
    violated = NULL;
    m->init(state);
    set_add(&x, hash_of(state, m->bytes));
    remember(&x, state, 0);
    for (uint32_t n = 0; take(&x, state); n++) {
        if (n == level_ends) {
            level_ends = x.states;
            r.depth++;
        }
        x.current = n;
        x.any_step = false;
        m->expand(state, &x);
        if (!x.any_step && !x.found_violation) {
            r.quiet++;
            m->quiet(state);
        }
        if (violated != NULL) {
            r.verdict = VIOLATED;
            r.invariant = violated;
            if (trace != NULL)
                print_trace(&x, n, x.found_violation ? (int)x.violating_id : -1);
            break;
        }
        if (x.states > max_states) {
            r.verdict = TOO_LARGE;
            break;
        }
    }
    r.states = x.states;
    while (x.first != NULL) {
        struct chunk *next = x.first->next;
        free(x.first);
        x.first = next;
    }
    free(x.set);
    free(x.parent);
    free(x.via);
    free(state);
    return r;
}
