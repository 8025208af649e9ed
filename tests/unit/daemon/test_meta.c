#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lmdb.h>

#include "meta.h"
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

static struct eg_meta_topic topic(const char *name, uint32_t partitions) {
    struct eg_meta_topic t = {.partitions = partitions, .owner_uid = 1000};
    snprintf(t.name, sizeof(t.name), "%s", name);
    return t;
}

struct list {
    size_t count;
    struct eg_meta_topic t[16];
    struct eg_meta *write_to;
};

static int collect(void *ctx, const struct eg_meta_topic *t) {
    struct list *l = ctx;
    assert_true(l->count < 16);
    l->t[l->count++] = *t;
    return l->write_to != NULL ? eg_meta_topic_put(l->write_to, t) : 0;
}

static struct list *list(struct eg_meta *m) {
    static struct list l;
    memset(&l, 0, sizeof(l));
    assert_int_equal(eg_meta_topics(m, collect, &l), 0);
    return &l;
}

static void a_topic_is_read_back_as_it_was_written(void **state) {
    struct place *p = *state;
    struct eg_meta_topic b = topic("b", 3), a = topic("a", 1);
    memset(b.settings, 's', sizeof(b.settings) - 1); /* as long as can be */
    assert_int_equal(eg_meta_topic_create(p->m, &b), 0);
    assert_int_equal(eg_meta_topic_create(p->m, &a), 0);
    assert_int_equal(b.uid, 1);
    assert_int_equal(a.uid, 2);
    assert_int_equal(b.first_partition_uid[0], 1);
    assert_int_equal(b.run_length[0], 3);
    assert_int_equal(a.first_partition_uid[0], 4);
    reopen(p);
    struct list *l = list(p->m);
    assert_int_equal(l->count, 2); /* by name */
    assert_memory_equal(&l->t[0], &a, sizeof(a));
    assert_memory_equal(&l->t[1], &b, sizeof(b));
}

static void a_name_is_taken_once(void **state) {
    struct place *p = *state;
    struct eg_meta_topic t = topic("orders", 1), again = topic("orders", 2), untouched = again;
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    assert_int_equal(eg_meta_topic_create(p->m, &again), EAGRE_E_TOPIC_EXISTS);
    assert_memory_equal(&again, &untouched, sizeof(again));
    struct eg_meta_topic next = topic("next", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &next), 0);
    assert_int_equal(next.uid, 2); /* the failure has used up nothing */
    assert_int_equal(next.first_partition_uid[0], 2);
}

static void ids_are_never_given_twice(void **state) {
    struct place *p = *state;
    struct eg_meta_topic a = topic("a", 4), b = topic("a", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &a), 0);
    assert_int_equal(eg_meta_topic_delete(p->m, &a), 0);
    reopen(p);
    assert_int_equal(eg_meta_topic_create(p->m, &b), 0);
    assert_int_equal(b.uid, a.uid + 1);
    assert_int_equal(b.first_partition_uid[0], 5);
}

static void enlargements(void **state) {
    struct place *p = *state;
    struct eg_meta_topic t = topic("t", 2), other = topic("other", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    assert_int_equal(eg_meta_topic_grow(p->m, &t, 5), 0);
    assert_int_equal(t.runs, 1); /* the ids just go on */
    assert_int_equal(t.run_length[0], 5);
    for (uint32_t i = 1; i < 8; i++) {
        snprintf(other.name, sizeof(other.name), "other%u", i);
        assert_int_equal(eg_meta_topic_create(p->m, &other), 0);
        assert_int_equal(eg_meta_topic_grow(p->m, &t, 5 + i), 0);
        assert_int_equal(t.runs, i + 1);
        assert_int_equal(t.first_partition_uid[i], other.first_partition_uid[0] + 1);
    }
    assert_int_equal(
        eg_meta_topic_create(p->m, &(struct eg_meta_topic){.name = "x", .partitions = 1}), 0);
    struct eg_meta_topic before = t;
    assert_int_equal(eg_meta_topic_grow(p->m, &t, 20), EAGRE_E_LIMIT);
    assert_memory_equal(&t, &before, sizeof(t));
    reopen(p);
    struct list *l = list(p->m);
    assert_int_equal(l->count, 9);
    assert_memory_equal(&l->t[7], &t, sizeof(t));
}

static void settings_change(void **state) {
    struct place *p = *state;
    struct eg_meta_topic t = topic("t", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    strcpy(t.settings, "retention.ms=5\n");
    assert_int_equal(eg_meta_topic_put(p->m, &t), 0);
    reopen(p);
    assert_memory_equal(&list(p->m)->t[0], &t, sizeof(t));
}

static void the_callback_may_write(void **state) {
    struct place *p = *state;
    struct list l = {.write_to = p->m};
    struct eg_meta_topic a = topic("a", 1), b = topic("b", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &a), 0);
    assert_int_equal(eg_meta_topic_create(p->m, &b), 0);
    assert_int_equal(eg_meta_topics(p->m, collect, &l), 0);
    assert_int_equal(l.count, 2);
}

static int stop_at_once(void *ctx, const struct eg_meta_topic *t) {
    (void)t;
    ++*(int *)ctx;
    return EAGRE_E_STATE;
}

static void the_first_failure_ends_the_walk(void **state) {
    struct place *p = *state;
    int calls = 0;
    struct eg_meta_topic a = topic("a", 1), b = topic("b", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &a), 0);
    assert_int_equal(eg_meta_topic_create(p->m, &b), 0);
    assert_int_equal(eg_meta_topics(p->m, stop_at_once, &calls), EAGRE_E_STATE);
    assert_int_equal(calls, 1);
}

static void marks(void **state) {
    struct place *p = *state;
    struct eg_meta_topic t = topic("t", 2);
    struct eg_meta_mark got;
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    assert_int_equal(eg_meta_mark_get(p->m, 1, &got), 0);
    assert_true(got.partition_uid == 1 && got.end == 0 && got.clean == 0 && got.seq == 0);
    const struct eg_meta_mark put[2] = {{1, 1, INT64_MAX, 1ull << 39}, {2, 0, 7, 8}};
    assert_int_equal(eg_meta_marks_put(p->m, put, 2), 0);
    reopen(p);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(eg_meta_mark_get(p->m, put[i].partition_uid, &got), 0);
        assert_memory_equal(&got, &put[i], sizeof(got));
    }
    assert_int_equal(eg_meta_topic_delete(p->m, &t), 0); /* takes its marks with it */
    assert_int_equal(eg_meta_mark_get(p->m, 1, &got), 0);
    assert_true(got.end == 0);
}

/* What a call has returned for is there after SIGKILL at any later time. */
static void a_change_survives_sigkill(void **state) {
    struct place *p = *state;
    int told[2];
    eg_meta_close(p->m);
    p->m = NULL;
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct eg_meta *m;
        if (eg_meta_open(p->dir, &m) != 0)
            _exit(1);
        for (uint32_t i = 0;; i++) {
            struct eg_meta_topic t = topic("", 1);
            snprintf(t.name, sizeof(t.name), "t%u", i);
            if (eg_meta_topic_create(m, &t) != 0 || eg_meta_topic_delete(m, &t) != 0 ||
                write(told[1], &i, sizeof(i)) != sizeof(i))
                _exit(1);
        }
    }
    uint32_t last = 0;
    close(told[1]);
    while (last < 5)
        assert_int_equal(read(told[0], &last, sizeof(last)), sizeof(last));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    while (read(told[0], &last, sizeof(last)) == sizeof(last)) {}
    close(told[0]);
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
    struct list *l = list(p->m);
    assert_true(l->count <= 1); /* the one that was in work */
    struct eg_meta_topic t = topic("new", 1);
    assert_int_equal(eg_meta_topic_create(p->m, &t), 0);
    assert_true(t.uid > last + 1);
}

/* As LMDB's own tools could do. */
static void store(struct place *p, const char *database, const char *name, void *data, size_t n) {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    char path[96];
    eg_meta_close(p->m);
    p->m = NULL;
    snprintf(path, sizeof(path), "%s/meta", p->dir);
    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 8);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, database, 0, &dbi), 0);
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, value = {n, data};
    assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void records_that_make_no_sense_are_named(void **state) {
    struct place *p = *state;
    uint32_t record[25] = {1, 2, 0, 1, /* run */ 1, 2};
    struct list l = {.count = 0};
    static const struct {
        size_t word;
        uint32_t value;
        size_t bytes;
    } damage[] = {{0, 0, 84},  {1, 3, 84},      {3, 9, 84}, {3, 0, 84},
                  {20, 1, 84}, {20, 99999, 84}, {0, 1, 83}, {0, 1, 10}};
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        uint32_t bad[25];
        memcpy(bad, record, sizeof(bad));
        bad[damage[i].word] = damage[i].value;
        store(p, "topics", "odd", bad, damage[i].bytes);
        assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
        assert_int_equal(eg_meta_topics(p->m, collect, &l), EAGRE_E_CORRUPT);
        assert_non_null(strstr(eg_error_text(), "topic 'odd'"));
        assert_non_null(strstr(eg_error_text(), p->dir));
    }
    store(p, "topics", "odd", record, 84);
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
    assert_int_equal(eg_meta_topics(p->m, collect, &l), 0);
}

static void another_format_is_refused(void **state) {
    struct place *p = *state;
    uint32_t format = 2;
    store(p, "ids", "format", &format, sizeof(format));
    assert_int_equal(eg_meta_open(p->dir, &p->m), EAGRE_E_VERSION);
    p->m = NULL;
}

static void put(const struct place *p, const char *name, const char *text) {
    char path[96];
    snprintf(path, sizeof(path), "%s/%s", p->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* Cut off while it was made for the first time: by any rubbish that is left. */
static void a_half_made_one_is_made_anew(void **state) {
    struct place *p = *state;
    char path[96];
    eg_meta_close(p->m);
    snprintf(path, sizeof(path), "%s/meta/data.mdb", p->dir);
    assert_int_equal(unlink(path), 0);
    put(p, "meta/making", "rubbish");
    put(p, "meta/making-lock", "rubbish");
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
    snprintf(path, sizeof(path), "%s/meta/making", p->dir);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/meta/making-lock", p->dir);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* Its ids would be given out again, and files of topics be taken for those of others. */
static void none_is_made_where_log_files_are(void **state) {
    struct place *p = *state;
    char path[96], log[96];
    eg_meta_close(p->m);
    p->m = NULL;
    snprintf(path, sizeof(path), "%s/meta/data.mdb", p->dir);
    assert_int_equal(unlink(path), 0);
    snprintf(log, sizeof(log), "%s/log", p->dir);
    snprintf(path, sizeof(path), "%s/log/t12", p->dir);
    assert_int_equal(mkdir(log, 0700) | mkdir(path, 0700), 0);
    assert_int_equal(eg_meta_open(p->dir, &p->m), EAGRE_E_CORRUPT);
    assert_non_null(strstr(eg_error_text(), "data.mdb, which knows them, is missing"));
    assert_int_equal(rmdir(path), 0);
    snprintf(path, sizeof(path), "%s/log/t12.gone", p->dir); /* a deleted topic's do not matter */
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(eg_meta_open(p->dir, &p->m), 0);
    assert_int_equal(rmdir(path) | rmdir(log), 0);
}

static void no_directory(void **state) {
    struct eg_meta *m = NULL;
    (void)state;
    assert_int_equal(eg_meta_open("/nonexistent", &m), EAGRE_E_IO);
    assert_non_null(strstr(eg_error_text(), "/nonexistent/meta"));
    assert_null(m);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_topic_is_read_back_as_it_was_written),
        TEST(a_name_is_taken_once),
        TEST(ids_are_never_given_twice),
        TEST(enlargements),
        TEST(settings_change),
        TEST(the_callback_may_write),
        TEST(the_first_failure_ends_the_walk),
        TEST(marks),
        TEST(a_change_survives_sigkill),
        TEST(records_that_make_no_sense_are_named),
        TEST(another_format_is_refused),
        TEST(a_half_made_one_is_made_anew),
        TEST(none_is_made_where_log_files_are),
        cmocka_unit_test(no_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
