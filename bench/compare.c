#include "harness.h"

#include <math.h> /* NAN, isnan: no libm is needed */
#include <stdlib.h>
#include <string.h>

#define REDO_MAX 4 /* repetitions that may be thrown away in one comparison */
#define RTT_CHANGE 1.3

struct runs {
    unsigned reps;
    double value[EB_VARIANTS][EB_METRICS][EB_REPS];
    double rtt_min, rtt_max;
    unsigned redone, unstable;
};

static double lower(double a, double b) { return a < b ? a : b; }
static double higher(double a, double b) { return a > b ? a : b; }

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, unsigned n) {
    double s[EB_REPS];
    memcpy(s, v, n * sizeof *v);
    qsort(s, n, sizeof *s, by_value);
    return n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
}

/* --only: baselines and the variants whose name has that in it. */
static bool is_wanted(const struct eb_bench *b, const struct eb_variant *v) {
    return !b->opt.only || v->base < 0 || strstr(v->name, b->opt.only);
}

/* One repetition of every variant. 1: a CPU moved meanwhile. */
static int repetition(struct eb_bench *b, const struct eb_comparison *c, struct runs *r,
                      unsigned rep) {
    double low = eb_rtt_ns(b->opt.cpu), high = low;
    for (unsigned v = 0; c->variant[v].name; v++) {
        double out[EB_METRICS] = {0};
        if (!is_wanted(b, &c->variant[v]))
            continue;
        if (c->variant[v].run(b, c->variant[v].arg, out) != 0) {
            fprintf(stderr, "eagre-bench: %s: '%s' failed\n", c->scenario, c->variant[v].name);
            return -1;
        }
        for (unsigned m = 0; m < EB_METRICS; m++)
            r->value[v][m][rep] = out[m];
        double rtt = eb_rtt_ns(b->opt.cpu);
        low = lower(low, rtt);
        high = higher(high, rtt);
    }
    r->rtt_min = rep == 0 && r->redone == 0 ? low : lower(r->rtt_min, low);
    r->rtt_max = higher(r->rtt_max, high);
    return high > low * RTT_CHANGE;
}

static int run_all(struct eb_bench *b, const struct eb_comparison *c, struct runs *r) {
    for (unsigned rep = 0; rep < r->reps;) {
        int moved = repetition(b, c, r, rep);
        if (moved < 0)
            return -1;
        if (moved && r->redone < REDO_MAX) {
            r->redone++;
            continue;
        }
        r->unstable += moved ? 1 : 0;
        rep++;
    }
    return 0;
}

/* Median over the repetitions of this variant's metric divided by its baseline's. NAN: none. */
static double ratio(const struct eb_comparison *c, const struct runs *r, unsigned v, unsigned m) {
    double q[EB_REPS];
    int base = c->variant[v].base;
    if (base < 0)
        return NAN;
    for (unsigned i = 0; i < r->reps; i++) {
        if (r->value[base][m][i] == 0)
            return NAN;
        q[i] = r->value[v][m][i] / r->value[base][m][i];
    }
    return median(q, r->reps);
}

static const struct eb_goal *goal_of(const struct eb_variant *v, unsigned m) {
    for (unsigned i = 0; i < 2; i++)
        if (v->goal[i].op && v->goal[i].metric == m)
            return &v->goal[i];
    return NULL;
}

static void json_row(struct eb_bench *b, const struct eb_comparison *c, const struct runs *r,
                     unsigned v, unsigned m, double mid, double q, const struct eb_goal *g,
                     bool met) {
    FILE *f = b->json;
    fprintf(f, "%s\n{\"scenario\":", b->json_any ? "," : "");
    b->json_any = true;
    eb_json_string(f, c->scenario);
    fprintf(f, ",\"title\":");
    eb_json_string(f, c->title);
    fprintf(f, ",\"variant\":");
    eb_json_string(f, c->variant[v].name);
    fprintf(f, ",\"metric\":\"%s\",\"unit\":\"%s\",\"median\":%.6g,\"values\":[", c->metric[m].name,
            c->metric[m].unit, mid);
    for (unsigned i = 0; i < r->reps; i++)
        fprintf(f, "%s%.6g", i ? "," : "", r->value[v][m][i]);
    fprintf(f, "]");
    if (!isnan(q)) {
        fprintf(f, ",\"baseline\":");
        eb_json_string(f, c->variant[c->variant[v].base].name);
        fprintf(f, ",\"ratio\":%.4g", q);
    }
    if (g)
        fprintf(f, ",\"goal\":\"%c= %g%s\",\"met\":%s", g->op, g->value,
                g->absolute ? "" : " of baseline", met ? "true" : "false");
    fprintf(f, ",\"line_round_trip_ns\":[%.1f,%.1f],\"unstable\":%u}", r->rtt_min, r->rtt_max,
            r->unstable);
}

static void report_row(struct eb_bench *b, const struct eb_comparison *c, const struct runs *r,
                       unsigned v, unsigned m) {
    const struct eb_variant *var = &c->variant[v];
    const double *x = r->value[v][m];
    double low = x[0], high = x[0], mid = median(x, r->reps), q = ratio(c, r, v, m);
    for (unsigned i = 1; i < r->reps; i++) {
        low = lower(low, x[i]);
        high = higher(high, x[i]);
    }
    const struct eb_goal *g = goal_of(var, m);
    double judged = g && g->absolute ? mid : q;
    bool met = g && (g->op == '<' ? judged <= g->value : judged >= g->value);
    if (g && !met)
        b->missed++;

    int d = c->metric[m].decimals;
    fprintf(b->text, "  %-34s %-9s %-6s %10.*f %10.*f %10.*f", m == 0 ? var->name : "",
            c->metric[m].name, c->metric[m].unit, d, mid, d, low, d, high);
    if (!isnan(q))
        fprintf(b->text, "  %6.2fx", q);
    else
        fprintf(b->text, "  %7s", "");
    if (g)
        fprintf(b->text, "  %c= %g%s %s", g->op, g->value, g->absolute ? "" : "x",
                met ? "ok" : "MISSED");
    fputc('\n', b->text);
    if (b->json)
        json_row(b, c, r, v, m, mid, q, g, met);
}

int eb_compare(struct eb_bench *b, const struct eb_comparison *c) {
    struct runs *r = calloc(1, sizeof *r);
    if (!r)
        return -1;
    r->reps = c->reps ? c->reps : b->opt.reps;
    uint64_t steal = eb_steal_ticks();
    int64_t began = eb_now_ns();
    int result = run_all(b, c, r);
    if (result == 0) {
        fprintf(b->text, "\n%s: %s\n", c->scenario, c->title);
        fprintf(b->text, "  %-34s %-9s %-6s %10s %10s %10s  %7s  %s\n", "variant", "metric", "unit",
                "median", "min", "max", "ratio", "goal");
        for (unsigned v = 0; c->variant[v].name; v++)
            for (unsigned m = 0;
                 m < EB_METRICS && c->metric[m].name && is_wanted(b, &c->variant[v]); m++)
                report_row(b, c, r, v, m);
        fprintf(
            b->text,
            "  %u repetitions in %.1f s, %u redone, %u unstable; line round trip %.0f..%.0f ns; "
            "steal %llu ticks; load %.2f\n",
            r->reps, (double)(eb_now_ns() - began) / 1e9, r->redone, r->unstable, r->rtt_min,
            r->rtt_max, (unsigned long long)(eb_steal_ticks() - steal), eb_load());
        fflush(b->text);
    }
    free(r);
    return result;
}
