/*
 * eagre/consumer.h - read records of partitions.
 *
 * A consumer is assigned partitions, each with a position of its own, and polls. Records are not
 * copied: they point into the log, read-only, and stay valid and unchanged until the next poll,
 * assign, unassign, seek or close on this consumer. A consumer never slows a producer down; one
 * that falls behind what the topic keeps gets EAGRE_E_OFFSET_OUT_OF_RANGE or goes on as its
 * auto.offset.reset says.
 */
#ifndef EAGRE_CONSUMER_H
#define EAGRE_CONSUMER_H

#include "eagre/eagre.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct eagre_consumer eagre_consumer_t;

#define EAGRE_PARTITION_ALL (-1)
#define EAGRE_OFFSET_BEGINNING (-2ll) /* Kafka's numbers for the log's ends */
#define EAGRE_OFFSET_END (-1ll)

/* Kafka's auto.offset.reset: where to go on when the position is not in the log (any more). */
typedef enum eagre_offset_reset {
    EAGRE_RESET_LATEST = 0,
    EAGRE_RESET_EARLIEST = 1,
    EAGRE_RESET_NONE = 2, /* poll returns EAGRE_E_OFFSET_OUT_OF_RANGE (a group without a committed offset:
                             EAGRE_E_NO_OFFSET) until a seek */
    EAGRE_RESET_UNSET = 3 /* nobody said: LATEST for what is assigned, NONE for what a group gives */
} eagre_offset_reset_t;

/* Kafka's group.type. */
typedef enum eagre_group_type {
    EAGRE_GROUP_CONSUMER = 0, /* each partition is one member's */
    EAGRE_GROUP_SHARE = 1     /* each record is one member's: a queue */
} eagre_group_type_t;

/* Kafka's isolation.level, for another danger: what a crash of the host could take back. */
typedef enum eagre_isolation {
    EAGRE_ISOLATION_PUBLISHED = 0, /* records at once */
    EAGRE_ISOLATION_DURABLE = 1    /* only what is on disk and fsynced (storage=disk) */
} eagre_isolation_t;

typedef struct eagre_consumer_options {
    size_t size; /* sizeof: set by EAGRE_CONSUMER_OPTIONS_INIT */
    eagre_offset_reset_t auto_offset_reset; /* also where an assigned partition
                                               starts; NONE: nowhere, seek first */
    eagre_wait_t wait;
    int check_crcs; /* Kafka's check.crcs: verify each record's CRC32C before it is returned */
    eagre_isolation_t isolation;

    /* Groups: see group.h. Strings are copied. */
    const char *group_id;          /* group.id; NULL: none */
    const char *group_instance_id; /* group.instance.id: a static member, whose partitions wait for it when it
                                      goes; NULL: a dynamic one */
    const char *client_id;         /* what others see of it; NULL: the program's name */
    eagre_group_type_t group_type;
    const char *partition_assignment_strategy; /* range, roundrobin, cooperative-sticky, numa: one or more, with
                                                  commas, the best first; NULL: cooperative-sticky */
    int enable_auto_commit;          /* enable.auto.commit */
    int32_t auto_commit_interval_ms; /* auto.commit.interval.ms: how old what is in the daemon's database may be */
    int32_t max_poll_interval_ms;    /* max.poll.interval.ms */
    int32_t session_timeout_ms;      /* session.timeout.ms: how long partitions wait for a static member that is gone */
    int share_explicit_ack;          /* share.acknowledgement.mode=explicit */
} eagre_consumer_options_t;

#define EAGRE_CONSUMER_OPTIONS_INIT \
    { sizeof(eagre_consumer_options_t), EAGRE_RESET_UNSET, EAGRE_WAIT_SLEEP, 1, EAGRE_ISOLATION_PUBLISHED, \
      NULL, NULL, NULL, EAGRE_GROUP_CONSUMER, NULL, 1, 5000, 300000, 45000, 0 }

/* One record. Pointers lie in the log: read-only, valid until the next poll. */
typedef struct eagre_record {
    const void *key;     /* NULL: no key */
    const void *value;   /* NULL: null value */
    const void *headers; /* encoded; see eagre_record_header. NULL: none */
    uint32_t key_len;
    uint32_t value_len;
    uint32_t headers_len;
    int32_t partition;
    int64_t offset;
    int64_t timestamp_ns;
    const char *topic;   /* valid while the consumer has the topic assigned */
} eagre_record_t;

/* options NULL: the defaults. */
int eagre_consumer_open(eagre_t *e, const eagre_consumer_options_t *options, eagre_consumer_t **out);
void eagre_consumer_close(eagre_consumer_t *c);

/*
 * Add a partition (or EAGRE_PARTITION_ALL present ones) of a topic, positioned by
 * auto.offset.reset. One that is assigned already stays as it is. EAGRE_E_UNKNOWN_TOPIC,
 * EAGRE_E_UNKNOWN_PARTITION, EAGRE_E_PERMISSION (access.consume), EAGRE_E_NO_DAEMON.
 */
int eagre_consumer_assign(eagre_consumer_t *c, const char *topic, int32_t partition);
int eagre_consumer_unassign(eagre_consumer_t *c, const char *topic, int32_t partition);

/*
 * Fetch up to max records, waiting at most timeout_ms (0: do not wait; -1: for ever) for the first.
 * *n (0 .. max) is set also when it fails. All are of one partition; partitions take turns.
 * EAGRE_OK with *n = 0: nothing came in time, or the daemon has not handed out yet what is next (the buffer of a
 * segment that was replaced while readers held it). A failure concerns one partition, named in the
 * detail, and does not lose the others': EAGRE_E_OFFSET_OUT_OF_RANGE (auto_offset_reset NONE;
 * seek to go on), EAGRE_E_CORRUPT (that partition cannot be read past this place; seek, pause or
 * unassign it), EAGRE_E_TOPIC_DELETED (unassign it), EAGRE_E_NO_DAEMON (nothing came in time, and no
 * daemon answers that could bring more; try again), EAGRE_E_FORKED.
 *
 * Memory: of a buffer that was replaced, a consumer keeps its mapping, and with it the memory, until it has gone on to
 * the next one; what it let go of is unmapped when it gets another, and after each second that it waits
 * or polls. One that does not poll keeps what it has.
 */
int eagre_consumer_poll(eagre_consumer_t *c, eagre_record_t *records, size_t max, int32_t timeout_ms,
                        size_t *n);

/* The i-th header of a record. EAGRE_E_INVALID: there is no such one; EAGRE_E_CORRUPT. */
int eagre_record_header(const eagre_record_t *r, size_t i, eagre_header_t *out);

/* Next poll reads from offset, or EAGRE_OFFSET_BEGINNING / EAGRE_OFFSET_END. An offset outside the
 * log is dealt with by the next poll as auto.offset.reset says (as in Kafka). */
int eagre_consumer_seek(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t offset);

/* Position n records before the present end (at the beginning if there are fewer). */
int eagre_consumer_seek_tail(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t n);

/*
 * Position at the first record whose timestamp is timestamp_ns or later (Kafka's offsetsForTimes); at the end if
 * there is none. Within a segment by its index; O(log n) in the segments, whose timestamps should rise.
 */
int eagre_consumer_seek_time(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t timestamp_ns);

/* Offset of the next record that poll would return / first one in the log / one behind the last. */
int eagre_consumer_position(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset);
int eagre_consumer_beginning_offset(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset);
int eagre_consumer_end_offset(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset);
/* end - position, 0 at least. */
int eagre_consumer_lag(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *records);

/* A paused partition keeps its position and gives no records. (Else a consumer has mapped, of each partition, the log file
 * that it reads, if it reads one: until it goes on to the next. An expired file takes disk space as long.) */
int eagre_consumer_pause(eagre_consumer_t *c, const char *topic, int32_t partition);
int eagre_consumer_resume(eagre_consumer_t *c, const char *topic, int32_t partition);

/*
 * A descriptor that is readable while poll has or may have something to return: for epoll, poll
 * and event loops. It is armed by a poll(timeout_ms = 0) that returned nothing, and then becomes readable with the
 * next record; poll until *n = 0 to rearm. Owned by the consumer; starts one thread in this process.
 */
int eagre_consumer_fd(eagre_consumer_t *c, int *fd);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
