/* cmd_dump.c - forge dump: what the compiler makes of a model, stage by stage.
 *
 *     forge dump model.onnx --stage=opt          the module after the TENSOR passes
 *     forge dump model.onnx --print-ir-after-change --ledger
 *
 * Does what codegen/compile.c does, but stops where nothing more was asked for, and keeps
 * texts on the way. Modules printed one after another are separated by ---- lines.
 */
#include <stdio.h>

#include "tools/dump.h"
#include "tools/tool.h"

typedef enum { IMPORT, OPT, FUSED, PLACED, LL, ASM, NONE } stage;
static const char *const stages[] = {"import", "opt", "fused", "placed", "ll", "asm"};

typedef struct dump {
    tool_common c;
    fg_ctx *cx;
    fg_arena *a;
    fg_onnx_file *file;
    fg_cpu_code *code;
    fg_report report;
    fg_text out;
    stage show;
    bool texts;   /* something was printed already */
    bool further; /* something asked for needs more than the stage to show */
    bool opt_pending, done;
    const char *stage, *before, *after, *explain;
    int after_all, after_change, ledger, plan, dot, ops, passes;
} dump;

/* ---- modules as text ---------------------------------------------------------------- */

static void
put_module(dump *x, fg_module *m, const char *title)
{
    /* One module alone is just its text, the same that forge opt prints. */
    if (x->before || x->after || x->after_all || x->after_change)
        fg_putf(&x->out, "%s; %s\n", x->texts ? "----\n" : "", title);
    fg_print(&x->out, m);
    x->texts = true;
}

static void
observe(void *user, const fg_passinfo *p, int round, bool before, bool changed,
        fg_module *m)
{
    dump *x = user;
    bool wanted = before ? x->before && !strcmp(x->before, p->name)
                         : x->after_all || (x->after_change && changed) ||
                               (x->after && !strcmp(x->after, p->name));

    if (before && x->opt_pending && p->to != FG_STAGE_TENSOR) {
        x->opt_pending = false;
        put_module(x, m, "stage opt");
    }
    if (wanted)
        put_module(x, m,
                   fg_format(x->a, "%s %s, round %d%s", before ? "before" : "after",
                             p->name, round,
                             before || changed ? "" : ", nothing changed"));
}

static bool
run(dump *x, fg_module *m, const char *passes)
{
    fg_pipeline p = {.passes = passes,
                     .skip = x->c.o.skip,
                     .opt = x->c.o.opt,
                     .check = x->c.o.check,
                     .alpha = x->c.o.alpha,
                     .observe = observe,
                     .user = x,
                     .tensor_only = x->show == OPT && !x->further};

    return fg_run_passes(m, &p, &x->report);
}

/* ---- the way ------------------------------------------------------------------------ */

static bool
machine_code(dump *x, fg_module *m)
{
    fg_cpu_options o = {.cpu = x->c.o.cpu, .keep_text = 1};
    fg_kcode *kc;
    int nkc;

    x->code = fg_cpu_compile(m, x->a, &o, &kc, &nkc);
    const char *text = x->code ? fg_cpu_text(x->code, x->show == ASM) : NULL;
    if (text)
        fg_puts(&x->out, text);
    return text;
}

/* Up to the last stage that something asked for needs. */
static bool
compile(dump *x, fg_module *m)
{
    if (x->show == IMPORT)
        put_module(x, m, "stage import");
    if (x->show == IMPORT && !x->further)
        return true;
    x->opt_pending = x->show == OPT;
    if (m->stage == FG_STAGE_TENSOR && !run(x, m, x->c.o.passes))
        return false;
    if (x->opt_pending)
        put_module(x, m, "stage opt");
    if (x->show == OPT && !x->further)
        return true;
    if (m->stage == FG_STAGE_TENSOR && !run(x, m, "fuse_ops"))
        return false;
    if (x->show == FUSED)
        put_module(x, m, "stage fused");
    if (x->dot)
        dump_dot(&x->out, m);
    if ((x->show == LL || x->show == ASM) && !machine_code(x, m))
        return false;
    if (x->show != PLACED && !x->plan)
        return true;
    if (m->stage == FG_STAGE_FUSED && !run(x, m, "place"))
        return false;
    if (x->show == PLACED)
        put_module(x, m, "stage placed");
    return true;
}

static void
show(void *arg)
{
    dump *x = arg;

    x->a = fg_arena_new(x->cx);
    x->report.a = x->a;
    x->out = fg_text_new(x->a);
    if (x->ops)
        dump_operations(&x->out);
    if (x->passes)
        dump_passes(&x->out);
    if (x->c.model) {
        fg_module *m = tool_load(x->cx, x->a, &x->c, &x->file);
        if (!m || !compile(x, m))
            return;
        if (x->ledger)
            dump_ledger(&x->out, &x->report);
        if (x->explain)
            dump_explain(&x->out, &x->report, x->explain);
        if (x->plan)
            dump_plan(&x->out, m, &x->report);
    }
    x->done = fwrite(x->out.s, 1, x->out.n, stdout) == x->out.n && !fflush(stdout);
    if (!x->done)
        fg_error(x->cx, "cannot write the result");
}

/* ---- the command line --------------------------------------------------------------- */

static int
check_usage(dump *x)
{
    bool printed = x->before || x->after || x->after_all || x->after_change;

    x->further = printed || x->ledger || x->explain || x->plan || x->dot;
    x->show = x->further ? NONE : FUSED;
    if (x->stage) {
        x->show = IMPORT;
        while (x->show < NONE && strcmp(stages[x->show], x->stage))
            x->show++;
        if (x->show == NONE)
            return tool_fail(TOOL_USAGE,
                             "--stage=%s: expected import, opt, fused, placed, ll or asm",
                             x->stage);
    }
    if (!x->c.model && !x->ops && !x->passes)
        return tool_fail(TOOL_USAGE, "a model is missing");
    const char *lists[] = {x->c.o.passes, x->c.o.skip, x->before, x->after, x->explain};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        if (!tool_known_passes(lists[k]))
            return TOOL_USAGE;
    return TOOL_OK;
}

int
cmd_dump(int argc, char **argv)
{
    dump x = {.done = false};
    const tool_option own[] = {
        {"--stage", TOOL_TEXT, &x.stage, "STAGE",
         "import, opt, fused (default), placed, ll or asm"},
        {"--print-ir-before", TOOL_TEXT, &x.before, "PASS", "the module before a pass"},
        {"--print-ir-after", TOOL_TEXT, &x.after, "PASS", "the module after a pass"},
        {"--print-ir-after-all", TOOL_FLAG, &x.after_all, "",
         "the module after every pass"},
        {"--print-ir-after-change", TOOL_FLAG, &x.after_change, "",
         "after every pass that changed it"},
        {"--ledger", TOOL_FLAG, &x.ledger, "", "time, size and memory of every pass"},
        {"--explain", TOOL_MAYBE, &x.explain, "PASS",
         "what was fused, what was not, and why"},
        {"--plan", TOOL_FLAG, &x.plan, "", "where every register lives, and the peak"},
        {"--dot", TOOL_FLAG, &x.dot, "", "the graph of the fused module for Graphviz"},
        {"--ops", TOOL_FLAG, &x.ops, "", "the operations, as Markdown; needs no model"},
        {"--list-passes", TOOL_FLAG, &x.passes, "", "the passes, likewise"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    int code = tool_parse(&x.c, own,
                          "forge dump MODEL.onnx|FILE.fir: show what the compiler did",
                          argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check_usage(&x)))
        return code;
    if (!(x.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise raise = fg_protect(x.cx, show, &x);
    if (!x.done)
        code = tool_fail_file(TOOL_FAILED, x.c.model ? x.c.model : "stdout", "%s",
                              raise == FG_RAISE_MEMORY ? "out of memory"
                                                       : fg_first_error(x.cx));
    fg_cpu_free(x.code);
    fg_arena_free(x.a);
    fg_onnx_close(x.file);
    fg_ctx_free(x.cx);
    return code;
}
