/* disk_messages.c - the messages about what is on disk. */
#include "archive.h"
#include "clients.h"
#include "handlers.h"
#include "partition.h"
#include "retention.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"

#define NAME_CAP 1024 /* longer than a valid one, so that the error can be about the name */

static int malformed(const char *what) { return eg_error_set(EAGRE_E_PROTOCOL, "a malformed %s", what); }

static int check_disk(const struct eg_partition *p) {
    if (p->archive == NULL)
        return eg_error_set(EAGRE_E_UNSUPPORTED, "topic '%s' has storage=memory: it has no log files", eg_topic_name(p->topic));
    return EAGRE_OK;
}

/* And are its files known? */
static int check_files(const struct eg_partition *p) {
    int rc = check_disk(p);
    const char *why = rc == EAGRE_OK ? eg_archive_unrecovered(p) : NULL;
    return why == NULL ? rc : eg_error_set(EAGRE_E_IO, "topic '%s' partition %u: %s", eg_topic_name(p->topic), p->number, why);
}

enum where { HERE = 0, IN_RING = 1, BEFORE_START = 2, DAMAGED = 3, IN_GAP = 4 };

/* The file with this offset, or the first one behind it. */
static enum where by_offset(struct eg_partition *p, int64_t offset, struct eg_log_file **out) {
    struct eg_file_table *t = eg_archive_files(p);
    struct eg_log_file *before = NULL, *f = NULL;
    int64_t begin = (int64_t)eg_load_relaxed(&p->status->log_start);
    if (offset < begin)
        return BEFORE_START;
    size_t at = eg_files_behind(t, offset);
    f = eg_files_at(t, at);
    before = at > 0 ? eg_files_at(t, at - 1) : NULL;
    if (f == NULL) { /* the ring, or between the last file and it */
        int64_t start = eg_load_relaxed(&p->status->start_offset);
        /* Where the log begins is no place that anybody has read to. */
        return offset >= start || before == NULL || offset == before->end || offset == begin ? IN_RING : IN_GAP;
    }
    *out = f;
    if (offset < f->base && (before == NULL || offset != before->end) && offset != begin)
        return IN_GAP;
    return f->damaged ? DAMAGED : HERE;
}

static enum where by_seq(struct eg_partition *p, uint64_t seq, struct eg_log_file **out) {
    struct eg_file_table *t = eg_archive_files(p);
    *out = eg_files_from_seq(t, seq); /* a start after a crash leaves out seqs */
    if (*out != NULL)
        return (*out)->damaged ? DAMAGED : HERE;
    return IN_RING;
}

int eg_handle_SEGMENT(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    struct eg_partition *p = NULL;
    uint32_t uid = eg_dec_u32(in), number = eg_dec_u32(in);
    uint8_t by = eg_dec_u8(in);
    int64_t value = eg_dec_i64(in);
    if (!eg_dec_end(in) || by > 1 || value < 0)
        return malformed("SEGMENT");
    int rc = eg_find_granted(d, s, EG_ROLE_CONSUMER, uid, number, &p);
    if (rc == EAGRE_OK)
        rc = check_files(p);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_log_file *f = NULL;
    enum where where = by == 0 ? by_offset(p, value, &f) : by_seq(p, (uint64_t)value, &f);
    int fd;
    /* Opened here, not in a worker: two look-ups in a directory that the kernel knows, no data, once a file that somebody reads;
     * and who asks again and again gets no more turns than with any other message. Kept open they would hold expired files. */
    if (where == HERE) {
        rc = eg_log_dir_open(eg_archive_dir(p), f->seq, false, &fd);
        if (rc != EAGRE_OK)
            return rc;
        r->close_after[r->nfds] = true;
        r->fds[r->nfds++] = fd;
        if (eg_log_dir_open(eg_archive_dir(p), f->seq, true, &fd) == EAGRE_OK) { /* may be missing */
            r->close_after[r->nfds] = true;
            r->fds[r->nfds++] = fd;
        }
    }
    struct eg_file_table *t = eg_archive_files(p);
    const struct eg_log_file *first = eg_files_at(t, 0), *last = t->count > 0 ? eg_files_at(t, t->count - 1) : NULL;
    eg_enc_u8(r->out, (uint8_t)where);
    eg_enc_u64(r->out, f != NULL ? f->seq : 0);
    eg_enc_i64(r->out, f != NULL ? f->base : 0);
    eg_enc_i64(r->out, f != NULL ? f->end : 0);
    eg_enc_u64(r->out, eg_partition_capacity(p));
    eg_enc_u64(r->out, first != NULL ? first->seq : 0);
    eg_enc_u64(r->out, last != NULL ? last->seq : 0);
    return EAGRE_OK;
}

/* A partition of a topic that the peer may administer. */
static int find_for_admin(struct eg_daemon *d, const struct eg_session *s, const char *name, uint32_t number,
                          struct eg_partition **out) {
    struct eg_peer peer = {.uid = s->uid, .gid = s->gid, .sock = s->fd};
    struct eg_topic *t = NULL;
    int rc = eg_topic_find_for_admin(d, &peer, name, &t);
    if (rc != EAGRE_OK)
        return rc;
    if (number >= t->partitions)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %u, not %u", eg_topic_name(t),
                            t->partitions - 1, number);
    *out = t->part[number];
    return check_disk(*out);
}

int eg_handle_TRIM(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_partition *p = NULL;
    eg_dec_str(in, name, sizeof(name));
    uint32_t number = eg_dec_u32(in);
    int64_t before = eg_dec_i64(in);
    if (!eg_dec_end(in) || before < -1)
        return malformed("TRIM");
    int rc = find_for_admin(d, s, name, number, &p);
    if (rc == EAGRE_OK)
        rc = check_files(p);
    if (rc == EAGRE_OK && before < 0)
        before = (int64_t)eg_load_relaxed(&p->status->durable_end);
    if (rc == EAGRE_OK)
        rc = eg_retention_trim(d, p, before);
    if (rc == EAGRE_OK)
        eg_enc_i64(r->out, (int64_t)eg_load_relaxed(&p->status->log_start));
    return rc;
}

int eg_handle_DISK_RESUME(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in, struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_partition *p = NULL;
    (void)r;
    eg_dec_str(in, name, sizeof(name));
    uint32_t number = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return malformed("DISK_RESUME");
    int rc = find_for_admin(d, s, name, number, &p);
    return rc == EAGRE_OK ? eg_archive_resume(d, p) : rc;
}
