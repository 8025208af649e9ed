/* eagre log inspect */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cmd_log.h"

struct inspect {
    bool json;
    uint64_t shown;
    struct out out;
};

static void show_json(struct inspect *x, const struct log_look *k) {
    struct out *o = &x->out;
    const struct eg_logfile_scan *s = &k->scan;
    out_text(o, x->shown++ == 0 ? "\n  {\"path\": " : ",\n  {\"path\": ");
    json_text(o, k->file->path);
    out_printf(o, ", \"segment\": %" PRIu64 ", \"state\": \"%s\"", k->file->seq,
               log_state_name(k->state));
    if (k->has_header)
        out_printf(
            o,
            ",\n   \"topic_uid\": %u, \"partition\": %u, \"partition_uid\": %u, \"base\": %" PRId64
            ", \"end\": %" PRId64 ", \"records\": %" PRIu64 ", \"pads\": %" PRIu64
            ", \"bytes\": %" PRIu64 ",\n   \"capacity\": %" PRIu64
            ", \"alignment\": %u, \"file_bytes\": %" PRIu64 ", \"created_ns\": %" PRId64
            ", \"index\": %s",
            k->id.topic_uid, k->id.partition, k->id.partition_uid, k->id.base,
            k->id.base + (int64_t)s->good_index, s->records, s->pads, s->data_end - EG_SEGMENT_DATA,
            k->id.capacity, k->id.align, k->bytes, k->id.created_ns,
            k->file->has_index ? "true" : "false");
    if (s->records > 0)
        out_printf(o,
                   ",\n   \"first_ts_ns\": %" PRId64 ", \"last_ts_ns\": %" PRId64
                   ", \"max_ts_ns\": %" PRId64,
                   s->first_timestamp_ns, s->last_timestamp_ns, s->max_timestamp_ns);
    if (k->problem[0] != '\0') {
        out_text(o, ",\n   \"problem\": ");
        json_text(o, k->problem);
    }
    out_text(o, "}");
}

static void show_text(struct inspect *x, const struct log_look *k) {
    struct out *o = &x->out;
    const struct eg_logfile_scan *s = &k->scan;
    char from[LOG_TIME_MAX] = "-", to[LOG_TIME_MAX] = "-";
    if (s->records > 0) {
        log_time(s->first_timestamp_ns, from);
        log_time(s->max_timestamp_ns, to);
    }
    if (k->has_header)
        out_printf(o,
                   "  %10" PRIu64 "  %14" PRId64 "  %14" PRId64 "  %10" PRIu64 "  %6" PRIu64
                   "  %10" PRIu64 "  %-24s  %-24s  %s\n",
                   k->file->seq, k->id.base, k->id.base + (int64_t)s->good_index, s->records,
                   s->pads, s->data_end - EG_SEGMENT_DATA, from, to, log_state_name(k->state));
    else
        out_printf(o, "  %10" PRIu64 "  %14s  %14s  %10s  %6s  %10s  %-24s  %-24s  %s\n",
                   k->file->seq, "-", "-", "-", "-", "-", "-", "-", log_state_name(k->state));
    if (k->problem[0] != '\0')
        out_printf(o, "  %10s  %s\n", "", k->problem);
}

static int each(struct log_partition *p, void *ctx) {
    struct inspect *x = ctx;
    struct eg_logfile_id ids = {0};
    struct log_look k;
    for (size_t i = 0; i < p->count; i++) {
        bool had = ids.capacity != 0;
        log_look(p, i, &ids, &k);
        if (!x->json && (i == 0 || (!had && ids.capacity != 0))) {
            out_text(&x->out, x->shown++ > 0 ? "\n" : "");
            out_text(&x->out, p->dir);
            if (ids.capacity != 0)
                out_printf(&x->out,
                           "  topic id %u, partition %u, partition id %u, segments of %" PRIu64
                           " bytes",
                           ids.topic_uid, ids.partition, ids.partition_uid, ids.capacity);
            out_printf(&x->out, "\n  %10s  %14s  %14s  %10s  %6s  %10s  %-24s  %-24s  %s\n",
                       "SEGMENT", "BASE", "END", "RECORDS", "PADS", "BYTES", "FIRST", "LATEST",
                       "STATE");
        }
        if (x->json)
            show_json(x, &k);
        else
            show_text(x, &k);
        log_look_end(&k);
    }
    return CLI_OK;
}

int cmd_log_inspect(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct inspect x;
    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
    x.json = c->json;
    out_init(&x.out, STDOUT_FILENO);
    if (x.json)
        out_text(&x.out, "[");
    int code = log_for_each(c, argc, argv, each, &x);
    if (x.json)
        out_text(&x.out, x.shown > 0 ? "\n]\n" : "]\n");
    int written = out_end(&x.out);
    return code == CLI_OK ? written : code;
}
