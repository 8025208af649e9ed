/* buffers.c - the buffers of a partition: made, filled with memory, dropped. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "graves.h"
#include "partition.h"
#include "placement.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

const char *eg_partition_keep_name(const struct eg_partition *p, uint32_t buffer, char *buf,
                                   size_t cap) {
    snprintf(buf, cap, "p%u.b%u", p->uid, buffer);
    return buf;
}

void eg_buffer_use(struct eg_partition *p, uint32_t number, enum eg_buffer_use use, uint64_t seq) {
    struct eg_buffer_journal *j = &p->status->buffer[number];
    eg_store_relaxed(&j->seq, seq); /* read by a successor only, which starts after our death */
    eg_store_release(&j->use, (uint32_t)use);
}

static void set_allocated(struct eg_daemon *d, struct eg_partition *p, uint32_t number,
                          uint64_t bytes) {
    d->figures.memory_allocated += bytes - eg_buffer_allocated(p, number);
    eg_store_release(&p->status->buffer[number].allocated, (uint32_t)(bytes / EG_PAGE));
}

/* The NUMA rule for a buffer of this partition. */
static int64_t node_of(const struct eg_partition *p) {
    int64_t numa = p->topic->settings.v[EG_SET_NUMA];
    if (numa != EG_NUMA_AUTO)
        return numa;
    return eg_load_relaxed(&p->status->node) - 1; /* 0: not decided: -1 is EG_NUMA_AUTO */
}

void eg_partition_prefer_node(struct eg_partition *p, uint32_t node) {
    if (p->topic->settings.v[EG_SET_NUMA] != EG_NUMA_AUTO ||
        eg_load_relaxed(&p->status->node) != 0 || eg_placement_nodes() < 2 ||
        !eg_placement_has_node(node))
        return;
    eg_store_relaxed(&p->status->node, (int64_t)node + 1);
    for (uint32_t n = 0; p->buffers != NULL && n < EG_BUFFERS_MAX; n++)
        if (p->buffers[n].fd >= 0)
            eg_placement_bind(p->buffers[n].base, eg_partition_capacity(p), node);
}

int eg_buffer_make(struct eg_daemon *d, struct eg_partition *p, uint32_t *number) {
    uint32_t n = 0;
    while (n < EG_BUFFERS_MAX && p->buffers[n].fd >= 0)
        n++;
    if (n == EG_BUFFERS_MAX)
        return eg_error_set(EAGRE_E_LIMIT,
                            "topic '%s' partition %u: all %u buffers are in use: readers hold them",
                            eg_topic_name(p->topic), p->number, EG_BUFFERS_MAX);
    char name[EG_KEEP_NAME_MAX + 1], label[EG_KEEP_NAME_MAX + 16];
    uint64_t capacity = eg_partition_capacity(p);
    bool hugetlb = p->topic->settings.v[EG_SET_HUGEPAGES] == EG_HUGEPAGES_HUGETLB;
    void *base = NULL;
    int fd = -1;
    eg_partition_keep_name(p, n, name, sizeof(name));
    snprintf(label, sizeof(label), "eagre:%s", name);
    int rc = eg_memfd_create(label, capacity, hugetlb, &fd);
    if (rc != EAGRE_OK)
        goto fail;
    rc = eg_map(fd, 0, capacity, true, &base);
    if (rc != EAGRE_OK)
        goto fail;
    /* Where its memory comes from: before the first of it is allocated. */
    if (!eg_placement_bind(base, capacity, node_of(p)))
        eg_log_debug("topic '%s' partition %u: memory cannot be placed as numa asks",
                     eg_topic_name(p->topic), p->number);
    if (p->topic->settings.v[EG_SET_HUGEPAGES] == EG_HUGEPAGES_ADVISE)
        eg_advise_huge(base, capacity);
    /* hugetlb reserves all of it at once, or nothing. */
    uint64_t bytes = hugetlb ? capacity : EG_PAGE;
    rc = eg_shm_allocate(fd, 0, bytes);
    if (rc != EAGRE_OK)
        goto fail;
    rc = eg_keep_put(d->keep, name, fd);
    if (rc != EAGRE_OK)
        goto fail;
    p->buffers[n] = (struct eg_buffer){.fd = fd, .base = base};
    eg_store_relaxed(&p->status->buffer[n].allocated, 0);
    set_allocated(d, p, n, bytes);
    eg_store_relaxed(&eg_buffer_header(p, n)->allocated, bytes);
    eg_buffer_use(p, n, EG_BUFFER_DIRTY, 0);
    *number = n;
    return EAGRE_OK;
fail:
    if (base != NULL)
        eg_unmap(base, capacity);
    if (fd >= 0)
        close(fd);
    return eg_error_add(rc, "topic '%s' partition %u", eg_topic_name(p->topic), p->number);
}

void eg_buffer_drop(struct eg_daemon *d, struct eg_partition *p, uint32_t number) {
    char name[EG_KEEP_NAME_MAX + 1];
    struct eg_buffer *b = &p->buffers[number];
    set_allocated(d, p, number, 0);
    eg_buffer_use(p, number, EG_BUFFER_NONE,
                  0); /* first: a successor drops what it finds kept but unused */
    eg_partition_keep_name(p, number, name, sizeof(name));
    bool gone = p->topic->deleted; /* else the name may be needed again soon */
    if (!gone && eg_keep_drop(d->keep, name) != EAGRE_OK)
        eg_log_warning("%s", eg_error_text());
    /* One that goes alone is one that we could as well zero: nobody has a pin on it. */
    eg_grave_add(d, b->base, eg_partition_capacity(p), b->fd, gone ? name : NULL, !p->topic->in_use);
    *b = (struct eg_buffer){.fd = -1};
}

/* Does the system give shared memory huge pages where a mapping asks for them? Read once. */
static bool huge_on_advice(void) {
    static int known = -1;
    char text[128] = "";
    if (known < 0) {
        FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
        known =
            f != NULL && fgets(text, sizeof(text), f) != NULL && strstr(text, "[advise]") != NULL;
        if (f != NULL)
            fclose(f);
    }
    return known != 0;
}

int eg_buffer_allocate(struct eg_daemon *d, struct eg_partition *p, uint32_t number, uint64_t to) {
    uint64_t from = eg_buffer_allocated(p, number);
    uint64_t end = eg_align_up(to, EG_PAGE);
    if (from >= end)
        return EAGRE_OK;
    uint64_t n = end - from < EG_ALLOCATE_BATCH ? end - from : EG_ALLOCATE_BATCH;
    uint64_t headroom;
    /* Advice belongs to a mapping and fallocate() has none: fault the pages in before. */
    if (p->topic->settings.v[EG_SET_HUGEPAGES] == EG_HUGEPAGES_ADVISE && huge_on_advice() &&
        eg_memory_headroom(&headroom) == EAGRE_OK && headroom > 2 * n + EG_HEADROOM_RESERVE)
        eg_populate(p->buffers[number].base + from, n, true);
    int rc = eg_shm_allocate(p->buffers[number].fd, from, n);
    if (rc != EAGRE_OK)
        return eg_error_add(rc, "topic '%s' partition %u", eg_topic_name(p->topic), p->number);
    /* Allocated pages are zeroed when first touched: here, not in a producer's call. */
    eg_populate(p->buffers[number].base + from, n, true);
    set_allocated(d, p, number, from + n);
    struct eg_segment_header *h = eg_buffer_header(p, number);
    uint64_t said = eg_load_relaxed(&h->allocated);
    /* Acq_rel: the memory comes first. Partner: eg_segment_ready()'s acquire. Producers raise it, too. */
    while (said < from + n && !eg_cas_acq_rel(&h->allocated, &said, from + n)) {}
    return from + n < end ? EG_AGAIN : EAGRE_OK;
}

int eg_buffer_sync_slice(struct eg_daemon *d, struct eg_partition *p, uint32_t number) {
    enum { PAGES = 512 };
    unsigned char present[PAGES];
    /* Producers', so it may say anything. Acquire: they allocated before they raised it. */
    uint64_t said = eg_load_acquire(&eg_buffer_header(p, number)->allocated);
    uint64_t capacity = eg_partition_capacity(p), at = eg_buffer_allocated(p, number);
    if (said > capacity)
        said = capacity;
    said &= ~(uint64_t)(EG_PAGE - 1);
    if (at >= said)
        return EAGRE_OK;
    uint64_t n = said - at < PAGES * EG_PAGE ? said - at : PAGES * EG_PAGE;
    bool all = mincore(p->buffers[number].base + at, n, present) == 0;
    for (uint64_t i = 0; all && i < n / EG_PAGE; i++)
        all = present[i] & 1;
    /* Allocated, but not touched yet (or swapped out, or a lie): the kernel is to confirm it. */
    int rc = all ? EAGRE_OK : eg_shm_allocate(p->buffers[number].fd, at, n);
    if (rc != EAGRE_OK)
        return rc;
    set_allocated(d, p, number, at + n);
    return at + n < said ? EG_AGAIN : EAGRE_OK;
}

bool eg_buffer_sync(struct eg_daemon *d, struct eg_partition *p, uint32_t number) {
    int rc;
    do
        rc = eg_buffer_sync_slice(d, p, number);
    while (rc == EG_AGAIN);
    return rc == EAGRE_OK;
}
