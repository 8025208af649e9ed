#include "log/segment.h"

#include <inttypes.h>

#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

#define READY_BATCH (2ull << 20)

int eg_segment_map(struct eg_partition_map *m, uint32_t number, uint64_t seq) {
    if (number >= EG_BUFFERS_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "partition %u: slot names buffer %u of %u", m->number,
                            number, EG_BUFFERS_MAX);
    for (int fetched = 0;; fetched++) {
        if (m->bufs[number].base != NULL &&
            eg_load_relaxed(&eg_map_header(m, number)->seq) == seq)
            break;
        /* What came first may be the late answer to a question that was asked long ago. */
        if (fetched == 2)
            return eg_error_set(EAGRE_E_CORRUPT, "partition %u: buffer %u is not that of segment %" PRIu64,
                                m->number, number, seq);
        int rc = m->ops->fetch_buffer(m, number);
        if (rc != EAGRE_OK)
            return rc;
    }
    int rc = eg_segment_check(eg_map_header(m, number), m->uid, seq, m->capacity);
    /* Its topic is of our layout: another version here is damage, too, and no reason to give up the handle. */
    if (rc != EAGRE_OK)
        return eg_error_add(EAGRE_E_CORRUPT, "partition %u", m->number);
    return EAGRE_OK;
}

int eg_partition_usable(const struct eg_partition_map *m) {
    if (eg_load_acquire(&m->topic->state) == EG_TOPIC_DELETED)
        return eg_error_set(EAGRE_E_TOPIC_DELETED, "the topic was deleted");
    if (eg_load_acquire(&m->status->state) == EG_PARTITION_ERROR)
        return eg_error_set(EAGRE_E_CORRUPT,
                            "partition %u is in error state: a producer destroyed its ring; delete "
                            "and create the topic again",
                            m->number);
    return EAGRE_OK;
}

int eg_segment_ready(struct eg_partition_map *m, uint32_t number, uint64_t to) {
    struct eg_buffer_map *b = &m->bufs[number];
    struct eg_segment_header *h = eg_map_header(m, number);
    uint64_t from = b->ready_to;
    uint64_t end = eg_align_up(to, READY_BATCH);
    if (end > m->capacity)
        end = m->capacity;
    if (from >= end) { /* only the word behind the last frame was asked for: there is none */
        b->ready_to = UINT64_MAX;
        return EAGRE_OK;
    }
    /* Acquire: the memory was allocated before the mark was stored (release). */
    uint64_t allocated = eg_load_acquire(&h->allocated);
    if (allocated > m->capacity)
        allocated = m->capacity;
    if (allocated < end && m->writable) {
        int rc = m->ops->allocate(m, number, allocated, end);
        if (rc != EAGRE_OK)
            return rc;
        while (allocated < end && !eg_cas_acq_rel(&h->allocated, &allocated, end)) {
        }
    } else if (allocated < end) {
        end = allocated;
    }
    if (end <= from || (to > end && end < m->capacity))
        return EG_LOG_GONE;
    eg_populate(b->base + from, end - from, m->writable);
    b->ready_to = end == m->capacity ? UINT64_MAX : end;
    return EAGRE_OK;
}
