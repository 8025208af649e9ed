/* topic_messages.c - the messages about topics: what they ask, decoded; what they get, encoded. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients.h"
#include "graves.h"
#include "handlers.h"
#include "partition.h"
#include "slots.h"
#include "stalls.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/faultpoint.h"
#include "sys/shm.h"

#define NAME_CAP 1024 /* longer than a valid one, so that the error can be about the name */
#define VALUE_CAP 1024
#define CHANGES_MAX 64

static int malformed(const char *what) {
    return eg_error_set(EAGRE_E_PROTOCOL, "a malformed %s", what);
}

static struct eg_peer peer_of(const struct eg_session *s) {
    return (struct eg_peer){.uid = s->uid, .gid = s->gid, .sock = s->fd};
}

/* What was lacking may be what deleted topics had, which is given back little by little: then now, and once more.
 * (Not twice: what failed leaves something to give back itself.) All of it if the memory itself is short; a limit is
 * no reason to let everybody wait for long: who deletes much and asks again at once may have to ask once more. */
#define HURRY_NS (5 * EG_NS_PER_MS)
static bool may_be_had(struct eg_daemon *d, int rc, bool *tried) {
    int64_t limit_ns = rc == EAGRE_E_NO_MEMORY ? INT64_MAX : rc == EAGRE_E_LIMIT ? HURRY_NS : 0;
    bool again = !*tried && limit_ns > 0 && eg_graves_finish(d, limit_ns);
    *tried = true;
    return again;
}

/* Bytes that are still free in the reply. */
static size_t room(const struct eg_reply *r) { return r->out->cap - r->out->used; }

/* ---- administration ------------------------------------------------------------------------------ */

struct changes {
    struct eg_change list[CHANGES_MAX];
    size_t count;
    char text[CHANGES_MAX][64 + VALUE_CAP];
};

static bool decode_changes(struct eg_dec *in, struct changes *c) {
    size_t n = eg_dec_u16(in);
    if (n > CHANGES_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        char *name = c->text[i], *value = c->text[i] + 64;
        eg_dec_str(in, name, 64);
        eg_dec_str(in, value, VALUE_CAP);
        c->list[i] = (struct eg_change){.name = name, .value = value};
    }
    c->count = n;
    return eg_dec_end(in);
}

int eg_handle_TOPIC_CREATE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                           struct eg_reply *r) {
    static struct changes changes;
    char name[NAME_CAP];
    struct eg_peer peer = peer_of(s);
    uint32_t uid;
    eg_dec_str(in, name, sizeof(name));
    if (!decode_changes(in, &changes))
        return malformed("TOPIC_CREATE");
    bool tried = false;
    int rc;
    do
        rc = eg_topic_create(d, &peer, name, changes.list, changes.count, &uid);
    while (may_be_had(d, rc, &tried));
    if (rc == EAGRE_OK)
        eg_enc_u32(r->out, uid);
    return rc;
}

int eg_handle_TOPIC_ALTER(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                          struct eg_reply *r) {
    static struct changes changes;
    char name[NAME_CAP];
    struct eg_peer peer = peer_of(s);
    (void)r;
    eg_dec_str(in, name, sizeof(name));
    if (!decode_changes(in, &changes))
        return malformed("TOPIC_ALTER");
    bool tried = false;
    int rc;
    do
        rc = eg_topic_alter(d, &peer, name, changes.list, changes.count);
    while (may_be_had(d, rc, &tried));
    return rc;
}

int eg_handle_TOPIC_DELETE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                           struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_peer peer = peer_of(s);
    (void)r;
    eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in))
        return malformed("TOPIC_DELETE");
    return eg_topic_delete(d, &peer, name);
}

int eg_handle_TOPIC_LIST(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                         struct eg_reply *r) {
    char after[NAME_CAP];
    uint16_t count = 0;
    size_t i;
    (void)s;
    eg_dec_str(in, after, sizeof(after));
    if (!eg_dec_end(in))
        return malformed("TOPIC_LIST");
    i = eg_topic_place_after(d, after);
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    size_t count_at = r->out->used;
    eg_enc_u16(r->out, 0);
    for (; i < d->topics->count && room(r) > 2 + EG_TOPIC_NAME_MAX + 9 && count < UINT16_MAX;
         i++, count++) {
        const struct eg_topic *t = d->topics->list[i];
        eg_enc_str(r->out, eg_topic_name(t));
        eg_enc_u32(r->out, t->meta.uid);
        eg_enc_u32(r->out, t->partitions);
        eg_enc_u8(r->out, (uint8_t)t->settings.v[EG_SET_STORAGE]);
    }
    eg_enc_patch_u8(r->out, more_at, i < d->topics->count);
    eg_enc_patch_u16(r->out, count_at, count);
    return EAGRE_OK;
}

int eg_handle_TOPIC_DESCRIBE(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                             struct eg_reply *r) {
    char name[NAME_CAP], value[EG_ACCESS_TEXT];
    struct eg_topic *t = NULL;
    (void)s;
    eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in))
        return malformed("TOPIC_DESCRIBE");
    int rc = eg_topic_find(d, name, &t);
    if (rc != EAGRE_OK)
        return rc;
    eg_enc_u32(r->out, t->meta.uid);
    eg_enc_u16(r->out, EG_SET_COUNT);
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        eg_enc_str(r->out, eg_settings_name(i));
        eg_enc_str(r->out, eg_settings_print(&t->settings, i, value, sizeof(value)));
        eg_enc_u8(r->out, !t->settings.given[i]);
    }
    return EAGRE_OK;
}

static void encode_partition(struct eg_enc *out, const struct eg_partition *p, int64_t end) {
    uint64_t allocated = 0;
    for (uint32_t n = 0; p->buffers != NULL && n < EG_BUFFERS_MAX; n++)
        if (p->buffers[n].fd >= 0)
            allocated += eg_buffer_allocated(p, n);
    eg_enc_u32(out, p->number);
    eg_enc_u32(out, eg_load_relaxed(&p->status->state));
    eg_enc_i64(out, (int64_t)eg_load_relaxed(&p->status->log_start));
    eg_enc_i64(out, end);
    eg_enc_u64(out, p->active);
    eg_enc_u64(out,
               p->buffers == NULL ? 0 : p->active - p->first + 1 - (p->retire != EG_RETIRE_NOT));
    eg_enc_u64(out, allocated);
    eg_enc_u64(out, p->detached * eg_partition_capacity(p));
    struct eg_stall_info stall = {.offset = -1};
    (void)eg_stall_of(p, &stall);
    eg_enc_i64(out, stall.offset);
    eg_enc_u32(out, (uint32_t)stall.pid);
    eg_enc_u64(out, (uint64_t)stall.ms);
    eg_enc_i64(out, p->archive != NULL ? (int64_t)eg_load_relaxed(&p->status->durable_end) : -1);
    eg_enc_u8(out, (uint8_t)eg_load_relaxed(&p->status->disk));
}

int eg_handle_PARTITIONS(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                         struct eg_reply *r) {
    enum { ENTRY = 4 * 3 + 8 * 9 + 1, SLICE_NS = 200 * EG_NS_PER_US };
    char name[NAME_CAP];
    struct eg_topic *t = NULL;
    (void)s;
    eg_dec_str(in, name, sizeof(name));
    uint32_t k = eg_dec_u32(in);
    if (!eg_dec_end(in))
        return malformed("PARTITIONS");
    int rc = eg_topic_find(d, name, &t);
    if (rc != EAGRE_OK)
        return rc;
    uint16_t count = 0;
    size_t more_at = r->out->used;
    eg_enc_u8(r->out, 0);
    size_t count_at = r->out->used;
    eg_enc_u16(r->out, 0);
    /* A chain may be long, and there may be many: what does not fit this slice is asked for again. */
    int64_t stop = eg_mono_ns() + SLICE_NS;
    for (bool late = false; k < t->partitions && room(r) >= ENTRY && !late; late = eg_mono_ns() >= stop) {
        struct eg_partition *p = t->part[k];
        if (p->buffers != NULL && !eg_partition_failed(p))
            (void)eg_slots_follow(p, eg_mono_ns());
        int64_t end = eg_partition_end(p);
        if (!p->end_found)
            continue; /* it goes on from there */
        encode_partition(r->out, p, end);
        k++;
        count++;
    }
    eg_enc_patch_u8(r->out, more_at, k < t->partitions);
    eg_enc_patch_u16(r->out, count_at, count);
    return EAGRE_OK;
}

/* ---- use ----------------------------------------------------------------------------------------- */

static bool is_role(uint8_t role) { return role == EG_ROLE_PRODUCER || role == EG_ROLE_CONSUMER; }

int eg_topic_check_role(const struct eg_session *s, struct eg_topic *t, uint8_t role) {
    struct eg_peer peer = peer_of(s);
    enum eg_setting which =
        role == EG_ROLE_PRODUCER ? EG_SET_ACCESS_PRODUCE : EG_SET_ACCESS_CONSUME;
    const struct eg_access *access = eg_settings_access(&t->settings, which);
    if (eg_access_allows(access, &peer, t->meta.owner_uid))
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_PERMISSION, "topic '%s': user %u may not %s: %s=%s",
                        eg_topic_name(t), (unsigned)s->uid,
                        role == EG_ROLE_PRODUCER ? "produce" : "consume", eg_settings_name(which),
                        access->text);
}

static int check_single(const struct eg_topic *t) {
    if (t->settings.v[EG_SET_WRITERS] != EG_WRITERS_SINGLE)
        return EAGRE_OK;
    for (size_t i = 0; i < t->client_count; i++) {
        const struct eg_client *c = t->clients[i];
        const struct eg_grant *g = eg_client_grant(c, t->meta.uid);
        if (g != NULL && g->producers > 0)
            return eg_error_set(EAGRE_E_BUSY,
                                "topic '%s' has writers=single, and pid %d (%s) is its producer",
                                eg_topic_name(t), (int)c->entry->pid, c->entry->name);
    }
    return EAGRE_OK;
}

int eg_handle_OPEN(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                   struct eg_reply *r) {
    char name[NAME_CAP];
    struct eg_topic *t = NULL;
    uint8_t role = eg_dec_u8(in);
    uint32_t node = eg_dec_u32(in);
    eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in) || !is_role(role))
        return malformed("OPEN");
    if (s->client == NULL)
        return eg_error_set(EAGRE_E_STATE, "OPEN before ATTACH");
    bool producer = role == EG_ROLE_PRODUCER;
    int rc = eg_topic_find(d, name, &t);
    if (rc == EAGRE_OK)
        rc = eg_topic_check_role(s, t, role);
    if (rc == EAGRE_OK && producer)
        rc = check_single(t);
    if (rc == EAGRE_OK)
        rc = eg_client_grant_add(t, s->client, producer);
    if (rc != EAGRE_OK)
        return rc;
    s->opened_uid = t->meta.uid; /* until it asks something else, it may not know */
    s->opened_role = role;
    EG_FAULT("open.granted");
    if (producer)
        s->client->node = node;
    eg_enc_u32(r->out, t->meta.uid);
    eg_enc_u32(r->out, t->partitions);
    r->fds[r->nfds++] = t->status_ro_fd;
    r->fds[r->nfds++] = producer ? t->ring_fd : t->ring_ro_fd;
    r->fds[r->nfds++] = t->waiters_fd;
    if (producer) {
        r->fds[r->nfds++] = d->bells_fd;
        r->fds[r->nfds++] = t->bell.fd;
    }
    return EAGRE_OK;
}

/* The partition, if the client was granted the role on its topic. */
int eg_find_granted(struct eg_daemon *d, const struct eg_session *s, uint8_t role, uint32_t uid,
                    uint32_t number, struct eg_partition **out) {
    struct eg_topic *t = uid != 0 ? eg_topic_by_uid(d, uid) : NULL;
    if (s->client == NULL)
        return eg_error_set(EAGRE_E_STATE, "a request for a partition before ATTACH");
    if (t == NULL)
        return eg_error_set(EAGRE_E_TOPIC_DELETED, "there is no topic with id %u (any more)", uid);
    const struct eg_grant *g = eg_client_grant(s->client, uid);
    if (g == NULL || (role == EG_ROLE_PRODUCER ? g->producers : g->consumers) == 0)
        return eg_error_set(EAGRE_E_PERMISSION, "topic '%s': this client has not opened it to %s",
                            eg_topic_name(t), role == EG_ROLE_PRODUCER ? "produce" : "consume");
    if (number >= t->partitions)
        return eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %u, not %u",
                            eg_topic_name(t), t->partitions - 1, number);
    *out = t->part[number];
    return EAGRE_OK;
}

static int add_buffer(const struct eg_partition *p, uint32_t n, bool writable, struct eg_reply *r) {
    int fd;
    if (n >= EG_BUFFERS_MAX || p->buffers[n].fd < 0)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s' partition %u: there is no buffer %u",
                            eg_topic_name(p->topic), p->number, n);
    fd = p->buffers[n].fd;
    if (!writable) {
        int rc = eg_memfd_readonly(p->buffers[n].fd, &fd);
        if (rc != EAGRE_OK)
            return rc;
    }
    r->close_after[r->nfds] = !writable;
    r->fds[r->nfds++] = fd;
    eg_enc_u16(r->out, (uint16_t)n);
    return EAGRE_OK;
}

int eg_handle_BUFFERS(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                      struct eg_reply *r) {
    uint16_t wanted[EG_REPLY_FDS];
    struct eg_partition *p = NULL;
    uint8_t role = eg_dec_u8(in);
    uint32_t uid = eg_dec_u32(in), number = eg_dec_u32(in);
    uint16_t n = eg_dec_u16(in);
    if (n > EG_REPLY_FDS)
        return malformed("BUFFERS");
    for (uint16_t i = 0; i < n; i++)
        wanted[i] = eg_dec_u16(in);
    if (!eg_dec_end(in) || !is_role(role))
        return malformed("BUFFERS");
    bool producer = role == EG_ROLE_PRODUCER;
    int rc = eg_find_granted(d, s, role, uid, number, &p);
    if (rc != EAGRE_OK)
        return rc;
    if (producer)
        eg_partition_prefer_node(p, s->client->node);
    bool tried = false;
    do
        rc = eg_partition_open(d, p);
    while (may_be_had(d, rc, &tried));
    if (rc != EAGRE_OK)
        return rc;
    if (producer)
        eg_slots_wake(d, p);
    if (n == 0)
        for (uint32_t i = 0; i < eg_partition_slots(p); i++)
            wanted[n++] = (uint16_t)eg_slot_buffer(eg_load_relaxed(&p->status->slot[i]));
    eg_enc_u16(r->out, n);
    for (uint16_t i = 0; rc == EAGRE_OK && i < n; i++)
        rc = add_buffer(p, wanted[i], producer, r);
    return rc;
}
