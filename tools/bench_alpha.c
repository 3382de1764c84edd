/* bench_alpha.c - forge bench --alpha-sweep: the model compiled at several alphas,
 * everything else equal.
 *
 *     alpha  nodes  kernels  fused  cost us   FGR  compile ms   p50 ms   gain   CEI
 *      0.00    434      124      0   333156  1.00        96.1     61.2    0.0%  10.41
 *      1.00    350       88     12   331218  1.01        91.7     58.0    5.2%  11.51
 *
 * All are compiled first and then run in turn, one run of each after the other, so that
 * what else the machine does meets all of them alike. Each is compared with the first:
 * FGR is the ratio of their costs under the cost model, gain the share of its time that
 * is saved, CEI the ratio of their latencies per second of compiling.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/bench.h"

enum { MOST = 16 };

typedef struct point {
    bench b;
    double alpha, cost, p50;
    int nodes, kernels, fused;
} point;

typedef struct sweep {
    point at[MOST];
    int n;
} sweep;

static bool
parse_alphas(bench *b, sweep *s)
{
    const char *text = *b->alphas ? b->alphas : "0,0.2,0.4,0.6,0.8,1";

    for (const char *p = text; *p; p += *p == ',') {
        char *end;
        double alpha = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(alpha >= 0 && alpha <= 1) ||
            s->n == MOST) {
            b->code = tool_fail(TOOL_USAGE,
                                "--alpha-sweep=%.100s: expected up to %d numbers from 0 "
                                "to 1, comma separated",
                                text, MOST);
            return false;
        }
        s->at[s->n++].alpha = alpha;
        p = end;
    }
    return true;
}

static double
number(const cJSON *o, const char *group, const char *key)
{
    if (group)
        o = cJSON_GetObjectItem(o, group);
    const cJSON *v = cJSON_GetObjectItem(o, key);
    return v ? v->valuedouble : 0;
}

static void
read_report(point *p)
{
    cJSON *o = cJSON_Parse(forge_model_report(p->b.m));

    p->nodes = (int)number(o, "nodes", "optimized");
    p->fused = (int)number(o, "attention", "fused");
    const cJSON *kernel;
    cJSON_ArrayForEach(kernel, cJSON_GetObjectItem(o, "kernels")) p->kernels +=
        !cJSON_HasObjectItem(kernel, "once");
    p->cost = number(o, NULL, "cost");
    cJSON_Delete(o);
}

static bool
prepare(const bench *b, point *p)
{
    p->b = *b;
    p->b.c.o.alpha = p->alpha;
    if (!bench_compile(&p->b))
        return false;
    read_report(p);
    return !strcmp(b->task, "compile") ||
           (bench_first_run(&p->b) && bench_warm_up(&p->b));
}

static bool
measure(bench *b, sweep *s)
{
    double end = tool_now_ms() + b->duration * 1e3;

    for (int i = 0; i < b->iterations && (i < 3 || tool_now_ms() < end); i++)
        for (int k = 0; k < s->n; k++)
            if (!bench_step(&s->at[k].b))
                return false;
    for (int k = 0; k < s->n; k++)
        s->at[k].p50 = bench_percentile(&s->at[k].b, 50);
    return true;
}

/* ---- telling ----------------------------------------------------------------------- */

static double
ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double
cei(const sweep *s, const point *p)
{
    return ratio(ratio(s->at[0].p50, p->p50), p->b.compile_ms * 1e-3);
}

static void
print_table(const sweep *s)
{
    printf(
        "alpha  nodes  kernels  fused   cost us    FGR  compile ms    p50 ms    gain    "
        "CEI\n");
    for (int k = 0; k < s->n; k++) {
        const point *p = &s->at[k];
        printf("%5.2f  %5d  %7d  %5d  %8.0f  %5.3f  %10.1f", p->alpha, p->nodes,
               p->kernels, p->fused, p->cost, ratio(s->at[0].cost, p->cost),
               p->b.compile_ms);
        if (p->p50 > 0)
            printf("  %8.3f  %5.1f%%  %5.2f", p->p50,
                   100 * (1 - ratio(p->p50, s->at[0].p50)), cei(s, p));
        putchar('\n');
    }
}

static void
print_json(const bench *b, const sweep *s)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "engine", "forge");
    cJSON_AddStringToObject(o, "version", forge_version());
    cJSON_AddStringToObject(o, "model", bench_model_name(b));
    cJSON_AddStringToObject(o, "task", b->task);
    cJSON_AddNumberToObject(o, "fgr", ratio(s->at[0].cost, s->at[s->n - 1].cost));
    cJSON *list = cJSON_AddArrayToObject(o, "sweep");
    for (int k = 0; k < s->n; k++) {
        const point *p = &s->at[k];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(list, row);
        cJSON_AddNumberToObject(row, "alpha", p->alpha);
        cJSON_AddNumberToObject(row, "nodes", p->nodes);
        cJSON_AddNumberToObject(row, "kernels", p->kernels);
        cJSON_AddNumberToObject(row, "attention_fused", p->fused);
        cJSON_AddNumberToObject(row, "cost", p->cost);
        cJSON_AddNumberToObject(row, "compile_ms", p->b.compile_ms);
        if (p->p50 <= 0)
            continue;
        cJSON_AddNumberToObject(row, "p50_ms", p->p50);
        cJSON_AddNumberToObject(row, "gain", 1 - ratio(p->p50, s->at[0].p50));
        cJSON_AddNumberToObject(row, "cei", cei(s, p));
    }
    char *text = cJSON_PrintUnformatted(o);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(o);
}

void
bench_alpha_sweep(bench *b)
{
    sweep *s = FG_NEW(b->a, sweep);

    if (tool_is_artifact(b->c.model)) {
        b->code = tool_fail(TOOL_USAGE, "--alpha-sweep compiles: it needs a model, "
                                        "not what one was compiled to");
        return;
    }
    if (!parse_alphas(b, s))
        return;
    for (int k = 0; k < s->n && b->code == TOOL_OK; k++)
        if (!prepare(b, &s->at[k]))
            b->code = s->at[k].b.code;
    if (b->code == TOOL_OK && strcmp(b->task, "compile") && !measure(b, s))
        for (int k = 0; k < s->n; k++)
            b->code = s->at[k].b.code ? s->at[k].b.code : b->code;
    if (b->code == TOOL_OK && b->json)
        print_json(b, s);
    else if (b->code == TOOL_OK)
        print_table(s);
    for (int k = 0; k < s->n; k++) {
        bench_decode_end(&s->at[k].b);
        forge_run_free(s->at[k].b.r);
        forge_model_free(s->at[k].b.m);
    }
}
