/*
 * world.h - what goes on beside the process that is stepped: a daemon, and in this process a producer
 * and a consumer of the same partition, on the smallest ring there is. What they do is logged
 * (history/history.h) and the history checked after each round, so that a failure names its instruction.
 */
#ifndef EG_TESTS_STEP_WORLD_H
#define EG_TESTS_STEP_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "history/history.h"
#include "system/harness.h"

#define STEP_TOPIC "t"
#define STEP_SEGMENT 65536u
#define STEP_FILLER 8192u /* the largest frame */
#define STEP_SMALL 100u   /* value bytes of an ordinary record: a frame of 192 */
#define STEP_TINY 60u     /* of one that still finds room where the other does not: 128 */
#define STEP_FRAME_HEADER 32u
#define STEP_LOG_RECORDS 65536u
#define STEP_ROUNDS_A_LOG 32 /* then the logs begin anew, since each check reads all of them */

enum { STEP_PRODUCER = 1, STEP_VICTIM, STEP_CONSUMER, STEP_READER, STEP_HOLDER, STEP_HOLDER_2 };

/* What is being done, for messages of failures. */
extern char step_when[160];

/* The status must be EAGRE_OK. */
#define STEP_OK(call) step_ok((call), #call)
void step_ok(int rc, const char *call);

/* A producer with its log. */
struct step_source {
    eagre_producer_t *p;
    struct history_log log;
    uint32_t id;
    bool hasty; /* its calls do not wait for room in the ring; step_produce() tries again */
};

/* A consumer with its log. What it polled last is looked at again before the next poll. */
struct step_sink {
    eagre_consumer_t *c;
    struct history_log log;
    eagre_record_t records[32];
    uint64_t entries[32];
    size_t held;
    bool may_miss; /* fell behind: the log says which offsets it did not see */
};

struct step_world {
    struct eg_test_bus bus;
    char dir[96]; /* of the logs */
    eagre_t *e;
    struct step_source source;
    struct step_sink sink;
    bool gaps; /* somebody may have fallen behind in these logs */
    unsigned rounds, logs;
    int64_t last; /* offset of the source's last record */
};

void step_world_open(struct step_world *w, bool single_writer);
void step_world_close(struct step_world *w);

void step_source_open(struct step_source *s, eagre_t *e, const char *dir, uint32_t id);
void step_source_close(struct step_source *s);
/* Produce a record of `size` value bytes: its offset. */
int64_t step_produce(struct step_source *s, size_t size);
/* Produce until exactly `room` bytes (a multiple of 64, less than STEP_FILLER) are left in the active
 * segment. relax() is called now and then, for who reads meanwhile. */
void step_fill(struct step_source *s, uint32_t room, void (*relax)(void *ctx), void *ctx);

void step_sink_open(struct step_sink *k, eagre_t *e, const char *dir, uint32_t id);
void step_sink_close(struct step_sink *k);
/* One poll of at most `max`. Returns how many came. */
size_t step_poll(struct step_sink *k, size_t max, int32_t timeout_ms);
/* The end of a poll that was done by hand, into k->records. */
void step_came(struct step_sink *k, int rc, size_t n);
/* What it holds, once more. */
void step_look_again(struct step_sink *k);
void step_seek(struct step_sink *k, int64_t offset);
int64_t step_position(struct step_sink *k);

/* Read what can be read without a daemon. */
void step_glance(struct step_world *w);
/* Read all that is there now: what is claimed and not published is not waited for. */
void step_drain(struct step_world *w);
/* Read until everything below `end` was seen: waits for it. */
void step_read_to(struct step_world *w, int64_t end);
/* Read until nothing more is claimed or published: what the dead have left must become pads. */
void step_read_all(struct step_world *w);
/* The source makes the ring go round: so many segments, read or not meanwhile. */
void step_laps(struct step_world *w, unsigned segments, bool reading);

/* Without a daemon the source goes on through the ring that is left. */
void step_use_up(struct step_world *w);

/* All is quiet: read to the end, check the history. */
void step_check(struct step_world *w);
/* Now and then, while nobody else has a log open: begin new ones. */
void step_new_logs(struct step_world *w);

#endif
