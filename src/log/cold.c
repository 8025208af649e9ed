#include "log/cold.h"

#include <inttypes.h>

#include "sys/errbuf.h"

/* What is bad, and the place where a reader can go on: the same that eagred names when it starts. */
static int corrupt(const struct eg_partition_map *m, const struct eg_cold *c, const char *what) {
    struct eg_logfile_frame next;
    bool more = eg_logfile_find(&c->it.l, c->it.pos, c->it.index, &next);
    return eg_error_set(EAGRE_E_CORRUPT,
                        "partition %u: log file of segment %" PRIu64 ", byte %" PRIu64 " (offset %" PRId64
                        "): %s. The next good record is at offset %" PRId64 " or behind: seek there to go on",
                        m->number, c->file.seq, c->it.pos, c->file.base + (int64_t)c->it.index, what,
                        more ? c->file.base + (int64_t)next.index : c->file.end);
}

/* The file's header must say what the daemon said. */
static int begin(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_cold_file *file,
                 struct eg_logfile_id *id, struct eg_logfile *l) {
    struct eg_logfile_id expected = {.topic_uid = m->topic->topic_uid,
                                     .partition_uid = m->uid,
                                     .partition = m->number,
                                     .align = m->align,
                                     .capacity = m->capacity,
                                     .seq = file->seq};
    c->file = *file;
    int rc = eg_logfile_header_check(file->data, file->bytes, &expected, id, NULL);
    if (rc == EAGRE_OK && (id->base != file->base || file->end < file->base))
        rc = eg_error_set(EAGRE_E_CORRUPT, "it begins at offset %" PRId64 ", expected %" PRId64, id->base, file->base);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "partition %u: log file of segment %" PRIu64, m->number, file->seq);
    eg_logfile_init(l, id, file->data, file->bytes);
    return EAGRE_OK;
}

/* Over what is bad, or missing: to the first good frame behind, if record `index` does not lie before that. */
static bool step_over(struct eg_cold *c, uint64_t index) {
    struct eg_logfile_frame next;
    if (!eg_logfile_find(&c->it.l, c->it.pos, c->it.index, &next) || next.index > index)
        return false;
    c->it.pos = next.pos;
    c->it.index = next.index;
    return true;
}

/* Step to record `index` from the place that is known before it; from the start if that place is none. Damage before it is
 * stepped over: who asks for what lies behind was told of it, or began there. */
static int walk_to(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_logfile *l, uint64_t pos,
                   uint64_t at, uint64_t index) {
    struct eg_logfile_frame first;
    if (pos != EG_SEGMENT_DATA && eg_logfile_frame_check(l, pos, at, &first) != NULL) { /* the index lied */
        pos = EG_SEGMENT_DATA;
        at = 0;
    }
    eg_logfile_iter_init(&c->it, l, pos, at);
    while (c->it.index < index) {
        struct eg_logfile_iter before = c->it;
        enum eg_logfile_step step = eg_logfile_next(&c->it);
        if (step == EG_STEP_END) /* up to the next file's offsets were lost in a crash */
            return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE, "partition %u: segment %" PRIu64 " ends before", m->number,
                                c->file.seq);
        if (step == EG_STEP_NOTHING || step == EG_STEP_BAD) {
            if (step_over(c, index))
                continue;
            return step == EG_STEP_BAD ? corrupt(m, c, c->it.reason) : EAGRE_OK; /* a poll tells of what is missing */
        }
        if (c->it.index > index) { /* a pad that ends behind it */
            c->it = before;
            break;
        }
    }
    return EAGRE_OK;
}

int eg_cold_begin(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_cold_file *file, int64_t offset) {
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logindex x;
    uint64_t pos = EG_SEGMENT_DATA, at = 0;
    int rc = begin(c, m, file, &id, &l);
    if (rc != EAGRE_OK)
        return rc;
    uint64_t index = offset > id.base ? (uint64_t)(offset - id.base) : 0;
    if (file->index != NULL && index > 0 && eg_logindex_open(&x, &id, file->index, file->index_bytes) == EAGRE_OK)
        eg_logindex_by_index(&x, index, &pos, &at);
    return walk_to(c, m, &l, pos, at, index);
}

int eg_cold_poll(struct eg_cold *c, const struct eg_partition_map *m, const char *topic, const struct eg_picker *picker,
                 int64_t *offset, eagre_record_t *records, size_t max, size_t *n) {
    *n = 0;
    c->stopped = false;
    while (*n < max && c->file.base + (int64_t)c->it.index < c->file.end) {
        struct eg_logfile_iter before = c->it;
        enum eg_logfile_step step = eg_logfile_next(&c->it);
        if (step == EG_STEP_END)
            break; /* offsets up to the next file's were lost in a crash, and are not used again */
        if (step == EG_STEP_NOTHING) {
            c->it = before;
            if (*n > 0)
                return EAGRE_OK;
            return corrupt(m, c, "it ends before the offset at which the next one begins");
        }
        if (step == EG_STEP_BAD) {
            const char *reason = c->it.reason;
            c->it = before; /* the same again, after what is good */
            return *n > 0 ? EAGRE_OK : corrupt(m, c, reason);
        }
        int64_t next = c->file.base + (int64_t)c->it.index;
        enum eg_pick pick = step == EG_STEP_RECORD && next > *offset ? EG_PICK_TAKE : EG_PICK_SKIP;
        if (pick == EG_PICK_TAKE && picker != NULL)
            pick = picker->ask(picker->ctx, next - 1);
        if (pick == EG_PICK_STOP) {
            c->it = before;
            c->stopped = true;
            return EAGRE_OK;
        }
        if (pick == EG_PICK_TAKE) {
            const struct eg_frame_view *v = &c->it.frame.view;
            records[(*n)++] = (eagre_record_t){.key = v->key,
                                               .value = v->value,
                                               .headers = v->headers,
                                               .key_len = v->key_length,
                                               .value_len = v->value_length,
                                               .headers_len = v->headers_length,
                                               .partition = (int32_t)m->number,
                                               .offset = next - 1,
                                               .timestamp_ns = v->timestamp_ns,
                                               .topic = topic};
        }
        if (next > *offset)
            *offset = next;
    }
    if (*n == 0 && *offset < c->file.end)
        *offset = c->file.end;
    return EAGRE_OK;
}

int eg_cold_find_time(struct eg_cold *c, const struct eg_partition_map *m, const struct eg_cold_file *file,
                      int64_t timestamp_ns, int64_t *offset) {
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logindex x;
    uint64_t pos = EG_SEGMENT_DATA, at = 0;
    int rc = begin(c, m, file, &id, &l);
    if (rc != EAGRE_OK)
        return rc;
    if (file->index != NULL && eg_logindex_open(&x, &id, file->index, file->index_bytes) == EAGRE_OK)
        eg_logindex_by_time(&x, timestamp_ns, &pos, &at);
    rc = walk_to(c, m, &l, pos, at, at);
    if (rc != EAGRE_OK)
        return rc;
    for (;;) {
        switch (eg_logfile_next(&c->it)) {
        case EG_STEP_RECORD:
            if (c->it.frame.view.timestamp_ns < timestamp_ns)
                continue;
            *offset = file->base + (int64_t)c->it.index - 1;
            return EAGRE_OK;
        case EG_STEP_PAD:
            continue;
        case EG_STEP_BAD:
            return corrupt(m, c, c->it.reason);
        default:
            *offset = file->end;
            return EAGRE_OK;
        }
    }
}

int64_t eg_cold_first_time(const struct eg_partition_map *m, const struct eg_cold_file *file) {
    struct eg_cold c;
    struct eg_logfile_id id;
    struct eg_logfile l;
    if (begin(&c, m, file, &id, &l) != EAGRE_OK)
        return INT64_MIN;
    eg_logfile_iter_init(&c.it, &l, EG_SEGMENT_DATA, 0);
    enum eg_logfile_step step;
    while ((step = eg_logfile_next(&c.it)) == EG_STEP_PAD) {}
    return step == EG_STEP_RECORD ? c.it.frame.view.timestamp_ns : INT64_MIN;
}
