/*
 * logindex.h - the sparse index beside a log file: <seq>.idx. From an offset or a time to a place in the
 * file from which to walk, in O(log n).
 *
 *   struct eg_logindex_header, then entries, one whenever 64 KiB of frames have gone by since the last.
 *   Entry k: at `pos` begins the frame of record `index`; no record before it is younger than max_timestamp.
 *
 * It is never synced and never needed: each entry has a CRC that also covers which file and which entry it
 * is; a bad or missing one costs walking. The place that a look-up returns is checked like any frame by who
 * walks from there: if that is BAD, walk from the first frame. One rule keeps it true: who cuts a log file's
 * tail cuts its index first (eg_logindex_usable()) or removes it.
 */
#ifndef EG_LOG_LOGINDEX_H
#define EG_LOG_LOGINDEX_H

#include "log/logfile.h"

#define EG_LOGINDEX_STEP 65536u
#define EG_LOGINDEX_VERSION 1u
#define EG_MAGIC_INDEX EG_MAGIC('E', 'A', 'G', 'R', 'E', 'i', 'd', 'x')

struct eg_logindex_header {
    uint64_t magic;
    uint32_t version;
    uint32_t topic_uid;
    uint32_t partition_uid;
    uint32_t partition;
    uint64_t seq;
    int64_t base;
    uint32_t step; /* EG_LOGINDEX_STEP */
    uint32_t crc;  /* CRC32C of all before */
};

struct eg_logindex_entry {
    uint32_t pos8; /* position / 8 */
    uint32_t index;
    int64_t max_timestamp_ns; /* of the records before; INT64_MIN: only pads */
    uint32_t reserved;        /* 0 */
    uint32_t crc; /* of all before; seeded with the segment's seed and the entry's number */
};

static_assert(sizeof(struct eg_logindex_header) == 48, "eg_logindex_header");
static_assert(sizeof(struct eg_logindex_entry) == 24, "eg_logindex_entry");

/* The most entries that a segment's index can have. */
static inline uint64_t eg_logindex_entries_max(uint64_t capacity) {
    return capacity / EG_LOGINDEX_STEP;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

void eg_logindex_header_make(struct eg_logindex_header *h, const struct eg_logfile_id *id);

/* What the next entry needs to know of the frames so far. */
struct eg_logindex_builder {
    uint32_t seed;
    uint32_t count; /* entries so far */
    uint64_t last;  /* position of the last one, or of the first frame */
    int64_t max_timestamp_ns;
};

void eg_logindex_begin(struct eg_logindex_builder *b, const struct eg_logfile *l);

/* Tell it each frame, in turn (EOS may be left out). True: *out is to be appended to the file, at
 * eg_logindex_at(b->count - 1). */
static inline uint64_t eg_logindex_at(uint64_t entry) {
    return sizeof(struct eg_logindex_header) + entry * sizeof(struct eg_logindex_entry);
}
bool eg_logindex_add(struct eg_logindex_builder *b, const struct eg_logfile_frame *f,
                     struct eg_logindex_entry *out);

/* Rebuild from the log's good part, up to `end`: fills entries (room for max), returns their number, and
 * leaves b so that eg_logindex_add can go on. Stops at what is not good. */
uint32_t eg_logindex_rebuild(const struct eg_logfile *l, uint64_t end,
                             struct eg_logindex_builder *b, struct eg_logindex_entry *entries,
                             uint64_t max);

/* ---- reading ----------------------------------------------------------------------------------------- */

struct eg_logindex {
    const struct eg_logindex_entry *entries;
    uint64_t count;
    uint64_t capacity;
    uint32_t align;
    uint32_t seed;
};

/* data: the .idx file, bytes long, aligned to 8, of the log file id. What is bad leaves an index without entries: EAGRE_OK
 * or EAGRE_E_CORRUPT with a text, and *x is usable in any case. */
int eg_logindex_open(struct eg_logindex *x, const struct eg_logfile_id *id, const void *data,
                     uint64_t bytes);

/* The last known place at or before record `index`; (EG_SEGMENT_DATA, 0) if none is known. */
void eg_logindex_by_index(const struct eg_logindex *x, uint64_t index, uint64_t *pos,
                          uint64_t *at_index);
/* The last known place before which every record is older than `timestamp_ns`. */
void eg_logindex_by_time(const struct eg_logindex *x, int64_t timestamp_ns, uint64_t *pos,
                         uint64_t *at_index);

/* How many entries from the start are good and lie below `end` of the log: where to cut it. */
uint64_t eg_logindex_usable(const struct eg_logindex *x, uint64_t end);

#endif
