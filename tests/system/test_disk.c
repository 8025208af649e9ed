/*
 * What is on disk: acknowledged as such it survives daemon and keeper together, and the rest is lost only from the end;
 * readers go from files to the ring and back; trim, retention, stops and restarts.
 */
#include "harness_disk.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
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

static void start_with(const char *io, eagre_acks_t acks, const char *const *settings) {
    eg_bus_start(b, io, NULL);
    eg_disk_open(b, acks, settings);
}

#define IO "--disk.io=auto"

static void cold_restart(const char *io) {
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, io, NULL);
    ledger.generation++;
}

static void put(size_t n, bool acked) {
    for (size_t i = 0; i < n; i++)
        OK(eg_ledger_put(&ledger, acked));
}

static void open_consumer(eagre_isolation_t isolation) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.isolation = isolation;
    o.auto_offset_reset = EAGRE_RESET_NONE;
    OK(eagre_consumer_open(e, &o, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
}

/* ---- what was acknowledged ----------------------------------------------------------------------------- */

static void put_batch(void) {
    eagre_message_t m[3] = {{.value = NULL}, {.value = NULL}, {.value = NULL}};
    char value[3][600];
    int64_t first = -1;
    for (size_t i = 0; i < 3; i++) {
        m[i].value = value[i];
        m[i].value_len = eg_value_make(ledger.count + i, value[i], sizeof(value[i]));
    }
    OK(eagre_produce_batch(p, 0, m, 3, &first));
    for (int64_t i = 0; i < 3; i++)
        ledger.entry[ledger.count++] =
            (struct eg_ledger_entry){.offset = first + i, .generation = ledger.generation, .acked = true};
}

static void acked_survives(const char *io) {
    start_with(io, EAGRE_ACKS_DISK, NULL);
    for (int crash = 0; crash < 3; crash++) {
        if (crash % 2 == 0) /* the last call before the crash is one that has to wait, of each kind */
            put_batch();
        put(150, true);
        if (crash % 2 != 0)
            put_batch();
        /* And more that nobody promised anything about: up to segments of it. */
        eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
        eagre_producer_close(p);
        OK(eagre_producer_open(e, "t", &o, &p));
        put(crash == 0 ? 1 : crash == 1 ? 50 : 1000, false);
        cold_restart(io);
        eg_ledger_check(&ledger, b);
        eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    }
    for (int again = 0; again < 2; again++) {
        cold_restart(io);
        eg_ledger_check(&ledger, b);
        eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    }
    put(10, true); /* with higher offsets than any before */
    eg_ledger_check(&ledger, b);
}

static void acked_survives_daemon_and_keeper(void **state) {
    (void)state;
    acked_survives("--disk.io=auto");
}

static void also_with_threads(void **state) {
    (void)state;
    acked_survives("--disk.io=threads");
}

static void a_flush_is_as_good(void **state) {
    (void)state;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    put(700, false);
    OK(eagre_producer_flush(p, -1));
    eg_ledger_flushed(&ledger);
    int64_t durable = -1;
    OK(eagre_producer_durable_offset(p, 0, &durable));
    assert_int_equal(durable, ledger.entry[ledger.count - 1].offset + 1);
    put(1, false);
    cold_restart(IO);
    eg_ledger_check(&ledger, b);
}

static void a_clean_stop_loses_nothing(void **state) {
    (void)state;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    for (int round = 0; round < 3; round++) {
        put(1000, false);
        eg_ledger_flushed(&ledger);
        eg_disk_close();
        assert_int_equal(eg_bus_stop(b), 0);
        eg_bus_start(b, IO, NULL);
        ledger.generation++;
        eg_disk_open(b, EAGRE_ACKS_MEMORY, NULL);
        eg_ledger_check(&ledger, b);
    }
    put(1, false);
    assert_int_equal(ledger.entry[ledger.count - 1].offset, 3000); /* without a gap */
    assert_int_equal(eg_beginning(), 0);
}

static void a_warm_restart_loses_nothing(void **state) {
    (void)state;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    for (int round = 0; round < 3; round++) {
        put(800, false);
        eg_bus_kill(b);
        put(20, false); /* into the ring that is left */
        eg_bus_start(b, IO, NULL);
        eg_ledger_flushed(&ledger); /* all of it must be there */
        eg_ledger_check(&ledger, b);
    }
    OK(eagre_producer_flush(p, -1)); /* the archiver goes on where the dead one was */
    cold_restart(IO);
    eg_ledger_check(&ledger, b);
    assert_int_equal(ledger.entry[ledger.count - 1].offset, 2459);
}

/* The marks of all partitions are far ahead as soon as one of them is used. */
static void an_unused_partition_begins_where_it_would_have(void **state) {
    const char *const settings[] = {"partitions=3", NULL};
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = 1};
    int64_t offset = -1;
    int32_t partition;
    (void)state;
    start_with(IO, EAGRE_ACKS_DISK, settings);
    put(3, true);
    for (int i = 0; i < 2; i++) {
        eg_bus_kill(b);
        eg_bus_start(b, IO, NULL);
    }
    OK(eagre_produce(p, &m, &partition, &offset));
    assert_int_equal(offset, 0);
    eg_bus_kill(b);
    eg_bus_start(b, IO, NULL);
    OK(eagre_produce(p, &m, &partition, &offset));
    assert_int_equal(offset, 1);
}

/* ---- readers ------------------------------------------------------------------------------------------- */

static void *produce_many(void *arg) {
    size_t n = *(size_t *)arg;
    for (size_t i = 0; i < n; i++) {
        char value[600];
        eagre_message_t m = {.value = value, .value_len = eg_value_make(ledger.count + i, value, sizeof(value))};
        int64_t offset = -1;
        if (eagre_produce(p, &m, NULL, &offset) != EAGRE_OK)
            return (void *)1;
        ledger.entry[ledger.count + i].offset = offset;
    }
    return NULL;
}

static void a_reader_goes_from_files_to_the_ring(void **state) {
    (void)state;
    static eagre_record_t r[64];
    pthread_t thread;
    size_t more = 20000, all = 5000 + more;
    void *failed;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    put(5000, false); /* 1.3 MiB: the ring has 192 KiB */
    for (size_t i = ledger.count; i < all; i++)
        ledger.entry[i].offset = (int64_t)i; /* as it must be */
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    assert_int_equal(pthread_create(&thread, NULL, produce_many, &more), 0);
    char value[600];
    for (size_t next = 0; next < all;) {
        size_t n = 0;
        OK(eagre_consumer_poll(c, r, 64, EG_TEST_LIMIT_MS, &n));
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++, next++) {
            size_t length = eg_value_make(next, value, sizeof(value));
            assert_int_equal(r[i].offset, next);
            assert_int_equal(r[i].value_len, length);
            assert_memory_equal(r[i].value, value, length);
        }
    }
    pthread_join(thread, &failed);
    assert_null(failed);
    /* Back and forth. */
    for (int64_t at = 24990; at >= 0; at -= 2499) {
        size_t n = 0;
        OK(eagre_consumer_seek(c, "t", 0, at));
        OK(eagre_consumer_poll(c, r, 1, EG_TEST_LIMIT_MS, &n));
        assert_true(n == 1 && r[0].offset == at);
    }
}

static void durable_isolation_shows_what_is_on_disk(void **state) {
    (void)state;
    static eagre_record_t r[64];
    eagre_producer_options_t memory = EAGRE_PRODUCER_OPTIONS_INIT;
    size_t seen = 0, n;
    int64_t durable, end;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    open_consumer(EAGRE_ISOLATION_DURABLE);
    put(10, false);
    for (int i = 0; i < 3; i++) {
        OK(eagre_consumer_poll(c, r, 64, 10, &n));
        assert_int_equal(n, 0); /* nobody asked for a flush, and it is not due for a day */
    }
    OK(eagre_consumer_end_offset(c, "t", 0, &end));
    assert_int_equal(end, 0);
    OK(eagre_producer_flush(p, -1));
    OK(eagre_consumer_poll(c, r, 64, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 10);
    seen = 10;
    while (seen < 4000) {
        put(20, false);
        if (ledger.count % 100 == 0)
            (void)eagre_producer_flush(p, 0); /* only asks */
        OK(eagre_consumer_poll(c, r, 64, 0, &n));
        OK(eagre_producer_durable_offset(p, 0, &durable));
        for (size_t i = 0; i < n; i++, seen++) {
            assert_true(r[i].offset < durable);
            assert_int_equal(r[i].offset, seen);
        }
    }
    assert_int_equal(eagre_topic_create(e, "m", &(eagre_setting_t){"storage", "memory"}, 1), EAGRE_OK);
    REFUSED(eagre_consumer_assign(c, "m", 0), EAGRE_E_UNSUPPORTED, "storage=memory");
    memory.acks = EAGRE_ACKS_DISK;
    eagre_producer_t *none = NULL;
    REFUSED(eagre_producer_open(e, "m", &memory, &none), EAGRE_E_UNSUPPORTED, "storage=memory");
}

/* Every tenth of a second a record; three thousand of them, in files and in the ring. */
static void seek_by_time(void **state) {
    (void)state;
    const int64_t t0 = 1700000000000000000, step = 100000000;
    int64_t at;
    char value[600];
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    for (int64_t i = 0; i < 3000; i++) {
        eagre_message_t m = {.value = value, .value_len = eg_value_make((size_t)i, value, sizeof(value)), .timestamp_ns = t0 + i * step};
        OK(eagre_produce(p, &m, NULL, NULL));
    }
    for (int round = 0; round < 2; round++) {
        open_consumer(EAGRE_ISOLATION_PUBLISHED);
        for (int64_t i = 0; i < 3000; i += 61) {
            OK(eagre_consumer_seek_time(c, "t", 0, t0 + i * step));
            OK(eagre_consumer_position(c, "t", 0, &at));
            assert_int_equal(at, i);
            OK(eagre_consumer_seek_time(c, "t", 0, t0 + i * step - 1));
            OK(eagre_consumer_position(c, "t", 0, &at));
            assert_int_equal(at, i);
            OK(eagre_consumer_seek_time(c, "t", 0, t0 + i * step + 1));
            OK(eagre_consumer_position(c, "t", 0, &at));
            assert_int_equal(at, i + 1);
        }
        OK(eagre_consumer_seek_time(c, "t", 0, 0));
        OK(eagre_consumer_position(c, "t", 0, &at));
        assert_int_equal(at, 0);
        OK(eagre_consumer_seek_time(c, "t", 0, INT64_MAX));
        OK(eagre_consumer_position(c, "t", 0, &at));
        assert_int_equal(at, 3000);
        OK(eagre_producer_flush(p, -1));
        if (round == 0) {
            eg_disk_close();
            assert_int_equal(eg_bus_stop(b), 0);
            eg_bus_start(b, IO, NULL);
            eg_disk_open(b, EAGRE_ACKS_MEMORY, NULL);
        }
    }
}

/* ---- what goes ----------------------------------------------------------------------------------------- */

static int64_t wanted_files;
static bool has_few_files(void *ctx) {
    (void)ctx;
    return (int64_t)eg_count_files(b, NULL) <= wanted_files;
}
static void wait_for_files(size_t n) {
    wanted_files = (int64_t)n;
    eg_wait_until(has_few_files, NULL, "log files gone");
}

static void expect_from(int64_t offset, int64_t end) {
    eagre_record_t r;
    size_t n = 0;
    assert_int_equal(eg_beginning(), offset);
    assert_int_equal(eg_end(), end);
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
    if (offset == end)
        return;
    OK(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_true(n == 1 && r.offset == offset);
    if (offset > 0) {
        OK(eagre_consumer_seek(c, "t", 0, offset - 1));
        REFUSED(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_E_OFFSET_OUT_OF_RANGE, "");
    }
}

static void trimmed_is_gone_for_good(void **state) {
    (void)state;
    int64_t start = -1;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    put(3000, false);
    OK(eagre_producer_flush(p, -1));
    OK(eagre_topic_trim(e, "t", 0, 10, &start)); /* no file goes */
    cold_restart(IO);
    eg_disk_open(b, EAGRE_ACKS_MEMORY, NULL);
    assert_int_equal(eg_beginning(), 10);
    int64_t end = eg_end();
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    size_t files = eg_count_files(b, NULL);
    assert_true(files > 8);
    OK(eagre_topic_trim(e, "t", 0, 1500, &start));
    assert_int_equal(start, 1500);
    wait_for_files(files / 2 + 2);
    expect_from(1500, end);
    OK(eagre_topic_trim(e, "t", 0, 700, &start)); /* it never goes back */
    assert_int_equal(start, 1500);
    put(1, false);
    REFUSED(eagre_topic_trim(e, "t", 0, end + 1, &start), EAGRE_E_OFFSET_OUT_OF_RANGE, "up to where it is on disk");
    REFUSED(eagre_topic_trim(e, "t", 1, 0, &start), EAGRE_E_UNKNOWN_PARTITION, "1");
    REFUSED(eagre_topic_trim(e, "u", 0, 0, &start), EAGRE_E_UNKNOWN_TOPIC, "u");
    OK(eagre_producer_flush(p, -1));
    cold_restart(IO);
    eg_disk_open(b, EAGRE_ACKS_MEMORY, NULL);
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    assert_int_equal(eg_beginning(), 1500);
    OK(eagre_topic_trim(e, "t", 0, -1, &start)); /* all of it */
    assert_int_equal(start, eg_end());
    expect_from(start, start);
    wait_for_files(2);
    cold_restart(IO);
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    assert_true(eg_beginning() >= start);
    put(1, true);
    assert_true(ledger.entry[ledger.count - 1].offset >= start);
}

static void retention_takes_whole_files(void **state) {
    (void)state;
    uint64_t first = 0;
    eagre_record_t r;
    size_t n;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    put(4000, false); /* 1 MiB */
    OK(eagre_producer_flush(p, -1));
    size_t files = eg_count_files(b, NULL);
    assert_true(files > 12);
    OK(eagre_topic_alter(e, "t", &(eagre_setting_t){"retention.bytes", "320K"}, 1));
    wait_for_files(6);
    assert_true(eg_count_files(b, &first) >= 4 && first >= files - 6);
    int64_t start = eg_beginning();
    assert_true(start > 2000 && start < 4000);
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    for (int64_t i = start; i < 4000; i++) {
        OK(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n));
        assert_true(n == 1 && r.offset == i);
    }
    /* By time the active one goes, too: it is closed first. */
    OK(eagre_topic_alter(e, "t", &(eagre_setting_t){"retention.ms", "100"}, 1));
    wait_for_files(1);
    assert_int_equal(eg_end(), 4000);
    OK(eagre_topic_alter(e, "t", &(eagre_setting_t){"retention.ms", "-1"}, 1));
    put(1, false);
    assert_int_equal(ledger.entry[ledger.count - 1].offset, 4000);
}

/* ---- lost ---------------------------------------------------------------------------------------------- */

static void who_read_what_is_lost_is_told(void **state) {
    (void)state;
    static eagre_record_t r[200];
    size_t n = 0;
    start_with(IO, EAGRE_ACKS_MEMORY, NULL);
    put(100, false);
    OK(eagre_producer_flush(p, -1));
    eg_ledger_flushed(&ledger);
    put(100, false);
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    for (size_t got = 0; got < 200; got += n)
        OK(eagre_consumer_poll(c, r, 200, EG_TEST_LIMIT_MS, &n));
    cold_restart(IO); /* closes it */
    eg_ledger_check(&ledger, b);
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    put(1, true);
    open_consumer(EAGRE_ISOLATION_PUBLISHED);
    size_t kept = 0;
    while (!ledger.entry[kept].lost && kept < 200)
        kept++;
    assert_true(kept >= 100);
    if (kept < 200) {
        OK(eagre_consumer_seek(c, "t", 0, (int64_t)kept));
        n = 0;
        /* Just behind the last record that is left: nothing that it read is lost, it goes on. */
        OK(eagre_consumer_poll(c, r, 1, EG_TEST_LIMIT_MS, &n));
        assert_true(n == 1 && r[0].offset == ledger.entry[200].offset);
        OK(eagre_consumer_seek(c, "t", 0, 200));
        if (ledger.entry[200].offset > 200)
            REFUSED(eagre_consumer_poll(c, r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_E_OFFSET_OUT_OF_RANGE, "is lost");
    }
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
    for (size_t got = 0; got < kept + 1; got += n)
        OK(eagre_consumer_poll(c, r, 200, EG_TEST_LIMIT_MS, &n));
}

int main(void) {
#define EACH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(acked_survives_daemon_and_keeper),
        EACH(also_with_threads),
        EACH(a_flush_is_as_good),
        EACH(a_clean_stop_loses_nothing),
        EACH(a_warm_restart_loses_nothing),
        EACH(an_unused_partition_begins_where_it_would_have),
        EACH(a_reader_goes_from_files_to_the_ring),
        EACH(durable_isolation_shows_what_is_on_disk),
        EACH(seek_by_time),
        EACH(trimmed_is_gone_for_good),
        EACH(retention_takes_whole_files),
        EACH(who_read_what_is_lost_is_told),
    };
    return cmocka_run_group_tests_name("system/disk", tests, NULL, NULL);
}
