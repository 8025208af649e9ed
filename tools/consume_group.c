/*
 * consume_group.c - `eagre consume -g`.
 *
 * What was printed is written out before it is committed, batch by batch: a record may be printed twice - we died, or the
 * reader of our output did - but none is left out. The library's own auto-commit would be a poll too early for that.
 */
#include "consume.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "eagre/admin.h"
#include "sys/clock.h"

/* ---- what is given and taken away ---------------------------------------------------------------------- */

/* "% group g rebalanced (generation 3): assigned: t [0], t [1]" */
static void note(struct run *r, const char *what, const eagre_topic_partition_t *list, size_t n) {
    eagre_member_info_t me;
    if (r->quiet || n == 0 || eagre_consumer_member(r->consumer, &me) != EAGRE_OK)
        return;
    progress_end(&r->progress);
    fprintf(stderr, "%% group %s rebalanced (generation %" PRIu32 "): %s:", r->group, me.generation, what);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, "%s %s [%" PRId32 "]", i == 0 ? "" : ",", list[i].topic, list[i].partition);
    fputc('\n', stderr);
}

/* A store to shared memory. */
static int commit(struct run *r, const char *topic, int32_t partition, int64_t offset) {
    eagre_topic_partition_t at = {topic, partition, offset, NULL};
    return eagre_consumer_commit_async(r->consumer, &at, 1);
}

/* Where the group has no offset -o says where to begin. That is committed: what is produced before we come again is not
 * left out then. */
static int place(struct run *r, struct source *s) {
    int64_t at;
    int rc = eagre_consumer_committed(r->consumer, s->topic, s->partition, &at, NULL, 0);
    s->placed = rc == EAGRE_OK;
    if (rc != EAGRE_E_NO_OFFSET)
        return rc;
    rc = eagre_consumer_seek(r->consumer, s->topic, s->partition, r->offset);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_position(r->consumer, s->topic, s->partition, &at);
    if (rc == EAGRE_OK)
        rc = commit(r, s->topic, s->partition, at);
    s->placed = rc == EAGRE_OK;
    return rc;
}

static void assigned(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct run *r = ctx;
    (void)c;
    note(r, "assigned", list, n);
    for (size_t i = 0; i < n && r->failed == EAGRE_OK; i++) {
        struct source *s;
        r->failed = run_add_source(r, list[i].topic, list[i].partition, &s);
        if (s != NULL && r->options.group_type == EAGRE_GROUP_CONSUMER)
            (void)place(r, s); /* else when it is polled */
    }
}

static void drop(struct run *r, const eagre_topic_partition_t *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < r->source_count; k++) {
            struct source *s = &r->sources[k];
            if (s->partition != list[i].partition || strcmp(s->topic, list[i].topic) != 0)
                continue;
            r->undone -= !s->done;
            *s = r->sources[--r->source_count];
            break;
        }
    }
}

static void revoked(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)c;
    note(ctx, "revoked", list, n);
    drop(ctx, list, n);
}

static void lost(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)c;
    note(ctx, "lost", list, n);
    drop(ctx, list, n);
}

int group_join(struct run *r, const char *const *topics, size_t n) {
    eagre_rebalance_callbacks_t callbacks = {.revoked = revoked, .assigned = assigned, .lost = lost, .ctx = r};
    r->options.group_id = r->group;
    r->options.enable_auto_commit = 0;
    r->options.share_explicit_ack = 1;
    if (r->options.group_type == EAGRE_GROUP_SHARE)
        r->options.auto_offset_reset = r->offset == EAGRE_OFFSET_END ? EAGRE_RESET_LATEST : EAGRE_RESET_EARLIEST;
    int rc = eagre_consumer_open(r->e, &r->options, &r->consumer);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_on_rebalance(r->consumer, &callbacks);
    return rc == EAGRE_OK ? eagre_consumer_subscribe(r->consumer, topics, n) : rc;
}

/* ---- records -------------------------------------------------------------------------------------------- */

/* A queue's: each by itself. One that we held for too long may be another's by now: it is delivered again. */
static int acknowledge(struct run *r, size_t printed, size_t n) {
    size_t late = 0;
    int rc = EAGRE_OK;
    for (size_t i = 0; i < n && rc == EAGRE_OK; i++) {
        const eagre_record_t *of = &r->records[i];
        rc = eagre_consumer_acknowledge(r->consumer, of->topic, of->partition, of->offset,
                                        i < printed ? EAGRE_ACK_ACCEPT : EAGRE_ACK_RELEASE);
        late += rc == EAGRE_E_STATE;
        rc = rc == EAGRE_E_STATE ? EAGRE_OK : rc;
    }
    if (late > 0 && !r->quiet) {
        progress_end(&r->progress);
        cli_error(r->c, "group '%s': %zu records were printed too late, and may be delivered again", r->group, late);
    }
    return rc;
}

int group_printed(struct run *r, size_t printed, size_t n) {
    if (!out_flush(&r->out))
        return EAGRE_OK; /* nobody has them: nothing is committed, and the output's error is told */
    if (r->options.group_type == EAGRE_GROUP_SHARE)
        return acknowledge(r, printed, n);
    const eagre_record_t *last = &r->records[n - 1];
    int64_t next = printed < n ? r->records[printed].offset : last->offset + 1;
    const char *topic = last->topic;
    int rc = printed < n ? eagre_consumer_seek(r->consumer, topic, last->partition, next) : EAGRE_OK;
    return rc == EAGRE_OK && printed > 0 ? commit(r, topic, last->partition, next) : rc;
}

int group_idle(struct run *r) {
    if (r->out.error != 0 || r->options.group_type == EAGRE_GROUP_SHARE)
        return EAGRE_OK;
    return eagre_consumer_commit_async(r->consumer, NULL, 0);
}

/* ---- polls ---------------------------------------------------------------------------------------------- */

/*
 * The next poll joins anew, unless another member has our instance id: then it says the same at once. To be put out once
 * more takes max.poll.interval.ms.
 */
static bool is_replaced(struct run *r) {
    int64_t now = eg_mono_ns(), since = now - r->fenced_ns;
    bool again = r->fenced_ns != 0 && since < r->options.max_poll_interval_ms * EG_NS_PER_MS;
    r->fenced_ns = now;
    return again && r->options.group_instance_id != NULL;
}

int group_polled(struct run *r, int rc) {
    if (r->failed != EAGRE_OK)
        return r->failed;
    if (rc != EAGRE_E_FENCED)
        r->fenced_ns = 0;
    if (rc == EAGRE_E_FENCED && !is_replaced(r)) {
        progress_end(&r->progress);
        if (!r->quiet)
            cli_error(r->c, "%s; joining again", eagre_error_detail());
        return EAGRE_OK;
    }
    for (size_t i = 0; rc == EAGRE_E_NO_OFFSET && i < r->source_count; i++) {
        if (r->sources[i].placed)
            continue;
        int placed = place(r, &r->sources[i]);
        if (placed != EAGRE_OK && placed != EAGRE_E_NO_DAEMON && placed != EAGRE_E_TIMED_OUT)
            return placed;
        rc = placed == EAGRE_OK ? EAGRE_OK : rc;
    }
    return rc == EAGRE_E_NO_OFFSET ? EAGRE_E_NO_DAEMON : rc;
}

/* A member that has nothing, since the group has more members than partitions, or since its turn has not come yet? */
static bool is_idle(struct run *r) {
    eagre_member_info_t me;
    eagre_group_info_t *info;
    if (eagre_consumer_member(r->consumer, &me) != EAGRE_OK || me.member == 0 || me.generation == 0 ||
        eagre_group_describe(r->e, r->group, &info) != EAGRE_OK)
        return false;
    bool stable = info->state == EAGRE_GROUP_STABLE && info->generation == me.generation;
    eagre_group_info_free(info);
    return stable;
}

bool group_ended(struct run *r) {
    if ((!r->stop_at_end && r->until == INT64_MAX) || r->undone > 0)
        return false;
    return r->source_count > 0 || is_idle(r);
}
