/*
 * group_topics.c - what members subscribe. A thousand members may each name a thousand topics: a name is there once.
 */
#include <stdlib.h>
#include <string.h>

#include "groups.h"
#include "sys/errbuf.h"
#include "sys/hash.h"

struct eg_names {
    struct eg_name **bucket;
    size_t buckets; /* a power of 2 */
    size_t count;
};

#define BUCKETS_AT_FIRST 256u

struct eg_name *eg_name_of(char *text) { return eg_container_of(text, struct eg_name, text); }

int eg_names_open(struct eg_names **out) {
    struct eg_names *n = calloc(1, sizeof(*n));
    if (n != NULL)
        n->bucket = calloc(BUCKETS_AT_FIRST, sizeof(struct eg_name *));
    if (n == NULL || n->bucket == NULL) {
        free(n);
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for what groups subscribe");
    }
    n->buckets = BUCKETS_AT_FIRST;
    *out = n;
    return EAGRE_OK;
}

void eg_names_close(struct eg_names *n) {
    if (n == NULL)
        return;
    for (size_t i = 0; i < n->buckets; i++)
        for (struct eg_name *e = n->bucket[i], *next; e != NULL; e = next) {
            next = e->next;
            free(e);
        }
    free(n->bucket);
    free(n);
}

static struct eg_name **place_of(const struct eg_names *n, const char *text) {
    struct eg_name **at = &n->bucket[eg_murmur2(text, strlen(text)) & (n->buckets - 1)];
    while (*at != NULL && strcmp((*at)->text, text) != 0)
        at = &(*at)->next;
    return at;
}

/* Without memory for it the chains get longer, that is all. */
static void grow(struct eg_names *n) {
    size_t buckets = 2 * n->buckets, old = n->buckets;
    struct eg_name **from = n->bucket, **to = calloc(buckets, sizeof(struct eg_name *));
    if (to == NULL)
        return;
    n->bucket = to;
    n->buckets = buckets;
    for (size_t i = 0; i < old; i++)
        for (struct eg_name *e = from[i], *next; e != NULL; e = next) {
            next = e->next;
            struct eg_name **at = place_of(n, e->text);
            e->next = *at;
            *at = e;
        }
    free(from);
}

char *eg_name_get(struct eg_names *n, const char *text) {
    struct eg_name **at = place_of(n, text);
    if (*at == NULL) {
        size_t length = strlen(text) + 1;
        struct eg_name *e = calloc(1, sizeof(*e) + length);
        if (e == NULL)
            return NULL;
        memcpy(e->text, text, length);
        *at = e;
        if (++n->count > n->buckets) {
            grow(n);
            at = place_of(n, text);
        }
    }
    (*at)->refs++;
    return (*at)->text;
}

void eg_name_put(struct eg_names *n, char *text) {
    if (text == NULL || --eg_name_of(text)->refs > 0)
        return;
    struct eg_name **at = place_of(n, text), *e = *at;
    *at = e->next;
    n->count--;
    free(e);
}

bool eg_name_is_used(const struct eg_names *n, const char *text) { return *place_of(n, text) != NULL; }

void eg_names_put_all(struct eg_names *n, char **texts, size_t count) {
    for (size_t i = 0; i < count; i++)
        eg_name_put(n, texts[i]);
    free(texts);
}

int eg_names_share(struct eg_names *n, struct eg_member *m) {
    char **common = calloc(m->topic_count + 1, sizeof(char *));
    size_t count = 0;
    while (common != NULL && count < m->topic_count && (common[count] = eg_name_get(n, m->topics[count])) != NULL)
        count++;
    for (size_t i = 0; i < m->topic_count; i++)
        free(m->topics[i]);
    free(m->topics);
    bool whole = common != NULL && count == m->topic_count;
    if (!whole && common != NULL) {
        eg_names_put_all(n, common, count);
        common = NULL;
    }
    m->topics = common;
    m->topic_count = whole ? count : 0;
    return whole ? EAGRE_OK : eg_error_set(EAGRE_E_NO_MEMORY, "no memory for what a member subscribes");
}

static int compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool eg_member_subscribes(const struct eg_member *m, const char *topic) {
    return m->topic_count > 0 && bsearch(&topic, m->topics, m->topic_count, sizeof(char *), compare) != NULL;
}

/* ---- subscriptions ------------------------------------------------------------------------------------------- */

void eg_member_forget_coming(struct eg_daemon *d, struct eg_member *m) {
    eg_names_put_all(d->groups->names, m->coming, m->coming_count);
    m->coming = NULL;
    m->coming_count = 0;
    m->coming_began = false;
}

int eg_member_add_coming(struct eg_daemon *d, struct eg_member *m, const char *topic) {
    if (m->coming_count == EG_SUBSCRIBE_MAX)
        return eg_error_set(EAGRE_E_LIMIT,
                            "group '%s': a member can subscribe at most %u topics: use a narrower pattern, or several "
                            "consumers",
                            m->group->name, EG_SUBSCRIBE_MAX);
    if (m->coming == NULL)
        m->coming = malloc(EG_SUBSCRIBE_MAX * sizeof(char *));
    char *text = m->coming != NULL ? eg_name_get(d->groups->names, topic) : NULL;
    if (text == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory for one topic more", m->group->name);
    m->coming[m->coming_count++] = text;
    return EAGRE_OK;
}

/* What has come, each name once, in a list of its own size. */
static int take_coming(struct eg_daemon *d, struct eg_member *m, char ***out, size_t *out_count) {
    char **list = malloc((m->coming_count + 1) * sizeof(char *));
    size_t count = 0;
    if (list == NULL) {
        eg_member_forget_coming(d, m);
        return eg_error_set(EAGRE_E_NO_MEMORY, "group '%s': no memory for what a member subscribes", m->group->name);
    }
    if (m->coming_count > 0)
        qsort(m->coming, m->coming_count, sizeof(char *), compare);
    for (size_t i = 0; i < m->coming_count; i++) {
        if (count > 0 && list[count - 1] == m->coming[i])
            eg_name_put(d->groups->names, m->coming[i]); /* twice */
        else
            list[count++] = m->coming[i];
    }
    free(m->coming);
    m->coming = NULL;
    m->coming_count = 0;
    m->coming_began = false;
    *out = list;
    *out_count = count;
    return EAGRE_OK;
}

int eg_member_subscribe(struct eg_daemon *d, struct eg_member *m, bool pattern) {
    struct eg_names *names = d->groups->names;
    char **old = m->topics, **list = NULL;
    size_t old_count = m->topic_count, count = 0;
    bool was_pattern = m->by_pattern, was_subscribed = m->subscribed;
    int rc = take_coming(d, m, &list, &count);
    if (rc != EAGRE_OK)
        return rc;
    bool same = count == old_count && (count == 0 || memcmp(list, old, count * sizeof(char *)) == 0);
    m->topics = list;
    m->topic_count = count;
    m->by_pattern = pattern;
    m->subscribed = true;
    if (!same || was_pattern != pattern) {
        m->unsaved = true;
        rc = eg_members_save(d, m->group);
    }
    if (rc != EAGRE_OK) {
        m->topics = old;
        m->topic_count = old_count;
        m->by_pattern = was_pattern;
        m->subscribed = was_subscribed;
        eg_names_put_all(names, list, count);
        return rc;
    }
    eg_names_put_all(names, old, old_count);
    if (!was_subscribed)
        eg_group_change(d, m->group, EG_WHY_JOINED);
    else if (!same)
        eg_group_change(d, m->group, EG_WHY_SUBSCRIBED);
    return EAGRE_OK;
}
