#include <string.h>

#include "eagre/admin.h"
#include "sys/rand.h"
#include "torture/round.h"

#define FRAME 32u /* of a record, besides its key and value */

void torture_plan_topic(struct torture_plan *plan, uint32_t topic, uint32_t segment_bytes,
                        uint32_t slots, bool single) {
    struct torture_topic *t = &plan->control.topic[topic];
    t->segment_bytes = segment_bytes;
    t->slots = slots;
    t->single = single;
    t->value_max = segment_bytes / (plan->no_gaps ? 128 : 8) - 128;
    t->window = 0;
    if (plan->no_gaps) {
        /* Of a ring of N segments the daemon keeps the active one and N - 1 - N / 2 before it, at least one.
         * Half of those are for what producers have on the way, and for what does not fill up. */
        uint32_t kept = slots - 1 - slots / 2;
        t->window =
            (kept > 1 ? kept : 1) * (segment_bytes / 2) / ((t->value_max + 16 + FRAME + 63) & ~63u);
    }
}

void torture_plan_groups(struct torture_plan *plan, uint32_t groups, uint32_t members,
                         uint32_t poll_ms) {
    static const char *const strategies[] = {"range", "roundrobin", "cooperative-sticky", "numa"};
    struct torture_control *s = &plan->control;
    uint64_t random = plan->seed;
    plan->no_gaps = true;
    s->groups = groups;
    s->members = members;
    s->poll_ms = poll_ms;
    s->records_max = 5000;
    s->rejoins = eg_rand_next(&random) % 4 == 0;
    for (uint32_t i = 0; i < TORTURE_GROUPS; i++) {
        struct torture_group *g = &s->group[i];
        const char *strategy = strategies[eg_rand_next(&random) % 4];
        (void)snprintf(g->strategy, sizeof(g->strategy), "%s", strategy);
        g->mixed = eg_rand_next(&random) % 3 == 0;
        g->share = i == 1;
    }
    for (uint32_t i = 0; i < TORTURE_TOPICS; i++) {
        struct torture_topic *t = &s->topic[i];
        t->disk = eg_rand_next(&random) % 2 == 0;
        t->segment_bytes = t->disk ? 64 << 10 : 1 << 20;
        t->slots = t->disk ? 4 : 8;
        t->window = 0;
        t->value_max = 400;
    }
}

void torture_plan_random(struct torture_plan *plan, uint64_t seed, bool with_groups) {
    uint64_t random = seed;
    *plan =
        (struct torture_plan){.seed = seed, .run_ms = 1500, .stop_ms = 200, .actions = TORTURE_ALL};
#define PICK(n) ((uint32_t)(eg_rand_next(&random) % (n)))
    struct torture_control *s = &plan->control;
    s->seed = seed;
    plan->no_gaps = PICK(3) != 0;
    s->producers = 2 + PICK(4);
    s->consumers = 1 + PICK(3);
    s->topics = 1 + PICK(TORTURE_TOPICS);
    s->records_max = 100000;
    s->slow = PICK(3) == 0;
    s->holds = PICK(3) == 0;
    s->rests = PICK(4) == 0;
    plan->topics_at_start = s->topics > 1 ? 1 + PICK(s->topics) : 1;
    for (uint32_t i = 0; i < s->topics; i++) {
        static const uint32_t sizes[] = {64 << 10, 64 << 10, 64 << 10, 256 << 10, 1 << 20};
        static const uint32_t slots[] = {3, 3, 4, 8};
        torture_plan_topic(plan, i, sizes[PICK(5)], slots[PICK(4)], PICK(4) == 0);
    }
    uint32_t groups =
        with_groups ? 2 + PICK(2) : PICK(4); /* 2 or 3; half of the rounds have none */
    if (groups > 1)
        torture_plan_groups(plan, groups, groups * (2 + PICK(3)), PICK(3) == 0 ? 0 : 150);
    /* Often less, so that what is left is seen alone. */
    if (PICK(2) == 0)
        plan->actions &= (uint32_t)eg_rand_next(&random);
#undef PICK
}

void torture_plan_print(FILE *out, const struct torture_plan *plan) {
    static const char *const names[] = {"kill-producers", "kill-consumers", "stop-clients",
                                        "kill-daemon",    "stop-daemon",    "restart-daemon",
                                        "kill-keeper",    "administer",     "faults"};
    const struct torture_control *s = &plan->control;
    (void)fprintf(out, "seed %llu: %u producers, %u consumers%s%s%s%s, topics",
                  (unsigned long long)plan->seed, s->producers, s->consumers,
                  plan->no_gaps ? ", no gaps" : "", s->slow ? ", slow" : "",
                  s->holds ? ", holding" : "", s->rests ? ", resting" : "");
    for (uint32_t i = 0; i < s->topics; i++)
        (void)fprintf(out, " %ux%uK%s", s->topic[i].slots, s->topic[i].segment_bytes >> 10,
                      s->topic[i].single ? "s" : "");
    if (s->groups > 0)
        (void)fprintf(out, "; %u groups of %u members, %u ms", s->groups, s->members, s->poll_ms);
    for (uint32_t i = 0; i < s->groups; i++)
        (void)fprintf(out, " %s%s", s->group[i].share ? "share" : s->group[i].strategy,
                      s->group[i].mixed ? "+" : "");
    (void)fputs(";", out);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (plan->actions & 1u << i)
            (void)fprintf(out, " %s", names[i]);
    (void)fputc('\n', out);
}

int torture_create(eagre_t *e, const struct torture_topic *t, uint32_t number,
                   uint32_t partitions) {
    char name[16], segment[16], slots[16], count[16];
    (void)snprintf(segment, sizeof(segment), "%u", t->segment_bytes);
    (void)snprintf(slots, sizeof(slots), "%u", t->slots);
    (void)snprintf(count, sizeof(count), "%u", partitions);
    const eagre_setting_t settings[] = {{"storage", t->disk ? "disk" : "memory"},
                                        {"segment.bytes", segment},
                                        {"ring.segments", slots},
                                        {"partitions", count},
                                        {"writers", t->single ? "single" : "multi"}};
    return eagre_topic_create(e, torture_topic_name(name, number), settings, 5);
}
