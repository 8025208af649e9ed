/*
 * groups.h - consumer groups: the daemon as their coordinator.
 *
 *   groups.c            the table, its start from what is stored, its tick
 *   group_members.c     join, leave, death, eviction, static members that are away
 *   group_pages.c       members' numbers, ids and pages; what is theirs goes to the store
 *   group_topics.c      what members subscribe
 *   group_target.c      what each generation is to give to whom
 *   group_rebalance.c   the way there
 *   group_offsets.c     committed offsets: collected from members' pages, written, read
 *   group_messages.c    what members and tools ask
 *   shares.c            share groups
 *   meta_groups.c       groups and offsets in the metadata (synced)
 *   members_store.c     members and what is theirs (not synced: it is of no use without the kept memory)
 *
 * The way of a partition: `given` to a member (noted in the store before the member can learn of it), the
 * member's `version` goes up, GROUP_SYNC tells it. Taking it away: the member is told a version without it; when
 * it says that it has applied that version the member's commits are collected once more, and only then the
 * partition is free for another one. A member that died or was put out gives everything up at once: its page tells
 * its last commits.
 */
#ifndef EG_GROUPS_H
#define EG_GROUPS_H

#include "daemon.h"
#include "eagre/group.h"
#include "layout/group.h"

struct eg_account;
struct eg_client;
struct eg_dec;
struct eg_group;
struct eg_meta_offset;
struct eg_partition;
struct eg_topic;

/* A partition that a member has, or may still have. */
struct eg_given {
    uint32_t topic_uid;
    uint32_t partition;
    uint32_t cell;
    bool leaving;      /* it is told to give it up */
    uint32_t gone;     /* then: the first version without it; 0: not made yet */
    int64_t collected; /* group_offsets.c: what its cell said when it was looked at last */
    bool strange;      /* ... and the log has no such offset: it is not taken */
};

struct eg_member {
    struct eg_member *next; /* of the group, in the order that assignors want; when it is gone: of those */
    struct eg_member *next_of_client;
    struct eg_group *group;
    struct eg_account *account;
    uint64_t id;
    uint32_t number;         /* 1 .. EG_MEMBERS_MAX */
    struct eg_client *client; /* NULL: a static member that is away */
    uint32_t owner;          /* the client's number and cookie: who it is after a restart */
    uint64_t cookie;
    uint32_t uid, pid;
    char instance_id[EG_INSTANCE_ID_MAX + 1]; /* "": dynamic */
    char client_id[EG_CLIENT_ID_MAX + 1];
    uint8_t strategy[EG_STRATEGIES_MAX]; /* enum eg_assignor; 0: no more */
    uint32_t max_poll_ms, session_ms, commit_ms; /* max.poll.interval.ms, session.timeout.ms, auto.commit.interval.ms */
    uint32_t node; /* NUMA; UINT32_MAX: unknown */

    bool by_pattern;
    char **topics; /* subscribed names, sorted; group_topics.c has one copy for all members */
    size_t topic_count;
    char **coming; /* of a SUBSCRIBE in parts: those before the last part */
    size_t coming_count;
    bool coming_began;
    bool subscribed; /* ever */

    struct eg_member_page *page; /* NULL: away */
    int page_fd;
    uint32_t cells_ready; /* group_pages.c: so many have memory behind them */
    uint32_t version, applied; /* of its assignment: the last one made, and the last one that it said it has */
    uint32_t generation;       /* in which that version was made */
    struct eg_given *given;
    size_t given_count, given_cap;
    size_t leaving;     /* of these */
    size_t fresh;       /* group_rebalance.c: at the end of `given`, not sorted in yet */
    bool bump;          /* its list differs from that of `version` */
    bool got;           /* because something was given to it in this turn */
    bool made;          /* `version` was made in this turn */
    bool untold;        /* it could not be noted yet */
    bool unsaved;       /* the store does not have it like this */
    bool freed;         /* ... but what it has given up: those cells still say what was committed */
    bool is_gone;       /* not in its group any more, but still in the store */
    uint64_t share_sum; /* share groups: of the partitions that it was told */
    uint64_t list_sum;  /* group_messages.c: of the list that it was told the first part of */

    uint64_t polls;      /* as seen last */
    int64_t polled_ns;   /* when that changed */
    int64_t unapplied_ns; /* since when it owes us GROUP_SYNC; 0: it does not */
    int64_t away_ns;     /* since when a static member is away; 0: it is here */

    uint64_t seen;    /* group_offsets.c, as the next ones: `commits` of its page, as collected last */
    uint64_t commits; /* the last ones that were all taken */
    uint64_t writing; /* those that the job under way covers */
    uint64_t stored;  /* those that are in the database, as its page says, too */
    int64_t look_ns;  /* at its page */
    uint32_t quiet_looks; /* since it has committed */
    bool strange;     /* it was told in the log that its cells say nonsense */
};

/* A committed offset. */
struct eg_committed {
    uint32_t topic_uid, partition;
    int64_t offset;  /* -1: none */
    int64_t time_ms; /* realtime, of the commit */
    uint64_t stamp;  /* of two of the same partition the later one has the higher one */
    uint32_t flags;  /* EG_OFFSET_* */
    bool dirty;      /* not on its way to the database yet */
    bool writing;    /* on its way */
    char *metadata;  /* NULL: none */
};

struct eg_group {
    uint32_t uid; /* never reused */
    char name[EG_GROUP_NAME_MAX + 1];
    enum eg_group_type type;
    uint32_t owner_uid; /* Unix uid of who made it */
    struct eg_account *account;
    enum eg_group_state state; /* as of its last turn in the tick */
    uint32_t generation;
    enum eg_assignor assignor; /* of the present generation */
    struct eg_member *members;
    size_t member_count;
    bool from_store; /* its generation came from there */

    /* group_rebalance.c */
    uint32_t changed; /* enum eg_why, or'ed: a new generation is due; 0: it is not */
    int64_t due_ns;   /* when; several changes are one rebalance */
    int64_t last_due_ns; /* at the latest */
    int64_t calm_ns;     /* not before: rebalances take a part of the daemon's time at most */
    bool queued, push;   /* it has a turn in the next tick; there may be something to be given */
    struct eg_group *next_queued;
    int64_t retry_ns;
    struct eg_target *target;
    uint64_t quiet; /* generations that were not told in the log */
    int64_t told_ns;

    struct eg_committed *offsets; /* group_offsets.c, as the next ones: by topic uid, partition */
    size_t offset_count, offset_cap;
    size_t metadata_bytes;
    uint32_t noted_generation; /* one that the metadata have, or a higher one */
    bool dirty;             /* some are */
    uint64_t noted_round;   /* members_store.c: all that are not in the database are noted there; 0: not */
    int64_t empty_since_ms; /* realtime; 0: it is not, or not known to be */
    struct eg_share_part *shares;  /* shares.c */
    bool share_gone;               /* members of it are gone, and it was not swept after them */
};

struct eg_groups {
    struct eg_group **list;   /* by name */
    struct eg_group **by_uid; /* as many */
    size_t count, cap;
    struct eg_member *by_number[EG_MEMBERS_MAX + 1];
    size_t member_count;
    uint64_t last_member; /* the last id given out, without its low bits, which are the number's */
    uint32_t last_number;
    struct eg_member *gone; /* removed, but the store still has them */
    int64_t remove_ns;      /* when that is tried again */
    bool share_gone;        /* so it is with some group */
    struct eg_members_store *store;
    struct eg_offset_writer *writer; /* group_offsets.c */
    struct eg_names *names;          /* group_topics.c */
    struct eg_group *queue, **queue_end; /* group_rebalance.c, as the next one; the last one's link */
    int64_t look_ns;                 /* group_members.c: at members that may have stopped polling */
    size_t share_parts;              /* shares.c */
    int64_t shares_ns;               /* shares.c: next look at them */
};

/* Generations that may have been given out and not be noted in the metadata: where the members are lost, the count goes
 * on behind them. */
#define EG_GENERATIONS_UNNOTED 10000u

/* After the janitor: so that what it finds has its turn in the same round. */
extern const struct eg_service eg_groups_service; /* groups.c */

/* ---- groups.c ---------------------------------------------------------------------------------------- */

struct eg_group *eg_group_find(struct eg_daemon *d, const char *name); /* NULL: none */
/* Made if it is not there. EAGRE_E_INVALID (name), _PERMISSION (another user's), _INVALID_CONFIG (other type), _LIMIT. */
int eg_group_need(struct eg_daemon *d, const char *name, enum eg_group_type type, uint32_t uid, struct eg_group **out);
/* May this user change the group or be a member of it? Its maker, root and the daemon's own user may. */
int eg_group_check_access(const struct eg_daemon *d, const struct eg_group *g, uint32_t uid);
int eg_group_delete(struct eg_daemon *d, struct eg_group *g);
struct eg_group *eg_group_by_uid(struct eg_daemon *d, uint32_t uid); /* NULL: none (any more) */
/* Where in the list the names behind this one begin. */
size_t eg_group_place_after(struct eg_daemon *d, const char *name);
/* topics.c: the topic of that name is new, has more partitions, is open to others, or is gone. */
void eg_groups_topic_changed(struct eg_daemon *d, const char *name);

/* ---- group_members.c ----------------------------------------------------------------------------------- */

struct eg_join {
    char instance_id[EG_INSTANCE_ID_MAX + 1];
    char client_id[EG_CLIENT_ID_MAX + 1];
    uint8_t strategy[EG_STRATEGIES_MAX];
    uint32_t max_poll_ms, session_ms, commit_ms, node;
};

/* The member of that id that is this client's. EAGRE_E_FENCED. */
int eg_member_find(struct eg_daemon *d, const struct eg_client *c, uint64_t id, struct eg_member **out);
int eg_member_join(struct eg_daemon *d, struct eg_group *g, struct eg_client *c, const struct eg_join *j,
                   struct eg_member **out);
/* back: a static one that is away then. */
void eg_member_leave(struct eg_daemon *d, struct eg_member *m, bool back);
/* When two witnesses agree that the client is dead, or it took its leave. At once, before its repair. */
void eg_groups_client_gone(struct eg_daemon *d, struct eg_client *c);
/* ATTACH: it says which members it is; others of it leave. */
void eg_groups_client_back(struct eg_daemon *d, struct eg_client *c, struct eg_dec ids, size_t count);
int64_t eg_members_tick(struct eg_daemon *d, int64_t now_ns); /* evictions; static members that do not come back */
int eg_members_start(struct eg_daemon *d);
void eg_members_forget(struct eg_daemon *d); /* at a stop */
/* Those with a pattern are told that there are other topics now. */
void eg_members_look_again(struct eg_daemon *d);

/* ---- group_pages.c -------------------------------------------------------------------------------------- */

/* A number, an id and a page of its own; again: for one that was away. It is not in the store yet. */
int eg_member_page_make(struct eg_daemon *d, struct eg_member *m);
/* After a restart. False: it is not there, or not what it should be. */
bool eg_member_page_take(struct eg_daemon *d, struct eg_member *m);
/* The keeper forgets it, too, if drop. */
void eg_member_page_close(struct eg_daemon *d, struct eg_member *m, bool drop);
/* Who sleeps there looks again, after what was changed before. */
void eg_member_ring(struct eg_daemon *d, const struct eg_member *m);
/* Says that it is out (EG_MEMBER_OUT, _TAKEN) and wakes who waits there. */
void eg_member_page_out(struct eg_member *m, uint32_t state);
/* Of members that nobody knows: they are out. */
void eg_member_pages_drop_left(struct eg_daemon *d);
/* Room for the cell, and no commit in it. */
int eg_member_cell_clear(struct eg_member *m, uint32_t cell);
void eg_member_free(struct eg_daemon *d, struct eg_member *m);
/* What has changed of g's members (NULL: none), and who is gone, goes to the store in one transaction. */
int eg_members_save(struct eg_daemon *d, struct eg_group *g);

/* ---- group_topics.c -------------------------------------------------------------------------------------- */

#define EG_SUBSCRIBE_MAX 1000u /* topics; a client cannot use more: EG_CLIENT_GRANTS */

/* One name, for all who subscribe it. */
struct eg_name {
    struct eg_name *next;
    uint32_t refs;
    uint32_t index;  /* group_rebalance.c, while it computes, as the next one */
    uint64_t mark;
    char text[];
};
int eg_names_open(struct eg_names **out);
void eg_names_close(struct eg_names *n);
char *eg_name_get(struct eg_names *n, const char *text); /* NULL: no memory */
void eg_name_put(struct eg_names *n, char *text);
bool eg_name_is_used(const struct eg_names *n, const char *text);
struct eg_name *eg_name_of(char *text);
void eg_names_put_all(struct eg_names *n, char **texts, size_t count); /* and free */
/* A member that was read from the store: its own copies become the common ones. */
int eg_names_share(struct eg_names *n, struct eg_member *m);
bool eg_member_subscribes(const struct eg_member *m, const char *topic);
/* A subscription in parts: the names that come are gathered; then they are what the member subscribes. EAGRE_E_LIMIT,
 * EAGRE_E_NO_MEMORY, EAGRE_E_IO: what it subscribed before holds. */
void eg_member_forget_coming(struct eg_daemon *d, struct eg_member *m);
int eg_member_add_coming(struct eg_daemon *d, struct eg_member *m, const char *topic);
int eg_member_subscribe(struct eg_daemon *d, struct eg_member *m, bool pattern);

/* ---- group_rebalance.c ---------------------------------------------------------------------------------- */

enum eg_why {
    EG_WHY_JOINED = 1,
    EG_WHY_LEFT = 2,
    EG_WHY_DIED = 4,
    EG_WHY_EVICTED = 8,
    EG_WHY_SUBSCRIBED = 16,
    EG_WHY_TOPICS = 32, /* these two make a new generation only if something moves */
    EG_WHY_RESTARTED = 64
};

void eg_group_change(struct eg_daemon *d, struct eg_group *g, enum eg_why why); /* a new generation is due */
int64_t eg_rebalance_tick(struct eg_daemon *d, int64_t now_ns);
/* The member says so (GROUP_SYNC). EAGRE_E_INVALID: there is no such version yet. */
int eg_member_applied(struct eg_daemon *d, struct eg_member *m, uint32_t version);
/* It gives up what it has, at once: it is gone. */
void eg_member_give_up(struct eg_member *m);
/* It is away: what it was told to give up it has given up. */
void eg_member_settle(struct eg_member *m);
/* There may be something to be given, or another state. */
void eg_group_turn(struct eg_daemon *d, struct eg_group *g);
void eg_group_next_generation(struct eg_daemon *d, struct eg_group *g);
void eg_rebalance_forget(struct eg_daemon *d, struct eg_group *g); /* it is about to go */
/* It learns a new version with its group's next turn. */
void eg_member_tell(struct eg_daemon *d, struct eg_member *m);
/* An assignor that all of its members and these strategies have in common. but: who does not count (NULL: all do). */
bool eg_group_agrees(const struct eg_group *g, const uint8_t *strategy, const struct eg_member *but);
void eg_target_free(struct eg_target *t);

/* ---- group_offsets.c -------------------------------------------------------------------------------------- */

int eg_offsets_start(struct eg_daemon *d); /* load; clamp after a lossy start */
void eg_offsets_stop(struct eg_daemon *d); /* collect and write everything */
int64_t eg_offsets_tick(struct eg_daemon *d, int64_t now_ns);
/* Take what the member's cells say. Before a partition of it is free for another. */
void eg_offsets_collect(struct eg_daemon *d, struct eg_member *m);
/* NULL: none. Of a consumer group; of a share group its start. */
struct eg_committed *eg_offset_find(struct eg_group *g, uint32_t topic_uid, uint32_t partition);
/* Set it; in memory now, in the database within a second (or see the next one). offset -1: forget it. EAGRE_E_NO_MEMORY,
 * EAGRE_E_LIMIT (metadata of the group). */
int eg_offset_set(struct eg_daemon *d, struct eg_group *g, uint32_t topic_uid, uint32_t partition, int64_t offset,
                  uint32_t flags, const char *metadata);
/* There is something to be written: begin in the next tick. */
void eg_offsets_hurry(struct eg_daemon *d);
/* All of the list (topic, partition, offset, metadata; the rest is filled in) or nothing; in the database before it returns. */
int eg_offsets_put(struct eg_daemon *d, struct eg_group *g, struct eg_meta_offset *list, size_t count);
/* One behind the last offset that is taken; or less, but not less than wanted. */
int64_t eg_offsets_log_end(struct eg_partition *p, int64_t wanted);
/* Of a group that is freed. */
void eg_offsets_free(struct eg_group *g);
/* The topic is deleted: in the metadata they are gone with it. */
void eg_offsets_forget_topic(struct eg_daemon *d, uint32_t topic_uid);

#endif
