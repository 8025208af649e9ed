#include "recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log/logindex.h"
#include "settings.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "topics.h"

#define THREADS_MAX 16
#define PROGRESS_NS (5 * EG_NS_PER_S)

struct job {
    char topic[EG_TOPIC_NAME_MAX + 1];
    struct eg_log_dir dir;
    struct eg_meta_disk noted;
    struct eg_recovered result;
    int status;
    char text[EG_ERROR_TEXT_MAX];
};

struct eg_recovery {
    struct job *list; /* by partition uid */
    size_t count, cap;
    _Atomic size_t next, done;
    bool cold;
};

/* ---- one partition, in a worker ------------------------------------------------------------------------------ */

/* The whole file for reading. Not mapped: an error of the medium is to be an error, not a signal. */
static int read_file(int fd, const char *path, uint8_t **out, uint64_t *bytes) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return eg_error_set(EAGRE_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > EG_SEGMENT_BYTES_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "%s: this is no log file", path);
    uint8_t *data = mmap(NULL, (size_t)st.st_size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return eg_error_set(EAGRE_E_NO_MEMORY, "%s: no memory for its %lld bytes", path, (long long)st.st_size);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (uint64_t at = 0; at < (uint64_t)st.st_size;) {
        ssize_t n = pread(fd, data + at, (size_t)st.st_size - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            munmap(data, (size_t)st.st_size + 1);
            return eg_error_set(EAGRE_E_IO, "%s: read at %" PRIu64 ": %s", path, at, n < 0 ? strerror(errno) : "it ends");
        }
        at += (uint64_t)n;
    }
    *out = data;
    *bytes = (uint64_t)st.st_size;
    return EAGRE_OK;
}

/* One of the files, read; l: over it. data is to be unmapped (bytes + 1 of it). */
struct loaded {
    int fd;
    uint8_t *data;
    uint64_t bytes;
    struct eg_logfile l;
    char path[EG_FILES_PATH + 64];
};

static int load(const struct job *j, const struct eg_log_file *f, bool writable, struct loaded *out) {
    struct eg_logfile_id id = {.topic_uid = j->dir.topic_uid,
                               .partition_uid = j->dir.partition_uid,
                               .partition = j->dir.partition,
                               .align = j->dir.align,
                               .capacity = j->dir.capacity,
                               .seq = f->seq,
                               .base = f->base};
    snprintf(out->path, sizeof(out->path), "%s/%020" PRIu64 ".log", j->dir.path, f->seq);
    out->fd = open(out->path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    if (out->fd < 0)
        return eg_error_set(EAGRE_E_IO, "%s: %s", out->path, strerror(errno));
    int rc = read_file(out->fd, out->path, &out->data, &out->bytes);
    if (rc != EAGRE_OK)
        close(out->fd);
    else
        eg_logfile_init(&out->l, &id, out->data, out->bytes);
    return rc;
}

static void unload(struct loaded *x) {
    munmap(x->data, x->bytes + 1);
    close(x->fd);
}

/* One behind the last record that is good, or would be if nothing was damaged before it. */
static uint64_t end_index(const struct eg_logfile_scan *s) {
    return s->verdict == EG_FILE_DAMAGED && s->behind_index > s->good_index ? s->behind_index : s->good_index;
}

/* The index, of what is good: an old one would lead behind it. */
static void put_index(const struct job *j, uint64_t seq, const struct eg_logfile *l, uint64_t end) {
    uint64_t max = eg_logindex_entries_max(l->capacity) + 1;
    struct eg_logindex_entry *entries = malloc(max * sizeof(*entries));
    struct eg_logindex_builder b;
    struct eg_logindex_header h;
    struct eg_logfile_id id = {.topic_uid = j->dir.topic_uid,
                               .partition_uid = j->dir.partition_uid,
                               .partition = j->dir.partition,
                               .align = l->align,
                               .capacity = l->capacity,
                               .seq = seq,
                               .base = l->base};
    eg_logindex_header_make(&h, &id);
    uint32_t count = entries != NULL ? eg_logindex_rebuild(l, end, &b, entries, max) : 0;
    if (eg_log_dir_put_index(&j->dir, seq, &h, entries, count) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text()); /* one can do without */
    free(entries);
}

/* Make what was accepted durable, and what was not gone. Then the end of the segment is said: offsets between it and the
 * next one were given to nobody who was told that they are on disk. */
static int cut(const struct job *j, uint64_t seq, const struct loaded *x, const struct eg_logfile_scan *s) {
    const struct eg_logfile *l = &x->l;
    uint64_t end = s->data_end, left = l->capacity - end;
    uint64_t frame[EG_FRAME_HEADER / 8] = {0};
    struct eg_logfile_frame out = {0};
    size_t bytes = 0;
    put_index(j, seq, l, end);
    if (left >= sizeof(uint64_t)) {
        uint64_t eos[EG_FRAME_HEADER / 8] = {0}, word = eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, left, 0, 0);
        int rc = eg_logfile_frame_write(l, (uint8_t *)frame, (const struct eg_frame *)(const void *)eos, word, end,
                                        s->good_index, s->flush != 0 ? s->flush : 1, &out);
        if (rc != EAGRE_OK)
            return rc;
        bytes = eg_logfile_bytes(&out);
    }
    if (ftruncate(x->fd, (off_t)end) != 0 || fsync(x->fd) != 0)
        return eg_error_set(EAGRE_E_IO, "%s: cannot cut it to %" PRIu64 " bytes: %s", x->path, end, strerror(errno));
    EG_FAULT("recover.cut");
    errno = ENOSPC; /* of a write that is cut short */
    if (pwrite(x->fd, frame, bytes, (off_t)end) != (ssize_t)bytes || fsync(x->fd) != 0)
        return eg_error_set(EAGRE_E_IO, "%s: cannot write its end: %s", x->path, strerror(errno));
    int dir = open(j->dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = dir >= 0 && fsync(dir) == 0 ? EAGRE_OK
                                         : eg_error_set(EAGRE_E_IO, "%s: cannot sync it: %s", j->dir.path, strerror(errno));
    if (dir >= 0)
        close(dir);
    return rc;
}

static void report(const struct job *j, const struct eg_log_file *f, const struct eg_logfile_scan *s) {
    if (s->verdict == EG_FILE_TORN)
        eg_log_warning("topic '%s' partition %u: segment %" PRIu64 " was not finished: %" PRIu64 " records up to offset %" PRId64
                       " are good, what is behind is cut (%s; at least %" PRIu64 " records that were not known to be on disk)",
                       j->topic, j->dir.partition, f->seq, s->records, f->base + (int64_t)s->good_index, s->reason,
                       s->behind_records);
    else if (s->verdict == EG_FILE_DAMAGED)
        eg_log_error("topic '%s' partition %u: %s/%020" PRIu64 ".log is damaged at byte %" PRIu64 ", offset %" PRId64
                     ", which was on disk: %s. It is left as it is; %" PRIu64 " records behind the damage are good. Readers get an "
                     "error there, and can go on at offset %" PRId64 "; see eagre log verify",
                     j->topic, j->dir.partition, j->dir.path, f->seq, s->good_pos, f->base + (int64_t)s->good_index, s->reason,
                     s->behind_records, f->base + (int64_t)(s->next_pos != 0 ? s->next_index : s->good_index));
}

/* One behind the last offset in this file, as far as its frames tell. */
static int scan_end(const struct job *j, const struct eg_log_file *f, int64_t *end) {
    struct eg_logfile_scan s;
    struct loaded x;
    int rc = load(j, f, false, &x);
    if (rc != EAGRE_OK)
        return rc;
    eg_logfile_scan(&x.l, EG_SEGMENT_DATA, 0, 0, EG_SEGMENT_DATA, &s);
    unload(&x);
    *end = f->base + (int64_t)end_index(&s);
    return EAGRE_OK;
}

/* A file whose header is damaged: it begins where the one before ends, which only that one's frames tell. */
static int place_damaged(struct job *j, size_t i) {
    struct eg_file_table *t = &j->result.files;
    struct eg_log_file *f = eg_files_at(t, i), *before = i > 0 ? eg_files_at(t, i - 1) : NULL;
    const struct eg_log_file *next = eg_files_at(t, i + 1);
    eg_log_error("topic '%s' partition %u: %s/%020" PRIu64 ".log: its header is damaged: its records cannot be read; see eagre log "
                 "verify",
                 j->topic, j->dir.partition, j->dir.path, f->seq);
    f->base = before != NULL && before->damaged ? before->base : 0;
    if (before != NULL && !before->damaged) {
        int rc = scan_end(j, before, &before->end);
        if (rc != EAGRE_OK)
            return rc;
        f->base = before->end;
    }
    f->end = next != NULL && !next->damaged ? next->base : f->base;
    return EAGRE_OK;
}

/* Segments that `eagre log repair` put aside: consumers go over them, so at each start it is said what they do not get. */
static void tell_aside(const struct job *j) {
    const struct eg_file_table *t = &j->result.files;
    struct eg_file_table aside;
    if (eg_log_dir_list_aside(&j->dir, &aside) != EAGRE_OK)
        return; /* it is gone meanwhile */
    for (size_t i = 0; i < aside.count; i++) {
        const struct eg_log_file *f = eg_files_at(&aside, i), *next = eg_files_from_seq(t, f->seq), *before = NULL;
        char up_to[40] = "on";
        int64_t from = f->base;
        for (size_t k = 0; k < t->count && eg_files_at(t, k)->seq < f->seq; k++)
            before = eg_files_at(t, k);
        if (next != NULL && (next->seq == f->seq || next->base <= j->noted.log_start))
            continue; /* it was put back; or the log begins behind it */
        if (f->damaged && (before == NULL || before->damaged || scan_end(j, before, &from) != EAGRE_OK))
            from = before != NULL ? before->base : 0;
        if (next != NULL)
            snprintf(up_to, sizeof(up_to), "to %" PRId64, next->base - 1);
        eg_log_warning("topic '%s' partition %u: consumers get no records of offsets %" PRId64 " %s: segment %" PRIu64
                       " was damaged and put aside (%s/%020" PRIu64 ".log.damaged); eagre log dump prints what is good in it",
                       j->topic, j->dir.partition, from, up_to, f->seq, j->dir.path, f->seq);
    }
    eg_files_free(&aside);
}

/* Everything before this place of the file is known to be durable. */
static uint64_t mark_of(const struct job *j, const struct eg_log_file *f) {
    if (f->seq < j->noted.seq)
        return j->dir.capacity;
    return f->seq == j->noted.seq && j->noted.pos > EG_SEGMENT_DATA ? j->noted.pos : EG_SEGMENT_DATA;
}

/* Nothing but zeros. */
static bool is_blank(const struct loaded *x) {
    return x->bytes == 0 || (x->data[0] == 0 && memcmp(x->data, x->data + 1, x->bytes - 1) == 0);
}

/*
 * The last file: where does its good part end? It is removed if nothing good was ever in it: made, and its first records
 * never came to disk.
 *
 * What else can a crash leave of a file that is being made? .making and spare.log, which nobody looks at; and under its
 * name a file whose header was synced before (eg_log_dir_name()), so a bad one is damage: it is kept and told, also if no
 * frame in it is good, for frames are all that could be checked. But for one that is empty or all zeros where nothing was
 * known to be on disk: it keeps nothing from anybody, and a file system that lost the order of sync and rename leaves such.
 */
static int check_last(struct job *j, bool *dropped) {
    struct eg_file_table *t = &j->result.files;
    struct eg_log_file *f = eg_files_at(t, t->count - 1);
    uint64_t mark = mark_of(j, f);
    struct eg_logfile_scan s;
    struct loaded x;
    int rc = load(j, f, true, &x);
    if (rc != EAGRE_OK)
        return rc;
    bool blank = f->damaged && mark <= EG_SEGMENT_DATA && is_blank(&x);
    if (f->damaged && !blank)
        rc = place_damaged(j, t->count - 1);
    if (rc != EAGRE_OK) {
        unload(&x);
        return rc;
    }
    eg_logfile_scan(&x.l, EG_SEGMENT_DATA, 0, 0, mark, &s);
    if (!f->damaged)
        report(j, f, &s);
    f->end = f->base + (int64_t)end_index(&s);
    if (f->damaged && mark > EG_SEGMENT_DATA && f->end == f->base)
        f->end++; /* at least one record was on disk: who reads on is told */
    if (blank || (!f->damaged && s.verdict != EG_FILE_DAMAGED && s.good_pos <= EG_SEGMENT_DATA &&
                  mark <= EG_SEGMENT_DATA)) { /* if it was cut to nothing and then killed: the next one would remove it */
        if (blank)
            eg_log_warning("topic '%s' partition %u: %s is empty: removed", j->topic, j->dir.partition, x.path);
        *dropped = true;
        rc = eg_log_dir_unlink(&j->dir, f->seq, f->seq);
        t->count -= rc == EAGRE_OK;
    } else if (s.verdict != EG_FILE_DAMAGED && !f->damaged && !s.sealed) {
        rc = cut(j, f->seq, &x, &s);
    } else if (fsync(x.fd) != 0) {
        rc = eg_error_set(EAGRE_E_IO, "%s: cannot sync it: %s", x.path, strerror(errno));
    }
    unload(&x);
    return rc;
}

/* What was written and not finished when the note was made must be there: it was on disk. */
static void look_for_noted(const struct job *j) {
    if (j->noted.pos > EG_SEGMENT_DATA && j->noted.pos < j->dir.capacity &&
        eg_files_by_seq(&j->result.files, j->noted.seq) == NULL)
        eg_log_error("topic '%s' partition %u: %s/%020" PRIu64 ".log is missing: %" PRIu64 " bytes of it were on disk",
                     j->topic, j->dir.partition, j->dir.path, j->noted.seq, j->noted.pos);
}

static int recover_one(struct job *j, bool cold) {
    struct eg_recovered *r = &j->result;
    int rc = eg_log_dir_list(&j->dir, &r->files);
    bool dropped = true;
    if (rc == EAGRE_OK)
        look_for_noted(j);
    for (size_t i = 0; rc == EAGRE_OK && i + cold < r->files.count; i++) /* cold: the last one comes below */
        if (eg_files_at(&r->files, i)->damaged)
            rc = place_damaged(j, i);
    while (rc == EAGRE_OK && cold && dropped && r->files.count > 0) {
        dropped = false;
        rc = check_last(j, &dropped);
    }
    if (rc != EAGRE_OK) {
        eg_files_free(&r->files);
        return rc;
    }
    tell_aside(j);
    const struct eg_log_file *first = eg_files_at(&r->files, 0);
    const struct eg_log_file *last = r->files.count > 0 ? eg_files_at(&r->files, r->files.count - 1) : NULL;
    r->end = last != NULL ? last->end : 0;
    r->next_seq = last != NULL ? last->seq + 1 : 0;
    r->log_start = first != NULL && first->base > j->noted.log_start ? first->base : j->noted.log_start;
    return EAGRE_OK;
}

int eg_recover_again(const char *topic, const struct eg_log_dir *dir, const struct eg_meta_disk *noted, bool cold,
                     struct eg_recovered *out) {
    struct job *j = calloc(1, sizeof(*j));
    if (j == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to recover a partition");
    snprintf(j->topic, sizeof(j->topic), "%s", topic);
    j->dir = *dir;
    j->noted = *noted;
    int rc = recover_one(j, cold);
    *out = j->result;
    free(j);
    return rc;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

static int add(void *ctx, const struct eg_meta_topic *meta) {
    struct eg_daemon *d = ctx;
    struct eg_recovery *r = d->recovery;
    struct eg_settings s;
    eg_settings_init(&s);
    int rc = eg_settings_load(&s, meta->name, meta->settings);
    if (rc != EAGRE_OK || s.v[EG_SET_STORAGE] != EG_STORAGE_DISK)
        return EAGRE_OK; /* a bad one is told of when topics are made */
    for (uint32_t k = 0; rc == EAGRE_OK && k < meta->partitions; k++) {
        if (r->count == r->cap) {
            size_t cap = r->cap > 0 ? r->cap * 2 : 64;
            struct job *list = realloc(r->list, cap * sizeof(*list));
            if (list == NULL)
                return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to recover %zu partitions", cap);
            r->list = list;
            r->cap = cap;
        }
        struct job *j = &r->list[r->count++];
        uint32_t uid = eg_topic_partition_uid(meta, k);
        memset(j, 0, sizeof(*j));
        memcpy(j->topic, meta->name, sizeof(j->topic));
        eg_log_dir_init(&j->dir, d->config.dir, meta->uid, k, uid, (uint32_t)s.v[EG_SET_RECORD_ALIGNMENT],
                        (uint64_t)s.v[EG_SET_SEGMENT_BYTES], d->config.disk_min_free_bytes);
        rc = eg_meta_disk_get(d->meta, uid, &j->noted);
    }
    return rc;
}

static int compare(const void *a, const void *b) {
    uint32_t x = ((const struct job *)a)->dir.partition_uid, y = ((const struct job *)b)->dir.partition_uid;
    return x < y ? -1 : x > y;
}

static void *work(void *arg) {
    struct eg_recovery *r = arg;
    for (size_t i; (i = atomic_fetch_add(&r->next, 1)) < r->count; atomic_fetch_add(&r->done, 1)) {
        struct job *j = &r->list[i];
        j->status = recover_one(j, r->cold);
        if (j->status != EAGRE_OK)
            snprintf(j->text, sizeof(j->text), "%s", eg_error_text());
    }
    return NULL;
}

int eg_recover_all(struct eg_daemon *d) {
    d->recovery = calloc(1, sizeof(*d->recovery));
    if (d->recovery == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to recover partitions");
    struct eg_recovery *r = d->recovery;
    int rc = eg_meta_topics(d->meta, add, d);
    if (rc != EAGRE_OK || r->count == 0)
        return rc;
    qsort(r->list, r->count, sizeof(*r->list), compare);
    r->cold = d->fresh || d->clients_lost;
    pthread_t thread[THREADS_MAX];
    size_t threads = 0, wanted = 2 * (size_t)sysconf(_SC_NPROCESSORS_ONLN);
    int64_t began = eg_mono_ns(), told = began;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    while (threads < wanted && threads < THREADS_MAX && threads < r->count &&
           pthread_create(&thread[threads], NULL, work, r) == 0)
        threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (size_t i; (i = atomic_fetch_add(&r->next, 1)) < r->count; atomic_fetch_add(&r->done, 1)) { /* we too */
        struct job *j = &r->list[i];
        j->status = recover_one(j, r->cold);
        if (j->status != EAGRE_OK)
            snprintf(j->text, sizeof(j->text), "%s", eg_error_text());
        int64_t now = eg_mono_ns();
        if (now - told >= PROGRESS_NS) {
            eg_log_info("recovery: %zu of %zu partitions", atomic_load(&r->done) + 1, r->count);
            told = now;
        }
    }
    while (threads > 0)
        pthread_join(thread[--threads], NULL);
    if (r->cold)
        eg_log_info("%zu partitions were recovered from their files in %lld ms", r->count,
                    (long long)((eg_mono_ns() - began) / EG_NS_PER_MS));
    return EAGRE_OK;
}

int eg_recover_take(struct eg_daemon *d, uint32_t partition_uid, bool cold, struct eg_recovered *out) {
    struct eg_recovery *r = d->recovery;
    *out = (struct eg_recovered){0};
    size_t low = 0, high = r != NULL ? r->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->list[middle].dir.partition_uid < partition_uid)
            low = middle + 1;
        else
            high = middle;
    }
    if (r == NULL || low == r->count || r->list[low].dir.partition_uid != partition_uid)
        return EAGRE_OK;
    struct job *j = &r->list[low];
    if (cold && !r->cold && j->status == EAGRE_OK) {
        eg_files_free(&j->result.files);
        j->status = recover_one(j, true);
        if (j->status != EAGRE_OK)
            snprintf(j->text, sizeof(j->text), "%s", eg_error_text());
    }
    if (j->status != EAGRE_OK)
        return eg_error_set(j->status, "its log files cannot be recovered: %s", j->text);
    *out = j->result;
    j->result.files = (struct eg_file_table){0};
    return EAGRE_OK;
}

void eg_recover_free(struct eg_daemon *d) {
    struct eg_recovery *r = d->recovery;
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->count; i++)
        eg_files_free(&r->list[i].result.files);
    free(r->list);
    free(r);
    d->recovery = NULL;
}
