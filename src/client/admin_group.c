/* admin_group.c - groups and their offsets, from outside. */
#include "eagre/admin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/talk.h"
#include "layout/group.h"

#define AGAIN_MAX 8 /* times that a group changed while it was described */

static_assert((int)EAGRE_GROUP_EMPTY == (int)EG_GROUP_EMPTY && (int)EAGRE_GROUP_STABLE == (int)EG_GROUP_STABLE &&
                  (int)EAGRE_GROUP_REBALANCING == (int)EG_GROUP_REBALANCING,
              "states");
static_assert((int)EAGRE_GROUP_CONSUMER == (int)EG_GROUP_CONSUMER && (int)EAGRE_GROUP_SHARE == (int)EG_GROUP_SHARE,
              "types");

static int check_name(const eagre_t *e, const char *group) {
    if (e == NULL || group == NULL)
        return eg_error_set(EAGRE_E_INVALID, "the instance and the group's name must not be NULL");
    size_t n = strlen(group);
    if (n == 0 || n > EG_GROUP_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID, "a group's name has 1 to %u bytes, this one has %zu", EG_GROUP_NAME_MAX, n);
    return EAGRE_OK;
}

/* A new request that begins with a name. */
static struct eg_talk *ask_about(uint16_t type, const char *name) {
    struct eg_talk *t = eg_talk_begin(type);
    if (t != NULL)
        eg_enc_str(&t->req, name);
    return t;
}

static bool known(uint8_t type, uint8_t state) { return type <= EG_GROUP_SHARE && state <= EG_GROUP_STABLE; }

/* ---- list --------------------------------------------------------------------------------------------- */

static int read_groups(struct eg_talk *t, struct eg_list *l, bool *more) {
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_group_entry_t *g = eg_list_add(l);
        if (g == NULL)
            return EAGRE_E_NO_MEMORY;
        eg_dec_str(&t->reply, g->name, sizeof(g->name));
        uint8_t type = eg_dec_u8(&t->reply), state = eg_dec_u8(&t->reply);
        g->type = (eagre_group_type_t)type;
        g->state = (eagre_group_state_t)state;
        g->members = eg_dec_u32(&t->reply);
        g->generation = eg_dec_u32(&t->reply);
        g->uid = eg_dec_u32(&t->reply);
        if (!known(type, state))
            return eg_talk_malformed("GROUP_LIST");
    }
    /* More of nothing would never end. */
    return eg_dec_end(&t->reply) && !(*more && n == 0) ? EAGRE_OK : eg_talk_malformed("GROUP_LIST");
}

int eagre_group_list(eagre_t *e, eagre_group_entry_t **out, size_t *count) {
    if (e == NULL || out == NULL || count == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_group_list: an argument is NULL");
    struct eg_list l = {.item = sizeof(eagre_group_entry_t)};
    bool more = true;
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK && more) {
        eagre_group_entry_t *entries = l.items;
        struct eg_talk *t = ask_about(EG_MSG_GROUP_LIST, l.count == 0 ? "" : entries[l.count - 1].name);
        rc = t == NULL ? EAGRE_E_NO_MEMORY : eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_groups(t, &l, &more);
        free(t);
    }
    if (rc != EAGRE_OK) {
        free(l.items);
        return rc;
    }
    *out = l.items;
    *count = l.count;
    return EAGRE_OK;
}

/* ---- describe ------------------------------------------------------------------------------------------ */

static void free_members(eagre_group_member_t *members, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(members[i].topics);
    free(members);
}

void eagre_group_info_free(eagre_group_info_t *info) {
    if (info == NULL)
        return;
    free_members(info->members, info->member_count);
    free(info);
}

static int read_member(struct eg_talk *t, eagre_group_member_t *m) {
    struct eg_list topics = {.item = sizeof(*m->topics)};
    int rc = EAGRE_OK;
    m->member = eg_dec_u64(&t->reply);
    eg_talk_text(t, m->client_id, sizeof(m->client_id));
    eg_talk_text(t, m->instance_id, sizeof(m->instance_id));
    m->pid = (int32_t)eg_dec_u32(&t->reply);
    m->uid = eg_dec_u32(&t->reply);
    m->node = (int32_t)eg_dec_u32(&t->reply);
    m->partitions = eg_dec_u32(&t->reply);
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        char *name = eg_list_add(&topics);
        if (name == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eg_dec_str(&t->reply, name, sizeof(*m->topics));
    }
    m->topics = topics.items;
    m->topic_count = topics.count;
    return rc;
}

/* One page. *changed: it is of another generation than the pages before. */
static int read_description(struct eg_talk *t, eagre_group_info_t *info, struct eg_list *l, bool *more, bool *changed) {
    uint8_t type = eg_dec_u8(&t->reply), state = eg_dec_u8(&t->reply);
    uint32_t generation = eg_dec_u32(&t->reply);
    *changed = l->count > 0 && generation != info->generation;
    info->type = (eagre_group_type_t)type;
    info->state = (eagre_group_state_t)state;
    info->generation = generation;
    eg_talk_text(t, info->assignor, sizeof(info->assignor));
    info->uid = eg_dec_u32(&t->reply);
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_group_member_t *m = eg_list_add(l);
        int rc = m == NULL ? EAGRE_E_NO_MEMORY : read_member(t, m);
        if (rc != EAGRE_OK)
            return rc;
    }
    bool good = eg_dec_end(&t->reply) && !(*more && n == 0) && known(type, state);
    return good ? EAGRE_OK : eg_talk_malformed("GROUP_DESCRIBE");
}

/* Members come in pages, by their place in the group; if that has changed between two pages the places may have, too. */
static int describe(eagre_t *e, eagre_group_info_t *info, struct eg_list *l) {
    bool more = true;
    int rc = EAGRE_OK;
    for (int again = 0; rc == EAGRE_OK && more;) {
        bool changed = false;
        struct eg_talk *t = ask_about(EG_MSG_GROUP_DESCRIBE, info->name);
        if (t == NULL)
            return EAGRE_E_NO_MEMORY;
        eg_enc_u32(&t->req, (uint32_t)l->count);
        rc = eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_description(t, info, l, &more, &changed);
        free(t);
        if (rc == EAGRE_OK && changed && again++ < AGAIN_MAX) {
            free_members(l->items, l->count);
            *l = (struct eg_list){.item = l->item};
            more = true;
        }
    }
    return rc;
}

int eagre_group_describe(eagre_t *e, const char *group, eagre_group_info_t **out) {
    int rc = check_name(e, group);
    if (rc != EAGRE_OK)
        return rc;
    if (out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_group_describe: out is NULL");
    eagre_group_info_t *info = calloc(1, sizeof(*info));
    if (info == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': %s", group, strerror(errno));
    memcpy(info->name, group, strlen(group) + 1);
    struct eg_list l = {.item = sizeof(eagre_group_member_t)};
    rc = describe(e, info, &l);
    info->members = l.items;
    info->member_count = l.count;
    if (rc != EAGRE_OK) {
        eagre_group_info_free(info);
        return rc;
    }
    *out = info;
    return EAGRE_OK;
}

/* ---- offsets -------------------------------------------------------------------------------------------- */

/* What is read: entries; texts one behind the other, and where in them each entry's begins. */
struct offsets {
    struct eg_list entries, places, texts;
};

static int add_text(struct offsets *o, const char *text) {
    size_t n = strlen(text) + 1;
    size_t *place = eg_list_add(&o->places);
    if (place == NULL)
        return EAGRE_E_NO_MEMORY;
    char *more = realloc(o->texts.items, o->texts.count + n);
    if (more == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "control answer: %s", strerror(errno));
    memcpy(more + o->texts.count, text, n);
    *place = o->texts.count;
    o->texts.items = more;
    o->texts.count += n;
    return EAGRE_OK;
}

static int read_offsets(struct eg_talk *t, struct offsets *o, bool *more) {
    char metadata[EG_METADATA_MAX + 1];
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_group_offset_t *p = eg_list_add(&o->entries);
        if (p == NULL)
            return EAGRE_E_NO_MEMORY;
        eg_dec_str(&t->reply, p->topic, sizeof(p->topic));
        p->partition = (int32_t)eg_dec_u32(&t->reply);
        p->committed = eg_dec_i64(&t->reply);
        p->log_start = eg_dec_i64(&t->reply);
        p->end = eg_dec_i64(&t->reply);
        p->member = eg_dec_u64(&t->reply);
        p->time_ms = eg_dec_i64(&t->reply);
        p->clamped = (eg_dec_u8(&t->reply) & EG_OFFSET_CLAMPED) != 0;
        eg_dec_str(&t->reply, metadata, sizeof(metadata));
        if (p->committed < -1 || p->log_start < 0 || p->end < 0)
            return eg_talk_malformed("GROUP_OFFSETS");
        p->lag = p->committed < 0 ? -1 : p->end > p->committed ? p->end - p->committed : 0;
        int rc = add_text(o, metadata);
        if (rc != EAGRE_OK)
            return rc;
    }
    return eg_dec_end(&t->reply) && !(*more && n == 0) ? EAGRE_OK : eg_talk_malformed("GROUP_OFFSETS");
}

/* The texts behind the entries, in one block with them. */
static int join(struct offsets *o, eagre_group_offset_t **out) {
    size_t bytes = o->entries.count * sizeof(eagre_group_offset_t);
    const size_t *places = o->places.items;
    eagre_group_offset_t *all = realloc(o->entries.items, bytes + o->texts.count + 1);
    if (all == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "control answer: %s", strerror(errno));
    o->entries.items = all;
    if (o->texts.count > 0)
        memcpy((char *)all + bytes, o->texts.items, o->texts.count);
    for (size_t i = 0; i < o->entries.count; i++)
        all[i].metadata = (const char *)all + bytes + places[i];
    *out = all;
    return EAGRE_OK;
}

int eagre_group_offsets(eagre_t *e, const char *group, eagre_group_offset_t **out, size_t *count) {
    int rc = check_name(e, group);
    if (rc != EAGRE_OK)
        return rc;
    if (out == NULL || count == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_group_offsets: an argument is NULL");
    struct offsets o = {.entries.item = sizeof(eagre_group_offset_t), .places.item = sizeof(size_t)};
    for (bool more = true; rc == EAGRE_OK && more;) {
        struct eg_talk *t = ask_about(EG_MSG_GROUP_OFFSETS, group);
        if (t == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eg_enc_u32(&t->req, (uint32_t)o.entries.count);
        rc = eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_offsets(t, &o, &more);
        free(t);
    }
    if (rc == EAGRE_OK)
        rc = join(&o, out);
    if (rc == EAGRE_OK)
        *count = o.entries.count;
    else
        free(o.entries.items);
    free(o.places.items);
    free(o.texts.items);
    return rc;
}

/* ---- put, delete ----------------------------------------------------------------------------------------- */

static int check_put(const char *group, const eagre_topic_partition_t *list, size_t n) {
    if (n > 0 && list == NULL)
        return eg_error_set(EAGRE_E_INVALID, "group '%s': no offsets are given", group);
    for (size_t i = 0; i < n; i++) {
        const eagre_topic_partition_t *p = &list[i];
        if (p->topic == NULL || strlen(p->topic) > EG_TOPIC_NAME_MAX || p->partition < 0 || p->offset < -1)
            return eg_error_set(EAGRE_E_INVALID,
                                "group '%s': entry %zu has no topic, one of more than %u bytes, or partition %d or offset %lld",
                                group, i + 1, EG_TOPIC_NAME_MAX, (int)p->partition, (long long)p->offset);
        if (p->metadata != NULL && strlen(p->metadata) > EG_METADATA_MAX)
            return eg_error_set(EAGRE_E_INVALID, "group '%s', topic '%s' partition %d: metadata of %zu bytes: %u at most", group,
                                p->topic, (int)p->partition, strlen(p->metadata), EG_METADATA_MAX);
    }
    return EAGRE_OK;
}

/* As many as a message holds; how many that were. */
static size_t write_offsets(struct eg_talk *t, const eagre_topic_partition_t *list, size_t n) {
    size_t at = t->req.used, i = 0;
    eg_enc_u16(&t->req, 0);
    for (; i < n && i < UINT16_MAX; i++) {
        const char *metadata = list[i].metadata != NULL ? list[i].metadata : "";
        size_t need = 2 + strlen(list[i].topic) + 4 + 8 + 2 + strlen(metadata);
        if (need > t->req.cap - t->req.used)
            break;
        eg_enc_str(&t->req, list[i].topic);
        eg_enc_u32(&t->req, (uint32_t)list[i].partition);
        eg_enc_i64(&t->req, list[i].offset);
        eg_enc_str(&t->req, metadata);
    }
    eg_enc_patch_u16(&t->req, at, (uint16_t)i);
    return i;
}

int eagre_group_put(eagre_t *e, const char *group, eagre_group_type_t type, const eagre_topic_partition_t *list, size_t n) {
    int rc = check_name(e, group);
    if (rc == EAGRE_OK && type > EAGRE_GROUP_SHARE)
        rc = eg_error_set(EAGRE_E_INVALID, "group '%s': type %d", group, (int)type);
    if (rc == EAGRE_OK)
        rc = check_put(group, list, n);
    size_t done = 0;
    do {
        struct eg_talk *t = rc == EAGRE_OK ? ask_about(EG_MSG_GROUP_PUT, group) : NULL;
        if (t == NULL)
            return rc == EAGRE_OK ? EAGRE_E_NO_MEMORY : rc;
        eg_enc_u8(&t->req, (uint8_t)type);
        done += write_offsets(t, list + done, n - done);
        rc = eg_talk_send(t, e);
        free(t);
    } while (rc == EAGRE_OK && done < n);
    return rc;
}

int eagre_group_delete(eagre_t *e, const char *group) {
    int rc = check_name(e, group);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_talk *t = ask_about(EG_MSG_GROUP_DELETE, group);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    rc = eg_talk_send(t, e);
    free(t);
    return rc;
}
