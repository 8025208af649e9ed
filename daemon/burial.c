#include "burial.h"

#include <inttypes.h>
#include <stdlib.h>

#include "log/repair.h"
#include "slots.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define STEPS 4096u                     /* frames a turn */
#define RETRY_NS (100 * EG_NS_PER_MS)   /* when memory is short */
#define RING_NS (10 * EG_NS_PER_MS)     /* everybody's bells, not more often */
#define WORDS (EG_BUFFERS_MAX / 64)

/* A client waits for a partition's repair. */
struct eg_burial_wait {
    struct eg_burial_wait *next;
    struct eg_client *client;
};

/* Of one partition: the buffers where the dead may have claims. Who dies when a walk has begun waits for the
 * next one: its claims may lie behind where the walk is. */
struct eg_repair {
    struct eg_repair *next;
    uint32_t index;       /* of the partition ... */
    uint32_t uid;         /* ... which may be gone */
    uint64_t todo[WORDS]; /* buffers, a bit each */
    uint64_t again[WORDS];
    struct eg_burial_wait *now, *later;
    bool begun;
    uint32_t buffer; /* that is walked; EG_NO_BUFFER: none */
    uint64_t seq;
    struct eg_chain chain;
    int64_t retry_ns;
};

/* ---- what is to be done ---------------------------------------------------------------------------- */

static struct eg_repair *repair_of(struct eg_daemon *d, struct eg_partition *p) {
    if (p->repair != NULL)
        return p->repair;
    struct eg_repair *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->index = p->index;
    r->uid = p->uid;
    r->buffer = EG_NO_BUFFER;
    p->repair = r;
    struct eg_repair **at = &d->clients->repairs;
    while (*at != NULL) /* behind the others of its topic, which it takes turns with */
        at = &(*at)->next;
    *at = r;
    return r;
}

/* Where segment seq lies now, as bits in set. False: nowhere. */
static bool find_segment(const struct eg_partition *p, uint64_t seq, uint64_t *set) {
    bool found = false;
    uint32_t n = eg_partition_buffer_of(p, seq);
    if (n < EG_BUFFERS_MAX && p->buffers[n].fd >= 0) {
        set[n / 64] |= UINT64_C(1) << n % 64;
        found = true;
    }
    for (n = 0; p->detached > 0 && n < EG_BUFFERS_MAX; n++) {
        const struct eg_buffer_journal *j = &p->status->buffer[n];
        if (p->buffers[n].fd < 0 || eg_load_relaxed(&j->use) != EG_BUFFER_DETACHED ||
            eg_load_relaxed(&j->seq) != seq)
            continue;
        set[n / 64] |= UINT64_C(1) << n % 64;
        found = true;
    }
    return found;
}

/* c may have claims in segment seq of p. wait: a free one; used: it was. False: no memory. */
static bool add(struct eg_daemon *d, struct eg_client *c, struct eg_partition *p, uint64_t seq,
                struct eg_burial_wait *wait, bool *used) {
    uint64_t set[WORDS] = {0};
    *used = false;
    if (p->buffers == NULL || eg_partition_failed(p) || !find_segment(p, seq, set))
        return true;
    struct eg_repair *r = repair_of(d, p);
    if (r == NULL)
        return false;
    uint64_t *into = r->begun ? r->again : r->todo;
    struct eg_burial_wait **list = r->begun ? &r->later : &r->now;
    for (size_t i = 0; i < WORDS; i++)
        into[i] |= set[i];
    if (*list != NULL && (*list)->client == c)
        return true; /* it waits for this one already */
    *wait = (struct eg_burial_wait){.next = *list, .client = c};
    *list = wait;
    c->waits++;
    *used = true;
    return true;
}

/* What pins name. The page says what its owner wrote there: so the index is checked, and it leads only to what
 * the client may produce to, or else anybody could have us walk others' topics. */
static struct eg_partition *pinned_by(struct eg_daemon *d, const struct eg_client *c, uint64_t pin) {
    uint32_t index = eg_pin_index_plus_1(pin);
    if (!eg_pin_is_producer(pin) || index == 0 || index > EG_PARTITIONS_MAX)
        return NULL;
    struct eg_partition *p = d->topics->by_index[index - 1];
    return p != NULL && eg_client_may_produce(c, p->topic) ? p : NULL;
}

static bool is_single(const struct eg_topic *t) {
    return t->settings.v[EG_SET_WRITERS] == EG_WRITERS_SINGLE;
}

static struct eg_topic *produced_to(struct eg_daemon *d, const struct eg_client *c, uint32_t g) {
    const struct eg_grant *grant = &c->entry->grants[g];
    return grant->producers > 0 ? eg_topic_by_uid(d, grant->topic_uid) : NULL;
}

static bool add_pins(struct eg_daemon *d, struct eg_client *c, size_t *count) {
    bool used;
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++) {
        uint64_t pin = eg_load_acquire(&c->page->pin[k].pin);
        struct eg_partition *p = pin == EG_PIN_NONE ? NULL : pinned_by(d, c, pin);
        if (p != NULL && !add(d, c, p, eg_pin_seq(pin), &c->wait[*count], &used))
            return false;
        *count += p != NULL && used;
    }
    return true;
}

/* No pins there: what it had not published is in the segment that it made active itself. */
static bool add_single(struct eg_daemon *d, struct eg_client *c, const struct eg_topic *t, size_t *count) {
    bool used;
    for (uint32_t k = 0; k < t->partitions; k++) {
        struct eg_partition *p = t->part[k];
        uint64_t active = eg_load_acquire(&p->ring->active);
        for (uint64_t back = 0; back < 2 && back <= active; back++) {
            if (!add(d, c, p, active - back, &c->wait[*count], &used))
                return false;
            *count += used;
        }
    }
    return true;
}

bool eg_client_bury(struct eg_daemon *d, struct eg_client *c) {
    size_t count = 0, room = EG_CLIENT_PINS;
    /* A fork child that lives on has a copy of the dead one's connection, with which it can do nothing. */
    if (c->session != NULL)
        eg_session_close(d, c->session);
    eg_store_release(&c->entry->state, EG_CLIENT_DEAD);
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++) {
        struct eg_topic *t = produced_to(d, c, g);
        c->produced |= t != NULL;
        room += t != NULL && is_single(t) ? 2 * t->partitions : 0;
    }
    if (c->produced) {
        c->wait = malloc(room * sizeof(*c->wait));
        if (c->wait == NULL)
            return false;
    }
    c->next_dying = d->clients->dying;
    d->clients->dying = c;
    c->burying = true;
    c->waits = 1; /* for the end of this */
    bool whole = !c->produced || add_pins(d, c, &count);
    for (uint32_t g = 0; whole && c->produced && g < EG_CLIENT_GRANTS; g++) {
        struct eg_topic *t = produced_to(d, c, g);
        if (t != NULL && is_single(t))
            whole = add_single(d, c, t, &count);
    }
    c->incomplete = !whole;
    c->waits--;
    return true;
}

/* ---- the walk -------------------------------------------------------------------------------------- */

/* A DEAD one is of no other's: two witnesses said so. */
static bool is_dead(void *ctx, uint32_t owner) {
    struct eg_daemon *d = ctx;
    struct eg_client *c = owner <= EG_CLIENTS_MAX ? d->clients->by_owner[owner] : NULL;
    if (c == NULL || !c->burying)
        return false;
    c->pads++;
    return true;
}

static bool take_buffer(struct eg_repair *r) {
    for (uint32_t w = 0; w < WORDS; w++) {
        if (r->todo[w] == 0)
            continue;
        r->buffer = w * 64 + (uint32_t)__builtin_ctzll(r->todo[w]);
        r->todo[w] &= r->todo[w] - 1;
        r->chain.base = NULL;
        return true;
    }
    return false;
}

/* Is what is walked still what it was? Its pins hold it, unless somebody else writes them. */
static bool is_there(const struct eg_partition *p, const struct eg_repair *r) {
    uint32_t use = eg_load_relaxed(&p->status->buffer[r->buffer].use);
    return p->buffers[r->buffer].fd >= 0 && (use == EG_BUFFER_SLOT || use == EG_BUFFER_DETACHED) &&
           (r->chain.base == NULL || eg_load_relaxed(&p->status->buffer[r->buffer].seq) == r->seq);
}

/* A turn of one buffer. True: that buffer is done. */
static bool walk(struct eg_daemon *d, struct eg_partition *p, struct eg_repair *r, int64_t now) {
    uint32_t steps = STEPS;
    uint64_t pads = 0;
    if (!is_there(p, r))
        return true; /* let go: nobody waits there */
    if (r->chain.base == NULL) {
        int rc = eg_buffer_sync_slice(d, p, r->buffer);
        if (rc == EG_AGAIN)
            return false;
        if (rc != EAGRE_OK) {
            static struct eg_log_limit limit;
            eg_log_limited(&limit, EG_LOG_WARNING,
                           "topic '%s' partition %u: repair after a death is not complete yet: %s",
                           eg_topic_name(p->topic), p->number, eg_error_text());
            r->retry_ns = now + RETRY_NS; /* the dead one's pins and its number stay */
            return false;
        }
        r->seq = eg_load_relaxed(&p->status->buffer[r->buffer].seq);
        r->chain = eg_partition_chain(p, r->buffer, r->seq);
    }
    int rc = eg_repair_chain(&r->chain, &steps, is_dead, d, &pads);
    eg_partition_walked(p, r->seq, &r->chain);
    if (pads > 0)
        d->clients->ring = true;
    if (rc < 0)
        eg_partition_fail(p, "segment %" PRIu64 ", %s", r->seq, eg_error_text());
    return rc != EG_REPAIR_MORE;
}

static void tell(struct eg_burial_wait *list) {
    for (; list != NULL; list = list->next)
        list->client->waits--;
}

/* A turn of one partition. True: nothing is left to do there. */
static bool turn(struct eg_daemon *d, struct eg_partition *p, struct eg_repair *r, int64_t now) {
    r->begun = true;
    if (p->buffers == NULL || eg_partition_failed(p)) {
        tell(r->now);
        tell(r->later);
        return true;
    }
    if (r->buffer != EG_NO_BUFFER || take_buffer(r)) {
        if (walk(d, p, r, now))
            r->buffer = EG_NO_BUFFER;
        return false;
    }
    tell(r->now);
    r->now = r->later;
    r->later = NULL;
    r->begun = false;
    for (size_t i = 0; i < WORDS; i++) {
        r->todo[i] = r->again[i];
        r->again[i] = 0;
    }
    return r->now == NULL;
}

/* Each topic's first that can go on gets a turn: then it is the next topic's. False: nobody is left who has
 * not had one. *due: when somebody can go on. */
static bool next_turn(struct eg_daemon *d, int64_t now, int64_t *due) {
    for (struct eg_repair **at = &d->clients->repairs, *r; (r = *at) != NULL;) {
        struct eg_partition *p = d->topics->by_index[r->index];
        if (p != NULL && p->uid == r->uid) {
            if (r->retry_ns > now) {
                *due = r->retry_ns < *due ? r->retry_ns : *due;
                at = &r->next;
                continue;
            }
            if (p->topic->repair_round == d->clients->repair_round) {
                at = &r->next;
                continue;
            }
            p->topic->repair_round = d->clients->repair_round;
            if (!turn(d, p, r, now))
                return true;
            p->repair = NULL;
        } else { /* deleted meanwhile */
            tell(r->now);
            tell(r->later);
        }
        *at = r->next;
        free(r);
        return true;
    }
    return false;
}

/* ---- the end --------------------------------------------------------------------------------------- */

static void finish(struct eg_daemon *d, struct eg_client *c) {
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++) {
        uint64_t pin = eg_load_acquire(&c->page->pin[k].pin);
        struct eg_partition *p = pin == EG_PIN_NONE ? NULL : pinned_by(d, c, pin);
        eg_store_release(&c->page->pin[k].pin, EG_PIN_NONE);
        if (p != NULL && p->buffers != NULL && !eg_partition_failed(p))
            eg_slots_wake(d, p); /* it may have held a slot back */
    }
    /* It may have published without waking, or taken waiters' bits without ringing. */
    d->clients->ring |= c->produced;
    if (c->pads > 0)
        eg_log_info("client %u (%s, pid %d) died: %" PRIu64 " of its claims became pads", c->entry->owner,
                    c->entry->name, (int)c->entry->pid, c->pads);
    EG_FAULT("owner.freed");
    eg_client_free(d, c);
}

/* Those who wait for nothing any more are gone. */
static int64_t finish_some(struct eg_daemon *d, int64_t now, int64_t stop) {
    int64_t due = INT64_MAX;
    for (struct eg_client **at = &d->clients->dying, *c; (c = *at) != NULL;) {
        if (c->waits > 0) {
            at = &c->next_dying;
            continue;
        }
        *at = c->next_dying;
        if (c->incomplete) { /* there was no memory to note all that is to be done: once more */
            c->burying = c->incomplete = false;
            free(c->wait);
            c->wait = NULL;
            eg_client_look(d, c, now + RETRY_NS);
            continue;
        }
        finish(d, c);
        if (eg_mono_ns() >= stop)
            return 0;
    }
    return due;
}

int64_t eg_burials_work(struct eg_daemon *d, int64_t now, int64_t stop) {
    struct eg_clients *all = d->clients;
    int64_t due = INT64_MAX;
    while (all->repairs != NULL) {
        if (!next_turn(d, now, &due)) {
            all->repair_round++;
            if (!next_turn(d, now, &due))
                break; /* memory is short for all that is left */
        }
        if (eg_mono_ns() >= stop) {
            due = 0;
            break;
        }
    }
    if (all->dying != NULL && finish_some(d, now, stop) == 0)
        due = 0;
    if (all->ring && now >= all->ring_ns) {
        all->ring = false;
        all->ring_ns = now + RING_NS;
        eg_clients_ring_all(d);
    }
    return all->ring && all->ring_ns < due ? all->ring_ns : due;
}

void eg_burials_forget(struct eg_daemon *d) {
    while (d->clients->repairs != NULL) {
        struct eg_repair *r = d->clients->repairs;
        struct eg_partition *p = d->topics->by_index[r->index];
        if (p != NULL && p->repair == r)
            p->repair = NULL;
        d->clients->repairs = r->next;
        free(r);
    }
}
