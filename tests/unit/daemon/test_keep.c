/* The keeper's table, and the daemon's memory of what is kept, without a keeper (see also
 * tests/system/test_daemon.c, tests/system/test_systemd.c and tests/fault/test_keep.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "keep.h"
#include "keeper/table.h"
#include "sys/errbuf.h"
#include "sys/rand.h"

/* Against the simplest table that there is. */
static void the_table_finds_what_is_in_it(void **state) {
    (void)state;
    enum { NAMES = 300 };
    struct eg_kept_table *t = calloc(1, sizeof(*t));
    int model[NAMES]; /* fd; -1: not there */
    uint32_t count = 0;
    uint64_t seed = 99;
    char name[EG_KEPT_NAME];
    for (int i = 0; i < NAMES; i++)
        model[i] = -1;
    for (int round = 0; round < 20000; round++) {
        int i = (int)(eg_rand_next(&seed) % NAMES);
        snprintf(name, sizeof(name), "p%d.b%d", i / 3, i % 3);
        uint32_t at = eg_kept_find(t, name);
        assert_int_equal(at != 0, model[i] >= 0);
        if (at != 0) {
            assert_int_equal(t->entry[at].fd, model[i]);
            assert_string_equal(t->entry[at].name, name);
            if (round % 2 == 0) {
                eg_kept_remove(t, at);
                model[i] = -1;
                count--;
            }
        } else {
            assert_int_not_equal(eg_kept_add(t, name, round), 0);
            model[i] = round;
            count++;
        }
        assert_int_equal(t->count, count);
    }
    assert_true(t->used <= NAMES); /* free entries are used again */
    free(t);
}

static void the_table_says_when_it_is_full(void **state) {
    (void)state;
    struct eg_kept_table *t = calloc(1, sizeof(*t));
    char name[EG_KEPT_NAME];
    for (uint32_t i = 0; i < EG_KEPT_MAX; i++) {
        snprintf(name, sizeof(name), "p%u.b0", i);
        assert_int_not_equal(eg_kept_add(t, name, 1), 0);
    }
    assert_int_equal(eg_kept_add(t, "one more", 1), 0);
    eg_kept_remove(t, eg_kept_find(t, "p7.b0"));
    assert_int_not_equal(eg_kept_add(t, "one more", 1), 0);
    free(t);
}

static struct eg_keep *open_none(void) {
    struct eg_config c;
    struct eg_keep *k;
    bool fresh = false;
    assert_int_equal(eg_config_init(&c), 0);
    c.keeper = EG_KEEPER_NONE;
    assert_int_equal(eg_keep_open(&c, &k, &fresh), 0);
    assert_true(fresh);
    return k;
}

static void what_was_put_is_not_handed_back(void **state) {
    (void)state;
    struct eg_keep *k = open_none();
    int fd = open("/dev/null", O_RDONLY);
    assert_int_equal(eg_keep_put(k, "bus", fd), 0);
    assert_int_equal(eg_keep_take(k, "bus"), -1); /* its user has it already */
    assert_null(eg_keep_left(k, 0));
    assert_int_equal(eg_keep_drop(k, "bus"), 0);
    assert_int_equal(eg_keep_drop(k, "bus"), 0);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* never closed behind its user's back */
    assert_int_equal(eg_keep_put(k, "bus", fd), 0);
    assert_int_equal(eg_keep_put(k, "bus", fd), 0);
    eg_keep_close(k, true);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(fd);
}

static void names_are_checked(void **state) {
    (void)state;
    struct eg_keep *k = open_none();
    static const char *const good[] = {"bus", "bells",     "clients",    "t7.event",
                                       "c1",  "t7.status", "p65535.b127"};
    static const char *const bad[] = {"", "buss", "x1", "c", "tx", "../bus", "p"};
    char longest[80];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(eg_keep_put(k, good[i], 0), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(eg_keep_put(k, bad[i], 0), EAGRE_E_INTERNAL);
    memset(longest, '1', sizeof(longest));
    longest[0] = 'c';
    longest[EG_KEEP_NAME_MAX + 1] = '\0';
    assert_int_equal(eg_keep_put(k, longest, 0), EAGRE_E_INTERNAL);
    longest[EG_KEEP_NAME_MAX] = '\0';
    assert_int_equal(eg_keep_put(k, longest, 0), 0);
    eg_keep_close(k, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_finds_what_is_in_it),
        cmocka_unit_test(the_table_says_when_it_is_full),
        cmocka_unit_test(what_was_put_is_not_handed_back),
        cmocka_unit_test(names_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
