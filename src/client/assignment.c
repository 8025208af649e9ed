/* assignment.c - what a consumer reads and where it stands: partitions, offsets, resets. */
#include "client/group.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sys/atomic.h"
#include "sys/clock.h"

void eg_consumer_begin_waiting(eagre_consumer_t *c) {
    c->until = (struct eg_until){.ns = eg_mono_ns() + eg_request_limit_ns};
}

int eg_consumer_end_waiting(eagre_consumer_t *c, int rc) {
    c->until = (struct eg_until){0};
    return rc == EAGRE_E_WOULD_BLOCK ? EAGRE_E_TIMED_OUT : rc; /* the detail is of the request */
}

/* ---- positions ------------------------------------------------------------------------------------- */

static int end_of(eagre_consumer_t *c, struct assigned *a, int64_t *offset) {
    int rc = eg_log_end(a->reader.map, c->look_pin, c->e->full_fence, offset);
    if (rc == EAGRE_OK && a->reader.durable)
        *offset = (int64_t)eg_load_acquire(&a->reader.map->status->durable_end);
    return rc == EAGRE_OK ? rc : eg_assigned_error(a, rc);
}

int eg_consumer_reset(eagre_consumer_t *c, struct assigned *a) {
    int64_t offset = eg_reader_beginning(&a->reader);
    if (c->options.auto_offset_reset == EAGRE_RESET_LATEST) {
        int rc = end_of(c, a, &offset);
        if (rc != EAGRE_OK)
            return rc;
    }
    eg_reader_seek(&a->reader, offset);
    a->how = c->options.auto_offset_reset == EAGRE_RESET_NONE ? EG_NOWHERE : EG_READ;
    if (c->group != NULL)
        eg_group_moved(c, a, false);
    return EAGRE_OK;
}

static int end_of_waiting(eagre_consumer_t *c, struct assigned *a, int64_t *offset) {
    eg_consumer_begin_waiting(c);
    return eg_consumer_end_waiting(c, end_of(c, a, offset));
}

struct assigned *eg_assigned_find(const eagre_consumer_t *c, const char *topic, int32_t partition) {
    for (size_t i = 0; i < c->part_count; i++)
        if ((int32_t)c->parts[i]->number == partition && strcmp(c->parts[i]->of->topic->name, topic) == 0)
            return c->parts[i];
    return NULL;
}

/* The assigned partition that a call is about. */
static int about(eagre_consumer_t *c, const char *topic, int32_t partition, struct assigned **out) {
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    if (topic == NULL)
        return eg_error_set(EAGRE_E_INVALID, "no topic was given");
    /* Of an instance that was stopped or replaced, the memory tells nothing any more. But what was polled stays. */
    if (__builtin_expect(c->current == NULL &&
                             (eg_consumer_stopped(c) || eg_load_relaxed(&c->e->generation) != c->generation), 0)) {
        rc = eg_consumer_check_session(c);
        if (rc != EAGRE_OK && rc != EAGRE_E_NO_DAEMON)
            return rc;
    }
    *out = eg_assigned_find(c, topic, partition);
    if (*out == NULL)
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d is not assigned to this consumer", topic, partition);
    return EAGRE_OK;
}

int eagre_consumer_seek(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t offset) {
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    if (rc != EAGRE_OK)
        return rc;
    if (a->how == EG_SHARED)
        return eg_group_error(c->group, eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d: what a share group reads is "
                                                                    "no member's to say: see `eagre group seek`", topic, partition));
    if (offset == EAGRE_OFFSET_BEGINNING)
        offset = eg_reader_beginning(&a->reader);
    else if (offset == EAGRE_OFFSET_END)
        rc = end_of_waiting(c, a, &offset);
    else if (offset < 0)
        rc = eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %d: offset %" PRId64 " is below 0", topic, partition, offset);
    if (rc != EAGRE_OK)
        return rc;
    eg_consumer_let_go(c);
    eg_reader_seek(&a->reader, offset);
    a->how = EG_READ;
    if (c->group != NULL)
        eg_group_moved(c, a, true);
    return EAGRE_OK;
}

int eagre_consumer_seek_tail(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t n) {
    struct assigned *a;
    int64_t end;
    int rc = about(c, topic, partition, &a);
    if (rc == EAGRE_OK && n < 0)
        rc = eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %d: %" PRId64 " records before the end", topic, partition, n);
    if (rc == EAGRE_OK)
        rc = end_of_waiting(c, a, &end);
    if (rc != EAGRE_OK)
        return rc;
    int64_t beginning = eg_reader_beginning(&a->reader);
    return eagre_consumer_seek(c, topic, partition, end - beginning < n ? beginning : end - n);
}

int eagre_consumer_seek_time(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t timestamp_ns) {
    struct assigned *a;
    int64_t offset = 0;
    int rc = about(c, topic, partition, &a);
    if (rc != EAGRE_OK)
        return rc;
    eg_consumer_begin_waiting(c);
    rc = eg_log_find_time(a->reader.map, c->look_pin, c->e->full_fence, timestamp_ns, &offset);
    rc = eg_consumer_end_waiting(c, rc == EAGRE_OK ? rc : eg_assigned_error(a, rc));
    return rc == EAGRE_OK ? eagre_consumer_seek(c, topic, partition, offset) : rc;
}

int eagre_consumer_position(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset) {
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    if (rc == EAGRE_OK)
        *offset = a->reader.offset;
    return rc;
}

int eagre_consumer_beginning_offset(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset) {
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    if (rc == EAGRE_OK)
        *offset = eg_reader_beginning(&a->reader);
    return rc;
}

int eagre_consumer_end_offset(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset) {
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    return rc == EAGRE_OK ? end_of_waiting(c, a, offset) : rc;
}

int eagre_consumer_lag(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *records) {
    struct assigned *a;
    int64_t end;
    int rc = about(c, topic, partition, &a);
    if (rc == EAGRE_OK)
        rc = end_of_waiting(c, a, &end);
    if (rc == EAGRE_OK)
        *records = end > a->reader.offset ? end - a->reader.offset : 0;
    return rc;
}

static int set_paused(eagre_consumer_t *c, const char *topic, int32_t partition, bool paused) {
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    if (rc == EAGRE_OK)
        a->paused = paused;
    return rc;
}

int eagre_consumer_pause(eagre_consumer_t *c, const char *topic, int32_t partition) {
    return set_paused(c, topic, partition, true);
}

int eagre_consumer_resume(eagre_consumer_t *c, const char *topic, int32_t partition) {
    return set_paused(c, topic, partition, false);
}

/* ---- assignment ------------------------------------------------------------------------------------- */

struct subscription *eg_subscription_find(const eagre_consumer_t *c, const char *topic) {
    for (size_t i = 0; i < c->topic_count; i++)
        if (strcmp(c->topics[i]->topic->name, topic) == 0)
            return c->topics[i];
    return NULL;
}

int eg_subscription_add(eagre_consumer_t *c, struct eg_topic *topic, struct subscription **out) {
    struct subscription **topics = realloc(c->topics, (c->topic_count + 1) * sizeof(struct subscription *));
    if (topics != NULL)
        c->topics = topics;
    struct subscription *s = topics != NULL ? calloc(1, sizeof(*s)) : NULL;
    if (s == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for topic '%s'", topic->name);
    s->topic = topic;
    c->topics[c->topic_count++] = s;
    *out = s;
    return EAGRE_OK;
}

static int subscribe(eagre_consumer_t *c, const char *topic, struct subscription **out) {
    struct eg_topic *t;
    *out = eg_subscription_find(c, topic);
    if (*out != NULL)
        return EAGRE_OK;
    int rc = eg_topic_open(c->e, EG_ROLE_CONSUMER, topic, &c->until, &t);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_subscription_add(c, t, out);
    if (rc != EAGRE_OK)
        eg_topic_close(t);
    return rc;
}

static void drop_unused(eagre_consumer_t *c) {
    size_t kept = 0;
    for (size_t i = 0; i < c->topic_count; i++) {
        if (c->topics[i]->used > 0) {
            c->topics[kept++] = c->topics[i];
            continue;
        }
        eg_topic_close(c->topics[i]->topic);
        free(c->topics[i]);
    }
    c->topic_count = kept;
}

int eg_assigned_make(eagre_consumer_t *c, struct subscription *s, uint32_t partition, struct assigned **out) {
    struct eg_partition_map *m;
    int rc = eg_topic_partition(s->topic, partition, &m);
    if (rc != EAGRE_OK)
        return rc;
    if (c->options.isolation == EAGRE_ISOLATION_DURABLE && !m->on_disk)
        return eg_error_set(EAGRE_E_UNSUPPORTED, "topic '%s' has storage=memory: isolation=durable would show nothing",
                            s->topic->name);
    struct assigned *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for topic '%s' partition %u", s->topic->name, partition);
    a->of = s;
    a->number = partition;
    a->sought = -1;
    eg_reader_init(&a->reader, m, c->pin, c->e->full_fence, c->options.check_crcs != 0, s->topic->name, 0);
    a->reader.keep_pin = c->options.wait != EAGRE_WAIT_SLEEP;
    a->reader.durable = c->options.isolation == EAGRE_ISOLATION_DURABLE;
    eg_topic_used_by(m, &a->reader.base);
    s->used++;
    *out = a;
    return EAGRE_OK;
}

void eg_assigned_free(eagre_consumer_t *c, struct assigned *a) {
    if (c->last == a)
        c->last = NULL;
    a->of->used--;
    eg_topic_used_by(a->reader.map, NULL);
    eg_reader_release(&a->reader);
    free(a);
}

int eg_assigned_add(eagre_consumer_t *c, struct assigned *a) {
    struct assigned **parts = realloc(c->parts, (c->part_count + 1) * sizeof(struct assigned *));
    if (parts == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for topic '%s' partition %u", a->of->topic->name, a->number);
    c->parts = parts;
    c->parts[c->part_count++] = a;
    return EAGRE_OK;
}

void eg_assigned_sweep(eagre_consumer_t *c) {
    eg_consumer_let_go(c);
    eg_consumer_retract(c);
    size_t kept = 0;
    for (size_t i = 0; i < c->part_count; i++) {
        if (c->parts[i]->marked)
            eg_assigned_free(c, c->parts[i]);
        else
            c->parts[kept++] = c->parts[i];
    }
    c->part_count = kept;
    drop_unused(c);
}

/* committed: the group's, or -1. */
static int assign_one(eagre_consumer_t *c, struct subscription *s, uint32_t partition, int64_t committed) {
    struct assigned *a;
    if (eg_assigned_find(c, s->topic->name, (int32_t)partition) != NULL)
        return EAGRE_OK;
    int rc = eg_assigned_make(c, s, partition, &a);
    if (rc != EAGRE_OK)
        return rc;
    a->committed = committed;
    if (committed >= 0)
        eg_reader_seek(&a->reader, committed);
    else
        rc = eg_consumer_reset(c, a);
    if (rc == EAGRE_OK)
        rc = eg_assigned_add(c, a);
    if (rc != EAGRE_OK)
        eg_assigned_free(c, a);
    return rc;
}

/* Partitions first .. first + count - 1. */
static int assign_some(eagre_consumer_t *c, struct subscription *s, uint32_t first, uint32_t count) {
    int64_t *committed = NULL;
    int rc = EAGRE_OK;
    if (c->group != NULL) {
        committed = malloc(count * sizeof(*committed));
        rc = committed != NULL ? eg_commit_committed(c, s->topic->name, first, count, committed)
                               : eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the offsets of topic '%s'", s->topic->name);
    }
    eg_consumer_begin_waiting(c);
    for (uint32_t i = 0; i < count && rc == EAGRE_OK; i++)
        rc = assign_one(c, s, first + i, committed != NULL ? committed[i] : -1);
    free(committed);
    return eg_consumer_end_waiting(c, rc);
}

static int by_hand(eagre_consumer_t *c, const char *what) {
    if (c->group != NULL && c->group->subscribed)
        return eg_group_error(c->group, eg_error_set(EAGRE_E_STATE, "what this consumer reads is the group's to say, since it "
                                                                    "subscribed: unsubscribe before %s", what));
    return EAGRE_OK;
}

int eagre_consumer_assign(eagre_consumer_t *c, const char *topic, int32_t partition) {
    int rc = eg_consumer_usable(c);
    if (rc == EAGRE_OK)
        rc = by_hand(c, "eagre_consumer_assign");
    if (rc != EAGRE_OK)
        return rc;
    if (topic == NULL || partition < EAGRE_PARTITION_ALL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_assign: topic and partition (or EAGRE_PARTITION_ALL) must be given");
    eg_consumer_let_go(c);
    eg_consumer_retract(c);
    struct subscription *s;
    rc = subscribe(c, topic, &s);
    if (rc != EAGRE_OK)
        return rc;
    uint32_t count = eg_topic_partitions(s->topic);
    if (partition >= 0 && (uint32_t)partition >= count)
        rc = eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %d, not %d", topic, (int)count - 1, partition);
    else
        rc = partition >= 0 ? assign_some(c, s, (uint32_t)partition, 1) : assign_some(c, s, 0, count);
    if (rc != EAGRE_OK)
        drop_unused(c);
    return rc;
}

int eagre_consumer_unassign(eagre_consumer_t *c, const char *topic, int32_t partition) {
    int rc = eg_consumer_usable(c);
    if (rc == EAGRE_OK)
        rc = by_hand(c, "eagre_consumer_unassign");
    if (rc != EAGRE_OK)
        return rc;
    if (topic == NULL || partition < EAGRE_PARTITION_ALL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_unassign: topic and partition (or EAGRE_PARTITION_ALL) must be given");
    struct subscription *s = eg_subscription_find(c, topic);
    if (s == NULL || (partition >= 0 && eg_assigned_find(c, topic, partition) == NULL))
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d is not assigned to this consumer", topic, partition);
    if (c->group != NULL)
        (void)eg_commit_by_hand(c, true); /* as far as it goes */
    for (size_t i = 0; i < c->part_count; i++)
        c->parts[i]->marked = c->parts[i]->of == s && (partition < 0 || (int32_t)c->parts[i]->number == partition);
    eg_assigned_sweep(c);
    return EAGRE_OK;
}
