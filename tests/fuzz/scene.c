#include "fuzz/scene.h"

#include <stdatomic.h>

#include "fuzz/fuzz.h"
#include "fuzz/watch.h"
#include "unit/log/fake_bus.h"

#include "partition.h"
#include "slots.h"

#define ACTIONS_MAX 64
#define ARMED_MAX 16
#define POLL_MAX 4

static struct fake_bus *bus;
static struct fake_reader reader;
static struct fake_writer writer;
static _Atomic uint64_t *look_cell;
static struct eg_topic topic; /* as the daemon has it */
static struct eg_partition partition;
static struct eg_buffer buffers[EG_BUFFERS_MAX];
static int64_t now;

static struct armed {
    uint32_t at;     /* number of the access */
    uint32_t period; /* not 0: it changes places with the word's value each so many accesses */
    _Atomic uint64_t *word;
    uint64_t value;
} armed[ARMED_MAX];
static size_t armed_count;
static uint32_t accesses;
static bool is_moving; /* then each store costs a fault */

/* ---- where a stroke falls ----------------------------------------------------------------------------- */

/* Through the daemon's mapping, which is never watched. */
static _Atomic uint64_t *chain_word(uint8_t *base, uint32_t steps, uint32_t field) {
    uint64_t pos = EG_SEGMENT_DATA;
    for (; steps > 0; steps--) {
        uint64_t word = eg_load_relaxed(&eg_frame_at(base, pos)->word);
        if (!eg_word_is_sane(word, pos, bus->capacity, bus->align) ||
            pos + eg_word_length(word) >= bus->capacity)
            break;
        pos += eg_word_length(word);
    }
    uint64_t at = pos + field * 8;
    return (_Atomic uint64_t *)(void *)(base + (at <= bus->capacity - 8 ? at : pos));
}

static _Atomic uint64_t *take_place(struct fuzz_in *in) {
    uint8_t where = fuzz_u8(in), which = fuzz_u8(in);
    uint8_t *base = bus->buffers[which % bus->slots].base;
    switch (where % 8) {
    case 0:
    case 1:
        return chain_word(base, which / bus->slots, 0);
    case 2:
        return chain_word(base, which / bus->slots, fuzz_u8(in) % 8);
    case 3:
        return (_Atomic uint64_t *)(void *)(base + fuzz_u16(in) % (bus->capacity / 8) * 8);
    case 4: /* header: magic, ids, capacity, seq, CRC, base, allocated, hint */
        return (_Atomic uint64_t *)(void *)(base + which / bus->slots % 17 * 8);
    case 5:
        return &bus->ring->slot[which % bus->slots].word;
    case 6:
        return &bus->ring->active;
    default:
        return &eg_ring_index(bus->ring, bus->slots, which % bus->slots,
                              bus->capacity)[which / 8 % eg_index_blocks(bus->capacity)];
    }
}

/* A word as it lies there, or one that looks like something. */
static uint64_t take_value(struct fuzz_in *in) {
    uint8_t kind = fuzz_u8(in);
    uint64_t active = eg_load_relaxed(&bus->ring->active) & EG_SEQ_MAX;
    switch (kind % 6) {
    case 0:
        return fuzz_u64(in);
    case 1:
        return (uint64_t)(int64_t)(int8_t)fuzz_u8(in);
    case 2:
    case 3: { /* a frame's */
        uint8_t bits = fuzz_u8(in);
        uint64_t length = (uint64_t)fuzz_u16(in) * 8;
        uint32_t many = fuzz_u8(in);
        return eg_word_make(bits & 3, bits >> 2 & 3, bits >> 4 & 1, length,
                            many == 255 ? EG_COUNT_MAX : many, bits >> 5);
    }
    case 4: { /* a slot's */
        uint8_t bits = fuzz_u8(in), number = fuzz_u8(in);
        return eg_slot_make((active + (bits >> 2 & 7) - 3) & EG_SEQ_MAX, number, bits & 3);
    }
    default: /* two numbers */
        return (uint64_t)fuzz_u16(in) << 32 | fuzz_u16(in);
    }
}

static void stroke(struct fuzz_in *in) {
    _Atomic uint64_t *at = take_place(in);
    eg_store_relaxed(at, take_value(in));
}

/* period 0: once. Else the word is now this, now that: who loads it twice sees both. */
static void arm(struct fuzz_in *in, uint32_t period) {
    if (armed_count == ARMED_MAX)
        return;
    struct armed *a = &armed[armed_count++];
    a->at = accesses + 1 + fuzz_u8(in);
    a->period = period;
    a->word = take_place(in);
    a->value = take_value(in);
}

static void on_access(void) {
    accesses++;
    for (size_t i = 0; i < armed_count; i++) {
        struct armed *a = &armed[i];
        if (a->at != accesses)
            continue;
        uint64_t before = eg_load_relaxed(a->word);
        eg_store_relaxed(a->word, a->value);
        if (a->period > 0) {
            a->value = before;
            a->at += a->period;
        }
    }
}

/* ---- uses ------------------------------------------------------------------------------------------- */

static bool is_answer(int rc) {
    bool good = rc == EAGRE_OK || rc == EAGRE_E_CORRUPT || rc == EAGRE_E_OFFSET_OUT_OF_RANGE ||
                rc == EAGRE_E_WOULD_BLOCK ||
                rc == EAGRE_E_INVALID; /* of the fetch of a buffer that is not there */
    if (!good)
        (void)fprintf(stderr, "the answer is %d: %s\n", rc, eg_error_text());
    return good;
}

static bool lies_in_buffer(const void *data, uint64_t n) {
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++) {
        const uint8_t *base = reader.map.bufs[i].base;
        if (base != NULL && (const uint8_t *)data >= base + EG_SEGMENT_DATA &&
            (const uint8_t *)data <= base + bus->capacity)
            return n <= (uint64_t)(base + bus->capacity - (const uint8_t *)data);
    }
    return false;
}

/* alone: its frame ends where the reader stands now. */
static void check_bytes(const void *data, uint64_t n, bool alone) {
    if (data == NULL)
        return;
    FUZZ_REQUIRE(lies_in_buffer(data, n));
    FUZZ_REQUIRE(!alone || (const uint8_t *)data + n <= reader.r.base + reader.r.pos);
}

static void poll_reader(uint8_t how) {
    eagre_record_t rec[POLL_MAX];
    size_t n = 99, max = 1 + how % POLL_MAX;
    int rc = eg_reader_poll(&reader.r, rec, max, &n);
    FUZZ_REQUIRE(is_answer(rc) && n <= max && (rc == EAGRE_OK || n == 0));
    for (size_t i = 0; i < n; i++) {
        check_bytes(rec[i].key, rec[i].key_len, max == 1);
        check_bytes(rec[i].value, rec[i].value_len, max == 1);
        check_bytes(rec[i].headers, rec[i].headers_len, max == 1);
        FUZZ_REQUIRE(rec[i].offset >= 0);
        FUZZ_REQUIRE(i == 0 || rec[i].offset > rec[i - 1].offset);
    }
    FUZZ_REQUIRE(!reader.r.placed || reader.r.pos <= bus->capacity);
}

static void put(uint16_t bytes) {
    static const uint8_t value[8192];
    struct fake_record rec = {.value = value, .value_length = bytes % (is_moving ? 100u : 8000u)};
    uint64_t length = eg_frame_length(fake_payload(&rec), bus->align);
    struct eg_claim c;
    int rc = eg_writer_claim(&writer.w, length, 1, &c);
    FUZZ_REQUIRE(is_answer(rc));
    if (rc == EAGRE_OK) {
        FUZZ_REQUIRE(c.pos >= EG_SEGMENT_DATA && c.pos % bus->align == 0 &&
                     c.pos <= bus->capacity - length);
        FUZZ_REQUIRE(c.offset >= 0 && c.frame == eg_frame_at(writer.w.base, c.pos));
        eg_writer_publish(&writer.w, &c,
                          fake_frame_write(&writer.w, c.frame, c.pos, c.length, c.index, &rec));
    }
    FUZZ_REQUIRE(eg_load_relaxed(writer.w.pin) == EG_PIN_NONE);
}

static bool is_dead(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner % 3 != 0;
}

static void repair(uint8_t which) {
    struct eg_partition_map *m = &writer.map; /* a mapping that may be watched */
    uint32_t n = which % bus->slots;
    uint64_t pads, allocated = eg_load_relaxed(&fake_header(bus, n)->allocated);
    if (m->bufs[n].base == NULL)
        FUZZ_REQUIRE(m->ops->fetch_buffer(m, n) == EAGRE_OK);
    int rc = eg_repair_segment(m->bufs[n].base, bus->capacity, allocated, bus->align, is_dead, NULL,
                               &pads);
    FUZZ_REQUIRE(rc == EAGRE_OK || rc == EAGRE_E_CORRUPT);
}

/* What the daemon believes is always possible, whatever it finds; once it fails it is not asked again. */
static void follow(void) {
    struct eg_partition *p = &partition;
    uint64_t active = p->active;
    if (eg_partition_failed(p))
        return;
    bool good = eg_slots_follow(p, now++);
    FUZZ_REQUIRE(good != eg_partition_failed(p));
    FUZZ_REQUIRE(p->active >= active && p->active < p->first + bus->slots &&
                 p->tail <= bus->capacity);
    for (uint64_t seq = p->first; seq < p->active; seq++)
        FUZZ_REQUIRE(p->base[seq % bus->slots] >= 0 &&
                     p->base[seq % bus->slots] <= p->base[(seq + 1) % bus->slots]);
    eg_store_relaxed(&bus->status->state,
                     EG_PARTITION_ACTIVE); /* the others go on finding out by themselves */
    if (!good)
        p->active = UINT64_MAX;
}

static void check(void) {
    struct eg_check_report report;
    eg_check_partition(&reader.map, &report);
}

static void act(struct fuzz_in *in) {
    uint8_t which = fuzz_u8(in), how = which >> 4;
    int64_t end;
    switch (which & 15) {
    case 0:
    case 1:
    case 2:
        stroke(in);
        break;
    case 3:
        arm(in, 0);
        break;
    case 4:
        arm(in, 1 + how % 8);
        break;
    case 5:
    case 6:
    case 7:
        poll_reader(how);
        break;
    case 8:
        eg_reader_seek(&reader.r, (how & 1) != 0 ? (int64_t)fuzz_u64(in) : fuzz_u8(in));
        break;
    case 9:
        (void)eg_reader_has_news(&reader.r);
        break;
    case 10:
        FUZZ_REQUIRE(is_answer(eg_log_end(&reader.map, look_cell, false, &end)));
        break;
    case 11:
    case 12:
        put(fuzz_u16(in));
        break;
    case 13:
        repair(how);
        break;
    case 14:
        if (partition.active != UINT64_MAX)
            follow();
        break;
    default:
        if ((how & 1) != 0)
            eg_reader_unpin(&reader.r);
        else
            check();
        break;
    }
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

static int fetch_watched(struct eg_partition_map *m, uint32_t number) {
    int rc = fake_op_fetch(m, number);
    if (rc == EAGRE_OK)
        watch_add(m->bufs[number].base, bus->capacity, m->writable);
    return rc;
}

static const struct eg_map_ops watched_ops = {fetch_watched, fake_op_allocate, fake_op_wake_daemon,
                                              fake_op_ring_bells, NULL, NULL};

static void watch_map(struct eg_partition_map *m) {
    m->ops = &watched_ops;
    watch_add(m->ring, bus->ring_bytes, m->writable);
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        if (m->bufs[n].base != NULL)
            watch_add(m->bufs[n].base, bus->capacity, m->writable);
}

static void meet_the_daemon(void) {
    topic = (struct eg_topic){
        .status = bus->topic, .ring = (uint8_t *)bus->ring, .waiters = bus->waiters};
    (void)snprintf(topic.meta.name, sizeof(topic.meta.name), "t");
    topic.settings.v[EG_SET_RING_SEGMENTS] = bus->slots;
    topic.settings.v[EG_SET_SEGMENT_BYTES] = (int64_t)bus->capacity;
    topic.settings.v[EG_SET_RECORD_ALIGNMENT] = bus->align;
    partition = (struct eg_partition){.topic = &topic,
                                      .uid = FAKE_UID,
                                      .index = FAKE_INDEX,
                                      .status = bus->status,
                                      .ring = bus->ring,
                                      .waiters = bus->waiters,
                                      .buffers = buffers,
                                      .building = EG_NO_BUFFER,
                                      .cleaning = EG_NO_BUFFER,
                                      .tail = EG_SEGMENT_DATA};
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        buffers[n] = (struct eg_buffer){bus->buffers[n].fd, bus->buffers[n].base};
    for (uint32_t s = 0; s < bus->slots; s++)
        eg_store_relaxed(&bus->status->slot[s],
                         eg_slot_make(s, s, s == 0 ? EG_SLOT_OPEN : EG_SLOT_READY));
    now = 1;
}

/* Some with a key, some with headers. */
static int put_before(uint32_t i, uint32_t bytes) {
    static const uint8_t value[8000];
    struct fake_record rec = {.value = value, .value_length = bytes};
    rec.key = i % 2 == 1 ? "key" : NULL;
    rec.key_length = i % 2 == 1 ? 3 : 0;
    rec.headers = i % 3 == 1 ? "\1\0\0\0\1\0\0\0nv" : NULL;
    rec.headers_length = i % 3 == 1 ? 10 : 0;
    return fake_put(&writer.w, &rec, NULL);
}

static void set_up(struct fuzz_in *in, bool moving) {
    uint8_t how = fuzz_u8(in), records = fuzz_u8(in);
    uint32_t bytes = fuzz_u16(in) % 8000u, polls = fuzz_u8(in) % 32u;
    if (moving && (how & 16) == 0) { /* a fault for each few bytes of a CRC */
        bytes %= 64;
        records %= 16;
    }
    bus = fake_bus_open((how & 8) != 0 ? 2 * FAKE_SEGMENT : FAKE_SEGMENT, 3, 8u << (how & 3), 0);
    fake_writer_open(bus, &writer, 9);
    fake_reader_open(bus, &reader, 0);
    reader.r.check_crcs = (how & 4) != 0;
    look_cell = fake_cell(bus);
    meet_the_daemon();
    for (uint32_t i = 0; i < records && put_before(i, bytes) == EAGRE_OK; i++) {}
    for (; polls > 0; polls--)
        poll_reader(0);
}

void scene_run(const uint8_t *data, size_t size, bool moving) {
    struct fuzz_in in = {data, size};
    static bool once;
    if (!once) {
        (void)eg_membarrier_register();
        once = true;
    }
    is_moving = false;
    set_up(&in, moving);
    armed_count = accesses = 0;
    is_moving = moving;
    if (moving) {
        watch_map(&reader.map);
        watch_map(&writer.map);
        watch_begin(on_access);
    }
    for (int i = 0; i < ACTIONS_MAX && in.left > 0; i++)
        act(&in);
    watch_end();
    watch_forget();
    eg_reader_unpin(&reader.r);
    FUZZ_REQUIRE(fake_nothing_is_pinned(bus));
    fake_reader_close(&reader);
    fake_writer_close(&writer);
    fake_bus_close(bus);
}
