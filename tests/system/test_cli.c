/* The eagre command as its users see it: what it prints, how it ends, what it never does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_cli.h"

#define SMALL "-c", "segment.bytes=64K", "-c", "storage=memory"

/* ---- usage and exit codes -------------------------------------------------------------------------------- */

static void wrong_usage_is_2_and_says_what(void **state) {
    const struct eg_test_bus *b = *state;
    FAILS(2, "no command 'frob'", "frob");
    FAILS(2, "create, list", "topic");
    FAILS(2, "no option --frob", "status", "--frob=1");
    FAILS(2, "no option -x", "consume", "-x", "t");
    FAILS(2, "-c needs a value", "consume", "t", "-c");
    FAILS(2, "which topic", "consume");
    FAILS(2, "which topic", "produce");
    FAILS(2, "-p: 'two'", "produce", "t", "-p", "two");
    FAILS(2, "-o", "consume", "t", "-o", "middle");
    FAILS(2, "-f: after a %", "consume", "t", "-f", "%q");
    FAILS(2, "-f: a % is at its end", "consume", "t", "-f", "100%");
    FAILS(2, "-f and -J", "consume", "t", "-f", "%s", "-J");
    FAILS(2, "NAME=VALUE", "topic", "create", "t", "-c", "partitions");
    FAILS(2, "nothing to change", "topic", "alter", "t");
    FAILS(2, "text or json", "topic", "list", "--format", "xml");
    FAILS(2, "one argument too many", "status", "now");
    FAILS(2, "delimiter is not empty", "produce", "t", "-K", "");
}

static void help_is_no_error(void **state) {
    const struct eg_test_bus *b = *state;
    static const char *const commands[] = {"up", "down", "status", "produce", "consume"};
    EXPECT(0, NULL, "", NULL, "--help");
    EXPECT(0, NULL, "", NULL, "help", "topic", "create");
    PRINTS("eagre 0.1.0\n", "--version");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        char *text = OUTPUT(commands[i], "--help");
        assert_non_null(strstr(text, commands[i]));
        free(text);
    }
}

static void no_daemon_is_3_and_says_how_to_start_one(void **state) {
    const struct eg_test_bus *b = *state;
    FAILS(3, "eagre up", "topic", "list");
    FAILS(3, b->socket, "consume", "t");
    FAILS(3, b->socket, "produce", "t");
    FAILS(3, b->socket, "down");
    FAILS(3, "/nowhere/s", "status", "--socket",
          "/nowhere/s"); /* the option wins over the variable */
    FAILS(3, "/nowhere/s", "--socket=/nowhere/s", "status");
}

/* ---- up, down, status -------------------------------------------------------------------------------------- */

static long number_behind(const char *text, const char *label) {
    const char *at = strstr(text, label);
    assert_non_null(at);
    return atol(at + strlen(label));
}

/* Ended, whether or not somebody has waited for it. */
static bool is_gone(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool gone = fd < 0 || poll(&p, 1, 0) == 1;
    if (fd >= 0)
        close(fd);
    return gone;
}

static void up_starts_a_daemon_and_down_ends_it(void **state) {
    const struct eg_test_bus *b = *state;
    char expected[256];
    char *up = OUTPUT("up", "--dir", b->data, "-c", "keeper=process");
    long pid = number_behind(up, "pid ");
    assert_non_null(strstr(up, b->socket));
    assert_int_equal(kill((pid_t)pid, 0), 0);
    free(up);

    snprintf(expected, sizeof(expected), "eagred answers already: socket %s, pid %ld\n", b->socket,
             pid);
    PRINTS(expected, "up", "--dir", b->data);
    char *status = OUTPUT("status");
    assert_int_equal(number_behind(status, "\npid"), pid);
    free(status);
    status = OUTPUT("status", "--format", "json");
    assert_int_equal(status[0], '{');
    assert_int_equal(number_behind(status, "\"pid\": "), pid);
    long keeper = number_behind(status, "\"keeper.pid\": ");
    assert_int_equal(kill((pid_t)keeper, 0), 0);
    free(status);

    snprintf(expected, sizeof(expected), "eagred (pid %ld) has ended\n", pid);
    PRINTS(expected, "down");
    assert_true(is_gone((pid_t)pid) && is_gone((pid_t)keeper)); /* when down says so */
    FAILS(3, "eagre up", "down");
}

static void down_can_keep_the_memory(void **state) {
    const struct eg_test_bus *b = *state;
    free(OUTPUT("up", "--dir", b->data, "-c", "keeper=process"));
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("kept\n", "produce", "t");
    char *status = OUTPUT("status", "--format", "json");
    long keeper = number_behind(status, "\"keeper.pid\": ");
    free(status);
    char *down = OUTPUT("down", "--keep-memory");
    assert_int_equal(number_behind(down, "eagre-keeper (pid "), keeper);
    free(down);
    assert_int_equal(kill((pid_t)keeper, 0), 0);
    free(OUTPUT("up", "--dir", b->data, "-c", "keeper=process"));
    PRINTS("kept\n", "consume", "t", "-e");
    free(OUTPUT("down"));
}

static void up_says_why_it_failed(void **state) {
    const struct eg_test_bus *b = *state;
    FAILS(1, "no setting 'memory.maxx'", "up", "--dir", b->data, "-c", "memory.maxx=1G");
    FAILS(1, "/dev/null/x", "up", "--dir", "/dev/null/x");
}

/* ---- topics -------------------------------------------------------------------------------------------------- */

static void topics_come_change_and_go(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("NAME  PARTITIONS  STORAGE\n", "topic", "list");
    PRINTS("[]\n", "topic", "list", "--format=json");
    PRINTS("", "topic", "create", "orders", "-p", "2", SMALL);
    PRINTS("", "topic", "create", "a", "b", SMALL);
    FAILS(5, "orders", "topic", "create", "orders");
    PRINTS("NAME    PARTITIONS  STORAGE\n"
           "a                1  memory\n"
           "b                1  memory\n"
           "orders           2  memory\n",
           "topic", "list");
    char *json = OUTPUT("topic", "list", "--format", "json");
    assert_non_null(strstr(json, "{\"name\": \"orders\", \"uid\": "));
    assert_non_null(strstr(json, "\"partitions\": 2, \"storage\": \"memory\"}"));
    free(json);

    char *text = OUTPUT("topic", "describe", "orders");
    assert_int_equal(strncmp(text, "orders\n", 7), 0);
    assert_non_null(strstr(text, "segment.bytes"));
    assert_non_null(strstr(text, "(default)"));
    free(text);
    PRINTS("", "topic", "alter", "orders", "-p", "3", "-c", "retention.ms=1000");
    json = OUTPUT("topic", "describe", "orders", "--format", "json");
    assert_non_null(strstr(json, "\"retention.ms\": {\"value\": 1000, \"default\": false}"));
    assert_non_null(strstr(
        json,
        "{\"partition\": 2, \"state\": \"active\", \"log_start_offset\": 0, \"end_offset\": 0"));
    free(json);

    FAILS(4, "nowhere", "topic", "describe", "nowhere");
    FAILS(4, "nowhere", "topic", "delete", "nowhere", "a"); /* the others are done all the same */
    FAILS(4, "nowhere", "consume", "nowhere");
    FAILS(4, "nowhere", "produce", "nowhere");
    FAILS(4, "partition", "consume", "orders", "-p", "7");
    FAILS(4, "partition 7", "produce", "orders", "-p", "7");
    FAILS(5, "ring.segments", "topic", "create", "c", "-c", "ring.segments=1000000");
    FAILS(5, "ring.segments", "topic", "create", "c", "-c", "ring.segment=3"); /* did you mean */
    PRINTS("", "topic", "delete", "b", "orders");
    PRINTS("NAME  PARTITIONS  STORAGE\n", "topic", "list");
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void lines_come_back_as_lines(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("one\ntwo\n\nthree", "produce", "t"); /* empty: none; the last one needs no newline */
    PRINTS("one\ntwo\nthree\n", "consume", "t", "-e");
    PRINTS("two\nthree\n", "consume", "t", "-e", "-o", "1");
    PRINTS("three\n", "consume", "t", "-e", "-o", "-1");
    PRINTS("one\ntwo\nthree\n", "consume", "t", "-e", "-o", "-99");
    PRINTS("", "consume", "t", "-e", "-o", "end");
    PRINTS("one\ntwo\n", "consume", "t", "-c", "2");
    PRINTS("one\n", "consume", "t", "-c", "1", "-e");
    PRINTS("one|two|three|", "consume", "t", "-e", "-D", "|");
    PRINTS("one\ntwo\nthree\n", "consume", "t", "-e", "-u");
    EXPECT(0, "", "nothing at offset 50", NULL, "consume", "t", "-e", "-o", "50");
    PRINTS("", "consume", "t", "-e", "-o", "50", "-q");
}

static void keys_nulls_and_headers(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("k1:v1\nk2:\n:v3\nplain\n", "produce", "t", "-K", ":", "-H", "a=1", "-H", "b");
    PRINTS("0 k1/2 v1/2 a=1,b=NULL\n1 k2/2 /0 a=1,b=NULL\n2 /0 v3/2 a=1,b=NULL\n3 /-1 plain/5 "
           "a=1,b=NULL\n",
           "consume", "t", "-e", "-f", "%o %k/%K %s/%S %h\\n");
    PRINTS("k1=v1\nk2=\n=v3\nNULL=plain\n", "consume", "t", "-e", "-K", "=", "-Z");
    FEED("k:\n:v\n\n", "produce", "t", "-K", ":", "-Z");
    PRINTS("k NULL 1 -1\nNULL v -1 1\nNULL NULL -1 -1\n", "consume", "t", "-e", "-o", "4", "-Z",
           "-f", "%k %s %K %S\\n");
    FEED("x:y\nz\n", "produce", "t", "-k", "fixed", "-K", ":");
    PRINTS("x y\nfixed z\n", "consume", "t", "-e", "-o", "-2", "-f", "%k %s\\n");
    FEED("a\n;b\n;\nc;", "produce", "t", "-D", "\\n;");
    PRINTS("a,b,\nc;,", "consume", "t", "-e", "-o", "-3", "-D", ",");
    PRINTS("t[0] 100%\tA\\", "consume", "t", "-c", "1", "-f", "%t[%p] 100%%\\t\\x41\\\\");
    FEED("1\n2\n3\n4\n", "produce", "t", "-c", "2");
    PRINTS("1\n2\n", "consume", "t", "-e", "-o", "-2");
}

static void json_is_json(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("k\"\\\t\x01:\xc3\xa4 \xf0\x9f\x8c\x8a\n\xff:\xed\xa0\x80\n", "produce", "t", "-K", ":",
         "-H", "n=\xfe", "-H", "z");
    char *text = OUTPUT("consume", "t", "-e", "-J");
    char *second = strchr(text, '\n') + 1;
    second[-1] = '\0';
    assert_ptr_equal(
        strstr(text, "{\"topic\":\"t\",\"partition\":0,\"offset\":0,\"tstype\":\"create\",\"ts\":"),
        text);
    assert_non_null(strstr(
        text,
        ",\"headers\":[\"n\",{\"base64\":\"/g==\"},\"z\",null],\"key\":\"k\\\"\\\\\\t\\u0001\","
        "\"payload\":\"\xc3\xa4 \xf0\x9f\x8c\x8a\"}"));
    assert_non_null(strstr(second, "\"key_base64\":\"/w==\",\"payload_base64\":\"7aCA\"}\n"));
    free(text);
    FEED("x\n", "produce", "t");
    text = OUTPUT("consume", "t", "-o", "-1", "-e", "-J");
    assert_null(strstr(text, "headers"));
    assert_non_null(strstr(text, "\"key\":null,\"payload\":\"x\"}\n"));
    free(text);
}

static void partitions_and_topics(void **state) {
    const struct eg_test_bus *b = *state;
    PRINTS("", "topic", "create", "t", "-p", "4", SMALL);
    PRINTS("", "topic", "create", "u", SMALL);
    FEED("a\nb\n", "produce", "t", "-p", "3");
    FEED("c\n", "produce", "t", "-p", "0");
    FEED("d\n", "produce", "u");
    PRINTS("3 0 a\n3 1 b\n", "consume", "t", "-p", "3", "-e", "-f", "%p %o %s\\n");
    PRINTS("", "consume", "t", "-p", "1", "-e");
    char *text = OUTPUT("consume", "t", "u", "-e", "-f", "%t%p:%s ");
    assert_int_equal(strlen(text), strlen("t3:a t3:b t0:c u0:d "));
    assert_non_null(strstr(text, "t3:a t3:b "));
    assert_non_null(strstr(text, "t0:c "));
    assert_non_null(strstr(text, "u0:d "));
    free(text);
    /* Keys go where Kafka's Java client puts them: murmur2("foobar") is -790332482, positive 1357151166. */
    FEED("foobar:1\n", "produce", "t", "-K", ":");
    PRINTS("1\n", "consume", "t", "-p", "2", "-e");
}

/* ---- input -------------------------------------------------------------------------------------------------------- */

static void files_and_standard_input(void **state) {
    const struct eg_test_bus *b = *state;
    char path[128];
    snprintf(path, sizeof(path), "%s/lines", b->dir);
    FILE *f = fopen(path, "w");
    fputs("1\n2\n", f);
    fclose(f);
    PRINTS("", "topic", "create", "t", SMALL);
    EXPECT(0, "", "", "3\n", "produce", "t", path, "-", path);
    PRINTS("1\n2\n3\n1\n2\n", "consume", "t", "-e");
    EXPECT(1, "", "No such file", NULL, "produce", "t", "/nowhere/file");
    EXPECT(1, "", "Is a directory", NULL, "produce", "t", "/");
}

/* Many more lines than one batch, one read, or one segment have; nothing is lost, doubled or out of order. */
static void a_large_file_comes_back_whole(void **state) {
    const struct eg_test_bus *b = *state;
    size_t n = 60000;
    char *text = malloc(n * 40);
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += (size_t)sprintf(text + used, "%zu%.*s\n", i, (int)(i % 30),
                                "..............................");
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=4M", "-c", "storage=memory");
    FEED(text, "produce", "t");
    PRINTS(text, "consume", "t", "-e");
    free(text);
}

/* A read ends between the bytes of a delimiter. */
static void a_delimiter_may_be_cut_in_two(void **state) {
    const struct eg_test_bus *b = *state;
    char path[128];
    size_t n = 100000; /* 256 KiB, the size of a read, is no multiple of 5 */
    char *lines = malloc(n * 4 + 1);
    snprintf(path, sizeof(path), "%s/pieces", b->dir);
    FILE *f = fopen(path, "w");
    for (size_t i = 0; i < n; i++) {
        fputs("abc||", f);
        memcpy(lines + i * 4, "abc\n", 5);
    }
    fclose(f);
    PRINTS("", "topic", "create", "t", "-c", "segment.bytes=16M", "-c", "storage=memory");
    FEED(NULL, "produce", "t", "-D", "||", path);
    PRINTS(lines, "consume", "t", "-e");
    free(lines);
}

static void the_first_refusal_ends_it_and_is_told(void **state) {
    const struct eg_test_bus *b = *state;
    char *text = malloc(20000);
    memset(text, 'x', 20000);
    memcpy(text, "1\n2\n3\n", 6);
    strcpy(text + 19990, "\n5\n");
    PRINTS("", "topic", "create", "t", SMALL);
    EXPECT(5, "", "standard input: 4: ", text, "produce", "t");
    EXPECT(5, "", "stopped: 3 records were sent", text, "produce", "t");
    PRINTS("1\n2\n3\n1\n2\n3\n", "consume", "t", "-e");
    free(text);
}

/* ---- live --------------------------------------------------------------------------------------------------------- */

/* What runs beside the test names the socket on its command line, for the harness to find it by. */

/* Through two pipes: a line is sent when it is there, and printed when it was sent, though neither the
 * producer's input nor the consumer's reading has ended. */
static void a_line_is_not_held_back(void **state) {
    const struct eg_test_bus *b = *state;
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    PRINTS("", "topic", "create", "t", SMALL);
    assert_true(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    pid_t consumer = EG_SPAWN(b, -1, out[1], 2, "eagre", "consume", "--socket", b->socket, "t");
    pid_t producer = EG_SPAWN(b, in[0], 1, 2, "eagre", "produce", "--socket", b->socket, "t");
    close(in[0]);
    close(out[1]);
    for (int i = 0; i < 3; i++) {
        char line[16];
        int n = snprintf(line, sizeof(line), "line %d\n", i);
        assert_int_equal(write(in[1], line, (size_t)n), n);
        eg_cli_read(out[0], line);
    }
    close(in[1]);
    assert_int_equal(eg_wait_exit(producer), 0);
    kill(consumer, SIGINT);
    assert_int_equal(eg_wait_exit(consumer), 130);
    close(out[0]);
}

static void sigterm_ends_a_consumer(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("x\n", "produce", "t");
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t consumer = EG_SPAWN(b, -1, out[1], 2, "eagre", "consume", "--socket", b->socket, "t");
    close(out[1]);
    eg_cli_read(out[0], "x\n");
    kill(consumer, SIGTERM);
    assert_int_equal(eg_wait_exit(consumer), 143);
    close(out[0]);
}

/* `eagre consume t | head -1` */
static void a_reader_that_leaves_is_no_error(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    char byte;
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("x\n", "produce", "t");
    assert_true(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
    close(out[0]);
    pid_t consumer =
        EG_SPAWN(b, -1, out[1], err[1], "eagre", "consume", "--socket", b->socket, "t");
    close(out[1]);
    close(err[1]);
    assert_int_equal(eg_wait_exit(consumer), 141);
    assert_int_equal(read(err[0], &byte, 1), 0); /* quietly */
    close(err[0]);
    /* Likewise where SIGPIPE is ignored, as under some supervisors: it comes back as EPIPE. */
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    close(out[0]);
    static const char script[] = "trap '' PIPE; exec \"$0\" consume --socket \"$1\" t";
    static const char eagre[] = EG_TEST_BIN_DIR "/eagre";
    consumer = EG_SPAWN(b, -1, out[1], -1, "/bin/sh", "-c", script, eagre, b->socket);
    close(out[1]);
    assert_int_equal(eg_wait_exit(consumer), 141);
}

static void output_that_cannot_be_written_is_1(void **state) {
    const struct eg_test_bus *b = *state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("x\n", "produce", "t");
    assert_int_equal(eg_wait_exit(EG_SPAWN(b, -1, full, -1, "eagre", "consume", "--socket",
                                           b->socket, "t", "-e")),
                     1);
    assert_int_equal(eg_wait_exit(EG_SPAWN(b, -1, full, -1, "eagre", "topic", "list")), 1);
    close(full);
}

static void a_consumer_outlives_its_daemon(void **state) {
    struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t consumer = EG_SPAWN(b, -1, out[1], 2, "eagre", "consume", "--socket", b->socket, "t");
    close(out[1]);
    eg_cli_read(out[0], "1\n");
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    FEED("2\n", "produce", "t");
    eg_cli_read(out[0], "2\n");
    kill(consumer, SIGINT);
    assert_int_equal(eg_wait_exit(consumer), 130);
    close(out[0]);
}

static void a_deleted_topic_ends_its_consumer(void **state) {
    const struct eg_test_bus *b = *state;
    int out[2] = {-1, -1};
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n", "produce", "t");
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t consumer = EG_SPAWN(b, -1, out[1], -1, "eagre", "consume", "--socket", b->socket, "t");
    close(out[1]);
    eg_cli_read(out[0], "1\n");
    PRINTS("", "topic", "delete", "t");
    assert_int_equal(eg_wait_exit(consumer), 4);
    close(out[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define STOPPED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus_stopped, eg_teardown_bus)
#define STARTED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus, eg_teardown_bus)
        STOPPED(wrong_usage_is_2_and_says_what),
        STOPPED(help_is_no_error),
        STOPPED(no_daemon_is_3_and_says_how_to_start_one),
        STOPPED(up_starts_a_daemon_and_down_ends_it),
        STOPPED(down_can_keep_the_memory),
        STOPPED(up_says_why_it_failed),
        STARTED(topics_come_change_and_go),
        STARTED(lines_come_back_as_lines),
        STARTED(keys_nulls_and_headers),
        STARTED(json_is_json),
        STARTED(partitions_and_topics),
        STARTED(files_and_standard_input),
        STARTED(a_large_file_comes_back_whole),
        STARTED(a_delimiter_may_be_cut_in_two),
        STARTED(the_first_refusal_ends_it_and_is_told),
        STARTED(a_line_is_not_held_back),
        STARTED(sigterm_ends_a_consumer),
        STARTED(a_reader_that_leaves_is_no_error),
        STARTED(output_that_cannot_be_written_is_1),
        STARTED(a_consumer_outlives_its_daemon),
        STARTED(a_deleted_topic_ends_its_consumer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
