/*
 * eg-torture - rounds of torture, one seed each, until the time is over or one fails.
 *
 *     eg-torture [--minutes N | --seconds N | --rounds N] [--seed S] [--keep-dir DIR]
 *                [--groups 1]
 *
 * A round's seed tells what it does; the seed of round n is S + n. Processes race, so a seed repeats what is
 * done, not each interleaving.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sys/rand.h"
#include "torture/points.h"
#include "torture/round.h"

struct options {
    uint64_t seed;
    int64_t limit_ms; /* 0: none */
    uint64_t rounds;  /* 0: no limit */
    const char *keep_dir;
    bool groups; /* in each round */
};

static _Noreturn void usage(void) {
    (void)fputs(
        "usage: eg-torture [--minutes N | --seconds N | --rounds N] [--seed S] [--keep-dir DIR] "
        "[--groups 1]\n",
        stderr);
    exit(2);
}

static void parse(int argc, char **argv, struct options *o) {
    if (eg_random_bytes(&o->seed, sizeof(o->seed)) != EAGRE_OK)
        exit(1);
    o->seed &= 0xffffffff; /* easier to write down */
    o->limit_ms = 60000;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            usage();
        uint64_t n = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--minutes") == 0)
            o->limit_ms = (int64_t)n * 60000;
        else if (strcmp(argv[i], "--seconds") == 0)
            o->limit_ms = (int64_t)n * 1000;
        else if (strcmp(argv[i], "--rounds") == 0)
            o->rounds = n;
        else if (strcmp(argv[i], "--seed") == 0)
            o->seed = n;
        else if (strcmp(argv[i], "--keep-dir") == 0)
            o->keep_dir = argv[i + 1];
        else if (strcmp(argv[i], "--groups") == 0)
            o->groups = n != 0;
        else
            usage();
    }
    if (o->rounds > 0)
        o->limit_ms = 0;
}

static void print_points(const uint64_t *hits, const uint32_t *fired) {
    size_t reached = 0;
    uint64_t acted = 0;
    for (size_t i = 0; i < torture_point_count; i++) {
        reached += hits[i] > 0 || fired[i] > 0;
        acted += fired[i];
    }
    if (torture_point_count == 0)
        return;
    (void)printf("fault points: %zu of %zu reached, %" PRIu64
                 " killed or stopped somebody; not reached:",
                 reached, torture_point_count, acted);
    for (size_t i = 0; i < torture_point_count; i++)
        if (hits[i] == 0 && fired[i] == 0)
            (void)printf(" %s", torture_point(i));
    (void)puts("");
}

int main(int argc, char **argv) {
    static struct torture_plan plan; /* large */
    static struct torture_result result;
    struct options o = {0};
    uint64_t hits[TORTURE_POINTS] = {0}, rounds = 0, acked = 0, seen = 0, kills = 0, daemons = 0;
    uint32_t fired[TORTURE_POINTS] = {0};
    torture_client_main(argc, argv);
    parse(argc, argv, &o);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    int64_t begin = history_now() / 1000000;
    for (; (o.rounds == 0 || rounds < o.rounds) &&
           (o.limit_ms == 0 || rounds == 0 || history_now() / 1000000 - begin < o.limit_ms);
         rounds++) {
        torture_plan_random(&plan, o.seed + rounds, o.groups);
        plan.keep_dir = o.keep_dir;
        torture_plan_print(stdout, &plan);
        bool good = torture_run(&plan, &result);
        (void)printf("  %u client deaths, %u stops, %u daemons, %u keepers; ", result.kills,
                     result.stops, result.daemons, result.keepers);
        history_print(stdout, &result.history);
        if (!good) {
            (void)printf(
                "FAILED: seed %" PRIu64 ": %s\nto repeat: eg-torture --rounds 1 --seed %" PRIu64
                "%s (a race: several times, perhaps)\n",
                o.seed + rounds, result.failure, o.seed + rounds, o.groups ? " --groups 1" : "");
            return 1;
        }
        for (size_t i = 0; i < TORTURE_POINTS; i++) {
            hits[i] += result.hits[i];
            fired[i] += result.fired[i];
        }
        acked += result.history.acked;
        seen += result.history.seen;
        kills += result.kills;
        daemons += result.daemons;
    }
    print_points(hits, fired);
    (void)printf("%" PRIu64 " rounds from seed %" PRIu64 ": %" PRIu64 " client deaths, %" PRIu64
                 " daemons, %" PRIu64 " records acknowledged, %" PRIu64 " seen: nothing lost\n",
                 rounds, o.seed, kills, daemons, acked, seen);
    return 0;
}
