/*
 * retention.h - what goes from the disk: whole files, because of retention.ms and retention.bytes, of a trim, or of
 * their topic. In slices, in worker threads; mapped readers finish in peace, for a file is only unlinked.
 */
#ifndef EG_RETENTION_H
#define EG_RETENTION_H

#include "partition.h"

/* Records before this offset go (Kafka's DeleteRecords): the log's start moves there at once and for good; files follow.
 * EAGRE_E_OFFSET_OUT_OF_RANGE: beyond what is durable. */
int eg_retention_trim(struct eg_daemon *d, struct eg_partition *p, int64_t before);
/* A predecessor's active segment got its first record then (realtime): segment.ms counts from there. */
void eg_retention_began(struct eg_partition *p, int64_t realtime_ns);
/* The topic is gone: its files follow. Also what an earlier daemon left. */
void eg_retention_forget_topic(struct eg_daemon *d, uint32_t topic_uid);
/* Note at once what is on disk, as is done from time to time: for a clean stop, so that none of it is ever taken for a tail
 * that was not finished. */
void eg_retention_note(struct eg_daemon *d);

#endif
