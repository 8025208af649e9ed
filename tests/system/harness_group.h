/*
 * harness_group.h - members of groups in this process, each with an instance of its own, and a topic of four
 * partitions.
 */
#ifndef EG_TESTS_HARNESS_GROUP_H
#define EG_TESTS_HARNESS_GROUP_H

#include "eagre/group.h"
#include "harness_client.h"

#define PARTS 4
#define EVENTS 64

/* One call of a callback. */
struct event {
    char what; /* 'a'ssigned, 'r'evoked, 'l'ost */
    size_t n;
    uint32_t parts; /* bits */
};

struct member {
    eagre_t *e;
    eagre_consumer_t *c;
    struct event events[EVENTS];
    size_t event_count;
    bool commits;  /* in `revoked`, synchronously */
    bool no_polls; /* what a poll in a callback said was right */
    int64_t next[2 * PARTS]; /* what m_take expects */
    uint64_t records;
};

/* cmocka set-up and tear-down: bus, e; topic "four"; p, its producer. */
int eg_setup_groups(void **state);
int eg_teardown_groups(void **state);

/* Options of a member of group "g", from the beginning, without auto-commit. */
eagre_consumer_options_t m_options(void);
/* Opens; subscribes to "four", or not. */
void m_open(struct member *m, const eagre_consumer_options_t *o);
void m_join(struct member *m, const eagre_consumer_options_t *o);
void m_close(struct member *m);
/* Bits of the partitions (of any topic) that it has; and how many. */
uint32_t m_parts(struct member *m);
size_t m_count(struct member *m);
/* Poll all in turn until the first n have as many partitions as told, each. What they get is counted. */
void m_settle(struct member *const *m, const size_t *wanted, size_t n);
/* One poll; EAGRE_OK or it fails the test. Returns the number of records. */
size_t m_poll(struct member *m, int32_t timeout_ms);

/* n records to each partition of "four"; values are their offsets. */
void m_produce(int n);
/* Poll them all until they have got so many records together; each partition's offsets come in order, without a gap. */
void m_take(struct member *const *m, size_t n, uint64_t records);
int64_t m_committed(struct member *m, int32_t partition); /* -1: none */

#endif
