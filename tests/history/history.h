/*
 * history.h - what really happened, told from outside of the bus.
 *
 * Producers log what they send and what they were told, consumers log what they see. A log is a file
 * mapped MAP_SHARED: what was written is there after a SIGKILL at any instruction. An entry is complete
 * before its kind says that it is there, so the last one of a killed writer is there or not.
 *
 *   DIR/p-ID   one producer's log. Entry i is the record with sequence i.
 *   DIR/c-ID   one consumer's log.
 *
 * A writer that was killed is followed by another that opens the same log and goes on. Never two at once.
 * history_check() then reads all logs of a directory and tells each rule that was broken.
 *
 * Calls that can fail return 0 or -1 with errno. A log that is full or not opened ends the process: a
 * test cannot go on without it.
 */
#ifndef EG_TESTS_HISTORY_H
#define EG_TESTS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- the payload of a record -------------------------------------------------------------------------- */

/* A value begins with a head that says whose it is; a pseudo-random body follows. */
#define HISTORY_VALUE_MIN 40u

struct history_id {
    uint32_t producer;
    uint32_t topic;
    uint64_t sequence;
};

/* Write a value of `size` (>= HISTORY_VALUE_MIN) bytes. The body follows from id and size. The hash
 * within covers the key (may be NULL), too. Returns the hash of key and value, as history_hash does. */
uint64_t history_fill(void *value, size_t size, const void *key, size_t key_length,
                      struct history_id id);

/* False: no value of ours, or damaged. */
bool history_parse(const void *value, size_t size, const void *key, size_t key_length,
                   struct history_id *id);

/* Of what lies in memory now; never 0. A missing key counts as an empty one. */
uint64_t history_hash(const void *value, size_t size, const void *key, size_t key_length);

/* ---- a producer's log ----------------------------------------------------------------------------------- */

struct history_log {
    void *base; /* NULL: not open */
    uint64_t capacity;
    uint64_t count;
};

enum history_state {
    HISTORY_NONE,
    HISTORY_INTENT,  /* the call was about to begin: unknown whether the record is in the log */
    HISTORY_CLAIMED, /* likewise, but the offset is known */
    HISTORY_ACKED,
    HISTORY_FAILED,  /* the call failed: it must not be in the log */
    HISTORY_ABORTED, /* given up: it must not be in the log, its offset stays unused */
};

struct history_sent {
    _Atomic uint32_t state;
    int32_t status; /* of a failed call */
    uint32_t topic;
    int32_t partition; /* -1: not known (yet) */
    uint64_t hash;
    int64_t offset;      /* -1: not known */
    uint64_t batch;      /* sequence of the first record of its unit */
    uint32_t batch_size; /* records in the unit; 1: a single one */
    uint32_t producer;
    uint64_t reserved[2];
};

/* Open or go on with the log of producer `id`. capacity: how many records it can ever have (64 bytes of a
 * sparse file each). history_close() it. */
int history_producer_open(struct history_log *log, const char *dir, uint32_t id, uint64_t capacity);

/* Sequence of the next record. */
static inline uint64_t history_next(const struct history_log *log) { return log->count; }

/* Log one record before the call that sends it. Returns its sequence (as history_next() said). */
uint64_t history_intend(struct history_log *log, uint32_t topic, int32_t partition, uint64_t hash);
/* The same for record number i of a unit of n that is sent by one call, in order. */
uint64_t history_intend_batch(struct history_log *log, uint32_t topic, int32_t partition,
                              uint64_t hash, uint32_t i, uint32_t n);
/* After the call. A batch: once for each record. */
void history_claimed(struct history_log *log, uint64_t sequence, int32_t partition, int64_t offset);
void history_acked(struct history_log *log, uint64_t sequence, int32_t partition, int64_t offset);
void history_failed(struct history_log *log, uint64_t sequence, int status);
void history_aborted(struct history_log *log, uint64_t sequence);

/* ---- a consumer's log ----------------------------------------------------------------------------------- */

enum history_kind {
    HISTORY_PASS = 1,  /* begins to read at offset; whatever it saw before may come again */
    HISTORY_RECORD,    /* saw this record */
    HISTORY_GAP,       /* was told that [offset, to) is out of range, and goes on at `to` */
    HISTORY_WATERMARK, /* looked at the log's ends */
    HISTORY_COMPLETE,  /* says: I have read everything below offset, and nothing more will come */
    /* Members of groups: member.h. */
    HISTORY_MEMBER, /* a life begins. topic: group; partition: instance; producer: 1: of a share group;
                         hash: when the last poll began that came back as a member's */
    HISTORY_ASSIGNED, /* producer: generation; sequence: what was committed (-1: nothing). A pass begins */
    HISTORY_REVOKED,
    HISTORY_PUT_OUT,         /* hash: as above, at that time */
    HISTORY_LEFT,            /* producer: 1: with all commits; hash: likewise */
    HISTORY_GENERATION,      /* producer: the generation, from the poll before this entry on */
    HISTORY_COMMIT,          /* producer: enum history_commit */
    HISTORY_ACQUIRED,        /* a record; hash_then: how many times it was delivered */
    HISTORY_END,             /* producer: enum history_commit; sequence: enum history_end */
    HISTORY_COMMITTED,       /* producer: group */
    HISTORY_GENERATION_SEEN, /* topic: group; producer: generation */
    HISTORY_GROUP_COMPLETE,  /* producer: group; offset: end */
};

#define HISTORY_DAMAGED UINT32_MAX

struct history_seen {
    _Atomic uint32_t kind;
    uint32_t topic;
    int32_t partition;
    uint32_t producer;  /* RECORD; HISTORY_DAMAGED: it was no value of ours */
    int64_t offset;     /* WATERMARK: log start; GAP: from */
    uint64_t sequence;  /* RECORD. WATERMARK: end; GAP: to */
    uint64_t hash;      /* RECORD: of what was in memory. WATERMARK: position */
    uint64_t hash_then; /* RECORD: of the same memory just before the next poll; 0: not looked at */
    int64_t before_ns;  /* it was looked at, asked or told between these times */
    int64_t after_ns;   /* RECORD: when it was told */
};

int history_consumer_open(struct history_log *log, const char *dir, uint32_t id, uint64_t capacity);

void history_pass(struct history_log *log, uint32_t topic, int32_t partition, int64_t offset);
/* Log a record right after the poll. Returns the entry's number for history_again(). */
uint64_t history_saw(struct history_log *log, uint32_t topic, int32_t partition, int64_t offset,
                     const void *value, size_t size, const void *key, size_t key_length);
/* Right before the next poll (or whatever lets the memory go): the same memory once more. */
void history_again(struct history_log *log, uint64_t entry, const void *value, size_t size,
                   const void *key, size_t key_length);
void history_gap(struct history_log *log, uint32_t topic, int32_t partition, int64_t from,
                 int64_t to);
/* Call history_now() before and after looking; -1: this one was not looked at. */
void history_watermark(struct history_log *log, uint32_t topic, int32_t partition,
                       int64_t log_start, int64_t end, int64_t position, int64_t before_ns,
                       int64_t after_ns);
void history_complete(struct history_log *log, uint32_t topic, int32_t partition, int64_t end);
int64_t history_now(void);

/* Where a successor goes on: behind the last record or gap, or where the pass began; -1: no pass yet. */
int64_t history_position(const struct history_log *log, uint32_t topic, int32_t partition);

void history_close(struct history_log *log);

/* ---- the check ------------------------------------------------------------------------------------------ */

/* X(name, what is broken) */
#define HISTORY_RULES(X)                                                                           \
    X(LOST, "an acknowledged record is lost")                                                      \
    X(TWICE, "a record is seen twice in one pass")                                                 \
    X(MOVED, "a record is seen at two offsets")                                                    \
    X(CHANGED, "a record is not what was sent")                                                    \
    X(UNSTABLE, "bytes changed under a reader")                                                    \
    X(INVENTED, "a record that nobody sent")                                                       \
    X(UNWANTED, "a record whose call failed or that was given up")                                 \
    X(WRONG_OFFSET, "acknowledged at another offset or partition")                                 \
    X(SAME_OFFSET, "two records were acknowledged at one offset")                                  \
    X(ORDER, "a producer's records out of order")                                                  \
    X(BACK, "offsets do not rise")                                                                 \
    X(HOLE, "more offsets are skipped than claims were left")                                      \
    X(TORN, "a part of a batch")                                                                   \
    X(WATERMARK, "a watermark went back")                                                          \
    X(DISAGREE, "two consumers disagree about an offset")                                          \
    X(GAP, "a gap that must not be")                                                               \
    X(MISSED, "an acknowledged record was not delivered to a group")                               \
    X(STRAY, "a record of a partition that the member does not have")                              \
    X(SHARED, "two members have one partition at the same time")                                   \
    X(GENERATION, "two members have one partition in one generation, or generations go back")      \
    X(AHEAD, "a committed offset is ahead of what was delivered to the group")                     \
    X(LATER, "a member begins behind what its predecessors committed")                             \
    X(FORGOTTEN, "a commit was lost")                                                              \
    X(TWO_TAKERS, "a record of a share group is with two members")                                 \
    X(ENDED_TWICE, "a record of a share group is acknowledged twice, or delivered afterwards")     \
    X(COUNT, "a delivery count does not rise by one")                                              \
    X(LOG, "a log that makes no sense")

enum history_rule {
#define X(name, text) HISTORY_##name##_RULE,
    HISTORY_RULES(X)
#undef X
        HISTORY_RULE_COUNT
};

struct history_options {
    bool no_gaps; /* nobody fell behind: a gap is a loss */
    /* Each partition that was produced to must have been read completely by somebody, and by each group. */
    bool need_complete;
    bool none_put_out;     /* no member was put out of its group for not polling */
    uint32_t share_limit;  /* group.share.delivery.count.limit; 0: 5 */
    int64_t share_lock_ms; /* group.share.record.lock.duration.ms; 0: 30000 */
    FILE *out;             /* where violations are told, one line each; NULL: nowhere */
    uint32_t max_lines;    /* at most so many lines; 0: 50 */
};

struct history_report {
    uint64_t producers, consumers;
    uint64_t sent, acked, unknown, failed, aborted; /* records */
    uint64_t seen, gaps, skipped,
        pads;              /* by all consumers: records, gaps, offsets in gaps, other holes */
    uint64_t unknown_seen; /* unacknowledged ones that are in the log all the same */
    uint64_t members, turns, commits; /* lives of members, partitions given to them, commits */
    uint64_t put_out;                 /* partitions of who was put out */
    uint64_t acquired, ended;         /* of share groups: deliveries, records acknowledged */
    uint64_t violations;
    uint64_t broken[HISTORY_RULE_COUNT];
};

/* 0: no rule is broken; 1: some are; -1: the logs cannot be read (errno). *report is set unless -1. */
int history_check(const char *dir, const struct history_options *options,
                  struct history_report *report);

/* One line: how many of what. */
void history_print(FILE *out, const struct history_report *report);

#endif
