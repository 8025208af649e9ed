/* share.c - share groups. */
#include "client/share.h"

int eg_shared_begin(eagre_consumer_t *c) {
    (void)c;
    return EAGRE_OK;
}

int eg_shared_open(eagre_consumer_t *c, struct assigned *a) {
    (void)a;
    return eg_error_set(EAGRE_E_UNSUPPORTED, "group '%s': share groups", c->group->id);
}

void eg_shared_close(eagre_consumer_t *c, struct assigned *a, bool given_up) { (void)c, (void)a, (void)given_up; }

int eg_shared_poll(eagre_consumer_t *c, struct assigned *a, eagre_record_t *records, size_t max, size_t *n) {
    (void)a, (void)records, (void)max, (void)n;
    return eg_error_set(EAGRE_E_UNSUPPORTED, "group '%s': share groups", c->group->id);
}

bool eg_shared_has_news(const struct assigned *a) {
    (void)a;
    return false;
}
