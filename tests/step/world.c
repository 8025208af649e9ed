#include "step/world.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FETCH_MS 2

char step_when[160] = "at first";

void step_ok(int rc, const char *call) {
    if (rc != EAGRE_OK)
        fail_msg("%s: %s: %s: %s", step_when, call, eagre_status_name(rc), eagre_error_detail());
}

static void no_log(int rc, const char *dir) {
    if (rc != 0)
        fail_msg("%s: no log", dir);
}

/* ---- producing --------------------------------------------------------------------------------------- */

void step_source_open(struct step_source *s, eagre_t *e, const char *dir, uint32_t id) {
    s->id = id;
    no_log(history_producer_open(&s->log, dir, id, STEP_LOG_RECORDS), dir);
    /* Of a topic with one writer: until the one before is buried. */
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    int rc, tries = 0;
    options.max_block_ms = s->hasty ? 0 : options.max_block_ms;
    while ((rc = eagre_producer_open(e, STEP_TOPIC, &options, &s->p)) == EAGRE_E_BUSY &&
           tries++ < EG_TEST_LIMIT_MS)
        poll(NULL, 0, 1);
    STEP_OK(rc);
}

void step_source_close(struct step_source *s) {
    eagre_producer_close(s->p);
    history_close(&s->log);
    s->p = NULL;
}

/* tries: while there is no room. */
static int produce(struct step_source *s, size_t size, int tries, int64_t *offset) {
    uint8_t value[STEP_FILLER];
    uint64_t sequence = history_next(&s->log);
    uint64_t hash = history_fill(value, size, NULL, 0, (struct history_id){s->id, 0, sequence});
    eagre_message_t m = {.value = value, .value_len = size};
    int rc;
    history_intend(&s->log, 0, 0, hash);
    while (eagre_status_is_retriable(rc = eagre_produce(s->p, &m, NULL, offset)) && --tries > 0)
        poll(NULL, 0, 1);
    if (rc == EAGRE_OK)
        history_acked(&s->log, sequence, 0, *offset);
    else
        history_failed(&s->log, sequence, rc);
    return rc;
}

int64_t step_produce(struct step_source *s, size_t size) {
    int64_t offset = -1;
    STEP_OK(produce(s, size, EG_TEST_LIMIT_MS, &offset));
    return offset;
}

void step_use_up(struct step_world *w) {
    int64_t offset;
    int rc;
    while ((rc = produce(&w->source, STEP_FILLER - STEP_FRAME_HEADER, 1, &offset)) == EAGRE_OK)
        step_glance(w);
    if (!eagre_status_is_retriable(rc))
        STEP_OK(rc);
}

/* Where in its segment something lies: the segment's header begins with its magic. */
static uint64_t position_of(const void *at) {
    const uint8_t *page = (const uint8_t *)((uintptr_t)at & ~(uintptr_t)4095);
    while (memcmp(page, "EAGREseg", 8) != 0)
        page -= 4096;
    return (uint64_t)((const uint8_t *)at - page);
}

/* Produce a record that takes `frame` bytes; how much room is left behind it. */
static uint64_t produce_by_claim(struct step_source *s, uint32_t frame) {
    eagre_claim_t claim;
    size_t size = frame - STEP_FRAME_HEADER;
    uint8_t value[STEP_FILLER];
    uint64_t sequence = history_next(&s->log);
    uint64_t hash = history_fill(value, size, NULL, 0, (struct history_id){s->id, 0, sequence});
    history_intend(&s->log, 0, 0, hash);
    int rc, tries = EG_TEST_LIMIT_MS;
    while (eagre_status_is_retriable(rc = eagre_producer_claim(s->p, 0, SIZE_MAX, size, &claim)) &&
           --tries > 0)
        poll(NULL, 0, 1);
    STEP_OK(rc);
    memcpy(claim.value, value, size);
    uint64_t end = position_of(claim.value) - STEP_FRAME_HEADER + frame;
    STEP_OK(eagre_producer_commit(s->p, &claim));
    history_acked(&s->log, sequence, 0, claim.offset);
    return STEP_SEGMENT - end;
}

void step_fill(struct step_source *s, uint32_t room, void (*relax)(void *ctx), void *ctx) {
    uint64_t left = produce_by_claim(s, 128);
    while (left != room) {
        /* A frame of 64 bytes is too small for our values. */
        uint64_t most = left > room ? left - room : 0;
        if (most > STEP_FILLER)
            most = most - STEP_FILLER < 128 ? STEP_FILLER - 128 : STEP_FILLER;
        if (most < 128)
            most = STEP_FILLER; /* it cannot be had in this one: go on in the next */
        left = produce_by_claim(s, (uint32_t)most);
        relax(ctx);
    }
}

/* ---- consuming --------------------------------------------------------------------------------------- */

void step_sink_open(struct step_sink *k, eagre_t *e, const char *dir, uint32_t id) {
    eagre_consumer_options_t options = EAGRE_CONSUMER_OPTIONS_INIT;
    *k = (struct step_sink){0};
    options.auto_offset_reset = EAGRE_RESET_NONE;
    no_log(history_consumer_open(&k->log, dir, id, STEP_LOG_RECORDS), dir);
    STEP_OK(eagre_consumer_open(e, &options, &k->c));
    STEP_OK(eagre_consumer_assign(k->c, STEP_TOPIC, 0));
}

void step_look_again(struct step_sink *k) {
    for (size_t i = 0; i < k->held; i++)
        history_again(&k->log, k->entries[i], k->records[i].value, k->records[i].value_len,
                      k->records[i].key, k->records[i].key_len);
    k->held = 0;
}

void step_sink_close(struct step_sink *k) {
    step_look_again(k);
    eagre_consumer_close(k->c);
    history_close(&k->log);
    k->c = NULL;
}

int64_t step_position(struct step_sink *k) {
    int64_t position = -1;
    STEP_OK(eagre_consumer_position(k->c, STEP_TOPIC, 0, &position));
    return position;
}

void step_seek(struct step_sink *k, int64_t offset) {
    step_look_again(k);
    STEP_OK(eagre_consumer_seek(k->c, STEP_TOPIC, 0, offset));
    history_pass(&k->log, 0, 0, step_position(k));
}

/* Its position is not in the log any more: go on where the log begins. */
static void miss(struct step_sink *k) {
    int64_t from = step_position(k), to;
    if (!k->may_miss)
        fail_msg("%s: a reader that kept up: %s", step_when, eagre_error_detail());
    STEP_OK(eagre_consumer_beginning_offset(k->c, STEP_TOPIC, 0, &to));
    STEP_OK(eagre_consumer_seek(k->c, STEP_TOPIC, 0, to));
    history_gap(&k->log, 0, 0, from, to);
}

void step_came(struct step_sink *k, int rc, size_t n) {
    if (rc == EAGRE_E_OFFSET_OUT_OF_RANGE)
        miss(k);
    else
        STEP_OK(rc);
    for (size_t i = 0; i < n; i++) {
        const eagre_record_t *r = &k->records[i];
        k->entries[i] =
            history_saw(&k->log, 0, 0, r->offset, r->value, r->value_len, r->key, r->key_len);
    }
    k->held = n;
}

size_t step_poll(struct step_sink *k, size_t max, int32_t timeout_ms) {
    size_t n = 0;
    step_look_again(k);
    int rc = eagre_consumer_poll(k->c, k->records, max, timeout_ms, &n);
    step_came(k, rc, n);
    return n;
}

static void look_at_watermarks(struct step_world *w) {
    int64_t start, end, before = history_now();
    STEP_OK(eagre_consumer_beginning_offset(w->sink.c, STEP_TOPIC, 0, &start));
    STEP_OK(eagre_consumer_end_offset(w->sink.c, STEP_TOPIC, 0, &end));
    history_watermark(&w->sink.log, 0, 0, start, end, step_position(&w->sink), before,
                      history_now());
}

void step_glance(struct step_world *w) {
    while (step_poll(&w->sink, 32, 0) > 0) {}
}

void step_drain(struct step_world *w) {
    int64_t lag;
    for (;;) {
        step_glance(w);
        STEP_OK(eagre_consumer_lag(w->sink.c, STEP_TOPIC, 0, &lag));
        /* A poll that does not wait does not wait for a buffer that must be fetched, either. */
        if (lag == 0 || step_poll(&w->sink, 32, FETCH_MS) == 0)
            break;
    }
}

void step_read_to(struct step_world *w, int64_t end) {
    int64_t deadline = history_now() + EG_TEST_LIMIT_MS * 1000000ll;
    while (step_position(&w->sink) < end) {
        step_poll(&w->sink, 32, 100);
        if (history_now() > deadline)
            fail_msg("%s: the reader does not come from offset %" PRId64 " to %" PRId64, step_when,
                     step_position(&w->sink), end);
    }
}

void step_read_all(struct step_world *w) {
    int64_t end;
    STEP_OK(eagre_consumer_end_offset(w->sink.c, STEP_TOPIC, 0, &end));
    step_read_to(w, end);
}

void step_laps(struct step_world *w, unsigned segments, bool reading) {
    for (unsigned i = 0; i < segments * 8; i++) {
        w->last = step_produce(&w->source, STEP_FILLER - STEP_FRAME_HEADER);
        if (reading)
            step_drain(w);
    }
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static void open_logs(struct step_world *w) {
    snprintf(w->dir, sizeof(w->dir), "%s/log-%u", w->bus.dir, w->logs++);
    if (mkdir(w->dir, 0700) != 0)
        fail_msg("%s: no directory", w->dir);
}

static void remove_logs(const char *dir) {
    char path[128];
    for (uint32_t id = STEP_PRODUCER; id <= STEP_HOLDER_2; id++)
        for (const char *kind = "pc"; *kind != '\0'; kind++) {
            snprintf(path, sizeof(path), "%s/%c-%u", dir, *kind, id);
            unlink(path);
        }
    rmdir(dir);
}

void step_world_open(struct step_world *w, bool single_writer) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"},
                                        {"ring.segments", "3"},
                                        {"writers", single_writer ? "single" : "multi"}};
    *w = (struct step_world){0};
    eg_bus_init(&w->bus);
    eg_bus_start(&w->bus, NULL);
    open_logs(w);
    STEP_OK(eagre_open(w->bus.socket, &w->e));
    STEP_OK(eagre_topic_create(w->e, STEP_TOPIC, settings, 4));
    step_sink_open(&w->sink, w->e, w->dir, STEP_CONSUMER);
    step_seek(&w->sink, 0);
    if (single_writer)
        return;
    w->source.hasty = true;
    step_source_open(&w->source, w->e, w->dir, STEP_PRODUCER);
    /* Every buffer of the ring is mapped once it went round. */
    step_laps(w, 4, true);
}

void step_world_close(struct step_world *w) {
    if (w->source.p != NULL)
        step_source_close(&w->source);
    step_sink_close(&w->sink);
    STEP_OK(eagre_close(w->e));
    if (eg_bus_stop(&w->bus) != 0)
        fail_msg("eagred did not end well");
    remove_logs(w->dir);
    eg_bus_remove(&w->bus);
}

/* The history holds only as long as nobody goes on: the last word is taken back afterwards. */
static void check(struct step_world *w) {
    struct history_report report;
    struct history_log *log = &w->sink.log;
    history_complete(log, 0, 0, step_position(&w->sink));
    struct history_options options = {.no_gaps = !w->gaps, .need_complete = true, .out = stderr};
    if (history_check(w->dir, &options, &report) != 0) {
        history_print(stderr, &report);
        fail_msg("%s: the history is wrong", step_when);
    }
    struct history_seen *last = (struct history_seen *)log->base + --log->count;
    memset(last, 0, sizeof(*last));
}

void step_check(struct step_world *w) {
    step_read_all(w);
    step_look_again(&w->sink);
    look_at_watermarks(w);
    check(w);
    w->rounds++;
}

void step_new_logs(struct step_world *w) {
    char old[sizeof(w->dir)];
    if (w->rounds < STEP_ROUNDS_A_LOG)
        return;
    memcpy(old, w->dir, sizeof(old));
    open_logs(w);
    history_close(&w->sink.log);
    no_log(history_consumer_open(&w->sink.log, w->dir, STEP_CONSUMER, STEP_LOG_RECORDS), w->dir);
    history_pass(&w->sink.log, 0, 0, step_position(&w->sink));
    if (w->source.p != NULL) {
        history_close(&w->source.log);
        no_log(history_producer_open(&w->source.log, w->dir, STEP_PRODUCER, STEP_LOG_RECORDS),
               w->dir);
    }
    remove_logs(old);
    w->rounds = 0;
    w->gaps = false;
}
