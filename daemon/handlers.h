/*
 * handlers.h - who answers which message. handlers.c has the table, made from messages.h's list.
 */
#ifndef EG_HANDLERS_H
#define EG_HANDLERS_H

#include "sessions.h"

eg_handler eg_handle_HELLO;    /* handlers.c */
eg_handler eg_handle_SHUTDOWN; /* handlers.c */
eg_handler eg_handle_STATUS;   /* metrics.c */
eg_handler eg_handle_ATTACH;   /* clients.c ... */
eg_handler eg_handle_OPEN;
eg_handler eg_handle_BUFFERS;
eg_handler eg_handle_RELEASE;
eg_handler eg_handle_BELL;
eg_handler eg_handle_BELL_FREE;
eg_handler eg_handle_TOPIC_CREATE; /* topics.c ... */
eg_handler eg_handle_TOPIC_ALTER;
eg_handler eg_handle_TOPIC_DELETE;
eg_handler eg_handle_TOPIC_LIST;
eg_handler eg_handle_TOPIC_DESCRIBE;
eg_handler eg_handle_PARTITIONS;
eg_handler eg_handle_SEGMENT; /* disk_messages.c ... */
eg_handler eg_handle_TRIM;
eg_handler eg_handle_DISK_RESUME;
eg_handler eg_handle_GROUP_JOIN; /* group_messages.c ... */
eg_handler eg_handle_GROUP_SUBSCRIBE;
eg_handler eg_handle_GROUP_SYNC;
eg_handler eg_handle_GROUP_LEAVE;
eg_handler eg_handle_GROUP_COMMIT;
eg_handler eg_handle_GROUP_COMMITTED;
eg_handler eg_handle_GROUP_PUT;
eg_handler eg_handle_GROUP_LIST;
eg_handler eg_handle_GROUP_DESCRIBE;
eg_handler eg_handle_GROUP_OFFSETS;
eg_handler eg_handle_GROUP_DELETE;
eg_handler eg_handle_SHARE_OPEN; /* shares.c */

struct eg_partition;
struct eg_topic;
/* May the peer produce to it, or consume from it? EAGRE_E_PERMISSION. topic_messages.c */
int eg_topic_check_role(const struct eg_session *s, struct eg_topic *t, uint8_t role);
/* The partition, if the client was granted the role on its topic. topic_messages.c */
int eg_find_granted(struct eg_daemon *d, const struct eg_session *s, uint8_t role, uint32_t uid, uint32_t number,
                    struct eg_partition **out);

#endif
