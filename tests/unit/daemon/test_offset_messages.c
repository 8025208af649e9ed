/* Messages about committed offsets: who may, what they say, and that no field of them is believed. */
#include "one_member.h"

#include "handlers.h"
#include "sys/rand.h"

static uint8_t request[EG_MSG_MAX], answer[EG_MSG_MAX];
static struct eg_enc req;
static struct eg_dec reply;
static struct eg_session session;

static int setup_messages(void **state) {
    int rc = setup_groups(state);
    g->owner_uid = 4711;
    m.client = &x.consumer;
    all->by_number[m.id % EG_MEMBERS_MAX + 1] = &m;
    x.d.config.groups_max = x.d.config.groups_max_per_uid = 10;
    session = (struct eg_session){.client = &x.consumer, .uid = 4711, .fd = -1};
    return rc;
}

static struct eg_enc *ask(void) {
    eg_enc_begin(&req, request, sizeof(request), 0, 0, 0);
    return &req;
}

/* What it answers to what was encoded; the first `bytes` of it, if they are less. */
static int sent(eg_handler *handler, size_t bytes) {
    struct eg_enc out;
    struct eg_reply r = {.out = &out};
    size_t head = sizeof(struct eg_msg_header);
    bytes = bytes < req.used - head ? bytes : req.used - head;
    uint8_t *copy = malloc(bytes + 1); /* whoever reads beyond is caught */
    memcpy(copy, request + head, bytes);
    struct eg_dec in = {.data = copy, .left = bytes};
    assert_false(req.overflow);
    eg_enc_begin(&out, answer, sizeof(answer), 0, 0, 0);
    int rc = handler(&x.d, &session, &in, &r);
    free(copy);
    assert_false(rc == EAGRE_OK && out.overflow);
    reply = (struct eg_dec){.data = answer + head, .left = out.used - head};
    return rc;
}

static int send_all(eg_handler *handler) { return sent(handler, SIZE_MAX); }

/* ---- GROUP_COMMIT -------------------------------------------------------------------------------------------- */

static void begin_commit(uint64_t member, uint16_t n) {
    eg_enc_u64(ask(), member);
    eg_enc_u64(&req, 1);
    eg_enc_u16(&req, n);
}

static void add_commit(uint32_t topic_uid, uint32_t partition, int64_t offset, const char *metadata) {
    eg_enc_u32(&req, topic_uid);
    eg_enc_u32(&req, partition);
    eg_enc_i64(&req, offset);
    eg_enc_str(&req, metadata);
}

static int commit_with(int64_t offset, const char *metadata) {
    commit(offset);
    begin_commit(m.id, 1);
    add_commit(x.t->meta.uid, 0, offset, metadata);
    return send_all(eg_handle_GROUP_COMMIT);
}

static const char *metadata_of(uint32_t partition) {
    const struct eg_committed *o = eg_offset_find(g, x.t->meta.uid, partition);
    return o != NULL && o->metadata != NULL ? o->metadata : "-";
}

static void commits_for_members(void **state) {
    uint32_t uid = x.t->meta.uid;
    (void)state;
    commit(5);
    begin_commit(m.id, 0);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), 0);
    assert_int_equal(committed(0), 5);
    (void)tick(0); /* nobody waits a second */
    assert_true(all->writer->submitted);
    assert_true(eg_io_wait(x.d.disk_io));
    assert_int_equal(page->stored, 1);
    begin_commit(m.id, 0); /* nothing is new: told at once */
    commit(5);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), 0);
    assert_int_equal(page->stored, 2);

    assert_int_equal(commit_with(6, "six"), 0);
    assert_string_equal(metadata_of(0), "six");
    /* The answer to one was lost, a later one has none: the later one counts. */
    commit(8);
    begin_commit(m.id, 1);
    add_commit(uid, 0, 7, "seven");
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), 0);
    assert_int_equal(committed(0), 8);
    assert_string_equal(metadata_of(0), "-");

    /* Of a member of the past; of another client; without being one. */
    begin_commit(m.id + 1, 0);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), EAGRE_E_FENCED);
    session.client = &x.producer;
    begin_commit(m.id, 0);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), EAGRE_E_FENCED);
    session.client = NULL;
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), EAGRE_E_STATE);
    session.client = &x.consumer;

    /* All or none: what is not the member's, what is not in the log. */
    static const struct {
        uint32_t topic, partition;
        int64_t offset;
        int status;
    } bad[] = {{0, 1, 5, EAGRE_E_STATE},  {0, 4, 5, EAGRE_E_TOPIC_DELETED},          {9, 0, 5, EAGRE_E_TOPIC_DELETED},
               {0, 0, -1, EAGRE_E_OFFSET_OUT_OF_RANGE}, {0, 0, 101, EAGRE_E_OFFSET_OUT_OF_RANGE},
               {0, 0, INT64_MIN, EAGRE_E_OFFSET_OUT_OF_RANGE}, {0, 0, INT64_MAX, EAGRE_E_OFFSET_OUT_OF_RANGE}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        begin_commit(m.id, 2);
        add_commit(uid, 0, 8, "eight");
        add_commit(uid + bad[i].topic, bad[i].partition, bad[i].offset, "bad");
        assert_int_equal(send_all(eg_handle_GROUP_COMMIT), bad[i].status);
        assert_string_equal(metadata_of(0), "-");
    }
}

static int send_commit(void) {
    begin_commit(m.id, 0);
    return send_all(eg_handle_GROUP_COMMIT);
}

static void assert_refused(const char *offset) {
    const char *const says[] = {"topic 't' partition 0", offset, "ends at 100"};
    assert_int_equal(send_commit(), EAGRE_E_OFFSET_OUT_OF_RANGE);
    for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++)
        if (strstr(eg_error_text(), says[i]) == NULL)
            fail_msg("'%s' is not in: %s", says[i], eg_error_text());
}

/* A cell that says what the log does not have is not taken silently, whoever looks at it first. */
static void refuses_a_cell_beyond_the_log(void **state) {
    (void)state;
    commit(5);
    assert_int_equal(send_commit(), 0);
    write_all();
    assert_int_equal(page->stored, 1);
    commit(5000);
    assert_refused("5000");
    assert_refused("5000");
    commit(-7);
    write_all(); /* it was looked at before somebody asks */
    assert_refused("-7");
    assert_int_equal(committed(0), 5);
    assert_int_equal(page->stored, 1);
    commit(101);
    assert_refused("101");
    assert_int_equal(produce(), 0);
    assert_int_equal(send_commit(), 0); /* there is such a one now */
    assert_int_equal(committed(0), 101);
    write_all();
    assert_int_equal(page->stored, page->commits);
}

/* ---- GROUP_PUT, GROUP_COMMITTED --------------------------------------------------------------------------------- */

static void begin_put(const char *group, uint16_t n) {
    eg_enc_str(ask(), group);
    eg_enc_u8(&req, EG_GROUP_CONSUMER);
    eg_enc_u16(&req, n);
}

static void add_put(const char *topic, uint32_t partition, int64_t offset, const char *metadata) {
    eg_enc_str(&req, topic);
    eg_enc_u32(&req, partition);
    eg_enc_i64(&req, offset);
    eg_enc_str(&req, metadata);
}

static int put_one(const char *group, int64_t offset) {
    begin_put(group, 1);
    add_put("t", 0, offset, "");
    return send_all(eg_handle_GROUP_PUT);
}

static void leave(void) {
    g->members = NULL;
    g->member_count = all->member_count = 0;
}

static void puts_for_who_may(void **state) {
    (void)state;
    assert_int_equal(put_one("g", 5), EAGRE_E_GROUP_ACTIVE);
    leave();
    assert_int_equal(put_one("g", 5), 0);
    restart(false); /* it is in the database */
    g->owner_uid = 4711;
    assert_int_equal(committed(0), 5);
    assert_int_equal(put_one("g", 101), EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_int_equal(put_one("g", -2), EAGRE_E_OFFSET_OUT_OF_RANGE);
    session.uid = 4712;
    assert_int_equal(put_one("g", 6), EAGRE_E_PERMISSION);
    session.uid = 0;
    assert_int_equal(put_one("g", 7), 0);
    session.uid = 4711;
    begin_put("g", 3);
    add_put("t", 1, 0, "one");
    add_put("t", 0, -1, "");
    add_put("t", 4, 0, "four"); /* there is none: nothing of it is done */
    assert_int_equal(send_all(eg_handle_GROUP_PUT), EAGRE_E_UNKNOWN_PARTITION);
    assert_int_equal(committed(0), 7);
    begin_put("g", 1);
    add_put("unknown", 0, 0, "");
    assert_int_equal(send_all(eg_handle_GROUP_PUT), EAGRE_E_UNKNOWN_TOPIC);
    begin_put("g", 2);
    add_put("t", 1, 0, "one");
    add_put("t", 0, -1, "");
    assert_int_equal(send_all(eg_handle_GROUP_PUT), 0);
    assert_int_equal(committed(0), -1);
    assert_int_equal(committed(1), 0);
    assert_string_equal(metadata_of(1), "one");

    /* A group that is not there is made, for this user; a name that is none is not. */
    assert_int_equal(put_one("", 5), EAGRE_E_INVALID);
    assert_int_equal(put_one("h", 5), 0);
    struct eg_group *h = eg_group_find(&x.d, "h");
    assert_non_null(h);
    assert_int_equal(h->owner_uid, 4711);
    assert_int_equal(eg_offset_find(h, x.t->meta.uid, 0)->offset, 5);
    assert_int_equal(eg_group_delete(&x.d, h), 0);
    join();
}

static void tells_what_is_committed(void **state) {
    char text[16];
    (void)state;
    commit(6);
    assert_int_equal(commit_with(6, "six"), 0);
    commit(7); /* fresh */
    for (int known = 1; known >= 0; known--) {
        eg_enc_str(ask(), known ? "g" : "unknown");
        eg_enc_u16(&req, 2);
        eg_enc_str(&req, "t");
        eg_enc_u32(&req, 0);
        eg_enc_str(&req, "t");
        eg_enc_u32(&req, 3);
        session.uid = 4712; /* anybody may */
        assert_int_equal(send_all(eg_handle_GROUP_COMMITTED), 0);
        assert_int_equal(eg_dec_u16(&reply), 2);
        assert_int_equal(eg_dec_i64(&reply), known ? 7 : -1);
        assert_true((eg_dec_i64(&reply) > 0) == known);
        assert_int_equal(eg_dec_u8(&reply), 0);
        eg_dec_str(&reply, text, sizeof(text));
        assert_string_equal(text, "");
        assert_int_equal(eg_dec_i64(&reply), -1);
        assert_int_equal(eg_dec_i64(&reply), 0);
        assert_int_equal(eg_dec_u8(&reply), 0);
        eg_dec_str(&reply, text, sizeof(text));
        assert_true(eg_dec_end(&reply));
    }
    eg_enc_str(ask(), "g");
    eg_enc_u16(&req, 1);
    eg_enc_str(&req, "t");
    eg_enc_u32(&req, 4);
    assert_int_equal(send_all(eg_handle_GROUP_COMMITTED), EAGRE_E_UNKNOWN_PARTITION);
    eg_enc_str(ask(), "g"); /* more than a reply can hold */
    eg_enc_u16(&req, 5000);
    for (int i = 0; i < 5000; i++) {
        eg_enc_str(&req, "t");
        eg_enc_u32(&req, 0);
    }
    assert_int_equal(send_all(eg_handle_GROUP_COMMITTED), EAGRE_E_LIMIT);
}

/* ---- GROUP_OFFSETS -------------------------------------------------------------------------------------------------- */

struct row {
    uint32_t partition;
    int64_t committed, end;
    uint64_t member;
    size_t metadata;
};

/* The reply's rows; all of topic t. */
static size_t rows(struct row *list, size_t cap, bool *more) {
    static char text[EG_METADATA_MAX + 1];
    *more = eg_dec_u8(&reply) != 0;
    size_t n = eg_dec_u16(&reply);
    assert_true(n <= cap);
    for (size_t i = 0; i < n; i++) {
        eg_dec_str(&reply, text, sizeof(text));
        assert_string_equal(text, "t");
        list[i].partition = eg_dec_u32(&reply);
        list[i].committed = eg_dec_i64(&reply);
        assert_int_equal(eg_dec_i64(&reply), eg_load_relaxed(&x.p->status->log_start));
        list[i].end = eg_dec_i64(&reply);
        list[i].member = eg_dec_u64(&reply);
        assert_true((eg_dec_i64(&reply) > 0) == (list[i].committed >= 0));
        (void)eg_dec_u8(&reply);
        eg_dec_str(&reply, text, sizeof(text));
        list[i].metadata = strlen(text);
    }
    assert_true(eg_dec_end(&reply));
    return n;
}

static int offsets(const char *group, uint32_t skip) {
    eg_enc_str(ask(), group);
    eg_enc_u32(&req, skip);
    session.uid = 4712; /* anybody may */
    return send_all(eg_handle_GROUP_OFFSETS);
}

static void lists_what_is_committed_or_held(void **state) {
    struct row r[8];
    bool more;
    (void)state;
    struct eg_given two[] = {given, given};
    two[0].partition = 3;
    m.given = two;
    m.given_count = 2;
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 2, 0, 0, "text"), 0);
    assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, 1, -1, 0, NULL), 0);
    commit(40);
    assert_int_equal(offsets("g", 0), 0);
    assert_int_equal(rows(r, 8, &more), 3);
    assert_false(more);
    assert_true(r[0].partition == 0 && r[0].committed == 40 && r[0].end == 100 && r[0].member == m.id);
    assert_true(r[1].partition == 2 && r[1].committed == 0 && r[1].end == 0 && r[1].member == 0 && r[1].metadata == 4);
    assert_true(r[2].partition == 3 && r[2].committed == -1 && r[2].end == 0 && r[2].member == m.id);
    assert_int_equal(offsets("g", 2), 0);
    assert_int_equal(rows(r, 8, &more), 1);
    assert_int_equal(r[0].partition, 3);
    assert_int_equal(offsets("g", 3), 0);
    assert_int_equal(rows(r, 8, &more), 0);
    assert_int_equal(offsets("unknown", 0), EAGRE_E_UNKNOWN_GROUP);
    m.given = &given;
    m.given_count = 1;
}

/* More than fits one message, with metadata as long as they may be: all of it, once each. */
static void lists_in_parts(void **state) {
    enum { MANY = 40 };
    char text[EG_METADATA_MAX + 1];
    struct row r[MANY];
    bool more = true;
    uint32_t skip = 0, requests = 0;
    (void)state;
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    struct eg_change grow = {"partitions", "40"};
    assert_int_equal(eg_topic_alter(&x.d, &peer, "t", &grow, 1), 0);
    memset(text, 'x', EG_METADATA_MAX);
    text[EG_METADATA_MAX] = '\0';
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(eg_offset_set(&x.d, g, x.t->meta.uid, i, 0, 0, text), 0);
    for (; more; requests++) {
        assert_int_equal(offsets("g", skip), 0);
        size_t n = rows(r, MANY, &more);
        for (size_t i = 0; i < n; i++, skip++) {
            assert_int_equal(r[i].partition, skip);
            assert_int_equal(r[i].metadata, EG_METADATA_MAX);
        }
    }
    assert_int_equal(skip, MANY);
    assert_true(requests >= 3);
}

/* ---- anything ----------------------------------------------------------------------------------------------------------- */

static eg_handler *const handlers[] = {eg_handle_GROUP_COMMIT, eg_handle_GROUP_COMMITTED, eg_handle_GROUP_PUT,
                                       eg_handle_GROUP_OFFSETS};

/* Cut off anywhere, with more behind it, counts that are wrong: refused, and nothing is changed. */
static void refuses_what_is_malformed(void **state) {
    char text[EG_METADATA_MAX + 2];
    (void)state;
    commit(9);
    begin_commit(m.id, 1);
    add_commit(x.t->meta.uid, 0, 9, "nine");
    for (size_t n = 0; n + sizeof(struct eg_msg_header) < req.used; n++)
        assert_int_equal(sent(eg_handle_GROUP_COMMIT, n), EAGRE_E_PROTOCOL);
    eg_enc_u8(&req, 0);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), EAGRE_E_PROTOCOL);
    begin_commit(m.id, UINT16_MAX);
    assert_int_equal(send_all(eg_handle_GROUP_COMMIT), EAGRE_E_PROTOCOL);
    assert_int_equal(committed(0), -1);
    leave();
    begin_put("g", 1);
    add_put("t", 0, 9, "nine");
    for (size_t n = 0; n + sizeof(struct eg_msg_header) < req.used; n++)
        assert_int_equal(sent(eg_handle_GROUP_PUT, n), EAGRE_E_PROTOCOL);
    begin_put("g", UINT16_MAX);
    assert_int_equal(send_all(eg_handle_GROUP_PUT), EAGRE_E_PROTOCOL);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    begin_put("g", 1);
    add_put("t", 0, 9, text); /* longer than metadata may be */
    assert_int_equal(send_all(eg_handle_GROUP_PUT), EAGRE_E_PROTOCOL);
    assert_int_equal(committed(0), -1);
    join();
}

static void survives_any_bytes(void **state) {
    uint64_t rand = 1;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        eg_handler *handler = handlers[eg_rand_next(&rand) % 4];
        size_t n = eg_rand_next(&rand) % 100;
        if (i % 2 == 0) {
            begin_commit(m.id, (uint16_t)(eg_rand_next(&rand) % 3));
            add_commit(x.t->meta.uid, (uint32_t)(eg_rand_next(&rand) % 5), (int64_t)(eg_rand_next(&rand) % 120), "m");
        } else {
            begin_put(i % 3 == 0 ? "g" : "", (uint16_t)(eg_rand_next(&rand) % 3));
            add_put("t", (uint32_t)(eg_rand_next(&rand) % 5), (int64_t)(eg_rand_next(&rand) % 120), "m");
        }
        for (size_t k = 0; k < n % 7; k++)
            request[sizeof(struct eg_msg_header) + eg_rand_next(&rand) % 40] = (uint8_t)eg_rand_next(&rand);
        (void)sent(handler, n % 3 == 0 ? n : SIZE_MAX);
        assert_true(committed(0) <= 100 && committed(1) <= 0 && committed(4) == -1);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_messages, teardown_groups)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(commits_for_members),
        TEST(refuses_a_cell_beyond_the_log),
        TEST(puts_for_who_may),
        TEST(tells_what_is_committed),
        TEST(lists_what_is_committed_or_held),
        TEST(lists_in_parts),
        TEST(refuses_what_is_malformed),
        TEST(survives_any_bytes),
    };
    return cmocka_run_group_tests_name("offset_messages", tests, NULL, NULL);
}
