/*
 * share.h - a share group on one partition: who takes which record, and what becomes of it (layout/share.h has the
 * words). No lock and no owner of anything but the record itself:
 *
 *                    CAS by the taker             CAS by its member          CAS by anyone
 *     (untouched) ----------------------> ACQUIRED ----------------> DONE
 *      AVAILABLE  <---------------------- by m, n times          ^
 *                  release; its time is over;      |             |   start moves over DONE: the cell is
 *                  the daemon: m is dead           +-------------+   the record's W further
 *                                                   rejected; n at the limit (archived)
 *
 * Steps, and what it costs if who makes them ends or stops for ever behind them:
 *   share.taken    the cell says that it is ours: what is not acknowledged comes back, at a death at once, else by time
 *   share.acked    the cell says DONE: nothing; whoever polls next moves `start`
 *   share.back     the cell says AVAILABLE, the hint does not know: the next sweep (34 ms) finds it
 *   share.moved    `start` has moved: nothing
 * So nobody waits for anybody, and no record is lost or held longer than its acquisition.
 *
 * Takers go side by side: each begins at the hint; who meets a record that another one has just taken leaves the rest
 * of its run (as many as a poll takes, 64 at most) to that one and goes on behind it. What that one does not take is found
 * from the hint again, which moves only over what was seen to be taken.
 *
 * A record is read by a normal reader, which asks of each one whether it is ours (eg_picker); offsets without a record
 * are marked DONE by who passes over them. Every member sweeps, at most once each 34 ms: expired acquisitions come back
 * while the daemon is away, too.
 *
 * Members of a group trust each other with their group: who writes nonsense here harms it. The daemon (member 0) uses
 * the same functions: each loop is bounded, and no index comes from these words without being reduced.
 */
#ifndef EG_LOG_SHARE_H
#define EG_LOG_SHARE_H

#include "layout/share.h"
#include "log/reader.h"

/* A record that a poll took. */
struct eg_share_taken {
    int64_t offset;
    uint64_t word; /* what its cell says while it is ours; EG_SHARE_DONE: ours no more */
};

/* One handle's: a member's or the daemon's. */
struct eg_share {
    struct eg_share_cells *cells;
    uint32_t window;
    uint32_t member;          /* its number; 0: the daemon */
    int64_t (*clock_ns)(void); /* monotonic, coarse; a test has its own */
    uint32_t swept;           /* time unit of the last sweep */

    /* Of the poll under way. */
    struct eg_picker picker;
    struct eg_share_taken *taken;
    size_t count;
    uint32_t time;
    uint32_t run;      /* a power of two */
    int64_t next;      /* the offset that is to be met next: what is left out has no record */
    int64_t jump;      /* before it, records are left to others */
    int64_t left;      /* the first that was left to others, or -1 */
    int64_t limit;     /* start + window, as seen last */
};

/* The daemon: the memory is zeros, eg_share_bytes(window) of them. */
void eg_share_init(struct eg_share_cells *c, uint32_t window, uint32_t group_uid, uint32_t partition_uid, int64_t start,
                   uint32_t lock_ms, uint32_t limit);
/* EAGRE_E_CORRUPT, _VERSION: it is none, or of another (group, partition). */
int eg_share_attach(struct eg_share *s, struct eg_share_cells *c, size_t mapped, uint32_t group_uid,
                    uint32_t partition_uid, uint32_t member);

/*
 * Take up to max records of one segment, with the words that prove it (as many). *n 0: nothing is there, or as many are
 * acquired as the window holds. Errors are the reader's. The reader may have been anywhere before; it is ours until
 * the poll returns.
 */
int eg_share_poll(struct eg_share *s, struct eg_reader *r, eagre_record_t *records, struct eg_share_taken *taken,
                  size_t max, size_t *n);
/* Would a poll find something? For spinning, and for the last look before sleep. Sweeps, too, when it is time. */
bool eg_share_has_news(struct eg_share *s, const struct eg_reader *r);

enum eg_share_end { EG_SHARE_ACCEPT, EG_SHARE_RELEASE, EG_SHARE_REJECT };

/* The word of its cell, if that says that it is ours; else 0. */
uint64_t eg_share_word(const struct eg_share *s, int64_t offset);
/* Ours no more, by the word that it was taken with. False: it was not ours (any more), or its time is over. */
bool eg_share_end(struct eg_share *s, struct eg_share_taken *taken, enum eg_share_end how);
/* Accept all of these that were not ended. */
void eg_share_accept(struct eg_share *s, struct eg_share_taken *taken, size_t count);

/*
 * Make available again what was acquired for too long and, unless gone is 0, what that member has. The caller knows that
 * the member is gone, or it is the caller. (With gone 0 it does nothing if nothing was taken that is not done, as far as
 * can be seen without looking at all cells.) Also finds what is available and whose releaser did not say so, and moves
 * `start`. Returns how many there are to be taken because of it.
 */
size_t eg_share_sweep(struct eg_share *s, uint32_t gone);
/* The same for all members of whom it says so. */
size_t eg_share_sweep_if(struct eg_share *s, bool (*is_gone)(const void *ctx, uint32_t member), const void *ctx);

/* Nothing before this offset exists any more: the log's start. */
void eg_share_skip(struct eg_share *s, int64_t offset);

struct eg_share_figures {
    int64_t start;
    uint32_t acquired;  /* now */
    uint32_t returned;  /* available and delivered before */
    uint64_t redelivered, archived, rejected, expired;
};

/* As they are while it looks. start: whatever is written there. */
void eg_share_figures(const struct eg_share *s, struct eg_share_figures *out);

#endif
