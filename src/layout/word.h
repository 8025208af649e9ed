/*
 * word.h - the packed words of the protocol: frame, slot, tail hint, pin, index entry. Pure
 * arithmetic on values that were loaded once; no memory is touched here.
 *
 *   frame word   63        50 49        32 31           6  5   4  3 2  1 0
 *               +------------+------------+--------------+---+---+----+----+
 *               | owner (14) | count (18) | length/8 (26)| 0 | H |kind|stat|
 *               +------------+------------+--------------+---+---+----+----+
 *   slot word    63                    24 23         8 7       0
 *               +------------------------+------------+--------+
 *               | seq (40)               | buffer (16)| state  |
 *               +------------------------+------------+--------+
 *   tail hint    63                   32 31                   0
 *               +-----------------------+----------------------+
 *               | record index          | position / 8         |
 *               +-----------------------+----------------------+
 *   pin          63   62              46 45        40 39       0
 *               +----+------------------+-----------+-----------+
 *               | P  | part. index+1(17)| 0         | seq (40)  |
 *               +----+------------------+-----------+-----------+
 *   index entry  63        40 39             13 12             0
 *               +------------+-----------------+----------------+
 *               | seq (24)   | record index(27)| (pos%64Ki)/8   |
 *               +------------+-----------------+----------------+
 */
#ifndef EG_LAYOUT_WORD_H
#define EG_LAYOUT_WORD_H

#include <stdbool.h>
#include <stdint.h>

/* ---- frame word ------------------------------------------------------------------------- */

enum eg_frame_state { EG_FREE = 0, EG_CLAIMED = 1, EG_PUBLISHED = 2 };
enum eg_frame_kind { EG_KIND_DATA = 0, EG_KIND_PAD = 1, EG_KIND_EOS = 2 };

#define EG_LENGTH_UNITS_MAX ((1u << 26) - 1)
#define EG_COUNT_MAX ((1u << 18) - 1)
#define EG_OWNER_MAX ((1u << 14) - 1) /* owner 0 is the daemon */

static inline uint64_t eg_word_make(enum eg_frame_state state, enum eg_frame_kind kind,
                                    bool headers, uint64_t length, uint32_t count, uint32_t owner) {
    return (uint64_t)state | (uint64_t)kind << 2 | (uint64_t)headers << 4 | (length >> 3) << 6 |
           (uint64_t)count << 32 | (uint64_t)owner << 50;
}
static inline uint32_t eg_word_state(uint64_t w) { return (uint32_t)w & 3; }
static inline uint32_t eg_word_kind(uint64_t w) { return (uint32_t)(w >> 2) & 3; }
static inline bool eg_word_headers(uint64_t w) { return (w >> 4) & 1; }
static inline uint64_t eg_word_length(uint64_t w) { return (w >> 6 & EG_LENGTH_UNITS_MAX) << 3; }
static inline uint32_t eg_word_count(uint64_t w) { return (uint32_t)(w >> 32) & EG_COUNT_MAX; }
static inline uint32_t eg_word_owner(uint64_t w) { return (uint32_t)(w >> 50); }

/*
 * Can this word, found at `pos` of a segment of `capacity` bytes with frames aligned to `align`,
 * lead to a next place? True only if length is a positive multiple of align that stays inside
 * and state and kind are known. A free word never is. Callers walk by it and so always terminate.
 */
static inline bool eg_word_is_sane(uint64_t w, uint64_t pos, uint64_t capacity, uint32_t align) {
    uint64_t length = eg_word_length(w);
    return length >= align && (length & (align - 1)) == 0 && length <= capacity - pos &&
           (eg_word_state(w) == EG_CLAIMED || eg_word_state(w) == EG_PUBLISHED) &&
           eg_word_kind(w) <= EG_KIND_EOS && !(w & 0x20);
}

/* ---- slot word -------------------------------------------------------------------------- */

enum eg_slot_state { EG_SLOT_EMPTY = 0, EG_SLOT_READY = 1, EG_SLOT_OPEN = 2, EG_SLOT_RETIRING = 3 };

#define EG_SEQ_MAX ((1ull << 40) - 1)

static inline uint64_t eg_slot_make(uint64_t seq, uint32_t buffer, enum eg_slot_state state) {
    return seq << 24 | (uint64_t)(buffer & 0xffff) << 8 | (uint64_t)state;
}
static inline uint64_t eg_slot_seq(uint64_t w) { return w >> 24; }
static inline uint32_t eg_slot_buffer(uint64_t w) { return (uint32_t)(w >> 8) & 0xffff; }
static inline uint32_t eg_slot_state(uint64_t w) { return (uint32_t)w & 0xff; }

/* ---- tail hint -------------------------------------------------------------------------- */

static inline uint64_t eg_hint_make(uint64_t pos, uint64_t index) { return index << 32 | pos >> 3; }
static inline uint64_t eg_hint_pos(uint64_t h) { return (h & 0xffffffff) << 3; }
static inline uint64_t eg_hint_index(uint64_t h) { return h >> 32; }

/* ---- pin -------------------------------------------------------------------------------- */

#define EG_PIN_NONE 0ull
#define EG_PIN_PRODUCER (1ull << 63)

static inline uint64_t eg_pin_make(bool producer, uint32_t partition_index, uint64_t seq) {
    return (producer ? EG_PIN_PRODUCER : 0) | ((uint64_t)partition_index + 1) << 46 | seq;
}
/* Index of the partition that it is on, + 1; 0: none. Anything up to 2^17 - 1 may have been written. */
static inline uint32_t eg_pin_index_plus_1(uint64_t pin) { return (uint32_t)((pin & ~EG_PIN_PRODUCER) >> 46); }
static inline bool eg_pin_is_on(uint64_t pin, uint32_t partition_index) {
    return eg_pin_index_plus_1(pin) == partition_index + 1;
}
static inline bool eg_pin_is_producer(uint64_t pin) { return pin >> 63; }
static inline uint64_t eg_pin_seq(uint64_t pin) { return pin & EG_SEQ_MAX; }

/* ---- hot index entry: where the first frame of a 64 KiB block begins ---------------------- */

#define EG_INDEX_BLOCK 65536u

static inline uint64_t eg_index_make(uint64_t seq, uint64_t pos, uint64_t index) {
    return (seq & 0xffffff) << 40 | (index & 0x7ffffff) << 13 | (pos & (EG_INDEX_BLOCK - 1)) >> 3;
}
static inline bool eg_index_is_of(uint64_t e, uint64_t seq) {
    return e != 0 && e >> 40 == (seq & 0xffffff);
}
static inline uint64_t eg_index_pos(uint64_t e, uint64_t block) {
    return block * EG_INDEX_BLOCK + ((e & 0x1fff) << 3);
}
static inline uint64_t eg_index_record(uint64_t e) { return e >> 13 & 0x7ffffff; }

#endif
