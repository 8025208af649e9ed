/* Real file systems that are full: what producers are told, what still works, and that all goes on when there is space. */
#include "system/harness_disk.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FS_BYTES (32u << 20)
#define RESERVE (1u << 20)

static struct eg_ledger ledger;
static struct eg_test_bus *b;

static int setup(void **state) {
    memset(&ledger, 0, sizeof(ledger));
    int rc = eg_setup_bus_stopped(state);
    b = *state;
    return rc;
}

static int teardown(void **state) {
    eg_disk_close();
    umount2(b->data, MNT_DETACH); /* when the daemon has gone, too */
    return eg_teardown_bus(state);
}

/* A file system of its own at the data directory; nobody else sees it. */
static void mount_it(const char *type) {
    char command[400];
    static bool made;
    if (!made &&
        (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)) {
        print_message("no mount namespace can be made here: skipped\n");
        skip();
    }
    made = true;
    assert_int_equal(mkdir(b->data, 0700), 0);
    if (strcmp(type, "tmpfs") == 0)
        snprintf(command, sizeof(command), "mount -t tmpfs -o size=%u,mode=0700 none '%s'",
                 FS_BYTES, b->data);
    else
        snprintf(command, sizeof(command),
                 "PATH=$PATH:/usr/sbin:/sbin; cd '%s' && truncate -s %u image && mkfs.%s -q image "
                 ">image.log 2>&1 && "
                 "mount -t %s -o loop image '%s'",
                 b->dir, strcmp(type, "xfs") == 0 ? 320u << 20 : FS_BYTES, type, type, b->data);
    if (system(command) != 0) {
        print_message("%s cannot be made and mounted here: skipped\n", type);
        skip();
    }
}

/* Take all space but this. */
static void fill(uint64_t leave) {
    char path[120];
    struct statvfs fs;
    snprintf(path, sizeof(path), "%s/fill", b->data);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(statvfs(b->data, &fs), 0);
    uint64_t there = (uint64_t)fs.f_bavail * fs.f_frsize;
    assert_true(there > leave);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)(there - leave)), 0);
    close(fd);
}

static void empty(void) {
    char path[120];
    snprintf(path, sizeof(path), "%s/fill", b->data);
    assert_int_equal(unlink(path), 0);
}

static int disk_state(void) {
    eagre_topic_info_t *info;
    OK(eagre_topic_describe(e, "t", &info));
    int disk = info->partitions[0].disk;
    eagre_topic_info_free(info);
    return disk;
}

static bool is_well(void *ctx) {
    (void)ctx;
    return disk_state() == 0;
}

static void open_with(eagre_acks_t acks) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_close(p);
    o.acks = acks;
    o.max_block_ms = 500;
    OK(eagre_producer_open(e, "t", &o, &p));
}

static void until_full(bool acked) {
    int rc = EAGRE_OK, slow = 0; /* a flush may take longer than we wait */
    while (ledger.count < EG_LEDGER_MAX - 1000) {
        rc = eg_ledger_put(&ledger, acked);
        bool full =
            rc != EAGRE_OK && strstr(eagre_error_detail(), "is full (disk.min.free.bytes)") != NULL;
        if (rc != EAGRE_OK && (rc != EAGRE_E_TIMED_OUT || full || ++slow == 100))
            break;
    }
    if (rc != EAGRE_E_TIMED_OUT || slow == 100)
        fail_msg("%zu records: %s, '%s'", ledger.count, eagre_status_name(rc),
                 eagre_error_detail());
    assert_int_equal(disk_state(), 1);
    struct statvfs fs;
    assert_int_equal(statvfs(b->data, &fs), 0);
    assert_true((uint64_t)fs.f_bavail * fs.f_frsize >=
                RESERVE / 2); /* but for what metadata took of it */
}

static void fills_and_goes_on(const char *type, const char *io) {
    char reserve[60];
    mount_it(type);
    snprintf(reserve, sizeof(reserve), "--disk.min.free.bytes=%u", RESERVE);
    eg_bus_start(b, io, reserve, NULL);
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    for (int i = 0; i < 50; i++)
        OK(eg_ledger_put(&ledger, true));
    fill(2 * RESERVE);
    open_with(EAGRE_ACKS_DISK);
    until_full(true);
    open_with(EAGRE_ACKS_MEMORY);
    until_full(false); /* the ring is full, too */
    /* The reserve keeps metadata writable. */
    OK(eagre_topic_create(e, "other", &(eagre_setting_t){"storage", "memory"}, 1));
    OK(eagre_topic_delete(e, "other"));
    /* Some room, and full again: nothing of what waited in memory is lost. */
    empty();
    eg_wait_until(is_well, NULL, "the disk has space");
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    o.acks = EAGRE_ACKS_DISK;
    eagre_producer_close(p);
    OK(eagre_producer_open(e, "t", &o, &p));
    for (int i = 0; i < 50; i++)
        OK(eg_ledger_put(&ledger, true));
    eg_ledger_flushed(&ledger);
    fill(2 * RESERVE);
    open_with(EAGRE_ACKS_DISK);
    until_full(true);
    /* A cold start on a full disk; what was acknowledged is there. */
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, io, reserve, NULL);
    eg_ledger_check(&ledger, b);
    ledger.generation++;
    empty();
    eg_disk_open(b, EAGRE_ACKS_DISK, NULL);
    for (int i = 0; i < 20; i++)
        OK(eg_ledger_put(&ledger, true));
    eg_disk_close();
    eg_cold_kill(b);
    eg_bus_start(b, io, reserve, NULL);
    eg_ledger_check(&ledger, b);
}

static void tmpfs(void **state) {
    (void)state;
    fills_and_goes_on("tmpfs", "--disk.io=auto");
}

static void ext4(void **state) {
    (void)state;
    fills_and_goes_on("ext4", "--disk.io=auto");
}

static void xfs(void **state) {
    (void)state;
    fills_and_goes_on("xfs", "--disk.io=auto");
}

int main(void) {
#define EACH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {EACH(tmpfs), EACH(ext4), EACH(xfs)};
    return cmocka_run_group_tests_name("system/disk_full", tests, NULL, NULL);
}
