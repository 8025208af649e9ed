/*
 * group_rebalance.c - who is to have which partition, and the way there.
 *
 *   changed   members, subscriptions or topics: noted, and a moment later (several changes are one rebalance) there is
 *             a new generation: a target is computed, what it takes from somebody is `leaving`
 *   turn      what is free and has a new member by the target is given; who has another list now gets a version, all
 *             of them in one transaction; then they are told
 *   applied   a member has given up what was leaving: free; the group has another turn
 *
 * cooperative: who keeps a partition reads on. eager (range, roundrobin): if anything moves everything leaves first,
 * and nothing is given before all of it is free.
 *
 * All of it is in memory and goes to the store with the turn: nobody is told what is not stored. A daemon that is
 * killed in between has forgotten only what nobody knew.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "assignors.h"
#include "clients.h"
#include "groups.h"
#include "partition.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define GATHER_NS (2 * EG_NS_PER_MS)      /* after the last change, for those that come with it ... */
#define GATHER_MAX_NS (10 * EG_NS_PER_MS) /* ... but not longer after the first */
#define RETRY_NS (100 * EG_NS_PER_MS)     /* when memory or the disk is short */
#define SLICE_NS (2 * EG_NS_PER_MS)
#define CALM 4                            /* of the daemon's time, at least so many parts are for others */
#define TOLD_NS (100 * EG_NS_PER_MS)      /* a line in the log each, if there are not more */

struct target_topic {
    uint32_t uid, partitions, first;
};

struct eg_target {
    struct target_topic *topic; /* by name */
    uint32_t *by_uid;           /* indexes of these */
    size_t topic_count;
    uint32_t count;   /* partitions of all */
    uint32_t *who;    /* a partition: number of the member that is to have it; 0: nobody */
    uint32_t *holder; /* who has it, or may still have it; 0: it is free */
};

void eg_target_free(struct eg_target *t) {
    if (t == NULL)
        return;
    free(t->topic);
    free(t->by_uid);
    free(t->who);
    free(t->holder);
    free(t);
}

/* The number of a partition in the target; EG_NOBODY: nobody subscribes it. */
static uint32_t place_of(const struct eg_target *t, uint32_t uid, uint32_t partition) {
    size_t low = 0, high = t != NULL ? t->topic_count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct target_topic *topic = &t->topic[t->by_uid[middle]];
        if (topic->uid == uid)
            return partition < topic->partitions ? topic->first + partition : EG_NOBODY;
        if (topic->uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    return EG_NOBODY;
}

static void is_free(struct eg_group *g, const struct eg_member *m, const struct eg_given *v) {
    uint32_t at = place_of(g->target, v->topic_uid, v->partition);
    if (at != EG_NOBODY && g->target->holder[at] == m->number)
        g->target->holder[at] = 0;
}

static bool is_eager(enum eg_assignor how) { return how == EG_ASSIGN_RANGE || how == EG_ASSIGN_ROUND_ROBIN; }

/* ---- turns ------------------------------------------------------------------------------------------------ */

static void queue(struct eg_daemon *d, struct eg_group *g) {
    if (g->queued)
        return;
    g->queued = true;
    g->next_queued = d->groups->queue;
    d->groups->queue = g;
}

void eg_group_turn(struct eg_daemon *d, struct eg_group *g) {
    g->push = true;
    queue(d, g);
}

void eg_group_change(struct eg_daemon *d, struct eg_group *g, enum eg_why why) {
    int64_t now = eg_mono_ns();
    if (g->changed == 0)
        g->last_due_ns = now + GATHER_MAX_NS;
    g->changed |= (uint32_t)why;
    g->due_ns = now + GATHER_NS < g->last_due_ns ? now + GATHER_NS : g->last_due_ns;
    if (g->due_ns < g->calm_ns)
        g->due_ns = g->calm_ns;
    g->state = g->member_count == 0 ? EG_GROUP_EMPTY : EG_GROUP_REBALANCING;
    queue(d, g);
}

void eg_rebalance_forget(struct eg_daemon *d, struct eg_group *g) {
    struct eg_group **at = &d->groups->queue;
    while (*at != NULL && *at != g)
        at = &(*at)->next_queued;
    if (*at == g)
        *at = g->next_queued;
    g->queued = false;
}

void eg_member_tell(struct eg_daemon *d, struct eg_member *m) {
    m->bump = true;
    eg_group_turn(d, m->group);
}

void eg_member_give_up(struct eg_member *m) {
    for (size_t i = 0; i < m->given_count; i++)
        is_free(m->group, m, &m->given[i]);
    m->given_count = m->leaving = m->fresh = 0;
}

/* What left with that version is given up. */
static void give_up_until(struct eg_member *m, uint32_t version) {
    size_t kept = 0;
    for (size_t i = 0; i < m->given_count; i++) {
        struct eg_given *v = &m->given[i];
        if (v->leaving && v->gone != 0 && v->gone <= version)
            is_free(m->group, m, v);
        else
            m->given[kept++] = *v;
    }
    m->leaving -= m->given_count - kept;
    m->unsaved |= m->given_count != kept;
    m->given_count = kept;
}

void eg_member_settle(struct eg_member *m) {
    for (size_t i = 0; i < m->given_count; i++)
        if (m->given[i].leaving)
            m->given[i].gone = m->version + 1;
    give_up_until(m, m->version + 1);
    m->applied = m->version;
    m->unapplied_ns = 0;
}

int eg_member_applied(struct eg_daemon *d, struct eg_member *m, uint32_t version) {
    if (version > m->version)
        return eg_error_set(EAGRE_E_INVALID, "group '%s': member %" PRIu64 " has not been told version %u yet, but %u",
                            m->group->name, m->id, version, m->version);
    if (version <= m->applied)
        return EAGRE_OK;
    m->applied = version;
    m->unapplied_ns = version < m->version ? eg_mono_ns() : 0;
    if (m->leaving > 0) {
        eg_offsets_collect(d, m);
        give_up_until(m, version);
        EG_FAULT("group.freed");
    }
    eg_group_turn(d, m->group);
    return EAGRE_OK;
}

uint64_t eg_group_holder(const struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    uint32_t at = place_of(g->target, topic_uid, partition);
    if (at == EG_NOBODY || g->target->holder[at] == 0)
        return 0;
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        if (m->number == g->target->holder[at])
            return m->id;
    return 0;
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

/* Kafka's way: of those that all have, each member votes for the first of its own list. */
static enum eg_assignor choose(const struct eg_group *g) {
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
        t->topic[i] = (struct target_topic){topic->meta.uid, topic->partitions, t->count};
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
            uint32_t at = place_of(t, m->given[i].topic_uid, m->given[i].partition);
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
            uint32_t at = v->leaving ? place_of(t, v->topic_uid, v->partition) : EG_NOBODY;
            uint32_t old = at != EG_NOBODY ? place_of(g->target, v->topic_uid, v->partition) : EG_NOBODY;
            uint32_t to = old != EG_NOBODY ? g->target->who[old] : 0;
            if (to != 0)
                w->now[at] = w->index_of[to];
        }
    for (size_t k = 0; k < t->topic_count; k++) {
        const struct target_topic *topic = &t->topic[k];
        for (uint32_t i = 0; i < topic->partitions; i++) {
            uint32_t at = topic->first + i;
            uint32_t old = t->holder[at] == 0 ? place_of(g->target, topic->uid, i) : EG_NOBODY;
            if (old != EG_NOBODY && g->target->who[old] != 0)
                w->now[at] = w->index_of[g->target->who[old]];
            /* It may be gone, or have changed its mind. */
            if (w->now[at] != EG_NOBODY && !takes(w, w->now[at], (uint32_t)k))
                w->now[at] = EG_NOBODY;
        }
    }
}

static struct eg_target *compute(struct eg_daemon *d, struct eg_group *g, enum eg_assignor how) {
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

/* ---- a generation ---------------------------------------------------------------------------------------------- */

static const char *why_text(uint32_t why) {
    static const struct {
        uint32_t bit;
        const char *text;
    } texts[] = {{EG_WHY_DIED, "members died"},        {EG_WHY_EVICTED, "members were put out"},
                 {EG_WHY_LEFT, "members left"},        {EG_WHY_JOINED, "members joined"},
                 {EG_WHY_SUBSCRIBED, "subscriptions"}, {EG_WHY_TOPICS, "topics changed"}};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if ((why & texts[i].bit) != 0)
            return texts[i].text;
    return "the daemon was restarted";
}

static void tell_log(struct eg_group *g, uint32_t why, uint64_t moved, int64_t now) {
    if (now - g->told_ns < TOLD_NS && g->told_ns != 0) {
        g->quiet++;
        return;
    }
    g->told_ns = now;
    eg_log_info("group '%s': generation %u: %zu members, %u partitions, %" PRIu64 " move, %s (%s)%s", g->name,
                g->generation, g->member_count, g->target != NULL ? g->target->count : 0, moved,
                g->type == EG_GROUP_SHARE ? "share" : eg_assignor_name((int)g->assignor), why_text(why),
                g->quiet > 0 ? "; others before it were not told" : "");
    g->quiet = 0;
}

void eg_group_next_generation(struct eg_daemon *d, struct eg_group *g) {
    g->generation++;
    d->figures.rebalances++;
    if (g->generation - g->noted_generation > EG_GENERATIONS_UNNOTED / 2) {
        g->dirty = true;
        eg_offsets_hurry(d);
    }
}

/* Has somebody what it is not to have? */
static bool has_too_much(const struct eg_group *g, const struct eg_target *t) {
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        for (size_t i = 0; i < m->given_count; i++) {
            const struct eg_given *v = &m->given[i];
            uint32_t at = v->leaving ? EG_NOBODY : place_of(t, v->topic_uid, v->partition);
            if (!v->leaving && (at == EG_NOBODY || t->who[at] != m->number))
                return true;
        }
    return false;
}

static void take_away(struct eg_group *g, bool all) {
    const struct eg_target *t = g->target;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        for (size_t i = 0; i < m->given_count; i++) {
            struct eg_given *v = &m->given[i];
            uint32_t at = place_of(t, v->topic_uid, v->partition);
            if (v->leaving || (!all && at != EG_NOBODY && t->who[at] == m->number))
                continue;
            v->leaving = true;
            v->gone = 0;
            m->leaving++;
            m->bump = true;
        }
        m->bump |= m->version == 0 && m->subscribed; /* it may have nothing, and is to know that */
        if (m->client == NULL)
            eg_member_settle(m);
    }
}

/* False: there is no memory for it. */
static bool generation(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    enum eg_assignor how = choose(g);
    struct eg_target *t = compute(d, g, how);
    uint64_t moved = 0;
    if (t == NULL)
        return false;
    for (uint32_t i = 0; i < t->count; i++)
        moved += t->who[i] != t->holder[i];
    bool news = (g->changed & ~(uint32_t)(EG_WHY_TOPICS | EG_WHY_RESTARTED)) != 0 || moved > 0 || has_too_much(g, t);
    eg_target_free(g->target);
    g->target = t;
    if (!news)
        return true;
    eg_group_next_generation(d, g);
    g->assignor = how;
    take_away(g, is_eager(how) && (moved > 0 || has_too_much(g, t)));
    tell_log(g, g->changed, moved, now);
    return true;
}

/* All members have all partitions that they subscribe, which GROUP_SYNC lists from the topics themselves: a version tells
 * who has others now. */
static void share_generation(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    uint64_t moved = 0;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        uint64_t sum = UINT64_C(1469598103934665603); /* FNV-1a, a number at a time */
        for (size_t i = 0; i < m->topic_count; i++) {
            const struct eg_topic *t = eg_topic_by_name(d, m->topics[i]);
            if (t != NULL)
                sum = (sum ^ ((uint64_t)t->meta.uid << 32 | t->partitions)) * UINT64_C(1099511628211);
        }
        bool changed = m->share_sum != sum || (m->version == 0 && m->subscribed);
        m->bump |= changed;
        m->share_sum = sum;
        moved += changed;
    }
    if (moved == 0 && (g->changed & ~(uint32_t)(EG_WHY_TOPICS | EG_WHY_RESTARTED)) == 0)
        return;
    eg_group_next_generation(d, g);
    tell_log(g, g->changed, moved, now);
}

/* ---- giving ---------------------------------------------------------------------------------------------------- */

static bool append(struct eg_member *m, uint32_t topic_uid, uint32_t partition) {
    if (m->given_count == m->given_cap) {
        size_t cap = m->given_cap == 0 ? 4 : 2 * m->given_cap;
        struct eg_given *more = realloc(m->given, cap * sizeof(*more));
        if (more == NULL)
            return false;
        m->given = more;
        m->given_cap = cap;
    }
    m->given[m->given_count++] =
        (struct eg_given){.topic_uid = topic_uid, .partition = partition, .collected = EG_NO_COMMIT};
    m->fresh++;
    return true;
}

/* The lowest cells that nobody uses: so that a page has memory for as many as it needs. */
static bool find_cells(struct eg_member *m) {
    size_t old = m->given_count - m->fresh;
    uint8_t *used = calloc(m->given_count, 1);
    uint32_t cell = 0;
    if (used == NULL)
        return false;
    for (size_t i = 0; i < old; i++)
        if (m->given[i].cell < m->given_count)
            used[m->given[i].cell] = 1;
    bool good = true;
    for (size_t i = old; i < m->given_count && good; i++) {
        while (used[cell] != 0)
            cell++;
        m->given[i].cell = cell;
        used[cell] = 1;
        good = m->page == NULL || eg_member_cell_clear(m, cell) == EAGRE_OK;
    }
    free(used);
    return good;
}

static int compare_given(const void *a, const void *b) {
    const struct eg_given *x = a, *y = b;
    if (x->topic_uid != y->topic_uid)
        return x->topic_uid < y->topic_uid ? -1 : 1;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

/* False: not all could be given now. */
static bool take_in(struct eg_group *g, struct eg_member *m) {
    bool good = find_cells(m);
    for (size_t i = m->given_count - m->fresh; i < m->given_count; i++) {
        uint32_t at = place_of(g->target, m->given[i].topic_uid, m->given[i].partition);
        g->target->holder[at] = good ? m->number : 0;
    }
    if (!good)
        m->given_count -= m->fresh;
    else
        qsort(m->given, m->given_count, sizeof(*m->given), compare_given);
    m->bump |= good;
    m->fresh = 0;
    return good;
}

/* False: memory is short. */
static bool give(struct eg_daemon *d, struct eg_group *g) {
    struct eg_target *t = g->target;
    bool good = true;
    if (t == NULL)
        return true;
    for (const struct eg_member *m = g->members; m != NULL && is_eager(g->assignor); m = m->next)
        if (m->leaving > 0)
            return true; /* first all of it is free */
    for (size_t k = 0; k < t->topic_count; k++) {
        const struct target_topic *topic = &t->topic[k];
        for (uint32_t i = 0; i < topic->partitions; i++) {
            uint32_t at = topic->first + i;
            struct eg_member *m = t->holder[at] == 0 && t->who[at] != 0 ? d->groups->by_number[t->who[at]] : NULL;
            if (m != NULL && m->group == g && !m->is_gone)
                good &= append(m, topic->uid, i);
        }
    }
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        if (m->fresh > 0)
            good &= take_in(g, m);
    return good;
}

/* A version for who has another list now. */
static bool new_versions(struct eg_group *g) {
    bool any = false;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        any |= m->unsaved;
        if (!m->bump)
            continue;
        any = m->unsaved = true;
        m->version++;
        m->generation = g->generation;
        for (size_t i = 0; i < m->given_count && m->leaving > 0; i++)
            if (m->given[i].leaving && m->given[i].gone == 0)
                m->given[i].gone = m->version;
    }
    return any;
}

static void tell(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    bool ring = false;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        if (!m->bump)
            continue;
        m->bump = m->untold = false;
        if (m->client == NULL || m->page == NULL) {
            eg_member_settle(m);
            continue;
        }
        /* Release: the cells. Partner: the member's acquire, each poll. */
        eg_store_release(&m->page->version, m->version);
        if (m->unapplied_ns == 0)
            m->unapplied_ns = now;
        m->client->ring = ring = true;
    }
    if (ring)
        eg_clients_ring_marked(d);
}

static enum eg_group_state state_of(const struct eg_group *g) {
    const struct eg_target *t = g->target;
    if (g->member_count == 0)
        return EG_GROUP_EMPTY;
    if (g->changed != 0)
        return EG_GROUP_REBALANCING;
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        if (m->leaving > 0 || m->bump || (m->client != NULL && m->applied != m->version))
            return EG_GROUP_REBALANCING;
    for (uint32_t i = 0; t != NULL && i < t->count; i++)
        if (t->holder[i] != t->who[i])
            return EG_GROUP_REBALANCING;
    return EG_GROUP_STABLE;
}

/* A turn of one group. False: something was short, so again in a moment. */
static bool turn(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    int64_t began = eg_mono_ns();
    bool good = true, generated = false;
    if (g->changed != 0 && g->due_ns <= now) {
        if (g->member_count == 0) {
            eg_target_free(g->target);
            g->target = NULL;
            eg_log_info("group '%s' has no members any more (%s)", g->name, why_text(g->changed));
        } else if (g->type == EG_GROUP_SHARE) {
            share_generation(d, g, now);
        } else {
            good = generation(d, g, now);
        }
        generated = good;
        if (good)
            g->changed = 0;
    }
    if (g->type == EG_GROUP_CONSUMER && g->changed == 0)
        good &= give(d, g);
    if (new_versions(g) || generated) {
        if (eg_members_save(d, g) != EAGRE_OK) {
            for (struct eg_member *m = g->members; m != NULL; m = m->next)
                m->untold = m->bump;
            return false;
        }
        EG_FAULT("group.given");
        tell(d, g, began);
        EG_FAULT("group.told");
    }
    g->state = state_of(g);
    if (generated) {
        int64_t took = eg_mono_ns() - began;
        g->calm_ns = began + (1 + CALM) * took;
        d->figures.rebalance_last_ns = took;
        if (took > d->figures.rebalance_max_ns)
            d->figures.rebalance_max_ns = took;
    }
    return good;
}

int64_t eg_rebalance_tick(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    int64_t due = INT64_MAX, stop = now + SLICE_NS;
    for (struct eg_group **at = &all->queue, *g; (g = *at) != NULL;) {
        int64_t when = g->push ? g->retry_ns : g->due_ns;
        if (when > now) {
            due = when < due ? when : due;
            at = &g->next_queued;
            continue;
        }
        if (eg_mono_ns() >= stop)
            return 0;
        g->push = false;
        g->retry_ns = 0;
        if (!turn(d, g, now)) {
            g->push = true;
            g->retry_ns = now + RETRY_NS;
        }
        if (g->push || g->changed != 0)
            continue; /* looked at once more for when it is due */
        g->queued = false;
        *at = g->next_queued;
    }
    return due;
}
