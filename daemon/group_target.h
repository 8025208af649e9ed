/* group_target.h - what a generation is to give to whom. */
#ifndef EG_GROUP_TARGET_H
#define EG_GROUP_TARGET_H

#include "assignors.h"
#include "groups.h"

struct eg_target_topic {
    uint32_t uid, partitions, first;
};

struct eg_target {
    struct eg_target_topic *topic; /* by name */
    uint32_t *by_uid;           /* indexes of these */
    size_t topic_count;
    uint32_t count;   /* partitions of all */
    uint32_t *who;    /* a partition: number of the member that is to have it; 0: nobody */
    uint32_t *holder; /* who has it, or may still have it; 0: it is free */
};

/* What the members' lists have in common; Kafka's way: each votes for the first of its own list that all have. */
enum eg_assignor eg_group_choose(const struct eg_group *g);
/* By what members subscribe and have now. NULL: no memory. */
struct eg_target *eg_target_compute(struct eg_daemon *d, struct eg_group *g, enum eg_assignor how);
/* The number of a partition in the target (NULL is fine); EG_NOBODY: nobody subscribes it. */
uint32_t eg_target_place(const struct eg_target *t, uint32_t uid, uint32_t partition);
/* A static member has come back. */
void eg_target_renumber(struct eg_target *t, uint32_t from, uint32_t to);

#endif
