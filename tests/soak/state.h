/* state.h - what an instance has in use, as figures that should be the same whenever it is quiet. */
#ifndef EG_TESTS_SOAK_STATE_H
#define EG_TESTS_SOAK_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "system/harness.h"

#define SOAK_FIGURES 200

struct soak_figure {
    char name[200];
    long long value;
    long long slack; /* how much more than before is no leak; why is told in state.c */
};

struct soak_state {
    size_t count;
    struct soak_figure figure[SOAK_FIGURES];
};

/* Wait until no client and no connection but ours is there, delete the workers' own topics, count. */
void soak_state_take(const struct eg_test_bus *b, struct soak_state *s);
/* Take it again until nothing has grown since `before`; the test fails if that does not come, and
 * says what has grown. */
void soak_state_wait(const struct eg_test_bus *b, const struct soak_state *before,
                     struct soak_state *now);
/* Attach as many clients at once as will ever be there, so that tables have their full size. */
void soak_state_stretch(const struct eg_test_bus *b);
void soak_state_print(const struct soak_state *s);

#endif
