/* After a client's death: daemon/janitor.c with src/log/repair.c. */
#include "ring.h"

/* The next buffer, from d->buffer on, that holds the segment that the dead one pinned. */
static bool find_buffer(const struct ring *s, unsigned from, unsigned *buffer) {
    unsigned pin = s->daemon.pin;
    for (unsigned b = from; b < options.buffers; b++)
        if (pin != PIN_NONE && s->daemon.owner != READER_OWNER && PIN_ON(s->use_seq[b]) == pin &&
            (s->use[b] == USE_SLOT || s->use[b] == USE_DETACHED)) {
            *buffer = b;
            return true;
        }
    return false;
}

/* To the next buffer, or on to what comes after the repair. */
static void go_on(struct ring *s, unsigned from) {
    struct daemon *d = &s->daemon;
    unsigned buffer;
    d->k = 0;
    if (find_buffer(s, from, &buffer)) {
        d->buffer = (uint8_t)buffer;
        d->step = D_REPAIR;
        return;
    }
    d->buffer = 0;
    d->step = D_BURY_PINS;
    if (broken(BREAK_pins_cleared_first))
        d->step = D_BURY_FREE;
    if (broken(BREAK_owner_freed_first)) /* that was done, too */
        s->daemon = (struct daemon){.retire = d->retire, .seq = d->seq};
}

/* One word of the chain. */
static void repair(struct ring *s, const char **name) {
    struct daemon *d = &s->daemon;
    word_t *at = &s->buffer[d->buffer].word[d->k];
    if (d->k >= options.places || word_kind(*at) == FREE || word_kind(*at) == EOS) {
        *name = "the end of the chain";
        go_on(s, d->buffer + 1u);
        return;
    }
    *name = "look at a frame";
    if (word_owner(*at) == d->owner &&
        (word_kind(*at) == CLAIMED || (broken(BREAK_repair_by_store) && word_kind(*at) == DATA))) {
        *name = "repair.claim_k";
        CHECK(word_kind(*at) == CLAIMED, "D3: a published record becomes a pad");
        CHECK(!claimant_lives(s, *at), "D1: a live owner's claim is repaired");
        *at = word_as(*at, PAD);
    }
    d->k += (uint8_t)word_length(*at);
}

/* Nothing may be left of a dead client whose number can be another's now. */
static void free_owner(struct ring *s) {
    unsigned owner = s->daemon.owner;
    for (unsigned b = 0; b < options.buffers; b++)
        for (unsigned i = 0; i < options.places; i++)
            if ((s->use[b] == USE_SLOT || s->use[b] == USE_DETACHED) &&
                word_kind(s->buffer[b].word[i]) == CLAIMED &&
                word_owner(s->buffer[b].word[i]) == owner)
                CHECK(claimant_lives(s, s->buffer[b].word[i]) || broken(BREAK_owner_freed_first),
                      "R2: a dead client's claim is left when its owner number is free");
    s->client[owner] = CLIENT_FREE;
    s->pin[owner] = PIN_NONE; /* its page is gone */
    for (unsigned i = 0; i < options.producers; i++)
        if (s->producer[i].dead && s->producer[i].owner == owner)
            s->producer[i].owner = NO_OWNER;
}

bool death_step(struct ring *s, const char **name) {
    struct daemon *d = &s->daemon;
    switch (d->step) {
    case D_BURY:
        if (broken(BREAK_owner_freed_first)) {
            *name = "owner.freed";
            free_owner(s);
        } else if (broken(BREAK_pins_cleared_first)) {
            *name = "clear its pins";
            s->pin[d->owner] = PIN_NONE;
        } else {
            *name = "look for its claims";
        }
        go_on(s, 0);
        return true;
    case D_REPAIR:
        repair(s, name);
        return true;
    case D_BURY_PINS:
        *name = "clear its pins";
        s->pin[d->owner] = PIN_NONE;
        d->step = D_BURY_FREE;
        return true;
    default: /* D_BURY_FREE */
        *name = "owner.freed";
        free_owner(s);
        s->daemon =
            (struct daemon){.retire = d->retire, .seq = d->retire != RETIRE_NOT ? d->seq : 0};
        return true;
    }
}
