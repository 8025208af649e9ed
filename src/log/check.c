#include "log/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "log/frame.h"
#include "log/segment.h"
#include "sys/errbuf.h"

static void problem(struct eg_check_report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void problem(struct eg_check_report *r, const char *fmt, ...) {
    if (r->problems++ > 0)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->first, sizeof(r->first), fmt, ap);
    va_end(ap);
}

/* Is (pos, index) a place of the chain? Walks; false also if the chain is broken before. */
static bool on_chain(const struct eg_partition_map *m, uint8_t *base, uint64_t allocated, uint64_t pos,
                     uint64_t index) {
    uint64_t at = EG_SEGMENT_DATA, n = 0;
    while (at < pos && at < m->capacity && at + sizeof(uint64_t) <= allocated) {
        uint64_t word = eg_load_acquire(&eg_frame_at(base, at)->word);
        if (!eg_word_is_sane(word, at, m->capacity, m->align) || eg_word_kind(word) == EG_KIND_EOS)
            return false;
        at += eg_word_length(word);
        n += eg_word_count(word);
    }
    return at == pos && n == index;
}

void eg_check_segment(const struct eg_partition_map *m, uint8_t *base, uint64_t seq,
                      struct eg_check_report *out, uint64_t *end_index, bool *sealed) {
    struct eg_segment_header *h = (struct eg_segment_header *)(void *)base;
    uint32_t seed = eg_frame_seed(m->uid, seq);
    uint64_t pos = EG_SEGMENT_DATA, index = 0;
    uint64_t allocated = eg_load_acquire(&h->allocated);
    *sealed = false;
    out->segments++;
    if (eg_segment_check(h, m->uid, seq, m->capacity) != EAGRE_OK)
        problem(out, "segment %" PRIu64 ": %s", seq, eg_error_text());
    if (allocated > m->capacity)
        problem(out, "segment %" PRIu64 ": %" PRIu64 " bytes allocated of %" PRIu64, seq, allocated,
                m->capacity);
    while (pos < m->capacity && pos + sizeof(uint64_t) <= allocated) {
        const struct eg_frame *f = eg_frame_at(base, pos);
        uint64_t word = eg_load_acquire(&f->word);
        if (word == 0)
            break;
        if (!eg_word_is_sane(word, pos, m->capacity, m->align)) {
            problem(out, "segment %" PRIu64 " position %" PRIu64 ": %016" PRIx64 " is no frame word",
                    seq, pos, word);
            return;
        }
        if (eg_word_kind(word) == EG_KIND_EOS) {
            if (eg_word_length(word) != m->capacity - pos)
                problem(out, "segment %" PRIu64 ": the end does not reach the capacity", seq);
            *sealed = true;
            break;
        }
        if (pos + eg_word_length(word) > allocated)
            problem(out, "segment %" PRIu64 " position %" PRIu64 ": beyond the allocated mark", seq, pos);
        if (eg_word_state(word) == EG_CLAIMED) {
            out->claimed++;
        } else if (eg_word_kind(word) == EG_KIND_PAD) {
            out->pads++;
        } else {
            struct eg_frame_view v;
            if (!eg_frame_view(f, word, &v))
                problem(out, "segment %" PRIu64 " position %" PRIu64 ": lengths do not fit", seq, pos);
            else if (v.index != index)
                problem(out, "segment %" PRIu64 " position %" PRIu64 ": record %u, expected %" PRIu64,
                        seq, pos, v.index, index);
            else if (!eg_frame_crc_ok(f, pos, word, seed, &v))
                problem(out, "segment %" PRIu64 " position %" PRIu64 ": bad CRC", seq, pos);
            out->records++;
        }
        pos += eg_word_length(word);
        index += eg_word_count(word);
    }
    if (pos == m->capacity)
        *sealed = true;
    *end_index = index;
}

static void check_places(const struct eg_partition_map *m, uint8_t *base, uint64_t seq,
                         struct eg_check_report *out) {
    struct eg_segment_header *h = (struct eg_segment_header *)(void *)base;
    uint64_t allocated = eg_load_acquire(&h->allocated);
    uint64_t hint = eg_load_relaxed(&h->hint);
    if (!on_chain(m, base, allocated, eg_hint_pos(hint), eg_hint_index(hint)))
        problem(out, "segment %" PRIu64 ": hint (%" PRIu64 ", %" PRIu64 ") is not on the chain", seq,
                eg_hint_pos(hint), eg_hint_index(hint));
    const _Atomic uint64_t *entries =
        eg_ring_index(m->ring, m->slots, (uint32_t)(seq % m->slots), m->capacity);
    for (uint64_t b = 1; b < eg_index_blocks(m->capacity); b++) {
        uint64_t e = eg_load_relaxed(&entries[b]);
        if (eg_index_is_of(e, seq) &&
            !on_chain(m, base, allocated, eg_index_pos(e, b), eg_index_record(e)))
            problem(out, "segment %" PRIu64 ": index entry of block %" PRIu64 " is not on the chain", seq, b);
    }
}

void eg_check_partition(struct eg_partition_map *m, struct eg_check_report *out) {
    memset(out, 0, sizeof(*out));
    uint64_t active = eg_load_acquire(&m->ring->active);
    uint64_t used[EG_BUFFERS_MAX / 64] = {0};
    if (active > EG_SEQ_MAX) {
        problem(out, "active segment %" PRIu64 " is not possible", active);
        return;
    }
    for (uint32_t s = 0; s < m->slots; s++) {
        uint64_t word = eg_load_acquire(&m->ring->slot[s].word);
        uint64_t seq = eg_slot_seq(word);
        uint32_t state = eg_slot_state(word), number = eg_slot_buffer(word);
        if (state < EG_SLOT_READY || state > EG_SLOT_RETIRING || number >= EG_BUFFERS_MAX ||
            seq % m->slots != s) {
            problem(out, "slot %u: %016" PRIx64 " is no slot word", s, word);
            continue;
        }
        if (seq + m->slots <= active || seq >= active + m->slots)
            problem(out, "slot %u: segment %" PRIu64 ", active is %" PRIu64, s, seq, active);
        /* (active + 1, OPEN) is a rotation whose last step is still to be done, by anyone. */
        if (seq > active ? state != EG_SLOT_READY && !(state == EG_SLOT_OPEN && seq == active + 1)
                         : state == EG_SLOT_READY)
            problem(out, "slot %u: segment %" PRIu64 " in state %u, active is %" PRIu64, s, seq, state, active);
        if (used[number / 64] >> number % 64 & 1)
            problem(out, "buffer %u serves two slots", number);
        used[number / 64] |= 1ull << number % 64;
    }
    int64_t expected = EG_BASE_UNSET;
    uint64_t oldest = active + 1 >= m->slots ? active + 1 - m->slots : 0;
    for (uint64_t seq = oldest; seq <= active; seq++) {
        uint64_t word = eg_load_acquire(&eg_slot_of(m, seq)->word);
        if (eg_slot_seq(word) != seq || eg_slot_state(word) != EG_SLOT_OPEN)
            continue;
        if (eg_segment_map(m, eg_slot_buffer(word), seq) != EAGRE_OK) {
            problem(out, "segment %" PRIu64 ": %s", seq, eg_error_text());
            continue;
        }
        uint8_t *base = m->bufs[eg_slot_buffer(word)].base;
        int64_t first = eg_load_acquire(&eg_map_header(m, eg_slot_buffer(word))->base);
        if (first < 0 || first > EG_OFFSET_MAX || (expected >= 0 && first != expected))
            problem(out, "segment %" PRIu64 ": base %" PRId64 ", expected %" PRId64, seq, first, expected);
        uint64_t count = 0;
        bool sealed = false;
        eg_check_segment(m, base, seq, out, &count, &sealed);
        check_places(m, base, seq, out);
        if (seq < active && !sealed)
            problem(out, "segment %" PRIu64 ": has no end, active is %" PRIu64, seq, active);
        expected = first >= 0 && first <= EG_OFFSET_MAX ? first + (int64_t)count : EG_BASE_UNSET;
    }
}

void eg_check_waiters(const struct eg_waiters *w, struct eg_check_report *out) {
    uint64_t summary = atomic_load(&w->summary);
    for (uint32_t i = 0; i < EG_BELLS_MAX / 64; i++)
        if (atomic_load(&w->bits[i]) != 0 && !(summary >> i & 1))
            problem(out, "waiters: word %u is not empty, its summary bit is not set", i);
}
