/*
 * Reading log files from the beginning, against cat of the same files. Only records that the ring has let go of are
 * read: what is left in it does not count for either.
 */
#include "stream.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUE_MAX 65536
#define BATCH 256
#define FILL_BATCH 64

struct replay {
    bool bus, check_crcs;
};

/* What all variants read. */
static struct {
    const char *socket;
    char topic[64];
    uint64_t size, files, per_file; /* records that surely are in a file */
    glob_t paths;
} log_files;

struct filling {
    const char *socket, *topic;
    uint64_t size, bytes;
};

static int fill(struct eb_worker *w) {
    const struct filling *f = w->arg;
    static uint8_t value[VALUE_MAX];
    eagre_message_t m[FILL_BATCH];
    eagre_t *e;
    eagre_producer_t *p;
    int r = eagre_open(f->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, f->topic, NULL, &p);
    for (int i = 0; i < FILL_BATCH; i++)
        m[i] = (eagre_message_t){.value = value, .value_len = f->size};
    for (uint64_t done = 0; r == EAGRE_OK && done < f->bytes;
         done += FILL_BATCH * eb_stream_frame(f->size))
        r = eagre_produce_batch(p, 0, m, FILL_BATCH, NULL);
    if (r == EAGRE_OK)
        r = eagre_producer_flush(p, 60000);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "filling the topic", r);
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

static int cat(struct eb_worker *w) {
    char **argv = calloc(log_files.files + 2, sizeof *argv);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (!argv || null < 0 || dup2(null, 1) < 0)
        return eb_fail(w, "/dev/null cannot be opened");
    argv[0] = (char[]){"cat"};
    for (uint64_t i = 0; i < log_files.files; i++)
        argv[i + 1] = log_files.paths.gl_pathv[i];
    execvp("cat", argv);
    return eb_fail(w, "cat cannot be run");
}

static int consume(struct eb_worker *w) {
    const struct replay *s = w->arg;
    static eagre_record_t rec[BATCH];
    eagre_t *e;
    eagre_consumer_t *c;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.check_crcs = s->check_crcs;
    int r = eagre_open(log_files.socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, &o, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, log_files.topic, 0);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the consumer", r);
    for (uint64_t at = 0, total = log_files.files * log_files.per_file; at < total;) {
        size_t n;
        r = eagre_consumer_poll(c, rec, BATCH, 1000, &n);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_poll", r);
        for (size_t i = 0; i < n; i++, at++) {
            if ((uint64_t)rec[i].offset != at)
                return eb_fail(w, "record %llu is missing", (unsigned long long)at);
            EB_USE(*(const volatile uint8_t *)rec[i].value);
        }
    }
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

/* Both are timed from here, with their start. */
static int run(struct eb_bench *b, const void *arg, double *out) {
    const struct replay *s = arg;
    struct eb_area *a = eb_area_create(1);
    int64_t began = eb_now_ns();
    int r = a ? eb_worker_start(a, 0, s->bus ? consume : cat, s, b->opt.cpu[0]) : -1;
    if (r == 0)
        r = eb_workers_wait(a, 120000);
    double ns = (double)(eb_now_ns() - began), bytes = 0;
    for (uint64_t i = 0; i < log_files.files; i++) {
        struct stat st;
        if (!s->bus && stat(log_files.paths.gl_pathv[i], &st) == 0)
            bytes += (double)st.st_size;
    }
    if (s->bus)
        bytes = (double)(log_files.files * log_files.per_file * eb_stream_frame(log_files.size));
    out[0] = bytes / ns;
    out[1] = out[0] / (double)eb_stream_frame(log_files.size) * 1e3;
    eb_area_free(a);
    eb_bus_settle(b);
    return r;
}

static int prepare(struct eb_bench *b, const struct eb_ring *ring) {
    static const eagre_setting_t disk[] = {{"storage", "disk"}, {NULL, NULL}};
    if (eb_topic_create(b, ring, disk, log_files.topic) != 0)
        return -1;
    log_files.socket = b->bus->socket;
    struct filling f = {log_files.socket, log_files.topic, log_files.size,
                        b->opt.data + (ring->segments + 1) * ring->segment_bytes};
    struct eb_area *a = eb_area_create(1);
    int r = a ? eb_worker_start(a, 0, fill, &f, -1) : -1;
    if (r == 0)
        r = eb_workers_wait(a, 120000);
    eb_area_free(a);
    eb_bus_settle(b);
    char pattern[200];
    snprintf(pattern, sizeof pattern, "%s/data/log/t*[0-9]/0/*[0-9].log", b->bus->dir);
    if (r == 0 && (glob(pattern, 0, NULL, &log_files.paths) != 0 ||
                   log_files.paths.gl_pathc < log_files.files)) {
        fprintf(stderr, "eagre-bench: fewer than %llu files are %s\n",
                (unsigned long long)log_files.files, pattern);
        r = -1;
    }
    return r;
}

int eb_replay(struct eb_bench *b) {
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){64u << 20, 3};
    char text[160];
    if (!eb_bus(b))
        return -1;
    if (!b->bus->own) {
        fprintf(stderr, "eagre-bench: replay needs a private daemon: it reads its files\n");
        return -1;
    }
    log_files.size = b->opt.size == 0 ? 1024 : b->opt.size > VALUE_MAX ? VALUE_MAX : b->opt.size;
    log_files.files = b->opt.data / ring.segment_bytes + (b->opt.data < ring.segment_bytes);
    log_files.per_file = ring.segment_bytes / eb_stream_frame(log_files.size) - FILL_BATCH - 8;
    snprintf(text, sizeof text, "%llu log files of %llu KiB in the page cache, %llu-byte values",
             (unsigned long long)log_files.files, (unsigned long long)(ring.segment_bytes >> 10),
             (unsigned long long)log_files.size);
    struct eb_comparison c = {
        "replay",
        text,
        {{"read", "GB/s", 2}, {"records", "M/s", 2}},
        {{"cat to /dev/null", run, &(const struct replay){0}, -1, {{0}}},
         {"consumer",
          run,
          &(const struct replay){.bus = true, .check_crcs = true},
          0,
          {{'>', false, 0, 0.7}}},
         {"consumer, check.crcs off", run, &(const struct replay){.bus = true}, 0, {{0}}}},
        0};
    int r = prepare(b, &ring);
    if (r == 0)
        r = eb_compare(b, &c);
    if (log_files.topic[0])
        eb_topic_delete(b, log_files.topic);
    globfree(&log_files.paths);
    memset(&log_files, 0, sizeof log_files);
    return r;
}
