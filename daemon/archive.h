/*
 * archive.h - a partition's records on their way to disk: followed in the ring, copied, checked, written to the
 * segment's log file, flushed, and said to be durable. One step at a time, in slices, from slots.c.
 *
 *   ring --copy, CRC--> staging --write--> file --fdatasync--> durable_end
 *
 *   arch.copied   the staging area holds what is about to be written
 *   arch.written  it is in the file, perhaps not on the medium
 *   arch.synced   it is on the medium
 *   arch.mark     the durable end says so; whoever waits is woken
 *
 * A write or flush that fails ends this (EG_DISK_ERROR) until eg_archive_resume: after a failed flush nobody knows what
 * of the page cache reached the medium. No space is different (EG_DISK_FULL): what was not written is written later.
 */
#ifndef EG_ARCHIVE_H
#define EG_ARCHIVE_H

#include "files.h"
#include "partition.h"

struct eg_archive;

/* For a partition of a topic with storage=disk. table: its files (taken over). unrecovered: NULL, or why they are not known:
 * then it is in EG_DISK_ERROR until they can be recovered: by eg_archive_resume(), or at the next start. */
int eg_archive_open(struct eg_daemon *d, struct eg_partition *p, struct eg_file_table *table, const char *unrecovered);
/* The ring is there: go on behind the status page's notes. */
void eg_archive_begin(struct eg_partition *p);
/* For good, the topic's deletion or ours. What is under way ends by itself. */
void eg_archive_close(struct eg_daemon *d, struct eg_partition *p);

/* A slice of work. When it wants to be called again, as eg_slots_work. */
int64_t eg_archive_work(struct eg_daemon *d, struct eg_partition *p, int64_t now);
/* The partition was destroyed: it gives up its turn (archive_turns.c). */
void eg_archive_failed(struct eg_partition *p);
/* Is all of segment seq on disk, so that the ring may let it go? */
bool eg_archive_has(const struct eg_partition *p, uint64_t seq);
/* Begin with what eg_archive_finish will wait for. */
void eg_archive_hurry(struct eg_daemon *d, struct eg_partition *p);
/* Everything published so far, now: for a clean stop. False: it cannot be (the disk's state, or a claim in the way). */
bool eg_archive_finish(struct eg_daemon *d, struct eg_partition *p);
/* Leave EG_DISK_ERROR: files that are not known are recovered; what is durable is read again from the medium; then the rest
 * is written again from the ring. The outcome is in the log and in the state. EAGRE_E_STATE: it is in no error. */
int eg_archive_resume(struct eg_daemon *d, struct eg_partition *p);

/* Why its files could not be recovered, or NULL. */
const char *eg_archive_unrecovered(const struct eg_partition *p);
/* Its files: of segments that the ring has let go, and older ones. */
struct eg_file_table *eg_archive_files(struct eg_partition *p);
const struct eg_log_dir *eg_archive_dir(const struct eg_partition *p);
/* Where what is in no whole file yet begins. */
int64_t eg_archive_base(const struct eg_partition *p);

#endif
