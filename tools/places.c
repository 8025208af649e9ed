#include "places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool places_add(struct places *p, const char *topic, int32_t partition, int64_t offset) {
    if (p->count == p->cap) {
        size_t cap = p->cap == 0 ? 64 : 2 * p->cap;
        struct place *more = reallocarray(p->list, cap, sizeof(*more));
        if (more == NULL)
            return false;
        p->list = more;
        p->cap = cap;
    }
    struct place *new = &p->list[p->count];
    *new = (struct place){.partition = partition, .offset = offset, .order = p->count++};
    memcpy(new->topic, topic, strnlen(topic, PLACE_TOPIC_MAX));
    return true;
}

/* A whole number that ends at `end` (one of its characters, or the NUL); *at goes behind it. */
static bool number(const char **at, const char *end, int64_t max, int64_t *n) {
    char *behind;
    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    *n = strtoll(*at, &behind, 10);
    if (errno != 0 || *n > max || (*behind != '\0' && strchr(end, *behind) == NULL))
        return false;
    *at = behind;
    return true;
}

/* The name before the separator. */
static const char *name(const char *text, char separator, char topic[PLACE_TOPIC_MAX + 1], size_t *n) {
    const char *end = strchrnul(text, separator);
    *n = (size_t)(end - text);
    if (*n == 0)
        return "there is no topic";
    if (*n > PLACE_TOPIC_MAX)
        return "no topic has so long a name";
    memcpy(topic, text, *n);
    topic[*n] = '\0';
    return NULL;
}

const char *places_parse(struct places *p, const char *text) {
    char topic[PLACE_TOPIC_MAX + 1];
    int64_t partition;
    size_t n;
    const char *wrong = name(text, ':', topic, &n);
    if (wrong != NULL)
        return wrong;
    if (text[n] == '\0')
        return places_add(p, topic, PLACE_ALL, 0) ? NULL : "no memory";
    for (const char *at = text + n; *at != '\0';) {
        at++;
        if (!number(&at, ",", INT32_MAX, &partition))
            return "partitions are numbers with commas between them";
        if (!places_add(p, topic, (int32_t)partition, 0))
            return "no memory";
    }
    return NULL;
}

const char *places_parse_line(struct places *p, const char *line) {
    char topic[PLACE_TOPIC_MAX + 1];
    int64_t partition, offset;
    size_t n;
    if (line[0] == '\0')
        return NULL;
    const char *wrong = name(line, ',', topic, &n);
    if (wrong != NULL)
        return wrong;
    const char *at = line + n;
    if (*at++ != ',' || !number(&at, ",", INT32_MAX, &partition) || *at++ != ',' || !number(&at, "", INT64_MAX, &offset))
        return "a line is topic,partition,offset";
    return places_add(p, topic, (int32_t)partition, offset) ? NULL : "no memory";
}

static int compare(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    int order = strcmp(x->topic, y->topic);
    if (order == 0)
        order = (x->partition > y->partition) - (x->partition < y->partition);
    return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

void places_settle(struct places *p) {
    size_t kept = 0;
    if (p->count > 0)
        qsort(p->list, p->count, sizeof(*p->list), compare);
    for (size_t i = 0; i < p->count; i++) {
        const struct place *next = i + 1 < p->count ? &p->list[i + 1] : NULL;
        if (next == NULL || next->partition != p->list[i].partition || strcmp(next->topic, p->list[i].topic) != 0)
            p->list[kept++] = p->list[i];
    }
    p->count = kept;
}

void places_free(struct places *p) {
    free(p->list);
    *p = (struct places){0};
}
