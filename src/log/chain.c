#include "log/chain.h"

#include "log/frame.h"

enum eg_chain_at eg_chain_walk(struct eg_chain *c, uint32_t *steps) {
    uint64_t end = c->allocated < c->capacity ? c->allocated : c->capacity;
    while (c->pos < c->capacity) {
        if (end < sizeof(uint64_t) || c->pos > end - sizeof(uint64_t))
            return EG_CHAIN_FREE;
        if (*steps == 0)
            return EG_CHAIN_MORE;
        --*steps;
        /* Acquire: as any reader of the chain. Partner: claim and publish. */
        uint64_t word = eg_load_acquire(&eg_frame_at(c->base, c->pos)->word);
        if (word == 0)
            return EG_CHAIN_FREE;
        c->word = word;
        if (!eg_word_is_sane(word, c->pos, c->capacity, c->align))
            return EG_CHAIN_BAD;
        if (eg_word_kind(word) == EG_KIND_EOS)
            return EG_CHAIN_SEALED;
        if (eg_word_state(word) == EG_CLAIMED)
            return EG_CHAIN_CLAIMED;
        c->pos += eg_word_length(word);
        c->index += eg_word_count(word);
    }
    return EG_CHAIN_SEALED;
}
