/* eagre-bench: what the bus costs, against the bare thing. Options and the table of scenarios. */
#include "demo.h"
#include "harness.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct scenario {
    const char *name;
    int (*run)(struct eb_bench *b);
    const char *help;
} scenarios[] = {
    {"throughput", eb_throughput, "records a second, 64 bytes and 1 KiB, against a bare log"},
    {"pingpong", eb_pingpong, "round trip, both sides spinning, against one cache line each way"},
    {"wake", eb_wake, "waking a sleeping consumer, against a bare futex wake"},
    {"openloop", eb_openloop, "one-way latency at a given rate, from when each record was due"},
    {"sizes", eb_sizes, "the largest record and the empty one"},
    {"steady", eb_steady, "page faults and system calls once warm"},
    {"idle", eb_idle, "CPU use without traffic"},
    {"durable", eb_durable,
     "acks=disk, 1, 8 and 64 waiting producers, against write and fdatasync"},
    {"persist", eb_persist,
     "records a second that reach the disk, against a bare sequential writer"},
    {"flush", eb_flush, "latency of producers while their records are written to disk"},
    {"replay", eb_replay, "reading log files, against cat"},
    {"coldstart", eb_coldstart, "start of the daemon after the loss of all memory"},
    {"groups", eb_groups,
     "rebalances of small and large groups: a member closes, another is killed"},
    {"commits", eb_commits, "committed offsets a second, asynchronous and synchronous"},
    {"share", eb_share, "members of a share group that take records of one partition"},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static void usage(FILE *f) {
    fprintf(f, "usage: eagre-bench [option...] [scenario...]      (no scenario: all of "
               "them)\n\nscenarios:\n");
    for (size_t i = 0; i < SCENARIOS; i++)
        fprintf(f, "  %-12s %s\n", scenarios[i].name, scenarios[i].help);
    fprintf(
        f,
        "\noptions:\n"
        "  -r, --reps N          repetitions of each comparison (5)\n"
        "      --cpus A,B        CPUs of producer and consumer (0,1)\n"
        "      --daemon-cpu N    CPU of the private daemon (any)\n"
        "      --socket PATH     use the daemon that listens there, not a private one\n"
        "      --bin DIR         where eagred is (beside this program)\n"
        "  -c NAME=VALUE         setting of the topics that are made; may be repeated\n"
        "      --ring SEGMENT,N  segment.bytes and ring.segments, e.g. 1M,8\n"
        "      --size BYTES      of a value\n"
        "      --window BYTES    how far a producer may be ahead (what is kept while it goes by "
        "fast)\n"
        "      --wait HOW        of the consumer of throughput and sizes: sleep, yield, "
        "spin (sleep)\n"
        "      --warm-bytes N    bytes of log after the first lap of throughput and sizes (512M)\n"
        "      --seconds S       of a run of wake, openloop, steady; idle takes three times "
        "that (1)\n"
        "      --rate R          records a second of openloop (100000) and flush (20000)\n"
        "      --data BYTES      of persist and replay (256M)\n"
        "      --partitions N    of coldstart (1000)\n"
        "      --clients N       of idle (16)\n"
        "      --members N       of the largest group of groups, 2 to 1000 (100)\n"
        "      --only TEXT       baselines and the variants whose name has TEXT in it\n"
        "      --json            results as JSON on stdout, tables on stderr\n"
        "  -h, --help\n");
}

/* Bytes with an optional K, M or G. */
static bool parse_bytes(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (errno || end == text || *text == '-' || (shift ? end[1] : *end) || n > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)n << shift;
    return true;
}

static bool parse_count(const char *text, unsigned low, unsigned high, unsigned *out) {
    uint64_t n;
    if (!parse_bytes(text, &n) || n < low || n > high)
        return false;
    *out = (unsigned)n;
    return true;
}

static bool parse_real(const char *text, double low, double high, double *out) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= low && v <= high))
        return false;
    *out = v;
    return true;
}

static bool parse_ring(char *text, struct eb_ring *ring) {
    char *comma = strchr(text, ',');
    if (!comma)
        return false;
    *comma = 0;
    return parse_count(comma + 1, 3, 64, &ring->segments) &&
           parse_bytes(text, &ring->segment_bytes);
}

static bool parse_setting(char *text, struct eb_options *o) {
    char *equals = strchr(text, '=');
    if (!equals || o->settings == EB_SETTINGS)
        return false;
    *equals = 0;
    o->setting[o->settings++] = (eagre_setting_t){text, equals + 1};
    return true;
}

enum {
    O_CPUS = 256,
    O_DAEMON_CPU,
    O_SOCKET,
    O_BIN,
    O_RING,
    O_SIZE,
    O_WINDOW,
    O_WARM,
    O_SECONDS,
    O_RATE,
    O_DATA,
    O_PARTITIONS,
    O_CLIENTS,
    O_MEMBERS,
    O_JSON,
    O_ONLY,
    O_WAIT
};

static const struct option options[] = {{"reps", 1, NULL, 'r'},
                                        {"cpus", 1, NULL, O_CPUS},
                                        {"daemon-cpu", 1, NULL, O_DAEMON_CPU},
                                        {"socket", 1, NULL, O_SOCKET},
                                        {"bin", 1, NULL, O_BIN},
                                        {"ring", 1, NULL, O_RING},
                                        {"size", 1, NULL, O_SIZE},
                                        {"window", 1, NULL, O_WINDOW},
                                        {"warm-bytes", 1, NULL, O_WARM},
                                        {"seconds", 1, NULL, O_SECONDS},
                                        {"rate", 1, NULL, O_RATE},
                                        {"data", 1, NULL, O_DATA},
                                        {"partitions", 1, NULL, O_PARTITIONS},
                                        {"clients", 1, NULL, O_CLIENTS},
                                        {"members", 1, NULL, O_MEMBERS},
                                        {"only", 1, NULL, O_ONLY},
                                        {"wait", 1, NULL, O_WAIT},
                                        {"json", 0, NULL, O_JSON},
                                        {"help", 0, NULL, 'h'},
                                        {0}};

static bool take_option(int c, char *arg, struct eb_options *o) {
    unsigned n = 0;
    switch (c) {
    case 'r':
        return parse_count(arg, 1, EB_REPS, &o->reps);
    case 'c':
        return parse_setting(arg, o);
    case O_CPUS:
        return sscanf(arg, "%d,%d", &o->cpu[0], &o->cpu[1]) == 2 && o->cpu[0] >= 0 &&
               o->cpu[1] >= 0;
    case O_DAEMON_CPU:
        if (!parse_count(arg, 0, 1023, &n))
            return false;
        o->daemon_cpu = (int)n;
        return true;
    case O_SOCKET:
        o->socket = arg;
        return true;
    case O_BIN:
        o->bin = arg;
        return true;
    case O_RING:
        return parse_ring(arg, &o->ring);
    case O_SIZE:
        return parse_bytes(arg, &o->size);
    case O_WINDOW:
        return parse_bytes(arg, &o->window);
    case O_WARM:
        return parse_bytes(arg, &o->warm_bytes);
    case O_SECONDS:
        return parse_real(arg, 0.01, 3600, &o->seconds);
    case O_RATE:
        return parse_real(arg, 1, 1e9, &o->rate);
    case O_DATA:
        return parse_bytes(arg, &o->data) && o->data >= 1u << 20;
    case O_PARTITIONS:
        return parse_count(arg, 1, 1024, &o->partitions);
    case O_CLIENTS:
        return parse_count(arg, 1, EB_WORKERS_MAX, &o->clients);
    case O_MEMBERS:
        return parse_count(arg, 2, 1000, &o->members);
    case O_WAIT:
        o->wait = strcmp(arg, "spin") == 0    ? EAGRE_WAIT_SPIN
                  : strcmp(arg, "yield") == 0 ? EAGRE_WAIT_YIELD
                                              : EAGRE_WAIT_SLEEP;
        return o->wait != EAGRE_WAIT_SLEEP || strcmp(arg, "sleep") == 0;
    case O_ONLY:
        o->only = arg;
        return true;
    case O_JSON:
        o->json = true;
        return true;
    default:
        return false;
    }
}

static volatile sig_atomic_t interrupted;
static void on_signal(int s) { interrupted = s; }

static int run_named(struct eb_bench *b, const char *name) {
    for (size_t i = 0; i < SCENARIOS; i++)
        if (!name || strcmp(name, scenarios[i].name) == 0) {
            if (interrupted || scenarios[i].run(b) != 0)
                return -1;
            if (name)
                return 0;
        }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "demo") == 0)
        return eb_demo_main(argc - 1, argv + 1);
    struct eb_bench b = {.opt = {.cpu = {0, 1},
                                 .daemon_cpu = -1,
                                 .reps = 5,
                                 .warm_bytes = 512u << 20,
                                 .seconds = 1,
                                 .data = 256u << 20,
                                 .partitions = 1000,
                                 .clients = 16,
                                 .members = 100}};
    for (int c; (c = getopt_long(argc, argv, "r:c:h", options, NULL)) != -1;) {
        if (c == 'h') {
            usage(stdout);
            return 0;
        }
        if (!take_option(c, optarg, &b.opt)) {
            if (c != '?')
                fprintf(stderr, "eagre-bench: '%s' is not a value of that option; see --help\n",
                        optarg);
            return 2;
        }
    }
    for (int i = optind; i < argc; i++) {
        size_t k = 0;
        while (k < SCENARIOS && strcmp(argv[i], scenarios[k].name) != 0)
            k++;
        if (k == SCENARIOS) {
            fprintf(stderr, "eagre-bench: there is no scenario '%s'; see --help\n", argv[i]);
            return 2;
        }
    }

    char *json = NULL;
    size_t json_size = 0;
    b.text = b.opt.json ? stderr : stdout;
    b.json = b.opt.json ? open_memstream(&json, &json_size) : NULL;
    struct sigaction sa = {.sa_handler =
                               on_signal}; /* no SA_RESTART: waits end, everything is cleaned up */
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    eb_autogroup_raise();
    eb_machine_report(&b);

    int r = 0;
    if (optind == argc)
        r = run_named(&b, NULL);
    for (int i = optind; i < argc && r == 0; i++)
        r = run_named(&b, argv[i]);
    eb_bus_stop(&b);
    if (r == 0)
        fprintf(b.text, "\n%u goals missed\n", b.missed);
    if (b.json) {
        fclose(b.json);
        printf("{\"machine\":");
        eb_machine_json(&b, stdout);
        printf(",\"results\":[%s\n]}\n", json);
        free(json);
    }
    eb_autogroup_restore();
    return r == 0 ? 0 : interrupted ? 130 : 1;
}
