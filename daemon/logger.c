#include "logger.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"

static enum eg_log_level wanted = EG_LOG_INFO;

void eg_log_set_level(enum eg_log_level level) { wanted = level; }

/* One write a line, so that lines of several processes on one stderr do not mix. */
static void write_line(enum eg_log_level level, const char *text) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    static const int journal[] = {3, 4, 6, 7}; /* of syslog */
    char line[1200];
    int n;
    if (getenv("JOURNAL_STREAM") != NULL) {
        n = snprintf(line, sizeof(line), "<%d>%s\n", journal[level], text);
    } else {
        int64_t now = eg_now_ns();
        time_t seconds = (time_t)(now / EG_NS_PER_S);
        struct tm tm;
        gmtime_r(&seconds, &tm);
        n = snprintf(line, sizeof(line), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ eagred: %s: %s\n",
                     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                     (int)(now % EG_NS_PER_S / EG_NS_PER_MS), names[level], text);
    }
    size_t length = n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1;
    line[length - 1] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, length); /* a log that is gone stops nobody */
    (void)ignored;
}

void eg_log(enum eg_log_level level, const char *fmt, ...) {
    if (level > wanted)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    write_line(level, text);
}

void eg_log_limited(struct eg_log_limit *limit, enum eg_log_level level, const char *fmt, ...) {
    if (level > wanted)
        return;
    int64_t now = eg_mono_ns();
    if (now < limit->next_ns) {
        limit->left_out++;
        return;
    }
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (limit->left_out > 0 && n > 0 && (size_t)n < sizeof(text))
        snprintf(text + n, sizeof(text) - (size_t)n, " (and %llu such lines before)",
                 (unsigned long long)limit->left_out);
    limit->next_ns = now + 10 * EG_NS_PER_S;
    limit->left_out = 0;
    write_line(level, text);
}
