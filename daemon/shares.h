/* shares.h - share groups: what the coordinator tells them. */
#ifndef EG_SHARES_H
#define EG_SHARES_H

#include "groups.h"

/* Its number may be another member's soon: what it has acquired is available again. */
void eg_share_member_gone(struct eg_daemon *d, struct eg_member *m);
/* The group is deleted, or the daemon stops (drop: the keeper forgets its cells). */
void eg_share_group_gone(struct eg_daemon *d, struct eg_group *g, bool drop);

#endif
