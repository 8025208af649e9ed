/* The rules. First all logs are loaded; then each consumer's log is walked once, against what the
 * producers say and what the consumers before it saw; then what can be said at the end only. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "history/check.h"
#include "sys/atomic.h"

/* What is known of a record that somebody sent. */
struct fact {
    int64_t offset; /* where it was seen; -1: nowhere */
    int32_t partition;
    uint32_t pass; /* the last one that saw it; 0: none */
};

struct producer {
    uint32_t id;
    struct history_log log;
    struct fact *facts;
};

/* A partition as one consumer sees it. */
struct part {
    uint32_t topic;
    int32_t partition;
    uint32_t pass;    /* 0: none yet */
    int64_t expected; /* the next offset */
    int64_t position; /* as the library said last */
    uint64_t *last;   /* of each producer: sequence + 1 of its last record */
};

void history_broken(struct check *k, enum history_rule rule, const char *format, ...) {
#define X(name, text) #name ": " text,
    static const char *const texts[] = {HISTORY_RULES(X)};
#undef X
    k->report->broken[rule]++;
    uint32_t max = k->options->max_lines != 0 ? k->options->max_lines : 50;
    if (k->report->violations++ >= max || k->options->out == NULL)
        return;
    va_list ap;
    (void)fprintf(k->options->out, "history: %s: ", texts[rule]);
    va_start(ap, format);
    (void)vfprintf(k->options->out, format, ap);
    va_end(ap);
    (void)fputc('\n', k->options->out);
}

void *history_grown(void *list, size_t count, size_t size) {
    void *more = realloc(list, (count + 1) * size);
    if (more == NULL)
        abort();
    memset((char *)more + count * size, 0, size);
    return more;
}

static struct history_sent *sent_by(const struct producer *p, uint64_t sequence) {
    return (struct history_sent *)p->log.base + sequence;
}

static struct producer *find_producer(struct check *k, uint32_t id) {
    for (size_t i = 0; i < k->producer_count; i++)
        if (k->producers[i].id == id)
            return &k->producers[i];
    return NULL;
}

/* ---- what the producers say --------------------------------------------------------------------------- */

static void take_sent(struct check *k, const struct producer *p, uint64_t sequence) {
    const struct history_sent *s = sent_by(p, sequence);
    struct history_report *r = k->report;
    r->sent++;
    r->acked += s->state == HISTORY_ACKED;
    r->unknown += s->state == HISTORY_INTENT || s->state == HISTORY_CLAIMED;
    r->failed += s->state == HISTORY_FAILED;
    r->aborted += s->state == HISTORY_ABORTED;
    if (s->state > HISTORY_ABORTED ||
        (s->state == HISTORY_ACKED && (s->offset < 0 || s->partition < 0))) {
        history_broken(k, HISTORY_LOG_RULE, WHO " has state %u", p->id, sequence, s->state);
        return;
    }
    if (s->offset < 0 || s->state == HISTORY_FAILED)
        return;
    struct history_cell *c = history_cell(&k->table, s->topic, s->partition, s->offset);
    struct history_sum *sum = history_sum(&k->table, s->topic, s->partition);
    if (s->offset > sum->last_placed)
        sum->last_placed = s->offset;
    if (s->state != HISTORY_ACKED) {
        c->flags |= HISTORY_CELL_CLAIMED;
        return;
    }
    if (c->flags & HISTORY_CELL_ACKED)
        history_broken(k, HISTORY_SAME_OFFSET_RULE, PLACE ": " WHO " and " WHO, s->topic,
                       s->partition, s->offset, c->producer, c->sequence, p->id, sequence);
    c->flags |= HISTORY_CELL_ACKED;
    c->producer = p->id;
    c->sequence = sequence;
    if (s->offset > sum->last_acked)
        sum->last_acked = s->offset;
}

static int load_producer(struct check *k, const char *dir, uint32_t id) {
    struct producer p = {.id = id};
    if (history_producer_open(&p.log, dir, id, 1) != 0)
        return -1;
    p.facts = malloc((p.log.count + 1) * sizeof(*p.facts));
    if (p.facts == NULL)
        abort();
    for (uint64_t i = 0; i < p.log.count; i++)
        p.facts[i] = (struct fact){.offset = -1};
    k->producers = history_grown(k->producers, k->producer_count, sizeof(p));
    k->producers[k->producer_count++] = p;
    k->report->producers++;
    for (uint64_t i = 0; i < p.log.count; i++)
        take_sent(k, &p, i);
    return 0;
}

/* ---- what a consumer says -------------------------------------------------------------------------------- */

static struct part *part_of(struct check *k, const struct history_seen *s) {
    for (size_t i = 0; i < k->part_count; i++)
        if (k->parts[i].topic == s->topic && k->parts[i].partition == s->partition)
            return &k->parts[i];
    k->parts = history_grown(k->parts, k->part_count, sizeof(*k->parts));
    struct part *p = &k->parts[k->part_count++];
    p->topic = s->topic;
    p->partition = s->partition;
    p->last = calloc(k->producer_count + 1, sizeof(*p->last));
    if (p->last == NULL)
        abort();
    return p;
}

/* It went from one offset to another and says nothing of those in between: they must be unused. */
static void skip(struct check *k, const struct part *p, int64_t from, int64_t to) {
    if (to - from > HISTORY_MAX_SKIP) {
        history_broken(k, HISTORY_HOLE_RULE, PLACE ": consumer %u skipped %" PRId64 " offsets",
                       p->topic, p->partition, from, k->consumer, to - from);
        return;
    }
    for (int64_t at = from; at < to; at++) {
        struct history_cell *c = history_cell(&k->table, p->topic, p->partition, at);
        if (c->flags & HISTORY_CELL_ACKED)
            history_broken(k, HISTORY_LOST_RULE, PLACE ": consumer %u did not see " WHO, p->topic,
                           p->partition, at, k->consumer, c->producer, c->sequence);
        else if (c->flags & HISTORY_CELL_SEEN)
            history_broken(k, HISTORY_DISAGREE_RULE,
                           PLACE ": consumer %u skipped it, another one saw " WHO, p->topic,
                           p->partition, at, k->consumer, c->producer, c->sequence);
        c->flags |= HISTORY_CELL_SKIPPED;
    }
}

/* One that the producer's log knows. */
static void check_sent(struct check *k, const struct producer *by, const struct history_seen *s) {
    const struct history_sent *sent = sent_by(by, s->sequence);
    struct fact *f = &by->facts[s->sequence];
    if (sent->hash != s->hash)
        history_broken(k, HISTORY_CHANGED_RULE,
                       PLACE ": consumer %u saw " WHO " with hash %" PRIx64 ", not %" PRIx64,
                       s->topic, s->partition, s->offset, k->consumer, s->producer, s->sequence,
                       s->hash, sent->hash);
    if (sent->state == HISTORY_FAILED || sent->state == HISTORY_ABORTED)
        history_broken(k, HISTORY_UNWANTED_RULE, PLACE ": consumer %u saw " WHO ", %s (%d)",
                       s->topic, s->partition, s->offset, k->consumer, s->producer, s->sequence,
                       sent->state == HISTORY_FAILED ? "which failed" : "which was given up",
                       sent->status);
    if (sent->topic != s->topic || (sent->partition >= 0 && sent->partition != s->partition) ||
        (sent->offset >= 0 && sent->offset != s->offset))
        history_broken(k, HISTORY_WRONG_OFFSET_RULE,
                       PLACE ": consumer %u saw " WHO ", whose producer was told " PLACE, s->topic,
                       s->partition, s->offset, k->consumer, s->producer, s->sequence, sent->topic,
                       sent->partition, sent->offset);
    if (f->offset >= 0 && (f->offset != s->offset || f->partition != s->partition))
        history_broken(k, HISTORY_MOVED_RULE,
                       PLACE ": consumer %u saw " WHO
                             ", seen before at partition %d offset %" PRId64,
                       s->topic, s->partition, s->offset, k->consumer, s->producer, s->sequence,
                       f->partition, f->offset);
    if (f->pass == 0 && (sent->state == HISTORY_INTENT || sent->state == HISTORY_CLAIMED))
        k->report->unknown_seen++;
    *f = (struct fact){s->offset, s->partition, f->pass != 0 ? f->pass : UINT32_MAX};
}

static struct producer *sender(struct check *k, const struct history_seen *s) {
    struct producer *by = find_producer(k, s->producer);
    return by != NULL && s->sequence < by->log.count ? by : NULL;
}

void history_check_content(struct check *k, const struct history_seen *s) {
    struct history_cell *c = history_cell(&k->table, s->topic, s->partition, s->offset);
    bool known = (c->flags & (HISTORY_CELL_ACKED | HISTORY_CELL_SEEN)) != 0;
    if (known && (c->producer != s->producer || c->sequence != s->sequence))
        history_broken(k, HISTORY_DISAGREE_RULE, PLACE ": consumer %u saw " WHO ", but %s " WHO,
                       s->topic, s->partition, s->offset, k->consumer, s->producer, s->sequence,
                       c->flags & HISTORY_CELL_ACKED ? "acknowledged was" : "another one saw",
                       c->producer, c->sequence);
    if (c->flags & HISTORY_CELL_SKIPPED)
        history_broken(k, HISTORY_DISAGREE_RULE,
                       PLACE ": consumer %u saw " WHO ", which another one skipped", s->topic,
                       s->partition, s->offset, k->consumer, s->producer, s->sequence);
    if (!known) {
        c->producer = s->producer;
        c->sequence = s->sequence;
    }
    c->flags |= HISTORY_CELL_SEEN;

    const struct producer *by = sender(k, s);
    if (s->producer == HISTORY_DAMAGED)
        history_broken(k, HISTORY_CHANGED_RULE, PLACE ": consumer %u saw damaged bytes", s->topic,
                       s->partition, s->offset, k->consumer);
    else if (by == NULL)
        history_broken(k, HISTORY_INVENTED_RULE, PLACE ": consumer %u saw " WHO, s->topic,
                       s->partition, s->offset, k->consumer, s->producer, s->sequence);
    else
        check_sent(k, by, s);
}

static void check_order(struct check *k, struct part *p, const struct producer *by,
                        const struct history_seen *s) {
    struct fact *f = &by->facts[s->sequence];
    if (f->pass == p->pass)
        history_broken(k, HISTORY_TWICE_RULE, PLACE ": consumer %u saw " WHO " before", s->topic,
                       s->partition, s->offset, k->consumer, s->producer, s->sequence);
    f->pass = p->pass;
    uint64_t *last = &p->last[by - k->producers];
    if (*last > s->sequence + 1)
        history_broken(k, HISTORY_ORDER_RULE, PLACE ": consumer %u saw " WHO " after %" PRIu64,
                       s->topic, s->partition, s->offset, k->consumer, s->producer, s->sequence,
                       *last - 1);
    *last = s->sequence + 1;
}

static void see(struct check *k, struct part *p, const struct history_seen *s) {
    k->report->seen++;
    if (p->pass == 0) {
        bool member = history_groups_life(k)->is;
        history_broken(k, member ? HISTORY_STRAY_RULE : HISTORY_LOG_RULE,
                       PLACE ": consumer %u sees before it began", s->topic, s->partition,
                       s->offset, k->consumer);
        return;
    }
    if (s->offset < p->expected) {
        history_broken(k, HISTORY_BACK_RULE, PLACE ": consumer %u was at %" PRId64 " already",
                       s->topic, s->partition, s->offset, k->consumer, p->expected);
    } else {
        skip(k, p, p->expected, s->offset);
        p->expected = s->offset + 1;
    }
    if (s->offset < p->position)
        history_broken(k, HISTORY_WATERMARK_RULE,
                       PLACE ": consumer %u: its position was %" PRId64 " before", s->topic,
                       s->partition, s->offset, k->consumer, p->position);
    if (s->hash_then != 0 && s->hash_then != s->hash)
        history_broken(k, HISTORY_UNSTABLE_RULE,
                       PLACE ": consumer %u, " WHO ": hash %" PRIx64 ", then %" PRIx64, s->topic,
                       s->partition, s->offset, k->consumer, s->producer, s->sequence, s->hash,
                       s->hash_then);

    history_check_content(k, s);
    const struct producer *by = sender(k, s);
    if (s->producer != HISTORY_DAMAGED && by != NULL)
        check_order(k, p, by, s);
}

static void begin_pass(struct check *k, struct part *p, const struct history_seen *s) {
    p->pass = ++k->passes;
    p->expected = s->offset;
    p->position = 0;
    memset(p->last, 0, k->producer_count * sizeof(*p->last));
}

static void gap(struct check *k, struct part *p, const struct history_seen *s) {
    int64_t to = (int64_t)s->sequence;
    k->report->gaps++;
    if (to < p->expected || s->offset < p->expected) {
        history_broken(k, HISTORY_GAP_RULE,
                       PLACE ": consumer %u goes back to %" PRId64 " from %" PRId64, s->topic,
                       s->partition, s->offset, k->consumer, to, p->expected);
        return;
    }
    k->report->skipped += (uint64_t)(to - p->expected);
    if (k->options->no_gaps)
        history_broken(k, HISTORY_GAP_RULE, PLACE ": consumer %u was told to go on at %" PRId64,
                       s->topic, s->partition, p->expected, k->consumer, to);
    if (to > history_sum(&k->table, s->topic, s->partition)->log_start)
        history_broken(k, HISTORY_GAP_RULE,
                       PLACE ": consumer %u was told to go on at %" PRId64
                             ", but the log began at %" PRId64 " at most",
                       s->topic, s->partition, p->expected, k->consumer, to,
                       history_sum(&k->table, s->topic, s->partition)->log_start);
    /* Memory that was lost goes on far ahead of what was there: also that is a loss. */
    struct history_sum *sum = history_sum(&k->table, s->topic, s->partition);
    if (to > sum->last_placed + 1 + (int64_t)k->report->unknown)
        history_broken(k, HISTORY_GAP_RULE,
                       PLACE ": consumer %u was told to go on at %" PRId64
                             ", but nobody was told of an offset behind %" PRId64,
                       s->topic, s->partition, p->expected, k->consumer, to, sum->last_placed);
    history_groups_passed(k, s->topic, s->partition, p->expected, to);
    p->expected = to;
}

static void complete(struct check *k, struct part *p, const struct history_seen *s) {
    struct history_sum *sum = history_sum(&k->table, s->topic, s->partition);
    sum->complete = true;
    if (s->offset > p->expected)
        skip(k, p, p->expected, s->offset);
    else if (s->offset < p->expected)
        history_broken(k, HISTORY_WATERMARK_RULE,
                       PLACE " is the end, but consumer %u saw all up to %" PRId64, s->topic,
                       s->partition, s->offset, k->consumer, p->expected);
    for (size_t i = 0; sum->last_acked >= s->offset && i < k->table.cell_count; i++) {
        const struct history_cell *c = history_cell_number(&k->table, i);
        if (c->topic == s->topic && c->partition == s->partition && c->offset >= s->offset &&
            (c->flags & HISTORY_CELL_ACKED))
            history_broken(k, HISTORY_LOST_RULE,
                           PLACE ": consumer %u finds the end at %" PRId64 ", before " WHO,
                           c->topic, c->partition, c->offset, k->consumer, s->offset, c->producer,
                           c->sequence);
    }
}

static void watermark(struct check *k, struct part *p, const struct history_seen *s) {
    int64_t position = (int64_t)s->hash;
    if (position >= 0 && p->pass != 0) {
        if (position < p->position || position < p->expected)
            history_broken(k, HISTORY_WATERMARK_RULE,
                           PLACE ": consumer %u: position %" PRId64 ", but it was %" PRId64
                                 " and saw all up to %" PRId64,
                           s->topic, s->partition, s->offset, k->consumer, position, p->position,
                           p->expected);
        p->position = position;
    }
}

static void forget_passes(struct check *k) {
    for (size_t i = 0; i < k->part_count; i++)
        k->parts[i].pass = 0;
}

static void walk(struct check *k, const struct history_log *log) {
    for (uint64_t i = 0; i < log->count; i++) {
        const struct history_seen *s = (const struct history_seen *)log->base + i;
        uint32_t kind = eg_load_relaxed(&s->kind);
        history_groups_entry(k, s);
        if (kind == HISTORY_MEMBER || kind == HISTORY_LEFT)
            forget_passes(k);
        if (kind >= HISTORY_MEMBER && kind != HISTORY_ASSIGNED && kind != HISTORY_REVOKED &&
            kind != HISTORY_PUT_OUT && kind <= HISTORY_GROUP_COMPLETE)
            continue;
        struct part *p = part_of(k, s);
        switch (kind) {
        case HISTORY_PASS:
        case HISTORY_ASSIGNED:
            begin_pass(k, p, s);
            break;
        case HISTORY_REVOKED:
        case HISTORY_PUT_OUT:
            p->pass = 0;
            break;
        case HISTORY_RECORD:
            see(k, p, s);
            break;
        case HISTORY_GAP:
            gap(k, p, s);
            break;
        case HISTORY_WATERMARK:
            watermark(k, p, s);
            break;
        case HISTORY_COMPLETE:
            complete(k, p, s);
            break;
        default:
            history_broken(k, HISTORY_LOG_RULE, "consumer %u, entry %" PRIu64 ": kind %u",
                           k->consumer, i, s->kind);
            break;
        }
    }
    history_groups_log_ends(k);
    for (size_t i = 0; i < k->part_count; i++)
        free(k->parts[i].last);
    k->part_count = 0;
}

/* ---- what can be said at the end only ------------------------------------------------------------------------ */

/* Each unit of a producer: where one record of it stands, the others stand beside it. */
static void check_batches(struct check *k, const struct producer *p) {
    for (uint64_t i = 0; i < p->log.count; i++) {
        const struct history_sent *s = sent_by(p, i);
        const struct fact *f = &p->facts[i];
        if (s->batch_size <= 1 || f->offset < 0)
            continue;
        for (uint64_t j = s->batch; j < s->batch + s->batch_size; j++) {
            struct history_cell *c =
                history_cell(&k->table, s->topic, f->partition, f->offset + (int64_t)(j - i));
            bool other =
                (c->flags & HISTORY_CELL_SEEN) && (c->producer != p->id || c->sequence != j);
            if (j >= p->log.count || other || (c->flags & HISTORY_CELL_SKIPPED))
                history_broken(k, HISTORY_TORN_RULE,
                               PLACE ": " WHO " is there, but not %" PRIu64 " of the same batch",
                               s->topic, f->partition, f->offset, p->id, i, j);
        }
    }
}

/* Unused offsets: each is a claim whose producer died or gave it up. */
static void check_holes(struct check *k) {
    for (size_t i = 0; i < k->table.cell_count; i++) {
        const struct history_cell *c = history_cell_number(&k->table, i);
        if (!(c->flags & HISTORY_CELL_SKIPPED) ||
            (c->flags & (HISTORY_CELL_ACKED | HISTORY_CELL_SEEN)))
            continue;
        k->report->pads++;
        if (!(c->flags & HISTORY_CELL_CLAIMED))
            history_sum(&k->table, c->topic, c->partition)->holes++;
    }
    for (size_t i = 0; i < k->producer_count; i++) {
        const struct producer *p = &k->producers[i];
        for (uint64_t j = 0; j < p->log.count; j++) {
            const struct history_sent *s = sent_by(p, j);
            bool open =
                s->offset < 0 && (s->state == HISTORY_INTENT || s->state == HISTORY_ABORTED);
            if (open && p->facts[j].offset < 0)
                history_sum(&k->table, s->topic, s->partition)->open++;
        }
    }
    for (size_t i = 0; i < k->table.sum_count; i++) {
        const struct history_sum *s = &k->table.sums[i];
        uint64_t anywhere = history_sum(&k->table, s->topic, -1)->open;
        s = &k->table.sums[i]; /* the list may have grown */
        if (s->holes > s->open + anywhere)
            history_broken(k, HISTORY_HOLE_RULE,
                           "topic %u partition %d: %" PRIu64 " unused offsets, but %" PRIu64
                           " records are in doubt",
                           s->topic, s->partition, s->holes, s->open + anywhere);
    }
}

static void check_completeness(struct check *k) {
    for (size_t i = 0; i < k->table.sum_count; i++) {
        const struct history_sum *s = &k->table.sums[i];
        if (k->options->need_complete && s->last_acked >= 0 && !s->complete)
            history_broken(k, HISTORY_LOST_RULE, "topic %u partition %d: nobody read it to its end",
                           s->topic, s->partition);
    }
}

static void check_marks(struct check *k, bool ends) {
    struct history_marks later;
    history_marks_sort(&k->table.marks, &later);
    const struct history_mark *highest = NULL;
    for (size_t i = 0, j = 0; i < later.count; i++) {
        const struct history_mark *m = &later.list[i];
        if (i == 0 || m->topic != later.list[i - 1].topic ||
            m->partition != later.list[i - 1].partition)
            highest = NULL;
        for (; j < k->table.marks.count; j++) {
            const struct history_mark *e = &k->table.marks.list[j];
            int side = history_mark_side(e, m);
            if (side > 0 || (side == 0 && e->after_ns >= m->before_ns))
                break;
            if (side == 0 && (highest == NULL ||
                              history_mark_value(e, ends) > history_mark_value(highest, ends)))
                highest = e;
        }
        if (highest != NULL && history_mark_value(m, ends) >= 0 &&
            history_mark_value(m, ends) < history_mark_value(highest, ends))
            history_broken(
                k, HISTORY_WATERMARK_RULE,
                "topic %u partition %d: %s: consumer %u saw %" PRId64 ", then consumer %u %" PRId64,
                m->topic, m->partition, ends ? "end" : "log start", highest->consumer,
                history_mark_value(highest, ends), m->consumer, history_mark_value(m, ends));
    }
    free(later.list);
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

static int compare_names(const struct dirent **a, const struct dirent **b) {
    unsigned long x = strtoul((*a)->d_name + 2, NULL, 10), y = strtoul((*b)->d_name + 2, NULL, 10);
    return x < y ? -1 : x > y;
}

static int is_log(const struct dirent *e) {
    return (e->d_name[0] == 'p' || e->d_name[0] == 'c') && e->d_name[1] == '-';
}

/* Log starts that anybody saw are needed before gaps can be judged. */
static int load_marks(struct check *k, const char *dir, uint32_t id) {
    struct history_log log;
    if (history_consumer_open(&log, dir, id, 1) != 0)
        return -1;
    for (uint64_t i = 0; i < log.count; i++) {
        const struct history_seen *s = (const struct history_seen *)log.base + i;
        if (s->kind == HISTORY_WATERMARK)
            history_mark_add(&k->table, id, s);
    }
    history_close(&log);
    k->report->consumers++;
    return 0;
}

static int walk_consumer(struct check *k, const char *dir, uint32_t id) {
    struct history_log log;
    if (history_consumer_open(&log, dir, id, 1) != 0)
        return -1;
    k->consumer = id;
    walk(k, &log);
    history_close(&log);
    return 0;
}

static int each(struct check *k, const char *dir, char kind, struct dirent **names, int count,
                int (*f)(struct check *k, const char *dir, uint32_t id)) {
    int rc = 0;
    for (int i = 0; i < count && rc == 0; i++)
        if (names[i]->d_name[0] == kind)
            rc = f(k, dir, (uint32_t)strtoul(names[i]->d_name + 2, NULL, 10));
    return rc;
}

int history_check(const char *dir, const struct history_options *options,
                  struct history_report *report) {
    static const struct history_options defaults;
    struct dirent **names;
    struct check k = {.options = options != NULL ? options : &defaults, .report = report};
    *report = (struct history_report){0};
    int count = scandir(dir, &names, is_log, compare_names);
    if (count < 0)
        return -1;
    history_table_init(&k.table);
    history_groups_init(&k);
    int rc = each(&k, dir, 'p', names, count, load_producer);
    if (rc == 0)
        rc = each(&k, dir, 'c', names, count, load_marks);
    if (rc == 0)
        rc = each(&k, dir, 'c', names, count, walk_consumer);
    if (rc == 0) {
        for (size_t i = 0; i < k.producer_count; i++)
            check_batches(&k, &k.producers[i]);
        check_holes(&k);
        check_completeness(&k);
        check_marks(&k, false);
        check_marks(&k, true);
        history_groups_check(&k);
        rc = report->violations > 0;
    }
    int saved = errno;
    for (size_t i = 0; i < k.producer_count; i++) {
        history_close(&k.producers[i].log);
        free(k.producers[i].facts);
    }
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    free(k.producers);
    free(k.parts);
    history_groups_free(&k);
    history_table_free(&k.table);
    errno = saved;
    return rc;
}

void history_print(FILE *out, const struct history_report *r) {
    (void)fprintf(out,
                  "%" PRIu64 " sent: %" PRIu64 " acknowledged, %" PRIu64 " in doubt (%" PRIu64
                  " are there), %" PRIu64 " failed, %" PRIu64 " given up; %" PRIu64
                  " seen, %" PRIu64 " unused offsets, %" PRIu64 " gaps of %" PRIu64 "; ",
                  r->sent, r->acked, r->unknown, r->unknown_seen, r->failed, r->aborted, r->seen,
                  r->pads, r->gaps, r->skipped);
    if (r->members > 0)
        (void)fprintf(out,
                      "%" PRIu64 " members, %" PRIu64 " partitions given, %" PRIu64
                      " lost, %" PRIu64 " commits, %" PRIu64 " shared, %" PRIu64
                      " of them acknowledged; ",
                      r->members, r->turns, r->put_out, r->commits, r->acquired, r->ended);
    (void)fprintf(out, "%" PRIu64 " violations\n", r->violations);
}
