/*
 * shm.h - shared memory: sealed memfds, mappings, and memory behind them.
 *
 * All return EAGRE_OK or a negative eagre_status with a detail text; out-parameters stay untouched
 * on failure.
 */
#ifndef EG_SYS_SHM_H
#define EG_SYS_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A new memfd of exactly size bytes, mode 0600, close-on-exec, sealed against shrinking, growing
 * and further seals: nobody who holds it can make an access to a mapping of it fail. No memory is
 * allocated yet. With hugetlb size must be a multiple of the system's huge page size.
 */
int eg_memfd_create(const char *name, size_t size, bool hugetlb, int *fd_out);

/* Check a descriptor that came from elsewhere: a memfd with those seals and a size above 0. */
int eg_memfd_check(int fd, size_t *size_out);

/* The same file opened again for reading only, to hand to others. */
int eg_memfd_readonly(int fd, int *fd_out);

/* Map len bytes from offset (a multiple of the page size), MAP_SHARED, for reading or both. */
int eg_map(int fd, size_t offset, size_t len, bool writable, void **out);
void eg_unmap(void *addr, size_t len);

/*
 * Put memory behind [offset, offset + len) of the file, so that a later store cannot fail.
 * Refuses with EAGRE_E_NO_MEMORY, before asking the kernel, if the host or a memory cgroup of this
 * process has not len + EG_HEADROOM_RESERVE left: there the kernel's answer would not be an error
 * but the OOM killer. A range that is allocated already stays as it is.
 */
#define EG_HEADROOM_RESERVE (UINT64_C(4) << 20)
int eg_shm_allocate(int fd, size_t offset, size_t len);

/* The most memory that this process may ever have: the smallest of RAM and its cgroups' limits. */
int eg_memory_limit(uint64_t *bytes_out);

/* What is left of it now, page cache that can be dropped included. Some 50 us. */
int eg_memory_headroom(uint64_t *bytes_out);

/* EAGRE_E_NO_MEMORY, naming the limit and its figures, if less than wanted is left. */
int eg_memory_check(uint64_t wanted);

/* Fault the pages in (for writing or reading) before they are needed. Best effort. */
void eg_populate(void *addr, size_t len, bool write);

/* Ask for huge pages. Best effort. */
void eg_advise_huge(void *addr, size_t len);

#endif
