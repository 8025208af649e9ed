/* eagre log inspect, dump, verify --keeper: the memory of a daemon that was killed; and that nobody notices it. */
#include "layout/layout.h" /* first: harness_client.h has a global e */

#include "harness_client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/keeper.h"
#include "sys/atomic.h"
#include "sys/crc32c.h"
#include "sys/fdpass.h"

#define BEFORE 2500 /* records of 64 bytes: into the third segment */
#define BEHIND 20

/* ---- what the keeper holds ------------------------------------------------------------------------------ */

/* Call f for each object. */
static void for_each_kept(void (*f)(const char *name, int fd, void *ctx), void *ctx) {
    static struct eg_keeper_message m;
    int sock, fds[EG_KEEPER_BATCH];
    size_t objects = 0;
    OK(eg_keeper_dial(bus->socket, &sock));
    m.from = 0;
    do {
        size_t got;
        bool cut;
        m = (struct eg_keeper_message){
            .magic = EG_KEEPER_MAGIC, .op = EG_KEEPER_LIST, .from = m.from};
        assert_true(eg_sendmsg_fds(sock, &m, eg_keeper_message_bytes(0), NULL, 0, 0) > 0);
        struct pollfd readable = {.fd = sock, .events = POLLIN};
        assert_int_equal(poll(&readable, 1, EG_TEST_LIMIT_MS), 1);
        ssize_t n = eg_recvmsg_fds(sock, &m, sizeof(m), fds, EG_KEEPER_BATCH, &got, &cut, 0);
        assert_true(eg_keeper_is_reply(&m, n, EG_KEEPER_LIST) && got == m.count);
        for (size_t i = 0; i < got; i++) {
            f(m.names[i], fds[i], ctx);
            close(fds[i]);
        }
        objects += got;
    } while (m.from != 0);
    close(sock);
    assert_true(objects > 10);
}

static void add_to_digest(const char *name, int fd, void *ctx) {
    static uint8_t piece[65536];
    uint32_t *crc = ctx;
    struct stat st;
    ssize_t bytes;
    assert_int_equal(fstat(fd, &st), 0);
    uint64_t facts[] = {(uint64_t)st.st_size, (uint64_t)st.st_blocks, st.st_ino};
    *crc = eg_crc32c(eg_crc32c(*crc, name, strlen(name)), facts, sizeof(facts));
    for (off_t at = 0; (bytes = pread(fd, piece, sizeof(piece), at)) > 0; at += bytes)
        *crc = eg_crc32c(*crc, piece, (size_t)bytes);
}

/* Names, contents, and how much memory is behind them. */
static uint32_t digest(void) {
    uint32_t crc = 0;
    for_each_kept(add_to_digest, &crc);
    return crc;
}

/* ---- a bus that has lost its daemon ------------------------------------------------------------------------ */

static int64_t put(eagre_producer_t *by, int64_t number) {
    char text[32];
    int64_t offset;
    snprintf(text, sizeof(text), "record %lld", (long long)number);
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = 0};
    OK(eagre_produce(by, &m, NULL, &offset));
    return offset;
}

static void claims_and_stays(int ready, int extra) {
    eagre_t *own;
    eagre_producer_t *by;
    eagre_claim_t claim;
    (void)extra;
    eg_close_except(ready);
    CHECK(eagre_open(bus->socket, &own) == EAGRE_OK);
    CHECK(eagre_producer_open(own, "m", NULL, &by) == EAGRE_OK);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) == EAGRE_OK);
    eg_say(ready);
}

/* Records 0 .. BEFORE-1; a claim of a process that is dead; BEHIND records; a claim of one that lives; BEHIND records.
 * All with the daemon killed before the first claim's owner was. */
static pid_t living, dead;
static eagre_producer_t *by_us;

static int lose_daemon(void **state) {
    struct eg_run r;
    eg_setup_client(state); /* with a topic t, whose id is 1 */
    EG_RUN(&r, bus, NULL, "eagre", "topic", "create", "m", "-p", "2", "-c", "storage=memory", "-c",
           "segment.bytes=64K");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    EG_RUN(&r, bus, NULL, "eagre", "topic", "create", "d", "-c", "storage=disk");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    OK(eagre_producer_open(e, "m", NULL, &by_us));
    for (int i = 0; i < BEFORE; i++)
        assert_int_equal(put(by_us, i), i);
    dead = eg_start(claims_and_stays, 0);
    for (int i = 1; i <= BEHIND; i++)
        assert_int_equal(put(by_us, BEFORE + i), BEFORE + i);
    living = eg_start(claims_and_stays, 0);
    for (int i = 1; i <= BEHIND; i++)
        assert_int_equal(put(by_us, BEFORE + BEHIND + 1 + i), BEFORE + BEHIND + 1 + i);
    eg_bus_kill(bus);
    kill(dead, SIGKILL);
    assert_int_equal(eg_wait_exit(dead), 128 + SIGKILL);
    return 0;
}

static int end(void **state) {
    if (bus->pid == 0)
        eg_bus_start(bus, NULL); /* to close handles without one takes a while */
    eagre_producer_close(by_us);
    by_us = NULL;
    return eg_teardown_client(state);
}

static char *dump(int status) {
    struct eg_run r;
    EG_RUN(&r, NULL, NULL, "eagre", "log", "dump", "--keeper", bus->socket, "t2/0", "-f",
           "%o %s\\n");
    if (r.status != status)
        fail_msg("eagre log dump --keeper: exit status %d: %s", r.status, r.err);
    free(r.err);
    return r.out;
}

/* `eagre log ARGUMENTS` ends so, and this is in what it prints. */
#define SAYS(status, text, ...)                                                                    \
    says((status), (text), (const char *const[]){"eagre", "log", __VA_ARGS__, NULL})

static void says(int status, const char *text, const char *const *argv) {
    struct eg_run r;
    eg_run(&r, NULL, NULL, argv);
    if (r.status != status || (strstr(r.out, text) == NULL && strstr(r.err, text) == NULL))
        fail_msg("eagre log %s: exit status %d, stdout:\n%.4000s\nstderr:\n%s\nexpected %d and: %s",
                 argv[2], r.status, r.out, r.err, status, text);
    eg_run_free(&r);
}

/* From some record on all of them to the last, as they were produced. */
static void check_dump(const char *text) {
    char *end;
    int64_t offset = strtoll(text, &end, 10), last = BEFORE + 2 * BEHIND + 1;
    assert_true(offset < BEFORE / 2); /* more than one segment of them */
    for (; offset <= last; offset++) {
        char line[64];
        if (offset == BEFORE || offset == BEFORE + BEHIND + 1)
            continue; /* the claims */
        snprintf(line, sizeof(line), "%lld record %lld\n", (long long)offset, (long long)offset);
        if (strncmp(text, line, strlen(line)) != 0)
            fail_msg("'%.40s' instead of '%s'", text, line);
        text += strlen(line);
    }
    assert_string_equal(text, "");
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

static void the_ring_is_shown_and_nothing_changes(void **state) {
    char text[160];
    (void)state;
    uint32_t before = digest();
    char *records = dump(0);
    check_dump(records);

    snprintf(text, sizeof(text), "t2/0: segment 2, position ");
    SAYS(0, text, "dump", "--keeper", bus->socket);
    snprintf(text, sizeof(text), "offset %d: 1 claimed, not published, by owner 2 (gone)", BEFORE);
    SAYS(0, text, "dump", "--keeper", bus->socket);
    snprintf(text, sizeof(text), "offset %d: 1 claimed, not published, by owner 3 (pid %d)",
             BEFORE + BEHIND + 1, (int)living);
    SAYS(0, text, "dump", "--keeper", bus->socket, "-J");
    snprintf(text, sizeof(text), "{\"topic\":\"t2\",\"partition\":0,\"offset\":%d,", BEFORE + 5);
    SAYS(0, text, "dump", "--keeper", bus->socket, "-J", "-c", "2", "-o", "2504");

    SAYS(0, "t2/0  partition id ", "inspect", "--keeper", bus->socket);
    SAYS(0, "t2/1  partition id ", "inspect", "--keeper", bus->socket);
    SAYS(0, "log begins at offset 0, on disk up to offset 0\n", "inspect", "--keeper", bus->socket,
         "t3");
    SAYS(0, "nobody used it yet\n", "inspect", "--keeper", bus->socket, "t2/1");
    SAYS(0, "by owner 2 (gone)\n", "inspect", "--keeper", bus->socket, "t2/0");
    SAYS(0, "\"claimed_by\": \"owner 2 (gone)\"", "inspect", "--keeper", bus->socket, "--format",
         "json");
    SAYS(0, "1 partitions, 2 segments, 1580 records, 0 pads, 2 open", "verify", "--keeper",
         bus->socket, "t2/0");
    SAYS(0, "2 open claims: 0 problems", "verify", "--keeper", bus->socket);
    SAYS(0, "\"claims\": 2}", "verify", "--keeper", bus->socket, "--format", "json");

    SAYS(4, "no topic id 9", "dump", "--keeper", bus->socket, "t9");
    SAYS(4, "no t2/2", "dump", "--keeper", bus->socket, "t2/2");
    SAYS(2, "t<topic id>/<partition>", "dump", "--keeper", bus->socket, "t");
    SAYS(2, "t<topic id>/<partition>", "verify", "--keeper", bus->socket, "t2/0/0");
    SAYS(2, "the next daemon repairs", "repair", "--keeper", bus->socket);
    assert_int_equal(digest(), before);
    free(records);
}

static void the_next_daemon_finds_all_of_it(void **state) {
    struct eg_run r;
    (void)state;
    char *records = dump(0);
    pid_t keeper = eg_bus_keeper(bus);
    kill(living, SIGKILL);
    assert_int_equal(eg_wait_exit(living), 128 + SIGKILL);
    eg_bus_start(bus, NULL);
    assert_int_equal(eg_bus_keeper(bus), keeper);
    SAYS(5, "a daemon answers at", "inspect", "--keeper", bus->socket);
    int64_t next = put(by_us, BEFORE + 2 * BEHIND + 2);
    assert_int_equal(next, BEFORE + 2 * BEHIND + 2);
    eg_wait_figure("clients", 1);
    EG_RUN(&r, bus, NULL, "eagre", "consume", "m", "-p", "0", "-o", "beginning", "-c", "100", "-f",
           "%o %s\\n");
    assert_int_equal(r.status, 0);
    if (strstr(records, r.out) == NULL)
        fail_msg("not what the dump had: %.200s", r.out);
    eg_run_free(&r);
    EG_RUN(&r, bus, NULL, "eagre", "consume", "m", "-p", "0", "-o", "-43", "-e", "-f", "%o %s\\n");
    assert_int_equal(r.status, 0);
    char *last = strstr(r.out, "2542 record 2542\n"); /* put by us, just now */
    assert_non_null(last);
    *last = '\0';
    size_t n = strlen(r.out), all = strlen(records);
    assert_true(n > 40 * 10 && n < all);
    assert_string_equal(records + all - n, r.out);
    eg_run_free(&r);
    free(records);
    /* And a second crash is looked at like the first. */
    eg_bus_kill(bus);
    SAYS(0, "0 open claims: 0 problems", "verify", "--keeper", bus->socket);
}

/* As a producer could. */
static void damage_record_1500(const char *name, int fd, void *ctx) {
    static char bytes[65536];
    if (name[0] != 'p' || pread(fd, bytes, sizeof(bytes), 0) != sizeof(bytes))
        return;
    char *at = memmem(bytes, sizeof(bytes), "record 1500", 11);
    if (at != NULL) {
        assert_int_equal(pwrite(fd, "R", 1, at - bytes), 1);
        ++*(int *)ctx;
    }
}

static void damage_is_found_and_the_rest_is_shown(void **state) {
    int hits = 0;
    (void)state;
    char *records = dump(0);
    for_each_kept(damage_record_1500, &hits);
    assert_int_equal(hits, 1);
    SAYS(1, "bad CRC", "verify", "--keeper", bus->socket);
    SAYS(1, "1 problems", "verify", "--keeper", bus->socket);
    SAYS(0, "offset 1500, position", "inspect", "--keeper", bus->socket);
    SAYS(1, "offset 1500: its checksum does not match", "dump", "--keeper", bus->socket);
    char *less = dump(1);
    assert_int_equal(strlen(less) + strlen("1500 record 1500\n"), strlen(records));
    assert_null(strstr(less, "\n1500 "));
    assert_non_null(strstr(less, "\n1501 record 1501\n"));
    free(less);
    free(records);
}

/* A frame of 8 MiB behind the one record of a large segment: nothing but a word, where no memory is. */
static void write_long_frame(const char *name, int fd, void *ctx) {
    struct eg_segment_header h;
    if (name[0] != 'p' || pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.capacity != 16u << 20 ||
        eg_load_relaxed(&h.base) != 0)
        return;
    uint64_t length = 8u << 20, all = h.capacity;
    struct eg_frame f = {
        .crc = 1, .index = 1, .key_length = EG_NULL_LENGTH, .value_length = (uint32_t)length - 64};
    uint64_t word = eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, length, 1, 2);
    eg_store_relaxed(&f.word, word);
    assert_int_equal(pwrite(fd, &f, sizeof(f), EG_SEGMENT_DATA + 64), sizeof(f));
    assert_int_equal(pwrite(fd, &all, sizeof(all), offsetof(struct eg_segment_header, allocated)),
                     sizeof(all));
    ++*(int *)ctx;
}

static void holes_stay_holes(void **state) {
    struct eg_run r;
    int hits = 0;
    (void)state;
    EG_RUN(&r, bus, NULL, "eagre", "topic", "create", "big", "-c", "storage=memory", "-c",
           "segment.bytes=16M");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    EG_RUN(&r, bus, "one\n", "eagre", "produce", "big");
    assert_int_equal(r.status, 0);
    eg_run_free(&r);
    eg_bus_kill(bus);
    for_each_kept(write_long_frame, &hits);
    assert_int_equal(hits, 1);
    uint32_t before = digest();
    SAYS(1, "its checksum does not match", "dump", "--keeper", bus->socket, "t2");
    SAYS(0, "damaged", "inspect", "--keeper", bus->socket, "t2");
    SAYS(1, "bad CRC", "verify", "--keeper", bus->socket);
    assert_int_equal(digest(), before);
    eg_bus_start(bus, NULL);
}

static void without_a_keeper_it_says_so(void **state) {
    char long_path[200];
    (void)state;
    SAYS(5, "a daemon answers at", "dump", "--keeper", bus->socket);
    kill(bus->pid, SIGSTOP);
    SAYS(5, "a daemon answers at", "verify", "--keeper", bus->socket);
    kill(bus->pid, SIGCONT);
    assert_int_equal(eg_bus_stop(bus), 0);
    SAYS(3, "no keeper answers", "inspect", "--keeper", bus->socket);
    SAYS(1, "No such file", "inspect", "--keeper", "/nowhere/eagre.sock");
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    SAYS(5, "too long", "inspect", "--keeper", long_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_ring_is_shown_and_nothing_changes, lose_daemon, end),
        cmocka_unit_test_setup_teardown(the_next_daemon_finds_all_of_it, lose_daemon, end),
        cmocka_unit_test_setup_teardown(damage_is_found_and_the_rest_is_shown, lose_daemon, end),
        cmocka_unit_test_setup_teardown(holes_stay_holes, eg_setup_client, eg_teardown_client),
        cmocka_unit_test_setup_teardown(without_a_keeper_it_says_so, eg_setup_client,
                                        eg_teardown_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
