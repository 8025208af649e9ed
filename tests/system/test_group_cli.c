/* `eagre group` as its users see it, and what `eagre consume -g` refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness_cli.h"

#define SMALL "-c", "segment.bytes=64K", "-c", "storage=memory"

#define START(m, name, ...) eg_cli_start((m), b, (name), ARGV("consume", "--socket", b->socket, __VA_ARGS__))

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

static void an_active_group_is_left_alone(void **state) {
    const struct eg_test_bus *b = *state;
    struct eg_cli_child m;
    char pid[32];
    PRINTS("", "topic", "create", "t", SMALL);
    FEED("1\n2\n", "produce", "t");
    START(&m, "m", "-g", "g", "t", "-q");
    eg_cli_wait_file(m.out, "2\n");
    snprintf(pid, sizeof(pid), "(pid %d, client 'eagre')", (int)m.pid);
    EXPECT(5, "", pid, NULL, "group", "seek", "g", "--to", "beginning");
    EXPECT(5, "", pid, NULL, "group", "seek", "g", "--to", "beginning", "--dry-run");
    EXPECT(5, "", "1 member: ", NULL, "group", "delete", "g");
    eg_cli_interrupt(&m);
    PRINTS("t,0,0\n", "group", "seek", "g", "--to", "beginning", "--export");
    PRINTS("1\n2\n", "consume", "-q", "-g", "g", "t", "-e");
    PRINTS("", "group", "delete", "g");
    FAILS(4, "'g'", "group", "lag", "g");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define STOPPED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus_stopped, eg_teardown_bus)
#define STARTED(t) cmocka_unit_test_setup_teardown(t, eg_setup_bus, eg_teardown_bus)
        STOPPED(wrong_usage_is_2_and_says_what),
        STARTED(what_is_not_there_is_4),
        STARTED(seek_sets_offsets_as_kafkas_tool_does),
        STARTED(seek_by_time_and_stop_by_time),
        STARTED(an_active_group_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
