#include "placement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon.h"
#include "settings.h"
#include "sys/errbuf.h"

#ifdef HAVE_LIBNUMA
#include <numa.h>
#include <numaif.h>
#endif
#ifdef HAVE_HWLOC
#include <hwloc.h>
#endif

#define NODES_MAX 1024 /* the kernel's own limit */

/* Nodes that this process may take memory from; found on first use, then constant. */
static struct {
    bool known;
    uint32_t count;
    uint64_t bits[NODES_MAX / 64];
} nodes;

static void find_nodes(void) {
    nodes.known = true;
#ifdef HAVE_LIBNUMA
    if (numa_available() >= 0) {
        struct bitmask *allowed = numa_get_mems_allowed(); /* what the cpuset leaves */
        for (unsigned n = 0; allowed != NULL && n < NODES_MAX; n++) {
            if (n < allowed->size && numa_bitmask_isbitset(allowed, n) &&
                numa_bitmask_isbitset(numa_all_nodes_ptr, n)) {
                nodes.bits[n / 64] |= UINT64_C(1) << n % 64;
                nodes.count++;
            }
        }
        if (allowed != NULL)
            numa_bitmask_free(allowed);
    }
#endif
    if (nodes.count == 0) {
        nodes.bits[0] = 1;
        nodes.count = 1;
    }
}

uint32_t eg_placement_nodes(void) {
    if (!nodes.known)
        find_nodes();
    return nodes.count;
}

bool eg_placement_has_node(uint32_t node) {
    if (!nodes.known)
        find_nodes();
    return node < NODES_MAX && (nodes.bits[node / 64] >> node % 64 & 1);
}

const char *eg_placement_print_nodes(char *buf, size_t cap) {
    size_t used = 0;
    buf[0] = '\0';
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        if (!eg_placement_has_node(n))
            continue;
        uint32_t last = n;
        while (eg_placement_has_node(last + 1))
            last++;
        int wrote = snprintf(buf + used, cap - used, last > n ? "%s%u-%u" : "%s%u",
                             used > 0 ? "," : "", n, last);
        if (wrote < 0 || (size_t)wrote >= cap - used)
            break;
        used += (size_t)wrote;
        n = last;
    }
    return buf;
}

bool eg_placement_bind(void *addr, size_t len, int64_t node) {
    if (eg_placement_nodes() < 2 || node == EG_NUMA_AUTO)
        return true;
    if (node >= 0 && !eg_placement_has_node((uint32_t)node))
        return false;
#ifdef HAVE_LIBNUMA
    unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = {0};
    for (uint32_t n = 0; n < NODES_MAX; n++)
        if (node == EG_NUMA_INTERLEAVE ? eg_placement_has_node(n) : n == (uint32_t)node)
            mask[n / (8 * sizeof(unsigned long))] |= 1ul << n % (8 * sizeof(unsigned long));
    /* Preferred, not bound: on a full node a bound page would mean the OOM killer, not an error. */
    return mbind(addr, len, node == EG_NUMA_INTERLEAVE ? MPOL_INTERLEAVE : MPOL_PREFERRED, mask,
                 NODES_MAX, 0) == 0;
#else
    (void)addr;
    (void)len;
    return false;
#endif
}

int eg_placement_run_on(const char *cpus) {
    if (*cpus == '\0')
        return EAGRE_OK;
#ifdef HAVE_HWLOC
    int rc = EAGRE_OK;
    hwloc_topology_t topology = NULL;
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set == NULL || hwloc_topology_init(&topology) != 0 || hwloc_topology_load(topology) != 0) {
        rc = eg_error_set(EAGRE_E_SYSTEM, "cpus=%s: the machine's topology cannot be read", cpus);
    } else if (hwloc_bitmap_list_sscanf(set, cpus) != 0) {
        rc = eg_error_set(EAGRE_E_INVALID_CONFIG, "cpus=%s: must be a list of CPUs like 0-3,8",
                          cpus);
    } else if (!hwloc_bitmap_isincluded(set, hwloc_topology_get_allowed_cpuset(topology))) {
        char *allowed = NULL;
        hwloc_bitmap_list_asprintf(&allowed, hwloc_topology_get_allowed_cpuset(topology));
        rc = eg_error_set(EAGRE_E_INVALID_CONFIG,
                          "cpus=%s: must be among the CPUs that this process may use: %s", cpus,
                          allowed != NULL ? allowed : "?");
        free(allowed);
    } else if (hwloc_set_cpubind(topology, set, HWLOC_CPUBIND_THREAD) != 0) {
        rc = eg_error_set(EAGRE_E_SYSTEM, "cpus=%s: the thread cannot be bound: %s", cpus,
                          strerror(errno));
    }
    if (topology != NULL)
        hwloc_topology_destroy(topology);
    hwloc_bitmap_free(set);
    return rc;
#else
    return eg_error_set(EAGRE_E_UNSUPPORTED, "cpus=%s: this eagred was built without hwloc", cpus);
#endif
}

static int start(struct eg_daemon *d) { return eg_placement_run_on(d->config.cpus); }

const struct eg_service eg_placement_service = {.name = "placement", .start = start};
