/*
 * group.h - a consumer as a member of a group: what eagre/group.h promises.
 *
 *   group.c       the membership: subscribe, and the daemon's answers one after another
 *   wish.c        what it is subscribed to: names and patterns
 *   given.c       the partitions that the daemon gives and takes; callbacks
 *   commit.c      commits and committed offsets
 *   share.c       share groups
 *
 * Only poll (and what leaves the group) changes what is assigned. It never waits longer than it may: each question to
 * the daemon is a request that a later poll takes up, and all is derived anew from what is known by then.
 */
#ifndef EG_CLIENT_GROUP_H
#define EG_CLIENT_GROUP_H

#include <regex.h>

#include "client/consumer.h"
#include "eagre/group.h"
#include "layout/group.h"
#include "sys/atomic.h"

/* What to be subscribed to: wish.h. */
struct eg_wish {
    char **names; /* as they are; sorted */
    size_t name_count;
    regex_t *patterns;
    size_t pattern_count;
    char **matched; /* by the patterns; sorted */
    size_t matched_count;
    bool listed;    /* `matched` is of the topics that there are */
    bool lenient;   /* names that are not there are left out: they were there before */
    struct eg_names { /* the next `matched`, page by page */
        char **list;
        size_t count, cap;
        char after[EG_TOPIC_NAME_MAX + 1];
    } listing;
    size_t sent;     /* names that the daemon has got already */
    uint32_t told;   /* the epoch of the daemon that has got the first ones */
};

struct eg_given_topic {
    uint32_t uid;
    char name[EG_TOPIC_NAME_MAX + 1];
    struct eg_topic *opening;
};

/* A partition that is ours in one version. */
struct eg_given {
    uint32_t topic; /* its index in the list's topics */
    uint32_t uid, partition, cell;
    uint8_t flags;     /* EG_OFFSET_* */
    bool mine;         /* polls read it, and `assigned` was called */
    bool gone;         /* it is not there (any more); the daemon will say so, too */
    bool placed;       /* a stands where it begins */
    int64_t committed; /* -1: none */
    int64_t retry_ns;  /* it could not be opened: not again before; monotonic */
    struct assigned *a;
};

struct eg_given_list {
    uint32_t version, generation;
    bool whole;
    struct eg_given_topic *topics;
    size_t topic_count, topic_cap;
    struct eg_given *parts; /* sorted by uid, partition */
    size_t count, cap;
};

enum eg_fence {
    EG_IN_GOOD_STANDING = 0,
    EG_PUT_OUT, /* poll has to say so once */
    EG_TAKEN    /* another one has our instance id: out until it subscribes again */
};

struct membership {
    struct eg_member_page *page; /* NULL: not a member now */
    uint64_t polls, commits;     /* what we have stored there */
    uint32_t version, topics;    /* what we have read there, and dealt with */
    bool auto_commit;            /* of a member with cells */
    bool busy;                   /* poll has to do more than the page tells */
    bool waiting;                /* for the daemon; not asked again before next_ns */

    bool subscribed, in_callback;
    uint8_t fence;  /* enum eg_fence */
    bool was_fenced; /* and is not a member again yet */
    bool denied;     /* the daemon says that it is no member, whatever the page says */
    bool moved;     /* a position that poll has not moved: to be committed */
    struct eg_wish wish;
    eagre_rebalance_callbacks_t callbacks;

    /* the member */
    uint64_t member;
    uint32_t number, uid; /* of the member; of its group */
    uint32_t page_generation; /* of the instance whose member it is */
    uint32_t generation;      /* of the group, in which `now` was given */
    bool wish_known;  /* the daemon has all of `wish` */
    uint32_t acked;   /* the version that the daemon knows that we have */
    bool gave_up;     /* something, since: others wait for it */
    struct eg_given_list now, next;
    size_t coming; /* of `now`, that are neither ours nor gone */
    int failed;    /* one of them could not be opened, and poll has not said so yet */
    char failed_text[EG_ERROR_TEXT_MAX];

    /* requests */
    struct eg_late *late;
    uint16_t late_type;
    uint32_t sync_version, sync_skip; /* what the last GROUP_SYNC said */
    int64_t next_ns, since_ns; /* see `waiting` */
    bool away;                 /* the last one found no daemon */
    uint8_t *out, *in;         /* EG_MSG_MAX each */

    /* options */
    char *id, *instance_id;
    char client_id[EG_CLIENT_ID_MAX + 1];
    uint8_t strategy[EG_STRATEGIES_MAX];
    uint8_t strategies;
    uint8_t type; /* enum eg_group_type */
    bool reset_unset;
    int64_t due_ns; /* of partitions assigned by hand: the next auto-commit; coarse */
    bool put_failed; /* the last one was refused, and poll has said so */
};

/* ---- group.c ------------------------------------------------------------------------------------------ */

/* For eagre_consumer_open and _close. c->options' strings are the group's copies afterwards. */
int eg_group_open(eagre_consumer_t *c);
void eg_group_close(eagre_consumer_t *c);
/* The slow half of eg_group_poll. */
int eg_membership_turn(eagre_consumer_t *c) __attribute__((cold));
/* How long poll may sleep for its group's sake. */
int64_t eg_group_nap(const eagre_consumer_t *c);
/* Nothing is read because there is no daemon to be a member with. */
bool eg_group_stranded(const eagre_consumer_t *c);
/* Another instance was found. True: poll will deal with it. */
bool eg_group_outdated(eagre_consumer_t *c);
/* A position was moved by something else than records; by the application: it may be any. */
void eg_group_moved(eagre_consumer_t *c, struct assigned *a, bool sought);
/* An error's text begins with the group; returns rc. */
int eg_group_error(const struct membership *g, int rc);
int eg_group_fenced(const struct membership *g);
/* Ask; the reply is in g->in. As eg_session_request_late, with c->until, and one question at a time: another one than
 * the last gives that up. */
int eg_group_ask(eagre_consumer_t *c, struct eg_enc *req, struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                 uint32_t *generation);

/* Do the page's words tell something new? */
static inline bool eg_group_words_moved(const struct membership *g) {
    const struct eg_member_page *page = g->page;
    /* Acquire: with a version we find ... what the daemon answers then; the page's other words are no older.
     * Partner: the daemon's release stores. */
    return ((eg_load_acquire(&page->version) ^ g->version) | (eg_load_acquire(&page->state) ^ EG_MEMBER_IN) |
            (eg_load_acquire(&page->topics) ^ g->topics)) != 0;
}

/* Is there something that the next poll would do? Cheap: for who is about to sleep. */
static inline bool eg_group_has_news(const eagre_consumer_t *c) {
    const struct membership *g = c->group;
    return g != NULL && g->page != NULL && !g->waiting && eg_group_words_moved(g);
}

/* On this bell. Before the membarrier that comes before the last look. */
static inline void eg_group_sleeps(const eagre_consumer_t *c) {
    const struct membership *g = c->group;
    if (g != NULL && g->page != NULL)
        eg_store_relaxed(&g->page->bell, c->bell + 1);
}

/* We are not stuck. */
static inline void eg_group_pulse(const eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (g != NULL && g->page != NULL)
        eg_store_relaxed(&g->page->polls, ++g->polls);
}

/* ---- commit.c ----------------------------------------------------------------------------------------- */

/* Commit where it stands. A cell, then the count of commits: both release. Partner: the daemon, which loads the count,
 * then the cells, both acquire. */
static inline void eg_commit_cell(struct assigned *a, int64_t offset) {
    a->committed = offset;
    eg_store_release(a->cell, offset);
}
static inline void eg_commit_count(struct membership *g) { eg_store_release(&g->page->commits, ++g->commits); }

/* All positions of a member that are not committed. False: what one of them is worth is not known now. */
bool eg_commit_moved(eagre_consumer_t *c);
/* Auto-commit of what is assigned by hand, when it is due; or at once. */
int eg_commit_by_hand(eagre_consumer_t *c, bool now);
/* The group's offsets of a topic's partitions; -1: none. */
int eg_commit_committed(eagre_consumer_t *c, const char *topic, uint32_t first, uint32_t count, int64_t *offsets);

/* ---- given.c ------------------------------------------------------------------------------------------ */

/* GROUP_SYNC: what is ours in the newest version, page by page; then what `next` does not have is given up. */
int eg_given_fetch(eagre_consumer_t *c);
/* GROUP_SYNC: we have given up all that `now` does not have. */
int eg_given_acknowledge(eagre_consumer_t *c);
/* Open what is coming; when nothing of it has to be waited for, it is ours. EAGRE_E_WOULD_BLOCK, or what one partition
 * could not be opened for. */
int eg_given_take(eagre_consumer_t *c);
/* All goes: with the callback (lost or revoked). */
void eg_given_drop(eagre_consumer_t *c, bool lost);
/* In a fork child: free what is not a part of the consumer yet. */
void eg_given_abandon(eagre_consumer_t *c);
/* When the next one that could not be opened is tried again; INT64_MAX: there is none. */
int64_t eg_given_retry_ns(const struct membership *g);

/* ---- poll's own ---------------------------------------------------------------------------------------- */

/*
 * At the start of each poll, for who has a group. With auto-commit, commit what the last poll returned: it was of
 * c->last, whose position is then another than the one that was committed. Its application has come back, so it is
 * done with the records.
 */
static inline int eg_group_poll(eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (__builtin_expect(g->page == NULL, 0))
        return eg_membership_turn(c);
    eg_store_relaxed(&g->page->polls, ++g->polls); /* relaxed: it only has to move. Reader: the daemon's evictions */
    struct assigned *a = c->last;
    if (g->auto_commit && a != NULL && a->reader.offset != a->committed) {
        eg_commit_cell(a, a->reader.offset);
        eg_commit_count(g);
    }
    return __builtin_expect(!g->busy && !eg_group_words_moved(g), 1) ? EAGRE_OK : eg_membership_turn(c);
}

#endif
