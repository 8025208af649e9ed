/* What members of share groups say: who took which record when, and what became of it. */
#include <stdlib.h>
#include <string.h>

#include "history/check.h"
#include "history/member.h"

/* The product measures the time of an acquisition in steps of 34 ms. */
#define LOCK_STEP_NS 50000000

/* One delivery. */
struct taking {
    uint32_t group, topic;
    int32_t partition;
    int64_t offset;
    uint32_t consumer, life;
    uint32_t count;
    int64_t before_ns, after_ns; /* it was taken between these times */
    int64_t held_ns;             /* it was surely still its taker's then */
    uint32_t how;                /* enum history_end; 0: nothing was said */
    enum history_commit state;   /* of that */
    int64_t ended_ns;            /* and it was answered then */
};

struct history_shares {
    struct taking *list; /* sorted at the end */
    size_t count, room;
    size_t life; /* those of the life that is walked begin here */
    struct deaths {
        uint32_t group, count;
    } * deaths; /* a death hides at most one delivery of a record */
    size_t death_count;
};

void history_shares_init(struct check *k) {
    k->shares = calloc(1, sizeof(*k->shares));
    if (k->shares == NULL)
        abort();
}

void history_shares_free(struct check *k) {
    free(k->shares->list);
    free(k->shares->deaths);
    free(k->shares);
}

static uint32_t *deaths_of(struct history_shares *h, uint32_t group) {
    for (size_t i = 0; i < h->death_count; i++)
        if (h->deaths[i].group == group)
            return &h->deaths[i].count;
    h->deaths = history_grown(h->deaths, h->death_count, sizeof(*h->deaths));
    h->deaths[h->death_count].group = group;
    return &h->deaths[h->death_count++].count;
}

/* ---- a member's log -------------------------------------------------------------------------------------- */

void history_shares_acquired(struct check *k, const struct life *l, const struct history_seen *s) {
    struct history_shares *h = k->shares;
    k->report->acquired++;
    if (h->count == h->room) {
        h->room = h->room * 2 + 1024;
        h->list = realloc(h->list, h->room * sizeof(*h->list));
        if (h->list == NULL)
            abort();
    }
    h->list[h->count++] = (struct taking){.group = l->group,
                                          .topic = s->topic,
                                          .partition = s->partition,
                                          .offset = s->offset,
                                          .consumer = k->consumer,
                                          .life = l->number,
                                          .count = (uint32_t)s->hash_then,
                                          .before_ns = s->before_ns,
                                          .after_ns = s->after_ns};
}

void history_shares_ended(struct check *k, const struct life *l, const struct history_seen *s) {
    struct history_shares *h = k->shares;
    for (size_t i = h->count; i-- > h->life;) {
        struct taking *t = &h->list[i];
        if (t->offset != s->offset || t->partition != s->partition || t->topic != s->topic)
            continue;
        if (t->how != 0)
            break;
        t->how = (uint32_t)s->sequence;
        t->state = (enum history_commit)s->producer;
        t->held_ns = s->before_ns;
        t->ended_ns = s->after_ns;
        bool done = t->state == HISTORY_COMMIT_DONE && t->how != HISTORY_RELEASE;
        k->report->ended += done;
        return;
    }
    history_broken(k, HISTORY_LOG_RULE,
                   PLACE ": consumer %u of group %u acknowledges what it was not given", s->topic,
                   s->partition, s->offset, k->consumer, l->group);
}

void history_shares_life_ends(struct check *k, const struct life *l, bool died, int64_t alive_ns) {
    struct history_shares *h = k->shares;
    int64_t lock_ms = k->options->share_lock_ms != 0 ? k->options->share_lock_ms : 30000;
    for (; h->life < h->count; h->life++) {
        struct taking *t = &h->list[h->life];
        int64_t over = t->before_ns + lock_ms * 1000000 - LOCK_STEP_NS;
        if (t->how != 0 && t->state == HISTORY_COMMIT_DONE)
            continue; /* it was its own until then */
        int64_t held = t->how != 0 && t->held_ns < alive_ns ? t->held_ns : alive_ns;
        t->held_ns = held < over ? held : over;
    }
    if (died)
        ++*deaths_of(h, l->group);
}

/* ---- the rules ------------------------------------------------------------------------------------------------- */

static int compare_places(const struct taking *x, const struct taking *y) {
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int compare(const void *a, const void *b) {
    const struct taking *x = a, *y = b;
    int side = compare_places(x, y);
    if (side != 0)
        return side;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return x->after_ns < y->after_ns ? -1 : x->after_ns > y->after_ns;
}

#define OF_TAKING "group %u, " PLACE ": "
#define TAKING(t) (t)->group, (t)->topic, (t)->partition, (t)->offset

static uint32_t limit_of(const struct check *k) {
    return k->options->share_limit != 0 ? k->options->share_limit : 5;
}

/* All deliveries of one record. */
static void check_record(struct check *k, const struct taking *t, size_t n) {
    const struct taking *done = NULL;
    uint32_t missing = t[0].count - 1;
    for (size_t i = 0; i < n; i++) {
        if (t[i].count == 0 || t[i].count > limit_of(k))
            history_broken(k, HISTORY_COUNT_RULE, OF_TAKING "consumer %u had it for the %u. time",
                           TAKING(t), t[i].consumer, t[i].count);
        if (i > 0 && (t[i].count == t[i - 1].count || t[i].after_ns < t[i - 1].before_ns))
            history_broken(k, HISTORY_COUNT_RULE,
                           OF_TAKING
                           "consumer %u had it for the %u. time, then consumer %u for the %u.",
                           TAKING(t), t[i - 1].consumer, t[i - 1].count, t[i].consumer, t[i].count);
        if (i > 0 && t[i].count > t[i - 1].count + 1)
            missing += t[i].count - t[i - 1].count - 1;
        for (size_t j = 0; j < i; j++)
            if (t[i].after_ns < t[j].held_ns)
                history_broken(k, HISTORY_TWO_TAKERS_RULE,
                               OF_TAKING "consumer %u had it until %" PRId64
                                         ", and consumer %u from %" PRId64 " on",
                               TAKING(t), t[j].consumer, t[j].held_ns, t[i].consumer,
                               t[i].after_ns);
        if (done != NULL && t[i].before_ns > done->ended_ns)
            history_broken(k, HISTORY_ENDED_TWICE_RULE,
                           OF_TAKING "consumer %u has it, but consumer %u had acknowledged it",
                           TAKING(t), t[i].consumer, done->consumer);
        if (t[i].state != HISTORY_COMMIT_DONE || t[i].how == HISTORY_RELEASE)
            continue;
        if (done != NULL)
            history_broken(k, HISTORY_ENDED_TWICE_RULE, OF_TAKING "by consumer %u and consumer %u",
                           TAKING(t), done->consumer, t[i].consumer);
        done = &t[i];
    }
    if (missing > *deaths_of(k->shares, t->group))
        history_broken(k, HISTORY_COUNT_RULE,
                       OF_TAKING "nobody was given it %u times, and %u members died", TAKING(t),
                       missing, *deaths_of(k->shares, t->group));
}

static size_t run_of(const struct history_shares *h, size_t i) {
    size_t to = i;
    while (to < h->count && compare_places(&h->list[i], &h->list[to]) == 0)
        to++;
    return to - i;
}

void history_shares_check(struct check *k) {
    struct history_shares *h = k->shares;
    if (h->count > 0)
        qsort(h->list, h->count, sizeof(*h->list), compare);
    for (size_t i = 0, n; i < h->count; i += n) {
        n = run_of(h, i);
        check_record(k, &h->list[i], n);
    }
}

bool history_shares_done(struct check *k, uint32_t group, uint32_t topic, int32_t partition,
                         int64_t offset) {
    const struct history_shares *h = k->shares;
    struct taking key = {.group = group, .topic = topic, .partition = partition, .offset = offset};
    size_t low = 0, high = h->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_places(&h->list[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < h->count && compare_places(&h->list[low], &key) == 0; low++) {
        const struct taking *t = &h->list[low];
        bool ended = t->how == HISTORY_ACCEPT || t->how == HISTORY_REJECT;
        if ((ended && t->state != HISTORY_COMMIT_REFUSED) || t->count >= limit_of(k))
            return true;
    }
    return false;
}
