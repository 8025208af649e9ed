#include "janitor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "burial.h"
#include "groups.h"
#include "sys/clock.h"
#include "sys/liveness.h"

#define LOOK_NS (100 * EG_NS_PER_MS)   /* one witness alone: look again, at growing intervals ... */
#define LOOK_MAX_NS (10 * EG_NS_PER_S) /* ... up to this */
#define TICK_NS (200 * EG_NS_PER_US)

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
    /* Who is dying closes its descriptors before its pidfd says so: not at the first look. */
    if ((gone || (unlocked && c->session == NULL)) && !c->reported && c->look_wait_ns > 0) {
        c->reported = true;
        eg_log_warning("client %u (%s, pid %d): %s: nothing is done about it", e->owner, e->name,
                       (int)e->pid,
                       gone ? "its process has ended, but its page is locked by another"
                            : "it has closed its connection and its lock, but lives and has memory "
                              "of topics in use");
    }
    return EG_VERDICT_LIVES;
}

/* ---- the service --------------------------------------------------------------------------------- */

/* One witness alone, or a session that is not back yet: look again. */
static void look_again(struct eg_client *c, int64_t now) {
    bool suspect = c->session == NULL || (c->watch.fd >= 0 && eg_pidfd_is_dead(c->watch.fd));
    c->look_wait_ns = c->look_wait_ns == 0 ? LOOK_NS : 2 * c->look_wait_ns;
    if (c->look_wait_ns > LOOK_MAX_NS)
        c->look_wait_ns = LOOK_MAX_NS;
    if (suspect || c->watch.fd < 0)
        c->look_ns = now + c->look_wait_ns;
    else
        c->look_wait_ns = 0;
}

static void look_at(struct eg_daemon *d, struct eg_client *c, int64_t now) {
    c->look_ns = INT64_MAX;
    /* DEAD stays dead: a predecessor had two witnesses, and some of the claims may be pads already. */
    if (eg_load_relaxed(&c->entry->state) != EG_CLIENT_DEAD && eg_client_verdict(c) == EG_VERDICT_LIVES) {
        look_again(c, now);
    } else {
        eg_groups_client_gone(d, c); /* before its repair: others are to have its partitions at once */
        if (!eg_client_bury(d, c))
            c->look_ns = now + LOOK_NS; /* memory is short: try again */
    }
}

static int64_t tick(struct eg_daemon *d, int64_t now) {
    struct eg_clients *all = d->clients;
    int64_t stop = now + TICK_NS, due = INT64_MAX;
    if (now >= all->look_ns) {
        all->look_ns = INT64_MAX;
        for (uint32_t o = 1; o <= all->top; o++) {
            struct eg_client *c = all->by_owner[o];
            if (c == NULL || c->burying)
                continue;
            if (c->look_ns <= now && eg_mono_ns() < stop)
                look_at(d, c, now);
            if (c->look_ns < all->look_ns)
                all->look_ns = c->look_ns;
        }
    }
    if (all->repairs != NULL || all->dying != NULL || all->ring)
        due = eg_burials_work(d, now, stop + TICK_NS);
    return all->look_ns < due ? all->look_ns : due;
}

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    eg_burials_forget(d);
}

const struct eg_service eg_janitor_service = {.name = "janitor", .tick = tick, .stop = stop};
