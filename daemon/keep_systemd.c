#include "systemd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/errbuf.h"
#include "sys/faultpoint.h"

#ifdef HAVE_LIBSYSTEMD

#include <systemd/sd-daemon.h>

#define ANSWER_US 5000000ull

bool eg_systemd_is_there(void) { return getenv("NOTIFY_SOCKET") != NULL; }

void eg_systemd_notify(const char *state) { sd_notify(0, state); }

/* The store has no answers, but what comes after a barrier's answer came after the store, too. */
static int say(const char *what, const char *name, const char *state, const int *fds,
               unsigned nfds) {
    int rc = sd_pid_notify_with_fds(0, 0, state, fds, nfds);
    if (rc > 0) {
        EG_FAULT("keep.sent");
        rc = sd_notify_barrier(0, ANSWER_US);
        EG_FAULT("keep.taken");
    }
    if (rc > 0)
        return EAGRE_OK;
    return eg_error_set(EAGRE_E_SYSTEM, "systemd's descriptor store: cannot %s '%s': %s", what,
                        name, rc == 0 ? "NOTIFY_SOCKET is not set" : strerror(-rc));
}

int eg_systemd_store(const char *name, int fd) {
    char state[160];
    snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    return say("store", name, state, &fd, 1);
}

int eg_systemd_remove(const char *name) {
    char state[160];
    snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    return say("remove", name, state, NULL, 0);
}

int eg_systemd_stored(int (*f)(void *ctx, const char *name, int fd), void *ctx) {
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names);
    if (n < 0)
        return eg_error_set(EAGRE_E_SYSTEM, "cannot take the descriptors that systemd passed: %s",
                            strerror(-n));
    int rc = EAGRE_OK;
    for (int i = 0; i < n; i++) {
        if (rc == EAGRE_OK)
            rc = f(ctx, names[i], SD_LISTEN_FDS_START + i);
        free(names[i]);
    }
    free(names);
    return rc;
}

#else

bool eg_systemd_is_there(void) { return false; }
void eg_systemd_notify(const char *state) { (void)state; }

static int absent(void) {
    return eg_error_set(EAGRE_E_UNSUPPORTED,
                        "keeper=systemd: this eagred was built without libsystemd");
}

int eg_systemd_store(const char *name, int fd) {
    (void)name;
    (void)fd;
    return absent();
}

int eg_systemd_remove(const char *name) {
    (void)name;
    return absent();
}

int eg_systemd_stored(int (*f)(void *ctx, const char *name, int fd), void *ctx) {
    (void)f;
    (void)ctx;
    return absent();
}

#endif
