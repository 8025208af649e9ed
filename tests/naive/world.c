/* The real log, driven by operations, and the naive one beside it. */
#include <signal.h>

#include "naive/model.h"
#include "naive/naive.h"
#include "unit/log/fake_bus.h"

#define PRODUCERS 3u
#define READERS 3u
#define BATCH_MAX 5u
#define PLANT_SIZE 1000u
#define HANG_S 60u

struct plan { /* what a claim will hold */
    struct fake_record record[BATCH_MAX];
    uint64_t length[BATCH_MAX];
    uint32_t count;
    uint64_t total;
};

struct producer {
    struct fake_writer w;
    uint32_t owner;
    bool claimed;
    struct eg_claim claim;
    struct plan plan;
};

struct reader {
    struct fake_reader r;
    struct model_reader m;
    eagre_record_t got[MODEL_POLL_MAX]; /* by the last poll, while it is pinned */
    int64_t offsets[MODEL_POLL_MAX];
    size_t n;
};

static struct fake_bus *bus;
static struct model model;
static struct producer producer[PRODUCERS];
static struct reader reader[READERS];
static uint32_t producers, owners;
static _Atomic uint64_t *look_cell;
static struct {
    uint32_t owner;
    _Atomic uint64_t *cell;
} dead[FAKE_CELLS];
static size_t deads;
static _Atomic uint64_t *cells[FAKE_CELLS]; /* free again */
static size_t free_cells;
static uint32_t plant;
static int report_fd;
static size_t now; /* index of the op */

/* ---- the end ------------------------------------------------------------------------------------- */

static void differ(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void differ(const char *fmt, ...) {
    char text[NAIVE_TEXT];
    va_list ap;
    int n = snprintf(text, sizeof(text), "op %zu: ", now);
    va_start(ap, fmt);
    (void)vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
    va_end(ap);
    if (write(report_fd, text, strlen(text)) < 0)
        _exit(3);
    _exit(1);
}

#define SAME(real, naive, what)                                                                    \
    do {                                                                                           \
        long long real_ = (long long)(real), naive_ = (long long)(naive);                          \
        if (real_ != naive_)                                                                       \
            differ("%s: the log says %lld, the array %lld (%s)", (what), real_, naive_,            \
                   eg_error_text());                                                               \
    } while (0)

/* ---- records ----------------------------------------------------------------------------------------- */

static struct model_blob random_blob(uint64_t seed, uint32_t length) {
    struct model_blob b = {malloc(length + 8u), length};
    if (b.data == NULL)
        abort();
    fake_bytes((int64_t)seed, b.data, length);
    return b;
}

/* All that a record can be: no key, no value, neither, empty ones, headers. size: of all of it, about. */
static void make_record(uint32_t size, uint32_t what, struct model_record *out,
                        struct fake_record *real) {
    bool plain = what == 0; /* what a failure is shrunk to, if it does not need more */
    bool key = !plain && what % 3 != 0, value = plain || what % 11 != 0;
    bool headers = !plain && what % 7 == 0;
    uint32_t klen = size / (1 + what % 5), hlen = headers ? size / 9 : 0;
    uint32_t vlen = key ? size - klen : size;
    *real = (struct fake_record){0};
    if (key)
        out->key = random_blob(what, klen);
    if (value)
        out->value = random_blob(what + 1, vlen - (vlen > hlen ? hlen : 0));
    if (headers)
        out->headers = random_blob(what + 2, hlen);
    real->key = out->key.data;
    real->key_length = out->key.length;
    real->value = out->value.data;
    real->value_length = out->value.length;
    real->headers = out->headers.data;
    real->headers_length = out->headers.length;
    real->timestamp_ns = out->timestamp_ns = (int64_t)what * 1000003 - 7;
}

/* Records that together take an eighth of the segment at most. *made: what the array will say of them. */
static void make_plan(uint32_t size, uint32_t what, struct plan *p,
                      struct model_record made[BATCH_MAX]) {
    uint64_t most = eg_record_bytes_max(model.capacity);
    *p = (struct plan){.count = what % 2 == 0 ? 1 + what / 2 % BATCH_MAX : 1};
    uint32_t each = size % (uint32_t)(most / p->count - 200);
    for (uint32_t i = 0; i < p->count; i++) {
        make_record(each, what + i * 17, &made[i], &p->record[i]);
        p->length[i] = eg_frame_length(fake_payload(&p->record[i]), bus->align);
        p->total += p->length[i];
    }
}

/* ---- producers ---------------------------------------------------------------------------------------- */

static void open_producer(struct producer *p) {
    fake_map_open(bus, &p->w.map, true);
    p->owner = ++owners;
    p->claimed = false;
    eg_writer_init(&p->w.w, &p->w.map, free_cells > 0 ? cells[--free_cells] : fake_cell(bus),
                   p->owner, false);
}

static bool may_die(void) {
    return bus->cells_used + free_cells < FAKE_CELLS - 4 || free_cells > 4;
}

static void kill_producer(struct producer *p) {
    dead[deads].owner = p->owner;
    dead[deads++].cell = p->w.w.pin;
    fake_writer_close(&p->w);
    open_producer(p);
}

static void publish(struct producer *p) {
    struct eg_writer *w = &p->w.w;
    uint64_t first = 0, pos = p->claim.pos, left = p->claim.length;
    for (uint32_t i = 0; i < p->plan.count; i++) {
        uint64_t length = i + 1 < p->plan.count ? p->plan.length[i] : left;
        struct eg_frame *f = eg_frame_at(w->base, pos);
        uint64_t word = fake_frame_write(w, f, pos, length, p->claim.index + i, &p->plan.record[i]);
        if (i == 0)
            first = word;
        else
            eg_store_relaxed(&f->word, word);
        pos += length;
        left -= length;
    }
    eg_writer_publish(w, &p->claim, first);
}

static void claim(struct producer *p, uint32_t size, uint32_t what, bool at_once) {
    struct model_record made[BATCH_MAX] = {0};
    if (p->claimed || model_is_full(&model))
        return;
    make_plan(size, what, &p->plan, made);
    int rc = eg_writer_claim(&p->w.w, p->plan.total, p->plan.count, &p->claim);
    int64_t offset = model_claim(&model, p->plan.total, p->plan.count, p->owner);
    SAME(rc, offset == MODEL_BLOCKED ? EAGRE_E_WOULD_BLOCK : EAGRE_OK, "claim");
    if (rc != EAGRE_OK)
        return;
    SAME(p->claim.offset, offset, "the claim's offset");
    for (uint32_t i = 0; i < p->plan.count; i++) {
        made[i].owner = p->owner;
        made[i].first = i == 0;
        made[i].state = at_once ? MODEL_RECORD : MODEL_OPEN;
        model.record[offset + i] = made[i];
    }
    p->claimed = !at_once;
    if (at_once)
        publish(p);
}

static void commit(struct producer *p, uint32_t what) {
    if (!p->claimed)
        return;
    p->claimed = false;
    struct model_record *r = &model.record[p->claim.offset];
    if (what % 3 == 0 && p->plan.count == 1 &&
        r->value.data != NULL) /* shorter than it was claimed */
        p->plan.record[0].value_length = r->value.length -= what % (r->value.length + 1);
    publish(p);
    for (uint32_t i = 0; i < p->plan.count; i++)
        r[i].state = MODEL_RECORD;
}

static void give_up(struct producer *p) {
    if (!p->claimed)
        return;
    p->claimed = false;
    eg_writer_abort(&p->w.w, &p->claim);
    model_pad(&model, p->claim.offset, p->plan.count);
}

/* In the order in which a put comes by them, and what is true behind them. */
static const struct {
    const char *step;
    enum { NOTHING, SEALED, OPENED, MOVED, CLAIMED, PUBLISHED } then;
} steps[] = {
    {"pin.stored", NOTHING},     {"pin.checked", NOTHING}, {"eos.set", SEALED},
    {"next.seen", SEALED},       {"base.set", SEALED},     {"slot.opened", OPENED},
    {"active.moved", MOVED},     {"claim.done", CLAIMED},  {"hint.stored", CLAIMED},
    {"publish.done", PUBLISHED}, {"unpinned", PUBLISHED},
};

static void die_at_step(struct producer *p, uint32_t size, uint32_t what) {
    if (p->claimed || !may_die() || model_is_full(&model))
        return;
    jmp_buf there;
    size_t i = what % (sizeof(steps) / sizeof(*steps));
    struct fake_interpose at = {.name = steps[i].step, .hit = 1, .act = fake_jump, .ctx = &there};
    struct model_record made = {0};
    struct fake_record record;
    make_record(size % (uint32_t)(eg_record_bytes_max(model.capacity) - 200), what, &made, &record);
    uint64_t length = eg_frame_length(fake_payload(&record), bus->align);
    int64_t real = MODEL_BLOCKED;
    fake_at(&at);
    volatile int rc = EAGRE_OK;
    if (setjmp(there) == 0)
        rc = fake_put(&p->w.w, &record, &real);
    fake_at_none();
    if (at.done && steps[i].then <= MOVED) {
        model.sealed = model.sealed || steps[i].then >= SEALED;
        model.opened = model.opened || steps[i].then == OPENED;
        if (steps[i].then == MOVED)
            model_rotate(&model);
    } else {
        int64_t offset = model_claim(&model, length, 1, p->owner);
        SAME(rc, offset == MODEL_BLOCKED ? EAGRE_E_WOULD_BLOCK : EAGRE_OK, "put that may die");
        if (!at.done)
            SAME(real, offset, "the put's offset");
        if (offset != MODEL_BLOCKED) {
            made.state = at.done && steps[i].then == CLAIMED ? MODEL_OPEN : MODEL_RECORD;
            made.owner = p->owner;
            made.first = true;
            model.record[offset] = made;
        }
    }
    if (at.done)
        kill_producer(p);
}

/* ---- repair -------------------------------------------------------------------------------------------- */

static bool is_dead(void *ctx, uint32_t owner) {
    (void)ctx;
    for (size_t i = 0; i < deads; i++)
        if (dead[i].owner == owner)
            return true;
    return false;
}

static void repair_all(void) {
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        uint64_t pads;
        if (bus->buffers[n].fd < 0)
            continue;
        uint64_t allocated = eg_load_acquire(&fake_header(bus, n)->allocated);
        SAME(eg_repair_segment(bus->buffers[n].base, bus->capacity, allocated, bus->align, is_dead,
                               NULL, &pads),
             EAGRE_OK, "repair");
    }
}

static void repair(uint32_t what) {
    jmp_buf there;
    struct fake_interpose at = {
        .name = "repair.claim_k", .hit = 1 + what % 3, .act = fake_jump, .ctx = &there};
    fake_at(&at); /* what is cut off in its middle is done again */
    if (setjmp(there) == 0)
        repair_all();
    fake_at_none();
    repair_all();
    for (size_t i = 0; i < deads; i++) {
        model_repair(&model, dead[i].owner);
        eg_store_release(dead[i].cell, EG_PIN_NONE);
        cells[free_cells++] = dead[i].cell;
    }
    deads = 0;
}

/* ---- readers -------------------------------------------------------------------------------------------- */

static void same_bytes(const void *real, uint32_t length, const struct model_blob *naive,
                       int64_t offset, const char *what) {
    if ((real == NULL) != (naive->data == NULL) || length != naive->length ||
        (real != NULL && memcmp(real, naive->data, length) != 0))
        differ("offset %lld: its %s (%s, %u bytes) is not what was put (%s, %u bytes)",
               (long long)offset, what, real == NULL ? "none" : "there", length,
               naive->data == NULL ? "none" : "there", naive->length);
}

static void same_records(const struct reader *r) {
    for (size_t i = 0; i < r->n; i++) {
        const struct model_record *naive = &model.record[r->offsets[i]];
        SAME(r->got[i].offset, r->offsets[i], "a record's offset");
        SAME(r->got[i].timestamp_ns, naive->timestamp_ns, "a record's time");
        same_bytes(r->got[i].key, r->got[i].key_len, &naive->key, r->offsets[i], "key");
        same_bytes(r->got[i].value, r->got[i].value_len, &naive->value, r->offsets[i], "value");
        same_bytes(r->got[i].headers, r->got[i].headers_len, &naive->headers, r->offsets[i],
                   "headers");
    }
}

static void play_the_bug(struct reader *r, size_t *n) {
    for (size_t i = 0; i < *n; i++) {
        if (plant == NAIVE_CRASHES && r->got[i].value_len >= PLANT_SIZE)
            (void)raise(SIGSEGV);
        if (plant == NAIVE_LOSES && r->got[i].value_len >= PLANT_SIZE &&
            model.record[r->got[i].offset].owner > PRODUCERS)
            *n = i; /* only from there on, and only of who came later */
    }
}

static void poll_reader(struct reader *r, uint32_t what) {
    size_t max = 1 + what % MODEL_POLL_MAX, n = 0;
    int rc = eg_reader_poll(&r->r.r, r->got, max, &n);
    if (plant != NAIVE_SOUND)
        play_the_bug(r, &n);
    bool in_range = model_poll(&model, &r->m, max, r->offsets, &r->n);
    SAME(rc, in_range ? EAGRE_OK : EAGRE_E_OFFSET_OUT_OF_RANGE, "poll");
    SAME(n, r->n, "records of a poll");
    SAME(r->r.r.pinned, r->m.pinned, "whether the reader is pinned");
    if (in_range)
        SAME(r->r.r.offset, r->m.offset, "the reader's offset");
    same_records(r);
}

static void seek(struct reader *r, uint32_t what) {
    int64_t offset = model.start - 3 + what % (model.end - model.start + 7);
    const struct producer *p = &producer[what / 2 % producers];
    if (what % 2 == 1 && p->claimed) /* into what is not published yet */
        offset = p->claim.offset + what / 8 % p->claim.count;
    eg_reader_seek(&r->r.r, offset);
    r->m.offset = offset;
    r->m.placed = r->m.pinned = false;
    r->n = 0;
}

static void unpin(struct reader *r) {
    eg_reader_unpin(&r->r.r);
    r->m.pinned = false;
    r->n = 0;
}

/* Who sleeps until has_news() must not oversleep; and what was polled stays as it was. */
static void look_at_reader(struct reader *r) {
    struct model_reader ahead = r->m;
    int64_t offsets[MODEL_POLL_MAX];
    size_t n;
    bool in_range = model_poll(&model, &ahead, 1, offsets, &n);
    if ((!in_range || n > 0) && !eg_reader_has_news(&r->r.r))
        differ("a reader at offset %lld is not told that there is news", (long long)r->m.offset);
    same_records(r);
}

/* ---- the daemon ------------------------------------------------------------------------------------------ */

static void retire(bool may_swap) {
    if (model.first < model.active)
        model_retire(&model, fake_retire(bus, may_swap));
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static void look_at_log(void) {
    struct eg_check_report report;
    uint64_t records, pads, claimed;
    int64_t end = -1;
    SAME(eg_log_end(&reader[0].r.map, look_cell, false, &end), EAGRE_OK, "the log's end");
    SAME(end, model.end, "the log's end");
    SAME(eg_reader_beginning(&reader[0].r.r), model.start, "the log's beginning");
    if (fake_problems(bus, &report) > 0)
        differ("the checker: %s", report.first);
    model_count(&model, &records, &pads, &claimed);
    SAME(report.records, records, "records in the ring");
    SAME(report.pads, pads, "pads in the ring");
    SAME(report.claimed, claimed, "open claims in the ring");
    for (uint32_t i = 0; i < READERS; i++)
        look_at_reader(&reader[i]);
}

static void act(const struct naive_op *op) {
    struct producer *p = &producer[op->who % producers];
    struct reader *r = &reader[op->who % READERS];
    switch ((enum naive_kind)op->kind) {
    case NAIVE_PUT:
        claim(p, op->size, op->what, true);
        break;
    case NAIVE_CLAIM:
        claim(p, op->size, op->what, false);
        break;
    case NAIVE_COMMIT:
        commit(p, op->what);
        break;
    case NAIVE_ABORT:
        give_up(p);
        break;
    case NAIVE_KILL:
        if (may_die())
            kill_producer(p);
        break;
    case NAIVE_DIE:
        die_at_step(p, op->size, op->what);
        break;
    case NAIVE_REPAIR:
        repair(op->what);
        break;
    case NAIVE_POLL:
        poll_reader(r, op->what);
        break;
    case NAIVE_SEEK:
        seek(r, op->what);
        break;
    case NAIVE_UNPIN:
        unpin(r);
        break;
    case NAIVE_KEEP:
        r->m.keep = r->r.r.keep_pin = !r->m.keep;
        break;
    case NAIVE_RETIRE:
        retire(false);
        break;
    case NAIVE_SWAP:
        retire(true);
        break;
    case NAIVE_FREE:
        fake_free_detached(bus);
        break;
    case NAIVE_KIND_COUNT:
        break;
    }
}

void naive_run(const struct naive_list *l, int fd) {
    report_fd = fd;
    plant = l->plant;
    (void)alarm(HANG_S);
    (void)eg_membarrier_register();
    bus = fake_bus_open(l->capacity, l->slots, l->align, 0);
    if (l->single)
        eg_store_relaxed(&bus->topic->flags, EG_TOPIC_SINGLE_WRITER);
    producers = l->single ? 1 : PRODUCERS;
    model_init(&model, l->capacity, l->slots);
    look_cell = fake_cell(bus);
    for (uint32_t i = 0; i < producers; i++)
        open_producer(&producer[i]);
    for (uint32_t i = 0; i < READERS; i++)
        fake_reader_open(bus, &reader[i].r, 0);
    for (now = 0; now < l->count; now++) {
        act(&l->op[now]);
        look_at_log();
    }
}
