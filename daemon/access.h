/*
 * access.h - access lists: who may produce to, consume from or administer a topic.
 *
 * A list is text, entries separated by commas: "*" (everybody), "user:NAME", "user:UID",
 * "group:NAME", "group:GID", "creator" (who created the topic). The empty list: nobody. Root and the
 * daemon's own user are always allowed: they could not be kept out.
 */
#ifndef EG_ACCESS_H
#define EG_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EG_ACCESS_TEXT 256
#define EG_ACCESS_ENTRIES 32

enum eg_access_kind {
    EG_ACCESS_ANY = 1,
    EG_ACCESS_USER,
    EG_ACCESS_GROUP,
    EG_ACCESS_CREATOR,
    EG_ACCESS_UNRESOLVED
};

struct eg_access {
    char text[EG_ACCESS_TEXT]; /* as it was given, without blanks */
    uint32_t count;
    struct eg_access_entry {
        enum eg_access_kind kind;
        uint32_t id;
    } entries[EG_ACCESS_ENTRIES];
};

/*
 * Parse a list. The detail of a failure says which entry is wrong and what it may be. A user or group
 * that is not known here is a failure if strict, else an entry that matches nobody (it may have
 * been deleted since the list was set).
 */
int eg_access_parse(struct eg_access *a, const char *text, bool strict);

/* Who asks. */
struct eg_peer {
    uid_t uid;
    gid_t gid;
    int sock; /* its connection, to ask for supplementary groups; -1: there are none */
};

bool eg_access_allows(const struct eg_access *a, const struct eg_peer *peer, uid_t creator);

#endif
