#include "assignors.h"

#include "assign_plan.h"
#include "sys/errbuf.h"

/* Who subscribes topic t: mark of its members' classes is t + 1 then. How many they are. */
static uint32_t mark_subscribers(const struct eg_plan *p, uint32_t t, uint32_t *mark) {
    uint32_t count = 0;
    for (uint32_t i = p->of_topic.start[t]; i < p->of_topic.start[t + 1]; i++) {
        uint32_t c = p->of_topic.item[i];
        mark[c] = t + 1;
        count += p->of_class.start[c + 1] - p->of_class.start[c];
    }
    return count;
}

/* Kafka's RangeAssignor: the first members of a topic get one more where it cannot be divided. */
static void assign_range(struct eg_plan *p, uint32_t *mark) {
    for (uint32_t t = 0; t < p->topics; t++) {
        const struct eg_assign_topic *topic = &p->in->topics[t];
        uint32_t members = mark_subscribers(p, t, mark);
        if (members == 0)
            continue;
        uint32_t each = topic->partitions / members, more = topic->partitions % members;
        uint32_t at = topic->first, end = at + topic->partitions;
        for (uint32_t m = 0; at < end; m++) {
            if (mark[p->class_of[m]] != t + 1)
                continue;
            uint32_t count = each + (more > 0);
            more -= more > 0;
            while (count-- > 0)
                p->next[at++] = m;
        }
    }
}

/* Kafka's RoundRobinAssignor: the turn goes on from topic to topic, past who does not subscribe. */
static void assign_round_robin(struct eg_plan *p, uint32_t *mark) {
    uint32_t turn = 0;
    for (uint32_t t = 0; t < p->topics; t++) {
        const struct eg_assign_topic *topic = &p->in->topics[t];
        if (mark_subscribers(p, t, mark) == 0)
            continue;
        for (uint32_t i = 0; i < topic->partitions; i++) {
            while (mark[p->class_of[turn]] != t + 1)
                turn = (turn + 1) % p->members;
            p->next[topic->first + i] = turn;
            turn = (turn + 1) % p->members;
        }
    }
}

static int assign(struct eg_plan *p, enum eg_assignor how) {
    if (how == EG_ASSIGN_COOPERATIVE_STICKY || how == EG_ASSIGN_NUMA)
        return eg_assign_sticky(p);
    uint32_t *mark = eg_plan_array(p, p->classes, sizeof(*mark));
    if (mark == NULL)
        return EAGRE_E_NO_MEMORY;
    if (how == EG_ASSIGN_RANGE)
        assign_range(p, mark);
    else
        assign_round_robin(p, mark);
    return EAGRE_OK;
}

int eg_assign(enum eg_assignor how, const struct eg_assign_input *in, uint32_t *next) {
    struct eg_plan p;
    int rc = eg_plan_init(&p, in, how == EG_ASSIGN_NUMA, next);
    for (uint32_t i = 0; i < p.partitions; i++)
        next[i] = EG_NOBODY;
    if (rc == EAGRE_OK)
        rc = assign(&p, how);
    if (rc != EAGRE_OK)
        eg_error_set(rc, "no memory to assign %u partitions to %u members", p.partitions,
                     p.members);
    eg_plan_free(&p);
    return rc;
}
