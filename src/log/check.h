/*
 * check.h - every invariant that can be seen in a mapping. For tests, and for `verify` commands.
 *
 * On a partition at rest it must find nothing. On a live one, words that move while it looks are
 * taken as they are at that moment: segments that are retired meanwhile are skipped.
 */
#ifndef EG_LOG_CHECK_H
#define EG_LOG_CHECK_H

#include "log/map.h"

struct eg_check_report {
    uint64_t segments; /* open ones that were walked */
    uint64_t records;
    uint64_t pads;
    uint64_t claimed;  /* unpublished frames */
    uint64_t problems;
    char first[256];   /* what the first problem was */
};

/*
 * R1, R4: each chain leads from the first frame to the end, indexes count up, bases continue.
 * CRC of each published frame. Slot words: seqs of one run, READY only ahead of active, buffers
 * distinct. Hints and index entries point to places on the chain. Allocated marks cover the chain.
 */
void eg_check_partition(struct eg_partition_map *m, struct eg_check_report *out);

/* One segment's chain; base: its mapping. *end_index: record count; *sealed: it has an end. */
void eg_check_segment(const struct eg_partition_map *m, uint8_t *base, uint64_t seq,
                      struct eg_check_report *out, uint64_t *end_index, bool *sealed);

/* Waiters: a non-empty word has its summary bit, unless a waker is at work. At rest only. */
void eg_check_waiters(const struct eg_waiters *w, struct eg_check_report *out);

#endif
