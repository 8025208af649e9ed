#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "members_store.h"
#include "sys/errbuf.h"

#define INSTANCE 0x1234abcdu

struct place {
    char dir[64];
    struct eg_members_store *s;
};

static void open_store(struct place *p) { assert_int_equal(eg_members_store_open(p->dir, INSTANCE, &p->s), 0); }

static int setup(void **state) {
    struct place *p = calloc(1, sizeof(*p));
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof(p->dir), "%.40s/eg-members-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(p->dir));
    eg_log_set_level(EG_LOG_ERROR);
    open_store(p);
    *state = p;
    return 0;
}

/* The only file of the store; "" if there is none. */
static void find_file(const struct place *p, char *path, size_t cap, size_t *files) {
    char dir[96];
    const struct dirent *e;
    snprintf(dir, sizeof(dir), "%s/members", p->dir);
    DIR *all = opendir(dir);
    *files = 0;
    path[0] = '\0';
    while (all != NULL && (e = readdir(all)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, cap, "%s/%s", dir, e->d_name);
        ++*files;
    }
    if (all != NULL)
        closedir(all);
}

static int teardown(void **state) {
    struct place *p = *state;
    char path[400];
    size_t files;
    eg_members_store_close(p->s);
    for (find_file(p, path, sizeof(path), &files); files > 0; find_file(p, path, sizeof(path), &files))
        assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/members", p->dir);
    rmdir(path);
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static void reopen(struct place *p) {
    eg_members_store_close(p->s);
    p->s = NULL;
    open_store(p);
}

/* ---- what is there -------------------------------------------------------------------------------------- */

struct found {
    size_t groups, members, offsets, given;
    struct eg_stored_group group;
    struct eg_member member;
    struct eg_given first;
    uint32_t group_uid;
    struct eg_meta_offset offset;
    char metadata[16], topics[4][16], instance_id[16];
    uint64_t least, most; /* ids */
    uint32_t version;     /* of all members, UINT32_MAX: they differ */
};

static int group_found(void *ctx, const struct eg_stored_group *g) {
    struct found *f = ctx;
    f->groups++;
    f->group = *g;
    return 0;
}

static int member_found(void *ctx, uint32_t group_uid, struct eg_member *m) {
    struct found *f = ctx;
    f->version = f->members == 0 || f->version == m->version ? m->version : UINT32_MAX;
    f->least = f->members == 0 ? m->id : f->least;
    f->most = m->id;
    f->members++;
    f->member = *m;
    f->group_uid = group_uid;
    f->given += m->given_count;
    for (size_t i = 0; i < m->topic_count; i++) {
        if (i < 4)
            snprintf(f->topics[i], sizeof(f->topics[i]), "%s", m->topics[i]);
        free(m->topics[i]);
    }
    for (size_t i = 0; i < m->given_count; i++)
        assert_true(m->given[i].collected == EG_NO_COMMIT);
    if (m->given_count > 0)
        f->first = m->given[0];
    free(m->topics);
    free(m->given);
    return 0;
}

static int offset_found(void *ctx, const struct eg_meta_offset *o) {
    struct found *f = ctx;
    f->offsets++;
    f->offset = *o;
    snprintf(f->metadata, sizeof(f->metadata), "%s", o->metadata != NULL ? o->metadata : "-");
    return 0;
}

static struct found look(const struct place *p) {
    struct found f = {0};
    assert_int_equal(eg_members_store_groups(p->s, group_found, &f), 0);
    assert_int_equal(eg_members_store_members(p->s, member_found, &f), 0);
    assert_int_equal(eg_members_store_offsets(p->s, offset_found, &f), 0);
    return f;
}

/* ---- tests ------------------------------------------------------------------------------------------------- */

static struct eg_group group(uint32_t uid) {
    struct eg_group g = {.uid = uid, .generation = 7, .assignor = EG_ASSIGN_NUMA};
    return g;
}

static void finds_everything_again(void **state) {
    struct place *p = *state;
    struct eg_group g = group(3);
    char a[] = "a", longer[] = "longer.name", *topics[] = {a, longer};
    struct eg_given given[] = {{.topic_uid = 1, .partition = 2, .cell = 3, .leaving = true}, {.topic_uid = 4, .cell = 5}};
    struct eg_member m = {.group = &g,
                          .id = 0x100000001,
                          .number = EG_MEMBERS_MAX,
                          .owner = 17,
                          .cookie = 0xfedcba9876543210,
                          .uid = 1000,
                          .pid = 4711,
                          .instance_id = "left",
                          .client_id = "c",
                          .strategy = {EG_ASSIGN_NUMA, EG_ASSIGN_RANGE},
                          .max_poll_ms = 300000,
                          .session_ms = 45000,
                          .commit_ms = 5000,
                          .node = UINT32_MAX,
                          .by_pattern = true,
                          .topics = topics,
                          .topic_count = 2,
                          .version = 9,
                          .applied = 8,
                          .generation = 6,
                          .given = given,
                          .given_count = 2,
                          .away_ns = 12345};
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_put_group(p->s, &g), 0);
    assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    reopen(p);
    struct found f = look(p);
    assert_int_equal(f.groups, 1);
    assert_int_equal(f.group.uid, 3);
    assert_int_equal(f.group.generation, 7);
    assert_int_equal(f.group.assignor, EG_ASSIGN_NUMA);
    assert_int_equal(f.members, 1);
    assert_int_equal(f.group_uid, 3);
    assert_true(f.member.id == m.id && f.member.number == m.number && f.member.owner == 17 && f.member.cookie == m.cookie);
    assert_true(f.member.uid == 1000 && f.member.pid == 4711);
    assert_string_equal(f.member.instance_id, "left");
    assert_string_equal(f.member.client_id, "c");
    assert_memory_equal(f.member.strategy, m.strategy, sizeof(m.strategy));
    assert_true(f.member.max_poll_ms == 300000 && f.member.session_ms == 45000 && f.member.commit_ms == 5000);
    assert_true(f.member.node == UINT32_MAX && f.member.by_pattern && f.member.away_ns == 12345);
    assert_true(f.member.version == 9 && f.member.applied == 8 && f.member.generation == 6);
    assert_int_equal(f.member.topic_count, 2);
    assert_string_equal(f.topics[1], "longer.name");
    assert_int_equal(f.member.given_count, 2);
    assert_true(f.first.topic_uid == 1 && f.first.partition == 2 && f.first.cell == 3 && f.first.leaving);

    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_remove_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_remove_group(p->s, 3), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    reopen(p);
    f = look(p);
    assert_true(f.groups == 0 && f.members == 0);
}

/* Whoever writes a member notes what its group has committed and the metadata do not have. */
static void notes_offsets_with_members(void **state) {
    struct place *p = *state;
    char metadata[] = "meta";
    struct eg_committed offsets[] = {
        {.topic_uid = 1, .offset = 10, .stamp = 1},
        {.topic_uid = 1, .partition = 1, .offset = 11, .stamp = 2, .dirty = true, .metadata = metadata},
        {.topic_uid = 1, .partition = 2, .offset = 12, .stamp = 3, .writing = true}};
    struct eg_group g = group(3);
    g.offsets = offsets;
    g.offset_count = 2;
    struct eg_member m = {.group = &g, .id = 1, .number = 1};
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    reopen(p);
    struct found f = look(p);
    assert_int_equal(f.offsets, 1);
    assert_true(f.offset.group_uid == 3 && f.offset.topic_uid == 1 && f.offset.partition == 1 && f.offset.offset == 11);
    assert_int_equal(f.offset.stamp, 2);
    assert_string_equal(f.metadata, "meta");

    g.noted_round = 0;
    g.offset_count = 3;
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_remove_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    reopen(p);
    f = look(p);
    assert_int_equal(f.offsets, 2);
    assert_int_equal(eg_members_store_forget_offsets(p->s), 0);
    assert_int_equal(look(p).offsets, 0);
    reopen(p);
    assert_int_equal(look(p).offsets, 0);
}

/* A transaction that fails makes nothing, and does not count as noted. */
static void makes_all_or_nothing(void **state) {
    struct place *p = *state;
    struct eg_committed offset = {.topic_uid = 1, .offset = 11, .stamp = 2, .dirty = true};
    struct eg_group g = group(3);
    g.offsets = &offset;
    g.offset_count = 1;
    struct eg_member m = {.group = &g, .id = 1, .number = 1};
    char *topic = malloc(200000); /* longer than a name can be */
    memset(topic, 'x', 199999);
    topic[199999] = '\0';
    struct eg_member bad = {.group = &g, .id = 2, .number = 2, .topics = &topic, .topic_count = 1};
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
    assert_int_not_equal(eg_members_store_put_member(p->s, &bad), 0);
    (void)eg_members_store_put_group(p->s, &g);
    assert_int_not_equal(eg_members_store_commit(p->s), 0);
    struct found f = look(p);
    assert_true(f.groups == 0 && f.members == 0 && f.offsets == 0);
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    f = look(p);
    assert_true(f.members == 1 && f.offsets == 1);
    free(topic);
}

static void put_one(struct place *p) {
    struct eg_group g = group(3);
    struct eg_member m = {.group = &g, .id = 1, .number = 1};
    assert_int_equal(eg_members_store_begin(p->s), 0);
    assert_int_equal(eg_members_store_put_group(p->s, &g), 0);
    assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
    assert_int_equal(eg_members_store_commit(p->s), 0);
    assert_int_equal(look(p).members, 1);
}

static void drops_another_instances(void **state) {
    struct place *p = *state;
    char path[400];
    size_t files;
    put_one(p);
    eg_members_store_close(p->s);
    p->s = NULL;
    assert_int_equal(eg_members_store_open(p->dir, INSTANCE + 1, &p->s), 0);
    struct found f = look(p);
    assert_true(f.groups == 0 && f.members == 0);
    find_file(p, path, sizeof(path), &files);
    assert_int_equal(files, 1);
    reopen(p);
    assert_int_equal(look(p).members, 0);
}

/* Cut off, overwritten, emptied, another kind of file, records that make no sense: nobody is a member then. */
static void makes_anew_what_is_damaged(void **state) {
    struct place *p = *state;
    char path[400], page[4096];
    size_t files;
    memset(page, 0xa5, sizeof(page));
    for (int how = 0; how < 7; how++) {
        put_one(p);
        eg_members_store_close(p->s);
        p->s = NULL;
        find_file(p, path, sizeof(path), &files);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        if (how == 0)
            assert_int_equal(ftruncate(fd, 8192), 0);
        else if (how == 1)
            assert_int_equal(ftruncate(fd, 100), 0);
        else if (how == 2)
            assert_true(pwrite(fd, page, sizeof(page), 0) > 0 && pwrite(fd, page, sizeof(page), 4096) > 0);
        else if (how == 3)
            assert_int_equal(ftruncate(fd, 0), 0);
        close(fd);
        if (how >= 4) { /* a member with a number that there is not, one with such an assignor, such a group */
            struct eg_group g = group(3);
            struct eg_member m = {.group = &g, .id = 2, .number = how == 4 ? EG_MEMBERS_MAX + 1 : 2};
            m.strategy[1] = how == 5 ? EG_ASSIGN_NUMA + 1 : 0;
            g.assignor = how == 6 ? (enum eg_assignor)(EG_ASSIGN_NUMA + 1) : EG_ASSIGN_RANGE;
            open_store(p);
            assert_int_equal(eg_members_store_begin(p->s), 0);
            assert_int_equal(eg_members_store_put_group(p->s, &g), 0);
            assert_int_equal(eg_members_store_put_member(p->s, &m), 0);
            assert_int_equal(eg_members_store_commit(p->s), 0);
            eg_members_store_close(p->s);
        }
        open_store(p);
        struct found f = look(p);
        assert_true(f.groups == 0 && f.members == 0 && f.offsets == 0);
    }
}

/*
 * Killed again and again in the middle of transactions that give all members another version, and replace one
 * member: whoever comes next finds all of them with the same version.
 */
#define MEMBERS 40

static void change_until_killed(struct place *p, int told) {
    static struct eg_given given[64];
    struct eg_group g = group(3);
    char name[] = "some.topic", *topics[] = {name};
    struct found f = look(p);
    for (uint32_t version = f.version + 1;; version++) {
        uint64_t first = f.members > 0 ? f.least + 1 : 1;
        if (eg_members_store_begin(p->s) != 0)
            _exit(2);
        struct eg_member gone = {.group = &g, .id = first - 1, .number = 1};
        (void)eg_members_store_remove_member(p->s, &gone);
        for (uint64_t id = first; id < first + MEMBERS; id++) {
            struct eg_member m = {.group = &g,
                                  .id = id,
                                  .number = 1 + (uint32_t)(id % EG_MEMBERS_MAX),
                                  .version = version,
                                  .topics = topics,
                                  .topic_count = 1,
                                  .given = given,
                                  .given_count = version % 64};
            (void)eg_members_store_put_member(p->s, &m);
        }
        if (eg_members_store_commit(p->s) != 0)
            _exit(2);
        f.least = first;
        f.members = MEMBERS;
        if (write(told, &version, sizeof(version)) != sizeof(version))
            _exit(2);
    }
}

static void killed_anywhere_it_is_whole(void **state) {
    struct place *p = *state;
    uint32_t seen = 0;
    struct found f = {0};
    for (unsigned round = 0; round < 60; round++) {
        int ends[2], status;
        uint32_t told;
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        eg_members_store_close(p->s);
        p->s = NULL;
        pid_t child = fork();
        if (child == 0) {
            open_store(p);
            change_until_killed(p, ends[1]);
        }
        close(ends[1]);
        for (unsigned n = 0; n <= round % 7; n++)
            assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
        for (volatile unsigned wait = 0; wait < round * 9001; wait++) {} /* anywhere in the next one */
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(ends[0], &told, sizeof(told)) == sizeof(told)) {}
        close(ends[0]);
        open_store(p);
        f = look(p);
        assert_int_equal(f.members, MEMBERS);
        assert_true(f.version != UINT32_MAX && f.most == f.least + MEMBERS - 1);
        assert_true(f.version >= told && told > seen); /* what was said to be made is there */
        assert_int_equal(f.given, MEMBERS * (f.version % 64));
        seen = f.version;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_everything_again, setup, teardown),
        cmocka_unit_test_setup_teardown(notes_offsets_with_members, setup, teardown),
        cmocka_unit_test_setup_teardown(makes_all_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(drops_another_instances, setup, teardown),
        cmocka_unit_test_setup_teardown(makes_anew_what_is_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_anywhere_it_is_whole, setup, teardown),
    };
    return cmocka_run_group_tests_name("members_store", tests, NULL, NULL);
}
