/* `eagre group` and `eagre consume -g` as their users see them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness_cli.h"

#define SMALL "-c", "segment.bytes=64K", "-c", "storage=memory"

/* ---- members that run beside the test ---------------------------------------------------------------------- */

struct member {
    const struct eg_test_bus *b;
    char out[128], err[128]; /* files: what it has printed so far */
    pid_t pid;
};

static int create(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void start(struct member *m, const struct eg_test_bus *b, const char *name, const char *const *argv) {
    *m = (struct member){.b = b};
    snprintf(m->out, sizeof(m->out), "%s/%s.out", b->dir, name);
    snprintf(m->err, sizeof(m->err), "%s/%s.err", b->dir, name);
    int out = create(m->out), err = create(m->err);
    m->pid = eg_spawn(b, -1, out, err, argv);
    close(out);
    close(err);
}

#define START(m, name, ...) start((m), b, (name), ARGV("consume", "--socket", b->socket, __VA_ARGS__))

static char *text_of(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t cap = 1 << 20, n = 0;
    char *text = malloc(cap);
    assert_true(fd >= 0 && text != NULL);
    for (ssize_t got; n < cap - 1 && (got = read(fd, text + n, cap - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(fd);
    return text;
}

static bool has(const char *path, const char *what) {
    char *text = text_of(path);
    bool found = strstr(text, what) != NULL;
    free(text);
    return found;
}

struct hope {
    const char *path, *what; /* a file has it */
    const struct eg_test_bus *b;
    const char *const *argv; /* or what a command prints */
};

static bool came_true(void *ctx) {
    const struct hope *h = ctx;
    struct eg_run r;
    if (h->path != NULL)
        return has(h->path, h->what);
    eg_run(&r, h->b, NULL, h->argv);
    bool found = strstr(r.out, h->what) != NULL;
    eg_run_free(&r);
    return found;
}

static void wait_file(const char *path, const char *what) {
    struct hope h = {.path = path, .what = what};
    eg_wait_until(came_true, &h, what);
}

static void wait_command(const struct eg_test_bus *b, const char *what, const char *const *argv) {
    struct hope h = {.what = what, .b = b, .argv = argv};
    eg_wait_until(came_true, &h, what);
}

#define WAIT(what, ...) wait_command(b, (what), ARGV(__VA_ARGS__))

static void interrupt(const struct member *m) {
    kill(m->pid, SIGINT);
    assert_int_equal(eg_wait_exit(m->pid), 130);
}

/* How many of the lines first .. first + n - 1 (as numbers) are not in the texts. */
static size_t missing(const char *const *paths, size_t count, int first, int n) {
    size_t without = 0;
    char *seen = calloc(1, (size_t)n);
    for (size_t i = 0; i < count; i++) {
        char *text = text_of(paths[i]), *rest = NULL;
        for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
            int k = atoi(line) - first;
            assert_true(k >= 0 && k < n);
            seen[k] = 1;
        }
        free(text);
    }
    for (int i = 0; i < n; i++)
        without += seen[i] == 0;
    free(seen);
    return without;
}

static char *numbers(int first, int n) {
    char *text = malloc((size_t)n * 12 + 1), *at = text;
    for (int i = 0; i < n; i++)
        at += sprintf(at, "%d\n", first + i);
    *at = '\0';
    return text;
}

/* ---- usage ------------------------------------------------------------------------------------------------------- */

static void wrong_usage_is_2_and_says_what(void **state) {
    const struct eg_test_bus *b = *state;
    FAILS(2, "list, describe", "group");
    FAILS(2, "which group", "group", "delete");
    FAILS(2, "which group", "group", "seek", "--to", "end");
    FAILS(2, "where to", "group", "seek", "g");
    FAILS(2, "give one", "group", "seek", "g", "--to", "end", "--shift", "1");
    FAILS(2, "--to", "group", "seek", "g", "--to", "middle");
    FAILS(2, "--to", "group", "seek", "g", "--to", "@noon");
    FAILS(2, "--shift", "group", "seek", "g", "--shift", "back");
    FAILS(2, "--topic t:", "group", "seek", "g", "--topic", "t:", "--to", "end");
    FAILS(2, "--topic t:1,", "group", "seek", "g", "--topic", "t:1,", "--to", "end");
    FAILS(2, "--topic :1", "group", "seek", "g", "--topic", ":1", "--to", "end");
    FAILS(2, "--topic does not go", "group", "seek", "g", "--topic", "t", "--from-file", "f");
    FAILS(2, "give one", "group", "seek", "g", "--to", "end", "--export", "--format", "json");
    FAILS(2, "one argument too many", "group", "seek", "g", "h", "--to", "end");
    FAILS(2, "one argument too many", "group", "list", "g");
    FAILS(2, "eagre group seek g", "consume", "-g", "g", "t", "-o", "5");
    FAILS(2, "eagre group seek g", "consume", "-g", "g", "t", "-o", "-5");
    FAILS(2, "eagre group seek g", "consume", "-g", "g", "t", "-o", "@-1h");
    FAILS(2, "-p and -g", "consume", "-g", "g", "t", "-p", "0");
    FAILS(2, "-g GROUP", "consume", "t", "--instance-id", "i");
    FAILS(2, "-g GROUP", "consume", "t", "-o", "stored");
    FAILS(2, "consumer or share", "consume", "-g", "g", "t", "--group-type", "queue");
    FAILS(2, "--max-poll-interval-ms", "consume", "-g", "g", "t", "--max-poll-interval-ms", "0");
    FAILS(2, "name is empty", "consume", "-g", "", "t");
    FAILS(3, b->socket, "group", "list");
    FAILS(3, b->socket, "consume", "-g", "g", "t");
    FAILS(1, "/nowhere/f", "group", "seek", "g", "--from-file", "/nowhere/f");
    static const char *const commands[] = {"list", "describe", "lag", "members", "seek", "delete"};
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        char *text = OUTPUT("group", commands[i], "--help");
        assert_non_null(strstr(text, commands[i]));
        free(text);
    }
}

static void what_is_not_there_is_4(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("GROUP  TYPE  STATE  MEMBERS\n", "group", "list");
    PRINTS("[]\n", "group", "list", "--format", "json");
    PRINTS("[\n]\n", "group", "describe", "--format", "json");
    PRINTS("GROUP  TOPIC  PARTITIONS  WITHOUT-OFFSET  LAG\n", "group", "lag");
    FAILS(4, "nobody", "group", "describe", "nobody");
    FAILS(4, "nobody", "group", "lag", "nobody");
    FAILS(4, "nobody", "group", "members", "nobody", "--format", "json");
    FAILS(4, "nobody", "group", "delete", "nobody");
    FAILS(4, "nobody", "group", "seek", "nobody", "--to", "end");
    FAILS(4, "nowhere", "group", "seek", "g", "--topic", "nowhere", "--to", "end");
    PRINTS("", "topic", "create", "t", SMALL);
    FAILS(4, "partitions 0 to 0, not 1", "group", "seek", "g", "--topic", "t:0,1", "--to", "end");
    FAILS(4, "nowhere", "consume", "-g", "g", "nowhere");
    EXPECT(5, "", "no committed offset to shift", NULL, "group", "seek", "h", "--topic", "t", "--shift", "1");
    FAILS(5, "'^('", "consume", "-g", "g", "^(");
}

/* ---- seek -------------------------------------------------------------------------------------------------------- */

static void seek_sets_offsets_as_kafkas_tool_does(void **state) {
    const struct eg_test_bus *b = *state;
    char path[128];
    PRINTS("", "topic", "create", "t", "-p", "2", SMALL);
    PRINTS("", "topic", "create", "other", SMALL);
    FEED("a\nb\nc\nd\n", "produce", "t", "-p", "0");
    FEED("e\n", "produce", "t", "-p", "1");

    /* A dry run makes nothing, not even the group. */
    const char *const ends = "GROUP  TOPIC  PARTITION  NEW-OFFSET\n"
                             "g      t              0           4\n"
                             "g      t              1           1\n";
    PRINTS(ends, "group", "seek", "g", "--topic", "t", "--to", "end", "--dry-run");
    PRINTS("GROUP  TYPE  STATE  MEMBERS\n", "group", "list");
    PRINTS(ends, "group", "seek", "g", "--topic", "t", "--to", "end");
    PRINTS("GROUP  TYPE      STATE  MEMBERS\n"
           "g      consumer  Empty        0\n",
           "group", "list");
    EXPECT(0,
           "GROUP  TOPIC  PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  PID  CLIENT-ID\n"
           "g      t              0               4               4    0            -    -  -\n"
           "g      t              1               1               1    0            -    -  -\n",
           "group 'g' has no active members", NULL, "group", "describe", "g");

    /* Without --topic: the topics that the group has offsets of. */
    PRINTS("t,0,0\nt,1,0\n", "group", "seek", "g", "--to", "beginning", "--export");
    PRINTS("GROUP  TOPIC  PARTITIONS  WITHOUT-OFFSET  LAG\n"
           "g      t               2               0    5\n",
           "group", "lag", "g");
    PRINTS("t,0,2\n", "group", "seek", "g", "--topic", "t:0", "--to", "2", "--export", "--dry-run");
    PRINTS("t,0,2\n", "group", "seek", "g", "--topic", "t:0", "--to", "2", "--export");
    PRINTS("t,0,2\nt,1,0\n", "group", "seek", "g", "--to", "current", "--export");
    EXPECT(0, "t,0,1\nt,1,0\n", "partition 1: offset -1 is", NULL, "group", "seek", "g", "--shift", "-1", "--export", "--topic", "t:1,0");

    /* What the log does not have is said, and moved into it. */
    EXPECT(0, "t,0,4\nt,1,1\n", "partition 0: offset 50 is beyond the end: set to 4", NULL, "group", "seek", "g", "--to", "50",
           "--export");
    EXPECT(0, "t,0,0\nt,1,0\n", "partition 1: offset -8 is before the beginning: set to 0", NULL, "group", "seek", "g", "--shift",
           "-9", "--export");
    EXPECT(0, "t,0,4\nt,1,1\n", "beyond the end", NULL, "group", "seek", "g", "--shift", "9223372036854775807", "--export");

    /* Where there is no offset there is nothing to shift. */
    EXPECT(5, "", "no committed offset to shift", NULL, "group", "seek", "g", "--topic", "t", "--topic", "other", "--shift", "1");
    PRINTS("t,0,3\nt,1,0\n", "group", "seek", "g", "--shift", "-1", "--export");

    char *json = OUTPUT("group", "seek", "g", "--topic", "other", "--topic", "t:0", "--to", "beginning", "--format", "json");
    assert_string_equal(json, "[\n  {\"group\": \"g\", \"topic\": \"other\", \"partition\": 0, \"new_offset\": 0, "
                              "\"previous_offset\": null},\n"
                              "  {\"group\": \"g\", \"topic\": \"t\", \"partition\": 0, \"new_offset\": 0, "
                              "\"previous_offset\": 3}\n]\n");
    free(json);

    /* Files; the last line about a partition counts. */
    snprintf(path, sizeof(path), "%s/offsets", b->dir);
    FILE *f = fopen(path, "w");
    fputs("t,1,1\n\nt,0,1\r\nt,0,2\n", f);
    fclose(f);
    PRINTS("GROUP  TOPIC  PARTITION  NEW-OFFSET\n"
           "h      t              0           2\n"
           "h      t              1           1\n",
           "group", "seek", "h", "--from-file", path);
    EXPECT(0, "t,0,3\n", "", "t,0,3\n", "group", "seek", "h", "--from-file", "-", "--export");
    EXPECT(1, "", "standard input: line 2: a line is topic,partition,offset", "t,0,1\nt,0\n", "group", "seek", "h", "--from-file", "-");
    EXPECT(4, "", "partitions 0 to 1, not 7", "t,7,0\n", "group", "seek", "h", "--from-file", "-");
    PRINTS("t,0,3\nt,1,1\n", "group", "seek", "h", "--to", "current", "--export");

    PRINTS("", "group", "delete", "h", "g");
    FAILS(4, "'g'", "group", "describe", "g");
}

/* The time (ms) when the clock that records get has gone on behind now. */
static long long next_ms(void) {
    struct timespec t;
    long long first = 0, now;
    do {
        clock_gettime(CLOCK_REALTIME_COARSE, &t);
        now = (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
        first = first == 0 ? now : first;
    } while (now <= first);
    return now;
}

static void seek_by_time_and_stop_by_time(void **state) {
    const struct eg_test_bus *b = *state;
    char at[32], until[32];
    PRINTS("", "topic", "create", "t", "-p", "2", SMALL);
    FEED("a\nb\n", "produce", "t", "-p", "0");
    snprintf(at, sizeof(at), "@%lld", next_ms());
    snprintf(until, sizeof(until), "e%s", at);
    FEED("c\n", "produce", "t", "-p", "0");
    PRINTS("t,0,2\nt,1,0\n", "group", "seek", "g", "--topic", "t", "--to", at, "--export", "--dry-run");
    /* What comes behind e@ is not printed, so it is not committed, though it was fetched. */
    PRINTS("a\nb\n", "consume", "-q", "-g", "g", "t", "-o", until);
    PRINTS("t,0,2\nt,1,0\n", "group", "seek", "g", "--to", "current", "--export");
    PRINTS("c\n", "consume", "-q", "-g", "g", "t", "-e");
}

/* ---- one member ---------------------------------------------------------------------------------------------------- */

static void a_group_goes_on_where_it_has_got_to(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n2\n3\n", "produce", "t");
    PRINTS("1\n", "consume", "-q", "-g", "g", "t", "-c", "1");
    PRINTS("2\n3\n", "consume", "-q", "-g", "g", "t", "-e");
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e", "-o", "beginning"); /* -o is for who has no offset */
    FEED("4\n", "produce", "t");
    PRINTS("GROUP  TOPIC  PARTITIONS  WITHOUT-OFFSET  LAG\n"
           "g      t               1               0    1\n",
           "group", "lag");
    EXPECT(0, "0 3 4\n", "% group g rebalanced (generation ", NULL, "consume", "-g", "g", "t", "-e", "-f", "%p %o %s\\n");
    /* Another group is another story. */
    PRINTS("1\n2\n3\n4\n", "consume", "-q", "-g", "h", "t", "-e");
    PRINTS("1\n2\n3\n4\n", "consume", "t", "-e");
    /* Kafka's `latest`; and where it began is kept, though it read nothing. */
    PRINTS("", "consume", "-q", "-g", "late", "t", "-e", "-o", "end");
    FEED("5\n", "produce", "t");
    PRINTS("5\n", "consume", "-q", "-g", "late", "t", "-e", "-o", "end");
    char *json = OUTPUT("group", "describe", "late", "--format", "json");
    assert_non_null(strstr(json, "\"name\": \"late\", \"type\": \"consumer\", \"state\": \"Empty\""));
    assert_non_null(strstr(json, "\"members\": []"));
    assert_non_null(strstr(json, "{\"topic\": \"t\", \"partition\": 0, \"committed\": 5, \"log_start_offset\": 0, "
                                 "\"end_offset\": 5, \"lag\": 0, \"member\": null, \"commit_ts\": 1"));
    free(json);
}

static void notes_say_what_is_given_and_taken(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m;
    PRINTS("", "topic", "create", "t", "-p", "2", SMALL);
    START(&m, "m", "-g", "g", "t", "--client-id", "printer");
    wait_file(m.err, "assigned: t [0], t [1]\n");
    assert_true(has(m.err, "% group g rebalanced (generation "));
    char pid[32], *text = OUTPUT("group", "members", "g");
    snprintf(pid, sizeof(pid), "  %d  ", (int)m.pid);
    assert_non_null(strstr(text, pid));
    assert_non_null(strstr(text, "  printer  "));
    assert_non_null(strstr(text, "  2  t(0,1)\n"));
    free(text);
    text = OUTPUT("group", "members", "--format", "json");
    snprintf(pid, sizeof(pid), "\"pid\": %d,", (int)m.pid);
    assert_non_null(strstr(text, pid));
    assert_non_null(strstr(text, "\"client_id\": \"printer\", \"instance_id\": null"));
    assert_non_null(strstr(text, "\"topics\": [\"t\"], \"partition_count\": 2, \"partitions\": [{\"topic\": \"t\", \"partition\": 0}, "
                                 "{\"topic\": \"t\", \"partition\": 1}]"));
    free(text);
    WAIT("g      consumer  Stable        1\n", "group", "list");
    interrupt(&m);
    assert_true(has(m.err, "revoked: t [0], t [1]\n"));
    WAIT("g      consumer  Empty        0\n", "group", "list");
}

static void an_active_group_is_left_alone(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m;
    char pid[32];
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n2\n", "produce", "t");
    START(&m, "m", "-g", "g", "t", "-q");
    wait_file(m.out, "2\n");
    snprintf(pid, sizeof(pid), "(pid %d, client 'eagre')", (int)m.pid);
    EXPECT(5, "", pid, NULL, "group", "seek", "g", "--to", "beginning");
    EXPECT(5, "", pid, NULL, "group", "seek", "g", "--to", "beginning", "--dry-run");
    EXPECT(5, "", "1 member: ", NULL, "group", "delete", "g");
    interrupt(&m);
    PRINTS("t,0,0\n", "group", "seek", "g", "--to", "beginning", "--export");
    PRINTS("1\n2\n", "consume", "-q", "-g", "g", "t", "-e");
    PRINTS("", "group", "delete", "g");
    FAILS(4, "'g'", "group", "lag", "g");
}

/* ---- at least once ------------------------------------------------------------------------------------------------- */

/* Nobody reads what is printed, or it cannot be written: then it was not consumed. */
static void what_could_not_be_written_is_not_committed(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    char *all = numbers(0, 100);
    PRINTS("", "topic", "create", "t", SMALL);
    FEED(all, "produce", "t");
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    close(out[0]);
    pid_t m = EG_SPAWN(b, -1, out[1], -1, "eagre", "consume", "--socket", b->socket, "-g", "g", "t");
    close(out[1]);
    assert_int_equal(eg_wait_exit(m), 141);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    m = EG_SPAWN(b, -1, full, -1, "eagre", "consume", "--socket", b->socket, "-g", "g", "t", "-e");
    close(full);
    assert_int_equal(eg_wait_exit(m), 1);
    /* Likewise where SIGPIPE is ignored. */
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    close(out[0]);
    static const char script[] = "trap '' PIPE; exec \"$0\" consume --socket \"$1\" -g g t";
    m = EG_SPAWN(b, -1, out[1], -1, "/bin/sh", "-c", script, EG_TEST_BIN_DIR "/eagre", b->socket);
    close(out[1]);
    assert_int_equal(eg_wait_exit(m), 141);
    PRINTS(all, "consume", "-q", "-g", "g", "t", "-e");
    free(all);
}

/* Fewer bytes than are printed at one go, and more than there is room for in a pipe of ours that nobody empties. */
enum { LINES = 400, LINE = 100 };

static char *long_lines(void) {
    char *text = malloc(LINES * LINE + 1), *at = text;
    for (int i = 0; i < LINES; i++)
        at += sprintf(at, "%08d %0*d\n", i, LINE - 10, 0);
    return text;
}

static void small_pipe(int out[2]) {
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_true(fcntl(out[0], F_SETPIPE_SZ, 4096) >= 0);
}

/* Killed while it waits for its reader: what the reader has not got comes again, nothing is left out. */
static void a_member_that_is_killed_has_left_nothing_out(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    char *all = long_lines(), *got = malloc((LINES + 1) * LINE);
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    FEED(all, "produce", "t");
    small_pipe(out);
    pid_t m = EG_SPAWN(b, -1, out[1], -1, "eagre", "consume", "--socket", b->socket, "-g", "g", "t", "-q");
    close(out[1]);
    size_t n = 0, want = LINE * 20; /* some of it has been read, some lies in the pipe, the rest waits */
    while (n < want) {
        ssize_t r = read(out[0], got + n, want - n);
        assert_true(r > 0);
        n += (size_t)r;
    }
    kill(m, SIGKILL);
    assert_int_equal(eg_wait_exit(m), 137);
    for (ssize_t r; (r = read(out[0], got + n, LINES * LINE - n)) > 0;)
        n += (size_t)r;
    close(out[0]);
    char *rest = OUTPUT("consume", "-q", "-g", "g", "t", "-e");
    n -= n % LINE; /* a line that was cut was not printed */
    size_t again = strlen(rest);
    assert_true(again % LINE == 0 && n + again >= strlen(all));
    assert_memory_equal(got, all, n);
    assert_string_equal(rest, all + strlen(all) - again);
    free(rest);
    free(got);
    free(all);
}

/* Its reader stops for longer than max.poll.interval.ms: put out, told so, and in again when it can print. */
static void who_is_put_out_says_so_and_goes_on(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    char path[128], *all = long_lines(), *got = malloc(3 * LINES * LINE);
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    FEED(all, "produce", "t");
    snprintf(path, sizeof(path), "%s/err", b->dir);
    int err = create(path);
    small_pipe(out);
    pid_t m = EG_SPAWN(b, -1, out[1], err, "eagre", "consume", "--socket", b->socket, "-g", "g", "t", "--max-poll-interval-ms",
                       "300");
    close(out[1]);
    close(err);
    wait_file(path, "assigned: t [0]\n");
    WAIT("g      consumer  Empty        0\n", "group", "list");
    size_t n = 0;
    bool whole = false; /* the last record has come */
    while (!whole) {
        ssize_t r = read(out[0], got + n, 3 * LINES * LINE - n);
        assert_true(r > 0);
        n += (size_t)r;
        whole = n % LINE == 0 && memcmp(got + n - LINE, all + (LINES - 1) * LINE, LINE) == 0;
    }
    wait_file(path, "joining again\n");
    wait_file(path, "lost: t [0]\n");
    kill(m, SIGTERM);
    assert_int_equal(eg_wait_exit(m), 143);
    close(out[0]);
    char *seen = calloc(1, LINES);
    for (size_t i = 0; i < n; i += LINE)
        seen[atoi(got + i)] = 1;
    assert_null(memchr(seen, 0, LINES));
    free(seen);
    free(got);
    free(all);
}

/* ---- several members -------------------------------------------------------------------------------------------------- */

static void members_share_partitions_and_inherit_them(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m[2];
    char *first = numbers(0, 200), *second = numbers(200, 200), *third = numbers(400, 200);
    PRINTS("", "topic", "create", "t", "-p", "4", SMALL);
    START(&m[0], "a", "-g", "g", "t");
    wait_file(m[0].err, "t [3]\n");
    START(&m[1], "b", "-g", "g", "t");
    wait_file(m[1].err, "assigned: ");
    WAIT("g      consumer  Stable        2\n", "group", "list");
    char *text = OUTPUT("group", "members", "g");
    assert_non_null(strstr(strstr(text, "  2  t("), "\n")); /* two of them, each */
    assert_non_null(strstr(strstr(text, "  2  t(") + 6, "  2  t("));
    free(text);
    FEED(first, "produce", "t");
    FEED(second, "produce", "t", "-p", "1");
    FEED(third, "produce", "t", "-p", "2");
    const char *const paths[] = {m[0].out, m[1].out};
    WAIT("0    0\n", "group", "lag", "g"); /* all is committed, so all was printed */
    assert_int_equal(missing(paths, 2, 0, 600), 0);

    /* One dies without a word: the other one has all. */
    kill(m[0].pid, SIGKILL);
    assert_int_equal(eg_wait_exit(m[0].pid), 137);
    WAIT("  4  t(0,1,2,3)\n", "group", "members", "g");
    char *fourth = numbers(600, 200);
    for (int p = 0; p < 4; p++) {
        char number[8];
        snprintf(number, sizeof(number), "%d", p);
        FEED(fourth, "produce", "t", "-p", number);
    }
    WAIT("0    0\n", "group", "lag", "g");
    char *tail = text_of(m[1].out);
    for (int k = 0, n = 0; k < 200; k++, n = 0) { /* each of them from each partition */
        char line[16];
        snprintf(line, sizeof(line), "\n%d\n", 600 + k);
        for (const char *at = tail; (at = strstr(at, line)) != NULL; at++)
            n++;
        assert_int_equal(n, 4);
    }
    free(tail);
    interrupt(&m[1]);
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
    free(first);
    free(second);
    free(third);
    free(fourth);
}

static void patterns_take_topics_that_are_made_later(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m;
    PRINTS("", "topic", "create", "orders.a", "other", SMALL);
    START(&m, "m", "-g", "g", "^orders\\.", "-f", "%t %s\\n");
    wait_file(m.err, "assigned: orders.a [0]\n");
    FEED("1\n", "produce", "orders.a");
    wait_file(m.out, "orders.a 1\n");
    PRINTS("", "topic", "create", "orders.b", SMALL);
    FEED("2\n", "produce", "orders.b"); /* before it was found, perhaps: it is read from its beginning */
    wait_file(m.out, "orders.b 2\n");
    PRINTS("", "topic", "alter", "orders.a", "-p", "2");
    FEED("3\n", "produce", "orders.a", "-p", "1");
    wait_file(m.out, "orders.a 3\n");
    PRINTS("", "topic", "delete", "orders.a");
    wait_file(m.err, "revoked: orders.a [0], orders.a [1]\n");
    FEED("4\n", "produce", "orders.b");
    wait_file(m.out, "orders.b 4\n");
    interrupt(&m);
}

/* More members than partitions: who has none is at the end of all that it has. */
static void an_idle_member_ends_with_e(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t");
    wait_file(m.out, "1\n");
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
    PRINTS("", "consume", "-q", "-g", "h", "^nothing", "-e");
    interrupt(&m);
}

static long generation_of(const struct eg_test_bus *b) {
    char *json = OUTPUT("group", "list", "--format", "json");
    const char *at = strstr(json, "\"generation\": ");
    assert_non_null(at);
    long n = atol(at + strlen("\"generation\": "));
    free(json);
    return n;
}

static void a_static_member_finds_its_partitions_again(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m, again, thief;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t", "--instance-id", "one");
    wait_file(m.out, "1\n");
    WAIT("Stable", "group", "list");
    long generation = generation_of(b);
    interrupt(&m);
    WAIT("  one            -", "group", "members", "g"); /* away: it has no process */
    FAILS(5, "instance 'one', away", "group", "seek", "g", "--to", "beginning");
    FEED("2\n", "produce", "t");
    START(&again, "again", "-g", "g", "t", "--instance-id", "one");
    wait_file(again.out, "2\n");
    assert_int_equal(generation_of(b), generation);
    assert_false(has(again.out, "1\n"));
    /* A second one with that name: the first one ends, and says why. */
    START(&thief, "thief", "-g", "g", "t", "--instance-id", "one");
    assert_int_equal(eg_wait_exit(again.pid), 1);
    assert_true(has(again.err, "one"));
    FEED("3\n", "produce", "t");
    wait_file(thief.out, "3\n");
    interrupt(&thief);
}

static void a_member_outlives_its_daemon(void **state) {
    struct eg_test_bus *b = *state;
    struct member m;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t");
    wait_file(m.out, "1\n");
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    FEED("2\n", "produce", "t");
    wait_file(m.out, "2\n");
    WAIT("0    0\n", "group", "lag", "g");
    interrupt(&m);
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
}

/* ---- queues ------------------------------------------------------------------------------------------------------------ */

static void a_queue_gives_each_record_to_one(void **state) {
    const struct eg_test_bus *b = *state;
    enum { COUNT = 2000 };
    struct member m[2];
    char *all = numbers(0, COUNT);
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    START(&m[0], "a", "-g", "q", "t", "--group-type", "share");
    START(&m[1], "b", "-g", "q", "t", "--group-type", "share");
    wait_file(m[0].err, "assigned: t [0]\n");
    wait_file(m[1].err, "assigned: t [0]\n");
    FEED(all, "produce", "t");
    WAIT("0    0\n", "group", "lag", "q");
    const char *const paths[] = {m[0].out, m[1].out};
    assert_int_equal(missing(paths, 2, 0, COUNT), 0);
    char *a = text_of(m[0].out), *c = text_of(m[1].out);
    assert_int_equal(strlen(a) + strlen(c), strlen(all));
    free(a);
    free(c);
    FAILS(5, "share", "consume", "-g", "q", "t"); /* it is of one type */
    interrupt(&m[0]);
    interrupt(&m[1]);
    WAIT("q      share  Empty        0\n", "group", "list");
    PRINTS("", "consume", "-q", "-g", "q", "t", "--group-type", "share", "-e");
    FEED("0\n1\n", "produce", "t");
    PRINTS("0\n1\n", "consume", "-q", "-g", "q", "t", "--group-type", "share", "-e");
    PRINTS("", "consume", "-q", "-g", "q", "t", "--group-type", "share", "-e");
    free(all);
}

/* What it took and could not write before it was killed is another one's. */
static void a_queue_takes_back_what_the_dead_had(void **state) {
    const struct eg_test_bus *b = *state;
    struct member m;
    int out[2] = {-1, -1};
    char *all = long_lines(), byte;
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    FEED(all, "produce", "t");
    small_pipe(out);
    pid_t dead = EG_SPAWN(b, -1, out[1], -1, "eagre", "consume", "--socket", b->socket, "-g", "q", "t", "--group-type", "share");
    close(out[1]);
    assert_int_equal(read(out[0], &byte, 1), 1); /* it has taken them */
    START(&m, "m", "-g", "q", "t", "--group-type", "share");
    wait_file(m.err, "assigned: t [0]\n");
    kill(dead, SIGKILL);
    assert_int_equal(eg_wait_exit(dead), 137);
    WAIT("0    0\n", "group", "lag", "q");
    char *text = text_of(m.out);
    assert_string_equal(text, all);
    free(text);
    close(out[0]);
    interrupt(&m);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define STOPPED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus_stopped, eg_teardown_bus)
#define STARTED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus, eg_teardown_bus)
        STOPPED(wrong_usage_is_2_and_says_what),
        STARTED(what_is_not_there_is_4),
        STARTED(seek_sets_offsets_as_kafkas_tool_does),
        STARTED(seek_by_time_and_stop_by_time),
        STARTED(a_group_goes_on_where_it_has_got_to),
        STARTED(notes_say_what_is_given_and_taken),
        STARTED(an_active_group_is_left_alone),
        STARTED(what_could_not_be_written_is_not_committed),
        STARTED(a_member_that_is_killed_has_left_nothing_out),
        STARTED(who_is_put_out_says_so_and_goes_on),
        STARTED(members_share_partitions_and_inherit_them),
        STARTED(patterns_take_topics_that_are_made_later),
        STARTED(an_idle_member_ends_with_e),
        STARTED(a_static_member_finds_its_partitions_again),
        STARTED(a_member_outlives_its_daemon),
        STARTED(a_queue_gives_each_record_to_one),
        STARTED(a_queue_takes_back_what_the_dead_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
