/* What one Unix user can take of what an instance has for all. Ordinary users are needed, so root runs this. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/session.h"
#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "harness_user.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)
#define SETTINGS(...)                                                                              \
    (const eagre_setting_t[]){__VA_ARGS__},                                                        \
        sizeof((const eagre_setting_t[]){__VA_ARGS__}) / sizeof(eagre_setting_t)
#define SMALL                                                                                      \
    { "storage", "memory" }, { "segment.bytes", "64K" }, { "ring.segments", "4" }

static struct eg_test_bus *b;
static eagre_t *e; /* root's */

static int setup(void **state) {
    eg_setup_bus_stopped(state);
    b = *state;
    eg_bus_open_to_all(b);
    return 0;
}

static int teardown(void **state) {
    eagre_close(e);
    e = NULL;
    return eg_teardown_bus(state);
}

static char *status_of(const char *name) {
    static char value[256];
    eagre_status_entry_t *list;
    size_t n;
    OK(eagre_daemon_status(e, &list, &n));
    value[0] = '\0';
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            snprintf(value, sizeof(value), "%s", list[i].value);
    free(list);
    return value;
}

/* ---- as an ordinary user: these run in a child, and return 0 or the line that failed ---------------------- */

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s: %s\n", #x, eagre_error_detail());                                 \
            return __LINE__ % 250 + 1;                                                             \
        }                                                                                          \
    } while (0)
#define DENIED(call, says)                                                                         \
    MUST((call) == EAGRE_E_LIMIT && strstr(eagre_error_detail(), (says)) != NULL)

static int create(eagre_t *own, const char *name) {
    return eagre_topic_create(own, name, SETTINGS(SMALL));
}

static int topics_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(create(own, "a") == EAGRE_OK);
    MUST(create(own, "b") == EAGRE_OK);
    DENIED(create(own, "c"), "topics.max.per.uid=2 is reached by user 65534, who has 2 topics");
    MUST(eagre_topic_delete(own, "a") == EAGRE_OK);
    MUST(create(own, "c") == EAGRE_OK);
    DENIED(create(own, "d"), "topics.max.per.uid=2");
    return 0;
}

static int still_two_topics(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    DENIED(create(own, "d"), "topics.max.per.uid=2 is reached by user 65534, who has 2 topics");
    MUST(eagre_topic_delete(own, "b") == EAGRE_OK);
    MUST(eagre_topic_delete(own, "c") == EAGRE_OK);
    MUST(create(own, "b") == EAGRE_OK);
    MUST(create(own, "c") == EAGRE_OK);
    DENIED(create(own, "d"), "topics.max.per.uid=2");
    return 0;
}

static void topics(void **state) {
    (void)state;
    eg_bus_start(b, "--socket.mode=0666", "--topics.max.per.uid=2", NULL);
    OK(eagre_open(b->socket, &e));
    eg_as_user(EG_USER_A, topics_of_a_user, b);
    for (int i = 0; i < 3; i++) { /* root is not bound, and has no part in what others have */
        char name[8];
        snprintf(name, sizeof(name), "root%d", i);
        OK(create(e, name));
    }
    assert_non_null(strstr(status_of("quota.user.65534"), "topics 2 of 2"));
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--topics.max.per.uid=2", NULL);
    eg_as_user(EG_USER_A, still_two_topics, b);
    assert_int_equal(eg_bus_stop(b), 0);
    eg_bus_start(b, "--socket.mode=0666", "--topics.max.per.uid=2", NULL);
    eg_as_user(EG_USER_A, still_two_topics, b);
}

/* A topic of 4 x 64K has 256 KiB and some 30 KiB of control memory: three of them fit 900 KiB. */
static int memory_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(create(own, "a") == EAGRE_OK);
    DENIED(eagre_topic_alter(own, "a", SETTINGS({"partitions", "4"})),
           "topic 'a': memory.max.per.uid=900KiB is reached by user 65534");
    MUST(eagre_topic_alter(own, "a", SETTINGS({"partitions", "2"})) == EAGRE_OK);
    MUST(create(own, "b") == EAGRE_OK);
    DENIED(create(own, "c"), "topic 'c': memory.max.per.uid=900KiB");
    MUST(eagre_topic_delete(own, "a") == EAGRE_OK);
    MUST(create(own, "c") == EAGRE_OK);
    MUST(create(own, "d") == EAGRE_OK);
    DENIED(create(own, "x"), "memory.max.per.uid=900KiB");
    return 0;
}

static int still_full(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    DENIED(create(own, "x"), "memory.max.per.uid=900KiB");
    MUST(eagre_topic_delete(own, "d") == EAGRE_OK);
    MUST(create(own, "d") == EAGRE_OK);
    DENIED(create(own, "x"), "memory.max.per.uid=900KiB");
    return 0;
}

static void memory(void **state) {
    (void)state;
    eg_bus_start(b, "--socket.mode=0666", "--memory.max.per.uid=900K", NULL);
    OK(eagre_open(b->socket, &e));
    eg_as_user(EG_USER_A, memory_of_a_user, b);
    eg_as_user(EG_USER_A, still_full, b);
    OK(eagre_topic_create(e, "large", SETTINGS({"segment.bytes", "1M"})));
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--memory.max.per.uid=900K", NULL);
    eg_as_user(EG_USER_A, still_full, b);
    assert_non_null(strstr(status_of("quota.user.65534"), "memory "));
}

static int buffers_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(create(own, "a") == EAGRE_OK);
    DENIED(create(own, "b"), "topic 'b': buffers.max.per.uid=7 is reached by user 65534, who has 4 buffers");
    DENIED(eagre_topic_alter(own, "a", SETTINGS({"partitions", "2"})), "buffers.max.per.uid=7");
    MUST(eagre_topic_delete(own, "a") == EAGRE_OK);
    MUST(create(own, "b") == EAGRE_OK);
    MUST(eagre_topic_delete(own, "b") == EAGRE_OK);
    return 0;
}

static void buffers(void **state) {
    (void)state;
    eg_bus_start(b, "--socket.mode=0666", "--buffers.max.per.uid=7", NULL);
    eg_as_user(EG_USER_A, buffers_of_a_user, b);
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--buffers.max.per.uid=7", NULL);
    eg_as_user(EG_USER_A, buffers_of_a_user, b);
}

/* What a reader pins counts for who created the topic: the ring's slots are not replaced beyond its quota. */
static int pins_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    static char value[4000];
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
    eagre_record_t r;
    eagre_t *own;
    eagre_producer_t *p;
    eagre_consumer_t *c;
    size_t n;
    int rc;
    options.max_block_ms = 0;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(eagre_topic_create(own, "p", SETTINGS(SMALL, {"pinned.bytes.max", "64M"})) == EAGRE_OK);
    MUST(eagre_producer_open(own, "p", &options, &p) == EAGRE_OK);
    MUST(eagre_consumer_open(own, NULL, &c) == EAGRE_OK);
    MUST(eagre_consumer_assign(c, "p", 0) == EAGRE_OK);
    MUST(eagre_produce(p, &m, NULL, NULL) == EAGRE_OK);
    MUST(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n) == EAGRE_OK && n == 1);
    for (int i = 0; i < 80; i++) { /* more than the ring holds; waits for slots that a buffer more gives */
        rc = eagre_produce(p, &m, NULL, NULL);
        if (rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_TIMED_OUT) {
            options.max_block_ms = 300;
            eagre_producer_close(p);
            MUST(eagre_producer_open(own, "p", &options, &p) == EAGRE_OK);
            rc = eagre_produce(p, &m, NULL, NULL);
        }
        if (rc != EAGRE_OK)
            break;
    }
    return rc == EAGRE_OK ? 200 : 201;
}

static void pins(void **state) {
    (void)state;
    /* Room for the ring and nothing more: blocked; then for a buffer more. */
    eg_bus_start(b, "--socket.mode=0666", "--buffers.max.per.uid=4", NULL);
    OK(eagre_open(b->socket, &e));
    assert_int_equal(eg_as_user_status(EG_USER_A, pins_of_a_user, b), 201);
    OK(eagre_topic_delete(e, "p"));
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--buffers.max.per.uid=5", NULL);
    assert_int_equal(eg_as_user_status(EG_USER_A, pins_of_a_user, b), 200);
    OK(eagre_topic_delete(e, "p"));
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--memory.max.per.uid=320K", NULL);
    assert_int_equal(eg_as_user_status(EG_USER_A, pins_of_a_user, b), 201);
}

/* A consumer goes on without a bell, with short naps: so the bells themselves are asked for. */
static int bells_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    uint32_t bell[3];
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(eg_client_attach(own) == EAGRE_OK);
    MUST(eg_bell_get(own, &bell[0]) == EAGRE_OK);
    MUST(eg_bell_get(own, &bell[1]) == EAGRE_OK);
    DENIED(eg_bell_get(own, &bell[2]), "bells.max.per.uid=2 is reached by user 65534");
    eg_bell_put(own, bell[0]);
    MUST(eg_bell_get(own, &bell[0]) == EAGRE_OK);
    DENIED(eg_bell_get(own, &bell[2]), "bells.max.per.uid=2");
    return 0; /* and ends without giving them back */
}

static bool nobody_has_bells(void *ctx) {
    (void)ctx;
    return status_of("quota.user.65534")[0] == '\0';
}

static int bells_over_a_restart(void *ctx) {
    struct eg_test_bus *at = ctx;
    eagre_t *own;
    uint32_t bell[3];
    char byte;
    MUST(eagre_open(at->socket, &own) == EAGRE_OK);
    MUST(eg_client_attach(own) == EAGRE_OK);
    MUST(eg_bell_get(own, &bell[0]) == EAGRE_OK);
    MUST(eg_bell_get(own, &bell[1]) == EAGRE_OK);
    MUST(write(4, "x", 1) == 1 && read(3, &byte, 1) == 1); /* the daemon is another one now */
    DENIED(eg_bell_get(own, &bell[2]), "bells.max.per.uid=2 is reached by user 65534");
    eg_bell_put(own, bell[1]);
    MUST(eg_bell_get(own, &bell[1]) == EAGRE_OK);
    return 0;
}

static void bells(void **state) {
    int to[2], from[2];
    char byte;
    (void)state;
    eg_bus_start(b, "--socket.mode=0666", "--bells.max.per.uid=2", NULL);
    OK(eagre_open(b->socket, &e));
    eg_as_user(EG_USER_A, bells_of_a_user, b);
    eg_wait_until(nobody_has_bells, NULL, "a dead client's bells are given back");
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    pid_t pid = eg_start_as_user(EG_USER_A, bells_over_a_restart, b, to[0], from[1]);
    assert_int_equal(read(from[0], &byte, 1), 1);
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--bells.max.per.uid=2", NULL);
    assert_int_equal(write(to[1], "x", 1), 1);
    assert_int_equal(eg_wait_exit(pid), 0);
    close(to[0]), close(to[1]), close(from[0]), close(from[1]);
}

static int connections_of_a_user(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own[4];
    eagre_producer_t *p[3];
    for (int i = 0; i < 3; i++)
        MUST(eagre_open(at->socket, &own[i]) == EAGRE_OK);
    DENIED(eagre_open(at->socket, &own[3]), "connections.max.per.uid=3 is reached by user 6553");
    MUST(eagre_producer_open(own[0], "t", NULL, &p[0]) == EAGRE_OK);
    MUST(eagre_producer_open(own[1], "t", NULL, &p[1]) == EAGRE_OK);
    DENIED(eagre_producer_open(own[2], "t", NULL, &p[2]), "clients.max.per.uid=2 is reached by user 6553");
    return 0;
}

static void connections_and_clients(void **state) {
    (void)state;
    eg_bus_start(b, "--socket.mode=0666", "--connections.max.per.uid=3", "--clients.max.per.uid=2", NULL);
    OK(eagre_open(b->socket, &e));
    OK(create(e, "t"));
    eg_as_user(EG_USER_A, connections_of_a_user, b);
    eg_wait_until(nobody_has_bells, NULL, "what a dead process had is given back");
    eg_as_user(EG_USER_A, connections_of_a_user, b);
    eg_as_user(EG_USER_B, connections_of_a_user, b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(topics), TEST(memory), TEST(buffers),
        TEST(pins),   TEST(bells),  TEST(connections_and_clients),
    };
    if (geteuid() != 0) {
        puts("skipped: only root can act as other users");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
