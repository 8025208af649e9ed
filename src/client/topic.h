/*
 * topic.h - a topic as one handle (a producer, or a consumer) has it mapped, partition by
 * partition. Used by that handle's thread alone.
 */
#ifndef EG_CLIENT_TOPIC_H
#define EG_CLIENT_TOPIC_H

#include "client/session.h"
#include "log/map.h"

struct eg_mapped; /* a partition */

/* How long what asks the daemon may wait for it. */
struct eg_until {
    int64_t ns;     /* monotonic; 0: not at all */
    bool impatient; /* and EG_PATIENCE_NS a request at most */
};

struct eg_topic {
    struct eagre *e;
    char name[EG_TOPIC_NAME_MAX + 1];
    uint32_t uid;
    int role;            /* enum eg_role */
    uint32_t generation; /* of the instance that all of this belongs to; see session.h */

    struct eg_topic_status *status; /* read-only */
    size_t status_bytes;
    struct eg_waiters *waiters;
    size_t waiters_bytes;
    int ring_fd;
    int event_fd; /* producers: the daemon's bell for this topic; -1 */
    size_t ring_bytes;
    size_t ring_stride;

    /* Fixed settings, checked when opened. */
    uint64_t capacity; /* segment.bytes */
    uint32_t slots;    /* ring.segments */
    uint32_t align;
    bool single_writer;

    uint32_t partitions_mapped; /* entries of maps; present partitions when last looked */
    struct eg_mapped **maps;    /* [partitions_mapped]; NULL: not used yet */

    const struct eg_until *until; /* the handle's; NULL: eg_request_limit_ns */
    struct eg_late *late;         /* OPEN is under way */
    struct eg_topic *next;        /* what eg_topic_reopen has got so far */
};

/*
 * OPEN it for the role, attaching first if needed, in eg_request_limit_ns at most. EAGRE_E_UNKNOWN_TOPIC,
 * _PERMISSION, _BUSY, ... Then *until says how long the calls below, and the map's fetch_buffer, may wait: they
 * return EAGRE_E_WOULD_BLOCK, take up the daemon's answer when they are called again, and may be left at that.
 */
int eg_topic_open(struct eagre *e, int role, const char *name, const struct eg_until *until, struct eg_topic **out);

/* The same for who has less time, and is a client already: *out is NULL at first. EAGRE_E_WOULD_BLOCK: call it again with
 * the same one, or eg_topic_close. After another failure it is NULL again. */
int eg_topic_open_late(struct eagre *e, int role, const char *name, const struct eg_until *until, struct eg_topic **out);

/* When what is waited for is not worth waiting for any more, as *until says; monotonic. */
int64_t eg_until_end(const struct eg_until *until, const struct eg_late *late);

/* Unmap everything and give the role back. The maps are freed. NULL is fine. */
void eg_topic_close(struct eg_topic *t);

/* Partitions present now, as far as they are in what is mapped. It never shrinks. */
uint32_t eg_topic_partitions(struct eg_topic *t);

/* The map of a partition: made, with the buffers that its ring uses, on first use; then the same
 * pointer until close. EAGRE_E_UNKNOWN_PARTITION, EAGRE_E_NO_DAEMON, ... */
int eg_topic_partition(struct eg_topic *t, uint32_t partition, struct eg_partition_map **out);

/* Is the map's handle waiting for a buffer that the daemon has not handed out yet? */
bool eg_topic_waits(const struct eg_partition_map *m);

/*
 * A buffer that readers held, and that the ring does not use any more, is memory that nobody else has: it is
 * unmapped when the handle gets another buffer, and here. *base lies in the buffer that the handle is in: that
 * one stays (NULL: in none).
 */
void eg_topic_used_by(struct eg_partition_map *m, uint8_t *const *base);
void eg_topic_trim(struct eg_topic *t);

/*
 * After e->generation != t->generation: open it in the new instance and refill all maps, which stay
 * at their addresses. EAGRE_E_TOPIC_DELETED: the topic is not there, or another of that name is.
 * On failure the old state stays and it can be tried again.
 */
int eg_topic_reopen(struct eg_topic *t);

#endif
