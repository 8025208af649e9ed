#include "log/logfile.h"

#include <inttypes.h>

#include "sys/errbuf.h"

/* ---- header page -------------------------------------------------------------------------------- */

static uint32_t header_crc(const struct eg_segment_header *h) {
    return eg_crc32c(0, (const uint8_t *)h + 8, offsetof(struct eg_segment_header, crc) - 8);
}

/* Seeded with the header's: a base of another file is not taken. */
static uint32_t base_crc(const struct eg_segment_header *h) {
    int64_t base = eg_load_relaxed(&h->base);
    return eg_crc32c(h->crc, &base, sizeof(base));
}

void eg_logfile_header_make(void *page, const struct eg_logfile_id *id) {
    memset(page, 0, EG_PAGE);
    struct eg_segment_header *h = page;
    eg_store_relaxed(&h->magic.magic, EG_MAGIC_SEGMENT);
    h->magic.version = EG_LOGFILE_VERSION;
    h->topic_uid = id->topic_uid;
    h->partition_uid = id->partition_uid;
    h->partition = id->partition;
    h->align = id->align;
    h->capacity = id->capacity;
    eg_store_relaxed(&h->seq, id->seq);
    h->created_ns = id->created_ns;
    h->crc = header_crc(h);
    eg_store_relaxed(&h->base, id->base);
    h->base_crc = base_crc(h);
}

static bool is_possible(const struct eg_logfile_id *id) {
    return id->capacity >= EG_SEGMENT_BYTES_MIN && id->capacity <= EG_SEGMENT_BYTES_MAX &&
           id->capacity % EG_INDEX_BLOCK == 0 && id->align >= EG_ALIGN_MIN &&
           id->align <= EG_ALIGN_MAX && (id->align & (id->align - 1)) == 0 && id->seq <= EG_SEQ_MAX;
}

/* Of another file: which of its values says so, and what it is and should be. */
static enum eg_logfile_header_fault compare(const struct eg_logfile_id *has,
                                            const struct eg_logfile_id *wants) {
    const struct {
        enum eg_logfile_header_fault fault;
        const char *what;
        uint64_t has, wants;
    } values[] = {
        {EG_HEADER_TOPIC, "topic id", has->topic_uid, wants->topic_uid},
        {EG_HEADER_PARTITION, "partition id", has->partition_uid, wants->partition_uid},
        {EG_HEADER_PARTITION, "partition", has->partition, wants->partition},
        {EG_HEADER_SEQ, "segment", has->seq, wants->seq},
        {EG_HEADER_CAPACITY, "capacity", has->capacity, wants->capacity},
        {EG_HEADER_ALIGN, "alignment", has->align, wants->align},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        if (values[i].has != values[i].wants) {
            eg_error_set(EAGRE_E_CORRUPT,
                         "log file header: is of %s %" PRIu64 ", expected %" PRIu64, values[i].what,
                         values[i].has, values[i].wants);
            return values[i].fault;
        }
    return EG_HEADER_OK;
}

static int refuse(enum eg_logfile_header_fault *fault, enum eg_logfile_header_fault f, int status) {
    if (fault != NULL)
        *fault = f;
    return status;
}

int eg_logfile_header_check(const void *page, uint64_t bytes, const struct eg_logfile_id *expected,
                            struct eg_logfile_id *out, enum eg_logfile_header_fault *fault) {
    struct eg_segment_header h; /* a copy: the file may be mapped */
    if (bytes < EG_PAGE)
        return refuse(
            fault, EG_HEADER_SHORT,
            eg_error_set(EAGRE_E_CORRUPT, "log file header: %" PRIu64 " bytes are too few", bytes));
    memcpy(&h, page, sizeof(h));
    uint64_t magic = eg_load_relaxed(&h.magic.magic);
    if (magic != EG_MAGIC_SEGMENT)
        return refuse(fault, EG_HEADER_MAGIC,
                      eg_error_set(EAGRE_E_CORRUPT, magic == 0
                                                        ? "log file header: nothing was written yet"
                                                        : "log file header: this is no log file"));
    /* The CRC first: a version that a flipped bit makes is damage, not another build's. */
    bool crc_ok = h.crc == header_crc(&h);
    if (h.magic.version != EG_LOGFILE_VERSION && crc_ok)
        return refuse(fault, EG_HEADER_VERSION,
                      eg_error_set(EAGRE_E_VERSION,
                                   "log file header: format %u, this build of Eagre reads %u",
                                   h.magic.version, EG_LOGFILE_VERSION));
    if (!crc_ok)
        return refuse(fault, EG_HEADER_CRC,
                      eg_error_set(EAGRE_E_CORRUPT, "log file header: checksum does not match"));
    struct eg_logfile_id id = {.topic_uid = h.topic_uid,
                               .partition_uid = h.partition_uid,
                               .partition = h.partition,
                               .align = h.align,
                               .capacity = h.capacity,
                               .seq = eg_load_relaxed(&h.seq),
                               .created_ns = h.created_ns,
                               .base = eg_load_relaxed(&h.base)};
    if (!is_possible(&id))
        return refuse(fault, EG_HEADER_VALUES,
                      eg_error_set(EAGRE_E_CORRUPT,
                                   "log file header: segment %" PRIu64 " of %" PRIu64
                                   " bytes with alignment %u is not possible",
                                   id.seq, id.capacity, id.align));
    enum eg_logfile_header_fault other = expected != NULL ? compare(&id, expected) : EG_HEADER_OK;
    if (other != EG_HEADER_OK)
        return refuse(fault, other, EAGRE_E_CORRUPT);
    if (h.base_crc != base_crc(&h) || id.base < 0 || id.base > EG_OFFSET_MAX)
        return refuse(fault, EG_HEADER_BASE,
                      eg_error_set(EAGRE_E_CORRUPT,
                                   "log file header: base offset %" PRId64
                                   " does not match its checksum",
                                   id.base));
    if (fault != NULL)
        *fault = EG_HEADER_OK;
    *out = id;
    return EAGRE_OK;
}

void eg_logfile_init(struct eg_logfile *l, const struct eg_logfile_id *id, const void *data,
                     uint64_t bytes) {
    l->data = data;
    l->bytes = bytes < id->capacity ? bytes : id->capacity;
    l->capacity = id->capacity;
    l->seq = id->seq;
    l->base = id->base;
    l->align = id->align;
    l->seed = eg_frame_seed(id->partition_uid, id->seq);
}

/* ---- frames --------------------------------------------------------------------------------------- */

static const char nothing[] = "nothing is written here";

#define OWNER_BITS ((uint64_t)EG_OWNER_MAX << 50)

/* A frame's length in its slack: what the CRC of the contents does not cover, chained to that CRC. */
static inline uint64_t slack_note(uint32_t crc, uint64_t length) {
    return (uint64_t)eg_crc32c(crc, &length, sizeof(length)) << 32 | length >> 3;
}

/* Is the frame at f as long as its contents and padding need, or else says how much longer? Both are multiples of
 * the alignment and the contents lie within, so there is room for the note. */
static inline bool length_ok(const uint8_t *f, uint32_t crc, uint64_t length, uint64_t used) {
    uint64_t note;
    if (__builtin_expect(length == used, 1))
        return true;
    memcpy(&note, f + used, sizeof(note));
    return note == slack_note(crc, length);
}

/* Each record of a claim has a frame of its own, so a pad cannot stand for more than that many. */
static inline bool count_fits(uint64_t word) {
    return eg_word_count(word) <= eg_word_length(word) / EG_FRAME_HEADER;
}

static const char *word_fault(const struct eg_logfile *l, uint64_t word, uint64_t pos) {
    if (!eg_word_is_sane(word, pos, l->capacity, l->align))
        return "no frame word";
    if (eg_word_state(word) != EG_PUBLISHED)
        return "a frame that is not published";
    uint64_t length = eg_word_length(word);
    switch (eg_word_kind(word)) {
    case EG_KIND_DATA:
        return length < EG_FRAME_HEADER || eg_word_count(word) != 1 ? "no frame word" : NULL;
    case EG_KIND_PAD:
        if (length < EG_FRAME_HEADER || eg_word_headers(word))
            return "no frame word";
        return count_fits(word) ? NULL : "a pad that skips more records than fit";
    default:
        if (eg_word_count(word) != 0 || eg_word_headers(word))
            return "no frame word";
        return length == l->capacity - pos ? NULL : "an end that does not reach the capacity";
    }
}

/* Pad or EOS: all of it follows from the word, the place and the index. */
static void write_mark(const struct eg_logfile *l, struct eg_frame *f, uint64_t word, uint64_t pos,
                       uint32_t index) {
    f->index = index;
    f->timestamp_ns = eg_word_count(word);
    f->key_length = EG_NULL_LENGTH;
    f->value_length = EG_NULL_LENGTH;
    f->crc = eg_frame_head_crc(pos, word, index, l->seed, f->timestamp_ns, EG_NULL_LENGTH,
                               EG_NULL_LENGTH);
}

/* What is longer than its contents and their padding need, `used`: zeros, with the note. */
static inline void write_slack(uint8_t *dst, uint32_t crc, uint64_t length, uint64_t used) {
    if (__builtin_expect(length > used, 0)) {
        uint64_t note = slack_note(crc, length);
        memset(dst + used, 0, length - used);
        memcpy(dst + used, &note, sizeof(note));
    }
}

/* Up to here, and where the headers' own length has to be found first, the frame is copied whole and the CRC made
 * from the copy, which is in the first-level cache then. */
#define COPY_WHOLE 256u

/*
 * Copy first, then look at the copy alone: its producer can do to src what it likes. Longer payloads are
 * copied and checksummed in one pass, for which the lengths in the copy of the header are enough.
 */
static inline const char *write_data(const struct eg_logfile *l, struct eg_frame *f,
                                     const struct eg_frame *src, uint64_t word, uint64_t pos,
                                     uint64_t index, struct eg_frame_view *v) {
    uint64_t length = eg_word_length(word);
    bool whole = length <= COPY_WHOLE || eg_word_headers(word);
    memcpy(f, src, whole ? length : EG_FRAME_HEADER);
    __asm__("" ::: "memory"); /* what is loaded from now on is loaded from the copy */
    if (!eg_frame_view(f, word, v))
        return "lengths do not fit the frame";
    if (v->index != index)
        return "record number does not continue the one before";
    uint64_t used = eg_frame_length(v->payload, l->align);
    if (whole) {
        if (!eg_frame_crc_ok(f, pos, word, l->seed, v))
            return "checksum (CRC32C) does not match";
    } else {
        uint64_t n =
            eg_align_up(v->payload, 8); /* at most length - EG_FRAME_HEADER, a multiple of 8 */
        uint32_t crc = eg_frame_head_crc(pos, word, v->index, l->seed, v->timestamp_ns,
                                         f->key_length, f->value_length);
        if (eg_crc32c_copy(crc, f->payload, src->payload, n) != f->crc)
            return "checksum (CRC32C) does not match";
        memset(f->payload + n, 0, used - EG_FRAME_HEADER - n);
    }
    write_slack((uint8_t *)f, f->crc, length, used);
    return NULL;
}

int eg_logfile_frame_write(const struct eg_logfile *l, uint8_t *dst, const struct eg_frame *src,
                           uint64_t word, uint64_t pos, uint64_t index, uint32_t flush,
                           struct eg_logfile_frame *out) {
    struct eg_frame *f = eg_frame_at(dst, 0);
    const char *fault = word_fault(l, word, pos);
    uint64_t length = eg_word_length(word);
    out->kind = (enum eg_frame_kind)eg_word_kind(word);
    out->flush = flush;
    out->pos = pos;
    out->length = length;
    out->index = (uint32_t)index;
    out->count = eg_word_count(word);
    if (fault == NULL && out->kind == EG_KIND_DATA) {
        fault = write_data(l, f, src, word, pos, index, &out->view);
    } else if (fault == NULL && length >= EG_FRAME_HEADER) {
        write_mark(l, f, word, pos, (uint32_t)index);
        if (out->kind == EG_KIND_PAD) {
            uint64_t used = eg_frame_length(0, l->align);
            memset(f->payload, 0, used - EG_FRAME_HEADER);
            write_slack(dst, f->crc, length, used);
        }
    }
    if (__builtin_expect(fault != NULL, 0))
        return eg_error_set(EAGRE_E_CORRUPT,
                            "segment %" PRIu64 ", position %" PRIu64 " (offset %" PRId64 "): %s",
                            l->seq, pos, l->base + (int64_t)index, fault);
    eg_store_relaxed(&f->word,
                     (word & ~OWNER_BITS) | (uint64_t)flush << 50); /* ours until it is written */
    return EAGRE_OK;
}

/* A pad's or an end's frame, at least a header long. */
static const char *mark_fault(const struct eg_logfile *l, const struct eg_frame *f, uint64_t word,
                              uint64_t pos) {
    struct eg_frame_view v = {.index = f->index, .timestamp_ns = f->timestamp_ns};
    if (!eg_frame_crc_ok(f, pos, word, l->seed, &v))
        return "checksum (CRC32C) does not match";
    if (v.timestamp_ns != eg_word_count(word) || f->key_length != EG_NULL_LENGTH ||
        f->value_length != EG_NULL_LENGTH)
        return "a pad or end that says something else than its word";
    if (eg_word_kind(word) == EG_KIND_PAD &&
        !length_ok((const uint8_t *)f, f->crc, eg_word_length(word), eg_frame_length(0, l->align)))
        return "length does not match the contents";
    return NULL;
}

/* The frame at pos, its index within low .. high. *work: + bytes whose CRC was computed. */
static inline const char *frame_fault(const struct eg_logfile *l, uint64_t pos, uint64_t low,
                                      uint64_t high, struct eg_logfile_frame *out, uint64_t *work) {
    uint64_t left = l->bytes - pos;
    if (__builtin_expect(left < sizeof(uint64_t), 0))
        return "the file ends within a frame";
    const struct eg_frame *f = (const struct eg_frame *)(const void *)(l->data + pos);
    uint64_t word = eg_load_relaxed(&f->word); /* below what the caller knows to be written */
    if (word == 0)
        return nothing;
    const char *fault = word_fault(l, word, pos);
    if (__builtin_expect(fault != NULL, 0))
        return fault;
    uint64_t length = eg_word_length(word);
    out->kind = (enum eg_frame_kind)eg_word_kind(word);
    out->flush = eg_word_owner(word);
    out->pos = pos;
    out->length = length;
    out->count = eg_word_count(word);
    if (__builtin_expect(eg_logfile_bytes(out) > left, 0))
        return "the file ends within a frame";
    if (__builtin_expect(length < EG_FRAME_HEADER,
                         0)) { /* an end without room for more than its word */
        out->index = (uint32_t)low;
        return NULL;
    }
    if (out->kind == EG_KIND_DATA && !eg_frame_view(f, word, &out->view))
        return "lengths do not fit the frame";
    out->index = out->kind == EG_KIND_DATA ? out->view.index : f->index;
    if (out->index < low || out->index > high)
        return "record number does not continue the one before";
    if (__builtin_expect(out->kind != EG_KIND_DATA, 0))
        return mark_fault(l, f, word, pos);
    *work += out->view.payload;
    if (!eg_frame_crc_ok(f, pos, word, l->seed, &out->view))
        return "checksum (CRC32C) does not match";
    if (!length_ok((const uint8_t *)f, f->crc, length,
                   eg_frame_length(out->view.payload, l->align)))
        return "length does not match the contents";
    return NULL;
}

static inline bool is_place(const struct eg_logfile *l, uint64_t pos) {
    return pos >= EG_SEGMENT_DATA && pos <= l->capacity && (pos & (l->align - 1)) == 0;
}

const char *eg_logfile_frame_check(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                                   struct eg_logfile_frame *out) {
    uint64_t work = 0;
    if (!is_place(l, pos) || pos == l->capacity)
        return "no place of a frame";
    if (pos > l->bytes)
        return "the file ends before";
    return frame_fault(l, pos, index, index, out, &work);
}

/* ---- walking ------------------------------------------------------------------------------------------ */

void eg_logfile_iter_init(struct eg_logfile_iter *it, const struct eg_logfile *l, uint64_t pos,
                          uint64_t index) {
    memset(it, 0, sizeof(*it));
    it->l = *l;
    it->pos = pos;
    it->index = index;
}

enum eg_logfile_step eg_logfile_next(struct eg_logfile_iter *it) {
    const struct eg_logfile *l = &it->l;
    if (__builtin_expect(it->pos == l->capacity, 0)) {
        it->frame = (struct eg_logfile_frame){.kind = EG_KIND_EOS,
                                              .flush = it->frame.flush,
                                              .pos = it->pos,
                                              .index = (uint32_t)it->index};
        return EG_STEP_END;
    }
    if (__builtin_expect(it->pos == l->bytes && it->pos >= EG_SEGMENT_DATA, 0)) {
        it->reason = nothing;
        return EG_STEP_NOTHING;
    }
    it->reason = eg_logfile_frame_check(l, it->pos, it->index, &it->frame);
    if (__builtin_expect(it->reason != NULL, 0))
        return it->reason == nothing ? EG_STEP_NOTHING : EG_STEP_BAD;
    if (__builtin_expect(it->frame.kind == EG_KIND_EOS, 0))
        return EG_STEP_END;
    it->pos += it->frame.length;
    it->index += it->frame.count;
    return it->frame.kind == EG_KIND_DATA ? EG_STEP_RECORD : EG_STEP_PAD;
}

/* ---- recovery ------------------------------------------------------------------------------------------ */

/*
 * Looking for frames behind a bad place. Nobody knows where they begin, so every aligned place is tried:
 * first the word, then whether the record number can be one of there (a frame has at least 32 bytes, so
 * there cannot be more records than that in between), then the CRC.
 *
 * What could be taken for a frame of ours that is none? Bytes of an expired segment: of the same partition,
 * but another seq, which seeds the CRC. Frames within a record's value (somebody sends log files about):
 * theirs is another place, or another partition. Forged ones: their producer destroys its own topic's
 * evidence; the outcome is that somebody has to look. Frames of this file from before a tail was cut: not
 * there, see logfile.h.
 *
 * Values that look like very many long frames would cost a CRC of each: beyond CRC_BUDGET times the file's
 * size the search gives up, and says so.
 */
#define CRC_BUDGET 8u

struct search {
    const struct eg_logfile *l;
    uint64_t work;
    bool gave_up;
};

static bool find_frame(struct search *s, uint64_t from, uint64_t index,
                       struct eg_logfile_frame *f) {
    const struct eg_logfile *l = s->l;
    for (uint64_t pos = from + l->align; pos < l->bytes && l->bytes - pos >= EG_FRAME_HEADER;
         pos += l->align) {
        uint64_t word =
            eg_load_relaxed(&((const struct eg_frame *)(const void *)(l->data + pos))->word);
        if ((word & 0x23) != EG_PUBLISHED)
            continue; /* most places end here */
        uint64_t most = index + (pos - from) / EG_FRAME_HEADER;
        if (frame_fault(l, pos, index, most, f, &s->work) == NULL)
            return true;
        if (s->work > CRC_BUDGET * l->capacity) {
            s->gave_up = true;
            return false;
        }
    }
    return false;
}

bool eg_logfile_find(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                     struct eg_logfile_frame *out) {
    struct search s = {.l = l};
    return is_place(l, pos) && find_frame(&s, pos, index, out);
}

static void count_record(struct eg_logfile_scan *out, int64_t timestamp_ns) {
    if (out->records++ == 0) {
        out->first_timestamp_ns = timestamp_ns;
        out->max_timestamp_ns = timestamp_ns;
    }
    out->last_timestamp_ns = timestamp_ns;
    if (timestamp_ns > out->max_timestamp_ns)
        out->max_timestamp_ns = timestamp_ns;
}

/* All that is good behind (from, index). Returns whether it is of more than one flush; *first: whose. */
static bool look_behind(struct search *s, uint64_t from, uint64_t index,
                        struct eg_logfile_scan *out, uint32_t *first) {
    struct eg_logfile_frame f;
    struct eg_logfile_iter it;
    bool mixed = false;
    while (find_frame(s, from, index, &f)) {
        enum eg_logfile_step step;
        if (out->next_pos == 0) {
            out->next_pos = f.pos;
            out->next_index = f.index;
            *first = f.flush;
        } else {
            out->behind_holes++;
        }
        eg_logfile_iter_init(&it, s->l, f.pos, f.index);
        while ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD) {
            mixed |= it.frame.flush != *first;
            out->behind_records += step == EG_STEP_RECORD;
        }
        if (step == EG_STEP_END && it.pos < s->l->capacity)
            mixed |= it.frame.flush != *first;
        from = it.pos;
        index = it.index;
        out->behind_index = it.index;
        out->behind_end = step == EG_STEP_END ? s->l->capacity : it.pos;
        if (step == EG_STEP_END)
            break;
    }
    return mixed;
}

/*
 * What the flush numbers say of a bad place whose last good neighbour is of flush a and the next one behind
 * of flush b. The bytes between are of flushes a to b. Of a batch (one claim) a torn tail may leave a part:
 * nobody was told that it is durable, and on disk its records are as good as single ones.
 *
 *   b is neither a nor a + 1   whole flushes are missing that were synced before b began        damage
 *   more flushes behind than b the bad place is of b at the latest, which was synced            damage
 *   b == a, nothing else       one flush, cut off: its pages reached the disk in any order      torn
 *   b == a + 1, nothing else   the start of flush b, cut off - or the end of a, damaged: no way to tell, so
 *                              the mark decides                                                 torn
 *
 * Numbers wrap after 16383: a gap of flushes a multiple of that, or one more, would look like none. It would
 * have to be one single bad place of that many frames, half a megabyte at least.
 */
void eg_logfile_scan(const struct eg_logfile *l, uint64_t pos, uint64_t index,
                     uint32_t flush_before, uint64_t mark, struct eg_logfile_scan *out) {
    struct eg_logfile_iter it;
    enum eg_logfile_step step;
    memset(out, 0, sizeof(*out));
    if (!is_place(l, pos)) {
        pos = EG_SEGMENT_DATA;
        index = flush_before = 0;
    }
    out->flush = flush_before;
    eg_logfile_iter_init(&it, l, pos, index);
    while ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD) {
        out->flush = it.frame.flush;
        if (step == EG_STEP_RECORD)
            count_record(out, it.frame.view.timestamp_ns);
        else
            out->pads++;
    }
    out->good_index = it.index;
    out->good_pos = it.pos;
    out->data_end = it.pos;
    if (step == EG_STEP_END) {
        out->sealed = true;
        out->good_pos = l->capacity;
        if (it.pos < l->capacity)
            out->flush = it.frame.flush;
        return; /* CLEAN */
    }
    struct search s = {.l = l};
    uint32_t behind = 0;
    bool mixed = look_behind(&s, it.pos, it.index, out, &behind);
    bool known =
        out->flush != 0 || it.pos == EG_SEGMENT_DATA; /* what flush the last good frame is of */
    bool skips = known && behind != out->flush && behind != eg_logfile_flush_next(out->flush);
    if (it.pos < mark)
        out->proof = "it lies below what is known to be durable";
    else if (out->next_pos != 0 && (mixed || skips))
        out->proof = "frames of a later flush lie behind it";
    else if (s.gave_up)
        out->proof = "too much behind it looks like frames to tell";
    out->reason = it.reason;
    if (out->proof != NULL)
        out->verdict = EG_FILE_DAMAGED;
    else if (step == EG_STEP_BAD || out->next_pos != 0)
        out->verdict = EG_FILE_TORN;
}
