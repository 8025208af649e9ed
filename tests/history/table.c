#include "history/table.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 4096u

static void *must(void *p) {
    if (p == NULL)
        abort();
    return p;
}

void history_table_init(struct history_table *t) {
    *t = (struct history_table){.slot_count = 1 << 12};
    t->slots = must(calloc(t->slot_count, sizeof(*t->slots)));
}

void history_table_free(struct history_table *t) {
    for (size_t i = 0; i < t->cell_count; i += BLOCK)
        free(t->blocks[i / BLOCK]);
    free(t->blocks);
    free(t->slots);
    free(t->sums);
    free(t->marks.list);
}

struct history_cell *history_cell_number(const struct history_table *t, size_t i) {
    return &t->blocks[i / BLOCK][i % BLOCK];
}

static size_t slot_of(const struct history_table *t, uint32_t topic, int32_t partition,
                      int64_t offset) {
    uint64_t h = ((uint64_t)topic << 32 | (uint32_t)partition) * 0x9fb21c651e98df25ull;
    h = (h ^ (uint64_t)offset) * 0x9e3779b97f4a7c15ull;
    return (h >> 20) & (t->slot_count - 1);
}

static void grow_slots(struct history_table *t) {
    free(t->slots);
    t->slot_count *= 2;
    t->slots = must(calloc(t->slot_count, sizeof(*t->slots)));
    for (size_t i = 0; i < t->cell_count; i++) {
        const struct history_cell *c = history_cell_number(t, i);
        size_t at = slot_of(t, c->topic, c->partition, c->offset);
        while (t->slots[at] != 0)
            at = (at + 1) & (t->slot_count - 1);
        t->slots[at] = (uint32_t)i + 1;
    }
}

struct history_cell *history_cell(struct history_table *t, uint32_t topic, int32_t partition,
                                  int64_t offset) {
    size_t at = slot_of(t, topic, partition, offset);
    for (; t->slots[at] != 0; at = (at + 1) & (t->slot_count - 1)) {
        struct history_cell *c = history_cell_number(t, t->slots[at] - 1);
        if (c->offset == offset && c->partition == partition && c->topic == topic)
            return c;
    }
    if (t->cell_count % BLOCK == 0) {
        t->blocks = must(realloc(t->blocks, (t->cell_count / BLOCK + 1) * sizeof(*t->blocks)));
        t->blocks[t->cell_count / BLOCK] = must(calloc(BLOCK, sizeof(**t->blocks)));
    }
    struct history_cell *c = history_cell_number(t, t->cell_count++);
    *c = (struct history_cell){.topic = topic, .partition = partition, .offset = offset};
    t->slots[at] = (uint32_t)t->cell_count;
    if (t->cell_count * 2 > t->slot_count)
        grow_slots(t);
    return c;
}

struct history_sum *history_sum(struct history_table *t, uint32_t topic, int32_t partition) {
    for (size_t i = 0; i < t->sum_count; i++)
        if (t->sums[i].topic == topic && t->sums[i].partition == partition)
            return &t->sums[i];
    t->sums = must(realloc(t->sums, (t->sum_count + 1) * sizeof(*t->sums)));
    t->sums[t->sum_count] = (struct history_sum){
        .topic = topic, .partition = partition, .last_acked = -1, .last_placed = -1};
    return &t->sums[t->sum_count++];
}

void history_mark_add(struct history_table *t, uint32_t consumer, const struct history_seen *s) {
    struct history_marks *m = &t->marks;
    if (m->count == m->room) {
        m->room = m->room * 2 + 64;
        m->list = must(realloc(m->list, m->room * sizeof(*m->list)));
    }
    m->list[m->count++] =
        (struct history_mark){s->topic,     s->partition, consumer, s->offset, (int64_t)s->sequence,
                              s->before_ns, s->after_ns};
    struct history_sum *sum = history_sum(t, s->topic, s->partition);
    if (s->offset > sum->log_start)
        sum->log_start = s->offset;
}

int history_mark_side(const struct history_mark *a, const struct history_mark *b) {
    if (a->topic != b->topic)
        return a->topic < b->topic ? -1 : 1;
    return a->partition < b->partition ? -1 : a->partition > b->partition;
}

static int by_after(const void *a, const void *b) {
    const struct history_mark *x = a, *y = b;
    int side = history_mark_side(x, y);
    return side != 0 ? side : x->after_ns < y->after_ns ? -1 : x->after_ns > y->after_ns;
}

static int by_begin(const void *a, const void *b) {
    const struct history_mark *x = a, *y = b;
    int side = history_mark_side(x, y);
    return side != 0 ? side : x->before_ns < y->before_ns ? -1 : x->before_ns > y->before_ns;
}

void history_marks_sort(struct history_marks *m, struct history_marks *by_before) {
    *by_before = (struct history_marks){.list = must(malloc((m->count + 1) * sizeof(*m->list))),
                                        .count = m->count};
    if (m->count == 0)
        return;
    memcpy(by_before->list, m->list, m->count * sizeof(*m->list));
    qsort(m->list, m->count, sizeof(*m->list), by_after);
    qsort(by_before->list, m->count, sizeof(*m->list), by_begin);
}
