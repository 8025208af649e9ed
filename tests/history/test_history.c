/* The history checker: a good history passes, and each rule finds a history that breaks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "history/history.h"

#define SIZE 64u

static char dir[64];
static struct history_log p, q, c, d; /* two producers, two consumers */
static uint8_t value[SIZE];

static int setup(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%.40s/hist-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || history_producer_open(&p, dir, 1, 100) != 0 ||
        history_producer_open(&q, dir, 2, 100) != 0 ||
        history_consumer_open(&c, dir, 1, 100) != 0 || history_consumer_open(&d, dir, 2, 100) != 0)
        return -1;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state) {
    (void)state;
    history_close(&p);
    history_close(&q);
    history_close(&c);
    history_close(&d);
    return nftw(dir, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

/* ---- steps of a history: topic 0, partition 0, no keys ---------------------------------------------- */

static uint32_t id_of(const struct history_log *log) { return log == &p ? 1 : 2; }

static uint64_t fill(struct history_log *log, uint64_t sequence) {
    return history_fill(value, SIZE, NULL, 0, (struct history_id){id_of(log), 0, sequence});
}

static uint64_t intend(struct history_log *log) {
    return history_intend(log, 0, 0, fill(log, history_next(log)));
}

static void ack(struct history_log *log, int64_t offset) {
    history_acked(log, intend(log), 0, offset);
}

static void see(struct history_log *by, struct history_log *log, uint64_t sequence,
                int64_t offset) {
    fill(log, sequence);
    uint64_t entry = history_saw(by, 0, 0, offset, value, SIZE, NULL, 0);
    history_again(by, entry, value, SIZE, NULL, 0);
}

static struct history_report check_with(const struct history_options *options) {
    struct history_report r;
    int rc = history_check(dir, options, &r);
    assert_int_equal(rc, r.violations > 0);
    return r;
}

static void good(void) {
    struct history_report r = check_with(&(struct history_options){.out = stderr});
    assert_int_equal(r.violations, 0);
}

/* Exactly this rule is broken, so often. */
static void bad(enum history_rule rule, uint64_t times) {
    struct history_report r = check_with(NULL);
    if (r.broken[rule] != times || r.violations != times) {
        check_with(&(struct history_options){.out = stderr});
        fail_msg("%d violations, %d of the rule", (int)r.violations, (int)r.broken[rule]);
    }
}

/* Three records of p at 0 to 2, which c reads from the start. */
static void begin(void) {
    for (int64_t i = 0; i < 3; i++)
        ack(&p, i);
    history_pass(&c, 0, 0, 0);
    for (uint64_t i = 0; i < 3; i++)
        see(&c, &p, i, (int64_t)i);
}

/* ---- payload and logs ---------------------------------------------------------------------------------- */

static void a_value_tells_whose_it_is_and_any_changed_bit_is_seen(void **state) {
    struct history_id id, mine = {7, 3, 99};
    uint8_t big[300];
    char key[] = "some key";
    (void)state;
    for (size_t size = HISTORY_VALUE_MIN; size < sizeof(big); size += 37) {
        uint64_t hash = history_fill(big, size, key, sizeof(key), mine);
        assert_true(hash == history_hash(big, size, key, sizeof(key)));
        assert_true(history_parse(big, size, key, sizeof(key), &id));
        assert_memory_equal(&id, &mine, sizeof(id));
        for (size_t i = 0; i < size; i++) {
            big[i] ^= 0x10;
            assert_false(history_parse(big, size, key, sizeof(key), &id));
            assert_true(hash != history_hash(big, size, key, sizeof(key)));
            big[i] ^= 0x10;
        }
        assert_false(history_parse(big, size - 1, key, sizeof(key), &id));
        key[3] ^= 1;
        assert_false(history_parse(big, size, key, sizeof(key), &id));
        key[3] ^= 1;
    }
    assert_false(history_parse(NULL, 0, NULL, 0, &id));
}

static void a_log_outlives_its_writer_and_goes_on(void **state) {
    (void)state;
    history_close(&p);
    pid_t pid = fork();
    if (pid == 0) {
        if (history_producer_open(&p, dir, 1, 100) == 0) {
            ack(&p, 0);
            intend(&p);
        }
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(history_producer_open(&p, dir, 1, 100), 0);
    assert_int_equal(history_next(&p), 2);
    ack(&p, 1);
    history_pass(&c, 0, 0, 0);
    see(&c, &p, 0, 0);
    assert_int_equal(history_position(&c, 0, 0), 1);
    history_close(&c);
    assert_int_equal(history_consumer_open(&c, dir, 1, 100), 0);
    assert_int_equal(history_position(&c, 0, 0), 1);
    assert_int_equal(history_position(&c, 0, 1), -1);
    see(&c, &p, 2, 1);
    good();
    struct history_report r = check_with(NULL);
    assert_int_equal(r.sent, 3);
    assert_int_equal(r.acked, 2);
    assert_int_equal(r.unknown, 1);
    assert_int_equal(r.seen, 2);
}

/* ---- good histories -------------------------------------------------------------------------------------- */

static void good_ones_pass(void **state) {
    (void)state;
    begin();
    uint64_t killed = intend(&p); /* its producer dies, but it is there */
    see(&c, &p, killed, 3);
    intend(&p); /* died before its claim */
    intend(&p); /* a pad at 4 */
    uint64_t aborted = intend(&p);
    history_claimed(&p, aborted, 0, 6);
    history_aborted(&p, aborted);
    history_failed(&p, intend(&p), -13);
    ack(&q, 5);
    see(&c, &q, 0, 5);
    for (uint32_t i = 0; i < 3; i++)
        history_intend_batch(&q, 0, -1, fill(&q, history_next(&q)), i, 3);
    for (uint32_t i = 0; i < 3; i++)
        history_acked(&q, 1 + i, 0, 7 + (int64_t)i);
    for (uint32_t i = 0; i < 3; i++)
        see(&c, &q, 1 + i, 7 + (int64_t)i);
    history_watermark(&c, 0, 0, 2, 10, 10, 100, 200);
    history_complete(&c, 0, 0, 10);
    /* Another one that fell behind, then reads it once more. */
    history_pass(&d, 0, 0, 0);
    history_gap(&d, 0, 0, 0, 2);
    see(&d, &p, 2, 2);
    history_pass(&d, 0, 0, 2);
    see(&d, &p, 2, 2);
    history_watermark(&d, 0, 0, 1, 9, -1, 50, 150);
    check_with(&(struct history_options){.out = stderr, .need_complete = true});
    good();
    struct history_report r = check_with(NULL);
    assert_int_equal(r.pads, 2);
    assert_int_equal(r.gaps, 1);
    assert_int_equal(r.skipped, 2);
    assert_int_equal(r.unknown_seen, 1);
}

/* ---- bad ones ------------------------------------------------------------------------------------------------ */

static void a_lost_record(void **state) {
    (void)state;
    begin();
    ack(&p, 3);
    ack(&p, 4);
    see(&c, &p, 4, 4); /* skips 3 */
    bad(HISTORY_LOST_RULE, 1);
}

static void a_lost_last_record(void **state) {
    (void)state;
    begin();
    ack(&p, 3);
    good(); /* it may not have come that far */
    history_complete(&c, 0, 0, 3);
    bad(HISTORY_LOST_RULE, 1);
}

static void a_lost_record_before_the_end(void **state) {
    (void)state;
    begin();
    ack(&p, 3);
    history_complete(&c, 0, 0, 4);
    bad(HISTORY_LOST_RULE, 1);
}

static void a_partition_that_nobody_read(void **state) {
    (void)state;
    begin();
    struct history_report r = check_with(&(struct history_options){.need_complete = true});
    assert_int_equal(r.broken[HISTORY_LOST_RULE], 1);
    history_complete(&c, 0, 0, 3);
    r = check_with(&(struct history_options){.need_complete = true});
    assert_int_equal(r.violations, 0);
}

static void a_record_twice(void **state) {
    (void)state;
    begin();
    intend(&p); /* may be anywhere */
    see(&c, &p, 3, 3);
    see(&c, &p, 3, 4); /* both times unacknowledged */
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_TWICE_RULE], 1);
    assert_int_equal(r.broken[HISTORY_MOVED_RULE], 1);
    assert_int_equal(r.violations, 2);
}

static void a_record_at_two_offsets(void **state) {
    (void)state;
    begin();
    intend(&p);
    see(&c, &p, 3, 3);
    history_pass(&d, 0, 0, 4);
    see(&d, &p, 3, 4);
    bad(HISTORY_MOVED_RULE, 1);
}

static void offsets_going_back(void **state) {
    (void)state;
    begin();
    ack(&q, 3);
    see(&c, &q, 0, 3);
    see(&c, &p, 2, 2);
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_BACK_RULE], 1);
    assert_int_equal(r.broken[HISTORY_TWICE_RULE], 1);
    assert_int_equal(r.violations, 2);
}

static void another_value_than_sent(void **state) {
    (void)state;
    uint8_t longer[SIZE + 8];
    begin();
    ack(&p, 3);
    history_fill(longer, sizeof(longer), NULL, 0, (struct history_id){1, 0, 3}); /* well-formed */
    history_saw(&c, 0, 0, 3, longer, sizeof(longer), NULL, 0);
    bad(HISTORY_CHANGED_RULE, 1);
}

static void damaged_bytes(void **state) {
    (void)state;
    begin();
    intend(&p);
    fill(&p, 3);
    value[50] ^= 1;
    history_saw(&c, 0, 0, 3, value, SIZE, NULL, 0);
    bad(HISTORY_CHANGED_RULE, 1);
}

static void bytes_that_change_while_they_are_held(void **state) {
    (void)state;
    begin();
    ack(&p, 3);
    fill(&p, 3);
    uint64_t entry = history_saw(&c, 0, 0, 3, value, SIZE, NULL, 0);
    value[50] ^= 1;
    history_again(&c, entry, value, SIZE, NULL, 0);
    bad(HISTORY_UNSTABLE_RULE, 1);
}

static void a_record_of_nobody(void **state) {
    (void)state;
    begin();
    see(&c, &p, 17, 3); /* not sent yet */
    history_fill(value, SIZE, NULL, 0, (struct history_id){33, 0, 0});
    history_saw(&c, 0, 0, 4, value, SIZE, NULL, 0);
    bad(HISTORY_INVENTED_RULE, 2);
}

static void a_record_of_a_failed_call(void **state) {
    (void)state;
    begin();
    history_failed(&p, intend(&p), -13);
    see(&c, &p, 3, 3);
    uint64_t aborted = intend(&p);
    history_claimed(&p, aborted, 0, 4);
    history_aborted(&p, aborted);
    see(&c, &p, 4, 4);
    bad(HISTORY_UNWANTED_RULE, 2);
}

static void a_record_at_another_offset(void **state) {
    (void)state;
    begin();
    uint64_t claimed = intend(&p);
    history_claimed(&p, claimed, 0, 4);
    see(&c, &p, 3, 3);
    bad(HISTORY_WRONG_OFFSET_RULE, 1);
}

static void a_record_in_another_partition(void **state) {
    (void)state;
    begin();
    fill(&p, 3);
    history_intend(&p, 0, 1, history_hash(value, SIZE, NULL, 0));
    see(&c, &p, 3, 3);
    bad(HISTORY_WRONG_OFFSET_RULE, 1);
}

static void an_offset_given_twice(void **state) {
    (void)state;
    ack(&p, 0);
    ack(&q, 0);
    bad(HISTORY_SAME_OFFSET_RULE, 1);
}

static void a_producer_out_of_order(void **state) {
    (void)state;
    begin();
    intend(&p);
    intend(&p);
    see(&c, &p, 4, 3);
    see(&c, &p, 3, 4);
    bad(HISTORY_ORDER_RULE, 1);
}

static void holes_that_no_claim_explains(void **state) {
    (void)state;
    begin();
    intend(&p); /* explains one of two */
    history_failed(&p, intend(&p), -13);
    ack(&q, 5);
    see(&c, &q, 0, 5);
    bad(HISTORY_HOLE_RULE, 1);
}

static void a_torn_batch(void **state) {
    (void)state;
    begin();
    for (uint32_t i = 0; i < 3; i++)
        history_intend_batch(&p, 0, 0, fill(&p, 3 + i), i, 3);
    see(&c, &p, 3, 3);
    good(); /* it has not come that far */
    history_complete(&c, 0, 0, 6);
    bad(HISTORY_TORN_RULE, 2);
}

static void a_batch_of_which_only_a_part_was_ever_made(void **state) {
    (void)state;
    begin();
    for (uint32_t i = 0; i < 2; i++)
        history_intend_batch(&p, 0, 0, fill(&p, 3 + i), i, 3);
    see(&c, &p, 3, 3);
    see(&c, &p, 4, 4);
    bad(HISTORY_TORN_RULE, 2);
}

static void a_watermark_going_back(void **state) {
    (void)state;
    begin();
    history_watermark(&c, 0, 0, 1, 3, 3, 100, 200);
    history_watermark(&d, 0, 0, 0, 3, -1, 150, 250); /* at the same time: who knows */
    good();
    history_watermark(&d, 0, 0, 0, 3, -1, 201, 250); /* the log start */
    history_watermark(&d, 0, 0, 1, 2, -1, 202, 250); /* the end */
    bad(HISTORY_WATERMARK_RULE, 2);
}

static void a_position_going_back(void **state) {
    (void)state;
    begin();
    history_watermark(&c, 0, 0, -1, -1, 2, 100, 200); /* 3 were seen */
    bad(HISTORY_WATERMARK_RULE, 1);
}

static void a_record_before_the_position(void **state) {
    (void)state;
    begin();
    intend(&p);
    history_watermark(&c, 0, 0, -1, -1, 4, 100, 200);
    see(&c, &p, 3, 3);
    bad(HISTORY_WATERMARK_RULE, 1);
}

static void an_end_before_what_was_seen(void **state) {
    (void)state;
    begin();
    history_complete(&c, 0, 0, 2);
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_WATERMARK_RULE], 1);
    assert_int_equal(r.broken[HISTORY_LOST_RULE], 1);
}

static void consumers_that_see_different_records(void **state) {
    (void)state;
    begin();
    intend(&p);
    intend(&q);
    see(&c, &p, 3, 3);
    history_pass(&d, 0, 0, 3);
    see(&d, &q, 0, 3);
    bad(HISTORY_DISAGREE_RULE, 1);
}

static void a_record_that_only_one_sees(void **state) {
    (void)state;
    begin();
    intend(&p);
    intend(&p);
    see(&c, &p, 3, 3);
    see(&c, &p, 4, 4);
    history_pass(&d, 0, 0, 3);
    see(&d, &p, 4, 4);
    bad(HISTORY_DISAGREE_RULE, 1);
}

static void a_record_that_only_the_other_one_sees(void **state) {
    (void)state;
    begin();
    intend(&p);
    intend(&p);
    see(&c, &p, 4, 4);
    history_pass(&d, 0, 0, 3);
    see(&d, &p, 3, 3);
    bad(HISTORY_DISAGREE_RULE, 1);
}

static void another_than_the_acknowledged(void **state) {
    (void)state;
    begin();
    ack(&p, 3);
    intend(&q);
    see(&c, &q, 0, 3);
    bad(HISTORY_DISAGREE_RULE, 1);
}

static void gaps(void **state) {
    (void)state;
    begin();
    ack(&q, 4);
    history_gap(&c, 0, 0, 3, 5);
    bad(HISTORY_GAP_RULE, 1); /* the log was never seen to begin there */
    history_watermark(&d, 0, 0, 5, 7, -1, 100, 200);
    good();
    struct history_report r = check_with(&(struct history_options){.no_gaps = true});
    assert_int_equal(r.broken[HISTORY_GAP_RULE], 1);
    history_gap(&c, 0, 0, 5, 4);
    bad(HISTORY_GAP_RULE, 1);
}

static void a_gap_to_where_nobody_was(void **state) {
    (void)state;
    begin();
    history_watermark(&d, 0, 0, 5, 7, -1, 100, 200);
    history_gap(&c, 0, 0, 3, 5);
    bad(HISTORY_GAP_RULE, 1);
    intend(&p); /* in doubt: may have been there */
    bad(HISTORY_GAP_RULE, 1);
    intend(&p);
    good();
}

static void a_log_without_sense(void **state) {
    (void)state;
    ack(&p, 0);
    see(&c, &p, 0, 0); /* no pass */
    bad(HISTORY_LOG_RULE, 1);
    history_pass(&d, 0, 0, 0);
    ((struct history_seen *)d.base)[0].kind = 77;
    bad(HISTORY_LOG_RULE, 2);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_tells_whose_it_is_and_any_changed_bit_is_seen),
        T(a_log_outlives_its_writer_and_goes_on),
        T(good_ones_pass),
        T(a_lost_record),
        T(a_lost_last_record),
        T(a_lost_record_before_the_end),
        T(a_partition_that_nobody_read),
        T(a_record_twice),
        T(a_record_at_two_offsets),
        T(offsets_going_back),
        T(another_value_than_sent),
        T(damaged_bytes),
        T(bytes_that_change_while_they_are_held),
        T(a_record_of_nobody),
        T(a_record_of_a_failed_call),
        T(a_record_at_another_offset),
        T(a_record_in_another_partition),
        T(an_offset_given_twice),
        T(a_producer_out_of_order),
        T(holes_that_no_claim_explains),
        T(a_torn_batch),
        T(a_batch_of_which_only_a_part_was_ever_made),
        T(a_watermark_going_back),
        T(a_position_going_back),
        T(a_record_before_the_position),
        T(an_end_before_what_was_seen),
        T(consumers_that_see_different_records),
        T(a_record_that_only_one_sees),
        T(a_record_that_only_the_other_one_sees),
        T(another_than_the_acknowledged),
        T(gaps),
        T(a_gap_to_where_nobody_was),
        T(a_log_without_sense),
    };
    return cmocka_run_group_tests_name("history/history", tests, NULL, NULL);
}
