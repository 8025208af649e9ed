/*
 * rand.c - see rand.h.
 */
#include "sys/rand.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "sys/errbuf.h"

int eg_random_bytes(void *buf, size_t n) {
    for (unsigned char *p = buf; n > 0;) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return eg_error_set(EAGRE_E_SYSTEM, "getrandom: %s", strerror(errno));
        }
        p += got;
        n -= (size_t)got;
    }
    return EAGRE_OK;
}
