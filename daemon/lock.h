/*
 * lock.h - the files beside the socket.
 */
#ifndef EG_LOCK_H
#define EG_LOCK_H

#include <stddef.h>
#include <sys/types.h>

struct eg_config;

void eg_socket_directory(const char *socket, char *buf, size_t cap);
/* Path of a file beside the socket: its name goes on with this. */
void eg_side_path(const struct eg_config *c, const char *suffix, char *buf, size_t cap);
int eg_pid_file_write(const char *path, pid_t pid);
/* Only if it names this pid. */
void eg_pid_file_remove(const char *path, pid_t pid);

#endif
