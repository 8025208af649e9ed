/* given.c - the partitions that the daemon gives a member, and takes; callbacks. */
#include <stdlib.h>
#include <string.h>

#include "client/group.h"
#include "client/share.h"
#include "sys/clock.h"

#define RETRY_NS EG_NS_PER_S /* a partition that cannot be opened is tried again so often, and poll says so */

/* ---- lists --------------------------------------------------------------------------------------------- */

static int no_memory(void) { return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for what the group gives"); }

static void free_list(struct eg_given_list *l) {
    for (size_t i = 0; i < l->topic_count; i++)
        eg_topic_close(l->topics[i].opening);
    free(l->topics);
    free(l->parts);
    *l = (struct eg_given_list){0};
}

static int compare(const void *a, const void *b) {
    const struct eg_given *x = a, *y = b;
    if (x->uid != y->uid)
        return x->uid < y->uid ? -1 : 1;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

static int read_topic(struct eg_given_list *l, struct eg_dec *d) {
    if (l->topic_count == l->topic_cap) {
        size_t cap = l->topic_cap == 0 ? 8 : 2 * l->topic_cap;
        struct eg_given_topic *topics = reallocarray(l->topics, cap, sizeof(*topics));
        if (topics == NULL)
            return no_memory();
        l->topics = topics;
        l->topic_cap = cap;
    }
    struct eg_given_topic *t = &l->topics[l->topic_count];
    *t = (struct eg_given_topic){.uid = eg_dec_u32(d)};
    eg_dec_str(d, t->name, sizeof(t->name));
    l->topic_count++;
    return EAGRE_OK;
}

static int read_part(struct eg_given_list *l, struct eg_dec *d) {
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
        struct eg_given *parts = reallocarray(l->parts, cap, sizeof(*parts));
        if (parts == NULL)
            return no_memory();
        l->parts = parts;
        l->cap = cap;
    }
    struct eg_given *p = &l->parts[l->count];
    *p = (struct eg_given){.topic = (uint32_t)(l->topic_count - 1), .uid = l->topics[l->topic_count - 1].uid};
    p->partition = eg_dec_u32(d);
    p->cell = eg_dec_u32(d);
    p->committed = eg_dec_i64(d);
    p->flags = eg_dec_u8(d);
    d->bad |= p->cell >= EG_MEMBER_CELLS || p->partition >= EG_TOPIC_PARTITIONS_MAX || p->committed < -1;
    l->count++;
    return EAGRE_OK;
}

static int read_list(struct eg_given_list *l, struct eg_dec *d) {
    int rc = EAGRE_OK;
    for (size_t t = eg_dec_u16(d); t > 0 && rc == EAGRE_OK && !d->bad; t--) {
        rc = read_topic(l, d);
        for (size_t n = rc == EAGRE_OK ? eg_dec_u16(d) : 0; n > 0 && rc == EAGRE_OK && !d->bad; n--)
            rc = read_part(l, d);
    }
    if (rc == EAGRE_OK && (!eg_dec_end(d) || l->count > EG_MEMBER_CELLS))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to GROUP_SYNC is malformed");
    return rc;
}

/* ---- callbacks ------------------------------------------------------------------------------------------- */

typedef void callback(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx);

/* The application may do nearly everything in it, and what it waits for is not what we may wait for. */
static void call(eagre_consumer_t *c, callback *f, const eagre_topic_partition_t *list, size_t n) {
    struct membership *g = c->group;
    struct eg_until until = c->until;
    if (f == NULL || n == 0)
        return;
    g->in_callback = true;
    g->busy = true; /* a poll in it is noticed */
    f(c, list, n, g->callbacks.ctx);
    g->in_callback = false;
    c->until = until;
}

static eagre_topic_partition_t told(const struct assigned *a) {
    return (eagre_topic_partition_t){.topic = a->of->topic->name,
                                     .partition = (int32_t)a->number,
                                     .offset = a->how == EG_READ ? a->reader.offset : -1};
}

/* Of all that are marked; one by one, if there is no memory. */
static void call_marked(eagre_consumer_t *c, callback *f) {
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < c->part_count; i++)
        cap += c->parts[i]->marked;
    eagre_topic_partition_t one, *list = malloc((cap + 1) * sizeof(*list));
    for (size_t i = 0; i < c->part_count; i++) {
        if (!c->parts[i]->marked)
            continue;
        one = told(c->parts[i]);
        if (list != NULL)
            list[n++] = one;
        else
            call(c, f, &one, 1);
    }
    call(c, f, list, n);
    free(list);
}

int eagre_consumer_assignment(eagre_consumer_t *c, eagre_topic_partition_t *list, size_t cap, size_t *n) {
    int rc = eg_consumer_usable(c);
    if (rc == EAGRE_OK && ((list == NULL && cap > 0) || n == NULL))
        rc = eg_error_set(EAGRE_E_INVALID, "eagre_consumer_assignment: list and n must be given");
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; i < c->part_count && i < cap; i++)
        list[i] = told(c->parts[i]);
    *n = c->part_count;
    return EAGRE_OK;
}

/* ---- giving up ------------------------------------------------------------------------------------------- */

/* Those that are marked: the callback, then they are gone. */
static void drop_marked(eagre_consumer_t *c, struct eg_given_list *l, bool lost) {
    struct membership *g = c->group;
    call_marked(c, lost ? g->callbacks.lost : g->callbacks.revoked);
    for (size_t i = 0; i < l->count; i++) {
        struct eg_given *p = &l->parts[i];
        if (p->a == NULL || !p->a->marked)
            continue;
        eg_shared_close(c, p->a, !lost);
        if (!p->mine) /* it is not among the consumer's: nobody was told */
            eg_assigned_free(c, p->a);
        p->a = NULL;
    }
    eg_assigned_sweep(c);
}

void eg_given_drop(eagre_consumer_t *c, bool lost) {
    struct membership *g = c->group;
    for (size_t i = 0; i < g->now.count; i++)
        if (g->now.parts[i].a != NULL)
            g->now.parts[i].a->marked = true;
    drop_marked(c, &g->now, lost);
    free_list(&g->now);
    free_list(&g->next);
    g->coming = 0;
    g->failed = EAGRE_OK;
    g->gave_up = false;
}

void eg_given_abandon(eagre_consumer_t *c) {
    struct membership *g = c->group;
    for (size_t i = 0; i < g->now.count; i++) {
        struct eg_given *p = &g->now.parts[i];
        if (p->a == NULL)
            continue;
        eg_shared_close(c, p->a, false);
        if (!p->mine) {
            eg_reader_drop_file(&p->a->reader);
            free(p->a);
        }
    }
    free_list(&g->now);
    free_list(&g->next);
}

/* ---- another version ---------------------------------------------------------------------------------------- */

/* What both have goes over. What is left of `now` has to go. */
static void keep_common(struct eg_given_list *now, struct eg_given_list *next) {
    for (size_t i = 0, k = 0; i < now->count && k < next->count;) {
        struct eg_given *old = &now->parts[i], *new = &next->parts[k];
        int order = compare(old, new);
        if (order == 0 && old->cell == new->cell) { /* in another cell it would be a commit that nobody reads */
            new->a = old->a;
            new->mine = old->mine;
            new->placed = old->placed;
            new->retry_ns = old->retry_ns;
            old->a = NULL;
        }
        i += order <= 0;
        k += order >= 0;
    }
    for (size_t i = 0; i < now->topic_count; i++)
        for (size_t k = 0; now->topics[i].opening != NULL && k < next->topic_count; k++)
            if (now->topics[i].uid == next->topics[k].uid && next->topics[k].opening == NULL) {
                next->topics[k].opening = now->topics[i].opening;
                now->topics[i].opening = NULL;
            }
}

static void take_over(eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (g->next.count > 0)
        qsort(g->next.parts, g->next.count, sizeof(*g->next.parts), compare);
    keep_common(&g->now, &g->next);
    bool gives_up = false;
    for (size_t i = 0; i < g->now.count; i++)
        if (g->now.parts[i].a != NULL) {
            g->now.parts[i].a->marked = true;
            gives_up = true;
        }
    if (gives_up && g->auto_commit)
        eg_commit_moved(c);
    drop_marked(c, &g->now, false);
    free_list(&g->now);
    g->now = g->next;
    g->next = (struct eg_given_list){0};
    g->version = g->now.version;
    g->generation = g->now.generation;
    g->gave_up |= gives_up;
    g->coming = 0;
    for (size_t i = 0; i < g->now.count; i++)
        g->coming += !g->now.parts[i].mine;
}

static int ask_sync(eagre_consumer_t *c, uint32_t skip, struct eg_dec *reply) {
    struct membership *g = c->group;
    struct eg_enc req;
    if (g->sync_version != g->version || g->sync_skip != skip) /* its answer is not the one to this question */
        eg_session_give_up(c->e, &g->late);
    g->sync_version = g->version;
    g->sync_skip = skip;
    eg_enc_begin(&req, g->out, EG_MSG_MAX, EG_MSG_GROUP_SYNC, 0, 0);
    eg_enc_u64(&req, g->member);
    eg_enc_u32(&req, g->version);
    eg_enc_u32(&req, skip);
    return eg_group_ask(c, &req, reply, NULL, 0, NULL, NULL);
}

static int fetch_page(eagre_consumer_t *c) {
    struct eg_given_list *l = &c->group->next;
    struct eg_dec reply;
    int rc = ask_sync(c, (uint32_t)l->count, &reply);
    if (rc != EAGRE_OK)
        return rc;
    uint32_t version = eg_dec_u32(&reply);
    uint32_t generation = eg_dec_u32(&reply);
    bool more = eg_dec_u8(&reply) != 0;
    size_t before = l->count;
    if (before > 0 && version != l->version) { /* it has changed meanwhile: from the front */
        free_list(l);
        return EAGRE_OK;
    }
    l->version = version;
    l->generation = generation;
    rc = read_list(l, &reply);
    if (rc == EAGRE_OK && more && l->count == before)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to GROUP_SYNC is malformed");
    l->whole = !more;
    if (rc != EAGRE_OK)
        free_list(l);
    return rc;
}

int eg_given_fetch(eagre_consumer_t *c) {
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK && !c->group->next.whole)
        rc = fetch_page(c);
    if (rc == EAGRE_OK)
        take_over(c);
    return rc;
}

int eg_given_acknowledge(eagre_consumer_t *c) {
    struct membership *g = c->group;
    struct eg_dec reply;
    uint32_t version = g->version;
    int rc = ask_sync(c, UINT32_MAX, &reply); /* what is ours we know, or ask when the page says that it has changed */
    if (rc == EAGRE_OK) {
        g->acked = version;
        g->gave_up = false;
    }
    return rc;
}

/* ---- what is coming ----------------------------------------------------------------------------------------- */

static int find_topic(eagre_consumer_t *c, struct eg_given_topic *t, struct subscription **out) {
    *out = eg_subscription_find(c, t->name);
    int rc = EAGRE_OK;
    if (*out == NULL)
        rc = eg_topic_open_late(c->e, EG_ROLE_CONSUMER, t->name, &c->until, &t->opening);
    if (rc != EAGRE_OK)
        return rc;
    if ((*out != NULL ? (*out)->topic->uid : t->opening->uid) != t->uid) {
        eg_topic_close(t->opening);
        t->opening = NULL;
        return eg_error_set(EAGRE_E_TOPIC_DELETED, "topic '%s' is another one now", t->name);
    }
    if (*out == NULL) {
        rc = eg_subscription_add(c, t->opening, out);
        t->opening = rc == EAGRE_OK ? NULL : t->opening;
    }
    return rc;
}

/* Until it stands where it begins. */
static int prepare(eagre_consumer_t *c, struct eg_given_topic *t, struct eg_given *p) {
    struct membership *g = c->group;
    int rc = EAGRE_OK;
    if (p->a == NULL) {
        struct subscription *s;
        rc = find_topic(c, t, &s);
        if (rc == EAGRE_OK)
            rc = eg_assigned_make(c, s, p->partition, &p->a);
        if (rc != EAGRE_OK)
            return rc;
        p->a->cell = g->type == EG_GROUP_CONSUMER ? &g->page->cell[p->cell] : NULL;
    }
    if (p->placed)
        return EAGRE_OK;
    if (g->type == EG_GROUP_SHARE) {
        rc = eg_shared_open(c, p->a);
    } else if (p->committed >= 0) {
        eg_reader_seek(&p->a->reader, p->committed);
        p->a->committed = p->committed;
    } else {
        rc = eg_consumer_reset(c, p->a);
    }
    p->placed = rc == EAGRE_OK;
    return rc;
}

/* All that stand are the consumer's. */
static int add_ready(eagre_consumer_t *c) {
    struct membership *g = c->group;
    int rc = EAGRE_OK;
    for (size_t i = 0; i < g->now.count && rc == EAGRE_OK; i++) {
        struct eg_given *p = &g->now.parts[i];
        if (p->mine || !p->placed)
            continue;
        rc = eg_assigned_add(c, p->a);
        p->mine = p->a->marked = rc == EAGRE_OK;
        g->coming -= p->mine;
    }
    call_marked(c, g->callbacks.assigned);
    for (size_t i = 0; i < c->part_count; i++)
        c->parts[i]->marked = false;
    if (g->auto_commit)
        eg_commit_moved(c); /* where auto.offset.reset put it: what is produced from here on is the group's */
    return rc;
}

/* The committed offset was of records that a crash of the host took back. */
static int clamped(const eagre_consumer_t *c, struct eg_given *p) {
    bool says = (p->flags & EG_OFFSET_CLAMPED) != 0 && p->mine && c->options.auto_offset_reset == EAGRE_RESET_NONE;
    p->flags &= (uint8_t)~EG_OFFSET_CLAMPED;
    if (!says)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE,
                        "topic '%s' partition %u: a crash of the host took back records that the group had read: it goes on at "
                        "%lld with the next poll (seek to go on elsewhere)",
                        p->a->of->topic->name, p->partition, (long long)p->committed);
}

static bool is_gone(int rc) {
    return rc == EAGRE_E_UNKNOWN_TOPIC || rc == EAGRE_E_TOPIC_DELETED || rc == EAGRE_E_UNKNOWN_PARTITION;
}

int eg_given_take(eagre_consumer_t *c) {
    struct membership *g = c->group;
    int waits = EAGRE_OK;
    int64_t now = eg_mono_ns();
    for (size_t i = 0; i < g->now.count; i++) {
        struct eg_given *p = &g->now.parts[i];
        if (p->mine || p->gone || p->retry_ns > now)
            continue;
        int rc = prepare(c, &g->now.topics[p->topic], p);
        p->retry_ns = 0;
        if (rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON) {
            waits = rc;
        } else if (is_gone(rc)) {
            p->gone = true;
            g->coming--;
        } else if (rc != EAGRE_OK) {
            p->retry_ns = now + RETRY_NS;
            eg_error_add(rc, "topic '%s' partition %u", g->now.topics[p->topic].name, p->partition);
            if (g->failed == EAGRE_OK)
                strcpy(g->failed_text, eg_error_text());
            g->failed = g->failed == EAGRE_OK ? rc : g->failed;
        }
    }
    if (waits != EAGRE_OK)
        return waits;
    int rc = add_ready(c);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; i < g->now.count && rc == EAGRE_OK; i++)
        rc = clamped(c, &g->now.parts[i]);
    if (rc != EAGRE_OK || g->failed == EAGRE_OK)
        return rc;
    rc = g->failed;
    g->failed = EAGRE_OK;
    return eg_error_set(rc, "%s", g->failed_text);
}

int64_t eg_given_retry_ns(const struct membership *g) {
    int64_t next = INT64_MAX;
    for (size_t i = 0; g->coming > 0 && i < g->now.count; i++) {
        const struct eg_given *p = &g->now.parts[i];
        if (!p->mine && !p->gone && p->retry_ns < next)
            next = p->retry_ns;
    }
    return next;
}
