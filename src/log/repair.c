#include "log/repair.h"

#include <inttypes.h>

#include "log/frame.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

int eg_repair_chain(struct eg_chain *c, uint32_t *steps, bool (*is_dead)(void *ctx, uint32_t owner),
                    void *ctx, uint64_t *pads) {
    for (;;) {
        switch (eg_chain_walk(c, steps)) {
        case EG_CHAIN_MORE:
            return EG_REPAIR_MORE;
        case EG_CHAIN_FREE:
        case EG_CHAIN_SEALED:
            return EAGRE_OK;
        case EG_CHAIN_BAD:
            return eg_error_set(EAGRE_E_CORRUPT, "position %" PRIu64 ": %016" PRIx64 " is no frame word",
                                c->pos, c->word);
        case EG_CHAIN_CLAIMED:
            break;
        }
        if (!is_dead(ctx, eg_word_owner(c->word))) {
            eg_chain_pass(c);
            continue;
        }
        uint64_t word = c->word;
        uint64_t pad = eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, eg_word_length(word),
                                    eg_word_count(word), eg_word_owner(word));
        /* Acq_rel. It fails only if the dead one published after all, as its last act. Either way the walk
         * looks at what it is now: a batch that was published is shorter. */
        if (eg_cas_acq_rel(&eg_frame_at(c->base, c->pos)->word, &word, pad)) {
            ++*pads;
            EG_FAULT("repair.claim_k");
        }
    }
}

int eg_repair_segment(uint8_t *buffer, uint64_t capacity, uint64_t allocated, uint32_t align,
                      bool (*is_dead)(void *ctx, uint32_t owner), void *ctx, uint64_t *pads) {
    struct eg_chain c = {.base = buffer, .capacity = capacity, .allocated = allocated, .align = align,
                         .pos = EG_SEGMENT_DATA};
    uint32_t steps = UINT32_MAX;
    *pads = 0;
    return eg_repair_chain(&c, &steps, is_dead, ctx, pads);
}
