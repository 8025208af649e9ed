/* group.c - the membership: subscribe, and the daemon's answers one after another. */
#include "client/group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/share.h"
#include "client/wish.h"
#include "sys/clock.h"
#include "sys/cpu.h"
#include "sys/shm.h"

#define STEPS 64                          /* a poll at most: a group that is in turmoil goes on with the next one */
#define LOOK_AGAIN_NS (50 * EG_NS_PER_US) /* for an answer, by polls that do not wait */
#define RETRY_NS (20 * EG_NS_PER_MS)      /* there is no daemon, or it cannot do that now */
#define NAP_NS EG_NS_PER_MS
#define LONG_NAP_NS (10 * EG_NS_PER_MS)
#define LONG_NS (100 * EG_NS_PER_MS)
#define LAST_LOOK_NS EG_NS_PER_S /* who leaves waits so long for what says how far it may commit */

int eg_group_error(const struct membership *g, int rc) { return eg_error_add(rc, "group '%s'", g->id); }

int eg_group_fenced(const struct membership *g) {
    if (g->fence == EG_TAKEN)
        return eg_error_set(EAGRE_E_FENCED, "group '%s': another consumer has joined with group.instance.id '%s': subscribe "
                                            "again to take its place", g->id, g->instance_id);
    return eg_error_set(EAGRE_E_FENCED, "group '%s': this consumer is not a member any more: it has not polled for "
                                        "max.poll.interval.ms, or was removed. Its partitions may be with others; poll "
                                        "joins again", g->id);
}

/* The next poll has something to do. */
static void hurry(eagre_consumer_t *c) {
    c->group->busy = true;
    c->group->next_ns = 0;
    if (c->notifier != NULL)
        eg_notifier_signal(c->notifier);
}

/* ---- questions ----------------------------------------------------------------------------------------- */

int eg_group_ask(eagre_consumer_t *c, struct eg_enc *req, struct eg_dec *reply, int *fds, size_t fds_cap, size_t *nfds,
                 uint32_t *generation) {
    struct membership *g = c->group;
    struct eg_msg_header h;
    memcpy(&h, req->data, sizeof(h));
    if (g->late_type != h.type)
        eg_session_give_up(c->e, &g->late);
    g->late_type = h.type;
    int rc = eg_session_request_late(c->e, &g->late, req, g->in, EG_MSG_MAX, reply, fds, fds_cap, nfds,
                                     eg_until_end(&c->until, g->late), generation);
    if (rc == EAGRE_E_FENCED && g->page != NULL) { /* whoever asked, the next poll has to see to it */
        g->denied = true;
        hurry(c);
    }
    return rc;
}

static int malformed(const struct membership *g, const char *what) {
    return eg_error_set(EAGRE_E_PROTOCOL, "group '%s': eagred's answer to %s is malformed", g->id, what);
}

static int map_page(struct membership *g, int fd) {
    void *page;
    int rc = eg_session_map(fd, sizeof(struct eg_member_page), true, NULL, "member page", &page);
    if (rc != EAGRE_OK)
        return rc;
    g->page = page;
    rc = eg_magic_check(&g->page->magic, EG_MAGIC_MEMBER, "member page from eagred");
    if (rc == EAGRE_OK && g->page->member != g->member)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's member page is of another member");
    if (rc == EAGRE_OK)
        return rc;
    eg_unmap(g->page, sizeof(*g->page));
    g->page = NULL;
    return rc;
}

static int join(eagre_consumer_t *c) {
    struct membership *g = c->group;
    struct eg_enc req;
    struct eg_dec reply;
    unsigned cpu, node;
    int fd = -1;
    size_t nfds = 0;
    if (getcpu(&cpu, &node) != 0)
        node = UINT32_MAX;
    eg_enc_begin(&req, g->out, EG_MSG_MAX, EG_MSG_GROUP_JOIN, 0, 0);
    eg_enc_str(&req, g->id);
    eg_enc_u8(&req, g->type);
    eg_enc_str(&req, g->instance_id != NULL ? g->instance_id : "");
    eg_enc_str(&req, g->client_id);
    eg_enc_u8(&req, g->strategies);
    for (int i = 0; i < g->strategies; i++)
        eg_enc_u8(&req, g->strategy[i]);
    eg_enc_u32(&req, (uint32_t)c->options.max_poll_interval_ms);
    eg_enc_u32(&req, (uint32_t)c->options.session_timeout_ms);
    eg_enc_u32(&req, (uint32_t)c->options.auto_commit_interval_ms);
    eg_enc_u32(&req, node);
    int rc = eg_group_ask(c, &req, &reply, &fd, 1, &nfds, &g->page_generation);
    if (rc != EAGRE_OK)
        return rc;
    g->member = eg_dec_u64(&reply);
    g->number = eg_dec_u16(&reply);
    g->uid = eg_dec_u32(&reply);
    rc = eg_dec_end(&reply) && nfds == 1 ? map_page(g, fd) : malformed(g, "GROUP_JOIN");
    if (nfds > 0)
        close(fd);
    if (rc != EAGRE_OK) {
        eg_session_return(c->e, EG_MSG_GROUP_JOIN, 0, g->member, g->page_generation);
        return rc;
    }
    g->polls = eg_load_relaxed(&g->page->polls);
    g->commits = eg_load_relaxed(&g->page->commits);
    g->version = 0;
    g->topics = eg_load_acquire(&g->page->topics); /* before what we say of them, or look up */
    g->acked = 0;
    g->wish_known = false;
    g->wish.sent = 0;
    g->was_fenced = false;
    g->fence = EG_IN_GOOD_STANDING;
    return EAGRE_OK;
}

/* We are not a member any more, as far as memory goes. */
static void forget_page(struct membership *g) {
    if (g->page != NULL)
        eg_unmap(g->page, sizeof(*g->page));
    g->page = NULL;
    g->generation = 0;
    g->waiting = false;
    g->moved = false;
    g->denied = false;
}

/* The daemon has put us out, or is another one that knows nothing of us. */
static void put_out(eagre_consumer_t *c, enum eg_fence fence) {
    struct membership *g = c->group;
    bool told = g->was_fenced; /* by a commit, which said so */
    eg_session_give_up(c->e, &g->late);
    eg_session_leave(c->e, g->member, 0, g->page_generation);
    g->was_fenced = true;
    eg_given_drop(c, true);
    forget_page(g);
    g->fence = told && fence == EG_PUT_OUT ? EG_IN_GOOD_STANDING : fence;
}

/* ---- what has to be done, step by step ------------------------------------------------------------------- */

/* The next step of what is not done yet. EAGRE_OK: it was done; *more: there may be another one. */
static int step(eagre_consumer_t *c, bool *more) {
    struct membership *g = c->group;
    *more = true;
    if (g->page == NULL)
        return join(c);
    if (!g->wish.listed)
        return eg_wish_list(c, &g->wish);
    if (!g->wish_known) {
        int rc = eg_wish_send(c, &g->wish);
        g->wish_known = rc == EAGRE_OK;
        return rc;
    }
    uint32_t topics = eg_load_acquire(&g->page->topics);
    if (topics != g->topics) { /* what is looked up from here on is no older. Partner: the daemon's release */
        g->topics = topics;
        g->wish.listed = g->wish.pattern_count == 0;
        g->wish_known = g->wish.listed && !g->wish.lenient; /* even if the same match: one may be open to us only now */
        return EAGRE_OK;
    }
    if (eg_load_acquire(&g->page->version) != g->version)
        return eg_given_fetch(c);
    int rc = g->coming > 0 ? eg_given_take(c) : EAGRE_OK;
    bool waits = rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON;
    /* Of one that cannot be opened poll tells first; with the next one the daemon is told that we have the version. */
    *more = g->acked != g->version && (rc == EAGRE_OK || (waits && g->gave_up));
    return *more ? eg_given_acknowledge(c) : rc;
}

static int advance(eagre_consumer_t *c) {
    struct membership *g = c->group;
    bool more = true;
    int rc = EAGRE_OK;
    for (int i = 0; more && i < STEPS; i++) {
        uint32_t generation = eg_load_acquire(&c->e->generation);
        uint32_t state = g->page != NULL ? eg_load_acquire(&g->page->state) : EG_MEMBER_IN;
        if (g->page != NULL && g->page_generation != generation)
            put_out(c, EG_IN_GOOD_STANDING); /* nobody has fenced us, we just join anew */
        else if (state != EG_MEMBER_IN || g->denied || rc == EAGRE_E_FENCED)
            put_out(c, state == EG_MEMBER_TAKEN ? EG_TAKEN : EG_PUT_OUT);
        else if (rc != EAGRE_OK)
            return rc;
        if (g->fence != EG_IN_GOOD_STANDING) {
            rc = eg_group_fenced(g);
            g->fence = g->fence == EG_TAKEN ? EG_TAKEN : EG_IN_GOOD_STANDING;
            return rc;
        }
        if (c->generation != generation && (rc = eg_consumer_reopen(c)) != EAGRE_OK)
            return rc;
        rc = step(c, &more);
    }
    return rc == EAGRE_OK && more ? EAGRE_E_WOULD_BLOCK : rc;
}

static bool is_busy(const struct membership *g) {
    return g->waiting || g->page == NULL || g->coming > 0 || g->moved || g->in_callback;
}

int eg_membership_turn(eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (g->in_callback)
        return eg_error_set(EAGRE_E_STATE, "group '%s': no poll within a rebalance callback", g->id);
    if (!g->subscribed)
        return eg_commit_by_hand(c, false);
    g->moved = g->moved && g->page != NULL && g->auto_commit && !eg_commit_moved(c);
    int64_t now = eg_mono_ns();
    if (now < g->next_ns && (g->waiting || g->page == NULL || !eg_group_words_moved(g))) {
        g->busy = is_busy(g);
        return EAGRE_OK;
    }
    eg_consumer_let_go(c); /* it was polled */
    int rc = advance(c);
    if (rc == EAGRE_E_WOULD_BLOCK || rc == EAGRE_E_NO_DAEMON || rc == EAGRE_E_BUSY) {
        now = eg_mono_ns();
        if (!g->waiting)
            g->since_ns = now;
        g->waiting = true;
        g->away = rc == EAGRE_E_NO_DAEMON;
        g->next_ns = now + (rc == EAGRE_E_WOULD_BLOCK ? LOOK_AGAIN_NS : RETRY_NS);
        rc = EAGRE_OK;
    } else {
        g->waiting = false;
        g->away = false;
        g->next_ns = g->page != NULL && g->acked != g->version ? 0 : eg_given_retry_ns(g);
    }
    g->busy = is_busy(g);
    if (rc != EAGRE_OK && g->coming == 0) { /* the next poll tries again */
        g->busy = true;
        g->next_ns = 0;
    }
    return rc == EAGRE_OK || rc == EAGRE_E_FENCED ? rc : eg_group_error(g, rc);
}

int64_t eg_group_nap(const eagre_consumer_t *c) {
    const struct membership *g = c->group;
    int64_t now = eg_mono_ns();
    if (g->waiting)
        return now - g->since_ns < LONG_NS ? NAP_NS : LONG_NAP_NS;
    return g->subscribed && g->busy && g->next_ns != INT64_MAX ? (g->next_ns > now ? g->next_ns - now : 0) : INT64_MAX;
}

bool eg_group_stranded(const eagre_consumer_t *c) {
    const struct membership *g = c->group;
    return g != NULL && g->subscribed && g->page == NULL && g->away;
}

bool eg_group_outdated(eagre_consumer_t *c) {
    if (c->group == NULL || !c->group->subscribed)
        return false;
    c->group->busy = true;
    c->group->waiting = false;
    c->group->next_ns = 0;
    return true;
}

void eg_group_moved(eagre_consumer_t *c, struct assigned *a, bool sought) {
    /* Nowhere is not to be committed; anything else is, even if it is where it was committed to be. But if it is a place of
     * the log is seen first. */
    a->committed = a->how == EG_NOWHERE || sought ? a->reader.offset : -1;
    a->sought = sought ? a->reader.offset : -1;
    if (a->cell == NULL || a->how == EG_NOWHERE)
        return;
    c->group->moved = true;
    c->group->busy = true;
}

/* ---- subscribe, leave -------------------------------------------------------------------------------------- */

/* how: of GROUP_LEAVE. */
static void leave(eagre_consumer_t *c, uint8_t how) {
    struct membership *g = c->group;
    bool out = g->page == NULL || g->page_generation != eg_load_acquire(&c->e->generation) || g->denied ||
               eg_load_acquire(&g->page->state) != EG_MEMBER_IN;
    eg_session_give_up(c->e, &g->late); /* a JOIN takes its member along */
    c->until = (struct eg_until){.ns = eg_mono_ns() + LAST_LOOK_NS};
    if (g->page != NULL && g->auto_commit && !out)
        eg_commit_moved(c);
    c->until = (struct eg_until){0};
    eg_given_drop(c, out);
    if (g->page != NULL && !out)
        eg_session_return(c->e, EG_MSG_GROUP_JOIN, how, g->member, g->page_generation);
    else if (g->page != NULL)
        eg_session_leave(c->e, g->member, how, g->page_generation);
    forget_page(g);
    eg_wish_free(&g->wish);
    g->subscribed = false;
    g->busy = false;
    g->was_fenced = false;
    g->fence = EG_IN_GOOD_STANDING;
    g->away = false;
    g->next_ns = 0;
    if (g->reset_unset)
        c->options.auto_offset_reset = EAGRE_RESET_LATEST;
}

static int subscribe_check(eagre_consumer_t *c, const char *const *topics, size_t count, const char *what) {
    int rc = eg_consumer_usable(c);
    if (rc != EAGRE_OK)
        return rc;
    struct membership *g = c->group;
    if (g == NULL)
        return eg_error_set(EAGRE_E_INVALID, "%s: the consumer was opened without a group_id", what);
    if (g->in_callback)
        return eg_error_set(EAGRE_E_STATE, "group '%s': %s within a rebalance callback", g->id, what);
    if (!g->subscribed && c->part_count > 0)
        return eg_error_set(EAGRE_E_STATE, "group '%s': %s: this consumer has partitions assigned by hand: unassign them first",
                            g->id, what);
    for (size_t i = 0; i < count; i++)
        if (topics == NULL || topics[i] == NULL || topics[i][0] == '\0' ||
            (topics[i][0] != '^' && strlen(topics[i]) > EG_TOPIC_NAME_MAX))
            return eg_error_set(EAGRE_E_INVALID, "group '%s': %s: topic %zu: a name has 1 to %u bytes", g->id, what, i + 1,
                                EG_TOPIC_NAME_MAX);
    return EAGRE_OK;
}

/* Be a member, if it is none yet, and have the daemon know the wish. */
static int enter(eagre_consumer_t *c, struct eg_wish *wish) {
    int rc = c->group->page == NULL ? join(c) : EAGRE_OK;
    if (rc == EAGRE_OK)
        rc = eg_wish_list(c, wish);
    if (rc == EAGRE_OK)
        do
            rc = eg_wish_send(c, wish);
        while (rc == EAGRE_E_WOULD_BLOCK && eg_mono_ns() < c->until.ns);
    return rc;
}

/* A subscribe has failed, but the daemon may have heard it, or hear it yet: what it is subscribed to is said again. */
static void keep_old_wish(eagre_consumer_t *c) {
    c->group->wish_known = false;
    c->group->wish.sent = 0;
    c->group->waiting = false;
    hurry(c);
}

int eagre_consumer_subscribe(eagre_consumer_t *c, const char *const *topics, size_t count) {
    int rc = subscribe_check(c, topics, count, "eagre_consumer_subscribe");
    if (rc != EAGRE_OK)
        return rc;
    if (count == 0)
        return eagre_consumer_unsubscribe(c);
    struct membership *g = c->group;
    struct eg_wish wish = {0};
    rc = eg_wish_make(&wish, topics, count);
    if (rc != EAGRE_OK)
        return eg_group_error(g, rc);
    eg_consumer_let_go(c);
    bool was = g->subscribed;
    if (g->late_type != EG_MSG_GROUP_JOIN) /* it was about the old wish */
        eg_session_give_up(c->e, &g->late);
    if (g->page != NULL && (eg_load_acquire(&g->page->state) != EG_MEMBER_IN || g->denied ||
                            g->page_generation != eg_load_acquire(&c->e->generation)))
        put_out(c, EG_IN_GOOD_STANDING);
    bool joins = g->page == NULL;
    eg_consumer_begin_waiting(c);
    g->fence = EG_IN_GOOD_STANDING;
    rc = enter(c, &wish);
    if (rc == EAGRE_E_FENCED && !joins) { /* only the daemon knew it */
        put_out(c, EG_IN_GOOD_STANDING);
        rc = enter(c, &wish);
    }
    if (rc != EAGRE_OK) {
        rc = eg_group_error(g, eg_consumer_end_waiting(c, rc));
        eg_session_give_up(c->e, &g->late);
        eg_wish_free(&wish);
        if (joins && g->page != NULL && !was) { /* the detail is kept: nothing of this fails */
            eg_session_return(c->e, EG_MSG_GROUP_JOIN, g->instance_id != NULL, g->member, g->page_generation);
            forget_page(g);
        }
        if (was)
            keep_old_wish(c);
        return rc;
    }
    eg_consumer_end_waiting(c, rc);
    eg_wish_free(&g->wish);
    g->wish = wish;
    g->wish_known = true;
    g->subscribed = true;
    g->busy = true;
    g->next_ns = 0;
    g->auto_commit = c->options.enable_auto_commit && g->type == EG_GROUP_CONSUMER;
    if (g->reset_unset)
        c->options.auto_offset_reset = EAGRE_RESET_NONE;
    if (c->notifier != NULL)
        eg_notifier_signal(c->notifier);
    return EAGRE_OK;
}

int eagre_consumer_unsubscribe(eagre_consumer_t *c) {
    int rc = subscribe_check(c, NULL, 0, "eagre_consumer_unsubscribe");
    if (rc == EAGRE_OK)
        leave(c, 0);
    return rc;
}

int eagre_consumer_on_rebalance(eagre_consumer_t *c, const eagre_rebalance_callbacks_t *callbacks) {
    int rc = subscribe_check(c, NULL, 0, "eagre_consumer_on_rebalance");
    if (rc == EAGRE_OK && c->group->subscribed)
        rc = eg_error_set(EAGRE_E_STATE, "group '%s': eagre_consumer_on_rebalance belongs before eagre_consumer_subscribe",
                          c->group->id);
    if (rc == EAGRE_OK)
        c->group->callbacks = callbacks != NULL ? *callbacks : (eagre_rebalance_callbacks_t){0};
    return rc;
}

int eagre_consumer_member(eagre_consumer_t *c, eagre_member_info_t *out) {
    int rc = eg_consumer_usable(c);
    if (rc == EAGRE_OK && (out == NULL || c->group == NULL))
        rc = eg_error_set(EAGRE_E_INVALID, "eagre_consumer_member: %s",
                          out == NULL ? "no place for the answer" : "the consumer was opened without a group_id");
    if (rc != EAGRE_OK)
        return rc;
    const struct membership *g = c->group;
    bool in = g->page != NULL && !g->denied && eg_load_acquire(&g->page->state) == EG_MEMBER_IN;
    *out = (eagre_member_info_t){.member = in ? g->member : 0, .generation = g->generation};
    return EAGRE_OK;
}

/* ---- open and close ---------------------------------------------------------------------------------------- */

static int parse_strategies(struct membership *g, const char *list) {
    for (const char *at = list != NULL ? list : "cooperative-sticky"; *at != '\0';) {
        char name[32];
        size_t n = strcspn(at, ", ");
        int which = 0;
        if (n > 0 && n < sizeof(name)) {
            memcpy(name, at, n);
            name[n] = '\0';
            which = eg_assignor_parse(name);
        }
        if (n > 0 && which == 0)
            return eg_error_set(EAGRE_E_INVALID_CONFIG, "partition.assignment.strategy: '%.*s' is none of range, roundrobin, "
                                                        "cooperative-sticky, numa", n < 64 ? (int)n : 64, at);
        if (n > 0 && memchr(g->strategy, which, g->strategies) == NULL)
            g->strategy[g->strategies++] = (uint8_t)which;
        at += n + (at[n] != '\0');
    }
    if (g->strategies == 0)
        return eg_error_set(EAGRE_E_INVALID_CONFIG, "partition.assignment.strategy is empty");
    return EAGRE_OK;
}

static int check_options(const eagre_consumer_options_t *o) {
    if (o->group_id == NULL && (o->group_instance_id != NULL || o->group_type != EAGRE_GROUP_CONSUMER))
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_open: group_instance_id and group_type need a group_id");
    if (o->group_id == NULL)
        return EAGRE_OK;
    size_t id = strlen(o->group_id), instance = o->group_instance_id != NULL ? strlen(o->group_instance_id) : 1;
    if (id == 0 || id > EG_GROUP_NAME_MAX || instance == 0 || instance > EG_INSTANCE_ID_MAX)
        return eg_error_set(EAGRE_E_INVALID, "eagre_consumer_open: group_id '%.80s' has 1 to %u bytes, group_instance_id 1 to %u",
                            o->group_id, EG_GROUP_NAME_MAX, EG_INSTANCE_ID_MAX);
    if (o->group_type > EAGRE_GROUP_SHARE || o->auto_commit_interval_ms < 0 || o->max_poll_interval_ms < 1 ||
        o->session_timeout_ms < 0)
        return eg_error_set(EAGRE_E_INVALID, "group '%s': group_type %d, auto_commit_interval_ms %d, max_poll_interval_ms %d or "
                                             "session_timeout_ms %d is out of range", o->group_id, (int)o->group_type,
                            o->auto_commit_interval_ms, o->max_poll_interval_ms, o->session_timeout_ms);
    return EAGRE_OK;
}

static void free_group(struct membership *g) {
    free(g->id);
    free(g->instance_id);
    free(g->in);
    free(g->out);
    free(g);
}

int eg_group_open(eagre_consumer_t *c) {
    eagre_consumer_options_t *o = &c->options;
    int rc = check_options(o);
    if (rc != EAGRE_OK || o->group_id == NULL)
        return rc;
    struct membership *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a member of group '%s'", o->group_id);
    g->id = strdup(o->group_id);
    g->instance_id = o->group_instance_id != NULL ? strdup(o->group_instance_id) : NULL;
    g->in = malloc(EG_MSG_MAX);
    g->out = malloc(EG_MSG_MAX);
    if (g->id == NULL || g->in == NULL || g->out == NULL || (o->group_instance_id != NULL && g->instance_id == NULL))
        rc = eg_error_set(EAGRE_E_NO_MEMORY, "no memory for a member of group '%s'", o->group_id);
    if (rc == EAGRE_OK)
        rc = parse_strategies(g, o->partition_assignment_strategy);
    if (rc != EAGRE_OK) {
        free_group(g);
        return rc;
    }
    const char *who = o->client_id != NULL ? o->client_id : program_invocation_short_name;
    memcpy(g->client_id, who, strnlen(who, EG_CLIENT_ID_MAX));
    g->type = o->group_type == EAGRE_GROUP_SHARE ? EG_GROUP_SHARE : EG_GROUP_CONSUMER;
    g->reset_unset = o->auto_offset_reset == EAGRE_RESET_UNSET;
    o->group_id = g->id;
    o->group_instance_id = g->instance_id;
    o->client_id = g->client_id;
    o->partition_assignment_strategy = NULL; /* parsed */
    c->group = g;
    return EAGRE_OK;
}

void eg_group_close(eagre_consumer_t *c) {
    struct membership *g = c->group;
    if (g == NULL)
        return;
    if (*c->fork_guard == 0) {
        eg_given_abandon(c);
        forget_page(g);
        eg_wish_free(&g->wish);
    } else if (g->subscribed) {
        leave(c, g->instance_id != NULL);
    } else {
        (void)eg_commit_by_hand(c, true); /* as far as it goes */
        eg_session_give_up(c->e, &g->late);
    }
    c->group = NULL;
    free_group(g);
}
