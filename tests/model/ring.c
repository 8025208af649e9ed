/* Who may step, what the environment may do, and what must hold where nobody steps any more. */
#include "ring.h"

#include <string.h>

static size_t state_bytes(void) {
    return options.memory == SC ? offsetof(struct ring, store) : sizeof(struct ring);
}

/* ---- the environment --------------------------------------------------------------------------------- */

static bool die(struct ring *s, unsigned who, const char **name) {
    *name = "dies";
    if (s->deaths >= options.deaths)
        return false;
    drain(s, who); /* what it stored is stored */
    if (who == READER) {
        struct reader *r = &s->reader;
        if (r->dead || r->stopped)
            return false;
        *r = (struct reader){.dead = true};
    } else {
        struct producer *p = &s->producer[who];
        if (p->dead || p->stopped || (p->step == P_NEXT_RECORD && p->record >= options.records))
            return false;
        /* Its successor goes on with the next record, lest one comes twice. */
        *p = (struct producer){.dead = true,
                               .life = p->life,
                               .owner = p->owner,
                               .record = (uint8_t)(p->record + (p->step != P_NEXT_RECORD))};
    }
    s->deaths++;
    return true;
}

/* Stopped for ever, alive: whoever needs it waits for ever, too. */
static bool stop(struct ring *s, unsigned who, const char **name) {
    *name = "is stopped";
    bool *stopped = who == READER ? &s->reader.stopped : &s->producer[who].stopped;
    bool dead = who == READER ? s->reader.dead : s->producer[who].dead;
    if (s->stops >= options.stops || *stopped || dead)
        return false;
    if (who != READER && s->producer[who].step == P_NEXT_RECORD &&
        s->producer[who].record >= options.records)
        return false;
    if (options.stop_waiting && (who == READER || s->producer[who].step != P_WAIT))
        return false;
    *stopped = true;
    s->stops++;
    return true;
}

static bool crash(struct ring *s, const char **name) {
    *name = "dies";
    if (s->crashes >= options.crashes)
        return false;
    s->daemon = (struct daemon){.step = D_RESTART};
    s->crashes++;
    return true;
}

/* ---- successors ---------------------------------------------------------------------------------------- */

bool daemon_step(struct ring *s, const char **name) {
    switch (s->daemon.step) {
    case D_IDLE:
        return false;
    case D_BURY:
    case D_REPAIR:
    case D_BURY_PINS:
    case D_BURY_FREE:
        return death_step(s, name);
    case D_RESTART:
    case D_TAKE_ACTIVE:
    case D_TAKE_WORD:
    case D_TAKE_STATE:
        return restart_step(s, name);
    default:
        return retire_step(s, name);
    }
}

/* Numbers of successors, for replaying. */
enum {
    ID_CLIENT = 0,
    ID_DAEMON = ID_CLIENT + CLIENTS_MAX,
    ID_JOB = ID_DAEMON + 1,
    ID_DRAIN = ID_JOB + JOBS,
    ID_DIE = ID_DRAIN + CLIENTS_MAX * STORES_MAX,
    ID_STOP = ID_DIE + CLIENTS_MAX,
    ID_CRASH = ID_STOP + CLIENTS_MAX
};

static void expand_client(const void *state, unsigned who, struct explorer *x) {
    const char *actor = who == READER ? "reader" : "producer", *name = "";
    struct ring s;
    size_t bytes = state_bytes();
    memset(&s, 0, sizeof(s));
    memcpy(&s, state, bytes);
    unsigned stored = s.stored[who];
    if (who == READER ? reader_step(&s, &name) : producer_step(&s, who, &name))
        explorer_emit(x, &s, ID_CLIENT + who, actor, who, name, false);
    for (unsigned i = 0; i < stored; i++) {
        memcpy(&s, state, bytes);
        if (drain_one(&s, who, i))
            explorer_emit(x, &s, ID_DRAIN + who * STORES_MAX + i, actor, who,
                          "a store becomes visible", false);
    }
    memcpy(&s, state, bytes);
    if (die(&s, who, &name))
        explorer_emit(x, &s, ID_DIE + who, actor, who, name, true);
    memcpy(&s, state, bytes);
    if (stop(&s, who, &name))
        explorer_emit(x, &s, ID_STOP + who, actor, who, name, true);
}

static void expand(const void *state, struct explorer *x) {
    struct ring s;
    const char *name = "";
    size_t bytes = state_bytes();
    for (unsigned who = 0; who < options.producers; who++)
        expand_client(state, who, x);
    if (options.readers > 0)
        expand_client(state, READER, x);
    memset(&s, 0, sizeof(s));
    memcpy(&s, state, bytes);
    if (s.daemon.step != D_IDLE) {
        if (daemon_step(&s, &name))
            explorer_emit(x, &s, ID_DAEMON, "daemon", 0, name, false);
    } else {
        for (unsigned job = 0; job < JOBS; job++)
            if (daemon_begin(&s, job, &name)) {
                explorer_emit(x, &s, ID_JOB + job, "daemon", 0, name, false);
                memcpy(&s, state, bytes);
            }
    }
    memcpy(&s, state, bytes);
    if (crash(&s, &name))
        explorer_emit(x, &s, ID_CRASH, "daemon", 0, name, true);
}

/* ---- when nobody steps any more ---------------------------------------------------------------------------- */

/* The claim at which the reader stands, if it is one of a stopped producer: the only thing that may
 * hold a reader back. */
static bool waits_for_stopped(struct ring *s) {
    const struct reader *r = &s->reader;
    if (r->step != R_WAIT || r->position >= options.places)
        return false;
    word_t w = s->buffer[r->buffer].word[r->position];
    return word_kind(w) == CLAIMED && claimant_lives(s, w) && s->producer[word_who(w)].stopped;
}

static void quiet(const void *state) {
    struct ring s;
    memset(&s, 0, sizeof(s));
    memcpy(&s, state, state_bytes());
    bool reader_waits = options.readers > 0 && !s.reader.dead && !s.reader.stopped;
    for (unsigned i = 0; i < options.producers; i++) {
        const struct producer *p = &s.producer[i];
        if (p->dead || p->stopped)
            continue;
        /* On disk a stopped producer's claim keeps its segment from reuse: there it may. */
        CHECK(p->record >= options.records || (options.disk && s.stops > 0),
              "R5: a producer waits for ever");
    }
    if (reader_waits && s.reader.offset != s.next)
        CHECK(waits_for_stopped(&s) || s.reader.offset < s.log_start,
              "D2: the reader waits for ever and there is something to read");
    for (unsigned b = 0; b < options.buffers; b++) {
        CHECK(s.use[b] != USE_DETACHED || anybody_pins(&s, s.use_seq[b]),
              "D4: a detached buffer is never cleaned");
        for (unsigned i = 0; i < options.places; i++)
            if (s.use[b] == USE_SLOT && word_kind(s.buffer[b].word[i]) == CLAIMED)
                CHECK(claimant_lives(&s, s.buffer[b].word[i]), "D4: a dead one's claim is left");
    }
}

/* ---- traces ------------------------------------------------------------------------------------------------- */

static void describe_word(word_t w, FILE *out) {
    static const char kinds[] = ".cdpE";
    fputc(kinds[word_kind(w)], out);
    if (word_kind(w) != FREE && word_kind(w) != EOS)
        fprintf(out, "%u%c", word_who(w), (char)('a' + word_record(w)));
}

static void describe(const void *state, FILE *out) {
    static const char *const states[] = {"-", "READY", "OPEN", "RETIRING"};
    static const char *const uses[] = {"none", "slot", "detached", "spare", "dirty"};
    struct ring s;
    memset(&s, 0, sizeof(s));
    memcpy(&s, state, state_bytes());
    fprintf(out, "active %u ", s.active);
    for (unsigned i = 0; i < options.slots; i++)
        fprintf(out, "| %u %s b%u (journal %u %s b%u) ", s.slot[i].seq, states[s.slot[i].state],
                s.slot[i].buffer, s.journal[i].seq, states[s.journal[i].state],
                s.journal[i].buffer);
    fprintf(out, "\n          ");
    for (unsigned b = 0; b < options.buffers; b++) {
        if (s.use[b] == USE_NONE)
            continue;
        fprintf(out, "b%u %s of %u", b, uses[s.use[b]], s.buffer[b].seq);
        if (s.buffer[b].base != BASE_UNSET)
            fprintf(out, " from %u", s.buffer[b].base);
        fprintf(out, " [");
        for (unsigned i = 0; i < options.places; i++)
            describe_word(s.buffer[b].word[i], out);
        fprintf(out, "] ");
    }
    fprintf(out, "pins");
    for (unsigned o = 0; o < CLIENTS_MAX; o++) {
        if (s.pin[o] == PIN_NONE)
            fprintf(out, " -");
        else
            fprintf(out, " %d", s.pin[o] - 1);
    }
    if (options.memory == SC)
        return;
    fprintf(out, " in store buffers");
    for (unsigned who = 0; who < CLIENTS_MAX; who++)
        for (unsigned i = 0; i < s.stored[who]; i++) {
            static const char *const what[] = {"pin", "frame", "hint", "slot's hint"};
            const struct store *w = &s.store[who][i];
            fprintf(out, " %u:%s", who, what[w->what]);
            if (w->what == PIN_CELL && w->value == PIN_NONE)
                fprintf(out, "=-");
            else if (w->what == PIN_CELL)
                fprintf(out, "=%d", w->value - 1);
        }
}

static void init(void *state) {
    struct ring s;
    ring_init(&s);
    memcpy(state, &s, state_bytes());
}

const struct model *ring_model(void) {
    static struct model m = {.init = init, .expand = expand, .quiet = quiet, .describe = describe};
    m.bytes = state_bytes();
    return &m;
}
