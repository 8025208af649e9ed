/*
 * record.h - what a program did to the files below one directory, with the data, in the order of its doing: a
 * mapped file that the recorder (recorder.c, preloaded) appends to, as does the test itself with what it was told.
 * A record is added when its call has returned, so what was told to anybody stands behind what it rests on.
 */
#ifndef EG_TESTS_RECORD_H
#define EG_TESTS_RECORD_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define RECORD_LOG_ENV "EG_RECORD_LOG" /* the mapped file; RECORD_LOG_BYTES long */
#define RECORD_DIR_ENV "EG_RECORD_DIR" /* whose files; an absolute path without links */
#define RECORD_LOG_BYTES (UINT64_C(512) << 20)
#define RECORD_FIRST 64u

enum record_op {
    RECORD_NOTHING = 0, /* being written */
    /* files, by inode */
    RECORD_WRITE,    /* at, bytes; data. flags: durable when it returned (O_DSYNC) */
    RECORD_TRUNCATE, /* to `at` bytes */
    RECORD_ALLOCATE, /* the file has at least `at` bytes, what is new is 0 */
    RECORD_SYNC, /* fsync, fdatasync; also of directories. begin: where the log ended when it was called */
    /* names, relative to the directory; data: "name\0" or "from\0to\0" */
    RECORD_CREATE,
    RECORD_MKDIR,
    RECORD_RENAME,
    RECORD_UNLINK, /* also rmdir */
    /* what the test was told */
    RECORD_TRY,     /* record number `at` for partition `inode` is about to be produced */
    RECORD_SENT,    /* it has offset `begin` */
    RECORD_DURABLE, /* of partition `inode` all below offset `begin` is on disk */
    RECORD_TRIMMED, /* its log begins at offset `begin` or behind */
    RECORD_STARTS,  /* its log begins at offset `begin` now */
    RECORD_LOST,    /* the memory was lost: what was not durable by then may be gone */
};

struct record {
    _Atomic uint32_t op; /* last */
    uint32_t flags;
    uint64_t size; /* of all of it, a multiple of 8 */
    uint64_t inode, at, bytes, begin;
    uint8_t data[];
};

struct record_log {
    _Atomic uint64_t used;
    _Atomic uint32_t frozen; /* no recorded call begins any more */
    _Atomic uint32_t busy;   /* calls that have begun and are not recorded yet */
};

static inline uint64_t record_position(struct record_log *log) { return atomic_load(&log->used); }

static inline struct record *record_at(struct record_log *log, uint64_t at) {
    return (struct record *)(void *)((uint8_t *)log + at);
}

/* For who is about to kill the recorded program: it stands still between two calls. And for its successor. */
static inline void record_freeze(struct record_log *log) {
    atomic_store(&log->frozen, 1);
    while (atomic_load(&log->busy) > 0) {}
}

static inline void record_thaw(struct record_log *log) {
    atomic_store(&log->busy, 0);
    atomic_store(&log->frozen, 0);
}

/* Append. data may be NULL; with more: in two parts. */
static inline void record_add(struct record_log *log, enum record_op op, uint32_t flags,
                              uint64_t inode, uint64_t at, uint64_t begin, const void *data,
                              uint64_t bytes) {
    uint64_t size = (sizeof(struct record) + bytes + 7) / 8 * 8;
    uint64_t place = atomic_fetch_add(&log->used, size);
    if (place + size > RECORD_LOG_BYTES)
        __builtin_trap();
    struct record *r = record_at(log, place);
    r->flags = flags;
    r->size = size;
    r->inode = inode;
    r->at = at;
    r->bytes = bytes;
    r->begin = begin;
    if (bytes > 0)
        memcpy(r->data, data, bytes);
    atomic_store_explicit(&r->op, op, memory_order_release);
}

#endif
