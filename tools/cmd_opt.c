/* cmd_opt.c - forge opt: text in, passes, text out. Without passes, what it prints is the
 * text itself, as the printer writes it. */
#include <stdio.h>

#include "codegen/compile.h"
#include "tools/tool.h"

typedef struct opt {
    tool_common c;
    fg_ctx *cx;
    fg_arena *a;
    fg_onnx_file *file;
    int rounds;
    bool done;
} opt;

static void
optimise(void *arg)
{
    opt *x = arg;
    x->a = fg_arena_new(x->cx);
    fg_report report = {.a = x->a};
    fg_pipeline p = {.passes = x->c.o.passes,
                     .skip = x->c.o.skip,
                     .opt = x->c.o.opt,
                     .check = x->c.o.check,
                     .alpha = x->c.o.alpha,
                     .rounds = x->rounds};
    fg_module *m = tool_load(x->cx, x->a, &x->c, &x->file);
    fg_text t = fg_text_new(x->a);

    if (!m || (p.passes && !fg_run_passes(m, &p, &report)))
        return;
    fg_print(&t, m);
    x->done = fwrite(t.s, 1, t.n, stdout) == t.n && !fflush(stdout);
    if (!x->done)
        fg_error(x->cx, "cannot write the result");
}

int
cmd_opt(int argc, char **argv)
{
    opt x = {.rounds = 0};
    const tool_option own[] = {
        {"--rounds", TOOL_INT, &x.rounds, "N",
         "how often the passes run while something changes; default 2"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    int code = tool_parse(
        &x.c, own,
        "forge opt FILE.fir [--passes=P,..]: run passes on text, print the result", argc,
        argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (!x.c.model)
        return tool_fail(TOOL_USAGE, "a file is missing");
    if (!tool_known_passes(x.c.o.passes) || !tool_known_passes(x.c.o.skip))
        return TOOL_USAGE;
    if (!(x.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise raise = fg_protect(x.cx, optimise, &x);
    if (!x.done)
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s",
                              raise == FG_RAISE_MEMORY ? "out of memory"
                                                       : fg_first_error(x.cx));
    fg_arena_free(x.a);
    fg_onnx_close(x.file);
    fg_ctx_free(x.cx);
    return code;
}
