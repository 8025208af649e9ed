/*
 * group_pages.c - members' numbers, ids and pages; and what is theirs on its way to the store.
 *
 * An id is never given out again: it begins with a count that goes on where the clock was when the daemon started, or
 * behind all that are known. Its low bits are the number, so that a member is found by its id without a search.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clients.h"
#include "groups.h"
#include "members_store.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/futex.h"
#include "sys/shm.h"

#define PAGE_BYTES eg_align_up(sizeof(struct eg_member_page), EG_PAGE)
#define CELLS_A_PAGE (EG_PAGE / sizeof(int64_t))

static const char *keep_name(uint32_t number, char *buf, size_t cap) {
    snprintf(buf, cap, "m%u", number);
    return buf;
}

/* ---- pages -------------------------------------------------------------------------------------------- */

static uint32_t free_number(const struct eg_groups *all) {
    uint32_t n = all->last_number;
    for (uint32_t i = 0; i < EG_MEMBERS_MAX; i++) {
        n = n % EG_MEMBERS_MAX + 1; /* in turn: share groups may still have something of who had it last */
        if (all->by_number[n] == NULL)
            return n;
    }
    return 0;
}

int eg_member_page_make(struct eg_daemon *d, struct eg_member *m) {
    struct eg_groups *all = d->groups;
    char name[EG_KEEP_NAME_MAX + 1], label[EG_KEEP_NAME_MAX + 16];
    void *page = NULL;
    int fd = -1;
    uint32_t number = free_number(all);
    if (number == 0)
        return eg_error_set(EAGRE_E_LIMIT, "all %u members of this instance are there: close consumers",
                            EG_MEMBERS_MAX);
    keep_name(number, name, sizeof(name));
    snprintf(label, sizeof(label), "eagre:%s", name);
    int rc = eg_memfd_create(label, PAGE_BYTES, false, &fd);
    if (rc == EAGRE_OK)
        rc = eg_shm_allocate(fd, 0, 2 * EG_PAGE);
    if (rc == EAGRE_OK)
        rc = eg_map(fd, 0, PAGE_BYTES, true, &page);
    if (rc == EAGRE_OK)
        rc = eg_keep_put(d->keep, name, fd);
    if (rc != EAGRE_OK) {
        if (page != NULL)
            eg_unmap(page, PAGE_BYTES);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    m->number = all->last_number = number;
    m->id = ++all->last_member * EG_MEMBERS_MAX + (number - 1);
    m->page = page;
    m->page_fd = fd;
    m->seen = m->commits = m->writing = m->stored = 0; /* of a page that it had before: group_offsets.c */
    eg_magic_init(&m->page->magic);
    m->page->member = m->id;
    eg_store_relaxed(&m->page->version, m->version);
    eg_store_relaxed(&m->page->state, EG_MEMBER_IN);
    eg_magic_publish(&m->page->magic, EG_MAGIC_MEMBER);
    all->by_number[number] = m;
    return EAGRE_OK;
}

/* NULL: it is not what it should be. */
static struct eg_member_page *map_page(int fd) {
    size_t size = 0;
    void *page = NULL;
    bool good = eg_memfd_check(fd, &size) == EAGRE_OK && size == PAGE_BYTES &&
                eg_map(fd, 0, PAGE_BYTES, true, &page) == EAGRE_OK;
    return good ? page : NULL;
}

bool eg_member_page_take(struct eg_daemon *d, struct eg_member *m) {
    char name[EG_KEEP_NAME_MAX + 1];
    int fd = eg_keep_take(d->keep, keep_name(m->number, name, sizeof(name)));
    if (fd < 0)
        return false;
    m->page = map_page(fd);
    if (m->page == NULL) {
        eg_keep_drop(d->keep, name);
        close(fd);
        return false;
    }
    m->page_fd = fd;
    m->cells_ready = 0; /* as far as we know */
    return true;
}

void eg_member_page_close(struct eg_daemon *d, struct eg_member *m, bool drop) {
    char name[EG_KEEP_NAME_MAX + 1];
    if (m->page == NULL)
        return;
    if (drop && eg_keep_drop(d->keep, keep_name(m->number, name, sizeof(name))) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    eg_unmap(m->page, PAGE_BYTES);
    close(m->page_fd);
    m->page = NULL;
    m->page_fd = -1;
}

void eg_member_ring(struct eg_daemon *d, const struct eg_member *m) {
    if (m->client == NULL || m->page == NULL)
        return;
    eg_fence_seq_cst(); /* between what was changed and the look at who sleeps. Partner: the membarrier of who goes to sleep */
    eg_client_ring(d, m->client, eg_load_relaxed(&m->page->bell) - 1);
}

static void say_out(struct eg_member_page *page, uint32_t state) {
    if (eg_load_relaxed(&page->state) != EG_MEMBER_TAKEN) /* a daemon before this one said it, and it holds for ever */
        eg_store_release(&page->state, state);
    /* Release: who sees it sees the state. Partner: who waits for a commit. */
    atomic_fetch_add_explicit(&page->rings, 1, memory_order_release);
    eg_futex_wake(&page->rings, INT_MAX);
}

void eg_member_page_out(struct eg_member *m, uint32_t state) {
    if (m->page != NULL)
        say_out(m->page, state);
}

/* Asking for memory takes some 50 us, so it is not done for each cell. */
static int cells_reserve(struct eg_member *m, uint32_t cell) {
    uint32_t more = 2 * m->cells_ready, from = m->cells_ready;
    if (cell < from)
        return EAGRE_OK;
    if (more <= cell)
        more = cell + 1;
    more = (uint32_t)eg_align_up(more, CELLS_A_PAGE);
    if (more > EG_MEMBER_CELLS)
        more = EG_MEMBER_CELLS;
    int rc = eg_shm_allocate(m->page_fd, EG_PAGE + (size_t)from * sizeof(m->page->cell[0]),
                             (size_t)(more - from) * sizeof(m->page->cell[0]));
    if (rc == EAGRE_OK)
        m->cells_ready = more;
    return rc;
}

int eg_member_cell_clear(struct eg_member *m, uint32_t cell) {
    if (cell >= EG_MEMBER_CELLS)
        return eg_error_set(EAGRE_E_LIMIT, "a member has at most %u partitions", EG_MEMBER_CELLS);
    int rc = cells_reserve(m, cell);
    if (rc == EAGRE_OK) /* the member learns of it by the version, with a release */
        eg_store_relaxed(&m->page->cell[cell], EG_NO_COMMIT);
    return rc;
}

void eg_member_pages_drop_left(struct eg_daemon *d) {
    char name[EG_KEEP_NAME_MAX + 1];
    const char *left;
    for (size_t i = 0; (left = eg_keep_left(d->keep, i)) != NULL;) {
        snprintf(name, sizeof(name), "%s", left);
        int fd = name[0] == 'm' && name[1] >= '0' && name[1] <= '9' ? eg_keep_take(d->keep, name) : -1;
        if (fd < 0) {
            i++;
            continue;
        }
        /* Whose it is may live, and not know that the list of members was lost: others get its partitions. */
        struct eg_member_page *page = map_page(fd);
        if (page != NULL) {
            say_out(page, EG_MEMBER_OUT);
            eg_unmap(page, PAGE_BYTES);
        }
        eg_keep_drop(d->keep, name);
        close(fd);
        i = 0; /* the list has changed */
    }
}

/* ---- the store ------------------------------------------------------------------------------------------ */

void eg_member_free(struct eg_daemon *d, struct eg_member *m) {
    struct eg_groups *all = d->groups;
    eg_names_put_all(all->names, m->topics, m->topic_count);
    eg_names_put_all(all->names, m->coming, m->coming_count);
    free(m->given);
    if (m->account != NULL) {
        m->account->used[EG_QUOTA_MEMBERS]--;
        eg_account_put(d, m->account);
    }
    free(m);
}

/* The store does not know them any more: so the next daemon will not look for their pages. */
static void dispose(struct eg_daemon *d) {
    struct eg_groups *all = d->groups;
    while (all->gone != NULL) {
        struct eg_member *m = all->gone;
        all->gone = m->next;
        if (m->number != 0 && all->by_number[m->number] == m)
            all->by_number[m->number] = NULL;
        eg_member_page_close(d, m, true);
        eg_member_free(d, m);
    }
}

int eg_members_save(struct eg_daemon *d, struct eg_group *g) {
    struct eg_members_store *s = d->groups->store;
    int rc = eg_members_store_begin(s);
    for (struct eg_member *m = d->groups->gone; rc == EAGRE_OK && m != NULL; m = m->next)
        rc = eg_members_store_remove_member(s, m);
    if (rc == EAGRE_OK && g != NULL)
        rc = eg_members_store_put_group(s, g);
    for (struct eg_member *m = g != NULL ? g->members : NULL; rc == EAGRE_OK && m != NULL; m = m->next)
        if (m->unsaved)
            rc = eg_members_store_put_member(s, m);
    int end = eg_members_store_commit(s);
    if (end != EAGRE_OK) {
        static struct eg_log_limit limit;
        eg_log_limited(&limit, EG_LOG_ERROR, "what members have cannot be noted, so nothing is given to them: %s",
                       eg_error_text());
        return end;
    }
    for (struct eg_member *m = g != NULL ? g->members : NULL; m != NULL; m = m->next) {
        m->unsaved = m->freed = false;
        if (m->client == NULL) /* what it had committed is noted with this */
            eg_member_page_close(d, m, true);
    }
    if (d->groups->gone != NULL)
        EG_FAULT("member.removed");
    dispose(d);
    return rc;
}
