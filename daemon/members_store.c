/*
 * members_store.c - databases:
 *   groups   group uid -> struct eg_stored_group
 *   members  member id -> fields as in encode_member()
 *   offsets  group uid, topic uid, partition -> fields as in encode_offset()
 * Only this daemon looks at it, so there are no locks. Pages go to the file by write(2), the page that makes them valid
 * last and in one call: what a killed daemon left in the page cache is the state before a transaction or behind it.
 */
#include "members_store.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_internal.h"
#include "proto/codec.h"
#include "sys/errbuf.h"

#define MAP_BYTES ((size_t)1 << 30)
#define FORMAT 1u /* of the file's name: one that is not known is not opened */

struct eg_members_store {
    MDB_env *env;
    MDB_dbi groups, members, offsets;
    MDB_txn *txn;   /* between begin and commit */
    int failed;     /* what went wrong in it, EAGRE_OK: nothing */
    char why[EG_ERROR_TEXT_MAX];
    uint64_t round; /* groups with this noted_round have their offsets noted */
    bool noted;     /* some are, or may be */
    uint8_t *buf;   /* for one record */
    size_t cap;
    char dir[PATH_MAX];
    char path[PATH_MAX];
};

static int failed(const struct eg_members_store *s, const char *what, int e) {
    bool damaged = e == MDB_INVALID || e == MDB_CORRUPTED || e == MDB_PAGE_NOTFOUND || e == MDB_VERSION_MISMATCH ||
                   e == MDB_INCOMPATIBLE;
    return eg_error_set(damaged ? EAGRE_E_CORRUPT : e == ENOMEM ? EAGRE_E_NO_MEMORY : EAGRE_E_IO, "%s: cannot %s: %s",
                        s->path, what, mdb_strerror(e));
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static int reserve(struct eg_members_store *s, size_t bytes) {
    if (bytes <= s->cap)
        return EAGRE_OK;
    uint8_t *buf = realloc(s->buf, bytes);
    if (buf == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to note a member");
    s->buf = buf;
    s->cap = bytes;
    return EAGRE_OK;
}

static int encode_member(struct eg_members_store *s, const struct eg_member *m, size_t *bytes) {
    int rc = reserve(s, 1024 + m->topic_count * (EG_TOPIC_NAME_MAX + 2) + m->given_count * 16);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_enc e = {.data = s->buf, .cap = s->cap};
    eg_enc_u32(&e, m->group->uid);
    eg_enc_u32(&e, m->number);
    eg_enc_u32(&e, m->owner);
    eg_enc_u64(&e, m->cookie);
    eg_enc_u32(&e, m->uid);
    eg_enc_u32(&e, m->pid);
    eg_enc_str(&e, m->instance_id);
    eg_enc_str(&e, m->client_id);
    for (size_t i = 0; i < EG_STRATEGIES_MAX; i++)
        eg_enc_u8(&e, m->strategy[i]);
    eg_enc_u32(&e, m->max_poll_ms);
    eg_enc_u32(&e, m->session_ms);
    eg_enc_u32(&e, m->commit_ms);
    eg_enc_u32(&e, m->node);
    eg_enc_u32(&e, m->version);
    eg_enc_u32(&e, m->applied);
    eg_enc_u32(&e, m->generation);
    eg_enc_i64(&e, m->away_ns);
    eg_enc_u8(&e, m->by_pattern);
    eg_enc_u32(&e, (uint32_t)m->topic_count);
    for (size_t i = 0; i < m->topic_count; i++)
        eg_enc_str(&e, m->topics[i]);
    eg_enc_u32(&e, (uint32_t)m->given_count);
    for (size_t i = 0; i < m->given_count; i++) {
        eg_enc_u32(&e, m->given[i].topic_uid);
        eg_enc_u32(&e, m->given[i].partition);
        eg_enc_u32(&e, m->given[i].cell);
        eg_enc_u8(&e, m->given[i].leaving);
    }
    *bytes = e.used;
    return e.overflow ? eg_error_set(EAGRE_E_INTERNAL, "a member's record is larger than it can be") : EAGRE_OK;
}

static void free_lists(struct eg_member *m) {
    for (size_t i = 0; m->topics != NULL && i < m->topic_count; i++)
        free(m->topics[i]);
    free(m->topics);
    free(m->given);
}

static int damaged(const struct eg_members_store *s) {
    return eg_error_set(EAGRE_E_CORRUPT, "%s: what it says of a member is not sound", s->path);
}

/* How many entries of at least so many bytes come now; 0 if that cannot be. */
static size_t decode_count(struct eg_dec *d, size_t bytes) {
    size_t n = eg_dec_u32(d);
    d->bad |= n > d->left / bytes;
    return d->bad ? 0 : n;
}

static int decode_lists(struct eg_dec *d, struct eg_member *m) {
    char name[EG_TOPIC_NAME_MAX + 1];
    size_t n = decode_count(d, 2);
    m->topics = calloc(n + 1, sizeof(*m->topics));
    for (size_t i = 0; m->topics != NULL && i < n; i++) {
        eg_dec_str(d, name, sizeof(name));
        m->topics[m->topic_count] = strdup(name);
        if (m->topics[m->topic_count] == NULL)
            break;
        m->topic_count++;
    }
    size_t given = decode_count(d, 13);
    m->given = calloc(given + 1, sizeof(*m->given));
    if (m->topics == NULL || m->topic_count != n || m->given == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a member's partitions");
    m->given_cap = given + 1;
    for (; m->given_count < given; m->given_count++) {
        struct eg_given *g = &m->given[m->given_count];
        g->topic_uid = eg_dec_u32(d);
        g->partition = eg_dec_u32(d);
        g->cell = eg_dec_u32(d);
        g->leaving = eg_dec_u8(d) != 0;
        g->collected = EG_NO_COMMIT;
    }
    return EAGRE_OK;
}

static int decode_member(const struct eg_members_store *s, const MDB_val *key, const MDB_val *value, uint32_t *group_uid,
                         struct eg_member *m) {
    uint64_t id;
    struct eg_dec d = {.data = value->mv_data, .left = value->mv_size};
    memset(m, 0, sizeof(*m));
    m->page_fd = -1;
    if (key->mv_size != sizeof(id))
        return damaged(s);
    memcpy(&id, key->mv_data, sizeof(id));
    m->id = be64toh(id);
    *group_uid = eg_dec_u32(&d);
    m->number = eg_dec_u32(&d);
    m->owner = eg_dec_u32(&d);
    m->cookie = eg_dec_u64(&d);
    m->uid = eg_dec_u32(&d);
    m->pid = eg_dec_u32(&d);
    eg_dec_str(&d, m->instance_id, sizeof(m->instance_id));
    eg_dec_str(&d, m->client_id, sizeof(m->client_id));
    for (size_t i = 0; i < EG_STRATEGIES_MAX; i++) {
        m->strategy[i] = eg_dec_u8(&d);
        d.bad |= m->strategy[i] != 0 && eg_assignor_name(m->strategy[i]) == NULL;
    }
    m->max_poll_ms = eg_dec_u32(&d);
    m->session_ms = eg_dec_u32(&d);
    m->commit_ms = eg_dec_u32(&d);
    m->node = eg_dec_u32(&d);
    m->version = eg_dec_u32(&d);
    m->applied = eg_dec_u32(&d);
    m->generation = eg_dec_u32(&d);
    m->away_ns = eg_dec_i64(&d);
    m->by_pattern = eg_dec_u8(&d) != 0;
    int rc = decode_lists(&d, m);
    for (size_t i = 0; i < m->given_count; i++)
        d.bad |= m->given[i].cell >= EG_MEMBER_CELLS;
    if (rc == EAGRE_OK && (!eg_dec_end(&d) || m->number == 0 || m->number > EG_MEMBERS_MAX))
        rc = damaged(s);
    if (rc != EAGRE_OK)
        free_lists(m);
    return rc;
}

struct offset_key {
    uint32_t group_uid, topic_uid, partition; /* big-endian */
};

static int encode_offset(struct eg_members_store *s, const struct eg_committed *o, size_t *bytes) {
    int rc = reserve(s, 64 + EG_METADATA_MAX);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_enc e = {.data = s->buf, .cap = s->cap};
    eg_enc_i64(&e, o->offset);
    eg_enc_i64(&e, o->time_ms);
    eg_enc_u64(&e, o->stamp);
    eg_enc_u32(&e, o->flags);
    eg_enc_str(&e, o->metadata != NULL ? o->metadata : "");
    *bytes = e.used;
    return e.overflow ? eg_error_set(EAGRE_E_INTERNAL, "an offset's record is larger than it can be") : EAGRE_OK;
}

static int decode_offset(const struct eg_members_store *s, const MDB_val *key, const MDB_val *value, struct eg_meta_offset *o,
                         char *metadata) {
    struct offset_key k;
    struct eg_dec d = {.data = value->mv_data, .left = value->mv_size};
    if (key->mv_size != sizeof(k))
        return damaged(s);
    memcpy(&k, key->mv_data, sizeof(k));
    *o = (struct eg_meta_offset){
        .group_uid = be32toh(k.group_uid), .topic_uid = be32toh(k.topic_uid), .partition = be32toh(k.partition)};
    o->offset = eg_dec_i64(&d);
    o->time_ms = eg_dec_i64(&d);
    o->stamp = eg_dec_u64(&d);
    o->flags = eg_dec_u32(&d);
    eg_dec_str(&d, metadata, EG_METADATA_MAX + 1);
    o->metadata = *metadata != '\0' ? metadata : NULL;
    return eg_dec_end(&d) && o->offset >= -1 ? EAGRE_OK : damaged(s);
}

static int decode_group(const struct eg_members_store *s, const MDB_val *key, const MDB_val *value, struct eg_stored_group *g) {
    (void)key;
    if (value->mv_size != sizeof(*g))
        return damaged(s);
    memcpy(g, value->mv_data, sizeof(*g));
    if (g->assignor > INT_MAX || (g->assignor != 0 && eg_assignor_name((int)g->assignor) == NULL))
        return damaged(s);
    return EAGRE_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* f gets what is valid during the call. One that writes would not see its own changes. */
static int for_each(struct eg_members_store *s, MDB_dbi dbi,
                    int (*f)(struct eg_members_store *s, const MDB_val *key, const MDB_val *value, void *arg), void *arg) {
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    int rc = EAGRE_OK, e = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (e != 0)
        return failed(s, "begin a transaction", e);
    e = mdb_cursor_open(txn, dbi, &cursor);
    while (e == 0 && rc == EAGRE_OK && (e = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        rc = f(s, &key, &value, arg);
    if (rc == EAGRE_OK && e != 0 && e != MDB_NOTFOUND)
        rc = failed(s, "read it", e);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc;
}

struct call {
    int (*group)(void *ctx, const struct eg_stored_group *g);
    int (*member)(void *ctx, uint32_t group_uid, struct eg_member *m);
    int (*offset)(void *ctx, const struct eg_meta_offset *o);
    void *ctx;
};

static int call_group(struct eg_members_store *s, const MDB_val *key, const MDB_val *value, void *arg) {
    const struct call *c = arg;
    struct eg_stored_group g;
    int rc = decode_group(s, key, value, &g);
    return rc == EAGRE_OK && c->group != NULL ? c->group(c->ctx, &g) : rc;
}

static int call_member(struct eg_members_store *s, const MDB_val *key, const MDB_val *value, void *arg) {
    const struct call *c = arg;
    struct eg_member m;
    uint32_t group_uid = 0;
    int rc = decode_member(s, key, value, &group_uid, &m);
    if (rc != EAGRE_OK)
        return rc;
    if (c->member != NULL)
        rc = c->member(c->ctx, group_uid, &m);
    if (c->member == NULL || rc != EAGRE_OK)
        free_lists(&m);
    return rc;
}

static int call_offset(struct eg_members_store *s, const MDB_val *key, const MDB_val *value, void *arg) {
    const struct call *c = arg;
    struct eg_meta_offset o;
    char metadata[EG_METADATA_MAX + 1];
    int rc = decode_offset(s, key, value, &o, metadata);
    s->noted = true;
    return rc == EAGRE_OK && c->offset != NULL ? c->offset(c->ctx, &o) : rc;
}

int eg_members_store_groups(struct eg_members_store *s, int (*f)(void *ctx, const struct eg_stored_group *g), void *ctx) {
    struct call c = {.group = f, .ctx = ctx};
    return for_each(s, s->groups, call_group, &c);
}

int eg_members_store_members(struct eg_members_store *s, int (*f)(void *ctx, uint32_t group_uid, struct eg_member *m),
                             void *ctx) {
    struct call c = {.member = f, .ctx = ctx};
    return for_each(s, s->members, call_member, &c);
}

int eg_members_store_offsets(struct eg_members_store *s, int (*f)(void *ctx, const struct eg_meta_offset *o), void *ctx) {
    struct call c = {.offset = f, .ctx = ctx};
    return for_each(s, s->offsets, call_offset, &c);
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* LMDB finds damage by assertion; then this is all that can be done: the next daemon starts without members. */
static void on_assert(MDB_env *env, const char *text) {
    const char *path = NULL;
    if (mdb_env_get_path(env, &path) == 0 && path != NULL)
        unlink(path);
    eg_log_error("%s: the list of members is damaged (LMDB: %s): the next daemon starts without members",
                 path != NULL ? path : "?", text);
    _exit(1);
}

static int open_databases(struct eg_members_store *s) {
    int rc = eg_members_store_begin(s);
    if (rc != EAGRE_OK)
        return rc;
    int e = mdb_dbi_open(s->txn, "groups", MDB_CREATE, &s->groups);
    if (e == 0)
        e = mdb_dbi_open(s->txn, "members", MDB_CREATE, &s->members);
    if (e == 0)
        e = mdb_dbi_open(s->txn, "offsets", MDB_CREATE, &s->offsets);
    if (e != 0) {
        mdb_txn_abort(s->txn);
        s->txn = NULL;
        return failed(s, "open it", e);
    }
    return eg_members_store_commit(s);
}

/* With everything in it looked at once: what is not sound is found now or not at all. */
static int open_file(struct eg_members_store *s) {
    struct call nobody = {0};
    bool cut = false;
    int e = mdb_env_create(&s->env);
    if (e == 0)
        e = mdb_env_set_maxdbs(s->env, 4);
    if (e == 0)
        e = mdb_env_set_mapsize(s->env, MAP_BYTES);
    if (e == 0)
        e = mdb_env_set_assert(s->env, on_assert);
    if (e == 0)
        e = mdb_env_open(s->env, s->path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK, 0600);
    if (e == 0)
        e = eg_lmdb_is_cut(s->env, &cut);
    if (e != 0)
        return failed(s, "open it", e);
    if (cut)
        return eg_error_set(EAGRE_E_CORRUPT, "%s has been cut off", s->path);
    int rc = open_databases(s);
    if (rc == EAGRE_OK)
        rc = for_each(s, s->groups, call_group, &nobody);
    if (rc == EAGRE_OK)
        rc = for_each(s, s->members, call_member, &nobody);
    if (rc == EAGRE_OK)
        rc = for_each(s, s->offsets, call_offset, &nobody);
    return rc;
}

static void close_file(struct eg_members_store *s) {
    if (s->txn != NULL)
        mdb_txn_abort(s->txn);
    if (s->env != NULL)
        mdb_env_close(s->env);
    s->txn = NULL;
    s->env = NULL;
}

/* What other instances left. */
static void drop_others(const struct eg_members_store *s) {
    char path[PATH_MAX + 256];
    const struct dirent *e;
    DIR *all = opendir(s->dir);
    while (all != NULL && (e = readdir(all)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", s->dir, e->d_name);
        if (e->d_name[0] == '.' || strcmp(path, s->path) == 0)
            continue;
        eg_log_info("%s: the members of an instance that is gone: removed", path);
        unlink(path);
    }
    if (all != NULL)
        closedir(all);
}

int eg_members_store_open(const char *dir, uint64_t instance, struct eg_members_store **out) {
    struct eg_members_store *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the list of members");
    s->round = 1;
    snprintf(s->dir, sizeof(s->dir), "%.4000s/members", dir);
    snprintf(s->path, sizeof(s->path), "%.4040s/%016" PRIx64 ".%u.mdb", s->dir, instance, FORMAT);
    int rc = EAGRE_OK;
    if (mkdir(s->dir, 0700) != 0 && errno != EEXIST)
        rc = eg_error_set(EAGRE_E_IO, "cannot create %s: %s", s->dir, strerror(errno));
    if (rc == EAGRE_OK) {
        drop_others(s);
        rc = open_file(s);
        if (rc == EAGRE_E_CORRUPT) {
            eg_log_error("%s: it is made anew, there are no members now", eg_error_text());
            close_file(s);
            unlink(s->path);
            rc = open_file(s);
        }
    }
    if (rc != EAGRE_OK) {
        eg_members_store_close(s);
        return rc;
    }
    *out = s;
    return EAGRE_OK;
}

void eg_members_store_close(struct eg_members_store *s) {
    if (s == NULL)
        return;
    close_file(s);
    free(s->buf);
    free(s);
}

/* ---- changes ------------------------------------------------------------------------------------------------------ */

/* Remembered for the commit, which then makes nothing. */
static int outcome(struct eg_members_store *s, int rc) {
    if (rc != EAGRE_OK && s->failed == EAGRE_OK) {
        s->failed = rc;
        snprintf(s->why, sizeof(s->why), "%s", eg_error_text());
    }
    return rc;
}

int eg_members_store_begin(struct eg_members_store *s) {
    s->failed = EAGRE_OK;
    int e = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    if (e == 0)
        return EAGRE_OK;
    s->txn = NULL;
    return outcome(s, failed(s, "begin a transaction", e));
}

static int put(struct eg_members_store *s, MDB_dbi dbi, MDB_val key, const void *data, size_t bytes) {
    if (s->txn == NULL || s->failed != EAGRE_OK)
        return s->failed;
    MDB_val value = {bytes, (void *)data};
    int e = mdb_put(s->txn, dbi, &key, &value, 0);
    return e == 0 ? EAGRE_OK : failed(s, "note a change of members", e);
}

static int del(struct eg_members_store *s, MDB_dbi dbi, MDB_val key) {
    if (s->txn == NULL || s->failed != EAGRE_OK)
        return s->failed;
    int e = mdb_del(s->txn, dbi, &key, NULL);
    return e == 0 || e == MDB_NOTFOUND ? EAGRE_OK : failed(s, "note a change of members", e);
}

static int note_offsets(struct eg_members_store *s, struct eg_group *g) {
    if (g->noted_round == s->round)
        return EAGRE_OK;
    for (size_t i = 0; i < g->offset_count; i++) {
        const struct eg_committed *o = &g->offsets[i];
        if (!o->dirty && !o->writing)
            continue;
        struct offset_key k = {htobe32(g->uid), htobe32(o->topic_uid), htobe32(o->partition)};
        size_t bytes;
        int rc = encode_offset(s, o, &bytes);
        if (rc == EAGRE_OK)
            rc = put(s, s->offsets, (MDB_val){sizeof(k), &k}, s->buf, bytes);
        if (rc != EAGRE_OK)
            return rc;
        s->noted = true;
    }
    g->noted_round = s->round;
    return EAGRE_OK;
}

int eg_members_store_put_group(struct eg_members_store *s, const struct eg_group *g) {
    struct eg_stored_group r = {.uid = g->uid, .generation = g->generation, .assignor = (uint32_t)g->assignor};
    uint32_t be;
    return outcome(s, put(s, s->groups, eg_meta_uid_key(g->uid, &be), &r, sizeof(r)));
}

int eg_members_store_put_member(struct eg_members_store *s, const struct eg_member *m) {
    size_t bytes;
    uint64_t be = htobe64(m->id);
    int rc = note_offsets(s, m->group);
    if (rc == EAGRE_OK)
        rc = encode_member(s, m, &bytes);
    if (rc == EAGRE_OK)
        rc = put(s, s->members, (MDB_val){sizeof(be), &be}, s->buf, bytes);
    return outcome(s, rc);
}

int eg_members_store_remove_member(struct eg_members_store *s, const struct eg_member *m) {
    uint64_t be = htobe64(m->id);
    int rc = note_offsets(s, m->group);
    return outcome(s, rc == EAGRE_OK ? del(s, s->members, (MDB_val){sizeof(be), &be}) : rc);
}

int eg_members_store_remove_group(struct eg_members_store *s, uint32_t group_uid) {
    uint32_t be;
    return outcome(s, del(s, s->groups, eg_meta_uid_key(group_uid, &be)));
}

int eg_members_store_commit(struct eg_members_store *s) {
    MDB_txn *txn = s->txn;
    s->txn = NULL;
    if (txn != NULL && s->failed == EAGRE_OK) {
        int e = mdb_txn_commit(txn);
        if (e == 0)
            return EAGRE_OK;
        s->round++; /* nothing was noted */
        return failed(s, "commit a transaction", e);
    }
    if (txn != NULL)
        mdb_txn_abort(txn);
    s->round++;
    return eg_error_set(s->failed, "%s", s->why);
}

int eg_members_store_forget_offsets(struct eg_members_store *s) {
    if (!s->noted)
        return EAGRE_OK;
    s->round++;
    int rc = eg_members_store_begin(s);
    if (rc != EAGRE_OK)
        return rc;
    int e = mdb_drop(s->txn, s->offsets, 0);
    if (e != 0)
        outcome(s, failed(s, "forget offsets that were noted", e));
    rc = eg_members_store_commit(s);
    s->noted = rc != EAGRE_OK;
    return rc;
}
