/*
 * The public producer's calls on a partition in this process, without a daemon. The file under test is included,
 * so that its handle can be made by hand.
 */
#include "client/producer.c"

#include "unit/log/fake_bus.h"

#define PARTITIONS 3u

static struct fake_bus *bus[PARTITIONS];
static struct fake_writer w[PARTITIONS];
static struct fake_reader r;
static struct eg_writer *writers[PARTITIONS];
static struct eg_topic topic;
static struct eagre_producer p;
static struct eagre instance;
static const uint32_t not_forked = 1;

static void open_all(uint32_t align) {
    memset(&p, 0, sizeof(p));
    for (uint32_t i = 0; i < PARTITIONS; i++) {
        bus[i] = fake_bus_open(FAKE_SEGMENT, 3, align, 0);
        fake_writer_open(bus[i], &w[i], 9);
        w[i].map.number = i;
        writers[i] = &w[i].w;
    }
    fake_reader_open(bus[0], &r, 0);
    memset(&topic, 0, sizeof(topic));
    strcpy(topic.name, "t");
    topic.status = bus[0]->topic;
    topic.capacity = FAKE_SEGMENT;
    topic.slots = 3;
    topic.align = align;
    topic.partitions_mapped = PARTITIONS;
    eg_store_relaxed(&topic.status->partitions, 1);
    p.fork_guard = &not_forked;
    p.topic = &topic;
    instance.bus = bus[0]->bus;
    p.e = &instance;
    p.writers = writers;
    p.partitions = 1;
    p.options = (eagre_producer_options_t)EAGRE_PRODUCER_OPTIONS_INIT;
}

static void close_all(void) {
    fake_reader_close(&r);
    for (uint32_t i = 0; i < PARTITIONS; i++) {
        assert_true(fake_nothing_is_pinned(bus[i]));
        assert_log_is_good(bus[i], NULL);
        fake_writer_close(&w[i]);
        fake_bus_close(bus[i]);
    }
}

static eagre_message_t message(const void *value, size_t n) {
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    m.value = value;
    m.value_len = n;
    return m;
}

static size_t poll_some(eagre_record_t *rec, size_t max) {
    size_t n;
    assert_ok(eg_reader_poll(&r.r, rec, max, &n));
    return n;
}

static void one_record_of_each_kind(void **state) {
    (void)state;
    open_all(64);
    const eagre_header_t headers[] = {{"name", 4, "value", 5}, {"", 0, NULL, 0}, {"n", 1, "", 0}};
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    int32_t partition = -1;
    int64_t offset = -1;
    assert_ok(eagre_produce(&p, &m, &partition, &offset)); /* no key, null value */
    assert_true(partition == 0 && offset == 0);
    m.key = "";
    m.value = "";
    assert_ok(eagre_produce(&p, &m, NULL, NULL));
    m = message("value", 5);
    m.key = "key";
    m.key_len = 3;
    m.headers = headers;
    m.header_count = 3;
    m.timestamp_ns = 77;
    assert_ok(eagre_produce(&p, &m, NULL, &offset));
    assert_int_equal(offset, 2);

    eagre_record_t rec[4];
    eagre_header_t h;
    assert_int_equal(poll_some(rec, 4), 3);
    assert_true(rec[0].key == NULL && rec[0].value == NULL && rec[0].headers == NULL && rec[0].timestamp_ns > 0);
    assert_true(rec[1].key != NULL && rec[1].key_len == 0 && rec[1].value != NULL && rec[1].value_len == 0);
    assert_memory_equal(rec[2].key, "key", 3);
    assert_memory_equal(rec[2].value, "value", 5);
    assert_int_equal(rec[2].timestamp_ns, 77);
    for (size_t i = 0; i < 3; i++) {
        assert_ok(eagre_record_header(&rec[2], i, &h));
        assert_int_equal(h.name_len, headers[i].name_len);
        assert_memory_equal(h.name, headers[i].name, h.name_len);
        assert_int_equal(h.value == NULL, headers[i].value == NULL);
        assert_int_equal(h.value_len, headers[i].value_len);
        if (h.value != NULL)
            assert_memory_equal(h.value, headers[i].value, h.value_len);
    }
    assert_int_equal(eagre_record_header(&rec[2], 3, &h), EAGRE_E_INVALID);
    close_all();
}

/* Every split of every small payload, through the path for small records and the other. */
static void every_small_length(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        static uint8_t bytes[700];
        int64_t end = 0;
        open_all(align);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(i * 7 + i / 256);
        for (size_t n = 0; n <= 320; n++) {
            const size_t keys[] = {SIZE_MAX, 0, n / 3, n};
            for (size_t k = 0; k < 4; k++) {
                size_t klen = keys[k] == SIZE_MAX ? 0 : keys[k];
                eagre_message_t m = message(bytes + n, n - klen);
                m.key = keys[k] == SIZE_MAX ? NULL : bytes;
                m.key_len = klen;
                m.partition = 0;
                int64_t offset;
                assert_ok(eagre_produce(&p, &m, NULL, &offset));
                assert_int_equal(offset, end++);
                fake_daemon_work(bus[0], 1, true);
                eagre_record_t rec;
                assert_int_equal(poll_some(&rec, 1), 1);
                assert_int_equal(rec.offset, offset);
                assert_true((rec.key == NULL) == (m.key == NULL) && rec.key_len == klen && rec.value_len == n - klen);
                if (klen > 0)
                    assert_memory_equal(rec.key, bytes, klen);
                assert_memory_equal(rec.value, bytes + n, n - klen);
                eg_reader_unpin(&r.r);
            }
        }
        close_all();
    }
}

/* The frame that was made for a guessed place is made anew for the real one. */
static struct fake_writer other;
static void takes_the_place(void *ctx) {
    (void)ctx;
    assert_ok(fake_put_probe(&other.w, NULL));
}

static void a_wrong_guess_is_corrected(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    open_all(64);
    fake_writer_open(bus[0], &other, 10);
    eagre_message_t m = message("mine", 4);
    for (int round = 0; round < 300; round++) {
        struct fake_interpose at = {.name = "pin.checked", .hit = 1, .act = takes_the_place};
        fake_at(&at);
        assert_ok(eagre_produce(&p, &m, NULL, NULL));
        fake_at_none();
        assert_true(at.done);
        fake_daemon_work(bus[0], 1, true);
        eagre_record_t rec[3];
        size_t n = 0;
        while (n < 2)
            n += poll_some(rec + n, 3 - n);
        assert_int_equal(n, 2);
        assert_memory_equal(rec[1].value, "mine", 4);
        eg_reader_unpin(&r.r);
    }
    fake_writer_close(&other);
    close_all();
}

static void the_largest_and_one_byte_more(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        open_all(align);
        static uint8_t bytes[FAKE_SEGMENT];
        size_t most = eg_record_bytes_max(FAKE_SEGMENT) - EG_FRAME_HEADER;
        eagre_message_t m = message(bytes, most);
        assert_ok(eagre_produce(&p, &m, NULL, NULL));
        m.value_len++;
        int64_t offset = 99;
        int32_t partition = 99;
        assert_int_equal(eagre_produce(&p, &m, &partition, &offset), EAGRE_E_RECORD_TOO_LARGE);
        assert_true(offset == 99 && partition == 99); /* untouched */
        assert_non_null(strstr(eagre_error_detail(), "8160"));
        const size_t huge[] = {SIZE_MAX, SIZE_MAX - 31, SIZE_MAX / 2, 1ull << 32, (1ull << 32) + 8};
        for (size_t i = 0; i < sizeof(huge) / sizeof(*huge); i++) {
            m.value_len = huge[i];
            assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_RECORD_TOO_LARGE);
            m.value_len = 10;
            m.key = bytes;
            m.key_len = huge[i];
            assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_RECORD_TOO_LARGE);
            m.key = NULL;
        }
        /* A batch of the same size, and one frame more. */
        static eagre_message_t batch[200];
        size_t fits = eg_record_bytes_max(FAKE_SEGMENT) / eg_frame_length(32, align);
        for (size_t i = 0; i <= fits; i++)
            batch[i] = message(bytes, 32);
        assert_ok(eagre_produce_batch(&p, 0, batch, fits, NULL));
        assert_int_equal(eagre_produce_batch(&p, 0, batch, fits + 1, NULL), EAGRE_E_RECORD_TOO_LARGE);
        eagre_claim_t c;
        assert_int_equal(eagre_producer_claim(&p, 0, SIZE_MAX, most + 1, &c), EAGRE_E_RECORD_TOO_LARGE);
        assert_ok(eagre_producer_claim(&p, 0, 5, most - 5, &c));
        assert_ok(eagre_producer_abort(&p, &c));
        /* The topic's own limit. */
        eg_store_relaxed(&topic.status->max_message_bytes, 100);
        m = message(bytes, 90);
        m.key = bytes;
        m.key_len = 10;
        assert_ok(eagre_produce(&p, &m, NULL, NULL));
        m.key_len = 11;
        assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_RECORD_TOO_LARGE);
        assert_non_null(strstr(eagre_error_detail(), "max.message.bytes"));
        close_all();
    }
}

/* Stopped at any of its records, a batch shows none of them. */
static void looks(void *ctx) {
    eagre_record_t rec[20];
    *(size_t *)ctx += poll_some(rec, 20);
    *(size_t *)ctx += 100;
}

static void a_batch_shows_nothing_before_its_publish(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const eagre_header_t header = {"h", 1, "v", 1};
    for (uint32_t k = 1; k <= 7; k++) {
        open_all(8u << k % 4);
        eagre_message_t m[7];
        for (int i = 0; i < 7; i++) {
            m[i] = message(&"0123456"[i], 1);
            m[i].headers = &header;
            m[i].header_count = i == 3;
        }
        size_t seen = 0;
        struct fake_interpose at = {.name = "batch.k_of_n", .hit = k, .act = looks, .ctx = &seen};
        int64_t first = -1;
        assert_ok(eagre_produce_batch(&p, 0, m, 3, &first));
        eagre_record_t rec[20];
        assert_int_equal(poll_some(rec, 20), 3);
        fake_at(&at);
        assert_ok(eagre_produce_batch(&p, 0, m, 7, &first));
        fake_at_none();
        assert_int_equal(seen, 100); /* it looked, there was nothing */
        assert_int_equal(first, 3);
        assert_int_equal(poll_some(rec, 20), 7);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(rec[i].offset, 3 + i);
            assert_memory_equal(rec[i].value, &"0123456"[i], 1);
            assert_int_equal(rec[i].headers != NULL, i == 3);
        }
        close_all();
    }
}

static bool is_nine(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner == 9;
}

static bool batch_dies_at(uint32_t k, const eagre_message_t *m, size_t n) {
    jmp_buf there;
    struct fake_interpose at = {.name = "batch.k_of_n", .hit = k, .act = fake_jump, .ctx = &there};
    fake_at(&at);
    if (setjmp(there) == 0)
        FAKE_REQUIRE(eagre_produce_batch(&p, 0, m, n, NULL) == EAGRE_OK);
    fake_at_none();
    return at.done;
}

static void a_dead_batch_becomes_one_pad(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (uint32_t k = 1; k <= 4; k++) {
        open_all(64);
        eagre_message_t m[4];
        for (int i = 0; i < 4; i++)
            m[i] = message("abcd", 4);
        assert_true(batch_dies_at(k, m, 4));
        uint64_t pads;
        assert_ok(eg_repair_segment(bus[0]->buffers[0].base, FAKE_SEGMENT, FAKE_SEGMENT, 64, is_nine, NULL, &pads));
        assert_int_equal(pads, 1);
        eg_pin_clear(w[0].w.pin);
        int64_t offset;
        assert_ok(eagre_produce(&p, &m[0], NULL, &offset));
        assert_int_equal(offset, 4);
        eagre_record_t rec[9];
        assert_int_equal(poll_some(rec, 9), 1);
        assert_int_equal(rec[0].offset, 4);
        close_all();
    }
}

static void claim_commit_abort(void **state) {
    (void)state;
    open_all(64);
    eagre_claim_t c, other_claim;
    eagre_message_t m = message("x", 1);
    eagre_record_t rec[4];
    assert_ok(eagre_producer_claim(&p, EAGRE_PARTITION_ANY, 3, 100, &c));
    assert_true(c.offset == 0 && c.partition == 0 && c.key_len == 3 && c.value_len == 100);
    assert_ptr_equal((uint8_t *)c.key + 3, c.value);
    /* One at a time, and only that one. */
    assert_int_equal(eagre_producer_claim(&p, 0, 0, 1, &other_claim), EAGRE_E_STATE);
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_STATE);
    assert_int_equal(eagre_produce_batch(&p, 0, &m, 1, NULL), EAGRE_E_STATE);
    memcpy(c.key, "key", 3);
    memset(c.value, 'v', 100);
    assert_int_equal(poll_some(rec, 4), 0);
    c.value_len = 101;
    assert_int_equal(eagre_producer_commit(&p, &c), EAGRE_E_STATE);
    c.value_len = 37; /* shorter is fine */
    assert_ok(eagre_producer_commit(&p, &c));
    assert_int_equal(eagre_producer_commit(&p, &c), EAGRE_E_STATE);
    assert_int_equal(eagre_producer_abort(&p, &c), EAGRE_E_STATE);
    assert_int_equal(poll_some(rec, 4), 1);
    assert_true(rec[0].key_len == 3 && rec[0].value_len == 37 && rec[0].timestamp_ns > 0);
    assert_memory_equal(rec[0].key, "key", 3);
    /* Down to nothing, without a key. */
    assert_ok(eagre_producer_claim(&p, 0, SIZE_MAX, 100, &c));
    assert_true(c.key == NULL && c.key_len == 0);
    memset(c.value, 0xff, 100);
    c.value_len = 0;
    assert_ok(eagre_producer_commit(&p, &c));
    assert_int_equal(poll_some(rec, 4), 1);
    assert_true(rec[0].key == NULL && rec[0].value != NULL && rec[0].value_len == 0);
    /* Given up. */
    assert_ok(eagre_producer_claim(&p, 0, 0, 10, &c));
    assert_ok(eagre_producer_abort(&p, &c));
    assert_ok(eagre_produce(&p, &m, NULL, NULL));
    assert_int_equal(poll_some(rec, 4), 1);
    assert_int_equal(rec[0].offset, 3);
    close_all();
}

static void arguments_are_checked(void **state) {
    (void)state;
    open_all(64);
    eagre_message_t m = message("x", 1);
    assert_int_equal(eagre_produce(NULL, &m, NULL, NULL), EAGRE_E_INVALID);
    assert_int_equal(eagre_produce(&p, NULL, NULL, NULL), EAGRE_E_INVALID);
    m.partition = 1;
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_UNKNOWN_PARTITION);
    m.partition = -2;
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_UNKNOWN_PARTITION);
    m.partition = EAGRE_PARTITION_ANY;
    assert_int_equal(eagre_produce_batch(&p, 0, &m, 0, NULL), EAGRE_E_INVALID);
    assert_int_equal(eagre_produce_batch(&p, 0, &m, BATCH_RECORDS_MAX + 1, NULL), EAGRE_E_INVALID);
    m.header_count = 1;
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_INVALID);
    eagre_header_t h = {NULL, 1, NULL, 0};
    m.headers = &h;
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_INVALID);
    h = (eagre_header_t){"n", SIZE_MAX, NULL, 0};
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_INVALID);
    h = (eagre_header_t){"n", 1, "v", SIZE_MAX};
    assert_int_equal(eagre_produce(&p, &m, NULL, NULL), EAGRE_E_INVALID);
    close_all();
}

/* ---- which partition -------------------------------------------------------------------------------- */

static void partitions_are_chosen(void **state) {
    (void)state;
    open_all(64);
    eg_store_relaxed(&topic.status->partitions, PARTITIONS);
    p.partitions = PARTITIONS;
    int32_t partition;
    for (uint32_t i = 0; i < 100; i++) { /* a key decides */
        eagre_message_t m = message("x", 1);
        m.key = &i;
        m.key_len = sizeof(i);
        assert_ok(eagre_produce(&p, &m, &partition, NULL));
        assert_int_equal(partition, eagre_partition_for_key(&i, sizeof(i), PARTITIONS));
        m.partition = 2; /* but for who names one */
        assert_ok(eagre_produce(&p, &m, &partition, NULL));
        assert_int_equal(partition, 2);
    }
    /* Without a key: one partition for a while, then another. */
    static uint8_t value[1000];
    eagre_message_t m = message(value, sizeof(value));
    int32_t before = -1;
    uint32_t changes = 0, used[PARTITIONS] = {0};
    for (int i = 0; i < 1000; i++) {
        assert_ok(eagre_produce(&p, &m, &partition, NULL));
        changes += partition != before;
        before = partition;
        used[partition]++;
        for (uint32_t k = 0; k < PARTITIONS; k++)
            fake_daemon_work(bus[k], 1, true);
    }
    assert_in_range(changes, 1000 * 1000 / STICKY_BYTES, 1000 * 1000 / STICKY_BYTES + 2);
    for (uint32_t k = 0; k < PARTITIONS; k++)
        assert_true(used[k] > 0);
    p.options.partitioner = EAGRE_PARTITIONER_ROUND_ROBIN;
    m.key = "k";
    m.key_len = 1;
    assert_ok(eagre_produce(&p, &m, &before, NULL));
    for (int i = 0; i < 30; i++) {
        assert_ok(eagre_produce(&p, &m, &partition, NULL));
        assert_int_equal(partition, (before + 1) % (int32_t)PARTITIONS);
        before = partition;
        for (uint32_t k = 0; k < PARTITIONS; k++)
            fake_daemon_work(bus[k], 1, true);
    }
    close_all();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_record_of_each_kind),
        cmocka_unit_test(every_small_length),
        cmocka_unit_test(a_wrong_guess_is_corrected),
        cmocka_unit_test(the_largest_and_one_byte_more),
        cmocka_unit_test(a_batch_shows_nothing_before_its_publish),
        cmocka_unit_test(a_dead_batch_becomes_one_pad),
        cmocka_unit_test(claim_commit_abort),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(partitions_are_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
