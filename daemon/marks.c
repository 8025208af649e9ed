/* marks.c - where a partition's log ends, and the mark in the store that lies behind it. */
#include <stdlib.h>

#include "log/chain.h"
#include "partition.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define STRIDE_OFFSETS                                                                             \
    (INT64_C(1) << 32) /* how far ahead a mark is put: one transaction for so many records */
#define STRIDE_SEQS (UINT64_C(1) << 20)
#define WALK_STEPS 4096u /* frames, when only looking */

int64_t eg_partition_records_max(const struct eg_partition *p) {
    uint64_t align = (uint64_t)p->topic->settings.v[EG_SET_RECORD_ALIGNMENT];
    return (int64_t)((eg_partition_capacity(p) - EG_SEGMENT_DATA) /
                     eg_align_up(EG_FRAME_HEADER, align));
}

static struct eg_meta_mark ahead(const struct eg_partition *p, int64_t bound, uint64_t seq) {
    return (struct eg_meta_mark){
        .partition_uid = p->uid, .end = bound + STRIDE_OFFSETS, .seq = seq + STRIDE_SEQS};
}

static bool is_marked(const struct eg_partition *p) { return p->mark.seq != 0 && !p->mark.clean; }

/* The topic comes into use: all of its partitions in one transaction, for a transaction is a disk flush. */
static int mark_topic(struct eg_daemon *d, struct eg_topic *t) {
    struct eg_meta_mark *marks = malloc(t->partitions * sizeof(*marks));
    size_t count = 0;
    if (marks == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for %u marks", t->partitions);
    for (uint32_t k = 0; k < t->partitions; k++) {
        struct eg_partition *p = t->part[k];
        uint32_t slots = eg_partition_slots(p);
        if (!is_marked(p))
            marks[count++] = ahead(p,
                                   eg_load_relaxed(&p->status->start_offset) +
                                       slots * eg_partition_records_max(p),
                                   eg_load_relaxed(&p->status->start_seq) + slots);
    }
    int rc = eg_meta_marks_put(d->meta, marks, count);
    for (uint32_t k = 0, i = 0; rc == EAGRE_OK && k < t->partitions; k++)
        if (!is_marked(t->part[k]))
            t->part[k]->mark = marks[i++];
    free(marks);
    return rc;
}

int eg_partition_mark_ahead(struct eg_daemon *d, struct eg_partition *p, uint64_t seq) {
    int rc = is_marked(p) ? EAGRE_OK : mark_topic(d, p->topic);
    int64_t bound = p->base[p->active % eg_partition_slots(p)] +
                    (int64_t)(seq - p->active + 1) * eg_partition_records_max(p);
    if (rc == EAGRE_OK && (bound > p->mark.end || seq >= p->mark.seq)) {
        struct eg_meta_mark mark = ahead(p, bound, seq);
        rc = eg_meta_marks_put(d->meta, &mark, 1);
        if (rc == EAGRE_OK)
            p->mark = mark;
    }
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "topic '%s' partition %u", eg_topic_name(p->topic), p->number);
    return EAGRE_OK;
}

static struct eg_chain chain_at(const struct eg_partition *p, uint32_t number, uint64_t pos,
                                uint64_t index) {
    return (struct eg_chain){.base = p->buffers[number].base,
                             .capacity = eg_partition_capacity(p),
                             .allocated = eg_buffer_allocated(p, number),
                             .align = p->topic->status->align,
                             .pos = pos,
                             .index = index};
}

struct eg_chain eg_partition_chain(const struct eg_partition *p, uint32_t number, uint64_t seq) {
    if (p->stable.pos != 0 && p->stable.seq == seq)
        return chain_at(p, number, p->stable.pos, p->stable.index);
    return chain_at(p, number, EG_SEGMENT_DATA, 0);
}

void eg_partition_walked(struct eg_partition *p, uint64_t seq, const struct eg_chain *c) {
    p->stable = c->open_pos == 0 ? (struct eg_place){seq, c->pos, c->index}
                                 : (struct eg_place){seq, c->open_pos, c->open_index};
}

/* The chain from where the hint says. False: it says nonsense. */
static bool chain_at_hint(const struct eg_partition *p, uint32_t number, struct eg_chain *c) {
    uint64_t hint = eg_load_relaxed(&eg_buffer_header(p, number)->hint);
    *c = chain_at(p, number, eg_hint_pos(hint), eg_hint_index(hint));
    return c->pos >= EG_SEGMENT_DATA && c->pos <= c->capacity && c->pos % c->align == 0 &&
           c->index <= (uint64_t)eg_partition_records_max(p);
}

/* On to the first free word, at most `steps` frames. False: what is there is no chain. *sealed: it ends at the
 * segment's end; *more: no steps left. */
static bool walk(const struct eg_partition *p, struct eg_chain *c, uint32_t steps, bool *sealed, bool *more) {
    enum eg_chain_at at;
    while ((at = eg_chain_walk(c, &steps)) == EG_CHAIN_CLAIMED)
        eg_chain_pass(c);
    *sealed = at == EG_CHAIN_SEALED;
    *more = at == EG_CHAIN_MORE;
    return at != EG_CHAIN_BAD && c->index <= (uint64_t)eg_partition_records_max(p);
}

int64_t eg_partition_end(struct eg_partition *p) {
    struct eg_chain c;
    bool sealed, more;
    p->end_found = true;
    if (p->buffers == NULL || eg_partition_failed(p))
        return eg_load_relaxed(&p->status->start_offset);
    uint32_t slot = (uint32_t)(p->active % eg_partition_slots(p));
    uint32_t number = eg_slot_buffer(eg_load_relaxed(&p->status->slot[slot]));
    bool known = p->end.pos != 0 && p->end.seq == p->active;
    /* The hint may lie far behind, where a producer stored it that had been stopped for long. */
    if (!chain_at_hint(p, number, &c) || (known && c.pos < p->end.pos))
        c = known ? chain_at(p, number, p->end.pos, p->end.index) : chain_at(p, number, EG_SEGMENT_DATA, 0);
    if (walk(p, &c, WALK_STEPS, &sealed, &more)) {
        p->end = (struct eg_place){p->active, c.pos, c.index};
        p->end_found = !more;
    } else {
        p->end = (struct eg_place){p->active, EG_SEGMENT_DATA, 0};
    }
    return p->base[slot] + (int64_t)p->end.index;
}

/* Close every slot but the active one's. Producers then find no next slot. */
static void close_others(struct eg_partition *p, uint64_t active) {
    for (uint32_t i = 0; i < eg_partition_slots(p); i++) {
        uint64_t word = eg_load_acquire(&p->ring->slot[i].word);
        while (eg_slot_seq(word) != active && eg_slot_state(word) != EG_SLOT_RETIRING &&
               !eg_cas_acq_rel(&p->ring->slot[i].word, &word,
                               (word & ~UINT64_C(0xff)) | EG_SLOT_RETIRING)) {}
    }
}

bool eg_partition_seal(struct eg_daemon *d, struct eg_partition *p, struct eg_meta_mark *mark) {
    uint32_t slots = eg_partition_slots(p);
    uint64_t active;
    if (p->buffers == NULL &&
        is_marked(p)) { /* never used: it will begin where it would have begun */
        *mark = (struct eg_meta_mark){.partition_uid = p->uid,
                                      .clean = 1,
                                      .end = eg_load_relaxed(&p->status->start_offset),
                                      .seq = eg_load_relaxed(&p->status->start_seq)};
        return true;
    }
    if (p->buffers == NULL || !eg_slots_follow(p, eg_mono_ns()))
        return false;
    active = p->active;
    close_others(p, active);
    /* Somebody may have opened the next one just before. Then that is the last. */
    uint64_t next = eg_load_acquire(&p->ring->active);
    if (next != active && next != active + 1)
        return false;
    active = next;
    uint32_t slot = (uint32_t)(active % slots);
    uint64_t noted = eg_load_relaxed(&p->status->slot[slot]);
    uint32_t number = eg_slot_buffer(noted);
    int64_t base = eg_load_acquire(&eg_buffer_header(p, number)->base);
    int64_t before = p->base[p->active % slots];
    if (eg_slot_seq(noted) != active || base < before ||
        base - before > (int64_t)(active - p->active) * eg_partition_records_max(p))
        return false;
    p->base[slot] = base; /* nobody can follow any more */
    p->active = active;
    /* Then take the end of the chain ourselves: whoever checked its slot before we closed it finds no place. */
    struct eg_chain c;
    bool sealed = false, more;
    for (int tries = 0; tries < 1000 && !sealed; tries++) {
        (void)eg_buffer_sync(d, p, number); /* what it cannot confirm is allocated here */
        if (!chain_at_hint(p, number, &c) || !walk(p, &c, UINT32_MAX, &sealed, &more))
            return false;
        if (sealed)
            break;
        if (c.pos + sizeof(uint64_t) > eg_buffer_allocated(p, number) &&
            eg_buffer_allocate(d, p, number, c.pos + sizeof(uint64_t)) != EAGRE_OK)
            return false; /* the next place has no memory, and could still be taken behind our back */
        struct eg_frame *f = (struct eg_frame *)(void *)(c.base + c.pos);
        uint64_t word = 0;
        sealed = eg_cas_acq_rel(
            &f->word, &word, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, c.capacity - c.pos, 0, 0));
    }
    uint64_t word = eg_load_relaxed(&p->ring->slot[slot].word);
    eg_store_release(&p->ring->slot[slot].word, (word & ~UINT64_C(0xff)) | EG_SLOT_RETIRING);
    if (!sealed)
        return false;
    int64_t end = base + (int64_t)c.index;
    /* A single writer takes places by plain stores: one claim of it may just have gone over our end. */
    if (p->topic->settings.v[EG_SET_WRITERS] == EG_WRITERS_SINGLE && p->topic->client_count > 0)
        end += UINT16_MAX + 1;
    *mark =
        (struct eg_meta_mark){.partition_uid = p->uid, .clean = 1, .end = end, .seq = active + 1};
    return true;
}
