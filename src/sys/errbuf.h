/*
 * errbuf.h - the thread's last error text.
 *
 * eg_error_set() formats the detail and returns the status, so that a failure is one line:
 *     return eg_error_set(EAGRE_E_IO, "%s: cannot write: %s", path, strerror(errno));
 * eg_error_add() puts a prefix before the present text: "topic 'a': <text so far>".
 */
#ifndef EG_SYS_ERRBUF_H
#define EG_SYS_ERRBUF_H

#include "eagre/error.h"

#define EG_ERROR_TEXT_MAX 512

int eg_error_set(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
int eg_error_add(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
const char *eg_error_text(void);

#ifdef __clang_analyzer__ /* which cannot see into another file that the status comes back */
#define eg_error_set(status, ...)                                                                  \
    __extension__({                                                                                \
        int same_status = (status);                                                                \
        (void)(eg_error_set)(same_status, __VA_ARGS__);                                            \
        same_status;                                                                               \
    })
#define eg_error_add(status, ...)                                                                  \
    __extension__({                                                                                \
        int same_status_added = (status);                                                          \
        (void)(eg_error_add)(same_status_added, __VA_ARGS__);                                      \
        same_status_added;                                                                         \
    })
#endif

#endif
