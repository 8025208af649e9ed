/*
 * The daemon lets the oldest segment go and gives its slot the next life: daemon/slots.c.
 * What it journals, it journals before the ring's word says it.
 */
#include "ring.h"

static unsigned half(void) { return options.places / 2; }

static struct slot *word_of(struct ring *s) { return slot_of(s, s->daemon.seq); }
static unsigned next_life(const struct ring *s) { return s->daemon.seq + options.slots; }

static bool all_published(const struct ring *s, unsigned buffer) {
    const word_t *word = s->buffer[buffer].word;
    for (unsigned at = 0; at < options.places; at += word_length(word[at])) {
        if (word_kind(word[at]) == EOS)
            break;
        if (word_kind(word[at]) == FREE || word_kind(word[at]) == CLAIMED)
            return false;
    }
    return true;
}

static bool may_retire(struct ring *s) {
    unsigned first = ring_first(s);
    bool needed = first + options.slots - 1 <= s->active;
    if (s->daemon.retire != RETIRE_NOT || first >= s->active || !(needed || options.retention))
        return false;
    return !options.disk || broken(BREAK_retire_unpublished) ||
           all_published(s, journal_of(s, first)->buffer);
}

/* A spare, or room for one. */
static bool can_swap(const struct ring *s) { return find_use(s, USE_SPARE) != BUFFERS_MAX; }

static void idle(struct ring *s) {
    const struct daemon d = s->daemon;
    s->daemon = (struct daemon){.step = D_IDLE, .retire = d.retire, .seq = d.seq};
    if (d.retire == RETIRE_NOT)
        s->daemon.seq = 0;
}

bool daemon_begin(struct ring *s, unsigned job, const char **name) {
    struct daemon *d = &s->daemon;
    if (d->step != D_IDLE)
        return false;
    switch (job) {
    case JOB_RETIRE:
        if (may_retire(s)) {
            *name = "let the oldest segment go: log start, journal";
            d->seq = (uint8_t)ring_first(s);
            s->log_start = s->buffer[journal_of(s, d->seq + 1u)->buffer].base;
            if (options.disk)
                CHECK(all_published(s, journal_of(s, d->seq)->buffer),
                      "D3: a disk topic lets a record go that is not published");
            if (!broken(BREAK_journal_after_word))
                journal_of(s, d->seq)->state = RETIRING;
            d->step = D_MARK;
            return true;
        }
        if (d->retire == RETIRE_SCAN) {
            *name = "go on with a retire";
            d->step = D_BARRIER;
            return true;
        }
        /* Held: looked at again and again, but only a change is worth a state. */
        if (d->retire != RETIRE_HELD || (anybody_pins(s, d->seq) && !can_swap(s)))
            return false;
        *name = "look at the pins again";
        d->step = D_SCAN;
        return true;
    case JOB_BUILD: {
        unsigned none = find_use(s, USE_NONE);
        if (d->retire != RETIRE_HELD || !anybody_pins(s, d->seq) || can_swap(s) ||
            find_use(s, USE_DIRTY) != BUFFERS_MAX || none == BUFFERS_MAX)
            return false;
        *name = "make a spare buffer";
        s->use[none] = USE_SPARE;
        return true;
    }
    case JOB_DETACHED:
        for (unsigned b = 0; b < options.buffers; b++) {
            if (s->use[b] != USE_DETACHED ||
                (anybody_pins(s, s->use_seq[b]) && !broken(BREAK_detached_not_kept)))
                continue;
            *name = "look at a detached buffer's pins";
            d->buffer = (uint8_t)b;
            d->step = D_LOOK_DETACHED;
            return true;
        }
        return false;
    case JOB_CLEAN: {
        unsigned dirty = find_use(s, USE_DIRTY);
        if (dirty == BUFFERS_MAX)
            return false;
        *name = "clean a buffer: first half";
        zero(s, dirty, 0, half());
        d->buffer = (uint8_t)dirty;
        d->step = D_CLEAN_HALF;
        return true;
    }
    default: { /* JOB_BURY */
        unsigned owner = job - JOB_BURY;
        bool dead = owner == READER_OWNER && s->reader.dead;
        for (unsigned i = 0; i < options.producers; i++)
            if (s->producer[i].owner == owner)
                dead |= s->producer[i].dead || (broken(BREAK_repair_live) && s->deaths == 0 &&
                                                s->producer[i].record < options.records);
        if (!dead || s->client[owner] != CLIENT_LIVE)
            return false;
        *name = broken(BREAK_repair_live) ? "take a client for dead" : "both witnesses: dead";
        s->deaths += broken(BREAK_repair_live); /* once is enough */
        d->owner = (uint8_t)owner;
        d->pin = s->pin[owner];
        d->step = D_BURY;
        return true;
    }
    }
}

/* One client's pin cell a step. True: all were looked at. */
static bool scan(struct ring *s, unsigned seq) {
    struct daemon *d = &s->daemon;
    d->held |= pin_holds(s, d->k, seq);
    d->k = (uint8_t)client_after(d->k);
    return d->k == CLIENTS_MAX;
}

static void scanned(struct ring *s) {
    struct daemon *d = &s->daemon;
    unsigned spare = find_use(s, USE_SPARE);
    bool held = d->held;
    d->retire = RETIRE_HELD;
    d->k = 0;
    d->held = false;
    if (!held) {
        d->step = D_RESET;
    } else if (spare != BUFFERS_MAX) {
        d->buffer = (uint8_t)spare;
        d->step = D_SWAP_HEADER;
    } else {
        idle(s); /* wait, or build one */
    }
}

static void prepare_header(struct ring *s, unsigned buffer) {
    struct buffer *b = &s->buffer[buffer];
    b->seq = (uint8_t)next_life(s);
    b->base = BASE_UNSET;
    b->hint_position = b->hint_index = 0;
    if (broken(BREAK_hint_in_slot))
        s->slot_hint[s->daemon.seq % options.slots][0] =
            s->slot_hint[s->daemon.seq % options.slots][1] = 0;
}

static void end_of_retire(struct ring *s) {
    s->daemon.retire = RETIRE_NOT;
    idle(s);
}

bool retire_step(struct ring *s, const char **name) {
    struct daemon *d = &s->daemon;
    struct slot *word = word_of(s), *journal = journal_of(s, d->seq);
    switch (d->step) {
    case D_MARK:
        *name = "retire.marked";
        CHECK(slot_is(word, d->seq, OPEN), "D4: the oldest segment's slot is not open");
        word->state = RETIRING;
        d->retire = RETIRE_SCAN;
        d->step = broken(BREAK_journal_after_word) ? D_MARK_JOURNAL : D_BARRIER;
        return true;
    case D_MARK_JOURNAL:
        *name = "journal what was marked";
        journal->state = RETIRING;
        d->step = D_BARRIER;
        return true;
    case D_BARRIER: /* one client after the other, as the interrupts come */
        *name = "membarrier reaches a client";
        if (options.memory == SC || options.fence || broken(BREAK_retire_no_membarrier)) {
            d->step = D_SCAN;
            return retire_step(s, name);
        }
        drain(s, d->k);
        d->k = (uint8_t)client_after(d->k);
        if (d->k == CLIENTS_MAX) {
            d->k = 0;
            d->step = D_SCAN;
        }
        return true;
    case D_SCAN:
        *name = "scan a client's pin";
        if (scan(s, d->seq)) {
            *name = "retire.scanned";
            scanned(s);
        }
        return true;
    case D_RESET:
        *name = "retire.reset";
        prepare_header(s, word->buffer);
        d->step = broken(BREAK_zero_after_ready) ? D_JOURNAL_BUFFER : D_ZERO;
        return true;
    case D_ZERO:
        *name = "retire.zero_half";
        zero(s, word->buffer, 0, half());
        d->step = D_ZERO_HALF;
        return true;
    case D_ZERO_HALF:
        *name = "zero the other half";
        zero(s, word->buffer, half(), options.places);
        d->step = D_JOURNAL_BUFFER;
        return true;
    case D_JOURNAL_BUFFER:
        *name = "ready.before: journal the buffer";
        s->use_seq[word->buffer] = (uint8_t)next_life(s);
        d->buffer = word->buffer;
        d->step = broken(BREAK_journal_after_word) ? D_READY : D_JOURNAL_READY;
        return true;
    case D_JOURNAL_READY:
        *name = "journal the slot";
        *journal = (struct slot){(uint8_t)next_life(s), READY, d->buffer};
        d->step = D_READY;
        return true;
    case D_READY:
        *name = "the slot is READY";
        *word = (struct slot){(uint8_t)next_life(s), READY, d->buffer};
        d->step = D_READY_JOURNAL;
        if (broken(BREAK_zero_after_ready))
            d->step = D_LATE_ZERO;
        else if (!broken(BREAK_journal_after_word))
            end_of_retire(s);
        return true;
    case D_READY_JOURNAL:
        *name = "journal the slot afterwards";
        *journal = (struct slot){(uint8_t)next_life(s), READY, d->buffer};
        end_of_retire(s);
        return true;
    case D_LATE_ZERO:
        *name = "zero the buffer";
        zero(s, d->buffer, 0, options.places);
        end_of_retire(s);
        return true;
    /* d->buffer is the spare, the word still names the old one. */
    case D_SWAP_HEADER:
        *name = "retire.reset";
        prepare_header(s, d->buffer);
        d->step = D_SWAP_SPARE;
        return true;
    case D_SWAP_SPARE:
        *name = "journal the spare's new use";
        s->use[d->buffer] = USE_SLOT;
        s->use_seq[d->buffer] = (uint8_t)next_life(s);
        d->step = broken(BREAK_journal_after_word) ? D_SWAP_DETACH : D_SWAP_JOURNAL;
        return true;
    case D_SWAP_JOURNAL:
        *name = "journal the slot";
        *journal = (struct slot){(uint8_t)next_life(s), READY, d->buffer};
        d->step = D_SWAP_DETACH;
        return true;
    case D_SWAP_DETACH:
        *name = "retire.swapped";
        s->use[word->buffer] = broken(BREAK_detached_not_kept) ? USE_DIRTY : USE_DETACHED;
        s->use_seq[word->buffer] = d->seq;
        d->step = D_READY;
        return true;
    case D_LOOK_DETACHED:
        *name = "scan a client's pin";
        if (scan(s, s->use_seq[d->buffer])) {
            *name = "a detached buffer's last pin is gone";
            if (!d->held) {
                s->use[d->buffer] = USE_DIRTY;
                s->use_seq[d->buffer] = 0;
            }
            idle(s);
        }
        return true;
    default: { /* D_CLEAN_HALF */
        *name = "a buffer is clean";
        zero(s, d->buffer, half(), options.places);
        struct buffer *b = &s->buffer[d->buffer];
        bool enough = can_swap(s);
        s->use[d->buffer] = enough ? USE_NONE : USE_SPARE; /* one spare is enough */
        b->seq = b->hint_position = b->hint_index = 0;     /* says nothing any more */
        b->base = BASE_UNSET;
        idle(s);
        return true;
    }
    }
}
