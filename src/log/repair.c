#include "log/repair.h"

#include <inttypes.h>

#include "log/frame.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

int eg_repair_segment(uint8_t *buffer, uint64_t capacity, uint64_t allocated, uint32_t align,
                      bool (*is_dead)(void *ctx, uint32_t owner), void *ctx, uint64_t *pads) {
    uint64_t end = allocated < capacity ? allocated : capacity;
    uint64_t pos = EG_SEGMENT_DATA;
    *pads = 0;
    while (pos < capacity && end >= sizeof(uint64_t) && pos <= end - sizeof(uint64_t)) {
        struct eg_frame *f = eg_frame_at(buffer, pos);
        uint64_t word = eg_load_acquire(&f->word);
        if (word == 0)
            break;
        if (!eg_word_is_sane(word, pos, capacity, align))
            return eg_error_set(EAGRE_E_CORRUPT, "position %" PRIu64 ": %016" PRIx64 " is no frame word",
                                pos, word);
        if (eg_word_kind(word) == EG_KIND_EOS)
            break;
        if (eg_word_state(word) == EG_CLAIMED && is_dead(ctx, eg_word_owner(word))) {
            uint64_t pad = eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, eg_word_length(word),
                                        eg_word_count(word), eg_word_owner(word));
            /* Acq_rel; fails only if the dead one published after all, as its last act. */
            if (eg_cas_acq_rel(&f->word, &word, pad))
                ++*pads;
            else
                continue; /* look at what it is now: a batch that was published is shorter */
            EG_FAULT("repair.claim_k");
        }
        pos += eg_word_length(word);
    }
    return EAGRE_OK;
}
