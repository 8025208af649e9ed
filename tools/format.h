/* format.h - kcat's ways to print a record: a format string, or JSON. */
#ifndef EAGRE_TOOLS_FORMAT_H
#define EAGRE_TOOLS_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "eagre/consumer.h"
#include "output.h"

struct format_item {
    char letter;      /* 0: text */
    const char *text; /* points into the string that was parsed */
    size_t len;
};

#define FORMAT_ITEMS_MAX 128

struct format {
    struct format_item items[FORMAT_ITEMS_MAX];
    size_t count;
    bool null_shown; /* print null keys and values as NULL */
};

/* Parse (and change, and keep pointing to) text. NULL, or what is wrong with it. */
const char *format_parse(struct format *f, char *text);
/* Without a format string: [key KEY-DELIMITER] value DELIMITER. key_delimiter NULL: no key. */
void format_delimited(struct format *f, const char *key_delimiter, size_t key_len,
                      const char *delimiter, size_t len);

void format_record(const struct format *f, struct out *o, const eagre_record_t *r);
void format_json(struct out *o, const eagre_record_t *r); /* no newline */

#endif
