/*
 * lanes.h - all that a topic has now, partition by partition, or merged by timestamp. A consumer a partition, so that
 * what one gave stays while others are read.
 */
#ifndef EAGRE_TOOLS_LANES_H
#define EAGRE_TOOLS_LANES_H

#include "cli.h"
#include "eagre/consumer.h"

#define LANE_RECORDS 256

struct lane {
    const char *topic;
    int32_t partition;
    int64_t end; /* where it stops */
    eagre_consumer_t *consumer;
    size_t at, count;
    bool done;
    eagre_record_t records[LANE_RECORDS];
};

struct lanes {
    eagre_t *e;
    const char *topic;
    struct lane **list;
    size_t count;
};

/* Partitions `only` (only_count 0: all), from the beginning, or from the first record not older than from_ns (>= 0). */
int lanes_open(struct lanes *l, eagre_t *e, const char *topic, const int32_t *only, size_t only_count, int64_t from_ns);
void lanes_close(struct lanes *l);
/* The next records of this one, none if it is done; those before are not valid any more. */
int lanes_read(struct lane *l);
/* The lane with the oldest record at hand, or NULL: all are done. *empty: one that has to be read before that is known. */
struct lane *lanes_oldest(struct lanes *l, struct lane **empty);

#endif
