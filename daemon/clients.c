/* clients.c - the client table: attach, attach again, grants on topics, doorbells, pins. */
#include "clients.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "groups.h"
#include "handlers.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"
#include "sys/liveness.h"
#include "sys/rand.h"
#include "sys/shm.h"
#include "topics.h"

#define TABLE_BYTES eg_align_up(sizeof(struct eg_client_table), EG_PAGE)
#define PAGE_BYTES eg_align_up(sizeof(struct eg_client_page), EG_PAGE)

static const char *keep_name(uint32_t owner, char *buf, size_t cap) {
    snprintf(buf, cap, "c%u", owner);
    return buf;
}

static uint64_t entry_at(uint32_t owner) {
    return offsetof(struct eg_client_table, entry) +
           (uint64_t)owner * sizeof(struct eg_client_entry);
}

/* ---- the table ----------------------------------------------------------------------------------- */

static int table_take(struct eg_daemon *d, struct eg_clients *c) {
    size_t size;
    void *at;
    int fd = eg_keep_take(d->keep, "clients");
    if (fd < 0)
        return eg_error_set(EAGRE_E_CORRUPT, "the keeper does not have it");
    int rc = eg_memfd_check(fd, &size);
    if (rc == EAGRE_OK && size != TABLE_BYTES)
        rc = eg_error_set(EAGRE_E_CORRUPT, "it has %zu bytes, expected %zu", size,
                          (size_t)TABLE_BYTES);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, size, true, &at);
    if (rc == EAGRE_OK) {
        struct eg_client_table *t = at;
        rc = eg_magic_check(&t->magic, EG_MAGIC_CLIENTS, "client table");
        if (rc == EAGRE_OK && t->instance_id != d->instance_id)
            rc = eg_error_set(EAGRE_E_CORRUPT, "it belongs to another instance");
        if (rc != EAGRE_OK)
            eg_unmap(at, size);
    }
    if (rc != EAGRE_OK) {
        eg_keep_drop(d->keep, "clients");
        close(fd);
        return rc;
    }
    c->table = at;
    c->table_fd = fd;
    return EAGRE_OK;
}

static int table_make(struct eg_daemon *d, struct eg_clients *c) {
    void *at = NULL;
    int fd = -1;
    int rc = eg_memfd_create("eagre:clients", TABLE_BYTES, false, &fd);
    if (rc == EAGRE_OK)
        rc = eg_shm_allocate(fd, 0, offsetof(struct eg_client_table, entry));
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, TABLE_BYTES, true, &at);
    if (rc == EAGRE_OK) {
        struct eg_client_table *t = at;
        eg_magic_init(&t->magic);
        t->instance_id = d->instance_id;
        eg_magic_publish(&t->magic, EG_MAGIC_CLIENTS);
        rc = eg_keep_put(d->keep, "clients", fd);
    }
    if (rc != EAGRE_OK) {
        if (at != NULL)
            eg_unmap(at, TABLE_BYTES);
        if (fd >= 0)
            close(fd);
        return eg_error_add(rc, "client table");
    }
    c->table = at;
    c->table_fd = fd;
    return EAGRE_OK;
}

int eg_clients_open(struct eg_daemon *d, bool *lost) {
    struct eg_clients *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the clients");
    c->look_ns = INT64_MAX;
    *lost = false;
    int rc = d->fresh ? EAGRE_E_CORRUPT : table_take(d, c);
    if (rc != EAGRE_OK) {
        *lost = !d->fresh;
        if (*lost)
            eg_log_error("the client table is lost: %s. Nobody knows who owns what in the kept "
                         "memory: all topics get "
                         "fresh memory",
                         eg_error_text());
        rc = table_make(d, c);
    }
    if (rc != EAGRE_OK) {
        free(c);
        return rc;
    }
    d->clients = c;
    return EAGRE_OK;
}

/* ---- one client ---------------------------------------------------------------------------------- */

void eg_client_look(struct eg_daemon *d, struct eg_client *c, int64_t at_ns) {
    c->look_ns = at_ns;
    if (at_ns < d->clients->look_ns)
        d->clients->look_ns = at_ns;
}

static void process_ended(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    struct eg_client *c = eg_container_of(w, struct eg_client, watch);
    (void)events;
    eg_loop_remove(d->loop, w); /* it stays readable */
    eg_client_look(d, c, 0);
}

static void watch_process(struct eg_daemon *d, struct eg_client *c, int pidfd) {
    c->watch = (struct eg_watch){.fd = pidfd, .ready = process_ended};
    if (pidfd >= 0 && eg_loop_add(d->loop, &c->watch, EPOLLIN) != EAGRE_OK)
        eg_log_warning("client %u: %s", c->entry->owner, eg_error_text());
    if (pidfd < 0)
        eg_client_look(d, c, 0);
}

/* The part that is in this process only, for an entry and a page. */
static struct eg_client *client_new(struct eg_daemon *d, uint32_t owner, uid_t uid, int page_fd,
                                    void *page) {
    struct eg_client *c = calloc(1, sizeof(*c));
    if (c == NULL || (c->account = eg_account_take(d, uid)) == NULL) {
        eg_error_set(EAGRE_E_NO_MEMORY, "no memory for one client more");
        free(c);
        return NULL;
    }
    c->account->used[EG_QUOTA_CLIENTS]++;
    c->entry = &d->clients->table->entry[owner];
    c->page = page;
    c->page_fd = page_fd;
    c->watch.fd = -1;
    c->node = UINT32_MAX;
    c->look_ns = INT64_MAX;
    d->clients->by_owner[owner] = c;
    d->clients->count++;
    d->figures.clients = d->clients->count;
    if (owner > d->clients->top)
        d->clients->top = owner;
    return c;
}

static void count_bells(struct eg_client *c, int more) {
    c->bells += (uint32_t)more;
    c->account->used[EG_QUOTA_BELLS] += (uint64_t)(int64_t)more;
}

static void client_close(struct eg_daemon *d, struct eg_client *c) {
    if (c->session != NULL)
        c->session->client = NULL;
    if (c->watch.fd >= 0) {
        eg_loop_remove(d->loop, &c->watch);
        close(c->watch.fd);
    }
    eg_unmap(c->page, PAGE_BYTES);
    close(c->page_fd);
    d->clients->by_owner[c->entry->owner] = NULL;
    d->clients->count--;
    d->figures.clients = d->clients->count;
    c->account->used[EG_QUOTA_CLIENTS]--;
    c->account->used[EG_QUOTA_BELLS] -= c->bells;
    eg_account_put(d, c->account);
    free(c->wait);
    free(c->looks);
    free(c);
}

struct eg_grant *eg_client_grant(const struct eg_client *c, uint32_t topic_uid) {
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++)
        if (c->entry->grants[g].topic_uid == topic_uid)
            return &c->entry->grants[g];
    return NULL;
}

bool eg_client_may_produce(const struct eg_client *c, const struct eg_topic *t) {
    const struct eg_grant *g = eg_client_grant(c, t->meta.uid);
    return g != NULL && g->producers > 0;
}

/* t->clients is the other direction of the grants. */
static int topic_add_client(struct eg_topic *t, struct eg_client *c) {
    for (size_t i = 0; i < t->client_count; i++)
        if (t->clients[i] == c)
            return EAGRE_OK;
    if (t->client_count == t->client_cap) {
        size_t cap = t->client_cap == 0 ? 8 : 2 * t->client_cap;
        struct eg_client **more = realloc(t->clients, cap * sizeof(struct eg_client *));
        if (more == NULL)
            return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': no memory for one client more",
                                eg_topic_name(t));
        t->clients = more;
        t->client_cap = cap;
    }
    t->clients[t->client_count++] = c;
    return EAGRE_OK;
}

static void topic_remove_client(struct eg_topic *t, const struct eg_client *c) {
    for (size_t i = 0; i < t->client_count; i++)
        if (t->clients[i] == c)
            t->clients[i--] = t->clients[--t->client_count];
}

void eg_client_free(struct eg_daemon *d, struct eg_client *c) {
    char name[EG_KEEP_NAME_MAX + 1];
    uint32_t owner = c->entry->owner;
    eg_groups_client_gone(d, c);
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++) {
        struct eg_grant *grant = &c->entry->grants[g];
        struct eg_topic *t = grant->topic_uid != 0 ? eg_topic_by_uid(d, grant->topic_uid) : NULL;
        if (t != NULL)
            topic_remove_client(t, c);
        *grant = (struct eg_grant){0};
    }
    for (uint32_t b = 0; b < EG_BELLS_MAX; b++)
        if (eg_load_relaxed(&d->clients->table->bell_owner[b]) == owner)
            eg_store_relaxed(&d->clients->table->bell_owner[b], 0);
    eg_store_release(&c->entry->state, EG_CLIENT_FREE);
    if (eg_keep_drop(d->keep, keep_name(owner, name, sizeof(name))) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    client_close(d, c);
}

void eg_clients_forget_topic(struct eg_daemon *d, struct eg_topic *t) {
    (void)d;
    for (size_t i = 0; i < t->client_count; i++) {
        struct eg_grant *g = eg_client_grant(t->clients[i], t->meta.uid);
        if (g != NULL)
            *g = (struct eg_grant){0};
    }
    t->client_count = 0;
}

bool eg_clients_pinned(const struct eg_topic *t, uint32_t partition_index, uint64_t seq,
                       uint32_t *pids, size_t cap, size_t *count) {
    bool pinned = false;
    size_t found = 0;
    for (size_t i = 0; i < t->client_count; i++) {
        const struct eg_client *c = t->clients[i];
        bool holds = false;
        const uint32_t cells = eg_client_cells(c);
        for (uint32_t k = 0; k < cells && !holds; k++) {
            /* Acquire: a cleared pin's reads and writes are done. Partner: eg_pin_clear(). */
            uint64_t pin = eg_load_acquire(&c->page->pin[k].pin);
            holds =
                pin != EG_PIN_NONE && eg_pin_is_on(pin, partition_index) &&
                (eg_pin_seq(pin) == seq || (eg_pin_is_producer(pin) && eg_pin_seq(pin) + 1 == seq));
        }
        if (!holds)
            continue;
        pinned = true;
        if (pids == NULL)
            return true;
        if (found < cap)
            pids[found++] = (uint32_t)c->entry->pid;
    }
    if (count != NULL)
        *count = found;
    return pinned;
}

void eg_clients_ring_all(struct eg_daemon *d) {
    for (uint32_t b = 0; b < EG_BELLS_MAX; b++) {
        if (eg_load_relaxed(&d->clients->table->bell_owner[b]) == 0)
            continue;
        /* Release: who wakes sees what happened before. */
        atomic_fetch_add_explicit(&d->bells->bell[b].rings, 1, memory_order_release);
        eg_futex_wake(&d->bells->bell[b].rings, INT_MAX);
    }
}

void eg_client_ring(struct eg_daemon *d, const struct eg_client *c, uint32_t b) {
    if (b >= EG_BELLS_MAX || eg_load_relaxed(&d->clients->table->bell_owner[b]) != c->entry->owner)
        return;
    /* Release: who wakes sees what happened before. */
    atomic_fetch_add_explicit(&d->bells->bell[b].rings, 1, memory_order_release);
    eg_futex_wake(&d->bells->bell[b].rings, INT_MAX);
}

/* ---- messages ------------------------------------------------------------------------------------ */

static int malformed(const char *what) {
    return eg_error_set(EAGRE_E_PROTOCOL, "a malformed %s", what);
}

static int check_quota(struct eg_daemon *d, const struct eg_session *s) {
    const struct eg_config *config = &d->config;
    if (d->clients->count >= config->clients_max)
        return eg_error_set(EAGRE_E_LIMIT, "clients.max=%u is reached: close clients, or raise it",
                            config->clients_max);
    return eg_quota_check(d, s->account, EG_QUOTA_CLIENTS, 1);
}

static int attach_new(struct eg_daemon *d, struct eg_session *s, struct eg_client **out) {
    char name[EG_KEEP_NAME_MAX + 1], label[EG_KEEP_NAME_MAX + 16];
    uint64_t cookie;
    uint32_t owner = 1;
    void *page = NULL;
    int fd = -1;
    int rc = check_quota(d, s);
    if (rc == EAGRE_OK)
        rc = eg_random_bytes(&cookie, sizeof(cookie));
    if (rc != EAGRE_OK)
        return rc;
    while (owner <= EG_CLIENTS_MAX && d->clients->by_owner[owner] != NULL)
        owner++;
    if (owner > EG_CLIENTS_MAX)
        return eg_error_set(EAGRE_E_LIMIT, "all %u owner numbers are in use", EG_CLIENTS_MAX);
    keep_name(owner, name, sizeof(name));
    snprintf(label, sizeof(label), "eagre:%s", name);
    rc = eg_shm_allocate(d->clients->table_fd, entry_at(owner) & ~(uint64_t)(EG_PAGE - 1),
                         sizeof(struct eg_client_entry) + EG_PAGE);
    if (rc == EAGRE_OK)
        rc = eg_memfd_create(label, PAGE_BYTES, false, &fd);
    if (rc == EAGRE_OK)
        rc = eg_shm_allocate(fd, 0, PAGE_BYTES);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, PAGE_BYTES, true, &page);
    if (rc == EAGRE_OK)
        rc = eg_keep_put(d->keep, name, fd);
    struct eg_client *c = rc == EAGRE_OK ? client_new(d, owner, s->uid, fd, page) : NULL;
    if (c == NULL) {
        if (rc == EAGRE_OK)
            eg_keep_drop(d->keep, name);
        if (page != NULL)
            eg_unmap(page, PAGE_BYTES);
        if (fd >= 0)
            close(fd);
        return rc != EAGRE_OK ? rc : EAGRE_E_NO_MEMORY;
    }
    eg_magic_init(&c->page->magic);
    eg_magic_publish(&c->page->magic, EG_MAGIC_CLIENT);
    struct eg_client_entry *e = c->entry;
    memset(e, 0, sizeof(*e));
    e->owner = owner;
    e->uid = s->uid;
    e->gid = s->gid;
    e->pid = s->pid;
    e->cookie = cookie;
    memcpy(e->name, s->name, sizeof(e->name));
    if (s->pid > 0)
        (void)eg_process_start_time(s->pid,
                                    &e->start_ticks); /* fails if it is gone: the pidfd tells */
    eg_store_release(&e->state, EG_CLIENT_LIVE);
    watch_process(d, c, eg_pidfd_of_peer(s->fd, s->pid));
    *out = c;
    return EAGRE_OK;
}

static int attach_again(struct eg_daemon *d, struct eg_session *s, uint32_t owner, uint64_t cookie,
                        struct eg_client **out) {
    struct eg_client *c = owner <= EG_CLIENTS_MAX ? d->clients->by_owner[owner] : NULL;
    uint64_t ticks = 0;
    if (s->pid > 0)
        (void)eg_process_start_time(s->pid, &ticks);
    if (c == NULL || c->entry->cookie != cookie || c->entry->uid != s->uid ||
        c->entry->pid != s->pid || c->entry->start_ticks != ticks ||
        eg_load_relaxed(&c->entry->state) != EG_CLIENT_LIVE)
        return eg_error_set(EAGRE_E_PERMISSION,
                            "there is no client %u of pid %d: it was found dead, or is another's",
                            owner, (int)s->pid);
    if (c->session != NULL)
        c->session->client = NULL; /* its old connection, whose end has not been seen yet */
    if (c->watch.fd < 0)
        watch_process(d, c, eg_pidfd_of_peer(s->fd, s->pid));
    *out = c;
    return EAGRE_OK;
}

/* No more than so many from now on; without any it has nothing to do with the topic. */
static void grant_limit(struct eg_daemon *d, struct eg_client *c, struct eg_grant *g,
                        uint16_t producers, uint16_t consumers) {
    struct eg_topic *t = eg_topic_by_uid(d, g->topic_uid);
    g->producers = g->producers < producers ? g->producers : producers;
    g->consumers = g->consumers < consumers ? g->consumers : consumers;
    if (g->producers > 0 || g->consumers > 0)
        return;
    if (t != NULL)
        topic_remove_client(t, c);
    *g = (struct eg_grant){0};
}

void eg_client_grant_lower(struct eg_daemon *d, struct eg_client *c, struct eg_grant *g, uint8_t role) {
    uint16_t producers = g->producers, consumers = g->consumers;
    uint16_t *handles = role == EG_ROLE_PRODUCER ? &producers : &consumers;
    *handles -= *handles > 0;
    grant_limit(d, c, g, producers, consumers);
}

/* It says what it holds: what it was granted beyond that it does not know of, or has given up. Believed in this
 * direction only. */
static void limit_grants(struct eg_daemon *d, struct eg_client *c, struct eg_dec held, size_t count) {
    struct {
        uint16_t producers, consumers;
    } of[EG_CLIENT_GRANTS] = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t uid = eg_dec_u32(&held);
        uint16_t producers = eg_dec_u16(&held), consumers = eg_dec_u16(&held);
        const struct eg_grant *g = uid != 0 ? eg_client_grant(c, uid) : NULL;
        if (g == NULL)
            continue; /* of a topic that is not there any more */
        of[g - c->entry->grants].producers = producers;
        of[g - c->entry->grants].consumers = consumers;
    }
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++)
        if (c->entry->grants[g].topic_uid != 0)
            grant_limit(d, c, &c->entry->grants[g], of[g].producers, of[g].consumers);
}

int eg_handle_ATTACH(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                     struct eg_reply *r) {
    uint32_t owner = eg_dec_u32(in);
    uint64_t cookie = eg_dec_u64(in);
    size_t count = owner != 0 ? eg_dec_u16(in) : 0;
    struct eg_client *c = NULL;
    struct eg_dec held = *in;
    for (size_t i = 0; i < count; i++)
        eg_dec_u64(in);
    size_t member_count = owner != 0 ? eg_dec_u16(in) : 0;
    struct eg_dec members = *in;
    for (size_t i = 0; i < member_count; i++)
        eg_dec_u64(in);
    if (!eg_dec_end(in))
        return malformed("ATTACH");
    if (s->client != NULL)
        return eg_error_set(EAGRE_E_STATE, "this connection is client %u already",
                            s->client->entry->owner);
    int rc = owner == 0 ? attach_new(d, s, &c) : attach_again(d, s, owner, cookie, &c);
    if (rc != EAGRE_OK)
        return rc;
    if (owner != 0) {
        limit_grants(d, c, held, count);
        eg_groups_client_back(d, c, members, member_count);
    }
    s->client = c;
    c->session = s;
    c->reported = false;
    c->look_ns = INT64_MAX;
    eg_enc_u32(r->out, c->entry->owner);
    eg_enc_u64(r->out, c->entry->cookie);
    r->fds[r->nfds++] = c->page_fd;
    r->fds[r->nfds++] = d->bells_ro_fd;
    return EAGRE_OK;
}

int eg_handle_BELL(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                   struct eg_reply *r) {
    if (!eg_dec_end(in))
        return malformed("BELL");
    if (s->client == NULL)
        return eg_error_set(EAGRE_E_STATE, "BELL before ATTACH");
    int rc = eg_quota_check(d, s->account, EG_QUOTA_BELLS, 1);
    if (rc != EAGRE_OK)
        return rc;
    for (uint32_t b = 0; b < EG_BELLS_MAX; b++) {
        if (eg_load_relaxed(&d->clients->table->bell_owner[b]) != 0)
            continue;
        eg_store_relaxed(&d->clients->table->bell_owner[b], (uint16_t)s->client->entry->owner);
        count_bells(s->client, 1);
        eg_enc_u32(r->out, b);
        return EAGRE_OK;
    }
    return eg_error_set(EAGRE_E_LIMIT,
                        "all %u doorbells of this instance are in use: close consumers",
                        EG_BELLS_MAX);
}

int eg_handle_BELL_FREE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                        struct eg_reply *r) {
    uint32_t b = eg_dec_u32(in);
    (void)r;
    if (!eg_dec_end(in))
        return malformed("BELL_FREE");
    if (s->client == NULL || b >= EG_BELLS_MAX ||
        eg_load_relaxed(&d->clients->table->bell_owner[b]) != s->client->entry->owner)
        return eg_error_set(EAGRE_E_INVALID, "doorbell %u is not this client's", b);
    count_bells(s->client, -1);
    eg_store_relaxed(&d->clients->table->bell_owner[b], 0);
    return EAGRE_OK;
}

int eg_client_grant_add(struct eg_topic *t, struct eg_client *c, bool producer) {
    struct eg_grant *g = eg_client_grant(c, t->meta.uid);
    if (g == NULL)
        g = eg_client_grant(c, 0);
    if (g == NULL)
        return eg_error_set(EAGRE_E_LIMIT,
                            "topic '%s': a client can use at most %u topics at a time",
                            eg_topic_name(t), EG_CLIENT_GRANTS);
    if ((producer ? g->producers : g->consumers) == UINT16_MAX)
        return eg_error_set(EAGRE_E_LIMIT, "topic '%s': this client has %u handles on it",
                            eg_topic_name(t), UINT16_MAX);
    int rc = topic_add_client(t, c);
    if (rc != EAGRE_OK)
        return rc;
    g->topic_uid = t->meta.uid;
    if (producer)
        g->producers++;
    else
        g->consumers++;
    return EAGRE_OK;
}

int eg_handle_RELEASE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                      struct eg_reply *r) {
    uint8_t role = eg_dec_u8(in);
    uint32_t uid = eg_dec_u32(in);
    (void)r;
    if (!eg_dec_end(in) || (role != EG_ROLE_PRODUCER && role != EG_ROLE_CONSUMER))
        return malformed("RELEASE");
    struct eg_grant *g = s->client != NULL && uid != 0 ? eg_client_grant(s->client, uid) : NULL;
    if (g != NULL) /* else the topic was deleted meanwhile */
        eg_client_grant_lower(d, s->client, g, role);
    EG_FAULT("release.done");
    return EAGRE_OK;
}

void eg_session_closed(struct eg_daemon *d, struct eg_session *s) {
    struct eg_client *c = s->client;
    if (c == NULL)
        return;
    s->client = NULL;
    c->session = NULL;
    c->look_wait_ns = 0;
    eg_client_look(d, c, 0); /* a closed socket is only the hint to look */
}

/* ---- after a predecessor ------------------------------------------------------------------------- */

static int recover(struct eg_daemon *d, uint32_t owner) {
    struct eg_client_entry *e = &d->clients->table->entry[owner];
    char name[EG_KEEP_NAME_MAX + 1];
    size_t size;
    void *page = NULL;
    int fd = eg_keep_take(d->keep, keep_name(owner, name, sizeof(name)));
    if (fd < 0 || eg_memfd_check(fd, &size) != EAGRE_OK || size != PAGE_BYTES ||
        eg_map(fd, 0, PAGE_BYTES, true, &page) != EAGRE_OK) {
        /* Cut off before anybody had it, or after it was freed. Anything else is a loss that we can only report. */
        eg_log_warning("client %u (pid %d) has no page: forgotten", owner, (int)e->pid);
        eg_store_release(&e->state, EG_CLIENT_FREE);
        if (fd >= 0) {
            eg_keep_drop(d->keep, name);
            close(fd);
        }
        return EAGRE_OK;
    }
    struct eg_client *c = client_new(d, owner, e->uid, fd, page);
    if (c == NULL)
        return EAGRE_E_NO_MEMORY;
    for (uint32_t b = 0; b < EG_BELLS_MAX; b++)
        count_bells(c, eg_load_relaxed(&d->clients->table->bell_owner[b]) == owner);
    for (uint32_t g = 0; g < EG_CLIENT_GRANTS; g++) {
        struct eg_grant *grant = &e->grants[g];
        struct eg_topic *t = grant->topic_uid != 0 ? eg_topic_by_uid(d, grant->topic_uid) : NULL;
        if (t == NULL || (grant->producers == 0 && grant->consumers == 0))
            *grant = (struct eg_grant){0};
        else if (topic_add_client(t, c) != EAGRE_OK)
            return EAGRE_E_NO_MEMORY;
    }
    /* Its pid may be another's by now: then the start time tells, when we look. */
    int pidfd = e->pid > 0 && !eg_process_is_gone(e->pid, e->start_ticks)
                    ? (int)syscall(SYS_pidfd_open, e->pid, 0)
                    : -1;
    if (pidfd >= 0 && eg_process_is_gone(e->pid, e->start_ticks)) {
        close(pidfd);
        pidfd = -1;
    }
    watch_process(d, c, pidfd);
    eg_client_look(d, c, 0);
    return EAGRE_OK;
}

static void drop_left(struct eg_daemon *d) {
    char name[EG_KEEP_NAME_MAX + 1];
    const char *left;
    for (size_t i = 0; (left = eg_keep_left(d->keep, i)) != NULL;) {
        snprintf(name, sizeof(name), "%s", left);
        int fd =
            name[0] == 'c' && name[1] >= '0' && name[1] <= '9' ? eg_keep_take(d->keep, name) : -1;
        if (fd < 0) {
            i++;
            continue;
        }
        eg_keep_drop(d->keep, name);
        close(fd);
        i = 0; /* the list has changed */
    }
}

static int start(struct eg_daemon *d) {
    int rc = EAGRE_OK;
    /* Entries never used are holes: reading one of them would give it memory, so ask the kept pages first. */
    for (size_t i = 0; rc == EAGRE_OK;) {
        uint32_t owner;
        const char *left = eg_keep_left(d->keep, i);
        if (left == NULL)
            break;
        if (sscanf(left, "c%u", &owner) != 1 || owner == 0 || owner > EG_CLIENTS_MAX ||
            d->clients->by_owner[owner] != NULL) {
            i++;
            continue;
        }
        const struct eg_client_entry *e = &d->clients->table->entry[owner];
        if (eg_load_acquire(&e->state) == EG_CLIENT_FREE || e->owner != owner) {
            i++;
            continue;
        }
        rc = recover(d, owner);
        i = 0;
    }
    if (rc == EAGRE_OK)
        drop_left(d);
    return rc;
}

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    for (uint32_t o = 1; o <= d->clients->top; o++)
        if (d->clients->by_owner[o] != NULL)
            client_close(d, d->clients->by_owner[o]);
    eg_unmap(d->clients->table, TABLE_BYTES);
    close(d->clients->table_fd);
    free(d->clients);
    d->clients = NULL;
}

const struct eg_service eg_clients_service = {.name = "clients", .start = start, .stop = stop};
