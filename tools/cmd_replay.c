/* eagre replay */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lanes.h"
#include "portable.h"
#include "progress.h"
#include "send.h"
#include "sys/clock.h"
#include "times.h"

enum { OPTION_TO = 1, OPTION_SPEED, OPTION_FROM, OPTION_TO_TIME, OPTION_ACKS };

struct run {
    const char *topic, *to;
    double speed;        /* 0: as fast as it goes */
    int64_t from, until; /* -1 and INT64_MAX: not given */
    eagre_acks_t acks;
    bool quiet;
    struct lanes lanes;
    struct batch batch;
    int64_t first_ns, began_ns; /* the first record's timestamp, and when it was sent (monotonic) */
    struct progress progress;
};

static double parse_speed(const struct cli *c, const char *text) {
    char *end;
    if (strcmp(text, "max") == 0)
        return 0;
    double speed = strtod(text, &end);
    if (end == text || *end != '\0' || !(speed >= 0.001 && speed <= 1e6))
        cli_usage(c, "--speed: '%s' is neither max nor a number from 0.001 to 1000000", text);
    return speed;
}

static void parse(struct cli *c, int argc, char **argv, struct run *r) {
    static const struct option longs[] = {{"to", required_argument, NULL, OPTION_TO},
                                          {"speed", required_argument, NULL, OPTION_SPEED},
                                          {"from", required_argument, NULL, OPTION_FROM},
                                          {"to-time", required_argument, NULL, OPTION_TO_TIME},
                                          {"acks", required_argument, NULL, OPTION_ACKS},
                                          {"quiet", no_argument, NULL, 'q'},
                                          CLI_COMMON_OPTIONS};
    r->speed = 1;
    r->from = -1;
    r->until = INT64_MAX;
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hq", longs)) != -1;) {
        switch (opt) {
        case OPTION_TO:
            r->to = optarg;
            break;
        case OPTION_SPEED:
            r->speed = parse_speed(c, optarg);
            break;
        case OPTION_FROM:
            r->from = cli_time(c, "--from", optarg);
            break;
        case OPTION_TO_TIME:
            r->until = cli_time(c, "--to-time", optarg);
            break;
        case OPTION_ACKS:
            r->acks = send_acks(c, optarg);
            break;
        default:
            r->quiet = true;
        }
    }
    if (optind == argc)
        cli_usage(c, "which topic?");
    if (optind + 1 < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind + 1]);
    r->topic = argv[optind];
    if (r->to == NULL)
        cli_usage(c, "to which topic (--to)?");
    if (strcmp(r->to, r->topic) == 0)
        cli_usage(c, "--to is another topic");
}

/* When a record with this timestamp is due (monotonic). */
static int64_t due(const struct run *r, int64_t timestamp_ns) {
    double after = (double)(timestamp_ns - r->first_ns) / r->speed;
    return after <= 0 ? r->began_ns : after > 1e18 ? INT64_MAX : r->began_ns + (int64_t)after;
}

static void sleep_until(int64_t ns) {
    struct timespec at = {.tv_sec = ns / EG_NS_PER_S, .tv_nsec = ns % EG_NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {}
}

/* Whose turn it is. What has to be sent before it, is. */
static int send_one(struct run *r, struct lane *a) {
    const eagre_record_t *record = &a->records[a->at];
    size_t headers = record_headers(record);
    eagre_message_t m;
    int rc = EAGRE_OK;
    if (r->speed > 0) {
        if (r->began_ns == 0) {
            r->began_ns = eg_mono_ns();
            r->first_ns = record->timestamp_ns;
        }
        int64_t at = due(r, record->timestamp_ns);
        if (at > eg_mono_ns()) {
            rc = batch_flush(&r->batch);
            if (rc == EAGRE_OK)
                sleep_until(at);
        }
    }
    if (rc == EAGRE_OK)
        rc = batch_room(&r->batch, headers);
    if (rc != EAGRE_OK)
        return rc;
    record_message(record, &m, r->batch.headers + r->batch.header_used, headers);
    batch_put(&r->batch, &m, headers);
    a->at++;
    return EAGRE_OK;
}

static int replay(struct run *r) {
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK) {
        struct lane *empty, *a = lanes_oldest(&r->lanes, &empty);
        if (empty != NULL) {
            rc = batch_flush(&r->batch); /* which points to its records */
            if (rc == EAGRE_OK)
                rc = lanes_read(empty);
        } else if (a == NULL) {
            break;
        } else if (a->records[a->at].timestamp_ns >= r->until) {
            a->at = a->count = 0;
            a->done = true;
        } else {
            rc = send_one(r, a);
        }
        progress_show(&r->progress, r->batch.to.sent);
    }
    return rc == EAGRE_OK ? batch_flush(&r->batch) : rc;
}

int cmd_replay(struct cli *c, int argc, char **argv) {
    static struct run r; /* large */
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *p = NULL;
    eagre_t *e;
    parse(c, argc, argv, &r);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    options.acks = r.acks;
    int rc = lanes_open(&r.lanes, e, r.topic, NULL, 0, r.from);
    if (rc == EAGRE_OK)
        rc = eagre_producer_open(e, r.to, &options, &p);
    send_begin(&r.batch.to, p);
    int32_t needed = r.lanes.count > 0 ? r.lanes.list[r.lanes.count - 1]->partition : 0;
    if (rc == EAGRE_OK && eagre_producer_partitions(p) < needed) {
        cli_error(c, "topic '%s' has %" PRId32 " partitions, '%s' only %" PRId32, r.topic, needed, r.to,
                  eagre_producer_partitions(p));
        code = CLI_REFUSED;
    } else if (rc == EAGRE_OK) {
        progress_begin(&r.progress, !r.quiet);
        rc = replay(&r);
        progress_end(&r.progress);
        if (rc != EAGRE_OK)
            cli_error(c, "stopped: %" PRIu64 " records were sent", r.batch.to.sent);
    }
    if (rc != EAGRE_OK)
        code = cli_fail(c, rc);
    eagre_producer_close(p);
    lanes_close(&r.lanes);
    batch_free(&r.batch);
    eagre_close(e);
    return code;
}
