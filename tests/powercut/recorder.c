/*
 * recorder.c - preloaded into the daemon (and into the test): takes down what it does to files: record.h. Only calls
 * that Eagre and LMDB make are known; the test compares what comes out with the directory, and so would notice others.
 */
/* The functions themselves are defined here: no other names for them, no checked forms. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "record.h"

#define FDS 65536

static struct record_log *log_;
static char dir[4096];
static size_t dir_length;
static bool in_test;             /* else: the daemon */
static _Atomic uint8_t fds[FDS]; /* 1: of a recorded file; 2: whose writes are durable at once */

#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (real == NULL)                                                                              \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void record_switch(struct record_log *log, const char *directory);
void record_switch(struct record_log *log, const char *directory) {
    log_ = log;
    in_test = true;
    dir_length = 0;
    if (log == NULL)
        return;
    snprintf(dir, sizeof(dir), "%s", directory);
    dir_length = strlen(dir);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv(RECORD_LOG_ENV), *directory = getenv(RECORD_DIR_ENV);
    if (path == NULL || directory == NULL)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *map = fd >= 0 ? mmap(NULL, RECORD_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                        : MAP_FAILED;
    if (map == MAP_FAILED)
        abort();
    close(fd);
    record_switch(map, directory);
    in_test = false;
}

/* The name below the directory, or NULL. The directory itself is "". */
static const char *ours(const char *path) {
    if (log_ == NULL || strncmp(path, dir, dir_length) != 0)
        return NULL;
    if (path[dir_length] == '\0')
        return path + dir_length;
    return path[dir_length] == '/' ? path + dir_length + 1 : NULL;
}

static int kind(int fd) { return log_ != NULL && fd >= 0 && fd < FDS ? atomic_load(&fds[fd]) : 0; }

/* Around each call that is recorded, and its record. A killer says that none is to begin any more and waits for
 * those that have: record_freeze(). */
static void enter(bool mine) {
    if (!mine)
        return;
    atomic_fetch_add(&log_->busy, 1);
    if (!atomic_load(&log_->frozen))
        return;
    atomic_fetch_sub(&log_->busy, 1);
    for (;;)
        pause();
}

static void leave(bool mine) {
    if (mine)
        atomic_fetch_sub(&log_->busy, 1);
}

static uint64_t inode_of(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void add_name(enum record_op op, const char *name, uint64_t inode) {
    record_add(log_, op, 0, inode, 0, 0, name, strlen(name) + 1);
}

/* ---- descriptors ------------------------------------------------------------------------------------------ */

static int opened(int fd, const char *path, int flags, bool existed) {
    int e = errno;
    const char *name = ours(path);
    if (fd >= 0 && fd < FDS)
        atomic_store(&fds[fd], name == NULL ? 0 : flags & (O_SYNC | O_DSYNC) ? 2 : 1);
    if (fd >= 0 && name != NULL && (flags & O_CREAT) && !existed)
        add_name(RECORD_CREATE, name, inode_of(fd));
    else if (fd >= 0 && name != NULL && (flags & O_TRUNC))
        record_add(log_, RECORD_TRUNCATE, 0, inode_of(fd), 0, 0, NULL, 0);
    leave(name != NULL);
    errno = e;
    return fd;
}

static bool exists(const char *path, int flags) {
    struct stat st;
    return !(flags & O_CREAT) || ours(path) == NULL || lstat(path, &st) == 0;
}

#define MODE(flags)                                                                                \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list list;                                                                              \
        va_start(list, flags);                                                                     \
        mode = va_arg(list, mode_t);                                                               \
        va_end(list);                                                                              \
    }

int open(const char *path, int flags, ...) {
    REAL(open);
    MODE(flags)
    enter(ours(path) != NULL);
    bool existed = exists(path, flags);
    return opened(real(path, flags, mode), path, flags, existed);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    MODE(flags)
    enter(ours(path) != NULL);
    bool existed = exists(path, flags);
    return opened(real(path, flags, mode), path, flags, existed);
}

/* What open() is where its flags are not known to the compiler, and checks are wanted. */
int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) { return open(path, flags); }

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS)
        atomic_store(&fds[fd], 0);
    return real(fd);
}

/* ---- contents --------------------------------------------------------------------------------------------- */

static ssize_t wrote_parts(int fd, const struct iovec *v, int count, ssize_t n, off_t at) {
    int e = errno;
    ssize_t left = kind(fd) != 0 ? n : 0;
    for (int i = 0; i < count && left > 0; i++) {
        ssize_t part = (ssize_t)v[i].iov_len < left ? (ssize_t)v[i].iov_len : left;
        record_add(log_, RECORD_WRITE, kind(fd) == 2, inode_of(fd), (uint64_t)at, 0, v[i].iov_base,
                   (uint64_t)part);
        at += part;
        left -= part;
    }
    leave(kind(fd) != 0);
    errno = e;
    return n;
}

static ssize_t wrote(int fd, const void *data, ssize_t n, off_t at) {
    return wrote_parts(fd, &(struct iovec){(void *)(uintptr_t)data, n > 0 ? (size_t)n : 0}, 1, n,
                       at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    enter(kind(fd) != 0);
    return wrote(fd, data, real(fd, data, n, at), at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    enter(kind(fd) != 0);
    return wrote(fd, data, real(fd, data, n, at), at);
}

ssize_t pwritev(int fd, const struct iovec *v, int count, off_t at) {
    REAL(pwritev);
    enter(kind(fd) != 0);
    return wrote_parts(fd, v, count, real(fd, v, count, at), at);
}

ssize_t pwritev64(int fd, const struct iovec *v, int count, off64_t at) {
    REAL(pwritev64);
    enter(kind(fd) != 0);
    return wrote_parts(fd, v, count, real(fd, v, count, at), at);
}

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    enter(kind(fd) != 0);
    off_t at = kind(fd) != 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    return wrote(fd, data, real(fd, data, n), at);
}

ssize_t writev(int fd, const struct iovec *v, int count) {
    REAL(writev);
    enter(kind(fd) != 0);
    off_t at = kind(fd) != 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    return wrote_parts(fd, v, count, real(fd, v, count), at);
}

static int resized(int fd, int rc, enum record_op op, uint64_t to) {
    int e = errno;
    if (rc == 0 && kind(fd) != 0)
        record_add(log_, op, 0, inode_of(fd), to, 0, NULL, 0);
    leave(kind(fd) != 0);
    errno = e;
    return rc;
}

int ftruncate(int fd, off_t to) {
    REAL(ftruncate);
    enter(kind(fd) != 0);
    return resized(fd, real(fd, to), RECORD_TRUNCATE, (uint64_t)to);
}

int ftruncate64(int fd, off64_t to) {
    REAL(ftruncate64);
    enter(kind(fd) != 0);
    return resized(fd, real(fd, to), RECORD_TRUNCATE, (uint64_t)to);
}

int fallocate(int fd, int mode, off_t at, off_t bytes) {
    REAL(fallocate);
    enter(kind(fd) != 0);
    int rc = real(fd, mode, at, bytes);
    return resized(fd, rc, RECORD_ALLOCATE, (uint64_t)(at + bytes));
}

int fallocate64(int fd, int mode, off64_t at, off64_t bytes) {
    REAL(fallocate64);
    enter(kind(fd) != 0);
    int rc = real(fd, mode, at, bytes);
    return resized(fd, rc, RECORD_ALLOCATE, (uint64_t)(at + bytes));
}

/* As long as a disk may take; else nothing would ever be done beside a flush. */
static uint64_t begin_sync(int fd) {
    static _Atomic uint32_t count;
    if (log_ == NULL)
        return 0;
    uint64_t began = record_position(log_);
    uint32_t turn = atomic_fetch_add(&count, 1) * UINT32_C(2654435761) >> 16;
    if (kind(fd) != 0 && !in_test && turn % 2 == 0)
        usleep(turn % 4000);
    return began;
}

static int synced(int fd, int rc, uint64_t began) {
    int e = errno;
    if (rc == 0 && kind(fd) != 0)
        record_add(log_, RECORD_SYNC, 0, inode_of(fd), 0, began, NULL, 0);
    leave(kind(fd) != 0);
    errno = e;
    return rc;
}

int fsync(int fd) {
    REAL(fsync);
    enter(kind(fd) != 0);
    uint64_t began = begin_sync(fd);
    return synced(fd, real(fd), began);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    enter(kind(fd) != 0);
    uint64_t began = begin_sync(fd);
    return synced(fd, real(fd), began);
}

/* ---- names ------------------------------------------------------------------------------------------------ */

int rename(const char *from, const char *to) {
    REAL(rename);
    const char *a = ours(from), *b = ours(to);
    enter(a != NULL && b != NULL);
    int rc = real(from, to), e = errno;
    if (rc == 0 && a != NULL && b != NULL) {
        char both[2 * sizeof(dir)];
        size_t n = strlen(a) + 1, m = strlen(b) + 1;
        memcpy(both, a, n);
        memcpy(both + n, b, m);
        record_add(log_, RECORD_RENAME, 0, 0, 0, 0, both, n + m);
    }
    leave(a != NULL && b != NULL);
    errno = e;
    return rc;
}

static int removed(int rc, const char *path) {
    int e = errno;
    if (rc == 0 && ours(path) != NULL)
        add_name(RECORD_UNLINK, ours(path), 0);
    leave(ours(path) != NULL);
    errno = e;
    return rc;
}

int unlink(const char *path) {
    REAL(unlink);
    enter(ours(path) != NULL);
    return removed(real(path), path);
}

int rmdir(const char *path) {
    REAL(rmdir);
    enter(ours(path) != NULL);
    return removed(real(path), path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    enter(ours(path) != NULL);
    struct stat st;
    int rc = real(path, mode), e = errno;
    if (rc == 0 && ours(path) != NULL && stat(path, &st) == 0)
        add_name(RECORD_MKDIR, ours(path), st.st_ino);
    leave(ours(path) != NULL);
    errno = e;
    return rc;
}
