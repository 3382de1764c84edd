/* cmd_opt.c - forge opt: text in, passes, text out. Without passes, what it prints is the
 * text itself, as the printer writes it. */
#include <stdio.h>

#include "codegen/compile.h"
#include "tools/tool.h"

typedef struct opt {
    tool_common c;
    fg_compiled made;
    bool done;
} opt;

static void
optimise(void *arg)
{
    opt *x = arg;
    fg_compiled *c = &x->made;
    fg_pipeline p = {.passes = x->c.o.passes,
                     .skip = x->c.o.skip,
                     .opt = x->c.o.opt,
                     .check = x->c.o.check,
                     .alpha = x->c.o.alpha,
                     .rounds = x->c.o.rounds};

    fg_parse_precision(&x->c.o, &p);
    if (!fg_compile_load(c, x->c.model, &x->c.o) ||
        (p.passes && !fg_run_passes(c->m, &p, &c->report)))
        return;
    fg_text t = fg_text_new(c->a);
    fg_print(&t, c->m);
    x->done = fwrite(t.s, 1, t.n, stdout) == t.n && !fflush(stdout);
    if (!x->done)
        fg_error(c->cx, "cannot write the result");
}

int
cmd_opt(int argc, char **argv)
{
    opt x = {.done = false};
    const tool_option own[] = {{NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    int code = tool_parse(
        &x.c, own,
        "forge opt FILE.fir [--passes=P,..]: run passes on text, print the result", argc,
        argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (!x.c.model)
        return tool_fail(TOOL_USAGE, "a file is missing");
    if (!(x.made.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise raise = fg_protect(x.made.cx, optimise, &x);
    if (!x.done)
        code = tool_fail_file(TOOL_FAILED, x.c.model, "%s",
                              raise == FG_RAISE_MEMORY ? "out of memory"
                                                       : fg_first_error(x.made.cx));
    fg_compiled_free(&x.made);
    return code;
}
