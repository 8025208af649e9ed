#include "log/reader.h"

#include <inttypes.h>

#include "log/pin.h"
#include "sys/cpu.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

void eg_reader_init(struct eg_reader *r, struct eg_partition_map *m, _Atomic uint64_t *pin,
                    bool fence, bool check_crcs, const char *topic, int64_t offset) {
    memset(r, 0, sizeof(*r));
    r->map = m;
    r->pin = pin;
    r->fence = fence;
    r->check_crcs = check_crcs;
    r->topic = topic;
    r->offset = offset;
}

void eg_reader_unpin(struct eg_reader *r) {
    if (r->pinned) {
        eg_pin_clear(r->pin);
        r->pinned = false;
        EG_FAULT("edge.unpinned");
    }
}

void eg_reader_drop_file(struct eg_reader *r) {
    if (r->cold.file.data != NULL)
        r->map->ops->drop_file(r->map, &r->cold.file);
    r->cold.file = (struct eg_cold_file){0};
}

void eg_reader_release(struct eg_reader *r) {
    eg_reader_unpin(r);
    eg_reader_drop_file(r);
}

void eg_reader_seek(struct eg_reader *r, int64_t offset) {
    eg_reader_release(r);
    r->placed = false;
    r->offset = offset;
}

int64_t eg_reader_beginning(const struct eg_reader *r) {
    return eg_load_acquire(&r->map->status->log_start); /* partner: retire's release */
}

/* Pin segment seq if it is open: EG_LOG_GONE if it is not. */
static int pin(struct eg_reader *r, uint64_t seq) {
    struct eg_partition_map *m = r->map;
    struct eg_slot *slot = eg_slot_of(m, seq);
    eg_pin_set(r->pin, eg_pin_make(false, m->index, seq), r->fence);
    r->pinned = true;
    EG_FAULT("pin.stored");
    uint64_t word = eg_load_acquire(&slot->word); /* partner: slot.opened */
    if (eg_slot_seq(word) != seq || eg_slot_state(word) != EG_SLOT_OPEN) {
        eg_reader_unpin(r);
        return EG_LOG_GONE;
    }
    EG_FAULT("pin.checked");
    uint32_t number = eg_slot_buffer(word);
    int rc = eg_segment_map(m, number, seq);
    if (rc != EAGRE_OK) {
        bool moved = eg_load_acquire(&slot->word) != word;
        eg_reader_unpin(r);
        return moved ? EG_LOG_GONE : rc;
    }
    int64_t base = eg_load_acquire(&eg_map_header(m, number)->base);
    if (base < 0 || base > EG_OFFSET_MAX) {
        eg_reader_unpin(r);
        return eg_error_set(EAGRE_E_CORRUPT, "partition %u: open segment %" PRIu64 " has base offset %" PRId64,
                            m->number, seq, base);
    }
    r->slot = slot;
    r->slot_word = word;
    r->buffer = &m->bufs[number];
    r->base = r->buffer->base;
    if (r->seq != seq || r->base_offset != base || r->seed == 0)
        r->seed = eg_frame_seed(m->uid, seq);
    r->seq = seq;
    r->base_offset = base;
    return EAGRE_OK;
}

/* The word at pos of the pinned segment, or 0 where no memory is behind it yet. */
static inline int load_word(struct eg_reader *r, uint64_t pos, uint64_t *word) {
    if (__builtin_expect(pos + EG_LINE > r->buffer->ready_to, 0)) {
        int rc = eg_segment_ready(r->map, eg_slot_buffer(r->slot_word), pos + EG_LINE);
        if (rc == EG_LOG_GONE) {
            *word = 0;
            return EAGRE_OK;
        }
        if (rc != EAGRE_OK)
            return rc;
    }
    /* Acquire: with a published word comes the frame. Partner: publish.done. */
    *word = eg_load_acquire(&eg_frame_at(r->base, pos)->word);
    return EAGRE_OK;
}

/* May the length bytes of the frame at pos be touched? Its producer marked them allocated before. */
static inline bool frame_ready(struct eg_reader *r, uint64_t pos, uint64_t length) {
    if (__builtin_expect(pos + length <= r->buffer->ready_to, 1))
        return true;
    return eg_segment_ready(r->map, eg_slot_buffer(r->slot_word), pos + length) == EAGRE_OK;
}

static int corrupt(const struct eg_reader *r, const char *what) {
    return eg_error_set(EAGRE_E_CORRUPT,
                        "partition %u: segment %" PRIu64 ", position %" PRIu64 " (offset %" PRId64 "): %s",
                        r->map->number, r->seq, r->pos, r->base_offset + (int64_t)r->index, what);
}

static int out_of_range(const struct eg_reader *r, const char *why) {
    return eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE,
                        "partition %u: offset %" PRId64 " is %s (the log begins at %" PRId64 ")",
                        r->map->number, r->offset, why, eg_reader_beginning(r));
}

/* A place in the pinned segment, at or before record `index`, that the hot index knows of and
 * that looks like a frame with that record number; else the first frame. */
static void start_near(struct eg_reader *r, uint64_t index) {
    struct eg_partition_map *m = r->map;
    const _Atomic uint64_t *entries =
        eg_ring_index(m->ring, m->slots, (uint32_t)(r->seq % m->slots), m->capacity);
    uint64_t low = 0, high = eg_index_blocks(m->capacity); /* r is the best place up to block low; high is beyond */
    r->pos = EG_SEGMENT_DATA;
    r->index = 0;
    while (high - low > 1) {
        uint64_t at = low + (high - low) / 2;
        /* A block that a large frame covers has no entry: the next lower one that has. */
        uint64_t block = at;
        uint64_t entry = 0;
        while (block > low && !eg_index_is_of(entry = eg_load_relaxed(&entries[block]), r->seq))
            block--;
        if (block == low) {
            low = at; /* nothing in between: what is known stays the best for all up to here */
            continue;
        }
        if (eg_index_record(entry) > index) {
            high = block;
            continue;
        }
        uint64_t pos = eg_index_pos(entry, block), word;
        if ((pos & (m->align - 1)) != 0 || m->capacity - pos < EG_FRAME_HEADER ||
            load_word(r, pos, &word) != EAGRE_OK || !eg_word_is_sane(word, pos, m->capacity, m->align)) {
            high = block; /* nothing there (yet): stay below */
            continue;
        }
        r->pos = pos;
        r->index = eg_index_record(entry);
        low = at;
    }
}

/* Find r->offset in the ring and stand there, pinned. */
static int place(struct eg_reader *r) {
    struct eg_partition_map *m = r->map;
    for (int attempt = 0; attempt < 64; attempt++) {
        uint64_t active = eg_load_acquire(&m->ring->active);
        if (active > EG_SEQ_MAX)
            return eg_error_set(EAGRE_E_CORRUPT, "partition %u: active segment %" PRIu64, m->number, active);
        int rc = EG_LOG_GONE;
        uint64_t seq = active + 1;
        while (seq > 0 && active + 1 - seq < m->slots) {
            rc = pin(r, --seq);
            if (rc != EAGRE_OK || r->base_offset <= r->offset)
                break;
            eg_reader_unpin(r);
            rc = EG_LOG_GONE;
        }
        if (rc == EG_LOG_GONE) {
            if (eg_load_acquire(&m->ring->active) != active)
                continue; /* it turned while we looked */
            rc = eg_partition_usable(m);
            if (rc != EAGRE_OK)
                return rc;
            return out_of_range(r, "not in the log any more");
        }
        if (rc != EAGRE_OK)
            return rc;
        uint64_t wanted = (uint64_t)(r->offset - r->base_offset);
        start_near(r, wanted);
        /* Walk on, over claimed frames too: their places are fixed. */
        for (;;) {
            uint64_t word = 0;
            if (r->pos < m->capacity && (rc = load_word(r, r->pos, &word)) != EAGRE_OK)
                return rc;
            if (r->index == wanted) {
                r->placed = true;
                return EAGRE_OK;
            }
            if (word != 0 && !eg_word_is_sane(word, r->pos, m->capacity, m->align))
                return corrupt(r, "no frame word");
            if (word == 0 || eg_word_kind(word) == EG_KIND_EOS) {
                bool last = seq == active && word == 0 && r->pos < m->capacity;
                if (seq < active) /* the next one begins behind the wanted record */
                    return corrupt(r, "the segment ends before the next one begins");
                eg_reader_unpin(r);
                if (!last && eg_load_acquire(&m->ring->active) != active)
                    break; /* it belongs to a later segment: look again */
                return out_of_range(r, "beyond the end of the log");
            }
            if (r->index + eg_word_count(word) > wanted) {
                r->placed = true; /* inside a pad or an unpublished batch: poll skips what is before */
                return EAGRE_OK;
            }
            r->index += eg_word_count(word);
            r->pos += eg_word_length(word);
        }
    }
    return eg_error_set(EAGRE_E_WOULD_BLOCK, "partition %u: the ring turns faster than it can be searched",
                        m->number);
}

/* At the end of a segment: stand at the start of the next. EG_LOG_AGAIN: it is not open yet. */
static int next_segment(struct eg_reader *r) {
    struct eg_partition_map *m = r->map;
    uint64_t word = eg_load_acquire(&eg_slot_of(m, r->seq + 1)->word);
    if (eg_slot_seq(word) == r->seq + 1 && eg_slot_state(word) == EG_SLOT_READY)
        return EG_LOG_AGAIN;
    if (eg_slot_seq(word) <= r->seq) { /* the daemon has not prepared it yet, or the topic is closed */
        int rc = eg_partition_usable(m);
        return rc != EAGRE_OK ? rc : EG_LOG_AGAIN;
    }
    int64_t expected = r->base_offset + (int64_t)r->index;
    eg_reader_unpin(r);
    int rc = pin(r, r->seq + 1);
    if (rc == EG_LOG_GONE) {
        r->placed = false;
        return EG_LOG_GONE;
    }
    if (rc != EAGRE_OK)
        return rc;
    if (r->base_offset != expected) {
        r->placed = false;
        eg_reader_unpin(r);
        return eg_error_set(EAGRE_E_CORRUPT,
                            "partition %u: segment %" PRIu64 " begins at offset %" PRId64
                            ", but the one before ends at %" PRId64,
                            m->number, r->seq, r->base_offset, expected);
    }
    r->pos = EG_SEGMENT_DATA;
    r->index = 0;
    return EAGRE_OK;
}

static inline void fill(const struct eg_reader *r, const struct eg_frame_view *v, eagre_record_t *out) {
    out->key = v->key;
    out->value = v->value;
    out->headers = v->headers;
    out->key_len = v->key_length;
    out->value_len = v->value_length;
    out->headers_len = v->headers_length;
    out->partition = (int32_t)r->map->number;
    out->offset = r->base_offset + (int64_t)v->index;
    out->timestamp_ns = v->timestamp_ns;
    out->topic = r->topic;
}

static int poll_ring(struct eg_reader *r, eagre_record_t *records, size_t max, size_t *n) {
    struct eg_partition_map *m = r->map;
    /* Acquire: records below it are on disk. Partner: the archiver's release. */
    int64_t limit = __builtin_expect(r->durable, 0) ? (int64_t)eg_load_acquire(&m->status->durable_end) : INT64_MAX;
    size_t got = 0;
    uint32_t lost = 0;
    int rc;
    *n = 0;
    if (!r->placed) {
        if ((rc = place(r)) != EAGRE_OK)
            goto failed;
    } else if (!r->pinned) {
        rc = pin(r, r->seq);
        if (rc == EG_LOG_GONE) { /* let go meanwhile: perhaps the offset is in the next one */
            r->placed = false;
            rc = place(r);
        }
        if (rc != EAGRE_OK)
            goto failed;
    }
    while (got < max) {
        uint64_t word = 0;
        if (__builtin_expect(r->pos < m->capacity, 1) && (rc = load_word(r, r->pos, &word)) != EAGRE_OK)
            goto failed;
        if (eg_word_state(word) != EG_PUBLISHED && r->pos < m->capacity) {
            if (__builtin_expect(word != 0 && eg_word_state(word) != EG_CLAIMED && got == 0, 0)) {
                rc = corrupt(r, "no frame word");
                goto failed;
            }
            /* Nothing can be missing in a segment that is closed: `active` moved when its end was set. Acquire, then
             * the word once more. A producer has punched a hole; who waited here would wait for ever. */
            if (__builtin_expect(word == 0 && got == 0 && eg_load_acquire(&m->ring->active) > r->seq, 0)) {
                if ((rc = load_word(r, r->pos, &word)) != EAGRE_OK)
                    goto failed;
                if (word != 0)
                    continue;
                rc = corrupt(r, "a hole in a segment that is closed");
                goto failed;
            }
            break; /* the edge; or damage, but first what is good */
        }
        if (__builtin_expect(r->pos >= m->capacity || eg_word_kind(word) == EG_KIND_EOS, 0)) {
            if (got > 0)
                break; /* records of one segment a call: one pin */
            rc = next_segment(r);
            if (rc == EG_LOG_AGAIN)
                break;
            if (rc == EG_LOG_GONE) {
                /* Segments go in turn: with the next one this one goes. So we may be led here again by a ring
                 * that turns very fast and holds nothing but pads, but not more often than it has slots. */
                rc = lost++ > m->slots ? corrupt(r, "the slot of the next segment is of another") : place(r);
            }
            if (rc != EAGRE_OK)
                goto failed;
            continue;
        }
        if (__builtin_expect(!eg_word_is_sane(word, r->pos, m->capacity, m->align), 0)) {
            if (got > 0)
                break; /* first what is good */
            rc = corrupt(r, "no frame word");
            goto failed;
        }
        if (__builtin_expect(r->base_offset + (int64_t)r->index >= limit, 0))
            break; /* the edge of what is on disk */
        uint64_t length = eg_word_length(word);
        uint64_t end = r->index + eg_word_count(word);
        enum eg_pick pick = __builtin_expect(eg_word_kind(word) == EG_KIND_DATA, 1) ? EG_PICK_TAKE : EG_PICK_SKIP;
        if (__builtin_expect(r->picker != NULL, 0) && pick == EG_PICK_TAKE) {
            int64_t offset = r->base_offset + (int64_t)r->index;
            pick = offset >= r->offset ? r->picker->ask(r->picker->ctx, offset) : EG_PICK_SKIP;
            if (pick == EG_PICK_STOP)
                break;
        }
        if (__builtin_expect(pick == EG_PICK_TAKE, 1)) {
            const struct eg_frame *f = eg_frame_at(r->base, r->pos);
            struct eg_frame_view v;
            const char *bad = NULL;
            if (!frame_ready(r, r->pos, length))
                bad = "a frame without memory behind it";
            else if (!eg_frame_view(f, word, &v))
                bad = "lengths do not fit the frame";
            else if (v.index != r->index)
                bad = "record number does not continue the one before";
            else if (r->check_crcs && !eg_frame_crc_ok(f, r->pos, word, r->seed, &v))
                bad = "checksum (CRC32C) does not match";
            if (__builtin_expect(bad != NULL, 0)) {
                if (got > 0)
                    break; /* first what is good */
                rc = corrupt(r, bad);
                goto failed;
            }
            if (__builtin_expect(r->base_offset + (int64_t)r->index >= r->offset, 1))
                fill(r, &v, &records[got++]);
        }
        r->pos += length;
        r->index = end;
        int64_t next = r->base_offset + (int64_t)end;
        if (__builtin_expect(next > r->offset, 1))
            r->offset = next;
    }
    if (got == 0 && !r->keep_pin)
        eg_reader_unpin(r);
    *n = got;
    return EAGRE_OK;

failed:
    eg_reader_unpin(r);
    return rc;
}

/* ---- files: what the ring has let go ------------------------------------------------------------- */

/* The ring goes on behind r->offset, where a file ended: after a crash, offsets that may have been given out are not
 * given again. EG_LOG_GONE: it does not, or not yet. */
static int enter_behind_gap(struct eg_reader *r) {
    struct eg_partition_map *m = r->map;
    uint64_t active = eg_load_acquire(&m->ring->active), seq = active;
    int rc = EG_LOG_GONE;
    bool found = false;
    for (; active <= EG_SEQ_MAX && active - seq < m->slots; seq--) {
        rc = pin(r, seq);
        if (rc != EAGRE_OK)
            break;
        if (r->base_offset <= r->offset) {
            eg_reader_unpin(r);
            return EG_LOG_GONE;
        }
        found = true;
        if (seq == 0) {
            seq--;
            break;
        }
    }
    if (rc != EAGRE_OK && rc != EG_LOG_GONE)
        return rc;
    return found ? pin(r, seq + 1) : EG_LOG_GONE;
}

static int lost(const struct eg_reader *r, int where, const struct eg_cold_file *file) {
    switch (where) {
    case EG_COLD_TRIMMED:
        return out_of_range(r, "not in the log any more");
    case EG_COLD_LOST:
        return out_of_range(r, "one that was not on disk when the host or the daemon and its keeper ended, and is lost");
    default:
        return eg_error_set(EAGRE_E_CORRUPT, "partition %u: offset %" PRId64 " is in a log file that is damaged: see eagre log "
                            "verify. The next one begins at offset %" PRId64 ": seek there to go on",
                            r->map->number, r->offset, file->end);
    }
}

/* In the file, or on the way from one to the next or to the ring. */
static int poll_files(struct eg_reader *r, eagre_record_t *records, size_t max, size_t *n) {
    struct eg_partition_map *m = r->map;
    bool looked = false; /* in the ring, in vain */
    *n = 0;
    for (int turn = 0; turn < 64; turn++) {
        struct eg_cold_file file = {0};
        int where, rc;
        if (r->cold.file.data != NULL) {
            rc = eg_cold_poll(&r->cold, m, r->topic, r->picker, &r->offset, records, max, n);
            if (rc != EAGRE_OK || *n > 0 || r->cold.stopped)
                return rc;
            uint64_t next = r->cold.file.seq + 1;
            eg_reader_drop_file(r);
            r->placed = false;
            if (pin(r, next) == EAGRE_OK) {
                if (r->base_offset == r->offset) {
                    r->pos = EG_SEGMENT_DATA;
                    r->index = 0;
                    r->placed = true;
                    return poll_ring(r, records, max, n);
                }
                eg_reader_unpin(r);
            }
        }
        rc = m->ops->fetch_file(m, false, (uint64_t)r->offset, &file, &where);
        if (rc != EAGRE_OK)
            return rc;
        if (where == EG_COLD_HERE) {
            if (file.base > r->offset)
                r->offset = file.base; /* behind a gap: where != LOST says that nothing is in between */
            r->cold.file = file;
            rc = eg_cold_begin(&r->cold, m, &file, r->offset);
            if (rc == EAGRE_OK)
                continue;
            eg_reader_drop_file(r);
            if (rc != EAGRE_E_OFFSET_OUT_OF_RANGE)
                return rc;
            if (r->offset > eg_reader_beginning(r) && r->picker == NULL)
                return lost(r, EG_COLD_LOST, &file);
            r->offset = file.end; /* where the log begins is no place that anybody has read to */
            continue;
        }
        if (where == EG_COLD_LOST && r->picker != NULL) {
            int64_t next = file.base > 0 ? file.base : eg_load_relaxed(&m->status->start_offset);
            if (next <= r->offset)
                return lost(r, where, &file);
            r->offset = next;
            r->placed = false;
            continue;
        }
        if (where != EG_COLD_IN_RING)
            return lost(r, where, &file);
        rc = poll_ring(r, records, max, n);
        if (rc != EAGRE_E_OFFSET_OUT_OF_RANGE)
            return rc;
        if (!looked) {
            looked = true; /* once more: it may have gone from the ring to a file just now */
            continue;
        }
        rc = enter_behind_gap(r);
        if (rc == EG_LOG_GONE)
            continue;
        if (rc != EAGRE_OK)
            return rc;
        /* Pinned behind the gap. If a file has come that begins before, then it is first. */
        int64_t base = r->base_offset;
        rc = m->ops->fetch_file(m, false, (uint64_t)r->offset, &file, &where);
        if (rc == EAGRE_OK && where == EG_COLD_IN_RING) {
            r->offset = base;
            r->pos = EG_SEGMENT_DATA;
            r->index = 0;
            r->placed = true;
            return poll_ring(r, records, max, n);
        }
        eg_reader_unpin(r);
        if (rc != EAGRE_OK)
            return rc;
        if (where == EG_COLD_HERE)
            m->ops->drop_file(m, &file);
    }
    return eg_error_set(EAGRE_E_WOULD_BLOCK, "partition %u: the log turns faster than it can be read", m->number);
}

int eg_reader_poll(struct eg_reader *r, eagre_record_t *records, size_t max, size_t *n) {
    if (__builtin_expect(r->cold.file.data == NULL, 1)) {
        int rc = poll_ring(r, records, max, n);
        if (__builtin_expect(rc != EAGRE_E_OFFSET_OUT_OF_RANGE || !r->map->on_disk, 1))
            return rc;
    }
    return poll_files(r, records, max, n);
}

int eg_log_find_time(struct eg_partition_map *m, _Atomic uint64_t *pin_cell, bool fence, int64_t timestamp_ns,
                     int64_t *offset) {
    struct eg_reader look;
    struct eg_cold_file file = {0};
    struct eg_cold cold;
    int where = EG_COLD_IN_RING, rc = EAGRE_OK;
    /* The last file whose first record is older; then on from there. */
    uint64_t low = 0, high = 0, best = 0;
    if (m->on_disk)
        rc = m->ops->fetch_file(m, false, eg_load_acquire(&m->status->log_start), &file, &where);
    if (rc != EAGRE_OK)
        return rc;
    if (where == EG_COLD_HERE) {
        low = best = file.seq;
        high = file.last_seq + 1;
        m->ops->drop_file(m, &file);
    }
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        rc = m->ops->fetch_file(m, true, middle, &file, &where);
        if (rc != EAGRE_OK)
            return rc;
        int64_t first = INT64_MAX;
        uint64_t seq = file.seq; /* middle, or the next one that there is */
        if (where == EG_COLD_HERE) {
            first = eg_cold_first_time(m, &file);
            m->ops->drop_file(m, &file);
        }
        if (first < timestamp_ns && seq < high)
            low = best = seq;
        else
            high = middle;
    }
    int64_t at = -1;
    for (uint64_t seq = best; high > 0; seq++) {
        rc = m->ops->fetch_file(m, true, seq, &file, &where);
        if (rc != EAGRE_OK)
            return rc;
        if (where != EG_COLD_HERE && where != EG_COLD_DAMAGED)
            break;
        seq = file.seq;
        if (where == EG_COLD_DAMAGED)
            continue; /* whoever reads there is told */
        rc = eg_cold_find_time(&cold, m, &file, timestamp_ns, offset);
        bool found = rc == EAGRE_OK && *offset < file.end;
        at = file.end;
        m->ops->drop_file(m, &file);
        if (rc != EAGRE_OK || found)
            return rc;
    }
    /* The ring, from its first segment or from where the files ended. */
    eg_reader_init(&look, m, pin_cell, fence, false, NULL, at);
    rc = enter_behind_gap(&look);
    if (rc == EAGRE_OK) {
        at = look.base_offset;
        eg_reader_unpin(&look);
    }
    if (rc != EAGRE_OK && rc != EG_LOG_GONE)
        return rc;
    look.offset = at > 0 ? at : 0;
    for (;;) {
        eagre_record_t records[64];
        size_t n;
        rc = poll_ring(&look, records, 64, &n);
        for (size_t i = 0; rc == EAGRE_OK && i < n; i++)
            if (records[i].timestamp_ns >= timestamp_ns) {
                eg_reader_unpin(&look);
                *offset = records[i].offset;
                return EAGRE_OK;
            }
        if (rc != EAGRE_OK || n == 0)
            break;
    }
    eg_reader_unpin(&look);
    *offset = look.offset;
    return rc;
}

/* Is there something at its place? What it loads may be of a later life of the buffer: it is safe to
 * load, since the mapping stays and the memory was there when we were at this place. */
static inline bool place_has_news(const struct eg_reader *r) {
    const struct eg_partition_map *m = r->map;
    if (r->pos < m->capacity) {
        if (r->pos + EG_LINE > r->buffer->ready_to)
            return eg_load_acquire(&eg_map_header(m, eg_slot_buffer(r->slot_word))->allocated) >=
                   (r->pos + EG_LINE < m->capacity ? r->pos + EG_LINE : m->capacity);
        uint64_t word = eg_load_acquire(&eg_frame_at(r->base, r->pos)->word);
        if (eg_word_state(word) != EG_PUBLISHED)
            return false;
        if (eg_word_kind(word) != EG_KIND_EOS)
            return true;
    }
    uint64_t next = eg_load_acquire(&eg_slot_of(m, r->seq + 1)->word);
    return eg_slot_seq(next) > r->seq && eg_slot_state(next) != EG_SLOT_READY;
}

bool eg_reader_has_news(const struct eg_reader *r) {
    if (r->cold.file.data != NULL)
        return true;
    if (r->durable && r->placed && r->offset >= (int64_t)eg_load_acquire(&r->map->status->durable_end))
        return eg_load_relaxed(&r->slot->word) != r->slot_word;
    /* The slot's word last (acquire above): while it is unchanged, what was loaded before is of our
     * segment. The other way round, a segment that is retired and zeroed between the two loads looks
     * like an edge, and its reader sleeps although the log went on. Modelled: news_word_first. */
    return !r->placed || place_has_news(r) || eg_load_relaxed(&r->slot->word) != r->slot_word;
}

int eg_log_end(struct eg_partition_map *m, _Atomic uint64_t *pin_cell, bool fence, int64_t *offset) {
    struct eg_reader look;
    eg_reader_init(&look, m, pin_cell, fence, false, NULL, 0);
    for (int attempt = 0; attempt < 1024; attempt++) {
        uint64_t seq = eg_load_acquire(&m->ring->active);
        int rc = seq > EG_SEQ_MAX ? EG_LOG_GONE : pin(&look, seq);
        if (rc == EG_LOG_GONE) {
            rc = eg_partition_usable(m);
            if (rc != EAGRE_OK)
                return rc;
            continue;
        }
        if (rc != EAGRE_OK)
            return rc;
        uint64_t hint = eg_load_relaxed(&((struct eg_segment_header *)(void *)look.base)->hint);
        look.pos = eg_hint_pos(hint);
        look.index = eg_hint_index(hint);
        if (look.pos - EG_SEGMENT_DATA > m->capacity - EG_SEGMENT_DATA || (look.pos & (m->align - 1)) != 0) {
            look.pos = EG_SEGMENT_DATA;
            look.index = 0;
        }
        uint64_t word = 0;
        while (look.pos < m->capacity && (rc = load_word(&look, look.pos, &word)) == EAGRE_OK &&
               eg_word_is_sane(word, look.pos, m->capacity, m->align) &&
               eg_word_kind(word) != EG_KIND_EOS) {
            look.pos += eg_word_length(word);
            look.index += eg_word_count(word);
        }
        eg_reader_unpin(&look);
        if (rc != EAGRE_OK)
            return rc;
        *offset = look.base_offset + (int64_t)look.index;
        return EAGRE_OK;
    }
    return eg_error_set(EAGRE_E_WOULD_BLOCK, "partition %u: its active segment is closed", m->number);
}
