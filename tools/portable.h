/*
 * portable.h - the file of `eagre export`: records with all that they have, on any machine. All numbers little-endian.
 *
 *   8 bytes "EAGREx1\n"
 *   a record: u32 length and u32 CRC32C of the body that follows: u32 partition, i64 offset, i64 timestamp (ns), u32 key
 *             length, u32 value length (ffffffff: null), u32 number of headers, key, value, and each header: u32 length
 *             of its name, u32 of its value (ffffffff: null), name, value
 *   the end:  u32 0, u32 CRC32C of the u64 number of records that follows
 */
#ifndef EAGRE_TOOLS_PORTABLE_H
#define EAGRE_TOOLS_PORTABLE_H

#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "output.h"

#define PORTABLE_MAGIC "EAGREx1\n"
#define PORTABLE_MAGIC_BYTES 8u
#define PORTABLE_HEAD 8u  /* length and CRC */
#define PORTABLE_FIXED 32u /* of a body */

/* Append to o. header_count: as eagre_record_header says. */
void portable_begin(struct out *o);
void portable_record(struct out *o, const eagre_record_t *r);
void portable_end(struct out *o, uint64_t records);

/* How many headers a record has. */
size_t record_headers(const eagre_record_t *r);
/* As a message to the same partition; its n headers go to `headers`. It points to what r points to. */
void record_message(const eagre_record_t *r, eagre_message_t *m, eagre_header_t *headers, size_t n);

/* A record's body, whose CRC is right: *headers of them; false: its lengths contradict each other. */
bool portable_count(const uint8_t *body, size_t length, size_t *headers);
/* After that: the message; room for its headers at `headers`. */
void portable_message(const uint8_t *body, eagre_message_t *m, eagre_header_t *headers);

#endif
