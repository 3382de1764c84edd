/* cmd_compile.c - forge compile: a model to a .forge file. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tools/tool.h"

typedef struct compile {
    tool_common c;
    const char *out, *weights;
    forge_save_options save;
} compile;

/* "dir/bert.onnx" becomes "bert.forge" in the folder we are in. */
static const char *
default_output(const char *model)
{
    static char name[4096];
    const char *base = strrchr(model, '/');

    base = base ? base + 1 : model;
    size_t n = strlen(base);
    if (n > 5 && !strcmp(base + n - 5, ".onnx"))
        n -= 5;
    snprintf(name, sizeof name, "%.*s.forge", (int)n, base);
    return name;
}

static int
check_usage(compile *x)
{
    struct stat model, out;

    if (!x->c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    if (x->weights && strcmp(x->weights, "embed") && strcmp(x->weights, "model"))
        return tool_fail(TOOL_USAGE, "--weights=%.100s: expected embed or model",
                         x->weights);
    if (!x->out)
        x->out = default_output(x->c.model);
    if (!stat(x->c.model, &model) && !stat(x->out, &out) && model.st_ino == out.st_ino &&
        model.st_dev == out.st_dev)
        return tool_fail(TOOL_USAGE, "%.400s: the output would replace the model",
                         x->out);
    return TOOL_OK;
}

int
cmd_compile(int argc, char **argv)
{
    compile x = {.out = NULL};
    forge_ctx *cx;
    const tool_option own[] = {
        {"-o", TOOL_TEXT, &x.out, "FILE",
         "the result; default: the model's name, .forge"},
        {"--cpu", TOOL_TEXT, &x.save.cpus, "NAME,..",
         "one variant each, the best is chosen when loaded; default x86-64-v3,x86-64-v4"},
        {"--weights", TOOL_TEXT, &x.weights, "WHERE",
         "embed (default), or model: they stay in the model's files"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    forge_save_options_init(&x.save);
    int code = tool_parse(
        &x.c, own, "forge compile MODEL.onnx [-o FILE.forge]: compile ahead of time",
        argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check_usage(&x)))
        return code;
    if (forge_open(NULL, &cx))
        return tool_fail(TOOL_FAILED, "out of memory");
    x.save.borrow = x.weights && !strcmp(x.weights, "model");
    if (forge_compile_to_file(cx, x.c.model, &x.c.o, &x.save, x.out))
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s", forge_message(cx));
    else if (x.c.report)
        code = tool_write_report(cx, &x.c, x.out);
    forge_close(cx);
    return code;
}
