/*
 * assign_plan.h - what the assignors (assignors.h) share: one plan a call.
 *
 * Members that subscribe the same topics (and, for numa, are on the same node) are interchangeable but for what
 * they have now: a class. Most groups have one class or a few, so nothing here is as large as members x topics.
 */
#ifndef EG_ASSIGN_PLAN_H
#define EG_ASSIGN_PLAN_H

#include "assignors.h"

#include <stdbool.h>
#include <stdlib.h>

#define EG_NO_NODE UINT32_MAX
#define EG_PLAN_ARRAYS 32

/* Rows of numbers: those of row i are item[start[i]] .. item[start[i + 1] - 1]. */
struct eg_rows {
    uint32_t *start;
    uint32_t *item;
};

struct eg_plan {
    const struct eg_assign_input *in;
    uint32_t *next; /* the result: a partition's member */
    uint32_t members, topics, partitions;
    bool numa;

    uint32_t classes;
    uint32_t *class_of;      /* a member */
    struct eg_rows of_class; /* a class: its members, rising */
    struct eg_rows of_topic; /* a topic: the classes that subscribe it, rising */

    void *array[EG_PLAN_ARRAYS]; /* what eg_plan_array gave */
    size_t arrays;
    bool no_memory;
};

int eg_plan_init(struct eg_plan *p, const struct eg_assign_input *in, bool numa, uint32_t *next);
void eg_plan_free(struct eg_plan *p);

/* Zeroed; freed with the plan. NULL: no memory, and no_memory is set, so that one look after several is enough. */
void *eg_plan_array(struct eg_plan *p, size_t count, size_t size);

static inline const struct eg_assign_member *eg_class_member(const struct eg_plan *p, uint32_t c) {
    return &p->in->members[p->of_class.item[p->of_class.start[c]]];
}

/* cooperative-sticky, and numa: assign_sticky.c. */
int eg_assign_sticky(struct eg_plan *p);

/* ---- assign_sticky.c and assign_refine.c ------------------------------------------------------------------ */

struct eg_sticky {
    struct eg_plan *p;
    uint32_t *topic_of; /* a partition */
    uint32_t *node_of;  /* a partition; EG_NO_NODE: unknown, or nobody cares */
    uint32_t *home;     /* a partition: who has it now and may keep it, or EG_NOBODY */
    uint32_t *load;     /* a member: how many partitions it gets */
    /* A member's partitions: a list through them. */
    uint32_t *held, *after, *before;
    int64_t
        far_cost; /* of a partition that is not on its member's node: more than all moves together */
};

static inline int64_t eg_far_cost(const struct eg_sticky *s, uint32_t node, uint32_t member) {
    return node != EG_NO_NODE && node != s->p->in->members[member].node ? s->far_cost : 0;
}

/* What it costs, balance aside, that this member gets this partition. */
static inline int64_t eg_give_cost(const struct eg_sticky *s, uint32_t partition, uint32_t member) {
    return eg_far_cost(s, s->node_of[partition], member) + (s->home[partition] != member);
}

void eg_sticky_give(struct eg_sticky *s, uint32_t partition, uint32_t member);
void eg_sticky_take(struct eg_sticky *s, uint32_t partition);

/* Make it the cheapest of all that are balanced as it is. */
int eg_sticky_refine(struct eg_sticky *s);

#endif
