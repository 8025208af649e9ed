/* Share groups over the lives of what they read: topics that go and grow, daemons that stop, offsets that are set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness_group.h"
#include "sys/clock.h"

#define LIMIT_NS (EG_TEST_LIMIT_MS * EG_NS_PER_MS)

static eagre_consumer_options_t options(eagre_offset_reset_t reset) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = "q";
    o.group_type = EAGRE_GROUP_SHARE;
    o.auto_offset_reset = reset;
    return o;
}

static void subscribe(struct member *m, eagre_offset_reset_t reset, const char *const *topics, size_t n) {
    eagre_consumer_options_t o = options(reset);
    *m = (struct member){0};
    m_open(m, &o);
    OK(eagre_consumer_subscribe(m->c, topics, n));
}

/* How many records of each partition come until there are as many as wanted, and none more. */
static void get(struct member *m, const uint32_t *wanted, size_t parts) {
    uint32_t got[8] = {0}, all = 0, due = 0;
    for (size_t i = 0; i < parts; i++)
        due += wanted[i];
    int64_t until = eg_mono_ns() + LIMIT_NS;
    for (size_t last = 1; (all < due || last > 0) && eg_mono_ns() < until;) {
        eagre_record_t r[16];
        OK(eagre_consumer_poll(m->c, r, 16, all < due ? 10 : 0, &last));
        for (size_t i = 0; i < last; i++)
            got[r[i].partition]++;
        all += (uint32_t)last;
    }
    for (size_t i = 0; i < parts; i++)
        assert_int_equal(got[i], wanted[i]);
    size_t none;
    OK(eagre_consumer_poll(m->c, &(eagre_record_t){0}, 1, 0, &none)); /* accepts the last ones */
    assert_int_equal(none, 0);
}

static void put(const char *topic, int32_t partition, int n) {
    eagre_producer_t *by;
    OK(eagre_producer_open(e, topic, NULL, &by));
    for (int i = 0; i < n; i++)
        OK(eagre_produce(by, &(eagre_message_t){.value = "v", .value_len = 1, .partition = partition}, NULL, NULL));
    eagre_producer_close(by);
}

static void make(const char *topic, const char *partitions) {
    OK(eagre_topic_create(e, topic, &(eagre_setting_t){"partitions", partitions}, 1));
}

/* ---- topics ------------------------------------------------------------------------------------------------- */

static void a_deleted_topic_goes_quietly(void **state) {
    (void)state;
    struct member m;
    make("gone", "2");
    subscribe(&m, EAGRE_RESET_EARLIEST, (const char *const[]){"four", "gone"}, 2);
    m_settle((struct member *[]){&m}, (size_t[]){6}, 1);
    put("gone", 1, 3);
    m_poll(&m, 1000);
    OK(eagre_topic_delete(e, "gone"));
    m_settle((struct member *[]){&m}, (size_t[]){4}, 1); /* m_poll takes no error */
    make("gone", "1");
    m_settle((struct member *[]){&m}, (size_t[]){5}, 1);
    put("gone", 0, 2);
    put("four", 2, 2);
    get(&m, (uint32_t[]){2, 0, 2, 0}, 4);
    m_close(&m);
}

/* ---- partitions that are added ------------------------------------------------------------------------------- */

static void grow(const char *topic, const char *partitions) {
    OK(eagre_topic_alter(e, topic, &(eagre_setting_t){"partitions", partitions}, 1));
}

static const char *const disk[] = {"disk"};

/* The group reads both partitions of "disk" from its end, and has no member now. */
static void begin(void) {
    struct member m;
    make("disk", "2");
    put("disk", 0, 4);
    subscribe(&m, EAGRE_RESET_LATEST, disk, 1);
    m_settle((struct member *[]){&m}, (size_t[]){2}, 1);
    get(&m, (uint32_t[]){0, 0}, 2); /* each is left out where it ended */
    put("disk", 0, 5);
    put("disk", 1, 5);
    get(&m, (uint32_t[]){5, 5}, 2);
    m_close(&m);
}

static void read_all(const uint32_t *wanted, size_t parts) {
    struct member m;
    subscribe(&m, EAGRE_RESET_LATEST, disk, 1);
    m_settle((struct member *[]){&m}, &parts, 1);
    get(&m, wanted, parts);
    m_close(&m);
}

static void stop(void) {
    assert_int_equal(eg_bus_stop(bus), 0);
    eg_bus_start(bus, NULL);
}

static void added_before_a_stop(void **state) {
    (void)state;
    begin();
    grow("disk", "3");
    put("disk", 0, 7);
    put("disk", 2, 7);
    stop();
    read_all((uint32_t[]){7, 0, 7}, 3);
}

static void added_behind_a_stop(void **state) {
    (void)state;
    begin();
    stop();
    grow("disk", "3");
    put("disk", 0, 7);
    put("disk", 2, 7);
    read_all((uint32_t[]){7, 0, 7}, 3);
    grow("disk", "4"); /* the cells know it now */
    put("disk", 3, 2);
    read_all((uint32_t[]){0, 0, 0, 2}, 4);
}

static void seek_to(const char *topic, int32_t partition, int64_t offset) {
    OK(eagre_group_put(e, "q", EAGRE_GROUP_SHARE,
                       &(eagre_topic_partition_t){.topic = topic, .partition = partition, .offset = offset}, 1));
}

/* Forgotten is where the group stood, in its cells, too. */
static void forgotten_offsets(void **state) {
    (void)state;
    begin();
    assert_int_equal(eg_bus_stop(bus), 0);
    eg_bus_start(bus, NULL);
    read_all((uint32_t[]){0, 0}, 2); /* it has cells */
    eg_bus_kill(bus);
    eg_bus_start(bus, "--offsets.retention.ms", "100", NULL);
    size_t n = 1;
    for (int64_t until = eg_mono_ns() + LIMIT_NS; n > 0 && eg_mono_ns() < until;) {
        eagre_group_offset_t *list;
        OK(eagre_group_offsets(e, "q", &list, &n));
        free(list);
        usleep(10000);
    }
    assert_int_equal(n, 0);
    struct member m;
    subscribe(&m, EAGRE_RESET_EARLIEST, disk, 1);
    get(&m, (uint32_t[]){9, 5}, 2);
    m_close(&m);
}

/* The daemon is killed when the new offset is in its database, and has not answered. */
static void killed_in_a_seek(void **state) {
    (void)state;
#ifndef EG_FAULTPOINTS
    skip();
#endif
    begin();
    eg_bus_kill(bus);
    assert_int_equal(eg_bus_try_start(bus, (const char *const[]){"EAGRE_FAULT=group.put=kill", NULL}, NULL), 0);
    (void)eagre_group_put(e, "q", EAGRE_GROUP_SHARE, &(eagre_topic_partition_t){.topic = "disk", .offset = 4}, 1);
    assert_int_equal(eg_bus_wait(bus), 128 + SIGKILL);
    eg_bus_start(bus, NULL);
    read_all((uint32_t[]){5, 0}, 2);
}

/* ---- members ------------------------------------------------------------------------------------------------- */

/* Two members of one process, which have what there is. */
static void two(int ready, int extra) {
    (void)extra;
    eg_close_except(ready);
    eagre_t *own;
    CHECK(eagre_open(bus->socket, &own) == EAGRE_OK);
    for (int i = 0; i < 2; i++) {
        eagre_consumer_options_t o = options(EAGRE_RESET_EARLIEST);
        eagre_consumer_t *of;
        size_t n = 0;
        CHECK(eagre_consumer_open(own, &o, &of) == EAGRE_OK);
        CHECK(eagre_consumer_subscribe(of, (const char *const[]){"four"}, 1) == EAGRE_OK);
        while (n == 0)
            CHECK(eagre_consumer_poll(of, &(eagre_record_t){0}, 1, 10, &n) == EAGRE_OK);
    }
    eg_say(ready);
    for (;;)
        pause();
}

/* What many members of a process had is looked for once, not once for each of them. */
static void who_die_together_are_swept_after_once(void **state) {
    (void)state;
    struct member m;
    eg_bus_kill(bus); /* the daemon ends when it sweeps a second time */
    assert_int_equal(eg_bus_try_start(bus, (const char *const[]){"EAGRE_FAULT=share.gone@2=kill", NULL}, NULL), 0);
    put("four", 1, 2);
    pid_t pid = eg_start(two, 0);
    kill(pid, SIGKILL);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    subscribe(&m, EAGRE_RESET_EARLIEST, (const char *const[]){"four"}, 1);
    get(&m, (uint32_t[]){0, 2, 0, 0}, 4);
    OK(eagre_group_delete(e, "none") == EAGRE_E_UNKNOWN_GROUP ? EAGRE_OK : EAGRE_E_STATE); /* it lives */
    eg_bus_kill(bus);
    eg_bus_start(bus, NULL);
    m_close(&m);
}

static void added_before_a_seek(void **state) {
    (void)state;
    begin();
    grow("disk", "3");
    put("disk", 2, 7);
    seek_to("disk", 0, 8);
    seek_to("disk", 1, 5);
    read_all((uint32_t[]){1, 0, 7}, 3);
}

int main(int argc, char **argv) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, eg_setup_groups, eg_teardown_groups)
    const struct CMUnitTest tests[] = {
        TEST(a_deleted_topic_goes_quietly),
        TEST(added_before_a_stop),
        TEST(added_behind_a_stop),
        TEST(added_before_a_seek),
        TEST(forgotten_offsets),
        TEST(killed_in_a_seek),
        TEST(who_die_together_are_swept_after_once),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
