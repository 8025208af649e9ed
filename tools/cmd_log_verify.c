/* eagre log verify: every invariant that log files have, over all of a partition's. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd_log.h"
#include "log/check.h"
#include "ring.h"

struct verify {
    bool json;
    uint64_t partitions, segments, records, pads, bytes, problems, claims;
    struct out out;
};

static void problem(struct verify *v, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void problem(struct verify *v, const char *path, const char *format, ...) {
    char text[EG_PAGE / 4];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    v->problems++;
    if (v->json) {
        out_text(&v->out, v->problems > 1 ? ",\n    {\"path\": " : "\n    {\"path\": ");
        json_text(&v->out, path);
        out_text(&v->out, ", \"problem\": ");
        json_text(&v->out, text);
        out_text(&v->out, "}");
    } else {
        out_text(&v->out, path);
        out_text(&v->out, ": ");
        out_text(&v->out, text);
        out_text(&v->out, "\n");
    }
}

static int check_index(struct verify *v, const struct log_look *k) {
    const char *wrong;
    struct eg_logindex_entry *entries;
    uint32_t count;
    int rc = log_index_check(k, &wrong, &entries, &count);
    if (rc == EAGRE_OK && wrong != NULL)
        problem(v, k->file->path, "%s", wrong);
    if (rc == EAGRE_OK)
        free(entries);
    return rc;
}

/* The end that the files so far lead to, as the next one's base should say it. */
struct run {
    bool known;
    uint64_t seq; /* of the file before */
    int64_t end;
};

static void check_order(struct verify *v, const struct log_look *k, struct run *r, bool first) {
    uint64_t seq = k->file->seq;
    if (!first && seq != r->seq + 1)
        problem(v, k->file->path,
                seq == r->seq + 2 ? "segment %" PRIu64 " is missing before it"
                                  : "segments from %" PRIu64 " on are missing before it",
                r->seq + 1);
    if (!first && seq == r->seq + 1 && r->known && k->has_header && k->id.base != r->end)
        problem(v, k->file->path,
                "begins at offset %" PRId64 ", but the segment before it ends at %" PRId64,
                k->id.base, r->end);
    r->seq = seq;
    r->known = k->has_header && k->state == LOG_WHOLE;
    r->end = k->id.base + (int64_t)k->scan.good_index;
}

static int each(struct log_partition *p, void *ctx) {
    struct verify *v = ctx;
    struct eg_logfile_id ids = {0};
    struct log_look k;
    struct run r = {0};
    int code = CLI_OK;
    bool first = true;
    v->partitions++;
    for (size_t i = 0; i < p->count; i++) {
        log_look(p, i, &ids, &k);
        v->segments++;
        v->records += k.scan.records;
        v->pads += k.scan.pads;
        v->bytes += k.scan.data_end;
        if (k.file->aside)
            problem(v, k.file->path,
                    "was put aside as damaged: `eagre log dump` prints what is good in it");
        else if (k.state >= LOG_TORN)
            problem(v, k.file->path, "%s", k.problem);
        if (k.has_header && k.bytes > k.id.capacity)
            problem(v, k.file->path, "is longer than the %" PRIu64 " bytes of a segment",
                    k.id.capacity);
        if (k.has_header && !k.file->aside && check_index(v, &k) != EAGRE_OK)
            code = CLI_FAILED;
        if (!k.file->aside || i + 1 == p->count || p->files[i + 1].seq != k.file->seq) {
            check_order(v, &k, &r, first);
            first = false;
        }
        log_look_end(&k);
    }
    return code;
}

/* ---- memory --------------------------------------------------------------------------------------------- */

static int each_ring(struct ring_partition *p, void *ctx) {
    struct verify *v = ctx;
    struct eg_check_report r;
    char name[32];
    v->partitions++;
    if (p->count == 0)
        return CLI_OK; /* nobody ever used it: it has no memory */
    /* Where processes go on writing, what was in the making at a look is not at the next. */
    eg_check_partition(&p->map, &r);
    for (int looks = 1; r.problems > 0 && looks < 3; looks++) {
        ring_again(p);
        eg_check_partition(&p->map, &r);
    }
    snprintf(name, sizeof(name), "t%u/%u", p->topic_uid, p->number);
    if (r.problems > 0)
        problem(v, name, "%s", r.first);
    if (r.problems > 1)
        problem(v, name, "there are %" PRIu64 " such things more", r.problems - 1);
    if (eg_load_acquire(&p->map.status->state) == EG_PARTITION_ERROR)
        problem(v, name, "is in error state: a producer destroyed its ring");
    v->segments += r.segments;
    v->records += r.records;
    v->pads += r.pads;
    v->claims += r.claimed;
    return CLI_OK;
}

int cmd_log_verify(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {LOG_KEEPER_OPTION, CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct verify v;
    const char *keeper = NULL;
    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        keeper = optarg;
    v.json = c->json;
    out_init(&v.out, STDOUT_FILENO);
    if (v.json)
        out_text(&v.out, "{\"problems\": [");
    int code = keeper != NULL ? ring_for_each(c, keeper, argc, argv, each_ring, &v)
                              : log_for_each(c, argc, argv, each, &v);
    if (v.json && keeper != NULL)
        out_printf(&v.out,
                   "],\n  \"partitions\": %" PRIu64 ", \"segments\": %" PRIu64
                   ", \"records\": %" PRIu64 ", \"pads\": %" PRIu64 ", \"claims\": %" PRIu64 "}\n",
                   v.partitions, v.segments, v.records, v.pads, v.claims);
    else if (!v.json && v.partitions == 0)
        ; /* what was wrong is said already */
    else if (keeper != NULL)
        out_printf(&v.out,
                   "%" PRIu64 " partitions, %" PRIu64 " segments, %" PRIu64 " records, %" PRIu64
                   " pads, %" PRIu64 " open claims: %" PRIu64 " problems\n",
                   v.partitions, v.segments, v.records, v.pads, v.claims, v.problems);
    else if (v.json)
        out_printf(&v.out,
                   "],\n  \"partitions\": %" PRIu64 ", \"segments\": %" PRIu64
                   ", \"records\": %" PRIu64 ", \"pads\": %" PRIu64 ", \"bytes\": %" PRIu64 "}\n",
                   v.partitions, v.segments, v.records, v.pads, v.bytes);
    else
        out_printf(&v.out,
                   "%" PRIu64 " partitions, %" PRIu64 " segments, %" PRIu64 " records, %" PRIu64
                   " pads, %" PRIu64 " bytes: %" PRIu64 " problems\n",
                   v.partitions, v.segments, v.records, v.pads, v.bytes, v.problems);
    int written = out_end(&v.out);
    code = v.problems > 0 ? CLI_FAILED : code;
    return code == CLI_OK ? written : code;
}
