#include "naive/model.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096 /* a segment's header */

void model_init(struct model *m, uint64_t capacity, uint64_t slots) {
    m->capacity = capacity;
    m->slots = slots;
    m->pos = PAGE;
}

bool model_is_full(const struct model *m) {
    return m->end >= MODEL_RECORDS - 64 || m->active >= MODEL_SEGMENTS - 2;
}

bool model_would_rotate(const struct model *m, uint64_t length) {
    return m->sealed || length > m->capacity - m->pos;
}

void model_rotate(struct model *m) {
    m->active++;
    m->base[m->active] = m->end;
    m->pos = PAGE;
    m->sealed = m->opened = false;
}

int64_t model_claim(struct model *m, uint64_t length, uint32_t count, uint32_t owner) {
    if (model_would_rotate(m, length)) {
        m->sealed = true;
        if (m->active + 1 >= m->first + m->slots)
            return MODEL_BLOCKED;
        model_rotate(m);
    }
    int64_t offset = m->end;
    for (uint32_t i = 0; i < count; i++)
        m->record[m->end++] =
            (struct model_record){.state = MODEL_OPEN, .owner = owner, .first = i == 0};
    m->pos += length;
    m->sealed = m->pos == m->capacity;
    return offset;
}

void model_pad(struct model *m, int64_t offset, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        m->record[offset + i].state = MODEL_PAD;
}

void model_repair(struct model *m, uint32_t owner) {
    for (int64_t i = 0; i < m->end; i++)
        if (m->record[i].state == MODEL_OPEN && m->record[i].owner == owner)
            m->record[i].state = MODEL_PAD;
}

void model_retire(struct model *m, bool retired) {
    m->start = m->base[m->first + 1];
    m->first += retired;
    m->retiring = !retired;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static uint64_t oldest(const struct model *m) { return m->first + m->retiring; }

static bool is_open(const struct model *m, uint64_t segment) {
    return segment >= oldest(m) && segment <= m->active + m->opened;
}

static bool find(const struct model *m, struct model_reader *r) {
    r->placed = r->pinned = false;
    if (r->offset > m->end)
        return false;
    for (uint64_t s = m->active + 1; s-- > oldest(m);)
        if (m->base[s] <= r->offset) {
            r->segment = s;
            r->placed = r->pinned = true;
            return true;
        }
    return false;
}

bool model_poll(const struct model *m, struct model_reader *r, size_t max, int64_t offsets[],
                size_t *n) {
    *n = 0;
    if ((!r->placed || (!r->pinned && !is_open(m, r->segment))) && !find(m, r))
        return false;
    r->pinned = true;
    for (;;) {
        int64_t end = r->segment < m->active ? m->base[r->segment + 1] : m->end;
        for (; *n < max && r->offset < end && m->record[r->offset].state != MODEL_OPEN; r->offset++)
            if (m->record[r->offset].state == MODEL_RECORD)
                offsets[(*n)++] = r->offset;
        bool over = r->segment < m->active || (r->segment == m->active && m->sealed);
        if (*n > 0 || r->offset < end || !over || r->segment + 1 > m->active + m->opened)
            break;
        if (is_open(m, r->segment + 1))
            r->segment++;
        else if (!find(m, r))
            return false;
    }
    if (*n == 0 && !r->keep)
        r->pinned = false;
    return true;
}

void model_count(const struct model *m, uint64_t *records, uint64_t *pads, uint64_t *claimed) {
    *records = *pads = *claimed = 0;
    for (int64_t i = oldest(m) <= m->active ? m->base[oldest(m)] : m->end; i < m->end; i++) {
        const struct model_record *r = &m->record[i];
        *records += r->state == MODEL_RECORD;
        *pads += r->state == MODEL_PAD && r->first;
        *claimed += r->state == MODEL_OPEN && r->first;
    }
}
