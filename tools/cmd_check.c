/* cmd_check.c - forge check: can this model be compiled? Every node that cannot, one
 * per line. Of a .forge file: can it run here, and is every byte as it was written? */
#include <stdio.h>

#include "codegen/compile.h"
#include "tools/tool.h"

typedef struct check {
    tool_common c;
    fg_ctx *cx;
    fg_arena *a;
    fg_onnx_file *file;
    int unsupported;
    bool imported;
} check;

static void
import(void *arg)
{
    check *x = arg;
    fg_import_options o = {.check_only = true};
    int n = 0;

    x->a = fg_arena_new(x->cx);
    if (!fg_parse_dims(x->a, x->c.o.dims, &o) ||
        !(x->file = fg_onnx_open(x->cx, x->c.model)))
        return;
    x->imported = fg_onnx_import(x->file, x->a, &o) != NULL;
    const fg_unsupported *u = fg_onnx_unsupported(x->file, &n);
    for (int k = 0; k < n; k++)
        printf("%s \"%s\": %s\n", u[k].op, u[k].node, u[k].reason);
    x->unsupported = n;
}

/* What the importer takes may still fail later: then the model cannot be run either. */
static int
compile(check *x)
{
    forge_ctx *cx;
    forge_model *m = NULL;

    if (forge_open(NULL, &cx))
        return tool_fail(TOOL_FAILED, "out of memory");
    int code = tool_compile(cx, &x->c, &m);
    forge_model_free(m);
    forge_close(cx);
    return code;
}

static int
check_artifact(const char *path)
{
    forge_load_options o;
    forge_ctx *cx;
    forge_model *m = NULL;
    char needs[1024];
    int code = TOOL_OK;

    forge_load_options_init(&o);
    o.verify = 1;
    if (!(cx = tool_open()))
        return TOOL_FAILED;
    if (forge_file_requirement(cx, path, needs, sizeof needs) ||
        forge_load_file(cx, path, &o, &m))
        code = tool_fail_file(TOOL_FAILED, path, "%s", forge_message(cx));
    else
        printf("%s: %s\n", forge_fit_text(forge_requirement_fit(needs)), needs);
    forge_model_free(m);
    forge_close(cx);
    return code;
}

int
cmd_check(int argc, char **argv)
{
    check x = {0};
    const tool_option own[] = {{NULL, TOOL_FLAG, NULL, NULL, NULL}};
    int code;

    tool_common_init(&x.c);
    code = tool_parse(
        &x.c, own,
        "forge check MODEL.onnx|FILE.forge: list every node that is not supported, "
        "or verify the file",
        argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (!x.c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    if (tool_is_artifact(x.c.model))
        return check_artifact(x.c.model);
    if (!(x.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise raise = fg_protect(x.cx, import, &x);
    if (x.unsupported)
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s", fg_first_error(x.cx));
    else if (raise == FG_RAISE_NONE && x.imported)
        code = compile(&x);
    else
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s",
                              raise == FG_RAISE_MEMORY ? "out of memory"
                                                       : fg_first_error(x.cx));
    fg_arena_free(x.a);
    fg_onnx_close(x.file);
    fg_ctx_free(x.cx);
    return code;
}
