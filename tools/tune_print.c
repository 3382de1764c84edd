/* tune_print.c - what forge tune tries and finds. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tune.h"

static const char *const verdict[] = {
    [TUNE_TAKEN] = "taken",
    [TUNE_SLOWER] = "not faster",
    [TUNE_UNSURE] = "not surely faster",
    [TUNE_COSTLY] = "ruled out by the cost model",
    [TUNE_WRONG] = "other results",
};

static double
gain(const tune *t)
{
    return t->best != t->start ? t->result.gain : 0;
}

void
tune_print_trial(const tune *t, const tune_trial *x)
{
    if (t->b.json)
        return;
    printf("%-20s", x->change);
    if (x->duel.pairs)
        printf(" %9.3f -> %9.3f ms %+6.1f%%  %3d of %3d pairs", x->duel.first,
               x->duel.second, -100 * x->duel.gain, x->duel.wins, x->duel.pairs);
    printf("  %s\n", verdict[x->verdict]);
    fflush(stdout);
}

void
tune_print_text(const tune *t)
{
    const tune_fit *f = &t->fit;

    printf("cost model: rank correlation with the times of %d kernels %.3f, fitted %.3f "
           "(%.0f GFLOP/s, %.0f GB/s, %.2f us a start)\n",
           f->kernels, f->rank, f->rank_fitted, f->rates.flops * 1e-3,
           f->rates.bytes * 1e-3, f->rates.start_us);
    printf("a build against itself: %.1f %%\n", 100 * t->noise);
    if (t->best == t->start)
        printf("%d trials in %.1f s: nothing surely faster than the default\n", t->ntrial,
               t->seconds);
    else
        printf("%d trials in %.1f s: %.3f -> %.3f ms, %.1f %% saved, %.3f %% per second "
               "of tuning\n",
               t->ntrial, t->seconds, t->result.first, t->result.second, 100 * gain(t),
               100 * gain(t) / t->seconds);
    printf("%s\n", t->best->knobs);
}

static void
add_trials(cJSON *o, const tune *t)
{
    cJSON *list = cJSON_AddArrayToObject(o, "trials");

    for (int k = 0; k < t->ntrial; k++) {
        const tune_trial *x = &t->trial[k];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(list, row);
        cJSON_AddStringToObject(row, "change", x->change);
        cJSON_AddStringToObject(row, "verdict", verdict[x->verdict]);
        if (!x->duel.pairs)
            continue;
        cJSON_AddNumberToObject(row, "before_ms", x->duel.first);
        cJSON_AddNumberToObject(row, "after_ms", x->duel.second);
        cJSON_AddNumberToObject(row, "gain", x->duel.gain);
        cJSON_AddNumberToObject(row, "wins", x->duel.wins);
        cJSON_AddNumberToObject(row, "pairs", x->duel.pairs);
    }
}

void
tune_print_json(const tune *t)
{
    cJSON *o = cJSON_CreateObject();
    const tune_fit *f = &t->fit;

    cJSON_AddStringToObject(o, "engine", "forge");
    cJSON_AddStringToObject(o, "version", forge_version());
    cJSON_AddStringToObject(o, "model", bench_model_name(&t->b));
    cJSON_AddStringToObject(o, "task", t->b.task);
    cJSON_AddNumberToObject(o, "seconds", t->seconds);
    cJSON_AddStringToObject(o, "knobs", t->best->knobs);
    cJSON_AddBoolToObject(o, "found", t->best != t->start);
    if (t->best != t->start) {
        cJSON_AddNumberToObject(o, "default_ms", t->result.first);
        cJSON_AddNumberToObject(o, "best_ms", t->result.second);
    }
    cJSON_AddNumberToObject(o, "gain", gain(t));
    cJSON_AddNumberToObject(o, "gain_per_second", gain(t) / t->seconds);
    cJSON_AddNumberToObject(o, "noise", t->noise);
    cJSON_AddNumberToObject(o, "kernels", f->kernels);
    cJSON_AddNumberToObject(o, "rank_correlation", f->rank);
    cJSON_AddNumberToObject(o, "rank_correlation_fitted", f->rank_fitted);
    cJSON_AddNumberToObject(o, "fitted_gflops", f->rates.flops * 1e-3);
    cJSON_AddNumberToObject(o, "fitted_gbps", f->rates.bytes * 1e-3);
    cJSON_AddNumberToObject(o, "fitted_start_us", f->rates.start_us);
    add_trials(o, t);
    char *text = cJSON_PrintUnformatted(o);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(o);
}
