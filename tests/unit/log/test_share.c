/* A share group on one partition: each record is one member's at a time, and comes back when that member does not
 * finish it. */
#include "log/share.h"
#include "unit/log/fake_bus.h"

#define GROUP 9u
#define WINDOW 64u
#define LOCK_MS 1000u
#define LIMIT 3u
#define MAX 128u

static int64_t now_ns = 5000000000;
static int64_t fake_clock(void) { return now_ns; }
static void pass_ms(int64_t ms) { now_ns += ms * 1000000; }

struct member {
    struct fake_reader reader;
    struct eg_share share;
    eagre_record_t records[MAX];
    struct eg_share_taken taken[MAX];
    size_t n;
};

struct group {
    struct fake_bus *bus;
    struct fake_writer writer;
    int64_t end;
    struct eg_share_cells *cells;
    struct member member[4]; /* numbers 1 .. */
    struct eg_share daemon;
};

static void attach(struct group *g, struct eg_share *s, uint32_t member) {
    assert_ok(eg_share_attach(s, g->cells, eg_share_bytes(g->cells->window), GROUP, FAKE_UID, member));
    s->clock_ns = fake_clock;
}

static struct group *open_at(int64_t first, uint32_t window) {
    struct group *g = calloc(1, sizeof(*g));
    assert_non_null(g);
    g->bus = fake_bus_open(FAKE_SEGMENT, 3, 64, first);
    g->end = first;
    fake_writer_open(g->bus, &g->writer, 1);
    int fd = -1;
    assert_ok(eg_memfd_create("cells", eg_share_bytes(window), false, &fd));
    g->cells = (struct eg_share_cells *)(void *)fake_map_guarded(fd, eg_align_up(eg_share_bytes(window), EG_PAGE), true, NULL);
    (void)close(fd);
    eg_share_init(g->cells, window, GROUP, FAKE_UID, first, LOCK_MS, LIMIT);
    for (uint32_t i = 0; i < 4; i++) {
        fake_reader_open(g->bus, &g->member[i].reader, first);
        attach(g, &g->member[i].share, i + 1);
    }
    attach(g, &g->daemon, 0);
    return g;
}

static struct group *open_group(void) { return open_at(0, WINDOW); }

static void close_group(struct group *g) {
    for (uint32_t i = 0; i < 4; i++)
        fake_reader_close(&g->member[i].reader);
    fake_writer_close(&g->writer);
    fake_unmap_guarded(g->cells, eg_align_up(eg_share_bytes(g->daemon.window), EG_PAGE));
    fake_bus_close(g->bus);
    free(g);
}

static void put(struct group *g, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int rc = fake_put_numbered(&g->writer.w, g->end, 100);
        while (rc == EAGRE_E_WOULD_BLOCK) {
            fake_daemon_work(g->bus, 1, true);
            rc = fake_put_numbered(&g->writer.w, g->end, 100);
        }
        assert_ok(rc);
        g->end++;
    }
}

static size_t poll_max(struct member *m, size_t max) {
    assert_ok(eg_share_poll(&m->share, &m->reader.r, m->records, m->taken, max, &m->n));
    for (size_t i = 0; i < m->n; i++) {
        assert_true(m->records[i].offset == m->taken[i].offset);
        assert_true(fake_is_numbered(&m->records[i]));
    }
    return m->n;
}

static bool end(struct member *m, size_t i, enum eg_share_end how) { return eg_share_end(&m->share, &m->taken[i], how); }

static bool end_by(struct member *m, int64_t offset, uint64_t word) {
    struct eg_share_taken taken = {offset, word};
    return eg_share_end(&m->share, &taken, EG_SHARE_ACCEPT);
}

/* By what the cell says. */
static bool end_at(struct member *m, int64_t offset, enum eg_share_end how) {
    struct eg_share_taken taken = {offset, eg_share_word(&m->share, offset)};
    return eg_share_end(&m->share, &taken, how);
}

static uint32_t count_of(const struct member *m, size_t i) { return eg_share_count(m->taken[i].word); }

static struct eg_share_figures figures(struct group *g) {
    struct eg_share_figures f;
    eg_share_figures(&g->daemon, &f);
    return f;
}

static void words_hold_what_was_put_in(void **state) {
    (void)state;
    uint64_t w = eg_share_make(EG_SHARE_LAPS - 1, EG_SHARE_TIMES - 1, 16384, 31, EG_SHARE_DONE);
    assert_int_equal(eg_share_lap(w), EG_SHARE_LAPS - 1);
    assert_int_equal(eg_share_time(w), EG_SHARE_TIMES - 1);
    assert_int_equal(eg_share_member(w), 16384);
    assert_int_equal(eg_share_count(w), 31);
    assert_int_equal(eg_share_state(w), EG_SHARE_DONE);
    w = eg_share_make(1, 2, 3, 4, EG_SHARE_ACQUIRED);
    assert_true(w == (1ull << 39 | 2ull << 22 | 3u << 7 | 4u << 2 | 1u));
}

static void objects_of_others_are_refused(void **state) {
    (void)state;
    struct group *g = open_group();
    struct eg_share s;
    size_t bytes = eg_share_bytes(WINDOW);
    assert_int_equal(eg_share_attach(&s, g->cells, bytes - 1, GROUP, FAKE_UID, 1), EAGRE_E_CORRUPT);
    assert_int_equal(eg_share_attach(&s, g->cells, 100, GROUP, FAKE_UID, 1), EAGRE_E_CORRUPT);
    assert_int_equal(eg_share_attach(&s, g->cells, bytes, GROUP + 1, FAKE_UID, 1), EAGRE_E_CORRUPT);
    assert_int_equal(eg_share_attach(&s, g->cells, bytes, GROUP, FAKE_UID + 1, 1), EAGRE_E_CORRUPT);
    for (uint32_t bad = 0; bad < 3; bad++) {
        g->cells->window = bad == 0 ? 0 : bad == 1 ? WINDOW - 1 : 2 * EG_SHARE_WINDOW_MAX;
        assert_int_equal(eg_share_attach(&s, g->cells, SIZE_MAX, GROUP, FAKE_UID, 1), EAGRE_E_CORRUPT);
    }
    g->cells->window = WINDOW;
    g->cells->magic.fingerprint ^= 1;
    assert_int_equal(eg_share_attach(&s, g->cells, bytes, GROUP, FAKE_UID, 1), EAGRE_E_VERSION);
    close_group(g);
}

/* Over many laps of the window and many segments, whatever sizes the polls have. */
static void each_record_is_one_members(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct group *g = open_at(seed % 3 == 0 ? 100000 : 0, WINDOW);
        int64_t first = g->end;
        uint64_t rand = seed;
        static uint8_t seen[4000];
        memset(seen, 0, sizeof(seen));
        while (g->end - first < 4000) {
            size_t left = (size_t)(4000 - (g->end - first)), some = 1 + eg_rand_next(&rand) % 80;
            put(g, some < left ? some : left);
            for (int turns = 0; figures(g).start < g->end; turns++) {
                struct member *m = &g->member[eg_rand_next(&rand) % 4];
                assert_true(turns < 10000);
                for (size_t i = 0; i < m->n; i++)
                    assert_true(end(m, i, EG_SHARE_ACCEPT));
                poll_max(m, 1 + eg_rand_next(&rand) % 70);
                for (size_t i = 0; i < m->n; i++) {
                    assert_int_equal(seen[m->taken[i].offset - first]++, 0);
                    assert_int_equal(count_of(m, i), 1);
                }
            }
            /* What is the last one's is accepted only now. */
        }
        for (size_t i = 0; i < 4000; i++)
            assert_int_equal(seen[i], 1);
        struct eg_share_figures f = figures(g);
        assert_int_equal(f.acquired + f.returned + f.redelivered + f.archived + f.rejected + f.expired, 0);
        close_group(g);
    }
}

static void what_is_acquired_is_nobody_elses(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 3);
    assert_int_equal(poll_max(&g->member[0], 2), 2);
    assert_int_equal(poll_max(&g->member[1], 10), 1);
    assert_int_equal(poll_max(&g->member[2], 10), 0);
    assert_false(eg_share_has_news(&g->member[2].share, &g->member[2].reader.r));
    /* Nor can another one answer for it. */
    assert_false(end_at(&g->member[1], 0, EG_SHARE_ACCEPT));
    assert_false(end_by(&g->member[1], 0, g->member[0].taken[0].word));
    assert_false(end_at(&g->member[1], 7, EG_SHARE_ACCEPT)); /* not taken by anyone */
    assert_false(end_at(&g->member[1], -1, EG_SHARE_ACCEPT));
    assert_false(end_by(&g->member[1], -1, g->member[1].taken[0].word));
    assert_true(end_at(&g->member[0], 0, EG_SHARE_ACCEPT));
    assert_false(end(&g->member[0], 0, EG_SHARE_ACCEPT)); /* once */
    assert_false(end_at(&g->member[0], 0, EG_SHARE_RELEASE));
    assert_int_equal(figures(g).start, 1);
    assert_int_equal(figures(g).acquired, 2);
    close_group(g);
}

static void a_released_record_is_taken_next(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 40);
    assert_int_equal(poll_max(&g->member[0], 30), 30);
    assert_true(end(&g->member[0], 7, EG_SHARE_RELEASE));
    assert_false(end(&g->member[0], 7, EG_SHARE_ACCEPT));
    assert_true(eg_share_has_news(&g->member[1].share, &g->member[1].reader.r));
    assert_int_equal(poll_max(&g->member[1], 1), 1);
    assert_int_equal(g->member[1].taken[0].offset, 7);
    assert_int_equal(count_of(&g->member[1], 0), 2);
    assert_int_equal(figures(g).redelivered, 1);
    assert_int_equal(poll_max(&g->member[1], 64), 10); /* the hint goes on where it was */
    assert_int_equal(g->member[1].taken[0].offset, 30);
    close_group(g);
}

static void delivered_too_often_is_archived(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 2);
    for (uint32_t i = 1; i <= LIMIT; i++) {
        assert_int_equal(poll_max(&g->member[i % 2], 1), 1);
        assert_int_equal(g->member[i % 2].taken[0].offset, 0);
        assert_int_equal(count_of(&g->member[i % 2], 0), i);
        assert_true(end(&g->member[i % 2], 0, EG_SHARE_RELEASE));
    }
    assert_int_equal(figures(g).archived, 1);
    assert_int_equal(figures(g).start, 1);
    assert_int_equal(poll_max(&g->member[0], 10), 1);
    assert_int_equal(g->member[0].taken[0].offset, 1);
    assert_true(end(&g->member[0], 0, EG_SHARE_REJECT));
    assert_int_equal(figures(g).rejected, 1);
    assert_int_equal(figures(g).archived, 1);
    assert_int_equal(figures(g).start, 2);
    assert_int_equal(poll_max(&g->member[1], 10), 0);
    close_group(g);
}

static void an_acquisition_ends_with_its_time(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 1);
    assert_int_equal(poll_max(&g->member[0], 10), 1);
    pass_ms(LOCK_MS);
    assert_int_equal(poll_max(&g->member[1], 10), 0); /* not a moment too early */
    pass_ms(100);
    assert_int_equal(poll_max(&g->member[1], 10), 1);
    assert_int_equal(count_of(&g->member[1], 0), 2);
    assert_int_equal(figures(g).expired, 1);
    assert_false(end(&g->member[0], 0, EG_SHARE_ACCEPT));
    assert_false(end(&g->member[0], 0, EG_SHARE_RELEASE));
    assert_false(end_at(&g->member[0], 0, EG_SHARE_ACCEPT));
    assert_true(end(&g->member[1], 0, EG_SHARE_ACCEPT));
    assert_int_equal(count_of(&g->member[1], 0), 2); /* it can still be asked for */
    assert_false(end(&g->member[1], 0, EG_SHARE_ACCEPT));
    assert_int_equal(figures(g).start, 1);
    close_group(g);
}

/* Nobody has come for it yet, but its time is over: it cannot be accepted, whoever looks first. */
static void too_late_is_too_late(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 2);
    assert_int_equal(poll_max(&g->member[0], 2), 2);
    pass_ms(LOCK_MS + 100);
    assert_false(end(&g->member[0], 0, EG_SHARE_ACCEPT));
    eg_share_accept(&g->member[0].share, g->member[0].taken, 2);
    assert_int_equal(figures(g).start, 0);
    assert_int_equal(figures(g).expired, 2);
    assert_int_equal(poll_max(&g->member[0], 10), 2); /* it may have them again */
    eg_share_accept(&g->member[0].share, g->member[0].taken, 2);
    assert_int_equal(figures(g).start, 2);
    close_group(g);
}

/* Who sweeps has read its clock, and sleeps; then another one acquires: that is not late. */
static struct group *interposed;
static void take_later(void *ctx) {
    (void)ctx;
    pass_ms(LOCK_MS + 200);
    assert_int_equal(poll_max(&interposed->member[1], 1), 1);
}
static void a_clock_that_was_read_earlier_expires_nothing(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    struct group *g = interposed = open_group();
    put(g, 2);
    struct fake_interpose i = {.name = "share.seen", .hit = 1, .act = take_later};
    fake_at(&i); /* member 1 is about to take record 0, by a clock of long ago, and finds that member 2 has it */
    assert_int_equal(poll_max(&g->member[0], 1), 1);
    fake_at_none();
    assert_int_equal(g->member[1].taken[0].offset, 0);
    assert_int_equal(g->member[0].taken[0].offset, 1);
    struct eg_share old = g->daemon;
    now_ns -= (LOCK_MS + 200) * 1000000;
    assert_int_equal(eg_share_sweep(&old, 0), 0);
    now_ns += (LOCK_MS + 200) * 1000000;
    assert_true(end(&g->member[1], 0, EG_SHARE_ACCEPT));
    close_group(g);
}

/* Its clock was read before it slept for minutes, and once more when it found something that looks late. */
static int64_t slept_ns;
static int64_t old_then_now(void) {
    int64_t at = now_ns - slept_ns;
    slept_ns = 0;
    return at;
}
static void who_slept_looks_at_its_clock_again(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 1);
    assert_int_equal(poll_max(&g->member[0], 1), 1);
    g->daemon.clock_ns = old_then_now;
    slept_ns = INT64_C(400000000000);
    assert_int_equal(eg_share_sweep(&g->daemon, 0), 0);
    assert_true(end(&g->member[0], 0, EG_SHARE_ACCEPT));
    close_group(g);
}

/* Another one takes what we are about to: what it leaves is ours, by the same poll. */
static void take_one(void *ctx) { assert_int_equal(poll_max(ctx, 1), 1); }
static void what_others_leave_is_found_at_once(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    struct group *g = open_group();
    put(g, 10);
    struct fake_interpose i = {.name = "pin.checked", .hit = 1, .act = take_one, .ctx = &g->member[0]};
    fake_at(&i);
    assert_int_equal(poll_max(&g->member[1], 64), 9);
    fake_at_none();
    assert_true(i.done);
    close_group(g);
}

static void the_dead_give_back_what_they_have(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 60);
    assert_int_equal(poll_max(&g->member[0], 20), 20);
    assert_int_equal(poll_max(&g->member[1], 20), 20);
    assert_true(end(&g->member[0], 3, EG_SHARE_ACCEPT));
    assert_int_equal(eg_share_sweep(&g->daemon, 1), 19);
    pass_ms(70); /* who has taken just now is left to take what follows */
    assert_int_equal(figures(g).acquired, 20);
    assert_int_equal(figures(g).returned, 19);
    assert_int_equal(poll_max(&g->member[2], 64), 39);
    for (size_t i = 0; i < 39; i++)
        assert_int_equal(count_of(&g->member[2], i), g->member[2].taken[i].offset < 20 ? 2 : 1);
    /* Its number is another's now: what the dead one had is not. */
    struct eg_share again;
    attach(g, &again, 1);
    for (size_t i = 0; i < 20; i++)
        assert_false(eg_share_end(&again, &g->member[0].taken[i], EG_SHARE_ACCEPT));
    assert_int_equal(eg_share_sweep(&g->daemon, 1), 0);
    close_group(g);
}

/* Takes 12 records and ends them, unless it dies at the step. */
static void work(struct member *m, const char *step, uint32_t hit) {
    jmp_buf dead;
    struct fake_interpose i = {.name = step, .hit = hit, .act = fake_jump, .ctx = &dead};
    fake_at(&i);
    if (setjmp(dead) == 0) {
        (void)poll_max(m, 12);
        for (size_t r = 0; r < 12; r++)
            (void)end(m, r, r % 3 == 1 ? EG_SHARE_RELEASE : EG_SHARE_ACCEPT);
    }
    fake_at_none();
}

/* A member ends at each named step: what it did counts, what it did not comes back, nobody waits. */
static void ends_at_any_step(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    static const char *const steps[] = {"share.seen", "share.taken", "share.acked", "share.back", "share.moved"};
    for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++)
        for (uint32_t hit = 1; hit <= 12; hit++) {
            struct group *g = open_group();
            put(g, 12);
            work(&g->member[0], steps[k], hit);
            uint32_t done = 0, delivered = 0;
            if (hit % 2 == 0)
                (void)eg_share_sweep(&g->daemon, 1);
            else
                pass_ms(LOCK_MS + 100); /* no daemon: time does it */
            for (int turns = 0; figures(g).start < 12; turns++) {
                assert_true(turns < 20);
                delivered += (uint32_t)poll_max(&g->member[1], 5);
                for (size_t r = 0; r < g->member[1].n; r++)
                    done += end(&g->member[1], r, EG_SHARE_ACCEPT);
                pass_ms(40);
            }
            assert_int_equal(done, delivered);
            assert_true(done >= 4);
            assert_int_equal(poll_max(&g->member[1], 5), 0);
            close_group(g);
        }
}

static void no_more_than_the_window(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, WINDOW + 10);
    assert_int_equal(poll_max(&g->member[0], 128), WINDOW);
    assert_int_equal(poll_max(&g->member[1], 128), 0);
    assert_false(eg_share_has_news(&g->member[1].share, &g->member[1].reader.r));
    for (size_t i = 1; i < WINDOW; i++)
        assert_true(end(&g->member[0], i, EG_SHARE_ACCEPT));
    assert_int_equal(poll_max(&g->member[1], 128), 0); /* the first one holds the others up, as far as the window goes */
    assert_true(end(&g->member[0], 0, EG_SHARE_ACCEPT));
    assert_int_equal(figures(g).start, WINDOW);
    assert_true(eg_share_has_news(&g->member[1].share, &g->member[1].reader.r));
    assert_int_equal(poll_max(&g->member[1], 128), 10);
    close_group(g);
}

static void offsets_without_a_record_are_passed_over(void **state) {
    (void)state;
    struct group *g = open_group();
    struct eg_claim c;
    for (uint32_t round = 0; round < 5; round++) {
        put(g, 1);
        assert_ok(eg_writer_claim(&g->writer.w, 64 * 10, 10, &c));
        eg_writer_abort(&g->writer.w, &c);
        g->end += 10;
        put(g, 1);
    }
    assert_ok(eg_writer_claim(&g->writer.w, 64 * 100, 100, &c)); /* more than the window */
    eg_writer_abort(&g->writer.w, &c);
    g->end += 100;
    size_t got = 0;
    for (int turns = 0; figures(g).start < g->end; turns++) {
        struct member *m = &g->member[turns % 3];
        assert_true(turns < 50);
        got += poll_max(m, 3);
        eg_share_accept(&m->share, m->taken, m->n);
    }
    assert_int_equal(got, 10);
    /* One that is held keeps start where it is; the rest is passed over behind it. */
    put(g, 1);
    assert_int_equal(poll_max(&g->member[0], 1), 1);
    assert_ok(eg_writer_claim(&g->writer.w, 64 * 100, 100, &c));
    eg_writer_abort(&g->writer.w, &c);
    g->end += 100;
    put(g, 5);
    assert_int_equal(poll_max(&g->member[1], 10), 0); /* the window is full of nothing */
    assert_true(end(&g->member[0], 0, EG_SHARE_ACCEPT));
    assert_int_equal(poll_max(&g->member[1], 10), 5);
    close_group(g);
}

/* The log's start moves beyond what the group has got to: it goes on there. Who holds what is gone may finish it. */
static void what_the_log_lets_go_is_passed_over(void **state) {
    (void)state;
    struct group *g = open_group();
    put(g, 100);
    assert_int_equal(poll_max(&g->member[0], 10), 10);
    assert_true(end(&g->member[0], 1, EG_SHARE_RELEASE));
    put(g, 2000);
    int64_t begin = (int64_t)eg_load_acquire(&g->bus->status->log_start);
    assert_true(begin > 100);
    assert_int_equal(poll_max(&g->member[1], 5), 5);
    assert_int_equal(g->member[1].taken[0].offset, begin);
    assert_int_equal(count_of(&g->member[1], 0), 1);
    assert_int_equal(figures(g).start, begin);
    bool ended = end(&g->member[0], 0, EG_SHARE_ACCEPT); /* its cell is another record's by now, or not: no harm */
    (void)ended;
    eg_share_accept(&g->member[1].share, g->member[1].taken, 5);
    assert_int_equal(figures(g).start, begin + 5);
    close_group(g);
}

/* About to take a record, and asleep while others go round the window, once and just to the same cell again. */
static void a_lap_further(void *ctx) {
    struct group *g = ctx;
    struct member *m = &g->member[1];
    for (int64_t until = figures(g).start + WINDOW; figures(g).start < until;) {
        put(g, 1);
        assert_int_equal(poll_max(m, 1), 1);
        assert_true(end(m, 0, EG_SHARE_ACCEPT));
    }
    put(g, 8);
}
static void who_sleeps_over_a_lap_takes_nothing_of_the_next(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (int released = 0; released < 2; released++) {
        struct group *g = open_group();
        put(g, 1);
        if (released) {
            assert_int_equal(poll_max(&g->member[2], 1), 1);
            assert_true(end(&g->member[2], 0, EG_SHARE_RELEASE));
        }
        struct fake_interpose i = {.name = "share.seen", .hit = 1, .act = a_lap_further, .ctx = g};
        fake_at(&i);
        size_t n = poll_max(&g->member[0], 64);
        fake_at_none();
        assert_true(n > 0); /* and what it has, it has for good */
        for (size_t k = 0; k < n; k++) {
            assert_true(g->member[0].taken[k].offset >= figures(g).start);
            assert_int_equal(count_of(&g->member[0], k), 1);
        }
        eg_share_accept(&g->member[0].share, g->member[0].taken, n);
        while (poll_max(&g->member[1], 64) > 0)
            eg_share_accept(&g->member[1].share, g->member[1].taken, g->member[1].n);
        assert_int_equal(figures(g).start, g->end);
        close_group(g);
    }
}

/* The same before it looked at the cell: the word of a later lap is not taken for one that nobody has touched. */
static void laps_further(void *ctx) {
    struct group *g = ctx;
    for (int i = 0; i < 3; i++)
        a_lap_further(g);
    while (figures(g).start < g->end) {
        assert_true(poll_max(&g->member[1], 64) > 0);
        eg_share_accept(&g->member[1].share, g->member[1].taken, g->member[1].n);
    }
    put(g, 64);
    assert_int_equal(poll_max(&g->member[1], 64), 64); /* and holds them */
}
static void a_word_of_a_later_lap_is_not_one_of_before(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    struct group *g = open_group();
    put(g, 1);
    struct fake_interpose i = {.name = "pin.checked", .hit = 1, .act = laps_further, .ctx = g};
    fake_at(&i);
    assert_int_equal(poll_max(&g->member[0], 64), 0);
    fake_at_none();
    assert_true(i.done);
    for (size_t k = 0; k < 64; k++)
        assert_true(end(&g->member[1], k, EG_SHARE_ACCEPT));
    assert_int_equal(figures(g).start, g->end);
    close_group(g);
}

static void a_record_that_cannot_be_read_is_archived_in_the_end(void **state) {
    (void)state;
    struct group *g = open_group();
    struct member *m = &g->member[0];
    put(g, 3);
    assert_int_equal(poll_max(m, 1), 1);
    uint8_t *bytes = fake_segment(g->bus, 0);
    uint64_t at = EG_SEGMENT_DATA + eg_frame_length(100, 64);
    bytes[at + 60] ^= 1; /* of record 1 */
    eg_share_accept(&m->share, m->taken, 1);
    uint32_t failures = 0;
    for (int turns = 0; figures(g).start < 3; turns++) {
        assert_true(turns < 20);
        int rc = eg_share_poll(&m->share, &m->reader.r, m->records, m->taken, 10, &m->n);
        if (rc != EAGRE_OK) {
            assert_int_equal(rc, EAGRE_E_CORRUPT);
            assert_int_equal(m->n, 0);
            assert_int_equal(figures(g).acquired, 0);
            failures++;
        }
        eg_share_accept(&m->share, m->taken, m->n);
    }
    assert_int_equal(failures, LIMIT);
    assert_int_equal(figures(g).archived, 1);
    close_group(g);
}

/* Whatever members write: everything ends, within the object. */
static void nonsense_in_the_cells_harms_nobody_else(void **state) {
    (void)state;
    uint64_t rand = 7;
    for (int round = 0; round < 300; round++) {
        struct group *g = open_at(round % 2 == 0 ? 0 : 1000000, 512); /* its cells end with a page */
        struct member *m = &g->member[0];
        put(g, round % 4 == 0 ? 600 : 70);
        (void)poll_max(m, 20);
        for (int k = 0; k < 40; k++)
            eg_store_relaxed(&g->cells->cell[eg_rand_next(&rand) % 512], eg_rand_next(&rand));
        if (round % 3 == 0)
            eg_store_relaxed(&g->cells->hint, eg_rand_next(&rand));
        if (round % 5 == 0)
            eg_store_relaxed(&g->cells->start, eg_rand_next(&rand));
        if (round % 7 == 0)
            eg_store_relaxed(&g->cells->start, (uint64_t)g->end + 10);
        eg_store_relaxed(&g->cells->limit, (uint32_t)eg_rand_next(&rand));
        eg_store_relaxed(&g->cells->lock_ms, (uint32_t)eg_rand_next(&rand));
        struct eg_share_figures f = figures(g);
        assert_true(f.start >= 0 && f.start < EG_OFFSET_MAX && f.acquired <= 512 && f.returned <= 512);
        (void)eg_share_sweep(&g->daemon, 1);
        for (int turns = 0; turns < 5; turns++) {
            (void)eg_share_poll(&m->share, &m->reader.r, m->records, m->taken, MAX, &m->n);
            assert_true(m->n <= MAX);
            (void)eg_share_has_news(&m->share, &m->reader.r);
            eg_share_accept(&m->share, m->taken, m->n);
        }
        eg_share_skip(&g->daemon, g->end);
        close_group(g);
    }
}

static uint32_t moves;
static void count_moves(const char *name, void *arg) {
    (void)arg;
    moves += strcmp(name, "share.moving") == 0;
}

/* A start that is no offset: nobody works to move it. */
static void nonsense_as_start_costs_nothing(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    struct group *g = open_group();
    put(g, 4);
    assert_int_equal(poll_max(&g->member[0], 4), 4);
    eg_store_relaxed(&g->cells->start, UINT64_C(1) << 63);
    eg_fault_set_hook(count_moves, NULL);
    eg_share_accept(&g->member[0].share, g->member[0].taken, 4);
    eg_fault_set_hook(NULL, NULL);
    assert_int_equal(moves, 0);
    close_group(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_hold_what_was_put_in),
        cmocka_unit_test(objects_of_others_are_refused),
        cmocka_unit_test(each_record_is_one_members),
        cmocka_unit_test(what_is_acquired_is_nobody_elses),
        cmocka_unit_test(a_released_record_is_taken_next),
        cmocka_unit_test(delivered_too_often_is_archived),
        cmocka_unit_test(an_acquisition_ends_with_its_time),
        cmocka_unit_test(too_late_is_too_late),
        cmocka_unit_test(a_clock_that_was_read_earlier_expires_nothing),
        cmocka_unit_test(who_slept_looks_at_its_clock_again),
        cmocka_unit_test(what_others_leave_is_found_at_once),
        cmocka_unit_test(the_dead_give_back_what_they_have),
        cmocka_unit_test(ends_at_any_step),
        cmocka_unit_test(no_more_than_the_window),
        cmocka_unit_test(offsets_without_a_record_are_passed_over),
        cmocka_unit_test(what_the_log_lets_go_is_passed_over),
        cmocka_unit_test(who_sleeps_over_a_lap_takes_nothing_of_the_next),
        cmocka_unit_test(a_word_of_a_later_lap_is_not_one_of_before),
        cmocka_unit_test(a_record_that_cannot_be_read_is_archived_in_the_end),
        cmocka_unit_test(nonsense_in_the_cells_harms_nobody_else),
        cmocka_unit_test(nonsense_as_start_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
