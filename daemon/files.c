#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log/logindex.h"
#include "logger.h"
#include "sys/errbuf.h"

/* ---- the table ------------------------------------------------------------------------------------------- */

void eg_files_free(struct eg_file_table *t) {
    free(t->list);
    *t = (struct eg_file_table){0};
}

int eg_files_reserve(struct eg_file_table *t, size_t n) {
    while (t->cap - t->first - t->count < n) {
        if (t->first > t->cap / 2) { /* those in front have gone */
            memmove(t->list, t->list + t->first, t->count * sizeof(*t->list));
            t->first = 0;
            continue;
        }
        size_t cap = t->cap > 0 ? t->cap * 2 : 16;
        struct eg_log_file *list = realloc(t->list, cap * sizeof(*list));
        if (list == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the list of %zu log files", t->count + n);
        t->list = list;
        t->cap = cap;
    }
    return EAGRE_OK;
}

int eg_files_add(struct eg_file_table *t, const struct eg_log_file *f) {
    int rc = eg_files_reserve(t, 1);
    if (rc == EAGRE_OK)
        t->list[t->first + t->count++] = *f;
    return rc;
}

void eg_files_drop_first(struct eg_file_table *t) {
    t->first++;
    t->count--;
}

struct eg_log_file *eg_files_at(const struct eg_file_table *t, size_t i) {
    return i < t->count ? &t->list[t->first + i] : NULL;
}

size_t eg_files_behind(const struct eg_file_table *t, int64_t offset) {
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (eg_files_at(t, middle)->end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct eg_log_file *eg_files_from_seq(const struct eg_file_table *t, uint64_t seq) {
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (eg_files_at(t, middle)->seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return eg_files_at(t, low);
}

struct eg_log_file *eg_files_by_seq(const struct eg_file_table *t, uint64_t seq) {
    struct eg_log_file *f = eg_files_from_seq(t, seq);
    return f != NULL && f->seq == seq ? f : NULL;
}

/* ---- names ----------------------------------------------------------------------------------------------- */

void eg_log_dir_init(struct eg_log_dir *dir, const char *data_dir, uint32_t topic_uid, uint32_t partition,
                     uint32_t partition_uid, uint32_t align, uint64_t capacity, uint64_t min_free_bytes) {
    *dir = (struct eg_log_dir){.topic_uid = topic_uid,
                               .partition_uid = partition_uid,
                               .partition = partition,
                               .align = align,
                               .capacity = capacity,
                               .min_free_bytes = min_free_bytes};
    snprintf(dir->path, sizeof(dir->path), "%s/log/t%u/%u", data_dir, topic_uid, partition);
}

struct path {
    char text[EG_FILES_PATH + 64];
};

static const char *segment_path(const struct eg_log_dir *dir, uint64_t seq, const char *suffix, struct path *p) {
    snprintf(p->text, sizeof(p->text), "%s/%020" PRIu64 "%s", dir->path, seq, suffix);
    return p->text;
}

static const char *spare_path(const struct eg_log_dir *dir, struct path *p) {
    snprintf(p->text, sizeof(p->text), "%s/spare.log", dir->path);
    return p->text;
}

/* Is this the name of a segment's file with this suffix? */
static bool parse_name(const char *name, const char *suffix, uint64_t *seq) {
    char *end;
    if (strlen(name) < 20 || strspn(name, "0123456789") != 20 || strcmp(name + 20, suffix) != 0)
        return false;
    errno = 0;
    *seq = strtoull(name, &end, 10);
    return errno == 0 && *seq <= EG_SEQ_MAX;
}

static int failed(const char *path, const char *what) {
    int e = errno;
    return eg_error_set(e == ENOSPC || e == EDQUOT ? EAGRE_E_LIMIT : EAGRE_E_IO, "%s: cannot %s: %s", path, what, strerror(e));
}

static int sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 && fsync(fd) == 0 ? EAGRE_OK : failed(path, "sync the directory");
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- directories -------------------------------------------------------------------------------------------- */

static int make_dir(const struct eg_log_dir *dir) {
    char path[EG_FILES_PATH];
    struct stat st;
    if (stat(dir->path, &st) == 0)
        return EAGRE_OK;
    snprintf(path, sizeof(path), "%s", dir->path);
    char *slash[3], *at = path + strlen(path);
    for (int i = 0; i < 3; i++) { /* DIR/log, DIR/log/t1, DIR/log/t1/0 */
        while (*at != '/')
            at--;
        slash[i] = at--;
    }
    for (int i = 2; i >= 0; i--) {
        if (i > 0)
            *slash[i - 1] = '\0';
        bool made = mkdir(path, 0700) == 0;
        if (!made && errno != EEXIST)
            return failed(path, "make it");
        if (i > 0)
            *slash[i - 1] = '/';
        *slash[i] = '\0';
        int rc = sync_directory(path); /* its parent: also if another made it and was cut off here */
        *slash[i] = '/';
        if (rc != EAGRE_OK)
            return rc;
    }
    return EAGRE_OK;
}

int eg_log_dir_make(const struct eg_log_dir *dir, int *error) {
    errno = 0;
    int rc = make_dir(dir);
    *error = rc == EAGRE_OK ? 0 : errno != 0 ? errno : EIO;
    return rc;
}

static int compare_files(const void *a, const void *b) {
    const struct eg_log_file *x = a, *y = b;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static struct eg_logfile_id expected_id(const struct eg_log_dir *dir, uint64_t seq) {
    return (struct eg_logfile_id){.topic_uid = dir->topic_uid,
                                  .partition_uid = dir->partition_uid,
                                  .partition = dir->partition,
                                  .align = dir->align,
                                  .capacity = dir->capacity,
                                  .seq = seq};
}

/* What the header says; a bad one is a damaged file. That it cannot be asked now is something else. */
static int read_header(const struct eg_log_dir *dir, const char *suffix, struct eg_log_file *f) {
    static _Thread_local uint8_t page[EG_PAGE];
    struct path p;
    struct stat st;
    struct eg_logfile_id id, expected = expected_id(dir, f->seq);
    int fd = open(segment_path(dir, f->seq, suffix, &p), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ELOOP)
        return failed(p.text, "open it");
    ssize_t n = fd >= 0 ? pread(fd, page, sizeof(page), 0) : -1;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        f->bytes = (uint64_t)st.st_blocks * 512;
        f->written_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    }
    if (fd >= 0)
        close(fd);
    f->damaged = n < 0 || eg_logfile_header_check(page, (uint64_t)n, &expected, &id, NULL) != EAGRE_OK;
    if (!f->damaged) {
        f->base = id.base;
        f->created_ns = id.created_ns;
    }
    return EAGRE_OK;
}

#define ASIDE ".log.damaged"

static bool is_known_name(const char *name) {
    uint64_t seq;
    return name[0] == '.' || strcmp(name, "spare.log") == 0 || parse_name(name, ".log", &seq) || parse_name(name, ".idx", &seq) ||
           parse_name(name, ASIDE, &seq);
}

/* By seq, with what their headers say. */
static int list(const struct eg_log_dir *dir, const char *suffix, bool report, struct eg_file_table *out) {
    int rc = EAGRE_OK;
    DIR *all = opendir(dir->path);
    *out = (struct eg_file_table){0};
    if (all == NULL)
        return errno == ENOENT ? EAGRE_OK : failed(dir->path, "read the directory");
    const struct dirent *e;
    while (rc == EAGRE_OK && (errno = 0, e = readdir(all)) != NULL) {
        struct eg_log_file f = {.end = -1};
        if (parse_name(e->d_name, suffix, &f.seq))
            rc = eg_files_add(out, &f);
        else if (report && !is_known_name(e->d_name))
            eg_log_warning("%s/%s is no file of Eagre's: left alone", dir->path, e->d_name);
    }
    if (rc == EAGRE_OK && errno != 0)
        rc = failed(dir->path, "read the directory");
    closedir(all);
    if (out->count > 0)
        qsort(out->list, out->count, sizeof(*out->list), compare_files);
    for (size_t i = 0; rc == EAGRE_OK && i < out->count; i++)
        rc = read_header(dir, suffix, &out->list[i]);
    if (rc != EAGRE_OK)
        eg_files_free(out);
    return rc;
}

int eg_log_dir_list_aside(const struct eg_log_dir *dir, struct eg_file_table *out) { return list(dir, ASIDE, false, out); }

int eg_log_dir_list(const struct eg_log_dir *dir, struct eg_file_table *out) {
    int rc = list(dir, ".log", true, out);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; i + 1 < out->count; i++) {
        struct eg_log_file *f = &out->list[i], *next = &out->list[i + 1];
        if (!f->damaged && !next->damaged && next->base < f->base)
            next->damaged = true; /* good headers that cannot both be */
        if (!next->damaged)
            f->end = next->base;
    }
    return EAGRE_OK;
}

/* ---- making files --------------------------------------------------------------------------------------------- */

static int check_space(const struct eg_log_dir *dir, uint64_t bytes, int *error) {
    struct statvfs fs;
    if (statvfs(dir->path, &fs) != 0) {
        *error = errno;
        return failed(dir->path, "ask for its free space");
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes >= dir->min_free_bytes && free_bytes - dir->min_free_bytes >= bytes)
        return EAGRE_OK;
    *error = ENOSPC;
    return eg_error_set(EAGRE_E_LIMIT,
                        "%s: %" PRIu64 " bytes more of a log file would leave less than disk.min.free.bytes=%" PRIu64
                        " free (%" PRIu64 " are): make room on the disk, or lower retention.bytes",
                        dir->path, bytes, dir->min_free_bytes, free_bytes);
}

static int fill(int fd, uint64_t from, uint64_t to) {
    static const uint8_t zeros[65536];
    if (fallocate(fd, 0, (off_t)from, (off_t)(to - from)) == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -1;
    for (uint64_t at = from; at < to;) {
        size_t n = to - at < sizeof(zeros) ? (size_t)(to - at) : sizeof(zeros);
        ssize_t done = pwrite(fd, zeros, n, (off_t)at);
        if (done < 0 && errno != EINTR)
            return -1;
        at += done > 0 ? (uint64_t)done : 0;
    }
    return 0;
}

int eg_log_dir_grow(const struct eg_log_dir *dir, int fd, uint64_t from, uint64_t to, int *error) {
    *error = 0;
    int rc = check_space(dir, to - from, error);
    if (rc == EAGRE_OK && fill(fd, from, to) != 0) {
        *error = errno;
        rc = failed(dir->path, "give a log file more room");
    }
    return rc;
}

int eg_log_dir_prepare(const struct eg_log_dir *dir, int *error) {
    struct path spare, making;
    struct stat st;
    uint64_t bytes = dir->capacity < EG_LOG_STEP ? dir->capacity : EG_LOG_STEP;
    *error = 0;
    if (stat(spare_path(dir, &spare), &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes)
        return EAGRE_OK;
    int rc = check_space(dir, bytes, error);
    if (rc != EAGRE_OK)
        return rc;
    snprintf(making.text, sizeof(making.text), "%s/.making", dir->path);
    int fd = open(making.text, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fill(fd, 0, bytes) != 0 || rename(making.text, spare.text) != 0) {
        *error = errno;
        rc = failed(making.text, "make a log file");
        unlink(making.text); /* what was allocated of it goes back */
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static bool write_at(int fd, const void *data, size_t bytes, off_t at) {
    errno = ENOSPC; /* of a write that is cut short */
    return pwrite(fd, data, bytes, at) == (ssize_t)bytes;
}

/* One that a predecessor made: is it what it is taken for? */
static int check_same(const char *path, int fd, const struct eg_logfile_id *id) {
    uint8_t page[EG_PAGE];
    struct eg_logfile_id has;
    ssize_t n = pread(fd, page, sizeof(page), 0);
    if (n < 0)
        return failed(path, "read its header");
    int rc = eg_logfile_header_check(page, (uint64_t)n, id, &has, NULL);
    if (rc == EAGRE_OK && has.base != id->base)
        rc = eg_error_set(EAGRE_E_CORRUPT, "log file header: begins at offset %" PRId64 ", expected %" PRId64, has.base, id->base);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "%s", path);
}

/* One that a predecessor made and that is gone on with at byte `keep`: what it wrote behind goes, and that is synced. */
static int take_up(const char *path, int fd, const struct eg_logfile_id *id, uint64_t keep) {
    struct stat st;
    int rc = check_same(path, fd, id);
    if (rc == EAGRE_OK && fstat(fd, &st) != 0)
        rc = failed(path, "ask for its size");
    if (rc == EAGRE_OK && (uint64_t)st.st_size < keep)
        rc = eg_error_set(EAGRE_E_CORRUPT, "%s: it has %lld bytes, but %" PRIu64 " were on disk", path, (long long)st.st_size, keep);
    /* Synced in any case: whoever made it may have been cut off here. */
    if (rc == EAGRE_OK && (ftruncate(fd, (off_t)keep) != 0 || fsync(fd) != 0))
        rc = failed(path, "cut it to what was on disk");
    return rc;
}

int eg_log_dir_name(const struct eg_log_dir *dir, const struct eg_logfile_id *id, uint64_t keep, int *fd_out,
                    uint64_t *allocated, int *error) {
    struct path spare, name;
    struct stat st;
    uint8_t page[EG_PAGE];
    int rc = EAGRE_OK;
    errno = 0;
    int fd = open(segment_path(dir, id->seq, ".log", &name), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        rc = take_up(name.text, fd, id, keep);
    } else if (errno == ENOENT) {
        eg_logfile_header_make(page, id);
        fd = open(spare_path(dir, &spare), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || !write_at(fd, page, sizeof(page), 0) || fsync(fd) != 0 || rename(spare.text, name.text) != 0)
            rc = failed(spare.text, "make it a segment's log file");
    } else {
        rc = failed(name.text, "open it");
    }
    if (rc == EAGRE_OK && fstat(fd, &st) != 0)
        rc = failed(name.text, "ask for its size");
    int e = errno;
    if (rc == EAGRE_OK) {
        rc = sync_directory(dir->path);
        e = errno;
    }
    *error = rc == EAGRE_OK ? 0 : rc == EAGRE_E_CORRUPT || e == 0 ? EIO : e;
    if (rc != EAGRE_OK) {
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *allocated = (uint64_t)st.st_size < dir->capacity ? (uint64_t)st.st_size : dir->capacity;
    *fd_out = fd;
    return EAGRE_OK;
}

int eg_log_dir_open(const struct eg_log_dir *dir, uint64_t seq, bool index, int *fd_out) {
    struct path p;
    int fd = open(segment_path(dir, seq, index ? ".idx" : ".log", &p), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return failed(p.text, "open it");
    *fd_out = fd;
    return EAGRE_OK;
}

int eg_log_dir_put_index(const struct eg_log_dir *dir, uint64_t seq, const struct eg_logindex_header *header,
                         const struct eg_logindex_entry *entries, size_t count) {
    struct path p;
    int fd = open(segment_path(dir, seq, ".idx", &p), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && write_at(fd, header, sizeof(*header), 0) &&
                write_at(fd, entries, count * sizeof(*entries), (off_t)eg_logindex_at(0));
    int rc = good ? EAGRE_OK : failed(p.text, "write the index");
    if (fd >= 0)
        close(fd);
    if (!good)
        unlink(p.text);
    return rc;
}

/* ---- what goes --------------------------------------------------------------------------------------------------- */

int eg_log_dir_unlink(const struct eg_log_dir *dir, uint64_t first, uint64_t last) {
    struct path p;
    for (uint64_t seq = first; seq <= last; seq++) {
        if (unlink(segment_path(dir, seq, ".idx", &p)) != 0 && errno != ENOENT)
            return failed(p.text, "remove it");
        if (unlink(segment_path(dir, seq, ".log", &p)) != 0 && errno != ENOENT)
            return failed(p.text, "remove it");
    }
    return EAGRE_OK;
}

static int move_away(const char *data_dir, uint32_t topic_uid, const char *suffix) {
    char from[EG_FILES_PATH], to[EG_FILES_PATH + 32];
    snprintf(from, sizeof(from), "%s/log/t%u", data_dir, topic_uid);
    snprintf(to, sizeof(to), "%s.%s", from, suffix);
    /* It may have come back: a file was being made while the topic went. */
    for (unsigned n = 1; rename(from, to) != 0; n++) {
        if (errno == ENOENT)
            return EAGRE_OK;
        if ((errno != ENOTEMPTY && errno != EEXIST) || n == 1000)
            return failed(from, "move it away");
        snprintf(to, sizeof(to), "%s.%u.%s", from, n, suffix);
    }
    snprintf(from, sizeof(from), "%s/log", data_dir);
    return sync_directory(from);
}

int eg_topic_dir_gone(const char *data_dir, uint32_t topic_uid) { return move_away(data_dir, topic_uid, "gone"); }

int eg_topic_dirs_settle(const char *data_dir, uint32_t last_uid, bool (*exists)(void *ctx, uint32_t topic_uid), void *ctx) {
    char path[EG_FILES_PATH];
    int rc = EAGRE_OK;
    snprintf(path, sizeof(path), "%s/log", data_dir);
    DIR *all = opendir(path);
    if (all == NULL)
        return errno == ENOENT ? EAGRE_OK : failed(path, "read the directory");
    const struct dirent *e;
    while (rc == EAGRE_OK && (e = readdir(all)) != NULL) {
        size_t digits = e->d_name[0] == 't' ? strspn(e->d_name + 1, "0123456789") : 0;
        if (digits == 0 || digits > 10 || e->d_name[1 + digits] != '\0')
            continue;
        uint64_t uid = strtoull(e->d_name + 1, NULL, 10);
        if (uid > UINT32_MAX || exists(ctx, (uint32_t)uid))
            continue;
        if (uid > last_uid)
            eg_log_error("%s/%s belongs to no topic that this instance has ever had: it is kept as %s.strange; eagre log can "
                         "read it",
                         path, e->d_name, e->d_name);
        rc = move_away(data_dir, (uint32_t)uid, uid > last_uid ? "strange" : "gone");
    }
    closedir(all);
    return rc;
}

/* Remove up to *max entries below path, and path itself when it is empty. */
static int sweep(const char *path, size_t *max) {
    int rc = EAGRE_OK;
    DIR *all = opendir(path);
    if (all == NULL)
        return errno == ENOENT ? EAGRE_OK : failed(path, "read the directory");
    const struct dirent *e;
    bool empty = true;
    while (rc == EAGRE_OK && (e = readdir(all)) != NULL) {
        char below[EG_FILES_PATH + 300];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (*max == 0) {
            empty = false;
            break;
        }
        snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
        if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode)) {
            rc = sweep(below, max);
            empty = empty && access(below, F_OK) != 0;
        } else if (unlink(below) != 0 && errno != ENOENT) {
            rc = failed(below, "remove it");
        } else {
            --*max;
        }
    }
    closedir(all);
    if (rc == EAGRE_OK && empty && rmdir(path) != 0 && errno != ENOENT)
        rc = failed(path, "remove it");
    return rc;
}

int eg_topic_dir_sweep(const char *data_dir, size_t max, bool *more) {
    char path[EG_FILES_PATH];
    int rc = EAGRE_OK;
    snprintf(path, sizeof(path), "%s/log", data_dir);
    *more = false;
    DIR *all = opendir(path);
    if (all == NULL)
        return errno == ENOENT ? EAGRE_OK : failed(path, "read the directory");
    const struct dirent *e;
    while (rc == EAGRE_OK && max > 0 && (e = readdir(all)) != NULL) {
        size_t n = strlen(e->d_name);
        if (n < 6 || e->d_name[0] != 't' || strcmp(e->d_name + n - 5, ".gone") != 0)
            continue;
        char below[EG_FILES_PATH + 300];
        snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
        rc = sweep(below, &max);
    }
    closedir(all);
    *more = rc == EAGRE_OK && max == 0;
    return rc;
}
