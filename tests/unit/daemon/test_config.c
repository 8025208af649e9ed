#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "parse.h"
#include "sys/errbuf.h"

static void sizes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"123", 123},
                {"1B", 1},
                {"2K", 2048},
                {"2KiB", 2048},
                {"64M", 64u << 20},
                {"64MiB", 64u << 20},
                {"1G", 1u << 30},
                {"3T", 3ull << 40},
                {"18446744073709551615", UINT64_MAX}};
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      "1.5G",
                                      "1KB",
                                      "1 K",
                                      "K",
                                      "1k",
                                      "1KiBx",
                                      "1Ki",
                                      "1BiB",
                                      "16384P",
                                      "18446744073709551616"};
    uint64_t v = 77;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(eg_parse_size(good[i].text, &v));
        assert_true(v == good[i].bytes);
    }
    v = 77;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (eg_parse_size(bad[i], &v))
            fail_msg("'%s' was taken", bad[i]);
    assert_true(v == 77);
}

static void sizes_as_text(void **state) {
    (void)state;
    char buf[32];
    assert_string_equal(eg_format_size(0, buf, sizeof(buf)), "0 B");
    assert_string_equal(eg_format_size(1023, buf, sizeof(buf)), "1023 B");
    assert_string_equal(eg_format_size(64u << 20, buf, sizeof(buf)), "64 MiB");
    assert_string_equal(eg_format_size(3ull << 29, buf, sizeof(buf)), "1.5 GiB");
    uint64_t seed = 3, back;
    for (int i = 0; i < 1000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t v = seed >> (seed % 64) << (i % 40);
        assert_true(eg_parse_size(eg_print_size(v, buf, sizeof(buf)), &back));
        assert_true(back == v);
    }
}

static void integers(void **state) {
    (void)state;
    int64_t v = 5;
    assert_true(eg_parse_int("-1", &v) && v == -1);
    assert_true(eg_parse_int("9223372036854775807", &v) && v == INT64_MAX);
    static const char *const bad[] = {"", "-", "1x", " 1", "9223372036854775808", "0x10", "--1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(eg_parse_int(bad[i], &v));
}

static void distances(void **state) {
    (void)state;
    assert_int_equal(eg_text_distance("", ""), 0);
    assert_int_equal(eg_text_distance("abc", "abc"), 0);
    assert_int_equal(eg_text_distance("abc", ""), 3);
    assert_int_equal(eg_text_distance("kitten", "sitting"), 3);
    char longer[200];
    memset(longer, 'x', 199);
    longer[199] = '\0';
    eg_text_distance(longer, longer); /* stays within its row */
}

static void defaults_are_within_their_own_ranges(void **state) {
    (void)state;
    struct eg_config a, b;
    char value[4200];
    assert_int_equal(eg_config_init(&a), 0);
    assert_true(a.memory_max > 0);
    assert_int_equal(eg_config_init(&b), 0);
    /* What is printed can be read, and says the same. */
    for (size_t i = 0; eg_config_name(i) != NULL; i++) {
        eg_config_print(&a, i, value, sizeof(value));
        assert_int_equal(eg_config_set(&b, "test", eg_config_name(i), value), 0);
    }
    assert_memory_equal(&a, &b, sizeof(a));
}

static void bad_values_name_setting_value_and_range(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *text;
    } cases[] = {
        {"memory.max", "lots", "at least 1MiB"},
        {"memory.max", "1K", "at least 1MiB"},
        {"memory.max", "-1", "at least 1MiB"},
        {"clients.max", "16384", "1 to 16383"},
        {"clients.max", "", "1 to 16383"},
        {"socket.mode", "0888", "octal"},
        {"socket.mode", "1777", "octal"},
        {"keeper", "both", "auto, process, systemd, none"},
        {"keeper.linger.ms", "-2", "or -1"},
        {"cpus", "3-1", "0-3,8"},
        {"cpus", "1,", "0-3,8"},
        {"cpus", "a", "0-3,8"},
        {"cpus", "1-", "0-3,8"},
        {"dir", "", "a path"},
    };
    struct eg_config c, before;
    assert_int_equal(eg_config_init(&c), 0);
    before = c;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(eg_config_set(&c, "here:3", cases[i].name, cases[i].value),
                         EAGRE_E_INVALID_CONFIG);
        const char *text = eg_error_text();
        if (strncmp(text, "here:3: ", 8) != 0 || strstr(text, cases[i].name) == NULL ||
            strstr(text, cases[i].value) == NULL || strstr(text, cases[i].text) == NULL)
            fail_msg("%s", text);
        assert_memory_equal(&c, &before, sizeof(c));
    }
}

static void good_values(void **state) {
    (void)state;
    struct eg_config c;
    assert_int_equal(eg_config_init(&c), 0);
    assert_int_equal(eg_config_set(&c, "", "memory.max", "2G"), 0);
    assert_true(c.memory_max == 2ull << 30);
    assert_int_equal(eg_config_set(&c, "", "socket.mode", "0620"), 0);
    assert_int_equal(c.socket_mode, 0620);
    assert_int_equal(eg_config_set(&c, "", "cpus", "0-3,8"), 0);
    assert_string_equal(c.cpus, "0-3,8");
    assert_int_equal(eg_config_set(&c, "", "cpus", ""), 0);
    assert_int_equal(eg_config_set(&c, "", "keeper", "systemd"), 0);
    assert_int_equal(c.keeper, EG_KEEPER_SYSTEMD);
    assert_int_equal(eg_config_set(&c, "", "keeper.linger.ms", "-1"), 0);
    assert_true(c.keeper_linger_ms == -1);
}

static void unknown_names_suggest_the_nearest(void **state) {
    (void)state;
    struct eg_config c;
    assert_int_equal(eg_config_init(&c), 0);
    assert_int_equal(eg_config_set(&c, "x", "client.max", "1"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "did you mean 'clients.max'"));
    assert_int_equal(eg_config_set(&c, "x", "something.else.entirely", "1"),
                     EAGRE_E_INVALID_CONFIG);
    assert_null(strstr(eg_error_text(), "did you mean"));
    assert_non_null(strstr(eg_error_text(), "--help-config"));
}

static int load(struct eg_config *c, const char *content) {
    char path[64];
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%.40s/eg-conf-XXXXXX", tmp != NULL ? tmp : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    int rc = eg_config_load(c, path);
    unlink(path);
    return rc;
}

static void files(void **state) {
    (void)state;
    struct eg_config c;
    assert_int_equal(eg_config_init(&c), 0);
    assert_int_equal(load(&c, "# a comment\n\n  topics.max = 7 # seven\r\nlog.level=debug"), 0);
    assert_int_equal(c.topics_max, 7);
    assert_int_equal(c.log_level, 3);
    assert_int_equal(load(&c, "topics.max=8\nnonsense\n"), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), ":2: 'nonsense' is not name=value"));
    assert_int_equal(eg_config_load(&c, "/nonexistent"), EAGRE_E_IO);
    assert_non_null(strstr(eg_error_text(), "/nonexistent"));
}

static void paths_become_absolute(void **state) {
    (void)state;
    struct eg_config c;
    char here[4096], expected[4200];
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir("/tmp"), 0);
    assert_int_equal(eg_config_init(&c), 0);
    assert_int_equal(eg_config_set(&c, "", "dir", "a/b"), 0);
    assert_int_equal(eg_config_set(&c, "", "socket", "s"), 0);
    assert_int_equal(eg_config_finish(&c), 0);
    snprintf(expected, sizeof(expected), "/tmp/a/b");
    assert_string_equal(c.dir, expected);
    assert_string_equal(c.socket, "/tmp/s");

    char name[108];
    memset(name, 'x', 107);
    name[107] = '\0';
    assert_int_equal(eg_config_set(&c, "", "socket", name),
                     0); /* fits, but not with /tmp/ before it */
    assert_int_equal(eg_config_finish(&c), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eg_error_text(), "112 bytes"));
    assert_int_equal(chdir(here), 0);
}

static void limits_that_depend_on_each_other(void **state) {
    (void)state;
    struct eg_config c;
    assert_int_equal(eg_config_init(&c), 0);
    assert_int_equal(eg_config_set(&c, "", "clients.max", "3"), 0);
    assert_int_equal(eg_config_set(&c, "", "connections.max", "4"), 0);
    assert_int_equal(eg_config_set(&c, "", "dir", "/d"), 0);
    assert_int_equal(eg_config_finish(&c), 0);
    assert_int_equal(c.clients_max_per_uid, 3);
    assert_int_equal(c.connections_max_per_uid, 4);
    assert_int_equal(c.memory_max_per_uid, c.memory_max / 2);
    assert_int_equal(c.topics_max_per_uid, c.topics_max / 4);
    assert_int_equal(eg_config_set(&c, "", "memory.max", "1M"), 0);
    assert_int_equal(eg_config_set(&c, "", "memory.max.per.uid", "2M"), 0);
    assert_int_equal(eg_config_set(&c, "", "topics.max", "3"), 0);
    assert_int_equal(eg_config_set(&c, "", "topics.max.per.uid", "0"), 0);
    assert_int_equal(eg_config_finish(&c), 0);
    assert_int_equal(c.memory_max_per_uid, 1 << 20);
    assert_int_equal(c.topics_max_per_uid, 1);
}

static void a_service_lives_where_systemd_says(void **state) {
    (void)state;
    struct eg_config c;
    setenv("RUNTIME_DIRECTORY", "/run/a:/run/b", 1);
    setenv("STATE_DIRECTORY", "/var/lib/c", 1);
    assert_int_equal(eg_config_init(&c), 0);
    assert_string_equal(c.socket, "/run/a/eagre.sock");
    assert_string_equal(c.dir, "/var/lib/c");
    assert_int_equal(c.socket_mode, 0660);
    unsetenv("RUNTIME_DIRECTORY");
    unsetenv("STATE_DIRECTORY");
}

static void the_help_names_every_entry(void **state) {
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    eg_config_help(f);
    fclose(f);
    for (size_t i = 0; eg_config_name(i) != NULL; i++)
        assert_non_null(strstr(text, eg_config_name(i)));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(sizes_as_text),
        cmocka_unit_test(integers),
        cmocka_unit_test(distances),
        cmocka_unit_test(defaults_are_within_their_own_ranges),
        cmocka_unit_test(bad_values_name_setting_value_and_range),
        cmocka_unit_test(good_values),
        cmocka_unit_test(unknown_names_suggest_the_nearest),
        cmocka_unit_test(files),
        cmocka_unit_test(paths_become_absolute),
        cmocka_unit_test(limits_that_depend_on_each_other),
        cmocka_unit_test(a_service_lives_where_systemd_says),
        cmocka_unit_test(the_help_names_every_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
