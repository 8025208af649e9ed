/*
 * archive_internal.h - the archiver's inside, for archive.c (follow, write, flush, publish), archive_file.c (files made and
 * grown, indexes) and archive_resume.c (leave EG_DISK_ERROR). All of it belongs to the loop; jobs hold what they need.
 */
#ifndef EG_ARCHIVE_INTERNAL_H
#define EG_ARCHIVE_INTERNAL_H

#include "archive.h"
#include "disk_io.h"
#include "log/logindex.h"
#include "sys/atomic.h"

#define EG_ARCHIVE_SLICE (UINT32_C(256) << 10) /* copied in one call */
#define EG_ARCHIVE_RETRY_NS EG_NS_PER_S /* when there was no space or memory */

/* Bytes of the file, on their way. */
struct eg_staging {
    uint8_t *data;
    size_t cap, used;
    uint64_t at; /* where data[0] goes */
    bool whole;  /* the next frame does not fit */
};

struct eg_archive_file {
    struct eg_archive *a;
    uint64_t seq;
    int64_t base;
    int fd;             /* -1: being made */
    uint64_t allocated; /* bytes of it with disk space behind them: nothing is written beyond */
    bool sealed;        /* the segment's end is copied */
    bool writing, syncing, pushing, growing; /* jobs that use fd */
    bool background;           /* the flush under way has a turn */
    struct eg_staging flight;  /* what is being written */
    struct eg_place copied, written, synced; /* behind what was copied, written, flushed */
    struct eg_place flown, covered;          /* what the write and the flush under way will bring */
    uint64_t pushed;                         /* writeback was begun up to here */
    int64_t dirty_ns;                        /* since when something is copied and not flushed; 0: nothing is */
    int64_t sync_ns;                         /* when the flush under way began, as work() was told */
    int64_t sync_mono_ns;                    /* and by the clock */
    uint32_t flush;                          /* number of the flush that what is copied now will be in */
    uint32_t covered_flush;                  /* of the one under way */
    struct eg_io_job write, sync, push;
    struct eg_logfile_id id;
    struct eg_logfile log;
    struct eg_logindex_builder builder;
    struct eg_logindex_entry *entries; /* builder.count of them; NULL: no memory, then no index */
};

struct eg_archive {
    struct eg_daemon *d;
    struct eg_partition *p; /* NULL: closed, and freed when nothing is under way */
    struct eg_log_dir dir;
    struct eg_file_table files;
    struct eg_archive_file *cur, *prev; /* prev: whole, its last flush is under way */
    uint64_t seq;                       /* of the segment that is copied, or will be next */
    struct eg_place start;              /* where in it the next file begins to be copied */
    uint32_t start_flush;
    struct eg_staging fill;
    int64_t wanted; /* somebody waits for it to be durable up to here */
    struct {
        bool under_way;
        uint32_t woken;    /* by the last flush: they may be back soon */
        uint32_t others;   /* records that were there for the next one by then, at least */
        uint32_t together; /* records that are expected before the next one begins */
        uint32_t misses;   /* flushes that will not wait for any: the last time nobody came */
        int64_t until_ns;  /* not longer than this */
    } gather;
    uint32_t jobs; /* under way, their done() comes */
    bool calling;  /* a CALL about its files is */
    bool has_spare;
    bool finishing;
    bool left_jobs; /* when it was closed */
    int64_t looked_ns;      /* the last look */
    int64_t retry_ns;       /* FULL: not before that */
    int64_t spare_retry_ns; /* likewise for the spare file */
    bool has_turn, queued;  /* archive_turns.c */
    struct eg_archive *next;
    char *unrecovered; /* why its files could not be recovered; NULL: they were */
};

static inline bool eg_archive_state_is(const struct eg_archive *a, enum eg_disk_state state) {
    return eg_load_relaxed(&a->p->status->disk) == state;
}

/* ---- archive.c ------------------------------------------------------------------------------------------ */

void eg_archive_set_state(struct eg_archive *a, enum eg_disk_state state);
/* There was space. */
void eg_archive_has_space(struct eg_archive *a);
/* No space: FULL. */
void eg_archive_full(struct eg_archive *a, const char *why);
/* Each job's done() ends with it: `a` may be gone afterwards. */
void eg_archive_job_ended(struct eg_archive *a);
void eg_staging_free(struct eg_staging *s);

/* ---- archive_turns.c ------------------------------------------------------------------------------------- */

/* May it begin a flush that nobody waits for? False: it will be woken when it may. */
bool eg_archive_turn_take(struct eg_archive *a);
/* It does not want one any more. */
void eg_archive_turn_drop(struct eg_archive *a);
/* A flush that had a turn is over (has_turn is false since it began). */
void eg_archive_turn_end(struct eg_daemon *d);

/*
 * Group commit. Who was woken by the last flush is likely to come back with the next record, at once: if a flush had begun
 * before, it would serve only half of them, and the other half by turns. So wait for as many records as were
 * waited for then; no longer than a flush takes, and not at all for a while if they did not come.
 */
/* A flush is over that took so long; those who waited for it are woken next (gather.woken). */
void eg_archive_gather_begin(struct eg_archive *a, int64_t took_ns);
/* Wait for more before the next one? *due: then look again at that time. */
bool eg_archive_gathers(struct eg_archive *a, const struct eg_archive_file *f, int64_t now, int64_t *due);

/* ---- archive_file.c -------------------------------------------------------------------------------------- */

/* The file of segment a->seq, copied from a->start on. NULL: no memory. */
struct eg_archive_file *eg_archive_file_begin(struct eg_archive *a);
void eg_archive_file_free(struct eg_archive_file *f);
/* Make f's file. False: no memory. */
bool eg_archive_file_make(struct eg_archive *a, const struct eg_archive_file *f);
/* A step of space more for f, at least `to` bytes in all. False: no memory. */
bool eg_archive_file_grow(struct eg_archive *a, struct eg_archive_file *f, uint64_t to);
/* Have a spare file for the next segment. */
void eg_archive_file_spare(struct eg_archive *a);
/* f is whole: write its index. It can be made anew: nobody waits, nothing is flushed. */
void eg_archive_file_index(struct eg_archive *a, struct eg_archive_file *f);

#endif
