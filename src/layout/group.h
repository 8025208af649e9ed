/*
 * group.h - what a member of a consumer group shares with the daemon, and the words of both.
 *
 *   object (a memfd)   writers               readers   holds
 *   member page        its member, daemon    both      struct eg_member_page
 *   share cells        the group's members,  both      share.h
 *                      daemon
 *
 * A member is one consumer handle that subscribed. Its page is its own: what it writes there about itself concerns
 * its own group alone, and the daemon, which writes there too, reads nothing back that it has written.
 */
#ifndef EG_LAYOUT_GROUP_H
#define EG_LAYOUT_GROUP_H

#include "layout/layout.h"

#define EG_GROUP_NAME_MAX 249u     /* as a topic's */
#define EG_INSTANCE_ID_MAX 249u    /* group.instance.id */
#define EG_CLIENT_ID_MAX 63u
#define EG_METADATA_MAX 4096u      /* offset.metadata.max.bytes */
#define EG_MEMBERS_MAX 16384u      /* of the instance; member numbers 1 .. */
#define EG_MEMBER_CELLS EG_PARTITIONS_MAX
#define EG_STRATEGIES_MAX 4u

enum eg_group_type { EG_GROUP_CONSUMER = 0, EG_GROUP_SHARE = 1 };

/* Kafka's names (of consumer groups). */
enum eg_group_state {
    EG_GROUP_EMPTY = 0,       /* no member; its offsets stay */
    EG_GROUP_REBALANCING = 1, /* somebody has not given up or taken over yet what the last generation says */
    EG_GROUP_STABLE = 2
};

enum eg_assignor { EG_ASSIGN_RANGE = 1, EG_ASSIGN_ROUND_ROBIN = 2, EG_ASSIGN_COOPERATIVE_STICKY = 3, EG_ASSIGN_NUMA = 4 };

#define EG_OFFSET_CLAMPED 1u /* it lay behind what a crash of the host left: moved to where the log goes on */

#define EG_MAGIC_MEMBER EG_MAGIC('E', 'A', 'G', 'R', 'E', 'm', 'e', 'm')

/* What is not IN is so for ever. OUT: evicted. TAKEN: another one joined with its group.instance.id. */
enum eg_member_state { EG_MEMBER_IN = 1, EG_MEMBER_OUT = 2, EG_MEMBER_TAKEN = 3 };

struct eg_member_page {
    struct eg_magic magic;
    uint64_t member;
    /* The daemon's words. */
    _Atomic uint32_t version;   /* +1, release: what is the member's has changed: GROUP_SYNC. Member: acquire, each poll */
    _Atomic uint32_t state;     /* enum eg_member_state; release */
    _Atomic uint32_t topics;    /* +1, release: there are other topics now: who has a pattern looks again */
    _Atomic uint32_t rings;     /* futex: +1 (release) and FUTEX_WAKE when `stored` or `state` changed */
    _Atomic uint64_t stored;    /* `commits` that are in the database; release */
    uint8_t pad0[64 - 48];
    /* The member's words. */
    _Atomic uint64_t polls;     /* +1, relaxed: at each poll, and each 100 ms at most while it waits in one. The daemon
                                   sees by it that the member is not stuck (max.poll.interval.ms) */
    _Atomic uint64_t commits;   /* +1, release: after the cells of a commit were stored. Daemon: acquire */
    _Atomic uint32_t bell;      /* 1 + the doorbell that it sleeps on; 0: it never did. Relaxed, before its membarrier and
                                   its last look at the words above. Daemon: behind a fence, after it changed those */
    uint8_t pad1[EG_PAGE - 64 - 20];
    /*
     * A commit: the next offset to be read; EG_NO_COMMIT: none yet. The member stores (release), the daemon loads
     * (acquire). Which partition a cell is for was said by GROUP_SYNC, in one generation, and the cell is not used for
     * another one before the member said that it has given the partition up: so offset and generation are one
     * unit, and what a member of the past still stores is for nobody.
     */
    _Atomic int64_t cell[EG_MEMBER_CELLS];
};

#define EG_NO_COMMIT (-1ll)

static_assert(offsetof(struct eg_member_page, polls) == 64, "eg_member_page.polls");
static_assert(offsetof(struct eg_member_page, cell) == EG_PAGE, "eg_member_page.cell");

/* "range", ...; NULL: no such one. */
const char *eg_assignor_name(int assignor);
int eg_assignor_parse(const char *name); /* 0: unknown */

#endif
