/*
 * archive_resume.c - out of EG_DISK_ERROR, when somebody says so: files that could not be recovered at the start are looked at
 * again; what is durable is read again from the medium first.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive_internal.h"
#include "recover.h"
#include "sys/errbuf.h"

struct reread {
    struct eg_io_job job;
    struct eg_archive *a;
    struct eg_log_dir dir;
    struct eg_logfile_id id;
    uint64_t pos;
    bool recover, cold; /* its files are not known yet; its memory is new */
    char topic[EG_TOPIC_NAME_MAX + 1];
    struct eg_meta_disk noted;
    struct eg_recovered found;
    char text[EG_ERROR_TEXT_MAX];
};

/* The page cache would say that all is well in any case: past it, where the file system lets us. */
static int read_medium(const struct eg_log_dir *dir, uint64_t seq, void *data, uint64_t bytes, uint64_t *got) {
    int fd, rc = eg_log_dir_open(dir, seq, false, &fd);
    *got = 0;
    if (rc != EAGRE_OK)
        return rc;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    bool direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
    ssize_t n = 1;
    while (rc == EAGRE_OK && n != 0 && *got < bytes) { /* a segment that was closed early ends before */
        n = pread(fd, (uint8_t *)data + *got, bytes - *got, (off_t)*got);
        if (n < 0 && errno == EINVAL && direct) {
            direct = false;
            fcntl(fd, F_SETFL, 0);
        } else if (n < 0 && errno != EINTR) {
            rc = eg_error_set(EAGRE_E_IO, "read at %" PRIu64 ": %s", *got, strerror(errno));
        } else if (n > 0) {
            *got += (uint64_t)n;
        }
    }
    close(fd);
    return rc;
}

static int reread(const struct reread *r) {
    struct eg_logfile l;
    struct eg_logfile_id id;
    struct eg_logfile_scan scan;
    uint64_t bytes = (r->pos + EG_PAGE - 1) / EG_PAGE * EG_PAGE; /* O_DIRECT wants whole blocks */
    uint64_t got = 0;
    void *data = NULL;
    if (r->pos <= EG_SEGMENT_DATA)
        return 0;
    int rc = posix_memalign(&data, EG_PAGE, bytes) == 0
                 ? EAGRE_OK
                 : eg_error_set(EAGRE_E_NO_MEMORY, "no memory for %" PRIu64 " bytes", bytes);
    if (rc == EAGRE_OK)
        rc = read_medium(&r->dir, r->id.seq, data, bytes < r->dir.capacity ? bytes : r->dir.capacity, &got);
    if (rc == EAGRE_OK)
        rc = eg_logfile_header_check(data, got, &r->id, &id, NULL);
    if (rc == EAGRE_OK) {
        eg_logfile_init(&l, &id, data, got < r->pos ? got : r->pos);
        eg_logfile_scan(&l, EG_SEGMENT_DATA, 0, 0, r->pos, &scan);
        if (scan.good_pos < r->pos)
            rc = eg_error_set(EAGRE_E_CORRUPT, "position %" PRIu64 ": %s", scan.good_pos, scan.reason);
    }
    free(data);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "%s/%020" PRIu64 ".log", r->dir.path, r->id.seq);
}

/* In a worker. */
static int look(void *arg) {
    struct reread *r = arg;
    int rc = r->recover ? eg_recover_again(r->topic, &r->dir, &r->noted, r->cold, &r->found) : EAGRE_OK;
    if (rc == EAGRE_OK)
        rc = reread(r);
    if (rc != EAGRE_OK)
        snprintf(r->text, sizeof(r->text), "%s", eg_error_text());
    return rc == EAGRE_OK ? 0 : -EIO;
}

static void take_files(struct eg_archive *a, struct reread *r) {
    eg_files_free(&a->files);
    a->files = r->found.files;
    r->found.files = (struct eg_file_table){0};
    free(a->unrecovered);
    a->unrecovered = NULL;
    eg_partition_recovered(a->p, &r->found);
    eg_log_info("topic '%s' partition %u: its files are recovered, up to offset %" PRId64, r->topic, a->p->number, r->found.end);
}

static void look_done(struct eg_daemon *d, struct eg_io_job *job) {
    struct reread *r = eg_container_of(job, struct reread, job);
    struct eg_archive *a = r->a;
    (void)d;
    a->calling = false;
    if (a->p != NULL && job->result != 0) {
        eg_log_error("topic '%s' partition %u: cannot resume: %s", eg_topic_name(a->p->topic), a->p->number, r->text);
    } else if (a->p != NULL) {
        if (r->recover)
            take_files(a, r);
        eg_log_info("topic '%s' partition %u: what is durable was read again and is sound; the rest is written again",
                    eg_topic_name(a->p->topic), a->p->number);
        if (a->cur != NULL)
            eg_archive_file_free(a->cur);
        if (a->prev != NULL)
            eg_archive_file_free(a->prev);
        a->cur = a->prev = NULL;
        eg_staging_free(&a->fill);
        if (a->p->buffers != NULL)
            eg_archive_begin(a->p);
        eg_archive_set_state(a, EG_DISK_OK);
    }
    eg_files_free(&r->found.files);
    free(r);
    eg_archive_job_ended(a);
}

int eg_archive_resume(struct eg_daemon *d, struct eg_partition *p) {
    struct eg_archive *a = p->archive;
    if (!eg_archive_state_is(a, EG_DISK_ERROR))
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %u: its disk is in no error", eg_topic_name(p->topic),
                            p->number);
    if (a->jobs > 0)
        return eg_error_set(EAGRE_E_BUSY, "topic '%s' partition %u: something is still under way: try again",
                            eg_topic_name(p->topic), p->number);
    struct reread *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory");
    r->a = a;
    r->dir = a->dir;
    r->recover = a->unrecovered != NULL;
    r->cold = p->buffers == NULL;
    snprintf(r->topic, sizeof(r->topic), "%s", eg_topic_name(p->topic));
    int rc = eg_meta_disk_get(d->meta, p->uid, &r->noted);
    if (rc != EAGRE_OK) {
        free(r);
        return rc;
    }
    r->pos = eg_hint_pos(eg_load_relaxed(&p->status->archived_at));
    r->id = (struct eg_logfile_id){.topic_uid = a->dir.topic_uid,
                                   .partition_uid = p->uid,
                                   .partition = p->number,
                                   .align = a->dir.align,
                                   .capacity = a->dir.capacity,
                                   .seq = eg_load_relaxed(&p->status->archived_seq)};
    r->job = (struct eg_io_job){.op = EG_IO_CALL, .call = look, .arg = r, .done = look_done};
    a->calling = true;
    a->jobs++;
    eg_io_submit(d->disk_io, &r->job);
    return EAGRE_OK;
}
