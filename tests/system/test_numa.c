/*
 * Where a topic's memory comes from, on a machine with several NUMA nodes; skipped on one with one node.
 * The kernel is asked (move_pages) about the pages that a producer gets to write in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/producer.h"
#include "harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

#define NODES 64
#define PAGES 500 /* that are looked at: a topic has memory for three times as many */

static eagre_t *e;
static uint64_t allowed; /* nodes whose memory this process may use */

/* Nodes that have memory for us, as a mask. */
static uint64_t allowed_nodes(void) {
    unsigned long mask[16] = {0};
    if (syscall(SYS_get_mempolicy, NULL, mask, sizeof(mask) * 8, NULL, MPOL_F_MEMS_ALLOWED) != 0)
        return 1;
    return mask[0];
}

/* Run on a CPU of this node, if there is one. */
static bool run_on(unsigned node) {
    cpu_set_t set;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        unsigned on_cpu, on_node;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) == 0 && getcpu(&on_cpu, &on_node) == 0 &&
            on_node == node)
            return true;
    }
    return false;
}

static int node_of(void *page) {
    int status = -1;
    page = (void *)((uintptr_t)page & ~(uintptr_t)4095);
    assert_int_equal(syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0), 0);
    return status;
}

static int setup(void **state) {
    allowed = allowed_nodes();
    eg_setup_bus(state);
    OK(eagre_open(((struct eg_test_bus *)*state)->socket, &e));
    return 0;
}

static int teardown(void **state) {
    eagre_close(e);
    return eg_teardown_bus(state);
}

static void create(const char *name, const char *numa) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "4M"}, {"numa", numa}};
    OK(eagre_topic_create(e, name, settings, 3));
}

/* Produce some MiB and count on which nodes the pages lie. */
static void count_nodes(const char *topic, unsigned count[NODES]) {
    eagre_producer_t *p;
    eagre_claim_t claim;
    memset(count, 0, NODES * sizeof(*count));
    OK(eagre_producer_open(e, topic, NULL, &p));
    for (int i = 0; i < PAGES; i++) {
        OK(eagre_producer_claim(p, 0, SIZE_MAX, 8000, &claim));
        memset(claim.value, 1, 8000);
        int node = node_of((uint8_t *)claim.value + 4000);
        assert_in_range(node, 0, NODES - 1);
        count[node]++;
        OK(eagre_producer_commit(p, &claim));
    }
    eagre_producer_close(p);
}

static void expect_all_on(const char *topic, unsigned node) {
    unsigned count[NODES];
    count_nodes(topic, count);
    for (unsigned n = 0; n < NODES; n++)
        if (count[n] != (n == node ? PAGES : 0))
            fail_msg("topic '%s': %u of %d pages lie on node %u, expected node %u", topic, count[n],
                     PAGES, n, node);
}

static void auto_is_the_node_of_the_first_producer(void **state) {
    (void)state;
    for (unsigned n = 0; n < NODES; n++) {
        char name[16];
        if (!(allowed >> n & 1) || !run_on(n))
            continue;
        snprintf(name, sizeof(name), "auto%u", n);
        create(name, "auto");
        expect_all_on(name, n);
    }
}

static void it_stays_there_whoever_comes_later(void **state) {
    struct eg_test_bus *b = *state;
    unsigned first = (unsigned)(63 - __builtin_clzll(allowed)),
             other = (unsigned)__builtin_ctzll(allowed);
    if (!run_on(first))
        skip();
    create("t", "auto");
    expect_all_on("t", first);
    if (run_on(other))
        expect_all_on("t", first);
    eg_bus_kill(b);
    eg_bus_start(b, NULL);
    expect_all_on("t", first);
}

static void a_node_can_be_chosen(void **state) {
    (void)state;
    for (unsigned n = 0; n < NODES; n++) {
        char name[16], numa[16];
        if (!(allowed >> n & 1))
            continue;
        snprintf(name, sizeof(name), "node%u", n);
        snprintf(numa, sizeof(numa), "node:%u", n);
        create(name, numa);
        expect_all_on(name, n);
    }
}

static void a_node_that_is_not_there_is_refused(void **state) {
    const eagre_setting_t numa = {"numa", "node:63"};
    (void)state;
    assert_int_equal(eagre_topic_create(e, "t", &numa, 1), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(eagre_error_detail(), "numa=node:63"));
}

static void interleaved_pages_lie_on_all_nodes(void **state) {
    unsigned count[NODES], nodes = (unsigned)__builtin_popcountll(allowed);
    (void)state;
    create("t", "interleave");
    count_nodes("t", count);
    for (unsigned n = 0; n < NODES; n++)
        if (allowed >> n & 1 && count[n] < PAGES / nodes / 2)
            fail_msg("only %u of %d pages lie on node %u of %u", count[n], PAGES, n, nodes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(auto_is_the_node_of_the_first_producer),
        T(it_stays_there_whoever_comes_later),
        T(a_node_can_be_chosen),
        T(a_node_that_is_not_there_is_refused),
        T(interleaved_pages_lie_on_all_nodes),
    };
    if (__builtin_popcountll(allowed_nodes()) < 2 && getenv("EG_TEST_NUMA_ANYWAY") == NULL)
        return 77; /* one node: nothing to see */
    return cmocka_run_group_tests_name("system/numa", tests, NULL, NULL);
}
