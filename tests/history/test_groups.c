/* The history checker and groups: a good history passes, and each rule finds a history that breaks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "history/member.h"

#define SIZE 64u
#define RECORDS 10

static char dir[64];
static struct history_log p, x_log, y_log, looker;
static struct history_member x, y; /* of group 7, or of share group 8 */
static uint8_t value[SIZE];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state) {
    (void)state;
    history_close(&p);
    history_close(&x_log);
    history_close(&y_log);
    history_close(&looker);
    return nftw(dir, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

static uint64_t fill(uint64_t sequence) {
    return history_fill(value, SIZE, NULL, 0, (struct history_id){1, 0, sequence});
}

/* Ten acknowledged records in partition 0, record i at offset i. */
static int setup(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%.40s/hist-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || history_producer_open(&p, dir, 1, 100) != 0 ||
        history_consumer_open(&x_log, dir, 1, 100) != 0 ||
        history_consumer_open(&y_log, dir, 2, 100) != 0 ||
        history_consumer_open(&looker, dir, 3, 100) != 0)
        return -1;
    for (uint64_t i = 0; i < RECORDS; i++)
        history_acked(&p, history_intend(&p, 0, 0, fill(i)), 0, (int64_t)i);
    return 0;
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

static void bad(enum history_rule rule, uint64_t times) {
    struct history_report r = check_with(NULL);
    if (r.broken[rule] != times || r.violations != times) {
        check_with(&(struct history_options){.out = stderr});
        fail_msg("%d violations, %d of the rule", (int)r.violations, (int)r.broken[rule]);
    }
}

/* ---- steps: group 7 ------------------------------------------------------------------------------------ */

static void join(struct history_member *m) {
    history_member_begin(m, m == &x ? &x_log : &y_log, 7, HISTORY_DYNAMIC, false);
}

/* A poll that gives it partition 0. */
static void given(struct history_member *m, uint32_t generation, int64_t position) {
    history_polls(m);
    history_assigned(m, 0, 0, generation, position, position > 0 ? position : -1);
    history_polled(m, generation);
}

static void taken(struct history_member *m, uint32_t generation) {
    history_polls(m);
    history_revoked(m, 0, 0);
    history_polled(m, generation);
}

/* One poll each. */
static void see(struct history_member *m, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
        history_polls(m);
        history_polled(m, m->generation);
        fill((uint64_t)i);
        history_saw(m->log, 0, 0, i, value, SIZE, NULL, 0);
    }
}

static void commit(struct history_member *m, int64_t offset, enum history_commit state) {
    uint64_t entry = history_commit(m, 0, 0, offset);
    if (state != HISTORY_COMMIT_ASKED)
        history_commit_is(m, entry, state);
}

static void look(int64_t offset) { history_committed(&looker, 7, 0, 0, offset, history_now()); }

/* x reads and commits the first five; then y has the partition. */
static void begin(void) {
    join(&x);
    given(&x, 1, 0);
    see(&x, 0, 5);
    commit(&x, 5, HISTORY_COMMIT_SAFE);
    look(5);
    join(&y);
    taken(&x, 2);
    given(&y, 2, 5);
}

/* ---- good ones ------------------------------------------------------------------------------------------- */

static void good_ones_pass(void **state) {
    (void)state;
    begin();
    good();
    see(&y, 5, 8);
    commit(&y, 6, HISTORY_COMMIT_DONE);
    commit(&y, 8, HISTORY_COMMIT_ASKED);
    /* y is killed: its second commit may count or not. */
    given(&x, 3, 8);
    see(&x, 8, 9);
    join(&y);
    taken(&x, 4);
    given(&y, 4, 8);
    history_generation(&looker, 7, 4, history_now());
    see(&y, 8, 10);
    commit(&y, 10, HISTORY_COMMIT_DONE);
    history_polls(&y);
    history_polled(&y, 4);
    look(10);
    history_revoked(&y, 0, 0);
    history_left(&y, true);
    given(&x, 5, 10);
    history_group_complete(&x_log, 7, 0, 0, 10);
    struct history_log c;
    assert_int_equal(history_consumer_open(&c, dir, 9, 10), 0);
    history_pass(&c, 0, 0, 10);
    history_complete(&c, 0, 0, 10);
    history_close(&c);
    struct history_report r = check_with(
        &(struct history_options){.out = stderr, .need_complete = true, .none_put_out = true});
    assert_int_equal(r.violations, 0);
    assert_int_equal(r.members, 3);
    assert_int_equal(r.turns, 5);
    assert_int_equal(r.commits, 4);
}

/* The member of before is put out while it is stopped: who knows how long it had the partition. */
static void who_was_put_out_may_find_it_out_late(void **state) {
    (void)state;
    join(&x);
    join(&y);
    given(&x, 1, 0);
    see(&x, 0, 5);
    commit(&x, 3, HISTORY_COMMIT_SAFE);
    commit(&x, 5, HISTORY_COMMIT_DONE); /* it was a member of the past then, perhaps */
    given(&y, 2, 3);
    see(&y, 3, 6);
    commit(&y, 6, HISTORY_COMMIT_DONE);
    history_polls(&x);
    history_put_out(&x, 0, 0);
    commit(&x, 9, HISTORY_COMMIT_REFUSED);
    good();
    history_polls(&x);
    history_polled(&x, 3);
    taken(&y, 3);
    given(&x, 3, 6);
    good();
    assert_int_equal(
        check_with(&(struct history_options){.none_put_out = true}).broken[HISTORY_FORGOTTEN_RULE],
        1);
}

/* So early that its turn has no certain length: what it committed counts all the same. */
static void who_died_with_its_first_records_committed_them(void **state) {
    (void)state;
    begin();
    for (int64_t i = 5; i < 8; i++) {
        fill((uint64_t)i);
        history_saw(&y_log, 0, 0, i, value, SIZE, NULL, 0);
    }
    commit(&y, 7, HISTORY_COMMIT_DONE);
    commit(&y, 8, HISTORY_COMMIT_ASKED); /* as the next poll does; in it y is killed */
    given(&x, 3, 8);
    good();
    see(&x, 8, 9);
    taken(&x, 4);
    given(&x, 5, 9);
    bad(HISTORY_LATER_RULE, 1);
}

static void a_static_member_comes_back_in_the_same_generation(void **state) {
    (void)state;
    history_member_begin(&x, &x_log, 7, 3, false);
    given(&x, 4, 0);
    see(&x, 0, 2);
    commit(&x, 2, HISTORY_COMMIT_DONE);
    history_member_begin(&x, &x_log, 7, 3, false);
    given(&x, 4, 2);
    good();
}

/* ---- bad ones ---------------------------------------------------------------------------------------------- */

static void a_record_that_a_group_missed(void **state) {
    (void)state;
    begin();
    see(&y, 5, 9);
    history_group_complete(&y_log, 7, 0, 0, 9);
    bad(HISTORY_MISSED_RULE, 1); /* the log goes on to 10 */
}

static void a_record_between_two_members(void **state) {
    (void)state;
    join(&x);
    given(&x, 1, 0);
    see(&x, 0, 4);
    commit(&x, 5, HISTORY_COMMIT_DONE);
    taken(&x, 2);
    join(&y);
    history_polls(&y);
    history_assigned(&y, 0, 0, 2, 5, -1);
    see(&y, 5, 10);
    history_group_complete(&y_log, 7, 0, 0, 10);
    bad(HISTORY_MISSED_RULE, 1);
}

static void a_partition_that_a_group_did_not_read(void **state) {
    (void)state;
    begin();
    see(&y, 5, 10);
    history_complete(&y_log, 0, 0, 10);
    struct history_report r = check_with(&(struct history_options){.need_complete = true});
    assert_int_equal(r.broken[HISTORY_MISSED_RULE], 1);
    assert_int_equal(r.violations, 1);
}

static void a_record_behind_the_end_of_its_turn(void **state) {
    (void)state;
    begin();
    see(&y, 5, 6);
    see(&x, 6, 7);
    bad(HISTORY_STRAY_RULE, 1);
    history_polls(&x);
    history_revoked(&x, 0, 0);
    bad(HISTORY_STRAY_RULE, 2);
}

static void a_partition_of_two(void **state) {
    (void)state;
    join(&x);
    join(&y);
    given(&x, 1, 0);
    given(&y, 2, 0);
    see(&y, 0, 1);
    good(); /* x may have been put out */
    see(&x, 0, 1);
    bad(HISTORY_SHARED_RULE, 1);
}

static void a_partition_that_is_given_before_it_was_given_up(void **state) {
    (void)state;
    join(&x);
    join(&y);
    given(&x, 1, 0);
    given(&y, 2, 0);
    taken(&x, 2);
    good(); /* y was stopped, perhaps, and is put out by now */
    see(&y, 0, 1);
    bad(HISTORY_SHARED_RULE, 1);
}

static void a_generation_of_two(void **state) {
    (void)state;
    join(&x);
    given(&x, 1, 0);
    history_polls(&x);
    history_polled(&x, 2);
    taken(&x, 3);
    join(&y);
    given(&y, 2, 0);
    bad(HISTORY_GENERATION_RULE, 1);
}

static void a_generation_going_back(void **state) {
    (void)state;
    begin();
    history_polls(&y);
    history_polled(&y, 1);
    bad(HISTORY_GENERATION_RULE, 1);
    history_generation(&looker, 7, 5, history_now());
    history_generation(&looker, 8, 2, history_now()); /* another group's */
    history_generation(&looker, 7, 4, history_now());
    bad(HISTORY_GENERATION_RULE, 2);
}

static void a_commit_ahead_of_the_members(void **state) {
    (void)state;
    begin();
    look(6);
    see(&y, 5, 7);
    look(7);
    bad(HISTORY_AHEAD_RULE, 1);
}

static void a_member_that_begins_behind_the_last_commit(void **state) {
    (void)state;
    join(&x);
    given(&x, 1, 0);
    see(&x, 0, 8);
    commit(&x, 5, HISTORY_COMMIT_SAFE);
    join(&y);
    taken(&x, 2);
    given(&y, 2, 6);
    bad(HISTORY_LATER_RULE, 1);
}

static void a_member_that_begins_where_one_of_the_past_says(void **state) {
    (void)state;
    join(&x);
    given(&x, 1, 0);
    see(&x, 0, 8);
    commit(&x, 5, HISTORY_COMMIT_SAFE);
    join(&y);
    given(&y, 2, 5); /* x has been put out, and does not know it */
    see(&y, 5, 6);
    commit(&x, 7, HISTORY_COMMIT_REFUSED);
    commit(&x, 7, HISTORY_COMMIT_DONE);
    history_polls(&x);
    history_put_out(&x, 0, 0);
    taken(&y, 3);
    given(&x, 3, 7);
    bad(HISTORY_LATER_RULE, 1);
}

static void a_first_member_that_begins_anywhere(void **state) {
    (void)state;
    join(&x);
    history_polls(&x);
    history_assigned(&x, 0, 0, 1, 3, -1);
    bad(HISTORY_LATER_RULE, 1);
}

static void a_commit_that_is_forgotten(void **state) {
    (void)state;
    begin();
    see(&y, 5, 8);
    commit(&y, 8, HISTORY_COMMIT_DONE);
    history_polls(&y);
    history_polled(&y, 2); /* it was still a member */
    join(&y);
    given(&y, 3, 5);
    bad(HISTORY_FORGOTTEN_RULE, 1);
}

static void a_safe_commit_that_is_forgotten(void **state) {
    (void)state;
    begin();
    see(&y, 5, 8);
    commit(&y, 8, HISTORY_COMMIT_SAFE);
    history_polls(&y);
    history_put_out(&y, 0, 0);
    given(&x, 3, 5);
    bad(HISTORY_FORGOTTEN_RULE, 1);
}

static void logs_without_sense(void **state) {
    (void)state;
    join(&x);
    given(&x, 1, 0);
    given(&x, 1, 0);
    bad(HISTORY_LOG_RULE, 1);
    history_left(&x, true);
    commit(&x, 1, HISTORY_COMMIT_DONE);
    bad(HISTORY_LOG_RULE, 2);
}

/* ---- share groups -------------------------------------------------------------------------------------------- */

static void join_share(struct history_member *m) {
    history_member_begin(m, m == &x ? &x_log : &y_log, 8, HISTORY_DYNAMIC, true);
}

static void take(struct history_member *m, int64_t offset, uint32_t count) {
    history_polls(m);
    fill((uint64_t)offset);
    history_polled(m, 1);
    history_acquired(m, 0, 0, offset, value, SIZE, NULL, 0, count);
}

static void end(struct history_member *m, int64_t offset, enum history_end how,
                enum history_commit state) {
    uint64_t entry = history_end(m, 0, 0, offset, how);
    if (state != HISTORY_COMMIT_ASKED)
        history_end_is(m, entry, state);
}

static void begin_share(void) {
    join_share(&x);
    join_share(&y);
    for (int64_t i = 0; i < 4; i++)
        take(i % 2 == 0 ? &x : &y, i, 1);
    for (int64_t i = 0; i < 3; i++)
        end(i % 2 == 0 ? &x : &y, i, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    /* y still has 3. */
}

static void good_ones_of_share_groups_pass(void **state) {
    (void)state;
    begin_share();
    end(&y, 3, HISTORY_RELEASE, HISTORY_COMMIT_DONE);
    take(&x, 3, 2);
    end(&x, 3, HISTORY_REJECT, HISTORY_COMMIT_DONE);
    take(&x, 4, 1);
    join_share(&x); /* it was killed */
    take(&y, 4, 2);
    take(&y, 5, 2); /* the first time that was, too, before it could say so */
    end(&y, 4, HISTORY_ACCEPT, HISTORY_COMMIT_ASKED);
    end(&y, 5, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    for (uint32_t i = 1; i <= 5; i++) {
        take(&y, 6, i);
        end(&y, 6, HISTORY_RELEASE, HISTORY_COMMIT_DONE);
    }
    for (int64_t i = 7; i < 10; i++) {
        take(&y, i, 1);
        end(&y, i, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    }
    history_group_complete(&y_log, 8, 0, 0, 10);
    history_committed(&looker, 8, 0, 0, 10, history_now());
    good();
    assert_int_equal(check_with(NULL).ended, 8);
}

static void a_record_that_is_never_acknowledged(void **state) {
    (void)state;
    begin_share();
    history_group_complete(&y_log, 8, 0, 0, 4);
    bad(HISTORY_MISSED_RULE, 1 + RECORDS - 4);
}

static void a_record_of_two_takers(void **state) {
    (void)state;
    begin_share();
    take(&x, 3, 2);
    good(); /* y may have been stopped for long */
    end(&y, 3, HISTORY_RELEASE, HISTORY_COMMIT_DONE);
    bad(HISTORY_TWO_TAKERS_RULE, 1);
}

static void a_record_that_is_taken_while_another_one_is_alive(void **state) {
    (void)state;
    begin_share();
    take(&x, 3, 2);
    take(&y, 4, 1);
    bad(HISTORY_TWO_TAKERS_RULE, 1);
    /* Its time may be over. */
    struct history_report r = check_with(&(struct history_options){.share_lock_ms = 1});
    assert_int_equal(r.violations, 0);
}

static void a_record_acknowledged_twice(void **state) {
    (void)state;
    begin_share();
    take(&x, 3, 2);
    end(&x, 3, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    end(&y, 3, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_ENDED_TWICE_RULE], 1);
    assert_int_equal(r.broken[HISTORY_TWO_TAKERS_RULE], 1);
    assert_int_equal(r.violations, 2);
}

static void a_record_delivered_after_its_end(void **state) {
    (void)state;
    begin_share();
    take(&y, 2, 2);
    bad(HISTORY_ENDED_TWICE_RULE, 1);
}

static void delivery_counts(void **state) {
    (void)state;
    begin_share();
    end(&y, 3, HISTORY_RELEASE, HISTORY_COMMIT_DONE);
    take(&x, 3, 1); /* again for the first time */
    bad(HISTORY_COUNT_RULE, 1);
    end(&x, 3, HISTORY_RELEASE, HISTORY_COMMIT_DONE);
    take(&x, 3, 5); /* nobody had it for the second to the fourth, and two may have died */
    bad(HISTORY_COUNT_RULE, 2);
    take(&y, 4, 6);
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_COUNT_RULE], 4); /* too often, and nobody had it before */
}

static void an_acknowledgement_of_nothing(void **state) {
    (void)state;
    begin_share();
    end(&x, 7, HISTORY_ACCEPT, HISTORY_COMMIT_DONE);
    bad(HISTORY_LOG_RULE, 1);
}

static void another_record_than_was_sent(void **state) {
    (void)state;
    begin_share();
    fill(4);
    value[50] ^= 1;
    history_acquired(&x, 0, 0, 4, value, SIZE, NULL, 0, 1);
    struct history_report r = check_with(NULL);
    assert_int_equal(r.broken[HISTORY_CHANGED_RULE], 1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(good_ones_pass),
        T(who_was_put_out_may_find_it_out_late),
        T(who_died_with_its_first_records_committed_them),
        T(a_static_member_comes_back_in_the_same_generation),
        T(a_record_that_a_group_missed),
        T(a_record_between_two_members),
        T(a_partition_that_a_group_did_not_read),
        T(a_record_behind_the_end_of_its_turn),
        T(a_partition_of_two),
        T(a_partition_that_is_given_before_it_was_given_up),
        T(a_generation_of_two),
        T(a_generation_going_back),
        T(a_commit_ahead_of_the_members),
        T(a_member_that_begins_behind_the_last_commit),
        T(a_member_that_begins_where_one_of_the_past_says),
        T(a_first_member_that_begins_anywhere),
        T(a_commit_that_is_forgotten),
        T(a_safe_commit_that_is_forgotten),
        T(logs_without_sense),
        T(good_ones_of_share_groups_pass),
        T(a_record_that_is_never_acknowledged),
        T(a_record_of_two_takers),
        T(a_record_that_is_taken_while_another_one_is_alive),
        T(a_record_acknowledged_twice),
        T(a_record_delivered_after_its_end),
        T(delivery_counts),
        T(an_acknowledgement_of_nothing),
        T(another_record_than_was_sent),
    };
    return cmocka_run_group_tests_name("history/groups", tests, NULL, NULL);
}
