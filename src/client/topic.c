#include "client/topic.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/attach.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/futex.h"
#include "sys/shm.h"

#define OPEN_FDS 5 /* status, ring, waiters; to producers also bells, the topic's eventfd */

static int outdated(const struct eg_topic *t) {
    return eg_error_set(EAGRE_E_NO_DAEMON,
                        "topic '%s': eagred was replaced by another instance, with new "
                        "memory",
                        t->name);
}

static bool is_outdated(const struct eg_topic *t) {
    return t->generation != eg_load_acquire(&t->e->generation);
}

/* ---- buffers ------------------------------------------------------------------------------------- */

static void drop_buffer(const struct eg_topic *t, struct eg_partition_map *m, uint32_t number) {
    struct eg_buffer_map *b = &m->bufs[number];
    if (b->base != NULL)
        eg_unmap(b->base, m->capacity);
    eg_session_close_fd(t->e, b->fd);
    *b = (struct eg_buffer_map){.fd = -1};
}

/* fd is taken over, also on failure. */
static int put_buffer(struct eg_partition_map *m, uint32_t number, int fd) {
    void *base = NULL;
    int rc;
    if (number >= EG_BUFFERS_MAX)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred sent a buffer number %u", number);
    else /* In the old one's place: what points into it (polled records, a writer's segment) stays mapped,
            even if a hostile producer's slot words made us ask for a buffer that is in use. */
        rc = eg_session_map(fd, m->capacity, m->writable, m->bufs[number].base, "buffer", &base);
    if (rc != EAGRE_OK) {
        close(fd);
        return rc;
    }
    struct eg_buffer_map *b = &m->bufs[number];
    if (b->base != NULL && b->fd >= 0)
        close(b->fd);
    *b = (struct eg_buffer_map){.base = base, .fd = -1};
    if (m->writable)
        b->fd = fd; /* to allocate */
    else
        close(fd);
    return EAGRE_OK;
}

/* Ask for one buffer, or (wanted NULL) for all that the ring uses, and map what comes. */
static int get_buffers(struct eg_topic *t, struct eg_partition_map *m, const uint32_t *wanted) {
    uint8_t buf[256];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    int fds[EG_RING_SEGMENTS_MAX];
    size_t nfds = 0;
    uint16_t numbers[EG_RING_SEGMENTS_MAX];

    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_BUFFERS, 0, 0);
    eg_enc_u8(&req, (uint8_t)t->role);
    eg_enc_u32(&req, t->uid);
    eg_enc_u32(&req, m->number);
    eg_enc_u16(&req, wanted == NULL ? 0 : 1);
    if (wanted != NULL)
        eg_enc_u16(&req, (uint16_t)*wanted);
    int rc = eg_session_request(t->e, &req, answer, sizeof(answer), &reply, fds,
                                EG_RING_SEGMENTS_MAX, &nfds);
    if (rc != EAGRE_OK)
        return is_outdated(t) ? outdated(t)
                              : rc; /* the request itself may have found another instance */
    size_t n = eg_dec_u16(&reply);
    for (size_t i = 0; i < n && i < EG_RING_SEGMENTS_MAX; i++)
        numbers[i] = eg_dec_u16(&reply);
    if (!eg_dec_end(&reply) || n != nfds || n > t->slots ||
        (wanted != NULL && (n != 1 || numbers[0] != *wanted)))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "topic '%s': eagred's answer to BUFFERS is malformed",
                          t->name);
    else if (is_outdated(t))
        rc = outdated(t);
    for (size_t i = 0; i < nfds; i++) {
        if (rc == EAGRE_OK)
            rc = put_buffer(m, numbers[i], fds[i]);
        else
            close(fds[i]);
    }
    return rc;
}

static int op_fetch_buffer(struct eg_partition_map *m, uint32_t number) {
    struct eg_topic *t = m->ctx;
    if (is_outdated(t))
        return outdated(t);
    return get_buffers(t, m, &number);
}

static int op_allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    if (number >= EG_BUFFERS_MAX || m->bufs[number].base == NULL || m->bufs[number].fd < 0)
        return eg_error_set(EAGRE_E_STATE, "buffer %u is not mapped", number);
    struct eg_buffer_map *b = &m->bufs[number];
    from &= ~(uint64_t)(EG_PAGE - 1);
    to = to > m->capacity ? m->capacity : eg_align_up(to, EG_PAGE);
    if (from >= to)
        return EAGRE_OK;
    int rc = eg_shm_allocate(b->fd, from, to - from);
    if (rc != EAGRE_OK) {
        const struct eg_topic *t = m->ctx;
        return eg_error_add(rc, "topic '%s' partition %u", t->name, m->number);
    }
    eg_populate(b->base + from, to - from, true);
    if (from <= b->ready_to && to > b->ready_to)
        b->ready_to = to;
    return EAGRE_OK;
}

static void op_wake_daemon(struct eg_partition_map *m) {
    const struct eg_topic *t = m->ctx;
    uint64_t one = 1;
    /* The eventfd's counter being full means that it has been rung: nothing to retry. */
    ssize_t done;
    do
        done = write(t->event_fd, &one, sizeof(one));
    while (done < 0 && errno == EINTR);
}

static void op_ring_bells(struct eg_partition_map *m, uint32_t word, uint64_t mask) {
    if (!m->writable || word >= EG_BELLS_MAX / 64)
        return;
    while (mask != 0) {
        struct eg_bell *bell = &m->bells->bell[word * 64 + (unsigned)__builtin_ctzll(mask)];
        mask &= mask - 1;
        /* Release: its sleeper, who acquires it, sees what was published before. */
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_release);
        eg_futex_wake(&bell->rings, INT_MAX);
    }
}

static const struct eg_map_ops map_ops = {
    .fetch_buffer = op_fetch_buffer,
    .allocate = op_allocate,
    .wake_daemon = op_wake_daemon,
    .ring_bells = op_ring_bells,
};

/* ---- one partition ------------------------------------------------------------------------------- */

static void clear_map(const struct eg_topic *t, struct eg_partition_map *m) {
    if (m->ring != NULL)
        eg_unmap(m->ring, t->ring_stride);
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        drop_buffer(t, m, i);
}

static int check_ring(const struct eg_topic *t, const struct eg_partition_map *m) {
    int rc = eg_magic_check(&m->ring->magic, EG_MAGIC_RING, "ring");
    if (rc == EAGRE_OK &&
        (m->ring->partition_uid != m->uid || m->ring->partition_index != m->index))
        rc = eg_error_set(EAGRE_E_CORRUPT, "ring: is of partition id %u, expected %u",
                          m->ring->partition_uid, m->uid);
    return rc == EAGRE_OK ? rc : eg_error_add(rc, "topic '%s' partition %u", t->name, m->number);
}

/* Fill an empty map. On failure it holds nothing that clear_map does not drop. */
static int fill_map(struct eg_topic *t, uint32_t partition, struct eg_partition_map *m) {
    bool producer = t->role == EG_ROLE_PRODUCER;
    void *ring;

    *m = (struct eg_partition_map){
        .ops = &map_ops,
        .ctx = t,
        .bus = t->e->bus,
        .topic = t->status,
        .status = eg_status_of(t->status, partition),
        .waiters = t->waiters + partition,
        .bells = producer ? t->e->bells_rw : t->e->bells_ro,
        .capacity = t->capacity,
        .slots = t->slots,
        .align = t->align,
        .number = partition,
        .writable = producer,
        .single_writer = t->single_writer,
    };
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        m->bufs[i].fd = -1;
    m->uid = m->status->uid;
    m->index = m->status->index;
    if (m->index >= EG_PARTITIONS_MAX)
        return eg_error_set(EAGRE_E_CORRUPT, "topic '%s' partition %u: index %u is not possible",
                            t->name, partition, m->index);
    int rc = eg_map(t->ring_fd, partition * t->ring_stride, t->ring_stride, producer, &ring);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "topic '%s' partition %u: ring", t->name, partition);
    m->ring = ring;
    rc = check_ring(t, m);
    return rc == EAGRE_OK ? get_buffers(t, m, NULL) : rc;
}

uint32_t eg_topic_partitions(struct eg_topic *t) {
    /* Acquire: with the number we see the new partitions complete. Partner: the daemon's growth. */
    uint32_t n = eg_load_acquire(&t->status->partitions);
    if (n <= t->partitions_mapped)
        return t->partitions_mapped;
    /* Sealed objects cannot grow: what does not fit in ours is not there for us. */
    if (n > EG_TOPIC_PARTITIONS_MAX || eg_status_bytes(n) > t->status_bytes ||
        eg_waiters_bytes(n) > t->waiters_bytes || n > t->ring_bytes / t->ring_stride)
        return t->partitions_mapped;
    struct eg_partition_map **maps = reallocarray(t->maps, n, sizeof(struct eg_partition_map *));
    if (maps == NULL)
        return t->partitions_mapped; /* we look again next time */
    for (uint32_t p = t->partitions_mapped; p < n; p++)
        maps[p] = NULL;
    t->maps = maps;
    t->partitions_mapped = n;
    return n;
}

int eg_topic_partition(struct eg_topic *t, uint32_t partition, struct eg_partition_map **out) {
    if (partition < t->partitions_mapped && t->maps[partition] != NULL) {
        *out = t->maps[partition];
        return EAGRE_OK;
    }
    uint32_t n = eg_topic_partitions(t);
    if (partition >= n)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION,
                            "topic '%s' has no partition %u: it has %u, from 0", t->name, partition,
                            n);
    if (is_outdated(t))
        return outdated(t);
    struct eg_partition_map *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", t->name, strerror(errno));
    int rc = fill_map(t, partition, m);
    if (rc != EAGRE_OK) {
        clear_map(t, m);
        free(m);
        return rc;
    }
    t->maps[partition] = m;
    *out = m;
    return EAGRE_OK;
}

/* ---- the topic ----------------------------------------------------------------------------------- */

static int map_objects(struct eg_topic *t, const int *fds) {
    void *status;
    void *waiters;
    int rc = eg_memfd_check(fds[0], &t->status_bytes);
    if (rc == EAGRE_OK)
        rc = eg_memfd_check(fds[1], &t->ring_bytes);
    if (rc == EAGRE_OK)
        rc = eg_memfd_check(fds[2], &t->waiters_bytes);
    if (rc == EAGRE_OK && (t->status_bytes < EG_PAGE || t->waiters_bytes < EG_PAGE))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "objects from eagred are too small");
    /* Whole: they are made for the most partitions that there can be, memory comes with use. */
    if (rc == EAGRE_OK)
        rc = eg_map(fds[0], 0, t->status_bytes, false, &status);
    if (rc != EAGRE_OK)
        return rc;
    t->status = status;
    rc = eg_map(fds[2], 0, t->waiters_bytes, true, &waiters);
    if (rc != EAGRE_OK)
        return rc;
    t->waiters = waiters;
    rc = eg_topic_status_check(t->status, t->status_bytes);
    if (rc != EAGRE_OK)
        return rc;
    if (t->status->topic_uid != t->uid)
        return eg_error_set(EAGRE_E_PROTOCOL, "topic status is of topic id %u, expected %u",
                            t->status->topic_uid, t->uid);
    t->capacity = t->status->segment_bytes;
    t->slots = t->status->ring_segments;
    t->align = t->status->align;
    t->single_writer = (eg_load_acquire(&t->status->flags) & EG_TOPIC_SINGLE_WRITER) != 0;
    t->ring_stride = eg_ring_stride(t->slots, t->capacity);
    return EAGRE_OK;
}

/* One OPEN. Fills everything but maps. On failure t holds what unmap_objects drops. */
static int open_once(struct eg_topic *t) {
    uint8_t buf[1024];
    uint8_t answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    int fds[OPEN_FDS];
    size_t nfds = 0;
    size_t expected = t->role == EG_ROLE_PRODUCER ? OPEN_FDS : 3;
    unsigned cpu;
    unsigned node;

    if (getcpu(&cpu, &node) != 0)
        node = UINT32_MAX;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_OPEN, 0, 0);
    eg_enc_u8(&req, (uint8_t)t->role);
    eg_enc_u32(&req, node);
    eg_enc_str(&req, t->name);
    /* The generation of who granted it: the request itself may find that the instance was replaced, and a grant
     * that is not given back blocks a topic with writers=single. */
    int rc = eg_session_request_in(t->e, &req, answer, sizeof(answer), &reply, fds, OPEN_FDS, &nfds,
                                   &t->generation);
    if (rc != EAGRE_OK)
        return rc;
    t->uid = eg_dec_u32(&reply);
    uint32_t partitions = eg_dec_u32(&reply);
    if (!eg_dec_end(&reply) || nfds != expected)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to OPEN is malformed");
    else if (is_outdated(t)) /* replaced after this OPEN: the grant went with it */
        rc = outdated(t);
    else if (expected == OPEN_FDS)
        rc = eg_attach_producer(t->e, t->generation, fds[3]);
    if (rc == EAGRE_OK)
        rc = map_objects(t, fds);
    if (rc == EAGRE_OK) {
        t->ring_fd = fds[1];
        fds[1] = -1;
        if (expected == OPEN_FDS) {
            t->event_fd = fds[4];
            fds[4] = -1;
        }
        uint32_t seen = eg_topic_partitions(t);
        if (partitions == 0 || seen < partitions)
            rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred says %u partitions, its objects hold %u",
                              partitions, seen);
    }
    for (size_t i = 0; i < nfds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (rc != EAGRE_OK)
        eg_session_release(t->e, (uint8_t)t->role, t->uid, t->generation);
    return rc;
}

static void unmap_objects(struct eg_topic *t) {
    for (uint32_t p = 0; p < t->partitions_mapped; p++) {
        if (t->maps[p] == NULL)
            continue;
        clear_map(t, t->maps[p]);
        free(t->maps[p]);
    }
    free(t->maps);
    if (t->status != NULL)
        eg_unmap(t->status, t->status_bytes);
    if (t->waiters != NULL)
        eg_unmap(t->waiters, t->waiters_bytes);
    eg_session_close_fd(t->e, t->ring_fd);
    eg_session_close_fd(t->e, t->event_fd);
}

/* Open t->name for t->role in t, which is otherwise empty; once more if eagred was replaced. */
static int open_objects(struct eg_topic *t) {
    int rc = EAGRE_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        rc = open_once(t);
        if (rc == EAGRE_OK)
            return rc;
        struct eg_topic empty = {.e = t->e, .role = t->role, .ring_fd = -1, .event_fd = -1};
        bool again = is_outdated(t);
        memcpy(empty.name, t->name, sizeof(empty.name));
        unmap_objects(t);
        *t = empty;
        if (!again)
            break;
    }
    return rc;
}

int eg_topic_open(struct eagre *e, int role, const char *name, struct eg_topic **out) {
    size_t n = strlen(name);
    if (n == 0 || n > EG_TOPIC_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID, "a topic's name has 1 to %u bytes, this one has %zu",
                            EG_TOPIC_NAME_MAX, n);
    int rc = eg_client_attach(e);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_topic *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", name, strerror(errno));
    t->e = e;
    t->role = role;
    t->ring_fd = t->event_fd = -1;
    memcpy(t->name, name, n + 1);
    rc = open_objects(t);
    if (rc != EAGRE_OK) {
        free(t);
        return rc;
    }
    *out = t;
    return EAGRE_OK;
}

void eg_topic_close(struct eg_topic *t) {
    if (t == NULL)
        return;
    eg_session_release(t->e, (uint8_t)t->role, t->uid, t->generation);
    unmap_objects(t);
    free(t);
}

int eg_topic_reopen(struct eg_topic *t) {
    struct eg_topic now = {.e = t->e, .role = t->role, .ring_fd = -1, .event_fd = -1};
    memcpy(now.name, t->name, sizeof(now.name));
    int rc = open_objects(&now);
    if (rc == EAGRE_E_UNKNOWN_TOPIC || (rc == EAGRE_OK && now.uid != t->uid)) {
        if (rc == EAGRE_OK) {
            eg_session_release(now.e, (uint8_t)now.role, now.uid, now.generation);
            unmap_objects(&now);
        }
        return eg_error_set(EAGRE_E_TOPIC_DELETED,
                            "topic '%s' was deleted while eagred was replaced", t->name);
    }
    if (rc != EAGRE_OK)
        return rc;

    /* New maps for those that are in use, then their contents move to the old places. */
    for (uint32_t p = 0; p < t->partitions_mapped && rc == EAGRE_OK; p++) {
        struct eg_partition_map *unused;
        if (t->maps[p] != NULL)
            rc = eg_topic_partition(&now, p, &unused);
    }
    if (rc != EAGRE_OK) {
        eg_session_release(now.e, (uint8_t)now.role, now.uid, now.generation);
        unmap_objects(&now);
        return rc;
    }
    for (uint32_t p = 0; p < t->partitions_mapped; p++) {
        if (t->maps[p] == NULL)
            continue;
        struct eg_partition_map old = *t->maps[p];
        *t->maps[p] = *now.maps[p];
        t->maps[p]->ctx = t;
        *now.maps[p] = old; /* to be dropped with the rest */
        struct eg_partition_map *place = now.maps[p];
        now.maps[p] = t->maps[p];
        t->maps[p] = place;
    }
    struct eg_topic old = *t;
    *t = now;
    unmap_objects(&old);
    return EAGRE_OK;
}
