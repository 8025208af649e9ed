#include "step/victim.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH 3u
#define LARGE 900u
#define KEY "the key of it"

/* Shared with the nursery and the victims. */
static struct control {
    sem_t request, made, go;
    bool quit;
    pid_t pid;
    enum step_operation op;
    char socket[80], dir[96];
    int64_t position; /* of the reading ones */
    char text[512];   /* why it gave up */
} * control;

static pid_t nursery;

/* ---- in the victim ------------------------------------------------------------------------------------- */

/* What one operation needs; made before step_begin(), looked at after step_end(). */
struct work {
    enum step_operation op;
    struct step_source s;
    struct step_sink k;
    eagre_producer_t *more[BATCH];
    eagre_message_t m[BATCH];
    uint8_t values[BATCH][LARGE];
    uint64_t first; /* sequence of the first record */
    unsigned count;
    size_t seen;
    int64_t offset;
    int rc;
};

void step_begin(void) { __asm__ volatile("" ::: "memory"); }
void step_end(void) { __asm__ volatile("" ::: "memory"); }
void step_relax(void *ctx) { __asm__ volatile("" ::"r"(ctx) : "memory"); }

static _Noreturn void give_up(const char *what) {
    snprintf(control->text, sizeof(control->text), "%s: %s", what, eagre_error_detail());
    _exit(99);
}
#define MUST(call)                                                                                 \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            give_up(#call);                                                                        \
    } while (0)

static void prepare_records(struct work *v) {
    static const eagre_header_t header = {"name", 4, "of a header", 11};
    bool large = v->op == STEP_LARGE, batch = v->op == STEP_BATCH || v->op == STEP_ROTATE_BATCH;
    v->count = batch || v->op == STEP_CLAIMS ? BATCH : 1;
    v->first = history_next(&v->s.log);
    for (unsigned i = 0; i < v->count; i++) {
        size_t size = large ? LARGE : STEP_SMALL;
        const char *key = large ? KEY : NULL;
        size_t key_length = large ? strlen(KEY) : 0;
        uint64_t hash = history_fill(v->values[i], size, key, key_length,
                                     (struct history_id){v->s.id, 0, v->first + i});
        v->m[i] = (eagre_message_t){.key = key,
                                    .key_len = key_length,
                                    .value = v->values[i],
                                    .value_len = size,
                                    .headers = large ? &header : NULL,
                                    .header_count = large};
        if (batch)
            history_intend_batch(&v->s.log, 0, 0, hash, i, v->count);
        else
            history_intend(&v->s.log, 0, 0, hash);
    }
}

static void prepare(struct work *v) {
    switch (v->op) {
    case STEP_READ:
    case STEP_READ_NEXT:
        step_seek(&v->k, control->position - (v->op == STEP_READ ? 6 : 1));
        step_poll(&v->k, 1, 0);
        step_look_again(&v->k);
        return;
    case STEP_READ_FIRST:
        step_seek(&v->k, EAGRE_OFFSET_BEGINNING);
        return;
    case STEP_SLEEP:
        while (step_poll(&v->k, 32, 0) > 0) {}
        step_look_again(&v->k);
        return;
    case STEP_ROTATE_FULL:
        step_fill(&v->s, 0, step_relax, NULL);
        break;
    case STEP_ROTATE:
    case STEP_ROTATE_NEW:
    case STEP_ROTATE_BATCH:
        step_fill(&v->s, 128, step_relax, NULL); /* too little for us, enough for others */
        break;
    default:
        break;
    }
    prepare_records(v);
}

static void run(struct work *v) {
    eagre_claim_t claim;
    switch (v->op) {
    case STEP_BATCH:
    case STEP_ROTATE_BATCH:
        v->rc = eagre_produce_batch(v->s.p, 0, v->m, BATCH, &v->offset);
        break;
    case STEP_COMMIT:
    case STEP_ABORT:
        v->rc = eagre_producer_claim(v->s.p, 0, SIZE_MAX, STEP_SMALL, &claim);
        if (v->rc != EAGRE_OK)
            break;
        memcpy(claim.value, v->values[0], STEP_SMALL);
        v->offset = claim.offset;
        v->rc = v->op == STEP_COMMIT ? eagre_producer_commit(v->s.p, &claim)
                                     : eagre_producer_abort(v->s.p, &claim);
        break;
    case STEP_CLAIMS:
        for (unsigned i = 0; i < BATCH && v->rc == EAGRE_OK; i++)
            v->rc = eagre_producer_claim(v->more[i], 0, SIZE_MAX, STEP_SMALL, &claim);
        break;
    case STEP_READ:
    case STEP_READ_NEXT:
    case STEP_READ_FIRST:
        v->rc = eagre_consumer_poll(v->k.c, v->k.records, 4, 0, &v->seen);
        break;
    case STEP_SLEEP:
        v->rc = eagre_consumer_poll(v->k.c, v->k.records, 4, 2, &v->seen);
        break;
    default:
        v->rc = eagre_produce(v->s.p, &v->m[0], NULL, &v->offset);
        break;
    }
}

static void finish(struct work *v) {
    if (step_is_reader(v->op)) {
        if (v->rc != EAGRE_E_OFFSET_OUT_OF_RANGE && v->rc != EAGRE_OK)
            give_up("eagre_consumer_poll");
        step_came(&v->k, v->rc, v->seen);
        return;
    }
    MUST(v->rc);
    for (unsigned i = 0; i < v->count; i++)
        if (v->op == STEP_ABORT)
            history_aborted(&v->s.log, v->first + i);
        else if (v->op != STEP_CLAIMS)
            history_acked(&v->s.log, v->first + i, 0, v->offset + i);
}

static void open_victim(struct work *v, eagre_t *e) {
    if (step_is_reader(v->op)) {
        step_sink_open(&v->k, e, control->dir, STEP_READER);
        v->k.may_miss = true;
        if (v->op != STEP_READ_FIRST)
            step_seek(&v->k, control->position);
        return;
    }
    step_source_open(&v->s, e, control->dir, STEP_VICTIM);
    for (unsigned i = 0; v->op == STEP_CLAIMS && i < BATCH; i++)
        MUST(eagre_producer_open(e, STEP_TOPIC, NULL, &v->more[i]));
    if (v->op == STEP_ROTATE || v->op == STEP_ROTATE_FULL || v->op == STEP_ROTATE_BATCH)
        for (int i = 0; i < 3; i++) /* every buffer is mapped then */
            step_fill(&v->s, 0, step_relax, NULL);
    else if (v->op != STEP_CLAIMS)
        step_produce(&v->s, STEP_SMALL); /* it is in the active segment then */
}

static _Noreturn void victim(void) {
    static struct work v;
    eagre_t *e;
    while (sem_wait(&control->go) != 0) {}
    v.op = control->op;
    MUST(eagre_open(control->socket, &e));
    open_victim(&v, e);
    for (;;) {
        prepare(&v);
        step_begin();
        run(&v);
        step_end();
        finish(&v);
    }
}

/* ---- the nursery ----------------------------------------------------------------------------------------- */

static _Noreturn void run_nursery(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    syscall(SYS_close_range, 3u, ~0u,
            0u); /* the harness's guard waits for the end of one of them */
    for (;;) {
        while (sem_wait(&control->request) != 0) {}
        if (control->quit)
            _exit(0);
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            victim();
        }
        control->pid = pid;
        sem_post(&control->made);
    }
}

void step_nursery_open(void) {
    control =
        mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (control == MAP_FAILED || sem_init(&control->request, 1, 0) != 0 ||
        sem_init(&control->made, 1, 0) != 0 || sem_init(&control->go, 1, 0) != 0)
        fail_msg("no memory");
    nursery = fork();
    if (nursery == 0)
        run_nursery();
}

void step_nursery_close(void) {
    control->quit = true;
    sem_post(&control->request);
    eg_wait_exit(nursery);
    munmap(control, sizeof(*control));
}

/* ---- in the tracer --------------------------------------------------------------------------------------- */

const char *step_operation_name(enum step_operation op) {
    static const char *const names[] = {
#define X(id, name) name,
        STEP_OPERATIONS(X)
#undef X
    };
    return names[op];
}

void step_victim_position(int64_t offset) { control->position = offset; }

void step_victim_failed(struct trace *t) {
    fail_msg("%s: process %d ended: %s", step_when, (int)t->pid, control->text);
}

void step_victim_again(struct trace *t, struct step_world *w) {
    for (;;) {
        uint64_t at = trace_go(t, "a client to be where its operation begins");
        if (at == (uintptr_t)step_begin)
            return;
        if (at == 0)
            step_victim_failed(t);
        if (at == (uintptr_t)step_relax)
            step_drain(w);
    }
}

void step_victim_start(struct trace *t, struct step_world *w, enum step_operation op) {
    control->op = op;
    control->text[0] = '\0';
    snprintf(control->socket, sizeof(control->socket), "%s", w->bus.socket);
    snprintf(control->dir, sizeof(control->dir), "%s", w->dir);
    sem_post(&control->request);
    while (sem_wait(&control->made) != 0) {}
    trace_begin(t, control->pid);
    trace_break(t, (uintptr_t)step_begin);
    trace_break(t, (uintptr_t)step_relax);
    trace_break(t, (uintptr_t)step_end);
    sem_post(&control->go);
    step_victim_again(t, w);
}
