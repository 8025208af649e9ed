/*
 * harness_client.h - this process as a client of a bus of its own: one producer and one consumer of a topic "t"
 * with the smallest ring, and children that are clients, too.
 */
#ifndef EG_TESTS_HARNESS_CLIENT_H
#define EG_TESTS_HARNESS_CLIENT_H

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

/* The call fails with this status and a text that has `says`. */
#define REFUSED(call, status, says)                                                                \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        if (got_ != (status) || strstr(eagre_error_detail(), (says)) == NULL)                      \
            fail_msg("%s: %s, '%s'", #call, eagre_status_name(got_), eagre_error_detail());        \
    } while (0)

/* In children: cmocka is for the parent. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            eg_child_failed(__FILE__, __LINE__, #condition);                                       \
    } while (0)
void eg_child_failed(const char *file, int line, const char *what) __attribute__((noreturn));

extern struct eg_test_bus *bus;
extern eagre_t *e;
extern eagre_producer_t *p;
extern eagre_consumer_t *c;

/* cmocka set-up and tear-down: bus, e, p and c. */
int eg_setup_client(void **state);
int eg_teardown_client(void **state);
/* The same for a bus that runs already, and back. */
void eg_client_open(const char *socket);
void eg_client_close(void);

long long eg_figure(const char *name);
/* Until STATUS says this. */
void eg_wait_figure(const char *name, long long value);

/* Text as a record to partition 0; and the next record has this text. */
int eg_put(eagre_producer_t *by, const char *text);
void eg_expect(const char *text);
/* A place for "claim", written and not published. */
void eg_claim(eagre_producer_t *by, eagre_claim_t *out);

/* Before eg_start(), for who does without eg_setup_client(). */
void eg_client_setup(void);
/* f runs in a child; returns when it has said so on `ready`. When f returns the child stays. */
pid_t eg_start(void (*f)(int ready, int extra), int extra);
/* Do nothing more, until the test ends or somebody kills us. Who forks in f calls it, too. */
void eg_stay(void) __attribute__((noreturn));
/* For f: closes what it inherited but `ready`; says that it is ready. */
void eg_close_except(int ready);
void eg_say(int ready);
/* For f: an instance and a producer that has produced this text. */
eagre_producer_t *eg_attach(const char *socket, const char *text, eagre_t **own);

#endif
