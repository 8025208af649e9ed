/*
 * group_offsets.c - committed offsets in memory, sorted; collected from members' pages; loaded at the start.
 *
 * A member's cells are looked at each auto.commit.interval.ms while it commits, else each 5 s, all members together.
 */
#include "offset_writer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "members_store.h"
#include "partition.h"
#include "shares.h"
#include "slots.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/faultpoint.h"

#define WRITE_NS EG_NS_PER_S        /* when what nobody waits for is written, at the latest */
#define IDLE_NS (5 * EG_NS_PER_S)   /* looks at members that commit nothing */
#define LOOK_NS (20 * EG_NS_PER_MS) /* at most as often are pages looked at */
#define QUIET_LOOKS 3               /* so many without a commit, and a member is idle */
#define EXPIRE_NS (60 * EG_NS_PER_S)
#define METADATA_BYTES_MAX ((size_t)1 << 20) /* of a group: the database must have room for all of them */

/* ---- in memory ------------------------------------------------------------------------------------------------ */

/* The first that is not before it. */
static size_t place_of(const struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    size_t low = 0, high = g->offset_count;
    if (high > 0 && (g->offsets[high - 1].topic_uid < topic_uid ||
                     (g->offsets[high - 1].topic_uid == topic_uid && g->offsets[high - 1].partition < partition)))
        return high; /* as they come when they are loaded */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct eg_committed *o = &g->offsets[middle];
        if (o->topic_uid < topic_uid || (o->topic_uid == topic_uid && o->partition < partition))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct eg_committed *eg_offset_entry(const struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    size_t at = place_of(g, topic_uid, partition);
    struct eg_committed *o = at < g->offset_count ? &g->offsets[at] : NULL;
    return o != NULL && o->topic_uid == topic_uid && o->partition == partition ? o : NULL;
}

struct eg_committed *eg_offset_find(struct eg_group *g, uint32_t topic_uid, uint32_t partition) {
    struct eg_committed *o = eg_offset_entry(g, topic_uid, partition);
    return o != NULL && o->offset >= 0 ? o : NULL;
}

static int reserve(struct eg_group *g, size_t more) {
    if (more <= g->offset_cap - g->offset_count)
        return EAGRE_OK;
    size_t cap = 2 * g->offset_count + more;
    struct eg_committed *all = realloc(g->offsets, cap * sizeof(*all));
    if (all == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory for its offsets", g->name);
    g->offsets = all;
    g->offset_cap = cap;
    return EAGRE_OK;
}

static int too_much_metadata(const struct eg_group *g) {
    return eg_error_set(EAGRE_E_LIMIT, "group '%s': the metadata of its offsets would have more than %zu bytes", g->name,
                        METADATA_BYTES_MAX);
}

/* Its entry, with these metadata; made if there is none. */
static int entry_for(struct eg_group *g, uint32_t topic_uid, uint32_t partition, const char *metadata,
                     struct eg_committed **out) {
    struct eg_committed *o = eg_offset_entry(g, topic_uid, partition);
    size_t had = o != NULL && o->metadata != NULL ? strlen(o->metadata) : 0;
    size_t has = metadata != NULL ? strlen(metadata) : 0;
    char *copy = NULL;
    if (has > had && g->metadata_bytes - had + has > METADATA_BYTES_MAX)
        return too_much_metadata(g);
    int rc = o == NULL ? reserve(g, 1) : EAGRE_OK;
    if (rc == EAGRE_OK && has > 0 && (copy = strdup(metadata)) == NULL)
        rc = eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory for metadata", g->name);
    if (rc != EAGRE_OK)
        return rc;
    if (o == NULL) {
        size_t at = place_of(g, topic_uid, partition);
        o = &g->offsets[at];
        memmove(o + 1, o, (g->offset_count - at) * sizeof(*o));
        *o = (struct eg_committed){.topic_uid = topic_uid, .partition = partition, .offset = -1};
        g->offset_count++;
    }
    free(o->metadata);
    o->metadata = copy;
    g->metadata_bytes = g->metadata_bytes - had + has;
    *out = o;
    return EAGRE_OK;
}

static void soil(struct eg_daemon *d, struct eg_group *g, struct eg_committed *o) {
    struct eg_offset_writer *w = d->groups->writer;
    o->dirty = g->dirty = true;
    g->noted_round = 0;
    if (!w->dirty)
        w->due_ns = eg_mono_ns() + WRITE_NS;
    w->dirty = true;
}

int eg_offset_set(struct eg_daemon *d, struct eg_group *g, uint32_t topic_uid, uint32_t partition, int64_t offset,
                  uint32_t flags, const char *metadata) {
    struct eg_committed *o;
    int rc = entry_for(g, topic_uid, partition, offset >= 0 ? metadata : NULL, &o);
    if (rc != EAGRE_OK)
        return rc;
    o->offset = offset < 0 ? -1 : offset;
    o->flags = flags;
    o->time_ms = eg_now_coarse_ns() / EG_NS_PER_MS;
    o->stamp = ++d->groups->writer->stamp;
    soil(d, g, o);
    return EAGRE_OK;
}

void eg_offsets_sweep(struct eg_group *g) {
    size_t left = 0;
    for (size_t i = 0; i < g->offset_count; i++) {
        struct eg_committed *o = &g->offsets[i];
        if (o->offset >= 0 || o->dirty || o->writing)
            g->offsets[left++] = *o;
        else
            free(o->metadata);
    }
    g->offset_count = left;
}

void eg_offsets_free(struct eg_group *g) {
    for (size_t i = 0; i < g->offset_count; i++)
        free(g->offsets[i].metadata);
    free(g->offsets);
    g->offsets = NULL;
    g->offset_count = g->offset_cap = g->metadata_bytes = 0;
    g->dirty = false;
}

void eg_offsets_forget_topic(struct eg_daemon *d, uint32_t topic_uid) {
    for (size_t i = 0; d->groups != NULL && i < d->groups->count; i++) {
        struct eg_group *g = d->groups->list[i];
        size_t from = place_of(g, topic_uid, 0), to = from;
        for (; to < g->offset_count && g->offsets[to].topic_uid == topic_uid; to++) {
            g->metadata_bytes -= g->offsets[to].metadata != NULL ? strlen(g->offsets[to].metadata) : 0;
            free(g->offsets[to].metadata);
        }
        if (to > from) {
            memmove(&g->offsets[from], &g->offsets[to], (g->offset_count - to) * sizeof(g->offsets[0]));
            g->offset_count -= to - from;
        }
    }
}

/* ---- from members' pages --------------------------------------------------------------------------------------- */

int64_t eg_offsets_log_end(struct eg_partition *p, int64_t wanted) {
    uint32_t slots = eg_partition_slots(p);
    if (p->buffers == NULL)
        return eg_load_relaxed(&p->status->start_offset);
    int64_t end = p->base[p->active % slots] + (p->end.seq == p->active ? (int64_t)p->end.index : 0);
    if (wanted <= end)
        return end;
    if (!eg_partition_failed(p) && eg_slots_follow(p, eg_mono_ns())) {
        do /* a part of the segment each time */
            end = eg_partition_end(p);
        while (!p->end_found && end < wanted);
        return end;
    }
    /* It was destroyed. What was read before is still to be committed. */
    return p->base[p->active % slots] + eg_partition_records_max(p);
}

static void report_strange(struct eg_member *m, const struct eg_given *given, int64_t value) {
    if (!m->strange)
        eg_log_warning("group '%s': member %016" PRIx64 " (pid %u, user %u) commits offset %" PRId64
                       " of topic id %u partition %u, which there is not: ignored, as all such ones of it",
                       m->group->name, m->id, m->pid, m->uid, value, given->topic_uid, given->partition);
    m->strange = true;
}

/* False: no memory. */
static bool collect_cell(struct eg_daemon *d, struct eg_member *m, struct eg_given *given, bool *changed) {
    if (given->cell >= EG_MEMBER_CELLS)
        return true;
    /* Acquire, though nothing else is read by it. Partner: a commit's release. */
    int64_t value = eg_load_acquire(&m->page->cell[given->cell]);
    if (value == given->collected && !given->strange)
        return true;
    struct eg_partition *p = eg_topics_partition_by_uid(d, given->topic_uid, given->partition);
    const struct eg_committed *o = eg_offset_find(m->group, given->topic_uid, given->partition);
    if (p == NULL || value == EG_NO_COMMIT || (o != NULL && o->offset == value && o->flags == 0)) {
        given->collected = value;
        given->strange = false;
        return true;
    }
    given->strange = value < 0 || value > eg_offsets_log_end(p, value);
    if (given->strange) {
        report_strange(m, given, value);
    } else {
        if (eg_offset_set(d, m->group, given->topic_uid, given->partition, value, 0, NULL) != EAGRE_OK) {
            static struct eg_log_limit limit;
            eg_log_limited(&limit, EG_LOG_ERROR, "a commit is not taken now: %s", eg_error_text());
            return false;
        }
        *changed = true;
    }
    given->collected = value;
    return true;
}

void eg_offsets_collect(struct eg_daemon *d, struct eg_member *m) {
    bool taken = true, changed = false, strange = false;
    if (m->page == NULL)
        return;
    /* Acquire: the cells of all these commits are seen. Partner: the release of the count, after them. */
    uint64_t commits = eg_load_acquire(&m->page->commits);
    for (size_t i = 0; i < m->given_count; i++) {
        taken &= collect_cell(d, m, &m->given[i], &changed);
        strange |= m->given[i].strange;
    }
    if (taken)
        m->seen = commits;
    if (taken && !strange) /* else its page does not say that all of them are stored; GROUP_COMMIT says why */
        m->commits = commits;
    if (changed)
        EG_FAULT("group.collected");
}

/* ---- now and then ------------------------------------------------------------------------------------------------ */

void eg_offsets_hurry(struct eg_daemon *d) { d->groups->writer->dirty = d->groups->writer->hurry = true; }

int eg_offsets_put(struct eg_daemon *d, struct eg_group *g, struct eg_meta_offset *list, size_t count) {
    struct eg_offset_writer *w = d->groups->writer;
    size_t metadata = g->metadata_bytes;
    for (size_t i = 0; i < count; i++) {
        list[i].group_uid = g->uid;
        list[i].time_ms = eg_now_coarse_ns() / EG_NS_PER_MS;
        list[i].stamp = ++w->stamp;
        metadata += list[i].metadata != NULL ? strlen(list[i].metadata) : 0;
    }
    if (metadata > METADATA_BYTES_MAX)
        return too_much_metadata(g);
    int rc = reserve(g, count);
    /* What is on its way or noted is older than the list, and must not come behind it. */
    if (rc == EAGRE_OK)
        rc = eg_offset_writer_flush(d);
    if (rc == EAGRE_OK)
        rc = eg_members_store_forget_offsets(d->groups->store);
    if (rc == EAGRE_OK)
        rc = eg_meta_offsets_put(d->meta, list, count, NULL, 0);
    for (size_t i = 0; rc == EAGRE_OK && i < count; i++) {
        struct eg_committed *o;
        if (entry_for(g, list[i].topic_uid, list[i].partition, list[i].metadata, &o) != EAGRE_OK &&
            entry_for(g, list[i].topic_uid, list[i].partition, NULL, &o) != EAGRE_OK) /* for which there is room */
            continue;
        o->offset = list[i].offset;
        o->time_ms = list[i].time_ms;
        o->stamp = list[i].stamp;
        o->flags = 0;
    }
    eg_offsets_sweep(g);
    return rc;
}

static int64_t behind(int64_t now, int64_t step) { return (now / step + 1) * step; }

static void look_at(struct eg_daemon *d, struct eg_member *m, int64_t now) {
    int64_t interval = (int64_t)m->commit_ms * EG_NS_PER_MS;
    if (m->page != NULL && eg_load_relaxed(&m->page->commits) != m->seen) {
        eg_offsets_collect(d, m);
        eg_offset_writer_settle(d, m);
        m->quiet_looks = 0;
    } else if (m->quiet_looks < QUIET_LOOKS) {
        m->quiet_looks++;
    }
    if (m->quiet_looks < QUIET_LOOKS)
        m->look_ns = now + (interval > LOOK_NS ? interval : LOOK_NS);
    else /* all of them together, so that an idle daemon sleeps */
        m->look_ns = behind(now, interval > IDLE_NS ? interval : IDLE_NS);
}

static void look(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    struct eg_offset_writer *w = all->writer;
    uint64_t before = w->stamp;
    w->members = all->member_count;
    w->look_ns = INT64_MAX;
    for (size_t i = 0; i < all->count; i++) {
        for (struct eg_member *m = all->by_uid[i]->members; m != NULL; m = m->next) {
            if (m->look_ns <= now)
                look_at(d, m, now);
            w->look_ns = m->look_ns < w->look_ns ? m->look_ns : w->look_ns;
        }
    }
    if (w->look_ns < now + LOOK_NS)
        w->look_ns = now + LOOK_NS;
    w->hurry |= w->stamp != before; /* it has waited long enough */
}

/* Groups that have been empty for so long lose their offsets. */
static void expire(struct eg_daemon *d, int64_t now_ms) {
    for (size_t i = 0; i < d->groups->count; i++) {
        struct eg_group *g = d->groups->list[i];
        if (g->member_count > 0 || g->empty_since_ms == 0) /* a start counts as if it had become empty then */
            g->empty_since_ms = g->member_count > 0 ? 0 : now_ms;
        int64_t since = g->empty_since_ms;
        size_t forgotten = 0;
        for (size_t k = 0; k < g->offset_count; k++)
            since = g->offsets[k].time_ms > since ? g->offsets[k].time_ms : since;
        if (g->empty_since_ms == 0 || now_ms - since < d->config.offsets_retention_ms)
            continue;
        for (size_t k = 0; k < g->offset_count; k++) {
            const struct eg_committed *o = &g->offsets[k];
            if (o->offset < 0 || eg_offset_set(d, g, o->topic_uid, o->partition, -1, 0, NULL) != EAGRE_OK)
                continue;
            eg_share_put(d, g, o->topic_uid, o->partition);
            forgotten++;
        }
        if (forgotten > 0)
            eg_log_info("group '%s': it has been empty for offsets.retention.ms=%" PRId64 ": its %zu offsets are forgotten",
                        g->name, d->config.offsets_retention_ms, forgotten);
    }
}

int64_t eg_offsets_tick(struct eg_daemon *d, int64_t now) {
    struct eg_offset_writer *w = d->groups->writer;
    if (now >= w->look_ns || w->members != d->groups->member_count)
        look(d, now);
    if (d->config.offsets_retention_ms >= 0 && now >= w->expire_ns) {
        int64_t tenth = d->config.offsets_retention_ms / 10 * EG_NS_PER_MS;
        expire(d, eg_now_coarse_ns() / EG_NS_PER_MS);
        w->expire_ns = now + (tenth < EG_NS_PER_MS ? EG_NS_PER_MS : tenth < EXPIRE_NS ? tenth : EXPIRE_NS);
    }
    int64_t next = eg_offset_writer_tick(d, now);
    next = w->look_ns < next ? w->look_ns : next;
    return d->config.offsets_retention_ms >= 0 && w->expire_ns < next ? w->expire_ns : next;
}

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

/* What the database or the store of members says. */
static int load(struct eg_daemon *d, const struct eg_meta_offset *stored, bool is_in_database) {
    struct eg_offset_writer *w = d->groups->writer;
    struct eg_group *g = eg_group_by_uid(d, stored->group_uid);
    struct eg_committed *o = NULL;
    if (g == NULL) /* it was deleted while this was on its way */
        return EAGRE_OK;
    w->stamp = stored->stamp > w->stamp ? stored->stamp : w->stamp;
    o = eg_offset_entry(g, stored->topic_uid, stored->partition);
    if (o != NULL && o->stamp >= stored->stamp)
        return EAGRE_OK;
    int rc = entry_for(g, stored->topic_uid, stored->partition, stored->metadata, &o);
    if (rc != EAGRE_OK)
        return rc;
    o->offset = stored->offset;
    o->time_ms = stored->time_ms;
    o->flags = stored->flags;
    o->stamp = stored->stamp;
    const struct eg_topic *t = eg_topic_by_uid(d, stored->topic_uid);
    if (t == NULL || stored->partition >= t->meta.partitions) /* likewise its topic */
        o->offset = -1;
    if (!is_in_database || o->offset < 0)
        soil(d, g, o);
    return EAGRE_OK;
}

static int load_stored(void *ctx, const struct eg_meta_offset *stored) { return load(ctx, stored, true); }
static int load_noted(void *ctx, const struct eg_meta_offset *stored) { return load(ctx, stored, false); }

/* Between what a crash left and where the log went on there is nothing: no record ever, or lost ones. Where such an
 * offset goes on; -1: it is none. */
static int64_t goes_on(const struct eg_daemon *d, struct eg_partition *p, int64_t offset) {
    int64_t start = eg_load_relaxed(&p->status->start_offset);
    if (p->archive == NULL)
        return offset < start ? start : -1;
    if (eg_archive_unrecovered(p) != NULL)
        return -1; /* nothing is known of it */
    struct eg_file_table *t = eg_archive_files(p);
    if (t->count == 0) /* behind a clean stop it was retention that took them */
        return offset < start && (d->fresh || d->clients_lost) && !p->mark.clean ? start : -1;
    size_t at = eg_files_behind(t, offset);
    const struct eg_log_file *next = eg_files_at(t, at), *before = at > 0 ? eg_files_at(t, at - 1) : NULL;
    if (next != NULL)
        start = next->base;
    return before != NULL && before->end >= 0 && offset > before->end && offset < start ? start : -1;
}

static void clamp(struct eg_daemon *d, struct eg_group *g) {
    size_t moved = 0;
    for (size_t i = 0; i < g->offset_count; i++) {
        struct eg_committed *o = &g->offsets[i];
        struct eg_partition *p = o->offset >= 0 ? eg_topics_partition_by_uid(d, o->topic_uid, o->partition) : NULL;
        int64_t to = p != NULL ? goes_on(d, p, o->offset) : -1;
        if (to < 0)
            continue;
        if (moved++ == 0)
            eg_log_warning("group '%s': topic '%s' partition %u: nothing is left of the log at its offset %" PRId64
                           ": it goes on where the log does, at %" PRId64,
                           g->name, eg_topic_name(p->topic), p->number, o->offset, to);
        o->offset = to;
        o->flags |= EG_OFFSET_CLAMPED;
        o->stamp = ++d->groups->writer->stamp;
        soil(d, g, o);
    }
    if (moved > 1)
        eg_log_warning("group '%s': so it is with %zu of its %zu offsets", g->name, moved, g->offset_count);
}

int eg_offsets_start(struct eg_daemon *d) {
    int rc = eg_offset_writer_open(d);
    if (rc == EAGRE_OK)
        rc = eg_meta_offsets(d->meta, load_stored, d);
    if (rc == EAGRE_OK)
        rc = eg_members_store_offsets(d->groups->store, load_noted, d);
    if (rc != EAGRE_OK)
        return rc;
    for (size_t i = 0; i < d->groups->count; i++)
        clamp(d, d->groups->list[i]);
    if (!d->groups->writer->dirty && eg_members_store_forget_offsets(d->groups->store) != EAGRE_OK)
        eg_log_debug("%s", eg_error_text());
    return EAGRE_OK;
}

void eg_offsets_stop(struct eg_daemon *d) {
    const struct eg_groups *all = d->groups;
    for (size_t i = 0; i < all->count; i++) {
        struct eg_group *g = all->list[i];
        for (struct eg_member *m = g->members; m != NULL; m = m->next)
            eg_offsets_collect(d, m);
        g->dirty |= g->generation > g->noted_generation; /* nobody knows it otherwise when the memory is gone */
        all->writer->dirty |= g->dirty;
    }
    if (eg_offset_writer_flush(d) != EAGRE_OK)
        eg_log_error("the last committed offsets are not written: %s", eg_error_text());
    eg_offset_writer_close(d);
}
