/*
 * Readers that really sleep, producers that really wake: each sleep has no time limit of its own, so a lost
 * wake-up is a hang (SIGALRM ends it). Ping-pong: after each round everybody sleeps before the next record
 * comes, so that nobody is woken by chance.
 */
#include <sched.h>

#include "unit/log/fake_bus.h"

#define SLEEPERS 3u
#define HANG_S 100u

#ifdef __SANITIZE_THREAD__
#define FENCE true /* ThreadSanitizer cannot know what a membarrier orders */
#define ROUNDS 2000u
#else
#define FENCE false
#define ROUNDS 20000u
#endif

static struct fake_bus *bus;
static _Atomic uint64_t answers; /* records seen, by all sleepers */
static _Atomic uint64_t slept;

static void *sleeper(void *arg) {
    uint32_t bell = *(const uint32_t *)arg;
    struct fake_reader r;
    fake_reader_open(bus, &r, 0);
    r.r.fence = FENCE;
    for (int64_t offset = 0; offset < ROUNDS;) {
        eagre_record_t rec;
        size_t n;
        int rc = eg_reader_poll(&r.r, &rec, 1, &n);
        FAKE_REQUIRE(rc == EAGRE_OK);
        if (n == 1) {
            FAKE_REQUIRE(rec.offset == offset++);
            atomic_fetch_add(&answers, 1);
            continue;
        }
        uint32_t seen = eg_load_acquire(&bus->bells->bell[bell].rings);
        eg_sleep_announce(bus->waiters, bell);
        eg_membarrier();
        if (!eg_reader_has_news(&r.r)) {
            eg_fetch_add_relaxed(&slept, 1);
            while (eg_load_acquire(&bus->bells->bell[bell].rings) == seen)
                eg_futex_wait(&bus->bells->bell[bell].rings, seen, -1);
        }
        eg_sleep_retract(bus->waiters, bell);
    }
    fake_reader_close(&r);
    return NULL;
}

static void nobody_sleeps_through_a_record(void **state) {
    (void)state;
    (void)alarm(HANG_S);
    if (!FENCE)
        (void)eg_membarrier_register();
    bus = fake_bus_open(FAKE_SEGMENT * 64, 3, 64, 0);
    struct fake_writer w;
    fake_writer_open(bus, &w, 1);
    w.w.fence = FENCE;
    uint32_t bells[SLEEPERS] = {1, 2, 70}; /* two share a word */
    pthread_t threads[SLEEPERS];
    for (uint32_t i = 0; i < SLEEPERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, sleeper, &bells[i]), 0);
    uint64_t rand = 5;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        assert_ok(fake_put_probe(&w.w, NULL));
        uint64_t ahead = eg_rand_next(&rand) % 3; /* of the slowest, in records */
        while (atomic_load(&answers) + ahead * SLEEPERS < (round + 1) * SLEEPERS)
            (void)sched_yield();
    }
    for (uint32_t i = 0; i < SLEEPERS; i++)
        (void)pthread_join(threads[i], NULL);
    (void)alarm(0);
    assert_true(atomic_load(&slept) > 0);
    print_message("%llu sleeps in %u rounds\n", (unsigned long long)slept, ROUNDS);
    struct eg_check_report report = {0};
    eg_check_waiters(bus->waiters, &report);
    assert_int_equal(report.problems, 0);
    fake_writer_close(&w);
    fake_bus_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nobody_sleeps_through_a_record)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
