/*
 * A member of a group: one life after another, each with settings of its own - static or dynamic, commits by hand or
 * not, polls that have to come often - until the group has got all that there is. Then it has said in its log what it
 * was given, what it saw and what it committed; who was killed is followed by another with the same log.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "eagre/admin.h"
#include "eagre/group.h"
#include "history/member.h"
#include "sys/atomic.h"
#include "torture/client.h"
#include "torture/member.h"

#define POLL_MAX 64u
#define FIRST_LOG 100u /* members' logs lie behind consumers' */

enum commits { AUTO, SYNC, ASYNC, NOW_AND_THEN };

struct part {
    uint32_t topic;
    int32_t partition;
    char name[16];
    int64_t committed; /* as we said last */
    bool is;
};

struct life {
    struct torture_client *k;
    eagre_consumer_t *c;
    struct history_member m;
    uint32_t group;
    bool share, is_explicit;
    bool patient; /* it is not put out for not polling */
    enum commits commits;
    bool put_out; /* within this call */
    struct part parts[TORTURE_TOPICS * TORTURE_PARTITIONS];
    uint64_t asked[TORTURE_TOPICS * TORTURE_PARTITIONS]; /* entries of commits */
    uint32_t asked_count;
    eagre_record_t records[POLL_MAX];
    uint64_t entries[POLL_MAX];
    bool ended[POLL_MAX];
    size_t count; /* of the last poll */
};

const char *torture_group_name(char *buf, uint32_t group) {
    (void)snprintf(buf, 16, "g%u", group);
    return buf;
}

static uint32_t topic_of(const char *name) { return (uint32_t)(name[1] - '0'); }

static struct part *part_of(struct life *l, const char *topic, int32_t partition) {
    return &l->parts[topic_of(topic) * TORTURE_PARTITIONS + (uint32_t)partition];
}

/* ---- commits ------------------------------------------------------------------------------------------------ */

/* Tell the log of those that would say something new. */
static void intend_commits(struct life *l) {
    l->asked_count = 0;
    for (size_t i = 0; i < TORTURE_TOPICS * TORTURE_PARTITIONS; i++) {
        struct part *p = &l->parts[i];
        int64_t position;
        if (!p->is || eagre_consumer_position(l->c, p->name, p->partition, &position) != EAGRE_OK ||
            position == p->committed)
            continue;
        p->committed = position;
        l->asked[l->asked_count++] = history_commit(&l->m, p->topic, p->partition, position);
    }
}

static void commits_are(struct life *l, enum history_commit state) {
    for (uint32_t i = 0; i < l->asked_count; i++)
        history_commit_is(&l->m, l->asked[i], state);
    l->asked_count = 0;
}

/* A commit of who was put out; poll says so, too. */
static bool is_fenced(int rc) { return rc == EAGRE_E_FENCED; }

static void commit(struct life *l, bool sync) {
    intend_commits(l);
    int rc = sync ? eagre_consumer_commit(l->c, NULL, 0, 1000)
                  : eagre_consumer_commit_async(l->c, NULL, 0);
    if (rc == EAGRE_OK)
        commits_are(l, sync ? HISTORY_COMMIT_SAFE : HISTORY_COMMIT_DONE);
    else if (is_fenced(rc))
        commits_are(l, HISTORY_COMMIT_REFUSED);
    else
        (void)torture_ok(rc, "eagre_consumer_commit");
}

static void commit_perhaps(struct life *l) {
    if (l->commits == SYNC || (l->commits == NOW_AND_THEN && torture_chance(l->k, 10)))
        commit(l, true);
    else if (l->commits == ASYNC || (l->commits == NOW_AND_THEN && torture_chance(l->k, 4)))
        commit(l, false);
}

/* ---- what is given and taken ---------------------------------------------------------------------------------- */

static void assigned(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n,
                     void *ctx) {
    struct life *l = ctx;
    eagre_member_info_t info;
    if (eagre_consumer_member(c, &info) != EAGRE_OK)
        torture_complain("eagre_consumer_member: %s", eagre_error_detail());
    for (size_t i = 0; i < n && !l->share; i++) {
        struct part *p = part_of(l, list[i].topic, list[i].partition);
        if (p->is)
            torture_complain("%s partition %d is given to us again", list[i].topic,
                             list[i].partition);
        p->topic = topic_of(list[i].topic);
        p->partition = list[i].partition;
        torture_topic_name(p->name, p->topic);
        p->committed = list[i].offset;
        p->is = true;
        /* Nothing is deleted here: who begins behind the beginning was told so. */
        history_assigned(&l->m, p->topic, p->partition, info.generation, list[i].offset,
                         list[i].offset > 0 ? list[i].offset : -1);
    }
}

static void revoked(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct life *l = ctx;
    (void)c;
    if (l->share)
        return;
    if (l->commits != AUTO && torture_chance(l->k, 2))
        commit(l, torture_chance(l->k, 2));
    for (size_t i = 0; i < n; i++) {
        struct part *p = part_of(l, list[i].topic, list[i].partition);
        if (!p->is)
            torture_complain("%s partition %d is taken from us, who do not have it", list[i].topic,
                             list[i].partition);
        history_revoked(&l->m, p->topic, p->partition);
        p->is = false;
    }
}

static void lost(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct life *l = ctx;
    (void)c;
    l->put_out = true;
    for (size_t i = 0; i < n && !l->share; i++) {
        struct part *p = part_of(l, list[i].topic, list[i].partition);
        history_put_out(&l->m, p->topic, p->partition);
        p->is = false;
    }
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

static void was_delivered(struct life *l, const eagre_record_t *x) {
    _Atomic int64_t *at =
        &l->k->control->topic[topic_of(x->topic)].delivered[l->group][x->partition];
    int64_t seen = eg_load_relaxed(at);
    while (seen <= x->offset && !eg_cas_acq_rel(at, &seen, x->offset + 1)) {}
}

static void end_one(struct life *l, size_t i, enum history_end how) {
    const eagre_record_t *x = &l->records[i];
    uint64_t entry = history_end(&l->m, topic_of(x->topic), x->partition, x->offset, how);
    int rc = eagre_consumer_acknowledge(l->c, x->topic, x->partition, x->offset,
                                        how == HISTORY_ACCEPT    ? EAGRE_ACK_ACCEPT
                                        : how == HISTORY_RELEASE ? EAGRE_ACK_RELEASE
                                                                 : EAGRE_ACK_REJECT);
    if (rc == EAGRE_OK)
        history_end_is(&l->m, entry, HISTORY_COMMIT_DONE);
    else if (rc == EAGRE_E_STATE || is_fenced(rc))
        history_end_is(&l->m, entry, HISTORY_COMMIT_REFUSED);
    else
        torture_complain("eagre_consumer_acknowledge: %s: %s", eagre_status_name(rc),
                         eagre_error_detail());
    l->ended[i] = true;
}

static void end_some(struct life *l) {
    bool drain = torture_phase(l->k) == TORTURE_DRAIN;
    for (size_t i = 0; i < l->count; i++) {
        uint32_t draw = torture_pick(l->k, 100);
        if (!l->is_explicit && draw < 60)
            continue; /* the next poll does it */
        if (draw < 90 || drain)
            end_one(l, i, HISTORY_ACCEPT);
        else if (draw < 96)
            end_one(l, i, HISTORY_RELEASE);
        else if (draw < 98)
            end_one(l, i, HISTORY_REJECT);
        else if (l->is_explicit)
            end_one(l, i, HISTORY_ACCEPT);
    }
}

/* What a call is about to accept for us; whether it may is not told. */
static void intend_ends(struct life *l) {
    for (size_t i = 0; i < l->count && l->share && !l->is_explicit; i++)
        if (!l->ended[i])
            (void)history_end(&l->m, topic_of(l->records[i].topic), l->records[i].partition,
                              l->records[i].offset, HISTORY_ACCEPT);
    l->count = 0;
}

static void take(struct life *l) {
    struct torture_client *k = l->k;
    for (size_t i = 0; i < l->count; i++) {
        const eagre_record_t *x = &l->records[i];
        uint32_t count;
        l->ended[i] = false;
        if (!l->share) {
            l->entries[i] = history_saw(&k->log, topic_of(x->topic), x->partition, x->offset,
                                        x->value, x->value_len, x->key, x->key_len);
        } else {
            int rc = eagre_consumer_delivery_count(l->c, x, &count);
            if (rc != EAGRE_OK)
                torture_complain("eagre_consumer_delivery_count: %s", eagre_error_detail());
            history_acquired(&l->m, topic_of(x->topic), x->partition, x->offset, x->value,
                             x->value_len, x->key, x->key_len, count);
        }
        was_delivered(l, x);
    }
    if (l->count > 0 && torture_chance(k, 20))
        torture_pause_us(torture_pick(k, 5000));
    for (size_t i = 0; i < l->count && !l->share; i++)
        history_again(&k->log, l->entries[i], l->records[i].value, l->records[i].value_len,
                      l->records[i].key, l->records[i].key_len);
}

/* One poll, and what goes with it. */
static void turn(struct life *l) {
    eagre_member_info_t info;
    size_t n = 0;
    if (l->commits == AUTO && !l->share)
        intend_commits(l);
    intend_ends(l);
    l->put_out = false;
    history_polls(&l->m);
    int rc = eagre_consumer_poll(l->c, l->records, 1 + torture_pick(l->k, POLL_MAX),
                                 (int)torture_pick(l->k, 30), &n);
    l->count = n;
    if (l->put_out || is_fenced(rc))
        l->asked_count = 0; /* who knows */
    if (l->put_out && l->share) { /* it has nothing any more: another life */
        int64_t began_ns = l->m.poll_ns;
        history_left(&l->m, false);
        history_member_begin(&l->m, &l->k->log, l->group, HISTORY_DYNAMIC, true);
        l->m.poll_ns = began_ns;
    }
    if (is_fenced(rc)) {
        if (n > 0)
            torture_complain("records come with the news that we were put out");
        return;
    }
    if (!torture_ok(rc, "eagre_consumer_poll"))
        return;
    if (l->commits == AUTO && !l->share)
        commits_are(l, HISTORY_COMMIT_DONE);
    if (eagre_consumer_member(l->c, &info) == EAGRE_OK)
        history_polled(&l->m, info.generation);
    take(l);
    if (l->share)
        end_some(l);
    else if (n > 0)
        commit_perhaps(l);
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

void torture_look_at_group(struct torture_client *k, uint32_t group) {
    char name[16];
    eagre_group_offset_t *list;
    eagre_group_info_t *info;
    size_t n;
    torture_group_name(name, group);
    int64_t before = history_now();
    int rc = eagre_group_offsets(k->e, name, &list, &n);
    if (rc == EAGRE_E_UNKNOWN_GROUP || !torture_ok(rc, "eagre_group_offsets"))
        return;
    for (size_t i = 0; i < n; i++)
        if (list[i].committed > 0)
            history_committed(&k->log, group, topic_of(list[i].topic), list[i].partition,
                              list[i].committed, before);
    free(list);
    before = history_now();
    rc = eagre_group_describe(k->e, name, &info);
    if (rc == EAGRE_E_UNKNOWN_GROUP || !torture_ok(rc, "eagre_group_describe"))
        return;
    history_generation(&k->log, group, info->generation, before);
    eagre_group_info_free(info);
}

/* A share group is through when its first record that is not done lies behind the end. */
static bool share_has_all(struct life *l) {
    char name[16];
    eagre_group_offset_t *list;
    size_t n, through = 0, wanted = 0;
    if (!torture_ok(eagre_group_offsets(l->k->e, torture_group_name(name, l->group), &list, &n),
                    "eagre_group_offsets"))
        return false;
    for (size_t i = 0; i < n; i++) {
        int64_t end =
            eg_load_relaxed(&l->k->control->topic[topic_of(list[i].topic)].end[list[i].partition]);
        through += end > 0 && list[i].committed >= end;
    }
    free(list);
    for (uint32_t i = 0; i < l->k->control->topics; i++)
        for (uint32_t j = 0; j < TORTURE_PARTITIONS; j++)
            wanted += eg_load_relaxed(&l->k->control->topic[i].end[j]) > 0;
    return through >= wanted;
}

static bool has_all(struct life *l) {
    const struct torture_control *s = l->k->control;
    for (uint32_t i = 0; i < s->topics; i++)
        for (uint32_t j = 0; j < TORTURE_PARTITIONS; j++)
            if (eg_load_acquire(&s->topic[i].delivered[l->group][j]) <
                eg_load_acquire(&s->topic[i].end[j]))
                return false;
    return !l->share || share_has_all(l);
}

static void say_complete(struct life *l) {
    const struct torture_control *s = l->k->control;
    for (uint32_t i = 0; i < s->topics; i++)
        for (uint32_t j = 0; j < TORTURE_PARTITIONS; j++)
            if (eg_load_relaxed(&s->topic[i].end[j]) > 0)
                history_group_complete(&l->k->log, l->group, i, (int32_t)j,
                                       eg_load_relaxed(&s->topic[i].end[j]));
}

/* ---- a life ---------------------------------------------------------------------------------------------------------- */

static const char *some_strategies(struct torture_client *k, const struct torture_group *g,
                                   char *buf, size_t cap) {
    static const char *const all[] = {"range", "roundrobin", "cooperative-sticky", "numa"};
    const char *other = all[torture_pick(k, 4)];
    bool both = g->mixed && strcmp(other, g->strategy) != 0 && torture_chance(k, 2);
    if (both)
        (void)snprintf(buf, cap, "%s,%s", other, g->strategy);
    else
        (void)snprintf(buf, cap, "%s", g->strategy);
    return buf;
}

static void open_consumer(struct life *l) {
    struct torture_client *k = l->k;
    struct torture_control *s = k->control;
    char group[16], instance[16], strategies[64];
    const eagre_rebalance_callbacks_t callbacks = {
        .revoked = revoked, .assigned = assigned, .lost = lost, .ctx = l};
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    bool is_static = !l->share && torture_chance(k, 3);
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.wait = torture_chance(k, 4) && !s->sleeps ? EAGRE_WAIT_YIELD : EAGRE_WAIT_SLEEP;
    o.group_id = torture_group_name(group, l->group);
    (void)snprintf(instance, sizeof(instance), "i%u", k->index);
    o.group_instance_id = is_static ? instance : NULL;
    o.group_type = l->share ? EAGRE_GROUP_SHARE : EAGRE_GROUP_CONSUMER;
    o.partition_assignment_strategy =
        some_strategies(k, &s->group[l->group], strategies, sizeof(strategies));
    l->commits = torture_chance(k, 2) ? AUTO : (enum commits)(SYNC + torture_pick(k, 3));
    o.enable_auto_commit = l->commits == AUTO;
    o.auto_commit_interval_ms = torture_chance(k, 2) ? 20 : 5000;
    l->patient = s->poll_ms == 0 || torture_chance(k, 4);
    o.max_poll_interval_ms = l->patient ? 600000 : (int32_t)s->poll_ms;
    o.session_timeout_ms = 50 + (int32_t)torture_pick(k, 500);
    o.share_explicit_ack = l->is_explicit = torture_chance(k, 2);
    while (!torture_ok(eagre_consumer_open(k->e, &o, &l->c), "eagre_consumer_open")) {}
    int rc = eagre_consumer_on_rebalance(l->c, &callbacks);
    if (rc != EAGRE_OK)
        torture_complain("eagre_consumer_on_rebalance: %s", eagre_error_detail());
    history_member_begin(&l->m, &k->log, l->group, is_static ? (int32_t)k->index : HISTORY_DYNAMIC,
                         l->share);
}

static void subscribe(struct life *l) {
    static const char *const pattern[] = {"^t[0-9]$"};
    char text[TORTURE_TOPICS][16];
    const char *names[TORTURE_TOPICS];
    uint32_t topics = l->k->control->topics, known = 0;
    for (uint32_t i = 0; i < topics; i++) {
        names[i] = torture_topic_name(text[i], i);
        known += eg_load_acquire(&l->k->control->topic[i].partitions) > 0;
    }
    bool all = known == topics && torture_chance(l->k, 2);
    for (;;) {
        int rc = eagre_consumer_subscribe(l->c, all ? names : pattern, all ? topics : 1);
        /* It was stopped for longer than it may be, between one request and the next. */
        if (rc == EAGRE_E_FENCED && !l->patient)
            continue;
        if (torture_ok(rc, "eagre_consumer_subscribe"))
            return;
    }
}

/* Leaves as one should. */
static void leave(struct life *l) {
    if (l->commits == AUTO && !l->share)
        intend_commits(l);
    intend_ends(l);
    l->put_out = false;
    history_polls(&l->m);
    if (torture_chance(l->k, 2)) {
        int rc = eagre_consumer_unsubscribe(l->c);
        if (!is_fenced(rc) && rc != EAGRE_OK)
            torture_complain("eagre_consumer_unsubscribe: %s", eagre_error_detail());
    }
    eagre_consumer_close(l->c);
    if (l->commits == AUTO && !l->share && !l->put_out)
        commits_are(l, HISTORY_COMMIT_DONE);
    history_left(&l->m, l->patient && !l->put_out);
}

/* True: the group has all that there is. */
static bool live(struct torture_client *k) {
    static struct life l; /* large */
    bool all = false;
    l = (struct life){.k = k, .group = k->index % k->control->groups};
    l.share = k->control->group[l.group].share;
    open_consumer(&l);
    subscribe(&l);
    for (uint64_t polls = 0; !all; polls++) {
        bool drain = torture_phase(k) == TORTURE_DRAIN; /* nothing comes behind it */
        bool full = k->log.capacity - k->log.count < 10000;
        if (full)
            torture_complain("the log is full");
        turn(&l);
        if (torture_chance(k, 100))
            torture_look_at_group(k, torture_pick(k, k->control->groups));
        if (!drain && polls > 20 && torture_chance(k, k->control->rejoins ? 30 : 300))
            break;
        all = drain && l.count == 0 && has_all(&l);
    }
    if (all && l.commits != AUTO && !l.share)
        commit(&l, true);
    if (all)
        say_complete(&l);
    leave(&l);
    return all;
}

void torture_be_member(struct torture_client *k) {
    struct torture_control *s = k->control;
    uint64_t capacity = (uint64_t)s->records_max * s->producers * 8 + 1000000;
    if (history_consumer_open(&k->log, k->dir, FIRST_LOG + k->index, capacity) != 0)
        torture_complain("no log");
    while (!live(k))
        torture_pause_us(torture_pick(k, 20000));
}
