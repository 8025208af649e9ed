/*
 * sigbus.c - memory that clients can write to may be gone when the daemon looks at it: who may write to a memfd
 * may also punch holes into it, and a hole is filled again only as long as there is memory (or a huge page) for
 * it. Then the kernel sends SIGBUS. The daemon puts memory of its own in the hole's place, which reads as zeros:
 * what it finds there makes no sense, and the partition is given up. Any other SIGBUS ends the daemon as usual.
 */
#include "sigbus.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "partition.h"
#include "sys/errbuf.h"

static struct eg_daemon *whose;

/* Of the objects that clients can write to. Not the status, the bus page, the client table or a file. */
static bool clients_can_write(const char *path) {
    unsigned n;
    const char *name = strstr(path, "/memfd:eagre");
    if (name == NULL)
        return false;
    name += strlen("/memfd:eagre");
    return strncmp(name, "-bells", 6) == 0 || sscanf(name, ":p%u.b", &n) == 1 || sscanf(name, ":c%u", &n) == 1 ||
           (sscanf(name, ":t%u.", &n) == 1 && (strstr(name, ".ring") != NULL || strstr(name, ".waiters") != NULL));
}

/* A file, line by line, without stdio, which allocates. */
struct lines {
    int fd;
    size_t at, end;
    char data[4096];
};

/* The next line, cut to size. False: there is none. */
static bool next_line(struct lines *l, char *line, size_t cap) {
    for (size_t n = 0;;) {
        if (l->at == l->end) {
            ssize_t got = read(l->fd, l->data, sizeof(l->data));
            if (got <= 0)
                return false;
            l->at = 0;
            l->end = (size_t)got;
        }
        char c = l->data[l->at++];
        if (c != '\n' && n < cap - 1)
            line[n++] = c;
        line[n] = '\0';
        if (c == '\n')
            return true;
    }
}

/* The mapping around the address, if it is one of those. */
static bool find_mapping(uintptr_t at, uintptr_t *from, uintptr_t *to) {
    char line[512] = "";
    bool found = false;
    struct lines maps = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    while (!found && next_line(&maps, line, sizeof(line)))
        found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR, from, to) == 2 && *from <= at && at < *to;
    if (maps.fd >= 0)
        close(maps.fd);
    return found && clients_can_write(line);
}

static bool replace(uintptr_t at, size_t bytes) {
    /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
    return mmap((void *)at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

static bool lies_in(const void *base, size_t bytes, uintptr_t at) {
    return base != NULL && at - (uintptr_t)base < bytes;
}

/* Whose it is, if it is one that is there already. */
static void fail_partition(uintptr_t at) {
    for (size_t i = 0; whose->topics != NULL && i < whose->topics->count; i++) {
        struct eg_topic *t = whose->topics->list[i];
        for (uint32_t k = 0; k < t->partitions; k++) {
            struct eg_partition *p = t->part[k];
            bool hit = lies_in(p->ring, t->ring_stride, at);
            for (uint32_t n = 0; !hit && p->buffers != NULL && n < EG_BUFFERS_MAX; n++)
                hit = lies_in(p->buffers[n].base, eg_partition_capacity(p), at);
            if (hit)
                eg_partition_fail(p, "a part of its memory is gone");
        }
    }
}

/* The fault is the daemon's own load or store at `at`, never one within the C library: so this may use it. */
static void mend(int signal_number, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr, from, to;
    int e = errno;
    (void)context;
    if (!find_mapping(at, &from, &to) ||
        (!replace(at & ~(uintptr_t)(EG_PAGE - 1), EG_PAGE) && !replace(from, to - from))) {
        signal(signal_number, SIG_DFL); /* the load or store is done again, and ends us */
        return;
    }
    eg_log_error("a client took memory away that it shares with eagred");
    fail_partition(at);
    errno = e;
}

int eg_sigbus_mend(struct eg_daemon *d) {
    struct sigaction sa = {.sa_sigaction = mend, .sa_flags = SA_SIGINFO | SA_NODEFER};
    whose = d;
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGBUS, &sa, NULL) != 0)
        return eg_error_set(EAGRE_E_SYSTEM, "sigaction: %s", strerror(errno));
    return EAGRE_OK;
}
