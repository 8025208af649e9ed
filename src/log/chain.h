/*
 * chain.h - the chain of frames of one segment, walked by who trusts nothing and has little time: the
 * daemon, in slices. A walk can be cut off at any frame and gone on with.
 */
#ifndef EG_LOG_CHAIN_H
#define EG_LOG_CHAIN_H

#include "layout/layout.h"

struct eg_chain {
    uint8_t *base;      /* the segment's mapping, from the header page on */
    uint64_t capacity;
    uint64_t allocated; /* bytes of it that may be touched */
    uint32_t align;
    uint64_t pos;       /* a frame begins here, if all before was a chain */
    uint64_t index;     /* records before it */
    uint64_t word;      /* CLAIMED, BAD: what stands at pos */
    uint64_t open_pos;  /* the first unpublished frame that was stepped over; 0: none was */
    uint64_t open_index;
};

enum eg_chain_at {
    EG_CHAIN_MORE,    /* no steps left */
    EG_CHAIN_FREE,    /* a free word, or no memory: the chain ends here so far */
    EG_CHAIN_SEALED,  /* the end of the segment */
    EG_CHAIN_CLAIMED, /* an unpublished frame; eg_chain_pass() steps over it */
    EG_CHAIN_BAD      /* this is no frame word */
};

/* Step over published frames. Each word that is looked at takes one of *steps. */
enum eg_chain_at eg_chain_walk(struct eg_chain *c, uint32_t *steps);

static inline void eg_chain_pass(struct eg_chain *c) {
    if (c->open_pos == 0) {
        c->open_pos = c->pos;
        c->open_index = c->index;
    }
    c->pos += eg_word_length(c->word);
    c->index += eg_word_count(c->word);
}

#endif
