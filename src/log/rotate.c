#include "log/rotate.h"

#include <inttypes.h>

/* Segments below this may be full before a nap is over. */
#define NAP_BYTES (8u << 20)

/* Would the daemon's next look come too late, if it only naps? Not as long as a slot more is READY, or the
 * segment takes longer to fill than the nap. So a busy producer makes no system call. */
static bool is_urgent(const struct eg_partition_map *m, uint64_t seq) {
    uint64_t word = eg_load_relaxed(&eg_slot_of(m, seq + 1)->word);
    return m->capacity < NAP_BYTES && (eg_slot_seq(word) != seq + 1 || eg_slot_state(word) != EG_SLOT_READY);
}

/* seq: the segment that is active now. starved: it is full, and the daemon has the next to prepare. */
static void tell_daemon(struct eg_partition_map *m, uint64_t seq, bool starved) {
    /* Acq_rel, after `active` was moved. Partner: the daemon's exchange when it stops to watch, after which it
     * looks at `active` again: the later one of the two exchanges sees what the other did before. */
    bool watched = eg_exchange_acq_rel(&m->ring->watched, 1) != 0;
    /* Who was stopped or died before it rang has left `watched` set; so look also whether the daemon sleeps.
     * Fence: `active` before this look. Partner: the daemon's, between `asleep` and its look at `active`. */
    eg_fence_seq_cst();
    uint32_t asleep = eg_load_relaxed(&m->bus->asleep);
    /* Who starves does not wait for the daemon's next look: it has nothing better to do than to ring. */
    if (starved || !watched || asleep == EG_ASLEEP || (asleep != EG_AWAKE && is_urgent(m, seq)))
        m->ops->wake_daemon(m);
}

int eg_rotate(struct eg_writer *w, uint64_t pos, uint64_t index) {
    struct eg_partition_map *m = w->map;
    struct eg_slot *next = eg_slot_of(m, w->seq + 1);

    if (pos < m->capacity) {
        uint64_t word = 0;
        uint64_t eos = eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, m->capacity - pos, 0, w->owner);
        /* Acq_rel: whoever sees the end sees all that led here. */
        if (!eg_cas_acq_rel(&eg_frame_at(w->base, pos)->word, &word, eos) &&
            eg_word_kind(word) != EG_KIND_EOS)
            return EG_LOG_AGAIN; /* a smaller record still found room: walk on */
    }
    EG_FAULT("eos.set");

    /* Acquire: READY brings the prepared buffer. Partner: the daemon's ready.before. */
    uint64_t word = eg_load_acquire(&next->word);
    if (eg_slot_seq(word) != w->seq + 1 ||
        (eg_slot_state(word) != EG_SLOT_READY && eg_slot_state(word) != EG_SLOT_OPEN)) {
        if (eg_load_acquire(&m->ring->active) != w->seq)
            return EG_LOG_AGAIN; /* the ring went on without us */
        int rc = eg_partition_usable(m);
        if (rc != EAGRE_OK)
            return rc;
        tell_daemon(m, w->seq, true);
        return eg_error_set(EAGRE_E_WOULD_BLOCK,
                            "partition %u: no free segment: segment %" PRIu64 " is full and the next slot "
                            "is not ready",
                            m->number, w->seq);
    }
    EG_FAULT("next.seen");

    if (eg_slot_state(word) == EG_SLOT_READY) {
        uint32_t number = eg_slot_buffer(word);
        int rc = eg_segment_map(m, number, w->seq + 1);
        if (rc != EAGRE_OK) {
            /* Not this segment's any more because others went on? Then it is no damage. */
            if (eg_load_acquire(&m->ring->active) != w->seq || eg_load_acquire(&next->word) != word)
                return EG_LOG_AGAIN;
            return rc;
        }
        int64_t base = w->base_offset + (int64_t)index;
        int64_t seen = EG_BASE_UNSET;
        if (!eg_cas_acq_rel(&eg_map_header(m, number)->base, &seen, base) && seen != base) {
            if (eg_load_acquire(&m->ring->active) != w->seq)
                return EG_LOG_AGAIN;
            return eg_error_set(EAGRE_E_CORRUPT,
                                "partition %u: segment %" PRIu64 " begins at offset %" PRId64
                                ", but the one before ends at %" PRId64,
                                m->number, w->seq + 1, seen, base);
        }
        EG_FAULT("base.set");
        /* Acq_rel: OPEN publishes the base. Partner: pin.checked. */
        uint64_t expected = word;
        eg_cas_acq_rel(&next->word, &expected, eg_slot_make(w->seq + 1, number, EG_SLOT_OPEN));
        EG_FAULT("slot.opened");
    }
    uint64_t active = w->seq;
    /* Acq_rel: whoever enters seq+1 finds it OPEN. Partner: enter()'s acquire of active. */
    eg_cas_acq_rel(&m->ring->active, &active, w->seq + 1);
    EG_FAULT("active.moved");
    tell_daemon(m, w->seq + 1, false);
    return EG_LOG_AGAIN;
}
