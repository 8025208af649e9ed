/*
 * map.h - one partition as it is mapped into this process. Filled by who can speak to the daemon
 * (src/client, or a test), used by the writer and the reader, which cannot.
 *
 * Everything reached through it may be changed by other processes at any time; the copies in this
 * struct (slots, capacity, align, uid, index) were checked once at attach and are what code uses.
 * One handle (thread) owns one map; nothing in it is shared between threads.
 */
#ifndef EG_LOG_MAP_H
#define EG_LOG_MAP_H

#include "layout/layout.h"

#include <stdbool.h>

struct eg_partition_map;
struct eg_cold_file;

/* What the log needs of the world. Every call may fail with an EAGRE_E_* and a detail text. */
struct eg_map_ops {
    /* Map buffer `number` (again): fill bufs[number]. Its address stays the same: somebody of this handle
     * may point into it, and what made us ask may be a lie. */
    int (*fetch_buffer)(struct eg_partition_map *m, uint32_t number);
    /* Memory behind bytes [from, to) of the buffer; producers only. */
    int (*allocate)(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to);
    /* There is work for the daemon on this partition (ring->watched is set already): ring its bell. */
    void (*wake_daemon)(struct eg_partition_map *m);
    /* Ring these bells: bit b of mask is bell word * 64 + b. */
    void (*ring_bells)(struct eg_partition_map *m, uint32_t word, uint64_t mask);
    /* The log file with this offset (or, by_seq, of this segment or the next that there is), mapped; *where is an enum eg_cold_where. NULL: this
     * topic has none. */
    int (*fetch_file)(struct eg_partition_map *m, bool by_seq, uint64_t value, struct eg_cold_file *out, int *where);
    void (*drop_file)(struct eg_partition_map *m, struct eg_cold_file *file);
};

struct eg_buffer_map {
    uint8_t *base;     /* NULL: not mapped */
    uint64_t ready_to; /* bytes from the start that are allocated and populated here: no fault below */
    int fd;            /* producers keep it to allocate; -1 */
};

struct eg_partition_map {
    const struct eg_map_ops *ops;
    void *ctx; /* of ops */

    const struct eg_bus *bus;           /* read-only mapping */
    struct eg_topic_status *topic;      /* read-only mapping */
    struct eg_partition_status *status; /* read-only mapping */
    struct eg_ring *ring;               /* read-only for consumers */
    struct eg_waiters *waiters;
    struct eg_bells *bells;             /* read-only for consumers */

    uint64_t capacity; /* segment.bytes */
    uint32_t slots;    /* ring.segments */
    uint32_t align;
    uint32_t uid;
    uint32_t index;
    uint32_t number;   /* of the partition in its topic */
    bool writable;
    bool single_writer;
    bool on_disk; /* storage=disk: what the ring let go is in files */

    struct eg_buffer_map bufs[EG_BUFFERS_MAX];
};

static inline struct eg_segment_header *eg_map_header(const struct eg_partition_map *m, uint32_t buffer) {
    return (struct eg_segment_header *)(void *)m->bufs[buffer].base;
}

#endif
