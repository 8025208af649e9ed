#include "log/logindex.h"

#include <inttypes.h>

#include "sys/errbuf.h"

static uint32_t entry_crc(uint32_t seed, uint64_t number, const struct eg_logindex_entry *e) {
    return eg_crc32c(eg_crc32c(seed, &number, sizeof(number)), e,
                     offsetof(struct eg_logindex_entry, crc));
}

/* ---- writing ---------------------------------------------------------------------------------------- */

void eg_logindex_header_make(struct eg_logindex_header *h, const struct eg_logfile_id *id) {
    memset(h, 0, sizeof(*h));
    h->magic = EG_MAGIC_INDEX;
    h->version = EG_LOGINDEX_VERSION;
    h->topic_uid = id->topic_uid;
    h->partition_uid = id->partition_uid;
    h->partition = id->partition;
    h->seq = id->seq;
    h->base = id->base;
    h->step = EG_LOGINDEX_STEP;
    h->crc = eg_crc32c(0, h, offsetof(struct eg_logindex_header, crc));
}

void eg_logindex_begin(struct eg_logindex_builder *b, const struct eg_logfile *l) {
    b->seed = l->seed;
    b->count = 0;
    b->last = EG_SEGMENT_DATA;
    b->max_timestamp_ns = INT64_MIN;
}

bool eg_logindex_add(struct eg_logindex_builder *b, const struct eg_logfile_frame *f,
                     struct eg_logindex_entry *out) {
    bool due = f->pos - b->last >= EG_LOGINDEX_STEP;
    if (due) {
        *out = (struct eg_logindex_entry){.pos8 = (uint32_t)(f->pos >> 3),
                                          .index = f->index,
                                          .max_timestamp_ns = b->max_timestamp_ns};
        out->crc = entry_crc(b->seed, b->count, out);
        b->last = f->pos;
        b->count++;
    }
    if (f->kind == EG_KIND_DATA && f->view.timestamp_ns > b->max_timestamp_ns)
        b->max_timestamp_ns = f->view.timestamp_ns;
    return due;
}

uint32_t eg_logindex_rebuild(const struct eg_logfile *l, uint64_t end,
                             struct eg_logindex_builder *b, struct eg_logindex_entry *entries,
                             uint64_t max) {
    struct eg_logfile_iter it;
    enum eg_logfile_step step;
    eg_logindex_begin(b, l);
    eg_logfile_iter_init(&it, l, EG_SEGMENT_DATA, 0);
    while (it.pos < end && b->count < max &&
           ((step = eg_logfile_next(&it)) == EG_STEP_RECORD || step == EG_STEP_PAD))
        eg_logindex_add(b, &it.frame, &entries[b->count]);
    return b->count;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

int eg_logindex_open(struct eg_logindex *x, const struct eg_logfile_id *id, const void *data,
                     uint64_t bytes) {
    struct eg_logindex_header has, wants;
    memset(x, 0, sizeof(*x));
    x->capacity = id->capacity;
    x->align = id->align;
    x->seed = eg_frame_seed(id->partition_uid, id->seq);
    if (bytes < sizeof(has))
        return eg_error_set(EAGRE_E_CORRUPT, "index: %" PRIu64 " bytes are too few", bytes);
    memcpy(&has, data, sizeof(has));
    eg_logindex_header_make(&wants, id);
    if (memcmp(&has, &wants, sizeof(has)) != 0)
        return eg_error_set(EAGRE_E_CORRUPT,
                            "index: its header is not that of this segment's index");
    uint64_t count = (bytes - sizeof(has)) / sizeof(struct eg_logindex_entry);
    uint64_t most = eg_logindex_entries_max(id->capacity);
    x->entries = (const struct eg_logindex_entry *)((const struct eg_logindex_header *)data + 1);
    x->count = count < most ? count : most;
    return EAGRE_OK;
}

/* Entry k, if it is good. A copy: the file may be mapped, and written. */
static bool get(const struct eg_logindex *x, uint64_t k, struct eg_logindex_entry *e) {
    memcpy(e, &x->entries[k], sizeof(*e));
    uint64_t pos = (uint64_t)e->pos8 << 3;
    return e->crc == entry_crc(x->seed, k, e) && pos > EG_SEGMENT_DATA && pos < x->capacity &&
           (pos & (x->align - 1)) == 0;
}

/* The last entry that is not behind what is looked for. A bad one counts as behind: what is found holds all
 * the same, it only lies further from the goal. */
static void look_up(const struct eg_logindex *x, bool by_time, uint64_t index, int64_t timestamp_ns,
                    uint64_t *pos, uint64_t *at_index) {
    uint64_t low = 0, high = x->count;
    *pos = EG_SEGMENT_DATA;
    *at_index = 0;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct eg_logindex_entry e;
        if (get(x, middle, &e) &&
            (by_time ? e.max_timestamp_ns < timestamp_ns : e.index <= index)) {
            *pos = (uint64_t)e.pos8 << 3;
            *at_index = e.index;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
}

void eg_logindex_by_index(const struct eg_logindex *x, uint64_t index, uint64_t *pos,
                          uint64_t *at_index) {
    look_up(x, false, index, 0, pos, at_index);
}

void eg_logindex_by_time(const struct eg_logindex *x, int64_t timestamp_ns, uint64_t *pos,
                         uint64_t *at_index) {
    look_up(x, true, 0, timestamp_ns, pos, at_index);
}

uint64_t eg_logindex_usable(const struct eg_logindex *x, uint64_t end) {
    struct eg_logindex_entry e;
    uint64_t k = 0;
    while (k < x->count && get(x, k, &e) && (uint64_t)e.pos8 << 3 < end)
        k++;
    return k;
}
