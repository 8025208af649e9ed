#include "fuzz/watch.h"

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "fuzz/fuzz.h"

#define TRAP_FLAG 0x100

static struct {
    uint8_t *at;
    size_t bytes;
    int protection; /* when it is not taken away */
    bool away;
} watched[WATCH_MAX];
static size_t count;
static bool active;
static void (*access_hook)(void);
static struct sigaction fault_before, trap_before;

static void protect(size_t i, bool away) {
    FUZZ_REQUIRE(
        mprotect(watched[i].at, watched[i].bytes, away ? PROT_NONE : watched[i].protection) == 0);
    watched[i].away = away;
}

static void protect_all(bool away) {
    for (size_t i = 0; i < count; i++)
        if (watched[i].away != away)
            protect(i, away);
}

void watch_add(void *at, size_t bytes, bool writable) {
    size_t i = 0;
    while (i < count && watched[i].at != at)
        i++;
    FUZZ_REQUIRE(i < WATCH_MAX);
    watched[i].at = at;
    watched[i].bytes = bytes;
    watched[i].protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    watched[i].away = false;
    if (i == count)
        count++;
    if (active)
        protect(i, true);
}

#if defined(__x86_64__)
static void on_fault(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    const uint8_t *at = info->si_addr;
    for (size_t i = 0; i < count; i++) {
        if (at < watched[i].at || at >= watched[i].at + watched[i].bytes)
            continue;
        if (!watched[i].away)
            break; /* it may not do that, watched or not */
        if ((c->uc_mcontext.gregs[REG_EFL] & TRAP_FLAG) == 0)
            access_hook(); /* else one instruction touches two of them */
        protect(i, false);
        c->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
        return;
    }
    /* An access that it should not make: as if we were not there. */
    (void)number;
    protect_all(false);
    (void)sigaction(SIGSEGV, &fault_before, NULL);
    c->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static void on_step(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    (void)number;
    (void)info;
    c->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    protect_all(true);
}

void watch_begin(void (*on_access)(void)) {
    if (!WATCH_WORKS)
        return;
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    access_hook = on_access;
    FUZZ_REQUIRE(sigaction(SIGSEGV, &fault, &fault_before) == 0 &&
                 sigaction(SIGTRAP, &step, &trap_before) == 0);
    active = true;
    protect_all(true);
}

void watch_end(void) {
    if (!active)
        return;
    protect_all(false);
    active = false;
    (void)sigaction(SIGSEGV, &fault_before, NULL);
    (void)sigaction(SIGTRAP, &trap_before, NULL);
}
#else
void watch_begin(void (*on_access)(void)) { access_hook = on_access; }
void watch_end(void) {}
#endif

void watch_forget(void) { count = 0; }
