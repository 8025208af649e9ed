/* groups.h - what the `group` commands share. */
#ifndef EAGRE_TOOLS_GROUPS_H
#define EAGRE_TOOLS_GROUPS_H

#include "cli.h"
#include "eagre/admin.h"

const char *group_type_name(eagre_group_type_t type);    /* consumer, share */
const char *group_state_name(eagre_group_state_t state); /* Empty, Rebalancing, Stable */

/* Say that the group has members, and which; CLI_REFUSED. */
int group_is_active(const struct cli *c, eagre_t *e, const char *group);
/* cli_fail for a call about a group. */
int group_fail(const struct cli *c, eagre_t *e, const char *group, int status);

#endif
