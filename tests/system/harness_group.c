#include "harness_group.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/clock.h"

int eg_setup_groups(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "1M"}, {"partitions", "4"}};
    eg_client_setup();
    eg_setup_bus(state);
    bus = *state;
    OK(eagre_open(bus->socket, &e));
    OK(eagre_topic_create(e, "four", settings, 3));
    OK(eagre_producer_open(e, "four", NULL, &p));
    return 0;
}

int eg_teardown_groups(void **state) {
    eg_client_close();
    return eg_teardown_bus(state);
}

eagre_consumer_options_t m_options(void) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = "g";
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.enable_auto_commit = 0;
    return o;
}

/* ---- callbacks -------------------------------------------------------------------------------------------- */

static void note(struct member *m, char what, const eagre_topic_partition_t *list, size_t n) {
    if (m->event_count == EVENTS)
        fail_msg("too many callbacks");
    struct event *event = &m->events[m->event_count++];
    *event = (struct event){.what = what, .n = n};
    for (size_t i = 0; i < n; i++)
        event->parts |= 1u << list[i].partition;
    eagre_record_t r;
    size_t got;
    m->no_polls = eagre_consumer_poll(m->c, &r, 1, 0, &got) == EAGRE_E_STATE &&
                  eagre_consumer_unsubscribe(m->c) == EAGRE_E_STATE;
}

static void assigned(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct member *m = ctx;
    assert_ptr_equal(of, m->c);
    note(m, 'a', list, n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].topic, "four") == 0)
            m->next[list[i].partition] = list[i].offset;
}

static void revoked(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct member *m = ctx;
    note(m, 'r', list, n);
    if (m->commits)
        OK(eagre_consumer_commit(of, NULL, 0, EG_TEST_LIMIT_MS));
}

static void lost(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct member *m = ctx;
    note(m, 'l', list, n);
    assert_int_equal(eagre_consumer_commit_async(of, NULL, 0), EAGRE_E_FENCED);
}

/* ---- members ------------------------------------------------------------------------------------------------ */

void m_open(struct member *m, const eagre_consumer_options_t *o) {
    const eagre_rebalance_callbacks_t callbacks = {revoked, assigned, lost, m};
    OK(eagre_open(bus->socket, &m->e));
    OK(eagre_consumer_open(m->e, o, &m->c));
    OK(eagre_consumer_on_rebalance(m->c, &callbacks));
}

void m_join(struct member *m, const eagre_consumer_options_t *o) {
    const char *const topics[] = {"four"};
    m_open(m, o);
    OK(eagre_consumer_subscribe(m->c, topics, 1));
}

void m_close(struct member *m) {
    eagre_consumer_close(m->c);
    OK(eagre_close(m->e));
    m->c = NULL;
    m->e = NULL;
}

size_t m_count(struct member *m) {
    size_t n;
    OK(eagre_consumer_assignment(m->c, NULL, 0, &n));
    return n;
}

uint32_t m_parts(struct member *m) {
    eagre_topic_partition_t list[64];
    size_t n;
    uint32_t bits = 0;
    OK(eagre_consumer_assignment(m->c, list, 64, &n));
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        bits |= 1u << list[i].partition;
    return bits;
}

size_t m_poll(struct member *m, int32_t timeout_ms) {
    eagre_record_t r[64];
    size_t n;
    OK(eagre_consumer_poll(m->c, r, 64, timeout_ms, &n));
    for (size_t i = 0; i < n; i++) {
        if (strcmp(r[i].topic, "four") != 0)
            continue;
        assert_int_equal(r[i].offset, m->next[r[i].partition]);
        m->next[r[i].partition]++;
    }
    m->records += n;
    return n;
}

void m_settle(struct member *const *m, const size_t *wanted, size_t n) {
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    for (size_t right = 0; right < n;) {
        right = 0;
        for (size_t i = 0; i < n; i++) {
            m_poll(m[i], 1);
            right += m_count(m[i]) == wanted[i];
        }
        if (eg_mono_ns() > until)
            fail_msg("the group does not settle: the first of %zu has %zu partitions", n, m_count(m[0]));
    }
}

void m_produce(int n) {
    for (int32_t part = 0; part < PARTS; part++)
        for (int i = 0; i < n; i++) {
            eagre_message_t message = {.value = "value", .value_len = 5, .partition = part};
            OK(eagre_produce(p, &message, NULL, NULL));
        }
}

void m_take(struct member *const *m, size_t n, uint64_t records) {
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    for (uint64_t got = 0; got != records;) {
        got = 0;
        for (size_t i = 0; i < n; i++) {
            m_poll(m[i], 1);
            got += m[i]->records;
        }
        if (got > records || eg_mono_ns() > until)
            fail_msg("%llu records came, not %llu", (unsigned long long)got, (unsigned long long)records);
    }
}

int64_t m_committed(struct member *m, int32_t partition) {
    int64_t offset = -2;
    int rc = eagre_consumer_committed(m->c, "four", partition, &offset, NULL, 0);
    if (rc == EAGRE_E_NO_OFFSET)
        return -1;
    OK(rc);
    return offset;
}
