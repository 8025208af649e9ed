#include "offset_writer.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "members_store.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"

#define RETRY_NS EG_NS_PER_S

/* ---- the job ------------------------------------------------------------------------------------------------- */

/* In the worker thread, or in the loop. */
static int write_rows(void *arg) {
    struct eg_offset_writer *w = arg;
    int rc = eg_meta_offsets_put(w->meta, w->rows, w->count, w->groups, w->group_count);
    pthread_mutex_lock(&w->mutex);
    w->result = rc;
    if (rc != EAGRE_OK)
        snprintf(w->why, sizeof(w->why), "%s", eg_error_text());
    w->finished = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mutex);
    return 0;
}

static bool reserve_rows(struct eg_offset_writer *w, size_t rows, size_t groups) {
    if (rows > w->cap) {
        struct eg_meta_offset *all = realloc(w->rows, 2 * rows * sizeof(*all));
        if (all == NULL)
            return false;
        w->rows = all;
        w->cap = 2 * rows;
    }
    if (groups > w->group_cap) {
        struct eg_meta_group *all = realloc(w->groups, 2 * groups * sizeof(*all));
        if (all == NULL)
            return false;
        w->groups = all;
        w->group_cap = 2 * groups;
    }
    return true;
}

static void free_rows(struct eg_offset_writer *w) {
    for (size_t i = 0; i < w->count; i++)
        free((void *)(uintptr_t)w->rows[i].metadata);
    w->count = 0;
    w->group_count = 0;
}

static bool add_row(struct eg_offset_writer *w, const struct eg_group *g, const struct eg_committed *o) {
    char *metadata = o->metadata != NULL ? strdup(o->metadata) : NULL;
    if ((metadata == NULL) != (o->metadata == NULL) || !reserve_rows(w, w->count + 1, 0)) {
        free(metadata);
        return false;
    }
    w->rows[w->count++] = (struct eg_meta_offset){.group_uid = g->uid,
                                                  .topic_uid = o->topic_uid,
                                                  .partition = o->partition,
                                                  .flags = o->flags,
                                                  .offset = o->offset,
                                                  .time_ms = o->time_ms,
                                                  .stamp = o->stamp,
                                                  .metadata = metadata};
    return true;
}

/* Nothing of what is dirty changes its state before all of it is copied. */
static bool gather(struct eg_daemon *d) {
    struct eg_groups *all = d->groups;
    struct eg_offset_writer *w = all->writer;
    for (size_t i = 0; i < all->count; i++) {
        const struct eg_group *g = all->by_uid[i];
        if (!g->dirty)
            continue;
        for (size_t k = 0; k < g->offset_count; k++)
            if (g->offsets[k].dirty && !add_row(w, g, &g->offsets[k]))
                return false;
        if (g->generation > g->noted_generation) {
            if (!reserve_rows(w, 0, w->group_count + 1))
                return false;
            w->groups[w->group_count++] = (struct eg_meta_group){.uid = g->uid, .generation = g->generation};
        }
    }
    return true;
}

/* Rows of all that is dirty; what members have committed so far is covered by them. */
static int begin(struct eg_daemon *d) {
    struct eg_groups *all = d->groups;
    struct eg_offset_writer *w = all->writer;
    if (!gather(d)) {
        free_rows(w);
        w->retry_ns = eg_mono_ns() + RETRY_NS;
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to write committed offsets");
    }
    for (size_t i = 0; i < all->count; i++) {
        struct eg_group *g = all->by_uid[i];
        for (size_t k = 0; g->dirty && k < g->offset_count; k++) {
            g->offsets[k].writing = g->offsets[k].dirty;
            g->offsets[k].dirty = false;
        }
        g->dirty = false;
        for (struct eg_member *m = g->members; m != NULL; m = m->next)
            m->writing = m->commits;
    }
    w->dirty = w->hurry = w->finished = false;
    w->busy = true;
    return EAGRE_OK;
}

/* ---- its end --------------------------------------------------------------------------------------------------- */

static void tell(struct eg_member *m, uint64_t stored) {
    if (m->page == NULL || m->stored == stored)
        return;
    m->stored = stored;
    eg_store_release(&m->page->stored, stored);
    /* Release: who sees it sees what is stored. Partner: who waits for a commit. */
    atomic_fetch_add_explicit(&m->page->rings, 1, memory_order_release);
    eg_futex_wake(&m->page->rings, INT_MAX);
}

static void tell_all(struct eg_daemon *d) {
    const struct eg_groups *all = d->groups;
    for (size_t i = 0; i < all->count; i++)
        for (struct eg_member *m = all->by_uid[i]->members; m != NULL; m = m->next)
            tell(m, all->writer->dirty ? m->writing : m->commits);
}

static void report(struct eg_offset_writer *w) {
    if (w->result != EAGRE_OK && !w->failing)
        eg_log_error("committed offsets cannot be written, this is tried again each second: %s", w->why);
    else if (w->result == EAGRE_OK && w->failing)
        eg_log_info("committed offsets are written again");
    w->failing = w->result != EAGRE_OK;
}

/* The rows are written or not. */
static void finish(struct eg_daemon *d) {
    struct eg_offset_writer *w = d->groups->writer;
    struct eg_group *g = NULL;
    bool failed = w->result != EAGRE_OK, sweep = false;
    w->busy = false;
    for (size_t i = 0; i <= w->count; i++) {
        const struct eg_meta_offset *row = i < w->count ? &w->rows[i] : NULL;
        if (g != NULL && (row == NULL || row->group_uid != g->uid)) {
            if (sweep)
                eg_offsets_sweep(g);
            sweep = false;
        }
        if (row == NULL)
            break;
        g = eg_group_by_uid(d, row->group_uid); /* it may be gone, as may be its topic */
        struct eg_committed *o = g != NULL ? eg_offset_entry(g, row->topic_uid, row->partition) : NULL;
        if (o == NULL)
            continue;
        o->writing = false;
        sweep |= o->offset < 0;
        if (failed)
            o->dirty = g->dirty = w->dirty = true;
    }
    for (size_t i = 0; !failed && i < w->group_count; i++) {
        g = eg_group_by_uid(d, w->groups[i].uid);
        if (g != NULL && g->noted_generation < w->groups[i].generation)
            g->noted_generation = w->groups[i].generation;
    }
    free_rows(w);
    report(w);
    if (failed) {
        w->hurry = true;
        w->retry_ns = eg_mono_ns() + RETRY_NS;
        return;
    }
    EG_FAULT("group.committed");
    if (!w->dirty && eg_members_store_forget_offsets(d->groups->store) != EAGRE_OK)
        eg_log_debug("%s", eg_error_text()); /* they do no harm */
    tell_all(d);
}

static void done(struct eg_daemon *d, struct eg_io_job *job) {
    struct eg_offset_writer *w = eg_container_of(job, struct eg_offset_writer, job);
    w->submitted = false;
    if (w->busy) /* eg_offset_writer_flush() was not there before us */
        finish(d);
}

/* ---- who asks --------------------------------------------------------------------------------------------------- */

int64_t eg_offset_writer_tick(struct eg_daemon *d, int64_t now) {
    struct eg_offset_writer *w = d->groups->writer;
    if (!w->dirty || w->submitted)
        return INT64_MAX;
    int64_t due = w->hurry ? 0 : w->due_ns;
    due = w->retry_ns > due ? w->retry_ns : due;
    if (now < due)
        return due;
    if (begin(d) != EAGRE_OK)
        return w->retry_ns;
    w->submitted = true;
    w->job = (struct eg_io_job){.op = EG_IO_CALL, .call = write_rows, .arg = w, .done = done};
    eg_io_submit(d->disk_io, &w->job);
    return INT64_MAX;
}

int eg_offset_writer_flush(struct eg_daemon *d) {
    struct eg_offset_writer *w = d->groups->writer;
    if (w->busy) {
        pthread_mutex_lock(&w->mutex);
        while (!w->finished)
            pthread_cond_wait(&w->cond, &w->mutex);
        pthread_mutex_unlock(&w->mutex);
        finish(d);
    }
    if (!w->dirty)
        return EAGRE_OK;
    int rc = begin(d);
    if (rc != EAGRE_OK)
        return rc;
    write_rows(w);
    finish(d);
    return w->result == EAGRE_OK ? EAGRE_OK : eg_error_set(w->result, "%s", w->why);
}

void eg_offset_writer_settle(struct eg_daemon *d, struct eg_member *m) {
    const struct eg_offset_writer *w = d->groups->writer;
    if (!w->busy && !w->dirty)
        tell(m, m->commits);
}

int eg_offset_writer_open(struct eg_daemon *d) {
    struct eg_offset_writer *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory to write committed offsets");
    w->meta = d->meta;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->cond, NULL);
    d->groups->writer = w;
    return EAGRE_OK;
}

void eg_offset_writer_close(struct eg_daemon *d) {
    struct eg_offset_writer *w = d->groups->writer;
    while (w->submitted && eg_io_wait(d->disk_io)) {}
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->mutex);
    free_rows(w);
    free(w->rows);
    free(w->groups);
    free(w);
    d->groups->writer = NULL;
}
