/* offset_messages.c - what members and tools ask about committed offsets. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "groups.h"
#include "handlers.h"
#include "offset_writer.h"
#include "partition.h"
#include "shares.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define NAME_CAP 1024 /* longer than a valid one, so that the error can be about the name */

static int malformed(const char *what) { return eg_error_set(EAGRE_E_PROTOCOL, "a malformed %s", what); }

static size_t room(const struct eg_reply *r) { return r->out->cap - r->out->used; }

static int find_partition(struct eg_daemon *d, const char *topic, uint32_t number, struct eg_partition **out) {
    struct eg_topic *t = NULL;
    int rc = eg_topic_find(d, topic, &t);
    if (rc != EAGRE_OK)
        return rc;
    if (number >= t->partitions)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %u, not %u", eg_topic_name(t),
                            t->partitions - 1, number);
    *out = t->part[number];
    return EAGRE_OK;
}

static int check_offset(struct eg_partition *p, int64_t offset) {
    int64_t end = eg_offsets_log_end(p, offset);
    if (offset >= 0 && offset <= end)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE,
                        "topic '%s' partition %u: offset %" PRId64 " cannot be committed: the log ends at %" PRId64,
                        eg_topic_name(p->topic), p->number, offset, end);
}

static void collect_all(struct eg_daemon *d, struct eg_group *g) {
    eg_shares_collect(d, g);
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        eg_offsets_collect(d, m);
}

/* ---- GROUP_COMMIT ------------------------------------------------------------------------------------------- */

struct commit {
    uint32_t topic_uid, partition;
    int64_t offset;
    char metadata[EG_METADATA_MAX + 1];
};

static void decode_commit(struct eg_dec *in, struct commit *c) {
    c->topic_uid = eg_dec_u32(in);
    c->partition = eg_dec_u32(in);
    c->offset = eg_dec_i64(in);
    eg_dec_str(in, c->metadata, sizeof(c->metadata));
}

static int order(uint32_t topic_a, uint32_t partition_a, uint32_t topic_b, uint32_t partition_b) {
    if (topic_a != topic_b)
        return topic_a < topic_b ? -1 : 1;
    return partition_a < partition_b ? -1 : partition_a > partition_b;
}

static int compare_given(const void *a, const void *b) {
    const struct commit *c = a;
    const struct eg_given *given = b;
    return order(c->topic_uid, c->partition, given->topic_uid, given->partition);
}

static const struct eg_given *find_given(const struct eg_member *m, const struct commit *c) {
    return m->given_count > 0 ? bsearch(c, m->given, m->given_count, sizeof(*m->given), compare_given) : NULL;
}

/* Its partition is the member's, the log has such an offset. */
static int check_commit(struct eg_daemon *d, const struct eg_member *m, const struct commit *c) {
    struct eg_partition *p = eg_topics_partition_by_uid(d, c->topic_uid, c->partition);
    if (p == NULL)
        return eg_error_set(EAGRE_E_TOPIC_DELETED, "there is no topic with id %u and partition %u (any more)", c->topic_uid,
                            c->partition);
    if (find_given(m, c) == NULL)
        return eg_error_set(EAGRE_E_STATE, "group '%s': topic '%s' partition %u is not this member's: it cannot commit it",
                            m->group->name, eg_topic_name(p->topic), c->partition);
    return check_offset(p, c->offset);
}

/* The cells were collected. One that says another offset is of a later commit, which has no metadata. */
static int put_metadata(struct eg_daemon *d, struct eg_member *m, const struct commit *c) {
    const struct eg_given *given = find_given(m, c);
    if (given->collected != c->offset && given->collected != EG_NO_COMMIT)
        return EAGRE_OK;
    return eg_offset_set(d, m->group, c->topic_uid, c->partition, c->offset, 0, c->metadata);
}

/* What its cells say that no log has: the others are taken nevertheless. */
static int refuse_strange(struct eg_daemon *d, const struct eg_member *m) {
    int rc = EAGRE_OK;
    for (size_t i = 0; rc == EAGRE_OK && i < m->given_count; i++) {
        const struct eg_given *v = &m->given[i];
        struct eg_partition *p = v->strange ? eg_topics_partition_by_uid(d, v->topic_uid, v->partition) : NULL;
        if (p != NULL)
            rc = check_offset(p, v->collected);
    }
    return rc;
}

int eg_handle_GROUP_COMMIT(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    static struct commit c;
    struct eg_member *m = NULL;
    (void)r;
    uint64_t id = eg_dec_u64(in);
    (void)eg_dec_u64(in); /* the page says as many commits, or more */
    size_t n = eg_dec_u16(in);
    struct eg_dec list = *in;
    for (size_t i = 0; i < n && !in->bad; i++)
        decode_commit(in, &c);
    if (!eg_dec_end(in))
        return malformed("GROUP_COMMIT");
    int rc = s->client != NULL ? eg_member_find(d, s->client, id, &m)
                               : eg_error_set(EAGRE_E_STATE, "GROUP_COMMIT before ATTACH");
    struct eg_dec again = list;
    for (size_t i = 0; rc == EAGRE_OK && i < n; i++) { /* all or none */
        decode_commit(&again, &c);
        rc = check_commit(d, m, &c);
    }
    if (rc != EAGRE_OK)
        return rc;
    eg_offsets_collect(d, m);
    for (size_t i = 0; rc == EAGRE_OK && i < n; i++) {
        decode_commit(&list, &c);
        rc = put_metadata(d, m, &c);
    }
    eg_offset_writer_settle(d, m);
    if (d->groups->writer->dirty)
        eg_offsets_hurry(d);
    return rc == EAGRE_OK ? refuse_strange(d, m) : rc;
}

/* ---- GROUP_COMMITTED, GROUP_PUT ------------------------------------------------------------------------------- */

int eg_handle_GROUP_COMMITTED(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP], topic[NAME_CAP];
    (void)s;
    eg_dec_str(in, name, sizeof(name));
    size_t n = eg_dec_u16(in);
    struct eg_dec list = *in;
    for (size_t i = 0; i < n && !in->bad; i++) {
        eg_dec_str(in, topic, sizeof(topic));
        eg_dec_u32(in);
    }
    if (!eg_dec_end(in))
        return malformed("GROUP_COMMITTED");
    struct eg_group *g = eg_group_find(d, name); /* one that is not there has committed nothing */
    if (g != NULL)
        collect_all(d, g);
    eg_enc_u16(r->out, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        struct eg_partition *p = NULL;
        eg_dec_str(&list, topic, sizeof(topic));
        uint32_t number = eg_dec_u32(&list);
        int rc = find_partition(d, topic, number, &p);
        if (rc != EAGRE_OK)
            return rc;
        const struct eg_committed *o = g != NULL ? eg_offset_find(g, p->topic->meta.uid, number) : NULL;
        eg_enc_i64(r->out, o != NULL ? o->offset : -1);
        eg_enc_i64(r->out, o != NULL ? o->time_ms : 0);
        eg_enc_u8(r->out, o != NULL ? (uint8_t)o->flags : 0);
        eg_enc_str(r->out, o != NULL && o->metadata != NULL ? o->metadata : "");
        if (r->out->overflow)
            return eg_error_set(EAGRE_E_LIMIT, "the offsets of %zu partitions and their metadata do not fit one reply: ask for fewer",
                                n);
    }
    return EAGRE_OK;
}

struct put {
    struct eg_meta_offset list[EG_MSG_MAX / 16]; /* an entry has at least 17 bytes */
    size_t count;
    char metadata[EG_MSG_MAX]; /* of all, each with its NUL */
};

static int decode_put(struct eg_daemon *d, struct eg_dec *in, struct put *put) {
    char topic[NAME_CAP];
    size_t n = eg_dec_u16(in), used = 0;
    struct eg_dec list = *in;
    for (size_t i = 0; i < n && !in->bad; i++) {
        eg_dec_str(in, topic, sizeof(topic));
        eg_dec_u32(in);
        eg_dec_i64(in);
        eg_dec_str(in, put->metadata, EG_METADATA_MAX + 1);
    }
    if (!eg_dec_end(in))
        return malformed("GROUP_PUT");
    put->count = 0;
    for (size_t i = 0; i < n; i++) {
        struct eg_partition *p = NULL;
        char *metadata = put->metadata + used;
        eg_dec_str(&list, topic, sizeof(topic));
        uint32_t number = eg_dec_u32(&list);
        int64_t offset = eg_dec_i64(&list);
        eg_dec_str(&list, metadata, sizeof(put->metadata) - used);
        int rc = find_partition(d, topic, number, &p);
        if (rc == EAGRE_OK && offset != -1)
            rc = check_offset(p, offset);
        if (rc != EAGRE_OK)
            return rc;
        used += strlen(metadata) + 1;
        put->list[put->count++] = (struct eg_meta_offset){.topic_uid = p->topic->meta.uid,
                                                          .partition = number,
                                                          .offset = offset,
                                                          .metadata = *metadata != '\0' ? metadata : NULL};
    }
    return EAGRE_OK;
}

/* A share group's cells are of before. They go first: a daemon that is killed in between must not come back to an offset that
 * was set and cells that stand elsewhere. Where they stood is known, so nothing is lost if the put fails then. */
static int begin_anew(struct eg_daemon *d, struct eg_group *g, const struct put *put) {
    eg_shares_collect(d, g);
    int rc = eg_offset_writer_flush(d);
    for (size_t i = 0; rc == EAGRE_OK && i < put->count; i++)
        eg_share_put(d, g, put->list[i].topic_uid, put->list[i].partition);
    return rc;
}

/* In the database when it is answered, and by this thread: a sync each time. A tool asks once; a consumer with partitions
 * by hand and auto-commit asks each auto.commit.interval.ms, all that has moved in one message. */
int eg_handle_GROUP_PUT(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    static struct put put;
    char name[NAME_CAP];
    struct eg_group *g = NULL;
    (void)r;
    eg_dec_str(in, name, sizeof(name));
    uint8_t type = eg_dec_u8(in);
    if (type != EG_GROUP_CONSUMER && type != EG_GROUP_SHARE)
        return malformed("GROUP_PUT");
    int rc = decode_put(d, in, &put);
    if (rc == EAGRE_OK)
        g = eg_group_find(d, name);
    if (rc == EAGRE_OK)
        rc = g != NULL ? eg_group_check_access(d, g, s->uid) : eg_group_need(d, name, (enum eg_group_type)type, s->uid, &g);
    if (rc == EAGRE_OK && g->member_count > 0)
        rc = eg_error_set(EAGRE_E_GROUP_ACTIVE,
                          "group '%s' has %zu members: its offsets can be set when all have left it (close its consumers)",
                          g->name, g->member_count);
    if (rc == EAGRE_OK && g->shares != NULL)
        rc = begin_anew(d, g, &put);
    if (rc == EAGRE_OK)
        rc = eg_offsets_put(d, g, put.list, put.count);
    if (rc == EAGRE_OK)
        EG_FAULT("group.put");
    return rc;
}

/* ---- GROUP_OFFSETS ------------------------------------------------------------------------------------------- */

/* A partition that a member has. */
struct held {
    uint32_t topic_uid, partition;
    uint64_t member;
};

static int compare_held(const void *a, const void *b) {
    const struct held *x = a, *y = b;
    return order(x->topic_uid, x->partition, y->topic_uid, y->partition);
}

/* Those of all members, sorted. NULL: no memory. */
static struct held *list_held(const struct eg_group *g, size_t *count) {
    size_t n = 0;
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        n += m->given_count;
    struct held *all = malloc((n + 1) * sizeof(*all));
    n = 0;
    for (const struct eg_member *m = g->members; all != NULL && m != NULL; m = m->next)
        for (size_t i = 0; i < m->given_count; i++)
            all[n++] = (struct held){m->given[i].topic_uid, m->given[i].partition, m->id};
    if (all != NULL)
        qsort(all, n, sizeof(*all), compare_held);
    *count = n;
    return all;
}

/* One after the other: partitions that are committed, or held, or both. */
struct walk {
    const struct eg_group *g;
    const struct held *held;
    size_t held_count, at, held_at;
};

struct entry {
    struct eg_partition *p;
    const struct eg_committed *committed; /* NULL: none */
    uint64_t member;
};

static bool next_entry(struct eg_daemon *d, struct walk *w, struct entry *out) {
    while (w->at < w->g->offset_count || w->held_at < w->held_count) {
        const struct eg_committed *o = w->at < w->g->offset_count ? &w->g->offsets[w->at] : NULL;
        const struct held *h = w->held_at < w->held_count ? &w->held[w->held_at] : NULL;
        int first = h == NULL ? -1 : o == NULL ? 1 : order(o->topic_uid, o->partition, h->topic_uid, h->partition);
        w->at += first <= 0;
        w->held_at += first >= 0;
        *out = (struct entry){.committed = first <= 0 && o->offset >= 0 ? o : NULL, .member = first >= 0 ? h->member : 0};
        if (out->committed == NULL && out->member == 0)
            continue;
        out->p = first <= 0 ? eg_topics_partition_by_uid(d, o->topic_uid, o->partition)
                            : eg_topics_partition_by_uid(d, h->topic_uid, h->partition);
        if (out->p != NULL)
            return true;
    }
    return false;
}

static void encode_entry(const struct eg_group *g, struct eg_enc *out, const struct entry *e, int64_t end) {
    const struct eg_committed *o = e->committed;
    const char *metadata = o != NULL && o->metadata != NULL ? o->metadata : "";
    char share[256];
    if (eg_share_describe(g, e->p->topic->meta.uid, e->p->number, share, sizeof(share)))
        metadata = share;
    eg_enc_str(out, eg_topic_name(e->p->topic));
    eg_enc_u32(out, e->p->number);
    eg_enc_i64(out, o != NULL ? o->offset : -1);
    eg_enc_i64(out, (int64_t)eg_load_relaxed(&e->p->status->log_start));
    eg_enc_i64(out, end);
    eg_enc_u64(out, e->member);
    eg_enc_i64(out, o != NULL ? o->time_ms : 0);
    eg_enc_u8(out, o != NULL ? (uint8_t)o->flags : 0);
    eg_enc_str(out, metadata);
}

int eg_handle_GROUP_OFFSETS(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    enum { ENTRY = 2 + EG_TOPIC_NAME_MAX + 4 + 8 * 5 + 1 + 2 + EG_METADATA_MAX, SLICE_NS = 200 * EG_NS_PER_US };
    char name[NAME_CAP];
    (void)s;
    eg_dec_str(in, name, sizeof(name));
    uint32_t skip = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return malformed("GROUP_OFFSETS");
    struct eg_group *g = eg_group_find(d, name);
    if (g == NULL)
        return eg_error_set(EAGRE_E_UNKNOWN_GROUP, "there is no group '%.249s'", name);
    if (skip == 0)
        collect_all(d, g);
    struct walk w = {.g = g};
    struct held *held = list_held(g, &w.held_count);
    if (held == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory to list its partitions", g->name);
    w.held = held;
    uint16_t count = 0;
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    size_t count_at = r->out->used;
    eg_enc_u16(r->out, 0);
    struct entry e;
    bool more = false;
    int64_t stop = eg_mono_ns() + SLICE_NS;
    for (uint32_t k = 0; !more && next_entry(d, &w, &e); k++) {
        if (k < skip)
            continue;
        /* A chain may be long, and there may be many: what does not fit this slice is asked for again. */
        int64_t end = 0;
        do {
            if (e.p->buffers != NULL && !eg_partition_failed(e.p))
                (void)eg_slots_follow(e.p, eg_mono_ns());
            end = eg_partition_end(e.p);
            more = room(r) < ENTRY || (eg_mono_ns() >= stop && (count > 0 || !e.p->end_found));
        } while (!more && !e.p->end_found);
        if (more)
            break;
        encode_entry(g, r->out, &e, end);
        count++;
    }
    free(held);
    eg_enc_patch_u8(r->out, more_at, more);
    eg_enc_patch_u16(r->out, count_at, count);
    return EAGRE_OK;
}
