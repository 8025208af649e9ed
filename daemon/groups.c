#include "groups.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "members_store.h"
#include "meta_groups.h"
#include "shares.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

/* ---- the table, by name and by uid --------------------------------------------------------------------- */

static size_t place_of(const struct eg_groups *all, const char *name, bool *found) {
    size_t low = 0, high = all->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(all->list[middle]->name, name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t place_of_uid(const struct eg_groups *all, uint32_t uid) {
    size_t low = 0, high = all->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (all->by_uid[middle]->uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct eg_group *eg_group_find(struct eg_daemon *d, const char *name) {
    bool found;
    size_t at = place_of(d->groups, name, &found);
    return found ? d->groups->list[at] : NULL;
}

struct eg_group *eg_group_by_uid(struct eg_daemon *d, uint32_t uid) {
    const struct eg_groups *all = d->groups;
    size_t at = place_of_uid(all, uid);
    return at < all->count && all->by_uid[at]->uid == uid ? all->by_uid[at] : NULL;
}

size_t eg_group_place_after(struct eg_daemon *d, const char *name) {
    bool found;
    size_t at = place_of(d->groups, name, &found);
    return at + found;
}

static int reserve(struct eg_groups *all) {
    if (all->count < all->cap)
        return EAGRE_OK;
    size_t cap = all->cap == 0 ? 16 : 2 * all->cap;
    struct eg_group **list = realloc(all->list, cap * sizeof(struct eg_group *));
    if (list != NULL)
        all->list = list;
    struct eg_group **by_uid = list != NULL ? realloc(all->by_uid, cap * sizeof(struct eg_group *)) : NULL;
    if (by_uid == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for one group more");
    all->by_uid = by_uid;
    all->cap = cap;
    return EAGRE_OK;
}

static void put_in(struct eg_group **list, size_t count, size_t at, struct eg_group *g) {
    memmove(&list[at + 1], &list[at], (count - at) * sizeof(struct eg_group *));
    list[at] = g;
}

static void take_out(struct eg_group **list, size_t count, size_t at) {
    memmove(&list[at], &list[at + 1], (count - at - 1) * sizeof(struct eg_group *));
}

static struct eg_group *group_new(struct eg_daemon *d, const struct eg_meta_group *meta) {
    struct eg_group *g = calloc(1, sizeof(*g));
    if (g == NULL || (g->account = eg_account_take(d, meta->owner_uid)) == NULL) {
        free(g);
        eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory", meta->name);
        return NULL;
    }
    memcpy(g->name, meta->name, sizeof(g->name));
    g->uid = meta->uid;
    g->type = (enum eg_group_type)meta->type;
    g->owner_uid = meta->owner_uid;
    g->generation = g->noted_generation = meta->generation;
    return g;
}

static void group_free(struct eg_daemon *d, struct eg_group *g) {
    eg_offsets_free(g);
    eg_target_free(g->target);
    eg_account_put(d, g->account);
    free(g);
}

/* Room was reserved. */
static void list_add(struct eg_daemon *d, struct eg_group *g) {
    struct eg_groups *all = d->groups;
    bool found;
    put_in(all->list, all->count, place_of(all, g->name, &found), g);
    put_in(all->by_uid, all->count, place_of_uid(all, g->uid), g);
    all->count++;
    g->account->used[EG_QUOTA_GROUPS]++;
    d->figures.groups++;
}

static void list_remove(struct eg_daemon *d, struct eg_group *g) {
    struct eg_groups *all = d->groups;
    bool found;
    take_out(all->list, all->count, place_of(all, g->name, &found));
    take_out(all->by_uid, all->count, place_of_uid(all, g->uid));
    all->count--;
    g->account->used[EG_QUOTA_GROUPS]--;
    d->figures.groups--;
}

/* ---- what may be done with a group ---------------------------------------------------------------------- */

/* Kafka takes any name. One that does not mangle a log or a terminal is enough. */
static int check_name(const char *name) {
    size_t n = strlen(name);
    if (n == 0)
        return eg_error_set(EAGRE_E_INVALID, "a group's name must not be empty");
    if (n > EG_GROUP_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID, "group '%.40s...': a name has at most %u characters, this one %zu", name,
                            EG_GROUP_NAME_MAX, n);
    for (size_t i = 0; i < n; i++)
        if (name[i] < ' ' || name[i] > '~')
            return eg_error_set(EAGRE_E_INVALID,
                                "a group's name consists of printable ASCII characters; character %zu is none", i + 1);
    return EAGRE_OK;
}

int eg_group_check_access(const struct eg_daemon *d, const struct eg_group *g, uint32_t uid) {
    (void)d;
    if (uid == g->owner_uid || uid == 0 || uid == geteuid())
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_PERMISSION,
                        "group '%s' belongs to user %u, who made it: user %u may not join or change it", g->name,
                        g->owner_uid, uid);
}

static const char *type_name(enum eg_group_type type) {
    return type == EG_GROUP_SHARE ? "share" : "consumer";
}

static int make(struct eg_daemon *d, const char *name, enum eg_group_type type, uint32_t uid, struct eg_group **out) {
    struct eg_meta_group meta = {.type = (uint32_t)type, .owner_uid = uid};
    strcpy(meta.name, name);
    int rc = reserve(d->groups);
    if (rc != EAGRE_OK)
        return rc;
    if (d->groups->count >= d->config.groups_max)
        return eg_error_set(EAGRE_E_LIMIT, "group '%s': groups.max=%u is reached: delete groups, or raise it", name,
                            d->config.groups_max);
    struct eg_group *g = group_new(d, &meta);
    if (g == NULL)
        return EAGRE_E_NO_MEMORY;
    rc = eg_quota_check(d, g->account, EG_QUOTA_GROUPS, 1);
    if (rc == EAGRE_OK)
        rc = eg_meta_group_create(d->meta, &meta);
    if (rc != EAGRE_OK) {
        group_free(d, g);
        return eg_error_add(rc, "group '%s'", name);
    }
    g->uid = meta.uid;
    list_add(d, g);
    eg_log_info("%s group '%s' made by user %u: id %u", type_name(type), name, uid, g->uid);
    *out = g;
    return EAGRE_OK;
}

int eg_group_need(struct eg_daemon *d, const char *name, enum eg_group_type type, uint32_t uid, struct eg_group **out) {
    int rc = check_name(name);
    struct eg_group *g = rc == EAGRE_OK ? eg_group_find(d, name) : NULL;
    if (g == NULL)
        return rc == EAGRE_OK ? make(d, name, type, uid, out) : rc;
    rc = eg_group_check_access(d, g, uid);
    if (rc == EAGRE_OK && g->type != type)
        rc = eg_error_set(EAGRE_E_INVALID_CONFIG,
                          "group '%s' is a %s group, not a %s group: choose another group.id, or group.type=%s", name,
                          type_name(g->type), type_name(type), type_name(g->type));
    if (rc == EAGRE_OK)
        *out = g;
    return rc;
}

int eg_group_delete(struct eg_daemon *d, struct eg_group *g) {
    struct eg_meta_group meta = {.uid = g->uid};
    memcpy(meta.name, g->name, sizeof(meta.name));
    if (g->member_count > 0)
        return eg_error_set(EAGRE_E_GROUP_ACTIVE, "group '%s' has %zu members: close its consumers first", g->name,
                            g->member_count);
    if (d->groups->gone != NULL) { /* they speak of their group */
        int rc = eg_members_save(d, NULL);
        if (rc != EAGRE_OK)
            return rc;
    }
    int rc = eg_meta_group_delete(d->meta, &meta);
    if (rc != EAGRE_OK)
        return rc;
    /* What a start finds there of a group that is not in the metadata is dropped. */
    struct eg_members_store *s = d->groups->store;
    if (eg_members_store_begin(s) != EAGRE_OK || eg_members_store_remove_group(s, g->uid) != EAGRE_OK ||
        eg_members_store_commit(s) != EAGRE_OK)
        eg_log_warning("group '%s': %s", g->name, eg_error_text());
    eg_rebalance_forget(d, g);
    eg_share_group_gone(d, g, true);
    list_remove(d, g);
    eg_log_info("group '%s' deleted", g->name);
    group_free(d, g);
    return EAGRE_OK;
}

void eg_groups_topic_changed(struct eg_daemon *d, const char *name) {
    if (d->groups == NULL)
        return;
    bool subscribed = eg_name_is_used(d->groups->names, name);
    for (size_t i = 0; i < d->groups->count; i++) {
        struct eg_group *g = d->groups->list[i];
        if (subscribed && g->member_count > 0)
            eg_group_change(d, g, EG_WHY_TOPICS);
    }
    eg_members_look_again(d);
}

/* ---- the service ------------------------------------------------------------------------------------------ */

static int recover(void *ctx, const struct eg_meta_group *meta) {
    struct eg_daemon *d = ctx;
    int rc = reserve(d->groups);
    struct eg_group *g = rc == EAGRE_OK ? group_new(d, meta) : NULL;
    if (g == NULL)
        return EAGRE_E_NO_MEMORY;
    list_add(d, g);
    return EAGRE_OK;
}

static int recover_generation(void *ctx, const struct eg_stored_group *stored) {
    struct eg_group *g = eg_group_by_uid(ctx, stored->uid);
    if (g == NULL)
        return EAGRE_OK; /* deleted: what is left of it is of no use */
    if (g->generation < stored->generation)
        g->generation = stored->generation;
    g->assignor = (enum eg_assignor)stored->assignor;
    g->from_store = true;
    return EAGRE_OK;
}

/* Where the members are lost nobody knows how far the generations had come. */
static void skip_generations(struct eg_groups *all) {
    for (size_t i = 0; i < all->count; i++)
        if (!all->list[i]->from_store)
            all->list[i]->generation += EG_GENERATIONS_UNNOTED;
}

static void stop(struct eg_daemon *d, bool keep) {
    struct eg_groups *all = d->groups;
    for (size_t i = 0; all->writer != NULL && i < all->count; i++)
        eg_shares_collect(d, all->list[i]);
    if (all->writer != NULL)
        eg_offsets_stop(d);
    eg_members_forget(d);
    while (all->count > 0) {
        struct eg_group *g = all->list[0];
        eg_share_group_gone(d, g, !keep);
        list_remove(d, g);
        group_free(d, g);
    }
    eg_members_store_close(all->store);
    eg_names_close(all->names);
    free(all->list);
    free(all->by_uid);
    free(all);
    d->groups = NULL;
}

static int start(struct eg_daemon *d) {
    struct eg_groups *all = calloc(1, sizeof(*all));
    if (all == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the groups");
    all->look_ns = INT64_MAX;
    d->groups = all;
    int rc = eg_names_open(&all->names);
    if (rc == EAGRE_OK)
        rc = eg_meta_groups(d->meta, recover, d);
    if (rc == EAGRE_OK)
        rc = eg_members_store_open(d->config.dir, d->instance_id, &all->store);
    if (rc == EAGRE_OK)
        rc = eg_members_store_groups(all->store, recover_generation, d);
    if (rc == EAGRE_OK) {
        skip_generations(all);
        rc = eg_offsets_start(d);
    }
    if (rc == EAGRE_OK)
        rc = eg_shares_start(d);
    if (rc == EAGRE_OK)
        rc = eg_members_start(d);
    if (rc == EAGRE_OK)
        eg_shares_members_known(d);
    if (rc != EAGRE_OK)
        stop(d, true);
    return rc;
}

static int64_t tick(struct eg_daemon *d, int64_t now) {
    int64_t next = eg_members_tick(d, now), due = eg_rebalance_tick(d, now);
    next = due < next ? due : next;
    due = eg_shares_tick(d, now);
    next = due < next ? due : next;
    due = eg_offsets_tick(d, now);
    return due < next ? due : next;
}

const struct eg_service eg_groups_service = {.name = "groups", .start = start, .tick = tick, .stop = stop};
