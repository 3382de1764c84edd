/* cmd_dump.c - forge dump: what the compiler makes of a model, stage by stage.
 *
 *     forge dump model.onnx --stage=opt          the module after the TENSOR passes
 *     forge dump model.onnx --print-ir-after-change --ledger
 *     forge dump model.onnx --node=/h.0/attn/MatMul      what became of a node
 *     forge dump model.onnx --html=page.html --trace=trace.json
 *
 * Takes the steps of codegen/compile.c, as far as what was asked for needs, and keeps texts on
 * the way. Modules printed one after another are separated by ---- lines.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tools/dump.h"
#include "tools/page.h"
#include "tools/progress.h"
#include "tools/trace.h"

typedef enum { IMPORT, OPT, FUSED, PLACED, LL, ASM, NONE } stage;
static const char *const stages[] = {"import", "opt", "fused", "placed", "ll", "asm"};

/* How far the compilation goes. */
typedef enum { TO_LOADED, TO_FUSED, TO_PLACED, TO_BUILT, TO_MEASURED } extent;

typedef struct dump {
    tool_common c;
    tool_inputs in;
    fg_compiled made;
    history past;
    page page;
    measure measured;
    fg_text out;
    stage show;
    extent to;
    cJSON *json, *texts; /* with --json: everything, and the modules in it */
    bool printed;        /* a module was printed already */
    bool before_fused, done;
    const char *stage, *before, *after, *explain, *node, *html, *trace;
    int after_all, after_change, ledger, plan, placement, dot, ops, passes, as_json;
} dump;

/* ---- modules as text ---------------------------------------------------------------- */

static void
put_text(dump *x, const char *title, const char *text)
{
    if (x->json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddItemToArray(x->texts, o);
        cJSON_AddStringToObject(o, "title", title);
        cJSON_AddStringToObject(o, "text", text);
        return;
    }
    /* One module alone is just its text, the same that forge opt prints. */
    if (x->before || x->after || x->after_all || x->after_change)
        fg_putf(&x->out, "%s; %s\n", x->printed ? "----\n" : "", title);
    fg_puts(&x->out, text);
    x->printed = true;
}

static void
put_module(dump *x, fg_module *m, const char *title)
{
    fg_text t = fg_text_new(x->made.a);

    fg_print(&t, m);
    put_text(x, title, t.s);
}

/* The last moment before there are kernels. */
static void
on_optimised(dump *x, fg_module *m)
{
    x->before_fused = false;
    if (x->show == OPT)
        put_module(x, m, "stage opt");
    if (x->html)
        x->page.optimised = page_graph(m, &x->past);
}

static void
observe(void *user, const fg_passinfo *p, int round, bool before, bool changed,
        fg_module *m)
{
    dump *x = user;
    bool wanted = before ? x->before && !strcmp(x->before, p->name)
                         : x->after_all || (x->after_change && changed) ||
                               (x->after && !strcmp(x->after, p->name));

    if (before && x->before_fused && p->to != FG_STAGE_TENSOR)
        on_optimised(x, m);
    if (!before && changed && (x->node || x->html))
        history_note(&x->past, m, p->name, round);
    if (wanted)
        put_module(x, m,
                   fg_format(x->made.a, "%s %s, round %d%s", before ? "before" : "after",
                             p->name, round,
                             before || changed ? "" : ", nothing changed"));
}

/* ---- the way ------------------------------------------------------------------------ */

static bool
load(dump *x)
{
    fg_compiled *c = &x->made;

    if (!fg_compile_load(c, x->c.model, &x->c.o))
        return false;
    x->before_fused = c->m->stage == FG_STAGE_TENSOR;
    c->report.explain = x->explain || x->html || x->node;
    if ((x->show == IMPORT || x->show == OPT) && !x->before_fused)
        return fg_error(c->cx, "%s: stage %s is behind this text already", x->c.model,
                        x->stage);
    x->past = history_new(c->a);
    if (x->node || x->html)
        history_note(&x->past, c->m, "import", 0);
    if (x->show == IMPORT)
        put_module(x, c->m, "stage import");
    if (x->html)
        x->page.imported = page_graph(c->m, &x->past);
    return true;
}

static bool
machine_code(dump *x)
{
    bool text = x->show == LL || x->show == ASM;

    if (!fg_compile_code(&x->made, &x->c.o, text))
        return false;
    if (text)
        put_text(x, x->stage, fg_cpu_text(x->made.code, x->show == ASM));
    return true;
}

/* As far as x->to says. */
static bool
compile(dump *x)
{
    fg_compiled *c = &x->made;

    /* What does not run may be for another kind of machine. */
    c->no_link = x->to < TO_MEASURED;
    if (!load(x))
        return false;
    if (x->to < TO_FUSED)
        return true;
    if (!fg_compile_passes(c, &x->c.o))
        return false;
    if (x->show == FUSED)
        put_module(x, c->m, "stage fused");
    if (x->dot)
        dump_dot(&x->out, c->m);
    if (x->to >= TO_BUILT && !machine_code(x))
        return false;
    if (x->to >= TO_PLACED && !fg_compile_place(c, &x->c.o))
        return false;
    if (x->show == PLACED)
        put_module(x, c->m, "stage placed");
    if (x->to < TO_BUILT)
        return true;
    if (!fg_compile_program(c))
        return false;
    fg_report_cost(c);
    if (x->to >= TO_MEASURED)
        x->measured = measure_run(c, &x->in, x->c.threads, x->c.mem_budget);
    return true;
}

/* ---- what was asked for --------------------------------------------------------------- */

static bool
views(dump *x)
{
    fg_compiled *c = &x->made;
    const history_node *n = NULL;

    if (x->node && !(n = history_named(&x->past, c->cx, x->node)))
        return false;
    if (x->json) {
        cJSON *report = fg_report_tree(c), *top = x->json;
        if (x->ledger) {
            cJSON_AddItemToObject(top, "phases",
                                  cJSON_DetachItemFromObject(report, "phases"));
            cJSON_AddItemToObject(top, "passes",
                                  cJSON_DetachItemFromObject(report, "passes"));
        }
        if (x->explain)
            cJSON_AddItemToObject(top, "explain",
                                  dump_json_explain(report, &c->report, x->explain));
        if (x->plan)
            cJSON_AddItemToObject(top, "plan", dump_json_plan(report, c->m, c->a));
        if (x->placement)
            cJSON_AddItemToObject(top, "placement", dump_json_placement(report, c->m));
        if (n)
            cJSON_AddItemToObject(top, "node", dump_json_node(c->m, c->a, n));
        cJSON_Delete(report);
        return true;
    }
    if (x->ledger)
        dump_ledger(&x->out, &c->report);
    if (x->explain)
        dump_explain(&x->out, &c->report, x->explain);
    if (x->plan)
        dump_plan(&x->out, c->m, &c->report);
    if (x->placement)
        dump_placement(&x->out, c->m);
    if (n)
        dump_node(&x->out, c, n);
    return true;
}

static bool
write_file(const char *path, const char *text)
{
    return tool_write(path, text, strlen(text), NULL, 0) == TOOL_OK;
}

/* False when a message was printed already, or a diagnostic recorded. */
static bool
files(dump *x)
{
    fg_compiled *c = &x->made;

    if (x->trace && x->measured.failure)
        return fg_error(c->cx, "the model does not run on these inputs: %s",
                        x->measured.failure);
    if (x->trace && !write_file(x->trace, trace_json(c, &x->measured)))
        return false;
    x->page.history = &x->past;
    x->page.measured = &x->measured;
    if (x->html && !write_file(x->html, page_html(c, &x->page)))
        return false;
    return !x->c.report || write_file(x->c.report, fg_report_json(c));
}

static bool
print(dump *x)
{
    if (x->json) {
        char *text = cJSON_Print(x->json);
        if (!text)
            return fg_error(x->made.cx, "out of memory");
        fg_putf(&x->out, "%s\n", text);
        free(text);
    }
    return (fwrite(x->out.s, 1, x->out.n, stdout) == x->out.n && !fflush(stdout)) ||
           fg_error(x->made.cx, "cannot write the result");
}

static void
show(void *arg)
{
    dump *x = arg;
    fg_arena *a = fg_arena_new(x->made.cx);

    x->out = fg_text_new(a);
    if (x->as_json) {
        x->json = cJSON_CreateObject();
        x->texts = cJSON_CreateArray();
    }
    if (x->ops)
        dump_operations(&x->out);
    if (x->passes)
        dump_passes(&x->out);
    tool_progress_begin("compiling", x->c.model ? x->c.model : "");
    bool ok = !x->c.model || compile(x);
    tool_progress_end();
    if (!ok || (x->c.model && (!views(x) || !files(x))))
        return;
    if (cJSON_GetArraySize(x->texts)) {
        cJSON_AddItemToObject(x->json, "modules", x->texts);
        x->texts = NULL;
    }
    x->done = print(x);
}

/* ---- the command line --------------------------------------------------------------- */

static int
check_stage(dump *x)
{
    bool asked = x->before || x->after || x->after_all || x->after_change || x->ledger ||
                 x->explain || x->plan || x->placement || x->dot || x->node || x->html ||
                 x->trace || x->c.report;

    x->show = asked ? NONE : FUSED;
    if (!x->stage)
        return TOOL_OK;
    x->show = IMPORT;
    while (x->show < NONE && strcmp(stages[x->show], x->stage))
        x->show++;
    if (x->show < NONE)
        return TOOL_OK;
    const char *near = fg_closest(x->stage, strlen(x->stage), stages,
                                  sizeof stages / sizeof *stages, sizeof *stages);
    return tool_fail(
        TOOL_USAGE, "--stage=%s: expected import, opt, fused, placed, ll or asm%s%s%s",
        x->stage, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static extent
how_far(const dump *x)
{
    if (x->html || x->trace)
        return TO_MEASURED;
    if (x->c.report || x->as_json || x->show == LL || x->show == ASM)
        return TO_BUILT;
    if (x->before || x->after || x->after_all || x->after_change || x->ledger ||
        x->plan || x->placement || x->node || x->show == PLACED)
        return TO_PLACED;
    return x->show == IMPORT ? TO_LOADED : TO_FUSED;
}

static int
check_usage(dump *x)
{
    int code = check_stage(x);

    if (code)
        return code;
    x->to = how_far(x);
    if (!x->c.model && !x->ops && !x->passes)
        return tool_fail(TOOL_USAGE, "a model is missing");
    const struct {
        const char *option, *pass;
    } given[] = {{"--print-ir-before", x->before},
                 {"--print-ir-after", x->after},
                 {"--explain", x->explain}};
    for (size_t k = 0; k < sizeof given / sizeof *given; k++)
        if (tool_check_passes(given[k].option, given[k].pass, false))
            return TOOL_USAGE;
    return TOOL_OK;
}

static void
end(dump *x)
{
    cJSON_Delete(x->json);
    cJSON_Delete(x->texts);
    cJSON_Delete(x->page.imported);
    cJSON_Delete(x->page.optimised);
    fg_compiled_free(&x->made);
    free(x->in.given.v);
}

int
cmd_dump(int argc, char **argv)
{
    dump x = {.in = {.random = 0, .length = 128}};
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
        {"--node", TOOL_TEXT, &x.node, "NAME",
         "what became of an ONNX node; part of its name will do"},
        {"--plan", TOOL_FLAG, &x.plan, "", "where every register lives, and the peak"},
        {"--placement", TOOL_FLAG, &x.placement, "",
         "the device of every kernel, and why"},
        {"--dot", TOOL_FLAG, &x.dot, "", "the graph of the fused module for Graphviz"},
        {"--html", TOOL_TEXT, &x.html, "FILE",
         "one page: graph, passes, memory, measured kernels"},
        {"--trace", TOOL_TEXT, &x.trace, "FILE",
         "passes and a run by kernel and thread, for Perfetto"},
        {"--input", TOOL_LIST, &x.in.given, "NAME=VALUE",
         "of that run; as for forge run"},
        {"--test-data", TOOL_TEXT, &x.in.test_data, "DIR", "likewise, from input_i.pb"},
        {"--json", TOOL_FLAG, &x.as_json, "", "all this as one JSON object"},
        {"--ops", TOOL_FLAG, &x.ops, "", "the operations, as Markdown; needs no model"},
        {"--list-passes", TOOL_FLAG, &x.passes, "",
         "the passes, their parameters, and those of --codegen, likewise"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&x.c);
    int code = tool_parse(
        &x.c, own,
        "forge dump MODEL.onnx|FILE.fir|FILE.forge: show what the compiler did", argc,
        argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if ((code = check_usage(&x)))
        return code;
    if (x.c.model && tool_is_artifact(x.c.model))
        return dump_artifact(x.c.model);
    if (!(x.made.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    x.made.observe = observe;
    x.made.user = &x;
    fg_raise raise = fg_protect(x.made.cx, show, &x);
    if (!x.done) {
        const char *text = fg_first_error(x.made.cx);
        code = TOOL_FAILED;
        if (raise == FG_RAISE_MEMORY || *text) /* else a message was printed */
            tool_fail_file(code, x.c.model ? x.c.model : "stdout", "%s",
                           raise == FG_RAISE_MEMORY ? "out of memory" : text);
    }
    end(&x);
    return code;
}
