/* A consumer: reads all partitions of all topics. A successor goes on where the log of the one before ends. */
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "eagre/consumer.h"
#include "sys/atomic.h"
#include "torture/client.h"

#define POLL_MAX 64u

struct part {
    uint32_t topic;
    int32_t partition;
    char name[16];
};

struct reader {
    struct torture_client *k;
    eagre_consumer_t *c;
    struct part parts[TORTURE_TOPICS * TORTURE_PARTITIONS];
    uint32_t count;
    int fd; /* -1: it sleeps in poll */
};

static void set_position(struct reader *r, uint32_t topic, int32_t partition, int64_t position) {
    eg_store_release(&r->k->control->topic[topic].position[r->k->index][partition], position);
}

/* ---- which partitions ------------------------------------------------------------------------------------ */

static bool has(const struct reader *r, uint32_t topic, int32_t partition) {
    for (uint32_t i = 0; i < r->count; i++)
        if (r->parts[i].topic == topic && r->parts[i].partition == partition)
            return true;
    return false;
}

static void begin(struct reader *r, uint32_t topic, int32_t partition) {
    struct part *p = &r->parts[r->count];
    p->topic = topic;
    p->partition = partition;
    torture_topic_name(p->name, topic);
    if (!torture_ok(eagre_consumer_assign(r->c, p->name, partition), "eagre_consumer_assign"))
        return; /* again later */
    r->count++;
    int64_t position = history_position(&r->k->log, topic, partition);
    if (position < 0)
        history_pass(&r->k->log, topic, partition, position = 0);
    while (!torture_ok(eagre_consumer_seek(r->c, p->name, partition, position),
                       "eagre_consumer_seek")) {}
    set_position(r, topic, partition, position);
}

/* Topics come and grow. */
static bool find_partitions(struct reader *r) {
    const struct torture_control *s = r->k->control;
    bool all = true;
    for (uint32_t i = 0; i < s->topics; i++) {
        uint32_t partitions = eg_load_acquire(&s->topic[i].partitions);
        for (uint32_t j = 0; j < partitions; j++) {
            if (!has(r, i, (int32_t)j))
                begin(r, i, (int32_t)j);
            all = all && has(r, i, (int32_t)j);
        }
    }
    return all;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* Which one it was is not told: those whose place is not in the log any more. */
static void fell_behind(struct reader *r) {
    bool found = false;
    char detail[512];
    (void)snprintf(detail, sizeof(detail), "%s", eagre_error_detail());
    for (uint32_t i = 0; i < r->count; i++) {
        const struct part *p = &r->parts[i];
        int64_t position, start, before = history_now();
        if (eagre_consumer_position(r->c, p->name, p->partition, &position) != EAGRE_OK ||
            eagre_consumer_beginning_offset(r->c, p->name, p->partition, &start) != EAGRE_OK)
            torture_complain("%s partition %d: no position: %s", p->name, p->partition,
                             eagre_error_detail());
        if (position >= start)
            continue;
        found = true;
        history_watermark(&r->k->log, p->topic, p->partition, start, -1, -1, before, history_now());
        history_gap(&r->k->log, p->topic, p->partition, position, start);
        while (!torture_ok(eagre_consumer_seek(r->c, p->name, p->partition, start),
                           "eagre_consumer_seek")) {}
        set_position(r, p->topic, p->partition, start);
    }
    if (!found)
        torture_complain("out of range, but no position is before the log's start: %s", detail);
}

static int poll_some(struct reader *r, eagre_record_t *records, uint32_t max, int timeout_ms,
                     size_t *n) {
    if (r->fd < 0)
        return eagre_consumer_poll(r->c, records, max, timeout_ms, n);
    int rc = eagre_consumer_poll(r->c, records, max, 0, n);
    if (rc == EAGRE_OK && *n == 0) {
        struct pollfd wait = {.fd = r->fd, .events = POLLIN};
        (void)poll(&wait, 1, timeout_ms);
    }
    return rc;
}

/* Returns how many came. */
static size_t read_some(struct reader *r, uint32_t max, int timeout_ms) {
    struct torture_client *k = r->k;
    eagre_record_t records[POLL_MAX];
    uint64_t entries[POLL_MAX];
    size_t n;
    int rc = poll_some(r, records, max, timeout_ms, &n);
    if (rc == EAGRE_E_OFFSET_OUT_OF_RANGE) {
        fell_behind(r);
        return 1;
    }
    if (!torture_ok(rc, "eagre_consumer_poll"))
        return 1;
    for (size_t i = 0; i < n; i++) {
        const eagre_record_t *x = &records[i];
        uint32_t topic = (uint32_t)(x->topic[1] - '0');
        entries[i] = history_saw(&k->log, topic, x->partition, x->offset, x->value, x->value_len,
                                 x->key, x->key_len);
        set_position(r, topic, x->partition, x->offset + 1);
    }
    if (n > 0 && torture_chance(k, k->control->holds ? 4 : 64))
        torture_pause_us(torture_pick(k, k->control->holds ? 20000 : 3000));
    for (size_t i = 0; i < n; i++) {
        const eagre_record_t *x = &records[i];
        history_again(&k->log, entries[i], x->value, x->value_len, x->key, x->key_len);
    }
    return n;
}

/* False: it was not to be had. */
static bool look_at(struct reader *r, const struct part *p, int64_t *position, int64_t *end) {
    int64_t start = -1, before = history_now();
    *end = -1;
    if (eagre_consumer_beginning_offset(r->c, p->name, p->partition, &start) != EAGRE_OK ||
        eagre_consumer_position(r->c, p->name, p->partition, position) != EAGRE_OK)
        torture_complain("%s partition %d: %s", p->name, p->partition, eagre_error_detail());
    bool known = torture_ok(eagre_consumer_end_offset(r->c, p->name, p->partition, end),
                            "eagre_consumer_end_offset");
    history_watermark(&r->k->log, p->topic, p->partition, start, *end, *position, before,
                      history_now());
    return known;
}

/* Nothing comes any more: true if it has all. */
static bool finished(struct reader *r) {
    int64_t position, end;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct part *p = &r->parts[i];
        if (!look_at(r, p, &position, &end) || position < end)
            return false;
        if (position > end)
            torture_complain("%s partition %d: position %" PRId64 ", but it ends at %" PRId64,
                             p->name, p->partition, position, end);
    }
    for (uint32_t i = 0; i < r->count; i++) {
        look_at(r, &r->parts[i], &position, &end);
        history_complete(&r->k->log, r->parts[i].topic, r->parts[i].partition, position);
    }
    return true;
}

void torture_consume(struct torture_client *k) {
    struct torture_control *s = k->control;
    struct reader r = {.k = k, .fd = -1};
    uint64_t capacity = (uint64_t)s->records_max * s->producers * 2 + 100000;
    if (history_consumer_open(&k->log, k->dir, k->index, capacity) != 0)
        torture_complain("no log");
    eagre_consumer_options_t options = EAGRE_CONSUMER_OPTIONS_INIT;
    options.auto_offset_reset = EAGRE_RESET_NONE;
    options.wait = torture_chance(k, 4) && !s->sleeps ? EAGRE_WAIT_YIELD : EAGRE_WAIT_SLEEP;
    while (!torture_ok(eagre_consumer_open(k->e, &options, &r.c), "eagre_consumer_open")) {}
    if (!s->sleeps && torture_chance(k, 4) &&
        !torture_ok(eagre_consumer_fd(r.c, &r.fd), "eagre_consumer_fd"))
        r.fd = -1;
    for (;;) {
        bool all = find_partitions(&r);
        bool drain =
            torture_phase(k) == TORTURE_DRAIN; /* before the poll: nothing comes behind it */
        uint32_t max = 1 + torture_pick(k, POLL_MAX);
        if (r.count == 0)
            torture_pause_us(500);
        else if (read_some(&r, max, (int)torture_pick(k, 30)) == 0 && drain && all && finished(&r))
            break;
        if (r.count > 0 && torture_chance(k, 50)) {
            int64_t position, end;
            look_at(&r, &r.parts[torture_pick(k, r.count)], &position, &end);
        }
    }
    eagre_consumer_close(r.c);
}
