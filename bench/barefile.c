#include "barefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void eb_barefile_init(struct eb_bench *b, struct eb_barefile *f) {
    snprintf(f->path, sizeof f->path, "%s/bare", b->bus->own ? b->bus->dir : "/tmp");
}

static int open_new(const struct eb_barefile *f) {
    unlink(f->path);
    int fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && fallocate(fd, 0, 0, (off_t)f->file) == 0 && fsync(fd) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool write_all(int fd, const char *data, uint64_t bytes, uint64_t at) {
    while (bytes > 0) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)at);
        if (n <= 0)
            return false;
        data += n;
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return true;
}

int eb_barefile_worker(struct eb_worker *w) {
    const struct eb_barefile *f = w->arg;
    uint64_t done = 0, at = 0, dirty = 0;
    char *data = malloc(f->chunk);
    int fd = data ? open_new(f) : -1;
    if (fd < 0)
        return eb_fail(w, "%s: %s", f->path, strerror(errno));
    memset(data, 'x', f->chunk);
    int64_t cpu = eb_cpu_time_ns(getpid());
    int64_t began = eb_now_ns(), end = began + (int64_t)(f->seconds * 1e9), before = began;
    while (f->total ? done < f->total : before < end) {
        if (at + f->chunk > f->file) {
            if (dirty > 0 && fdatasync(fd) != 0)
                return eb_fail(w, "%s: fdatasync: %s", f->path, strerror(errno));
            close(fd);
            fd = open_new(f);
            at = dirty = 0;
        }
        if (!write_all(fd, data, f->chunk, at))
            return eb_fail(w, "%s: write: %s", f->path, strerror(errno));
        at += f->chunk;
        done += f->chunk;
        dirty += f->chunk;
        if (dirty >= f->flush) {
            if (fdatasync(fd) != 0)
                return eb_fail(w, "%s: fdatasync: %s", f->path, strerror(errno));
            dirty = 0;
            int64_t now = eb_now_ns();
            eb_hist_add(&w->hist, (uint64_t)(now - before));
            before = now;
        }
    }
    if (dirty > 0 && fdatasync(fd) != 0)
        return eb_fail(w, "%s: fdatasync: %s", f->path, strerror(errno));
    w->value[EB_FILE_NS] = (double)(eb_now_ns() - began);
    w->value[EB_FILE_BYTES] = (double)done;
    w->value[EB_FILE_CPU_NS] = (double)(eb_cpu_time_ns(getpid()) - cpu);
    close(fd);
    unlink(f->path);
    free(data);
    return 0;
}
