/*
 * topics.h - the topics of the instance, and where services meet to work on them.
 *
 * A topic is a record in meta.h's store, three shared objects (status, ring, waiters), and its
 * partitions (partition.h). The record is committed first, then come the objects, then the reply;
 * what is missing when a daemon starts is made anew. Deleting goes the same way.
 */
#ifndef EG_TOPICS_H
#define EG_TOPICS_H

#include "daemon.h"
#include "loop.h"
#include "settings.h"

struct eg_client;
struct eg_partition;

struct eg_topic {
    struct eg_meta_topic meta; /* name, uid, runs of partition uids */
    struct eg_settings settings;

    struct eg_topic_status *status;
    uint8_t *ring;
    struct eg_waiters *waiters;
    int status_fd, ring_fd, waiters_fd;
    int status_ro_fd, ring_ro_fd; /* what is handed out to who only reads */
    size_t ring_stride;
    struct eg_watch bell; /* of its eventfd: topic_bell.c */

    uint32_t partitions; /* present ones; entries of part */
    struct eg_partition **part;

    struct eg_account *account; /* of who created it */
    bool deleted;               /* its memory goes: graves.c */
    bool in_use;                /* then: somebody may still read in it */
    uint64_t committed;         /* bytes of memory.max that it has */
    uint64_t buffers;           /* of its rings, whether opened or not */
    uint64_t pinned_bytes; /* of detached buffers: what pinned.bytes.max is about */

    uint64_t repair_round; /* burial.c: when it had its turn */

    struct eg_client **clients; /* those with a grant on it: whose pins count */
    size_t client_count, client_cap;
};

struct eg_topics {
    struct eg_topic **list;   /* by name */
    struct eg_topic **by_uid; /* as many */
    size_t count, cap;
    struct eg_partition *by_index[EG_PARTITIONS_MAX];
    uint32_t index_hint;  /* where to look for a free index */
    uint64_t extra_bytes; /* of all buffers beyond the rings' own */

    struct eg_partition *awake; /* slots.c: those that are looked at every tick */
    int64_t retention_ns;       /* slots.c: next time that retention.ms may have something to do */
};

struct eg_topic *eg_topic_by_name(struct eg_daemon *d, const char *name);
/* The same for a name from outside: checked. A bad name's error, or EAGRE_E_UNKNOWN_TOPIC. */
int eg_topic_find(struct eg_daemon *d, const char *name, struct eg_topic **out);
/* Likewise, if the peer may administer it: EAGRE_E_PERMISSION. */
int eg_topic_find_for_admin(struct eg_daemon *d, const struct eg_peer *peer, const char *name, struct eg_topic **out);
/* Where in the list the names behind this one begin. */
size_t eg_topic_place_after(struct eg_daemon *d, const char *name);
struct eg_topic *eg_topic_by_uid(struct eg_daemon *d, uint32_t uid);
/* NULL: there is none (any more). */
struct eg_partition *eg_topics_partition_by_uid(struct eg_daemon *d, uint32_t topic_uid, uint32_t number);
/* So many buffers of t more (or fewer) beyond those of its rings. */
void eg_topic_count_extra(struct eg_daemon *d, struct eg_topic *t, int64_t buffers);
static inline const char *eg_topic_name(const struct eg_topic *t) { return t->meta.name; }

/* The operations; peer: who asks. All failures with a detail that names the topic. */
struct eg_change {
    const char *name;
    const char *value;
};
int eg_topic_create(struct eg_daemon *d, const struct eg_peer *peer, const char *name,
                    const struct eg_change *changes, size_t count, uint32_t *uid);
int eg_topic_alter(struct eg_daemon *d, const struct eg_peer *peer, const char *name,
                   const struct eg_change *changes, size_t count);
int eg_topic_delete(struct eg_daemon *d, const struct eg_peer *peer, const char *name);

/* ---- objects.c: a topic's shared objects ---------------------------------------------------------- */

/* Make and keep them, for t's settings and uid; partitions are added by eg_topic_add_partitions. */
int eg_topic_objects_make(struct eg_daemon *d, struct eg_topic *t);
/* Take them from the keeper. EAGRE_E_CORRUPT: one is missing or wrong; nothing is held then, and what
 * was there is marked deleted, for who still has it. */
int eg_topic_objects_take(struct eg_daemon *d, struct eg_topic *t);
/* Write to the status what can be altered. */
void eg_topic_put_alterable(struct eg_topic *t, struct eg_topic_status *st);
/* Add partitions t->partitions .. up_to - 1 to objects and tables; visible to clients at the end. */
int eg_topic_add_partitions(struct eg_daemon *d, struct eg_topic *t, uint32_t up_to);
/* Tell who has it mapped that the topic is gone: DELETED, slots closed, producers woken. */
void eg_topic_mark_deleted(struct eg_topic_status *status, uint8_t *ring, size_t ring_stride);
/* Unmap and close; drop: the keeper forgets them too. */
void eg_topic_objects_free(struct eg_daemon *d, struct eg_topic *t, bool drop);
/* Bytes of the three objects that have memory behind them for so many partitions. */
uint64_t eg_topic_control_bytes(const struct eg_settings *s, uint32_t partitions);
/* What the keeper still has of topics that there are not any more. */
void eg_topics_drop_leftovers(struct eg_daemon *d);
uint32_t eg_topic_partition_uid(const struct eg_meta_topic *m, uint32_t partition);

/* ---- topic_bell.c: the eventfd by which its producers wake the daemon ------------------------------ */

/* Taken from the keeper or made anew, kept, watched. */
int eg_topic_bell_open(struct eg_daemon *d, struct eg_topic *t);
void eg_topic_bell_close(struct eg_daemon *d, struct eg_topic *t, bool drop);

#endif
