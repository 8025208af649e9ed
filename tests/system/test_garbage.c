/*
 * A producer of another user writes nonsense all over whatever it may write - ring, buffers, waiters, bells, its own
 * page - while the daemon and others work there, and dies of it in some rounds, so that repair walks over it. The topic
 * is lost then, and says so; nothing else is. Rounds come from seeds: EG_TEST_SEED=n runs one, EG_TEST_ROUNDS=n many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "harness_user.h"
#include "layout/layout.h"
#include "sys/atomic.h"
#include "sys/rand.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("seed %" PRIu64 ": %s: %s", seed, #call, eagre_error_detail());               \
    } while (0)
#define ROUNDS 16
#define STROKES 30000
#define CLAIMED 100 /* bytes of a record that is never committed */

static struct eg_test_bus *b;
static uint64_t seed;
static eagre_t *e;
static eagre_producer_t *good_producer;
static eagre_consumer_t *good_consumer;
static int64_t good_count;

static const eagre_setting_t bad_settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"},
                                               {"ring.segments", "4"},
                                               {"partitions", "2"},
                                               {"access.produce", "user:65534"}};

static int setup(void **state) {
    eg_setup_bus_stopped(state);
    b = *state;
    eg_bus_open_to_all(b);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_create(e, "good", (const eagre_setting_t[]){{"segment.bytes", "64K"}}, 1));
    OK(eagre_producer_open(e, "good", NULL, &good_producer));
    OK(eagre_consumer_open(e, NULL, &good_consumer));
    OK(eagre_consumer_assign(good_consumer, "good", 0));
    good_count = 0;
    return 0;
}

static int teardown(void **state) {
    eagre_consumer_close(good_consumer);
    eagre_producer_close(good_producer);
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

/* ---- the one who writes nonsense ------------------------------------------------------------------------ */

struct object {
    char kind; /* r ring, b buffer, w waiters, l bells, c page */
    uint8_t *base;
    size_t size;
};

static uint64_t random_state;
static uint64_t pick(uint64_t n) { return eg_rand_next(&random_state) % n; }

/* A number that is likely to hurt. */
static uint64_t bad_number(void) {
    static const uint64_t numbers[] = {0,          1,          7,       8,          32,        63,      64,
                                       4095,       4096,       65472,   65528,      65536,     1u << 26, INT32_MAX,
                                       UINT32_MAX, 1ull << 40, INT64_MAX, 1ull << 62, 1ull << 63, UINT64_MAX};
    return pick(4) == 0 ? eg_rand_next(&random_state) >> pick(64)
                        : numbers[pick(sizeof(numbers) / sizeof(numbers[0]))];
}

static uint64_t bad_frame_word(void) {
    uint64_t length = pick(3) == 0 ? bad_number() & 0x1fffffff : 64 * (1 + pick(40));
    return eg_word_make((enum eg_frame_state)pick(4), (enum eg_frame_kind)pick(4), pick(2), length,
                        pick(3) == 0 ? EG_COUNT_MAX : (uint32_t)pick(4),
                        (uint32_t)(pick(2) == 0 ? pick(6) : pick(1u << 14)));
}

static void put(const struct object *o, size_t at, uint64_t value) {
    if (at + 8 <= o->size)
        eg_store_relaxed((_Atomic uint64_t *)(void *)(o->base + (at & ~(size_t)7)), value);
}

static void stroke(const struct object *o) {
    uint64_t seq = pick(3) == 0 ? bad_number() & EG_SEQ_MAX : pick(12);
    switch (o->kind) {
    case 'r': {
        size_t slots = sizeof(struct eg_ring), active = offsetof(struct eg_ring, active);
        uint64_t word = eg_slot_make(seq, (uint32_t)pick(140), (enum eg_slot_state)pick(6));
        switch (pick(4)) {
        case 0:
            put(o, active, seq);
            break;
        case 1:
            put(o, slots + pick(4) * sizeof(struct eg_slot), word);
            break;
        case 2:
            put(o, pick(o->size), bad_number());
            break;
        default:
            put(o, pick(sizeof(struct eg_ring)), bad_number());
        }
        break;
    }
    case 'b':
        switch (pick(4)) {
        case 0:
            put(o, pick(sizeof(struct eg_segment_header)), bad_number());
            break;
        case 1:
            put(o, offsetof(struct eg_segment_header, hint), eg_hint_make(pick(70000), pick(2000)));
            break;
        case 2:
            put(o, EG_SEGMENT_DATA + 64 * pick(900), bad_frame_word());
            break;
        default:
            put(o, EG_SEGMENT_DATA + 64 * pick(900) + 8 * pick(8), bad_number());
        }
        break;
    case 'c':
        put(o, EG_PAGE + pick(EG_CLIENT_PINS) * sizeof(struct eg_pin_cell),
            pick(2) == 0 ? bad_number() : eg_pin_make(pick(2), (uint32_t)pick(6), seq));
        break;
    default:
        put(o, pick(o->size), bad_number());
    }
}

static size_t find_objects(struct object *list, size_t cap) {
    static const struct {
        const char *name;
        char kind;
    } kinds[] = {{".ring", 'r'}, {"eagre:p", 'b'}, {".waiters", 'w'}, {"eagre-bells", 'l'}, {"eagre:c", 'c'}};
    char line[512], mode[5];
    size_t n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof(line), f) != NULL && n < cap) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, mode) != 3 || mode[1] != 'w')
            continue;
        for (size_t k = 0; strstr(line, "/memfd:") != NULL && k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            if (strstr(line, kinds[k].name) == NULL)
                continue;
            list[n++] = (struct object){kinds[k].kind, (uint8_t *)from, to - from};
            break;
        }
    }
    fclose(f);
    return n;
}

static int write_nonsense(void *ctx) {
    const struct eg_test_bus *at = ctx;
    static struct object objects[64];
    eagre_t *own;
    eagre_producer_t *p;
    eagre_claim_t claim;
    random_state = seed;
    OK(eagre_open(at->socket, &own));
    OK(eagre_producer_open(own, "bad", NULL, &p));
    for (int i = 0; i < 40; i++) {
        eagre_message_t m = {.value = "some value", .value_len = 10, .partition = i % 2};
        OK(eagre_produce(p, &m, NULL, NULL));
    }
    if (seed % 2 == 0) /* leaves work for who repairs */
        OK(eagre_producer_claim(p, 1, 0, CLAIMED, &claim));
    size_t n = find_objects(objects, 64);
    assert_true(n >= 9); /* page, bells, waiters, two rings, eight buffers */
    /* Some rounds strike here and there, some one kind of object only. */
    static const char kinds[] = "rbwlc";
    char only = pick(2) == 0 ? kinds[pick(5)] : '\0';
    assert_int_equal(write(4, "x", 1), 1);
    for (int i = 0; i < STROKES; i++) {
        const struct object *o = &objects[pick(n)];
        if (only == '\0' || o->kind == only)
            stroke(o);
        if (pick(64) == 0)
            poll(NULL, 0, 0); /* so that others come to see it */
    }
    assert_int_equal(write(4, "y", 1), 1);
    pause();
    return 0;
}

/* ---- the others ------------------------------------------------------------------------------------------ */

static void good_round_trip(void) {
    char text[32];
    eagre_record_t r;
    size_t n;
    int64_t offset;
    snprintf(text, sizeof(text), "good %" PRId64, good_count);
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = 0};
    OK(eagre_produce(good_producer, &m, NULL, &offset));
    assert_int_equal(offset, good_count);
    OK(eagre_consumer_poll(good_consumer, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
    assert_int_equal(r.offset, good_count);
    assert_int_equal(r.value_len, strlen(text));
    assert_memory_equal(r.value, text, r.value_len);
    good_count++;
}

static eagre_consumer_t *bad_consumer;
static uint64_t bytes_seen; /* so that they are read */

static void read_bad(void) {
    eagre_record_t r[16];
    size_t n = 0;
    if (bad_consumer == NULL) {
        if (eagre_consumer_open(e, NULL, &bad_consumer) != EAGRE_OK)
            return;
        if (eagre_consumer_assign(bad_consumer, "bad", EAGRE_PARTITION_ALL) == EAGRE_OK) {
            eagre_consumer_seek(bad_consumer, "bad", 0, EAGRE_OFFSET_BEGINNING);
            eagre_consumer_seek(bad_consumer, "bad", 1, EAGRE_OFFSET_BEGINNING);
        }
    }
    int rc = eagre_consumer_poll(bad_consumer, r, 16, 0, &n);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; r[i].value != NULL && k < r[i].value_len; k++)
            bytes_seen += ((const uint8_t *)r[i].value)[k];
        for (uint32_t k = 0; r[i].key != NULL && k < r[i].key_len; k++)
            bytes_seen += ((const uint8_t *)r[i].key)[k];
    }
    if (rc != EAGRE_OK) {
        eagre_consumer_close(bad_consumer);
        bad_consumer = NULL;
    }
}

/* Whatever comes of it: an answer, in time. */
static int write_bad(int32_t partition) {
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *p;
    eagre_message_t m = {.value = "v", .value_len = 1, .partition = partition};
    options.max_block_ms = 50;
    int rc = eagre_producer_open(e, "bad", &options, &p);
    for (int i = 0; rc == EAGRE_OK && i < 10; i++)
        rc = eagre_produce(p, &m, NULL, NULL);
    eagre_producer_close(p);
    return rc;
}

static size_t destroyed_partitions(void) {
    eagre_topic_info_t *info;
    size_t n = 0;
    OK(eagre_topic_describe(e, "bad", &info));
    for (size_t i = 0; i < info->partition_count; i++)
        n += info->partitions[i].state == EG_PARTITION_ERROR;
    eagre_topic_info_free(info);
    return n;
}

static long long clients_before;
static bool it_is_buried(void *ctx) {
    (void)ctx;
    good_round_trip();
    return figure("clients") == clients_before;
}

/* Returns how many partitions said afterwards that they are destroyed. */
static size_t one_round(void) {
    int from[2];
    char byte = 0;
    OK(eagre_topic_create(e, "bad", bad_settings, 5));
    clients_before = figure("clients");
    long long pid = figure("pid");
    assert_int_equal(pipe(from), 0);
    pid_t child = eg_start_as_user(EG_USER_A, write_nonsense, b, -1, from[1]);
    close(from[1]);
    if (read(from[0], &byte, 1) != 1)
        fail_msg("seed %" PRIu64 ": the child ended with %d", seed, eg_wait_exit(child));
    for (uint64_t i = 0; i < 400 && byte != 'y'; i++) {
        struct pollfd p = {.fd = from[0], .events = POLLIN};
        good_round_trip();
        read_bad();
        if (i % 32 == 5)
            destroyed_partitions();
        if (i % 64 == 7)
            write_bad((int32_t)(i / 64 % 2));
        if (seed % 3 == 0 && i == seed % 50)
            break; /* it dies in the middle of it */
        if (poll(&p, 1, 0) == 1 && read(from[0], &byte, 1) != 1)
            fail_msg("seed %" PRIu64 ": the child ended with %d", seed, eg_wait_exit(child));
    }
    kill(child, SIGKILL);
    assert_int_equal(eg_wait_exit(child), 128 + SIGKILL);
    close(from[0]);
    eg_wait_until(it_is_buried, NULL, "a producer of nonsense is buried");
    write_bad(0);
    write_bad(1);
    for (int i = 0; i < 20; i++)
        read_bad();
    size_t destroyed = destroyed_partitions();
    eagre_consumer_close(bad_consumer);
    bad_consumer = NULL;
    OK(eagre_topic_delete(e, "bad"));
    assert_int_equal(figure("pid"), pid);
    return destroyed;
}

/* Made again, it is as good as any. */
static void it_works(void) {
    OK(eagre_topic_create(e, "bad", bad_settings, 5));
    for (int32_t k = 0; k < 2; k++)
        assert_int_equal(write_bad(k), EAGRE_OK);
    assert_int_equal(destroyed_partitions(), 0);
    OK(eagre_topic_delete(e, "bad"));
}

static uint64_t number_from(const char *variable, uint64_t standard) {
    const char *text = getenv(variable);
    return text != NULL ? strtoull(text, NULL, 10) : standard;
}

static void nonsense_everywhere(void **state) {
    size_t destroyed = 0;
    (void)state;
    uint64_t first = number_from("EG_TEST_SEED", 1);
    uint64_t rounds = number_from("EG_TEST_ROUNDS", getenv("EG_TEST_SEED") != NULL ? 1 : ROUNDS);
    for (seed = first; seed < first + rounds; seed++) {
        destroyed += one_round();
        good_round_trip();
    }
    it_works();
    if (rounds >= ROUNDS)
        assert_true(destroyed > 0); /* else nobody has looked at it */
    assert_int_equal(figure("memory.pinned"), 0);
    /* What a successor finds is nonsense, too. */
    OK(eagre_topic_create(e, "bad", bad_settings, 5));
    pid_t child;
    int from[2];
    char byte;
    seed = first;
    assert_int_equal(pipe(from), 0);
    child = eg_start_as_user(EG_USER_A, write_nonsense, b, -1, from[1]);
    close(from[1]);
    assert_int_equal(read(from[0], &byte, 1), 1);
    eg_bus_kill(b);
    kill(child, SIGKILL);
    eg_wait_exit(child);
    close(from[0]);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    good_round_trip();
    write_bad(0);
    write_bad(1);
    OK(eagre_topic_delete(e, "bad"));
    it_works();
    assert_int_equal(eg_bus_stop(b), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(nonsense_everywhere)};
    if (geteuid() != 0) {
        puts("skipped: only root can act as other users");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
