#include "layout/layout.h"

#include <inttypes.h>

#include "layout/group.h"
#include "layout/share.h"
#include "sys/atomic.h"
#include "sys/crc32c.h"
#include "sys/errbuf.h"

uint32_t eg_layout_fingerprint(void) {
    /* Every offset and size that two builds could differ in. */
    static const uint32_t shape[] = {
        EG_LAYOUT_VERSION,
        sizeof(struct eg_bus),
        offsetof(struct eg_bus, epoch),
        sizeof(struct eg_bells),
        offsetof(struct eg_bus, asleep),
        offsetof(struct eg_ring, watched),
        offsetof(struct eg_bells, bell),
        sizeof(struct eg_client_page),
        offsetof(struct eg_client_page, cells),
        offsetof(struct eg_client_page, pin),
        sizeof(struct eg_pin_cell),
        sizeof(struct eg_topic_status),
        offsetof(struct eg_topic_status, max_message_bytes),
        sizeof(struct eg_partition_status),
        offsetof(struct eg_partition_status, log_start),
        offsetof(struct eg_partition_status, slot),
        offsetof(struct eg_partition_status, start_seq),
        offsetof(struct eg_partition_status, buffer),
        offsetof(struct eg_partition_status, sealed_ns),
        sizeof(struct eg_slot),
        offsetof(struct eg_ring, active),
        offsetof(struct eg_ring, slot),
        sizeof(struct eg_waiters),
        sizeof(struct eg_segment_header),
        offsetof(struct eg_segment_header, base),
        offsetof(struct eg_segment_header, hint),
        sizeof(struct eg_frame),
        EG_SEGMENT_DATA,
        EG_INDEX_BLOCK,
        EG_RING_SEGMENTS_MAX,
        EG_BUFFERS_MAX,
        sizeof(struct eg_member_page),
        offsetof(struct eg_member_page, stored),
        offsetof(struct eg_member_page, polls),
        offsetof(struct eg_member_page, bell),
        offsetof(struct eg_member_page, cell),
        offsetof(struct eg_share_cells, start),
        offsetof(struct eg_share_cells, hint),
        offsetof(struct eg_share_cells, redelivered),
        offsetof(struct eg_share_cells, cell),
        EG_SHARE_LAPS,
        EG_SHARE_TIMES,
    };
    return eg_crc32c(0, shape, sizeof(shape));
}

void eg_magic_init(struct eg_magic *m) {
    m->version = EG_LAYOUT_VERSION;
    m->fingerprint = eg_layout_fingerprint();
}

void eg_magic_publish(struct eg_magic *m, uint64_t magic) {
    /* Release: whoever sees the magic sees the object. Partner: eg_magic_check. */
    eg_store_release(&m->magic, magic);
}

int eg_magic_check(const struct eg_magic *m, uint64_t magic, const char *what) {
    uint64_t seen = eg_load_acquire(&m->magic);
    if (seen != magic)
        return eg_error_set(EAGRE_E_CORRUPT, "%s: no complete object there (magic %016" PRIx64 ")",
                            what, seen);
    uint32_t version = m->version;
    uint32_t fingerprint = m->fingerprint;
    if (version != EG_LAYOUT_VERSION || fingerprint != eg_layout_fingerprint())
        return eg_error_set(EAGRE_E_VERSION,
                            "%s: made by another build of Eagre (layout %u/%08x, this one has "
                            "%u/%08x): use the same version on both sides",
                            what, version, fingerprint, EG_LAYOUT_VERSION,
                            eg_layout_fingerprint());
    return EAGRE_OK;
}

int eg_topic_status_check(const struct eg_topic_status *t, size_t mapped) {
    if (mapped < EG_PAGE)
        return eg_error_set(EAGRE_E_CORRUPT, "topic status: %zu bytes are too few", mapped);
    int rc = eg_magic_check(&t->magic, EG_MAGIC_STATUS, "topic status");
    if (rc != EAGRE_OK)
        return rc;
    uint64_t bytes = t->segment_bytes;
    uint32_t slots = t->ring_segments;
    uint32_t align = t->align;
    uint32_t partitions = eg_load_acquire(&t->partitions);
    if (bytes < EG_SEGMENT_BYTES_MIN || bytes > EG_SEGMENT_BYTES_MAX || bytes % EG_INDEX_BLOCK != 0)
        return eg_error_set(EAGRE_E_CORRUPT, "topic status: segment.bytes %" PRIu64 " is not possible", bytes);
    if (slots < EG_RING_SEGMENTS_MIN || slots > EG_RING_SEGMENTS_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "topic status: ring.segments %u is not possible", slots);
    if (align < EG_ALIGN_MIN || align > EG_ALIGN_MAX || (align & (align - 1)) != 0)
        return eg_error_set(EAGRE_E_CORRUPT, "topic status: record.alignment %u is not possible", align);
    if (partitions > EG_TOPIC_PARTITIONS_MAX || eg_status_bytes(partitions) > mapped)
        return eg_error_set(EAGRE_E_CORRUPT, "topic status: %u partitions are not possible", partitions);
    return EAGRE_OK;
}

/* Bytes 8 .. 56: version and fingerprint, ids, capacity, seq, creation time. */
static uint32_t header_crc(const struct eg_segment_header *h) {
    return eg_crc32c(0, (const uint8_t *)h + 8, offsetof(struct eg_segment_header, crc) - 8);
}

void eg_segment_init(struct eg_segment_header *h, const struct eg_topic_status *t,
                     uint32_t partition, uint32_t partition_uid, uint64_t seq, int64_t now_ns) {
    eg_store_release(&h->magic.magic, 0);
    eg_magic_init(&h->magic);
    h->topic_uid = t->topic_uid;
    h->partition_uid = partition_uid;
    h->partition = partition;
    h->align = t->align;
    h->capacity = t->segment_bytes;
    eg_store_relaxed(&h->seq, seq); /* the slot's READY (release) publishes all of it */
    h->created_ns = now_ns;
    h->crc = header_crc(h);
    eg_store_relaxed(&h->base, EG_BASE_UNSET);
    h->base_crc = 0;
    eg_store_relaxed(&h->hint, eg_hint_make(EG_SEGMENT_DATA, 0));
    eg_magic_publish(&h->magic, EG_MAGIC_SEGMENT);
}

int eg_segment_check(const struct eg_segment_header *h, uint32_t partition_uid, uint64_t seq,
                     uint64_t capacity) {
    int rc = eg_magic_check(&h->magic, EG_MAGIC_SEGMENT, "segment header");
    if (rc != EAGRE_OK)
        return rc;
    uint64_t have = eg_load_relaxed(&h->seq);
    if (h->partition_uid != partition_uid || have != seq || h->capacity != capacity)
        return eg_error_set(EAGRE_E_CORRUPT,
                            "segment header: is of partition id %u, segment %" PRIu64
                            ", %" PRIu64 " bytes; expected %u, %" PRIu64 ", %" PRIu64,
                            h->partition_uid, have, h->capacity, partition_uid, seq, capacity);
    if (h->crc != header_crc(h))
        return eg_error_set(EAGRE_E_CORRUPT, "segment header: checksum does not match");
    return EAGRE_OK;
}
