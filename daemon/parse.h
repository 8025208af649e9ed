/*
 * parse.h - numbers as people write them in settings. Pure functions; false: not such a text.
 */
#ifndef EG_PARSE_H
#define EG_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal integer, optional sign, nothing after it. */
bool eg_parse_int(const char *text, int64_t *out);
/* Bytes: "1048576", "1024K", "1KiB", "64M", "64MiB", "2G", "1T": powers of 1024, no sign. */
bool eg_parse_size(const char *text, uint64_t *out);
/* "64 MiB", "1.5 GiB", "123 B": for messages. Returns buf. */
const char *eg_format_size(uint64_t bytes, char *buf, size_t cap);
/* "64MiB" if exact, else plain bytes: for settings; eg_parse_size() reads it back. Returns buf. */
const char *eg_print_size(uint64_t bytes, char *buf, size_t cap);
/* Edit distance, for "did you mean". */
size_t eg_text_distance(const char *a, const char *b);

#endif
