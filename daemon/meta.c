/* meta.c - topics, and what is noted of their partitions. */
#include "meta_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "sys/errbuf.h"

/* A topic as it is stored. */
struct record {
    uint32_t uid, partitions, owner_uid, runs;
    struct {
        uint32_t first, length;
    } run[8];
    uint32_t settings_length;
    char settings[sizeof(((struct eg_meta_topic *)0)->settings)];
};

#define RECORD_HEAD offsetof(struct record, settings)

/* ---- topics --------------------------------------------------------------------------------------------- */

static MDB_val name_key(const char *name) { return (MDB_val){strlen(name), (void *)name}; }

static int put_topic(struct eg_meta *m, MDB_txn *txn, const struct eg_meta_topic *t, unsigned flags) {
    struct record r = {.uid = htole32(t->uid),
                       .partitions = htole32(t->partitions),
                       .owner_uid = htole32(t->owner_uid),
                       .runs = htole32(t->runs)};
    for (uint32_t i = 0; i < t->runs; i++) {
        r.run[i].first = htole32(t->first_partition_uid[i]);
        r.run[i].length = htole32(t->run_length[i]);
    }
    size_t n = strlen(t->settings);
    r.settings_length = htole32((uint32_t)n);
    memcpy(r.settings, t->settings, n);
    MDB_val key = name_key(t->name), value = {RECORD_HEAD + n, &r};
    int rc = mdb_put(txn, m->topics, &key, &value, flags);
    if (rc == MDB_KEYEXIST)
        return eg_error_set(EAGRE_E_TOPIC_EXISTS, "topic '%s' already exists", t->name);
    return rc == 0 ? EAGRE_OK : eg_meta_failed(m, "write a topic", rc);
}

static int read_topic(struct eg_meta *m, const MDB_val *key, const MDB_val *value, struct eg_meta_topic *t) {
    struct record r;
    memset(t, 0, sizeof(*t));
    if (key->mv_size == 0 || key->mv_size > EG_TOPIC_NAME_MAX)
        return eg_meta_damaged(m, "a topic's name is too long");
    memcpy(t->name, key->mv_data, key->mv_size);
    if (value->mv_size < RECORD_HEAD || value->mv_size > sizeof(r))
        return eg_error_add(eg_meta_damaged(m, "its record has a wrong size"), "topic '%s'", t->name);
    memset(&r, 0, sizeof(r));
    memcpy(&r, value->mv_data, value->mv_size);
    size_t n = le32toh(r.settings_length);
    t->uid = le32toh(r.uid);
    t->partitions = le32toh(r.partitions);
    t->owner_uid = le32toh(r.owner_uid);
    t->runs = le32toh(r.runs);
    uint64_t sum = 0;
    bool sound = t->uid != 0 && t->runs >= 1 && t->runs <= 8 && n == value->mv_size - RECORD_HEAD &&
                 n < sizeof(t->settings);
    for (uint32_t i = 0; sound && i < t->runs; i++) {
        t->first_partition_uid[i] = le32toh(r.run[i].first);
        t->run_length[i] = le32toh(r.run[i].length);
        sum += t->run_length[i];
    }
    if (!sound || sum != t->partitions || sum == 0 || sum > EG_TOPIC_PARTITIONS_MAX)
        return eg_error_add(eg_meta_damaged(m, "its record is not sound"), "topic '%s'", t->name);
    memcpy(t->settings, r.settings, n);
    return EAGRE_OK;
}

int eg_meta_topic_create(struct eg_meta *m, struct eg_meta_topic *t) {
    struct eg_meta_topic new = *t;
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_take_ids(m, txn, "last.topic", 1, &new.uid);
    if (rc == EAGRE_OK)
        rc = eg_meta_take_ids(m, txn, "last.partition", new.partitions, &new.first_partition_uid[0]);
    new.run_length[0] = new.partitions;
    new.runs = 1;
    if (rc == EAGRE_OK)
        rc = put_topic(m, txn, &new, MDB_NOOVERWRITE);
    rc = eg_meta_end(m, txn, rc);
    if (rc == EAGRE_OK)
        *t = new;
    return rc;
}

int eg_meta_topic_grow(struct eg_meta *m, struct eg_meta_topic *t, uint32_t partitions) {
    struct eg_meta_topic new = *t;
    uint32_t first, more = partitions - t->partitions;
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_take_ids(m, txn, "last.partition", more, &first);
    if (rc == EAGRE_OK) {
        uint32_t last = new.runs - 1;
        if (first == new.first_partition_uid[last] + new.run_length[last]) {
            new.run_length[last] += more;
        } else if (new.runs < 8) {
            new.first_partition_uid[new.runs] = first;
            new.run_length[new.runs++] = more;
        } else {
            rc = eg_error_set(EAGRE_E_LIMIT,
                              "topic '%s' has been enlarged 7 times, which is the limit: create a "
                              "new topic",
                              t->name);
        }
    }
    new.partitions = partitions;
    if (rc == EAGRE_OK)
        rc = put_topic(m, txn, &new, 0);
    rc = eg_meta_end(m, txn, rc);
    if (rc == EAGRE_OK)
        *t = new;
    return rc;
}

int eg_meta_topic_put(struct eg_meta *m, const struct eg_meta_topic *t) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    return rc != EAGRE_OK ? rc : eg_meta_end(m, txn, put_topic(m, txn, t, 0));
}

int eg_meta_topic_delete(struct eg_meta *m, const struct eg_meta_topic *t) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_forget_offsets(m, txn, t->uid);
    MDB_val key = name_key(t->name);
    int e = mdb_del(txn, m->topics, &key, NULL);
    for (uint32_t i = 0; i < t->runs; i++) {
        for (uint32_t k = 0; (e == 0 || e == MDB_NOTFOUND) && k < t->run_length[i]; k++) {
            uint32_t be;
            key = eg_meta_uid_key(t->first_partition_uid[i] + k, &be);
            e = mdb_del(txn, m->marks, &key, NULL);
            if (e == 0 || e == MDB_NOTFOUND)
                e = mdb_del(txn, m->disk, &key, NULL);
        }
    }
    if (rc == EAGRE_OK && e != 0 && e != MDB_NOTFOUND)
        rc = eg_meta_failed(m, "delete a topic", e);
    return eg_meta_end(m, txn, rc);
}

/* The callback may write, and LMDB allows a thread one transaction: so all are read first. */
int eg_meta_topics(struct eg_meta *m, int (*f)(void *ctx, const struct eg_meta_topic *t),
                   void *ctx) {
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    MDB_stat stat_;
    struct eg_meta_topic *all = NULL;
    size_t count = 0;

    int rc = eg_meta_begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    int e = mdb_stat(txn, m->topics, &stat_);
    if (e == 0)
        e = mdb_cursor_open(txn, m->topics, &cursor);
    if (e == 0 && stat_.ms_entries > 0) {
        all = calloc(stat_.ms_entries, sizeof(*all));
        if (all == NULL)
            rc = eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the list of topics");
    }
    while (rc == EAGRE_OK && e == 0 && count < stat_.ms_entries &&
           (e = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        rc = read_topic(m, &key, &value, &all[count++]);
    if (rc == EAGRE_OK && e != 0 && e != MDB_NOTFOUND)
        rc = eg_meta_failed(m, "read the topics", e);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++)
        rc = f(ctx, &all[i]);
    free(all);
    return rc;
}

/* ---- marks ------------------------------------------------------------------------------------------------ */

struct mark_record {
    uint32_t clean, pad;
    uint64_t end, seq;
};

/* A partition's record of this size; as it was, if there is none. */
static int get_record(struct eg_meta *m, MDB_dbi dbi, uint32_t partition_uid, void *record, size_t size, const char *what) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    char text[96];
    uint32_t be;
    MDB_val key = eg_meta_uid_key(partition_uid, &be), value;
    int e = mdb_get(txn, dbi, &key, &value);
    if (e == 0 && value.mv_size != size) {
        snprintf(text, sizeof(text), "%s has a wrong size", what);
        rc = eg_meta_damaged(m, text);
    } else if (e == 0) {
        memcpy(record, value.mv_data, size);
    } else if (e != MDB_NOTFOUND) {
        snprintf(text, sizeof(text), "read %s", what);
        rc = eg_meta_failed(m, text, e);
    }
    mdb_txn_abort(txn);
    return rc;
}

int eg_meta_mark_get(struct eg_meta *m, uint32_t partition_uid, struct eg_meta_mark *out) {
    struct mark_record r = {0};
    int rc = get_record(m, m->marks, partition_uid, &r, sizeof(r), "a partition's mark");
    if (rc == EAGRE_OK)
        *out = (struct eg_meta_mark){.partition_uid = partition_uid,
                                     .clean = le32toh(r.clean),
                                     .end = (int64_t)le64toh(r.end),
                                     .seq = le64toh(r.seq)};
    return rc;
}

int eg_meta_marks_put(struct eg_meta *m, const struct eg_meta_mark *marks, size_t count) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        uint32_t be;
        struct mark_record r = {.clean = htole32(marks[i].clean),
                                .end = htole64((uint64_t)marks[i].end),
                                .seq = htole64(marks[i].seq)};
        MDB_val key = eg_meta_uid_key(marks[i].partition_uid, &be), value = {sizeof(r), &r};
        int e = mdb_put(txn, m->marks, &key, &value, 0);
        if (e != 0)
            rc = eg_meta_failed(m, "write a mark", e);
    }
    return eg_meta_end(m, txn, rc);
}

struct disk_record {
    uint64_t seq, pos, log_start;
};

static void unpack(const struct disk_record *r, uint32_t partition_uid, struct eg_meta_disk *out) {
    *out = (struct eg_meta_disk){.partition_uid = partition_uid,
                                 .seq = le64toh(r->seq),
                                 .pos = le64toh(r->pos),
                                 .log_start = (int64_t)le64toh(r->log_start)};
}

int eg_meta_disk_get(struct eg_meta *m, uint32_t partition_uid, struct eg_meta_disk *out) {
    struct disk_record r = {0};
    int rc = get_record(m, m->disk, partition_uid, &r, sizeof(r), "what is noted of a partition's files");
    if (rc == EAGRE_OK)
        unpack(&r, partition_uid, out);
    return rc;
}

/* What is noted already and lies further on stays. */
static int merge(struct eg_meta *m, MDB_txn *txn, MDB_val *key, struct eg_meta_disk *note, bool *known) {
    MDB_val value;
    struct disk_record r;
    struct eg_meta_disk old;
    int e = mdb_get(txn, m->marks, key, &value);
    *known = e == 0;
    if (e == 0)
        e = mdb_get(txn, m->disk, key, &value);
    if (e == MDB_NOTFOUND || (e == 0 && value.mv_size != sizeof(r)))
        return EAGRE_OK;
    if (e != 0)
        return eg_meta_failed(m, "read what is noted of a partition's files", e);
    memcpy(&r, value.mv_data, sizeof(r));
    unpack(&r, note->partition_uid, &old);
    int64_t start = old.log_start > note->log_start ? old.log_start : note->log_start;
    if (old.seq > note->seq || (old.seq == note->seq && old.pos > note->pos))
        *note = old;
    note->log_start = start;
    return EAGRE_OK;
}

int eg_meta_disk_put(struct eg_meta *m, const struct eg_meta_disk *all, size_t count) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        uint32_t be;
        struct eg_meta_disk note = all[i];
        MDB_val key = eg_meta_uid_key(note.partition_uid, &be);
        bool known;
        rc = merge(m, txn, &key, &note, &known);
        if (rc != EAGRE_OK || !known)
            continue;
        struct disk_record r = {.seq = htole64(note.seq),
                                .pos = htole64(note.pos),
                                .log_start = htole64((uint64_t)note.log_start)};
        MDB_val value = {sizeof(r), &r};
        int e = mdb_put(txn, m->disk, &key, &value, 0);
        if (e != 0)
            rc = eg_meta_failed(m, "note what is on disk", e);
    }
    return eg_meta_end(m, txn, rc);
}

int eg_meta_last_topic(struct eg_meta *m, uint32_t *out) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_get_u32(m, txn, "last.topic", out);
    mdb_txn_abort(txn);
    return rc;
}

/* ---- as a service ------------------------------------------------------------------------------------------ */

static int meta_start(struct eg_daemon *d) { return eg_meta_open(d->config.dir, &d->meta); }

static void meta_stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    eg_meta_close(d->meta);
    d->meta = NULL;
}

const struct eg_service eg_meta_service = {.name = "meta", .start = meta_start, .stop = meta_stop};
