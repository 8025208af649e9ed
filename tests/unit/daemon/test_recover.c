/* A cold start, on files as the archiver makes them, cut and damaged anywhere: what is accepted, and twice the same. */
#include "unit/log/fake_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"
#include "files.h"
#include "recover.h"
#include "topics.h"

#define CAPACITY (64u << 10)
#define RECORDS 20

static struct eg_daemon d;
static struct eg_meta_topic t;
static struct eg_log_dir dir;

static void start_meta(void) {
    assert_int_equal(eg_meta_open(d.config.dir, &d.meta), EAGRE_OK);
}

static int setup(void **state) {
    (void)state;
    memset(&d, 0, sizeof(d));
    memset(&t, 0, sizeof(t));
    snprintf(d.config.dir, sizeof(d.config.dir), "%s/eg-recover-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(d.config.dir));
    eg_log_set_level(EG_LOG_ERROR);
    d.fresh = true;
    start_meta();
    strcpy(t.name, "t");
    strcpy(t.settings, "partitions=2\nsegment.bytes=65536\n");
    t.partitions = 2;
    assert_int_equal(eg_meta_topic_create(d.meta, &t), EAGRE_OK);
    eg_log_dir_init(&dir, d.config.dir, t.uid, 0, t.first_partition_uid[0], 64, CAPACITY, 0);
    int error;
    return eg_log_dir_make(&dir, &error);
}

static int teardown(void **state) {
    char command[4200];
    (void)state;
    eg_meta_close(d.meta);
    snprintf(command, sizeof(command), "rm -rf '%s'", d.config.dir);
    return system(command);
}

static const char *path_of(uint64_t seq, const char *suffix) {
    static char p[EG_FILES_PATH + 64];
    snprintf(p, sizeof(p), "%s/%020llu%s", dir.path, (unsigned long long)seq, suffix);
    return p;
}

static struct eg_logfile_id id_of(uint64_t seq, int64_t base) {
    return (struct eg_logfile_id){.topic_uid = t.uid, .partition_uid = dir.partition_uid, .partition = 0, .align = 64,
                                  .capacity = CAPACITY, .seq = seq, .created_ns = 1, .base = base};
}

/* RECORDS records, in flushes of 5; sealed or not. */
static void make_frames(struct fake_file *f, uint64_t seq, int64_t base, bool flushes, bool sealed) {
    struct eg_logfile_id id = id_of(seq, base);
    fake_file_make(f, &id);
    for (uint32_t i = 0; i < RECORDS; i++) {
        if (flushes)
            f->flush = 1 + i / 5;
        fake_value(f, 50 + i * 3, 1000 + i);
    }
    if (sealed)
        fake_end(f);
}

static void store(uint64_t seq, const void *bytes, size_t n) {
    int fd = open(path_of(seq, ".log"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, 0), (ssize_t)n);
    close(fd);
}

static size_t read_back(uint64_t seq, uint8_t *out) {
    int fd = open(path_of(seq, ".log"), O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = pread(fd, out, CAPACITY, 0);
    assert_true(n >= 0);
    close(fd);
    return (size_t)n;
}

static void put_file(uint64_t seq, int64_t base, bool sealed) {
    struct fake_file f;
    make_frames(&f, seq, base, true, sealed);
    store(seq, f.bytes, CAPACITY);
    fake_file_drop(&f);
}

static void note(uint64_t seq, uint64_t pos, int64_t log_start) {
    struct eg_meta_mark mark = {.partition_uid = dir.partition_uid, .end = 1000, .seq = 100};
    struct eg_meta_disk n = {.partition_uid = dir.partition_uid, .seq = seq, .pos = pos, .log_start = log_start};
    assert_int_equal(eg_meta_marks_put(d.meta, &mark, 1), EAGRE_OK);
    assert_int_equal(eg_meta_disk_put(d.meta, &n, 1), EAGRE_OK);
}

static int recover(struct eg_recovered *out) {
    assert_int_equal(eg_recover_all(&d), EAGRE_OK);
    int rc = eg_recover_take(&d, dir.partition_uid, true, out);
    eg_recover_free(&d);
    return rc;
}

/* The end; the file is sealed there, with an index that leads nowhere else. */
static int64_t recover_twice(size_t files, uint64_t seq) {
    static _Alignas(8) uint8_t first[CAPACITY], second[CAPACITY];
    struct eg_recovered r, again;
    assert_int_equal(recover(&r), EAGRE_OK);
    assert_int_equal(r.files.count, files);
    size_t n = files > 0 ? read_back(seq, first) : 0;
    assert_int_equal(recover(&again), EAGRE_OK);
    assert_int_equal(again.end, r.end);
    assert_int_equal(again.log_start, r.log_start);
    assert_int_equal(again.next_seq, r.next_seq);
    assert_int_equal(again.files.count, files);
    if (files > 0) {
        assert_int_equal(read_back(seq, second), n);
        assert_memory_equal(first, second, n);
    }
    eg_files_free(&r.files);
    eg_files_free(&again.files);
    return r.end;
}

static void is_sealed_at(uint64_t seq, uint64_t records) {
    static _Alignas(8) uint8_t bytes[CAPACITY];
    struct eg_logfile_id id;
    struct eg_logfile l;
    struct eg_logfile_scan s;
    size_t n = read_back(seq, bytes);
    assert_int_equal(eg_logfile_header_check(bytes, n, NULL, &id, NULL), EAGRE_OK);
    eg_logfile_init(&l, &id, bytes, n);
    eg_logfile_scan(&l, EG_SEGMENT_DATA, 0, 0, CAPACITY, &s);
    assert_int_equal(s.verdict, EG_FILE_CLEAN);
    assert_true(s.sealed);
    assert_int_equal(s.records, records);
}

static void nothing_is_nothing(void **state) {
    (void)state;
    assert_int_equal(recover_twice(0, 0), 0);
    assert_int_equal(rmdir(dir.path), 0);
    assert_int_equal(recover_twice(0, 0), 0);
}

static void whole_files_and_one_that_is_not(void **state) {
    struct eg_recovered r;
    (void)state;
    put_file(3, 100, true);
    put_file(4, 120, true);
    assert_int_equal(recover_twice(2, 4), 140);
    put_file(5, 140, false);
    assert_int_equal(recover_twice(3, 5), 160);
    is_sealed_at(5, RECORDS);
    assert_int_equal(recover(&r), EAGRE_OK);
    assert_int_equal(r.log_start, 100);
    assert_int_equal(r.next_seq, 6);
    assert_int_equal(eg_files_at(&r.files, 1)->end, 140);
    eg_files_free(&r.files);
    note(5, EG_SEGMENT_DATA, 130);
    assert_int_equal(recover(&r), EAGRE_OK);
    assert_int_equal(r.log_start, 130);
    eg_files_free(&r.files);
}

/* Of one flush, nothing known: the rest of the file is what was there before, from any byte on. */
static void torn_anywhere(void **state) {
    struct fake_file f;
    static uint8_t bytes[CAPACITY];
    (void)state;
    make_frames(&f, 0, 0, false, false);
    for (uint32_t k = 0; k <= RECORDS; k++) {
        uint64_t at = k < RECORDS ? f.frame[k].pos : f.pos;
        static const uint64_t offs[] = {0, 1, 8, 20, 33, 60};
        for (size_t o = 0; o < sizeof(offs) / sizeof(offs[0]); o++) {
            if (o > 0 && k == RECORDS)
                break;
            memcpy(bytes, f.bytes, CAPACITY);
            memset(bytes + at + offs[o], 0, CAPACITY - at - offs[o]);
            if (o == 0 && k % 2 == 1)
                memset(bytes + at, 0xa5, CAPACITY - at); /* rubbish instead */
            store(0, bytes, k % 3 == 0 ? CAPACITY : at + offs[o]);
            /* A cut within zeros that a frame ends with changes nothing. */
            uint64_t good = k;
            if (k < RECORDS && memcmp(bytes + at, f.bytes + at, f.frame[k].length) == 0 && k % 3 == 0)
                good++;
            if (good == 0) {
                assert_int_equal(recover_twice(0, 0), 0); /* nothing was ever in it */
                continue;
            }
            assert_int_equal(recover_twice(1, 0), good);
            is_sealed_at(0, good);
            unlink(path_of(0, ".idx"));
        }
    }
    fake_file_drop(&f);
}

/* A hole, and frames of the same flush behind it. */
static void a_hole_of_one_flush_is_torn(void **state) {
    struct fake_file f;
    (void)state;
    make_frames(&f, 0, 0, false, false);
    memset(f.bytes + f.frame[7].pos, 0, 64);
    store(0, f.bytes, CAPACITY);
    assert_int_equal(recover_twice(1, 0), 7);
    is_sealed_at(0, 7);
    struct stat st; /* no frame is left that would be evidence of something after the next crash */
    assert_int_equal(stat(path_of(0, ".log"), &st), 0);
    assert_int_equal(st.st_size, f.frame[7].pos + EG_FRAME_HEADER);
    fake_file_drop(&f);
}

static void damage_is_never_cut(void **state) {
    static uint8_t back[CAPACITY];
    struct fake_file f;
    (void)state;
    for (int how = 0; how < 3; how++) {
        make_frames(&f, 0, 0, how == 0, false); /* 0: later flushes prove it; 1: the mark does */
        f.bytes[f.frame[7].pos + 40] ^= 1;
        store(0, f.bytes, CAPACITY);
        if (how == 1)
            note(0, f.frame[12].pos, 0);
        if (how == 2) { /* the end is missing, below the mark */
            note(0, f.pos, 0);
            memset(f.bytes + f.frame[15].pos, 0, CAPACITY - f.frame[15].pos);
            store(0, f.bytes, CAPACITY);
        }
        assert_int_equal(recover_twice(1, 0), how == 2 ? 15 : RECORDS);
        assert_int_equal(read_back(0, back), CAPACITY);
        assert_memory_equal(back, f.bytes, CAPACITY);
        fake_file_drop(&f);
    }
}

static void a_damaged_header_is_kept(void **state) {
    static uint8_t bytes[CAPACITY];
    struct eg_recovered r;
    (void)state;
    put_file(0, 0, true);
    put_file(1, 20, true);
    put_file(2, 40, false);
    put_file(3, 60, false);
    for (uint64_t seq = 1; seq <= 3; seq += 2) { /* in the middle, and the last */
        size_t n = read_back(seq, bytes);
        bytes[30] ^= 1;
        store(seq, bytes, n);
    }
    assert_int_equal(recover_twice(4, 3), 80);
    assert_int_equal(recover(&r), EAGRE_OK);
    assert_true(eg_files_at(&r.files, 1)->damaged && eg_files_at(&r.files, 3)->damaged);
    assert_int_equal(eg_files_at(&r.files, 0)->end, 20);
    assert_int_equal(eg_files_at(&r.files, 1)->base, 20);
    assert_int_equal(eg_files_at(&r.files, 1)->end, 40);
    assert_int_equal(eg_files_at(&r.files, 2)->end, 60);
    assert_int_equal(eg_files_at(&r.files, 3)->base, 60);
    eg_files_free(&r.files);
}

/* The last one, too, if nothing in it can be read any more, or was never its own: nobody but damage leaves that. */
static void a_bad_header_is_never_removed(void **state) {
    static uint8_t bytes[CAPACITY], back[CAPACITY];
    struct eg_recovered r;
    struct fake_file f;
    (void)state;
    put_file(0, 0, true);
    for (int how = 0; how < 5; how++) {
        size_t n = CAPACITY;
        memset(bytes, 0, sizeof(bytes));
        if (how == 0) { /* a header that one bit is wrong in, and nothing else */
            struct eg_logfile_id id = id_of(1, 20);
            fake_file_make(&f, &id);
            memcpy(bytes, f.bytes, CAPACITY);
            bytes[30] ^= 1;
            fake_file_drop(&f);
        } else if (how == 1) { /* rubbish */
            memset(bytes, 0xa5, CAPACITY);
        } else if (how == 2) { /* half a page of it */
            memset(bytes, 0xa5, n = EG_PAGE / 2);
        } else if (how == 3) { /* zeros, but for one byte */
            bytes[CAPACITY - 1] = 1;
        } else { /* zeros, but records were on disk */
            note(1, EG_SEGMENT_DATA + 640, 0);
        }
        store(1, bytes, n);
        assert_int_equal(recover_twice(2, 1), how == 4 ? 21 : 20);
        assert_int_equal(recover(&r), EAGRE_OK);
        assert_true(eg_files_at(&r.files, 1)->damaged);
        assert_int_equal(r.next_seq, 2); /* and its name is not used again */
        eg_files_free(&r.files);
        assert_int_equal(read_back(1, back), n);
        assert_memory_equal(back, bytes, n);
    }
}

static void files_without_records_go(void **state) {
    static uint8_t empty[CAPACITY];
    struct fake_file f;
    (void)state;
    put_file(0, 0, true);
    struct eg_logfile_id id = id_of(1, 20);
    fake_file_make(&f, &id);
    store(1, f.bytes, CAPACITY); /* a header */
    fake_file_drop(&f);
    store(2, empty, CAPACITY); /* not even that */
    store(3, empty, 0);
    assert_int_equal(recover_twice(1, 0), 20);
    struct stat st;
    assert_int_not_equal(stat(path_of(1, ".log"), &st), 0);
}

static void a_cut_that_was_cut_off(void **state) {
    struct fake_file f;
    (void)state;
    make_frames(&f, 0, 0, true, false);
    store(0, f.bytes, f.frame[9].pos); /* truncated, its end not written yet */
    assert_int_equal(recover_twice(1, 0), 9);
    is_sealed_at(0, 9);
    store(0, f.bytes, f.frame[9].pos + 13); /* or half of it */
    assert_int_equal(recover_twice(1, 0), 9);
    is_sealed_at(0, 9);
    fake_file_drop(&f);
}

static void an_old_index_goes_with_the_tail(void **state) {
    struct fake_file f;
    struct eg_logindex_header h, back;
    struct eg_logindex_entry e[3] = {{.pos8 = 7000, .index = 18}};
    struct stat st;
    (void)state;
    make_frames(&f, 0, 0, true, false);
    store(0, f.bytes, f.frame[9].pos);
    struct eg_logfile_id id = id_of(0, 0);
    eg_logindex_header_make(&h, &id);
    assert_int_equal(eg_log_dir_put_index(&dir, 0, &h, e, 3), EAGRE_OK);
    assert_int_equal(recover_twice(1, 0), 9);
    int fd = open(path_of(0, ".idx"), O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, sizeof(h)); /* less than a step: no entry */
    assert_int_equal(pread(fd, &back, sizeof(back), 0), sizeof(back));
    assert_memory_equal(&h, &back, sizeof(h));
    close(fd);
    fake_file_drop(&f);
}

static void a_foreign_file_is_kept_and_not_read(void **state) {
    static uint8_t back[CAPACITY];
    struct fake_file f;
    struct eg_recovered r;
    (void)state;
    put_file(0, 0, true);
    struct eg_logfile_id id = id_of(1, 20);
    id.partition_uid++;
    fake_file_make(&f, &id);
    fake_value(&f, 10, 1);
    store(1, f.bytes, CAPACITY);
    note(1, f.pos, 0); /* something was there, and it is gone */
    assert_int_equal(recover(&r), EAGRE_OK);
    assert_int_equal(r.files.count, 2);
    assert_true(eg_files_at(&r.files, 1)->damaged);
    assert_int_equal(r.end, 21); /* one record at least */
    eg_files_free(&r.files);
    read_back(1, back);
    assert_memory_equal(back, f.bytes, CAPACITY);
    fake_file_drop(&f);
}

static void one_that_fails_does_not_end_the_others(void **state) {
    struct eg_recovered r;
    struct stat st;
    (void)state;
    put_file(0, 0, true);
    struct eg_log_dir other;
    eg_log_dir_init(&other, d.config.dir, t.uid, 1, t.first_partition_uid[0] + 1, 64, CAPACITY, 0);
    int fd = open(other.path, O_WRONLY | O_CREAT, 0600); /* no directory */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(eg_recover_all(&d), EAGRE_OK);
    assert_int_equal(eg_recover_take(&d, other.partition_uid, true, &r), EAGRE_E_IO);
    assert_non_null(strstr(eg_error_text(), other.path));
    assert_int_equal(eg_recover_take(&d, dir.partition_uid, true, &r), EAGRE_OK);
    assert_int_equal(r.end, 20);
    eg_files_free(&r.files);
    eg_recover_free(&d);
    assert_int_equal(stat(other.path, &st), 0);
}

/* The keeper has the memory: nothing is cut, read or changed. */
static void a_warm_start_only_lists(void **state) {
    static uint8_t before[CAPACITY], after[CAPACITY];
    struct eg_recovered r;
    (void)state;
    put_file(0, 0, true);
    put_file(1, 20, false);
    read_back(1, before);
    d.fresh = false;
    assert_int_equal(eg_recover_all(&d), EAGRE_OK);
    assert_int_equal(eg_recover_take(&d, dir.partition_uid, false, &r), EAGRE_OK);
    assert_int_equal(r.files.count, 2);
    assert_int_equal(eg_files_at(&r.files, 1)->end, -1);
    eg_files_free(&r.files);
    read_back(1, after);
    assert_memory_equal(before, after, CAPACITY);
    assert_int_equal(eg_recover_take(&d, dir.partition_uid, true, &r), EAGRE_OK); /* its memory alone is gone */
    assert_int_equal(r.end, 40);
    eg_files_free(&r.files);
    eg_recover_free(&d);
}

static void notes_do_not_go_back(void **state) {
    struct eg_meta_disk n, put = {.partition_uid = dir.partition_uid, .seq = 5, .pos = 100, .log_start = 50};
    (void)state;
    assert_int_equal(eg_meta_disk_put(d.meta, &put, 1), EAGRE_OK); /* no mark: never used, or gone */
    assert_int_equal(eg_meta_disk_get(d.meta, dir.partition_uid, &n), EAGRE_OK);
    assert_int_equal(n.seq, 0);
    note(5, 100, 50);
    note(4, 900, 60);
    assert_int_equal(eg_meta_disk_get(d.meta, dir.partition_uid, &n), EAGRE_OK);
    assert_true(n.seq == 5 && n.pos == 100 && n.log_start == 60);
    note(5, 200, 10);
    assert_int_equal(eg_meta_disk_get(d.meta, dir.partition_uid, &n), EAGRE_OK);
    assert_true(n.seq == 5 && n.pos == 200 && n.log_start == 60);
}

#define COLD(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        COLD(nothing_is_nothing),
        COLD(whole_files_and_one_that_is_not),
        COLD(torn_anywhere),
        COLD(a_hole_of_one_flush_is_torn),
        COLD(damage_is_never_cut),
        COLD(a_damaged_header_is_kept),
        COLD(a_bad_header_is_never_removed),
        COLD(files_without_records_go),
        COLD(a_cut_that_was_cut_off),
        COLD(an_old_index_goes_with_the_tail),
        COLD(a_foreign_file_is_kept_and_not_read),
        COLD(one_that_fails_does_not_end_the_others),
        COLD(a_warm_start_only_lists),
        COLD(notes_do_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
