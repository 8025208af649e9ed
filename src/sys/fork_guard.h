/*
 * fork_guard.h - has this handle come through a fork? One load tells.
 *
 * Take the pointer when a handle is opened, keep it in the handle, and test it in each call: it
 * reads 1 in the process that took it and 0 in every fork child. A child that opens handles of its
 * own calls eg_fork_guard() again and gets another word, so do not call it to test.
 */
#ifndef EG_SYS_FORK_GUARD_H
#define EG_SYS_FORK_GUARD_H

#include <stdint.h>

/* Never NULL, valid for the life of the process. Thread-safe. */
const uint32_t *eg_fork_guard(void);

#endif
