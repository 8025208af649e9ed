/* commit.c - commits and committed offsets. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/group.h"
#include "client/talk.h"
#include "sys/clock.h"
#include "sys/futex.h"

#define NAP_NS (100 * EG_NS_PER_MS)     /* who waits for the database looks around so often */
#define AWAY_NAP_NS (20 * EG_NS_PER_MS) /* there is no daemon: try again */
#define ASK_NS EG_NS_PER_S              /* for one answer, before it looks around */
#define COMMITTED_MAX 15u               /* that fit one reply, whatever their metadata */
#define CLOSE_NS EG_NS_PER_S

/* ---- what is to be committed ------------------------------------------------------------------------------ */

/* Is this offset one that poll can have come to, or may come to at once? The application may have sought any. */
static int check_place(const eagre_consumer_t *c, struct assigned *a, int64_t offset) {
    int64_t end;
    if (a->how != EG_READ || a->reader.offset != a->sought)
        return EAGRE_OK;
    int rc = eg_log_end(a->reader.map, c->look_pin, c->e->full_fence, &end);
    if (rc != EAGRE_OK)
        return eg_assigned_error(a, rc);
    if (offset > end)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %u: offset %" PRId64 " is behind the log's end, which is %" PRId64
                                             ": it cannot be committed before poll comes there", a->of->topic->name, a->number,
                            offset, end);
    if (a->sought <= end)
        a->sought = -1;
    return EAGRE_OK;
}

/* EAGRE_OK: *moved: it stands where it is to be committed, and was not. */
static int look_at_position(const eagre_consumer_t *c, struct assigned *a, bool *moved) {
    bool sought = a->reader.offset == a->sought;
    int rc = check_place(c, a, a->reader.offset);
    *moved = a->how == EG_READ && rc == EAGRE_OK && (sought || a->reader.offset != a->committed);
    return rc == EAGRE_E_INVALID ? EAGRE_OK : rc; /* that one is known: it is not */
}

bool eg_commit_moved(eagre_consumer_t *c) {
    bool any = false, all = true;
    for (size_t i = 0; i < c->part_count; i++) {
        struct assigned *a = c->parts[i];
        bool moved;
        if (a->cell == NULL)
            continue;
        all &= look_at_position(c, a, &moved) == EAGRE_OK;
        if (moved)
            eg_commit_cell(a, a->reader.offset);
        any |= moved;
    }
    if (any)
        eg_commit_count(c->group);
    return all;
}

static bool is_in(const eagre_consumer_t *c) {
    const struct membership *g = c->group;
    return g->page != NULL && g->page_generation == eg_load_acquire(&c->e->generation) && !g->denied &&
           eg_load_acquire(&g->page->state) == EG_MEMBER_IN;
}

static int fenced(eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (g->page != NULL && eg_load_acquire(&g->page->state) == EG_MEMBER_TAKEN)
        g->fence = EG_TAKEN;
    g->was_fenced = true; /* it is said: poll need not */
    return eg_group_fenced(g);
}

/* One of the application's list. *whose: the partition that it is. */
static int check_one(const eagre_consumer_t *c, const eagre_topic_partition_t *tp, struct assigned **whose) {
    if (tp->topic == NULL)
        return eg_error_set(EAGRE_E_INVALID, "no topic was given");
    struct assigned *a = eg_assigned_find(c, tp->topic, tp->partition);
    if (a == NULL)
        return eg_error_set(EAGRE_E_STATE, "topic '%s' partition %d is not assigned to this consumer", tp->topic, tp->partition);
    if (a->how != EG_READ)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %d: nothing was read there yet: seek first", tp->topic,
                            tp->partition);
    if (tp->offset < 0 || tp->offset > a->reader.offset)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %d: offset %" PRId64 " is not one of 0 to %" PRId64 ", which "
                                             "poll comes to next", tp->topic, tp->partition, tp->offset, a->reader.offset);
    if (tp->metadata != NULL && strlen(tp->metadata) > EG_METADATA_MAX)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %d: metadata has %u bytes at most", tp->topic, tp->partition,
                            EG_METADATA_MAX);
    *whose = a;
    return check_place(c, a, tp->offset);
}

static int check_list(const eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, bool *metadata) {
    struct assigned *a;
    int rc = EAGRE_OK;
    *metadata = false;
    for (size_t i = 0; list == NULL && i < c->part_count && rc == EAGRE_OK; i++)
        rc = check_place(c, c->parts[i], c->parts[i]->reader.offset);
    for (size_t i = 0; list != NULL && i < n && rc == EAGRE_OK; i++) {
        rc = check_one(c, &list[i], &a);
        *metadata |= list[i].metadata != NULL;
    }
    return rc;
}

/* Into the cells; all that poll has returned, or the list, which was checked. */
static void store(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n) {
    for (size_t i = 0; list == NULL && i < c->part_count; i++) {
        struct assigned *a = c->parts[i];
        if (a->cell != NULL && a->how == EG_READ)
            eg_commit_cell(a, a->reader.offset);
    }
    for (size_t i = 0; list != NULL && i < n; i++) {
        struct assigned *a;
        if (check_one(c, &list[i], &a) != EAGRE_OK)
            continue;
        eg_commit_cell(a, list[i].offset);
        if (a->reader.offset == a->sought) /* nor may a poll think that it has come there */
            a->committed = a->sought;
    }
    eg_commit_count(c->group);
}

/* ---- asking the daemon ---------------------------------------------------------------------------------------- */

/* GROUP_COMMIT: of list[*at ..] those with metadata, so many as fit; *at: one behind them. */
static void tell(eagre_consumer_t *c, struct eg_enc *req, const eagre_topic_partition_t *list, size_t n, size_t *at) {
    struct membership *g = c->group;
    uint16_t count = 0;
    eg_enc_begin(req, g->out, EG_MSG_MAX, EG_MSG_GROUP_COMMIT, 0, 0);
    eg_enc_u64(req, g->member);
    eg_enc_u64(req, g->commits);
    size_t count_at = req->used;
    eg_enc_u16(req, 0);
    for (; *at < n && req->used + EG_METADATA_MAX + 32 < EG_MSG_MAX; (*at)++) {
        struct assigned *a = eg_assigned_find(c, list[*at].topic, list[*at].partition);
        if (a == NULL || list[*at].metadata == NULL)
            continue;
        eg_enc_u32(req, a->of->topic->uid);
        eg_enc_u32(req, a->number);
        eg_enc_i64(req, list[*at].offset);
        eg_enc_str(req, list[*at].metadata);
        count++;
    }
    eg_enc_patch_u16(req, count_at, count);
}

static int not_stored(void) {
    return eg_error_set(EAGRE_E_TIMED_OUT, "the commit is not in the database yet; it may still come there");
}

/* One question; until is the call's. *told: entries that the daemon has by now. */
static int ask_commit(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, size_t *told, int64_t until) {
    struct eg_enc req;
    struct eg_dec reply;
    size_t at = *told;
    int64_t turn = eg_mono_ns() + ASK_NS;
    tell(c, &req, list, n, &at);
    c->until = (struct eg_until){.ns = turn < until ? turn : until};
    int rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
    if (rc == EAGRE_OK)
        *told = at;
    return rc;
}

/* Until the database has it: ask, and ask again when there is another daemon. */
static int wait_stored(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, int64_t until) {
    struct membership *g = c->group;
    struct eg_member_page *page = g->page;
    uint64_t mine = g->commits;
    uint32_t epoch = 0;
    size_t told = 0;
    for (bool asked = false;;) {
        /* Acquire: then `stored` is no older. Partner: the daemon stores it, then rings; both release. */
        uint32_t seen = eg_load_acquire(&page->rings);
        if (asked && told >= n && eg_load_acquire(&page->stored) >= mine)
            return EAGRE_OK;
        if (!is_in(c))
            return fenced(c);
        if (asked && eg_load_acquire(&c->e->bus->epoch) != epoch) { /* what it was told may have gone with it */
            asked = false;
            told = 0;
        }
        int64_t nap = NAP_NS;
        if (!asked || told < n) {
            epoch = eg_load_acquire(&c->e->bus->epoch);
            int rc = ask_commit(c, list, n, &told, until);
            asked |= rc == EAGRE_OK;
            if (rc == EAGRE_E_FENCED)
                return fenced(c);
            if (rc != EAGRE_OK && rc != EAGRE_E_WOULD_BLOCK && rc != EAGRE_E_NO_DAEMON)
                return rc;
            if (rc != EAGRE_E_NO_DAEMON && eg_mono_ns() < until)
                continue;
            if (eg_mono_ns() >= until)
                return rc == EAGRE_E_NO_DAEMON ? rc : not_stored();
            nap = AWAY_NAP_NS;
        }
        int64_t left = until - eg_mono_ns();
        if (left <= 0)
            return not_stored();
        eg_futex_wait(&page->rings, seen, left < nap ? left : nap);
    }
}

/* ---- partitions that were assigned by hand ----------------------------------------------------------------------- */

/* One message of GROUP_PUT: list[*at ..], as many as fit. */
static void put_some(eagre_consumer_t *c, struct eg_enc *req, const eagre_topic_partition_t *list, size_t n, size_t *at) {
    struct membership *g = c->group;
    uint16_t count = 0;
    eg_enc_begin(req, g->out, EG_MSG_MAX, EG_MSG_GROUP_PUT, 0, 0);
    eg_enc_str(req, g->id);
    eg_enc_u8(req, g->type);
    size_t count_at = req->used;
    eg_enc_u16(req, 0);
    for (; *at < n && req->used + EG_METADATA_MAX + EG_TOPIC_NAME_MAX + 32 < EG_MSG_MAX; (*at)++) {
        eg_enc_str(req, list[*at].topic);
        eg_enc_u32(req, (uint32_t)list[*at].partition);
        eg_enc_i64(req, list[*at].offset);
        eg_enc_str(req, list[*at].metadata != NULL ? list[*at].metadata : "");
        count++;
    }
    eg_enc_patch_u16(req, count_at, count);
}

/* Where all that is read stands; only what has moved, if so. free() it. */
static int positions(const eagre_consumer_t *c, bool moved, eagre_topic_partition_t **out, size_t *n) {
    eagre_topic_partition_t *list = calloc(c->part_count + 1, sizeof(*list));
    if (list == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for offsets");
    *n = 0;
    for (size_t i = 0; i < c->part_count; i++) {
        struct assigned *a = c->parts[i];
        bool has_moved = true;
        if (moved)
            (void)look_at_position(c, a, &has_moved);
        if (a->how == EG_READ && has_moved)
            list[(*n)++] = (eagre_topic_partition_t){a->of->topic->name, (int32_t)a->number, a->reader.offset, NULL};
    }
    *out = list;
    return EAGRE_OK;
}

/* All of the list; or, if that is not to be waited for, sent. */
static int put(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, bool waits) {
    struct eg_enc req;
    struct eg_dec reply;
    int rc = EAGRE_OK;
    for (size_t at = 0; at < n && rc == EAGRE_OK;) {
        put_some(c, &req, list, n, &at);
        rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
        if (rc == EAGRE_E_WOULD_BLOCK && !waits && c->group->late != NULL) {
            eg_session_give_up(c->e, &c->group->late);
            rc = EAGRE_OK;
        }
    }
    return rc;
}

/* list NULL: all that poll has returned. */
static int commit_by_hand(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, bool waits) {
    eagre_topic_partition_t *all = NULL;
    int rc = list == NULL ? positions(c, false, &all, &n) : EAGRE_OK;
    if (rc == EAGRE_OK)
        rc = put(c, list != NULL ? list : all, n, waits);
    free(all);
    return rc == EAGRE_E_WOULD_BLOCK ? not_stored() : rc;
}

/* One message of what has moved. What is sent counts as committed, until the daemon says no; a later poll takes up its
 * answer. */
static int put_moved(eagre_consumer_t *c) {
    struct membership *g = c->group;
    eagre_topic_partition_t *list;
    struct eg_enc req;
    struct eg_dec reply;
    bool fresh = g->late == NULL;
    size_t n, at = 0;
    int rc = positions(c, fresh, &list, &n);
    if (rc != EAGRE_OK)
        return rc;
    if (n > 0) {
        put_some(c, &req, list, n, &at);
        for (size_t i = 0; i < at && fresh; i++)
            eg_assigned_find(c, list[i].topic, list[i].partition)->committed = list[i].offset;
        rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
    }
    free(list);
    for (size_t i = 0; i < c->part_count && rc != EAGRE_OK && rc != EAGRE_E_WOULD_BLOCK; i++)
        if (c->parts[i]->how == EG_READ)
            c->parts[i]->committed = -1;
    return rc;
}

int eg_commit_by_hand(eagre_consumer_t *c, bool now) {
    struct membership *g = c->group;
    if (!c->options.enable_auto_commit || g->type != EG_GROUP_CONSUMER || c->part_count == 0)
        return EAGRE_OK;
    if (now) {
        eagre_topic_partition_t *list;
        size_t n;
        int rc = positions(c, g->late == NULL, &list, &n); /* what is under way may not arrive */
        if (rc != EAGRE_OK)
            return rc;
        eg_session_give_up(c->e, &g->late);
        c->until = (struct eg_until){.ns = eg_mono_ns() + CLOSE_NS};
        rc = put(c, list, n, true);
        c->until = (struct eg_until){0};
        free(list);
        return rc;
    }
    int64_t clock = eg_clock_read_ns(CLOCK_MONOTONIC_COARSE);
    if (clock < g->due_ns)
        return EAGRE_OK;
    int rc = put_moved(c);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return EAGRE_OK;
    g->due_ns = clock + c->options.auto_commit_interval_ms * EG_NS_PER_MS;
    bool failed = rc != EAGRE_OK && rc != EAGRE_E_NO_DAEMON, says = failed && !g->put_failed;
    g->put_failed = failed;
    return says ? eg_group_error(g, eg_error_add(rc, "auto-commit")) : EAGRE_OK;
}

/* ---- committed offsets ---------------------------------------------------------------------------------------------- */

/* Of some partitions, a reply at most. metadata: of the first; may be NULL. */
static int ask_committed(eagre_consumer_t *c, const char *topic, uint32_t first, uint32_t count, int64_t *offsets,
                         char *metadata, size_t cap) {
    struct eg_talk *t = eg_talk_begin(EG_MSG_GROUP_COMMITTED);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    eg_enc_str(&t->req, c->group->id);
    eg_enc_u16(&t->req, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++) {
        eg_enc_str(&t->req, topic);
        eg_enc_u32(&t->req, first + i);
    }
    int rc = eg_talk_send(t, c->e);
    if (rc == EAGRE_OK && eg_dec_u16(&t->reply) != count)
        rc = eg_talk_malformed("GROUP_COMMITTED");
    char text[EG_METADATA_MAX + 1], first_text[EG_METADATA_MAX + 1] = "";
    int64_t got[COMMITTED_MAX];
    for (uint32_t i = 0; rc == EAGRE_OK && i < count; i++) {
        got[i] = eg_dec_i64(&t->reply);
        (void)eg_dec_i64(&t->reply);
        (void)eg_dec_u8(&t->reply);
        eg_dec_str(&t->reply, i == 0 ? first_text : text, sizeof(text));
    }
    if (rc == EAGRE_OK && !eg_dec_end(&t->reply))
        rc = eg_talk_malformed("GROUP_COMMITTED");
    free(t);
    if (rc != EAGRE_OK)
        return eg_group_error(c->group, rc);
    memcpy(offsets, got, count * sizeof(*got));
    if (metadata != NULL && cap > 0 && offsets[0] >= 0)
        snprintf(metadata, cap, "%s", first_text);
    return EAGRE_OK;
}

int eg_commit_committed(eagre_consumer_t *c, const char *topic, uint32_t first, uint32_t count, int64_t *offsets) {
    int rc = EAGRE_OK;
    for (uint32_t at = 0; at < count && rc == EAGRE_OK; at += COMMITTED_MAX) {
        uint32_t n = count - at < COMMITTED_MAX ? count - at : COMMITTED_MAX;
        rc = ask_committed(c, topic, first + at, n, offsets + at, NULL, 0);
    }
    return rc;
}

int eagre_consumer_committed(eagre_consumer_t *c, const char *topic, int32_t partition, int64_t *offset, char *metadata,
                             size_t cap) {
    int64_t got;
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    if (c->group == NULL || topic == NULL || partition < 0 || offset == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_committed: %s", c->group == NULL
                                ? "the consumer was opened without a group_id" : "topic, partition and offset must be given");
    rc = ask_committed(c, topic, (uint32_t)partition, 1, &got, metadata, cap);
    if (rc == EAGRE_OK && got < 0)
        return eg_error_set(EAGRE_E_NO_OFFSET, "group '%s': topic '%s' partition %d has no committed offset", c->group->id,
                            topic, partition);
    if (rc == EAGRE_OK)
        *offset = got;
    return rc;
}

/* ---- the calls ---------------------------------------------------------------------------------------------------- */

static int check_call(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, int32_t timeout_ms, const char *what,
                      bool *metadata) {
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    if (c->group == NULL || (list == NULL && n > 0))
        return eg_error_set(EAGRE_E_INVALID, "%s: %s", what,
                            c->group == NULL ? "the consumer was opened without a group_id" : "there is no list");
    if (c->group->type == EG_GROUP_SHARE)
        return eg_error_set(EAGRE_E_STATE, "%s: records of a share group are acknowledged, not committed", what);
    if (c->group->subscribed && (c->group->page != NULL || c->group->was_fenced) && !is_in(c))
        return fenced(c);
    rc = check_list(c, list, n, metadata);
    if (rc != EAGRE_E_WOULD_BLOCK)
        return rc;
    struct eg_until before = c->until; /* what it was about to look at has not come yet */
    int64_t limit = timeout_ms < 0 ? eg_request_limit_ns : timeout_ms * EG_NS_PER_MS;
    c->until = (struct eg_until){.ns = eg_mono_ns() + limit};
    rc = check_list(c, list, n, metadata);
    c->until = before;
    return rc == EAGRE_E_WOULD_BLOCK ? EAGRE_E_TIMED_OUT : rc;
}

/* A failure of a commit says whose. */
static int failed(const eagre_consumer_t *c, int rc) {
    return c == NULL || c->group == NULL || rc == EAGRE_E_FENCED || rc == EAGRE_E_FORKED ? rc : eg_group_error(c->group, rc);
}

int eagre_consumer_commit(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, int32_t timeout_ms) {
    bool metadata = false;
    int rc = check_call(c, list, n, timeout_ms, "eagre_consumer_commit", &metadata);
    if (rc == EAGRE_OK && timeout_ms < -1)
        rc = eg_error_set(EAGRE_E_INVALID, "eagre_consumer_commit: timeout_ms is %d", timeout_ms);
    if (rc != EAGRE_OK)
        return failed(c, rc);
    struct membership *g = c->group;
    if (g->subscribed && g->page == NULL)
        return EAGRE_OK; /* nothing is assigned yet */
    struct eg_until before = c->until;
    int64_t until = timeout_ms < 0 ? INT64_MAX : eg_mono_ns() + timeout_ms * EG_NS_PER_MS;
    eg_session_give_up(c->e, &g->late); /* poll asks again */
    if (g->subscribed) {
        store(c, list, n);
        rc = wait_stored(c, list, metadata ? n : 0, until);
    } else {
        c->until = (struct eg_until){.ns = timeout_ms < 0 ? eg_mono_ns() + eg_request_limit_ns : until};
        rc = commit_by_hand(c, list, n, true);
    }
    eg_session_give_up(c->e, &g->late);
    c->until = before;
    return rc == EAGRE_OK ? rc : failed(c, rc);
}

int eagre_consumer_commit_async(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n) {
    bool metadata = false;
    int rc = check_call(c, list, n, -1, "eagre_consumer_commit_async", &metadata);
    if (rc != EAGRE_OK)
        return failed(c, rc);
    struct membership *g = c->group;
    if (g->subscribed && g->page != NULL)
        store(c, list, n);
    if (g->subscribed && (g->page == NULL || !metadata))
        return EAGRE_OK;
    struct eg_until before = c->until;
    eg_session_give_up(c->e, &g->late);
    c->until = (struct eg_until){0};
    if (!g->subscribed)
        rc = commit_by_hand(c, list, n, false);
    for (size_t told = 0; g->subscribed && told < n && rc == EAGRE_OK;) {
        size_t at = told;
        struct eg_enc req;
        struct eg_dec reply;
        tell(c, &req, list, n, &at);
        rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
        if (rc == EAGRE_E_WOULD_BLOCK && g->late != NULL) { /* sent: that is all that is to be done */
            eg_session_give_up(c->e, &g->late);
            rc = EAGRE_OK;
        }
        told = at;
    }
    c->until = before;
    return rc == EAGRE_OK ? rc : failed(c, rc);
}
