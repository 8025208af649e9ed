/*
 * meta_open.c - the environment in DIR/meta: made, checked, opened; and what all that write to it share. Databases:
 *   topics   name -> record (meta.c)
 *   marks    partition uid -> clean (u32), end (i64), seq (u64)
 *   disk     partition uid -> seq (u64), pos (u64), log start (i64)
 *   groups   group uid -> record (meta_groups.c)
 *   offsets  group uid, topic uid, partition -> record (meta_groups.c)
 *   ids      "format", "last.topic", "last.partition", "last.group", "instance.low", "instance.high" -> u32
 * Numbers in keys are big-endian, so that they lie in order; in values little-endian.
 */
#include "meta_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"
#include "sys/errbuf.h"

#define FORMAT 1u
#define MAP_BYTES ((size_t)8 << 30) /* address space; the file is as large as its content */

int eg_meta_failed(const struct eg_meta *m, const char *what, int rc) {
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

int eg_meta_damaged(const struct eg_meta *m, const char *what) {
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

int eg_lmdb_is_cut(MDB_env *env, bool *cut) {
    struct stat st;
    MDB_envinfo info;
    MDB_stat stat_;
    mdb_filehandle_t fd;
    int e = mdb_env_get_fd(env, &fd);
    if (e == 0)
        e = mdb_env_info(env, &info);
    if (e == 0)
        e = mdb_env_stat(env, &stat_);
    if (e == 0 && fstat(fd, &st) != 0)
        e = errno;
    if (e == 0)
        *cut = (uint64_t)st.st_size / stat_.ms_psize <= info.me_last_pgno && info.me_last_txnid > 0;
    return e;
}

static int check_size(struct eg_meta *m) {
    bool cut;
    int e = eg_lmdb_is_cut(m->env, &cut);
    if (e != 0)
        return eg_meta_failed(m, "open it", e);
    return cut ? eg_meta_damaged(m, "data.mdb has been cut off") : EAGRE_OK;
}

int eg_meta_get_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t *out) {
    MDB_val key = {strlen(name), (void *)name}, value;
    int rc = mdb_get(txn, m->ids, &key, &value);
    if (rc == MDB_NOTFOUND) {
        *out = 0;
        return EAGRE_OK;
    }
    if (rc != 0)
        return eg_meta_failed(m, "read", rc);
    uint32_t v;
    if (value.mv_size != sizeof(v))
        return eg_meta_damaged(m, "a number has a wrong size");
    memcpy(&v, value.mv_data, sizeof(v));
    *out = le32toh(v);
    return EAGRE_OK;
}

int eg_meta_put_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t v) {
    v = htole32(v);
    MDB_val key = {strlen(name), (void *)name}, value = {sizeof(v), &v};
    int rc = mdb_put(txn, m->ids, &key, &value, 0);
    return rc == 0 ? EAGRE_OK : eg_meta_failed(m, "write", rc);
}

int eg_meta_begin(struct eg_meta *m, unsigned flags, MDB_txn **txn) {
    int rc = mdb_txn_begin(m->env, NULL, flags, txn);
    return rc == 0 ? EAGRE_OK : eg_meta_failed(m, "begin a transaction", rc);
}

int eg_meta_end(struct eg_meta *m, MDB_txn *txn, int rc) {
    if (rc != EAGRE_OK) {
        mdb_txn_abort(txn);
        return rc;
    }
    int e = mdb_txn_commit(txn);
    return e == 0 ? EAGRE_OK : eg_meta_failed(m, "commit a transaction", e);
}

int eg_meta_take_ids(struct eg_meta *m, MDB_txn *txn, const char *counter, uint32_t n, uint32_t *first) {
    uint32_t last;
    int rc = eg_meta_get_u32(m, txn, counter, &last);
    if (rc != EAGRE_OK)
        return rc;
    if (n > UINT32_MAX - last)
        return eg_error_set(EAGRE_E_LIMIT, "%s: its ids (%s) are used up", m->path, counter);
    *first = last + 1;
    return eg_meta_put_u32(m, txn, counter, last + n);
}

static int open_databases(struct eg_meta *m) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } all[] = {{"topics", &m->topics}, {"marks", &m->marks},   {"ids", &m->ids},
               {"disk", &m->disk},     {"groups", &m->groups}, {"offsets", &m->offsets}};
    int e = 0;
    for (size_t i = 0; e == 0 && i < sizeof(all) / sizeof(all[0]); i++)
        e = mdb_dbi_open(txn, all[i].name, MDB_CREATE, all[i].dbi);
    uint32_t format = 0;
    rc = e == 0 ? eg_meta_get_u32(m, txn, "format", &format) : eg_meta_failed(m, "open it", e);
    if (rc == EAGRE_OK && format == 0)
        rc = eg_meta_put_u32(m, txn, "format", FORMAT);
    else if (rc == EAGRE_OK && format != FORMAT)
        rc = eg_error_set(EAGRE_E_VERSION,
                          "%s has format %u, this eagred knows %u: use the version that made it",
                          m->path, format, FORMAT);
    return eg_meta_end(m, txn, rc);
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
    return e == 0 ? EAGRE_OK : eg_meta_failed(m, "open it", e);
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
    int rc = eg_meta_begin(m, MDB_RDONLY, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_get_u32(m, txn, "instance.low", &low);
    if (rc == EAGRE_OK)
        rc = eg_meta_get_u32(m, txn, "instance.high", &high);
    mdb_txn_abort(txn);
    *out = (uint64_t)high << 32 | low;
    return rc;
}

int eg_meta_instance_put(struct eg_meta *m, uint64_t instance) {
    MDB_txn *txn;
    int rc = eg_meta_begin(m, 0, &txn);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_meta_put_u32(m, txn, "instance.low", (uint32_t)instance);
    if (rc == EAGRE_OK)
        rc = eg_meta_put_u32(m, txn, "instance.high", (uint32_t)(instance >> 32));
    return eg_meta_end(m, txn, rc);
}
