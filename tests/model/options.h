/*
 * options.h - what is explored: how many of whom, which memory, and what is broken on purpose.
 */
#ifndef MODEL_OPTIONS_H
#define MODEL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* How stores become visible to others.
 * SC:   at once.
 * TSO:  each client has a first-in-first-out store buffer (x86). Read-modify-writes empty it.
 * WEAK: the buffer may also be emptied in another order, but a release store waits for all before it,
 *       and no two stores to one word change places (AArch64's stores; its loads see DESIGN and
 *       docs/MEMORY_MODEL.md). */
enum memory { SC, TSO, WEAK };

/*
 * Mutations: each breaks one rule of the protocol, and a run shows that the check notices.
 * X(name, model, what is broken)
 */
#define MUTATIONS(X)                                                                               \
    X(no_recheck, ring, "a producer does not look at the slot's word after its pin")               \
    X(word_without_seq, ring, "slot words are compared by their state only")                       \
    X(zero_after_ready, ring, "the daemon says READY before it zeroes the buffer")                 \
    X(repair_live, ring, "one witness is enough: claims of living clients are repaired")           \
    X(ignore_previous, ring, "a producer's pin on seq-1 does not count for seq")                   \
    X(wait_pinned, ring, "a producer waits for a slot without taking its pin back")                \
    X(reader_no_recheck, ring, "a reader does not look at the slot's word after its pin")          \
    X(unpin_early, ring, "a producer takes its pin back between claim and publish")                \
    X(hint_in_slot, ring, "the tail hint lies in the slot instead of the buffer")                  \
    X(retire_no_membarrier, ring, "no membarrier between RETIRING and the scan of the pins")       \
    X(pin_no_fence, ring, "an unregistered client has a compiler barrier after its pin")           \
    X(publish_relaxed, ring, "publish is not a release store")                                     \
    X(unpin_relaxed, ring, "the pin is cleared by a store that is not a release")                  \
    X(journal_after_word, ring, "the daemon writes its journal after the ring's word")             \
    X(owner_freed_first, ring, "an owner number is free before its claims are repaired")           \
    X(pins_cleared_first, ring, "a dead client's pins are cleared before its claims are repaired") \
    X(repair_by_store, ring, "repair stores its pad without looking what is there")                \
    X(open_by_store, ring, "slot.opened is a store instead of a CAS of the whole word")            \
    X(active_by_store, ring, "active.moved is a store instead of a CAS")                           \
    X(no_eos, ring, "rotation does not close the segment: no eos.set")                             \
    X(detached_not_kept, ring, "after a swap the old buffer is cleaned without a look at pins")    \
    X(retire_unpublished, ring, "a disk topic retires what is not published yet")                  \
    X(recover_active_once, ring, "a restarted daemon judges slots by an `active` loaded before")   \
    X(recover_forgets_retire, ring, "a restarted daemon takes RETIRING for zeroed")                \
    X(recover_swapped_is_dirty, ring, "a restarted daemon cleans a buffer that a swap cut off")    \
    X(recover_spare_is_held, ring,                                                                 \
      "a restarted daemon holds the spare of a swap cut off as detached")                          \
    X(sleep_no_membarrier, wake, "the sleeper has no membarrier before its last look")             \
    X(sleep_no_look, wake, "the sleeper does not look again after it announced itself")            \
    X(summary_before_bit, wake, "the sleeper sets the summary before its bit")                     \
    X(summary_after_bits, wake, "the waker clears the summary after it took the bits")             \
    X(bell_after_bit, wake, "the sleeper reads its bell after it set its bit")                     \
    X(wake_before_publish, wake, "the waker looks at the summary before it publishes")             \
    X(wake_no_fence, wake, "a waker whom no membarrier reaches has a compiler barrier only")       \
    X(death_no_ring, wake, "the daemon does not ring the sleepers after a death")                  \
    X(news_word_first, wake, "the last look loads the slot's word before the frame's")             \
    X(unwatch_by_store, idle, "the daemon stops to watch by a store instead of an exchange")       \
    X(unwatch_no_look, idle, "the daemon does not look at `active` after it stopped to watch")     \
    X(watched_before_active, idle, "a producer sets `watched` before it moves `active`")           \
    X(room_after_try, idle, "a producer loads `room` after its last try")                          \
    X(room_before_ready, idle, "the daemon counts `room` before it says READY")                    \
    X(room_relaxed, idle, "`room` is counted by a relaxed addition")

enum mutation {
    NOTHING,
#define X(name, model, what) BREAK_##name,
    MUTATIONS(X)
#undef X
        MUTATION_COUNT
};

struct options {
    enum memory memory;
    enum mutation broken;
    /* ring */
    unsigned producers, readers, slots, buffers, places, records;
    bool mixed;     /* some records are batches of two places, some are aborted */
    bool keep_pin;  /* the reader stays pinned while it waits, as one that spins does */
    bool disk;      /* retire only what is published; readers find the rest in files */
    bool fence;     /* clients fence themselves instead of the daemon's membarrier */
    bool retention; /* segments may go at any time, not only when their slot is needed */
    bool attach;    /* after a death another client takes the owner number */
    /* what may happen to whom, how often */
    unsigned deaths, stops, crashes;
    bool stop_waiting; /* only who waits for room is stopped: that must cost nobody anything */
    /* wake */
    unsigned sleepers, wakers;
};

extern struct options options;

static inline bool broken(enum mutation m) { return options.broken == m; }

#endif
