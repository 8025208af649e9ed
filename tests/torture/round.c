#include "torture/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "sys/atomic.h"
#include "sys/rand.h"
#include "system/harness.h"
#include "torture/points.h"

#define END_MS 60000 /* so long may it take until all is quiet */

#define TEXT_OF(n) #n
#define TEXT(n) TEXT_OF(n)
#define LOCK "--group.share.record.lock.duration.ms=" TEXT(TORTURE_LOCK_MS)

/* A process of ours. */
struct process {
    pid_t pid; /* 0: none runs */
    enum torture_role role;
    uint32_t index;
    struct torture_arm *arm; /* or NULL */
    struct torture_arm random_arm;
    int64_t start_at, go_on_at; /* ms; 0: not at all */
    bool killed, stopped;       /* by us */
    bool ended;                 /* by itself, well */
};

static struct {
    struct torture_plan *plan;
    struct torture_result *result;
    struct torture_control *control;
    struct eg_test_bus bus;
    char dir[96]; /* history and control page */
    uint64_t random;
    struct process clients[2 * TORTURE_CLIENTS + 1 + TORTURE_MEMBERS];
    uint32_t client_count;
    struct process daemon;
    int daemon_ready;   /* pipe; -1: it is */
    bool settled;       /* nobody is armed any more, but who stops at the end */
    bool daemon_leaves; /* SIGUSR2 or SIGTERM was sent */
    pid_t keeper_gone;  /* killed, and the daemon has not replaced it yet */
} r;

static int64_t now_ms(void) { return history_now() / 1000000; }
static uint32_t pick(uint32_t n) { return (uint32_t)(eg_rand_next(&r.random) % n); }

static __attribute__((format(printf, 1, 2))) void failed(const char *format, ...) {
    va_list ap;
    if (r.result->failure[0] != '\0')
        return; /* the first one is what counts */
    va_start(ap, format);
    (void)vsnprintf(r.result->failure, sizeof(r.result->failure), format, ap);
    va_end(ap);
}
static bool is_failed(void) { return r.result->failure[0] != '\0'; }

/* ---- starting ------------------------------------------------------------------------------------------- */

static void fault_text(const struct torture_arm *arm, char *buf, size_t cap) {
    buf[0] = '\0';
    if (arm != NULL)
        (void)snprintf(buf, cap, "%s@%u=%s", arm->point, arm->at, arm->stop ? "stop" : "kill");
}

/* The plan's next one for this process; else perhaps a random one. */
static struct torture_arm *arm_for(struct process *p, bool at_end) {
    bool is_daemon = p == &r.daemon;
    struct torture_plan *plan = r.plan;
    if (r.settled && !at_end)
        return NULL;
    for (uint32_t i = 0; i < plan->arm_count; i++) {
        struct torture_arm *a = &plan->arms[i];
        if (!a->fired && a->daemon == is_daemon && a->at_end == at_end &&
            (is_daemon || (a->role == p->role && a->index == p->index)))
            return a;
    }
    if (at_end || plan->arm_count > 0 || !(plan->actions & TORTURE_FAULTS) ||
        torture_point_count == 0 || pick(2) == 0)
        return NULL;
    uint32_t most = 1u << pick(is_daemon ? 5 : 10);
    p->random_arm = (struct torture_arm){.daemon = is_daemon,
                                         .point = torture_point_pick(is_daemon, pick(1 << 30)),
                                         .at = 1 + pick(most),
                                         .stop = pick(3) == 0};
    return &p->random_arm;
}

static void begun(struct process *p, pid_t pid, struct torture_arm *arm) {
    p->pid = pid;
    p->arm = arm;
    p->start_at = p->go_on_at = 0;
    p->killed = p->stopped = p->ended = false;
}

static void start_client(struct process *p) {
    char role[8], index[8], seed[24], fault[64];
    struct torture_arm *arm = arm_for(p, false);
    int log = open(r.bus.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fault_text(arm, fault, sizeof(fault));
    (void)snprintf(role, sizeof(role), "%d", (int)p->role);
    (void)snprintf(index, sizeof(index), "%u", p->index);
    (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)eg_rand_next(&r.random));
    pid_t pid = EG_SPAWN(&r.bus, -1, log, log, "/proc/self/exe", TORTURE_CLIENT, role, index, r.dir,
                         seed, fault);
    close(log);
    begun(p, pid, arm);
}

static void start_daemon(struct torture_arm *arm) {
    char fault[64];
    int ends[2] = {-1, -1};
    int log = open(r.bus.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        fail_msg("%s: %s", r.bus.log, strerror(errno));
    fault_text(arm, fault, sizeof(fault));
    setenv("EAGRE_FAULT", fault, 1);
    pid_t pid =
        EG_SPAWN(&r.bus, -1, ends[1], log, "eagred", "--dir", r.bus.data, "--socket", r.bus.socket,
                 "--keeper=process", "--ready-fd=1", r.control->group[1].share ? LOCK : NULL);
    unsetenv("EAGRE_FAULT");
    close(log);
    close(ends[1]);
    if (r.daemon_ready >= 0)
        close(r.daemon_ready);
    r.daemon_ready = ends[0];
    r.daemon_leaves = false;
    begun(&r.daemon, pid, arm);
}

/* It has taken over all that there was, listens, and is not about to go. */
static bool daemon_is_ready(void) {
    char byte;
    if (r.daemon.pid == 0 || r.daemon.killed || r.daemon_leaves)
        return false;
    if (r.daemon_ready >= 0 && read(r.daemon_ready, &byte, 1) == 1) {
        close(r.daemon_ready);
        r.daemon_ready = -1;
    }
    return r.daemon_ready < 0;
}

/* ---- what became of them ------------------------------------------------------------------------------------ */

static void fired(struct process *p) {
    size_t i = torture_point_number(p->arm->point);
    p->arm->fired = true;
    if (i < torture_point_count)
        r.result->fired[i]++;
    p->arm = NULL;
}

static bool is_reader(const struct process *p) {
    return p->role == TORTURE_CONSUMER || p->role == TORTURE_MEMBER;
}

static const char *what(const struct process *p) {
    static const char *const names[] = {"producer", "consumer", "administrator", "member"};
    return p == &r.daemon ? "daemon" : names[p->role];
}

static void ended(struct process *p, const siginfo_t *info) {
    bool by_signal = info->si_code != CLD_EXITED;
    pid_t pid = p->pid;
    p->pid = 0;
    p->go_on_at = 0;
    if (by_signal && info->si_status == SIGKILL && (p->killed || p->arm != NULL)) {
        if (!p->killed)
            fired(p);
        p->start_at = now_ms() + (pick(2) == 0 ? 0 : pick(100));
    } else if (!by_signal && info->si_status == 0 && (p != &r.daemon || r.daemon_leaves)) {
        p->ended = true;
        if (p == &r.daemon)
            p->start_at = now_ms() + pick(30);
    } else if (by_signal && info->si_status == SIGUSR2 && r.daemon_leaves && p == &r.daemon) {
        p->start_at = now_ms(); /* it had not come so far as to listen for that */
    } else {
        failed("%s %u (pid %d) ended: %s %d", what(p), p->index, (int)pid,
               by_signal ? "signal" : "status", info->si_status);
    }
    if (p == &r.daemon)
        r.result->daemons++;
    else
        r.result->kills += by_signal;
}

static void look_after(struct process *p) {
    siginfo_t info = {0};
    if (p->pid == 0 || waitid(P_PID, (id_t)p->pid, &info, WEXITED | WSTOPPED | WNOHANG) != 0 ||
        info.si_pid == 0) {
    } else if (info.si_code != CLD_STOPPED) {
        ended(p, &info);
    } else {
        if (!p->stopped && p->arm != NULL)
            fired(p);
        p->stopped = true;
        r.result->stops++;
        if (p->go_on_at == 0)
            p->go_on_at = now_ms() + 1 + pick(r.plan->stop_ms);
    }
    if (p->pid != 0 && p->go_on_at != 0 && now_ms() >= p->go_on_at) {
        p->go_on_at = 0;
        p->stopped = false;
        kill(p->pid, SIGCONT);
    }
}

static bool log_has(const char *text) {
    char *log = eg_bus_log(&r.bus);
    bool found = strstr(log, text) != NULL;
    free(log);
    return found;
}

/* Memory has two holders: as long as one of them is not there, the other must not go. */
static bool keeper_is_there(void) {
    char text[64];
    if (r.keeper_gone == 0)
        return true;
    pid_t now = eg_bus_keeper(&r.bus);
    (void)snprintf(text, sizeof(text), "a new keeper, pid %d, holds all", (int)now);
    if (now == 0 || now == r.keeper_gone || !log_has(text))
        return false;
    r.keeper_gone = 0;
    return true;
}

static void look_after_all(bool restart) {
    int64_t now = now_ms();
    for (uint32_t i = 0; i < r.client_count; i++) {
        struct process *p = &r.clients[i];
        look_after(p);
        if (p->pid == 0 && p->start_at != 0 && now >= p->start_at && restart)
            start_client(p);
    }
    look_after(&r.daemon);
    if (r.daemon.pid == 0 && now >= r.daemon.start_at)
        start_daemon(arm_for(&r.daemon, false));
    (void)keeper_is_there();
}

/* ---- what is done to them --------------------------------------------------------------------------------------- */

static void kill_it(struct process *p) {
    if (p->pid == 0)
        return;
    p->killed = true;
    kill(p->pid, SIGKILL);
}

static void stop_it(struct process *p) {
    if (p->pid == 0 || p->stopped)
        return;
    p->stopped = true;
    p->go_on_at = now_ms() + 1 + pick(r.plan->stop_ms);
    kill(p->pid, SIGSTOP);
}

static void kill_keeper(void) {
    pid_t keeper = eg_bus_keeper(&r.bus);
    if (keeper <= 1 || !daemon_is_ready() || r.daemon.arm != NULL || r.daemon_leaves ||
        r.daemon.killed || !keeper_is_there())
        return;
    r.keeper_gone = keeper;
    r.result->keepers++;
    kill(keeper, SIGKILL);
}

static bool all_fired(bool daemon_only) {
    for (uint32_t i = 0; i < r.plan->arm_count; i++)
        if (!r.plan->arms[i].fired && !r.plan->arms[i].at_end &&
            (r.plan->arms[i].daemon || !daemon_only))
            return false;
    return true;
}

static void act(void) {
    uint32_t actions = r.plan->actions;
    struct process *p = &r.clients[pick(r.client_count)];
    bool daemon_may_go = r.keeper_gone == 0 && r.daemon.pid != 0 && !r.daemon_leaves;
    if (!all_fired(true) && r.daemon.arm == NULL && !r.daemon.stopped && daemon_may_go &&
        pick(8) == 0)
        kill_it(&r.daemon); /* its successor will have an arm */
    switch (pick(40)) {
    case 0:
    case 1:
        if (actions & (is_reader(p) ? TORTURE_KILL_CONSUMERS : TORTURE_KILL_PRODUCERS))
            kill_it(p);
        break;
    case 2:
    case 3:
        if (actions & TORTURE_STOP_CLIENTS)
            stop_it(p);
        break;
    case 4:
        if ((actions & TORTURE_KILL_DAEMON) && daemon_may_go && (daemon_is_ready() || pick(2) == 0))
            kill_it(&r.daemon);
        break;
    case 5:
        if ((actions & TORTURE_STOP_DAEMON) && pick(3) == 0)
            stop_it(&r.daemon);
        break;
    case 6:
        if ((actions & TORTURE_RESTART_DAEMON) && daemon_may_go && pick(2) == 0) {
            r.daemon_leaves = true;
            kill(r.daemon.pid, SIGUSR2);
        }
        break;
    case 7:
        if ((actions & TORTURE_KILL_KEEPER) && pick(4) == 0)
            kill_keeper();
        break;
    case 8:
    case 9: /* so long that it is put out of its group */
        if ((actions & TORTURE_STOP_CLIENTS) && r.control->poll_ms != 0 &&
            p->role == TORTURE_MEMBER && p->pid != 0 && !p->stopped) {
            stop_it(p);
            p->go_on_at = now_ms() + r.control->poll_ms + pick(2 * r.control->poll_ms);
        }
        break;
    default:
        break;
    }
}

/* ---- the round --------------------------------------------------------------------------------------------------- */

static void tick(void) { poll(NULL, 0, 1 + (int)pick(4)); }

static void add_clients(enum torture_role role, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        r.clients[r.client_count++] = (struct process){.role = role, .index = i};
}

static bool map_control(void) {
    char path[128];
    if (mkdir(r.dir, 0700) != 0)
        return false;
    (void)snprintf(path, sizeof(path), "%s/control", r.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*r.control)) != 0)
        return false;
    r.control = mmap(NULL, sizeof(*r.control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (r.control == MAP_FAILED)
        return false;
    memcpy(r.control, &r.plan->control, sizeof(*r.control));
    return true;
}

/* Until f() or the round failed or the time is over; false then. */
static bool until(bool (*f)(void), bool restart) {
    int64_t limit = now_ms() + END_MS;
    while (!is_failed() && !f()) {
        if (now_ms() > limit)
            return false;
        look_after_all(restart);
        tick();
    }
    return !is_failed();
}

/* The first daemon, unharmed yet, makes the topics. */
static void begin(void) {
    eagre_t *e = NULL;
    start_daemon(NULL);
    if (!until(daemon_is_ready, false) || eagre_open(r.bus.socket, &e) != EAGRE_OK) {
        failed("no daemon: %s", eagre_error_detail());
        return;
    }
    for (uint32_t i = 0; i < r.plan->topics_at_start; i++) {
        uint32_t partitions = r.control->groups > 0 ? 2 + pick(5) : 1 + pick(3);
        if (torture_create(e, &r.control->topic[i], i, partitions) != EAGRE_OK)
            failed("eagre_topic_create: %s", eagre_error_detail());
        eg_store_release(&r.control->topic[i].partitions, partitions);
    }
    eagre_close(e);
    add_clients(TORTURE_PRODUCER, r.control->producers);
    add_clients(TORTURE_CONSUMER, r.control->consumers);
    add_clients(TORTURE_MEMBER, r.control->members);
    add_clients(TORTURE_ADMIN, r.plan->actions & TORTURE_ADMINISTER ? 1 : 0);
    for (uint32_t i = 0; i < r.client_count; i++)
        start_client(&r.clients[i]);
}

/* How much all consumers have read. */
static int64_t progress(void) {
    int64_t sum = 0;
    for (uint32_t t = 0; t < TORTURE_TOPICS; t++)
        for (uint32_t c = 0; c < TORTURE_CLIENTS; c++)
            for (uint32_t i = 0; i < TORTURE_PARTITIONS; i++)
                sum += eg_load_relaxed(&r.control->topic[t].position[c][i]);
    for (uint32_t t = 0; t < TORTURE_TOPICS; t++)
        for (uint32_t g = 0; g < TORTURE_GROUPS; g++)
            for (uint32_t i = 0; i < TORTURE_PARTITIONS; i++)
                sum += eg_load_relaxed(&r.control->topic[t].delivered[g][i]);
    return sum;
}

/* Where only some points are to be reached: until then, and until all goes on behind them. */
static void work(void) {
    int64_t limit = now_ms() + r.plan->run_ms, reached = INT64_MAX;
    while (!is_failed() && now_ms() < limit &&
           (reached == INT64_MAX || progress() < reached + 100)) {
        look_after_all(true);
        if (r.plan->arm_count > 0 && reached == INT64_MAX && all_fired(false))
            reached = progress();
        act();
        tick();
    }
}

static bool have_ended(bool consumers) {
    for (uint32_t i = 0; i < r.client_count; i++)
        if (consumers == is_reader(&r.clients[i]) &&
            (r.clients[i].pid != 0 || (consumers && !r.clients[i].ended)))
            return false;
    return true;
}
static bool producers_have_ended(void) { return have_ended(false); }
static bool consumers_have_ended(void) {
    return have_ended(true) && daemon_is_ready() && keeper_is_there();
}

/* Nobody does any harm any more: producers end, consumers read all that there is. */
static void settle(void) {
    r.settled = true;
    if (r.daemon.arm != NULL && r.keeper_gone == 0)
        kill_it(&r.daemon);
    eg_store_release(&r.control->phase, TORTURE_FINISH);
    if (!until(producers_have_ended, false)) {
        failed("producers do not end");
        return;
    }
    eg_store_release(&r.control->phase, TORTURE_DRAIN);
    for (uint32_t i = 0; i < r.client_count; i++)
        if (!is_reader(&r.clients[i]))
            r.clients[i].start_at = 0;
    if (!until(consumers_have_ended, true))
        failed("consumers do not come to the end, or daemon and keeper not to rest");
}

static eagre_t *asked;

static bool nothing_is_held(void) {
    eagre_status_entry_t *list;
    size_t n;
    int held = 0;
    if (eagre_daemon_status(asked, &list, &n) != EAGRE_OK)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, "clients") == 0 || strcmp(list[i].name, "memory.pinned") == 0)
            held += strcmp(list[i].value, "0") != 0;
    free(list);
    return held == 0;
}

/* What the dead left is taken back. */
static void look_for_leftovers(void) {
    asked = NULL;
    if (is_failed())
        return;
    if (eagre_open(r.bus.socket, &asked) != EAGRE_OK)
        failed("no daemon at the end: %s", eagre_error_detail());
    else if (!until(nothing_is_held, false))
        failed("all clients are gone, but some are still counted, or pin memory");
    eagre_close(asked);
}

static bool daemon_has_ended(void) {
    look_after(&r.daemon);
    return r.daemon.pid == 0;
}

static void stop_daemon(void) {
    int64_t limit = now_ms() + END_MS;
    pid_t keeper = eg_bus_keeper(&r.bus);
    r.daemon_leaves = true;
    kill(r.daemon.pid, SIGTERM);
    while (!daemon_has_ended() && now_ms() < limit)
        tick();
    if (r.daemon.pid != 0)
        failed("the daemon does not end");
    else if (r.daemon.ended && keeper > 0)
        eg_wait_gone(keeper);
}

/* The clean stop. Where an arm waits for it, several. */
static void end(void) {
    struct torture_arm *arm;
    while (!is_failed() && (arm = arm_for(&r.daemon, true)) != NULL) {
        if (r.daemon.pid != 0) {
            kill_it(&r.daemon);
            while (!daemon_has_ended())
                tick();
        }
        start_daemon(arm);
        if (!until(daemon_is_ready, false))
            failed("no daemon at the end");
        else
            stop_daemon();
        if (!arm->fired)
            failed("%s was not reached at the end", arm->point);
    }
    if (!is_failed() && r.daemon.pid == 0) {
        start_daemon(NULL);
        if (!until(daemon_is_ready, false))
            failed("no daemon at the very end");
    }
    if (!is_failed()) {
        stop_daemon();
        if (!r.daemon.ended)
            failed("the daemon did not end well");
    }
}

static void check(void) {
    static const char *const complaints[] = {"AddressSanitizer", "ThreadSanitizer",
                                             "runtime error:", "torture: "};
    struct history_options options = {.no_gaps = r.plan->no_gaps,
                                      .need_complete = true,
                                      .share_lock_ms = TORTURE_LOCK_MS,
                                      .out = stderr};
    int rc = history_check(r.dir, &options, &r.result->history);
    if (rc < 0)
        failed("%s: %s", r.dir, strerror(errno));
    else if (rc > 0)
        failed("%llu rules are broken", (unsigned long long)r.result->history.violations);
    for (size_t i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++)
        if (log_has(complaints[i]))
            failed("the log has: %s", complaints[i]);
}

static void show_log(void) {
    char *log = eg_bus_log(&r.bus);
    size_t length = strlen(log);
    (void)fprintf(stderr, "... the log ends with:\n%s", length > 4000 ? log + length - 4000 : log);
    free(log);
}

bool torture_run(struct torture_plan *plan, struct torture_result *result) {
    memset(result, 0, sizeof(*result));
    memset(&r, 0, sizeof(r));
    r.plan = plan;
    r.result = result;
    r.random = plan->seed ^ 0x746f7274757265;
    r.daemon_ready = -1;
    r.daemon.role = TORTURE_ADMIN;
    eg_bus_init(&r.bus);
    (void)snprintf(r.dir, sizeof(r.dir), "%s/history", r.bus.dir);
    if (!map_control())
        fail_msg("%s: %s", r.dir, strerror(errno));
    begin();
    if (!is_failed())
        work();
    if (!is_failed())
        settle();
    look_for_leftovers();
    if (!is_failed())
        end();
    if (!is_failed())
        check();
    for (size_t i = 0; i < TORTURE_POINTS; i++)
        result->hits[i] = eg_load_relaxed(&r.control->hits[i]);
    munmap(r.control, sizeof(*r.control));
    if (r.daemon_ready >= 0)
        close(r.daemon_ready);
    if (is_failed()) {
        show_log();
        if (plan->keep_dir != NULL && rename(r.bus.dir, plan->keep_dir) == 0)
            (void)fprintf(stderr, "its files are in %s\n", plan->keep_dir);
    }
    eg_bus_remove(&r.bus);
    return !is_failed();
}
