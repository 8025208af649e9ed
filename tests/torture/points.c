#include "torture/points.h"

#include <string.h>

#include "fault_points.h" /* made by CMake */
#include "sys/faultpoint.h"
#include "torture/control.h"

static const char *const points[] = {EG_FAULT_POINTS_OF_CLIENTS EG_FAULT_POINTS_OF_DAEMON};
static const char *const of_daemon[] = {EG_FAULT_POINTS_OF_DAEMON};
_Static_assert(sizeof(points) / sizeof(points[0]) <= TORTURE_POINTS, "there is a counter for each");

#ifdef EG_FAULTPOINTS
const size_t torture_point_count = sizeof(points) / sizeof(points[0]);
#else
const size_t torture_point_count = 0;
#endif

const char *torture_point_pick(bool of_the_daemon, uint32_t random) {
    size_t all = sizeof(points) / sizeof(points[0]),
           daemon = sizeof(of_daemon) / sizeof(of_daemon[0]);
    return of_the_daemon ? of_daemon[random % daemon] : points[random % (all - daemon)];
}

const char *torture_point(size_t i) { return points[i]; }

size_t torture_point_number(const char *name) {
    size_t i = 0;
    while (i < torture_point_count && strcmp(points[i], name) != 0)
        i++;
    return i;
}

static void count_hit(const char *name, void *hits) {
    size_t i = torture_point_number(name);
    if (i < torture_point_count)
        eg_fetch_add_relaxed(&((_Atomic uint64_t *)hits)[i], 1);
}

void torture_count_hits(_Atomic uint64_t *hits) {
    if (torture_point_count > 0)
        eg_fault_set_hook(count_hit, (void *)hits);
}
