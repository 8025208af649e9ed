/*
 * clients.h - who is attached: owner numbers, pages of pins, grants, doorbells.
 *
 * The client table is a kept memfd that only the daemon can write; a successor takes it over. An
 * entry is FREE, LIVE, or DEAD (found dead, not yet repaired). An owner number is given out again only
 * when no frame of the log can carry it unpublished.
 */
#ifndef EG_CLIENTS_H
#define EG_CLIENTS_H

#include "daemon.h"
#include "sessions.h"
#include "sys/atomic.h"

struct eg_member;
struct eg_topic;

#define EG_CLIENT_GRANTS 1000u

struct eg_grant {
    uint32_t topic_uid; /* 0: unused */
    uint16_t producers; /* open handles */
    uint16_t consumers;
};

enum eg_client_state { EG_CLIENT_FREE = 0, EG_CLIENT_LIVE = 1, EG_CLIENT_DEAD = 2 };

struct eg_client_entry {
    _Atomic uint32_t state; /* enum eg_client_state; release after the rest */
    uint32_t owner;
    uint32_t uid, gid;
    int32_t pid; /* 0: in a pid namespace that we cannot see */
    uint32_t pad0;
    uint64_t start_ticks; /* with the pid: which process */
    uint64_t cookie;
    char name[64];
    uint8_t pad1[88];
    struct eg_grant grants[EG_CLIENT_GRANTS];
};

#define EG_MAGIC_CLIENTS EG_MAGIC('E', 'A', 'G', 'R', 'E', 'c', 't', 'b')

struct eg_client_table {
    struct eg_magic magic;
    uint64_t instance_id;
    uint8_t pad[EG_PAGE - 24];
    _Atomic uint16_t bell_owner[EG_BELLS_MAX]; /* 0: free */
    struct eg_client_entry entry[EG_CLIENTS_MAX + 1];
};
static_assert(sizeof(struct eg_client_entry) % EG_LINE == 0, "eg_client_entry");

struct eg_client {
    struct eg_client_entry *entry;
    struct eg_client_page *page; /* the client's to write */
    int page_fd;
    struct eg_session *session; /* NULL: not connected now */
    struct eg_account *account;
    struct eg_watch watch;      /* its pidfd; fd -1: none, or it has spoken */
    uint32_t bells;             /* that it has */
    uint32_t node;              /* NUMA node of its last producer; UINT32_MAX: unknown */
    int64_t look_ns;            /* janitor: look whether it lives; INT64_MAX: no reason to */
    int64_t look_wait_ns;
    bool reported; /* that one witness alone says it is dead */
    struct eg_member *members; /* groups.h */

    /* burial.c */
    bool burying;
    bool produced;   /* was granted to */
    bool incomplete; /* begin again */
    uint32_t waits;  /* repairs that it waits for */
    struct eg_burial_wait *wait;
    struct eg_client *next_dying;
    uint64_t pads;   /* claims of it that were padded */

    struct eg_pin_looks *looks; /* stalls.c */
};

struct eg_clients {
    struct eg_client_table *table;
    int table_fd;
    struct eg_client *by_owner[EG_CLIENTS_MAX + 1];
    uint32_t count;
    uint32_t top;    /* highest owner number in use, or above */
    int64_t look_ns; /* earliest look_ns of all */

    /* burial.c */
    struct eg_repair *repairs;
    struct eg_client *dying;
    uint64_t repair_round;
    bool ring; /* somebody may sleep who should look */
    int64_t ring_ns;
};

/* How many of its pin cells may be in use, as it says. */
static inline uint32_t eg_client_cells(const struct eg_client *c) {
    /* Acquire; partner: say_cells(). Where it matters, a membarrier came before. */
    uint32_t n = eg_load_acquire(&c->page->cells);
    return n < EG_CLIENT_PINS ? n : EG_CLIENT_PINS;
}

/* Called by topics.c before topics are recovered: take the table from the keeper, or make a new one. *lost:
 * the memory is from before but the table is not there, so nobody knows who owns what in it. */
int eg_clients_open(struct eg_daemon *d, bool *lost);

/* Does a pin hold segment seq of the partition: on it, or a producer's on the one before? pids (up to cap of
 * whose pins they are) and *count may be NULL. */
bool eg_clients_pinned(const struct eg_topic *t, uint32_t partition_index, uint64_t seq,
                       uint32_t *pids, size_t cap, size_t *count);

struct eg_grant *eg_client_grant(const struct eg_client *c, uint32_t topic_uid); /* NULL: none */
bool eg_client_may_produce(const struct eg_client *c, const struct eg_topic *t);
/* One open handle more. Noted before anybody is told. EAGRE_E_LIMIT. */
int eg_client_grant_add(struct eg_topic *t, struct eg_client *c, bool producer);
/* One open handle fewer; without any it has nothing to do with the topic. */
void eg_client_grant_lower(struct eg_daemon *d, struct eg_client *c, struct eg_grant *g, uint8_t role);
/* The topic goes away. */
void eg_clients_forget_topic(struct eg_daemon *d, struct eg_topic *t);
/* Every consumer that may sleep looks again. */
void eg_clients_ring_all(struct eg_daemon *d);

/* The client's bell of that number, as it says, if it is its own. */
void eg_client_ring(struct eg_daemon *d, const struct eg_client *c, uint32_t bell);

/* Janitor: see to it at that time (or before). */
void eg_client_look(struct eg_daemon *d, struct eg_client *c, int64_t at_ns);
/* Its owner number, page, bells and grants are free again. */
void eg_client_free(struct eg_daemon *d, struct eg_client *c);

#endif
