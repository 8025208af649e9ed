/*
 * groups.h - consumer groups: the daemon as their coordinator.
 *
 *   groups.c            the table, its start from what is stored, its tick
 *   group_members.c     join, leave, death, eviction, static members that are away
 *   group_rebalance.c   what each generation gives to whom, and the way there
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

struct eg_client;
struct eg_group;
struct eg_topic;

/* A partition that a member has, or may still have. */
struct eg_given {
    uint32_t topic_uid;
    uint32_t partition;
    uint32_t cell;
    bool leaving;      /* it is told to give it up */
    int64_t collected; /* group_offsets.c: what its cell said when it was looked at last */
};

struct eg_member {
    struct eg_member *next; /* of the group, in the order that assignors want */
    struct eg_group *group;
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
    char **topics; /* subscribed names, sorted */
    size_t topic_count;

    struct eg_member_page *page; /* NULL: away */
    int page_fd;
    uint32_t version, applied; /* of its assignment: the last one made, and the last one that it said it has */
    uint32_t generation;       /* in which that version was made */
    struct eg_given *given;
    size_t given_count, given_cap;
    uint32_t cell_hint;

    uint64_t polls;      /* as seen last */
    int64_t polled_ns;   /* when that changed */
    int64_t unapplied_ns; /* since when it owes us GROUP_SYNC; 0: it does not */
    int64_t away_ns;     /* since when a static member is away; 0: it is here */

    uint64_t commits; /* group_offsets.c: of its page, as collected last */
    uint64_t wanted;  /* GROUP_COMMIT asks for this to be stored; what is, is in the page */
};

/* A committed offset. */
struct eg_committed {
    uint32_t topic_uid, partition;
    int64_t offset;  /* -1: none */
    int64_t time_ms; /* realtime, of the commit */
    uint32_t flags;  /* EG_OFFSET_* */
    bool dirty;      /* not on its way to the database yet */
    char *metadata;  /* NULL: none */
};

struct eg_group {
    uint32_t uid; /* never reused */
    char name[EG_GROUP_NAME_MAX + 1];
    enum eg_group_type type;
    uint32_t owner_uid; /* Unix uid of who made it */
    enum eg_group_state state;
    uint32_t generation;
    enum eg_assignor assignor; /* of the present generation */
    struct eg_member *members;
    size_t member_count;
    bool changed;    /* members, subscriptions or topics: a new generation is due */
    int64_t due_ns;  /* when; several changes are one rebalance */
    struct eg_target *target; /* group_rebalance.c */

    struct eg_committed *offsets; /* by topic uid, partition */
    size_t offset_count, offset_cap;
    bool dirty;                    /* some are */
    struct eg_share_part *shares;  /* shares.c */
};

struct eg_groups {
    struct eg_group **list; /* by name */
    size_t count, cap;
    struct eg_member *by_number[EG_MEMBERS_MAX + 1];
    size_t member_count;
    uint64_t last_member; /* the last id given out */
    struct eg_members_store *store;
    struct eg_offset_writer *writer; /* group_offsets.c */
    int64_t tick_ns;
};

extern const struct eg_service eg_groups_service; /* groups.c: after clients, before the janitor */

/* ---- groups.c ---------------------------------------------------------------------------------------- */

struct eg_group *eg_group_find(struct eg_daemon *d, const char *name); /* NULL: none */
/* Made if it is not there. EAGRE_E_INVALID (name), _PERMISSION (another user's), _INVALID_CONFIG (other type), _LIMIT. */
int eg_group_need(struct eg_daemon *d, const char *name, enum eg_group_type type, uint32_t uid, struct eg_group **out);
/* May this user change the group or be a member of it? Its maker, root and the daemon's own user may. */
int eg_group_check_access(const struct eg_daemon *d, const struct eg_group *g, uint32_t uid);
int eg_group_delete(struct eg_daemon *d, struct eg_group *g);
/* topics.c: a topic is new, has more partitions, or is about to go (then its offsets go, too). */
void eg_groups_topics_changed(struct eg_daemon *d);
void eg_groups_forget_topic(struct eg_daemon *d, const struct eg_topic *t);
/* clients.c, when two witnesses agree that it is dead, or it took its leave. At once, before its repair. */
void eg_groups_client_gone(struct eg_daemon *d, struct eg_client *c);

/* ---- group_members.c ----------------------------------------------------------------------------------- */

/* The member of that id that is this client's. EAGRE_E_FENCED. */
int eg_member_find(struct eg_daemon *d, const struct eg_client *c, uint64_t id, struct eg_member **out);
void eg_member_remove(struct eg_daemon *d, struct eg_member *m, const char *why); /* everything is free at once */
int64_t eg_members_tick(struct eg_daemon *d, int64_t now_ns); /* evictions; static members that do not come back */

/* ---- group_rebalance.c ---------------------------------------------------------------------------------- */

void eg_group_change(struct eg_daemon *d, struct eg_group *g); /* a new generation is due */
int64_t eg_rebalance_tick(struct eg_daemon *d, int64_t now_ns);
/* The member says so (GROUP_SYNC). */
int eg_member_applied(struct eg_daemon *d, struct eg_member *m, uint32_t version);

/* ---- group_offsets.c -------------------------------------------------------------------------------------- */

int eg_offsets_start(struct eg_daemon *d); /* load; clamp after a lossy start */
void eg_offsets_stop(struct eg_daemon *d); /* collect and write everything */
int64_t eg_offsets_tick(struct eg_daemon *d, int64_t now_ns);
/* Take what the member's cells say. Before a partition of it is free for another. */
void eg_offsets_collect(struct eg_daemon *d, struct eg_member *m);
/* NULL: none. Of a consumer group; of a share group its start. */
struct eg_committed *eg_offset_find(struct eg_group *g, uint32_t topic_uid, uint32_t partition);
/* Set it; in memory now, in the database soon (or see eg_offsets_flush). offset -1: forget it. EAGRE_E_NO_MEMORY */
int eg_offset_set(struct eg_daemon *d, struct eg_group *g, uint32_t topic_uid, uint32_t partition, int64_t offset,
                  uint32_t flags, const char *metadata);
/* Into the database before it returns. */
int eg_offsets_flush(struct eg_daemon *d, struct eg_group *g);
/* Start writing now. */
void eg_offsets_hurry(struct eg_daemon *d);

#endif
