/* group_members.c - who is a member: join, leave, death, eviction; static members that are away. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clients.h"
#include "group_target.h"
#include "members_store.h"
#include "proto/codec.h"
#include "shares.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#define LOOK_MIN_NS (50 * EG_NS_PER_MS)
#define REMOVE_NS EG_NS_PER_S           /* when the disk is full */
#define SUBSCRIBE_NS (30 * EG_NS_PER_S) /* who joined and did not subscribe: its answer was lost */

/* ---- lists ---------------------------------------------------------------------------------------------- */

static int64_t ms(uint32_t n) { return (int64_t)n * EG_NS_PER_MS; }

/* How often to look whether it polls. */
static int64_t period(const struct eg_member *m) {
    int64_t quarter = ms(m->max_poll_ms) / 4;
    return quarter > LOOK_MIN_NS ? quarter : LOOK_MIN_NS;
}

static void look_by(struct eg_daemon *d, int64_t at_ns) {
    if (at_ns < d->groups->look_ns)
        d->groups->look_ns = at_ns;
}

/* In the order that assignors want: static ones by their instance ids, then the others as they came. */
static bool is_before(const struct eg_member *a, const struct eg_member *b) {
    bool a_is_static = a->instance_id[0] != '\0', b_is_static = b->instance_id[0] != '\0';
    if (a_is_static != b_is_static)
        return a_is_static;
    return a_is_static ? strcmp(a->instance_id, b->instance_id) < 0 : a->id < b->id;
}

static void list_add(struct eg_daemon *d, struct eg_group *g, struct eg_member *m) {
    struct eg_member **at = &g->members;
    while (*at != NULL && is_before(*at, m))
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    g->member_count++;
    g->empty_since_ms = 0;
    d->groups->member_count++;
    d->figures.members++;
}

static void list_remove(struct eg_daemon *d, struct eg_member *m) {
    struct eg_member **at = &m->group->members;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->group->member_count--;
    if (m->group->member_count == 0)
        m->group->empty_since_ms = eg_now_coarse_ns() / EG_NS_PER_MS;
    d->groups->member_count--;
    d->figures.members--;
}

static void bind_client(struct eg_member *m, struct eg_client *c) {
    m->client = c;
    m->owner = c->entry->owner;
    m->cookie = c->entry->cookie;
    m->uid = c->entry->uid;
    m->pid = (uint32_t)c->entry->pid;
    m->next_of_client = c->members;
    c->members = m;
    m->polls = 0;
    m->polled_ns = eg_mono_ns();
    m->away_ns = 0;
}

static void unbind_client(struct eg_member *m) {
    if (m->client == NULL)
        return;
    struct eg_member **at = &m->client->members;
    while (*at != m)
        at = &(*at)->next_of_client;
    *at = m->next_of_client;
    m->client = NULL;
}

int eg_member_find(struct eg_daemon *d, const struct eg_client *c, uint64_t id, struct eg_member **out) {
    struct eg_member *m = d->groups->by_number[id % EG_MEMBERS_MAX + 1];
    if (c == NULL || m == NULL || m->id != id || m->client != c)
        return eg_error_set(EAGRE_E_FENCED,
                            "there is no member %" PRIu64 " of this client (any more): it did not poll for "
                            "max.poll.interval.ms, another one joined with its group.instance.id, or it left",
                            id);
    *out = m;
    return EAGRE_OK;
}

/* ---- ends ------------------------------------------------------------------------------------------------- */

/* Its commits are collected, its partitions free. It is not in its group any more, but still in the store: to be
 * followed by eg_members_save. */
static void take_out(struct eg_daemon *d, struct eg_member *m, enum eg_why why, const char *how) {
    struct eg_group *g = m->group;
    eg_offsets_collect(d, m);
    eg_member_page_out(m, EG_MEMBER_OUT);
    EG_FAULT("member.out");
    eg_member_give_up(m);
    if (g->type == EG_GROUP_SHARE)
        eg_share_member_gone(d, m);
    unbind_client(m);
    list_remove(d, m);
    eg_log_debug("group '%s': member %" PRIu64 " (%s, pid %u) %s", g->name, m->id, m->client_id, m->pid, how);
    m->next = d->groups->gone;
    m->is_gone = true;
    d->groups->gone = m;
    eg_group_change(d, g, why);
}

/* A static member keeps what is its own for session.timeout.ms. Its page is of the past. */
static void go_away(struct eg_daemon *d, struct eg_member *m, const char *how) {
    eg_offsets_collect(d, m);
    eg_member_page_out(m, EG_MEMBER_OUT);
    if (m->group->type == EG_GROUP_SHARE)
        eg_share_member_gone(d, m);
    unbind_client(m);
    eg_log_debug("group '%s': static member '%s' (pid %u) %s", m->group->name, m->instance_id, m->pid, how);
    m->away_ns = eg_mono_ns();
    m->owner = 0;
    m->cookie = 0;
    m->unsaved = true;
    eg_member_settle(m);
    (void)eg_members_save(d, m->group); /* closes its page. What fails is saved with the next change */
    look_by(d, m->away_ns + ms(m->session_ms));
    eg_group_turn(d, m->group); /* what it was about to give up is free */
}

void eg_member_leave(struct eg_daemon *d, struct eg_member *m, bool back) {
    if (back && m->instance_id[0] != '\0') {
        go_away(d, m, "left for a while");
        eg_shares_gone(d);
        return;
    }
    take_out(d, m, EG_WHY_LEFT, "left");
    eg_shares_gone(d);
    (void)eg_members_save(d, NULL);
}

/* True: to be followed by eg_members_save. */
static bool lost(struct eg_daemon *d, struct eg_member *m, enum eg_why why, const char *how) {
    if (m->instance_id[0] != '\0') {
        go_away(d, m, how);
        return false;
    }
    take_out(d, m, why, how);
    return true;
}

void eg_groups_client_gone(struct eg_daemon *d, struct eg_client *c) {
    bool any = false;
    if (c->members == NULL)
        return;
    while (c->members != NULL)
        any |= lost(d, c->members, EG_WHY_DIED, "died");
    eg_shares_gone(d);
    if (any)
        (void)eg_members_save(d, NULL);
}

void eg_groups_client_back(struct eg_daemon *d, struct eg_client *c, struct eg_dec ids, size_t count) {
    struct eg_member *next;
    bool any = false;
    for (struct eg_member *m = c->members; m != NULL; m = next) {
        struct eg_dec in = ids;
        bool known = false;
        next = m->next_of_client;
        for (size_t i = 0; i < count && !known; i++)
            known = eg_dec_u64(&in) == m->id;
        if (!known)
            any |= lost(d, m, EG_WHY_LEFT, "is not known to its client");
    }
    eg_shares_gone(d);
    if (any)
        (void)eg_members_save(d, NULL);
}

/* ---- join -------------------------------------------------------------------------------------------------- */

static int check_quota(struct eg_daemon *d, const struct eg_client *c) {
    return eg_quota_check(d, c->account, EG_QUOTA_MEMBERS, 1);
}

static struct eg_member *find_static(struct eg_group *g, const char *instance_id) {
    for (struct eg_member *m = g->members; m != NULL && m->instance_id[0] != '\0'; m = m->next)
        if (strcmp(m->instance_id, instance_id) == 0)
            return m;
    return NULL;
}

static void describe(struct eg_member *m, const struct eg_join *j) {
    memcpy(m->client_id, j->client_id, sizeof(m->client_id));
    memcpy(m->strategy, j->strategy, sizeof(m->strategy));
    m->max_poll_ms = j->max_poll_ms;
    m->session_ms = j->session_ms;
    m->commit_ms = j->commit_ms;
    m->node = j->node;
}

/* Somebody has its place: it must not come back for it. */
static void take_place(struct eg_daemon *d, struct eg_member *m) {
    eg_log_info("group '%s': static member '%s': another one (it was pid %u) takes its place", m->group->name,
                m->instance_id, m->pid);
    eg_offsets_collect(d, m);
    eg_member_page_out(m, EG_MEMBER_TAKEN);
    if (m->group->type == EG_GROUP_SHARE)
        eg_share_member_gone(d, m);
    unbind_client(m);
    eg_shares_gone(d);
    m->away_ns = eg_mono_ns();
    m->owner = 0;
    m->cookie = 0;
    m->unsaved = true;
    look_by(d, m->away_ns + ms(m->session_ms));
    eg_member_settle(m);
    eg_group_next_generation(d, m->group); /* it may live on, and two are not to have the same in one generation */
    eg_group_turn(d, m->group);
}

/* The same place in the group, what is its own included; a new id and a new page. */
static int come_back(struct eg_daemon *d, struct eg_member *m, struct eg_client *c, const struct eg_join *j) {
    struct eg_member was = *m; /* as the store has it */
    m->version++;
    int rc = eg_member_page_make(d, m);
    for (size_t i = 0; rc == EAGRE_OK && i < m->given_count; i++) {
        rc = m->group->type == EG_GROUP_SHARE ? EAGRE_OK : eg_member_cell_clear(m, m->given[i].cell);
        m->given[i].collected = EG_NO_COMMIT;
        m->given[i].strange = false;
    }
    if (rc != EAGRE_OK) {
        if (m->id != was.id) {
            d->groups->by_number[m->number] = NULL;
            eg_member_page_close(d, m, true);
        }
        m->id = was.id;
        m->number = was.number;
        m->page = was.page;
        m->page_fd = was.page_fd;
        return rc;
    }
    /* What remains of the one before, for the store and the keeper. */
    struct eg_member *old = calloc(1, sizeof(*old));
    if (old == NULL) {
        d->groups->by_number[m->number] = NULL;
        eg_member_page_close(d, m, true);
        m->id = was.id;
        m->number = was.number;
        m->page = was.page;
        m->page_fd = was.page_fd;
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for one member more");
    }
    old->group = m->group;
    old->id = was.id;
    old->number = was.number;
    old->page = was.page;
    old->page_fd = was.page_fd;
    old->next = d->groups->gone;
    old->is_gone = true;
    d->groups->gone = old;
    d->groups->by_number[old->number] = old;
    eg_target_renumber(m->group->target, old->number, m->number);
    if (m->account != c->account) {
        struct eg_account *a = eg_account_take(d, c->account->uid);
        if (a != NULL) {
            m->account->used[EG_QUOTA_MEMBERS]--;
            eg_account_put(d, m->account);
            m->account = a;
            a->used[EG_QUOTA_MEMBERS]++;
        }
    }
    bool same = memcmp(m->strategy, j->strategy, sizeof(m->strategy)) == 0 && m->node == j->node;
    describe(m, j);
    bind_client(m, c);
    m->applied = 0;
    m->unapplied_ns = eg_mono_ns();
    m->generation = m->group->generation;
    m->unsaved = true;
    if (!same)
        eg_group_change(d, m->group, EG_WHY_JOINED);
    return EAGRE_OK;
}

static int join_new(struct eg_daemon *d, struct eg_group *g, struct eg_client *c, const struct eg_join *j,
                    struct eg_member **out) {
    int rc = check_quota(d, c);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "group '%s'", g->name);
    struct eg_member *m = calloc(1, sizeof(*m));
    if (m == NULL || (m->account = eg_account_take(d, c->account->uid)) == NULL) {
        free(m);
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory for one member more", g->name);
    }
    m->account->used[EG_QUOTA_MEMBERS]++;
    m->group = g;
    m->page_fd = -1;
    memcpy(m->instance_id, j->instance_id, sizeof(m->instance_id));
    describe(m, j);
    rc = eg_member_page_make(d, m);
    if (rc != EAGRE_OK) {
        eg_member_free(d, m);
        return eg_error_add(rc, "group '%s'", g->name);
    }
    bind_client(m, c);
    list_add(d, g, m);
    m->unsaved = true;
    *out = m;
    return EAGRE_OK;
}

int eg_member_join(struct eg_daemon *d, struct eg_group *g, struct eg_client *c, const struct eg_join *j,
                   struct eg_member **out) {
    struct eg_member *m = j->instance_id[0] != '\0' ? find_static(g, j->instance_id) : NULL;
    if (g->type == EG_GROUP_CONSUMER && !eg_group_agrees(g, j->strategy, m))
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "group '%s': no partition.assignment.strategy of this member is one of all others, too",
                            g->name);
    int rc;
    if (m != NULL && m->client != NULL)
        take_place(d, m);
    rc = m != NULL ? come_back(d, m, c, j) : join_new(d, g, c, j, &m);
    if (rc != EAGRE_OK)
        return rc;
    rc = eg_members_save(d, g);
    if (rc != EAGRE_OK) { /* nobody knows it, so it may be gone with the next change */
        take_out(d, m, EG_WHY_LEFT, "could not be noted");
        eg_shares_gone(d);
        return eg_error_add(rc, "group '%s'", g->name);
    }
    EG_FAULT("member.joined");
    look_by(d, eg_mono_ns() + period(m));
    *out = m;
    return EAGRE_OK;
}

/* ---- who does not poll -------------------------------------------------------------------------------------- */

/* When to look at it next; INT64_MIN: its time is over. */
static int64_t look_at(struct eg_member *m, int64_t now, const char **why) {
    if (m->client == NULL) {
        *why = "did not come back within session.timeout.ms";
        return now - m->away_ns >= ms(m->session_ms) ? INT64_MIN : m->away_ns + ms(m->session_ms);
    }
    uint64_t polls = eg_load_relaxed(&m->page->polls);
    if (polls != m->polls) {
        m->polls = polls;
        m->polled_ns = now;
    }
    int64_t limit = ms(m->max_poll_ms), next = now + period(m);
    if (!m->subscribed && limit > SUBSCRIBE_NS)
        limit = SUBSCRIBE_NS;
    *why = "did not poll for max.poll.interval.ms";
    if (now - m->polled_ns >= limit)
        return INT64_MIN;
    if (m->polled_ns + limit < next)
        next = m->polled_ns + limit;
    if (m->unapplied_ns == 0)
        return next;
    *why = "did not take over its assignment for max.poll.interval.ms";
    if (now - m->unapplied_ns >= limit)
        return INT64_MIN;
    return m->unapplied_ns + limit < next ? m->unapplied_ns + limit : next;
}

/* Those that could not be removed from the store. */
static int64_t remove_gone(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    if (all->gone == NULL)
        return INT64_MAX;
    if (now < all->remove_ns)
        return all->remove_ns;
    all->remove_ns = now + REMOVE_NS;
    return eg_members_save(d, NULL) == EAGRE_OK ? INT64_MAX : all->remove_ns;
}

static int64_t look(struct eg_daemon *d, int64_t now) {
    struct eg_groups *all = d->groups;
    bool any = false;
    if (now < all->look_ns)
        return all->look_ns;
    all->look_ns = INT64_MAX;
    for (uint32_t n = 1; n <= EG_MEMBERS_MAX; n++) {
        struct eg_member *m = all->by_number[n];
        const char *why;
        if (m == NULL || m->is_gone)
            continue;
        int64_t next = look_at(m, now, &why);
        if (next != INT64_MIN) {
            look_by(d, next);
            continue;
        }
        eg_log_warning("group '%s': member %" PRIu64 " (%s, pid %u) %s: its partitions go to others", m->group->name,
                       m->id, m->client_id, m->pid, why);
        take_out(d, m, EG_WHY_EVICTED, "was put out");
        any = true;
    }
    eg_shares_gone(d);
    if (any)
        (void)eg_members_save(d, NULL);
    return all->look_ns;
}

int64_t eg_members_tick(struct eg_daemon *d, int64_t now) {
    int64_t next = look(d, now), due = remove_gone(d, now);
    return due < next ? due : next;
}

/* Patterns are matched by the clients. */
void eg_members_look_again(struct eg_daemon *d) {
    for (size_t i = 0; i < d->groups->count; i++)
        for (struct eg_member *m = d->groups->list[i]->members; m != NULL; m = m->next) {
            if (!m->by_pattern || m->page == NULL || m->client == NULL)
                continue;
            atomic_fetch_add_explicit(&m->page->topics, 1, memory_order_release);
            eg_member_ring(d, m);
        }
}

/* ---- after a predecessor ------------------------------------------------------------------------------------- */

static struct eg_client *client_of(struct eg_daemon *d, const struct eg_member *m) {
    struct eg_client *c = m->owner != 0 && m->owner <= EG_CLIENTS_MAX ? d->clients->by_owner[m->owner] : NULL;
    return c != NULL && c->entry->cookie == m->cookie && eg_load_relaxed(&c->entry->state) == EG_CLIENT_LIVE ? c
                                                                                                              : NULL;
}

static int recover(void *ctx, uint32_t group_uid, struct eg_member *stored) {
    struct eg_daemon *d = ctx;
    struct eg_groups *all = d->groups;
    struct eg_group *g = eg_group_by_uid(d, group_uid);
    struct eg_member *m = malloc(sizeof(*m));
    if (m == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the members of groups");
    *m = *stored;
    stored->topics = NULL; /* they are m's, whatever comes of it */
    stored->given = NULL;
    stored->topic_count = stored->given_count = 0;
    m->page_fd = -1;
    m->group = g;
    int rc = eg_names_share(all->names, m);
    if (rc == EAGRE_OK && (m->account = eg_account_take(d, m->uid)) == NULL)
        rc = EAGRE_E_NO_MEMORY;
    if (m->account != NULL)
        m->account->used[EG_QUOTA_MEMBERS]++;
    bool strange = g == NULL || m->number == 0 || m->number > EG_MEMBERS_MAX || all->by_number[m->number] != NULL;
    if (rc != EAGRE_OK || strange) { /* of a group that was deleted: its page is dropped with those that are left */
        eg_member_free(d, m);
        return rc;
    }
    if (m->id / EG_MEMBERS_MAX > all->last_member) {
        all->last_member = m->id / EG_MEMBERS_MAX;
        all->last_number = m->number;
    }
    all->by_number[m->number] = m;
    for (size_t i = 0; i < m->given_count; i++) {
        m->given[i].gone = 0;
        m->leaving += m->given[i].leaving;
    }
    struct eg_client *c = client_of(d, m);
    m->subscribed = m->topic_count > 0;
    /* Who was told that it is out does not come back to this page, though the store does not know that yet. */
    if (m->owner != 0 && eg_member_page_take(d, m) && c != NULL && eg_load_relaxed(&m->page->state) == EG_MEMBER_IN)
        bind_client(m, c);
    list_add(d, g, m);
    return EAGRE_OK;
}

int eg_members_start(struct eg_daemon *d) {
    struct eg_groups *all = d->groups;
    all->last_member = (uint64_t)eg_now_ns() / (10 * EG_NS_PER_US);
    int rc = eg_members_store_members(all->store, recover, d);
    if (rc != EAGRE_OK)
        return rc;
    eg_member_pages_drop_left(d);
    bool any = false;
    int64_t now = eg_mono_ns();
    for (uint32_t n = 1; n <= EG_MEMBERS_MAX; n++) {
        struct eg_member *m = all->by_number[n];
        if (m == NULL || m->is_gone)
            continue;
        eg_group_change(d, m->group, EG_WHY_RESTARTED);
        if (m->client != NULL)
            eg_member_tell(d, m); /* it may have been told less than was stored */
        else if (m->owner == 0)
            m->away_ns = now;
        else
            any |= lost(d, m, EG_WHY_DIED, "is not there any more");
    }
    all->look_ns = 0;
    if (any)
        (void)eg_members_save(d, NULL); /* what fails is tried again: that is not worth a daemon that does not start */
    return EAGRE_OK;
}

void eg_members_forget(struct eg_daemon *d) {
    struct eg_groups *all = d->groups;
    for (uint32_t n = 1; n <= EG_MEMBERS_MAX; n++) {
        struct eg_member *m = all->by_number[n];
        if (m == NULL)
            continue;
        if (!m->is_gone) {
            unbind_client(m);
            list_remove(d, m);
        }
        eg_member_page_close(d, m, false);
        eg_member_free(d, m);
        all->by_number[n] = NULL;
    }
    all->gone = NULL;
}
