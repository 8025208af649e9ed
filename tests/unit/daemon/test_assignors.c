/* Who gets which partition: Kafka's own examples, and for random inputs the rules, simple models of range and
 * round-robin, and all assignments there are (small inputs). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "assignors.h"
#include "eagre/error.h"

#define TOPICS 64
#define MEMBERS 64
#define PARTITIONS 1024
#define NO_NODE UINT32_MAX

struct scene {
    struct eg_assign_input in;
    struct eg_assign_topic topic[TOPICS];
    struct eg_assign_member member[MEMBERS];
    uint32_t subscribed[MEMBERS][TOPICS]; /* members' topics */
    uint32_t node[PARTITIONS];
    uint32_t now[PARTITIONS];
    uint32_t partitions;
};

static const enum eg_assignor all[] = {EG_ASSIGN_RANGE, EG_ASSIGN_ROUND_ROBIN,
                                       EG_ASSIGN_COOPERATIVE_STICKY, EG_ASSIGN_NUMA};

/* ---- scenes ---------------------------------------------------------------------------------- */

static void init(struct scene *s) {
    s->in = (struct eg_assign_input){.topics = s->topic, .members = s->member, .now = s->now};
    s->partitions = 0;
}

static void add_topic(struct scene *s, uint32_t partitions, bool nodes) {
    assert_true(s->in.topic_count < TOPICS && s->partitions + partitions <= PARTITIONS);
    s->topic[s->in.topic_count++] =
        (struct eg_assign_topic){.partitions = partitions,
                                 .first = s->partitions,
                                 .nodes = nodes ? s->node + s->partitions : NULL};
    for (uint32_t i = 0; i < partitions; i++, s->partitions++) {
        s->now[s->partitions] = EG_NOBODY;
        s->node[s->partitions] = NO_NODE;
    }
}

static struct eg_assign_member *add_member(struct scene *s, uint32_t node) {
    assert_true(s->in.member_count < MEMBERS);
    struct eg_assign_member *m = &s->member[s->in.member_count];
    *m = (struct eg_assign_member){.topics = s->subscribed[s->in.member_count], .node = node};
    s->in.member_count++;
    return m;
}

static void subscribe(struct scene *s, size_t member, uint32_t topic) {
    s->subscribed[member][s->member[member].topic_count++] = topic;
}

static uint32_t topic_of(const struct scene *s, uint32_t partition) {
    uint32_t t = 0;
    while (partition >= s->topic[t].first + s->topic[t].partitions)
        t++;
    return t;
}

static bool may(const struct scene *s, uint32_t member, uint32_t topic) {
    for (size_t i = 0; i < s->member[member].topic_count; i++)
        if (s->member[member].topics[i] == topic)
            return true;
    return false;
}

static bool may_have(const struct scene *s, uint32_t member, uint32_t partition) {
    return may(s, member, topic_of(s, partition));
}

/* ---- examples --------------------------------------------------------------------------------- */

/* A letter a partition, blanks between topics: '2' member 2, '-' nobody. */
static void parse_holders(const char *text, uint32_t *out) {
    for (; *text != '\0'; text++)
        if (*text != ' ')
            *out++ = *text == '-' ? EG_NOBODY : (uint32_t)(*text - '0');
}

/* topics "3 2": two, with 3 and 2 partitions. members "01 1": the first has topics 0 and 1; '.': none. */
static void make_scene(struct scene *s, const char *topics, const char *members, const char *now) {
    init(s);
    for (; *topics != '\0'; topics++)
        if (*topics != ' ')
            add_topic(s, (uint32_t)(*topics - '0'), false);
    for (bool fresh = true; *members != '\0'; members++) {
        if (*members == ' ') {
            fresh = true;
            continue;
        }
        if (fresh)
            add_member(s, NO_NODE);
        fresh = false;
        if (*members != '.')
            subscribe(s, s->in.member_count - 1, (uint32_t)(*members - '0'));
    }
    if (now != NULL)
        parse_holders(now, s->now);
}

static void print_holders(const struct scene *s, const uint32_t *next, char *out) {
    for (size_t t = 0; t < s->in.topic_count; t++) {
        if (t > 0)
            *out++ = ' ';
        for (uint32_t i = 0; i < s->topic[t].partitions; i++) {
            uint32_t m = next[s->topic[t].first + i];
            *out++ = m == EG_NOBODY ? '-' : (char)('0' + m);
        }
    }
    *out = '\0';
}

static void gives(enum eg_assignor how, const char *topics, const char *members, const char *now,
                  const char *expected) {
    static struct scene s;
    uint32_t next[PARTITIONS];
    char text[PARTITIONS + TOPICS];
    make_scene(&s, topics, members, now);
    memset(next, 0x55, sizeof next);
    assert_int_equal(eg_assign(how, &s.in, next), EAGRE_OK);
    print_holders(&s, next, text);
    if (strcmp(text, expected) != 0)
        fail_msg("%s of %s for %s, from %s: %s instead of %s", eg_assignor_name(how), topics,
                 members, now != NULL ? now : "nothing", text, expected);
}

static void range_examples_of_kafka(void **state) {
    (void)state;
    const enum eg_assignor r = EG_ASSIGN_RANGE;
    gives(r, "3 3", "01 01", NULL, "001 001"); /* the documentation's */
    gives(r, "3", ".", NULL, "---");
    gives(r, "3", "0", NULL, "000");
    gives(r, "1", "0 0", NULL, "0");
    gives(r, "2", "0 0", NULL, "01");
    gives(r, "3 2", "0 01 0", NULL, "012 11"); /* mixed topics */
    gives(r, "2 3", "1 01 1", NULL, "11 012");
    gives(r, "0 3", "01", NULL, " 000");
    gives(r, "4 4", "01 01 01", "2222 2222", "0012 0012"); /* what they have does not matter */
    gives(r, "7", "0 0 0", NULL, "0001122");
    gives(r, "3", "", NULL, "---");
}

static void round_robin_examples_of_kafka(void **state) {
    (void)state;
    const enum eg_assignor r = EG_ASSIGN_ROUND_ROBIN;
    gives(r, "3 3", "01 01", NULL, "010 101");       /* the documentation's */
    gives(r, "1 2 3", "0 01 012", NULL, "0 12 222"); /* likewise */
    gives(r, "3", "", NULL, "---");
    gives(r, "3", ". .", NULL, "---");
    gives(r, "3 3", "0", NULL, "000 ---");
    gives(r, "1", "0 0", NULL, "0");
    gives(r, "2", "0 0", NULL, "01");
    gives(r, "3 2", "0 01 0", NULL, "012 11");
    gives(r, "2 1", "0 01", NULL, "01 1");
    gives(r, "2 2", "01 01 01 01 01", "44 44", "01 23");
}

static void sticky_examples_of_kafka(void **state) {
    (void)state;
    const enum eg_assignor r = EG_ASSIGN_COOPERATIVE_STICKY;
    gives(r, "2 2 2 2", "0123 0123 0123", NULL, "01 20 12 01"); /* the documentation's */
    gives(r, "2 2 2 2", "0123 0123", "0- 10 -1 0-",
          "01 10 01 01");                            /* the second of the three is gone */
    gives(r, "1 2 3", "0 01 012", NULL, "0 11 222"); /* unlike round-robin: 1, 2 and 3 */
    gives(r, "1 2 3", "01 012", "- 00 111", "0 00 111");
    gives(r, "3", "0 0", "000", "001"); /* one joins */
    gives(r, "3", "0 0", "001", "001"); /* nothing to do */
    gives(r, "3", "0 0 0", "001", "021");
    gives(r, "2", "0 0 0", "21", "21"); /* more members than partitions */
    gives(r, "2 2", "0 01", "00 11", "00 11");
    gives(r, "2 2", "0 0", "11 --", "10 --"); /* a topic of nobody */
    gives(r, "2 2", "0 1", "11 00", "00 11"); /* none of them may go on */
    gives(r, "3", "0 0", "999", "010");       /* they were somebody's who is gone */
    gives(r, "3", "", NULL, "---");
    gives(r, "", ".", NULL, "");
    gives(r, "1 2 2", "01 12 2", "0 00 11",
          "0 01 12"); /* a chain: the first can give to the third by the second only */
}

static void numa_prefers_the_partitions_node(void **state) {
    (void)state;
    static struct scene s;
    uint32_t next[PARTITIONS];
    char text[PARTITIONS];
    static const struct {
        const char *members, *partitions, *now, *expected; /* nodes; '?': unknown */
    } example[] = {
        {"01", "0101", "----", "0101"},
        {"01", "0101", "1010", "0101"}, /* before stickiness */
        {"01", "0000", "----", "0011"}, /* balance comes first */
        {"01", "0000", "1010", "1010"}, /* among those equally near, stickiness */
        {"01", "????", "1010", "1010"},
        {"??", "0101", "1001", "1001"}, /* nobody is near */
        {"0?", "00", "1-", "10"},       /* balance comes first, then stickiness */
        {"0?", "0", "1", "0"},          /* one of whom nothing is known is not near */
        {"0011", "00111", "32100", "01232"},
    };
    for (size_t e = 0; e < sizeof example / sizeof *example; e++) {
        init(&s);
        add_topic(&s, (uint32_t)strlen(example[e].partitions), true);
        for (uint32_t i = 0; i < s.partitions; i++)
            if (example[e].partitions[i] != '?')
                s.node[i] = (uint32_t)(example[e].partitions[i] - '0');
        for (const char *m = example[e].members; *m != '\0'; m++) {
            add_member(&s, *m == '?' ? NO_NODE : (uint32_t)(*m - '0'));
            subscribe(&s, s.in.member_count - 1, 0);
        }
        parse_holders(example[e].now, s.now);
        assert_int_equal(eg_assign(EG_ASSIGN_NUMA, &s.in, next), EAGRE_OK);
        print_holders(&s, next, text);
        if (strcmp(text, example[e].expected) != 0)
            fail_msg("example %zu: %s instead of %s", e, text, example[e].expected);
    }
}

/* ---- at random ---------------------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t any(uint32_t below) { /* splitmix64 */
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % below);
}

enum mix { EQUAL, MIXED };

/* Whose a partition is now: mostly somebody's who may, often one member's; sometimes anybody's or nobody's. */
static void random_holders(struct scene *s) {
    uint32_t members = (uint32_t)s->in.member_count, greedy = any(members + 1), care = any(4);
    for (uint32_t i = 0; i < s->partitions; i++) {
        uint32_t m = any(3) == 0 ? greedy : any(members + 1);
        if (m >= members || (care > 0 && !may_have(s, m, i)))
            m = EG_NOBODY;
        s->now[i] = m;
    }
}

static void random_scene(struct scene *s, enum mix mix, uint32_t topics, uint32_t partitions,
                         uint32_t members) {
    init(s);
    bool nodes = any(2) == 0;
    uint32_t node_count = 1 + any(3);
    for (uint32_t n = any(topics + 1); n > 0; n--)
        add_topic(s, any(partitions + 1), nodes && any(4) > 0);
    for (uint32_t i = 0; i < s->partitions; i++)
        s->node[i] = any(6) == 0 ? NO_NODE : any(node_count);
    uint32_t chance = 1 + any(8);
    for (uint32_t n = any(members + 1); n > 0; n--) {
        struct eg_assign_member *m = add_member(s, any(6) == 0 ? NO_NODE : any(node_count));
        for (uint32_t t = 0; t < s->in.topic_count; t++)
            if (mix == EQUAL || any(8) < chance)
                subscribe(s, s->in.member_count - 1, t);
        if (m > s->member && any(4) == 0) { /* lists may be shared */
            m->topics = m[-1].topics;
            m->topic_count = m[-1].topic_count;
            memcpy(s->subscribed[m - s->member], m->topics, m->topic_count * sizeof(uint32_t));
        }
    }
    random_holders(s);
}

static void loads(const struct scene *s, const uint32_t *next, uint32_t *load) {
    memset(load, 0, MEMBERS * sizeof *load);
    for (uint32_t i = 0; i < s->partitions; i++)
        if (next[i] != EG_NOBODY)
            load[next[i]]++;
}

static bool is_far(const struct scene *s, uint32_t partition, uint32_t member) {
    uint32_t t = topic_of(s, partition);
    uint32_t node =
        s->topic[t].nodes != NULL ? s->topic[t].nodes[partition - s->topic[t].first] : NO_NODE;
    return node != NO_NODE && s->member[member].node != node;
}

/* What of two assignments with all partitions given is better: less is. */
struct worth {
    uint32_t squares, far, moves;
};

static struct worth worth(const struct scene *s, const uint32_t *next, bool numa) {
    struct worth w = {0};
    uint32_t load[MEMBERS];
    loads(s, next, load);
    for (size_t m = 0; m < s->in.member_count; m++)
        w.squares += load[m] * load[m];
    for (uint32_t i = 0; i < s->partitions; i++) {
        w.far += numa && next[i] != EG_NOBODY && is_far(s, i, next[i]);
        w.moves += s->now[i] != EG_NOBODY && s->now[i] != next[i];
    }
    return w;
}

static int compare(struct worth a, struct worth b) {
    if (a.squares != b.squares)
        return a.squares < b.squares ? -1 : 1;
    if (a.far != b.far)
        return a.far < b.far ? -1 : 1;
    return (a.moves > b.moves) - (a.moves < b.moves);
}

/* Each partition has one member that subscribes its topic, or nobody if none does. */
static void assert_whole(const struct scene *s, const uint32_t *next) {
    for (uint32_t i = 0; i < s->partitions; i++) {
        bool wanted = false;
        for (uint32_t m = 0; m < s->in.member_count; m++)
            wanted |= may_have(s, m, i);
        if (next[i] == EG_NOBODY)
            assert_false(wanted);
        else if (next[i] >= s->in.member_count || !may_have(s, next[i], i))
            fail_msg("partition %u: member %u, who may not", i, next[i]);
    }
}

/* Kafka's words: nobody has two more than one who could take one of his. */
static void assert_balanced(const struct scene *s, const uint32_t *next) {
    uint32_t load[MEMBERS];
    loads(s, next, load);
    for (uint32_t i = 0; i < s->partitions; i++)
        for (uint32_t m = 0; next[i] != EG_NOBODY && m < s->in.member_count; m++)
            if (load[next[i]] >= load[m] + 2 && may_have(s, m, i))
                fail_msg("member %u has %u, %u has %u and could take partition %u", next[i],
                         load[next[i]], m, load[m], i);
}

static void assign(const struct scene *s, enum eg_assignor how, uint32_t *next) {
    memset(next, 0x55, PARTITIONS * sizeof *next);
    assert_int_equal(eg_assign(how, &s->in, next), EAGRE_OK);
    assert_int_equal(next[s->partitions], 0x55555555);
    assert_whole(s, next);
}

/* Same result again, and from copies of what the members share. */
static void assert_repeatable(struct scene *s, enum eg_assignor how, const uint32_t *next) {
    uint32_t again[PARTITIONS];
    assign(s, how, again);
    assert_memory_equal(again, next, s->partitions * sizeof *next);
    for (size_t m = 0; m < s->in.member_count; m++)
        s->member[m].topics = s->subscribed[m];
    assign(s, how, again);
    assert_memory_equal(again, next, s->partitions * sizeof *next);
}

/* What came out is what they have: nothing moves any more. */
static void assert_settled(const struct scene *s, enum eg_assignor how, const uint32_t *next) {
    struct eg_assign_input in = s->in;
    uint32_t again[PARTITIONS];
    in.now = next;
    assert_int_equal(eg_assign(how, &in, again), EAGRE_OK);
    assert_memory_equal(again, next, s->partitions * sizeof *next);
}

/* Kafka's RangeAssignor, word by word. */
static void model_range(const struct scene *s, uint32_t *next) {
    for (uint32_t t = 0; t < s->in.topic_count; t++) {
        uint32_t subscriber[MEMBERS], count = 0, n = s->topic[t].partitions;
        for (uint32_t m = 0; m < s->in.member_count; m++)
            if (may(s, m, t))
                subscriber[count++] = m;
        for (uint32_t p = 0; p < n; p++)
            next[s->topic[t].first + p] = EG_NOBODY;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t extra = i < n % count ? i : n % count;
            uint32_t start = n / count * i + extra, length = n / count + (i < n % count);
            for (uint32_t p = start; p < start + length; p++)
                next[s->topic[t].first + p] = subscriber[i];
        }
    }
}

/* Kafka's RoundRobinAssignor likewise. */
static void model_round_robin(const struct scene *s, uint32_t *next) {
    uint32_t turn = 0, members = (uint32_t)s->in.member_count;
    for (uint32_t i = 0; i < s->partitions; i++) {
        next[i] = EG_NOBODY;
        for (uint32_t tried = 0; tried < members && next[i] == EG_NOBODY; tried++) {
            uint32_t m = (turn + tried) % members;
            if (may_have(s, m, i))
                next[i] = m;
        }
        if (next[i] != EG_NOBODY)
            turn = (next[i] + 1) % members;
    }
}

static void range_and_round_robin_are_kafkas(void **state) {
    (void)state;
    static struct scene s;
    uint32_t next[PARTITIONS], model[PARTITIONS];
    for (int round = 0; round < 3000; round++) {
        seed = (uint64_t)round << 32 | 1;
        random_scene(&s, round % 2 ? MIXED : EQUAL, 12, 12, 12);
        for (int i = 0; i < 2; i++) {
            assign(&s, all[i], next);
            (i == 0 ? model_range : model_round_robin)(&s, model);
            assert_memory_equal(next, model, s.partitions * sizeof *next);
            assert_repeatable(&s, all[i], next);
        }
    }
}

static void sticky_and_numa_are_balanced_and_settled(void **state) {
    (void)state;
    static struct scene s;
    uint32_t next[PARTITIONS];
    for (int round = 0; round < 3000; round++) {
        seed = (uint64_t)round << 32 | 2;
        random_scene(&s, round % 4 ? MIXED : EQUAL, 10, round % 8 == 1 ? 40 : 8, 14);
        for (int i = 2; i < 4; i++) {
            assign(&s, all[i], next);
            assert_balanced(&s, next);
            assert_repeatable(&s, all[i], next);
            assert_settled(&s, all[i], next);
        }
    }
}

/* All want the same: then it can be said how many can stay. */
static void assert_fewest_moves(const struct scene *s, const uint32_t *next) {
    uint32_t have[MEMBERS], members = (uint32_t)s->in.member_count, stay = 0, moved = 0, had = 0;
    loads(s, s->now, have);
    uint32_t each = s->partitions / members, more = s->partitions % members;
    for (uint32_t m = 0; m < members; m++) {
        had += have[m];
        stay += have[m] < each ? have[m] : each;
        if (have[m] > each && more > 0) {
            stay++;
            more--;
        }
    }
    for (uint32_t i = 0; i < s->partitions; i++)
        moved += s->now[i] != EG_NOBODY && s->now[i] != next[i];
    assert_int_equal(moved, had - stay);
}

static void equal_subscriptions_move_the_fewest(void **state) {
    (void)state;
    static struct scene s;
    uint32_t next[PARTITIONS];
    for (int round = 0; round < 3000; round++) {
        seed = (uint64_t)round << 32 | 3;
        do
            random_scene(&s, EQUAL, 12, 20, 30);
        while (s.in.member_count == 0);
        assign(&s, EG_ASSIGN_COOPERATIVE_STICKY, next);
        assert_fewest_moves(&s, next);
    }
}

/* Of all assignments there are, none is worth more. */
static void assert_best(const struct scene *s, bool numa, const uint32_t *next, uint64_t round) {
    uint32_t other[PARTITIONS];
    struct worth best = worth(s, next, numa);
    uint32_t members = (uint32_t)s->in.member_count, wanted[PARTITIONS], count = 0;
    for (uint32_t i = 0; i < s->partitions; i++) {
        other[i] = next[i];
        if (next[i] != EG_NOBODY) {
            other[i] = 0;
            wanted[count++] = i;
        }
    }
    for (;;) {
        bool valid = true;
        for (uint32_t i = 0; valid && i < count; i++)
            valid = may_have(s, other[wanted[i]], wanted[i]);
        struct worth w = worth(s, other, numa);
        if (valid && compare(w, best) < 0)
            fail_msg("seed %llu: {%u, %u far, %u moved} and not the best {%u, %u far, %u moved}",
                     (unsigned long long)round, best.squares, best.far, best.moves, w.squares,
                     w.far, w.moves);
        uint32_t i = 0;
        while (i < count && ++other[wanted[i]] == members)
            other[wanted[i++]] = 0;
        if (i == count)
            return;
    }
}

static void nothing_is_better_by_brute_force(void **state) {
    (void)state;
    static struct scene s;
    uint32_t next[PARTITIONS];
    for (uint64_t round = 0; round < 1500; round++) {
        seed = round << 32 | 4;
        uint32_t members = 2 + any(3), most = members == 4 ? 6 : members == 3 ? 7 : 9;
        do
            random_scene(&s, any(4) ? MIXED : EQUAL, 5, 4, members);
        while (s.partitions > most);
        for (int i = 2; i < 4; i++) {
            assign(&s, all[i], next);
            assert_best(&s, all[i] == EG_ASSIGN_NUMA, next, round);
        }
    }
}

/* ---- large ------------------------------------------------------------------------------------------ */

/* A thousand members and ten thousand partitions; each member subscribes one of `lists` lists of topics. */
static void large(enum eg_assignor how, uint32_t lists, uint32_t gone) {
    enum { M = 1000, T = 500, P = 20 };
    struct eg_assign_topic *topic = calloc(T, sizeof *topic);
    struct eg_assign_member *member = calloc(M, sizeof *member);
    uint32_t *list = calloc((size_t)lists * T, sizeof *list), *nodes = calloc(P, sizeof *nodes);
    uint32_t *count = calloc(lists, sizeof *count), *load = calloc(M, sizeof *load);
    uint32_t *now = calloc(T * P, sizeof *now), *next = calloc(T * P, sizeof *next);
    for (uint32_t i = 0; i < P; i++)
        nodes[i] = i % 2;
    for (uint32_t t = 0; t < T; t++)
        topic[t] = (struct eg_assign_topic){P, t * P, nodes};
    for (uint32_t l = 0; l < lists; l++)
        for (uint32_t t = 0; t < T; t++)
            if (l == 0 || any(2))
                list[l * T + count[l]++] = t;
    for (uint32_t m = 0; m < M; m++)
        member[m] = (struct eg_assign_member){list + m % lists * T, count[m % lists], m % 2};
    for (uint32_t i = 0; i < T * P; i++)
        now[i] = EG_NOBODY;
    struct eg_assign_input in = {topic, T, member, M - gone, now};
    for (int step = 0; step < 2; step++) { /* the first ones; then `gone` more */
        assert_int_equal(eg_assign(how, &in, next), EAGRE_OK);
        uint32_t moved = 0;
        memset(load, 0, M * sizeof *load);
        for (uint32_t i = 0; i < T * P; i++) {
            assert_true(next[i] < in.member_count);
            load[next[i]]++;
            moved += now[i] != EG_NOBODY && now[i] != next[i];
        }
        for (uint32_t m = 0; how != EG_ASSIGN_RANGE && lists == 1 && m < in.member_count; m++)
            assert_in_range(load[m], T * P / in.member_count, T * P / in.member_count + 1);
        if (how == EG_ASSIGN_COOPERATIVE_STICKY && lists == 1)
            assert_int_equal(moved, step * (int)(T * P / M * gone));
        memcpy(now, next, T * P * sizeof *now);
        in.member_count = M;
    }
    free(topic), free(member), free(list), free(nodes), free(count), free(load), free(now),
        free(next);
}

static void a_thousand_members_and_ten_thousand_partitions(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        large(all[i], 1, 1);
        large(all[i], 1, 400);
        large(all[i], 8, 100);
        large(all[i], 1000, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_examples_of_kafka),
        cmocka_unit_test(round_robin_examples_of_kafka),
        cmocka_unit_test(sticky_examples_of_kafka),
        cmocka_unit_test(numa_prefers_the_partitions_node),
        cmocka_unit_test(range_and_round_robin_are_kafkas),
        cmocka_unit_test(sticky_and_numa_are_balanced_and_settled),
        cmocka_unit_test(equal_subscriptions_move_the_fewest),
        cmocka_unit_test(nothing_is_better_by_brute_force),
        cmocka_unit_test(a_thousand_members_and_ten_thousand_partitions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
