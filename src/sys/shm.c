/*
 * shm.c - see shm.h. Limits and headroom are in memory.c.
 */
#include "sys/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/errbuf.h"

/* Newer than some C libraries. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int status_of(int error) {
    switch (error) {
    case ENOMEM:
    case ENOSPC:
        return EAGRE_E_NO_MEMORY;
    case EMFILE:
    case ENFILE:
    case EFBIG:
        return EAGRE_E_LIMIT;
    case EACCES:
    case EPERM:
        return EAGRE_E_PERMISSION;
    default:
        return EAGRE_E_SYSTEM;
    }
}

/* Which limit of this process it is, where the kernel's text does not say so. */
static const char *hint_of(int error) {
    switch (error) {
    case EMFILE:
        return ": raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE of the unit)";
    case EFBIG: /* or SIGXFSZ, which the daemon ignores */
        return ": raise RLIMIT_FSIZE (ulimit -f, LimitFSIZE of the unit), which counts for memfds, too";
    default:
        return "";
    }
}

int eg_memfd_create(const char *name, size_t size, bool hugetlb, int *fd_out) {
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugetlb ? MFD_HUGETLB : 0);
    if (size == 0 || size > INT64_MAX) {
        return eg_error_set(EAGRE_E_INVALID, "memfd '%s': cannot have %zu bytes", name, size);
    }
    /* Never executable, as hosts with vm.memfd_noexec demand; unknown before Linux 6.3. */
    int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, flags);
    }
    if (fd < 0) {
        return eg_error_set(status_of(errno), "memfd '%s': cannot create it%s: %s%s", name,
                            hugetlb ? " with huge pages" : "", strerror(errno), hint_of(errno));
    }
    const char *what = "set its mode";
    if (fchmod(fd, 0600) != 0) {
        goto fail;
    }
    what = "set its size";
    if (ftruncate(fd, (off_t)size) != 0) {
        goto fail;
    }
    what = "seal it";
    if (fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        goto fail;
    }
    *fd_out = fd;
    return EAGRE_OK;

fail:;
    int error = errno;
    (void)close(fd);
    if (error == EINVAL && hugetlb) {
        return eg_error_set(EAGRE_E_INVALID,
                            "memfd '%s': %zu bytes is no multiple of the huge page size", name,
                            size);
    }
    return eg_error_set(status_of(error), "memfd '%s' of %zu bytes: cannot %s: %s%s", name, size,
                        what, strerror(error), hint_of(error));
}

int eg_memfd_check(int fd, size_t *size_out) {
    struct stat st;
    /* Only memfds can have these: other files have no seals, or F_SEAL_SEAL alone. */
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) {
        return eg_error_set(errno == EINVAL ? EAGRE_E_PROTOCOL : EAGRE_E_SYSTEM,
                            "descriptor %d is no memfd: %s", fd, strerror(errno));
    }
    if ((seals & SEALS) != SEALS) {
        return eg_error_set(EAGRE_E_PROTOCOL,
                            "descriptor %d: a memfd not sealed against resizing (seals 0x%x)", fd,
                            (unsigned)seals);
    }
    if (fstat(fd, &st) != 0) {
        return eg_error_set(EAGRE_E_SYSTEM, "descriptor %d: fstat: %s", fd, strerror(errno));
    }
    if (st.st_size <= 0) {
        return eg_error_set(EAGRE_E_PROTOCOL, "descriptor %d: an empty memfd", fd);
    }
    *size_out = (size_t)st.st_size;
    return EAGRE_OK;
}

int eg_memfd_readonly(int fd, int *fd_out) {
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int copy = open(path, O_RDONLY | O_CLOEXEC);
    if (copy < 0) {
        return eg_error_set(status_of(errno), "%s: cannot open it for reading: %s%s", path,
                            strerror(errno), errno == ENOENT ? " (is /proc mounted?)" : "");
    }
    *fd_out = copy;
    return EAGRE_OK;
}

/* The first number in a file of /proc, or 0. Without stdio, which may find no memory here. */
static unsigned long number_in(const char *path) {
    char text[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    return strtoul(text, NULL, 10);
}

/* mmap's ENOMEM has several reasons; which one it is, the figures tell. */
__attribute__((cold)) static int map_error(int error, int fd, size_t len, bool writable) {
    char limit[32] = "unlimited";
    struct rlimit as;
    if (error != ENOMEM) {
        return eg_error_set(status_of(error), "cannot map %zu bytes of descriptor %d for %s: %s",
                            len, fd, writable ? "writing" : "reading", strerror(error));
    }
    if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY) {
        (void)snprintf(limit, sizeof limit, "%" PRIu64, (uint64_t)as.rlim_cur);
    }
    return eg_error_set(EAGRE_E_NO_MEMORY,
                        "cannot map %zu bytes: %s; address space in use %" PRIu64
                        " bytes, its limit (ulimit -v) %s, vm.max_map_count %lu",
                        len, strerror(error),
                        (uint64_t)number_in("/proc/self/statm") * (uint64_t)sysconf(_SC_PAGESIZE),
                        limit, number_in("/proc/sys/vm/max_map_count"));
}

int eg_map(int fd, size_t offset, size_t len, bool writable, void **out) {
    if (offset > INT64_MAX) {
        return eg_error_set(EAGRE_E_INVALID, "cannot map from offset %zu", offset);
    }
    void *addr =
        mmap(NULL, len, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, (off_t)offset);
    if (addr == MAP_FAILED) {
        return map_error(errno, fd, len, writable);
    }
    *out = addr;
    return EAGRE_OK;
}

void eg_unmap(void *addr, size_t len) {
    if (addr != NULL) {
        (void)munmap(addr, len);
    }
}

int eg_shm_allocate(int fd, size_t offset, size_t len) {
    /* In steps, since a signal makes the kernel undo the present one: with one step of many
     * milliseconds, a process with an interval timer would never come to the end of it. */
    const size_t step_max = (size_t)2 << 20;
    if (len == 0 || offset > INT64_MAX || len > INT64_MAX - offset) {
        return eg_error_set(EAGRE_E_INVALID, "cannot allocate %zu bytes at %zu", len, offset);
    }
    int status = eg_memory_check((uint64_t)len + EG_HEADROOM_RESERVE);
    if (status != EAGRE_OK) {
        return eg_error_add(status, "cannot allocate %zu bytes of shared memory", len);
    }
    for (size_t done = 0; done < len;) {
        const size_t step = len - done < step_max ? len - done : step_max;
        if (fallocate(fd, 0, (off_t)(offset + done), (off_t)step) == 0) {
            done += step;
        } else if (errno != EINTR) {
            return eg_error_set(status_of(errno),
                                "cannot allocate %zu bytes of shared memory at %zu: %s", len,
                                offset, strerror(errno));
        }
    }
    return EAGRE_OK;
}

void eg_populate(void *addr, size_t len, bool write) {
    while (madvise(addr, len, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) != 0 &&
           errno == EINTR) {}
}

void eg_advise_huge(void *addr, size_t len) { (void)madvise(addr, len, MADV_HUGEPAGE); }
