#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log/segment.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

struct finder {
    struct cli *c;
    const struct kept *kept;
    int (*each)(struct ring_partition *p, void *ctx);
    void *ctx;
    int code;
    struct ring_partition *p;
};

/* ---- one partition ---------------------------------------------------------------------------------------- */

static int fetch_buffer(struct eg_partition_map *m, uint32_t number) {
    const struct kept *kept = m->ctx;
    char name[EG_KEPT_NAME];
    void *at;
    snprintf(name, sizeof(name), "p%u.b%u", m->uid, number);
    const struct kept_object *o = kept_find(kept, name);
    if (o == NULL || o->bytes != m->capacity)
        return eg_error_set(EAGRE_E_CORRUPT, "the keeper has no buffer %s of %" PRIu64 " bytes",
                            name, m->capacity);
    int rc = kept_map(o, &at);
    if (rc != EAGRE_OK)
        return rc;
    eg_unmap(m->bufs[number].base, m->capacity);
    m->bufs[number].base = at;
    return EAGRE_OK;
}

static const struct eg_map_ops ops = {.fetch_buffer = fetch_buffer};

static void forget_buffers(struct ring_partition *p) {
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++) {
        eg_unmap(p->map.bufs[n].base, p->map.capacity);
        p->map.bufs[n].base = NULL;
    }
}

static int by_seq(const void *a, const void *b) {
    const struct ring_segment *x = a, *y = b;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void look_at_slot(struct ring_partition *p, uint32_t slot) {
    struct ring_segment *s = &p->segments[p->count];
    uint64_t word = eg_load_acquire(&p->map.ring->slot[slot].word);
    *s = (struct ring_segment){.slot = slot,
                               .state = eg_slot_state(word),
                               .buffer = eg_slot_buffer(word),
                               .seq = eg_slot_seq(word),
                               .base = EG_BASE_UNSET};
    if (s->state == EG_SLOT_EMPTY)
        return;
    p->count++;
    if (s->state != EG_SLOT_OPEN)
        return;
    if (eg_segment_map(&p->map, s->buffer, s->seq) != EAGRE_OK) {
        snprintf(s->problem, sizeof(s->problem), "%s", eg_error_text());
        return;
    }
    s->data = p->map.bufs[s->buffer].base;
    s->base = eg_load_acquire(&eg_map_header(&p->map, s->buffer)->base);
    /* Without: opened by a producer that died before it could say where it begins. */
    if (s->base != EG_BASE_UNSET && (s->base < 0 || s->base > EG_OFFSET_MAX)) {
        snprintf(s->problem, sizeof(s->problem), "its base offset %" PRId64 " is not possible",
                 s->base);
        s->data = NULL;
    }
}

void ring_again(struct ring_partition *p) {
    forget_buffers(p);
    p->count = 0;
    p->log_start = (int64_t)eg_load_acquire(&p->map.status->log_start);
    p->durable_end = (int64_t)eg_load_acquire(&p->map.status->durable_end);
    p->active = eg_load_acquire(&p->map.ring->active);
    for (uint32_t slot = 0; slot < p->map.slots; slot++)
        look_at_slot(p, slot);
    qsort(p->segments, p->count, sizeof(p->segments[0]), by_seq);
}

/* ---- finding them ------------------------------------------------------------------------------------------- */

/* NULL, after saying why, or what lies there. */
static void *map_object(const struct finder *f, uint32_t topic_uid, const char *kind,
                        size_t *bytes) {
    char name[EG_KEPT_NAME];
    void *at;
    snprintf(name, sizeof(name), "t%u.%s", topic_uid, kind);
    const struct kept_object *o = kept_find(f->kept, name);
    if (o == NULL) {
        cli_error(f->c, "the keeper has no %s: the topic was being made or deleted", name);
        return NULL;
    }
    if (kept_map(o, &at) != EAGRE_OK) {
        cli_error(f->c, "%s", eg_error_text());
        return NULL;
    }
    *bytes = o->bytes;
    return at;
}

static int visit_partition(const struct finder *f, const struct eg_topic_status *t, void *ring,
                           uint32_t number) {
    struct ring_partition *p = f->p;
    memset(p, 0, sizeof(*p));
    p->kept = f->kept;
    p->topic_uid = t->topic_uid;
    p->number = number;
    p->partitions = eg_load_acquire(&t->partitions);
    struct eg_partition_map *m = &p->map;
    m->ops = &ops;
    m->ctx = (void *)(uintptr_t)f->kept;
    m->topic = (struct eg_topic_status *)(uintptr_t)t;
    m->status = eg_status_of(m->topic, number);
    m->ring =
        (struct eg_ring *)(void *)((uint8_t *)ring +
                                   number * eg_ring_stride(t->ring_segments, t->segment_bytes));
    m->capacity = t->segment_bytes;
    m->slots = t->ring_segments;
    m->align = t->align;
    m->uid = m->status->uid;
    m->index = m->status->index;
    m->number = number;
    m->on_disk = t->storage == EG_STORAGE_DISK;
    if (eg_magic_check(&m->ring->magic, EG_MAGIC_RING, "ring") != EAGRE_OK) {
        cli_error(f->c, "t%u/%u: %s", p->topic_uid, number, eg_error_text());
        return CLI_FAILED;
    }
    ring_again(p);
    int code = f->each(p, f->ctx);
    forget_buffers(p);
    return code;
}

static int worse(int a, int b) { return a == CLI_OK ? b : a; }

/* partition -1: all. *found: there is such a one. */
static int visit_topic(const struct finder *f, uint32_t topic_uid, int64_t partition, bool *found) {
    size_t status_bytes = 0, ring_bytes = 0;
    int code = CLI_FAILED;
    struct eg_topic_status *t = map_object(f, topic_uid, "status", &status_bytes);
    void *ring = NULL;
    if (t != NULL &&
        (eg_topic_status_check(t, status_bytes) != EAGRE_OK || t->topic_uid != topic_uid)) {
        cli_error(f->c, "t%u: %s", topic_uid,
                  t->topic_uid != topic_uid ? "it is another topic's" : eg_error_text());
    } else if (t != NULL && eg_load_acquire(&t->state) == EG_TOPIC_DELETED) {
        cli_error(f->c, "t%u was deleted", topic_uid);
        code = CLI_OK;
    } else if (t != NULL && (ring = map_object(f, topic_uid, "ring", &ring_bytes)) != NULL) {
        uint32_t partitions = eg_load_acquire(&t->partitions);
        size_t stride = eg_ring_stride(t->ring_segments, t->segment_bytes);
        code = CLI_OK;
        if (ring_bytes / stride < partitions) {
            cli_error(f->c, "t%u: its ring is too short for %u partitions", topic_uid, partitions);
            code = CLI_FAILED;
            partitions = 0;
        }
        for (uint32_t n = 0; n < partitions; n++)
            if (partition < 0 || partition == n) {
                *found = true;
                code = worse(code, visit_partition(f, t, ring, n));
            }
    }
    eg_unmap(ring, ring_bytes);
    eg_unmap(t, status_bytes);
    return code;
}

static bool is_status(const struct kept_object *o, uint32_t *topic_uid) {
    int end = 0;
    return sscanf(o->name, "t%u.status%n", topic_uid, &end) == 1 && end > 0 && o->name[end] == '\0';
}

static int visit_named(struct finder *f, const char *text) {
    uint32_t uid = 0, number = 0, status_uid;
    int topic_end = 0, end = 0;
    bool found = false, is_there = false;
    sscanf(text, "t%9u%n/%9u%n", &uid, &topic_end, &number, &end);
    bool whole = topic_end > 0 && text[topic_end] == '\0';
    if (!whole && (end == 0 || text[end] != '\0'))
        cli_usage(f->c, "'%s': with --keeper it is t<topic id> or t<topic id>/<partition>", text);
    for (size_t i = 0; i < f->kept->count; i++)
        is_there |= is_status(&f->kept->objects[i], &status_uid) && status_uid == uid;
    int code = is_there ? visit_topic(f, uid, whole ? -1 : (int64_t)number, &found) : CLI_OK;
    if (code == CLI_OK && !found && !whole) {
        cli_error(f->c, "the keeper has no %s", text);
        return CLI_NOT_FOUND;
    }
    if (!is_there) {
        cli_error(f->c, "the keeper has no topic id %u", uid);
        return CLI_NOT_FOUND;
    }
    return code;
}

int ring_for_each(struct cli *c, const char *socket, int argc, char **argv,
                  int (*each)(struct ring_partition *p, void *ctx), void *ctx) {
    struct kept kept;
    struct ring_partition *p = malloc(sizeof(*p));
    struct finder f = {.c = c, .kept = &kept, .each = each, .ctx = ctx, .p = p};
    uint32_t uid;
    bool found = false;
    if (p == NULL)
        return cli_fail(c, eg_error_set(EAGRE_E_NO_MEMORY, "no memory"));
    int rc = kept_open(&kept, socket);
    if (rc != EAGRE_OK) {
        free(p);
        return cli_fail(c, rc);
    }
    for (int i = optind; i < argc; i++)
        f.code = worse(f.code, visit_named(&f, argv[i]));
    for (size_t i = 0; optind == argc && i < kept.count; i++)
        if (is_status(&kept.objects[i], &uid))
            f.code = worse(f.code, visit_topic(&f, uid, -1, &found));
    kept_close(&kept);
    free(p);
    return f.code;
}

/* ---- walking ---------------------------------------------------------------------------------------------------- */

void ring_walk_init(struct ring_walk *w, const struct ring_partition *p,
                    const struct ring_segment *s) {
    uint64_t allocated = eg_load_acquire(&eg_map_header(&p->map, s->buffer)->allocated);
    *w = (struct ring_walk){
        .chain = {.base = s->data,
                  .capacity = p->map.capacity,
                  .allocated = allocated < p->map.capacity ? allocated : p->map.capacity,
                  .align = p->map.align,
                  .pos = EG_SEGMENT_DATA},
        .seed = eg_frame_seed(p->map.uid, s->seq)};
}

enum ring_step ring_next(struct ring_walk *w) {
    uint32_t one = 1;
    struct eg_chain *c = &w->chain;
    w->pos = c->pos;
    w->index = c->index;
    w->reason = NULL;
    enum eg_chain_at at = eg_chain_walk(c, &one);
    if (at == EG_CHAIN_CLAIMED)
        eg_chain_pass(c);
    else if (at == EG_CHAIN_BAD)
        w->reason = "this is no frame word";
    if (c->pos == w->pos) /* END, NOTHING, BROKEN: the same again */
        return at == EG_CHAIN_SEALED ? RING_END : at == EG_CHAIN_BAD ? RING_BROKEN : RING_NOTHING;
    const struct eg_frame *f = eg_frame_at(c->base, w->pos);
    w->length = c->pos - w->pos;
    w->count = (uint32_t)(c->index - w->index);
    uint64_t word = c->word;
    w->owner = eg_word_owner(word);
    if (at == EG_CHAIN_CLAIMED)
        return RING_CLAIM;
    if (eg_word_kind(word) == EG_KIND_PAD)
        return RING_PAD;
    if (w->length > c->allocated - w->pos)
        w->reason = "it does not lie within the memory that is there";
    else if (!eg_frame_view(f, word, &w->view))
        w->reason = "its lengths do not fit";
    else if (w->view.index != (uint32_t)w->index)
        w->reason = "its record number is wrong";
    else if (!eg_frame_crc_ok(f, w->pos, word, w->seed, &w->view))
        w->reason = "its checksum does not match";
    return w->reason != NULL ? RING_DAMAGED : RING_RECORD;
}

void ring_owner(const struct ring_partition *p, uint32_t owner, char out[RING_OWNER_MAX]) {
    char name[EG_KEPT_NAME];
    /* A client that lives holds a lock on its page: asked for, not taken. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    snprintf(name, sizeof(name), "c%u", owner);
    const struct kept_object *o = kept_find(p->kept, name);
    if (o == NULL || fcntl(o->fd, F_GETLK, &lock) != 0)
        snprintf(out, RING_OWNER_MAX, "owner %u", owner);
    else if (lock.l_type == F_UNLCK)
        snprintf(out, RING_OWNER_MAX, "owner %u (gone)", owner);
    else
        snprintf(out, RING_OWNER_MAX, "owner %u (pid %d)", owner, (int)lock.l_pid);
}
