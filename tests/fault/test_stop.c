/* A daemon that is killed in the middle of its clean stop: its logs may be closed already, its memory is still
 * there. Its successor begins with empty memory, and every log goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "eagre/admin.h"
#include "eagre/producer.h"
#include "system/harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

static int64_t put(eagre_producer_t *p) {
    eagre_message_t m = {.value = "x", .value_len = 1};
    int64_t offset;
    OK(eagre_produce(p, &m, NULL, &offset));
    return offset;
}

static void killed_at(struct eg_test_bus *b, const char *point, bool exact) {
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}};
    char fault[64];
    eagre_t *e;
    eagre_producer_t *p;
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s=kill", point);
    assert_int_equal(eg_bus_try_start(b, (const char *const[]){fault, NULL}, NULL), 0);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_create(e, "t", settings, 1));
    OK(eagre_producer_open(e, "t", NULL, &p));
    for (int i = 0; i < 3000; i++) /* more than one segment */
        assert_int_equal(put(p), i);
    assert_int_equal(kill(b->pid, SIGTERM), 0);
    assert_int_equal(eg_bus_wait(b), 128 + SIGKILL);
    eg_bus_start(b, NULL);
    int64_t offset = put(p); /* the same handle */
    if (exact)
        assert_int_equal(offset, 3000);
    else
        assert_true(offset >= 3000);
    assert_int_equal(put(p), offset + 1);
    eagre_producer_close(p);
    OK(eagre_close(e));
}

static void before_the_logs_are_closed(void **state) { killed_at(*state, "stop.begun", false); }
static void after_the_logs_are_closed(void **state) { killed_at(*state, "stop.sealed", true); }

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_bus_stopped, eg_teardown_bus)
    const struct CMUnitTest tests[] = {
        T(before_the_logs_are_closed),
        T(after_the_logs_are_closed),
    };
    return cmocka_run_group_tests_name("fault/stop", tests, NULL, NULL);
}
