/*
 * Members of a share group in every order of their steps. Each one is a thread; at each named step (share.*) it hands the
 * turn back, and who goes on is a choice: all of them are tried, or, where that is too many, some by seed,
 * then also with a member that ends there for good.
 *
 * Always: of one record at any time one member is the holder, its deliveries are counted one by one, it is answered for
 * once; and in the end all are done, with no sweep unless somebody died.
 */
#include <sched.h>
#include <semaphore.h>

#include "log/share.h"
#include "unit/log/fake_bus.h"

#define GROUP 9u
#define WINDOW 64u
#define RECORDS 8
#define ACTORS 3u
#define STEPS_MAX 400u
#define LOCK_MS 1000u

struct scene;

struct actor {
    struct scene *s;
    void (*run)(struct actor *a);
    pthread_t thread;
    sem_t go;
    bool over, dies;
    jmp_buf dead;
    struct fake_reader reader;
    struct eg_share share;
    eagre_record_t records[RECORDS];
    struct eg_share_taken taken[RECORDS];
    size_t n;
};

struct scene {
    struct fake_bus *bus;
    struct fake_writer writer;
    struct eg_share_cells *cells;
    struct actor actor[ACTORS + 1]; /* the last one: who tidies up */
    sem_t back;
    int64_t records;
    uint32_t window;
    int64_t now_ns;
    /* What is known of each record. */
    uint32_t delivered[RECORDS]; /* the highest count */
    uint32_t accepted[RECORDS];
    int held_by[RECORDS]; /* -1: nobody */
    bool expires;         /* then a holder may lose what it has */
};

static struct scene *scene_now;
static _Thread_local struct actor *me;
static int64_t scene_clock(void) { return scene_now->now_ns; }

static void hand_back(const char *name, void *arg) {
    (void)arg;
    if (me == NULL || strncmp(name, "share.", 6) != 0)
        return;
    FAKE_REQUIRE(sem_post(&me->s->back) == 0);
    FAKE_REQUIRE(sem_wait(&me->go) == 0);
    if (me->dies)
        longjmp(me->dead, 1);
}

/* A thread plays one part after another. */
static void *act(void *arg) {
    for (me = arg;;) {
        FAKE_REQUIRE(sem_wait(&me->go) == 0);
        if (me->run == NULL)
            return NULL;
        if (setjmp(me->dead) == 0 && !me->dies)
            me->run(me);
        me->over = true;
        FAKE_REQUIRE(sem_post(&me->s->back) == 0);
    }
}

/* ---- what members do; between two steps nobody else runs ---------------------------------------------------- */

static int number_of(const struct actor *a) { return (int)(a - a->s->actor); }

static void take(struct actor *a, size_t max) {
    struct scene *s = a->s;
    FAKE_REQUIRE(eg_share_poll(&a->share, &a->reader.r, a->records, a->taken, max, &a->n) == EAGRE_OK);
    for (size_t i = 0; i < a->n; i++) {
        int64_t o = a->taken[i].offset;
        uint32_t count = eg_share_count(a->taken[i].word);
        FAKE_REQUIRE(a->records[i].offset == o && o >= RECORDS - s->records);
        FAKE_REQUIRE(s->held_by[o] < 0 || s->expires);
        FAKE_REQUIRE(count > s->delivered[o] || s->expires);
        FAKE_REQUIRE(s->accepted[o] == 0 || s->expires);
        if (count > s->delivered[o]) { /* else another one has it by now */
            s->delivered[o] = count;
            s->held_by[o] = number_of(a);
        }
    }
}

static void answer(struct actor *a, size_t i, enum eg_share_end how) {
    struct scene *s = a->s;
    int64_t o = a->taken[i].offset;
    if (s->held_by[o] == number_of(a))
        s->held_by[o] = -1;
    bool ended = eg_share_end(&a->share, &a->taken[i], how);
    FAKE_REQUIRE(ended || s->expires);
    s->accepted[o] += ended && how == EG_SHARE_ACCEPT;
    FAKE_REQUIRE(s->accepted[o] <= 1);
}

static void take_one_accept(struct actor *a) {
    take(a, 1);
    for (size_t i = 0; i < a->n; i++)
        answer(a, i, EG_SHARE_ACCEPT);
}

static void take_two_accept(struct actor *a) {
    take(a, 2);
    for (size_t i = 0; i < a->n; i++)
        answer(a, i, EG_SHARE_ACCEPT);
}

static void take_two_release_one(struct actor *a) {
    take(a, 2);
    for (size_t i = 0; i < a->n; i++)
        answer(a, i, i == 0 ? EG_SHARE_RELEASE : EG_SHARE_ACCEPT);
}

static void take_again_and_again(struct actor *a) {
    for (int k = 0; k < 3; k++) {
        take(a, 2);
        for (size_t i = 0; i < a->n; i++)
            answer(a, i, (k + i) % 3 == 0 ? EG_SHARE_RELEASE : EG_SHARE_ACCEPT);
    }
}

/* As long as there is anything. In a small window others may have it all just now. */
static void take_all(struct actor *a) {
    for (int k = 0, nothing = 0; k < 2 * RECORDS && nothing < 2; k++) {
        take(a, 1);
        nothing = a->n == 0 ? nothing + 1 : 0;
        for (size_t i = 0; i < a->n; i++)
            answer(a, i, EG_SHARE_ACCEPT);
    }
}

static void answer_for_what_it_has(struct actor *a) {
    for (size_t i = 0; i < a->n; i++)
        answer(a, i, EG_SHARE_ACCEPT);
}

static void sweep(struct actor *a) { (void)eg_share_sweep(&a->share, 0); }

/* ---- one run -------------------------------------------------------------------------------------------------- */

static struct scene *scene_open(void) {
    struct scene *s = scene_now = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
    fake_writer_open(s->bus, &s->writer, 1);
    for (int64_t o = 0; o < RECORDS; o++)
        assert_ok(fake_put_numbered(&s->writer.w, o, 20));
    s->cells = fake_pages(eg_share_bytes(WINDOW));
    assert_int_equal(sem_init(&s->back, 0, 0), 0);
    for (uint32_t i = 0; i <= ACTORS; i++) {
        s->actor[i].s = s;
        fake_reader_open(s->bus, &s->actor[i].reader, 0);
        assert_int_equal(sem_init(&s->actor[i].go, 0, 0), 0);
        if (i < ACTORS)
            assert_int_equal(pthread_create(&s->actor[i].thread, NULL, act, &s->actor[i]), 0);
    }
    return s;
}

static void scene_close(struct scene *s) {
    for (uint32_t i = 0; i <= ACTORS; i++) {
        if (i < ACTORS) {
            s->actor[i].run = NULL;
            assert_int_equal(sem_post(&s->actor[i].go), 0);
            assert_int_equal(pthread_join(s->actor[i].thread, NULL), 0);
        }
        fake_reader_close(&s->actor[i].reader);
        (void)sem_destroy(&s->actor[i].go);
    }
    (void)sem_destroy(&s->back);
    fake_writer_close(&s->writer);
    (void)munmap(s->cells, eg_share_bytes(WINDOW));
    fake_bus_close(s->bus);
    free(s);
}

/* Smaller windows than the daemon makes: then a lap is a step. */
static void begin(struct scene *s, int64_t records, uint32_t window) {
    s->records = records;
    s->window = window;
    s->expires = false;
    s->now_ns = 77000000000;
    memset(s->cells, 0, eg_share_bytes(WINDOW));
    eg_share_init(s->cells, WINDOW, GROUP, FAKE_UID, 0, LOCK_MS, 0);
    int64_t first = RECORDS - records; /* the others are done */
    eg_store_relaxed(&s->cells->start, (uint64_t)first);
    eg_store_relaxed(&s->cells->hint, (uint64_t)first);
    for (int64_t o = 0; o < first; o++)
        eg_store_relaxed(&s->cells->cell[o % window], eg_share_make(eg_share_lap_of((uint64_t)o, window), 0, 0, 1, EG_SHARE_DONE));
    for (int o = 0; o < RECORDS; o++) {
        s->delivered[o] = s->accepted[o] = 0;
        s->held_by[o] = -1;
    }
    for (uint32_t i = 0; i <= ACTORS; i++) {
        struct actor *a = &s->actor[i];
        assert_ok(eg_share_attach(&a->share, s->cells, eg_share_bytes(WINDOW), GROUP, FAKE_UID, i + 1));
        a->share.window = window;
        a->share.clock_ns = scene_clock;
        a->share.swept = eg_share_time_of(s->now_ns); /* nobody sweeps by the way */
        eg_reader_seek(&a->reader.r, 0);
        a->over = a->dies = false;
        a->n = 0;
    }
}

/* Of `left` members that can go on, which one; negative: it dies, instead. */
typedef int choose(void *ctx, uint32_t left);

static void play(struct scene *s, uint32_t actors, choose *next, void *ctx) {
    bool died = false;
    eg_fault_set_hook(hand_back, NULL);
    for (;;) {
        struct actor *can[ACTORS];
        uint32_t left = 0;
        for (uint32_t i = 0; i < actors; i++)
            if (!s->actor[i].over)
                can[left++] = &s->actor[i];
        if (left == 0)
            break;
        int k = next(ctx, left);
        struct actor *a = can[k < 0 ? -k - 1 : k];
        died |= a->dies = k < 0;
        FAKE_REQUIRE(sem_post(&a->go) == 0 && sem_wait(&s->back) == 0);
    }
    eg_fault_set_hook(NULL, NULL);

    struct actor *last = &s->actor[ACTORS];
    for (uint32_t i = 0; i < actors; i++)
        if (s->actor[i].dies) {
            eg_reader_unpin(&s->actor[i].reader.r);
            for (int o = 0; o < RECORDS; o++)
                if (s->held_by[o] == (int)i)
                    s->held_by[o] = -1;
            (void)eg_share_sweep(&last->share, i + 1);
        }
    s->expires |= died; /* what it answered for as its last act, it did not say */
    for (int turns = 0;; turns++) {
        FAKE_REQUIRE(turns < 2 * RECORDS);
        take(last, 2);
        if (last->n == 0)
            break;
        answer_for_what_it_has(last);
    }
    FAKE_REQUIRE(eg_load_relaxed(&s->cells->start) == RECORDS);
    for (int64_t o = RECORDS - s->records; o < RECORDS && !died; o++)
        FAKE_REQUIRE(s->accepted[o] == 1);
}

struct cast;
static void some_orders(const struct cast *c, uint32_t runs, uint32_t deaths);

/* ---- all orders ---------------------------------------------------------------------------------------------- */

struct path {
    uint8_t choice[STEPS_MAX], of[STEPS_MAX];
    uint32_t at, length;
};

static int follow(void *ctx, uint32_t left) {
    struct path *p = ctx;
    FAKE_REQUIRE(p->at < STEPS_MAX);
    if (p->at == p->length) {
        p->choice[p->at] = 0;
        p->length++;
    }
    p->of[p->at] = (uint8_t)left;
    return p->choice[p->at++];
}

/* The next order; false: that were all. */
static bool advance(struct path *p) {
    while (p->length > 0 && ++p->choice[p->length - 1] == p->of[p->length - 1])
        p->length--;
    p->at = 0;
    return p->length > 0;
}

struct cast {
    int64_t records;
    uint32_t window; /* 0: WINDOW */
    void (*run[ACTORS])(struct actor *a); /* NULL: no more */
    bool held; /* the first one has taken all, and its time is over */
};

static uint32_t prepare(struct scene *s, const struct cast *c) {
    uint32_t actors = 0;
    begin(s, c->records, c->window > 0 ? c->window : WINDOW);
    while (actors < ACTORS && c->run[actors] != NULL) {
        s->actor[actors].run = c->run[actors];
        actors++;
    }
    if (c->held) {
        take(&s->actor[0], RECORDS);
        s->now_ns += (LOCK_MS - 40) * INT64_C(1000000);
        s->expires = true;
        for (uint32_t i = 0; i <= ACTORS; i++)
            s->actor[i].share.swept = 0; /* all look after it */
        eg_store_relaxed(&s->cells->lock_ms, 100);
    }
    return actors;
}

static void every_order(const struct cast *c, uint32_t most) {
    struct scene *s = scene_open();
    struct path p = {.length = 0};
    uint32_t runs = 0;
    do {
        uint32_t actors = prepare(s, c);
        play(s, actors, follow, &p);
        runs++;
    } while (advance(&p) && runs < most);
    print_message("%u orders%s\n", runs, p.length > 0 ? " (not all)" : "");
    assert_int_equal(p.length, 0);
    scene_close(s);
}

static void two_take_the_same(void **state) {
    (void)state;
    every_order(&(struct cast){.records = 1, .run = {take_one_accept, take_one_accept}}, 100000);
    every_order(&(struct cast){.records = 2, .run = {take_one_accept, take_one_accept}}, 100000);
    every_order(&(struct cast){.records = 1, .run = {take_one_accept, take_one_accept, take_one_accept}}, 100000);
}

/* Each record is a lap of its own, or each second one: who sleeps over one hits nothing of the next. */
static void the_window_turns(void **state) {
    (void)state;
    every_order(&(struct cast){.records = 3, .window = 1, .run = {take_one_accept, take_all}}, 100000);
    struct cast c = {.records = 8, .window = 1, .run = {take_all, take_all, take_two_release_one}};
    some_orders(&c, 1000, 0);
    some_orders(&c, 500, 2);
    c.window = 2;
    some_orders(&c, 1000, 0);
    some_orders(&c, 500, 2);
}

static void one_releases_one_takes(void **state) {
    (void)state;
    every_order(&(struct cast){.records = 2, .run = {take_two_release_one, take_one_accept}}, 100000);
}

static void it_expires_while_it_is_answered(void **state) {
    (void)state;
    every_order(&(struct cast){.records = 1, .run = {answer_for_what_it_has, take_one_accept}, .held = true}, 100000);
    every_order(&(struct cast){.records = 1, .run = {answer_for_what_it_has, sweep, sweep}, .held = true}, 100000);
}

/* ---- some orders, with deaths -------------------------------------------------------------------------------- */

struct dice {
    uint64_t rand;
    uint32_t deaths;
};

static int roll(void *ctx, uint32_t left) {
    struct dice *d = ctx;
    int k = (int)(eg_rand_next(&d->rand) % left);
    if (d->deaths > 0 && eg_rand_next(&d->rand) % 12 == 0) {
        d->deaths--;
        return -k - 1;
    }
    return k;
}

static void some_orders(const struct cast *c, uint32_t runs, uint32_t deaths) {
    struct scene *s = scene_open();
    for (uint64_t seed = 1; seed <= runs; seed++) {
        struct dice d = {.rand = seed, .deaths = deaths};
        uint32_t actors = prepare(s, c);
        play(s, actors, roll, &d);
    }
    scene_close(s);
}

static void three_take_and_release(void **state) {
    (void)state;
    struct cast c = {.records = 6, .run = {take_again_and_again, take_two_release_one, take_again_and_again}};
    some_orders(&c, 1000, 0);
    some_orders(&c, 1000, 1);
    some_orders(&c, 1000, 3);
}

static void two_orders_of_two(void **state) {
    (void)state;
    struct cast c = {.records = 3, .run = {take_two_accept, take_two_accept, take_two_release_one}};
    some_orders(&c, 1000, 0);
    some_orders(&c, 1000, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_take_the_same),
        cmocka_unit_test(the_window_turns),
        cmocka_unit_test(one_releases_one_takes),
        cmocka_unit_test(it_expires_while_it_is_answered), 
        cmocka_unit_test(three_take_and_release),
        cmocka_unit_test(two_orders_of_two),
    };
#ifndef EG_FAULTPOINTS
    return 77; /* no steps to stop at */
#endif
    cpu_set_t one; /* one at a time does something: on one CPU the turn is handed over faster */
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
