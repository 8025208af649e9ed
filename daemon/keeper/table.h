/*
 * table.h - names and their descriptors: what the keeper holds, and the daemon's memory of it.
 * Fixed size, all zeros when empty, so that it costs only the pages that are used.
 */
#ifndef EG_KEEPER_TABLE_H
#define EG_KEEPER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/keeper.h"

#define EG_KEPT_MAX 65536u
#define EG_KEPT_HEADS 4096u

/* Entries are numbered from 1; 0 is "none". */
struct eg_kept {
    char name[EG_KEPT_NAME]; /* "": free */
    int fd;
    uint32_t next; /* in its hash chain, or in the free list */
};

struct eg_kept_table {
    uint32_t count;
    uint32_t used; /* entries 1 .. used were used at some time */
    uint32_t free; /* list of those that are not now */
    uint32_t head[EG_KEPT_HEADS];
    struct eg_kept entry[EG_KEPT_MAX + 1];
};

static inline uint32_t *eg_kept_head(struct eg_kept_table *t, const char *name) {
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *name != '\0'; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return &t->head[(h ^ h >> 16) % EG_KEPT_HEADS];
}

static inline uint32_t eg_kept_find(struct eg_kept_table *t, const char *name) {
    uint32_t i = *eg_kept_head(t, name);
    while (i != 0 && strcmp(t->entry[i].name, name) != 0)
        i = t->entry[i].next;
    return i;
}

/* name: not yet there, not empty, shorter than EG_KEPT_NAME. 0: full. */
static inline uint32_t eg_kept_add(struct eg_kept_table *t, const char *name, int fd) {
    uint32_t i = t->free;
    if (i != 0)
        t->free = t->entry[i].next;
    else if (t->used < EG_KEPT_MAX)
        i = ++t->used;
    else
        return 0;
    struct eg_kept *e = &t->entry[i];
    uint32_t *head = eg_kept_head(t, name);
    strcpy(e->name, name);
    e->fd = fd;
    e->next = *head;
    *head = i;
    t->count++;
    return i;
}

static inline void eg_kept_remove(struct eg_kept_table *t, uint32_t i) {
    struct eg_kept *e = &t->entry[i];
    uint32_t *link = eg_kept_head(t, e->name);
    while (*link != i)
        link = &t->entry[*link].next;
    *link = e->next;
    e->name[0] = '\0';
    e->next = t->free;
    t->free = i;
    t->count--;
}

#endif
