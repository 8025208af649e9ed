/* The archiver, on a partition that is driven step by step: what it says to be durable is in the files, whatever the disk does. */
#include "one_partition.h"

#include <fcntl.h>
#include <semaphore.h>
#include <sys/stat.h>

#include "archive.h"
#include "archive_internal.h"
#include "disk_fault.h"
#include "disk_io.h"
#include "recover.h"
#include "retention.h"
#include "sys/faultpoint.h"

#define FLUSH_NS EG_NS_PER_S
#define PER 56 /* records of a segment */

static int setup_disk(void **state) {
    int rc = setup(state);
    strcpy(x.d.config.dir, x.dir);
    x.d.config.disk_io = EG_DISK_IO_THREADS;
    unsetenv("EAGRE_DISK_FAULT");
    assert_int_equal(eg_io_open(&x.d, &x.d.disk_io), EAGRE_OK);
    assert_int_equal(eg_retention_service.start(&x.d), EAGRE_OK);
    return rc;
}

static void jobs_end(void) {
    while (eg_io_wait(x.d.disk_io)) {}
}

static void delete_topic(void (*then)(void)) {
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    char path[300];
    struct stat st;
    uint32_t uid = x.t->meta.uid;
    assert_int_equal(eg_topic_delete(&x.d, &peer, "t"), EAGRE_OK);
    x.t = NULL;
    free(x.producer.page);
    free(x.consumer.page);
    then();
    snprintf(path, sizeof(path), "%s/log/t%u", x.dir, uid); /* and no job has made it anew */
    assert_int_not_equal(stat(path, &st), 0);
    strcat(path, ".gone");
    assert_int_not_equal(stat(path, &st), 0);
}

static int teardown_disk(void **state) {
    if (x.t != NULL)
        delete_topic(jobs_end);
    assert_int_equal(x.d.syncs.busy, 0);
    assert_null(x.d.syncs.first);
    eg_retention_service.stop(&x.d, false);
    eg_io_close(x.d.disk_io);
    return teardown(state);
}

static void make_disk_topic(const char *name, const char *value) {
    struct eg_change changes[] = {{"storage", "disk"}, {name, value}};
    make_topic(changes, name != NULL ? 2 : 1);
}

/* All that can be done now, disk included. */
static void settle(void) {
    do
        work();
    while (eg_io_wait(x.d.disk_io));
    work();
}

static void pass(int64_t ns) {
    now += ns;
    settle();
}

static void produce_n(int n) {
    while (n-- > 0)
        assert_int_equal(produce(), EAGRE_OK);
}

/* With the disk keeping up. */
static void produce_many(int n) {
    while (n-- > 0)
        while (produce() != EAGRE_OK)
            settle();
}

static int64_t durable(void) { return (int64_t)eg_load_acquire(&x.p->status->durable_end); }
static uint32_t disk_state(void) { return eg_load_acquire(&x.p->status->disk); }
static void want_all(void) { eg_store_relaxed(&x.p->ring->durable_wanted, x.produced); }

static void fault(const char *text) {
    setenv("EAGRE_DISK_FAULT", text, 1);
    assert_int_equal(eg_disk_fault_init(), EAGRE_OK);
}

/* Every offset below `end` is in the files, with its bytes; from the log's first file on. */
static void check_files(int64_t end) {
    struct eg_file_table t;
    int64_t offset = -1;
    assert_int_equal(eg_log_dir_list(eg_archive_dir(x.p), &t), EAGRE_OK);
    for (size_t i = 0; i < t.count; i++) {
        const struct eg_log_file *f = eg_files_at(&t, i);
        struct eg_logfile_id id;
        struct eg_logfile l;
        struct eg_logfile_iter it;
        struct stat st;
        enum eg_logfile_step step;
        uint32_t flush = 1;
        int fd;
        assert_false(f->damaged);
        assert_int_equal(eg_log_dir_open(eg_archive_dir(x.p), f->seq, false, &fd), EAGRE_OK);
        assert_int_equal(fstat(fd, &st), 0);
        uint8_t *data = aligned_alloc(EG_PAGE, eg_align_up((uint64_t)st.st_size, EG_PAGE));
        assert_int_equal(pread(fd, data, (size_t)st.st_size, 0), st.st_size);
        close(fd);
        assert_int_equal(eg_logfile_header_check(data, (uint64_t)st.st_size, NULL, &id, NULL), EAGRE_OK);
        if (offset < 0)
            offset = id.base;
        assert_int_equal(id.base, offset);
        eg_logfile_init(&l, &id, data, (uint64_t)st.st_size);
        eg_logfile_iter_init(&it, &l, EG_SEGMENT_DATA, 0);
        while ((step = eg_logfile_next(&it)) == EG_STEP_RECORD) {
            assert_int_equal(it.frame.view.value_length, PAYLOAD);
            assert_int_equal(((const uint8_t *)it.frame.view.value)[PAYLOAD / 2], offset % 251);
            /* The numbers are those of flushes: none is left out. */
            assert_true(it.frame.flush == flush || it.frame.flush == flush + 1);
            flush = it.frame.flush;
            offset++;
        }
        if (i + 1 < t.count)
            assert_int_equal(step, EG_STEP_END);
        else
            assert_true(step == EG_STEP_END || step == EG_STEP_NOTHING);
        free(data);
    }
    eg_files_free(&t);
    if (end > 0 && offset < end)
        fail_msg("the files end at %lld, expected %lld", (long long)offset, (long long)end);
}

/* ---- when ---------------------------------------------------------------------------------------------------------- */

static void a_trickle_is_flushed_in_time(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    pass(0);
    produce_n(3);
    pass(FLUSH_NS / 2);
    assert_int_equal(durable(), 0);
    pass(FLUSH_NS / 2);
    assert_int_equal(durable(), 3);
    check_files(3);
    produce_n(1); /* and again */
    pass(1);
    assert_int_equal(durable(), 3);
    pass(FLUSH_NS);
    assert_int_equal(durable(), 4);
    check_files(4);
    uint64_t flushes = x.d.figures.flushes;
    pass(10 * FLUSH_NS); /* nothing: no flush */
    assert_int_equal(x.d.figures.flushes, flushes);
}

static void so_many_bytes_are_flushed_at_once(void **state) {
    (void)state;
    make_disk_topic("flush.bytes", "8K");
    produce_n(7);
    settle();
    assert_int_equal(durable(), 0);
    produce_n(1);
    settle();
    assert_int_equal(durable(), 8);
    check_files(8);
}

static void who_waits_is_not_made_to_wait(void **state) {
    (void)state;
    make_disk_topic("flush.ms", "86400000");
    uint32_t rings = eg_load_relaxed(&x.p->status->durable);
    for (int i = 0; i < 200; i++) {
        produce_many(1);
        want_all();
        settle();
        assert_int_equal(durable(), x.produced);
    }
    assert_true(eg_load_relaxed(&x.p->status->durable) - rings >= 200);
    check_files(200);
}

static void flushes_that_nobody_waits_for_take_turns(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    settle();
    x.d.syncs.busy = 8; /* others' */
    produce_n(3);
    pass(2 * FLUSH_NS);
    assert_int_equal(durable(), 0);
    assert_ptr_equal(x.d.syncs.first, x.p->archive);
    eg_archive_turn_end(&x.d); /* one of theirs is over: it is ours */
    settle();
    assert_int_equal(durable(), 3);
    assert_int_equal(x.d.syncs.busy, 7);
    x.d.syncs.busy = 8;
    produce_n(1);
    pass(2 * FLUSH_NS);
    assert_int_equal(durable(), 3);
    want_all(); /* who waits needs none */
    settle();
    assert_int_equal(durable(), 4);
    assert_null(x.d.syncs.first);
    assert_int_equal(x.d.syncs.busy, 8);
    produce_n(1);
    pass(2 * FLUSH_NS);
    assert_ptr_equal(x.d.syncs.first, x.p->archive);
    x.d.syncs.busy = 0; /* and it goes away while it is in the queue: teardown */
}

/* ---- segments ------------------------------------------------------------------------------------------------------- */

static void whole_segments_become_files(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_many(PER * 10 + 5);
    pass(FLUSH_NS);
    assert_int_equal(durable(), x.produced);
    check_files(x.produced);
    const struct eg_file_table *t = eg_archive_files(x.p);
    assert_int_equal(t->count, 10);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(eg_files_at(t, i)->seq, i);
        assert_int_equal(eg_files_at(t, i)->base, i * PER);
        assert_int_equal(eg_files_at(t, i)->end, (i + 1) * PER);
    }
    assert_int_equal(eg_load_relaxed(&x.p->status->log_start), 0); /* the ring let go, the log did not */
    assert_true(x.p->first > 0);
    assert_int_equal(eg_archive_base(x.p), 10 * PER);
}

/* A file that is begun has its place in the table, and so has the one before it: being whole asks for no memory. */
static void a_file_is_begun_with_its_place_in_the_table(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    for (int i = 0; i < PER * 40; i++) {
        while (produce() != EAGRE_OK)
            settle();
        work_once();
        const struct eg_file_table *t = eg_archive_files(x.p);
        size_t wanted = (x.p->archive->cur != NULL) + (x.p->archive->prev != NULL);
        assert_true(t->cap - t->first - t->count >= wanted);
    }
    settle();
    check_files(0);
}

static void what_is_not_on_disk_stays_in_the_ring(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    for (int i = 0; i < 50; i++) { /* no job's end is looked at */
        while (produce() == EAGRE_OK) {}
        now += 100 * EG_NS_PER_MS;
        for (int k = 0; k < 20; k++)
            work_once();
    }
    assert_int_equal(x.p->first, 0);
    int64_t held = x.produced;
    settle();
    assert_true(x.p->first > 0);
    produce_many(1000);
    assert_true(x.produced > held);
    want_all();
    settle();
    check_files(x.produced);
}

/* ---- a disk that fails ------------------------------------------------------------------------------------------------ */

#ifdef EG_FAULTPOINTS
#define NEEDS_FAULTS()
#else
#define NEEDS_FAULTS() skip()
#endif

static void fails_and_resumes(const char *text) {
    make_disk_topic(NULL, NULL);
    produce_many(70);
    want_all();
    settle();
    assert_int_equal(durable(), 70);
    fault(text);
    produce_n(10);
    want_all();
    settle();
    assert_int_equal(disk_state(), EG_DISK_ERROR);
    assert_int_equal(durable(), 70);
    pass(100 * FLUSH_NS); /* not again by itself */
    assert_int_equal(disk_state(), EG_DISK_ERROR);
    assert_int_equal(durable(), 70);
    fault("any:EIO@999999");
    pass(FLUSH_NS);
    assert_int_equal(durable(), 70);
    while (produce() == EAGRE_OK || x.p->active < x.p->first + x.map.slots - 1)
        settle(); /* the ring fills up, and lets nothing go */
    int64_t blocked = x.produced;
    pass(FLUSH_NS);
    assert_int_equal(produce(), EAGRE_E_WOULD_BLOCK);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_OK);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_E_BUSY);
    settle();
    assert_int_equal(disk_state(), EG_DISK_OK);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_E_STATE);
    produce_many(200);
    want_all();
    settle();
    assert_int_equal(durable(), blocked + 200);
    check_files(x.produced);
}

static void a_write_that_fails(void **state) {
    (void)state;
    NEEDS_FAULTS();
    fails_and_resumes("write:EIO@1");
}

static void a_flush_that_fails(void **state) {
    (void)state;
    NEEDS_FAULTS();
    fails_and_resumes("fdatasync:EIO@1");
}

static void what_was_durable_must_be_there_to_resume(void **state) {
    char path[EG_FILES_PATH + 64];
    (void)state;
    NEEDS_FAULTS();
    make_disk_topic(NULL, NULL);
    produce_n(10);
    want_all();
    settle();
    fault("fdatasync:EIO@1");
    produce_n(1);
    want_all();
    settle();
    snprintf(path, sizeof(path), "%s/%020d.log", eg_archive_dir(x.p)->path, 0);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, EG_SEGMENT_DATA + 500, SEEK_SET), 0);
    fputc(0xee, f);
    assert_int_equal(fclose(f), 0);
    eg_log_set_level(EG_LOG_ERROR);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_OK);
    settle();
    assert_int_equal(disk_state(), EG_DISK_ERROR);
    assert_int_equal(durable(), 10);
}

static void is_full_and_has_room_again(const char *text) {
    make_disk_topic(NULL, NULL);
    produce_many(70);
    want_all();
    settle();
    fault(text);
    produce_n(10);
    want_all();
    settle();
    assert_int_equal(disk_state(), EG_DISK_FULL);
    assert_int_equal(durable(), 70);
    produce_n(10);
    pass(FLUSH_NS / 2);
    assert_int_equal(disk_state(), EG_DISK_FULL);
    fault("any:EIO@999999");
    want_all();
    pass(2 * FLUSH_NS);
    assert_int_equal(disk_state(), EG_DISK_OK);
    assert_int_equal(durable(), 90);
    produce_many(200);
    want_all();
    settle();
    check_files(x.produced);
}

static void a_write_finds_no_space(void **state) {
    (void)state;
    NEEDS_FAULTS();
    is_full_and_has_room_again("write:ENOSPC@1+");
}

static void a_quota_is_no_space(void **state) {
    (void)state;
    NEEDS_FAULTS();
    is_full_and_has_room_again("write:EDQUOT@1+");
}

/* disk.min.free.bytes: the next segment's file cannot be made. */
static void the_reserve_is_left(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    x.p->archive->dir.min_free_bytes = UINT64_C(1) << 60;
    produce_n(5);
    want_all();
    settle();
    assert_int_equal(disk_state(), EG_DISK_FULL);
    assert_int_equal(durable(), 0);
    while (produce() == EAGRE_OK) {}
    pass(2 * FLUSH_NS);
    assert_int_equal(x.p->first, 0);
    assert_int_equal(disk_state(), EG_DISK_FULL);
    x.p->archive->dir.min_free_bytes = 0;
    pass(2 * FLUSH_NS);
    assert_int_equal(disk_state(), EG_DISK_OK);
    produce_many(300);
    want_all();
    settle();
    assert_int_equal(durable(), x.produced);
    check_files(x.produced);
}

/* ---- ends and beginnings ------------------------------------------------------------------------------------------------ */

static void a_clean_stop_brings_all_to_disk(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_many(140);
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    eg_archive_hurry(&x.d, x.p);
    assert_true(eg_archive_finish(&x.d, x.p));
    assert_int_equal(durable(), 140);
    assert_int_equal(mark.end, 140);
    check_files(140);
}

static void an_unused_partition_makes_no_file(void **state) {
    struct eg_meta_mark mark;
    struct eg_file_table t;
    (void)state;
    make_disk_topic(NULL, NULL);
    pass(FLUSH_NS);
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_true(eg_archive_finish(&x.d, x.p));
    assert_int_equal(eg_log_dir_list(eg_archive_dir(x.p), &t), EAGRE_OK);
    assert_int_equal(t.count, 0);
}

static void an_open_claim_is_in_the_way(void **state) {
    struct eg_meta_mark mark;
    struct eg_claim c;
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_n(5);
    assert_int_equal(eg_writer_claim(&x.w, 64, 1, &c), EAGRE_OK);
    produce_n(0);
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_false(eg_archive_finish(&x.d, x.p));
    assert_int_equal(durable(), 5);
}

/* A successor goes on from the notes alone, wherever its predecessor was. */
static void succeed(void) {
    struct eg_recovered found;
    eg_archive_close(&x.d, x.p);
    while (eg_io_wait(x.d.disk_io)) {}
    x.d.fresh = false;
    assert_int_equal(eg_recover_all(&x.d), EAGRE_OK);
    assert_int_equal(eg_recover_take(&x.d, x.p->uid, false, &found), EAGRE_OK);
    eg_recover_free(&x.d);
    assert_int_equal(eg_archive_open(&x.d, x.p, &found.files, NULL), EAGRE_OK);
    eg_archive_begin(x.p);
    eg_slots_wake(&x.d, x.p);
}

static void a_successor_goes_on_anywhere(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    for (int i = 0; i < 150; i++) {
        produce_many(1 + i % 40);
        if (i % 3 != 0)
            want_all();
        for (int k = 0; k < i % 7; k++) { /* somewhere on the way */
            work_once();
            if (k % 3 == 2)
                eg_io_wait(x.d.disk_io);
        }
        int64_t before = durable();
        succeed();
        assert_true(durable() >= before);
    }
    want_all();
    settle();
    assert_int_equal(durable(), x.produced);
    check_files(x.produced);
    const struct eg_file_table *t = eg_archive_files(x.p);
    for (size_t i = 0; i < t->count; i++) {
        assert_int_equal(eg_files_at(t, i)->seq, i);
        assert_int_equal(eg_files_at(t, i)->base, i * PER);
        assert_int_equal(eg_files_at(t, i)->end, (i + 1) * PER);
    }
}

static void first_file(int flags, int *fd) {
    char path[EG_FILES_PATH + 64];
    snprintf(path, sizeof(path), "%s/%020d.log", eg_archive_dir(x.p)->path, 0);
    *fd = open(path, flags);
    assert_true(*fd >= 0);
}

/* What it wrote and did not flush is gone before its successor writes: it could be taken for damage after a power cut. */
static void a_successor_leaves_nothing_unsynced_behind(void **state) {
    static uint8_t data[SEGMENT];
    struct eg_logfile_scan scan;
    struct eg_logfile_id id;
    struct eg_logfile l;
    int fd;
    (void)state;
    make_disk_topic("flush.ms", "86400000");
    produce_n(5);
    want_all();
    settle();
    assert_int_equal(durable(), 5);
    uint64_t pos = EG_SEGMENT_DATA + 5 * eg_frame_length(PAYLOAD, 64);
    assert_int_equal(x.p->archive->cur->synced.pos, pos);
    produce_n(20); /* as if it had written these, under the number of the next flush */
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&x.p->status->slot[0]));
    first_file(O_RDWR, &fd);
    l = x.p->archive->cur->log;
    for (uint32_t i = 5; i < 25; i++) {
        struct eg_logfile_frame out;
        uint64_t at = EG_SEGMENT_DATA + i * eg_frame_length(PAYLOAD, 64);
        struct eg_frame *f = eg_frame_at(x.p->buffers[n].base, at);
        assert_int_equal(eg_logfile_frame_write(&l, data, f, eg_load_relaxed(&f->word), at, i, 2, &out), EAGRE_OK);
        assert_int_equal(pwrite(fd, data, out.length, (off_t)at), out.length);
    }
    succeed();
    settle(); /* it takes the file up; nothing is due to be written yet */
    assert_true(x.p->archive->cur->fd >= 0);
    assert_int_equal(x.p->archive->cur->written.pos, pos);
    assert_int_equal(pread(fd, data, sizeof(data), 0), sizeof(data));
    assert_int_equal(eg_logfile_header_check(data, sizeof(data), NULL, &id, NULL), EAGRE_OK);
    eg_logfile_init(&l, &id, data, sizeof(data));
    eg_logfile_scan(&l, EG_SEGMENT_DATA, 0, 0, pos, &scan);
    assert_int_equal(scan.verdict, EG_FILE_CLEAN);
    assert_int_equal(scan.records, 5);
    close(fd);
    want_all();
    settle();
    assert_int_equal(durable(), 25);
    check_files(25);
}

/* All of a segment is durable, its slot is on the way to its next life, and the next segment is not begun. */
static void a_successor_behind_a_whole_segment(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_many(PER * 3);
    settle();
    eg_partition_roll(&x.d, x.p);
    settle();
    assert_int_equal(eg_load_relaxed(&x.p->status->archived_seq), 2);
    x.p->first = 2; /* as take_ring() would find it */
    x.p->base[2] = 12345;
    succeed();
    assert_int_equal(eg_archive_files(x.p)->count, 3);
    assert_int_equal(eg_files_at(eg_archive_files(x.p), 2)->end, 3 * PER);
    assert_int_equal(durable(), 3 * PER);
    assert_true(eg_archive_has(x.p, 2));
}

/* SIGKILL between the stores of two notes: the place is the next segment's already, the segment not yet. */
static void a_successor_between_two_notes(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_n(PER + 3);
    want_all();
    settle();
    assert_int_equal(durable(), PER + 3);
    eg_store_relaxed(&x.p->status->archived_seq, 0);
    eg_store_relaxed(&x.p->status->archived_at, eg_hint_make(EG_SEGMENT_DATA, 0));
    eg_store_relaxed(&x.p->status->archived_flush, 1);
    eg_store_relaxed(&x.p->status->durable_end, PER);
    succeed();
    assert_true(eg_archive_has(x.p, 0)); /* and is not written again under its readers */
    assert_int_equal(eg_archive_files(x.p)->count, 1);
    assert_int_equal(eg_files_at(eg_archive_files(x.p), 0)->end, PER);
    want_all();
    settle();
    assert_int_equal(durable(), PER + 3);
}

/* A partition that is destroyed while it waits for its turn to flush gives it on. */
static void a_destroyed_partition_keeps_no_turn(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    settle();
    x.d.syncs.busy = 8;
    produce_n(3);
    pass(2 * FLUSH_NS);
    assert_ptr_equal(x.d.syncs.first, x.p->archive);
    eg_partition_fail(x.p, "by the test");
    eg_archive_turn_end(&x.d);
    settle();
    assert_int_equal(x.d.syncs.busy, 7);
    assert_false(x.p->archive->has_turn);
    x.d.syncs.busy = 0;
}

/* A wish that no record can fulfil hurries a ring's worth of them, and not for ever. */
static void a_nonsense_wish_ends(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    eg_store_relaxed(&x.p->ring->durable_wanted, INT64_MAX);
    produce_n(1);
    settle();
    assert_int_equal(durable(), 1);
    assert_true(x.p->archive->wanted <= x.map.slots * eg_partition_records_max(x.p));
}

static void a_hole_in_a_closed_segment(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_n(5);
    want_all();
    settle();
    produce_n(PER);
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&x.p->status->slot[0]));
    eg_store_relaxed(&eg_frame_at(x.p->buffers[n].base, EG_SEGMENT_DATA + 7 * eg_frame_length(PAYLOAD, 64))->word, 0);
    want_all();
    settle();
    assert_true(eg_partition_failed(x.p));
    assert_int_equal(durable(), 5);
}

static void a_hostile_frame_ends_the_partition_alone(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_n(5);
    want_all();
    settle();
    produce_n(5);
    uint32_t n = eg_slot_buffer(eg_load_relaxed(&x.p->status->slot[0]));
    struct eg_frame *f = eg_frame_at(x.p->buffers[n].base, EG_SEGMENT_DATA + 7 * eg_frame_length(PAYLOAD, 64));
    f->payload[17] ^= 1;
    eg_log_set_level(EG_LOG_ERROR);
    want_all();
    settle();
    assert_true(eg_partition_failed(x.p));
    assert_int_equal(durable(), 5);
    f->payload[17] ^= 1;
}

static void a_topic_goes_with_jobs_under_way(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_n(20); /* its directory is being made; teardown deletes it now */
    want_all();
    work_once();
    assert_true(eg_io_in_flight(x.d.disk_io) > 0);
}

/* Its files cannot be had at the start: nothing of the ring is let go, until somebody says that they can be had again. */
#ifdef EG_FAULTPOINTS
static sem_t begun, go;

static void hold(const char *name, void *arg) {
    (void)arg;
    if (strcmp(name, "file.begun") == 0) {
        sem_post(&begun);
        sem_wait(&go);
    }
}

/* All but the one that is held. */
static void others_end_then_all(void) {
    while (eg_io_in_flight(x.d.disk_io) > 1)
        eg_io_wait(x.d.disk_io);
    sem_post(&go);
    jobs_end();
    eg_fault_set_hook(NULL, NULL);
}

/* Its files were swept away, and only then a job makes one. */
static void a_file_is_made_behind_the_sweep(void **state) {
    (void)state;
    make_disk_topic(NULL, NULL);
    sem_init(&begun, 0, 0);
    sem_init(&go, 0, 0);
    eg_fault_set_hook(hold, NULL);
    produce_n(1);
    want_all();
    work_once();
    sem_wait(&begun);
    delete_topic(others_end_then_all);
}
#else
static void a_file_is_made_behind_the_sweep(void **state) {
    (void)state;
    skip();
}
#endif

/* Whatever is under way: a write, a flush, a file that is made, grown, or gets its index. */
static void a_topic_goes_at_any_time(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        make_disk_topic("flush.bytes", i % 2 == 0 ? "8K" : "1M");
        for (int k = 0; k < i; k++) {
            (void)produce();
            if (k % 7 == 0)
                want_all();
            work_once();
            if (k % 5 == i % 5)
                eg_io_wait(x.d.disk_io);
        }
        delete_topic(jobs_end);
        eg_graves_finish(&x.d, INT64_MAX);
    }
}

static void what_cannot_be_recovered_is_in_error(void **state) {
    struct eg_file_table none = {0};
    char path[EG_FILES_PATH], away[EG_FILES_PATH + 8];
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_many(PER * 2 + 5);
    want_all();
    settle();
    assert_int_equal(durable(), PER * 2 + 5);
    snprintf(path, sizeof(path), "%s", eg_archive_dir(x.p)->path);
    snprintf(away, sizeof(away), "%s.away", path);
    eg_archive_close(&x.d, x.p);
    assert_int_equal(eg_archive_open(&x.d, x.p, &none, "there was no light"), EAGRE_OK);
    eg_archive_begin(x.p);
    assert_int_equal(disk_state(), EG_DISK_ERROR);
    assert_false(eg_archive_has(x.p, 0));
    uint64_t first = x.p->first;
    while (produce() == EAGRE_OK) {}
    pass(10 * FLUSH_NS);
    assert_int_equal(x.p->first, first);
    assert_non_null(eg_archive_unrecovered(x.p));

    assert_int_equal(rename(path, away), 0); /* still not */
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    eg_log_set_level(EG_LOG_ERROR);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_OK);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_E_BUSY);
    settle();
    assert_int_equal(disk_state(), EG_DISK_ERROR);
    assert_non_null(eg_archive_unrecovered(x.p));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(away, path), 0);

    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_OK);
    settle();
    assert_int_equal(disk_state(), EG_DISK_OK);
    assert_null(eg_archive_unrecovered(x.p));
    produce_many(PER);
    want_all();
    settle();
    assert_int_equal(durable(), x.produced);
    check_files(x.produced);
    const struct eg_file_table *t = eg_archive_files(x.p);
    for (size_t i = 0; i < t->count; i++)
        assert_int_equal(eg_files_at(t, i)->seq, i);
    assert_int_equal(t->count, x.p->active);
}

/* The topic goes while they are looked at again. */
static void what_is_recovered_again_may_be_gone(void **state) {
    struct eg_file_table none = {0};
    (void)state;
    make_disk_topic(NULL, NULL);
    produce_many(PER * 2 + 5);
    want_all();
    settle();
    eg_archive_close(&x.d, x.p);
    assert_int_equal(eg_archive_open(&x.d, x.p, &none, "there was no light"), EAGRE_OK);
    eg_archive_begin(x.p);
    assert_int_equal(eg_archive_resume(&x.d, x.p), EAGRE_OK); /* teardown deletes it now */
}

/* ---- what goes ------------------------------------------------------------------------------------------------------------ */

static void look_at_retention(void) {
    now += 2 * EG_NS_PER_S;
    eg_retention_service.tick(&x.d, now);
    settle();
}

static size_t files_there(void) {
    struct eg_file_table t;
    assert_int_equal(eg_log_dir_list(eg_archive_dir(x.p), &t), EAGRE_OK);
    size_t n = t.count;
    eg_files_free(&t);
    return n;
}

static int64_t log_start(void) { return (int64_t)eg_load_relaxed(&x.p->status->log_start); }

static void a_trim_is_noted_before_it_is_answered(void **state) {
    struct eg_meta_disk note;
    (void)state;
    make_disk_topic("retention.ms", "-1");
    produce_many(PER * 10 + 5);
    want_all();
    settle();
    assert_int_equal(eg_retention_trim(&x.d, x.p, x.produced + 1), EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_int_equal(eg_retention_trim(&x.d, x.p, PER * 3 + 7), EAGRE_OK);
    assert_int_equal(log_start(), PER * 3 + 7);
    assert_int_equal(eg_meta_disk_get(x.d.meta, x.p->uid, &note), EAGRE_OK);
    assert_int_equal(note.log_start, PER * 3 + 7);
    settle();
    assert_int_equal(files_there(), 8); /* whole files go: 3 of 11 */
    assert_int_equal(eg_files_at(eg_archive_files(x.p), 0)->seq, 3);
    assert_int_equal(eg_retention_trim(&x.d, x.p, 5), EAGRE_OK); /* not back */
    assert_int_equal(log_start(), PER * 3 + 7);
    assert_int_equal(eg_retention_trim(&x.d, x.p, x.produced), EAGRE_OK);
    settle();
    look_at_retention();
    assert_int_equal(files_there(), 1); /* the one that is written */
    assert_int_equal(log_start(), x.produced);
    x.p->status->log_start = 0; /* a trim that only finds what is not noted yet */
    assert_int_equal(eg_retention_trim(&x.d, x.p, x.produced), EAGRE_OK);
    assert_int_equal(log_start(), x.produced);
}

static void the_oldest_files_go_when_there_are_too_many_bytes(void **state) {
    (void)state;
    make_disk_topic("retention.bytes", "256K");
    produce_many(PER * 40);
    want_all();
    settle();
    for (int i = 0; i < 5; i++)
        look_at_retention();
    size_t n = files_there();
    assert_in_range(n, 3, 6);
    const struct eg_log_file *first = eg_files_at(eg_archive_files(x.p), 0);
    assert_int_equal(log_start(), first->base);
    assert_int_equal(durable(), x.produced);
}

static void what_is_too_old_goes_and_the_active_segment_too(void **state) {
    (void)state;
    make_disk_topic("retention.ms", "1000");
    produce_many(PER * 3 + 5);
    want_all();
    settle();
    for (int i = 0; i < 5; i++)
        look_at_retention(); /* rolled, then written, then old: by the wall clock, so not yet */
    assert_true(x.p->active > 3);
    struct eg_file_table *files = eg_archive_files(x.p);
    assert_int_equal(files->count, 4);
    for (size_t i = 0; i < files->count; i++)
        eg_files_at(files, i)->written_ns = 1;
    look_at_retention();
    assert_int_equal(files_there(), 0);
    assert_int_equal(log_start(), x.produced);
}

/* segment.ms is the age of its first record, whichever daemon saw that. */
static void a_segments_age_is_that_of_its_file(void **state) {
    static _Alignas(8) uint8_t page[EG_PAGE];
    struct eg_logfile_id id;
    int fd;
    (void)state;
    make_disk_topic("segment.ms", "3600000");
    produce_n(3);
    want_all();
    settle();
    look_at_retention();
    assert_int_equal(x.p->began_seq, 0);
    assert_true(x.p->began_ns > 0);
    x.p->began_ns = 0; /* as a successor finds it */
    x.p->began_seq = 0;
    succeed();
    settle();
    look_at_retention();
    assert_int_equal(x.p->active, 0); /* young */
    first_file(O_RDWR, &fd);
    assert_int_equal(pread(fd, page, sizeof(page), 0), sizeof(page));
    assert_int_equal(eg_logfile_header_check(page, sizeof(page), NULL, &id, NULL), EAGRE_OK);
    id.created_ns -= 3580 * EG_NS_PER_S;
    eg_logfile_header_make(page, &id);
    assert_int_equal(pwrite(fd, page, sizeof(page), 0), sizeof(page));
    close(fd);
    x.p->began_ns = 0;
    x.p->tail = EG_SEGMENT_DATA; /* not looked at yet: no reason to forget */
    succeed();
    now += 2 * EG_NS_PER_S;
    eg_retention_service.tick(&x.d, now);
    assert_int_equal(x.p->tail, EG_SEGMENT_DATA);
    look_at_retention();
    assert_int_equal(x.p->active, 0);
    for (int i = 0; i < 12; i++)
        look_at_retention(); /* 2 s each: it is 3600 s old then */
    assert_int_equal(x.p->active, 1);
}

/* The end of the last one is known after its scan only, or when the ring is there. */
static void a_file_whose_end_is_not_known_stays(void **state) {
    (void)state;
    make_disk_topic("retention.ms", "1000");
    produce_many(PER * 3);
    want_all();
    settle();
    struct eg_file_table *files = eg_archive_files(x.p);
    size_t count = files->count;
    for (size_t i = 0; i < count; i++)
        *eg_files_at(files, i) = (struct eg_log_file){.seq = i, .end = -1, .written_ns = 1};
    look_at_retention();
    struct eg_file_table there;
    assert_int_equal(files->count, count);
    assert_int_equal(eg_log_dir_list(eg_archive_dir(x.p), &there), EAGRE_OK);
    for (size_t i = 0; i < count; i++)
        assert_non_null(eg_files_by_seq(&there, i));
    eg_files_free(&there);
}

#define DISK(name) cmocka_unit_test_setup_teardown(name, setup_disk, teardown_disk)

int main(void) {
    const struct CMUnitTest tests[] = {
        DISK(a_trickle_is_flushed_in_time),
        DISK(so_many_bytes_are_flushed_at_once),
        DISK(who_waits_is_not_made_to_wait),
        DISK(flushes_that_nobody_waits_for_take_turns),
        DISK(whole_segments_become_files),
        DISK(a_file_is_begun_with_its_place_in_the_table),
        DISK(what_is_not_on_disk_stays_in_the_ring),
        DISK(a_write_that_fails),
        DISK(a_flush_that_fails),
        DISK(what_was_durable_must_be_there_to_resume),
        DISK(a_write_finds_no_space),
        DISK(a_quota_is_no_space),
        DISK(the_reserve_is_left),
        DISK(a_clean_stop_brings_all_to_disk),
        DISK(an_unused_partition_makes_no_file),
        DISK(an_open_claim_is_in_the_way),
        DISK(a_successor_goes_on_anywhere),
        DISK(a_successor_leaves_nothing_unsynced_behind),
        DISK(a_successor_behind_a_whole_segment),
        DISK(a_successor_between_two_notes),
        DISK(a_destroyed_partition_keeps_no_turn),
        DISK(a_nonsense_wish_ends),
        DISK(a_hole_in_a_closed_segment),
        DISK(a_hostile_frame_ends_the_partition_alone),
        DISK(a_topic_goes_with_jobs_under_way),
        DISK(a_file_is_made_behind_the_sweep),
        DISK(a_topic_goes_at_any_time),
        DISK(what_cannot_be_recovered_is_in_error),
        DISK(what_is_recovered_again_may_be_gone),
        DISK(a_trim_is_noted_before_it_is_answered),
        DISK(the_oldest_files_go_when_there_are_too_many_bytes),
        DISK(what_is_too_old_goes_and_the_active_segment_too),
        DISK(a_segments_age_is_that_of_its_file),
        DISK(a_file_whose_end_is_not_known_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
