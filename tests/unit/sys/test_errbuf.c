/* Error texts, and the map of statuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "sys/errbuf.h"

static void sets_text_and_returns_the_status(void **state) {
    (void)state;
    errno = ENOENT;
    assert_int_equal(eg_error_set(EAGRE_E_IO, "%s: cannot write %d bytes", "/x", 7), EAGRE_E_IO);
    assert_int_equal(errno, ENOENT);
    assert_string_equal(eagre_error_detail(), "/x: cannot write 7 bytes");
    assert_string_equal(eg_error_text(), "/x: cannot write 7 bytes");
}

static void adds_a_prefix(void **state) {
    (void)state;
    (void)eg_error_set(EAGRE_E_LIMIT, "too many slots");
    assert_int_equal(eg_error_add(EAGRE_E_LIMIT, "topic '%s'", "a"), EAGRE_E_LIMIT);
    assert_string_equal(eg_error_text(), "topic 'a': too many slots");
}

static void may_quote_its_own_text(void **state) {
    (void)state;
    (void)eg_error_set(EAGRE_E_IO, "inner");
    (void)eg_error_set(EAGRE_E_IO, "outer (%s)", eg_error_text());
    assert_string_equal(eg_error_text(), "outer (inner)");
}

static void cuts_and_keeps_one_line(void **state) {
    (void)state;
    char big[2 * EG_ERROR_TEXT_MAX];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    (void)eg_error_set(EAGRE_E_IO, "%s", big);
    assert_int_equal(strlen(eg_error_text()), EG_ERROR_TEXT_MAX - 1);
    (void)eg_error_add(EAGRE_E_IO, "prefix");
    assert_int_equal(strlen(eg_error_text()), EG_ERROR_TEXT_MAX - 1);
    assert_memory_equal(eg_error_text(), "prefix: xxx", 11);
    (void)eg_error_add(EAGRE_E_IO, "%s", big);
    assert_int_equal(strlen(eg_error_text()), EG_ERROR_TEXT_MAX - 1);
    (void)eg_error_set(EAGRE_E_IO, "a\nb\x1b[0m");
    assert_string_equal(eg_error_text(), "a b [0m");
}

static void *other_thread(void *arg) {
    (void)arg;
    assert_string_equal(eg_error_text(), "");
    (void)eg_error_set(EAGRE_E_IO, "theirs");
    return NULL;
}

static void is_per_thread(void **state) {
    (void)state;
    pthread_t thread;
    (void)eg_error_set(EAGRE_E_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    (void)pthread_join(thread, NULL);
    assert_string_equal(eg_error_text(), "mine");
}

static void names_every_status(void **state) {
    (void)state;
    assert_string_equal(eagre_status_name(EAGRE_OK), "EAGRE_OK");
    assert_string_equal(eagre_status_name(EAGRE_E_WOULD_BLOCK), "EAGRE_E_WOULD_BLOCK");
    assert_string_equal(eagre_status_text(EAGRE_E_WOULD_BLOCK), "would block");
    enum { CLASS_ERROR, CLASS_RETRY, CLASS_FATAL };
#define CHECK(code, name, class_, text)                                                            \
    assert_string_equal(eagre_status_name(code), "EAGRE_E_" #name);                                \
    assert_string_equal(eagre_status_text(code), text);                                            \
    assert_int_equal(eagre_status_is_retriable(code), CLASS_##class_ == CLASS_RETRY);              \
    assert_int_equal(eagre_status_is_fatal(code), CLASS_##class_ == CLASS_FATAL);
    EAGRE_ERROR_MAP(CHECK)
#undef CHECK
}

static void survives_unknown_statuses(void **state) {
    (void)state;
    const int unknown[] = {1, -10000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        assert_string_equal(eagre_status_name(unknown[i]), "EAGRE_E_?");
        assert_non_null(eagre_status_text(unknown[i]));
        assert_int_equal(eagre_status_is_retriable(unknown[i]), 0);
        assert_int_equal(eagre_status_is_fatal(unknown[i]), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_text_and_returns_the_status),
        cmocka_unit_test(adds_a_prefix),
        cmocka_unit_test(may_quote_its_own_text),
        cmocka_unit_test(cuts_and_keeps_one_line),
        cmocka_unit_test(is_per_thread),
        cmocka_unit_test(names_every_status),
        cmocka_unit_test(survives_unknown_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
