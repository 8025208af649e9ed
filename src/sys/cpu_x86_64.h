/* cpu_x86_64.h - see cpu.h, which includes this. */
#ifndef EG_SYS_CPU_X86_64_H
#define EG_SYS_CPU_X86_64_H

static inline void eg_cpu_pause(void) { __builtin_ia32_pause(); }

static inline void eg_prefetch_r(const void *p) { __builtin_prefetch(p, 0, 3); }

/* By hand, since compilers emit prefetchw only with -mprfchw; CPUs without it take it as a nop. */
static inline void eg_prefetch_w(const void *p) { __asm__ volatile("prefetchw (%0)" : : "r"(p)); }

/* Ordinary stores are ordered on x86; streaming ones are not until here. */
static inline void eg_store_fence(void) { __asm__ volatile("sfence" : : : "memory"); }

#endif
