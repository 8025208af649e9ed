#include "client/wish.h"

#include <stdlib.h>
#include <string.h>

/* GROUP_SUBSCRIBE's flags. */
#define FIRST 1u
#define LAST 2u
#define IF_THERE 4u

static int no_memory(void) { return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for topic names"); }

static void free_names(char **list, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
}

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void free_listing(struct eg_wish *w) {
    free_names(w->listing.list, w->listing.count);
    w->listing = (struct eg_names){0};
}

void eg_wish_free(struct eg_wish *w) {
    free_names(w->names, w->name_count);
    free_names(w->matched, w->matched_count);
    free_listing(w);
    for (size_t i = 0; i < w->pattern_count; i++)
        regfree(&w->patterns[i]);
    free(w->patterns);
    *w = (struct eg_wish){0};
}

static int add_pattern(struct eg_wish *w, const char *text) {
    char why[128];
    int err = regcomp(&w->patterns[w->pattern_count], text, REG_EXTENDED | REG_NOSUB);
    if (err != 0) {
        regerror(err, &w->patterns[w->pattern_count], why, sizeof(why));
        return eg_error_set(err == REG_ESPACE ? EAGRE_E_NO_MEMORY : EAGRE_E_INVALID, "the expression '%.200s' is not good: %s",
                            text, why);
    }
    w->pattern_count++;
    return EAGRE_OK;
}

int eg_wish_make(struct eg_wish *w, const char *const *topics, size_t count) {
    int rc = EAGRE_OK;
    *w = (struct eg_wish){.names = calloc(count, sizeof(*w->names)), .patterns = calloc(count, sizeof(*w->patterns))};
    if (w->names == NULL || w->patterns == NULL)
        rc = no_memory();
    for (size_t i = 0; i < count && rc == EAGRE_OK; i++) {
        if (topics[i][0] == '^')
            rc = add_pattern(w, topics[i]);
        else if ((w->names[w->name_count] = strdup(topics[i])) != NULL)
            w->name_count++;
        else
            rc = no_memory();
    }
    if (rc != EAGRE_OK) {
        eg_wish_free(w);
        return rc;
    }
    qsort(w->names, w->name_count, sizeof(*w->names), compare);
    w->listed = w->pattern_count == 0;
    return EAGRE_OK;
}

/* ---- what matches ------------------------------------------------------------------------------------------ */

static int add_match(struct eg_names *l, const char *name) {
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
        char **list = reallocarray(l->list, cap, sizeof(*list));
        if (list == NULL)
            return no_memory();
        l->list = list;
        l->cap = cap;
    }
    if ((l->list[l->count] = strdup(name)) == NULL)
        return no_memory();
    l->count++;
    return EAGRE_OK;
}

static bool matches(const struct eg_wish *w, const char *name) {
    if (w->name_count > 0 && bsearch(&name, w->names, w->name_count, sizeof(*w->names), compare) != NULL)
        return false; /* it is ours anyway */
    for (size_t i = 0; i < w->pattern_count; i++)
        if (regexec(&w->patterns[i], name, 0, NULL, 0) == 0)
            return true;
    return false;
}

/* One page. *more: it was not the last. */
static int list_page(eagre_consumer_t *c, struct eg_wish *w, bool *more) {
    struct eg_names *l = &w->listing;
    struct eg_enc req;
    struct eg_dec reply;
    char name[EG_TOPIC_NAME_MAX + 1];
    eg_enc_begin(&req, c->group->out, EG_MSG_MAX, EG_MSG_TOPIC_LIST, 0, 0);
    eg_enc_str(&req, l->after);
    int rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
    if (rc != EAGRE_OK)
        return rc;
    *more = eg_dec_u8(&reply) != 0;
    size_t n = eg_dec_u16(&reply);
    for (size_t i = 0; i < n && rc == EAGRE_OK && !reply.bad; i++) {
        eg_dec_str(&reply, name, sizeof(name));
        (void)eg_dec_u32(&reply);
        (void)eg_dec_u32(&reply);
        (void)eg_dec_u8(&reply);
        if (!reply.bad && matches(w, name))
            rc = add_match(l, name);
    }
    if (rc == EAGRE_OK && (!eg_dec_end(&reply) || (*more && n == 0)))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to TOPIC_LIST is malformed");
    if (rc == EAGRE_OK && *more)
        memcpy(l->after, name, sizeof(name));
    return rc;
}

int eg_wish_list(eagre_consumer_t *c, struct eg_wish *w) {
    struct eg_names *l = &w->listing;
    int rc = EAGRE_OK;
    for (bool more = !w->listed; more && rc == EAGRE_OK;)
        rc = list_page(c, w, &more);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc; /* and the next call goes on with that page */
    if (rc == EAGRE_OK && !w->listed) {
        if (l->count > 0)
            qsort(l->list, l->count, sizeof(*l->list), compare);
        w->listed = true;
        free_names(w->matched, w->matched_count);
        w->matched = l->list;
        w->matched_count = l->count;
        *l = (struct eg_names){0};
        w->sent = 0;
    }
    free_listing(w);
    return rc;
}

/* ---- what the daemon is told --------------------------------------------------------------------------------- */

/* So many names as fit: plain ones and others do not share a part. Who has patterns ends with a part of what they
 * match, if that be nothing: then the daemon tells of new topics. */
static int send_part(eagre_consumer_t *c, struct eg_wish *w, bool *last) {
    struct eg_enc req;
    struct eg_dec reply;
    bool plain = w->sent < w->name_count;
    size_t end = plain ? w->name_count : w->name_count + w->matched_count, at = w->sent;
    eg_enc_begin(&req, c->group->out, EG_MSG_MAX, EG_MSG_GROUP_SUBSCRIBE, 0, 0);
    eg_enc_u64(&req, c->group->member);
    size_t flags_at = req.used;
    eg_enc_u8(&req, 0);
    size_t count_at = req.used;
    eg_enc_u16(&req, 0);
    for (; at < end && req.used + EG_TOPIC_NAME_MAX + 16 < EG_MSG_MAX; at++)
        eg_enc_str(&req, plain ? w->names[at] : w->matched[at - w->name_count]);
    *last = at == w->name_count + w->matched_count && (!plain || w->pattern_count == 0);
    eg_enc_patch_u8(&req, flags_at,
                    (uint8_t)((w->sent == 0 ? FIRST : 0) | (*last ? LAST : 0) | (!plain || w->lenient ? IF_THERE : 0)));
    eg_enc_patch_u16(&req, count_at, (uint16_t)(at - w->sent));
    int rc = eg_group_ask(c, &req, &reply, NULL, 0, NULL, NULL);
    if (rc == EAGRE_OK && !eg_dec_end(&reply))
        rc = eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to GROUP_SUBSCRIBE is malformed");
    if (rc == EAGRE_OK)
        w->sent = at;
    return rc;
}

int eg_wish_send(eagre_consumer_t *c, struct eg_wish *w) {
    bool last = false;
    int rc = EAGRE_OK;
    if (w->sent == 0)
        w->told = eg_load_acquire(&c->e->bus->epoch);
    while (rc == EAGRE_OK && !last)
        rc = send_part(c, w, &last);
    if (rc == EAGRE_E_WOULD_BLOCK)
        return rc;
    bool parts = w->sent > 0;
    w->sent = 0;
    /* What one daemon was told another does not know: from the front. (It says so, too, of a part that it knows no first
     * one of.) */
    if (parts && (rc == EAGRE_E_STATE || eg_load_acquire(&c->e->bus->epoch) != w->told))
        return EAGRE_E_WOULD_BLOCK;
    /* It was subscribed to these before: topics may have gone since, and come back. */
    if ((rc == EAGRE_E_UNKNOWN_TOPIC || rc == EAGRE_E_PERMISSION) && c->group->subscribed && w == &c->group->wish && !w->lenient) {
        w->lenient = true;
        return eg_wish_send(c, w);
    }
    return rc;
}
