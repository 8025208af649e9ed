/* The connection to the daemon: greeting, attaching, death and return of the daemon, lies. */
#include "fake_daemon.h"

#include <sys/wait.h>

#include "client/session.h"
#include "eagre/admin.h"
#include "sys/liveness.h"

static struct fake fake;
static int fds_before;

static int setup(void **state) {
    (void)state;
    fake_begin(&fake);
    fds_before = fake_open_fds();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_end(&fake);
    return 0;
}

/* Two connections that the fake has closed or not yet: only ours count, and it has one of them. */
static void assert_no_fds_leaked(void) {
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(fake_open_fds(), fds_before);
}

static eagre_t *open_ok(void) {
    eagre_t *e = NULL;
    assert_int_equal(eagre_open(fake.path, &e), EAGRE_OK);
    return e;
}

/* As soon as it has connected; each look is patient for a short time only. */
static int check(eagre_t *e) {
    int rc = EAGRE_E_NO_DAEMON;
    for (int i = 0; rc == EAGRE_E_NO_DAEMON && i < 1000; i++) {
        e->retry_ns = 0; /* as if time had passed */
        rc = eg_session_check(e, INT64_MAX);
    }
    return rc;
}

static void test_default_socket(void **state) {
    (void)state;
    char buf[200];
    char longer[200];
    setenv("EAGRE_SOCKET", "/x/y.sock", 1);
    assert_int_equal(eagre_default_socket(buf, sizeof(buf)), EAGRE_OK);
    assert_string_equal(buf, "/x/y.sock");
    assert_int_equal(eagre_default_socket(buf, 9), EAGRE_E_INVALID);
    assert_int_equal(eagre_default_socket(buf, 10), EAGRE_OK);
    memset(longer, 'a', sizeof(longer));
    longer[0] = '/';
    longer[108] = '\0';
    setenv("EAGRE_SOCKET", longer, 1);
    assert_int_equal(eagre_default_socket(buf, sizeof(buf)), EAGRE_E_INVALID);
    longer[107] = '\0';
    setenv("EAGRE_SOCKET", longer, 1);
    assert_int_equal(eagre_default_socket(buf, sizeof(buf)), EAGRE_OK);
    unsetenv("EAGRE_SOCKET");
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    assert_int_equal(eagre_default_socket(buf, sizeof(buf)), EAGRE_OK);
    assert_string_equal(buf,
                        geteuid() == 0 ? "/run/eagre/eagre.sock" : "/run/user/7/eagre/eagre.sock");
}

static void test_open_and_close(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    assert_int_equal(eagre_daemon_pid(e), 4711);
    assert_int_equal(e->instance_id, 1111);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 0);
    e->handles++;
    assert_int_equal(eagre_close(e), EAGRE_E_STATE);
    e->handles--;
    assert_int_equal(eagre_close(e), EAGRE_OK);
    assert_int_equal(eagre_close(NULL), EAGRE_OK);
    assert_no_fds_leaked();
}

static void test_nobody_there(void **state) {
    (void)state;
    char path[128];
    eagre_t *e = NULL;
    snprintf(path, sizeof(path), "%s/none", fake.dir);
    assert_int_equal(eagre_open(path, &e), EAGRE_E_NO_DAEMON);
    assert_non_null(strstr(eagre_error_detail(), path));
    assert_non_null(strstr(eagre_error_detail(), "eagre up"));
    fake_stop(&fake); /* a socket file that nobody listens at is the same */
    FILE *f = fopen(fake.path, "w");
    fclose(f);
    assert_int_equal(eagre_open(fake.path, &e), EAGRE_E_NO_DAEMON);
    unlink(fake.path);
    fake_start(&fake);
    assert_null(e);
    assert_int_equal(eagre_open("", &e), EAGRE_E_INVALID);
    assert_no_fds_leaked();
}

static void test_greeting_refused_or_malformed(void **state) {
    (void)state;
    static const struct {
        enum fake_act act;
        int rc;
    } cases[] = {
        {FAKE_REFUSE, EAGRE_E_LIMIT},           {FAKE_CLOSE, EAGRE_E_NO_DAEMON},
        {FAKE_GARBLE_SHORT, EAGRE_E_PROTOCOL},  {FAKE_GARBLE_LONG, EAGRE_E_PROTOCOL},
        {FAKE_GARBLE_ID, EAGRE_E_PROTOCOL},     {FAKE_GARBLE_TYPE, EAGRE_E_PROTOCOL},
        {FAKE_GARBLE_STATUS, EAGRE_E_PROTOCOL}, {FAKE_NO_FDS, EAGRE_E_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        eagre_t *e = NULL;
        fake.act[EG_MSG_HELLO] = cases[i].act;
        assert_int_equal(eagre_open(fake.path, &e), cases[i].rc);
        assert_null(e);
    }
    fake.act[EG_MSG_HELLO] = FAKE_REFUSE;
    eagre_t *e = NULL;
    eagre_open(fake.path, &e);
    assert_string_equal(eagre_error_detail(), "no more");
    eg_store_release(&fake.bus_map->magic.magic, 0);
    assert_int_equal(eagre_open(fake.path, &e), EAGRE_E_CORRUPT);
    assert_no_fds_leaked();
}

static bool page_is_locked(void) {
    pid_t pid = fork(); /* one's own locks are not seen */
    if (pid == 0)
        _exit(eg_page_lock_is_free(fake.page) ? 0 : 1);
    int status = 0;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status) == 1;
}

static void test_attach(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 1);
    assert_int_equal(e->owner, 5);
    assert_true(page_is_locked());
    assert_int_equal(eg_load_acquire(&fake.page_map->flags) == EG_CLIENT_MEMBARRIER,
                     !e->full_fence);
    uint32_t bell = 0;
    assert_int_equal(eg_bell_get(e, &bell), EAGRE_OK);
    assert_int_equal(bell, 9);
    eg_bell_put(e, bell);
    assert_int_equal(fake.seen[EG_MSG_BELL_FREE], 1);
    assert_int_equal(eagre_close(e), EAGRE_OK);
    assert_false(page_is_locked());
    assert_no_fds_leaked();
}

static void test_attach_malformed(void **state) {
    (void)state;
    static const enum fake_act acts[] = {FAKE_GARBLE_SHORT, FAKE_GARBLE_LONG, FAKE_NO_FDS,
                                         FAKE_GARBLE_ID,    FAKE_SWAP_FDS,    FAKE_REFUSE};
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        eagre_t *e = open_ok();
        fake.act[EG_MSG_ATTACH] = acts[i];
        assert_int_not_equal(eg_client_attach(e), EAGRE_OK);
        assert_int_equal(e->owner, 0);
        assert_int_equal(eg_client_attach(e), EAGRE_OK); /* and it can be tried again */
        assert_int_equal(eagre_close(e), EAGRE_OK);
    }
    assert_no_fds_leaked();
}

static void test_pin_cells(void **state) {
    (void)state;
    _Atomic uint64_t *cells[EG_CLIENT_PINS];
    _Atomic uint64_t *more = NULL;
    eagre_t *e = open_ok();
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    for (size_t i = 0; i < EG_CLIENT_PINS; i++) {
        assert_int_equal(eg_pin_cell_get(e, &cells[i]), EAGRE_OK);
        assert_int_equal(eg_load_acquire(&fake.page_map->cells), i + 1);
        eg_store_release(cells[i], i + 1);
    }
    for (size_t i = 0; i < EG_CLIENT_PINS; i++)
        assert_int_equal(eg_load_acquire(&fake.page_map->pin[i].pin), i + 1); /* no two the same */
    assert_int_equal(eg_pin_cell_get(e, &more), EAGRE_E_LIMIT);
    assert_null(more);
    eg_pin_cell_put(e, cells[300]);
    assert_int_equal(eg_load_acquire(&fake.page_map->pin[300].pin), EG_PIN_NONE);
    assert_int_equal(eg_pin_cell_get(e, &more), EAGRE_OK);
    assert_ptr_equal(more, cells[300]);
    assert_int_equal(eg_load_acquire(&fake.page_map->cells), EG_CLIENT_PINS); /* never fewer */
    eagre_close(e);
}

/* A daemon on the same memory: nothing changes for handles, and the client stays who it was. */
static void test_successor(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    _Atomic uint64_t *cell;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(eg_pin_cell_get(e, &cell), EAGRE_OK);
    eg_store_release(cell, 99);
    assert_int_equal(check(e), EAGRE_OK);
    fake_stop(&fake);
    assert_int_equal(eg_session_check(e, 0), EAGRE_E_NO_DAEMON);
    assert_int_equal(eg_session_check(e, 0), EAGRE_E_NO_DAEMON);
    fake_start(&fake);
    assert_int_equal(check(e), EAGRE_OK);
    assert_int_equal(fake.attach_owner, 5);
    assert_int_equal(fake.attach_cookie, 0xc00c1e);
    assert_int_equal(e->generation, 0);
    assert_int_equal(eg_load_acquire(&fake.page_map->pin[0].pin), 99);
    assert_true(page_is_locked());
    eagre_close(e);
    assert_no_fds_leaked();
}

/* It does not know us any more, and dies before it could take us up anew: the next one does. */
static void test_forgotten(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    fake_stop(&fake);
    fake_start(&fake);
    fake.act[EG_MSG_ATTACH] = FAKE_FORGET;
    assert_int_equal(check(e), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 4);
    assert_int_equal(fake.attach_owner, 0);
    assert_int_equal(e->owner, 5);
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 4);
    eagre_close(e);
    assert_no_fds_leaked();
}

/* A daemon with new memory: the same pointers now lead there. */
static void test_other_instance(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    _Atomic uint64_t *cell, *other;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(eg_pin_cell_get(e, &cell), EAGRE_OK);
    assert_int_equal(eg_pin_cell_get(e, &other), EAGRE_OK);
    const struct eg_bus *bus = e->bus;
    fake_stop(&fake);
    fake_drop_memory(&fake);
    fake_new_memory(&fake, 2222);
    fake_start(&fake);
    assert_int_equal(check(e), EAGRE_OK);
    assert_int_equal(e->generation, 1);
    assert_int_equal(e->instance_id, 2222);
    assert_int_equal(fake.attach_owner, 0); /* a client that it has never seen */
    assert_ptr_equal(bus, e->bus);
    assert_int_equal(bus->instance_id, 2222);
    assert_int_equal(eg_load_acquire(&fake.page_map->cells), 2);
    eg_store_release(cell, 4);
    assert_int_equal(eg_load_acquire(&fake.page_map->pin[0].pin), 4);
    assert_true(page_is_locked());
    eagre_close(e);
    assert_no_fds_leaked();
}

/* A bus that says it stopped is believed before the socket is closed. */
static void test_stopped_bus_is_noticed(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    eg_store_release(&fake.bus_map->state, EG_BUS_STOPPED);
    assert_int_equal(check(e), EAGRE_OK); /* it has connected again: one answers */
    assert_int_equal(fake.seen[EG_MSG_HELLO], 2);
    eagre_close(e);
}

static void test_requests_survive_a_restart(void **state) {
    (void)state;
    eagre_topic_entry_t *list = NULL;
    size_t n = 0;
    eagre_t *e = open_ok();
    fake_stop(&fake);
    assert_int_equal(eagre_topic_list(e, &list, &n), EAGRE_E_NO_DAEMON);
    fake_start(&fake);
    assert_int_equal(eagre_topic_list(e, &list, &n), EAGRE_OK);
    free(list);
    fake_stop(&fake);
    fake_start(&fake); /* before we have noticed */
    assert_int_equal(eagre_topic_create(e, "a", NULL, 0), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_TOPIC_CREATE], 1);

    /* It dies with our request in its hands: asked again where that does no harm. */
    fake.act[EG_MSG_TOPIC_LIST] = FAKE_CLOSE;
    assert_int_equal(eagre_topic_list(e, &list, &n), EAGRE_OK);
    free(list);
    fake.act[EG_MSG_TOPIC_CREATE] = FAKE_CLOSE;
    assert_int_equal(eagre_topic_create(e, "a", NULL, 0), EAGRE_E_NO_DAEMON);
    assert_int_equal(fake.seen[EG_MSG_TOPIC_CREATE], 2);
    eagre_close(e);
    assert_no_fds_leaked();
}

static void test_answer_to_another_request(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    fake.act[EG_MSG_TOPIC_DELETE] = FAKE_GARBLE_ID;
    assert_int_equal(eagre_topic_delete(e, "a"), EAGRE_E_PROTOCOL);
    assert_int_equal(eagre_topic_delete(e, "a"), EAGRE_OK); /* on a new connection */
    assert_int_equal(fake.seen[EG_MSG_HELLO], 2);
    eagre_close(e);
}

static void test_fork_child_is_refused(void **state) {
    (void)state;
    eagre_t *e = open_ok();
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    e->handles++; /* a producer or consumer, which a child may only free */
    pid_t pid = fork();
    if (pid == 0) {
        int bad = eagre_topic_delete(e, "a") != EAGRE_E_FORKED;
        bad |= eg_session_check(e, 0) != EAGRE_E_FORKED;
        bad |= eg_client_attach(e) != EAGRE_E_FORKED;
        bad |= eagre_close(e) != EAGRE_OK;
        eagre_t *own = NULL;
        bad |= eagre_open(fake.path, &own) != EAGRE_OK;
        bad |= eagre_topic_delete(own, "a") != EAGRE_OK;
        eagre_close(own);
        _exit(bad);
    }
    int status = 1;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    e->handles--;
    assert_true(page_is_locked()); /* the child's close was no harm */
    assert_int_equal(eagre_topic_delete(e, "a"), EAGRE_OK);
    eagre_close(e);
}

struct worker {
    eagre_t *e;
    int failures;
};

static void *work(void *arg) {
    struct worker *w = arg;
    for (int i = 0; i < 200; i++) {
        eagre_topic_entry_t *list;
        size_t n;
        int rc = i % 2 == 0 ? eg_session_check(w->e, INT64_MAX) : eagre_topic_list(w->e, &list, &n);
        if (i % 2 == 1 && rc == EAGRE_OK)
            free(list);
        w->failures += rc != EAGRE_OK;
    }
    return NULL;
}

static void test_threads_share_an_instance(void **state) {
    (void)state;
    pthread_t threads[4];
    struct worker workers[4];
    eagre_t *e = open_ok();
    for (size_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){.e = e};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].failures, 0);
    }
    eagre_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_socket),
#define EACH(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        EACH(test_open_and_close),
        EACH(test_nobody_there),
        EACH(test_greeting_refused_or_malformed),
        EACH(test_attach),
        EACH(test_attach_malformed),
        EACH(test_pin_cells),
        EACH(test_successor),
        EACH(test_forgotten),
        EACH(test_other_instance),
        EACH(test_stopped_bus_is_noticed),
        EACH(test_requests_survive_a_restart),
        EACH(test_answer_to_another_request),
        EACH(test_fork_child_is_refused),
        EACH(test_threads_share_an_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
