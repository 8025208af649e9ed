/*
 * liveness.h - the witnesses of a process's death: its pidfd (or pid and start time), and the lock
 * on its client page. A client is dead only when both kinds agree; each function here errs towards
 * "alive" when it cannot tell.
 */
#ifndef EG_SYS_LIVENESS_H
#define EG_SYS_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* When the process started, in clock ticks since boot: with the pid it names a process for good. */
int eg_process_start_time(pid_t pid, uint64_t *ticks_out);

/*
 * A pidfd of the process that connected sock: exact where the kernel knows SO_PEERPIDFD (6.5), else
 * of whoever has the pid now, so compare start times. -1 with errno (ESRCH: gone); newer kernels
 * give a pidfd of a process that is gone, too, and the pidfd says so.
 */
int eg_pidfd_of_peer(int sock, pid_t pid);

/* Whether all threads of the process are gone (a zombie counts as gone). */
bool eg_pidfd_is_dead(int pidfd);

/* Without a pidfd, after a restart of the daemon: no process has this pid and start time. */
bool eg_process_is_gone(pid_t pid, uint64_t start_ticks);

/*
 * The client locks its page by a POSIX write lock on byte 0, to which the kernel holds on until the
 * process ends, execs a program that does not keep the file, or closes any descriptor of the file.
 * fd must be open for writing. EAGRE_E_BUSY if another process holds it. A fork child has it not.
 */
int eg_page_lock(int fd);

/* Whether no other process holds the lock (one's own is never seen). */
bool eg_page_lock_is_free(int fd);

#endif
