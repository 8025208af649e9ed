/* Atomics, pause, prefetch and zeroing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "sys/atomic.h"
#include "sys/cpu.h"

static void atomics_do_what_they_say(void **state) {
    (void)state;
    _Atomic uint64_t word = 5;
    uint64_t expected = 4;
    assert_false(eg_cas_acq_rel(&word, &expected, 9));
    assert_int_equal(expected, 5);
    assert_true(eg_cas_acq_rel(&word, &expected, 9));
    assert_int_equal(eg_load_acquire(&word), 9);
    expected = 9;
    assert_true(eg_cas_relaxed(&word, &expected, 8));
    eg_store_release(&word, 3);
    assert_int_equal(eg_fetch_or_seq_cst(&word, 4), 3);
    assert_int_equal(eg_fetch_add_relaxed(&word, 10), 7);
    assert_int_equal(eg_exchange_acq_rel(&word, 1), 17);
    eg_store_relaxed(&word, 2);
    eg_fence_seq_cst();
    eg_compiler_barrier();
    assert_int_equal(eg_load_relaxed(&word), 2);
}

static void prefetches_never_fault(void **state) {
    (void)state;
    int here = 1;
    eg_prefetch_r(&here);
    eg_prefetch_w(&here);
    eg_prefetch_r((const void *)(uintptr_t)64); /* nobody's page */
    eg_prefetch_w((const void *)(uintptr_t)64);
    eg_cpu_pause();
    assert_int_equal(here, 1);
}

static void zeroes_what_it_should_and_no_more(void **state) {
    (void)state;
    const size_t room = 64 * 66;
    unsigned char *p = aligned_alloc(EG_CACHE_LINE, room);
    for (size_t n = 0; n <= 64 * EG_CACHE_LINE; n += EG_CACHE_LINE) {
        memset(p, 0xff, room);
        eg_zero_stream(p + EG_CACHE_LINE, n);
        for (size_t i = 0; i < room; i++) {
            const int inside = i >= EG_CACHE_LINE && i < EG_CACHE_LINE + n;
            assert_int_equal(p[i], inside ? 0 : 0xff);
        }
    }
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(atomics_do_what_they_say),
        cmocka_unit_test(prefetches_never_fault),
        cmocka_unit_test(zeroes_what_it_should_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
