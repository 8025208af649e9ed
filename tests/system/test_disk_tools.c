/* The eagre command on topics with log files: acks, isolation, times, trim, replay, export, import. */
#include "harness_client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct eg_test_bus *b;

static int setup(void **state) {
    int rc = eg_setup_bus(state);
    b = *state;
    OK(eagre_open(b->socket, &e));
    return rc;
}

static int teardown(void **state) {
    eg_client_close();
    return eg_teardown_bus(state);
}

/* It ends so, prints just that (NULL: whatever) and says that on stderr. */
static void expect(int status, const char *out, const char *err, const char *input, const char *const *argv) {
    struct eg_run r;
    eg_run(&r, b, input, argv);
    if (r.status != status || (out != NULL && strcmp(r.out, out) != 0) ||
        (err[0] == '\0' ? r.err[0] != '\0' : strstr(r.err, err) == NULL))
        fail_msg("%s %s: exit status %d, stdout:\n%s\nstderr:\n%s\nexpected %d:\n%s\n%s", argv[1], argv[2], r.status, r.out,
                 r.err, status, out != NULL ? out : "(any)", err);
    eg_run_free(&r);
}

#define ARGV(...) (const char *const[]){"eagre", __VA_ARGS__, NULL}
#define PRINTS(out, ...) expect(0, (out), "", NULL, ARGV(__VA_ARGS__))
#define FEED(input, ...) expect(0, "", "", (input), ARGV(__VA_ARGS__))
#define FAILS(status, err, ...) expect((status), NULL, (err), NULL, ARGV(__VA_ARGS__))
#define SMALL "-c", "segment.bytes=64K", "-c", "retention.ms=-1"

static char *output(const char *const *argv) {
    struct eg_run r;
    eg_run(&r, b, NULL, argv);
    if (r.status != 0)
        fail_msg("%s %s: exit status %d: %s", argv[1], argv[2], r.status, r.err);
    free(r.err);
    return r.out;
}

static void put_at(const char *topic, int32_t partition, const char *key, const char *value, int64_t timestamp_ns) {
    eagre_producer_t *to;
    eagre_message_t m = {.key = key, .key_len = key != NULL ? strlen(key) : 0, .value = value,
                         .value_len = value != NULL ? strlen(value) : 0, .timestamp_ns = timestamp_ns, .partition = partition};
    OK(eagre_producer_open(e, topic, NULL, &to));
    OK(eagre_produce(to, &m, NULL, NULL));
    eagre_producer_close(to);
}

/* ---- acks, isolation, what describe shows ----------------------------------------------------------------- */

static void acks_and_isolation(void **state) {
    (void)state;
    PRINTS("", "topic", "create", "t", SMALL, "-c", "flush.ms=86400000");
    FEED("a\nb\n", "produce", "t", "--acks", "disk");
    FEED("c\n", "produce", "t", "--acks=memory");
    PRINTS("a\nb\nc\n", "consume", "t", "-e");
    PRINTS("a\nb\n", "consume", "t", "-e", "--isolation", "durable");
    char *text = output(ARGV("topic", "describe", "t", "--format", "json"));
    assert_non_null(strstr(text, "\"durable_offset\": 2, \"disk\": \"ok\""));
    free(text);
    text = output(ARGV("topic", "describe", "t"));
    assert_true(strstr(text, "DURABLE") != NULL && strstr(text, "  ok ") != NULL);
    free(text);
    PRINTS("", "topic", "create", "m", "-c", "storage=memory");
    text = output(ARGV("topic", "describe", "m", "--format", "json"));
    assert_non_null(strstr(text, "\"durable_offset\": -1, \"disk\": \"none\""));
    free(text);
    expect(5, "", "storage=memory", "x\n", ARGV("produce", "m", "--acks", "disk"));
    FAILS(5, "storage=memory", "consume", "m", "-e", "--isolation", "durable");
    FAILS(2, "--acks is memory or disk", "produce", "t", "--acks", "all");
    FAILS(2, "--isolation is published or durable", "consume", "t", "--isolation", "read_committed");
}

/* ---- times ------------------------------------------------------------------------------------------------- */

static void from_and_up_to_a_time(void **state) {
    (void)state;
    const int64_t t0 = 1735689600000000000; /* 2025-01-01T00:00:00Z */
    PRINTS("", "topic", "create", "t", SMALL, "-c", "timestamp.precision=ns");
    for (int i = 0; i < 6; i++)
        put_at("t", 0, NULL, (const char *[]){"0", "1", "2", "3", "4", "5"}[i], t0 + i * 1800000000000);
#define FROM(where, out) PRINTS(out, "consume", "t", "-e", "-o", where)
    FROM("@1735689600000", "0\n1\n2\n3\n4\n5\n");
    FROM("s@1735689600001", "1\n2\n3\n4\n5\n");
    FROM("@2025-01-01T01:00:00Z", "2\n3\n4\n5\n");
    FROM("@2025-01-01T01:00:00.000000001Z", "3\n4\n5\n");
    FROM("@2025-01-01T02:00+01:00", "2\n3\n4\n5\n");
    FROM("@2025-01-01T00:30:00-0100", "3\n4\n5\n");
    FROM("@2025-01-02", "");
    FROM("@-1h", "");
    FROM("@-36500d", "0\n1\n2\n3\n4\n5\n");
    PRINTS("1\n2\n", "consume", "t", "-o", "s@2025-01-01T00:30:00Z", "-o", "e@2025-01-01T01:30:00Z");
    PRINTS("0\n1\n2\n", "consume", "t", "-o", "e@1735695000000");
    PRINTS("4\n5\n", "consume", "t", "-o", "-2", "-o", "e@2025-01-03"); /* in the past: up to the end */
    PRINTS("", "consume", "t", "-o", "e@0");
    put_at("t", 0, NULL, "now", 0);
    FROM("@-1h", "now\n");
    setenv("TZ", "UTC-2", 1); /* two hours ahead of it */
    FROM("@2025-01-01 03:00", "2\n3\n4\n5\nnow\n");
    unsetenv("TZ");
    static const char *const wrong[] = {"@", "@x", "@-1", "@-1w", "@-h", "@2025-13-01", "@2025-02-30", "@2025-01-01T",
                                        "@2025-01-01T25:00", "@2025-01-01T10:00:00.", "@2025-01-01T10:00Zx", "e@", "@99999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        FAILS(2, "is no time", "consume", "t", "-e", "-o", wrong[i]);
}

/* ---- trim, resume -------------------------------------------------------------------------------------------- */

static void trim_and_resume(void **state) {
    (void)state;
    PRINTS("", "topic", "create", "t", SMALL, "-p", "2", "-c", "flush.ms=86400000");
    FEED("a\nb\nc\nd\n", "produce", "t", "-p", "1", "--acks", "disk");
    FEED("e\n", "produce", "t", "-p", "1");
    PRINTS("topic 't' partition 1: begins at offset 2\n", "topic", "trim", "t", "-p", "1", "--before", "2");
    PRINTS("c\nd\ne\n", "consume", "t", "-e");
    FAILS(1, "4", "topic", "trim", "t", "-p", "1", "--before", "5"); /* not on disk yet */
    PRINTS("topic 't' partition 1: begins at offset 4\n", "topic", "trim", "t", "-p", "1", "--before", "end");
    PRINTS("e\n", "consume", "t", "-e");
    FAILS(2, "which partition", "topic", "trim", "t", "--before", "1");
    FAILS(2, "which partition", "topic", "trim", "t", "-p", "0");
    FAILS(4, "partitions 0 to 1", "topic", "trim", "t", "-p", "2", "--before", "0");
    FAILS(5, "no partition's disk is in error", "topic", "resume", "t");
    FAILS(5, "no error", "topic", "resume", "t", "-p", "0");
    FAILS(4, "nowhere", "topic", "resume", "nowhere");
}

/* ---- replay, export, import ------------------------------------------------------------------------------------ */

/* Everything of a topic but its offsets, in a form that can be compared. */
static char *all_of(const char *topic, const char *partition) {
    return output(ARGV("consume", topic, "-p", partition, "-e", "-Z", "-f", "%K/%S %k=%s @%T [%h]\\n"));
}

static void assert_same(const char *a, const char *c2, int partitions) {
    for (int k = 0; k < partitions; k++) {
        char number[12];
        snprintf(number, sizeof(number), "%d", k);
        char *x = all_of(a, number), *y = all_of(c2, number);
        if (strcmp(x, y) != 0 || x[0] == '\0')
            fail_msg("partition %d: of '%s':\n%s\nof '%s':\n%s", k, a, x, c2, y);
        free(x);
        free(y);
    }
}

static void make_records(const char *topic, int count, int64_t t0, int64_t step) {
    eagre_producer_t *to;
    static char large[7000];
    memset(large, 'x', sizeof(large));
    OK(eagre_producer_open(e, topic, NULL, &to));
    for (int i = 0; i < count; i++) {
        const eagre_header_t h[] = {{"n", 1, &i, sizeof(i)}, {"", 0, NULL, 0}, {"empty", 5, "", 0}};
        eagre_message_t m = {.timestamp_ns = t0 + i * step, .partition = i % 3};
        m.key = i % 4 == 0 ? NULL : "k";
        m.key_len = i % 4 == 1 ? 0 : m.key != NULL;
        m.value = i % 5 == 0 ? NULL : large;
        m.value_len = i % 5 == 0 ? 0 : i % 5 == 1 ? 0 : (size_t)(i * 17 % 7000);
        m.headers = h;
        m.header_count = (size_t)(i % 4);
        OK(eagre_produce(to, &m, NULL, NULL));
    }
    eagre_producer_close(to);
}

static void export_and_import(void **state) {
    (void)state;
    char path[128], cut[128];
    struct stat st;
    PRINTS("", "topic", "create", "t", "u", "v", "w", SMALL, "-p", "3");
    make_records("t", 400, 1600000000000000000, 1000000);
    snprintf(path, sizeof(path), "%s/t.eagre", b->dir);
    snprintf(cut, sizeof(cut), "%s/cut.eagre", b->dir);
    PRINTS("", "export", "t", path);
    PRINTS("", "import", "u", path, "--acks", "disk");
    assert_same("t", "u", 3);
    PRINTS("", "export", "t", "-p", "1", path);
    PRINTS("", "import", "v", path);
    char *one = all_of("v", "1"), *none = all_of("v", "0");
    assert_true(one[0] != '\0' && none[0] == '\0');
    free(one);
    free(none);

    /* Cut at each of many places, or with a byte changed: what comes before is taken, then it is said. */
    PRINTS("", "export", "t", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    for (int i = 0; i < 12; i++) {
        off_t at = i < 4 ? st.st_size - 1 - 5 * i : st.st_size / 12 * (i - 3) + i;
        bool change = i % 2 != 0;
        fd = open(cut, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        data[at] ^= change;
        assert_int_equal(write(fd, data, (size_t)(change ? st.st_size : at)), change ? st.st_size : at);
        data[at] ^= change;
        close(fd);
        FAILS(1, "records were sent", "import", "w", cut);
    }
    free(data);
    FAILS(1, "is no file of", "import", "w", "/proc/self/exe");
    FAILS(1, "No such file", "import", "w", "/nowhere/file");
    FAILS(4, "nowhere", "export", "nowhere", path);
    FAILS(2, "a topic and a file", "export", "t");
    PRINTS("", "topic", "create", "narrow");
    FAILS(4, "of partition 1", "import", "narrow", path);
    /* Through a pipe. */
    struct eg_run r;
    PRINTS("", "topic", "create", "x", SMALL, "-p", "3");
    char command[300];
    snprintf(command, sizeof(command), "%s/eagre export t - | %s/eagre import x -", EG_TEST_BIN_DIR, EG_TEST_BIN_DIR);
    EG_RUN(&r, b, NULL, "/bin/sh", "-c", command);
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    assert_same("t", "x", 3);
}

static void replay(void **state) {
    (void)state;
    struct timespec from, to;
    PRINTS("", "topic", "create", "t", "u", "v", "w", SMALL, "-p", "3");
    make_records("t", 300, 1600000000000000000, 2000000); /* 0.6 s */
    PRINTS("", "replay", "t", "--to", "u", "--speed", "max");
    assert_same("t", "u", 3);
    clock_gettime(CLOCK_MONOTONIC, &from);
    PRINTS("", "replay", "t", "--to", "v", "--speed", "2.0", "--acks", "disk");
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_same("t", "v", 3);
    /* Never faster than that; slower may be the machine's fault. */
    assert_true((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 298);
    PRINTS("", "replay", "t", "--to", "w", "--speed", "max", "--from", "@1600000000200", "--to-time", "@1600000000400");
    char *text = output(ARGV("consume", "w", "-e", "-f", "%T\\n"));
    size_t n = 0;
    for (char *line = text; *line != '\0'; line = strchr(line, '\n') + 1, n++) {
        long long ms = atoll(line);
        assert_true(ms >= 1600000000200 && ms < 1600000000400);
    }
    assert_int_equal(n, 100);
    free(text);
    PRINTS("", "topic", "create", "narrow");
    FAILS(5, "has 3 partitions", "replay", "t", "--to", "narrow");
    FAILS(4, "nowhere", "replay", "t", "--to", "nowhere");
    FAILS(4, "nowhere", "replay", "nowhere", "--to", "t");
    FAILS(2, "another topic", "replay", "t", "--to", "t");
    FAILS(2, "to which topic", "replay", "t");
    FAILS(2, "--speed", "replay", "t", "--to", "u", "--speed", "0");
}

int main(void) {
#define EACH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(acks_and_isolation),
        EACH(from_and_up_to_a_time),
        EACH(trim_and_resume),
        EACH(export_and_import),
        EACH(replay),
    };
    return cmocka_run_group_tests_name("system/disk_tools", tests, NULL, NULL);
}
