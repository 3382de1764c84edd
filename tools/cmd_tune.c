/* cmd_tune.c - forge tune: the knobs with which a model is fastest on this machine. */
#include <stdio.h>
#include <stdlib.h>

#include "tools/tune.h"

static void
work(void *arg)
{
    tune_run(arg);
}

static int
check(const tune *t)
{
    if (t->b.c.model && tool_is_artifact(t->b.c.model))
        return tool_fail(TOOL_USAGE, "%.400s is compiled: tuning needs the model",
                         t->b.c.model);
    if (strcmp(t->b.task, "run") && strcmp(t->b.task, "decode"))
        return tool_fail(TOOL_USAGE, "--task=%.100s: expected run or decode", t->b.task);
    if (t->b.past < 1 || t->trials < 1 || !(t->duration > 0))
        return tool_fail(TOOL_USAGE,
                         "--past and --trials begin at 1, --duration above 0");
    return TOOL_OK;
}

static void
release(tune_build *x)
{
    if (!x)
        return;
    bench_decode_end(&x->b);
    forge_run_free(x->b.r);
    forge_model_free(x->b.m);
}

static int
tell(const tune *t, const char *out)
{
    const char *text = fg_format(t->b.a, "%s\n", t->best->knobs);

    (t->b.json ? tune_print_json : tune_print_text)(t);
    return out ? tool_write(out, text, strlen(text), NULL, 0) : TOOL_OK;
}

int
cmd_tune(int argc, char **argv)
{
    tune t = {.b = {.task = "run", .past = 128, .warmup = 3, .duration = 2},
              .trials = 40,
              .duration = 60};
    bench *b = &t.b;
    const char *out = NULL;
    const tool_option own[] = {
        {"-o", TOOL_TEXT, &out, "FILE",
         "write the knobs, for --knobs=@FILE of run, bench and compile"},
        {"--duration", TOOL_DOUBLE, &t.duration, "S", "seconds, about; default 60"},
        {"--trials", TOOL_INT, &t.trials, "N", "builds to try at most; default 40"},
        {"--task", TOOL_TEXT, &b->task, "TASK",
         "run (default), or decode: a token at a time with a KV cache"},
        {"--past", TOOL_INT, &b->past, "N", "decode: tokens of the prefill; default 128"},
        {"--input", TOOL_LIST, &b->in.given, "NAME=VALUE", "as for forge run"},
        {"--test-data", TOOL_TEXT, &b->in.test_data, "DIR", "inputs from input_i.pb"},
        {"--random", TOOL_INT, &b->in.random, "SEED", "of inputs not given; default 0"},
        {"--json", TOOL_FLAG, &b->json, "", "one line of JSON"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&b->c);
    int code =
        tool_parse(&b->c, own,
                   "forge tune MODEL.onnx: find the knobs that make a model fastest here",
                   argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check(&t)))
        return code;
    b->c.o.cache = NULL;
    if (!(b->fcx = tool_open()))
        return TOOL_FAILED;
    if (!(b->cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    b->a = fg_arena_new(b->cx);
    if (fg_protect(b->cx, work, &t))
        bench_fail(b, "out of memory");
    if (b->code == TOOL_OK)
        b->code = tell(&t, out);
    if (t.best != t.start)
        release(t.best);
    release(t.start);
    forge_close(b->fcx);
    fg_arena_free(b->a);
    fg_ctx_free(b->cx);
    free(b->in.given.v);
    return b->code;
}
