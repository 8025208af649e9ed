#include "log/logfile.h"

#include <inttypes.h>

#include "sys/errbuf.h"

/* ---- header page -------------------------------------------------------------------------------- */

static uint32_t header_crc(const struct eg_segment_header *h) {
    return eg_crc32c(0, (const uint8_t *)h + 8, offsetof(struct eg_segment_header, crc) - 8);
}

/* Seeded with the header's: a base of another file is not taken. */
static uint32_t base_crc(const struct eg_segment_header *h) {
    int64_t base = eg_load_relaxed(&h->base);
    return eg_crc32c(h->crc, &base, sizeof(base));
}

void eg_logfile_header_make(void *page, const struct eg_logfile_id *id) {
    memset(page, 0, EG_PAGE);
    struct eg_segment_header *h = page;
    eg_store_relaxed(&h->magic.magic, EG_MAGIC_SEGMENT);
    h->magic.version = EG_LOGFILE_VERSION;
    h->topic_uid = id->topic_uid;
    h->partition_uid = id->partition_uid;
    h->partition = id->partition;
    h->align = id->align;
    h->capacity = id->capacity;
    eg_store_relaxed(&h->seq, id->seq);
    h->created_ns = id->created_ns;
    h->crc = header_crc(h);
    eg_store_relaxed(&h->base, id->base);
    h->base_crc = base_crc(h);
}

static bool is_possible(const struct eg_logfile_id *id) {
    return id->capacity >= EG_SEGMENT_BYTES_MIN && id->capacity <= EG_SEGMENT_BYTES_MAX &&
           id->capacity % EG_INDEX_BLOCK == 0 && id->align >= EG_ALIGN_MIN && id->align <= EG_ALIGN_MAX &&
           (id->align & (id->align - 1)) == 0 && id->seq <= EG_SEQ_MAX;
}

/* Of another file: which of its values says so, and what it is and should be. */
static enum eg_logfile_header_fault compare(const struct eg_logfile_id *has, const struct eg_logfile_id *wants) {
    const struct {
        enum eg_logfile_header_fault fault;
        const char *what;
        uint64_t has, wants;
    } values[] = {
        {EG_HEADER_TOPIC, "topic id", has->topic_uid, wants->topic_uid},
        {EG_HEADER_PARTITION, "partition id", has->partition_uid, wants->partition_uid},
        {EG_HEADER_PARTITION, "partition", has->partition, wants->partition},
        {EG_HEADER_SEQ, "segment", has->seq, wants->seq},
        {EG_HEADER_CAPACITY, "capacity", has->capacity, wants->capacity},
        {EG_HEADER_ALIGN, "alignment", has->align, wants->align},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        if (values[i].has != values[i].wants) {
            eg_error_set(EAGRE_E_CORRUPT, "log file header: is of %s %" PRIu64 ", expected %" PRIu64,
                         values[i].what, values[i].has, values[i].wants);
            return values[i].fault;
        }
    return EG_HEADER_OK;
}

static int refuse(enum eg_logfile_header_fault *fault, enum eg_logfile_header_fault f, int status) {
    if (fault != NULL)
        *fault = f;
    return status;
}

int eg_logfile_header_check(const void *page, uint64_t bytes, const struct eg_logfile_id *expected,
                            struct eg_logfile_id *out, enum eg_logfile_header_fault *fault) {
    struct eg_segment_header h; /* a copy: the file may be mapped */
    if (bytes < EG_PAGE)
        return refuse(fault, EG_HEADER_SHORT,
                      eg_error_set(EAGRE_E_CORRUPT, "log file header: %" PRIu64 " bytes are too few", bytes));
    memcpy(&h, page, sizeof(h));
    uint64_t magic = eg_load_relaxed(&h.magic.magic);
    if (magic != EG_MAGIC_SEGMENT)
        return refuse(fault, EG_HEADER_MAGIC,
                      eg_error_set(EAGRE_E_CORRUPT, magic == 0 ? "log file header: nothing was written yet"
                                                               : "log file header: this is no log file"));
    /* The CRC first: a version that a flipped bit makes is damage, not another build's. */
    bool crc_ok = h.crc == header_crc(&h);
    if (h.magic.version != EG_LOGFILE_VERSION && crc_ok)
        return refuse(fault, EG_HEADER_VERSION,
                      eg_error_set(EAGRE_E_VERSION,
                                   "log file header: format %u, this build of Eagre reads %u",
                                   h.magic.version, EG_LOGFILE_VERSION));
    if (!crc_ok)
        return refuse(fault, EG_HEADER_CRC,
                      eg_error_set(EAGRE_E_CORRUPT, "log file header: checksum does not match"));
    struct eg_logfile_id id = {.topic_uid = h.topic_uid,
                               .partition_uid = h.partition_uid,
                               .partition = h.partition,
                               .align = h.align,
                               .capacity = h.capacity,
                               .seq = eg_load_relaxed(&h.seq),
                               .created_ns = h.created_ns,
                               .base = eg_load_relaxed(&h.base)};
    if (!is_possible(&id))
        return refuse(fault, EG_HEADER_VALUES,
                      eg_error_set(EAGRE_E_CORRUPT,
                                   "log file header: segment %" PRIu64 " of %" PRIu64
                                   " bytes with alignment %u is not possible",
                                   id.seq, id.capacity, id.align));
    enum eg_logfile_header_fault other = expected != NULL ? compare(&id, expected) : EG_HEADER_OK;
    if (other != EG_HEADER_OK)
        return refuse(fault, other, EAGRE_E_CORRUPT);
    if (h.base_crc != base_crc(&h) || id.base < 0 || id.base > EG_OFFSET_MAX)
        return refuse(fault, EG_HEADER_BASE,
                      eg_error_set(EAGRE_E_CORRUPT,
                                   "log file header: base offset %" PRId64 " does not match its checksum",
                                   id.base));
    if (fault != NULL)
        *fault = EG_HEADER_OK;
    *out = id;
    return EAGRE_OK;
}

void eg_logfile_init(struct eg_logfile *l, const struct eg_logfile_id *id, const void *data, uint64_t bytes) {
    l->data = data;
    l->bytes = bytes < id->capacity ? bytes : id->capacity;
    l->capacity = id->capacity;
    l->seq = id->seq;
    l->base = id->base;
    l->align = id->align;
    l->seed = eg_frame_seed(id->partition_uid, id->seq);
}
