/*
 * graves.h - memory that is not used any more, given back in slices: to free a gigabyte takes most of a second,
 * and the memory of a topic may have thousands of descriptors, each of which the keeper must let go of.
 */
#ifndef EG_GRAVES_H
#define EG_GRAVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eg_daemon;

/*
 * Take over a mapped object. kept: the name under which the keeper still has it, which nobody uses again; NULL:
 * it does not. empty: nobody relies on what is in it, so its pages can be freed before the last one has unmapped it.
 */
void eg_grave_add(struct eg_daemon *d, void *base, size_t size, int fd, const char *kept, bool empty);
/* Memory or descriptors are short: now, as much as goes in this time. False: there is nothing to give back. */
bool eg_graves_finish(struct eg_daemon *d, int64_t limit_ns);

#endif
