#include "layout/group.h"

#include <string.h>

static const char *const assignors[] = {
    [EG_ASSIGN_RANGE] = "range",
    [EG_ASSIGN_ROUND_ROBIN] = "roundrobin",
    [EG_ASSIGN_COOPERATIVE_STICKY] = "cooperative-sticky",
    [EG_ASSIGN_NUMA] = "numa",
};

#define ASSIGNORS (int)(sizeof(assignors) / sizeof(assignors[0]))

const char *eg_assignor_name(int assignor) {
    return assignor > 0 && assignor < ASSIGNORS ? assignors[assignor] : NULL;
}

int eg_assignor_parse(const char *name) {
    for (int i = 1; i < ASSIGNORS; i++)
        if (strcmp(name, assignors[i]) == 0)
            return i;
    return 0;
}
