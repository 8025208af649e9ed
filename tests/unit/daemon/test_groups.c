/*
 * The coordinator of groups in one process, with members that are made up: they join, subscribe, follow, dawdle, commit,
 * leave, die, do not poll, and take each other's place; topics come, grow and go; the daemon is killed at its named steps
 * and started again. All of it from a seed. After each step:
 *
 *   a partition that a member was told is told to no other before that one has given it up, is dead or put out
 *   ... and to no other in the same generation; generations do not go back; member ids do not come back
 *   who gets a partition gets the last offset that was committed by who had it
 *   what the coordinator remembers fits together; when all follow, all that is subscribed is somebody's
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "clients.h"
#include "disk_io.h"
#include "graves.h"
#include "group_target.h"
#include "handlers.h"
#include "members_store.h"
#include "offset_writer.h"
#include "partition.h"
#include "proto/codec.h"
#include "shares.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define HANDLES 10
#define TOPICS 4
#define GROUPS 2
#define UIDS 400       /* of topics, in a run */
#define PARTS 12       /* of a topic, at most */
#define LOG_END 1000
#define MAX_POLL_MS 2000
#define SESSION_MS 500
#define KILLS_MAX 4096

/* ---- a clock that the test turns, a disk that does not take its time, a keeper in this process --------------- */

static int64_t clock_ns = 1000 * EG_NS_PER_S, clock_step_ns; /* that each look at it takes */

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *out) {
    if (id == CLOCK_MONOTONIC || id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        clock_ns += id == CLOCK_MONOTONIC ? clock_step_ns : 0;
        int64_t ns = clock_ns + (id == CLOCK_MONOTONIC ? 0 : 1700000000 * EG_NS_PER_S);
        *out = (struct timespec){.tv_sec = ns / EG_NS_PER_S, .tv_nsec = ns % EG_NS_PER_S};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, id, out);
}

__attribute__((visibility("default"))) int fdatasync(int fd) {
    (void)fd;
    return 0;
}

static bool disk_is_full;

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    if (!disk_is_full)
        return syscall(SYS_pwrite64, fd, data, n, at);
    errno = ENOSPC;
    return -1;
}

__attribute__((visibility("default"))) ssize_t writev(int fd, const struct iovec *v, int n) { /* LMDB's, of pages */
    if (!disk_is_full)
        return syscall(SYS_writev, fd, v, (long)n);
    errno = ENOSPC;
    return -1;
}

static struct kept {
    char name[EG_KEEP_NAME_MAX + 1];
    int fd;
    bool left; /* of the daemon before, not taken yet */
} kept[4096];
static size_t kept_count;

static struct kept *find_kept(const char *name) {
    for (size_t i = 0; i < kept_count; i++)
        if (strcmp(kept[i].name, name) == 0)
            return &kept[i];
    return NULL;
}

int eg_keep_put(struct eg_keep *k, const char *name, int fd) {
    struct kept *e = find_kept(name);
    (void)k;
    if (e == NULL) {
        assert_true(kept_count < sizeof(kept) / sizeof(kept[0]));
        e = &kept[kept_count++];
        snprintf(e->name, sizeof(e->name), "%s", name);
    } else {
        close(e->fd);
    }
    e->fd = dup(fd);
    e->left = false;
    assert_true(e->fd >= 0);
    return EAGRE_OK;
}

int eg_keep_drop(struct eg_keep *k, const char *name) {
    struct kept *e = find_kept(name);
    (void)k;
    if (e != NULL) {
        close(e->fd);
        *e = kept[--kept_count];
    }
    return EAGRE_OK;
}

int eg_keep_take(struct eg_keep *k, const char *name) {
    struct kept *e = find_kept(name);
    (void)k;
    if (e == NULL || !e->left)
        return -1;
    e->left = false;
    return dup(e->fd);
}

const char *eg_keep_left(struct eg_keep *k, size_t i) {
    (void)k;
    for (size_t n = 0; n < kept_count; n++)
        if (kept[n].left && i-- == 0)
            return kept[n].name;
    return NULL;
}

const char *eg_keep_kind(const struct eg_keep *k) {
    (void)k;
    return "test";
}
int eg_keep_pid(const struct eg_keep *k) {
    (void)k;
    return 0;
}
const struct eg_service eg_keep_service = {.name = "keep"};

/* ---- the world ------------------------------------------------------------------------------------------------ */

struct part {
    uint32_t uid, partition, cell;
    bool revoked; /* learned to be given up, and not said yet */
};

/* A member as libeagre has it; each is a client of its own. */
struct handle {
    struct eg_client client;
    bool alive; /* its process */
    uint32_t group;
    bool is_static;
    bool dawdles; /* follows only when all do */
    bool polls;
    uint64_t id; /* 0: not a member, as it knows */
    struct eg_member_page *page;
    uint32_t version, learned, generation;
    struct part part[TOPICS * PARTS * 2];
    size_t count;
};

/* What happened to a partition of a topic, in a group. */
struct fate {
    int owner; /* handle + 1; 0: nobody */
    int last;  /* who had it in `generation` */
    uint32_t generation;
    int64_t committed;
};

static struct {
    char dir[128];
    struct eg_daemon d;
    struct handle h[HANDLES];
    struct fate fate[GROUPS][UIDS][PARTS];
    uint32_t generation[GROUPS];
    uint64_t last_id;
    uint64_t seed;
    uint32_t step, restarts;
    uint64_t rebalances;
} w;

static struct eg_groups *past[KILLS_MAX]; /* what killed daemons had: nobody frees it */
static uint32_t kills;

static const char *const group_names[GROUPS] = {"cooperative", "eager"};
static const char *const topic_names[TOPICS] = {"a", "b", "c", "d"};

static uint32_t chance(uint32_t n) { /* xorshift: 0 .. n - 1 */
    w.seed ^= w.seed << 13;
    w.seed ^= w.seed >> 7;
    w.seed ^= w.seed << 17;
    return (uint32_t)(w.seed >> 33) % n;
}

static struct eg_group *group_of(const struct handle *h) { return eg_group_find(&w.d, group_names[h->group]); }

static void make_topic(const char *name) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    char partitions[8];
    uint32_t uid;
    snprintf(partitions, sizeof(partitions), "%u", 1 + chance(PARTS));
    struct eg_change changes[] = {{"segment.bytes", "64K"}, {"storage", "memory"}, {"partitions", partitions}};
    if (eg_topic_create(&w.d, &us, name, changes, 3, &uid) != EAGRE_OK)
        fail_msg("%s", eg_error_text());
    assert_true(uid < UIDS);
}

/* Logs that end there, with no memory behind them: not while the daemon does something with topics. */
static void set_ends(bool there) {
    static struct eg_buffer none[EG_BUFFERS_MAX];
    for (size_t i = 0; i < w.d.topics->count; i++)
        for (uint32_t k = 0; k < w.d.topics->list[i]->partitions; k++) {
            struct eg_partition *p = w.d.topics->list[i]->part[k];
            p->buffers = there ? none : NULL;
            p->base[0] = there ? LOG_END : 0;
        }
}

static struct fate *fate_of(uint32_t group, uint32_t uid, uint32_t partition) {
    assert_true(uid < UIDS && partition < PARTS);
    return &w.fate[group][uid][partition];
}

/* ---- the daemon's life --------------------------------------------------------------------------------------- */

static jmp_buf killed;
static bool may_kill;
static uint32_t kill_after; /* so many named steps; 0: not */
static const char *kill_at; /* this one; NULL: any */

static void at_step(const char *name, void *arg) {
    (void)arg;
    if (!may_kill || (kill_at != NULL && strcmp(name, kill_at) != 0) || (strncmp(name, "group.", 6) != 0 && strncmp(name, "member.", 7) != 0) ||
        strcmp(name, "group.committed") == 0)
        return;
    if (kill_after > 0 && --kill_after == 0) {
        may_kill = false;
        longjmp(killed, 1);
    }
}

static void start_groups(void) {
    if (eg_groups_service.start(&w.d) != EAGRE_OK)
        fail_msg("step %u: %s", w.step, eg_error_text());
}

static void come_back(struct handle *h) {
    uint8_t buf[64];
    struct eg_enc e;
    struct eg_msg_header header;
    struct eg_dec in;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_ATTACH, 1, 0);
    if (h->id != 0)
        eg_enc_u64(&e, h->id);
    assert_int_equal(eg_dec_begin(&in, buf, e.used, &header), 0);
    eg_groups_client_back(&w.d, &h->client, in, h->id != 0);
}

static void restart(void) {
    struct eg_groups *all = w.d.groups;
    may_kill = false;
    assert_true(kills < KILLS_MAX);
    past[kills++] = all;
    eg_offset_writer_close(&w.d);
    eg_members_store_close(all->store);
    for (uint32_t n = 1; n <= EG_MEMBERS_MAX; n++)
        if (all->by_number[n] != NULL)
            eg_member_page_close(&w.d, all->by_number[n], false);
    for (struct eg_account *a = w.d.accounts; a != NULL; a = a->next)
        a->used[EG_QUOTA_GROUPS] = a->used[EG_QUOTA_MEMBERS] = 0;
    w.d.figures.groups = w.d.figures.members = 0;
    w.d.groups = NULL;
    for (size_t i = 0; i < HANDLES; i++)
        w.h[i].client.members = NULL;
    for (size_t i = 0; i < kept_count; i++)
        kept[i].left = kept[i].name[0] == 'm';
    start_groups();
    for (size_t i = 0; i < HANDLES; i++)
        if (w.h[i].alive)
            come_back(&w.h[i]);
}

/* ---- members -------------------------------------------------------------------------------------------------- */

static void disown(struct handle *h, size_t i) {
    struct fate *f = fate_of(h->group, h->part[i].uid, h->part[i].partition);
    assert_int_equal(f->owner, (int)(h - w.h) + 1);
    f->owner = 0;
    h->part[i] = h->part[--h->count];
}

/* Not a member any more. */
static void lose(struct handle *h) {
    while (h->count > 0)
        disown(h, h->count - 1);
    if (h->page != NULL)
        munmap(h->page, sizeof(*h->page));
    h->page = NULL;
    h->id = 0;
}

/* It looks at its page before each of its steps. */
static bool is_member(struct handle *h) {
    if (h->id != 0 && eg_load_acquire(&h->page->state) != EG_MEMBER_IN)
        lose(h);
    return h->alive && h->id != 0;
}

static void be_born(struct handle *h) {
    uint32_t owner = (uint32_t)(h - w.h) + 1;
    memset(h, 0, sizeof(*h));
    h->client.entry = &w.d.clients->table->entry[owner];
    h->client.entry->owner = owner;
    h->client.entry->cookie = ((uint64_t)w.step << 20) + owner;
    h->client.entry->uid = geteuid();
    h->client.entry->pid = 1000 + (int)owner;
    eg_store_relaxed(&h->client.entry->state, EG_CLIENT_LIVE);
    h->client.account = eg_account_take(&w.d, geteuid());
    assert_non_null(h->client.account);
    w.d.clients->by_owner[owner] = &h->client;
    h->alive = true;
}

static void die(struct handle *h) {
    eg_store_relaxed(&h->client.entry->state, EG_CLIENT_DEAD);
    lose(h);
    h->alive = false;
    eg_groups_client_gone(&w.d, &h->client);
}

static void join_as(struct handle *h, uint32_t group, bool is_static) {
    static const uint8_t lists[GROUPS][3][EG_STRATEGIES_MAX] = {
        {{EG_ASSIGN_COOPERATIVE_STICKY}, {EG_ASSIGN_COOPERATIVE_STICKY, EG_ASSIGN_NUMA}, {EG_ASSIGN_NUMA, EG_ASSIGN_COOPERATIVE_STICKY}},
        {{EG_ASSIGN_RANGE}, {EG_ASSIGN_RANGE, EG_ASSIGN_ROUND_ROBIN}, {EG_ASSIGN_ROUND_ROBIN, EG_ASSIGN_RANGE}}};
    struct eg_join j = {.max_poll_ms = MAX_POLL_MS, .session_ms = SESSION_MS, .commit_ms = 100, .node = UINT32_MAX};
    struct eg_group *g = NULL;
    struct eg_member *m = NULL;
    h->group = group;
    h->is_static = is_static;
    if (h->is_static) /* a few places, so that some are taken */
        snprintf(j.instance_id, sizeof(j.instance_id), "s%u", chance(3));
    memcpy(j.strategy, lists[h->group][chance(3)], EG_STRATEGIES_MAX);
    assert_int_equal(eg_group_need(&w.d, group_names[h->group], EG_GROUP_CONSUMER, geteuid(), &g), 0);
    if (eg_member_join(&w.d, g, &h->client, &j, &m) != EAGRE_OK)
        fail_msg("step %u: %s", w.step, eg_error_text());
    assert_true(m->id > w.last_id); /* ids rise, whatever was in between */
    w.last_id = m->id;
    h->page = mmap(NULL, sizeof(*h->page), PROT_READ | PROT_WRITE, MAP_SHARED, m->page_fd, 0);
    assert_ptr_not_equal(h->page, MAP_FAILED);
    h->id = m->id;
    h->version = h->learned = h->generation = 0;
    h->dawdles = chance(6) == 0;
    h->polls = true;
}

static void join(struct handle *h) {
    uint32_t group = chance(GROUPS);
    join_as(h, group, chance(3) == 0);
}

static struct eg_member *find(struct handle *h) {
    struct eg_member *m = NULL;
    if (eg_member_find(&w.d, &h->client, h->id, &m) != EAGRE_OK)
        fail_msg("step %u: member %zu is one, and not known", w.step, (size_t)(h - w.h));
    return m;
}

static void subscribe(struct handle *h) {
    struct eg_member *m = find(h);
    eg_member_forget_coming(&w.d, m);
    for (size_t i = 0; i < TOPICS; i++)
        if (chance(3) > 0)
            assert_int_equal(eg_member_add_coming(&w.d, m, topic_names[i]), 0);
    assert_int_equal(eg_member_subscribe(&w.d, m, false), 0);
}

static struct part *part_of(struct handle *h, uint32_t uid, uint32_t partition) {
    for (size_t i = 0; i < h->count; i++)
        if (h->part[i].uid == uid && h->part[i].partition == partition)
            return &h->part[i];
    return NULL;
}

static void take(struct handle *h, const struct eg_member *m, const struct eg_given *v) {
    struct fate *f = fate_of(h->group, v->topic_uid, v->partition);
    int self = (int)(h - w.h) + 1;
    struct eg_committed *c = eg_offset_find(group_of(h), v->topic_uid, v->partition);
    if (f->owner != 0)
        fail_msg("step %u: topic %u partition %u is told to %d, and %d has it", w.step, v->topic_uid, v->partition, self,
                 f->owner);
    /* Static ones: the same place in the group, from one life to the next. */
    if (f->generation == m->generation && f->last != 0 && f->last != self && m->instance_id[0] == '\0')
        fail_msg("step %u: topic %u partition %u is told to %d and %d in generation %u", w.step, v->topic_uid,
                 v->partition, f->last, self, m->generation);
    assert_true(m->generation >= f->generation);
    if ((c != NULL ? c->offset : -1) != f->committed)
        fail_msg("step %u: topic %u partition %u goes on at %lld, but %lld was committed", w.step, v->topic_uid,
                 v->partition, (long long)(c != NULL ? c->offset : -1), (long long)f->committed);
    assert_int_equal(eg_load_relaxed(&h->page->cell[v->cell]), EG_NO_COMMIT);
    f->owner = f->last = self;
    f->generation = m->generation;
    assert_true(h->count < sizeof(h->part) / sizeof(h->part[0]));
    h->part[h->count++] = (struct part){.uid = v->topic_uid, .partition = v->partition, .cell = v->cell};
}

/* GROUP_SYNC: the list. What it has not any more it may still commit until it says that it has given it up. */
static void learn(struct handle *h) {
    const struct eg_member *m = find(h);
    assert_true(m->version >= eg_load_acquire(&h->page->version));
    assert_true(m->version >= h->version && m->generation >= h->generation);
    for (size_t i = 0; i < h->count; i++) {
        bool was = h->part[i].revoked;
        h->part[i].revoked = true;
        for (size_t k = 0; k < m->given_count; k++)
            if (!m->given[k].leaving && m->given[k].topic_uid == h->part[i].uid &&
                m->given[k].partition == h->part[i].partition) {
                assert_false(was); /* not again before it was given up */
                assert_int_equal(m->given[k].cell, h->part[i].cell);
                h->part[i].revoked = false;
            }
    }
    for (size_t k = 0; k < m->given_count; k++)
        if (!m->given[k].leaving && part_of(h, m->given[k].topic_uid, m->given[k].partition) == NULL)
            take(h, m, &m->given[k]);
    h->learned = m->version;
    h->generation = m->generation;
}

static void apply(struct handle *h) {
    if (h->learned == h->version)
        return;
    for (size_t i = 0; i < h->count;) {
        if (h->part[i].revoked)
            disown(h, i);
        else
            i++;
    }
    h->version = h->learned;
    assert_int_equal(eg_member_applied(&w.d, find(h), h->version), 0);
}

static void commit_one(struct handle *h, const struct part *p, int64_t offset) {
    eg_store_release(&h->page->cell[p->cell], offset);
    atomic_fetch_add_explicit(&h->page->commits, 1, memory_order_release);
    fate_of(h->group, p->uid, p->partition)->committed = offset;
}

static void commit(struct handle *h) {
    if (h->count == 0)
        return;
    const struct part *p = &h->part[chance((uint32_t)h->count)];
    commit_one(h, p, chance(LOG_END + 1));
}

/* ---- what must hold ------------------------------------------------------------------------------------------ */

static void check_group(const struct eg_group *g, size_t *members) {
    static uint8_t cells[EG_MEMBER_CELLS];
    static const struct eg_member *has[UIDS][PARTS];
    size_t count = 0;
    bool any_free = false, any_leaving = false;
    memset(has, 0, sizeof(has));
    for (const struct eg_member *m = g->members; m != NULL; m = m->next, count++) {
        size_t leaving = 0;
        assert_ptr_equal(w.d.groups->by_number[m->number], m);
        assert_true(m->group == g && !m->is_gone && m->fresh == 0);
        assert_true(m->client == NULL || m->client->entry->owner == m->owner);
        /* Who was told that it is out stays out. */
        assert_true(m->client == NULL || (m->page != NULL && eg_load_relaxed(&m->page->state) == EG_MEMBER_IN));
        assert_true(m->version >= m->applied && m->generation <= g->generation);
        memset(cells, 0, sizeof(cells));
        for (size_t i = 0; i < m->given_count; i++) {
            const struct eg_given *v = &m->given[i];
            assert_null(has[v->topic_uid][v->partition]);
            has[v->topic_uid][v->partition] = m;
            assert_true(v->cell < EG_MEMBER_CELLS && cells[v->cell]++ == 0);
            leaving += v->leaving;
            uint32_t at = eg_target_place(g->target, v->topic_uid, v->partition);
            if (at != EG_NOBODY)
                assert_int_equal(g->target->holder[at], m->number);
            if (i > 0)
                assert_true(v[-1].topic_uid < v->topic_uid ||
                            (v[-1].topic_uid == v->topic_uid && v[-1].partition < v->partition));
        }
        assert_int_equal(leaving, m->leaving);
        /* Who is to give something up, or has not said that it has its version, is about to be told or is waited for - not
         * for ever; who is away has nothing to give up. */
        bool about_to = m->bump || m->untold;
        any_leaving |= leaving > 0;
        assert_true(m->client == NULL || m->applied == m->version || m->unapplied_ns != 0 || about_to);
        assert_true(leaving == 0 || (m->client != NULL && (m->applied < m->version || about_to)));
        assert_true(g->queued || !about_to);
    }
    for (uint32_t t = 0; g->target != NULL && t < g->target->topic_count; t++)
        for (uint32_t k = 0; k < g->target->topic[t].partitions; k++) {
            const struct eg_member *m = has[g->target->topic[t].uid][k];
            uint32_t at = g->target->topic[t].first + k;
            assert_int_equal(g->target->holder[at], m != NULL ? m->number : 0);
            any_free |= m == NULL && g->target->who[at] != 0;
        }
    /* What is free and somebody's by the target has a turn to come; eager: when nothing leaves any more. */
    bool eager = g->assignor == EG_ASSIGN_RANGE || g->assignor == EG_ASSIGN_ROUND_ROBIN;
    assert_true(!any_free || g->queued || (eager && any_leaving));
    assert_int_equal(count, g->member_count);
    *members += count;
}

static void check(void) {
    size_t members = 0, clients = 0, numbers = 0;
    const struct eg_groups *all = w.d.groups;
    for (size_t i = 0; i < HANDLES; i++)
        (void)is_member(&w.h[i]); /* who was put out, or whose place was taken, knows it */
    for (size_t i = 0; i < all->count; i++)
        check_group(all->list[i], &members);
    assert_int_equal(members, all->member_count);
    assert_int_equal(members, w.d.figures.members);
    for (uint32_t n = 1; n <= EG_MEMBERS_MAX; n++)
        numbers += all->by_number[n] != NULL && !all->by_number[n]->is_gone;
    assert_int_equal(members, numbers);
    assert_null(all->gone);
    for (size_t i = 0; i < HANDLES; i++)
        for (const struct eg_member *m = w.h[i].client.members; m != NULL; m = m->next_of_client, clients++)
            assert_ptr_equal(m->client, &w.h[i].client);
    assert_true(clients <= members);
    for (size_t i = 0; i < GROUPS; i++) {
        const struct eg_group *g = eg_group_find(&w.d, group_names[i]);
        if (g == NULL)
            continue;
        assert_true(g->generation >= w.generation[i]);
        w.generation[i] = g->generation;
    }
}

/* Everything that somebody subscribes is somebody's, and everybody knows it. */
static void check_settled(void) {
    for (size_t i = 0; i < w.d.groups->count; i++) {
        const struct eg_group *g = w.d.groups->list[i];
        assert_int_equal(g->state, g->member_count == 0 ? EG_GROUP_EMPTY : EG_GROUP_STABLE);
        for (size_t t = 0; t < w.d.topics->count; t++) {
            const struct eg_topic *topic = w.d.topics->list[t];
            bool wanted = false;
            for (const struct eg_member *m = g->members; m != NULL; m = m->next)
                wanted |= eg_member_subscribes(m, eg_topic_name(topic));
            for (uint32_t k = 0; k < topic->partitions; k++) {
                const struct eg_member *has = NULL;
                for (const struct eg_member *m = g->members; m != NULL; m = m->next)
                    for (size_t v = 0; v < m->given_count; v++)
                        if (m->given[v].topic_uid == topic->meta.uid && m->given[v].partition == k)
                            has = m;
                if ((has != NULL) != wanted)
                    fail_msg("step %u: '%s' %u is %s", w.step, eg_topic_name(topic), k, wanted ? "nobody's" : "somebody's");
                assert_true(has == NULL || eg_member_subscribes(has, eg_topic_name(topic)));
            }
        }
    }
    for (size_t i = 0; i < HANDLES; i++) {
        struct handle *h = &w.h[i];
        if (!is_member(h))
            continue;
        const struct eg_member *m = find(h);
        assert_int_equal(m->given_count, h->count);
        for (size_t k = 0; k < m->given_count; k++)
            assert_non_null(part_of(h, m->given[k].topic_uid, m->given[k].partition));
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static void tick(int64_t passes_ns) {
    clock_ns += passes_ns;
    for (size_t i = 0; i < HANDLES; i++)
        if (is_member(&w.h[i]) && w.h[i].polls)
            atomic_fetch_add_explicit(&w.h[i].page->polls, 1, memory_order_relaxed);
    (void)eg_groups_service.tick(&w.d, clock_ns);
}

static void alter_topics(void) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    const char *name = topic_names[chance(TOPICS)];
    set_ends(false);
    const struct eg_topic *t = eg_topic_by_name(&w.d, name);
    if (t == NULL) {
        make_topic(name);
    } else if (t->partitions < PARTS && chance(2) == 0) {
        char partitions[8];
        snprintf(partitions, sizeof(partitions), "%u", t->partitions + 1 + chance(PARTS - t->partitions));
        struct eg_change change = {"partitions", partitions};
        assert_int_equal(eg_topic_alter(&w.d, &us, name, &change, 1), 0);
    } else {
        uint32_t uid = t->meta.uid;
        assert_int_equal(eg_topic_delete(&w.d, &us, name), 0);
        for (size_t g = 0; g < GROUPS; g++)
            for (size_t k = 0; k < PARTS; k++)
                w.fate[g][uid][k].committed = -1;
    }
    set_ends(true);
}

static void member_step(struct handle *h) {
    switch (chance(16)) {
    case 0:
        subscribe(h);
        break;
    case 1:
    case 2:
    case 3:
        commit(h);
        break;
    case 4:
        if (chance(4) == 0) {
            struct eg_member *m = find(h);
            bool back = chance(2) == 0;
            lose(h);
            eg_member_leave(&w.d, m, back);
        }
        break;
    case 5:
        if (chance(3) == 0)
            die(h);
        break;
    case 6:
        if (chance(8) == 0)
            h->polls = false; /* until it is put out */
        break;
    case 7:
    case 8:
    case 9:
        if (!h->dawdles && eg_load_acquire(&h->page->version) != h->version)
            learn(h);
        break;
    default:
        if (!h->dawdles)
            apply(h);
        break;
    }
}

static void one_step(void) {
    uint32_t what = chance(100);
    struct handle *h = &w.h[chance(HANDLES)];
    if (what < 4) {
        alter_topics();
    } else if (what < 40) {
        tick((int64_t)chance(20) * EG_NS_PER_MS);
    } else if (what < 42) {
        while (eg_io_wait(w.d.disk_io)) {} /* commits reach the database */
    } else if (!h->alive) {
        if (chance(3) == 0)
            be_born(h);
    } else if (is_member(h)) {
        member_step(h);
    } else if (chance(3) == 0) {
        join(h);
        subscribe(h);
    }
}

static void settle(void) {
    may_kill = false;
    for (int round = 0; round < 400; round++) {
        bool moved = false;
        for (size_t i = 0; i < HANDLES; i++) {
            struct handle *h = &w.h[i];
            if (!is_member(h))
                continue;
            h->polls = true;
            if (eg_load_acquire(&h->page->version) != h->version || h->learned != h->version) {
                learn(h);
                apply(h);
                moved = true;
            }
        }
        tick(5 * EG_NS_PER_MS);
        for (size_t i = 0; i < w.d.groups->count && !moved; i++)
            moved = w.d.groups->list[i]->state == EG_GROUP_REBALANCING;
        if (!moved)
            break;
    }
    check();
    check_settled();
}

static void run(uint64_t seed, uint32_t steps) {
    w.seed = seed * 0x9e3779b97f4a7c15u + 1;
    for (w.step = 0; w.step < steps; w.step++) {
        if (setjmp(killed) == 0) {
            may_kill = true;
            if (kill_after == 0 && chance(30) == 0)
                kill_after = 1 + chance(4);
            one_step();
            may_kill = false;
            if (chance(150) == 0)
                restart();
        } else {
            restart();
        }
        check();
        if (w.step % 100 == 99)
            settle();
    }
    settle();
}

/* ---- as a test ------------------------------------------------------------------------------------------------------ */

static void come(struct handle *h, uint32_t group) {
    join_as(h, group, false);
    h->dawdles = false;
    subscribe(h);
}

/* Named steps are not in a release. */
#ifdef EG_FAULTPOINTS
#define NEEDS_STEPS() (void)0
#else
#define NEEDS_STEPS() skip()
#endif

static void ticks_until_killed_at(const char *point) {
    kill_at = point;
    kill_after = 1;
    may_kill = true;
    for (int i = 0; i < 1000; i++)
        tick(5 * EG_NS_PER_MS);
    fail_msg("the daemon never comes to %s", point);
}

static int setup(void **state) {
    bool lost;
    (void)state;
    memset(&w, 0, sizeof(w));
    w.seed = 1;
    kill_at = NULL;
    kill_after = 0;
    for (size_t g = 0; g < GROUPS; g++)
        for (size_t u = 0; u < UIDS; u++)
            for (size_t k = 0; k < PARTS; k++)
                w.fate[g][u][k].committed = -1;
    snprintf(w.dir, sizeof(w.dir), "%.80s/eg-groups-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(w.dir));
    eg_log_set_level(EG_LOG_ERROR);
    struct eg_config *c = &w.d.config;
    assert_int_equal(eg_config_init(c), 0);
    assert_int_equal(eg_config_set(c, "test", "dir", w.dir), 0);
    assert_int_equal(eg_config_set(c, "test", "memory.max", "1G"), 0);
    assert_int_equal(eg_config_set(c, "test", "access.create", "*"), 0);
    assert_int_equal(eg_config_finish(c), 0);
    w.d.fresh = true;
    w.d.instance_id = 77;
    assert_int_equal(eg_loop_open(&w.d.loop), EAGRE_OK);
    assert_int_equal(eg_meta_open(w.dir, &w.d.meta), EAGRE_OK);
    assert_int_equal(eg_io_open(&w.d, &w.d.disk_io), EAGRE_OK);
    w.d.bus = calloc(1, sizeof(*w.d.bus));
    w.d.bells = calloc(1, sizeof(*w.d.bells));
    w.d.topics = calloc(1, sizeof(*w.d.topics));
    assert_true(w.d.bus != NULL && w.d.bells != NULL && w.d.topics != NULL);
    assert_int_equal(eg_clients_open(&w.d, &lost), EAGRE_OK);
    w.d.clients->top = HANDLES;
    start_groups();
    w.d.fresh = false;
    for (size_t i = 0; i < TOPICS; i++)
        make_topic(topic_names[i]);
    set_ends(true);
    for (size_t i = 0; i < HANDLES; i++)
        be_born(&w.h[i]);
    eg_fault_set_hook(at_step, NULL);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *where) {
    (void)st;
    (void)what;
    (void)where;
    return remove(path);
}

static int teardown(void **state) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    (void)state;
    eg_fault_set_hook(NULL, NULL);
    for (size_t i = 0; i < HANDLES; i++)
        lose(&w.h[i]);
    eg_groups_service.stop(&w.d, true);
    set_ends(false);
    assert_int_equal(w.d.figures.members, 0);
    assert_int_equal(w.d.figures.groups, 0);
    while (w.d.topics->count > 0)
        assert_int_equal(eg_topic_delete(&w.d, &us, eg_topic_name(w.d.topics->list[0])), 0);
    while (eg_graves_finish(&w.d, INT64_MAX)) {}
    while (kept_count > 0)
        assert_int_equal(eg_keep_drop(NULL, kept[0].name), 0);
    eg_io_close(w.d.disk_io);
    eg_meta_close(w.d.meta);
    eg_loop_close(w.d.loop);
    munmap(w.d.clients->table, sizeof(*w.d.clients->table));
    close(w.d.clients->table_fd);
    free(w.d.clients);
    for (struct eg_account *a; (a = w.d.accounts) != NULL;) {
        w.d.accounts = a->next;
        free(a);
    }
    free(w.d.topics->list);
    free(w.d.topics->by_uid);
    free(w.d.topics);
    free(w.d.bells);
    free(w.d.bus);
    (void)nftw(w.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static void keeps_what_it_promises(void **state) {
    (void)state;
    const char *seed = getenv("EG_SEED"), *steps = getenv("EG_STEPS");
    run(seed != NULL ? strtoull(seed, NULL, 10) : 1, steps != NULL ? (uint32_t)strtoul(steps, NULL, 10) : 4000);
}

/* The list of members is lost, their memory is not: who lives learns that it is none before others get what it has. */
static void without_its_list_nobody_is_a_member(void **state) {
    char path[200];
    struct handle *h = &w.h[0];
    (void)state;
    come(h, 0);
    settle();
    assert_true(h->count > 0);
    uint32_t rings = eg_load_acquire(&h->page->rings);
    snprintf(path, sizeof(path), "%.100s/members/%016x.1.mdb", w.dir, (unsigned)w.d.instance_id);
    assert_int_equal(unlink(path), 0);
    restart();
    assert_int_equal(eg_load_acquire(&h->page->state), EG_MEMBER_OUT);
    assert_true(eg_load_acquire(&h->page->rings) > rings); /* who waits there is woken */
    assert_int_equal(w.d.groups->member_count, 0);
    check();
    come(h, 0);
    settle();
}

/* A cell is another partition's; that it was, and what the one before it had committed, is not noted yet. */
static void a_commit_outlives_its_cell(void **state) {
    NEEDS_STEPS();
    struct handle *a = &w.h[0], *b = &w.h[1];
    (void)state;
    come(a, 1);
    settle();
    come(b, 1);
    while (eg_load_acquire(&a->page->version) == a->version)
        tick(5 * EG_NS_PER_MS);
    learn(a);
    assert_true(a->count > 0);
    for (size_t i = 0; i < a->count; i++) {
        assert_true(a->part[i].revoked);
        commit_one(a, &a->part[i], 7 + (int64_t)i);
    }
    apply(a);
    if (setjmp(killed) == 0)
        ticks_until_killed_at("group.cleared");
    restart();
    check();
    settle(); /* who gets them goes on there */
    assert_true(a->count > 0 && b->count > 0);
}

/* It was told that it is out, and then the daemon did not come to note it. */
static void who_was_told_that_it_is_out_is_out(void **state) {
    NEEDS_STEPS();
    struct handle *a = &w.h[0], *b = &w.h[1];
    (void)state;
    come(a, 0);
    settle();
    a->polls = false;
    if (setjmp(killed) == 0)
        ticks_until_killed_at("member.out");
    restart();
    assert_int_equal(w.d.groups->member_count, 0);
    check();
    come(b, 0);
    settle();
    assert_true(b->count > 0);
}

/* The member died with the daemon before, and the next one finds no room to note that: it goes on, and does so later. */
static void starts_on_a_full_disk(void **state) {
    struct handle *a = &w.h[0];
    (void)state;
    come(a, 0);
    settle();
    eg_store_relaxed(&a->client.entry->state, EG_CLIENT_DEAD);
    lose(a);
    a->alive = false;
    disk_is_full = true;
    restart();
    tick(EG_NS_PER_S / 10);
    assert_non_null(w.d.groups->gone);
    disk_is_full = false;
    for (int i = 0; i < 12; i++)
        tick(EG_NS_PER_S / 10);
    check(); /* among others: nobody is to be removed still */
    restart();
    assert_null(w.d.groups->gone); /* nor is there any more */
    settle();
}

/* One that changes all the time does not take its turn from another one. */
static void each_group_has_its_turn(void **state) {
    (void)state;
    come(&w.h[0], 0);
    come(&w.h[1], 1);
    clock_step_ns = EG_NS_PER_MS * 9 / 10; /* one turn is a slice */
    for (int i = 0; i < 20; i++) {
        tick(100 * EG_NS_PER_MS);
        eg_group_change(&w.d, group_of(&w.h[1]), EG_WHY_SUBSCRIBED);
    }
    clock_step_ns = 0;
    assert_int_not_equal(eg_load_acquire(&w.h[0].page->version), 0);
    assert_int_not_equal(eg_load_acquire(&w.h[1].page->version), 0);
    settle();
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

static uint8_t request[4096], answer[EG_MSG_MAX];
static struct eg_enc req;

/* cap: of the answer, which *reply is. */
static int ask(const struct handle *h, eg_handler *handler, size_t cap, struct eg_dec *reply) {
    struct eg_session s = {.client = (struct eg_client *)&h->client, .uid = geteuid(), .fd = -1};
    struct eg_msg_header header;
    struct eg_enc out;
    struct eg_reply r = {.out = &out};
    struct eg_dec in;
    assert_int_equal(eg_dec_begin(&in, request, req.used, &header), 0);
    eg_enc_begin(&out, answer, cap, 0, 0, 0);
    int rc = handler(&w.d, &s, &in, &r);
    assert_false(out.overflow);
    *reply = (struct eg_dec){.data = answer + sizeof(header), .left = out.used - sizeof(header)};
    return rc;
}

static int subscribe_part(struct handle *h, uint8_t flags, const char *topic) {
    struct eg_dec reply;
    eg_enc_begin(&req, request, sizeof(request), EG_MSG_GROUP_SUBSCRIBE, 1, 0);
    eg_enc_u64(&req, h->id);
    eg_enc_u8(&req, flags);
    eg_enc_u16(&req, 1);
    eg_enc_str(&req, topic);
    return ask(h, eg_handle_GROUP_SUBSCRIBE, sizeof(answer), &reply);
}

/* A daemon that was told the first parts is not there any more: the next one does not take the last part for all. */
static void half_a_subscription_is_none(void **state) {
    struct handle *h = &w.h[0];
    enum { FIRST = 1, LAST = 2, PATTERN = 4 };
    (void)state;
    come(h, 0);
    assert_int_equal(subscribe_part(h, FIRST, "a"), 0);
    restart();
    assert_int_equal(subscribe_part(h, LAST, "b"), EAGRE_E_STATE);
    assert_int_equal(subscribe_part(h, FIRST, "a"), 0);
    assert_int_equal(subscribe_part(h, LAST, "b"), 0);
    assert_true(eg_member_subscribes(find(h), "a") && eg_member_subscribes(find(h), "b"));
    assert_int_equal(subscribe_part(h, LAST, "c"), EAGRE_E_STATE); /* that one was at its end */
    assert_int_equal(subscribe_part(h, FIRST, "not there"), EAGRE_E_INVALID);
    assert_int_equal(subscribe_part(h, LAST, "c"), EAGRE_E_STATE);
    assert_int_equal(subscribe_part(h, FIRST | PATTERN, "gone"), 0); /* nothing is coming, but it has begun */
    assert_int_equal(subscribe_part(h, LAST | PATTERN, "c"), 0);
    assert_int_equal(find(h)->topic_count, 1);
    settle();
}

/* So many partitions are told, with `skip` not; *version. *more: ask again. */
static uint32_t list_part(struct handle *h, uint32_t skip, uint32_t *version, bool *more) {
    char name[EG_TOPIC_NAME_MAX + 1];
    uint32_t count = 0;
    struct eg_dec reply;
    eg_enc_begin(&req, request, sizeof(request), EG_MSG_GROUP_SYNC, 1, 0);
    eg_enc_u64(&req, h->id);
    eg_enc_u32(&req, h->version);
    eg_enc_u32(&req, skip);
    assert_int_equal(ask(h, eg_handle_GROUP_SYNC, 400, &reply), 0);
    *version = eg_dec_u32(&reply);
    (void)eg_dec_u32(&reply);
    *more = eg_dec_u8(&reply) != 0;
    for (uint16_t t = eg_dec_u16(&reply); t > 0; t--) {
        (void)eg_dec_u32(&reply);
        eg_dec_str(&reply, name, sizeof(name));
        for (uint16_t n = eg_dec_u16(&reply); n > 0; n--, count++) {
            (void)eg_dec_u64(&reply);
            (void)eg_dec_i64(&reply);
            (void)eg_dec_u8(&reply);
        }
    }
    assert_true(eg_dec_end(&reply));
    return count;
}

/* A topic goes between two parts of a list: no partition is left out for that. */
static void a_list_in_parts_is_one(void **state) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    struct handle *h = &w.h[0];
    uint32_t version, version_now, count, all = 0;
    char first[EG_TOPIC_NAME_MAX + 1];
    bool more;
    (void)state;
    come(h, 0);
    struct eg_member *m = find(h);
    for (size_t i = 0; i < TOPICS; i++)
        assert_int_equal(eg_member_add_coming(&w.d, m, topic_names[i]), 0);
    assert_int_equal(eg_member_subscribe(&w.d, m, false), 0);
    settle();
    count = list_part(h, 0, &version, &more);
    assert_true(count > 0 && more && version == m->version);
    snprintf(first, sizeof(first), "%s", eg_topic_name(eg_topic_by_uid(&w.d, m->given[0].topic_uid)));
    set_ends(false);
    assert_int_equal(eg_topic_delete(&w.d, &us, first), 0);
    set_ends(true);
    assert_int_equal(list_part(h, count, &version_now, &more), 0); /* from the front */
    assert_true(version_now != version && !more);
    count = 0;
    do
        count += list_part(h, count, &version_now, &more);
    while (more);
    assert_int_equal(version_now, version);
    for (size_t i = 0; i < m->given_count; i++)
        all += eg_topic_by_uid(&w.d, m->given[i].topic_uid) != NULL;
    assert_int_equal(count, all);
    settle();
}

/* Who has a pattern looks again when a topic is open to others. */
static void access_is_told(void **state) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    struct eg_change change = {"access.consume", "user:4711"};
    struct handle *h = &w.h[0];
    (void)state;
    come(h, 0);
    assert_int_equal(subscribe_part(h, 7, "a"), 0);
    uint32_t topics = eg_load_acquire(&h->page->topics);
    set_ends(false);
    assert_int_equal(eg_topic_alter(&w.d, &us, "b", &change, 1), 0);
    assert_int_equal(eg_load_acquire(&h->page->topics), topics + 1);
    assert_int_equal(eg_topic_alter(&w.d, &us, "b", &change, 1), 0); /* nothing new */
    set_ends(true);
    assert_int_equal(eg_load_acquire(&h->page->topics), topics + 1);
    settle();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(starts_on_a_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(each_group_has_its_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(half_a_subscription_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_list_in_parts_is_one, setup, teardown),
        cmocka_unit_test_setup_teardown(access_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(without_its_list_nobody_is_a_member, setup, teardown),
        cmocka_unit_test_setup_teardown(a_commit_outlives_its_cell, setup, teardown),
        cmocka_unit_test_setup_teardown(who_was_told_that_it_is_out_is_out, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_what_it_promises, setup, teardown),
    };
    return cmocka_run_group_tests_name("unit/daemon/groups", tests, NULL, NULL);
}
