/*
 * eg-step - processes are killed, or stopped while others go on, at each instruction of what they do.
 *
 *   eg-step [--stride K] [--phase P] [--every] [--seconds S] [--seed S] [--kill|--stop]
 *           [--verbose] all|SCENARIO...
 *
 * It takes the programs as users get them: libeagre.so and the eagred of its build directory, without
 * fault points. Each scenario has two modes, kill and stop; --seconds bounds each of them (2 unless
 * another option says how much is done) and the points that it did not come to are left out. A failure
 * names its instruction; `objdump -d` or `addr2line` with the program's mapping tell which one that is.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "step/scenario.h"

static const char *const daemon_scenarios[] = {[STEP_RETIRE] = "retire",
                                               [STEP_SWAP] = "swap",
                                               [STEP_SWAP_NEW] = "swap-new",
                                               [STEP_REPAIR] = "repair"};

static bool run_daemon(const char *name, const struct step_options *o) {
    for (int i = STEP_RETIRE; i <= STEP_REPAIR; i++) {
        if (strcmp(daemon_scenarios[i], name) != 0)
            continue;
        if (o->kill)
            step_daemon_killed((enum step_daemon)i, o);
        if (o->stop)
            step_daemon_stopped((enum step_daemon)i, o);
        return true;
    }
    return false;
}

static bool run_client(const char *name, const struct step_options *o) {
    for (int i = 0; i < STEP_CLAIMS; i++) {
        if (strcmp(step_operation_name((enum step_operation)i), name) != 0)
            continue;
        if (o->kill)
            step_client_killed((enum step_operation)i, o);
        if (o->stop)
            step_client_stopped((enum step_operation)i, o);
        return true;
    }
    return false;
}

static int usage(void) {
    fprintf(stderr, "usage: eg-step [--stride K] [--phase P] [--every] [--seconds S] [--seed S] "
                    "[--kill|--stop] "
                    "all|SCENARIO...\nscenarios:");
    for (int i = 0; i < STEP_CLAIMS; i++)
        fprintf(stderr, " %s", step_operation_name((enum step_operation)i));
    for (int i = STEP_RETIRE; i <= STEP_REPAIR; i++)
        fprintf(stderr, " %s", daemon_scenarios[i]);
    fprintf(stderr, "\n");
    return 2;
}

static const struct option known[] = {
    {"stride", required_argument, NULL, 's'},
    {"phase", required_argument, NULL, 'p'},
    {"every", no_argument, NULL, 'e'},
    {"seconds", required_argument, NULL, 't'},
    {"seed", required_argument, NULL, 'r'},
    {"kill", no_argument, NULL, 'k'},
    {"stop", no_argument, NULL, 'o'},
    {"verbose", no_argument, NULL, 'v'},
    {0},
};

int main(int argc, char **argv) {
    struct step_options o = {.seconds = -1, .seed = 1, .kill = true, .stop = true};
    const char *why;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        char none = '\0', *end = &none;
        switch (c) {
        case 's':
            o.stride = strtoull(optarg, &end, 10);
            break;
        case 'p':
            o.phase = strtoull(optarg, &end, 10);
            break;
        case 'e':
            o.stride = 1;
            break;
        case 't':
            o.seconds = strtod(optarg, &end);
            break;
        case 'r':
            o.seed = strtoull(optarg, &end, 10);
            break;
        case 'k':
            o.stop = false;
            break;
        case 'o':
            o.kill = false;
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            return usage();
        }
        if (*end != '\0' || (!o.kill && !o.stop))
            return usage();
    }
    if (optind == argc)
        return usage();
    if (o.seconds < 0)
        o.seconds = o.stride == 0 ? 2 : 0;
    if (!trace_possible(&why) || !step_daemon_possible(&why)) {
        printf("skipped: no process can be traced here: %s\n", why);
        return 77;
    }
    step_nursery_open();
    for (; optind < argc; optind++) {
        bool all = strcmp(argv[optind], "all") == 0, found = all;
        for (int i = 0; all && i < STEP_CLAIMS; i++)
            run_client(step_operation_name((enum step_operation)i), &o);
        for (int i = STEP_RETIRE; all && i <= STEP_REPAIR; i++)
            run_daemon(daemon_scenarios[i], &o);
        if (!found && !run_client(argv[optind], &o) && !run_daemon(argv[optind], &o))
            return usage();
    }
    step_nursery_close();
    return 0;
}
