/* Burials, turn by turn: what a turn does, who gets the next one, and when an owner number is free. */
#include "one_partition.h"

#include <sys/socket.h>

#include "burial.h"
#include "handlers.h"
#include "quota.h"

#define LONG (4u << 20) /* a segment of so many bytes, with frames of 8 */
#define TURNS_MAX 100000

static int socks[2];
static struct eg_account *account;

static int setup_burial(void **state) {
    int rc = setup(state);
    assert_int_equal(eg_config_init(&x.d.config), EAGRE_OK);
    x.d.config.keeper = EG_KEEPER_NONE;
    x.d.config.memory_max = 1 << 30;
    account = eg_account_take(&x.d, geteuid());
    assert_non_null(account);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
    return rc;
}

static void drop_topic(const char *name) {
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    assert_int_equal(eg_topic_delete(&x.d, &peer, name), EAGRE_OK);
}

static int teardown_burial(void **state) {
    eg_burials_forget(&x.d);
    while (x.d.topics->count > 0)
        drop_topic(eg_topic_name(x.d.topics->list[0]));
    close(socks[0]);
    close(socks[1]);
    eg_account_put(&x.d, account);
    return teardown(state);
}

static struct eg_partition *topic(const char *name) {
    struct eg_change changes[] = {{"storage", "memory"}, {"segment.bytes", "4M"}, {"record.alignment", "8"}};
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    uint32_t uid;
    int rc;
    if (eg_topic_create(&x.d, &peer, name, changes, 3, &uid) != EAGRE_OK)
        fail_msg("%s", eg_error_text());
    struct eg_partition *p = eg_topic_by_name(&x.d, name)->part[0];
    assert_int_equal(eg_partition_open(&x.d, p), EAGRE_OK);
    while ((rc = eg_buffer_allocate(&x.d, p, 0, LONG)) == EG_AGAIN) {}
    assert_int_equal(rc, EAGRE_OK);
    return p;
}

/* A client of this process, that produces to p and pins its first segment. */
static struct eg_client *client(struct eg_partition *p) {
    uint8_t in[64], out[256];
    struct eg_msg_header h;
    struct eg_enc ask, answer;
    struct eg_dec dec;
    struct eg_session s = {.fd = socks[0], .pid = getpid(), .uid = geteuid(), .account = account};
    struct eg_reply r = {.out = &answer};
    eg_enc_begin(&ask, in, sizeof(in), EG_MSG_ATTACH, 1, 0);
    eg_enc_u32(&ask, 0);
    eg_enc_u64(&ask, 0);
    size_t n = ask.used;
    assert_int_equal(eg_dec_begin(&dec, in, n, &h), EAGRE_OK);
    eg_enc_begin(&answer, out, sizeof(out), EG_MSG_ATTACH | EG_MSG_REPLY, 1, 0);
    if (eg_handle_ATTACH(&x.d, &s, &dec, &r) != EAGRE_OK)
        fail_msg("%s", eg_error_text());
    s.client->session = NULL;
    assert_int_equal(eg_client_grant_add(p->topic, s.client, true), EAGRE_OK);
    eg_store_release(&s.client->page->cells, 1);
    eg_store_release(&s.client->page->pin[0].pin, eg_pin_make(true, p->index, 0));
    return s.client;
}

static _Atomic uint64_t *word_at(struct eg_partition *p, uint64_t pos) {
    return &((struct eg_frame *)(void *)(p->buffers[0].base + pos))->word;
}

static uint64_t end; /* of the chain that is being made */

static void publish(struct eg_partition *p, uint32_t n) {
    for (; n > 0; n--, end += 8)
        eg_store_relaxed(word_at(p, end), eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, 8, 1, 0));
}

static _Atomic uint64_t *claim(struct eg_partition *p, const struct eg_client *c) {
    _Atomic uint64_t *w = word_at(p, end);
    eg_store_relaxed(w, eg_word_make(EG_CLAIMED, EG_KIND_DATA, false, 8, 1, c->entry->owner));
    end += 8;
    return w;
}

static bool is_pad(_Atomic uint64_t *word) {
    uint64_t w = eg_load_relaxed(word);
    return eg_word_state(w) == EG_PUBLISHED && eg_word_kind(w) == EG_KIND_PAD;
}

static bool is_free(uint32_t owner) { return x.d.clients->by_owner[owner] == NULL; }

static int64_t one_turn(void) { return eg_burials_work(&x.d, eg_mono_ns(), 0); }

static int turns_until_free(uint32_t owner) {
    int n = 0;
    for (; !is_free(owner); n++) {
        assert_true(n < TURNS_MAX);
        one_turn();
    }
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------------ */

static void a_long_chain_keeps_no_other_topic_waiting(void **state) {
    (void)state;
    struct eg_partition *a = topic("a"), *b = topic("b");
    struct eg_client *hostile = client(a), *other = client(b);
    uint32_t hostile_owner = hostile->entry->owner, other_owner = other->entry->owner;
    end = EG_SEGMENT_DATA;
    publish(a, 400000);
    _Atomic uint64_t *last = claim(a, hostile);
    end = EG_SEGMENT_DATA;
    publish(b, 10);
    _Atomic uint64_t *first = claim(b, other);
    assert_true(eg_client_bury(&x.d, hostile));
    assert_true(eg_client_bury(&x.d, other));
    assert_true(turns_until_free(other_owner) <= 8);
    assert_true(is_pad(first));
    assert_false(is_pad(last));
    assert_false(is_free(hostile_owner));
    assert_true(turns_until_free(hostile_owner) > 400000 / 4096 / 2); /* it was done in slices */
    assert_true(is_pad(last));
}

static void many_who_die_at_once_cost_one_walk(void **state) {
    (void)state;
    struct eg_partition *p = topic("a");
    struct eg_client *c[100];
    uint32_t owner[100];
    _Atomic uint64_t *w[100];
    end = EG_SEGMENT_DATA;
    publish(p, 100000);
    for (int i = 0; i < 100; i++) {
        c[i] = client(p);
        owner[i] = c[i]->entry->owner;
        w[i] = claim(p, c[i]);
    }
    for (int i = 0; i < 100; i++)
        assert_true(eg_client_bury(&x.d, c[i]));
    int turns = 0;
    for (int i = 0; i < 100; i++)
        turns += turns_until_free(owner[i]);
    for (int i = 0; i < 100; i++)
        assert_true(is_pad(w[i]));
    assert_true(turns <= 100000 / 4096 + 10 + 100); /* one ends in each call */
    assert_int_equal(x.d.clients->count, 0);
}

static void who_dies_during_a_walk_gets_another(void **state) {
    (void)state;
    struct eg_partition *p = topic("a");
    struct eg_client *a = client(p), *b = client(p), *alive = client(p);
    uint32_t owners[] = {a->entry->owner, b->entry->owner};
    end = EG_SEGMENT_DATA;
    publish(p, 10);
    _Atomic uint64_t *of_b = claim(p, b), *of_alive = claim(p, alive);
    publish(p, 100000);
    _Atomic uint64_t *of_a = claim(p, a);
    assert_true(eg_client_bury(&x.d, a));
    for (int i = 0; i < 5; i++)
        one_turn();
    assert_false(is_pad(of_a));
    assert_true(eg_client_bury(&x.d, b)); /* its claim lies behind the walk */
    for (int n = 0; !is_free(owners[0]) || !is_free(owners[1]); n++) {
        assert_true(n < TURNS_MAX);
        one_turn();
        assert_true(!is_free(owners[0]) || is_pad(of_a)); /* the number is free last */
        assert_true(!is_free(owners[1]) || is_pad(of_b));
    }
    uint64_t living = eg_load_relaxed(of_alive);
    assert_int_equal(eg_word_state(living), EG_CLAIMED); /* D1 */
    assert_int_equal(p->stable.pos, EG_SEGMENT_DATA + 11 * 8); /* the next walk begins there */
    uint32_t owner = alive->entry->owner;
    assert_true(eg_client_bury(&x.d, alive));
    assert_true(turns_until_free(owner) <= 100000 / 4096 + 10);
    assert_true(is_pad(of_alive));
}

static void a_topic_that_is_deleted_is_not_waited_for(void **state) {
    (void)state;
    struct eg_partition *p = topic("a");
    struct eg_client *c = client(p);
    uint32_t owner = c->entry->owner;
    end = EG_SEGMENT_DATA;
    publish(p, 100000);
    (void)claim(p, c);
    assert_true(eg_client_bury(&x.d, c));
    one_turn();
    drop_topic("a");
    assert_true(turns_until_free(owner) <= 2);
    assert_null(x.d.clients->repairs);
}

static void what_is_no_chain_ends_the_topic_and_the_burial(void **state) {
    (void)state;
    struct eg_partition *p = topic("a");
    struct eg_client *c = client(p);
    uint32_t owner = c->entry->owner;
    end = EG_SEGMENT_DATA;
    publish(p, 10);
    eg_store_relaxed(word_at(p, end), 0xdeadbeef);
    assert_true(eg_client_bury(&x.d, c));
    turns_until_free(owner);
    assert_true(eg_partition_failed(p));
}

static void the_end_of_a_long_chain_is_found_in_slices(void **state) {
    (void)state;
    struct eg_partition *p = topic("a");
    end = EG_SEGMENT_DATA;
    publish(p, 20000);
    /* The hint is where a producer stored it that had been stopped for long. */
    eg_store_relaxed(&eg_buffer_header(p, 0)->hint, eg_hint_make(EG_SEGMENT_DATA, 0));
    int64_t found = eg_partition_end(p);
    assert_false(p->end_found);
    assert_true(found < 20000);
    for (int i = 0; i < 10 && !p->end_found; i++)
        found = eg_partition_end(p);
    assert_true(p->end_found);
    assert_int_equal(found, 20000);
    publish(p, 5);
    assert_int_equal(eg_partition_end(p), 20005);
    assert_true(p->end_found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup_burial, teardown_burial)
        T(a_long_chain_keeps_no_other_topic_waiting),
        T(many_who_die_at_once_cost_one_walk),
        T(who_dies_during_a_walk_gets_another),
        T(a_topic_that_is_deleted_is_not_waited_for),
        T(what_is_no_chain_ends_the_topic_and_the_burial),
        T(the_end_of_a_long_chain_is_found_in_slices),
    };
    return cmocka_run_group_tests_name("unit/daemon/burial", tests, NULL, NULL);
}
