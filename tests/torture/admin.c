/* An administrator: creates what is not there yet, grows and alters topics, and makes, uses and deletes some of
 * its own, beside all that the others do. */
#include <stdlib.h>
#include <string.h>

#include "eagre/admin.h"
#include "eagre/producer.h"
#include "sys/atomic.h"
#include "torture/client.h"
#include "torture/round.h"

/* The daemon may die with the request: then it happened or not. Other failures are complained of. */
static bool done(int rc, int also, const char *call) { return rc == also || torture_ok(rc, call); }

static void create(struct torture_client *k, uint32_t number) {
    int rc = torture_create(k->e, &k->control->topic[number], number, 1);
    if (done(rc, EAGRE_E_TOPIC_EXISTS, "eagre_topic_create"))
        (void)eg_cas_acq_rel(&k->control->topic[number].partitions, &(uint32_t){0}, 1);
}

static void grow(struct torture_client *k, uint32_t number) {
    struct torture_topic *t = &k->control->topic[number];
    char name[16], count[16];
    uint32_t partitions = eg_load_relaxed(&t->partitions);
    eagre_topic_info_t *info;
    if (partitions == TORTURE_PARTITIONS)
        return;
    (void)snprintf(count, sizeof(count), "%u", partitions + 1);
    const eagre_setting_t more = {"partitions", count};
    /* Refused if a request of which we heard no more did it already. */
    int rc = eagre_topic_alter(k->e, torture_topic_name(name, number), &more, 1);
    if (!done(rc, EAGRE_E_INVALID_CONFIG, "eagre_topic_alter") ||
        !torture_ok(eagre_topic_describe(k->e, name, &info), "eagre_topic_describe"))
        return;
    if (info->partition_count < partitions + (rc == EAGRE_OK ? 1 : 0))
        torture_complain("%s has %zu partitions, but was made to have %u", name,
                         info->partition_count, partitions + 1);
    while (partitions < info->partition_count &&
           !eg_cas_acq_rel(&t->partitions, &partitions, (uint32_t)info->partition_count)) {}
    eagre_topic_info_free(info);
}

static void alter(struct torture_client *k, uint32_t number) {
    char name[16];
    const eagre_setting_t precision = {"timestamp.precision",
                                       torture_chance(k, 2) ? "ns" : "coarse"};
    torture_ok(eagre_topic_alter(k->e, torture_topic_name(name, number), &precision, 1),
               "eagre_topic_alter");
}

/* A topic of its own: deleted under its producer. */
static void scratch(struct torture_client *k) {
    static const eagre_setting_t small[] = {
        {"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", "2"}};
    char name[32];
    eagre_producer_t *p = NULL;
    (void)snprintf(name, sizeof(name), "scratch%u", torture_pick(k, 3));
    if (!done(eagre_topic_create(k->e, name, small, 3), EAGRE_E_TOPIC_EXISTS, "eagre_topic_create"))
        return;
    int rc = eagre_producer_open(k->e, name, NULL, &p);
    if (done(rc, EAGRE_OK, "eagre_producer_open")) {
        eagre_message_t m = {
            .value = name, .value_len = sizeof(name), .partition = EAGRE_PARTITION_ANY};
        for (uint32_t n = torture_pick(k, 2000); n > 0 && rc == EAGRE_OK; n--)
            rc = eagre_produce(p, &m, NULL, NULL);
        torture_ok(rc, "eagre_produce to a topic of its own");
    }
    while (!done(eagre_topic_delete(k->e, name), EAGRE_E_UNKNOWN_TOPIC, "eagre_topic_delete"))
        if (torture_phase(k) != TORTURE_RUN)
            break;
    eagre_producer_close(p);
}

void torture_administer(struct torture_client *k) {
    eagre_status_entry_t *status;
    eagre_topic_entry_t *topics;
    size_t n;
    while (torture_phase(k) == TORTURE_RUN) {
        uint32_t number = torture_pick(k, k->control->topics);
        if (eg_load_relaxed(&k->control->topic[number].partitions) == 0)
            create(k, number);
        else if (torture_chance(k, 4))
            grow(k, number);
        else if (torture_chance(k, 3))
            alter(k, number);
        else if (torture_chance(k, 2))
            scratch(k);
        else if (torture_ok(eagre_topic_list(k->e, &topics, &n), "eagre_topic_list"))
            free(topics);
        if (torture_chance(k, 4) &&
            torture_ok(eagre_daemon_status(k->e, &status, &n), "eagre_daemon_status"))
            free(status);
        torture_pause_us(torture_pick(k, 100000));
    }
}
