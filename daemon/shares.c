/* shares.c - share groups: the cells that their members take records by. */
#include "shares.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients.h"
#include "handlers.h"
#include "log/share.h"
#include "partition.h"
#include "proto/codec.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/shm.h"

#define LOOK_NS EG_NS_PER_S         /* at where they stand */
#define IDLE_NS (5 * EG_NS_PER_S)   /* while nothing moves */

struct eg_share_part {
    struct eg_share_part *next;
    uint32_t topic_uid, partition, partition_uid;
    int fd;
    size_t bytes;
    struct eg_share share;
    int64_t start; /* as committed */
};

/* ---- the object ------------------------------------------------------------------------------------------ */

static const char *keep_name(const struct eg_group *g, uint32_t partition_uid, char *buf, size_t cap) {
    snprintf(buf, cap, "g%u.p%u", g->uid, partition_uid);
    return buf;
}

static struct eg_share_part *find(const struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    struct eg_share_part *s = g->shares;
    while (s != NULL && (s->topic_uid != topic_uid || s->partition != partition))
        s = s->next;
    return s;
}

static struct eg_share_part **first_of(struct eg_group *g, uint32_t topic_uid) {
    struct eg_share_part **at = &g->shares;
    while (*at != NULL && (*at)->topic_uid != topic_uid)
        at = &(*at)->next;
    return at;
}

static void charge(struct eg_daemon *d, const struct eg_group *g, size_t bytes, bool more) {
    g->account->used[EG_QUOTA_MEMORY] += more ? bytes : -bytes;
    g->account->used[EG_QUOTA_BUFFERS] += more ? 1 : -1ull;
    d->figures.memory_committed += more ? bytes : -bytes;
    d->groups->share_parts += more ? 1 : -1ul;
}

static void put_settings(struct eg_daemon *d, struct eg_share_cells *c) {
    eg_store_relaxed(&c->lock_ms, d->config.share_lock_ms);
    eg_store_relaxed(&c->limit, d->config.share_delivery_limit);
}

/* Takes the descriptor and the mapping. */
static int add(struct eg_daemon *d, struct eg_group *g, const struct eg_partition *p, int fd, void *cells, size_t bytes) {
    struct eg_share_part *s = calloc(1, sizeof(*s));
    int rc = s != NULL ? eg_share_attach(&s->share, cells, bytes, g->uid, p->uid, 0)
                       : eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the share group's cells");
    if (rc != EAGRE_OK) {
        free(s);
        eg_unmap(cells, bytes);
        close(fd);
        return rc;
    }
    s->topic_uid = p->topic->meta.uid;
    s->partition = p->number;
    s->partition_uid = p->uid;
    s->fd = fd;
    s->bytes = bytes;
    s->start = -1;
    put_settings(d, cells);
    s->next = g->shares;
    g->shares = s;
    charge(d, g, bytes, true);
    return EAGRE_OK;
}

static void drop_at(struct eg_daemon *d, struct eg_group *g, struct eg_share_part **at, bool drop) {
    struct eg_share_part *s = *at;
    char name[EG_KEEP_NAME_MAX + 1];
    if (drop && eg_keep_drop(d->keep, keep_name(g, s->partition_uid, name, sizeof(name))) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    *at = s->next;
    charge(d, g, s->bytes, false);
    eg_unmap(s->share.cells, s->bytes);
    close(s->fd);
    free(s);
}

static int check_room(struct eg_daemon *d, const struct eg_group *g, size_t bytes) {
    int rc = eg_quota_check(d, g->account, EG_QUOTA_MEMORY, bytes);
    if (rc == EAGRE_OK)
        rc = eg_quota_check(d, g->account, EG_QUOTA_BUFFERS, 1);
    if (rc == EAGRE_OK && (d->figures.memory_committed > d->config.memory_max ||
                           d->config.memory_max - d->figures.memory_committed < bytes))
        rc = eg_error_set(EAGRE_E_LIMIT, "memory.max=%" PRIu64 " is reached: delete topics or share groups, or raise it",
                          d->config.memory_max);
    return rc;
}

/* How many partitions the topic had, as far as committed offsets say: a group reads all that there are. 0: it has never
 * read it. */
static uint32_t known_partitions(const struct eg_group *g, uint32_t topic_uid) {
    uint32_t known = 0;
    for (size_t i = 0; i < g->offset_count; i++) {
        const struct eg_committed *o = &g->offsets[i];
        if (o->topic_uid == topic_uid && o->offset >= 0)
            known = o->partition + 1; /* they are sorted */
    }
    return known;
}

/* How many the topic had when the group began to read it. Memory may have gone since, and partitions have come. */
static uint32_t begun_with(struct eg_group *g, const struct eg_topic *t) {
    uint32_t known = *first_of(g, t->meta.uid) == NULL ? known_partitions(g, t->meta.uid) : 0;
    return known > 0 ? known : t->partitions;
}

static int make(struct eg_daemon *d, struct eg_group *g, struct eg_partition *p, int64_t start) {
    char name[EG_KEEP_NAME_MAX + 1], label[EG_KEEP_NAME_MAX + 16];
    uint32_t window = EG_SHARE_WINDOW_MIN;
    while (window < d->config.share_max_locks)
        window *= 2;
    size_t bytes = eg_align_up(eg_share_bytes(window), EG_PAGE);
    void *cells = NULL;
    int fd = -1;
    keep_name(g, p->uid, name, sizeof(name));
    snprintf(label, sizeof(label), "eagre:%s", name);
    int rc = check_room(d, g, bytes);
    if (rc == EAGRE_OK)
        rc = eg_memfd_create(label, bytes, false, &fd);
    if (rc == EAGRE_OK)
        rc = eg_shm_allocate(fd, 0, bytes);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, bytes, true, &cells);
    if (rc == EAGRE_OK)
        eg_store_relaxed(&((struct eg_share_cells *)cells)->partitions, begun_with(g, p->topic));
    if (rc == EAGRE_OK)
        eg_share_init(cells, window, g->uid, p->uid, start, d->config.share_lock_ms, d->config.share_delivery_limit);
    if (rc == EAGRE_OK)
        rc = eg_keep_put(d->keep, name, fd);
    if (rc != EAGRE_OK) {
        if (cells != NULL)
            eg_unmap(cells, bytes);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    EG_FAULT("share.kept");
    rc = add(d, g, p, fd, cells, bytes);
    if (rc != EAGRE_OK)
        (void)eg_keep_drop(d->keep, name);
    return rc;
}

/* ---- where it stands --------------------------------------------------------------------------------------- */

/* Its start is what members wrote: it counts if there is such a place, and never goes back. True: it has moved. */
static bool collect(struct eg_daemon *d, struct eg_group *g, struct eg_share_part *s) {
    struct eg_partition *p = eg_topics_partition_by_uid(d, s->topic_uid, s->partition);
    if (p == NULL)
        return false;
    /* Acquire, though nothing else is read by it. Partner: advance(). */
    int64_t start = (int64_t)eg_load_acquire(&s->share.cells->start);
    if (start == s->start || start < 0 || start < s->start)
        return false;
    const struct eg_committed *o = eg_offset_find(g, s->topic_uid, s->partition);
    if (start > eg_offsets_log_end(p, start)) {
        static struct eg_log_limit limit;
        eg_log_limited(&limit, EG_LOG_WARNING, "share group '%s': topic '%s' partition %u: its members say that it stands at %" PRId64
                       ", which there is not", g->name, eg_topic_name(p->topic), p->number, start);
        return false;
    }
    if ((o == NULL || o->offset != start || o->flags != 0) &&
        eg_offset_set(d, g, s->topic_uid, s->partition, start, 0, NULL) != EAGRE_OK) {
        static struct eg_log_limit limit;
        eg_log_limited(&limit, EG_LOG_ERROR, "share group '%s': where it stands is not noted now: %s", g->name, eg_error_text());
        return false;
    }
    s->start = start;
    return true;
}

void eg_shares_collect(struct eg_daemon *d, struct eg_group *g) {
    for (struct eg_share_part *s = g->shares; s != NULL; s = s->next)
        (void)collect(d, g, s);
}

/* ---- members ------------------------------------------------------------------------------------------------ */

/* Those of the group that sleep look again. */
static void ring(struct eg_daemon *d, const struct eg_group *g) {
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        eg_member_ring(d, m);
}

struct known {
    const struct eg_groups *all;
    const struct eg_group *g;
};

static bool is_no_member(const void *ctx, uint32_t number) {
    const struct known *k = ctx;
    const struct eg_member *m = number <= EG_MEMBERS_MAX ? k->all->by_number[number] : NULL;
    return m == NULL || m->group != k->g || m->is_gone || m->client == NULL;
}

static void sweep_gone(struct eg_daemon *d, struct eg_group *g) {
    struct known k = {d->groups, g};
    g->share_gone = false;
    for (struct eg_share_part *s = g->shares; s != NULL; s = s->next)
        (void)eg_share_sweep_if(&s->share, is_no_member, &k);
}

void eg_share_member_gone(struct eg_daemon *d, const struct eg_member *m) {
    m->group->share_gone = d->groups->share_gone = true;
}

void eg_shares_gone(struct eg_daemon *d) {
    if (!d->groups->share_gone)
        return;
    d->groups->share_gone = false;
    for (size_t i = 0; i < d->groups->count; i++) {
        struct eg_group *g = d->groups->list[i];
        if (!g->share_gone)
            continue;
        sweep_gone(d, g);
        EG_FAULT("share.gone");
        if (g->shares != NULL)
            ring(d, g); /* who takes its leave has given back by itself, but cannot wake anybody */
    }
}

void eg_shares_members_known(struct eg_daemon *d) {
    d->groups->share_gone = false;
    for (size_t i = 0; i < d->groups->count; i++)
        sweep_gone(d, d->groups->list[i]);
}

void eg_share_group_gone(struct eg_daemon *d, struct eg_group *g, bool drop) {
    while (g->shares != NULL)
        drop_at(d, g, &g->shares, drop);
}

void eg_shares_topic_gone(struct eg_daemon *d, uint32_t topic_uid) {
    for (size_t i = 0; i < d->groups->count; i++) {
        struct eg_group *g = d->groups->list[i];
        struct eg_share_part **at;
        while (*(at = first_of(g, topic_uid)) != NULL)
            drop_at(d, g, at, true);
    }
}

void eg_share_put(struct eg_daemon *d, struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    for (struct eg_share_part **at = &g->shares; *at != NULL; at = &(*at)->next)
        if ((*at)->topic_uid == topic_uid && (*at)->partition == partition) {
            drop_at(d, g, at, true);
            return;
        }
}

bool eg_share_describe(const struct eg_group *g, uint32_t topic_uid, uint32_t partition, char *buf, size_t cap) {
    const struct eg_share_part *s = find(g, topic_uid, partition);
    struct eg_share_figures f;
    if (s == NULL)
        return false;
    eg_share_figures(&s->share, &f);
    snprintf(buf, cap, "in-flight=%u waiting-again=%u redelivered=%" PRIu64 " expired=%" PRIu64 " archived=%" PRIu64
             " rejected=%" PRIu64, f.acquired, f.returned, f.redelivered, f.expired, f.archived, f.rejected);
    return true;
}

/* ---- now and then --------------------------------------------------------------------------------------------- */

int64_t eg_shares_tick(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    bool moves = false;
    if (all->share_parts == 0)
        return INT64_MAX;
    if (now < all->shares_ns)
        return all->shares_ns;
    for (size_t i = 0; i < all->count; i++) {
        struct eg_group *g = all->list[i];
        size_t found = 0;
        for (struct eg_share_part *s = g->shares; s != NULL; s = s->next) {
            struct eg_partition *p = eg_topics_partition_by_uid(d, s->topic_uid, s->partition);
            if (p != NULL)
                eg_share_skip(&s->share, (int64_t)eg_load_relaxed(&p->status->log_start));
            found += eg_share_sweep(&s->share, 0);
            moves |= collect(d, g, s);
        }
        if (found > 0)
            ring(d, g);
        moves |= found > 0;
    }
    /* All of them together, so that an idle daemon sleeps. */
    int64_t step = moves ? LOOK_NS : IDLE_NS;
    return all->shares_ns = (now / step + 1) * step;
}

/* ---- after a predecessor --------------------------------------------------------------------------------------- */

static struct eg_partition *partition_by_uid(struct eg_daemon *d, uint32_t uid) {
    for (size_t i = 0; i < d->topics->count; i++)
        for (uint32_t n = 0; n < d->topics->list[i]->partitions; n++)
            if (d->topics->list[i]->part[n]->uid == uid)
                return d->topics->list[i]->part[n];
    return NULL;
}

/* What the keeper has under that name. Whatever is wrong with it: then there are new cells when somebody asks. */
static void take(struct eg_daemon *d, const char *name, uint32_t group_uid, uint32_t partition_uid) {
    struct eg_group *g = eg_group_by_uid(d, group_uid);
    struct eg_partition *p = partition_by_uid(d, partition_uid);
    int fd = eg_keep_take(d->keep, name), rc = EAGRE_OK;
    void *cells = NULL;
    size_t bytes = 0;
    if (fd < 0)
        return;
    if (g == NULL || g->type != EG_GROUP_SHARE || p == NULL)
        rc = EAGRE_E_UNKNOWN_TOPIC; /* deleted, and the predecessor had not come that far */
    else
        rc = eg_memfd_check(fd, &bytes);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, bytes, true, &cells);
    if (rc != EAGRE_OK)
        close(fd);
    else if ((rc = add(d, g, p, fd, cells, bytes)) != EAGRE_OK)
        eg_log_warning("share group '%s': topic '%s' partition %u: it goes on at its committed offset: %s", g->name,
                       eg_topic_name(p->topic), p->number, eg_error_text());
    if (rc != EAGRE_OK)
        (void)eg_keep_drop(d->keep, name);
}

int eg_shares_start(struct eg_daemon *d) {
    char name[EG_KEEP_NAME_MAX + 1];
    const char *left;
    for (size_t i = 0; (left = eg_keep_left(d->keep, i)) != NULL;) {
        uint32_t group_uid, partition_uid;
        int end = 0;
        snprintf(name, sizeof(name), "%s", left);
        if (sscanf(name, "g%" SCNu32 ".p%" SCNu32 "%n", &group_uid, &partition_uid, &end) == 2 && name[end] == '\0') {
            take(d, name, group_uid, partition_uid); /* another one is at i now */
        } else {
            i++;
        }
    }
    return EAGRE_OK;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* Did it come when the group had begun to read the topic? Then nothing of it is left out. */
static bool is_new(const struct eg_group *g, const struct eg_partition *p) {
    bool any = false;
    for (const struct eg_share_part *s = g->shares; s != NULL; s = s->next) {
        if (s->topic_uid != p->topic->meta.uid)
            continue;
        if (p->number >= eg_load_relaxed(&s->share.cells->partitions))
            return true;
        any = true;
    }
    uint32_t known = any ? 0 : known_partitions(g, p->topic->meta.uid);
    return known > 0 && p->number >= known;
}

/* Where a group begins that has no cells there. wanted: by the member's auto.offset.reset; -1: nowhere. */
static int begin_at(struct eg_group *g, struct eg_partition *p, int64_t wanted, int64_t *out) {
    const struct eg_committed *o = eg_offset_find(g, p->topic->meta.uid, p->number);
    int64_t begin = (int64_t)eg_load_relaxed(&p->status->log_start);
    if (o != NULL)
        wanted = o->offset;
    else if (is_new(g, p))
        wanted = begin;
    if (wanted < 0)
        return eg_error_set(EAGRE_E_NO_OFFSET,
                            "group '%s': topic '%s' partition %u: the group has no offset there, and auto.offset.reset is none: "
                            "set it to earliest or latest, or: eagre group seek %s --topic %s:%u --to beginning|end|OFFSET",
                            g->name, eg_topic_name(p->topic), p->number, g->name, eg_topic_name(p->topic), p->number);
    int64_t end = eg_offsets_log_end(p, wanted);
    *out = wanted < begin ? begin : wanted > end ? end : wanted;
    return EAGRE_OK;
}

int eg_handle_SHARE_OPEN(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    struct eg_member *m = NULL;
    struct eg_partition *p = NULL;
    uint64_t id = eg_dec_u64(in);
    uint32_t uid = eg_dec_u32(in), number = eg_dec_u32(in);
    int64_t wanted = eg_dec_i64(in), start = 0;
    if (!eg_dec_end(in) || wanted < -1)
        return eg_error_set(EAGRE_E_PROTOCOL, "a malformed SHARE_OPEN");
    int rc = eg_member_find(d, s->client, id, &m);
    if (rc == EAGRE_OK)
        rc = eg_find_granted(d, s, EG_ROLE_CONSUMER, uid, number, &p);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_group *g = m->group;
    if (g->type != EG_GROUP_SHARE || !eg_member_subscribes(m, eg_topic_name(p->topic)))
        return eg_error_set(EAGRE_E_STATE, "group '%s': topic '%s' is not shared by this member", g->name, eg_topic_name(p->topic));
    struct eg_share_part *part = find(g, uid, number);
    if (part == NULL) {
        rc = begin_at(g, p, wanted, &start);
        if (rc == EAGRE_OK)
            rc = make(d, g, p, start);
        if (rc != EAGRE_OK)
            return rc == EAGRE_E_NO_OFFSET ? rc : eg_error_add(rc, "group '%s': topic '%s' partition %u", g->name, eg_topic_name(p->topic), number);
        part = find(g, uid, number);
        (void)collect(d, g, part);
        d->groups->shares_ns = 0;
    }
    eg_enc_u32(r->out, part->partition_uid);
    r->fds[r->nfds++] = part->fd;
    return EAGRE_OK;
}
