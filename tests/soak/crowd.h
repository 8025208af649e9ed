/* crowd.h - very many members of one group, in a few processes. */
#ifndef EG_TESTS_SOAK_CROWD_H
#define EG_TESTS_SOAK_CROWD_H

#include "system/harness.h"

/*
 * So many members come, in so many processes; half of them die together, the others leave; so often. Afterwards the
 * instance has in use what it had before. Many deaths at once are one rebalance, or a few.
 */
void soak_crowd(const struct eg_test_bus *b, unsigned members, unsigned processes, unsigned cycles);

#endif
