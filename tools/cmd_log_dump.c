/* eagre log dump */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd_log.h"
#include "format.h"
#include "ring.h"

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

static void print(struct dump *d, uint32_t topic_uid, uint32_t partition, int64_t offset,
                  const struct eg_frame_view *v) {
    char topic[16];
    snprintf(topic, sizeof(topic), "t%u", topic_uid);
    eagre_record_t r = {.topic = topic,
                        .partition = (int32_t)partition,
                        .offset = offset,
                        .timestamp_ns = v->timestamp_ns,
                        .key = v->key,
                        .key_len = v->key_length,
                        .value = v->value,
                        .value_len = v->value_length,
                        .headers = v->headers,
                        .headers_len = v->headers_length};
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
            print(d, k->id.topic_uid, k->id.partition, k->id.base + it.frame.index, &it.frame.view);
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
        int this = CLI_OK;
        log_look(p, i, &ids, &k);
        if (k.has_header)
            this = dump(d, &k);
        /* Holes are told already, and what lies behind the last record that was wanted does not matter. */
        if (this == CLI_OK && !is_full(d) && k.state >= LOG_TORN && k.state != LOG_ASIDE) {
            out_flush(&d->out);
            cli_error(d->c, "%s: %s", k.file->path, k.problem);
            this = CLI_FAILED;
        }
        code = code == CLI_OK ? this : code;
        log_look_end(&k);
    }
    return code;
}

/* ---- memory --------------------------------------------------------------------------------------------- */

static void note(struct dump *d, const struct ring_partition *p, const struct ring_segment *s,
                 const struct ring_walk *w, const char *text) {
    out_flush(&d->out);
    cli_error(d->c, "t%u/%u: segment %" PRIu64 ", position %" PRIu64 ", offset %" PRId64 ": %s",
              p->topic_uid, p->number, s->seq, w->pos, s->base + (int64_t)w->index, text);
}

static void note_claim(struct dump *d, const struct ring_partition *p, const struct ring_segment *s,
                       const struct ring_walk *w) {
    char owner[RING_OWNER_MAX], text[128];
    ring_owner(p, w->owner, owner);
    snprintf(text, sizeof(text), "%u claimed, not published, by %s", w->count, owner);
    note(d, p, s, w, text);
}

/* What consumers would read, and more: what lies behind an open claim. */
static int dump_ring(struct dump *d, const struct ring_partition *p, const struct ring_segment *s) {
    struct ring_walk w;
    int code = CLI_OK;
    ring_walk_init(&w, p, s);
    while (!is_full(d)) {
        enum ring_step step = ring_next(&w);
        int64_t offset = s->base + (int64_t)w.index;
        if (step == RING_RECORD && offset >= p->log_start) {
            print(d, p->topic_uid, p->number, offset, &w.view);
        } else if (step == RING_CLAIM && offset + w.count > d->from) {
            note_claim(d, p, s, &w);
        } else if (step == RING_DAMAGED || step == RING_BROKEN) {
            note(d, p, s, &w, w.reason);
            code = CLI_FAILED;
        }
        if (step == RING_END || step == RING_NOTHING || step == RING_BROKEN)
            break;
    }
    return code;
}

static int each_ring(struct ring_partition *p, void *ctx) {
    struct dump *d = ctx;
    int code = CLI_OK;
    for (uint32_t i = 0; i < p->count && !is_full(d); i++) {
        const struct ring_segment *s = &p->segments[i];
        int this = CLI_OK;
        if (s->problem[0] != '\0') {
            out_flush(&d->out);
            cli_error(d->c, "t%u/%u: segment %" PRIu64 ": %s", p->topic_uid, p->number, s->seq,
                      s->problem);
            this = CLI_FAILED;
        } else if (s->data != NULL && s->base != EG_BASE_UNSET) {
            this = dump_ring(d, p, s);
        }
        code = code == CLI_OK ? this : code;
    }
    return code;
}

int cmd_log_dump(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {{"offset", required_argument, NULL, 'o'},
                                          {"count", required_argument, NULL, 'c'},
                                          LOG_KEEPER_OPTION,
                                          CLI_FORMAT_OPTION,
                                          CLI_COMMON_OPTIONS};
    static struct dump d;
    char *format = NULL, *key_delimiter = NULL;
    const char *keeper = NULL;
    size_t key_len = 0;
    d.c = c;
    d.delimiter = "\n";
    d.delimiter_len = 1;
    for (int o; (o = cli_getopt(c, argc, argv, ":ho:c:f:JK:D:Z", longs)) != -1;) {
        switch (o) {
        case LOG_OPTION_KEEPER:
            keeper = optarg;
            break;
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
    int code = keeper != NULL ? ring_for_each(c, keeper, argc, argv, each_ring, &d)
                              : log_for_each(c, argc, argv, each, &d);
    int written = out_end(&d.out);
    return code == CLI_OK ? written : code;
}
