/* The product's fault points, as found in its sources when this was built. */
#ifndef EG_TESTS_TORTURE_POINTS_H
#define EG_TESTS_TORTURE_POINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const size_t torture_point_count; /* 0: the product has none compiled in */
const char *torture_point(size_t i);
/* Any of those that the daemon, or a client, can come to. */
const char *torture_point_pick(bool of_the_daemon, uint32_t random);
/* Number of the point, or torture_point_count. */
size_t torture_point_number(const char *name);

/* Count this process's hits in hits[], which has room for TORTURE_POINTS. */
void torture_count_hits(_Atomic uint64_t *hits);

#endif
