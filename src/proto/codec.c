#include "proto/codec.h"

#include <endian.h>
#include <string.h>

#include "sys/errbuf.h"

/* ---- writing ------------------------------------------------------------------------------------ */

static void put(struct eg_enc *e, const void *bytes, size_t n) {
    if (e->overflow || n > e->cap - e->used) {
        e->overflow = true;
        return;
    }
    memcpy(e->data + e->used, bytes, n);
    e->used += n;
}

void eg_enc_begin(struct eg_enc *e, void *buf, size_t cap, uint16_t type, uint32_t id,
                  int32_t status) {
    *e = (struct eg_enc){.data = buf, .cap = cap};
    eg_enc_u32(e, EG_MSG_MAGIC);
    eg_enc_u16(e, EG_PROTO_VERSION);
    eg_enc_u16(e, type);
    eg_enc_u32(e, id);
    eg_enc_u32(e, (uint32_t)status);
}

void eg_enc_u8(struct eg_enc *e, uint8_t v) { put(e, &v, sizeof(v)); }

void eg_enc_u16(struct eg_enc *e, uint16_t v) {
    v = htole16(v);
    put(e, &v, sizeof(v));
}

void eg_enc_u32(struct eg_enc *e, uint32_t v) {
    v = htole32(v);
    put(e, &v, sizeof(v));
}

void eg_enc_u64(struct eg_enc *e, uint64_t v) {
    v = htole64(v);
    put(e, &v, sizeof(v));
}

void eg_enc_i64(struct eg_enc *e, int64_t v) { eg_enc_u64(e, (uint64_t)v); }

void eg_enc_str(struct eg_enc *e, const char *s) {
    size_t n = strnlen(s, UINT16_MAX);
    eg_enc_u16(e, (uint16_t)n);
    put(e, s, n);
}

void eg_enc_patch_u16(struct eg_enc *e, size_t at, uint16_t v) {
    if (at > e->used || e->used - at < sizeof(v)) {
        e->overflow = true;
        return;
    }
    v = htole16(v);
    memcpy(e->data + at, &v, sizeof(v));
}

void eg_enc_patch_u8(struct eg_enc *e, size_t at, uint8_t v) {
    if (at >= e->used) {
        e->overflow = true;
        return;
    }
    e->data[at] = v;
}

/* ---- reading ------------------------------------------------------------------------------------ */

static void get(struct eg_dec *d, void *out, size_t n) {
    if (d->bad || n > d->left) {
        d->bad = true;
        memset(out, 0, n);
        return;
    }
    memcpy(out, d->data, n);
    d->data += n;
    d->left -= n;
}

int eg_dec_begin(struct eg_dec *d, const void *msg, size_t n, struct eg_msg_header *header_out) {
    if (n < sizeof(struct eg_msg_header))
        return eg_error_set(EAGRE_E_PROTOCOL, "a message of %zu bytes is shorter than its header",
                            n);
    if (n > EG_MSG_MAX)
        return eg_error_set(EAGRE_E_PROTOCOL, "a message of %zu bytes is longer than %u", n,
                            EG_MSG_MAX);
    struct eg_dec in = {.data = msg, .left = n};
    struct eg_msg_header h;
    h.magic = eg_dec_u32(&in);
    h.version = eg_dec_u16(&in);
    h.type = eg_dec_u16(&in);
    h.id = eg_dec_u32(&in);
    h.status = (int32_t)eg_dec_u32(&in);
    if (h.magic != EG_MSG_MAGIC)
        return eg_error_set(EAGRE_E_PROTOCOL, "not a message of Eagre (magic %08x)", h.magic);
    if (h.version != EG_PROTO_VERSION)
        return eg_error_set(
            EAGRE_E_VERSION,
            "the other side speaks version %u of the control protocol, this one %u: "
            "use the same version of Eagre on both sides",
            h.version, EG_PROTO_VERSION);
    *d = in;
    *header_out = h;
    return EAGRE_OK;
}

uint8_t eg_dec_u8(struct eg_dec *d) {
    uint8_t v;
    get(d, &v, sizeof(v));
    return v;
}

uint16_t eg_dec_u16(struct eg_dec *d) {
    uint16_t v;
    get(d, &v, sizeof(v));
    return le16toh(v);
}

uint32_t eg_dec_u32(struct eg_dec *d) {
    uint32_t v;
    get(d, &v, sizeof(v));
    return le32toh(v);
}

uint64_t eg_dec_u64(struct eg_dec *d) {
    uint64_t v;
    get(d, &v, sizeof(v));
    return le64toh(v);
}

int64_t eg_dec_i64(struct eg_dec *d) { return (int64_t)eg_dec_u64(d); }

void eg_dec_str(struct eg_dec *d, char *buf, size_t cap) {
    size_t n = eg_dec_u16(d);
    if (d->bad || n > d->left || n >= cap || memchr(d->data, 0, n) != NULL) {
        d->bad = true;
        buf[0] = '\0';
        return;
    }
    get(d, buf, n);
    buf[n] = '\0';
}

bool eg_dec_end(const struct eg_dec *d) { return !d->bad && d->left == 0; }
