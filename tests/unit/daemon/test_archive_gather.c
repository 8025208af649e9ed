/* Group commit: a flush that could begin waits for those whom the last one woke, and for nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "archive_internal.h"
#include "sys/clock.h"

static struct eg_archive a;
static struct eg_archive_file f;
static int64_t due;

/* A flush has ended that took 1 ms and woke so many, when `others` records were there already. */
static void flushed(uint32_t woken, uint32_t others) {
    a.cur = &f;
    f.synced.index = 100;
    f.copied.index = 100 + others;
    eg_archive_gather_begin(&a, EG_NS_PER_MS);
    a.gather.woken = woken;
}

/* At the end of its time but `left_ns`. */
static bool gathers(uint32_t there, int64_t left_ns) {
    f.copied.index = f.synced.index + there;
    due = 0;
    return eg_archive_gathers(&a, &f, a.gather.until_ns - left_ns, &due);
}

static int setup(void **state) {
    (void)state;
    memset(&a, 0, sizeof(a));
    memset(&f, 0, sizeof(f));
    return 0;
}

static void as_many_as_were_there_are_waited_for(void **state) {
    (void)state;
    flushed(3, 2);
    assert_true(gathers(2, 500000));
    assert_true(due > a.gather.until_ns - 500000 && due < a.gather.until_ns);
    assert_true(gathers(4, 400000));
    assert_false(gathers(5, 300000)); /* all of them */
}

static void nobody_is_waited_for_who_was_not_woken(void **state) {
    (void)state;
    flushed(0, 2);
    assert_false(gathers(1, 500000));
}

static void it_ends_in_time_and_is_not_tried_again_soon(void **state) {
    (void)state;
    int waited = 0;
    flushed(8, 0);
    assert_true(gathers(1, 1));
    assert_false(gathers(1, 0)); /* the others did not come */
    for (int i = 0; i < 40; i++) {
        flushed(8, 0);
        waited += gathers(1, 500000);
    }
    assert_true(waited > 0 && waited < 10);
}

static void who_comes_late_is_waited_for_again(void **state) {
    (void)state;
    flushed(8, 0);
    assert_false(gathers(5, 0)); /* most of them came */
    flushed(8, 0);
    assert_true(gathers(1, 500000));
}

static void what_cannot_grow_is_flushed_at_once(void **state) {
    (void)state;
    flushed(8, 0);
    f.sealed = true;
    assert_false(gathers(1, 500000));
    f.sealed = false;
    a.finishing = true;
    assert_false(gathers(1, 500000));
    a.finishing = false;
    a.fill.used = EG_ARCHIVE_SLICE;
    assert_false(gathers(1, 500000));
    a.fill.used = 0;
    assert_true(gathers(1, 500000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(as_many_as_were_there_are_waited_for, setup),
        cmocka_unit_test_setup(nobody_is_waited_for_who_was_not_woken, setup),
        cmocka_unit_test_setup(it_ends_in_time_and_is_not_tried_again_soon, setup),
        cmocka_unit_test_setup(who_comes_late_is_waited_for_again, setup),
        cmocka_unit_test_setup(what_cannot_grow_is_flushed_at_once, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
