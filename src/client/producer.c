/* producer.c - the public producer: choose a partition, encode, claim, publish, wait for room. */
#include "eagre/producer.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/producer.h"
#include "sys/clock.h"
#include "sys/futex.h"
#include "sys/hash.h"
#include "sys/rand.h"

#define STICKY_BYTES 65536u /* keyless records stay in one partition for so many bytes */
#define BATCH_RECORDS_MAX 65535u
#define SESSION_RETRY_NS 20000000 /* between looks whether a daemon answers */
#define SMALL_FRAME 256u /* frames up to here are made before their place is claimed: produce_small */

/* ---- open and close ---------------------------------------------------------------------------- */

static int grow(eagre_producer_t *p, uint32_t partitions) {
    if (partitions <= p->partitions)
        return EAGRE_OK;
    struct eg_writer **w = realloc(p->writers, partitions * sizeof(*w));
    if (w == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a producer of %u partitions", partitions);
    memset(w + p->partitions, 0, (partitions - p->partitions) * sizeof(*w));
    p->writers = w;
    p->partitions = partitions;
    return EAGRE_OK;
}

static int writer_open(eagre_producer_t *p, uint32_t partition, int64_t until);

int eagre_producer_open(eagre_t *e, const char *topic, const eagre_producer_options_t *options,
                        eagre_producer_t **out) {
    static const eagre_producer_options_t defaults = EAGRE_PRODUCER_OPTIONS_INIT;
    if (e == NULL || topic == NULL || out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_producer_open: instance, topic and out must be given");
    int rc = eg_session_forked(e);
    if (rc != EAGRE_OK)
        return rc;
    if (options == NULL)
        options = &defaults;
    if (options->size != sizeof(*options))
        return eg_error_set(EAGRE_E_INVALID, "eagre_producer_open: options.size is %zu, not %zu: use "
                                             "EAGRE_PRODUCER_OPTIONS_INIT",
                            options->size, sizeof(*options));
    if (options->max_block_ms < -1 || options->wait > EAGRE_WAIT_SPIN ||
        options->partitioner > EAGRE_PARTITIONER_ROUND_ROBIN || options->acks > EAGRE_ACKS_DISK)
        return eg_error_set(EAGRE_E_INVALID, "eagre_producer_open: topic '%s': max_block_ms %d, wait %d, "
                                             "partitioner %d or acks %d is out of range",
                            topic, options->max_block_ms, (int)options->wait, (int)options->partitioner,
                            (int)options->acks);
    eagre_producer_t *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a producer");
    p->e = e;
    p->options = *options;
    p->fork_guard = e->fork_guard;
    rc = eg_random_bytes(&p->random, sizeof(p->random));
    if (rc != EAGRE_OK)
        goto failed;
    rc = eg_topic_open(e, EG_ROLE_PRODUCER, topic, &p->until, &p->topic);
    if (rc == EAGRE_OK && p->options.acks == EAGRE_ACKS_DISK)
        rc = eg_producer_has_disk(p);
    if (rc != EAGRE_OK)
        goto failed;
    rc = eg_pin_cell_get(e, &p->pin);
    if (rc != EAGRE_OK)
        goto failed;
    rc = grow(p, eg_topic_partitions(p->topic));
    if (rc != EAGRE_OK)
        goto failed;
    /* The partition that it will write to, if that is known: then its first record need not wait. */
    if (p->partitions == 1) {
        rc = writer_open(p, 0, eg_mono_ns() + eg_request_limit_ns);
        if (rc != EAGRE_OK)
            goto failed;
    }
    eg_fetch_add_relaxed(&e->handles, 1);
    *out = p;
    return EAGRE_OK;

failed:
    if (p->pin != NULL)
        eg_pin_cell_put(e, p->pin);
    eg_topic_close(p->topic);
    if (p->partitions == 1)
        free(p->writers[0]);
    free(p->writers);
    free(p);
    return rc;
}

void eagre_producer_close(eagre_producer_t *p) {
    if (p == NULL)
        return;
    bool forked = *p->fork_guard == 0;
    if (!forked) {
        if (p->claim_open)
            eg_writer_abort(p->claim_writer, &p->claim);
        eg_pin_cell_put(p->e, p->pin);
        eg_fetch_add_relaxed(&p->e->handles, -1);
    }
    for (uint32_t i = 0; i < p->partitions; i++)
        free(p->writers[i]);
    free(p->writers);
    eg_topic_close(p->topic);
    free(p);
}

int32_t eagre_producer_partitions(eagre_producer_t *p) {
    return p == NULL ? 0 : (int32_t)eg_topic_partitions(p->topic);
}

/* ---- which partition ------------------------------------------------------------------------------- */

int32_t eagre_partition_for_key(const void *key, size_t key_len, int32_t partitions) {
    if (partitions <= 0 || (key == NULL && key_len > 0))
        return 0;
    return (int32_t)eg_partition_of_key(key, key_len, (uint32_t)partitions);
}

static uint32_t next_sticky(eagre_producer_t *p, uint32_t partitions, uint64_t bytes) {
    if (p->sticky_left < bytes || p->sticky >= partitions) {
        uint32_t before = p->sticky;
        p->sticky = (uint32_t)(eg_rand_next(&p->random) % partitions);
        if (p->sticky == before)
            p->sticky = (p->sticky + 1) % partitions;
        p->sticky_left = STICKY_BYTES;
    }
    p->sticky_left -= bytes < p->sticky_left ? (uint32_t)bytes : p->sticky_left;
    return p->sticky;
}

/* The instance is another one now: everything mapped is of dead memory. */
static int reopen(eagre_producer_t *p) {
    bool lost = eg_producer_owes(p);
    int rc = eg_topic_reopen(p->topic);
    if (rc != EAGRE_OK)
        return rc;
    p->lost |= lost;
    for (uint32_t i = 0; i < p->partitions; i++)
        if (p->writers[i] != NULL)
            eg_writer_init(p->writers[i], p->writers[i]->map, p->pin, p->e->owner, p->e->full_fence);
    return EAGRE_OK;
}

int64_t eg_producer_until(int32_t timeout_ms) {
    return timeout_ms < 0 ? INT64_MAX : timeout_ms == 0 ? 0 : eg_mono_ns() + (int64_t)timeout_ms * 1000000;
}

/* Until when a call that begins now may wait. */
static int64_t block_until(const eagre_producer_t *p) {
    return p->options.acks == EAGRE_ACKS_DISK ? p->call_until : eg_producer_until(p->options.max_block_ms);
}

/* Nobody rings: there is nobody. False: the time is over. */
static bool nap(int64_t until) {
    static _Atomic uint32_t nobody;
    int64_t left = until - eg_mono_ns();
    if (left > 0)
        eg_futex_wait(&nobody, 0, left < SESSION_RETRY_NS ? left : SESSION_RETRY_NS);
    return left > 0;
}

/* What is written from here on goes to the present instance. */
static __attribute__((cold)) int catch_up(eagre_producer_t *p, int64_t until) {
    int rc;
    do {
        eg_producer_begin_waiting(p, until);
        rc = eg_producer_check_session(p);
    } while (rc == EAGRE_E_NO_DAEMON && nap(until));
    eg_producer_end_waiting(p);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "topic '%s'", p->topic->name);
}

/* A call with acks=disk begins: its time runs from here. */
static __attribute__((cold)) int begin_disk(eagre_producer_t *p) {
    p->call_until = eg_producer_until(p->options.max_block_ms);
    return eg_load_relaxed(&p->e->generation) == p->topic->generation ? EAGRE_OK : catch_up(p, p->call_until);
}

void eg_producer_begin_waiting(eagre_producer_t *p, int64_t until) {
    int64_t slice = eg_mono_ns() + EG_SLEEP_MAX_NS;
    p->until = (struct eg_until){.ns = until < slice ? until : slice};
}

void eg_producer_end_waiting(eagre_producer_t *p) { p->until = (struct eg_until){0}; }

int eg_producer_check_session(eagre_producer_t *p) {
    int rc = eg_session_check(p->e, p->until.ns);
    if (eg_load_relaxed(&p->e->generation) == p->topic->generation)
        return rc;
    rc = reopen(p);
    p->outdated = rc != EAGRE_OK && rc != EAGRE_E_WOULD_BLOCK;
    return rc == EAGRE_E_WOULD_BLOCK ? EAGRE_E_NO_DAEMON : rc;
}

/* The detail stays. */
static int in_vain(int rc, int64_t until) {
    return rc == EAGRE_E_WOULD_BLOCK && until != 0 ? EAGRE_E_TIMED_OUT : rc;
}

/* First use of a partition: the daemon hands out its memory. While none answers, wait as for room. */
static __attribute__((cold)) int writer_open(eagre_producer_t *p, uint32_t partition, int64_t until) {
    struct eg_partition_map *m;
    int rc;
    for (;;) {
        eg_producer_begin_waiting(p, until);
        rc = eg_topic_partition(p->topic, partition, &m);
        if ((rc != EAGRE_E_NO_DAEMON && rc != EAGRE_E_WOULD_BLOCK) || until <= eg_mono_ns())
            break;
        if (rc == EAGRE_E_NO_DAEMON)
            nap(until);
        int session = eg_producer_check_session(p);
        if (session != EAGRE_OK && session != EAGRE_E_NO_DAEMON) {
            rc = session;
            break;
        }
    }
    eg_producer_end_waiting(p);
    if (rc != EAGRE_OK)
        return eg_error_add(in_vain(rc, until), "topic '%s'", p->topic->name);
    struct eg_writer *w = malloc(sizeof(*w));
    if (w == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a writer");
    eg_writer_init(w, m, p->pin, p->e->owner, p->e->full_fence);
    eg_topic_used_by(m, &w->base);
    p->writers[partition] = w;
    return EAGRE_OK;
}

static __attribute__((cold)) int partition_missing(const eagre_producer_t *p, int32_t partition) {
    return eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %d, not %d",
                        p->topic->name, (int)p->partitions - 1, partition);
}

/* The writer for this record; bytes and key as the partitioner wants to know them. */
static inline int pick(eagre_producer_t *p, int32_t partition, const void *key, size_t key_len,
                       uint64_t bytes, struct eg_writer **out) {
    uint32_t count = eg_load_relaxed(&p->topic->status->partitions);
    if (__builtin_expect(count != p->partitions, 0)) {
        count = eg_topic_partitions(p->topic);
        int rc = grow(p, count);
        if (rc != EAGRE_OK)
            return rc;
        count = p->partitions;
    }
    uint32_t chosen;
    if (partition >= 0)
        chosen = (uint32_t)partition;
    else if (partition != EAGRE_PARTITION_ANY)
        return partition_missing(p, partition);
    else if (count == 1)
        chosen = 0;
    else if (p->options.partitioner == EAGRE_PARTITIONER_ROUND_ROBIN)
        chosen = p->sticky = (p->sticky + 1) % count;
    else if (key != NULL)
        chosen = (uint32_t)eagre_partition_for_key(key, key_len, (int32_t)count);
    else
        chosen = next_sticky(p, count, bytes);
    if (__builtin_expect(chosen >= count, 0))
        return partition_missing(p, partition);
    if (__builtin_expect(p->writers[chosen] == NULL, 0)) {
        int rc = writer_open(p, chosen, block_until(p));
        if (rc != EAGRE_OK)
            return rc;
    }
    *out = p->writers[chosen];
    return EAGRE_OK;
}

/* ---- waiting for room ------------------------------------------------------------------------------- */

/* Why there is no room, for who waited in vain. */
static int no_room(const eagre_producer_t *p, const struct eg_writer *w, int status, int session) {
    char away[96];
    if (session != EAGRE_OK)
        return eg_error_set(session, "topic '%s' partition %u: its ring is used up and no daemon prepares "
                                     "the next segment%s: start eagred again",
                            p->topic->name, w->map->number, eg_session_away(p->e, away, sizeof(away)));
    if (eg_topic_waits(w->map))
        return eg_error_set(status, "topic '%s' partition %u: the daemon (pid %u) has not handed out the next "
                                    "segment's memory yet: is it stopped?",
                            p->topic->name, w->map->number, eg_load_relaxed(&p->e->daemon_pid));
    const char *disk = eg_producer_disk_trouble(w->map);
    if (disk != NULL)
        return eg_error_set(status, "topic '%s' partition %u: no free segment: its segments must reach the disk before "
                                    "they are used again, and %s",
                            p->topic->name, w->map->number, disk);
    char pids[128] = "";
    size_t used = 0;
    for (int i = 0; i < 8; i++) {
        uint32_t pid = eg_load_relaxed(&w->map->status->blocked_pid[i]);
        if (pid != 0 && used < sizeof(pids))
            used += (size_t)snprintf(pids + used, sizeof(pids) - used, "%s%u", used ? ", " : "", pid);
    }
    if (used > 0)
        return eg_error_set(status, "topic '%s' partition %u: no free segment: held by clients with pid %s, "
                                    "beyond pinned.bytes.max or memory.max",
                            p->topic->name, w->map->number, pids);
    return eg_error_set(status, "topic '%s' partition %u: no free segment: the daemon (pid %u) has not "
                                "prepared one yet; more ring.segments give more slack",
                        p->topic->name, w->map->number, eg_load_relaxed(&p->e->daemon_pid));
}

/* The claim failed with rc: wait if that helps, as long as max.block.ms allows. */
static __attribute__((cold, noinline)) int claim_wait(eagre_producer_t *p, struct eg_writer *w, uint64_t length,
                                                      uint32_t count, struct eg_claim *c, int rc) {
    int64_t until = block_until(p);
    while (rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON) {
        /* NO_DAEMON: it went on to a buffer that only a daemon, or another instance's, can give us.
         * `room` first: what happens after this load ends the wait below. */
        eg_producer_begin_waiting(p, until);
        struct eg_partition_status *status = w->map->status;
        uint32_t seen = eg_load_acquire(&status->room);
        int session = eg_producer_check_session(p);
        if (session != EAGRE_OK && session != EAGRE_E_NO_DAEMON) {
            rc = session;
            break;
        }
        if (status != w->map->status) {
            status = w->map->status;
            seen = eg_load_acquire(&status->room);
        }
        rc = eg_writer_claim(w, length, count, c);
        if (rc != EAGRE_E_WOULD_BLOCK && rc != EAGRE_E_NO_DAEMON)
            break;
        int64_t left = until - eg_mono_ns();
        if (left <= 0) {
            eg_producer_end_waiting(p);
            return no_room(p, w, in_vain(EAGRE_E_WOULD_BLOCK, until), session);
        }
        if (eg_topic_waits(w->map) && session == EAGRE_OK)
            continue; /* it has waited */
        if (p->options.wait == EAGRE_WAIT_SLEEP)
            eg_futex_wait(&status->room, seen, left < EG_SLEEP_MAX_NS ? left : EG_SLEEP_MAX_NS);
        else if (p->options.wait == EAGRE_WAIT_YIELD)
            sched_yield();
        else
            eg_cpu_pause();
    }
    eg_producer_end_waiting(p);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "topic '%s'", p->topic->name);
}

static inline int claim(eagre_producer_t *p, struct eg_writer *w, uint64_t length, uint32_t count,
                        struct eg_claim *c) {
    int rc = eg_writer_claim(w, length, count, c);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return claim_wait(p, w, length, count, c, rc);
    return EAGRE_OK;
}

/* ---- encoding ---------------------------------------------------------------------------------------- */

static __attribute__((cold)) int too_large(const eagre_producer_t *p, uint64_t bytes, uint64_t max, const char *limit) {
    return eg_error_set(EAGRE_E_RECORD_TOO_LARGE,
                        "topic '%s': record of %" PRIu64 " bytes is over the limit of %" PRIu64 " (%s)",
                        p->topic->name, bytes, max, limit);
}

static __attribute__((cold)) int headers_size(const eagre_producer_t *p, const eagre_message_t *m, uint64_t *bytes) {
    uint64_t sum = 4;
    if (m->headers == NULL)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s': header_count is %zu, headers is NULL",
                            p->topic->name, m->header_count);
    for (size_t i = 0; i < m->header_count; i++) {
        const eagre_header_t *h = &m->headers[i];
        if (h->name == NULL || h->name_len > EG_SEGMENT_BYTES_MAX || h->value_len > EG_SEGMENT_BYTES_MAX ||
            sum > EG_SEGMENT_BYTES_MAX)
            return eg_error_set(EAGRE_E_INVALID, "topic '%s': header %zu has no name or is too large",
                                p->topic->name, i);
        sum += 8 + h->name_len + (h->value != NULL ? h->value_len : 0);
    }
    *bytes = sum;
    return EAGRE_OK;
}

static __attribute__((cold)) void headers_write(const eagre_message_t *m, uint64_t bytes, uint8_t *to) {
    uint32_t n = (uint32_t)(bytes - 4);
    memcpy(to, &n, 4);
    to += 4;
    for (size_t i = 0; i < m->header_count; i++) {
        const eagre_header_t *h = &m->headers[i];
        uint32_t lengths[2] = {(uint32_t)h->name_len,
                               h->value != NULL ? (uint32_t)h->value_len : EG_NULL_LENGTH};
        memcpy(to, lengths, 8);
        memcpy(to + 8, h->name, h->name_len);
        to += 8 + h->name_len;
        if (h->value != NULL) {
            memcpy(to, h->value, h->value_len);
            to += h->value_len;
        }
    }
}

/* Bytes of key, value and headers as they lie in the frame; within the topic's limits. */
static inline int payload_of(const eagre_producer_t *p, const eagre_message_t *m, uint64_t *payload,
                             uint64_t *headers) {
    uint64_t klen = m->key != NULL ? m->key_len : 0;
    uint64_t vlen = m->value != NULL ? m->value_len : 0;
    uint64_t max = eg_load_relaxed(&p->topic->status->max_message_bytes);
    *headers = *payload = 0;
    if (__builtin_expect(m->header_count > 0, 0)) {
        int rc = headers_size(p, m, headers);
        if (rc != EAGRE_OK)
            return rc;
    }
    /* klen and vlen are bounded one by one, so the sum cannot wrap. */
    if (__builtin_expect(klen > max || vlen > max || klen + vlen + *headers > max, 0))
        return too_large(p, klen > max ? klen : vlen > max ? vlen : klen + vlen + *headers, max, "max.message.bytes");
    *payload = klen + vlen + *headers;
    if (__builtin_expect(eg_frame_length(*payload, p->topic->align) > eg_record_bytes_max(p->topic->capacity), 0))
        return too_large(p, *payload, eg_record_bytes_max(p->topic->capacity) - EG_FRAME_HEADER,
                         "an eighth of segment.bytes less the frame's header");
    return EAGRE_OK;
}

static inline int64_t now(const eagre_producer_t *p) {
    return eg_load_relaxed(&p->topic->status->flags) & EG_TOPIC_TIMESTAMP_NS ? eg_now_ns() : eg_now_coarse_ns();
}

/* Write all but the word; returns the word. */
static inline uint64_t write_frame(const struct eg_writer *w, struct eg_frame *f, uint64_t pos, uint64_t length,
                                   uint32_t index, const eagre_message_t *m, int64_t timestamp_ns,
                                   uint64_t payload, uint64_t headers) {
    uint8_t *to = f->payload;
    uint32_t klen = EG_NULL_LENGTH, vlen = EG_NULL_LENGTH;
    if (m->key != NULL) {
        klen = (uint32_t)m->key_len;
        memcpy(to, m->key, klen);
        to += klen;
    }
    EG_FAULT("frame.half");
    if (m->value != NULL) {
        vlen = (uint32_t)m->value_len;
        memcpy(to, m->value, vlen);
        to += vlen;
    }
    if (__builtin_expect(headers > 0, 0))
        headers_write(m, headers, to);
    return eg_frame_finish(f, pos, length, index, w->seed, w->owner, timestamp_ns, klen, vlen, headers > 0, payload);
}

/*
 * A small record, the common case: its bytes are copied and its CRC is made first, for the place where the
 * claim will probably be. Then the claim, a few stores and the publish follow each other at once: a spinning
 * reader that takes the line away in between costs each side a cache miss. (Copied first, not read twice: an
 * application that changes its value meanwhile gets one or the other, and never a record with a wrong CRC.)
 */
static inline int produce_small(eagre_producer_t *p, struct eg_writer *w, const eagre_message_t *m, uint64_t payload,
                                struct eg_claim *c) {
    _Alignas(EG_LINE) uint8_t image[SMALL_FRAME];
    uint64_t length = eg_frame_length(payload, w->map->align), rounded = eg_align_up(payload, 8), pos;
    uint32_t index, klen = EG_NULL_LENGTH, vlen = EG_NULL_LENGTH, seed = w->seed;
    uint64_t word = eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, length, 1, w->owner);
    uint8_t *to = image;
    eg_writer_guess(w, &pos, &index);
    memset(image + (payload & ~7ull), 0, 8);
    if (m->key != NULL) {
        klen = (uint32_t)m->key_len;
        memcpy(to, m->key, klen);
        to += klen;
    }
    if (m->value != NULL) {
        vlen = (uint32_t)m->value_len;
        memcpy(to, m->value, vlen);
    }
    int64_t timestamp_ns = m->timestamp_ns != 0 ? m->timestamp_ns : now(p);
    uint32_t crc = eg_crc32c_words(eg_frame_head_crc(pos, word, index, seed, timestamp_ns, klen, vlen), image, rounded);
    int rc = claim(p, w, length, 1, c);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    if (__builtin_expect(c->pos != pos || c->index != index || w->seed != seed, 0))
        crc = eg_crc32c_words(eg_frame_head_crc(c->pos, word, c->index, w->seed, timestamp_ns, klen, vlen), image, rounded);
    struct eg_frame *f = c->frame;
    f->crc = crc;
    f->index = c->index;
    f->timestamp_ns = timestamp_ns;
    f->key_length = klen;
    f->value_length = vlen;
    EG_FAULT("frame.half");
    memcpy(f->payload, image, payload);
    eg_writer_publish(w, c, word);
    return EAGRE_OK;
}

/* EAGRE_OK: it can be used again. */
static __attribute__((cold)) int unusable(eagre_producer_t *p, const void *m) {
    if (p == NULL || m == NULL)
        return eg_error_set(EAGRE_E_INVALID, "producer and message must be given");
    if (*p->fork_guard == 0)
        return eg_session_forked(p->e);
    if (p->claim_open)
        return eg_error_set(EAGRE_E_STATE, "topic '%s': a claim is open on this producer: commit or abort it first",
                            p->topic->name);
    return catch_up(p, eg_producer_until(p->options.max_block_ms)); /* what is written to the old memory nobody reads */
}

/* ---- the public ways ------------------------------------------------------------------------------------ */

int eagre_produce(eagre_producer_t *p, const eagre_message_t *m, int32_t *partition, int64_t *offset) {
    int rc = EAGRE_OK;
    if (__builtin_expect(p == NULL || m == NULL || *p->fork_guard == 0 || (p->claim_open | p->outdated), 0))
        rc = unusable(p, m);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    uint64_t payload, headers;
    struct eg_writer *w;
    struct eg_claim c;
    rc = payload_of(p, m, &payload, &headers);
    if (__builtin_expect(rc == EAGRE_OK && p->options.acks == EAGRE_ACKS_DISK, 0))
        rc = begin_disk(p);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    rc = pick(p, m->partition, m->key, m->key_len, payload, &w);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    if (__builtin_expect(payload <= SMALL_FRAME - EG_FRAME_HEADER && headers == 0, 1)) {
        rc = produce_small(p, w, m, payload, &c);
        if (__builtin_expect(rc != EAGRE_OK, 0))
            return rc;
    } else {
        int64_t timestamp_ns = m->timestamp_ns != 0 ? m->timestamp_ns : now(p);
        rc = claim(p, w, eg_frame_length(payload, w->map->align), 1, &c);
        if (__builtin_expect(rc != EAGRE_OK, 0))
            return rc;
        uint64_t word = write_frame(w, c.frame, c.pos, c.length, c.index, m, timestamp_ns, payload, headers);
        eg_writer_publish(w, &c, word);
    }
    if (partition != NULL)
        *partition = (int32_t)w->map->number;
    if (offset != NULL)
        *offset = c.offset;
    return __builtin_expect(p->options.acks == EAGRE_ACKS_DISK, 0) ? eg_producer_await(p, w, p->call_until) : EAGRE_OK;
}

int eagre_produce_batch(eagre_producer_t *p, int32_t partition, const eagre_message_t *m, size_t count,
                        int64_t *first_offset) {
    int rc = EAGRE_OK;
    if (__builtin_expect(p == NULL || m == NULL || *p->fork_guard == 0 || (p->claim_open | p->outdated), 0))
        rc = unusable(p, m);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    if (count == 0 || count > BATCH_RECORDS_MAX)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s': a batch of %zu records, 1 to %u are possible",
                            p->topic->name, count, BATCH_RECORDS_MAX);
    uint64_t total = 0, payload, headers;
    uint32_t align = p->topic->align;
    for (size_t i = 0; i < count; i++) {
        rc = payload_of(p, &m[i], &payload, &headers);
        if (rc != EAGRE_OK)
            return eg_error_add(rc, "record %zu of the batch", i);
        total += eg_frame_length(payload, align);
    }
    uint64_t max = eg_record_bytes_max(p->topic->capacity);
    if (total > max)
        return too_large(p, total, max, "a batch is at most an eighth of segment.bytes, frames' headers included");
    struct eg_writer *w;
    rc = p->options.acks == EAGRE_ACKS_DISK ? begin_disk(p) : EAGRE_OK;
    if (rc == EAGRE_OK)
        rc = pick(p, partition, m[0].key, m[0].key_len, total, &w);
    if (rc != EAGRE_OK)
        return rc;
    int64_t timestamp_ns = now(p);
    struct eg_claim c;
    rc = claim(p, w, total, (uint32_t)count, &c);
    if (rc != EAGRE_OK)
        return rc;
    uint64_t pos = c.pos, first_word = 0;
    for (size_t i = 0; i < count; i++) {
        const eagre_message_t *r = &m[i];
        uint64_t klen = r->key != NULL ? r->key_len : 0, vlen = r->value != NULL ? r->value_len : 0;
        headers = 0;
        if (__builtin_expect(r->header_count > 0, 0))
            headers_size(p, r, &headers);
        payload = klen + vlen + headers;
        uint64_t length = eg_frame_length(payload, align);
        struct eg_frame *f = eg_frame_at(w->base, pos);
        uint64_t word = write_frame(w, f, pos, length, c.index + (uint32_t)i, r,
                                    r->timestamp_ns != 0 ? r->timestamp_ns : timestamp_ns, payload, headers);
        if (i == 0)
            first_word = word; /* while it says "claimed", nobody looks behind it */
        else
            eg_store_relaxed(&f->word, word); /* published with the first one's release */
        pos += length;
        EG_FAULT("batch.k_of_n");
    }
    eg_writer_publish(w, &c, first_word);
    if (first_offset != NULL)
        *first_offset = c.offset;
    return p->options.acks == EAGRE_ACKS_DISK ? eg_producer_await(p, w, p->call_until) : EAGRE_OK;
}

int eagre_producer_claim(eagre_producer_t *p, int32_t partition, size_t key_len, size_t value_len,
                         eagre_claim_t *out) {
    int rc = EAGRE_OK;
    if (__builtin_expect(p == NULL || out == NULL || *p->fork_guard == 0 || (p->claim_open | p->outdated), 0))
        rc = unusable(p, out);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    eagre_message_t shape = EAGRE_MESSAGE_INIT; /* only its sizes are looked at */
    shape.key = key_len != SIZE_MAX ? "" : NULL;
    shape.key_len = key_len;
    shape.value = "";
    shape.value_len = value_len;
    uint64_t payload, headers;
    rc = payload_of(p, &shape, &payload, &headers);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_writer *w;
    if (p->options.acks == EAGRE_ACKS_DISK)
        rc = begin_disk(p);
    if (rc == EAGRE_OK)
        rc = pick(p, partition, NULL, 0, payload, &w);
    if (rc != EAGRE_OK)
        return rc;
    rc = claim(p, w, eg_frame_length(payload, w->map->align), 1, &p->claim);
    if (rc != EAGRE_OK)
        return rc;
    p->claim_writer = w;
    p->claim_open = true;
    uint64_t klen = shape.key != NULL ? key_len : 0;
    p->claim_public = (eagre_claim_t){
        .key = shape.key != NULL ? p->claim.frame->payload : NULL,
        .value = p->claim.frame->payload + klen,
        .key_len = klen,
        .value_len = value_len,
        .offset = p->claim.offset,
        .partition = (int32_t)w->map->number,
    };
    *out = p->claim_public;
    return EAGRE_OK;
}

static int claim_of(eagre_producer_t *p, const eagre_claim_t *c) {
    if (p == NULL || c == NULL)
        return eg_error_set(EAGRE_E_INVALID, "producer and claim must be given");
    if (*p->fork_guard == 0)
        return eg_session_forked(p->e);
    if (!p->claim_open || c->value != p->claim_public.value || c->value_len > p->claim_public.value_len)
        return eg_error_set(EAGRE_E_STATE, "topic '%s': this is not the open claim of this producer, or its "
                                           "value_len grew",
                            p->topic->name);
    return EAGRE_OK;
}

/* The instance ended while the claim was open, and with it the memory that it lies in. */
static __attribute__((cold)) int claim_lost(eagre_producer_t *p) {
    p->claim_open = false;
    eg_writer_abort(p->claim_writer, &p->claim);
    return eg_error_set(EAGRE_E_NO_DAEMON, "topic '%s' partition %u: eagred was stopped, or replaced by another instance, "
                                           "while the claim was open: the record is lost",
                        p->topic->name, p->claim_writer->map->number);
}

int eagre_producer_commit(eagre_producer_t *p, eagre_claim_t *c) {
    int rc = claim_of(p, c);
    if (__builtin_expect(rc != EAGRE_OK, 0))
        return rc;
    if (__builtin_expect(eg_load_relaxed(&p->e->bus->state) == EG_BUS_STOPPED ||
                             eg_load_acquire(&p->e->generation) != p->topic->generation, 0))
        return claim_lost(p);
    struct eg_writer *w = p->claim_writer;
    const eagre_claim_t *pub = &p->claim_public;
    uint64_t word = eg_frame_finish(p->claim.frame, p->claim.pos, p->claim.length, p->claim.index, w->seed, w->owner,
                                    now(p), pub->key != NULL ? (uint32_t)pub->key_len : EG_NULL_LENGTH,
                                    (uint32_t)c->value_len, false, pub->key_len + c->value_len);
    p->claim_open = false;
    eg_writer_publish(w, &p->claim, word);
    return p->options.acks == EAGRE_ACKS_DISK ? eg_producer_await(p, w, eg_producer_until(p->options.max_block_ms))
                                              : EAGRE_OK;
}

int eagre_producer_abort(eagre_producer_t *p, eagre_claim_t *c) {
    int rc = claim_of(p, c);
    if (rc != EAGRE_OK)
        return rc;
    p->claim_open = false;
    eg_writer_abort(p->claim_writer, &p->claim);
    return EAGRE_OK;
}
