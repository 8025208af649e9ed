/* Fault points: hits are counted, and the right one acts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/errbuf.h"
#include "sys/faultpoint.h"

static char seen[256]; /* the names that the hook was called with */

static void note(const char *name, void *arg) {
    assert_ptr_equal(arg, seen);
    strcat(seen, name);
    strcat(seen, " ");
}

static int clear(void **state) {
    (void)state;
    seen[0] = '\0';
    eg_fault_set_hook(NULL, NULL);
    return eg_fault_configure(NULL);
}

/* As the macro does, in builds that leave it empty, too. */
static void hit(const char *name) {
    if (eg_load_relaxed(&eg_fault_armed) != 0) {
        eg_fault_hit(name);
    }
}

static void nothing_is_armed_at_first(void **state) {
    (void)state;
    assert_int_equal(eg_load_relaxed(&eg_fault_armed), 0);
    hit("a");
}

static void a_hook_sees_every_hit(void **state) {
    (void)state;
    eg_fault_set_hook(note, seen);
    hit("a");
    hit("b");
    hit("a");
    assert_string_equal(seen, "a b a ");
    eg_fault_set_hook(NULL, NULL);
    hit("a");
    assert_string_equal(seen, "a b a ");
    assert_int_equal(eg_load_relaxed(&eg_fault_armed), 0);
}

static void call_entries_choose_the_hits(void **state) {
    (void)state;
    eg_fault_set_hook(note, seen);
    assert_int_equal(eg_fault_configure("a@2=call,b=call"), 0);
    for (int i = 0; i < 4; i++) {
        hit("a");
        hit("b");
        hit("c");
    }
    assert_string_equal(seen, "b a ");
}

#ifdef EG_FAULTPOINTS
static void the_macro_hits(void **state) {
    (void)state;
    eg_fault_set_hook(note, seen);
    EG_FAULT("claim.done");
    assert_string_equal(seen, "claim.done ");
}
#endif

/* What becomes of a child that hits a, b, a, b: the wait status, and how far it came. */
static int fate(const char *spec, int *hits) {
    int progress[2], status;
    char c;
    assert_int_equal(pipe(progress), 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        if (eg_fault_configure(spec) != 0) {
            _exit(1);
        }
        for (int i = 0; i < 4; i++) {
            hit(i % 2 == 0 ? "a" : "b");
            (void)!write(progress[1], "x", 1);
        }
        _exit(0);
    }
    (void)close(progress[1]);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    for (*hits = 0; read(progress[0], &c, 1) == 1; (*hits)++) {}
    (void)close(progress[0]);
    return status;
}

static void actions_act_on_their_hit(void **state) {
    (void)state;
    int hits;
    int status = fate("b=kill", &hits);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(hits, 1);
    status = fate("x=kill,a@2=kill", &hits);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(hits, 2);
    status = fate("b@2=stop", &hits);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    assert_int_equal(hits, 3);
    status = fate("a=abort", &hits);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_int_equal(hits, 0);
    status = fate("a@3=kill", &hits);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(hits, 4);
}

static void malformed_lists_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"a",         "a=",        "=kill",    "a=explode",
                                      "a@=kill",   "a@0=kill",  "a@x=kill", "@2=kill",
                                      "a@2x=kill", "a@-1=kill", "a=kill,",  ",a=kill"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(eg_fault_configure(bad[i]), EAGRE_E_INVALID);
        assert_non_null(strstr(eg_error_text(), bad[i]));
        assert_int_equal(eg_load_relaxed(&eg_fault_armed), 0);
    }
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(eg_fault_configure(big), EAGRE_E_INVALID);
    assert_int_equal(eg_fault_configure("a=call,a=call,a=call,a=call,a=call,a=call,a=call,a=call,"
                                        "a=call,a=call,a=call,a=call,a=call,a=call,a=call,a=call,"
                                        "a=call"),
                     EAGRE_E_INVALID);
    assert_int_equal(eg_fault_configure(""), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_is_armed_at_first, clear),
        cmocka_unit_test_teardown(a_hook_sees_every_hit, clear),
        cmocka_unit_test_teardown(call_entries_choose_the_hits, clear),
#ifdef EG_FAULTPOINTS
        cmocka_unit_test_teardown(the_macro_hits, clear),
#endif
        cmocka_unit_test_teardown(actions_act_on_their_hit, clear),
        cmocka_unit_test_teardown(malformed_lists_are_refused, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
