/* eagre log inspect */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cmd_log.h"
#include "ring.h"

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

/* ---- memory --------------------------------------------------------------------------------------------- */

/* What a walk through a segment found. */
struct ring_sum {
    uint64_t records, pads, claims, damaged, bytes;
    int64_t end, first_ns, latest_ns;
    const char *state;
};

static struct ring_sum sum_up(const struct ring_partition *p, const struct ring_segment *s) {
    static const char *const states[] = {"empty", "ready", "open", "retiring"};
    struct ring_sum sum = {.state = s->state < 4 ? states[s->state] : "?", .end = s->base};
    struct ring_walk w;
    if (s->problem[0] != '\0')
        sum.state = "damaged";
    if (s->data == NULL)
        return sum;
    ring_walk_init(&w, p, s);
    for (;;) {
        enum ring_step step = ring_next(&w);
        if (step == RING_RECORD) {
            int64_t ns = w.view.timestamp_ns;
            sum.first_ns = sum.records == 0 ? ns : sum.first_ns;
            sum.latest_ns = sum.records == 0 || ns > sum.latest_ns ? ns : sum.latest_ns;
        }
        sum.records += step == RING_RECORD;
        sum.pads += step == RING_PAD;
        sum.claims += step == RING_CLAIM;
        sum.damaged += step == RING_DAMAGED || step == RING_BROKEN;
        if (step == RING_END)
            sum.state = "whole";
        if (step == RING_END || step == RING_NOTHING || step == RING_BROKEN)
            break;
    }
    sum.state = sum.damaged > 0 ? "damaged" : sum.state;
    sum.bytes = w.pos - EG_SEGMENT_DATA;
    sum.end = s->base + (s->base == EG_BASE_UNSET ? 0 : (int64_t)w.index);
    return sum;
}

/* Claims and damage, one by one. */
static void show_places(struct inspect *x, const struct ring_partition *p,
                        const struct ring_segment *s) {
    struct out *o = &x->out;
    struct ring_walk w;
    char owner[RING_OWNER_MAX];
    uint64_t shown = 0;
    enum ring_step step;
    ring_walk_init(&w, p, s);
    do {
        step = ring_next(&w);
        if (step != RING_CLAIM && step != RING_DAMAGED && step != RING_BROKEN)
            continue;
        bool claim = step == RING_CLAIM;
        int64_t offset = s->base + (int64_t)w.index;
        ring_owner(p, w.owner, owner);
        if (x->json)
            out_printf(
                o, "%s\n    {\"offset\": %" PRId64 ", \"position\": %" PRIu64 ", \"%s\": \"%s\"",
                shown++ == 0 ? ", \"places\": [" : ",", offset, w.pos,
                claim ? "claimed_by" : "problem", claim ? owner : w.reason);
        else if (claim)
            out_printf(o,
                       "  %10s  offset %" PRId64 ", position %" PRIu64 ": %u claimed, %" PRIu64
                       " bytes, not published, by %s\n",
                       "", offset, w.pos, w.count, w.length, owner);
        else
            out_printf(o, "  %10s  offset %" PRId64 ", position %" PRIu64 ": %s\n", "", offset,
                       w.pos, w.reason);
        if (x->json && claim)
            out_printf(o, ", \"records\": %u, \"bytes\": %" PRIu64, w.count, w.length);
        if (x->json)
            out_text(o, "}");
    } while (step != RING_END && step != RING_NOTHING && step != RING_BROKEN);
    if (shown > 0)
        out_text(o, "]");
}

static void show_ring_json(struct inspect *x, const struct ring_partition *p,
                           const struct ring_segment *s, const struct ring_sum *sum) {
    struct out *o = &x->out;
    out_printf(o,
               "%s\n  {\"topic_uid\": %u, \"partition\": %u, \"partition_uid\": %u, \"slot\": %u, "
               "\"segment\": %" PRIu64 ", \"state\": \"%s\", \"buffer\": %u, \"active\": %s",
               x->shown++ == 0 ? "" : ",", p->topic_uid, p->number, p->map.uid, s->slot, s->seq,
               sum->state, s->buffer, s->seq == p->active ? "true" : "false");
    if (s->base != EG_BASE_UNSET)
        out_printf(o,
                   ",\n   \"base\": %" PRId64 ", \"end\": %" PRId64 ", \"records\": %" PRIu64
                   ", \"pads\": %" PRIu64 ", \"claims\": %" PRIu64 ", \"bytes\": %" PRIu64,
                   s->base, sum->end, sum->records, sum->pads, sum->claims, sum->bytes);
    if (sum->records > 0)
        out_printf(o, ", \"first_ts_ns\": %" PRId64 ", \"max_ts_ns\": %" PRId64, sum->first_ns,
                   sum->latest_ns);
    if (sum->claims + sum->damaged > 0)
        show_places(x, p, s);
    if (s->problem[0] != '\0') {
        out_text(o, ",\n   \"problem\": ");
        json_text(o, s->problem);
    }
    out_text(o, "}");
}

static void show_ring_text(struct inspect *x, const struct ring_partition *p,
                           const struct ring_segment *s, const struct ring_sum *sum) {
    struct out *o = &x->out;
    char from[LOG_TIME_MAX] = "-", to[LOG_TIME_MAX] = "-";
    if (sum->records > 0) {
        log_time(sum->first_ns, from);
        log_time(sum->latest_ns, to);
    }
    out_printf(o, "  %10" PRIu64, s->seq);
    if (s->base != EG_BASE_UNSET)
        out_printf(o,
                   "  %14" PRId64 "  %14" PRId64 "  %10" PRIu64 "  %6" PRIu64 "  %6" PRIu64
                   "  %10" PRIu64,
                   s->base, sum->end, sum->records, sum->pads, sum->claims, sum->bytes);
    else
        out_printf(o, "  %14s  %14s  %10s  %6s  %6s  %10s", "-", "-", "-", "-", "-", "-");
    out_printf(o, "  %-24s  %-24s  %4u  %s\n", from, to, s->slot, sum->state);
    if (s->problem[0] != '\0')
        out_printf(o, "  %10s  %s\n", "", s->problem);
    if (sum->claims + sum->damaged > 0)
        show_places(x, p, s);
}

static int each_ring(struct ring_partition *p, void *ctx) {
    struct inspect *x = ctx;
    struct out *o = &x->out;
    if (!x->json) {
        out_text(o, x->shown++ > 0 ? "\n" : "");
        out_printf(o,
                   "t%u/%u  partition id %u, %u segments of %" PRIu64
                   " bytes, log begins at offset %" PRId64,
                   p->topic_uid, p->number, p->map.uid, p->map.slots, p->map.capacity,
                   p->log_start);
        if (p->map.on_disk)
            out_printf(o, ", on disk up to offset %" PRId64, p->durable_end);
        if (p->count == 0)
            out_text(o, "\n  nobody used it yet\n");
        else
            out_printf(o, "\n  %10s  %14s  %14s  %10s  %6s  %6s  %10s  %-24s  %-24s  %4s  %s\n",
                       "SEGMENT", "BASE", "END", "RECORDS", "PADS", "CLAIMS", "BYTES", "FIRST",
                       "LATEST", "SLOT", "STATE");
    }
    for (uint32_t i = 0; i < p->count; i++) {
        struct ring_sum sum = sum_up(p, &p->segments[i]);
        if (x->json)
            show_ring_json(x, p, &p->segments[i], &sum);
        else
            show_ring_text(x, p, &p->segments[i], &sum);
    }
    return CLI_OK;
}

int cmd_log_inspect(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {LOG_KEEPER_OPTION, CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct inspect x;
    const char *keeper = NULL;
    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        keeper = optarg;
    x.json = c->json;
    out_init(&x.out, STDOUT_FILENO);
    if (x.json)
        out_text(&x.out, "[");
    int code = keeper != NULL ? ring_for_each(c, keeper, argc, argv, each_ring, &x)
                              : log_for_each(c, argc, argv, each, &x);
    if (x.json)
        out_text(&x.out, x.shown > 0 ? "\n]\n" : "]\n");
    int written = out_end(&x.out);
    return code == CLI_OK ? written : code;
}
