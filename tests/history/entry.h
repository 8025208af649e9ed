/* Entries of consumers' logs, for those who write other kinds of them: member.c. */
#ifndef EG_TESTS_HISTORY_ENTRY_H
#define EG_TESTS_HISTORY_ENTRY_H

#include "history/history.h"

/* Returns its number. */
uint64_t history_put(struct history_log *log, enum history_kind kind,
                     const struct history_seen *seen);

/* What is to be told of a record that lies in memory now. */
struct history_seen history_record(uint32_t topic, int32_t partition, int64_t offset,
                                   const void *value, size_t size, const void *key,
                                   size_t key_length);

#endif
