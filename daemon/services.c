/* services.c - the table of services: their order is the order of the start. */
#include "daemon.h"
#include "sys/clock.h"
#include "sys/errbuf.h"

static const struct eg_service *const services[] = {
    &eg_lock_service,   &eg_meta_service,      &eg_keep_service,   &eg_bus_service,
    &eg_graves_service, &eg_placement_service, &eg_disk_service,   &eg_topics_service, &eg_clients_service,
    &eg_slots_service,  &eg_retention_service, &eg_janitor_service, &eg_stalls_service, &eg_groups_service,
    &eg_sessions_service,
};

#define SERVICES (sizeof(services) / sizeof(services[0]))

static size_t started;

int eg_services_start(struct eg_daemon *d) {
    for (started = 0; started < SERVICES; started++) {
        const struct eg_service *s = services[started];
        int rc = s->start != NULL ? s->start(d) : EAGRE_OK;
        if (rc != EAGRE_OK) {
            /* Memory that was there before us outlives our failure; a keeper that we began does not. */
            char text[EG_ERROR_TEXT_MAX];
            snprintf(text, sizeof(text), "%s", eg_error_text());
            eg_services_stop(d, !d->fresh);
            return eg_error_set(rc, "%s", text);
        }
        eg_log_debug("%s: started", s->name);
    }
    return EAGRE_OK;
}

int64_t eg_services_tick(struct eg_daemon *d, int64_t now_ns) {
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < SERVICES; i++) {
        if (services[i]->tick == NULL)
            continue;
        int64_t wanted = services[i]->tick(d, now_ns);
        if (wanted < next)
            next = wanted;
        now_ns = eg_mono_ns(); /* slices are counted from it: none is used up by those before */
    }
    return next;
}

void eg_services_stop(struct eg_daemon *d, bool keep) {
    while (started > 0) {
        const struct eg_service *s = services[--started];
        if (s->stop != NULL)
            s->stop(d, keep);
        eg_log_debug("%s: stopped", s->name);
    }
}

void eg_daemon_stop(struct eg_daemon *d, enum eg_stop how, const char *why) {
    eg_log_info("stopping%s: %s", how == EG_STOP_KEEP ? ", the memory stays" : "", why);
    d->stop = how;
    eg_loop_stop(d->loop);
}
