/* page.c - what the compiler did as one HTML file that needs nothing else.
 *
 * page.html is the frame; page.css, the data and page.js replace its three marks. The data is
 * JSON in a script element that the browser does not run, with every < written as \u003c, so
 * that no name of a model can end it; page.js puts names on the page as text only.
 */
#include "tools/page.h"

#include <stdlib.h>

#include "page_files.h"
#include "tools/dump.h"

/* ---- graphs ------------------------------------------------------------------------------ */

static void
add_names(cJSON *o, const fg_inst *i, const history *h)
{
    cJSON *list = cJSON_AddArrayToObject(o, "names");

    for (int k = 0; k < i->nnode; k++) {
        const history_node *n = history_find(h, i->node[k]);
        if (n)
            cJSON_AddItemToArray(list, cJSON_CreateNumber((double)(n - h->node)));
    }
}

/* Operands of i that @main defines, those its regions read included; constants are left out. */
static void
add_operands(cJSON *list, fg_module *m, const fg_inst *i, const uint32_t *number)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] && number[i->in[k]])
            cJSON_AddItemToArray(list, cJSON_CreateNumber(number[i->in[k]] - 1));
    for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
        fg_each_inst(i->region[k], inner)
            add_operands(list, m, inner, number);
}

static cJSON *
add_node(cJSON *list, const char *op, const char *type, const char *reg)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    cJSON_AddStringToObject(o, "op", op);
    cJSON_AddStringToObject(o, "type", type);
    cJSON_AddStringToObject(o, "reg", reg);
    return o;
}

static void
add_inst(cJSON *list, fg_module *m, const fg_inst *i, const history *h,
         const uint32_t *number)
{
    fg_text t = fg_text_new(h->a);
    fg_inst bare = *i;
    const char *op =
        i->op == FG_OP_kernel ? dump_kernel_name(i) : fg_op_info(i->op)->name;
    cJSON *o = add_node(list, op, i->nout ? fg_type_text(m, fg_rt(m, i->out[0])) : "",
                        i->nout ? m->reg[i->out[0]].name : "");

    add_names(o, i, h);
    add_operands(cJSON_AddArrayToObject(o, "in"), m, i, number);
    bare.nnode = 0;
    fg_print_inst(&t, m, &bare, 0);
    cJSON_AddStringToObject(o, "text", t.s);
    if (i->op == FG_OP_kernel)
        cJSON_AddBoolToObject(o, "kernel", !dump_is_alias(m, i));
}

cJSON *
page_graph(fg_module *m, const history *h)
{
    cJSON *list = cJSON_CreateArray();
    uint32_t *number = FG_NEWN(h->a, uint32_t, m->nreg), n = 0;

    for (int k = 0; k < m->ninput; k++) {
        fg_reg r = m->input[k].reg;
        number[r] = ++n;
        add_node(list, "input", fg_type_text(m, fg_rt(m, r)), m->input[k].name);
    }
    fg_each_inst(m->body, i) {
        if (i->op == FG_OP_const)
            continue;
        n++;
        for (int k = 0; k < i->nout; k++)
            number[i->out[k]] = n;
        add_inst(list, m, i, h, number);
    }
    return list;
}

/* ---- kernels and history ------------------------------------------------------------------ */

static void
add_kernels(cJSON *top, fg_compiled *c, const page *p)
{
    cJSON *list = cJSON_AddArrayToObject(top, "kernels");
    const measure *x = p->measured;
    int64_t *sym = fg_nominal_symbols(c->m, c->a), v;

    fg_liveness(c->m, c->a); /* numbers the instructions */
    for (int k = 0; k < c->nkc; k++) {
        const fg_kcode *kc = &c->kc[k];
        if (dump_is_alias(c->m, kc->inst))
            continue;
        cJSON *o = add_node(list, dump_kernel_name(kc->inst),
                            fg_type_text(c->m, fg_rt(c->m, kc->inst->out[0])),
                            c->m->reg[kc->inst->out[0]].name);
        uint32_t s = measure_step_of(c, k);
        bool timed = !x->failure && s != FG_NONE && x->step_ms[s] > 0;
        add_names(o, kc->inst, p->history);
        cJSON_AddStringToObject(o, "storage", dump_storage(c->m, c->a, kc->inst->out[0]));
        cJSON_AddNumberToObject(o, "position", kc->inst->mark);
        if (fg_kernel_once(c->m, kc->inst))
            cJSON_AddTrueToObject(o, "once");
        if (timed)
            cJSON_AddNumberToObject(o, "ms", x->step_ms[s]);
        if (timed ? x->step_flops[s] > 0
                  : kc->flops != FG_E_BAD && fg_e_eval(c->m->ex, kc->flops, sym, &v))
            cJSON_AddNumberToObject(o, "flops", timed ? x->step_flops[s] : (double)v);
        if (timed ? x->step_bytes[s] > 0
                  : kc->bytes != FG_E_BAD && fg_e_eval(c->m->ex, kc->bytes, sym, &v))
            cJSON_AddNumberToObject(o, "bytes", timed ? x->step_bytes[s] : (double)v);
    }
}

static void
add_history(cJSON *top, const fg_compiled *c, const history *h)
{
    cJSON *list = cJSON_AddArrayToObject(top, "nodes");

    for (int k = 0; k < h->n; k++) {
        const history_node *n = &h->node[k];
        cJSON *o = cJSON_CreateObject(), *events = cJSON_CreateArray();
        cJSON_AddItemToArray(list, o);
        cJSON_AddStringToObject(o, "name", n->name);
        cJSON_AddStringToObject(o, "op", n->op);
        cJSON_AddItemToObject(o, "events", events);
        for (int j = 0; j < n->nevent; j++) {
            cJSON *e = cJSON_CreateObject();
            cJSON_AddItemToArray(events, e);
            cJSON_AddStringToObject(e, "pass", n->event[j].pass);
            cJSON_AddNumberToObject(e, "round", n->event[j].round);
            cJSON_AddStringToObject(e, "text", n->event[j].text);
        }
    }
    cJSON *missed = cJSON_AddArrayToObject(top, "missed");
    for (const fg_miss *x = c->report.missed; x; x = x->next) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddItemToArray(missed, o);
        cJSON_AddStringToObject(o, "pass", x->pass);
        cJSON_AddStringToObject(o, "node", x->node);
        cJSON_AddStringToObject(o, "reason", x->reason);
    }
}

static void
add_run(cJSON *top, const measure *x)
{
    cJSON *o = cJSON_AddObjectToObject(top, "run");

    if (x->failure) {
        cJSON_AddStringToObject(o, "failure", x->failure);
        return;
    }
    cJSON_AddStringToObject(o, "inputs", x->inputs);
    cJSON_AddNumberToObject(o, "ms", x->run_ms);
    cJSON_AddNumberToObject(o, "threads", x->threads);
    cJSON_AddNumberToObject(o, "peak_gflops", x->peak.gflops[TOOL_F32]);
    cJSON_AddNumberToObject(o, "peak_gbps", x->peak.gbps[TOOL_MEMORY]);
}

/* ---- the file ------------------------------------------------------------------------------- */

static void
put_bytes(fg_text *t, const unsigned char *s, size_t n)
{
    fg_putf(t, "%.*s", (int)n, (const char *)s);
}

static void
put_data(fg_text *t, fg_ctx *cx, cJSON *top)
{
    char *text = cJSON_PrintUnformatted(top);

    cJSON_Delete(top);
    if (!text)
        fg_raise_memory(cx);
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, "<");
        put_bytes(t, (const unsigned char *)s, n);
        s += n;
        if (*s == '<') {
            fg_puts(t, "\\u003c");
            s++;
        }
    }
    free(text);
}

const char *
page_html(fg_compiled *c, page *p)
{
    static const char marks[3][8] = {"@STYLE@", "@DATA@", "@CODE@"};
    cJSON *top = cJSON_CreateObject(), *report = fg_report_tree(c);
    cJSON *graphs = cJSON_AddObjectToObject(top, "graphs");
    fg_text t = fg_text_new(c->a);
    const char *s = (const char *)page_html_file;

    cJSON_AddItemToObject(top, "report", report);
    cJSON_AddItemToObject(graphs, "imported", p->imported);
    cJSON_AddItemToObject(graphs, "optimised", p->optimised);
    cJSON_AddItemToObject(graphs, "kernels", page_graph(c->m, p->history));
    p->imported = p->optimised = NULL;
    cJSON_AddItemToObject(top, "memory", dump_json_plan(report, c->m, c->a));
    add_kernels(top, c, p);
    add_history(top, c, p->history);
    add_run(top, p->measured);
    for (int k = 0; k < 3; k++) {
        const char *at = strstr(s, marks[k]);
        put_bytes(&t, (const unsigned char *)s, (size_t)(at - s));
        s = at + strlen(marks[k]);
        if (k == 0)
            fg_puts(&t, (const char *)page_css_file);
        else if (k == 1)
            put_data(&t, c->cx, top);
        else
            fg_puts(&t, (const char *)page_js_file);
    }
    fg_puts(&t, s);
    return t.s;
}
