/* Access lists: what they accept, whom they let in, and what their errors tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access.h"
#include "sys/errbuf.h"

#define OTHER 54321u /* a uid that is neither root nor ours */

static bool allows(const char *list, uid_t uid, gid_t gid, uid_t creator) {
    struct eg_access a;
    struct eg_peer peer = {.uid = uid, .gid = gid, .sock = -1};
    if (eg_access_parse(&a, list, true) != EAGRE_OK)
        fail_msg("'%s': %s", list, eg_error_text());
    return eg_access_allows(&a, &peer, creator);
}

static void lists_let_in_whom_they_name(void **state) {
    (void)state;
    assert_true(allows("*", OTHER, OTHER, 1));
    assert_false(allows("", OTHER, OTHER, 1));
    assert_true(allows("user:54321", OTHER, 7, 1));
    assert_false(allows("user:54322", OTHER, 54322, 1));
    assert_true(allows("group:7", OTHER, 7, 1));
    assert_false(allows("group:54321", OTHER, 7, 1));
    assert_true(allows("creator", OTHER, 7, OTHER));
    assert_false(allows("creator", OTHER, 7, OTHER + 1));
    assert_true(allows("user:1,group:2, user:54321", OTHER, 7, 1));
    assert_true(allows(" , user:54321 ,", OTHER, 7, 1));
}

static void root_and_our_own_user_always_may(void **state) {
    (void)state;
    assert_true(allows("", 0, 0, 1));
    assert_true(allows("", geteuid(), OTHER, 1));
}

static void names_are_looked_up(void **state) {
    struct eg_access a;
    (void)state;
    assert_int_equal(eg_access_parse(&a, "user:root,group:root", true), EAGRE_OK);
    assert_int_equal(a.count, 2);
    assert_int_equal(a.entries[0].kind, EG_ACCESS_USER);
    assert_int_equal(a.entries[0].id, 0);
    assert_int_equal(a.entries[1].kind, EG_ACCESS_GROUP);
    assert_string_equal(a.text, "user:root,group:root");
}

static void who_is_not_known_is_refused_now_and_ignored_later(void **state) {
    struct eg_access a;
    struct eg_peer peer = {.uid = OTHER, .gid = OTHER, .sock = -1};
    (void)state;
    assert_int_equal(eg_access_parse(&a, "user:no-such-user-here", true), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "no-such-user-here"));
    assert_int_equal(eg_access_parse(&a, "user:no-such-user-here,user:54321", false), EAGRE_OK);
    assert_true(eg_access_allows(&a, &peer, 1));
    assert_int_equal(eg_access_parse(&a, "user:no-such-user-here", false), EAGRE_OK);
    assert_false(eg_access_allows(&a, &peer, 0)); /* not user 0, whatever its id was set to */
}

static void nonsense_is_refused_with_the_grammar(void **state) {
    static const char *const bad[] = {
        "everybody", "user",         "user:",           "group:",
        "users:1",   "user:-1",      "user:4294967295", "group:99999999999",
        "**",        "user:1;user:2"};
    struct eg_access a = {.count = 77};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (eg_access_parse(&a, bad[i], true) != EAGRE_E_INVALID_CONFIG)
            fail_msg("'%s' was accepted", bad[i]);
        assert_int_equal(a.count, 77); /* untouched */
    }
    eg_access_parse(&a, "everybody", true);
    assert_non_null(strstr(eg_error_text(), "user:NAME"));
}

static void long_lists_are_refused(void **state) {
    struct eg_access a;
    char list[4096] = "";
    (void)state;
    for (int i = 0; i < 33; i++)
        strcat(list, "*,");
    assert_int_equal(eg_access_parse(&a, list, true), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "use a group"));
    memset(list, '1', sizeof(list) - 1);
    memcpy(list, "user:", 5);
    assert_int_equal(eg_access_parse(&a, list, true), EAGRE_E_INVALID_CONFIG);
    list[0] = '\0';
    for (int i = 0; i < 30; i++)
        strcat(list, "user:1000000,");
    assert_int_equal(eg_access_parse(&a, list, true), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "255 characters"));
}

/* A connection keeps the groups its process had when it connected. */
static void supplementary_groups_count(void **state) {
    const gid_t groups[] = {4242, 4343};
    struct eg_access a;
    int pair[2];
    (void)state;
    if (geteuid() != 0 || setgroups(2, groups) != 0)
        skip();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    struct eg_peer peer = {.uid = OTHER, .gid = OTHER, .sock = pair[0]};
    assert_int_equal(eg_access_parse(&a, "group:4343", true), EAGRE_OK);
    assert_true(eg_access_allows(&a, &peer, 1));
    assert_int_equal(eg_access_parse(&a, "group:4344", true), EAGRE_OK);
    assert_false(eg_access_allows(&a, &peer, 1));
    close(pair[0]);
    close(pair[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_let_in_whom_they_name),
        cmocka_unit_test(root_and_our_own_user_always_may),
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(who_is_not_known_is_refused_now_and_ignored_later),
        cmocka_unit_test(nonsense_is_refused_with_the_grammar),
        cmocka_unit_test(long_lists_are_refused),
        cmocka_unit_test(supplementary_groups_count),
    };
    return cmocka_run_group_tests_name("daemon/access", tests, NULL, NULL);
}
