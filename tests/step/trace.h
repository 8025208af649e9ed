/*
 * trace.h - another process, one instruction at a time (ptrace).
 *
 * All that knows the processor is in trace.c: where the program counter and a function's result are,
 * and what a breakpoint looks like. Breakpoints are written to the traced process' own copy of its
 * text. Nothing here waits for longer than TRACE_LIMIT_S: then the test ends, saying for what it waited.
 *
 * A process that is stopped by its tracer is as stopped as one is by SIGSTOP.
 */
#ifndef EG_TESTS_STEP_TRACE_H
#define EG_TESTS_STEP_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TRACE_LIMIT_S 60
#define TRACE_BREAKS 4

struct trace {
    pid_t pid;    /* 0: none */
    int signal;   /* to be delivered when it goes on */
    bool trapped; /* it stopped at a breakpoint or after a step, not for a signal */
    struct {
        uint64_t at; /* 0: unused */
        unsigned long text;
    } breaks[TRACE_BREAKS];
};

/* Can this process trace its children here? If not, why. */
bool trace_possible(const char **why);

/* Stop it and trace it; it dies with this process. */
void trace_begin(struct trace *t, pid_t pid);
/* Let it go on untraced, breakpoints removed. */
void trace_end(struct trace *t);
/* SIGKILL, and wait until it is dead. A child's exit status is left for who waits for the child. */
void trace_kill(struct trace *t, bool is_child);
/* Stop it, wherever it is (after trace_run). */
void trace_stop(struct trace *t);

uint64_t trace_pc(const struct trace *t);
/* What the function that has just returned returned. */
uint64_t trace_result(const struct trace *t);
/* At the first instruction of a function: where it will return to, and its second argument. */
uint64_t trace_return_address(const struct trace *t);
uint64_t trace_second_argument(const struct trace *t);
/* A word of its memory. */
uint64_t trace_word(const struct trace *t, uint64_t at);

/* One instruction. False: the process ended. */
bool trace_step(struct trace *t);
void trace_break(struct trace *t, uint64_t at);
void trace_unbreak(struct trace *t, uint64_t at);
bool trace_has_break(const struct trace *t, uint64_t at);
/* On to the next breakpoint (one at the present place does not count). Its address; 0: it ended. */
uint64_t trace_go(struct trace *t, const char *what);
/* On, without waiting; and wait, as trace_go does, for the breakpoint that it runs to. */
void trace_run(struct trace *t);
bool trace_has_stopped(const struct trace *t); /* since trace_run */
uint64_t trace_catch(struct trace *t, const char *what);

/* Where a function of the program that pid runs is, from the program's .symtab; 0: not there. */
uint64_t trace_symbol(pid_t pid, const char *name);

#endif
