/* Floods, peers that stop, and a daemon without descriptors: a user at work goes on, and nothing is left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "harness_raw.h"
#include "layout/layout.h"
#include "sys/fdpass.h"
#include "sys/rand.h"

static struct eg_raw good; /* looks at the daemon's figures */

/* A user at work all the while. */
static eagre_t *user;
static eagre_producer_t *producer;
static eagre_consumer_t *consumer;
static int64_t produced;

static void user_begins(const struct eg_test_bus *b) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    assert_int_equal(eagre_open(b->socket, &user), EAGRE_OK);
    assert_int_equal(eagre_topic_create(user, "work", settings, 2), EAGRE_OK);
    assert_int_equal(eagre_producer_open(user, "work", NULL, &producer), EAGRE_OK);
    assert_int_equal(eagre_consumer_open(user, NULL, &consumer), EAGRE_OK);
    assert_int_equal(eagre_consumer_assign(consumer, "work", 0), EAGRE_OK);
    produced = 0;
}

/* More than the ring holds goes through it: the daemon has to do its part. */
static void user_works(void) {
    static char value[6000];
    eagre_record_t r;
    size_t n;
    for (int i = 0; i < 100; i++) {
        eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
        if (eagre_produce(producer, &m, NULL, NULL) != EAGRE_OK)
            fail_msg("%s", eagre_error_detail());
        assert_int_equal(eagre_consumer_poll(consumer, &r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_OK);
        assert_int_equal(n, 1);
        assert_int_equal(r.offset, produced++);
    }
}

static void user_ends(void) {
    eagre_consumer_close(consumer);
    eagre_producer_close(producer);
    eagre_close(user);
}

static int setup(void **state) {
    eg_setup_bus(state);
    eg_raw_connect(&good, ((struct eg_test_bus *)*state)->socket);
    eg_raw_hello(&good, NULL);
    user_begins(*state);
    user_works();
    return 0;
}

static int teardown(void **state) {
    user_ends();
    eg_raw_close(&good);
    return eg_teardown_bus(state);
}

/* A new connection is served, and the old one. */
static void others_are_served(const struct eg_test_bus *b) {
    static struct eg_raw r;
    char pid[16];
    eg_raw_figure(&good, "pid", pid, sizeof(pid));
    assert_int_equal(atoi(pid), b->pid);
    eg_raw_connect(&r, b->socket);
    eg_raw_hello(&r, NULL);
    eg_raw_close(&r);
}

/* The raw connection and the user's. */
static bool only_users_are_left(void *ctx) {
    char value[16];
    (void)ctx;
    eg_raw_figure(&good, "sessions", value, sizeof(value));
    return strcmp(value, "2") == 0;
}

/* What the daemon has in use; afterwards it has no more than before. */
struct baseline {
    char sessions[16], clients[16];
    size_t fds;
    struct eg_test_bus *b;
};

static struct baseline measure(struct eg_test_bus *b) {
    struct baseline at = {.b = b};
    eg_raw_figure(&good, "sessions", at.sessions, sizeof(at.sessions));
    eg_raw_figure(&good, "clients", at.clients, sizeof(at.clients));
    at.fds = eg_count_fds(b->pid);
    return at;
}

static bool is_back(void *ctx) {
    const struct baseline *before = ctx;
    struct baseline now = measure(before->b);
    return strcmp(before->sessions, now.sessions) == 0 && strcmp(before->clients, now.clients) == 0 &&
           before->fds == now.fds;
}

static int no_answers[2]; /* flooders' own connections are not the test's */

static struct sockaddr_un address_of(const struct eg_test_bus *b) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path, b->socket);
    return to;
}

static int connect_again(const struct sockaddr_un *to) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Comes and goes. */
static void flood_connections(const struct eg_test_bus *b) {
    struct sockaddr_un to = address_of(b);
    for (;;)
        close(connect_again(&to));
}

/* Greets, asks for something that takes work, and goes without the answer. */
static void flood_requests(const struct eg_test_bus *b) {
    static uint8_t hello[128], list[64];
    struct sockaddr_un to = address_of(b);
    struct eg_enc e;
    size_t n = eg_make_hello(hello, sizeof(hello));
    eg_enc_begin(&e, list, sizeof(list), EG_MSG_TOPIC_LIST, 1, 0);
    eg_enc_str(&e, "");
    for (;;) {
        int fd = connect_again(&to);
        if (fd < 0)
            continue;
        send(fd, hello, n, MSG_NOSIGNAL);
        for (int i = 0; i < 20; i++)
            send(fd, list, e.used, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
    }
}

/* Descriptors nobody asked for, with every message. */
static void flood_descriptors(const struct eg_test_bus *b) {
    static uint8_t hello[128];
    struct sockaddr_un to = address_of(b);
    int fds[64];
    size_t n = eg_make_hello(hello, sizeof(hello));
    for (size_t i = 0; i < 64; i++)
        fds[i] = no_answers[0];
    for (;;) {
        int fd = connect_again(&to);
        for (int i = 0; fd >= 0 && i < 4; i++)
            if (eg_sendmsg_fds(fd, hello, n, fds, 64, MSG_DONTWAIT) < 0)
                break;
        close(fd);
    }
}

/* Noise in messages of all sizes. */
static void flood_noise(const struct eg_test_bus *b) {
    static uint8_t noise[EG_MSG_MAX];
    struct sockaddr_un to = address_of(b);
    uint64_t seed = (uint64_t)getpid();
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)eg_rand_next(&seed);
    for (;;) {
        int fd = connect_again(&to);
        if (fd < 0)
            continue;
        size_t n = eg_make_hello(noise, sizeof(noise));
        send(fd, noise, n, MSG_NOSIGNAL);
        for (int i = 0; i < 8; i++) {
            struct eg_enc e;
            eg_enc_begin(&e, noise, sizeof(noise), (uint16_t)(eg_rand_next(&seed) % 24), 1, 0);
            size_t longest = i % 2 == 0 ? 200 : sizeof(noise);
            if (e.data[6] != EG_MSG_SHUTDOWN)
                send(fd, noise, e.used + eg_rand_next(&seed) % (longest - e.used), MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        close(fd);
    }
}

static void floods(void **state) {
    static void (*const kinds[])(const struct eg_test_bus *b) = {flood_connections, flood_requests,
                                                                 flood_descriptors, flood_noise};
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
    struct eg_test_bus *b = *state;
    pid_t pid[KINDS];
    eg_wait_until(only_users_are_left, NULL, "closed connections are forgotten");
    struct baseline before = measure(b);
    assert_int_equal(pipe(no_answers), 0);
    for (size_t i = 0; i < KINDS; i++) {
        fflush(NULL);
        pid[i] = fork();
        if (pid[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (int fd = 3; fd < 64; fd++)
                if (fd != no_answers[0])
                    close(fd);
            kinds[i](b);
        }
    }
    for (int i = 0; i < 20; i++) {
        user_works();
        others_are_served(b);
    }
    for (size_t i = 0; i < KINDS; i++) {
        kill(pid[i], SIGKILL);
        assert_int_equal(eg_wait_exit(pid[i]), 128 + SIGKILL);
    }
    close(no_answers[0]);
    close(no_answers[1]);
    eg_wait_until(is_back, &before, "sessions, clients and descriptors are what they were");
    user_works();
}

/* Attached, some in the middle of a request, and then they stop. Their connections and numbers stay; others go on. */
static void peers_that_stop(void **state) {
    enum { PEERS = 20 };
    struct eg_test_bus *b = *state;
    pid_t pid[PEERS];
    int said[2];
    char byte;
    struct baseline before = measure(b);
    assert_int_equal(pipe(said), 0);
    for (size_t i = 0; i < PEERS; i++) {
        pid[i] = fork();
        if (pid[i] != 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int fd = 3; fd < 64; fd++)
            if (fd != said[1])
                close(fd);
        eagre_t *e;
        eagre_producer_t *p;
        eagre_consumer_t *c;
        static uint8_t buf[64];
        if (eagre_open(b->socket, &e) != EAGRE_OK || eagre_producer_open(e, "work", NULL, &p) != EAGRE_OK ||
            eagre_consumer_open(e, NULL, &c) != EAGRE_OK || eagre_consumer_assign(c, "work", 0) != EAGRE_OK)
            _exit(1);
        struct eg_enc status;
        struct sockaddr_un to = address_of(b);
        int fd = connect_again(&to);
        eg_enc_begin(&status, buf, sizeof(buf), EG_MSG_STATUS, 1, 0);
        eg_enc_u32(&status, 0);
        for (int k = 0; i % 2 == 0 && k < 100; k++)
            send(fd, status.data, status.used, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (write(said[1], "x", 1) != 1)
            _exit(2);
        raise(SIGSTOP);
        _exit(0);
    }
    for (size_t i = 0; i < PEERS; i++)
        assert_int_equal(read(said[0], &byte, 1), 1);
    for (int i = 0; i < 5; i++) {
        user_works();
        others_are_served(b);
    }
    for (size_t i = 0; i < PEERS; i++) {
        kill(pid[i], i % 3 == 0 ? SIGKILL : SIGCONT);
        eg_wait_exit(pid[i]);
    }
    close(said[0]);
    close(said[1]);
    eg_wait_until(is_back, &before, "sessions, clients and descriptors are what they were");
    user_works();
}

/* Who is at work is not bound by descriptors that the daemon does not have; who wants some is told. */
static void no_descriptor_for_a_topic(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"ring.segments", "8"}, {"partitions", "4"}};
    struct eg_test_bus *b = *state;
    struct rlimit was;
    eagre_producer_t *p;
    eg_wait_until(only_users_are_left, NULL, "closed connections are forgotten");
    assert_int_equal(prlimit(b->pid, RLIMIT_NOFILE, NULL, &was), 0);
    struct rlimit few = {eg_count_fds(b->pid) + 8, was.rlim_max};
    assert_int_equal(prlimit(b->pid, RLIMIT_NOFILE, &few, NULL), 0);
    struct baseline before = measure(b);
    int rc = eagre_topic_create(user, "more", settings, 4);
    if (rc == EAGRE_OK) {
        rc = eagre_producer_open(user, "more", NULL, &p);
        eagre_message_t m = {.value = "x", .value_len = 1};
        for (m.partition = 0; rc == EAGRE_OK && m.partition < 4; m.partition++)
            rc = eagre_produce(p, &m, NULL, NULL);
        eagre_producer_close(p);
    }
    assert_int_equal(rc, EAGRE_E_LIMIT);
    user_works();
    eagre_topic_delete(user, "more");
    eg_wait_until(is_back, &before, "descriptors are what they were");
    assert_int_equal(prlimit(b->pid, RLIMIT_NOFILE, &was, NULL), 0);
    assert_int_equal(eagre_topic_create(user, "more", settings, 4), EAGRE_OK);
    assert_int_equal(eagre_producer_open(user, "more", NULL, &p), EAGRE_OK);
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = 3};
    assert_int_equal(eagre_produce(p, &m, NULL, NULL), EAGRE_OK);
    eagre_producer_close(p);
    user_works();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(floods),
        TEST(peers_that_stop),
        TEST(no_descriptor_for_a_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
