/* main.c - options and wiring. What the daemon does begins in services.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon.h"
#include "sigbus.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "systemd.h"

#define EXIT_USAGE 2

static void usage(FILE *f) {
    fputs("usage: eagred [--dir DIR] [--socket PATH] [--config FILE] [--NAME=VALUE ...]\n"
          "\n"
          "The daemon of the message bus Eagre, in the foreground. Log lines go to stderr.\n"
          "\n"
          "  --dir DIR         what must survive everything: topics, settings, offsets\n"
          "  --socket PATH     control socket; clients find it by $EAGRE_SOCKET\n"
          "  --config FILE     lines NAME=VALUE; flags win over it\n"
          "  --NAME=VALUE      a setting, as --memory.max=2G\n"
          "  --ready-fd N      write one byte to descriptor N once clients can connect, and close "
          "it\n"
          "  --help-config     all settings with their ranges and defaults\n"
          "  --help, --version\n"
          "\n"
          "Signals: SIGTERM, SIGINT stop it; SIGUSR2 stops it but keeps the memory for the next "
          "one.\n"
          "Exit status: 0 stopped as told, 1 failed (stderr says why), 2 wrong usage.\n",
          f);
}

struct options {
    const char *config_file;
    int ready_fd;
};

/* --name=value or --name value. Returns the value and moves *i on; NULL: argv[*i] is not that flag. */
static const char *flag_value(int argc, char **argv, int *i, const char *name) {
    size_t n = strlen(name);
    const char *arg = argv[*i];
    if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, n) != 0)
        return NULL;
    if (arg[2 + n] == '=')
        return arg + 3 + n;
    if (arg[2 + n] != '\0' || *i + 1 >= argc)
        return NULL;
    return argv[++*i];
}

/* settings NULL: look only for what comes before the settings; else apply those to it. */
static int parse(int argc, char **argv, struct options *o, struct eg_config *settings) {
    for (int i = 1; i < argc; i++) {
        const char *value;
        char name[64], where[72];
        if ((value = flag_value(argc, argv, &i, "config")) != NULL) {
            o->config_file = value;
            continue;
        }
        if ((value = flag_value(argc, argv, &i, "ready-fd")) != NULL) {
            o->ready_fd = atoi(value);
            if (o->ready_fd < 1)
                return eg_error_set(EAGRE_E_INVALID, "--ready-fd %s is no descriptor", value);
            continue;
        }
        size_t n = strcspn(argv[i], "=");
        if (strncmp(argv[i], "--", 2) != 0 || n < 3 || n - 2 >= sizeof(name))
            return eg_error_set(EAGRE_E_INVALID, "'%s' is not understood: see eagred --help",
                                argv[i]);
        snprintf(name, sizeof(name), "%.*s", (int)n - 2, argv[i] + 2);
        snprintf(where, sizeof(where), "--%s", name);
        value = flag_value(argc, argv, &i, name);
        if (value == NULL)
            return eg_error_set(EAGRE_E_INVALID, "%s needs a value: see eagred --help", where);
        if (settings != NULL) {
            int rc = eg_config_set(settings, where, name, value);
            if (rc != EAGRE_OK)
                return rc;
        }
    }
    return EAGRE_OK;
}

static int configure(int argc, char **argv, struct options *o, struct eg_config *c) {
    int rc = eg_config_init(c);
    if (rc == EAGRE_OK)
        rc = parse(argc, argv, o, NULL);
    if (rc == EAGRE_OK && o->config_file != NULL)
        rc = eg_config_load(c, o->config_file);
    if (rc == EAGRE_OK)
        rc = parse(argc, argv, o, c);
    return rc == EAGRE_OK ? eg_config_finish(c) : rc;
}

static void signal_ready(struct eg_daemon *d, struct eg_watch *w, uint32_t events) {
    struct signalfd_siginfo info;
    (void)events;
    if (read(w->fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGHUP)
        return;
    char why[64];
    snprintf(why, sizeof(why), "%s from pid %d", strsignal((int)info.ssi_signo), (int)info.ssi_pid);
    eg_daemon_stop(d, info.ssi_signo == SIGUSR2 ? EG_STOP_KEEP : EG_STOP_CLEAN, why);
}

static int watch_signals(struct eg_daemon *d, struct eg_watch *w) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGHUP); /* nothing to reload; a terminal that closes is no reason to end */
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* over RLIMIT_FSIZE: an error of the call is enough */
    w->ready = signal_ready;
    w->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (w->fd < 0)
        return eg_error_set(EAGRE_E_SYSTEM, "signalfd: %s", strerror(errno));
    return eg_loop_add(d->loop, w, EPOLLIN);
}

/* The keeper hands back a descriptor for each object, and each client costs some. */
static void raise_descriptor_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void tell_ready(int ready_fd) {
    eg_systemd_notify("READY=1");
    if (ready_fd < 0)
        return;
    ssize_t ignored = write(ready_fd, "\n", 1);
    (void)ignored;
    close(ready_fd);
}

static int run(struct eg_daemon *d, int ready_fd) {
    struct eg_watch signals;
    int rc = eg_loop_open(&d->loop);
    if (rc == EAGRE_OK)
        rc = watch_signals(d, &signals);
    if (rc == EAGRE_OK)
        rc = eg_sigbus_mend(d);
    if (rc == EAGRE_OK)
        rc = eg_services_start(d);
    if (rc != EAGRE_OK)
        return rc;
    eg_log_info("eagred %s listens on %s", EG_VERSION, d->config.socket);
    tell_ready(ready_fd);
    eg_loop_run(d);
    eg_systemd_notify("STOPPING=1");
    eg_services_stop(d, d->stop != EG_STOP_CLEAN);
    close(signals.fd);
    eg_loop_close(d->loop);
    return d->stop != EG_STOP_NOT ? EAGRE_OK
                                  : eg_error_set(EAGRE_E_SYSTEM, "the event loop has failed");
}

int main(int argc, char **argv) {
    static struct eg_daemon d; /* static: large, and zeros */
    struct options o = {.ready_fd = -1};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            return 0;
        }
        if (strcmp(argv[i], "--help-config") == 0) {
            eg_config_help(stdout);
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0) {
            puts("eagred " EG_VERSION);
            return 0;
        }
    }
    d.started_ns = eg_mono_ns();
    if (configure(argc, argv, &o, &d.config) != EAGRE_OK) {
        fprintf(stderr, "eagred: %s\n", eg_error_text());
        return EXIT_USAGE;
    }
    eg_log_set_level((enum eg_log_level)d.config.log_level);
    raise_descriptor_limit();
    if (run(&d, o.ready_fd) != EAGRE_OK) {
        eg_log_error("%s", eg_error_text());
        return 1;
    }
    return 0;
}
