#include "assign_plan.h"

#include "eagre/error.h"

#include <string.h>

void *eg_plan_array(struct eg_plan *p, size_t count, size_t size) {
    void *array = p->arrays < EG_PLAN_ARRAYS ? calloc(count ? count : 1, size) : NULL;
    if (array == NULL)
        p->no_memory = true;
    else
        p->array[p->arrays++] = array;
    return array;
}

void eg_plan_free(struct eg_plan *p) {
    for (size_t i = 0; i < p->arrays; i++)
        free(p->array[i]);
}

static bool alike(const struct eg_plan *p, const struct eg_assign_member *a,
                  const struct eg_assign_member *b) {
    if (a->topic_count != b->topic_count || (p->numa && a->node != b->node))
        return false;
    return a->topics == b->topics || a->topic_count == 0 ||
           memcmp(a->topics, b->topics, a->topic_count * sizeof(*a->topics)) == 0;
}

static uint64_t hash(const struct eg_plan *p, const struct eg_assign_member *m) {
    uint64_t h = p->numa ? m->node : 0;
    for (size_t i = 0; i < m->topic_count; i++)
        h = (h ^ m->topics[i]) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29);
    return h ^ h >> 32;
}

/* class_of, classes: numbered in the order of their first members. */
static void find_classes(struct eg_plan *p) {
    size_t mask = 15;
    while (mask < 2 * (size_t)p->members)
        mask = mask * 2 + 1;
    uint32_t *table =
        eg_plan_array(p, mask + 1, sizeof(*table)); /* 1 + the first member of a class */
    p->class_of = eg_plan_array(p, p->members, sizeof(*p->class_of));
    if (p->no_memory)
        return;
    const struct eg_assign_member *m = p->in->members;
    for (uint32_t i = 0; i < p->members; i++) {
        if (i > 0 && m[i].topics == m[i - 1].topics && alike(p, &m[i], &m[i - 1])) {
            p->class_of[i] = p->class_of[i - 1];
            continue;
        }
        size_t at = hash(p, &m[i]) & mask;
        while (table[at] != 0 && !alike(p, &m[i], &m[table[at] - 1]))
            at = (at + 1) & mask;
        if (table[at] == 0) {
            table[at] = i + 1;
            p->class_of[i] = p->classes++;
        } else {
            p->class_of[i] = p->class_of[table[at] - 1];
        }
    }
}

/* start[i + 1] has the size of row i: make it what struct eg_rows says. Filling the rows moves start[i + 1] on; so it
 * is the end of row i afterwards. */
static void rows_from_sizes(struct eg_rows *r, uint32_t rows) {
    uint32_t sum = 0;
    for (uint32_t i = 1; i <= rows; i++) {
        uint32_t size = r->start[i];
        r->start[i] = sum;
        sum += size;
    }
}

static void members_of_classes(struct eg_plan *p) {
    struct eg_rows *r = &p->of_class;
    r->start = eg_plan_array(p, p->classes + 1, sizeof(*r->start));
    r->item = eg_plan_array(p, p->members, sizeof(*r->item));
    if (p->no_memory)
        return;
    for (uint32_t i = 0; i < p->members; i++)
        r->start[p->class_of[i] + 1]++;
    rows_from_sizes(r, p->classes);
    for (uint32_t i = 0; i < p->members; i++)
        r->item[r->start[p->class_of[i] + 1]++] = i;
}

static void classes_of_topics(struct eg_plan *p) {
    struct eg_rows *r = &p->of_topic;
    size_t all = 0;
    for (uint32_t c = 0; c < p->classes; c++)
        all += eg_class_member(p, c)->topic_count;
    r->start = eg_plan_array(p, p->topics + 1, sizeof(*r->start));
    r->item = eg_plan_array(p, all, sizeof(*r->item));
    if (p->no_memory)
        return;
    for (uint32_t c = 0; c < p->classes; c++) {
        const struct eg_assign_member *m = eg_class_member(p, c);
        for (size_t i = 0; i < m->topic_count; i++)
            r->start[m->topics[i] + 1]++;
    }
    rows_from_sizes(r, p->topics);
    for (uint32_t c = 0; c < p->classes; c++) {
        const struct eg_assign_member *m = eg_class_member(p, c);
        for (size_t i = 0; i < m->topic_count; i++)
            r->item[r->start[m->topics[i] + 1]++] = c;
    }
}

int eg_plan_init(struct eg_plan *p, const struct eg_assign_input *in, bool numa, uint32_t *next) {
    *p = (struct eg_plan){.in = in,
                          .next = next,
                          .members = (uint32_t)in->member_count,
                          .topics = (uint32_t)in->topic_count,
                          .numa = numa};
    for (uint32_t t = 0; t < p->topics; t++)
        p->partitions += in->topics[t].partitions;
    find_classes(p);
    if (!p->no_memory)
        members_of_classes(p);
    if (!p->no_memory)
        classes_of_topics(p);
    return p->no_memory ? EAGRE_E_NO_MEMORY : EAGRE_OK;
}
