/*
 * reader.h - read one partition in place, from the hot ring.
 *
 * A reader trusts nothing that it finds: words are checked to lead forward inside the segment,
 * lengths to stay inside the frame, indexes and bases to continue without a gap. What fails is
 * EAGRE_E_CORRUPT at that place, never a crash. (The mapping itself cannot shrink: sealed.)
 *
 * It pins the segment it reads (pin.h) and so may stay in it as long as it likes: the daemon gives
 * the slot another buffer instead of changing bytes under it.
 */
#ifndef EG_LOG_READER_H
#define EG_LOG_READER_H

#include "eagre/consumer.h"
#include "log/cold.h"
#include "log/frame.h"
#include "log/map.h"
#include "log/segment.h"

struct eg_reader {
    struct eg_partition_map *map;
    _Atomic uint64_t *pin; /* may be shared by readers that take turns: only one is pinned */
    bool fence;
    bool check_crcs;
    bool keep_pin;     /* a poll that finds nothing stays pinned, for who looks again at once */
    const char *topic; /* for the records */
    bool durable;      /* only what is on disk (isolation=durable) */
    const struct eg_picker *picker; /* NULL: all records are ours. With one, what a crash has lost is passed over */
    struct eg_cold cold; /* the file that it reads in place of the ring, if any */

    int64_t offset; /* next record wanted */

    /* Where that is, if placed. */
    bool placed;
    bool pinned;
    uint64_t seq;
    uint64_t slot_word;
    uint64_t pos;
    uint64_t index;
    int64_t base_offset;
    uint8_t *base;
    struct eg_buffer_map *buffer;
    struct eg_slot *slot;
    uint32_t seed;
};

void eg_reader_init(struct eg_reader *r, struct eg_partition_map *m, _Atomic uint64_t *pin,
                    bool fence, bool check_crcs, const char *topic, int64_t offset);

/*
 * Up to max records of one segment, pointing into it; they stay as they are until the next call on
 * this reader or eg_reader_unpin. *n = 0 with EAGRE_OK: at the edge (and, but for
 * keep_pin, not pinned any more).
 * EAGRE_E_OFFSET_OUT_OF_RANGE: the wanted offset is not in the ring (the reader is not placed;
 * seek). EAGRE_E_CORRUPT: the records before the bad place were returned by earlier calls.
 */
int eg_reader_poll(struct eg_reader *r, eagre_record_t *records, size_t max, size_t *n);

/* True if a poll would find something else than the edge: cheap, for spinning. Does not pin. */
bool eg_reader_has_news(const struct eg_reader *r);

void eg_reader_unpin(struct eg_reader *r);
/* Unpin and let go of a file: what was polled is gone. Before the map goes away. The second touches no pin. */
void eg_reader_release(struct eg_reader *r);
void eg_reader_drop_file(struct eg_reader *r);

/* Read from this offset next. It is looked up by the next poll. */
void eg_reader_seek(struct eg_reader *r, int64_t offset);

/* One behind the last record that was claimed. pin: a free cell, not the reader's: what was polled
 * stays pinned. */
int eg_log_end(struct eg_partition_map *m, _Atomic uint64_t *pin, bool fence, int64_t *offset);

/* Offset of the first record that is not older than timestamp_ns; the log's end if there is none. cell: as above. */
int eg_log_find_time(struct eg_partition_map *m, _Atomic uint64_t *pin, bool fence, int64_t timestamp_ns, int64_t *offset);

/* First offset of the log. */
int64_t eg_reader_beginning(const struct eg_reader *r);

#endif
