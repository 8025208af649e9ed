#include "harness_client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct eg_test_bus *bus;
eagre_t *e;
eagre_producer_t *p;
eagre_consumer_t *c;

/* Children that stay read from it: it ends with the test, however that ends. */
static int life[2] = {-1, -1};

void eg_child_failed(const char *file, int line, const char *what) {
    dprintf(2, "%s:%d: in a child: %s: %s\n", file, line, what, eagre_error_detail());
    _exit(1);
}

void eg_client_open(const char *socket_path) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    OK(eagre_open(socket_path, &e));
    OK(eagre_topic_create(e, "t", settings, 2));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
}

void eg_client_close(void) {
    eagre_consumer_close(c);
    eagre_producer_close(p);
    eagre_close(e);
    c = NULL;
    p = NULL;
    e = NULL;
}

void eg_client_setup(void) {
    if (life[0] < 0)
        assert_int_equal(pipe2(life, O_CLOEXEC), 0);
}

int eg_setup_client(void **state) {
    eg_client_setup();
    eg_setup_bus(state);
    bus = *state;
    eg_client_open(bus->socket);
    return 0;
}

int eg_teardown_client(void **state) {
    eg_client_close();
    return eg_teardown_bus(state);
}

long long eg_figure(const char *name) {
    eagre_status_entry_t *list;
    size_t n;
    long long value = -1;
    OK(eagre_daemon_status(e, &list, &n));
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            value = atoll(list[i].value);
    free(list);
    return value;
}

struct wanted {
    const char *name;
    long long value;
};

static bool has_figure(void *ctx) {
    const struct wanted *w = ctx;
    return eg_figure(w->name) == w->value;
}

void eg_wait_figure(const char *name, long long value) {
    struct wanted w = {.name = name, .value = value};
    char what[80];
    snprintf(what, sizeof(what), "%s is %lld", name, value);
    eg_wait_until(has_figure, &w, what);
}

int eg_put(eagre_producer_t *by, const char *text) {
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = 0};
    return eagre_produce(by, &m, NULL, NULL);
}

void eg_expect(const char *text) {
    eagre_record_t r;
    size_t n = 0;
    OK(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n));
    if (n != 1)
        fail_msg("'%s' did not come", text);
    if (r.value_len != strlen(text) || memcmp(r.value, text, r.value_len) != 0)
        fail_msg("'%.*s' came, not '%s'", (int)r.value_len, (const char *)r.value, text);
}

void eg_claim(eagre_producer_t *by, eagre_claim_t *out) {
    OK(eagre_producer_claim(by, 0, SIZE_MAX, 5, out));
    memcpy(out->value, "claim", 5);
}

pid_t eg_start(void (*f)(int ready, int extra), int extra) {
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ready[0]);
        close(life[1]);
        f(ready[1], extra);
        eg_stay();
    }
    close(ready[1]);
    ssize_t n = read(ready[0], &byte, 1);
    close(ready[0]);
    if (n != 1)
        fail_msg("a child ended early");
    return pid;
}

void eg_close_except(int ready) {
    for (int fd = 3; fd < 1000; fd++)
        if (fd != ready && fd != life[0])
            close(fd);
}

void eg_stay(void) {
    char byte;
    while (read(life[0], &byte, 1) < 0 && errno == EINTR) {}
    _exit(0);
}

void eg_say(int ready) { CHECK(write(ready, "x", 1) == 1); }

eagre_producer_t *eg_attach(const char *socket_path, const char *text, eagre_t **own) {
    eagre_producer_t *by;
    CHECK(eagre_open(socket_path, own) == EAGRE_OK);
    CHECK(eagre_producer_open(*own, "t", NULL, &by) == EAGRE_OK);
    CHECK(eg_put(by, text) == EAGRE_OK);
    return by;
}
