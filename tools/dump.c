/* dump.c - the views of forge dump: tables of the compiler itself, the ledger, missed
 * fusions, the memory plan, the graph. */
#include "tools/dump.h"

#include <inttypes.h>

#include "passes/place.h"

/* ---- the compiler's own tables ------------------------------------------------------ */

static void
put_cell(fg_text *o, const char *s)
{
    for (; *s; s++)
        fg_putf(o, *s == '|' ? "\\%c" : "%c", *s);
}

static void
put_attribute(fg_text *o, const fg_attrinfo *at)
{
    static const char *const kind[] = {
        "integer",  "0 or 1", "number",   "element type", "expression", "expressions",
        "integers", "word",   "a weight", "a symbol",     "symbols"};

    fg_putf(o, "| | `%s` | %s", at->name, kind[at->kind]);
    if (at->kind == FG_AK_int || at->kind == FG_AK_flag)
        fg_putf(o, ", %" PRId64, at->dflt.i);
    else if (at->kind == FG_AK_flt) {
        fg_puts(o, ", ");
        fg_put_double(o, at->dflt.f, false);
    } else if (at->kind == FG_AK_dtype && at->dflt.i != FG_NODTYPE)
        fg_putf(o, ", %s", fg_dtypes[at->dflt.i].name);
    else if (at->kind == FG_AK_word && at->dflt.s && *at->dflt.s)
        fg_putf(o, ", %s", at->dflt.s);
    fg_puts(o, " | ");
    put_cell(o, at->meaning);
    fg_puts(o, " |\n");
}

void
dump_operations(fg_text *o)
{
    fg_puts(o, "| operation | operands, or attribute | results, or kind and default | "
               "meaning |\n"
               "|---|---|---|---|\n");
    for (int op = 1; op < FG_NOPS; op++) {
        const fg_opinfo *info = fg_op_info((fg_op)op);
        fg_putf(o, "| **%s** | %s | ", info->name, info->operands);
        if (info->nout == FG_OUTS_N)
            fg_puts(o, "any");
        else
            fg_putf(o, "%d", info->nout);
        fg_puts(o, " | ");
        put_cell(o, info->meaning);
        fg_puts(o, " |\n");
        for (int k = 0; k < info->nattr; k++)
            put_attribute(o, &fg_attrs[info->attr0 + k]);
    }
}

void
dump_passes(fg_text *o)
{
    static const char *const stage[] = {"tensor", "fused", "placed"};

    fg_puts(o, "| pass | needs | leaves | meaning |\n|---|---|---|---|\n");
    for (int k = 0; k < fg_npasses; k++)
        fg_putf(o, "| %s | %s | %s | %s |\n", fg_passes[k].name, stage[fg_passes[k].from],
                stage[fg_passes[k].to], fg_passes[k].meaning);
}

/* ---- what the passes did ------------------------------------------------------------ */

void
dump_ledger(fg_text *o, const fg_report *r)
{
    double ms = 0;

    fg_putf(o, "%-16s %5s %9s %8s %8s %8s %9s\n", "pass", "round", "ms", "before",
            "after", "changed", "rss KiB");
    for (int k = 0; k < r->nrow; k++) {
        const fg_ledger_row *row = &r->row[k];
        fg_putf(o, "%-16s %5d %9.3f %8d %8d %8s %+9ld\n", row->pass, row->round, row->ms,
                row->nodes_before, row->nodes_after, row->changed ? "yes" : "no",
                row->rss_delta_kb);
        ms += row->ms;
    }
    fg_putf(o, "%-16s %5s %9.3f\n", "total", "", ms);
}

void
dump_explain(fg_text *o, const fg_report *r, const char *pass)
{
    int missed = 0;

    if (r->attention_candidates)
        fg_putf(o, "attention: %d of %d fused\n", r->attention_fused,
                r->attention_candidates);
    for (const fg_count *c = r->fusions; c; c = c->next)
        fg_putf(o, "fused: %s, %d times\n", c->rule, c->count);
    for (const fg_miss *m = r->missed; m; m = m->next) {
        if (*pass && strcmp(pass, m->pass))
            continue;
        fg_putf(o, "missed: %s: %s: %s\n", m->pass, m->node, m->reason);
        missed++;
    }
    if (!missed)
        fg_puts(o, "nothing was missed\n");
}

/* ---- the memory plan ---------------------------------------------------------------- */

static void
put_row(fg_text *o, fg_module *m, fg_reg r, fg_liverange live, const int64_t *sym)
{
    static const char *const where[] = {"",      "input",    "output", "constant",
                                        "arena", "alias of", "dynamic"};
    const fg_reginfo *ri = fg_ri(m, r);
    fg_text place = fg_text_new(o->a), type = fg_text_new(o->a);

    fg_puts(&place, where[ri->mem]);
    if (ri->mem == FG_MEM_ARENA)
        fg_putf(&place, "+%" PRId64, ri->offset);
    if (ri->mem == FG_MEM_ALIAS)
        fg_putf(&place, " %%%s", fg_ri(m, ri->alias)->name);
    fg_put_type(&type, m->ex, &ri->type);
    fg_putf(o, "%-24s %-26s %12" PRId64 " %5d..%-5d %%%s\n", place.s, type.s,
            fg_reg_bytes(m, r, sym), live.first, live.last, ri->name);
}

void
dump_plan(fg_text *o, fg_module *m, const fg_report *r)
{
    fg_liverange *live = fg_liveness(m, o->a);
    const int64_t *sym = fg_nominal_symbols(m, o->a);

    fg_puts(o, "sizes at");
    for (fg_sym s = 0; s < fg_sym_count(m->ex); s++)
        if (fg_sym_info(m->ex, s)->is == FG_E_BAD)
            fg_putf(o, " %s=%" PRId64, fg_sym_info(m->ex, s)->name, sym[s]);
    fg_putf(o, "\n%-24s %-26s %12s %12s %s\n", "storage", "type", "bytes", "lives",
            "register");
    int64_t constants = 0;
    int nconstant = 0;
    for (fg_reg k = 1; k < m->nreg; k++) {
        if (live[k].first < 0 || fg_ri(m, k)->mem == FG_MEM_NONE)
            continue;
        if (fg_ri(m, k)->mem != FG_MEM_CONST) {
            put_row(o, m, k, live[k], sym);
            continue;
        }
        constants += fg_reg_bytes(m, k, sym);
        nconstant++;
    }
    fg_putf(o, "constants: %d of %" PRId64 " bytes\n", nconstant, constants);
    fg_putf(o, "buffers: %d registers share %d, %.1f %% fewer\n", r->buffers_virtual,
            r->buffers_physical,
            r->buffers_virtual
                ? 100.0 * (1.0 - (double)r->buffers_physical / r->buffers_virtual)
                : 0);
    fg_putf(o,
            "bytes: %" PRId64 " planned, %" PRId64 " without sharing, at least %" PRId64
            " needed\n",
            r->bytes_planned, r->bytes_naive, r->bytes_lower_bound);
}

/* ---- the graph ---------------------------------------------------------------------- */

static void
put_escaped(fg_text *o, const char *s)
{
    for (; *s; s++)
        fg_putf(o, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
}

static void
put_label(fg_text *o, fg_module *m, const fg_inst *i)
{
    const char *name = i->op == FG_OP_kernel ? FG_GET(i, kernel, name).s : "";

    put_escaped(o, *name ? name : fg_op_info(i->op)->name);
    if (!i->nout)
        return;
    fg_text type = fg_text_new(o->a);
    fg_put_type(&type, m->ex, fg_rt(m, i->out[0]));
    fg_puts(o, "\\n");
    put_escaped(o, type.s);
}

/* An edge from each value of @main that i or its regions read; constants are left out, they
 * would hide the rest. */
static void
put_edges(fg_text *o, fg_module *m, const fg_inst *i, uint32_t to)
{
    for (int k = 0; k < i->nin; k++) {
        const fg_reginfo *ri = fg_ri(m, i->in[k]);
        if (!i->in[k] || ri->block != m->body || fg_is_op(ri->def, FG_OP_const))
            continue;
        if (ri->def)
            fg_putf(o, "  i%u -> i%u;\n", ri->def->mark, to);
        else
            fg_putf(o, "  p%u -> i%u;\n", i->in[k], to);
    }
    for (int k = 0; k < i->nregion; k++)
        fg_each_inst(i->region[k], inner)
            put_edges(o, m, inner, to);
}

void
dump_dot(fg_text *o, fg_module *m)
{
    uint32_t number = 0;

    fg_puts(o, "digraph main {\n  node [shape=box, fontname=\"monospace\"];\n");
    for (int k = 0; k < m->body->nparam; k++) {
        fg_putf(o, "  p%u [shape=ellipse, label=\"", m->body->param[k]);
        put_escaped(o, fg_ri(m, m->body->param[k])->name);
        fg_puts(o, "\"];\n");
    }
    fg_each_inst(m->body, i) {
        if (i->op == FG_OP_const)
            continue;
        i->mark = number++;
        fg_putf(o, "  i%u [label=\"", i->mark);
        put_label(o, m, i);
        fg_puts(o, "\"];\n");
        put_edges(o, m, i, i->mark);
    }
    fg_puts(o, "}\n");
}
