/*
 * assignors.h - who gets which partition: pure functions of members, what they subscribe, and what they have. (Kafka's
 * partition.assignment.strategy.) They allocate, and touch nothing of the daemon's.
 */
#ifndef EG_ASSIGNORS_H
#define EG_ASSIGNORS_H

#include "layout/group.h"

#include <stddef.h>
#include <stdint.h>

#define EG_NOBODY UINT32_MAX

/* Topics in the order of their names, partitions in order: p of topic t is number first + p. */
struct eg_assign_topic {
    uint32_t partitions;
    uint32_t first;        /* sum of the partitions before */
    const uint32_t *nodes; /* NUMA node a partition; UINT32_MAX: unknown. NULL: of all */
};

/* Members in a stable order: static ones by instance id, then the others by member id. */
struct eg_assign_member {
    const uint32_t *topics; /* indexes into topics, rising */
    size_t topic_count;
    uint32_t node; /* NUMA; UINT32_MAX: unknown */
};

struct eg_assign_input {
    const struct eg_assign_topic *topics;
    size_t topic_count;
    const struct eg_assign_member *members;
    size_t member_count;
    const uint32_t *now; /* a partition: index of the member that has it, or EG_NOBODY */
};

/*
 * next: a partition: index of the member that gets it; EG_NOBODY where nobody subscribes its topic. EAGRE_OK or
 * EAGRE_E_NO_MEMORY.
 *
 *   range               topic by topic, neighbouring partitions to each subscriber, sizes differ by 1 at most (a topic)
 *   round-robin         all partitions in turn to the members that subscribe their topics
 *   cooperative-sticky  as balanced as the subscriptions allow (nobody has two more than one who could take one,
 *                       directly or by a chain in which each hands on one); of the balanced ones, one that moves the
 *                       fewest partitions away from who has them now
 *   numa                as sticky, and among what balance leaves open prefers, before stickiness, members on the
 *                       partition's node (one whose node is unknown is on none)
 *
 * Range and round-robin are Kafka's to the partition. Balance always is what it says; that nothing cheaper exists is
 * exact too, but for the largest groups with most of it out of place, where the search is cut short.
 */
int eg_assign(enum eg_assignor how, const struct eg_assign_input *in, uint32_t *next);

#endif
