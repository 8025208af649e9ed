/*
 * faultpoint.c - see faultpoint.h.
 */
#include "sys/faultpoint.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/errbuf.h"

enum action { ACTION_KILL, ACTION_STOP, ACTION_ABORT, ACTION_CALL };

static const char *const action_names[] = {"kill", "stop", "abort", "call"};

#define POINTS_MAX 16
#define SPEC_MAX 1024

struct point {
    const char *name; /* in spec_copy */
    uint64_t at;      /* acts on this hit, counted from 1 */
    enum action action;
    _Atomic uint64_t hits; /* counted by every thread that comes by: relaxed, nothing hangs on it */
};

/* Set before threads meet points (see faultpoint.h), except for the counters. */
static char spec_copy[SPEC_MAX];
static struct point points[POINTS_MAX];
static size_t points_count;
static bool calls_listed;
static eg_fault_hook *hook;
static void *hook_arg;

_Atomic uint32_t eg_fault_armed;

static void rearm(void) { eg_store_relaxed(&eg_fault_armed, points_count > 0 || hook != NULL); }

void eg_fault_set_hook(eg_fault_hook *new_hook, void *arg) {
    hook = new_hook;
    hook_arg = arg;
    rearm();
}

/* "name[@N]=action", which is cut into its parts. */
static bool parse_point(char *entry, struct point *out) {
    char *equals = strchr(entry, '=');
    if (equals == NULL || equals == entry) {
        return false;
    }
    *equals = '\0';
    char *at = strchr(entry, '@');
    out->at = 1;
    if (at != NULL) {
        char *end;
        *at = '\0';
        out->at = strtoull(at + 1, &end, 10);
        if (at == entry || at[1] < '0' || at[1] > '9' || *end != '\0' || out->at == 0) {
            return false;
        }
    }
    out->name = entry;
    eg_store_relaxed(&out->hits, 0);
    for (size_t i = 0; i < sizeof action_names / sizeof action_names[0]; i++) {
        if (strcmp(equals + 1, action_names[i]) == 0) {
            out->action = (enum action)i;
            return true;
        }
    }
    return false;
}

int eg_fault_configure(const char *spec) {
    points_count = 0;
    calls_listed = false;
    rearm();
    if (spec == NULL || *spec == '\0') {
        return EAGRE_OK;
    }
    if (strlen(spec) >= sizeof spec_copy) {
        return eg_error_set(EAGRE_E_INVALID, "EAGRE_FAULT: longer than %d bytes", SPEC_MAX - 1);
    }
    strcpy(spec_copy, spec);
    size_t count = 0;
    for (char *rest = spec_copy, *entry; (entry = strsep(&rest, ",")) != NULL;) {
        if (count == POINTS_MAX) {
            return eg_error_set(EAGRE_E_INVALID, "EAGRE_FAULT: more than %d points", POINTS_MAX);
        }
        if (!parse_point(entry, &points[count])) {
            return eg_error_set(EAGRE_E_INVALID,
                                "EAGRE_FAULT: '%s' is not a list of NAME[@N]=kill|stop|abort|call",
                                spec);
        }
        calls_listed |= points[count].action == ACTION_CALL;
        count++;
    }
    points_count = count;
    rearm();
    return EAGRE_OK;
}

static void call_hook(const char *name) {
    if (hook != NULL) {
        hook(name, hook_arg);
    }
}

static void act(enum action action, const char *name) {
    switch (action) {
    case ACTION_KILL:
        (void)raise(SIGKILL);
        break;
    case ACTION_STOP:
        (void)raise(SIGSTOP);
        break;
    case ACTION_ABORT:
        abort();
    case ACTION_CALL:
        call_hook(name);
        break;
    }
}

void eg_fault_hit(const char *name) {
    for (size_t i = 0; i < points_count; i++) {
        if (strcmp(points[i].name, name) == 0 &&
            eg_fetch_add_relaxed(&points[i].hits, 1) + 1 == points[i].at) {
            act(points[i].action, name);
        }
    }
    if (!calls_listed) {
        call_hook(name);
    }
}

#ifdef EG_FAULTPOINTS
__attribute__((constructor)) static void read_environment(void) {
    if (eg_fault_configure(getenv("EAGRE_FAULT")) != EAGRE_OK) {
        (void)fprintf(stderr, "%s\n", eg_error_text());
        abort();
    }
}
#endif
