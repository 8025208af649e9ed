/*
 * ring.h - the partitions that a keeper holds (kept.h), for `eagre log --keeper`: their segments, and what lies in
 * them. Attached processes may still write: each word is loaded once, what moved on meanwhile is seen or not.
 */
#ifndef EAGRE_TOOLS_RING_H
#define EAGRE_TOOLS_RING_H

#include "cli.h"
#include "kept.h"
#include "log/chain.h"
#include "log/frame.h"
#include "log/map.h"

/* A segment whose slot is in use. */
struct ring_segment {
    uint32_t slot, state, buffer; /* enum eg_slot_state */
    uint64_t seq;
    int64_t base;      /* EG_BASE_UNSET: it has not begun */
    uint8_t *data;     /* OPEN: its buffer; else NULL */
    char problem[256]; /* OPEN: why there is none; else "" */
};

struct ring_partition {
    const struct kept *kept;
    uint32_t topic_uid, number, partitions;
    int64_t log_start, durable_end;
    uint64_t active;
    struct eg_partition_map map;
    struct ring_segment segments[EG_RING_SEGMENTS_MAX]; /* by seq */
    uint32_t count;
};

/*
 * Call each() for the partitions of the bus whose daemon had this socket: all, or those that the arguments say,
 * "t<topic id>" or "t<topic id>/<partition>". The worst exit code. What cannot be read at all is told here.
 */
int ring_for_each(struct cli *c, const char *socket, int argc, char **argv,
                  int (*each)(struct ring_partition *p, void *ctx), void *ctx);
/* Look at it again: processes may have gone on writing. */
void ring_again(struct ring_partition *p);

/* ---- walking a segment ---------------------------------------------------------------------------------- */

enum ring_step {
    RING_RECORD,
    RING_PAD,
    RING_CLAIM,   /* not published: its owner died, or is at work */
    RING_DAMAGED, /* a frame that is no valid record: reason */
    RING_END,     /* the segment is full */
    RING_NOTHING, /* nothing more so far */
    RING_BROKEN   /* the chain leads nowhere: reason */
};

struct ring_walk {
    struct eg_chain chain;
    uint32_t seed;
    /* What was stepped over: */
    uint64_t pos, index, length;
    uint32_t count, owner;
    struct eg_frame_view view; /* RECORD */
    const char *reason;
};

/* s has data. */
void ring_walk_init(struct ring_walk *w, const struct ring_partition *p,
                    const struct ring_segment *s);
enum ring_step ring_next(struct ring_walk *w);

/* "owner 3 (pid 4711)", "owner 3 (gone)" */
#define RING_OWNER_MAX 48
void ring_owner(const struct ring_partition *p, uint32_t owner, char out[RING_OWNER_MAX]);

#endif
