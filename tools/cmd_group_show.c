/* eagre group describe, lag, members */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "groups.h"
#include "table.h"

struct group {
    eagre_group_info_t *info;
    eagre_group_offset_t *offsets;
    size_t offset_count;
};

/* A way to show groups: each of them as JSON, or all of them as rows of one table. */
struct view {
    const struct table_column *columns;
    size_t column_count;
    void (*rows)(struct table *t, const struct group *g);
    void (*json)(struct out *o, const struct group *g);
    bool notes; /* a table that needs a word about the group's state */
};

static void add_number(struct table *t, int64_t n) {
    if (n < 0)
        table_add(t, "-");
    else
        table_add(t, "%" PRId64, n);
}

static const char *or_none(const char *text) { return text[0] != '\0' ? text : "-"; }

static const eagre_group_member_t *member_of(const struct group *g, uint64_t id) {
    for (size_t i = 0; id != 0 && i < g->info->member_count; i++)
        if (g->info->members[i].member == id)
            return &g->info->members[i];
    return NULL;
}

/* A number, or null for one that is not there. */
static void number_or_null(struct out *o, const char *name, int64_t n, int64_t none) {
    if (n == none)
        out_printf(o, ", \"%s\": null", name);
    else
        out_printf(o, ", \"%s\": %" PRId64, name, n);
}

static void json_head(struct out *o, const struct group *g) {
    const eagre_group_info_t *i = g->info;
    out_text(o, "  {\"name\": ");
    json_text(o, i->name);
    out_printf(o, ", \"type\": \"%s\", \"state\": \"%s\", \"generation\": %" PRIu32 ", \"assignor\": ", group_type_name(i->type),
               group_state_name(i->state), i->generation);
    json_text(o, i->assignor);
    out_printf(o, ", \"uid\": %" PRIu32, i->uid);
}

/* ---- members -------------------------------------------------------------------------------------------- */

static void json_partitions(struct out *o, const struct group *g, uint64_t member) {
    size_t shown = 0;
    for (size_t i = 0; i < g->offset_count; i++) {
        const eagre_group_offset_t *p = &g->offsets[i];
        if (p->member != member)
            continue;
        out_text(o, shown++ == 0 ? "{\"topic\": " : ", {\"topic\": ");
        json_text(o, p->topic);
        out_printf(o, ", \"partition\": %" PRId32 "}", p->partition);
    }
}

/* Ids are strings, as Kafka's are: they have more digits than every JSON parser keeps. */
static void json_members(struct out *o, const struct group *g) {
    out_text(o, ",\n   \"members\": [");
    for (size_t i = 0; i < g->info->member_count; i++) {
        const eagre_group_member_t *m = &g->info->members[i];
        out_printf(o, "%s\n     {\"member\": \"%" PRIu64 "\", \"client_id\": ", i == 0 ? "" : ",", m->member);
        json_text(o, m->client_id);
        out_text(o, ", \"instance_id\": ");
        if (m->instance_id[0] != '\0')
            json_text(o, m->instance_id);
        else
            out_text(o, "null");
        number_or_null(o, "pid", m->pid, 0);
        out_printf(o, ", \"uid\": %" PRIu32, m->uid);
        number_or_null(o, "node", m->node, -1);
        out_text(o, ", \"topics\": [");
        for (size_t k = 0; k < m->topic_count; k++) {
            out_text(o, k == 0 ? "" : ", ");
            json_text(o, m->topics[k]);
        }
        out_printf(o, "], \"partition_count\": %" PRIu32 ", \"partitions\": [", m->partitions);
        json_partitions(o, g, m->member);
        out_text(o, "]}");
    }
    out_text(o, "]");
}

static void members_json(struct out *o, const struct group *g) {
    json_head(o, g);
    json_members(o, g);
    out_text(o, "}");
}

/* "orders(0,2), t(1)"; free() it. */
static char *partitions_of(const struct group *g, uint64_t member) {
    char *text = NULL;
    size_t size = 0;
    const char *topic = NULL;
    FILE *f = open_memstream(&text, &size);
    for (size_t i = 0; f != NULL && i < g->offset_count; i++) {
        const eagre_group_offset_t *p = &g->offsets[i];
        if (p->member != member)
            continue;
        if (topic != NULL && strcmp(topic, p->topic) == 0)
            fprintf(f, ",%" PRId32, p->partition);
        else
            fprintf(f, "%s%s(%" PRId32, topic == NULL ? "" : "), ", p->topic, p->partition);
        topic = p->topic;
    }
    if (f != NULL) {
        fputs(topic == NULL ? "-" : ")", f);
        fclose(f);
    }
    return text;
}

static void members_rows(struct table *t, const struct group *g) {
    for (size_t i = 0; i < g->info->member_count; i++) {
        const eagre_group_member_t *m = &g->info->members[i];
        char *partitions = partitions_of(g, m->member);
        table_add(t, "%s", g->info->name);
        table_add(t, "%" PRIu64, m->member);
        table_add(t, "%s", or_none(m->instance_id));
        add_number(t, m->pid == 0 ? -1 : m->pid);
        table_add(t, "%" PRIu32, m->uid);
        table_add(t, "%s", or_none(m->client_id));
        add_number(t, m->node);
        table_add(t, "%" PRIu32, m->partitions);
        table_add(t, "%s", partitions != NULL ? partitions : "?");
        free(partitions);
    }
}

static const struct table_column member_columns[] = {
    {"GROUP", false},     {"CONSUMER-ID", true}, {"INSTANCE-ID", false}, {"PID", true},        {"UID", true},
    {"CLIENT-ID", false}, {"NODE", true},        {"#PARTITIONS", true},  {"ASSIGNMENT", false}};

/* ---- describe ------------------------------------------------------------------------------------------- */

static void offsets_rows(struct table *t, const struct group *g) {
    for (size_t i = 0; i < g->offset_count; i++) {
        const eagre_group_offset_t *p = &g->offsets[i];
        const eagre_group_member_t *m = member_of(g, p->member);
        table_add(t, "%s", g->info->name);
        table_add(t, "%s", p->topic);
        table_add(t, "%" PRId32, p->partition);
        add_number(t, p->committed);
        add_number(t, p->end);
        add_number(t, p->lag);
        if (p->member == 0)
            table_add(t, "-");
        else
            table_add(t, "%" PRIu64, p->member);
        add_number(t, m == NULL || m->pid == 0 ? -1 : m->pid);
        table_add(t, "%s", m == NULL ? "-" : or_none(m->client_id));
    }
}

static void describe_json(struct out *o, const struct group *g) {
    json_head(o, g);
    json_members(o, g);
    out_text(o, ",\n   \"offsets\": [");
    for (size_t i = 0; i < g->offset_count; i++) {
        const eagre_group_offset_t *p = &g->offsets[i];
        out_text(o, i == 0 ? "\n     {\"topic\": " : ",\n     {\"topic\": ");
        json_text(o, p->topic);
        out_printf(o, ", \"partition\": %" PRId32, p->partition);
        number_or_null(o, "committed", p->committed, -1);
        out_printf(o, ", \"log_start_offset\": %" PRId64 ", \"end_offset\": %" PRId64, p->log_start, p->end);
        number_or_null(o, "lag", p->lag, -1);
        if (p->member == 0)
            out_text(o, ", \"member\": null");
        else
            out_printf(o, ", \"member\": \"%" PRIu64 "\"", p->member);
        number_or_null(o, "commit_ts", p->time_ms, 0);
        out_printf(o, ", \"clamped\": %s, \"metadata\": ", p->clamped ? "true" : "false");
        json_text(o, p->metadata);
        out_text(o, "}");
    }
    out_text(o, "]}");
}

static const struct table_column describe_columns[] = {
    {"GROUP", false}, {"TOPIC", false},      {"PARTITION", true}, {"CURRENT-OFFSET", true}, {"LOG-END-OFFSET", true},
    {"LAG", true},    {"CONSUMER-ID", true}, {"PID", true},       {"CLIENT-ID", false}};

/* ---- lag ------------------------------------------------------------------------------------------------- */

struct sum {
    const char *topic;
    size_t partitions, without; /* those that nothing was committed of; they do not count */
    int64_t lag;                /* -1: there are no others */
};

/* Of the topic that the i-th entry is the first one of. */
static bool sum_up(const struct group *g, size_t i, struct sum *s) {
    *s = (struct sum){.topic = g->offsets[i].topic};
    for (size_t k = 0; k < g->offset_count; k++) {
        const eagre_group_offset_t *p = &g->offsets[k];
        if (strcmp(p->topic, s->topic) != 0)
            continue;
        if (k < i)
            return false;
        s->partitions++;
        if (p->lag < 0)
            s->without++;
        else
            s->lag += p->lag;
    }
    s->lag = s->without == s->partitions ? -1 : s->lag;
    return true;
}

static void lag_rows(struct table *t, const struct group *g) {
    struct sum s;
    for (size_t i = 0; i < g->offset_count; i++) {
        if (!sum_up(g, i, &s))
            continue;
        table_add(t, "%s", g->info->name);
        table_add(t, "%s", s.topic);
        table_add(t, "%zu", s.partitions);
        table_add(t, "%zu", s.without);
        add_number(t, s.lag);
    }
}

static void lag_json(struct out *o, const struct group *g) {
    struct sum s;
    int64_t lag = 0;
    for (size_t i = 0; i < g->offset_count; i++)
        lag += g->offsets[i].lag > 0 ? g->offsets[i].lag : 0;
    out_text(o, "  {\"name\": ");
    json_text(o, g->info->name);
    out_printf(o, ", \"lag\": %" PRId64 ", \"topics\": [", lag);
    for (size_t i = 0, shown = 0; i < g->offset_count; i++) {
        if (!sum_up(g, i, &s))
            continue;
        out_text(o, shown++ == 0 ? "{\"topic\": " : ", {\"topic\": ");
        json_text(o, s.topic);
        out_printf(o, ", \"partitions\": %zu, \"without_offset\": %zu", s.partitions, s.without);
        number_or_null(o, "lag", s.lag, -1);
        out_text(o, "}");
    }
    out_text(o, "]}");
}

static const struct table_column lag_columns[] = {
    {"GROUP", false}, {"TOPIC", false}, {"PARTITIONS", true}, {"WITHOUT-OFFSET", true}, {"LAG", true}};

/* ---- the commands ---------------------------------------------------------------------------------------- */

static int load(eagre_t *e, const char *name, struct group *g) {
    *g = (struct group){0};
    int rc = eagre_group_describe(e, name, &g->info);
    return rc == EAGRE_OK ? eagre_group_offsets(e, name, &g->offsets, &g->offset_count) : rc;
}

static void unload(struct group *g) {
    eagre_group_info_free(g->info);
    free(g->offsets);
}

/* As Kafka's tool does, on standard error. */
static void note_state(const struct cli *c, const struct group *g) {
    if (g->info->state == EAGRE_GROUP_EMPTY)
        cli_error(c, "group '%s' has no active members", g->info->name);
    else if (g->info->state == EAGRE_GROUP_REBALANCING)
        cli_error(c, "group '%s' is rebalancing", g->info->name);
}

struct show {
    struct cli *c;
    const struct view *view;
    struct table table;
    size_t shown;
    bool all; /* no names were given: one that goes meanwhile is no failure */
    struct out out;
};

static int show_one(struct show *s, eagre_t *e, const char *name) {
    struct group g;
    int code = CLI_OK;
    int rc = load(e, name, &g);
    if (rc == EAGRE_OK) {
        if (s->c->json) {
            out_text(&s->out, s->shown++ > 0 ? ",\n" : "");
            s->view->json(&s->out, &g);
        } else {
            if (s->view->notes)
                note_state(s->c, &g);
            s->view->rows(&s->table, &g);
        }
    } else if (!s->all || rc != EAGRE_E_UNKNOWN_GROUP) {
        code = cli_fail(s->c, rc);
    }
    unload(&g);
    return code;
}

static int show(struct cli *c, int argc, char **argv, const struct view *view) {
    static const struct option longs[] = {CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct show s; /* large */
    eagre_group_entry_t *all = NULL;
    size_t n = 0;
    eagre_t *e;

    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    s = (struct show){.c = c, .view = view, .table = {view->columns, view->column_count, NULL, 0, false}, .all = optind == argc};
    int rc = s.all ? eagre_group_list(e, &all, &n) : EAGRE_OK;
    if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
        eagre_close(e);
        return code;
    }
    out_init(&s.out, STDOUT_FILENO);
    if (c->json)
        out_text(&s.out, "[\n");
    for (size_t i = 0; i < (s.all ? n : (size_t)(argc - optind)); i++) {
        int this = show_one(&s, e, s.all ? all[i].name : argv[(size_t)optind + i]);
        code = code == CLI_OK ? this : code;
    }
    if (c->json)
        out_text(&s.out, s.shown > 0 ? "\n]\n" : "]\n");
    else if (s.table.count > 0 || s.table.failed || code == CLI_OK)
        table_print(&s.table, &s.out);
    int written = out_end(&s.out);
    free(all);
    eagre_close(e);
    return code == CLI_OK ? written : code;
}

#define VIEW(columns, rows, json, notes)                                                           \
    &(const struct view) { (columns), sizeof(columns) / sizeof(*(columns)), (rows), (json), (notes) }

int cmd_group_describe(struct cli *c, int argc, char **argv) {
    return show(c, argc, argv, VIEW(describe_columns, offsets_rows, describe_json, true));
}

int cmd_group_members(struct cli *c, int argc, char **argv) {
    return show(c, argc, argv, VIEW(member_columns, members_rows, members_json, true));
}

int cmd_group_lag(struct cli *c, int argc, char **argv) {
    return show(c, argc, argv, VIEW(lag_columns, lag_rows, lag_json, false));
}
