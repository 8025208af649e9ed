/*
 * meta.h - what must survive everything: topics, settings, offsets. LMDB is used here and in members_store.h only. One
 * transaction a change, synced before the call returns.
 */
#ifndef EG_META_H
#define EG_META_H

#include "layout/layout.h"

#include <stddef.h>
#include <stdint.h>

struct eg_meta;

int eg_meta_open(const char *dir, struct eg_meta **out); /* dir/meta; says what is wrong with it */
void eg_meta_close(struct eg_meta *m);

/* A topic's record: settings as "name=value\n" lines, only those that differ from the defaults. */
struct eg_meta_topic {
    char name[EG_TOPIC_NAME_MAX + 1];
    uint32_t uid;
    uint32_t partitions;
    uint32_t
        first_partition_uid[8]; /* runs of consecutive uids: one at creation, one an enlargement */
    uint32_t run_length[8];
    uint32_t runs;
    uint32_t owner_uid; /* Unix uid of who created it */
    char settings[2048];
};

/* The instance whose memory goes with these topics; 0: there was none yet. */
int eg_meta_instance_get(struct eg_meta *m, uint64_t *out);
int eg_meta_instance_put(struct eg_meta *m, uint64_t instance);

/* Next never-used ids: reserves n partition uids in the same transaction as the put. */
int eg_meta_topic_create(struct eg_meta *m, struct eg_meta_topic *t); /* fills uid, first run */
int eg_meta_topic_grow(struct eg_meta *m, struct eg_meta_topic *t, uint32_t partitions);
int eg_meta_topic_put(struct eg_meta *m, const struct eg_meta_topic *t); /* settings changed */
int eg_meta_topic_delete(struct eg_meta *m, const struct eg_meta_topic *t);
/* Calls f for each topic, by name; stops at the first failure and returns it. */
int eg_meta_topics(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_topic *t),
                   void *ctx);

/*
 * Where a partition's log would go on after a cold start. `end` is exact after a clean stop; while
 * the daemon runs it is a bound that no offset given out has reached, moved ahead in large strides,
 * so that an offset that anybody may have seen is never given twice.
 */
struct eg_meta_mark {
    uint32_t partition_uid;
    uint32_t clean; /* 1: exact */
    int64_t end;
    uint64_t seq;
};
int eg_meta_mark_get(struct eg_meta *m, uint32_t partition_uid,
                     struct eg_meta_mark *out); /* zeros if none */
int eg_meta_marks_put(struct eg_meta *m, const struct eg_meta_mark *marks,
                      size_t count); /* one transaction */

/*
 * What is known to be on disk of a partition (storage=disk), as of some seconds ago: everything before pos of segment
 * seq; and where its log begins, which never goes back.
 */
struct eg_meta_disk {
    uint32_t partition_uid;
    uint64_t seq, pos;
    int64_t log_start;
};
int eg_meta_disk_get(struct eg_meta *m, uint32_t partition_uid, struct eg_meta_disk *out); /* zeros if none */
/* The last topic uid that was given out. */
int eg_meta_last_topic(struct eg_meta *m, uint32_t *out);
/* One transaction. From any thread; blocks as long as the disk does. Nothing of it goes back, whatever order notes come in;
 * what is not a partition (any more) is left out. */
int eg_meta_disk_put(struct eg_meta *m, const struct eg_meta_disk *all, size_t count);

#endif
