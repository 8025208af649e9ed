/* group_messages.c - what members and tools ask of groups: decoded, done, answered. Offsets: offset_messages.c. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clients.h"
#include "groups.h"
#include "handlers.h"
#include "sys/errbuf.h"
#include "topics.h"

#define NAME_CAP 1024 /* longer than a valid one, so that the error can be about the name */

static int malformed(const char *what) { return eg_error_set(EAGRE_E_PROTOCOL, "a malformed %s", what); }

static size_t room(const struct eg_reply *r) { return r->out->cap - r->out->used; }

/* It will stand in logs and on terminals. */
static void make_printable(char *text) {
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
            *text = '?';
}

/* ---- join ----------------------------------------------------------------------------------------------------- */

static bool decode_join(struct eg_dec *in, char *group, uint8_t *type, struct eg_join *j) {
    eg_dec_str(in, group, NAME_CAP);
    *type = eg_dec_u8(in);
    eg_dec_str(in, j->instance_id, sizeof(j->instance_id));
    eg_dec_str(in, j->client_id, sizeof(j->client_id));
    uint8_t n = eg_dec_u8(in);
    if (n > EG_STRATEGIES_MAX)
        return false;
    for (uint8_t i = 0; i < n; i++) {
        j->strategy[i] = eg_dec_u8(in);
        if (eg_assignor_name(j->strategy[i]) == NULL)
            return false;
    }
    j->max_poll_ms = eg_dec_u32(in);
    j->session_ms = eg_dec_u32(in);
    j->commit_ms = eg_dec_u32(in);
    j->node = eg_dec_u32(in);
    return eg_dec_end(in) && *type <= EG_GROUP_SHARE && (n > 0 || *type == EG_GROUP_SHARE);
}

int eg_handle_GROUP_JOIN(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char group[NAME_CAP];
    uint8_t type;
    struct eg_join j = {.node = UINT32_MAX};
    struct eg_group *g = NULL;
    struct eg_member *m = NULL;
    if (!decode_join(in, group, &type, &j))
        return malformed("GROUP_JOIN");
    make_printable(j.instance_id);
    make_printable(j.client_id);
    if (s->client == NULL)
        return eg_error_set(EAGRE_E_STATE, "GROUP_JOIN before ATTACH");
    if (j.max_poll_ms == 0)
        return eg_error_set(EAGRE_E_INVALID_CONFIG, "max.poll.interval.ms=0 is not possible: it must be at least 1");
    int rc = eg_quota_check(d, s->client->account, EG_QUOTA_MEMBERS, 1); /* before a group is made for it */
    if (rc == EAGRE_OK || j.instance_id[0] != '\0')
        rc = eg_group_need(d, group, (enum eg_group_type)type, s->uid, &g);
    if (rc == EAGRE_OK)
        rc = eg_member_join(d, g, s->client, &j, &m);
    if (rc != EAGRE_OK)
        return rc;
    eg_enc_u64(r->out, m->id);
    eg_enc_u16(r->out, (uint16_t)m->number);
    eg_enc_u32(r->out, g->uid);
    r->fds[r->nfds++] = m->page_fd;
    return EAGRE_OK;
}

/* ---- subscribe -------------------------------------------------------------------------------------------------- */

enum { FIRST_PART = 1, LAST_PART = 2, FROM_PATTERN = 4 };

static int add_name(struct eg_daemon *d, struct eg_session *s, struct eg_member *m, const char *name, bool pattern) {
    struct eg_topic *t = NULL;
    int rc = eg_topic_find(d, name, &t);
    if (rc == EAGRE_OK)
        rc = eg_topic_check_role(s, t, EG_ROLE_CONSUMER);
    if (rc != EAGRE_OK)
        return pattern ? EAGRE_OK : rc;
    return eg_member_add_coming(d, m, name);
}

int eg_handle_GROUP_SUBSCRIBE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_member *m = NULL;
    (void)r;
    uint64_t id = eg_dec_u64(in);
    uint8_t flags = eg_dec_u8(in);
    size_t n = eg_dec_u16(in);
    struct eg_dec names = *in;
    for (size_t i = 0; i < n && !in->bad; i++)
        eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in) || (flags & ~(FIRST_PART | LAST_PART | FROM_PATTERN)) != 0)
        return malformed("GROUP_SUBSCRIBE");
    int rc = eg_member_find(d, s->client, id, &m);
    if (rc != EAGRE_OK)
        return rc;
    if ((flags & FIRST_PART) != 0)
        eg_member_forget_coming(d, m);
    else if (!m->coming_began)
        return eg_error_set(EAGRE_E_STATE, "group '%s': a subscription without its first part: another daemon was told that",
                            m->group->name);
    m->coming_began = true;
    for (size_t i = 0; i < n && rc == EAGRE_OK; i++) {
        eg_dec_str(&names, name, sizeof(name));
        rc = add_name(d, s, m, name, (flags & FROM_PATTERN) != 0);
    }
    if (rc != EAGRE_OK)
        eg_member_forget_coming(d, m);
    else if ((flags & LAST_PART) != 0)
        rc = eg_member_subscribe(d, m, (flags & FROM_PATTERN) != 0);
    return rc;
}

/* ---- sync --------------------------------------------------------------------------------------------------------- */

/* A list of partitions, topic by topic, from the skip-th on, as far as it fits. */
struct list {
    struct eg_reply *r;
    struct eg_group *group;
    uint32_t skip;
    size_t topics_at, count_at; /* where the counts stand */
    uint16_t topics, count;
    const struct eg_topic *topic; /* the present one */
    uint64_t sum;                 /* of all of it */
    bool full;
};

static void list_end_topic(struct list *l) {
    if (l->topic != NULL)
        eg_enc_patch_u16(l->r->out, l->count_at, l->count);
}

static void list_add(struct list *l, const struct eg_topic *t, uint32_t partition, uint32_t cell) {
    enum { TOPIC = 4 + 2 + EG_TOPIC_NAME_MAX + 2, PARTITION = 4 + 4 + 8 + 1 };
    l->sum = (l->sum ^ ((uint64_t)t->meta.uid << 32 | partition)) * UINT64_C(1099511628211); /* FNV-1a, a number at a time */
    if (l->full)
        return;
    if (l->skip > 0) {
        l->skip--;
        return;
    }
    if (room(l->r) < TOPIC + PARTITION) {
        l->full = true;
        return;
    }
    if (t != l->topic) {
        list_end_topic(l);
        eg_enc_u32(l->r->out, t->meta.uid);
        eg_enc_str(l->r->out, eg_topic_name(t));
        l->count_at = l->r->out->used;
        eg_enc_u16(l->r->out, 0);
        l->count = 0;
        l->topic = t;
        l->topics++;
    }
    const struct eg_committed *c = eg_offset_find(l->group, t->meta.uid, partition);
    eg_enc_u32(l->r->out, partition);
    eg_enc_u32(l->r->out, cell);
    eg_enc_i64(l->r->out, c != NULL ? c->offset : -1);
    eg_enc_u8(l->r->out, (uint8_t)(c != NULL ? c->flags : 0));
    l->count++;
}

static void list_given(struct eg_daemon *d, const struct eg_member *m, struct list *l) {
    const struct eg_topic *t = NULL;
    for (size_t i = 0; i < m->given_count; i++) {
        const struct eg_given *v = &m->given[i];
        if (t == NULL || t->meta.uid != v->topic_uid)
            t = eg_topic_by_uid(d, v->topic_uid); /* NULL: gone just now; a new version will say so */
        if (t != NULL && !v->leaving)
            list_add(l, t, v->partition, v->cell);
    }
}

static void list_shared(struct eg_daemon *d, const struct eg_member *m, struct list *l) {
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct eg_topic *t = eg_topic_by_name(d, m->topics[i]);
        for (uint32_t p = 0; t != NULL && p < t->partitions; p++)
            list_add(l, t, p, 0);
    }
}

int eg_handle_GROUP_SYNC(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    struct eg_member *m = NULL;
    uint64_t id = eg_dec_u64(in);
    uint32_t applied = eg_dec_u32(in), skip = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return malformed("GROUP_SYNC");
    int rc = eg_member_find(d, s->client, id, &m);
    if (rc == EAGRE_OK)
        rc = eg_member_applied(d, m, applied);
    if (rc == EAGRE_OK && m->untold)
        rc = eg_error_set(EAGRE_E_BUSY, "group '%s': what its members get cannot be noted on disk now: try again",
                          m->group->name);
    if (rc != EAGRE_OK)
        return rc;
    struct list l = {.r = r, .group = m->group, .skip = skip, .sum = UINT64_C(1469598103934665603)};
    size_t version_at = r->out->used;
    eg_enc_u32(r->out, m->version);
    eg_enc_u32(r->out, m->generation);
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    l.topics_at = r->out->used;
    eg_enc_u16(r->out, 0);
    if (m->group->type == EG_GROUP_SHARE)
        list_shared(d, m, &l);
    else
        list_given(d, m, &l);
    list_end_topic(&l);
    if (skip == 0)
        m->list_sum = l.sum;
    if (l.sum != m->list_sum) { /* a topic has gone since the part before: of this list it knows no beginning */
        r->out->used = version_at;
        eg_enc_u32(r->out, 0);
        eg_enc_u32(r->out, m->generation);
        eg_enc_u8(r->out, 0);
        eg_enc_u16(r->out, 0);
        return EAGRE_OK;
    }
    eg_enc_patch_u8(r->out, more_at, l.full);
    eg_enc_patch_u16(r->out, l.topics_at, l.topics);
    return EAGRE_OK;
}

int eg_handle_GROUP_LEAVE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    struct eg_member *m = NULL;
    (void)r;
    uint64_t id = eg_dec_u64(in);
    uint8_t how = eg_dec_u8(in);
    if (!eg_dec_end(in) || how > 1)
        return malformed("GROUP_LEAVE");
    int rc = eg_member_find(d, s->client, id, &m);
    if (rc == EAGRE_OK)
        eg_member_leave(d, m, how == 1);
    return rc;
}

/* ---- tools ---------------------------------------------------------------------------------------------------------- */

static int find_group(struct eg_daemon *d, const char *name, struct eg_group **out) {
    struct eg_group *g = eg_group_find(d, name);
    if (g == NULL)
        return eg_error_set(EAGRE_E_UNKNOWN_GROUP, "there is no group '%.250s'", name);
    *out = g;
    return EAGRE_OK;
}

int eg_handle_GROUP_LIST(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    enum { ENTRY = 2 + EG_GROUP_NAME_MAX + 1 + 1 + 4 + 4 + 4 };
    char after[NAME_CAP];
    uint16_t count = 0;
    (void)s;
    eg_dec_str(in, after, sizeof(after));
    if (!eg_dec_end(in))
        return malformed("GROUP_LIST");
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    size_t count_at = r->out->used;
    eg_enc_u16(r->out, 0);
    size_t i = eg_group_place_after(d, after);
    for (; i < d->groups->count && room(r) >= ENTRY; i++, count++) {
        const struct eg_group *g = d->groups->list[i];
        eg_enc_str(r->out, g->name);
        eg_enc_u8(r->out, (uint8_t)g->type);
        eg_enc_u8(r->out, (uint8_t)g->state);
        eg_enc_u32(r->out, (uint32_t)g->member_count);
        eg_enc_u32(r->out, g->generation);
        eg_enc_u32(r->out, g->owner_uid);
    }
    eg_enc_patch_u8(r->out, more_at, i < d->groups->count);
    eg_enc_patch_u16(r->out, count_at, count);
    return EAGRE_OK;
}

static uint32_t partitions_of(struct eg_daemon *d, const struct eg_member *m) {
    uint32_t n = 0;
    if (m->group->type != EG_GROUP_SHARE)
        return (uint32_t)(m->given_count - m->leaving);
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct eg_topic *t = eg_topic_by_name(d, m->topics[i]);
        n += t != NULL ? t->partitions : 0;
    }
    return n;
}

/* False: it does not fit any more. */
static bool describe_member(struct eg_daemon *d, const struct eg_member *m, struct eg_reply *r, bool first) {
    size_t fixed = 8 + 2 + strlen(m->client_id) + 2 + strlen(m->instance_id) + 4 * 4 + 2, topics = 0;
    for (size_t i = 0; i < m->topic_count; i++)
        topics += 2 + strlen(m->topics[i]);
    if (room(r) < fixed + (first ? 0 : topics))
        return false;
    eg_enc_u64(r->out, m->id);
    eg_enc_str(r->out, m->client_id);
    eg_enc_str(r->out, m->instance_id);
    eg_enc_u32(r->out, m->client != NULL ? m->pid : 0);
    eg_enc_u32(r->out, m->uid);
    eg_enc_u32(r->out, m->node);
    eg_enc_u32(r->out, partitions_of(d, m));
    size_t count_at = r->out->used;
    uint16_t count = 0;
    eg_enc_u16(r->out, 0);
    for (; count < m->topic_count && room(r) >= 2 + strlen(m->topics[count]); count++)
        eg_enc_str(r->out, m->topics[count]);
    eg_enc_patch_u16(r->out, count_at, count);
    return true;
}

int eg_handle_GROUP_DESCRIBE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_group *g = NULL;
    (void)s;
    eg_dec_str(in, name, sizeof(name));
    uint32_t skip = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return malformed("GROUP_DESCRIBE");
    int rc = find_group(d, name, &g);
    if (rc != EAGRE_OK)
        return rc;
    const char *assignor = g->type == EG_GROUP_CONSUMER ? eg_assignor_name((int)g->assignor) : NULL;
    eg_enc_u8(r->out, (uint8_t)g->type);
    eg_enc_u8(r->out, (uint8_t)g->state);
    eg_enc_u32(r->out, g->generation);
    eg_enc_str(r->out, assignor != NULL ? assignor : "");
    eg_enc_u32(r->out, g->owner_uid);
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    size_t count_at = r->out->used;
    eg_enc_u16(r->out, 0);
    uint16_t count = 0;
    const struct eg_member *m = g->members;
    for (; m != NULL && skip > 0; skip--)
        m = m->next;
    for (; m != NULL && describe_member(d, m, r, count == 0); m = m->next)
        count++;
    eg_enc_patch_u8(r->out, more_at, m != NULL);
    eg_enc_patch_u16(r->out, count_at, count);
    return EAGRE_OK;
}

int eg_handle_GROUP_DELETE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_group *g = NULL;
    (void)r;
    eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in))
        return malformed("GROUP_DELETE");
    int rc = find_group(d, name, &g);
    if (rc == EAGRE_OK)
        rc = eg_group_check_access(d, g, s->uid);
    return rc == EAGRE_OK ? eg_group_delete(d, g) : rc;
}
