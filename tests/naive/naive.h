/*
 * naive.h - the real log beside a naive one, on random operations.
 *
 * The naive log (model.h) is an array: what each offset holds, where each segment begins. world.c does each
 * operation on both and compares: what was taken, what readers got and still hold, where the log begins and
 * ends, what the checker says. A list of operations that fails is shrunk to its shortest form.
 */
#ifndef EG_TESTS_NAIVE_H
#define EG_TESTS_NAIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* X(KIND, word, weight). */
#define NAIVE_KINDS(X)                                                                             \
    X(PUT, put, 90)       /* producer who: one record, or a batch */                               \
    X(CLAIM, claim, 10)   /* ... whose place is taken only */                                      \
    X(COMMIT, commit, 10) /* the open claim of producer who, perhaps shorter */                    \
    X(ABORT, abort, 3)                                                                             \
    X(KILL, kill, 2)     /* producer who is gone, its claim and its pin stay; another comes */     \
    X(DIE, die, 4)       /* likewise, at a named step of a put */                                  \
    X(REPAIR, repair, 5) /* what the dead left */                                                  \
    X(POLL, poll, 40)    /* reader who */                                                          \
    X(SEEK, seek, 8)                                                                               \
    X(UNPIN, unpin, 3)                                                                             \
    X(KEEP, keep, 1)     /* whether an empty poll stays pinned */                                  \
    X(RETIRE, retire, 4) /* the oldest segment, unless it is pinned */                             \
    X(SWAP, swap, 5)     /* ... and if it is, another buffer takes its place */                    \
    X(FREE, free, 3)     /* buffers that pins hold no more */

enum naive_kind {
#define NAIVE_X(kind, word, weight) NAIVE_##kind,
    NAIVE_KINDS(NAIVE_X)
#undef NAIVE_X
        NAIVE_KIND_COUNT
};

/* Any numbers will do in any op, in any order: world.c takes them modulo what there is. */
struct naive_op {
    uint32_t kind;
    uint32_t who;
    uint32_t size;
    uint32_t what;
};

/* A bug that is not there, to see that it is found and shrunk. */
enum naive_plant { NAIVE_SOUND = 0, NAIVE_LOSES = 1, NAIVE_CRASHES = 2 };

struct naive_list {
    uint32_t capacity, slots, align, single;
    uint32_t plant;
    size_t count;
    struct naive_op *op;
};

#define NAIVE_TEXT 512

/* list.c */
void naive_generate(struct naive_list *l, uint64_t seed, size_t count);
void naive_copy(struct naive_list *to, const struct naive_list *from);
void naive_free(struct naive_list *l);
void naive_print(const struct naive_list *l, FILE *out);
bool naive_parse(struct naive_list *l, FILE *in); /* what naive_print() prints */

/* world.c: ends the process, with the reason written to fd, if the two differ. */
void naive_run(const struct naive_list *l, int fd);

/* try.c. In a child of its own: false: it failed, text says at which op and why (or how it ended). */
bool naive_try(const struct naive_list *l, char text[NAIVE_TEXT]);
/* l fails: leave of it what is needed to fail. text: why the result fails. */
void naive_shrink(struct naive_list *l, char text[NAIVE_TEXT]);

#endif
