#include "access.h"

#include "parse.h"
#include "sys/errbuf.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME_BUFFER 16384 /* what getpwnam_r and getgrnam_r may need */
#define GROUPS_MAX 65536  /* NGROUPS_MAX */

/* Id of a user or group, by number or name. 0, or -1: there is none. */
static int resolve(enum eg_access_kind kind, const char *name, uint32_t *id) {
    int64_t number;
    if (eg_parse_int(name, &number)) {
        if (number < 0 || number >= UINT32_MAX) /* the last one is "no id" */
            return -1;
        *id = (uint32_t)number;
        return 0;
    }
    char *buffer = malloc(NAME_BUFFER);
    if (buffer == NULL)
        return -1;
    int rc = -1;
    if (kind == EG_ACCESS_USER) {
        struct passwd entry, *found = NULL;
        if (getpwnam_r(name, &entry, buffer, NAME_BUFFER, &found) == 0 && found != NULL) {
            *id = found->pw_uid;
            rc = 0;
        }
    } else {
        struct group entry, *found = NULL;
        if (getgrnam_r(name, &entry, buffer, NAME_BUFFER, &found) == 0 && found != NULL) {
            *id = found->gr_gid;
            rc = 0;
        }
    }
    free(buffer);
    return rc;
}

static int parse_entry(struct eg_access_entry *e, const char *word, bool strict) {
    e->id = 0;
    if (strcmp(word, "*") == 0) {
        e->kind = EG_ACCESS_ANY;
        return EAGRE_OK;
    }
    if (strcmp(word, "creator") == 0) {
        e->kind = EG_ACCESS_CREATOR;
        return EAGRE_OK;
    }
    const char *name = strchr(word, ':');
    if (strncmp(word, "user:", 5) == 0)
        e->kind = EG_ACCESS_USER;
    else if (strncmp(word, "group:", 6) == 0)
        e->kind = EG_ACCESS_GROUP;
    else
        name = NULL;
    if (name == NULL || name[1] == '\0')
        return eg_error_set(
            EAGRE_E_INVALID_CONFIG,
            "'%s' is no entry of an access list: use *, creator, user:NAME, user:UID, "
            "group:NAME or group:GID, separated by commas",
            word);
    if (resolve(e->kind, name + 1, &e->id) == 0)
        return EAGRE_OK;
    if (strict)
        return eg_error_set(EAGRE_E_INVALID_CONFIG, "'%s': there is no such %s here", word,
                            e->kind == EG_ACCESS_USER ? "user" : "group");
    e->kind = EG_ACCESS_UNRESOLVED;
    return EAGRE_OK;
}

int eg_access_parse(struct eg_access *a, const char *text, bool strict) {
    struct eg_access parsed = {.count = 0};
    char word[EG_ACCESS_TEXT];
    size_t used = 0;
    for (const char *p = text; *p != '\0';) {
        size_t n = 0;
        while (*p == ' ' || *p == ',')
            p++;
        while (*p != '\0' && *p != ',' && *p != ' ' && n < sizeof(word) - 1)
            word[n++] = *p++;
        if (n == 0)
            break;
        word[n] = '\0';
        if (used + n + 2 > sizeof(parsed.text))
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "the access list is too long: at most %d characters; use a group",
                                EG_ACCESS_TEXT - 1);
        if (parsed.count == EG_ACCESS_ENTRIES)
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "the access list has over %d entries; use a group",
                                EG_ACCESS_ENTRIES);
        int rc = parse_entry(&parsed.entries[parsed.count], word, strict);
        if (rc != EAGRE_OK)
            return rc;
        if (parsed.count++ > 0)
            parsed.text[used++] = ',';
        memcpy(parsed.text + used, word, n);
        used += n;
        parsed.text[used] = '\0';
    }
    *a = parsed;
    return EAGRE_OK;
}

/* Is gid among the groups that the peer had when it connected? */
static bool in_groups(const struct eg_peer *peer, uint32_t gid) {
    if (peer->gid == gid)
        return true;
#ifdef SO_PEERGROUPS
    if (peer->sock < 0)
        return false;
    socklen_t size = 0;
    if (getsockopt(peer->sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0)
        return false; /* it has none */
    if (errno != ERANGE || size > GROUPS_MAX * sizeof(gid_t))
        return false;
    gid_t *groups = malloc(size);
    bool found = false;
    if (groups != NULL && getsockopt(peer->sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0) {
        for (size_t i = 0; i < size / sizeof(gid_t); i++)
            found |= groups[i] == gid;
    }
    free(groups);
    return found;
#else
    return false;
#endif
}

bool eg_access_allows(const struct eg_access *a, const struct eg_peer *peer, uid_t creator) {
    if (peer->uid == 0 || peer->uid == geteuid())
        return true;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct eg_access_entry *e = &a->entries[i];
        if (e->kind == EG_ACCESS_ANY || (e->kind == EG_ACCESS_USER && e->id == peer->uid) ||
            (e->kind == EG_ACCESS_CREATOR && peer->uid == creator) ||
            (e->kind == EG_ACCESS_GROUP && in_groups(peer, e->id)))
            return true;
    }
    return false;
}
