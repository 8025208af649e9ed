/*
 * Peers on the daemon's control socket: the real daemon, all of its services, one thread, in this process.
 * epoll_wait() comes back to us when nothing is left to do, so each message is served before the next is sent.
 *
 *   actions: u8 which (2 bits: connection)
 *     0..7   a message: u16 type   u8 how (1: u8 which header field is wrong)   u8 length, the body
 *     8..9   greet: HELLO, and ATTACH    10..11 hang up    12..13 bytes as they are: u8 length
 *     14..15 another message before the replies are read
 *
 * Topic uids 1, 2, ... count from the topic "t" that is there; an ATTACH to owner 1 is to the last one given; a group's
 * member 1 is the last one that joined.
 * At the end a new connection is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clients.h"
#include "disk_io.h"
#include "fuzz/fuzz.h"
#include "groups.h"
#include "proto/codec.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "topics.h"

#define CONNECTIONS 4
#define ACTIONS_MAX 40

static struct eg_daemon d;
static char dir[256];
static bool is_up;
static int peer[CONNECTIONS];
static bool greeted[CONNECTIONS];
static jmp_buf idle;
static uint32_t first_uid, last_owner;
static uint64_t last_cookie, last_member;

/* ---- the daemon ------------------------------------------------------------------------------------- */

int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout) {
    (void)timeout;
    int n = __real_epoll_wait(fd, events, max, 0);
    if (n <= 0)
        longjmp(idle, 1);
    return n;
}

/* For LMDB: nothing here has to survive, so nothing is waited for. */
__attribute__((visibility("default"))) int fdatasync(int fd);
int fdatasync(int fd) {
    (void)fd;
    return 0;
}
__attribute__((visibility("default"))) int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return openat(AT_FDCWD, path, flags & ~O_DSYNC, mode);
}

static void serve(void) {
    if (setjmp(idle) == 0)
        eg_loop_run(&d);
}

static void configure(const char *name, const char *value) {
    FUZZ_REQUIRE(eg_config_set(&d.config, "fuzz", name, value) == EAGRE_OK);
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *where) {
    (void)st;
    (void)what;
    (void)where;
    return remove(path);
}

static void stop(void) {
    if (!is_up)
        return;
    is_up = false;
    eg_services_stop(&d, false);
    eg_loop_close(d.loop);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void start(void) {
    static bool once;
    char socket_path[300];
    const char *tmp = getenv("TMPDIR");
    if (!once) {
        FUZZ_REQUIRE(atexit(stop) == 0);
        (void)signal(SIGPIPE, SIG_IGN);
        once = true;
    }
    memset(&d, 0, sizeof(d));
    (void)snprintf(dir, sizeof(dir), "%s/eg-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
    FUZZ_REQUIRE(mkdtemp(dir) != NULL);
    (void)snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
    FUZZ_REQUIRE(eg_config_init(&d.config) == EAGRE_OK);
    configure("dir", dir);
    configure("socket", socket_path);
    configure("keeper", "none");
    configure("memory.max", "32M");
    configure("topics.max", "20");
    configure("clients.max", "20");
    configure("connections.max", "20");
    configure("access.create", "*");
    FUZZ_REQUIRE(eg_config_finish(&d.config) == EAGRE_OK);
    d.started_ns = eg_mono_ns();
    FUZZ_REQUIRE(eg_loop_open(&d.loop) == EAGRE_OK);
    if (eg_services_start(&d) != EAGRE_OK) {
        (void)fprintf(stderr, "no daemon: %s\n", eg_error_text());
        abort();
    }
    is_up = true;
}

static void make_topic(void) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    struct eg_change changes[] = {{"segment.bytes", "64K"}, {"partitions", "2"}};
    FUZZ_REQUIRE(eg_topic_create(&d, &us, "t", changes, 2, &first_uid) == EAGRE_OK);
}

/* As it was: no client, no topic but the one that is made next. */
static void forget_all(void) {
    struct eg_peer us = {.uid = geteuid(), .sock = -1};
    if (d.stop != EG_STOP_NOT) {
        stop();
        return;
    }
    serve();
    while (d.topics->count > 0) {
        char name[EG_TOPIC_NAME_MAX + 1];
        (void)snprintf(name, sizeof(name), "%s", eg_topic_name(d.topics->list[0]));
        FUZZ_REQUIRE(eg_topic_delete(&d, &us, name) == EAGRE_OK);
    }
    for (uint32_t i = 1; i <= EG_CLIENTS_MAX && d.clients->count > 0; i++)
        if (d.clients->by_owner[i] != NULL)
            eg_client_free(&d, d.clients->by_owner[i]);
    (void)eg_members_tick(&d, INT64_MAX / 2); /* static members do not come back */
    while (d.groups->count > 0)
        FUZZ_REQUIRE(eg_group_delete(&d, d.groups->list[0]) == EAGRE_OK);
    while (eg_io_wait(d.disk_io)) {} /* files of the topics that are gone */
    serve();
    FUZZ_REQUIRE(d.figures.sessions == 0 && d.figures.topics == 0 && d.figures.partitions == 0 &&
                 d.figures.clients == 0 && d.figures.groups == 0 && d.figures.members == 0);
    FUZZ_REQUIRE(d.figures.memory_committed == 0 && d.figures.memory_allocated == 0 &&
                 d.figures.memory_pinned == 0);
}

/* ---- peers --------------------------------------------------------------------------------------------- */

static int connect_peer(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s/s", dir);
    FUZZ_REQUIRE(fd >= 0);
    FUZZ_REQUIRE(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 || d.stop != EG_STOP_NOT);
    return fd;
}

/* One reply, if there is one: well-formed, and with a reason if it is a refusal. False: none, or hung up. */
static bool take_reply(int i, int *status) {
    static uint8_t buf[EG_MSG_MAX];
    int fds[EG_FDPASS_MAX];
    size_t nfds;
    bool cut;
    struct eg_dec in;
    struct eg_msg_header h;
    ssize_t n =
        eg_recvmsg_fds(peer[i], buf, sizeof(buf), fds, EG_FDPASS_MAX, &nfds, &cut, MSG_DONTWAIT);
    if (n < 0)
        return false;
    if (n == 0) {
        (void)close(peer[i]);
        peer[i] = -1;
        return false;
    }
    for (size_t k = 0; k < nfds; k++)
        (void)close(fds[k]);
    FUZZ_REQUIRE(!cut && eg_dec_begin(&in, buf, (size_t)n, &h) == EAGRE_OK);
    FUZZ_REQUIRE((h.type & EG_MSG_REPLY) != 0 && h.status <= 0 && h.status > -100);
    if (h.status < 0) {
        char why[EG_ERROR_TEXT_MAX];
        eg_dec_str(&in, why, sizeof(why));
        FUZZ_REQUIRE(eg_dec_end(&in) && why[0] != '\0' && nfds == 0);
        FUZZ_REQUIRE(h.status != EAGRE_E_INTERNAL);
    } else if (!greeted[i]) { /* nothing else before it */
        FUZZ_REQUIRE(h.type == (EG_MSG_HELLO | EG_MSG_REPLY));
        greeted[i] = true;
    } else if (h.type == (EG_MSG_ATTACH | EG_MSG_REPLY)) {
        last_owner = eg_dec_u32(&in);
        last_cookie = eg_dec_u64(&in);
    } else if (h.type == (EG_MSG_GROUP_JOIN | EG_MSG_REPLY)) {
        last_member = eg_dec_u64(&in);
    }
    *status = h.status;
    return true;
}

static void take_replies(int i) {
    int status;
    serve();
    while (peer[i] >= 0 && take_reply(i, &status)) {}
}

static void send_bytes(int i, const void *data, size_t n) {
    if (peer[i] < 0) {
        peer[i] = connect_peer();
        greeted[i] = false;
    }
    (void)send(peer[i], data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What the input cannot know. */
static void patch(uint16_t type, uint8_t *body, size_t n) {
    uint32_t v;
    if ((type == EG_MSG_BUFFERS || type == EG_MSG_RELEASE) && n >= 5) {
        memcpy(&v, body + 1, 4);
        if (v > 0 && v < 16) {
            v += first_uid - 1;
            memcpy(body + 1, &v, 4);
        }
    } else if (type == EG_MSG_ATTACH && n >= 12) {
        memcpy(&v, body, 4);
        if (v == 1) {
            memcpy(body, &last_owner, 4);
            memcpy(body + 4, &last_cookie, 8);
        }
    } else if (type >= EG_MSG_GROUP_SUBSCRIBE && type <= EG_MSG_SHARE_OPEN && n >= 8) {
        uint64_t member;
        memcpy(&member, body, 8);
        if (member == 1)
            memcpy(body, &last_member, 8);
    }
}

static void send_message(struct fuzz_in *in, int i) {
    struct eg_msg_header h = {
        .magic = EG_MSG_MAGIC, .version = EG_PROTO_VERSION, .type = fuzz_u16(in), .id = 7};
    uint8_t buf[sizeof(h) + 255];
    if (fuzz_u8(in) == 1) {
        uint8_t wrong = fuzz_u8(in);
        h.magic ^= (wrong & 3) == 1;
        h.version ^= (uint16_t)((wrong & 3) == 2);
        h.status = (wrong & 3) == 3 ? -1 : 0;
    }
    size_t n;
    const uint8_t *body = fuzz_bytes(in, fuzz_u8(in), &n);
    memcpy(buf, &h, sizeof(h));
    if (n > 0)
        memcpy(buf + sizeof(h), body, n);
    patch(h.type, buf + sizeof(h), n);
    send_bytes(i, buf, sizeof(h) + n);
}

static void greet(int i) {
    uint8_t buf[256];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_HELLO, 1, 0);
    eg_enc_u32(&e, EG_LAYOUT_VERSION);
    eg_enc_u32(&e, eg_layout_fingerprint());
    eg_enc_u32(&e, 1);
    eg_enc_str(&e, "fuzz");
    send_bytes(i, buf, e.used);
    take_replies(i);
}

static void attach(int i) {
    uint8_t buf[64];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_ATTACH, 2, 0);
    eg_enc_u32(&e, 0);
    eg_enc_u64(&e, 0);
    send_bytes(i, buf, e.used);
    take_replies(i);
}

static void hang_up(int i) {
    if (peer[i] >= 0)
        (void)close(peer[i]);
    peer[i] = -1;
}

static void act(struct fuzz_in *in) {
    uint8_t which = fuzz_u8(in);
    int i = which & 3;
    size_t n;
    switch (which >> 2 & 15) {
    case 8:
    case 9:
        greet(i);
        attach(i);
        break;
    case 10:
    case 11:
        hang_up(i);
        serve();
        break;
    case 12:
    case 13: {
        const uint8_t *bytes = fuzz_bytes(in, fuzz_u8(in), &n);
        send_bytes(i, bytes, n);
        take_replies(i);
        break;
    }
    case 14:
    case 15:
        send_message(in, i);
        break;
    default:
        send_message(in, i);
        take_replies(i);
        break;
    }
}

/* Whatever the others did, the next one is served. */
static void check_service(void) {
    int status = -1;
    for (int i = 0; i < CONNECTIONS; i++)
        hang_up(i);
    serve();
    if (d.stop != EG_STOP_NOT)
        return;
    greet(0);
    uint8_t buf[64];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_STATUS, 3, 0);
    eg_enc_u32(&e, 0);
    send_bytes(0, buf, e.used);
    serve();
    FUZZ_REQUIRE(take_reply(0, &status) && status == EAGRE_OK);
    hang_up(0);
    serve();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    if (!is_up)
        start();
    size_t before = fuzz_open_fds();
    make_topic();
    for (int i = 0; i < CONNECTIONS; i++)
        peer[i] = -1;
    for (int i = 0; i < ACTIONS_MAX && in.left > 0 && d.stop == EG_STOP_NOT; i++)
        act(&in);
    check_service();
    forget_all();
    for (int i = 0; i < 1000 && is_up && fuzz_open_fds() != before; i++)
        serve(); /* what is left of topics goes in slices */
    FUZZ_REQUIRE(!is_up || fuzz_open_fds() == before);
    return 0;
}
