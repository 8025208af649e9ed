#include "kept.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "eagre/eagre.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "sys/shm.h"

#define ANSWER_MS 5000
#define PIECES_MAX 4096 /* of memory in one object */

/* ---- the keeper -------------------------------------------------------------------------------------- */

/* A daemon that runs has the keeper for itself. Who connects and goes is nothing to it. */
static bool daemon_listens(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    bool yes = sock >= 0 && (connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                             errno == EAGAIN);
    if (sock >= 0)
        close(sock);
    return yes;
}

static bool wait_readable(int sock) {
    int64_t deadline = eg_mono_ns() + ANSWER_MS * EG_NS_PER_MS;
    for (;;) {
        struct pollfd p = {.fd = sock, .events = POLLIN};
        int64_t left = (deadline - eg_mono_ns()) / EG_NS_PER_MS;
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n >= 0 || errno != EINTR)
            return n > 0;
    }
}

/* Takes the descriptor. What is no memory of ours (a topic's bell) is left out. */
static int add(struct kept *k, const char *name, int fd) {
    struct kept_object o = {.fd = -1};
    int rc = EAGRE_OK;
    snprintf(o.name, sizeof(o.name), "%.*s", (int)EG_KEPT_NAME - 1, name);
    if (eg_memfd_check(fd, &o.bytes) == EAGRE_OK)
        rc = eg_memfd_readonly(fd, &o.fd);
    close(fd);
    if (rc != EAGRE_OK || o.fd < 0)
        return rc;
    struct kept_object *more = reallocarray(k->objects, k->count + 1, sizeof(*more));
    if (more == NULL) {
        close(o.fd);
        return eg_error_set(EAGRE_E_NO_MEMORY, "no memory for what the keeper holds");
    }
    k->objects = more;
    k->objects[k->count++] = o;
    return EAGRE_OK;
}

static int list_some(struct kept *k, int sock, struct eg_keeper_message *m, const char *socket) {
    int fds[EG_KEEPER_BATCH];
    size_t got = 0;
    bool cut = false;
    m->magic = EG_KEEPER_MAGIC;
    m->op = EG_KEEPER_LIST;
    m->count = 0;
    if (eg_sendmsg_fds(sock, m, eg_keeper_message_bytes(0), NULL, 0, 0) < 0)
        return eg_error_set(EAGRE_E_CLOSED, "the keeper of %s hung up: is this its user, or root?",
                            socket);
    if (!wait_readable(sock))
        return eg_error_set(EAGRE_E_BUSY,
                            "the keeper of %s does not answer: a daemon uses it (one that starts, "
                            "or was stopped by a signal), or it is stopped itself",
                            socket);
    ssize_t n = eg_recvmsg_fds(sock, m, sizeof(*m), fds, EG_KEEPER_BATCH, &got, &cut, MSG_DONTWAIT);
    int rc = EAGRE_OK;
    if (cut)
        rc = eg_error_set(EAGRE_E_LIMIT, "the keeper holds more descriptors than this process may "
                                         "have: raise RLIMIT_NOFILE (ulimit -n)");
    else if (n <= 0)
        rc = eg_error_set(EAGRE_E_CLOSED, "the keeper of %s hung up: is this its user, or root?",
                          socket);
    else if (!eg_keeper_is_reply(m, n, EG_KEEPER_LIST) || got != m->count || m->status != 0)
        rc = eg_error_set(EAGRE_E_PROTOCOL, "the keeper of %s sent nonsense", socket);
    for (size_t i = 0; i < got; i++) {
        if (rc == EAGRE_OK)
            rc = add(k, m->names[i], fds[i]);
        else
            close(fds[i]);
    }
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strverscmp(((const struct kept_object *)a)->name, ((const struct kept_object *)b)->name);
}

int kept_open(struct kept *k, const char *path) {
    struct eg_keeper_message m = {0};
    struct rlimit files;
    int sock;
    *k = (struct kept){0};
    if (daemon_listens(path))
        return eg_error_set(EAGRE_E_BUSY,
                            "a daemon answers at %s: this is for when it is dead. Use `eagre "
                            "consume` and `eagre status`, or `eagre log` on its files",
                            path);
    int rc = eg_keeper_dial(path, &sock);
    if (rc == EAGRE_E_NO_DAEMON)
        return eg_error_add(rc, "nothing is kept (or systemd keeps it, see eagred(8))");
    if (rc != EAGRE_OK)
        return rc;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    uint32_t before;
    do {
        before = m.from;
        rc = list_some(k, sock, &m, path);
        if (rc == EAGRE_OK && m.from != 0 && m.from <= before)
            rc = eg_error_set(EAGRE_E_PROTOCOL, "the keeper of %s sent nonsense", path);
    } while (rc == EAGRE_OK && m.from != 0);
    close(sock); /* at once: the next daemon waits for this */
    if (rc != EAGRE_OK) {
        kept_close(k);
        return rc;
    }
    if (k->count > 0)
        qsort(k->objects, k->count, sizeof(*k->objects), by_name);
    return EAGRE_OK;
}

void kept_close(struct kept *k) {
    for (size_t i = 0; i < k->count; i++)
        close(k->objects[i].fd);
    free(k->objects);
    *k = (struct kept){0};
}

const struct kept_object *kept_find(const struct kept *k, const char *name) {
    struct kept_object key;
    snprintf(key.name, sizeof(key.name), "%s", name);
    return k->count > 0 ? bsearch(&key, k->objects, k->count, sizeof(key), by_name) : NULL;
}

/* ---- mapping ----------------------------------------------------------------------------------------- */

/* A look at a hole of shared memory would put memory there. So only what has some is mapped, over zeros. */
int kept_map(const struct kept_object *o, void **out) {
    off_t hole = lseek(o->fd, 0, SEEK_HOLE), data = 0, size = (off_t)o->bytes;
    if (hole < 0 || hole >= size) /* also where the kernel does not tell */
        return eg_map(o->fd, 0, o->bytes, false, out);
    uint8_t *at =
        mmap(NULL, o->bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return eg_error_set(EAGRE_E_NO_MEMORY, "%s: cannot map %zu bytes: %s", o->name, o->bytes,
                            strerror(errno));
    for (int pieces = 0; (data = lseek(o->fd, data, SEEK_DATA)) >= 0 && data < size; data = hole) {
        hole = lseek(o->fd, data, SEEK_HOLE);
        if (hole <= data || hole > size || pieces++ == PIECES_MAX ||
            mmap(at + data, (size_t)(hole - data), PROT_READ, MAP_SHARED | MAP_FIXED, o->fd,
                 data) == MAP_FAILED) {
            int e = errno;
            munmap(at, o->bytes);
            return eg_error_set(EAGRE_E_SYSTEM, "%s: cannot map it: %s", o->name,
                                pieces > PIECES_MAX ? "its memory is in too many pieces"
                                                    : strerror(e));
        }
    }
    *out = at;
    return EAGRE_OK;
}
