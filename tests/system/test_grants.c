/* What a client was granted and what it knows of: answers that are lost, requests that are asked twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "harness.h"
#include "harness_raw.h"
#include "sys/liveness.h"

static struct eg_test_bus *b;
static eagre_t *e;
static struct eg_raw *mine, *another; /* both are clients */
static uint32_t owner;                /* mine's */
static uint64_t cookie;
static uint16_t handles; /* that it says are open on each topic */
static int page;         /* mine's, locked: it lives, connected or not */

static int attach(struct eg_raw *r, const uint32_t *held, uint16_t count) {
    bool again = r == mine && owner != 0;
    eg_raw_begin(r, EG_MSG_ATTACH);
    eg_enc_u32(&r->enc, again ? owner : 0);
    eg_enc_u64(&r->enc, again ? cookie : 0);
    if (again) {
        eg_enc_u16(&r->enc, count);
        for (uint16_t i = 0; i < count; i++) {
            eg_enc_u32(&r->enc, held[i]);
            eg_enc_u16(&r->enc, handles);
            eg_enc_u16(&r->enc, 0);
        }
        eg_enc_u16(&r->enc, 0); /* members */
    }
    int status = eg_raw_ask(r);
    if (status != 0)
        return status;
    if (r == mine) {
        owner = eg_dec_u32(&r->dec);
        cookie = eg_dec_u64(&r->dec);
    }
    if (r == mine && !again)
        page = fcntl(r->fds[0], F_DUPFD_CLOEXEC, 0);
    for (size_t i = 0; i < r->nfds; i++)
        close(r->fds[i]);
    if (r == mine) /* each close of a descriptor of it gives the lock up */
        assert_int_equal(eg_page_lock(page), 0);
    return 0;
}

static void begin_open(struct eg_raw *r, const char *topic) {
    eg_raw_begin(r, EG_MSG_OPEN);
    eg_enc_u8(&r->enc, EG_ROLE_PRODUCER);
    eg_enc_u32(&r->enc, UINT32_MAX);
    eg_enc_str(&r->enc, topic);
}

static int ask_open(struct eg_raw *r, const char *topic, uint32_t *uid) {
    begin_open(r, topic);
    int status = eg_raw_ask(r);
    for (size_t i = 0; status == 0 && i < r->nfds; i++)
        close(r->fds[i]);
    if (status == 0 && uid != NULL)
        *uid = eg_dec_u32(&r->dec);
    return status;
}

static int release(struct eg_raw *r, uint32_t uid) {
    eg_raw_begin(r, EG_MSG_RELEASE);
    eg_enc_u8(&r->enc, EG_ROLE_PRODUCER);
    eg_enc_u32(&r->enc, uid);
    return eg_raw_ask(r);
}

static void begin_buffers(struct eg_raw *r, uint32_t uid) {
    eg_raw_begin(r, EG_MSG_BUFFERS);
    eg_enc_u8(&r->enc, EG_ROLE_PRODUCER);
    eg_enc_u32(&r->enc, uid);
    eg_enc_u32(&r->enc, 0);
    eg_enc_u16(&r->enc, 0);
}

static int ask_buffers(struct eg_raw *r, uint32_t uid) {
    begin_buffers(r, uid);
    int status = eg_raw_ask(r);
    for (size_t i = 0; status == 0 && i < r->nfds; i++)
        close(r->fds[i]);
    return status;
}

static void connect_as(struct eg_raw *r) {
    eg_raw_connect(r, b->socket);
    eg_raw_hello(r, NULL);
}

static int setup(void **state) {
    const eagre_setting_t settings[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"writers", "single"}};
    eg_setup_bus(state);
    b = *state;
    assert_int_equal(eagre_open(b->socket, &e), 0);
    assert_int_equal(eagre_topic_create(e, "single", settings, 3), 0);
    assert_int_equal(eagre_topic_create(e, "multi", settings, 2), 0);
    mine = calloc(1, sizeof(*mine));
    another = calloc(1, sizeof(*another));
    owner = 0;
    handles = 1;
    connect_as(mine);
    connect_as(another);
    assert_int_equal(attach(mine, NULL, 0), 0);
    assert_int_equal(attach(another, NULL, 0), 0);
    return 0;
}

static int teardown(void **state) {
    eg_raw_close(mine);
    eg_raw_close(another);
    close(page);
    free(mine);
    free(another);
    eagre_close(e);
    return eg_teardown_bus(state);
}

static bool another_may(void *ctx) {
    (void)ctx;
    return ask_open(another, "single", NULL) == 0;
}

/* It was not just taken for dead. */
static void mine_lives(void) {
    connect_as(mine);
    assert_int_equal(attach(mine, NULL, 0), 0);
}

/* It closes before the daemon has even looked at its request. */
static void nobody_is_there_for_the_answer(void **state) {
    (void)state;
    kill(b->pid, SIGSTOP);
    begin_open(mine, "single");
    assert_int_equal(eg_raw_send(mine, mine->enc.data, mine->enc.used), 0);
    eg_raw_close(mine);
    kill(b->pid, SIGCONT);
    eg_wait_until(another_may, NULL, "what was granted to nobody is free");
    mine_lives();
}

/* The answer lies in its queue when it closes. */
static void the_answer_is_not_read(void **state) {
    char pid[16];
    (void)state;
    begin_open(mine, "single");
    assert_int_equal(eg_raw_send(mine, mine->enc.data, mine->enc.used), 0);
    eg_raw_figure(another, "pid", pid, sizeof(pid)); /* a round later */
    assert_int_equal(ask_open(another, "single", NULL), EAGRE_E_BUSY);
    eg_raw_close(mine);
    eg_wait_until(another_may, NULL, "what was granted to nobody is free");
    mine_lives();
}

/* Who has read it has it, connected or not; and says so. */
static void what_is_held_stays(void **state) {
    char value[16];
    uint32_t uid;
    (void)state;
    assert_int_equal(ask_open(mine, "single", &uid), 0);
    eg_raw_close(mine);
    connect_as(mine);
    assert_int_equal(ask_open(another, "single", NULL), EAGRE_E_BUSY);
    assert_int_equal(attach(mine, &uid, 1), 0);
    assert_int_equal(ask_buffers(mine, uid), 0);
    assert_int_equal(ask_open(another, "single", NULL), EAGRE_E_BUSY);
    eg_raw_close(mine);
    connect_as(mine);
    assert_int_equal(attach(mine, NULL, 0), 0); /* closed in the meantime */
    assert_int_equal(ask_buffers(mine, uid), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(another, "single", NULL), 0);
    eg_raw_figure(another, "clients", value, sizeof(value));
    assert_string_equal(value, "2");
}

/* The answer to something else that is lost takes nothing back. */
static void only_the_last_opening_is_in_doubt(void **state) {
    char pid[16];
    (void)state;
    assert_int_equal(ask_open(mine, "single", NULL), 0);
    eg_raw_begin(mine, EG_MSG_STATUS);
    eg_enc_u32(&mine->enc, 0);
    assert_int_equal(eg_raw_send(mine, mine->enc.data, mine->enc.used), 0);
    eg_raw_figure(another, "pid", pid, sizeof(pid));
    eg_raw_close(mine);
    eg_raw_figure(another, "pid", pid, sizeof(pid));
    assert_int_equal(ask_open(another, "single", NULL), EAGRE_E_BUSY);
}

/* Saying so gives nobody anything. */
static void claims_are_not_believed(void **state) {
    uint32_t held[3] = {0, 0, 4711};
    (void)state;
    assert_int_equal(ask_open(another, "multi", &held[0]), 0);
    eg_raw_close(mine);
    connect_as(mine);
    assert_int_equal(attach(mine, held, 3), 0);
    assert_int_equal(ask_buffers(mine, held[0]), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(mine, "multi", NULL), 0);
    assert_int_equal(ask_open(mine, "multi", NULL), 0);
    assert_int_equal(release(mine, held[0]), 0);
    assert_int_equal(ask_buffers(mine, held[0]), 0);
    assert_int_equal(release(mine, held[0]), 0);
    assert_int_equal(ask_buffers(mine, held[0]), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(mine, "multi", NULL), 0);
    eg_raw_close(mine);
    connect_as(mine);
    handles = 3;
    assert_int_equal(attach(mine, held, 3), 0);
    assert_int_equal(ask_buffers(mine, held[0]), 0);
    assert_int_equal(release(mine, held[0]), 0);
    assert_int_equal(ask_buffers(mine, held[0]), EAGRE_E_PERMISSION);
    assert_int_equal(release(mine, held[0]), 0); /* one too many */
    assert_int_equal(release(mine, 0), 0);
}

/* Numbers of others: of their client, of their topic, of what is not there. */
static void the_ids_of_others_are_of_no_use(void **state) {
    static struct eg_raw thief;
    uint32_t uid;
    (void)state;
    assert_int_equal(ask_open(mine, "multi", &uid), 0);
    connect_as(&thief);
    for (uint32_t o = 0; o < 70000; o += o < 5 ? 1 : 16381) {
        for (uint64_t c = 0; c < 2; c++) {
            eg_raw_begin(&thief, EG_MSG_ATTACH);
            eg_enc_u32(&thief.enc, o == 0 ? UINT32_MAX : o);
            eg_enc_u64(&thief.enc, c == 0 ? 0 : cookie + 1);
            eg_enc_u16(&thief.enc, 0);
            eg_enc_u16(&thief.enc, 0);
            assert_int_equal(eg_raw_ask(&thief), EAGRE_E_PERMISSION);
        }
    }
    assert_int_equal(attach(&thief, NULL, 0), 0);
    assert_int_equal(attach(&thief, NULL, 0), EAGRE_E_STATE); /* twice */
    assert_int_equal(ask_buffers(&thief, uid), EAGRE_E_PERMISSION);
    for (uint16_t n = 0; n < 300; n++) { /* as one who may: what is not there, is not there */
        eg_raw_begin(mine, EG_MSG_BUFFERS);
        eg_enc_u8(&mine->enc, EG_ROLE_PRODUCER);
        eg_enc_u32(&mine->enc, uid);
        eg_enc_u32(&mine->enc, n % 2);
        eg_enc_u16(&mine->enc, 1);
        eg_enc_u16(&mine->enc, (uint16_t)(n * 219));
        int status = eg_raw_ask(mine);
        if (status == 0)
            close(mine->fds[0]);
        else
            assert_true(status == EAGRE_E_INVALID || status == EAGRE_E_UNKNOWN_PARTITION);
    }
    eg_raw_close(&thief);
}

/* A process of many threads always has an answer that it has not read yet; it reads them all. */
static void who_reads_may_have_an_answer_waiting(void **state) {
    uint32_t uid;
    (void)state;
    assert_int_equal(ask_open(mine, "multi", &uid), 0);
    for (int i = 0; i < 600; i++) {
        struct pollfd p = {.fd = mine->fd, .events = POLLIN};
        if (i % 7 == 0) /* so that it is not always the same one of the two that is one too many */
            assert_int_equal(ask_buffers(mine, uid), 0);
        begin_buffers(mine, uid);
        assert_int_equal(eg_raw_send(mine, mine->enc.data, mine->enc.used), 0);
        assert_int_equal(poll(&p, 1, EG_TEST_LIMIT_MS), 1);
        begin_buffers(mine, uid);
        assert_int_equal(eg_raw_send(mine, mine->enc.data, mine->enc.used), 0);
        for (int k = 0; k < 2; k++) {
            if (eg_raw_receive(mine) != 0)
                fail_msg("%s", mine->detail);
            assert_true(mine->nfds > 0);
            for (size_t n = 0; n < mine->nfds; n++)
                close(mine->fds[n]);
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nobody_is_there_for_the_answer),
        TEST(the_answer_is_not_read),
        TEST(what_is_held_stays),
        TEST(only_the_last_opening_is_in_doubt),
        TEST(who_reads_may_have_an_answer_waiting),
        TEST(claims_are_not_believed),
        TEST(the_ids_of_others_are_of_no_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
