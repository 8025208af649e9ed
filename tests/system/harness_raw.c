#include "harness_raw.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"
#include "layout/layout.h"
#include "sys/fdpass.h"

void eg_raw_connect(struct eg_raw *r, const char *socket_path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(socket_path) < sizeof(address.sun_path));
    strcpy(address.sun_path, socket_path);
    r->next_id = 1;
    r->nfds = 0;
    r->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fail_msg("%s: %s", socket_path, strerror(errno));
}

void eg_raw_close(struct eg_raw *r) {
    close(r->fd);
    r->fd = -1;
}

void eg_raw_begin(struct eg_raw *r, uint16_t type) {
    eg_enc_begin(&r->enc, r->out, sizeof(r->out), type, r->next_id++, 0);
}

int eg_raw_send(struct eg_raw *r, const void *data, size_t n) {
    return send(r->fd, data, n, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -1;
}

int eg_raw_receive(struct eg_raw *r) {
    struct pollfd p = {.fd = r->fd, .events = POLLIN};
    bool cut;
    int ready;
    while ((ready = poll(&p, 1, EG_TEST_LIMIT_MS)) < 0 && errno == EINTR) {}
    if (ready <= 0)
        fail_msg("no answer on the control socket");
    ssize_t n = eg_recvmsg_fds(r->fd, r->in, sizeof(r->in), r->fds, EG_RAW_FDS, &r->nfds, &cut, 0);
    if (n <= 0)
        return 1;
    assert_false(cut);
    assert_int_equal(eg_dec_begin(&r->dec, r->in, (size_t)n, &r->h), 0);
    assert_true((r->h.type & EG_MSG_REPLY) != 0);
    assert_true(r->h.status <= 0);
    if (r->h.status != 0) {
        eg_dec_str(&r->dec, r->detail, sizeof(r->detail));
        assert_true(eg_dec_end(&r->dec));
    }
    return r->h.status;
}

int eg_raw_ask(struct eg_raw *r) {
    assert_false(r->enc.overflow);
    if (eg_raw_send(r, r->enc.data, r->enc.used) != 0)
        return 1;
    int status = eg_raw_receive(r);
    if (status <= 0)
        assert_int_equal(r->h.id, r->next_id - 1);
    return status;
}

size_t eg_make_hello(uint8_t *buf, size_t cap) {
    struct eg_enc e;
    eg_enc_begin(&e, buf, cap, EG_MSG_HELLO, 7, 0);
    eg_enc_u32(&e, EG_LAYOUT_VERSION);
    eg_enc_u32(&e, eg_layout_fingerprint());
    eg_enc_u32(&e, 1);
    eg_enc_str(&e, "test");
    return e.used;
}

uint64_t eg_raw_hello(struct eg_raw *r, uint32_t *epoch_out) {
    eg_raw_begin(r, EG_MSG_HELLO);
    eg_enc_u32(&r->enc, EG_LAYOUT_VERSION);
    eg_enc_u32(&r->enc, eg_layout_fingerprint());
    eg_enc_u32(&r->enc, (uint32_t)getpid());
    eg_enc_str(&r->enc, "test");
    assert_int_equal(eg_raw_ask(r), 0);
    uint64_t id = eg_dec_u64(&r->dec);
    uint32_t epoch = eg_dec_u32(&r->dec);
    eg_dec_u32(&r->dec);
    char version[32];
    eg_dec_str(&r->dec, version, sizeof(version));
    assert_true(eg_dec_end(&r->dec));
    assert_int_equal(r->nfds, 1);
    close(r->fds[0]);
    if (epoch_out != NULL)
        *epoch_out = epoch;
    return id;
}

void eg_raw_figure(struct eg_raw *r, const char *wanted, char *buf, size_t cap) {
    char name[64], value[256];
    buf[0] = '\0';
    eg_raw_begin(r, EG_MSG_STATUS);
    eg_enc_u32(&r->enc, 0);
    assert_int_equal(eg_raw_ask(r), 0);
    eg_dec_u8(&r->dec);
    for (uint16_t n = eg_dec_u16(&r->dec); n > 0; n--) {
        eg_dec_str(&r->dec, name, sizeof(name));
        eg_dec_str(&r->dec, value, sizeof(value));
        if (strcmp(name, wanted) == 0) {
            strncpy(buf, value, cap - 1);
            buf[cap - 1] = '\0';
        }
    }
    assert_true(eg_dec_end(&r->dec));
}
