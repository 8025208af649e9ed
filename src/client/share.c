/* share.c - a member of a share group: its partitions' cells, which it takes records by (log/share.h). */
#include "client/share.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log/share.h"
#include "sys/shm.h"

struct eg_share_part {
    struct eg_late *late; /* SHARE_OPEN */
    bool asked;           /* with this offset */
    int64_t begin;
    size_t bytes; /* mapped; 0: not yet */
    struct eg_share share;

    /* What the last poll returned. */
    struct eg_share_taken *taken;
    size_t count, cap;
};

/* ---- open, close ---------------------------------------------------------------------------------------- */

/* Where the group begins if it has been nowhere: as auto.offset.reset says; Kafka's share groups have `latest` where
 * nobody said. -1: nowhere. */
static int find_begin(eagre_consumer_t *c, struct assigned *a, int64_t *out) {
    eagre_offset_reset_t reset = c->group->reset_unset ? EAGRE_RESET_LATEST : c->options.auto_offset_reset;
    *out = reset == EAGRE_RESET_EARLIEST ? 0 : -1;
    return reset == EAGRE_RESET_LATEST ? eg_log_end(a->reader.map, c->look_pin, c->e->full_fence, out) : EAGRE_OK;
}

static int map_cells(eagre_consumer_t *c, struct assigned *a, uint32_t partition_uid, int fd) {
    struct eg_share_part *p = a->share;
    void *cells;
    size_t bytes = 0;
    if (partition_uid != a->reader.map->uid)
        return eg_error_set(EAGRE_E_TOPIC_DELETED, "topic '%s' is another one now", a->of->topic->name);
    int rc = eg_memfd_check(fd, &bytes);
    if (rc == EAGRE_OK)
        rc = eg_session_map(fd, bytes, true, NULL, "share group's cells", &cells);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_share_attach(&p->share, cells, bytes, c->group->uid, partition_uid, c->group->number);
    if (rc != EAGRE_OK) {
        eg_unmap(cells, bytes);
        return rc;
    }
    p->bytes = bytes;
    a->how = EG_SHARED;
    return EAGRE_OK;
}

int eg_shared_open(eagre_consumer_t *c, struct assigned *a) {
    uint8_t buf[64], answer[1024];
    struct eg_enc req;
    struct eg_dec reply;
    size_t nfds = 0;
    int fd = -1, rc = EAGRE_OK;
    if (a->share == NULL && (a->share = calloc(1, sizeof(*a->share))) == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a share group's partition");
    struct eg_share_part *p = a->share;
    if (!p->asked)
        rc = find_begin(c, a, &p->begin);
    if (rc != EAGRE_OK)
        return rc;
    p->asked = true;
    eg_enc_begin(&req, buf, sizeof(buf), EG_MSG_SHARE_OPEN, 0, 0);
    eg_enc_u64(&req, c->group->member);
    eg_enc_u32(&req, a->of->topic->uid);
    eg_enc_u32(&req, a->number);
    eg_enc_i64(&req, p->begin);
    rc = eg_session_request_late(c->e, &p->late, &req, answer, sizeof(answer), &reply, &fd, 1, &nfds,
                                 eg_until_end(&c->until, p->late), NULL);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc;
    p->asked = false;
    if (rc != EAGRE_OK)
        return rc;
    uint32_t partition_uid = eg_dec_u32(&reply);
    if (!eg_dec_end(&reply) || nfds != 1)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to SHARE_OPEN is malformed");
    else
        rc = map_cells(c, a, partition_uid, fd);
    if (nfds > 0)
        close(fd);
    return rc;
}

void eg_shared_close(eagre_consumer_t *c, struct assigned *a, bool given_up) {
    struct eg_share_part *p = a->share;
    if (p == NULL)
        return;
    if (*c->fork_guard != 0) {
        eg_session_give_up(c->e, &p->late);
        if (given_up && p->bytes > 0)
            (void)eg_share_sweep(&p->share, c->group->number);
    }
    if (p->bytes > 0)
        eg_unmap(p->share.cells, p->bytes);
    free(p->taken);
    free(p);
    a->share = NULL;
    if (a->how == EG_SHARED)
        a->how = EG_READ;
}

/* ---- poll ------------------------------------------------------------------------------------------------- */

void eg_shared_accept(struct assigned *a) {
    struct eg_share_part *p = a->share;
    eg_share_accept(&p->share, p->taken, p->count);
    p->count = 0;
}

int eg_shared_poll(eagre_consumer_t *c, struct assigned *a, eagre_record_t *records, size_t max, size_t *n) {
    struct eg_share_part *p = a->share;
    (void)c;
    *n = 0;
    p->count = 0;
    if (max > p->share.window)
        max = p->share.window;
    if (__builtin_expect(max > p->cap, 0)) {
        struct eg_share_taken *taken = reallocarray(p->taken, max, sizeof(*taken));
        if (taken == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for %zu records of a share group", max);
        p->taken = taken;
        p->cap = max;
    }
    int rc = eg_share_poll(&p->share, &a->reader, records, p->taken, max, n);
    p->count = *n;
    return rc;
}

bool eg_shared_has_news(const struct assigned *a) { return eg_share_has_news(&a->share->share, &a->reader); }

/* ---- what the application says ------------------------------------------------------------------------------ */

/* Of the last poll; NULL: it was not. */
static struct eg_share_taken *find_taken(const struct eg_share_part *p, int64_t offset) {
    size_t low = 0, high = p->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->taken[middle].offset == offset)
            return &p->taken[middle];
        if (p->taken[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* The partition, shared by this member. */
static int about(eagre_consumer_t *c, const char *topic, int32_t partition, struct assigned **out) {
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    struct assigned *a = topic != NULL ? eg_assigned_find(c, topic, partition) : NULL;
    if (a == NULL || a->how != EG_SHARED)
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d: this consumer is no member of a share group that reads it",
                            topic != NULL ? topic : "", partition);
    *out = a;
    return EAGRE_OK;
}

int eagre_consumer_acknowledge(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t offset,
                               eagre_acknowledge_t how) {
    static const enum eg_share_end ends[] = {[EAGRE_ACK_ACCEPT] = EG_SHARE_ACCEPT,
                                             [EAGRE_ACK_RELEASE] = EG_SHARE_RELEASE,
                                             [EAGRE_ACK_REJECT] = EG_SHARE_REJECT};
    struct assigned *a;
    int rc = about(c, topic, partition, &a);
    if (rc != EAGRE_OK)
        return rc;
    if (how < EAGRE_ACK_ACCEPT || how > EAGRE_ACK_REJECT)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_acknowledge: there is no way %d to acknowledge", (int)how);
    struct eg_share_part *p = a->share;
    struct eg_share_taken *taken = find_taken(p, offset), of_before = {offset, 0};
    if (taken == NULL) {
        /* Of an earlier poll: as its cell says. Then that we are still a member (acquire: the daemon says that we are out
         * before it gives our number to another one), so the word is ours and not that one's. */
        of_before.word = eg_share_word(&p->share, offset);
        taken = &of_before;
        if (c->group->page == NULL || eg_load_acquire(&c->group->page->state) != EG_MEMBER_IN)
            of_before.word = 0;
    }
    if (eg_share_end(&p->share, taken, ends[how]))
        return EAGRE_OK;
    return eg_group_error(c->group, eg_error_set(EAGRE_E_STATE,
                                                 "topic '%s' partition %d offset %" PRId64 ": this record is not (any more) this "
                                                 "member's: it was acknowledged, or the time for that "
                                                 "(group.share.record.lock.duration.ms) was over and another member may have it",
                                                 topic, partition, offset));
}

int eagre_consumer_delivery_count(eagre_consumer_t *c, const eagre_record_t *record, uint32_t *count) {
    struct assigned *a;
    int rc = record == NULL || count == NULL
                 ? eg_error_set(EAGRE_E_INVALID, "eagre_consumer_delivery_count: record and count must be given")
                 : about(c, record->topic, record->partition, &a);
    if (rc != EAGRE_OK)
        return rc;
    const struct eg_share_taken *taken = find_taken(a->share, record->offset);
    if (taken == NULL)
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d offset %" PRId64 " was not returned by the last poll",
                            record->topic, record->partition, record->offset);
    *count = eg_share_count(taken->word);
    return EAGRE_OK;
}
