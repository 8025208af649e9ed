#include "topics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive.h"
#include "clients.h"
#include "groups.h"
#include "parse.h"
#include "partition.h"
#include "recover.h"
#include "retention.h"
#include "shares.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

/* ---- the list, sorted by name -------------------------------------------------------------------- */

/* Where the name is or would be. */
static size_t place_of(const struct eg_topics *all, const char *name, bool *found) {
    size_t low = 0, high = all->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(eg_topic_name(all->list[middle]), name);
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

struct eg_topic *eg_topic_by_name(struct eg_daemon *d, const char *name) {
    bool found;
    size_t at = place_of(d->topics, name, &found);
    return found ? d->topics->list[at] : NULL;
}

size_t eg_topic_place_after(struct eg_daemon *d, const char *name) {
    bool found;
    size_t at = place_of(d->topics, name, &found);
    return at + found;
}

/* Where in by_uid it is or would be. */
static size_t place_of_uid(const struct eg_topics *all, uint32_t uid) {
    size_t low = 0, high = all->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (all->by_uid[middle]->meta.uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct eg_topic *eg_topic_by_uid(struct eg_daemon *d, uint32_t uid) {
    const struct eg_topics *all = d->topics;
    size_t at = place_of_uid(all, uid);
    return at < all->count && all->by_uid[at]->meta.uid == uid ? all->by_uid[at] : NULL;
}

static int reserve(struct eg_topics *all) {
    if (all->count < all->cap)
        return EAGRE_OK;
    size_t cap = all->cap == 0 ? 16 : 2 * all->cap;
    struct eg_topic **list = realloc(all->list, cap * sizeof(struct eg_topic *));
    if (list != NULL)
        all->list = list;
    struct eg_topic **by_uid = list != NULL ? realloc(all->by_uid, cap * sizeof(struct eg_topic *)) : NULL;
    if (by_uid == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for one topic more");
    all->by_uid = by_uid;
    all->cap = cap;
    return EAGRE_OK;
}

/* What its settings let it come to, without extra buffers. */
static uint64_t ring_buffers(const struct eg_settings *s) {
    return (uint64_t)s->v[EG_SET_PARTITIONS] * (uint64_t)s->v[EG_SET_RING_SEGMENTS];
}
static uint64_t bytes_of(const struct eg_settings *s) {
    return eg_settings_ring_bytes(s) +
           eg_topic_control_bytes(s, (uint32_t)s->v[EG_SET_PARTITIONS]);
}

/* It counts from now on with these settings; NULL: it does not count any more. */
static void charge(struct eg_daemon *d, struct eg_topic *t, const struct eg_settings *s) {
    uint64_t *used = t->account->used, bytes = s != NULL ? bytes_of(s) : 0;
    used[EG_QUOTA_BUFFERS] -= t->buffers;
    t->buffers = s != NULL ? ring_buffers(s) : 0;
    used[EG_QUOTA_BUFFERS] += t->buffers;
    used[EG_QUOTA_MEMORY] += bytes - t->committed;
    d->figures.memory_committed += bytes - t->committed;
    t->committed = bytes;
}

void eg_topic_count_extra(struct eg_daemon *d, struct eg_topic *t, int64_t buffers) {
    uint64_t bytes = (uint64_t)buffers * (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES];
    d->topics->extra_bytes += bytes;
    t->account->used[EG_QUOTA_MEMORY] += bytes;
    t->account->used[EG_QUOTA_BUFFERS] += (uint64_t)buffers;
}

static void put_in(struct eg_topic **list, size_t count, size_t at, struct eg_topic *t) {
    memmove(&list[at + 1], &list[at], (count - at) * sizeof(struct eg_topic *));
    list[at] = t;
}

static void take_out(struct eg_topic **list, size_t count, size_t at) {
    memmove(&list[at], &list[at + 1], (count - at - 1) * sizeof(struct eg_topic *));
}

/* Room was reserved. */
static void list_add(struct eg_daemon *d, struct eg_topic *t) {
    struct eg_topics *all = d->topics;
    bool found;
    put_in(all->list, all->count, place_of(all, eg_topic_name(t), &found), t);
    put_in(all->by_uid, all->count, place_of_uid(all, t->meta.uid), t);
    all->count++;
    charge(d, t, &t->settings);
    t->account->used[EG_QUOTA_TOPICS]++;
    d->figures.topics++;
}

static void list_remove(struct eg_daemon *d, struct eg_topic *t) {
    struct eg_topics *all = d->topics;
    bool found;
    take_out(all->list, all->count, place_of(all, eg_topic_name(t), &found));
    take_out(all->by_uid, all->count, place_of_uid(all, t->meta.uid));
    all->count--;
    charge(d, t, NULL);
    t->account->used[EG_QUOTA_TOPICS]--;
    d->figures.topics--;
}

static struct eg_topic *topic_new(struct eg_daemon *d, const char *name, uid_t owner) {
    struct eg_topic *t = calloc(1, sizeof(*t));
    if (t != NULL && (t->account = eg_account_take(d, owner)) == NULL) {
        free(t);
        t = NULL;
    }
    if (t == NULL)
        eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory", name);
    return t;
}

static void topic_free(struct eg_daemon *d, struct eg_topic *t, bool drop) {
    eg_topic_objects_free(d, t, drop);
    eg_account_put(d, t->account);
    free(t->clients);
    free(t);
}

/* ---- checks -------------------------------------------------------------------------------------- */

static int check_memory(struct eg_daemon *d, const struct eg_topic *t, const char *name,
                        const struct eg_settings *s) {
    char needs[32], segment[32], left[32], max[32];
    uint64_t bytes = bytes_of(s), buffers = ring_buffers(s), has = t->committed;
    /* What pins hold beyond the rings is in use as well. */
    uint64_t committed = d->figures.memory_committed - has + d->topics->extra_bytes;
    uint64_t room = committed < d->config.memory_max ? d->config.memory_max - committed : 0;
    if (bytes > has && bytes > room)
        return eg_error_set(
            EAGRE_E_NO_MEMORY,
            "topic '%s' needs %s (%" PRId64 " partitions x %" PRId64
            " segments x %s), %s of memory.max=%s is "
            "left; lower segment.bytes or raise memory.max",
            name, eg_format_size(bytes, needs, sizeof(needs)), s->v[EG_SET_PARTITIONS],
            s->v[EG_SET_RING_SEGMENTS],
            eg_format_size((uint64_t)s->v[EG_SET_SEGMENT_BYTES], segment, sizeof(segment)),
            eg_format_size(room, left, sizeof(left)),
            eg_format_size(d->config.memory_max, max, sizeof(max)));
    int rc = eg_quota_check(d, t->account, EG_QUOTA_MEMORY, bytes > has ? bytes - has : 0);
    if (rc == EAGRE_OK)
        rc = eg_quota_check(d, t->account, EG_QUOTA_BUFFERS,
                            buffers > t->buffers ? buffers - t->buffers : 0);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "topic '%s'", name);
}

static int apply(struct eg_settings *s, const char *name, const struct eg_change *changes,
                 size_t count) {
    int rc = EAGRE_OK;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++)
        rc = eg_settings_set(s, name, changes[i].name, changes[i].value, true);
    return rc == EAGRE_OK ? eg_settings_finish(s, name) : rc;
}

struct eg_partition *eg_topics_partition_by_uid(struct eg_daemon *d, uint32_t topic_uid, uint32_t number) {
    struct eg_topic *t = eg_topic_by_uid(d, topic_uid);
    return t != NULL && number < t->partitions ? t->part[number] : NULL;
}

int eg_topic_find(struct eg_daemon *d, const char *name, struct eg_topic **out) {
    int rc = eg_topic_name_check(name);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_topic *t = eg_topic_by_name(d, name);
    if (t == NULL)
        return eg_error_set(EAGRE_E_UNKNOWN_TOPIC, "there is no topic '%s'", name);
    *out = t;
    return EAGRE_OK;
}

int eg_topic_find_for_admin(struct eg_daemon *d, const struct eg_peer *peer, const char *name,
                          struct eg_topic **out) {
    struct eg_topic *t = NULL;
    int rc = eg_topic_find(d, name, &t);
    if (rc != EAGRE_OK)
        return rc;
    const struct eg_access *access = eg_settings_access(&t->settings, EG_SET_ACCESS_ADMIN);
    if (!eg_access_allows(access, peer, t->meta.owner_uid))
        return eg_error_set(EAGRE_E_PERMISSION,
                            "topic '%s': user %u may not administer it: access.admin=%s", name,
                            (unsigned)peer->uid, access->text);
    *out = t;
    return EAGRE_OK;
}

/* ---- create, alter, delete ----------------------------------------------------------------------- */

static int check_create(struct eg_daemon *d, const struct eg_peer *peer, const char *name) {
    struct eg_access access;
    int rc = eg_topic_name_check(name);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_access_parse(&access, d->config.access_create, false);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "access.create");
    if (!eg_access_allows(&access, peer, geteuid()))
        return eg_error_set(EAGRE_E_PERMISSION,
                            "topic '%s': user %u may not create topics: access.create=%s", name,
                            (unsigned)peer->uid, access.text);
    if (eg_topic_by_name(d, name) != NULL)
        return eg_error_set(EAGRE_E_TOPIC_EXISTS, "topic '%s' exists", name);
    if (d->topics->count >= d->config.topics_max)
        return eg_error_set(EAGRE_E_LIMIT,
                            "topic '%s': topics.max=%u is reached: delete topics, or raise it",
                            name, d->config.topics_max);
    return reserve(d->topics);
}

int eg_topic_create(struct eg_daemon *d, const struct eg_peer *peer, const char *name,
                    const struct eg_change *changes, size_t count, uint32_t *uid) {
    int rc = check_create(d, peer, name);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_topic *t = topic_new(d, name, peer->uid);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    strcpy(t->meta.name, name);
    t->meta.owner_uid = peer->uid;
    eg_settings_init(&t->settings);
    rc = apply(&t->settings, name, changes, count);
    /* The pool is everybody's; and a producer can take a huge page out of a buffer, which may have been the last
     * one: who reads there then gets SIGBUS. */
    if (rc == EAGRE_OK && t->settings.v[EG_SET_HUGEPAGES] == EG_HUGEPAGES_HUGETLB && peer->uid != 0 &&
        peer->uid != geteuid())
        rc = eg_error_set(EAGRE_E_PERMISSION,
                          "topic '%s': hugepages=hugetlb is for user %u and root to choose, not for user %u: use "
                          "hugepages=advise",
                          name, (unsigned)geteuid(), (unsigned)peer->uid);
    if (rc == EAGRE_OK)
        rc = eg_quota_check(d, t->account, EG_QUOTA_TOPICS, 1);
    if (rc == EAGRE_OK)
        rc = check_memory(d, t, name, &t->settings);
    if (rc == EAGRE_OK)
        rc = eg_settings_save(&t->settings, name, t->meta.settings, sizeof(t->meta.settings));
    t->meta.partitions = (uint32_t)t->settings.v[EG_SET_PARTITIONS];
    if (rc == EAGRE_OK)
        rc = eg_meta_topic_create(d->meta, &t->meta);
    if (rc != EAGRE_OK) {
        topic_free(d, t, false);
        return rc;
    }
    EG_FAULT("create.committed");
    rc = eg_topic_objects_make(d, t);
    if (rc == EAGRE_OK)
        rc = eg_topic_add_partitions(d, t, t->meta.partitions);
    if (rc != EAGRE_OK) {
        char text[EG_ERROR_TEXT_MAX];
        strcpy(text, eg_error_text());
        if (eg_meta_topic_delete(d->meta, &t->meta) != EAGRE_OK)
            eg_log_error("topic '%s' could not be made and not be taken back: %s", name,
                         eg_error_text());
        topic_free(d, t, true);
        return eg_error_set(rc, "%s", text);
    }
    EG_FAULT("create.kept");
    list_add(d, t);
    eg_log_info("topic '%s' created by user %u: id %u, %u partitions", name, (unsigned)peer->uid,
                t->meta.uid, t->partitions);
    *uid = t->meta.uid;
    eg_groups_topic_changed(d, name);
    return EAGRE_OK;
}

/* What of the new settings clients see, and what the services do by them. */
static void settings_changed(struct eg_daemon *d, struct eg_topic *t) {
    eg_topic_put_alterable(t, t->status);
    t->settings.given[EG_SET_PARTITIONS] = t->settings.v[EG_SET_PARTITIONS] != 1;
    d->topics->retention_ns = 0;
    for (uint32_t k = 0; k < t->partitions; k++)
        if (t->part[k]->buffers != NULL)
            eg_slots_wake(d, t->part[k]);
}

int eg_topic_alter(struct eg_daemon *d, const struct eg_peer *peer, const char *name,
                   const struct eg_change *changes, size_t count) {
    struct eg_topic *t = NULL;
    int rc = eg_topic_find_for_admin(d, peer, name, &t);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_settings to = t->settings;
    rc = apply(&to, name, changes, count);
    if (rc == EAGRE_OK)
        rc = eg_settings_alterable(&t->settings, &to, name);
    if (rc == EAGRE_OK)
        rc = check_memory(d, t, name, &to);
    struct eg_meta_topic meta = t->meta;
    if (rc == EAGRE_OK)
        rc = eg_settings_save(&to, name, meta.settings, sizeof(meta.settings));
    if (rc != EAGRE_OK)
        return rc;
    uint32_t partitions = (uint32_t)to.v[EG_SET_PARTITIONS];
    if (partitions > t->meta.partitions)
        rc = eg_meta_topic_grow(d->meta, &meta, partitions);
    else
        rc = eg_meta_topic_put(d->meta, &meta);
    if (rc != EAGRE_OK)
        return rc;
    bool other_consumers = strcmp(eg_settings_access(&t->settings, EG_SET_ACCESS_CONSUME)->text,
                                  eg_settings_access(&to, EG_SET_ACCESS_CONSUME)->text) != 0;
    t->meta = meta;
    t->settings = to;
    charge(d, t, &to);
    EG_FAULT("alter.committed");
    settings_changed(d, t);
    /* A failure here is made up for by the next alter or start: the store says how many there should be. */
    bool grows = partitions > t->partitions;
    if (grows)
        rc = eg_topic_add_partitions(d, t, partitions);
    if (grows || other_consumers)
        eg_groups_topic_changed(d, name);
    if (rc == EAGRE_OK)
        eg_log_info("topic '%s' altered by user %u", name, (unsigned)peer->uid);
    return rc;
}

int eg_topic_delete(struct eg_daemon *d, const struct eg_peer *peer, const char *name) {
    struct eg_topic *t = NULL;
    int rc = eg_topic_find_for_admin(d, peer, name, &t);
    if (rc == EAGRE_OK)
        rc = eg_meta_topic_delete(d->meta, &t->meta);
    if (rc != EAGRE_OK)
        return rc;
    EG_FAULT("delete.committed");
    eg_topic_mark_deleted(t->status, t->ring, t->ring_stride);
    EG_FAULT("delete.marked");
    eg_clients_ring_all(d);
    t->deleted = true;
    t->in_use = t->client_count > 0;
    eg_clients_forget_topic(d, t);
    list_remove(d, t);
    eg_log_info("topic '%s' deleted by user %u", name, (unsigned)peer->uid);
    uint32_t uid = t->meta.uid;
    bool disk = t->settings.v[EG_SET_STORAGE] == EG_STORAGE_DISK;
    topic_free(d, t, true);
    if (d->groups != NULL) {
        eg_shares_topic_gone(d, uid);
        eg_offsets_forget_topic(d, uid);
    }
    eg_groups_topic_changed(d, name);
    if (disk)
        eg_retention_forget_topic(d, uid);
    return EAGRE_OK;
}

/* ---- the service --------------------------------------------------------------------------------- */

static int recover(void *ctx, const struct eg_meta_topic *meta) {
    struct eg_daemon *d = ctx;
    int rc = reserve(d->topics);
    struct eg_topic *t = rc == EAGRE_OK ? topic_new(d, meta->name, meta->owner_uid) : NULL;
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    t->meta = *meta;
    eg_settings_init(&t->settings);
    rc = eg_settings_load(&t->settings, meta->name, meta->settings);
    t->settings.v[EG_SET_PARTITIONS] = meta->partitions;
    if (rc == EAGRE_OK && !d->fresh && !d->clients_lost) {
        rc = eg_topic_objects_take(d, t);
        uint32_t present = rc == EAGRE_OK ? eg_load_relaxed(&t->status->partitions) : 0;
        if (present > 0) {
            rc = eg_topic_add_partitions(d, t, present);
            if (rc == EAGRE_E_CORRUPT) {
                eg_topic_mark_deleted(t->status, t->ring, t->ring_stride);
                eg_topic_objects_free(d, t, true);
            } else if (rc != EAGRE_OK) { /* we fail, but the memory is good */
                eg_topic_objects_free(d, t, false);
            }
        }
        if (rc == EAGRE_E_CORRUPT) {
            eg_log_error("topic '%s' gets fresh memory, its records are lost: %s", meta->name,
                         eg_error_text());
            rc = EAGRE_OK;
        }
    }
    if (rc != EAGRE_OK) {
        topic_free(d, t, false);
        return rc;
    }
    list_add(d, t);
    return EAGRE_OK;
}

/* What a topic lacks: all memory, or partitions that it was cut off before it had. Only when all topics have
 * taken what they had: a new partition gets an index that nobody has, and theirs are told by their memory. */
static int complete(struct eg_daemon *d, struct eg_topic *t) {
    int rc = t->status == NULL ? eg_topic_objects_make(d, t) : EAGRE_OK;
    if (rc == EAGRE_OK && t->partitions < t->meta.partitions)
        rc = eg_topic_add_partitions(d, t, t->meta.partitions);
    if (rc == EAGRE_OK || t->partitions == 0)
        return rc;
    /* That there is no memory for more is no reason to lose the others. */
    eg_log_error("it has %u partitions, not %u, until it is altered or the daemon starts again: %s",
                 t->partitions, t->meta.partitions, eg_error_text());
    return EAGRE_OK;
}

static void free_all(struct eg_daemon *d) {
    for (size_t i = 0; i < d->topics->count; i++)
        topic_free(d, d->topics->list[i], false);
    free(d->topics->list);
    free(d->topics->by_uid);
    free(d->topics);
    d->topics = NULL;
}

static int start(struct eg_daemon *d) {
    d->topics = calloc(1, sizeof(*d->topics));
    if (d->topics == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the topics");
    int rc = eg_clients_open(d, &d->clients_lost);
    if (rc == EAGRE_OK)
        rc = eg_recover_all(d);
    if (rc == EAGRE_OK)
        rc = eg_meta_topics(d->meta, recover, d);
    for (size_t i = 0; rc == EAGRE_OK && i < d->topics->count; i++)
        rc = complete(d, d->topics->list[i]);
    eg_recover_free(d);
    if (rc != EAGRE_OK) {
        free_all(d);
        return rc;
    }
    eg_topics_drop_leftovers(d);
    return EAGRE_OK;
}

/* Clean stop: every log is closed at an exact end, where it will go on with new memory; what is to be on disk is
 * brought there. */
static void seal_all(struct eg_daemon *d) {
    struct eg_meta_mark *marks = malloc((d->figures.partitions + 1) * sizeof(*marks));
    struct eg_partition **sealed = malloc((d->figures.partitions + 1) * sizeof(struct eg_partition *));
    size_t count = 0, good = 0;
    /* First of all: a successor, should we be killed on the way, must not go on with a ring that is half
     * closed (bus.c); and who meets a closed slot must know why. Release; partner: clients' acquire. */
    eg_store_release(&d->bus->state, EG_BUS_STOPPED);
    EG_FAULT("stop.begun");
    for (size_t i = 0; i < d->topics->count; i++) {
        struct eg_topic *t = d->topics->list[i];
        for (uint32_t k = 0; k < t->partitions; k++) {
            if (marks != NULL && sealed != NULL && eg_partition_seal(d, t->part[k], &marks[count]))
                sealed[count++] = t->part[k];
        }
    }
    for (size_t i = 0; i < count; i++) /* all at once, and then each to its end */
        if (sealed[i]->archive != NULL && sealed[i]->buffers != NULL)
            eg_archive_hurry(d, sealed[i]);
    for (size_t i = 0; i < count; i++) {
        struct eg_partition *p = sealed[i];
        if (p->archive != NULL && p->buffers != NULL && !eg_archive_finish(d, p))
            eg_log_error("topic '%s' partition %u: not all of it could be brought to disk: records may be lost, and "
                         "offsets skip ahead at the next start",
                         eg_topic_name(p->topic), p->number);
        else
            marks[good++] = marks[i];
    }
    eg_retention_note(d);
    if (good > 0 && eg_meta_marks_put(d->meta, marks, good) != EAGRE_OK)
        eg_log_error("offsets will skip ahead at the next start: %s", eg_error_text());
    free(marks);
    free(sealed);
    EG_FAULT("stop.sealed");
    for (size_t i = 0; i < d->topics->count; i++)
        for (uint32_t k = 0; k < d->topics->list[i]->partitions; k++)
            eg_partition_room(d->topics->list[i]->part[k]->status);
}

static void stop(struct eg_daemon *d, bool keep) {
    if (!keep)
        seal_all(d);
    free_all(d);
}

const struct eg_service eg_topics_service = {.name = "topics", .start = start, .stop = stop};
