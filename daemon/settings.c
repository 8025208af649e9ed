#include "settings.h"

#include <inttypes.h>
#include <string.h>

#include "layout/layout.h"
#include "parse.h"
#include "placement.h"
#include "sys/errbuf.h"

#define RETENTION_DISK_MS INT64_C(604800000) /* as Kafka */
#define SEGMENT_MS INT64_C(604800000)        /* likewise */

enum type { NUMBER, SIZE, CHOICE, NUMA, ACCESS };

static const struct row {
    const char *name;
    enum type type;
    bool alterable;
    const char *standard;      /* NULL: depends on others, see eg_settings_finish() */
    const char *standard_text; /* then: how */
    int64_t min, max;       /* NUMBER, SIZE. A min of -1 is "no limit" and nothing else below 0 */
    int64_t step;           /* a multiple of it; 0: any */
    const char *choices[5]; /* CHOICE: the i-th is value i; "": not to be chosen */
    const char *help;
} table[EG_SET_COUNT] = {
    [EG_SET_PARTITIONS] = {"partitions",
                           NUMBER,
                           true,
                           "1",
                           NULL,
                           1,
                           EG_TOPIC_PARTITIONS_MAX,
                           0,
                           {0},
                           "Partitions. Order is kept within one only. Can grow, never shrink."},
    [EG_SET_SEGMENT_BYTES] =
        {"segment.bytes",
         SIZE,
         false,
         "64M",
         NULL,
         EG_SEGMENT_BYTES_MIN,
         EG_SEGMENT_BYTES_MAX,
         EG_INDEX_BLOCK,
         {0},
         "Size of a segment. A partition takes up to ring.segments times as much memory."},
    [EG_SET_RING_SEGMENTS] =
        {"ring.segments",
         NUMBER,
         false,
         "3",
         NULL,
         EG_RING_SEGMENTS_MIN,
         EG_RING_SEGMENTS_MAX,
         0,
         {0},
         "Segments that a partition keeps in memory, one of them always free to go on in."},
    [EG_SET_RECORD_ALIGNMENT] =
        {"record.alignment",
         CHOICE,
         false,
         "64",
         NULL,
         0,
         0,
         0,
         {"8", "16", "32", "64"},
         "Records begin at multiples of this. 64 keeps neighbours out of each other's cache line."},
    [EG_SET_STORAGE] = {"storage",
                        CHOICE,
                        false,
                        "disk",
                        NULL,
                        0,
                        0,
                        0,
                        {"disk", "memory"},
                        "disk: in log files, too; they survive the host, and retention decides how long they "
                        "stay. memory: in the ring alone."},
    [EG_SET_RETENTION_MS] = {"retention.ms",
                             NUMBER,
                             true,
                             NULL,
                             "604800000 (7 days) with storage=disk, -1 with storage=memory",
                             -1,
                             INT64_MAX / 1000000,
                             0,
                             {0},
                             "A full segment is let go when its last record is older. -1: no limit."},
    [EG_SET_RETENTION_BYTES] = {"retention.bytes",
                                SIZE,
                                true,
                                "-1",
                                NULL,
                                -1,
                                INT64_MAX,
                                0,
                                {0},
                                "A partition lets its oldest segment go when the others hold as "
                                "much. -1: no limit; storage=memory: when it needs the room."},
    [EG_SET_SEGMENT_MS] = {"segment.ms",
                           NUMBER,
                           true,
                           NULL,
                           "604800000 (7 days), -1 with writers=single",
                           -1,
                           INT64_MAX / 1000000,
                           0,
                           {0},
                           "The active segment of a partition with storage=disk is closed when its first record is "
                           "older, or when retention.ms is over for it. -1: when it is full. With writers=single it is "
                           "closed by its producer alone, when it is full: only -1 is possible."},
    [EG_SET_FLUSH_MS] = {"flush.ms",
                         NUMBER,
                         true,
                         "1000",
                         NULL,
                         1,
                         86400000,
                         0,
                         {0},
                         "How long a record may be in memory only. Who waits for it is not made to wait so long."},
    [EG_SET_FLUSH_BYTES] = {"flush.bytes",
                            SIZE,
                            true,
                            "16777216",
                            NULL,
                            4096,
                            INT64_MAX,
                            0,
                            {0},
                            "How much may be written and not flushed to disk yet."},
    [EG_SET_MAX_MESSAGE_BYTES] = {"max.message.bytes",
                                  SIZE,
                                  true,
                                  NULL,
                                  "segment.bytes/8 - 32",
                                  1,
                                  EG_SEGMENT_BYTES_MAX / 8 - EG_FRAME_HEADER,
                                  0,
                                  {0},
                                  "Largest record: key, value and headers together."},
    [EG_SET_TIMESTAMP_PRECISION] =
        {"timestamp.precision",
         CHOICE,
         true,
         "coarse",
         NULL,
         0,
         0,
         0,
         {"coarse", "ns"},
         "Clock of the records' timestamps: coarse steps by 1 to 4 ms and costs nothing."},
    [EG_SET_WRITERS] = {"writers",
                        CHOICE,
                        false,
                        "multi",
                        NULL,
                        0,
                        0,
                        0,
                        {"multi", "single"},
                        "single: one producer at a time, which is then faster."},
    [EG_SET_NUMA] = {"numa",
                     NUMA,
                     false,
                     "auto",
                     NULL,
                     0,
                     0,
                     0,
                     {0},
                     "NUMA node of the memory. auto: that of the partition's first producer."},
    [EG_SET_PINNED_BYTES_MAX] = {"pinned.bytes.max",
                                 SIZE,
                                 true,
                                 NULL,
                                 "2 x segment.bytes",
                                 0,
                                 INT64_MAX,
                                 0,
                                 {0},
                                 "Memory beyond the ring that slow readers may hold back before "
                                 "producers must wait for them."},
    [EG_SET_HUGEPAGES] =
        {"hugepages",
         CHOICE,
         false,
         "advise",
         NULL,
         0,
         0,
         0,
         {"off", "advise", "hugetlb"},
         "advise: where the system allows it for shared memory. hugetlb: from its reserved pool; "
         "only the daemon's user and root may choose it, and its producers must be trusted: one can take a page "
         "away, and who reads there is ended by SIGBUS."},
    [EG_SET_ACCESS_PRODUCE] = {"access.produce",
                               ACCESS,
                               true,
                               "*",
                               NULL,
                               0,
                               0,
                               0,
                               {0},
                               "Who may produce. Root and the daemon's user always may."},
    [EG_SET_ACCESS_CONSUME] =
        {"access.consume", ACCESS, true, "*", NULL, 0, 0, 0, {0}, "Who may consume."},
    [EG_SET_ACCESS_ADMIN] = {"access.admin",
                             ACCESS,
                             true,
                             "creator",
                             NULL,
                             0,
                             0,
                             0,
                             {0},
                             "Who may alter and delete the topic."},
};

/* ---- ranges as text ------------------------------------------------------------------------------ */

static void range_text(const struct row *r, char *buf, size_t cap) {
    char min[32], max[32], step[32], nodes[64];
    size_t n = 0;
    switch (r->type) {
    case NUMBER:
        snprintf(buf, cap,
                 r->max < INT64_MAX / 1000000 ? "%" PRId64 " to %" PRId64
                                              : "a number from %" PRId64 " on",
                 r->min, r->max);
        break;
    case SIZE:
        if (r->max == INT64_MAX)
            snprintf(buf, cap, "%sbytes (suffixes K, M, G are powers of 1024)",
                     r->min < 0 ? "-1 or " : "");
        else if (r->standard == NULL)
            snprintf(buf, cap, "%" PRId64 " to %s", r->min, r->standard_text);
        else
            snprintf(buf, cap, "%s to %s, a multiple of %s",
                     eg_print_size((uint64_t)r->min, min, sizeof(min)),
                     eg_print_size((uint64_t)r->max, max, sizeof(max)),
                     eg_print_size((uint64_t)r->step, step, sizeof(step)));
        break;
    case CHOICE:
        buf[0] = '\0';
        for (size_t i = 0; i < 5 && r->choices[i] != NULL; i++) {
            n = strlen(buf);
            snprintf(buf + n, cap - n, "%s%s", i > 0 ? ", " : "", r->choices[i]);
        }
        break;
    case NUMA:
        snprintf(buf, cap, "auto, interleave, or node:N with N of this host's nodes %s",
                 eg_placement_print_nodes(nodes, sizeof(nodes)));
        break;
    case ACCESS:
        snprintf(buf, cap,
                 "a comma list of *, creator, user:NAME, user:UID, group:NAME, group:GID");
        break;
    }
}

static int out_of_range(const struct row *r, const char *topic, const char *value) {
    char range[256];
    range_text(r, range, sizeof(range));
    return eg_error_set(EAGRE_E_INVALID_CONFIG, "topic '%s': %s=%s: must be %s%s", topic, r->name,
                        value, r->type == CHOICE ? "one of " : "", range);
}

static int unknown(const char *topic, const char *name) {
    const char *best = NULL;
    /* Further away is no misspelling. */
    size_t best_distance = strlen(name) < 9 ? strlen(name) / 2 : 5;
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        size_t distance = eg_text_distance(name, table[i].name);
        if (distance < best_distance) {
            best_distance = distance;
            best = table[i].name;
        }
    }
    if (best != NULL)
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "topic '%s': there is no setting '%s': did you mean '%s'?", topic, name,
                            best);
    return eg_error_set(EAGRE_E_INVALID_CONFIG, "topic '%s': there is no setting '%s'", topic,
                        name);
}

/* ---- parse and print ----------------------------------------------------------------------------- */

static bool parse_number(const struct row *r, const char *value, int64_t *out) {
    int64_t v;
    uint64_t size;
    if (r->type == SIZE && eg_parse_size(value, &size)) {
        if (size > INT64_MAX)
            return false;
        v = (int64_t)size;
    } else if (!eg_parse_int(value, &v) || (r->type == SIZE && v >= 0)) {
        return false;
    }
    if (v < r->min || v > r->max || (v >= 0 && r->step != 0 && v % r->step != 0))
        return false;
    *out = v;
    return true;
}

static bool parse_numa(const char *value, bool strict, int64_t *out) {
    if (strcmp(value, "auto") == 0) {
        *out = EG_NUMA_AUTO;
    } else if (strcmp(value, "interleave") == 0) {
        *out = EG_NUMA_INTERLEAVE;
    } else {
        int64_t node;
        if (strncmp(value, "node:", 5) != 0 || !eg_parse_int(value + 5, &node) || node < 0 ||
            node > 1023 || (strict && !eg_placement_has_node((uint32_t)node)))
            return false;
        *out = node;
    }
    return true;
}

static int parse(struct eg_settings *s, size_t i, const char *topic, const char *value,
                 bool strict) {
    const struct row *r = &table[i];
    int64_t v = 0;
    switch (r->type) {
    case NUMBER:
    case SIZE:
        if (!parse_number(r, value, &v))
            return out_of_range(r, topic, value);
        break;
    case CHOICE:
        while (v < 5 && r->choices[v] != NULL && strcmp(r->choices[v], value) != 0)
            v++;
        if (v == 5 || r->choices[v] == NULL)
            return out_of_range(r, topic, value);
        break;
    case NUMA:
        if (!parse_numa(value, strict, &v))
            return out_of_range(r, topic, value);
        break;
    case ACCESS: {
        int rc = eg_access_parse(&s->access[i - EG_SET_NUMBERS], value, strict);
        if (rc != EAGRE_OK)
            return eg_error_add(rc, "topic '%s': %s", topic, r->name);
        return EAGRE_OK;
    }
    }
    s->v[i] = i == EG_SET_RECORD_ALIGNMENT ? EG_ALIGN_MIN << (v & 3) : v;
    return EAGRE_OK;
}

void eg_settings_init(struct eg_settings *s) {
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < EG_SET_COUNT; i++)
        if (table[i].standard != NULL)
            (void)parse(s, i, "", table[i].standard,
                        false); /* the defaults are valid: there is a test */
}

int eg_settings_set(struct eg_settings *s, const char *topic, const char *name, const char *value,
                    bool strict) {
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        if (strcmp(table[i].name, name) != 0)
            continue;
        int rc = parse(s, i, topic, value, strict);
        if (rc == EAGRE_OK)
            s->given[i] = true;
        return rc;
    }
    return unknown(topic, name);
}

static int64_t message_bytes_max(const struct eg_settings *s) {
    return (int64_t)eg_record_bytes_max((uint64_t)s->v[EG_SET_SEGMENT_BYTES]) - EG_FRAME_HEADER;
}

/* The smallest huge page that the system knows; 0: none. */
static uint64_t huge_page_bytes(void) {
    char line[128];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Hugepagesize: %" SCNu64, &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib << 10;
}

int eg_settings_finish(struct eg_settings *s, const char *topic) {
    char buf[32], seg[32];
    int64_t segment = s->v[EG_SET_SEGMENT_BYTES];
    int64_t largest = message_bytes_max(s);
    if (!s->given[EG_SET_MAX_MESSAGE_BYTES])
        s->v[EG_SET_MAX_MESSAGE_BYTES] = largest;
    if (s->v[EG_SET_MAX_MESSAGE_BYTES] > largest)
        return eg_error_set(
            EAGRE_E_INVALID_CONFIG,
            "topic '%s': max.message.bytes=%" PRId64 ": must be 1 to %" PRId64
            ": a record and its header of %u bytes take at most an eighth of segment.bytes=%s",
            topic, s->v[EG_SET_MAX_MESSAGE_BYTES], largest, EG_FRAME_HEADER,
            eg_print_size((uint64_t)segment, seg, sizeof(seg)));
    if (!s->given[EG_SET_RETENTION_MS])
        s->v[EG_SET_RETENTION_MS] = s->v[EG_SET_STORAGE] == EG_STORAGE_DISK ? RETENTION_DISK_MS : -1;
    bool single = s->v[EG_SET_WRITERS] == EG_WRITERS_SINGLE;
    if (!s->given[EG_SET_SEGMENT_MS])
        s->v[EG_SET_SEGMENT_MS] = single ? -1 : SEGMENT_MS;
    if (single && s->v[EG_SET_SEGMENT_MS] >= 0)
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "topic '%s': segment.ms=%" PRId64 ": must be -1 with writers=single, where nobody but the producer "
                            "may close a segment, and does when it is full",
                            topic, s->v[EG_SET_SEGMENT_MS]);
    if (!s->given[EG_SET_PINNED_BYTES_MAX])
        s->v[EG_SET_PINNED_BYTES_MAX] = 2 * segment;
    if (s->v[EG_SET_HUGEPAGES] == EG_HUGEPAGES_HUGETLB) {
        uint64_t huge = huge_page_bytes();
        if (huge == 0)
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "topic '%s': hugepages=hugetlb: this system has no huge pages",
                                topic);
        if ((uint64_t)segment % huge != 0)
            return eg_error_set(
                EAGRE_E_INVALID_CONFIG,
                "topic '%s': hugepages=hugetlb: segment.bytes=%s must be a multiple of the huge "
                "page size %s",
                topic, eg_print_size((uint64_t)segment, seg, sizeof(seg)),
                eg_print_size(huge, buf, sizeof(buf)));
    }
    return EAGRE_OK;
}

int eg_settings_alterable(const struct eg_settings *from, const struct eg_settings *to,
                          const char *topic) {
    char was[EG_ACCESS_TEXT], is[EG_ACCESS_TEXT];
    for (size_t i = 0; i < EG_SET_NUMBERS; i++) {
        if (table[i].alterable || from->v[i] == to->v[i])
            continue;
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "topic '%s': %s=%s: is fixed when a topic is created; it is %s here",
                            topic, table[i].name, eg_settings_print(to, i, is, sizeof(is)),
                            eg_settings_print(from, i, was, sizeof(was)));
    }
    if (to->v[EG_SET_PARTITIONS] < from->v[EG_SET_PARTITIONS])
        return eg_error_set(EAGRE_E_INVALID_CONFIG,
                            "topic '%s': partitions=%" PRId64 ": must be %" PRId64
                            " to %u: partitions can be added, never taken away",
                            topic, to->v[EG_SET_PARTITIONS], from->v[EG_SET_PARTITIONS],
                            EG_TOPIC_PARTITIONS_MAX);
    return EAGRE_OK;
}

const char *eg_settings_name(size_t i) { return i < EG_SET_COUNT ? table[i].name : NULL; }

const char *eg_settings_print(const struct eg_settings *s, size_t i, char *buf, size_t cap) {
    const struct row *r = &table[i];
    if (r->type == ACCESS) {
        snprintf(buf, cap, "%s", s->access[i - EG_SET_NUMBERS].text);
        return buf;
    }
    int64_t v = s->v[i];
    if (r->type == CHOICE && i != EG_SET_RECORD_ALIGNMENT)
        snprintf(buf, cap, "%s", r->choices[v]);
    else if (r->type == NUMA && v < 0)
        snprintf(buf, cap, "%s", v == EG_NUMA_AUTO ? "auto" : "interleave");
    else
        snprintf(buf, cap, "%s%" PRId64, r->type == NUMA ? "node:" : "", v);
    return buf;
}

/* ---- stored form --------------------------------------------------------------------------------- */

int eg_settings_save(const struct eg_settings *s, const char *topic, char *buf, size_t cap) {
    char value[EG_ACCESS_TEXT];
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        if (!s->given[i])
            continue;
        int n = snprintf(buf + used, cap - used, "%s=%s\n", table[i].name,
                         eg_settings_print(s, i, value, sizeof(value)));
        if (n < 0 || (size_t)n >= cap - used)
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "topic '%s': the settings are too long together: at most %zu bytes",
                                topic, cap - 1);
        used += (size_t)n;
    }
    return EAGRE_OK;
}

int eg_settings_load(struct eg_settings *s, const char *topic, const char *text) {
    char line[EG_ACCESS_TEXT + 64];
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        if (n >= sizeof(line))
            return eg_error_set(EAGRE_E_INVALID_CONFIG, "topic '%s': a stored setting is too long",
                                topic);
        memcpy(line, text, n);
        line[n] = '\0';
        text += n + (text[n] == '\n');
        char *value = strchr(line, '=');
        if (value == NULL)
            return eg_error_set(EAGRE_E_INVALID_CONFIG,
                                "topic '%s': stored setting '%s' has no value", topic, line);
        *value++ = '\0';
        int rc = eg_settings_set(s, topic, line, value, false);
        if (rc != EAGRE_OK)
            return rc;
    }
    return eg_settings_finish(s, topic);
}

void eg_settings_help(FILE *f) {
    char range[256];
    for (size_t i = 0; i < EG_SET_COUNT; i++) {
        const struct row *r = &table[i];
        range_text(r, range, sizeof(range));
        fprintf(f, "%s\n    %s\n    %s%s; default: %s\n\n", r->name, r->help, range,
                r->alterable ? "" : "; fixed at creation",
                r->standard == NULL ? r->standard_text : r->standard);
    }
}

/* ---- names --------------------------------------------------------------------------------------- */

int eg_topic_name_check(const char *name) {
    size_t n = strlen(name);
    const char *bad =
        name + strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (n == 0)
        return eg_error_set(EAGRE_E_INVALID, "a topic's name must not be empty");
    if (n > EG_TOPIC_NAME_MAX)
        return eg_error_set(EAGRE_E_INVALID,
                            "topic '%.40s...': a name has at most %u characters, this one %zu",
                            name, EG_TOPIC_NAME_MAX, n);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return eg_error_set(EAGRE_E_INVALID, "topic '%s': a name must not be '.' or '..'", name);
    if (*bad != '\0')
        return eg_error_set(EAGRE_E_INVALID,
                            "topic '%s': a name consists of letters, digits, '.', '_' and '-'; "
                            "character %zu does not",
                            name, (size_t)(bad - name) + 1);
    return EAGRE_OK;
}
