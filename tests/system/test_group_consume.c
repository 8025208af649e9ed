/* `eagre consume -g` as its users see it: what is printed, what is committed, who has what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness_cli.h"

#define SMALL "-c", "segment.bytes=64K", "-c", "storage=memory"

#define START(m, name, ...) eg_cli_start((m), b, (name), ARGV("consume", "--socket", b->socket, __VA_ARGS__))

/* How many of the lines first .. first + n - 1 (as numbers) are not in the texts. */
static size_t missing(const char *const *paths, size_t count, int first, int n) {
    size_t without = 0;
    char *seen = calloc(1, (size_t)n);
    for (size_t i = 0; i < count; i++) {
        char *text = eg_cli_text_of(paths[i]), *rest = NULL;
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
    struct eg_cli_child m;
    PRINTS("", "topic", "create", "t", "-p", "2", SMALL);
    START(&m, "m", "-g", "g", "t", "--client-id", "printer");
    eg_cli_wait_file(m.err, "assigned: t [0], t [1]\n");
    assert_true(eg_cli_has(m.err, "% group g rebalanced (generation "));
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
    eg_cli_interrupt(&m);
    assert_true(eg_cli_has(m.err, "revoked: t [0], t [1]\n"));
    WAIT("g      consumer  Empty        0\n", "group", "list");
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
    int err = eg_cli_file(path);
    small_pipe(out);
    pid_t m = EG_SPAWN(b, -1, out[1], err, "eagre", "consume", "--socket", b->socket, "-g", "g", "t", "--max-poll-interval-ms",
                       "300");
    close(out[1]);
    close(err);
    eg_cli_wait_file(path, "assigned: t [0]\n");
    WAIT("g      consumer  Empty        0\n", "group", "list");
    size_t n = 0;
    bool whole = false; /* the last record has come */
    while (!whole) {
        ssize_t r = read(out[0], got + n, 3 * LINES * LINE - n);
        assert_true(r > 0);
        n += (size_t)r;
        whole = n % LINE == 0 && memcmp(got + n - LINE, all + (LINES - 1) * LINE, LINE) == 0;
    }
    eg_cli_wait_file(path, "joining again\n");
    eg_cli_wait_file(path, "lost: t [0]\n");
    kill(m, SIGKILL); /* it may have been put out once more, and be printing once more */
    assert_int_equal(eg_wait_exit(m), 137);
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
    struct eg_cli_child m[2];
    char *first = numbers(0, 200), *second = numbers(200, 200), *third = numbers(400, 200);
    PRINTS("", "topic", "create", "t", "-p", "4", SMALL);
    START(&m[0], "a", "-g", "g", "t");
    eg_cli_wait_file(m[0].err, "t [3]\n");
    START(&m[1], "b", "-g", "g", "t");
    eg_cli_wait_file(m[1].err, "assigned: ");
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
    char *tail = eg_cli_text_of(m[1].out);
    for (int k = 0, n = 0; k < 200; k++, n = 0) { /* each of them from each partition */
        char line[16];
        snprintf(line, sizeof(line), "\n%d\n", 600 + k);
        for (const char *at = tail; (at = strstr(at, line)) != NULL; at++)
            n++;
        assert_int_equal(n, 4);
    }
    free(tail);
    eg_cli_interrupt(&m[1]);
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
    free(first);
    free(second);
    free(third);
    free(fourth);
}

static void patterns_take_topics_that_are_made_later(void **state) {
    const struct eg_test_bus *b = *state;
    struct eg_cli_child m;
    PRINTS("", "topic", "create", "orders.a", "other", SMALL);
    START(&m, "m", "-g", "g", "^orders\\.", "-f", "%t %s\\n");
    eg_cli_wait_file(m.err, "assigned: orders.a [0]\n");
    FEED("1\n", "produce", "orders.a");
    eg_cli_wait_file(m.out, "orders.a 1\n");
    PRINTS("", "topic", "create", "orders.b", SMALL);
    FEED("2\n", "produce", "orders.b"); /* before it was found, perhaps: it is read from its beginning */
    eg_cli_wait_file(m.out, "orders.b 2\n");
    PRINTS("", "topic", "alter", "orders.a", "-p", "2");
    FEED("3\n", "produce", "orders.a", "-p", "1");
    eg_cli_wait_file(m.out, "orders.a 3\n");
    PRINTS("", "topic", "delete", "orders.a");
    eg_cli_wait_file(m.err, "revoked: orders.a [0], orders.a [1]\n");
    FEED("4\n", "produce", "orders.b");
    eg_cli_wait_file(m.out, "orders.b 4\n");
    eg_cli_interrupt(&m);
}

/* More members than partitions: who has none is at the end of all that it has. */
static void an_idle_member_ends_with_e(void **state) {
    const struct eg_test_bus *b = *state;
    struct eg_cli_child m;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t");
    eg_cli_wait_file(m.out, "1\n");
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
    PRINTS("", "consume", "-q", "-g", "h", "^nothing", "-e");
    eg_cli_interrupt(&m);
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
    struct eg_cli_child m, again, thief;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t", "--instance-id", "one");
    eg_cli_wait_file(m.out, "1\n");
    WAIT("Stable", "group", "list");
    long generation = generation_of(b);
    eg_cli_interrupt(&m);
    WAIT("  one            -", "group", "members", "g"); /* away: it has no process */
    FAILS(5, "instance 'one', away", "group", "seek", "g", "--to", "beginning");
    FEED("2\n", "produce", "t");
    START(&again, "again", "-g", "g", "t", "--instance-id", "one");
    eg_cli_wait_file(again.out, "2\n");
    assert_int_equal(generation_of(b), generation);
    assert_false(eg_cli_has(again.out, "1\n"));
    /* A second one with that name: the first one ends, and says why. */
    START(&thief, "thief", "-g", "g", "t", "--instance-id", "one");
    assert_int_equal(eg_wait_exit(again.pid), 1);
    assert_true(eg_cli_has(again.err, "one"));
    FEED("3\n", "produce", "t");
    eg_cli_wait_file(thief.out, "3\n");
    eg_cli_interrupt(&thief);
}

static void a_member_outlives_its_daemon(void **state) {
    struct eg_test_bus *b = *state;
    struct eg_cli_child m;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    START(&m, "m", "-g", "g", "t");
    eg_cli_wait_file(m.out, "1\n");
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    FEED("2\n", "produce", "t");
    eg_cli_wait_file(m.out, "2\n");
    WAIT("0    0\n", "group", "lag", "g");
    eg_cli_interrupt(&m);
    PRINTS("", "consume", "-q", "-g", "g", "t", "-e");
}

/* ---- queues ------------------------------------------------------------------------------------------------------------ */

static void a_queue_gives_each_record_to_one(void **state) {
    const struct eg_test_bus *b = *state;
    enum { COUNT = 2000 };
    struct eg_cli_child m[2];
    char *all = numbers(0, COUNT);
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    START(&m[0], "a", "-g", "q", "t", "--group-type", "share");
    START(&m[1], "b", "-g", "q", "t", "--group-type", "share");
    eg_cli_wait_file(m[0].err, "assigned: t [0]\n");
    eg_cli_wait_file(m[1].err, "assigned: t [0]\n");
    FEED(all, "produce", "t");
    WAIT("0    0\n", "group", "lag", "q");
    const char *const paths[] = {m[0].out, m[1].out};
    assert_int_equal(missing(paths, 2, 0, COUNT), 0);
    char *a = eg_cli_text_of(m[0].out), *c = eg_cli_text_of(m[1].out);
    assert_int_equal(strlen(a) + strlen(c), strlen(all));
    free(a);
    free(c);
    FAILS(5, "share", "consume", "-g", "q", "t"); /* it is of one type */
    eg_cli_interrupt(&m[0]);
    eg_cli_interrupt(&m[1]);
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
    struct eg_cli_child m;
    int out[2] = {-1, -1};
    char *all = long_lines(), byte;
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=1M", "-c", "storage=memory");
    FEED(all, "produce", "t");
    small_pipe(out);
    pid_t dead = EG_SPAWN(b, -1, out[1], -1, "eagre", "consume", "--socket", b->socket, "-g", "q", "t", "--group-type", "share");
    close(out[1]);
    assert_int_equal(read(out[0], &byte, 1), 1); /* it has taken them */
    START(&m, "m", "-g", "q", "t", "--group-type", "share");
    eg_cli_wait_file(m.err, "assigned: t [0]\n");
    kill(dead, SIGKILL);
    assert_int_equal(eg_wait_exit(dead), 137);
    WAIT("0    0\n", "group", "lag", "q");
    char *text = eg_cli_text_of(m.out);
    assert_string_equal(text, all);
    free(text);
    close(out[0]);
    eg_cli_interrupt(&m);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define STARTED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus, eg_teardown_bus)
        STARTED(a_group_goes_on_where_it_has_got_to),
        STARTED(notes_say_what_is_given_and_taken),
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
