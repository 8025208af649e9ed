/* Committed offsets: from a member's page, which may say anything, to the database and back after a crash. */
#include "one_member.h"

#include <lmdb.h>

#include "archive_internal.h"
#include "meta_internal.h"
#include "sys/rand.h"

/* What the database says. */
struct seen {
    uint32_t partition;
    int64_t offset;
    uint32_t flags;
    char metadata[16];
    size_t count;
};

static int see(void *ctx, const struct eg_meta_offset *o) {
    struct seen *s = ctx;
    s->count++;
    if (o->partition == s->partition && o->group_uid == g->uid && o->topic_uid == x.t->meta.uid) {
        s->offset = o->offset;
        s->flags = o->flags;
        snprintf(s->metadata, sizeof(s->metadata), "%s", o->metadata != NULL ? o->metadata : "");
    }
    return 0;
}

static struct seen stored(uint32_t partition) {
    struct seen s = {.partition = partition, .offset = -1};
    assert_int_equal(eg_meta_offsets(x.d.meta, see, &s), 0);
    return s;
}

/* ---- from the page to the database -------------------------------------------------------------------------- */

static void writes_and_tells(void **state) {
    (void)state;
    commit(7);
    uint32_t rings = page->rings;
    (void)tick(COMMIT_NS);
    assert_int_equal(committed(0), 7);
    assert_int_equal(page->stored, 0); /* not yet */
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(stored(0).offset, 7);
    assert_int_equal(page->stored, 1);
    assert_int_not_equal(page->rings, rings);
    restart(false);
    assert_int_equal(committed(0), 7);
    join();
}

/* A commit that comes while others are being written is not said to be stored with them. */
static void tells_only_what_is_stored(void **state) {
    (void)state;
    commit(7);
    (void)tick(COMMIT_NS);
    assert_true(all->writer->submitted);
    commit(8);
    eg_offsets_collect(&x.d, &m);
    assert_int_equal(m.commits, 2);
    eg_offset_writer_settle(&x.d, &m);
    assert_int_equal(page->stored, 0);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(page->stored, 1);
    assert_int_equal(stored(0).offset, 7);
    eg_offsets_hurry(&x.d);
    (void)tick(0);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(page->stored, 2);
    assert_int_equal(stored(0).offset, 8);
}

/* The same offset again changes nothing in the database; who waits is told at once. */
static void tells_what_was_stored_before(void **state) {
    (void)state;
    commit(7);
    write_all();
    commit(7);
    commit(7);
    (void)tick(10 * EG_NS_PER_S);
    assert_false(all->writer->submitted);
    assert_int_equal(page->stored, 3);
}

static void believes_no_cell(void **state) {
    static const int64_t nonsense[] = {101, 1000, INT64_MAX, INT64_MIN, -2, 1ll << 40};
    (void)state;
    commit(100); /* the end: all was read */
    write_all();
    assert_int_equal(committed(0), 100);
    uint64_t before = page->stored;
    assert_int_equal(before, page->commits);
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        commit(nonsense[i]);
        write_all();
        assert_int_equal(committed(0), 100);
        assert_int_equal(page->stored, before); /* such a one is not said to be stored */
        assert_true(m.strange);
    }
    eg_store_relaxed(&page->cell[2], 50); /* nobody's */
    commit(42);
    write_all();
    assert_int_equal(committed(0), 42);
    assert_int_equal(page->stored, page->commits);
    assert_int_equal(stored(0).count, 1);
    assert_int_equal(produce(), 0);
    commit(101); /* now there is such a one */
    write_all();
    assert_int_equal(committed(0), 101);
    given.partition = 5; /* a topic has fewer */
    commit(3);
    write_all();
    assert_int_equal(stored(0).count, 1);
    given.partition = 0;
}

/* The log goes on over many segments; its end is found again and again. */
static void finds_the_logs_end(void **state) {
    (void)state;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 40; i++) {
            if (produce() == EAGRE_OK)
                continue;
            now += EG_NS_PER_MS;
            work();
        }
        commit(x.produced + 1);
        eg_offsets_collect(&x.d, &m);
        commit(x.produced);
        eg_offsets_collect(&x.d, &m);
        assert_int_equal(committed(0), x.produced);
    }
    assert_true(x.p->active > 3);
}

/* ---- what goes wrong ------------------------------------------------------------------------------------------- */

/* So that some dozens of pages do not fit. */
static void set_room(bool some) {
    MDB_envinfo info;
    assert_int_equal(mdb_env_info(x.d.meta->env, &info), 0);
    assert_int_equal(mdb_env_set_mapsize(x.d.meta->env, some ? 64u << 20 : (info.me_last_pgno + 4) * 4096), 0);
}

static void lies_about_nothing_that_failed(void **state) {
    char text[EG_METADATA_MAX + 1];
    (void)state;
    memset(text, 'x', EG_METADATA_MAX);
    text[EG_METADATA_MAX] = '\0';
    set_room(false);
    for (uint32_t i = 1; i <= 100; i++)
        assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, i, i, 0, text), 0);
    commit(7);
    (void)tick(COMMIT_NS);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(stored(0).count, 0);
    assert_int_equal(page->stored, 0);
    assert_true(all->writer->failing && all->writer->dirty);
    assert_int_not_equal(eg_offset_writer_flush(&x.d), 0);
    struct eg_meta_offset put = {.topic_uid = x.t->meta.uid, .partition = 1, .offset = 77};
    assert_int_not_equal(eg_offsets_put(&x.d, g, &put, 1), 0);
    assert_int_equal(committed(1), 1);
    int64_t due = all->writer->retry_ns;
    assert_true(due > eg_mono_ns());
    now = due - 1;
    assert_true(tick(0) <= due); /* not before a second */
    assert_false(all->writer->submitted);
    set_room(true);
    (void)tick(1);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(stored(0).count, 101);
    assert_int_equal(stored(0).offset, 7);
    assert_int_equal(page->stored, 1);
    assert_false(all->writer->failing || all->writer->dirty);
}

/* Its member has gone, its page with it; the metadata do not have what it committed; and the daemon is killed. */
static void keeps_what_was_collected(void **state) {
    (void)state;
    commit(7);
    write_all();
    commit(9);
    eg_offsets_collect(&x.d, &m);
    assert_int_equal(eg_members_store_begin(all->store), 0);
    assert_int_equal(eg_members_store_remove_member(all->store, &m), 0);
    assert_int_equal(eg_members_store_commit(all->store), 0);
    restart(false);
    assert_int_equal(stored(0).offset, 7);
    assert_int_equal(committed(0), 9);
    restart(false); /* and again */
    assert_int_equal(committed(0), 9);
    write_all();
    assert_int_equal(stored(0).offset, 9);
    /* Later ones win, whatever is still noted. */
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 0, 5, 0, NULL), 0);
    join();
    assert_int_equal(eg_members_store_begin(all->store), 0);
    assert_int_equal(eg_members_store_put_member(all->store, &m), 0);
    assert_int_equal(eg_members_store_commit(all->store), 0);
    struct eg_meta_offset put = {.group_uid = g->uid, .topic_uid = x.t->meta.uid, .offset = 3, .stamp = all->writer->stamp + 9};
    assert_int_equal(eg_meta_offsets_put(x.d.meta, &put, 1, NULL, 0), 0);
    restart(false);
    assert_int_equal(committed(0), 3);
    join();
}

/* ... but not what was put or forgotten since. */
static void puts_at_once(void **state) {
    (void)state;
    commit(9);
    eg_offsets_collect(&x.d, &m);
    assert_int_equal(eg_members_store_begin(all->store), 0);
    assert_int_equal(eg_members_store_remove_member(all->store, &m), 0);
    assert_int_equal(eg_members_store_commit(all->store), 0);
    (void)tick(0);
    struct eg_meta_offset put[] = {{.topic_uid = x.t->meta.uid, .offset = -1},
                                   {.topic_uid = x.t->meta.uid, .partition = 2, .offset = 4, .metadata = "why"},
                                   {.topic_uid = x.t->meta.uid, .partition = 1, .offset = -1}};
    assert_int_equal(eg_offsets_put(&x.d, g, put, 3), 0);
    assert_int_equal(committed(0), -1);
    assert_int_equal(committed(2), 4);
    assert_int_equal(g->offset_count, 1);
    restart(false);
    assert_int_equal(committed(0), -1);
    assert_int_equal(committed(2), 4);
    assert_string_equal(eg_offset_find(g, x.t->meta.uid, 2)->metadata, "why");
    join();
}

/* Whatever is on its way is older: it does not come behind what was put. */
static void puts_behind_what_is_on_its_way(void **state) {
    (void)state;
    for (int64_t i = 1; i <= 60; i++) {
        for (uint32_t p = 0; p < 50; p++)
            assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, p, i, 0, "older"), 0);
        eg_offsets_hurry(&x.d);
        (void)tick(0);
        assert_true(all->writer->submitted);
        struct eg_meta_offset put = {.topic_uid = x.t->meta.uid, .offset = 1000 + i};
        assert_int_equal(eg_offsets_put(&x.d, g, &put, 1), 0);
        assert_true(eg_io_wait(x.d.disk_io));
        assert_int_equal(stored(0).offset, 1000 + i);
        assert_int_equal(committed(0), 1000 + i);
        assert_int_equal(stored(49).offset, i);
    }
}

/* The group, or its topic, goes while its offsets are on their way. */
static void loses_its_group_meanwhile(void **state) {
    (void)state;
    struct eg_group *other = make_group("h");
    struct eg_meta_group meta = {.uid = other->uid};
    assert_int_equal(eg_offset_set(&x.d, other, x.t->meta.uid, 0, 5, 0, "text"), 0);
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 0, 6, 0, "text"), 0);
    eg_offsets_hurry(&x.d);
    (void)tick(0);
    assert_true(all->writer->submitted);
    assert_int_equal(eg_meta_group_delete(x.d.meta, &meta), 0);
    eg_offsets_free(other);
    free(other);
    all->count--;
    eg_offsets_forget_topic(&x.d, x.t->meta.uid);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(stored(0).count, 1);
    assert_int_equal(committed(0), -1);
    assert_int_equal(g->metadata_bytes, 0);
    /* One that the database has of a topic that is gone is forgotten at the next start. */
    struct eg_meta_offset lost = {.group_uid = g->uid, .topic_uid = x.t->meta.uid + 1, .offset = 3};
    assert_int_equal(eg_meta_offsets_put(x.d.meta, &lost, 1, NULL, 0), 0);
    restart(false);
    write_all();
    assert_int_equal(stored(0).count, 1);
    assert_int_equal(g->offset_count, 1);
    join();
}

static void bounds_metadata(void **state) {
    char text[EG_METADATA_MAX + 1];
    uint32_t n = 0;
    (void)state;
    memset(text, 'x', EG_METADATA_MAX);
    text[EG_METADATA_MAX] = '\0';
    while (eg_offset_set(&x.d, g, 1, n, 1, 0, text) == EAGRE_OK)
        n++;
    assert_int_equal(n, 256);
    assert_int_equal(eg_offset_set(&x.d, g, 1, 0, 1, 0, text), 0); /* no more than before */
    assert_int_equal(eg_offset_set(&x.d, g, 1, 0, 1, 0, NULL), 0);
    assert_int_equal(eg_offset_set(&x.d, g, 1, n, 1, 0, text), 0);
    struct eg_meta_offset put = {.topic_uid = 1, .partition = 1, .offset = 2, .metadata = "a"};
    assert_int_equal(eg_offsets_put(&x.d, g, &put, 1), EAGRE_E_LIMIT);
    assert_true(strstr(eg_error_text(), "'g'") != NULL);
}

/* ---- a start without the memory ---------------------------------------------------------------------------------- */

static int64_t restarted_at(int64_t offset, uint32_t *flags) {
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 0, offset, 0, NULL), 0);
    restart(true);
    *flags = eg_offset_find(g, x.t->meta.uid, 0)->flags;
    return committed(0);
}

static void goes_on_where_the_log_does(void **state) {
    uint32_t flags;
    (void)state;
    g->members = NULL;
    eg_store_relaxed(&x.p->status->start_offset, 1000);
    assert_int_equal(restarted_at(999, &flags), 1000);
    assert_int_equal(flags, EG_OFFSET_CLAMPED);
    restart(true); /* it stays so */
    assert_int_equal(stored(0).flags, EG_OFFSET_CLAMPED);
    assert_int_equal(restarted_at(1000, &flags), 1000);
    assert_int_equal(flags, 0);
    assert_int_equal(restarted_at(1001, &flags), 1001);
    assert_int_equal(flags, 0);

    /* On disk: 100 to 200 and 200 to 250 were kept; another start left out up to 300; and the last one up to 1000. */
    struct eg_archive a = {0};
    struct eg_log_file files[] = {{.seq = 1, .base = 100, .end = 200}, {.seq = 2, .base = 200, .end = 250},
                                  {.seq = 9, .base = 300, .end = 400}};
    static const struct {
        int64_t offset, to;
    } cases[] = {{50, 50},   {100, 100}, {200, 200}, {250, 250}, {251, 300},   {299, 300},  {300, 300},
                 {399, 399}, {400, 400}, {401, 1000}, {999, 1000}, {1000, 1000}, {1001, 1001}};
    a.files.list = files;
    a.files.count = 3;
    x.p->archive = &a;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(restarted_at(cases[i].offset, &flags), cases[i].to);
        assert_int_equal(flags, cases[i].offset == cases[i].to ? 0 : EG_OFFSET_CLAMPED);
    }
    /* None was kept: then it depends on whether they were lost. */
    a.files.count = 0;
    x.d.fresh = false;
    assert_int_equal(restarted_at(50, &flags), 50);
    x.d.fresh = true;
    x.p->mark.clean = 1;
    assert_int_equal(restarted_at(50, &flags), 50);
    x.p->mark.clean = 0;
    assert_int_equal(restarted_at(50, &flags), 1000);
    /* Files that nobody could read may have anything. */
    char why[] = "EIO";
    a.unrecovered = why;
    assert_int_equal(restarted_at(50, &flags), 50);
    x.p->archive = NULL;
    join();
}

/* ---- time ------------------------------------------------------------------------------------------------------------ */

/* An idle daemon sleeps; one whose members commit collects as often as they want. */
static void wakes_when_there_is_something(void **state) {
    struct eg_member more[20];
    int64_t due;
    unsigned wakes = 0;
    (void)state;
    for (size_t i = 0; i < 20; i++) {
        more[i] = m;
        more[i].given_count = 0;
        more[i].commit_ms = 50 + 37 * (uint32_t)i;
        more[i].next = i > 0 ? &more[i - 1] : NULL;
    }
    m.next = &more[19];
    all->member_count = 21;
    int64_t end = now + 100 * EG_NS_PER_S;
    for (due = tick(0); now < end; due = tick(due - now), wakes++)
        assert_true(due > now && due < INT64_MAX);
    assert_true(wakes < 20 + 3 * 21); /* each 5 s, once they were seen to be idle */

    int64_t late = 0;
    for (int i = 0; i < 50; i++) {
        commit(1 + i % 2);
        int64_t began = now;
        while (committed(0) != 1 + i % 2) {
            due = eg_offsets_tick(&x.d, now);
            now = due < now ? now : due < now + COMMIT_NS ? due : now + COMMIT_NS;
        }
        late = i > 0 && now - began > late ? now - began : late;
        while (eg_io_wait(x.d.disk_io)) {}
    }
    assert_true(late <= 2 * COMMIT_NS);
    /* One that is new is seen at once, whoever else is idle. */
    for (int i = 0; i < 10; i++)
        (void)tick(5 * EG_NS_PER_S);
    commit(77);
    m.look_ns = 0;
    all->member_count++;
    (void)tick(0);
    assert_int_equal(committed(0), 77);
    m.next = NULL;
}

static void pass_ms(int64_t ms) {
    int64_t until = eg_now_coarse_ns() + ms * EG_NS_PER_MS;
    while (eg_now_coarse_ns() < until) {}
}

static void forgets_what_groups_left_long_ago(void **state) {
    (void)state;
    commit(7);
    write_all();
    x.d.config.offsets_retention_ms = 40;
    pass_ms(50);
    (void)tick(60 * EG_NS_PER_S);
    assert_int_equal(committed(0), 7); /* it has a member */
    g->members = NULL;
    g->member_count = all->member_count = 0;
    (void)tick(60 * EG_NS_PER_S);
    assert_int_equal(committed(0), 7); /* not so long */
    pass_ms(50);
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 1, 5, 0, NULL), 0);
    (void)tick(60 * EG_NS_PER_S);
    assert_int_equal(committed(0), 7); /* somebody commits for it */
    write_all();
    pass_ms(50);
    (void)tick(60 * EG_NS_PER_S);
    assert_int_equal(committed(0), -1);
    write_all();
    assert_int_equal(stored(0).count, 0);
    assert_int_equal(g->offset_count, 0);
    join();
}

/* ---- random ------------------------------------------------------------------------------------------------------------ */

enum { TOPICS = 3, PARTITIONS = 20 };

static int compare_with_stored(void *ctx, const struct eg_meta_offset *o) {
    int64_t(*expected)[PARTITIONS] = ctx;
    assert_true(o->topic_uid < TOPICS && o->partition < PARTITIONS);
    assert_int_equal(o->offset, expected[o->topic_uid][o->partition]);
    expected[o->topic_uid][o->partition] = -1;
    return 0;
}

/* A table that is changed, written and read at random says what a plain array says. */
static void is_a_table(void **state) {
    int64_t expected[TOPICS][PARTITIONS];
    uint64_t rand = 4711;
    (void)state;
    memset(expected, -1, sizeof(expected));

    for (int i = 0; i < 5000; i++) {
        uint32_t t = (uint32_t)(eg_rand_next(&rand) % TOPICS), p = (uint32_t)(eg_rand_next(&rand) % PARTITIONS);
        switch ((eg_rand_next(&rand) % 8)) {
        case 0:
            assert_int_equal(eg_offset_set(&x.d, g, t, p, -1, 0, "gone"), 0);
            expected[t][p] = -1;
            break;
        case 1:
            (void)eg_io_wait(x.d.disk_io);
            break;
        case 2:
            (void)tick(EG_NS_PER_S / 8);
            break;
        default:
            assert_int_equal(eg_offset_set(&x.d, g, t, p, i, 0, i % 3 == 0 ? "some" : NULL), 0);
            expected[t][p] = i;
        }
        t = (uint32_t)(eg_rand_next(&rand) % TOPICS);
        p = (uint32_t)(eg_rand_next(&rand) % PARTITIONS);
        const struct eg_committed *o = eg_offset_find(g, t, p);
        assert_int_equal(o != NULL ? o->offset : -1, expected[t][p]);
    }
    for (size_t i = 1; i < g->offset_count; i++) {
        const struct eg_committed *a = &g->offsets[i - 1], *b = &g->offsets[i];
        assert_true(a->topic_uid < b->topic_uid || (a->topic_uid == b->topic_uid && a->partition < b->partition));
    }
    assert_int_equal(eg_offset_writer_flush(&x.d), 0);
    assert_int_equal(eg_meta_offsets(x.d.meta, compare_with_stored, expected), 0);
    for (uint32_t t = 0; t < TOPICS; t++)
        for (uint32_t p = 0; p < PARTITIONS; p++)
            assert_int_equal(expected[t][p], -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_groups, teardown_groups)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(writes_and_tells),
        TEST(tells_only_what_is_stored),
        TEST(tells_what_was_stored_before),
        TEST(believes_no_cell),
        TEST(finds_the_logs_end),
        TEST(lies_about_nothing_that_failed),
        TEST(keeps_what_was_collected),
        TEST(puts_at_once),
        TEST(puts_behind_what_is_on_its_way),
        TEST(loses_its_group_meanwhile),
        TEST(bounds_metadata),
        TEST(goes_on_where_the_log_does),
        TEST(wakes_when_there_is_something),
        TEST(forgets_what_groups_left_long_ago),
        TEST(is_a_table),
    };
    return cmocka_run_group_tests_name("group_offsets", tests, NULL, NULL);
}
