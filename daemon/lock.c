/*
 * lock.c - one daemon a directory and a socket. A lock is flock() on a file that holds the owner's
 * pid: DIR/lock and SOCKET.lock. The kernel lets go of it when the process ends, however it ends.
 */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"
#include "sys/errbuf.h"

static int dir_lock = -1, socket_lock = -1;

/* mkdir -p */
static int make_directories(const char *path, mode_t mode) {
    char part[PATH_MAX];
    size_t n = strlen(path);
    for (size_t i = 1; i <= n && n < sizeof(part); i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return eg_error_set(EAGRE_E_IO, "%s: cannot create the directory %s: %s", path, part,
                                strerror(errno));
    }
    return EAGRE_OK;
}

/* In a directory that everybody may write to, somebody else could have been there first. */
static int check_owner(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0)
        return eg_error_set(EAGRE_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return eg_error_set(EAGRE_E_IO, "%s is not a directory", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return eg_error_set(
            EAGRE_E_PERMISSION,
            "%s belongs to user %u, who could replace what eagred puts there: choose "
            "another place for the socket",
            path, (unsigned)st.st_uid);
    return EAGRE_OK;
}

void eg_socket_directory(const char *socket, char *buf, size_t cap) {
    const char *slash = strrchr(socket, '/');
    int n = slash == NULL || slash == socket ? 1 : (int)(slash - socket);
    snprintf(buf, cap, "%.*s", n, slash == NULL ? "." : socket);
}

static int lock_file(const char *path, const char *what, int *fd_out) {
    for (;;) {
        /* 0600: who can open it, if only for reading, can hold its lock and so keep us from starting. */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return eg_error_set(EAGRE_E_IO, "%s is not usable: cannot open %s for writing: %s",
                                what, path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int e = errno;
            char pid[16] = "";
            ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
            close(fd);
            if (e != EWOULDBLOCK)
                return eg_error_set(EAGRE_E_IO, "%s is not usable: cannot lock %s: %s", what, path,
                                    strerror(e));
            pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
            return eg_error_set(EAGRE_E_BUSY, "%s is in use by eagred pid %s", what,
                                *pid != '\0' ? pid : "(unknown)");
        }
        /* Its last owner may have removed it between our open and our lock: then ours is of a file
         * that nobody else will find. */
        struct stat ours, there;
        if (fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino &&
            ours.st_dev == there.st_dev) {
            char pid[16];
            int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
            if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
                int e = errno;
                close(fd);
                return eg_error_set(EAGRE_E_IO, "%s is not usable: cannot write to %s: %s", what,
                                    path, strerror(e));
            }
            *fd_out = fd;
            return EAGRE_OK;
        }
        close(fd);
    }
}

void eg_side_path(const struct eg_config *c, const char *suffix, char *buf, size_t cap) {
    snprintf(buf, cap, "%s%s", c->socket, suffix);
}

int eg_pid_file_write(const char *path, pid_t pid) {
    FILE *f = fopen(path, "we");
    if (f == NULL || fprintf(f, "%d\n", (int)pid) < 0 || fclose(f) != 0)
        return eg_error_set(EAGRE_E_IO, "%s: cannot write: %s", path, strerror(errno));
    return EAGRE_OK;
}

void eg_pid_file_remove(const char *path, pid_t pid) {
    FILE *f = fopen(path, "re");
    int there = 0;
    if (f == NULL)
        return;
    if (fscanf(f, "%d", &there) == 1 && there == (int)pid)
        unlink(path);
    fclose(f);
}

static void lock_stop(struct eg_daemon *d, bool keep) {
    char path[PATH_MAX];
    (void)keep;
    eg_side_path(&d->config, ".pid", path, sizeof(path));
    eg_pid_file_remove(path, getpid());
    eg_side_path(&d->config, ".lock", path, sizeof(path));
    unlink(path); /* while locked: see lock_file() */
    close(socket_lock);
    close(dir_lock);
    socket_lock = dir_lock = -1;
}

static int lock_start(struct eg_daemon *d) {
    char path[PATH_MAX], what[PATH_MAX];
    const struct eg_config *c = &d->config;

    int rc = make_directories(c->dir, 0700);
    if (rc != EAGRE_OK)
        return rc;
    eg_socket_directory(c->socket, path, sizeof(path));
    rc = make_directories(path, geteuid() == 0 ? 0755 : 0700);
    if (rc == EAGRE_OK)
        rc = check_owner(path);
    if (rc != EAGRE_OK)
        return rc;

    snprintf(path, sizeof(path), "%.4080s/lock", c->dir);
    snprintf(what, sizeof(what), "the directory %.4080s", c->dir);
    rc = lock_file(path, what, &dir_lock);
    if (rc != EAGRE_OK)
        return rc;
    eg_side_path(c, ".lock", path, sizeof(path));
    snprintf(what, sizeof(what), "the socket %s", c->socket);
    rc = lock_file(path, what, &socket_lock);
    if (rc != EAGRE_OK) {
        close(dir_lock);
        return rc;
    }
    eg_side_path(c, ".pid", path, sizeof(path));
    rc = eg_pid_file_write(path, getpid());
    if (rc != EAGRE_OK)
        lock_stop(d, true);
    return rc;
}

const struct eg_service eg_lock_service = {.name = "lock", .start = lock_start, .stop = lock_stop};
