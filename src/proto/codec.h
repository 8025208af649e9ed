/*
 * codec.h - write and read message bodies. Both sides carry a sticky error, so that a run of
 * fields is checked once at its end: a writer that overflows, a reader that would read past the
 * end (it then yields zeros and empty strings).
 */
#ifndef EG_PROTO_CODEC_H
#define EG_PROTO_CODEC_H

#include "proto/messages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eg_enc {
    uint8_t *data; /* begins with the message header */
    size_t cap;
    size_t used;
    bool overflow;
};

/* Start a message in buf (cap bytes, at least a header). */
void eg_enc_begin(struct eg_enc *e, void *buf, size_t cap, uint16_t type, uint32_t id,
                  int32_t status);
void eg_enc_u8(struct eg_enc *e, uint8_t v);
void eg_enc_u16(struct eg_enc *e, uint16_t v);
void eg_enc_u32(struct eg_enc *e, uint32_t v);
void eg_enc_u64(struct eg_enc *e, uint64_t v);
void eg_enc_i64(struct eg_enc *e, int64_t v);
void eg_enc_str(struct eg_enc *e, const char *s); /* cut at 65,535 bytes */
/* Overwrite a u16 written before at this `used` (for counts known afterwards). */
void eg_enc_patch_u16(struct eg_enc *e, size_t at, uint16_t v);
void eg_enc_patch_u8(struct eg_enc *e, size_t at, uint8_t v);

struct eg_dec {
    const uint8_t *data;
    size_t left;
    bool bad;
};

/* Check a received message's header; 0 or EAGRE_E_PROTOCOL / EAGRE_E_VERSION with a detail. */
int eg_dec_begin(struct eg_dec *d, const void *msg, size_t n, struct eg_msg_header *header_out);
uint8_t eg_dec_u8(struct eg_dec *d);
uint16_t eg_dec_u16(struct eg_dec *d);
uint32_t eg_dec_u32(struct eg_dec *d);
uint64_t eg_dec_u64(struct eg_dec *d);
int64_t eg_dec_i64(struct eg_dec *d);
/* Copy a string with its NUL to buf; longer than cap - 1, or with a NUL inside: bad. */
void eg_dec_str(struct eg_dec *d, char *buf, size_t cap);
/* True if all was there and nothing is left. */
bool eg_dec_end(const struct eg_dec *d);

#endif
