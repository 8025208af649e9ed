/* eagre - the command line. This file: the table of commands, their options in common. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

const struct cli_command cli_commands[] = {
    {"up", cmd_up, "[--dir DIR] [-c NAME=VALUE]...", "start a daemon in the background",
     "Starts eagred for this user unless one answers at the socket already. Prints the socket\n"
     "and the daemon's pid once it can be used. What it has to say goes to DIR/eagred.log.\n\n"
     "      --dir DIR          where topics are remembered (root: /var/lib/eagre, else\n"
     "                         $XDG_DATA_HOME/eagre or ~/.local/share/eagre)\n"
     "      --config FILE      passed on to eagred\n"
     "  -c, --set NAME=VALUE   an eagred setting (eagred --help-config lists them); repeatable\n"},
    {"down", cmd_down, "[--keep-memory]", "stop the daemon",
     "Stops eagred and its keeper and returns when they are gone. Records of memory topics are\n"
     "gone with them.\n\n"
     "      --keep-memory      only eagred ends: its keeper holds the memory for the next one\n"},
    {"status", cmd_status, "[--format text|json]", "tell how the daemon is",
     "Prints the daemon's state as names and values.\n\n"
     "      --format text|json\n"},
    {"topic create", cmd_topic_create, "NAME... [-p N] [-c NAME=VALUE]...", "create topics",
     "  -p, --partitions N     number of partitions (default 1)\n"
     "  -c, --config NAME=VALUE  a setting, as segment.bytes=64M; repeatable\n"},
    {"topic list", cmd_topic_list, "[--format text|json]", "list topics",
     "      --format text|json\n"},
    {"topic describe", cmd_topic_describe, "NAME... [--format text|json]",
     "show settings and partitions", "      --format text|json\n"},
    {"topic alter", cmd_topic_alter, "NAME... [-p N] [-c NAME=VALUE]...",
     "change settings, add partitions",
     "  -p, --partitions N     the new number of partitions; it can only grow\n"
     "  -c, --config NAME=VALUE  a setting; repeatable\n"},
    {"topic delete", cmd_topic_delete, "NAME...", "delete topics and their records", ""},
    {"topic trim", cmd_topic_trim, "NAME -p N --before OFFSET|end", "delete a partition's old records",
     "The log of the partition begins at OFFSET from then on (Kafka's DeleteRecords); `end` is as far\n"
     "as it is on disk. Files go when no record in them is left. storage=disk only.\n\n"
     "  -p, --partition N\n"
     "      --before OFFSET|end\n"},
    {"topic resume", cmd_topic_resume, "NAME [-p N]", "go on after a failed write to disk",
     "A partition whose log file could not be written or flushed acknowledges nothing as durable any\n"
     "more. When the medium is sound: reads what was acknowledged again and writes the rest again\n"
     "from memory. `eagre topic describe` and the daemon's log tell the outcome.\n\n"
     "  -p, --partition N      this one (default: all that failed)\n"},
    {"group list", cmd_group_list, "[--format text|json]", "list consumer groups",
     "STATE is Empty (no members; its offsets stay), Rebalancing or Stable.\n\n"
     "      --format text|json\n"},
    {"group describe", cmd_group_describe, "[GROUP]... [--format text|json]",
     "show committed offsets, lag and whose the partitions are",
     "A line a partition, as kafka-consumer-groups.sh prints it. Without a name: all groups. JSON has the\n"
     "members, the assignor, the time and the metadata of each commit, too.\n\n"
     "      --format text|json\n"},
    {"group lag", cmd_group_lag, "[GROUP]... [--format text|json]", "show how far groups are behind",
     "A line a topic: records that are in the log and not committed yet. Partitions of which nothing was\n"
     "committed are counted in WITHOUT-OFFSET alone. Without a name: all groups.\n\n"
     "      --format text|json\n"},
    {"group members", cmd_group_members, "[GROUP]... [--format text|json]", "show who is in groups",
     "Without a name: all groups.\n\n"
     "      --format text|json\n"},
    {"group seek", cmd_group_seek, "GROUP [--topic T[:P[,P]...]]... --to WHERE|--shift N|--from-file FILE [OPTION]...",
     "set the committed offsets of a group",
     "Prints the new offsets. Refuses (exit code 5) while the group has members. A group that is not there yet is\n"
     "made, if topics are named.\n\n"
     "      --topic T[:P[,P]...]  this topic, or these partitions of it; repeatable. Default: all partitions\n"
     "                         of the topics that the group has offsets of\n"
     "      --to beginning|end|OFFSET|@TIME   @TIME: the first record that is not older; see consume\n"
     "      --to current       leave them as they are: for --export\n"
     "      --shift N          N records on (-N: back) from what is committed\n"
     "      --from-file FILE   lines topic,partition,offset, as --export prints them ('-': standard input)\n"
     "      --dry-run          say what would be done\n"
     "      --export           print topic,partition,offset instead of a table\n"
     "      --format text|json\n\n"
     "What is out of a log's range is set to its beginning or end, and said.\n"},
    {"group delete", cmd_group_delete, "GROUP...", "delete groups with their offsets",
     "Refuses (exit code 5) while a group has members.\n\n"},
    {"produce", cmd_produce, "TOPIC [FILE]...", "send lines as records",
     "Sends each line of the files (or of standard input, which is also meant by '-') as one\n"
     "record. Empty lines are skipped. Stops at the first record that is refused and says how\n"
     "many were sent before.\n\n"
     "  -p, --partition N      to this partition (default, and -1: by key, else whichever)\n"
     "  -k, --key KEY          key of all records\n"
     "  -K DELIM               lines are KEY DELIM VALUE; one without DELIM has no key, or -k's\n"
     "  -D DELIM               records end with DELIM instead of a newline\n"
     "  -H NAME=VALUE          a header of all records (NAME alone: a null value); repeatable\n"
     "  -Z                     empty lines, values and keys are sent as null\n"
     "  -c, --count N          stop after N records\n"
     "      --acks memory|disk when a record counts as sent: when it can be read (default), or when\n"
     "                         it is on disk and fsynced, too\n"
     "  -q                     no progress\n\n"
     "DELIM may have \\n \\r \\t \\\\ \\0 and \\xNN in it, and more than one byte.\n"},
    {"consume", cmd_consume, "TOPIC...", "print records",
     "Prints the records of the topics, and goes on with new ones until it is interrupted.\n\n"
     "  -p, --partition N      of this partition only; repeatable\n"
     "  -o, --offset WHERE     beginning (default), end, OFFSET, -N: N records before the end of\n"
     "                         each partition, or @TIME (s@TIME): the first that is not older;\n"
     "                         besides, e@TIME: stop before the first that is not older\n"
     "  -g, --group GROUP      as a member of this consumer group; see below\n"
     "      --isolation published|durable   durable: only what is on disk and fsynced\n"
     "  -e                     exit when the end of every partition has been reached\n"
     "  -c, --count N          exit after N records\n"
     "  -f FORMAT              how to print a record (see below)\n"
     "  -J                     print a JSON object a record\n"
     "  -K DELIM               print KEY DELIM before the value\n"
     "  -D DELIM               print DELIM after the record instead of a newline\n"
     "  -Z                     print null keys and values as NULL instead of nothing\n"
     "  -u                     unbuffered: write each record at once\n"
     "  -q                     no progress, no notes\n\n"
     "FORMAT:\n"
     "  %t topic     %p partition   %o offset     %T timestamp, ms since the epoch\n"
     "  %k key       %s value       %h headers (name=value, comma-separated)\n"
     "  %K and %S    length of key and value in bytes, -1 for null\n"
     "  %R           %S as 4 bytes, big-endian     %%  a percent sign\n"
     "  \\n \\r \\t \\\\ \\0 \\xNN as in C\n\n"
     "TIME: milliseconds since the epoch, -1h (ms, s, m, h, d) before now, or 2025-01-31T12:00:00Z\n"
     "(without a zone: local).\n\n"
     "GROUPS: the members of a group share the partitions of their topics, each goes on where the group\n"
     "has got to, and what was printed is committed at once. A TOPIC that begins with '^' is a regular\n"
     "expression: all topics that match, also later ones. Not with -p, nor with -o OFFSET, -N or @TIME:\n"
     "`eagre group seek` moves a group.\n"
     "  -o beginning|end       where to begin in a partition of which the group has no offset (beginning)\n"
     "      --group-type consumer|share   share: a queue; all members read all partitions, each record goes\n"
     "                         to one of them\n"
     "      --strategy LIST    range, roundrobin, cooperative-sticky (default), numa; several with commas\n"
     "      --instance-id ID   a static member: its partitions wait for it for a while when it ends\n"
     "      --session-timeout-ms N   for so long (default 45000)\n"
     "      --client-id ID     what others see of it (default: eagre)\n"
     "      --max-poll-interval-ms N   who cannot print for so long, as its reader does not read, is put out\n"
     "                         of the group (default 300000)\n\n"
     "JSON: topic, partition, offset, tstype, ts (ms), ts_ns, headers (name, value, name, ... as\n"
     "kcat's), key and payload. What is not UTF-8 appears as key_base64, payload_base64, or\n"
     "{\"base64\": ...} in headers.\n"},
    {"replay", cmd_replay, "TOPIC --to OTHER [OPTION]...", "send records again, at their pace",
     "Copies the records that TOPIC has now to OTHER, which must exist: key, value, headers, timestamp\n"
     "and partition, in the order of their timestamps, as far apart as those are.\n\n"
     "      --to OTHER\n"
     "      --speed X|max      X times as fast (default 1.0); max: as fast as it goes\n"
     "      --from @TIME       from the first record that is not older\n"
     "      --to-time @TIME    up to the first that is not older, which is not copied\n"
     "      --acks memory|disk as for produce\n"
     "  -q                     no progress\n\n"
     "TIME as for consume.\n"},
    {"export", cmd_export, "TOPIC [-p N]... FILE", "records to a portable file",
     "Writes the records that the topic has now to FILE ('-': standard output), with all that they\n"
     "have. eagre(1) describes the format.\n\n"
     "  -p, --partition N      of this partition only; repeatable\n"
     "  -q                     no progress\n"},
    {"import", cmd_import, "TOPIC FILE", "records from a portable file",
     "Appends the records of FILE ('-': standard input), as `eagre export` wrote them, to the same\n"
     "partitions of the topic: key, value, headers and timestamp. Their offsets are new. Stops where\n"
     "the file is damaged or cut off, and says how many records were sent before.\n\n"
     "      --acks memory|disk as for produce\n"
     "  -q                     no progress\n"},
    {"log inspect", cmd_log_inspect, "PATH...|--keeper SOCKET [TOPIC-ID]... [--format text|json]",
     "show log files, or the memory of a dead daemon",
     "Works on files, with or without a daemon. PATH: a data directory, a topic's or a partition's\n"
     "directory in it, or log files. A line a segment: its offsets, records, times and state.\n"
     "Topics are known by their ids here: `eagre topic list --format json` tells them (uid).\n\n"
     "      --keeper SOCKET    instead: what is in memory after a crash of the daemon that had this\n"
     "                         socket, before another one starts; also claims that were left open.\n"
     "                         TOPIC-ID: as t3, or t3/0 for its partition 0 (default: all)\n"
     "      --format text|json\n"},
    {"log dump", cmd_log_dump, "PATH...|--keeper SOCKET [TOPIC-ID]... [OPTION]...",
     "print the records of log files, or of a dead daemon's memory",
     "Works on files, with or without a daemon. Records behind damage are printed, too; what is\n"
     "missing is said on standard error, and the exit code is 1 then.\n\n"
     "      --keeper SOCKET    as for `eagre log inspect`\n"
     "  -o, --offset OFFSET    from this offset on\n"
     "  -c, --count N          stop after N records\n"
     "  -f, -J, -K, -D, -Z     how to print them, as `eagre consume` does; the topic is its id\n"},
    {"log verify", cmd_log_verify, "PATH...|--keeper SOCKET [TOPIC-ID]... [--format text|json]",
     "check log files, or a dead daemon's memory",
     "Works on files. Checks every record's CRC, that segments and offsets follow each other, and\n"
     "that indexes lead to where they say. Exit code 0: all is well; 1: something is not.\n\n"
     "      --keeper SOCKET    as for `eagre log inspect`\n"
     "      --format text|json\n"},
    {"log repair", cmd_log_repair, "PATH... [--yes]", "put log files right, with the daemon down",
     "Makes indexes anew, cuts the tail that a crash tore, and puts damaged files aside (renamed to\n"
     ".log.damaged). Says what it would do; --yes does it. Refuses where a daemon is at work.\n\n"
     "      --yes              do it\n"},
    {NULL, NULL, NULL, NULL, NULL},
};

static void print_help(void) {
    printf("usage: eagre [--socket PATH] COMMAND [ARGUMENT]...\n\n"
           "Kafka's model for the processes of one host, over shared memory.\n\n");
    for (const struct cli_command *c = cli_commands; c->name != NULL; c++)
        printf("  %-15s %s\n", c->name, c->summary);
    printf("\n`eagre COMMAND --help` tells more. The socket is that of --socket, else of\n"
           "$EAGRE_SOCKET, else the user's own.\n\n"
           "Exit codes: 0 done; 1 input/output or other failure; 2 wrong usage; 3 no daemon\n"
           "answers; 4 no such topic, partition or group; 5 refused (not permitted, exists\n"
           "already, in use, invalid setting, a limit); 128 + N ended by signal N.\n");
}

static void print_command_help(const struct cli_command *c) {
    printf("usage: eagre %s %s\n\n%s      --socket PATH      the daemon's socket\n  -h, --help\n",
           c->name, c->arguments, c->help);
}

void cli_error(const struct cli *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fflush(stdout);
    if (c->command != NULL)
        fprintf(stderr, "eagre: %s: ", c->command->name);
    else
        fprintf(stderr, "eagre: ");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void cli_usage(const struct cli *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const char *name = c->command == NULL ? NULL : c->command->name;
    fprintf(stderr, "eagre: %s%s", name == NULL ? "" : name, name == NULL ? "" : ": ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry `eagre %s%s--help`.\n", name == NULL ? "" : name,
            name == NULL ? "" : " ");
    va_end(args);
    exit(CLI_USAGE);
}

int cli_exit_code(int status) {
    switch (status) {
    case EAGRE_OK:
        return CLI_OK;
    case EAGRE_E_NO_DAEMON:
        return CLI_NO_DAEMON;
    case EAGRE_E_UNKNOWN_TOPIC:
    case EAGRE_E_UNKNOWN_PARTITION:
    case EAGRE_E_TOPIC_DELETED:
    case EAGRE_E_UNKNOWN_GROUP:
        return CLI_NOT_FOUND;
    case EAGRE_E_INVALID:
    case EAGRE_E_NO_MEMORY:
    case EAGRE_E_PERMISSION:
    case EAGRE_E_TOPIC_EXISTS:
    case EAGRE_E_INVALID_CONFIG:
    case EAGRE_E_RECORD_TOO_LARGE:
    case EAGRE_E_BUSY:
    case EAGRE_E_LIMIT:
    case EAGRE_E_STATE:
    case EAGRE_E_UNSUPPORTED:
    case EAGRE_E_GROUP_ACTIVE:
        return CLI_REFUSED;
    default:
        return CLI_FAILED;
    }
}

int cli_fail(const struct cli *c, int status) {
    const char *detail = eagre_error_detail();
    cli_error(c, "%s", detail[0] != '\0' ? detail : eagre_status_text(status));
    return cli_exit_code(status);
}

int cli_open(const struct cli *c, eagre_t **out) {
    int rc = eagre_open(c->socket, out);
    return rc == EAGRE_OK ? CLI_OK : cli_fail(c, rc);
}

int64_t cli_number(const struct cli *c, const char *what, const char *text, int64_t min,
                   int64_t max) {
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < min || n > max)
        cli_usage(c, "%s: '%s' is no number from %lld to %lld", what, text, (long long)min,
                  (long long)max);
    return n;
}

/* An option that getopt complains about: as it was written, without what follows '='. */
static void wrong_option(const struct cli *c, int kind, char **argv) {
    char letter[3] = {'-', (char)optopt, '\0'};
    bool is_long =
        optopt == 0 || optopt >= CLI_OPTION_SOCKET || strncmp(argv[optind - 1], "--", 2) == 0;
    const char *name = is_long ? argv[optind - 1] : letter;
    if (kind == ':')
        cli_usage(c, "%s needs a value", name);
    cli_usage(c, "there is no option %.*s", (int)strcspn(name, "="), name);
}

int cli_getopt(struct cli *c, int argc, char **argv, const char *shorts,
               const struct option *longs) {
    for (;;) {
        int o = getopt_long(argc, argv, shorts, longs, NULL);
        switch (o) {
        case 'h':
            if (c->command == NULL)
                print_help();
            else
                print_command_help(c->command);
            exit(CLI_OK);
        case CLI_OPTION_SOCKET:
            c->socket = optarg;
            break;
        case CLI_OPTION_FORMAT:
            if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
                cli_usage(c, "--format is text or json, not '%s'", optarg);
            c->json = optarg[0] == 'j';
            break;
        case '?':
        case ':':
            wrong_option(c, o, argv);
            break;
        default:
            return o;
        }
    }
}

/* The command that the words at argv name, and how many words that are. */
static const struct cli_command *find_command(int argc, char **argv, int *words) {
    for (const struct cli_command *c = cli_commands; c->name != NULL; c++) {
        char two[64];
        *words = 1;
        if (strcmp(c->name, argv[0]) == 0)
            return c;
        *words = 2;
        if (argc > 1) {
            snprintf(two, sizeof(two), "%.20s %.20s", argv[0], argv[1]);
            if (strcmp(c->name, two) == 0)
                return c;
        }
    }
    return NULL;
}

/* `eagre help`, `eagre help topic list`, `eagre topic`. */
static int help(struct cli *c, int argc, char **argv) {
    int words;
    if (argc == 0) {
        print_help();
        return CLI_OK;
    }
    const struct cli_command *found = find_command(argc, argv, &words);
    if (found == NULL)
        cli_usage(c, "there is no command '%s'", argv[0]);
    print_command_help(found);
    return CLI_OK;
}

int main(int argc, char **argv) {
    static const struct option longs[] = {{"version", no_argument, NULL, 'V'}, CLI_COMMON_OPTIONS};
    struct cli c = {.command = NULL};
    for (int o; (o = cli_getopt(&c, argc, argv, "+:hV", longs)) != -1;) {
        if (o == 'V') {
            printf("eagre %s\n", eagre_version());
            return CLI_OK;
        }
    }
    argc -= optind;
    argv += optind;
    if (argc == 0) {
        print_help();
        return CLI_USAGE;
    }
    if (strcmp(argv[0], "help") == 0)
        return help(&c, argc - 1, argv + 1);
    int words;
    c.command = find_command(argc, argv, &words);
    if (c.command == NULL) {
        if (strcmp(argv[0], "topic") == 0)
            cli_usage(&c, "topic: create, list, describe, alter, delete, trim or resume?");
        if (strcmp(argv[0], "group") == 0)
            cli_usage(&c, "group: list, describe, lag, members, seek or delete?");
        if (strcmp(argv[0], "log") == 0)
            cli_usage(&c, "log: inspect, dump, verify or repair?");
        cli_usage(&c, "there is no command '%s'", argv[0]);
    }
    optind = 0; /* glibc: begin anew, permuting */
    return c.command->run(&c, argc - words + 1, argv + words - 1);
}
