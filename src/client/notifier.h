/*
 * notifier.h - what stands behind eagre_consumer_fd(): a thread that sleeps on the consumer's bell in
 * its stead and turns a ring into a readable eventfd. An eventfd cannot be rung by producers that
 * know nothing of it, a futex can.
 */
#ifndef EG_CLIENT_NOTIFIER_H
#define EG_CLIENT_NOTIFIER_H

#include <stdint.h>

struct eg_notifier;

int eg_notifier_open(struct eg_notifier **out);
void eg_notifier_close(struct eg_notifier *n);
int eg_notifier_fd(const struct eg_notifier *n);
/* Make the fd readable when *bell differs from seen; at the latest after limit_ns. */
void eg_notifier_arm(struct eg_notifier *n, _Atomic uint32_t *bell, uint32_t seen, int64_t limit_ns);
/* Readable at once. */
void eg_notifier_signal(struct eg_notifier *n);
/* Not readable, until the next ring of what is armed. */
void eg_notifier_drain(struct eg_notifier *n);

#endif
