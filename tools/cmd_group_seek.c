/* eagre group seek */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "groups.h"
#include "places.h"
#include "table.h"
#include "times.h"

enum { OPTION_TOPIC = 1, OPTION_TO, OPTION_SHIFT, OPTION_FROM_FILE, OPTION_DRY_RUN, OPTION_EXPORT };

enum target { TO_NOTHING, TO_BEGINNING, TO_END, TO_CURRENT, TO_OFFSET, TO_TIME, TO_SHIFT, TO_FILE };

struct seek {
    struct cli *c;
    const char *group;
    enum target target;
    int64_t value;    /* the offset, time (ns) or shift */
    const char *file; /* --from-file */
    bool dry_run, export;
    struct places named; /* --topic, --from-file: as the user wrote them */
    /* state */
    eagre_t *e;
    eagre_consumer_t *consumer; /* for times */
    eagre_group_type_t type;
    eagre_group_offset_t *before;
    size_t before_count;
    struct places to; /* what becomes of it */
    struct out out;
};

/* ---- options ------------------------------------------------------------------------------------------- */

static void aim(struct seek *s, enum target target, const char *option) {
    if (s->target != TO_NOTHING)
        cli_usage(s->c, "%s: --to, --shift and --from-file are three ways to say where to: give one", option);
    s->target = target;
}

static void parse_to(struct seek *s, const char *text) {
    enum target target = strcmp(text, "beginning") == 0 || strcmp(text, "earliest") == 0 ? TO_BEGINNING
                         : strcmp(text, "end") == 0 || strcmp(text, "latest") == 0       ? TO_END
                         : strcmp(text, "current") == 0                                  ? TO_CURRENT
                         : text[0] == '@'                                                ? TO_TIME
                                                                                         : TO_OFFSET;
    aim(s, target, "--to");
    if (target == TO_TIME)
        s->value = cli_time(s->c, "--to", text);
    else if (target == TO_OFFSET)
        s->value = cli_number(s->c, "--to (beginning, end, current, OFFSET or @TIME)", text, 0, INT64_MAX);
}

static void parse(struct seek *s, int argc, char **argv) {
    static const struct option longs[] = {{"topic", required_argument, NULL, OPTION_TOPIC},
                                          {"to", required_argument, NULL, OPTION_TO},
                                          {"shift", required_argument, NULL, OPTION_SHIFT},
                                          {"from-file", required_argument, NULL, OPTION_FROM_FILE},
                                          {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
                                          {"export", no_argument, NULL, OPTION_EXPORT},
                                          CLI_FORMAT_OPTION,
                                          CLI_COMMON_OPTIONS};
    const char *wrong = NULL;
    for (int opt; (opt = cli_getopt(s->c, argc, argv, ":h", longs)) != -1;) {
        switch (opt) {
        case OPTION_TOPIC:
            if ((wrong = places_parse(&s->named, optarg)) != NULL)
                cli_usage(s->c, "--topic %s: %s", optarg, wrong);
            break;
        case OPTION_TO:
            parse_to(s, optarg);
            break;
        case OPTION_SHIFT:
            aim(s, TO_SHIFT, "--shift");
            s->value = cli_number(s->c, "--shift", optarg, -INT64_MAX, INT64_MAX);
            break;
        case OPTION_FROM_FILE:
            aim(s, TO_FILE, "--from-file");
            s->file = optarg;
            break;
        case OPTION_DRY_RUN:
            s->dry_run = true;
            break;
        default:
            s->export = true;
        }
    }
    if (optind == argc)
        cli_usage(s->c, "which group?");
    if (optind + 1 < argc)
        cli_usage(s->c, "'%s' is one argument too many", argv[optind + 1]);
    s->group = argv[optind];
    if (s->target == TO_NOTHING)
        cli_usage(s->c, "where to: --to beginning|end|current|OFFSET|@TIME, --shift N or --from-file FILE?");
    if (s->target == TO_FILE && s->named.count > 0)
        cli_usage(s->c, "--from-file says which topics: --topic does not go with it");
    if (s->export && s->c->json)
        cli_usage(s->c, "--export and --format json are two ways to print: give one");
}

static int read_file(struct seek *s) {
    bool standard = strcmp(s->file, "-") == 0;
    const char *path = standard ? "standard input" : s->file;
    FILE *f = standard ? stdin : fopen(s->file, "re");
    char *line = NULL;
    size_t cap = 0, number = 0;
    const char *wrong = NULL;
    while (f != NULL && wrong == NULL && getline(&line, &cap, f) >= 0) {
        line[strcspn(line, "\r\n")] = '\0';
        number++;
        wrong = places_parse_line(&s->named, line);
    }
    if (wrong != NULL)
        cli_error(s->c, "%s: line %zu: %s", path, number, wrong);
    else if (f == NULL || ferror(f))
        cli_error(s->c, "%s: %s", path, strerror(errno));
    else if (s->named.count == 0)
        cli_error(s->c, "%s: there is nothing in it", path);
    bool good = f != NULL && wrong == NULL && !ferror(f) && s->named.count > 0;
    free(line);
    if (f != NULL && !standard)
        fclose(f);
    return good ? CLI_OK : CLI_FAILED;
}

/* ---- where to ------------------------------------------------------------------------------------------ */

static int64_t committed(const struct seek *s, const char *topic, int32_t partition) {
    for (size_t i = 0; i < s->before_count; i++)
        if (s->before[i].partition == partition && strcmp(s->before[i].topic, topic) == 0)
            return s->before[i].committed;
    return -1;
}

static int offset_at_time(struct seek *s, const char *topic, int32_t partition, int64_t *offset) {
    int rc = EAGRE_OK;
    if (s->consumer == NULL)
        rc = eagre_consumer_open(s->e, NULL, &s->consumer);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_assign(s->consumer, topic, partition);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_seek_time(s->consumer, topic, partition, s->value);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_position(s->consumer, topic, partition, offset);
    return rc;
}

/* Into what the log has, as Kafka's tool does. */
static int64_t clamp(const struct seek *s, const char *topic, const eagre_partition_info_t *p, int64_t offset) {
    int64_t taken = offset < p->log_start_offset ? p->log_start_offset : offset > p->end_offset ? p->end_offset : offset;
    if (taken != offset)
        cli_error(s->c, "topic '%s' partition %" PRId32 ": offset %" PRId64 " is %s: set to %" PRId64, topic, p->partition, offset,
                  taken > offset ? "before the beginning" : "beyond the end", taken);
    return taken;
}

/* One partition; `written`: what the file says of it. */
static int place_one(struct seek *s, const char *topic, const eagre_partition_info_t *p, int64_t written) {
    int64_t now = committed(s, topic, p->partition), offset = 0;
    if ((s->target == TO_CURRENT || s->target == TO_SHIFT) && now < 0) {
        if (s->target == TO_CURRENT || s->named.count == 0)
            return CLI_OK; /* there is nothing to keep or to shift */
        cli_error(s->c, "topic '%s' partition %" PRId32 ": group '%s' has no committed offset to shift", topic, p->partition, s->group);
        return CLI_REFUSED;
    }
    switch (s->target) {
    case TO_BEGINNING:
        offset = p->log_start_offset;
        break;
    case TO_END:
        offset = p->end_offset;
        break;
    case TO_TIME: {
        int rc = offset_at_time(s, topic, p->partition, &offset);
        if (rc != EAGRE_OK)
            return cli_fail(s->c, rc);
        break;
    }
    case TO_CURRENT:
        offset = now;
        break;
    case TO_SHIFT:
        if (__builtin_add_overflow(now, s->value, &offset))
            offset = INT64_MAX;
        offset = clamp(s, topic, p, offset);
        break;
    default:
        offset = clamp(s, topic, p, s->target == TO_FILE ? written : s->value);
    }
    if (places_add(&s->to, topic, p->partition, offset))
        return CLI_OK;
    cli_error(s->c, "no memory");
    return CLI_FAILED;
}

/* What list[0 .. n-1] says of one topic. */
static int place_topic(struct seek *s, const struct place *list, size_t n) {
    eagre_topic_info_t *info;
    const char *topic = list[0].topic;
    int rc = eagre_topic_describe(s->e, topic, &info);
    if (rc != EAGRE_OK)
        return cli_fail(s->c, rc);
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < n; i++) {
        const struct place *p = &list[i];
        if (p->partition != PLACE_ALL && (size_t)p->partition >= info->partition_count) {
            cli_error(s->c, "topic '%s' has partitions 0 to %zu, not %" PRId32, topic, info->partition_count - 1, p->partition);
            code = CLI_NOT_FOUND;
            continue;
        }
        size_t first = p->partition == PLACE_ALL ? 0 : (size_t)p->partition;
        size_t end = p->partition == PLACE_ALL ? info->partition_count : first + 1;
        for (size_t k = first; code == CLI_OK && k < end; k++)
            code = place_one(s, topic, &info->partitions[k], p->offset);
    }
    eagre_topic_info_free(info);
    return code;
}

static int place_all(struct seek *s) {
    struct places known = {0};
    const struct places *from = &s->named;
    int code = CLI_OK;
    if (s->named.count == 0) {
        for (size_t i = 0; i < s->before_count && code == CLI_OK; i++)
            if (s->before[i].committed >= 0 && !places_add(&known, s->before[i].topic, PLACE_ALL, 0))
                code = CLI_FAILED;
        from = &known;
        if (code == CLI_FAILED)
            cli_error(s->c, "no memory");
    }
    places_settle(s->named.count == 0 ? &known : &s->named);
    for (size_t i = 0, n; i < from->count && code == CLI_OK; i += n) {
        for (n = 1; i + n < from->count && strcmp(from->list[i].topic, from->list[i + n].topic) == 0; n++)
            ;
        code = place_topic(s, &from->list[i], n);
    }
    places_free(&known);
    places_settle(&s->to);
    if (code == CLI_OK && s->to.count == 0) {
        cli_error(s->c, "group '%s' has no committed offsets%s", s->group,
                  s->named.count > 0 ? " there" : ": say which topics with --topic");
        code = CLI_REFUSED;
    }
    return code;
}

/* ---- the outcome --------------------------------------------------------------------------------------- */

static int put(struct seek *s) {
    eagre_topic_partition_t *list = calloc(s->to.count, sizeof(*list));
    if (list == NULL) {
        cli_error(s->c, "no memory");
        return CLI_FAILED;
    }
    for (size_t i = 0; i < s->to.count; i++)
        list[i] = (eagre_topic_partition_t){s->to.list[i].topic, s->to.list[i].partition, s->to.list[i].offset, NULL};
    int rc = eagre_group_put(s->e, s->group, s->type, list, s->to.count);
    free(list);
    return rc == EAGRE_OK ? CLI_OK : group_fail(s->c, s->e, s->group, rc);
}

static void print_json(struct seek *s) {
    struct out *o = &s->out;
    out_text(o, "[");
    for (size_t i = 0; i < s->to.count; i++) {
        const struct place *p = &s->to.list[i];
        int64_t before = committed(s, p->topic, p->partition);
        out_text(o, i == 0 ? "\n  {\"group\": " : ",\n  {\"group\": ");
        json_text(o, s->group);
        out_text(o, ", \"topic\": ");
        json_text(o, p->topic);
        out_printf(o, ", \"partition\": %" PRId32 ", \"new_offset\": %" PRId64 ", \"previous_offset\": ", p->partition, p->offset);
        if (before < 0)
            out_text(o, "null}");
        else
            out_printf(o, "%" PRId64 "}", before);
    }
    out_text(o, "\n]\n");
}

static int print(struct seek *s) {
    static const struct table_column columns[] = {{"GROUP", false}, {"TOPIC", false}, {"PARTITION", true}, {"NEW-OFFSET", true}};
    struct table t = TABLE(columns);
    out_init(&s->out, STDOUT_FILENO);
    for (size_t i = 0; i < s->to.count && !s->c->json; i++) {
        const struct place *p = &s->to.list[i];
        if (s->export) {
            out_printf(&s->out, "%s,%" PRId32 ",%" PRId64 "\n", p->topic, p->partition, p->offset);
            continue;
        }
        table_add(&t, "%s", s->group);
        table_add(&t, "%s", p->topic);
        table_add(&t, "%" PRId32, p->partition);
        table_add(&t, "%" PRId64, p->offset);
    }
    if (s->c->json)
        print_json(s);
    else if (!s->export)
        table_print(&t, &s->out);
    return out_end(&s->out);
}

/* The group as it is. One that is not there yet is made, if it is said for which topics. */
static int look(struct seek *s) {
    eagre_group_info_t *info;
    int rc = eagre_group_describe(s->e, s->group, &info);
    if (rc == EAGRE_E_UNKNOWN_GROUP && s->named.count > 0)
        return CLI_OK;
    if (rc != EAGRE_OK)
        return cli_fail(s->c, rc);
    bool active = info->state != EAGRE_GROUP_EMPTY;
    s->type = info->type;
    eagre_group_info_free(info);
    if (active)
        return group_is_active(s->c, s->e, s->group);
    rc = eagre_group_offsets(s->e, s->group, &s->before, &s->before_count);
    return rc == EAGRE_OK ? CLI_OK : cli_fail(s->c, rc);
}

int cmd_group_seek(struct cli *c, int argc, char **argv) {
    static struct seek s; /* large */
    s.c = c;
    parse(&s, argc, argv);
    int code = s.target == TO_FILE ? read_file(&s) : CLI_OK;
    if (code == CLI_OK)
        code = cli_open(c, &s.e);
    if (code == CLI_OK)
        code = look(&s);
    if (code == CLI_OK)
        code = place_all(&s);
    if (code == CLI_OK && !s.dry_run)
        code = put(&s);
    if (code == CLI_OK)
        code = print(&s);
    eagre_consumer_close(s.consumer);
    if (s.e != NULL)
        eagre_close(s.e);
    free(s.before);
    places_free(&s.named);
    places_free(&s.to);
    return code;
}
