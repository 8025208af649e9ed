#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "sys/clock.h"

#define EVERY_NS (EG_NS_PER_S / 4)

void progress_begin(struct progress *p, bool wanted) {
    *p = (struct progress){.on = wanted && isatty(STDERR_FILENO)};
    p->started_ns = eg_mono_ns();
    p->next_ns = p->started_ns + EG_NS_PER_S; /* what is quick needs none */
}

void progress_show(struct progress *p, uint64_t records) {
    if (!p->on)
        return;
    int64_t now = eg_mono_ns();
    if (now < p->next_ns)
        return;
    double seconds = (double)(now - p->started_ns) / (double)EG_NS_PER_S;
    fprintf(stderr, "\r%" PRIu64 " records, %.0f/s\033[K", records, (double)records / seconds);
    p->next_ns = now + EVERY_NS;
    p->shown = true;
}

void progress_end(struct progress *p) {
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
