/*
 * fake_file.h - log files made as the archiver makes them: frames as producers leave them in a ring, through
 * eg_logfile_frame_write, with a record kept of what was written where.
 */
#ifndef EG_TESTS_FAKE_FILE_H
#define EG_TESTS_FAKE_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "log/logfile.h"
#include "log/logindex.h"
#include "sys/errbuf.h"
#include "sys/rand.h"

#define FILE_FRAMES_MAX 8192u

static const struct eg_logfile_id file_id = {.topic_uid = 7,
                                             .partition_uid = 21,
                                             .partition = 3,
                                             .align = 64,
                                             .capacity = 64u << 10,
                                             .seq = 5,
                                             .created_ns = 1700000000000000000,
                                             .base = 1000};

struct fake_file {
    struct eg_logfile_id id;
    struct eg_logfile l; /* its data are bytes[] below */
    uint8_t *bytes;      /* capacity of them */
    uint8_t *ring;       /* the frames as they were before */
    uint64_t pos, index; /* the end of the chain */
    uint32_t flush;      /* of frames to come */
    uint64_t records;
    uint32_t frames;
    struct eg_logfile_frame frame[FILE_FRAMES_MAX];
    uint64_t
        used[FILE_FRAMES_MAX]; /* of the frame's length: header and contents, without padding */
};

struct fake_shape {
    uint32_t klen, vlen; /* EG_NULL_LENGTH: null */
    uint32_t hlen;       /* 0: none */
    uint32_t slack;      /* claimed, but not needed */
    int64_t timestamp_ns;
};

static inline void fake_file_make(struct fake_file *f, const struct eg_logfile_id *id) {
    memset(f, 0, sizeof(*f));
    f->id = *id;
    f->bytes = aligned_alloc(EG_PAGE, id->capacity);
    f->ring = aligned_alloc(EG_PAGE, id->capacity);
    assert_true(f->bytes != NULL && f->ring != NULL);
    memset(f->bytes, 0, id->capacity);
    memset(f->ring, 0, id->capacity);
    eg_logfile_header_make(f->bytes, id);
    eg_logfile_init(&f->l, id, f->bytes, id->capacity);
    f->pos = EG_SEGMENT_DATA;
    f->flush = 1;
}

static inline void fake_file_drop(struct fake_file *f) {
    free(f->bytes);
    free(f->ring);
}

/* A producer's frame in the ring. Its bytes are never 0, but those of the padding. */
static inline uint64_t fake_ring_frame(const struct fake_file *f, struct eg_frame *at,
                                       const struct fake_shape *s, uint64_t *used) {
    uint64_t payload = s->klen != EG_NULL_LENGTH ? s->klen : 0;
    payload += s->vlen != EG_NULL_LENGTH ? s->vlen : 0;
    uint64_t headers_at = payload;
    payload += s->hlen > 0 ? 4 + s->hlen : 0;
    uint64_t length = eg_align_up(eg_frame_length(payload, f->id.align) + s->slack, f->id.align);
    assert_true(length <= f->id.capacity - f->pos);
    for (uint64_t i = 0; i < payload; i++)
        at->payload[i] = (uint8_t)(i % 251 + 1 + f->frames % 4);
    memset(at->payload + payload, 0, eg_align_up(payload, 8) - payload);
    memset((uint8_t *)at + eg_frame_length(payload, f->id.align), 0xa5,
           length - eg_frame_length(payload, f->id.align));
    if (s->hlen > 0)
        memcpy(at->payload + headers_at, &s->hlen, 4);
    *used = EG_FRAME_HEADER + eg_align_up(payload, 8);
    uint64_t word = eg_frame_finish(at, f->pos, length, (uint32_t)f->index, f->l.seed, 99,
                                    s->timestamp_ns, s->klen, s->vlen, s->hlen > 0, payload);
    eg_store_relaxed(&at->word, word);
    return word;
}

/* The frame that lies in the ring at f->pos goes to the file. */
static inline void fake_archive(struct fake_file *f, uint64_t word, uint64_t used) {
    assert_true(f->frames < FILE_FRAMES_MAX);
    struct eg_logfile_frame *out = &f->frame[f->frames];
    assert_int_equal(eg_logfile_frame_write(&f->l, f->bytes + f->pos, eg_frame_at(f->ring, f->pos),
                                            word, f->pos, f->index, f->flush, out),
                     EAGRE_OK);
    assert_int_equal(out->pos, f->pos);
    assert_int_equal(out->index, f->index);
    assert_int_equal(out->length, eg_word_length(word));
    f->used[f->frames++] = used;
    f->records += out->kind == EG_KIND_DATA;
    f->pos += out->length;
    f->index += out->count;
}

static inline void fake_record(struct fake_file *f, const struct fake_shape *s) {
    uint64_t used;
    uint64_t word = fake_ring_frame(f, eg_frame_at(f->ring, f->pos), s, &used);
    fake_archive(f, word, used);
}

static inline void fake_value(struct fake_file *f, uint32_t vlen, int64_t timestamp_ns) {
    struct fake_shape s = {.klen = EG_NULL_LENGTH, .vlen = vlen, .timestamp_ns = timestamp_ns};
    fake_record(f, &s);
}

/* What repair leaves of a dead producer's claim: the word alone is right. */
static inline void fake_pad(struct fake_file *f, uint64_t length, uint32_t count) {
    memset(f->ring + f->pos, 0xa5, length);
    fake_archive(f, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, length, count, 99),
                 EG_FRAME_HEADER);
}

/* End the segment; if it is not full to the last byte. */
static inline void fake_end(struct fake_file *f) {
    uint64_t left = f->id.capacity - f->pos;
    if (left > 0)
        fake_archive(f, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, left, 0, 99),
                     left < EG_FRAME_HEADER ? 8 : EG_FRAME_HEADER);
}

/* Random records, pads and sizes until less than `leave` bytes are left. flushes: a new one now and then. */
static inline void fake_fill(struct fake_file *f, uint64_t seed, uint64_t leave, bool flushes) {
    while (f->id.capacity - f->pos > leave + 2048) {
        uint64_t r = eg_rand_next(&seed);
        if (flushes && r % 5 == 0)
            f->flush = eg_logfile_flush_next(f->flush);
        if (r >> 8 & 15) {
            struct fake_shape s = {.klen = r >> 12 & 1 ? EG_NULL_LENGTH : (uint32_t)(r >> 13 & 31),
                                   .vlen = r >> 18 & 1 ? EG_NULL_LENGTH : (uint32_t)(r >> 19 & 511),
                                   .hlen = r >> 28 & 3 ? 0 : (uint32_t)(r >> 30 & 63),
                                   .slack = r >> 36 & 3 ? 0 : (uint32_t)(r >> 38 & 127),
                                   .timestamp_ns = f->id.created_ns + (int64_t)(f->pos << 10) -
                                                   (int64_t)(r >> 48)};
            fake_record(f, &s);
        } else {
            uint64_t length = eg_align_up(EG_FRAME_HEADER + (r >> 12 & 511), f->id.align);
            fake_pad(f, length, (uint32_t)((r >> 22) % (length / EG_FRAME_HEADER)) + 1);
        }
    }
}

static inline struct eg_logfile_scan scan(const struct eg_logfile *l, uint64_t mark) {
    struct eg_logfile_scan s;
    eg_logfile_scan(l, EG_SEGMENT_DATA, 0, 0, mark, &s);
    return s;
}

#endif
