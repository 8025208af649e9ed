/* systemd's descriptor store as the keeper, with a stand-in for systemd. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "harness_raw.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"

#define STORED_MAX 16

/* What systemd does with NOTIFY_SOCKET, as sd_notify(3) and systemd.exec(5) tell it. */
struct manager {
    int sock, end[2];
    char path[100];
    pthread_t thread;
    pthread_mutex_t lock;
    bool ready, stopping;
    size_t count;
    char name[STORED_MAX][64];
    int fd[STORED_MAX];
};

static struct eg_raw raw;

static void forget(struct manager *m, const char *name) {
    for (size_t i = 0; i < m->count;) {
        if (strcmp(m->name[i], name) != 0) {
            i++;
            continue;
        }
        close(m->fd[i]);
        m->count--;
        memmove(m->name[i], m->name[m->count], sizeof(m->name[i]));
        m->fd[i] = m->fd[m->count];
    }
}

static void handle(struct manager *m, char *text, int *fds, size_t nfds) {
    bool store = false, drop = false;
    const char *name = "stored";
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        store |= strcmp(line, "FDSTORE=1") == 0;
        drop |= strcmp(line, "FDSTOREREMOVE=1") == 0;
        m->ready |= strcmp(line, "READY=1") == 0;
        m->stopping |= strcmp(line, "STOPPING=1") == 0;
        if (strncmp(line, "FDNAME=", 7) == 0)
            name = line + 7;
    }
    if (drop)
        forget(m, name);
    for (size_t i = 0; i < nfds; i++) {
        if (store && m->count < STORED_MAX) {
            snprintf(m->name[m->count], sizeof(m->name[0]), "%s", name);
            m->fd[m->count++] = fds[i];
        } else {
            close(fds[i]); /* of a barrier: this is the answer */
        }
    }
}

static void *manage(void *arg) {
    struct manager *m = arg;
    for (;;) {
        struct pollfd p[2] = {{.fd = m->sock, .events = POLLIN},
                              {.fd = m->end[0], .events = POLLIN}};
        char text[1024];
        int fds[EG_FDPASS_MAX];
        size_t nfds;
        bool cut;
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents != 0)
            return NULL;
        ssize_t n = eg_recvmsg_fds(m->sock, text, sizeof(text) - 1, fds, EG_FDPASS_MAX, &nfds, &cut,
                                   MSG_DONTWAIT);
        if (n < 0)
            continue;
        text[n] = '\0';
        pthread_mutex_lock(&m->lock);
        handle(m, text, fds, nfds);
        pthread_mutex_unlock(&m->lock);
    }
}

static void manager_start(struct manager *m, struct eg_test_bus *b) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *m = (struct manager){.lock = PTHREAD_MUTEX_INITIALIZER};
    snprintf(m->path, sizeof(m->path), "%s/notify", b->dir);
    strcpy(address.sun_path, m->path);
    m->sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(m->sock, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(pipe2(m->end, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&m->thread, NULL, manage, m), 0);
}

static void manager_stop(struct manager *m) {
    close(m->end[1]);
    pthread_join(m->thread, NULL);
    close(m->end[0]);
    close(m->sock);
    for (size_t i = 0; i < m->count; i++)
        close(m->fd[i]);
}

static size_t stored(struct manager *m) {
    pthread_mutex_lock(&m->lock);
    size_t n = m->count;
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* As systemd would: what is stored from descriptor 3 on, with its names. */
static void start(struct manager *m, struct eg_test_bus *b) {
    char notify[128], count[32], names[1100] = "LISTEN_FDNAMES=", byte, pid_text[40];
    char data[100], path[100];
    int ready[2];
    pthread_mutex_lock(&m->lock); /* until the child has its copies */
    snprintf(notify, sizeof(notify), "NOTIFY_SOCKET=%s", m->path);
    snprintf(count, sizeof(count), "LISTEN_FDS=%zu", m->count);
    for (size_t i = 0; i < m->count; i++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i > 0 ? ":" : "",
                 m->name[i]);
    snprintf(data, sizeof(data), "--dir=%s", b->data);
    snprintf(path, sizeof(path), "--socket=%s", b->socket);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    b->pid = fork();
    if (b->pid == 0) {
        int high[STORED_MAX], ready_end = fcntl(ready[1], F_DUPFD_CLOEXEC, 100);
        for (size_t i = 0; i < m->count; i++)
            high[i] = fcntl(m->fd[i], F_DUPFD_CLOEXEC, 100);
        dup2(log, 2);
        for (size_t i = 0; i < m->count; i++)
            dup2(high[i], 3 + (int)i);
        dup2(ready_end, 40);
        putenv(notify);
        if (m->count > 0) {
            snprintf(pid_text, sizeof(pid_text), "LISTEN_PID=%d", (int)getpid());
            putenv(pid_text);
            putenv(count);
            putenv(names);
        }
        execl(EG_TEST_BIN_DIR "/eagred", "eagred", data, path, "--ready-fd=40", (char *)NULL);
        _exit(127);
    }
    pthread_mutex_unlock(&m->lock);
    close(log);
    close(ready[1]);
    ssize_t got = read(ready[0], &byte, 1);
    close(ready[0]);
    if (got != 1) {
        char *text = eg_bus_log(b);
        print_error("%s", text);
        free(text);
        fail_msg("eagred did not start");
    }
}

static uint64_t instance_of(struct eg_test_bus *b, uint32_t *epoch, char *keeper, size_t cap) {
    eg_raw_connect(&raw, b->socket);
    uint64_t id = eg_raw_hello(&raw, epoch);
    eg_raw_figure(&raw, "keeper", keeper, cap);
    eg_raw_close(&raw);
    return id;
}

static bool heard(struct manager *m, const bool *what) {
    pthread_mutex_lock(&m->lock);
    bool yes = *what;
    pthread_mutex_unlock(&m->lock);
    return yes;
}

static bool is_ready(void *ctx) {
    struct manager *m = ctx;
    return heard(m, &m->ready);
}

static bool is_stopping(void *ctx) {
    struct manager *m = ctx;
    return heard(m, &m->stopping);
}

static void memory_outlives_the_daemon_in_the_store(void **state) {
    struct eg_test_bus *b = *state;
    struct manager m;
    uint32_t epoch;
    char keeper[16];
    manager_start(&m, b);

    start(&m, b);
    if (stored(&m) == 0) { /* built without libsystemd */
        manager_stop(&m);
        skip();
    }
    uint64_t id = instance_of(b, &epoch, keeper, sizeof(keeper));
    assert_string_equal(keeper, "systemd");
    assert_int_equal(eg_bus_keeper(b), 0);
    assert_int_equal(epoch, 1);
    assert_true(stored(&m) >= 2); /* bus, bells */
    eg_wait_until(is_ready, &m, "READY=1");

    for (uint32_t i = 2; i < 5; i++) {
        eg_bus_kill(b);
        start(&m, b);
        assert_true(instance_of(b, &epoch, keeper, sizeof(keeper)) == id);
        assert_int_equal(epoch, i);
    }
    assert_int_equal(eg_bus_stop(b), 0);
    eg_wait_until(is_stopping, &m, "STOPPING=1");
    assert_int_equal(stored(&m), 0); /* a clean stop lets go of the memory */

    start(&m, b);
    assert_true(instance_of(b, &epoch, keeper, sizeof(keeper)) != id);
    eg_bus_stop(b);
    manager_stop(&m);
}

static void strange_descriptors_are_closed(void **state) {
    struct eg_test_bus *b = *state;
    struct manager m;
    uint32_t epoch;
    char keeper[16];
    manager_start(&m, b);
    strcpy(m.name[0], "bus"); /* no memfd */
    m.fd[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
    strcpy(m.name[1], "web.socket");
    m.fd[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
    m.count = 2;
    start(&m, b);
    instance_of(b, &epoch, keeper, sizeof(keeper));
    assert_int_equal(epoch, 1);
    char *log = eg_bus_log(b);
    assert_non_null(strstr(log, "web.socket"));
    assert_non_null(strstr(log, "'bus' is not usable"));
    free(log);
    eg_bus_stop(b);
    manager_stop(&m);
}

#define STOPPED(f) cmocka_unit_test_setup_teardown(f, eg_setup_bus_stopped, eg_teardown_bus)

int main(void) {
    const struct CMUnitTest tests[] = {
        STOPPED(memory_outlives_the_daemon_in_the_store),
        STOPPED(strange_descriptors_are_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
