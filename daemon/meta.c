/*
 * meta.c - LMDB in DIR/meta. Databases:
 *   topics  name -> record (below)
 *   marks   partition uid, big-endian -> clean (u32), end (i64), seq (u64)
 *   ids     "format", "last.topic", "last.partition", "instance.low", "instance.high" -> u32
 * All numbers in values are little-endian.
 */
#include "meta.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include "daemon.h"
#include "sys/errbuf.h"

#define FORMAT 1u
#define MAP_BYTES ((size_t)1 << 30) /* address space; the file is as large as its content */

struct eg_meta {
    MDB_env *env;
    MDB_dbi topics, marks, ids, disk;
    char path[PATH_MAX];
};

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

static int failed(const struct eg_meta *m, const char *what, int rc) {
    switch (rc) {
    case MDB_MAP_FULL:
        return eg_error_set(EAGRE_E_LIMIT,
                            "%s: cannot %s: the database has reached its limit of %zu MiB", m->path,
                            what, MAP_BYTES >> 20);
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_VERSION_MISMATCH:
        return eg_error_set(
            EAGRE_E_CORRUPT,
            "%s: cannot %s: this is not a sound LMDB database (%s): put a copy of it back, or "
            "move the directory away to start without topics",
            m->path, what, mdb_strerror(rc));
    default:
        return eg_error_set(EAGRE_E_IO, "%s: cannot %s: %s", m->path, what, mdb_strerror(rc));
    }
}

static int damaged(const struct eg_meta *m, const char *what) {
    return eg_error_set(
        EAGRE_E_CORRUPT,
        "%s: %s: put a copy of the database back, or move the directory away to start "
        "without topics",
        m->path, what);
}

/* ---- opening ------------------------------------------------------------------------------------------ */

/* LMDB finds damage by assertion; then this is all that can be done. */
static void on_assert(MDB_env *env, const char *text) {
    const char *path = "?";
    mdb_env_get_path(env, &path);
    eg_log_error(
        "%s: the database is damaged (LMDB: %s): put a copy of it back, or move the directory "
        "away to start without topics",
        path, text);
    _exit(1);
}

/* What LMDB takes for granted, and would answer with SIGBUS: that the file has the pages it speaks of. */
static int check_size(struct eg_meta *m) {
    struct stat st;
    MDB_envinfo info;
    MDB_stat stat_;
    mdb_filehandle_t fd;
    int rc = mdb_env_get_fd(m->env, &fd);
    if (rc == 0)
        rc = mdb_env_info(m->env, &info);
    if (rc == 0)
        rc = mdb_env_stat(m->env, &stat_);
    if (rc != 0)
        return failed(m, "open it", rc);
    if (fstat(fd, &st) != 0)
        return failed(m, "open it", errno);
    if ((uint64_t)st.st_size / stat_.ms_psize <= info.me_last_pgno && info.me_last_txnid > 0)
        return damaged(m, "data.mdb has been cut off");
    return EAGRE_OK;
}

static int get_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t *out) {
    MDB_val key = {strlen(name), (void *)name}, value;
    int rc = mdb_get(txn, m->ids, &key, &value);
    if (rc == MDB_NOTFOUND) {
        *out = 0;
        return EAGRE_OK;
    }
    if (rc != 0)
        return failed(m, "read", rc);
    uint32_t v;
    if (value.mv_size != sizeof(v))
        return damaged(m, "a number has a wrong size");
    memcpy(&v, value.mv_data, sizeof(v));
    *out = le32toh(v);
    return EAGRE_OK;
}

static int put_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t v) {
    v = htole32(v);
    MDB_val key = {strlen(name), (void *)name}, value = {sizeof(v), &v};
    int rc = mdb_put(txn, m->ids, &key, &value, 0);
    return rc == 0 ? EAGRE_OK : failed(m, "write", rc);
}

static int begin(struct eg_meta *m, unsigned flags, MDB_txn **txn) {
    int rc = mdb_txn_begin(m->env, NULL, flags, txn);
    return rc == 0 ? EAGRE_OK : failed(m, "begin a transaction", rc);
}

/* Commits if rc is EAGRE_OK, else aborts; returns the outcome. */
static int end(struct eg_meta *m, MDB_txn *txn, int rc) {
    if (rc != EAGRE_OK) {
        mdb_txn_abort(txn);
        return rc;
    }
    int e = mdb_txn_commit(txn);
    return e == 0 ? EAGRE_OK : failed(m, "commit a transaction", e);
}

static int open_databases(struct eg_meta *m) {
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    int e = mdb_dbi_open(txn, "topics", MDB_CREATE, &m->topics);
    if (e == 0)
        e = mdb_dbi_open(txn, "marks", MDB_CREATE, &m->marks);
    if (e == 0)
        e = mdb_dbi_open(txn, "ids", MDB_CREATE, &m->ids);
    if (e == 0)
        e = mdb_dbi_open(txn, "disk", MDB_CREATE, &m->disk);
    uint32_t format = 0;
    rc = e == 0 ? get_u32(m, txn, "format", &format) : failed(m, "open it", e);
    if (rc == EAGRE_OK && format == 0)
        rc = put_u32(m, txn, "format", FORMAT);
    else if (rc == EAGRE_OK && format != FORMAT)
        rc = eg_error_set(EAGRE_E_VERSION,
                          "%s has format %u, this eagred knows %u: use the version that made it",
                          m->path, format, FORMAT);
    return end(m, txn, rc);
}

/* The file's own name must be durable, too. */
static int sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        int rc =
            eg_error_set(EAGRE_E_IO, "%s: cannot sync the directory: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    close(fd);
    return EAGRE_OK;
}

static int open_env(struct eg_meta *m, const char *path, unsigned flags) {
    int e = mdb_env_create(&m->env);
    if (e == 0)
        e = mdb_env_set_maxdbs(m->env, 8);
    if (e == 0)
        e = mdb_env_set_mapsize(m->env, MAP_BYTES);
    if (e == 0)
        e = mdb_env_set_assert(m->env, on_assert);
    if (e == 0)
        e = mdb_env_open(m->env, path, flags, 0600);
    return e == 0 ? EAGRE_OK : failed(m, "open it", e);
}

/* A new database would give out again the ids that these files go by. */
static int check_no_logs(struct eg_meta *m, const char *dir) {
    char path[PATH_MAX];
    const struct dirent *e;
    bool found = false;
    snprintf(path, sizeof(path), "%.4080s/log", dir);
    DIR *all = opendir(path);
    while (all != NULL && !found && (e = readdir(all)) != NULL)
        found = e->d_name[0] == 't' && e->d_name[1 + strspn(e->d_name + 1, "0123456789")] == '\0';
    if (all != NULL)
        closedir(all);
    if (!found)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_CORRUPT,
                        "%.2000s has log files of topics, but %.2000s/data.mdb, which knows them, is missing: put a copy of the "
                        "database back, or move the log files away, too, to start without topics",
                        path, m->path);
}

/* LMDB writes the first pages of a new file without a flush; cut off by a power cut they would look like damage. So it is
 * made under another name, and has its own when it is on disk. */
static int make_database(struct eg_meta *m, const char *dir) {
    char name[PATH_MAX], made[PATH_MAX], lock[PATH_MAX];
    struct stat st;
    snprintf(name, sizeof(name), "%.4080s/data.mdb", m->path);
    snprintf(made, sizeof(made), "%.4080s/making", m->path);
    snprintf(lock, sizeof(lock), "%.4080s/making-lock", m->path);
    if (stat(name, &st) == 0)
        return EAGRE_OK;
    int rc = check_no_logs(m, dir);
    if (rc != EAGRE_OK)
        return rc;
    unlink(made);
    rc = open_env(m, made, MDB_NOSUBDIR);
    if (rc == EAGRE_OK)
        rc = open_databases(m);
    mdb_env_close(m->env);
    m->env = NULL;
    unlink(lock);
    if (rc == EAGRE_OK && rename(made, name) != 0)
        rc = eg_error_set(EAGRE_E_IO, "cannot create %s: %s", name, strerror(errno));
    return rc;
}

int eg_meta_open(const char *dir, struct eg_meta **out) {
    struct eg_meta *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the metadata");
    snprintf(m->path, sizeof(m->path), "%.4080s/meta", dir);
    int rc = EAGRE_OK;
    if (mkdir(m->path, 0700) != 0 && errno != EEXIST) {
        rc = eg_error_set(EAGRE_E_IO, "cannot create %s: %s", m->path, strerror(errno));
        goto fail;
    }
    rc = make_database(m, dir);
    if (rc == EAGRE_OK)
        rc = open_env(m, m->path, 0);
    if (rc != EAGRE_OK)
        goto fail;
    rc = check_size(m);
    if (rc == EAGRE_OK)
        rc = open_databases(m);
    if (rc == EAGRE_OK)
        rc = sync_directory(m->path);
    if (rc == EAGRE_OK)
        rc = sync_directory(dir);
    if (rc != EAGRE_OK)
        goto fail;
    int dead;
    mdb_reader_check(m->env, &dead); /* slots of killed tools */
    *out = m;
    return EAGRE_OK;
fail:
    eg_meta_close(m);
    return rc;
}

void eg_meta_close(struct eg_meta *m) {
    if (m == NULL)
        return;
    if (m->env != NULL)
        mdb_env_close(m->env);
    free(m);
}

int eg_meta_instance_get(struct eg_meta *m, uint64_t *out) {
    uint32_t low = 0, high = 0;
    MDB_txn *txn;
    int rc = begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = get_u32(m, txn, "instance.low", &low);
    if (rc == EAGRE_OK)
        rc = get_u32(m, txn, "instance.high", &high);
    mdb_txn_abort(txn);
    *out = (uint64_t)high << 32 | low;
    return rc;
}

int eg_meta_instance_put(struct eg_meta *m, uint64_t instance) {
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = put_u32(m, txn, "instance.low", (uint32_t)instance);
    if (rc == EAGRE_OK)
        rc = put_u32(m, txn, "instance.high", (uint32_t)(instance >> 32));
    return end(m, txn, rc);
}

/* ---- topics --------------------------------------------------------------------------------------------- */

static MDB_val name_key(const char *name) { return (MDB_val){strlen(name), (void *)name}; }

static int put_topic(struct eg_meta *m, MDB_txn *txn, const struct eg_meta_topic *t,
                     unsigned flags) {
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
    return rc == 0 ? EAGRE_OK : failed(m, "write a topic", rc);
}

static int read_topic(struct eg_meta *m, const MDB_val *key, const MDB_val *value,
                      struct eg_meta_topic *t) {
    struct record r;
    memset(t, 0, sizeof(*t));
    if (key->mv_size == 0 || key->mv_size > EG_TOPIC_NAME_MAX)
        return damaged(m, "a topic's name is too long");
    memcpy(t->name, key->mv_data, key->mv_size);
    if (value->mv_size < RECORD_HEAD || value->mv_size > sizeof(r))
        return eg_error_add(damaged(m, "its record has a wrong size"), "topic '%s'", t->name);
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
        return eg_error_add(damaged(m, "its record is not sound"), "topic '%s'", t->name);
    memcpy(t->settings, r.settings, n);
    return EAGRE_OK;
}

/* n ids that were never given out; the first is 1. */
static int take_ids(struct eg_meta *m, MDB_txn *txn, const char *counter, uint32_t n,
                    uint32_t *first) {
    uint32_t last;
    int rc = get_u32(m, txn, counter, &last);
    if (rc != EAGRE_OK)
        return rc;
    if (n > UINT32_MAX - last)
        return eg_error_set(EAGRE_E_LIMIT, "%s: the ids of topics and partitions are used up",
                            m->path);
    *first = last + 1;
    return put_u32(m, txn, counter, last + n);
}

int eg_meta_topic_create(struct eg_meta *m, struct eg_meta_topic *t) {
    struct eg_meta_topic new = *t;
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = take_ids(m, txn, "last.topic", 1, &new.uid);
    if (rc == EAGRE_OK)
        rc = take_ids(m, txn, "last.partition", new.partitions, &new.first_partition_uid[0]);
    new.run_length[0] = new.partitions;
    new.runs = 1;
    if (rc == EAGRE_OK)
        rc = put_topic(m, txn, &new, MDB_NOOVERWRITE);
    rc = end(m, txn, rc);
    if (rc == EAGRE_OK)
        *t = new;
    return rc;
}

int eg_meta_topic_grow(struct eg_meta *m, struct eg_meta_topic *t, uint32_t partitions) {
    struct eg_meta_topic new = *t;
    uint32_t first, more = partitions - t->partitions;
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = take_ids(m, txn, "last.partition", more, &first);
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
    rc = end(m, txn, rc);
    if (rc == EAGRE_OK)
        *t = new;
    return rc;
}

int eg_meta_topic_put(struct eg_meta *m, const struct eg_meta_topic *t) {
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    return rc != EAGRE_OK ? rc : end(m, txn, put_topic(m, txn, t, 0));
}

static MDB_val uid_key(uint32_t uid, uint32_t *storage) {
    *storage = htobe32(uid); /* so that they lie in order */
    return (MDB_val){sizeof(*storage), storage};
}

int eg_meta_topic_delete(struct eg_meta *m, const struct eg_meta_topic *t) {
    MDB_txn *txn;
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    MDB_val key = name_key(t->name);
    int e = mdb_del(txn, m->topics, &key, NULL);
    for (uint32_t i = 0; i < t->runs; i++) {
        for (uint32_t k = 0; (e == 0 || e == MDB_NOTFOUND) && k < t->run_length[i]; k++) {
            uint32_t be;
            key = uid_key(t->first_partition_uid[i] + k, &be);
            e = mdb_del(txn, m->marks, &key, NULL);
            if (e == 0 || e == MDB_NOTFOUND)
                e = mdb_del(txn, m->disk, &key, NULL);
        }
    }
    return end(m, txn, e == 0 || e == MDB_NOTFOUND ? EAGRE_OK : failed(m, "delete a topic", e));
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

    int rc = begin(m, MDB_RDONLY, &txn);
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
        rc = failed(m, "read the topics", e);
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
    int rc = begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    char text[96];
    uint32_t be;
    MDB_val key = uid_key(partition_uid, &be), value;
    int e = mdb_get(txn, dbi, &key, &value);
    if (e == 0 && value.mv_size != size) {
        snprintf(text, sizeof(text), "%s has a wrong size", what);
        rc = damaged(m, text);
    } else if (e == 0) {
        memcpy(record, value.mv_data, size);
    } else if (e != MDB_NOTFOUND) {
        snprintf(text, sizeof(text), "read %s", what);
        rc = failed(m, text, e);
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
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        uint32_t be;
        struct mark_record r = {.clean = htole32(marks[i].clean),
                                .end = htole64((uint64_t)marks[i].end),
                                .seq = htole64(marks[i].seq)};
        MDB_val key = uid_key(marks[i].partition_uid, &be), value = {sizeof(r), &r};
        int e = mdb_put(txn, m->marks, &key, &value, 0);
        if (e != 0)
            rc = failed(m, "write a mark", e);
    }
    return end(m, txn, rc);
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
        return failed(m, "read what is noted of a partition's files", e);
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
    int rc = begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        uint32_t be;
        struct eg_meta_disk note = all[i];
        MDB_val key = uid_key(note.partition_uid, &be);
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
            rc = failed(m, "note what is on disk", e);
    }
    return end(m, txn, rc);
}

int eg_meta_last_topic(struct eg_meta *m, uint32_t *out) {
    MDB_txn *txn;
    int rc = begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = get_u32(m, txn, "last.topic", out);
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
