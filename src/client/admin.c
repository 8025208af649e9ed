#include "eagre/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/talk.h"

static int check_name(const eagre_t *e, const char *name) {
    if (e == NULL || name == NULL)
        return eg_error_set(EAGRE_E_INVALID, "the instance and the topic's name must not be NULL");
    size_t n = strlen(name);
    if (n == 0 || n > EG_TOPIC_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID, "a topic's name has 1 to %u bytes, this one has %zu",
                            EG_TOPIC_NAME_MAX, n);
    return EAGRE_OK;
}

/* CREATE and ALTER. */
static int send_settings(eagre_t *e, uint16_t type, const char *name,
                         const eagre_setting_t *settings, size_t count) {
    int rc = check_name(e, name);
    if (rc != EAGRE_OK)
        return rc;
    if (count > UINT16_MAX || (count > 0 && settings == NULL))
        return eg_error_set(EAGRE_E_INVALID, "topic '%s': %zu settings", name, count);
    for (size_t i = 0; i < count; i++)
        if (settings[i].name == NULL || settings[i].value == NULL ||
            strlen(settings[i].name) > 4096 || strlen(settings[i].value) > 4096)
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "topic '%s': setting %zu: name and value must not be NULL, "
                                "nor have more than 4,096 bytes",
                                name, i + 1);
    struct eg_talk *t = eg_talk_begin(type);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    eg_enc_str(&t->req, name);
    eg_enc_u16(&t->req, (uint16_t)count);
    for (size_t i = 0; i < count; i++) {
        eg_enc_str(&t->req, settings[i].name);
        eg_enc_str(&t->req, settings[i].value);
    }
    rc = eg_talk_send(t, e);
    if (rc == EAGRE_OK && type == EG_MSG_TOPIC_CREATE) {
        eg_dec_u32(&t->reply); /* uid */
        if (!eg_dec_end(&t->reply))
            rc = eg_talk_malformed("TOPIC_CREATE");
    }
    free(t);
    return rc;
}

int eagre_topic_create(eagre_t *e, const char *name, const eagre_setting_t *settings,
                       size_t count) {
    return send_settings(e, EG_MSG_TOPIC_CREATE, name, settings, count);
}

int eagre_topic_alter(eagre_t *e, const char *name, const eagre_setting_t *settings, size_t count) {
    return send_settings(e, EG_MSG_TOPIC_ALTER, name, settings, count);
}

int eagre_topic_delete(eagre_t *e, const char *name) {
    int rc = check_name(e, name);
    if (rc != EAGRE_OK)
        return rc;
    struct eg_talk *t = eg_talk_begin(EG_MSG_TOPIC_DELETE);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    eg_enc_str(&t->req, name);
    rc = eg_talk_send(t, e);
    free(t);
    return rc;
}

/* A request about one partition, as the daemon knows it. */
static struct eg_talk *about_partition(eagre_t *e, uint16_t type, const char *name, int32_t partition, int *rc) {
    *rc = check_name(e, name);
    if (*rc == EAGRE_OK && partition < 0)
        *rc = eg_error_set(EAGRE_E_UNKNOWN_PARTITION, "topic '%s' has no partition %d", name, (int)partition);
    struct eg_talk *t = *rc == EAGRE_OK ? eg_talk_begin(type) : NULL;
    if (t == NULL) {
        *rc = *rc == EAGRE_OK ? EAGRE_E_NO_MEMORY : *rc;
        return NULL;
    }
    eg_enc_str(&t->req, name);
    eg_enc_u32(&t->req, (uint32_t)partition);
    return t;
}

int eagre_topic_trim(eagre_t *e, const char *name, int32_t partition, int64_t before, int64_t *log_start) {
    int rc;
    if (before < -1)
        return eg_error_set(EAGRE_E_INVALID, "eagre_topic_trim: before is %lld", (long long)before);
    struct eg_talk *t = about_partition(e, EG_MSG_TRIM, name, partition, &rc);
    if (t == NULL)
        return rc;
    eg_enc_i64(&t->req, before);
    rc = eg_talk_send(t, e);
    if (rc == EAGRE_OK) {
        int64_t start = eg_dec_i64(&t->reply);
        if (!eg_dec_end(&t->reply))
            rc = eg_talk_malformed("TRIM");
        else if (log_start != NULL)
            *log_start = start;
    }
    free(t);
    return rc;
}

int eagre_topic_resume(eagre_t *e, const char *name, int32_t partition) {
    int rc;
    struct eg_talk *t = about_partition(e, EG_MSG_DISK_RESUME, name, partition, &rc);
    if (t == NULL)
        return rc;
    rc = eg_talk_send(t, e);
    free(t);
    return rc;
}

/* ---- answers in pages ------------------------------------------------------------------------------ */

static int read_topics(struct eg_talk *t, struct eg_list *l, bool *more) {
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_topic_entry_t *entry = eg_list_add(l);
        if (entry == NULL)
            return EAGRE_E_NO_MEMORY;
        eg_dec_str(&t->reply, entry->name, sizeof(entry->name));
        entry->uid = eg_dec_u32(&t->reply);
        entry->partitions = eg_dec_u32(&t->reply);
        bool disk = eg_dec_u8(&t->reply) == EG_STORAGE_DISK;
        snprintf(entry->storage, sizeof(entry->storage), "%s", disk ? "disk" : "memory");
    }
    /* More of nothing would never end. */
    return eg_dec_end(&t->reply) && !(*more && n == 0) ? EAGRE_OK : eg_talk_malformed("TOPIC_LIST");
}

int eagre_topic_list(eagre_t *e, eagre_topic_entry_t **out, size_t *count) {
    if (e == NULL || out == NULL || count == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_topic_list: an argument is NULL");
    struct eg_list l = {.item = sizeof(eagre_topic_entry_t)};
    bool more = true;
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK && more) {
        struct eg_talk *t = eg_talk_begin(EG_MSG_TOPIC_LIST);
        if (t == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eagre_topic_entry_t *entries = l.items;
        eg_enc_str(&t->req, l.count == 0 ? "" : entries[l.count - 1].name);
        rc = eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_topics(t, &l, &more);
        free(t);
    }
    if (rc != EAGRE_OK) {
        free(l.items);
        return rc;
    }
    *out = l.items;
    *count = l.count;
    return EAGRE_OK;
}

static int read_settings(struct eg_talk *t, eagre_topic_info_t *info) {
    struct eg_list l = {.item = sizeof(eagre_topic_setting_t)};
    int rc = EAGRE_OK;
    info->uid = eg_dec_u32(&t->reply);
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_topic_setting_t *s = eg_list_add(&l);
        if (s == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eg_talk_text(t, s->name, sizeof(s->name));
        eg_talk_text(t, s->value, sizeof(s->value));
        s->is_default = eg_dec_u8(&t->reply) != 0;
    }
    if (rc == EAGRE_OK && !eg_dec_end(&t->reply))
        rc = eg_talk_malformed("TOPIC_DESCRIBE");
    info->settings = l.items;
    info->setting_count = l.count;
    return rc;
}

static int read_partitions(struct eg_talk *t, struct eg_list *l, bool *more) {
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_partition_info_t *p = eg_list_add(l);
        if (p == NULL)
            return EAGRE_E_NO_MEMORY;
        p->partition = (int32_t)eg_dec_u32(&t->reply);
        p->state = (int32_t)eg_dec_u32(&t->reply);
        p->log_start_offset = eg_dec_i64(&t->reply);
        p->end_offset = eg_dec_i64(&t->reply);
        p->active_segment = eg_dec_u64(&t->reply);
        p->hot_segments = eg_dec_u64(&t->reply);
        p->memory_bytes = eg_dec_u64(&t->reply);
        p->pinned_bytes = eg_dec_u64(&t->reply);
        p->stalled_offset = eg_dec_i64(&t->reply);
        p->stalled_pid = (int32_t)eg_dec_u32(&t->reply);
        p->stalled_ms = (int64_t)eg_dec_u64(&t->reply);
        p->durable_offset = eg_dec_i64(&t->reply);
        p->disk = eg_dec_u8(&t->reply);
    }
    return eg_dec_end(&t->reply) ? EAGRE_OK : eg_talk_malformed("PARTITIONS");
}

#define EMPTY_MAX 10000 /* replies: more than the longest chain takes */

static int ask_partitions(eagre_t *e, eagre_topic_info_t *info) {
    struct eg_list l = {.item = sizeof(eagre_partition_info_t)};
    bool more = true;
    int rc = EAGRE_OK;
    uint32_t empty = 0; /* replies without an entry: the daemon is still looking for the end of one */
    while (rc == EAGRE_OK && more) {
        size_t before = l.count;
        struct eg_talk *t = eg_talk_begin(EG_MSG_PARTITIONS);
        if (t == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eg_enc_str(&t->req, info->name);
        eg_enc_u32(&t->req, (uint32_t)l.count);
        rc = eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_partitions(t, &l, &more);
        empty = l.count > before ? 0 : empty + 1;
        if (rc == EAGRE_OK && more && empty > EMPTY_MAX)
            rc = eg_talk_malformed("PARTITIONS");
        free(t);
    }
    info->partitions = l.items;
    info->partition_count = l.count;
    return rc;
}

int eagre_topic_describe(eagre_t *e, const char *name, eagre_topic_info_t **out) {
    int rc = check_name(e, name);
    if (rc != EAGRE_OK)
        return rc;
    if (out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_topic_describe: out is NULL");
    eagre_topic_info_t *info = calloc(1, sizeof(*info));
    struct eg_talk *t = info == NULL ? NULL : eg_talk_begin(EG_MSG_TOPIC_DESCRIBE);
    if (t == NULL) {
        free(info);
        return eg_error_set(EAGRE_E_NO_MEMORY, "topic '%s': %s", name, strerror(ENOMEM));
    }
    memcpy(info->name, name, strlen(name) + 1);
    eg_enc_str(&t->req, name);
    rc = eg_talk_send(t, e);
    if (rc == EAGRE_OK)
        rc = read_settings(t, info);
    free(t);
    if (rc == EAGRE_OK)
        rc = ask_partitions(e, info);
    if (rc != EAGRE_OK) {
        eagre_topic_info_free(info);
        return rc;
    }
    *out = info;
    return EAGRE_OK;
}

void eagre_topic_info_free(eagre_topic_info_t *info) {
    if (info == NULL)
        return;
    free(info->settings);
    free(info->partitions);
    free(info);
}

static int read_status(struct eg_talk *t, struct eg_list *l, bool *more) {
    *more = eg_dec_u8(&t->reply) != 0;
    size_t n = eg_dec_u16(&t->reply);
    for (size_t i = 0; i < n && !t->reply.bad; i++) {
        eagre_status_entry_t *s = eg_list_add(l);
        if (s == NULL)
            return EAGRE_E_NO_MEMORY;
        eg_talk_text(t, s->name, sizeof(s->name));
        eg_talk_text(t, s->value, sizeof(s->value));
    }
    return eg_dec_end(&t->reply) && !(*more && n == 0) ? EAGRE_OK : eg_talk_malformed("STATUS");
}

int eagre_daemon_status(eagre_t *e, eagre_status_entry_t **out, size_t *count) {
    if (e == NULL || out == NULL || count == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_daemon_status: an argument is NULL");
    struct eg_list l = {.item = sizeof(eagre_status_entry_t)};
    bool more = true;
    int rc = EAGRE_OK;
    while (rc == EAGRE_OK && more) {
        struct eg_talk *t = eg_talk_begin(EG_MSG_STATUS);
        if (t == NULL) {
            rc = EAGRE_E_NO_MEMORY;
            break;
        }
        eg_enc_u32(&t->req, (uint32_t)l.count);
        rc = eg_talk_send(t, e);
        if (rc == EAGRE_OK)
            rc = read_status(t, &l, &more);
        free(t);
    }
    if (rc != EAGRE_OK) {
        free(l.items);
        return rc;
    }
    *out = l.items;
    *count = l.count;
    return EAGRE_OK;
}

int eagre_daemon_shutdown(eagre_t *e, int keep_memory) {
    if (e == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_daemon_shutdown: the instance is NULL");
    struct eg_talk *t = eg_talk_begin(EG_MSG_SHUTDOWN);
    if (t == NULL)
        return EAGRE_E_NO_MEMORY;
    eg_enc_u8(&t->req, keep_memory != 0);
    int rc = eg_talk_send(t, e);
    free(t);
    return rc;
}
