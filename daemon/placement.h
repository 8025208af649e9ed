/*
 * placement.h - where things are: the daemon's thread on CPUs (hwloc), buffers on NUMA nodes
 * (libnuma). On a machine with one node everything here does nothing.
 */
#ifndef EG_PLACEMENT_H
#define EG_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nodes with memory that this process may use; 1 at least. */
uint32_t eg_placement_nodes(void);
bool eg_placement_has_node(uint32_t node);
/* "0-1,4": for messages. Returns buf. */
const char *eg_placement_print_nodes(char *buf, size_t cap);

/*
 * From where the pages of this mapping of a memfd come that have no memory yet: preferably from a
 * node, or from all in turn (EG_NUMA_INTERLEAVE). The rule belongs to the memfd: it also holds for what
 * other processes allocate in it. Best effort; false: the kernel refused.
 */
bool eg_placement_bind(void *addr, size_t len, int64_t node);

/* Where to run: a list like "0-3,8"; "": anywhere. EAGRE_E_INVALID_CONFIG, EAGRE_E_SYSTEM. */
int eg_placement_run_on(const char *cpus);

#endif
