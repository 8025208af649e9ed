/*
 * shares.h - share groups: the cells of each (group, partition), a kept memfd that its members write (log/share.h has
 * the protocol). The daemon makes them, sweeps after members that are gone, wakes who may take what came back, and
 * commits where each one's start is. Data does not wait for it: members sweep, too.
 */
#ifndef EG_SHARES_H
#define EG_SHARES_H

#include "groups.h"

struct eg_enc;

/* Those that the keeper has; before members are known. */
int eg_shares_start(struct eg_daemon *d);
/* The members are known: what others had is available again. */
void eg_shares_members_known(struct eg_daemon *d);
int64_t eg_shares_tick(struct eg_daemon *d, int64_t now_ns);
/* Where its partitions stand becomes its committed offsets. */
void eg_shares_collect(struct eg_daemon *d, struct eg_group *g);

/* Its number may be another member's soon: to be followed by eg_shares_gone, when all that end now are out. */
void eg_share_member_gone(struct eg_daemon *d, const struct eg_member *m);
/* What all these have acquired is available again. One look at each cell, however many they are. */
void eg_shares_gone(struct eg_daemon *d);
/* The group is deleted, or the daemon stops (drop: the keeper forgets its cells). */
void eg_share_group_gone(struct eg_daemon *d, struct eg_group *g, bool drop);
void eg_shares_topic_gone(struct eg_daemon *d, uint32_t topic_uid);
/* An administrator has set (or forgotten) the offset, while it has no members: it begins there anew. */
void eg_share_put(struct eg_daemon *d, struct eg_group *g, uint32_t topic_uid, uint32_t partition);

/* "in-flight=2 redelivered=1 ..." of what GROUP_OFFSETS lists; false: nobody has opened it. */
bool eg_share_describe(const struct eg_group *g, uint32_t topic_uid, uint32_t partition, char *buf, size_t cap);

#endif
