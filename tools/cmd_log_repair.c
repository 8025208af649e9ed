/* eagre log repair: what can be put right without losing what was durable, and what has to be put aside. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd_log.h"
#include "sys/errbuf.h"

#define EG_SAID 1 /* refused, and the user knows */

struct repair {
    struct cli *c;
    bool yes;
    uint64_t actions, failures;
    char locked[PATH_MAX]; /* the lock that we have; "": none */
    char busy[PATH_MAX];   /* the directory that a daemon uses, as was said */
    int lock;
    struct out out;
};

/*
 * The daemon of a data directory holds flock() on DIR/lock (daemon/lock.c); so do we, until we end. A directory
 * that was copied elsewhere has no such file, and no daemon.
 */
static int take_lock(struct repair *r, const char *dir) {
    char path[PATH_MAX], file[PATH_MAX + 8];
    struct stat st;
    if (realpath(dir, path) == NULL)
        return eg_error_set(EAGRE_E_IO, "%s: %s", dir, strerror(errno));
    for (int up = 0; up < 4; up++) { /* DIR/log/t<uid>/<partition>: DIR is three up */
        snprintf(file, sizeof(file), "%s/lock", path);
        if (lstat(file, &st) == 0 && S_ISREG(st.st_mode))
            break;
        char *slash = strrchr(path, '/');
        if (slash == NULL || slash == path || up == 3)
            return EAGRE_OK;
        *slash = '\0';
    }
    if (strcmp(path, r->locked) == 0)
        return EAGRE_OK;
    if (strcmp(path, r->busy) == 0)
        return EG_SAID;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return eg_error_set(EAGRE_E_IO, "cannot open %s: %s", file, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[16] = "";
        int e = errno;
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        close(fd);
        if (e != EWOULDBLOCK)
            return eg_error_set(EAGRE_E_IO, "cannot lock %s: %s", file, strerror(e));
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        snprintf(r->busy, sizeof(r->busy), "%s", path);
        return eg_error_set(
            EAGRE_E_BUSY, "the directory %s is in use by eagred pid %s: stop it first (eagre down)",
            path, *pid != '\0' ? pid : "(unknown)");
    }
    if (r->lock >= 0)
        close(r->lock);
    r->lock = fd;
    snprintf(r->locked, sizeof(r->locked), "%s", path);
    return EAGRE_OK;
}

/* ---- the three things it does: each returns 0 or errno ------------------------------------------------------ */

static int sync_directory(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int e = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return e;
}

static char *beside(const char *log, const char *suffix) {
    char *path;
    if (asprintf(&path, "%.*s%s", (int)strlen(log) - 4, log, suffix) < 0)
        abort();
    return path;
}

static int remove_index(const struct log_look *k) {
    char *path = beside(k->file->path, ".idx");
    int e = unlink(path) != 0 && errno != ENOENT ? errno : 0;
    free(path);
    return e;
}

/* Written beside it, synced, then renamed: there is always an old or a new one, whole. */
static int write_index(const struct log_partition *p, const struct log_look *k,
                       const struct eg_logindex_entry *entries, uint32_t count) {
    struct eg_logindex_header h;
    char *path = beside(k->file->path, ".idx"), *next = beside(k->file->path, ".idx.new");
    size_t bytes = count * sizeof(*entries);
    eg_logindex_header_make(&h, &k->id);
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), e = 0;
    errno = 0;
    if (fd < 0 || write(fd, &h, sizeof(h)) != sizeof(h) ||
        (bytes > 0 && write(fd, entries, bytes) != (ssize_t)bytes) || fsync(fd) != 0 ||
        rename(next, path) != 0)
        e = errno != 0 ? errno : EIO;
    if (fd >= 0)
        close(fd);
    if (e != 0)
        unlink(next);
    free(path);
    free(next);
    return e != 0 ? e : sync_directory(p->dir);
}

/* The index first: it must not lead to where nothing is. The daemon makes the file long again. */
static int cut(const struct log_partition *p, const struct log_look *k) {
    int e = remove_index(k);
    int fd = open(k->file->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (e == 0 && (fd < 0 || ftruncate(fd, (off_t)k->scan.good_pos) != 0 || fsync(fd) != 0))
        e = errno;
    if (fd >= 0)
        close(fd);
    return e != 0 ? e : sync_directory(p->dir);
}

static int put_aside(const struct log_partition *p, const struct log_look *k) {
    char *path = beside(k->file->path, ".log.damaged");
    int e = renameat2(AT_FDCWD, k->file->path, AT_FDCWD, path, RENAME_NOREPLACE) != 0
                ? errno
                : remove_index(k);
    free(path);
    return e != 0 ? e : sync_directory(p->dir);
}

/* ---- deciding ------------------------------------------------------------------------------------------------ */

/* Say what is done, or would be. True: do it. */
static bool act(struct repair *r, const struct log_look *k, const char *did, const char *would) {
    r->actions++;
    out_text(&r->out, k->file->path);
    out_text(&r->out, ": ");
    out_text(&r->out, r->yes ? did : would);
    if (k->problem[0] != '\0')
        out_printf(&r->out, ": %s", k->problem);
    out_text(&r->out, "\n");
    return r->yes;
}

static void done(struct repair *r, const struct log_look *k, int error) {
    if (error == 0)
        return;
    r->failures++;
    out_flush(&r->out);
    cli_error(r->c, "%s: that failed: %s", k->file->path, strerror(error));
}

static void repair_index(struct repair *r, const struct log_partition *p,
                         const struct log_look *k) {
    const char *wrong;
    struct eg_logindex_entry *entries;
    uint32_t count;
    if (log_index_check(k, &wrong, &entries, &count) != EAGRE_OK) {
        r->failures++;
        cli_error(r->c, "%s", eg_error_text());
        return;
    }
    bool missing = !k->file->has_index && k->state == LOG_WHOLE && count > 0;
    if ((wrong != NULL || missing) &&
        act(r, k, missing ? "made its index" : "made its index anew",
            missing ? "would make its index" : "would make its index anew"))
        done(r, k, write_index(p, k, entries, count));
    free(entries);
}

/* Consumers read on behind it then; what it holds is for `eagre log dump`. */
static void repair_damage(struct repair *r, const struct log_partition *p,
                          const struct log_look *k) {
    bool yes = act(r, k, "put aside as .log.damaged", "would put it aside as .log.damaged");
    out_printf(&r->out,
               "  with its %" PRIu64 " good records: `eagre log dump` prints them, consumers %s\n",
               k->scan.records + k->scan.behind_records,
               yes ? "do not get them any more" : "would not get them any more");
    if (yes)
        done(r, k, put_aside(p, k));
}

static void repair_file(struct repair *r, const struct log_partition *p, const struct log_look *k) {
    switch (k->state) {
    case LOG_WHOLE:
    case LOG_OPEN:
        repair_index(r, p, k);
        break;
    case LOG_TORN:
        if (p->is_part) {
            out_text(&r->out, k->file->path);
            out_text(&r->out,
                     ": is cut only with its directory, which tells whether it is the last one\n");
            r->failures++;
        } else if (act(r, k, "cut behind what is good", "would cut behind what is good")) {
            done(r, k, cut(p, k));
        }
        break;
    case LOG_DAMAGED:
    case LOG_NO_HEADER:
        repair_damage(r, p, k);
        break;
    case LOG_UNREADABLE:
        out_text(&r->out, k->file->path);
        out_printf(&r->out, ": left as it is: %s\n", k->problem);
        r->failures++;
        break;
    default:
        break;
    }
}

static int each(struct log_partition *p, void *ctx) {
    struct repair *r = ctx;
    struct eg_logfile_id ids = {0};
    struct log_look k;
    int rc = r->yes ? take_lock(r, p->dir) : EAGRE_OK;
    if (rc == EG_SAID)
        return CLI_REFUSED;
    if (rc != EAGRE_OK)
        return cli_fail(r->c, rc);
    for (size_t i = 0; i < p->count; i++) {
        log_look(p, i, &ids, &k);
        repair_file(r, p, &k);
        log_look_end(&k);
    }
    return CLI_OK;
}

int cmd_log_repair(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {
        {"yes", no_argument, NULL, 'y'}, LOG_KEEPER_OPTION, CLI_COMMON_OPTIONS};
    static struct repair r;
    r.c = c;
    r.lock = -1;
    for (int o; (o = cli_getopt(c, argc, argv, ":hy", longs)) != -1;) {
        if (o == LOG_OPTION_KEEPER)
            cli_usage(c, "what is in memory, the next daemon repairs when it starts");
        r.yes = true;
    }
    out_init(&r.out, STDOUT_FILENO);
    int code = log_for_each(c, argc, argv, each, &r);
    if (code == CLI_OK && r.actions == 0 && r.failures == 0)
        out_text(&r.out, "nothing to repair\n");
    else if (!r.yes && r.actions > 0)
        out_printf(&r.out, "nothing was changed: %" PRIu64 " things would be done with --yes\n",
                   r.actions);
    int written = out_end(&r.out);
    if (code == CLI_OK && (r.failures > 0 || (!r.yes && r.actions > 0)))
        code = CLI_FAILED;
    return code == CLI_OK ? written : code;
}
