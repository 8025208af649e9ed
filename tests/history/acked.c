#include "history/acked.h"

#include <stdlib.h>

static int compare(const struct history_cell *x, uint32_t topic, int32_t partition,
                   int64_t offset) {
    if (x->topic != topic)
        return x->topic < topic ? -1 : 1;
    if (x->partition != partition)
        return x->partition < partition ? -1 : 1;
    return x->offset < offset ? -1 : x->offset > offset;
}

static int compare_cells(const void *a, const void *b) {
    const struct history_cell *y = *(const struct history_cell *const *)b;
    return compare(*(const struct history_cell *const *)a, y->topic, y->partition, y->offset);
}

struct history_acked history_acked_all(const struct history_table *t) {
    struct history_acked a = {malloc((t->cell_count + 1) * sizeof(*a.list)), 0};
    if (a.list == NULL)
        abort();
    for (size_t i = 0; i < t->cell_count; i++) {
        const struct history_cell *c = history_cell_number(t, i);
        if (c->flags & HISTORY_CELL_ACKED)
            a.list[a.count++] = c;
    }
    qsort(a.list, a.count, sizeof(*a.list), compare_cells);
    return a;
}

size_t history_acked_first(const struct history_acked *a, uint32_t topic, int32_t partition,
                           int64_t from) {
    size_t low = 0, high = a->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(a->list[middle], topic, partition, from) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool history_acked_is(const struct history_acked *a, size_t i, uint32_t topic, int32_t partition,
                      int64_t below) {
    return i < a->count && a->list[i]->topic == topic && a->list[i]->partition == partition &&
           a->list[i]->offset < below;
}
