/* group_target.c - what a generation is to give to whom: members and topics as assignors want them. */
#include "group_target.h"

#include <stdlib.h>
#include <string.h>

#include "partition.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"

void eg_target_free(struct eg_target *t) {
    if (t == NULL)
        return;
    free(t->topic);
    free(t->by_uid);
    free(t->who);
    free(t->holder);
    free(t);
}

uint32_t eg_target_place(const struct eg_target *t, uint32_t uid, uint32_t partition) {
    size_t low = 0, high = t != NULL ? t->topic_count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct eg_target_topic *topic = &t->topic[t->by_uid[middle]];
        if (topic->uid == uid)
            return partition < topic->partitions ? topic->first + partition : EG_NOBODY;
        if (topic->uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    return EG_NOBODY;
}

void eg_target_renumber(struct eg_target *t, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; t != NULL && i < t->count; i++) {
        t->who[i] = t->who[i] == from ? to : t->who[i];
        t->holder[i] = t->holder[i] == from ? to : t->holder[i];
    }
}

/* ---- which assignor ---------------------------------------------------------------------------------------- */

static bool has(const uint8_t *strategy, int how) {
    for (size_t i = 0; i < EG_STRATEGIES_MAX && strategy[i] != 0; i++)
        if (strategy[i] == how)
            return true;
    return false;
}

bool eg_group_agrees(const struct eg_group *g, const uint8_t *strategy, const struct eg_member *but) {
    for (size_t i = 0; i < EG_STRATEGIES_MAX && strategy[i] != 0; i++) {
        bool all = true;
        for (const struct eg_member *m = g->members; m != NULL && all; m = m->next)
            all = m == but || has(m->strategy, strategy[i]);
        if (all)
            return true;
    }
    return false;
}

enum eg_assignor eg_group_choose(const struct eg_group *g) {
    size_t have[EG_ASSIGN_NUMA + 1] = {0}, votes[EG_ASSIGN_NUMA + 1] = {0};
    enum eg_assignor best = EG_ASSIGN_RANGE;
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        for (int how = EG_ASSIGN_RANGE; how <= EG_ASSIGN_NUMA; how++)
            have[how] += has(m->strategy, how);
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        for (size_t i = 0; i < EG_STRATEGIES_MAX && m->strategy[i] != 0; i++)
            if (have[m->strategy[i]] == g->member_count) {
                votes[m->strategy[i]]++;
                break;
            }
    for (int how = EG_ASSIGN_RANGE; how <= EG_ASSIGN_NUMA; how++)
        if (votes[how] > votes[best])
            best = (enum eg_assignor)how;
    return best;
}

/* ---- the target ---------------------------------------------------------------------------------------------- */

/* What is computed with, freed at the end. */
struct work {
    struct eg_name **names;
    size_t name_count;
    struct eg_topic **topics;
    struct eg_assign_topic *in_topics;
    struct eg_assign_member *in_members;
    struct eg_member **members;
    uint32_t *lists; /* of all members' topics */
    uint32_t *nodes; /* of all partitions */
    uint32_t *now, *next;
    uint32_t index_of[EG_MEMBERS_MAX + 1]; /* a member's number: its index */
};

static void work_free(struct work *w) {
    free(w->names);
    free(w->topics);
    free(w->in_topics);
    free(w->in_members);
    free(w->members);
    free(w->lists);
    free(w->nodes);
    free(w->now);
    free(w->next);
    free(w);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(struct eg_name *const *)a)->text, (*(struct eg_name *const *)b)->text);
}

/* Each name once, of topics that there are. */
static bool find_topics(struct eg_daemon *d, struct eg_group *g, struct work *w, struct eg_target *t) {
    static uint64_t round;
    size_t all = 0, members = 0;
    round++;
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        all += m->topic_count;
    w->names = malloc((all + 1) * sizeof(struct eg_name *));
    w->lists = malloc((all + 1) * sizeof(uint32_t));
    w->members = malloc((g->member_count + 1) * sizeof(struct eg_member *));
    w->in_members = calloc(g->member_count + 1, sizeof(*w->in_members));
    if (w->names == NULL || w->lists == NULL || w->members == NULL || w->in_members == NULL)
        return false;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        w->index_of[m->number] = (uint32_t)members;
        w->members[members++] = m;
        for (size_t i = 0; i < m->topic_count; i++) {
            struct eg_name *n = eg_name_of(m->topics[i]);
            if (n->mark == round)
                continue;
            n->mark = round;
            n->index = EG_NOBODY;
            if (eg_topic_by_name(d, n->text) != NULL)
                w->names[w->name_count++] = n;
        }
    }
    qsort(w->names, w->name_count, sizeof(struct eg_name *), compare_names);
    w->topics = malloc((w->name_count + 1) * sizeof(struct eg_topic *));
    w->in_topics = calloc(w->name_count + 1, sizeof(*w->in_topics));
    t->topic = calloc(w->name_count + 1, sizeof(*t->topic));
    t->by_uid = calloc(w->name_count + 1, sizeof(*t->by_uid));
    if (w->topics == NULL || w->in_topics == NULL || t->topic == NULL || t->by_uid == NULL)
        return false;
    for (size_t i = 0; i < w->name_count; i++) {
        struct eg_topic *topic = eg_topic_by_name(d, w->names[i]->text);
        w->names[i]->index = (uint32_t)i;
        w->topics[i] = topic;
        w->in_topics[i] = (struct eg_assign_topic){.partitions = topic->partitions, .first = t->count};
        t->topic[i] = (struct eg_target_topic){topic->meta.uid, topic->partitions, t->count};
        t->count += topic->partitions;
    }
    t->topic_count = w->name_count;
    return true;
}

static void sort_by_uid(struct eg_target *t) {
    for (size_t i = 0; i < t->topic_count; i++) { /* most are in order already */
        size_t at = i;
        for (; at > 0 && t->topic[t->by_uid[at - 1]].uid > t->topic[i].uid; at--)
            t->by_uid[at] = t->by_uid[at - 1];
        t->by_uid[at] = (uint32_t)i;
    }
}

static void find_lists(struct work *w, size_t members) {
    uint32_t *list = w->lists;
    for (size_t i = 0; i < members; i++) {
        const struct eg_member *m = w->members[i];
        struct eg_assign_member *to = &w->in_members[i];
        to->topics = list;
        to->node = m->node;
        for (size_t k = 0; k < m->topic_count; k++) {
            uint32_t index = eg_name_of(m->topics[k])->index;
            if (index != EG_NOBODY)
                *list++ = index; /* names are sorted, so these are rising */
        }
        to->topic_count = (size_t)(list - to->topics);
    }
}

static uint32_t node_of(const struct eg_partition *p) {
    int64_t numa = p->topic->settings.v[EG_SET_NUMA];
    if (numa == EG_NUMA_AUTO)
        numa = (int64_t)eg_load_relaxed(&p->status->node) - 1;
    return numa >= 0 && numa < UINT32_MAX ? (uint32_t)numa : UINT32_MAX;
}

static bool takes(const struct work *w, uint32_t member, uint32_t topic) {
    const struct eg_assign_member *m = &w->in_members[member];
    size_t low = 0, high = m->topic_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->topics[middle] == topic)
            return true;
        if (m->topics[middle] < topic)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static void find_holders(struct eg_group *g, struct eg_target *t) {
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        for (size_t i = 0; i < m->given_count; i++) {
            uint32_t at = eg_target_place(t, m->given[i].topic_uid, m->given[i].partition);
            if (at != EG_NOBODY)
                t->holder[at] = m->number;
        }
}

/* Who has it as assignors see it: what leaves, or is free, is with whom it is on the way to. */
static void find_now(struct eg_group *g, struct work *w, const struct eg_target *t) {
    for (uint32_t i = 0; i < t->count; i++)
        w->now[i] = t->holder[i] != 0 ? w->index_of[t->holder[i]] : EG_NOBODY;
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        for (size_t i = 0; m->leaving > 0 && i < m->given_count; i++) {
            const struct eg_given *v = &m->given[i];
            uint32_t at = v->leaving ? eg_target_place(t, v->topic_uid, v->partition) : EG_NOBODY;
            uint32_t old = at != EG_NOBODY ? eg_target_place(g->target, v->topic_uid, v->partition) : EG_NOBODY;
            uint32_t to = old != EG_NOBODY ? g->target->who[old] : 0;
            if (to != 0)
                w->now[at] = w->index_of[to];
        }
    for (size_t k = 0; k < t->topic_count; k++) {
        const struct eg_target_topic *topic = &t->topic[k];
        for (uint32_t i = 0; i < topic->partitions; i++) {
            uint32_t at = topic->first + i;
            uint32_t old = t->holder[at] == 0 ? eg_target_place(g->target, topic->uid, i) : EG_NOBODY;
            if (old != EG_NOBODY && g->target->who[old] != 0)
                w->now[at] = w->index_of[g->target->who[old]];
            /* It may be gone, or have changed its mind. */
            if (w->now[at] != EG_NOBODY && !takes(w, w->now[at], (uint32_t)k))
                w->now[at] = EG_NOBODY;
        }
    }
}

struct eg_target *eg_target_compute(struct eg_daemon *d, struct eg_group *g, enum eg_assignor how) {
    struct work *w = calloc(1, sizeof(*w));
    struct eg_target *t = calloc(1, sizeof(*t));
    bool good = w != NULL && t != NULL;
    if (good) {
        memset(w->index_of, 0xff, sizeof(w->index_of)); /* EG_NOBODY */
        good = find_topics(d, g, w, t);
    }
    if (good) {
        sort_by_uid(t);
        find_lists(w, g->member_count);
        w->nodes = malloc((t->count + 1u) * sizeof(uint32_t));
        w->now = malloc((t->count + 1u) * sizeof(uint32_t));
        w->next = malloc((t->count + 1u) * sizeof(uint32_t));
        t->who = calloc(t->count + 1u, sizeof(uint32_t));
        t->holder = calloc(t->count + 1u, sizeof(uint32_t));
        good = w->nodes != NULL && w->now != NULL && w->next != NULL && t->who != NULL && t->holder != NULL;
    }
    if (good) {
        find_holders(g, t);
        find_now(g, w, t);
        for (size_t k = 0; k < t->topic_count; k++) {
            for (uint32_t i = 0; i < t->topic[k].partitions; i++)
                w->nodes[t->topic[k].first + i] = node_of(w->topics[k]->part[i]);
            w->in_topics[k].nodes = w->nodes + t->topic[k].first;
        }
        struct eg_assign_input in = {.topics = w->in_topics,
                                     .topic_count = t->topic_count,
                                     .members = w->in_members,
                                     .member_count = g->member_count,
                                     .now = w->now};
        good = eg_assign(how, &in, w->next) == EAGRE_OK;
    }
    for (uint32_t i = 0; good && i < t->count; i++)
        t->who[i] = w->next[i] != EG_NOBODY ? w->members[w->next[i]]->number : 0;
    if (!good) {
        eg_target_free(t);
        t = NULL;
    }
    if (w != NULL)
        work_free(w);
    return t;
}
