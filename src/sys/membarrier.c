/*
 * membarrier.c - see membarrier.h.
 */
#include "sys/membarrier.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/atomic.h"

static long membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

static bool forbidden(void) {
    const char *v = getenv("EAGRE_NO_MEMBARRIER");
    return v != NULL && strcmp(v, "1") == 0;
}

bool eg_membarrier_register(void) {
    return !forbidden() && membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
}

bool eg_membarrier_available(void) {
    const long needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    long commands = forbidden() ? -1 : membarrier(MEMBARRIER_CMD_QUERY);
    return commands >= 0 && (commands & needed) == needed;
}

void eg_membarrier(void) {
    /* The command spares the calling CPU its own fence. */
    eg_fence_seq_cst();
    if (membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0) {
        /* Possible only if a filter came after the query: slow, but reaches every thread. */
        (void)membarrier(MEMBARRIER_CMD_GLOBAL);
    }
}
