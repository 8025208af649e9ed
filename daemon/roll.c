/* roll.c - the daemon ends an active segment, with the steps of any producer that finds no room: src/log/rotate.h. */
#include "log/rotate.h"
#include "partition.h"
#include "slots.h"
#include "sys/clock.h"

#define STEPS_MAX 65536u

static int no_fetch(struct eg_partition_map *m, uint32_t number) {
    (void)m;
    return eg_error_set(EAGRE_E_CORRUPT, "there is no buffer %u", number);
}

static int no_allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    (void)m, (void)number, (void)from, (void)to;
    return EAGRE_E_INTERNAL;
}

static void no_bell(struct eg_partition_map *m) { (void)m; }

static void no_bells(struct eg_partition_map *m, uint32_t word, uint64_t mask) { (void)m, (void)word, (void)mask; }

static const struct eg_map_ops ops = {no_fetch, no_allocate, no_bell, no_bells, NULL, NULL};

void eg_partition_roll(struct eg_daemon *d, struct eg_partition *p) {
    static struct eg_partition_map m; /* large */
    uint32_t slots = eg_partition_slots(p);
    if (!eg_slots_follow(p, eg_mono_ns()))
        return;
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&p->status->slot[p->active % slots]));
    uint64_t capacity = eg_partition_capacity(p), word = 0;
    uint64_t hint = eg_load_relaxed(&eg_buffer_header(p, n)->hint), pos = eg_hint_pos(hint), index = eg_hint_index(hint);
    uint32_t align = p->topic->status->align;
    if (pos < EG_SEGMENT_DATA || pos > capacity || pos % align != 0) /* a producer's word: only where to begin */
        pos = EG_SEGMENT_DATA, index = 0;
    (void)eg_buffer_sync(d, p, n);
    for (uint32_t i = 0;; i++) {
        if (i == STEPS_MAX || (pos < capacity && pos + sizeof(word) > eg_buffer_allocated(p, n)))
            return; /* next time */
        word = pos < capacity ? eg_load_acquire(&eg_frame_at(p->buffers[n].base, pos)->word) : 0;
        if (word == 0 || eg_word_kind(word) == EG_KIND_EOS)
            break;
        if (!eg_word_is_sane(word, pos, capacity, align))
            return; /* whoever follows the chain finds it, too, and says so */
        pos += eg_word_length(word);
        index += eg_word_count(word);
    }
    m = (struct eg_partition_map){.ops = &ops,
                                  .bus = d->bus,
                                  .topic = p->topic->status,
                                  .status = p->status,
                                  .ring = p->ring,
                                  .waiters = p->waiters,
                                  .bells = d->bells,
                                  .capacity = capacity,
                                  .slots = slots,
                                  .align = align,
                                  .uid = p->uid,
                                  .index = p->index,
                                  .number = p->number,
                                  .writable = true};
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        m.bufs[i] = (struct eg_buffer_map){.base = p->buffers[i].fd >= 0 ? p->buffers[i].base : NULL, .fd = -1};
    struct eg_writer w = {.map = &m,
                          .owner = 0,
                          .seq = p->active,
                          .base = p->buffers[n].base,
                          .base_offset = p->base[p->active % slots]};
    (void)eg_rotate(&w, pos, index); /* not READY, or a record came in between: next time */
    eg_slots_wake(d, p);
}
