#include "cmd_log.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/errbuf.h"

#define DEPTH_MAX 4 /* DIR, log, t<uid>, <partition> */

/* ---- finding ------------------------------------------------------------------------------------------ */

struct finder {
    struct cli *c;
    int (*each)(struct log_partition *p, void *ctx);
    void *ctx;
    int code;
};

static char *join(const char *dir, const char *name) {
    char *path;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    return path;
}

/* All of text is digits, and a number that fits; -1: no. */
static int64_t number_of(const char *text) {
    size_t n = strspn(text, "0123456789");
    return n > 0 && n < 11 && text[n] == '\0' ? atoll(text) : -1;
}

/* <20 digits><suffix> */
static bool is_file_of(const char *name, const char *suffix, uint64_t *seq) {
    if (strspn(name, "0123456789") != 20 || strcmp(name + 20, suffix) != 0)
        return false;
    errno = 0;
    *seq = strtoull(name, NULL, 10);
    return errno == 0 && *seq <= EG_SEQ_MAX;
}

static bool is_log_name(const char *name, uint64_t *seq, bool *aside) {
    *aside = is_file_of(name, ".log.damaged", seq);
    return *aside || is_file_of(name, ".log", seq);
}

/* The uid and number that the directory's path tells. */
static void name_partition(struct log_partition *p) {
    char *real = realpath(p->dir, NULL);
    p->topic_uid = p->number = -1;
    char *slash = real != NULL ? strrchr(real, '/') : NULL;
    if (slash != NULL && (p->number = number_of(slash + 1)) >= 0) {
        *slash = '\0';
        slash = strrchr(real, '/');
        if (slash != NULL && slash[1] == 't')
            p->topic_uid = number_of(slash + 2);
    }
    free(real);
}

static int add_file(struct log_partition *p, const char *dir, const char *name) {
    struct log_file f = {0};
    if (!is_log_name(name, &f.seq, &f.aside))
        return 0;
    struct log_file *more = reallocarray(p->files, p->count + 1, sizeof(*more));
    if (more == NULL)
        abort();
    char index[32];
    snprintf(index, sizeof(index), "%020" PRIu64 ".idx", f.seq);
    char *path = join(dir, index);
    f.has_index = !f.aside && access(path, F_OK) == 0;
    free(path);
    f.path = join(dir, name);
    p->files = more;
    p->files[p->count++] = f;
    return 1;
}

static int by_seq(const void *a, const void *b) {
    const struct log_file *x = a, *y = b;
    return x->seq != y->seq ? x->seq < y->seq ? -1 : 1 : (int)x->aside - (int)y->aside;
}

static void give(struct finder *f, struct log_partition *p) {
    qsort(p->files, p->count, sizeof(*p->files), by_seq);
    name_partition(p);
    int code = f->each(p, f->ctx);
    f->code = f->code == CLI_OK ? code : f->code;
    for (size_t i = 0; i < p->count; i++)
        free(p->files[i].path);
    free(p->files);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strverscmp((*a)->d_name, (*b)->d_name); /* partition 10 behind 9 */
}

/* log, t<uid>, <partition> */
static int is_way(const struct dirent *e) {
    const char *n = e->d_name;
    return strcmp(n, "log") == 0 || number_of(n[0] == 't' ? n + 1 : n) >= 0;
}

/* How many partitions are there. */
static int visit(struct finder *f, const char *dir, int depth) {
    struct log_partition p = {.dir = (char *)(uintptr_t)dir};
    struct dirent **names;
    DIR *d = opendir(dir);
    if (d == NULL) {
        cli_error(f->c, "%s: %s", dir, strerror(errno));
        f->code = CLI_FAILED;
        return 1; /* told */
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        add_file(&p, dir, e->d_name);
    closedir(d);
    if (p.count > 0) {
        give(f, &p);
        return 1;
    }
    int found = 0, n = depth < DEPTH_MAX ? scandir(dir, &names, is_way, by_name) : 0;
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *path = join(dir, names[i]->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            found += visit(f, path, depth + 1);
        free(path);
        free(names[i]);
    }
    if (n > 0)
        free(names);
    return found;
}

static void visit_file(struct finder *f, const char *path) {
    const char *slash = strrchr(path, '/');
    struct log_partition p = {.is_part = true};
    if (asprintf(&p.dir, "%.*s", slash != NULL ? (int)(slash - path) + (slash == path) : 1,
                 slash != NULL ? path : ".") < 0)
        abort();
    if (add_file(&p, p.dir, slash != NULL ? slash + 1 : path)) {
        give(f, &p);
    } else {
        cli_error(f->c, "%s: a log file's name is 20 digits and .log", path);
        f->code = CLI_FAILED;
    }
    free(p.dir);
}

int log_for_each(struct cli *c, int argc, char **argv,
                 int (*each)(struct log_partition *p, void *ctx), void *ctx) {
    struct finder f = {.c = c, .each = each, .ctx = ctx};
    if (optind == argc)
        cli_usage(c, "which directory or file?");
    for (int i = optind; i < argc; i++) {
        struct stat st;
        char *path = strdup(argv[i]);
        for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
            path[n - 1] = '\0';
        if (stat(path, &st) != 0) {
            cli_error(c, "%s: %s", path, strerror(errno));
            f.code = CLI_FAILED;
        } else if (!S_ISDIR(st.st_mode)) {
            visit_file(&f, path);
        } else if (visit(&f, path, 0) == 0) {
            cli_error(c, "%s: there are no log files in it", path);
            f.code = CLI_FAILED;
        }
        free(path);
    }
    return f.code;
}

/* ---- looking ------------------------------------------------------------------------------------------ */

const char *log_state_name(enum log_state s) {
    static const char *const names[] = {"whole",   "open",      "empty",      "torn",
                                        "damaged", "no header", "unreadable", "aside"};
    return names[s];
}

/*
 * All of the file, in memory: a mapping would turn what the medium cannot read into a signal. What cannot be read is
 * 0 in *data, and *bad_end is where that ends. 0, or errno.
 */
static int read_all(const char *path, uint8_t **data, uint64_t *bytes, uint64_t *bad_end) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;
    if (fd < 0)
        return errno;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return EINVAL;
    }
    uint64_t size =
        (uint64_t)st.st_size < EG_SEGMENT_BYTES_MAX ? (uint64_t)st.st_size : EG_SEGMENT_BYTES_MAX;
    uint8_t *to = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (to == MAP_FAILED) {
        close(fd);
        return ENOMEM;
    }
    uint64_t at = 0, piece = 1u << 20;
    *bad_end = 0;
    while (at < size) {
        ssize_t n = pread(fd, to + at, size - at < piece ? size - at : piece, (off_t)at);
        if (n > 0) {
            at += (uint64_t)n;
        } else if (n == 0) {
            break; /* it got shorter */
        } else if (errno == EIO && piece > EG_PAGE) {
            piece = EG_PAGE;
        } else if (errno == EIO) {
            at = eg_align_up(at + 1, EG_PAGE);
            *bad_end = at;
        } else if (errno != EINTR) {
            error = errno;
            break;
        }
    }
    close(fd);
    if (error != 0) {
        munmap(to, size + 1);
        return error;
    }
    *data = to;
    *bytes = at < size ? at : size;
    return 0;
}

static void say(struct log_look *k, enum log_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void say(struct log_look *k, enum log_state state, const char *format, ...) {
    va_list args;
    k->state = state;
    va_start(args, format);
    vsnprintf(k->problem, sizeof(k->problem), format, args);
    va_end(args);
}

/* Is this all zeros, or nothing? What a file system that lost the order of sync and rename leaves of a file that was just
 * made; anything else without a good header is damage. */
static bool is_blank(const uint8_t *bytes, uint64_t n) {
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* No file behind it has begun. (What a repair put aside had.) */
static bool is_last(const struct log_partition *p, size_t i) {
    for (size_t n = i + 1; n < p->count; n++) {
        _Alignas(8) uint8_t page[EG_PAGE];
        if (p->files[n].seq == p->files[i].seq)
            continue;
        int fd = p->files[n].aside ? -1 : open(p->files[n].path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        ssize_t got = fd >= 0 ? pread(fd, page, sizeof(page), 0) : -1;
        if (fd >= 0)
            close(fd);
        if (got < 0 || !is_blank(page, (uint64_t)got))
            return false;
    }
    return true;
}

static bool look_at_header(const struct log_partition *p, struct eg_logfile_id *ids, bool last,
                           struct log_look *k) {
    enum eg_logfile_header_fault fault;
    int rc = eg_logfile_header_check(k->data, k->bytes, NULL, &k->id, &fault);
    if (rc == EAGRE_OK) {
        struct eg_logfile_id expected = ids->capacity != 0 ? *ids : k->id, out;
        expected.seq = k->file->seq;
        expected.capacity = k->id.capacity;
        expected.align = k->id.align;
        expected.topic_uid = p->topic_uid >= 0 ? (uint32_t)p->topic_uid : expected.topic_uid;
        expected.partition = p->number >= 0 ? (uint32_t)p->number : expected.partition;
        rc = eg_logfile_header_check(k->data, k->bytes, &expected, &out, &fault);
    }
    if (rc == EAGRE_OK) {
        k->has_header = true;
        *ids = ids->capacity != 0 ? *ids : k->id;
        return true;
    }
    say(k, fault == EG_HEADER_VERSION ? LOG_UNREADABLE : LOG_NO_HEADER, "%s", eg_error_text());
    if (last && is_blank(k->data, k->bytes)) {
        k->state = LOG_EMPTY;
        k->problem[0] = '\0';
    }
    return false;
}

static void look(const struct log_partition *p, size_t i, struct eg_logfile_id *ids,
                 struct log_look *k) {
    uint64_t bad_end = 0;
    int error = read_all(k->file->path, &k->data, &k->bytes, &bad_end);
    if (error != 0) {
        say(k, LOG_UNREADABLE, "cannot read it: %s", strerror(error));
        return;
    }
    bool last = p->is_part || is_last(p, i); /* who names files need not name all of them */
    if (!look_at_header(p, ids, last, k))
        return;
    eg_logfile_init(&k->l, &k->id, k->data, k->bytes);
    /* Where the next one has begun, this one was whole and on disk: its writer waits for that. */
    eg_logfile_scan(&k->l, EG_SEGMENT_DATA, 0, 0, last ? bad_end : k->id.capacity, &k->scan);
    const struct eg_logfile_scan *s = &k->scan;
    int64_t offset = k->id.base + (int64_t)s->good_index;
    if (s->verdict == EG_FILE_DAMAGED)
        say(k, LOG_DAMAGED,
            "position %" PRIu64 " (offset %" PRId64 "): %s, but %s; behind it: %" PRIu64
            " good records",
            s->good_pos, offset, s->reason,
            bad_end > s->good_pos ? "it cannot be read"
            : !last               ? "a segment behind it has begun"
                                  : s->proof,
            s->behind_records);
    else if (s->sealed)
        k->state = LOG_WHOLE;
    else if (s->verdict == EG_FILE_TORN)
        say(k, LOG_TORN,
            "torn tail from position %" PRIu64 " (offset %" PRId64 "): %s; behind it: %" PRIu64
            " good records",
            s->good_pos, offset, s->reason, s->behind_records);
    else
        k->state = LOG_OPEN;
}

void log_look(const struct log_partition *p, size_t i, struct eg_logfile_id *ids,
              struct log_look *k) {
    memset(k, 0, sizeof(*k));
    k->file = &p->files[i];
    look(p, i, ids, k);
    if (k->file->aside)
        k->state = LOG_ASIDE;
}

void log_look_end(struct log_look *k) {
    if (k->data != NULL)
        munmap(k->data, k->bytes + 1);
    k->data = NULL;
}

int log_index_check(const struct log_look *k, const char **wrong,
                    struct eg_logindex_entry **entries, uint32_t *count) {
    struct eg_logindex_builder b;
    struct eg_logindex x;
    uint64_t most = eg_logindex_entries_max(k->id.capacity), bytes = 0, bad_end = 0;
    uint8_t *data = NULL;
    *wrong = NULL;
    *entries = calloc(most + 1, sizeof(**entries));
    if (*entries == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "%s: no memory for its index", k->file->path);
    *count = eg_logindex_rebuild(&k->l, k->scan.data_end, &b, *entries, most);
    if (!k->file->has_index)
        return EAGRE_OK;
    char *path = strdup(k->file->path);
    memcpy(path + strlen(path) - 3, "idx", 3);
    int error = read_all(path, &data, &bytes, &bad_end);
    free(path);
    if (error != 0 || bad_end > 0)
        *wrong = "its index cannot be read";
    else if (eg_logindex_open(&x, &k->id, data, bytes) != EAGRE_OK)
        *wrong = "its index has a bad header";
    else if (x.count > *count || memcmp(x.entries, *entries, x.count * sizeof(**entries)) != 0)
        *wrong = "its index leads to other places than the log has";
    else if ((bytes - eg_logindex_at(0)) % sizeof(**entries) != 0)
        *wrong = "its index ends within an entry";
    if (data != NULL)
        munmap(data, bytes + 1);
    return EAGRE_OK;
}

void log_time(int64_t ns, char out[LOG_TIME_MAX]) {
    time_t s = (time_t)(ns / EG_NS_PER_S - (ns % EG_NS_PER_S < 0));
    struct tm tm;
    char date[LOG_TIME_MAX - 6];
    if (gmtime_r(&s, &tm) == NULL || strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        date[0] = '\0';
    snprintf(out, LOG_TIME_MAX, "%s.%03dZ", date,
             (int)((ns - (int64_t)s * EG_NS_PER_S) / EG_NS_PER_MS));
}
