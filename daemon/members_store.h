/*
 * members_store.h - who is a member of which group and what is its own, for the next daemon: DIR/members/INSTANCE.mdb, an
 * LMDB database that is not synced (MDB_NOSYNC). A crash of the daemon leaves it whole; a crash of the host may not,
 * but then the members are gone as well, and the next instance has a file of its own. One transaction some 10 us.
 *
 * A member that gives partitions up, or is removed, takes its page's cells along, and what was collected from them
 * may not be in the metadata yet. So whatever writes a member notes its group's offsets that are not, in the same
 * transaction: nobody has to wait for a disk before a partition goes on to its next member.
 */
#ifndef EG_MEMBERS_STORE_H
#define EG_MEMBERS_STORE_H

#include "groups.h"
#include "meta_groups.h"

struct eg_members_store;

/* instance: whose memory the members live in; what is there of another one is dropped. What is damaged is made anew:
 * then there are no members. */
int eg_members_store_open(const char *dir, uint64_t instance, struct eg_members_store **out);
void eg_members_store_close(struct eg_members_store *s);

/* As it is read: strings, topics and given are valid during the call. */
struct eg_stored_group {
    uint32_t uid, generation, assignor;
};
int eg_members_store_groups(struct eg_members_store *s, int (*f)(void *ctx, const struct eg_stored_group *g), void *ctx);
/* m: filled but for next, group, client, page; its topics and given are the callee's to keep (malloc'ed), if it says
 * EAGRE_OK or has put NULL there. */
int eg_members_store_members(struct eg_members_store *s, int (*f)(void *ctx, uint32_t group_uid, struct eg_member *m),
                             void *ctx);

/* Offsets that were collected and may not be in the metadata: count if their stamp is higher than there. */
int eg_members_store_offsets(struct eg_members_store *s, int (*f)(void *ctx, const struct eg_meta_offset *o), void *ctx);
/* All that are noted are in the metadata. */
int eg_members_store_forget_offsets(struct eg_members_store *s);

/* Changes are gathered, then made at once: all or none. The outcome of all of them is that of the commit. */
int eg_members_store_begin(struct eg_members_store *s);
int eg_members_store_put_group(struct eg_members_store *s, const struct eg_group *g);
int eg_members_store_put_member(struct eg_members_store *s, const struct eg_member *m);
int eg_members_store_remove_member(struct eg_members_store *s, const struct eg_member *m);
int eg_members_store_remove_group(struct eg_members_store *s, uint32_t group_uid);
/* EAGRE_E_IO (the disk is full ...), or what failed before: nothing of it was made. */
int eg_members_store_commit(struct eg_members_store *s);

#endif
