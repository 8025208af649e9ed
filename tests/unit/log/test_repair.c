/* Claims of the dead become pads; nobody else's is touched; it can be cut off anywhere and repeated. */
#include "unit/log/fake_bus.h"

static struct fake_bus *bus;

static bool is_even(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner % 2 == 0;
}

static int repair(uint64_t seq, uint64_t *pads) {
    struct eg_chain c = {.base = fake_segment(bus, seq), .capacity = bus->capacity,
                         .allocated = eg_load_relaxed(&fake_header(bus, fake_buffer_of(bus, seq))->allocated),
                         .align = bus->align, .pos = EG_SEGMENT_DATA};
    int rc;
    *pads = 0;
    do {
        uint32_t steps = 1; /* the smallest slices */
        rc = eg_repair_chain(&c, &steps, is_even, NULL, pads);
        assert_true(steps == 0 || rc != EG_REPAIR_MORE);
    } while (rc == EG_REPAIR_MORE);
    return rc;
}

/* Owners 1 .. 4 claim in turns, some publish; returns how many claims of even owners are open. */
static uint32_t make_scene(struct fake_writer *w, struct eg_claim *open, uint64_t *rand) {
    uint32_t dead = 0;
    for (uint32_t o = 0; o < 4; o++)
        fake_writer_open(bus, &w[o], o + 1);
    for (int i = 0; i < 60; i++) {
        uint32_t o = (uint32_t)(eg_rand_next(rand) % 4), count = 1 + (uint32_t)(eg_rand_next(rand) % 3);
        if (open[o].frame != NULL)
            continue; /* one open claim a writer */
        struct eg_claim c;
        assert_ok(eg_writer_claim(&w[o].w, count * 64, count, &c));
        if (eg_rand_next(rand) % 10 == 0) {
            open[o] = c;
            dead += o % 2 == 1;
        } else {
            uint64_t first = 0;
            for (uint32_t k = 0; k < count; k++) {
                struct eg_frame *f = eg_frame_at(w[o].w.base, c.pos + k * 64);
                uint64_t word = fake_frame_write(&w[o].w, f, c.pos + k * 64, 64, c.index + k, &(struct fake_record){0});
                if (k == 0)
                    first = word;
                else
                    eg_store_relaxed(&f->word, word);
            }
            eg_writer_publish(&w[o].w, &c, first);
        }
    }
    return dead;
}

static void the_deads_claims_become_pads(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t rand = seed, pads;
        struct fake_writer w[4];
        struct eg_claim open[4] = {{0}};
        bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
        uint32_t dead = make_scene(w, open, &rand);
        uint64_t words[4];
        for (uint32_t o = 0; o < 4; o++)
            words[o] = open[o].frame != NULL ? eg_load_relaxed(&open[o].frame->word) : 0;
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, dead);
        for (uint32_t o = 0; o < 4; o++) {
            if (open[o].frame == NULL)
                continue;
            uint64_t word = eg_load_relaxed(&open[o].frame->word);
            if (o % 2 == 0) { /* owners 1 and 3 live */
                assert_true(word == words[o]);
                assert_int_equal(eg_word_state(word), EG_CLAIMED);
            } else {
                assert_true(word == eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, open[o].length, open[o].count, o + 1));
            }
        }
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, 0);
        /* The living go on, and nothing is lost. */
        for (uint32_t o = 0; o < 4; o += 2)
            if (open[o].frame != NULL)
                eg_writer_abort(&w[o].w, &open[o]);
        struct eg_check_report report;
        assert_log_is_good(bus, &report);
        assert_int_equal(report.claimed, 0);
        int64_t end;
        assert_ok(eg_log_end(&w[0].map, fake_cell(bus), false, &end));
        struct fake_reader r;
        fake_reader_open(bus, &r, 0);
        eagre_record_t rec[64];
        size_t n, sum = 0;
        do {
            assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
            sum += n;
        } while (n > 0);
        assert_int_equal(r.r.offset, end);
        assert_int_equal(sum, report.records);
        fake_reader_close(&r);
        for (uint32_t o = 0; o < 4; o++)
            fake_writer_close(&w[o]);
        fake_bus_close(bus);
    }
}

static bool repair_dies_at(uint32_t hit) {
    jmp_buf there;
    uint64_t pads;
    struct fake_interpose at = {.name = "repair.claim_k", .hit = hit, .act = fake_jump, .ctx = &there};
    fake_at(&at);
    if (setjmp(there) == 0)
        FAKE_REQUIRE(repair(0, &pads) == EAGRE_OK);
    fake_at_none();
    return at.done;
}

static void cut_off_and_repeated(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (uint32_t hit = 1; hit <= 5; hit++) {
        bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
        struct fake_writer w[5];
        for (uint32_t i = 0; i < 5; i++) {
            struct eg_claim c;
            fake_writer_open(bus, &w[i], 2);
            assert_ok(eg_writer_claim(&w[i].w, 128, 2, &c));
        }
        assert_true(repair_dies_at(hit));
        struct eg_check_report report;
        assert_log_is_good(bus, &report);
        assert_int_equal(report.pads, hit);
        uint64_t pads;
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, 5 - hit);
        assert_log_is_good(bus, &report);
        assert_int_equal(report.pads, 5);
        assert_int_equal(report.claimed, 0);
        for (uint32_t i = 0; i < 5; i++)
            fake_writer_close(&w[i]);
        fake_bus_close(bus);
    }
}

/* Dead at every step of an append: afterwards readers pass, and what was published is there. */
static void dead_at_every_step(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const char *steps[] = {"pin.stored", "pin.checked", "claim.done", "hint.stored", "publish.done", "unpinned"};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
        struct fake_writer dead, alive;
        struct fake_reader r;
        fake_writer_open(bus, &dead, 2);
        fake_writer_open(bus, &alive, 1);
        fake_reader_open(bus, &r, 0);
        int64_t end;
        uint64_t pads;
        assert_ok(fake_put_numbered(&alive.w, 0, 50));
        assert_true(fake_put_dies_at(&dead.w, steps[i], 1));
        assert_ok(eg_log_end(&alive.map, fake_cell(bus), false, &end));
        assert_int_equal(end, i < 2 ? 1 : 2);
        assert_ok(fake_put_numbered(&alive.w, end, 50));
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, i == 2 || i == 3);
        eagre_record_t rec[9];
        size_t n;
        assert_ok(eg_reader_poll(&r.r, rec, 9, &n));
        assert_int_equal(n, i < 4 ? 2 : 3);
        assert_int_equal(rec[n - 1].offset, end);
        assert_log_is_good(bus, NULL);
        fake_reader_close(&r);
        fake_writer_close(&dead);
        fake_writer_close(&alive);
        fake_bus_close(bus);
    }
}

/* The very last bytes of a segment, an empty one, and bytes that are no chain. */
static void at_the_edges(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        bus = fake_bus_open(FAKE_SEGMENT, 3, align, 0);
        struct fake_writer w;
        struct eg_claim c;
        uint64_t pads = 9;
        fake_writer_open(bus, &w, 2);
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, 0);
        uint32_t smallest = (uint32_t)eg_frame_length(0, align);
        for (int64_t i = 0; i < 14; i++)
            assert_ok(fake_put_numbered(&w.w, i, 4096 - EG_FRAME_HEADER));
        assert_ok(fake_put_numbered(&w.w, 14, 4096 - EG_FRAME_HEADER - smallest));
        assert_ok(eg_writer_claim(&w.w, smallest, 1, &c));
        assert_true(c.pos == FAKE_SEGMENT - smallest);
        assert_ok(repair(0, &pads));
        assert_int_equal(pads, 1);
        assert_log_is_good(bus, NULL);
        /* What is not allocated is not touched. */
        assert_ok(eg_repair_segment(bus->buffers[1].base, FAKE_SEGMENT, EG_PAGE, align, is_even, NULL, &pads));
        assert_ok(eg_repair_segment(bus->buffers[1].base, FAKE_SEGMENT, 0, align, is_even, NULL, &pads));
        assert_true(fake_buffer_memory(bus, 1) <= EG_PAGE);
        eg_store_relaxed(&eg_frame_at(bus->buffers[0].base, EG_SEGMENT_DATA + 4096)->word, 0xdeadbeef);
        assert_int_equal(repair(0, &pads), EAGRE_E_CORRUPT);
        fake_writer_close(&w);
        fake_bus_close(bus);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_deads_claims_become_pads),
        cmocka_unit_test(cut_off_and_repeated),
        cmocka_unit_test(dead_at_every_step),
        cmocka_unit_test(at_the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
