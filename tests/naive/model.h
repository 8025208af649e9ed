/*
 * model.h - the naive log: an array of what each offset holds, and where each segment begins. It knows how
 * long a segment is and when the next one may be entered, and nothing else of the real one.
 */
#ifndef EG_TESTS_NAIVE_MODEL_H
#define EG_TESTS_NAIVE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_RECORDS 65536
#define MODEL_SEGMENTS 4096
#define MODEL_BLOCKED (-1) /* no free segment */
#define MODEL_POLL_MAX 16

struct model_blob {
    uint8_t *data; /* NULL: none */
    uint32_t length;
};

struct model_record {
    enum { MODEL_OPEN, MODEL_RECORD, MODEL_PAD } state;
    uint32_t owner;
    bool first; /* of its claim */
    struct model_blob key, value, headers;
    int64_t timestamp_ns;
};

struct model {
    uint64_t capacity, slots;
    uint64_t first, active; /* segments; first .. first + slots - 1 have a slot */
    bool retiring;          /* first is closed, but its slot is not free yet */
    bool opened;            /* active + 1 is open, active was not moved yet */
    bool sealed;            /* nothing more fits in active */
    uint64_t pos;           /* in active */
    int64_t base[MODEL_SEGMENTS];
    int64_t start, end; /* offsets of the log */
    struct model_record record[MODEL_RECORDS];
};

struct model_reader {
    int64_t offset;
    uint64_t segment; /* if placed */
    bool placed, pinned, keep;
};

void model_init(struct model *m, uint64_t capacity, uint64_t slots);
/* Can it hold one more of anything? */
bool model_is_full(const struct model *m);
/* The first offset of count open records whose place takes length bytes; MODEL_BLOCKED. */
int64_t model_claim(struct model *m, uint64_t length, uint32_t count, uint32_t owner);
bool model_would_rotate(const struct model *m, uint64_t length);
void model_rotate(struct model *m);
void model_pad(struct model *m, int64_t offset, uint32_t count);
/* The owner's open claims become pads. */
void model_repair(struct model *m, uint32_t owner);
/* The oldest segment is closed; retired: its slot is free for another. */
void model_retire(struct model *m, bool retired);

/* False: the reader's offset is not in the log (any more). Else the *n offsets that a poll for max gets. */
bool model_poll(const struct model *m, struct model_reader *r, size_t max, int64_t offsets[],
                size_t *n);

/* What is in the segments that readers can enter. */
void model_count(const struct model *m, uint64_t *records, uint64_t *pads, uint64_t *claimed);

#endif
