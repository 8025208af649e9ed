/*
 * The last step of cooperative-sticky and numa: of all assignments that are as balanced, the cheapest.
 *
 * A graph of what may be exchanged. An arc's length is what the step costs:
 *
 *   member -> member      gives it a partition that this one has now: comes home
 *   member -> kind        gives a partition of this kind away (a topic's partitions on one node),
 *   kind -> class             to somebody in this class,
 *   class -> member           to this one
 *   member -> rise -> member  a chain of gifts begins at the second and ends at the first, which has one less: then they
 *                         have changed their loads, and the balance is the same
 *
 * A ring of negative length is an exchange that gains; when there is none, it is the cheapest (this is a flow of
 * least cost). Rings are found with Bellman and Ford's algorithm: after `place` and `level` there are few, and
 * often none. What it may cost is bounded; ended early it is balanced still.
 */
#include "assign_plan.h"
#include "eagre/error.h"

#include <string.h>

#define STEPS_MAX (UINT64_C(16) << 20) /* arcs looked at: less than 100 ms */
#define NO_NODE UINT32_MAX
#define NO_PARTITION UINT32_MAX

struct graph {
    struct eg_sticky *s;
    uint32_t kinds;
    uint32_t *kind_of;                    /* a partition */
    uint32_t *kind_node;                  /* a kind: NUMA node */
    uint32_t *first_kind;                 /* a topic, and one more */
    uint32_t kind0, class0, rise0, nodes; /* members are 0 .. kind0 - 1 */
    int64_t *length;                      /* a node: of the shortest way to it that is known */
    uint32_t *from;                       /* a node: whence it comes */
    uint32_t *gift;                       /* a node: with which partition */
    uint32_t *walk;                       /* a node: the walk that came by */
    uint64_t steps;
};

/* A topic's partitions on one node are alike: topics have few nodes, so it is looked for from the topic's first. */
static void find_kinds(struct graph *g) {
    const struct eg_assign_input *in = g->s->p->in;
    for (uint32_t t = 0; t < in->topic_count; t++) {
        g->first_kind[t] = g->kinds;
        for (uint32_t i = 0; i < in->topics[t].partitions; i++) {
            uint32_t at = in->topics[t].first + i, k = g->first_kind[t];
            while (k < g->kinds && g->kind_node[k] != g->s->node_of[at])
                k++;
            if (k == g->kinds)
                g->kind_node[g->kinds++] = g->s->node_of[at];
            g->kind_of[at] = k;
        }
    }
    g->first_kind[in->topic_count] = g->kinds;
}

/* ---- ways ---------------------------------------------------------------------------------------------- */

static bool arc(struct graph *g, uint32_t from, uint32_t to, int64_t cost, uint32_t gift) {
    if (g->length[from] + cost >= g->length[to])
        return false;
    g->length[to] = g->length[from] + cost;
    g->from[to] = from;
    g->gift[to] = gift;
    return true;
}

static bool arcs_of_partitions(struct graph *g) {
    const struct eg_sticky *s = g->s;
    bool shorter = false;
    for (uint32_t i = 0; i < s->p->partitions; i++) {
        uint32_t m = s->p->next[i], home = s->home[i];
        if (m == EG_NOBODY)
            continue;
        int64_t saved = eg_give_cost(s, i, m);
        if (home != EG_NOBODY && home != m)
            shorter |= arc(g, m, home, eg_give_cost(s, i, home) - saved, i);
        shorter |=
            arc(g, m, g->kind0 + g->kind_of[i], 1 - saved, i); /* 1: it is not at home there */
    }
    g->steps += 2 * (uint64_t)s->p->partitions;
    return shorter;
}

static bool arcs_of_kinds(struct graph *g) {
    const struct eg_plan *p = g->s->p;
    bool shorter = false;
    for (uint32_t c = 0; c < p->classes; c++) {
        const struct eg_assign_member *m = eg_class_member(p, c);
        uint32_t first = p->of_class.item[p->of_class.start[c]];
        for (size_t i = 0; i < m->topic_count; i++) {
            uint32_t k = g->first_kind[m->topics[i]], end = g->first_kind[m->topics[i] + 1];
            for (g->steps += end - k; k < end; k++) {
                int64_t far = eg_far_cost(g->s, g->kind_node[k], first);
                shorter |= arc(g, g->kind0 + k, g->class0 + c, far, NO_PARTITION);
            }
        }
    }
    return shorter;
}

static bool arcs_of_members(struct graph *g) {
    const struct eg_plan *p = g->s->p;
    bool shorter = false;
    for (uint32_t m = 0; m < p->members; m++) {
        uint32_t load = g->s->load[m];
        shorter |= arc(g, g->class0 + p->class_of[m], m, 0, NO_PARTITION);
        shorter |= arc(g, m, g->rise0 + load, 0, NO_PARTITION);
        if (load > 0)
            shorter |= arc(g, g->rise0 + load - 1, m, 0, NO_PARTITION);
    }
    g->steps += 3 * (uint64_t)p->members;
    return shorter;
}

/* ---- rings ------------------------------------------------------------------------------------------------- */

/* Each partition that was given on along this ring goes to the next member on it. `start` is a member. */
static void exchange(struct graph *g, uint32_t start) {
    uint32_t at = start, to = start;
    do {
        if (at < g->kind0)
            to = at;
        if (g->gift[at] != NO_PARTITION) {
            eg_sticky_take(g->s, g->gift[at]);
            eg_sticky_give(g->s, g->gift[at], to);
        }
        at = g->from[at];
    } while (at != start);
}

/* All rings among the ways that are known: they share no node. Were there any? */
static bool exchange_rings(struct graph *g) {
    bool any = false;
    memset(g->walk, 0, g->nodes * sizeof(*g->walk));
    for (uint32_t start = 0; start < g->kind0; start++) {
        uint32_t at = start;
        while (at != NO_NODE && g->walk[at] == 0) {
            g->walk[at] = start + 1;
            at = g->from[at];
        }
        if (at == NO_NODE || g->walk[at] != start + 1)
            continue;
        while (at >= g->kind0) /* each ring has members */
            at = g->from[at];
        exchange(g, at);
        any = true;
    }
    return any;
}

static void forget_ways(struct graph *g) {
    memset(g->length, 0, g->nodes * sizeof(*g->length));
    memset(g->from, 0xff, g->nodes * sizeof(*g->from));
    memset(g->gift, 0xff, g->nodes * sizeof(*g->gift));
}

int eg_sticky_refine(struct eg_sticky *s) {
    struct eg_plan *p = s->p;
    struct graph g = {.s = s,
                      .kind_of = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                      .kind_node = eg_plan_array(p, p->partitions, sizeof(uint32_t)),
                      .first_kind = eg_plan_array(p, p->topics + 1, sizeof(uint32_t))};
    if (p->no_memory)
        return EAGRE_E_NO_MEMORY;
    find_kinds(&g);
    uint32_t highest = 0;
    for (uint32_t m = 0; m < p->members; m++)
        highest = s->load[m] > highest ? s->load[m] : highest;
    g.kind0 = p->members;
    g.class0 = g.kind0 + g.kinds;
    g.rise0 = g.class0 + p->classes;
    g.nodes = g.rise0 + highest + 1;
    g.length = eg_plan_array(p, g.nodes, sizeof(*g.length));
    g.from = eg_plan_array(p, g.nodes, sizeof(*g.from));
    g.gift = eg_plan_array(p, g.nodes, sizeof(*g.gift));
    g.walk = eg_plan_array(p, g.nodes, sizeof(*g.walk));
    if (p->no_memory)
        return EAGRE_E_NO_MEMORY;
    forget_ways(&g);
    while (g.steps < STEPS_MAX) {
        bool shorter = arcs_of_partitions(&g);
        shorter |= arcs_of_kinds(&g);
        shorter |= arcs_of_members(&g);
        if (!shorter)
            break;
        if (exchange_rings(&g))
            forget_ways(&g);
    }
    return EAGRE_OK;
}
