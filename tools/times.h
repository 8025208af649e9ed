/* times.h - points in time as a person writes them. */
#ifndef EAGRE_TOOLS_TIMES_H
#define EAGRE_TOOLS_TIMES_H

#include "cli.h"

/*
 * Nanoseconds since the epoch, from a text that begins with '@': milliseconds since the epoch (@1735689600000), before now
 * (@-90s, @-1h, @-2d, @-500ms, @-15m) or ISO 8601 (@2025-01-01, @2025-01-01T12:30:00.5Z, ...+01:00; without a
 * zone: the local one). False: it is none of them.
 */
bool time_parse(const char *text, int64_t now_ns, int64_t *ns);
/* The same, now; or a usage error that names the option. */
int64_t cli_time(const struct cli *c, const char *option, const char *text);

#endif
