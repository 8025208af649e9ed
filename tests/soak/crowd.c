#include "crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/group.h"
#include "state.h"
#include "sys/atomic.h"
#include "sys/clock.h"
#include "worker.h"

#define PROCESSES_MAX 256u
#define TOPIC "crowd"
#define GROUP "crowd"
#define PARTITIONS "64"
#define PAUSE_US 2000

/* What parent and children tell each other. */
struct page {
    _Atomic uint32_t leave;
    _Atomic uint32_t lost; /* members that were put out, who should not */
};

static struct page *page;
static pid_t pids[PROCESSES_MAX];
static unsigned processes, count_each;

/* ---- a process full of members ---------------------------------------------------------------------------------- */

static void must(int rc, const char *what) {
    if (rc != EAGRE_OK) {
        (void)fprintf(stderr, "soak: %s: %s\n", what, eagre_error_detail());
        _exit(SOAK_FAILED);
    }
}

static void lost(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)c, (void)list, (void)n, (void)ctx;
    eg_fetch_add_relaxed(&page->lost, 1);
}

static void live(const char *socket) {
    const char *const topics[] = {TOPIC};
    const eagre_rebalance_callbacks_t callbacks = {.lost = lost};
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t **list = calloc(count_each, sizeof(*list));
    eagre_record_t r;
    eagre_t *e;
    size_t n;
    o.group_id = GROUP;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    must(list != NULL ? EAGRE_OK : EAGRE_E_NO_MEMORY, "members");
    must(eagre_open(socket, &e), "open");
    for (unsigned i = 0; i < count_each; i++) {
        must(eagre_consumer_open(e, &o, &list[i]), "member");
        must(eagre_consumer_on_rebalance(list[i], &callbacks), "callbacks");
        must(eagre_consumer_subscribe(list[i], topics, 1), "subscribe");
        for (unsigned k = 0; k < i; k += 16)
            must(eagre_consumer_poll(list[k], &r, 1, 0, &n), "poll while others join");
    }
    while (eg_load_acquire(&page->leave) == 0) {
        for (unsigned i = 0; i < count_each; i++)
            must(eagre_consumer_poll(list[i], &r, 1, 0, &n), "poll");
        usleep(PAUSE_US);
    }
    for (unsigned i = 0; i < count_each; i++)
        eagre_consumer_close(list[i]);
    free(list);
    must(eagre_close(e), "close");
    exit(0);
}

/* ---- the group as others see it ----------------------------------------------------------------------------------- */

static eagre_t *admin;

struct wanted {
    size_t members;
    uint32_t generation; /* out */
    eagre_group_state_t state;
};

/* A child that fails says why, and nobody waits for it. */
static void look_at_children(void) {
    for (unsigned i = 0; i < processes; i++) {
        siginfo_t info = {0};
        if (pids[i] != 0 && waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid != 0 && info.si_code == CLD_EXITED && info.si_status != 0)
            fail_msg("a process of members ended with status %d", info.si_status);
    }
}

static bool is_so(void *ctx) {
    struct wanted *w = ctx;
    eagre_group_info_t *info;
    look_at_children();
    int rc = eagre_group_describe(admin, GROUP, &info);
    if (rc == EAGRE_E_UNKNOWN_GROUP)
        return false;
    if (rc != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    size_t partitions = 0;
    for (size_t i = 0; i < info->member_count; i++)
        partitions += info->members[i].partitions;
    w->generation = info->generation;
    bool so = info->state == w->state && info->member_count == w->members &&
              partitions == (w->members == 0 ? 0u : (size_t)atoi(PARTITIONS));
    eagre_group_info_free(info);
    return so;
}

static uint32_t until(size_t members, eagre_group_state_t state, const char *what) {
    struct wanted w = {.members = members, .state = state};
    eg_wait_until(is_so, &w, what);
    return w.generation;
}

/* ---- a cycle -------------------------------------------------------------------------------------------------------- */

static void start(const struct eg_test_bus *b) {
    eg_store_release(&page->leave, 0);
    for (unsigned i = 0; i < processes; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            live(b->socket);
        if (pids[i] < 0)
            fail_msg("fork: %s", strerror(errno));
    }
}

/* All of them are gone before the daemon looks. */
static void kill_half(const struct eg_test_bus *b) {
    siginfo_t info;
    kill(b->pid, SIGSTOP);
    assert_int_equal(waitid(P_PID, (id_t)b->pid, &info, WSTOPPED), 0);
    for (unsigned i = 0; i < processes / 2; i++)
        kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < processes / 2; i++) {
        assert_int_equal(eg_wait_exit(pids[i]), 128 + SIGKILL);
        pids[i] = 0;
    }
    kill(b->pid, SIGCONT);
}

static void leave(void) {
    eg_store_release(&page->leave, 1);
    for (unsigned i = processes / 2; i < processes; i++) {
        assert_int_equal(eg_wait_exit(pids[i]), 0);
        pids[i] = 0;
    }
}

static void cycle(const struct eg_test_bus *b) {
    size_t all = (size_t)count_each * processes;
    int64_t begin = eg_mono_ns();
    start(b);
    uint32_t joined = until(all, EAGRE_GROUP_STABLE, "all have joined");
    int64_t middle = eg_mono_ns();
    kill_half(b);
    uint32_t died = until(all / 2, EAGRE_GROUP_STABLE, "the others have what the dead had");
    int64_t end = eg_mono_ns();
    /* Together; but others' partitions do not wait until a daemon that gets little time has seen all of them. */
    uint32_t limit = processes / 8 > 4 ? processes / 8 : 4;
    if (died - joined > limit)
        fail_msg("%zu deaths at once made %u generations", all / 2, died - joined);
    leave();
    until(0, EAGRE_GROUP_EMPTY, "all have left");
    print_message(
        "%zu members came in %.2f s and %u generations; half of them dead: %.2f s and %u\n", all,
        (double)(middle - begin) / 1e9, joined, (double)(end - middle) / 1e9, died - joined);
    assert_int_equal(eg_load_relaxed(&page->lost), 0);
    if (eagre_group_delete(admin, GROUP) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
}

static void cycles_of(const struct eg_test_bus *b, unsigned cycles) {
    if (eagre_open(b->socket, &admin) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    for (unsigned i = 0; i < cycles; i++)
        cycle(b);
    eagre_close(admin);
}

void soak_crowd(const struct eg_test_bus *b, unsigned members, unsigned in_processes,
                unsigned cycles) {
    static struct soak_state before, after;
    const eagre_setting_t settings[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", PARTITIONS}};
    page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    processes = in_processes < members ? in_processes : members;
    count_each = members / processes;
    assert_true(processes > 1 && processes <= PROCESSES_MAX);
    if (eagre_open(b->socket, &admin) != EAGRE_OK ||
        eagre_topic_create(admin, TOPIC, settings, 3) != EAGRE_OK)
        fail_msg("%s", eagre_error_detail());
    eagre_close(admin);
    soak_state_stretch(b);
    cycles_of(b, 1);
    soak_state_take(b, &before);
    cycles_of(b, cycles);
    soak_state_wait(b, &before, &after);
    munmap(page, sizeof(*page));
}
