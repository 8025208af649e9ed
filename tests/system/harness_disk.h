/*
 * harness_disk.h - a topic "t" with log files on a bus whose daemon and keeper may both be killed, and a ledger of what
 * was produced to its partition 0: what must be read again afterwards, and what may be missing.
 */
#ifndef EG_TESTS_HARNESS_DISK_H
#define EG_TESTS_HARNESS_DISK_H

#include "harness_client.h"

/* Daemon and keeper, SIGKILL: as if the host had ended, but for its page cache. */
void eg_cold_kill(struct eg_test_bus *b);

/* e, and p with these acks (waits as long as it takes). The topic is made if it is not there: segments of 64 KiB, three
 * in the ring, kept for ever, flushed only when somebody waits; then as settings ("name=value", NULL-terminated) say. */
void eg_disk_open(struct eg_test_bus *b, eagre_acks_t acks, const char *const *settings);
void eg_disk_close(void);

#define EG_LEDGER_MAX 60000

struct eg_ledger {
    size_t count;
    int generation; /* of the memory that it was written to */
    struct eg_ledger_entry {
        int64_t offset;
        int generation;
        bool acked; /* on disk, as we were told; or found after a crash */
        bool lost;  /* not found after a crash */
    } entry[EG_LEDGER_MAX];
};

/* Entry number's value: of many lengths. */
size_t eg_value_make(size_t number, char *to, size_t cap);
/* One record more, by p. acked: p has acks=disk, or a flush follows. */
int eg_ledger_put(struct eg_ledger *l, bool acked);
/* All of it so far is on disk. */
void eg_ledger_flushed(struct eg_ledger *l);
/* Takes records as they come from offset on; each must be the next entry that may be there. */
struct eg_ledger_reader {
    struct eg_ledger *l;
    size_t next;
};
void eg_ledger_see(struct eg_ledger_reader *at, const eagre_record_t *r);
/* After a cold start: read all from the beginning. Everything acked is there, in order, once; of each generation only
 * the end may be missing; and what is missing stays so. */
void eg_ledger_check(struct eg_ledger *l, struct eg_test_bus *b);

/* Log files of t's partition 0; first (may be NULL): seq of the first. */
size_t eg_count_files(const struct eg_test_bus *b, uint64_t *first);
int64_t eg_beginning(void);
int64_t eg_end(void);

#endif
