/* shares.c - share groups. */
#include "shares.h"

#include "handlers.h"
#include "sys/errbuf.h"

void eg_share_member_gone(struct eg_daemon *d, struct eg_member *m) { (void)d, (void)m; }
void eg_share_group_gone(struct eg_daemon *d, struct eg_group *g, bool drop) { (void)d, (void)g, (void)drop; }

int eg_handle_SHARE_OPEN(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    (void)d, (void)s, (void)in, (void)r;
    return eg_error_set(EAGRE_E_UNSUPPORTED, "share groups");
}
