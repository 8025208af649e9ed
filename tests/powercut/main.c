/*
 * eg-powercut --seed S [--images N] [--minutes M] [--keep DIR]
 * eg-powercut --warm S [...]    instead: a daemon that takes up what its predecessor wrote and did not flush
 * eg-powercut --flip STRIDE     instead: flip.c
 *
 * A daemon at work is recorded; N (1000) images of what power cuts could leave of its directory, spread over all that
 * was recorded, are recovered, and compared with what had been told until then; some of them also with a cut in the recovery, some by
 * a real daemon. --minutes: with one seed after the other for so long. --keep: the first bad image stays there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "powercut/powercut.h"
#include "sys/rand.h"

#define AGAIN 8         /* each so many-th image: a cut in its recovery */
#define BY_THE_DAEMON 6 /* images of a run that a real daemon recovers */

static char recorder[512];
static const char *keep;
static struct counts { unsigned long images, again, real; } counts;

/* ---- directories -------------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static struct record_log *log_make(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, RECORD_LOG_BYTES) != 0)
        fail_msg("%s cannot be made", path);
    struct record_log *log =
        mmap(NULL, RECORD_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    assert_ptr_not_equal(log, MAP_FAILED);
    atomic_store(&log->used, RECORD_FIRST);
    return log;
}

/* ---- one image ---------------------------------------------------------------------------------------------- */

struct run {
    struct test_paths {
        char image[128], second[128];
    } at;
    struct record_log *log, *recovery;
    struct images *im;
    struct told *told;
    uint64_t seed;
};

/* The recording up to here, to read. */
static void show(const struct run *r, const char *path) {
    static const char *const ops[] = {"-",      "write",   "truncate", "allocate", "sync",
                                      "create", "mkdir",   "rename",   "unlink",   "try",
                                      "sent",   "durable", "trimmed",  "starts",   "lost"};
    FILE *f = fopen(path, "we");
    for (uint64_t at = RECORD_FIRST; f != NULL && at < images_position(r->im);
         at += record_at(r->log, at)->size) {
        const struct record *e = record_at(r->log, at);
        bool name = e->op >= RECORD_CREATE && e->op <= RECORD_UNLINK;
        fprintf(f,
                "%" PRIu64 " %s%s %" PRIu64 " at %" PRIu64 " bytes %" PRIu64 " begin %" PRIu64
                " %s %s\n",
                at, ops[e->op], e->flags ? "!" : "", e->inode, e->at, e->bytes, e->begin,
                name ? (const char *)e->data : "",
                e->op == RECORD_RENAME ? (const char *)e->data + strlen((const char *)e->data) + 1
                                       : "");
    }
    if (f != NULL)
        (void)fclose(f);
}

/* The image was recovered in at.image; make it once more to look at, without that. */
static void bad(struct run *r, uint64_t variant, const char *what, const char *why) {
    if (keep != NULL) {
        remove_tree(keep);
        images_build(r->im, variant, keep);
        char path[512];
        snprintf(path, sizeof(path), "%s/recording", keep);
        show(r, path);
    }
    fail_msg("seed %" PRIu64 ", a cut at %" PRIu64 " of the recording, variant %" PRIu64 ": %s: %s",
             r->seed, images_position(r->im), variant, what, why);
}

static bool same(const struct recovered *a, const struct recovered *b) {
    return memcmp(a, b, sizeof(*a)) == 0;
}

static const char *outcomes(const struct recovered *a, const struct recovered *b) {
    static char text[600];
    size_t n = (size_t)snprintf(text, sizeof(text), "another outcome:");
    for (uint32_t k = 0; k < PARTITIONS; k++)
        n += (size_t)snprintf(text + n, sizeof(text) - n,
                              " partition %" PRIu32 ": %" PRIu64 " records from %" PRId64
                              " to %" PRId64 ", then %" PRIu64 " from %" PRId64 " to %" PRId64 ";",
                              k, a->partition[k].records, a->partition[k].log_start,
                              a->partition[k].end, b->partition[k].records,
                              b->partition[k].log_start, b->partition[k].end);
    return text;
}

/* Power is cut again while the image is recovered, at each step of that. */
static void cut_again(struct run *r, uint64_t variant, const struct recovered *first) {
    char why[600] = "";
    struct recovered now;
    remove_tree(r->at.image);
    images_build(r->im, variant, r->at.image);
    size_t used = atomic_load(&r->recovery->used);
    memset(r->recovery, 0, used);
    atomic_store(&r->recovery->used, RECORD_FIRST);
    struct images *steps = images_of(r->recovery, r->at.image);
    record_switch(r->recovery, r->at.image);
    bool good = verify(r->at.image, r->told, &now, why, sizeof(why));
    record_switch(NULL, NULL);
    if (!good || !same(first, &now))
        bad(r, variant, "recovered once more from the same", good ? outcomes(first, &now) : why);
    while (images_step(steps) != NULL) {
        remove_tree(r->at.second);
        images_build(steps, variant + images_position(steps), r->at.second);
        if (!verify(r->at.second, r->told, &now, why, sizeof(why)))
            bad(r, variant, "cut again in its recovery", why);
        if (!same(first, &now))
            bad(r, variant, "cut again in its recovery", outcomes(first, &now));
    }
    images_free(steps);
    remove_tree(r->at.second);
    counts.again++;
}

/* The daemon itself, and clients, say the same. */
static void by_the_daemon(struct run *r, uint64_t variant, const struct recovered *first) {
    struct eg_test_bus b;
    eagre_t *e;
    char why[600] = "";
    eg_bus_init(&b);
    images_build(r->im, variant, b.data);
    eg_bus_start(&b, "--disk.min.free.bytes=0", NULL);
    if (eagre_open(b.socket, &e) != EAGRE_OK)
        bad(r, variant, "open", eagre_error_detail());
    for (uint32_t k = 0; first->there && k < PARTITIONS; k++) {
        eagre_consumer_t *c;
        eagre_producer_t *p;
        eagre_record_t records[64];
        eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
        eagre_producer_options_t po = EAGRE_PRODUCER_OPTIONS_INIT;
        eagre_message_t m = {.value = "after", .value_len = 5, .partition = (int32_t)k};
        size_t n;
        int64_t offset = 0;
        o.auto_offset_reset = EAGRE_RESET_EARLIEST;
        po.acks = EAGRE_ACKS_DISK;
        if (eagre_producer_open(e, "t", &po, &p) != EAGRE_OK ||
            eagre_produce(p, &m, NULL, &offset) != EAGRE_OK ||
            eagre_consumer_open(e, &o, &c) != EAGRE_OK ||
            eagre_consumer_assign(c, "t", (int32_t)k) != EAGRE_OK)
            bad(r, variant, "a daemon has started, but not", eagre_error_detail());
        if (offset < told_sent_end(r->told, k) || offset < first->partition[k].end)
            bad(r, variant, "a daemon has started", "an offset is given out again");
        told_begin(r->told, k);
        uint64_t seen = 0;
        for (bool last = false; !last;) {
            if (eagre_consumer_poll(c, records, 64, EG_TEST_LIMIT_MS, &n) != EAGRE_OK || n == 0)
                bad(r, variant, "a consumer of what was recovered", eagre_error_detail());
            for (size_t i = 0; i < n && !last; i++) {
                last = records[i].offset == offset;
                seen += !last;
                if (!last && !told_record(r->told, records[i].offset, records[i].value,
                                          records[i].value_len, why, sizeof(why)))
                    bad(r, variant, "a consumer of what was recovered", why);
            }
        }
        int64_t begins; /* retention may have come in between */
        if (eagre_consumer_beginning_offset(c, "t", (int32_t)k, &begins) != EAGRE_OK ||
            (begins == first->partition[k].log_start && seen != first->partition[k].records))
            bad(r, variant, "a consumer of what was recovered", "not as many records");
        eagre_consumer_close(c);
        eagre_producer_close(p);
    }
    eagre_close(e);
    assert_int_equal(eg_bus_stop(&b), 0);
    eg_bus_remove(&b);
    counts.real++;
}

static void one_image(struct run *r, uint64_t variant) {
    struct recovered first, second;
    char why[600] = "";
    remove_tree(r->at.image);
    if (!images_build(r->im, variant, r->at.image))
        return;
    if (!verify(r->at.image, r->told, &first, why, sizeof(why)))
        bad(r, variant, "recovered", why);
    if (!verify(r->at.image, r->told, &second, why, sizeof(why)))
        bad(r, variant, "recovered a second time", why);
    if (!same(&first, &second))
        bad(r, variant, "recovered a second time", outcomes(&first, &second));
    counts.images++;
    if (counts.images % AGAIN == 0 && record_switch != NULL)
        cut_again(r, variant, &first);
}

/* ---- a run -------------------------------------------------------------------------------------------------- */

/* How much it matters to cut just behind it: most is open behind a write. */
static uint64_t weight(const struct record *r) {
    return r->op == RECORD_TRY || r->op == RECORD_STARTS || r->op == RECORD_SENT ? 0
           : r->op == RECORD_WRITE                                               ? 4
                                                                                 : 1;
}

static void run(uint64_t seed, unsigned long images, bool warm) {
    struct eg_test_bus b;
    struct run r = {.seed = seed};
    struct record *step;
    char path[128];
    uint64_t random = seed, steps = 0, from = RECORD_FIRST;
    eg_bus_init(&b);
    snprintf(path, sizeof(path), "%s/record", b.dir);
    r.log = log_make(path);
    if (warm)
        from = work_warm(&b, seed, r.log, path, recorder);
    else
        work(&b, seed, r.log, path, recorder);
    snprintf(path, sizeof(path), "%s/recovery", b.dir);
    r.recovery = log_make(path);
    snprintf(r.at.image, sizeof(r.at.image), "%s/image", b.dir);
    snprintf(r.at.second, sizeof(r.at.second), "%s/second", b.dir);
    for (uint64_t at = from; at < atomic_load(&r.log->used); at += record_at(r.log, at)->size)
        steps += weight(record_at(r.log, at));
    r.im = images_new(r.log);
    r.told = told_new(r.log);
    uint64_t seen = 0, made = 0, real = 0;
    while ((step = images_step(r.im)) != NULL) {
        told_step(r.told, step, images_position(r.im));
        seen += images_position(r.im) > from ? weight(step) : 0;
        for (; made < seen * images / steps;
             made++) { /* 0 and 1: nothing, or all, that is not on disk */
            uint64_t variant = eg_rand_next(&random);
            one_image(&r, variant % 8 < 2 ? variant % 2 : variant);
        }
        if (real < seen * BY_THE_DAEMON / steps && images > 0) {
            struct recovered now;
            char why[600] = "";
            uint64_t variant = eg_rand_next(&random);
            remove_tree(r.at.image);
            images_build(r.im, variant, r.at.image);
            if (!verify(r.at.image, r.told, &now, why, sizeof(why)))
                bad(&r, variant, "recovered", why);
            by_the_daemon(&r, variant, &now);
            real++;
        }
    }
    const char *difference = images_compare(r.im, b.data);
    if (difference != NULL)
        fail_msg("the recording is not complete: %s", difference);
    told_free(r.told);
    images_free(r.im);
    munmap(r.log, RECORD_LOG_BYTES);
    munmap(r.recovery, RECORD_LOG_BYTES);
    eg_bus_remove(&b);
    printf("seed %" PRIu64 ": %" PRIu64
           " steps; so far %lu images, %lu cut again, %lu by a daemon\n",
           seed, steps, counts.images, counts.again, counts.real);
}

/* As tests of cmocka's, which tells of each assertion where it was. */
static struct {
    uint64_t seed;
    unsigned long images;
    unsigned stride;
    bool warm;
} what;

static void power_cuts(void **state) {
    (void)state;
    run(what.seed, what.images, what.warm);
}

static void each_byte(void **state) {
    (void)state;
    flip_all(what.stride);
}

static int test(const char *name, CMUnitTestFunction f) {
    const struct CMUnitTest tests[] = {{name, f, NULL, NULL, NULL}};
    return cmocka_run_group_tests_name("powercut", tests, NULL, NULL);
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    unsigned long images = 1000;
    double minutes = 0;
    if (access("/dev/shm", W_OK) == 0) /* what is on disk is told by the recording, not by a disk */
        setenv("TMPDIR", "/dev/shm", 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--flip") == 0) {
            what.stride = (unsigned)strtoul(argv[i + 1], NULL, 10);
            return test("each byte", each_byte);
        }
        what.warm |= strcmp(argv[i], "--warm") == 0;
        if (strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--warm") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--images") == 0)
            images = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--minutes") == 0)
            minutes = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--keep") == 0)
            keep = argv[i + 1];
        else
            return 2;
    }
    snprintf(recorder, sizeof(recorder), "%s", EG_TEST_BIN_DIR "/../tests/powercut/eg-recorder.so");
    if (record_switch == NULL) { /* once more, with the recorder */
        setenv("LD_PRELOAD", recorder, 1);
        execv("/proc/self/exe", argv);
        perror("exec");
        return 1;
    }
    unsetenv("LD_PRELOAD");
    time_t end = time(NULL) + (time_t)(minutes * 60);
    what.images = images;
    do {
        what.seed = seed++;
        if (test("power cuts", power_cuts) != 0)
            return 1;
    } while (time(NULL) < end);
    return 0;
}
