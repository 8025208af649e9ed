#include "proto/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/errbuf.h"

int eg_keeper_find_place(const char *socket_path, struct eg_keeper_place *p) {
    const char *slash = strrchr(socket_path, '/');
    char directory[sizeof(p->path)];
    p->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof(p->address.sun_path))
        return eg_error_set(EAGRE_E_INVALID, "%s is too long for the name of a socket",
                            socket_path);
    snprintf(p->path, sizeof(p->path), "%s" EG_KEEPER_SUFFIX, socket_path);
    snprintf(directory, sizeof(directory), "%.*s",
             slash == NULL || slash == socket_path ? 1 : (int)(slash - socket_path),
             slash == NULL ? "." : socket_path);
    p->directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->directory < 0)
        return eg_error_set(EAGRE_E_IO, "%s: %s", directory, strerror(errno));
    const char *name = slash == NULL ? p->path : p->path + (slash - socket_path) + 1;
    int n = snprintf(p->address.sun_path, sizeof(p->address.sun_path), "/proc/self/fd/%d/%s",
                     p->directory, name);
    if (n >= (int)sizeof(p->address.sun_path)) {
        close(p->directory);
        return eg_error_set(
            EAGRE_E_INVALID_CONFIG,
            "the name of the socket %s is too long by %zu bytes for its keeper's, %s: "
            "choose a shorter one",
            socket_path, (size_t)n + 1 - sizeof(p->address.sun_path), p->path);
    }
    return EAGRE_OK;
}

int eg_keeper_dial(const char *socket_path, int *sock_out) {
    struct eg_keeper_place p;
    int rc = eg_keeper_find_place(socket_path, &p);
    if (rc != EAGRE_OK)
        return rc;
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&p.address, sizeof(p.address)) != 0) {
        rc = errno == ENOENT || errno == ECONNREFUSED
                 ? eg_error_set(EAGRE_E_NO_DAEMON, "no keeper answers at %s", p.path)
                 : eg_error_set(errno == EACCES ? EAGRE_E_PERMISSION : EAGRE_E_SYSTEM,
                                "%s: cannot reach the keeper: %s", p.path, strerror(errno));
        if (sock >= 0)
            close(sock);
    } else {
        *sock_out = sock;
    }
    close(p.directory);
    return rc;
}
