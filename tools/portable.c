#include "portable.h"

#include <string.h>

#include "sys/crc32c.h"

#define NULL_LENGTH UINT32_MAX

void portable_begin(struct out *o) { out_bytes(o, PORTABLE_MAGIC, PORTABLE_MAGIC_BYTES); }

static uint8_t *put32(uint8_t *to, uint32_t n) {
    memcpy(to, &n, sizeof(n));
    return to + sizeof(n);
}

static uint8_t *put64(uint8_t *to, int64_t n) {
    memcpy(to, &n, sizeof(n));
    return to + sizeof(n);
}

static uint32_t get32(const uint8_t *from) {
    uint32_t n;
    memcpy(&n, from, sizeof(n));
    return n;
}

size_t record_headers(const eagre_record_t *r) {
    eagre_header_t h;
    size_t n = 0;
    while (r->headers != NULL && eagre_record_header(r, n, &h) == EAGRE_OK)
        n++;
    return n;
}

static void header_head(const eagre_header_t *h, uint8_t to[8]) {
    put32(put32(to, (uint32_t)h->name_len), h->value != NULL ? (uint32_t)h->value_len : NULL_LENGTH);
}

void portable_record(struct out *o, const eagre_record_t *r) {
    uint8_t head[PORTABLE_HEAD], fixed[PORTABLE_FIXED], lengths[8];
    eagre_header_t h;
    size_t n = record_headers(r);
    uint32_t klen = r->key != NULL ? r->key_len : 0, vlen = r->value != NULL ? r->value_len : 0;
    uint8_t *to = put64(put64(put32(fixed, (uint32_t)r->partition), r->offset), r->timestamp_ns);
    to = put32(put32(to, r->key != NULL ? klen : NULL_LENGTH), r->value != NULL ? vlen : NULL_LENGTH);
    put32(to, (uint32_t)n);
    uint32_t length = PORTABLE_FIXED + klen + vlen;
    uint32_t crc = eg_crc32c(0, fixed, sizeof(fixed));
    crc = eg_crc32c(eg_crc32c(crc, r->key, klen), r->value, vlen);
    for (size_t i = 0; i < n && eagre_record_header(r, i, &h) == EAGRE_OK; i++) {
        size_t bytes = h.value != NULL ? h.value_len : 0;
        header_head(&h, lengths);
        crc = eg_crc32c(eg_crc32c(eg_crc32c(crc, lengths, sizeof(lengths)), h.name, h.name_len), h.value, bytes);
        length += (uint32_t)(sizeof(lengths) + h.name_len + bytes);
    }
    put32(put32(head, length), crc);
    out_bytes(o, head, sizeof(head));
    out_bytes(o, fixed, sizeof(fixed));
    out_bytes(o, r->key, klen);
    out_bytes(o, r->value, vlen);
    for (size_t i = 0; i < n && eagre_record_header(r, i, &h) == EAGRE_OK; i++) {
        header_head(&h, lengths);
        out_bytes(o, lengths, sizeof(lengths));
        out_bytes(o, h.name, h.name_len);
        out_bytes(o, h.value, h.value != NULL ? h.value_len : 0);
    }
}

void portable_end(struct out *o, uint64_t records) {
    uint8_t end[PORTABLE_HEAD + 8];
    put64(end + PORTABLE_HEAD, (int64_t)records);
    put32(put32(end, 0), eg_crc32c(0, end + PORTABLE_HEAD, 8));
    out_bytes(o, end, sizeof(end));
}

void record_message(const eagre_record_t *r, eagre_message_t *m, eagre_header_t *headers, size_t n) {
    *m = (eagre_message_t){.key = r->key,
                           .key_len = r->key_len,
                           .value = r->value,
                           .value_len = r->value_len,
                           .timestamp_ns = r->timestamp_ns,
                           .partition = r->partition};
    for (size_t i = 0; i < n; i++)
        (void)eagre_record_header(r, i, &headers[i]);
}

/* [*at, length) begins with so many bytes: step over them. */
static bool skip(size_t *at, size_t length, uint32_t bytes) {
    if (bytes == NULL_LENGTH)
        return true;
    if (bytes > length - *at)
        return false;
    *at += bytes;
    return true;
}

bool portable_count(const uint8_t *body, size_t length, size_t *headers) {
    size_t at = PORTABLE_FIXED;
    if (length < PORTABLE_FIXED || get32(body) > INT32_MAX || !skip(&at, length, get32(body + 20)) ||
        !skip(&at, length, get32(body + 24)))
        return false;
    uint32_t n = get32(body + 28);
    for (uint32_t i = 0; i < n; i++) {
        if (length - at < 8)
            return false;
        uint32_t name = get32(body + at), value = get32(body + at + 4);
        at += 8;
        if (name == NULL_LENGTH || !skip(&at, length, name) || !skip(&at, length, value))
            return false;
    }
    *headers = n;
    return at == length;
}

static const uint8_t *take(const uint8_t *from, uint32_t bytes, const void **data, size_t *len) {
    *data = bytes != NULL_LENGTH ? from : NULL;
    *len = bytes != NULL_LENGTH ? bytes : 0;
    return from + *len;
}

void portable_message(const uint8_t *body, eagre_message_t *m, eagre_header_t *headers) {
    const uint8_t *at = body + PORTABLE_FIXED;
    *m = (eagre_message_t){.partition = (int32_t)get32(body)};
    memcpy(&m->timestamp_ns, body + 12, sizeof(m->timestamp_ns));
    at = take(at, get32(body + 20), &m->key, &m->key_len);
    at = take(at, get32(body + 24), &m->value, &m->value_len);
    uint32_t n = get32(body + 28);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t name = get32(at), value = get32(at + 4);
        const void *text;
        at = take(at + 8, name, &text, &headers[i].name_len);
        headers[i].name = text;
        at = take(at, value, &headers[i].value, &headers[i].value_len);
    }
}
