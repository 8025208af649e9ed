#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "eagre/admin.h"
#include "output.h"

static void print_json(struct out *o, const eagre_status_entry_t *entries, size_t n) {
    out_text(o, "{");
    for (size_t i = 0; i < n; i++) {
        out_text(o, i == 0 ? "\n  " : ",\n  ");
        json_text(o, entries[i].name);
        out_text(o, ": ");
        json_value(o, entries[i].value);
    }
    out_text(o, "\n}\n");
}

static void print_text(struct out *o, const eagre_status_entry_t *entries, size_t n) {
    size_t width = 0;
    for (size_t i = 0; i < n; i++)
        if (strlen(entries[i].name) > width)
            width = strlen(entries[i].name);
    for (size_t i = 0; i < n; i++)
        out_printf(o, "%-*s  %s\n", (int)width, entries[i].name, entries[i].value);
}

int cmd_status(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {CLI_FORMAT_OPTION, CLI_COMMON_OPTIONS};
    static struct out out;
    eagre_status_entry_t *entries = NULL;
    size_t n = 0;
    eagre_t *e;

    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        ;
    if (optind < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind]);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = eagre_daemon_status(e, &entries, &n);
    if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
    } else {
        out_init(&out, STDOUT_FILENO);
        if (c->json)
            print_json(&out, entries, n);
        else
            print_text(&out, entries, n);
        code = out_end(&out);
    }
    free(entries);
    eagre_close(e);
    return code;
}
