#include "output.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

void out_init(struct out *o, int fd) {
    o->fd = fd;
    o->used = 0;
    o->error = 0;
}

static void write_all(struct out *o, const char *data, size_t n) {
    while (n > 0 && o->error == 0) {
        ssize_t done = write(o->fd, data, n);
        if (done < 0 && errno != EINTR) {
            o->error = errno;
        } else if (done > 0) {
            data += done;
            n -= (size_t)done;
        }
    }
}

bool out_flush(struct out *o) {
    write_all(o, o->buf, o->used);
    o->used = 0;
    return o->error == 0;
}

void out_bytes(struct out *o, const void *data, size_t n) {
    if (n == 0)
        return; /* data may be NULL */
    if (n > sizeof(o->buf) - o->used) {
        out_flush(o);
        if (n >= sizeof(o->buf)) {
            write_all(o, data, n);
            return;
        }
    }
    memcpy(o->buf + o->used, data, n);
    o->used += n;
}

void out_text(struct out *o, const char *text) { out_bytes(o, text, strlen(text)); }

void out_int(struct out *o, int64_t n) {
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    do
        digits[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (n < 0)
        digits[--at] = '-';
    out_bytes(o, digits + at, sizeof(digits) - at);
}

void out_printf(struct out *o, const char *format, ...) {
    char line[2048];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (n > 0)
        out_bytes(o, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

int out_end(struct out *o) {
    if (out_flush(o))
        return CLI_OK;
    if (o->error == EPIPE) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
        _exit(128 + SIGPIPE); /* it is blocked */
    }
    fprintf(stderr, "eagre: cannot write the output: %s\n", strerror(o->error));
    return CLI_FAILED;
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s, 0 if there is none: no overlong forms, no surrogates. */
static size_t utf8_length(const uint8_t *s, size_t n) {
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
                 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                               : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return len;
}

bool utf8_is_valid(const void *data, size_t n) {
    const uint8_t *s = data;
    while (n > 0) {
        size_t len = utf8_length(s, n);
        if (len == 0)
            return false;
        s += len;
        n -= len;
    }
    return true;
}

static void json_escaped(struct out *o, uint8_t c) {
    switch (c) {
    case '"':
        out_text(o, "\\\"");
        break;
    case '\\':
        out_text(o, "\\\\");
        break;
    case '\n':
        out_text(o, "\\n");
        break;
    case '\r':
        out_text(o, "\\r");
        break;
    case '\t':
        out_text(o, "\\t");
        break;
    default:
        out_printf(o, "\\u%04x", c);
    }
}

void json_string(struct out *o, const void *data, size_t n) {
    const uint8_t *s = data;
    size_t plain = 0; /* bytes that need nothing, before i */
    out_text(o, "\"");
    for (size_t i = 0; i < n; i++) {
        if (s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f) {
            plain++;
            continue;
        }
        out_bytes(o, s + i - plain, plain);
        plain = 0;
        json_escaped(o, s[i]);
    }
    out_bytes(o, s + n - plain, plain);
    out_text(o, "\"");
}

void json_text(struct out *o, const char *text) {
    size_t n = strlen(text);
    if (utf8_is_valid(text, n)) {
        json_string(o, text, n);
        return;
    }
    char *fixed = malloc(3 * n);
    size_t used = 0;
    if (fixed == NULL) {
        out_text(o, "null");
        return;
    }
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_length((const uint8_t *)text + i, n - i);
        memcpy(fixed + used, len > 0 ? text + i : "\xef\xbf\xbd", len > 0 ? len : 3);
        used += len > 0 ? len : 3;
        len += len == 0;
    }
    json_string(o, fixed, used);
    free(fixed);
}

void json_base64(struct out *o, const void *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *s = data;
    out_text(o, "\"");
    for (size_t i = 0; i < n; i += 3) {
        uint32_t three = (uint32_t)s[i] << 16 | (i + 1 < n ? (uint32_t)s[i + 1] << 8 : 0) |
                         (i + 2 < n ? s[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                        i + 1 < n ? digits[three >> 6 & 63] : '=',
                        i + 2 < n ? digits[three & 63] : '='};
        out_bytes(o, four, sizeof(four));
    }
    out_text(o, "\"");
}

void json_value(struct out *o, const char *text) {
    const char *digits = text + (text[0] == '-');
    size_t n = strspn(digits, "0123456789");
    /* Not more digits than every JSON parser keeps exactly; no leading zeros. */
    bool number = n > 0 && n <= 15 && digits[n] == '\0' && (digits[0] != '0' || n == 1);
    if (number)
        out_text(o, text);
    else
        json_text(o, text);
}

/* ---- delimiters and formats ---------------------------------------------------------------------- */

size_t unescape(char *text) {
    char *to = text;
    for (const char *s = text; *s != '\0'; s++) {
        if (s[0] != '\\' || s[1] == '\0') {
            *to++ = *s;
            continue;
        }
        s++;
        if (s[0] == 'x' && isxdigit((unsigned char)s[1])) {
            char hex[3] = {s[1], isxdigit((unsigned char)s[2]) ? s[2] : '\0', '\0'};
            *to++ = (char)strtoul(hex, NULL, 16);
            s += strlen(hex);
        } else {
            *to++ = *s == 'n' ? '\n' : *s == 'r' ? '\r' : *s == 't' ? '\t' : *s == '0' ? '\0' : *s;
        }
    }
    *to = '\0';
    return (size_t)(to - text);
}
