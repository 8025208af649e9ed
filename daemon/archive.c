#include "archive.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "archive_internal.h"
#include "log/waiters.h"
#include "retention.h"
#include "slots.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"

#define STAGING_MAX (UINT32_C(4) << 20) /* a write and the wake-ups around it take their time: few of them */
#define STAGING_MIN (UINT32_C(64) << 10)
#define STAGING_ALL (UINT32_C(64) << 20) /* of all partitions, twice (one is filled while one is written) */
#define AHEAD_MAX (UINT64_C(8) << 20)    /* disk space ahead of what is written: half of what it has, at most this */
#define PUSH (UINT64_C(4) << 20)         /* written and not even on its way to the medium: then it is sent there */


static struct eg_log_limit trouble_limit;

static int64_t setting(const struct eg_archive *a, enum eg_setting which) {
    return a->p->topic->settings.v[which];
}

/* ---- state ------------------------------------------------------------------------------------------- */

static uint32_t tell_some(struct eg_partition_status *s, uint32_t bits) {
    /* Release: who sees the count sees what it is about. Partner: the acquire of who waits. */
    atomic_fetch_add_explicit(&s->durable, 1, memory_order_release);
    return eg_futex_wake_bits(&s->durable, bits);
}

static void tell(struct eg_partition_status *s) { (void)tell_some(s, UINT32_MAX); }

void eg_archive_set_state(struct eg_archive *a, enum eg_disk_state state) {
    if (a->p == NULL || eg_archive_state_is(a, state))
        return;
    if (state != EG_DISK_OK)
        eg_archive_turn_drop(a);
    eg_store_release(&a->p->status->disk, state);
    tell(a->p->status);
    eg_partition_room(a->p->status); /* who waits for room says why */
}

void eg_staging_free(struct eg_staging *s) {
    free((void *)((uintptr_t)s->data & ~(uintptr_t)(EG_PAGE - 1))); /* as staging_begin() got it */
    *s = (struct eg_staging){0};
}

static void broken(struct eg_archive *a, const struct eg_archive_file *f, const char *what, int error) {
    if (a->p == NULL)
        return;
    eg_log_error("topic '%s' partition %u: %s/%020" PRIu64 ".log: %s: %s. What is not on disk yet is in memory only and is "
                 "not acknowledged as durable any more. When the medium is sound: eagre topic resume",
                 eg_topic_name(a->p->topic), a->p->number, a->dir.path, f->seq, what, strerror(error));
    eg_archive_set_state(a, EG_DISK_ERROR);
}

void eg_archive_full(struct eg_archive *a, const char *why) {
    if (a->p == NULL || eg_archive_state_is(a, EG_DISK_ERROR))
        return;
    eg_log_limited(&trouble_limit, EG_LOG_ERROR, "topic '%s' partition %u: %s: its producers will wait; tried again each second",
                   eg_topic_name(a->p->topic), a->p->number, why);
    a->retry_ns = eg_mono_ns() + EG_ARCHIVE_RETRY_NS;
    eg_archive_set_state(a, EG_DISK_FULL);
    eg_archive_turn_drop(a); /* also if it was full before */
}

void eg_archive_has_space(struct eg_archive *a) {
    if (a->p == NULL || !eg_archive_state_is(a, EG_DISK_FULL))
        return;
    eg_log_info("topic '%s' partition %u: there is space again", eg_topic_name(a->p->topic), a->p->number);
    eg_archive_set_state(a, EG_DISK_OK);
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

static void publish(struct eg_archive *a, const struct eg_archive_file *f, struct eg_place at) {
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
    int64_t before = (int64_t)eg_load_relaxed(&s->durable_end);
    if (before >= end)
        return;
    /* Release, then the count. Partner: producers and consumers that want it durable. */
    eg_store_release(&s->durable_end, (uint64_t)end);
    a->gather.woken += tell_some(s, eg_durable_bits(before, end));
    eg_wake_collect(a->p->waiters, ring_bells, a->d);
}

/* prev comes first: nothing of cur is durable before all of prev is. */
static void publish_all(struct eg_archive *a) {
    struct eg_archive_file *f = a->prev;
    if (f != NULL && !f->syncing && !f->pushing && f->synced.pos == f->copied.pos) {
        publish(a, f, f->synced);
        struct eg_log_file done = {.seq = f->seq,
                                   .base = f->base,
                                   .end = f->base + (int64_t)f->synced.index,
                                   .bytes = f->allocated,
                                   .written_ns = eg_now_ns()};
        if (eg_files_add(&a->files, &done) != EAGRE_OK)
            eg_log_error("%s", eg_error_text());
        a->prev = NULL;
        eg_archive_file_free(f);
    }
    if (a->prev != NULL)
        publish(a, a->prev, a->prev->synced);
    else if (a->cur != NULL && a->cur->synced.pos > EG_SEGMENT_DATA)
        publish(a, a->cur, a->cur->synced);
}

/* ---- writing and flushing --------------------------------------------------------------------------------------- */

/* The topic went while one of our jobs made a file: its directory may have come back behind the sweep. */
static void forget_again(struct eg_archive *a) {
    if (a->left_jobs && a->d->retention != NULL && eg_topic_by_uid(a->d, a->dir.topic_uid) == NULL)
        eg_retention_forget_topic(a->d, a->dir.topic_uid);
}

void eg_archive_job_ended(struct eg_archive *a) {
    a->jobs--;
    if (a->p != NULL) {
        eg_slots_wake(a->d, a->p);
        return;
    }
    if (a->jobs > 0)
        return;
    forget_again(a);
    if (a->cur != NULL)
        eg_archive_file_free(a->cur);
    if (a->prev != NULL)
        eg_archive_file_free(a->prev);
    eg_staging_free(&a->fill);
    eg_files_free(&a->files);
    free(a->unrecovered);
    free(a);
}

static void write_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct eg_archive_file *f = eg_container_of(job, struct eg_archive_file, write);
    struct eg_archive *a = f->a;
    int error = -job->result;
    f->writing = false;
    eg_staging_free(&f->flight);
    if (error == 0) {
        EG_FAULT("arch.written");
        f->written = f->flown;
        d->figures.disk_bytes += job->bytes;
        eg_archive_has_space(a);
        eg_archive_job_ended(a);
        return;
    }
    if (f->write.then != NULL) { /* not submitted: its done() does not come, and that flush is none */
        f->syncing = false;
        f->flush = f->covered_flush;
        f->covered = f->synced;
        if (f->background)
            eg_archive_turn_end(d);
        a->jobs--;
    }
    if (error == ENOSPC || error == EDQUOT) {
        eg_archive_full(a, "no space to write to its log file");
        /* What was not written is copied again. */
        eg_staging_free(&a->fill);
        f->copied = f->written;
        f->sealed = false;
        free(f->entries); /* it can be made anew from the log */
        f->entries = NULL;
    } else {
        broken(a, f, "write", error);
    }
    eg_archive_job_ended(a);
}

static void push_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct eg_archive_file *f = eg_container_of(job, struct eg_archive_file, push);
    struct eg_archive *a = f->a;
    (void)d;
    f->pushing = false;
    if (job->result != 0) /* it has been told now: fdatasync would not tell it again */
        broken(a, f, "writeback", -job->result);
    else if (a->p != NULL)
        publish_all(a); /* prev may have waited for us */
    eg_archive_job_ended(a);
}

/* What was written is sent to the medium early, so that the flush is short. */
static void push(struct eg_archive *a, struct eg_archive_file *f) {
    uint64_t to = f->written.pos & ~(uint64_t)(EG_PAGE - 1);
    f->push = (struct eg_io_job){
        .op = EG_IO_WRITEBACK, .fd = f->fd, .at = f->pushed, .bytes = to - f->pushed, .done = push_done};
    f->pushed = to;
    f->pushing = true;
    a->jobs++;
    eg_io_submit(a->d->disk_io, &f->push);
}

static void sync_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct eg_archive_file *f = eg_container_of(job, struct eg_archive_file, sync);
    struct eg_archive *a = f->a;
    int64_t took = eg_mono_ns() - f->sync_mono_ns;
    f->syncing = false;
    if (f->background)
        eg_archive_turn_end(d);
    d->figures.flushes++;
    d->figures.flush_last_ns = took;
    if (took > d->figures.flush_max_ns)
        d->figures.flush_max_ns = took;
    if (job->result != 0) {
        broken(a, f, "fdatasync", -job->result);
    } else {
        EG_FAULT("arch.synced");
        f->synced = f->covered;
        f->pushed = f->pushed > f->synced.pos ? f->pushed : f->synced.pos & ~(uint64_t)(EG_PAGE - 1);
        f->dirty_ns = f->copied.pos > f->synced.pos ? f->sync_ns : 0;
        if (a->p != NULL) {
            eg_archive_gather_begin(a, took);
            publish_all(a);
        }
    }
    eg_archive_job_ended(a);
}

/* Write what was copied; sync: then flush. A flush covers all that was copied before it began, and nothing is written
 * while it is under way: what a frame's flush number proves rests on that (src/log/logfile.h). */
static void submit(struct eg_archive *a, struct eg_archive_file *f, bool sync, int64_t now) {
    struct eg_disk_io *io = a->d->disk_io;
    if (sync) {
        f->syncing = true;
        f->background = a->has_turn;
        a->has_turn = false;
        f->sync_ns = now;
        f->sync_mono_ns = eg_mono_ns();
        f->covered = f->copied;
        f->covered_flush = f->flush;
        f->flush = eg_logfile_flush_next(f->flush); /* of what is copied from now on */
        f->sync = (struct eg_io_job){.op = EG_IO_DATASYNC, .fd = f->fd, .done = sync_done};
        a->jobs++;
    }
    if (a->fill.used == 0) {
        eg_io_submit(io, &f->sync);
        return;
    }
    EG_FAULT("arch.copied");
    f->writing = true;
    memset(a->fill.data + a->fill.used, 0, sizeof(uint64_t)); /* there is room: staging_begin() */
    a->fill.used += eg_logfile_end_bytes(&f->log, f->copied.pos);
    f->flight = a->fill;
    f->flown = f->copied;
    a->fill = (struct eg_staging){0};
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

/* ---- copying ----------------------------------------------------------------------------------------------------- */

/* Room for all partitions together is bounded; one frame always finds it. */
static size_t staging_bytes(const struct eg_archive *a) {
    uint32_t share = STAGING_ALL / (a->d->figures.partitions > 0 ? a->d->figures.partitions : 1);
    return share > STAGING_MAX ? STAGING_MAX : share < STAGING_MIN ? STAGING_MIN : share;
}

static bool staging_begin(struct eg_archive *a, const struct eg_archive_file *f, uint64_t bytes) {
    struct eg_staging *s = &a->fill;
    size_t cap = (bytes > staging_bytes(a) ? bytes : staging_bytes(a)) + sizeof(uint64_t); /* and the end word */
    /* In memory it lies at the same place of a page as in the file: where they differ, some processors (AMD's Zen, in rep
     * movsb) copy to the page cache at a fifth of the speed. */
    uint64_t in_page = f->copied.pos & (EG_PAGE - 1);
    eg_staging_free(s);
    uint8_t *pages = aligned_alloc(EG_PAGE, eg_align_up(in_page + cap, EG_PAGE));
    if (pages == NULL)
        return false;
    s->data = pages + in_page;
    s->cap = cap;
    s->at = f->copied.pos;
    return true;
}

/* Up to EG_ARCHIVE_SLICE bytes from the ring. True: there is more at once. */
static bool copy(struct eg_archive *a, struct eg_archive_file *f) {
    struct eg_partition *p = a->p;
    uint64_t capacity = eg_partition_capacity(p), budget = EG_ARCHIVE_SLICE;
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
        if (word == 0 && f->seq < p->active) { /* `active` moved when the segment's end was set: src/log/reader.c */
            eg_partition_fail(p, "segment %" PRIu64 ", position %" PRIu64 ": a hole in a segment that is closed", f->seq, pos);
            return false;
        }
        if (eg_word_state(word) != EG_PUBLISHED)
            return false;
        /* Longer than any claim: it would be copied, or zeroed, at one go. */
        bool huge = eg_word_kind(word) != EG_KIND_EOS && eg_word_length(word) > eg_record_bytes_max(capacity);
        if (huge || !eg_word_is_sane(word, pos, capacity, align)) {
            eg_partition_fail(p, "segment %" PRIu64 ", position %" PRIu64 ": %016" PRIx64 " is no frame word", f->seq, pos, word);
            return false;
        }
        uint64_t length = eg_word_length(word), touched = eg_word_kind(word) == EG_KIND_DATA ? length : sizeof(uint64_t);
        if (pos + touched > there && (!eg_buffer_sync(a->d, p, n) || pos + touched > eg_buffer_allocated(p, n)))
            return false;
        uint64_t needs = eg_word_kind(word) == EG_KIND_EOS ? EG_FRAME_HEADER : length;
        if (a->fill.used == 0 && !staging_begin(a, f, needs))
            return false;
        if (a->fill.used + needs + sizeof(uint64_t) > a->fill.cap) {
            a->fill.whole = true;
            return false; /* for the next write */
        }
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

/* Is there anything to be written where the next file would begin? Before that, none is made. A segment that was closed
 * before it held anything needs none. */
static bool has_records(const struct eg_archive *a) {
    struct eg_partition *p = a->p;
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&p->status->slot[a->seq % eg_partition_slots(p)]));
    uint64_t end = a->start.pos + sizeof(uint64_t);
    if (a->start.pos >= a->dir.capacity)
        return true;
    if (end > eg_buffer_allocated(p, n))
        (void)eg_buffer_sync(a->d, p, n);
    if (end > eg_buffer_allocated(p, n))
        return false;
    uint64_t word = eg_load_relaxed(&eg_frame_at(p->buffers[n].base, a->start.pos)->word);
    return word != 0 && (a->start.pos > EG_SEGMENT_DATA || eg_word_kind(word) != EG_KIND_EOS);
}

/* ---- one step ------------------------------------------------------------------------------------------------- */

/* Who asks from now on rings. Before copying, so that what they published before is copied. */
static void take_wish(struct eg_archive *a) {
    _Atomic int64_t *wanted = &a->p->ring->durable_wanted;
    int64_t w = eg_load_relaxed(wanted) != 0 ? eg_exchange_acq_rel(wanted, 0) : 0;
    /* Nobody waits for more than the ring can hold: a nonsense wish must end some time. */
    int64_t most = a->p->base[a->p->active % eg_partition_slots(a->p)] +
                   eg_partition_slots(a->p) * eg_partition_records_max(a->p);
    w = w < most ? w : most;
    if (w > a->wanted)
        a->wanted = w;
}

static bool is_awaited(const struct eg_archive *a, const struct eg_archive_file *f) {
    /* Anything: only a reason to hurry. */
    return a->wanted > (int64_t)eg_load_relaxed(&a->p->status->durable_end) || f->sealed || a->finishing;
}

/* Flush, though nobody waits? *due: else when. */
static bool is_due(const struct eg_archive *a, const struct eg_archive_file *f, int64_t now, int64_t *due) {
    if (f->copied.pos - f->synced.pos >= (uint64_t)setting(a, EG_SET_FLUSH_BYTES))
        return true;
    int64_t at = f->dirty_ns + setting(a, EG_SET_FLUSH_MS) * EG_NS_PER_MS;
    if (at > now && at < *due)
        *due = at;
    return at <= now;
}

/* Is there disk space behind all that would be written now? More is asked for in time. */
static bool has_room(struct eg_archive *a, struct eg_archive_file *f) {
    uint64_t end = f->copied.pos + (a->fill.used > 0 ? eg_logfile_end_bytes(&f->log, f->copied.pos) : 0);
    uint64_t ahead = f->allocated < 2 * AHEAD_MAX ? f->allocated / 2 : AHEAD_MAX;
    if (f->allocated < a->dir.capacity && f->allocated < end + ahead && !a->calling)
        (void)eg_archive_file_grow(a, f, end);
    return end <= f->allocated;
}

/* All of it is written, and its last flush is under way or done: on to the next one. */
static bool go_on(struct eg_archive *a, struct eg_archive_file *f) {
    if (!f->sealed || a->fill.used > 0 || f->writing || f->growing || a->prev != NULL || f->covered.pos != f->copied.pos)
        return false;
    eg_archive_turn_drop(a);
    eg_archive_file_index(a, f);
    a->prev = f;
    a->cur = NULL;
    a->seq = f->seq + 1;
    a->start = (struct eg_place){a->seq, EG_SEGMENT_DATA, 0};
    a->start_flush = 1;
    publish_all(a);
    return true;
}

int64_t eg_archive_work(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    struct eg_archive *a = p->archive;
    int64_t idle = now + setting(a, EG_SET_FLUSH_MS) * EG_NS_PER_MS, due = INT64_MAX, looked_ns = a->looked_ns;
    (void)d;
    a->looked_ns = now;
    if (eg_archive_state_is(a, EG_DISK_ERROR))
        return INT64_MAX;
    if (eg_archive_state_is(a, EG_DISK_FULL)) {
        if (now < a->retry_ns)
            return a->retry_ns;
        a->retry_ns = now + EG_ARCHIVE_RETRY_NS;
    }
    if (a->cur == NULL && (a->seq < p->active || (a->seq == p->active && has_records(a))) &&
        (a->cur = eg_archive_file_begin(a)) == NULL)
        return now + EG_ARCHIVE_RETRY_NS;
    struct eg_archive_file *f = a->cur;
    if (f == NULL)
        return p->topic->client_count > 0 ? idle : INT64_MAX;
    if (f->fd < 0 && !a->calling && !eg_archive_file_make(a, f))
        return now + EG_ARCHIVE_RETRY_NS;
    /* Else they may wait for the end of that; or nobody needs to ring, for we look again very soon. */
    if (!f->writing && !f->syncing && !a->gather.under_way)
        take_wish(a);
    bool more = copy(a, f);
    if (eg_partition_failed(p))
        return INT64_MAX;
    bool dirty = f->copied.pos > f->synced.pos;
    if (dirty && f->dirty_ns == 0) /* it may have come right after the last look */
        f->dirty_ns = looked_ns != 0 ? looked_ns : now;
    if (go_on(a, f))
        return 0;
    if (!f->pushing && !f->syncing && f->written.pos - f->pushed >= PUSH)
        push(a, f);
    /* The end of a job wakes us. And what lies in a file proves that the file before is whole and durable (recover.c). */
    if (f->fd < 0 || f->writing || f->syncing || (a->prev != NULL && f->written.pos == EG_SEGMENT_DATA) || !has_room(a, f))
        return more && !a->fill.whole ? 0 : idle;

    bool awaited = dirty && is_awaited(a, f);
    /* Who waits for what is far ahead is not served by a flush of each write on the way there. */
    bool behind = (more || a->fill.whole) && f->copied.pos - f->synced.pos < (uint64_t)setting(a, EG_SET_FLUSH_BYTES);
    a->gather.under_way = awaited && eg_archive_gathers(a, f, now, &due);
    if (a->gather.under_way)
        return due;
    bool timely = dirty && !awaited && is_due(a, f, now, &due);
    if (!timely)
        eg_archive_turn_drop(a);
    if ((awaited && !behind) || (timely && eg_archive_turn_take(a)))
        submit(a, f, true, now);
    else if (a->fill.used > 0 && (a->fill.whole || a->fill.used >= EG_ARCHIVE_SLICE || a->fill.used >= a->fill.cap / 2))
        submit(a, f, false, now);
    if (!a->has_spare && !a->calling && !a->finishing && now >= a->spare_retry_ns && f->copied.pos > a->dir.capacity / 2)
        eg_archive_file_spare(a);
    if (more && !a->fill.whole)
        return 0;
    /* What is copied and not written waits for a flush; and records come without anybody ringing for them. */
    return due < idle ? due : idle;
}

void eg_archive_failed(struct eg_partition *p) {
    if (p->archive != NULL && eg_partition_failed(p))
        eg_archive_turn_drop(p->archive);
}

bool eg_archive_has(const struct eg_partition *p, uint64_t seq) {
    const struct eg_archive *a = p->archive;
    return a->unrecovered == NULL && seq < (a->prev != NULL ? a->prev->seq : a->seq);
}

struct eg_file_table *eg_archive_files(struct eg_partition *p) { return &p->archive->files; }

const struct eg_log_dir *eg_archive_dir(const struct eg_partition *p) { return &p->archive->dir; }

const char *eg_archive_unrecovered(const struct eg_partition *p) { return p->archive->unrecovered; }

int64_t eg_archive_base(const struct eg_partition *p) {
    const struct eg_archive *a = p->archive;
    uint64_t seq = a->prev != NULL ? a->prev->seq : a->seq;
    if (p->buffers != NULL && seq >= p->first && seq <= p->active)
        return p->base[seq % eg_partition_slots(p)];
    if (p->buffers == NULL)
        return eg_load_relaxed(&p->status->start_offset);
    return (int64_t)eg_load_relaxed(&p->status->durable_end);
}

/* ---- beginning and end -------------------------------------------------------------------------------------------------- */

int eg_archive_open(struct eg_daemon *d, struct eg_partition *p, struct eg_file_table *table, const char *unrecovered) {
    struct eg_archive *a = calloc(1, sizeof(*a));
    if (a == NULL || (unrecovered != NULL && (a->unrecovered = strdup(unrecovered)) == NULL)) {
        free(a);
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s' partition %u: no memory", eg_topic_name(p->topic), p->number);
    }
    a->d = d;
    a->p = p;
    a->files = *table;
    *table = (struct eg_file_table){0};
    eg_log_dir_init(&a->dir, d->config.dir, p->topic->meta.uid, p->number, p->uid,
                    (uint32_t)p->topic->settings.v[EG_SET_RECORD_ALIGNMENT], eg_partition_capacity(p),
                    d->config.disk_min_free_bytes);
    p->archive = a;
    if (unrecovered != NULL)
        eg_archive_set_state(a, EG_DISK_ERROR);
    return EAGRE_OK;
}

void eg_archive_begin(struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    struct eg_partition_status *s = p->status;
    uint64_t at = eg_load_relaxed(&s->archived_at), noted = eg_load_relaxed(&s->archived_seq);
    a->start = (struct eg_place){noted, eg_hint_pos(at), eg_hint_index(at)};
    a->start_flush = eg_load_relaxed(&s->archived_flush);
    /* That segment is on disk to its end: and so it is if its slot is on the way to its next life. */
    /* publish() was cut off between its notes' stores: the place is the next segment's, the seq is not yet. What was said to
     * be durable tells. */
    bool whole = a->start.pos == EG_SEGMENT_DATA && noted >= p->first && noted < p->active &&
                 p->base[(noted + 1) % eg_partition_slots(p)] > p->base[noted % eg_partition_slots(p)] &&
                 (int64_t)eg_load_relaxed(&s->durable_end) >= p->base[(noted + 1) % eg_partition_slots(p)];
    if (whole || a->start.pos >= a->dir.capacity || noted < p->first) {
        a->start = (struct eg_place){noted + 1 > p->first ? noted + 1 : p->first, EG_SEGMENT_DATA, 0};
        a->start_flush = 1;
    }
    a->seq = a->start.seq;
    /* What is not whole is no file for readers yet. The last whole one ends where this one begins. */
    struct eg_log_file *last;
    while ((last = eg_files_last(&a->files)) != NULL && last->seq >= a->seq) {
        if (last->seq == p->active)
            eg_retention_began(p, last->created_ns);
        a->files.count--;
    }
    if (last != NULL && (last->end < 0 || last->damaged)) {
        if (!last->damaged && last->seq == noted && !whole)
            last->end = last->base + (int64_t)eg_hint_index(at);
        else if (a->seq >= p->first && a->seq <= p->active)
            last->end = p->base[a->seq % eg_partition_slots(p)];
        else
            last->end = (int64_t)eg_load_relaxed(&s->durable_end);
    }
    /* It may have died between the note and telling: who waits must not wait until another record comes. */
    int64_t end = -1;
    if (a->seq >= p->first && a->seq <= p->active)
        end = p->base[a->seq % eg_partition_slots(p)] + (int64_t)a->start.index;
    else if (last != NULL && !last->damaged)
        end = last->end;
    if ((int64_t)eg_load_relaxed(&s->durable_end) < end) {
        eg_store_release(&s->durable_end, (uint64_t)end); /* partner: as in publish() */
        tell(s);
    }
    if (eg_archive_state_is(a, EG_DISK_FULL))
        a->retry_ns = 0; /* a predecessor's: see for ourselves */
}

void eg_archive_close(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    (void)d;
    if (a == NULL)
        return;
    eg_archive_turn_drop(a);
    p->archive = NULL;
    a->p = NULL;
    a->left_jobs = a->jobs > 0;
    a->jobs++; /* ours */
    eg_archive_job_ended(a);
}

static bool is_all_durable(const struct eg_archive *a) {
    const struct eg_archive_file *f = a->cur;
    if (a->fill.used > 0 || a->prev != NULL || (f != NULL && (f->writing || f->syncing || f->synced.pos != f->copied.pos)))
        return false;
    return a->seq > a->p->active || (a->seq == a->p->active && f == NULL && !has_records(a));
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
        if (eg_partition_failed(p) || !eg_archive_state_is(a, EG_DISK_OK) || !eg_slots_follow(p, eg_mono_ns()))
            return false;
        if (is_all_durable(a))
            return true;
        uint64_t before = a->cur != NULL ? a->cur->copied.pos : 0;
        int64_t due = eg_archive_work(d, p, eg_mono_ns());
        if (due == 0 || (a->cur != NULL && a->cur->copied.pos != before))
            continue;
        if (a->jobs > 0 && eg_io_wait(d->disk_io))
            continue;
        return is_all_durable(a); /* a claim that nobody publishes is in the way */
    }
}
