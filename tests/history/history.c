#include "history/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "history/entry.h"
#include "sys/atomic.h"
#include "sys/rand.h"

_Static_assert(sizeof(struct history_sent) == 64, "entries have the same size");
_Static_assert(sizeof(struct history_seen) == 64, "entries have the same size");

/* ---- the payload ------------------------------------------------------------------------------------------ */

#define MAGIC 0x59524f5453494845ull

struct head {
    uint64_t magic;
    uint32_t producer;
    uint32_t topic;
    uint64_t sequence;
    uint64_t size;
    uint64_t hash; /* of key and value, with 0 here */
};
_Static_assert(sizeof(struct head) == HISTORY_VALUE_MIN, "a value has room for its head");

/* Not the product's checksum: what it does not see, this should. */
static uint64_t mix(uint64_t h, const void *data, size_t size) {
    const uint8_t *p = data;
    uint64_t word;
    for (; size >= 8; p += 8, size -= 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9fb21c651e98df25ull;
        h ^= h >> 32;
    }
    for (; size > 0; p++, size--)
        h = (h ^ *p) * 0x100000001b3ull;
    return h;
}

static uint64_t hash_from(uint64_t h, const void *value, size_t size, const void *key,
                          size_t key_length) {
    uint64_t lengths[2] = {key_length, size};
    h = mix(h, lengths, sizeof(lengths));
    if (key_length > 0)
        h = mix(h, key, key_length);
    if (size > 0)
        h = mix(h, value, size);
    h ^= h >> 29;
    return h != 0 ? h : 1;
}

uint64_t history_hash(const void *value, size_t size, const void *key, size_t key_length) {
    return hash_from(0x243f6a8885a308d3ull, value, size, key, key_length);
}

/* The hash within: of everything but itself. */
static uint64_t inner_hash(struct head head, const uint8_t *value, size_t size, const void *key,
                           size_t key_length) {
    head.hash = 0;
    return hash_from(mix(0, &head, sizeof(head)), value + sizeof(head), size - sizeof(head), key,
                     key_length);
}

uint64_t history_fill(void *value, size_t size, const void *key, size_t key_length,
                      struct history_id id) {
    struct head head = {MAGIC, id.producer, id.topic, id.sequence, size, 0};
    uint8_t *bytes = value;
    uint64_t random = mix(size, &head, sizeof(head));
    for (size_t at = sizeof(head); at < size; at += 8) {
        uint64_t word = eg_rand_next(&random);
        memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
    }
    head.hash = inner_hash(head, bytes, size, key, key_length);
    memcpy(bytes, &head, sizeof(head));
    return history_hash(value, size, key, key_length);
}

bool history_parse(const void *value, size_t size, const void *key, size_t key_length,
                   struct history_id *id) {
    struct head head;
    if (value == NULL || size < sizeof(head))
        return false;
    memcpy(&head, value, sizeof(head));
    if (head.magic != MAGIC || head.size != size ||
        head.hash != inner_hash(head, value, size, key, key_length))
        return false;
    *id = (struct history_id){head.producer, head.topic, head.sequence};
    return true;
}

/* ---- a log ---------------------------------------------------------------------------------------------------- */

static _Noreturn void unusable(const char *why) {
    (void)fprintf(stderr, "history: %s\n", why);
    abort();
}

static int open_log(struct history_log *log, const char *dir, char kind, uint32_t id,
                    uint64_t capacity) {
    char path[512];
    struct stat st;
    *log = (struct history_log){0};
    (void)snprintf(path, sizeof(path), "%s/%c-%u", dir, kind, id);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    /* A log that exists keeps its size at least. */
    if (fstat(fd, &st) != 0 ||
        ((uint64_t)st.st_size < capacity * 64 && ftruncate(fd, (off_t)capacity * 64) != 0)) {
        close(fd);
        return -1;
    }
    log->capacity = (uint64_t)st.st_size / 64 > capacity ? (uint64_t)st.st_size / 64 : capacity;
    void *base = mmap(NULL, log->capacity * 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (base == MAP_FAILED)
        return -1;
    log->base = base;
    /* State and kind are the first word of an entry. */
    while (log->count < log->capacity &&
           eg_load_acquire(&((struct history_sent *)base + log->count)->state) != 0)
        log->count++;
    return 0;
}

int history_producer_open(struct history_log *log, const char *dir, uint32_t id,
                          uint64_t capacity) {
    return open_log(log, dir, 'p', id, capacity);
}

int history_consumer_open(struct history_log *log, const char *dir, uint32_t id,
                          uint64_t capacity) {
    return open_log(log, dir, 'c', id, capacity);
}

void history_close(struct history_log *log) {
    if (log->base != NULL)
        munmap(log->base, log->capacity * 64);
    *log = (struct history_log){0};
}

static uint64_t next_entry(struct history_log *log) {
    if (log->base == NULL || log->count == log->capacity)
        unusable("a log is not open or full");
    return log->count++;
}

/* ---- a producer's --------------------------------------------------------------------------------------------- */

static struct history_sent *sent_at(struct history_log *log, uint64_t sequence) {
    if (sequence >= log->count)
        unusable("no such record");
    return (struct history_sent *)log->base + sequence;
}

uint64_t history_intend_batch(struct history_log *log, uint32_t topic, int32_t partition,
                              uint64_t hash, uint32_t i, uint32_t n) {
    uint64_t sequence = next_entry(log);
    struct history_sent *s = sent_at(log, sequence);
    s->topic = topic;
    s->partition = partition;
    s->hash = hash;
    s->offset = -1;
    s->batch = sequence - i;
    s->batch_size = n;
    eg_store_release(&s->state, HISTORY_INTENT);
    return sequence;
}

uint64_t history_intend(struct history_log *log, uint32_t topic, int32_t partition, uint64_t hash) {
    return history_intend_batch(log, topic, partition, hash, 0, 1);
}

static void placed(struct history_log *log, uint64_t sequence, int32_t partition, int64_t offset,
                   uint32_t state) {
    struct history_sent *s = sent_at(log, sequence);
    s->partition = partition;
    s->offset = offset;
    eg_store_release(&s->state, state);
}

void history_claimed(struct history_log *log, uint64_t sequence, int32_t partition,
                     int64_t offset) {
    placed(log, sequence, partition, offset, HISTORY_CLAIMED);
}

void history_acked(struct history_log *log, uint64_t sequence, int32_t partition, int64_t offset) {
    placed(log, sequence, partition, offset, HISTORY_ACKED);
}

void history_failed(struct history_log *log, uint64_t sequence, int status) {
    struct history_sent *s = sent_at(log, sequence);
    s->status = status;
    eg_store_release(&s->state, HISTORY_FAILED);
}

void history_aborted(struct history_log *log, uint64_t sequence) {
    eg_store_release(&sent_at(log, sequence)->state, HISTORY_ABORTED);
}

/* ---- a consumer's --------------------------------------------------------------------------------------------- */

int64_t history_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint64_t history_put(struct history_log *log, enum history_kind kind,
                     const struct history_seen *seen) {
    uint64_t number = next_entry(log);
    struct history_seen *s = (struct history_seen *)log->base + number;
    s->topic = seen->topic;
    s->partition = seen->partition;
    s->producer = seen->producer;
    s->offset = seen->offset;
    s->sequence = seen->sequence;
    s->hash = seen->hash;
    s->hash_then = seen->hash_then;
    s->before_ns = seen->before_ns;
    s->after_ns = seen->after_ns;
    eg_store_release(&s->kind, (uint32_t)kind);
    return number;
}

void history_pass(struct history_log *log, uint32_t topic, int32_t partition, int64_t offset) {
    history_put(log, HISTORY_PASS,
                &(struct history_seen){.topic = topic, .partition = partition, .offset = offset});
}

struct history_seen history_record(uint32_t topic, int32_t partition, int64_t offset,
                                   const void *value, size_t size, const void *key,
                                   size_t key_length) {
    struct history_seen s = {.topic = topic,
                             .partition = partition,
                             .producer = HISTORY_DAMAGED,
                             .offset = offset,
                             .hash = history_hash(value, size, key, key_length)};
    struct history_id id;
    if (history_parse(value, size, key, key_length, &id) && id.topic == topic) {
        s.producer = id.producer;
        s.sequence = id.sequence;
    }
    return s;
}

uint64_t history_saw(struct history_log *log, uint32_t topic, int32_t partition, int64_t offset,
                     const void *value, size_t size, const void *key, size_t key_length) {
    struct history_seen s = history_record(topic, partition, offset, value, size, key, key_length);
    s.after_ns = history_now();
    return history_put(log, HISTORY_RECORD, &s);
}

void history_again(struct history_log *log, uint64_t entry, const void *value, size_t size,
                   const void *key, size_t key_length) {
    if (entry >= log->count)
        unusable("no such entry");
    ((struct history_seen *)log->base)[entry].hash_then =
        history_hash(value, size, key, key_length);
}

void history_gap(struct history_log *log, uint32_t topic, int32_t partition, int64_t from,
                 int64_t to) {
    history_put(
        log, HISTORY_GAP,
        &(struct history_seen){
            .topic = topic, .partition = partition, .offset = from, .sequence = (uint64_t)to});
}

void history_watermark(struct history_log *log, uint32_t topic, int32_t partition,
                       int64_t log_start, int64_t end, int64_t position, int64_t before_ns,
                       int64_t after_ns) {
    history_put(log, HISTORY_WATERMARK,
                &(struct history_seen){.topic = topic,
                                       .partition = partition,
                                       .offset = log_start,
                                       .sequence = (uint64_t)end,
                                       .hash = (uint64_t)position,
                                       .before_ns = before_ns,
                                       .after_ns = after_ns});
}

void history_complete(struct history_log *log, uint32_t topic, int32_t partition, int64_t end) {
    history_put(log, HISTORY_COMPLETE,
                &(struct history_seen){.topic = topic, .partition = partition, .offset = end});
}

int64_t history_position(const struct history_log *log, uint32_t topic, int32_t partition) {
    for (uint64_t i = log->count; i-- > 0;) {
        const struct history_seen *s = (const struct history_seen *)log->base + i;
        if (s->topic != topic || s->partition != partition)
            continue;
        switch (eg_load_relaxed(&s->kind)) {
        case HISTORY_RECORD:
            return s->offset + 1;
        case HISTORY_GAP:
            return (int64_t)s->sequence;
        case HISTORY_PASS:
            return s->offset;
        default:
            break;
        }
    }
    return -1;
}
