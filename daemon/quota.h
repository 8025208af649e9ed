/*
 * quota.h - what each Unix user has of what the instance has for all: one account a user, kept up by who
 * gives and takes. Nothing of it is stored: a successor counts anew what it takes over.
 *
 * Connections, clients, bells and members are counted for everybody. What topics take is counted against
 * who created them, groups against who made them, and that does not bind root and the daemon's own user: theirs are
 * the limits of the instance.
 */
#ifndef EG_QUOTA_H
#define EG_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct eg_daemon;

enum eg_quota {
    EG_QUOTA_CONNECTIONS,
    EG_QUOTA_CLIENTS,
    EG_QUOTA_BELLS,
    EG_QUOTA_TOPICS,
    EG_QUOTA_BUFFERS, /* descriptors: those of the rings, and those beyond that pins make necessary */
    EG_QUOTA_GROUPS,
    EG_QUOTA_MEMBERS, /* of groups */
    EG_QUOTA_MEMORY,  /* bytes that topics may grow to, and those of buffers beyond the rings */
    EG_QUOTAS
};

struct eg_account {
    struct eg_account *next;
    uid_t uid;
    uint32_t holders; /* sessions, clients and topics that point here */
    uint64_t used[EG_QUOTAS];
};

/* The account of a user, made if it has none; to be put back. NULL, with a detail: no memory. */
struct eg_account *eg_account_take(struct eg_daemon *d, uid_t uid);
void eg_account_put(struct eg_daemon *d, struct eg_account *a);

/* What the user may have; UINT64_MAX: no quota holds for it. */
uint64_t eg_quota_limit(const struct eg_daemon *d, const struct eg_account *a, enum eg_quota q);
/* May it have so much more? EAGRE_E_LIMIT, naming setting, figures and user. */
int eg_quota_check(const struct eg_daemon *d, const struct eg_account *a, enum eg_quota q,
                   uint64_t more);

/* "memory 1 GiB of 1 GiB, topics 3 of 256" of what user a has at least four fifths used of; false: of none. */
bool eg_quota_nearly_used(const struct eg_daemon *d, const struct eg_account *a, char *buf,
                          size_t cap);

#endif
