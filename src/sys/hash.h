/*
 * hash.h - the hash that maps keys to partitions.
 */
#ifndef EG_SYS_HASH_H
#define EG_SYS_HASH_H

#include <stddef.h>
#include <stdint.h>

/* MurmurHash2 as Kafka's Java client computes it (seed 0x9747b28c), so that a key goes to the same
 * partition number as with Kafka. */
uint32_t eg_murmur2(const void *data, size_t n);

/* The partition of a key, 0 .. partitions - 1: Kafka's toPositive(murmur2(key)) % partitions. */
static inline uint32_t eg_partition_of_key(const void *key, size_t n, uint32_t partitions) {
    return (eg_murmur2(key, n) & 0x7fffffffu) % partitions;
}

#endif
