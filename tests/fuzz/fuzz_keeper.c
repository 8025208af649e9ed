/*
 * Messages to the keeper: any header, any names, descriptors or none. It answers or hangs up, keeps no
 * descriptor that it did not take, and what LIST gives is what was PUT.
 *
 *   messages: u8 op   u8 count   u8 descriptors   u8 how (1: raw header follows, 2: cut short)   u32 from, names
 */
#include <fcntl.h>
#include <sys/socket.h>

#define main keeper_main
int main(int argc, char **argv);
#include "daemon/keeper/main.c"
#undef main

#include "fuzz/fuzz.h"

#define MESSAGES_MAX 12
#define NAMES 4 /* of few, so that they meet */

static int far = -1; /* the daemon's end */

static void hang_up_both(void) {
    if (daemon_fd >= 0)
        hang_up();
    if (far >= 0)
        close(far);
    far = -1;
}

static void connect_both(void) {
    int ends[2];
    FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    daemon_fd = ends[0];
    far = ends[1];
}

static void take_name(struct fuzz_in *in, char name[EG_KEPT_NAME]) {
    uint8_t kind = fuzz_u8(in);
    memset(name, 0, EG_KEPT_NAME);
    if (kind < 200) {
        (void)snprintf(name, EG_KEPT_NAME, "name-%u", kind % NAMES);
        return;
    }
    size_t n;
    const uint8_t *at = fuzz_bytes(in, kind == 255 ? EG_KEPT_NAME : fuzz_u8(in) % EG_KEPT_NAME, &n);
    if (n > 0)
        memcpy(name, at, n);
}

static size_t take_message(struct fuzz_in *in, struct eg_keeper_message *m, size_t *nfds) {
    *m = (struct eg_keeper_message){
        .magic = EG_KEEPER_MAGIC, .op = fuzz_u8(in), .count = fuzz_u8(in)};
    *nfds = fuzz_u8(in) % (EG_FDPASS_MAX + 1);
    uint8_t how = fuzz_u8(in);
    size_t n = sizeof(*m);
    if (how == 1) {
        m->magic = fuzz_u32(in);
        m->op = fuzz_u16(in);
        m->count = fuzz_u16(in);
    }
    m->from = fuzz_u32(in);
    for (uint16_t i = 0; i < m->count && i < EG_KEEPER_BATCH; i++)
        take_name(in, m->names[i]);
    if (m->count <= EG_KEEPER_BATCH)
        n = eg_keeper_message_bytes(m->count);
    return how == 2 ? fuzz_u16(in) % (n + 1) : n;
}

static void take_reply(const struct eg_keeper_message *asked) {
    static struct eg_keeper_message r;
    int fds[EG_FDPASS_MAX];
    size_t nfds;
    bool cut;
    ssize_t n = eg_recvmsg_fds(far, &r, sizeof(r), fds, EG_FDPASS_MAX, &nfds, &cut, MSG_DONTWAIT);
    if (n <= 0) {
        hang_up_both();
        connect_both();
        return;
    }
    bool list = asked->op == EG_KEEPER_LIST && r.status == 0;
    FUZZ_REQUIRE(!cut && r.magic == EG_KEEPER_MAGIC && r.count <= EG_KEEPER_BATCH);
    FUZZ_REQUIRE((size_t)n ==
                 eg_keeper_message_bytes(list || asked->op == EG_KEEPER_LIST ? r.count : 0));
    FUZZ_REQUIRE(nfds == (list ? r.count : 0));
    for (uint16_t i = 0; list && i < r.count; i++)
        FUZZ_REQUIRE(eg_kept_find(&table, r.names[i]) != 0);
    close_fds(fds, nfds);
}

static void forget_all(void) {
    uint32_t found = 0;
    for (uint32_t i = 1; i <= table.used; i++)
        if (table.entry[i].name[0] != '\0') {
            FUZZ_REQUIRE(eg_kept_find(&table, table.entry[i].name) == i);
            drop(i);
            found++;
        }
    FUZZ_REQUIRE(table.count == 0 && found <= table.used);
    memset(table.head, 0, sizeof(table.head));
    memset(table.entry, 0, (table.used + 1) * sizeof(table.entry[0]));
    table.used = table.free = 0;
    told_to_end = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    static struct eg_keeper_message m;
    int fds[EG_FDPASS_MAX];
    size_t before = fuzz_open_fds();
    connect_both();
    for (int i = 0; i < MESSAGES_MAX && in.left > 0; i++) {
        size_t nfds, n = take_message(&in, &m, &nfds);
        for (size_t k = 0; k < nfds; k++)
            fds[k] = STDERR_FILENO;
        if (eg_sendmsg_fds(far, &m, n, fds, nfds, MSG_DONTWAIT) >= 0)
            serve();
        take_reply(&m);
    }
    hang_up_both();
    forget_all();
    FUZZ_REQUIRE(fuzz_open_fds() == before);
    (void)keeper_main; /* its loop is tests/unit/daemon's */
    return 0;
}
