/*
 * consumer.h - between consumer.c (open, poll, sleep) and assignment.c (what it reads, and where it stands). What a
 * consumer with a group has besides is in group.h.
 */
#ifndef EG_CLIENT_CONSUMER_H
#define EG_CLIENT_CONSUMER_H

#include "client/notifier.h"
#include "client/topic.h"
#include "eagre/consumer.h"
#include "log/reader.h"
#include "sys/errbuf.h"

struct subscription {
    struct eg_topic *topic;
    uint32_t used; /* assigned partitions */
};

struct membership;
struct eg_share_part;

enum eg_how {
    EG_READ = 0,
    EG_NOWHERE, /* auto.offset.reset none, and no seek yet */
    EG_SHARED   /* a share group's: share.c */
};

struct assigned {
    struct subscription *of;
    uint32_t number;
    bool paused;
    bool marked;  /* given.c: about to be told; eg_assigned_sweep: to go */
    uint8_t how;  /* enum eg_how */
    int missing;  /* why the last poll could not read it: no daemon, or no answer (yet); EAGRE_OK: it could */
    struct eg_reader reader;

    /* Of a group: */
    _Atomic int64_t *cell; /* its member's, for commits; NULL: it is assigned by hand, or shared */
    int64_t committed;     /* the last commit of this handle, or where it began; see eg_group_poll */
    int64_t sought;        /* as long as it stands there, and the log was not looked at: it may lie behind its end. -1 */
    struct eg_share_part *share;
};

struct eagre_consumer {
    const uint32_t *fork_guard;
    eagre_t *e;
    struct membership *group; /* NULL: no group_id */
    struct assigned *last;    /* whom poll asked last: what it returned is of this one */
    eagre_consumer_options_t options;
    _Atomic uint64_t *pin;
    _Atomic uint64_t *look_pin; /* for questions that must not unpin what was polled */
    struct subscription **topics;
    size_t topic_count;
    struct assigned **parts;
    size_t part_count;
    uint32_t look_ns;         /* between looks; see adapt() */
    uint64_t got;             /* records since the edge was last met */
    size_t turn;              /* partition that the next poll asks first */
    struct assigned *current; /* the one that is pinned, or NULL */
    uint32_t generation;
    struct eg_until until; /* what the present call may wait for the daemon; see eg_topic_open */
    int missing;           /* the worst of its partitions' */
    int64_t missing_ns;    /* since when */
    int64_t looked_ns;     /* after the session, by polls that do not wait; coarse */
    bool has_bell;
    bool may_membarrier;
    uint32_t bell;
    uint32_t bell_generation;
    struct eg_late *late_bell;
    bool announced; /* bits are set for the notifier */
    struct eg_notifier *notifier;
};

static inline int eg_consumer_usable(const eagre_consumer_t *c) {
    if (c == NULL)
        return eg_error_set(EAGRE_E_INVALID, "no consumer was given");
    return *c->fork_guard != 0 ? EAGRE_OK : eg_session_forked(c->e);
}

/* What was polled is not valid any more. */
static inline void eg_consumer_let_go(eagre_consumer_t *c) {
    if (c->current != NULL)
        eg_reader_unpin(&c->current->reader);
    c->current = NULL;
}

static inline int eg_assigned_error(const struct assigned *a, int rc) {
    return eg_error_add(rc, "topic '%s'", a->of->topic->name);
}

/* Of an instance that was stopped, the memory tells nothing any more. */
static inline bool eg_consumer_stopped(const eagre_consumer_t *c) {
    return eg_load_acquire(&c->e->bus->state) == EG_BUS_STOPPED;
}

/* Take our bits back: we do not sleep. */
void eg_consumer_retract(eagre_consumer_t *c);
/* Look after the session; lets go of what was polled. EAGRE_E_NO_DAEMON: there is none now. */
int eg_consumer_check_session(eagre_consumer_t *c);
/* After another instance was found: map everything anew. */
int eg_consumer_reopen(eagre_consumer_t *c);
/* Stand where auto.offset.reset says. */
int eg_consumer_reset(eagre_consumer_t *c, struct assigned *a);

/* Calls without a timeout of their own wait for the daemon as administration does. */
void eg_consumer_begin_waiting(eagre_consumer_t *c);
int eg_consumer_end_waiting(eagre_consumer_t *c, int rc);

struct assigned *eg_assigned_find(const eagre_consumer_t *c, const char *topic, int32_t partition);
/* A partition, mapped; it stands nowhere yet. EAGRE_E_WOULD_BLOCK: again, as *until says. */
int eg_assigned_make(eagre_consumer_t *c, struct subscription *s, uint32_t partition, struct assigned **out);
/* Of one that was not added. */
void eg_assigned_free(eagre_consumer_t *c, struct assigned *a);
/* Polls ask it from now on. */
int eg_assigned_add(eagre_consumer_t *c, struct assigned *a);
/* Let go of all that are `marked`, and of topics that nobody uses. */
void eg_assigned_sweep(eagre_consumer_t *c);
/* The topic, opened; until somebody makes a partition of it, nobody uses it. topic NULL: only if it is there. */
struct subscription *eg_subscription_find(const eagre_consumer_t *c, const char *topic);
int eg_subscription_add(eagre_consumer_t *c, struct eg_topic *topic, struct subscription **out);

#endif
