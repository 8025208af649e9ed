/*
 * eg-model - explores every interleaving of the log's protocol in a small scope.
 *
 *   eg-model [--model ring|wake|idle] [SCOPE...] [--break MUTATION --expect INVARIANT] [--steps]
 *
 * Exit status: 0 if what was expected is what came out: no violation, or, with --expect, one whose
 * text begins so. 1 otherwise. 2: wrong use, or the scope is too large. A violation that was not
 * expected is printed with its trace: leave --expect out to read one.
 */
#include <stdlib.h>
#include <string.h>

#include "ring.h"
#include "wake.h"

struct options options = {
    .producers = 2,
    .readers = 1,
    .slots = 2,
    .buffers = 4,
    .places = 2,
    .records = 2,
    .sleepers = 1,
    .wakers = 2,
};

static const struct {
    const char *name;
    const struct model *(*get)(void);
} models[] = {{"ring", ring_model}, {"wake", wake_model}, {"idle", idle_model}};

static const struct {
    const char *name, *model, *what;
} mutations[MUTATION_COUNT] = {{"nothing", "", ""},
#define X(name, model, what) {#name, #model, what},
                               MUTATIONS(X)
#undef X
};

/* Settings of the scope: a number, at least and at most. */
static const struct {
    const char *name;
    unsigned *value, min, max;
    const char *what;
} numbers[] = {
    {"--producers", &options.producers, 1, PRODUCERS_MAX, "producers (ring, idle)"},
    {"--readers", &options.readers, 0, 1, "readers (ring)"},
    {"--slots", &options.slots, 2, SLOTS_MAX, "ring.segments"},
    {"--buffers", &options.buffers, 2, BUFFERS_MAX, "slots and what may be swapped in"},
    {"--places", &options.places, 1, PLACES_MAX, "units of a segment"},
    {"--records", &options.records, 1, 4, "of each producer (idle: segments)"},
    {"--deaths", &options.deaths, 0, 2, "clients that may die, anywhere (idle: before they ring)"},
    {"--stops", &options.stops, 0, 2, "clients that may be stopped for ever, anywhere (ring)"},
    {"--crashes", &options.crashes, 0, 2, "times that the daemon may die, anywhere (ring)"},
    {"--sleepers", &options.sleepers, 1, 2, "consumers (wake)"},
    {"--wakers", &options.wakers, 1, 2, "producers (wake)"},
};

static const struct {
    const char *name;
    bool *value;
    const char *what;
} flags[] = {
    {"--mixed", &options.mixed, "batches of two and aborted claims, too"},
    {"--keep-pin", &options.keep_pin, "the reader waits without unpinning"},
    {"--disk", &options.disk, "a topic on disk: retire only what is published"},
    {"--fence", &options.fence, "clients that no membarrier reaches"},
    {"--retention", &options.retention, "segments may go at any time (wake: the segment may go)"},
    {"--stop-waiting", &options.stop_waiting, "--stops only while a producer waits for room"},
    {"--attach", &options.attach, "after a death a new client takes the owner number"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void usage(FILE *out) {
    fputs("usage: eg-model [--model ring|wake|idle] [OPTION...]\n\n", out);
    for (size_t i = 0; i < COUNT(numbers); i++)
        fprintf(out, "  %s %u..%u\t%s [%u]\n", numbers[i].name, numbers[i].min, numbers[i].max,
                numbers[i].what, *numbers[i].value);
    for (size_t i = 0; i < COUNT(flags); i++)
        fprintf(out, "  %s\t%s\n", flags[i].name, flags[i].what);
    fputs("  --memory sc|tso|weak\thow stores become visible [sc]\n"
          "  --max-states N\tgive up beyond [40000000]\n"
          "  --break MUTATION\twhat is broken on purpose\n"
          "  --expect INVARIANT\tthe violation that must come, e.g. R1; without its trace\n"
          "  --steps\thow often each step was taken\n\nMUTATION:\n",
          out);
    for (size_t i = 1; i < MUTATION_COUNT; i++)
        fprintf(out, "  %s (%s): %s\n", mutations[i].name, mutations[i].model, mutations[i].what);
}

static void wrong(const char *what, const char *value) {
    fprintf(stderr, "eg-model: %s '%s'; see --help\n", what, value);
    exit(2);
}

static const char *value_of(char **argv, int argc, int *i) {
    if (++*i == argc)
        wrong("no value for", argv[argc - 1]);
    return argv[*i];
}

static unsigned long number_of(const char *text) {
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0')
        wrong("not a number:", text);
    return n;
}

static enum mutation mutation_of(const char *name) {
    for (size_t i = 0; i < MUTATION_COUNT; i++)
        if (strcmp(name, mutations[i].name) == 0)
            return (enum mutation)i;
    wrong("no mutation", name);
    return NOTHING;
}

/* An option of the scope. False: it is none. */
static bool take_scope(char **argv, int argc, int *i) {
    for (size_t k = 0; k < COUNT(numbers); k++) {
        if (strcmp(argv[*i], numbers[k].name) != 0)
            continue;
        unsigned long n = number_of(value_of(argv, argc, i));
        if (n < numbers[k].min || n > numbers[k].max)
            wrong("out of range:", argv[*i]);
        *numbers[k].value = (unsigned)n;
        return true;
    }
    for (size_t k = 0; k < COUNT(flags); k++) {
        if (strcmp(argv[*i], flags[k].name) == 0) {
            *flags[k].value = true;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv) {
    const char *model = "ring", *expected = NULL;
    uint64_t max_states = 40000000;
    bool steps = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--help") == 0) {
            usage(stdout);
            return 0;
        }
        if (take_scope(argv, argc, &i))
            continue;
        if (strcmp(a, "--steps") == 0) {
            steps = true;
        } else if (strcmp(a, "--model") == 0) {
            model = value_of(argv, argc, &i);
        } else if (strcmp(a, "--memory") == 0) {
            const char *m = value_of(argv, argc, &i);
            options.memory = strcmp(m, "tso") == 0 ? TSO : strcmp(m, "weak") == 0 ? WEAK : SC;
            if (options.memory == SC && strcmp(m, "sc") != 0)
                wrong("no memory", m);
        } else if (strcmp(a, "--break") == 0) {
            options.broken = mutation_of(value_of(argv, argc, &i));
        } else if (strcmp(a, "--expect") == 0) {
            expected = value_of(argv, argc, &i);
        } else if (strcmp(a, "--max-states") == 0) {
            max_states = number_of(value_of(argv, argc, &i));
        } else {
            wrong("unknown option", a);
        }
    }
    if (options.buffers < options.slots)
        wrong("fewer buffers than slots for", "--slots");
    const struct model *m = NULL;
    for (size_t i = 0; i < COUNT(models); i++)
        if (strcmp(model, models[i].name) == 0)
            m = models[i].get();
    if (m == NULL)
        wrong("no model", model);
    if (options.broken != NOTHING && strcmp(mutations[options.broken].model, model) != 0)
        wrong("another model's mutation:", mutations[options.broken].name);

    struct result r = explore(m, max_states, expected != NULL ? NULL : stdout);
    if (steps)
        explorer_print_steps(stdout);
    printf("%s: %llu states, %llu of them quiet, %u steps deep: %s\n", model,
           (unsigned long long)r.states, (unsigned long long)r.quiet, r.depth,
           r.verdict == HOLDS      ? "every invariant holds"
           : r.verdict == VIOLATED ? r.invariant
                                   : "too many states: not all were visited");
    if (r.verdict == TOO_LARGE)
        return 2;
    if (expected == NULL)
        return r.verdict != HOLDS;
    if (r.verdict == VIOLATED && strncmp(r.invariant, expected, strlen(expected)) == 0)
        return 0;
    printf("expected a violation of %s\n", expected);
    return 1;
}
