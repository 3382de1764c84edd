/* bench_print.c - what forge bench found, as text and as JSON.
 *
 *     27.6 GFLOP/s (12.4 % of 223.0), 6.9 GB/s (19.3 % of 35.8)
 *
 * A rate above what the machine can do is not a rate: either the peak was measured while
 * the machine had other work, or the work is counted wrong. Then that is said instead.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/bench.h"

/* Clocks change within a measurement; by more than this they do not. */
#define SLACK 1.05

static bool
above(double rate, double peak)
{
    return rate > peak * SLACK;
}

static double
percent(double rate, double peak)
{
    double p = peak > 0 ? 100 * rate / peak : 0;

    return p > 100 ? 100 : p;
}

static double
rate(double work, double ms)
{
    return ms > 0 ? work / ms * 1e-6 : 0;
}

/* Why a rate is not given; NULL: it is. */
static const char *
wrong(const bench *b, double gflops, double gbps)
{
    if (above(gflops, b->peak.gflops))
        return "more operations than the measured peak of single precision: the machine "
               "was busy while it was measured; measure again";
    if (above(gbps, b->peak.gbps))
        return "more bytes than the measured peak of reading: the machine was busy while "
               "it was measured, or a cache holds them; measure again";
    return NULL;
}

bool
bench_above_peak(const bench *b)
{
    double p50 = bench_percentile(b, 50);

    return wrong(b, rate(b->flops, p50), rate(b->bytes, p50));
}

/* "dir/bert/model.onnx" is called bert. */
const char *
bench_model_name(const bench *b)
{
    const char *base = strrchr(b->c.model, '/'), *s = base;

    if (!base || strcmp(base, "/model.onnx"))
        return base ? base + 1 : b->c.model;
    while (s > b->c.model && s[-1] != '/')
        s--;
    return fg_format(b->a, "%.*s", (int)(base - s), s);
}

/* ---- JSON -------------------------------------------------------------------------- */

static void
add_rate(cJSON *o, const char *name, const char *share, double rate, double peak)
{
    if (above(rate, peak)) {
        cJSON_AddNullToObject(o, name);
        cJSON_AddNullToObject(o, share);
        return;
    }
    cJSON_AddNumberToObject(o, name, rate);
    cJSON_AddNumberToObject(o, share, percent(rate, peak));
}

static void
add_rates(cJSON *o, const bench *b, double flops, double bytes, double ms)
{
    double gflops = rate(flops, ms), gbps = rate(bytes, ms);
    const char *why = wrong(b, gflops, gbps);

    add_rate(o, "gflops", "pct_peak_flops", gflops, b->peak.gflops);
    add_rate(o, "gbps", "pct_peak_bandwidth", gbps, b->peak.gbps);
    if (why)
        cJSON_AddStringToObject(o, "refused", why);
}

/* Steps that are kernels and ran, the one that took longest first. */
static uint32_t
kernels(const bench *b, uint32_t *order)
{
    const fg_program *p = b->m->program;
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->nstep; i++) {
        if (p->step[i].kind != FG_STEP_KERNEL || !b->step_calls[i])
            continue;
        uint32_t j = n++;
        for (; j > 0 && b->step_ns[order[j - 1]] < b->step_ns[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
    return n;
}

static double
step_ms(const bench *b, uint32_t i)
{
    return (double)b->step_ns[i] / (double)b->step_calls[i] * 1e-6;
}

static void
add_kernels(cJSON *o, const bench *b)
{
    const fg_program *p = b->m->program;
    uint32_t *order = FG_NEWN(b->a, uint32_t, p->nstep + 1), n = kernels(b, order);
    cJSON *list = cJSON_AddArrayToObject(o, "kernels");

    for (uint32_t k = 0; k < n; k++) {
        const fg_step *s = &p->step[order[k]];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(list, row);
        cJSON_AddStringToObject(row, "name", s->name);
        cJSON_AddStringToObject(row, "nodes", s->nodes);
        cJSON_AddNumberToObject(row, "us", step_ms(b, order[k]) * 1e3);
        cJSON_AddNumberToObject(row, "calls", (double)b->step_calls[order[k]]);
        add_rates(row, b, bench_step_work(b->r, s, true), bench_step_work(b->r, s, false),
                  step_ms(b, order[k]));
    }
}

/* What there is only when something ran. */
static void
add_run(cJSON *o, const bench *b)
{
    double p50 = bench_percentile(b, 50);

    cJSON_AddNumberToObject(o, "first_ms", b->first_ms);
    cJSON *lat = cJSON_AddArrayToObject(o, "lat_ms");
    for (int i = 0; i < b->nlat; i++)
        cJSON_AddItemToArray(lat, cJSON_CreateNumber(b->lat[i]));
    cJSON_AddNumberToObject(o, "p50_ms", p50);
    cJSON_AddNumberToObject(o, "p90_ms", bench_percentile(b, 90));
    cJSON_AddNumberToObject(o, "p99_ms", bench_percentile(b, 99));
    cJSON_AddNumberToObject(o, "cpu_s_per_run", b->cpu_s);
    if (b->energy_j > 0)
        cJSON_AddNumberToObject(o, "energy_j", b->energy_j);
    cJSON_AddNumberToObject(o, "run_peak_kb", (double)b->run_peak_kb);
    cJSON_AddNumberToObject(o, "peak_gflops", b->peak.gflops);
    cJSON_AddNumberToObject(o, "peak_gbps", b->peak.gbps);
    add_rates(o, b, b->flops, b->bytes, p50);
    if (b->kernels)
        add_kernels(o, b);
}

void
bench_print_json(const bench *b)
{
    cJSON *o = cJSON_CreateObject();
    int given = b->c.threads > 0 ? b->c.threads : tool_cores();

    cJSON_AddStringToObject(o, "engine", "forge");
    cJSON_AddStringToObject(o, "version", forge_version());
    cJSON_AddStringToObject(o, "model", bench_model_name(b));
    cJSON_AddStringToObject(o, "task", b->task);
    cJSON_AddNumberToObject(o, "threads", b->threads ? b->threads : given);
    cJSON_AddNumberToObject(o, "compile_ms", b->compile_ms);
    cJSON_AddNumberToObject(o, "load_ms", b->load_ms);
    cJSON_AddNumberToObject(o, "base_rss_kb", (double)b->base_kb);
    cJSON_AddNumberToObject(o, "compile_peak_kb", (double)b->compile_peak_kb);
    if (b->nlat)
        add_run(o, b);
    char *text = cJSON_PrintUnformatted(o);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(o);
}

/* ---- text -------------------------------------------------------------------------- */

static void
print_rate(double rate, double peak)
{
    if (above(rate, peak))
        printf(" %8s %6s", "-", "above");
    else
        printf(" %8.1f %5.1f%%", rate, percent(rate, peak));
}

static void
print_kernels(const bench *b)
{
    const fg_program *p = b->m->program;
    uint32_t *order = FG_NEWN(b->a, uint32_t, p->nstep + 1), n = kernels(b, order);
    bool cached = false;

    printf("\n%9s %8s %6s %8s %6s  %s\n", "us", "GFLOP/s", "peak", "GB/s", "peak",
           "kernel");
    for (uint32_t k = 0; k < n; k++) {
        const fg_step *s = &p->step[order[k]];
        double ms = step_ms(b, order[k]);
        double gbps = rate(bench_step_work(b->r, s, false), ms);
        printf("%9.1f", ms * 1e3);
        print_rate(rate(bench_step_work(b->r, s, true), ms), b->peak.gflops);
        print_rate(gbps, b->peak.gbps);
        printf("  %s  %.60s\n", s->name, s->nodes);
        cached |= above(gbps, b->peak.gbps);
    }
    if (cached)
        puts("above: operands come from a cache that is faster than what holds all the "
             "model's data");
}

void
bench_print_text(const bench *b)
{
    printf("%s: %s in %.1f ms, %ld KiB at most\n", bench_model_name(b),
           tool_is_artifact(b->c.model) ? "loaded" : "compiled",
           b->load_ms + b->compile_ms, b->compile_peak_kb);
    if (!b->nlat)
        return;
    double p50 = bench_percentile(b, 50);
    double gflops = rate(b->flops, p50), gbps = rate(b->bytes, p50);
    const char *why = wrong(b, gflops, gbps);
    printf("%s, %d threads: first %.3f ms, then p50 %.3f p90 %.3f p99 %.3f ms (%d runs), "
           "%.3f ms of CPU, %ld KiB at most\n",
           b->task, b->threads, b->first_ms, p50, bench_percentile(b, 90),
           bench_percentile(b, 99), b->nlat, b->cpu_s * 1e3, b->run_peak_kb);
    if (b->energy_j > 0)
        printf("%.4g J a run\n", b->energy_j);
    if (why)
        printf("no rates: %s (peaks %.1f GFLOP/s, %.1f GB/s)\n", why, b->peak.gflops,
               b->peak.gbps);
    else
        printf("%.1f GFLOP/s (%.1f %% of %.1f), %.1f GB/s (%.1f %% of %.1f)\n", gflops,
               percent(gflops, b->peak.gflops), b->peak.gflops, gbps,
               percent(gbps, b->peak.gbps), b->peak.gbps);
    if (b->kernels)
        print_kernels(b);
}
