/*
 * offset_writer.h - committed offsets on their way to the metadata: those of all groups in one transaction, in a worker
 * thread, one at a time. What is committed meanwhile is the next one's.
 *
 *   dirty --begin--> writing --the job--> in the database; then members are told
 */
#ifndef EG_OFFSET_WRITER_H
#define EG_OFFSET_WRITER_H

#include <pthread.h>

#include "disk_io.h"
#include "groups.h"
#include "meta_groups.h"
#include "sys/errbuf.h"

struct eg_offset_writer {
    struct eg_io_job job;
    bool submitted; /* until its done() was called */
    bool busy;      /* rows are under way */
    struct eg_meta *meta;
    struct eg_meta_offset *rows; /* the worker's until `finished`, as the next ones; metadata are copies */
    size_t count, cap;
    struct eg_meta_group *groups;
    size_t group_count, group_cap;

    pthread_mutex_t mutex; /* for these */
    pthread_cond_t cond;
    bool finished;
    int result;
    char why[EG_ERROR_TEXT_MAX];

    bool dirty;       /* a group is */
    bool hurry;       /* somebody waits */
    bool failing;     /* this was told */
    int64_t due_ns;   /* else it is written then */
    int64_t retry_ns; /* not before */

    /* group_offsets.c */
    uint64_t stamp;     /* the last one */
    int64_t look_ns;    /* at members' pages */
    size_t members;     /* so many there were then */
    int64_t expire_ns;  /* offsets.retention.ms */
};

int eg_offset_writer_open(struct eg_daemon *d);
void eg_offset_writer_close(struct eg_daemon *d); /* waits for what is under way */
int64_t eg_offset_writer_tick(struct eg_daemon *d, int64_t now_ns);
/* Everything that is dirty, before it returns. */
int eg_offset_writer_flush(struct eg_daemon *d);
/* What the member's page said when it was collected last is in the database, if nothing is on its way. */
void eg_offset_writer_settle(struct eg_daemon *d, struct eg_member *m);

/* group_offsets.c: as eg_offset_find, but also one that says that there is none (any more). */
struct eg_committed *eg_offset_entry(const struct eg_group *g, uint32_t topic_uid, uint32_t partition);
/* Entries that say so and are in the database like that are of no use. */
void eg_offsets_sweep(struct eg_group *g);

#endif
