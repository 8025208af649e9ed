/*
 * eagre/eagre.h - connect to a bus.
 *
 * Eagre is Kafka's model - topics, partitions, keys, offsets, retention, replay - for the processes
 * of one host, at shared-memory speed. A daemon, eagred, owns the topics. A client opens an
 * instance (this header), then producers (producer.h) and consumers (consumer.h) on it; records
 * then move through mapped memory with neither a system call nor the daemon in their path.
 * Administration is in admin.h, statuses are in error.h.
 *
 * Threads
 *   eagre_t            any thread; calls are serialised inside
 *   eagre_producer_t   one thread at a time; open one per thread
 *   eagre_consumer_t   one thread at a time; open one per thread
 *   error detail       per thread
 *
 * fork: a child must not use handles that it inherited; every call on them returns EAGRE_E_FORKED
 * (close only frees memory). It may open an instance of its own. exec is fine: everything is
 * close-on-exec.
 *
 * A daemon that dies takes nothing along: attached producers and consumers go on through the ring
 * that is left, and the session reconnects by itself when a daemon is back.
 *
 * Time: a call with a timeout (eagre_consumer_poll's timeout_ms, a producer's max_block_ms) keeps it, also
 * towards a daemon that is stopped, slow or away; with 0 it never waits for the daemon. What it asked the daemon
 * for is taken up by a later call. All other calls that need the daemon (open, assign, seek to the end,
 * administration) give it 10 s in all, then they fail with EAGRE_E_TIMED_OUT, which names its pid. Closing a
 * handle gives it a second.
 */
#ifndef EAGRE_EAGRE_H
#define EAGRE_EAGRE_H

#include "eagre/error.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define EAGRE_VERSION_MAJOR 0
#define EAGRE_VERSION_MINOR 1
#define EAGRE_VERSION_PATCH 0
#define EAGRE_VERSION_STRING "0.1.0"

/* The environment variable that names the socket where no argument does. */
#define EAGRE_SOCKET_ENV "EAGRE_SOCKET"

/* The version of the library that runs ("0.1.0"). Static. */
const char *eagre_version(void);

/*
 * The socket that eagre_open(NULL, ...) uses: $EAGRE_SOCKET, else /run/eagre/eagre.sock for root,
 * else $XDG_RUNTIME_DIR/eagre/eagre.sock, else /tmp/eagre-UID/eagre.sock. Written to buf with its
 * NUL. EAGRE_E_INVALID: it does not fit in cap bytes or in a socket address (107 bytes).
 */
int eagre_default_socket(char *buf, size_t cap);

typedef struct eagre eagre_t;

/*
 * Connect to the daemon at socket_path (NULL: eagre_default_socket). On success *out is an
 * instance to be closed by eagre_close; on failure *out is untouched.
 * EAGRE_E_NO_DAEMON: nobody listens there; EAGRE_E_PERMISSION: the socket's mode forbids it;
 * EAGRE_E_VERSION: daemon and library do not fit together; EAGRE_E_LIMIT: too many connections.
 */
int eagre_open(const char *socket_path, eagre_t **out);

/*
 * Close the connection and free the instance. Its producers and consumers must be closed before:
 * EAGRE_E_STATE else, and nothing is closed. NULL is fine.
 */
int eagre_close(eagre_t *e);

/* Pid of the daemon, as of the last (re)connect. */
int32_t eagre_daemon_pid(const eagre_t *e);

/* ---- what producer.h and consumer.h share ---------------------------------------------------- */

/* A record's header as in Kafka: a name and bytes. value NULL: a null value. */
typedef struct eagre_header {
    const char *name;   /* not NUL-terminated when it comes from a record */
    size_t name_len;
    const void *value;
    size_t value_len;
} eagre_header_t;

/* What to do while there is nothing to read or no room to write (Aeron's idle strategies). */
typedef enum eagre_wait {
    EAGRE_WAIT_SLEEP = 0, /* spin shortly, then sleep in the kernel: costs no CPU. The default */
    EAGRE_WAIT_YIELD = 1, /* spin, giving the CPU away between looks */
    EAGRE_WAIT_SPIN = 2   /* busy-spin: lowest latency, one CPU at 100 % */
} eagre_wait_t;

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
