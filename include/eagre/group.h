/*
 * eagre/group.h - consumer groups: Kafka's, for the consumers of one host.
 *
 * A consumer whose options name a group (group_id) and that subscribes is a member of it. The daemon gives each
 * partition of the subscribed topics to one member; when members come, go or die, or topics change, it moves
 * as few as it can (partition.assignment.strategy). A member commits how far it has got; whoever is given the
 * partition next goes on there. A member dies with its process: its partitions are with others within 100 ms. One
 * that does not poll for max.poll.interval.ms is put out; its next call says EAGRE_E_FENCED.
 *
 * Everything happens in calls of the application: what is given and taken away becomes so within
 * eagre_consumer_poll, which calls the rebalance callbacks. Data keeps flowing while the daemon is away; only
 * membership stands still then.
 *
 * At least once, by construction: no commit covers a record that poll has not returned. With enable_auto_commit
 * a poll commits what the poll before it returned (and so do close, unsubscribe and giving a partition up).
 *
 * Share groups (group_type EAGRE_GROUP_SHARE; Kafka's KIP-932): all members read all partitions together, each
 * record goes to one of them, and is acknowledged, released or rejected record by record.
 *
 * Threads: as for consumers, one thread at a time.
 */
#ifndef EAGRE_GROUP_H
#define EAGRE_GROUP_H

#include "eagre/consumer.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct eagre_topic_partition {
    const char *topic;
    int32_t partition;
    int64_t offset;       /* where a call says so; else not looked at */
    const char *metadata; /* likewise; NULL: none */
} eagre_topic_partition_t;

/* ---- being a member -------------------------------------------------------------------------------- */

/*
 * Be a member of the options' group for these topics; a later call replaces them. A name that begins with '^' is a
 * POSIX extended regular expression: all topics that match and that this user may consume, also those that are made
 * later (librdkafka's convention). Partitions come with a later poll. Not together with assign.
 * EAGRE_E_INVALID (no group_id; a bad expression), EAGRE_E_UNKNOWN_TOPIC, EAGRE_E_PERMISSION (a topic's
 * access.consume; or the group is another user's), EAGRE_E_INVALID_CONFIG (members of the group have no strategy in
 * common with this one, or it is of another group_type), EAGRE_E_LIMIT, EAGRE_E_NO_DAEMON.
 */
int eagre_consumer_subscribe(eagre_consumer_t *c, const char *const *topics, size_t count);

/* Leave the group; commits first if enable_auto_commit. eagre_consumer_close does that, too. */
int eagre_consumer_unsubscribe(eagre_consumer_t *c);

/*
 * What changes, called from within poll (and unsubscribe, close, and a subscribe of who was put out), in the thread
 * that calls it. Arrays are valid during the call; offset: where it stands, -1: nowhere yet (see EAGRE_RESET_NONE).
 * Other calls on the consumer are allowed in it, but for poll, subscribe, unsubscribe and close.
 *   revoked   these are about to be given up: commit here what was processed
 *   assigned  these are read from now on; seek here to begin elsewhere
 *   lost      these are gone already and may be another's: the member was put out
 */
typedef struct eagre_rebalance_callbacks {
    void (*revoked)(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx);
    void (*assigned)(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx);
    void (*lost)(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx);
    void *ctx;
} eagre_rebalance_callbacks_t;

/* NULL: none. Before subscribe. */
int eagre_consumer_on_rebalance(eagre_consumer_t *c, const eagre_rebalance_callbacks_t *callbacks);

/* What is assigned now, and where each stands (-1: nowhere yet): up to cap entries; *n: how many there are. The names
 * are valid until the next poll. */
int eagre_consumer_assignment(eagre_consumer_t *c, eagre_topic_partition_t *list, size_t cap, size_t *n);

typedef struct eagre_member_info {
    uint64_t member;     /* 0: not a member now */
    uint32_t generation; /* of the last assignment that poll took over */
} eagre_member_info_t;

int eagre_consumer_member(eagre_consumer_t *c, eagre_member_info_t *out);

/* ---- offsets --------------------------------------------------------------------------------------- */

/*
 * Commit: of what is listed, `offset` as the next to be read; list NULL: of all assigned partitions, what poll has
 * returned. An offset beyond what poll returned is EAGRE_E_INVALID, and so is a position that was sought behind the log's end: nothing of
 * the call is committed then.
 *
 * async: a store to shared memory; the daemon writes it to its database within auto.commit.interval.ms, and
 * before the partition is given to another member. It survives this process and the daemon, and from then on
 * a crash of the host. sync: waits until it is in the database. Metadata makes both ask the daemon.
 *
 * A member of the past gets EAGRE_E_FENCED and nothing is committed. A consumer with a group_id and partitions of its own
 * (eagre_consumer_assign) may commit as long as the group has no members: else EAGRE_E_GROUP_ACTIVE. EAGRE_E_TIMED_OUT,
 * EAGRE_E_NO_DAEMON: the commit may still come to pass, if it was of a member.
 */
int eagre_consumer_commit(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, int32_t timeout_ms);
int eagre_consumer_commit_async(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n);

/* The group's committed offset; EAGRE_E_NO_OFFSET if there is none. metadata (may be NULL) gets up to cap bytes. */
int eagre_consumer_committed(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset,
                             char *metadata, size_t cap);

/* ---- share groups ------------------------------------------------------------------------------------ */

typedef enum eagre_acknowledge {
    EAGRE_ACK_ACCEPT = 1,  /* processed */
    EAGRE_ACK_RELEASE = 2, /* let another one, or us again, have it */
    EAGRE_ACK_REJECT = 3   /* nobody can process it: it is not delivered again */
} eagre_acknowledge_t;

/*
 * group_type EAGRE_GROUP_SHARE. All members have all partitions of the topics; a poll takes records that no other member
 * has, up to max of one partition, and they are this member's until it says otherwise, it ends, or
 * group.share.record.lock.duration.ms (of the daemon) is over: then another one, or it again, gets them, counted. One that
 * was delivered group.share.delivery.count.limit times is archived: it is not delivered again. So a record is processed at
 * least once, and by one member at a time as long as that keeps its time. There is no order among members.
 *
 * A poll accepts what the poll before it returned; with share_explicit_ack what is not acknowledged stays the member's.
 * unsubscribe and close give back what was not accepted yet. Callbacks: partitions come and go with topics only.
 * seek and commit are not for members (EAGRE_E_STATE): see `eagre group seek`.
 *
 * Where a group begins that has been nowhere in a partition: the auto.offset.reset of the first member that comes there
 * says, EAGRE_RESET_UNSET being Kafka's share.auto.offset.reset=latest. What is produced before that member
 * has the partition (its `assigned` callback) is left out then; where a queue is filled before anybody works at it, say earliest.
 * A partition that is added to a topic that the group reads is read from its beginning.
 *
 * The group's committed offset is the first record that is not done. What was accepted or rejected behind it is known in memory
 * only: the death of members or of the daemon does not touch that, but after a clean stop of the bus, a cold start of
 * the host or `eagre group seek` it may be delivered again, its count beginning anew.
 */

/*
 * One record that a poll returned to this member and that is still its own: EAGRE_E_STATE else (its time is over, or it
 * was acknowledged before). A released record is looked for by the next poll of any member; one that sleeps may notice
 * 100 ms later.
 */
int eagre_consumer_acknowledge(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t offset,
                               eagre_acknowledge_t how);

/* How many times it was delivered, this time included, of a record of the last poll. */
int eagre_consumer_delivery_count(eagre_consumer_t *c, const eagre_record_t *record, uint32_t *count);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
