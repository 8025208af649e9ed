/* What the checker remembers of each offset, of each partition, and of each look at a log's ends. */
#ifndef EG_TESTS_HISTORY_TABLE_H
#define EG_TESTS_HISTORY_TABLE_H

#include "history/history.h"

enum {
    HISTORY_CELL_ACKED = 1,   /* a producer was told that its record stands here */
    HISTORY_CELL_CLAIMED = 2, /* a producer had this place, and perhaps or surely left it unused */
    HISTORY_CELL_SEEN = 4,    /* a consumer saw a record here */
    HISTORY_CELL_SKIPPED = 8, /* a consumer went past it and saw nothing */
};

struct history_cell {
    uint32_t topic;
    int32_t partition;
    int64_t offset;
    uint32_t producer; /* of the record that stands here */
    uint32_t flags;
    uint64_t sequence;
};

struct history_sum {
    uint32_t topic;
    int32_t partition;   /* -1: records that went who knows where */
    int64_t last_acked;  /* -1: none */
    int64_t last_placed; /* likewise, also of those that were not acknowledged */
    int64_t log_start;   /* the highest that was seen */
    uint64_t holes, open;
    bool complete;
};

struct history_mark {
    uint32_t topic;
    int32_t partition;
    uint32_t consumer;
    int64_t log_start, end;
    int64_t before_ns, after_ns;
};

struct history_marks {
    struct history_mark *list;
    size_t count, room;
};

struct history_table {
    struct history_cell **blocks; /* cells never move */
    size_t cell_count;
    uint32_t *slots; /* number of the cell + 1; 0: free */
    size_t slot_count;
    struct history_sum *sums;
    size_t sum_count;
    struct history_marks marks;
};

void history_table_init(struct history_table *t);
void history_table_free(struct history_table *t);

/* The cell of this offset; made if there is none. Valid for ever. */
struct history_cell *history_cell(struct history_table *t, uint32_t topic, int32_t partition,
                                  int64_t offset);
/* By number, 0 .. cell_count - 1. */
struct history_cell *history_cell_number(const struct history_table *t, size_t i);

/* Likewise of a partition; valid until the next call. */
struct history_sum *history_sum(struct history_table *t, uint32_t topic, int32_t partition);

void history_mark_add(struct history_table *t, uint32_t consumer, const struct history_seen *s);
/* Sort m by partition and end of the look; *by_before: a copy by partition and begin of the look. */
void history_marks_sort(struct history_marks *m, struct history_marks *by_before);
/* Whether a's partition comes before (< 0), is, or comes behind (> 0) b's. */
int history_mark_side(const struct history_mark *a, const struct history_mark *b);
static inline int64_t history_mark_value(const struct history_mark *m, bool end) {
    return end ? m->end : m->log_start;
}

#endif
