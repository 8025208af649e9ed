#include "ring.h"

#include <string.h>

void ring_init(struct ring *s) {
    memset(s, 0, sizeof(*s));
    for (unsigned b = 0; b < BUFFERS_MAX; b++)
        s->buffer[b].base = BASE_UNSET;
    for (unsigned i = 0; i < options.slots; i++) {
        s->slot[i] = (struct slot){(uint8_t)i, i == 0 ? OPEN : READY, (uint8_t)i};
        s->journal[i] = s->slot[i];
        s->use[i] = USE_SLOT;
        s->use_seq[i] = s->buffer[i].seq = (uint8_t)i;
    }
    s->buffer[0].base = 0;
    for (unsigned i = 0; i < options.producers; i++) {
        s->producer[i].owner = (uint8_t)i;
        s->client[i] = CLIENT_LIVE;
    }
    if (options.readers > 0)
        s->client[READER_OWNER] = CLIENT_LIVE;
}

/* ---- store buffers ---------------------------------------------------------------------------------- */

static void apply(struct ring *s, const struct store *w) {
    switch (w->what) {
    case PIN_CELL:
        s->pin[w->of] = (uint8_t)w->value;
        break;
    case HINT:
        s->buffer[w->of].hint_position = w->value >> 8;
        s->buffer[w->of].hint_index = w->value & 0xff;
        break;
    case SLOT_HINT:
        s->slot_hint[w->of][0] = w->value >> 8;
        s->slot_hint[w->of][1] = w->value & 0xff;
        break;
    default: { /* a frame's word, stored by who claimed the frame: publish, or within a batch */
        word_t *at = &s->buffer[w->of].word[w->at], now = *at, value = w->value;
        bool own_claim = word_kind(now) == CLAIMED && word_who(now) == word_who(value) &&
                         word_life(now) == word_life(value) &&
                         word_record(now) == word_record(value);
        bool in_batch = word_kind(now) == FREE && w->at > 0 &&
                        word_kind(s->buffer[w->of].word[w->at - 1]) == CLAIMED &&
                        word_who(s->buffer[w->of].word[w->at - 1]) == word_who(value);
        CHECK(own_claim || in_batch, "R1: a frame is published in bytes that are another's");
        if (own_claim && word_kind(value) == DATA && word_count(now) == 2)
            CHECK(word_kind(s->buffer[w->of].word[w->at + 1]) == DATA,
                  "R3: a batch is published before its inner frames");
        *at = value;
    }
    }
}

void store(struct ring *s, unsigned by, enum what what, unsigned of, unsigned at, unsigned value,
           bool release) {
    const struct store w = {(uint16_t)value, (uint8_t)what, (uint8_t)of, (uint8_t)at, release};
    if (options.memory == SC) {
        apply(s, &w);
        return;
    }
    if (s->stored[by] == STORES_MAX) /* a real one waits, too, when it is full */
        for (unsigned i = 0; !drain_one(s, by, i); i++) {}
    s->store[by][s->stored[by]++] = w;
}

unsigned load(const struct ring *s, unsigned by, enum what what, unsigned of, unsigned at) {
    for (unsigned i = s->stored[by]; i-- > 0;) {
        const struct store *w = &s->store[by][i];
        if (w->what == what && w->of == of && w->at == at)
            return w->value;
    }
    if (what == FRAME_WORD)
        return s->buffer[of].word[at];
    if (what == SLOT_HINT)
        return (unsigned)s->slot_hint[of][0] << 8 | s->slot_hint[of][1];
    return (unsigned)s->buffer[of].hint_position << 8 | s->buffer[of].hint_index;
}

void drain(struct ring *s, unsigned by) {
    for (unsigned i = 0; i < s->stored[by]; i++)
        apply(s, &s->store[by][i]);
    memset(s->store[by], 0, sizeof(s->store[by]));
    s->stored[by] = 0;
}

bool drain_one(struct ring *s, unsigned by, unsigned index) {
    struct store *w = s->store[by];
    if (index >= s->stored[by])
        return false;
    if (index > 0 && (options.memory == TSO || w[index].release))
        return false;
    for (unsigned i = 0; i < index; i++)
        if (w[i].what == w[index].what && w[i].of == w[index].of && w[i].at == w[index].at)
            return false;
    apply(s, &w[index]);
    s->stored[by]--;
    memmove(&w[index], &w[index + 1], (s->stored[by] - index) * sizeof(*w));
    memset(&w[s->stored[by]], 0, sizeof(*w));
    return true;
}

/* ---- looking around ------------------------------------------------------------------------------------ */

unsigned ring_first(const struct ring *s) {
    unsigned first = s->journal[0].seq;
    for (unsigned i = 1; i < options.slots; i++)
        first = s->journal[i].seq < first ? s->journal[i].seq : first;
    return first;
}

bool claimant_lives(const struct ring *s, word_t w) {
    const struct producer *p = &s->producer[word_who(w)];
    return !p->dead && p->life == word_life(w);
}

bool pin_holds(const struct ring *s, unsigned owner, unsigned seq) {
    unsigned pin = s->client[owner] == CLIENT_LIVE ? s->pin[owner] : PIN_NONE;
    if (pin == PIN_NONE)
        return false;
    /* A producer on seq-1 may be opening seq. */
    return pin == PIN_ON(seq) ||
           (owner != READER_OWNER && PIN_ON(seq) == pin + 1 && !broken(BREAK_ignore_previous));
}

bool anybody_pins(const struct ring *s, unsigned seq) {
    for (unsigned o = 0; o < CLIENTS_MAX; o++)
        if (pin_holds(s, o, seq))
            return true;
    return false;
}

unsigned find_use(const struct ring *s, enum buffer_use use) {
    for (unsigned b = 0; b < options.buffers; b++)
        if (s->use[b] == use)
            return b;
    return BUFFERS_MAX;
}

unsigned client_after(unsigned k) {
    unsigned next = k + 1;
    if (next < READER && next >= options.producers)
        next = READER;
    return next == READER && options.readers == 0 ? CLIENTS_MAX : next;
}

/* ---- what any access must keep ----------------------------------------------------------------------------- */

void claim(struct ring *s, unsigned buffer, unsigned position, word_t w, unsigned seq,
           unsigned offset) {
    struct buffer *b = &s->buffer[buffer];
    unsigned at = 0, index = 0;
    CHECK(b->seq == seq, "R1: a claim in another life of the buffer");
    CHECK(s->use[buffer] == USE_SLOT, "R1: a claim in a buffer that no slot names");
    while (at < position && word_kind(b->word[at]) != FREE && word_kind(b->word[at]) != EOS) {
        index += word_count(b->word[at]);
        at += word_length(b->word[at]);
    }
    CHECK(at == position, "R1: a claim that is not at the end of the chain");
    for (unsigned i = 0; i < word_length(w); i++)
        CHECK(word_kind(b->word[position + i]) == FREE, "R1: a claim over another frame");
    CHECK(offset == b->base + index, "R4: a claim's index is not the sum of the counts before");
    CHECK(offset == s->next, "R4: a claim's offset does not follow the one before");
    CHECK(s->client[word_owner(w)] == CLIENT_LIVE, "R2: a claim is signed by nobody");
    s->next = (uint8_t)(offset + word_count(w));
    b->word[position] = w;
}

void zero(struct ring *s, unsigned buffer, unsigned from, unsigned to) {
    struct buffer *b = &s->buffer[buffer];
    for (unsigned i = from; i < to; i++) {
        if (word_kind(b->word[i]) == CLAIMED)
            explorer_violated(claimant_lives(s, b->word[i]) ? "D1: a live owner's claim is zeroed"
                                                            : "D4: a claim is zeroed unrepaired");
        b->word[i] = 0;
    }
}
