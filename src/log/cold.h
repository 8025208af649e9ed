/*
 * cold.h - read the records of one log file, mapped. The same frames as in the ring, checked in the same way; nobody
 * changes them, nothing is pinned. Who can speak to the daemon brings the file (map.h's fetch_file).
 */
#ifndef EG_LOG_COLD_H
#define EG_LOG_COLD_H

#include "eagre/consumer.h"
#include "log/logindex.h"
#include "log/map.h"

/* What the daemon said of where a record is. */
enum eg_cold_where {
    EG_COLD_HERE = 0,    /* file is it */
    EG_COLD_IN_RING = 1, /* or will be */
    EG_COLD_TRIMMED = 2, /* before the log's start */
    EG_COLD_DAMAGED = 3, /* in a file that cannot be read */
    EG_COLD_LOST = 4     /* between the end of what was recovered after a crash and where the log went on */
};

struct eg_cold_file {
    const uint8_t *data; /* mapped, read-only; NULL: none */
    uint64_t bytes;
    const uint8_t *index; /* NULL: none */
    uint64_t index_bytes;
    uint64_t seq;
    int64_t base, end; /* offsets: its first, one behind its last */
    uint64_t first_seq, last_seq; /* of all files */
};

struct eg_cold {
    struct eg_cold_file file; /* data NULL: not in a file */
    struct eg_logfile_iter it;
    bool stopped; /* the last poll ended because its picker said so */
};

/* Not all records are ours: a reader asks of each one, in order, before it looks at it. */
enum eg_pick { EG_PICK_TAKE, EG_PICK_SKIP, EG_PICK_STOP /* the poll ends before it */ };
struct eg_picker {
    enum eg_pick (*ask)(void *ctx, int64_t offset);
    void *ctx;
};

/* Go to the file's first record at or behind offset (which lies before its end), over damage before it. EAGRE_E_CORRUPT: the
 * offset is within damage; its text, as that of the next one, names where what is good goes on. */
int eg_cold_begin(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_cold_file *file, int64_t offset);
/* Records from *offset on, which moves. *n 0: the file has no more, or (stopped) the picker, which may be NULL, wants no
 * more. EAGRE_E_CORRUPT: at *offset. */
int eg_cold_poll(struct eg_cold *c, const struct eg_partition_map *m, const char *topic, const struct eg_picker *picker,
                 int64_t *offset, eagre_record_t *records, size_t max, size_t *n);
/* Offset of the first record that is not older; the file's end if there is none. */
int eg_cold_find_time(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_cold_file *file,
                      int64_t timestamp_ns, int64_t *offset);
/* Timestamp of the file's first record; INT64_MIN: it has none. */
int64_t eg_cold_first_time(const struct eg_partition_map *m, const struct eg_cold_file *file);

#endif
