/*
 * Rebalances: how long a group takes until the partitions of a member that closes, and of one that is killed, are with
 * others, and until the whole group has the new generation. Members are threads of a few processes, asleep in
 * poll; the two that go are processes of their own.
 */
#include "harness.h"

#include <eagre/group.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS 4
#define PARTITIONS_MAX 1024 /* of a topic */
#define LOOK_US 500         /* how exact `all` is */
#define LIMIT_MS 120000
#define LIMIT_NS (LIMIT_MS * 1000000ll)

/* What the processes of a run tell each other. */
struct board {
    _Atomic uint32_t
        owner[PARTITIONS_MAX]; /* who was given it last: the index of a member, and when */
    _Atomic int64_t given_ns[PARTITIONS_MAX];
    _Atomic uint32_t close_first, start_second, stop;
    _Atomic int64_t closing_ns; /* when the first one began to close */
};

enum { FIRST, SECOND, STAYING }; /* members: who closes, who is killed, the others */

struct run {
    struct board *board;
    const char *socket, *topic;
    char group[64];
    unsigned staying, partitions, hosts;
};

struct member {
    const struct run *run;
    eagre_t *e;
    uint32_t index;
    int status;
    char error[400];
};

static bool is_set(_Atomic uint32_t *flag) {
    return atomic_load_explicit(flag, memory_order_acquire) != 0;
}

static void set(_Atomic uint32_t *flag) { atomic_store_explicit(flag, 1, memory_order_release); }

static void nap(long us) { nanosleep(&(struct timespec){0, us * 1000}, NULL); }

/* ---- members -------------------------------------------------------------------------------------------- */

static void assigned(eagre_consumer_t *c, const eagre_topic_partition_t *list, size_t n,
                     void *ctx) {
    const struct member *m = ctx;
    struct board *board = m->run->board;
    int64_t now = eb_now_ns();
    (void)c;
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit(&board->owner[list[i].partition], m->index, memory_order_relaxed);
        atomic_store_explicit(&board->given_ns[list[i].partition], now, memory_order_release);
    }
}

static int join(struct member *m, eagre_consumer_t **c) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = m->run->group;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.enable_auto_commit = 0;
    eagre_rebalance_callbacks_t callbacks = {.assigned = assigned, .ctx = m};
    int r = eagre_consumer_open(m->e, &o, c);
    if (r == EAGRE_OK)
        r = eagre_consumer_on_rebalance(*c, &callbacks);
    if (r == EAGRE_OK)
        r = eagre_consumer_subscribe(*c, &m->run->topic, 1);
    return r;
}

/* Be a member until the flag is set. */
static int stay(eagre_consumer_t *c, _Atomic uint32_t *until, int32_t timeout_ms) {
    int r = EAGRE_OK;
    eagre_record_t records[16];
    for (size_t n; r == EAGRE_OK && !is_set(until);)
        r = eagre_consumer_poll(c, records, 16, timeout_ms, &n);
    return r;
}

static void *member_thread(void *arg) {
    struct member *m = arg;
    eagre_consumer_t *c;
    int r = join(m, &c);
    if (r == EAGRE_OK)
        r = stay(c, &m->run->board->stop, 1000);
    if (r != EAGRE_OK) {
        m->status = r;
        snprintf(m->error, sizeof m->error, "%s", eagre_error_detail());
        set(&m->run->board->stop);
    }
    return NULL;
}

/* Its members end with it, as after a crash. */
static int host(struct eb_worker *w) {
    const struct run *run = w->arg;
    unsigned me = (unsigned)(w - w->area->worker) - 1;
    unsigned first = run->staying * me / run->hosts, end = run->staying * (me + 1) / run->hosts;
    struct member *members = calloc(end - first, sizeof *members);
    eagre_t *e;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    int r = eagre_open(run->socket, &e);
    if (r != EAGRE_OK || !members)
        return eb_fail_status(w, "eagre_open", r);
    eb_barrier(w->area, run->hosts + 1);
    for (unsigned i = first; i < end; i++) {
        pthread_t thread;
        members[i - first] = (struct member){.run = run, .e = e, .index = STAYING + i};
        if (pthread_create(&thread, &small, member_thread, &members[i - first]) != 0)
            return eb_fail(w, "no thread for member %u", i);
    }
    while (!is_set(&run->board->stop))
        nap(100000);
    for (unsigned i = 0; i < end - first; i++)
        if (members[i].status != EAGRE_OK)
            return eb_fail(w, "member %u: %s: %s", first + i, eagre_status_name(members[i].status),
                           members[i].error);
    return 0;
}

/* ---- the two that go --------------------------------------------------------------------------------------- */

static int first_goes(struct member *m) {
    struct board *board = m->run->board;
    eagre_consumer_t *c;
    int r = eagre_open(m->run->socket, &m->e);
    if (r == EAGRE_OK)
        r = join(m, &c);
    if (r == EAGRE_OK)
        r = stay(c, &board->close_first, 5);
    if (r != EAGRE_OK)
        return r;
    atomic_store_explicit(&board->closing_ns, eb_now_ns(), memory_order_release);
    eagre_consumer_close(c);
    eagre_close(m->e);
    return EAGRE_OK;
}

static int second_goes(struct member *m) {
    eagre_consumer_t *c;
    while (!is_set(&m->run->board->start_second))
        nap(LOOK_US);
    int r = eagre_open(m->run->socket, &m->e);
    if (r == EAGRE_OK)
        r = join(m, &c);
    return r == EAGRE_OK ? stay(c, &m->run->board->stop, 1000) : r;
}

static pid_t start(const struct run *run, uint32_t index) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct member m = {.run = run, .index = index};
    int r = index == FIRST ? first_goes(&m) : second_goes(&m);
    if (r != EAGRE_OK)
        fprintf(stderr, "eagre-bench: a member: %s: %s\n", eagre_status_name(r),
                eagre_error_detail());
    _exit(r == EAGRE_OK ? 0 : 1);
}

/* ---- who looks at it all ------------------------------------------------------------------------------------ */

/* A member that fails sets `stop`, and its host tells why and ends the run. */
static void look_for_failures(const struct run *run) {
    while (is_set(&run->board->stop))
        pause();
}

/* Until the group is stable with so many members in a generation behind this one. Its generation; 0: it took too
 * long. */
static uint32_t wait_stable(eagre_t *e, const struct run *run, unsigned members, uint32_t behind) {
    for (int64_t end = eb_now_ns() + LIMIT_NS; eb_now_ns() < end; nap(LOOK_US)) {
        eagre_group_entry_t *list;
        size_t count;
        uint32_t generation = 0;
        look_for_failures(run);
        if (eagre_group_list(e, &list, &count) != EAGRE_OK)
            continue;
        for (size_t i = 0; i < count; i++)
            if (strcmp(list[i].name, run->group) == 0 && list[i].state == EAGRE_GROUP_STABLE &&
                list[i].members == members && list[i].generation > behind)
                generation = list[i].generation;
        free(list);
        if (generation != 0)
            return generation;
    }
    return 0;
}

/* When the last of the partitions that were `gone`'s was given to another one; 0: not in time, or it had none. */
static int64_t wait_moved(const struct run *run, const bool *were, int64_t since) {
    struct board *board = run->board;
    int64_t last = 0, end = eb_now_ns() + LIMIT_NS;
    for (unsigned i = 0; i < run->partitions; i++) {
        int64_t given = since;
        while (were[i] &&
               (given = atomic_load_explicit(&board->given_ns[i], memory_order_acquire)) <= since) {
            look_for_failures(run);
            if (eb_now_ns() > end)
                return 0;
            nap(LOOK_US);
        }
        if (were[i] && given > last)
            last = given;
    }
    return last;
}

static void look_whose(const struct run *run, uint32_t member, bool *are) {
    for (unsigned i = 0; i < run->partitions; i++)
        are[i] = atomic_load_explicit(&run->board->given_ns[i], memory_order_acquire) != 0 &&
                 atomic_load_explicit(&run->board->owner[i], memory_order_relaxed) == member;
}

/* A member goes: milliseconds until its partitions are with others, and until all have the new generation. */
static int watch(struct eb_worker *w, eagre_t *e, uint32_t member, pid_t pid, uint32_t *generation,
                 double *ms) {
    const struct run *run = w->arg;
    struct board *board = run->board;
    bool were[PARTITIONS_MAX];
    look_whose(run, member, were);
    int64_t began = eb_now_ns();
    if (member == FIRST)
        set(&board->close_first);
    else
        kill(pid, SIGKILL);
    *generation = wait_stable(e, run, run->staying, *generation);
    int64_t stable = eb_now_ns(), moved = wait_moved(run, were, began);
    waitpid(pid, NULL, 0);
    if (*generation == 0 || moved == 0)
        return eb_fail(w, "the partitions of a member that was %s did not come to others",
                       member == FIRST ? "closed" : "killed");
    if (member == FIRST)
        began = atomic_load_explicit(&board->closing_ns, memory_order_acquire);
    ms[0] = (double)(moved - began) / 1e6;
    ms[1] = (double)(stable - began) / 1e6;
    return 0;
}

/* Values: milliseconds until all have joined; moved and all, of the one that closes and of the one that is killed. */
static int observe(struct eb_worker *w) {
    const struct run *run = w->arg;
    pid_t first = start(run, FIRST),
          second = start(run, SECOND); /* before there is a handle here */
    eagre_t *e;
    int r = eagre_open(run->socket, &e);
    if (r != EAGRE_OK || first < 0 || second < 0)
        return eb_fail_status(w, "eagre_open", r);
    eb_barrier(w->area, run->hosts + 1);
    int64_t began = eb_now_ns();
    uint32_t generation = wait_stable(e, run, run->staying + 1, 0);
    w->value[0] = (double)(eb_now_ns() - began) / 1e6;
    if (generation == 0)
        return eb_fail(w, "%u members did not come together", run->staying + 1);
    if (watch(w, e, FIRST, first, &generation, &w->value[1]) != 0)
        return 1;
    set(&run->board->start_second);
    generation = wait_stable(e, run, run->staying + 1, generation);
    if (generation == 0)
        return eb_fail(w, "a further member did not come in");
    if (watch(w, e, SECOND, second, &generation, &w->value[3]) != 0)
        return 1;
    set(&run->board->stop);
    for (int64_t end = eb_now_ns() + LIMIT_NS; eb_now_ns() < end; nap(LOOK_US))
        if ((r = eagre_group_delete(e, run->group)) != EAGRE_E_GROUP_ACTIVE)
            break;
    return r == EAGRE_OK ? 0 : eb_fail_status(w, "eagre_group_delete", r);
}

/* All partitions have memory before the run: it is not what is measured. */
static int open_all(struct eb_worker *w) {
    const struct run *run = w->arg;
    eagre_t *e;
    eagre_consumer_t *c;
    int r = eagre_open(run->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, NULL, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, run->topic, EAGRE_PARTITION_ALL);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening all partitions", r);
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

/* ---- runs ---------------------------------------------------------------------------------------------------- */

static int run_workers(struct run *run, double *out) {
    struct eb_area *a = eb_area_create(run->hosts + 1);
    int r = a ? eb_worker_start(a, 0, open_all, run, -1) : -1;
    if (r == 0)
        r = eb_workers_wait(a, LIMIT_MS);
    for (unsigned i = 0; i <= run->hosts && r == 0; i++)
        r = eb_worker_start(a, i, i == 0 ? observe : host, run, -1);
    if (r == 0)
        r = eb_workers_wait(a, 4 * LIMIT_MS);
    if (r == 0)
        memcpy(out, a->worker[0].value, 5 * sizeof *out);
    eb_area_free(a);
    return r;
}

static int run_group(struct eb_bench *b, const void *arg, double *out) {
    const unsigned *size = arg;
    static unsigned groups;
    unsigned partitions = *size * 4 < PARTITIONS_MAX ? *size * 4 : PARTITIONS_MAX;
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){64u << 10, 3};
    char name[64], count[12];
    snprintf(count, sizeof count, "%u", partitions);
    if (eb_topic_create(b, &ring, (eagre_setting_t[]){{"partitions", count}, {NULL, NULL}}, name) !=
        0)
        return -1;
    struct run run = {.socket = b->bus->socket,
                      .topic = name,
                      .staying = *size - 1,
                      .partitions = partitions,
                      .hosts = *size - 1 < HOSTS ? *size - 1 : HOSTS};
    snprintf(run.group, sizeof run.group, "bench-%d-%u", (int)getpid(), groups++);
    run.board =
        mmap(NULL, sizeof *run.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r = run.board == MAP_FAILED ? -1 : 0;
    if (r == 0) {
        eb_bus_settle(b);
        r = run_workers(&run, out);
        munmap(run.board, sizeof *run.board);
    }
    eb_topic_delete(b, name);
    return r;
}

int eb_groups(struct eb_bench *b) {
    static unsigned size[] = {2, 10, 100, 0};
    static char name[4][24];
    struct eb_comparison c = {"groups",
                              "a member closes, another is killed: until its partitions are with "
                              "others (moved), until all have the new "
                              "generation (all)",
                              {{"join", "ms", 1},
                               {"close", "ms moved", 1},
                               {"close", "ms all", 1},
                               {"kill", "ms moved", 1},
                               {"kill", "ms all", 1}},
                              {{0}},
                              0};
    size[3] = b->opt.members > 100 ? b->opt.members : 0;
    for (unsigned i = 0; i < 4 && size[i] > 0 && size[i] <= b->opt.members; i++) {
        snprintf(name[i], sizeof name[i], "%u members", size[i]);
        c.variant[i] = (struct eb_variant){
            name[i], run_group, &size[i], i > 0 ? 0 : -1, {{'<', true, 3, 100}}};
    }
    return eb_compare(b, &c);
}
