/*
 * frame.h - one record in a segment: how long it is, what its CRC covers, how it is written and
 * how one that anybody may have written is read.
 *
 *   0         8     12      16           24     28      32
 *   +---------+-----+-------+------------+------+-------+------+-------+---------+------+
 *   | word    | crc | index | timestamp  | klen | vlen  | key  | value | headers | zero |
 *   +---------+-----+-------+------------+------+-------+------+-------+---------+------+
 *   headers, if the word says so: u32 bytes that follow, then pairs of
 *   u32 name length, u32 value length (EG_NULL_LENGTH: null), name, value.
 *
 * The CRC covers index, timestamp, lengths and payload up to the next multiple of 8, and is seeded
 * with what makes the place unique: partition uid and seq (eg_frame_seed, once a segment), then
 * position and the word's kind and flags. So a valid frame of another place, or of an earlier life
 * of these bytes, is not valid here. It guards against accidents, not against forgery.
 */
#ifndef EG_LOG_FRAME_H
#define EG_LOG_FRAME_H

#include <string.h>

#include "layout/layout.h"
#include "sys/atomic.h"
#include "sys/crc32c.h"

static inline uint32_t eg_frame_seed(uint32_t partition_uid, uint64_t seq) {
    uint64_t id[2] = {seq, partition_uid};
    return eg_crc32c(0, id, sizeof(id));
}

static inline uint64_t eg_frame_length(uint64_t payload, uint32_t align) {
    return eg_align_up(EG_FRAME_HEADER + payload, align);
}

/* What stands in the place of the crc field while it is computed: position, kind and flags. */
static inline uint32_t eg_frame_tag(uint64_t pos, uint64_t word) {
    return (uint32_t)((word >> 2 & 7) << 26 | pos >> 3);
}

static inline uint32_t eg_frame_crc(uint32_t seed, uint64_t pos, uint64_t word, uint32_t index,
                                    const struct eg_frame *f, uint64_t payload) {
    uint64_t first = (uint64_t)index << 32 | eg_frame_tag(pos, word);
    return eg_crc32c_words(eg_crc32c_words(seed, &first, 8), &f->timestamp_ns, 16 + eg_align_up(payload, 8));
}

/*
 * The first part of it, for who writes a frame: bytes 8 to 32, from registers. Read back from the frame, as
 * 8 bytes that were stored as two times 4, they would have to wait until those stores and all before them
 * have left the store buffer; and these wait for cache lines that a reader has just looked at.
 */
static inline uint32_t eg_frame_head_crc(uint64_t pos, uint64_t word, uint32_t index, uint32_t seed,
                                         int64_t timestamp_ns, uint32_t key_length, uint32_t value_length) {
    const uint64_t head[3] = {(uint64_t)index << 32 | eg_frame_tag(pos, word), (uint64_t)timestamp_ns,
                              (uint64_t)value_length << 32 | key_length};
    return eg_crc32c_words(seed, head, sizeof(head));
}

/* ---- writing: the frame belongs to the caller until it publishes the word ------------------ */

/* Everything but the word. The payload lies there already. Returns the word that publishes it. */
static inline uint64_t eg_frame_finish(struct eg_frame *f, uint64_t pos, uint64_t length,
                                       uint32_t index, uint32_t seed, uint32_t owner,
                                       int64_t timestamp_ns, uint32_t key_length,
                                       uint32_t value_length, bool headers, uint64_t payload) {
    uint64_t word = eg_word_make(EG_PUBLISHED, EG_KIND_DATA, headers, length, 1, owner);
    f->index = index;
    f->timestamp_ns = timestamp_ns;
    f->key_length = key_length;
    f->value_length = value_length;
    f->crc = eg_crc32c_words(eg_frame_head_crc(pos, word, index, seed, timestamp_ns, key_length, value_length), f->payload,
                       eg_align_up(payload, 8));
    return word;
}

/* ---- reading: f may hold anything ------------------------------------------------------------ */

struct eg_frame_view {
    const uint8_t *key; /* NULL: none */
    const uint8_t *value;
    const uint8_t *headers; /* behind their length; NULL: none */
    uint32_t key_length;
    uint32_t value_length;
    uint32_t headers_length;
    uint32_t index;
    int64_t timestamp_ns;
    uint64_t payload; /* bytes of all three, lengths included */
};

/*
 * Parse a published data frame whose word was found sane (so `length` bytes lie in the segment).
 * Each field is loaded once, then bounded by what remains. False: no valid frame.
 */
static inline bool eg_frame_view(const struct eg_frame *f, uint64_t word, struct eg_frame_view *v) {
    uint64_t length = eg_word_length(word);
    if (__builtin_expect(length < EG_FRAME_HEADER || eg_word_count(word) != 1, 0))
        return false;
    uint64_t room = length - EG_FRAME_HEADER;
    uint32_t klen = __atomic_load_n(&f->key_length, __ATOMIC_RELAXED);
    uint32_t vlen = __atomic_load_n(&f->value_length, __ATOMIC_RELAXED);
    const uint8_t *p = f->payload;
    v->index = __atomic_load_n(&f->index, __ATOMIC_RELAXED);
    v->timestamp_ns = __atomic_load_n(&f->timestamp_ns, __ATOMIC_RELAXED);
    v->key = NULL;
    v->key_length = 0;
    if (klen != EG_NULL_LENGTH) {
        if (klen > room)
            return false;
        v->key = p;
        v->key_length = klen;
        p += klen;
        room -= klen;
    }
    v->value = NULL;
    v->value_length = 0;
    if (vlen != EG_NULL_LENGTH) {
        if (vlen > room)
            return false;
        v->value = p;
        v->value_length = vlen;
        p += vlen;
        room -= vlen;
    }
    v->headers = NULL;
    v->headers_length = 0;
    if (__builtin_expect(eg_word_headers(word), 0)) {
        uint32_t hlen;
        if (room < sizeof(hlen))
            return false;
        memcpy(&hlen, p, sizeof(hlen));
        room -= sizeof(hlen);
        if (hlen > room)
            return false;
        v->headers = p + sizeof(hlen);
        v->headers_length = hlen;
        p += sizeof(hlen) + hlen;
    }
    v->payload = (uint64_t)(p - f->payload);
    return true;
}

static inline bool eg_frame_crc_ok(const struct eg_frame *f, uint64_t pos, uint64_t word,
                                   uint32_t seed, const struct eg_frame_view *v) {
    return __atomic_load_n(&f->crc, __ATOMIC_RELAXED) ==
           eg_frame_crc(seed, pos, word, v->index, f, v->payload);
}

static inline struct eg_frame *eg_frame_at(uint8_t *base, uint64_t pos) {
    return (struct eg_frame *)(void *)(base + pos);
}

#endif
