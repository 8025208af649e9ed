#include "log/writer.h"

#include <inttypes.h>

#include "log/rotate.h"

void eg_writer_init(struct eg_writer *w, struct eg_partition_map *m, _Atomic uint64_t *pin,
                    uint32_t owner, bool fence) {
    memset(w, 0, sizeof(*w));
    w->map = m;
    w->pin = pin;
    w->owner = owner;
    w->fence = fence;
}

/* Pin the active segment and make it the writer's. EG_LOG_AGAIN: it moved on meanwhile. */
static int enter(struct eg_writer *w) {
    struct eg_partition_map *m = w->map;
    uint64_t seq = eg_load_acquire(&m->ring->active); /* partner: active.moved */
    if (seq > EG_SEQ_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "partition %u: active segment %" PRIu64, m->number, seq);
    struct eg_slot *slot = eg_slot_of(m, seq);
    uint64_t pin = eg_pin_make(true, m->index, seq);
    w->slot = NULL;
    eg_pin_set(w->pin, pin, w->fence);
    EG_FAULT("pin.stored");
    uint64_t word = eg_load_acquire(&slot->word);
    if (eg_slot_seq(word) != seq || eg_slot_state(word) != EG_SLOT_OPEN) {
        if (eg_load_acquire(&m->ring->active) != seq)
            return EG_LOG_AGAIN;
        int rc = eg_partition_usable(m);
        if (rc != EAGRE_OK)
            return rc;
        return eg_error_set(EAGRE_E_WOULD_BLOCK, "partition %u: its active segment is closed", m->number);
    }
    EG_FAULT("pin.checked");
    uint32_t number = eg_slot_buffer(word);
    int rc = eg_segment_map(m, number, seq);
    if (rc != EAGRE_OK)
        return eg_load_acquire(&slot->word) != word ? EG_LOG_AGAIN : rc;
    int64_t base = eg_load_acquire(&eg_map_header(m, number)->base);
    if (base < 0 || base > EG_OFFSET_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "partition %u: open segment %" PRIu64 " has base offset %" PRId64,
                            m->number, seq, base);
    w->slot = slot;
    w->slot_word = word;
    w->pin_value = pin;
    w->buffer = &m->bufs[number];
    w->base = w->buffer->base;
    w->header = eg_map_header(m, number);
    w->seq = seq;
    w->base_offset = base;
    w->seed = eg_frame_seed(m->uid, seq);
    return EAGRE_OK;
}

/* Claim in the entered segment, or go on from its end. */
static int claim_here(struct eg_writer *w, uint64_t length, uint32_t count, struct eg_claim *c) {
    struct eg_partition_map *m = w->map;
    uint64_t hint = eg_load_relaxed(eg_writer_hint(w));
    uint64_t pos = eg_hint_pos(hint), index = eg_hint_index(hint);
    if (pos - EG_SEGMENT_DATA > m->capacity - EG_SEGMENT_DATA || (pos & (m->align - 1)) != 0) {
        pos = EG_SEGMENT_DATA;
        index = 0;
    }
    const uint64_t claimed = eg_word_make(EG_CLAIMED, EG_KIND_DATA, false, length, count, w->owner);
    for (;;) {
        bool room = length <= m->capacity - pos;
        if (!eg_writer_fits(w, pos, room ? length : 0) && pos < m->capacity) {
            int rc = eg_segment_ready(m, eg_slot_buffer(w->slot_word),
                                      pos + (room ? length : 0) + EG_LINE);
            if (rc != EAGRE_OK)
                return rc;
        }
        uint64_t word = 0;
        if (room && eg_cas_acq_rel(&eg_frame_at(w->base, pos)->word, &word, claimed))
            break;
        if (!room && pos < m->capacity)
            word = eg_load_acquire(&eg_frame_at(w->base, pos)->word);
        if (!room && (word == 0 || eg_word_kind(word) == EG_KIND_EOS))
            return eg_rotate(w, pos, index);
        if (!eg_word_is_sane(word, pos, m->capacity, m->align))
            return eg_error_set(EAGRE_E_CORRUPT,
                                "partition %u: segment %" PRIu64 ", position %" PRIu64
                                ": %016" PRIx64 " is no frame word",
                                m->number, w->seq, pos, word);
        if (eg_word_kind(word) == EG_KIND_EOS)
            return eg_rotate(w, m->capacity, index);
        pos += eg_word_length(word);
        index += eg_word_count(word);
    }
    w->pos = pos + length; /* used by the single writer only; the others ask the hint each time */
    w->index = index + count;
    eg_writer_took(w, pos, index, length, count, c);
    return EAGRE_OK;
}

int eg_writer_claim_slow(struct eg_writer *w, uint64_t length, uint32_t count, struct eg_claim *c) {
    int rc;
    /* Each round that ends in AGAIN means that somebody got on: bounded by the others' progress. */
    for (uint32_t round = 0; round < 1u << 20; round++) {
        rc = enter(w);
        if (rc == EAGRE_OK)
            rc = claim_here(w, length, count, c);
        if (rc == EAGRE_OK) {
            if (w->map->single_writer)
                eg_pin_clear(w->pin); /* not needed: see writer.h */
            return EAGRE_OK;
        }
        if (rc != EG_LOG_AGAIN)
            break;
        /* Released, and not just overwritten: what was read under it happened before the daemon's scan. */
        eg_pin_clear(w->pin);
        w->slot = NULL;
    }
    if (rc == EG_LOG_AGAIN)
        rc = eg_error_set(EAGRE_E_CORRUPT, "partition %u: its active segment never settles",
                          w->map->number);
    /* writers=single: pos and index are not those of the segment that was entered, or its end is set there. */
    w->slot = NULL;
    eg_pin_clear(w->pin);
    return rc;
}
