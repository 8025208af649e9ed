/* eagre group list, delete */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "groups.h"
#include "table.h"

static void list_json(struct out *o, const eagre_group_entry_t *g, size_t n) {
    out_text(o, "[");
    for (size_t i = 0; i < n; i++) {
        out_text(o, i == 0 ? "\n  {\"name\": " : ",\n  {\"name\": ");
        json_text(o, g[i].name);
        out_printf(o,
                   ", \"type\": \"%s\", \"state\": \"%s\", \"members\": %" PRIu32 ", \"generation\": %" PRIu32
                   ", \"uid\": %" PRIu32 "}",
                   group_type_name(g[i].type), group_state_name(g[i].state), g[i].members, g[i].generation, g[i].uid);
    }
    out_text(o, n > 0 ? "\n]\n" : "]\n");
}

static void list_text(struct out *o, const eagre_group_entry_t *g, size_t n) {
    static const struct table_column columns[] = {{"GROUP", false}, {"TYPE", false}, {"STATE", false}, {"MEMBERS", true}};
    struct table t = TABLE(columns);
    for (size_t i = 0; i < n; i++) {
        table_add(&t, "%s", g[i].name);
        table_add(&t, "%s", group_type_name(g[i].type));
        table_add(&t, "%s", group_state_name(g[i].state));
        table_add(&t, "%" PRIu32, g[i].members);
    }
    table_print(&t, o);
}

int cmd_group_list(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct out out;
    eagre_group_entry_t *groups = NULL;
    size_t n = 0;
    eagre_t *e;

    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
    if (optind < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind]);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = eagre_group_list(e, &groups, &n);
    if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
    } else {
        out_init(&out, STDOUT_FILENO);
        if (c->json)
            list_json(&out, groups, n);
        else
            list_text(&out, groups, n);
        code = out_end(&out);
    }
    free(groups);
    eagre_close(e);
    return code;
}

int cmd_group_delete(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {CLI_COMMON_OPTIONS};
    eagre_t *e;
    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
    if (optind == argc)
        cli_usage(c, "which group?");
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    for (int i = optind; i < argc; i++) {
        int rc = eagre_group_delete(e, argv[i]);
        int this = rc == EAGRE_OK ? CLI_OK : group_fail(c, e, argv[i], rc);
        code = code == CLI_OK ? this : code;
    }
    eagre_close(e);
    return code;
}
