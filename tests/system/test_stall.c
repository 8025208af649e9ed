/* A living producer that has begun a record and does not publish it: told, never touched, ended on request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layout/layout.h" /* first: it has parameters named as what comes next */
#include "harness_client.h"
#include "harness_user.h"

static struct eg_test_bus b;

static int setup_with(const char *kill_too) {
    eg_client_setup();
    eg_bus_init(&b);
    bus = &b;
    eg_bus_start(&b, "--stall.warn.ms=100", kill_too, "--socket.mode=0666", NULL);
    eg_client_open(b.socket);
    return 0;
}
static int setup(void **state) {
    (void)state;
    return setup_with("--stall.kill=false");
}
static int setup_kill(void **state) {
    (void)state;
    return setup_with("--stall.kill=true");
}
static int setup_kill_later(void **state) {
    (void)state;
    eg_client_setup();
    eg_bus_init(&b);
    bus = &b;
    eg_bus_start(&b, "--stall.warn.ms=1000", "--stall.kill=true", NULL);
    eg_client_open(b.socket);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    eg_client_close();
    eg_bus_remove(&b);
    return 0;
}

static const char *claimed_topic = "t";

/* Takes a place, says so; stops itself if told; publishes when it goes on. */
static void claim_and_wait(int ready, int stop) {
    eagre_t *own;
    eagre_producer_t *by;
    eagre_claim_t claim;
    CHECK(eagre_open(b.socket, &own) == EAGRE_OK);
    CHECK(eagre_producer_open(own, claimed_topic, NULL, &by) == EAGRE_OK);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) == EAGRE_OK);
    memcpy(claim.value, "claim", 5);
    eg_say(ready);
    if (!stop)
        return;
    raise(SIGSTOP);
    CHECK(eagre_producer_commit(by, &claim) == EAGRE_OK);
}

/* May produce, and does nothing. */
static void be_idle(int ready, int extra) {
    eagre_t *own;
    (void)extra;
    (void)eg_attach(b.socket, "idle", &own);
    eg_say(ready);
}

struct said {
    const char *text;
    int times;
};
static bool was_said(void *ctx) {
    const struct said *s = ctx;
    char *log = eg_bus_log(&b);
    int n = 0;
    for (const char *at = log; (at = strstr(at, s->text)) != NULL; at++)
        n++;
    free(log);
    return n >= s->times;
}
static void wait_for_log(const char *text, int times) {
    struct said s = {text, times};
    eg_wait_until(was_said, &s, text);
}

static void nothing_comes(void) {
    eagre_record_t r;
    size_t n;
    OK(eagre_consumer_poll(c, &r, 1, 0, &n));
    assert_int_equal(n, 0);
}

static bool lives(pid_t pid) {
    int status;
    return waitpid(pid, &status, WNOHANG | WUNTRACED) == 0;
}

/* ---- told ------------------------------------------------------------------------------------------------- */

static void a_stopped_producer_is_told_and_never_touched(void **state) {
    eagre_topic_info_t *info;
    struct eg_run run;
    char text[64];
    (void)state;
    OK(eg_put(p, "before"));
    pid_t pid = eg_start(claim_and_wait, true);
    OK(eg_put(p, "behind"));
    eg_wait_figure("stalls", 1);
    assert_int_equal(eg_figure("stalls.oldest.pid"), pid);
    assert_int_equal(eg_figure("stalls.oldest.partition"), 0);
    assert_int_equal(eg_figure("stalls.oldest.offset"), 1);
    assert_true(eg_figure("stalls.oldest.ms") >= 100);
    OK(eagre_topic_describe(e, "t", &info));
    assert_int_equal(info->partitions[0].stalled_offset, 1);
    assert_int_equal(info->partitions[0].stalled_pid, pid);
    assert_true(info->partitions[0].stalled_ms >= 100);
    eagre_topic_info_free(info);
    EG_RUN(&run, &b, NULL, "eagre", "topic", "describe", "t");
    snprintf(text, sizeof(text), "for pid %d\n", (int)pid);
    assert_non_null(strstr(run.out, "readers have waited at offset 1 for 0 s"));
    assert_non_null(strstr(run.out, text));
    eg_run_free(&run);
    wait_for_log("topic 't' partition 0: for 0.", 1);
    snprintf(text, sizeof(text), "at offset 1 for a record that pid %d (", (int)pid);
    wait_for_log(text, 3); /* again, while it lasts */
    wait_for_log("it is stopped", 3);
    assert_int_equal(eg_figure("stalls.total"), 1);
    eg_expect("before");
    nothing_comes();
    kill(pid, SIGCONT);
    eg_expect("claim");
    eg_expect("behind");
    eg_wait_figure("stalls", 0);
    wait_for_log("need not wait at offset 1 any more", 1);
    OK(eagre_topic_describe(e, "t", &info));
    assert_int_equal(info->partitions[0].stalled_offset, -1);
    eagre_topic_info_free(info);
    assert_int_equal(eg_figure("stalls.killed"), 0);
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
}

static void so_is_a_claim_held_by_a_program_that_works(void **state) {
    eagre_producer_t *other;
    eagre_claim_t claim;
    (void)state;
    OK(eagre_producer_open(e, "t", NULL, &other));
    eg_claim(p, &claim);
    OK(eg_put(other, "behind"));
    eg_wait_figure("stalls", 1);
    assert_int_equal(eg_figure("stalls.oldest.pid"), getpid());
    wait_for_log("it runs and holds a claim open", 1);
    for (int i = 0; i < 3; i++)
        OK(eg_put(other, "more"));
    OK(eagre_producer_commit(p, &claim));
    eg_expect("claim");
    eg_expect("behind");
    eg_wait_figure("stalls", 0);
    eagre_producer_close(other);
}

static void a_single_writer_is_told_too(void **state) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"writers", "single"}};
    eagre_producer_t *single;
    eagre_claim_t claim;
    (void)state;
    OK(eagre_topic_create(e, "s", settings, 3));
    OK(eagre_producer_open(e, "s", NULL, &single));
    OK(eg_put(single, "before"));
    OK(eagre_producer_claim(single, 0, SIZE_MAX, 5, &claim));
    memcpy(claim.value, "claim", 5);
    eg_wait_figure("stalls", 1);
    assert_int_equal(eg_figure("stalls.oldest.pid"), getpid());
    assert_int_equal(eg_figure("stalls.oldest.offset"), 1);
    wait_for_log("at offset 1 for", 3);
    assert_int_equal(eg_figure("stalls.killed"), 0); /* although stall.kill=true */
    OK(eagre_producer_commit(single, &claim));
    eg_wait_figure("stalls", 0);
    eagre_producer_close(single);
}

/* The successor finds it, too. */
static void also_after_the_daemon_was_killed(void **state) {
    (void)state;
    pid_t pid = eg_start(claim_and_wait, true);
    eg_wait_figure("stalls", 1);
    eg_bus_kill(&b);
    eg_bus_start(&b, "--stall.warn.ms=100", NULL);
    OK(eg_put(p, "behind"));
    eg_wait_figure("stalls", 1);
    assert_int_equal(eg_figure("stalls.oldest.pid"), pid);
    kill(pid, SIGCONT);
    eg_expect("claim");
    eg_expect("behind");
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
}

/* ---- ended ------------------------------------------------------------------------------------------------ */

static void with_stall_kill_it_is_ended(void **state) {
    (void)state;
    for (int stop = 0; stop < 2; stop++) {
        pid_t pid = eg_start(claim_and_wait, stop);
        OK(eg_put(p, "behind"));
        eg_expect("behind");
        assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
        eg_wait_figure("stalls", 0);
        assert_int_equal(eg_figure("stalls.killed"), stop + 1);
    }
    wait_for_log("was killed: stall.kill=true", 2);
}

/* The others go on: to count its claims takes many slices, which are not as many looks at its pins. */
static void also_with_a_long_chain_behind(void **state) {
    const eagre_setting_t settings[] = {{"segment.bytes", "4M"}};
    struct said many = {"at offset 0 for a record that pid", 5};
    eagre_producer_t *by;
    (void)state;
    OK(eagre_topic_create(e, "long", settings, 1));
    OK(eagre_producer_open(e, "long", NULL, &by));
    claimed_topic = "long";
    pid_t pid = eg_start(claim_and_wait, true);
    claimed_topic = "t";
    for (int i = 0; i < 40000; i++)
        OK(eg_put(by, "behind"));
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_wait_figure("stalls.killed", 1);
    assert_false(was_said(&many)); /* it is told again after 1, 2, 4 and 8 times stall.warn.ms */
    eagre_producer_close(by);
}

/* Whose connection it was: a process that the client's user could not kill is not killed for it. */
static void claim_as_root_who_connected_as_nobody(int ready, int extra) {
    eagre_t *own;
    eagre_producer_t *by;
    eagre_claim_t claim;
    (void)extra;
    CHECK(seteuid(65534) == 0);
    CHECK(eagre_open(b.socket, &own) == EAGRE_OK);
    CHECK(eagre_producer_open(own, "t", NULL, &by) == EAGRE_OK);
    CHECK(seteuid(0) == 0 && setresuid(0, 0, 0) == 0);
    CHECK(eagre_producer_claim(by, 0, SIZE_MAX, 5, &claim) == EAGRE_OK);
    eg_say(ready);
}

static void nobody_is_killed_who_is_another_users(void **state) {
    (void)state;
    if (geteuid() != 0) {
        print_message("only root can play two users\n");
        skip();
    }
    eg_bus_open_to_all(&b);
    pid_t pid = eg_start(claim_as_root_who_connected_as_nobody, false);
    OK(eg_put(p, "behind"));
    wait_for_log("cannot be killed: the process of that number is another user's", 1);
    wait_for_log("it runs and holds a claim open", 4);
    assert_true(lives(pid));
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
    eg_expect("behind");
}

/* The owner's number in a frame is what a producer wrote there. */
static _Atomic uint64_t *word_of(const eagre_claim_t *claim) {
    return &((struct eg_frame *)(void *)((char *)claim->value - EG_FRAME_HEADER))->word;
}
static void sign_for(const eagre_claim_t *claim, uint32_t owner) {
    uint64_t word = atomic_load(word_of(claim));
    atomic_store(word_of(claim), (word & ~(UINT64_C(0x3fff) << 50)) | (uint64_t)owner << 50);
}

static void nobody_is_killed_for_what_another_wrote(void **state) {
    eagre_t *reader;
    eagre_consumer_t *reads;
    eagre_claim_t claim;
    (void)state;
    pid_t idle = eg_start(be_idle, 0); /* it is client 2 */
    OK(eagre_open(b.socket, &reader)); /* and this one is 3 */
    OK(eagre_consumer_open(reader, NULL, &reads));
    OK(eagre_consumer_assign(reads, "t", 0));
    eg_expect("idle");
    eg_claim(p, &claim);
    sign_for(&claim, 2);
    wait_for_log("but it does not use that segment", 4);
    assert_int_equal(eg_figure("stalls.oldest.pid"), idle);
    assert_true(lives(idle));
    sign_for(&claim, 3);
    wait_for_log("client 3 has begun and not published: that is no producer of this topic", 1);
    sign_for(&claim, 777);
    wait_for_log("client 777 has begun and not published: that is no producer of this topic", 3);
    assert_int_equal(eg_figure("stalls.oldest.pid"), 0);
    assert_int_equal(eg_figure("stalls.killed"), 0);
    sign_for(&claim, 1);
    OK(eagre_producer_commit(p, &claim));
    eg_expect("claim");
    eagre_consumer_close(reads);
    eagre_close(reader);
    kill(idle, SIGKILL);
    eg_wait_exit(idle);
}

/* It has a claim of its own, further on: so it pins the segment all the time. */
static void nor_who_has_another_claim_there(void **state) {
    eagre_claim_t claim;
    (void)state;
    eg_claim(p, &claim);
    sign_for(&claim, 2);
    pid_t victim = eg_start(claim_and_wait, false);
    wait_for_log("at offset 0 for a record that pid", 5);
    assert_int_equal(eg_figure("stalls.oldest.pid"), victim);
    assert_true(lives(victim));
    assert_int_equal(eg_figure("stalls.killed"), 0);
    sign_for(&claim, 1);
    OK(eagre_producer_commit(p, &claim));
    eg_expect("claim");
    assert_int_equal(eg_wait_exit(victim), 128 + SIGKILL); /* now it is the first that is waited for */
    assert_int_equal(eg_figure("stalls.killed"), 1);
}

/* As another user: the daemon lacks the permission, says so once, and goes on. */
static void claim_as_nobody(int ready, int extra) {
    CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    claim_and_wait(ready, extra);
}

static int setup_without_cap_kill(void **state) {
    (void)state;
    if (geteuid() != 0 || prctl(PR_CAPBSET_DROP, CAP_KILL) != 0) {
        eg_bus_init(&b);
        return 0;
    }
    setup_kill(state);
    char parent[sizeof(b.dir)];
    snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(b.dir, '/') - b.dir), b.dir);
    return chmod(parent, 0711) == 0 ? chmod(b.dir, 0711) : -1;
}

static void without_permission_it_is_said_once(void **state) {
    (void)state;
    if (b.pid == 0) {
        print_message("only root can play two users\n");
        skip();
    }
    pid_t pid = eg_start(claim_as_nobody, false);
    OK(eg_put(p, "behind"));
    wait_for_log("give it CAP_KILL", 1);
    wait_for_log("it runs and holds a claim open", 4);
    struct said twice = {"give it CAP_KILL", 2};
    assert_false(was_said(&twice));
    assert_int_equal(eg_figure("stalls"), 1);
    nothing_comes();
    kill(pid, SIGKILL);
    eg_wait_exit(pid);
    eg_expect("behind");
}

static int teardown_without_cap_kill(void **state) {
    if (b.pid == 0) {
        eg_bus_remove(&b);
        return 0;
    }
    return teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f, with) cmocka_unit_test_setup_teardown(f, with, teardown)
        T(a_stopped_producer_is_told_and_never_touched, setup),
        T(so_is_a_claim_held_by_a_program_that_works, setup),
        T(a_single_writer_is_told_too, setup_kill),
        T(also_after_the_daemon_was_killed, setup),
        T(with_stall_kill_it_is_ended, setup_kill),
        T(also_with_a_long_chain_behind, setup_kill_later),
        T(nobody_is_killed_who_is_another_users, setup_kill),
        T(nobody_is_killed_for_what_another_wrote, setup_kill),
        T(nor_who_has_another_claim_there, setup_kill),
        cmocka_unit_test_setup_teardown(without_permission_it_is_said_once, setup_without_cap_kill,
                                        teardown_without_cap_kill),
    };
    return cmocka_run_group_tests_name("system/stall", tests, NULL, NULL);
}
