/*
 * files.h - a partition's log files: where they lie, which there are. Functions that say "blocks" are for worker
 * threads (disk_io.h) or the start; they touch nothing but their arguments and the file system, and their errors
 * name the path.
 *
 *   DIR/log/t<topic uid>/<partition>/<seq>.log  .idx   a segment; spare.log: made ready for the next one
 *   DIR/log/t<topic uid>.gone, .N.gone                 a deleted topic's, on its way out
 */
#ifndef EG_FILES_H
#define EG_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EG_FILES_PATH 4200

/* Which partition, and where. A plain value: copied into jobs. */
struct eg_log_dir {
    char path[EG_FILES_PATH]; /* DIR/log/t<uid>/<partition> */
    uint32_t topic_uid, partition_uid, partition;
    uint32_t align;
    uint64_t capacity;       /* of a segment */
    uint64_t min_free_bytes; /* disk.min.free.bytes */
};

struct eg_log_file {
    uint64_t seq;
    int64_t base;
    int64_t end;         /* one behind its last offset; -1: not known (the last one, before it is scanned) */
    uint64_t bytes;      /* that it takes on disk */
    int64_t written_ns;  /* realtime: its last modification */
    int64_t created_ns;  /* realtime: when it got its first record; 0: not known */
    bool damaged;        /* its header is bad: no record of it can be read */
};

/* The segments of a partition that are on disk, by rising seq. In memory. */
struct eg_file_table {
    struct eg_log_file *list;
    size_t first, count, cap; /* present: list[first .. first + count) */
};

void eg_files_free(struct eg_file_table *t);
/* Room for n more: so many calls of eg_files_add will not fail. */
int eg_files_reserve(struct eg_file_table *t, size_t n);
int eg_files_add(struct eg_file_table *t, const struct eg_log_file *f); /* behind the last */
void eg_files_drop_first(struct eg_file_table *t);
struct eg_log_file *eg_files_at(const struct eg_file_table *t, size_t i); /* NULL: no such */
static inline struct eg_log_file *eg_files_last(const struct eg_file_table *t) {
    return t->count > 0 ? &t->list[t->first + t->count - 1] : NULL;
}
/* The first whose end lies behind offset; count: none. */
size_t eg_files_behind(const struct eg_file_table *t, int64_t offset);
/* The first one of this segment or a later one; NULL: none. */
struct eg_log_file *eg_files_from_seq(const struct eg_file_table *t, uint64_t seq);
struct eg_log_file *eg_files_by_seq(const struct eg_file_table *t, uint64_t seq);

void eg_log_dir_init(struct eg_log_dir *dir, const char *data_dir, uint32_t topic_uid, uint32_t partition,
                     uint32_t partition_uid, uint32_t align, uint64_t capacity, uint64_t min_free_bytes);
/* Blocks. Make it, with its parents, and sync their directories. Idempotent. *error: as of the next ones. */
int eg_log_dir_make(const struct eg_log_dir *dir, int *error);
/* Blocks. What is there, by seq; headers are read and checked; the end of each is the next one's base, or -1 if there is none
 * or that one's header is damaged. No directory is an empty list. Strange names are reported once each, and left alone. */
int eg_log_dir_list(const struct eg_log_dir *dir, struct eg_file_table *out);
/* Blocks. What `eagre log repair` put aside as damaged, by seq; no ends. */
int eg_log_dir_list_aside(const struct eg_log_dir *dir, struct eg_file_table *out);
/* Blocks. Have spare.log with disk space behind its first EG_LOG_STEP bytes (or all, if that is less). Files are given space
 * in steps, ahead of what is written to them, so that no write meets a full disk and a partition with little in it takes
 * little. EAGRE_E_LIMIT with ENOSPC or EDQUOT in *error: none is left, or less than min_free_bytes would be. Other errors:
 * EAGRE_E_IO, the number in *error. */
#define EG_LOG_STEP (UINT64_C(1) << 20)
struct eg_logfile_id;
int eg_log_dir_prepare(const struct eg_log_dir *dir, int *error);
/* Blocks. id->seq's file, open for writing: spare.log gets its header, is synced, renamed, and the directory synced: a file
 * of that name has a good header. One that is there already is gone on with, from byte `keep` on, which is cut off for good
 * first: frames that a predecessor wrote there and did not flush would, after a power cut, be evidence of flushes that never
 * were (logfile.h). EAGRE_E_CORRUPT: it is another's, or shorter than that. *allocated: bytes with disk space behind them. */
int eg_log_dir_name(const struct eg_log_dir *dir, const struct eg_logfile_id *id, uint64_t keep, int *fd_out,
                    uint64_t *allocated, int *error);
/* Blocks. Disk space behind bytes from .. to of the file, too. Errors as above. */
int eg_log_dir_grow(const struct eg_log_dir *dir, int fd, uint64_t from, uint64_t to, int *error);
/* Blocks shortly. For readers. */
int eg_log_dir_open(const struct eg_log_dir *dir, uint64_t seq, bool index, int *fd_out);
/* Blocks. Write seq's index anew; nothing is synced. */
struct eg_logindex_header;
struct eg_logindex_entry;
int eg_log_dir_put_index(const struct eg_log_dir *dir, uint64_t seq, const struct eg_logindex_header *header,
                         const struct eg_logindex_entry *entries, size_t count);
/* Blocks. Unlink segments (log and index) first .. last. */
int eg_log_dir_unlink(const struct eg_log_dir *dir, uint64_t first, uint64_t last);
/* At the start. What lies there of topics that there are not: a deletion that was cut off is ended; what belongs to no topic
 * that ever was (last_uid: the last one) is moved out of the way, kept, and reported: it is another instance's, or the
 * store of topics was lost. */
int eg_topic_dirs_settle(const char *data_dir, uint32_t last_uid, bool (*exists)(void *ctx, uint32_t topic_uid), void *ctx);
/* Blocks. A deleted topic: out of the way at once (rename, sync); what is there goes in slices: at most max files a
 * call; *more: call again. */
int eg_topic_dir_gone(const char *data_dir, uint32_t topic_uid);
int eg_topic_dir_sweep(const char *data_dir, size_t max, bool *more);

#endif
