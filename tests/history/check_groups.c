/*
 * What members of groups say: who had which partition when and in which generation, what they committed, and what
 * was delivered to whom. All is collected while the logs are walked; the rules come at the end.
 */
#include <stdlib.h>
#include <string.h>

#include "history/acked.h"
#include "history/check.h"
#include "history/member.h"
#include "sys/atomic.h"

/* A partition of a group: first in what is sorted by it. */
struct key {
    uint32_t group, topic;
    int32_t partition;
};

/* A partition is a member's. */
struct turn {
    struct key key;
    uint32_t consumer;
    uint64_t who;                /* the same static member, or the same life of a dynamic one */
    uint32_t first, last;        /* generations in which it had it; 0: not known */
    int64_t polled_ns, begun_ns; /* it was given to it between these times */
    int64_t
        until_ns; /* it was still its own then; before begun_ns: it was told so late, perhaps too late */
    int64_t start, committed;
};

struct commit {
    struct key key;
    uint32_t consumer;
    int64_t offset;
    int64_t before_ns, after_ns; /* after_ns 0: who knows whether it was made */
    enum history_commit state;
    bool certain; /* it counts */
    bool in_vain; /* it does not: the partition was another one's already */
};

/* Somebody saw a committed offset. */
struct look {
    struct key key;
    uint32_t consumer;
    int64_t offset, after_ns;
};

struct seen_generation {
    uint32_t group, generation;
    int64_t before_ns, after_ns;
};

struct end {
    struct key key;
    int64_t offset;
};

struct known_group {
    uint32_t group;
    bool share;
};

#define LIST(type)                                                                                 \
    struct {                                                                                       \
        struct type *list;                                                                         \
        size_t count, room;                                                                        \
    }

struct history_groups {
    struct life life;
    uint32_t lives;
    LIST(turn) turns;
    LIST(commit) commits;
    LIST(look) looks;
    LIST(seen_generation) generations;
    LIST(end) ends;
    LIST(known_group) groups;
    struct history_table delivered; /* topic: group and topic; sequence: when it was told first */
    /* of the log that is walked */
    size_t *open; /* turns */
    size_t open_count;
    size_t unsettled;    /* commits from this one on */
    uint32_t generation; /* the last one; of all its lives */
};

static void *room(void *list, size_t count, size_t *cap, size_t size) {
    if (count < *cap)
        return list;
    *cap = *cap * 2 + 64;
    list = realloc(list, *cap * size);
    if (list == NULL)
        abort();
    return list;
}
#define ADD(l, ...)                                                                                \
    ((l)->list = room((l)->list, (l)->count, &(l)->room, sizeof(*(l)->list)),                      \
     (l)->list[(l)->count++] = __VA_ARGS__)

void history_groups_init(struct check *k) {
    k->groups = calloc(1, sizeof(*k->groups));
    if (k->groups == NULL)
        abort();
    history_table_init(&k->groups->delivered);
    history_shares_init(k);
}

void history_groups_free(struct check *k) {
    struct history_groups *g = k->groups;
    history_shares_free(k);
    history_table_free(&g->delivered);
    free(g->turns.list);
    free(g->commits.list);
    free(g->looks.list);
    free(g->generations.list);
    free(g->ends.list);
    free(g->groups.list);
    free(g->open);
    free(g);
}

const struct life *history_groups_life(const struct check *k) { return &k->groups->life; }

/* ---- a member's log -------------------------------------------------------------------------------------- */

static struct key key_of(const struct history_groups *g, const struct history_seen *s) {
    return (struct key){g->life.group, s->topic, s->partition};
}

static uint32_t table_topic(uint32_t group, uint32_t topic) { return group << 16 | topic; }

static void know(struct history_groups *g, uint32_t group, bool share) {
    for (size_t i = 0; i < g->groups.count; i++)
        if (g->groups.list[i].group == group)
            return;
    ADD(&g->groups, (struct known_group){group, share});
}

/* Commits until now: those count that were made before it was surely still a member. */
static void settle(struct check *k, int64_t alive_ns, bool all) {
    struct history_groups *g = k->groups;
    for (; g->unsettled < g->commits.count; g->unsettled++) {
        struct commit *c = &g->commits.list[g->unsettled];
        bool made = c->state == HISTORY_COMMIT_DONE && c->after_ns != 0;
        c->certain = c->state == HISTORY_COMMIT_SAFE ||
                     (made && (all || k->options->none_put_out || c->after_ns <= alive_ns));
    }
}

static void close_turn(struct history_groups *g, size_t i, int64_t until_ns) {
    struct turn *t = &g->turns.list[g->open[i]];
    t->until_ns = until_ns;
    g->open[i] = g->open[--g->open_count];
}

static void life_ends(struct check *k, bool died, int64_t alive_ns, bool committed) {
    struct history_groups *g = k->groups;
    if (!g->life.is)
        return;
    while (g->open_count > 0)
        close_turn(g, 0, alive_ns);
    settle(k, alive_ns, committed);
    history_shares_life_ends(k, &g->life, died, alive_ns);
    g->life.is = false;
}

static void life_begins(struct check *k, const struct history_seen *s) {
    struct history_groups *g = k->groups;
    life_ends(k, true, g->life.alive_ns, false);
    g->life = (struct life){.is = true,
                            .group = s->topic,
                            .number = ++g->lives,
                            .instance = s->partition,
                            .alive_ns = (int64_t)s->hash};
    know(g, s->topic, s->producer != 0);
    k->report->members++;
}

static size_t find_open(const struct history_groups *g, const struct history_seen *s) {
    size_t i = 0;
    for (; i < g->open_count; i++) {
        const struct turn *t = &g->turns.list[g->open[i]];
        if (t->key.topic == s->topic && t->key.partition == s->partition)
            break;
    }
    return i;
}

static void assigned(struct check *k, const struct history_seen *s) {
    struct history_groups *g = k->groups;
    uint64_t who = g->life.instance >= 0 ? UINT64_MAX - (uint32_t)g->life.instance : g->life.number;
    if (find_open(g, s) < g->open_count)
        history_broken(k, HISTORY_LOG_RULE, OF_GROUP "consumer %u has it already", g->life.group,
                       s->topic, s->partition, k->consumer);
    ADD(&g->turns, (struct turn){.key = key_of(g, s),
                                 .consumer = k->consumer,
                                 .who = who,
                                 .first = s->producer,
                                 .last = s->producer,
                                 .polled_ns = s->before_ns,
                                 .begun_ns = s->after_ns,
                                 .start = s->offset,
                                 .committed = (int64_t)s->sequence});
    g->open = history_grown(g->open, g->open_count, sizeof(*g->open));
    g->open[g->open_count++] = g->turns.count - 1;
    if ((int64_t)s->sequence >= 0)
        ADD(&g->looks, (struct look){key_of(g, s), k->consumer, (int64_t)s->sequence, s->after_ns});
    k->report->turns++;
}

static void taken_away(struct check *k, const struct history_seen *s, int64_t until_ns) {
    struct history_groups *g = k->groups;
    size_t i = find_open(g, s);
    if (i == g->open_count)
        history_broken(k, HISTORY_STRAY_RULE,
                       OF_GROUP "consumer %u is to give up what it does not have", g->life.group,
                       s->topic, s->partition, k->consumer);
    else
        close_turn(g, i, until_ns);
}

static void generation(struct check *k, const struct history_seen *s) {
    struct history_groups *g = k->groups;
    if (s->producer < g->generation)
        history_broken(k, HISTORY_GENERATION_RULE,
                       "group %u: consumer %u comes to generation %u after %u", g->life.group,
                       k->consumer, s->producer, g->generation);
    g->generation = s->producer;
    for (size_t i = 0; i < g->open_count; i++) {
        struct turn *t = &g->turns.list[g->open[i]];
        t->last = s->producer > t->last ? s->producer : t->last;
    }
}

static void delivered(struct history_groups *g, const struct history_seen *s) {
    struct history_cell *c =
        history_cell(&g->delivered, table_topic(g->life.group, s->topic), s->partition, s->offset);
    if (!(c->flags & HISTORY_CELL_SEEN) || (int64_t)c->sequence > s->after_ns)
        c->sequence = (uint64_t)s->after_ns;
    c->flags |= HISTORY_CELL_SEEN;
}

void history_groups_passed(struct check *k, uint32_t topic, int32_t partition, int64_t from,
                           int64_t to) {
    struct history_groups *g = k->groups;
    for (int64_t at = from; g->life.is && at < to && to - from <= HISTORY_MAX_SKIP; at++)
        delivered(g, &(struct history_seen){.topic = topic, .partition = partition, .offset = at});
}

void history_groups_entry(struct check *k, const struct history_seen *s) {
    struct history_groups *g = k->groups;
    uint32_t kind = eg_load_relaxed(&s->kind);
    bool of_member = kind == HISTORY_ASSIGNED || kind == HISTORY_REVOKED ||
                     kind == HISTORY_PUT_OUT || kind == HISTORY_LEFT ||
                     kind == HISTORY_GENERATION || kind == HISTORY_COMMIT ||
                     kind == HISTORY_ACQUIRED || kind == HISTORY_END;
    if (of_member && !g->life.is) {
        history_broken(k, HISTORY_LOG_RULE, "consumer %u is no member: entry of kind %u",
                       k->consumer, kind);
        return;
    }
    switch (kind) {
    case HISTORY_MEMBER:
        life_begins(k, s);
        break;
    case HISTORY_ASSIGNED:
        assigned(k, s);
        break;
    case HISTORY_REVOKED:
        taken_away(k, s, s->before_ns);
        break;
    case HISTORY_PUT_OUT:
        settle(k, (int64_t)s->hash, false);
        k->report->put_out++;
        taken_away(k, s, (int64_t)s->hash);
        break;
    case HISTORY_LEFT:
        life_ends(k, false, (int64_t)s->hash, s->producer != 0);
        break;
    case HISTORY_GENERATION:
        generation(k, s);
        break;
    case HISTORY_COMMIT:
        ADD(&g->commits, (struct commit){.key = key_of(g, s),
                                         .consumer = k->consumer,
                                         .offset = s->offset,
                                         .before_ns = s->before_ns,
                                         .after_ns = s->after_ns,
                                         .state = (enum history_commit)s->producer});
        k->report->commits++;
        break;
    case HISTORY_RECORD:
        if (g->life.is)
            delivered(g, s);
        break;
    case HISTORY_ACQUIRED:
        delivered(g, s);
        history_check_content(k, s);
        history_shares_acquired(k, &g->life, s);
        break;
    case HISTORY_END:
        history_shares_ended(k, &g->life, s);
        break;
    case HISTORY_COMMITTED:
        ADD(&g->looks,
            (struct look){
                {s->producer, s->topic, s->partition}, k->consumer, s->offset, s->after_ns});
        break;
    case HISTORY_GENERATION_SEEN:
        ADD(&g->generations,
            (struct seen_generation){s->topic, s->producer, s->before_ns, s->after_ns});
        break;
    case HISTORY_GROUP_COMPLETE:
        ADD(&g->ends, (struct end){{s->producer, s->topic, s->partition}, s->offset});
        break;
    default:
        break;
    }
}

void history_groups_log_ends(struct check *k) {
    struct history_groups *g = k->groups;
    life_ends(k, true, g->life.alive_ns, false);
    g->generation = 0;
}

/* ---- who had what ---------------------------------------------------------------------------------------------- */

static int by_key(const struct key *a, const struct key *b) {
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    if (a->topic != b->topic)
        return a->topic < b->topic ? -1 : 1;
    return a->partition < b->partition ? -1 : a->partition > b->partition;
}

static int by_time(int64_t a, int64_t b) { return a < b ? -1 : a > b; }

static int compare_turns(const void *a, const void *b) {
    const struct turn *x = a, *y = b;
    int side = by_key(&x->key, &y->key);
    return side != 0 ? side : by_time(x->begun_ns, y->begun_ns);
}

/* Who was stopped before it said that it begins may have been put out by then. */
static bool is_certain(const struct turn *t) { return t->until_ns > t->begun_ns; }

static void check_turns(struct check *k) {
    const struct history_groups *g = k->groups;
    const struct turn *longest = NULL, *latest = NULL;
    for (size_t i = 0; i < g->turns.count; i++) {
        const struct turn *t = &g->turns.list[i];
        if (i == 0 || by_key(&t->key, &g->turns.list[i - 1].key) != 0)
            longest = latest = NULL;
        if (longest != NULL && is_certain(t) && longest->until_ns > t->begun_ns)
            history_broken(k, HISTORY_SHARED_RULE,
                           OF_GROUP "consumer %u had it from %" PRId64 " to %" PRId64
                                    ", and consumer %u from %" PRId64 " on",
                           t->key.group, t->key.topic, t->key.partition, longest->consumer,
                           longest->begun_ns, longest->until_ns, t->consumer, t->begun_ns);
        /* In the same one; or, if it comes later, not in a later one. */
        if (latest != NULL && t->first != 0 && t->who != latest->who && t->first <= latest->last &&
            (is_certain(t) || latest->first <= t->last))
            history_broken(k, HISTORY_GENERATION_RULE,
                           OF_GROUP
                           "consumer %u has it in generation %u, and consumer %u had it in %u",
                           t->key.group, t->key.topic, t->key.partition, t->consumer, t->first,
                           latest->consumer, latest->last);
        if (is_certain(t) && (longest == NULL || t->until_ns > longest->until_ns))
            longest = t;
        if (latest == NULL || t->last >= latest->last)
            latest = t;
    }
}

static int compare_generations(const void *a, const void *b) {
    const struct seen_generation *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return by_time(x->before_ns, y->before_ns);
}

static void check_generations(struct check *k) {
    const struct history_groups *g = k->groups;
    for (size_t i = 0; i < g->generations.count; i++) {
        const struct seen_generation *s = &g->generations.list[i];
        for (size_t j = i; j-- > 0 && g->generations.list[j].group == s->group;) {
            const struct seen_generation *was = &g->generations.list[j];
            if (was->after_ns < s->before_ns && was->generation > s->generation) {
                history_broken(k, HISTORY_GENERATION_RULE, "group %u: generation %u, and %u before",
                               s->group, s->generation, was->generation);
                break;
            }
        }
    }
}

/* ---- what there is ---------------------------------------------------------------------------- */

static size_t first_of(const struct history_acked *a, const struct key *key, int64_t from) {
    return history_acked_first(a, key->topic, key->partition, from);
}

static bool is_of(const struct history_acked *a, size_t i, const struct key *key, int64_t below) {
    return history_acked_is(a, i, key->topic, key->partition, below);
}

/* ---- where they began ---------------------------------------------------------------------------------------------- */

static int compare_commits(const void *a, const void *b) {
    const struct commit *x = a, *y = b;
    int side = by_key(&x->key, &y->key);
    return side != 0 ? side : by_time(x->before_ns, y->before_ns);
}

/* A turn begins where the last certain commit before it says, or where one says that was asked for after that. */
static void check_start(struct check *k, const struct history_acked *a, const struct turn *t,
                        const struct commit *list, size_t count) {
    const struct commit *last = NULL;
    int64_t least = INT64_MAX, most = -1;
    for (size_t i = 0; i < count; i++)
        if (list[i].certain && list[i].after_ns < t->polled_ns &&
            (last == NULL || list[i].before_ns > last->before_ns))
            last = &list[i];
    for (size_t i = 0; i < count; i++) {
        const struct commit *c = &list[i];
        if (c->in_vain || c->before_ns > t->begun_ns ||
            (last != NULL && c->before_ns < last->before_ns))
            continue;
        least = c->offset < least ? c->offset : least;
        most = c->offset > most ? c->offset : most;
    }
    int64_t log_start = history_sum(&k->table, t->key.topic, t->key.partition)->log_start;
    /* What lies between need not be a record. */
    int64_t from = most > log_start ? most : log_start;
    if (is_of(a, first_of(a, &t->key, from), &t->key, t->start))
        history_broken(k, HISTORY_LATER_RULE,
                       OF_GROUP "consumer %u begins at %" PRId64
                                ", and the last commit was of %" PRId64,
                       t->key.group, t->key.topic, t->key.partition, t->consumer, t->start, most);
    if (last != NULL && is_of(a, first_of(a, &t->key, t->start), &t->key, least))
        history_broken(k, HISTORY_FORGOTTEN_RULE,
                       OF_GROUP "consumer %u begins at %" PRId64
                                ", but consumer %u committed %" PRId64,
                       t->key.group, t->key.topic, t->key.partition, t->consumer, t->start,
                       last->consumer, last->offset);
}

/* Asked for by one who did not know yet that it had been put out. Refused or not: it must not count. Who was given it
 * since may have died so early that nobody knows how long it had it: what it asked for may count. */
static void find_vain(struct history_groups *g) {
    const struct turn *t = g->turns.list, *end = t + g->turns.count, *of = t; /* of: the key's first one */
    for (size_t i = 0; i < g->commits.count; i++) {
        struct commit *c = &g->commits.list[i];
        while (of < end && by_key(&of->key, &c->key) < 0)
            of++;
        if (t < of)
            t = of;
        while (t < end && by_key(&t->key, &c->key) == 0 && t->begun_ns < c->before_ns)
            t++;
        const struct turn *last = t;
        while (last > of && !is_certain(last - 1) && last[-1].consumer != c->consumer)
            last--;
        c->in_vain = !c->certain && last > of && last[-1].consumer != c->consumer;
    }
}

static void check_starts(struct check *k, const struct history_acked *a) {
    const struct history_groups *g = k->groups;
    size_t from = 0;
    for (size_t i = 0; i < g->turns.count; i++) {
        const struct turn *t = &g->turns.list[i];
        while (from < g->commits.count && by_key(&g->commits.list[from].key, &t->key) < 0)
            from++;
        size_t to = from;
        while (to < g->commits.count && by_key(&g->commits.list[to].key, &t->key) == 0)
            to++;
        check_start(k, a, t, g->commits.list + from, to - from);
    }
}

/* ---- what was delivered -------------------------------------------------------------------------------------------- */

static bool was_delivered(struct history_groups *g, const struct key *key, int64_t offset,
                          int64_t by_ns) {
    const struct history_cell *c =
        history_cell(&g->delivered, table_topic(key->group, key->topic), key->partition, offset);
    return (c->flags & HISTORY_CELL_SEEN) && (int64_t)c->sequence <= by_ns;
}

static int compare_looks(const void *a, const void *b) {
    const struct look *x = a, *y = b;
    int side = by_key(&x->key, &y->key);
    return side != 0 ? side : by_time(x->after_ns, y->after_ns);
}

/* Looks come in the order of time: what was delivered once stays so, so each record is looked at once. */
static void check_looks(struct check *k, const struct history_acked *a) {
    struct history_groups *g = k->groups;
    size_t at = 0;
    for (size_t i = 0; i < g->looks.count; i++) {
        const struct look *l = &g->looks.list[i];
        if (i == 0 || by_key(&l->key, &g->looks.list[i - 1].key) != 0)
            at = first_of(a, &l->key, 0);
        while (is_of(a, at, &l->key, l->offset) &&
               was_delivered(g, &l->key, a->list[at]->offset, l->after_ns))
            at++;
        if (is_of(a, at, &l->key, l->offset))
            history_broken(k, HISTORY_AHEAD_RULE,
                           OF_GROUP "consumer %u sees %" PRId64 " committed, but %" PRId64
                                    " was not delivered before",
                           l->key.group, l->key.topic, l->key.partition, l->consumer, l->offset,
                           a->list[at]->offset);
    }
}

static bool is_share(const struct history_groups *g, uint32_t group) {
    for (size_t i = 0; i < g->groups.count; i++)
        if (g->groups.list[i].group == group)
            return g->groups.list[i].share;
    return false;
}

static void check_end(struct check *k, const struct history_acked *a, const struct end *e) {
    struct history_groups *g = k->groups;
    bool share = is_share(g, e->key.group);
    for (size_t i = first_of(a, &e->key, 0); is_of(a, i, &e->key, INT64_MAX); i++) {
        int64_t offset = a->list[i]->offset;
        if (offset < e->offset && was_delivered(g, &e->key, offset, INT64_MAX) &&
            (!share ||
             history_shares_done(k, e->key.group, e->key.topic, e->key.partition, offset)))
            continue;
        history_broken(k, HISTORY_MISSED_RULE, OF_GROUP "offset %" PRId64 " of %" PRId64,
                       e->key.group, e->key.topic, e->key.partition, offset, e->offset);
    }
}

static void check_ends(struct check *k, const struct history_acked *a) {
    const struct history_groups *g = k->groups;
    for (size_t i = 0; i < g->ends.count; i++)
        check_end(k, a, &g->ends.list[i]);
    for (size_t i = 0; k->options->need_complete && i < g->groups.count; i++)
        for (size_t j = 0; j < k->table.sum_count; j++) {
            const struct history_sum *s = &k->table.sums[j];
            struct key key = {g->groups.list[i].group, s->topic, s->partition};
            bool found = s->last_acked < 0;
            for (size_t n = 0; n < g->ends.count && !found; n++)
                found = by_key(&g->ends.list[n].key, &key) == 0;
            if (!found)
                history_broken(k, HISTORY_MISSED_RULE, OF_GROUP "it was not read to its end",
                               key.group, key.topic, key.partition);
        }
}

void history_groups_check(struct check *k) {
    struct history_groups *g = k->groups;
#define SORT(l, compare)                                                                           \
    if ((l).count > 0)                                                                             \
    qsort((l).list, (l).count, sizeof(*(l).list), compare)
    SORT(g->turns, compare_turns);
    SORT(g->commits, compare_commits);
    SORT(g->looks, compare_looks);
    SORT(g->generations, compare_generations);
    if (g->groups.count == 0)
        return;
    struct history_acked a = history_acked_all(&k->table);
    history_shares_check(k);
    check_turns(k);
    check_generations(k);
    find_vain(g);
    check_starts(k, &a);
    check_looks(k, &a);
    check_ends(k, &a);
    free(a.list);
}
