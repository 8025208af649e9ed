/* A disk that fails: writes and flushes that end with errors (daemon/disk_fault.h). */
#include "system/harness_disk.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct eg_ledger ledger;
static struct eg_test_bus *b;

static int setup(void **state) {
    memset(&ledger, 0, sizeof(ledger));
    int rc = eg_setup_bus_stopped(state);
    b = *state;
    return rc;
}

static int teardown(void **state) {
    eg_disk_close();
    return eg_teardown_bus(state);
}

static void start_with(const char *fault, const char *io) {
    char variable[80];
    snprintf(variable, sizeof(variable), "EAGRE_DISK_FAULT=%s", fault);
    assert_int_equal(eg_bus_try_start(b, (const char *const[]){variable, NULL}, (const char *const[]){io, NULL}), 0);
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
}

static void log_says(const char *text) {
    char *log = eg_bus_log(b);
    if (strstr(log, text) == NULL)
        fail_msg("the log does not say '%s':\n%s", text, log);
    free(log);
}

static int disk_state(void) {
    eagre_topic_info_t *info;
    OK(eagre_topic_describe(e, "t", &info));
    int disk = info->partitions[0].disk;
    eagre_topic_info_free(info);
    return disk;
}

static bool is_well(void *ctx) {
    (void)ctx;
    return disk_state() == 0;
}

static bool may_resume(void *ctx) { /* BUSY: what was under way when it failed has not ended */
    (void)ctx;
    int rc = eagre_topic_resume(e, "t", 0);
    if (rc != EAGRE_OK && rc != EAGRE_E_BUSY)
        fail_msg("%s", eagre_error_detail());
    return rc == EAGRE_OK;
}

/* acks fail, others go on, and after an explicit resume all of it is on disk. */
static void fails_and_resumes(const char *fault, const char *io) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *other;
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = 0};
    int64_t offset = -1, durable;
    int rc = EAGRE_OK;
    start_with(fault, io);
    o.acks = EAGRE_ACKS_DISK;
    while (rc == EAGRE_OK && ledger.count < 100)
        rc = eg_ledger_put(&ledger, true);
    if (rc != EAGRE_E_IO || strstr(eagre_error_detail(), "eagre topic resume") == NULL)
        fail_msg("%s: after %zu records: %s, '%s'", fault, ledger.count, eagre_status_name(rc), eagre_error_detail());
    assert_int_equal(disk_state(), 2);
    log_says("Input/output error");
    /* No retry as if nothing had happened: it stays. */
    for (int i = 0; i < 20; i++)
        assert_int_equal(eg_ledger_put(&ledger, true), EAGRE_E_IO);
    assert_int_equal(eagre_producer_durable_offset(p, 0, &durable), EAGRE_E_IO);
    assert_true(durable < (int64_t)ledger.count);
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_E_IO);
    /* Another topic. */
    OK(eagre_topic_create(e, "u", &(eagre_setting_t){"segment.bytes", "64K"}, 1));
    OK(eagre_producer_open(e, "u", &o, &other));
    for (int i = 0; i < 20; i++)
        OK(eagre_produce(other, &m, NULL, &offset));
    eagre_producer_close(other);
    REFUSED(eagre_topic_resume(e, "u", 0), EAGRE_E_STATE, "no error");

    eg_wait_until(may_resume, NULL, "resume");
    eg_wait_until(is_well, NULL, "the disk's state");
    for (int i = 0; i < 20; i++)
        OK(eg_ledger_put(&ledger, true));
    eg_ledger_flushed(&ledger); /* what came before them is on disk, too */
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, io, NULL);
    eg_ledger_check(&ledger, b);
    OK(eagre_open(b->socket, &e));
}

static void a_flush_that_fails(void **state) {
    (void)state;
    fails_and_resumes("fdatasync:EIO@3", "--disk.io=auto");
}

static void a_flush_that_fails_in_a_thread(void **state) {
    (void)state;
    fails_and_resumes("fdatasync:EIO@3", "--disk.io=threads");
}

static void a_write_that_fails(void **state) {
    (void)state;
    fails_and_resumes("write:EIO@4", "--disk.io=auto");
}

static void the_first_write_fails(void **state) {
    (void)state;
    fails_and_resumes("write:EIO@1", "--disk.io=auto");
}

/* No space for a moment: its producer waits, and nothing else is needed. */
static void comes_back_by_itself(const char *fault, const char *io) {
    start_with(fault, io);
    for (int i = 0; i < 50; i++)
        OK(eg_ledger_put(&ledger, true));
    log_says("no space");
    assert_int_equal(disk_state(), 0);
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, io, NULL);
    eg_ledger_check(&ledger, b);
    OK(eagre_open(b->socket, &e));
}

static void a_full_disk_is_waited_for(void **state) {
    (void)state;
    comes_back_by_itself("write:ENOSPC@2", "--disk.io=auto");
}

static void also_with_threads_and_a_quota(void **state) {
    (void)state;
    comes_back_by_itself("write:EDQUOT@2", "--disk.io=threads");
}

/* It stays full: the producer's timeout says why, with and without acks; nothing acknowledged is lost. */
static void a_disk_that_stays_full(void **state) {
    (void)state;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    int rc = EAGRE_OK;
    start_with("write:ENOSPC@5+", "--disk.io=auto");
    eagre_producer_close(p);
    o.acks = EAGRE_ACKS_DISK;
    o.max_block_ms = 1000;
    OK(eagre_producer_open(e, "t", &o, &p));
    while (rc == EAGRE_OK && ledger.count < 100)
        rc = eg_ledger_put(&ledger, true);
    assert_int_equal(rc, EAGRE_E_TIMED_OUT);
    assert_non_null(strstr(eagre_error_detail(), "is full (disk.min.free.bytes)"));
    assert_int_equal(disk_state(), 1);
    eagre_producer_close(p);
    o.acks = EAGRE_ACKS_MEMORY;
    OK(eagre_producer_open(e, "t", &o, &p));
    for (rc = EAGRE_OK; rc == EAGRE_OK && ledger.count < 5000;)
        rc = eg_ledger_put(&ledger, false);
    assert_int_equal(rc, EAGRE_E_TIMED_OUT); /* no free segment: back-pressure */
    assert_non_null(strstr(eagre_error_detail(), "is full (disk.min.free.bytes)"));
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, NULL);
    eg_ledger_check(&ledger, b);
    OK(eagre_open(b->socket, &e));
}

/* ---- killed on the way from the ring to the disk ----------------------------------------------------------- */

static void *keep_producing(void *arg) {
    (void)arg;
    while (ledger.count < 600 && eg_ledger_put(&ledger, true) == EAGRE_OK) {}
    return NULL;
}

/* The daemon dies there while somebody produces, with its keeper or without. */
static void killed_at(const char *point, unsigned nth, bool cold) {
    char fault[80];
    pthread_t thread;
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s@%u=kill", point, nth);
    assert_int_equal(eg_bus_try_start(b, (const char *const[]){fault, NULL}, NULL), 0);
    pid_t keeper = eg_bus_keeper(b);
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    assert_int_equal(pthread_create(&thread, NULL, keep_producing, NULL), 0);
    int status = eg_bus_wait(b);
    if (status != 128 + SIGKILL)
        fail_msg("%s was not reached: exit status %d", fault, status);
    if (cold) {
        kill(keeper, SIGKILL);
        eg_wait_gone(keeper);
    }
    eg_bus_start(b, NULL);
    pthread_join(thread, NULL);
    if (!cold) { /* nobody noticed */
        assert_int_equal(ledger.count, 600);
        assert_int_equal(ledger.entry[599].offset, 599);
        for (size_t i = 0; i < ledger.count; i++)
            assert_true(ledger.entry[i].acked);
    }
    eg_ledger_check(&ledger, b);
    if (!cold) { /* what it wrote twice, perhaps, is there once */
        eg_disk_close();
        eg_cold_kill(b);
        eg_bus_start(b, NULL);
        eg_ledger_check(&ledger, b);
    }
    eg_client_close();
    eg_bus_remove(b);
    eg_bus_init(b);
    memset(&ledger, 0, sizeof(ledger));
}

static const struct {
    const char *point;
    unsigned nth;
} steps[] = {{"arch.copied", 1}, {"arch.copied", 40}, {"arch.written", 33}, {"arch.synced", 27}, {"arch.mark", 1},
             {"arch.mark", 21}, {"file.created", 1}, {"file.created", 2}, {"file.renamed", 1}, {"file.renamed", 2}};

static void killed_at_each_step_with_the_keeper(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
        killed_at(steps[i].point, steps[i].nth, true);
}

static void killed_at_each_step(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
        killed_at(steps[i].point, steps[i].nth, false);
}

int main(void) {
#define EACH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(a_flush_that_fails),
        EACH(a_flush_that_fails_in_a_thread),
        EACH(a_write_that_fails),
        EACH(the_first_write_fails),
        EACH(a_full_disk_is_waited_for),
        EACH(also_with_threads_and_a_quota),
        EACH(a_disk_that_stays_full),
        EACH(killed_at_each_step_with_the_keeper),
        EACH(killed_at_each_step),
    };
    return cmocka_run_group_tests_name("fault/disk", tests, NULL, NULL);
}
