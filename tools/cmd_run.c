/* cmd_run.c - forge run: compile, run once, and show, store or compare the outputs. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "frontend/onnx.h"
#include "runtime/rt.h"
#include "tools/compare.h"
#include "tools/progress.h"
#include "tools/replay.h"
#include "tools/tool.h"

typedef struct run {
    tool_common c;
    tool_inputs in;
    tool_list out; /* --output NAME=@file.npy */
    tool_tolerance tol;
    int json;
    const char *record, *replay;
    replay *again;
    forge_ctx *fcx;
    fg_ctx *cx;
    fg_arena *a;
    forge_model *m;
    forge_run *r;
    cJSON *list; /* of outputs, with --json */
    int code;
} run;

static const char *
shape_text(run *x, const fg_tensor *t)
{
    fg_text s = fg_text_new(x->a);

    fg_putf(&s, "%s[", fg_dtypes[t->dtype].name);
    for (int k = 0; k < t->rank; k++)
        fg_putf(&s, "%s%lld", k ? "," : "", (long long)t->dim[k]);
    fg_putc(&s, ']');
    return s.s;
}

/* Smallest, largest and mean element, NaN left out. */
static void
summarize(const fg_tensor *t, double *lo, double *hi, double *mean)
{
    int64_t n = 0;

    *lo = INFINITY;
    *hi = -INFINITY;
    *mean = 0;
    for (int64_t i = 0; i < t->count; i++) {
        double v = fg_tensor_f64(t, i);
        if (isnan(v))
            continue;
        *lo = v < *lo ? v : *lo;
        *hi = v > *hi ? v : *hi;
        *mean += v;
        n++;
    }
    *mean = n ? *mean / (double)n : NAN;
}

/* One number for all bits of an output: equal numbers, equal outputs. */
static void
show(run *x, const char *name, const fg_tensor *t)
{
    double lo, hi, mean;
    uint64_t digest = fg_hash(t->data, (size_t)tool_bytes(t), 1);
    char hex[20];

    summarize(t, &lo, &hi, &mean);
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)digest);
    if (!x->json) {
        printf("%s %s min %.6g max %.6g mean %.6g digest %s\n", name, shape_text(x, t),
               lo, hi, mean, hex);
        return;
    }
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToArray(x->list, o);
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddStringToObject(o, "type", shape_text(x, t));
    cJSON_AddNumberToObject(o, "min", lo);
    cJSON_AddNumberToObject(o, "max", hi);
    cJSON_AddNumberToObject(o, "mean", mean);
    cJSON_AddStringToObject(o, "digest", hex);
}

/* ---- test data ------------------------------------------------------------------------ */

static void
different(run *x, const char *fmt, const char *name, const char *got, const char *want)
{
    if (x->code == TOOL_OK) {
        char text[600];
        snprintf(text, sizeof text, fmt, name, got, want);
        x->code = tool_fail_file(TOOL_DIFFERENT, x->c.model, "%s", text);
    }
}

static bool
same_shape(const fg_tensor *a, const fg_tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int k = 0; k < a->rank; k++)
        if (a->dim[k] != b->dim[k])
            return false;
    return true;
}

static void
compare(run *x, const char *name, const fg_tensor *got, const char *path)
{
    fg_tensor want;

    if (!fg_onnx_tensor_file(x->cx, x->a, path, &want)) {
        x->code = tool_fail_file(TOOL_FAILED, x->c.model, "%s", fg_first_error(x->cx));
        return;
    }
    if (!same_shape(got, &want)) {
        different(x, "output \"%s\" is %s, expected %s", name, shape_text(x, got),
                  shape_text(x, &want));
        return;
    }
    tool_difference d = tool_compare(got, &want, x->tol);
    if (x->json) {
        cJSON *o = cJSON_GetArrayItem(x->list, cJSON_GetArraySize(x->list) - 1);
        cJSON_AddNumberToObject(o, "wrong", (double)d.wrong);
        cJSON_AddNumberToObject(o, "worst", isfinite(d.worst) ? d.worst : 1e308);
    } else
        printf("%s %s worst error %.3g (got %.9g, expected %.9g), %lld of %lld outside "
               "%.3g + %.3g |expected|\n",
               name, shape_text(x, got), d.worst, d.got, d.want, (long long)d.wrong,
               (long long)got->count, d.atol, d.rtol);
    if (d.wrong && x->code == TOOL_OK)
        x->code = tool_fail_file(TOOL_DIFFERENT, x->c.model,
                                 "output \"%s\": %lld of %lld elements differ, the "
                                 "largest difference is %.3g: "
                                 "%.9g instead of %.9g at element %lld",
                                 name, (long long)d.wrong, (long long)got->count, d.worst,
                                 d.got, d.want, (long long)d.at);
}

static bool
expected_count(run *x)
{
    int n = forge_model_outputs(x->m), have = 0;
    struct stat st;

    while (!stat(fg_format(x->a, "%s/output_%d.pb", x->in.test_data, have), &st))
        have++;
    if (!have)
        x->code = tool_fail_file(TOOL_FAILED, x->c.model, "%.200s: no output_0.pb",
                                 x->in.test_data);
    else if (have != n)
        x->code = tool_fail_file(TOOL_DIFFERENT, x->c.model,
                                 "%d outputs, the test data has %d", n, have);
    return have == n;
}

/* ---- the run -------------------------------------------------------------------------- */

static const char *
output_file(run *x, const char *name)
{
    size_t n = strlen(name);

    for (int k = 0; k < x->out.n; k++)
        if (!strncmp(x->out.v[k], name, n) && x->out.v[k][n] == '=')
            return x->out.v[k] + n + 1 + (x->out.v[k][n + 1] == '@');
    return NULL;
}

static bool
check_output_names(run *x)
{
    for (int k = 0; k < x->out.n; k++) {
        size_t len = strcspn(x->out.v[k], "=");
        bool known = false;
        for (int i = 0; i < forge_model_outputs(x->m) && !known; i++) {
            const char *name = forge_model_output(x->m, i, NULL, NULL);
            known = strlen(name) == len && !strncmp(name, x->out.v[k], len) &&
                    x->out.v[k][len];
        }
        if (!known) {
            x->code = tool_fail(TOOL_USAGE,
                                "--output=%.200s: expected NAME=@FILE.npy of an output",
                                x->out.v[k]);
            return false;
        }
    }
    return true;
}

static void
outputs(void *arg)
{
    run *x = arg;

    if (x->in.test_data && !expected_count(x))
        return;
    for (int i = 0; i < forge_model_outputs(x->m); i++) {
        const char *name =
            fg_printable(x->a, forge_model_output(x->m, i, NULL, NULL),
                         strlen(forge_model_output(x->m, i, NULL, NULL)), 200);
        const char *path = output_file(x, forge_model_output(x->m, i, NULL, NULL));
        fg_tensor t;
        tool_output(x->r, x->m, i, &t);
        if (!x->in.test_data || x->json)
            show(x, name, &t);
        if (x->in.test_data)
            compare(x, name, &t, fg_format(x->a, "%s/output_%d.pb", x->in.test_data, i));
        if (path && tool_npy_write(path, &t) && x->code == TOOL_OK)
            x->code = TOOL_FAILED;
    }
}

static void
print_json(const run *x)
{
    cJSON *top = cJSON_CreateObject();

    cJSON_AddStringToObject(top, "model", x->c.model);
    cJSON_AddItemToObject(top, "outputs", x->list);
    char *text = cJSON_PrintUnformatted(top);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(top);
}

static void
read_replay(void *arg)
{
    run *x = arg;

    x->again = replay_open(x->cx, x->a, x->replay, x->fcx, x->r);
}

static bool
reopen(run *x, forge_ctx *cx)
{
    x->fcx = cx;
    bool memory = fg_protect(x->cx, read_replay, x) != FG_RAISE_NONE;
    if (!x->again)
        x->code = tool_fail_file(TOOL_FAILED, x->replay, "%s",
                                 memory ? "out of memory" : fg_first_error(x->cx));
    return x->again;
}

static void
run_model(run *x, forge_ctx *cx)
{
    if ((x->code = tool_compile(cx, &x->c, &x->m)))
        return;
    if (!check_output_names(x))
        return;
    if (forge_run_new(cx, x->m, &x->r) ||
        (x->c.threads >= 0 && forge_run_threads(x->r, x->c.threads)) ||
        (x->c.mem_budget && forge_run_memory(x->r, x->c.mem_budget))) {
        x->code = tool_fail_file(TOOL_FAILED, x->c.model, "%s", forge_message(cx));
        return;
    }
    if (x->replay
            ? !reopen(x, cx)
            : (x->code = tool_bind(x->cx, x->a, x->c.model, &x->in, cx, x->m, x->r)) != 0)
        return;
    if (x->record && forge_run_record(x->r, x->record)) {
        x->code = tool_fail(TOOL_USAGE, "--record: %s", forge_message(cx));
        return;
    }
    tool_progress_begin("running", x->c.model);
    forge_status s = forge_execute(x->r);
    tool_progress_end();
    if (s) {
        x->code = tool_fail_file(TOOL_FAILED, x->c.model, "%s", forge_message(cx));
        return;
    }
    if (x->again) {
        x->code = replay_compare(x->again, x->m);
        return;
    }
    x->list = cJSON_CreateArray();
    if (fg_protect(x->cx, outputs, x))
        x->code = tool_fail_file(TOOL_FAILED, x->c.model, "out of memory");
    if (x->json)
        print_json(x);
    else
        cJSON_Delete(x->list);
}

/* What the model of a record was compiled with, to come before the other options, which may say
 * otherwise; NULL: nothing. A .forge file is compiled already. */
static char *
recorded_knobs(int argc, char **argv)
{
    static const char option[] = "--replay=";
    const char *path = NULL;
    bool given = false;

    for (int k = 1; k < argc; k++) {
        if (!strncmp(argv[k], option, sizeof option - 1))
            path = argv[k] + sizeof option - 1;
        else if (!strcmp(argv[k], "--replay") && k + 1 < argc)
            path = argv[k + 1];
        given |= !strncmp(argv[k], "--knobs", 7) || tool_is_artifact(argv[k]);
    }
    return path && !given ? replay_knobs(path) : NULL;
}

int
cmd_run(int argc, char **argv)
{
    run x = {.tol = {-1, -1}, .in.random = -1};
    forge_ctx *cx;
    const tool_option own[] = {
        {"--input", TOOL_LIST, &x.in.given, "NAME=VALUE",
         "@file.npy, @file.pb or 1x4xf32=1,2,3,4; again for more"},
        {"--output", TOOL_LIST, &x.out, "NAME=@FILE", "write an output as .npy"},
        {"--test-data", TOOL_TEXT, &x.in.test_data, "DIR",
         "run on input_i.pb, compare with output_i.pb"},
        {"--atol", TOOL_DOUBLE, &x.tol.atol, "A",
         "an error counts when over A + R |expected|"},
        {"--rtol", TOOL_DOUBLE, &x.tol.rtol, "R", "default by type: f32 1e-4 and 1e-3"},
        {"--random", TOOL_INT, &x.in.random, "SEED", "random data for inputs not given"},
        {"--json", TOOL_FLAG, &x.json, "", "outputs as JSON"},
        {"--record", TOOL_TEXT, &x.record, "FILE",
         "inputs, what each kernel made of them, and outputs to a file"},
        {"--replay", TOOL_TEXT, &x.replay, "FILE",
         "the run in such a file again, compiled as it was but for options given; tells "
         "the "
         "first kernel that differs"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    char *knobs = recorded_knobs(argc, argv), *all[64] = {argv[0], knobs};
    if (knobs && argc < 62) {
        memcpy(all + 2, argv + 1, (size_t)argc * sizeof *all);
        argv = all;
        argc++;
    }
    int code = tool_parse(
        &x.c, own, "forge run MODEL.onnx: compile, run once, show or compare the outputs",
        argc, argv);
    free(knobs); /* its words were copied */
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (!(cx = tool_open()))
        return TOOL_FAILED;
    if (!(x.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    x.a = fg_arena_new(x.cx);
    run_model(&x, cx);
    forge_run_free(x.r);
    forge_model_free(x.m);
    forge_close(cx);
    fg_arena_free(x.a);
    fg_ctx_free(x.cx);
    free(x.in.given.v);
    free(x.out.v);
    return x.code;
}
