/*
 * rand.h - random numbers: fast ones for spreading and tests, and the kernel's.
 */
#ifndef EG_SYS_RAND_H
#define EG_SYS_RAND_H

#include <stddef.h>
#include <stdint.h>

/* The next of a sequence that *state determines (splitmix64); any state will do, 0 included. Not
 * for secrets. */
static inline uint64_t eg_rand_next(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* n bytes from the kernel's generator. */
int eg_random_bytes(void *buf, size_t n);

#endif
