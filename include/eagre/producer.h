/*
 * eagre/producer.h - put records into a topic.
 *
 * Three ways, from simple to fast:
 *   eagre_produce        copies one record in;
 *   eagre_produce_batch  copies many in as one unit: readers see all of them or none;
 *   eagre_producer_claim gives the place in the log itself to be written in (zero-copy), then
 *                        eagre_producer_commit publishes it, eagre_producer_abort gives it up.
 *
 * A record that these calls acknowledged with EAGRE_OK is visible to every reader and survives the
 * death of this process and of the daemon; with EAGRE_ACKS_DISK that of the host, too. With
 * EAGRE_ACKS_DISK a call may fail after the record was published: partition and offset are set then, and
 * EAGRE_E_TIMED_OUT, EAGRE_E_IO and (the instance ended meanwhile) EAGRE_E_NO_DAEMON mean that it is not known to be
 * on disk (as in Kafka, producing it again may make it twice). A topic has at most one open claim per producer handle.
 */
#ifndef EAGRE_PRODUCER_H
#define EAGRE_PRODUCER_H

#include "eagre/eagre.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct eagre_producer eagre_producer_t;

#define EAGRE_PARTITION_ANY (-1)

/* How a record without an explicit partition finds one. */
typedef enum eagre_partitioner {
    EAGRE_PARTITIONER_MURMUR2 = 0,     /* keyed: Kafka's Java client's murmur2, so the same key goes to
                                          the same partition there and here; no key: sticky */
    EAGRE_PARTITIONER_ROUND_ROBIN = 1  /* keys or not, one record after the other */
} eagre_partitioner_t;

/* When a call that produces returns (Kafka's acks). */
typedef enum eagre_acks {
    EAGRE_ACKS_MEMORY = 0, /* every reader can see it; it survives this process and the daemon, not the host */
    EAGRE_ACKS_DISK = 1    /* it is on disk and fsynced, too: survives the host. storage=disk only */
} eagre_acks_t;

typedef struct eagre_producer_options {
    size_t size;                      /* sizeof: set by EAGRE_PRODUCER_OPTIONS_INIT */
    int32_t max_block_ms;             /* Kafka's max.block.ms: how long a call may wait for room in
                                         the ring, or for what only the daemon can hand out: the first
                                         record to each of several partitions, a segment's buffer that
                                         was replaced; 0: never (EAGRE_E_WOULD_BLOCK); -1: for ever */
    eagre_wait_t wait;                /* how it waits */
    eagre_partitioner_t partitioner;
    eagre_acks_t acks;
} eagre_producer_options_t;

#define EAGRE_PRODUCER_OPTIONS_INIT \
    { sizeof(eagre_producer_options_t), 60000, EAGRE_WAIT_SLEEP, EAGRE_PARTITIONER_MURMUR2, EAGRE_ACKS_MEMORY }

/* A record to produce. Zero-initialise, then set what is needed. Nothing of it is kept. */
typedef struct eagre_message {
    const void *key;      /* NULL: no key */
    size_t key_len;
    const void *value;    /* NULL: null value (Kafka's tombstone); for an empty one any non-NULL */
    size_t value_len;
    const eagre_header_t *headers;
    size_t header_count;
    int64_t timestamp_ns; /* ns since the epoch; 0: now, at the topic's timestamp.precision */
    int32_t partition;    /* 0 .. ; EAGRE_PARTITION_ANY: the partitioner's choice */
} eagre_message_t;

#define EAGRE_MESSAGE_INIT { NULL, 0, NULL, 0, NULL, 0, 0, EAGRE_PARTITION_ANY }

/*
 * A producer for one topic. options NULL: the defaults. The topic's name is copied.
 * EAGRE_E_UNKNOWN_TOPIC, EAGRE_E_PERMISSION (access.produce), EAGRE_E_UNSUPPORTED (acks=disk for a
 * topic with storage=memory), EAGRE_E_BUSY (writers=single and
 * another producer has it: the detail names its pid), EAGRE_E_LIMIT, EAGRE_E_NO_DAEMON.
 */
int eagre_producer_open(eagre_t *e, const char *topic, const eagre_producer_options_t *options,
                        eagre_producer_t **out);

/* Close it; an open claim is aborted. NULL is fine. */
void eagre_producer_close(eagre_producer_t *p);

/* The topic's present number of partitions (it may grow). */
int32_t eagre_producer_partitions(eagre_producer_t *p);

/*
 * Append one record; *offset (may be NULL) is its offset within its partition, *partition (may be
 * NULL) where it went. On failure nothing was appended and both are untouched; but see EAGRE_ACKS_DISK above.
 * EAGRE_E_RECORD_TOO_LARGE: over max.message.bytes or an eighth of segment.bytes; the detail has
 * the figures. EAGRE_E_UNKNOWN_PARTITION. EAGRE_E_WOULD_BLOCK / EAGRE_E_TIMED_OUT: no free
 * segment; the detail says what holds it. EAGRE_E_NO_MEMORY: no memory behind the ring.
 * EAGRE_E_TOPIC_DELETED, EAGRE_E_NO_DAEMON (no daemon answers, and nothing can be written until one does; the
 * detail says since when),
 * EAGRE_E_STATE (a claim is open), EAGRE_E_CORRUPT (somebody destroyed the ring), EAGRE_E_FORKED.
 */
int eagre_produce(eagre_producer_t *p, const eagre_message_t *m, int32_t *partition, int64_t *offset);

/*
 * Append count records to one partition as one unit: readers see all or none, with consecutive
 * offsets from *first_offset. The messages' own partition fields are ignored; partition
 * EAGRE_PARTITION_ANY takes the partitioner's choice for the first message. The whole must fit in
 * an eighth of segment.bytes and hold at most 65,535 records.
 */
int eagre_produce_batch(eagre_producer_t *p, int32_t partition, const eagre_message_t *m, size_t count,
                        int64_t *first_offset);

/* A place in the log that is being written. Fill key (if key_len > 0) and value, then commit. */
typedef struct eagre_claim {
    void *key;
    void *value;
    size_t key_len;
    size_t value_len;
    int64_t offset;
    int32_t partition;
} eagre_claim_t;

/*
 * Take the place for a record of exactly key_len + value_len bytes (key_len SIZE_MAX: no key).
 * partition EAGRE_PARTITION_ANY: sticky, since the key is not known yet. Until commit or abort readers wait
 * at this place: be quick. The pointers are valid until then. Errors as eagre_produce.
 */
int eagre_producer_claim(eagre_producer_t *p, int32_t partition, size_t key_len, size_t value_len,
                         eagre_claim_t *out);

/* Publish what was written. value_len <= the claimed one may shorten it in *c before. EAGRE_E_NO_DAEMON: the
 * instance ended while the claim was open, and its memory with it; nothing was published. (A daemon that died
 * and is continued by the next one is no reason: the claim is good.) */
int eagre_producer_commit(eagre_producer_t *p, eagre_claim_t *c);

/* Give the place up: readers skip it, its offset stays unused. */
int eagre_producer_abort(eagre_producer_t *p, eagre_claim_t *c);

/*
 * Durability as a completion: every record of the partition below *offset is on disk and fsynced. Two loads, no
 * system call. EAGRE_E_IO: a write failed and the partition does not acknowledge any more (*offset is set all the
 * same); EAGRE_E_UNSUPPORTED: the topic has storage=memory.
 */
int eagre_producer_durable_offset(eagre_producer_t *p, int32_t partition, int64_t *offset);

/*
 * Until everything that this handle has produced is on disk, at most timeout_ms (0: ask for it and return; -1: for
 * ever). EAGRE_E_WOULD_BLOCK (timeout 0) / EAGRE_E_TIMED_OUT: not yet; the detail says if the disk is full.
 * EAGRE_E_IO and EAGRE_E_UNSUPPORTED as above. EAGRE_E_NO_DAEMON, once: the instance ended before all of it was known to
 * be on disk. EAGRE_E_TOPIC_DELETED, EAGRE_E_CORRUPT.
 */
int eagre_producer_flush(eagre_producer_t *p, int32_t timeout_ms);

/* The partition Kafka's default partitioner gives this key: positive(murmur2(key)) % partitions. */
int32_t eagre_partition_for_key(const void *key, size_t key_len, int32_t partitions);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
