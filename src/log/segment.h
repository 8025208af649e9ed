/*
 * segment.h - enter a hot segment: pin it, check that its slot still is what it was, have its
 * buffer mapped. Shared by the writer, the rotation and the reader.
 */
#ifndef EG_LOG_SEGMENT_H
#define EG_LOG_SEGMENT_H

#include "log/map.h"

/* Statuses of the log that never leave src/log and src/client. */
enum {
    EG_LOG_GONE = 1, /* the slot does not hold this segment, open (any more, or yet) */
    EG_LOG_AGAIN = 2 /* something moved on meanwhile: start again */
};

static inline struct eg_slot *eg_slot_of(const struct eg_partition_map *m, uint64_t seq) {
    return &m->ring->slot[seq % m->slots];
}

/*
 * Have buffer `number` mapped, as the buffer of segment seq. A mapping from the number's earlier
 * life is found by its header's seq and replaced. EAGRE_E_CORRUPT: the header is not that
 * segment's. To be called under a pin that keeps the buffer in its life.
 */
int eg_segment_map(struct eg_partition_map *m, uint32_t number, uint64_t seq);

/* EAGRE_E_TOPIC_DELETED, EAGRE_E_CORRUPT (partition in error state) or EAGRE_OK. */
int eg_partition_usable(const struct eg_partition_map *m);

/* Memory behind bytes up to `to` of the buffer and page tables for it, rounded up to a batch.
 * Producers allocate; consumers only go as far as its mark says: EG_LOG_GONE if not there. */
int eg_segment_ready(struct eg_partition_map *m, uint32_t number, uint64_t to);

#endif
