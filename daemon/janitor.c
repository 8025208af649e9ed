#include "janitor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "log/repair.h"
#include "slots.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/liveness.h"

#define LOOK_NS (100 * EG_NS_PER_MS)   /* one witness alone: look again, at growing intervals ... */
#define LOOK_MAX_NS (10 * EG_NS_PER_S) /* ... up to this */

/* ---- who is dead --------------------------------------------------------------------------------- */

enum mapped { MAPPED, NOT_MAPPED, UNKNOWN };

/* Does the process still have the client page mapped? The kernel tells only those who may trace it. */
static enum mapped has_page_mapped(const struct eg_client *c) {
    char path[32], line[512];
    struct stat st;
    if (c->entry->pid <= 0 || fstat(c->page_fd, &st) != 0)
        return UNKNOWN;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)c->entry->pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return UNKNOWN;
    enum mapped found = UNKNOWN; /* no line at all: it is just ending, or hides itself */
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned int major_number, minor_number;
        uint64_t inode;
        if (sscanf(line, "%*x-%*x %*4s %*x %x:%x %" SCNu64, &major_number, &minor_number, &inode) !=
            3)
            continue;
        found = NOT_MAPPED;
        if (inode == st.st_ino && makedev(major_number, minor_number) == st.st_dev) {
            found = MAPPED;
            break;
        }
    }
    fclose(f);
    return found;
}

static bool holds_anything(const struct eg_client *c) {
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++)
        if (c->entry->grants[g].topic_uid != 0)
            return true;
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++)
        if (eg_load_acquire(&c->page->pin[k].pin) != EG_PIN_NONE)
            return true;
    return false;
}

enum eg_verdict eg_client_verdict(struct eg_client *c) {
    const struct eg_client_entry *e = c->entry;
    bool gone;
    if (c->watch.fd >= 0)
        gone = eg_pidfd_is_dead(c->watch.fd);
    else if (e->pid > 0)
        gone = eg_process_is_gone(e->pid, e->start_ticks);
    else
        gone = c->session ==
               NULL; /* of a pid namespace that we cannot see: all the witness there is */
    bool unlocked = eg_page_lock_is_free(c->page_fd);
    if (gone && unlocked)
        return EG_VERDICT_DEAD;
    if (unlocked && c->session == NULL) {
        /* It closed its instance, or did exec (then nothing is mapped), or lost the lock by closing all its
         * descriptors, and lives and writes. */
        if (!holds_anything(c))
            return EG_VERDICT_LEFT;
        if (has_page_mapped(c) == NOT_MAPPED)
            return EG_VERDICT_DEAD;
    }
    if ((gone || (unlocked && c->session == NULL)) && !c->reported) {
        c->reported = true;
        eg_log_warning("client %u (%s, pid %d): %s: nothing is done about it", e->owner, e->name,
                       (int)e->pid,
                       gone ? "its process has ended, but its page is locked by another"
                            : "it has closed its connection and its lock, but lives and has memory "
                              "of topics in use");
    }
    return EG_VERDICT_LIVES;
}

/* ---- repair -------------------------------------------------------------------------------------- */

static bool is_owner(void *ctx, uint32_t owner) { return owner == *(const uint32_t *)ctx; }

static void repair_buffer(struct eg_partition *p, uint32_t number, uint32_t owner, uint64_t *pads) {
    uint64_t made = 0;
    int rc = eg_repair_segment(p->buffers[number].base, eg_partition_capacity(p),
                               eg_buffer_allocated(p, number), p->topic->status->align, is_owner,
                               &owner, &made);
    *pads += made;
    if (rc != EAGRE_OK)
        eg_log_error("topic '%s' partition %u: repair after client %u: %s", eg_topic_name(p->topic),
                     p->number, owner, eg_error_text());
}

/* The dead one's claims in segment seq, wherever that lies now. False: not all of it can be looked at now. */
static bool repair_segment(struct eg_daemon *d, struct eg_partition *p, uint64_t seq,
                           uint32_t owner, uint64_t *pads) {
    bool whole = true;
    if (p->buffers == NULL || eg_partition_failed(p))
        return true;
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        uint32_t use = eg_load_relaxed(&p->status->buffer[n].use);
        if (p->buffers[n].fd < 0 || eg_load_relaxed(&p->status->buffer[n].seq) != seq ||
            (use != EG_BUFFER_SLOT && use != EG_BUFFER_DETACHED))
            continue;
        whole &= eg_buffer_sync(d, p, n);
        repair_buffer(p, n, owner, pads);
    }
    eg_slots_wake(d, p); /* its pins may have held a slot back */
    return whole;
}

static bool may_produce(const struct eg_client *c, const struct eg_topic *t) {
    const struct eg_grant *g = eg_client_grant(c, t->meta.uid);
    return g != NULL && g->producers > 0;
}

bool eg_client_bury(struct eg_daemon *d, struct eg_client *c) {
    uint32_t owner = c->entry->owner;
    bool produced = false, whole = true;
    uint64_t pads = 0, seen[EG_CLIENT_PINS];
    size_t count = 0;
    eg_store_release(&c->entry->state, EG_CLIENT_DEAD);
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++) {
        /* The page says what its owner wrote there. So the index is checked; only the owner's own frames are
         * touched, wherever it leads; and it leads, once, to what the client may produce to: or else anybody
         * could have us walk the largest segments of others' topics, hundreds of times. */
        uint64_t pin = eg_load_acquire(&c->page->pin[k].pin);
        uint32_t index = eg_pin_index_plus_1(pin);
        if (!eg_pin_is_producer(pin) || index == 0 || index > EG_PARTITIONS_MAX)
            continue;
        struct eg_partition *p = d->topics->by_index[index - 1];
        pin = eg_pin_make(true, index - 1, eg_pin_seq(pin));
        bool again = p == NULL || !may_produce(c, p->topic);
        for (size_t i = 0; i < count && !again; i++)
            again = seen[i] == pin;
        if (again)
            continue;
        seen[count++] = pin;
        whole &= repair_segment(d, p, eg_pin_seq(pin), owner, &pads);
    }
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++) {
        const struct eg_grant *grant = &c->entry->grants[g];
        struct eg_topic *t = grant->producers > 0 ? eg_topic_by_uid(d, grant->topic_uid) : NULL;
        if (t == NULL)
            continue;
        produced = true;
        for (uint32_t k = 0;
             t->settings.v[EG_SET_WRITERS] == EG_WRITERS_SINGLE && k < t->partitions; k++) {
            /* No pins there: what it had not published is in the segment that it made active itself. */
            struct eg_partition *p = t->part[k];
            uint64_t active = eg_load_acquire(&p->ring->active);
            whole &= repair_segment(d, p, active, owner, &pads);
            if (active > 0)
                whole &= repair_segment(d, p, active - 1, owner, &pads);
        }
    }
    if (!whole) {
        static struct eg_log_limit limit;
        eg_log_limited(&limit, EG_LOG_WARNING, "repair after client %u is not complete yet: %s", owner,
                       eg_error_text());
        return false; /* its pins and its number stay */
    }
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++)
        eg_store_release(&c->page->pin[k].pin, EG_PIN_NONE);
    /* It may have published without waking, or taken waiters' bits without ringing. */
    if (produced || pads > 0)
        eg_clients_ring_all(d);
    if (pads > 0)
        eg_log_info("client %u (%s, pid %d) died: %" PRIu64 " of its claims became pads", owner,
                    c->entry->name, (int)c->entry->pid, pads);
    EG_FAULT("owner.freed");
    eg_client_free(d, c);
    return true;
}

/* ---- the service --------------------------------------------------------------------------------- */

static int64_t tick(struct eg_daemon *d, int64_t now) {
    struct eg_clients *all = d->clients;
    if (now < all->look_ns)
        return all->look_ns;
    all->look_ns = INT64_MAX;
    for (uint32_t o = 1; o <= all->top; o++) {
        struct eg_client *c = all->by_owner[o];
        if (c == NULL)
            continue;
        if (c->look_ns <= now) {
            c->look_ns = INT64_MAX;
            if (eg_client_verdict(c) != EG_VERDICT_LIVES) {
                if (eg_client_bury(d, c))
                    continue;
                c->look_ns = now + LOOK_NS; /* memory is short: try again */
                if (c->look_ns < all->look_ns)
                    all->look_ns = c->look_ns;
                continue;
            }
            /* One witness alone, or a session that is not back yet. */
            bool suspect =
                c->session == NULL || (c->watch.fd >= 0 && eg_pidfd_is_dead(c->watch.fd));
            c->look_wait_ns = c->look_wait_ns == 0 ? LOOK_NS : 2 * c->look_wait_ns;
            if (c->look_wait_ns > LOOK_MAX_NS)
                c->look_wait_ns = LOOK_MAX_NS;
            if (suspect || c->watch.fd < 0)
                c->look_ns = now + c->look_wait_ns;
            else
                c->look_wait_ns = 0;
        }
        if (c->look_ns < all->look_ns)
            all->look_ns = c->look_ns;
    }
    return all->look_ns;
}

const struct eg_service eg_janitor_service = {.name = "janitor", .tick = tick};
