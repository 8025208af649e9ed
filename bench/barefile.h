/*
 * barefile.h - what a disk does for a program that does nothing else: bytes written to preallocated files
 * one after the other, and flushed.
 */
#ifndef EB_BAREFILE_H
#define EB_BAREFILE_H

#include "harness.h"

struct eb_barefile {
    char path[128]; /* on the file system of the daemon's log files */
    uint64_t file;  /* bytes of a file; each is made (and the last one removed) when it is needed */
    uint64_t chunk; /* bytes of a write */
    uint64_t flush; /* bytes between two flushes; chunk: each write is flushed */
    uint64_t total; /* bytes to write; 0: for `seconds` */
    double seconds;
};

/* In the file system where the daemon of b has its files. */
void eb_barefile_init(struct eb_bench *b, struct eb_barefile *f);

/* A worker; arg: struct eb_barefile. value: nanoseconds, bytes, CPU time. Its histogram has the flushed writes. */
eb_worker_fn eb_barefile_worker;
enum eb_barefile_value { EB_FILE_NS, EB_FILE_BYTES, EB_FILE_CPU_NS };

#endif
