#include "torture/client.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "sys/atomic.h"
#include "sys/faultpoint.h"
#include "sys/rand.h"
#include "torture/points.h"

static char self[48]; /* who complains */

uint32_t torture_pick(struct torture_client *k, uint32_t n) {
    return (uint32_t)(eg_rand_next(&k->random) % n);
}

void torture_pause_us(uint32_t us) {
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000},
              NULL);
}

enum torture_phase torture_phase(const struct torture_client *k) {
    return (enum torture_phase)eg_load_acquire(&k->control->phase);
}

const char *torture_topic_name(char *buf, uint32_t topic) {
    (void)snprintf(buf, 16, "t%u", topic);
    return buf;
}

_Noreturn void torture_complain(const char *format, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    (void)fprintf(stderr, "torture: %s: %s\n", self, text);
    _exit(3);
}

bool torture_ok(int rc, const char *call) {
    if (rc == EAGRE_OK)
        return true;
    if (!eagre_status_is_retriable(rc))
        torture_complain("%s: %s: %s", call, eagre_status_name(rc), eagre_error_detail());
    torture_pause_us(500);
    return false;
}

void torture_client_main(int argc, char **argv) {
    static const char *const roles[] = {"producer", "consumer", "admin", "member"};
    struct torture_client k = {0};
    char path[512];
    if (argc < 7 || strcmp(argv[1], TORTURE_CLIENT) != 0)
        return;
    unsigned role = (unsigned)atoi(argv[2]);
    k.index = (uint32_t)atoi(argv[3]);
    k.dir = argv[4];
    k.random = strtoull(argv[5], NULL, 10);
    (void)snprintf(self, sizeof(self), "%s %u (pid %d)", roles[role], k.index, (int)getpid());
    (void)snprintf(path, sizeof(path), "%s/control", k.dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED
                        : mmap(NULL, sizeof(*k.control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        torture_complain("%s is not to be mapped", path);
    close(fd);
    k.control = page;
    torture_count_hits(k.control->hits);
    if (eg_fault_configure(argv[6]) != EAGRE_OK)
        torture_complain("%s", eagre_error_detail());
    while (!torture_ok(eagre_open(NULL, &k.e), "eagre_open"))
        if (torture_phase(&k) != TORTURE_RUN && role != TORTURE_CONSUMER && role != TORTURE_MEMBER)
            _exit(0);
    if (role == TORTURE_PRODUCER)
        torture_produce(&k);
    else if (role == TORTURE_CONSUMER)
        torture_consume(&k);
    else if (role == TORTURE_MEMBER)
        torture_be_member(&k);
    else
        torture_administer(&k);
    history_close(&k.log);
    int rc = eagre_close(k.e);
    if (rc != EAGRE_OK)
        torture_complain("eagre_close: %s: %s", eagre_status_name(rc), eagre_error_detail());
    exit(0); /* not _exit: for leak checks */
}
