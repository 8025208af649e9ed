/* A producer: all the ways to produce, in random order, each told to the log before and after. */
#include <string.h>

#include "eagre/producer.h"
#include "sys/atomic.h"
#include "torture/client.h"

#define BATCH_MAX 16u
#define VALUE_MAX (128u << 10)
#define REST_NS 250000000

static uint8_t values[BATCH_MAX][VALUE_MAX];

struct target {
    uint32_t number;
    struct torture_topic *topic;
    eagre_producer_t *p;
};

/* ---- how far ahead of the consumers ------------------------------------------------------------------- */

static bool has_room(const struct torture_client *k, const struct target *target) {
    struct torture_topic *t = target->topic;
    /* It may have grown by a request whose answer nobody got. Consumers shall know before we go on. */
    uint32_t partitions = (uint32_t)eagre_producer_partitions(target->p);
    uint32_t known = eg_load_acquire(&t->partitions);
    while (known < partitions && !eg_cas_acq_rel(&t->partitions, &known, partitions)) {}
    for (uint32_t i = 0; t->window > 0 && i < partitions; i++) {
        int64_t end = eg_load_acquire(&t->end[i]);
        for (uint32_t c = 0; c < k->control->consumers; c++)
            if (end - eg_load_acquire(&t->position[c][i]) >= (int64_t)t->window)
                return false;
    }
    return true;
}

static void acknowledged(struct torture_client *k, struct torture_topic *t, uint64_t sequence,
                         int32_t partition, int64_t offset) {
    history_acked(&k->log, sequence, partition, offset);
    if (partition < 0 || partition >= TORTURE_PARTITIONS)
        torture_complain("acknowledged in partition %d", partition);
    int64_t seen = eg_load_relaxed(&t->end[partition]);
    while (seen <= offset && !eg_cas_acq_rel(&t->end[partition], &seen, offset + 1)) {}
}

/* ---- ways to produce -------------------------------------------------------------------------------------- */

/* NULL, or one of some keys. */
static const char *some_key(struct torture_client *k, char *buf, size_t cap) {
    if (torture_chance(k, 2))
        return NULL;
    (void)snprintf(buf, cap, "key %u", torture_pick(k, 50));
    return buf;
}

static uint32_t some_size(struct torture_client *k, uint32_t max) {
    uint32_t most = torture_chance(k, 8) ? max : torture_chance(k, 2) ? 100 : 400;
    if (most > max)
        most = max;
    return HISTORY_VALUE_MIN + torture_pick(k, most - HISTORY_VALUE_MIN + 1);
}

static int32_t some_partition(struct torture_client *k, const struct target *t) {
    return torture_chance(k, 3)
               ? EAGRE_PARTITION_ANY
               : (int32_t)torture_pick(k, (uint32_t)eagre_producer_partitions(t->p));
}

static bool single(struct torture_client *k, const struct target *t) {
    char text[16];
    const char *key = some_key(k, text, sizeof(text));
    size_t key_length = key != NULL ? strlen(key) : 0;
    uint32_t size = some_size(k, t->topic->value_max);
    eagre_message_t m = {.key = key,
                         .key_len = key_length,
                         .value = values[0],
                         .value_len = size,
                         .partition = some_partition(k, t)};
    uint64_t hash = history_fill(values[0], size, key, key_length,
                                 (struct history_id){k->index, t->number, history_next(&k->log)});
    uint64_t sequence = history_intend(&k->log, t->number, m.partition, hash);
    int32_t partition;
    int64_t offset;
    int rc = eagre_produce(t->p, &m, &partition, &offset);
    if (rc == EAGRE_OK)
        acknowledged(k, t->topic, sequence, partition, offset);
    else
        history_failed(&k->log, sequence, rc);
    return torture_ok(rc, "eagre_produce");
}

static bool batch(struct torture_client *k, const struct target *t) {
    eagre_message_t m[BATCH_MAX];
    char keys[BATCH_MAX][16];
    uint32_t n = 2 + torture_pick(k, t->topic->window > 0 ? 4 : BATCH_MAX - 1);
    uint64_t first = history_next(&k->log);
    int32_t partition = (int32_t)torture_pick(k, (uint32_t)eagre_producer_partitions(t->p));
    for (uint32_t i = 0; i < n; i++) {
        const char *key = some_key(k, keys[i], sizeof(keys[i]));
        size_t key_length = key != NULL ? strlen(key) : 0;
        uint32_t size = some_size(k, t->topic->value_max < 300 ? t->topic->value_max : 300);
        uint64_t hash = history_fill(values[i], size, key, key_length,
                                     (struct history_id){k->index, t->number, first + i});
        m[i] = (eagre_message_t){
            .key = key, .key_len = key_length, .value = values[i], .value_len = size};
        history_intend_batch(&k->log, t->number, partition, hash, i, n);
    }
    int64_t offset;
    int rc = eagre_produce_batch(t->p, partition, m, n, &offset);
    for (uint32_t i = 0; i < n; i++)
        if (rc == EAGRE_OK)
            acknowledged(k, t->topic, first + i, partition, offset + i);
        else
            history_failed(&k->log, first + i, rc);
    return torture_ok(rc, "eagre_produce_batch");
}

static bool claim(struct torture_client *k, const struct target *t) {
    eagre_claim_t c;
    char key[16];
    size_t key_length = SIZE_MAX;
    if (some_key(k, key, sizeof(key)) != NULL)
        key_length = strlen(key);
    uint32_t size = some_size(k, t->topic->value_max);
    uint32_t claimed = size + (torture_chance(k, 4) && size < t->topic->value_max ? 1 : 0);
    uint64_t sequence = history_next(&k->log);
    size_t length = key_length != SIZE_MAX ? key_length : 0;
    uint64_t hash = history_fill(values[0], size, key, length,
                                 (struct history_id){k->index, t->number, sequence});
    history_intend(&k->log, t->number, -1, hash);
    int rc = eagre_producer_claim(t->p, some_partition(k, t), key_length, claimed, &c);
    if (rc != EAGRE_OK) {
        history_failed(&k->log, sequence, rc);
        return torture_ok(rc, "eagre_producer_claim");
    }
    history_claimed(&k->log, sequence, c.partition, c.offset);
    if (length > 0)
        memcpy(c.key, key, length);
    memcpy(c.value, values[0], size / 2);
    if (torture_chance(k, 4))
        torture_pause_us(torture_pick(k, torture_chance(k, 8) ? 20000 : 2000));
    memcpy((uint8_t *)c.value + size / 2, values[0] + size / 2, size - size / 2);
    if (torture_chance(k, 5)) {
        history_aborted(&k->log, sequence);
        return torture_ok(eagre_producer_abort(t->p, &c), "eagre_producer_abort");
    }
    c.value_len = size;
    rc = eagre_producer_commit(t->p, &c);
    if (rc == EAGRE_OK)
        acknowledged(k, t->topic, sequence, c.partition, c.offset);
    return torture_ok(rc, "eagre_producer_commit");
}

/* ---- the process ---------------------------------------------------------------------------------------------- */

static bool ready(struct torture_client *k, struct target *t) {
    static const int32_t blocks[] = {0, 1, 20, 1000};
    char name[16];
    if (t->p != NULL)
        return true;
    if (eg_load_acquire(&t->topic->partitions) == 0 || (t->topic->single && k->index != 0))
        return false;
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    options.max_block_ms = blocks[torture_pick(k, 4)];
    options.wait = torture_chance(k, 4) ? EAGRE_WAIT_YIELD : EAGRE_WAIT_SLEEP;
    options.partitioner =
        torture_chance(k, 2) ? EAGRE_PARTITIONER_ROUND_ROBIN : EAGRE_PARTITIONER_MURMUR2;
    return torture_ok(
        eagre_producer_open(k->e, torture_topic_name(name, t->number), &options, &t->p),
        "eagre_producer_open");
}

static void send_some(struct torture_client *k, const struct target *t) {
    uint32_t way = torture_pick(k, 6);
    for (uint32_t n = 1 + torture_pick(k, 40); n > 0; n--) {
        if (!has_room(k, t) || k->log.capacity - k->log.count < BATCH_MAX) {
            torture_pause_us(50);
            return;
        }
        bool sent = way == 0 ? batch(k, t) : way == 1 ? claim(k, t) : single(k, t);
        if (!sent && torture_phase(k) != TORTURE_RUN)
            return;
    }
}

void torture_produce(struct torture_client *k) {
    struct torture_control *s = k->control;
    struct target targets[TORTURE_TOPICS] = {0};
    if (history_producer_open(&k->log, k->dir, k->index, s->records_max + BATCH_MAX) != 0)
        torture_complain("no log");
    for (uint32_t i = 0; i < TORTURE_TOPICS; i++)
        targets[i] = (struct target){.number = i, .topic = &s->topic[i]};
    while (torture_phase(k) == TORTURE_RUN) {
        struct target *t = &targets[torture_pick(k, s->topics)];
        bool rest = s->rests && history_now() / REST_NS % 2 != 0;
        if (rest || !ready(k, t)) {
            torture_pause_us(100);
            continue;
        }
        send_some(k, t);
        if (torture_chance(k, 200)) { /* a handle more or less */
            eagre_producer_close(t->p);
            t->p = NULL;
        }
        if (s->slow || torture_chance(k, 4))
            torture_pause_us(torture_pick(k, s->slow ? 4000 : 500));
    }
    for (uint32_t i = 0; i < s->topics; i++)
        eagre_producer_close(targets[i].p);
}
