/* eagre export, import */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lanes.h"
#include "portable.h"
#include "progress.h"
#include "send.h"
#include "sys/crc32c.h"

#define PARTITIONS_MAX 1024
#define BLOCK (1u << 20)
#define BODY_MAX (600u << 20) /* no topic has a record that large */
#define OPTION_ACKS 1

static bool is_standard(const char *path) { return strcmp(path, "-") == 0; }

/* TOPIC FILE */
static void two_arguments(const struct cli *c, int argc, char **argv) {
    if (argc - optind < 2)
        cli_usage(c, "give a topic and a file");
    if (argc - optind > 2)
        cli_usage(c, "'%s' is one argument too many", argv[optind + 2]);
}

/* ---- export ------------------------------------------------------------------------------------------- */

static int export_all(struct lanes *l, struct out *o, struct progress *progress) {
    uint64_t records = 0;
    portable_begin(o);
    for (size_t k = 0; k < l->count; k++) {
        struct lane *a = l->list[k];
        while (!a->done && o->error == 0) {
            int rc = lanes_read(a);
            for (size_t i = 0; i < a->count; i++)
                portable_record(o, &a->records[i]);
            records += a->count;
            progress_show(progress, records);
            if (rc != EAGRE_OK)
                return rc;
        }
    }
    portable_end(o, records);
    return EAGRE_OK;
}

int cmd_export(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {
        {"partition", required_argument, NULL, 'p'}, {"quiet", no_argument, NULL, 'q'}, CLI_COMMON_OPTIONS};
    static int32_t only[PARTITIONS_MAX];
    static struct out out;
    size_t only_count = 0;
    bool quiet = false;
    struct lanes lanes = {0};
    struct progress progress;
    eagre_t *e;
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hp:q", longs)) != -1;) {
        if (opt == 'q')
            quiet = true;
        else if (only_count == PARTITIONS_MAX)
            cli_usage(c, "more than %d partitions", PARTITIONS_MAX);
        else
            only[only_count++] = (int32_t)cli_number(c, "-p", optarg, 0, INT32_MAX);
    }
    two_arguments(c, argc, argv);
    const char *topic = argv[optind], *path = argv[optind + 1];
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = lanes_open(&lanes, e, topic, only, only_count, -1);
    int fd = -1;
    if (rc == EAGRE_OK) { /* only now: a topic that is not there makes no file */
        fd = is_standard(path) ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) {
            cli_error(c, "%s: %s", path, strerror(errno));
            code = CLI_FAILED;
        }
    }
    if (fd >= 0) {
        out_init(&out, fd);
        progress_begin(&progress, !quiet);
        rc = export_all(&lanes, &out, &progress);
        progress_end(&progress);
        code = out_end(&out);
        if (code == CLI_OK && !is_standard(path) && (fsync(fd) != 0 || close(fd) != 0)) {
            cli_error(c, "%s: %s", path, strerror(errno));
            code = CLI_FAILED;
        }
    }
    if (rc != EAGRE_OK)
        code = cli_fail(c, rc);
    lanes_close(&lanes);
    eagre_close(e);
    return code;
}

/* ---- import ------------------------------------------------------------------------------------------- */

struct import {
    const struct cli *c;
    const char *path;
    int fd;
    uint8_t *buf;
    size_t cap, at, end;
    uint64_t records; /* taken from the file */
    int32_t partitions;
    struct batch batch;
    struct progress progress;
};

static int bad(const struct import *r, const char *what) {
    cli_error(r->c, "%s: behind record %" PRIu64 ": %s", r->path, r->records, what);
    return EAGRE_E_CORRUPT;
}

/* What sending said. */
static int told(const struct import *r, int rc) {
    if (rc != EAGRE_OK)
        (void)cli_fail(r->c, rc);
    return rc;
}

/* n bytes at buf + at. What waits to be sent points into the buffer, and goes first if that moves. */
static int need(struct import *r, size_t n) {
    if (r->end - r->at >= n)
        return EAGRE_OK;
    int rc = told(r, batch_flush(&r->batch));
    if (rc != EAGRE_OK)
        return rc;
    if (r->end > r->at)
        memmove(r->buf, r->buf + r->at, r->end - r->at);
    r->end -= r->at;
    r->at = 0;
    if (n > r->cap) {
        size_t cap = n > BLOCK ? n : BLOCK;
        uint8_t *more = realloc(r->buf, cap);
        if (more == NULL) {
            cli_error(r->c, "%s: no memory for a record of %zu bytes", r->path, n);
            return EAGRE_E_NO_MEMORY;
        }
        r->buf = more;
        r->cap = cap;
    }
    while (r->end < n) {
        ssize_t got = read(r->fd, r->buf + r->end, r->cap - r->end);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            cli_error(r->c, "%s: %s", r->path, strerror(errno));
            return EAGRE_E_IO;
        }
        if (got == 0)
            return bad(r, "the file ends here, too soon");
        r->end += (size_t)got;
    }
    return EAGRE_OK;
}

static uint32_t u32_at(const uint8_t *from) {
    uint32_t n;
    memcpy(&n, from, sizeof(n));
    return n;
}

/* *ended: it was the end. */
static int import_one(struct import *r, bool *ended) {
    int rc = need(r, PORTABLE_HEAD + 8);
    if (rc != EAGRE_OK)
        return rc;
    uint32_t length = u32_at(r->buf + r->at), crc = u32_at(r->buf + r->at + 4);
    *ended = length == 0;
    if (length > BODY_MAX || (length != 0 && length < PORTABLE_FIXED))
        return bad(r, "a length is wrong");
    rc = need(r, PORTABLE_HEAD + (*ended ? 8 : length));
    if (rc != EAGRE_OK)
        return rc;
    const uint8_t *body = r->buf + r->at + PORTABLE_HEAD;
    if (eg_crc32c(0, body, *ended ? 8 : length) != crc)
        return bad(r, "a checksum does not match");
    if (*ended) {
        uint64_t records;
        memcpy(&records, body, sizeof(records));
        return records == r->records ? EAGRE_OK : bad(r, "records are missing");
    }
    size_t headers;
    eagre_message_t m;
    if (!portable_count(body, length, &headers))
        return bad(r, "a record's lengths contradict each other");
    rc = told(r, batch_room(&r->batch, headers));
    if (rc != EAGRE_OK)
        return rc;
    portable_message(body, &m, r->batch.headers + r->batch.header_used);
    if (m.partition >= r->partitions) {
        cli_error(r->c, "%s: a record of partition %" PRId32 ": the topic has %" PRId32, r->path, m.partition, r->partitions);
        return EAGRE_E_UNKNOWN_PARTITION;
    }
    batch_put(&r->batch, &m, headers);
    r->at += PORTABLE_HEAD + length;
    r->records++;
    return EAGRE_OK;
}

static int import_all(struct import *r) {
    bool ended = false;
    int rc = need(r, PORTABLE_MAGIC_BYTES);
    if (rc == EAGRE_OK && memcmp(r->buf, PORTABLE_MAGIC, PORTABLE_MAGIC_BYTES) != 0) {
        cli_error(r->c, "%s: is no file of `eagre export`", r->path);
        return EAGRE_E_CORRUPT;
    }
    r->at += rc == EAGRE_OK ? PORTABLE_MAGIC_BYTES : 0;
    while (rc == EAGRE_OK && !ended) {
        rc = import_one(r, &ended);
        progress_show(&r->progress, r->batch.to.sent);
    }
    /* What came before damage is sent, too: then it is known how far it went. */
    int flushed = told(r, batch_flush(&r->batch));
    return flushed != EAGRE_OK ? flushed : rc;
}

int cmd_import(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {
        {"acks", required_argument, NULL, OPTION_ACKS}, {"quiet", no_argument, NULL, 'q'}, CLI_COMMON_OPTIONS};
    static struct import r; /* large */
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *p = NULL;
    bool quiet = false;
    eagre_t *e;
    for (int opt; (opt = cli_getopt(c, argc, argv, ":hq", longs)) != -1;) {
        if (opt == 'q')
            quiet = true;
        else
            options.acks = send_acks(c, optarg);
    }
    two_arguments(c, argc, argv);
    r.c = c;
    r.path = is_standard(argv[optind + 1]) ? "standard input" : argv[optind + 1];
    r.fd = is_standard(argv[optind + 1]) ? STDIN_FILENO : open(argv[optind + 1], O_RDONLY | O_CLOEXEC);
    if (r.fd < 0) {
        cli_error(c, "%s: %s", r.path, strerror(errno));
        return CLI_FAILED;
    }
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    int rc = eagre_producer_open(e, argv[optind], &options, &p);
    if (rc != EAGRE_OK) {
        code = cli_fail(c, rc);
    } else {
        send_begin(&r.batch.to, p);
        r.partitions = eagre_producer_partitions(p);
        progress_begin(&r.progress, !quiet);
        rc = import_all(&r);
        progress_end(&r.progress);
        if (rc != EAGRE_OK) {
            cli_error(c, "stopped: %" PRIu64 " records were sent", r.batch.to.sent);
            code = cli_exit_code(rc);
        }
    }
    eagre_producer_close(p);
    eagre_close(e);
    batch_free(&r.batch);
    free(r.buf);
    return code;
}
