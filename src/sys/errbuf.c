/*
 * errbuf.c - see errbuf.h; and what include/eagre/error.h promises.
 */
#include "sys/errbuf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef eg_error_set /* what errbuf.h tells the analyzer */
#undef eg_error_add

static _Thread_local char text[EG_ERROR_TEXT_MAX];

/* Keep it one line, whatever names it quotes (they may come from a socket or a file). */
static void keep(const char *from) {
    size_t i = 0;
    for (; from[i] != '\0' && i < sizeof text - 1; i++) {
        unsigned char c = (unsigned char)from[i];
        text[i] = c < 0x20 || c == 0x7f ? ' ' : from[i];
    }
    text[i] = '\0';
}

int eg_error_set(int status, const char *fmt, ...) {
    int saved = errno;
    char next[EG_ERROR_TEXT_MAX]; /* the arguments may point into text */
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(next, sizeof next, fmt, args);
    va_end(args);
    keep(next);
    errno = saved;
    return status;
}

int eg_error_add(int status, const char *fmt, ...) {
    int saved = errno;
    char prefix[EG_ERROR_TEXT_MAX];
    char next[2 * EG_ERROR_TEXT_MAX + 2]; /* all of both; keep() cuts it */
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(prefix, sizeof prefix, fmt, args);
    va_end(args);
    (void)snprintf(next, sizeof next, "%s: %s", prefix, text);
    keep(next);
    errno = saved;
    return status;
}

const char *eg_error_text(void) { return text; }

const char *eagre_error_detail(void) { return text; }

enum error_class { CLASS_ERROR, CLASS_RETRY, CLASS_FATAL };

static const struct error_entry {
    const char *name;
    const char *text;
    enum error_class class;
} entries[] = {[0] = {"EAGRE_OK", "success", CLASS_ERROR},
#define ENTRY(code, name_, class_, text_) [-(code)] = {"EAGRE_E_" #name_, text_, CLASS_##class_},
               EAGRE_ERROR_MAP(ENTRY)
#undef ENTRY
};

/* NULL for a code that is not in the map. */
static const struct error_entry *entry_of(int status) {
    const int count = sizeof entries / sizeof entries[0];
    if (status > 0 || status <= -count || entries[-status].name == NULL) {
        return NULL;
    }
    return &entries[-status];
}

const char *eagre_status_name(int status) {
    const struct error_entry *e = entry_of(status);
    return e != NULL ? e->name : "EAGRE_E_?";
}

const char *eagre_status_text(int status) {
    const struct error_entry *e = entry_of(status);
    return e != NULL ? e->text : "unknown status";
}

int eagre_status_is_retriable(int status) {
    const struct error_entry *e = entry_of(status);
    return e != NULL && e->class == CLASS_RETRY;
}

int eagre_status_is_fatal(int status) {
    const struct error_entry *e = entry_of(status);
    return e != NULL && e->class == CLASS_FATAL;
}
