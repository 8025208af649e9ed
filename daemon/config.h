/*
 * config.h - settings of the instance. One table (config.c) names each with its type, default,
 * range and help; the file, the flags and --help-config all come from it.
 *
 * The file has lines "name=value"; '#' begins a comment, blanks around name and value do not count.
 * Flags are --name=value and win over the file.
 */
#ifndef EG_CONFIG_H
#define EG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum eg_keeper_mode { EG_KEEPER_AUTO = 0, EG_KEEPER_PROCESS, EG_KEEPER_SYSTEMD, EG_KEEPER_NONE };

enum eg_disk_io_mode { EG_DISK_IO_AUTO = 0, EG_DISK_IO_URING, EG_DISK_IO_THREADS };

#define EG_CONFIG_TEXT 512
#define EG_SOCKET_PATH_MAX 107 /* sizeof sun_path - 1 */
#define EG_SOCKET_NAME_MAX 75  /* that with the keeper's suffix and a descriptor's directory fits there, too */

struct eg_config {
    char dir[4096];
    char socket[EG_SOCKET_PATH_MAX + 1];
    uint64_t memory_max;  /* bytes that topics may commit */
    uint64_t memory_max_per_uid;
    uint32_t clients_max; /* attached clients */
    uint32_t clients_max_per_uid;
    uint32_t connections_max; /* on the control socket */
    uint32_t connections_max_per_uid;
    uint32_t bells_max_per_uid; /* consumers that may sleep */
    uint32_t topics_max;
    uint32_t topics_max_per_uid;
    uint32_t buffers_max_per_uid; /* of all its topics */
    uint32_t groups_max;
    uint32_t groups_max_per_uid;
    uint32_t members_max_per_uid; /* of groups */
    uint32_t share_lock_ms;       /* group.share.*: of share groups */
    uint32_t share_delivery_limit;
    uint32_t share_max_locks;
    uint32_t socket_mode;
    int log_level;             /* enum eg_log_level */
    int keeper;                /* enum eg_keeper_mode */
    int disk_io;               /* enum eg_disk_io_mode */
    uint64_t disk_min_free_bytes;
    int64_t stall_warn_ms;     /* 0, -1: never */
    int stall_kill;            /* 0, 1 */
    int64_t offsets_retention_ms; /* -1: never */
    int64_t keeper_linger_ms;  /* -1: for ever */
    char cpus[EG_CONFIG_TEXT]; /* "" or "0-3,8" */
    char access_create[EG_CONFIG_TEXT];
};

/* Everything at its default for this user and machine (memory.max, dir and socket depend on it). */
int eg_config_init(struct eg_config *c);
/* Set one entry by name. `where` begins the error text ("/etc/eagred.conf:3", "--memory.max"). */
int eg_config_set(struct eg_config *c, const char *where, const char *name, const char *value);
int eg_config_load(struct eg_config *c, const char *path);
/* Relations between entries, and paths made absolute. After the last set. */
int eg_config_finish(struct eg_config *c);
/* The present value as text, as eg_config_set() reads it. i-th entry; NULL name: no more. */
const char *eg_config_name(size_t i);
const char *eg_config_print(const struct eg_config *c, size_t i, char *buf, size_t cap);
/* The reference: every entry with type, range, default and help. */
void eg_config_help(FILE *f);

#endif
