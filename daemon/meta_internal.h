/* meta_internal.h - what the files that use LMDB share: meta_open.c, meta.c, meta_groups.c, members_store.c. */
#ifndef EG_META_INTERNAL_H
#define EG_META_INTERNAL_H

#include "meta.h"

#include <endian.h>
#include <limits.h>
#include <stdbool.h>

#include <lmdb.h>

struct eg_meta {
    MDB_env *env;
    MDB_dbi topics, marks, ids, disk, groups, offsets;
    char path[PATH_MAX];
};

/* meta_open.c. EAGRE_E_* for what LMDB says; and for what it does not see. */
int eg_meta_failed(const struct eg_meta *m, const char *what, int rc);
int eg_meta_damaged(const struct eg_meta *m, const char *what);
int eg_meta_begin(struct eg_meta *m, unsigned flags, MDB_txn **txn);
/* Commits if rc is EAGRE_OK, else aborts; returns the outcome. */
int eg_meta_end(struct eg_meta *m, MDB_txn *txn, int rc);
int eg_meta_get_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t *out); /* 0: there is none */
int eg_meta_put_u32(struct eg_meta *m, MDB_txn *txn, const char *name, uint32_t v);
/* n ids that were never given out; the first is 1. */
int eg_meta_take_ids(struct eg_meta *m, MDB_txn *txn, const char *counter, uint32_t n, uint32_t *first);

/* meta_groups.c: what the groups have committed of a topic goes with it, in its transaction. */
int eg_meta_forget_offsets(struct eg_meta *m, MDB_txn *txn, uint32_t topic_uid);

/* What LMDB takes for granted, and would answer with SIGBUS: has the file the pages it speaks of? 0 or LMDB's error. */
int eg_lmdb_is_cut(MDB_env *env, bool *cut);

static inline MDB_val eg_meta_uid_key(uint32_t uid, uint32_t *storage) {
    *storage = htobe32(uid); /* so that they lie in order */
    return (MDB_val){sizeof(*storage), storage};
}

#endif
