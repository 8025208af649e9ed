/*
 * harness.h - what every scenario of eagre-bench stands on.
 *
 * A comparison is a set of variants, each of which is run once a repetition, in turn (A B A B), so
 * that whatever the machine does to one it does to its neighbours; a variant's ratio is taken to
 * its baseline of the same repetition, and the median of those is reported. Before, between and
 * after the runs the round trip of one cache line between the two CPUs is measured: a hypervisor
 * that moves virtual CPUs shows there. A repetition in which it changed by more than 30 % is
 * thrown away and run again, a few times at most.
 */
#ifndef EB_HARNESS_H
#define EB_HARNESS_H

#include "workers.h"

#include <eagre/admin.h>

#include <stdio.h>

#define EB_VARIANTS 16
#define EB_METRICS 5
#define EB_REPS 32
#define EB_SETTINGS 16

struct eb_ring {
    uint64_t segment_bytes;
    unsigned segments;
};

struct eb_options {
    int cpu[2];
    int daemon_cpu; /* -1: wherever the kernel wants it */
    unsigned reps;
    bool json;
    const char *socket; /* an existing daemon; NULL: a private one */
    const char *bin;    /* where eagred is; NULL: beside this program */
    eagre_setting_t setting[EB_SETTINGS];
    size_t settings;
    struct eb_ring ring; /* segments 0: the scenario's own */
    uint64_t size;       /* value bytes; 0: the scenario's own */
    uint64_t window;     /* how far the producer may be ahead, bytes; 0: the scenario's own */
    uint64_t warm_bytes; /* how much goes through the log after the first lap */
    eagre_wait_t wait;   /* of the consumer of throughput and sizes */
    double seconds;      /* of the scenarios that run for a time */
    double rate;   /* records a second; 0: the scenario's own */
    uint64_t data; /* bytes of the scenarios with log files */
    unsigned partitions;
    unsigned clients;
    unsigned members; /* of the largest group */
    const char *only; /* part of the names of the variants to run; NULL: all */
};

struct eb_bench {
    struct eb_options opt;
    struct eb_bus *bus; /* started by the first scenario that needs it: eb_bus() */
    FILE *text;         /* tables: stdout, or stderr with --json */
    FILE *json;         /* array elements so far, or NULL */
    bool json_any;
    unsigned missed; /* goals */
};

struct eb_metric {
    const char *name;
    const char *unit;
    int decimals;
};

/* "metric of this variant is `op` ('<' or '>') times ratio of its baseline's", or with
 * `absolute`, of 1. */
struct eb_goal {
    char op; /* 0: none */
    bool absolute;
    unsigned metric;
    double value;
};

struct eb_variant {
    const char *name;
    /* One run: metrics to out. 0, or -1 and the whole comparison ends. */
    int (*run)(struct eb_bench *b, const void *arg, double *out);
    const void *arg;
    int base; /* its baseline's place in the table, -1: it is one */
    struct eb_goal goal[2];
};

struct eb_comparison {
    const char *scenario;
    const char *title;
    struct eb_metric metric[EB_METRICS];    /* ends with name NULL */
    struct eb_variant variant[EB_VARIANTS]; /* ends with name NULL */
    unsigned reps;                          /* 0: the option's */
};

/* Run and report. 0 or -1. */
int eb_compare(struct eb_bench *b, const struct eb_comparison *c);

/* ---- the machine --------------------------------------------------------------------------------- */

void eb_machine_report(struct eb_bench *b); /* text */
void eb_machine_json(struct eb_bench *b, FILE *f);
void eb_json_string(FILE *f, const char *s);

/* Median round trip of one cache line between the two CPUs, ns; 0 if it cannot be measured. */
double eb_rtt_ns(const int cpu[2]);
uint64_t eb_steal_ticks(void);
double eb_load(void);
/* CPU time of all threads of a process so far, ns; -1: it is gone. */
int64_t eb_cpu_time_ns(pid_t pid);

/* As root, put this session's autogroup before the others'; undone by eb_autogroup_restore. */
void eb_autogroup_raise(void);
void eb_autogroup_restore(void);

/* ---- the bus -------------------------------------------------------------------------------------- */

struct eb_bus {
    char socket[108];
    char dir[80];
    pid_t pid;    /* of the daemon */
    pid_t keeper; /* 0: not known */
    bool own;
    unsigned topics;
};

/* The daemon, started if it is not running yet. NULL: it does not start; the reason is on stderr. */
struct eb_bus *eb_bus(struct eb_bench *b);
/* Stop it with its keeper and remove its directory. */
void eb_bus_stop(struct eb_bench *b);

/* A topic for one run, made in a process of its own (no handle lives when workers are forked).
 * Its name is written to name. extra ends with name NULL; NULL: none. 0 or -1. */
int eb_topic_create(struct eb_bench *b, const struct eb_ring *ring, const eagre_setting_t *extra,
                    char name[64]);
void eb_topic_delete(struct eb_bench *b, const char *name);
/* Wait until the daemon has nothing left to do (no CPU time used for a while; bounded). */
void eb_bus_settle(struct eb_bench *b);

/* Kill the private daemon and its keeper: what was in memory is gone. Then start it again on the same
 * directory. *ns: until it was ready. 0 or -1. */
int eb_bus_cold_start(struct eb_bench *b, double *ns);

/* What the library said, as the worker's failure. Returns 1. */
int eb_fail_status(struct eb_worker *w, const char *what, int status);

/* ---- scenarios ------------------------------------------------------------------------------------ */

int eb_throughput(struct eb_bench *b);
int eb_sizes(struct eb_bench *b);
int eb_pingpong(struct eb_bench *b);
int eb_wake(struct eb_bench *b);
int eb_openloop(struct eb_bench *b);
int eb_idle(struct eb_bench *b);
int eb_steady(struct eb_bench *b);
int eb_durable(struct eb_bench *b);
int eb_persist(struct eb_bench *b);
int eb_flush(struct eb_bench *b);
int eb_replay(struct eb_bench *b);
int eb_coldstart(struct eb_bench *b);
int eb_groups(struct eb_bench *b);
int eb_commits(struct eb_bench *b);
int eb_share(struct eb_bench *b);

#endif
