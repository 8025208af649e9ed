/* objects.c - a topic's three shared objects: made, taken over, marked deleted, freed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graves.h"
#include "partition.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

enum { STATUS, RING, WAITERS, OBJECTS };
static const char *const kinds[OBJECTS] = {"status", "ring", "waiters"};

/* Their whole size: for as many partitions as a topic may ever have. Memory is put behind present ones. */
static size_t object_bytes(int kind, uint32_t slots, uint64_t segment_bytes) {
    switch (kind) {
    case STATUS:
        return eg_status_bytes(EG_TOPIC_PARTITIONS_MAX);
    case RING:
        return eg_ring_stride(slots, segment_bytes) * EG_TOPIC_PARTITIONS_MAX;
    default:
        return eg_waiters_bytes(EG_TOPIC_PARTITIONS_MAX);
    }
}

static const char *keep_name(char *buf, size_t cap, uint32_t uid, int kind) {
    snprintf(buf, cap, "t%u.%s", uid, kinds[kind]);
    return buf;
}

uint64_t eg_topic_control_bytes(const struct eg_settings *s, uint32_t partitions) {
    return eg_status_bytes(partitions) + eg_waiters_bytes(partitions) +
           partitions * eg_ring_stride((uint32_t)s->v[EG_SET_RING_SEGMENTS],
                                       (uint64_t)s->v[EG_SET_SEGMENT_BYTES]);
}

uint32_t eg_topic_partition_uid(const struct eg_meta_topic *m, uint32_t partition) {
    for (uint32_t r = 0; r < m->runs; r++) {
        if (partition < m->run_length[r])
            return m->first_partition_uid[r] + partition;
        partition -= m->run_length[r];
    }
    return 0;
}

/* What the objects begin with, and the handles for readers. */
static int finish(struct eg_daemon *d, struct eg_topic *t, void *const base[OBJECTS], const int fd[OBJECTS]) {
    int status_ro = -1, ring_ro = -1;
    int rc = eg_memfd_readonly(fd[STATUS], &status_ro);
    if (rc == EAGRE_OK)
        rc = eg_memfd_readonly(fd[RING], &ring_ro);
    if (rc == EAGRE_OK)
        rc = eg_topic_bell_open(d, t);
    if (rc != EAGRE_OK) {
        if (status_ro >= 0)
            close(status_ro);
        if (ring_ro >= 0)
            close(ring_ro);
        return rc;
    }
    t->status = base[STATUS];
    t->ring = base[RING];
    t->waiters = base[WAITERS];
    t->status_fd = fd[STATUS];
    t->ring_fd = fd[RING];
    t->waiters_fd = fd[WAITERS];
    t->status_ro_fd = status_ro;
    t->ring_ro_fd = ring_ro;
    t->ring_stride = eg_ring_stride((uint32_t)t->settings.v[EG_SET_RING_SEGMENTS],
                                    (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES]);
    return EAGRE_OK;
}

static void undo(struct eg_daemon *d, const struct eg_topic *t, void *const base[OBJECTS],
                 const int fd[OBJECTS], const size_t bytes[OBJECTS], bool drop) {
    char name[EG_KEEP_NAME_MAX + 1];
    for (int k = 0; k < OBJECTS; k++) {
        if (t->deleted && drop) { /* there are all of them; and clients read there that it is deleted */
            eg_grave_add(d, base[k], bytes[k], fd[k], keep_name(name, sizeof(name), t->meta.uid, k), !t->in_use);
            continue;
        }
        if (base[k] != NULL)
            eg_unmap(base[k], bytes[k]);
        if (fd[k] >= 0) {
            if (drop &&
                eg_keep_drop(d->keep, keep_name(name, sizeof(name), t->meta.uid, k)) != EAGRE_OK)
                eg_log_warning("%s", eg_error_text());
            close(fd[k]);
        }
    }
}

static uint32_t status_flags(const struct eg_settings *s) {
    return (s->v[EG_SET_WRITERS] == EG_WRITERS_SINGLE ? EG_TOPIC_SINGLE_WRITER : 0) |
           (s->v[EG_SET_TIMESTAMP_PRECISION] == EG_PRECISION_NS ? EG_TOPIC_TIMESTAMP_NS : 0);
}

/* What can be altered later. */
void eg_topic_put_alterable(struct eg_topic *t, struct eg_topic_status *st) {
    eg_store_relaxed(&st->flags, status_flags(&t->settings));
    eg_store_relaxed(&st->max_message_bytes, (uint32_t)t->settings.v[EG_SET_MAX_MESSAGE_BYTES]);
}

int eg_topic_objects_make(struct eg_daemon *d, struct eg_topic *t) {
    uint32_t slots = (uint32_t)t->settings.v[EG_SET_RING_SEGMENTS];
    uint64_t segment = (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES];
    char name[EG_KEEP_NAME_MAX + 1], label[EG_KEEP_NAME_MAX + 16];
    void *base[OBJECTS] = {NULL};
    int fd[OBJECTS] = {-1, -1, -1};
    size_t bytes[OBJECTS] = {0};
    int rc = EAGRE_OK;
    for (int k = 0; rc == EAGRE_OK && k < OBJECTS; k++) {
        bytes[k] = object_bytes(k, slots, segment);
        snprintf(label, sizeof(label), "eagre:%s", keep_name(name, sizeof(name), t->meta.uid, k));
        rc = eg_memfd_create(label, bytes[k], false, &fd[k]);
        if (rc == EAGRE_OK)
            rc = eg_map(fd[k], 0, bytes[k], true, &base[k]);
    }
    if (rc == EAGRE_OK)
        rc = eg_shm_allocate(fd[STATUS], 0, EG_PAGE);
    if (rc == EAGRE_OK) {
        struct eg_topic_status *st = base[STATUS];
        eg_magic_init(&st->magic);
        st->instance_id = d->instance_id;
        st->topic_uid = t->meta.uid;
        st->align = (uint32_t)t->settings.v[EG_SET_RECORD_ALIGNMENT];
        st->segment_bytes = segment;
        st->ring_segments = slots;
        st->storage = (uint32_t)t->settings.v[EG_SET_STORAGE];
        eg_topic_put_alterable(t, st);
        eg_store_relaxed(&st->state, EG_TOPIC_ACTIVE);
        eg_magic_publish(&st->magic, EG_MAGIC_STATUS);
    }
    for (int k = 0; rc == EAGRE_OK && k < OBJECTS; k++)
        rc = eg_keep_put(d->keep, keep_name(name, sizeof(name), t->meta.uid, k), fd[k]);
    if (rc == EAGRE_OK)
        rc = finish(d, t, base, fd);
    if (rc != EAGRE_OK) {
        undo(d, t, base, fd, bytes, true);
        return eg_error_add(rc, "topic '%s'", eg_topic_name(t));
    }
    return EAGRE_OK;
}

static bool status_fits(const struct eg_daemon *d, const struct eg_topic *t,
                        const struct eg_topic_status *st) {
    return st->instance_id == d->instance_id && st->topic_uid == t->meta.uid &&
           st->align == (uint32_t)t->settings.v[EG_SET_RECORD_ALIGNMENT] &&
           st->segment_bytes == (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES] &&
           st->ring_segments == (uint32_t)t->settings.v[EG_SET_RING_SEGMENTS] &&
           eg_load_relaxed(&st->state) == EG_TOPIC_ACTIVE &&
           eg_load_relaxed(&st->partitions) <= t->meta.partitions;
}

int eg_topic_objects_take(struct eg_daemon *d, struct eg_topic *t) {
    char name[EG_KEEP_NAME_MAX + 1];
    void *base[OBJECTS] = {NULL};
    int fd[OBJECTS];
    size_t bytes[OBJECTS] = {0};
    int rc = EAGRE_OK;
    for (int k = 0; k < OBJECTS; k++)
        fd[k] = eg_keep_take(d->keep, keep_name(name, sizeof(name), t->meta.uid, k));
    for (int k = 0; k < OBJECTS; k++) {
        size_t expected = object_bytes(k, (uint32_t)t->settings.v[EG_SET_RING_SEGMENTS],
                                       (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES]);
        size_t size = 0;
        int one = fd[k] < 0 ? eg_error_set(EAGRE_E_CORRUPT, "the keeper does not have it")
                            : eg_memfd_check(fd[k], &size);
        if (one == EAGRE_OK && size != expected)
            one = eg_error_set(EAGRE_E_CORRUPT, "has %zu bytes, expected %zu", size, expected);
        if (one == EAGRE_OK)
            one = eg_map(fd[k], 0, size, true, &base[k]);
        if (one == EAGRE_OK)
            bytes[k] = size;
        else if (rc == EAGRE_OK)
            rc = eg_error_add(EAGRE_E_CORRUPT,
                              "kept object '%s'", keep_name(name, sizeof(name), t->meta.uid, k));
    }
    if (base[STATUS] != NULL) {
        int one = eg_topic_status_check(base[STATUS], bytes[STATUS]);
        if (one == EAGRE_OK && !status_fits(d, t, base[STATUS]))
            one = eg_error_set(EAGRE_E_CORRUPT, "topic status: it belongs to something else");
        if (one != EAGRE_OK) { /* nothing in it can be told to anybody */
            rc = EAGRE_E_CORRUPT;
        } else if (rc != EAGRE_OK) {
            size_t stride = eg_ring_stride((uint32_t)t->settings.v[EG_SET_RING_SEGMENTS],
                                           (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES]);
            eg_topic_mark_deleted(base[STATUS], base[RING], stride);
        }
    }
    if (rc == EAGRE_OK)
        rc = finish(d, t, base, fd);
    if (rc == EAGRE_OK)
        eg_topic_put_alterable(t, t->status);
    else
        undo(d, t, base, fd, bytes, true);
    return rc;
}

int eg_topic_add_partitions(struct eg_daemon *d, struct eg_topic *t, uint32_t up_to) {
    uint32_t from = t->partitions;
    uint32_t present = eg_load_relaxed(&t->status->partitions); /* those are complete already */
    struct eg_partition **part = realloc(t->part, up_to * sizeof(struct eg_partition *));
    if (part == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory for %u partitions",
                            eg_topic_name(t), up_to);
    t->part = part;
    int rc = EAGRE_OK;
    if (up_to > present) {
        uint64_t first = present;
        rc = eg_shm_allocate(t->status_fd, eg_status_bytes(present),
                             (up_to - present) * sizeof(struct eg_partition_status));
        if (rc == EAGRE_OK)
            rc = eg_shm_allocate(t->ring_fd, first * t->ring_stride,
                                 (up_to - first) * t->ring_stride);
        if (rc == EAGRE_OK)
            rc = eg_shm_allocate(t->waiters_fd, 0, eg_waiters_bytes(up_to));
    }
    for (uint32_t k = from; rc == EAGRE_OK && k < up_to; k++) {
        uint32_t uid = eg_topic_partition_uid(&t->meta, k);
        if (k < present) {
            rc = eg_partition_take(d, t, k, uid, &part[k]);
        } else {
            /* One that was begun, and cut off, before its number was told: as if it had not been. */
            memset(eg_status_of(t->status, k), 0, sizeof(struct eg_partition_status));
            rc = eg_partition_make(d, t, k, uid, &part[k]);
        }
        if (rc == EAGRE_OK)
            t->partitions = k + 1;
    }
    if (rc != EAGRE_OK) {
        /* What was there before us is only given up where it is of no use. */
        for (bool lost = rc == EAGRE_E_CORRUPT; t->partitions > from;) {
            uint32_t k = --t->partitions;
            eg_partition_free(d, part[k], lost || k >= present);
        }
        return eg_error_add(rc, "topic '%s'", eg_topic_name(t));
    }
    d->figures.partitions += up_to - from;
    /* Release: complete. Partner: the client's acquire of it. */
    eg_store_release(&t->status->partitions, up_to);
    return EAGRE_OK;
}

void eg_topic_mark_deleted(struct eg_topic_status *st, uint8_t *ring, size_t ring_stride) {
    eg_store_release(&st->state, EG_TOPIC_DELETED);
    for (uint32_t k = 0; k < eg_load_relaxed(&st->partitions); k++) {
        struct eg_ring *r = (struct eg_ring *)(void *)(ring + k * ring_stride);
        for (uint32_t i = 0; ring != NULL && i < st->ring_segments; i++) {
            /* A producer's READY -> OPEN that comes between the two is overwritten, and meant to be. */
            uint64_t word = eg_load_relaxed(&r->slot[i].word);
            eg_store_release(&r->slot[i].word, (word & ~UINT64_C(0xff)) | EG_SLOT_RETIRING);
        }
        eg_partition_room(eg_status_of(st, k));
    }
}

void eg_topic_objects_free(struct eg_daemon *d, struct eg_topic *t, bool drop) {
    while (t->partitions > 0) {
        eg_partition_free(d, t->part[--t->partitions], drop);
        d->figures.partitions--;
    }
    free(t->part);
    t->part = NULL;
    if (t->status == NULL)
        return;
    void *base[OBJECTS] = {t->status, t->ring, t->waiters};
    int fd[OBJECTS] = {t->status_fd, t->ring_fd, t->waiters_fd};
    size_t bytes[OBJECTS];
    for (int k = 0; k < OBJECTS; k++)
        bytes[k] = object_bytes(k, (uint32_t)t->settings.v[EG_SET_RING_SEGMENTS],
                                (uint64_t)t->settings.v[EG_SET_SEGMENT_BYTES]);
    eg_topic_bell_close(d, t, drop);
    undo(d, t, base, fd, bytes, drop);
    close(t->status_ro_fd);
    close(t->ring_ro_fd);
    t->status = NULL;
}

/* Somebody may still have a topic mapped whose objects we find left: tell them. */
static void tell_deleted(int status_fd, int ring_fd) {
    size_t status_bytes, ring_bytes = 0;
    void *status = NULL, *ring = NULL;
    if (eg_memfd_check(status_fd, &status_bytes) != EAGRE_OK ||
        eg_map(status_fd, 0, status_bytes, true, &status) != EAGRE_OK)
        return;
    struct eg_topic_status *st = status;
    if (eg_topic_status_check(st, status_bytes) == EAGRE_OK) {
        size_t stride = eg_ring_stride(st->ring_segments, st->segment_bytes);
        if (ring_fd < 0 || eg_memfd_check(ring_fd, &ring_bytes) != EAGRE_OK ||
            ring_bytes != stride * EG_TOPIC_PARTITIONS_MAX ||
            eg_map(ring_fd, 0, ring_bytes, true, &ring) != EAGRE_OK)
            ring = NULL;
        eg_topic_mark_deleted(st, ring, stride);
    }
    if (ring != NULL)
        eg_unmap(ring, ring_bytes);
    eg_unmap(status, status_bytes);
}

static void drop_left(struct eg_daemon *d, const char *name, int fd) {
    if (eg_keep_drop(d->keep, name) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    close(fd);
}

void eg_topics_drop_leftovers(struct eg_daemon *d) {
    char name[EG_KEEP_NAME_MAX + 1], ring_name[EG_KEEP_NAME_MAX + 1];
    uint32_t uid, number;
    const char *left;
    for (size_t i = 0; (left = eg_keep_left(d->keep, i)) != NULL;) {
        snprintf(name, sizeof(name), "%s", left);
        bool status = sscanf(name, "t%u.status", &uid) == 1 && strstr(name, ".status") != NULL;
        if (!status && sscanf(name, "t%u.", &uid) != 1 &&
            sscanf(name, "p%u.b%u", &uid, &number) != 2) {
            i++; /* not ours */
            continue;
        }
        int fd = eg_keep_take(d->keep, name);
        if (fd < 0) {
            i++;
            continue;
        }
        if (status) {
            keep_name(ring_name, sizeof(ring_name), uid, RING);
            int ring_fd = eg_keep_take(d->keep, ring_name);
            tell_deleted(fd, ring_fd);
            if (ring_fd >= 0)
                drop_left(d, ring_name, ring_fd);
        }
        eg_log_info("kept object '%s' belongs to nothing: dropped", name);
        drop_left(d, name, fd);
        i = 0; /* the list has changed */
    }
}
