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

#endif
