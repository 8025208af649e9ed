/* How a ring goes round: reuse, pins, swaps, sleep, retention. */
#include "one_partition.h"

static void slots_are_reused_with_their_buffers(void **state) {
    (void)state;
    make_topic(NULL, 0);
    assert_int_equal(work_and_sleep(), INT64_MAX);
    uint64_t idle = x.d.figures.memory_allocated;
    assert_int_equal(idle, 3 * EG_PAGE); /* an unused ring costs its header pages */
    for (int lap = 0; lap < 40; lap++) {
        produce_until_blocked();
        work();
        check_log();
        assert_int_equal(x.p->first, x.p->active - 1); /* one slot is READY ahead */
        assert_int_equal(eg_slot_state(word_of(x.p->active + 1)), EG_SLOT_READY);
    }
    assert_int_equal(uses(EG_BUFFER_SLOT), 3);
    assert_int_equal(uses(EG_BUFFER_NONE), EG_BUFFERS_MAX - 3);
    assert_int_equal(x.d.figures.memory_allocated, 3 * SEGMENT);
    assert_true(eg_load_acquire(&x.p->status->log_start) > 0);
    assert_int_equal(eg_partition_end(x.p), x.produced);
    assert_int_equal(work_and_sleep(), INT64_MAX);
}

static void a_reused_slot_is_clean(void **state) {
    struct eg_change change = {"segment.bytes", "256K"}; /* of several blocks, so that there is a hot index */
    (void)state;
    make_topic(&change, 1);
    produce_until_blocked();
    uint64_t capacity = eg_partition_capacity(x.p);
    _Atomic uint64_t *index = eg_ring_index(x.p->ring, x.map.slots, 0, capacity);
    assert_true(eg_load_relaxed(&index[1]) != 0);
    work();
    for (size_t k = 0; k < eg_index_blocks(capacity); k++)
        assert_int_equal(eg_load_relaxed(&index[k]), 0);
    uint64_t next = x.p->active + 1;
    uint32_t n = eg_slot_buffer(word_of(next));
    const uint8_t *bytes = x.p->buffers[n].base;
    for (size_t i = EG_SEGMENT_DATA; i < capacity; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(eg_segment_check(eg_buffer_header(x.p, n), x.p->uid, next, capacity), EAGRE_OK);
    assert_int_equal(eg_load_relaxed(&eg_buffer_header(x.p, n)->base), EG_BASE_UNSET);
    assert_int_equal(eg_load_relaxed(&eg_buffer_header(x.p, n)->hint),
                     eg_hint_make(EG_SEGMENT_DATA, 0));
}

static void a_readers_segment_does_not_change_and_nobody_waits(void **state) {
    static uint8_t before[SEGMENT];
    (void)state;
    make_topic(NULL, 0);
    uint32_t n = eg_slot_buffer(word_of(0));
    pin(&x.consumer, false, 0);
    produce_until_blocked(); /* segments 0, 1, 2 */
    memcpy(before, x.p->buffers[n].base, SEGMENT);
    for (int lap = 0; lap < 20; lap++) {
        work();
        assert_int_equal(produce(), EAGRE_OK);
        produce_until_blocked();
        check_log();
    }
    assert_memory_equal(before, x.p->buffers[n].base, SEGMENT);
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    assert_int_equal(uses(EG_BUFFER_SLOT), 3);
    assert_int_equal(x.d.figures.memory_pinned, SEGMENT);
    assert_int_equal(x.t->pinned_bytes, SEGMENT);
    unpin(&x.consumer);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    assert_int_equal(uses(EG_BUFFER_SPARE), 1);
    for (size_t i = EG_SEGMENT_DATA; i < SEGMENT; i++)
        assert_int_equal(x.p->buffers[n].base[i], 0);
    assert_int_equal(work_and_sleep(), INT64_MAX);
    assert_int_equal(uses(EG_BUFFER_SPARE), 0);
    assert_int_equal(x.p->buffers[n].fd, -1);
    assert_int_equal(x.d.topics->extra_bytes, 0);
    check_log();
}

static void a_spare_buffer_is_used_again(void **state) {
    (void)state;
    make_topic(NULL, 0);
    for (int lap = 0; lap < 10; lap++) {
        produce_until_blocked();
        pin(&x.consumer, false, x.p->first);
        work();
        assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
        unpin(&x.consumer);
        now += 2 * EG_NS_PER_MS;
        work();
        assert_int_equal(uses(EG_BUFFER_SPARE), 1);
        assert_int_equal(uses(EG_BUFFER_SLOT), 3);
        check_log();
    }
}

static void beyond_the_bound_producers_wait_and_the_pinning_pid_is_named(void **state) {
    const struct eg_change none = {"pinned.bytes.max", "0"};
    (void)state;
    make_topic(&none, 1);
    pin(&x.consumer, false, 0);
    produce_until_blocked();
    int64_t next = work();
    assert_true(next > now && next <= now + 10 * EG_NS_PER_MS); /* it looks again soon */
    assert_int_equal(eg_slot_state(word_of(0)), EG_SLOT_RETIRING);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[1]), 0);
    assert_int_equal(produce(), EAGRE_E_WOULD_BLOCK);
    uint32_t room = eg_load_relaxed(&x.p->status->room);
    unpin(&x.consumer);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_true(eg_load_relaxed(&x.p->status->room) > room);
    assert_int_equal(produce(), EAGRE_OK);
    check_log();
}

static void memory_max_bounds_what_pins_hold(void **state) {
    (void)state;
    make_topic(NULL, 0);
    x.d.config.memory_max = x.d.figures.memory_committed + SEGMENT - 1;
    pin(&x.consumer, false, 0);
    produce_until_blocked();
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    x.d.config.memory_max += 1;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_int_equal(produce(), EAGRE_OK);
}

static void pins_add_up_to_the_bound(void **state) {
    (void)state;
    make_topic(NULL, 0); /* pinned.bytes.max: two segments */
    for (uint64_t lap = 0; lap < 2; lap++) {
        eg_store_release(&x.consumer.page->pin[10 + lap].pin,
                         eg_pin_make(false, x.p->index, x.p->first));
        produce_until_blocked();
        work();
        assert_int_equal(uses(EG_BUFFER_DETACHED), lap + 1);
    }
    eg_store_release(&x.consumer.page->pin[12].pin, eg_pin_make(false, x.p->index, x.p->first));
    produce_until_blocked();
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 2);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    eg_store_release(&x.consumer.page->pin[10].pin, EG_PIN_NONE);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED),
                     2); /* the first one was cleaned and took the third's place */
    assert_int_equal(produce(), EAGRE_OK);
    check_log();
}

/* A producer on seq-1 may be about to set the base of seq: it counts. A reader there does not. */
static void a_producer_on_the_segment_before_counts(void **state) {
    const struct eg_change none = {"pinned.bytes.max", "0"};
    (void)state;
    make_topic(&none, 1);
    produce_until_blocked();
    work();
    produce_until_blocked();
    uint64_t oldest = x.p->first;
    assert_true(oldest > 0);
    pin(&x.producer, true, oldest - 1);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1001);
    pin(&x.producer, false, oldest - 1);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_int_equal(produce(), EAGRE_OK);
    unpin(&x.producer);
}

/* A reader that pinned and looked before the slot was marked, and is seen only by the scan. */
static void pin_when_marked(const char *name, void *arg) {
    (void)arg;
    if (strcmp(name, "retire.marked") == 0)
        pin(&x.consumer, false, x.p->first);
}

static void the_scan_comes_after_the_mark(void **state) {
    (void)state;
#ifndef EG_FAULTPOINTS
    skip();
#endif
    make_topic(NULL, 0);
    produce_until_blocked();
    eg_fault_set_hook(pin_when_marked, NULL);
    work();
    eg_fault_set_hook(NULL, NULL);
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    unpin(&x.consumer);
}

/* Ticks until nothing happens. */
static void tick_until_quiet(void) {
    eg_slots_wake(&x.d, x.p);
    for (int i = 0; x.p->is_awake; i++) {
        assert_true(i < 10000);
        now += EG_NS_PER_S;
        eg_slots_service.tick(&x.d, now);
    }
}

static void open_a_segment(const char *name, void *ctx) {
    int *left = ctx;
    if (strcmp(name, "unwatch.before") != 0 || --*left != 0)
        return;
    uint64_t active = eg_load_relaxed(&x.p->ring->active);
    while (eg_load_relaxed(&x.p->ring->active) == active)
        assert_int_equal(produce(), EAGRE_OK);
}

/* A quiet partition is not looked at: its producers ring. Who just did not, because we still watched, is seen. */
static void who_does_not_watch_looks_once_more(void **state) {
    int left = 1;
    (void)state;
#ifndef EG_FAULTPOINTS
    skip();
#endif
    make_topic(NULL, 0);
    tick_until_quiet();
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 0);
    eg_slots_wake(&x.d, x.p);
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 1);
    eg_fault_set_hook(open_a_segment, &left);
    while (left > 0) {
        now += EG_NS_PER_S;
        eg_slots_service.tick(&x.d, now);
    }
    eg_fault_set_hook(NULL, NULL);
    assert_true(x.p->is_awake);
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 1);
    tick_until_quiet();
    assert_int_equal(x.p->active, 1);

    /* The bell: looked at is whatever a producer says something of. */
    x.t->bell.ready(&x.d, &x.t->bell, EPOLLIN);
    assert_false(x.p->is_awake);
    eg_store_relaxed(&x.p->ring->watched, 1);
    x.t->bell.ready(&x.d, &x.t->bell, EPOLLIN);
    assert_true(x.p->is_awake);
    tick_until_quiet();
}

/* Between two looks: the loop must not sleep over a segment that was opened meanwhile. */
static void the_last_look_before_sleep_sees_a_new_segment(void **state) {
    (void)state;
    make_topic(NULL, 0);
    eg_slots_wake(&x.d, x.p);
    eg_slots_service.tick(&x.d, eg_mono_ns());
    assert_false(eg_slots_moved(&x.d));
    uint64_t active = eg_load_relaxed(&x.p->ring->active);
    while (eg_load_relaxed(&x.p->ring->active) == active)
        assert_int_equal(produce(), EAGRE_OK);
    assert_true(eg_slots_moved(&x.d));
    assert_int_equal(x.p->next_look, 0);
    eg_slots_service.tick(&x.d, eg_mono_ns());
    assert_false(eg_slots_moved(&x.d));
}

/* A producer that is stopped in the middle of its claim, for laps: its bytes stay its own, and nobody waits. */
static void a_stopped_producers_claim_is_swapped_away(void **state) {
    struct eg_writer stopped;
    struct eg_claim c;
    (void)state;
    make_topic(NULL, 0);
    eg_writer_init(&stopped, &x.map, &x.producer.page->pin[1].pin, 1, true);
    assert_int_equal(eg_writer_claim(&stopped, eg_frame_length(PAYLOAD, 64), 1, &c), EAGRE_OK);
    x.produced = 1;
    struct eg_frame *frame = c.frame;
    for (int lap = 0; lap < 10; lap++) {
        produce_until_blocked();
        work();
    }
    assert_int_equal(uses(EG_BUFFER_DETACHED),
                     2); /* and the next segment's, which it might be opening */
    assert_int_equal(eg_word_state(eg_load_acquire(&frame->word)), EG_CLAIMED);
    memset(frame->payload, 0x5a, PAYLOAD);
    uint64_t word = eg_frame_finish(frame, c.pos, c.length, c.index, stopped.seed, 1, 1,
                                    EG_NULL_LENGTH, PAYLOAD, false, PAYLOAD);
    eg_writer_publish(&stopped, &c, word);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    check_log();
}

static void retention_bytes_lets_segments_go_early(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.bytes", "128K"}};
    (void)state;
    make_topic(changes, 2);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(produce(), EAGRE_OK);
        work();
    }
    check_log();
    assert_in_range(x.p->active - x.p->first, 1,
                    2); /* two full ones at most stay beside the active one */
    assert_int_equal(uses(EG_BUFFER_SLOT), 8);
}

static void retention_ms_lets_old_segments_go_but_not_the_active_one(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.ms", "3600000"}};
    (void)state;
    make_topic(changes, 2);
    while (x.p->active < 3) {
        assert_int_equal(produce(), EAGRE_OK);
        work();
    }
    work_and_sleep();
    assert_int_equal(x.p->first, 0);
    eg_store_relaxed(&x.p->status->sealed_ns[0], eg_now_ns() - 3601 * EG_NS_PER_S);
    eg_store_relaxed(&x.p->status->sealed_ns[1], eg_now_ns() - 3601 * EG_NS_PER_S);
    work_and_sleep();
    assert_int_equal(x.p->first, 2);
    eg_store_relaxed(&x.p->status->sealed_ns[2], eg_now_ns() - 3601 * EG_NS_PER_S);
    work_and_sleep();
    assert_int_equal(x.p->first, 3); /* = active */
    check_log();
}

/* Where only retention wants a segment gone, a reader keeps it, and no buffer is made for that. */
static void retention_waits_for_readers(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.bytes", "64K"}};
    (void)state;
    make_topic(changes, 2);
    pin(&x.consumer, false, 0);
    while (x.p->active < 4) {
        assert_int_equal(produce(), EAGRE_OK);
        now += EG_NS_PER_MS;
        work();
    }
    assert_int_equal(x.p->first, 0);
    assert_int_equal(eg_slot_state(word_of(0)), EG_SLOT_RETIRING);
    assert_int_equal(uses(EG_BUFFER_SLOT), 8);
    assert_int_equal(uses(EG_BUFFER_NONE), EG_BUFFERS_MAX - 8);
    unpin(&x.consumer);
    work();
    assert_true(x.p->first >= 3);
    check_log();
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(slots_are_reused_with_their_buffers),
        T(a_reused_slot_is_clean),
        T(a_readers_segment_does_not_change_and_nobody_waits),
        T(a_spare_buffer_is_used_again),
        T(beyond_the_bound_producers_wait_and_the_pinning_pid_is_named),
        T(memory_max_bounds_what_pins_hold),
        T(pins_add_up_to_the_bound),
        T(a_producer_on_the_segment_before_counts),
        T(the_scan_comes_after_the_mark),
        T(who_does_not_watch_looks_once_more),
        T(the_last_look_before_sleep_sees_a_new_segment),
        T(a_stopped_producers_claim_is_swapped_away),
        T(retention_bytes_lets_segments_go_early),
        T(retention_ms_lets_old_segments_go_but_not_the_active_one),
        T(retention_waits_for_readers),
    };
    return cmocka_run_group_tests_name("daemon/slots", tests, NULL, NULL);
}
