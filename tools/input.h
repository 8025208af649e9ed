/* input.h - a file cut into pieces at a delimiter, as many at a time as one read brings. */
#ifndef EAGRE_TOOLS_INPUT_H
#define EAGRE_TOOLS_INPUT_H

#include <stdbool.h>
#include <stddef.h>

struct input {
    int fd;
    const char *delimiter;
    size_t delimiter_len;
    char *buf;
    size_t cap;
    size_t at;   /* of the next piece */
    size_t end;  /* of what was read */
    size_t seen; /* no delimiter begins between at and here */
    bool eof;
};

enum input_status { INPUT_PIECE, INPUT_MORE, INPUT_END, INPUT_ERROR };

void input_begin(struct input *in, int fd, const char *delimiter, size_t delimiter_len);
/*
 * The next piece, without its delimiter. INPUT_MORE: there is none in memory, so input_read() must be
 * called, which may block and makes all pieces before invalid. The last piece may lack a delimiter.
 */
enum input_status input_next(struct input *in, char **piece, size_t *len);
/* INPUT_MORE: go on with input_next. INPUT_ERROR: see errno (EFBIG: a piece above the limit). */
enum input_status input_read(struct input *in);
void input_free(struct input *in);

#endif
