/*
 * fake_daemon.h - the daemon's end of the control socket, in a thread of the test: one topic "t",
 * real memfds, and misbehaviour on demand.
 */
#ifndef EG_TESTS_FAKE_DAEMON_H
#define EG_TESTS_FAKE_DAEMON_H

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "layout/group.h"
#include "layout/layout.h"
#include "proto/codec.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"
#include "sys/fdpass.h"
#include "sys/shm.h"

#define FAKE_CONNS 8
#define FAKE_TYPES 48
#define FAKE_SLOTS 3u
#define FAKE_SEGMENT (UINT64_C(64) << 10)
#define FAKE_TOPIC_UID 77u
#define FAKE_MEMBER UINT64_C(4321)

/* What to do with the next request of a type, once. */
enum fake_act {
    FAKE_ANSWER = 0,
    FAKE_CLOSE,        /* the connection, instead of answering */
    FAKE_REFUSE,       /* EAGRE_E_LIMIT, "no more" */
    FAKE_GARBLE_SHORT, /* the answer cut in its middle */
    FAKE_GARBLE_LONG,  /* and with bytes too many */
    FAKE_GARBLE_ID,
    FAKE_GARBLE_TYPE,
    FAKE_GARBLE_STATUS, /* a positive one */
    FAKE_NO_FDS,
    FAKE_SWAP_FDS, /* in reverse order */
    FAKE_STALL,    /* do nothing at all, as if stopped, until fake_go_on; then answer */
    FAKE_DIE_LATE, /* as FAKE_STALL, but then close the connection */
    FAKE_FENCE,    /* EAGRE_E_FENCED, "no member" */
    FAKE_BEYOND,   /* EAGRE_E_OFFSET_OUT_OF_RANGE, "no such offset" */
    FAKE_FORGET,   /* EAGRE_E_PERMISSION, and close the connection at the next one of that type */
};

struct fake {
    char dir[64];
    char path[96];
    pthread_t thread;
    int listener;
    int stop; /* eventfd */
    int conns[FAKE_CONNS];
    sem_t stalled, go_on;

    /* what the test sets; the thread is idle then (it answers requests only) */
    _Atomic int act[FAKE_TYPES]; /* enum fake_act */
    _Atomic uint32_t partitions;
    _Atomic uint32_t topic_uid;
    _Atomic bool topic_gone;

    /* what the test looks at; `seen` grows last */
    _Atomic int seen[FAKE_TYPES];
    _Atomic uint32_t attach_owner; /* of the last ATTACH */
    _Atomic uint64_t attach_cookie;
    _Atomic int attach_held; /* handles that it said are open; -1: it said nothing */
    char first_setting[64];
    _Atomic uint32_t partition_asked; /* of the last TRIM */
    _Atomic int64_t before_asked;

    /* A group: partitions of "t" are this member's, as bits; the page says which version that is. */
    _Atomic uint32_t given;
    _Atomic int64_t committed;     /* of each */
    _Atomic uint8_t offset_flags;  /* likewise */
    _Atomic uint32_t parts_a_page; /* of GROUP_SYNC; 0: all */
    _Atomic int attach_members;    /* that the last ATTACH named; -1: it said nothing */
    _Atomic uint32_t applied;      /* that the last GROUP_SYNC said */
    _Atomic int leave_how;         /* of the last GROUP_LEAVE */
    _Atomic bool never_stores;     /* GROUP_COMMIT does not reach the database */
    _Atomic bool parts_lost;       /* GROUP_SUBSCRIBE: of the next part that is not the first, no first one is known */
    _Atomic uint32_t wished;       /* names that it has said since its last first part */
    char wish[EG_TOPIC_NAME_MAX + 1]; /* the last one */
    int member;
    struct eg_member_page *member_map;

    int bus, bells, page, status, ring, waiters, event, buffers[FAKE_SLOTS];
    struct eg_bus *bus_map;
    struct eg_client_page *page_map;
    struct eg_bells *bells_map;
    struct eg_topic_status *status_map;
};

static void *fake_map(int fd, size_t n) {
    void *p;
    assert_int_equal(eg_map(fd, 0, n, true, &p), EAGRE_OK);
    return p;
}

static int fake_memfd(const char *name, size_t n) {
    int fd;
    assert_int_equal(eg_memfd_create(name, n, false, &fd), EAGRE_OK);
    return fd;
}

/* All objects anew: another instance. */
static void fake_new_memory(struct fake *f, uint64_t instance_id) {
    size_t stride = eg_ring_stride(FAKE_SLOTS, FAKE_SEGMENT);
    f->bus = fake_memfd("bus", EG_PAGE);
    f->bus_map = fake_map(f->bus, EG_PAGE);
    eg_magic_init(&f->bus_map->magic);
    f->bus_map->instance_id = instance_id;
    eg_store_release(&f->bus_map->state, EG_BUS_RUNNING);
    eg_magic_publish(&f->bus_map->magic, EG_MAGIC_BUS);

    f->bells = fake_memfd("bells", sizeof(struct eg_bells));
    f->bells_map = fake_map(f->bells, sizeof(struct eg_bells));
    eg_magic_init(&f->bells_map->magic);
    eg_magic_publish(&f->bells_map->magic, EG_MAGIC_BELLS);

    f->page = fake_memfd("page", sizeof(struct eg_client_page));
    f->page_map = fake_map(f->page, sizeof(struct eg_client_page));
    eg_magic_init(&f->page_map->magic);
    eg_magic_publish(&f->page_map->magic, EG_MAGIC_CLIENT);

    f->status = fake_memfd("status", eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
    f->status_map = fake_map(f->status, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
    eg_magic_init(&f->status_map->magic);
    f->status_map->topic_uid = f->topic_uid;
    f->status_map->align = 64;
    f->status_map->segment_bytes = FAKE_SEGMENT;
    f->status_map->ring_segments = FAKE_SLOTS;
    eg_store_release(&f->status_map->state, EG_TOPIC_ACTIVE);
    eg_store_release(&f->status_map->partitions, f->partitions);
    eg_magic_publish(&f->status_map->magic, EG_MAGIC_STATUS);

    f->ring = fake_memfd("ring", EG_TOPIC_PARTITIONS_MAX * stride);
    uint8_t *rings = fake_map(f->ring, EG_TOPIC_PARTITIONS_MAX * stride);
    for (uint32_t p = 0; p < 16; p++) {
        struct eg_ring *r = (struct eg_ring *)(void *)(rings + p * stride);
        struct eg_partition_status *s = eg_status_of(f->status_map, p);
        s->uid = r->partition_uid = 500 + p;
        s->index = r->partition_index = 20 + p;
        eg_magic_init(&r->magic);
        eg_magic_publish(&r->magic, EG_MAGIC_RING);
    }
    eg_unmap(rings, EG_TOPIC_PARTITIONS_MAX * stride);
    f->waiters = fake_memfd("waiters", eg_waiters_bytes(EG_TOPIC_PARTITIONS_MAX));
    f->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (size_t i = 0; i < FAKE_SLOTS; i++)
        f->buffers[i] = fake_memfd("buffer", FAKE_SEGMENT);
    f->member = fake_memfd("member", sizeof(struct eg_member_page));
    f->member_map = fake_map(f->member, sizeof(struct eg_member_page));
    eg_magic_init(&f->member_map->magic);
    f->member_map->member = FAKE_MEMBER;
    eg_store_relaxed(&f->member_map->state, EG_MEMBER_IN);
    eg_magic_publish(&f->member_map->magic, EG_MAGIC_MEMBER);
}

static inline void fake_drop_memory(struct fake *f) {
    eg_unmap(f->bus_map, EG_PAGE);
    eg_unmap(f->bells_map, sizeof(struct eg_bells));
    eg_unmap(f->page_map, sizeof(struct eg_client_page));
    eg_unmap(f->status_map, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
    close(f->bus), close(f->bells), close(f->page), close(f->status), close(f->ring),
        close(f->waiters);
    close(f->event);
    eg_unmap(f->member_map, sizeof(struct eg_member_page));
    close(f->member);
    for (size_t i = 0; i < FAKE_SLOTS; i++)
        close(f->buffers[i]);
}

struct fake_reply {
    struct eg_enc out;
    int fds[EG_FDPASS_MAX];
    bool mine[EG_FDPASS_MAX]; /* to be closed here */
    size_t n;
};

static void fake_fd(struct fake_reply *r, int fd, bool writable) {
    int sent = fd;
    if (!writable)
        eg_memfd_readonly(fd, &sent);
    r->mine[r->n] = !writable;
    r->fds[r->n++] = sent;
}

static int fake_open(struct fake *f, struct eg_dec *in, struct fake_reply *r) {
    char name[EG_TOPIC_NAME_MAX + 1];
    bool producer = eg_dec_u8(in) == EG_ROLE_PRODUCER;
    eg_dec_u32(in); /* node */
    eg_dec_str(in, name, sizeof(name));
    if (strcmp(name, "t") != 0 || f->topic_gone)
        return eg_error_set(EAGRE_E_UNKNOWN_TOPIC, "there is no topic '%s'", name);
    eg_enc_u32(&r->out, f->topic_uid);
    eg_enc_u32(&r->out, f->partitions);
    fake_fd(r, f->status, false);
    fake_fd(r, f->ring, producer);
    fake_fd(r, f->waiters, true);
    if (producer) {
        fake_fd(r, f->bells, true);
        fake_fd(r, f->event, true);
    }
    return EAGRE_OK;
}

static int fake_buffers(struct fake *f, struct eg_dec *in, struct fake_reply *r) {
    bool producer = eg_dec_u8(in) == EG_ROLE_PRODUCER;
    eg_dec_u32(in);
    eg_dec_u32(in);
    uint16_t n = eg_dec_u16(in);
    uint16_t first = n > 0 ? eg_dec_u16(in) : 0;
    uint16_t count = n > 0 ? 1 : FAKE_SLOTS;
    if (first >= FAKE_SLOTS)
        return eg_error_set(EAGRE_E_INVALID, "no buffer %u", first);
    eg_enc_u16(&r->out, count);
    for (uint16_t i = 0; i < count; i++) {
        eg_enc_u16(&r->out, (uint16_t)(first + i));
        fake_fd(r, f->buffers[first + i], producer);
    }
    return EAGRE_OK;
}

/* Three topics in pages of two: "a", "b", then "c". */
static void fake_list(struct eg_dec *in, struct fake_reply *r) {
    char after[256];
    eg_dec_str(in, after, sizeof(after));
    bool first = after[0] == '\0';
    eg_enc_u8(&r->out, first);
    eg_enc_u16(&r->out, first ? 2 : 1);
    for (int c = first ? 'a' : 'c'; c <= (first ? 'b' : 'c'); c++) {
        char name[2] = {(char)c, '\0'};
        eg_enc_str(&r->out, name);
        eg_enc_u32(&r->out, (uint32_t)c);
        eg_enc_u32(&r->out, 2);
        eg_enc_u8(&r->out, EG_STORAGE_MEMORY);
    }
}

static void fake_partitions(struct eg_dec *in, struct fake_reply *r) {
    char name[256];
    eg_dec_str(in, name, sizeof(name));
    uint32_t from = eg_dec_u32(in);
    eg_enc_u8(&r->out, from == 0);
    eg_enc_u16(&r->out, 1);
    eg_enc_u32(&r->out, from);
    eg_enc_u32(&r->out, EG_PARTITION_ACTIVE);
    for (int64_t i = 0; i < 6; i++)
        eg_enc_i64(&r->out, 100ll * from + i);
    eg_enc_i64(&r->out, from == 0 ? -1 : 17);
    eg_enc_u32(&r->out, from == 0 ? 0 : 4711);
    eg_enc_u64(&r->out, 1000 * from);
    eg_enc_i64(&r->out, from == 0 ? -1 : 101);
    eg_enc_u8(&r->out, from == 0 ? EG_DISK_OK : EG_DISK_ERROR);
}

static void fake_sync(struct fake *f, struct eg_dec *in, struct fake_reply *r) {
    eg_dec_u64(in);
    f->applied = eg_dec_u32(in);
    uint32_t skip = eg_dec_u32(in), listed = 0;
    uint32_t most = f->parts_a_page != 0 ? f->parts_a_page : 32;
    uint32_t version = eg_load_relaxed(&f->member_map->version);
    eg_enc_u32(&r->out, version);
    eg_enc_u32(&r->out, version); /* generation */
    size_t more_at = r->out.used;
    eg_enc_u8(&r->out, 0);
    eg_enc_u16(&r->out, 1);
    eg_enc_u32(&r->out, f->topic_uid);
    eg_enc_str(&r->out, "t");
    size_t count_at = r->out.used;
    eg_enc_u16(&r->out, 0);
    for (uint32_t p = 0, i = 0; p < 32; p++) {
        if ((f->given >> p & 1) == 0 || i++ < skip)
            continue;
        if (listed == most) {
            eg_enc_patch_u8(&r->out, more_at, 1);
            break;
        }
        eg_enc_u32(&r->out, p);
        eg_enc_u32(&r->out, 10 + p); /* cell */
        eg_enc_i64(&r->out, f->committed);
        eg_enc_u8(&r->out, f->offset_flags);
        listed++;
    }
    eg_enc_patch_u16(&r->out, count_at, (uint16_t)listed);
}

static int fake_subscribe(struct fake *f, struct eg_dec *in) {
    eg_dec_u64(in);
    bool first = (eg_dec_u8(in) & 1) != 0;
    if (!first && f->parts_lost) {
        f->parts_lost = false;
        return eg_error_set(EAGRE_E_STATE, "no first part");
    }
    uint16_t n = eg_dec_u16(in);
    f->wished = n + (first ? 0 : f->wished);
    for (uint16_t i = 0; i < n; i++)
        eg_dec_str(in, f->wish, sizeof(f->wish));
    return EAGRE_OK;
}

static int fake_handle(struct fake *f, const struct eg_msg_header *h, struct eg_dec *in,
                       struct fake_reply *r) {
    switch (h->type) {
    case EG_MSG_HELLO:
        eg_enc_u64(&r->out, f->bus_map->instance_id);
        eg_enc_u32(&r->out, eg_load_acquire(&f->bus_map->epoch));
        eg_enc_u32(&r->out, 4711);
        eg_enc_str(&r->out, "0.1.0");
        fake_fd(r, f->bus, false);
        return EAGRE_OK;
    case EG_MSG_ATTACH:
        f->attach_owner = eg_dec_u32(in);
        f->attach_cookie = eg_dec_u64(in);
        f->attach_held = f->attach_owner == 0 ? -1 : 0;
        for (uint16_t n = f->attach_owner == 0 ? 0 : eg_dec_u16(in); n > 0; n--) {
            if (eg_dec_u32(in) != f->topic_uid)
                f->attach_held += 1000;
            f->attach_held += eg_dec_u16(in);
            f->attach_held += 100 * eg_dec_u16(in);
        }
        f->attach_members = f->attach_owner == 0 ? -1 : eg_dec_u16(in);
        eg_enc_u32(&r->out, 5);
        eg_enc_u64(&r->out, 0xc00c1e);
        fake_fd(r, f->page, true);
        fake_fd(r, f->bells, false);
        return EAGRE_OK;
    case EG_MSG_OPEN:
        return fake_open(f, in, r);
    case EG_MSG_BUFFERS:
        return fake_buffers(f, in, r);
    case EG_MSG_BELL:
        eg_enc_u32(&r->out, 9);
        return EAGRE_OK;
    case EG_MSG_GROUP_JOIN:
        eg_enc_u64(&r->out, FAKE_MEMBER);
        eg_enc_u16(&r->out, 3);
        eg_enc_u32(&r->out, 8);
        fake_fd(r, f->member, true);
        return EAGRE_OK;
    case EG_MSG_GROUP_SUBSCRIBE:
        return fake_subscribe(f, in);
    case EG_MSG_GROUP_SYNC:
        fake_sync(f, in, r);
        return EAGRE_OK;
    case EG_MSG_GROUP_LEAVE:
        eg_dec_u64(in);
        f->leave_how = eg_dec_u8(in);
        return EAGRE_OK;
    case EG_MSG_GROUP_COMMIT:
        eg_dec_u64(in);
        if (!f->never_stores)
            eg_store_release(&f->member_map->stored, eg_dec_u64(in));
        return EAGRE_OK;
    case EG_MSG_TOPIC_CREATE: {
        char name[256];
        eg_dec_str(in, name, sizeof(name));
        if (eg_dec_u16(in) > 0)
            eg_dec_str(in, f->first_setting, sizeof(f->first_setting));
        eg_enc_u32(&r->out, 1);
        return EAGRE_OK;
    }
    case EG_MSG_TOPIC_LIST:
        fake_list(in, r);
        return EAGRE_OK;
    case EG_MSG_TOPIC_DESCRIBE:
        eg_enc_u32(&r->out, 7);
        eg_enc_u16(&r->out, 2);
        eg_enc_str(&r->out, "partitions"), eg_enc_str(&r->out, "2"), eg_enc_u8(&r->out, 0);
        eg_enc_str(&r->out, "storage"), eg_enc_str(&r->out, "memory"), eg_enc_u8(&r->out, 1);
        return EAGRE_OK;
    case EG_MSG_PARTITIONS:
        fake_partitions(in, r);
        return EAGRE_OK;
    case EG_MSG_TRIM: {
        char name[256];
        eg_dec_str(in, name, sizeof(name));
        f->partition_asked = eg_dec_u32(in);
        f->before_asked = eg_dec_i64(in);
        eg_enc_i64(&r->out, 4711);
        return EAGRE_OK;
    }
    case EG_MSG_STATUS: {
        uint32_t from = eg_dec_u32(in);
        eg_enc_u8(&r->out, from < 2);
        eg_enc_u16(&r->out, 1);
        eg_enc_str(&r->out, from == 0 ? "pid" : from == 1 ? "epoch" : "socket");
        eg_enc_str(&r->out, from == 0 ? "4711" : from == 1 ? "1" : f->path);
        return EAGRE_OK;
    }
    default:
        return EAGRE_OK;
    }
}

/* Serve one request; false: close the connection. */
static bool fake_serve(struct fake *f, int conn) {
    uint8_t in[EG_MSG_MAX];
    uint8_t out[EG_MSG_MAX];
    struct eg_msg_header h;
    struct eg_dec d;
    struct fake_reply r = {.n = 0};
    ssize_t n = recv(conn, in, sizeof(in), 0);
    if (n <= 0 || eg_dec_begin(&d, in, (size_t)n, &h) != EAGRE_OK || h.type >= FAKE_TYPES)
        return false;
    int act = f->act[h.type];
    f->act[h.type] = act == FAKE_FORGET ? FAKE_CLOSE : FAKE_ANSWER;
    if (act == FAKE_STALL || act == FAKE_DIE_LATE) {
        sem_post(&f->stalled);
        while (sem_wait(&f->go_on) != 0) {}
        act = act == FAKE_STALL ? FAKE_ANSWER : FAKE_CLOSE;
    }
    eg_enc_begin(&r.out, out, sizeof(out), h.type | EG_MSG_REPLY, h.id, 0);
    int rc = act == FAKE_REFUSE   ? eg_error_set(EAGRE_E_LIMIT, "no more")
             : act == FAKE_FENCE  ? eg_error_set(EAGRE_E_FENCED, "no member")
             : act == FAKE_BEYOND ? eg_error_set(EAGRE_E_OFFSET_OUT_OF_RANGE, "no such offset")
             : act == FAKE_FORGET ? eg_error_set(EAGRE_E_PERMISSION, "no such client")
                                  : fake_handle(f, &h, &d, &r);
    f->seen[h.type]++;
    if (rc != EAGRE_OK) {
        eg_enc_begin(&r.out, out, sizeof(out), h.type | EG_MSG_REPLY, h.id, rc);
        eg_enc_str(&r.out, eg_error_text());
    }
    struct eg_msg_header *reply = (struct eg_msg_header *)(void *)out;
    size_t size = r.out.used;
    size_t nfds = act == FAKE_NO_FDS ? 0 : r.n;
    if (act == FAKE_GARBLE_SHORT)
        size -= 1;
    if (act == FAKE_GARBLE_LONG)
        out[size++] = 0;
    if (act == FAKE_GARBLE_ID)
        reply->id++;
    if (act == FAKE_GARBLE_TYPE)
        reply->type++;
    if (act == FAKE_GARBLE_STATUS)
        reply->status = 3;
    for (size_t i = 0; act == FAKE_SWAP_FDS && i < nfds / 2; i++) {
        int fd = r.fds[i];
        bool mine = r.mine[i];
        r.fds[i] = r.fds[nfds - 1 - i], r.mine[i] = r.mine[nfds - 1 - i];
        r.fds[nfds - 1 - i] = fd, r.mine[nfds - 1 - i] = mine;
    }
    bool sent = act != FAKE_CLOSE && eg_sendmsg_fds(conn, out, size, r.fds, nfds, 0) >= 0;
    for (size_t i = 0; i < r.n; i++)
        if (r.mine[i])
            close(r.fds[i]);
    return sent;
}

static void *fake_run(void *arg) {
    struct fake *f = arg;
    for (;;) {
        struct pollfd p[FAKE_CONNS + 2] = {{.fd = f->stop, .events = POLLIN},
                                           {.fd = f->listener, .events = POLLIN}};
        for (size_t i = 0; i < FAKE_CONNS; i++)
            p[i + 2] = (struct pollfd){.fd = f->conns[i], .events = POLLIN};
        poll(p, FAKE_CONNS + 2, -1);
        if (p[0].revents)
            return NULL;
        for (size_t i = 0; i < FAKE_CONNS; i++) {
            if (p[i + 2].revents && !fake_serve(f, f->conns[i])) {
                close(f->conns[i]);
                f->conns[i] = -1;
            }
        }
        if (p[1].revents) {
            size_t i = 0;
            while (i < FAKE_CONNS - 1 && f->conns[i] >= 0)
                i++;
            f->conns[i] = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        }
    }
}

/* Listen, as a daemon of the present memory: epoch + 1. */
static void fake_start(struct fake *f) {
    atomic_fetch_add(&f->bus_map->epoch, 1);
    f->stop = eventfd(0, EFD_CLOEXEC);
    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", f->path);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(listen(f->listener, 8), 0);
    for (size_t i = 0; i < FAKE_CONNS; i++)
        f->conns[i] = -1;
    assert_int_equal(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

/* Die: connections are closed, the memory stays. */
static void fake_stop(struct fake *f) {
    uint64_t one = 1;
    assert_int_equal(write(f->stop, &one, sizeof(one)), sizeof(one));
    pthread_join(f->thread, NULL);
    for (size_t i = 0; i < FAKE_CONNS; i++)
        if (f->conns[i] >= 0)
            close(f->conns[i]);
    close(f->listener);
    close(f->stop);
    unlink(f->path);
}

/* It has got the request that it stalls at. */
static inline void fake_wait_stalled(struct fake *f) {
    while (sem_wait(&f->stalled) != 0) {}
}
static inline void fake_go_on(struct fake *f) { sem_post(&f->go_on); }

static void fake_begin(struct fake *f) {
    const char *tmp = getenv("TMPDIR");
    memset(f, 0, sizeof(*f));
    sem_init(&f->stalled, 0, 0);
    sem_init(&f->go_on, 0, 0);
    snprintf(f->dir, sizeof(f->dir), "%.40s/eagre-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
    f->partitions = 2;
    f->topic_uid = FAKE_TOPIC_UID;
    fake_new_memory(f, 1111);
    fake_start(f);
}

static void fake_end(struct fake *f) {
    fake_stop(f);
    fake_drop_memory(f);
    rmdir(f->dir);
}

/* Descriptors open in this process: to find leaks. */
static inline int fake_open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

#endif
