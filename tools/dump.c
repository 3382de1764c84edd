/* dump.c - the views of forge dump: tables of the compiler itself, the ledger, missed
 * fusions, where kernels run, the life of one node. */
#include "codegen/knobs.h"
#include "tools/dump.h"

#include <inttypes.h>

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
    fg_puts(o,
            "\n| parameter | from | to | default | meaning |\n|---|---|---|---|---|\n");
    for (int k = 0; k < FG_NPARAMS; k++)
        fg_putf(o, "| %s{%s} | %g | %g | %g | %s |\n", fg_params[k].pass,
                fg_params[k].name, fg_params[k].lo, fg_params[k].hi, fg_params[k].dflt,
                fg_params[k].meaning);
    fg_puts(o,
            "\n| --codegen | from | to | default | meaning |\n|---|---|---|---|---|\n");
    for (int k = 0; k < FG_NKNOBS; k++)
        fg_putf(o, "| %s | %d | %d | %d | %s |\n", fg_knobs[k].name, fg_knobs[k].lo,
                fg_knobs[k].hi, fg_knobs[k].dflt, fg_knobs[k].meaning);
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

/* ---- where it runs -------------------------------------------------------------------- */

typedef struct tally {
    int runs, once;
} tally;

static void
put_kernel(fg_text *o, fg_module *m, const fg_inst *i, tally *t)
{
    bool alias = dump_is_alias(m, i), once = fg_kernel_once(m, i);
    t->once += once;
    t->runs += !once && !alias;
    fg_putf(o, "%-10s %-20s %%%-10s %s%s\n", alias ? "-" : DUMP_DEVICE,
            dump_kernel_name(i), m->reg[i->out[0]].name,
            alias ? "same bytes as its operand: never runs" : DUMP_DEVICE_REASON,
            once ? "; once, before the first run" : "");
}

/* Walks kernels, those of branches and loops too. */
static void
put_kernels(fg_text *o, fg_module *m, const fg_block *b, tally *t)
{
    fg_each_inst(b, i) {
        if (i->op == FG_OP_kernel)
            put_kernel(o, m, i, t);
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
            put_kernels(o, m, i->region[k], t);
    }
}

void
dump_placement(fg_text *o, fg_module *m)
{
    tally t = {0, 0};
    fg_putf(o, "%-10s %-20s %-11s %s\n", "device", "kernel", "result", "reason");
    put_kernels(o, m, m->body, &t);
    fg_putf(o, "kernels: %d, and %d once before the first run\n", t.runs, t.once);
    fg_puts(o,
            "transitions between devices: 0 before scheduling, 0 after; fallbacks: 0\n");
}

/* ---- one node --------------------------------------------------------------------------- */

const fg_inst *
dump_kernel_of(const fg_block *b, const history_node *n)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nnode && i->op == FG_OP_kernel; k++)
            if (i->node[k] == n->name)
                return i;
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++) {
            const fg_inst *found = dump_kernel_of(i->region[k], n);
            if (found)
                return found;
        }
    }
    return NULL;
}

static const char *
event_text(const history_node *n, int k)
{
    if (*n->event[k].text)
        return n->event[k].text;
    return k ? "nothing left: its value is known, is computed elsewhere, or nobody reads "
               "it"
             : "no instruction: its value is known, or another register's";
}

void
dump_node(fg_text *o, fg_compiled *c, const history_node *n)
{
    const fg_inst *kernel = dump_kernel_of(c->m->body, n);

    fg_putf(o, "node \"%s\" %s\n", n->name, n->op);
    for (int k = 0; k < n->nevent; k++) {
        const history_event *e = &n->event[k];
        const char *when =
            k ? fg_format(o->a, "%s, round %d", e->pass, e->round) : e->pass;
        const char *s = event_text(n, k);
        for (bool first = true; *s; first = false) {
            size_t len = strcspn(s, "\n");
            fg_putf(o, "    %-24s %.*s\n", first ? when : "", (int)len, s);
            s += len + (s[len] == '\n');
        }
    }
    if (kernel) {
        fg_putf(o, "    %-24s %s %%%s, which stands for %d node%s, on %s\n", "kernel",
                dump_kernel_name(kernel), c->m->reg[kernel->out[0]].name, kernel->nnode,
                kernel->nnode == 1 ? "" : "s", DUMP_DEVICE);
        for (int k = 0; k < kernel->nout; k++) {
            fg_putf(o, "    %-24s ", "buffer");
            dump_plan_register(o, c->m, kernel->out[k]);
        }
    }
    for (const fg_miss *x = c->report.missed; x; x = x->next)
        if (strstr(x->node, fg_format(o->a, "\"%s\"", n->name)))
            fg_putf(o, "    %-24s %s\n", fg_format(o->a, "missed by %s", x->pass),
                    x->reason);
}
