/*
 * share.h - the cells of a share group on one partition: which record is whose (group.type=share, Kafka's KIP-932).
 *
 * One cell a record, in a window of W records: the cell of offset o is cell[o % W], and its word says
 *
 *   63          39 38        22 21        7 6      2 1    0
 *   +-------------+------------+-----------+--------+------+
 *   | lap (25)    | time (17)  | member(15)| cnt (5)| state|
 *   +-------------+------------+-----------+--------+------+
 *
 *   lap     o / W, its low bits: of which offset the word speaks. A cell of the lap before is one that nobody has
 *           touched yet: AVAILABLE, delivered 0 times. So a CAS by who has slept over a lap hits nothing
 *   time    of the acquisition: monotonic, in units of 2^25 ns (34 ms), modulo 2^17 (73 minutes)
 *   member  who has acquired it (its number, 1 ..); else 0
 *   cnt     how many times it was acquired. It only grows, so within a lap no word of an acquisition comes twice: a CAS
 *           from the very word that acquired the record proves that it is still ours
 *
 * `start` is the first offset that is not known to be done, start + W the first one that may not be touched yet. Both
 * only grow; that is why a cell's lap only grows.
 *
 * All members of the group and the daemon write here. A member's lies harm its own group, no one else: the daemon
 * takes a value as a number, bounds it, and decides nothing else by it.
 */
#ifndef EG_LAYOUT_SHARE_H
#define EG_LAYOUT_SHARE_H

#include "layout/layout.h"

#define EG_MAGIC_SHARE EG_MAGIC('E', 'A', 'G', 'R', 'E', 's', 'h', 'r')

#define EG_SHARE_WINDOW_MIN 64u
#define EG_SHARE_WINDOW_MAX 65536u
#define EG_SHARE_COUNT_MAX 31u /* deliveries that a word can count: the last one, whatever the limit */
#define EG_SHARE_LOCK_MS_MAX 3600000u

struct eg_share_cells {
    struct eg_magic magic;
    uint32_t group_uid;
    uint32_t partition_uid;
    _Atomic uint32_t window; /* W: a power of two */
    /* The daemon's words: settings, relaxed. */
    _Atomic uint32_t lock_ms; /* group.share.record.lock.duration.ms */
    _Atomic uint32_t limit;   /* group.share.delivery.count.limit */
    _Atomic uint32_t partitions; /* that the topic had when the group began to read this one */
    uint8_t pad0[64 - 40];
    /* Anyone: CAS acq_rel, only upwards, over done cells and over what is before the log's start. */
    _Atomic uint64_t start;
    uint8_t pad1[56];
    /* Where to look for a record: low 32 bits of an offset in [start, start + W]; high 32: +1 each time that a record
     * became available again. Before it nothing is available, unless who made it so ended or stopped before it said
     * so here; a sweep finds that. CAS acq_rel. */
    _Atomic uint64_t hint;
    uint8_t pad2[56];
    /* For the figures; fetch_add relaxed. */
    _Atomic uint64_t redelivered; /* acquisitions of what was acquired before */
    _Atomic uint64_t archived;    /* done without being accepted: delivered too often */
    _Atomic uint64_t rejected;    /* done without being accepted: a member said so */
    _Atomic uint64_t expired;     /* acquisitions that took too long */
    uint8_t pad3[EG_PAGE - 3 * 64 - 32];
    _Atomic uint64_t cell[];
};

static_assert(offsetof(struct eg_share_cells, start) == 64, "eg_share_cells.start");
static_assert(offsetof(struct eg_share_cells, hint) == 128, "eg_share_cells.hint");
static_assert(offsetof(struct eg_share_cells, redelivered) == 192, "eg_share_cells.redelivered");
static_assert(offsetof(struct eg_share_cells, cell) == EG_PAGE, "eg_share_cells.cell");

static inline size_t eg_share_bytes(uint32_t window) { return EG_PAGE + (size_t)window * 8; }

/* ---- a cell's word ------------------------------------------------------------------------------------- */

enum eg_share_state { EG_SHARE_AVAILABLE = 0, EG_SHARE_ACQUIRED = 1, EG_SHARE_DONE = 2 };

#define EG_SHARE_LAPS (1u << 25)
#define EG_SHARE_TIMES (1u << 17)
#define EG_SHARE_TIME_SHIFT 25

static inline uint64_t eg_share_make(uint32_t lap, uint32_t time, uint32_t member, uint32_t count,
                                     enum eg_share_state state) {
    return (uint64_t)(lap & (EG_SHARE_LAPS - 1)) << 39 | (uint64_t)(time & (EG_SHARE_TIMES - 1)) << 22 |
           (uint64_t)(member & 0x7fff) << 7 | (uint64_t)(count & 31) << 2 | (uint64_t)state;
}
static inline uint32_t eg_share_lap(uint64_t w) { return (uint32_t)(w >> 39); }
static inline uint32_t eg_share_time(uint64_t w) { return (uint32_t)(w >> 22) & (EG_SHARE_TIMES - 1); }
static inline uint32_t eg_share_member(uint64_t w) { return (uint32_t)(w >> 7) & 0x7fff; }
static inline uint32_t eg_share_count(uint64_t w) { return (uint32_t)(w >> 2) & 31; }
static inline uint32_t eg_share_state(uint64_t w) { return (uint32_t)w & 3; }

static inline uint32_t eg_share_lap_of(uint64_t offset, uint32_t window) {
    return (uint32_t)(offset / window) & (EG_SHARE_LAPS - 1);
}
static inline uint32_t eg_share_time_of(int64_t mono_ns) {
    return (uint32_t)((uint64_t)mono_ns >> EG_SHARE_TIME_SHIFT) & (EG_SHARE_TIMES - 1);
}

#endif
