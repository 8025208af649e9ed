/*
 * daemon.h - what the services share: the instance as one struct. Each pointer is made by the
 * service named beside it, in the order of the table in services.c, and is only read by the others.
 */
#ifndef EG_DAEMON_H
#define EG_DAEMON_H

#include "config.h"
#include "eagre/eagre.h"
#include "keep.h"
#include "layout/layout.h"
#include "logger.h"
#include "loop.h"
#include "meta.h"
#include "quota.h"
#include "service.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define EG_VERSION EAGRE_VERSION_STRING

struct eg_topics;   /* topics.h */
struct eg_clients;  /* clients.h */
struct eg_stalls;   /* stalls.c */
struct eg_sessions; /* sessions.c */
struct eg_groups;   /* groups.h */
struct eg_disk_io;  /* disk_io.h */
struct eg_recovery; /* recover.c */
struct eg_retention; /* retention.c */
struct eg_archive;   /* archive.h */

/* What STATUS tells; kept up to date by whoever owns the figure. */
struct eg_figures {
    uint64_t memory_committed; /* topics.c: bytes that topics may grow to, against memory.max */
    uint64_t memory_allocated; /* partition.c/slots.c: bytes of buffers with memory behind them */
    uint64_t memory_pinned;    /* slots.c: bytes of detached buffers */
    uint32_t topics;           /* topics.c */
    uint32_t partitions;       /* topics.c */
    uint32_t clients;          /* clients.c */
    uint32_t sessions;         /* sessions.c */
    uint32_t groups;           /* groups.c */
    uint32_t members;          /* group_members.c */
    uint64_t rebalances;       /* group_rebalance.c, as the next ones: of the daemon's time */
    int64_t rebalance_last_ns, rebalance_max_ns;
    uint64_t disk_bytes, flushes; /* archive.c, as the next ones */
    int64_t flush_last_ns, flush_max_ns;
};

enum eg_stop { EG_STOP_NOT = 0, EG_STOP_CLEAN, EG_STOP_KEEP };

struct eg_daemon {
    struct eg_config config;
    struct eg_loop *loop; /* main.c */
    struct eg_keep *keep; /* keep.c */
    struct eg_meta *meta; /* meta.c */
    bool fresh;           /* the keeper held nothing: cold start */

    /* bus.c; the _ro descriptors are what clients get */
    struct eg_bus *bus;
    struct eg_bells *bells;
    int bus_fd, bus_ro_fd;
    int bells_fd, bells_ro_fd;
    uint64_t instance_id;
    uint32_t epoch;
    bool membarrier; /* eg_membarrier() works; else EG_BUS_NO_MEMBARRIER is set in the bus */

    bool clients_lost; /* the memory is kept, but the client table is not: it cannot be used */

    struct eg_disk_io *disk_io; /* disk.c */
    struct eg_recovery *recovery; /* recover.c: while topics are made */
    struct eg_retention *retention;
    struct {
        uint32_t busy;                   /* flushes under way that nobody waits for */
        struct eg_archive *first, *last; /* who wants to do one */
    } syncs; /* archive_turns.c */

    struct eg_topics *topics;
    struct eg_clients *clients;
    struct eg_groups *groups; /* groups.c; NULL: not yet, or not any more */
    struct eg_stalls *stalls;
    struct eg_sessions *sessions;

    struct eg_account *accounts; /* quota.c */
    struct eg_grave *graves;     /* graves.c */
    struct eg_figures figures;
    int64_t started_ns; /* eg_mono_ns() */
    enum eg_stop stop;  /* set by eg_daemon_stop() */
};

/* End the loop after this round; how: EG_STOP_CLEAN or EG_STOP_KEEP (memory stays with the keeper). */
void eg_daemon_stop(struct eg_daemon *d, enum eg_stop how, const char *why);

/* Services of the daemon, in the order of their start. */
extern const struct eg_service eg_lock_service; /* lock.c: instance locks, pid file */
extern const struct eg_service eg_meta_service; /* meta.c */
extern const struct eg_service eg_keep_service; /* keep.c */
extern const struct eg_service eg_bus_service;  /* bus.c: bus page, bells */
extern const struct eg_service eg_graves_service; /* graves.c: gives memory back, in slices */
extern const struct eg_service
    eg_placement_service; /* placement.c: binding, before memory is touched */
extern const struct eg_service eg_disk_service;    /* disk.c */
extern const struct eg_service eg_topics_service;  /* topics.c: recovery of topics and partitions */
extern const struct eg_service eg_clients_service; /* clients.c: recovery of the client table */
extern const struct eg_service eg_slots_service;   /* slots.c */
extern const struct eg_service eg_retention_service; /* retention.c */
extern const struct eg_service eg_janitor_service; /* janitor.c */
extern const struct eg_service eg_stalls_service;  /* stalls.c */
extern const struct eg_service eg_groups_service;  /* groups.c */
extern const struct eg_service eg_sessions_service; /* sessions.c: listens last */

/* services.c. Start: in order; a failure stops those that were started and is returned. */
int eg_services_start(struct eg_daemon *d);
int64_t eg_services_tick(struct eg_daemon *d, int64_t now_ns);
void eg_services_stop(struct eg_daemon *d, bool keep);

#endif
