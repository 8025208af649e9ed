/*
 * fork_guard.c - see fork_guard.h.
 *
 * The word lies in a page of its own that the kernel hands to fork children zeroed
 * (MADV_WIPEONFORK), also to those that clone() makes behind libc's back; a pthread_atfork handler
 * is the remedy where the advice is unknown. A child's first call finds 0 in the inherited page and
 * makes a new one; the old page stays, since handles point to it.
 */
#include "sys/fork_guard.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/atomic.h"

/* The guard of this process. Written by whoever takes the first guard here (CAS, release: the word
 * reads 1 before the pointer is seen), read by all callers (acquire). */
static uint32_t *_Atomic current;

static void clear_in_child(void) {
    uint32_t *guard = eg_load_relaxed(&current); /* a child has one thread */
    if (guard != NULL) {
        *guard = 0;
    }
}

static void install_handler(void) { (void)pthread_atfork(NULL, NULL, clear_in_child); }

static uint32_t *make_guard(size_t page) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint32_t *guard = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guard == MAP_FAILED) {
        return NULL;
    }
    if (madvise(guard, page, MADV_WIPEONFORK) != 0) {
        (void)pthread_once(&once, install_handler);
    }
    *guard = 1;
    return guard;
}

const uint32_t *eg_fork_guard(void) {
    /* Without a page of memory every handle counts as forked: refused, but nothing breaks. */
    static const uint32_t none = 0;

    uint32_t *seen = eg_load_acquire(&current);
    if (seen != NULL && *seen == 1) {
        return seen;
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *mine = make_guard(page);
    if (mine == NULL) {
        return &none;
    }
    if (eg_cas_acq_rel(&current, &seen, mine)) {
        return mine;
    }
    (void)munmap(mine, page); /* another thread was first: seen is its guard */
    return seen;
}
