/*
 * cli.h - what the sub-commands of `eagre` share: the table's entry, options, failures, exit codes.
 */
#ifndef EAGRE_TOOLS_CLI_H
#define EAGRE_TOOLS_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eagre/eagre.h"

/* Exit codes. Besides: 128 + the signal where one ended it (130: Ctrl-C, 141: nobody reads). */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NO_DAEMON = 3,
    CLI_NOT_FOUND = 4,
    CLI_REFUSED = 5,
};

struct cli {
    const struct cli_command *command; /* the one that runs */
    const char *socket;                /* NULL: the library's default */
    bool json;
};

struct cli_command {
    const char *name;                                 /* "topic list" */
    int (*run)(struct cli *c, int argc, char **argv); /* argv[0] is the command's last word */
    const char *arguments;
    const char *summary;
    const char *help;
};

extern const struct cli_command cli_commands[]; /* ends with a NULL name */

int cmd_up(struct cli *c, int argc, char **argv);
int cmd_down(struct cli *c, int argc, char **argv);
int cmd_status(struct cli *c, int argc, char **argv);
int cmd_topic_create(struct cli *c, int argc, char **argv);
int cmd_topic_alter(struct cli *c, int argc, char **argv);
int cmd_topic_delete(struct cli *c, int argc, char **argv);
int cmd_topic_list(struct cli *c, int argc, char **argv);
int cmd_topic_describe(struct cli *c, int argc, char **argv);
int cmd_topic_trim(struct cli *c, int argc, char **argv);
int cmd_topic_resume(struct cli *c, int argc, char **argv);
int cmd_group_list(struct cli *c, int argc, char **argv);
int cmd_group_describe(struct cli *c, int argc, char **argv);
int cmd_group_lag(struct cli *c, int argc, char **argv);
int cmd_group_members(struct cli *c, int argc, char **argv);
int cmd_group_delete(struct cli *c, int argc, char **argv);
int cmd_group_seek(struct cli *c, int argc, char **argv);
int cmd_produce(struct cli *c, int argc, char **argv);
int cmd_consume(struct cli *c, int argc, char **argv);
int cmd_replay(struct cli *c, int argc, char **argv);
int cmd_export(struct cli *c, int argc, char **argv);
int cmd_import(struct cli *c, int argc, char **argv);
int cmd_log_inspect(struct cli *c, int argc, char **argv);
int cmd_log_dump(struct cli *c, int argc, char **argv);
int cmd_log_verify(struct cli *c, int argc, char **argv);
int cmd_log_repair(struct cli *c, int argc, char **argv);

/* Long options: those of the command first, then these. */
#define CLI_OPTION_SOCKET 1000
#define CLI_OPTION_FORMAT 1001
#define CLI_COMMON_OPTIONS                                                                         \
    {"socket", required_argument, NULL, CLI_OPTION_SOCKET}, {"help", no_argument, NULL, 'h'}, {    \
        NULL, 0, NULL, 0                                                                           \
    }
#define CLI_FORMAT_OPTION                                                                          \
    { "format", required_argument, NULL, CLI_OPTION_FORMAT }

/* getopt_long that deals with the common options itself; `shorts` begins with ":" and has an "h".
 * Ends the program for --help and on usage errors. */
int cli_getopt(struct cli *c, int argc, char **argv, const char *shorts,
               const struct option *longs);

/* A message to stderr, "eagre: <command>: ..."; usage says how to get help and ends with CLI_USAGE. */
void cli_error(const struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_usage(const struct cli *c, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* What libeagre said about its last failure, and the exit code for it. */
int cli_fail(const struct cli *c, int status);
int cli_exit_code(int status);

/* Connect; 0, or an exit code after the message. */
int cli_open(const struct cli *c, eagre_t **out);

/* A whole decimal number within a range; else a usage error that names what it is for. */
int64_t cli_number(const struct cli *c, const char *what, const char *text, int64_t min,
                   int64_t max);

#endif
