/*
 * eagre/admin.h - topics, consumer groups and the daemon, as Kafka's AdminClient knows them.
 *
 * Every call is one request to the daemon and waits for its answer (10 s at most, then
 * EAGRE_E_TIMED_OUT). Settings are text, named as in Kafka where Kafka has them.
 */
#ifndef EAGRE_ADMIN_H
#define EAGRE_ADMIN_H

#include "eagre/group.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

typedef struct eagre_setting {
    const char *name;
    const char *value;
} eagre_setting_t;

/*
 * Create a topic. "partitions" is a setting like the others. EAGRE_E_TOPIC_EXISTS,
 * EAGRE_E_INVALID_CONFIG (topic, setting, value and allowed range in the detail),
 * EAGRE_E_NO_MEMORY (memory.max, with the figures), EAGRE_E_PERMISSION, EAGRE_E_LIMIT.
 */
int eagre_topic_create(eagre_t *e, const char *name, const eagre_setting_t *settings, size_t count);

/* Change settings of a topic ("partitions" can only grow). Some are fixed at creation. */
int eagre_topic_alter(eagre_t *e, const char *name, const eagre_setting_t *settings, size_t count);

/* Delete a topic: its producers and consumers get EAGRE_E_TOPIC_DELETED. */
int eagre_topic_delete(eagre_t *e, const char *name);

/*
 * Delete the records of a partition before an offset (Kafka's DeleteRecords); -1: all that is on disk by now.
 * *log_start (may be NULL): where the log begins now. Files go when no record in them is left. storage=disk only
 * (EAGRE_E_UNSUPPORTED). EAGRE_E_OFFSET_OUT_OF_RANGE: beyond what is on disk. EAGRE_E_UNKNOWN_PARTITION, _PERMISSION.
 */
int eagre_topic_trim(eagre_t *e, const char *name, int32_t partition, int64_t before, int64_t *log_start);

/*
 * A partition whose log file could not be written or flushed is tried again: what was acknowledged as durable is read
 * again from the medium, the rest is written again from memory. Returns when that has begun; eagre_topic_describe
 * and the daemon's log tell the outcome. EAGRE_E_STATE: there is no error; EAGRE_E_BUSY: try again.
 */
int eagre_topic_resume(eagre_t *e, const char *name, int32_t partition);

typedef struct eagre_topic_setting {
    char name[48];
    char value[256];
    int is_default;
} eagre_topic_setting_t;

typedef struct eagre_partition_info {
    int32_t partition;
    int32_t state;       /* 1: active, 2: error (its ring was destroyed by a producer) */
    int64_t log_start_offset;
    int64_t end_offset;
    uint64_t active_segment; /* seq */
    uint64_t hot_segments;   /* readable in the ring */
    uint64_t memory_bytes;   /* with memory behind them */
    uint64_t pinned_bytes;   /* held back by readers */
    int64_t stalled_offset;  /* readers wait here, for longer than stall.warn.ms, for a record that a
                                living producer has begun and not published; -1: they do not */
    int32_t stalled_pid;     /* that producer; 0: nobody that the daemon can see */
    int64_t stalled_ms;      /* for so long */
    int64_t durable_offset;  /* every record below is on disk and fsynced; -1: storage=memory */
    int32_t disk;            /* 0: well; 1: full, tried again each second; 2: a write or flush failed, see
                                eagre_topic_resume */
} eagre_partition_info_t;

typedef struct eagre_topic_info {
    char name[256];
    uint32_t uid;
    size_t setting_count;
    eagre_topic_setting_t *settings;
    size_t partition_count;
    eagre_partition_info_t *partitions;
} eagre_topic_info_t;

/* Everything about one topic. Free with eagre_topic_info_free. */
int eagre_topic_describe(eagre_t *e, const char *name, eagre_topic_info_t **out);
void eagre_topic_info_free(eagre_topic_info_t *info);

typedef struct eagre_topic_entry {
    char name[256];
    uint32_t uid;
    uint32_t partitions;
    char storage[8]; /* "disk" or "memory" */
} eagre_topic_entry_t;

/* All topics, by name. *out is one block: free() it. */
int eagre_topic_list(eagre_t *e, eagre_topic_entry_t **out, size_t *count);

/* ---- consumer groups: see group.h ---------------------------------------------------------------- */

/* Everybody may look. Its maker, root and the daemon's user may change a group: EAGRE_E_PERMISSION else. */

typedef enum eagre_group_state {
    EAGRE_GROUP_EMPTY = 0,       /* no member; its offsets stay */
    EAGRE_GROUP_REBALANCING = 1, /* somebody has still to give up or to take over partitions */
    EAGRE_GROUP_STABLE = 2
} eagre_group_state_t;

typedef struct eagre_group_entry {
    char name[256];
    eagre_group_type_t type;
    eagre_group_state_t state;
    uint32_t members;
    uint32_t generation;
    uint32_t uid; /* the Unix user whose group it is */
} eagre_group_entry_t;

/* All groups, by name. *out is one block: free() it. */
int eagre_group_list(eagre_t *e, eagre_group_entry_t **out, size_t *count);

typedef struct eagre_group_member {
    uint64_t member;
    char client_id[64];
    char instance_id[256]; /* group.instance.id; "": a dynamic member */
    int32_t pid;           /* 0: a static member that is away */
    uint32_t uid;
    int32_t node;          /* NUMA; -1: unknown */
    uint32_t partitions;   /* that it has */
    size_t topic_count;    /* that it subscribed to; of many, perhaps not all */
    char (*topics)[256];
} eagre_group_member_t;

typedef struct eagre_group_info {
    char name[256];
    eagre_group_type_t type;
    eagre_group_state_t state;
    uint32_t generation;
    uint32_t uid;
    char assignor[32]; /* of the present generation; "": it has none */
    size_t member_count;
    eagre_group_member_t *members;
} eagre_group_info_t;

/* A group and who is in it. EAGRE_E_UNKNOWN_GROUP. Free with eagre_group_info_free. */
int eagre_group_describe(eagre_t *e, const char *group, eagre_group_info_t **out);
void eagre_group_info_free(eagre_group_info_t *info);

typedef struct eagre_group_offset {
    char topic[256];
    int32_t partition;
    int32_t clamped;      /* != 0: it lay behind what a crash of the host left, and was moved to where the log goes on */
    int64_t committed;    /* the next offset to be read; -1: none */
    int64_t log_start;
    int64_t end;          /* one behind the last record */
    int64_t lag;          /* end - committed, 0 at least; -1: nothing is committed */
    uint64_t member;      /* whose it is; 0: nobody's */
    int64_t time_ms;      /* of the commit, since the epoch; 0: none */
    const char *metadata; /* ""; or what was committed with it */
} eagre_group_offset_t;

/* Partitions that have a committed offset or a member. EAGRE_E_UNKNOWN_GROUP. *out is one block: free() it. */
int eagre_group_offsets(eagre_t *e, const char *group, eagre_group_offset_t **out, size_t *count);

/*
 * Set the offsets of a group that has no members (EAGRE_E_GROUP_ACTIVE else); offset -1 forgets. A group that is not there
 * is made, of this type; else the type is not looked at. In the daemon's database when it returns. Very long lists
 * go there in parts, in their order; the first that is refused ends it. EAGRE_E_UNKNOWN_TOPIC, _UNKNOWN_PARTITION,
 * _OFFSET_OUT_OF_RANGE (beyond the log's end), _INVALID (the name; metadata of more than 4,096 bytes), _LIMIT.
 */
int eagre_group_put(eagre_t *e, const char *group, eagre_group_type_t type, const eagre_topic_partition_t *list, size_t n);

/* With its offsets. EAGRE_E_UNKNOWN_GROUP, EAGRE_E_GROUP_ACTIVE (it has members). */
int eagre_group_delete(eagre_t *e, const char *group);

/* ---- the daemon ------------------------------------------------------------------------------------ */

typedef struct eagre_status_entry {
    char name[64];   /* "memory.committed", "clients", ... */
    char value[256];
} eagre_status_entry_t;

/* The daemon's state as name and value. *out is one block: free() it. */
int eagre_daemon_status(eagre_t *e, eagre_status_entry_t **out, size_t *count);

/* Stop the instance, keeper included: records of memory topics are gone. The daemon's own user and
 * root only (EAGRE_E_PERMISSION). keep_memory != 0: only the daemon ends, for an upgrade. */
int eagre_daemon_shutdown(eagre_t *e, int keep_memory);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
