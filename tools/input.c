#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (256u << 10)
#define PIECE_MAX (512u << 20) /* no topic takes a record that large */

void input_begin(struct input *in, int fd, const char *delimiter, size_t delimiter_len) {
    char *buf = in->buf;
    size_t cap = in->cap;
    *in = (struct input){
        .fd = fd, .delimiter = delimiter, .delimiter_len = delimiter_len, .buf = buf, .cap = cap};
}

enum input_status input_next(struct input *in, char **piece, size_t *len) {
    if (in->at < in->end) {
        char *from = in->buf + in->seen;
        size_t left = in->end - in->seen;
        char *found = in->delimiter_len == 1 ? memchr(from, in->delimiter[0], left)
                                             : memmem(from, left, in->delimiter, in->delimiter_len);
        if (found != NULL) {
            *piece = in->buf + in->at;
            *len = (size_t)(found - *piece);
            in->at += *len + in->delimiter_len;
            in->seen = in->at;
            return INPUT_PIECE;
        }
        if (in->eof) {
            *piece = in->buf + in->at;
            *len = in->end - in->at;
            in->at = in->seen = in->end;
            return INPUT_PIECE;
        }
        /* The first bytes of a delimiter may be there already. */
        size_t keep = in->delimiter_len - 1;
        in->seen = in->end - in->at > keep ? in->end - keep : in->at;
    }
    return in->eof ? INPUT_END : INPUT_MORE;
}

enum input_status input_read(struct input *in) {
    if (in->at > 0)
        memmove(in->buf, in->buf + in->at, in->end - in->at);
    in->end -= in->at;
    in->seen -= in->at;
    in->at = 0;
    if (in->end == in->cap) {
        size_t cap = in->cap == 0 ? BLOCK : in->cap * 2;
        char *larger = cap > PIECE_MAX ? NULL : realloc(in->buf, cap);
        if (larger == NULL) {
            errno = cap > PIECE_MAX ? EFBIG : ENOMEM;
            return INPUT_ERROR;
        }
        in->buf = larger;
        in->cap = cap;
    }
    ssize_t n;
    do
        n = read(in->fd, in->buf + in->end, in->cap - in->end);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return INPUT_ERROR;
    in->end += (size_t)n;
    in->eof = n == 0;
    return INPUT_MORE;
}

void input_free(struct input *in) {
    free(in->buf);
    in->buf = NULL;
    in->cap = 0;
}
