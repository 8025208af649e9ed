/* The services' turns: nobody's slice of time is used up by those before him. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon.h"
#include "sys/clock.h"

/* In place of the daemon's own. */
#define IDLE(which) const struct eg_service eg_##which##_service = {.name = #which}
IDLE(lock);
IDLE(meta);
IDLE(keep);
IDLE(bus);
IDLE(placement);
IDLE(disk);
IDLE(topics);
IDLE(clients);
IDLE(slots);
IDLE(retention);
IDLE(stalls);
IDLE(groups);
IDLE(sessions);

void eg_loop_stop(struct eg_loop *l) { (void)l; }

static int64_t busy_until;

static int64_t busy(struct eg_daemon *d, int64_t now) {
    (void)d;
    while (eg_mono_ns() < now + EG_NS_PER_MS) {}
    busy_until = eg_mono_ns();
    return 0;
}

static int64_t told;

static int64_t note(struct eg_daemon *d, int64_t now) {
    (void)d;
    told = now;
    return 5;
}

const struct eg_service eg_graves_service = {.name = "graves", .tick = busy};
const struct eg_service eg_janitor_service = {.name = "janitor", .tick = note};

static void a_slice_begins_when_its_turn_does(void **state) {
    struct eg_daemon d = {0};
    (void)state;
    assert_int_equal(eg_services_tick(&d, eg_mono_ns()), 0);
    assert_true(told >= busy_until && busy_until > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_slice_begins_when_its_turn_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
