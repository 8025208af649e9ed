/* consume.h - `eagre consume`: cmd_consume.c, and consume_group.c for those that are members of a group. */
#ifndef EAGRE_TOOLS_CONSUME_H
#define EAGRE_TOOLS_CONSUME_H

#include "cli.h"
#include "eagre/group.h"
#include "format.h"
#include "output.h"
#include "progress.h"

#define POLL_MAX 512
#define PARTITIONS_MAX 1024

struct source {
    char topic[256];
    int32_t partition;
    bool done;   /* -e: its end has been reached; e@: and it is not later than that */
    bool placed; /* a group's: it is known to have a committed offset */
};

struct run {
    const struct cli *c;
    /* options */
    int32_t only[PARTITIONS_MAX]; /* -p */
    size_t only_count;
    int64_t offset; /* EAGRE_OFFSET_*, or 0 .. */
    int64_t tail;   /* -N; -1: not asked for */
    int64_t from;   /* s@TIME; -1: not asked for */
    int64_t until;  /* e@TIME; INT64_MAX: not asked for */
    bool stored;    /* -o stored */
    const char *group; /* -g; NULL: none */
    bool member_option; /* one that needs -g was given */
    eagre_consumer_options_t options;
    bool stop_at_end;
    bool json;
    bool unbuffered;
    bool quiet;
    uint64_t count; /* 0: no limit */
    struct format format;
    const char *delimiter;
    size_t delimiter_len;
    /* state */
    eagre_t *e;
    eagre_consumer_t *consumer;
    struct source *sources;
    size_t source_count;
    size_t undone;
    uint64_t printed;
    bool waited; /* the last poll did, and nothing went wrong */
    int64_t fenced_ns; /* the last poll said so; 0: it did not */
    int failed;  /* in a callback, which cannot say so */
    struct progress progress;
    struct out out;
    eagre_record_t records[POLL_MAX];
};

/* *out: the new one; NULL if it is there already, or there is no memory. */
int run_add_source(struct run *r, const char *topic, int32_t partition, struct source **out);

/* ---- consume_group.c ----------------------------------------------------------------------------------- */

int group_join(struct run *r, const char *const *topics, size_t n);
/* Of records[0 .. n - 1] the first `printed` ones were printed: write them out, then commit or acknowledge them. */
int group_printed(struct run *r, size_t printed, size_t n);
/* There is nothing more now: commit where it stands, which may be behind places without records. */
int group_idle(struct run *r);
/* What a poll, or a commit after it, returned; EAGRE_OK if it can go on. */
int group_polled(struct run *r, int rc);
/* -e, e@TIME: everything that this member has is done. */
bool group_ended(struct run *r);

#endif
