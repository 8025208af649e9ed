/* A log file gives back what was put into it, and tells of every bit that is not as it was written. */
#include "unit/log/fake_file.h"

static struct fake_file file;

static int drop(void **state) {
    (void)state;
    fake_file_drop(&file);
    memset(&file, 0, sizeof(file));
    return 0;
}

/* Walk; how many frames (records and pads) were good. Each must be that of f. */
static uint32_t walk(const struct fake_file *f, const struct eg_logfile *l,
                     enum eg_logfile_step *end, struct eg_logfile_iter *it) {
    enum eg_logfile_step step;
    uint32_t n = 0;
    eg_logfile_iter_init(it, l, EG_SEGMENT_DATA, 0);
    while ((step = eg_logfile_next(it)) == EG_STEP_RECORD || step == EG_STEP_PAD) {
        const struct eg_logfile_frame *expected = &f->frame[n++];
        assert_true(n <= f->frames);
        assert_int_equal(it->frame.kind, expected->kind);
        assert_int_equal(it->frame.pos, expected->pos);
        if (it->frame.length !=
            expected->length) { /* a longer frame that lost its slack: it is its last */
            assert_int_equal(it->frame.length, eg_align_up(f->used[n - 1], l->align));
            assert_int_equal(eg_logfile_next(it), EG_STEP_BAD);
            *end = EG_STEP_BAD;
            return n;
        }
        assert_int_equal(it->frame.index, expected->index);
        assert_int_equal(it->frame.count, expected->count);
    }
    assert_int_equal(eg_logfile_next(it), step); /* again the same */
    *end = step;
    return n;
}

/* ---- there and back ---------------------------------------------------------------------------------- */

static void gives_back_what_was_written(void **state) {
    (void)state;
    for (uint32_t round = 0; round < 64; round++) {
        struct eg_logfile_id id = file_id;
        struct eg_logfile_iter it;
        enum eg_logfile_step end;
        id.align = 8u << round % 4;
        fake_file_make(&file, &id);
        fake_fill(&file, round + 1, 0, true);
        while (round % 8 < 4 &&
               file.id.capacity - file.pos > 0) { /* all ends: by EOS, short EOS, none */
            uint64_t left = file.id.capacity - file.pos;
            if (left < 96 + round % 64)
                break;
            fake_value(&file, 1, 5);
        }
        if (round % 8 == 0 && file.pos < id.capacity && id.capacity - file.pos >= EG_FRAME_HEADER)
            fake_value(&file, (uint32_t)(id.capacity - file.pos - EG_FRAME_HEADER), 5);
        fake_end(&file);
        uint32_t frames = walk(&file, &file.l, &end, &it);
        assert_int_equal(end, EG_STEP_END);
        assert_int_equal(it.frame.kind, EG_KIND_EOS);
        assert_int_equal(it.index, file.index);
        assert_int_equal(frames + (it.frame.length > 0), file.frames);

        uint32_t n = 0;
        eg_logfile_iter_init(&it, &file.l, EG_SEGMENT_DATA, 0);
        for (enum eg_logfile_step s;
             (s = eg_logfile_next(&it)) == EG_STEP_RECORD || s == EG_STEP_PAD; n++) {
            const struct eg_frame *was = eg_frame_at(file.ring, it.frame.pos);
            assert_int_equal(s == EG_STEP_RECORD, file.frame[n].kind == EG_KIND_DATA);
            assert_int_equal(it.frame.flush, file.frame[n].flush);
            uint64_t needed = eg_align_up(
                file.used[n], id.align); /* nothing of what a dead producer left there */
            for (uint64_t i = needed + 8; i < it.frame.length; i++)
                assert_int_equal(file.bytes[it.frame.pos + i], 0);
            if (s == EG_STEP_RECORD) {
                assert_int_equal(it.frame.view.timestamp_ns, was->timestamp_ns);
                assert_memory_equal(eg_frame_at(file.bytes, it.frame.pos)->payload, was->payload,
                                    file.used[n] - EG_FRAME_HEADER);
                assert_memory_equal(&it.frame.view.key_length, &file.frame[n].view.key_length, 4);
            }
        }
        struct eg_logfile_scan s = scan(&file.l, id.capacity);
        assert_int_equal(s.verdict, EG_FILE_CLEAN);
        assert_true(s.sealed);
        assert_int_equal(s.records, file.records);
        assert_int_equal(s.good_index, file.index);
        assert_int_equal(s.good_pos, id.capacity);
        assert_int_equal(s.flush, file.frame[file.frames - 1].flush);
        drop(NULL);
    }
}

/* From any frame's place on; and from what is none. */
static void begins_anywhere(void **state) {
    (void)state;
    struct eg_logfile_iter it;
    fake_file_make(&file, &file_id);
    fake_fill(&file, 3, 0, false);
    for (uint32_t i = 0; i < file.frames; i++) {
        eg_logfile_iter_init(&it, &file.l, file.frame[i].pos, file.frame[i].index);
        assert_true(eg_logfile_next(&it) <= EG_STEP_PAD);
        assert_int_equal(it.frame.pos, file.frame[i].pos);
        eg_logfile_iter_init(&it, &file.l, file.frame[i].pos, file.frame[i].index + 1);
        assert_int_equal(eg_logfile_next(&it), EG_STEP_BAD);
        if (file.frame[i].length > 64) {
            eg_logfile_iter_init(&it, &file.l, file.frame[i].pos + 64, file.frame[i].index);
            assert_true(eg_logfile_next(&it) >= EG_STEP_NOTHING);
        }
    }
    static const uint64_t no_place[] = {0,     8,          4095,       4097,           4100,
                                        65535, 65536 + 64, UINT64_MAX, UINT64_MAX - 63};
    for (size_t i = 0; i < sizeof(no_place) / sizeof(no_place[0]); i++) {
        eg_logfile_iter_init(&it, &file.l, no_place[i], 0);
        assert_int_equal(eg_logfile_next(&it), EG_STEP_BAD);
        assert_non_null(it.reason);
        struct eg_logfile_scan s, all = scan(&file.l, 0);
        eg_logfile_scan(&file.l, no_place[i], 9, 9, 0, &s);
        assert_memory_equal(&s, &all, sizeof(s));
    }
}

/* ---- from the ring -------------------------------------------------------------------------------------- */

static struct eg_logfile_frame got;

static int take(const struct eg_frame *src, uint64_t word) {
    static _Alignas(64) uint8_t dst[4096 + 64];
    memset(dst, 0xee, sizeof(dst));
    int rc = eg_logfile_frame_write(&file.l, dst, src, word, file.pos, file.index, 1, &got);
    for (size_t i = rc == EAGRE_OK ? eg_logfile_bytes(&got) : sizeof(dst); i < sizeof(dst); i++)
        assert_int_equal(dst[i], 0xee); /* nothing behind the frame */
    return rc;
}

/* Any bit that was hit in the ring, or that its producer set on purpose. */
static void takes_no_damaged_frame(void **state) {
    (void)state;
    static const uint32_t sizes[] = {0, 5, 100, 700};
    fake_file_make(&file, &file_id);
    fake_value(&file, 100, 1); /* index and place are not 0 */
    struct eg_frame *at = eg_frame_at(file.ring, file.pos);
    for (uint32_t i = 0; i < 4; i++) {
        struct fake_shape s = {
            .klen = 3, .vlen = sizes[i], .hlen = i == 2 ? 17 : 0, .timestamp_ns = 77};
        uint64_t used, word = fake_ring_frame(&file, at, &s, &used);
        assert_int_equal(take(at, word), EAGRE_OK);
        for (uint64_t byte = 8; byte < used; byte++)
            for (uint32_t bit = 0; bit < 8; bit++) {
                ((uint8_t *)at)[byte] ^= (uint8_t)(1u << bit);
                assert_int_equal(take(at, word), EAGRE_E_CORRUPT);
                ((uint8_t *)at)[byte] ^= (uint8_t)(1u << bit);
            }
        for (uint32_t bit = 0; bit < 50; bit++) {
            uint64_t hit = word ^ 1ull << bit;
            uint64_t more = eg_word_length(hit) > eg_word_length(word) ? eg_word_length(hit) : 0;
            if (more > 4096)
                continue; /* larger than our dst */
            /* In the ring nobody can tell: a longer claim that was committed shorter; a pad. */
            bool possible = (more != 0 && more % 64 == 0) || (bit == 2 && s.hlen == 0);
            assert_int_equal(take(at, hit), possible ? EAGRE_OK : EAGRE_E_CORRUPT);
        }
    }
    assert_non_null(strstr(eg_error_text(), "offset 1001"));
    for (uint32_t vlen = 10; vlen < 1000;
         vlen += 900) { /* well made, but not the record that comes next */
        struct fake_shape s = {.klen = 3, .vlen = vlen, .timestamp_ns = 77};
        file.index++;
        uint64_t used, word = fake_ring_frame(&file, at, &s, &used);
        file.index--;
        assert_int_equal(take(at, word), EAGRE_E_CORRUPT);
    }
    assert_int_equal(take(at, 0), EAGRE_E_CORRUPT);
    /* pads and ends: their words say all */
    uint64_t left = file.id.capacity - file.pos;
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, 128, 4, 9)), EAGRE_OK);
    assert_int_equal(got.count, 4);
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, 128, 5, 9)),
                     EAGRE_E_CORRUPT);
    assert_int_equal(take(at, eg_word_make(EG_CLAIMED, EG_KIND_PAD, false, 128, 1, 9)),
                     EAGRE_E_CORRUPT);
    assert_int_equal(take(at, eg_word_make(EG_CLAIMED, EG_KIND_DATA, false, 128, 1, 9)),
                     EAGRE_E_CORRUPT);
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, left + 64, 1, 9)),
                     EAGRE_E_CORRUPT);
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, left, 0, 9)),
                     EAGRE_OK);
    assert_int_equal(eg_logfile_bytes(&got), EG_FRAME_HEADER);
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, left - 64, 0, 9)),
                     EAGRE_E_CORRUPT);
    assert_int_equal(take(at, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, left, 1, 9)),
                     EAGRE_E_CORRUPT);
}

/* A producer that goes on writing while its frame is copied: here, all of the frame's header. */
static eg_crc32c_copy_fn *real_copy;
static uint32_t meddled;
static uint32_t copy_and_meddle(uint32_t crc, void *dst, const void *src, size_t n) {
    memset((uint8_t *)(uintptr_t)src - EG_FRAME_HEADER, 0xff, EG_FRAME_HEADER);
    meddled++;
    return real_copy(crc, dst, src, n);
}

static void believes_the_copy_alone(void **state) {
    (void)state;
    fake_file_make(&file, &file_id);
    struct eg_frame *at = eg_frame_at(file.ring, file.pos);
    struct fake_shape s = {.klen = EG_NULL_LENGTH, .vlen = 300, .timestamp_ns = 77};
    uint64_t used, word = fake_ring_frame(&file, at, &s, &used), pos = file.pos;
    real_copy = eg_crc32c_copy_best;
    eg_crc32c_copy_best = copy_and_meddle;
    fake_archive(&file, word, used);
    eg_crc32c_copy_best = real_copy;
    assert_int_equal(meddled, 1);
    assert_null(eg_logfile_frame_check(&file.l, pos, 0, &got));
    assert_int_equal(got.view.timestamp_ns, 77);
    assert_int_equal(got.view.value_length, 300);
}

/* ---- header -------------------------------------------------------------------------------------------- */

static enum eg_logfile_header_fault header_fault(const void *page,
                                                 const struct eg_logfile_id *expected) {
    struct eg_logfile_id out;
    enum eg_logfile_header_fault fault;
    int rc = eg_logfile_header_check(page, EG_PAGE, expected, &out, &fault);
    assert_int_equal(rc == EAGRE_OK, fault == EG_HEADER_OK);
    return fault;
}

static void header_tells_what_is_wrong(void **state) {
    (void)state;
    static _Alignas(8) uint8_t page[EG_PAGE];
    struct eg_logfile_id id = file_id, out;
    enum eg_logfile_header_fault fault;
    eg_logfile_header_make(page, &id);
    assert_int_equal(eg_logfile_header_check(page, EG_PAGE, &id, &out, NULL), EAGRE_OK);
    assert_memory_equal(&out, &id, sizeof(id));
    for (uint32_t i = 0; i < EG_PAGE * 8; i++) {
        page[i / 8] ^= (uint8_t)(1 << i % 8);
        uint32_t at = i / 8;
        enum eg_logfile_header_fault expected = at < 8    ? EG_HEADER_MAGIC
                                                : at < 60 ? EG_HEADER_CRC
                                                : at < 64 ? EG_HEADER_OK /* nothing is there */
                                                : at < 76 ? EG_HEADER_BASE
                                                          : EG_HEADER_OK;
        assert_int_equal(header_fault(page, NULL), expected);
        page[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (uint64_t bytes = 0; bytes < EG_PAGE; bytes += 61) {
        assert_int_equal(eg_logfile_header_check(page, bytes, &id, &out, &fault), EAGRE_E_CORRUPT);
        assert_int_equal(fault, EG_HEADER_SHORT);
    }
#define OTHER(field, expected)                                                                     \
    id = file_id;                                                                                  \
    id.field = id.field * 2;                                                                       \
    eg_logfile_header_make(page, &id);                                                             \
    assert_int_equal(header_fault(page, &file_id), (expected));                                    \
    assert_int_equal(header_fault(page, NULL), EG_HEADER_OK)
    OTHER(topic_uid, EG_HEADER_TOPIC);
    OTHER(partition_uid, EG_HEADER_PARTITION);
    OTHER(partition, EG_HEADER_PARTITION);
    OTHER(seq, EG_HEADER_SEQ);
    OTHER(capacity, EG_HEADER_CAPACITY);
    id = file_id;
    id.align = 8;
    eg_logfile_header_make(page, &id);
    assert_int_equal(header_fault(page, &file_id), EG_HEADER_ALIGN);
    assert_non_null(strstr(eg_error_text(), "alignment 8, expected 64"));
    for (int i = 0; i < 5; i++) { /* well signed, but no file has it */
        id = file_id;
        id.align = i == 0 ? 24 : i == 1 ? 128 : 64;
        id.capacity = i == 2 ? 65528 : i == 3 ? 1ull << 40 : id.capacity;
        id.base = i == 4 ? -1 : 0;
        eg_logfile_header_make(page, &id);
        assert_int_equal(header_fault(page, NULL), i == 4 ? EG_HEADER_BASE : EG_HEADER_VALUES);
    }
    struct eg_segment_header *h = (void *)page;
    eg_logfile_header_make(page, &file_id);
    h->magic.version++; /* a later build's, not a flipped bit */
    h->crc = eg_crc32c(0, page + 8, 48);
    assert_int_equal(header_fault(page, NULL), EG_HEADER_VERSION);
    static _Alignas(8) uint8_t other_page[EG_PAGE];
    id = file_id;
    id.seq++;
    id.base++;
    eg_logfile_header_make(other_page, &id);
    eg_logfile_header_make(page, &file_id);
    memcpy(page + 64, other_page + 64, 12); /* another file's base, with its CRC */
    assert_int_equal(header_fault(page, NULL), EG_HEADER_BASE);
    memset(page, 0, sizeof(page));
    assert_int_equal(header_fault(page, NULL), EG_HEADER_MAGIC);
    assert_non_null(strstr(eg_error_text(), "nothing was written"));
}

/* ---- every byte ------------------------------------------------------------------------------------------- */

static void make_small(uint32_t align) {
    struct eg_logfile_id id = file_id;
    id.align = align;
    fake_file_make(&file, &id);
    struct fake_shape shapes[] = {
        {.klen = 3, .vlen = 9, .timestamp_ns = 5},
        {.klen = EG_NULL_LENGTH, .vlen = 250, .hlen = 21, .timestamp_ns = 6},
        {.klen = 0, .vlen = EG_NULL_LENGTH, .timestamp_ns = 4},
        {.klen = 8, .vlen = 30, .slack = 200, .timestamp_ns = 9}};
    for (uint32_t i = 0; i < 4; i++)
        fake_record(&file, &shapes[i]);
    fake_pad(&file, 64, 1);
    fake_value(&file, 77, 11);
    fake_pad(&file, 192, 3);
    fake_value(&file, 40, 12);
    fake_end(&file);
}

/* May the bit be anything? Where not, a walk must stop at this very frame. */
static bool is_free_bit(const struct fake_file *f, uint32_t frame, uint64_t byte, uint32_t bit) {
    const struct eg_logfile_frame *x = &f->frame[frame];
    uint64_t at = byte - x->pos, needed = eg_align_up(f->used[frame], f->id.align);
    if (at < 8)
        return at * 8 + bit >= 50; /* the flush */
    if (x->kind == EG_KIND_EOS)
        return at >= EG_FRAME_HEADER;
    return at >= f->used[frame] && !(x->length > needed && at >= needed && at < needed + 8);
}

static void finds_every_flipped_bit(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 8) {
        uint32_t shrunk = 0;
        make_small(align);
        for (uint32_t i = 0; i < file.frames; i++) {
            const struct eg_logfile_frame *x = &file.frame[i];
            for (uint64_t byte = x->pos; byte < x->pos + (i + 1 < file.frames ? x->length : 128);
                 byte++) {
                for (uint32_t bit = 0; bit <= 8; bit++) {
                    struct eg_logfile_iter it;
                    enum eg_logfile_step end;
                    uint8_t mask = bit < 8 ? (uint8_t)(1u << bit) : 0xff;
                    bool is_free = is_free_bit(&file, i, byte, bit < 8 ? bit : 0);
                    file.bytes[byte] ^= mask;
                    uint32_t good = walk(&file, &file.l, &end, &it);
                    struct eg_logfile_scan s = scan(&file.l, 0), marked = scan(&file.l, x->pos + 1);
                    file.bytes[byte] ^= mask;
                    if (is_free) {
                        assert_int_equal(end, EG_STEP_END);
                        assert_int_equal(s.verdict, EG_FILE_CLEAN);
                        continue;
                    }
                    assert_int_equal(end, EG_STEP_BAD);
                    if (good ==
                        i + 1) { /* the length, made what the contents need: what follows is no frame */
                        assert_true(byte - x->pos < 8 &&
                                    x->length > eg_align_up(file.used[i], align));
                        assert_int_equal(it.pos, x->pos + eg_align_up(file.used[i], align));
                        assert_int_equal(s.verdict, EG_FILE_TORN);
                        shrunk++;
                        continue;
                    }
                    assert_int_equal(good, i);
                    assert_int_equal(it.pos, x->pos);
                    assert_int_equal(it.index, x->index);
                    assert_non_null(it.reason);
                    assert_int_equal(s.verdict, EG_FILE_TORN);
                    assert_int_equal(s.good_pos, x->pos);
                    assert_int_equal(s.next_pos, i + 1 < file.frames ? file.frame[i + 1].pos : 0);
                    assert_int_equal(s.behind_index, i + 1 < file.frames ? file.index : 0);
                    assert_int_equal(marked.verdict, EG_FILE_DAMAGED);
                }
            }
        }
        assert_true(shrunk <= 3);
        drop(NULL);
    }
}

static void ends_where_the_file_does(void **state) {
    (void)state;
    make_small(8);
    uint64_t end_pos = file.frame[file.frames - 1].pos + EG_FRAME_HEADER;
    for (uint64_t bytes = 0; bytes <= end_pos; bytes++) {
        struct eg_logfile_iter it;
        enum eg_logfile_step end;
        struct eg_logfile l;
        uint32_t whole = 0;
        /* In memory of just that size: reading beyond is a crash under ASan. */
        uint8_t *copy = malloc(bytes + (bytes == 0));
        memcpy(copy, file.bytes, bytes);
        eg_logfile_init(&l, &file.id, copy, bytes);
        while (whole + 1 < file.frames && file.frame[whole].pos + file.frame[whole].length <= bytes)
            whole++;
        bool at_edge = bytes == file.frame[whole].pos;
        assert_int_equal(walk(&file, &l, &end, &it), whole);
        assert_int_equal(end, bytes == end_pos ? EG_STEP_END
                              : at_edge        ? EG_STEP_NOTHING
                                               : EG_STEP_BAD);
        struct eg_logfile_scan s = scan(&l, bytes == end_pos          ? 0
                                            : bytes < EG_SEGMENT_DATA ? 0
                                                                      : file.frame[whole].pos);
        assert_int_equal(s.verdict, bytes == end_pos || at_edge ? EG_FILE_CLEAN : EG_FILE_TORN);
        if (bytes < end_pos)
            assert_int_equal(scan(&l, bytes < EG_SEGMENT_DATA ? EG_PAGE + 1 : bytes + 1).verdict,
                             EG_FILE_DAMAGED);
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_written),
        cmocka_unit_test_teardown(begins_anywhere, drop),
        cmocka_unit_test_teardown(takes_no_damaged_frame, drop),
        cmocka_unit_test_teardown(believes_the_copy_alone, drop),
        cmocka_unit_test(header_tells_what_is_wrong),
        cmocka_unit_test(finds_every_flipped_bit),
        cmocka_unit_test_teardown(ends_where_the_file_does, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
