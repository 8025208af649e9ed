/*
 * What `eagre produce` and `eagre consume` make of their arguments and of their input: the real parse() and
 * send_file() of `produce` with a library that only counts, offsets and formats of `consume`, records of any bytes.
 *
 *   u8 which, then
 *   0: u8 n, n x text: arguments of produce; the rest: what it reads. Its pieces must be what a naive cut gives
 *   1: text: a format; then a record: u8 flags, texts for key, value, headers
 *   2: the same record as JSON
 *   3: u8 n, n x text: arguments of consume
 *   f0 .. f7: text: a --topic of `group seek`; the rest: a file of its offsets
 *   f8 .. ff: a record of an export; a time
 */
#include <setjmp.h>
#include <sys/mman.h>

#include "tools/cmd_produce.c"

#include "fuzz/fuzz.h"
#include "tools/format.h"
#include "tools/places.h"
#include "tools/portable.h"
#include "tools/times.h"

#define ARGUMENTS_MAX 8

int fuzz_parse_consume(struct cli *c, int argc, char **argv); /* consume_options.c */

static jmp_buf refused_here;
static size_t produced, bytes_produced;

/* ---- the rest of the command line tool --------------------------------------------------------------- */

const struct cli_command cli_commands[] = {{0}};

void cli_error(const struct cli *c, const char *format, ...) {
    (void)c;
    (void)format;
}
void cli_usage(const struct cli *c, const char *format, ...) {
    (void)c;
    (void)format;
    longjmp(refused_here, 1);
}
int cli_fail(const struct cli *c, int status) {
    (void)c;
    return status;
}
int cli_exit_code(int status) { return status; }
int cli_open(const struct cli *c, eagre_t **out) {
    (void)c;
    (void)out;
    return CLI_NO_DAEMON;
}
int64_t cli_number(const struct cli *c, const char *what, const char *text, int64_t min,
                   int64_t max) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < min || v > max)
        cli_usage(c, "%s", what);
    return v;
}
int cli_getopt(struct cli *c, int argc, char **argv, const char *shorts,
               const struct option *longs) {
    int opt = getopt_long(argc, argv, shorts, longs, NULL);
    if (opt == ':' || opt == '?' || opt == 'h' || opt >= CLI_OPTION_SOCKET)
        cli_usage(c, "usage");
    return opt;
}

/* ---- a library that takes everything ------------------------------------------------------------------- */

static void count_message(const eagre_message_t *m) {
    uint64_t sum = 0; /* touches every byte */
    for (size_t i = 0; i < m->key_len && m->key != NULL; i++)
        sum += ((const uint8_t *)m->key)[i];
    for (size_t i = 0; i < m->value_len && m->value != NULL; i++)
        sum += ((const uint8_t *)m->value)[i];
    for (size_t i = 0; i < m->header_count; i++)
        sum += m->headers[i].name_len + m->headers[i].value_len;
    produced++;
    bytes_produced += (m->key != NULL ? m->key_len : 0) + (m->value != NULL ? m->value_len : 0) +
                      (sum == UINT64_MAX);
}
int eagre_produce(eagre_producer_t *p, const eagre_message_t *m, int32_t *partition,
                  int64_t *offset) {
    (void)p;
    (void)partition;
    (void)offset;
    count_message(m);
    return EAGRE_OK;
}
int eagre_produce_batch(eagre_producer_t *p, int32_t partition, const eagre_message_t *m,
                        size_t count, int64_t *first_offset) {
    (void)p;
    (void)partition;
    (void)first_offset;
    for (size_t i = 0; i < count; i++)
        count_message(&m[i]);
    return EAGRE_OK;
}
int eagre_producer_open(eagre_t *e, const char *topic, const eagre_producer_options_t *options,
                        eagre_producer_t **out) {
    (void)e;
    (void)topic;
    (void)options;
    (void)out;
    return EAGRE_E_NO_DAEMON;
}
void eagre_producer_close(eagre_producer_t *p) { (void)p; }
int32_t eagre_producer_partitions(eagre_producer_t *p) {
    (void)p;
    return 4;
}
int32_t eagre_partition_for_key(const void *key, size_t key_len, int32_t partitions) {
    return (key_len > 0 ? ((const uint8_t *)key)[0] : 0) % partitions;
}

/* ---- produce ------------------------------------------------------------------------------------------------ */

static int take_arguments(struct fuzz_in *in, char *argv[ARGUMENTS_MAX + 2], const char *name) {
    int argc = 1, n = fuzz_u8(in) % ARGUMENTS_MAX;
    argv[0] = strdup(name);
    for (; argc <= n; argc++)
        argv[argc] = fuzz_text(in);
    argv[argc] = NULL;
    optind = 0; /* glibc: all over again */
    opterr = 0;
    return argc;
}

static void free_arguments(char **all, int argc) {
    for (int i = 0; i < argc; i++)
        free(all[i]);
}

/* How many messages the bytes are, and how many of their bytes are no delimiter. */
static void cut_naively(const struct options *o, const uint8_t *data, size_t size, size_t *pieces,
                        size_t *bytes) {
    size_t at = 0;
    *pieces = *bytes = 0;
    while (at < size && (o->count == 0 || *pieces < o->count)) {
        size_t end = at;
        while (end < size && (size - end < o->delimiter_len ||
                              memcmp(data + end, o->delimiter, o->delimiter_len) != 0))
            end++;
        size_t len = end - at;
        if (len > 0 || o->empty_is_null) {
            ++*pieces;
            const uint8_t *found =
                o->key_delimiter == NULL
                    ? NULL
                    : memmem(data + at, len, o->key_delimiter, o->key_delimiter_len);
            bool fixed =
                o->key != NULL && (found == NULL || (found == data + at && o->empty_is_null));
            *bytes +=
                len - (found != NULL ? o->key_delimiter_len : 0) + (fixed ? strlen(o->key) : 0);
        }
        at = end < size ? end + o->delimiter_len : size;
    }
}

static void produce(struct fuzz_in *in) {
    static struct run r;
    struct cli c = {0};
    char *argv[ARGUMENTS_MAX + 2], *all[ARGUMENTS_MAX + 2];
    volatile int argc = take_arguments(in, argv, "produce");
    memcpy(all, argv, sizeof(all)); /* getopt moves them */
    r = (struct run){.c = &c, .file = "input"};
    send_begin(&r.to, NULL);
    if (setjmp(refused_here) == 0) {
        parse(&c, argc, argv, &r.o);
        FUZZ_REQUIRE(r.o.delimiter_len > 0 && optind < argc);
        size_t pieces, bytes;
        int fd = memfd_create("input", MFD_CLOEXEC);
        FUZZ_REQUIRE(fd >= 0 && write(fd, in->at, in->left) == (ssize_t)in->left &&
                     lseek(fd, 0, SEEK_SET) == 0);
        produced = bytes_produced = 0;
        FUZZ_REQUIRE(send_file(&r, fd) == EAGRE_OK);
        (void)close(fd);
        cut_naively(&r.o, in->at, in->left, &pieces, &bytes);
        FUZZ_REQUIRE(produced == pieces && r.to.sent == pieces && bytes_produced == bytes);
        input_free(&r.in);
    }
    free_arguments(all, argc);
}

static void consume(struct fuzz_in *in) {
    struct cli c = {0};
    char *argv[ARGUMENTS_MAX + 2], *all[ARGUMENTS_MAX + 2];
    volatile int argc = take_arguments(in, argv, "consume");
    memcpy(all, argv, sizeof(all));
    if (setjmp(refused_here) == 0)
        FUZZ_REQUIRE(fuzz_parse_consume(&c, argc, argv));
    free_arguments(all, argc);
}

/* ---- records -------------------------------------------------------------------------------------------------- */

static void print_record(struct fuzz_in *in, const char *format) {
    static struct out o;
    struct format f = {0};
    char *text = strdup(format);
    FUZZ_REQUIRE(text != NULL);
    bool good = format[0] != '\0' && format_parse(&f, text) == NULL;
    FUZZ_REQUIRE(f.count <= FORMAT_ITEMS_MAX);
    uint8_t flags = fuzz_u8(in);
    size_t n[3];
    const uint8_t *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = fuzz_bytes(in, i == 1 ? fuzz_u16(in) % 2000 : fuzz_u8(in), &n[i]);
    eagre_record_t r = {.key = (flags & 1) != 0 ? part[0] : NULL,
                        .value = (flags & 2) != 0 ? part[1] : NULL,
                        .headers = (flags & 4) != 0 ? part[2] : NULL,
                        .key_len = (uint32_t)n[0],
                        .value_len = (uint32_t)n[1],
                        .headers_len = (uint32_t)n[2],
                        .partition = flags,
                        .offset = (int64_t)fuzz_u64(in),
                        .timestamp_ns = (int64_t)fuzz_u64(in),
                        .topic = "t\xc3\xa9\xff"};
    f.null_shown = (flags & 8) != 0;
    out_init(&o, -1); /* what does not fit is lost: it is small */
    if (good)
        format_record(&f, &o, &r);
    o.used = 0;
    format_json(&o, &r);
    FUZZ_REQUIRE(o.error != 0 || (o.used > 2 && o.buf[0] == '{' && o.buf[o.used - 1] == '}' &&
                                  utf8_is_valid(o.buf, o.used)));
    free(text);
}

/* ---- files of `export`, times ---------------------------------------------------------------------------------- */

/* A record's body in which the CRC, which nobody hits by chance, was right. */
static void import(struct fuzz_in *in) {
    size_t n, headers;
    const uint8_t *body = fuzz_bytes(in, in->left, &n);
    if (!portable_count(body, n, &headers))
        return;
    eagre_message_t m;
    eagre_header_t *h = malloc((headers + 1) * sizeof(*h)); /* no more than these are written */
    FUZZ_REQUIRE(h != NULL && headers <= n / 8);
    portable_message(body, &m, h);
    m.headers = h;
    m.header_count = headers;
    bytes_produced = 0;
    count_message(&m);
    size_t sum = PORTABLE_FIXED + bytes_produced;
    for (size_t i = 0; i < headers; i++) {
        for (size_t k = 0; k < h[i].name_len; k++)
            FUZZ_REQUIRE((const uint8_t *)h[i].name + k < body + n);
        sum += 8 + h[i].name_len + h[i].value_len;
    }
    FUZZ_REQUIRE(sum == n); /* each byte belongs to one part */
    free(h);
}

static void a_time(struct fuzz_in *in) {
    char *text = fuzz_text(in);
    int64_t ns = -1;
    if (time_parse(text, INT64_C(1700000000000000000), &ns))
        FUZZ_REQUIRE(ns >= 0 && text[0] == '@');
    free(text);
}

/* What is taken from lines is what is printed again. */
static void offsets(struct fuzz_in *in) {
    struct places named = {0}, again = {0};
    char *text = fuzz_text(in);
    if (places_parse(&named, text) == NULL)
        FUZZ_REQUIRE(named.count > 0 && named.list[0].topic[0] != '\0' && named.list[0].partition >= PLACE_ALL);
    named.count = 0;
    while (in->left > 0) {
        char *line = fuzz_text(in);
        (void)places_parse_line(&named, line);
        free(line);
    }
    places_settle(&named);
    for (size_t i = 0; i < named.count; i++) {
        char line[PLACE_TOPIC_MAX + 40];
        const struct place *p = &named.list[i];
        FUZZ_REQUIRE(p->offset >= 0 && p->partition >= 0);
        (void)snprintf(line, sizeof(line), "%s,%d,%lld", p->topic, (int)p->partition, (long long)p->offset);
        FUZZ_REQUIRE(places_parse_line(&again, line) == NULL);
    }
    places_settle(&again);
    FUZZ_REQUIRE(again.count == named.count);
    for (size_t i = 0; i < again.count; i++)
        FUZZ_REQUIRE(again.list[i].partition == named.list[i].partition && again.list[i].offset == named.list[i].offset &&
                     strcmp(again.list[i].topic, named.list[i].topic) == 0);
    places_free(&again);
    places_free(&named);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    uint8_t what = fuzz_u8(&in);
    if (what >= 0xf8) {
        what % 2 != 0 ? import(&in) : a_time(&in);
        return 0;
    }
    if (what >= 0xf0) {
        offsets(&in);
        return 0;
    }
    switch (what % 4) {
    case 0:
        produce(&in);
        break;
    case 1: {
        char *format = fuzz_text(&in);
        print_record(&in, format);
        free(format);
        break;
    }
    case 2:
        print_record(&in, "");
        break;
    default:
        consume(&in);
        break;
    }
    return 0;
}
