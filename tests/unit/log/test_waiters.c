/* Sleep and wake: bits, and no lost wake-up wherever the one stands when the other acts. */
#include "unit/log/fake_bus.h"

static struct fake_bus *bus;
static struct fake_writer w;
static struct fake_reader r;

static void open_all(void) {
    bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
    fake_writer_open(bus, &w, 9);
    fake_reader_open(bus, &r, 0);
    eagre_record_t rec;
    size_t n;
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n)); /* stands at the edge */
}

static void close_all(void) {
    fake_reader_close(&r);
    fake_writer_close(&w);
    fake_bus_close(bus);
}

static void check_waiters(void) {
    struct eg_check_report report = {0};
    eg_check_waiters(bus->waiters, &report);
    if (report.problems > 0)
        fail_msg("%s", report.first);
}

static uint32_t rings(uint32_t bell) { return eg_load_acquire(&bus->bells->bell[bell].rings); }
static bool bit(uint32_t bell) { return eg_load_relaxed(&bus->waiters->bits[bell / 64]) >> bell % 64 & 1; }

static int put(void) { return fake_put_probe(&w.w, NULL); }

static void rings_whoever_sleeps_once(void **state) {
    (void)state;
    open_all();
    const uint32_t bells[] = {0, 1, 63, 64, 100, 2047, EG_BELLS_MAX - 1};
    const size_t count = sizeof(bells) / sizeof(*bells);
    assert_ok(put());
    for (size_t i = 0; i < count; i++)
        assert_int_equal(rings(bells[i]), 0);
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < count; i++) {
            eg_sleep_announce(bus->waiters, bells[i]);
            assert_true(bit(bells[i]));
            assert_true(eg_load_relaxed(&bus->waiters->summary) >> bells[i] / 64 & 1);
        }
        check_waiters();
        assert_ok(put());
        assert_ok(put());
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(rings(bells[i]), round);
            assert_false(bit(bells[i]));
        }
        assert_true(eg_load_relaxed(&bus->waiters->summary) == 0);
    }
    assert_int_equal(rings(2), 0);
    /* Taken back: not rung any more; others of the same word are. */
    eg_sleep_announce(bus->waiters, 5);
    eg_sleep_announce(bus->waiters, 6);
    eg_sleep_retract(bus->waiters, 5);
    check_waiters();
    assert_ok(put());
    assert_int_equal(rings(5), 0);
    assert_int_equal(rings(6), 1);
    close_all();
}

static void an_aborted_claim_wakes_too(void **state) {
    (void)state;
    open_all();
    struct eg_claim c;
    assert_ok(eg_writer_claim(&w.w, 64, 1, &c));
    eg_sleep_announce(bus->waiters, 3);
    eg_writer_abort(&w.w, &c);
    assert_int_equal(rings(3), 1);
    close_all();
}

struct collected {
    uint64_t mask[EG_BELLS_MAX / 64];
    uint32_t calls;
};

static void collect(void *ctx, uint32_t word, uint64_t mask) {
    struct collected *c = ctx;
    assert_true(word < EG_BELLS_MAX / 64 && mask != 0);
    c->mask[word] |= mask;
    c->calls++;
}

static void the_daemon_collects(void **state) {
    (void)state;
    open_all();
    struct collected c = {0};
    eg_wake_collect(bus->waiters, collect, &c);
    assert_int_equal(c.calls, 0);
    eg_sleep_announce(bus->waiters, 3);
    eg_sleep_announce(bus->waiters, 65);
    eg_wake_collect(bus->waiters, collect, &c);
    assert_true(c.calls == 2 && c.mask[0] == 8 && c.mask[1] == 2);
    /* A waker died between the summary and the bits: only `all` finds them. */
    eg_sleep_announce(bus->waiters, 7);
    eg_store_relaxed(&bus->waiters->summary, 0);
    c = (struct collected){0};
    eg_wake_collect(bus->waiters, collect, &c);
    assert_int_equal(c.calls, 0);
    eg_wake_collect_all(bus->waiters, collect, &c);
    assert_true(c.calls == 1 && c.mask[0] == 128);
    assert_true(eg_load_relaxed(&bus->waiters->bits[0]) == 0);
    close_all();
}

/* ---- no lost wake-up ---------------------------------------------------------------------------------- */

#define BELL 70u

/* As consumer.c does it. True: it would sleep now, with this count of rings. */
static bool would_sleep(uint32_t *seen) {
    *seen = rings(BELL);
    eg_sleep_announce(bus->waiters, BELL);
    eg_membarrier();
    EG_FAULT("sleep.before_look");
    bool news = eg_reader_has_news(&r.r);
    EG_FAULT("sleep.before_futex");
    return !news;
}

static void publishes(void *ctx) {
    (void)ctx;
    assert_ok(put());
}

/* A record comes at each step of going to sleep: it stays awake, or its bell was rung since. */
static void a_record_at_each_step_of_the_sleeper(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const char *steps[] = {"sleep.bit_set", "sleep.summary_set", "sleep.before_look", "sleep.before_futex"};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        open_all();
        uint32_t seen;
        struct fake_interpose at = {.name = steps[i], .hit = 1, .act = publishes};
        fake_at(&at);
        bool sleeps = would_sleep(&seen);
        fake_at_none();
        assert_true(at.done);
        assert_true(!sleeps || rings(BELL) != seen);
        check_waiters();
        close_all();
    }
}

static bool slept;
static uint32_t seen_rings;
static void goes_to_sleep(void *ctx) {
    (void)ctx;
    slept = would_sleep(&seen_rings);
}

/* Somebody goes to sleep at each step of a waker who wakes another: he finds the record, or is rung by this
 * one, or by the next. */
static void a_sleeper_at_each_step_of_the_waker(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const char *steps[] = {"pin.checked", "claim.done", "publish.done", "unpinned",
                           "wake.summary_cleared", "wake.bits_taken", "wake.bell_rung"};
    const uint32_t others[] = {71, 3}; /* of the same word, of another */
    for (size_t i = 0; i < 2 * sizeof(steps) / sizeof(*steps); i++) {
        open_all();
        assert_ok(put()); /* the writer is on its fast path, the reader behind that record */
        eagre_record_t rec;
        size_t n;
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        eg_reader_unpin(&r.r);
        eg_sleep_announce(bus->waiters, others[i % 2]);
        struct fake_interpose at = {.name = steps[i / 2], .hit = 1, .act = goes_to_sleep};
        fake_at(&at);
        assert_ok(put());
        fake_at_none();
        assert_true(at.done);
        assert_int_equal(rings(others[i % 2]), 1);
        /* Asleep, the record is there, nobody rang: lost. */
        assert_true(!slept || rings(BELL) != seen_rings);
        check_waiters(); /* if its bit stands, so does the summary's: the next publisher rings */
        if (bit(BELL)) {
            assert_ok(put());
            assert_int_equal(rings(BELL), seen_rings + 1);
        }
        close_all();
    }
}

/* A waker dies at each step: the sleeper is late by its bounded sleep at most, since it announces itself anew. */
static void a_waker_that_dies(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const char *steps[] = {"wake.summary_cleared", "wake.bits_taken", "wake.bell_rung"};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        open_all();
        uint32_t seen;
        assert_true(would_sleep(&seen));
        assert_true(fake_put_dies_at(&w.w, steps[i], 1));
        /* Its record can be seen all the same. */
        assert_true(eg_reader_has_news(&r.r));
        eg_sleep_retract(bus->waiters, BELL);
        eagre_record_t rec;
        size_t n;
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        assert_int_equal(n, 1);
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        assert_true(would_sleep(&seen));
        check_waiters();
        assert_ok(put());
        assert_int_equal(rings(BELL), seen + 1);
        close_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings_whoever_sleeps_once),
        cmocka_unit_test(an_aborted_claim_wakes_too),
        cmocka_unit_test(the_daemon_collects),
        cmocka_unit_test(a_record_at_each_step_of_the_sleeper),
        cmocka_unit_test(a_sleeper_at_each_step_of_the_waker),
        cmocka_unit_test(a_waker_that_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
