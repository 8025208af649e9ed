#include "client/talk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct eg_talk *eg_talk_begin(uint16_t type) {
    struct eg_talk *t = malloc(sizeof(*t));
    if (t == NULL)
        eg_error_set(EAGRE_E_NO_MEMORY, "control request: %s", strerror(errno));
    else
        eg_enc_begin(&t->req, t->out, sizeof(t->out), type, 0, 0);
    return t;
}

int eg_talk_send(struct eg_talk *t, eagre_t *e) {
    return eg_session_request(e, &t->req, t->in, sizeof(t->in), &t->reply, NULL, 0, NULL);
}

int eg_talk_malformed(const char *what) {
    return eg_error_set(EAGRE_E_PROTOCOL, "eagred's answer to %s is malformed", what);
}

void eg_talk_text(struct eg_talk *t, char *to, size_t cap) {
    char whole[8192];
    eg_dec_str(&t->reply, whole, sizeof(whole));
    size_t n = strnlen(whole, cap - 1);
    memcpy(to, whole, n);
    to[n] = '\0';
}

void *eg_list_add(struct eg_list *l) {
    void *more = reallocarray(l->items, l->count + 1, l->item);
    if (more == NULL) {
        eg_error_set(EAGRE_E_NO_MEMORY, "control answer: %s", strerror(errno));
        return NULL;
    }
    l->items = more;
    void *new = (uint8_t *)more + l->count++ * l->item;
    memset(new, 0, l->item);
    return new;
}
