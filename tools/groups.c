#include "groups.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MEMBERS_TOLD 5

const char *group_type_name(eagre_group_type_t type) { return type == EAGRE_GROUP_SHARE ? "share" : "consumer"; }

const char *group_state_name(eagre_group_state_t state) {
    return state == EAGRE_GROUP_STABLE ? "Stable" : state == EAGRE_GROUP_EMPTY ? "Empty" : "Rebalancing";
}

/* "17 (pid 4711, client 'eagre')"; control characters that a client has put into its name do nothing here. */
static size_t tell(char *to, size_t cap, const eagre_group_member_t *m, bool first) {
    int n;
    if (m->pid == 0)
        n = snprintf(to, cap, "%s%" PRIu64 " (instance '%s', away)", first ? "" : ", ", m->member, m->instance_id);
    else
        n = snprintf(to, cap, "%s%" PRIu64 " (pid %" PRId32 ", client '%s')", first ? "" : ", ", m->member, m->pid,
                     m->client_id);
    size_t used = n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)to[i] < 0x20 || to[i] == 0x7f)
            to[i] = '?';
    return used;
}

int group_is_active(const struct cli *c, eagre_t *e, const char *group) {
    char who[MEMBERS_TOLD * 400];
    eagre_group_info_t *info;
    size_t used = 0;
    int rc = eagre_group_describe(e, group, &info);
    if (rc != EAGRE_OK)
        return cli_fail(c, rc);
    who[0] = '\0';
    for (size_t i = 0; i < info->member_count && i < MEMBERS_TOLD; i++)
        used += tell(who + used, sizeof(who) - used, &info->members[i], i == 0);
    if (info->member_count > MEMBERS_TOLD)
        snprintf(who + used, sizeof(who) - used, " and %zu more", info->member_count - MEMBERS_TOLD);
    if (info->member_count == 0)
        cli_error(c, "group '%s' had members until now: try again", group);
    else
        cli_error(c, "group '%s' is in use: %zu member%s: %s; end %s first", group, info->member_count,
                  info->member_count == 1 ? "" : "s", who, info->member_count == 1 ? "it" : "them");
    eagre_group_info_free(info);
    return CLI_REFUSED;
}

int group_fail(const struct cli *c, eagre_t *e, const char *group, int status) {
    return status == EAGRE_E_GROUP_ACTIVE ? group_is_active(c, e, group) : cli_fail(c, status);
}
