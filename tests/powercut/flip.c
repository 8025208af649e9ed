/*
 * flip.c - a real daemon's small log, stopped cleanly or killed with its keeper; then one byte of one file is another, or a
 * file is missing, cut, zeroed, random. A cold start has one of these outcomes, and which one follows from the place:
 *
 *   good     nothing is read from there, or nothing that matters: all as before
 *   damaged  the records before the place and those of all other files are there; the place is reported; the file stays as it is
 *   cut      it was the tail of a log that was not closed, and beyond what is known to be on disk
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "daemon.h"
#include "eagre/admin.h"
#include "eagre/producer.h"
#include "log/logfile.h"
#include "meta.h"
#include "powercut/powercut.h"
#include "recover.h"
#include "sys/errbuf.h"
#include "sys/rand.h"
#include "topics.h"

#define SEGMENT (64u << 10)
#define FILES 3
#define FRAMES_MAX 256

struct frame {
    uint64_t pos, length;
    int64_t offset;
    uint32_t hash, flush;
    bool record, end;
};

static struct eg_test_bus bus;
static struct eg_daemon d; /* large */
static struct eg_log_dir dir;
static struct baseline {
    uint64_t seq;
    uint8_t bytes[SEGMENT];
    size_t size;
    struct frame frame[FRAMES_MAX];
    size_t frames, records;
    int64_t base, end;
} file[FILES];
static bool unclean;
static uint64_t mark; /* of the last file: what was noted to be durable of it */
static struct outcomes { unsigned long good, damaged, cut; } outcomes;

/* ---- the log ------------------------------------------------------------------------------------------------ */

static void must(int rc, const char *what) {
    if (rc != EAGRE_OK)
        fail_msg("%s: %s", what, eagre_error_detail());
}

/* 2 segments and some, in many flushes. */
static void make(bool kill_it) {
    const eagre_setting_t settings[] = {
        {"segment.bytes", "64K"}, {"storage", "disk"}, {"flush.ms", "1"}};
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    static uint8_t value[8000];
    eagre_t *e;
    eagre_producer_t *p;
    uint64_t random = 7;
    unclean = kill_it;
    eg_bus_init(&bus);
    eg_bus_start(&bus, "--disk.min.free.bytes=0", NULL);
    o.acks = EAGRE_ACKS_DISK;
    must(eagre_open(bus.socket, &e), "open");
    must(eagre_topic_create(e, "t", settings, 3), "create");
    must(eagre_producer_open(e, "t", &o, &p), "producer");
    for (int i = 0; i < 52; i++) {
        size_t n = i % 3 == 0 ? 6000 : i % 3 == 1 ? 17 : 3000;
        for (size_t at = 0; at < n; at++)
            value[at] = (uint8_t)eg_rand_next(&random);
        eagre_message_t m[3] = {{.value = value, .value_len = n},
                                {.value = value, .value_len = 9},
                                {.value = value, .value_len = 40}};
        if (i % 5 == 4)
            must(eagre_produce_batch(p, 0, m, 3, NULL), "batch"); /* a flush of several frames */
        else
            must(eagre_produce(p, m, NULL, NULL), "produce");
    }
    eagre_producer_close(p);
    eagre_close(e);
    if (!kill_it) {
        assert_int_equal(eg_bus_stop(&bus), 0);
        return;
    }
    pid_t keeper = eg_bus_keeper(&bus);
    eg_bus_kill(&bus);
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
}

static const char *path_of(uint64_t seq, const char *suffix) {
    static char path[EG_FILES_PATH + 64];
    snprintf(path, sizeof(path), "%s/%020" PRIu64 "%s", dir.path, seq, suffix);
    return path;
}

static size_t load(const char *path, uint8_t *bytes, size_t most) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, bytes, most, 0) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0 ? (size_t)n : 0;
}

static void store(const char *path, const uint8_t *bytes, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n)
        fail_msg("%s cannot be written", path);
    close(fd);
}

static uint32_t hash_of(const struct eg_frame_view *v) {
    return eg_crc32c(eg_crc32c((uint32_t)v->timestamp_ns, v->key, v->key_length), v->value,
                     v->value_length);
}

static int find(void *ctx, const struct eg_meta_topic *t) {
    *(struct eg_meta_topic *)ctx = *t;
    return EAGRE_OK;
}

static void read_baseline(void) {
    struct eg_meta_topic t;
    struct eg_meta_disk noted;
    memset(&d, 0, sizeof(d));
    d.fresh = true;
    snprintf(d.config.dir, sizeof(d.config.dir), "%s", bus.data);
    assert_int_equal(eg_meta_open(d.config.dir, &d.meta), EAGRE_OK);
    assert_int_equal(eg_meta_topics(d.meta, find, &t), EAGRE_OK);
    eg_log_dir_init(&dir, d.config.dir, t.uid, 0, eg_topic_partition_uid(&t, 0), 64, SEGMENT, 0);
    assert_int_equal(eg_meta_disk_get(d.meta, dir.partition_uid, &noted), EAGRE_OK);
    for (uint64_t i = 0; i < FILES; i++) {
        struct baseline *f = &file[i];
        struct eg_logfile_id id;
        struct eg_logfile l;
        struct eg_logfile_iter it;
        memset(f, 0, sizeof(*f));
        f->seq = i;
        f->size = load(path_of(i, ".log"), f->bytes, sizeof(f->bytes));
        assert_int_equal(eg_logfile_header_check(f->bytes, f->size, NULL, &id, NULL), EAGRE_OK);
        eg_logfile_init(&l, &id, f->bytes, f->size);
        eg_logfile_iter_init(&it, &l, EG_SEGMENT_DATA, 0);
        for (enum eg_logfile_step step; (step = eg_logfile_next(&it)) <= EG_STEP_END;) {
            f->frame[f->frames++] =
                (struct frame){.pos = it.frame.pos,
                               .length = step == EG_STEP_END ? EG_FRAME_HEADER : it.frame.length,
                               .offset = id.base + it.frame.index,
                               .hash = step == EG_STEP_RECORD ? hash_of(&it.frame.view) : 0,
                               .flush = it.frame.flush,
                               .record = step == EG_STEP_RECORD,
                               .end = step == EG_STEP_END};
            f->records += step == EG_STEP_RECORD;
            if (step == EG_STEP_END)
                break;
        }
        f->base = id.base;
        f->end = id.base + (int64_t)it.index;
    }
    mark = noted.seq == FILES - 1 ? noted.pos : 0;
}

static void put_back(void) {
    for (uint64_t i = 0; i < FILES; i++)
        store(path_of(i, ".log"), file[i].bytes, file[i].size);
}

/* ---- one damage --------------------------------------------------------------------------------------------- */

struct found {
    bool damaged, bad; /* the file; a place in it */
    size_t records;    /* good ones before that */
    bool listed;
};

/* All that can be read of a file is as it was. */
static void read_file(const struct eg_log_file *f, const struct baseline *b, struct found *out,
                      const char *what) {
    static uint8_t bytes[SEGMENT];
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logfile_iter it;
    *out = (struct found){.listed = true, .damaged = f->damaged};
    if (f->damaged)
        return;
    size_t n = load(path_of(f->seq, ".log"), bytes, sizeof(bytes));
    assert_int_equal(eg_logfile_header_check(bytes, n, NULL, &id, NULL), EAGRE_OK);
    assert_int_equal(id.base, b->base);
    eg_logfile_init(&l, &id, bytes, n);
    eg_logfile_iter_init(&it, &l, EG_SEGMENT_DATA, 0);
    enum eg_logfile_step step;
    size_t k = 0;
    while ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD) {
        if (step == EG_STEP_PAD)
            continue;
        while (k < b->frames && !b->frame[k].record)
            k++;
        if (k == b->frames || b->frame[k].offset != id.base + it.frame.index ||
            b->frame[k].hash != hash_of(&it.frame.view))
            fail_msg("%s: segment %" PRIu64 ": a record at offset %" PRId64 " that was not there",
                     what, f->seq, id.base + it.frame.index);
        k++;
        out->records++;
    }
    out->bad = step != EG_STEP_END || out->records < b->records;
}

/* The last flush, or the last frame of the one before: what is bad there may never have been finished. */
static bool may_be_torn(const struct baseline *b, size_t at) {
    size_t k = 0;
    while (k < b->frames && b->frame[k].pos + b->frame[k].length <= at)
        k++;
    uint32_t last = b->frames > 0 ? b->frame[b->frames - 1].flush : 0;
    return k >= b->frames || b->frame[k].flush == last || b->frame[k + 1].flush == last;
}

/* seq, at: what is damaged; at behind the file: nothing is. flipped: only that. */
static void check(uint64_t seq, size_t at, bool flipped, const uint8_t *damaged, size_t size,
                  const char *what) {
    static uint8_t after[SEGMENT];
    struct eg_recovered r;
    struct found f[FILES] = {{0}};
    lines = (struct lines){0};
    int rc = eg_recover_all(&d);
    if (rc == EAGRE_OK)
        rc = eg_recover_take(&d, dir.partition_uid, true, &r);
    eg_recover_free(&d);
    if (rc != EAGRE_OK)
        fail_msg("%s: %s", what, eg_error_text());
    for (size_t i = 0; i < r.files.count; i++) {
        const struct eg_log_file *x = eg_files_at(&r.files, i);
        if (x->seq >= FILES)
            fail_msg("%s: segment %" PRIu64 " is invented", what, x->seq);
        read_file(x, &file[x->seq], &f[x->seq], what);
    }
    for (uint64_t i = 0; i < FILES; i++)
        if (i != seq &&
            (!f[i].listed || f[i].bad || f[i].damaged || f[i].records != file[i].records))
            fail_msg("%s: it is segment %" PRIu64 " that has %zu records, not %zu", what, i,
                     f[i].records, file[i].records);
    const struct baseline *b = &file[seq];
    if (f[seq].listed && !f[seq].bad && !f[seq].damaged) {
        outcomes.good++;
    } else {
        /* What is before the place is there. */
        size_t before = 0;
        for (size_t k = 0; k < b->frames; k++)
            before += b->frame[k].record && b->frame[k].pos + b->frame[k].length <= at;
        if (!f[seq].damaged && f[seq].listed && f[seq].records < before)
            fail_msg("%s: %zu records of %zu before it", what, f[seq].records, before);
        size_t n = load(path_of(seq, ".log"), after, sizeof(after));
        bool same = n == size && memcmp(after, damaged, size) == 0;
        if (same) {
            outcomes.damaged++;
            /* Not listed: an empty file that nothing was known of was removed, as one that was just made. */
            bool told = lines.errors > 0 || (!f[seq].listed && lines.warnings > 0);
            if (!told && (f[seq].damaged || !f[seq].listed || seq == FILES - 1))
                fail_msg("%s: not a word of it", what);
        } else {
            outcomes.cut++;
            if (!unclean || seq != FILES - 1 || at < mark || (flipped && !may_be_torn(b, at)))
                fail_msg("%s: it was cut (to %zu bytes), although it was known to be on disk", what,
                         n);
        }
    }
    eg_files_free(&r.files);
    put_back();
}

static void flip(uint64_t seq, unsigned stride) {
    static uint8_t bytes[SEGMENT];
    struct baseline *b = &file[seq];
    for (size_t at = 0, k = 0; at < b->size; at++) {
        while (k < b->frames && b->frame[k].pos + b->frame[k].length <= at)
            k++;
        bool frame = k < b->frames && at >= b->frame[k].pos;
        bool dense = at < 128 || (frame && at < b->frame[k].pos + EG_FRAME_HEADER + 16);
        if (!dense && at % stride != 0)
            continue;
        static const uint8_t masks[] = {0x01, 0x80, 0xff};
        for (size_t m = 0; m < 3; m++) {
            char what[100];
            if (stride > 1 && m != at % 3)
                continue;
            memcpy(bytes, b->bytes, b->size);
            bytes[at] ^= masks[m];
            snprintf(what, sizeof(what), "%s, segment %" PRIu64 ", byte %zu ^ %02x",
                     unclean ? "killed" : "stopped", seq, at, masks[m]);
            store(path_of(seq, ".log"), bytes, b->size);
            check(seq, at, true, bytes, b->size, what);
        }
    }
}

/* An index that is wrong costs nothing but time. Its readers check what it says: tests/unit/log/test_logindex.c. */
static void flip_index(uint64_t seq) {
    uint8_t bytes[4096], changed[4096];
    size_t n = load(path_of(seq, ".idx"), bytes, sizeof(bytes));
    for (size_t at = 0; at <= n; at++) {
        char what[100];
        memcpy(changed, bytes, n);
        if (at < n)
            changed[at] ^= 0xff;
        snprintf(what, sizeof(what), "index of segment %" PRIu64 ", byte %zu", seq, at);
        store(path_of(seq, ".idx"), changed, at < n ? n : n / 2);
        unsigned long good = outcomes.good;
        check(seq, SEGMENT, true, file[seq].bytes, file[seq].size, what);
        assert_int_equal(outcomes.good, good + 1);
    }
    unlink(path_of(seq, ".idx"));
    check(seq, SEGMENT, true, file[seq].bytes, file[seq].size, "no index");
    if (n > 0)
        store(path_of(seq, ".idx"), bytes, n);
}

/* Whole files: cut at page ends and within, zeros, random bytes, nothing. */
static void whole(uint64_t seq) {
    static uint8_t bytes[SEGMENT];
    struct baseline *b = &file[seq];
    char what[100];
    for (size_t size = 0; size < b->size; size += size < EG_SEGMENT_DATA ? 1365 : 1021) {
        snprintf(what, sizeof(what), "segment %" PRIu64 " cut to %zu bytes", seq, size);
        store(path_of(seq, ".log"), b->bytes, size);
        check(seq, size, false, b->bytes, size, what);
    }
    for (int kind = 0; kind < 2; kind++)
        for (size_t from = 0; from < b->size; from += 16384) {
            uint64_t random = from + seq;
            memcpy(bytes, b->bytes, b->size);
            for (size_t at = from; at < b->size; at++)
                bytes[at] = kind == 0 ? 0 : (uint8_t)eg_rand_next(&random);
            snprintf(what, sizeof(what), "segment %" PRIu64 " %s from byte %zu", seq,
                     kind == 0 ? "zeroed" : "random", from);
            store(path_of(seq, ".log"), bytes, b->size);
            check(seq, from, false, bytes, b->size, what);
        }
}

void flip_all(unsigned stride) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        make(kill_it);
        read_baseline();
        outcomes = (struct outcomes){0};
        for (uint64_t seq = 0; seq < FILES; seq++) {
            flip(seq, stride);
            flip_index(seq);
            whole(seq);
        }
        printf("%s: good as before %lu, reported %lu, cut %lu\n", kill_it ? "killed" : "stopped",
               outcomes.good, outcomes.damaged, outcomes.cut);
        eg_meta_close(d.meta);
        eg_bus_remove(&bus);
    }
}
