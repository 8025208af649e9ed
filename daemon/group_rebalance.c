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

#include "clients.h"
#include "group_target.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "topics.h"

#define GATHER_NS (2 * EG_NS_PER_MS)      /* after the last change, for those that come with it ... */
#define GATHER_MAX_NS (10 * EG_NS_PER_MS) /* ... but not longer after the first */
#define DEATHS_MAX_NS (40 * EG_NS_PER_MS) /* and so long again while the janitor looks after others that may be dead */
#define RETRY_NS (100 * EG_NS_PER_MS)     /* when memory or the disk is short */
#define SLICE_NS (2 * EG_NS_PER_MS)
#define CALM 4                            /* so many times as long as it took, a group has no other rebalance ... */
#define CALM_MAX_NS (20 * EG_NS_PER_MS)   /* ... but the dead one's partitions must not wait for long */
#define TURN_MEMBERS 128u                 /* that get something, or a version, in one turn: a millisecond or so */
#define TOLD_NS (100 * EG_NS_PER_MS)      /* a line in the log each, if there are not more */

static void is_free(struct eg_group *g, const struct eg_member *m, const struct eg_given *v) {
    uint32_t at = eg_target_place(g->target, v->topic_uid, v->partition);
    if (at != EG_NOBODY && g->target->holder[at] == m->number)
        g->target->holder[at] = 0;
}

static bool is_eager(enum eg_assignor how) { return how == EG_ASSIGN_RANGE || how == EG_ASSIGN_ROUND_ROBIN; }

/* ---- turns ------------------------------------------------------------------------------------------------ */

/* At the end: each has its turn, however often others are back. */
static void queue(struct eg_daemon *d, struct eg_group *g) {
    struct eg_groups *all = d->groups;
    if (g->queued)
        return;
    g->queued = true;
    g->next_queued = NULL;
    *(all->queue != NULL ? all->queue_end : &all->queue) = g;
    all->queue_end = &g->next_queued;
}

/* at: the link to it. */
static void unqueue(struct eg_groups *all, struct eg_group **at) {
    struct eg_group *g = *at;
    *at = g->next_queued;
    if (all->queue_end == &g->next_queued)
        all->queue_end = at;
    g->queued = false;
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
        unqueue(d->groups, at);
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
    m->freed |= m->given_count != kept;
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
            uint32_t at = v->leaving ? EG_NOBODY : eg_target_place(t, v->topic_uid, v->partition);
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
            uint32_t at = eg_target_place(t, v->topic_uid, v->partition);
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
    enum eg_assignor how = eg_group_choose(g);
    struct eg_target *t = eg_target_compute(d, g, how);
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
        uint32_t at = eg_target_place(g->target, m->given[i].topic_uid, m->given[i].partition);
        g->target->holder[at] = good ? m->number : 0;
    }
    if (!good)
        m->given_count -= m->fresh;
    else
        qsort(m->given, m->given_count, sizeof(*m->given), compare_given);
    m->bump |= good;
    m->got = good;
    m->fresh = 0;
    return good;
}

/* A cell that was given up says its last commit until the store does: only then it may be another partition's. */
static int note_freed(struct eg_daemon *d, struct eg_group *g) {
    for (const struct eg_member *m = g->members; m != NULL; m = m->next)
        if (m->freed)
            return eg_members_save(d, g);
    return EAGRE_OK;
}

/* False: memory or the disk is short. Who gets something gets all of it; others have it in the next turn. */
static bool give(struct eg_daemon *d, struct eg_group *g) {
    struct eg_target *t = g->target;
    uint32_t members = 0;
    bool good = true;
    if (t == NULL)
        return true;
    for (const struct eg_member *m = g->members; m != NULL && is_eager(g->assignor); m = m->next)
        if (m->leaving > 0)
            return true; /* first all of it is free */
    if (note_freed(d, g) != EAGRE_OK)
        return false;
    for (size_t k = 0; k < t->topic_count; k++) {
        const struct eg_target_topic *topic = &t->topic[k];
        for (uint32_t i = 0; i < topic->partitions; i++) {
            uint32_t at = topic->first + i;
            struct eg_member *m = t->holder[at] == 0 && t->who[at] != 0 ? d->groups->by_number[t->who[at]] : NULL;
            if (m == NULL || m->group != g || m->is_gone)
                continue;
            if (m->fresh == 0 && members == TURN_MEMBERS) {
                g->push = true;
                continue;
            }
            members += m->fresh == 0;
            good &= append(m, topic->uid, i);
        }
    }
    for (struct eg_member *m = g->members; m != NULL; m = m->next)
        if (m->fresh > 0)
            good &= take_in(g, m);
    if (members > 0)
        EG_FAULT("group.cleared");
    return good;
}

/* A version for who has another list now. Who has only lost something may learn it a turn later. */
static bool new_versions(struct eg_group *g) {
    uint32_t members = 0;
    bool any = false;
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        any |= m->unsaved;
        if (!m->bump)
            continue;
        if (!m->got && members >= TURN_MEMBERS) {
            g->push = true;
            continue;
        }
        members++;
        any = m->unsaved = m->made = true;
        m->version++;
        m->generation = g->generation;
        for (size_t i = 0; i < m->given_count && m->leaving > 0; i++)
            if (m->given[i].leaving && m->given[i].gone == 0)
                m->given[i].gone = m->version;
    }
    return any;
}

static void tell(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    for (struct eg_member *m = g->members; m != NULL; m = m->next) {
        if (!m->made)
            continue;
        m->bump = m->got = m->made = m->untold = false;
        if (m->client == NULL || m->page == NULL) {
            eg_member_settle(m);
            continue;
        }
        /* Release: the cells. Partner: the member's acquire, each poll. */
        eg_store_release(&m->page->version, m->version);
        if (m->unapplied_ns == 0)
            m->unapplied_ns = now;
        eg_member_ring(d, m);
    }
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

/* A generation, now? Many deaths at once are one, however long the janitor takes for them. */
static bool is_due(const struct eg_daemon *d, const struct eg_group *g, int64_t now) {
    if (g->changed == 0 || g->due_ns > now)
        return false;
    return (g->changed & EG_WHY_DIED) == 0 || d->clients->look_ns > now || now >= g->last_due_ns + DEATHS_MAX_NS;
}

/* A turn of one group. False: something was short, so again in a moment. */
static bool turn(struct eg_daemon *d, struct eg_group *g, int64_t now) {
    int64_t began = eg_mono_ns();
    bool good = true, generated = false;
    if (is_due(d, g, now)) {
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
                m->untold |= m->made;
            return false;
        }
        EG_FAULT("group.given");
        tell(d, g, began);
        EG_FAULT("group.told");
    }
    g->state = state_of(g);
    if (generated) {
        int64_t took = eg_mono_ns() - began;
        g->calm_ns = began + took + (CALM * took < CALM_MAX_NS ? CALM * took : CALM_MAX_NS);
        d->figures.rebalance_last_ns = took;
        if (took > d->figures.rebalance_max_ns)
            d->figures.rebalance_max_ns = took;
    }
    return good;
}

/* Until the slice is over: 0. */
static int64_t turns(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    int64_t due = INT64_MAX, stop = eg_mono_ns() + SLICE_NS;
    for (struct eg_group **at = &all->queue, *g; (g = *at) != NULL;) {
        int64_t when = g->push ? g->retry_ns : g->due_ns;
        if (!g->push && when <= now && !is_due(d, g, now))
            when = now + EG_NS_PER_MS;
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
        unqueue(all, at);
        if (g->push || g->changed != 0)
            queue(d, g); /* looked at once more for when it is due */
    }
    return due;
}

int64_t eg_rebalance_tick(struct eg_daemon *d, int64_t now) {
    return turns(d, now);
}
