/*
 * Log files that are damaged, cannot be read at a start, were put aside, or have expired: who reads is told, and goes on where
 * it is said that one can.
 */
#include "harness_disk.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <inttypes.h>
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

static void start(eagre_acks_t acks) {
    eg_bus_start(b, NULL);
    eg_disk_open(b, acks, NULL);
}

static void put(size_t n) {
    while (n-- > 0)
        OK(eg_ledger_put(&ledger, true));
}

static void open_consumer(void) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_NONE;
    OK(eagre_consumer_open(e, &o, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
}

static bool disk_is_well(void *ctx) {
    eagre_topic_info_t *info;
    (void)ctx;
    OK(eagre_topic_describe(e, "t", &info));
    int disk = info->partitions[0].disk;
    eagre_topic_info_free(info);
    return disk == 0;
}

/* The files of a partition cannot be read when the daemon starts; then they can, and no other start is needed. */
static void start_without_files_then_resume(void) {
    char path[200], away[208];
    eg_disk_close();
    eg_cold_kill(b);
    snprintf(path, sizeof(path), "%s/log/t1/0", b->data);
    snprintf(away, sizeof(away), "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    (void)fclose(f);
    eg_bus_start(b, NULL);
    ledger.generation++;
    OK(eagre_open(b->socket, &e));
    REFUSED(eagre_producer_open(e, "t", NULL, &p), EAGRE_E_IO, "cannot be recovered");
    assert_false(disk_is_well(NULL));
    assert_int_equal(remove(path), 0);
    assert_int_equal(rename(away, path), 0);
    OK(eagre_topic_resume(e, "t", 0));
    eg_wait_until(disk_is_well, NULL, "the disk's state");
    OK(eagre_close(e));
    e = NULL;
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
}

static void files_are_recovered_without_another_start(void **state) {
    int64_t begin;
    (void)state;
    start(EAGRE_ACKS_DISK);
    put(500);
    eg_disk_close();
    eg_cold_kill(b);
    ledger.generation++;
    start(EAGRE_ACKS_DISK);
    put(100); /* behind a gap */
    start_without_files_then_resume();
    put(100);
    eg_ledger_check(&ledger, b);
    assert_int_equal(eg_beginning(), 0);
    OK(eagre_topic_trim(e, "t", 0, 50, &begin));
    start_without_files_then_resume();
    assert_int_equal(eg_beginning(), 50);
}

/* One bit of this record's value, in whichever file it is. */
static void damage(size_t number) {
    char path[300], value[600];
    static char bytes[128 << 10];
    size_t length = eg_value_make(number, value, sizeof(value));
    for (int seq = 0; seq < 100; seq++) {
        snprintf(path, sizeof(path), "%s/log/t1/0/%020d.log", b->data, seq);
        FILE *f = fopen(path, "r+e");
        if (f == NULL)
            continue;
        size_t n = fread(bytes, 1, sizeof(bytes), f);
        char *at = memmem(bytes, n, value, length);
        if (at != NULL) {
            assert_int_equal(fseek(f, at - bytes, SEEK_SET), 0);
            fputc(*at ^ 1, f);
        }
        assert_int_equal(fclose(f), 0);
        if (at != NULL)
            return;
    }
    fail_msg("record %zu is in no file", number);
}

/* From its position on up to this record, with no gap; then damage, and the offset that the error names. */
static int64_t read_up_to_damage(int64_t from, int64_t damaged) {
    static eagre_record_t r[64];
    size_t n = 1;
    int rc;
    OK(eagre_consumer_seek(c, "t", 0, from));
    while ((rc = eagre_consumer_poll(c, r, 64, EG_TEST_LIMIT_MS, &n)) == EAGRE_OK && n > 0)
        for (size_t i = 0; i < n; i++, from++) {
            assert_int_equal(r[i].offset, from);
            if (from + 1 == (int64_t)ledger.count)
                return -1;
        }
    assert_int_equal(from, damaged);
    assert_int_equal(rc, EAGRE_E_CORRUPT);
    const char *text = strstr(eagre_error_detail(), "good record is at offset ");
    assert_non_null(text);
    return atoll(text + strlen("good record is at offset "));
}

/* In a whole file and in the last one: readers are told, and where the good records go on they can go on. */
static void readers_go_on_behind_damage(void **state) {
    char offset[32], text[80];
    struct eg_run run;
    (void)state;
    start(EAGRE_ACKS_DISK);
    put(500);
    eg_disk_close();
    assert_int_equal(eg_bus_stop(b), 0);
    damage(100);
    damage(499 - 10);
    eg_bus_start(b, NULL);
    char *log = eg_bus_log(b);
    snprintf(text, sizeof(text), "can go on at offset %d", 490);
    if (strstr(log, text) == NULL)
        fail_msg("the log does not say '%s':\n%s", text, log);
    free(log);
    OK(eagre_open(b->socket, &e));
    open_consumer();
    assert_int_equal(read_up_to_damage(0, 100), 101);
    assert_int_equal(read_up_to_damage(100, 100), 101);
    assert_int_equal(read_up_to_damage(101, 489), 490);
    assert_int_equal(read_up_to_damage(490, 500), -1);
    assert_int_equal(read_up_to_damage(300, 489), 490);
    /* And the command line. */
    EG_RUN(&run, b, NULL, "eagre", "consume", "t", "-o", "90", "-e", "-f", "%o\n");
    assert_int_equal(run.status, 1);
    assert_string_equal(run.out, "90\n91\n92\n93\n94\n95\n96\n97\n98\n99\n");
    const char *at = strstr(run.err, "good record is at offset ");
    assert_non_null(at);
    snprintf(offset, sizeof(offset), "%lld", atoll(at + strlen("good record is at offset ")));
    assert_string_equal(offset, "101");
    eg_run_free(&run);
    EG_RUN(&run, b, NULL, "eagre", "consume", "t", "-o", offset, "-c", "3", "-f", "%o\n");
    assert_int_equal(run.status, 0);
    assert_string_equal(run.out, "101\n102\n103\n");
    eg_run_free(&run);
}

/* Log files that this process has mapped. */
static size_t mapped_files(size_t *expired) {
    char line[600];
    size_t n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    for (*expired = 0; fgets(line, sizeof(line), maps) != NULL;) {
        n += strstr(line, ".log") != NULL && strstr(line, b->data) != NULL;
        *expired += strstr(line, ".log (deleted)") != NULL;
    }
    (void)fclose(maps);
    return n;
}

static bool has_expired(void *ctx) {
    size_t expired;
    (void)ctx;
    return mapped_files(&expired) == 1 && expired == 1;
}

/* Of a partition a consumer has the file that it reads, and no other: what has expired takes disk space no longer than that. */
static void a_consumer_holds_no_file_but_the_one_that_it_reads(void **state) {
    static eagre_record_t r[16];
    size_t n, expired;
    int64_t begin, at = 0;
    (void)state;
    start(EAGRE_ACKS_MEMORY);
    put(2000);
    OK(eagre_producer_flush(p, EG_TEST_LIMIT_MS));
    open_consumer();
    while (at < 1000) {
        OK(eagre_consumer_poll(c, r, 16, EG_TEST_LIMIT_MS, &n));
        at = r[n - 1].offset + 1;
        assert_true(mapped_files(&expired) <= 1);
    }
    assert_int_equal(mapped_files(&expired), 1);
    OK(eagre_topic_trim(e, "t", 0, 1900, &begin));
    eg_wait_until(has_expired, NULL, "the file that is read is removed");
    OK(eagre_consumer_poll(c, r, 1, EG_TEST_LIMIT_MS, &n)); /* it is read on */
    assert_int_equal(mapped_files(&expired), 1);
    OK(eagre_consumer_pause(c, "t", 0));
    OK(eagre_consumer_poll(c, r, 16, 0, &n));
    assert_int_equal(mapped_files(&expired), 0);
    OK(eagre_consumer_resume(c, "t", 0));
    REFUSED(eagre_consumer_poll(c, r, 16, EG_TEST_LIMIT_MS, &n), EAGRE_E_OFFSET_OUT_OF_RANGE, "not in the log");
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
    for (at = 0; at < 2000; at = r[n - 1].offset + 1)
        OK(eagre_consumer_poll(c, r, 16, EG_TEST_LIMIT_MS, &n));
    OK(eagre_consumer_poll(c, r, 16, 0, &n));
    assert_int_equal(n, 0);
    assert_int_equal(mapped_files(&expired), 0); /* it is in the ring */
}

/* A damaged segment is put aside: consumers go over it, and the log tells which offsets those are, at each start. */
static void what_was_put_aside_is_told(void **state) {
    static eagre_record_t r[64];
    struct eg_run run;
    int64_t at = 0, from = -1, to = -1;
    char text[120];
    size_t n;
    (void)state;
    start(EAGRE_ACKS_DISK);
    put(700);
    for (int round = 0; round < 2; round++) {
        eg_disk_close();
        assert_int_equal(eg_bus_stop(b), 0);
        if (round == 0) {
            damage(300);
            EG_RUN(&run, NULL, NULL, "eagre", "log", "repair", b->data, "--yes");
            if (run.status != 0 || strstr(run.out, "put aside") == NULL)
                fail_msg("repair: %s%s", run.out, run.err);
            eg_run_free(&run);
        }
        eg_bus_start(b, NULL);
        OK(eagre_open(b->socket, &e));
        open_consumer();
        for (at = 0; at < 700; at = r[n - 1].offset + 1) {
            OK(eagre_consumer_poll(c, r, 64, EG_TEST_LIMIT_MS, &n));
            assert_true(n > 0);
            for (size_t i = 0; i < n; i++)
                assert_true(i == 0 || r[i].offset == r[i - 1].offset + 1);
            if (r[0].offset != at) {
                from = at;
                to = r[0].offset;
            }
        }
        assert_true(from <= 300 && 300 < to);
        snprintf(text, sizeof(text), "consumers get no records of offsets %" PRId64 " to %" PRId64 ": ", from, to - 1);
        char *log = eg_bus_log(b), *found = strstr(log, text);
        if (found == NULL || (round == 1 && strstr(found + 1, text) == NULL))
            fail_msg("the log does not say '%s' at each start:\n%s", text, log);
        free(log);
    }
}

int main(void) {
#define EACH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(readers_go_on_behind_damage),
        EACH(files_are_recovered_without_another_start),
        EACH(what_was_put_aside_is_told),
        EACH(a_consumer_holds_no_file_but_the_one_that_it_reads),
    };
    return cmocka_run_group_tests_name("system/disk_damage", tests, NULL, NULL);
}
