/*
 * A daemon that lies: whatever it answers, libeagre returns a status and stays in order. The socket's calls are
 * ours (--wrap), so the input says for each request what comes back: the right answer, or any other.
 *
 *   u8 n, n x (u8 object, u16 word, u64 value): lies in the shared objects
 *   u8 m, m x replies: u8 how: 0: right; bits: 1: u8 n, n x u8 objects as descriptors instead,
 *                      2: u16 length, the body instead, 4: i8 status, 8: wrong id or type, 16: cut short,
 *                      32: the connection ends
 *   then u8 calls of the API
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "fuzz/fuzz.h"
#include "layout/layout.h"
#include "proto/codec.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "sys/shm.h"

#define SLOTS 3u
#define SEGMENT (64u << 10)
#define UID 77u
#define INSTANCE 5u
#define CALLS_MAX 24
#define REQUESTS_MAX 200

enum object {
    BUS,
    BELLS,
    PAGE,
    STATUS,
    RING,
    WAITERS,
    BUFFER0,
    BUFFER1,
    BUFFER2,
    SMALL,
    SHORT,
    OBJECTS
};
static const size_t sizes[OBJECTS] = {EG_PAGE,
                                      sizeof(struct eg_bells),
                                      sizeof(struct eg_client_page),
                                      2 * EG_PAGE,
                                      0,
                                      EG_PAGE,
                                      SEGMENT,
                                      SEGMENT,
                                      SEGMENT,
                                      100,
                                      EG_PAGE};
static int object_fd[OBJECTS], event_fd, null_fd;
static uint8_t *object[OBJECTS];
static size_t object_bytes[OBJECTS];

static struct fuzz_in
    replies; /* what is left of the input, of which the API's calls are taken, too */
static uint32_t replies_left, requests;
static struct eg_msg_header asked;
static uint8_t asked_body[512];

/* ---- what a good daemon would have -------------------------------------------------------------------- */

static void make_objects(void) {
    if (object[BUS] != NULL)
        return;
    for (int i = 0; i < OBJECTS; i++) {
        void *at;
        object_bytes[i] = i == RING ? eg_ring_stride(SLOTS, SEGMENT) : sizes[i];
        FUZZ_REQUIRE(eg_memfd_create("fuzz", object_bytes[i], false, &object_fd[i]) == EAGRE_OK);
        FUZZ_REQUIRE(eg_map(object_fd[i], 0, object_bytes[i], true, &at) == EAGRE_OK);
        object[i] = at;
    }
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void fill_objects(void) {
    struct eg_bus *bus = (struct eg_bus *)(void *)object[BUS];
    struct eg_topic_status *t = (struct eg_topic_status *)(void *)object[STATUS];
    struct eg_ring *ring = (struct eg_ring *)(void *)object[RING];
    for (int i = 0; i < OBJECTS; i++)
        if (i != BELLS) /* large, and only words of it are used */
            memset(object[i], 0, object_bytes[i]);
    memset(object[BELLS], 0, EG_PAGE);
    eg_magic_init(&bus->magic);
    bus->instance_id = INSTANCE;
    eg_store_relaxed(&bus->state, EG_BUS_RUNNING);
    eg_magic_publish(&bus->magic, EG_MAGIC_BUS);
    eg_magic_init((struct eg_magic *)(void *)object[BELLS]);
    eg_magic_publish((struct eg_magic *)(void *)object[BELLS], EG_MAGIC_BELLS);
    eg_magic_init((struct eg_magic *)(void *)object[PAGE]);
    eg_magic_publish((struct eg_magic *)(void *)object[PAGE], EG_MAGIC_CLIENT);
    eg_magic_init(&t->magic);
    t->instance_id = INSTANCE;
    t->topic_uid = UID;
    t->align = 64;
    t->segment_bytes = SEGMENT;
    t->ring_segments = SLOTS;
    eg_store_relaxed(&t->partitions, 1);
    eg_store_relaxed(&t->state, EG_TOPIC_ACTIVE);
    eg_store_relaxed(&t->max_message_bytes, 4096);
    eg_magic_publish(&t->magic, EG_MAGIC_STATUS);
    struct eg_partition_status *p = eg_status_of(t, 0);
    p->uid = 4711;
    p->index = 3;
    eg_store_relaxed(&p->state, EG_PARTITION_ACTIVE);
    eg_magic_init(&ring->magic);
    ring->partition_uid = 4711;
    ring->partition_index = 3;
    eg_magic_publish(&ring->magic, EG_MAGIC_RING);
    for (uint32_t s = 0; s < SLOTS; s++) {
        struct eg_segment_header *h = (struct eg_segment_header *)(void *)object[BUFFER0 + s];
        eg_segment_init(h, t, 0, 4711, s, 1);
        eg_store_relaxed(&h->allocated, SEGMENT);
        eg_store_relaxed(&ring->slot[s].word,
                         eg_slot_make(s, s, s == 0 ? EG_SLOT_OPEN : EG_SLOT_READY));
    }
    eg_store_relaxed(&((struct eg_segment_header *)(void *)object[BUFFER0])->base, 0);
    memcpy(object[SHORT], object[BUFFER0], EG_PAGE); /* a buffer that ends too early */
}

/* ---- the right answers ---------------------------------------------------------------------------------- */

/* One group with one member that has one partition. */
static void right_group(struct eg_enc *e) {
    if (asked.type == EG_MSG_GROUP_DESCRIBE) {
        eg_enc_u8(e, 0);
        eg_enc_u8(e, 2);
        eg_enc_u32(e, 1);
        eg_enc_str(e, "range");
        eg_enc_u32(e, 0);
    }
    eg_enc_u8(e, 0); /* no more of them */
    eg_enc_u16(e, 1);
    switch (asked.type) {
    case EG_MSG_GROUP_LIST:
        eg_enc_str(e, "g");
        eg_enc_u8(e, 0);
        eg_enc_u8(e, 2);
        for (int i = 0; i < 3; i++)
            eg_enc_u32(e, 1);
        break;
    case EG_MSG_GROUP_DESCRIBE:
        eg_enc_u64(e, 7);
        eg_enc_str(e, "client");
        eg_enc_str(e, "");
        for (int i = 0; i < 4; i++)
            eg_enc_u32(e, 1);
        eg_enc_u16(e, 1);
        eg_enc_str(e, "t");
        break;
    default:
        eg_enc_str(e, "t");
        eg_enc_u32(e, 0);
        eg_enc_i64(e, 3);
        eg_enc_i64(e, 0);
        eg_enc_i64(e, 5);
        eg_enc_u64(e, 7);
        eg_enc_i64(e, 1700000000000);
        eg_enc_u8(e, 0);
        eg_enc_str(e, "words");
    }
}

static void right_answer(struct eg_enc *e, int *fds, size_t *nfds) {
    struct eg_dec in = {asked_body, sizeof(asked_body), false};
    *nfds = 0;
    switch (asked.type) {
    case EG_MSG_HELLO:
        eg_enc_u64(e, INSTANCE);
        eg_enc_u32(e, 0);
        eg_enc_u32(e, 1);
        eg_enc_str(e, "0.1");
        fds[(*nfds)++] = object_fd[BUS];
        break;
    case EG_MSG_ATTACH:
        eg_enc_u32(e, 1);
        eg_enc_u64(e, 2);
        fds[(*nfds)++] = object_fd[PAGE];
        fds[(*nfds)++] = object_fd[BELLS];
        break;
    case EG_MSG_OPEN: {
        bool producer = eg_dec_u8(&in) == EG_ROLE_PRODUCER;
        eg_enc_u32(e, UID);
        eg_enc_u32(e, 1);
        const int all[] = {object_fd[STATUS], object_fd[RING], object_fd[WAITERS], object_fd[BELLS],
                           event_fd};
        memcpy(fds, all, sizeof(all));
        *nfds = producer ? 5 : 3;
        break;
    }
    case EG_MSG_BUFFERS: {
        (void)eg_dec_u8(&in);
        (void)eg_dec_u32(&in);
        (void)eg_dec_u32(&in);
        uint16_t n = eg_dec_u16(&in);
        eg_enc_u16(e, n == 0 ? SLOTS : n);
        for (uint16_t i = 0; i < (n == 0 ? SLOTS : n); i++) {
            uint16_t number = n == 0 ? i : eg_dec_u16(&in);
            eg_enc_u16(e, number);
            fds[(*nfds)++] = object_fd[BUFFER0 + number % SLOTS];
        }
        break;
    }
    case EG_MSG_BELL:
        eg_enc_u32(e, 9);
        break;
    case EG_MSG_TOPIC_CREATE:
        eg_enc_u32(e, UID);
        break;
    case EG_MSG_TOPIC_LIST:
        eg_enc_u8(e, 0);
        eg_enc_u16(e, 1);
        eg_enc_str(e, "t");
        eg_enc_u32(e, UID);
        eg_enc_u32(e, 1);
        eg_enc_u8(e, 1);
        break;
    case EG_MSG_TOPIC_DESCRIBE:
        eg_enc_u32(e, UID);
        eg_enc_u16(e, 1);
        eg_enc_str(e, "partitions");
        eg_enc_str(e, "1");
        eg_enc_u8(e, 1);
        break;
    case EG_MSG_PARTITIONS:
        eg_enc_u8(e, 0);
        eg_enc_u16(e, 1);
        eg_enc_u32(e, 0);
        eg_enc_u32(e, 1);
        for (int i = 0; i < 7; i++)
            eg_enc_u64(e, 0);
        eg_enc_u32(e, 0);
        eg_enc_u64(e, 0);
        break;
    case EG_MSG_STATUS:
        eg_enc_u8(e, 0);
        eg_enc_u16(e, 1);
        eg_enc_str(e, "clients");
        eg_enc_str(e, "1");
        break;
    case EG_MSG_GROUP_LIST:
    case EG_MSG_GROUP_DESCRIBE:
    case EG_MSG_GROUP_OFFSETS:
        right_group(e);
        break;
    default:
        break;
    }
}

/* ---- the socket ------------------------------------------------------------------------------------------- */

int __wrap_connect(int fd, const void *to, unsigned n);
int __wrap_connect(int fd, const void *to, unsigned n) {
    (void)fd;
    (void)to;
    (void)n;
    return 0;
}

int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout) {
    (void)timeout;
    for (nfds_t i = 0; i < n; i++)
        p[i].revents = p[i].events;
    return 1;
}

ssize_t __wrap_eg_sendmsg_fds(int sock, const void *buf, size_t n, const int *fds, size_t nfds,
                              int flags);
ssize_t __wrap_eg_sendmsg_fds(int sock, const void *buf, size_t n, const int *fds, size_t nfds,
                              int flags) {
    (void)sock;
    (void)fds;
    (void)flags;
    FUZZ_REQUIRE(n >= sizeof(asked) && n <= EG_MSG_MAX && nfds == 0);
    memcpy(&asked, buf, sizeof(asked));
    size_t body = n - sizeof(asked);
    memset(asked_body, 0, sizeof(asked_body));
    memcpy(asked_body, (const uint8_t *)buf + sizeof(asked),
           body < sizeof(asked_body) ? body : sizeof(asked_body));
    return (ssize_t)n;
}

static int fd_of(uint8_t which) {
    return which % (OBJECTS + 2) < OBJECTS ? object_fd[which % (OBJECTS + 2)]
           : which % 2 == 0                ? event_fd
                                           : null_fd;
}

ssize_t __wrap_eg_recvmsg_fds(int sock, void *buf, size_t cap, int *fds, size_t fds_cap,
                              size_t *nfds, bool *truncated, int flags);
ssize_t __wrap_eg_recvmsg_fds(int sock, void *buf, size_t cap, int *fds, size_t fds_cap,
                              size_t *nfds, bool *truncated, int flags) {
    static uint8_t message[EG_MSG_MAX];
    struct eg_enc e;
    int give[256];
    size_t n, given = 0;
    uint8_t how = 0;
    (void)sock;
    (void)flags;
    *nfds = 0;
    *truncated = false;
    if (replies_left > 0) {
        replies_left--;
        how = fuzz_u8(&replies);
    }
    if ((how & 32) != 0 || requests++ > REQUESTS_MAX)
        return 0;
    eg_enc_begin(&e, message, sizeof(message), asked.type | EG_MSG_REPLY, asked.id,
                 (how & 4) != 0 ? (int8_t)fuzz_u8(&replies) : 0);
    right_answer(&e, give, &given);
    if ((how & 1) != 0) {
        given = fuzz_u8(&replies) % 70;
        for (size_t i = 0; i < given; i++)
            give[i] = fd_of(fuzz_u8(&replies));
    }
    if ((how & 2) != 0) {
        const uint8_t *body = fuzz_bytes(&replies, fuzz_u16(&replies), &n);
        e.used = sizeof(struct eg_msg_header);
        if (n > EG_MSG_MAX - e.used)
            n = EG_MSG_MAX - e.used;
        if (n > 0)
            memcpy(message + e.used, body, n);
        e.used += n;
    }
    if ((how & 8) != 0)
        message[4 + fuzz_u8(&replies) % 8] ^= 1;
    if ((how & 16) != 0)
        e.used = fuzz_u8(&replies) % (e.used + 1);
    for (size_t i = 0; i < given; i++)
        if (*nfds < fds_cap)
            fds[(*nfds)++] = fcntl(give[i], F_DUPFD_CLOEXEC, 3);
        else
            *truncated = true;
    *truncated |= e.used > cap;
    n = e.used < cap ? e.used : cap;
    memcpy(buf, message, n);
    return (ssize_t)n;
}

/* ---- the calls -------------------------------------------------------------------------------------------- */

/* A refusal has the daemon's status, which a newer one may have invented, and the daemon's words. */
static int check(int rc) {
    if (rc > 0) {
        (void)fprintf(stderr, "the answer is %d: %s\n", rc, eg_error_text());
        abort();
    }
    return rc;
}

static struct {
    eagre_t *e;
    eagre_producer_t *p;
    eagre_consumer_t *c;
} api;

static void administer_group(uint8_t which) {
    eagre_group_entry_t *entries = NULL;
    eagre_group_info_t *info = NULL;
    eagre_group_offset_t *offsets = NULL;
    eagre_topic_partition_t put = {"t", 0, 4, "words"};
    size_t n = 0;
    switch (which) {
    case 0:
        if (check(eagre_group_list(api.e, &entries, &n)) == EAGRE_OK)
            for (size_t i = 0; i < n; i++)
                FUZZ_REQUIRE(memchr(entries[i].name, 0, sizeof(entries[i].name)) != NULL);
        free(entries);
        break;
    case 1:
        if (check(eagre_group_describe(api.e, "g", &info)) == EAGRE_OK)
            for (size_t i = 0; i < info->member_count; i++)
                for (size_t k = 0; k < info->members[i].topic_count; k++)
                    FUZZ_REQUIRE(memchr(info->members[i].topics[k], 0, sizeof(info->members[i].topics[k])) != NULL);
        eagre_group_info_free(info);
        break;
    case 2:
        if (check(eagre_group_offsets(api.e, "g", &offsets, &n)) == EAGRE_OK)
            for (size_t i = 0; i < n; i++)
                FUZZ_REQUIRE(strlen(offsets[i].metadata) <= 4096 && offsets[i].lag >= -1);
        free(offsets);
        break;
    case 3:
        (void)check(eagre_group_put(api.e, "g", EAGRE_GROUP_CONSUMER, &put, 1));
        break;
    default:
        (void)check(eagre_group_delete(api.e, "g"));
    }
}

static void administer(uint8_t which) {
    eagre_topic_entry_t *entries = NULL;
    eagre_topic_info_t *info = NULL;
    eagre_status_entry_t *figures = NULL;
    eagre_setting_t setting = {"partitions", "3"};
    size_t n = 0;
    switch (which) {
    case 0:
        if (check(eagre_topic_list(api.e, &entries, &n)) == EAGRE_OK)
            for (size_t i = 0; i < n; i++)
                FUZZ_REQUIRE(memchr(entries[i].name, 0, sizeof(entries[i].name)) != NULL);
        free(entries);
        break;
    case 1:
        if (check(eagre_topic_describe(api.e, "t", &info)) == EAGRE_OK)
            for (size_t i = 0; i < info->setting_count; i++)
                FUZZ_REQUIRE(memchr(info->settings[i].value, 0, sizeof(info->settings[i].value)) !=
                             NULL);
        eagre_topic_info_free(info);
        break;
    case 2:
        (void)check(eagre_daemon_status(api.e, &figures, &n));
        free(figures);
        break;
    case 3:
        (void)check(eagre_topic_create(api.e, "t", &setting, 1));
        break;
    case 4:
        (void)check(eagre_topic_alter(api.e, "t", &setting, 1));
        break;
    case 5:
        (void)check(eagre_topic_delete(api.e, "t"));
        break;
    case 6:
        (void)check(eagre_daemon_shutdown(api.e, 1));
        break;
    default:
        administer_group(which - 7);
        break;
    }
}

static void produce(uint8_t which) {
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_message_t m[2] = {EAGRE_MESSAGE_INIT, EAGRE_MESSAGE_INIT};
    eagre_header_t header = {.name = "n", .name_len = 1, .value = "v", .value_len = 1};
    options.max_block_ms = 0;
    m[0].value = m[1].value = "value";
    m[0].value_len = m[1].value_len = 5;
    m[0].headers = &header;
    m[0].header_count = 1;
    if (api.p == NULL && check(eagre_producer_open(api.e, "t", &options, &api.p)) != EAGRE_OK)
        return;
    if (which == 0)
        (void)check(eagre_produce(api.p, m, NULL, NULL));
    else if (which == 1)
        (void)check(eagre_produce_batch(api.p, -1, m, 2, NULL));
    else {
        eagre_producer_close(api.p);
        api.p = NULL;
    }
}

static void consume(uint8_t which) {
    eagre_consumer_options_t options = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_record_t rec[4];
    eagre_header_t header;
    size_t n = 0;
    int64_t at;
    options.auto_offset_reset = EAGRE_RESET_EARLIEST;
    if (api.c == NULL && check(eagre_consumer_open(api.e, &options, &api.c)) != EAGRE_OK)
        return;
    switch (which) {
    case 0:
        (void)check(eagre_consumer_assign(api.c, "t", EAGRE_PARTITION_ALL));
        break;
    case 1:
        (void)check(eagre_consumer_poll(api.c, rec, 4, 0, &n));
        FUZZ_REQUIRE(n <= 4);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < 3 && check(eagre_record_header(&rec[i], k, &header)) == EAGRE_OK;
                 k++) {}
        break;
    case 2:
        (void)check(eagre_consumer_seek(api.c, "t", 0, EAGRE_OFFSET_END));
        break;
    case 3:
        (void)check(eagre_consumer_end_offset(api.c, "t", 0, &at));
        break;
    case 4:
        (void)check(eagre_consumer_unassign(api.c, "t", 0));
        break;
    default:
        eagre_consumer_close(api.c);
        api.c = NULL;
        break;
    }
}

static void lie(struct fuzz_in *in) {
    for (uint8_t n = fuzz_u8(in) % 16; n > 0; n--) {
        uint8_t which = fuzz_u8(in) % OBJECTS;
        size_t at = (size_t)fuzz_u16(in) % (object_bytes[which] / 8) * 8;
        uint64_t v = fuzz_u64(in);
        if (which == BELLS)
            at %= EG_PAGE;
        memcpy(object[which] + at, &v, 8);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    make_objects();
    fill_objects();
    size_t before = fuzz_open_fds();
    replies = (struct fuzz_in){data, size};
    requests = 0;
    lie(&replies);
    replies_left = fuzz_u8(&replies) % 64;
    if (check(eagre_open("/nowhere/fuzz.sock", &api.e)) != EAGRE_OK) {
        FUZZ_REQUIRE(fuzz_open_fds() == before);
        return 0;
    }
    for (int i = 0; i < CALLS_MAX && replies.left > 0; i++) {
        uint8_t call = fuzz_u8(&replies);
        if (call % 3 == 0)
            administer(call / 3 % 12);
        else if (call % 3 == 1)
            produce(call / 3 % 3);
        else
            consume(call / 3 % 6);
    }
    if (api.c != NULL)
        eagre_consumer_close(api.c);
    eagre_producer_close(api.p);
    FUZZ_REQUIRE(eagre_close(api.e) == EAGRE_OK);
    memset(&api, 0, sizeof(api));
    FUZZ_REQUIRE(fuzz_open_fds() == before);
    return 0;
}
