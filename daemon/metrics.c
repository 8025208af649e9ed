/* metrics.c - STATUS: what the instance is and how it does, as names and texts. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef HAVE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif
#ifdef HAVE_LIBNUMA
#include <numa.h>
#endif

#include "archive.h"
#include "disk_io.h"
#include "handlers.h"
#include "partition.h"
#include "stalls.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

#define METRICS_MAX 64
#define USERS_MAX 8 /* whose quotas are nearly used up: so many are told */

struct metrics {
    size_t count;
    const char *name[METRICS_MAX];
    char value[METRICS_MAX][256];
    char user[USERS_MAX][24];
};

static void text(struct metrics *m, const char *name, const char *value) {
    m->name[m->count] = name;
    snprintf(m->value[m->count++], sizeof(m->value[0]), "%.255s", value);
}

static void number(struct metrics *m, const char *name, uint64_t value) {
    m->name[m->count] = name;
    snprintf(m->value[m->count++], sizeof(m->value[0]), "%" PRIu64, value);
}

static void allocator(struct metrics *m) {
#ifdef HAVE_JEMALLOC
    static const struct {
        const char *name, *key;
    } sizes[] = {{"jemalloc.allocated", "stats.allocated"},
                 {"jemalloc.resident", "stats.resident"}};
    const char *version;
    uint64_t epoch = 1;
    size_t n = sizeof(version);
    if (mallctl("version", &version, &n, NULL, 0) == 0)
        text(m, "jemalloc.version", version);
    mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)); /* takes the statistics anew */
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t value;
        n = sizeof(value);
        if (mallctl(sizes[i].key, &value, &n, NULL, 0) == 0)
            number(m, sizes[i].name, value);
    }
#else
    (void)m;
#endif
}

static void quotas(const struct eg_daemon *d, struct metrics *m) {
    size_t n = 0;
    for (const struct eg_account *a = d->accounts; a != NULL && n < USERS_MAX; a = a->next) {
        char line[256];
        if (!eg_quota_nearly_used(d, a, line, sizeof(line)))
            continue;
        snprintf(m->user[n], sizeof(m->user[n]), "quota.user.%u", (unsigned)a->uid);
        text(m, m->user[n++], line);
    }
}

/* What is published and not durable; by the producers' words, for people. */
static void lag(const struct eg_partition *p, uint64_t *records, uint64_t *bytes) {
    if (p->buffers == NULL || eg_partition_failed(p))
        return;
    uint32_t slot = (uint32_t)(p->active % eg_partition_slots(p));
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&p->status->slot[slot]));
    uint64_t hint = eg_load_relaxed(&eg_buffer_header(p, n)->hint);
    int64_t behind = p->base[slot] + (int64_t)eg_hint_index(hint) - (int64_t)eg_load_relaxed(&p->status->durable_end);
    uint64_t seq = eg_load_relaxed(&p->status->archived_seq), at = eg_hint_pos(eg_load_relaxed(&p->status->archived_at));
    uint64_t end = p->active * eg_partition_capacity(p) + p->tail, from = seq * eg_partition_capacity(p) + at;
    *records += behind > 0 ? (uint64_t)behind : 0;
    *bytes += behind > 0 && end > from ? end - from : 0;
}

/* What is on its way to disk. */
static void disk(const struct eg_daemon *d, struct metrics *m) {
    uint64_t state[EG_DISK_ERROR + 1] = {0}, records = 0, bytes = 0;
    for (size_t i = 0; i < d->topics->count; i++)
        for (uint32_t k = 0; k < d->topics->list[i]->partitions; k++) {
            const struct eg_partition *p = d->topics->list[i]->part[k];
            if (p->archive == NULL)
                break; /* all of a topic's are alike */
            state[eg_load_relaxed(&p->status->disk) % (EG_DISK_ERROR + 1)]++;
            lag(p, &records, &bytes);
        }
    text(m, "disk.io", eg_io_kind(d->disk_io));
    number(m, "disk.state.ok", state[EG_DISK_OK]);
    number(m, "disk.state.full", state[EG_DISK_FULL]);
    number(m, "disk.state.error", state[EG_DISK_ERROR]);
    number(m, "disk.lag.records", records);
    number(m, "disk.lag.bytes", bytes);
    number(m, "disk.written.bytes", d->figures.disk_bytes);
    number(m, "disk.flushes", d->figures.flushes);
    number(m, "disk.flush.last.us", (uint64_t)(d->figures.flush_last_ns / EG_NS_PER_US));
    number(m, "disk.flush.max.us", (uint64_t)(d->figures.flush_max_ns / EG_NS_PER_US));
}

static uint64_t numa_nodes(void) {
#ifdef HAVE_LIBNUMA
    if (numa_available() >= 0)
        return (uint64_t)numa_num_configured_nodes();
#endif
    return 1;
}

static uint64_t milliseconds(struct timeval t) {
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_usec / 1000;
}

static void collect(const struct eg_daemon *d, struct metrics *m) {
    const struct eg_figures *f = &d->figures;
    char id[20];
    struct rusage use;
    struct eg_stall_info stall;
    uint64_t stalls, kills;
    snprintf(id, sizeof(id), "%016" PRIx64, d->instance_id);
    getrusage(RUSAGE_SELF, &use);

    text(m, "version", EG_VERSION);
    number(m, "pid", (uint64_t)getpid());
    text(m, "keeper", eg_keep_kind(d->keep));
    number(m, "keeper.pid", (uint64_t)eg_keep_pid(d->keep));
    number(m, "uptime.ms", (uint64_t)((eg_mono_ns() - d->started_ns) / EG_NS_PER_MS));
    number(m, "epoch", d->epoch);
    text(m, "instance.id", id);
    text(m, "socket", d->config.socket);
    text(m, "dir", d->config.dir);
    number(m, "memory.max", d->config.memory_max);
    number(m, "memory.committed", f->memory_committed);
    number(m, "memory.allocated", f->memory_allocated);
    number(m, "memory.pinned", f->memory_pinned);
    number(m, "topics", f->topics);
    number(m, "partitions", f->partitions);
    number(m, "clients", f->clients);
    number(m, "sessions", f->sessions);
    number(m, "stalls", eg_stalls_now(d, &stall));
    number(m, "stalls.oldest.ms", (uint64_t)stall.ms);
    text(m, "stalls.oldest.topic", stall.topic);
    number(m, "stalls.oldest.partition", stall.partition);
    number(m, "stalls.oldest.offset", (uint64_t)stall.offset);
    number(m, "stalls.oldest.pid", (uint64_t)stall.pid);
    eg_stalls_so_far(d, &stalls, &kills);
    number(m, "stalls.total", stalls);
    number(m, "stalls.killed", kills);
    number(m, "groups", f->groups);
    number(m, "members", f->members);
    number(m, "rebalances", f->rebalances);
    number(m, "rebalance.last.ns", (uint64_t)f->rebalance_last_ns);
    number(m, "rebalance.max.ns", (uint64_t)f->rebalance_max_ns);
    disk(d, m);
    number(m, "numa.nodes", numa_nodes());
    text(m, "membarrier", d->membarrier ? "yes" : "no");
    number(m, "cpu.ms", milliseconds(use.ru_utime) + milliseconds(use.ru_stime));
    allocator(m);
    quotas(d, m);
}

int eg_handle_STATUS(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                     struct eg_reply *r) {
    (void)s;
    uint32_t from = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return eg_error_set(EAGRE_E_PROTOCOL, "a malformed STATUS");
    struct metrics m = {.count = 0};
    collect(d, &m);
    eg_enc_u8(r->out, 0); /* all of them fit one message */
    eg_enc_u16(r->out, (uint16_t)(from < m.count ? m.count - from : 0));
    for (size_t i = from; i < m.count; i++) {
        eg_enc_str(r->out, m.name[i]);
        eg_enc_str(r->out, m.value[i]);
    }
    return EAGRE_OK;
}
