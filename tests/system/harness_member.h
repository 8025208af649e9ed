/*
 * harness_member.h - members of consumer groups by hand, over the raw protocol: each has a connection and is a client of
 * its own. What they are told is checked against a table of all: a partition is one member's in a generation, and no
 * other's before that one has given it up.
 */
#ifndef EG_TESTS_HARNESS_MEMBER_H
#define EG_TESTS_HARNESS_MEMBER_H

#include "harness.h"
#include "harness_raw.h"
#include "layout/group.h"

struct eg_part {
    uint32_t topic_uid, partition, cell;
    int64_t committed;
    uint8_t flags;
    char topic[EG_TOPIC_NAME_MAX + 1];
};

struct eg_raw_member {
    struct eg_raw r;
    uint32_t owner; /* of the client */
    int client_fd;  /* its page: open and locked as long as it lives */
    uint64_t cookie;
    uint64_t id;
    uint64_t place; /* that, or its instance id's: who it is from one life to the next */
    uint16_t number;
    uint32_t group_uid;
    int page_fd;
    struct eg_member_page *page; /* NULL: not a member */
    uint32_t version, generation;
    struct eg_part *part; /* what it has */
    size_t count;
};

struct eg_join_options {
    const char *instance_id;
    const char *client_id;
    uint8_t type;
    uint8_t strategy[EG_STRATEGIES_MAX]; /* 0s: cooperative-sticky */
    uint32_t max_poll_ms, session_ms;    /* 0: 5 minutes, 45 s */
};

/* For a set-up: nobody has anything. */
void eg_rm_forget_all(void);
/* Connect, HELLO, ATTACH (new). */
void eg_rm_connect(struct eg_raw_member *m, const char *socket);
/* As the same client after a restart of the daemon; says that it is this member, or (as_none) that it is none. */
int eg_rm_reconnect(struct eg_raw_member *m, const char *socket, bool as_none);
/* The reply's status; 0: the page is mapped. */
int eg_rm_join(struct eg_raw_member *m, const char *group, const struct eg_join_options *o);
/* Names end with NULL. */
int eg_rm_subscribe(struct eg_raw_member *m, const char *const *names, uint8_t more_flags);
int eg_rm_leave(struct eg_raw_member *m, uint8_t how);
/* One page of GROUP_SYNC, as it is: status. */
int eg_rm_ask_sync(struct eg_raw_member *m, uint32_t applied, uint32_t skip);
/* If its page says so: the new list, what is not in it given up, then applied. True: it was so. */
bool eg_rm_follow(struct eg_raw_member *m);
/* Only the first half: the list is taken over, but nothing said about it. Returns the version. */
uint32_t eg_rm_learn(struct eg_raw_member *m);
/* Those that are members follow until their group is stable, and together they have `total` partitions. */
void eg_rm_settle(struct eg_raw_member *list, size_t n, const char *group, size_t total);
/* A commit as members do it. */
void eg_rm_commit(struct eg_raw_member *m, size_t index, int64_t offset);
/* It is a member no more, as far as we are concerned. */
void eg_rm_forget(struct eg_raw_member *m);
/* Close, too: the client goes. */
void eg_rm_close(struct eg_raw_member *m);

struct eg_rm_group {
    uint8_t type, state;
    uint32_t generation, members;
    char assignor[32];
};
int eg_rm_describe(struct eg_raw *r, const char *group, struct eg_rm_group *out);

/* A topic with so many partitions, in memory. */
void eg_raw_topic(struct eg_raw *r, const char *name, unsigned partitions);

#endif
