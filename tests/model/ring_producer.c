/* A producer: src/log/writer.h (the fast path), writer.c (enter, claim_here), rotate.c. */
#include "ring.h"

unsigned record_length(unsigned who, unsigned record) {
    return options.mixed && (who + record) % 2 == 1 ? 2 : 1;
}

static bool is_aborted(unsigned who, unsigned record) {
    return options.mixed && (who + record) % 4 == 2;
}

static word_t make(const struct producer *p, unsigned who, enum frame_kind kind, unsigned length) {
    return word_make(kind, length, kind == EOS ? 0 : length, p->owner, who, p->life, p->record);
}

static void set_pin(struct ring *s, unsigned who, unsigned pin) {
    store(s, who, PIN_CELL, s->producer[who].owner, 0, pin,
          pin == PIN_NONE && !broken(BREAK_unpin_relaxed));
    if (options.fence && pin != PIN_NONE && !broken(BREAK_pin_no_fence))
        drain(s, who);
}

static bool word_is(const struct slot *w, unsigned seq, enum slot_state state) {
    return w->state == state && (w->seq == seq || broken(BREAK_word_without_seq));
}

/* The tail hint: in the buffer, or where it once was. */
static unsigned load_hint(const struct ring *s, unsigned who, const struct producer *p) {
    if (broken(BREAK_hint_in_slot))
        return load(s, who, SLOT_HINT, p->seq % options.slots, 0);
    return load(s, who, HINT, p->buffer, 0);
}
static void store_hint(struct ring *s, unsigned who, const struct producer *p, unsigned length) {
    unsigned hint = (p->position + length) << 8 | (p->index + length);
    if (broken(BREAK_hint_in_slot))
        store(s, who, SLOT_HINT, p->seq % options.slots, 0, hint, false);
    else
        store(s, who, HINT, p->buffer, 0, hint, false);
}

/* What is only needed until the next record is forgotten: equal situations are then equal states. */
static void forget(struct producer *p) { p->position = p->index = p->base = p->next_buffer = 0; }

static void claim_step(struct ring *s, unsigned who, const char **name) {
    struct producer *p = &s->producer[who];
    unsigned length = record_length(who, p->record);
    bool room = p->position + length <= options.places;
    word_t w = 0;
    if (room) {
        drain(s, who); /* the CAS */
        w = s->buffer[p->buffer].word[p->position];
        if (word_kind(w) == FREE) {
            claim(s, p->buffer, p->position, make(p, who, CLAIMED, length), p->seq,
                  p->base + p->index);
            p->step = P_STORE_HINT;
            *name = "claim.done";
            return;
        }
    } else if (!p->fast && p->position < options.places) {
        w = (word_t)load(s, who, FRAME_WORD, p->buffer, p->position);
    }
    if (p->fast && (!room || word_kind(w) == EOS)) {
        p->step = P_ENTER;
        *name = "no room: slow path";
    } else if (p->position >= options.places || word_kind(w) == EOS || word_kind(w) == FREE) {
        if (word_kind(w) == EOS)
            p->position = (uint8_t)options.places;
        p->step = p->position < options.places && !broken(BREAK_no_eos) ? P_EOS : P_NEXT_SLOT;
        *name = "no room: rotate";
    } else {
        p->position += (uint8_t)word_length(w);
        p->index += (uint8_t)word_count(w);
        *name = "step over a frame";
    }
}

static void publish_step(struct ring *s, unsigned who) {
    struct producer *p = &s->producer[who];
    unsigned length = record_length(who, p->record);
    bool release = !broken(BREAK_publish_relaxed);
    if (is_aborted(who, p->record))
        store(s, who, FRAME_WORD, p->buffer, p->position, make(p, who, PAD, length), release);
    else /* of a batch: its first frame, which leads to the next */
        store(s, who, FRAME_WORD, p->buffer, p->position, make(p, who, DATA, 1), release);
}

/* rotate.c */
static bool rotate_step(struct ring *s, unsigned who, const char **name) {
    struct producer *p = &s->producer[who];
    unsigned next = p->seq + 1u;
    struct slot *slot = slot_of(s, next);
    switch (p->step) {
    case P_EOS: {
        *name = "eos.set";
        drain(s, who);
        word_t *at = &s->buffer[p->buffer].word[p->position];
        if (word_kind(*at) == FREE) {
            CHECK(s->buffer[p->buffer].seq == p->seq, "R1: end of segment set in another life");
            *at = make(p, who, EOS, options.places - p->position);
        }
        p->step = word_kind(*at) == EOS ? P_NEXT_SLOT : P_ENTER;
        return true;
    }
    case P_NEXT_SLOT:
        *name = "next.seen";
        p->next_buffer = slot->buffer;
        p->step = word_is(slot, next, OPEN)    ? P_ACTIVE
                  : word_is(slot, next, READY) ? P_NEXT_MAP
                                               : P_NEXT_ACTIVE;
        return true;
    case P_NEXT_ACTIVE:
        *name = "load active: did the ring go on?";
        p->step = s->active != p->seq         ? P_ENTER
                  : broken(BREAK_wait_pinned) ? P_WAIT
                                              : P_UNPIN_TO_WAIT;
        return true;
    case P_NEXT_MAP:
        *name = "look at the next buffer's header";
        CHECK(s->buffer[p->next_buffer].seq == next, "R1: the buffer of a READY slot is another's");
        p->step = P_BASE;
        return true;
    case P_BASE: {
        *name = "base.set";
        struct buffer *b = &s->buffer[p->next_buffer];
        drain(s, who);
        if (b->base == BASE_UNSET) {
            CHECK(b->seq == next, "R1: base is set in another life of the buffer");
            b->base = (uint8_t)(p->base + p->index);
        }
        CHECK(b->base == p->base + p->index, "R4: helpers do not agree on the next base");
        p->step = P_OPEN;
        return true;
    }
    case P_OPEN: {
        *name = "slot.opened";
        drain(s, who);
        const struct slot expected = {(uint8_t)next, READY, p->next_buffer};
        if (slot_equals(slot, &expected) || broken(BREAK_open_by_store) ||
            (broken(BREAK_word_without_seq) && slot->state == READY))
            *slot = (struct slot){(uint8_t)next, OPEN, p->next_buffer};
        p->step = P_ACTIVE;
        return true;
    }
    case P_ACTIVE:
        *name = "active.moved";
        drain(s, who);
        if (s->active == p->seq || broken(BREAK_active_by_store)) {
            CHECK(s->active <= next, "R5: active goes back");
            s->active = (uint8_t)next;
        }
        p->step = P_ENTER;
        return true;
    case P_UNPIN_TO_WAIT:
        *name = "unpinned, to wait for room";
        set_pin(s, who, PIN_NONE);
        p->step = P_WAIT;
        return true;
    default: /* P_WAIT, on the futex `room`; that no wake-up is lost there is idle.c's business */
        if (s->active == p->seq && !slot_is(slot, next, READY) && !slot_is(slot, next, OPEN))
            return false;
        *name = "woken: try again";
        p->step = P_PIN;
        p->fast = true;
        forget(p);
        return true;
    }
}

/* In the place of a dead one, once some owner number is free again. */
static bool attach(struct ring *s, unsigned who, const char **name) {
    struct producer *p = &s->producer[who];
    if (!options.attach || p->life > 0 || p->record >= options.records)
        return false;
    for (unsigned o = 0; o < options.producers; o++) {
        if (s->client[o] != CLIENT_FREE)
            continue;
        *name = "attach: a new client takes the owner number";
        *p = (struct producer){.life = 1, .owner = (uint8_t)o, .record = p->record};
        s->client[o] = CLIENT_LIVE;
        s->pin[o] = PIN_NONE; /* a new page */
        return true;
    }
    return false;
}

bool producer_step(struct ring *s, unsigned who, const char **name) {
    struct producer *p = &s->producer[who];
    if (p->dead)
        return attach(s, who, name);
    if (p->stopped)
        return false;
    if (p->step == P_NEXT_RECORD) {
        if (p->record >= options.records)
            return false;
        p->fast = p->entered;
        p->step = p->entered ? P_PIN : P_ENTER;
    }
    struct slot *slot = slot_of(s, p->seq);
    unsigned length = record_length(who, p->record);
    switch (p->step) {
    case P_ENTER:
        *name = "load active";
        p->fast = p->entered = false;
        forget(p);
        p->seq = s->active;
        p->step = P_PIN;
        return true;
    case P_PIN:
        *name = "pin.stored";
        set_pin(s, who, PIN_ON(p->seq));
        p->step = P_CHECK;
        return true;
    case P_CHECK:
        if (word_is(slot, p->seq, OPEN) || broken(BREAK_no_recheck)) {
            *name = "pin.checked";
            p->buffer = slot->buffer;
            p->entered = true;
            p->step = P_LOAD_HINT;
        } else {
            *name = "the slot is another's";
            p->step = p->fast ? P_ENTER : P_RECHECK_ACTIVE;
        }
        return true;
    case P_RECHECK_ACTIVE:
        *name = "load active again";
        CHECK(s->active != p->seq, "R5: the active segment is closed");
        p->step = P_ENTER;
        return true;
    case P_LOAD_HINT: {
        *name = "load header and hint";
        unsigned hint = load_hint(s, who, p);
        p->position = hint >> 8;
        p->index = hint & 0xff;
        p->base = s->buffer[p->buffer].base;
        p->step = P_CLAIM;
        return true;
    }
    case P_CLAIM:
        claim_step(s, who, name);
        return true;
    case P_STORE_HINT:
        *name = "hint.stored";
        store_hint(s, who, p, length);
        p->step = broken(BREAK_unpin_early) ? P_UNPIN : P_FRAME_HALF;
        return true;
    case P_FRAME_HALF: {
        *name = "frame.half";
        word_t w = s->buffer[p->buffer].word[p->position];
        CHECK(word_kind(w) == CLAIMED && word_who(w) == who && word_life(w) == p->life &&
                  word_record(w) == p->record,
              "R1: a producer writes bytes that are another's");
        p->step = length == 2 && !is_aborted(who, p->record) ? P_BATCH : P_PUBLISH;
        return true;
    }
    case P_BATCH:
        *name = "batch.k_of_n";
        store(s, who, FRAME_WORD, p->buffer, p->position + 1u, make(p, who, DATA, 1), false);
        p->step = P_PUBLISH;
        return true;
    case P_PUBLISH:
        *name = "publish.done";
        publish_step(s, who);
        p->step = P_UNPIN;
        if (!broken(BREAK_unpin_early))
            return true;
        break; /* it has no pin any more */
    case P_UNPIN:
        *name = "unpinned";
        set_pin(s, who, PIN_NONE);
        if (broken(BREAK_unpin_early)) {
            p->step = P_FRAME_HALF;
            return true;
        }
        break;
    default:
        return rotate_step(s, who, name);
    }
    p->record++;
    p->step = P_NEXT_RECORD;
    p->fast = false;
    forget(p);
    return true;
}
