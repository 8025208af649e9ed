/*
 * stream.h - one producer process streams numbered values to one consumer process, by the bus or by
 * the bare log: throughput, sizes and steady are settings of this.
 */
#ifndef EB_STREAM_H
#define EB_STREAM_H

#include "barelog.h"
#include "harness.h"

enum eb_way { EB_BARE, EB_ONE, EB_BATCH, EB_CLAIM };

#define EB_BATCH_RECORDS 16

struct eb_stream {
    enum eb_way way;
    bool single; /* writers=single */
    bool check_crcs;
    bool spins;    /* the consumer never sleeps, whatever --wait says */
    uint64_t size; /* of a value */
    double rate;   /* records a second; 0: as fast as it can */
    struct eb_ring ring;
    /* filled in by eb_stream_prepare */
    eagre_wait_t wait; /* the consumer's */
    uint64_t frame;    /* bytes of the log that a record takes on the bus */
    uint64_t lap;      /* records */
    uint64_t total;    /* records: the first lap and what follows */
    uint64_t window;   /* records that the producer may be ahead */
    struct eb_bare log;
    char topic[64];
    const char *socket;
};

/* What the consumer leaves in worker[1].value. */
enum eb_stream_value {
    EB_COLD_NS,
    EB_COLD_RECORDS,
    EB_WARM_NS,
    EB_WARM_RECORDS,
    EB_RECEIVED,
    EB_LOST
};

/* Compute what follows from the settings, make the topic or the bare ring. 0 or -1. */
int eb_stream_prepare(struct eb_bench *b, struct eb_stream *s);
void eb_stream_end(struct eb_bench *b, struct eb_stream *s);

/* Worker 0 and worker 1; arg: struct eb_stream. area->cell[0] is the consumer's position in records. */
eb_worker_fn eb_stream_produce, eb_stream_consume;

/* A whole run: prepare, run, end; the consumer's values to out. */
int eb_stream_run(struct eb_bench *b, const struct eb_stream *settings, double out[EB_VALUES]);

uint64_t eb_stream_frame(uint64_t size);
/* Bytes of log that the producer may be ahead, so that nothing is lost. */
uint64_t eb_stream_window(const struct eb_bench *b, const struct eb_ring *ring);

#endif
