/* A reader: src/log/reader.c, with auto.offset.reset=earliest. */
#include "ring.h"

static void set_pin(struct ring *s, unsigned pin) {
    store(s, READER, PIN_CELL, READER_OWNER, 0, pin,
          pin == PIN_NONE && !broken(BREAK_unpin_relaxed));
    if (options.fence && pin != PIN_NONE && !broken(BREAK_pin_no_fence))
        drain(s, READER);
}

/* The slot's word after the pin. */
static bool check(struct ring *s, const char **name) {
    struct reader *r = &s->reader;
    struct slot *slot = slot_of(s, r->seq);
    bool open = slot->state == OPEN && (slot->seq == r->seq || broken(BREAK_word_without_seq));
    *name = open ? "pin.checked" : "the slot is another's";
    if (!open && !broken(BREAK_reader_no_recheck))
        return false;
    r->buffer = slot->buffer;
    return true;
}

static void place(struct reader *r) {
    r->step = R_PLACE;
    r->active = r->seq = r->buffer = r->position = r->index = r->base = 0;
}

/* The word at its place; it may see only its own segment. */
static word_t look(const struct ring *s) {
    const struct reader *r = &s->reader;
    if (r->position >= options.places)
        return word_make(EOS, 0, 0, 0, 0, 0, 0);
    CHECK(s->buffer[r->buffer].seq == r->seq, "R3: a pinned reader's buffer got another life");
    return s->buffer[r->buffer].word[r->position];
}

static void take(struct ring *s) {
    struct reader *r = &s->reader;
    word_t w = r->held;
    unsigned end = r->base + r->index + word_count(w);
    if (word_kind(w) == DATA && r->base + r->index >= r->offset) {
        CHECK(r->base + r->index == r->offset, "D3: a record is skipped");
        CHECK(word_record(w) >= r->seen[word_who(w)], "D3: records come twice or in a wrong order");
        r->seen[word_who(w)] = (uint8_t)(word_record(w) + 1);
        if (options.mixed && record_length(word_who(w), word_record(w)) == 2)
            r->seen[word_who(w)]--; /* both of a batch have its number */
    }
    r->position += (uint8_t)word_length(w);
    r->index += (uint8_t)word_count(w);
    if (end > r->offset)
        r->offset = (uint8_t)end;
    r->held = 0;
}

/* eg_reader_has_news(); that no wake-up is lost is wake.c's business. */
static bool has_news(struct ring *s) {
    const struct reader *r = &s->reader;
    const struct slot *slot = slot_of(s, r->seq), *next = slot_of(s, r->seq + 1u);
    word_t w = r->position < options.places ? s->buffer[r->buffer].word[r->position]
                                            : word_make(EOS, 0, 0, 0, 0, 0, 0);
    if (!slot_is(slot, r->seq, OPEN) || slot->buffer != r->buffer) {
        /* A spinning reader keeps its pin, and so may wait for a frame of a segment that was let go. */
        if (!options.keep_pin)
            return true;
    }
    if (word_kind(w) == EOS)
        return next->seq > r->seq && !slot_is(next, r->seq + 1u, READY);
    return word_kind(w) == DATA || word_kind(w) == PAD;
}

/* place(): find the segment with the wanted offset, from the active one downwards. */
static bool place_step(struct ring *s, const char **name) {
    struct reader *r = &s->reader;
    switch (r->step) {
    case R_PLACE:
        *name = "find the offset: load active";
        place(r);
        r->active = r->seq = s->active;
        r->step = R_PLACE_PIN;
        return true;
    case R_PLACE_PIN:
        *name = "pin.stored";
        set_pin(s, PIN_ON(r->seq));
        r->step = R_PLACE_CHECK;
        return true;
    case R_PLACE_CHECK:
        r->step = check(s, name) ? R_PLACE_BASE : R_PLACE_UNPIN;
        return true;
    case R_PLACE_BASE:
        *name = "load base";
        r->base = s->buffer[r->buffer].base;
        CHECK(r->base != BASE_UNSET, "R4: an open segment has no base");
        if (r->base <= r->offset) {
            r->step = R_PLACE_WALK;
        } else if (r->seq > 0 && r->active + 1u - r->seq < options.slots) {
            r->seq--; /* unpins and pins: one store, as it looks at nothing between */
            r->step = R_PLACE_PIN;
        } else {
            r->step = R_PLACE_UNPIN;
        }
        return true;
    case R_PLACE_UNPIN:
        *name = "edge.unpinned";
        set_pin(s, PIN_NONE);
        r->step = R_PLACE_GONE;
        return true;
    case R_PLACE_GONE:
        *name = "load active: did the ring turn?";
        r->step = s->active != r->active ? R_PLACE : R_RESET;
        if (r->step == R_RESET)
            CHECK(r->offset < s->log_start, "D3: an offset that is in the log is out of range");
        return true;
    case R_RESET:
        *name = "out of range: go on at log_start";
        r->offset = s->log_start;
        place(r);
        return true;
    default: { /* R_PLACE_WALK */
        word_t w = look(s);
        *name = "walk to the offset";
        if (r->base + r->index + word_count(w) > r->offset || r->base + r->index == r->offset) {
            r->step = R_READ;
        } else if (word_kind(w) == FREE || word_kind(w) == EOS) {
            CHECK(word_kind(w) == EOS && s->active > r->seq,
                  "D3: an offset of the log lies beyond its end");
            r->step = R_PLACE;
        } else {
            r->position += (uint8_t)word_length(w);
            r->index += (uint8_t)word_count(w);
        }
        return true;
    }
    }
}

bool reader_step(struct ring *s, const char **name) {
    struct reader *r = &s->reader;
    if (options.readers == 0 || r->dead || r->stopped)
        return false;
    switch (r->step) {
    case R_PIN:
        *name = "pin.stored";
        set_pin(s, PIN_ON(r->seq));
        r->step = R_CHECK;
        return true;
    case R_CHECK:
        r->step = check(s, name) ? R_READ : R_PLACE_UNPIN;
        if (r->step == R_PLACE_UNPIN)
            r->active = 0xff; /* then place() begins: as if the ring had turned */
        return true;
    case R_READ:
        r->held = look(s);
        if (word_kind(r->held) == EOS) {
            *name = "end of segment";
            r->held = 0;
            r->step = R_NEXT;
        } else if (word_kind(r->held) == DATA || word_kind(r->held) == PAD) {
            *name = "read a frame";
            r->step = R_HELD;
        } else {
            *name = "the edge";
            r->held = 0;
            r->step = options.keep_pin ? R_WAIT : R_EDGE;
        }
        return true;
    case R_HELD:
        *name = "use what it read";
        CHECK(look(s) == r->held, "R3: published bytes change under a pin");
        take(s);
        r->step = R_READ;
        return true;
    case R_NEXT: {
        *name = "look at the next slot";
        const struct slot *next = slot_of(s, r->seq + 1u);
        bool wait = slot_is(next, r->seq + 1u, READY) || next->seq <= r->seq;
        r->step = !wait ? R_NEXT_PIN : options.keep_pin ? R_WAIT : R_EDGE;
        return true;
    }
    case R_NEXT_PIN:
        *name = "pin.stored";
        r->base += r->index; /* what the next one's must be */
        r->seq++;            /* unpins and pins: one store, as it looks at nothing between */
        r->position = r->index = 0;
        set_pin(s, PIN_ON(r->seq));
        r->step = R_NEXT_CHECK;
        return true;
    case R_NEXT_CHECK:
        r->step = check(s, name) ? R_NEXT_BASE : R_PLACE_UNPIN;
        if (r->step == R_PLACE_UNPIN)
            r->active = 0xff;
        return true;
    case R_NEXT_BASE:
        *name = "load base";
        CHECK(s->buffer[r->buffer].base == r->base, "R4: segments do not follow without a gap");
        r->step = R_READ;
        return true;
    case R_EDGE:
        *name = "edge.unpinned";
        set_pin(s, PIN_NONE);
        r->step = R_WAIT;
        return true;
    case R_WAIT:
        if (!has_news(s))
            return false;
        *name = "news: look again";
        r->step = options.keep_pin ? R_READ : R_PIN;
        return true;
    default:
        return place_step(s, name);
    }
}
