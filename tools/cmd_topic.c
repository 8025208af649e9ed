/* eagre topic create, alter, delete */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "eagre/admin.h"

#define SETTINGS_MAX 64

struct settings {
    eagre_setting_t list[SETTINGS_MAX];
    size_t count;
};

static void add(const struct cli *c, struct settings *s, const char *name, const char *value) {
    if (s->count == SETTINGS_MAX)
        cli_usage(c, "more than %d settings", SETTINGS_MAX);
    s->list[s->count++] = (eagre_setting_t){name, value};
}

/* Options and at least one name; the names are argv[optind ...]. */
static void parse(struct cli *c, int argc, char **argv, struct settings *s) {
    static const struct option longs[] = {{"partitions", required_argument, NULL, 'p'},
                                          {"config", required_argument, NULL, 'c'},
                                          CLI_COMMON_OPTIONS};
    for (int o; (o = cli_getopt(c, argc, argv, s == NULL ? ":h" : ":hp:c:", longs)) != -1;) {
        if (s == NULL)
            cli_usage(c, "it has no such option");
        if (o == 'p') {
            cli_number(c, "-p", optarg, 1, INT32_MAX);
            add(c, s, "partitions", optarg);
        } else {
            char *equals = strchr(optarg, '=');
            if (equals == NULL || equals == optarg)
                cli_usage(c, "-c %s: a setting is NAME=VALUE", optarg);
            *equals = '\0';
            add(c, s, optarg, equals + 1);
        }
    }
    if (optind == argc)
        cli_usage(c, "which topic?");
}

/* Do it to each of the names; goes on after a failure, whose code (the first one's) is returned. */
static int for_each(struct cli *c, int argc, char **argv, const struct settings *s,
                    int (*call)(eagre_t *e, const char *name, const struct settings *s)) {
    eagre_t *e;
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    for (int i = optind; i < argc; i++) {
        int rc = call(e, argv[i], s);
        int this = rc == EAGRE_OK ? CLI_OK : cli_fail(c, rc);
        if (code == CLI_OK)
            code = this;
    }
    eagre_close(e);
    return code;
}

static int create(eagre_t *e, const char *name, const struct settings *s) {
    return eagre_topic_create(e, name, s->list, s->count);
}

static int alter(eagre_t *e, const char *name, const struct settings *s) {
    return eagre_topic_alter(e, name, s->list, s->count);
}

static int delete (eagre_t *e, const char *name, const struct settings *s) {
    (void)s;
    return eagre_topic_delete(e, name);
}

int cmd_topic_create(struct cli *c, int argc, char **argv) {
    struct settings s = {.count = 0};
    parse(c, argc, argv, &s);
    return for_each(c, argc, argv, &s, create);
}

int cmd_topic_alter(struct cli *c, int argc, char **argv) {
    struct settings s = {.count = 0};
    parse(c, argc, argv, &s);
    if (s.count == 0)
        cli_usage(c, "nothing to change: give -c NAME=VALUE or -p N");
    return for_each(c, argc, argv, &s, alter);
}

int cmd_topic_delete(struct cli *c, int argc, char **argv) {
    parse(c, argc, argv, NULL);
    return for_each(c, argc, argv, NULL, delete);
}
