/*
 * output.h - text and JSON to standard output, in large writes.
 */
#ifndef EAGRE_TOOLS_OUTPUT_H
#define EAGRE_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct out {
    int fd;
    size_t used;
    int error; /* errno of the first write that failed; nothing is written after it */
    char buf[65536];
};

void out_init(struct out *o, int fd);
void out_bytes(struct out *o, const void *data, size_t n);
void out_text(struct out *o, const char *text);
void out_int(struct out *o, int64_t n);
void out_printf(struct out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Write what is there; false if that failed, now or before. */
bool out_flush(struct out *o);
/* Flush and tell of a failure; an exit code. A reader that has gone away ends the program, quietly,
 * as SIGPIPE would. */
int out_end(struct out *o);

/* ---- JSON ---------------------------------------------------------------------------------------- */

bool utf8_is_valid(const void *data, size_t n);
/* Quoted and escaped; data must be valid UTF-8. */
void json_string(struct out *o, const void *data, size_t n);
void json_text(struct out *o, const char *text); /* what is not UTF-8 in it becomes U+FFFD */
void json_base64(struct out *o, const void *data, size_t n);
/* Text that is a decimal number stays one, else a string. */
void json_value(struct out *o, const char *text);

/* ---- delimiters and formats ---------------------------------------------------------------------- */

/* Resolve \n \r \t \\ \0 \xNN in place; returns the length (there may be NULs). */
size_t unescape(char *text);

#endif
