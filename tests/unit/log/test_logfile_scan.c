/* Where the good part of a log file ends, and whether what lies behind was ever promised to anybody. */
#include "unit/log/fake_file.h"

static struct fake_file file, other;

static int drop(void **state) {
    (void)state;
    fake_file_drop(&file);
    fake_file_drop(&other);
    memset(&file, 0, sizeof(file));
    memset(&other, 0, sizeof(other));
    return 0;
}

/* ---- what crashes leave ------------------------------------------------------------------------------------ */

static void garbage(uint8_t *at, uint64_t n, uint64_t *seed) {
    for (uint64_t i = 0; i < n; i++)
        at[i] = (uint8_t)eg_rand_next(seed);
}

/*
 * Flushes that were synced, and one that was not: each page of it may have reached the disk or not, in any
 * order; what was there before is zeros, or an expired file's. Never is that called damage, and never is a
 * frame of a synced flush lost.
 */
static void a_torn_tail_is_no_damage(void **state) {
    (void)state;
    uint64_t seed = 42;
    uint32_t torn = 0, kept = 0;
    struct eg_logfile_id old = file_id;
    old.seq--;
    fake_file_make(&other, &old);
    fake_fill(&other, 99, 0, true);
    fake_end(&other);
    for (uint32_t round = 0; round < 3000; round++) {
        fake_file_make(&file, &file_id);
        uint64_t synced = EG_SEGMENT_DATA, recycled = round & 1;
        uint32_t good = 0;
        uint64_t flushes = eg_rand_next(&seed) % 5;
        file.flush = round % 7 == 0 ? EG_LOGFILE_FLUSH_MAX - 1 : 1;
        if (round % 7 == 0)
            fake_value(&file, 10,
                       1); /* so that it does not begin with a number that no first flush has */
        for (uint64_t k = 0; k <= flushes; k++) {
            synced = file.pos;
            good = file.frames;
            for (uint64_t n = eg_rand_next(&seed) % 12 + 1; n > 0; n--)
                fake_value(&file, (uint32_t)(eg_rand_next(&seed) % (n % 4 == 0 ? 3000 : 300)), 5);
            if (k < flushes)
                file.flush = eg_logfile_flush_next(file.flush);
        }
        if (flushes == 0 && round % 7 == 0)
            synced = file.frame[0].pos + file.frame[0].length, good = 1;
        uint64_t end = file.pos;
        for (uint64_t page = synced / EG_PAGE; page * EG_PAGE < file.id.capacity; page++) {
            uint64_t from = page * EG_PAGE > synced ? page * EG_PAGE : synced,
                     to = (page + 1) * EG_PAGE;
            if (from >= end + 8 || eg_rand_next(&seed) & 1) /* not written */
                recycled ? (void)memcpy(file.bytes + from, other.bytes + from, to - from)
                         : (void)memset(file.bytes + from, 0, to - from);
        }
        struct eg_logfile_scan s = scan(&file.l, eg_rand_next(&seed) & 1 ? synced : 0);
        if (s.verdict == EG_FILE_DAMAGED)
            fail_msg("round %u: %s: %s", round, s.reason, s.proof);
        assert_int_equal(s.verdict == EG_FILE_TORN,
                         s.next_pos != 0 || strcmp(s.reason, "nothing is written here") != 0);
        assert_true(s.good_pos >= synced && s.good_pos <= end);
        assert_true(s.records >= good);
        assert_false(s.sealed);
        torn += s.next_pos != 0;
        kept += s.good_pos > synced;
        fake_file_drop(&file);
    }
    assert_true(torn > 200 && kept > 200); /* it did happen */
    fake_file_make(&file, &file_id);
}

/* What is bad was synced, and a frame behind it proves it. */
static void damage_is_no_torn_tail(void **state) {
    (void)state;
    uint64_t seed = 43;
    uint32_t found = 0, unclear = 0;
    for (uint32_t round = 0; round < 2000; round++) {
        fake_file_make(&file, &file_id);
        if (round % 3 == 0) {
            file.flush = EG_LOGFILE_FLUSH_MAX - 2;
            fake_value(&file, 10, 1);
        }
        fake_fill(&file, round + 1, 30000, true);
        uint32_t first = (uint32_t)(eg_rand_next(&seed) % (file.frames - 1)) + 1;
        uint32_t last = first + (uint32_t)(eg_rand_next(&seed) % (file.frames - first));
        for (uint32_t i = first; i <= last; i++) { /* all of the bytes, or one of each */
            const struct eg_logfile_frame *x = &file.frame[i];
            if (round & 1)
                garbage(file.bytes + x->pos, x->length, &seed);
            else
                file.bytes[x->pos + 8 + eg_rand_next(&seed) % 24] ^= 1;
        }
        struct eg_logfile_scan s = scan(&file.l, 0);
        assert_int_equal(s.good_pos, file.frame[first].pos);
        uint32_t a = file.frame[first - 1].flush;
        uint32_t end =
            file.frame[file.frames - 1].flush; /* the one that need not have been synced */
        bool proven = last + 1 < file.frames && (a != end) &&
                      !(file.frame[last + 1].flush == end && eg_logfile_flush_next(a) == end);
        assert_int_equal(s.verdict, proven ? EG_FILE_DAMAGED : EG_FILE_TORN);
        if (last + 1 < file.frames) {
            assert_int_equal(s.next_pos, file.frame[last + 1].pos);
            assert_int_equal(s.behind_index, file.index);
        }
        assert_int_equal(scan(&file.l, file.frame[first].pos + 1).verdict, EG_FILE_DAMAGED);
        assert_int_equal(scan(&file.l, file.id.capacity).verdict, EG_FILE_DAMAGED);
        found += proven;
        unclear += !proven;
        fake_file_drop(&file);
    }
    assert_true(found > 500 && unclear > 100);
    fake_file_make(&file, &file_id);
}

/* A page that never reached the disk while later flushes did, and nothing else: one hole. */
static void finds_a_lost_page(void **state) {
    (void)state;
    fake_file_make(&file, &file_id);
    fake_fill(&file, 5, 8000, true);
    for (uint64_t page = 1; (page + 2) * EG_PAGE < file.pos; page++) {
        uint8_t saved[EG_PAGE];
        memcpy(saved, file.bytes + page * EG_PAGE, EG_PAGE);
        memset(file.bytes + page * EG_PAGE, 0, EG_PAGE);
        struct eg_logfile_scan s = scan(&file.l, 0);
        assert_int_equal(s.verdict, EG_FILE_DAMAGED);
        assert_true(s.good_pos < (page + 1) * EG_PAGE && s.next_pos > s.good_pos);
        assert_int_equal(s.behind_holes, 0);
        assert_int_equal(s.behind_index, file.index);
        assert_int_equal(s.behind_end, file.pos);
        memcpy(file.bytes + page * EG_PAGE, saved, EG_PAGE);
    }
}

/* ---- frames from elsewhere --------------------------------------------------------------------------------- */

static void takes_no_frame_from_elsewhere(void **state) {
    (void)state;
    for (int kind = 0; kind < 6; kind++) {
        struct eg_logfile_id id = file_id;
        id.seq -= kind == 0;           /* a recycled file */
        id.partition_uid += kind == 1; /* a file of another partition */
        fake_file_make(&file, &file_id);
        for (int i = 0; i < 20; i++)
            fake_value(&file, 100, 7);
        fake_file_make(&other, &id);
        for (int i = 0; i < 200; i++)
            fake_value(&other, 100, 7);
        uint64_t move = kind == 2 ? 192 : kind == 3 ? EG_PAGE : 0; /* another place */
        memcpy(file.bytes + file.pos, other.bytes + file.pos + move,
               file.id.capacity - file.pos - move);
        if (kind >=
            4) { /* the right place, but a record that cannot be so near: more than fit, or an earlier one */
            struct fake_shape shape = {.klen = 3, .vlen = 10, .timestamp_ns = 77};
            uint64_t at = file.pos, index = file.index, used;
            memset(file.bytes + at, 0xff, file.id.capacity - at);
            file.pos += 640;
            file.index = kind == 4 ? index + 640 / EG_FRAME_HEADER + 1 : index - 1;
            uint64_t word =
                fake_ring_frame(&file, eg_frame_at(file.bytes, file.pos), &shape, &used);
            assert_int_equal(eg_word_kind(word), EG_KIND_DATA);
            file.pos = at;
            file.index = index;
        }
        struct eg_logfile_scan s = scan(&file.l, file.pos);
        assert_int_equal(s.good_pos, file.pos);
        assert_int_equal(s.good_index, 20);
        assert_int_equal(s.verdict, EG_FILE_TORN);
        assert_int_equal(s.next_pos, 0);
        memset(file.bytes + file.pos, 0, eg_logfile_end_bytes(&file.l, file.pos));
        assert_int_equal(scan(&file.l, file.pos).verdict, EG_FILE_CLEAN);
        drop(NULL);
    }
}

/* Records whose values are full of what looks like frames: long ones, each at a place of its own. */
static void gives_up_on_a_flood_of_lookalikes(void **state) {
    (void)state;
    struct eg_logfile_id id = file_id;
    id.capacity = 8u << 20;
    fake_file_make(&file, &id);
    fake_value(&file, 10, 1);
    for (uint64_t pos = file.pos + 64; pos < id.capacity - EG_PAGE; pos += 64) {
        struct eg_frame *f = eg_frame_at(file.bytes, pos);
        uint32_t room = (uint32_t)(id.capacity - pos - EG_FRAME_HEADER);
        f->index = 1;
        f->key_length = EG_NULL_LENGTH;
        f->value_length = room;
        eg_store_relaxed(&f->word,
                         eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, id.capacity - pos, 1, 1));
    }
    struct eg_logfile_scan s = scan(&file.l, 0);
    assert_int_equal(s.verdict, EG_FILE_DAMAGED); /* it cannot say that nothing durable is there */
    assert_non_null(strstr(s.proof, "looks like frames"));
}

static void survives_garbage(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (uint32_t round = 0; round < 300; round++) {
        struct eg_logfile_iter it;
        struct eg_logfile_id id = file_id;
        enum eg_logfile_step step;
        id.align = 8u << round % 4;
        fake_file_make(&file, &id);
        fake_fill(&file, round + 1, 0, true);
        for (uint64_t n = eg_rand_next(&seed) % 40; n > 0; n--) {
            uint64_t at =
                EG_SEGMENT_DATA + eg_rand_next(&seed) % (id.capacity - EG_SEGMENT_DATA - 64);
            if (n & 1)
                garbage(file.bytes + at, eg_rand_next(&seed) % 64, &seed);
            else /* frames out of place */
                memmove(file.bytes + (at & ~63ull),
                        file.bytes + (eg_rand_next(&seed) % id.capacity & ~4095ull), 64);
        }
        eg_logfile_init(&file.l, &id, file.bytes,
                        round % 3 == 0 ? eg_rand_next(&seed) % id.capacity : id.capacity);
        for (uint64_t pos = EG_SEGMENT_DATA; pos < id.capacity; pos += id.align) {
            uint64_t steps = 0;
            eg_logfile_iter_init(&it, &file.l, pos, eg_rand_next(&seed) % 700);
            while ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD)
                assert_true(++steps <= file.frames && it.pos <= file.l.bytes);
        }
        struct eg_logfile_scan s = scan(&file.l, eg_rand_next(&seed) % id.capacity);
        assert_true(s.good_pos <= id.capacity && s.records <= file.records);
        drop(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_torn_tail_is_no_damage, drop),
        cmocka_unit_test_teardown(damage_is_no_torn_tail, drop),
        cmocka_unit_test_teardown(finds_a_lost_page, drop),
        cmocka_unit_test(takes_no_frame_from_elsewhere),
        cmocka_unit_test_teardown(gives_up_on_a_flood_of_lookalikes, drop),
        cmocka_unit_test(survives_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
