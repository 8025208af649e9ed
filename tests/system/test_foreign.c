/*
 * Clients of another Unix user and what they can do with all that they are given: every descriptor and every mapping
 * is tried, whatever it is, so that none is forgotten. Root runs this, for it needs other users.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"
#include "harness_raw.h"
#include "harness_user.h"
#include "layout/layout.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)
#define SETTINGS(...)                                                                              \
    (const eagre_setting_t[]){__VA_ARGS__},                                                        \
        sizeof((const eagre_setting_t[]){__VA_ARGS__}) / sizeof(eagre_setting_t)
#define SMALL                                                                                      \
    { "storage", "memory" }, { "segment.bytes", "64K" }, { "ring.segments", "4" }
#define RECORDS 50

static struct eg_test_bus *b;
static eagre_t *e; /* root's */
static eagre_producer_t *p;
static eagre_consumer_t *c;
static struct eg_raw raw; /* the child's */

static int produce(eagre_producer_t *by, int i) {
    char text[32];
    snprintf(text, sizeof(text), "record %d", i);
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = 0};
    return eagre_produce(by, &m, NULL, NULL);
}

static void expect(eagre_consumer_t *by, int i) {
    char text[32];
    eagre_record_t r;
    size_t n = 0;
    snprintf(text, sizeof(text), "record %d", i);
    OK(eagre_consumer_poll(by, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
    assert_int_equal(r.value_len, strlen(text));
    assert_memory_equal(r.value, text, r.value_len);
}

static int setup(void **state) {
    eg_setup_bus_stopped(state);
    b = *state;
    eg_bus_open_to_all(b);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    OK(eagre_open(b->socket, &e));
    OK(eagre_topic_create(e, "t", SETTINGS(SMALL, {"access.produce", "creator"})));
    OK(eagre_topic_create(e, "own", SETTINGS(SMALL, {"access.produce", "user:65534"},
                                             {"access.consume", "user:65534"})));
    OK(eagre_topic_create(e, "secret", SETTINGS(SMALL, {"access.consume", "creator"},
                                                {"access.produce", "creator"})));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    for (int i = 0; i < RECORDS; i++)
        OK(produce(p, i));
    return 0;
}

static int teardown(void **state) {
    eagre_consumer_close(c);
    eagre_producer_close(p);
    eagre_close(e);
    return eg_teardown_bus(state);
}

/* Whatever the child tried: what was there is there unchanged, and all go on. */
static void nothing_has_happened(void) {
    char pid[16];
    for (int i = 0; i < RECORDS; i++)
        expect(c, i);
    for (int i = RECORDS; i < 3 * RECORDS; i++) {
        OK(produce(p, i));
        expect(c, i);
    }
    eg_raw_connect(&raw, b->socket);
    eg_raw_hello(&raw, NULL);
    eg_raw_figure(&raw, "pid", pid, sizeof(pid));
    assert_int_equal(atoi(pid), b->pid);
    eg_raw_close(&raw);
}

/* ---- what can be tried ------------------------------------------------------------------------------ */

/* Who holds it for writing may do these. They change what is in it, never what it is. */
enum { MAP_W = 1, WRITE = 2, PUNCH = 4, ZERO = 8, ALLOCATE = 16, PROTECT = 32, REMOVE = 64, CONTENT = 127 };
/* These nobody may. */
enum { REOPEN = 128, SHRINK = 256, GROW = 512, CHMOD = 1024, CHOWN = 2048, SEAL = 4096, COLLAPSE = 8192 };

static bool can_reopen(int fd, int flags) {
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, flags | O_CLOEXEC);
    if (again >= 0)
        close(again);
    return again >= 0;
}

static bool can_map(int fd) {
    void *at = mmap(NULL, EG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        munmap(at, EG_PAGE);
    return at != MAP_FAILED;
}

/* In the page after `skip`: what is in an object that the test's own clients need is left alone. */
static int tries(int fd, off_t skip) {
    struct stat st;
    char byte = 0;
    int done = 0;
    assert_int_equal(fstat(fd, &st), 0);
    off_t size = st.st_size, at = skip + EG_PAGE <= size ? skip : 0;
    done |= can_map(fd) ? MAP_W : 0;
    done |= can_reopen(fd, O_RDWR) || can_reopen(fd, O_WRONLY) || can_reopen(fd, O_RDWR | O_TRUNC) ? REOPEN : 0;
    done |= pwrite(fd, &byte, 1, at) == 1 ? WRITE : 0;
    done |= fallocate(fd, 0, at, EG_PAGE) == 0 ? ALLOCATE : 0;
    done |= fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, EG_PAGE) == 0 ? PUNCH : 0;
    done |= fallocate(fd, FALLOC_FL_ZERO_RANGE, at, EG_PAGE) == 0 ? ZERO : 0;
    done |= fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, at, EG_PAGE) == 0 ||
                    fallocate(fd, FALLOC_FL_INSERT_RANGE, at, EG_PAGE) == 0
                ? COLLAPSE
                : 0;
    done |= ftruncate(fd, 0) == 0 || ftruncate(fd, size - EG_PAGE) == 0 ? SHRINK : 0;
    done |= ftruncate(fd, size + EG_PAGE) == 0 || fallocate(fd, 0, size, EG_PAGE) == 0 ||
                    pwrite(fd, &byte, 1, size) == 1
                ? GROW
                : 0;
    done |= fchmod(fd, 0666) == 0 ? CHMOD : 0;
    done |= fchown(fd, getuid(), getgid()) == 0 ? CHOWN : 0;
    done |= fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0 ? SEAL : 0;
    void *map = mmap(NULL, EG_PAGE, PROT_READ, MAP_SHARED, fd, at);
    assert_true(map != MAP_FAILED);
    done |= mprotect(map, EG_PAGE, PROT_READ | PROT_WRITE) == 0 ? PROTECT : 0;
    done |= madvise(map, EG_PAGE, MADV_REMOVE) == 0 ? REMOVE : 0;
    munmap(map, EG_PAGE);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, size);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_uid, 0);
    return done;
}

static const char *name_of(int fd, char *buf, size_t cap) {
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, buf, cap - 1);
    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

/* writable: may it change what is in there? */
static void check_fd(int fd, bool writable, off_t skip) {
    char name[128];
    int done = tries(fd, skip);
    bool wrong = writable ? (done & ~CONTENT) != 0 || (done & MAP_W) == 0 : done != 0;
    if (wrong)
        fail_msg("%s (%s): %#x could be done to it", name_of(fd, name, sizeof(name)),
                 writable ? "writable" : "for reading", (unsigned)done);
}

/* The daemon and the processes of others. */
static void check_processes(const struct eg_test_bus *at) {
    const pid_t pids[] = {at->pid, getppid()};
    static const char *const files[] = {"mem", "fd", "maps", "environ", "map_files"};
    char path[64], byte = 0;
    struct iovec local = {&byte, 1}, remote = {(void *)check_processes, 1};
    for (size_t i = 0; i < 2; i++) {
        pid_t pid = pids[i];
        assert_int_not_equal(kill(pid, SIGSTOP), 0);
        assert_int_not_equal(ptrace(PTRACE_ATTACH, pid, NULL, NULL), 0);
        assert_int_equal(process_vm_writev(pid, &local, 1, &remote, 1, 0), -1);
        assert_int_equal(process_vm_readv(pid, &local, 1, &remote, 1, 0), -1);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        assert_true(pidfd < 0 || syscall(SYS_pidfd_getfd, pidfd, 3, 0) < 0);
        close(pidfd);
        for (size_t k = 0; k < sizeof(files) / sizeof(files[0]); k++) {
            snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, files[k]);
            assert_int_equal(open(path, O_RDONLY), -1);
        }
    }
}

/* ---- by hand: every descriptor that the daemon gives ----------------------------------------------------- */

static void ask_attach(void) {
    eg_raw_begin(&raw, EG_MSG_ATTACH);
    eg_enc_u32(&raw.enc, 0);
    eg_enc_u64(&raw.enc, 0);
    assert_int_equal(eg_raw_ask(&raw), 0);
    assert_int_equal(raw.nfds, 2);
}

static int ask_open(uint8_t role, const char *topic) {
    eg_raw_begin(&raw, EG_MSG_OPEN);
    eg_enc_u8(&raw.enc, role);
    eg_enc_u32(&raw.enc, UINT32_MAX);
    eg_enc_str(&raw.enc, topic);
    return eg_raw_ask(&raw);
}

static int ask_buffers(uint8_t role, uint32_t uid) {
    eg_raw_begin(&raw, EG_MSG_BUFFERS);
    eg_enc_u8(&raw.enc, role);
    eg_enc_u32(&raw.enc, uid);
    eg_enc_u32(&raw.enc, 0);
    eg_enc_u16(&raw.enc, 0);
    return eg_raw_ask(&raw);
}

/* HELLO's descriptor, too, which eg_raw_hello() closes. */
static void begin_by_hand(const struct eg_test_bus *at) {
    eg_raw_connect(&raw, at->socket);
    eg_raw_begin(&raw, EG_MSG_HELLO);
    eg_enc_u32(&raw.enc, EG_LAYOUT_VERSION);
    eg_enc_u32(&raw.enc, eg_layout_fingerprint());
    eg_enc_u32(&raw.enc, 1);
    eg_enc_str(&raw.enc, "by hand");
    assert_int_equal(eg_raw_ask(&raw), 0);
    assert_int_equal(raw.nfds, 1);
    check_fd(raw.fds[0], false, 0); /* bus */
    ask_attach();
    check_fd(raw.fds[0], true, EG_PAGE); /* its own page */
    check_fd(raw.fds[1], false, 0);      /* bells */
}

static int consumer_by_hand(void *ctx) {
    begin_by_hand(ctx);
    assert_int_equal(ask_open(EG_ROLE_PRODUCER, "t"), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(EG_ROLE_PRODUCER, "secret"), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(EG_ROLE_CONSUMER, "secret"), EAGRE_E_PERMISSION);
    assert_int_equal(ask_open(EG_ROLE_CONSUMER, "t"), 0);
    assert_int_equal(raw.nfds, 3);
    uint32_t uid = eg_dec_u32(&raw.dec);
    check_fd(raw.fds[0], false, EG_PAGE); /* status */
    check_fd(raw.fds[1], false, 0);       /* ring */
    check_fd(raw.fds[2], true, EG_PAGE);  /* waiters */
    for (uint32_t other = 0; other < 10; other++) { /* whatever topic it asks for by number */
        int status = ask_buffers(EG_ROLE_PRODUCER, other);
        assert_true(status == EAGRE_E_PERMISSION || status == EAGRE_E_TOPIC_DELETED);
        if (other != uid) {
            status = ask_buffers(EG_ROLE_CONSUMER, other);
            assert_true(status == EAGRE_E_PERMISSION || status == EAGRE_E_TOPIC_DELETED);
        }
    }
    assert_int_equal(ask_buffers(EG_ROLE_CONSUMER, uid), 0);
    assert_int_equal(raw.nfds, 4);
    for (size_t i = 0; i < raw.nfds; i++)
        check_fd(raw.fds[i], false, 0);
    check_processes(ctx);
    return 0;
}

static void a_consumer_writes_to_nothing_but_its_own(void **state) {
    (void)state;
    eg_as_user(EG_USER_A, consumer_by_hand, b);
    nothing_has_happened();
}

static bool is_eventfd(int fd) {
    char name[64];
    return strcmp(name_of(fd, name, sizeof(name)), "anon_inode:[eventfd]") == 0;
}

/* A producer may write all that is its topic's, and bells; it can change the size or owner of none. */
static int producer_by_hand(void *ctx) {
    begin_by_hand(ctx);
    assert_int_equal(ask_open(EG_ROLE_PRODUCER, "own"), 0);
    assert_int_equal(raw.nfds, 5);
    uint32_t uid = eg_dec_u32(&raw.dec);
    check_fd(raw.fds[0], false, EG_PAGE); /* status: the daemon's words */
    check_fd(raw.fds[1], true, 0);
    check_fd(raw.fds[2], true, 0);
    check_fd(raw.fds[3], true, 0); /* all bells: what sleeps looks again, see consumer.c */
    assert_true(is_eventfd(raw.fds[4]));
    assert_int_equal(ask_buffers(EG_ROLE_PRODUCER, uid), 0);
    for (size_t i = 0; i < raw.nfds; i++)
        check_fd(raw.fds[i], true, 0);
    check_processes(ctx);
    return 0;
}

static void a_producer_destroys_its_own_topic_only(void **state) {
    eagre_topic_info_t *info;
    (void)state;
    eg_as_user(EG_USER_A, producer_by_hand, b);
    nothing_has_happened();
    OK(eagre_topic_describe(e, "own", &info));
    eagre_topic_info_free(info);
    OK(eagre_topic_delete(e, "own"));
    OK(eagre_topic_create(e, "own", SETTINGS(SMALL)));
}

/* ---- through the library: every descriptor and mapping that the process has ------------------------------------ */

static bool is_ours(const char *name) { return strstr(name, "/memfd:eagre") != NULL; }
static bool may_write(const char *name) {
    return strstr(name, "/memfd:eagre:c") != NULL || strstr(name, ".waiters") != NULL;
}

static int consumer_of_the_library(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    eagre_consumer_t *mine;
    eagre_record_t r[RECORDS];
    int fd, fds = 0, maps = 0;
    size_t n, got = 0;
    char line[512], name[256], mode[5];
    OK(eagre_open(at->socket, &own));
    OK(eagre_consumer_open(own, NULL, &mine));
    OK(eagre_consumer_assign(mine, "t", 0));
    OK(eagre_consumer_seek(mine, "t", 0, EAGRE_OFFSET_BEGINNING));
    OK(eagre_consumer_fd(mine, &fd));
    while (got < RECORDS) {
        OK(eagre_consumer_poll(mine, r, RECORDS, EG_TEST_LIMIT_MS, &n));
        got += n;
    }
    OK(eagre_consumer_poll(mine, r, 1, 5, &n)); /* asleep once, with a bell */
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        fd = atoi(entry->d_name);
        if (fd <= 2 || !is_ours(name_of(fd, name, sizeof(name))))
            continue;
        check_fd(fd, may_write(name), EG_PAGE);
        fds++;
    }
    closedir(d);
    FILE *f = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof(line), f) != NULL) {
        uintptr_t from, to;
        if (!is_ours(line) || sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, mode) != 3)
            continue;
        bool writable = mprotect((void *)from, to - from, PROT_READ | PROT_WRITE) == 0;
        if (writable != may_write(line))
            fail_msg("%s", line);
        maps++;
    }
    fclose(f);
    assert_true(fds >= 2 && maps >= 8); /* page and ring; bus, page, bells, status, waiters, ring, buffers */
    return 0;
}

static void what_the_library_holds_is_no_more(void **state) {
    (void)state;
    eg_as_user(EG_USER_A, consumer_of_the_library, b);
    nothing_has_happened();
}

/* ---- the socket and its directory ---------------------------------------------------------------------------- */

static int cannot_connect(void *ctx) {
    const struct eg_test_bus *at = ctx;
    eagre_t *own;
    assert_int_equal(eagre_open(at->socket, &own), EAGRE_E_PERMISSION);
    assert_non_null(strstr(eagre_error_detail(), "socket.mode"));
    return 0;
}

static int cannot_touch_files(void *ctx) {
    const struct eg_test_bus *at = ctx;
    static const char *const beside[] = {"", ".lock", ".pid", ".keeper", ".keeper.pid"};
    char path[128];
    for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
        snprintf(path, sizeof(path), "%s%s", at->socket, beside[i]);
        assert_int_not_equal(unlink(path), 0);
        assert_int_not_equal(rename(path, "/tmp/no"), 0);
        assert_int_equal(open(path, O_WRONLY), -1);
    }
    snprintf(path, sizeof(path), "%s.keeper", at->socket);
    eagre_t *own;
    assert_int_equal(eagre_open(path, &own), EAGRE_E_PERMISSION); /* the keeper answers its own user */
    snprintf(path, sizeof(path), "%s.lock", at->socket);
    assert_int_equal(open(path, O_RDONLY), -1); /* or it could be locked while no daemon runs */
    snprintf(path, sizeof(path), "%s/meta", at->data);
    assert_int_equal(open(path, O_RDONLY), -1);
    return 0;
}

static void the_socket_and_what_lies_beside_it(void **state) {
    (void)state;
    eg_as_user(EG_USER_A, cannot_touch_files, b);
    nothing_has_happened();
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0600", NULL);
    eg_as_user(EG_USER_A, cannot_connect, b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_consumer_writes_to_nothing_but_its_own),
        TEST(a_producer_destroys_its_own_topic_only),
        TEST(what_the_library_holds_is_no_more),
        TEST(the_socket_and_what_lies_beside_it),
    };
    if (geteuid() != 0) {
        puts("skipped: only root can act as other users");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
