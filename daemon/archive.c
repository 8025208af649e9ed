#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_io.h"
#include "log/logindex.h"
#include "log/waiters.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"

#define STAGING (UINT32_C(1) << 20)
#define WRITE_MIN (UINT32_C(256) << 10) /* else it waits for more, or for a flush */
#define SLICE (UINT32_C(256) << 10)     /* copied in one call */
#define RETRY_NS EG_NS_PER_S            /* when there was no space */
#define BACKGROUND_SYNCS 4u             /* under way at a time that nobody waits for */

/* Bytes of the file, on their way. */
struct staging {
    uint8_t *data;
    size_t cap, used;
    uint64_t at; /* where data[0] goes */
};

struct archive_file {
    struct eg_archive *a;
    uint64_t seq;
    int64_t base;
    int fd;      /* -1: being made */
    bool sealed; /* the segment's end is copied */
    bool writing, syncing, background;
    struct staging flight;
    struct eg_place copied, written, synced; /* behind what was copied, written, flushed */
    struct eg_place flown, covered;          /* what the write and the flush under way will bring */
    int64_t dirty_ns;                        /* since when something is written and not flushed; 0: nothing is */
    uint32_t flush;                          /* number of the flush that what is copied now will be in */
    struct eg_io_job write, sync;
    struct eg_logfile_id id;
    struct eg_logfile log;
    struct eg_logindex_builder builder;
    struct eg_logindex_entry *entries; /* builder.count of them; NULL: no memory, then no index */
};

struct eg_archive {
    struct eg_daemon *d;
    struct eg_partition *p; /* NULL: closed, and freed when nothing is under way */
    struct eg_log_dir dir;
    struct eg_file_table files;
    struct archive_file *cur, *prev; /* prev: whole, its last flush is under way */
    uint64_t seq;                    /* of the segment that is copied, or will be next */
    struct eg_place start;           /* where in it the next file begins to be copied */
    uint32_t start_flush;
    struct staging fill;
    uint32_t jobs; /* under way, their done() comes */
    bool calling;  /* a CALL is */
    bool has_spare;
    bool finishing;
    int64_t retry_ns;
};

static struct eg_log_limit trouble_limit;

static int64_t setting(const struct eg_archive *a, enum eg_setting which) {
    return a->p->topic->settings.v[which];
}

/* ---- state ------------------------------------------------------------------------------------------- */

static void tell(struct eg_partition_status *s) {
    /* Release: who sees the count sees what it is about. Partner: the acquire of who waits. */
    atomic_fetch_add_explicit(&s->durable, 1, memory_order_release);
    eg_futex_wake(&s->durable, INT_MAX);
}

static void set_state(struct eg_archive *a, enum eg_disk_state state) {
    if (a->p == NULL || eg_load_relaxed(&a->p->status->disk) == state)
        return;
    eg_store_release(&a->p->status->disk, state);
    tell(a->p->status);
    eg_partition_room(a->p->status); /* who waits for room says why */
}

static bool has_state(const struct eg_archive *a, enum eg_disk_state state) {
    return eg_load_relaxed(&a->p->status->disk) == state;
}

static void staging_free(struct staging *s) {
    free(s->data);
    *s = (struct staging){0};
}

/* Copy again from where the file is known to be written (no space) or durable (after an error). */
static void go_back(struct eg_archive *a, struct archive_file *f, struct eg_place to) {
    staging_free(&a->fill);
    f->copied = to;
    f->sealed = false;
    free(f->entries); /* it can be made anew from the log */
    f->entries = NULL;
}

static void broken(struct eg_archive *a, const struct archive_file *f, const char *what, int error) {
    if (a->p == NULL)
        return;
    eg_log_error("topic '%s' partition %u: %s/%020" PRIu64 ".log: %s: %s. What is not on disk yet is in memory only and is "
                 "not acknowledged as durable any more. When the medium is sound: eagre topic resume",
                 eg_topic_name(a->p->topic), a->p->number, a->dir.path, f->seq, what, strerror(error));
    set_state(a, EG_DISK_ERROR);
}

static void full(struct eg_archive *a, const char *why) {
    if (a->p == NULL)
        return;
    eg_log_limited(&trouble_limit, EG_LOG_ERROR, "topic '%s' partition %u: %s: its producers will wait; tried again each second",
                   eg_topic_name(a->p->topic), a->p->number, why);
    a->retry_ns = eg_mono_ns() + RETRY_NS;
    set_state(a, EG_DISK_FULL);
}

/* ---- what is durable --------------------------------------------------------------------------------------- */

static void ring_bells(void *ctx, uint32_t word, uint64_t mask) {
    struct eg_daemon *d = ctx;
    for (; mask != 0; mask &= mask - 1) {
        struct eg_bell *bell = &d->bells->bell[word * 64 + (unsigned)__builtin_ctzll(mask)];
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_release); /* as producers do */
        eg_futex_wake(&bell->rings, INT_MAX);
    }
}

static void file_free(struct archive_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    staging_free(&f->flight);
    free(f->entries);
    free(f);
}

static void publish(struct eg_archive *a, const struct archive_file *f, struct eg_place at) {
    struct eg_partition_status *s = a->p->status;
    int64_t end = f->base + (int64_t)at.index;
    /* One word a step, and never ahead of what is durable: (seq, its start), then the place. */
    if (eg_load_relaxed(&s->archived_seq) != f->seq) {
        eg_store_release(&s->archived_at, eg_hint_make(EG_SEGMENT_DATA, 0));
        eg_store_relaxed(&s->archived_flush, 1);
        eg_store_release(&s->archived_seq, f->seq);
    }
    /* The flush number first: too high is right as well. */
    eg_store_relaxed(&s->archived_flush, f->flush);
    eg_store_release(&s->archived_at, eg_hint_make(at.pos, at.index));
    EG_FAULT("arch.mark");
    if ((int64_t)eg_load_relaxed(&s->durable_end) >= end)
        return;
    /* Release, then the count. Partner: producers and consumers that want it durable. */
    eg_store_release(&s->durable_end, (uint64_t)end);
    tell(s);
    eg_wake_collect(a->p->waiters, ring_bells, a->d);
}

/* prev comes first: nothing of cur is durable before all of prev is. */
static void publish_all(struct eg_archive *a) {
    struct archive_file *f = a->prev;
    if (f != NULL && !f->syncing && !f->writing && f->synced.pos == f->copied.pos) {
        publish(a, f, f->synced);
        struct eg_log_file done = {.seq = f->seq,
                                   .base = f->base,
                                   .end = f->base + (int64_t)f->synced.index,
                                   .bytes = a->dir.capacity,
                                   .written_ns = eg_now_ns()};
        if (eg_files_add(&a->files, &done) != EAGRE_OK)
            eg_log_error("%s", eg_error_text());
        a->prev = NULL;
        file_free(f);
    }
    if (a->prev != NULL)
        publish(a, a->prev, a->prev->synced);
    else if (a->cur != NULL && a->cur->synced.pos > EG_SEGMENT_DATA)
        publish(a, a->cur, a->cur->synced);
}

/* ---- writing and flushing --------------------------------------------------------------------------------------- */

static void job_ended(struct eg_archive *a) {
    a->jobs--;
    if (a->p != NULL) {
        eg_slots_wake(a->d, a->p);
        return;
    }
    if (a->jobs > 0)
        return;
    if (a->cur != NULL)
        file_free(a->cur);
    if (a->prev != NULL)
        file_free(a->prev);
    staging_free(&a->fill);
    eg_files_free(&a->files);
    free(a);
}

static void write_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct archive_file *f = eg_container_of(job, struct archive_file, write);
    struct eg_archive *a = f->a;
    int error = -job->result;
    f->writing = false;
    staging_free(&f->flight);
    if (error == 0) {
        EG_FAULT("arch.written");
        f->written = f->flown;
        if (f->dirty_ns == 0)
            f->dirty_ns = eg_mono_ns();
    } else {
        if (f->write.then != NULL) { /* not submitted: its done() does not come */
            f->syncing = false;
            d->archive_syncs -= f->background;
            a->jobs--;
        }
        if (error == ENOSPC || error == EDQUOT) {
            full(a, "no space to write to its log file");
            go_back(a, f, f->written);
        } else {
            broken(a, f, "write", error);
        }
    }
    job_ended(a);
}

static void sync_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct archive_file *f = eg_container_of(job, struct archive_file, sync);
    struct eg_archive *a = f->a;
    f->syncing = false;
    d->archive_syncs -= f->background;
    if (job->result != 0) {
        broken(a, f, "fdatasync", -job->result);
    } else {
        EG_FAULT("arch.synced");
        f->synced = f->covered;
        f->dirty_ns = f->written.pos > f->synced.pos ? eg_mono_ns() : 0;
        if (a->p != NULL)
            publish_all(a);
    }
    job_ended(a);
}

/* Write what was copied; sync: then flush. A flush covers all that was copied before it began, and nothing is written
 * while it is under way: what a frame's flush number proves rests on that (src/log/logfile.h). */
static void submit(struct eg_archive *a, struct archive_file *f, bool sync, bool background) {
    struct eg_disk_io *io = a->d->disk_io;
    bool write = f == a->cur && a->fill.used > 0;
    if (sync) {
        f->syncing = true;
        f->background = background;
        a->d->archive_syncs += background;
        f->covered = f->copied;
        f->flush = eg_logfile_flush_next(f->flush); /* of what is copied from now on */
        f->sync = (struct eg_io_job){.op = EG_IO_DATASYNC, .fd = f->fd, .done = sync_done};
        a->jobs++;
    }
    if (!write) {
        eg_io_submit(io, &f->sync);
        return;
    }
    EG_FAULT("arch.copied");
    f->writing = true;
    memset(a->fill.data + a->fill.used, 0, sizeof(uint64_t)); /* there is room: staging_begin() */
    a->fill.used += eg_logfile_end_bytes(&f->log, a->fill.at + a->fill.used);
    f->flight = a->fill;
    f->flown = f->copied;
    a->fill = (struct staging){0};
    f->write = (struct eg_io_job){.op = EG_IO_WRITE,
                                  .fd = f->fd,
                                  .data = f->flight.data,
                                  .bytes = f->flight.used,
                                  .at = f->flight.at,
                                  .then = sync ? &f->sync : NULL,
                                  .done = write_done};
    a->jobs++;
    eg_io_submit(io, &f->write);
}

/* ---- the file of a segment ------------------------------------------------------------------------------------ */

struct call {
    struct eg_io_job job;
    struct eg_archive *a;
    struct eg_log_dir dir;
    uint64_t seq; /* EG_NO_SEQ: only the spare one */
    uint64_t recycle;
    int fd, status, error;
    struct eg_logindex_header header; /* of an index to write; its file is `seq` */
    struct eg_logindex_entry *entries;
    size_t count;
    char text[EG_ERROR_TEXT_MAX];
};

static int make_file(void *arg) {
    struct call *c = arg;
    c->status = eg_log_dir_make(&c->dir);
    if (c->status == EAGRE_OK)
        c->status = eg_log_dir_prepare(&c->dir, c->recycle, &c->error);
    EG_FAULT("file.created");
    if (c->status == EAGRE_OK && c->seq != EG_NO_SEQ)
        c->status = eg_log_dir_name(&c->dir, c->seq, &c->fd, &c->error);
    EG_FAULT("file.renamed");
    if (c->status != EAGRE_OK)
        snprintf(c->text, sizeof(c->text), "%s", eg_error_text());
    return 0;
}

static void file_made(struct eg_daemon *d, struct eg_io_job *job) {
    struct call *c = eg_container_of(job, struct call, job);
    struct eg_archive *a = c->a;
    (void)d;
    a->calling = false;
    if (c->status == EAGRE_OK) {
        a->has_spare = c->seq == EG_NO_SEQ;
        if (a->p != NULL && has_state(a, EG_DISK_FULL)) {
            eg_log_info("topic '%s' partition %u: there is space again", eg_topic_name(a->p->topic), a->p->number);
            set_state(a, EG_DISK_OK);
        }
    } else if (c->error == ENOSPC || c->error == EDQUOT || c->error == EFBIG) {
        full(a, c->text);
    } else if (a->p != NULL && c->seq != EG_NO_SEQ) {
        eg_log_error("topic '%s' partition %u: %s", eg_topic_name(a->p->topic), a->p->number, c->text);
        set_state(a, EG_DISK_ERROR);
    }
    if (c->fd >= 0 && a->cur != NULL && a->cur->seq == c->seq && a->cur->fd < 0)
        a->cur->fd = c->fd;
    else if (c->fd >= 0)
        close(c->fd);
    free(c);
    job_ended(a);
}

static bool call(struct eg_archive *a, uint64_t seq) {
    struct call *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return false;
    c->a = a;
    c->dir = a->dir;
    c->seq = seq;
    c->recycle = EG_NO_SEQ;
    c->fd = -1;
    c->job = (struct eg_io_job){.op = EG_IO_CALL, .call = make_file, .arg = c, .done = file_made};
    a->calling = true;
    a->jobs++;
    eg_io_submit(a->d->disk_io, &c->job);
    return true;
}

static struct archive_file *file_begin(struct eg_archive *a) {
    struct archive_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return NULL;
    f->a = a;
    f->fd = -1;
    f->seq = a->seq;
    f->base = a->p->base[a->seq % eg_partition_slots(a->p)];
    f->copied = f->written = f->synced = f->covered = a->start;
    f->flush = a->start_flush;
    f->id = (struct eg_logfile_id){.topic_uid = a->dir.topic_uid,
                                   .partition_uid = a->dir.partition_uid,
                                   .partition = a->dir.partition,
                                   .align = a->dir.align,
                                   .capacity = a->dir.capacity,
                                   .seq = f->seq,
                                   .created_ns = eg_now_ns(),
                                   .base = f->base};
    eg_logfile_init(&f->log, &f->id, NULL, 0);
    eg_logindex_begin(&f->builder, &f->log);
    if (a->start.pos == EG_SEGMENT_DATA) /* else the index would lack what was before: it is made when it is needed */
        f->entries = malloc((eg_logindex_entries_max(a->dir.capacity) + 1) * sizeof(*f->entries));
    return f;
}

/* The index is written when its segment is whole. It can be made anew: nobody waits, nothing is flushed. */
static int write_index(void *arg) {
    struct call *c = arg;
    c->status = eg_log_dir_put_index(&c->dir, c->seq, &c->header, c->entries, c->count);
    return 0;
}

static void index_written(struct eg_daemon *d, struct eg_io_job *job) {
    struct call *c = eg_container_of(job, struct call, job);
    (void)d;
    free(c->entries);
    job_ended(c->a);
    free(c);
}

static void put_index(struct eg_archive *a, struct archive_file *f) {
    struct call *c = f->entries != NULL ? calloc(1, sizeof(*c)) : NULL;
    if (c == NULL)
        return;
    c->a = a;
    c->dir = a->dir;
    c->seq = f->seq;
    eg_logindex_header_make(&c->header, &f->id);
    c->entries = f->entries;
    c->count = f->builder.count;
    f->entries = NULL;
    c->job = (struct eg_io_job){.op = EG_IO_CALL, .call = write_index, .arg = c, .done = index_written};
    a->jobs++;
    eg_io_submit(a->d->disk_io, &c->job);
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

static bool staging_begin(struct eg_archive *a, struct archive_file *f, uint64_t bytes) {
    struct staging *s = &a->fill;
    uint64_t head = f->copied.pos == EG_SEGMENT_DATA ? EG_PAGE : 0;
    size_t cap = (bytes + head > STAGING ? bytes + head : STAGING) + sizeof(uint64_t); /* and the end word */
    if (s->data == NULL || s->cap < cap) {
        free(s->data);
        s->data = malloc(cap);
        if (s->data == NULL) {
            *s = (struct staging){0};
            return false;
        }
        s->cap = cap;
    }
    s->at = f->copied.pos - head;
    s->used = head;
    if (head > 0)
        eg_logfile_header_make(s->data, &f->id);
    return true;
}

/* Up to SLICE bytes from the ring. True: there is more at once. */
static bool copy(struct eg_archive *a, struct archive_file *f) {
    struct eg_partition *p = a->p;
    uint64_t capacity = eg_partition_capacity(p), budget = SLICE;
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&p->status->slot[f->seq % eg_partition_slots(p)]));
    uint32_t align = f->id.align;
    while (!f->sealed) {
        uint64_t pos = f->copied.pos, left = capacity - pos;
        if (pos >= capacity) {
            f->sealed = true;
            break;
        }
        if (pos + EG_FRAME_HEADER > eg_buffer_allocated(p, n) && left > EG_FRAME_HEADER)
            (void)eg_buffer_sync(a->d, p, n);
        uint64_t there = eg_buffer_allocated(p, n);
        if (pos + sizeof(uint64_t) > there)
            return false;
        struct eg_frame *frame = eg_frame_at(p->buffers[n].base, pos);
        uint64_t word = eg_load_acquire(&frame->word); /* partner: publish.done */
        if (eg_word_state(word) != EG_PUBLISHED)
            return false;
        if (!eg_word_is_sane(word, pos, capacity, align)) {
            eg_partition_fail(p, "segment %" PRIu64 ", position %" PRIu64 ": %016" PRIx64 " is no frame word", f->seq, pos, word);
            return false;
        }
        uint64_t length = eg_word_length(word), touched = eg_word_kind(word) == EG_KIND_DATA ? length : sizeof(uint64_t);
        if (pos + touched > there && (!eg_buffer_sync(a->d, p, n) || pos + touched > eg_buffer_allocated(p, n)))
            return false;
        if (a->fill.used == 0 && !staging_begin(a, f, length))
            return false;
        if (a->fill.used + length + sizeof(uint64_t) > a->fill.cap)
            return false; /* for the next write */
        struct eg_logfile_frame out;
        if (eg_logfile_frame_write(&f->log, a->fill.data + a->fill.used, frame, word, pos, f->copied.index, f->flush,
                                   &out) != EAGRE_OK) {
            eg_partition_fail(p, "segment %" PRIu64 ", position %" PRIu64 ": %s", f->seq, pos, eg_error_text());
            return false;
        }
        if (f->entries != NULL && f->builder.count < eg_logindex_entries_max(a->dir.capacity))
            (void)eg_logindex_add(&f->builder, &out, &f->entries[f->builder.count]);
        uint64_t bytes = eg_logfile_bytes(&out);
        a->fill.used += bytes;
        f->copied.pos += out.length;
        f->copied.index += out.count;
        f->sealed = out.kind == EG_KIND_EOS;
        budget = budget > bytes ? budget - bytes : 0;
        if (budget == 0)
            return true;
    }
    return false;
}

/* Is there anything to be written where the next file would begin? Before that, none is made. */
static bool has_records(const struct eg_archive *a) {
    const struct eg_partition *p = a->p;
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&p->status->slot[a->seq % eg_partition_slots(p)]));
    if (a->start.pos >= a->dir.capacity)
        return true;
    return a->start.pos + sizeof(uint64_t) <= eg_buffer_allocated(p, n) &&
           eg_load_relaxed(&eg_frame_at(p->buffers[n].base, a->start.pos)->word) != 0;
}

/* ---- when to flush ------------------------------------------------------------------------------------------------- */

static bool is_awaited(const struct eg_archive *a, const struct archive_file *f) {
    int64_t durable = (int64_t)eg_load_relaxed(&a->p->status->durable_end);
    int64_t wanted = eg_load_relaxed(&a->p->ring->durable_wanted); /* anything: only a reason to hurry */
    return (wanted > durable && f->copied.pos > f->synced.pos) || f->sealed || a->finishing;
}

/* True: flush now, if anything is dirty. *due: else when. */
static bool is_due(const struct eg_archive *a, const struct archive_file *f, int64_t now, int64_t *due) {
    if (f->written.pos - f->synced.pos >= (uint64_t)setting(a, EG_SET_FLUSH_BYTES))
        return true;
    if (f->dirty_ns == 0)
        return false;
    int64_t at = f->dirty_ns + setting(a, EG_SET_FLUSH_MS) * EG_NS_PER_MS;
    if (at > now && at < *due)
        *due = at;
    return at <= now;
}

/* ---- one step --------------------------------------------------------------------------------------------------------- */

int64_t eg_archive_work(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    struct eg_archive *a = p->archive;
    int64_t idle = now + setting(a, EG_SET_FLUSH_MS) * EG_NS_PER_MS, due = INT64_MAX;
    if (has_state(a, EG_DISK_ERROR))
        return INT64_MAX;
    if (has_state(a, EG_DISK_FULL)) {
        if (now < a->retry_ns)
            return a->retry_ns;
        a->retry_ns = now + RETRY_NS;
    }
    if (a->cur == NULL && (a->seq < p->active || (a->seq == p->active && has_records(a))))
        a->cur = file_begin(a);
    struct archive_file *f = a->cur;
    if (f == NULL)
        return p->topic->client_count > 0 ? idle : INT64_MAX;
    if (f->fd < 0 && !a->calling && !call(a, f->seq))
        return now + RETRY_NS;
    bool more = copy(a, f);
    if (eg_partition_failed(p) || f->fd < 0)
        return INT64_MAX; /* the end of the call wakes us */

    bool dirty = f->copied.pos > f->synced.pos || f->dirty_ns != 0;
    bool wait = is_awaited(a, f), sync = wait || is_due(a, f, now, &due);
    /* What lies in a file proves that the file before is whole and durable (recover.c). */
    if (a->prev != NULL && f->written.pos == EG_SEGMENT_DATA)
        return idle;
    if (sync && dirty && !f->syncing && !f->writing && (wait || d->archive_syncs < BACKGROUND_SYNCS))
        submit(a, f, true, !wait);
    else if (!f->writing && !f->syncing && a->fill.used >= WRITE_MIN)
        submit(a, f, false, false);
    /* All of it is written, and its last flush is under way or done: on to the next one. */
    if (f->sealed && a->fill.used == 0 && !f->writing && a->prev == NULL && f->covered.pos == f->copied.pos) {
        put_index(a, f);
        a->prev = f;
        a->cur = NULL;
        a->seq = f->seq + 1;
        a->start = (struct eg_place){a->seq, EG_SEGMENT_DATA, 0};
        publish_all(a);
        return 0;
    }
    if (!a->has_spare && !a->calling && !a->finishing && now >= a->retry_ns && f->copied.pos > a->dir.capacity / 2)
        call(a, EG_NO_SEQ);
    if (more && a->fill.used < a->fill.cap)
        return 0;
    if (a->jobs > 0 && (f->writing || f->syncing))
        return idle; /* their end wakes us */
    /* What is copied and not written waits for a flush; and records come without anybody ringing for them. */
    return due < idle ? due : idle;
}

bool eg_archive_has(const struct eg_partition *p, uint64_t seq) {
    const struct eg_archive *a = p->archive;
    return seq < (a->prev != NULL ? a->prev->seq : a->seq);
}

struct eg_file_table *eg_archive_files(struct eg_partition *p) { return &p->archive->files; }

const struct eg_log_dir *eg_archive_dir(const struct eg_partition *p) { return &p->archive->dir; }

/* ---- beginning and end -------------------------------------------------------------------------------------------------- */

int eg_archive_open(struct eg_daemon *d, struct eg_partition *p, struct eg_file_table *table) {
    struct eg_archive *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s' partition %u: no memory", eg_topic_name(p->topic), p->number);
    a->d = d;
    a->p = p;
    a->files = *table;
    *table = (struct eg_file_table){0};
    eg_log_dir_init(&a->dir, d->config.dir, p->topic->meta.uid, p->number, p->uid,
                    (uint32_t)p->topic->settings.v[EG_SET_RECORD_ALIGNMENT], eg_partition_capacity(p),
                    d->config.disk_min_free_bytes);
    p->archive = a;
    return EAGRE_OK;
}

void eg_archive_begin(struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    uint64_t seq = eg_load_relaxed(&p->status->archived_seq), at = eg_load_relaxed(&p->status->archived_at);
    a->start = (struct eg_place){seq, eg_hint_pos(at), eg_hint_index(at)};
    a->start_flush = eg_load_relaxed(&p->status->archived_flush);
    if (a->start.pos >= eg_partition_capacity(p)) { /* all of it: the ring may have let it go */
        a->start = (struct eg_place){seq + 1, EG_SEGMENT_DATA, 0};
        a->start_flush = 1;
    }
    a->seq = a->start.seq;
    /* What is not whole is no file for readers yet. The last whole one ends where this one begins. */
    while (a->files.count > 0 && eg_files_at(&a->files, a->files.count - 1)->seq >= a->seq)
        a->files.count--;
    struct eg_log_file *last = a->files.count > 0 ? eg_files_at(&a->files, a->files.count - 1) : NULL;
    if (last != NULL && last->end < 0 && last->seq == seq)
        last->end = last->base + (int64_t)eg_hint_index(at);
    else if (last != NULL && last->end < 0 && a->seq >= p->first && a->seq <= p->active)
        last->end = p->base[a->seq % eg_partition_slots(p)];
}

void eg_archive_close(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    (void)d;
    if (a == NULL)
        return;
    p->archive = NULL;
    a->p = NULL;
    a->jobs++; /* ours */
    job_ended(a);
}

static bool is_all_durable(const struct eg_archive *a) {
    return a->fill.used == 0 && a->prev == NULL &&
           (a->cur == NULL || (!a->cur->writing && !a->cur->syncing && a->cur->synced.pos == a->cur->copied.pos));
}

void eg_archive_hurry(struct eg_daemon *d, struct eg_partition *p) {
    p->archive->finishing = true;
    if (!eg_partition_failed(p) && eg_slots_follow(p, eg_mono_ns()))
        (void)eg_archive_work(d, p, eg_mono_ns());
}

bool eg_archive_finish(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    a->finishing = true;
    for (;;) {
        if (eg_partition_failed(p) || !has_state(a, EG_DISK_OK) || !eg_slots_follow(p, eg_mono_ns()))
            return false;
        if (is_all_durable(a) && a->seq > p->active)
            return true;
        uint64_t before = a->cur != NULL ? a->cur->copied.pos : 0;
        int64_t due = eg_archive_work(d, p, eg_mono_ns());
        if (due == 0 || (a->cur != NULL && a->cur->copied.pos != before))
            continue;
        if (a->jobs > 0 && eg_io_wait(d->disk_io))
            continue;
        return is_all_durable(a) && a->seq > p->active; /* a claim that nobody publishes is in the way */
    }
}

/* ---- after an error ------------------------------------------------------------------------------------------------------ */

struct reread {
    struct eg_io_job job;
    struct eg_archive *a;
    struct eg_log_dir dir;
    struct eg_logfile_id id;
    uint64_t pos;
    char text[EG_ERROR_TEXT_MAX];
};

/* In a worker: is what we said is durable really on the medium? The page cache would say yes in any case. */
static int reread(void *arg) {
    struct reread *r = arg;
    struct eg_logfile l;
    struct eg_logfile_scan scan;
    int fd = -1, rc = EAGRE_OK;
    uint8_t *data = NULL;
    if (r->pos > EG_SEGMENT_DATA) {
        rc = eg_log_dir_open(&r->dir, r->id.seq, false, &fd);
        if (rc == EAGRE_OK && (data = malloc(r->pos)) == NULL)
            rc = eg_error_set(EAGRE_E_NO_MEMORY, "no memory for %" PRIu64 " bytes", r->pos);
        if (rc == EAGRE_OK)
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        for (uint64_t at = 0; rc == EAGRE_OK && at < r->pos;) {
            ssize_t n = pread(fd, data + at, r->pos - at, (off_t)at);
            if (n <= 0 && !(n < 0 && errno == EINTR))
                rc = eg_error_set(EAGRE_E_IO, "read at %" PRIu64 ": %s", at, n < 0 ? strerror(errno) : "the file ends");
            at += n > 0 ? (uint64_t)n : 0;
        }
        if (rc == EAGRE_OK)
            rc = eg_logfile_header_check(data, r->pos, &r->id, &r->id, NULL);
        if (rc == EAGRE_OK) {
            eg_logfile_init(&l, &r->id, data, r->pos);
            eg_logfile_scan(&l, EG_SEGMENT_DATA, 0, 0, r->pos, &scan);
            if (scan.good_pos < r->pos)
                rc = eg_error_set(EAGRE_E_CORRUPT, "position %" PRIu64 ": %s", scan.good_pos, scan.reason);
        }
        free(data);
        if (fd >= 0)
            close(fd);
    }
    snprintf(r->text, sizeof(r->text), "%s", rc == EAGRE_OK ? "" : eg_error_text());
    return rc == EAGRE_OK ? 0 : -EIO;
}

static void reread_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct reread *r = eg_container_of(job, struct reread, job);
    struct eg_archive *a = r->a;
    (void)d;
    a->calling = false;
    if (a->p != NULL && job->result != 0) {
        eg_log_error("topic '%s' partition %u: cannot resume: %s/%020" PRIu64 ".log: %s", eg_topic_name(a->p->topic),
                     a->p->number, r->dir.path, r->id.seq, r->text);
    } else if (a->p != NULL) {
        eg_log_info("topic '%s' partition %u: what is durable was read again and is sound; the rest is written again",
                    eg_topic_name(a->p->topic), a->p->number);
        if (a->cur != NULL)
            file_free(a->cur);
        if (a->prev != NULL)
            file_free(a->prev);
        a->cur = a->prev = NULL;
        staging_free(&a->fill);
        eg_archive_begin(a->p);
        set_state(a, EG_DISK_OK);
    }
    free(r);
    job_ended(a);
}

int eg_archive_resume(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    if (!has_state(a, EG_DISK_ERROR))
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %u: its disk is in no error", eg_topic_name(p->topic),
                            p->number);
    if (a->calling || a->jobs > 0)
        return eg_error_set(EAGRE_E_BUSY, "topic '%s' partition %u: something is still under way: try again",
                            eg_topic_name(p->topic), p->number);
    struct reread *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory");
    r->a = a;
    r->dir = a->dir;
    r->pos = eg_hint_pos(eg_load_relaxed(&p->status->archived_at));
    r->id = (struct eg_logfile_id){.topic_uid = a->dir.topic_uid,
                                   .partition_uid = p->uid,
                                   .partition = p->number,
                                   .align = a->dir.align,
                                   .capacity = a->dir.capacity,
                                   .seq = eg_load_relaxed(&p->status->archived_seq)};
    r->job = (struct eg_io_job){.op = EG_IO_CALL, .call = reread, .arg = r, .done = reread_done};
    a->calling = true;
    a->jobs++;
    eg_io_submit(d->disk_io, &r->job);
    return EAGRE_OK;
}
