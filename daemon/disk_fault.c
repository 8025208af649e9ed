#include "disk_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sys/errbuf.h"

#ifdef EG_FAULTPOINTS

#include <stdio.h>

#define FAULTS_MAX 8

static struct fault {
    int op; /* 0: any */
    int error;
    unsigned long at, seen;
    bool on;
} faults[FAULTS_MAX];
static size_t count;

static bool parse(const char *text, struct fault *f) {
    char op[16], error[16], more[3] = "";
    unsigned long at = 1;
    int n = sscanf(text, "%15[a-z]:%15[A-Z]@%lu%2s", op, error, &at, more);
    if (n < 2 || at == 0 || (more[0] != '\0' && strcmp(more, "+") != 0))
        return false;
    *f = (struct fault){.at = at, .on = more[0] == '+'};
    f->op = strcmp(op, "write") == 0 ? EG_IO_WRITE : strcmp(op, "fdatasync") == 0 ? EG_IO_DATASYNC
            : strcmp(op, "writeback") == 0 ? EG_IO_WRITEBACK
                                           : 0;
    f->error = strcmp(error, "EIO") == 0 ? EIO : strcmp(error, "ENOSPC") == 0 ? ENOSPC : strcmp(error, "EDQUOT") == 0 ? EDQUOT : 0;
    return f->error != 0 && (f->op != 0 || strcmp(op, "any") == 0);
}

int eg_disk_fault_init(void) {
    const char *text = getenv("EAGRE_DISK_FAULT");
    char one[64];
    count = 0;
    while (text != NULL && *text != '\0') {
        size_t n = strcspn(text, ",");
        snprintf(one, sizeof(one), "%.*s", (int)n, text);
        if (count == FAULTS_MAX || !parse(one, &faults[count]))
            return eg_error_set(EAGRE_E_INVALID, "EAGRE_DISK_FAULT: '%s' is not understood: op:error[@n[+]]", one);
        count++;
        text += n + (text[n] == ',');
    }
    return EAGRE_OK;
}

int eg_disk_fault(const struct eg_io_job *job) {
    for (size_t i = 0; i < count; i++) {
        struct fault *f = &faults[i];
        if (job->op == EG_IO_CALL || (f->op != 0 && f->op != (int)job->op))
            continue;
        f->seen++;
        if (f->seen == f->at || (f->on && f->seen > f->at))
            return f->error;
    }
    return 0;
}

#else

int eg_disk_fault_init(void) { return EAGRE_OK; }
int eg_disk_fault(const struct eg_io_job *job) {
    (void)job;
    return 0;
}

#endif
