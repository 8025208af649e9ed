/*
 * cpu.h - what differs between CPUs: pause, prefetch, zeroing past the cache.
 *
 * From cpu_<arch>.h, all inline:
 *   void eg_cpu_pause(void)             in spin loops: yields the core's resources for a moment
 *   void eg_prefetch_r(const void *p)   p will be read soon
 *   void eg_prefetch_w(const void *p)   p will be written soon: fetch its cache line as exclusive
 *   void eg_store_fence(void)           orders streaming stores before later stores
 * The prefetches never fault, whatever p is.
 */
#ifndef EG_SYS_CPU_H
#define EG_SYS_CPU_H

#include <stddef.h>

#define EG_CACHE_LINE 64

#if defined(__x86_64__)
#include "sys/cpu_x86_64.h"
#elif defined(__aarch64__)
#include "sys/cpu_aarch64.h"
#else
#error "Eagre runs on x86-64 and AArch64"
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Eagre's shared memory format is little-endian"
#endif

/*
 * Zero n bytes at dst, both multiples of EG_CACHE_LINE, without pulling them into this CPU's
 * cache. All of it is visible to whoever acquires a release store that follows the call.
 */
void eg_zero_stream(void *dst, size_t n);

#endif
