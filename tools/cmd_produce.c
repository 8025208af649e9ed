/* eagre produce */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "input.h"
#include "output.h"
#include "progress.h"
#include "send.h"

#define HEADERS_MAX 64
#define OPTION_ACKS 1

struct options {
    int32_t partition;
    const char *key;
    char *key_delimiter; /* NULL: none */
    size_t key_delimiter_len;
    char *delimiter;
    size_t delimiter_len;
    eagre_header_t headers[HEADERS_MAX];
    size_t header_count;
    bool empty_is_null;
    bool quiet;
    eagre_acks_t acks;
    uint64_t count; /* 0: no limit */
};

struct run {
    const struct cli *c;
    struct options o;
    struct sender to;
    struct input in;
    struct progress progress;
    const char *file;
    uint64_t line;  /* of file, the last one read */
    uint64_t taken; /* records made of lines, sent or in the batch */
    size_t batch_count;
    eagre_message_t batch[BATCH_MAX];
    uint64_t lines[BATCH_MAX];
};

/* ---- sending --------------------------------------------------------------------------------------- */

static void refused(const struct run *r, int rc) {
    size_t first = r->to.first, n = r->to.count;
    const char *detail = eagre_error_detail();
    char span[32] = "";
    if (n > 1)
        snprintf(span, sizeof(span), " to %" PRIu64, r->lines[first + n - 1]);
    cli_error(r->c, "%s: %" PRIu64 "%s: %s", r->file, r->lines[first], span,
              detail[0] != '\0' ? detail : eagre_status_text(rc));
}

static int flush(struct run *r) {
    int rc = send_messages(&r->to, r->batch, r->batch_count);
    if (rc != EAGRE_OK)
        refused(r, rc);
    r->batch_count = 0;
    progress_show(&r->progress, r->to.sent);
    return rc;
}

/* ---- lines to messages ------------------------------------------------------------------------------ */

static int take(struct run *r, char *line, size_t len) {
    const struct options *o = &r->o;
    eagre_message_t m = EAGRE_MESSAGE_INIT;

    r->line++;
    if (len == 0 && !o->empty_is_null)
        return EAGRE_OK;
    m.value = line;
    m.value_len = len;
    if (o->key_delimiter != NULL) {
        char *at = memmem(line, len, o->key_delimiter, o->key_delimiter_len);
        if (at != NULL) {
            m.key = line;
            m.key_len = (size_t)(at - line);
            m.value = at + o->key_delimiter_len;
            m.value_len = len - m.key_len - o->key_delimiter_len;
            if (m.key_len == 0 && o->empty_is_null)
                m.key = NULL;
        }
    }
    if (m.value_len == 0 && o->empty_is_null)
        m.value = NULL;
    if (m.key == NULL && o->key != NULL) {
        m.key = o->key;
        m.key_len = strlen(o->key);
    }
    if (o->header_count > 0) {
        m.headers = o->headers;
        m.header_count = o->header_count;
    }
    m.partition = o->partition;
    if (m.partition < 0 && m.key != NULL)
        m.partition = eagre_partition_for_key(m.key, m.key_len, eagre_producer_partitions(r->to.p));
    r->lines[r->batch_count] = r->line;
    r->batch[r->batch_count++] = m;
    r->taken++;
    return r->batch_count == BATCH_MAX ? flush(r) : EAGRE_OK;
}

static bool enough(const struct run *r) { return r->o.count > 0 && r->taken >= r->o.count; }

/* All of one file. What was read is sent before the next read, which may wait for a person. */
static int send_file(struct run *r, int fd) {
    input_begin(&r->in, fd, r->o.delimiter, r->o.delimiter_len);
    r->line = 0;
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK && !enough(r)) {
        char *line;
        size_t len;
        enum input_status s = input_next(&r->in, &line, &len);
        if (s == INPUT_PIECE) {
            rc = take(r, line, len);
            continue;
        }
        rc = flush(r);
        if (rc != EAGRE_OK || s == INPUT_END)
            break;
        if (input_read(&r->in) == INPUT_ERROR) {
            cli_error(r->c, "%s: %" PRIu64 ": %s", r->file, r->line + 1,
                      errno == EFBIG ? "the line is longer than any record may be"
                                     : strerror(errno));
            return EAGRE_E_IO;
        }
    }
    return rc == EAGRE_OK ? flush(r) : rc;
}

/* ---- the command ------------------------------------------------------------------------------------ */

static void add_header(const struct cli *c, struct options *o, const char *text) {
    const char *equals = strchr(text, '=');
    if (text[0] == '\0' || equals == text)
        cli_usage(c, "-H '%s': a header is NAME=VALUE or NAME", text);
    if (o->header_count == HEADERS_MAX)
        cli_usage(c, "more than %d headers", HEADERS_MAX);
    eagre_header_t h = {.name = text,
                        .name_len = equals == NULL ? strlen(text) : (size_t)(equals - text)};
    if (equals != NULL) {
        h.value = equals + 1;
        h.value_len = strlen(equals + 1);
    }
    o->headers[o->header_count++] = h;
}

static void parse(struct cli *c, int argc, char **argv, struct options *o) {
    static const struct option longs[] = {
        {"partition", required_argument, NULL, 'p'}, {"key", required_argument, NULL, 'k'},
        {"header", required_argument, NULL, 'H'},    {"count", required_argument, NULL, 'c'},
        {"quiet", no_argument, NULL, 'q'},           {"acks", required_argument, NULL, OPTION_ACKS},
        CLI_COMMON_OPTIONS};
    static char newline[] = "\n";
    *o = (struct options){
        .partition = EAGRE_PARTITION_ANY, .delimiter = newline, .delimiter_len = 1};
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hp:k:K:D:H:Zc:q", longs)) != -1;) {
        switch (opt) {
        case 'p':
            o->partition = (int32_t)cli_number(c, "-p", optarg, -1, INT32_MAX);
            break;
        case 'k':
            o->key = optarg;
            break;
        case 'K':
            o->key_delimiter = optarg;
            o->key_delimiter_len = unescape(optarg);
            break;
        case 'D':
            o->delimiter = optarg;
            o->delimiter_len = unescape(optarg);
            break;
        case 'H':
            add_header(c, o, optarg);
            break;
        case 'Z':
            o->empty_is_null = true;
            break;
        case 'c':
            o->count = (uint64_t)cli_number(c, "-c", optarg, 1, INT64_MAX);
            break;
        case OPTION_ACKS:
            o->acks = send_acks(c, optarg);
            break;
        default:
            o->quiet = true;
        }
    }
    if (o->delimiter_len == 0 || (o->key_delimiter != NULL && o->key_delimiter_len == 0))
        cli_usage(c, "a delimiter is not empty");
    if (optind == argc)
        cli_usage(c, "to which topic?");
}

static int send_named(struct run *r, const char *name) {
    if (strcmp(name, "-") == 0) {
        r->file = "standard input";
        return send_file(r, STDIN_FILENO);
    }
    r->file = name;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cli_error(r->c, "%s: %s", name, strerror(errno));
        return EAGRE_E_IO;
    }
    int rc = send_file(r, fd);
    close(fd);
    return rc;
}

int cmd_produce(struct cli *c, int argc, char **argv) {
    static struct run r; /* large */
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *p = NULL;
    eagre_t *e;

    r.c = c;
    parse(c, argc, argv, &r.o);
    const char *topic = argv[optind++];
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    options.acks = r.o.acks;
    int rc = eagre_producer_open(e, topic, &options, &p);
    send_begin(&r.to, p);
    if (rc == EAGRE_OK && r.o.partition >= eagre_producer_partitions(p)) {
        cli_error(c, "topic '%s' has no partition %" PRId32 ": it has %" PRId32 ", from 0", topic,
                  r.o.partition, eagre_producer_partitions(p));
        code = CLI_NOT_FOUND;
    } else if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
    } else {
        progress_begin(&r.progress, !r.o.quiet && !isatty(STDIN_FILENO));
        if (optind == argc)
            rc = send_named(&r, "-");
        for (int i = optind; i < argc && rc == EAGRE_OK && !enough(&r); i++)
            rc = send_named(&r, argv[i]);
        progress_end(&r.progress);
        if (rc != EAGRE_OK) {
            cli_error(c, "stopped: %" PRIu64 " records were sent", r.to.sent);
            code = cli_exit_code(rc);
        }
    }
    eagre_producer_close(p);
    eagre_close(e);
    input_free(&r.in);
    return code;
}
