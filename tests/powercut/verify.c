#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "daemon.h"
#include "log/logfile.h"
#include "meta.h"
#include "powercut/powercut.h"
#include "recover.h"
#include "settings.h"
#include "sys/errbuf.h"
#include "topics.h"

/* ---- what was told ------------------------------------------------------------------------------------------ */

struct starts {
    uint64_t position;
    int64_t offset;
};

struct told {
    struct told_partition {
        uint64_t tried, cap;
        int64_t *offset; /* by number; -1: never told */
        bool *sent;      /* so far */
        uint8_t *seen;
        int64_t durable, trimmed, sent_end;
        struct starts *starts;
        size_t starts_count, starts_next;
    } partition[PARTITIONS];
    /* of the comparison */
    uint32_t now;
    uint64_t next;
    int64_t offset;
};

static void room(struct told_partition *p, uint64_t number) {
    if (number < p->cap)
        return;
    uint64_t cap = 2 * number + 64;
    p->offset = realloc(p->offset, cap * sizeof(*p->offset));
    p->sent = realloc(p->sent, cap * sizeof(*p->sent));
    p->seen = realloc(p->seen, cap);
    if (p->offset == NULL || p->sent == NULL || p->seen == NULL)
        abort();
    for (uint64_t i = p->cap; i < cap; i++) {
        p->offset[i] = -1;
        p->sent[i] = false;
    }
    p->cap = cap;
}

struct told *told_new(struct record_log *log) {
    struct told *t = calloc(1, sizeof(*t));
    if (t == NULL)
        abort();
    for (uint64_t at = RECORD_FIRST; at < atomic_load(&log->used);) {
        const struct record *r = record_at(log, at);
        struct told_partition *p = &t->partition[r->inode % PARTITIONS];
        if (r->op == RECORD_SENT) {
            room(p, r->at);
            p->offset[r->at] = (int64_t)r->begin;
        } else if (r->op == RECORD_STARTS) {
            p->starts = realloc(p->starts, (p->starts_count + 1) * sizeof(*p->starts));
            if (p->starts == NULL)
                abort();
            p->starts[p->starts_count++] = (struct starts){at, (int64_t)r->begin};
        }
        at += r->size;
    }
    return t;
}

void told_free(struct told *t) {
    for (uint32_t k = 0; k < PARTITIONS; k++) {
        free(t->partition[k].offset);
        free(t->partition[k].sent);
        free(t->partition[k].seen);
        free(t->partition[k].starts);
    }
    free(t);
}

void told_step(struct told *t, const struct record *r, uint64_t position) {
    struct told_partition *p = &t->partition[r->inode % PARTITIONS];
    int64_t offset = (int64_t)r->begin;
    switch (r->op) {
    case RECORD_TRY:
        room(p, r->at);
        p->tried = r->at + 1;
        break;
    case RECORD_SENT:
        p->sent[r->at] = true;
        p->sent_end = offset + 1;
        break;
    case RECORD_DURABLE:
        offset = offset == INT64_MAX ? p->sent_end : offset; /* a clean stop: all of it */
        p->durable = offset > p->durable ? offset : p->durable;
        break;
    case RECORD_LOST:
        for (uint64_t n = 0; n < p->tried; n++)
            p->sent[n] &= p->offset[n] < p->durable;
        break;
    case RECORD_TRIMMED:
        p->trimmed = offset > p->trimmed ? offset : p->trimmed;
        break;
    default:
        break;
    }
    for (uint32_t k = 0; k < PARTITIONS; k++) {
        p = &t->partition[k];
        while (p->starts_next < p->starts_count && p->starts[p->starts_next].position < position)
            p->starts_next++;
    }
}

int64_t told_sent_end(const struct told *t, uint32_t partition) {
    return t->partition[partition].sent_end;
}

void told_begin(struct told *t, uint32_t partition) {
    struct told_partition *p = &t->partition[partition];
    if (p->cap > 0)
        memset(p->seen, 0, p->cap);
    t->now = partition;
    t->next = 0;
    t->offset = 0;
}

bool told_record(struct told *t, int64_t offset, const void *value, size_t length, char *why,
                 size_t cap) {
    static uint8_t expected[VALUE_MAX];
    struct told_partition *p = &t->partition[t->now];
    uint64_t number = UINT64_MAX;
    if (length >= 16)
        memcpy(&number, value, 8);
    if (number >= p->tried)
        return snprintf(why, cap, "offset %" PRId64 ": a record that was not produced", offset) < 0;
    if (length != work_value(number, t->now, expected) || memcmp(value, expected, length) != 0)
        return snprintf(why, cap, "offset %" PRId64 ": record %" PRIu64 " is changed", offset,
                        number) < 0;
    if (number < t->next || offset < t->offset)
        return snprintf(why, cap, "offset %" PRId64 ": record %" PRIu64 " after record %" PRIu64,
                        offset, number, t->next - 1) < 0;
    if (p->offset[number] >= 0 && p->offset[number] != offset)
        return snprintf(why, cap, "record %" PRIu64 " has offset %" PRId64 ", told was %" PRId64,
                        number, offset, p->offset[number]) < 0;
    t->next = number + 1;
    t->offset = offset + 1;
    p->seen[number] = 1;
    return true;
}

bool told_end(struct told *t, int64_t log_start, int64_t end, int64_t goes_on_at, char *why,
              size_t cap) {
    struct told_partition *p = &t->partition[t->now];
    int64_t most = p->starts_next < p->starts_count ? p->starts[p->starts_next].offset
                                                    : log_start; /* told later */
    int64_t from = log_start < most ? log_start : most;
    for (uint64_t n = 0; n < p->tried; n++)
        if (p->sent[n] && p->offset[n] < p->durable && p->offset[n] >= from && !p->seen[n])
            return snprintf(why, cap,
                            "record %" PRIu64 ", offset %" PRId64
                            " is lost: it was durable (up to %" PRId64 ")",
                            n, p->offset[n], p->durable) < 0;
    if (log_start < p->trimmed)
        return snprintf(why, cap, "the log begins at %" PRId64 ", it was trimmed up to %" PRId64,
                        log_start, p->trimmed) < 0;
    if (end > goes_on_at || goes_on_at < p->sent_end)
        return snprintf(why, cap,
                        "it goes on at %" PRId64 ", recovered up to %" PRId64
                        ", given out up to %" PRId64,
                        goes_on_at, end, p->sent_end) < 0;
    return true;
}

/* ---- recovery ------------------------------------------------------------------------------------------------ */

static int is_t(void *ctx, const struct eg_meta_topic *t) {
    if (strcmp(t->name, "t") == 0)
        *(struct eg_meta_topic *)ctx = *t;
    return EAGRE_OK;
}

/* All of a file from an offset on. */
static bool read_one(const struct eg_log_dir *dir, const struct eg_log_file *f, int64_t from,
                     struct told *t, uint64_t *records, uint64_t *hash, char *why, size_t cap) {
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logfile_iter it;
    enum eg_logfile_step step;
    struct stat st;
    int fd;
    if (f->damaged || eg_log_dir_open(dir, f->seq, false, &fd) != EAGRE_OK)
        return snprintf(why, cap, "segment %" PRIu64 " is damaged or cannot be read", f->seq) < 0;
    fstat(fd, &st);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return snprintf(why, cap, "segment %" PRIu64 " cannot be mapped", f->seq) < 0;
    bool good = eg_logfile_header_check(map, (uint64_t)st.st_size, NULL, &id, NULL) == EAGRE_OK &&
                id.base == f->base;
    if (!good)
        snprintf(why, cap, "segment %" PRIu64 ": its header, or its base", f->seq);
    else
        eg_logfile_init(&l, &id, map, (uint64_t)st.st_size);
    if (good)
        eg_logfile_iter_init(&it, &l, EG_SEGMENT_DATA, 0);
    while (good && ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD)) {
        const struct eg_frame_view *v = &it.frame.view;
        int64_t offset = id.base + it.frame.index;
        if (step == EG_STEP_PAD || offset < from)
            continue;
        good = told_record(t, offset, v->value, v->value_length, why, cap);
        ++*records;
        *hash = (*hash ^ (uint64_t)offset) * UINT64_C(0x100000001b3);
    }
    if (good && (step != EG_STEP_END || id.base + (int64_t)it.index > f->end))
        good = snprintf(why, cap,
                        "segment %" PRIu64 " ends at offset %" PRId64 " and byte %" PRIu64
                        " (%s), expected %" PRId64,
                        f->seq, id.base + (int64_t)it.index, it.pos,
                        it.reason != NULL ? it.reason : "", f->end) < 0;
    munmap(map, (size_t)st.st_size);
    return good;
}

static bool read_all(struct eg_daemon *d, const struct eg_meta_topic *meta, uint32_t k,
                     struct told *t, struct recovered *out, char *why, size_t cap) {
    struct eg_recovered r;
    struct eg_meta_mark mark;
    struct eg_log_dir dir;
    struct eg_settings s;
    uint32_t uid = eg_topic_partition_uid(meta, k);
    eg_settings_init(&s);
    if (eg_settings_load(&s, meta->name, meta->settings) != EAGRE_OK ||
        eg_meta_mark_get(d->meta, uid, &mark) != EAGRE_OK ||
        eg_recover_take(d, uid, true, &r) != EAGRE_OK)
        return snprintf(why, cap, "%s", eg_error_text()) < 0;
    eg_log_dir_init(&dir, d->config.dir, meta->uid, k, uid, (uint32_t)s.v[EG_SET_RECORD_ALIGNMENT],
                    (uint64_t)s.v[EG_SET_SEGMENT_BYTES], 0);
    bool good = true;
    told_begin(t, k);
    for (size_t i = 0; good && i < r.files.count; i++)
        good = eg_files_at(&r.files, i)->end <= r.log_start ||
               read_one(&dir, eg_files_at(&r.files, i), r.log_start, t, &out->partition[k].records,
                        &out->partition[k].hash, why, cap);
    if (good)
        good = told_end(t, r.log_start, r.end, mark.end > r.end ? mark.end : r.end, why, cap);
    out->partition[k].log_start = r.log_start;
    out->partition[k].end = r.end;
    eg_files_free(&r.files);
    return good;
}

bool verify(const char *dir, struct told *t, struct recovered *out, char *why, size_t cap) {
    static struct eg_daemon d; /* large */
    static struct eg_meta_topic meta;
    char part[512] = "";
    memset(&d, 0, sizeof(d));
    memset(&meta, 0, sizeof(meta));
    *out = (struct recovered){0};
    d.fresh = true;
    lines = (struct lines){0};
    snprintf(d.config.dir, sizeof(d.config.dir), "%s", dir);
    if (eg_meta_open(dir, &d.meta) != EAGRE_OK)
        return snprintf(why, cap, "%s", eg_error_text()) < 0;
    bool good = eg_meta_topics(d.meta, is_t, &meta) == EAGRE_OK && eg_recover_all(&d) == EAGRE_OK;
    if (!good)
        snprintf(part, sizeof(part), "%s", eg_error_text());
    out->there = meta.uid != 0;
    for (uint32_t k = 0; good && k < PARTITIONS; k++) {
        if (!out->there) {
            told_begin(t, k);
            good = told_end(t, 0, 0, 0, part, sizeof(part));
        } else {
            good = read_all(&d, &meta, k, t, out, part, sizeof(part));
        }
        if (!good)
            snprintf(why, cap, "partition %" PRIu32 ": %s", k, part);
    }
    if (good && lines.errors > 0) /* a power cut is no damage */
        good = snprintf(part, sizeof(part), "%s", lines.last) < 0;
    if (!good && why[0] == '\0')
        snprintf(why, cap, "%s", part);
    eg_recover_free(&d);
    eg_meta_close(d.meta);
    return good;
}
