/* The check under way: check.c walks the logs, check_groups.c and check_shares.c know what members did. */
#ifndef EG_TESTS_HISTORY_CHECK_H
#define EG_TESTS_HISTORY_CHECK_H

#include <inttypes.h>

#include "history/history.h"
#include "history/table.h"

#define HISTORY_MAX_SKIP (1 << 20) /* offsets that are looked at one by one */

/* "topic 1 partition 0 offset 17" */
#define PLACE "topic %u partition %d offset %" PRId64
#define WHO "producer %u sequence %" PRIu64
#define OF_GROUP "group %u, topic %u partition %d: "

struct history_groups;
struct history_shares;

struct check {
    const struct history_options *options;
    struct history_report *report;
    struct producer *producers;
    size_t producer_count;
    struct history_table table;
    uint32_t passes;
    struct history_groups *groups;
    struct history_shares *shares;
    /* the consumer that is walked */
    uint32_t consumer;
    struct part *parts;
    size_t part_count;
};

void history_broken(struct check *k, enum history_rule rule, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a consumer saw is what was sent, and what others saw there. */
void history_check_content(struct check *k, const struct history_seen *s);

/* Room for one more at the end, all zeros; returns the list, which may have moved. */
void *history_grown(void *list, size_t count, size_t size);

/* ---- check_groups.c ------------------------------------------------------------------------------------- */

/* The life of the member whose log is walked. */
struct life {
    bool is; /* this consumer is a member */
    uint32_t group, number;
    int32_t instance;
    int64_t alive_ns; /* at its end */
};

void history_groups_init(struct check *k);
void history_groups_free(struct check *k);
const struct life *history_groups_life(const struct check *k);
/* Each entry, before anybody else's look at it, and the end of a log. */
void history_groups_entry(struct check *k, const struct history_seen *s);
void history_groups_log_ends(struct check *k);
/* Offsets of which a member says that it went past them and saw all that there is. */
void history_groups_passed(struct check *k, uint32_t topic, int32_t partition, int64_t from,
                           int64_t to);
/* When all logs have been walked. */
void history_groups_check(struct check *k);

/* ---- check_shares.c ------------------------------------------------------------------------------------- */

void history_shares_init(struct check *k);
void history_shares_free(struct check *k);
void history_shares_acquired(struct check *k, const struct life *l, const struct history_seen *s);
void history_shares_ended(struct check *k, const struct life *l, const struct history_seen *s);
/* put_out: it may have lost all that it had since alive_ns. */
void history_shares_life_ends(struct check *k, const struct life *l, bool died, int64_t alive_ns);
void history_shares_check(struct check *k);
/* Whether this record needs not be delivered to the group any more. */
bool history_shares_done(struct check *k, uint32_t group, uint32_t topic, int32_t partition,
                         int64_t offset);

#endif
