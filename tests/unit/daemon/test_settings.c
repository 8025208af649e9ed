/* Topic settings: every one's range and default, relations between them, and what the errors tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "layout/layout.h"
#include "settings.h"
#include "sys/errbuf.h"

static struct eg_settings s;

static int fresh(void **state) {
    (void)state;
    eg_settings_init(&s);
    return 0;
}

static int set(const char *name, const char *value) {
    return eg_settings_set(&s, "t", name, value, true);
}

/* It is refused, and the text has topic, setting, value, and `says`. */
static void refused(const char *name, const char *value, const char *says) {
    struct eg_settings before = s;
    char what[128];
    int rc = set(name, value);
    if (rc == EAGRE_OK)
        rc = eg_settings_finish(&s, "t");
    if (rc != EAGRE_E_INVALID_CONFIG)
        fail_msg("%s=%s gave %d", name, value, rc);
    snprintf(what, sizeof(what), "%s=%s", name, value);
    if (strstr(eg_error_text(), "topic 't'") == NULL || strstr(eg_error_text(), what) == NULL ||
        strstr(eg_error_text(), says) == NULL)
        fail_msg("%s=%s: the text is: %s", name, value, eg_error_text());
    s = before;
}

static void accepted(const char *name, const char *value, const char *reads) {
    char buf[EG_ACCESS_TEXT];
    if (set(name, value) != EAGRE_OK || eg_settings_finish(&s, "t") != EAGRE_OK)
        fail_msg("%s=%s: %s", name, value, eg_error_text());
    for (size_t i = 0; i < EG_SET_COUNT; i++)
        if (strcmp(eg_settings_name(i), name) == 0)
            assert_string_equal(eg_settings_print(&s, i, buf, sizeof(buf)), reads);
}

static void defaults_are_valid_and_as_documented(void **state) {
    (void)state;
    assert_int_equal(eg_settings_finish(&s, "t"), EAGRE_OK);
    assert_int_equal(s.v[EG_SET_PARTITIONS], 1);
    assert_int_equal(s.v[EG_SET_SEGMENT_BYTES], 64 << 20);
    assert_int_equal(s.v[EG_SET_RING_SEGMENTS], 3);
    assert_int_equal(s.v[EG_SET_RECORD_ALIGNMENT], 64);
    assert_int_equal(s.v[EG_SET_STORAGE], EG_STORAGE_DISK);
    assert_int_equal(s.v[EG_SET_RETENTION_MS], INT64_C(7) * 24 * 3600 * 1000);
    assert_int_equal(s.v[EG_SET_SEGMENT_MS], INT64_C(7) * 24 * 3600 * 1000);
    assert_int_equal(s.v[EG_SET_FLUSH_MS], 1000);
    assert_int_equal(s.v[EG_SET_FLUSH_BYTES], 16 << 20);
    assert_int_equal(s.v[EG_SET_RETENTION_BYTES], -1);
    assert_int_equal(s.v[EG_SET_MAX_MESSAGE_BYTES], (8 << 20) - 32);
    assert_int_equal(s.v[EG_SET_PINNED_BYTES_MAX], 128 << 20);
    assert_int_equal(s.v[EG_SET_NUMA], EG_NUMA_AUTO);
    assert_int_equal(s.v[EG_SET_HUGEPAGES], EG_HUGEPAGES_ADVISE);
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        char buf[EG_ACCESS_TEXT];
        assert_false(s.given[i]);
        /* Each reads back what it prints. */
        eg_settings_print(&s, i, buf, sizeof(buf));
        assert_int_equal(set(eg_settings_name(i), buf), EAGRE_OK);
    }
    assert_null(eg_settings_name(EG_SET_COUNT));
}

static void ranges_are_kept(void **state) {
    (void)state;
    accepted("partitions", "1024", "1024");
    refused("partitions", "0", "1 to 1024");
    refused("partitions", "1025", "1 to 1024");
    refused("partitions", "-3", "1 to 1024");
    refused("partitions", "3x", "1 to 1024");
    refused("partitions", "", "1 to 1024");
    refused("partitions", "99999999999999999999", "1 to 1024");
    accepted("segment.bytes", "64K", "65536");
    accepted("segment.bytes", "512MiB", "536870912");
    refused("segment.bytes", "63K", "64KiB to 512MiB");
    refused("segment.bytes", "65537", "a multiple of 64KiB");
    refused("segment.bytes", "513M", "64KiB to 512MiB");
    refused("segment.bytes", "-1", "64KiB to 512MiB");
    refused("segment.bytes", "18446744073709551615", "64KiB to 512MiB");
    accepted("ring.segments", "3", "3");
    refused("ring.segments", "2", "3 to 64");
    refused("ring.segments", "65", "3 to 64");
    accepted("record.alignment", "8", "8");
    assert_int_equal(s.v[EG_SET_RECORD_ALIGNMENT], 8);
    refused("record.alignment", "24", "8, 16, 32, 64");
    refused("record.alignment", "128", "8, 16, 32, 64");
    accepted("retention.ms", "-1", "-1");
    accepted("retention.ms", "60000", "60000");
    refused("retention.ms", "-2", "-1");
    accepted("retention.bytes", "1G", "1073741824");
    accepted("retention.bytes", "-1", "-1");
    refused("retention.bytes", "-5", "-1 or bytes");
    accepted("timestamp.precision", "ns", "ns");
    refused("timestamp.precision", "us", "coarse, ns");
    accepted("writers", "single", "single");
    refused("writers", "two", "multi, single");
    accepted("hugepages", "off", "off");
    refused("hugepages", "on", "off, advise, hugetlb");
    accepted("numa", "interleave", "interleave");
    accepted("numa", "auto", "auto");
    accepted("numa", "node:0", "node:0");
    refused("numa", "node:999", "nodes 0");
    refused("numa", "node:", "interleave");
    refused("numa", "0", "interleave");
    accepted("pinned.bytes.max", "0", "0");
    refused("pinned.bytes.max", "-1", "bytes");
}

static void the_largest_record_depends_on_the_segment(void **state) {
    (void)state;
    accepted("segment.bytes", "64K", "65536");
    assert_int_equal(s.v[EG_SET_MAX_MESSAGE_BYTES], 8192 - 32);
    assert_int_equal(s.v[EG_SET_PINNED_BYTES_MAX], 128 << 10);
    refused("max.message.bytes", "8161", "segment.bytes=64KiB");
    accepted("max.message.bytes", "8160", "8160");
    refused("max.message.bytes", "0", "1 to");
    /* Given values stay; what was not given follows. */
    accepted("segment.bytes", "1M", "1048576");
    assert_int_equal(s.v[EG_SET_MAX_MESSAGE_BYTES], 8160);
    assert_int_equal(s.v[EG_SET_PINNED_BYTES_MAX], 2 << 20);
}

static void hugetlb_needs_whole_huge_pages(void **state) {
    (void)state;
    accepted("segment.bytes", "64K", "65536");
    assert_int_equal(set("hugepages", "hugetlb"), EAGRE_OK);
    assert_int_equal(eg_settings_finish(&s, "t"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "hugepages=hugetlb"));
}

static void unknown_settings_suggest_the_nearest(void **state) {
    (void)state;
    assert_int_equal(set("segmnt.bytes", "1M"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "'segmnt.bytes'"));
    assert_non_null(strstr(eg_error_text(), "did you mean 'segment.bytes'?"));
    assert_int_equal(set("quux", "1"), EAGRE_E_INVALID_CONFIG);
    assert_null(strstr(eg_error_text(), "did you mean"));
}

static void how_long_records_stay_depends_on_where_they_are(void **state) {
    char buf[32];
    (void)state;
    accepted("storage", "disk", "disk");
    assert_string_equal(eg_settings_print(&s, EG_SET_RETENTION_MS, buf, sizeof(buf)), "604800000");
    accepted("storage", "memory", "memory");
    assert_string_equal(eg_settings_print(&s, EG_SET_RETENTION_MS, buf, sizeof(buf)), "-1");
    accepted("retention.ms", "5", "5");
    accepted("storage", "disk", "disk");
    assert_string_equal(eg_settings_print(&s, EG_SET_RETENTION_MS, buf, sizeof(buf)), "5");
    refused("storage", "tape", "memory");
}

/* Nobody but a single writer closes its segments: a time for that would be a promise that is not kept. */
static void a_single_writer_has_no_segment_ms(void **state) {
    (void)state;
    accepted("segment.ms", "60000", "60000");
    refused("writers", "single", "must be -1 with writers=single");
    accepted("segment.ms", "-1", "-1");
    eg_settings_init(&s);
    accepted("writers", "single", "single");
    assert_int_equal(s.v[EG_SET_SEGMENT_MS], -1);
    refused("segment.ms", "0", "must be -1 with writers=single");
    eg_settings_init(&s);
    accepted("writers", "multi", "multi");
    assert_int_equal(s.v[EG_SET_SEGMENT_MS], 604800000);
}

static void alterations_know_what_is_fixed(void **state) {
    struct eg_settings to;
    (void)state;
    assert_int_equal(eg_settings_finish(&s, "t"), EAGRE_OK);
    to = s;
    assert_int_equal(eg_settings_set(&to, "t", "retention.ms", "5", true), EAGRE_OK);
    assert_int_equal(eg_settings_set(&to, "t", "partitions", "4", true), EAGRE_OK);
    assert_int_equal(eg_settings_finish(&to, "t"), EAGRE_OK);
    assert_int_equal(eg_settings_alterable(&s, &to, "t"), EAGRE_OK);
    assert_int_equal(eg_settings_alterable(&to, &s, "t"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "4 to 1024"));
    to = s;
    assert_int_equal(eg_settings_set(&to, "t", "segment.bytes", "1M", true), EAGRE_OK);
    assert_int_equal(eg_settings_finish(&to, "t"), EAGRE_OK);
    assert_int_equal(eg_settings_alterable(&s, &to, "t"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "segment.bytes=1048576: is fixed"));
}

static void settings_survive_being_stored(void **state) {
    struct eg_settings back;
    char text[512];
    (void)state;
    assert_int_equal(eg_settings_finish(&s, "t"), EAGRE_OK);
    assert_int_equal(eg_settings_save(&s, "t", text, sizeof(text)), EAGRE_OK);
    assert_string_equal(text, ""); /* only what was given */
    accepted("segment.bytes", "128K", "131072");
    accepted("access.consume", "user:0, group:0", "user:0,group:0");
    accepted("numa", "interleave", "interleave");
    assert_int_equal(eg_settings_save(&s, "t", text, sizeof(text)), EAGRE_OK);
    eg_settings_init(&back);
    assert_int_equal(eg_settings_load(&back, "t", text), EAGRE_OK);
    assert_memory_equal(back.v, s.v, sizeof(s.v));
    assert_memory_equal(back.given, s.given, sizeof(s.given));
    assert_string_equal(eg_settings_access(&back, EG_SET_ACCESS_CONSUME)->text, "user:0,group:0");
    assert_int_equal(eg_settings_save(&s, "t", text, 20), EAGRE_E_INVALID_CONFIG);
    assert_int_equal(eg_settings_load(&back, "t", "nonsense\n"), EAGRE_E_INVALID_CONFIG);
    assert_int_equal(eg_settings_load(&back, "t", "partitions=x\n"), EAGRE_E_INVALID_CONFIG);
    /* A node that is gone since is no reason to refuse what was stored. */
    assert_int_equal(eg_settings_load(&back, "t", "numa=node:77\n"), EAGRE_OK);
}

static void topic_names_follow_kafka(void **state) {
    char name[252];
    (void)state;
    memset(name, 'a', sizeof(name));
    name[249] = '\0';
    assert_int_equal(eg_topic_name_check(name), EAGRE_OK);
    name[249] = 'a';
    name[250] = '\0';
    assert_int_equal(eg_topic_name_check(name), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("A-z_0.9"), EAGRE_OK);
    assert_int_equal(eg_topic_name_check("..."), EAGRE_OK);
    assert_int_equal(eg_topic_name_check(""), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("."), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check(".."), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("a/b"), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("a b"), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("\xc3\xa4"), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_name_check("a\n"), EAGRE_E_INVALID);
}

static void the_reference_names_every_setting(void **state) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    (void)state;
    assert_non_null(f);
    eg_settings_help(f);
    fclose(f);
    for (size_t i = 0; i < EG_SET_COUNT; i++)
        assert_non_null(strstr(text, eg_settings_name(i)));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_valid_and_as_documented, fresh),
        cmocka_unit_test_setup(ranges_are_kept, fresh),
        cmocka_unit_test_setup(the_largest_record_depends_on_the_segment, fresh),
        cmocka_unit_test_setup(hugetlb_needs_whole_huge_pages, fresh),
        cmocka_unit_test_setup(unknown_settings_suggest_the_nearest, fresh),
        cmocka_unit_test_setup(how_long_records_stay_depends_on_where_they_are, fresh),
        cmocka_unit_test_setup(a_single_writer_has_no_segment_ms, fresh),
        cmocka_unit_test_setup(alterations_know_what_is_fixed, fresh),
        cmocka_unit_test_setup(settings_survive_being_stored, fresh),
        cmocka_unit_test(topic_names_follow_kafka),
        cmocka_unit_test_setup(the_reference_names_every_setting, fresh),
    };
    return cmocka_run_group_tests_name("daemon/settings", tests, NULL, NULL);
}
