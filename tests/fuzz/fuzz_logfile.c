/*
 * A log file and its index, made from the input and then damaged: header, walk, search, recovery's scan, index, and
 * what consumers read (cold.h). They answer, end, and touch nothing outside (the file lies in memory of just its size,
 * for AddressSanitizer). What one of them finds the others find, too: a walk is the truth.
 *
 *   u8 alignment (2 bits), header is damaged (bit 2), CRCs of the ring are made good (bit 3), frames are the input's
 *      bytes (bit 4), end the segment (bit 5), index is damaged (bit 6), there is none (bit 7); both: it lies, with
 *      good CRCs
 *   u16 cut off the end, in 4 bytes   u32 mark (bit 31: near where the good part ends)   u16 where to seek
 *   bit 2, bit 6: u8 how many damages: u16 where, u8 xor
 *   u8 how many damages of the file: u32 where, u16 how many bytes, u8 xor, 0: zeros
 *   frames: u8 kind, u16 bytes; with bit 4: what a producer wrote
 */
#include "fuzz/fuzz.h"
#include "log/cold.h"
#include "unit/log/fake_file.h"

#define CAPACITY (3u * EG_LOGINDEX_STEP)
#define DAMAGES_MAX 16u

static struct fake_file made;
static struct {
    uint32_t count;
    struct {
        uint64_t pos, index;
        uint32_t flush;
        int64_t timestamp_ns;
        bool record;
    } frame[CAPACITY / EG_FRAME_HEADER];
    enum eg_logfile_step stop;
    uint64_t pos, index; /* where it stopped */
} walk;

/* ---- making ---------------------------------------------------------------------------------------------- */

static void make_frame(struct fuzz_in *in) {
    uint8_t kind = fuzz_u8(in);
    uint32_t bytes = fuzz_u16(in);
    uint64_t left = made.id.capacity - made.pos;
    bytes = (kind & 128) != 0 ? bytes : bytes & 1023;
    made.flush = (kind & 1) != 0 ? eg_logfile_flush_next(made.flush) : made.flush;
    made.flush = (kind & 3) == 3 ? (made.flush + 200) % EG_LOGFILE_FLUSH_MAX + 1 : made.flush;
    struct fake_shape s = {.klen = (kind & 8) != 0 ? bytes & 63 : EG_NULL_LENGTH,
                           .vlen = (kind & 32) != 0 ? EG_NULL_LENGTH : bytes,
                           .hlen = (kind & 16) != 0 ? bytes & 31 : 0,
                           .slack = (kind & 64) != 0 ? bytes & 127 : 0,
                           .timestamp_ns =
                               made.id.created_ns + (int64_t)made.pos * (kind & 16 ? -7 : 5)};
    if (left < bytes + 512)
        return;
    uint64_t length = eg_align_up(EG_FRAME_HEADER + bytes, made.id.align);
    if ((kind & 4) != 0)
        fake_pad(&made, length, (uint32_t)(bytes % (length / EG_FRAME_HEADER)) + 1);
    else
        fake_record(&made, &s);
}

/* What lies in a ring goes to the file as the archiver writes it, and what was written is good. */
static void archive_bytes(struct fuzz_in *in, bool crcs_good) {
    size_t n;
    const uint8_t *from = fuzz_bytes(in, CAPACITY - EG_SEGMENT_DATA, &n);
    if (n > 0)
        memcpy(made.ring + EG_SEGMENT_DATA, from, n);
    while (made.pos < CAPACITY && made.frames < FILE_FRAMES_MAX) {
        struct eg_frame *f = eg_frame_at(made.ring, made.pos);
        struct eg_logfile_frame out, is;
        struct eg_frame_view v;
        uint64_t word = eg_load_relaxed(&f->word);
        if (!eg_word_is_sane(word, made.pos, CAPACITY, made.id.align) ||
            eg_word_state(word) != EG_PUBLISHED)
            return;
        if (crcs_good && eg_word_kind(word) == EG_KIND_DATA && eg_frame_view(f, word, &v)) {
            f->index = (uint32_t)made.index;
            f->crc = eg_frame_crc(made.l.seed, made.pos, word, f->index, f, v.payload);
        }
        if (eg_logfile_frame_write(&made.l, made.bytes + made.pos, f, word, made.pos, made.index,
                                   made.flush, &out) != EAGRE_OK)
            return;
        FUZZ_REQUIRE(eg_logfile_frame_check(&made.l, made.pos, made.index, &is) == NULL);
        FUZZ_REQUIRE(is.kind == out.kind && is.length == out.length && is.count == out.count &&
                     is.index == out.index && is.flush == out.flush);
        made.frame[made.frames++] = out;
        if (out.kind == EG_KIND_EOS)
            return;
        made.pos += out.length;
        made.index += out.count;
    }
}

static void damage(struct fuzz_in *in, uint8_t *data, size_t size, bool large) {
    for (uint32_t n = fuzz_u8(in) % (DAMAGES_MAX + 1); n > 0; n--) {
        uint64_t at = large ? fuzz_u32(in) : fuzz_u16(in);
        uint32_t bytes = large ? fuzz_u16(in) : 1;
        uint8_t mask = fuzz_u8(in);
        for (uint64_t i = size == 0 ? 0 : at % size; bytes > 0 && i < size; bytes--, i++)
            data[i] = mask != 0 ? data[i] ^ mask : 0;
    }
}

/* ---- what must hold -------------------------------------------------------------------------------------- */

static bool lies_in(const struct eg_logfile *l, const struct eg_logfile_frame *f, const uint8_t *p,
                    uint64_t n) {
    const uint8_t *from = l->data + f->pos + EG_FRAME_HEADER, *to = l->data + f->pos + f->length;
    return p == NULL || (p >= from && p <= to && n <= (uint64_t)(to - p));
}

static void take_walk(const struct eg_logfile *l) {
    struct eg_logfile_iter it;
    eg_logfile_iter_init(&it, l, EG_SEGMENT_DATA, 0);
    walk.count = 0;
    for (;;) {
        uint64_t pos = it.pos, index = it.index;
        walk.stop = eg_logfile_next(&it);
        if (walk.stop != EG_STEP_RECORD && walk.stop != EG_STEP_PAD)
            break;
        const struct eg_frame_view *v = &it.frame.view;
        FUZZ_REQUIRE(it.pos > pos && it.pos <= l->bytes &&
                     it.index > index - (it.frame.count == 0));
        FUZZ_REQUIRE(it.frame.pos == pos && it.frame.index == (uint32_t)index);
        if (walk.stop == EG_STEP_RECORD)
            FUZZ_REQUIRE(lies_in(l, &it.frame, v->key, v->key_length) &&
                         lies_in(l, &it.frame, v->value, v->value_length) &&
                         lies_in(l, &it.frame, v->headers, v->headers_length));
        walk.frame[walk.count].pos = pos;
        walk.frame[walk.count].index = index;
        walk.frame[walk.count].flush = it.frame.flush;
        walk.frame[walk.count].timestamp_ns = v->timestamp_ns;
        walk.frame[walk.count++].record = walk.stop == EG_STEP_RECORD;
    }
    walk.pos = it.pos;
    walk.index = it.index;
    FUZZ_REQUIRE(eg_logfile_next(&it) == walk.stop && it.pos == walk.pos); /* the same again */
    FUZZ_REQUIRE(walk.stop != EG_STEP_BAD || it.reason != NULL);
}

static void check_find(const struct eg_logfile *l, uint64_t pos, uint64_t index) {
    struct eg_logfile_frame f, is;
    if (!eg_logfile_find(l, pos, index, &f))
        return;
    FUZZ_REQUIRE(f.pos > pos && f.index >= index && f.pos < l->bytes);
    FUZZ_REQUIRE(eg_logfile_frame_check(l, f.pos, f.index, &is) == NULL && is.length == f.length);
}

static void check_scan(const struct eg_logfile *l, uint64_t mark, uint32_t which) {
    struct eg_logfile_scan s, again;
    uint64_t records = 0;
    for (uint32_t i = 0; i < walk.count; i++)
        records += walk.frame[i].record;
    eg_logfile_scan(l, EG_SEGMENT_DATA, 0, 0, mark, &s);
    FUZZ_REQUIRE(s.good_index == walk.index && s.data_end == walk.pos);
    FUZZ_REQUIRE(s.sealed == (walk.stop == EG_STEP_END));
    FUZZ_REQUIRE(s.good_pos == (s.sealed ? l->capacity : walk.pos));
    FUZZ_REQUIRE(s.records == records && s.pads == walk.count - records);
    FUZZ_REQUIRE((s.verdict == EG_FILE_DAMAGED) == (s.proof != NULL));
    FUZZ_REQUIRE(s.verdict == EG_FILE_CLEAN || s.reason != NULL);
    FUZZ_REQUIRE(!s.sealed || s.verdict == EG_FILE_CLEAN);
    if (!s.sealed && s.good_pos < mark) /* what was durable is never taken for a torn tail */
        FUZZ_REQUIRE(s.verdict == EG_FILE_DAMAGED);
    FUZZ_REQUIRE(s.next_pos == 0 || (s.next_pos > s.good_pos && s.next_index >= s.good_index &&
                                     s.behind_end > s.next_pos && s.behind_index >= s.next_index));
    if (which == 0 || which >= walk.count)
        return;
    eg_logfile_scan(l, walk.frame[which].pos, walk.frame[which].index, walk.frame[which - 1].flush,
                    mark, &again);
    FUZZ_REQUIRE(again.good_pos == s.good_pos && again.good_index == s.good_index);
    FUZZ_REQUIRE(again.verdict == s.verdict && again.next_pos == s.next_pos);
}

/* Places that the index knows, true ones: by the walk. */
static void forge_index(const struct eg_logfile *l, struct eg_logindex_entry *entries, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) { /* logindex.c's entry_crc() */
        uint64_t number = k;
        entries[k].crc = eg_crc32c(eg_crc32c(l->seed, &number, sizeof(number)), &entries[k],
                                   offsetof(struct eg_logindex_entry, crc));
    }
}

static void check_index(const struct eg_logfile_id *id, const uint8_t *data, uint64_t bytes,
                        uint64_t index, int64_t time) {
    struct eg_logindex x;
    uint64_t pos, at;
    int rc = eg_logindex_open(&x, id, data, bytes);
    FUZZ_REQUIRE(rc == EAGRE_OK || (rc == EAGRE_E_CORRUPT && x.count == 0));
    FUZZ_REQUIRE(eg_logindex_usable(&x, walk.pos) <= x.count);
    eg_logindex_by_index(&x, index, &pos, &at);
    FUZZ_REQUIRE(at <= index && pos >= EG_SEGMENT_DATA && pos < CAPACITY && pos % id->align == 0);
    eg_logindex_by_time(&x, time, &pos, &at);
    FUZZ_REQUIRE(pos >= EG_SEGMENT_DATA && pos < CAPACITY && pos % id->align == 0);
}

/* Consumers get what the walk found, from any offset and from any time on, whatever the index is like. */
static void check_cold(const struct eg_logfile_id *id, const struct eg_cold_file *file,
                       uint64_t from, int64_t time, bool index_lies) {
    static struct eg_topic_status topic;
    static struct eg_partition_map m;
    struct eg_cold c = {0};
    int64_t offset = id->base + (int64_t)from, found = -1;
    uint32_t i = 0;
    topic.topic_uid = id->topic_uid;
    m = (struct eg_partition_map){.topic = &topic,
                                  .uid = id->partition_uid,
                                  .number = id->partition,
                                  .align = id->align,
                                  .capacity = id->capacity};
    while (i < walk.count && (!walk.frame[i].record || walk.frame[i].index < from))
        i++;
    int rc = eg_cold_begin(&c, &m, file, offset);
    FUZZ_REQUIRE(rc == EAGRE_OK ||
                 ((rc == EAGRE_E_CORRUPT || rc == EAGRE_E_OFFSET_OUT_OF_RANGE) && from > walk.index));
    for (bool more = rc == EAGRE_OK; more;) {
        eagre_record_t r[3];
        size_t n;
        rc = eg_cold_poll(&c, &m, "t", NULL, &offset, r, 3, &n);
        FUZZ_REQUIRE(rc == EAGRE_OK);
        for (size_t k = 0; k < n; k++) {
            FUZZ_REQUIRE(i < walk.count && r[k].offset == id->base + (int64_t)walk.frame[i].index);
            FUZZ_REQUIRE(r[k].timestamp_ns == walk.frame[i].timestamp_ns);
            do
                i++;
            while (i < walk.count && !walk.frame[i].record);
        }
        more = n > 0;
    }
    FUZZ_REQUIRE(rc != EAGRE_OK || i == walk.count);

    for (i = 0; i < walk.count && (!walk.frame[i].record || walk.frame[i].timestamp_ns < time);)
        i++;
    rc = eg_cold_find_time(&c, &m, file, time, &found);
    if (index_lies) /* of times, which nothing else tells */
        FUZZ_REQUIRE(rc == EAGRE_OK || rc == EAGRE_E_CORRUPT);
    else if (i < walk.count)
        FUZZ_REQUIRE(rc == EAGRE_OK && found == id->base + (int64_t)walk.frame[i].index);
    else
        FUZZ_REQUIRE(walk.stop == EG_STEP_BAD ? rc == EAGRE_E_CORRUPT
                                              : rc == EAGRE_OK && found == file->end);
    (void)eg_cold_first_time(&m, file);
}

/* ---- one input -------------------------------------------------------------------------------------------- */

static void check_file(const struct eg_logfile_id *id, const uint8_t *file, uint64_t bytes,
                       struct fuzz_in *in, uint8_t flags, uint32_t mark, uint16_t where) {
    struct eg_logfile l;
    struct eg_logindex_builder b;
    struct {
        struct eg_logindex_header header;
        struct eg_logindex_entry entry[CAPACITY / EG_LOGINDEX_STEP];
    } x;
    eg_logfile_init(&l, id, file, bytes);
    take_walk(&l);
    check_find(&l, walk.pos, walk.index);
    check_find(&l, (uint64_t)where << 2, where);
    uint64_t near = walk.pos - 64 + mark % 129;
    check_scan(&l, mark >> 31 && near <= CAPACITY ? near : mark % (CAPACITY + 1),
               walk.count > 0 ? where % walk.count : 0);

    memset(&x, 0, sizeof(x));
    eg_logindex_header_make(&x.header, id);
    uint32_t n = eg_logindex_rebuild(&l, walk.pos, &b, x.entry, CAPACITY / EG_LOGINDEX_STEP);
    FUZZ_REQUIRE(n == b.count && n <= CAPACITY / EG_LOGINDEX_STEP);
    uint64_t index_bytes = eg_logindex_at(n);
    if ((flags & 64) != 0)
        damage(in, (uint8_t *)&x, sizeof(x), false);
    bool lies = (flags & (64 | 128)) == (64 | 128);
    if (lies) {
        eg_logindex_header_make(&x.header, id);
        forge_index(&l, x.entry, n);
    }
    uint8_t *index = malloc(index_bytes);
    FUZZ_REQUIRE(index != NULL);
    memcpy(index, &x, index_bytes);
    uint64_t seek = walk.index > 0 ? where % (walk.index + 2) : where % 3;
    int64_t time =
        walk.count > 0 ? walk.frame[where % walk.count].timestamp_ns + where % 3 - 1 : where;
    check_index(id, index, index_bytes, seek, time);
    struct eg_cold_file cold = {.data = file,
                                .bytes = bytes,
                                .index = (flags & (64 | 128)) == 128 ? NULL : index,
                                .index_bytes = index_bytes,
                                .seq = id->seq,
                                .base = id->base,
                                .end = id->base + (int64_t)walk.index};
    check_cold(id, &cold, seek, time, lies);
    free(index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint32_t aligns[] = {8, 16, 32, 64};
    struct fuzz_in in = {data, size}, header_in, index_in;
    struct eg_logfile_id id = file_id, is;
    uint8_t flags = fuzz_u8(&in);
    uint64_t bytes = CAPACITY - (uint64_t)fuzz_u16(&in) * 4 % CAPACITY;
    uint32_t mark = fuzz_u32(&in);
    uint16_t where = fuzz_u16(&in);
    id.align = aligns[flags & 3];
    id.capacity = CAPACITY;
    header_in = in;
    if ((flags & 4) != 0)
        for (uint32_t n = fuzz_u8(&in) % (DAMAGES_MAX + 1); n > 0; n--)
            (void)fuzz_take(&in, 3);
    index_in = in;
    if ((flags & 64) != 0)
        for (uint32_t n = fuzz_u8(&in) % (DAMAGES_MAX + 1); n > 0; n--)
            (void)fuzz_take(&in, 3);
    struct fuzz_in damages = in;
    for (uint32_t n = fuzz_u8(&in) % (DAMAGES_MAX + 1); n > 0; n--)
        (void)fuzz_take(&in, 7);

    fake_file_make(&made, &id);
    if ((flags & 16) != 0)
        archive_bytes(&in, (flags & 8) != 0);
    while ((flags & 16) == 0 && in.left > 0)
        make_frame(&in);
    if ((flags & (16 | 32)) == 32)
        fake_end(&made);

    uint8_t *file = malloc(bytes > 0 ? bytes : 1);
    FUZZ_REQUIRE(file != NULL);
    memcpy(file, made.bytes, bytes);
    fake_file_drop(&made);
    if (bytes > EG_SEGMENT_DATA)
        damage(&damages, file + EG_SEGMENT_DATA, bytes - EG_SEGMENT_DATA, true);
    enum eg_logfile_header_fault fault;
    int rc = eg_logfile_header_check(file, bytes, &id, &is, &fault);
    FUZZ_REQUIRE(rc == (bytes < EG_PAGE ? EAGRE_E_CORRUPT : EAGRE_OK));
    if (rc == EAGRE_OK)
        check_file(&id, file, bytes, &index_in, flags, mark, where);
    if ((flags & 4) != 0) {
        damage(&header_in, file, bytes < EG_PAGE ? bytes : EG_PAGE, false);
        rc = eg_logfile_header_check(file, bytes, NULL, &is, &fault);
        FUZZ_REQUIRE(rc == EAGRE_OK || rc == EAGRE_E_CORRUPT || rc == EAGRE_E_VERSION);
        FUZZ_REQUIRE((rc == EAGRE_OK) == (fault == EG_HEADER_OK));
    }
    free(file);
    return 0;
}
