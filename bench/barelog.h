/*
 * barelog.h - the bare baseline: the least a log between two processes can be. One writer, one reader,
 * a ring of frames in shared memory, each with a commit word and aligned to a cache line; no CRC, no
 * owner, no index, no timestamps, no rotation, no crash safety. The word carries the lap, so that
 * nothing needs to be zeroed. Frames have any length; one that does not fit in the rest starts anew
 * in front. The writer must not overrun the reader: its caller sees to that (see stream.c).
 */
#ifndef EB_BARELOG_H
#define EB_BARELOG_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EB_BARE_WRAP 0xffffffffu

struct eb_bare {
    uint8_t *ring;
    uint64_t size;
    uint64_t pos;
    uint64_t lap; /* from 1: a word is never 0 */
};

static inline uint64_t eb_bare_frame(uint64_t bytes) { return (bytes + 8 + 63) & ~63ull; }

/* Map size bytes of a memfd; call before fork in the parent. 0 or -1. */
static inline int eb_bare_open(struct eb_bare *b, uint64_t size) {
    int fd = memfd_create("eagre-bench", MFD_CLOEXEC);
    void *p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (p == MAP_FAILED)
        return -1;
    madvise(p, size, MADV_HUGEPAGE);
    *b = (struct eb_bare){p, size, 0, 1};
    return 0;
}

static inline void eb_bare_close(struct eb_bare *b) {
    if (b->ring)
        munmap(b->ring, b->size);
    b->ring = NULL;
}

static inline void eb_bare_put(struct eb_bare *b, const void *value, uint32_t n) {
    uint64_t frame = eb_bare_frame(n);
    if (frame > b->size - b->pos) {
        if (b->pos < b->size)
            atomic_store_explicit((_Atomic uint64_t *)(void *)(b->ring + b->pos),
                                  b->lap << 32 | EB_BARE_WRAP, memory_order_release);
        b->pos = 0;
        b->lap++;
    }
    uint8_t *at = b->ring + b->pos;
    memcpy(at + 8, value, n);
    /* Release, with the acquire in eb_bare_get: whoever sees the word sees the value. */
    atomic_store_explicit((_Atomic uint64_t *)(void *)at, b->lap << 32 | n, memory_order_release);
    b->pos += frame;
}

/* The next value, or NULL if there is none yet. */
static inline const void *eb_bare_get(struct eb_bare *b, uint32_t *n) {
    if (b->pos >= b->size) {
        b->pos = 0;
        b->lap++;
    }
    uint64_t word =
        atomic_load_explicit((_Atomic uint64_t *)(void *)(b->ring + b->pos), memory_order_acquire);
    if (word >> 32 != b->lap)
        return NULL;
    if ((uint32_t)word == EB_BARE_WRAP) {
        b->pos = 0;
        b->lap++;
        word = atomic_load_explicit((_Atomic uint64_t *)(void *)b->ring, memory_order_acquire);
        if (word >> 32 != b->lap)
            return NULL;
    }
    *n = (uint32_t)word;
    const void *value = b->ring + b->pos + 8;
    b->pos += eb_bare_frame(*n);
    return value;
}

#endif
