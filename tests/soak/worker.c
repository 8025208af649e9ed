#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/group.h"
#include "eagre/producer.h"
#include "sys/rand.h"

#define KILL_US 6000 /* a cycle that is left alone takes about a third of this */

static uint64_t state; /* of the random numbers */
static eagre_t *e;
static const char *address;
static char own_topic[32];

static uint32_t draw(uint32_t n) { return (uint32_t)(eg_rand_next(&state) % n); }

static void must(int rc, const char *what) {
    if (rc == EAGRE_OK)
        return;
    fprintf(stderr, "soak: pid %d: %s: %s\n", (int)getpid(), what, eagre_error_detail());
    _exit(SOAK_FAILED);
}

/* The kernel ends us in the middle of whatever we are doing then. */
static void die_in(uint32_t us) {
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec when = {.it_value = {.tv_nsec = 1 + (long)us * 1000}};
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &how, &timer) != 0 ||
        timer_settime(timer, 0, &when, NULL) != 0)
        _exit(SOAK_FAILED);
}

/* ---- what clients do ------------------------------------------------------------------------------- */

static int put(eagre_producer_t *p) {
    char value[3000];
    size_t n = 1 + draw(draw(4) == 0 ? sizeof(value) : 100);
    memset(value, (int)(n % 251), n);
    eagre_message_t m = {.value = value, .value_len = n, .partition = EAGRE_PARTITION_ANY};
    return eagre_produce(p, &m, NULL, NULL);
}

static eagre_producer_t *producer(const char *topic) {
    eagre_producer_t *p;
    must(eagre_producer_open(e, topic, NULL, &p), "producer");
    return p;
}

static void produce(void) {
    eagre_producer_t *p = producer(SOAK_TOPIC);
    for (uint32_t n = 1 + draw(30); n > 0; n--)
        must(put(p), "produce");
    eagre_producer_close(p);
}

static void produce_alone(void) {
    eagre_producer_t *p;
    int rc = eagre_producer_open(e, SOAK_SINGLE, NULL, &p);
    if (rc == EAGRE_E_BUSY)
        return; /* another has it, perhaps one that died just now */
    must(rc, "single producer");
    for (uint32_t n = 1 + draw(30); n > 0; n--)
        must(put(p), "produce alone");
    eagre_producer_close(p);
}

static void produce_batches(void) {
    eagre_producer_t *p = producer(SOAK_TOPIC);
    eagre_message_t m[20];
    for (size_t i = 0; i < 20; i++)
        m[i] = (eagre_message_t){.value = "of a batch", .value_len = 10};
    for (uint32_t n = 1 + draw(5); n > 0; n--)
        must(eagre_produce_batch(p, EAGRE_PARTITION_ANY, m, 1 + draw(20), NULL), "batch");
    eagre_producer_close(p);
}

/* Several places taken; the handles are closed (which gives a place up) or not. */
static void hold_claims(void) {
    eagre_producer_t *p[3];
    eagre_claim_t claim;
    uint32_t n = 1 + draw(3);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = producer(SOAK_TOPIC);
        must(eagre_producer_claim(p[i], EAGRE_PARTITION_ANY, SIZE_MAX, 1 + draw(500), &claim),
             "claim");
    }
    if (draw(2) == 0)
        must(eagre_producer_commit(p[n - 1], &claim), "commit");
    if (draw(2) == 0)
        raise(SIGKILL);
    for (uint32_t i = 0; i < n; i++)
        eagre_producer_close(p[i]);
}

static eagre_consumer_t *consumer(void) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *c;
    o.auto_offset_reset = draw(2) == 0 ? EAGRE_RESET_EARLIEST : EAGRE_RESET_LATEST;
    must(eagre_consumer_open(e, &o, &c), "consumer");
    must(eagre_consumer_assign(c, SOAK_TOPIC, EAGRE_PARTITION_ALL), "assign");
    return c;
}

static void consume(void) {
    eagre_consumer_t *c = consumer();
    eagre_record_t r[16];
    size_t n;
    for (uint32_t i = 1 + draw(10); i > 0; i--)
        must(eagre_consumer_poll(c, r, 1 + draw(16), (int32_t)draw(2), &n), "poll");
    if (draw(3) == 0)
        raise(SIGKILL); /* with what it pins */
    eagre_consumer_close(c);
}

/* Asleep when it dies, with its bits set; or its thread is, with a descriptor for epoll. */
static void sleep_on(void) {
    eagre_consumer_t *c = consumer();
    eagre_record_t r;
    size_t n;
    int fd;
    if (draw(2) == 0)
        must(eagre_consumer_fd(c, &fd), "consumer's descriptor");
    die_in(1 + draw(KILL_US));
    for (;;)
        must(eagre_consumer_poll(c, &r, 1, 1000, &n), "poll");
}

/* Of a group for a moment, with others of this soak; a static one's partitions wait for it, but not for long. */
static void be_a_member(void) {
    static const char *const groups[] = {"soak-0", "soak-1"};
    static const char *const strategies[] = {"range", "cooperative-sticky"};
    const char *const topics[] = {SOAK_TOPIC};
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *c;
    eagre_record_t r[16];
    uint32_t group = draw(2);
    size_t n;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.group_id = groups[group];
    o.group_instance_id = draw(4) == 0 ? own_topic : NULL;
    o.session_timeout_ms = 20;
    o.partition_assignment_strategy = strategies[group];
    o.enable_auto_commit = draw(2) == 0;
    must(eagre_consumer_open(e, &o, &c), "member");
    must(eagre_consumer_subscribe(c, topics, 1), "subscribe");
    for (uint32_t i = draw(6); i > 0; i--) {
        int rc = eagre_consumer_poll(c, r, 1 + draw(16), (int32_t)draw(2), &n);
        if (rc == EAGRE_E_FENCED)
            break; /* the next one of this slot is there already: it does not look whether we are gone */
        must(rc, "poll as a member");
        if (draw(4) == 0)
            must(eagre_consumer_commit_async(c, NULL, 0), "commit as a member");
    }
    if (draw(4) == 0)
        raise(SIGKILL);
    eagre_consumer_close(c);
}

static void create_and_delete(void) {
    const eagre_setting_t settings[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", "2"}};
    const eagre_setting_t more[] = {{"partitions", "3"}};
    int rc = eagre_topic_create(e, own_topic, settings, 3);
    if (rc != EAGRE_E_TOPIC_EXISTS) /* of one that died */
        must(rc, "create");
    if (draw(2) == 0) {
        eagre_producer_t *p = producer(own_topic);
        must(put(p), "produce to one's own");
        if (draw(2) == 0)
            must(eagre_topic_alter(e, own_topic, more, 1), "alter");
        if (draw(2) == 0)
            eagre_producer_close(p);
    }
    must(eagre_topic_delete(e, own_topic), "delete");
}

static void do_nothing(void) {}

/* No client at all: connects, says nothing or nonsense. */
static void knock(void) {
    static const char nonsense[64] = "nonsense";
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", address);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        _exit(SOAK_FAILED);
    if (draw(2) == 0)
        (void)!send(fd, nonsense, 1 + draw(sizeof(nonsense)), MSG_NOSIGNAL);
}

/* ---- one life ---------------------------------------------------------------------------------------- */

void soak_worker(const char *socket_path, unsigned slot, uint64_t seed) {
    static void (*const jobs[])(void) = {produce,    produce, produce_batches,   hold_claims,
                                         consume,    consume, sleep_on,          produce_alone,
                                         do_nothing, knock,   create_and_delete, be_a_member,
                                         be_a_member};
    const size_t count = sizeof(jobs) / sizeof(jobs[0]);
    state = seed;
    address = socket_path;
    snprintf(own_topic, sizeof(own_topic), "x-%u", slot);
    alarm(60); /* whatever goes wrong, nobody stays */
    if (draw(10) < 6)
        die_in(draw(KILL_US));
    must(eagre_open(socket_path, &e), "open");
    for (uint32_t n = 1 + draw(2); n > 0; n--)
        jobs[draw(count)]();
    switch (draw(3)) {
    case 0:
        raise(SIGKILL);
        break;
    case 1:
        _exit(0);
    default:;
        int rc = eagre_close(e);
        _exit(rc == EAGRE_OK || rc == EAGRE_E_STATE ? 0 : SOAK_FAILED);
    }
    abort();
}
