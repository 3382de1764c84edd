/* tune_model.c - the cost model held against measured kernels.
 *
 *     cost = max(flops / F, bytes / B) + S      F, B, S fitted to the times measured
 *
 * Rank correlation (Spearman) says whether the model puts kernels in the right order, which
 * is all that decisions need. Headroom is measured time above the machine's measured
 * bound: a knob that acts on kernels without any is not worth a trial.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tune.h"

typedef struct sample {
    double flops, bytes, us;
} sample;

/* ---- rank correlation ---------------------------------------------------------------- */

typedef struct ranked {
    double v, rank;
    int at;
} ranked;

static int
by_value(const void *x, const void *y)
{
    double a = ((const ranked *)x)->v, b = ((const ranked *)y)->v;

    return (a > b) - (a < b);
}

/* Equal values share the mean of their ranks. */
static double *
ranks_of(fg_arena *a, const double *v, int n)
{
    ranked *r = FG_NEWN(a, ranked, (size_t)n);
    double *out = FG_NEWN(a, double, (size_t)n);

    for (int k = 0; k < n; k++)
        r[k] = (ranked){.v = v[k], .at = k};
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int k = 0, end; k < n; k = end) {
        for (end = k + 1; end < n && r[end].v <= r[k].v;)
            end++;
        for (int j = k; j < end; j++)
            out[r[j].at] = (k + end - 1) / 2.0;
    }
    return out;
}

static double
correlation(fg_arena *a, const double *x, const double *y, int n)
{
    const double *p = ranks_of(a, x, n), *q = ranks_of(a, y, n);
    double mean = (n - 1) / 2.0, xy = 0, xx = 0, yy = 0;

    for (int k = 0; k < n; k++) {
        xy += (p[k] - mean) * (q[k] - mean);
        xx += (p[k] - mean) * (p[k] - mean);
        yy += (q[k] - mean) * (q[k] - mean);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

static double
rank_at(fg_arena *a, const fg_rates *r, const sample *s, int n)
{
    double *cost = FG_NEWN(a, double, (size_t)n + 1);
    double *us = FG_NEWN(a, double, (size_t)n + 1);

    for (int k = 0; k < n; k++) {
        cost[k] = fg_cost_kernel_at(r, s[k].flops, s[k].bytes);
        us[k] = s[k].us;
    }
    return correlation(a, cost, us, n);
}

/* ---- fitting --------------------------------------------------------------------------- */

static double
misfit(const fg_rates *r, const sample *s, int n)
{
    double sum = 0;

    for (int k = 0; k < n; k++)
        sum += fabs(log(fg_cost_kernel_at(r, s[k].flops, s[k].bytes) / s[k].us));
    return sum;
}

/* One rate after the other, by factors that halve; the misfit has few valleys, and the
 * machine is within a few powers of two of the model's. */
static fg_rates
fit(const sample *s, int n)
{
    fg_rates best = fg_cost_rates;
    double least = misfit(&best, s, n);

    for (double factor = 8; factor > 1.02; factor = sqrt(factor))
        for (int turn = 0; turn < 6; turn++) {
            fg_rates r = best;
            double *which[] = {&r.flops, &r.bytes, &r.start_us};
            *which[turn / 2] *= turn % 2 ? factor : 1 / factor;
            double m = misfit(&r, s, n);
            if (m < least) {
                least = m;
                best = r;
                turn = -1;
            }
        }
    return best;
}

/* ---- all of it ------------------------------------------------------------------------- */

/* What of knobs.def acts on a kernel: none, products of many rows, of few. At up to 8 rows
 * a weight of 4 bytes takes part in at most 16 operations. */
static fg_knobreach
reach_of(const fg_step *s, double flops, double bytes)
{
    enum { FEW_INTENSITY = 4 };

    if (!strstr(s->name, "matmul") && !strstr(s->name, "conv") &&
        !strstr(s->name, "attention"))
        return 0;
    return flops > FEW_INTENSITY * bytes ? FG_KNOB_MANY : FG_KNOB_FEW;
}

void
tune_fit_model(fg_arena *a, bench *b, tune_fit *f)
{
    const fg_program *p = b->m->program;
    sample *s = FG_NEWN(a, sample, (size_t)p->nstep + 1);

    *f = (tune_fit){0};
    bench_measure_peak(b);
    for (uint32_t k = 0; k < p->nstep; k++) {
        const fg_step *x = &p->step[k];
        if (x->kind != FG_STEP_KERNEL || !b->step_calls[k] || b->step_ns[k] <= 0)
            continue;
        sample *one = &s[f->kernels++];
        bench_bound bound = bench_step_bound(b, x);
        *one = (sample){bound.flops, bound.bytes,
                        (double)b->step_ns[k] / (double)b->step_calls[k] * 1e-3};
        double least = fmax(bound.math_ms, bound.memory_ms) * 1e3;
        double above = fmax(one->us - least, 0);
        f->total += one->us;
        fg_knobreach reach = reach_of(x, one->flops, one->bytes);
        f->headroom[0] += above;
        f->headroom[reach] += reach ? above : 0;
    }
    f->headroom[FG_KNOB_SHARED] = b->threads > 1 ? f->headroom[0] : 0;
    f->headroom[FG_KNOB_BOTH] = f->headroom[FG_KNOB_MANY] + f->headroom[FG_KNOB_FEW];
    f->rates = fit(s, f->kernels);
    f->rank = rank_at(a, &fg_cost_rates, s, f->kernels);
    f->rank_fitted = rank_at(a, &f->rates, s, f->kernels);
}
