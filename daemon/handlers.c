#include "handlers.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "sys/errbuf.h"

eg_handler *eg_handler_of(uint16_t type) {
    switch (type) {
#define EG_X(number, name)                                                                         \
    case EG_MSG_##name:                                                                            \
        return eg_handle_##name;
        EG_MSG_MAP(EG_X)
#undef EG_X
    default:
        return NULL;
    }
}

int eg_handle_HELLO(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                    struct eg_reply *r) {
    char name[sizeof(s->name)];
    uint32_t version = eg_dec_u32(in);
    uint32_t fingerprint = eg_dec_u32(in);
    eg_dec_u32(
        in); /* its pid as it sees it, which may be one of another namespace: for its own logs */
    eg_dec_str(in, name, sizeof(name));
    if (!eg_dec_end(in))
        return eg_error_set(EAGRE_E_PROTOCOL, "a malformed HELLO");
    if (version != EG_LAYOUT_VERSION || fingerprint != eg_layout_fingerprint())
        return eg_error_set(
            EAGRE_E_VERSION,
            "libeagre has memory layout %u/%08x, eagred %s has %u/%08x: use the same version of "
            "Eagre on both sides",
            version, fingerprint, EG_VERSION, EG_LAYOUT_VERSION, eg_layout_fingerprint());
    s->greeted = true;
    for (char *c = name; *c != '\0'; c++) /* it will stand in logs */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    memcpy(s->name, name, sizeof(name));
    eg_enc_u64(r->out, d->instance_id);
    eg_enc_u32(r->out, d->epoch);
    eg_enc_u32(r->out, (uint32_t)getpid());
    eg_enc_str(r->out, EG_VERSION);
    r->fds[r->nfds++] = d->bus_ro_fd;
    return EAGRE_OK;
}

int eg_handle_SHUTDOWN(struct eg_daemon *d, struct eg_session *s, struct eg_dec *in,
                       struct eg_reply *r) {
    (void)r;
    uint8_t keep = eg_dec_u8(in);
    if (!eg_dec_end(in) || keep > 1)
        return eg_error_set(EAGRE_E_PROTOCOL, "a malformed SHUTDOWN");
    if (s->uid != geteuid() && s->uid != 0)
        return eg_error_set(EAGRE_E_PERMISSION,
                            "only user %u and root may stop this eagred (pid %d)",
                            (unsigned)geteuid(), (int)getpid());
    char why[64];
    snprintf(why, sizeof(why), "asked by pid %d", (int)s->pid);
    eg_daemon_stop(d, keep != 0 ? EG_STOP_KEEP : EG_STOP_CLEAN, why);
    return EAGRE_OK;
}
