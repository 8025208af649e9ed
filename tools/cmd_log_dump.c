/* eagre log dump */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd_log.h"
#include "format.h"

struct dump {
    struct cli *c;
    bool json;
    int64_t from; /* -o */
    uint64_t count, printed;
    const char *delimiter;
    size_t delimiter_len;
    struct format format;
    struct out out;
};

static bool is_full(const struct dump *d) { return d->count > 0 && d->printed == d->count; }

static void print(struct dump *d, const struct log_look *k, const struct eg_logfile_frame *f) {
    char topic[16];
    snprintf(topic, sizeof(topic), "t%u", k->id.topic_uid);
    eagre_record_t r = {.topic = topic,
                        .partition = (int32_t)k->id.partition,
                        .offset = k->id.base + f->index,
                        .timestamp_ns = f->view.timestamp_ns,
                        .key = f->view.key,
                        .key_len = f->view.key_length,
                        .value = f->view.value,
                        .value_len = f->view.value_length,
                        .headers = f->view.headers,
                        .headers_len = f->view.headers_length};
    if (r.offset < d->from)
        return;
    if (d->json) {
        format_json(&d->out, &r);
        out_bytes(&d->out, d->delimiter, d->delimiter_len);
    } else {
        format_record(&d->format, &d->out, &r);
    }
    d->printed++;
}

/* What is good, also behind damage: each hole is told of. */
static int dump(struct dump *d, const struct log_look *k) {
    struct eg_logfile_iter it;
    struct eg_logfile_frame next;
    int code = CLI_OK;
    eg_logfile_iter_init(&it, &k->l, EG_SEGMENT_DATA, 0);
    while (!is_full(d)) {
        enum eg_logfile_step step = eg_logfile_next(&it);
        if (step == EG_STEP_RECORD)
            print(d, k, &it.frame);
        if (step == EG_STEP_RECORD || step == EG_STEP_PAD)
            continue;
        if (step == EG_STEP_END || !eg_logfile_find(&k->l, it.pos, it.index, &next))
            break;
        out_flush(&d->out);
        cli_error(d->c,
                  "%s: position %" PRIu64 ": %s: %" PRIu64 " records from offset %" PRId64
                  " on are missing",
                  k->file->path, it.pos, it.reason, next.index - it.index,
                  k->id.base + (int64_t)it.index);
        eg_logfile_iter_init(&it, &k->l, next.pos, next.index);
        code = CLI_FAILED;
    }
    return code;
}

static int each(struct log_partition *p, void *ctx) {
    struct dump *d = ctx;
    struct eg_logfile_id ids = {0};
    struct log_look k;
    int code = CLI_OK;
    for (size_t i = 0; i < p->count && !is_full(d); i++) {
        log_look(p, i, &ids, &k);
        if (k.has_header) {
            int this = dump(d, &k);
            code = code == CLI_OK ? this : code;
        }
        if (k.state >= LOG_TORN && k.state != LOG_ASIDE) {
            out_flush(&d->out);
            cli_error(d->c, "%s: %s", k.file->path, k.problem);
            code = CLI_FAILED;
        }
        log_look_end(&k);
    }
    return code;
}

int cmd_log_dump(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {{"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          CLI_FORMAT_OPTION,
                                          CLI_COMMON_OPTIONS};
    static struct dump d;
    char *format = NULL, *key_delimiter = NULL;
    size_t key_len = 0;
    d.c = c;
    d.delimiter = "\n";
    d.delimiter_len = 1;
    for (int o; (o = cli_getopt(c, argc, argv, ":ho:c:f:JK:D:Z", longs)) != -1;) {
        switch (o) {
        case 'o':
            d.from = cli_number(c, "-o", optarg, 0, INT64_MAX);
            break;
        case 'c':
            d.count = (uint64_t)cli_number(c, "-c", optarg, 1, INT64_MAX);
            break;
        case 'f':
            format = optarg;
            break;
        case 'J':
            d.json = true;
            break;
        case 'K':
            key_delimiter = optarg;
            key_len = unescape(optarg);
            break;
        case 'D':
            d.delimiter_len = unescape(optarg);
            d.delimiter = optarg;
            break;
        default:
            d.format.null_shown = true;
        }
    }
    d.json |= c->json;
    if (format != NULL && d.json)
        cli_usage(c, "-f and -J are two ways to print a record: give one");
    const char *wrong = NULL;
    if (format != NULL)
        wrong = format_parse(&d.format, format);
    else
        format_delimited(&d.format, key_delimiter, key_len, d.delimiter, d.delimiter_len);
    if (wrong != NULL)
        cli_usage(c, "-f: %s", wrong);
    out_init(&d.out, STDOUT_FILENO);
    int code = log_for_each(c, argc, argv, each, &d);
    int written = out_end(&d.out);
    return code == CLI_OK ? written : code;
}
