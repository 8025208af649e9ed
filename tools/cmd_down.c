/* eagre down: end the daemon, and return when it is gone. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli.h"
#include "eagre/admin.h"

#define GONE_LIMIT_MS 60000

/* A pidfd of the process, if it is one of that name: a daemon in a container tells the pid that it
 * has there. -1: not found. */
static int find_process(long pid, const char *name) {
    char path[64];
    char comm[32] = "";
    if (pid <= 0)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (fd < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
    FILE *f = fopen(path, "re");
    if (f != NULL) {
        if (fgets(comm, sizeof(comm), f) != NULL)
            comm[strcspn(comm, "\n")] = '\0';
        fclose(f);
    }
    if (strcmp(comm, name) == 0)
        return fd;
    close(fd);
    return -1;
}

static long keeper_pid(eagre_t *e) {
    eagre_status_entry_t *entries;
    size_t n;
    long pid = 0;
    if (eagre_daemon_status(e, &entries, &n) != EAGRE_OK)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (strcmp(entries[i].name, "keeper.pid") == 0)
            pid = atol(entries[i].value);
    free(entries);
    return pid;
}

static int wait_until_gone(const struct cli *c, const char *name, long pid, int pidfd) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;
    if (pidfd < 0)
        return CLI_OK;
    do
        n = poll(&p, 1, GONE_LIMIT_MS);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return CLI_OK;
    cli_error(c, "%s (pid %ld) has been told to end, and is still there after %d s", name, pid,
              GONE_LIMIT_MS / 1000);
    return CLI_FAILED;
}

int cmd_down(struct cli *c, int argc, char **argv) {
    static const struct option longs[] = {{"keep-memory", no_argument, NULL, 'k'},
                                          CLI_COMMON_OPTIONS};
    bool keep = false;
    eagre_t *e;

    while (cli_getopt(c, argc, argv, ":h", longs) != -1)
        keep = true;
    if (optind < argc)
        cli_usage(c, "'%s' is one argument too many", argv[optind]);
    int code = cli_open(c, &e);
    if (code != CLI_OK)
        return code;
    long pid = eagre_daemon_pid(e);
    long keeper = keeper_pid(e);
    int pidfd = find_process(pid, "eagred");
    int keeper_fd = find_process(keeper, "eagre-keeper");
    int rc = eagre_daemon_shutdown(e, keep);
    /* It may close the connection instead of answering: that is an answer. */
    if (rc != EAGRE_OK && rc != EAGRE_E_NO_DAEMON)
        code = cli_fail(c, rc);
    if (code == CLI_OK)
        code = wait_until_gone(c, "eagred", pid, pidfd);
    if (code == CLI_OK && !keep)
        code = wait_until_gone(c, "eagre-keeper", keeper, keeper_fd);
    if (code == CLI_OK && keep && keeper > 0)
        printf("eagred (pid %ld) has ended; eagre-keeper (pid %ld) keeps the memory\n", pid,
               keeper);
    else if (code == CLI_OK)
        printf("eagred (pid %ld) has ended\n", pid);
    eagre_close(e);
    if (pidfd >= 0)
        close(pidfd);
    if (keeper_fd >= 0)
        close(keeper_fd);
    return code;
}
