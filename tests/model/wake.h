/*
 * wake.h - two small models of sleeping, beside the ring's.
 *
 * wake: consumers sleep on their doorbells, producers wake them (src/log/waiters.[hc],
 * wait_for_news() in src/client/consumer.c). Each producer publishes its frames, whose places are
 * fixed here: claiming is the ring's business. The frames are in one segment; once all are published
 * the daemon may retire it, and then its reader must learn that, too.
 *
 * idle: the daemon sleeps in epoll while producers have nothing for it, and producers sleep on the
 * futex `room` while the daemon has no slot READY (tell_daemon() in src/log/rotate.c, claim_wait() in
 * src/client/producer.c, daemon/loop.c, eg_partition_room()).
 *
 *   W1  who sleeps has nothing to do: no wake-up is lost. (The code bounds every sleep on top.)
 */
#ifndef MODEL_WAKE_H
#define MODEL_WAKE_H

#include "explorer.h"
#include "options.h"

const struct model *wake_model(void);
const struct model *idle_model(void);

#endif
