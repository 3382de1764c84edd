/* cmd_compile.c - forge compile: a model to a .forge file, or to what --emit says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/emit.h"

typedef struct compile {
    tool_common c;
    const char *out, *weights, *emit, *symbol;
    forge_save_options save;
} compile;

/* "dir/bert.onnx" becomes "bert.forge" in the folder we are in, or "libbert.so". */
static const char *
default_output(const compile *x)
{
    static char name[4096];
    const char *base = strrchr(x->c.model, '/');

    base = base ? base + 1 : x->c.model;
    size_t n = strlen(base);
    if (n > 5 && !strcmp(base + n - 5, ".onnx"))
        n -= 5;
    snprintf(name, sizeof name, "%s%.*s%s", strcmp(x->emit, "lib") ? "" : "lib", (int)n,
             base, emit_suffix(x->emit));
    return name;
}

static int
check_emit(compile *x)
{
    int k = 0;

    while (emit_kinds[k] && strcmp(emit_kinds[k], x->emit))
        k++;
    if (!emit_kinds[k])
        return tool_fail(
            TOOL_USAGE, "--emit=%.100s: expected forge, obj, lib, c, ll or asm", x->emit);
    bool text = !strcmp(x->emit, "ll") || !strcmp(x->emit, "asm");
    if (!x->save.cpus) /* perhaps of --knobs */
        x->save.cpus = x->c.o.cpu ? x->c.o.cpu : text ? "native" : "x86-64-v3,x86-64-v4";
    if (text && strchr(x->save.cpus, ','))
        return tool_fail(TOOL_USAGE, "--emit=%s is for one CPU; --cpu=%.100s names more",
                         x->emit, x->save.cpus);
    if (strcmp(x->emit, "forge") && x->c.report)
        return tool_fail(TOOL_USAGE, "--report goes with --emit=forge");
    return TOOL_OK;
}

static int
check_weights(compile *x)
{
    const char *w = x->weights ? x->weights : "embed";
    size_t n = strlen(w);

    x->save.borrow = !strcmp(w, "model");
    if (x->save.borrow || !strcmp(w, "embed"))
        return TOOL_OK;
    if (!n || w[n - 1] != '/')
        return tool_fail(TOOL_USAGE,
                         "--weights=%.100s: expected embed, model, or a folder/", w);
    if (strcmp(x->emit, "forge"))
        return tool_fail(TOOL_USAGE, "--weights=%.100s goes with --emit=forge", w);
    x->save.weights = w;
    return TOOL_OK;
}

static int
check_usage(compile *x)
{
    struct stat model, out;

    if (!x->c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    int code = check_emit(x);
    if (code || (code = check_weights(x)))
        return code;
    if (!x->out)
        x->out = default_output(x);
    if (!stat(x->c.model, &model) && !stat(x->out, &out) && model.st_ino == out.st_ino &&
        model.st_dev == out.st_dev)
        return tool_fail(TOOL_USAGE, "%.400s: the output would replace the model",
                         x->out);
    if (!stat(x->out, &out) && !S_ISREG(out.st_mode) &&
        (!strcmp(x->emit, "obj") || !strcmp(x->emit, "lib")))
        return tool_fail(TOOL_USAGE, "%.400s: is not a regular file", x->out);
    return TOOL_OK;
}

int
cmd_compile(int argc, char **argv)
{
    compile x = {.emit = "forge"};
    char symbol[256];
    forge_ctx *cx;
    const tool_option own[] = {
        {"-o", TOOL_TEXT, &x.out, "FILE",
         "the result; default: the model's name, .forge"},
        {"--emit", TOOL_TEXT, &x.emit, "KIND",
         "forge (default); obj, lib: to link with libforge_rt; c: source and weights; "
         "ll, "
         "asm: kernels as text"},
        {"--symbol", TOOL_TEXT, &x.symbol, "NAME",
         "obj, lib, c: functions NAME_.., header NAME.h; default: FILE's name"},
        {"--cpu", TOOL_TEXT, &x.save.cpus, "NAME,..",
         "one variant each, the best is chosen when loaded; default x86-64-v3,x86-64-v4; "
         "or aarch64, neoverse-v1, aarch64+dotprod, .."},
        {"--weights", TOOL_TEXT, &x.weights, "WHERE",
         "embed (default); model: they stay in the model's files; FOLDER/: into files "
         "that "
         "artifacts share"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    forge_save_options_init(&x.save);
    x.save.cpus = NULL;
    int code = tool_parse(
        &x.c, own, "forge compile MODEL.onnx [-o FILE.forge]: compile ahead of time",
        argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check_usage(&x)))
        return code;
    x.save.report = x.c.report;
    emit_symbol(x.symbol ? x.symbol : x.out, symbol, sizeof symbol);
    if (x.symbol && strcmp(symbol, x.symbol))
        return tool_fail(TOOL_USAGE, "--symbol=%.100s: not a name in C", x.symbol);
    x.symbol = symbol;
    if (forge_open(NULL, &cx))
        return tool_fail(TOOL_FAILED, "out of memory");
    emit_job job = {&x.c, &x.save, x.emit, x.out, x.symbol};
    code = emit(cx, &job);
    forge_close(cx);
    return code;
}
