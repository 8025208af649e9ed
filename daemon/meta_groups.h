/*
 * meta_groups.h - groups and their committed offsets, in the same LMDB database as topics (meta.h). One transaction a
 * call, synced before it returns. A topic's offsets go with the topic, in its transaction.
 */
#ifndef EG_META_GROUPS_H
#define EG_META_GROUPS_H

#include "layout/group.h"
#include "meta.h"

struct eg_meta_group {
    char name[EG_GROUP_NAME_MAX + 1];
    uint32_t uid; /* never reused */
    uint32_t type;
    uint32_t owner_uid;
    uint32_t generation; /* none was higher when this was written */
};

struct eg_meta_offset {
    uint32_t group_uid, topic_uid, partition;
    uint32_t flags;
    int64_t offset; /* -1, in a put: forget it */
    int64_t time_ms;
    uint64_t stamp; /* which of two is the later one */
    const char *metadata; /* NULL: none */
};

/* Fills uid. That there is none of that name is known to the caller. */
int eg_meta_group_create(struct eg_meta *m, struct eg_meta_group *g);
int eg_meta_group_delete(struct eg_meta *m, const struct eg_meta_group *g); /* its offsets, too */
/* By uid; stops at the first failure and returns it. Their f writes nothing to the database. */
int eg_meta_groups(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_group *g), void *ctx);
/* By group, topic, partition. */
int eg_meta_offsets(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_offset *o), void *ctx);
/* Offsets, and the generations of these groups (only uid and generation count). From any thread. What is of a
 * group that is gone is left out. */
int eg_meta_offsets_put(struct eg_meta *m, const struct eg_meta_offset *all, size_t count,
                        const struct eg_meta_group *groups, size_t group_count);

#endif
