#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "keeper/table.h"
#include "logger.h"
#include "parse.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

enum type { PATH, SIZE, COUNT, MILLISECONDS, MODE, CHOICE, CPUS, TEXT };

struct entry {
    const char *name;
    enum type type;
    size_t at;        /* offset in struct eg_config */
    size_t cap;       /* PATH, CPUS, TEXT: bytes there */
    int64_t min, max; /* numbers */
    const char
        *standard; /* default, as eg_config_set() reads it; NULL: eg_config_init() finds it */
    const char *choices[5];    /* CHOICE: value i is the i-th */
    const char *standard_text; /* for the help, where standard is NULL */
    const char *help;
};

#define AT(field) offsetof(struct eg_config, field), sizeof(((struct eg_config *)0)->field)

/* clang-format off */
static const struct entry entries[] = {
    {"dir", PATH, AT(dir), 0, 0, NULL, {0}, 
     "/var/lib/eagre for root, else ~/.local/share/eagre; as a service $STATE_DIRECTORY",
     "Directory of what must survive everything: topics, settings, offsets."},
    {"socket", PATH, AT(socket), 0, 0, NULL, {0},
     "/run/eagre/eagre.sock for root, else $XDG_RUNTIME_DIR/eagre/eagre.sock; as a service eagre.sock "
     "in $RUNTIME_DIRECTORY",
     "Control socket. At most 107 bytes, its file name at most 75. Its lock, the pid files and "
     "the keeper's socket lie beside it, with names that begin with its own."},
    {"socket.mode", MODE, AT(socket_mode), 0, 0777, NULL, {0}, "0660 for root and system services, else 0600",
     "Permissions of the control socket: who may connect."},
    {"memory.max", SIZE, AT(memory_max), 1 << 20, INT64_MAX, NULL, {0},
     "half of what this machine or cgroup has",
     "Bytes that all topics together may grow to; a topic that does not fit is refused."},
    {"memory.max.per.uid", SIZE, AT(memory_max_per_uid), 0, INT64_MAX, "0", {0}, NULL,
     "The same for the topics that one Unix user created; not for root and the daemon's own user. 0: half of "
     "memory.max."},
    {"topics.max", COUNT, AT(topics_max), 1, 65536, "1024", {0}, NULL,
     "Topics of the instance."},
    {"topics.max.per.uid", COUNT, AT(topics_max_per_uid), 0, 65536, "0", {0}, NULL,
     "Those that one Unix user created; not for root and the daemon's own user. 0: a quarter of topics.max."},
    {"buffers.max.per.uid", COUNT, AT(buffers_max_per_uid), 1, 65536, NULL, {0},
     "16384, or a quarter of RLIMIT_NOFILE if that is less",
     "Partitions x ring.segments of the topics that one Unix user created: each is a descriptor of the daemon "
     "and of the keeper, which can hold 65,536; not for root and the daemon's own user."},
    {"clients.max", COUNT, AT(clients_max), 1, 16383, "4096", {0}, NULL,
     "Processes that produce or consume at the same time."},
    {"clients.max.per.uid", COUNT, AT(clients_max_per_uid), 1, 16383, "1024", {0}, NULL,
     "The same, for each Unix user."},
    {"connections.max", COUNT, AT(connections_max), 1, 65536, "4096", {0}, NULL,
     "Connections to the control socket."},
    {"connections.max.per.uid", COUNT, AT(connections_max_per_uid), 1, 65536, "1024", {0}, NULL,
     "The same, for each Unix user."},
    {"bells.max.per.uid", COUNT, AT(bells_max_per_uid), 1, 4096, "1024", {0}, NULL,
     "Consumers of each Unix user that may sleep; an instance has 4096 bells for them."},
    {"groups.max", COUNT, AT(groups_max), 1, 65536, "4096", {0}, NULL,
     "Consumer groups of the instance, those without members included."},
    {"groups.max.per.uid", COUNT, AT(groups_max_per_uid), 0, 65536, "0", {0}, NULL,
     "Those that one Unix user made; not for root and the daemon's own user. 0: a quarter of groups.max."},
    {"members.max.per.uid", COUNT, AT(members_max_per_uid), 1, 16384, "4096", {0}, NULL,
     "Members of groups, of each Unix user; an instance has room for 16384."},
    {"group.share.record.lock.duration.ms", COUNT, AT(share_lock_ms), 100, 3600000, "30000", {0}, NULL,
     "Share groups: how long a member may have a record before another one gets it."},
    {"group.share.delivery.count.limit", COUNT, AT(share_delivery_limit), 1, 30, "5", {0}, NULL,
     "Share groups: a record that was delivered so often and not accepted is not delivered again."},
    {"group.share.partition.max.record.locks", COUNT, AT(share_max_locks), 64, 65536, "4096", {0}, NULL,
     "Share groups: records of a partition that members may have at a time, and how far one may be ahead of the "
     "first that is not done; the next power of two."},
    {"disk.min.free.bytes", SIZE, AT(disk_min_free_bytes), 0, INT64_MAX, "67108864", {0}, NULL,
     "No log file is made that would leave less free on the disk of --dir, so that metadata can be written."},
    {"disk.io", CHOICE, AT(disk_io), 0, 0, "auto", {"auto", "io_uring", "threads"}, NULL,
     "How log files are written. auto: io_uring where the kernel allows it."},
    {"cpus", CPUS, AT(cpus), 0, 0, "", {0}, NULL,
     "CPUs that the daemon's thread may run on, as 0-3,8. Empty: any."},
    {"access.create", TEXT, AT(access_create), 0, 0, "*", {0}, NULL,
     "Who may create topics: a comma list of *, user:NAME, user:UID, group:NAME, group:GID."},
    {"log.level", CHOICE, AT(log_level), 0, 0, "info", {"error", "warning", "info", "debug"}, NULL,
     "What is logged to stderr."},
    {"keeper", CHOICE, AT(keeper), 0, 0, "auto", {"auto", "process", "systemd", "none"}, NULL,
     "Who holds the memory while no daemon runs: a small process of its own, systemd's descriptor "
     "store, or nobody. auto: systemd where it started the daemon, else the process."},
    {"offsets.retention.ms", MILLISECONDS, AT(offsets_retention_ms), -1, INT64_MAX / 1000000, "-1", {0}, NULL,
     "What a consumer group has committed is forgotten when the group has had no members and no commits for so long. -1: "
     "never."},
    {"stall.warn.ms", MILLISECONDS, AT(stall_warn_ms), -1, INT64_MAX / 1000000, "10000", {0}, NULL,
     "When readers wait so long at a record that a living producer has begun and not published, this is told in "
     "the log, in eagre status and in eagre topic describe. 0 or -1: never."},
    {"stall.kill", CHOICE, AT(stall_kill), 0, 0, "false", {"false", "true"}, NULL,
     "true: then such a producer's process is killed, and readers go on. Never with writers=single."},
    {"keeper.linger.ms", MILLISECONDS, AT(keeper_linger_ms), -1, INT64_MAX / 1000000, "-1", {0},
     NULL, "The keeper process ends when no daemon was there for so long. -1: never."},
};
/* clang-format on */

#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

static void *field(struct eg_config *c, const struct entry *e) { return (char *)c + e->at; }

static const struct entry *find(const char *name) {
    for (size_t i = 0; i < ENTRIES; i++)
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    return NULL;
}

static int unknown(const char *where, const char *name) {
    const struct entry *best = NULL;
    size_t best_distance = 5; /* further away is no misspelling */
    for (size_t i = 0; i < ENTRIES; i++) {
        size_t distance = eg_text_distance(name, entries[i].name);
        if (distance < best_distance) {
            best_distance = distance;
            best = &entries[i];
        }
    }
    if (best != NULL)
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "%s: there is no setting '%s': did you mean '%s'?", where, name,
                            best->name);
    return eg_error_set(EAGRE_E_INVALID_CONFIG,
                        "%s: there is no setting '%s': see eagred --help-config", where, name);
}

/* "0-3,8": numbers and ranges that do not run backwards. */
static bool is_cpu_list(const char *s) {
    if (*s == '\0')
        return true;
    for (;;) {
        char *end;
        if (!isdigit((unsigned char)*s))
            return false;
        unsigned long first = strtoul(s, &end, 10), last = first;
        if (*end == '-') {
            if (!isdigit((unsigned char)end[1]))
                return false;
            last = strtoul(end + 1, &end, 10);
        }
        if (last < first || last > 65535)
            return false;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
        s = end + 1;
    }
}

static void range_text(const struct entry *e, char *buf, size_t cap) {
    char max[32];
    switch (e->type) {
    case SIZE:
        snprintf(buf, cap, "bytes, at least %s (suffixes K, M, G, T are powers of 1024)",
                 eg_print_size((uint64_t)e->min, max, sizeof(max)));
        break;
    case COUNT:
        snprintf(buf, cap, "%" PRId64 " to %" PRId64, e->min, e->max);
        break;
    case MILLISECONDS:
        snprintf(buf, cap, "milliseconds, or -1");
        break;
    case MODE:
        snprintf(buf, cap, "an octal mode, 0000 to 0777");
        break;
    case CHOICE:
        buf[0] = '\0';
        for (size_t i = 0; e->choices[i] != NULL; i++) {
            size_t n = strlen(buf);
            snprintf(buf + n, cap - n, "%s%s", i > 0 ? ", " : "", e->choices[i]);
        }
        break;
    case PATH:
        snprintf(buf, cap, "a path of at most %zu bytes", e->cap - 1);
        break;
    case CPUS:
        snprintf(buf, cap, "a list of CPU numbers and ranges, as 0-3,8");
        break;
    case TEXT:
        snprintf(buf, cap, "at most %zu bytes", e->cap - 1);
        break;
    }
}

static bool set(struct eg_config *c, const struct entry *e, const char *value) {
    int64_t i;
    uint64_t u;
    char *end;
    switch (e->type) {
    case SIZE:
        if (!eg_parse_size(value, &u) || u < (uint64_t)e->min || u > (uint64_t)e->max)
            return false;
        *(uint64_t *)field(c, e) = u;
        return true;
    case COUNT:
        if (!eg_parse_int(value, &i) || i < e->min || i > e->max)
            return false;
        *(uint32_t *)field(c, e) = (uint32_t)i;
        return true;
    case MILLISECONDS:
        if (!eg_parse_int(value, &i) || i < e->min || i > e->max)
            return false;
        *(int64_t *)field(c, e) = i;
        return true;
    case MODE:
        if (*value < '0' || *value > '7')
            return false;
        u = strtoul(value, &end, 8);
        if (*end != '\0' || u > 0777)
            return false;
        *(uint32_t *)field(c, e) = (uint32_t)u;
        return true;
    case CHOICE:
        for (int k = 0; e->choices[k] != NULL; k++) {
            if (strcmp(value, e->choices[k]) == 0) {
                *(int *)field(c, e) = k;
                return true;
            }
        }
        return false;
    case CPUS:
        if (!is_cpu_list(value))
            return false;
        break;
    case PATH:
        if (*value == '\0')
            return false;
        break;
    case TEXT:
        break;
    }
    size_t n = strlen(value);
    if (n >= e->cap)
        return false;
    memcpy(field(c, e), value, n + 1);
    return true;
}

int eg_config_set(struct eg_config *c, const char *where, const char *name, const char *value) {
    const struct entry *e = find(name);
    if (e == NULL)
        return unknown(where, name);
    if (!set(c, e, value)) {
        char range[160];
        range_text(e, range, sizeof(range));
        size_t n = strlen(value);
        if (e->type == PATH && n >= e->cap)
            return eg_error_set(
                EAGRE_E_INVALID_CONFIG,
                "%s: the path %s=%.120s... has %zu bytes, at most %zu are possible: "
                "choose a shorter one",
                where, name, value, n, e->cap - 1);
        return eg_error_set(EAGRE_E_INVALID_CONFIG, "%s: %s=%.100s is not possible: it must be %s",
                            where, name, value, range);
    }
    return EAGRE_OK;
}

static char *trim(char *s) {
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
    return s;
}

int eg_config_load(struct eg_config *c, const char *path) {
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return eg_error_set(EAGRE_E_IO, "%s: cannot read the configuration: %s", path,
                            strerror(errno));
    int rc = EAGRE_OK;
    char *line = NULL;
    size_t cap = 0;
    for (unsigned number = 1; rc == EAGRE_OK && getline(&line, &cap, f) >= 0; number++) {
        line[strcspn(line, "#")] = '\0';
        char *name = trim(line);
        if (*name == '\0')
            continue;
        char where[PATH_MAX + 16];
        snprintf(where, sizeof(where), "%s:%u", path, number);
        char *equals = strchr(name, '=');
        if (equals == NULL) {
            rc = eg_error_set(EAGRE_E_INVALID_CONFIG, "%s: '%.60s' is not name=value", where, name);
        } else {
            *equals = '\0';
            rc = eg_config_set(c, where, trim(name), trim(equals + 1));
        }
    }
    if (rc == EAGRE_OK && ferror(f))
        rc = eg_error_set(EAGRE_E_IO, "%s: cannot read the configuration: %s", path,
                          strerror(errno));
    free(line);
    fclose(f);
    return rc;
}

/* systemd's RuntimeDirectory= and StateDirectory=; of several, the first. NULL: not from there. */
static const char *from_systemd(const char *variable, int *length) {
    const char *path = getenv(variable);
    if (path == NULL || path[0] != '/')
        return NULL;
    *length = (int)strcspn(path, ":");
    return path;
}

/* Where this user's daemon lives. A variable that is unset or relative does not count (XDG). */
static void default_paths(struct eg_config *c) {
    int rn = 0, sn = 0;
    const char *runtime = from_systemd("RUNTIME_DIRECTORY", &rn);
    const char *store = from_systemd("STATE_DIRECTORY", &sn);
    c->socket_mode = geteuid() == 0 || runtime != NULL ? 0660 : 0600;
    if (runtime != NULL && store != NULL && rn <= 90 && sn <= 4000) {
        snprintf(c->dir, sizeof(c->dir), "%.*s", sn, store);
        snprintf(c->socket, sizeof(c->socket), "%.*s/eagre.sock", rn, runtime);
        return;
    }
    if (geteuid() == 0) {
        snprintf(c->dir, sizeof(c->dir), "/var/lib/eagre");
        snprintf(c->socket, sizeof(c->socket), "/run/eagre/eagre.sock");
        return;
    }
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data != NULL && data[0] == '/')
        snprintf(c->dir, sizeof(c->dir), "%.4000s/eagre", data);
    else if (home != NULL && home[0] == '/')
        snprintf(c->dir, sizeof(c->dir), "%.4000s/.local/share/eagre", home);
    const char *run = getenv("XDG_RUNTIME_DIR");
    if (run != NULL && run[0] == '/' &&
        strlen(run) + sizeof("/eagre/eagre.sock") <= sizeof(c->socket))
        snprintf(c->socket, sizeof(c->socket), "%.80s/eagre/eagre.sock", run);
    else
        snprintf(c->socket, sizeof(c->socket), "/tmp/eagre-%u/eagre.sock", (unsigned)geteuid());
}

int eg_config_init(struct eg_config *c) {
    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < ENTRIES; i++)
        if (entries[i].standard != NULL && !set(c, &entries[i], entries[i].standard))
            return eg_error_set(EAGRE_E_INTERNAL, "the default of %s is not possible",
                                entries[i].name);
    default_paths(c);
    uint64_t limit;
    int rc = eg_memory_limit(&limit);
    if (rc != EAGRE_OK)
        return rc;
    c->memory_max = limit / 2;
    struct rlimit files; /* main.c raises it as far as it may */
    uint64_t quarter = getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_max / 4 : UINT64_MAX;
    c->buffers_max_per_uid = quarter < EG_KEPT_MAX / 4 ? (uint32_t)quarter : EG_KEPT_MAX / 4;
    return EAGRE_OK;
}

static int make_absolute(char *path, size_t cap, const char *name) {
    if (path[0] == '/')
        return EAGRE_OK;
    char here[PATH_MAX];
    if (getcwd(here, sizeof(here)) == NULL)
        return eg_error_set(EAGRE_E_IO, "%s=%s: cannot find the current directory: %s", name, path,
                            strerror(errno));
    size_t a = strlen(here), b = strlen(path);
    if (a + 1 + b >= cap)
        return eg_error_set(
            EAGRE_E_INVALID_CONFIG,
            "%s=%s/%.200s has %zu bytes, at most %zu are possible: choose a shorter one", name,
            here, path, a + 1 + b, cap - 1);
    memmove(path + a + 1, path, b + 1);
    memcpy(path, here, a);
    path[a] = '/';
    return EAGRE_OK;
}

int eg_config_finish(struct eg_config *c) {
    if (c->dir[0] == '\0')
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "no directory for the data: HOME is not set, give --dir=DIR");
    int rc = make_absolute(c->dir, sizeof(c->dir), "dir");
    if (rc == EAGRE_OK)
        rc = make_absolute(c->socket, sizeof(c->socket), "socket");
    if (rc != EAGRE_OK)
        return rc;
    const char *slash = strrchr(c->socket, '/');
    if (strlen(slash + 1) > EG_SOCKET_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "socket=%s: its file name has %zu bytes, at most %d are possible, so that its keeper's "
                            "socket can lie beside it: choose a shorter one",
                            c->socket, strlen(slash + 1), EG_SOCKET_NAME_MAX);
    if (c->memory_max_per_uid == 0)
        c->memory_max_per_uid = c->memory_max / 2;
    if (c->topics_max_per_uid == 0)
        c->topics_max_per_uid = c->topics_max < 4 ? 1 : c->topics_max / 4;
    if (c->groups_max_per_uid == 0)
        c->groups_max_per_uid = c->groups_max < 4 ? 1 : c->groups_max / 4;
    if (c->groups_max_per_uid > c->groups_max)
        c->groups_max_per_uid = c->groups_max;
    if (c->memory_max_per_uid > c->memory_max)
        c->memory_max_per_uid = c->memory_max;
    if (c->topics_max_per_uid > c->topics_max)
        c->topics_max_per_uid = c->topics_max;
    if (c->clients_max_per_uid > c->clients_max)
        c->clients_max_per_uid = c->clients_max;
    if (c->connections_max_per_uid > c->connections_max)
        c->connections_max_per_uid = c->connections_max;
    return EAGRE_OK;
}

const char *eg_config_name(size_t i) { return i < ENTRIES ? entries[i].name : NULL; }

const char *eg_config_print(const struct eg_config *c, size_t i, char *buf, size_t cap) {
    const struct entry *e = &entries[i];
    const void *at = (const char *)c + e->at;
    switch (e->type) {
    case SIZE:
        return eg_print_size(*(const uint64_t *)at, buf, cap);
    case COUNT:
        snprintf(buf, cap, "%" PRIu32, *(const uint32_t *)at);
        break;
    case MILLISECONDS:
        snprintf(buf, cap, "%" PRId64, *(const int64_t *)at);
        break;
    case MODE:
        snprintf(buf, cap, "%04o", *(const uint32_t *)at);
        break;
    case CHOICE:
        snprintf(buf, cap, "%s", e->choices[*(const int *)at]);
        break;
    case PATH:
    case CPUS:
    case TEXT:
        snprintf(buf, cap, "%s", (const char *)at);
        break;
    }
    return buf;
}

void eg_config_help(FILE *f) {
    for (size_t i = 0; i < ENTRIES; i++) {
        const struct entry *e = &entries[i];
        char range[160];
        range_text(e, range, sizeof(range));
        const char *standard = e->standard != NULL ? e->standard : e->standard_text;
        fprintf(f, "%s\n    %s\n    Value: %s. Default: %s.\n", e->name, e->help, range,
                *standard != '\0' ? standard : "empty");
    }
}
