/*
 * settings.h - the settings of a topic. One table (settings.c) names each with its type, default,
 * range, help, and whether it can be altered later. Values go in and out as text.
 */
#ifndef EG_SETTINGS_H
#define EG_SETTINGS_H

#include "access.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum eg_setting {
    EG_SET_PARTITIONS,
    EG_SET_SEGMENT_BYTES,
    EG_SET_RING_SEGMENTS,
    EG_SET_RECORD_ALIGNMENT, /* bytes */
    EG_SET_STORAGE,          /* enum eg_storage */
    EG_SET_RETENTION_MS,     /* -1: no limit */
    EG_SET_RETENTION_BYTES,  /* -1: no limit; storage=memory: what the ring holds */
    EG_SET_SEGMENT_MS,       /* -1: no limit */
    EG_SET_FLUSH_MS,
    EG_SET_FLUSH_BYTES,
    EG_SET_MAX_MESSAGE_BYTES,
    EG_SET_TIMESTAMP_PRECISION, /* enum eg_precision */
    EG_SET_WRITERS,             /* enum eg_writers */
    EG_SET_NUMA,                /* EG_NUMA_AUTO, EG_NUMA_INTERLEAVE, or the node */
    EG_SET_PINNED_BYTES_MAX,
    EG_SET_HUGEPAGES, /* enum eg_hugepages */
    EG_SET_ACCESS_PRODUCE,
    EG_SET_ACCESS_CONSUME,
    EG_SET_ACCESS_ADMIN,
    EG_SET_COUNT
};
#define EG_SET_NUMBERS EG_SET_ACCESS_PRODUCE /* below it: v[]; from it on: access[] */

enum eg_precision { EG_PRECISION_COARSE = 0, EG_PRECISION_NS = 1 };
enum eg_writers { EG_WRITERS_MULTI = 0, EG_WRITERS_SINGLE = 1 };
enum eg_hugepages { EG_HUGEPAGES_OFF = 0, EG_HUGEPAGES_ADVISE = 1, EG_HUGEPAGES_HUGETLB = 2 };
#define EG_NUMA_AUTO (-1)
#define EG_NUMA_INTERLEAVE (-2)

struct eg_settings {
    int64_t v[EG_SET_NUMBERS];
    struct eg_access access[EG_SET_COUNT - EG_SET_NUMBERS];
    bool given[EG_SET_COUNT]; /* else it is at its default, and follows what that depends on */
};

void eg_settings_init(struct eg_settings *s);

/*
 * Set one by name. EAGRE_E_INVALID_CONFIG, with topic, setting, value and what is allowed. strict:
 * users, groups and NUMA nodes must exist here (not so for what was stored earlier).
 */
int eg_settings_set(struct eg_settings *s, const char *topic, const char *name, const char *value,
                    bool strict);

/* After the last set: defaults that depend on others, and what must fit together. */
int eg_settings_finish(struct eg_settings *s, const char *topic);

/* May `to` follow `from`? Both finished. */
int eg_settings_alterable(const struct eg_settings *from, const struct eg_settings *to,
                          const char *topic);

/* Name of the i-th (enum eg_setting), and its present value as eg_settings_set() takes it. */
const char *eg_settings_name(size_t i);
const char *eg_settings_print(const struct eg_settings *s, size_t i, char *buf, size_t cap);

/* "name=value\n" of each that was given, and back (not strict). EAGRE_E_INVALID_CONFIG: it does not
 * fit, or is damaged. */
int eg_settings_save(const struct eg_settings *s, const char *topic, char *buf, size_t cap);
int eg_settings_load(struct eg_settings *s, const char *topic, const char *text);

/* The reference: each with type, default, range and help. */
void eg_settings_help(FILE *f);

/* Kafka's rule: 1 to 249 of [a-zA-Z0-9._-], neither "." nor "..". */
int eg_topic_name_check(const char *name);

static inline struct eg_access *eg_settings_access(struct eg_settings *s, enum eg_setting which) {
    return &s->access[which - EG_SET_NUMBERS];
}

/* Bytes of buffers that the topic may come to, without what pins hold back. */
static inline uint64_t eg_settings_ring_bytes(const struct eg_settings *s) {
    return (uint64_t)s->v[EG_SET_PARTITIONS] * (uint64_t)s->v[EG_SET_RING_SEGMENTS] *
           (uint64_t)s->v[EG_SET_SEGMENT_BYTES];
}

#endif
