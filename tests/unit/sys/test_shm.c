/* Sealed memfds, mappings and the memory behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/errbuf.h"
#include "sys/shm.h"

#define MIB ((size_t)1 << 20)

static void a_memfd_is_sealed_and_private(void **state) {
    (void)state;
    int fd;
    size_t size;
    struct stat st;
    assert_int_equal(eg_memfd_create("t", 3 * 4096, false, &fd), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 3 * 4096);
    assert_int_equal(st.st_blocks, 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_not_equal(ftruncate(fd, 4096), 0);
    assert_int_not_equal(ftruncate(fd, 4 * 4096), 0);
    assert_int_not_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_int_equal(eg_memfd_check(fd, &size), 0);
    assert_int_equal(size, 3 * 4096);
    (void)close(fd);
    fd = -7;
    assert_int_equal(eg_memfd_create("t", 0, false, &fd), EAGRE_E_INVALID);
    assert_int_equal(eg_memfd_create("t", SIZE_MAX, false, &fd), EAGRE_E_INVALID);
    assert_int_equal(fd, -7);
}

static void huge_pages_work_or_are_refused_with_a_reason(void **state) {
    (void)state;
    int fd = -7;
    int status = eg_memfd_create("huge", 2 * MIB + 4096, true, &fd);
    assert_int_not_equal(status, 0);
    assert_non_null(strstr(eg_error_text(), "huge"));
    status = eg_memfd_create("huge", 1024 * MIB, true, &fd);
    if (status == 0) {
        size_t size;
        assert_int_equal(eg_memfd_check(fd, &size), 0);
        (void)close(fd);
    } else {
        assert_int_equal(fd, -7);
    }
}

static void other_descriptors_are_refused(void **state) {
    (void)state;
    size_t size = 5;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(eg_memfd_check(fds[0], &size), EAGRE_E_PROTOCOL);
    (void)close(fds[0]);
    (void)close(fds[1]);
    assert_int_not_equal(eg_memfd_check(fds[0], &size), 0);

    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), 4096), 0);
    assert_int_equal(eg_memfd_check(fileno(f), &size), EAGRE_E_PROTOCOL);
    (void)fclose(f);

    int fd = memfd_create("open to all", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(eg_memfd_check(fd, &size), EAGRE_E_PROTOCOL);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL), 0);
    assert_int_equal(eg_memfd_check(fd, &size), EAGRE_E_PROTOCOL);
    (void)close(fd);

    fd = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    assert_int_equal(eg_memfd_check(fd, &size), EAGRE_E_PROTOCOL);
    (void)close(fd);
    assert_int_equal(size, 5);
}

static void a_readonly_descriptor_cannot_write(void **state) {
    (void)state;
    int fd, readonly;
    size_t size;
    void *w, *r, *none = NULL;
    assert_int_equal(eg_memfd_create("t", 8192, false, &fd), 0);
    assert_int_equal(eg_memfd_readonly(fd, &readonly), 0);
    assert_int_equal(eg_memfd_check(readonly, &size), 0);
    assert_true((fcntl(readonly, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(eg_map(fd, 4096, 4096, true, &w), 0);
    assert_int_equal(eg_map(readonly, 0, 8192, false, &r), 0);
    assert_int_equal(eg_map(readonly, 0, 8192, true, &none), EAGRE_E_PERMISSION);
    assert_null(none);
    strcpy(w, "seen");
    assert_string_equal((char *)r + 4096, "seen");
    assert_int_equal(write(readonly, "x", 1), -1);
    eg_unmap(w, 4096);
    eg_unmap(r, 8192);
    (void)close(fd);
    (void)close(readonly);
    assert_int_not_equal(eg_memfd_readonly(fd, &readonly), 0);
}

static void allocation_puts_memory_behind_a_range(void **state) {
    (void)state;
    int fd;
    struct stat st;
    assert_int_equal(eg_memfd_create("t", 16 * MIB, false, &fd), 0);
    assert_int_equal(eg_shm_allocate(fd, MIB, 5 * MIB), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= 5 * MIB);
    assert_true((uint64_t)st.st_blocks * 512 < 16 * MIB);
    assert_int_equal(eg_shm_allocate(fd, MIB, 5 * MIB), 0); /* again */
    assert_int_not_equal(eg_shm_allocate(fd, 15 * MIB, 2 * MIB), 0);
    assert_int_equal(eg_shm_allocate(fd, 0, 0), EAGRE_E_INVALID);
    assert_int_equal(eg_shm_allocate(fd, SIZE_MAX - 1, 4096), EAGRE_E_INVALID);
    assert_int_equal(eg_shm_allocate(fd, 4096, SIZE_MAX - 1), EAGRE_E_INVALID);

    void *p;
    assert_int_equal(eg_map(fd, 8 * MIB, 8 * MIB, true, &p), 0);
    eg_advise_huge(p, 8 * MIB);
    eg_populate(p, 8 * MIB, true);
    eg_populate(p, 8 * MIB, false);
    assert_int_equal(((char *)p)[8 * MIB - 1], 0);
    eg_unmap(p, 8 * MIB);
    eg_unmap(NULL, 4096);
    (void)close(fd);
}

static void more_than_the_host_has_is_refused(void **state) {
    (void)state;
    uint64_t limit, left;
    assert_int_equal(eg_memory_limit(&limit), 0);
    assert_int_equal(eg_memory_headroom(&left), 0);
    assert_true(left > 0 && left <= limit);
    assert_int_equal(eg_memory_check(1), 0);
    assert_int_equal(eg_memory_check(limit + 1), EAGRE_E_NO_MEMORY);

    int fd;
    struct stat st;
    const size_t size = (size_t)limit + MIB;
    assert_int_equal(eg_memfd_create("t", size, false, &fd), 0);
    assert_int_equal(eg_shm_allocate(fd, 0, size), EAGRE_E_NO_MEMORY);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_blocks, 0); /* refused before, not after */
    (void)close(fd);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* In a child, which RLIMIT_AS then paralyses. */
static void a_full_address_space_is_named(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit limit = {200 * MIB, 200 * MIB};
        int fd;
        void *p;
        if (eg_memfd_create("t", 512 * MIB, false, &fd) != 0 || setrlimit(RLIMIT_AS, &limit) != 0) {
            _exit(1);
        }
        if (eg_map(fd, 0, 512 * MIB, true, &p) != EAGRE_E_NO_MEMORY) {
            _exit(2);
        }
        _exit(strstr(eg_error_text(), "ulimit -v) 209715200, vm.max_map_count ") != NULL ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_memfd_is_sealed_and_private),
        cmocka_unit_test(huge_pages_work_or_are_refused_with_a_reason),
        cmocka_unit_test(other_descriptors_are_refused),
        cmocka_unit_test(a_readonly_descriptor_cannot_write),
        cmocka_unit_test(allocation_puts_memory_behind_a_range),
        cmocka_unit_test(more_than_the_host_has_is_refused),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(a_full_address_space_is_named),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
