/* All acknowledged records, by partition and offset. */
#ifndef EG_TESTS_HISTORY_ACKED_H
#define EG_TESTS_HISTORY_ACKED_H

#include "history/table.h"

struct history_acked {
    const struct history_cell **list; /* free() it */
    size_t count;
};

struct history_acked history_acked_all(const struct history_table *t);
/* The first one of the partition from this offset on, or the first one behind them. */
size_t history_acked_first(const struct history_acked *a, uint32_t topic, int32_t partition,
                           int64_t from);
/* Is there an i-th one, of this partition and below this offset? */
bool history_acked_is(const struct history_acked *a, size_t i, uint32_t topic, int32_t partition,
                      int64_t below);

#endif
