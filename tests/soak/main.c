/*
 * eg-soak - clients come, do something and go, by the ten thousand; afterwards the instance has in
 * use what it had before.
 *
 * eg-soak [--cycles N] [--seed S] [--jobs N] [--print]
 * eg-soak --members N [--processes N] [--cycles N]: so many members of one group at a time (crowd.c).
 * Each cycle is a process of its own (worker.c). Most are killed at a random moment; when that is
 * depends on the machine, what they would do on the seed alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "crowd.h"
#include "state.h"
#include "sys/clock.h"
#include "worker.h"

#define JOBS_MAX 64

static unsigned long cycles = 1000;
static unsigned jobs = 6;
static uint64_t seed = 1;
static bool print;
static unsigned members; /* 0: no crowd */
static unsigned processes = 8;
static struct { unsigned long killed, ended; } outcome;

static void start_one(const struct eg_test_bus *b, pid_t *slot, unsigned number, uint64_t cycle) {
    *slot = fork();
    if (*slot == 0)
        soak_worker(b->socket, number, seed * 0x9e3779b97f4a7c15ull + cycle);
    if (*slot < 0)
        fail_msg("fork: %s", strerror(errno));
}

static void wait_for_one(const struct eg_test_bus *b, pid_t *slots) {
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid == b->pid)
        fail_msg("eagred has ended, wait status 0x%x", (unsigned)status);
    for (unsigned i = 0; i < jobs; i++) {
        if (slots[i] != pid)
            continue;
        slots[i] = 0;
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
            outcome.killed++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            outcome.ended++;
        else
            fail_msg("a client ended with wait status 0x%x", (unsigned)status);
    }
}

static void run(const struct eg_test_bus *b, uint64_t from, uint64_t to) {
    pid_t slots[JOBS_MAX] = {0};
    unsigned running = 0;
    while (from < to || running > 0) {
        for (unsigned i = 0; i < jobs && from < to; i++)
            if (slots[i] == 0)
                start_one(b, &slots[i], i, from++);
        wait_for_one(b, slots);
        running = 0;
        for (unsigned i = 0; i < jobs; i++)
            running += slots[i] != 0;
    }
}

static void make_topics(const struct eg_test_bus *b) {
    const eagre_setting_t settings[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", "2"}, {"writers", "single"}};
    eagre_t *e;
    if (eagre_open(b->socket, &e) != EAGRE_OK ||
        eagre_topic_create(e, SOAK_TOPIC, settings, 3) != EAGRE_OK ||
        eagre_topic_create(e, SOAK_SINGLE, settings, 4) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    eagre_close(e);
}

/* Both topics still do what they should. */
static void use_topic(eagre_t *e, const char *topic) {
    eagre_message_t m = {.value = "at the end", .value_len = 10, .partition = 1};
    eagre_producer_t *p;
    eagre_consumer_t *c;
    eagre_record_t r;
    size_t n = 0;
    if (eagre_producer_open(e, topic, NULL, &p) != EAGRE_OK ||
        eagre_consumer_open(e, NULL, &c) != EAGRE_OK ||
        eagre_consumer_assign(c, topic, 1) != EAGRE_OK ||
        eagre_produce(p, &m, NULL, NULL) != EAGRE_OK ||
        eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    assert_int_equal(n, 1);
    assert_int_equal(r.value_len, 10);
    assert_memory_equal(r.value, "at the end", 10);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void everything_is_as_it_was(void **state) {
    struct eg_test_bus *b = *state;
    static struct soak_state before, after;
    uint64_t warm = cycles / 20 < 200 ? 200 : cycles / 20;
    eagre_t *e;
    make_topics(b);
    soak_state_stretch(b);
    run(b, 0, warm);
    soak_state_take(b, &before);
    outcome.killed = outcome.ended = 0;
    int64_t start = eg_mono_ns();
    run(b, warm, warm + cycles);
    double seconds = (double)(eg_mono_ns() - start) / 1e9;
    print_message(
        "%lu cycles in %.1f s, %.0f a second; %lu clients killed, %lu ended by themselves\n",
        cycles, seconds, (double)cycles / seconds, outcome.killed, outcome.ended);
    soak_state_wait(b, &before, &after);
    if (print) {
        soak_state_print(&before);
        soak_state_print(&after);
    }
    if (eagre_open(b->socket, &e) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    use_topic(e, SOAK_TOPIC);
    use_topic(e, SOAK_SINGLE);
    eagre_close(e);
    assert_int_equal(eg_bus_stop(b), 0);
}

static void a_crowd_leaves_nothing(void **state) {
    struct eg_test_bus *b = *state;
    soak_crowd(b, members, processes, (unsigned)cycles);
    assert_int_equal(eg_bus_stop(b), 0);
}

static int set_up(void **state) {
    eg_setup_bus_stopped(state);
    eg_bus_start(*state, "--log.level=warning", "--connections.max.per.uid=4096",
                 "--bells.max.per.uid=4096", NULL);
    return 0;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"cycles", required_argument, NULL, 'c'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"print", no_argument, NULL, 'p'},
                                            {"members", required_argument, NULL, 'm'},
                                            {"processes", required_argument, NULL, 'P'},
                                            {NULL, 0, NULL, 0}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_is_as_it_was, set_up, eg_teardown_bus)};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'c':
            cycles = strtoul(optarg, NULL, 0);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'j':
            jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'p':
            print = true;
            break;
        case 'm':
            members = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'P':
            processes = (unsigned)strtoul(optarg, NULL, 0);
            break;
        default:
            return 2;
        }
    }
    if (cycles == 0 || jobs == 0 || jobs > JOBS_MAX) {
        fprintf(stderr, "usage: eg-soak [--cycles N] [--seed S] [--jobs 1..%d] [--print]\n",
                JOBS_MAX);
        return 2;
    }
    const struct CMUnitTest crowd[] = {
        cmocka_unit_test_setup_teardown(a_crowd_leaves_nothing, set_up, eg_teardown_bus)};
    if (members > 0)
        return cmocka_run_group_tests_name("soak/crowd", crowd, NULL, NULL);
    return cmocka_run_group_tests_name("soak", tests, NULL, NULL);
}
