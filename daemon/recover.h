/*
 * recover.h - what is on disk when the daemon starts: before any partition is made, in worker threads, with progress.
 *
 *   cold start  the memory is gone. The last file of each partition is checked frame by frame; a torn tail behind its durable
 *               mark is cut and reported, damage is left and reported; what is accepted is synced. The log goes on in a
 *               new segment. Unless the last stop was clean the next offset is that of the partition's mark (meta.h), which no
 *               offset given out has reached: between the last file's end and the new segment's base there is nothing.
 *   warm start  the keeper has the memory: only the list of files is needed.
 *
 * Whatever is done here can be cut off anywhere and done again.
 */
#ifndef EG_RECOVER_H
#define EG_RECOVER_H

#include "daemon.h"
#include "files.h"

struct eg_meta_disk;
struct eg_meta_topic;

struct eg_recovered {
    struct eg_file_table files; /* whole ones; the last is cut to its end */
    int64_t log_start;
    int64_t end;       /* one behind the last offset that was recovered */
    uint64_t next_seq; /* of the segment to go on with */
};

/* All partitions of all topics with storage=disk. At the start, before topics are made. Failures of single partitions are
 * in their results, and in the log. */
int eg_recover_all(struct eg_daemon *d);
/* What was found for this partition; moved out. A partition that is new: an empty result. Else why there is none. cold: its
 * memory is gone, though that of others may be there. */
int eg_recover_take(struct eg_daemon *d, uint32_t partition_uid, bool cold, struct eg_recovered *out);
/* Blocks; for a worker. Once more, one partition, for whom eg_recover_take failed at the start. noted: the store's
 * (eg_meta_disk_get()). out->files is the caller's. */
int eg_recover_again(const char *topic, const struct eg_log_dir *dir, const struct eg_meta_disk *noted, bool cold,
                     struct eg_recovered *out);
/* No more results are wanted. */
void eg_recover_free(struct eg_daemon *d);

#endif
