/*
 * One segment of any bytes: the reader, seeks, the end, the checker, a producer and repair on it. They answer
 * with EAGRE_OK or EAGRE_E_CORRUPT, end, touch nothing outside (guard pages), and what is delivered is what a
 * walk of this file's own finds: each record lies within its frame, behind the one before.
 *
 *   u8 alignment (2 bits), make CRCs good (bit 2), check CRCs (bit 3), owners are dead (bit 4),
 *      what follows the first 32 bytes lies where these, as a frame, end (bit 5)
 *   u16 where to seek   u64 tail hint   u64 hot index entry   u32 allocated bytes   bytes of the frames
 */
#include "fuzz/fuzz.h"
#include "unit/log/fake_bus.h"

#define CAPACITY (2u * EG_INDEX_BLOCK) /* two blocks, so that the hot index has an entry */
#define RECORDS_MAX (CAPACITY / EG_ALIGN_MIN)

static struct fake_bus *bus;
static struct fake_reader r;
static struct fake_writer w;
static _Atomic uint64_t *look_cell;

static void set_up(void) {
    if (bus != NULL)
        return;
    (void)eg_membarrier_register();
    bus = fake_bus_open(CAPACITY, 3, 8, 0);
    fake_reader_open(bus, &r, 0);
    fake_writer_open(bus, &w, 9);
    look_cell = fake_cell(bus);
}

/* Who forges a CRC gets further. */
static void make_crcs_good(uint8_t *base, uint64_t end) {
    uint64_t index = 0;
    for (uint64_t pos = EG_SEGMENT_DATA; pos < end;) {
        struct eg_frame *f = eg_frame_at(base, pos);
        uint64_t word = eg_load_relaxed(&f->word);
        struct eg_frame_view v;
        if (!eg_word_is_sane(word, pos, CAPACITY, bus->align))
            return;
        if (eg_word_kind(word) == EG_KIND_DATA && eg_word_length(word) >= EG_FRAME_HEADER) {
            f->index = (uint32_t)index;
            if (eg_frame_view(f, word, &v))
                f->crc =
                    eg_frame_crc(eg_frame_seed(FAKE_UID, 0), pos, word, f->index, f, v.payload);
        }
        pos += eg_word_length(word);
        index += eg_word_count(word);
    }
}

static void put_bytes(struct fuzz_in *in, uint64_t *pos, uint64_t most) {
    size_t n;
    const uint8_t *from = fuzz_bytes(in, most < CAPACITY - *pos ? most : CAPACITY - *pos, &n);
    if (n > 0)
        memcpy(bus->buffers[0].base + *pos, from, n);
    *pos += n;
}

static void fill(struct fuzz_in *in, uint8_t flags) {
    static const uint32_t aligns[] = {8, 16, 32, 64};
    struct eg_segment_header *h = fake_header(bus, 0);
    uint64_t hint = fuzz_u64(in), entry = fuzz_u64(in);
    uint32_t allocated = fuzz_u32(in);
    bus->align = r.map.align = w.map.align = bus->topic->align = aligns[flags & 3];
    eg_segment_init(h, bus->topic, 0, FAKE_UID, 0, 1);
    eg_store_relaxed(&h->base, 0);
    eg_store_relaxed(&h->hint, hint);
    memset(bus->buffers[0].base + EG_SEGMENT_DATA, 0, CAPACITY - EG_SEGMENT_DATA);
    uint64_t end = EG_SEGMENT_DATA;
    if ((flags & 32) != 0) {
        put_bytes(in, &end, EG_FRAME_HEADER);
        uint64_t word = eg_load_relaxed(&eg_frame_at(bus->buffers[0].base, EG_SEGMENT_DATA)->word);
        if (eg_word_is_sane(word, EG_SEGMENT_DATA, CAPACITY, bus->align))
            end = EG_SEGMENT_DATA + eg_word_length(word);
    }
    put_bytes(in, &end, CAPACITY);
    eg_store_relaxed(&h->allocated, allocated % (CAPACITY + 2 * EG_PAGE));
    eg_store_relaxed(&eg_ring_index(bus->ring, 3, 0, CAPACITY)[1],
                     entry == 0 ? 0 : (entry & 0xffffffffff));
    for (uint32_t s = 0; s < 3; s++)
        eg_store_relaxed(&bus->ring->slot[s].word,
                         eg_slot_make(s, s, s == 0 ? EG_SLOT_OPEN : EG_SLOT_READY));
    eg_store_relaxed(&bus->ring->active, 0);
    eg_store_relaxed(&bus->status->state, EG_PARTITION_ACTIVE);
    for (uint32_t n2 = 1; n2 < 3; n2++) /* a producer may have gone on to the next */
        if (eg_load_relaxed(&fake_header(bus, n2)->base) != EG_BASE_UNSET ||
            bus->topic->align != fake_header(bus, n2)->align) {
            eg_segment_init(fake_header(bus, n2), bus->topic, 0, FAKE_UID, n2, 1);
            fake_zero(bus, n2);
        }
    if ((flags & 4) != 0)
        make_crcs_good(bus->buffers[0].base, end);
}

/* What was delivered at offset lies in [from, to), key, value and headers behind each other. */
static void check_place(const eagre_record_t *rec, const uint8_t *from, const uint8_t *to) {
    const uint8_t *at = from + EG_FRAME_HEADER;
    if (rec->key != NULL) {
        FUZZ_REQUIRE(rec->key == at && rec->key_len <= (size_t)(to - at));
        at += rec->key_len;
    }
    if (rec->value != NULL) {
        FUZZ_REQUIRE(rec->value == at && rec->value_len <= (size_t)(to - at));
        at += rec->value_len;
    }
    if (rec->headers != NULL) {
        FUZZ_REQUIRE((size_t)(to - at) >= 4 && rec->headers == at + 4);
        FUZZ_REQUIRE(rec->headers_len <= (size_t)(to - at) - 4);
    }
}

static bool is_answer(int rc) { return rc == EAGRE_OK || rc == EAGRE_E_CORRUPT; }

/* From the first frame to where nothing more comes. Returns the status at the end; offsets: of the records. */
static int read_all(bool check_crcs, int64_t *offsets, size_t *count) {
    struct eg_buffer_map *b = &r.map.bufs[0];
    int64_t last = -1;
    *count = 0;
    b->ready_to = 0;
    r.r.check_crcs = check_crcs;
    eg_reader_seek(&r.r, 0);
    for (size_t polls = 0;; polls++) {
        eagre_record_t rec;
        size_t n;
        FUZZ_REQUIRE(polls <= RECORDS_MAX);
        int rc = eg_reader_poll(&r.r, &rec, 1, &n);
        FUZZ_REQUIRE(is_answer(rc));
        if (rc != EAGRE_OK || n == 0)
            return rc;
        uint64_t end = r.r.pos, allocated = eg_load_relaxed(&fake_header(bus, 0)->allocated);
        FUZZ_REQUIRE(end <= CAPACITY && end <= eg_align_up(allocated, EG_PAGE));
        FUZZ_REQUIRE(rec.offset > last);
        last = rec.offset;
        /* Where does the frame that ends there begin? */
        uint64_t pos = EG_SEGMENT_DATA, from = 0;
        while (pos < end) {
            uint64_t word = eg_load_relaxed(&eg_frame_at(b->base, pos)->word);
            FUZZ_REQUIRE(eg_word_length(word) > 0);
            from = pos;
            pos += eg_word_length(word);
        }
        FUZZ_REQUIRE(pos == end);
        check_place(&rec, b->base + from, b->base + end);
        if (*count < 256)
            offsets[(*count)++] = rec.offset;
    }
}

/* The first record at or behind `to` is the one that was found there before. */
static void seek(int64_t to, int whole, const int64_t *offsets, size_t count, bool index_lies) {
    eagre_record_t rec;
    size_t n;
    eg_reader_seek(&r.r, to);
    int rc = eg_reader_poll(&r.r, &rec, 1, &n);
    FUZZ_REQUIRE(is_answer(rc) || rc == EAGRE_E_OFFSET_OUT_OF_RANGE);
    if (rc != EAGRE_OK || n == 0)
        return;
    FUZZ_REQUIRE(rec.offset >= to);
    if (index_lies || whole != EAGRE_OK || count == 256)
        return;
    size_t i = 0;
    while (i < count && offsets[i] < to)
        i++;
    /* Behind an open claim there may be records that were not read. */
    FUZZ_REQUIRE(i == count || offsets[i] == rec.offset);
}

static bool is_dead(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner % 3 != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    int64_t offsets[256], end;
    size_t count;
    set_up();
    uint8_t flags = fuzz_u8(&in);
    uint16_t to = fuzz_u16(&in);
    fill(&in, flags);
    bool index_lies = eg_load_relaxed(&eg_ring_index(bus->ring, 3, 0, CAPACITY)[1]) != 0;
    int whole = read_all((flags & 8) != 0, offsets, &count);
    seek(to, whole, offsets, count, index_lies);
    seek(0, whole, offsets, count, index_lies);
    int rc = eg_log_end(&r.map, look_cell, false, &end);
    FUZZ_REQUIRE(is_answer(rc));
    eg_reader_unpin(&r.r);
    (void)fake_problems(bus, NULL);
    if ((flags & 16) != 0) {
        uint64_t pads, allocated = eg_load_relaxed(&fake_header(bus, 0)->allocated);
        rc = eg_repair_segment(bus->buffers[0].base, CAPACITY, allocated, bus->align, is_dead, NULL,
                               &pads);
        FUZZ_REQUIRE(is_answer(rc));
        (void)read_all(false, offsets, &count);
        eg_reader_unpin(&r.r);
    }
    w.map.bufs[0].ready_to = 0;
    w.w.slot = NULL;
    rc = fake_put_probe(&w.w, NULL);
    FUZZ_REQUIRE(is_answer(rc));
    FUZZ_REQUIRE(fake_nothing_is_pinned(bus));
    return 0;
}
