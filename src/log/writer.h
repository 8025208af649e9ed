/*
 * writer.h - append to one partition: pin, claim, write, publish.
 *
 * The step names are those of the model and of the fault points. One producer's append:
 *
 *   pin.stored    the handle's pin cell says (partition, seq)              [store, then barrier]
 *   pin.checked   the slot's word still is (seq, OPEN, buffer)             [load acquire]
 *   claim.done    the free word at the chain's end becomes claimed{owner,length,count} [CAS]
 *   hint.stored   where the next one may start looking                     [store relaxed]
 *   frame.half    some of the frame is written                             [plain stores]
 *   publish.done  the word becomes published{length}                       [store release]
 *   unpinned      the pin cell is empty                                    [store release]
 *
 * Invariants kept here: (R1) the CAS finds a free word and takes `length` bytes from it, so every
 * byte of the chain belongs to one frame. (R2) the CAS also signs: owner is in the word. (R3) after
 * publish nobody writes the frame. (R4) index = sum of counts before: a claim knows its offset.
 * (R5) a claimed word is stepped over, never waited for.
 *
 * The pin is held from before the claim until after the publish. So a pin scan that finds no pin on
 * a segment proves that no live client has an unpublished claim in it, and the daemon need not walk
 * the chain before it reuses the segment (docs/decisions/0003).
 *
 * With writers=single nobody else claims, so the place is taken by plain stores and the tail lives
 * in the writer; a pin is not needed, since the only one who moves `active` never works behind it.
 */
#ifndef EG_LOG_WRITER_H
#define EG_LOG_WRITER_H

#include "log/frame.h"
#include "log/map.h"
#include "log/pin.h"
#include "log/segment.h"
#include "log/waiters.h"
#include "sys/atomic.h"
#include "sys/cpu.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

struct eg_writer {
    struct eg_partition_map *map;
    _Atomic uint64_t *pin;
    uint32_t owner;
    bool fence; /* no membarrier reaches this process */

    /* The segment that it claimed in last; good as long as the slot's word is slot_word. */
    struct eg_slot *slot; /* NULL: none yet */
    uint64_t slot_word;
    uint64_t pin_value;
    uint8_t *base;
    struct eg_segment_header *header; /* = base */
    struct eg_buffer_map *buffer;
    uint64_t seq;
    int64_t base_offset;
    uint32_t seed;
    int64_t end; /* one behind the last offset that it published */

    /* writers=single: the tail, known exactly. */
    uint64_t pos;
    uint64_t index;
};

struct eg_claim {
    struct eg_frame *frame;
    uint64_t pos;
    uint64_t length; /* of the whole extent */
    int64_t offset;  /* of its first record */
    uint32_t index;
    uint32_t count;
};

void eg_writer_init(struct eg_writer *w, struct eg_partition_map *m, _Atomic uint64_t *pin,
                    uint32_t owner, bool fence);

/* Everything that does not end in a claim at once: enter a segment, make memory ready, rotate.
 * Returns as eg_writer_claim. */
int eg_writer_claim_slow(struct eg_writer *w, uint64_t length, uint32_t count, struct eg_claim *c)
    __attribute__((cold));

/* Forget the segment it was in (its topic was mapped anew). */
static inline void eg_writer_forget(struct eg_writer *w) { w->slot = NULL; }

/* The frame behind [pos, pos + length) is the first of its 64 KiB block: note it in the hot index,
 * for seeks. Relaxed: readers check what they find there. */
static inline void eg_writer_index(struct eg_writer *w, uint64_t pos, uint64_t index) {
    struct eg_partition_map *m = w->map;
    if (pos < m->capacity)
        eg_store_relaxed(eg_ring_index(m->ring, m->slots, (uint32_t)(w->seq % m->slots), m->capacity) +
                             pos / EG_INDEX_BLOCK,
                         eg_index_make(w->seq, pos, index));
}

static inline _Atomic uint64_t *eg_writer_hint(const struct eg_writer *w) {
    return &((struct eg_segment_header *)(void *)w->base)->hint;
}

static inline void eg_writer_took(struct eg_writer *w, uint64_t pos, uint64_t index, uint64_t length,
                                  uint32_t count, struct eg_claim *c) {
    EG_FAULT("claim.done");
    eg_store_relaxed(eg_writer_hint(w), eg_hint_make(pos + length, index + count));
    EG_FAULT("hint.stored");
    if (__builtin_expect(((pos ^ (pos + length)) & ~(uint64_t)(EG_INDEX_BLOCK - 1)) != 0, 0))
        eg_writer_index(w, pos + length, index + count);
    c->frame = eg_frame_at(w->base, pos);
    c->pos = pos;
    c->length = length;
    c->offset = w->base_offset + (int64_t)index;
    c->index = (uint32_t)index;
    c->count = count;
}

/* Is there room and ready memory for length bytes at pos, and for the word behind them? */
static inline bool eg_writer_fits(const struct eg_writer *w, uint64_t pos, uint64_t length) {
    return length <= w->map->capacity - pos && pos + length + EG_LINE <= w->buffer->ready_to;
}

/*
 * Take `length` bytes (a multiple of align, at most an eighth of the segment) for `count` records.
 * EAGRE_OK: *c is the place, pinned until eg_writer_publish or eg_writer_abort.
 * Else nothing was taken and nothing is pinned: EAGRE_E_WOULD_BLOCK: the next slot is not READY;
 * EAGRE_E_NO_MEMORY, EAGRE_E_TOPIC_DELETED, EAGRE_E_CORRUPT, or what fetching a buffer said.
 */
static inline int eg_writer_claim(struct eg_writer *w, uint64_t length, uint32_t count,
                                  struct eg_claim *c) {
    if (__builtin_expect(w->slot == NULL, 0))
        return eg_writer_claim_slow(w, length, count, c);
    if (w->map->single_writer) {
        /* The word is loaded only to learn that the topic was closed. */
        uint64_t pos = w->pos, index = w->index;
        if (__builtin_expect(eg_load_relaxed(&w->slot->word) != w->slot_word ||
                                 !eg_writer_fits(w, pos, length), 0))
            return eg_writer_claim_slow(w, length, count, c);
        eg_store_relaxed(&eg_frame_at(w->base, pos)->word,
                         eg_word_make(EG_CLAIMED, EG_KIND_DATA, false, length, count, w->owner));
        w->pos = pos + length;
        w->index = index + count;
        eg_writer_took(w, pos, index, length, count, c);
        return EAGRE_OK;
    }

    eg_pin_set(w->pin, w->pin_value, w->fence);
    EG_FAULT("pin.stored");
    /* Acquire: with OPEN come base, header and zeroed bytes. Partner: slot.opened, daemon's READY. */
    if (__builtin_expect(eg_load_acquire(&w->slot->word) != w->slot_word, 0))
        return eg_writer_claim_slow(w, length, count, c);
    EG_FAULT("pin.checked");
    uint64_t hint = eg_load_relaxed(eg_writer_hint(w));
    uint64_t pos = eg_hint_pos(hint), index = eg_hint_index(hint);
    const uint64_t claimed = eg_word_make(EG_CLAIMED, EG_KIND_DATA, false, length, count, w->owner);
    if (__builtin_expect(pos - EG_SEGMENT_DATA > w->map->capacity - EG_SEGMENT_DATA ||
                             (pos & (w->map->align - 1)) != 0, 0))
        return eg_writer_claim_slow(w, length, count, c); /* nobody of ours stored that hint */
    for (;;) {
        if (__builtin_expect(!eg_writer_fits(w, pos, length), 0))
            return eg_writer_claim_slow(w, length, count, c);
        uint64_t word = 0;
        /* Acq_rel. Acquire half: a word that is not free leads to the next place. */
        if (__builtin_expect(eg_cas_acq_rel(&eg_frame_at(w->base, pos)->word, &word, claimed), 1))
            break;
        if (__builtin_expect(!eg_word_is_sane(word, pos, w->map->capacity, w->map->align) ||
                                 eg_word_kind(word) == EG_KIND_EOS, 0))
            return eg_writer_claim_slow(w, length, count, c);
        pos += eg_word_length(word);
        index += eg_word_count(word);
    }
    eg_writer_took(w, pos, index, length, count, c);
    return EAGRE_OK;
}

/* Where the next claim will probably be, if it is entered: lets a frame be made before its place is
 * taken, so that the place stays unpublished for the shortest time. */
static inline void eg_writer_guess(const struct eg_writer *w, uint64_t *pos, uint32_t *index) {
    *pos = w->pos;
    *index = (uint32_t)w->index;
    if (w->slot == NULL) {
        *pos = 0;
    } else if (!w->map->single_writer) {
        uint64_t hint = eg_load_relaxed(&w->header->hint);
        *pos = eg_hint_pos(hint);
        *index = (uint32_t)eg_hint_index(hint);
    }
}

/* Publish the claim's first frame with this word; inner frames of a batch are complete already. */
static inline void eg_writer_publish(struct eg_writer *w, const struct eg_claim *c, uint64_t word) {
    /* Release: the frame, and a batch's inner frames. Partner: the reader's acquire of the word. */
    eg_store_release(&c->frame->word, word);
    w->end = c->offset + c->count;
    EG_FAULT("publish.done");
    if (!w->map->single_writer)
        eg_pin_clear(w->pin);
    EG_FAULT("unpinned");
    eg_wake(w->map, w->fence);
}

/* Give the place up: a pad that skips its records. */
static inline void eg_writer_abort(struct eg_writer *w, const struct eg_claim *c) {
    eg_writer_publish(w, c, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, c->length, c->count, w->owner));
}

#endif
