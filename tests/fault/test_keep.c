/* The daemon is killed at each of its steps with the keeper: its successor goes on all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/errbuf.h"
#include "system/harness.h"
#include "system/harness_raw.h"

static struct eg_raw raw;

static uint64_t instance_of(struct eg_test_bus *b, uint32_t *epoch) {
    eg_raw_connect(&raw, b->socket);
    uint64_t id = eg_raw_hello(&raw, epoch);
    eg_raw_close(&raw);
    return id;
}

/* True if the start was cut off at the nth time that it passed this point. */
static bool cut_off(struct eg_test_bus *b, const char *point, int n) {
    char fault[64];
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s@%d=kill", point, n);
    int status = eg_bus_try_start(b, (const char *const[]){fault, NULL}, NULL);
    assert_true(status == 0 || status == 128 + SIGKILL);
    return b->pid == 0;
}

static void first_starts(const char *point) {
    for (int n = 1;; n++) {
        struct eg_test_bus b;
        uint32_t epoch;
        eg_bus_init(&b);
        bool cut = cut_off(&b, point, n);
        if (!cut) {
            assert_true(n > 2); /* it must have put bells and bus */
            eg_bus_remove(&b);
            return;
        }
        eg_bus_start(&b, NULL);
        uint64_t id = instance_of(&b, &epoch);
        eg_bus_kill(&b);
        eg_bus_start(&b, NULL);
        assert_true(instance_of(&b, NULL) == id);
        assert_int_equal(eg_bus_stop(&b), 0);
        eg_bus_remove(&b);
    }
}

static void killed_before_the_answer(void **state) {
    (void)state;
    first_starts("keep.sent");
}

static void killed_after_the_answer(void **state) {
    (void)state;
    first_starts("keep.taken");
}

/* A restart that is cut off anywhere costs nothing of what is kept. */
static void killed_at_restart(void **state) {
    struct eg_test_bus *b = *state;
    static const char *const points[] = {"keep.sent", "keep.taken"};
    uint64_t id = instance_of(b, NULL);
    eg_bus_kill(b);
    for (size_t i = 0; i < 2; i++) {
        for (int n = 1; cut_off(b, points[i], n); n++) {}
        assert_true(instance_of(b, NULL) == id);
        eg_bus_kill(b);
    }
    eg_bus_start(b, NULL);
    assert_true(instance_of(b, NULL) == id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_before_the_answer),
        cmocka_unit_test(killed_after_the_answer),
        cmocka_unit_test_setup_teardown(killed_at_restart, eg_setup_bus, eg_teardown_bus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
