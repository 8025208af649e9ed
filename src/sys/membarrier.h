/*
 * membarrier.h - a fence for everybody, paid by the one who needs it.
 *
 * The rare side (the daemon that retires a slot, a consumer that goes to sleep) calls
 * eg_membarrier(): every running thread of every process that has registered executes a full fence
 * before it returns. So the frequent side (a producer) needs only eg_compiler_barrier() between its
 * store and its load. A process that could not register must use eg_fence_seq_cst() there instead;
 * so must everybody on an instance whose daemon finds eg_membarrier_available() false.
 */
#ifndef EG_SYS_MEMBARRIER_H
#define EG_SYS_MEMBARRIER_H

#include <stdbool.h>

/*
 * Register this process as one that eg_membarrier() of any process must reach. False where the
 * kernel lacks it, a seccomp filter forbids it, or EAGRE_NO_MEMBARRIER=1 is in the environment (for
 * tests). Repeating it is harmless; exec drops the registration, fork keeps it.
 */
bool eg_membarrier_register(void);

/* Whether eg_membarrier() is a fence for others here (asks the kernel; the same exceptions). */
bool eg_membarrier_available(void);

/* A full fence for this thread and all threads of registered processes. Some microseconds. */
void eg_membarrier(void);

#endif
