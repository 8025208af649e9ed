/*
 * share.h - what poll has to do for a member of a share group (group_type EAGRE_GROUP_SHARE). Its partitions are
 * EG_SHARED: poll asks here instead of their readers, which stand nowhere of their own.
 */
#ifndef EG_CLIENT_SHARE_H
#define EG_CLIENT_SHARE_H

#include "client/group.h"

/* a is mapped: SHARE_OPEN (c->group->member, a's topic uid and number), into a->share; a->how = EG_SHARED.
 * EAGRE_E_WOULD_BLOCK: it is called again with the same a, as c->until says. */
int eg_shared_open(eagre_consumer_t *c, struct assigned *a);
/* It goes: what was acquired and not acknowledged is released, if `given_up`; else it is not ours any more. Also of one
 * whose opening is under way. In a fork child it only frees memory. */
void eg_shared_close(eagre_consumer_t *c, struct assigned *a, bool given_up);
/* As eg_reader_poll. */
int eg_shared_poll(eagre_consumer_t *c, struct assigned *a, eagre_record_t *records, size_t max, size_t *n);
/* As eg_reader_has_news. */
bool eg_shared_has_news(const struct assigned *a);
/* Accept what the last poll returned, of a, and nobody acknowledged. */
void eg_shared_accept(struct assigned *a);

/* At the start of each poll, before anything else. The application has come back, so it is done with what the last
 * one returned, which was of c->last. */
static inline void eg_shared_begin(eagre_consumer_t *c) {
    if (__builtin_expect(c->last != NULL && c->last->how == EG_SHARED, 0) && !c->options.share_explicit_ack &&
        !c->group->in_callback) /* from where a poll is refused */
        eg_shared_accept(c->last);
}

#endif
