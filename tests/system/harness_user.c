#include "harness_user.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

void eg_bus_open_to_all(const struct eg_test_bus *b) {
    char path[sizeof(b->dir)];
    strcpy(path, b->dir);
    chmod(path, 0711);
    *strrchr(path, '/') = '\0'; /* mkdtemp's */
    chmod(path, 0711);
}

/* What the test has mapped is not this user's. */
static void drop_inherited(void) {
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        uintptr_t from, to;
        if (strstr(line, "/memfd:eagre") != NULL &&
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2)
            munmap((void *)from, to - from);
    }
    if (f != NULL)
        fclose(f);
}

pid_t eg_start_as_user(uid_t uid, int (*f)(void *ctx), void *ctx, int in, int out) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    int copies[2] = {in < 0 ? -1 : fcntl(in, F_DUPFD, 100), out < 0 ? -1 : fcntl(out, F_DUPFD, 100)};
    for (int i = 0; i < 2; i++)
        if (copies[i] < 0 || dup2(copies[i], 3 + i) != 3 + i)
            close(3 + i);
    syscall(SYS_close_range, 5u, ~0u, 0u); /* the harness's guard waits for the end of one of them */
    if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
        _exit(99);
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure ends the child; it does not go on with the other tests */
    prctl(PR_SET_DUMPABLE, 1);         /* as any program that this user starts */
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* and not to be left behind */
    drop_inherited();
    int status = f(ctx);
    fflush(NULL);
    _exit(status);
}

int eg_as_user_status(uid_t uid, int (*f)(void *ctx), void *ctx) {
    return eg_wait_exit(eg_start_as_user(uid, f, ctx, -1, -1));
}

void eg_as_user(uid_t uid, int (*f)(void *ctx), void *ctx) {
    int status = eg_as_user_status(uid, f, ctx);
    if (status != 0)
        fail_msg("as user %u: %d", (unsigned)uid, status);
}
