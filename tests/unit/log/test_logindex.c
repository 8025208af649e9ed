/* The sparse index leads to where walking from finds what is looked for; a bad one only further from it. */
#include "unit/log/fake_file.h"

static struct fake_file file;
static struct eg_logindex_builder builder;

#define ENTRIES_MAX 64u
static struct {
    struct eg_logindex_header header;
    struct eg_logindex_entry entry[ENTRIES_MAX];
} index_file;

static uint64_t index_bytes(void) { return eg_logindex_at(builder.count); }

/* A file of 2 MiB, its index appended frame by frame. */
static void make(uint32_t vlen) {
    struct eg_logfile_id id = file_id;
    uint64_t seed = 7;
    id.capacity = 2u << 20;
    fake_file_make(&file, &id);
    memset(&index_file, 0, sizeof(index_file));
    eg_logindex_header_make(&index_file.header, &id);
    eg_logindex_begin(&builder, &file.l);
    while (id.capacity - file.pos > vlen + 4096) {
        uint64_t r = eg_rand_next(&seed);
        if (r % 50 == 0)
            fake_pad(&file, 256, 8);
        else /* times mostly rise */
            fake_value(&file, (uint32_t)(r >> 8) % vlen + 1,
                       (int64_t)(file.pos * 8 + (r >> 40) % 100000));
        if (eg_logindex_add(&builder, &file.frame[file.frames - 1],
                            &index_file.entry[builder.count]))
            assert_true(builder.count < ENTRIES_MAX);
    }
    fake_end(&file);
}

static int drop(void **state) {
    (void)state;
    fake_file_drop(&file);
    return 0;
}

static struct eg_logindex open_it(uint64_t bytes, int expected) {
    struct eg_logindex x;
    assert_int_equal(eg_logindex_open(&x, &file.id, &index_file, bytes), expected);
    return x;
}

/* Walking from the place must be possible and come by what is looked for. Returns how far behind it is. */
static uint64_t check_place(uint64_t pos, uint64_t at_index, bool by_time, uint64_t index,
                            int64_t time) {
    for (uint32_t i = 0; i < file.frames; i++) {
        const struct eg_logfile_frame *f = &file.frame[i];
        if (f->pos < pos) { /* what is passed over */
            assert_true(!by_time || f->kind != EG_KIND_DATA || f->view.timestamp_ns < time);
            continue;
        }
        if (f->pos == pos) {
            assert_int_equal(f->index, at_index);
            assert_true(by_time || at_index <= index);
        }
        bool is_it = by_time ? f->kind == EG_KIND_DATA && f->view.timestamp_ns >= time
                             : f->index + f->count > index;
        if (is_it || f->kind == EG_KIND_EOS)
            return f->pos - pos;
    }
    return 0;
}

static uint64_t worst(const struct eg_logindex *x) {
    uint64_t far = 0, pos, at;
    for (uint64_t i = 0; i < file.index + 10; i += 29) {
        eg_logindex_by_index(x, i, &pos, &at);
        uint64_t d = check_place(pos, at, false, i, 0);
        far = d > far ? d : far;
    }
    for (int64_t t = -5; t < (int64_t)file.id.capacity * 8 + 300000; t += 52711) {
        eg_logindex_by_time(x, t, &pos, &at);
        check_place(pos, at, true, 0, t);
    }
    return far;
}

static void leads_near(void **state) {
    (void)state;
    static const uint32_t sizes[] = {900, 9000,
                                     200000}; /* smaller and larger than what an entry covers */
    for (int i = 0; i < 3; i++) {
        make(sizes[i]);
        struct eg_logindex x = open_it(index_bytes(), EAGRE_OK);
        assert_int_equal(x.count, builder.count);
        assert_true(x.count > 8);
        assert_true(worst(&x) <= EG_LOGINDEX_STEP + eg_frame_length(sizes[i], 64));
        for (uint32_t k = 0; k < builder.count; k++) { /* just there: not before, not behind */
            const struct eg_logindex_entry *e = &index_file.entry[k];
            uint64_t pos, at;
            eg_logindex_by_index(&x, e->index, &pos, &at);
            assert_true(pos == (uint64_t)e->pos8 * 8 && at == e->index);
            eg_logindex_by_time(&x, e->max_timestamp_ns, &pos, &at);
            check_place(pos, at, true, 0, e->max_timestamp_ns);
            eg_logindex_by_time(&x, e->max_timestamp_ns + 1, &pos, &at);
            assert_true(pos >= (uint64_t)e->pos8 * 8);
        }
        drop(NULL);
    }
}

static void rebuilt_it_is_the_same(void **state) {
    (void)state;
    struct eg_logindex_builder b;
    struct eg_logindex_entry e[ENTRIES_MAX];
    make(900);
    assert_int_equal(eg_logindex_rebuild(&file.l, file.id.capacity, &b, e, ENTRIES_MAX),
                     builder.count);
    assert_memory_equal(e, index_file.entry, builder.count * sizeof(e[0]));
    assert_int_equal(b.max_timestamp_ns, builder.max_timestamp_ns);
    /* of a part, gone on with later */
    uint32_t half = file.frames / 2;
    eg_logindex_rebuild(&file.l, file.frame[half].pos, &b, e, ENTRIES_MAX);
    for (; half < file.frames; half++)
        eg_logindex_add(&b, &file.frame[half], &e[b.count]);
    assert_int_equal(b.count, builder.count);
    assert_memory_equal(e, index_file.entry, builder.count * sizeof(e[0]));
    /* up to damage; not more than there is room for */
    file.bytes[file.frame[file.frames / 2].pos + 20] ^= 1;
    uint64_t good = eg_logindex_rebuild(&file.l, file.id.capacity, &b, e, ENTRIES_MAX);
    assert_true(good >= builder.count / 3 && good < builder.count);
    assert_int_equal(eg_logindex_rebuild(&file.l, file.id.capacity, &b, e, 3), 3);
}

static void a_bad_one_costs_only_walking(void **state) {
    (void)state;
    make(900);
    uint8_t *bytes = (uint8_t *)&index_file;
    uint64_t seed = 9, pos, at;
    for (uint64_t i = 0; i < index_bytes(); i++) {
        uint8_t was = bytes[i];
        bytes[i] ^= (uint8_t)(1 + eg_rand_next(&seed) % 255);
        struct eg_logindex x =
            open_it(index_bytes(), i < sizeof(index_file.header) ? EAGRE_E_CORRUPT : EAGRE_OK);
        uint64_t entry = (i - sizeof(index_file.header)) / sizeof(index_file.entry[0]);
        assert_int_equal(eg_logindex_usable(&x, file.id.capacity),
                         i < sizeof(index_file.header) ? 0 : entry);
        if (i % 5 == 0)
            worst(&x);
        bytes[i] = was;
    }
    for (uint64_t n = 0; n <= index_bytes(); n++) { /* cut at any byte */
        struct eg_logindex x =
            open_it(n, n < sizeof(index_file.header) ? EAGRE_E_CORRUPT : EAGRE_OK);
        assert_int_equal(x.count, n < eg_logindex_at(0)
                                      ? 0
                                      : (n - eg_logindex_at(0)) / sizeof(index_file.entry[0]));
        if (n % 11 == 0)
            worst(&x);
    }
    /* entries of another place in the index, good as they are */
    index_file.entry[5] = index_file.entry[9];
    struct eg_logindex x = open_it(index_bytes(), EAGRE_OK);
    assert_int_equal(eg_logindex_usable(&x, file.id.capacity), 5);
    worst(&x);
    for (int round = 0; round < 200; round++) { /* garbage throughout */
        for (uint64_t i = sizeof(index_file.header); i < sizeof(index_file); i++)
            bytes[i] = (uint8_t)eg_rand_next(&seed);
        x = open_it(sizeof(index_file), EAGRE_OK);
        eg_logindex_by_index(&x, 1000, &pos, &at);
        assert_true(pos == EG_SEGMENT_DATA && at == 0);
    }
}

static void knows_whose_it_is(void **state) {
    (void)state;
    make(900);
    for (int i = 0; i < 5; i++) {
        struct eg_logindex x;
        struct eg_logfile_id id = file.id;
        id.seq += i == 0;
        id.partition_uid += i == 1;
        id.partition += i == 2;
        id.topic_uid += i == 3;
        id.base += i == 4;
        assert_int_equal(eg_logindex_open(&x, &id, &index_file, index_bytes()), EAGRE_E_CORRUPT);
        assert_int_equal(x.count, 0);
    }
}

/* The log's tail is cut: so much of the index may stay. */
static void says_where_to_cut_it(void **state) {
    (void)state;
    make(900);
    struct eg_logindex x = open_it(index_bytes(), EAGRE_OK);
    for (uint64_t k = 0; k < x.count; k++) {
        uint64_t pos = (uint64_t)index_file.entry[k].pos8 * 8;
        assert_int_equal(eg_logindex_usable(&x, pos), k);
        assert_int_equal(eg_logindex_usable(&x, pos + 1), k + 1);
    }
    assert_int_equal(eg_logindex_usable(&x, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leads_near),
        cmocka_unit_test_teardown(rebuilt_it_is_the_same, drop),
        cmocka_unit_test_teardown(a_bad_one_costs_only_walking, drop),
        cmocka_unit_test_teardown(knows_whose_it_is, drop),
        cmocka_unit_test_teardown(says_where_to_cut_it, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
