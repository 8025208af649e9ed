#include "lanes.h"

#include <stdlib.h>

#define WAIT_MS 1000

static int lane_open(struct lanes *l, int32_t partition, int64_t from_ns) {
    eagre_consumer_options_t options = EAGRE_CONSUMER_OPTIONS_INIT;
    options.auto_offset_reset = EAGRE_RESET_NONE; /* nothing is skipped without a word */
    struct lane **more = reallocarray(l->list, l->count + 1, sizeof(struct lane *));
    if (more == NULL)
        return EAGRE_E_NO_MEMORY;
    l->list = more;
    struct lane *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return EAGRE_E_NO_MEMORY;
    l->list[l->count++] = a;
    a->topic = l->topic;
    a->partition = partition;
    int rc = eagre_consumer_open(l->e, &options, &a->consumer);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_assign(a->consumer, l->topic, partition);
    if (rc == EAGRE_OK)
        rc = eagre_consumer_end_offset(a->consumer, l->topic, partition, &a->end);
    if (rc == EAGRE_OK)
        rc = from_ns >= 0 ? eagre_consumer_seek_time(a->consumer, l->topic, partition, from_ns)
                          : eagre_consumer_seek(a->consumer, l->topic, partition, EAGRE_OFFSET_BEGINNING);
    return rc;
}

int lanes_open(struct lanes *l, eagre_t *e, const char *topic, const int32_t *only, size_t only_count, int64_t from_ns) {
    *l = (struct lanes){.e = e, .topic = topic};
    int rc = EAGRE_OK;
    for (size_t i = 0; i < only_count && rc == EAGRE_OK; i++)
        rc = lane_open(l, only[i], from_ns);
    for (int32_t p = 0; only_count == 0 && rc == EAGRE_OK; p++) {
        rc = lane_open(l, p, from_ns);
        if (rc == EAGRE_E_UNKNOWN_PARTITION && p > 0) {
            l->list[l->count - 1]->done = true; /* there are no more */
            return EAGRE_OK;
        }
    }
    return rc;
}

void lanes_close(struct lanes *l) {
    for (size_t i = 0; i < l->count; i++) {
        eagre_consumer_close(l->list[i]->consumer);
        free(l->list[i]);
    }
    free(l->list);
    *l = (struct lanes){0};
}

int lanes_read(struct lane *a) {
    int64_t at;
    a->at = a->count = 0;
    int rc = eagre_consumer_poll(a->consumer, a->records, LANE_RECORDS, 0, &a->count);
    while (rc == EAGRE_OK && a->count == 0) {
        rc = eagre_consumer_position(a->consumer, a->topic, a->partition, &at);
        if (rc != EAGRE_OK || at >= a->end) {
            a->done = true;
            return rc;
        }
        rc = eagre_consumer_poll(a->consumer, a->records, LANE_RECORDS, WAIT_MS, &a->count);
    }
    for (size_t i = 0; i < a->count; i++) {
        if (a->records[i].offset >= a->end) {
            a->count = i;
            a->done = i == 0;
            break;
        }
    }
    return a->count > 0 ? EAGRE_OK : rc;
}

struct lane *lanes_oldest(struct lanes *l, struct lane **empty) {
    struct lane *best = NULL;
    *empty = NULL;
    for (size_t i = 0; i < l->count; i++) {
        struct lane *a = l->list[i];
        if (a->at < a->count) {
            if (best == NULL || a->records[a->at].timestamp_ns < best->records[best->at].timestamp_ns)
                best = a;
        } else if (!a->done) {
            *empty = a;
            return NULL;
        }
    }
    return best;
}
