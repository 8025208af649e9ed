/* Messages with descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/fdpass.h"

static int a, b; /* the two ends */

static int setup(void **state) {
    (void)state;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return -1;
    }
    a = ends[0];
    b = ends[1];
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)close(a);
    (void)close(b);
    return 0;
}

static int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    (void)closedir(d);
    return n;
}

static ino_t inode(int fd) {
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static void close_all(const int *fds, size_t n) {
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(close(fds[i]), 0);
    }
}

static void carries_bytes_and_descriptors(void **state) {
    (void)state;
    int pipes[2], got[8];
    size_t n;
    bool truncated;
    char text[16];
    assert_int_equal(pipe(pipes), 0);
    const int fds[3] = {pipes[0], pipes[1], pipes[0]};
    assert_int_equal(eg_sendmsg_fds(a, "hello", 5, fds, 3, 0), 5);
    assert_int_equal(eg_recvmsg_fds(b, text, sizeof text, got, 8, &n, &truncated, 0), 5);
    assert_memory_equal(text, "hello", 5);
    assert_int_equal(n, 3);
    assert_false(truncated);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(inode(got[i]), inode(fds[i]));
        assert_true((fcntl(got[i], F_GETFD) & FD_CLOEXEC) != 0);
    }
    close_all(got, 3);
    close_all(pipes, 2);
}

static void carries_bytes_alone(void **state) {
    (void)state;
    size_t n = 9;
    bool truncated = true;
    char text[16];
    assert_int_equal(eg_sendmsg_fds(a, "x", 1, NULL, 0, 0), 1);
    assert_int_equal(eg_recvmsg_fds(b, text, sizeof text, NULL, 0, &n, &truncated, 0), 1);
    assert_int_equal(n, 0);
    assert_false(truncated);
}

static void carries_as_many_as_it_says(void **state) {
    (void)state;
    int fds[EG_FDPASS_MAX + 1], got[EG_FDPASS_MAX];
    size_t n;
    bool truncated;
    char c;
    for (size_t i = 0; i <= EG_FDPASS_MAX; i++) {
        fds[i] = a;
    }
    assert_int_equal(eg_sendmsg_fds(a, "x", 1, fds, EG_FDPASS_MAX + 1, 0), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(eg_sendmsg_fds(a, "x", 1, fds, EG_FDPASS_MAX, 0), 1);
    assert_int_equal(eg_recvmsg_fds(b, &c, 1, got, EG_FDPASS_MAX, &n, &truncated, 0), 1);
    assert_int_equal(n, EG_FDPASS_MAX);
    assert_false(truncated);
    close_all(got, n);
}

static void closes_what_there_is_no_room_for(void **state) {
    (void)state;
    const int before = open_fds();
    const int fds[5] = {a, a, a, a, a};
    for (size_t cap = 0; cap < 5; cap++) {
        int got[5];
        size_t n;
        bool truncated;
        char c;
        assert_int_equal(eg_sendmsg_fds(a, "x", 1, fds, 5, 0), 1);
        assert_int_equal(eg_recvmsg_fds(b, &c, 1, got, cap, &n, &truncated, 0), 1);
        assert_int_equal(n, cap);
        assert_true(truncated);
        close_all(got, n);
        assert_int_equal(open_fds(), before);
    }
}

/* A peer may put in more than EG_FDPASS_MAX. */
static void survives_more_than_the_maximum(void **state) {
    (void)state;
    enum { MANY = 200 };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MANY * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    char text = 'x';
    struct iovec iov = {.iov_base = &text, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(MANY * sizeof(int));
    for (int i = 0; i < MANY; i++) {
        memcpy(CMSG_DATA(c) + (size_t)i * sizeof a, &a, sizeof a);
    }
    const int before = open_fds();
    assert_int_equal(sendmsg(a, &msg, 0), 1);
    int got[EG_FDPASS_MAX];
    size_t n;
    bool truncated;
    assert_int_equal(eg_recvmsg_fds(b, &text, 1, got, EG_FDPASS_MAX, &n, &truncated, 0), 1);
    assert_true(truncated);
    assert_true(n <= EG_FDPASS_MAX);
    close_all(got, n);
    assert_int_equal(open_fds(), before);
}

static void tells_of_lost_bytes(void **state) {
    (void)state;
    int got[1];
    size_t n;
    bool truncated;
    char text[3];
    assert_int_equal(eg_sendmsg_fds(a, "hello", 5, &a, 1, 0), 5);
    assert_int_equal(eg_recvmsg_fds(b, text, sizeof text, got, 1, &n, &truncated, 0), 3);
    assert_true(truncated);
    assert_int_equal(n, 1);
    close_all(got, n);
}

static void tells_end_and_errors(void **state) {
    (void)state;
    size_t n = 5;
    bool truncated;
    char text[3];
    assert_int_equal(eg_recvmsg_fds(b, text, 3, NULL, 0, &n, &truncated, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(n, 0);
    (void)shutdown(a, SHUT_RDWR);
    assert_int_equal(eg_recvmsg_fds(b, text, 3, NULL, 0, &n, &truncated, 0), 0);
    assert_int_equal(eg_sendmsg_fds(b, "x", 1, NULL, 0, 0), -1); /* and no SIGPIPE */
    assert_int_equal(errno, EPIPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(carries_bytes_and_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(carries_bytes_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(carries_as_many_as_it_says, setup, teardown),
        cmocka_unit_test_setup_teardown(closes_what_there_is_no_room_for, setup, teardown),
        cmocka_unit_test_setup_teardown(survives_more_than_the_maximum, setup, teardown),
        cmocka_unit_test_setup_teardown(tells_of_lost_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(tells_end_and_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
