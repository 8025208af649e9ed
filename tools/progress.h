/* progress.h - records and rate on stderr, while it is a terminal that nothing else is written to. */
#ifndef EAGRE_TOOLS_PROGRESS_H
#define EAGRE_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool on;
    bool shown;
    int64_t started_ns;
    int64_t next_ns;
};

void progress_begin(struct progress *p, bool wanted);
void progress_show(struct progress *p, uint64_t records); /* at most some times a second */
void progress_end(struct progress *p);                    /* clears the line */

#endif
