#include "harness_disk.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void eg_cold_kill(struct eg_test_bus *b) {
    pid_t keeper = eg_bus_keeper(b);
    assert_true(keeper > 0);
    kill(b->pid, SIGSTOP); /* else it starts another one */
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
    eg_bus_kill(b);
}

void eg_disk_open(struct eg_test_bus *b, eagre_acks_t acks, const char *const *settings) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_setting_t s[24] = {{"storage", "disk"},         {"segment.bytes", "64K"}, {"ring.segments", "3"},
                             {"retention.ms", "-1"},      {"retention.bytes", "-1"}, {"flush.ms", "86400000"},
                             {"timestamp.precision", "ns"}};
    char text[24][64];
    size_t n = 7;
    for (size_t i = 0; settings != NULL && settings[i] != NULL; i++) {
        const char *equals = strchr(settings[i], '=');
        snprintf(text[i], sizeof(text[i]), "%.*s", (int)(equals - settings[i]), settings[i]);
        size_t k = 0;
        while (k < n && strcmp(s[k].name, text[i]) != 0)
            k++;
        s[k] = (eagre_setting_t){text[i], equals + 1};
        n += k == n;
    }
    o.acks = acks;
    o.max_block_ms = -1;
    OK(eagre_open(b->socket, &e));
    int rc = eagre_topic_create(e, "t", s, n);
    if (rc != EAGRE_OK && rc != EAGRE_E_TOPIC_EXISTS)
        fail_msg("%s", eagre_error_detail());
    OK(eagre_producer_open(e, "t", &o, &p));
}

void eg_disk_close(void) { eg_client_close(); }

size_t eg_value_make(size_t number, char *to, size_t cap) {
    size_t length = 10 + number * 37 % 500;
    assert_true(length < cap);
    memset(to, 'a' + (int)(number % 26), length);
    int n = snprintf(to, cap, "%zu", number);
    to[n] = '.';
    return length;
}

int eg_ledger_put(struct eg_ledger *l, bool acked) {
    char value[600];
    assert_true(l->count < EG_LEDGER_MAX);
    struct eg_ledger_entry *to = &l->entry[l->count];
    eagre_message_t m = {.value = value, .value_len = eg_value_make(l->count, value, sizeof(value)), .partition = 0};
    *to = (struct eg_ledger_entry){.generation = l->generation, .offset = -1};
    int rc = eagre_produce(p, &m, NULL, &to->offset);
    if (to->offset < 0)
        return rc;
    to->acked = acked && rc == EAGRE_OK;
    if (l->count > 0 && to->offset <= to[-1].offset)
        fail_msg("offset %" PRId64 " comes after %" PRId64, to->offset, to[-1].offset);
    l->count++;
    return rc;
}

void eg_ledger_flushed(struct eg_ledger *l) {
    for (size_t i = 0; i < l->count; i++)
        l->entry[i].acked |= !l->entry[i].lost;
}

void eg_ledger_see(struct eg_ledger_reader *at, const eagre_record_t *r) {
    char value[600];
    struct eg_ledger *l = at->l;
    for (; at->next < l->count && l->entry[at->next].offset < r->offset; at->next++)
        if (!l->entry[at->next].lost)
            fail_msg("entry %zu, offset %" PRId64 "%s, is missing before offset %" PRId64, at->next, l->entry[at->next].offset,
                     l->entry[at->next].acked ? " (acknowledged)" : "", r->offset);
    if (at->next == l->count || l->entry[at->next].offset != r->offset)
        fail_msg("nobody sent what is at offset %" PRId64, r->offset);
    if (l->entry[at->next].lost)
        fail_msg("offset %" PRId64 " is back", r->offset);
    size_t length = eg_value_make(at->next, value, sizeof(value));
    if (r->value_len != length || memcmp(r->value, value, length) != 0)
        fail_msg("offset %" PRId64 " is not entry %zu: '%.*s'", r->offset, at->next, (int)r->value_len, (const char *)r->value);
    at->next++;
}

void eg_ledger_check(struct eg_ledger *l, struct eg_test_bus *b) {
    eagre_t *own;
    eagre_consumer_t *from;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    static bool found[EG_LEDGER_MAX];
    static eagre_record_t r[512];
    int64_t at = 0, end = 0;
    struct eg_ledger_reader reader = {.l = l};
    o.auto_offset_reset = EAGRE_RESET_NONE;
    OK(eagre_open(b->socket, &own));
    OK(eagre_consumer_open(own, &o, &from));
    OK(eagre_consumer_assign(from, "t", 0));
    OK(eagre_consumer_seek(from, "t", 0, EAGRE_OFFSET_BEGINNING));
    OK(eagre_consumer_end_offset(from, "t", 0, &end));
    memset(found, 0, sizeof(found));
    while (at < end) {
        size_t n = 0;
        OK(eagre_consumer_poll(from, r, 512, 100, &n));
        for (size_t i = 0; i < n; i++) {
            /* Skip what may be missing; then it must fit. */
            while (reader.next < l->count && l->entry[reader.next].offset < r[i].offset && !l->entry[reader.next].acked &&
                   !found[reader.next])
                l->entry[reader.next++].lost = true;
            eg_ledger_see(&reader, &r[i]);
            found[reader.next - 1] = true;
        }
        OK(eagre_consumer_position(from, "t", 0, &at));
    }
    for (size_t i = 0; i < l->count; i++) {
        struct eg_ledger_entry *x = &l->entry[i];
        if (!found[i] && x->acked)
            fail_msg("entry %zu, offset %" PRId64 ", was acknowledged and is lost; the log goes from %" PRId64 " to %" PRId64, i,
                     x->offset, eg_beginning(), end);
        if (found[i] && i > 0 && x[-1].lost && x[-1].generation == x->generation)
            fail_msg("entry %zu is lost, but %zu is there", i - 1, i);
        x->lost = !found[i];
        x->acked |= found[i];
    }
    eagre_consumer_close(from);
    OK(eagre_close(own));
}

size_t eg_count_files(const struct eg_test_bus *b, uint64_t *first) {
    char path[200];
    size_t n = 0;
    eagre_topic_info_t *info;
    OK(eagre_topic_describe(e, "t", &info));
    snprintf(path, sizeof(path), "%s/log/t%u/0", b->data, info->uid);
    eagre_topic_info_free(info);
    DIR *d = opendir(path);
    if (first != NULL)
        *first = UINT64_MAX;
    for (struct dirent *x; d != NULL && (x = readdir(d)) != NULL;) {
        uint64_t seq;
        int at = 0;
        if (sscanf(x->d_name, "%20" SCNu64 ".log%n", &seq, &at) == 1 && at > 0 && x->d_name[at] == '\0') {
            n++;
            if (first != NULL && seq < *first)
                *first = seq;
        }
    }
    if (d != NULL)
        closedir(d);
    return n;
}

static int64_t edge(int (*of)(eagre_consumer_t *, const char *, int32_t, int64_t *)) {
    eagre_consumer_t *from;
    int64_t offset = -1;
    OK(eagre_consumer_open(e, NULL, &from));
    OK(eagre_consumer_assign(from, "t", 0));
    OK(of(from, "t", 0, &offset));
    eagre_consumer_close(from);
    return offset;
}

int64_t eg_beginning(void) { return edge(eagre_consumer_beginning_offset); }
int64_t eg_end(void) { return edge(eagre_consumer_end_offset); }
