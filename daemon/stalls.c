#include "stalls.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clients.h"
#include "log/chain.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define LOOKS 3u       /* a pin cell that was the same so often is suspect */
#define STEPS 4096u    /* frames a look */
#define PROOFS 4u      /* looks in a row that must say the same before somebody is killed */
#define TICK_NS (200 * EG_NS_PER_US)
#define PERIOD_MIN_NS EG_NS_PER_MS
#define REPORT_MAX_NS (3600 * EG_NS_PER_S)

/* A client's pin cells as last seen, and how often in a row. */
struct eg_pin_looks {
    uint64_t pin[EG_CLIENT_PINS];
    uint8_t count[EG_CLIENT_PINS];
};

/* One partition that is watched. */
struct eg_stall {
    struct eg_stall *next;
    uint32_t index; /* of the partition ... */
    uint32_t uid;   /* ... which may be gone */
    uint64_t seq;
    uint64_t pos; /* first unpublished frame; 0: not found (yet) */
    uint64_t word;
    int64_t offset;
    int64_t since_ns; /* found */
    uint8_t looks;    /* rounds since then: as often the pin cells were looked at */
    bool round;       /* this one's is still to be counted */
    uint32_t pid;     /* 0: of nobody who may produce there */
    bool reported;
    int64_t report_ns, wait_ns;
    bool killed, refused;
    struct eg_chain beyond; /* on its way to the chain's end, counting the owner's claims */
    uint32_t claims, proofs;
    bool more; /* it wants to go on at once */
};

struct eg_stalls {
    struct eg_stall *first;
    int64_t next_ns;
    uint32_t owner; /* next one to look at in this round */
    size_t topic;
    bool suspects;
    uint32_t reported;
    uint64_t stalls, kills;
};

/* ---- what is watched -------------------------------------------------------------------------------- */

static bool is_hot(const struct eg_partition *p, uint64_t seq) {
    return p->buffers != NULL && !eg_partition_failed(p) && seq >= p->first &&
           (seq > p->first || p->retire == EG_RETIRE_NOT) && eg_partition_buffer_of(p, seq) != EG_NO_BUFFER;
}

static void begin(struct eg_stall *s, uint64_t seq) {
    *s = (struct eg_stall){.next = s->next, .index = s->index, .uid = s->uid, .seq = seq};
}

static void watch(struct eg_daemon *d, struct eg_partition *p, uint64_t seq) {
    struct eg_stall *s = p->stall;
    if (!is_hot(p, seq) || (s != NULL && s->seq <= seq))
        return; /* readers wait at the first one */
    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        if (s == NULL)
            return;
        *s = (struct eg_stall){.next = d->stalls->first, .index = p->index, .uid = p->uid};
        d->stalls->first = p->stall = s;
    }
    d->stalls->reported -= s->reported;
    begin(s, seq);
}

static void look_at_pins(struct eg_daemon *d, struct eg_client *c) {
    const uint32_t cells = eg_client_cells(c);
    for (uint32_t k = 0; k < cells; k++) {
        uint64_t pin = eg_load_acquire(&c->page->pin[k].pin);
        if (c->looks == NULL) {
            if (!eg_pin_is_producer(pin))
                continue;
            c->looks = calloc(1, sizeof(*c->looks));
            if (c->looks == NULL)
                return;
        }
        uint8_t *count = &c->looks->count[k];
        if (pin != c->looks->pin[k] || !eg_pin_is_producer(pin)) {
            c->looks->pin[k] = pin;
            *count = 0;
            continue;
        }
        *count += *count < UINT8_MAX;
        d->stalls->suspects = true;
        /* A client may write any index to its page: it counts where it may produce. */
        uint32_t index = eg_pin_index_plus_1(pin);
        struct eg_partition *p = index > 0 && index <= EG_PARTITIONS_MAX ? d->topics->by_index[index - 1] : NULL;
        if (*count >= LOOKS && p != NULL && eg_client_may_produce(c, p->topic))
            watch(d, p, eg_pin_seq(pin));
    }
}

/* writers=single: has the tail come to rest, and is it not known that all before is published? */
static void look_at_single(struct eg_daemon *d, struct eg_topic *t) {
    for (uint32_t k = 0; k < t->partitions; k++) {
        struct eg_partition *p = t->part[k];
        if (!is_hot(p, p->active))
            continue;
        uint64_t hint = eg_load_relaxed(&eg_buffer_header(p, eg_partition_buffer_of(p, p->active))->hint);
        if (hint == p->single_hint && (p->stable.seq != p->active || p->stable.pos != eg_hint_pos(hint)))
            watch(d, p, p->active);
        p->single_hint = hint;
    }
}

/* False: time is up. */
static bool look_at_producers(struct eg_daemon *d, int64_t stop) {
    struct eg_stalls *all = d->stalls;
    for (; all->owner <= d->clients->top; all->owner++) {
        struct eg_client *c = d->clients->by_owner[all->owner];
        if (c == NULL || c->burying)
            continue;
        if (eg_mono_ns() >= stop)
            return false;
        look_at_pins(d, c);
    }
    for (; all->topic < d->topics->count; all->topic++) {
        struct eg_topic *t = d->topics->list[all->topic];
        if (t->settings.v[EG_SET_WRITERS] != EG_WRITERS_SINGLE || t->client_count == 0)
            continue;
        if (eg_mono_ns() >= stop)
            return false;
        look_at_single(d, t);
    }
    return true;
}

/* ---- what is told ----------------------------------------------------------------------------------- */

/* The letter of /proc/PID/stat; 0: it is gone, or hidden. */
static char state_of(int32_t pid) {
    char path[32], line[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
    if (fd >= 0)
        close(fd);
    line[n < 0 ? 0 : n] = '\0';
    const char *end = strrchr(line, ')'); /* the name before it may hold anything */
    return end != NULL && end[1] == ' ' ? end[2] : 0;
}

static void say(const struct eg_partition *p, const struct eg_stall *s, const struct eg_client *c, bool pinned,
                int64_t age_ns) {
    char who[160], what[200];
    char state = c == NULL ? 0 : state_of(c->entry->pid);
    if (c == NULL) {
        snprintf(who, sizeof(who), "client %u", eg_word_owner(s->word));
        snprintf(what, sizeof(what), "that is no producer of this topic: one of its producers wrote nonsense there; "
                                     "delete the topic and create it again");
    } else {
        snprintf(who, sizeof(who), "pid %d (%.63s, client %u)", (int)c->entry->pid, c->entry->name, c->entry->owner);
        if (!pinned)
            snprintf(what, sizeof(what), "but it does not use that segment: one of the topic's producers wrote a "
                                         "false number there; delete the topic and create it again");
        else if (state == 'T' || state == 't')
            snprintf(what, sizeof(what), "it is stopped (SIGSTOP or a debugger): let it go on (kill -CONT %d), or end it",
                     (int)c->entry->pid);
        else if (state == 0 || state == 'Z' || state == 'X')
            snprintf(what, sizeof(what), "it has ended, but another process holds the lock on its client page");
        else
            snprintf(what, sizeof(what), "it runs and holds a claim open: it is to commit or abort it");
    }
    eg_log_warning("topic '%s' partition %u: for %.1f s readers wait at offset %" PRId64
                   " for a record that %s has begun and not published: %s",
                   eg_topic_name(p->topic), p->number, (double)age_ns / 1e9, s->offset, who, what);
}

static void report(struct eg_daemon *d, const struct eg_partition *p, struct eg_stall *s, const struct eg_client *c,
                   bool pinned, int64_t now) {
    int64_t warn = d->config.stall_warn_ms * EG_NS_PER_MS;
    if (!s->reported) {
        s->reported = true;
        s->wait_ns = warn;
        d->stalls->reported++;
        d->stalls->stalls++;
    } else if (now < s->report_ns) {
        return;
    }
    say(p, s, c, pinned, now - s->since_ns);
    s->report_ns = now + s->wait_ns; /* again when it has lasted twice as long */
    s->wait_ns = s->wait_ns < REPORT_MAX_NS / 2 ? 2 * s->wait_ns : REPORT_MAX_NS;
}

static void say_end(struct eg_daemon *d, const struct eg_partition *p, struct eg_stall *s, int64_t now,
                    const char *how) {
    if (s->reported) {
        eg_log_info("topic '%s' partition %u: readers need not wait at offset %" PRId64 " any more, after %.1f s: %s",
                    eg_topic_name(p->topic), p->number, s->offset, (double)(now - s->since_ns) / 1e9, how);
        d->stalls->reported--;
        s->reported = false;
    }
}

/* ---- what is done ----------------------------------------------------------------------------------- */

/* Pins of c on the segment; *steady: one of them was there at every look. */
static uint32_t count_pins(const struct eg_partition *p, const struct eg_stall *s, const struct eg_client *c,
                           bool *steady) {
    uint64_t wanted = eg_pin_make(true, p->index, s->seq);
    uint32_t n = 0;
    *steady = false;
    for (uint32_t k = 0; k < EG_CLIENT_PINS; k++) {
        if (eg_load_acquire(&c->page->pin[k].pin) != wanted)
            continue;
        n++;
        *steady |= c->looks != NULL && c->looks->pin[k] == wanted && c->looks->count[k] >= s->looks;
    }
    return n;
}

/* Is it really c's? Its claims from there on, against its pins: a slice. */
static bool is_proved(const struct eg_partition *p, struct eg_stall *s, const struct eg_client *c) {
    uint32_t steps = STEPS;
    bool steady;
    if (s->beyond.base == NULL) {
        s->beyond = eg_partition_chain(p, eg_partition_buffer_of(p, s->seq), s->seq);
        s->beyond.pos = s->pos;
        s->claims = 0;
    }
    enum eg_chain_at at;
    while ((at = eg_chain_walk(&s->beyond, &steps)) == EG_CHAIN_CLAIMED) {
        s->claims += eg_word_owner(s->beyond.word) == c->entry->owner;
        eg_chain_pass(&s->beyond);
    }
    s->more = at == EG_CHAIN_MORE;
    if (s->more)
        return false;
    s->beyond.base = NULL;
    uint32_t pins = count_pins(p, s, c, &steady);
    s->proofs = steady && s->claims <= pins ? s->proofs + 1 : 0;
    return s->proofs >= PROOFS;
}

/* Could the client's user kill it, too? A connection may outlive who opened it, in a fork child, and the pid be
 * another's by then. */
static bool is_its_users(const struct eg_client *c) {
    char path[32], line[128];
    unsigned real, effective, saved;
    bool its = false;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)c->entry->pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Uid: %u %u %u", &real, &effective, &saved) == 3)
            its = real == c->entry->uid || saved == c->entry->uid;
    if (f != NULL)
        fclose(f);
    return its || c->entry->uid == 0;
}

static void end(struct eg_daemon *d, const struct eg_partition *p, struct eg_stall *s, const struct eg_client *c) {
    const struct eg_client_entry *e = c->entry;
    const char *why;
    if (c->watch.fd < 0)
        why = "its process cannot be seen from here";
    else if (!is_its_users(c))
        why = "the process of that number is another user's";
    else if (syscall(SYS_pidfd_send_signal, c->watch.fd, SIGKILL, NULL, 0) == 0)
        why = NULL;
    else
        why = errno != EPERM ? strerror(errno) : "not permitted: run eagred as root or as that user, or give it CAP_KILL";
    if (why == NULL) {
        eg_log_warning("topic '%s' partition %u: pid %d (%s, client %u) was killed: stall.kill=true, and readers waited "
                       "at offset %" PRId64 " for it",
                       eg_topic_name(p->topic), p->number, (int)e->pid, e->name, e->owner, s->offset);
        s->killed = true;
        d->stalls->kills++;
        return;
    }
    eg_log_error("topic '%s' partition %u: stall.kill=true, but pid %d (%s, client %u, user %u) cannot be killed: %s",
                 eg_topic_name(p->topic), p->number, (int)e->pid, e->name, e->owner, (unsigned)e->uid, why);
    s->refused = true;
}

/* The claim at s->pos still stands. */
static void judge(struct eg_daemon *d, const struct eg_partition *p, struct eg_stall *s, int64_t now) {
    uint32_t owner = eg_word_owner(s->word);
    struct eg_client *c = owner <= EG_CLIENTS_MAX ? d->clients->by_owner[owner] : NULL;
    bool single = p->topic->settings.v[EG_SET_WRITERS] == EG_WRITERS_SINGLE, steady = false;
    if (c != NULL && c->burying)
        return; /* it becomes a pad */
    if (c != NULL && !eg_client_may_produce(c, p->topic))
        c = NULL;
    bool pinned = c != NULL && count_pins(p, s, c, &steady) > 0;
    s->pid = c != NULL ? (uint32_t)c->entry->pid : 0;
    s->more = false;
    if (now - s->since_ns < d->config.stall_warn_ms * EG_NS_PER_MS)
        return;
    report(d, p, s, c, pinned || single, now);
    /* Without pins nothing proves whose claim it is. */
    if (d->config.stall_kill && pinned && steady && !s->killed && !s->refused && is_proved(p, s, c))
        end(d, p, s, c);
}

/* False: there is nothing to watch any more. */
static bool look(struct eg_daemon *d, struct eg_partition *p, struct eg_stall *s, int64_t now) {
    uint32_t steps = STEPS;
    if (!is_hot(p, s->seq)) {
        say_end(d, p, s, now, "retention has let it go");
        return false;
    }
    struct eg_chain c = eg_partition_chain(p, eg_partition_buffer_of(p, s->seq), s->seq);
    enum eg_chain_at at = eg_chain_walk(&c, &steps);
    eg_partition_walked(p, s->seq, &c);
    s->more = at == EG_CHAIN_MORE;
    if (s->pos != 0 && (c.pos != s->pos || at != EG_CHAIN_CLAIMED || c.word != s->word)) {
        say_end(d, p, s, now, "it was published, or given up");
        begin(s, s->seq);
        s->more = at == EG_CHAIN_MORE;
    }
    if (at == EG_CHAIN_BAD)
        eg_partition_fail(p, "segment %" PRIu64 ", position %" PRIu64 ": %016" PRIx64 " is no frame word", s->seq,
                          c.pos, c.word);
    if (at != EG_CHAIN_CLAIMED)
        return s->more;
    if (s->pos == 0) {
        s->pos = c.pos;
        s->word = c.word;
        s->offset = p->base[s->seq % eg_partition_slots(p)] + (int64_t)c.index;
        s->since_ns = now;
    } else {
        s->looks += s->round && s->looks < UINT8_MAX;
    }
    s->round = false;
    judge(d, p, s, now);
    return true;
}

/* Those that want it. True: somebody still does. */
static bool look_at_watched(struct eg_daemon *d, int64_t now, int64_t stop) {
    bool more = false;
    for (struct eg_stall **at = &d->stalls->first, *s; (s = *at) != NULL;) {
        struct eg_partition *p = d->topics->by_index[s->index];
        bool gone = p == NULL || p->uid != s->uid;
        if (!gone && (!s->more || eg_mono_ns() >= stop)) {
            more |= s->more;
            at = &s->next;
            continue;
        }
        if (!gone && look(d, p, s, now)) {
            more |= s->more;
            at = &s->next;
            continue;
        }
        d->stalls->reported -= s->reported;
        if (!gone)
            p->stall = NULL;
        *at = s->next;
        free(s);
    }
    return more;
}

/* ---- the service ------------------------------------------------------------------------------------ */

static int64_t tick(struct eg_daemon *d, int64_t now) {
    struct eg_stalls *all = d->stalls;
    int64_t warn = d->config.stall_warn_ms * EG_NS_PER_MS, stop = now + TICK_NS;
    if (warn <= 0 || (d->clients->count == 0 && all->first == NULL))
        return INT64_MAX;
    if (now < all->next_ns) {
        /* In the middle of a long chain. */
        return all->first != NULL && look_at_watched(d, now, stop) ? 0 : all->next_ns;
    }
    if (all->owner == 0)
        all->suspects = false;
    if (!look_at_producers(d, stop))
        return 0;
    all->owner = 0;
    all->topic = 0;
    for (struct eg_stall *s = all->first; s != NULL; s = s->next)
        s->more = s->round = true;
    bool more = look_at_watched(d, now, stop);
    int64_t period = all->first != NULL || all->suspects ? warn / 16 : warn / 4;
    all->next_ns = now + (period > PERIOD_MIN_NS ? period : PERIOD_MIN_NS);
    return more ? 0 : all->next_ns;
}

static int start(struct eg_daemon *d) {
    d->stalls = calloc(1, sizeof(*d->stalls));
    return d->stalls != NULL ? EAGRE_OK : eg_error_set(EAGRE_E_NO_MEMORY, "no memory for the stalls");
}

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    for (struct eg_stall *s; d->stalls != NULL && (s = d->stalls->first) != NULL;) {
        d->stalls->first = s->next;
        free(s);
    }
    free(d->stalls);
    d->stalls = NULL;
}

const struct eg_service eg_stalls_service = {.name = "stalls", .start = start, .tick = tick, .stop = stop};

/* ---- figures ---------------------------------------------------------------------------------------- */

bool eg_stall_of(const struct eg_partition *p, struct eg_stall_info *out) {
    const struct eg_stall *s = p->stall;
    if (s == NULL || !s->reported)
        return false;
    *out = (struct eg_stall_info){.topic = eg_topic_name(p->topic),
                                  .partition = p->number,
                                  .offset = s->offset,
                                  .pid = (int32_t)s->pid,
                                  .ms = (eg_mono_ns() - s->since_ns) / EG_NS_PER_MS};
    return true;
}

uint32_t eg_stalls_now(const struct eg_daemon *d, struct eg_stall_info *oldest) {
    *oldest = (struct eg_stall_info){.topic = ""};
    for (const struct eg_stall *s = d->stalls->first; s != NULL; s = s->next) {
        const struct eg_partition *p = d->topics->by_index[s->index];
        struct eg_stall_info info;
        if (p != NULL && p->uid == s->uid && eg_stall_of(p, &info) && info.ms >= oldest->ms)
            *oldest = info;
    }
    return d->stalls->reported;
}

void eg_stalls_so_far(const struct eg_daemon *d, uint64_t *stalls, uint64_t *kills) {
    *stalls = d->stalls->stalls;
    *kills = d->stalls->kills;
}
