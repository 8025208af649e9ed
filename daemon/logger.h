/*
 * logger.h - the daemon's log: lines on stderr, "eagred: warning: text". Under systemd the level goes
 * ahead as "<4>" and the time is left to the journal; else each line begins with the time.
 */
#ifndef EG_LOGGER_H
#define EG_LOGGER_H

#include <stdint.h>

enum eg_log_level { EG_LOG_ERROR = 0, EG_LOG_WARNING = 1, EG_LOG_INFO = 2, EG_LOG_DEBUG = 3 };

void eg_log_set_level(enum eg_log_level level);
void eg_log(enum eg_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));

#define eg_log_error(...) eg_log(EG_LOG_ERROR, __VA_ARGS__)
#define eg_log_warning(...) eg_log(EG_LOG_WARNING, __VA_ARGS__)
#define eg_log_info(...) eg_log(EG_LOG_INFO, __VA_ARGS__)
#define eg_log_debug(...) eg_log(EG_LOG_DEBUG, __VA_ARGS__)

/* For what may happen a thousand times a second: at most one line each 10 s; the next one tells how
 * many were left out. Zero-initialised, one for each kind of line. */
struct eg_log_limit {
    int64_t next_ns;
    uint64_t left_out;
};
void eg_log_limited(struct eg_log_limit *limit, enum eg_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

#endif
