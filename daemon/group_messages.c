/* group_messages.c - what members and tools ask of groups. */
#include "groups.h"
#include "handlers.h"
#include "sys/errbuf.h"

#define NOT_YET(name)                                                                              \
    int eg_handle_##name(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,             \
                         struct eg_reply *r) {                                                     \
        (void)d, (void)s, (void)in, (void)r;                                                       \
        return eg_error_set(EAGRE_E_UNSUPPORTED, #name);                                           \
    }
NOT_YET(GROUP_JOIN)
NOT_YET(GROUP_SUBSCRIBE)
NOT_YET(GROUP_SYNC)
NOT_YET(GROUP_LEAVE)
NOT_YET(GROUP_COMMIT)
NOT_YET(GROUP_COMMITTED)
NOT_YET(GROUP_PUT)
NOT_YET(GROUP_LIST)
NOT_YET(GROUP_DESCRIBE)
NOT_YET(GROUP_OFFSETS)
NOT_YET(GROUP_DELETE)
NOT_YET(SHARE_OPEN)
