/* Any local user may connect: whatever comes over the socket, others are served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "eagre/eagre.h"
#include "harness.h"
#include "harness_raw.h"
#include "layout/layout.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "sys/rand.h"

static struct eg_raw good, bad;

/* A bus, and `good`, a well-behaved connection that lives through the whole test. */
static int setup(void **state) {
    eg_setup_bus(state);
    eg_raw_connect(&good, ((struct eg_test_bus *)*state)->socket);
    eg_raw_hello(&good, NULL);
    return 0;
}

static int teardown(void **state) {
    eg_raw_close(&good);
    return eg_teardown_bus(state);
}

/* The old connection and a new one are served. */
static void others_are_served(struct eg_test_bus *b) {
    char pid[16];
    struct eg_raw *r = calloc(1, sizeof(*r));
    eg_raw_figure(&good, "pid", pid, sizeof(pid));
    assert_int_equal(atoi(pid), b->pid);
    eg_raw_connect(r, b->socket);
    eg_raw_hello(r, NULL);
    eg_raw_close(r);
    free(r);
}

/* What the daemon answers to one message on a connection of its own; then whether it hangs up. */
static void expect(struct eg_test_bus *b, const void *data, size_t n, int status, bool closed) {
    eg_raw_connect(&bad, b->socket);
    assert_int_equal(eg_raw_send(&bad, data, n), 0);
    assert_int_equal(eg_raw_receive(&bad), status);
    if (closed)
        assert_int_equal(eg_raw_receive(&bad), 1);
    eg_raw_close(&bad);
}

static void every_truncation(void **state) {
    struct eg_test_bus *b = *state;
    uint8_t buf[128];
    size_t n = eg_make_hello(buf, sizeof(buf));
    for (size_t i = 1; i < n; i++)
        expect(b, buf, i, EAGRE_E_PROTOCOL, true);
    buf[n] = 0;
    expect(b, buf, n + 1, EAGRE_E_PROTOCOL, true);
    buf[0] = 'X';
    expect(b, buf, n, EAGRE_E_PROTOCOL, true);
    others_are_served(b);
}

static void an_empty_message_is_an_end(void **state) {
    struct eg_test_bus *b = *state;
    eg_raw_connect(&bad, b->socket);
    assert_int_equal(eg_raw_send(&bad, "", 0), 0);
    assert_int_equal(eg_raw_receive(&bad), 1);
    eg_raw_close(&bad);
    others_are_served(b);
}

static void oversized_messages(void **state) {
    struct eg_test_bus *b = *state;
    static uint8_t big[100000];
    eg_make_hello(big, sizeof(big));
    expect(b, big, sizeof(big), EAGRE_E_PROTOCOL, true);
    expect(b, big, EG_MSG_MAX + 1, EAGRE_E_PROTOCOL, true);
    expect(b, big, EG_MSG_MAX, EAGRE_E_PROTOCOL, true);
    others_are_served(b);
}

static void versions_that_differ(void **state) {
    struct eg_test_bus *b = *state;
    uint8_t buf[128];
    size_t n = eg_make_hello(buf, sizeof(buf));
    buf[20] ^= 1; /* the fingerprint */
    expect(b, buf, n, EAGRE_E_VERSION, false);
    assert_non_null(strstr(bad.detail, "same version"));
    eg_make_hello(buf, sizeof(buf));
    buf[4] = 2; /* the protocol's version */
    expect(b, buf, n, EAGRE_E_VERSION, true);
    others_are_served(b);
}

static void requests_before_hello_and_unknown_ones(void **state) {
    struct eg_test_bus *b = *state;
    uint8_t buf[64];
    struct eg_enc e;
    for (uint16_t type = 0; type < 64; type++) {
        if (type == EG_MSG_HELLO)
            continue;
        eg_enc_begin(&e, buf, sizeof(buf), type, 1, 0);
        eg_enc_u32(&e, 0);
        expect(b, buf, e.used, EAGRE_E_PROTOCOL, true);
    }
    eg_raw_begin(&good, 999);
    assert_int_equal(eg_raw_ask(&good), EAGRE_E_UNSUPPORTED); /* and the connection lives */
    others_are_served(b);
}

/* Every request with every truncation of a body of zeros or of noise, after a proper HELLO. */
static void malformed_requests(void **state) {
    struct eg_test_bus *b = *state;
    uint64_t seed = 1;
    bool open = false;
    for (uint16_t type = 2; type < 24; type++) {
        if (type == EG_MSG_SHUTDOWN)
            continue;
        for (size_t n = 0; n < 40; n++) {
            if (!open) {
                eg_raw_connect(&bad, b->socket);
                eg_raw_hello(&bad, NULL);
            }
            eg_raw_begin(&bad, type);
            for (size_t i = 0; i < n; i++)
                eg_enc_u8(&bad.enc, n % 2 == 0 ? 0 : (uint8_t)(eg_rand_next(&seed) % 4));
            int status = eg_raw_ask(&bad);
            for (size_t i = 0; status == 0 && i < bad.nfds; i++)
                close(bad.fds[i]);
            open = status != EAGRE_E_PROTOCOL;
            if (!open) {
                assert_int_equal(eg_raw_receive(&bad), 1);
                eg_raw_close(&bad);
            }
        }
    }
    if (open)
        eg_raw_close(&bad);
    others_are_served(b);
}

static void random_bytes(void **state) {
    struct eg_test_bus *b = *state;
    uint64_t seed = 4711;
    uint8_t buf[256];
    for (int i = 0; i < 1000; i++) {
        size_t n = 1 + eg_rand_next(&seed) % sizeof(buf);
        for (size_t k = 0; k < n; k++)
            buf[k] = (uint8_t)eg_rand_next(&seed);
        if (i % 2 == 0)
            memcpy(buf, "EGR1\x01\x00", n < 6 ? n : 6);
        expect(b, buf, n, EAGRE_E_PROTOCOL, true);
    }
    others_are_served(b);
}

static void a_thousand_silent_connections(void **state) {
    struct eg_test_bus *b = *state;
    int fds[1000];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (size_t i = 0; i < 1000; i++) {
        eg_raw_connect(&bad, b->socket);
        fds[i] = bad.fd;
    }
    others_are_served(b);
    for (size_t i = 0; i < 1000; i++)
        close(fds[i]);
    others_are_served(b);
}

static bool only_good_is_left(void *ctx) {
    char value[16];
    (void)ctx;
    eg_raw_figure(&good, "sessions", value, sizeof(value));
    return strcmp(value, "1") == 0;
}

static void quotas(void **state) {
    struct eg_test_bus *b = *state;
    struct eg_raw *r = calloc(6, sizeof(*r));
    assert_int_equal(eg_bus_stop(b), 0);
    eg_raw_close(&good);
    eg_bus_start(b, "--connections.max.per.uid=5", NULL);
    eg_raw_connect(&good, b->socket);
    eg_raw_hello(&good, NULL);
    for (size_t i = 0; i < 4; i++) {
        eg_raw_connect(&r[i], b->socket);
        eg_raw_hello(&r[i], NULL);
    }
    eg_raw_connect(&r[4], b->socket);
    assert_int_equal(eg_raw_receive(&r[4]), EAGRE_E_LIMIT);
    assert_int_equal(r[4].h.id, 0);
    assert_non_null(strstr(r[4].detail, "connections.max.per.uid=5"));
    assert_int_equal(eg_raw_receive(&r[4]), 1);
    eagre_t *e;
    assert_int_equal(eagre_open(b->socket, &e), EAGRE_E_LIMIT);
    assert_non_null(strstr(eagre_error_detail(), "connections.max.per.uid=5"));
    for (size_t i = 0; i < 5; i++)
        eg_raw_close(&r[i]);
    eg_wait_until(only_good_is_left, NULL, "closed connections are forgotten");
    others_are_served(b);
    free(r);
}

/* Asks and asks and reads nothing: neither blocks the daemon nor makes it collect replies. */
static void a_peer_that_does_not_read(void **state) {
    struct eg_test_bus *b = *state;
    eg_raw_connect(&bad, b->socket);
    eg_raw_hello(&bad, NULL);
    fcntl(bad.fd, F_SETFL, O_NONBLOCK);
    int sent = 0;
    for (;;) {
        eg_raw_begin(&bad, EG_MSG_STATUS);
        eg_enc_u32(&bad.enc, 0);
        if (eg_raw_send(&bad, bad.enc.data, bad.enc.used) != 0) {
            others_are_served(b); /* a round: the daemon has had its chance to read */
            if (eg_raw_send(&bad, bad.enc.data, bad.enc.used) != 0)
                break;
        }
        sent++;
        assert_true(sent < 1000000);
    }
    assert_int_equal(errno, EAGAIN);
    others_are_served(b);
    /* And as soon as it reads, it gets all of its answers. */
    for (int i = 0; i < sent; i++)
        assert_int_equal(eg_raw_receive(&bad), 0);
    eg_raw_close(&bad);
}

/* Descriptors in flight are a limited good of the whole user. */
static void a_peer_that_collects_descriptors(void **state) {
    struct eg_test_bus *b = *state;
    uint8_t buf[128];
    size_t n = eg_make_hello(buf, sizeof(buf));
    eg_raw_connect(&bad, b->socket);
    int sent = 0;
    while (sent < 100000 && eg_raw_send(&bad, buf, n) == 0)
        sent++;
    assert_true(sent < 100000); /* it was hung up on */
    others_are_served(b);
    eg_raw_close(&bad);
}

static void descriptors_that_nobody_asked_for(void **state) {
    struct eg_test_bus *b = *state;
    uint8_t buf[128];
    int fds[64];
    for (size_t i = 0; i < 64; i++)
        fds[i] = 0;
    size_t n = eg_make_hello(buf, sizeof(buf));
    others_are_served(b);
    eg_wait_until(only_good_is_left, NULL, "closed connections are forgotten");
    size_t before = eg_count_fds(b->pid);
    eg_raw_connect(&bad, b->socket);
    assert_true(eg_sendmsg_fds(bad.fd, buf, n, fds, 64, 0) == (ssize_t)n);
    assert_int_equal(eg_raw_receive(&bad), 0);
    close(bad.fds[0]);
    assert_int_equal(eg_count_fds(b->pid), before + 1); /* its connection */
    eg_raw_close(&bad);
}

static void out_of_descriptors(void **state) {
    struct eg_test_bus *b = *state;
    int fds[64];
    struct pollfd p[64];
    size_t n = 0;
    struct rlimit few = {64, 64};
    assert_int_equal(prlimit(b->pid, RLIMIT_NOFILE, &few, NULL), 0);
    /* More than it can have: the surplus is hung up on. */
    for (; n < 64; n++) {
        eg_raw_connect(&bad, b->socket);
        fds[n] = bad.fd;
        p[n] = (struct pollfd){.fd = bad.fd, .events = POLLIN};
    }
    /* Which ones depends on what the daemon opens and closes itself meanwhile. */
    assert_true(poll(p, n, EG_TEST_LIMIT_MS) >= 1);
    char value[32];
    eg_raw_figure(&good, "cpu.ms", value, sizeof(value)); /* who is in is served */
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    eg_wait_until(only_good_is_left, NULL, "closed connections are forgotten");
    others_are_served(b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_truncation),
        TEST(an_empty_message_is_an_end),
        TEST(oversized_messages),
        TEST(versions_that_differ),
        TEST(requests_before_hello_and_unknown_ones),
        TEST(malformed_requests),
        TEST(random_bytes),
        TEST(a_thousand_silent_connections),
        TEST(quotas),
        TEST(a_peer_that_does_not_read),
        TEST(a_peer_that_collects_descriptors),
        TEST(descriptors_that_nobody_asked_for),
        TEST(out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
