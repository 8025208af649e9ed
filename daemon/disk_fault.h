/*
 * disk_fault.h - errors of a disk that has none, for tests: EAGRE_DISK_FAULT=op:error[@n[+]], comma separated. op is
 * write, fdatasync, writeback or any; error ENOSPC, EIO or EDQUOT; n: the n-th such job (1), with + each from then on. Only in builds with
 * fault points.
 */
#ifndef EG_DISK_FAULT_H
#define EG_DISK_FAULT_H

#include "disk_io.h"

int eg_disk_fault_init(void); /* EAGRE_E_INVALID: what the variable says is not understood */
/* 0, or the error that this job is to end with instead of being done. */
int eg_disk_fault(const struct eg_io_job *job);

#endif
