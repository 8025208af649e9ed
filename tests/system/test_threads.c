/* What the headers say about threads: each with handles of its own, one owner for all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness_client.h"

/* What a thread returns: a text is a failure. */
#define FAILED(text) ((void *)(uintptr_t)(text))

#define THREADS 4
#define EACH 2000

static void *produce_in_a_thread(void *arg) {
    eagre_producer_t *by;
    uint64_t value[2] = {(uint64_t)(uintptr_t)arg, 0};
    if (eagre_producer_open(e, "many", NULL, &by) != EAGRE_OK)
        return FAILED("producer");
    for (; value[1] < EACH; value[1]++) {
        eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
        if (eagre_produce(by, &m, NULL, NULL) != EAGRE_OK)
            return FAILED("produce");
    }
    eagre_producer_close(by);
    return NULL;
}

static void *consume_in_a_thread(void *arg) {
    uint64_t next[THREADS] = {0};
    eagre_consumer_t *by = arg;
    for (size_t left = (size_t)THREADS * EACH, n; left > 0; left -= n) {
        eagre_record_t r[32];
        if (eagre_consumer_poll(by, r, 32, EG_TEST_LIMIT_MS, &n) != EAGRE_OK || n == 0)
            return FAILED("poll");
        for (size_t i = 0; i < n; i++) {
            uint64_t value[2];
            memcpy(value, r[i].value, sizeof(value));
            if (value[0] >= THREADS || value[1] != next[value[0]]++)
                return FAILED("order");
        }
    }
    eagre_consumer_close(by);
    return NULL;
}

static void threads_with_handles_of_their_own(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "1M"}}; /* nothing is lost */
    pthread_t thread[2 * THREADS];
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    void *failed;
    (void)state;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    OK(eagre_topic_create(e, "many", settings, 2));
    for (uintptr_t i = 0; i < THREADS; i++) {
        eagre_consumer_t *by; /* opened here, used there: one thread at a time */
        OK(eagre_consumer_open(e, &o, &by));
        OK(eagre_consumer_assign(by, "many", 0));
        pthread_create(&thread[THREADS + i], NULL, consume_in_a_thread, by);
    }
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, produce_in_a_thread, (void *)i);
    for (size_t i = 0; i < 2 * (size_t)THREADS; i++) {
        pthread_join(thread[i], &failed);
        if (failed != NULL)
            fail_msg("thread %zu: %s", i, (const char *)failed);
    }
    assert_int_equal(eg_figure("clients"), 1);
}

static eagre_claim_t left_open;
static void *claim_in_a_thread(void *arg) {
    (void)arg;
    if (eagre_producer_claim(p, 0, SIZE_MAX, 5, &left_open) != EAGRE_OK)
        return FAILED("claim");
    memcpy(left_open.value, "claim", 5);
    return NULL;
}

/* Owners are processes: this one lives. */
static void a_thread_that_ends_leaves_its_claim_to_the_others(void **state) {
    pthread_t thread;
    eagre_record_t r;
    size_t n;
    void *failed;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, claim_in_a_thread, NULL), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    OK(eagre_consumer_poll(c, &r, 1, 300, &n)); /* longer than any look at who is dead takes */
    assert_int_equal(n, 0);
    OK(eagre_producer_commit(p, &left_open));
    eg_expect("claim");
    assert_int_equal(eg_figure("clients"), 1);
}

static void *fail_in_a_thread(void *arg) {
    eagre_producer_t *none;
    (void)eagre_producer_open(e, "no-such-topic", NULL, &none);
    *(bool *)arg = strstr(eagre_error_detail(), "no-such-topic") != NULL;
    return NULL;
}

static void error_details_are_per_thread(void **state) {
    pthread_t thread;
    bool theirs = false;
    eagre_producer_t *none;
    (void)state;
    assert_int_equal(eagre_producer_open(e, "another", NULL, &none), EAGRE_E_UNKNOWN_TOPIC);
    pthread_create(&thread, NULL, fail_in_a_thread, &theirs);
    pthread_join(thread, NULL);
    assert_true(theirs);
    assert_non_null(strstr(eagre_error_detail(), "another"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_client, eg_teardown_client)
        T(threads_with_handles_of_their_own),
        T(a_thread_that_ends_leaves_its_claim_to_the_others),
        T(error_details_are_per_thread),
    };
    return cmocka_run_group_tests_name("system/threads", tests, NULL, NULL);
}
