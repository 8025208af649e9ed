/*
 * Threads as the members of a share group, beside a producer (records, batches of offsets without any) and a miniature
 * daemon that retires segments that the group is done with. Members accept, release, end at any step and come back under
 * another number. Each record is held by one member at a time and accepted once; in the end all are done.
 */
#include <sched.h>

#include "log/share.h"
#include "unit/log/fake_bus.h"

#define MEMBERS 4u
#define NUMBERS 4000u
#define GROUP 12u
#define WINDOW 256u
#define MAX 100u
#define OFFSETS_MAX 200000

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer cannot see that a membarrier orders what other threads do: fences of their own there. */
#define FENCE true
#define RECORDS 6000
#else
#define FENCE false
#define RECORDS 40000
#endif

struct scene {
    struct fake_bus *bus;
    struct eg_share_cells *cells;
    uint64_t seed;
    bool deaths;
    _Atomic int64_t end;       /* of the log; -1 before */
    _Atomic uint32_t working;  /* members */
    _Atomic uint32_t numbers;  /* of members, given out */
    _Atomic uint32_t dead;     /* one to be swept; 0: none */
    _Atomic uint64_t died, released, again;
    _Atomic bool is_record[OFFSETS_MAX]; /* atomic: readers have mappings of their own, and TSan sees no edge there */
    _Atomic uint32_t holder[OFFSETS_MAX];
    _Atomic uint32_t accepted[OFFSETS_MAX];
    _Atomic bool unknown[OFFSETS_MAX]; /* its member ended while it accepted it */
};

struct worker {
    struct scene *s;
    uint32_t index;
    pthread_t thread;
    uint64_t rand;
    /* A member. */
    struct fake_reader reader;
    struct eg_share share;
    eagre_record_t records[MAX];
    struct eg_share_taken taken[MAX];
    size_t n;
    int64_t accepting; /* -1: nothing */
    uint32_t steps_left; /* 0: it does not end at a step */
    jmp_buf dead;
};

static _Thread_local struct worker *me;

static void step(const char *name, void *arg) {
    (void)arg;
    if (me != NULL && strncmp(name, "share.", 6) == 0 && me->steps_left > 0 && --me->steps_left == 0)
        longjmp(me->dead, 1);
}

static void *produce(void *arg) {
    struct worker *w = arg;
    struct scene *s = w->s;
    struct fake_writer writer;
    uint8_t value[400];
    int64_t end = 0;
    fake_writer_open(s->bus, &writer, 1);
    writer.w.fence = FENCE;
    for (int made = 0; made < RECORDS;) {
        bool gap = eg_rand_next(&w->rand) % 50 == 0;
        uint32_t count = gap ? 1 + (uint32_t)(eg_rand_next(&w->rand) % 300) : 1;
        uint32_t length = 8 + (uint32_t)(eg_rand_next(&w->rand) % (sizeof(value) - 8));
        struct eg_claim c;
        uint32_t room = eg_load_acquire(&s->bus->status->room);
        int rc = eg_writer_claim(&writer.w, gap ? 64ull * count : eg_frame_length(length, s->bus->align), count, &c);
        if (rc == EAGRE_E_WOULD_BLOCK) {
            eg_futex_wait(&s->bus->status->room, room, 1000000);
            continue;
        }
        FAKE_REQUIRE(rc == EAGRE_OK && c.offset == end && end + count < OFFSETS_MAX);
        end += count;
        if (gap) {
            eg_writer_abort(&writer.w, &c);
            continue;
        }
        eg_store_relaxed(&s->is_record[c.offset], true);
        fake_bytes(c.offset, value, length);
        struct fake_record rec = {.value = value, .value_length = length};
        eg_writer_publish(&writer.w, &c, fake_frame_write(&writer.w, c.frame, c.pos, c.length, c.index, &rec));
        made++;
    }
    fake_writer_close(&writer);
    eg_store_release(&s->end, end);
    return NULL;
}

static void answer(struct worker *w, size_t i, enum eg_share_end how) {
    struct scene *s = w->s;
    int64_t o = w->taken[i].offset;
    w->accepting = how == EG_SHARE_ACCEPT ? o : -1;
    FAKE_REQUIRE(atomic_exchange(&s->holder[o], 0) == w->share.member);
    FAKE_REQUIRE(eg_share_end(&w->share, &w->taken[i], how));
    w->accepting = -1;
    if (how == EG_SHARE_ACCEPT)
        FAKE_REQUIRE(atomic_fetch_add(&s->accepted[o], 1) == 0);
    else
        eg_fetch_add_relaxed(&s->released, 1);
}

static void live(struct worker *w) {
    struct scene *s = w->s;
    for (;;) {
        int64_t end = eg_load_acquire(&s->end);
        FAKE_REQUIRE(eg_share_poll(&w->share, &w->reader.r, w->records, w->taken, 1 + eg_rand_next(&w->rand) % MAX, &w->n) ==
                     EAGRE_OK);
        for (size_t i = 0; i < w->n; i++) {
            int64_t o = w->taken[i].offset;
            uint8_t expected[400];
            FAKE_REQUIRE(w->records[i].offset == o && eg_load_relaxed(&s->is_record[o]) && w->records[i].value_len <= sizeof(expected));
            fake_bytes(o, expected, w->records[i].value_len);
            FAKE_REQUIRE(memcmp(w->records[i].value, expected, w->records[i].value_len) == 0);
            FAKE_REQUIRE(atomic_exchange(&s->holder[o], w->share.member) == 0);
            FAKE_REQUIRE(atomic_load(&s->accepted[o]) == 0);
            if (eg_share_count(w->taken[i].word) > 1)
                eg_fetch_add_relaxed(&s->again, 1);
        }
        if (w->n == 0) {
            if (end >= 0 && (int64_t)eg_load_acquire(&s->cells->start) == end)
                return;
            (void)sched_yield();
        }
        if (eg_rand_next(&w->rand) % 16 == 0)
            (void)sched_yield();
        for (size_t i = 0; i < w->n; i++)
            answer(w, i, eg_rand_next(&w->rand) % 10 == 0 ? EG_SHARE_RELEASE : EG_SHARE_ACCEPT);
    }
}

/* What death leaves behind, as far as this test has to know. */
static void bury(struct worker *w) {
    struct scene *s = w->s;
    uint32_t none = 0;
    if (w->accepting >= 0)
        atomic_store(&s->unknown[w->accepting], true);
    for (size_t i = 0; i < w->n; i++) {
        uint32_t mine = w->share.member;
        (void)atomic_compare_exchange_strong(&s->holder[w->taken[i].offset], &mine, 0);
    }
    eg_reader_unpin(&w->reader.r);
    while (!atomic_compare_exchange_strong(&s->dead, &none, w->share.member)) {
        none = 0;
        (void)sched_yield();
    }
    while (atomic_load(&s->dead) == w->share.member)
        (void)sched_yield();
    eg_fetch_add_relaxed(&s->died, 1);
}

static void *consume(void *arg) {
    struct worker *w = me = arg;
    struct scene *s = w->s;
    fake_reader_open(s->bus, &w->reader, 0);
    w->reader.r.fence = FENCE;
    w->reader.r.keep_pin = s->seed % 2 == 0;
    for (;;) {
        uint32_t number = atomic_fetch_add(&s->numbers, 1) + 1;
        FAKE_REQUIRE(number < NUMBERS);
        FAKE_REQUIRE(eg_share_attach(&w->share, s->cells, eg_share_bytes(WINDOW), GROUP, FAKE_UID, number) == EAGRE_OK);
        w->n = 0;
        w->accepting = -1;
        if (setjmp(w->dead) == 0) {
            w->steps_left = s->deaths ? 1 + (uint32_t)(eg_rand_next(&w->rand) % 3000) : 0;
            live(w);
            break;
        }
        bury(w);
    }
    w->steps_left = 0;
    fake_reader_close(&w->reader);
    atomic_fetch_sub(&s->working, 1);
    return NULL;
}

/* Sweeps the dead, and lets go of what the group is done with. */
static void *serve(void *arg) {
    struct worker *w = arg;
    struct scene *s = w->s;
    FAKE_REQUIRE(eg_share_attach(&w->share, s->cells, eg_share_bytes(WINDOW), GROUP, FAKE_UID, 0) == EAGRE_OK);
    while (atomic_load(&s->working) > 0) {
        uint32_t dead = atomic_load(&s->dead);
        if (dead != 0) {
            (void)eg_share_sweep(&w->share, dead);
            atomic_store(&s->dead, 0);
        }
        uint64_t active = eg_load_acquire(&s->bus->ring->active);
        if (s->bus->first < active && s->bus->first + s->bus->slots - 1 - active < 1) {
            int64_t next = eg_load_acquire(&fake_header(s->bus, fake_buffer_of(s->bus, s->bus->first + 1))->base);
            if (next <= (int64_t)eg_load_acquire(&s->cells->start))
                (void)fake_retire(s->bus, true);
            fake_free_detached(s->bus);
        }
        (void)sched_yield();
    }
    return NULL;
}

static void start(struct worker *w, struct scene *s, uint32_t index, void *(*run)(void *)) {
    memset(w, 0, sizeof(*w));
    w->s = s;
    w->index = index;
    w->rand = s->seed * 1000 + index;
    FAKE_REQUIRE(pthread_create(&w->thread, NULL, run, w) == 0);
}

static void run_scene(uint64_t seed, bool deaths) {
    struct scene *s = calloc(1, sizeof(*s));
    struct worker *w = calloc(MEMBERS + 2, sizeof(*w));
    assert_true(s != NULL && w != NULL);
    s->bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
    s->cells = fake_pages(eg_share_bytes(WINDOW));
    eg_share_init(s->cells, WINDOW, GROUP, FAKE_UID, 0, 60000, 0);
    s->seed = seed;
    s->deaths = deaths;
    s->end = -1;
    s->working = MEMBERS;
    eg_fault_set_hook(step, NULL);
    for (uint32_t i = 0; i < MEMBERS; i++)
        start(&w[i], s, i, consume);
    start(&w[MEMBERS], s, MEMBERS, serve);
    start(&w[MEMBERS + 1], s, MEMBERS + 1, produce);
    for (uint32_t i = 0; i < MEMBERS + 2; i++)
        (void)pthread_join(w[i].thread, NULL);
    eg_fault_set_hook(NULL, NULL);
    int64_t records = 0;
    for (int64_t o = 0; o < s->end; o++) {
        records += s->is_record[o];
        uint32_t accepted = s->accepted[o];
        FAKE_REQUIRE(s->is_record[o] ? accepted == 1 || (accepted == 0 && s->unknown[o]) : accepted == 0);
        FAKE_REQUIRE(s->holder[o] == 0);
    }
    assert_int_equal(records, RECORDS);
    assert_true(fake_nothing_is_pinned(s->bus));
    assert_true(s->released > 0 && s->again > 0);
    print_message("seed %u: %lld offsets, %llu released, %llu delivered again, %llu deaths\n", (unsigned)seed,
                  (long long)s->end, (unsigned long long)s->released, (unsigned long long)s->again,
                  (unsigned long long)s->died);
    (void)munmap(s->cells, eg_share_bytes(WINDOW));
    fake_bus_close(s->bus);
    free(w);
    free(s);
}

static void members(void **state) {
    (void)state;
    if (!FENCE)
        (void)eg_membarrier_register();
    for (uint64_t seed = 1; seed <= 4; seed++)
        run_scene(seed, false);
}

static void members_that_end_at_any_step(void **state) {
    (void)state;
    if (!FENCE)
        (void)eg_membarrier_register();
    for (uint64_t seed = 11; seed <= 16; seed++)
        run_scene(seed, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members),
        cmocka_unit_test(members_that_end_at_any_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
