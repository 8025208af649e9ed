/*
 * one_member.h - a topic, a group and one member of it in one process: its page is written as libeagre does it, the daemon's
 * part is the real one but for the coordinator, which the tests are.
 */
#ifndef EG_TESTS_ONE_MEMBER_H
#define EG_TESTS_ONE_MEMBER_H

#include "one_partition.h"

#include "members_store.h"
#include "offset_writer.h"

#define INSTANCE 77u
#define COMMIT_NS (100 * EG_NS_PER_MS)

static struct eg_groups *all;
static struct eg_group *g;
static struct eg_member m; /* of g, if it is in its list; has partition 0 of the topic, cell 3 */
static struct eg_given given;
static struct eg_member_page *page;

static inline struct eg_group *add_group(const struct eg_meta_group *meta) {
    struct eg_group *new = calloc(1, sizeof(*new));
    assert_non_null(new);
    new->uid = meta->uid;
    memcpy(new->name, meta->name, sizeof(new->name));
    new->generation = new->noted_generation = meta->generation;
    assert_true(all->count < all->cap);
    all->list[all->count] = all->by_uid[all->count] = new; /* made in this order, by name and by uid */
    all->count++;
    return new;
}

static inline int recover(void *ctx, const struct eg_meta_group *meta) {
    (void)ctx;
    add_group(meta);
    return 0;
}

static inline void start(void) {
    all = x.d.groups = calloc(1, sizeof(*all));
    all->cap = 16;
    all->list = calloc(all->cap, sizeof(struct eg_group *));
    all->by_uid = calloc(all->cap, sizeof(struct eg_group *));
    assert_int_equal(eg_names_open(&all->names), 0);
    assert_int_equal(eg_members_store_open(x.dir, INSTANCE, &all->store), 0);
    assert_int_equal(eg_meta_groups(x.d.meta, recover, NULL), 0);
    g = all->count > 0 ? all->by_uid[0] : NULL;
    if (eg_offsets_start(&x.d) != 0)
        fail_msg("%s", eg_error_text());
}

static inline void stop(bool clean) {
    if (clean)
        eg_offsets_stop(&x.d);
    else
        eg_offset_writer_close(&x.d); /* what is dirty is lost with the process */
    for (size_t i = 0; i < all->count; i++) {
        eg_offsets_free(all->list[i]);
        free(all->list[i]);
    }
    eg_members_store_close(all->store);
    eg_names_close(all->names);
    free(all->list);
    free(all->by_uid);
    free(all);
    x.d.groups = NULL;
}

static inline void restart(bool clean) {
    stop(clean);
    start();
}

static inline void join(void) {
    m = (struct eg_member){.group = g, .id = 1, .number = 1, .commit_ms = COMMIT_NS / EG_NS_PER_MS, .page = page};
    given = (struct eg_given){.topic_uid = x.t->meta.uid, .cell = 3, .collected = EG_NO_COMMIT};
    m.given = &given;
    m.given_count = m.given_cap = 1;
    g->members = &m;
    g->member_count = all->member_count = 1;
}

static inline struct eg_group *make_group(const char *name) {
    struct eg_meta_group meta = {.owner_uid = 1000};
    strcpy(meta.name, name);
    assert_int_equal(eg_meta_group_create(x.d.meta, &meta), 0);
    return add_group(&meta);
}

static inline int setup_groups(void **state) {
    int rc = setup(state);
    strcpy(x.d.config.dir, x.dir);
    x.d.config.disk_io = EG_DISK_IO_THREADS;
    x.d.config.offsets_retention_ms = -1;
    eg_log_set_level(EG_LOG_ERROR);
    assert_int_equal(eg_io_open(&x.d, &x.d.disk_io), 0);
    make_topic(&(struct eg_change){"partitions", "4"}, 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(produce(), 0);
    start();
    g = make_group("g");
    page = calloc(1, sizeof(*page));
    assert_non_null(page);
    for (size_t i = 0; i < EG_MEMBER_CELLS; i++)
        eg_store_relaxed(&page->cell[i], EG_NO_COMMIT);
    join();
    return rc;
}

static inline int teardown_groups(void **state) {
    stop(true);
    free(page);
    eg_io_close(x.d.disk_io);
    return teardown(state);
}

/* As libeagre does it. */
static inline void commit(int64_t offset) {
    eg_store_release(&page->cell[3], offset);
    atomic_fetch_add_explicit(&page->commits, 1, memory_order_release);
}

/* The daemon's next round, some time later. */
static inline int64_t tick(int64_t later) {
    now += later;
    return eg_offsets_tick(&x.d, now);
}

/* Until nothing is on its way. */
static inline void write_all(void) {
    do
        (void)tick(2 * EG_NS_PER_S);
    while (eg_io_wait(x.d.disk_io));
}

static inline int64_t committed(uint32_t partition) {
    const struct eg_committed *o = eg_offset_find(g, x.t->meta.uid, partition);
    return o != NULL ? o->offset : -1;
}

#endif
