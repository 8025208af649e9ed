/*
 * round.h - one round of torture: a bus of its own, producers and consumers at work, and whatever the plan
 * does to them and to the daemon. Then all is let run to quiet, read to its end, and the history checked.
 */
#ifndef EG_TESTS_TORTURE_ROUND_H
#define EG_TESTS_TORTURE_ROUND_H

#include "eagre/eagre.h"
#include "history/history.h"
#include "torture/client.h"
#include "torture/control.h"

/* What is done at random during a round. */
enum {
    TORTURE_KILL_PRODUCERS = 1,
    TORTURE_KILL_CONSUMERS = 2, /* and members */
    TORTURE_STOP_CLIENTS = 4, /* SIGSTOP for a while */
    TORTURE_KILL_DAEMON = 8,  /* also while it recovers */
    TORTURE_STOP_DAEMON = 16,
    TORTURE_RESTART_DAEMON = 32, /* SIGUSR2: it ends, its memory stays */
    TORTURE_KILL_KEEPER = 64,
    TORTURE_ADMINISTER = 128,
    TORTURE_FAULTS = 256, /* random fault points, where there are any */
    TORTURE_ALL = 511,
};

/* A fault point that is to be reached by one process. */
struct torture_arm {
    enum torture_role role;
    bool daemon; /* then role and index do not matter; a daemon has one at a time, in this order */
    uint32_t index; /* of the producer or consumer */
    const char *point;
    uint32_t at; /* the how manieth time */
    bool stop;   /* else kill */
    bool at_end; /* daemon: of the one that is stopped at the end */
    bool fired;  /* set by torture_run() */
};

#define TORTURE_ARMS 8

struct torture_plan {
    uint64_t seed;
    uint32_t run_ms;  /* so long; less if all arms have fired and nothing happens at random */
    uint32_t stop_ms; /* who is stopped, is it for up to so long */
    uint32_t actions;
    bool no_gaps;                   /* all topics have windows: nothing may be missed */
    uint32_t topics_at_start;       /* the others are left to the administrator */
    struct torture_control control; /* what the round's control page begins with */
    struct torture_arm arms[TORTURE_ARMS];
    uint32_t arm_count;
    const char *keep_dir; /* where a failed round's files go; NULL: nowhere */
};

struct torture_result {
    char failure[512]; /* "": none */
    struct history_report history;
    uint32_t kills, stops, daemons, keepers; /* done to clients; daemons and keepers that ended */
    uint64_t hits[TORTURE_POINTS];           /* of fault points, in clients */
    uint32_t fired[TORTURE_POINTS];          /* faults that acted, anywhere */
};

/* An arrangement for this seed. groups: it has groups in any case. */
void torture_plan_random(struct torture_plan *plan, uint64_t seed, bool groups);
/* Give it groups: topics of which nothing is trimmed, for who begins again where was committed last. */
void torture_plan_groups(struct torture_plan *plan, uint32_t groups, uint32_t members,
                         uint32_t poll_ms);
/* Make a topic small: tiny segments, a window if the plan has no gaps. */
void torture_plan_topic(struct torture_plan *plan, uint32_t topic, uint32_t segment_bytes,
                        uint32_t slots, bool single);
/* One line about it. */
void torture_plan_print(FILE *out, const struct torture_plan *plan);

int torture_create(eagre_t *e, const struct torture_topic *t, uint32_t number, uint32_t partitions);

/* True: nothing was wrong. Ends the program if not even a directory can be made. */
bool torture_run(struct torture_plan *plan, struct torture_result *result);

#endif
