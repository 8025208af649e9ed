/* places.h - lists of (topic, partition, offset), from --topic and from files of `eagre group seek --export`. */
#ifndef EAGRE_TOOLS_PLACES_H
#define EAGRE_TOOLS_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACE_ALL (-1)
#define PLACE_TOPIC_MAX 255

struct place {
    char topic[PLACE_TOPIC_MAX + 1];
    int32_t partition; /* PLACE_ALL: all that the topic has */
    int64_t offset;
    size_t order; /* in which it was added */
};

struct places {
    struct place *list;
    size_t count, cap;
};

/* False: no memory. */
bool places_add(struct places *p, const char *topic, int32_t partition, int64_t offset);
/* "T", "T:0", "T:0,2"; offset 0. NULL, or what is wrong with it. */
const char *places_parse(struct places *p, const char *text);
/* A line "topic,partition,offset", its newline taken away; empty ones are skipped. NULL, or what is wrong with it. */
const char *places_parse_line(struct places *p, const char *line);
/* Sort by topic and partition; of those that are there more than once the last one stays. */
void places_settle(struct places *p);
void places_free(struct places *p);

#endif
