/*
 * memory.c - see memory.h; and the eg_memory_*() of shm.h.
 */
#include "sys/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

/* The beginning of a small file as a string; false with errno if it cannot be read. */
static bool read_text(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t n = 0;
    ssize_t got = 0;
    while (n < cap - 1 &&
           ((got = read(fd, buf + n, cap - 1 - n)) > 0 || (got < 0 && errno == EINTR))) {
        n += got > 0 ? (size_t)got : 0;
    }
    buf[n] = '\0';
    int error = errno;
    (void)close(fd);
    errno = error;
    return got >= 0;
}

/* The number that follows "key " at the beginning of a line, or 0. */
static uint64_t value_of(const char *text, const char *key) {
    const size_t len = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && (line[len] == ' ' || line[len] == ':')) {
            return strtoull(line + len + 1, NULL, 10);
        }
    }
    return 0;
}

/* Whether a comma-separated list has the word. */
static bool list_has(const char *list, size_t list_len, const char *word) {
    const size_t len = strlen(word);
    for (const char *p = list, *end = list + list_len; p < end;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma != NULL ? comma : end;
        if ((size_t)(stop - p) == len && memcmp(p, word, len) == 0) {
            return true;
        }
        p = stop + 1;
    }
    return false;
}

/*
 * The path of this process in the hierarchy: from a line "N:controllers:/path" of proc/self/cgroup,
 * for v2 "0::/path".
 */
static bool path_in(const char *text, bool v2, char *out, size_t cap) {
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        const char *list = memchr(line, ':', (size_t)(end - line));
        const char *path = list == NULL ? NULL : memchr(list + 1, ':', (size_t)(end - list - 1));
        if (path != NULL) {
            const size_t list_len = (size_t)(path - list - 1);
            const size_t path_len = (size_t)(end - path - 1);
            if ((v2 ? list_len == 0 : list_has(list + 1, list_len, "memory")) && path_len < cap) {
                memcpy(out, path + 1, path_len);
                out[path_len] = '\0';
                return true;
            }
        }
        line = *end == '\n' ? end + 1 : NULL;
    }
    return false;
}

/*
 * Where the group is under a mount of its hierarchy. In a container the mount may show only a
 * subtree (root), and the path may lie in it or, seen from outside, nowhere: then the mount point
 * itself is the best there is.
 */
static void place(const char *root, const char *mount, const char *path, struct eg_cgroup *out) {
    const size_t root_len = strcmp(root, "/") == 0 ? 0 : strlen(root);
    const char *rest = "";
    if (strncmp(path, root, root_len) == 0 && (path[root_len] == '/' || path[root_len] == '\0')) {
        rest = path + root_len;
    }
    out->top_len = strlen(mount);
    int n = snprintf(out->dir, sizeof out->dir, "%s%s", mount, strcmp(rest, "/") == 0 ? "" : rest);
    if (n < 0 || (size_t)n >= sizeof out->dir || access(out->dir, F_OK) != 0) {
        (void)snprintf(out->dir, sizeof out->dir, "%s", mount);
    }
}

void eg_cgroups_find(const char *proc, const char *text, struct eg_cgroups *out) {
    char name[EG_CGROUP_PATH_MAX];
    char *line = NULL;
    size_t line_cap = 0;
    bool have[2] = {false, false}; /* v1, v2 */

    memset(out, 0, sizeof *out);
    (void)snprintf(out->text, sizeof out->text, "%s", text);
    (void)snprintf(name, sizeof name, "%s/self/mountinfo", proc);
    FILE *f = fopen(name, "re");
    if (f == NULL) {
        return;
    }
    /* "id parent dev root mount-point options [tags] - type source super-options" */
    while (getline(&line, &line_cap, f) > 0) {
        char root[EG_CGROUP_PATH_MAX], mount[EG_CGROUP_PATH_MAX], path[EG_CGROUP_PATH_MAX];
        char type[32], options[256];
        const char *tail = strstr(line, " - ");
        if (tail == NULL || sscanf(tail, " - %31s %*s %255s", type, options) != 2 ||
            strncmp(type, "cgroup", 6) != 0 ||
            sscanf(line, "%*s %*s %*s %1023s %1023s", root, mount) != 2) {
            continue;
        }
        const bool v2 = strcmp(type, "cgroup2") == 0;
        if (have[v2] || (!v2 && !list_has(options, strlen(options), "memory")) ||
            !path_in(text, v2, path, sizeof path)) {
            continue;
        }
        struct eg_cgroup *group = &out->group[out->count++];
        group->v2 = v2;
        place(root, mount, path, group);
        have[v2] = true;
    }
    free(line);
    (void)fclose(f);
}

/* dir/file as a number; false if there is none: "max", a missing file. */
static bool read_number(const char *dir, const char *file, uint64_t *out) {
    char path[EG_CGROUP_PATH_MAX + 64];
    char text[64];
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9') {
        return false;
    }
    *out = strtoull(text, NULL, 10);
    return true;
}

/* Page cache of the group and those below it that can go when memory is wanted. Shared memory is
 * not in these figures: it has no file to go to. */
static uint64_t droppable(const char *dir, bool v2) {
    char path[EG_CGROUP_PATH_MAX + 64];
    char text[8192];
    (void)snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (!read_text(path, text, sizeof text)) {
        return 0;
    }
    return v2 ? value_of(text, "inactive_file") + value_of(text, "active_file")
              : value_of(text, "total_inactive_file") + value_of(text, "total_active_file");
}

static void measure_group(const char *dir, bool v2, struct eg_memory_room *room) {
    uint64_t limit, used;
    if (!read_number(dir, v2 ? "memory.max" : "memory.limit_in_bytes", &limit) ||
        limit > UINT64_C(1) << 62 || /* v1's way to say: none */
        !read_number(dir, v2 ? "memory.current" : "memory.usage_in_bytes", &used)) {
        return;
    }
    const uint64_t cache = droppable(dir, v2);
    used -= cache < used ? cache : used;
    const uint64_t left = used < limit ? limit - used : 0;
    if (limit < room->limit) {
        room->limit = limit;
    }
    if (left < room->left) {
        room->left = left;
        (void)snprintf(room->what, sizeof room->what,
                       "the memory cgroup %s allows %" PRIu64 " bytes, of which %" PRIu64
                       " are in use",
                       dir, limit, used);
    }
}

int eg_memory_measure(const char *proc, const struct eg_cgroups *groups,
                      struct eg_memory_room *out) {
    char path[EG_CGROUP_PATH_MAX];
    char text[4096];
    (void)snprintf(path, sizeof path, "%s/meminfo", proc);
    if (!read_text(path, text, sizeof text)) {
        return eg_error_set(EAGRE_E_SYSTEM, "%s: %s", path, strerror(errno));
    }
    struct eg_memory_room room = {.limit = value_of(text, "MemTotal") * 1024,
                                  .left = value_of(text, "MemAvailable") * 1024};
    if (room.limit == 0) {
        return eg_error_set(EAGRE_E_SYSTEM, "%s: no MemTotal in it", path);
    }
    (void)snprintf(room.what, sizeof room.what,
                   "the host has %" PRIu64 " bytes of RAM, of which %" PRIu64 " are available",
                   room.limit, room.left);

    for (size_t i = 0; i < groups->count; i++) {
        struct eg_cgroup group = groups->group[i];
        for (;;) {
            measure_group(group.dir, group.v2, &room);
            char *slash = strrchr(group.dir + group.top_len, '/');
            if (slash == NULL) {
                break;
            }
            *slash = '\0'; /* on to the parent */
        }
    }
    *out = room;
    return EAGRE_OK;
}

/*
 * The groups of this process, looked up again only when proc/self/cgroup has changed (somebody moved
 * the process). Written by whoever finds a change (CAS, release: the struct is complete), read by
 * all (acquire). Older ones are kept, since others may be reading them; moves are rare.
 */
static struct eg_cgroups *_Atomic cached;

static const struct eg_cgroups *own_groups(void) {
    static const struct eg_cgroups none;
    char text[EG_CGROUP_TEXT_MAX];
    if (!read_text("/proc/self/cgroup", text, sizeof text)) {
        return &none;
    }
    struct eg_cgroups *seen = eg_load_acquire(&cached);
    if (seen != NULL && strcmp(seen->text, text) == 0) {
        return seen;
    }
    struct eg_cgroups *fresh = malloc(sizeof *fresh);
    if (fresh == NULL) {
        return seen != NULL ? seen : &none;
    }
    eg_cgroups_find("/proc", text, fresh);
    fresh->older = seen;
    if (eg_cas_acq_rel(&cached, &seen, fresh)) {
        return fresh;
    }
    free(fresh);
    return seen; /* another thread's, just as new */
}

int eg_memory_limit(uint64_t *bytes_out) {
    struct eg_memory_room room;
    int status = eg_memory_measure("/proc", own_groups(), &room);
    if (status == EAGRE_OK) {
        *bytes_out = room.limit;
    }
    return status;
}

int eg_memory_headroom(uint64_t *bytes_out) {
    struct eg_memory_room room;
    int status = eg_memory_measure("/proc", own_groups(), &room);
    if (status == EAGRE_OK) {
        *bytes_out = room.left;
    }
    return status;
}

int eg_memory_check(uint64_t wanted) {
    struct eg_memory_room room;
    if (eg_memory_measure("/proc", own_groups(), &room) != EAGRE_OK) {
        return EAGRE_OK; /* without figures the kernel decides */
    }
    if (room.left < wanted) {
        return eg_error_set(EAGRE_E_NO_MEMORY, "%s; with a reserve %" PRIu64 " are needed",
                            room.what, wanted);
    }
    return EAGRE_OK;
}
