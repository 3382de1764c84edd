/* cmd_diff.c - forge diff: compiled code against the evaluator, register by register. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "codegen/differ.h"
#include "runtime/rt.h"
#include "tools/tool.h"

typedef struct diff {
    tool_common c;
    tool_inputs in;
    int json, bisect, all;
    const char *out;
    fg_compiled made;
    fg_differ d;
    bool done;
} diff;

/* ---- what was found ---------------------------------------------------------------- */

static double
for_json(double v)
{
    return isfinite(v) ? v : 1e308;
}

static cJSON *
row_json(const fg_differ_row *r)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "name", r->name);
    cJSON_AddStringToObject(o, "type", r->type);
    cJSON_AddStringToObject(o, "nodes", r->nodes);
    cJSON_AddNumberToObject(o, "differ", (double)r->d.differ);
    cJSON_AddNumberToObject(o, "ulp", for_json(r->d.ulp));
    cJSON_AddNumberToObject(o, "relative", for_json(r->d.relative));
    cJSON_AddBoolToObject(o, "wrong", r->wrong);
    return o;
}

static void
print_json(const diff *x)
{
    const fg_differ *d = &x->d;
    cJSON *top = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(top, "registers");

    cJSON_AddStringToObject(top, "model", x->c.model);
    for (int k = 0; k < d->nrow; k++)
        cJSON_AddItemToArray(list, row_json(&d->row[k]));
    if (d->first_wrong >= 0)
        cJSON_AddStringToObject(top, "first_wrong", d->row[d->first_wrong].name);
    if (d->passes.name)
        cJSON_AddItemToObject(top, "passes", row_json(&d->passes));
    if (d->first_change >= 0) {
        cJSON_AddNumberToObject(top, "change", d->first_change + 1);
        cJSON_AddStringToObject(top, "pass", d->change[d->first_change].pass);
    }
    if (d->instruction)
        cJSON_AddStringToObject(top, "instruction", d->instruction);
    if (d->test)
        cJSON_AddStringToObject(top, "test", d->test);
    char *text = cJSON_PrintUnformatted(top);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(top);
}

/* One node says where; --json has all of them. */
static void
print_row(const fg_differ_row *r)
{
    int n = (int)strcspn(r->nodes, ",");

    printf("%%%-10s %-28s %8lld differ %9.3g ulp %8.2g relative%s  %.*s%s\n", r->name,
           r->type, (long long)r->d.differ, r->d.ulp, r->d.relative,
           r->wrong ? " WRONG" : "", n, r->nodes, r->nodes[n] ? ", .." : "");
}

/* The registers that are most off by ULP; all of them in order with --all. */
static void
print_rows(const diff *x)
{
    enum { SHOWN = 8 };
    const fg_differ *d = &x->d;
    bool *shown = FG_NEWN(d->a, bool, (size_t)d->nrow + 1);

    for (int n = 0; n < (x->all ? d->nrow : SHOWN); n++) {
        int worst = x->all ? n : -1;
        for (int k = 0; !x->all && k < d->nrow; k++)
            if (!shown[k] && d->row[k].d.differ &&
                (worst < 0 || d->row[k].d.ulp > d->row[worst].d.ulp))
                worst = k;
        if (worst < 0)
            break;
        shown[worst] = true;
        print_row(&d->row[worst]);
    }
    printf("%d registers compared, %s\n", d->nrow,
           d->first_wrong < 0 && !d->passes.name ? "none is wrong" : "not all are right");
}

/* One line that says what went wrong first. */
static int
complain(const diff *x)
{
    const fg_differ *d = &x->d;
    const fg_differ_row *r = d->first_wrong < 0 ? NULL : &d->row[d->first_wrong];

    if (d->first_change >= 0)
        return tool_fail_file(TOOL_DIFFERENT, x->c.model,
                              "change %d, pass %s, goes wrong: %s", d->first_change + 1,
                              d->change[d->first_change].pass, d->instruction);
    if (d->passes.name)
        return tool_fail_file(
            TOOL_DIFFERENT, x->c.model,
            "the passes change output \"%s\" (%.300s): %.9g instead of %.9g "
            "at element %lld",
            d->passes.name, d->passes.nodes, d->passes.d.got, d->passes.d.want,
            (long long)d->passes.d.at);
    if (!r)
        return TOOL_OK;
    return tool_fail_file(
        TOOL_DIFFERENT, x->c.model,
        "the code of %%%s (%.300s) is the first that goes wrong: %.9g instead "
        "of %.9g at element %lld, %.3g ulp",
        r->name, r->nodes, r->d.got, r->d.want, (long long)r->d.at, r->d.ulp);
}

/* ---- the run ----------------------------------------------------------------------- */

static void
compare(void *arg)
{
    diff *x = arg;
    fg_compiled *c = &x->made;
    forge_model model = {0};
    forge_ctx *host = tool_open();
    forge_run *r = NULL;

    if (!host || !fg_compile_load(c, x->c.model, &x->c.o))
        return;
    x->d.cx = c->cx;
    x->d.a = c->a;
    fg_differ_watch(&x->d, c);
    bool ok = fg_compile_module(c, &x->c.o);
    fg_model_init(&model, host);
    model.program = c->program;
    if (ok && (forge_run_new(host, &model, &r) ||
               (x->c.threads >= 0 && forge_run_threads(r, x->c.threads))))
        ok = fg_error(c->cx, "%s", forge_message(host));
    ok = ok && tool_bind_inputs(c->cx, c->a, &x->in, host, &model, r) &&
         fg_differ_run(&x->d, c, r);
    if (ok && x->bisect && (x->d.passes.name || x->d.first_wrong >= 0))
        ok = fg_differ_bisect(&x->d, c, &x->c.o);
    forge_run_free(r);
    fg_model_done(&model);
    forge_close(host);
    x->done = ok;
}

static int
show(const diff *x)
{
    if (x->json)
        print_json(x);
    else
        print_rows(x);
    if (x->d.test && !x->json && !x->out)
        printf("%s", x->d.test);
    if (x->d.test && x->out && tool_write(x->out, x->d.test, strlen(x->d.test), NULL, 0))
        return TOOL_FAILED;
    return complain(x);
}

static int
check_usage(const diff *x)
{
    if (!x->c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    if (tool_is_artifact(x->c.model))
        return tool_fail(TOOL_USAGE, "%.400s: forge diff compiles; give it the model",
                         x->c.model);
    return x->out && !x->bisect ? tool_fail(TOOL_USAGE, "-o needs --bisect") : TOOL_OK;
}

int
cmd_diff(int argc, char **argv)
{
    diff x = {.d = {.atol = -1, .rtol = -1, .first_wrong = -1, .first_change = -1},
              .in.random = -1};
    const tool_option own[] = {
        {"--input", TOOL_LIST, &x.in.given, "NAME=VALUE",
         "@file.npy, @file.pb or 1x4xf32=1,2,3,4; again for more"},
        {"--test-data", TOOL_TEXT, &x.in.test_data, "DIR", "run on input_i.pb"},
        {"--random", TOOL_INT, &x.in.random, "SEED", "random data for inputs not given"},
        {"--bisect", TOOL_FLAG, &x.bisect, "",
         "name the pass and the instruction that go wrong first, and a reduced test"},
        {"-o", TOOL_TEXT, &x.out, "FILE.fir", "write the reduced test there"},
        {"--atol", TOOL_DOUBLE, &x.d.atol, "A",
         "wrong is over A max(1, |largest|) + R |expected|"},
        {"--rtol", TOOL_DOUBLE, &x.d.rtol, "R", "default by type: f32 1e-4 and 1e-3"},
        {"--all", TOOL_FLAG, &x.all, "", "every register, in order"},
        {"--json", TOOL_FLAG, &x.json, "", "all registers, and what was found, as JSON"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    int code = tool_parse(&x.c, own,
                          "forge diff MODEL [--bisect]: compiled code against the "
                          "evaluator, register by register",
                          argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check_usage(&x)))
        return code;
    if (!(x.made.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise raise = fg_protect(x.made.cx, compare, &x);
    const char *why = fg_first_error(x.made.cx);
    if (x.done)
        code = show(&x);
    else
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s",
                              raise == FG_RAISE_MEMORY && !*why ? "out of memory" : why);
    fg_compiled_free(&x.made);
    free(x.in.given.v);
    return code;
}
