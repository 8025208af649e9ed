/* For fuzz_format.c: parse() of `consume`, whose names are those of `produce`, too. */
#include "tools/cmd_consume.c"

int fuzz_parse_consume(struct cli *c, int argc, char **argv);
int fuzz_parse_consume(struct cli *c, int argc, char **argv) {
    static struct run r;
    r = (struct run){0};
    parse(c, argc, argv, &r);
    return r.only_count <= PARTITIONS_MAX && (r.tail >= 0 || r.offset >= EAGRE_OFFSET_BEGINNING) &&
           optind < argc;
}
