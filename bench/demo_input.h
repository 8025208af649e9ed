/* demo_input.h - a file of stanzas as records, and what must arrive of each key. */
#ifndef EB_DEMO_INPUT_H
#define EB_DEMO_INPUT_H

#include <stddef.h>
#include <stdint.h>

/* All records of one key: how many, and a checksum over their numbers and values in that order. */
struct eb_tally {
    uint64_t count;
    uint64_t chain;
};

struct eb_stanza {
    const char *value;
    uint32_t value_len;
    uint32_t key; /* place in keys */
};

struct eb_key {
    const char *name;
    uint32_t len;
};

struct eb_input {
    char *text;
    size_t text_bytes;
    struct eb_stanza *stanza;
    size_t stanzas;
    struct eb_key *key;
    size_t keys;
    uint32_t *table; /* hash table of key + 1, 0: empty */
    size_t mask;
};

/* Read FILE. 0, or -1 with the reason on stderr. Lives until the process ends. */
int eb_input_read(struct eb_input *in, const char *path);

/* Place of a key, or UINT32_MAX. */
uint32_t eb_input_find(const struct eb_input *in, const void *key, size_t len);

uint64_t eb_hash(uint64_t seed, const void *data, size_t n);

static inline void eb_tally_add(struct eb_tally *t, uint64_t number, const void *value, size_t n) {
    t->count++;
    t->chain = eb_hash(t->chain ^ number, value, n);
}

#endif
