/*
 * explorer.h - visits every state that a model can reach, each once, and asks in each whether the
 * invariants hold.
 *
 * A model is one struct without pointers (its state), a first state, and a function that emits all
 * successors of a state: each actor's next step, where it has one. Successors are visited breadth
 * first, so that a counterexample is one of the shortest. It is printed as the names of its steps,
 * which are those of the code's fault points.
 *
 * A visited state is remembered by a hash of 64 bits. Two states with the same hash would hide one of
 * them: with ten million states the chance of any such pair is about one in 400,000.
 */
#ifndef MODEL_EXPLORER_H
#define MODEL_EXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct explorer;

struct model {
    size_t bytes; /* of a state: compared as bytes, so it has no holes */
    void (*init)(void *state);
    /* Call explorer_emit() for each successor. */
    void (*expand)(const void *state, struct explorer *x);
    /* Called where no actor has a step (but for what the environment may do: deaths, stops): has
     * everybody got what the protocol promises? */
    void (*quiet)(const void *state);
    /* One line, for traces. */
    void (*describe)(const void *state, FILE *out);
};

enum verdict { HOLDS, VIOLATED, TOO_LARGE };

struct result {
    enum verdict verdict;
    const char *invariant; /* the violated one */
    uint64_t states;
    uint64_t quiet; /* of them: those without a step */
    unsigned depth; /* steps of the longest of the shortest ways */
};

/* One successor. `id` tells it from the others of the same state, so that a trace can be replayed.
 * environment: it may happen, but nobody can wait for it (death, stop, crash). */
void explorer_emit(struct explorer *x, const void *state, unsigned id, const char *actor,
                   unsigned number, const char *step, bool environment);

/* An invariant: its name and what it says. The first one violated on a step ends the exploration. */
#define CHECK(condition, invariant)                                                                \
    do {                                                                                           \
        if (!(condition))                                                                          \
            explorer_violated(invariant);                                                          \
    } while (0)
void explorer_violated(const char *invariant);

/* trace: where a counterexample is printed to; NULL: nowhere. */
struct result explore(const struct model *m, uint64_t max_states, FILE *trace);
/* How often each step was taken: what a scope does not reach it does not check. */
void explorer_print_steps(FILE *out);

#endif
