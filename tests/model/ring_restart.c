/*
 * The daemon's successor takes over: eg_partition_take() in daemon/partition.c. It believes the
 * journal; a ring's word may differ by one step only. Producers go on all the while.
 */
#include "ring.h"

/* take_buffers(): the journal only, which nobody else writes. */
static void take_buffers(struct ring *s) {
    for (unsigned b = 0; b < options.buffers; b++) {
        unsigned newest = ring_first(s) + options.slots - 1;
        bool named = false;
        for (unsigned i = 0; i < options.slots; i++)
            named |= s->journal[i].buffer == b;
        if (s->use[b] == USE_NONE)
            continue;
        if (named) {
            s->use[b] = USE_SLOT;
        } else if (s->use[b] == USE_SLOT) {
            /* Cut off in the middle of a swap. The old buffer may be pinned; the new one, whose
             * segment no slot has had yet, is nobody's: were it held for the pins on the segment
             * before, it could not be swapped in, and stopped clients would hold up the others. */
            bool is_old = s->use_seq[b] <= newest;
            s->use[b] = (is_old && !broken(BREAK_recover_swapped_is_dirty)) ||
                                broken(BREAK_recover_spare_is_held)
                            ? USE_DETACHED
                            : USE_DIRTY;
        }
    }
}

/* settle_word(): bring the ring's word up to the journal's. */
static void settle(struct ring *s, unsigned seq) {
    const struct slot *noted = journal_of(s, seq);
    struct slot *word = slot_of(s, seq);
    const struct slot opened = {noted->seq, OPEN, noted->buffer};
    bool explained;
    if (slot_equals(word, noted))
        return;
    switch (noted->state) {
    case READY:
        if (slot_equals(word, &opened))
            return; /* a producer went on to it */
        explained = word->state == RETIRING && word->seq + options.slots == noted->seq;
        break;
    case RETIRING:
        explained = slot_equals(word, &opened);
        break;
    default:
        explained = false;
    }
    CHECK(explained, "D4: journal and ring contradict each other after a restart");
    *word = *noted;
}

/* take_ring(): is the slot's state possible, with `active` where it is? */
static void judge(struct ring *s, unsigned seq, unsigned first) {
    struct daemon *d = &s->daemon;
    const struct slot *word = slot_of(s, seq);
    bool possible;
    if (word->state == RETIRING && seq == first && d->active > first) {
        d->retire = RETIRE_SCAN; /* from the beginning: each step can be repeated */
        d->seq = (uint8_t)seq;
        return;
    }
    if (seq <= d->active) {
        possible = word->state == OPEN;
        CHECK(s->buffer[word->buffer].seq == seq && s->buffer[word->buffer].base != BASE_UNSET,
              "D4: an open segment is not what its slot says after a restart");
    } else if (seq == d->active + 1u) {
        possible = word->state != RETIRING;
    } else {
        /* OPEN: then producers have moved active on since it was loaded. */
        possible = word->state == READY || (!broken(BREAK_recover_active_once) &&
                                            word->state == OPEN && s->active + 1u >= seq);
    }
    CHECK(possible, "D4: a sound ring is taken for destroyed after a restart");
}

bool restart_step(struct ring *s, const char **name) {
    struct daemon *d = &s->daemon;
    unsigned first = ring_first(s);
    switch (d->step) {
    case D_RESTART:
        *name = "restart: take the buffers over";
        take_buffers(s);
        d->step = D_TAKE_ACTIVE;
        return true;
    case D_TAKE_ACTIVE:
        *name = "load active";
        d->active = s->active;
        CHECK(d->active >= first && d->active < first + options.slots,
              "D4: active is not one of the ring's segments after a restart");
        d->step = D_TAKE_WORD;
        return true;
    case D_TAKE_WORD:
        *name = "bring a slot's word up to the journal";
        settle(s, first + d->k);
        d->step = D_TAKE_STATE;
        return true;
    default: /* D_TAKE_STATE */
        *name = "look at a slot's state";
        judge(s, first + d->k, first);
        d->step = D_TAKE_WORD;
        if (++d->k == options.slots)
            *d = (struct daemon){.step = D_IDLE, .retire = d->retire, .seq = d->seq};
        if (d->step == D_IDLE && d->retire == RETIRE_SCAN && broken(BREAK_recover_forgets_retire))
            d->step = D_JOURNAL_BUFFER;
        return true;
    }
}
