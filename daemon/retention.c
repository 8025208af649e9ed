#include "retention.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "disk_io.h"
#include "log/rotate.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define LOOK_NS EG_NS_PER_S
#define NOTE_NS (5 * EG_NS_PER_S)
#define UNLINK_MAX 32u /* files of a partition that one job removes */
#define SWEEP_MAX 256u

struct eg_retention {
    int64_t look_ns, note_ns;
    bool noting;
    uint32_t jobs;
};

/* ---- what goes first: the log's start ------------------------------------------------------------------------- */

struct removal {
    struct eg_io_job job;
    struct eg_meta *meta;
    struct eg_log_dir dir;
    struct eg_meta_disk note;
    uint64_t seq[UNLINK_MAX]; /* not a range: after a crash they skip a million */
    uint32_t count;
    int status;
    char text[EG_ERROR_TEXT_MAX];
};

static struct eg_meta_disk note_of(const struct eg_partition *p) {
    const struct eg_partition_status *s = p->status;
    return (struct eg_meta_disk){.partition_uid = p->uid,
                                 .seq = eg_load_relaxed(&s->archived_seq),
                                 .pos = eg_hint_pos(eg_load_relaxed(&s->archived_at)),
                                 .log_start = (int64_t)eg_load_relaxed(&s->log_start)};
}

/* In a worker. The note first: the log's start never goes back, even if files come back after a crash. */
static int remove_files(void *arg) {
    struct removal *r = arg;
    r->status = eg_meta_disk_put(r->meta, &r->note, 1);
    EG_FAULT("trim.noted");
    for (uint32_t i = 0; r->status == EAGRE_OK && i < r->count; i++)
        r->status = eg_log_dir_unlink(&r->dir, r->seq[i], r->seq[i]);
    if (r->status != EAGRE_OK)
        snprintf(r->text, sizeof(r->text), "%s", eg_error_text());
    return 0;
}

static void files_removed(struct eg_daemon *d, struct eg_io_job *job) {
    struct removal *r = eg_container_of(job, struct removal, job);
    struct eg_partition *p = eg_topics_partition_by_uid(d, r->dir.topic_uid, r->dir.partition);
    if (r->status != EAGRE_OK)
        eg_log_error("%s", r->text); /* what was left goes at the next start */
    if (p != NULL && p->uid == r->dir.partition_uid)
        p->removing = false;
    d->retention->jobs--;
    free(r);
}

static void move_start(struct eg_partition *p, int64_t to) {
    if ((int64_t)eg_load_relaxed(&p->status->log_start) < to)
        eg_store_release(&p->status->log_start, (uint64_t)to); /* partner: readers' acquire */
}

/* Files that lie below the log's start go, some at a time. */
static void remove_below_start(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_file_table *t = eg_archive_files(p);
    int64_t start = (int64_t)eg_load_relaxed(&p->status->log_start);
    const struct eg_log_file *f = eg_files_at(t, 0);
    if (p->removing || f == NULL || f->end < 0 || f->end > start)
        return;
    struct removal *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return;
    r->meta = d->meta;
    r->dir = *eg_archive_dir(p);
    r->note = note_of(p);
    while (r->count < UNLINK_MAX && (f = eg_files_at(t, 0)) != NULL && f->end >= 0 && f->end <= start) {
        r->seq[r->count++] = f->seq;
        eg_files_drop_first(t);
    }
    r->job = (struct eg_io_job){.op = EG_IO_CALL, .call = remove_files, .arg = r, .done = files_removed};
    p->removing = true;
    d->retention->jobs++;
    eg_io_submit(d->disk_io, &r->job);
}

int eg_retention_trim(struct eg_daemon *d, struct eg_partition *p, int64_t before) {
    int64_t durable = (int64_t)eg_load_relaxed(&p->status->durable_end);
    if (before > durable)
        return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE,
                            "topic '%s' partition %u: offset %" PRId64 " lies beyond %" PRId64 ", up to where it is on disk",
                            eg_topic_name(p->topic), p->number, before, durable);
    /* Noted in any case: that it lies there may not be durable yet. */
    struct eg_meta_disk note = note_of(p);
    note.log_start = note.log_start > before ? note.log_start : before;
    int rc = eg_meta_disk_put(d->meta, &note, 1);
    if (rc != EAGRE_OK)
        return rc;
    move_start(p, before);
    remove_below_start(d, p);
    return EAGRE_OK;
}

/* ---- what has expired -------------------------------------------------------------------------------------------- */

static void expire(struct eg_partition *p, int64_t now) {
    const struct eg_settings *s = &p->topic->settings;
    struct eg_file_table *t = eg_archive_files(p);
    int64_t ms = s->v[EG_SET_RETENTION_MS], bytes = s->v[EG_SET_RETENTION_BYTES];
    uint64_t held = p->tail; /* the active one, and the whole ones */
    for (size_t i = 0; i < t->count; i++)
        held += eg_files_at(t, i)->bytes;
    for (size_t i = 0; i < t->count; i++) {
        const struct eg_log_file *f = eg_files_at(t, i);
        bool old = ms >= 0 && now - f->written_ns >= ms * EG_NS_PER_MS;
        bool over = bytes >= 0 && held - f->bytes >= (uint64_t)bytes;
        if ((!old && !over) || f->end < 0)
            break;
        held -= f->bytes;
        /* Behind it may be a gap. */
        const struct eg_log_file *next = eg_files_at(t, i + 1);
        int64_t begins = next != NULL ? next->base : eg_archive_base(p);
        move_start(p, begins > f->end ? begins : f->end);
    }
}

void eg_retention_began(struct eg_partition *p, int64_t realtime_ns) {
    int64_t age = eg_now_ns() - realtime_ns, now = eg_mono_ns();
    if (realtime_ns <= 0)
        return;
    p->began_seq = p->active;
    p->began_ns = now - (age < 0 ? 0 : age < now ? age : now - 1); /* clocks are set */
}

/* The active segment is closed, so that it can expire. As a producer would: eg_rotate(). */
static void roll(struct eg_daemon *d, struct eg_partition *p, int64_t now) {
    const struct eg_settings *s = &p->topic->settings;
    int64_t ms = s->v[EG_SET_SEGMENT_MS], keep = s->v[EG_SET_RETENTION_MS];
    ms = ms < 0 || (keep >= 0 && keep < ms) ? keep : ms;
    if (ms < 0 || s->v[EG_SET_WRITERS] == EG_WRITERS_SINGLE || p->buffers == NULL || eg_partition_failed(p))
        return;
    if (p->tail <= EG_SEGMENT_DATA)
        return;
    if (p->began_ns == 0 || p->began_seq != p->active) {
        p->began_ns = now;
        p->began_seq = p->active;
    }
    if (now - p->began_ns < ms * EG_NS_PER_MS)
        return;
    eg_partition_roll(d, p);
}

/* ---- what is known to be on disk, noted from time to time ---------------------------------------------------------- */

struct notes {
    struct eg_io_job job;
    struct eg_meta *meta;
    size_t count;
    int status;
    char text[EG_ERROR_TEXT_MAX];
    struct eg_meta_disk list[];
};

static int put_notes(void *arg) {
    struct notes *n = arg;
    n->status = eg_meta_disk_put(n->meta, n->list, n->count);
    if (n->status != EAGRE_OK)
        snprintf(n->text, sizeof(n->text), "%s", eg_error_text());
    return 0;
}

static void notes_put(struct eg_daemon *d, struct eg_io_job *job) {
    static struct eg_log_limit limit;
    struct notes *n = eg_container_of(job, struct notes, job);
    if (n->status != EAGRE_OK)
        eg_log_limited(&limit, EG_LOG_ERROR, "%s", n->text);
    d->retention->noting = false;
    d->retention->jobs--;
    free(n);
}

static bool has_moved(struct eg_partition *p) {
    uint64_t seq = eg_load_relaxed(&p->status->archived_seq), at = eg_load_relaxed(&p->status->archived_at);
    bool moved = seq != p->noted_seq || at != p->noted_at;
    p->noted_seq = seq;
    p->noted_at = at;
    return moved;
}

/* Of all partitions where something was flushed since the last time; NULL: none. */
static struct notes *notes_of(struct eg_daemon *d) {
    struct notes *n = malloc(sizeof(*n) + d->figures.partitions * sizeof(n->list[0]));
    if (n == NULL)
        return NULL;
    memset(n, 0, sizeof(*n));
    n->meta = d->meta;
    for (size_t i = 0; i < d->topics->count; i++)
        for (uint32_t k = 0; k < d->topics->list[i]->partitions; k++) {
            struct eg_partition *p = d->topics->list[i]->part[k];
            if (p->archive != NULL && p->buffers != NULL && has_moved(p))
                n->list[n->count++] = note_of(p);
        }
    if (n->count > 0)
        return n;
    free(n);
    return NULL;
}

void eg_retention_note(struct eg_daemon *d) {
    struct notes *n = notes_of(d);
    if (n == NULL)
        return;
    (void)put_notes(n);
    if (n->status != EAGRE_OK)
        eg_log_error("%s", n->text);
    free(n);
}

static void note_all(struct eg_daemon *d) {
    struct notes *n = notes_of(d);
    if (n == NULL)
        return;
    n->job = (struct eg_io_job){.op = EG_IO_CALL, .call = put_notes, .arg = n, .done = notes_put};
    d->retention->noting = true;
    d->retention->jobs++;
    eg_io_submit(d->disk_io, &n->job);
}

/* ---- topics that are gone --------------------------------------------------------------------------------------------- */

struct sweep {
    struct eg_io_job job;
    char dir[4096];
    uint32_t topic_uid; /* 0: only sweep */
    bool more;
    int status;
    char text[EG_ERROR_TEXT_MAX];
};

static void sweep(struct eg_daemon *d, uint32_t topic_uid);

static int sweep_some(void *arg) {
    struct sweep *s = arg;
    s->status = s->topic_uid != 0 ? eg_topic_dir_gone(s->dir, s->topic_uid) : EAGRE_OK;
    if (s->status == EAGRE_OK)
        s->status = eg_topic_dir_sweep(s->dir, SWEEP_MAX, &s->more);
    if (s->status != EAGRE_OK)
        snprintf(s->text, sizeof(s->text), "%s", eg_error_text());
    return 0;
}

static void swept(struct eg_daemon *d, struct eg_io_job *job) {
    struct sweep *s = eg_container_of(job, struct sweep, job);
    if (s->status != EAGRE_OK)
        eg_log_error("%s", s->text);
    d->retention->jobs--;
    if (s->more && d->stop == EG_STOP_NOT)
        sweep(d, 0);
    free(s);
}

static void sweep(struct eg_daemon *d, uint32_t topic_uid) {
    struct sweep *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return; /* at the next start */
    memcpy(s->dir, d->config.dir, sizeof(s->dir));
    s->topic_uid = topic_uid;
    s->job = (struct eg_io_job){.op = EG_IO_CALL, .call = sweep_some, .arg = s, .done = swept};
    d->retention->jobs++;
    eg_io_submit(d->disk_io, &s->job);
}

void eg_retention_forget_topic(struct eg_daemon *d, uint32_t topic_uid) { sweep(d, topic_uid); }

/* ---- the service -------------------------------------------------------------------------------------------------------- */

static bool topic_exists(void *ctx, uint32_t topic_uid) { return eg_topic_by_uid(ctx, topic_uid) != NULL; }

static int start(struct eg_daemon *d) {
    d->retention = calloc(1, sizeof(*d->retention));
    if (d->retention == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for retention");
    /* What an earlier daemon left. That it cannot be had is no reason not to serve. */
    uint32_t last = 0;
    int rc = eg_meta_last_topic(d->meta, &last);
    if (rc == EAGRE_OK)
        rc = eg_topic_dirs_settle(d->config.dir, last, topic_exists, d);
    if (rc != EAGRE_OK)
        eg_log_error("%s", eg_error_text());
    sweep(d, 0);
    return EAGRE_OK;
}

static int64_t tick(struct eg_daemon *d, int64_t now) {
    struct eg_retention *r = d->retention;
    bool any = false;
    if (now < r->look_ns)
        return r->look_ns;
    for (size_t i = 0; i < d->topics->count; i++)
        for (uint32_t k = 0; k < d->topics->list[i]->partitions; k++) {
            struct eg_partition *p = d->topics->list[i]->part[k];
            if (p->archive == NULL)
                break; /* all of a topic's are alike */
            any = true;
            roll(d, p, now);
            expire(p, eg_now_ns());
            remove_below_start(d, p);
        }
    if (any && now >= r->note_ns && !r->noting) {
        note_all(d);
        r->note_ns = now + NOTE_NS;
    }
    r->look_ns = now + LOOK_NS;
    return any ? r->look_ns : INT64_MAX;
}

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    while (d->retention->jobs > 0 && eg_io_wait(d->disk_io)) {}
    free(d->retention);
    d->retention = NULL;
}

const struct eg_service eg_retention_service = {.name = "retention", .start = start, .tick = tick, .stop = stop};
