/* eagre topic list, describe */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "eagre/admin.h"
#include "output.h"

static void parse(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
}

/* ---- list ---------------------------------------------------------------------------------------- */

static void list_json(struct out *o, const eagre_topic_entry_t *t, size_t n) {
    out_text(o, "[");
    for (size_t i = 0; i < n; i++) {
        out_text(o, i == 0 ? "\n  {\"name\": " : ",\n  {\"name\": ");
        json_text(o, t[i].name);
        out_printf(o, ", \"uid\": %u, \"partitions\": %u, \"storage\": \"%s\"}", t[i].uid,
                   t[i].partitions, t[i].storage);
    }
    out_text(o, n > 0 ? "\n]\n" : "]\n");
}

static void list_text(struct out *o, const eagre_topic_entry_t *t, size_t n) {
    size_t width = strlen("NAME");
    for (size_t i = 0; i < n; i++)
        if (strlen(t[i].name) > width)
            width = strlen(t[i].name);
    out_printf(o, "%-*s  PARTITIONS  STORAGE\n", (int)width, "NAME");
    for (size_t i = 0; i < n; i++)
        out_printf(o, "%-*s  %10u  %s\n", (int)width, t[i].name, t[i].partitions, t[i].storage);
}

int cmd_topic_list(struct cli *c, int argc, char **argv) {
    static struct out out;
    eagre_topic_entry_t *topics = NULL;
    size_t n = 0;
    eagre_t *e;

    parse(c, argc, argv);
    if (optind < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind]);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = eagre_topic_list(e, &topics, &n);
    if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
    } else {
        out_init(&out, STDOUT_FILENO);
        if (c->json)
            list_json(&out, topics, n);
        else
            list_text(&out, topics, n);
        code = out_end(&out);
    }
    free(topics);
    eagre_close(e);
    return code;
}

/* ---- describe ------------------------------------------------------------------------------------ */

static const char *state_name(int32_t state) { return state == 1 ? "active" : "error"; }

static const char *disk_name(const eagre_partition_info_t *p) {
    return p->durable_offset < 0 ? "none" : p->disk == 0 ? "ok" : p->disk == 1 ? "full" : "error";
}

static void describe_json(struct out *o, const eagre_topic_info_t *t) {
    out_text(o, "  {\"name\": ");
    json_text(o, t->name);
    out_printf(o, ", \"uid\": %u,\n   \"settings\": {", t->uid);
    for (size_t i = 0; i < t->setting_count; i++) {
        out_text(o, i == 0 ? "\n     " : ",\n     ");
        json_text(o, t->settings[i].name);
        out_text(o, ": {\"value\": ");
        json_value(o, t->settings[i].value);
        out_printf(o, ", \"default\": %s}", t->settings[i].is_default ? "true" : "false");
    }
    out_text(o, "},\n   \"partitions\": [");
    for (size_t i = 0; i < t->partition_count; i++) {
        const eagre_partition_info_t *p = &t->partitions[i];
        out_printf(
            o,
            "%s\n     {\"partition\": %" PRId32
            ", \"state\": \"%s\", \"log_start_offset\": %" PRId64 ", \"end_offset\": %" PRId64
            ", \"active_segment\": %" PRIu64 ", \"hot_segments\": %" PRIu64
            ", \"memory_bytes\": %" PRIu64 ", \"pinned_bytes\": %" PRIu64 ", \"stalled_offset\": %" PRId64
            ", \"stalled_pid\": %" PRId32 ", \"stalled_ms\": %" PRId64 ", \"durable_offset\": %" PRId64
            ", \"disk\": \"%s\"}",
            i == 0 ? "" : ",", p->partition, state_name(p->state), p->log_start_offset,
            p->end_offset, p->active_segment, p->hot_segments, p->memory_bytes, p->pinned_bytes,
            p->stalled_offset, p->stalled_pid, p->stalled_ms, p->durable_offset,
            disk_name(p));
    }
    out_text(o, "]}");
}

static void describe_text(struct out *o, const eagre_topic_info_t *t) {
    size_t width = 0;
    for (size_t i = 0; i < t->setting_count; i++)
        if (strlen(t->settings[i].name) > width)
            width = strlen(t->settings[i].name);
    out_printf(o, "%s\n", t->name);
    for (size_t i = 0; i < t->setting_count; i++)
        out_printf(o, "  %-*s  %s%s\n", (int)width, t->settings[i].name, t->settings[i].value,
                   t->settings[i].is_default ? "  (default)" : "");
    out_printf(o, "\n  %9s  %-6s  %14s  %14s  %14s  %-5s  %8s  %14s  %14s\n", "PARTITION", "STATE", "START",
               "END", "DURABLE", "DISK", "SEGMENTS", "MEMORY", "PINNED");
    for (size_t i = 0; i < t->partition_count; i++) {
        const eagre_partition_info_t *p = &t->partitions[i];
        char durable[24] = "-";
        if (p->durable_offset >= 0)
            snprintf(durable, sizeof(durable), "%" PRId64, p->durable_offset);
        out_printf(o,
                   "  %9" PRId32 "  %-6s  %14" PRId64 "  %14" PRId64 "  %14s  %-5s  %8" PRIu64 "  %14" PRIu64
                   "  %14" PRIu64 "\n",
                   p->partition, state_name(p->state), p->log_start_offset, p->end_offset, durable, disk_name(p),
                   p->hot_segments, p->memory_bytes, p->pinned_bytes);
    }
    for (size_t i = 0; i < t->partition_count; i++) {
        const eagre_partition_info_t *p = &t->partitions[i];
        if (p->stalled_offset >= 0)
            out_printf(o, "\n  partition %" PRId32 ": readers have waited at offset %" PRId64 " for %" PRId64
                          " s, for pid %" PRId32 "\n",
                       p->partition, p->stalled_offset, p->stalled_ms / 1000, p->stalled_pid);
    }
}

int cmd_topic_describe(struct cli *c, int argc, char **argv) {
    static struct out out;
    eagre_t *e;

    parse(c, argc, argv);
    if (optind == argc)
        cli_usage(c, "which topic?");
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    out_init(&out, STDOUT_FILENO);
    if (c->json)
        out_text(&out, "[\n");
    size_t shown = 0;
    for (int i = optind; i < argc; i++) {
        eagre_topic_info_t *info;
        int rc = eagre_topic_describe(e, argv[i], &info);
        if (rc != EAGRE_OK) {
            int this = cli_fail(c, rc);
            code = code == CLI_OK ? this : code;
            continue;
        }
        if (shown++ > 0)
            out_text(&out, c->json ? ",\n" : "\n");
        if (c->json)
            describe_json(&out, info);
        else
            describe_text(&out, info);
        eagre_topic_info_free(info);
    }
    if (c->json)
        out_text(&out, shown > 0 ? "\n]\n" : "]\n");
    int written = out_end(&out);
    eagre_close(e);
    return code == CLI_OK ? written : code;
}
