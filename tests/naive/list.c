/* Lists of operations: random ones, and as text. */
#include "naive/naive.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sys/rand.h"

static const char *const words[] = {
#define NAIVE_X(kind, word, weight) #word,
    NAIVE_KINDS(NAIVE_X)
#undef NAIVE_X
};

static const uint32_t weights[] = {
#define NAIVE_X(kind, word, weight) weight,
    NAIVE_KINDS(NAIVE_X)
#undef NAIVE_X
};

static uint32_t random_kind(uint64_t *rand) {
    uint32_t sum = 0, kind = 0;
    for (size_t i = 0; i < NAIVE_KIND_COUNT; i++)
        sum += weights[i];
    for (uint64_t at = eg_rand_next(rand) % sum; at >= weights[kind]; kind++)
        at -= weights[kind];
    return kind;
}

/* Most are short, some fill an eighth of the segment: that is what ends segments. */
static uint32_t random_size(uint64_t *rand, uint32_t capacity) {
    switch (eg_rand_next(rand) % 4) {
    case 0:
        return (uint32_t)(eg_rand_next(rand) % 100);
    case 1:
        return (uint32_t)(eg_rand_next(rand) % 3000);
    default:
        return capacity / 10 + (uint32_t)(eg_rand_next(rand) % (capacity / 48));
    }
}

static void resize(struct naive_list *l, size_t count) {
    l->op = realloc(l->op, (count + 1) * sizeof(*l->op));
    if (l->op == NULL)
        abort();
    l->count = count;
}

void naive_generate(struct naive_list *l, uint64_t seed, size_t count) {
    uint64_t rand = seed;
    *l = (struct naive_list){
        .capacity = 65536u << eg_rand_next(&rand) % 3,
        .slots = 3 + (uint32_t)(eg_rand_next(&rand) % 4 == 0),
        .align = 8u << eg_rand_next(&rand) % 4,
        .single = eg_rand_next(&rand) % 8 == 0,
    };
    resize(l, count);
    for (size_t i = 0; i < count; i++)
        l->op[i] = (struct naive_op){random_kind(&rand), (uint32_t)(eg_rand_next(&rand) % 3),
                                     random_size(&rand, l->capacity),
                                     (uint32_t)(eg_rand_next(&rand) % 100000)};
}

void naive_copy(struct naive_list *to, const struct naive_list *from) {
    *to = *from;
    to->op = NULL;
    resize(to, from->count);
    memcpy(to->op, from->op, from->count * sizeof(*from->op));
}

void naive_free(struct naive_list *l) {
    free(l->op);
    *l = (struct naive_list){0};
}

void naive_print(const struct naive_list *l, FILE *out) {
    (void)fprintf(out,
                  "world capacity=%" PRIu32 " slots=%" PRIu32 " align=%" PRIu32 " single=%" PRIu32
                  " plant=%" PRIu32 "\n",
                  l->capacity, l->slots, l->align, l->single, l->plant);
    for (size_t i = 0; i < l->count; i++)
        (void)fprintf(out, "%s who=%" PRIu32 " size=%" PRIu32 " what=%" PRIu32 "\n",
                      words[l->op[i].kind], l->op[i].who, l->op[i].size, l->op[i].what);
}

static bool is_possible(const struct naive_list *l) {
    return l->capacity >= 65536 && l->capacity % 65536 == 0 && l->capacity <= 1u << 24 &&
           l->slots >= 3 && l->slots <= 16 && l->align >= 8 && l->align <= 64 &&
           (l->align & (l->align - 1)) == 0;
}

bool naive_parse(struct naive_list *l, FILE *in) {
    char word[16];
    *l = (struct naive_list){0};
    if (fscanf(in,
               "world capacity=%" SCNu32 " slots=%" SCNu32 " align=%" SCNu32 " single=%" SCNu32
               " plant=%" SCNu32,
               &l->capacity, &l->slots, &l->align, &l->single, &l->plant) != 5 ||
        !is_possible(l))
        return false;
    for (;;) {
        struct naive_op op;
        int n = fscanf(in, " %15s who=%" SCNu32 " size=%" SCNu32 " what=%" SCNu32, word, &op.who,
                       &op.size, &op.what);
        if (n == EOF)
            return true;
        for (op.kind = 0; op.kind < NAIVE_KIND_COUNT && strcmp(words[op.kind], word) != 0;
             op.kind++) {}
        if (n != 4 || op.kind == NAIVE_KIND_COUNT)
            return false;
        resize(l, l->count + 1);
        l->op[l->count - 1] = op;
    }
}
