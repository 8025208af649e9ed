/* eagre consume */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "consume.h"
#include "sys/clock.h"
#include "times.h"

#define WAIT_MS 100 /* how long a signal may wait to be noticed */

enum {
    OPTION_ISOLATION = 1,
    OPTION_GROUP_TYPE,
    OPTION_STRATEGY,
    OPTION_INSTANCE_ID,
    OPTION_CLIENT_ID,
    OPTION_MAX_POLL,
    OPTION_SESSION_TIMEOUT
};

static volatile sig_atomic_t caught; /* the signal that asked us to end */

static void on_signal(int number) { caught = number; }

/* ---- where to begin --------------------------------------------------------------------------------- */

static int position(struct run *r, const struct source *s) {
    if (r->from >= 0)
        return eagre_consumer_seek_time(r->consumer, s->topic, s->partition, r->from);
    if (r->tail >= 0)
        return eagre_consumer_seek_tail(r->consumer, s->topic, s->partition, r->tail);
    return eagre_consumer_seek(r->consumer, s->topic, s->partition, r->offset);
}

int run_add_source(struct run *r, const char *topic, int32_t partition, struct source **out) {
    *out = NULL;
    for (size_t i = 0; i < r->source_count; i++)
        if (r->sources[i].partition == partition && strcmp(r->sources[i].topic, topic) == 0)
            return EAGRE_OK; /* named twice */
    struct source *more = reallocarray(r->sources, r->source_count + 1, sizeof(*more));
    if (more == NULL)
        return EAGRE_E_NO_MEMORY;
    r->sources = more;
    *out = &more[r->source_count++];
    **out = (struct source){.partition = partition};
    snprintf((*out)->topic, sizeof((*out)->topic), "%s", topic);
    r->undone++;
    return EAGRE_OK;
}

static int add_source(struct run *r, const char *topic, int32_t partition) {
    struct source *s;
    int rc = run_add_source(r, topic, partition, &s);
    return s != NULL ? position(r, s) : rc;
}

static int assign(struct run *r, const char *topic) {
    int rc = EAGRE_OK;
    for (size_t i = 0; i < r->only_count && rc == EAGRE_OK; i++) {
        rc = eagre_consumer_assign(r->consumer, topic, r->only[i]);
        if (rc == EAGRE_OK)
            rc = add_source(r, topic, r->only[i]);
    }
    if (r->only_count > 0)
        return rc;
    rc = eagre_consumer_assign(r->consumer, topic, EAGRE_PARTITION_ALL);
    int64_t unused;
    for (int32_t p = 0;
         rc == EAGRE_OK && eagre_consumer_position(r->consumer, topic, p, &unused) == EAGRE_OK; p++)
        rc = add_source(r, topic, p);
    return rc;
}

/* ---- records that are not there (any more) ------------------------------------------------------------ */

/* Positions below the log or above its end: go on where records are, and say so. */
static int find_way_back(struct run *r, size_t *found) {
    *found = 0;
    for (size_t i = 0; i < r->source_count; i++) {
        const struct source *s = &r->sources[i];
        int64_t at, begin, end;
        int rc = eagre_consumer_position(r->consumer, s->topic, s->partition, &at);
        if (rc == EAGRE_OK)
            rc = eagre_consumer_beginning_offset(r->consumer, s->topic, s->partition, &begin);
        if (rc == EAGRE_OK)
            rc = eagre_consumer_end_offset(r->consumer, s->topic, s->partition, &end);
        if (rc != EAGRE_OK)
            return rc;
        if (at >= begin && at <= end)
            continue;
        ++*found;
        progress_end(&r->progress);
        if (!r->quiet)
            cli_error(r->c,
                      "topic '%s' partition %" PRId32 ": there is nothing at offset %" PRId64
                      ": it goes from %" PRId64 " to %" PRId64 "; going on at the %s",
                      s->topic, s->partition, at, begin, end, at < begin ? "beginning" : "end");
        rc = eagre_consumer_seek(r->consumer, s->topic, s->partition,
                                 at < begin ? EAGRE_OFFSET_BEGINNING : EAGRE_OFFSET_END);
        if (rc != EAGRE_OK)
            return rc;
    }
    return EAGRE_OK;
}

/* ---- the loop ------------------------------------------------------------------------------------------ */

/* e@TIME: how many of these come before; with the first that does not, its partition is done. */
static size_t cut(struct run *r, size_t n) {
    const eagre_record_t *of = &r->records[0];
    size_t k = 0;
    while (k < n && r->records[k].timestamp_ns < r->until)
        k++;
    for (size_t i = 0; k < n && i < r->source_count; i++) {
        struct source *s = &r->sources[i];
        if (s->done || s->partition != of->partition || strcmp(s->topic, of->topic) != 0)
            continue;
        s->done = true;
        r->undone--;
        eagre_consumer_pause(r->consumer, s->topic, s->partition);
    }
    return k;
}

static void print(struct run *r, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (r->json) {
            format_json(&r->out, &r->records[i]);
            out_bytes(&r->out, r->delimiter, r->delimiter_len);
        } else {
            format_record(&r->format, &r->out, &r->records[i]);
        }
        if (r->unbuffered)
            out_flush(&r->out);
    }
    r->printed += n;
    progress_show(&r->progress, r->printed);
}

/* -e: tick off the partitions (all, or that of a record) that have nothing left. */
static int look_for_end(struct run *r, const eagre_record_t *of) {
    bool queue = r->options.group_type == EAGRE_GROUP_SHARE; /* which has others at work before its end */
    for (size_t i = 0; i < r->source_count; i++) {
        struct source *s = &r->sources[i];
        int64_t lag = 0;
        if (s->done ||
            (of != NULL && (s->partition != of->partition || strcmp(s->topic, of->topic) != 0)))
            continue;
        int rc = queue ? EAGRE_OK : eagre_consumer_lag(r->consumer, s->topic, s->partition, &lag);
        if (rc != EAGRE_OK)
            return rc;
        if (queue ? of == NULL && r->waited : lag == 0) {
            s->done = true;
            r->undone--;
        }
    }
    return EAGRE_OK;
}

static int consume(struct run *r) {
    size_t lost;
    int rc = r->offset >= 0 && r->tail < 0 && r->from < 0 ? find_way_back(r, &lost) : EAGRE_OK; /* -o OFFSET */
    int32_t wait_ms = 0;
    if (rc == EAGRE_OK && r->stop_at_end)
        rc = look_for_end(r, NULL);
    while (rc == EAGRE_OK && !caught && (r->group != NULL ? !group_ended(r) : r->undone > 0)) {
        size_t max = POLL_MAX;
        size_t n = 0;
        if (r->count > 0 && r->count - r->printed < max)
            max = r->count - r->printed;
        if (max == 0)
            break;
        rc = eagre_consumer_poll(r->consumer, r->records, max, wait_ms, &n);
        r->waited = wait_ms > 0 && rc == EAGRE_OK;
        if (n > 0) {
            size_t printed = cut(r, n);
            print(r, printed);
            if (r->group != NULL) {
                int done = group_printed(r, printed, n);
                rc = rc == EAGRE_OK ? done : rc;
            }
            wait_ms = 0;
        } else if (wait_ms == 0) {
            /* Nothing at hand: let out what there is before we wait. */
            out_flush(&r->out);
            if (r->group != NULL && rc == EAGRE_OK)
                rc = group_idle(r);
            wait_ms = WAIT_MS;
        }
        if (r->group != NULL)
            rc = group_polled(r, rc);
        if (rc == EAGRE_E_OFFSET_OUT_OF_RANGE) {
            int back = find_way_back(r, &lost);
            if (back != EAGRE_OK || lost > 0)
                rc = back; /* else it is out of a range that we do not know: as the library says */
        }
        /* Without a daemon the ring may still bring records, and it may come back. */
        if (rc == EAGRE_E_NO_DAEMON || rc == EAGRE_E_TIMED_OUT)
            rc = EAGRE_OK;
        if (rc == EAGRE_OK && (r->stop_at_end || (n == 0 && eg_now_ns() >= r->until)))
            rc = look_for_end(r, n > 0 ? &r->records[0] : NULL);
        if (r->out.error != 0)
            break;
    }
    return rc;
}

/* ---- the command --------------------------------------------------------------------------------------- */

static void parse_offset(struct run *r, const char *text) {
    bool is_end = strncmp(text, "e@", 2) == 0;
    if (text[0] == '@' || is_end || strncmp(text, "s@", 2) == 0) {
        int64_t at = cli_time(r->c, "-o", text + (text[0] == '@' ? 0 : 1));
        *(is_end ? &r->until : &r->from) = at;
        return;
    }
    r->tail = r->from = -1;
    r->stored = strcmp(text, "stored") == 0;
    if (strcmp(text, "beginning") == 0 || strcmp(text, "earliest") == 0 || r->stored)
        r->offset = EAGRE_OFFSET_BEGINNING;
    else if (strcmp(text, "end") == 0 || strcmp(text, "latest") == 0)
        r->offset = EAGRE_OFFSET_END;
    else if (text[0] == '-')
        r->tail = cli_number(r->c, "-o -", text + 1, 0, INT64_MAX);
    else
        r->offset = cli_number(r->c, "-o (beginning, end, OFFSET, -N, @TIME or e@TIME)", text, 0, INT64_MAX);
}

static void parse_isolation(struct run *r, const char *text) {
    if (strcmp(text, "published") != 0 && strcmp(text, "durable") != 0)
        cli_usage(r->c, "--isolation is published or durable, not '%s'", text);
    r->options.isolation = text[0] == 'd' ? EAGRE_ISOLATION_DURABLE : EAGRE_ISOLATION_PUBLISHED;
}

/* One of the options that a member of a group has. */
static void parse_member(struct run *r, int opt, const char *text) {
    eagre_consumer_options_t *o = &r->options;
    r->member_option = true;
    switch (opt) {
    case OPTION_GROUP_TYPE:
        if (strcmp(text, "consumer") != 0 && strcmp(text, "share") != 0)
            cli_usage(r->c, "--group-type is consumer or share, not '%s'", text);
        o->group_type = text[0] == 's' ? EAGRE_GROUP_SHARE : EAGRE_GROUP_CONSUMER;
        break;
    case OPTION_STRATEGY:
        o->partition_assignment_strategy = text;
        break;
    case OPTION_INSTANCE_ID:
        o->group_instance_id = text;
        break;
    case OPTION_CLIENT_ID:
        o->client_id = text;
        break;
    case OPTION_MAX_POLL:
        o->max_poll_interval_ms = (int32_t)cli_number(r->c, "--max-poll-interval-ms", text, 1, INT32_MAX);
        break;
    default:
        o->session_timeout_ms = (int32_t)cli_number(r->c, "--session-timeout-ms", text, 1, INT32_MAX);
    }
}

/* What goes with -g, and what needs it. */
static void check_group(const struct run *r) {
    if (r->group == NULL && r->member_option)
        cli_usage(r->c, "only a member of a group (-g GROUP) has an option like that");
    if (r->group == NULL && r->stored)
        cli_usage(r->c, "-o stored: only a group (-g GROUP) has stored offsets");
    if (r->group == NULL)
        return;
    if (r->group[0] == '\0')
        cli_usage(r->c, "-g: the group's name is empty");
    if (r->only_count > 0)
        cli_usage(r->c, "-p and -g: a group gives its members their partitions");
    if (r->offset >= 0 || r->tail >= 0 || r->from >= 0)
        cli_usage(r->c, "-o and -g: a group goes on where it has got to; -o beginning|end is for partitions of which it has no "
                        "offset, `eagre group seek %s` moves it",
                  r->group);
}

static void parse(struct cli *c, int argc, char **argv, struct run *r) {
    static const struct option longs[] = {{"partition", required_argument, NULL, 'p'},
                                          {"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"isolation", required_argument, NULL, OPTION_ISOLATION},
                                          {"group", required_argument, NULL, 'g'},
                                          {"group-type", required_argument, NULL, OPTION_GROUP_TYPE},
                                          {"strategy", required_argument, NULL, OPTION_STRATEGY},
                                          {"instance-id", required_argument, NULL, OPTION_INSTANCE_ID},
                                          {"client-id", required_argument, NULL, OPTION_CLIENT_ID},
                                          {"max-poll-interval-ms", required_argument, NULL, OPTION_MAX_POLL},
                                          {"session-timeout-ms", required_argument, NULL, OPTION_SESSION_TIMEOUT},
                                          CLI_COMMON_OPTIONS};
    char *format = NULL;
    char *key_delimiter = NULL;
    size_t key_len = 0;
    r->c = c;
    r->options = (eagre_consumer_options_t)EAGRE_CONSUMER_OPTIONS_INIT;
    r->offset = EAGRE_OFFSET_BEGINNING;
    r->tail = r->from = -1;
    r->until = INT64_MAX;
    r->delimiter = "\n";
    r->delimiter_len = 1;
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hg:p:o:ec:f:JK:D:Zuq", longs)) != -1;) {
        switch (opt) {
        case 'p':
            if (r->only_count == PARTITIONS_MAX)
                cli_usage(c, "more than %d partitions", PARTITIONS_MAX);
            r->only[r->only_count++] = (int32_t)cli_number(c, "-p", optarg, 0, INT32_MAX);
            break;
        case 'o':
            parse_offset(r, optarg);
            break;
        case 'g':
            r->group = optarg;
            break;
        case 'e':
            r->stop_at_end = true;
            break;
        case 'c':
            r->count = (uint64_t)cli_number(c, "-c", optarg, 1, INT64_MAX);
            break;
        case 'f':
            format = optarg;
            break;
        case 'J':
            r->json = true;
            break;
        case 'K':
            key_delimiter = optarg;
            key_len = unescape(optarg);
            break;
        case 'D':
            r->delimiter_len = unescape(optarg);
            r->delimiter = optarg;
            break;
        case 'Z':
            r->format.null_shown = true;
            break;
        case 'u':
            r->unbuffered = true;
            break;
        case OPTION_ISOLATION:
            parse_isolation(r, optarg);
            break;
        case 'q':
            r->quiet = true;
            break;
        default:
            parse_member(r, opt, optarg);
        }
    }
    if (format != NULL && r->json)
        cli_usage(c, "-f and -J are two ways to print a record: give one");
    const char *wrong = NULL;
    if (format != NULL)
        wrong = format_parse(&r->format, format);
    else
        format_delimited(&r->format, key_delimiter, key_len, r->delimiter, r->delimiter_len);
    if (wrong != NULL)
        cli_usage(c, "-f: %s", wrong);
    check_group(r);
    if (optind == argc)
        cli_usage(c, "which topic?");
}

/* Open, assign, consume; the rest is reporting. */
static int run(struct run *r, eagre_t *e, int argc, char **argv) {
    r->e = e;
    r->options.auto_offset_reset = EAGRE_RESET_NONE; /* nothing is skipped without a word */
    int rc = EAGRE_OK;
    if (r->group != NULL)
        rc = group_join(r, (const char *const *)&argv[optind], (size_t)(argc - optind));
    else
        rc = eagre_consumer_open(e, &r->options, &r->consumer);
    for (int i = optind; i < argc && rc == EAGRE_OK && r->group == NULL; i++)
        rc = assign(r, argv[i]);
    return rc == EAGRE_OK ? consume(r) : rc;
}

int cmd_consume(struct cli *c, int argc, char **argv) {
    static struct run r; /* large */
    /* The second one ends it also while it waits for its reader. */
    struct sigaction end = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    eagre_t *e;

    parse(c, argc, argv, &r);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGTERM, &end, NULL);
    out_init(&r.out, STDOUT_FILENO);
    progress_begin(&r.progress, !r.quiet && !isatty(STDOUT_FILENO));
    int rc = run(&r, e, argc, argv);
    progress_end(&r.progress);
    int written = out_end(&r.out);
    code = rc == EAGRE_OK ? written : cli_fail(c, rc);
    eagre_consumer_close(r.consumer);
    eagre_close(e);
    free(r.sources);
    if (caught) {
        signal(caught, SIG_DFL);
        raise(caught); /* so that a shell knows */
    }
    return code;
}
