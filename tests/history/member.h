/*
 * member.h - what a member of a consumer group did and was told, in its consumer's log.
 *
 * A member says so before and after each call, so that of each thing two times are known between which it
 * happened. The most important one is when a poll began that came back as a member's (history_polled): until
 * then at least it was one, whatever came between.
 *
 * Records of an assigned partition are told with history_saw(), as any consumer's: `assigned` begins a pass.
 * Records of a share group are told with history_acquired() and what became of them.
 */
#ifndef EG_TESTS_HISTORY_MEMBER_H
#define EG_TESTS_HISTORY_MEMBER_H

#include "history/history.h"

struct history_member {
    struct history_log *log;
    uint64_t begin;      /* the entry with which its life began */
    int64_t poll_ns;     /* the poll under way began */
    int64_t alive_ns;    /* the last one began that came back as a member's */
    uint32_t generation; /* as it was said last */
};

#define HISTORY_DYNAMIC (-1)

/* A life: until it leaves, or another life begins in the same log because this one was killed. instance: of a
 * static member (group.instance.id), else HISTORY_DYNAMIC. share: of a share group. */
void history_member_begin(struct history_member *m, struct history_log *log, uint32_t group,
                          int32_t instance, bool share);

/* Around each poll, and each call that does what a poll does: it begins; it came back and said neither
 * EAGRE_E_FENCED nor called `lost`; the generation as eagre_consumer_member says it then. */
void history_polls(struct history_member *m);
void history_polled(struct history_member *m, uint32_t generation);

/* From the callbacks. committed: what the daemon said, or -1; position: where it begins to read. */
void history_assigned(struct history_member *m, uint32_t topic, int32_t partition,
                      uint32_t generation, int64_t position, int64_t committed);
void history_revoked(struct history_member *m, uint32_t topic, int32_t partition);
void history_put_out(struct history_member *m, uint32_t topic, int32_t partition);
/* It has left the group, well (committed: with all commits that it was told of); or it was fenced and knows. */
void history_left(struct history_member *m, bool committed);

enum history_commit {
    HISTORY_COMMIT_ASKED = 1, /* nobody knows whether it counts */
    HISTORY_COMMIT_DONE,      /* stored: it counts, unless the member was put out before */
    HISTORY_COMMIT_SAFE,      /* in the database */
    HISTORY_COMMIT_REFUSED,   /* it must not count */
};

/* Log a commit before the call (or, if it comes by itself, before the poll); returns the entry's number for
 * history_commit_is(), after it. */
uint64_t history_commit(struct history_member *m, uint32_t topic, int32_t partition,
                        int64_t offset);
void history_commit_is(struct history_member *m, uint64_t entry, enum history_commit state);

/* ---- share groups -------------------------------------------------------------------------------------- */

/* Log a record of a share group right after the poll; count: its delivery count. */
void history_acquired(struct history_member *m, uint32_t topic, int32_t partition, int64_t offset,
                      const void *value, size_t size, const void *key, size_t key_length,
                      uint32_t count);

enum history_end { HISTORY_ACCEPT = 1, HISTORY_RELEASE, HISTORY_REJECT };

/* As history_commit: ASKED, DONE or REFUSED. */
uint64_t history_end(struct history_member *m, uint32_t topic, int32_t partition, int64_t offset,
                     enum history_end how);
void history_end_is(struct history_member *m, uint64_t entry, enum history_commit state);

/* ---- who looks at a group; needs not be a member ------------------------------------------------------- */

/* Its committed offset; before_ns as for watermarks. */
void history_committed(struct history_log *log, uint32_t group, uint32_t topic, int32_t partition,
                       int64_t offset, int64_t before_ns);
void history_generation(struct history_log *log, uint32_t group, uint32_t generation,
                        int64_t before_ns);
/* All records below `end` were delivered to the group; share: and acknowledged. */
void history_group_complete(struct history_log *log, uint32_t group, uint32_t topic,
                            int32_t partition, int64_t end);

#endif
