/* What a ring may and may not: marks of offsets, the clean stop, and what producers write to do harm. */
#include "one_partition.h"

#include <signal.h>
#include <sys/mman.h>

#include "sigbus.h"

static void offsets_stay_below_the_stored_mark(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int lap = 0; lap < 20; lap++) {
        produce_until_blocked();
        work();
        assert_int_equal(eg_meta_mark_get(x.d.meta, x.p->uid, &mark), EAGRE_OK);
        assert_int_equal(mark.clean, 0);
        int64_t bound = x.p->base[x.p->active % 3] + 2 * eg_partition_records_max(x.p);
        assert_true(mark.end >= bound && mark.seq > x.p->active + 1);
    }
    /* When the mark is near, the next slot is not READY before it was moved. */
    x.p->mark.end = x.p->base[x.p->active % 3];
    produce_until_blocked();
    work();
    assert_true(x.p->mark.end > x.p->base[x.p->active % 3] + 2 * eg_partition_records_max(x.p));
}

static void a_clean_stop_knows_the_exact_end(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int i = 0; i < 77; i++)
        assert_int_equal(produce(), EAGRE_OK);
    work();
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_int_equal(mark.end, 77);
    assert_int_equal(mark.clean, 1);
    assert_int_equal(mark.seq, x.p->active + 1);
    /* Nothing can be added behind it, not even by who has checked the slot's word before it was closed. */
    assert_int_equal(produce(), EAGRE_E_WOULD_BLOCK);
    uint32_t n = eg_slot_buffer(word_of(1)); /* the 77 take two segments */
    uint64_t end = eg_hint_pos(eg_load_relaxed(&eg_buffer_header(x.p, n)->hint));
    uint64_t word = eg_load_acquire(&eg_frame_at(x.p->buffers[n].base, end)->word);
    assert_int_equal(eg_word_kind(word), EG_KIND_EOS);
    assert_int_equal(eg_word_state(word), EG_PUBLISHED);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(eg_slot_state(eg_load_relaxed(&x.p->ring->slot[i].word)),
                         EG_SLOT_RETIRING);
}

/* A claim in flight while the log is closed: it ends before the end, or finds no place. */
static void a_clean_stop_counts_claims_in_flight(void **state) {
    struct eg_meta_mark mark;
    struct eg_claim c;
    (void)state;
    make_topic(NULL, 0);
    assert_int_equal(eg_writer_claim(&x.w, eg_frame_length(PAYLOAD, 64), 1, &c), EAGRE_OK);
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_int_equal(mark.end, 1);
    eg_writer_abort(&x.w, &c);
}

static void nonsense_in_the_ring_ends_this_partition_only(void **state) {
    (void)state;
    const struct eg_change two = {"partitions", "2"};
    for (int kind = 0; kind < 6; kind++) {
        if (kind > 0) {
            teardown(NULL);
            setup(NULL);
        }
        make_topic(&two, 1);
        eg_log_set_level((enum eg_log_level)(-1)); /* what follows is expected */
        produce_until_blocked();
        struct eg_ring *r = x.p->ring;
        switch (kind) {
        case 0:
            eg_store_release(&r->active, 12345678);
            break;
        case 1:
            work();
            eg_store_release(&r->active, 0);
            break;
        case 2:
            eg_store_release(&r->slot[2].word, UINT64_MAX);
            break;
        case 3:
            eg_store_release(&r->slot[0].word, eg_slot_make(0, 77, EG_SLOT_OPEN));
            break;
        case 4:
            eg_store_release(&eg_buffer_header(x.p, eg_slot_buffer(word_of(1)))->base, 1ll << 60);
            break;
        default:
            eg_store_release(&eg_buffer_header(x.p, eg_slot_buffer(word_of(1)))->base, -5);
            break;
        }
        assert_int_equal(work(), INT64_MAX);
        assert_true(eg_partition_failed(x.p));
        assert_false(eg_partition_failed(x.t->part[1]));
        assert_int_equal(eg_partition_open(&x.d, x.t->part[1]), EAGRE_OK);
        assert_int_equal(eg_partition_open(&x.d, x.p), EAGRE_E_CORRUPT);
        eg_partition_end(x.p); /* does not crash */
        unpin(&x.producer);
    }
}

/* Memory that is gone: whoever may write to a buffer may punch a hole, which may not be filled again. */
static void memory_that_is_gone_ends_this_partition_only(void **state) {
    (void)state;
    make_topic((struct eg_change[]){{"partitions", "2"}}, 1);
    assert_int_equal(eg_partition_open(&x.d, x.t->part[1]), EAGRE_OK);
    assert_int_equal(eg_sigbus_mend(&x.d), EAGRE_OK);
    assert_int_equal(produce(), EAGRE_OK);
    /* As the kernel would show it: behind this mapping is nothing. */
    int fd = memfd_create("eagre:p1.b0", MFD_CLOEXEC);
    void *base = x.p->buffers[eg_slot_buffer(word_of(0))].base;
    assert_true(fd >= 0 && mmap(base, SEGMENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == base);
    eg_slots_work(&x.d, x.p, now);
    assert_true(eg_partition_failed(x.p));
    assert_false(eg_partition_failed(x.t->part[1]));
    eg_partition_end(x.p); /* zeros */
    assert_int_equal(eg_slots_work(&x.d, x.p, now), INT64_MAX);
    close(fd);
    signal(SIGBUS, SIG_DFL);
}

/* They cannot be unmapped in small pieces. */
static void huge_pages_are_given_back(void **state) {
    const size_t size = 4u << 20; /* a multiple of most machines' */
    (void)state;
    int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
    void *base = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        print_message("no huge pages here: skipped\n");
        if (fd >= 0)
            close(fd);
        return;
    }
    eg_grave_add(&x.d, base, size, fd, NULL, false);
    assert_true(eg_graves_finish(&x.d, INT64_MAX));
    assert_int_equal(msync(base, size, MS_ASYNC), -1); /* nothing is there */
}

/* Huge pages come from everybody's pool, and can be taken away from under who reads them. */
static void huge_pages_are_not_for_strangers(void **state) {
    struct eg_peer peer = {.uid = geteuid() + 1, .sock = -1};
    struct eg_change changes[] = {{"segment.bytes", "512M"}, /* a multiple of most huge pages */
                                   {"hugepages", "hugetlb"}};
    uint32_t uid;
    (void)state;
    int rc = eg_topic_create(&x.d, &peer, "huge", changes, 2, &uid);
    if (rc == EAGRE_E_INVALID_CONFIG || rc == EAGRE_E_UNSUPPORTED)
        skip(); /* the system has none */
    assert_int_equal(rc, EAGRE_E_PERMISSION);
}

/* Hints, allocated marks and frame words that lie: nothing outside the segment is touched. */
static void lies_in_a_buffer_do_no_harm(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int i = 0; i < 70; i++)
        assert_int_equal(produce(), EAGRE_OK);
    struct eg_segment_header *h = eg_buffer_header(x.p, eg_slot_buffer(word_of(x.w.seq)));
    static const uint64_t lies[] = {
        0, 1, EG_SEGMENT_DATA + 8, SEGMENT - 64, SEGMENT, SEGMENT + 64, 1ull << 34};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        eg_store_relaxed(&h->hint, eg_hint_make(lies[i], 0xffffffff));
        eg_store_relaxed(&h->allocated, UINT64_MAX - i);
        work();
        assert_true(eg_partition_end(x.p) >= x.p->base[x.p->active % 3]);
        assert_true(eg_buffer_allocated(x.p, 0) <= SEGMENT);
    }
    eg_store_relaxed(&h->hint, eg_hint_make(EG_SEGMENT_DATA, 0));
    struct eg_frame *f = eg_frame_at((uint8_t *)h, EG_SEGMENT_DATA);
    eg_store_release(&f->word, UINT64_MAX);
    assert_false(eg_partition_seal(&x.d, x.p, &mark)); /* then the stored bound stays */
    eg_partition_end(x.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(offsets_stay_below_the_stored_mark),
        T(a_clean_stop_knows_the_exact_end),
        T(a_clean_stop_counts_claims_in_flight),
        T(nonsense_in_the_ring_ends_this_partition_only),
        T(memory_that_is_gone_ends_this_partition_only),
        T(huge_pages_are_given_back),
        T(huge_pages_are_not_for_strangers),
        T(lies_in_a_buffer_do_no_harm),
    };
    return cmocka_run_group_tests_name("daemon/slots_bounds", tests, NULL, NULL);
}
