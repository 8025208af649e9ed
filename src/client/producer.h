/*
 * producer.h - the public producer's inside, for producer.c (put records into the ring) and durable.c (wait until they
 * are on disk).
 */
#ifndef EG_CLIENT_PRODUCER_H
#define EG_CLIENT_PRODUCER_H

#include "client/topic.h"
#include "eagre/producer.h"
#include "log/writer.h"

struct eagre_producer {
    const uint32_t *fork_guard;
    struct eg_topic *topic;
    struct eg_writer **writers; /* [partitions]; NULL: not used yet */
    uint32_t partitions;
    bool claim_open;
    bool outdated; /* what is mapped is of an instance that has ended, and the topic could not be opened in the next one */
    struct eagre *e;
    eagre_producer_options_t options;
    int64_t call_until;    /* acks=disk: the present call's end; monotonic */
    bool lost;             /* an instance ended before all that was written to it was known to be on disk */
    struct eg_until until; /* what the present call may wait for the daemon; see eg_topic_open */
    _Atomic uint64_t *pin;
    uint64_t random;
    uint32_t sticky;
    uint32_t sticky_left;

    struct eg_writer *claim_writer; /* of the open claim */
    struct eg_claim claim;
    eagre_claim_t claim_public;
};

/* ---- producer.c ------------------------------------------------------------------------------------ */

/* A public timeout as a time (monotonic): INT64_MAX for ever, 0 not at all. */
int64_t eg_producer_until(int32_t timeout_ms);

/* What asks the daemon may wait for it now: in slices, since it may die and another instance take its place. */
void eg_producer_begin_waiting(eagre_producer_t *p, int64_t until);
void eg_producer_end_waiting(eagre_producer_t *p);

/* Look after the session and, if the instance was replaced, what is mapped. EAGRE_E_NO_DAEMON: none answers; what
 * goes on later. */
int eg_producer_check_session(eagre_producer_t *p);

/* ---- durable.c ------------------------------------------------------------------------------------- */

/* EAGRE_E_UNSUPPORTED: the topic has no log files. */
int eg_producer_has_disk(const eagre_producer_t *p);

/* "the disk is full ...", or NULL. */
const char *eg_producer_disk_trouble(const struct eg_partition_map *m);

/* Is something of what this handle wrote not known to be on disk? */
bool eg_producer_owes(const eagre_producer_t *p);

/* Until all that w wrote is on disk. Whatever it returns, the records are published. EAGRE_E_TIMED_OUT, _IO,
 * _TOPIC_DELETED, _CORRUPT; EAGRE_E_NO_DAEMON: the instance was replaced. */
int eg_producer_await(eagre_producer_t *p, struct eg_writer *w, int64_t until);

#endif
