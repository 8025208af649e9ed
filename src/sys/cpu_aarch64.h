/* cpu_aarch64.h - see cpu.h, which includes this. */
#ifndef EG_SYS_CPU_AARCH64_H
#define EG_SYS_CPU_AARCH64_H

/* isb rather than yield: yield is a nop on cores without SMT, and a spin loop wants to wait. */
static inline void eg_cpu_pause(void) { __asm__ volatile("isb" : : : "memory"); }

static inline void eg_prefetch_r(const void *p) { __builtin_prefetch(p, 0, 3); }

/* prfm pstl1keep */
static inline void eg_prefetch_w(const void *p) { __builtin_prefetch(p, 1, 3); }

/* dc zva and plain stores are ordinary stores here: a store-store barrier orders them. */
static inline void eg_store_fence(void) { __asm__ volatile("dmb ishst" : : : "memory"); }

#endif
