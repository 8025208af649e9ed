/* log.c - the daemon's log lines, of code that is linked here: counted, and the last one kept. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "logger.h"
#include "powercut/powercut.h"

struct lines lines;

static void __attribute__((format(printf, 2, 0)))
line(enum eg_log_level level, const char *fmt, va_list ap) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    if (level > EG_LOG_WARNING)
        return;
    pthread_mutex_lock(&mutex);
    lines.errors += level == EG_LOG_ERROR;
    lines.warnings += level == EG_LOG_WARNING;
    (void)vsnprintf(lines.last, sizeof(lines.last), fmt, ap);
    pthread_mutex_unlock(&mutex);
}

void eg_log_set_level(enum eg_log_level level) { (void)level; }

void eg_log(enum eg_log_level level, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    line(level, fmt, ap);
    va_end(ap);
}

void eg_log_limited(struct eg_log_limit *limit, enum eg_log_level level, const char *fmt, ...) {
    va_list ap;
    (void)limit;
    va_start(ap, fmt);
    line(level, fmt, ap);
    va_end(ap);
}
