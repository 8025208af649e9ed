/* disk.c - the service that writes to disk has its jobs done by; before the topics, and behind them at the end. */
#include "daemon.h"
#include "disk_io.h"

static int start(struct eg_daemon *d) { return eg_io_open(d, &d->disk_io); }

static void stop(struct eg_daemon *d, bool keep) {
    (void)keep;
    eg_io_close(d->disk_io);
    d->disk_io = NULL;
}

const struct eg_service eg_disk_service = {.name = "disk", .start = start, .stop = stop};
