#include "state.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "layout/layout.h"
#include "system/harness_raw.h"

#define CLIENTS 200

/* The allocator keeps what it got: caches, pages that are free again, a mapping in two parts; and LMDB
 * keeps pages for its next transaction. What comes and goes is some 250 KiB. A record of a session or
 * client that stayed each time (100 bytes at least) shows above this in 10^4 cycles, and in any number
 * under ASan, whose daemon reports it when it ends. */
#define ANONYMOUS_SLACK (2 << 20)
#define ALLOCATED_SLACK (512 << 10)
#define MAPPINGS_SLACK 12
/* LMDB takes pages from its list of free ones; how long that is depends on what met what. */
#define FILE_SLACK (16 * 4096)
/* The members' file is as large as its largest transaction made it: of as many members as came together. */
#define MEMBERS_SLACK (64 * 4096)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_ALLOCATOR 0 /* the sanitizer's keeps what is freed, on purpose */
#else
#define OWN_ALLOCATOR 1
#endif

static struct eg_raw raw[CLIENTS];

static struct soak_figure *find(struct soak_state *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->figure[i].name, name) == 0)
            return &s->figure[i];
    return NULL;
}

static void add(struct soak_state *s, long long value, long long slack, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void add(struct soak_state *s, long long value, long long slack, const char *fmt, ...) {
    char name[sizeof(s->figure[0].name)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    struct soak_figure *f = find(s, name);
    if (f == NULL) {
        assert_true(s->count < SOAK_FIGURES);
        f = &s->figure[s->count++];
        *f = (struct soak_figure){.slack = slack};
        strcpy(f->name, name);
    }
    f->value += value;
}

/* ---- processes --------------------------------------------------------------------------------------- */

/* "memfd:eagre:c17" and "socket:[4711]" are kinds; which one it is does not matter. */
static void without_numbers(char *text) {
    char *to = text;
    for (const char *from = text; *from != '\0'; from++)
        if (!isdigit((unsigned char)*from))
            *to++ = *from;
    *to = '\0';
}

static void count_descriptors(struct soak_state *s, const char *who, pid_t pid) {
    char path[300], target[128];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        without_numbers(target);
        add(s, 1, 0, "%s: descriptors", who);
        add(s, 1, 0, "%s: descriptors of %s", who, target);
        if (strncmp(target, "/memfd:", 7) == 0 && stat(path, &st) == 0)
            add(s, (long long)st.st_blocks * 512, 0, "%s: bytes of memfds", who);
    }
    closedir(d);
}

static void count_mappings(struct soak_state *s, const char *who, pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        bool shared = strstr(line, "/memfd:") != NULL;
        if (shared)
            add(s, 1, 0, "%s: mappings of memfds", who);
        else if (OWN_ALLOCATOR)
            add(s, 1, MAPPINGS_SLACK, "%s: other mappings", who);
    }
    fclose(f);
}

static void count_memory(struct soak_state *s, const char *who, pid_t pid) {
    char path[64], line[256];
    long long kib;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return; /* not built into this kernel */
    while (OWN_ALLOCATOR && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "Anonymous: %lld", &kib) == 1)
            add(s, kib * 1024, ANONYMOUS_SLACK, "%s: anonymous memory", who);
        if (sscanf(line, "Pss: %lld", &kib) == 1)
            add(s, kib * 1024, ANONYMOUS_SLACK, "%s: PSS", who);
    }
    fclose(f);
}

/* ---- files --------------------------------------------------------------------------------------------- */

static void count_files(struct soak_state *s, const char *path, const char *log) {
    char below[512];
    struct stat st;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] == '.' || strcmp(below, log) == 0 || lstat(below, &st) != 0)
            continue;
        add(s, 1, 0, "files");
        if (S_ISDIR(st.st_mode))
            count_files(s, below, log);
        else
            add(s, st.st_size,
                strcmp(entry->d_name, "data.mdb") == 0    ? FILE_SLACK
                : strstr(entry->d_name, ".1.mdb") != NULL ? MEMBERS_SLACK
                                                          : 0,
                "bytes of %s", entry->d_name);
    }
    closedir(d);
}

/* ---- what the daemon says ------------------------------------------------------------------------------ */

static long long figure(const char *name) {
    char text[256];
    eg_raw_figure(&raw[0], name, text, sizeof(text));
    return text[0] == '\0' ? -1 : atoll(text);
}

static bool is_quiet(void *ctx) {
    (void)ctx;
    return figure("clients") == 0 && figure("sessions") == 1 && figure("memory.pinned") == 0;
}

static uint32_t attach(struct eg_raw *r) {
    eg_raw_begin(r, EG_MSG_ATTACH);
    eg_enc_u32(&r->enc, 0);
    eg_enc_u64(&r->enc, 0);
    assert_int_equal(eg_raw_ask(r), 0);
    for (size_t i = 0; i < r->nfds; i++)
        close(r->fds[i]);
    return eg_dec_u32(&r->dec);
}

static void attach_all(const struct eg_test_bus *b, uint32_t *owners) {
    for (size_t i = 1; i < CLIENTS; i++) {
        eg_raw_connect(&raw[i], b->socket);
        eg_raw_hello(&raw[i], NULL);
        owners[i] = attach(&raw[i]);
    }
}

static void close_all(void) {
    for (size_t i = 1; i < CLIENTS; i++)
        eg_raw_close(&raw[i]);
}

/* Each thing of which there is a fixed number is asked for until there is no more. */
static void count_what_is_free(struct soak_state *s, const struct eg_test_bus *b) {
    uint32_t owners[CLIENTS];
    long long gaps = 0, bells = 0;
    attach_all(b, owners);
    for (uint32_t i = 1; i < CLIENTS; i++) /* the lowest free one is given */
        gaps += owners[i] - i;
    add(s, gaps, 0, "owner numbers passed over");
    do {
        eg_raw_begin(&raw[1], EG_MSG_BELL);
    } while (eg_raw_ask(&raw[1]) == 0 && ++bells <= EG_BELLS_MAX);
    add(s, EG_BELLS_MAX - bells, 0, "bells in use");
    close_all();
    eg_wait_until(is_quiet, NULL, "our own clients are gone");
}

static void count_figures(struct soak_state *s) {
    static const char *const exact[] = {"clients",      "sessions",         "topics",
                                        "partitions",   "memory.committed", "memory.allocated",
                                        "memory.pinned"};
    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
        add(s, figure(exact[i]), 0, "%s", exact[i]);
    if (OWN_ALLOCATOR && figure("jemalloc.allocated") >= 0)
        add(s, figure("jemalloc.allocated"), ALLOCATED_SLACK, "jemalloc.allocated");
}

static void delete_left_topics(const struct eg_test_bus *b) {
    eagre_t *e;
    eagre_topic_entry_t *list;
    size_t n;
    if (eagre_open(b->socket, &e) != EAGRE_OK || eagre_topic_list(e, &list, &n) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    for (size_t i = 0; i < n; i++)
        if (strncmp(list[i].name, "x-", 2) == 0 && eagre_topic_delete(e, list[i].name) != EAGRE_OK)
            fail_msg("%s", eagre_error_detail());
    free(list);
    eagre_close(e);
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

static void count(const struct eg_test_bus *b, struct soak_state *s) {
    pid_t keeper = eg_bus_keeper(b);
    memset(s, 0, sizeof(*s));
    count_what_is_free(s, b);
    count_figures(s);
    count_descriptors(s, "eagred", b->pid);
    count_descriptors(s, "keeper", keeper);
    count_mappings(s, "eagred", b->pid);
    count_mappings(s, "keeper", keeper);
    count_memory(s, "eagred", b->pid);
    count_memory(s, "keeper", keeper);
    count_files(s, b->dir, b->log);
}

static void begin(const struct eg_test_bus *b) {
    delete_left_topics(b);
    eg_raw_connect(&raw[0], b->socket);
    eg_raw_hello(&raw[0], NULL);
    eg_wait_until(is_quiet, NULL, "everybody is gone for the daemon, too");
}

static void end(void) { eg_raw_close(&raw[0]); }

void soak_state_take(const struct eg_test_bus *b, struct soak_state *s) {
    begin(b);
    count(b, s);
    end();
}

/* The first thing that has grown, or that is new; NULL: nothing. */
static const struct soak_figure *grown(struct soak_state *before, struct soak_state *now) {
    for (size_t i = 0; i < now->count; i++) {
        const struct soak_figure *f = &now->figure[i], *was = find(before, f->name);
        if (f->value > (was != NULL ? was->value : 0) + f->slack)
            return f;
    }
    return NULL;
}

struct comparison {
    const struct eg_test_bus *b;
    struct soak_state *before, *now;
    unsigned looks;
};

static bool has_not_grown(void *ctx) {
    struct comparison *c = ctx;
    count(c->b, c->now);
    const struct soak_figure *f = grown(c->before, c->now);
    if (f != NULL && ++c->looks == 60) { /* spare buffers and the like are gone long before */
        const struct soak_figure *was = find(c->before, f->name);
        soak_state_print(c->before);
        soak_state_print(c->now);
        fail_msg("%s: %lld, and %lld before", f->name, f->value, was != NULL ? was->value : 0);
    }
    return f == NULL;
}

void soak_state_wait(const struct eg_test_bus *b, const struct soak_state *before,
                     struct soak_state *now) {
    struct soak_state copy = *before;
    struct comparison c = {.b = b, .before = &copy, .now = now};
    begin(b);
    eg_wait_until(has_not_grown, &c, "everything is as it was");
    end();
}

void soak_state_stretch(const struct eg_test_bus *b) {
    static struct soak_state before, after;
    uint32_t owners[CLIENTS];
    begin(b);
    count_descriptors(&before, "keeper", eg_bus_keeper(b));
    attach_all(b, owners);
    close_all();
    eg_wait_until(is_quiet, NULL, "they are gone");
    count_descriptors(&after, "keeper", eg_bus_keeper(b));
    assert_int_equal(after.figure[0].value, before.figure[0].value); /* all pages were given back */
    end();
}

void soak_state_print(const struct soak_state *s) {
    for (size_t i = 0; i < s->count; i++)
        print_message("  %-60s %lld\n", s->figure[i].name, s->figure[i].value);
}
