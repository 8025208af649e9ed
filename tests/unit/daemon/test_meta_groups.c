#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "meta_groups.h"
#include "meta_internal.h"
#include "sys/errbuf.h"

struct place {
    char dir[64];
    struct eg_meta *m;
};

static int setup(void **state) {
    struct place *p = calloc(1, sizeof(*p));
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof(p->dir), "%.40s/eg-meta-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(p->dir));
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
    *state = p;
    return 0;
}

static int teardown(void **state) {
    static const char *const files[] = {"meta/data.mdb", "meta/lock.mdb", "meta", ""};
    struct place *p = *state;
    char path[96];
    eg_meta_close(p->m);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", p->dir, files[i]);
        remove(path);
    }
    free(p);
    return 0;
}

static void reopen(struct place *p) {
    eg_meta_close(p->m);
    p->m = NULL;
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
}

static uint32_t make_group(struct place *p, const char *name, uint32_t type) {
    struct eg_meta_group g = {.type = type, .owner_uid = 1000};
    strcpy(g.name, name);
    assert_int_equal(eg_meta_group_create(p->m, &g), 0);
    return g.uid;
}

static uint32_t make_topic(struct place *p, const char *name) {
    struct eg_meta_topic t = {.partitions = 4};
    strcpy(t.name, name);
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    return t.uid;
}

/* What is there, in order. */
struct list {
    size_t groups, offsets;
    struct eg_meta_group g[8];
    struct eg_meta_offset o[64];
    char metadata[64][16];
    size_t longest;
};

static int add_group(void *ctx, const struct eg_meta_group *g) {
    struct list *l = ctx;
    assert_true(l->groups < 8);
    l->g[l->groups++] = *g;
    return 0;
}

static int add_offset(void *ctx, const struct eg_meta_offset *o) {
    struct list *l = ctx;
    assert_true(l->offsets < 64);
    snprintf(l->metadata[l->offsets], sizeof(l->metadata[0]), "%s", o->metadata != NULL ? o->metadata : "-");
    if (o->metadata != NULL && strlen(o->metadata) > l->longest)
        l->longest = strlen(o->metadata);
    l->o[l->offsets++] = *o;
    return 0;
}

static const struct list *look(const struct place *p) {
    static struct list l;
    memset(&l, 0, sizeof(l));
    assert_int_equal(eg_meta_groups(p->m, add_group, &l), 0);
    assert_int_equal(eg_meta_offsets(p->m, add_offset, &l), 0);
    return &l;
}

static void put(struct place *p, uint32_t group, uint32_t topic, uint32_t partition, int64_t offset, const char *metadata) {
    struct eg_meta_offset o = {.group_uid = group,
                               .topic_uid = topic,
                               .partition = partition,
                               .flags = EG_OFFSET_CLAMPED,
                               .offset = offset,
                               .time_ms = offset + 1,
                               .stamp = (uint64_t)offset + 2,
                               .metadata = metadata};
    assert_int_equal(eg_meta_offsets_put(p->m, &o, 1, NULL, 0), 0);
}

static void keeps_groups(void **state) {
    struct place *p = *state;
    char longest[EG_GROUP_NAME_MAX + 1];
    memset(longest, 'x', EG_GROUP_NAME_MAX);
    longest[EG_GROUP_NAME_MAX] = '\0';
    uint32_t a = make_group(p, "a", EG_GROUP_SHARE), b = make_group(p, longest, EG_GROUP_CONSUMER);
    assert_true(a == 1 && b == 2);
    struct eg_meta_group g[] = {{.uid = b, .generation = 9}, {.uid = 77, .generation = 1}};
    assert_int_equal(eg_meta_offsets_put(p->m, NULL, 0, g, 2), 0);
    g[0].generation = 8; /* it never goes back */
    assert_int_equal(eg_meta_offsets_put(p->m, NULL, 0, g, 1), 0);
    reopen(p);
    const struct list *l = look(p);
    assert_int_equal(l->groups, 2);
    assert_string_equal(l->g[0].name, "a");
    assert_true(l->g[0].uid == a && l->g[0].type == EG_GROUP_SHARE && l->g[0].owner_uid == 1000 && l->g[0].generation == 0);
    assert_string_equal(l->g[1].name, longest);
    assert_true(l->g[1].uid == b && l->g[1].type == EG_GROUP_CONSUMER && l->g[1].generation == 9);
    assert_int_equal(eg_meta_group_delete(p->m, &l->g[1]), 0);
    reopen(p);
    assert_int_equal(look(p)->groups, 1);
    assert_int_equal(make_group(p, "c", 0), 3); /* an id is never given again */
}

static void keeps_offsets(void **state) {
    struct place *p = *state;
    char text[EG_METADATA_MAX + 1];
    memset(text, 'x', EG_METADATA_MAX);
    text[EG_METADATA_MAX] = '\0';
    uint32_t g = make_group(p, "g", 0), h = make_group(p, "h", 0);
    put(p, h, 1, 256, 5, NULL);
    put(p, g, 256, 1, 6, text);
    put(p, g, 1, 256, 7, "m");
    put(p, g, 1, 1, INT64_MAX - 2, NULL);
    put(p, g, 1, 1, 8, NULL);
    put(p, g, 2, 0, 9, NULL);
    put(p, g, 2, 0, -1, "x");
    put(p, g, 3, 0, -1, NULL);
    put(p, 99, 1, 1, 10, NULL); /* there is no such group */
    reopen(p);
    const struct list *l = look(p);
    assert_int_equal(l->offsets, 4);
    assert_true(l->o[0].group_uid == g && l->o[0].topic_uid == 1 && l->o[0].partition == 1 && l->o[0].offset == 8);
    assert_true(l->o[0].time_ms == 9 && l->o[0].stamp == 10 && l->o[0].flags == EG_OFFSET_CLAMPED);
    assert_true(l->o[1].partition == 256 && l->o[1].offset == 7);
    assert_string_equal(l->metadata[1], "m");
    assert_true(l->o[2].topic_uid == 256 && l->longest == EG_METADATA_MAX);
    assert_true(l->o[3].group_uid == h && l->o[3].offset == 5);
    assert_string_equal(l->metadata[3], "-");
}

/* With the group, or with the topic: all of that one's, and nothing else's. */
static void goes_with_group_and_topic(void **state) {
    struct place *p = *state;
    uint32_t g[3], t[3];
    static const char *const names[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        g[i] = make_group(p, names[i], 0);
        t[i] = make_topic(p, names[i]);
    }
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 3; k++)
            for (uint32_t n = 0; n < 4 && (i != 1 || k != 1); n++) /* b has none of b */
                put(p, g[i], t[k], n, 5, NULL);
    struct eg_meta_topic b = {.uid = t[1]};
    strcpy(b.name, "b");
    assert_int_equal(look(p)->offsets, 32);
    assert_int_equal(eg_meta_topic_delete(p->m, &b), 0);
    reopen(p);
    const struct list *l = look(p);
    assert_int_equal(l->offsets, 24);
    for (size_t i = 0; i < l->offsets; i++)
        assert_int_not_equal(l->o[i].topic_uid, t[1]);
    struct eg_meta_group c = {.uid = g[2]};
    assert_int_equal(eg_meta_group_delete(p->m, &c), 0);
    put(p, g[2], t[0], 0, 5, NULL);
    reopen(p);
    l = look(p);
    assert_int_equal(l->offsets, 16);
    for (size_t i = 0; i < l->offsets; i++)
        assert_int_not_equal(l->o[i].group_uid, g[2]);
    struct eg_meta_topic last = {.uid = t[2]};
    strcpy(last.name, "c");
    assert_int_equal(eg_meta_topic_delete(p->m, &last), 0);
    struct eg_meta_topic first = {.uid = t[0]};
    strcpy(first.name, "a");
    assert_int_equal(eg_meta_topic_delete(p->m, &first), 0);
    assert_int_equal(look(p)->offsets, 0);
}

static int fail_at(void *ctx, const struct eg_meta_group *g) {
    (void)g;
    return --*(int *)ctx == 0 ? EAGRE_E_STATE : EAGRE_OK;
}

static void stops_at_a_failure(void **state) {
    struct place *p = *state;
    int left = 2;
    make_group(p, "a", 0);
    make_group(p, "b", 0);
    make_group(p, "c", 0);
    assert_int_equal(eg_meta_groups(p->m, fail_at, &left), EAGRE_E_STATE);
    assert_int_equal(left, 0);
}

/* Records that make no sense are damage, not offsets. */
static void believes_no_record(void **state) {
    struct place *p = *state;
    static struct list l;
    static const size_t sizes[] = {0, 3, 27, 29 + EG_METADATA_MAX};
    uint8_t data[8192] = {0};
    for (size_t i = 0; i < 6; i++) {
        MDB_txn *txn;
        uint8_t name[12] = {0, 0, 0, 9};
        MDB_val key = {i == 4 ? 11 : i == 5 ? 4 : 12, name}, value = {i < 4 ? sizes[i] : i == 4 ? 28 : 12, data};
        assert_int_equal(eg_meta_begin(p->m, 0, &txn), 0);
        assert_int_equal(mdb_put(txn, i == 5 ? p->m->groups : p->m->offsets, &key, &value, 0), 0);
        assert_int_equal(eg_meta_end(p->m, txn, 0), 0);
        if (i < 5)
            assert_int_equal(eg_meta_offsets(p->m, add_offset, &l), EAGRE_E_CORRUPT);
        else
            assert_int_equal(eg_meta_groups(p->m, add_group, &l), EAGRE_E_CORRUPT);
        assert_int_equal(eg_meta_begin(p->m, 0, &txn), 0);
        assert_int_equal(mdb_del(txn, i == 5 ? p->m->groups : p->m->offsets, &key, NULL), 0);
        assert_int_equal(eg_meta_end(p->m, txn, 0), 0);
    }
}

/* Two threads: one puts offsets of a group, all the same, the other one makes and deletes topics. */
static void *put_many(void *arg) {
    struct place *p = arg;
    struct eg_meta_offset o[20];
    for (int64_t n = 1; n <= 40; n++) {
        for (uint32_t i = 0; i < 20; i++)
            o[i] = (struct eg_meta_offset){.group_uid = 1, .topic_uid = 1, .partition = i, .offset = n};
        if (eg_meta_offsets_put(p->m, o, 20, NULL, 0) != EAGRE_OK)
            return p;
    }
    return NULL;
}

static void is_written_beside_topics(void **state) {
    struct place *p = *state;
    pthread_t thread;
    void *bad;
    make_group(p, "g", 0);
    assert_int_equal(pthread_create(&thread, NULL, put_many, p), 0);
    for (int i = 0; i < 20; i++) {
        struct eg_meta_topic t = {.partitions = 1, .name = "t"};
        assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
        const struct list *l = look(p);
        for (size_t k = 0; k < l->offsets; k++)
            assert_int_equal(l->o[k].offset, l->o[0].offset);
        assert_int_equal(eg_meta_topic_delete(p->m, &t), 0);
    }
    assert_int_equal(pthread_join(thread, &bad), 0);
    assert_null(bad);
}

/* Killed while it writes: a transaction is there or not, and what was said to be there is. */
static void is_whole_when_killed(void **state) {
    struct place *p = *state;
    int64_t told = 0;
    make_group(p, "g", 0);
    for (int round = 0; round < 8; round++) {
        int ends[2], status;
        eg_meta_close(p->m);
        p->m = NULL;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            if (eg_meta_open(p->dir, &p->m) != EAGRE_OK)
                _exit(2);
            for (int64_t n = told + 1;; n++) {
                struct eg_meta_offset o[20];
                for (uint32_t i = 0; i < 20; i++)
                    o[i] = (struct eg_meta_offset){.group_uid = 1, .topic_uid = i % 3, .partition = i, .offset = n};
                if (eg_meta_offsets_put(p->m, o, 20, NULL, 0) != EAGRE_OK || write(ends[1], &n, sizeof(n)) != sizeof(n))
                    _exit(2);
            }
        }
        close(ends[1]);
        for (int i = 0; i <= round; i++)
            assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
        for (volatile int wait = 0; wait < round * 100000; wait++) {}
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        while (read(ends[0], &told, sizeof(told)) == sizeof(told)) {}
        close(ends[0]);
        assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
        const struct list *l = look(p);
        assert_int_equal(l->offsets, 20);
        for (size_t i = 0; i < 20; i++)
            assert_int_equal(l->o[i].offset, l->o[0].offset);
        assert_true(l->o[0].offset >= told);
        told = l->o[0].offset;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_offsets, setup, teardown),
        cmocka_unit_test_setup_teardown(goes_with_group_and_topic, setup, teardown),
        cmocka_unit_test_setup_teardown(stops_at_a_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(believes_no_record, setup, teardown),
        cmocka_unit_test_setup_teardown(is_written_beside_topics, setup, teardown),
        cmocka_unit_test_setup_teardown(is_whole_when_killed, setup, teardown),
    };
    return cmocka_run_group_tests_name("meta_groups", tests, NULL, NULL);
}
