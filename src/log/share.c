#include "log/share.h"

#include <inttypes.h>

#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define TRIES 64        /* of what others may change again and again; each failure is somebody's progress */
#define PASS_WINDOWS 16 /* a poll passes over so much that has no record */
#define RUN_MAX 64u     /* records that are left to who takes one of them */
#define WALK_MAX 1024   /* records further on are walked to; beyond, looked up */
#define FUTURE 4096u    /* times that lie so little ahead are of a clock that was read earlier */

static int64_t coarse_ns(void) { return eg_clock_read_ns(CLOCK_MONOTONIC_COARSE); }

void eg_share_init(struct eg_share_cells *c, uint32_t window, uint32_t group_uid, uint32_t partition_uid, int64_t start,
                   uint32_t lock_ms, uint32_t limit) {
    eg_magic_init(&c->magic);
    c->group_uid = group_uid;
    c->partition_uid = partition_uid;
    eg_store_relaxed(&c->window, window);
    eg_store_relaxed(&c->lock_ms, lock_ms);
    eg_store_relaxed(&c->limit, limit);
    eg_store_relaxed(&c->start, (uint64_t)start);
    eg_store_relaxed(&c->hint, (uint64_t)(uint32_t)start);
    eg_magic_publish(&c->magic, EG_MAGIC_SHARE);
}

int eg_share_attach(struct eg_share *s, struct eg_share_cells *c, size_t mapped, uint32_t group_uid,
                    uint32_t partition_uid, uint32_t member) {
    if (mapped < EG_PAGE)
        return eg_error_set(EAGRE_E_CORRUPT, "share cells: %zu bytes are too few", mapped);
    int rc = eg_magic_check(&c->magic, EG_MAGIC_SHARE, "share cells");
    if (rc != EAGRE_OK)
        return rc;
    uint32_t window = eg_load_relaxed(&c->window); /* once: members may write it */
    if (window < EG_SHARE_WINDOW_MIN || window > EG_SHARE_WINDOW_MAX || (window & (window - 1)) != 0 ||
        eg_share_bytes(window) > mapped)
        return eg_error_set(EAGRE_E_CORRUPT, "share cells: a window of %u is not possible", window);
    if (c->group_uid != group_uid || c->partition_uid != partition_uid)
        return eg_error_set(EAGRE_E_CORRUPT, "share cells: they are of group id %u, partition id %u; expected %u, %u",
                            c->group_uid, c->partition_uid, group_uid, partition_uid);
    *s = (struct eg_share){.cells = c, .window = window, .member = member, .clock_ns = coarse_ns};
    return EAGRE_OK;
}

/* ---- the words ------------------------------------------------------------------------------------------- */

static inline _Atomic uint64_t *cell_of(const struct eg_share *s, int64_t offset) {
    return &s->cells->cell[(uint64_t)offset & (s->window - 1)];
}

/* Acquire: who sees that it has moved sees the cells that it has moved over (partner: advance), and so the
 * lap that the cells before the new limit had. Whatever a member may have written: an offset. */
static inline int64_t load_start(const struct eg_share *s) {
    return (int64_t)(eg_load_acquire(&s->cells->start) & (EG_OFFSET_MAX - 1));
}

/* The offset in a hint. Out of [start, start + window] it is of the past, or nonsense: then from start. */
static inline int64_t hint_offset(const struct eg_share *s, uint64_t hint, int64_t start) {
    uint32_t ahead = (uint32_t)hint - (uint32_t)start;
    return ahead <= s->window ? start + ahead : start;
}
static inline uint64_t hint_make(uint64_t version_of, bool again, int64_t offset) {
    return ((version_of >> 32) + again) << 32 | (uint32_t)offset;
}

/* May the record be taken, by this word of its cell? The offset lay before some start + window. */
static inline bool is_free(const struct eg_share *s, int64_t offset, uint64_t word) {
    uint32_t lap = eg_share_lap_of((uint64_t)offset, s->window);
    if (eg_share_lap(word) == lap)
        return eg_share_state(word) == EG_SHARE_AVAILABLE;
    if (eg_share_lap(word) == ((lap - 1) & (EG_SHARE_LAPS - 1)))
        return true; /* untouched */
    /* An older lap, of cells that start jumped over, is untouched as well; a later one says that start has passed
     * the offset. Which one, start tells: it is loaded after the word (acquire), and who wrote a later lap
     * had seen a start beyond this offset. */
    return load_start(s) <= offset;
}

static inline uint32_t count_of(const struct eg_share *s, int64_t offset, uint64_t word) {
    return eg_share_lap(word) == eg_share_lap_of((uint64_t)offset, s->window) ? eg_share_count(word) : 0;
}

static inline bool is_acquired(const struct eg_share *s, int64_t offset, uint64_t word) {
    return eg_share_lap(word) == eg_share_lap_of((uint64_t)offset, s->window) &&
           eg_share_state(word) == EG_SHARE_ACQUIRED;
}

/* Is the acquisition's time over? Not a moment too early: units are rounded up. */
static bool is_late(const struct eg_share *s, uint64_t word, uint32_t time) {
    uint64_t ms = eg_load_relaxed(&s->cells->lock_ms); /* a setting */
    if (ms == 0 || ms > EG_SHARE_LOCK_MS_MAX)
        ms = EG_SHARE_LOCK_MS_MAX;
    uint32_t age = (time - eg_share_time(word)) & (EG_SHARE_TIMES - 1);
    return age >= (uint32_t)((ms * EG_NS_PER_MS) >> EG_SHARE_TIME_SHIFT) + 2 && age < EG_SHARE_TIMES - FUTURE;
}

/* ---- start and hint ---------------------------------------------------------------------------------------- */

/* Over what is done. Anyone does it for anyone: DONE is the last state of a lap. */
static void advance(struct eg_share *s) {
    for (int i = 0; i < TRIES; i++) {
        int64_t start = load_start(s), to = start;
        if (eg_load_relaxed(&s->cells->start) >= EG_OFFSET_MAX) /* nonsense, which the exchange below would not replace */
            return;
        while (to - start < s->window) {
            uint64_t word = eg_load_acquire(cell_of(s, to));
            if (eg_share_lap(word) != eg_share_lap_of((uint64_t)to, s->window) || eg_share_state(word) != EG_SHARE_DONE)
                break;
            to++;
        }
        if (to == start)
            return;
        EG_FAULT("share.moving");
        /* Acq_rel: who loads the new start may use those cells for the next lap. Fails: somebody has moved it. */
        uint64_t expected = (uint64_t)start;
        if (eg_cas_acq_rel(&s->cells->start, &expected, (uint64_t)to))
            EG_FAULT("share.moved");
    }
}

void eg_share_skip(struct eg_share *s, int64_t offset) {
    for (int i = 0; i < TRIES; i++) {
        uint64_t start = eg_load_acquire(&s->cells->start);
        /* The cells keep what they say: of a lap that is over, for who still holds records of it. */
        if ((int64_t)start >= offset || eg_cas_acq_rel(&s->cells->start, &start, (uint64_t)offset))
            return;
    }
}

/* This one is available again: look from it on. The version grows even where the place stays, so that nobody who looked
 * at the cells before moves the hint over it. */
static void tell(struct eg_share *s, int64_t offset) {
    for (int i = 0; i < TRIES; i++) {
        uint64_t hint = eg_load_acquire(&s->cells->hint);
        int64_t at = hint_offset(s, hint, load_start(s));
        EG_FAULT("share.telling");
        if (eg_cas_acq_rel(&s->cells->hint, &hint, hint_make(hint, true, offset < at ? offset : at)))
            return;
    }
}

/* The first record that may be available; s->limit if there is none. *hint: as it was before we looked at cells. */
static int64_t find_first(struct eg_share *s, uint64_t *hint) {
    *hint = eg_load_acquire(&s->cells->hint);
    int64_t start = load_start(s), from = hint_offset(s, *hint, start), at = from;
    s->limit = start + s->window;
    while (at < s->limit && !is_free(s, at, eg_load_acquire(cell_of(s, at))))
        at++;
    if (at > from) {
        uint64_t seen = *hint, moved = hint_make(seen, false, at);
        EG_FAULT("share.looked");
        /* Fails: something became available after we loaded it, or another one moved it. *hint stays what it was, so the
         * caller does not move it either. */
        if (eg_cas_acq_rel(&s->cells->hint, &seen, moved))
            *hint = moved;
    }
    return at;
}

/* ---- take ---------------------------------------------------------------------------------------------------- */

/* No record has an offset below `to` that was not met: they are done. As far as the window goes. */
static void pass_over(struct eg_share *s, int64_t to) {
    uint32_t windows = 0;
    while (s->next < to) {
        if (s->next >= s->limit) {
            advance(s);
            s->limit = load_start(s) + s->window;
            if (s->next >= s->limit || windows++ == PASS_WINDOWS)
                return;
        }
        _Atomic uint64_t *cell = cell_of(s, s->next);
        uint64_t word = eg_load_acquire(cell);
        if (is_free(s, s->next, word))
            (void)eg_cas_acq_rel(cell, &word, eg_share_make(eg_share_lap_of((uint64_t)s->next, s->window), 0, 0, 0, EG_SHARE_DONE));
        s->next++;
    }
    advance(s); /* nobody accepts these */
}

/* The reader has met a record. */
static enum eg_pick ask(void *ctx, int64_t offset) {
    struct eg_share *s = ctx;
    if (offset > s->next)
        pass_over(s, offset);
    if (__builtin_expect(offset >= s->limit, 0)) {
        s->limit = load_start(s) + s->window;
        if (offset >= s->limit)
            return EG_PICK_STOP;
    }
    s->next = offset + 1;
    if (offset < s->jump)
        return EG_PICK_SKIP;
    _Atomic uint64_t *cell = cell_of(s, offset);
    uint64_t word = eg_load_acquire(cell);
    if (is_free(s, offset, word)) {
        uint32_t count = count_of(s, offset, word);
        uint64_t ours = eg_share_make(eg_share_lap_of((uint64_t)offset, s->window), s->time, s->member,
                                      count < EG_SHARE_COUNT_MAX ? count + 1 : count, EG_SHARE_ACQUIRED);
        EG_FAULT("share.seen");
        /* Acq_rel: takes it over from who gave it back, and signs. The whole word: of two takers one fails, and so does
         * who has slept over a lap. */
        if (__builtin_expect(eg_cas_acq_rel(cell, &word, ours), 1)) {
            EG_FAULT("share.taken");
            if (__builtin_expect(count > 0, 0))
                eg_fetch_add_relaxed(&s->cells->redelivered, 1);
            s->taken[s->count++] = (struct eg_share_taken){offset, ours};
            return EG_PICK_TAKE;
        }
    }
    /* Another one's, of just now: it is taking the next ones, too. */
    if (is_acquired(s, offset, word) && eg_share_member(word) != s->member && eg_share_time(word) == s->time) {
        s->jump = (offset | (s->run - 1)) + 1;
        if (s->left < 0 && s->jump > s->next)
            s->left = s->next;
    }
    return EG_PICK_SKIP;
}

/* Have the reader stand at the offset, or before it: it passes over what lies between. */
static void stand(struct eg_reader *r, int64_t offset) {
    if (r->offset == offset)
        return;
    if (r->offset > offset || offset - r->offset > WALK_MAX)
        eg_reader_seek(r, offset);
    else
        r->offset = offset;
}

/* Once in each unit of time. */
static void keep_swept(struct eg_share *s) {
    s->time = eg_share_time_of(s->clock_ns());
    if (s->time == s->swept)
        return;
    s->swept = s->time;
    (void)eg_share_sweep(s, 0);
}

enum back { NOT_OURS, BACK, ARCHIVED };
static enum back put_back(struct eg_share *s, int64_t offset, uint64_t word);

int eg_share_poll(struct eg_share *s, struct eg_reader *r, eagre_record_t *records, struct eg_share_taken *taken,
                  size_t max, size_t *n) {
    int rc = EAGRE_OK;
    *n = 0;
    keep_swept(s);
    s->picker = (struct eg_picker){ask, s};
    s->taken = taken;
    s->run = max >= RUN_MAX ? RUN_MAX : 1u << (31 - __builtin_clz((uint32_t)max));
    for (int i = 0; i < TRIES && rc == EAGRE_OK && *n == 0; i++) {
        uint64_t hint;
        eg_share_skip(s, eg_reader_beginning(r));
        int64_t first = find_first(s, &hint);
        if (first >= s->limit)
            break; /* all that the window holds is somebody's */
        stand(r, first);
        s->count = 0;
        s->next = first;
        s->jump = first;
        s->left = -1;
        r->picker = &s->picker;
        rc = eg_reader_poll(r, records, max, n);
        r->picker = NULL;
        for (size_t k = *n; k < s->count; k++) { /* taken, and then it could not be read */
            if (put_back(s, taken[k].offset, taken[k].word) == BACK)
                tell(s, taken[k].offset);
        }
        if (r->offset > s->next && rc == EAGRE_OK)
            pass_over(s, r->offset);
        int64_t seen = s->left >= 0 ? s->left : s->next; /* nothing before it is available */
        if (seen > first && *n == s->count)
            (void)eg_cas_acq_rel(&s->cells->hint, &hint, hint_make(hint, false, seen));
        if (rc == EAGRE_E_OFFSET_OUT_OF_RANGE && eg_reader_beginning(r) > first)
            rc = EAGRE_OK; /* it went from the log just now */
        else if (s->left < 0)
            break;
    }
    return rc;
}

bool eg_share_has_news(struct eg_share *s, const struct eg_reader *r) {
    uint64_t hint;
    keep_swept(s);
    int64_t first = find_first(s, &hint);
    return first < s->limit && (first < r->offset || eg_reader_has_news(r));
}

/* ---- give back ------------------------------------------------------------------------------------------------ */

/* An acquisition ends without an answer. BACK: the record is available again; the caller tells. */
static enum back put_back(struct eg_share *s, int64_t offset, uint64_t word) {
    uint32_t count = eg_share_count(word), limit = eg_load_relaxed(&s->cells->limit);
    bool archive = count >= EG_SHARE_COUNT_MAX || (limit > 0 && count >= limit);
    EG_FAULT("share.ending");
    /* Acq_rel, and the very word of the acquisition: it may have been answered meanwhile, or given back by another. */
    if (!eg_cas_acq_rel(cell_of(s, offset), &word,
                        eg_share_make(eg_share_lap(word), 0, 0, count, archive ? EG_SHARE_DONE : EG_SHARE_AVAILABLE)))
        return NOT_OURS;
    if (archive) {
        eg_fetch_add_relaxed(&s->cells->archived, 1);
        return ARCHIVED;
    }
    EG_FAULT("share.back");
    return BACK;
}

static bool end_at(struct eg_share *s, int64_t offset, uint64_t word, enum eg_share_end how, uint32_t time) {
    bool late = is_late(s, word, time);
    if (late || how == EG_SHARE_RELEASE) {
        enum back back = put_back(s, offset, word);
        if (back == BACK)
            tell(s, offset);
        if (late && back != NOT_OURS)
            eg_fetch_add_relaxed(&s->cells->expired, 1);
        return !late && back != NOT_OURS;
    }
    EG_FAULT("share.ending");
    /* Acq_rel: our work on the record comes before, and the daemon or member that moves start over it sees that. */
    if (!eg_cas_acq_rel(cell_of(s, offset), &word, eg_share_make(eg_share_lap(word), 0, 0, eg_share_count(word), EG_SHARE_DONE)))
        return false;
    EG_FAULT("share.acked");
    if (how == EG_SHARE_REJECT)
        eg_fetch_add_relaxed(&s->cells->rejected, 1);
    return true;
}

uint64_t eg_share_word(const struct eg_share *s, int64_t offset) {
    if (offset < 0)
        return 0;
    uint64_t word = eg_load_acquire(cell_of(s, offset));
    return is_acquired(s, offset, word) && eg_share_member(word) == s->member ? word : 0;
}

static bool end(struct eg_share *s, struct eg_share_taken *t, enum eg_share_end how, uint32_t time) {
    uint64_t word = t->word;
    if (t->offset < 0 || !is_acquired(s, t->offset, word) || eg_share_member(word) != s->member)
        return false;
    t->word = (word & ~UINT64_C(3)) | EG_SHARE_DONE; /* its count may still be asked for */
    return end_at(s, t->offset, word, how, time);
}

bool eg_share_end(struct eg_share *s, struct eg_share_taken *taken, enum eg_share_end how) {
    bool ended = end(s, taken, how, eg_share_time_of(s->clock_ns()));
    advance(s);
    return ended;
}

void eg_share_accept(struct eg_share *s, struct eg_share_taken *taken, size_t count) {
    uint32_t time = eg_share_time_of(s->clock_ns());
    for (size_t i = 0; i < count; i++)
        (void)end(s, &taken[i], EG_SHARE_ACCEPT, time);
    if (count > 0)
        advance(s);
}

static bool is_this(const void *ctx, uint32_t member) { return member == *(const uint32_t *)ctx; }

size_t eg_share_sweep(struct eg_share *s, uint32_t gone) {
    return eg_share_sweep_if(s, gone != 0 ? is_this : NULL, &gone);
}

size_t eg_share_sweep_if(struct eg_share *s, bool (*is_gone)(const void *ctx, uint32_t member), const void *ctx) {
    int64_t start = load_start(s), hint = hint_offset(s, eg_load_acquire(&s->cells->hint), start), first = -1;
    uint32_t time = eg_share_time_of(s->clock_ns());
    size_t found = 0;
    /* Idle: the next record that anybody would take is the first one of all, and it was not there yet for who polls. So
     * nothing behind it is, and looking after many such partitions costs next to nothing. */
    uint64_t next = eg_load_acquire(cell_of(s, start));
    if (is_gone == NULL && hint == start && is_free(s, start, next) && count_of(s, start, next) == 0)
        return 0;
    for (int64_t at = start; at < start + s->window; at++) {
        uint64_t word = eg_load_acquire(cell_of(s, at));
        bool available = at < hint && is_free(s, at, word);
        if (is_acquired(s, at, word)) {
            bool ends = is_gone != NULL && is_gone(ctx, eg_share_member(word));
            /* The clock once more, after the word: it is not older than what it is compared with. */
            bool late = !ends && is_late(s, word, time) && is_late(s, word, eg_share_time_of(s->clock_ns()));
            enum back back = ends || late ? put_back(s, at, word) : NOT_OURS;
            if (late && back != NOT_OURS)
                eg_fetch_add_relaxed(&s->cells->expired, 1);
            available = back == BACK;
        }
        if (available && found++ == 0)
            first = at;
    }
    if (found > 0)
        tell(s, first);
    advance(s);
    return found;
}

void eg_share_figures(const struct eg_share *s, struct eg_share_figures *out) {
    *out = (struct eg_share_figures){
        .start = load_start(s),
        .redelivered = eg_load_relaxed(&s->cells->redelivered),
        .archived = eg_load_relaxed(&s->cells->archived),
        .rejected = eg_load_relaxed(&s->cells->rejected),
        .expired = eg_load_relaxed(&s->cells->expired),
    };
    for (int64_t at = out->start; at < out->start + s->window; at++) {
        uint64_t word = eg_load_acquire(cell_of(s, at));
        if (eg_share_lap(word) != eg_share_lap_of((uint64_t)at, s->window))
            continue;
        out->acquired += eg_share_state(word) == EG_SHARE_ACQUIRED;
        out->returned += eg_share_state(word) == EG_SHARE_AVAILABLE && eg_share_count(word) > 0;
    }
}
