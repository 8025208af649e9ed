/*
 * cooperative-sticky and numa, in three steps:
 *
 *   place    everybody keeps what he has; what is free goes to the least loaded of those who may have it
 *   level    as long as somebody has two more than one who could take one, directly or by a chain of members
 *            that hand on one each, one is moved along it. What is left is as balanced as can be: no sum of squares
 *            of loads is smaller
 *   refine   (assign_refine.c) exchanges that leave the balance as it is and bring partitions home
 */
#include "assign_plan.h"
#include "eagre/error.h"

#include <string.h>

/* Looked at for the cheapest to give away. What that misses is found by `refine`. */
#define CANDIDATES 64
#define ANY_NODE UINT32_MAX

void eg_sticky_give(struct eg_sticky *s, uint32_t partition, uint32_t member) {
    uint32_t second = s->held[member];
    s->p->next[partition] = member;
    s->load[member]++;
    s->before[partition] = EG_NOBODY;
    s->after[partition] = second;
    if (second != EG_NOBODY)
        s->before[second] = partition;
    s->held[member] = partition;
}

void eg_sticky_take(struct eg_sticky *s, uint32_t partition) {
    uint32_t member = s->p->next[partition];
    uint32_t before = s->before[partition], after = s->after[partition];
    s->p->next[partition] = EG_NOBODY;
    s->load[member]--;
    if (before != EG_NOBODY)
        s->after[before] = after;
    else
        s->held[member] = after;
    if (after != EG_NOBODY)
        s->before[after] = before;
}

/* ---- place ---------------------------------------------------------------------------------- */

/* Each class as a heap, its least loaded member first (of equals, the first one). */
struct heaps {
    const struct eg_sticky *s;
    const uint32_t *start; /* as of_class */
    uint32_t *item;
};

static bool less_loaded(const struct eg_sticky *s, uint32_t a, uint32_t b) {
    return s->load[a] < s->load[b] || (s->load[a] == s->load[b] && a < b);
}

/* The member at place `at` of the class may have got more than those below. */
static void sink(struct heaps *h, uint32_t class, uint32_t at) {
    uint32_t *heap = h->item + h->start[class], size = h->start[class + 1] - h->start[class];
    for (uint32_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && less_loaded(h->s, heap[child + 1], heap[child]))
            child++;
        if (less_loaded(h->s, heap[at], heap[child]))
            break;
        uint32_t m = heap[at];
        heap[at] = heap[child];
        heap[child] = m;
    }
}

static void build_heaps(struct heaps *h) {
    for (uint32_t c = 0; c < h->s->p->classes; c++)
        for (uint32_t i = (h->start[c + 1] - h->start[c]) / 2; i-- > 0;)
            sink(h, c, i);
}

/* Of those who subscribe the topic and are on the node. */
static uint32_t least_loaded(const struct heaps *h, uint32_t topic, uint32_t node) {
    const struct eg_plan *p = h->s->p;
    uint32_t best = EG_NOBODY;
    for (uint32_t i = p->of_topic.start[topic]; i < p->of_topic.start[topic + 1]; i++) {
        uint32_t m = h->item[h->start[p->of_topic.item[i]]];
        if (node != ANY_NODE && p->in->members[m].node != node)
            continue;
        if (best == EG_NOBODY || less_loaded(h->s, m, best))
            best = m;
    }
    return best;
}

static void give_least_loaded(struct eg_sticky *s, struct heaps *h, uint32_t partition,
                              uint32_t m) {
    eg_sticky_give(s, partition, m);
    sink(h, s->p->class_of[m], 0);
}

/* Members keep what they have, up to so many: those on the partition's node, or all. */
static void keep(struct eg_sticky *s, bool far, uint32_t most) {
    for (uint32_t i = 0; i < s->p->partitions; i++) {
        uint32_t m = s->home[i];
        if (s->p->next[i] == EG_NOBODY && m != EG_NOBODY && s->load[m] < most &&
            (far || eg_far_cost(s, s->node_of[i], m) == 0))
            eg_sticky_give(s, i, m);
    }
}

/* numa: members on the partition's node get what is not placed yet, up to so many. */
static void place_near(struct eg_sticky *s, struct heaps *h, uint32_t most) {
    build_heaps(h);
    for (uint32_t i = 0; i < s->p->partitions; i++) {
        if (s->p->next[i] != EG_NOBODY || s->node_of[i] == EG_NO_NODE)
            continue;
        uint32_t m = least_loaded(h, s->topic_of[i], s->node_of[i]);
        if (m != EG_NOBODY && s->load[m] < most)
            give_least_loaded(s, h, i, m);
    }
}

static void place_rest(struct eg_sticky *s, struct heaps *h) {
    build_heaps(h);
    for (uint32_t i = 0; i < s->p->partitions; i++) {
        if (s->p->next[i] != EG_NOBODY)
            continue;
        uint32_t m = least_loaded(h, s->topic_of[i], ANY_NODE);
        if (m != EG_NOBODY)
            give_least_loaded(s, h, i, m);
    }
}

/* Where all subscribe the same, what one has above an even share is placed like what is free. */
static int place(struct eg_sticky *s) {
    const struct eg_plan *p = s->p;
    struct heaps h = {s, p->of_class.start, eg_plan_array(s->p, p->members, sizeof(*h.item))};
    if (h.item == NULL)
        return EAGRE_E_NO_MEMORY;
    memcpy(h.item, p->of_class.item, p->members * sizeof(*h.item));
    uint32_t share = p->members > 0 ? (p->partitions + p->members - 1) / p->members : 0;
    keep(s, false, p->classes == 1 ? share : UINT32_MAX);
    if (p->numa) {
        place_near(s, &h, share);
        keep(s, true, share);
    }
    place_rest(s, &h);
    return EAGRE_OK;
}

/* ---- level ------------------------------------------------------------------------------------------------ */

/* A search from a member to others over what each could take from the one before. */
struct search {
    uint32_t round;
    uint32_t *member_seen, *class_seen, *topic_seen; /* the round in which it was */
    uint32_t *from,
        *topic; /* a member that was reached: from whom, with a partition of which topic */
    uint32_t *queue;
    uint32_t queued;
    bool *settled; /* a member: nothing that can be done changes its load any more */
};

/* Those that could take a partition of this topic from member m join the queue. The least loaded of them or `best`. */
static uint32_t reach(const struct eg_sticky *s, struct search *q, uint32_t m, uint32_t topic,
                      uint32_t best) {
    const struct eg_plan *p = s->p;
    for (uint32_t i = p->of_topic.start[topic]; i < p->of_topic.start[topic + 1]; i++) {
        uint32_t c = p->of_topic.item[i];
        if (q->class_seen[c] == q->round)
            continue;
        q->class_seen[c] = q->round;
        for (uint32_t k = p->of_class.start[c]; k < p->of_class.start[c + 1]; k++) {
            uint32_t to = p->of_class.item[k];
            if (q->settled[to] || q->member_seen[to] == q->round)
                continue;
            q->member_seen[to] = q->round;
            q->from[to] = m;
            q->topic[to] = topic;
            q->queue[q->queued++] = to;
            if (s->load[to] < s->load[best])
                best = to;
        }
    }
    return best;
}

/* A near one that has two less than member `start`, or EG_NOBODY: then the queue has all that can be reached. */
static uint32_t find_taker(const struct eg_sticky *s, struct search *q, uint32_t start) {
    uint32_t best = start;
    q->round++;
    q->member_seen[start] = q->round;
    q->queue[0] = start;
    q->queued = 1;
    for (uint32_t done = 0; done < q->queued; done++) {
        uint32_t m = q->queue[done];
        for (uint32_t i = s->held[m]; i != EG_NOBODY; i = s->after[i]) {
            uint32_t t = s->topic_of[i];
            if (q->topic_seen[t] == q->round)
                continue;
            q->topic_seen[t] = q->round;
            best = reach(s, q, m, t, best);
            if (s->load[best] + 2 <= s->load[start])
                return best;
        }
    }
    return EG_NOBODY;
}

/* The partition of the topic that member `from` gives to `to` with the least loss. */
static uint32_t cheapest(const struct eg_sticky *s, uint32_t from, uint32_t to, uint32_t topic) {
    uint32_t best = EG_NOBODY;
    int64_t least = INT64_MAX;
    uint32_t seen = 0;
    for (uint32_t i = s->held[from]; i != EG_NOBODY; i = s->after[i]) {
        if (seen++ >= CANDIDATES && best != EG_NOBODY)
            break;
        if (s->topic_of[i] != topic)
            continue;
        int64_t cost = eg_give_cost(s, i, to) - eg_give_cost(s, i, from);
        if (cost < least) {
            least = cost;
            best = i;
        }
    }
    return best;
}

static uint32_t most_loaded(const struct eg_sticky *s, const bool *settled) {
    uint32_t best = EG_NOBODY;
    for (uint32_t m = 0; m < s->p->members; m++)
        if (!settled[m] && (best == EG_NOBODY || s->load[m] > s->load[best]))
            best = m;
    return best;
}

/*
 * The most loaded comes first. If it can hand on nothing, all whom it reaches have at least its load - 1 and reach
 * nobody else; whoever comes later has no more than its load, so that he gains nothing by giving to them: they are
 * settled together. So no member is searched in vain twice.
 */
static int level(struct eg_sticky *s) {
    struct eg_plan *p = s->p;
    struct search q = {.member_seen = eg_plan_array(p, p->members, sizeof(uint32_t)),
                       .class_seen = eg_plan_array(p, p->classes, sizeof(uint32_t)),
                       .topic_seen = eg_plan_array(p, p->topics, sizeof(uint32_t)),
                       .from = eg_plan_array(p, p->members, sizeof(uint32_t)),
                       .topic = eg_plan_array(p, p->members, sizeof(uint32_t)),
                       .queue = eg_plan_array(p, p->members, sizeof(uint32_t)),
                       .settled = eg_plan_array(p, p->members, sizeof(bool))};
    if (p->no_memory)
        return EAGRE_E_NO_MEMORY;
    for (uint32_t start; (start = most_loaded(s, q.settled)) != EG_NOBODY;) {
        uint32_t to = find_taker(s, &q, start);
        for (uint32_t i = 0; to == EG_NOBODY && i < q.queued; i++)
            q.settled[q.queue[i]] = true;
        for (uint32_t from; to != EG_NOBODY && to != start; to = from) {
            from = q.from[to];
            uint32_t partition = cheapest(s, from, to, q.topic[to]);
            eg_sticky_take(s, partition);
            eg_sticky_give(s, partition, to);
        }
    }
    return EAGRE_OK;
}

/* ---- all together ------------------------------------------------------------------------------------------ */

/* topic_of, node_of, home. */
static void describe(struct eg_sticky *s, uint32_t *mark) {
    const struct eg_plan *p = s->p;
    for (uint32_t t = 0; t < p->topics; t++) {
        const struct eg_assign_topic *topic = &p->in->topics[t];
        for (uint32_t i = p->of_topic.start[t]; i < p->of_topic.start[t + 1]; i++)
            mark[p->of_topic.item[i]] = t + 1;
        for (uint32_t i = 0; i < topic->partitions; i++) {
            uint32_t at = topic->first + i, now = p->in->now[at];
            s->topic_of[at] = t;
            s->node_of[at] = p->numa && topic->nodes != NULL ? topic->nodes[i] : EG_NO_NODE;
            bool may = now < p->members && mark[p->class_of[now]] == t + 1;
            s->home[at] = may ? now : EG_NOBODY;
        }
    }
}

int eg_assign_sticky(struct eg_plan *p) {
    struct eg_sticky s = {.p = p,
                          .topic_of = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                          .node_of = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                          .home = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                          .load = eg_plan_array(p, p->members, sizeof(uint32_t)),
                          .held = eg_plan_array(p, p->members, sizeof(uint32_t)),
                          .after = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                          .before = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                          .far_cost = (int64_t)p->partitions + 1};
    uint32_t *mark = eg_plan_array(p, p->classes, sizeof(uint32_t));
    if (p->no_memory)
        return EAGRE_E_NO_MEMORY;
    for (uint32_t m = 0; m < p->members; m++)
        s.held[m] = EG_NOBODY;
    describe(&s, mark);
    int rc = place(&s);
    if (rc == EAGRE_OK)
        rc = level(&s);
    return rc == EAGRE_OK ? eg_sticky_refine(&s) : rc;
}
