/* Topic administration against a real daemon: what it accepts, refuses and remembers, and who may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "harness_raw.h"
#include "layout/layout.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

/* The call is refused with this status and a text that has `says`. */
#define REFUSED(call, status, says)                                                                \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        if (got_ != (status) || strstr(eagre_error_detail(), (says)) == NULL)                      \
            fail_msg("%s: %d, '%s'", #call, got_, eagre_error_detail());                           \
    } while (0)

#define SETTINGS(...)                                                                              \
    (const eagre_setting_t[]){__VA_ARGS__},                                                        \
        sizeof((const eagre_setting_t[]){__VA_ARGS__}) / sizeof(eagre_setting_t)
#define SMALL                                                                                      \
    { "storage", "memory" }, { "segment.bytes", "64K" }

static eagre_t *e;

static int setup(void **state) {
    eg_setup_bus(state);
    OK(eagre_open(((struct eg_test_bus *)*state)->socket, &e));
    return 0;
}

static int teardown(void **state) {
    eagre_close(e);
    return eg_teardown_bus(state);
}

static long long figure(const char *name) {
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

static int produce(eagre_producer_t *p, int32_t partition, const char *text, int64_t *offset) {
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = partition};
    return eagre_produce(p, &m, NULL, offset);
}

static void topics_are_listed_by_name_however_many(void **state) {
    enum { COUNT = 270 };
    eagre_topic_entry_t *list;
    size_t n;
    char name[250];
    (void)state;
    memset(name, 'x', sizeof(name)); /* long names: the list takes more than one message */
    name[249] = '\0';
    for (int i = COUNT - 1; i >= 0; i--) {
        char number[16];
        snprintf(number, sizeof(number), "%03d", i);
        memcpy(name, number, 3);
        OK(eagre_topic_create(e, name, SETTINGS(SMALL)));
    }
    OK(eagre_topic_list(e, &list, &n));
    assert_int_equal(n, COUNT);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strtol(list[i].name, NULL, 10), i);
        assert_int_equal(list[i].partitions, 1);
        assert_string_equal(list[i].storage, "memory");
    }
    free(list);
    assert_int_equal(figure("memory.allocated"), 0); /* nobody uses them */
}

static void settings_are_described(void **state) {
    eagre_topic_info_t *info;
    bool seen = false;
    (void)state;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL, {"partitions", "1024"})));
    OK(eagre_topic_describe(e, "t", &info));
    assert_int_equal(info->partition_count, 1024);
    for (size_t i = 0; i < info->partition_count; i++) {
        assert_int_equal(info->partitions[i].partition, i);
        assert_int_equal(info->partitions[i].state, 1);
        assert_int_equal(info->partitions[i].end_offset, 0);
        assert_int_equal(info->partitions[i].memory_bytes, 0);
    }
    for (size_t i = 0; i < info->setting_count; i++) {
        const eagre_topic_setting_t *s = &info->settings[i];
        if (strcmp(s->name, "segment.bytes") == 0) {
            seen = true;
            assert_string_equal(s->value, "65536");
            assert_int_equal(s->is_default, 0);
        } else if (strcmp(s->name, "partitions") != 0 && strcmp(s->name, "storage") != 0) {
            assert_int_equal(s->is_default, 1);
        }
    }
    assert_true(seen);
    eagre_topic_info_free(info);
}

static void what_is_wrong_is_told(void **state) {
    (void)state;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    REFUSED(eagre_topic_create(e, "t", SETTINGS(SMALL)), EAGRE_E_TOPIC_EXISTS, "'t'");
    REFUSED(eagre_topic_create(e, "a b", SETTINGS(SMALL)), EAGRE_E_INVALID, "'a b'");
    REFUSED(eagre_topic_create(e, "u", SETTINGS({"segment.byte", "1M"})), EAGRE_E_INVALID_CONFIG,
            "segment.bytes");
    REFUSED(eagre_topic_create(e, "u", SETTINGS({"segment.bytes", "1"})), EAGRE_E_INVALID_CONFIG,
            "64KiB to 512MiB");
    REFUSED(eagre_topic_create(e, "u", SETTINGS({"storage", "tape"})), EAGRE_E_INVALID_CONFIG, "disk, memory");
    REFUSED(eagre_topic_alter(e, "t", SETTINGS({"ring.segments", "5"})), EAGRE_E_INVALID_CONFIG,
            "ring.segments=5");
    REFUSED(eagre_topic_alter(e, "nope", SETTINGS(SMALL)), EAGRE_E_UNKNOWN_TOPIC, "'nope'");
    REFUSED(eagre_topic_delete(e, "nope"), EAGRE_E_UNKNOWN_TOPIC, "'nope'");
    eagre_topic_info_t *info;
    REFUSED(eagre_topic_describe(e, "nope", &info), EAGRE_E_UNKNOWN_TOPIC, "'nope'");
    eagre_producer_t *p;
    REFUSED(eagre_producer_open(e, "nope", NULL, &p), EAGRE_E_UNKNOWN_TOPIC, "'nope'");
    assert_int_equal(figure("topics"), 1);
}

static void memory_max_is_kept_and_explained(void **state) {
    struct eg_test_bus *b = *state;
    OK(eagre_close(e));
    eg_bus_stop(b);
    eg_bus_start(b, "--memory.max=4M", NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_create(e, "fits", SETTINGS({"segment.bytes", "1M"})));
    REFUSED(eagre_topic_create(e, "t", SETTINGS({"segment.bytes", "1M"})), EAGRE_E_NO_MEMORY,
            "memory.max=4 MiB");
    assert_non_null(strstr(eagre_error_detail(), "1 partitions x 3 segments x 1 MiB"));
    REFUSED(eagre_topic_alter(e, "fits", SETTINGS({"partitions", "2"})), EAGRE_E_NO_MEMORY,
            "2 partitions");
    OK(eagre_topic_create(e, "small", SETTINGS(SMALL)));
    OK(eagre_topic_delete(e, "fits"));
    OK(eagre_topic_create(e, "t", SETTINGS({"segment.bytes", "1M"})));
}

static void alterations_reach_those_who_use_the_topic(void **state) {
    struct eg_test_bus *b = *state;
    eagre_producer_t *p;
    eagre_topic_info_t *info;
    int64_t offset;
    char large[2000];
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    OK(eagre_producer_open(e, "t", NULL, &p));
    assert_int_equal(produce(p, 1, "x", &offset), EAGRE_E_UNKNOWN_PARTITION);
    OK(eagre_topic_alter(e, "t", SETTINGS({"partitions", "3"}, {"max.message.bytes", "1000"})));
    assert_int_equal(eagre_producer_partitions(p), 3);
    OK(produce(p, 2, "x", &offset));
    assert_int_equal(produce(p, 2, large, &offset), EAGRE_E_RECORD_TOO_LARGE);
    REFUSED(eagre_topic_alter(e, "t", SETTINGS({"partitions", "2"})), EAGRE_E_INVALID_CONFIG,
            "3 to 1024");
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    OK(produce(p, 2, "y", &offset));
    assert_int_equal(offset, 1);
    OK(eagre_topic_describe(e, "t", &info));
    assert_int_equal(info->partition_count, 3);
    assert_int_equal(info->partitions[2].end_offset, 2);
    eagre_topic_info_free(info);
    eagre_producer_close(p);
}

static void a_deleted_topic_is_gone_and_its_memory_too(void **state) {
    eagre_producer_t *p;
    int64_t offset;
    (void)state;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(produce(p, 0, "x", &offset));
    assert_true(figure("memory.allocated") > 0);
    OK(eagre_topic_delete(e, "t"));
    assert_int_equal(produce(p, 0, "x", &offset), EAGRE_E_TOPIC_DELETED);
    assert_int_equal(figure("memory.allocated"), 0);
    assert_int_equal(figure("memory.committed"), 0);
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    assert_int_equal(produce(p, 0, "x", &offset), EAGRE_E_TOPIC_DELETED); /* it is another one */
    eagre_producer_close(p);
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(produce(p, 0, "x", &offset));
    assert_int_equal(offset, 0);
    eagre_producer_close(p);
}

/* ---- offsets ------------------------------------------------------------------------------------- */

static int64_t produce_some(const struct eg_test_bus *b, int count) {
    eagre_producer_t *p;
    int64_t offset = -1;
    OK(eagre_open(b->socket, &e));
    OK(eagre_producer_open(e, "t", NULL, &p));
    for (int i = 0; i < count; i++)
        OK(produce(p, 0, "some text", &offset));
    eagre_producer_close(p);
    return offset;
}

static struct eg_test_bus *the_bus;
static size_t fds_before;
static bool memory_is_given_back(void *ctx) {
    (void)ctx;
    return eg_count_fds(the_bus->pid) == fds_before;
}

/* Its memory is given back little by little; what somebody reads in it stays as it is. */
static void what_is_read_of_a_deleted_topic_stays(void **state) {
    enum { SIZE = 7000, RECORDS = 8 };
    static char value[RECORDS][SIZE];
    eagre_record_t r[RECORDS];
    eagre_producer_t *p, *other;
    eagre_consumer_t *c;
    size_t n;
    the_bus = *state;
    OK(eagre_topic_create(e, "other", SETTINGS(SMALL)));
    OK(eagre_producer_open(e, "other", NULL, &other)); /* we are a client from here on */
    fds_before = eg_count_fds(the_bus->pid);
    for (int round = 0; round < 2; round++) { /* somebody reads in it; nobody has it */
        OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
        OK(eagre_producer_open(e, "t", NULL, &p));
        OK(eagre_consumer_open(e, NULL, &c));
        OK(eagre_consumer_assign(c, "t", 0));
        for (int i = 0; i < RECORDS; i++) {
            memset(value[i], 'a' + i, SIZE);
            eagre_message_t m = {.value = value[i], .value_len = SIZE, .partition = 0};
            OK(eagre_produce(p, &m, NULL, NULL));
        }
        OK(eagre_consumer_poll(c, r, RECORDS, EG_TEST_LIMIT_MS, &n));
        assert_int_equal(n, RECORDS);
        eagre_producer_close(p);
        if (round == 1)
            eagre_consumer_close(c);
        OK(eagre_topic_delete(e, "t"));
        eg_wait_until(memory_is_given_back, NULL, "a deleted topic's memory is given back");
        for (size_t i = 0; round == 0 && i < n; i++)
            assert_memory_equal(r[i].value, value[i], SIZE);
        if (round == 0)
            eagre_consumer_close(c);
    }
    eagre_producer_close(other);
}

static void offsets_go_on_after_a_clean_stop(void **state) {
    struct eg_test_bus *b = *state;
    int64_t expected = 0;
    eagre_topic_info_t *info;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    for (int round = 0; round < 3; round++) {
        OK(eagre_close(e));
        expected += 1000;
        assert_int_equal(produce_some(b, 1000), expected - 1);
        OK(eagre_close(e));
        assert_int_equal(eg_bus_stop(b), 0);
        eg_bus_start(b, NULL);
        OK(eagre_open(b->socket, &e));
        OK(eagre_topic_describe(e, "t", &info));
        assert_int_equal(info->partitions[0].log_start_offset,
                         expected); /* the records were in memory */
        assert_int_equal(info->partitions[0].end_offset, expected);
        eagre_topic_info_free(info);
    }
}

static void no_offset_is_given_twice_after_a_crash_of_everything(void **state) {
    struct eg_test_bus *b = *state;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    OK(eagre_close(e));
    int64_t last = -1;
    for (int round = 0; round < 3; round++) {
        int64_t offset = produce_some(b, 500);
        assert_true(offset - 499 > last); /* the first of them */
        last = offset;
        OK(eagre_close(e));
        pid_t keeper = eg_bus_keeper(b);
        kill(b->pid, SIGSTOP); /* so that it cannot start another keeper */
        kill(keeper, SIGKILL);
        eg_wait_gone(keeper);
        eg_bus_kill(b);
        eg_bus_start(b, NULL);
    }
    OK(eagre_open(b->socket, &e));
}

static void a_stop_that_keeps_the_memory_keeps_the_records(void **state) {
    struct eg_test_bus *b = *state;
    eagre_consumer_t *c;
    eagre_record_t record;
    size_t n;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    OK(eagre_close(e));
    produce_some(b, 3);
    OK(eagre_daemon_shutdown(e, 1));
    assert_int_equal(eg_bus_wait(b), 0);
    eg_bus_start(b, NULL);
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    OK(eagre_consumer_seek(c, "t", 0, 0));
    OK(eagre_consumer_poll(c, &record, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
    assert_memory_equal(record.value, "some text", 9);
    eagre_consumer_close(c);
}

/* ---- who may ------------------------------------------------------------------------------------- */

#define OTHER 54321

/* Runs f as another user, in a child; its result is the exit status. */
static int as_other(const struct eg_test_bus *b, int (*f)(eagre_t *own)) {
    pid_t pid = fork();
    if (pid == 0) {
        eagre_t *own;
        if (setgroups(0, NULL) != 0 || setgid(OTHER) != 0 || setuid(OTHER) != 0)
            _exit(98);
        int rc = eagre_open(b->socket, &own);
        if (rc != EAGRE_OK)
            print_error("%s\n", eagre_error_detail());
        _exit(rc == EAGRE_OK ? f(own) : 99);
    }
    return eg_wait_exit(pid);
}

static int try_produce(eagre_t *own) {
    eagre_producer_t *p = NULL;
    int64_t offset;
    int rc = eagre_producer_open(own, "t", NULL, &p);
    if (rc == EAGRE_OK)
        rc = produce(p, 0, "x", &offset);
    eagre_producer_close(p);
    return -rc;
}
static int try_consume(eagre_t *own) {
    eagre_consumer_t *c = NULL;
    int rc = eagre_consumer_open(own, NULL, &c);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_assign(c, "t", 0);
    eagre_consumer_close(c);
    return -rc;
}
static int try_alter(eagre_t *own) {
    return -eagre_topic_alter(own, "t", SETTINGS({"retention.ms", "1"}));
}
static int try_create(eagre_t *own) { return -eagre_topic_create(own, "mine", SETTINGS(SMALL)); }
static int try_delete_mine(eagre_t *own) { return -eagre_topic_delete(own, "mine"); }
static int try_shutdown(eagre_t *own) { return -eagre_daemon_shutdown(own, 0); }

static void access_lists_are_enforced(void **state) {
    struct eg_test_bus *b = *state;
    if (geteuid() != 0)
        skip();
    OK(eagre_close(e));
    eg_bus_stop(b);
    char base[sizeof(b->dir)];
    snprintf(base, sizeof(base), "%s", b->dir);
    *strrchr(base, '/') = '\0';
    assert_int_equal(chmod(base, 0711), 0); /* the way to the socket */
    assert_int_equal(chmod(b->dir, 0711), 0);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    assert_int_equal(as_other(b, try_produce), 0);
    assert_int_equal(as_other(b, try_consume), 0);
    assert_int_equal(as_other(b, try_alter), -EAGRE_E_PERMISSION);
    assert_int_equal(as_other(b, try_shutdown), -EAGRE_E_PERMISSION);
    assert_int_equal(as_other(b, try_create), 0); /* access.create=* */
    assert_int_equal(as_other(b, try_delete_mine), 0);
    OK(eagre_topic_alter(e, "t", SETTINGS({"access.produce", "user:1"})));
    assert_int_equal(as_other(b, try_produce), -EAGRE_E_PERMISSION);
    assert_int_equal(as_other(b, try_consume), 0);
    OK(eagre_topic_alter(e, "t",
                         SETTINGS({"access.produce", "user:54321"}, {"access.consume", ""})));
    assert_int_equal(as_other(b, try_produce), 0);
    assert_int_equal(as_other(b, try_consume), -EAGRE_E_PERMISSION);
    OK(eagre_topic_alter(
        e, "t", SETTINGS({"access.consume", "group:54321"}, {"access.admin", "user:54321"})));
    assert_int_equal(as_other(b, try_consume), 0);
    assert_int_equal(as_other(b, try_alter), 0);
    assert_int_equal(try_produce(e), 0); /* root always may */
    OK(eagre_close(e));
    eg_bus_kill(b); /* lists are remembered */
    eg_bus_start(b, "--socket.mode=0666", "--access.create=user:1", NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_alter(e, "t", SETTINGS({"access.admin", "creator"})));
    assert_int_equal(as_other(b, try_alter), -EAGRE_E_PERMISSION);
    assert_int_equal(as_other(b, try_create), -EAGRE_E_PERMISSION);
}

/* ---- what a consumer gets ------------------------------------------------------------------------- */

static void ask_attach(struct eg_raw *r) {
    eg_raw_begin(r, EG_MSG_ATTACH);
    eg_enc_u32(&r->enc, 0);
    eg_enc_u64(&r->enc, 0);
    assert_int_equal(eg_raw_ask(r), 0);
    for (size_t i = 0; i < r->nfds; i++)
        close(r->fds[i]);
}

static int ask_open(struct eg_raw *r, uint8_t role, const char *topic) {
    eg_raw_begin(r, EG_MSG_OPEN);
    eg_enc_u8(&r->enc, role);
    eg_enc_u32(&r->enc, UINT32_MAX);
    eg_enc_str(&r->enc, topic);
    return eg_raw_ask(r);
}

static int ask_buffers(struct eg_raw *r, uint8_t role, uint32_t uid, uint32_t partition) {
    eg_raw_begin(r, EG_MSG_BUFFERS);
    eg_enc_u8(&r->enc, role);
    eg_enc_u32(&r->enc, uid);
    eg_enc_u32(&r->enc, partition);
    eg_enc_u16(&r->enc, 0);
    return eg_raw_ask(r);
}

static bool is_writable(int fd) {
    void *at = mmap(NULL, EG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return false;
    munmap(at, EG_PAGE);
    return true;
}

static void close_fds(struct eg_raw *r) {
    for (size_t i = 0; i < r->nfds; i++)
        close(r->fds[i]);
    r->nfds = 0;
}

static void consumers_get_descriptors_for_reading_only(void **state) {
    static struct eg_raw r;
    struct eg_test_bus *b = *state;
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL)));
    eg_raw_connect(&r, b->socket);
    eg_raw_hello(&r, NULL);
    assert_int_equal(ask_open(&r, EG_ROLE_CONSUMER, "t"), EAGRE_E_STATE); /* before ATTACH */
    ask_attach(&r);
    assert_int_equal(ask_buffers(&r, EG_ROLE_CONSUMER, 1, 0), EAGRE_E_PERMISSION); /* before OPEN */
    assert_int_equal(ask_open(&r, EG_ROLE_CONSUMER, "t"), 0);
    uint32_t uid = eg_dec_u32(&r.dec);
    assert_int_equal(r.nfds, 3);
    assert_false(is_writable(r.fds[0])); /* status */
    assert_false(is_writable(r.fds[1])); /* ring */
    assert_true(is_writable(r.fds[2]));  /* waiters */
    close_fds(&r);
    assert_int_equal(ask_buffers(&r, EG_ROLE_PRODUCER, uid, 0), EAGRE_E_PERMISSION);
    assert_int_equal(ask_buffers(&r, EG_ROLE_CONSUMER, uid, 1), EAGRE_E_UNKNOWN_PARTITION);
    assert_int_equal(ask_buffers(&r, EG_ROLE_CONSUMER, uid + 1, 0), EAGRE_E_TOPIC_DELETED);
    assert_int_equal(ask_buffers(&r, EG_ROLE_CONSUMER, uid, 0), 0);
    assert_int_equal(r.nfds, 3);
    for (size_t i = 0; i < r.nfds; i++)
        assert_false(is_writable(r.fds[i]));
    close_fds(&r);
    assert_int_equal(ask_open(&r, EG_ROLE_PRODUCER, "t"), 0);
    assert_int_equal(r.nfds, 5);
    assert_false(is_writable(r.fds[0])); /* status: the daemon's words stay its own */
    assert_true(is_writable(r.fds[1]));
    close_fds(&r);
    assert_int_equal(ask_buffers(&r, EG_ROLE_PRODUCER, uid, 0), 0);
    for (size_t i = 0; i < r.nfds; i++)
        assert_true(is_writable(r.fds[i]));
    close_fds(&r);
    eg_raw_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(topics_are_listed_by_name_however_many),
        T(settings_are_described),
        T(what_is_wrong_is_told),
        T(memory_max_is_kept_and_explained),
        T(alterations_reach_those_who_use_the_topic),
        T(a_deleted_topic_is_gone_and_its_memory_too),
        T(what_is_read_of_a_deleted_topic_stays),
        T(offsets_go_on_after_a_clean_stop),
        T(no_offset_is_given_twice_after_a_crash_of_everything),
        T(a_stop_that_keeps_the_memory_keeps_the_records),
        T(access_lists_are_enforced),
        T(consumers_get_descriptors_for_reading_only),
    };
    return cmocka_run_group_tests_name("system/topics", tests, NULL, NULL);
}
