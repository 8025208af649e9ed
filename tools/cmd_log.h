/*
 * cmd_log.h - what the `eagre log` commands share: finding log files and looking at them. They work on
 * files alone, so they need no daemon. Failures to read are told where they are met. With --keeper they look at
 * memory instead: ring.h.
 */
#ifndef EAGRE_TOOLS_CMD_LOG_H
#define EAGRE_TOOLS_CMD_LOG_H

#include "cli.h"
#include "log/logindex.h"
#include "output.h"

#define LOG_OPTION_KEEPER 1100
#define LOG_KEEPER_OPTION                                                                          \
    { "keeper", required_argument, NULL, LOG_OPTION_KEEPER }

struct log_file {
    uint64_t seq;
    char *path;
    bool has_index;
    bool aside; /* <seq>.log.damaged: put aside by a repair */
};

/* A partition's directory. */
struct log_partition {
    char *dir;
    int64_t topic_uid; /* as the directories' names say; -1: they do not */
    int64_t number;
    struct log_file *files; /* by seq */
    size_t count;
    bool is_part; /* only files that were named: others may exist */
};

/*
 * Call each() for every partition that the paths (data directory, log, topic's, partition's directory, or
 * files) lead to. The worst exit code; CLI_FAILED if a path leads to none.
 */
int log_for_each(struct cli *c, int argc, char **argv,
                 int (*each)(struct log_partition *p, void *ctx), void *ctx);

enum log_state {
    LOG_WHOLE, /* complete and good */
    LOG_OPEN,  /* the last one, good as far as it goes */
    LOG_EMPTY, /* the last one, nothing is written yet */
    LOG_TORN,  /* the last one: a tail that a crash cut off */
    LOG_DAMAGED,
    LOG_NO_HEADER, /* whose it is is not known */
    LOG_UNREADABLE,
    LOG_ASIDE
};
const char *log_state_name(enum log_state s);

/* One file, read and checked. */
struct log_look {
    const struct log_file *file;
    enum log_state state;
    char problem[EG_PAGE / 4]; /* "": none */
    uint8_t *data;
    uint64_t bytes;
    bool has_header;
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logfile_scan scan;
};

/* File i of p. ids: of a file of the same partition that had a good header; filled by the first one that has. */
void log_look(const struct log_partition *p, size_t i, struct eg_logfile_id *ids,
              struct log_look *out);
void log_look_end(struct log_look *k);

/* Is the file's index what can be made of its log? *wrong: a text if not; entries (free() them): what it should
 * hold, count of them. EAGRE_OK, or EAGRE_E_NO_MEMORY. */
int log_index_check(const struct log_look *k, const char **wrong,
                    struct eg_logindex_entry **entries, uint32_t *count);

/* "1970-01-01T00:00:00.000Z" */
#define LOG_TIME_MAX 40
void log_time(int64_t ns, char out[LOG_TIME_MAX]);

#endif
