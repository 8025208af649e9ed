/* table.h - rows of text in columns as wide as they need be. */
#ifndef EAGRE_TOOLS_TABLE_H
#define EAGRE_TOOLS_TABLE_H

#include "output.h"

struct table_column {
    const char *head;
    bool right; /* numbers */
};

struct table {
    const struct table_column *columns;
    size_t column_count;
    char **cells;
    size_t count;
    bool failed;
};

#define TABLE(columns) ((struct table){(columns), sizeof(columns) / sizeof(*(columns)), NULL, 0, false})

/* The next cell of a row, or the first one of the next row. Control characters appear as '?': names come from others. */
void table_add(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Heads and rows; frees the rows. Without memory for them the output is in error: out_end says so. */
void table_print(struct table *t, struct out *o);

#endif
