#include "send.h"

#include <stdlib.h>
#include <string.h>

#define HEADERS_MIN 4096

static size_t size_of(const eagre_message_t *m) {
    size_t bytes = m->key_len + m->value_len + 64;
    for (size_t i = 0; i < m->header_count; i++)
        bytes += 8 + m->headers[i].name_len + m->headers[i].value_len;
    return bytes;
}

void send_begin(struct sender *s, eagre_producer_t *p) { *s = (struct sender){.p = p, .batch_bytes = BATCH_BYTES_MAX}; }

eagre_acks_t send_acks(const struct cli *c, const char *text) {
    if (strcmp(text, "disk") != 0 && strcmp(text, "memory") != 0)
        cli_usage(c, "--acks is memory or disk, not '%s'", text);
    return text[0] == 'd' ? EAGRE_ACKS_DISK : EAGRE_ACKS_MEMORY;
}

/* Messages [first, first + n), which go to one partition. */
static int send_run(struct sender *s, const eagre_message_t *m, size_t first, size_t n) {
    while (n > 0) {
        size_t k = 1;
        size_t bytes = size_of(&m[first]);
        while (k < n && bytes + size_of(&m[first + k]) <= s->batch_bytes)
            bytes += size_of(&m[first + k++]);
        int rc = k == 1 ? eagre_produce(s->p, &m[first], NULL, NULL)
                        : eagre_produce_batch(s->p, m[first].partition, &m[first], k, NULL);
        if (rc == EAGRE_E_RECORD_TOO_LARGE && k > 1) {
            s->batch_bytes = bytes / 2; /* too large as a unit for this topic's segments */
            continue;
        }
        s->first = first;
        s->count = k;
        if (rc != EAGRE_OK)
            return rc;
        first += k;
        n -= k;
        s->sent += k;
    }
    return EAGRE_OK;
}

int send_messages(struct sender *s, const eagre_message_t *m, size_t count) {
    size_t first = 0;
    int rc = EAGRE_OK;
    while (first < count && rc == EAGRE_OK) {
        size_t n = 1;
        while (first + n < count && m[first + n].partition == m[first].partition)
            n++;
        rc = send_run(s, m, first, n);
        first += n;
    }
    return rc;
}

int batch_flush(struct batch *b) {
    int rc = send_messages(&b->to, b->m, b->count);
    b->count = b->bytes = b->header_used = 0;
    return rc;
}

int batch_room(struct batch *b, size_t headers) {
    int rc = EAGRE_OK;
    if (b->count == BATCH_MAX || b->bytes >= BATCH_BYTES_MAX || headers > b->header_cap - b->header_used)
        rc = batch_flush(b);
    if (rc != EAGRE_OK || headers <= b->header_cap)
        return rc;
    size_t cap = headers > HEADERS_MIN ? headers : HEADERS_MIN;
    eagre_header_t *more = reallocarray(b->headers, cap, sizeof(*more));
    if (more == NULL)
        return EAGRE_E_NO_MEMORY;
    b->headers = more;
    b->header_cap = cap;
    return EAGRE_OK;
}

void batch_put(struct batch *b, const eagre_message_t *m, size_t headers) {
    eagre_message_t *to = &b->m[b->count++];
    *to = *m;
    to->headers = headers > 0 ? b->headers + b->header_used : NULL;
    to->header_count = headers;
    b->header_used += headers;
    b->bytes += size_of(to);
}

void batch_free(struct batch *b) {
    free(b->headers);
    b->headers = NULL;
    b->header_cap = 0;
}
