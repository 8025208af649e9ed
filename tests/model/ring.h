/*
 * ring.h - the model of one partition: producers, a reader and the daemon around a ring of slots.
 *
 *   ring_memory.c    what they share, store buffers, and the invariants that any access must keep
 *   ring_producer.c  pin, claim, publish; rotation            src/log/writer.[hc], rotate.c
 *   ring_reader.c    pin, read, next segment, find a place    src/log/reader.c
 *   ring_retire.c    retire, swap, detached buffers           daemon/slots.c
 *   ring_death.c     repair of dead clients' claims           src/log/repair.c, daemon/janitor.c
 *   ring_restart.c   the daemon after its own death           daemon/partition.c
 *   ring.c           who may step, what the environment does, what must hold in the end
 *
 * One step is one access to shared memory (SC), or one access to it or to a store buffer. What a
 * process does between two accesses belongs to the step before. Steps have the names of the code's
 * fault points where there is one. Accesses that only one process can see are taken together.
 *
 * A segment has `places` places of one unit; a record is one unit, or a batch of two records and two
 * units. Offsets count records. What nobody really stores is called ghost: it is only for assertions.
 *
 *   R1  every byte of the chain belongs to exactly one frame, in the segment it was claimed for
 *   R2  a place is taken and signed in one step: whoever signed it is known until it is published
 *   R3  published bytes never change, for who may read them
 *   R4  offsets are dense but for pads
 *   R5  no producer waits for another producer (or for a reader)
 *   D1  a live owner's claim is never touched
 *   D2  consumers go on after a death
 *   D3  a published record is never lost or skipped (but by retention)
 *   D4  repair can be cut off anywhere and repeated; so can all that the daemon does
 */
#ifndef MODEL_RING_H
#define MODEL_RING_H

#include "explorer.h"
#include "options.h"

enum {
    PRODUCERS_MAX = 3,
    CLIENTS_MAX = PRODUCERS_MAX + 1, /* the reader's owner number is the last one */
    SLOTS_MAX = 3,
    BUFFERS_MAX = 5,
    PLACES_MAX = 3,
    STORES_MAX = 4 /* of one store buffer */
};

/* ---- words ------------------------------------------------------------------------------------- */

enum frame_kind { FREE, CLAIMED, DATA, PAD, EOS };

/* A frame's word. who, life, record: ghost: which producer, in which of its lives, put what there. */
typedef uint16_t word_t;
static inline word_t word_make(enum frame_kind kind, unsigned length, unsigned count,
                               unsigned owner, unsigned who, unsigned life, unsigned record) {
    return (word_t)(kind | length << 3 | count << 5 | owner << 7 | who << 9 | life << 11 |
                    record << 12);
}
static inline enum frame_kind word_kind(word_t w) { return w & 7; }
static inline unsigned word_length(word_t w) { return w >> 3 & 3; }
static inline unsigned word_count(word_t w) { return w >> 5 & 3; }
static inline unsigned word_owner(word_t w) { return w >> 7 & 3; }
static inline unsigned word_who(word_t w) { return w >> 9 & 3; }
static inline unsigned word_life(word_t w) { return w >> 11 & 1; }
static inline unsigned word_record(word_t w) { return w >> 12; }
static inline word_t word_as(word_t w, enum frame_kind kind) {
    return (word_t)((w & ~7u) | (unsigned)kind);
}

enum slot_state { READY = 1, OPEN, RETIRING };
enum buffer_use { USE_NONE, USE_SLOT, USE_DETACHED, USE_SPARE, USE_DIRTY };

/* ---- the state ------------------------------------------------------------------------------------ */

/* The model's state is hashed as bytes: no holes. */
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wpadded"

struct slot { /* one atomic word */
    uint8_t seq, state, buffer;
};

#define BASE_UNSET 0xff
struct buffer {
    word_t word[PLACES_MAX];
    uint8_t seq; /* of its header: the segment that it holds */
    uint8_t base;
    uint8_t hint_position, hint_index;
};

#define PIN_NONE 0
#define PIN_ON(seq) ((uint8_t)((seq) + 1))

enum what { PIN_CELL, FRAME_WORD, HINT, SLOT_HINT };
struct store {
    uint16_t value;
    uint8_t what, of, at; /* pin of owner; word at of buffer; hint of buffer (or slot) */
    bool release;
};

enum client_state { CLIENT_FREE, CLIENT_LIVE };

enum producer_step {
    P_NEXT_RECORD,
    P_ENTER,
    P_PIN,
    P_CHECK,
    P_RECHECK_ACTIVE,
    P_LOAD_HINT,
    P_CLAIM,
    P_STORE_HINT,
    P_FRAME_HALF,
    P_BATCH,
    P_PUBLISH,
    P_UNPIN,
    P_EOS,
    P_NEXT_SLOT,
    P_NEXT_ACTIVE,
    P_NEXT_MAP,
    P_BASE,
    P_OPEN,
    P_ACTIVE,
    P_UNPIN_TO_WAIT,
    P_WAIT
};
#define NO_OWNER 0xff
struct producer {
    uint8_t step; /* enum producer_step */
    bool dead, stopped;
    uint8_t life;   /* ghost: 0, and 1 after it died and another took its place */
    uint8_t owner;  /* NO_OWNER: its death is dealt with */
    uint8_t record; /* next one to produce */
    bool entered;   /* seq and buffer are those of its last claim (the fast path's cache) */
    bool fast;      /* on the fast path: whatever is unexpected leads to P_ENTER */
    uint8_t seq, buffer, position, index, base;
    uint8_t next_buffer;
};

enum reader_step {
    R_PLACE,
    R_PLACE_PIN,
    R_PLACE_CHECK,
    R_PLACE_BASE,
    R_PLACE_WALK,
    R_PLACE_UNPIN,
    R_PLACE_GONE,
    R_RESET,
    R_PIN,
    R_CHECK,
    R_READ,
    R_HELD,
    R_NEXT,
    R_NEXT_PIN,
    R_NEXT_CHECK,
    R_NEXT_BASE,
    R_EDGE,
    R_WAIT
};
struct reader {
    word_t held;  /* what it read and looks at once more */
    uint8_t step; /* enum reader_step */
    bool dead, stopped;
    uint8_t active; /* as place() loaded it */
    uint8_t seq, buffer, position, index, base;
    uint8_t offset;
    uint8_t seen[PRODUCERS_MAX]; /* ghost: records of each producer, in its order */
    uint8_t unused;
};

enum daemon_step {
    D_IDLE,
    D_MARK,
    D_MARK_JOURNAL,
    D_BARRIER,
    D_SCAN,
    D_RESET,
    D_ZERO,
    D_ZERO_HALF,
    D_JOURNAL_BUFFER,
    D_JOURNAL_READY,
    D_READY,
    D_READY_JOURNAL,
    D_LATE_ZERO,
    D_SWAP_HEADER,
    D_SWAP_SPARE,
    D_SWAP_JOURNAL,
    D_SWAP_DETACH,
    D_LOOK_DETACHED,
    D_CLEAN_HALF,
    D_BURY,
    D_REPAIR,
    D_BURY_PINS,
    D_BURY_FREE,
    D_RESTART,
    D_TAKE_ACTIVE,
    D_TAKE_WORD,
    D_TAKE_STATE
};
enum retire { RETIRE_NOT, RETIRE_SCAN, RETIRE_HELD };
struct daemon {
    uint8_t step;   /* enum daemon_step */
    uint8_t retire; /* enum retire */
    uint8_t seq;    /* the segment that is retired */
    uint8_t k;      /* next client (barrier, scan), slot (restart) or place (repair) */
    bool held;      /* the scan found a pin */
    uint8_t buffer; /* spare, detached, dirty, or that is repaired */
    uint8_t owner;  /* that is buried */
    uint8_t pin;    /* its pin */
    uint8_t active; /* as the restarted daemon loaded it */
};

struct ring {
    /* Shared memory. */
    struct buffer buffer[BUFFERS_MAX];
    struct reader reader; /* a process; here for its alignment */
    struct slot slot[SLOTS_MAX];
    uint8_t active;
    uint8_t log_start;
    uint8_t slot_hint[SLOTS_MAX][2]; /* only where BREAK_hint_in_slot */
    uint8_t pin[CLIENTS_MAX];        /* by owner number */
    /* The daemon's memory that outlives it. */
    struct slot journal[SLOTS_MAX];
    uint8_t use[BUFFERS_MAX];     /* enum buffer_use */
    uint8_t use_seq[BUFFERS_MAX]; /* of a slot's or detached buffer */
    uint8_t client[CLIENTS_MAX];  /* enum client_state, by owner number */
    /* Processes. */
    struct producer producer[PRODUCERS_MAX];
    struct daemon daemon;
    uint8_t deaths, stops, crashes; /* that happened */
    /* Ghost. */
    uint8_t next; /* offset that the next claim gets */
    /* By actor: producers, then the reader. The last is left out where there are no store buffers. */
    uint8_t stored[CLIENTS_MAX]; /* how many */
    uint8_t unused;
    struct store store[CLIENTS_MAX][STORES_MAX];
};
#pragma GCC diagnostic pop

/* ---- ring_memory.c ---------------------------------------------------------------------------------- */

enum { READER = PRODUCERS_MAX, READER_OWNER = PRODUCERS_MAX };

void ring_init(struct ring *s);

/* A store of actor `by`: a producer's number, or READER. */
void store(struct ring *s, unsigned by, enum what what, unsigned of, unsigned at, unsigned value,
           bool release);
/* As `by` sees it: its own store buffer first. */
unsigned load(const struct ring *s, unsigned by, enum what what, unsigned of, unsigned at);
/* All that `by` stored becomes visible: a barrier, a read-modify-write, a death. */
void drain(struct ring *s, unsigned by);
/* One of its stores becomes visible; false: it may not, or there is none. */
bool drain_one(struct ring *s, unsigned by, unsigned index);

static inline struct slot *slot_of(struct ring *s, unsigned seq) {
    return &s->slot[seq % options.slots];
}
static inline bool slot_is(const struct slot *w, unsigned seq, enum slot_state state) {
    return w->seq == seq && w->state == state;
}
/* The whole word. */
static inline bool slot_equals(const struct slot *a, const struct slot *b) {
    return a->seq == b->seq && a->state == b->state && a->buffer == b->buffer;
}
static inline struct slot *journal_of(struct ring *s, unsigned seq) {
    return &s->journal[seq % options.slots];
}
/* Oldest segment that is not retired yet, as the journal says. */
unsigned ring_first(const struct ring *s);
/* Does the process behind this claim live? */
bool claimant_lives(const struct ring *s, word_t w);
/* Does a pin of somebody (as visible in memory) hold segment seq? */
bool pin_holds(const struct ring *s, unsigned owner, unsigned seq);
bool anybody_pins(const struct ring *s, unsigned seq);
unsigned find_use(const struct ring *s, enum buffer_use use); /* BUFFERS_MAX: none */
/* The client after k that this run has; CLIENTS_MAX: none. */
unsigned client_after(unsigned k);

/* The CAS that takes a place: checks R1, R2, R4 and does it. */
void claim(struct ring *s, unsigned buffer, unsigned position, word_t w, unsigned seq,
           unsigned offset);
/* The daemon zeroes these places. */
void zero(struct ring *s, unsigned buffer, unsigned from, unsigned to);

/* ---- the actors: false: it has no step now ------------------------------------------------------------ */

bool producer_step(struct ring *s, unsigned who, const char **name);
bool reader_step(struct ring *s, const char **name);
/* The daemon, where it is busy with something. */
bool daemon_step(struct ring *s, const char **name);
/* What an idle daemon can begin: its jobs are numbered. */
enum { JOB_RETIRE, JOB_BUILD, JOB_DETACHED, JOB_CLEAN, JOB_BURY, JOBS = JOB_BURY + CLIENTS_MAX };
bool daemon_begin(struct ring *s, unsigned job, const char **name);

bool retire_step(struct ring *s, const char **name);
bool death_step(struct ring *s, const char **name);
bool restart_step(struct ring *s, const char **name);

unsigned record_length(unsigned who, unsigned record);
const struct model *ring_model(void);

#endif
