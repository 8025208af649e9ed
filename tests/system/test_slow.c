/*
 * Slow and stuck readers: what they hold in their hands does not change, stops nobody, is bounded and told; and of what
 * the ring dropped, nobody keeps the memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness_client.h"

#define VALUE 4000u /* 15 records a segment */

static int put(uint64_t number) {
    static uint8_t value[VALUE];
    memset(value, (int)(number % 251), sizeof(value));
    memcpy(value, &number, sizeof(number));
    eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
    return eagre_produce(p, &m, NULL, NULL);
}

static bool is_as_written(const eagre_record_t *r) {
    const uint8_t *value = r->value;
    uint64_t number;
    if (r->value_len != VALUE)
        return false;
    memcpy(&number, value, sizeof(number));
    for (size_t i = sizeof(number); i < VALUE; i++)
        if (value[i] != number % 251)
            return false;
    return (int64_t)number == r->offset;
}

static uint64_t pinned(void) {
    eagre_topic_info_t *info;
    OK(eagre_topic_describe(e, "t", &info));
    uint64_t bytes = info->partitions[0].pinned_bytes;
    eagre_topic_info_free(info);
    return bytes;
}

static bool nothing_is_pinned(void *ctx) {
    (void)ctx;
    return pinned() == 0;
}

/* Mappings of buffers in a process. */
static size_t mapped(pid_t pid) {
    char path[32], line[512];
    size_t n = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        n += strstr(line, "memfd:eagre:p") != NULL;
    if (f != NULL)
        fclose(f);
    return n;
}

/* ---- what is held --------------------------------------------------------------------------------------------- */

#define INSTANCES 4
#define EACH 250
static eagre_record_t held[INSTANCES * EACH];

/* A thousand pins on one segment, in this child. */
static void hold_all(int ready, int extra) {
    const char *socket_path = bus->socket;
    (void)extra;
    eg_close_except(ready);
    for (size_t i = 0; i < INSTANCES; i++) {
        eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
        eagre_t *own;
        o.auto_offset_reset = EAGRE_RESET_EARLIEST;
        CHECK(eagre_open(socket_path, &own) == EAGRE_OK);
        for (size_t k = 0; k < EACH; k++) {
            eagre_consumer_t *of;
            size_t n;
            CHECK(eagre_consumer_open(own, &o, &of) == EAGRE_OK);
            CHECK(eagre_consumer_assign(of, "t", 0) == EAGRE_OK);
            CHECK(eagre_consumer_poll(of, &held[i * EACH + k], 1, EG_TEST_LIMIT_MS, &n) == EAGRE_OK && n == 1);
        }
    }
    eg_say(ready);
}

static void a_thousand_pins_stop_nobody(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 10; i++)
        OK(put(i));
    pid_t pid = eg_start(hold_all, 0);
    for (uint64_t i = 10; i < 500; i++) /* the ring turns several times */
        OK(put(i));
    assert_int_equal(pinned(), 65536); /* they all hold the same */
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
    eg_wait_until(nothing_is_pinned, NULL, "what the dead held is free");
    OK(put(500));
}

static void what_is_held_does_not_change(void **state) {
    (void)state;
    eagre_consumer_t *of[6];
    eagre_record_t r[6][10];
    size_t n[6];
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    const eagre_setting_t enough = {"pinned.bytes.max", "1M"};
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    uint64_t i = 0;
    OK(eagre_topic_alter(e, "t", &enough, 1));
    for (int k = 0; k < 6; k++) { /* each in another segment */
        int64_t from = (int64_t)i;
        while (i < (uint64_t)from + 20)
            OK(put(i++));
        OK(eagre_consumer_open(e, &o, &of[k]));
        OK(eagre_consumer_assign(of[k], "t", 0));
        OK(eagre_consumer_seek(of[k], "t", 0, from));
        OK(eagre_consumer_poll(of[k], r[k], 10, EG_TEST_LIMIT_MS, &n[k]));
        assert_true(n[k] > 0);
    }
    for (int turn = 0; turn < 5; turn++) {
        for (int k = 0; k < 100; k++)
            OK(put(i++));
        for (int k = 0; k < 6; k++)
            for (size_t m = 0; m < n[k]; m++)
                assert_true(is_as_written(&r[k][m]));
    }
    assert_true(pinned() >= 65536);
    for (int k = 0; k < 6; k++)
        eagre_consumer_close(of[k]);
    eg_wait_until(nothing_is_pinned, NULL, "what was held is free");
}

/* ---- how much -------------------------------------------------------------------------------------------------- */

static void hold_one(int ready, int extra) {
    const char *socket_path = bus->socket;
    (void)extra;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *of;
    eagre_t *own;
    size_t n;
    o.auto_offset_reset = EAGRE_RESET_LATEST;
    eg_close_except(ready);
    CHECK(eagre_open(socket_path, &own) == EAGRE_OK);
    CHECK(eagre_consumer_open(own, &o, &of) == EAGRE_OK);
    CHECK(eagre_consumer_assign(of, "t", 0) == EAGRE_OK);
    CHECK(eagre_consumer_seek_tail(of, "t", 0, 1) == EAGRE_OK);
    CHECK(eagre_consumer_poll(of, &held[0], 1, EG_TEST_LIMIT_MS, &n) == EAGRE_OK && n == 1);
    eg_say(ready);
}

static void pins_are_bounded_and_their_owners_named(void **state) {
    (void)state;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    const eagre_setting_t limit = {"pinned.bytes.max", "64K"};
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = 0};
    eagre_producer_t *shortly;
    char first[16], second[16];
    uint64_t i = 0;
    int rc;
    o.max_block_ms = 100;
    OK(eagre_topic_alter(e, "t", &limit, 1));
    OK(eagre_producer_open(e, "t", &o, &shortly));
    OK(put(i++));
    pid_t one = eg_start(hold_one, 0);
    while (i < 20)
        OK(put(i++));
    pid_t two = eg_start(hold_one, 0); /* in the next segment: beyond the limit */
    for (rc = EAGRE_OK; rc == EAGRE_OK && i < 10000; i++)
        rc = eagre_produce(shortly, &(eagre_message_t){.value = held, .value_len = VALUE, .partition = 0}, NULL, NULL);
    snprintf(first, sizeof(first), "%d", (int)one);
    snprintf(second, sizeof(second), "%d", (int)two);
    assert_int_equal(rc, EAGRE_E_TIMED_OUT);
    if (strstr(eagre_error_detail(), second) == NULL || strstr(eagre_error_detail(), "pinned.bytes.max") == NULL)
        fail_msg("%s", eagre_error_detail());
    assert_int_equal(pinned(), 65536);
    kill(two, SIGKILL);
    eg_wait_exit(two);
    OK(eagre_produce(p, &m, NULL, NULL)); /* there is room again */
    kill(one, SIGKILL);
    eg_wait_exit(one);
    eg_wait_until(nothing_is_pinned, NULL, "what the dead held is free");
    eagre_producer_close(shortly);
}

/* ---- what is mapped -------------------------------------------------------------------------------------------- */

/* Again and again a slot gets another buffer. Handles keep those of the ring, and the one that they read. */
static void buffers_that_were_dropped_are_unmapped(void **state) {
    (void)state;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *of;
    eagre_record_t r;
    size_t n;
    uint64_t i = 0;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    OK(eagre_consumer_open(e, &o, &of));
    OK(eagre_consumer_assign(of, "t", 0));
    size_t before = mapped(getpid()), most = 0;
    for (int swap = 0; swap < 30; swap++) {
        OK(eagre_consumer_seek_tail(of, "t", 0, 1));
        OK(put(i++));
        OK(eagre_consumer_poll(of, &r, 1, EG_TEST_LIMIT_MS, &n)); /* pins the newest segment */
        assert_int_equal(n, 1);
        for (int k = 0; k < 100; k++) { /* more than a turn of the ring */
            size_t got = 0;
            OK(put(i++));
            if (k % 10 == 0) /* the other one follows */
                OK(eagre_consumer_poll(c, &r, 1, 0, &got));
        }
        size_t now = mapped(getpid());
        most = now > most ? now : most;
    }
    /* Two consumers and a producer: each the ring's, and one that it reads. */
    if (most > before + 3)
        fail_msg("%zu buffers were mapped, in the end %zu", before, most);
    eagre_consumer_close(of);
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_END)); /* lets go */
    eg_wait_until(nothing_is_pinned, NULL, "what was held is free");
}

#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_client, eg_teardown_client)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(a_thousand_pins_stop_nobody),
        T(what_is_held_does_not_change),
        T(pins_are_bounded_and_their_owners_named),
        T(buffers_that_were_dropped_are_unmapped),
    };
    return cmocka_run_group_tests_name("slow", tests, NULL, NULL);
}
