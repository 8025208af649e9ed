/*
 * kept.h - what eagre-keeper holds of a bus whose daemon is dead, mapped for reading. Nothing of it can be changed from
 * here: each descriptor is opened again for reading only, and the keeper is asked to list, nothing else. The next
 * daemon finds all as it was.
 *
 * What is found there is untrusted: the owner of a topic's memory may be gone, or never have been honest.
 */
#ifndef EAGRE_TOOLS_KEPT_H
#define EAGRE_TOOLS_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/keeper.h"

struct kept_object {
    char name[EG_KEPT_NAME];
    int fd; /* for reading only */
    size_t bytes;
};

struct kept {
    struct kept_object *objects;
    size_t count;
};

/* socket: the daemon's. EAGRE_E_BUSY while a daemon runs; EAGRE_E_NO_DAEMON: no keeper is there. */
int kept_open(struct kept *k, const char *socket);
void kept_close(struct kept *k);

const struct kept_object *kept_find(const struct kept *k, const char *name); /* NULL: none */
/* All of it. Where it has no memory there are zeros, and looking at them takes none. */
int kept_map(const struct kept_object *o, void **at);

#endif
