/*
 * fuzz.h - what the fuzz targets share. Each fuzz_*.c has one entry, libFuzzer's; with the preset `fuzz` it is
 * linked to libFuzzer (`tools/dev fuzz`), in all others to replay.c, which runs the corpus and mutations of it.
 *
 * A target keeps nothing from input to input, so that each one does the same again.
 */
#ifndef EG_TESTS_FUZZ_H
#define EG_TESTS_FUZZ_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The promise that is broken, then the end. */
#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The input, taken piece by piece; behind its end there are zeros. */
struct fuzz_in {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_in *in, size_t bytes) {
    uint64_t v = 0;
    size_t n = in->left < bytes ? in->left : bytes;
    if (n > 0)
        memcpy(&v, in->at, n);
    in->at += n;
    in->left -= n;
    return v;
}
static inline uint8_t fuzz_u8(struct fuzz_in *in) { return (uint8_t)fuzz_take(in, 1); }
static inline uint16_t fuzz_u16(struct fuzz_in *in) { return (uint16_t)fuzz_take(in, 2); }
static inline uint32_t fuzz_u32(struct fuzz_in *in) { return (uint32_t)fuzz_take(in, 4); }
static inline uint64_t fuzz_u64(struct fuzz_in *in) { return fuzz_take(in, 8); }

/* Up to n bytes as they lie there; *got of them. */
static inline const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t n, size_t *got) {
    const uint8_t *at = in->at;
    *got = in->left < n ? in->left : n;
    in->at += *got;
    in->left -= *got;
    return at;
}

/* A string of the input's next u8 bytes (fewer at a NUL), for the caller to free. */
static inline char *fuzz_text(struct fuzz_in *in) {
    size_t n, want = fuzz_u8(in);
    const uint8_t *at = fuzz_bytes(in, want, &n);
    char *text = calloc(1, n + 1);
    FUZZ_REQUIRE(text != NULL);
    if (n > 0)
        memcpy(text, at, n);
    return text;
}

/* How many descriptors this process has. */
static inline size_t fuzz_open_fds(void) {
    size_t n = 0;
    DIR *all = opendir("/proc/self/fd");
    FUZZ_REQUIRE(all != NULL);
    while (readdir(all) != NULL)
        n++;
    (void)closedir(all);
    return n;
}

#endif
