#include "parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

bool eg_parse_int(const char *text, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (*digits < '0' || *digits > '9')
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *out = v;
    return true;
}

bool eg_parse_size(const char *text, uint64_t *out) {
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    if (*end != '\0') {
        static const char letters[] = "BKMGTP";
        const char *letter = strchr(letters, *end);
        if (letter == NULL ||
            (letter > letters && strcmp(end + 1, "") != 0 && strcmp(end + 1, "iB") != 0) ||
            (letter == letters && end[1] != '\0'))
            return false;
        unsigned shift = 10u * (unsigned)(letter - letters);
        if (v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
    }
    *out = v;
    return true;
}

const char *eg_format_size(uint64_t bytes, char *buf, size_t cap) {
    unsigned unit = 0;
    while (unit < 5 && bytes >> (10 * (unit + 1)) != 0)
        unit++;
    if (bytes % (UINT64_C(1) << (10 * unit)) == 0)
        snprintf(buf, cap, "%" PRIu64 " %s", bytes >> (10 * unit), units[unit]);
    else
        snprintf(buf, cap, "%.1f %s", (double)bytes / (double)(UINT64_C(1) << (10 * unit)),
                 units[unit]);
    return buf;
}

const char *eg_print_size(uint64_t bytes, char *buf, size_t cap) {
    unsigned unit = 0;
    while (unit < 5 && bytes != 0 && bytes % (UINT64_C(1) << (10 * (unit + 1))) == 0)
        unit++;
    snprintf(buf, cap, "%" PRIu64 "%s", bytes >> (10 * unit), unit > 0 ? units[unit] : "");
    return buf;
}

size_t eg_text_distance(const char *a, const char *b) {
    size_t row[64]; /* Levenshtein, one row; longer texts are cut: they are names of settings */
    size_t nb = strnlen(b, 63);
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0' && i < 63; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 1; j <= nb; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[nb];
}
