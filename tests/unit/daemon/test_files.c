/* A partition's directory: names, junk, tables, making files when it is cut off anywhere, and what goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "log/logindex.h"
#include "logger.h"
#include "sys/errbuf.h"

#define CAPACITY (UINT64_C(4) << 20)

static char root[128];
static struct eg_log_dir dir;

static int setup(void **state) {
    (void)state;
    snprintf(root, sizeof(root), "%s/eg-files-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(root));
    eg_log_set_level(EG_LOG_ERROR);
    eg_log_dir_init(&dir, root, 7, 3, 21, 64, CAPACITY, 0);
    return 0;
}

static int teardown(void **state) {
    char command[192];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static const char *in_dir(const char *name) {
    static char p[EG_FILES_PATH + 64];
    snprintf(p, sizeof(p), "%s/%s", dir.path, name);
    return p;
}

static bool exists(const char *p) {
    struct stat st;
    return lstat(p, &st) == 0;
}

static struct eg_logfile_id id_of(uint64_t seq, int64_t base) {
    return (struct eg_logfile_id){.topic_uid = 7, .partition_uid = 21, .partition = 3, .align = 64, .capacity = CAPACITY,
                                  .seq = seq, .created_ns = 5, .base = base};
}

static int make(uint64_t seq, int64_t base, int *fd) {
    struct eg_logfile_id id = id_of(seq, base);
    uint64_t allocated;
    int error, rc = eg_log_dir_make(&dir, &error);
    if (rc == EAGRE_OK)
        rc = eg_log_dir_prepare(&dir, &error);
    if (rc == EAGRE_OK)
        rc = eg_log_dir_name(&dir, &id, EG_PAGE, fd, &allocated, &error);
    return rc;
}

static void make_files(uint64_t n) {
    int fd;
    for (uint64_t seq = 0; seq < n; seq++) {
        assert_int_equal(make(seq, (int64_t)seq * 100, &fd), EAGRE_OK);
        close(fd);
    }
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void a_file_is_made_with_header_and_room(void **state) {
    struct eg_file_table t;
    struct stat st;
    int fd, error = 0;
    (void)state;
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK); /* none yet */
    assert_int_equal(t.count, 0);
    assert_int_equal(make(5, 1000, &fd), EAGRE_OK);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, EG_LOG_STEP);
    assert_true((uint64_t)st.st_blocks * 512 >= EG_LOG_STEP);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_false(exists(in_dir("spare.log")));
    assert_int_equal(eg_log_dir_grow(&dir, fd, EG_LOG_STEP, CAPACITY, &error), EAGRE_OK);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, CAPACITY);
    close(fd);
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK);
    assert_int_equal(t.count, 1);
    assert_int_equal(eg_files_at(&t, 0)->seq, 5);
    assert_int_equal(eg_files_at(&t, 0)->base, 1000);
    assert_int_equal(eg_files_at(&t, 0)->end, -1);
    assert_false(eg_files_at(&t, 0)->damaged);
    eg_files_free(&t);
    for (const char *p = strstr(dir.path, "/log"); p != NULL; p = strchr(p + 1, '/')) {
        char part[EG_FILES_PATH];
        snprintf(part, sizeof(part), "%.*s", (int)(strcspn(p + 1, "/") + 1 + (size_t)(p - dir.path)), dir.path);
        assert_int_equal(stat(part, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
    }
}

/* Cut off between any two steps, and done again. */
static void making_goes_on_where_it_was_cut_off(void **state) {
    struct eg_logfile_id id = id_of(0, 0);
    struct eg_file_table t;
    uint64_t allocated;
    int fd, error;
    (void)state;
    assert_int_equal(eg_log_dir_make(&dir, &error), EAGRE_OK);
    put(".making", "half a file");
    assert_int_equal(eg_log_dir_prepare(&dir, &error), EAGRE_OK);
    assert_int_equal(eg_log_dir_prepare(&dir, &error), EAGRE_OK); /* there is one */
    put("spare.log", "too short");
    assert_int_equal(eg_log_dir_prepare(&dir, &error), EAGRE_OK);
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_OK);
    assert_int_equal(allocated, EG_LOG_STEP);
    assert_int_equal(pwrite(fd, "xy", 2, 5000), 2);
    close(fd);
    assert_int_equal(eg_log_dir_name(&dir, &id, 5001, &fd, &allocated, &error), EAGRE_OK); /* named: gone on with */
    assert_int_equal(allocated, 5001);
    assert_int_equal(eg_log_dir_grow(&dir, fd, allocated, EG_LOG_STEP, &error), EAGRE_OK);
    char byte[2] = {1, 1};
    assert_int_equal(pread(fd, byte, 2, 5000), 2);
    assert_memory_equal(byte, "x", 2); /* and what nobody said to be durable is gone */
    close(fd);
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_LOG_STEP + 1, &fd, &allocated, &error), EAGRE_E_CORRUPT);
    id.seq = 1;
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_E_IO); /* no spare one */
    assert_int_equal(error, ENOENT);
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK);
    assert_int_equal(t.count, 1);
    eg_files_free(&t);
}

static void anothers_file_is_not_written_to(void **state) {
    struct eg_logfile_id id = id_of(0, 777);
    uint64_t allocated;
    int fd, error;
    (void)state;
    make_files(1);
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_E_CORRUPT); /* base 0 */
    assert_int_equal(error, EIO);
    id = id_of(0, 0);
    id.partition_uid = 22;
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_E_CORRUPT);
    assert_non_null(strstr(eg_error_text(), "00000000000000000000.log"));
    put("00000000000000000001.log", "");
    id = id_of(1, 100);
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_E_CORRUPT);
    assert_int_equal(symlink("/etc/passwd", in_dir("00000000000000000002.log")), 0);
    id = id_of(2, 200);
    assert_int_equal(eg_log_dir_name(&dir, &id, EG_PAGE, &fd, &allocated, &error), EAGRE_E_IO);
}

static void junk_is_left_alone(void **state) {
    static const char *const junk[] = {"notes.txt", "0000000000000000000.log", "000000000000000000000.log",
                                       "0000000000000000000a.log", "00000000000000000001.log~", "99999999999999999999.log",
                                       "-0000000000000000001.log"};
    struct eg_file_table t;
    (void)state;
    make_files(3);
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
        put(junk[i], "junk");
    put("00000000000000000000.idx", "");
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK);
    assert_int_equal(t.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(eg_files_at(&t, i)->base, i * 100);
        assert_int_equal(eg_files_at(&t, i)->end, i < 2 ? (int)(i + 1) * 100 : -1);
    }
    eg_files_free(&t);
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
        assert_true(exists(in_dir(junk[i])));
}

static void bad_headers_are_damaged_files(void **state) {
    struct eg_file_table t;
    (void)state;
    make_files(5);
    put("00000000000000000001.log", "");
    int fd = open(in_dir("00000000000000000003.log"), O_RDWR);
    assert_int_equal(pwrite(fd, "\xff\xff", 2, 50), 2);
    close(fd);
    assert_int_equal(mkdir(in_dir("00000000000000000009.log"), 0700), 0);
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK);
    assert_int_equal(t.count, 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(eg_files_at(&t, i)->damaged, i == 1 || i == 3 || i == 5);
    assert_int_equal(eg_files_at(&t, 0)->end, -1);
    assert_int_equal(eg_files_at(&t, 1)->end, 200);
    eg_files_free(&t);
}

static void the_table_finds_offsets_and_seqs(void **state) {
    struct eg_file_table t = {0};
    (void)state;
    assert_int_equal(eg_files_behind(&t, 0), 0);
    assert_null(eg_files_by_seq(&t, 0));
    assert_null(eg_files_at(&t, 0));
    for (int round = 0, lowest = 0; round < 1000; round++) {
        struct eg_log_file f = {.seq = (uint64_t)round * 2, .base = round * 10, .end = round * 10 + 10};
        assert_int_equal(eg_files_add(&t, &f), EAGRE_OK);
        if (round % 3 == 2) {
            eg_files_drop_first(&t);
            lowest++;
        }
        assert_int_equal(t.count, round + 1 - lowest);
        assert_int_equal(eg_files_at(&t, 0)->seq, lowest * 2);
        assert_int_equal(eg_files_behind(&t, round * 10 + 9), t.count - 1);
        assert_int_equal(eg_files_behind(&t, round * 10 + 10), t.count);
        assert_int_equal(eg_files_behind(&t, 0), 0);
        assert_int_equal(eg_files_by_seq(&t, (uint64_t)round * 2)->base, round * 10);
        assert_null(eg_files_by_seq(&t, (uint64_t)round * 2 + 1));
        if (lowest > 0)
            assert_null(eg_files_by_seq(&t, (uint64_t)lowest * 2 - 2));
    }
    eg_files_free(&t);
}

/* What was reserved is there, whatever goes in front in between: no memory is asked for. */
static void reserved_room_is_there(void **state) {
    struct eg_file_table t = {0};
    (void)state;
    for (uint64_t round = 0; round < 300; round++) {
        assert_int_equal(eg_files_reserve(&t, 2), EAGRE_OK);
        const struct eg_log_file *list = t.list;
        size_t cap = t.cap;
        for (uint64_t k = 0; k < 2; k++) {
            struct eg_log_file f = {.seq = round * 2 + k, .base = 1};
            if (round % 5 != 0 && t.count > 0)
                eg_files_drop_first(&t);
            assert_true(t.first + t.count < t.cap);
            assert_int_equal(eg_files_add(&t, &f), EAGRE_OK);
            assert_ptr_equal(eg_files_by_seq(&t, f.seq), eg_files_at(&t, t.count - 1));
        }
        assert_true(t.list == list && t.cap == cap);
    }
    eg_files_free(&t);
}

static void the_reserve_is_not_touched(void **state) {
    int fd, error = 0;
    (void)state;
    make_files(1);
    assert_int_equal(make(1, 100, &fd), EAGRE_OK);
    dir.min_free_bytes = UINT64_C(1) << 60;
    assert_int_equal(eg_log_dir_prepare(&dir, &error), EAGRE_E_LIMIT);
    assert_int_equal(error, ENOSPC);
    assert_non_null(strstr(eg_error_text(), "disk.min.free.bytes"));
    assert_int_equal(eg_log_dir_grow(&dir, fd, EG_LOG_STEP, 2 * EG_LOG_STEP, &error), EAGRE_E_LIMIT);
    assert_int_equal(error, ENOSPC);
    close(fd);
    assert_false(exists(in_dir("spare.log")));
}

/* On a file system of 3 MiB. */
static void a_full_disk_is_told(void **state) {
    int status, error = 0, fd = -1;
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", root, "tmpfs", 0, "size=3m") != 0)
            _exit(77);
        bool good = make(0, 0, &fd) == EAGRE_OK && eg_log_dir_grow(&dir, fd, EG_LOG_STEP, CAPACITY, &error) == EAGRE_E_LIMIT &&
                    error == ENOSPC && strstr(eg_error_text(), dir.path) != NULL;
        close(fd);
        int rc = EAGRE_OK;
        for (uint64_t seq = 1; good && rc == EAGRE_OK && seq < 10; seq++)
            if ((rc = make(seq, (int64_t)seq, &fd)) == EAGRE_OK)
                close(fd);
        good = good && rc == EAGRE_E_LIMIT && !exists(in_dir(".making"));
        good = good && eg_log_dir_unlink(&dir, 0, 5) == EAGRE_OK && make(20, 20, &fd) == EAGRE_OK; /* room again */
        if (!good)
            print_error("%d, %s\n", rc, eg_error_text());
        _exit(good ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* not allowed to mount */
    assert_int_equal(status, 0);
}

static void files_go_with_their_indexes(void **state) {
    struct eg_file_table t;
    (void)state;
    make_files(6);
    put("00000000000000000002.idx", "");
    assert_int_equal(unlink(in_dir("00000000000000000003.log")), 0); /* cut off before */
    assert_int_equal(eg_log_dir_unlink(&dir, 1, 4), EAGRE_OK);
    assert_int_equal(eg_log_dir_unlink(&dir, 1, 4), EAGRE_OK);
    assert_int_equal(eg_log_dir_list(&dir, &t), EAGRE_OK);
    assert_int_equal(t.count, 2);
    assert_int_equal(eg_files_at(&t, 1)->seq, 5);
    assert_false(exists(in_dir("00000000000000000002.idx")));
    eg_files_free(&t);
}

static void a_topic_goes_at_once_and_its_files_in_slices(void **state) {
    char path[300];
    bool more = true;
    int calls = 0;
    (void)state;
    for (uint32_t k = 0; k < 5; k++) {
        eg_log_dir_init(&dir, root, 7, k, 21 + k, 64, CAPACITY, 0);
        int error;
        assert_int_equal(eg_log_dir_make(&dir, &error), EAGRE_OK);
        for (int i = 0; i < 20; i++) {
            char name[32];
            snprintf(name, sizeof(name), "%020d.log", i);
            put(name, "");
        }
    }
    assert_int_equal(eg_topic_dir_gone(root, 7), EAGRE_OK);
    assert_int_equal(eg_topic_dir_gone(root, 7), EAGRE_OK);
    snprintf(path, sizeof(path), "%s/log/t7", root);
    assert_false(exists(path));
    int error; /* it comes back: a file was just being made */
    assert_int_equal(eg_log_dir_make(&dir, &error), EAGRE_OK);
    put("00000000000000000000.log", "");
    assert_int_equal(eg_topic_dir_gone(root, 7), EAGRE_OK);
    assert_false(exists(path));
    snprintf(path, sizeof(path), "%s/log/t70.gone.not", root);
    assert_int_equal(mkdir(path, 0700), 0);
    while (more) {
        assert_int_equal(eg_topic_dir_sweep(root, 10, &more), EAGRE_OK);
        calls++;
    }
    assert_int_equal(calls, 11);
    assert_true(exists(path));
    snprintf(path, sizeof(path), "%s/log/t7.gone", root);
    assert_false(exists(path));
}

static bool is_seven(void *ctx, uint32_t uid) {
    (void)ctx;
    return uid == 7;
}

static void what_belongs_to_nobody_is_settled(void **state) {
    char path[300];
    (void)state;
    static const uint32_t uids[] = {7, 8, 90};
    for (size_t i = 0; i < 3; i++) {
        int error;
        eg_log_dir_init(&dir, root, uids[i], 0, 1, 64, CAPACITY, 0);
        assert_int_equal(eg_log_dir_make(&dir, &error), EAGRE_OK);
        put("00000000000000000000.log", "");
    }
    assert_int_equal(eg_topic_dirs_settle(root, 10, is_seven, NULL), EAGRE_OK);
    static const struct {
        const char *name;
        bool there;
    } expected[] = {{"t7", true}, {"t8", false}, {"t8.gone", true}, {"t90", false}, {"t90.gone", false}, {"t90.strange/0/00000000000000000000.log", true}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        snprintf(path, sizeof(path), "%s/log/%s", root, expected[i].name);
        assert_int_equal(exists(path), expected[i].there);
    }
}

#define FILES(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        FILES(a_file_is_made_with_header_and_room),
        FILES(making_goes_on_where_it_was_cut_off),
        FILES(anothers_file_is_not_written_to),
        FILES(junk_is_left_alone),
        FILES(bad_headers_are_damaged_files),
        FILES(the_table_finds_offsets_and_seqs),
        FILES(reserved_room_is_there),
        FILES(the_reserve_is_not_touched),
        FILES(a_full_disk_is_told),
        FILES(files_go_with_their_indexes),
        FILES(a_topic_goes_at_once_and_its_files_in_slices),
        FILES(what_belongs_to_nobody_is_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
