/*
 * watch.h - do something between any two accesses of this thread to memory that others may change.
 *
 * Watched memory is taken away (PROT_NONE). Each access to it faults; the handler calls on_access(), lets the
 * one instruction run (with the trap flag), and takes the memory away again. So "at the k-th access" is the
 * same place at each run, in any build, between any two loads. x86-64 only: elsewhere nothing is watched.
 */
#ifndef EG_TESTS_FUZZ_WATCH_H
#define EG_TESTS_FUZZ_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define WATCH_WORKS true
#else
#define WATCH_WORKS false /* ThreadSanitizer has its own way with signals */
#endif

#define WATCH_MAX 40

/* Also once it is watched: what is mapped anew in its place is watched again. */
void watch_add(void *at, size_t bytes, bool writable);
void watch_begin(void (*on_access)(void));
void watch_end(void);
void watch_forget(void); /* all that was added */

#endif
