#include "quota.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon.h"
#include "parse.h"
#include "sys/errbuf.h"

static const struct {
    const char *name, *what, *advice;
} quotas[EG_QUOTAS] = {
    [EG_QUOTA_CONNECTIONS] = {"connections", "connections", "close connections"},
    [EG_QUOTA_CLIENTS] = {"clients", "clients", "close clients"},
    [EG_QUOTA_BELLS] = {"bells", "consumers that sleep", "close consumers"},
    [EG_QUOTA_TOPICS] = {"topics", "topics", "delete topics"},
    [EG_QUOTA_BUFFERS] = {"buffers", "buffers in topics (partitions x ring.segments)",
                          "lower ring.segments, delete topics"},
    [EG_QUOTA_GROUPS] = {"groups", "consumer groups", "delete groups"},
    [EG_QUOTA_MEMBERS] = {"members", "members of groups", "close consumers"},
    [EG_QUOTA_MEMORY] = {"memory", "in topics", "lower segment.bytes, delete topics"},
};

struct eg_account *eg_account_take(struct eg_daemon *d, uid_t uid) {
    struct eg_account *a = d->accounts;
    while (a != NULL && a->uid != uid)
        a = a->next;
    if (a == NULL) {
        a = calloc(1, sizeof(*a));
        if (a == NULL) {
            eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the account of user %u", (unsigned)uid);
            return NULL;
        }
        a->uid = uid;
        a->next = d->accounts;
        d->accounts = a;
    }
    a->holders++;
    return a;
}

void eg_account_put(struct eg_daemon *d, struct eg_account *a) {
    if (a == NULL || --a->holders > 0)
        return;
    struct eg_account **link = &d->accounts;
    while (*link != a)
        link = &(*link)->next;
    *link = a->next;
    free(a);
}

uint64_t eg_quota_limit(const struct eg_daemon *d, const struct eg_account *a, enum eg_quota q) {
    const struct eg_config *c = &d->config;
    bool bound = a->uid != 0 && a->uid != geteuid();
    switch (q) {
    case EG_QUOTA_CONNECTIONS:
        return c->connections_max_per_uid;
    case EG_QUOTA_CLIENTS:
        return c->clients_max_per_uid;
    case EG_QUOTA_BELLS:
        return c->bells_max_per_uid;
    case EG_QUOTA_MEMBERS:
        return c->members_max_per_uid;
    case EG_QUOTA_GROUPS:
        return bound ? c->groups_max_per_uid : UINT64_MAX;
    case EG_QUOTA_TOPICS:
        return bound ? c->topics_max_per_uid : UINT64_MAX;
    case EG_QUOTA_BUFFERS:
        return bound ? c->buffers_max_per_uid : UINT64_MAX;
    case EG_QUOTA_MEMORY:
    case EG_QUOTAS:
        break;
    }
    return bound ? c->memory_max_per_uid : UINT64_MAX;
}

static const char *amount(enum eg_quota q, uint64_t n, char *buf, size_t cap) {
    if (q == EG_QUOTA_MEMORY)
        return eg_format_size(n, buf, cap);
    snprintf(buf, cap, "%" PRIu64, n);
    return buf;
}

int eg_quota_check(const struct eg_daemon *d, const struct eg_account *a, enum eg_quota q,
                   uint64_t more) {
    char limit[32], has[32], wants[32];
    uint64_t max = eg_quota_limit(d, a, q), used = a->used[q];
    if (more == 0 || (used <= max && more <= max - used))
        return EAGRE_OK;
    if (q == EG_QUOTA_MEMORY)
        eg_print_size(max, limit, sizeof(limit));
    else
        amount(q, max, limit, sizeof(limit));
    return eg_error_set(EAGRE_E_LIMIT,
                        "%s.max.per.uid=%s is reached by user %u, who has %s %s and wants %s more: %s, "
                        "or raise it",
                        quotas[q].name, limit, (unsigned)a->uid, amount(q, used, has, sizeof(has)),
                        quotas[q].what, amount(q, more, wants, sizeof(wants)), quotas[q].advice);
}

bool eg_quota_nearly_used(const struct eg_daemon *d, const struct eg_account *a, char *buf,
                          size_t cap) {
    char has[32], max[32];
    size_t n = 0;
    for (enum eg_quota q = 0; q < EG_QUOTAS && n < cap; q++) {
        uint64_t limit = eg_quota_limit(d, a, q);
        if (limit == UINT64_MAX || a->used[q] < limit - limit / 5)
            continue;
        n += (size_t)snprintf(buf + n, cap - n, "%s%s %s of %s", n > 0 ? ", " : "", quotas[q].name,
                              amount(q, a->used[q], has, sizeof(has)),
                              amount(q, limit, max, sizeof(max)));
    }
    return n > 0;
}
