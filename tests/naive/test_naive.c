/*
 * The log against an array, on random operations from seeds; and the shrinker, on bugs that are not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "naive/naive.h"

#define SEEDS 50u
#define OPS 200u

static void the_log_and_the_array_agree(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct naive_list l;
        char text[NAIVE_TEXT];
        naive_generate(&l, seed, OPS);
        if (!naive_try(&l, text)) {
            print_error("seed %u: %s\n", (unsigned)seed, text);
            naive_shrink(&l, text);
            print_error("%s\n", text);
            naive_print(&l, stderr);
            fail_msg("replay it: eg-naive --replay FILE");
        }
        naive_free(&l);
    }
}

/* A list that fails by the bug, found by chance as a real one would be. */
static void find(struct naive_list *l, enum naive_plant plant, char text[NAIVE_TEXT]) {
    for (uint64_t seed = 1; seed < 100; seed++) {
        naive_generate(l, seed, OPS);
        l->plant = plant;
        if (!naive_try(l, text))
            return;
        naive_free(l);
    }
    fail_msg("nobody finds it");
}

static void count(const struct naive_list *l, uint32_t kinds[NAIVE_KIND_COUNT]) {
    memset(kinds, 0, NAIVE_KIND_COUNT * sizeof(*kinds));
    for (size_t i = 0; i < l->count; i++)
        kinds[l->op[i].kind]++;
}

/* Records of 1000 bytes and more are lost, if a producer put them that came for one that was killed. */
static void a_failure_is_shrunk_to_its_shortest_form(void **state) {
    (void)state;
    struct naive_list l;
    char text[NAIVE_TEXT];
    uint32_t kinds[NAIVE_KIND_COUNT];
    find(&l, NAIVE_LOSES, text);
    assert_true(l.count == OPS);
    naive_shrink(&l, text);
    naive_print(&l, stdout);
    count(&l, kinds);
    assert_int_equal(l.count, 3);
    assert_int_equal(kinds[NAIVE_KILL] + kinds[NAIVE_DIE], 1);
    assert_int_equal(kinds[NAIVE_POLL], 1);
    assert_int_equal(l.capacity, 65536);
    assert_int_equal(l.align, 8);
    assert_non_null(strstr(text, "records of a poll"));
    for (size_t i = 0; i < l.count; i++)
        if (l.op[i].kind == NAIVE_PUT)
            assert_true(l.op[i].who == 0 && l.op[i].size == 1000);
    naive_free(&l);
}

static void a_crash_is_shrunk_too(void **state) {
    (void)state;
    struct naive_list l;
    char text[NAIVE_TEXT];
    find(&l, NAIVE_CRASHES, text);
    naive_shrink(&l, text);
    assert_int_equal(l.count, 2); /* put, poll */
    assert_false(naive_try(&l, text));
    naive_free(&l);
}

static void a_list_is_read_back_as_it_was_printed(void **state) {
    (void)state;
    struct naive_list l, back;
    naive_generate(&l, 7, 1000);
    FILE *f = tmpfile();
    assert_non_null(f);
    naive_print(&l, f);
    rewind(f);
    assert_true(naive_parse(&back, f));
    assert_int_equal(back.count, l.count);
    assert_memory_equal(back.op, l.op, l.count * sizeof(*l.op));
    assert_int_equal(back.capacity, l.capacity);
    (void)fclose(f);
    naive_free(&l);
    naive_free(&back);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_and_the_array_agree),
        cmocka_unit_test(a_failure_is_shrunk_to_its_shortest_form),
        cmocka_unit_test(a_crash_is_shrunk_too),
        cmocka_unit_test(a_list_is_read_back_as_it_was_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
