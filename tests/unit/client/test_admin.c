/* Administration: answers in pages, malformed answers, arguments. */
#include "fake_daemon.h"

#include "eagre/admin.h"
#include "eagre/eagre.h"

static struct fake fake;
static eagre_t *e;

static int setup(void **state) {
    (void)state;
    fake_begin(&fake);
    return eagre_open(fake.path, &e);
}

static int teardown(void **state) {
    (void)state;
    eagre_close(e);
    fake_end(&fake);
    return 0;
}

static void test_list(void **state) {
    (void)state;
    eagre_topic_entry_t *list = NULL;
    size_t n = 0;
    assert_int_equal(eagre_topic_list(e, &list, &n), EAGRE_OK);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].name, "a");
    assert_string_equal(list[2].name, "c");
    assert_int_equal(list[2].uid, 'c');
    assert_int_equal(list[1].partitions, 2);
    assert_string_equal(list[1].storage, "memory");
    free(list);
}

static void test_describe(void **state) {
    (void)state;
    eagre_topic_info_t *info = NULL;
    assert_int_equal(eagre_topic_describe(e, "a", &info), EAGRE_OK);
    assert_string_equal(info->name, "a");
    assert_int_equal(info->uid, 7);
    assert_int_equal(info->setting_count, 2);
    assert_string_equal(info->settings[0].name, "partitions");
    assert_int_equal(info->settings[0].is_default, 0);
    assert_string_equal(info->settings[1].value, "memory");
    assert_int_equal(info->settings[1].is_default, 1);
    assert_int_equal(info->partition_count, 2);
    assert_int_equal(info->partitions[1].partition, 1);
    assert_int_equal(info->partitions[1].log_start_offset, 100);
    assert_int_equal(info->partitions[1].end_offset, 101);
    assert_int_equal(info->partitions[1].active_segment, 102);
    assert_int_equal(info->partitions[1].pinned_bytes, 105);
    assert_int_equal(info->partitions[0].stalled_offset, -1);
    assert_int_equal(info->partitions[1].stalled_offset, 17);
    assert_int_equal(info->partitions[1].stalled_pid, 4711);
    assert_int_equal(info->partitions[1].stalled_ms, 1000);
    eagre_topic_info_free(info);
    eagre_topic_info_free(NULL);
}

static void test_status(void **state) {
    (void)state;
    eagre_status_entry_t *status = NULL;
    size_t n = 0;
    assert_int_equal(eagre_daemon_status(e, &status, &n), EAGRE_OK);
    assert_int_equal(n, 3);
    assert_string_equal(status[0].name, "pid");
    assert_string_equal(status[0].value, "4711");
    assert_string_equal(status[2].value, fake.path);
    free(status);
}

static void test_settings_are_sent(void **state) {
    (void)state;
    const eagre_setting_t s[] = {{"ring.segments", "4"}};
    assert_int_equal(eagre_topic_create(e, "a", s, 1), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_TOPIC_CREATE], 1);
    assert_string_equal(fake.first_setting, "ring.segments");
    assert_int_equal(eagre_topic_alter(e, "a", s, 1), EAGRE_OK);
    assert_int_equal(eagre_topic_delete(e, "a"), EAGRE_OK);
    assert_int_equal(eagre_daemon_shutdown(e, 1), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_SHUTDOWN], 1);
}

static void test_refusals_carry_the_daemons_words(void **state) {
    (void)state;
    fake.act[EG_MSG_TOPIC_CREATE] = FAKE_REFUSE;
    assert_int_equal(eagre_topic_create(e, "a", NULL, 0), EAGRE_E_LIMIT);
    assert_string_equal(eagre_error_detail(), "no more");
}

static void test_malformed_answers(void **state) {
    (void)state;
    static const uint16_t types[] = {EG_MSG_TOPIC_LIST, EG_MSG_TOPIC_DESCRIBE, EG_MSG_PARTITIONS,
                                     EG_MSG_STATUS, EG_MSG_TOPIC_CREATE};
    static const enum fake_act acts[] = {FAKE_GARBLE_SHORT, FAKE_GARBLE_LONG, FAKE_GARBLE_STATUS};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 3; k++) {
            eagre_topic_entry_t *list = NULL;
            eagre_topic_info_t *info = NULL;
            eagre_status_entry_t *status = NULL;
            size_t n = 0;
            fake.act[types[i]] = acts[k];
            int rc = types[i] == EG_MSG_TOPIC_LIST     ? eagre_topic_list(e, &list, &n)
                     : types[i] == EG_MSG_STATUS       ? eagre_daemon_status(e, &status, &n)
                     : types[i] == EG_MSG_TOPIC_CREATE ? eagre_topic_create(e, "a", NULL, 0)
                                                       : eagre_topic_describe(e, "a", &info);
            assert_int_equal(rc, EAGRE_E_PROTOCOL);
            assert_true(list == NULL && info == NULL && status == NULL && n == 0);
        }
    }
}

static void test_arguments(void **state) {
    (void)state;
    char name[260];
    const eagre_setting_t s[] = {{"a", NULL}};
    memset(name, 'a', sizeof(name));
    name[250] = '\0';
    assert_int_equal(eagre_topic_create(e, name, NULL, 0), EAGRE_E_INVALID);
    name[249] = '\0';
    assert_int_equal(eagre_topic_create(e, name, NULL, 0), EAGRE_OK);
    assert_int_equal(eagre_topic_create(e, "", NULL, 0), EAGRE_E_INVALID);
    assert_int_equal(eagre_topic_create(e, NULL, NULL, 0), EAGRE_E_INVALID);
    assert_int_equal(eagre_topic_create(NULL, "a", NULL, 0), EAGRE_E_INVALID);
    assert_int_equal(eagre_topic_create(e, "a", NULL, 1), EAGRE_E_INVALID);
    assert_int_equal(eagre_topic_create(e, "a", s, 1), EAGRE_E_INVALID_CONFIG);
    assert_int_equal(eagre_topic_list(e, NULL, NULL), EAGRE_E_INVALID);
    assert_int_equal(eagre_topic_describe(e, "a", NULL), EAGRE_E_INVALID);
    assert_int_equal(eagre_daemon_status(NULL, NULL, NULL), EAGRE_E_INVALID);
    assert_int_equal(eagre_daemon_shutdown(NULL, 0), EAGRE_E_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define EACH(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        EACH(test_list),
        EACH(test_describe),
        EACH(test_status),
        EACH(test_settings_are_sent),
        EACH(test_refusals_carry_the_daemons_words),
        EACH(test_malformed_answers),
        EACH(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
