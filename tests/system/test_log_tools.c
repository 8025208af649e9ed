/* eagre log inspect, dump, verify, repair: on files that this test makes, without a daemon. */
#include "harness.h"
#include "unit/log/fake_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fake_file file;
static char partition[160]; /* DIR/log/t7/3 */

#define SEGMENTS 3u

static char *path_of(uint64_t seq, const char *suffix) {
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%020" PRIu64 "%s", partition, seq, suffix);
    return path;
}

static void write_file(const char *path, const void *data, size_t bytes) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), bytes);
    close(fd);
}

static size_t read_file(const char *path, uint8_t **data) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    *data = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, *data, (size_t)st.st_size), st.st_size);
    close(fd);
    return (size_t)st.st_size;
}

/* Change bytes of a file: xor with mask, or all zeros where mask is 0. */
static void hit(uint64_t seq, const char *suffix, uint64_t at, size_t n, uint8_t mask) {
    uint8_t *data;
    const char *path = path_of(seq, suffix);
    size_t bytes = read_file(path, &data);
    for (size_t i = at; i < at + n && i < bytes; i++)
        data[i] = mask != 0 ? data[i] ^ mask : 0;
    write_file(path, data, bytes);
    free(data);
}

static void put_index(uint64_t seq) {
    struct {
        struct eg_logindex_header header;
        struct eg_logindex_entry entry[64];
    } x;
    struct eg_logindex_builder b;
    eg_logindex_header_make(&x.header, &file.id);
    uint32_t n = eg_logindex_rebuild(&file.l, file.pos, &b, x.entry, 64);
    assert_true(n > 1);
    write_file(path_of(seq, ".idx"), &x, eg_logindex_at(n));
}

/* Records, by segment: frames of the last one written and what lies where. */
static struct {
    uint64_t records, index, end, last_frame, middle_frame;
    int64_t base;
} made[SEGMENTS];
static uint64_t all_records;

/* Segments 5, 6 (whole) and 7 (open) of partition 3 of topic id 7. */
static void make(const struct eg_test_bus *b) {
    char dir[160];
    struct eg_logfile_id id = file_id;
    id.capacity = 256u << 10;
    all_records = 0;
    mkdir(b->data, 0700);
    snprintf(dir, sizeof(dir), "%s/log", b->data);
    mkdir(dir, 0700);
    snprintf(dir, sizeof(dir), "%s/log/t7", b->data);
    mkdir(dir, 0700);
    snprintf(partition, sizeof(partition), "%s/log/t7/3", b->data);
    mkdir(partition, 0700);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        fake_file_make(&file, &id);
        fake_fill(&file, id.seq, i < 2 ? 0 : 100000, true);
        made[i].records = file.records;
        made[i].index = file.index;
        made[i].base = id.base;
        made[i].last_frame = file.frame[file.frames - 1].pos;
        made[i].middle_frame = file.frame[file.frames / 2].pos;
        made[i].end = file.pos;
        all_records += file.records;
        if (i < 2)
            fake_end(&file);
        write_file(path_of(id.seq, ".log"), file.bytes, id.capacity);
        put_index(id.seq);
        id.seq++;
        id.base += (int64_t)file.index;
        fake_file_drop(&file);
    }
}

static int clear(void **state) {
    struct eg_run r;
    EG_RUN(&r, NULL, NULL, "/bin/rm", "-rf", ((struct eg_test_bus *)*state)->data);
    eg_run_free(&r);
    return 0;
}

/* ---- running --------------------------------------------------------------------------------------------- */

#define HAS(status, text, ...)                                                                     \
    has((status), (text), (const char *const[]){"eagre", "log", __VA_ARGS__, NULL})

/* It ends so and prints that somewhere, to stdout or stderr. */
static void has(int status, const char *text, const char *const *argv) {
    struct eg_run r;
    eg_run(&r, NULL, NULL, argv);
    if (r.status != status ||
        (text != NULL && strstr(r.out, text) == NULL && strstr(r.err, text) == NULL))
        fail_msg("eagre log %s: exit status %d, stdout:\n%.4000s\nstderr:\n%s\nexpected %d and: %s",
                 argv[2], r.status, r.out, r.err, status, text != NULL ? text : "(any)");
    eg_run_free(&r);
}

static uint64_t lines_of(const char *text) {
    uint64_t n = 0;
    for (; (text = strchr(text, '\n')) != NULL; text++)
        n++;
    return n;
}

/* How many records a dump prints; it must print those of all of the segment's offsets but for pads. */
static uint64_t dumped(int status, const char *path) {
    struct eg_run r;
    EG_RUN(&r, NULL, NULL, "eagre", "log", "dump", path, "-f", "%o\\n");
    assert_int_equal(r.status, status);
    int64_t before = -1;
    for (const char *at = r.out; *at != '\0'; at = strchr(at, '\n') + 1) {
        assert_true(atoll(at) > before);
        before = atoll(at);
    }
    uint64_t n = lines_of(r.out);
    eg_run_free(&r);
    return n;
}

/* A digest of names, sizes and contents. */
static uint32_t digest(void) {
    struct dirent **names;
    uint32_t crc = 0;
    int n = scandir(partition, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[512];
        uint8_t *data;
        snprintf(path, sizeof(path), "%s/%s", partition, names[i]->d_name);
        if (names[i]->d_type == DT_REG) {
            size_t bytes = read_file(path, &data);
            crc = eg_crc32c(eg_crc32c(crc, path, strlen(path)), data, bytes);
            free(data);
        }
        free(names[i]);
    }
    free(names);
    return crc;
}

static const char *data_of(void **state) { return ((struct eg_test_bus *)*state)->data; }

/* ---- what is good ------------------------------------------------------------------------------------------ */

static void finds_files_by_any_path(void **state) {
    const struct eg_test_bus *b = *state;
    char text[256], path[256];
    make(b);
    snprintf(text, sizeof(text), "1 partitions, 3 segments, %" PRIu64 " records", all_records);
    HAS(0, text, "verify", b->data);
    HAS(0, "bytes: 0 problems", "verify", b->data);
    snprintf(path, sizeof(path), "%s/log/", b->data);
    HAS(0, text, "verify", path);
    snprintf(path, sizeof(path), "%s/log/t7", b->data);
    HAS(0, text, "verify", path);
    HAS(0, text, "verify", partition);
    HAS(0, "2 segments", "verify", path_of(5, ".log"), path_of(7, ".log"));
    HAS(0, "nothing to repair", "repair", b->data);
    assert_int_equal(dumped(0, b->data), all_records);
    assert_int_equal(dumped(0, path_of(6, ".log")), made[1].records);
    /* what is not for us is left alone */
    snprintf(path, sizeof(path), "%s/spare.log", partition);
    write_file(path, "x", 1);
    write_file(path_of(9, ".log.bak"), "x", 1);
    HAS(0, text, "verify", b->data);
    HAS(1, "20 digits", "verify", path);
    HAS(1, "No such file", "verify", "/nowhere");
    HAS(1, "no log files", "verify", b->dir);
    HAS(2, "which directory", "verify");
    HAS(2, "inspect, dump, verify or repair", "frob");
    HAS(2, "text or json", "inspect", b->data, "--format", "xml");
}

static void inspect_tells_of_each_segment(void **state) {
    char text[256];
    make(*state);
    snprintf(text, sizeof(text), "%10d  %14" PRId64 "  %14" PRId64 "  %10" PRIu64, 6, made[1].base,
             made[1].base + (int64_t)made[1].index, made[1].records);
    HAS(0, text, "inspect", data_of(state));
    HAS(0, "topic id 7, partition 3, partition id 21", "inspect", partition);
    HAS(0, "open", "inspect", data_of(state));
    snprintf(text, sizeof(text),
             "\"base\": %" PRId64 ", \"end\": %" PRId64 ", \"records\": %" PRIu64, made[2].base,
             made[2].base + (int64_t)made[2].index, made[2].records);
    HAS(0, text, "inspect", data_of(state), "--format", "json");
    HAS(0, "\"first_ts_ns\": 17", "inspect", data_of(state), "--format", "json");
}

static void dump_prints_as_consume_does(void **state) {
    struct eg_run r;
    char offset[32];
    make(*state);
    snprintf(offset, sizeof(offset), "%" PRId64, made[1].base);
    EG_RUN(&r, NULL, NULL, "eagre", "log", "dump", data_of(state), "-o", offset, "-c", "3", "-f",
           "%t/%p %o\\n");
    assert_int_equal(r.status, 0);
    assert_int_equal(lines_of(r.out), 3);
    assert_memory_equal(r.out, "t7/3 ", 5);
    assert_true(atoll(r.out + 5) >= made[1].base);
    eg_run_free(&r);
    HAS(0, "{\"topic\":\"t7\",\"partition\":3,\"offset\":1", "dump", data_of(state), "-J", "-c",
        "20");
    HAS(0, "\"headers\":[", "dump", data_of(state), "--format", "json");
    HAS(2, "-f and -J", "dump", data_of(state), "-J", "-f", "%o");
}

/* ---- what is not --------------------------------------------------------------------------------------------- */

static void verify_finds_what_is_wrong(void **state) {
    const struct eg_test_bus *b = *state;
    char text[128];
    make(b);
    hit(6, ".log", made[1].middle_frame + 20, 1, 1);
    snprintf(text, sizeof(text), "position %" PRIu64, made[1].middle_frame);
    HAS(1, text, "verify", b->data);
    HAS(1, "a segment behind it has begun", "verify", b->data);
    HAS(1, "\"problems\": [\n", "verify", b->data, "--format", "json");
    HAS(0, "damaged", "inspect", b->data); /* it shows, it does not judge */
    assert_true(dumped(1, b->data) >= all_records - 2);
    HAS(1, "records from offset", "dump", b->data, "-f", "");

    make(b);
    hit(6, ".log", made[1].middle_frame, 20000, 0);
    assert_true(dumped(1, b->data) < all_records - 20 && dumped(1, b->data) > all_records - 1000);
    HAS(1, "nothing is written here, but a segment behind", "verify", b->data);

    make(b);
    hit(5, ".idx", 60, 1, 8);
    HAS(1, "its index leads", "verify", b->data);
    make(b);
    hit(5, ".idx", 0, 1, 8);
    HAS(1, "its index has a bad header", "verify", b->data);
    make(b);
    assert_int_equal(truncate(path_of(5, ".idx"), 60), 0);
    HAS(1, "its index ends within an entry", "verify", b->data);
    unlink(path_of(5, ".idx"));
    HAS(0, "0 problems", "verify", b->data);

    make(b);
    unlink(path_of(6, ".log"));
    HAS(1, "segment 6 is missing", "verify", b->data);
    make(b);
    rename(path_of(5, ".log"), path_of(4, ".log"));
    HAS(1, "is of segment 5, expected 4", "verify", b->data);
    unlink(path_of(4, ".log"));

    make(b); /* a good file, whose offsets do not follow */
    struct eg_logfile_id id = file_id;
    id.seq = 6;
    id.base = made[1].base + 1;
    id.capacity = 256u << 10;
    fake_file_make(&file, &id);
    fake_fill(&file, 6, 0, true);
    fake_end(&file);
    write_file(path_of(6, ".log"), file.bytes, id.capacity);
    fake_file_drop(&file);
    unlink(path_of(6, ".idx"));
    HAS(1, "but the segment before it ends at", "verify", b->data);

    make(b);
    hit(6, ".log", 30, 1, 1);
    HAS(1, "header: checksum does not match", "verify", b->data);
    make(b);
    hit(6, ".log", made[1].last_frame, 100000, 0); /* its end is gone, and no later flush tells */
    HAS(1, "a segment behind it has begun", "verify", b->data);
    make(b);
    rename(path_of(6, ".log"), path_of(6, ".log.damaged"));
    HAS(1, "was put aside", "verify", b->data);
}

/* ---- repair -------------------------------------------------------------------------------------------------- */

static void repair_says_first_and_does_with_yes(void **state) {
    const struct eg_test_bus *b = *state;
    char text[160];
    make(b);
    hit(5, ".idx", 60, 1, 8);
    unlink(path_of(6, ".idx"));
    hit(7, ".log", made[2].last_frame + 20, 1, 4);
    snprintf(text, sizeof(text), "torn tail from position %" PRIu64, made[2].last_frame);
    HAS(1, text, "verify", b->data);
    uint32_t before = digest();
    HAS(1, "nothing was changed: 3 things would be done", "repair", b->data);
    assert_int_equal(digest(), before);
    HAS(1, "cut only with its directory", "repair", "--yes", path_of(7, ".log"));
    assert_int_equal(digest(), before);
    HAS(0, "cut behind what is good", "repair", b->data, "--yes");
    HAS(0, "0 problems", "verify", b->data);
    HAS(0, "nothing to repair", "repair", b->data, "--yes");
    assert_int_equal(access(path_of(6, ".idx"), F_OK), 0);
    struct stat st;
    assert_int_equal(stat(path_of(7, ".log"), &st), 0);
    assert_int_equal(st.st_size, made[2].last_frame);
    assert_true(dumped(0, b->data) >= all_records - 1);
}

/* The part that is cut had places in the index. */
static void a_cut_tail_is_in_no_index(void **state) {
    const struct eg_test_bus *b = *state;
    make(b);
    hit(7, ".log", made[2].middle_frame + 20, 1, 4);
    hit(7, ".log", made[2].middle_frame + 64, 200000, 0);
    HAS(1, "torn tail", "verify", b->data);
    HAS(0, "cut behind", "repair", b->data, "--yes");
    HAS(0, "0 problems", "verify", b->data);
    make(b); /* the same, and the end is a clean one: only the index is wrong */
    hit(7, ".log", made[2].middle_frame, 200000, 0);
    HAS(1, "its index leads", "verify", b->data);
    HAS(0, "made its index anew", "repair", b->data, "--yes");
    HAS(0, "0 problems", "verify", b->data);
}

static void repair_puts_damage_aside_and_never_cuts_it(void **state) {
    const struct eg_test_bus *b = *state;
    uint8_t *was, *is;
    make(b);
    hit(6, ".log", made[1].middle_frame + 20, 1, 1);
    hit(7, ".log", made[2].middle_frame + 20, 1,
        1); /* the last one, too: later flushes lie behind */
    uint32_t before = digest();
    HAS(1, "would put it aside", "repair", b->data);
    HAS(1, "consumers would not get them", "repair", b->data);
    assert_int_equal(digest(), before);
    size_t bytes = read_file(path_of(7, ".log"), &was);
    HAS(0, "put aside as .log.damaged", "repair", b->data, "--yes");
    assert_int_equal(read_file(path_of(7, ".log.damaged"), &is), bytes);
    assert_memory_equal(was, is, bytes);
    free(was);
    free(is);
    assert_int_equal(access(path_of(6, ".log"), F_OK), -1);
    assert_int_equal(access(path_of(6, ".idx"), F_OK), -1);
    HAS(1, "was put aside as damaged: `eagre log dump`", "verify", b->data);
    assert_true(dumped(1, b->data) >= all_records - 4); /* what is good in it can still be had */
    /* one that was put aside before is not overwritten */
    make(b);
    hit(6, ".log", made[1].middle_frame + 20, 1, 1);
    before = digest();
    HAS(1, "File exists", "repair", b->data, "--yes");
    assert_int_equal(digest(), before);
}

static void repair_keeps_off_a_daemons_files(void **state) {
    const struct eg_test_bus *b = *state;
    char path[128];
    make(b);
    hit(7, ".log", made[2].last_frame + 20, 1, 4);
    snprintf(path, sizeof(path), "%s/lock", b->data);
    write_file(path, "4711\n", 5);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    uint32_t before = digest();
    HAS(5, "in use by eagred pid 4711", "repair", b->data, "--yes");
    HAS(5, "in use by eagred pid 4711", "repair", partition, "--yes");
    HAS(5, "in use by eagred pid 4711", "repair", path_of(7, ".log"), "--yes");
    assert_int_equal(digest(), before);
    HAS(1, "would cut", "repair", b->data);
    HAS(1, "torn tail", "verify", b->data);
    close(fd);
    HAS(0, "cut behind", "repair", b->data, "--yes");
}

/* What a daemon leaves that was killed between two steps. */
static void half_made_files_are_no_damage(void **state) {
    const struct eg_test_bus *b = *state;
    struct eg_logfile_id id = file_id;
    make(b);
    write_file(path_of(8, ".log"), "", 0);
    HAS(0, "0 problems", "verify", b->data); /* 7 still is the last one in which something is */
    hit(7, ".log", made[2].last_frame + 20, 1, 4);
    HAS(1, "torn tail", "verify", b->data);
    HAS(0, "cut behind", "repair", b->data, "--yes");
    HAS(0, "0 problems", "verify", b->data);
    unlink(path_of(7, ".log"));
    unlink(path_of(8, ".log"));
    write_file(path_of(7, ".log"), "", 0);
    HAS(0, "empty", "inspect", b->data);
    HAS(0, "0 problems", "verify", b->data);
    id.seq = 9; /* but this is something else */
    fake_file_make(&file, &id);
    fake_fill(&file, 2, 0, true);
    write_file(path_of(7, ".log"), file.bytes, id.capacity);
    HAS(1, "is of segment 9, expected 7", "verify", b->data);
    memset(file.bytes, 0, EG_PAGE); /* and so is this */
    write_file(path_of(7, ".log"), file.bytes, id.capacity);
    fake_file_drop(&file);
    HAS(1, "nothing was written yet", "verify", b->data);
    unlink(path_of(7, ".log"));
    mkdir(path_of(7, ".log"), 0700); /* no file at all */
    HAS(1, "cannot read it", "verify", b->data);
    rmdir(path_of(7, ".log"));
    assert_int_equal(mkfifo(path_of(7, ".log"), 0600), 0);
    HAS(1, "cannot read it", "verify", b->data);
    HAS(1, "left as it is", "repair", b->data, "--yes");
}

/* A data directory with many partitions: said once. */
static void refusals_are_said_once(void **state) {
    const struct eg_test_bus *b = *state;
    char path[192], other[160];
    struct eg_run r;
    make(b);
    snprintf(other, sizeof(other), "%s/log/t7/4", b->data);
    mkdir(other, 0700);
    snprintf(path, sizeof(path), "%s/%020d.log", other, 1);
    write_file(path, "", 0);
    snprintf(path, sizeof(path), "%s/lock", b->data);
    write_file(path, "4711\n", 5);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    EG_RUN(&r, NULL, NULL, "eagre", "log", "repair", b->data, "--yes");
    assert_int_equal(r.status, 5);
    assert_int_equal(lines_of(r.err), 1);
    eg_run_free(&r);
    close(fd);
    EG_RUN(&r, NULL, NULL, "eagre", "log", "verify", "/nowhere");
    assert_string_equal(r.out, ""); /* and no "0 problems" */
    eg_run_free(&r);
}

/* The daemon's own files. */
static void a_daemons_files_are_good(void **state) {
    struct eg_test_bus *b = *state;
    char lines[20 * 500 + 1];
    struct eg_run r;
    for (int i = 0; i < 500; i++)
        memcpy(lines + 20 * i, "twenty characters..\n", 20);
    lines[sizeof(lines) - 1] = '\0';
    eg_bus_start(b, NULL);
    EG_RUN(&r, b, NULL, "eagre", "topic", "create", "x", "-p", "2", "-c", "segment.bytes=64K", "-c",
           "storage=disk");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    for (int i = 0; i < 6; i++) { /* more than two segments of each partition */
        EG_RUN(&r, b, lines, "eagre", "produce", "x", "-p", i & 1 ? "0" : "1");
        assert_int_equal(r.status, 0);
        eg_run_free(&r);
    }
    HAS(5, "in use by eagred", "repair", b->data, "--yes");
    assert_int_equal(eg_bus_stop(b), 0);
    HAS(0, "3000 records, 0 pads", "verify", b->data);
    HAS(0, "0 problems", "verify", b->data);
    HAS(0, "nothing to repair", "repair", b->data);
}

/* Whatever is done to the files: no crash, and repair leaves nothing that it would repair again. */
static void survives_random_damage(void **state) {
    const struct eg_test_bus *b = *state;
    static const char *const commands[] = {"inspect", "dump", "verify"};
    uint64_t seed = 11;
    for (int round = 0; round < 16; round++) {
        clear(state);
        make(b);
        for (uint64_t n = eg_rand_next(&seed) % 6 + 1; n > 0; n--) {
            uint64_t r = eg_rand_next(&seed), seq = 5 + r % 3,
                     at = eg_rand_next(&seed) % (256u << 10);
            if (r >> 8 & 4)
                at %= 4300; /* near the header */
            if (access(path_of(seq, ".idx"), F_OK) == 0 && (r >> 8 & 3) == 0)
                hit(seq, ".idx", at % 200, r >> 16 & 15, (uint8_t)(r >> 24));
            else if ((r >> 8 & 3) == 1)
                assert_int_equal(truncate(path_of(seq, ".log"), (off_t)at), 0);
            else
                hit(seq, ".log", at, r >> 16 & 8191, (uint8_t)(r >> 32));
        }
        for (int i = 0; i < 3; i++) {
            struct eg_run r;
            EG_RUN(&r, NULL, NULL, "eagre", "log", commands[i], b->data);
            if (r.status > 1)
                fail_msg("round %d: eagre log %s: exit status %d: %s", round, commands[i], r.status,
                         r.err);
            eg_run_free(&r);
        }
        struct eg_run r;
        EG_RUN(&r, NULL, NULL, "eagre", "log", "repair", "--yes", b->data);
        assert_true(r.status <= 1);
        eg_run_free(&r);
        uint32_t before = digest();
        EG_RUN(&r, NULL, NULL, "eagre", "log", "repair", "--yes", b->data);
        assert_true(r.status <= 1);
        if (digest() != before)
            fail_msg("round %d: repaired again: %s", round, r.out);
        eg_run_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(finds_files_by_any_path, clear),
        cmocka_unit_test_teardown(inspect_tells_of_each_segment, clear),
        cmocka_unit_test_teardown(dump_prints_as_consume_does, clear),
        cmocka_unit_test_teardown(verify_finds_what_is_wrong, clear),
        cmocka_unit_test_teardown(repair_says_first_and_does_with_yes, clear),
        cmocka_unit_test_teardown(a_cut_tail_is_in_no_index, clear),
        cmocka_unit_test_teardown(repair_puts_damage_aside_and_never_cuts_it, clear),
        cmocka_unit_test_teardown(repair_keeps_off_a_daemons_files, clear),
        cmocka_unit_test_teardown(refusals_are_said_once, clear),
        cmocka_unit_test_teardown(half_made_files_are_no_damage, clear),
        cmocka_unit_test_teardown(a_daemons_files_are_good, clear),
        cmocka_unit_test_teardown(survives_random_damage, clear),
    };
    return cmocka_run_group_tests(tests, eg_setup_bus_stopped, eg_teardown_bus);
}
