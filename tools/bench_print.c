/* bench_print.c - what forge bench found, as text and as JSON.
 *
 *     27.6 GFLOP/s (12.4 % of the peak), 6.9 GB/s (19.3 %)
 *     measured peaks: f32 117, bf16 235, int8 470 GFLOP/s; L1 118.0, .., memory 21.4 GB/s
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

static const char *const math_name[] = {
    [TOOL_F32] = "f32", [TOOL_BF16] = "bf16", [TOOL_BYTES] = "int8"};
static const char *const level_name[] = {
    [TOOL_L1] = "L1", [TOOL_L2] = "L2", [TOOL_L3] = "L3", [TOOL_MEMORY] = "memory"};

/* What work was done in a time, and what of that time it had to take. */
typedef struct rates {
    double gflops, math; /* of the peak, 1: all of it */
    double gbps, memory;
} rates;

static rates
rates_of(const bench_bound *x, double ms)
{
    if (ms <= 0)
        return (rates){0};
    return (rates){x->flops / ms * 1e-6, x->math_ms / ms, x->bytes / ms * 1e-6,
                   x->memory_ms / ms};
}

static double
percent(double share)
{
    return share > 1 ? 100 : 100 * share;
}

/* Why a rate is not given; NULL: it is. */
static const char *
wrong(const rates *r)
{
    if (r->math > SLACK)
        return "more operations than the measured peak: the machine was busy while it "
               "was "
               "measured; measure again";
    if (r->memory > SLACK)
        return "more bytes than the measured peak of reading: the machine was busy while "
               "it was measured; measure again";
    return NULL;
}

bool
bench_above_peak(const bench *b)
{
    bench_bound x = bench_run_bound(b);
    rates r = rates_of(&x, bench_percentile(b, 50));

    return wrong(&r);
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
add_rate(cJSON *o, const char *name, const char *share, double rate, double part)
{
    if (part > SLACK) {
        cJSON_AddNullToObject(o, name);
        cJSON_AddNullToObject(o, share);
        return;
    }
    cJSON_AddNumberToObject(o, name, rate);
    cJSON_AddNumberToObject(o, share, percent(part));
}

static void
add_rates(cJSON *o, const bench_bound *x, double ms)
{
    rates r = rates_of(x, ms);
    const char *why = wrong(&r);

    add_rate(o, "gflops", "pct_peak_flops", r.gflops, r.math);
    add_rate(o, "gbps", "pct_peak_bandwidth", r.gbps, r.memory);
    cJSON_AddStringToObject(o, "math", math_name[x->math]);
    cJSON_AddStringToObject(o, "memory", level_name[x->level]);
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
        bench_bound x = bench_step_bound(b, s);
        add_rates(row, &x, step_ms(b, order[k]));
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
    bench_bound x = bench_run_bound(b);
    cJSON_AddNumberToObject(o, "peak_gflops", b->peak.gflops[x.math]);
    cJSON_AddNumberToObject(o, "peak_gbps", b->peak.gbps[x.level]);
    cJSON *peaks = cJSON_AddObjectToObject(o, "peaks");
    for (int k = 0; k < TOOL_NMATH; k++)
        cJSON_AddNumberToObject(peaks, math_name[k], b->peak.gflops[k]);
    for (int k = 0; k < TOOL_NLEVELS; k++)
        cJSON_AddNumberToObject(peaks, level_name[k], b->peak.gbps[k]);
    add_rates(o, &x, p50);
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
print_rate(double rate, double part, const char *of)
{
    if (part > SLACK)
        printf(" %8s %6s %-6s", "-", "above", of);
    else
        printf(" %8.1f %5.1f%% %-6s", rate, percent(part), of);
}

static void
print_kernels(const bench *b)
{
    const fg_program *p = b->m->program;
    uint32_t *order = FG_NEWN(b->a, uint32_t, p->nstep + 1), n = kernels(b, order);

    printf("\n%9s %8s %-13s %8s %-13s %s\n", "us", "GFLOP/s", "  peak of", "GB/s",
           "  peak of", " kernel");
    for (uint32_t k = 0; k < n; k++) {
        const fg_step *s = &p->step[order[k]];
        double ms = step_ms(b, order[k]);
        bench_bound x = bench_step_bound(b, s);
        rates r = rates_of(&x, ms);
        printf("%9.1f", ms * 1e3);
        print_rate(r.gflops, r.math, math_name[x.math]);
        print_rate(r.gbps, r.memory, level_name[x.level]);
        printf("  %s  %.60s\n", s->name, s->nodes);
    }
}

static void
print_rates(const bench *b, double p50)
{
    bench_bound x = bench_run_bound(b);
    rates r = rates_of(&x, p50);
    const char *why = wrong(&r);

    if (why)
        printf("no rates: %s\n", why);
    else
        printf("%.1f GFLOP/s (%.1f %% of the peak), %.1f GB/s (%.1f %%)\n", r.gflops,
               percent(r.math), r.gbps, percent(r.memory));
    printf("measured peaks:");
    for (int k = 0; k < TOOL_NMATH; k++)
        printf(" %s %.0f%s", math_name[k], b->peak.gflops[k],
               k + 1 < TOOL_NMATH ? "," : " GFLOP/s;");
    for (int k = 0; k < TOOL_NLEVELS; k++)
        printf(" %s %.1f%s", level_name[k], b->peak.gbps[k],
               k + 1 < TOOL_NLEVELS ? "," : " GB/s\n");
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
    printf("%s, %d threads: first %.3f ms, then p50 %.3f p90 %.3f p99 %.3f ms (%d runs), "
           "%.3f ms of CPU, %ld KiB at most\n",
           b->task, b->threads, b->first_ms, p50, bench_percentile(b, 90),
           bench_percentile(b, 99), b->nlat, b->cpu_s * 1e3, b->run_peak_kb);
    if (b->energy_j > 0)
        printf("%.4g J a run\n", b->energy_j);
    print_rates(b, p50);
    if (b->kernels)
        print_kernels(b);
}
