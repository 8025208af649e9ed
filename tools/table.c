#include "table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_add(struct table *t, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    char **more = reallocarray(t->cells, t->count + 1, sizeof(*more));
    t->cells = more != NULL ? more : t->cells;
    if (more == NULL || vasprintf(&text, format, args) < 0)
        t->failed = true;
    else
        t->cells[t->count++] = text;
    va_end(args);
    for (char *at = text; at != NULL && *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
}

static void put(struct out *o, const struct table *t, size_t column, size_t width, const char *text) {
    bool last = column + 1 == t->column_count;
    size_t n = strlen(text), pad = n < width ? width - n : 0;
    for (size_t i = 0; t->columns[column].right && i < pad; i++)
        out_text(o, " ");
    out_text(o, text);
    for (size_t i = 0; !t->columns[column].right && !last && i < pad; i++)
        out_text(o, " ");
    out_text(o, last ? "\n" : "  ");
}

void table_print(struct table *t, struct out *o) {
    size_t *width = calloc(t->column_count, sizeof(*width));
    bool good = !t->failed && width != NULL;
    for (size_t i = 0; good && i < t->column_count; i++)
        width[i] = strlen(t->columns[i].head);
    for (size_t i = 0; good && i < t->count; i++)
        if (strlen(t->cells[i]) > width[i % t->column_count])
            width[i % t->column_count] = strlen(t->cells[i]);
    for (size_t i = 0; good && i < t->column_count; i++)
        put(o, t, i, width[i], t->columns[i].head);
    for (size_t i = 0; good && i < t->count; i++)
        put(o, t, i % t->column_count, width[i % t->column_count], t->cells[i]);
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(width);
    t->cells = NULL;
    t->count = 0;
    if (!good)
        o->error = ENOMEM;
}
