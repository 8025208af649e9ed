/*
 * partition.h - one partition as the daemon has it: its place in the topic's objects, its buffers,
 * and the journal of what it has done with them.
 *
 * The journal is status->slot[] (the daemon's last word on each slot) and status->buffer[] (what each
 * buffer is for), memory that only the daemon can write. It is always written before the ring's words,
 * which the topic's producers can write. A successor believes the journal; a ring's word may only be
 * behind it by one step of the daemon, or ahead of it by a producer's READY -> OPEN.
 *
 * A partition costs nothing until somebody asks for its buffers: then it is opened.
 */
#ifndef EG_PARTITION_H
#define EG_PARTITION_H

#include "topics.h"

struct eg_buffer {
    int fd;        /* -1: not there */
    uint8_t *base; /* the whole, writable */
};

/* How far the slot of the oldest segment is on its way to its next life; slots.c. */
enum eg_retire { EG_RETIRE_NOT = 0, EG_RETIRE_SCAN, EG_RETIRE_HELD, EG_RETIRE_ZERO };

/* A place in the log. */
struct eg_place {
    uint64_t seq;
    uint64_t pos; /* within the segment; 0: none */
    uint64_t index;
};

struct eg_partition {
    struct eg_topic *topic;
    struct eg_archive *archive; /* archive.h; NULL: storage=memory */
    bool removing;              /* retention.c, as the next ones */
    int64_t began_ns;           /* when began_seq, the active one, got its first record; 0: not known to have one */
    uint64_t began_seq;
    uint64_t noted_seq, noted_at;
    uint32_t number;
    uint32_t uid;
    uint32_t index;
    struct eg_partition_status *status;
    struct eg_ring *ring;
    struct eg_waiters *waiters;

    struct eg_buffer *buffers; /* EG_BUFFERS_MAX of them; NULL: not opened */
    uint64_t first;            /* seq of the oldest segment that is not retired yet; slots hold
                                  first .. first + N - 1 */
    uint64_t active;           /* as last seen */
    int64_t base[EG_RING_SEGMENTS_MAX]; /* of first .. active, by slot */
    struct eg_meta_mark mark;           /* as stored */

    /* slots.c */
    enum eg_retire retire;
    uint64_t zero_at;  /* next byte to zero of the slot that is retired */
    uint32_t detached; /* buffers in that use */
    uint32_t dirty;
    uint32_t building; /* number of the buffer that is made to swap to; EG_BUFFERS_MAX: none */
    uint32_t cleaning; /* number of the DIRTY one that is zeroed; EG_BUFFERS_MAX: none */
    uint64_t clean_at;
    uint64_t tail;    /* hint's position as last seen */
    int64_t turned_ns;         /* when we saw producers go on to another segment */
    int64_t turn_ns;           /* how long a segment lasted then; INT64_MAX: nothing happens */
    uint64_t written; /* bytes that came since it woke */
    int64_t awake_until;
    int64_t next_look;
    int64_t detached_look;
    int64_t memory_retry; /* no allocation ahead before that */
    bool is_awake;
    struct eg_partition *next_awake, *previous_awake;

    struct eg_place stable;   /* all of its segment before it was seen to be published: walks begin here */
    struct eg_place end;      /* marks.c: where the chain ended when it was last walked */
    bool end_found;           /* that was its end, and not that of our time */
    struct eg_repair *repair; /* burial.c: claims of the dead are looked for; NULL: no */
    struct eg_stall *stall;   /* stalls.c: is watched; NULL: no */
    uint64_t single_hint;     /* stalls.c, writers=single: the tail hint as last seen */
};

#define EG_NO_BUFFER EG_BUFFERS_MAX

struct eg_chain; /* log/chain.h */

static inline uint32_t eg_partition_slots(const struct eg_partition *p) {
    return (uint32_t)p->topic->settings.v[EG_SET_RING_SEGMENTS];
}
static inline uint64_t eg_partition_capacity(const struct eg_partition *p) {
    return (uint64_t)p->topic->settings.v[EG_SET_SEGMENT_BYTES];
}
static inline struct eg_segment_header *eg_buffer_header(const struct eg_partition *p,
                                                         uint32_t number) {
    return (struct eg_segment_header *)(void *)p->buffers[number].base;
}
/* Bytes that certainly have memory behind them: the daemon may touch no others. */
static inline uint64_t eg_buffer_allocated(const struct eg_partition *p, uint32_t number) {
    return (uint64_t)atomic_load_explicit(&p->status->buffer[number].allocated,
                                          memory_order_relaxed) *
           EG_PAGE;
}
bool eg_partition_failed(const struct eg_partition *p);
/* The buffer of segment seq as long as it has a slot; EG_NO_BUFFER: it has none (any more). */
static inline uint32_t eg_partition_buffer_of(const struct eg_partition *p, uint64_t seq) {
    uint64_t noted = atomic_load_explicit(&p->status->slot[seq % eg_partition_slots(p)], memory_order_relaxed);
    return eg_slot_seq(noted) == seq && eg_slot_state(noted) != EG_SLOT_EMPTY ? eg_slot_buffer(noted) : EG_NO_BUFFER;
}

/* A new entry in the topic's objects, which are all zeros there. */
int eg_partition_make(struct eg_daemon *d, struct eg_topic *t, uint32_t number, uint32_t uid,
                      struct eg_partition **out);
/* What a predecessor left: checked, its unfinished steps finished or set up to be. A partition whose ring
 * is damaged comes out in error state; EAGRE_E_CORRUPT: its entry in the topic's objects is damaged. */
int eg_partition_take(struct eg_daemon *d, struct eg_topic *t, uint32_t number, uint32_t uid,
                      struct eg_partition **out);
/* Its files are known now, which they were not at the start: where the log begins and, if nobody opened it, goes on. */
struct eg_recovered;
void eg_partition_recovered(struct eg_partition *p, const struct eg_recovered *found);
/* Unmap, close, free; drop: the keeper forgets its buffers. */
void eg_partition_free(struct eg_daemon *d, struct eg_partition *p, bool drop);

/* First use: make the ring's buffers. Idempotent. */
int eg_partition_open(struct eg_daemon *d, struct eg_partition *p);
/* The first producer's NUMA node decides where numa=auto puts what is not allocated yet. */
void eg_partition_prefer_node(struct eg_partition *p, uint32_t node);

/* Its ring has been destroyed by somebody who may write it: nothing more is done with it. */
void eg_partition_fail(struct eg_partition *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));
/* Producers that wait for room look again. */
void eg_partition_room(struct eg_partition_status *status);

/* A buffer more: made, kept, header page allocated; its use is DIRTY until the caller says else. */
int eg_buffer_make(struct eg_daemon *d, struct eg_partition *p, uint32_t *number);
/* Buffer not used any more: the keeper forgets it, its memory is free when the last client unmaps it. */
void eg_buffer_drop(struct eg_daemon *d, struct eg_partition *p, uint32_t number);
/* Have memory behind at least `to` bytes; fill: and its pages present. At most EG_ALLOCATE_BATCH is done in
 * one call: EG_AGAIN if there is more to do. */
#define EG_ALLOCATE_BATCH (UINT64_C(2) << 20)
#define EG_AGAIN 1
int eg_buffer_allocate(struct eg_daemon *d, struct eg_partition *p, uint32_t number, uint64_t to);
/* Producers allocate too, and say so in the buffer's header: make sure of it, up to what that says. False: the
 * kernel does not confirm all of it now (memory is short). What lies beyond may hold frames, so then neither
 * "it is zero" nor "it is repaired" can be said of the buffer: try again later. */
bool eg_buffer_sync(struct eg_daemon *d, struct eg_partition *p, uint32_t number);
/* The same, a slice of it. EAGRE_OK: all is done; EG_AGAIN: there is more to do; else the kernel does not confirm it. */
int eg_buffer_sync_slice(struct eg_daemon *d, struct eg_partition *p, uint32_t number);
void eg_buffer_use(struct eg_partition *p, uint32_t number, enum eg_buffer_use use, uint64_t seq);

/* Before segment seq can be written: the mark in the store lies behind every offset it could give. */
int eg_partition_mark_ahead(struct eg_daemon *d, struct eg_partition *p, uint64_t seq);
/* Close the log for good and find its exact end (clean stop). False: not known, the mark stays as it is. */
bool eg_partition_seal(struct eg_daemon *d, struct eg_partition *p, struct eg_meta_mark *mark);
/* End the active segment and open the next one, as a producer that finds no room would; if the next slot is READY. */
void eg_partition_roll(struct eg_daemon *d, struct eg_partition *p);
/* One behind the last offset that is taken, as far as some thousand frames tell; p->end_found: it is that. If not,
 * call it again: it goes on from there. */
int64_t eg_partition_end(struct eg_partition *p);
/* The chain of segment seq in this buffer, from the first place that may be unpublished. */
struct eg_chain eg_partition_chain(const struct eg_partition *p, uint32_t number, uint64_t seq);
/* It was walked so far: what lies before the first unpublished frame need not be looked at again. */
void eg_partition_walked(struct eg_partition *p, uint64_t seq, const struct eg_chain *c);

/* Most records that a segment can hold. */
int64_t eg_partition_records_max(const struct eg_partition *p);
const char *eg_partition_keep_name(const struct eg_partition *p, uint32_t buffer, char *buf,
                                   size_t cap);

#endif
