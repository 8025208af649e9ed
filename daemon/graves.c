#include "graves.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

#define SLICE ((size_t)256 << 10) /* unmapped and freed at a time */
#define TICK_NS (200 * EG_NS_PER_US)

struct eg_grave {
    struct eg_grave *next;
    uint8_t *base;
    size_t size, at; /* below at it is given back */
    int fd;
    bool empty;
    char kept[EG_KEEP_NAME_MAX + 1];
};

static void give_up_name(struct eg_daemon *d, const char *kept) {
    if (kept[0] != '\0' && eg_keep_drop(d->keep, kept) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
}

void eg_grave_add(struct eg_daemon *d, void *base, size_t size, int fd, const char *kept, bool empty) {
    struct eg_grave *g = calloc(1, sizeof(*g));
    if (g == NULL) { /* then at once */
        give_up_name(d, kept != NULL ? kept : "");
        eg_unmap(base, size);
        close(fd);
        return;
    }
    *g = (struct eg_grave){.next = d->graves, .base = base, .size = size, .fd = fd, .empty = empty};
    if (kept != NULL)
        memcpy(g->kept, kept, strlen(kept) + 1);
    d->graves = g;
}

/* One slice of the first of them. */
static void dig(struct eg_daemon *d) {
    struct eg_grave *g = d->graves;
    if (g->kept[0] != '\0') {
        give_up_name(d, g->kept);
        g->kept[0] = '\0';
        return;
    }
    if (g->at < g->size) {
        size_t n = g->size - g->at < SLICE ? g->size - g->at : SLICE;
        /* Huge pages refuse smaller pieces, and are freed fast. */
        if (munmap(g->base + g->at, n) != 0) {
            n = g->size - g->at;
            eg_unmap(g->base + g->at, n);
        }
        if (g->empty && fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)g->at,
                                  (off_t)n) != 0)
            g->empty = false;
        g->at += n;
        return;
    }
    close(g->fd);
    d->graves = g->next;
    free(g);
}

bool eg_graves_finish(struct eg_daemon *d, int64_t limit_ns) {
    bool any = d->graves != NULL;
    int64_t begin = eg_mono_ns();
    while (d->graves != NULL && eg_mono_ns() - begin < limit_ns)
        dig(d);
    return any;
}

static int64_t tick(struct eg_daemon *d, int64_t now) {
    while (d->graves != NULL) {
        dig(d);
        if (eg_mono_ns() - now >= TICK_NS)
            break;
    }
    return d->graves != NULL ? 0 : INT64_MAX;
}

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    eg_graves_finish(d, INT64_MAX);
}

const struct eg_service eg_graves_service = {.name = "graves", .tick = tick, .stop = stop};
