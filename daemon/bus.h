/*
 * bus.h - the instance-wide objects: bus page and bells.
 */
#ifndef EG_BUS_H
#define EG_BUS_H

struct eg_daemon;

/* Ring all doorbells: everybody who sleeps looks again. Some milliseconds: for starts and stops. */
void eg_bus_ring_all(struct eg_daemon *d);

#endif
