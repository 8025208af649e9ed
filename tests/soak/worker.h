/* worker.h - one cycle of the soak: a client that comes, does something and goes, one way or another. */
#ifndef EG_TESTS_SOAK_WORKER_H
#define EG_TESTS_SOAK_WORKER_H

#include <stdint.h>

/* The topics that are there all the time; each slot has one more, "x-SLOT", now and then. */
#define SOAK_TOPIC "many"
#define SOAK_SINGLE "single"

#define SOAK_FAILED 99 /* exit status: a call failed that should not; told on stderr */

/* Be client number `seed` of this slot. It ends by itself or by SIGKILL, within a second or two. */
void soak_worker(const char *socket, unsigned slot, uint64_t seed) __attribute__((noreturn));

#endif
