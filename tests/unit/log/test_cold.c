/* Log files as consumers read them: from any offset, up to damage, and on behind it. */
#include "fake_file.h"

#include <stdio.h>

#include "log/cold.h"

#define RECORDS 30u

static struct eg_topic_status topic;
static struct eg_partition_map m;
static struct fake_file f;
static struct eg_cold c;

static int setup(void **state) {
    (void)state;
    fake_file_make(&f, &file_id);
    for (uint32_t i = 0; i < RECORDS; i++) {
        f.flush = 1 + i / 5;
        fake_value(&f, 1500, 1000 + i);
    }
    fake_end(&f);
    topic.topic_uid = file_id.topic_uid;
    m = (struct eg_partition_map){.topic = &topic,
                                  .uid = file_id.partition_uid,
                                  .number = file_id.partition,
                                  .align = file_id.align,
                                  .capacity = file_id.capacity};
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_file_drop(&f);
    return 0;
}

static struct eg_cold_file cold_file(void) {
    return (struct eg_cold_file){.data = f.bytes,
                                 .bytes = file_id.capacity,
                                 .seq = file_id.seq,
                                 .base = file_id.base,
                                 .end = file_id.base + RECORDS};
}

static int seek(int64_t index) {
    struct eg_cold_file file = cold_file();
    return eg_cold_begin(&c, &m, &file, file_id.base + index);
}

/* From `index` on records come up to `end`; then it ends so. */
static void reads(int64_t index, int64_t end, int status) {
    eagre_record_t r[4];
    int64_t offset = file_id.base + index;
    size_t n;
    int rc;
    assert_int_equal(seek(index), EAGRE_OK);
    while ((rc = eg_cold_poll(&c, &m, "t", NULL, &offset, r, 4, &n)) == EAGRE_OK && n > 0)
        for (size_t i = 0; i < n; i++, index++) {
            assert_int_equal(r[i].offset, file_id.base + index);
            assert_int_equal(r[i].timestamp_ns, 1000 + index);
        }
    assert_int_equal(rc, status);
    assert_int_equal(index, end);
    assert_int_equal(offset, file_id.base + end);
}

static void names(int64_t next) {
    char text[64];
    snprintf(text, sizeof(text), "at offset %lld or behind", (long long)(file_id.base + next));
    if (strstr(eg_error_text(), text) == NULL)
        fail_msg("'%s' does not say '%s'", eg_error_text(), text);
}

static void a_file_is_read_from_anywhere(void **state) {
    (void)state;
    for (int64_t i = 0; i < RECORDS; i++)
        reads(i, RECORDS, EAGRE_OK);
}

/* Whatever is there instead of records first .. last - 1, the offset that the error names can be read from. */
static void goes_on_behind(uint32_t first, uint32_t last) {
    for (int64_t i = 0; i < first; i++) {
        reads(i, first, EAGRE_E_CORRUPT);
        names(last);
    }
    for (int64_t i = first; i < last; i++) {
        if (seek(i) == EAGRE_OK)
            reads(i, i, EAGRE_E_CORRUPT);
        names(last);
    }
    for (int64_t i = last; i < RECORDS; i++)
        reads(i, RECORDS, EAGRE_OK);
}

static void behind_a_flipped_bit(void **state) {
    (void)state;
    f.bytes[f.frame[7].pos + 40] ^= 1;
    goes_on_behind(7, 8);
}

static void behind_a_hole(void **state) {
    (void)state;
    memset(f.bytes + f.frame[7].pos, 0, f.frame[12].pos - f.frame[7].pos);
    goes_on_behind(7, 12);
}

static void behind_a_bad_word_at_the_start(void **state) {
    (void)state;
    f.bytes[f.frame[0].pos] ^= 0xff;
    goes_on_behind(0, 1);
}

static void behind_two_bad_places(void **state) {
    (void)state;
    f.bytes[f.frame[3].pos + 100] ^= 1;
    memset(f.bytes + f.frame[9].pos, 0xa5, f.frame[11].pos - f.frame[9].pos);
    reads(0, 3, EAGRE_E_CORRUPT);
    names(4);
    reads(4, 9, EAGRE_E_CORRUPT);
    names(11);
    reads(11, RECORDS, EAGRE_OK);
}

/* The end is damaged: on in the next file. */
static void behind_a_bad_end(void **state) {
    (void)state;
    f.bytes[f.frame[29].pos + 50] ^= 1;
    memset(f.bytes + f.frame[30].pos, 0, f.id.capacity - f.frame[30].pos);
    reads(0, 29, EAGRE_E_CORRUPT);
    names(RECORDS);
}

int main(void) {
#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(a_file_is_read_from_anywhere), EACH(behind_a_flipped_bit),  EACH(behind_a_hole),
        EACH(behind_a_bad_word_at_the_start), EACH(behind_two_bad_places), EACH(behind_a_bad_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
