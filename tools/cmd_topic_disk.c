/* eagre topic trim, resume */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "eagre/admin.h"

#define OPTION_BEFORE 1

struct options {
    int32_t partition; /* -1: not given */
    int64_t before;    /* -1: end; -2: not given */
};

static const char *parse(struct cli *c, int argc, char **argv, bool trim, struct options *o) {
    static const struct option longs[] = {
        {"partition", required_argument, NULL, 'p'}, {"before", required_argument, NULL, OPTION_BEFORE}, CLI_COMMON_OPTIONS};
    *o = (struct options){-1, -2};
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hp:", longs)) != -1;) {
        if (opt == 'p')
            o->partition = (int32_t)cli_number(c, "-p", optarg, 0, INT32_MAX);
        else if (!trim)
            cli_usage(c, "it has no option --before");
        else
            o->before = strcmp(optarg, "end") == 0 ? -1 : cli_number(c, "--before (OFFSET or end)", optarg, 0, INT64_MAX);
    }
    if (optind == argc)
        cli_usage(c, "which topic?");
    if (optind + 1 < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind + 1]);
    return argv[optind];
}

int cmd_topic_trim(struct cli *c, int argc, char **argv) {
    struct options o;
    eagre_t *e;
    int64_t start = 0;
    const char *topic = parse(c, argc, argv, true, &o);
    if (o.partition < 0 || o.before < -1)
        cli_usage(c, "which partition (-p), and before which offset (--before OFFSET|end)?");
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = eagre_topic_trim(e, topic, o.partition, o.before, &start);
    if (rc != EAGRE_OK)
        code = cli_fail(c, rc);
    else
        printf("topic '%s' partition %" PRId32 ": begins at offset %" PRId64 "\n", topic, o.partition, start);
    eagre_close(e);
    return code;
}

static int resume(const struct cli *c, eagre_t *e, const char *topic, int32_t partition) {
    int rc = eagre_topic_resume(e, topic, partition);
    if (rc != EAGRE_OK)
        return cli_fail(c, rc);
    printf("topic '%s' partition %" PRId32 ": what is durable is read again, then it goes on\n", topic, partition);
    return CLI_OK;
}

int cmd_topic_resume(struct cli *c, int argc, char **argv) {
    struct options o;
    eagre_t *e;
    eagre_topic_info_t *info = NULL;
    const char *topic = parse(c, argc, argv, false, &o);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    if (o.partition >= 0) {
        code = resume(c, e, topic, o.partition);
    } else {
        int rc = eagre_topic_describe(e, topic, &info);
        size_t found = 0;
        for (size_t i = 0; rc == EAGRE_OK && i < info->partition_count; i++) {
            if (info->partitions[i].disk != 2)
                continue;
            int this = resume(c, e, topic, info->partitions[i].partition);
            code = code == CLI_OK ? this : code;
            found++;
        }
        if (rc != EAGRE_OK) {
            code = cli_fail(c, rc);
        } else if (found == 0) {
            cli_error(c, "topic '%s': no partition's disk is in error", topic);
            code = CLI_REFUSED;
        }
        eagre_topic_info_free(info);
    }
    eagre_close(e);
    return code;
}
