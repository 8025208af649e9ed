/*
 * Every fault point of the product, once with SIGKILL and once with SIGSTOP, in the middle of producers and
 * consumers at work; afterwards the history is checked. The points are those that the build found in the
 * sources: one that is not in the table below fails the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "torture/points.h"
#include "torture/round.h"

/* Who is killed and stopped there. Two bits: two rounds. */
enum { PRODUCER = 1, CONSUMER = 2, DAEMON = 4, LAST_DAEMON = 8, MEMBER = 16 };

/* What it takes to come there, besides producers and consumers at work. */
enum {
    SLOW = 1,     /* consumers that have to wait */
    HOLDING = 2,  /* consumers that keep records in their hands, so long that the ring goes round */
    DEATHS = 4,   /* others that die with claims open */
    REQUESTS = 8, /* topics that come, grow and go; handles that come and go */
    RESTS = 16,   /* nobody produces for a while */
    ONE_TOPIC = 32, /* others would be used instead */
    DISK = 64,      /* storage=disk */
    GROUPS = 128    /* members of groups, who come and go */
};

static const struct point {
    const char *name;
    unsigned who;
    unsigned with;
    const char *why_not; /* who == 0: why it is not reached here */
} table[] = {
    /* src/log/writer, src/log/reader */
    {"pin.stored", PRODUCER | CONSUMER, 0, NULL},
    {"pin.checked", PRODUCER | CONSUMER, 0, NULL},
    {"claim.done", PRODUCER, 0, NULL},
    {"hint.stored", PRODUCER, 0, NULL},
    {"frame.half", PRODUCER, 0, NULL},
    {"batch.k_of_n", PRODUCER, 0, NULL},
    {"publish.done", PRODUCER, 0, NULL},
    {"unpinned", PRODUCER, 0, NULL},
    {"edge.unpinned", CONSUMER, 0, NULL},
    /* src/log/rotate */
    {"eos.set", PRODUCER, ONE_TOPIC, NULL},
    {"next.seen", PRODUCER, ONE_TOPIC, NULL},
    {"base.set", PRODUCER, ONE_TOPIC, NULL},
    {"slot.opened", PRODUCER, ONE_TOPIC, NULL},
    {"active.moved", PRODUCER, ONE_TOPIC, NULL},
    /* src/log/waiters */
    {"sleep.bit_set", CONSUMER, SLOW, NULL},
    {"sleep.summary_set", CONSUMER, SLOW, NULL},
    {"sleep.before_futex", CONSUMER, SLOW, NULL},
    {"wake.bits_taken", PRODUCER, SLOW, NULL},
    {"wake.bell_rung", PRODUCER, SLOW, NULL},
    {"wake.summary_cleared", PRODUCER, SLOW, NULL},
    /* the daemon: segments */
    {"retire.marked", DAEMON, 0, NULL},
    {"retire.scanned", DAEMON, 0, NULL},
    {"retire.reset", DAEMON, 0, NULL},
    {"retire.zero_half", DAEMON, 0, NULL},
    {"retire.swapped", DAEMON, HOLDING, NULL},
    {"ready.before", DAEMON, 0, NULL},
    {"unwatch.before", DAEMON, RESTS, NULL},
    /* clients that end */
    {"repair.claim_k", DAEMON, DEATHS, NULL},
    {"owner.freed", DAEMON, DEATHS, NULL},
    /* requests */
    {"open.granted", DAEMON, REQUESTS, NULL},
    {"release.done", DAEMON, REQUESTS, NULL},
    {"create.committed", DAEMON, REQUESTS, NULL},
    {"create.kept", DAEMON, REQUESTS, NULL},
    {"alter.committed", DAEMON, REQUESTS, NULL},
    {"delete.committed", DAEMON, REQUESTS, NULL},
    {"delete.marked", DAEMON, REQUESTS, NULL},
    /* the keeper */
    {"keep.sent", DAEMON, DEATHS, NULL},
    {"keep.taken", DAEMON, DEATHS, NULL},
    /* to disk */
    {"file.begun", DAEMON, DISK, NULL},
    {"file.created", DAEMON, DISK, NULL},
    {"file.renamed", DAEMON, DISK, NULL},
    {"arch.copied", DAEMON, DISK, NULL},
    {"arch.written", DAEMON, DISK, NULL},
    {"arch.synced", DAEMON, DISK, NULL},
    {"arch.mark", DAEMON, DISK, NULL},
    {"trim.noted", 0, 0, "nothing is trimmed here: unit/daemon/archive"},
    {"recover.cut", 0, 0, "a cold start, after which records may be missing: unit/daemon/recover"},
    /* groups: members, their turns, their commits */
    {"share.kept", 0, 0, "it is come to at the beginning only: fault/groups"},
    {"group.put", 0, 0, "of no member: system/share_lives"},
    {"share.gone", 0, 0, "once for all who died together: system/share_lives"},
    {"member.joined", DAEMON, GROUPS, NULL},
    {"member.out", DAEMON, GROUPS, NULL},
    {"member.removed", DAEMON, GROUPS, NULL},
    {"group.cleared", DAEMON, GROUPS, NULL},
    {"group.given", DAEMON, GROUPS, NULL},
    {"group.told", DAEMON, GROUPS, NULL},
    {"group.freed", DAEMON, GROUPS, NULL},
    {"group.collected", DAEMON, GROUPS, NULL},
    {"group.committed", DAEMON, GROUPS, NULL},
    /* src/log/share: of share groups' members */
    {"share.seen", MEMBER, GROUPS, NULL},
    {"share.taken", MEMBER, GROUPS, NULL},
    {"share.looked", MEMBER, GROUPS, NULL},
    {"share.ending", MEMBER, GROUPS, NULL},
    {"share.acked", MEMBER, GROUPS, NULL},
    {"share.back", MEMBER, GROUPS, NULL},
    {"share.telling", MEMBER, GROUPS, NULL},
    {"share.moving", MEMBER, GROUPS, NULL},
    {"share.moved", MEMBER, GROUPS, NULL},
    /* the clean stop, which forgets all records: after all have been read */
    {"stop.begun", LAST_DAEMON, 0, NULL},
    {"stop.sealed", LAST_DAEMON, 0, NULL},
};
#define COUNT (sizeof(table) / sizeof(table[0]))

static void arm(struct torture_plan *plan, unsigned who, uint32_t index, const char *point,
                uint32_t at, bool stop) {
    plan->arms[plan->arm_count++] =
        (struct torture_arm){.role = who == CONSUMER ? TORTURE_CONSUMER
                                     : who == MEMBER ? TORTURE_MEMBER
                                                     : TORTURE_PRODUCER,
                             .daemon = who == DAEMON || who == LAST_DAEMON,
                             .at_end = who == LAST_DAEMON,
                             .index = index,
                             .point = point,
                             .at = at,
                             .stop = stop};
}

/* Up to GROUP points in one round: each has a process to be killed and one to be stopped. */
#define GROUP 3u

static void reach(const struct point *const *points, uint32_t count, unsigned who) {
    static struct torture_plan plan; /* large */
    static struct torture_result result;
    unsigned with = points[0]->with;
    plan = (struct torture_plan){
        .seed = (uint64_t)(points[0] - table), .run_ms = 20000, .stop_ms = 60};
    plan.no_gaps = !(with & HOLDING);
    plan.control.producers = who == PRODUCER ? 2 * GROUP : 3;
    plan.control.consumers = who == CONSUMER ? 2 * GROUP : 2;
    plan.control.topics = with & ONE_TOPIC ? 1 : with & REQUESTS ? 3 : 2;
    plan.control.records_max = 100000;
    plan.control.slow = plan.control.sleeps = (with & SLOW) != 0;
    plan.control.rests = (with & RESTS) != 0;
    plan.control.holds = (with & HOLDING) != 0;
    plan.topics_at_start = plan.control.topics < 2 ? 1 : 2;
    for (uint32_t i = 0; i < plan.control.topics; i++)
        torture_plan_topic(&plan, i, 64 << 10, 3, i == 1);
    if (with & GROUPS) {
        torture_plan_groups(&plan, 2, 4 * GROUP, 0);
        for (uint32_t i = 0; i < plan.control.topics; i++)
            torture_plan_topic(&plan, i, 64 << 10, 4, false);
        plan.control.records_max = 50000;
        plan.control.slow = true;
        plan.control.rejoins = who == DAEMON;
    }
    for (uint32_t i = 0; i < plan.control.topics; i++)
        plan.control.topic[i].disk = (with & (DISK | GROUPS)) != 0;
    plan.actions =
        (with & REQUESTS ? TORTURE_ADMINISTER : 0u) | (with & DEATHS ? TORTURE_KILL_PRODUCERS : 0u);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = who == LAST_DAEMON || (with & REQUESTS) ? 1 : 2;
        /* Of two groups the second one is the share group. */
        arm(&plan, who, who == MEMBER ? 4 * i + 1 : 2 * i, points[i]->name, at, false);
        arm(&plan, who, who == MEMBER ? 4 * i + 3 : 2 * i + 1, points[i]->name, at, true);
    }
    uint32_t armed = plan.arm_count;
    if (with & DEATHS) {
        arm(&plan, PRODUCER, 0, "frame.half", 20, false);
        arm(&plan, PRODUCER, 1, "frame.half", 200, false);
    }
    if (!torture_run(&plan, &result))
        fail_msg("%s and others: %s", points[0]->name, result.failure);
    for (uint32_t i = 0; i < armed; i++)
        if (!plan.arms[i].fired)
            fail_msg("%s: nobody of kind %u came there to be %s", plan.arms[i].point, who,
                     plan.arms[i].stop ? "stopped" : "killed");
    assert_true(result.history.acked > 0 && result.history.seen > 0);
}

static const struct point *find(const char *name) {
    for (size_t i = 0; i < COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

static void all_points_are_in_the_table(void **state) {
    (void)state;
    for (size_t i = 0; i < torture_point_count; i++)
        if (find(torture_point(i)) == NULL)
            fail_msg("the product has a fault point '%s': say in the table how it is reached",
                     torture_point(i));
    for (size_t i = 0; i < COUNT; i++) {
        if (torture_point_number(table[i].name) == torture_point_count)
            fail_msg("the product has no fault point '%s'", table[i].name);
        assert_true((table[i].who == 0) == (table[i].why_not != NULL));
    }
}

static void reach_all(unsigned who) {
    bool done[COUNT] = {false};
    for (size_t i = 0; i < COUNT; i++) {
        const struct point *group[GROUP];
        uint32_t n = 0;
        for (size_t j = i; j < COUNT && n < GROUP; j++)
            if ((table[j].who & who) && !done[j] && table[j].with == table[i].with) {
                done[j] = true;
                group[n++] = &table[j];
            }
        if (n > 0)
            reach(group, n, who);
    }
}
static void producers(void **state) {
    (void)state;
    reach_all(PRODUCER);
}
static void consumers(void **state) {
    (void)state;
    reach_all(CONSUMER);
}
static void members(void **state) {
    (void)state;
    reach_all(MEMBER);
}

/* Stopped for so long that the ring goes round several times: what they have pinned must wait for them, and
 * nobody else for them. */
static void outrun(void **state) {
    static struct torture_plan plan; /* large */
    static struct torture_result result;
    static const char *const steps[] = {"claim.done", "frame.half", "batch.k_of_n", "pin.checked"};
    (void)state;
    for (uint32_t half = 0; half < 2; half++) {
        plan = (struct torture_plan){
            .seed = half, .run_ms = 20000, .stop_ms = 500, .topics_at_start = 1};
        plan.control.producers = 5;
        plan.control.consumers = 3;
        plan.control.topics = 1;
        plan.control.records_max = 100000;
        plan.control.holds = true;
        torture_plan_topic(&plan, 0, 64 << 10, 3, false);
        for (uint32_t i = 0; i < 2; i++) {
            arm(&plan, PRODUCER, i, steps[2 * half + i], 200, true);
            arm(&plan, CONSUMER, i, "pin.checked", 10 + 10 * i, true);
        }
        if (!torture_run(&plan, &result))
            fail_msg("%s", result.failure);
        for (uint32_t i = 0; i < plan.arm_count; i++)
            assert_true(plan.arms[i].fired);
    }
}

static void daemons(void **state) {
    (void)state;
    reach_all(DAEMON);
}
static void daemons_that_are_told_to_stop(void **state) {
    (void)state;
    reach_all(LAST_DAEMON);
}

int main(int argc, char **argv) {
    torture_client_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_points_are_in_the_table),
        cmocka_unit_test(producers),
        cmocka_unit_test(consumers),
        cmocka_unit_test(members),
        cmocka_unit_test(outrun),
        cmocka_unit_test(daemons),
        cmocka_unit_test(daemons_that_are_told_to_stop),
    };
    return cmocka_run_group_tests_name("fault/every", tests, NULL, NULL);
}
