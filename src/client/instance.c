#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/session.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/fork_guard.h"
#include "sys/shm.h"

#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

int eagre_default_socket(char *buf, size_t cap) {
    char path[4096];
    const char *set = getenv(EAGRE_SOCKET_ENV);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n;
    if (buf == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_default_socket: buf is NULL");
    if (set != NULL && set[0] != '\0')
        n = snprintf(path, sizeof(path), "%s", set);
    else if (geteuid() == 0)
        n = snprintf(path, sizeof(path), "/run/eagre/eagre.sock");
    else if (runtime != NULL && runtime[0] == '/')
        n = snprintf(path, sizeof(path), "%s/eagre/eagre.sock", runtime);
    else
        n = snprintf(path, sizeof(path), "/tmp/eagre-%u/eagre.sock", (unsigned)geteuid());
    if (n < 0 || (size_t)n > SOCKET_PATH_MAX)
        return eg_error_set(EAGRE_E_INVALID,
                            "the socket's path %.60s... has more than %zu bytes: set $%s to "
                            "a shorter one",
                            path, SOCKET_PATH_MAX, EAGRE_SOCKET_ENV);
    if ((size_t)n >= cap)
        return eg_error_set(EAGRE_E_INVALID, "the socket's path needs %d bytes, there are %zu",
                            n + 1, cap);
    memcpy(buf, path, (size_t)n + 1);
    return EAGRE_OK;
}

static void free_instance(struct eagre *e) {
    eg_session_disconnect(e);
    if (e->page != NULL)
        eg_unmap(e->page, sizeof(*e->page));
    if (e->bells_ro != NULL)
        eg_unmap(e->bells_ro, sizeof(*e->bells_ro));
    if (e->bells_rw != NULL)
        eg_unmap(e->bells_rw, sizeof(*e->bells_rw));
    if (e->bus != NULL)
        eg_unmap((void *)(uintptr_t)e->bus, EG_PAGE);
    free(e->held);
    free(e->members);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

int eagre_open(const char *socket_path, eagre_t **out) {
    char path[SOCKET_PATH_MAX + 1];
    if (out == NULL)
        return eg_error_set(EAGRE_E_INVALID, "eagre_open: out is NULL");
    if (socket_path == NULL) {
        int rc = eagre_default_socket(path, sizeof(path));
        if (rc != EAGRE_OK)
            return rc;
        socket_path = path;
    }
    size_t n = strlen(socket_path);
    if (n == 0 || n > SOCKET_PATH_MAX)
        return eg_error_set(EAGRE_E_INVALID,
                            "the socket's path must have 1 to %zu bytes, this one has %zu: %.80s",
                            SOCKET_PATH_MAX, n, socket_path);
    struct eagre *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return eg_error_set(EAGRE_E_NO_MEMORY, "eagre_open: %s", strerror(errno));
    memcpy(e->path, socket_path, n + 1);
    e->sock = -1;
    e->page_fd = -1;
    e->fork_guard = eg_fork_guard();
    pthread_mutex_init(&e->lock, NULL);
    int rc = eg_session_connect(e, eg_mono_ns() + eg_request_limit_ns);
    if (rc == EAGRE_E_WOULD_BLOCK)
        rc = EAGRE_E_TIMED_OUT;
    if (rc != EAGRE_OK) {
        free_instance(e);
        return rc;
    }
    *out = e;
    return EAGRE_OK;
}

int eagre_close(eagre_t *e) {
    if (e == NULL)
        return EAGRE_OK;
    uint32_t handles = eg_load_acquire(&e->handles);
    /* A fork child's handles are not counted any more when it closes them. */
    if (handles != 0 && eg_session_forked(e) == EAGRE_OK)
        return eg_error_set(EAGRE_E_STATE,
                            "%u producers and consumers are still open: close them first", handles);
    /* The lock on the page goes first: with it and the socket gone the daemon knows that we left in
     * good order. */
    eg_session_close_fd(e, e->page_fd);
    free_instance(e);
    return EAGRE_OK;
}

int32_t eagre_daemon_pid(const eagre_t *e) {
    return e == NULL ? 0 : (int32_t)eg_load_relaxed(&e->daemon_pid);
}
