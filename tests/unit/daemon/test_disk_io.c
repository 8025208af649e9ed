/* Disk jobs, by threads and by io_uring: what was asked for is done or has failed, once, and everybody is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "disk_fault.h"
#include "disk_io.h"
#include "sys/errbuf.h"

static struct eg_daemon d;
static char path[128];
static int fd;
static int ends; /* done() calls */

static int setup(void **state) {
    int mode = (int)(intptr_t)*state;
    memset(&d, 0, sizeof(d));
    ends = 0;
    unsetenv("EAGRE_DISK_FAULT");
    eg_log_set_level(EG_LOG_ERROR);
    snprintf(path, sizeof(path), "%s/eg-io-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    d.config.disk_io = mode;
    int rc = eg_io_open(&d, &d.disk_io);
    if (rc == EAGRE_E_UNSUPPORTED && mode == EG_DISK_IO_URING)
        return 0; /* the tests skip */
    assert_int_equal(rc, EAGRE_OK);
    assert_string_equal(eg_io_kind(d.disk_io), mode == EG_DISK_IO_URING ? "io_uring" : "threads");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    eg_io_close(d.disk_io);
    close(fd);
    return unlink(path);
}

#define NEEDS_IO()                                                                                                     \
    if (d.disk_io == NULL)                                                                                             \
    skip()

static void done(struct eg_daemon *of, struct eg_io_job *j) {
    assert_ptr_equal(of, &d);
    assert_true(j->result <= 0);
    ends++;
}

static struct eg_io_job write_job(const void *data, size_t bytes, uint64_t at) {
    return (struct eg_io_job){.op = EG_IO_WRITE, .fd = fd, .data = data, .bytes = bytes, .at = at, .done = done};
}

static void wait_all(void) {
    while (eg_io_wait(d.disk_io)) {}
    assert_int_equal(eg_io_in_flight(d.disk_io), 0);
}

static void bytes_are_written_where_they_belong(void **state) {
    enum { JOBS = 2000, SIZE = 3000 };
    static struct eg_io_job jobs[JOBS];
    static uint8_t data[JOBS][SIZE];
    uint8_t back[SIZE];
    (void)state;
    NEEDS_IO();
    for (int i = 0; i < JOBS; i++) { /* far more at once than a ring takes */
        memset(data[i], i % 251 + 1, SIZE);
        jobs[i] = write_job(data[i], SIZE, (uint64_t)(JOBS - 1 - i) * SIZE);
        eg_io_submit(d.disk_io, &jobs[i]);
    }
    assert_true(eg_io_in_flight(d.disk_io) > 0);
    wait_all();
    assert_int_equal(ends, JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].result, 0);
        assert_int_equal(pread(fd, back, SIZE, (off_t)(JOBS - 1 - i) * SIZE), SIZE);
        assert_memory_equal(back, data[i], SIZE);
    }
    assert_false(eg_io_wait(d.disk_io));
}

static void flushes_and_writeback_are_done(void **state) {
    struct eg_io_job w = write_job("abc", 3, 0), s = {.op = EG_IO_DATASYNC, .fd = fd, .done = done},
                     b = {.op = EG_IO_WRITEBACK, .fd = fd, .at = 0, .bytes = 4096, .done = done};
    (void)state;
    NEEDS_IO();
    eg_io_submit(d.disk_io, &w);
    wait_all();
    eg_io_submit(d.disk_io, &b);
    eg_io_submit(d.disk_io, &s);
    wait_all();
    assert_int_equal(ends, 3);
    assert_true(w.result == 0 && s.result == 0 && b.result == 0);
}

static int order[4], steps;
static void first_done(struct eg_daemon *of, struct eg_io_job *j) {
    (void)of;
    (void)j;
    order[steps++] = 1;
}
static void then_done(struct eg_daemon *of, struct eg_io_job *j) {
    (void)of;
    (void)j;
    order[steps++] = 2;
}

static void what_comes_then_comes_after_success_alone(void **state) {
    struct eg_io_job then = {.op = EG_IO_DATASYNC, .fd = fd, .done = then_done}, w = write_job("abc", 3, 0);
    (void)state;
    NEEDS_IO();
    steps = 0;
    w.done = first_done;
    w.then = &then;
    eg_io_submit(d.disk_io, &w);
    wait_all();
    assert_int_equal(steps, 2);
    assert_true(order[0] == 1 && order[1] == 2);
    int bad = open(path, O_RDONLY);
    w.fd = bad;
    eg_io_submit(d.disk_io, &w);
    wait_all();
    assert_int_equal(w.result, -EBADF);
    assert_int_equal(steps, 3);
    close(bad);
}

static void errors_are_told(void **state) {
    struct eg_io_job w = write_job("abc", 3, 0), s = {.op = EG_IO_DATASYNC, .fd = -1, .done = done},
                     b = {.op = EG_IO_WRITEBACK, .fd = -1, .bytes = 1, .done = done};
    (void)state;
    NEEDS_IO();
    w.fd = -1;
    eg_io_submit(d.disk_io, &w);
    eg_io_submit(d.disk_io, &s);
    eg_io_submit(d.disk_io, &b);
    wait_all();
    assert_true(w.result == -EBADF && s.result == -EBADF && b.result == -EBADF);
    assert_int_equal(ends, 3);
}

/* A limit cuts a write in two: its first part succeeds, the rest is an error. */
static void a_short_write_is_gone_on_with(void **state) {
    static uint8_t data[8192];
    struct rlimit was, to;
    (void)state;
    NEEDS_IO();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    to = (struct rlimit){4096, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &to), 0);
    struct eg_io_job w = write_job(data, sizeof(data), 0);
    eg_io_submit(d.disk_io, &w);
    wait_all();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    if (w.result == 0)
        skip(); /* io_uring's own threads may know no limit */
    assert_int_equal(w.result, -EFBIG);
    assert_int_equal(lseek(fd, 0, SEEK_END), 4096);
    eg_io_submit(d.disk_io, &w); /* and all of it, now */
    wait_all();
    assert_int_equal(w.result, 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 8192);
}

static void *drain(void *arg) {
    static uint8_t part[8192];
    size_t *got = arg;
    for (ssize_t n; (n = read((int)got[0], part, sizeof(part))) > 0; got[1] += (size_t)n)
        for (ssize_t i = 0; i < n; i++)
            if (part[i] != (uint8_t)((got[1] + (size_t)i) * 7 / 3))
                got[2]++;
    return NULL;
}

/* A pipe takes what it has room for, or nothing: what is linked to the write waits until all of it is written. */
static void a_short_write_keeps_what_is_linked_back(void **state) {
    enum { BYTES = 1 << 20 };
    static uint8_t data[BYTES];
    struct eg_io_job then = {.op = EG_IO_DATASYNC, .fd = fd, .done = then_done}, w = write_job(data, BYTES, 0);
    int ends_of[2];
    pthread_t reader;
    (void)state;
    NEEDS_IO();
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 7 / 3);
    assert_int_equal(pipe2(ends_of, O_NONBLOCK), 0);
    assert_int_equal(fcntl(ends_of[0], F_SETFL, 0), 0);
    steps = 0;
    w.fd = ends_of[1];
    w.done = first_done;
    w.then = &then;
    eg_io_submit(d.disk_io, &w);
    struct timespec soon = {.tv_nsec = 10000000};
    nanosleep(&soon, NULL); /* it is full */
    size_t got[3] = {(size_t)ends_of[0]};
    assert_int_equal(steps, 0);
    assert_int_equal(pthread_create(&reader, NULL, drain, got), 0);
    wait_all();
    close(ends_of[1]);
    pthread_join(reader, NULL);
    close(ends_of[0]);
    assert_int_equal(w.result, 0);
    assert_int_equal(then.result, 0);
    assert_true(got[1] == BYTES && got[2] == 0);
    assert_true(steps == 2 && order[0] == 1 && order[1] == 2);
}

static int count_up(void *arg) {
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
    return 0;
}
static int refuse(void *arg) {
    (void)arg;
    return -ENOTTY;
}

static void calls_are_made_in_threads(void **state) {
    static struct eg_io_job jobs[500];
    int count = 0;
    (void)state;
    NEEDS_IO();
    for (int i = 0; i < 500; i++) {
        jobs[i] = (struct eg_io_job){.op = EG_IO_CALL, .call = count_up, .arg = &count, .done = done};
        eg_io_submit(d.disk_io, &jobs[i]);
    }
    struct eg_io_job no = {.op = EG_IO_CALL, .call = refuse, .done = done};
    eg_io_submit(d.disk_io, &no);
    wait_all();
    assert_int_equal(count, 500);
    assert_int_equal(no.result, -ENOTTY);
    assert_int_equal(ends, 501);
}

static struct eg_io_job again;
static void submits_more(struct eg_daemon *of, struct eg_io_job *j) {
    ends++;
    if (j == &again && ends < 50)
        eg_io_submit(of->disk_io, j);
}

static int slow(void *arg) {
    struct timespec t = {.tv_nsec = 20000000};
    (void)arg;
    return nanosleep(&t, NULL);
}

/* Also what is submitted by what ends. */
static void the_end_waits_for_all(void **state) {
    static struct eg_io_job jobs[20];
    (void)state;
    NEEDS_IO();
    again = (struct eg_io_job){.op = EG_IO_WRITE, .fd = fd, .data = "x", .bytes = 1, .done = submits_more};
    eg_io_submit(d.disk_io, &again);
    for (int i = 0; i < 20; i++) {
        jobs[i] = (struct eg_io_job){.op = EG_IO_CALL, .call = slow, .done = submits_more};
        eg_io_submit(d.disk_io, &jobs[i]);
    }
    eg_io_close(d.disk_io);
    d.disk_io = NULL;
    assert_true(ends >= 50);
}

static void faults_are_injected_where_they_should(void **state) {
    struct eg_io_job w = write_job("abc", 3, 0), s = {.op = EG_IO_DATASYNC, .fd = fd, .done = done};
    (void)state;
    NEEDS_IO();
#ifndef EG_FAULTPOINTS
    skip();
#endif
    setenv("EAGRE_DISK_FAULT", "write:ENOSPC@2,fdatasync:EIO@1+", 1);
    assert_int_equal(eg_disk_fault_init(), EAGRE_OK);
    for (int i = 0; i < 3; i++) {
        eg_io_submit(d.disk_io, &w);
        wait_all();
        assert_int_equal(w.result, i == 1 ? -ENOSPC : 0);
        eg_io_submit(d.disk_io, &s);
        wait_all();
        assert_int_equal(s.result, -EIO);
    }
    static const char *const nonsense[] = {"write", "read:EIO", "write:EPERM", "write:EIO@0", "write:EIO@1-", ":", "write:EIO@1+x"};
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        setenv("EAGRE_DISK_FAULT", nonsense[i], 1);
        assert_int_equal(eg_disk_fault_init(), EAGRE_E_INVALID);
    }
    setenv("EAGRE_DISK_FAULT", "fdatasync:EIO@2", 1); /* also where it is linked to a write */
    assert_int_equal(eg_disk_fault_init(), EAGRE_OK);
    w.then = &s;
    for (int i = 0; i < 3; i++) {
        eg_io_submit(d.disk_io, &w);
        wait_all();
        assert_int_equal(w.result, 0);
        assert_int_equal(s.result, i == 1 ? -EIO : 0);
    }
    unsetenv("EAGRE_DISK_FAULT");
    assert_int_equal(eg_disk_fault_init(), EAGRE_OK);
}

#define WITH(mode, name)                                                                                               \
    { #name " " #mode, name, setup, teardown, (void *)(intptr_t)EG_DISK_IO_##mode }
#define BOTH(name) WITH(THREADS, name), WITH(URING, name)

int main(void) {
    const struct CMUnitTest tests[] = {
        BOTH(bytes_are_written_where_they_belong), BOTH(flushes_and_writeback_are_done),
        BOTH(what_comes_then_comes_after_success_alone), BOTH(errors_are_told),
        BOTH(a_short_write_is_gone_on_with), WITH(URING, a_short_write_keeps_what_is_linked_back), BOTH(calls_are_made_in_threads),
        BOTH(the_end_waits_for_all), BOTH(faults_are_injected_where_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
