#include "harness_member.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/liveness.h"

/* ---- who has what, of all members of this process ------------------------------------------------------------ */

#define OWNED_MAX 8192
static struct owned {
    uint32_t group_uid, topic_uid, partition, generation;
    uint64_t member; /* 0: nobody, now */
    uint64_t last;   /* who had it in that generation */
} owned[OWNED_MAX];
static size_t owned_count;

void eg_rm_forget_all(void) { owned_count = 0; }

static struct owned *owned_of(uint32_t group_uid, uint32_t topic_uid, uint32_t partition) {
    for (size_t i = 0; i < owned_count; i++)
        if (owned[i].group_uid == group_uid && owned[i].topic_uid == topic_uid && owned[i].partition == partition)
            return &owned[i];
    assert_true(owned_count < OWNED_MAX);
    owned[owned_count] = (struct owned){.group_uid = group_uid, .topic_uid = topic_uid, .partition = partition};
    return &owned[owned_count++];
}

static void own(const struct eg_raw_member *m, const struct eg_part *p) {
    struct owned *o = owned_of(m->group_uid, p->topic_uid, p->partition);
    if (o->member != 0 && o->member != m->id)
        fail_msg("'%s' %u is told to member %llx, but %llx has it", p->topic, p->partition, (unsigned long long)m->id,
                 (unsigned long long)o->member);
    if (o->generation == m->generation && o->last != 0 && o->last != m->place)
        fail_msg("'%s' %u is told to two members in generation %u", p->topic, p->partition, m->generation);
    if (m->generation < o->generation)
        fail_msg("generation %u after %u", m->generation, o->generation);
    o->member = m->id;
    o->last = m->place;
    o->generation = m->generation;
}

static void disown(const struct eg_raw_member *m, const struct eg_part *p) {
    struct owned *o = owned_of(m->group_uid, p->topic_uid, p->partition);
    if (o->member == m->id)
        o->member = 0;
}

static void disown_all(struct eg_raw_member *m) {
    for (size_t i = 0; i < m->count; i++)
        disown(m, &m->part[i]);
    free(m->part);
    m->part = NULL;
    m->count = 0;
}

/* ---- clients -------------------------------------------------------------------------------------------------- */

static void take_page(struct eg_raw_member *m) {
    assert_int_equal(m->r.nfds, 2);
    if (m->client_fd >= 0)
        close(m->client_fd);
    close(m->r.fds[1]); /* bells */
    m->client_fd = m->r.fds[0];
    assert_int_equal(eg_page_lock(m->client_fd), 0);
}

void eg_rm_connect(struct eg_raw_member *m, const char *socket) {
    memset(m, 0, sizeof(*m));
    m->page_fd = m->client_fd = -1;
    eg_raw_connect(&m->r, socket);
    eg_raw_hello(&m->r, NULL);
    eg_raw_begin(&m->r, EG_MSG_ATTACH);
    eg_enc_u32(&m->r.enc, 0);
    eg_enc_u64(&m->r.enc, 0);
    assert_int_equal(eg_raw_ask(&m->r), 0);
    m->owner = eg_dec_u32(&m->r.dec);
    m->cookie = eg_dec_u64(&m->r.dec);
    take_page(m);
}

int eg_rm_reconnect(struct eg_raw_member *m, const char *socket, bool as_none) {
    eg_raw_close(&m->r);
    eg_raw_connect(&m->r, socket);
    eg_raw_hello(&m->r, NULL);
    eg_raw_begin(&m->r, EG_MSG_ATTACH);
    eg_enc_u32(&m->r.enc, m->owner);
    eg_enc_u64(&m->r.enc, m->cookie);
    eg_enc_u16(&m->r.enc, 0);
    eg_enc_u16(&m->r.enc, as_none ? 0 : 1);
    if (!as_none)
        eg_enc_u64(&m->r.enc, m->id);
    int rc = eg_raw_ask(&m->r);
    if (rc == 0)
        take_page(m);
    return rc;
}

void eg_rm_forget(struct eg_raw_member *m) {
    disown_all(m);
    if (m->page != NULL)
        munmap(m->page, sizeof(*m->page));
    if (m->page_fd >= 0)
        close(m->page_fd);
    m->page = NULL;
    m->page_fd = -1;
}

void eg_rm_close(struct eg_raw_member *m) {
    eg_rm_forget(m);
    if (m->r.fd < 0)
        return;
    eg_raw_close(&m->r);
    if (m->client_fd >= 0)
        close(m->client_fd);
    m->client_fd = -1;
}

/* ---- members -------------------------------------------------------------------------------------------------- */

int eg_rm_join(struct eg_raw_member *m, const char *group, const struct eg_join_options *o) {
    static const struct eg_join_options standard;
    if (o == NULL)
        o = &standard;
    eg_raw_begin(&m->r, EG_MSG_GROUP_JOIN);
    struct eg_enc *e = &m->r.enc;
    eg_enc_str(e, group);
    eg_enc_u8(e, o->type);
    eg_enc_str(e, o->instance_id != NULL ? o->instance_id : "");
    eg_enc_str(e, o->client_id != NULL ? o->client_id : "raw");
    uint8_t n = 0;
    while (n < EG_STRATEGIES_MAX && o->strategy[n] != 0)
        n++;
    eg_enc_u8(e, n == 0 ? 1 : n);
    for (uint8_t i = 0; i < n; i++)
        eg_enc_u8(e, o->strategy[i]);
    if (n == 0)
        eg_enc_u8(e, EG_ASSIGN_COOPERATIVE_STICKY);
    eg_enc_u32(e, o->max_poll_ms != 0 ? o->max_poll_ms : 300000);
    eg_enc_u32(e, o->session_ms != 0 ? o->session_ms : 45000);
    eg_enc_u32(e, 5000);
    eg_enc_u32(e, UINT32_MAX);
    int rc = eg_raw_ask(&m->r);
    if (rc != 0)
        return rc;
    eg_rm_forget(m);
    m->id = eg_dec_u64(&m->r.dec);
    m->place = o->instance_id != NULL ? (uint64_t)o->instance_id[0] : m->id;
    m->number = eg_dec_u16(&m->r.dec);
    m->group_uid = eg_dec_u32(&m->r.dec);
    m->version = 0;
    assert_true(eg_dec_end(&m->r.dec));
    assert_int_equal(m->r.nfds, 1);
    m->page_fd = m->r.fds[0];
    m->page = mmap(NULL, sizeof(*m->page), PROT_READ | PROT_WRITE, MAP_SHARED, m->page_fd, 0);
    assert_ptr_not_equal(m->page, MAP_FAILED);
    assert_true(m->page->member == m->id);
    assert_int_equal(eg_load_acquire(&m->page->state), EG_MEMBER_IN);
    return 0;
}

int eg_rm_subscribe(struct eg_raw_member *m, const char *const *names, uint8_t more_flags) {
    uint16_t n = 0;
    while (names[n] != NULL)
        n++;
    eg_raw_begin(&m->r, EG_MSG_GROUP_SUBSCRIBE);
    eg_enc_u64(&m->r.enc, m->id);
    eg_enc_u8(&m->r.enc, (uint8_t)(3 | more_flags));
    eg_enc_u16(&m->r.enc, n);
    for (uint16_t i = 0; i < n; i++)
        eg_enc_str(&m->r.enc, names[i]);
    return eg_raw_ask(&m->r);
}

int eg_rm_leave(struct eg_raw_member *m, uint8_t how) {
    disown_all(m);
    eg_raw_begin(&m->r, EG_MSG_GROUP_LEAVE);
    eg_enc_u64(&m->r.enc, m->id);
    eg_enc_u8(&m->r.enc, how);
    return eg_raw_ask(&m->r);
}

int eg_rm_ask_sync(struct eg_raw_member *m, uint32_t applied, uint32_t skip) {
    eg_raw_begin(&m->r, EG_MSG_GROUP_SYNC);
    eg_enc_u64(&m->r.enc, m->id);
    eg_enc_u32(&m->r.enc, applied);
    eg_enc_u32(&m->r.enc, skip);
    return eg_raw_ask(&m->r);
}

/* The whole list, all pages of it of one version. */
static struct eg_part *ask_list(struct eg_raw_member *m, size_t *count, uint32_t *version, uint32_t *generation) {
    struct eg_part *list = NULL;
    size_t n = 0, cap = 0;
    uint8_t more;
    do {
        assert_int_equal(eg_rm_ask_sync(m, m->version, (uint32_t)n), 0);
        struct eg_dec *d = &m->r.dec;
        uint32_t now = eg_dec_u32(d);
        if (n > 0 && now != *version) {
            n = 0; /* begin again */
            more = 1;
            continue;
        }
        *version = now;
        *generation = eg_dec_u32(d);
        more = eg_dec_u8(d);
        for (uint16_t t = eg_dec_u16(d); t > 0; t--) {
            struct eg_part p = {.topic_uid = eg_dec_u32(d)};
            eg_dec_str(d, p.topic, sizeof(p.topic));
            for (uint16_t k = eg_dec_u16(d); k > 0; k--) {
                p.partition = eg_dec_u32(d);
                p.cell = eg_dec_u32(d);
                p.committed = eg_dec_i64(d);
                p.flags = eg_dec_u8(d);
                if (n == cap) {
                    cap = cap == 0 ? 16 : 2 * cap;
                    list = realloc(list, cap * sizeof(*list));
                    assert_non_null(list);
                }
                list[n++] = p;
            }
        }
        assert_true(eg_dec_end(d));
    } while (more != 0);
    *count = n;
    return list;
}

static const struct eg_part *find(const struct eg_part *list, size_t n, const struct eg_part *p) {
    for (size_t i = 0; i < n; i++)
        if (list[i].topic_uid == p->topic_uid && list[i].partition == p->partition)
            return &list[i];
    return NULL;
}

uint32_t eg_rm_learn(struct eg_raw_member *m) {
    static uint8_t used[EG_MEMBER_CELLS];
    size_t n;
    uint32_t version, generation;
    struct eg_part *list = ask_list(m, &n, &version, &generation);
    assert_true(generation >= m->generation && version >= m->version);
    for (size_t i = 0; i < m->count; i++) {
        const struct eg_part *same = find(list, n, &m->part[i]);
        if (same == NULL)
            disown(m, &m->part[i]);
        else
            assert_int_equal(same->cell, m->part[i].cell);
    }
    m->generation = generation;
    memset(used, 0, sizeof(used));
    for (size_t i = 0; i < n; i++) {
        assert_true(list[i].cell < EG_MEMBER_CELLS && used[list[i].cell]++ == 0);
        if (find(m->part, m->count, &list[i]) == NULL)
            assert_true(eg_load_relaxed(&m->page->cell[list[i].cell]) == EG_NO_COMMIT);
        own(m, &list[i]);
    }
    free(m->part);
    m->part = list;
    m->count = n;
    return version;
}

bool eg_rm_follow(struct eg_raw_member *m) {
    if (eg_load_acquire(&m->page->version) == m->version)
        return false;
    m->version = eg_rm_learn(m);
    assert_int_equal(eg_rm_ask_sync(m, m->version, 0), 0);
    return true;
}

void eg_rm_settle(struct eg_raw_member *list, size_t n, const char *group, size_t total) {
    int64_t end = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    for (;;) {
        size_t has = 0;
        bool moved = false;
        struct eg_raw_member *any = NULL;
        struct eg_rm_group g;
        for (size_t i = 0; i < n; i++) {
            if (list[i].page == NULL)
                continue;
            any = &list[i];
            /* Relaxed: it says only that we live. */
            atomic_fetch_add_explicit(&list[i].page->polls, 1, memory_order_relaxed);
            moved |= eg_rm_follow(&list[i]);
            has += list[i].count;
        }
        assert_non_null(any);
        assert_int_equal(eg_rm_describe(&any->r, group, &g), 0);
        if (!moved && g.state == EG_GROUP_STABLE && has == total)
            return;
        if (eg_mono_ns() > end)
            fail_msg("members have %zu partitions instead of %zu, state %u", has, total, g.state);
        if (!moved)
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}

void eg_rm_commit(struct eg_raw_member *m, size_t index, int64_t offset) {
    /* As struct eg_member_page says. */
    atomic_store_explicit(&m->page->cell[m->part[index].cell], offset, memory_order_release);
    atomic_fetch_add_explicit(&m->page->commits, 1, memory_order_release);
}

/* ---- tools ------------------------------------------------------------------------------------------------------ */

int eg_rm_describe(struct eg_raw *r, const char *group, struct eg_rm_group *out) {
    char text[512];
    uint8_t more;
    memset(out, 0, sizeof(*out));
    do {
        eg_raw_begin(r, EG_MSG_GROUP_DESCRIBE);
        eg_enc_str(&r->enc, group);
        eg_enc_u32(&r->enc, out->members);
        int rc = eg_raw_ask(r);
        if (rc != 0)
            return rc;
        out->type = eg_dec_u8(&r->dec);
        out->state = eg_dec_u8(&r->dec);
        out->generation = eg_dec_u32(&r->dec);
        eg_dec_str(&r->dec, out->assignor, sizeof(out->assignor));
        eg_dec_u32(&r->dec);
        more = eg_dec_u8(&r->dec);
        for (uint16_t n = eg_dec_u16(&r->dec); n > 0; n--, out->members++) {
            eg_dec_u64(&r->dec);
            eg_dec_str(&r->dec, text, sizeof(text));
            eg_dec_str(&r->dec, text, sizeof(text));
            for (int i = 0; i < 4; i++)
                eg_dec_u32(&r->dec);
            for (uint16_t t = eg_dec_u16(&r->dec); t > 0; t--)
                eg_dec_str(&r->dec, text, sizeof(text));
        }
        assert_true(eg_dec_end(&r->dec));
    } while (more != 0);
    return 0;
}

void eg_raw_topic(struct eg_raw *r, const char *name, unsigned partitions) {
    char count[16];
    snprintf(count, sizeof(count), "%u", partitions);
    const char *const settings[][2] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"ring.segments", "3"}, {"partitions", count}};
    eg_raw_begin(r, EG_MSG_TOPIC_CREATE);
    eg_enc_str(&r->enc, name);
    eg_enc_u16(&r->enc, 4);
    for (size_t i = 0; i < 4; i++) {
        eg_enc_str(&r->enc, settings[i][0]);
        eg_enc_str(&r->enc, settings[i][1]);
    }
    if (eg_raw_ask(r) != 0)
        fail_msg("%s: %s", name, r->detail);
}
