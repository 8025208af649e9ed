#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/producer.h"
#include "powercut/powercut.h"
#include "sys/rand.h"

#define OPS 150

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

size_t work_value(uint64_t number, uint32_t partition, uint8_t *value) {
    uint64_t random = number * PARTITIONS + partition, r = eg_rand_next(&random);
    size_t length = 16 + (r % 16 == 0 ? r / 16 % (VALUE_MAX - 16) : r / 16 % 500);
    memcpy(value, &number, 8);
    memcpy(value + 8, &partition, 4);
    memcpy(value + 12, "work", 4);
    for (size_t i = 16; i < length; i += 8) {
        uint64_t more = eg_rand_next(&random);
        memcpy(value + i, &more, length - i < 8 ? length - i : 8);
    }
    return length;
}

static uint64_t random_;
static struct record_log *log_;
static uint64_t next_number[PARTITIONS];
static eagre_t *e;
static eagre_producer_t *memory, *disk;

static uint64_t dice(uint64_t sides) { return eg_rand_next(&random_) % sides; }

static void told(enum record_op op, uint32_t partition, uint64_t number, int64_t offset) {
    record_add(log_, op, 0, partition, number, (uint64_t)offset, NULL, 0);
}

static void put(eagre_producer_t *by, uint32_t k) {
    static uint8_t value[VALUE_MAX];
    uint64_t number = next_number[k]++;
    int64_t offset;
    eagre_message_t m = {
        .value = value, .value_len = work_value(number, k, value), .partition = (int32_t)k};
    told(RECORD_TRY, k, number, 0);
    if (eagre_produce(by, &m, NULL, &offset) != EAGRE_OK)
        return;
    told(RECORD_SENT, k, number, offset);
    if (by == disk)
        told(RECORD_DURABLE, k, 0, offset + 1);
}

static void put_batch(eagre_producer_t *by, uint32_t k) {
    enum { MOST = 8 };
    static uint8_t value[MOST][VALUE_MAX];
    eagre_message_t m[MOST];
    size_t count = 1 + dice(MOST), bytes = 0;
    int64_t first;
    uint64_t number = next_number[k];
    for (size_t i = 0; i < count; i++) {
        m[i] =
            (eagre_message_t){.value = value[i], .value_len = work_value(number + i, k, value[i])};
        bytes += m[i].value_len + 64;
        if (bytes > 7000)
            count = i > 0 ? i : 1;
    }
    for (size_t i = 0; i < count; i++)
        told(RECORD_TRY, k, number + i, 0);
    next_number[k] += count;
    if (eagre_produce_batch(by, (int32_t)k, m, count, &first) != EAGRE_OK)
        return;
    for (size_t i = 0; i < count; i++)
        told(RECORD_SENT, k, number + i, first + (int64_t)i);
    if (by == disk)
        told(RECORD_DURABLE, k, 0, first + (int64_t)count);
}

/* A pad, or a frame that is longer than its record. */
static void claim(uint32_t k) {
    eagre_claim_t c;
    uint8_t value[VALUE_MAX];
    size_t length = work_value(next_number[k], k, value);
    if (eagre_producer_claim(memory, (int32_t)k, SIZE_MAX, length + dice(1000), &c) != EAGRE_OK)
        return;
    if (dice(2) == 0) {
        eagre_producer_abort(memory, &c);
        return;
    }
    told(RECORD_TRY, k, next_number[k]++, 0);
    memcpy(c.value, value, length);
    c.value_len = length;
    if (eagre_producer_commit(memory, &c) == EAGRE_OK)
        told(RECORD_SENT, k, next_number[k] - 1, c.offset);
}

static void note_durable(void) {
    for (uint32_t k = 0; k < PARTITIONS; k++) {
        int64_t offset;
        if (eagre_producer_durable_offset(memory, (int32_t)k, &offset) == EAGRE_OK)
            told(RECORD_DURABLE, k, 0, offset);
    }
}

static void note_starts(void) {
    eagre_topic_info_t *info;
    OK(eagre_topic_describe(e, "t", &info));
    for (uint32_t k = 0; k < PARTITIONS; k++)
        told(RECORD_STARTS, k, 0, info->partitions[k].log_start_offset);
    eagre_topic_info_free(info);
}

static void trim(uint32_t k) {
    int64_t offset, start;
    OK(eagre_producer_durable_offset(memory, (int32_t)k, &offset));
    /* Offsets skip far ahead when memory was lost: near the end, or far below. */
    int64_t before = offset - (int64_t)dice(dice(2) == 0 ? 20 : 2000);
    if (before >= 0 && eagre_topic_trim(e, "t", (int32_t)k, before, &start) == EAGRE_OK)
        told(RECORD_TRIMMED, k, 0, start);
    note_starts();
}

static bool there; /* the other topic */

static void other_topic(void) {
    eagre_setting_t small[] = {{"segment.bytes", "64K"}, {"storage", "disk"}};
    if (!there && eagre_topic_create(e, "x", small, 2) == EAGRE_OK) {
        eagre_producer_t *by;
        eagre_message_t m = {.value = "x", .value_len = 1};
        eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
        o.acks = EAGRE_ACKS_DISK;
        OK(eagre_producer_open(e, "x", &o, &by));
        OK(eagre_produce(by, &m, NULL, NULL));
        eagre_producer_close(by);
    } else if (there) {
        OK(eagre_topic_delete(e, "x"));
    }
    there = !there;
}

static void one(void) {
    uint32_t k = (uint32_t)dice(PARTITIONS);
    switch (dice(32)) {
    default:
        for (uint64_t n = 1 + dice(12); n > 0; n--)
            put(memory, k);
        break;
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 15:
        put(disk, k);
        break;
    case 16:
    case 17:
    case 18:
        put_batch(dice(3) == 0 ? disk : memory, k);
        break;
    case 19:
    case 20:
    case 21:
        claim(k);
        break;
    case 22:
        trim(k);
        break;
    case 23:
        other_topic();
        break;
    case 24:
        OK(eagre_producer_flush(memory, EG_TEST_LIMIT_MS));
        note_durable();
        break;
    case 25:
        poll(NULL, 0, (int)dice(12)); /* a pause: flush.ms passes, or does not */
        note_durable();
        break;
    case 26:
        note_starts();
        break;
    case 27:
    case 28:
        note_durable();
        break;
    }
}

static void make_topic(const char *segment, const char *flush_ms, const char *flush_bytes, const char *keep) {
    eagre_setting_t s[] = {{"storage", "disk"},     {"segment.bytes", segment}, {"partitions", "2"},
                           {"ring.segments", "4"},  {"flush.ms", flush_ms},     {"flush.bytes", flush_bytes},
                           {"retention.bytes", keep}};
    OK(eagre_topic_create(e, "t", s, sizeof(s) / sizeof(s[0])));
}

static void open_all(const struct eg_test_bus *b, bool fresh, bool large) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    static const char *const flush[] = {"8K", "64K", "1M"};
    OK(eagre_open(b->socket, &e));
    if (fresh && large)
        make_topic("16M", "60000", "1G", "-1");
    else if (fresh)
        make_topic("64K", dice(2) ? "3" : "30", flush[dice(3)], dice(2) ? "256K" : "-1");
    OK(eagre_producer_open(e, "t", &o, &memory));
    o.acks = EAGRE_ACKS_DISK;
    OK(eagre_producer_open(e, "t", &o, &disk));
}

static void close_all(void) {
    eagre_producer_close(memory);
    eagre_producer_close(disk);
    eagre_close(e);
}

static char preload[512], log_variable[512], dir_variable[512];

static void prepare(struct eg_test_bus *b, uint64_t seed, struct record_log *log, const char *log_path,
                    const char *recorder) {
    struct stat st;
    random_ = seed;
    log_ = log;
    there = false;
    memset(next_number, 0, sizeof(next_number));
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", recorder);
    snprintf(log_variable, sizeof(log_variable), "%s=%s", RECORD_LOG_ENV, log_path);
    snprintf(dir_variable, sizeof(dir_variable), "%s=%s", RECORD_DIR_ENV, b->data);
    mkdir(b->data, 0700);
    if (stat(b->data, &st) != 0)
        fail_msg("%s cannot be made", b->data);
    record_add(log, RECORD_MKDIR, 0, st.st_ino, 0, 0, "", 1);
}

static void start(struct eg_test_bus *b) {
    const char *const environment[] = {preload, log_variable, dir_variable, NULL};
    const char *const arguments[] = {"--disk.io=threads", "--disk.min.free.bytes=0", NULL};
    record_thaw(log_);
    if (eg_bus_try_start(b, environment, arguments) != 0)
        fail_msg("the daemon does not start: see %s", b->log);
}

static void stop(struct eg_test_bus *b) {
    if (eg_bus_stop(b) != 0)
        fail_msg("the daemon does not stop well: see %s", b->log);
}

/* Bytes of writes since, to files that are not LMDB's few pages at a time. */
static uint64_t written_since(uint64_t at) {
    uint64_t bytes = 0;
    for (; at < record_position(log_) && record_at(log_, at)->op != RECORD_NOTHING; at += record_at(log_, at)->size)
        bytes += record_at(log_, at)->op == RECORD_WRITE && record_at(log_, at)->bytes > 65536 ? record_at(log_, at)->bytes : 0;
    return bytes;
}

uint64_t work_warm(struct eg_test_bus *b, uint64_t seed, struct record_log *log, const char *log_path,
                   const char *recorder) {
    const uint64_t much = UINT64_C(12) << 20; /* three times what it writes at one go */
    prepare(b, seed, log, log_path, recorder);
    start(b);
    open_all(b, true, true);
    note_starts();
    put(disk, 0);
    uint64_t from = record_position(log), sent = 0;
    while (sent < much) {
        static uint8_t value[VALUE_MAX];
        sent += work_value(next_number[0], 0, value) + 64;
        put(memory, 0);
    }
    struct timespec ms = {.tv_nsec = 1000000}; /* it writes what it has much of, in its own time */
    for (int i = 0; i < EG_TEST_LIMIT_MS && written_since(from) < much * 3 / 4; i++)
        nanosleep(&ms, NULL);
    record_freeze(log);
    kill(b->pid, SIGSTOP);
    assert_int_equal(eagre_producer_flush(memory, 0), EAGRE_E_WOULD_BLOCK); /* its successor finds the wish */
    eg_bus_kill(b);
    close_all();
    uint64_t begin = record_position(log);
    start(b);
    open_all(b, false, true);
    put(disk, 0);
    note_starts();
    close_all();
    stop(b);
    return begin;
}

void work(struct eg_test_bus *b, uint64_t seed, struct record_log *log, const char *log_path,
          const char *recorder) {
    enum { STOP, KILL, KILL_BOTH };
    static const int ends[] = {KILL, STOP, KILL_BOTH, KILL, STOP};
    prepare(b, seed, log, log_path, recorder);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        start(b);
        open_all(b, i == 0, false);
        note_starts();
        for (int n = 0; n < OPS; n++)
            one();
        note_starts();
        if (ends[i] == STOP) {
            for (uint32_t k = 0; k < PARTITIONS; k++) /* all of it is to be on disk then */
                put(memory, k);
            note_durable();
            close_all();
            stop(b);
            for (uint32_t k = 0; k < PARTITIONS; k++)
                told(RECORD_DURABLE, k, 0, INT64_MAX);
            continue;
        }
        pid_t keeper = eg_bus_keeper(b);
        record_freeze(log);
        eg_bus_kill(b);
        if (ends[i] == KILL_BOTH) {
            kill(keeper, SIGKILL);
            eg_wait_gone(keeper);
            for (uint32_t k = 0; k < PARTITIONS; k++)
                told(RECORD_LOST, k, 0, 0);
        }
        close_all();
    }
}
