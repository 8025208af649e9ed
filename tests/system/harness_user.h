/* harness_user.h - the rest of a test as another Unix user, in a child. Only root can. */
#ifndef EG_TESTS_HARNESS_USER_H
#define EG_TESTS_HARNESS_USER_H

#include <sys/types.h>

#include "harness.h"

#define EG_USER_A ((uid_t)65534)
#define EG_USER_B ((uid_t)65533)

/* Let other users come to the socket (its mode is the daemon's: --socket.mode). */
void eg_bus_open_to_all(const struct eg_test_bus *b);

/*
 * Fork; the child has no descriptors but 0, 1, 2 and, if in and out are not -1, these as 3 and 4. It becomes
 * the user, without groups and capabilities, and exits with what f returns; a failed assertion aborts it.
 */
pid_t eg_start_as_user(uid_t uid, int (*f)(void *ctx), void *ctx, int in, int out);
/* The same, to its end: what f returned, or 128 + signal. */
int eg_as_user_status(uid_t uid, int (*f)(void *ctx), void *ctx);
/* f must return 0. */
void eg_as_user(uid_t uid, int (*f)(void *ctx), void *ctx);

#endif
