/* archive_file.c - the archiver's files are made, named, grown and indexed, in worker threads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive_internal.h"
#include "slots.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define GROW_MAX (UINT64_C(16) << 20) /* at a time; else as much as there is */

enum what { MAKE, GROW, SPARE, INDEX };

struct call {
    struct eg_io_job job;
    struct eg_archive *a;
    enum what what;
    struct eg_log_dir dir;
    struct eg_logfile_id id; /* MAKE, GROW, INDEX: which segment */
    int fd;                  /* MAKE: out, GROW: in */
    uint64_t from, to;       /* GROW; MAKE: what is kept of one that is there, then allocated is `to` */
    struct eg_logindex_header header;
    struct eg_logindex_entry *entries;
    size_t count;
    int status, error;
    char text[EG_ERROR_TEXT_MAX];
};

/* In a worker. */
static int do_call(void *arg) {
    struct call *c = arg;
    switch (c->what) {
    case GROW:
        c->status = eg_log_dir_grow(&c->dir, c->fd, c->from, c->to, &c->error);
        break;
    case INDEX:
        c->status = eg_log_dir_put_index(&c->dir, c->id.seq, &c->header, c->entries, c->count);
        break;
    default:
        EG_FAULT("file.begun");
        c->status = eg_log_dir_make(&c->dir, &c->error);
        if (c->status == EAGRE_OK)
            c->status = eg_log_dir_prepare(&c->dir, &c->error);
        EG_FAULT("file.created");
        if (c->status == EAGRE_OK && c->what == MAKE)
            c->status = eg_log_dir_name(&c->dir, &c->id, c->from, &c->fd, &c->to, &c->error);
        EG_FAULT("file.renamed");
    }
    if (c->status != EAGRE_OK)
        snprintf(c->text, sizeof(c->text), "%s", eg_error_text());
    return 0;
}

static bool is_full(const struct call *c) { return c->error == ENOSPC || c->error == EDQUOT || c->error == EFBIG; }

/* For the file that is written now. */
static void made_or_grown(struct eg_archive *a, struct call *c) {
    struct eg_archive_file *f = a->cur;
    if (c->what == GROW && f != NULL)
        f->growing = false;
    if (a->p == NULL || f == NULL || f->seq != c->id.seq || (c->what == MAKE && f->fd >= 0)) {
        if (c->what == MAKE && c->fd >= 0)
            close(c->fd);
        return;
    }
    if (c->status == EAGRE_OK) {
        f->fd = c->fd;
        f->allocated = c->to;
        eg_archive_has_space(a);
    } else if (is_full(c)) {
        eg_archive_full(a, c->text);
    } else {
        eg_log_error("topic '%s' partition %u: %s. Nothing of it is acknowledged as durable until: eagre topic resume",
                     eg_topic_name(a->p->topic), a->p->number, c->text);
        eg_archive_set_state(a, EG_DISK_ERROR);
    }
}

static void call_done(struct eg_daemon *d, struct eg_io_job *job) {
    static struct eg_log_limit limit;
    struct call *c = eg_container_of(job, struct call, job);
    struct eg_archive *a = c->a;
    (void)d;
    if (c->what != INDEX)
        a->calling = false;
    if (c->what == MAKE || c->what == GROW) {
        if (c->what == MAKE && c->status == EAGRE_OK)
            a->has_spare = false;
        made_or_grown(a, c);
    } else if (c->status != EAGRE_OK && a->p != NULL) { /* one can do without, for now */
        eg_log_limited(&limit, EG_LOG_WARNING, "topic '%s' partition %u: %s", eg_topic_name(a->p->topic), a->p->number, c->text);
        a->spare_retry_ns = c->what == SPARE ? eg_mono_ns() + EG_ARCHIVE_RETRY_NS : a->spare_retry_ns;
    } else if (c->what == SPARE) {
        a->has_spare = true;
    }
    free(c->entries);
    free(c);
    eg_archive_job_ended(a);
}

static struct call *new_call(struct eg_archive *a, enum what what) {
    struct call *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->a = a;
    c->what = what;
    c->dir = a->dir;
    c->fd = -1;
    return c;
}

static void submit(struct call *c) {
    c->job = (struct eg_io_job){.op = EG_IO_CALL, .call = do_call, .arg = c, .done = call_done};
    c->a->calling |= c->what != INDEX;
    c->a->jobs++;
    eg_io_submit(c->a->d->disk_io, &c->job);
}

bool eg_archive_file_make(struct eg_archive *a, const struct eg_archive_file *f) {
    struct call *c = new_call(a, MAKE);
    if (c == NULL)
        return false;
    c->id = f->id;
    c->from = f->written.pos;
    submit(c);
    return true;
}

bool eg_archive_file_grow(struct eg_archive *a, struct eg_archive_file *f, uint64_t to) {
    struct call *c = new_call(a, GROW);
    if (c == NULL)
        return false;
    uint64_t step = f->allocated < EG_LOG_STEP ? EG_LOG_STEP : f->allocated < GROW_MAX ? f->allocated : GROW_MAX;
    to = to > f->allocated + step ? to : f->allocated + step;
    c->id = f->id;
    c->fd = f->fd;
    f->growing = true; /* so the file stays */
    c->from = f->allocated;
    c->to = to < a->dir.capacity ? to : a->dir.capacity;
    submit(c);
    return true;
}

void eg_archive_file_spare(struct eg_archive *a) {
    struct call *c = new_call(a, SPARE);
    if (c != NULL)
        submit(c);
}

void eg_archive_file_index(struct eg_archive *a, struct eg_archive_file *f) {
    struct call *c = f->entries != NULL ? new_call(a, INDEX) : NULL;
    if (c == NULL)
        return;
    c->id = f->id;
    eg_logindex_header_make(&c->header, &f->id);
    c->entries = f->entries;
    c->count = f->builder.count;
    f->entries = NULL;
    submit(c);
}

/* ---- what is written now ----------------------------------------------------------------------------------- */

struct eg_archive_file *eg_archive_file_begin(struct eg_archive *a) {
    /* Its place in the table of whole files, and that of `prev`: a file that could not be put there when it is whole would be
     * missing to readers. So it is not begun, and producers wait when the ring is full. */
    if (eg_files_reserve(&a->files, 2) != EAGRE_OK)
        return NULL;
    struct eg_archive_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return NULL;
    f->a = a;
    f->fd = -1;
    f->seq = a->seq;
    f->base = a->p->base[a->seq % eg_partition_slots(a->p)];
    f->copied = f->written = f->synced = f->covered = a->start;
    f->pushed = a->start.pos;
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

void eg_archive_file_free(struct eg_archive_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    eg_staging_free(&f->flight);
    free(f->entries);
    free(f);
}
