/*
 * Everything that is written by people for the daemon: its configuration file, topics' settings, access lists,
 * sizes, topic names. What is taken, printed and taken again, is the same.
 *
 *   u8 which, then the text
 */
#include <sys/mman.h>
#include <unistd.h>

#include "access.h"
#include "config.h"
#include "eagre/error.h"
#include "fuzz/fuzz.h"
#include "parse.h"
#include "settings.h"
#include "sys/errbuf.h"

static void check_error(int rc) {
    FUZZ_REQUIRE(rc == EAGRE_OK || (rc < 0 && eg_error_text()[0] != '\0'));
}

static void same_config(const struct eg_config *c) {
    char buf[EG_CONFIG_TEXT + 4096], again_buf[EG_CONFIG_TEXT + 4096];
    for (size_t i = 0; eg_config_name(i) != NULL; i++) {
        struct eg_config again = *c;
        const char *text = eg_config_print(c, i, buf, sizeof(buf));
        FUZZ_REQUIRE(eg_config_set(&again, "again", eg_config_name(i), text) == EAGRE_OK);
        FUZZ_REQUIRE(strcmp(eg_config_print(&again, i, again_buf, sizeof(again_buf)), text) == 0);
    }
}

static void config_file(const char *text, size_t size) {
    static struct eg_config c;
    char path[64];
    int fd = memfd_create("config", MFD_CLOEXEC);
    FUZZ_REQUIRE(fd >= 0 && write(fd, text, size) == (ssize_t)size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    FUZZ_REQUIRE(eg_config_init(&c) == EAGRE_OK);
    int rc = eg_config_load(&c, path);
    check_error(rc);
    (void)close(fd);
    if (rc == EAGRE_OK)
        same_config(&c); /* before relations are looked at: each value is possible */
    if (rc == EAGRE_OK)
        check_error(eg_config_finish(&c));
}

static void topic_settings(char *text) {
    static struct eg_settings s, stored, other;
    char buf[16384], again[16384], value[EG_ACCESS_TEXT + 64];
    eg_settings_init(&s);
    for (char *line = text, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        char *equals = strchr(line, '=');
        if (equals == NULL)
            continue;
        *equals = '\0';
        check_error(eg_settings_set(&s, "t", line, equals + 1, strlen(line) % 2 == 0));
    }
    int rc = eg_settings_finish(&s, "t");
    check_error(rc);
    if (rc != EAGRE_OK || eg_settings_save(&s, "t", buf, sizeof(buf)) != EAGRE_OK)
        return;
    eg_settings_init(&stored);
    FUZZ_REQUIRE(eg_settings_load(&stored, "t", buf) == EAGRE_OK);
    FUZZ_REQUIRE(eg_settings_save(&stored, "t", again, sizeof(again)) == EAGRE_OK &&
                 strcmp(buf, again) == 0);
    for (size_t i = 0; i < EG_SET_COUNT; i++)
        FUZZ_REQUIRE(eg_settings_print(&s, i, value, sizeof(value)) != NULL);
    (void)eg_settings_ring_bytes(&s);
    eg_settings_init(&other);
    FUZZ_REQUIRE(eg_settings_finish(&other, "t") == EAGRE_OK);
    check_error(eg_settings_alterable(&other, &s, "t"));
}

static void stored_settings(const char *text) {
    static struct eg_settings s;
    eg_settings_init(&s);
    check_error(eg_settings_load(&s, "t", text));
}

static void access_list(const char *text) {
    struct eg_access a, again;
    struct eg_peer peer = {.uid = 12345, .gid = 23456, .sock = -1};
    int rc = eg_access_parse(&a, text, (strlen(text) & 1) != 0);
    check_error(rc);
    if (rc != EAGRE_OK)
        return;
    FUZZ_REQUIRE(a.count <= EG_ACCESS_ENTRIES && strlen(a.text) < EG_ACCESS_TEXT);
    FUZZ_REQUIRE(eg_access_parse(&again, a.text, false) == EAGRE_OK &&
                 strcmp(a.text, again.text) == 0);
    FUZZ_REQUIRE(eg_access_allows(&a, &peer, 1) == eg_access_allows(&again, &peer, 1));
    bool any =
        strchr(text, '*') != NULL || strstr(text, "12345") != NULL || strstr(text, "23456") != NULL;
    FUZZ_REQUIRE(any || !eg_access_allows(&a, &peer, 1));
}

static void numbers(const char *text) {
    int64_t i;
    uint64_t u, again;
    char buf[64];
    if (eg_parse_int(text, &i)) {
        (void)snprintf(buf, sizeof(buf), "%lld", (long long)i);
        int64_t back;
        FUZZ_REQUIRE(eg_parse_int(buf, &back) && back == i);
    }
    if (eg_parse_size(text, &u)) {
        FUZZ_REQUIRE(eg_parse_size(eg_print_size(u, buf, sizeof(buf)), &again) && again == u);
        FUZZ_REQUIRE(eg_format_size(u, buf, sizeof(buf)) == buf);
    }
    (void)eg_text_distance(text, "segment.bytes");
}

static void topic_name(const char *text) {
    int rc = eg_topic_name_check(text);
    check_error(rc);
    size_t n = strlen(text);
    FUZZ_REQUIRE(rc != EAGRE_OK ||
                 (n > 0 && n <= 249 && strchr(text, '/') == NULL && strcmp(text, ".") != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > 8192)
        return 0;
    char *text = calloc(1, size);
    FUZZ_REQUIRE(text != NULL);
    memcpy(text, data + 1, size - 1);
    switch (data[0] % 6) {
    case 0:
        config_file(text, size - 1);
        break;
    case 1:
        topic_settings(text);
        break;
    case 2:
        stored_settings(text);
        break;
    case 3:
        access_list(text);
        break;
    case 4:
        numbers(text);
        break;
    default:
        topic_name(text);
        break;
    }
    free(text);
    return 0;
}
