/* report.c - what a compilation learned, as JSON: phases, passes, nodes, fusions, memory,
 * weights, cost, kernels, and sizes that those have code of their own for.
 *
 * Sizes and costs are those of nominal shapes (batch 1, length 128, within the
 * bounds); costs are those of passes/cost.c.
 */
#include "codegen/compile.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

#include "passes/cost.h"
#include "passes/place.h"

static double
eval_or(fg_module *m, fg_expr e, const int64_t *sym, double other)
{
    int64_t v;

    return e != FG_E_BAD && fg_e_eval(m->ex, e, sym, &v) ? (double)v : other;
}

/* FGR asks for the costs of two programs that differ in alpha; only one is at hand, and
 * the cost model says what its fused attention saved and what the rest could save. */
void
fg_report_cost(fg_compiled *c)
{
    fg_report *r = &c->report;
    int64_t *sym = fg_nominal_symbols(c->m, c->a);

    for (int k = 0; k < c->nkc; k++)
        if (!fg_kernel_alias(c->m, c->kc[k].inst))
            r->cost += fg_cost_kernel(eval_or(c->m, c->kc[k].flops, sym, 0),
                                      eval_or(c->m, c->kc[k].bytes, sym, 0));
    r->cost_alpha0 = r->cost + r->attention_gain;
    r->cost_alpha1 = r->cost - r->attention_gain_left;
    r->fgr = r->cost_alpha1 > 0 ? r->cost_alpha0 / r->cost_alpha1 : 1;
}

/* ---- JSON -------------------------------------------------------------------------- */

static cJSON *
object(cJSON *in, const char *key)
{
    return cJSON_AddObjectToObject(in, key);
}

static void
number(cJSON *in, const char *key, double v)
{
    cJSON_AddNumberToObject(in, key, v);
}

static cJSON *
row(cJSON *list)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddItemToArray(list, o);
    return o;
}

static void
add_passes(cJSON *top, const fg_report *r)
{
    cJSON *list = cJSON_AddArrayToObject(top, "phases");

    for (int k = 0; k < r->nphase; k++) {
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "name", r->phase[k].name);
        number(o, "ms", r->phase[k].ms);
    }
    list = cJSON_AddArrayToObject(top, "passes");
    for (int k = 0; k < r->nrow; k++) {
        const fg_ledger_row *p = &r->row[k];
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "name", p->pass);
        number(o, "round", p->round);
        number(o, "ms", p->ms);
        number(o, "nodes_before", p->nodes_before);
        number(o, "nodes_after", p->nodes_after);
        cJSON_AddBoolToObject(o, "changed", p->changed);
        number(o, "rss_delta_kb", (double)p->rss_delta_kb);
    }
}

/* Operations left when kernels are formed: before the last run of fuse_ops. */
static int
optimized_nodes(const fg_report *r)
{
    int n = r->nodes_optimized ? r->nodes_optimized : r->nodes_imported;

    for (int k = 0; k < r->nrow && !r->nodes_optimized; k++)
        if (!strcmp(r->row[k].pass, "fuse_ops"))
            n = r->row[k].nodes_before;
    return n;
}

static void
add_fusions(cJSON *top, const fg_compiled *c)
{
    const fg_report *r = &c->report;
    cJSON *o = object(top, "nodes");

    number(o, "onnx", c->m->onnx_nodes);
    number(o, "imported", r->nodes_imported);
    number(o, "optimized", optimized_nodes(r));
    number(o, "instructions", r->instructions);
    o = object(top, "attention");
    number(o, "candidates", r->attention_candidates);
    number(o, "fused", r->attention_fused);
    cJSON *list = cJSON_AddArrayToObject(o, "missed");
    for (const fg_miss *x = r->missed; x; x = x->next) {
        if (strcmp(x->pass, "fuse_attention"))
            continue;
        o = row(list);
        cJSON_AddStringToObject(o, "node", x->node);
        cJSON_AddStringToObject(o, "reason", x->reason);
    }
    list = cJSON_AddArrayToObject(top, "fusions");
    for (const fg_count *x = r->fusions; x; x = x->next) {
        o = row(list);
        cJSON_AddStringToObject(o, "rule", x->rule);
        number(o, "count", x->count);
    }
}

static void
add_memory(cJSON *top, const fg_compiled *c)
{
    const fg_report *r = &c->report;
    cJSON *o = object(top, "buffers");

    number(o, "virtual", r->buffers_virtual);
    number(o, "physical", r->buffers_physical);
    number(o, "rho",
           r->buffers_virtual ? 1.0 - (double)r->buffers_physical / r->buffers_virtual
                              : 0);
    number(o, "bytes_naive", (double)r->bytes_naive);
    number(o, "bytes_planned", (double)r->bytes_planned);
    number(o, "bytes_lower_bound", (double)r->bytes_lower_bound);
    o = object(top, "placement");
    cJSON *list = cJSON_AddArrayToObject(o, "devices");
    cJSON_AddItemToArray(list, cJSON_CreateString("cpu"));
    number(o, "transitions_before", 0);
    number(o, "transitions_after", 0);
    cJSON_AddArrayToObject(o, "fallbacks");
    o = object(top, "weights");
    number(o, "bytes", (double)c->m->initializers.bytes);
    number(o, "tied", c->m->initializers.tied);
    number(o, "deduplicated_bytes", (double)c->m->initializers.shared);
}

static void
add_kernels(cJSON *top, const fg_compiled *c)
{
    cJSON *list = cJSON_AddArrayToObject(top, "kernels");
    int64_t *sym = fg_nominal_symbols(c->m, c->a);

    for (int k = 0; k < c->nkc; k++) {
        const fg_kcode *kc = &c->kc[k];
        if (fg_kernel_alias(c->m, kc->inst))
            continue;
        cJSON *o = row(list);
        cJSON_AddStringToObject(o, "name", FG_GET(kc->inst, kernel, name).s);
        cJSON *nodes = cJSON_AddArrayToObject(o, "nodes");
        for (int n = 0; n < kc->inst->nnode; n++)
            cJSON_AddItemToArray(nodes, cJSON_CreateString(kc->inst->node[n]));
        number(o, "flops", eval_or(c->m, kc->flops, sym, 0));
        number(o, "bytes", eval_or(c->m, kc->bytes, sym, 0));
        if (fg_kernel_once(c->m, kc->inst))
            cJSON_AddTrueToObject(o, "once"); /* not in every run */
    }
}

/* Which sizes have code of their own, and how many kernels. */
static void
add_specials(cJSON *top, const fg_compiled *c)
{
    cJSON *list = cJSON_AddArrayToObject(top, "variants");

    for (uint32_t s = 0; s < c->specials.n; s++) {
        cJSON *o = row(list), *sizes = object(o, "sizes");
        const fg_special *z = &c->specials.list[s];
        int own = 0;
        for (uint32_t k = 0; k < z->n; k++)
            number(sizes, fg_sym_info(c->m->ex, z->fixed[k].sym)->name,
                   (double)z->fixed[k].size);
        for (int k = 0; k < c->nkc; k++)
            own += c->kc[(int)(s + 1) * c->nkc + k].fn != c->kc[k].fn;
        number(o, "kernels", own);
    }
}

cJSON *
fg_report_tree(fg_compiled *c)
{
    cJSON *top = cJSON_CreateObject();
    double total = 0;

    for (int k = 0; k < c->report.nphase; k++)
        total += c->report.phase[k].ms;
    cJSON_AddStringToObject(top, "model", c->m->name);
    cJSON_AddStringToObject(top, "version", FORGE_VERSION);
    cJSON_AddStringToObject(top, "target",
                            fg_format(c->a, "cpu:%s", fg_cpu_name(c->code)));
    number(top, "ms_total", total);
    number(top, "ms_report", c->report.own_ms); /* of that, for collecting this */
    if (c->report.knobs)
        cJSON_AddStringToObject(top, "knobs", c->report.knobs);
    add_passes(top, &c->report);
    add_fusions(top, c);
    add_memory(top, c);
    number(top, "cost", c->report.cost);
    number(top, "fgr", c->report.fgr);
    number(top, "cost_alpha0", c->report.cost_alpha0);
    number(top, "cost_alpha1", c->report.cost_alpha1);
    add_kernels(top, c);
    add_specials(top, c);
    return top;
}

const char *
fg_report_json(fg_compiled *c)
{
    cJSON *top = fg_report_tree(c);
    char *text = cJSON_Print(top);
    const char *kept = text ? fg_strdup(c->a, text) : "{}";
    free(text);
    cJSON_Delete(top);
    return kept;
}
