/*
 * powercut.h - a real daemon at work, recorded (record.h), and after each of its steps the question what would be there
 * after a power cut: work.c, images.c, verify.c, main.c.
 */
#ifndef EG_TESTS_POWERCUT_H
#define EG_TESTS_POWERCUT_H

#include <stdbool.h>
#include <stddef.h>

#include "powercut/images.h"
#include "powercut/record.h"
#include "system/harness.h"

#define PARTITIONS 2
#define VALUE_MAX 6144u

/* ---- what is produced: values that say who they are ---- */

/* The value of record `number` of a partition; returns its length. */
size_t work_value(uint64_t number, uint32_t partition, uint8_t *value);

/* Clients and kills from a seed, on a bus that is initialised; recorder: the library to preload. All that is told to
 * clients goes to the log. The daemon is stopped in the end. */
void work(struct eg_test_bus *b, uint64_t seed, struct record_log *log, const char *log_path,
          const char *recorder);
/* Likewise: killed with much that is written and not flushed, and started again, warm. Where in the log that begins. */
uint64_t work_warm(struct eg_test_bus *b, uint64_t seed, struct record_log *log, const char *log_path,
                   const char *recorder);

/* ---- what was told ---- */

struct told;

/* The whole recording is looked through for what becomes known later. */
struct told *told_new(struct record_log *log);
void told_free(struct told *t);
/* Played up to here, as images_step(). */
void told_step(struct told *t, const struct record *r, uint64_t position);
/* No offset beyond this one was told for the partition so far. */
int64_t told_sent_end(const struct told *t, uint32_t partition);
/* Begin to compare a partition with what was told; each record as it comes; then all. False: it is not so, and why. */
void told_begin(struct told *t, uint32_t partition);
bool told_record(struct told *t, int64_t offset, const void *value, size_t length, char *why,
                 size_t cap);
bool told_end(struct told *t, int64_t log_start, int64_t end, int64_t goes_on_at, char *why,
              size_t cap);

/* ---- recovery ---- */

struct recovered {
    bool there; /* the topic is */
    struct {
        int64_t log_start, end;
        uint64_t records, hash; /* of all that can be read */
    } partition[PARTITIONS];
};

/* Recover dir as a cold start does, in this process, and read it all. False: it is not what was told, or could not be done: why. */
bool verify(const char *dir, struct told *t, struct recovered *out, char *why, size_t cap);

/* What the daemon's code, linked here, had to say since this was zeroed: log.c. */
extern struct lines {
    unsigned errors, warnings;
    char last[700];
} lines;

/* Each byte of the files of a small log changed in turn (or each stride-th of what lies within values), files missing, cut,
 * overwritten: flip.c. */
void flip_all(unsigned stride);

/* The recorder's, if it is preloaded. */
void record_switch(struct record_log *log, const char *directory) __attribute__((weak));

#endif
