#include "demo_input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A word at a time, so that checking costs less than what is checked. Not against malice. */
uint64_t eb_hash(uint64_t seed, const void *data, size_t n) {
    const uint8_t *at = data;
    uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15u);
    for (; n >= 8; n -= 8, at += 8) {
        uint64_t w;
        memcpy(&w, at, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, at, n);
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

static int fail(const char *path, const char *why) {
    fprintf(stderr, "eagre-bench: %s: %s\n", path, why);
    return -1;
}

static int read_all(struct eb_input *in, const char *path) {
    FILE *f = fopen(path, "re");
    if (!f)
        return fail(path, strerror(errno));
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    rewind(f);
    in->text = size > 0 ? malloc((size_t)size + 1) : NULL;
    in->text_bytes = in->text ? fread(in->text, 1, (size_t)size, f) : 0;
    fclose(f);
    if (size <= 0 || in->text_bytes != (size_t)size)
        return fail(path, size == 0 ? "empty" : "cannot be read");
    in->text[size] = 0;
    return 0;
}

static uint32_t *slot_of(const struct eb_input *in, const void *key, size_t len) {
    for (size_t i = eb_hash(0, key, len) & in->mask;; i = (i + 1) & in->mask) {
        uint32_t k = in->table[i];
        if (k == 0 || (in->key[k - 1].len == len && memcmp(in->key[k - 1].name, key, len) == 0))
            return &in->table[i];
    }
}

uint32_t eb_input_find(const struct eb_input *in, const void *key, size_t len) {
    return *slot_of(in, key, len) - 1;
}

/* Where "Package: NAME" of this stanza names its package. */
static const char *package_name(const char *stanza, const char *end, size_t *len) {
    for (const char *line = stanza; line < end;) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        if (!next)
            next = end;
        if (next - line > 9 && memcmp(line, "Package: ", 9) == 0) {
            *len = (size_t)(next - line) - 9;
            return line + 9;
        }
        line = next + 1;
    }
    return NULL;
}

static void add(struct eb_input *in, const char *stanza, const char *end) {
    size_t len;
    const char *name = package_name(stanza, end, &len);
    if (!name)
        return;
    uint32_t *slot = slot_of(in, name, len);
    if (*slot == 0) {
        in->key[in->keys] = (struct eb_key){name, (uint32_t)len};
        *slot = (uint32_t)++in->keys;
    }
    in->stanza[in->stanzas++] = (struct eb_stanza){stanza, (uint32_t)(end - stanza), *slot - 1};
}

int eb_input_read(struct eb_input *in, const char *path) {
    memset(in, 0, sizeof *in);
    if (read_all(in, path) != 0)
        return -1;
    size_t most = 1;
    for (const char *p = in->text; (p = strstr(p, "\n\n")); p += 2)
        most++;
    size_t size = 16;
    while (size < most * 2)
        size *= 2;
    in->mask = size - 1;
    in->table = calloc(size, sizeof *in->table);
    in->key = calloc(most, sizeof *in->key);
    in->stanza = calloc(most, sizeof *in->stanza);
    if (!in->table || !in->key || !in->stanza)
        return fail(path, "no memory for it");
    const char *end = in->text + in->text_bytes;
    for (const char *p = in->text; p < end;) {
        const char *stop = strstr(p, "\n\n");
        if (!stop)
            stop = end;
        add(in, p, stop);
        for (p = stop; p < end && *p == '\n';)
            p++;
    }
    return in->stanzas ? 0 : fail(path, "no stanza with a Package: line");
}
