/* The client processes: this program again, with other arguments. */
#ifndef EG_TESTS_TORTURE_CLIENT_H
#define EG_TESTS_TORTURE_CLIENT_H

#include "eagre/eagre.h"
#include "history/history.h"
#include "torture/control.h"

enum torture_role { TORTURE_PRODUCER, TORTURE_CONSUMER, TORTURE_ADMIN, TORTURE_MEMBER };

/* First argument of a client's command line; --client ROLE INDEX DIR SEED FAULT. */
#define TORTURE_CLIENT "--client"
/* A main() calls this first: does not return if the program was started as a client. */
void torture_client_main(int argc, char **argv);

struct torture_client {
    struct torture_control *control;
    const char *dir;
    uint32_t index;
    uint64_t random;
    eagre_t *e;
    struct history_log log;
};

void torture_produce(struct torture_client *k);
void torture_consume(struct torture_client *k);
void torture_administer(struct torture_client *k);
void torture_be_member(struct torture_client *k);

/* 0 .. n - 1. */
uint32_t torture_pick(struct torture_client *k, uint32_t n);
/* One of `of` times. */
static inline bool torture_chance(struct torture_client *k, uint32_t of) {
    return torture_pick(k, of) == 0;
}
void torture_pause_us(uint32_t us);
enum torture_phase torture_phase(const struct torture_client *k);
/* "t3"; buf has 16 bytes. */
const char *torture_topic_name(char *buf, uint32_t topic);

/* The call returned rc: true if it was well; false if it may be repeated (after a short pause). Any other
 * status ends this process: nothing but lack of a daemon and of room may be felt here. */
bool torture_ok(int rc, const char *call);
/* What must not happen has happened: say so and end. */
_Noreturn void torture_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
