/*
 * control.h - one round of torture: what is arranged, and the page by which its processes know of each
 * other. The page is outside of the bus, so that nothing that the bus does wrong can hide itself.
 */
#ifndef EG_TESTS_TORTURE_CONTROL_H
#define EG_TESTS_TORTURE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#define TORTURE_TOPICS 4
#define TORTURE_PARTITIONS 8
#define TORTURE_CLIENTS 8
#define TORTURE_GROUPS 4
#define TORTURE_MEMBERS 12
#define TORTURE_LOCK_MS 400 /* group.share.record.lock.duration.ms */
#define TORTURE_POINTS 96

enum torture_phase {
    TORTURE_RUN,
    TORTURE_FINISH, /* producers and the administrator end */
    TORTURE_DRAIN,  /* consumers read to the end, and end */
};

struct torture_topic {
    uint32_t segment_bytes;
    uint32_t slots;
    uint32_t value_max;
    /* How many offsets producers may be ahead of the slowest consumer; 0: as many as they can. With a
     * window, what a consumer has not read is always in the ring: nobody may miss anything. */
    uint32_t window;
    bool single;                             /* writers=single: producer 0 has it */
    bool disk;                               /* storage=disk */
    _Atomic uint32_t partitions;             /* 0: not created yet */
    _Atomic int64_t end[TORTURE_PARTITIONS]; /* behind the last acknowledged */
    _Atomic int64_t position[TORTURE_CLIENTS][TORTURE_PARTITIONS]; /* of each consumer */
    _Atomic int64_t delivered[TORTURE_GROUPS][TORTURE_PARTITIONS]; /* to each group, behind the last */
};

struct torture_group {
    bool share;
    bool mixed; /* members know other strategies, too */
    char strategy[24];
};

struct torture_control {
    uint64_t seed;
    uint32_t producers, consumers, topics;
    uint32_t groups, members; /* processes; member i is of group i % groups */
    uint32_t poll_ms;         /* max.poll.interval.ms of some lives; 0: of none */
    uint32_t records_max; /* of each producer */
    bool slow;            /* producers make pauses, so that consumers go to sleep */
    bool rests;  /* all producers rest at the same time, so that the daemon stops looking */
    bool sleeps; /* consumers sleep while they wait, in poll; else each as it likes */
    bool rejoins; /* members leave and come back all the time */
    bool holds;  /* consumers keep records in their hands for long */
    _Atomic uint32_t phase;
    _Atomic uint64_t hits[TORTURE_POINTS]; /* of fault points, in clients */
    struct torture_topic topic[TORTURE_TOPICS];
    struct torture_group group[TORTURE_GROUPS];
};

#endif
