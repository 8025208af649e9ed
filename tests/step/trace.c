#include "step/trace.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the processor --------------------------------------------------------------------------------- */

#if defined(__x86_64__)

#define SUPPORTED true
#define PC_AFTER_BREAK 1 /* int3 was executed: so much back */

static unsigned long with_break(unsigned long text) { return (text & ~0xfful) | 0xcc; }

#define REGISTER(t, name)                                                                          \
    ((uint64_t)ptrace(PTRACE_PEEKUSER, (t)->pid, offsetof(struct user, regs.name), 0))

uint64_t trace_pc(const struct trace *t) { return REGISTER(t, rip); }
uint64_t trace_result(const struct trace *t) { return REGISTER(t, rax); }
uint64_t trace_second_argument(const struct trace *t) { return REGISTER(t, rsi); }
uint64_t trace_return_address(const struct trace *t) { return trace_word(t, REGISTER(t, rsp)); }
static long set_pc(const struct trace *t, uint64_t pc) {
    return ptrace(PTRACE_POKEUSER, t->pid, offsetof(struct user, regs.rip), pc);
}

#else

#define SUPPORTED false
#define PC_AFTER_BREAK 0

static unsigned long with_break(unsigned long text) { return text; }

uint64_t trace_pc(const struct trace *t) { return t->pid == 0; }
uint64_t trace_result(const struct trace *t) { return t->pid == 0; }
uint64_t trace_second_argument(const struct trace *t) { return t->pid == 0; }
uint64_t trace_return_address(const struct trace *t) { return t->pid == 0; }
static long set_pc(const struct trace *t, uint64_t pc) { return t->pid == 0 && pc == 0; }

#endif

/* ---- asking the kernel ------------------------------------------------------------------------------- */

static const char *waited_for = "";

static _Noreturn void die(const struct trace *t, const char *what) {
    fprintf(stderr, "process %d: %s: %s\n", (int)t->pid, what, strerror(errno));
    exit(1);
}

static long ask(const struct trace *t, enum __ptrace_request request, uint64_t at, uint64_t data,
                const char *what) {
    errno = 0;
    long result = ptrace(request, t->pid, (void *)(uintptr_t)at, (void *)(uintptr_t)data);
    if (result == -1 && errno != 0)
        die(t, what);
    return result;
}

static void waited_in_vain(int signal_number) {
    static const char text[] = "waited in vain for: ";
    (void)signal_number;
    if (write(2, text, sizeof(text) - 1) < 0 || write(2, waited_for, strlen(waited_for)) < 0 ||
        write(2, "\n", 1) < 0)
        _exit(2);
    _exit(1); /* the harness's guard cleans up */
}

/* Until it stops or ends. False: it ended. */
static bool wait_stop(struct trace *t, const char *what) {
    int status;
    for (;;) {
        waited_for = what;
        alarm(TRACE_LIMIT_S);
        pid_t got = waitpid(t->pid, &status, __WALL);
        alarm(0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die(t, what);
        break;
    }
    if (!WIFSTOPPED(status))
        return false;
    /* Ours: traps of single steps and breakpoints, and PTRACE_EVENT_STOP. Its own: any other signal. */
    int s = WSTOPSIG(status);
    bool event = status >> 16 != 0;
    t->trapped = s == SIGTRAP && !event;
    t->signal = t->trapped || event ? 0 : s;
    return true;
}

bool trace_possible(const char **why) {
    *why = "this processor is not supported";
    if (!SUPPORTED)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    bool possible = ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL) == 0;
    if (!possible)
        *why = strerror(errno);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
    return possible;
}

void trace_begin(struct trace *t, pid_t pid) {
    *t = (struct trace){.pid = pid};
    signal(SIGALRM, waited_in_vain);
    ask(t, PTRACE_SEIZE, 0, PTRACE_O_EXITKILL, "PTRACE_SEIZE");
    trace_stop(t);
}

void trace_stop(struct trace *t) {
    ask(t, PTRACE_INTERRUPT, 0, 0, "PTRACE_INTERRUPT");
    if (!wait_stop(t, "a process to stop"))
        die(t, "it ended");
}

void trace_kill(struct trace *t, bool is_child) {
    siginfo_t info;
    kill(t->pid, SIGKILL);
    waited_for = "a process to die";
    alarm(TRACE_LIMIT_S);
    while (waitid(P_PID, (id_t)t->pid, &info, WEXITED | __WALL | (is_child ? WNOWAIT : 0)) != 0 &&
           errno == EINTR) {}
    alarm(0);
    *t = (struct trace){0};
}

/* ---- memory and text ------------------------------------------------------------------------------ */

uint64_t trace_word(const struct trace *t, uint64_t at) {
    return (uint64_t)ask(t, PTRACE_PEEKDATA, at, 0, "PTRACE_PEEKDATA");
}

static void write_text(const struct trace *t, uint64_t at, unsigned long text) {
    ask(t, PTRACE_POKETEXT, at, text, "PTRACE_POKETEXT");
}

/* Breakpoints may lie within one word of each other: change only our part. */
static void plant(struct trace *t, size_t i, bool set) {
    uint64_t at = t->breaks[i].at;
    unsigned long now = (unsigned long)ask(t, PTRACE_PEEKTEXT, at, 0, "PTRACE_PEEKTEXT");
    unsigned long changed = with_break(0) ^ with_break(~0ul); /* bits that stay */
    unsigned long to = set ? with_break(now) : (now & changed) | (t->breaks[i].text & ~changed);
    write_text(t, at, to);
}

void trace_break(struct trace *t, uint64_t at) {
    size_t free_one = TRACE_BREAKS;
    for (size_t i = 0; i < TRACE_BREAKS; i++) {
        if (t->breaks[i].at == at)
            return;
        if (t->breaks[i].at == 0)
            free_one = i;
    }
    if (free_one == TRACE_BREAKS)
        die(t, "too many breakpoints");
    t->breaks[free_one].at = at;
    t->breaks[free_one].text = (unsigned long)ask(t, PTRACE_PEEKTEXT, at, 0, "PTRACE_PEEKTEXT");
    plant(t, free_one, true);
}

void trace_unbreak(struct trace *t, uint64_t at) {
    for (size_t i = 0; i < TRACE_BREAKS; i++) {
        if (t->breaks[i].at != at || at == 0)
            continue;
        plant(t, i, false);
        t->breaks[i].at = 0;
    }
}

static size_t break_at(const struct trace *t, uint64_t at) {
    for (size_t i = 0; i < TRACE_BREAKS; i++)
        if (t->breaks[i].at == at)
            return i;
    return TRACE_BREAKS;
}

bool trace_has_break(const struct trace *t, uint64_t at) { return break_at(t, at) < TRACE_BREAKS; }

/* ---- going on ---------------------------------------------------------------------------------------- */

bool trace_step(struct trace *t) {
    size_t here = break_at(t, trace_pc(t));
    if (here < TRACE_BREAKS)
        plant(t, here, false);
    ask(t, PTRACE_SINGLESTEP, 0, (uint64_t)t->signal, "PTRACE_SINGLESTEP");
    if (!wait_stop(t, "an instruction to be done"))
        return false;
    if (here < TRACE_BREAKS)
        plant(t, here, true);
    return true;
}

void trace_run(struct trace *t) {
    ask(t, PTRACE_CONT, 0, (uint64_t)t->signal, "PTRACE_CONT");
    t->signal = 0;
}

bool trace_has_stopped(const struct trace *t) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)t->pid, &info, WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 &&
           info.si_pid == t->pid;
}

uint64_t trace_catch(struct trace *t, const char *what) {
    for (;;) {
        if (!wait_stop(t, what))
            return 0;
        uint64_t at = trace_pc(t) - PC_AFTER_BREAK;
        if (t->trapped && break_at(t, at) < TRACE_BREAKS) {
            if (set_pc(t, at) != 0)
                die(t, "cannot go back to the breakpoint");
            return at;
        }
        trace_run(t);
    }
}

uint64_t trace_go(struct trace *t, const char *what) {
    if (trace_has_break(t, trace_pc(t)) && !trace_step(t))
        return 0;
    trace_run(t);
    return trace_catch(t, what);
}

void trace_end(struct trace *t) {
    for (size_t i = 0; i < TRACE_BREAKS; i++)
        trace_unbreak(t, t->breaks[i].at);
    ask(t, PTRACE_DETACH, 0, (uint64_t)t->signal, "PTRACE_DETACH");
    *t = (struct trace){0};
}

/* ---- symbols ----------------------------------------------------------------------------------------- */

static uint64_t value_of(const uint8_t *file, const char *name, bool *relative) {
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)(const void *)file;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(const void *)(file + h->e_shoff);
    *relative = h->e_type == ET_DYN;
    for (unsigned i = 0; i < h->e_shnum; i++) {
        if (s[i].sh_type != SHT_SYMTAB)
            continue;
        const Elf64_Sym *symbols = (const Elf64_Sym *)(const void *)(file + s[i].sh_offset);
        const char *names = (const char *)file + s[s[i].sh_link].sh_offset;
        for (size_t k = 0; k < s[i].sh_size / sizeof(*symbols); k++)
            if (strcmp(names + symbols[k].st_name, name) == 0)
                return symbols[k].st_value;
    }
    return 0;
}

/* Where the program's first byte is mapped. */
static uint64_t base_of(pid_t pid, const char *program) {
    char name[40], line[4400], path[4096];
    uint64_t start, offset;
    snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(name, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "%" SCNx64 "-%*x %*4s %" SCNx64 " %*x:%*x %*u %4095s", &start, &offset,
                   path) == 3 &&
            offset == 0 && strcmp(path, program) == 0) {
            fclose(f);
            return start;
        }
    if (f != NULL)
        fclose(f);
    return 0;
}

uint64_t trace_symbol(pid_t pid, const char *name) {
    char link[40], program[4096];
    struct stat st;
    bool relative = false;
    uint64_t value = 0;
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
    ssize_t length = readlink(link, program, sizeof(program) - 1);
    int fd = open(link, O_RDONLY | O_CLOEXEC);
    if (length > 0 && fd >= 0 && fstat(fd, &st) == 0) {
        program[length] = '\0';
        void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED) {
            value = value_of(file, name, &relative);
            munmap(file, (size_t)st.st_size);
        }
        if (value != 0 && relative)
            value += base_of(pid, program);
    }
    if (fd >= 0)
        close(fd);
    return value;
}
