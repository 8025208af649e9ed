#include "history/member.h"

#include "history/entry.h"
#include "sys/atomic.h"

static struct history_seen *at(struct history_member *m, uint64_t entry) {
    return (struct history_seen *)m->log->base + entry;
}

static uint64_t put(struct history_member *m, enum history_kind kind, struct history_seen s) {
    s.before_ns = m->poll_ns;
    s.after_ns = history_now();
    return history_put(m->log, kind, &s);
}

void history_member_begin(struct history_member *m, struct history_log *log, uint32_t group,
                          int32_t instance, bool share) {
    *m = (struct history_member){.log = log};
    m->begin = put(
        m, HISTORY_MEMBER,
        (struct history_seen){.topic = group, .partition = instance, .producer = share ? 1 : 0});
}

void history_polls(struct history_member *m) { m->poll_ns = history_now(); }

void history_polled(struct history_member *m, uint32_t generation) {
    if (generation != 0 && generation != m->generation) { /* 0: it has been given nothing yet */
        m->generation = generation;
        put(m, HISTORY_GENERATION, (struct history_seen){.producer = generation});
    }
    m->alive_ns = m->poll_ns;
    /* In place: there are very many polls. */
    eg_store_release((_Atomic int64_t *)&at(m, m->begin)->hash, m->alive_ns);
}

void history_assigned(struct history_member *m, uint32_t topic, int32_t partition,
                      uint32_t generation, int64_t position, int64_t committed) {
    put(m, HISTORY_ASSIGNED,
        (struct history_seen){.topic = topic,
                              .partition = partition,
                              .producer = generation,
                              .offset = position,
                              .sequence = (uint64_t)committed});
}

void history_revoked(struct history_member *m, uint32_t topic, int32_t partition) {
    put(m, HISTORY_REVOKED, (struct history_seen){.topic = topic, .partition = partition});
}

void history_put_out(struct history_member *m, uint32_t topic, int32_t partition) {
    put(m, HISTORY_PUT_OUT,
        (struct history_seen){
            .topic = topic, .partition = partition, .hash = (uint64_t)m->alive_ns});
}

void history_left(struct history_member *m, bool committed) {
    put(m, HISTORY_LEFT,
        (struct history_seen){.producer = committed ? 1 : 0, .hash = (uint64_t)m->alive_ns});
}

/* ---- what is asked first, and answered then ---------------------------------------------------------------- */

static uint64_t ask(struct history_member *m, enum history_kind kind, uint32_t topic,
                    int32_t partition, int64_t offset, uint64_t how) {
    struct history_seen s = {.topic = topic,
                             .partition = partition,
                             .producer = HISTORY_COMMIT_ASKED,
                             .offset = offset,
                             .sequence = how,
                             .before_ns = history_now()};
    return history_put(m->log, kind, &s);
}

static void answer(struct history_member *m, uint64_t entry, enum history_commit state) {
    at(m, entry)->after_ns = history_now();
    eg_store_release((_Atomic uint32_t *)&at(m, entry)->producer, (uint32_t)state);
}

uint64_t history_commit(struct history_member *m, uint32_t topic, int32_t partition,
                        int64_t offset) {
    return ask(m, HISTORY_COMMIT, topic, partition, offset, 0);
}

void history_commit_is(struct history_member *m, uint64_t entry, enum history_commit state) {
    answer(m, entry, state);
}

uint64_t history_end(struct history_member *m, uint32_t topic, int32_t partition, int64_t offset,
                     enum history_end how) {
    return ask(m, HISTORY_END, topic, partition, offset, (uint64_t)how);
}

void history_end_is(struct history_member *m, uint64_t entry, enum history_commit state) {
    answer(m, entry, state);
}

void history_acquired(struct history_member *m, uint32_t topic, int32_t partition, int64_t offset,
                      const void *value, size_t size, const void *key, size_t key_length,
                      uint32_t count) {
    struct history_seen s = history_record(topic, partition, offset, value, size, key, key_length);
    s.hash_then = count;
    put(m, HISTORY_ACQUIRED, s);
}

/* ---- who looks at a group ------------------------------------------------------------------------------------- */

void history_committed(struct history_log *log, uint32_t group, uint32_t topic, int32_t partition,
                       int64_t offset, int64_t before_ns) {
    struct history_seen s = {.topic = topic,
                             .partition = partition,
                             .producer = group,
                             .offset = offset,
                             .before_ns = before_ns,
                             .after_ns = history_now()};
    history_put(log, HISTORY_COMMITTED, &s);
}

void history_generation(struct history_log *log, uint32_t group, uint32_t generation,
                        int64_t before_ns) {
    struct history_seen s = {
        .topic = group, .producer = generation, .before_ns = before_ns, .after_ns = history_now()};
    history_put(log, HISTORY_GENERATION_SEEN, &s);
}

void history_group_complete(struct history_log *log, uint32_t group, uint32_t topic,
                            int32_t partition, int64_t end) {
    struct history_seen s = {.topic = topic,
                             .partition = partition,
                             .producer = group,
                             .offset = end,
                             .after_ns = history_now()};
    history_put(log, HISTORY_GROUP_COMPLETE, &s);
}
