/* meta_groups.c - groups by uid; offsets by group uid, topic uid, partition. */
#include "meta_groups.h"

#include <stdio.h>
#include <string.h>

#include "meta_internal.h"
#include "sys/errbuf.h"

struct group_record {
    uint32_t type, owner_uid, generation;
    char name[EG_GROUP_NAME_MAX]; /* no NUL */
};

#define GROUP_HEAD offsetof(struct group_record, name)

struct offset_key {
    uint32_t group_uid, topic_uid, partition; /* big-endian */
};

struct offset_record {
    uint64_t offset, time_ms, stamp;
    uint32_t flags;
    char metadata[EG_METADATA_MAX + 4]; /* no NUL; + 4: no padding behind it */
};

#define OFFSET_HEAD offsetof(struct offset_record, metadata)

/* ---- groups ------------------------------------------------------------------------------------------------ */

static int put_group(struct eg_meta *m, MDB_txn *txn, const struct eg_meta_group *g) {
    struct group_record r = {
        .type = htole32(g->type), .owner_uid = htole32(g->owner_uid), .generation = htole32(g->generation)};
    size_t n = strlen(g->name);
    uint32_t be;
    memcpy(r.name, g->name, n);
    MDB_val key = eg_meta_uid_key(g->uid, &be), value = {GROUP_HEAD + n, &r};
    int e = mdb_put(txn, m->groups, &key, &value, 0);
    return e == 0 ? EAGRE_OK : eg_meta_failed(m, "write a group", e);
}

static int read_group(struct eg_meta *m, const MDB_val *key, const MDB_val *value, struct eg_meta_group *g) {
    struct group_record r;
    uint32_t be;
    memset(g, 0, sizeof(*g));
    if (key->mv_size != sizeof(be) || value->mv_size <= GROUP_HEAD || value->mv_size > sizeof(r))
        return eg_meta_damaged(m, "the record of a group has a wrong size");
    memcpy(&be, key->mv_data, sizeof(be));
    memcpy(&r, value->mv_data, value->mv_size);
    g->uid = be32toh(be);
    g->type = le32toh(r.type);
    g->owner_uid = le32toh(r.owner_uid);
    g->generation = le32toh(r.generation);
    memcpy(g->name, r.name, value->mv_size - GROUP_HEAD);
    if (g->uid == 0 || (g->type != EG_GROUP_CONSUMER && g->type != EG_GROUP_SHARE) ||
        strlen(g->name) != value->mv_size - GROUP_HEAD)
        return eg_meta_damaged(m, "the record of a group is not sound");
    return EAGRE_OK;
}

int eg_meta_group_create(struct eg_meta *m, struct eg_meta_group *g) {
    struct eg_meta_group new = *g;
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_take_ids(m, txn, "last.group", 1, &new.uid);
    if (rc == EAGRE_OK)
        rc = put_group(m, txn, &new);
    rc = eg_meta_end(m, txn, rc);
    if (rc == EAGRE_OK)
        *g = new;
    return rc;
}

/* Calls f for each record of a database, in one transaction, which lets nobody in between. */
static int for_each(struct eg_meta *m, MDB_dbi dbi, const char *what,
                    int (*f)(struct eg_meta *m, const MDB_val *key, const MDB_val *value, void *arg), void *arg) {
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    int rc = eg_meta_begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    int e = mdb_cursor_open(txn, dbi, &cursor);
    while (e == 0 && rc == EAGRE_OK && (e = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        rc = f(m, &key, &value, arg);
    if (rc == EAGRE_OK && e != 0 && e != MDB_NOTFOUND)
        rc = eg_meta_failed(m, what, e);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc;
}

struct groups_call {
    int (*f)(void *ctx, const struct eg_meta_group *g);
    void *ctx;
};

static int call_group(struct eg_meta *m, const MDB_val *key, const MDB_val *value, void *arg) {
    const struct groups_call *c = arg;
    struct eg_meta_group g;
    int rc = read_group(m, key, value, &g);
    return rc == EAGRE_OK ? c->f(c->ctx, &g) : rc;
}

int eg_meta_groups(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_group *g), void *ctx) {
    struct groups_call c = {f, ctx};
    return for_each(m, m->groups, "read the groups", call_group, &c);
}

/* ---- offsets ----------------------------------------------------------------------------------------------- */

static MDB_val offset_key(uint32_t group_uid, uint32_t topic_uid, uint32_t partition, struct offset_key *storage) {
    *storage = (struct offset_key){htobe32(group_uid), htobe32(topic_uid), htobe32(partition)};
    return (MDB_val){sizeof(*storage), storage};
}

/* Where the cursor stands, or the first one behind it. 0, MDB_NOTFOUND, ... */
static int seek(MDB_cursor *cursor, uint32_t group_uid, uint32_t topic_uid, struct offset_key *found) {
    MDB_val key = offset_key(group_uid, topic_uid, 0, found), value;
    int e = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (e == 0 && key.mv_size != sizeof(*found))
        return MDB_CORRUPTED;
    if (e == 0)
        memcpy(found, key.mv_data, sizeof(*found));
    return e;
}

/* All of a topic of this group (0: of all its topics). *next: the group that comes behind it; 0: none. */
static int forget(MDB_cursor *cursor, uint32_t group_uid, uint32_t topic_uid, uint32_t *next) {
    struct offset_key found;
    *next = 0;
    int e;
    while ((e = seek(cursor, group_uid, topic_uid, &found)) == 0 && be32toh(found.group_uid) == group_uid &&
           (topic_uid == 0 || be32toh(found.topic_uid) == topic_uid))
        if ((e = mdb_cursor_del(cursor, 0)) != 0)
            return e;
    if (e == 0 && be32toh(found.group_uid) == group_uid)
        e = group_uid < UINT32_MAX ? seek(cursor, group_uid + 1, 0, &found) : MDB_NOTFOUND;
    if (e == 0)
        *next = be32toh(found.group_uid);
    return e == MDB_NOTFOUND ? 0 : e;
}

int eg_meta_forget_offsets(struct eg_meta *m, MDB_txn *txn, uint32_t topic_uid) {
    struct offset_key first;
    MDB_cursor *cursor;
    int e = mdb_cursor_open(txn, m->offsets, &cursor);
    if (e == 0) {
        e = seek(cursor, 0, 0, &first);
        for (uint32_t group = e == 0 ? be32toh(first.group_uid) : 0; e == 0 && group != 0;)
            e = forget(cursor, group, topic_uid, &group);
        mdb_cursor_close(cursor);
    }
    return e == 0 || e == MDB_NOTFOUND ? EAGRE_OK : eg_meta_failed(m, "forget the offsets of a topic", e);
}

int eg_meta_group_delete(struct eg_meta *m, const struct eg_meta_group *g) {
    MDB_txn *txn;
    MDB_cursor *cursor;
    uint32_t be, next;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    MDB_val key = eg_meta_uid_key(g->uid, &be);
    int e = mdb_del(txn, m->groups, &key, NULL);
    if (e == 0 || e == MDB_NOTFOUND)
        e = mdb_cursor_open(txn, m->offsets, &cursor);
    if (e == 0) {
        e = forget(cursor, g->uid, 0, &next);
        mdb_cursor_close(cursor);
    }
    return eg_meta_end(m, txn, e == 0 ? EAGRE_OK : eg_meta_failed(m, "delete a group", e));
}

struct offsets_call {
    int (*f)(void *ctx, const struct eg_meta_offset *o);
    void *ctx;
};

static int call_offset(struct eg_meta *m, const MDB_val *key, const MDB_val *value, void *arg) {
    const struct offsets_call *c = arg;
    struct offset_key k;
    struct offset_record r;
    char metadata[EG_METADATA_MAX + 1];
    if (key->mv_size != sizeof(k) || value->mv_size < OFFSET_HEAD || value->mv_size - OFFSET_HEAD > EG_METADATA_MAX)
        return eg_meta_damaged(m, "a committed offset has a wrong size");
    size_t n = value->mv_size - OFFSET_HEAD;
    memcpy(&k, key->mv_data, sizeof(k));
    memcpy(&r, value->mv_data, value->mv_size);
    memcpy(metadata, r.metadata, n);
    metadata[n] = '\0';
    struct eg_meta_offset o = {.group_uid = be32toh(k.group_uid),
                               .topic_uid = be32toh(k.topic_uid),
                               .partition = be32toh(k.partition),
                               .flags = le32toh(r.flags),
                               .offset = (int64_t)le64toh(r.offset),
                               .time_ms = (int64_t)le64toh(r.time_ms),
                               .stamp = le64toh(r.stamp),
                               .metadata = n > 0 ? metadata : NULL};
    return c->f(c->ctx, &o);
}

int eg_meta_offsets(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_offset *o), void *ctx) {
    struct offsets_call c = {f, ctx};
    return for_each(m, m->offsets, "read the committed offsets", call_offset, &c);
}

/* *found false: there is no such group (any more). */
static int find_group(struct eg_meta *m, MDB_txn *txn, uint32_t uid, struct eg_meta_group *out, bool *found) {
    uint32_t be;
    MDB_val key = eg_meta_uid_key(uid, &be), value;
    int e = mdb_get(txn, m->groups, &key, &value);
    *found = e == 0;
    if (e == MDB_NOTFOUND)
        return EAGRE_OK;
    return e == 0 ? read_group(m, &key, &value, out) : eg_meta_failed(m, "read a group", e);
}

static int put_offset(struct eg_meta *m, MDB_txn *txn, const struct eg_meta_offset *o) {
    struct offset_key k;
    MDB_val key = offset_key(o->group_uid, o->topic_uid, o->partition, &k);
    if (o->offset < 0) {
        int e = mdb_del(txn, m->offsets, &key, NULL);
        return e == 0 || e == MDB_NOTFOUND ? EAGRE_OK : eg_meta_failed(m, "forget an offset", e);
    }
    struct offset_record r;
    size_t n = o->metadata != NULL ? strnlen(o->metadata, EG_METADATA_MAX) : 0;
    r.offset = htole64((uint64_t)o->offset);
    r.time_ms = htole64((uint64_t)o->time_ms);
    r.stamp = htole64(o->stamp);
    r.flags = htole32(o->flags);
    if (n > 0)
        memcpy(r.metadata, o->metadata, n);
    MDB_val value = {OFFSET_HEAD + n, &r};
    int e = mdb_put(txn, m->offsets, &key, &value, 0);
    return e == 0 ? EAGRE_OK : eg_meta_failed(m, "write a committed offset", e);
}

int eg_meta_offsets_put(struct eg_meta *m, const struct eg_meta_offset *all, size_t count,
                        const struct eg_meta_group *groups, size_t group_count) {
    struct eg_meta_group g;
    MDB_txn *txn;
    uint32_t last = 0; /* whether this one is there is known */
    bool there = false;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        if (all[i].group_uid != last)
            rc = find_group(m, txn, last = all[i].group_uid, &g, &there);
        if (rc == EAGRE_OK && there)
            rc = put_offset(m, txn, &all[i]);
    }
    for (size_t i = 0; rc == EAGRE_OK && i < group_count; i++) {
        rc = find_group(m, txn, groups[i].uid, &g, &there);
        if (rc != EAGRE_OK || !there || g.generation >= groups[i].generation)
            continue;
        g.generation = groups[i].generation;
        rc = put_group(m, txn, &g);
    }
    return eg_meta_end(m, txn, rc);
}
