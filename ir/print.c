/* print.c - a module as text; parse.c reads it back.
 *
 *     module "gpt2"
 *     stage fused
 *     sym S in 1..1024
 *     sym u0 run in 0..
 *     sym u1 run in 0.. is 2*S            ; what it was found to equal, and is compared with
 *     $0 = f32[768] file "model.onnx"+4096  !"wte"
 *     $1 = f32[] {1.0}
 *     input "mask" %mask = $1
 *     output "logits"
 *
 *     func @main(%mask: f32[S]) -> f32[S] {
 *       %w = const {w=$0} : f32[768]
 *       %y = kernel %mask {name=exp} : f32[S] (%x: f32[S]) {  !"/h/Exp"
 *         %e = exp %x : f32[S]  !"/h/Exp"
 *         yield %e
 *       }
 *       ret %y
 *     }
 *
 * Printing is the inverse of parsing: what a line leaves out is what the parser assumes.
 * Module and stage lines are left out for "" and `tensor`; port lines when all inputs
 * (outputs) are named like their registers and have no default; attributes that have
 * their default. Weights are numbered in the order of the table, those nobody reads left
 * out, so that a pass that drops one leaves no hole.
 */
#include "ir/text.h"

#include <inttypes.h>

const char *const fg_stage_text[] = {"tensor", "fused", "placed"};
const char *const fg_mem_text[] = {"",       "@in",      "@out",   "@const", "@arena",
                                   "@alias", "@dynamic", "@state", "@once"};

#define MAX_LITERAL 64      /* bytes; larger weights stay in their file */
#define MAX_INLINE_PARAMS 4 /* more go on lines of their own */

typedef struct printer {
    fg_text *o;
    fg_module *m;
    const int *weight; /* printed number of each weight; NULL: its index */
} printer;

static void
put_name(fg_text *o, const char *s)
{
    const char *p = s;
    while (fg_is_bare(*p))
        p++;
    if (p > s && !*p)
        fg_puts(o, s);
    else
        fg_put_quoted(o, s);
}

static void
put_reg(printer *p, fg_reg r)
{
    if (!r) {
        fg_putc(p->o, '_');
        return;
    }
    fg_putc(p->o, '%');
    put_name(p->o, fg_ri(p->m, r)->name);
}

static void
put_indent(printer *p, int indent)
{
    fg_putf(p->o, "%*s", 2 * indent, "");
}

/* ---- types, attributes, names ------------------------------------------------------ */

static void
put_type(printer *p, fg_reg r)
{
    const fg_reginfo *ri = fg_ri(p->m, r);
    fg_put_type(p->o, p->m->ex, &ri->type);
    if (ri->mem == FG_MEM_NONE)
        return;
    fg_putf(p->o, " %s", fg_mem_text[ri->mem]);
    if (ri->mem == FG_MEM_ARENA)
        fg_putf(p->o, "+%" PRId64, ri->offset);
    if (ri->mem == FG_MEM_ALIAS) {
        fg_putc(p->o, ' ');
        put_reg(p, ri->alias);
    }
}

static void
put_word(fg_text *o, const char *s)
{
    put_name(o, s ? s : "");
}

static int
weight_number(const printer *p, int64_t w)
{
    return p->weight ? p->weight[w] : (int)w;
}

static bool
is_default(const fg_attrinfo *info, const fg_attr *a)
{
    switch (info->kind) {
    case FG_AK_flt:
        return !memcmp(&a->f, &info->dflt.f, sizeof a->f);
    case FG_AK_expr:
        return a->e == info->dflt.e;
    case FG_AK_word:
        return !strcmp(a->s ? a->s : "", info->dflt.s ? info->dflt.s : "");
    case FG_AK_exprs:
    case FG_AK_ints:
    case FG_AK_syms:
        return !a->n;
    case FG_AK_weight:
    case FG_AK_sym:
        return false; /* 0 is one of them, not "none" */
    default:
        return a->i == info->dflt.i;
    }
}

static void
put_item(printer *p, fg_attrkind kind, const fg_attr *a, int k)
{
    fg_exprs *ex = p->m->ex;
    if (kind == FG_AK_exprs)
        fg_put_expr(p->o, ex, a->es[k]);
    else if (kind == FG_AK_syms)
        fg_put_symbol(p->o, ex, (fg_sym)a->is[k]);
    else
        fg_putf(p->o, "%" PRId64, a->is[k]);
}

static void
put_value(printer *p, fg_attrkind kind, const fg_attr *a)
{
    fg_text *o = p->o;
    switch (kind) {
    case FG_AK_int:
    case FG_AK_flag:
        fg_putf(o, "%" PRId64, a->i);
        return;
    case FG_AK_flt:
        fg_put_double(o, a->f, false);
        return;
    case FG_AK_dtype:
        fg_puts(o, fg_dtypes[a->i].name);
        return;
    case FG_AK_expr:
        fg_put_expr(o, p->m->ex, a->e);
        return;
    case FG_AK_word:
        put_word(o, a->s);
        return;
    case FG_AK_weight:
        fg_putf(o, "$%d", weight_number(p, a->i));
        return;
    case FG_AK_sym:
        fg_put_symbol(o, p->m->ex, (fg_sym)a->i);
        return;
    case FG_AK_exprs:
    case FG_AK_ints:
    case FG_AK_syms:
        fg_putc(o, '[');
        for (int k = 0; k < a->n; k++) {
            fg_puts(o, k ? "," : "");
            put_item(p, kind, a, k);
        }
        fg_putc(o, ']');
        return;
    }
}

static void
put_attrs(printer *p, const fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    const char *before = " {";
    for (int k = 0; k < info->nattr; k++) {
        const fg_attrinfo *ai = &fg_attrs[info->attr0 + k];
        if (is_default(ai, &i->attr[k]))
            continue;
        fg_putf(p->o, "%s%s=", before, ai->name);
        put_value(p, ai->kind, &i->attr[k]);
        before = ", ";
    }
    if (before[0] == ',')
        fg_putc(p->o, '}');
}

static void
put_nodes(printer *p, const fg_inst *i)
{
    for (int k = 0; k < i->nnode; k++) {
        fg_puts(p->o, k ? ", " : "  !");
        fg_put_quoted(p->o, i->node[k]);
    }
}

/* ---- instructions and blocks ------------------------------------------------------- */

static void
put_params(printer *p, const fg_block *b, int indent)
{
    bool lines = b->nparam > MAX_INLINE_PARAMS;
    fg_putc(p->o, '(');
    for (int k = 0; k < b->nparam; k++) {
        fg_puts(p->o, k ? (lines ? "," : ", ") : "");
        if (lines) {
            fg_putc(p->o, '\n');
            put_indent(p, indent + 2);
        }
        put_reg(p, b->param[k]);
        fg_puts(p->o, ": ");
        put_type(p, b->param[k]);
    }
    fg_putc(p->o, ')');
}

static void put_block(printer *p, const fg_block *b, int indent);

static void
put_inst(printer *p, const fg_inst *i, int indent)
{
    fg_text *o = p->o;
    put_indent(p, indent);
    for (int k = 0; k < i->nout; k++) {
        fg_puts(o, k ? ", " : "");
        put_reg(p, i->out[k]);
    }
    fg_putf(o, "%s%s", i->nout ? " = " : "", fg_op_info(i->op)->name);
    for (int k = 0; k < i->nin; k++) {
        fg_puts(o, k ? ", " : " ");
        put_reg(p, i->in[k]);
    }
    put_attrs(p, i);
    for (int k = 0; k < i->nout; k++) {
        fg_puts(o, k ? ", " : " : ");
        put_type(p, i->out[k]);
    }
    for (int k = 0; k < i->nregion; k++) {
        const fg_block *b = i->region[k];
        fg_puts(o, k ? " else" : "");
        if (b->nparam) {
            fg_putc(o, ' ');
            put_params(p, b, indent);
        }
        fg_puts(o, " {");
        if (!k)
            put_nodes(p, i);
        fg_putc(o, '\n');
        put_block(p, b, indent + 1);
        put_indent(p, indent);
        fg_putc(o, '}');
    }
    if (!i->nregion)
        put_nodes(p, i);
    fg_putc(o, '\n');
}

static void
put_block(printer *p, const fg_block *b, int indent)
{
    fg_each_inst(b, i)
        put_inst(p, i, indent);
}

void
fg_print_inst(fg_text *o, fg_module *m, const fg_inst *i, int indent)
{
    put_inst(&(printer){o, m, NULL}, i, indent);
}

void
fg_print_block(fg_text *o, fg_module *m, const fg_block *b, int indent)
{
    put_block(&(printer){o, m, NULL}, b, indent);
}

/* ---- module ------------------------------------------------------------------------ */

/* What the header must declare: weights, and symbols that attributes name although they were
 * replaced in every expression. */
typedef struct named {
    int *weight; /* 1 when used, later its number */
    bool *symbol;
} named;

static void
mark_named(const fg_block *b, const named *n)
{
    fg_each_inst(b, i) {
        const fg_opinfo *info = fg_op_info(i->op);
        for (int k = 0; k < info->nattr; k++) {
            fg_attrkind kind = fg_attrs[info->attr0 + k].kind;
            if (kind == FG_AK_weight)
                n->weight[i->attr[k].i] = 1;
            if (kind == FG_AK_sym)
                n->symbol[i->attr[k].i] = true;
            for (int j = 0; kind == FG_AK_syms && j < i->attr[k].n; j++)
                n->symbol[i->attr[k].is[j]] = true;
        }
        for (int k = 0; k < i->nregion; k++)
            mark_named(i->region[k], n);
    }
}

static named
find_named(fg_module *m, fg_arena *a)
{
    named n = {FG_NEWN(a, int, (size_t)m->nweight),
               FG_NEWN(a, bool, fg_sym_count(m->ex))};
    mark_named(m->body, &n);
    for (int k = 0; k < m->ninput; k++)
        if (m->input[k].weight >= 0)
            n.weight[m->input[k].weight] = 1;
    int used = 0;
    for (int w = 0; w < m->nweight; w++)
        n.weight[w] = n.weight[w] ? used++ : -1;
    return n;
}

static void
put_bound(fg_text *o, int64_t v, int64_t open)
{
    if (v != open)
        fg_putf(o, "%" PRId64, v);
}

/* Those that were replaced come last: what they equal is said in terms of the others. */
static void
put_symbols(printer *p, const bool *kept)
{
    fg_exprs *ex = p->m->ex;
    for (int replaced = 0; replaced < 2; replaced++)
        for (fg_sym s = 0; s < fg_sym_count(ex); s++) {
            const fg_syminfo *info = fg_sym_info(ex, s);
            if ((info->is != FG_E_BAD) != replaced || (replaced && !kept[s]))
                continue;
            fg_puts(p->o, "sym ");
            fg_put_symbol(p->o, ex, s);
            fg_puts(p->o, info->kind == FG_SYM_RUN ? " run in " : " in ");
            put_bound(p->o, info->lo, INT64_MIN);
            fg_puts(p->o, "..");
            if (info->usual)
                fg_putf(p->o, "%" PRId64 "..", info->usual);
            put_bound(p->o, info->hi, INT64_MAX);
            if (replaced) {
                fg_puts(p->o, " is ");
                fg_put_expr(p->o, ex, fg_e_renew(ex, info->is));
            }
            fg_putc(p->o, '\n');
        }
}

static void
put_weights(printer *p)
{
    for (int k = 0; k < p->m->nweight; k++) {
        const fg_weight *w = &p->m->weight[k];
        if (p->weight[k] < 0)
            continue;
        fg_putf(p->o, "$%d = ", p->weight[k]);
        if (w->file && (w->bytes > MAX_LITERAL || !w->data)) {
            fg_put_weight_type(p->o, w);
            fg_puts(p->o, " file ");
            fg_put_quoted(p->o, w->file);
            fg_putf(p->o, "+%" PRIu64, w->file_offset);
        } else {
            fg_put_literal(p->o, w);
        }
        if (w->name) {
            fg_puts(p->o, "  !");
            fg_put_quoted(p->o, w->name);
        }
        fg_putc(p->o, '\n');
    }
}

static bool
plain_ports(const fg_module *m, const fg_port *port, int n)
{
    for (int k = 0; k < n; k++)
        if (!port[k].reg || strcmp(port[k].name, m->reg[port[k].reg].name))
            return false;
    return true;
}

static void
put_ports(printer *p)
{
    const fg_module *m = p->m;
    bool inputs = !plain_ports(m, m->input, m->ninput);
    for (int k = 0; k < m->ninput; k++)
        inputs |= m->input[k].weight >= 0;
    bool outputs = !plain_ports(m, m->output, m->noutput);
    for (int k = 0; inputs && k < m->ninput; k++) {
        fg_puts(p->o, "input ");
        fg_put_quoted(p->o, m->input[k].name);
        fg_putc(p->o, ' ');
        put_reg(p, m->input[k].reg);
        if (m->input[k].weight >= 0)
            fg_putf(p->o, " = $%d", weight_number(p, m->input[k].weight));
        fg_putc(p->o, '\n');
    }
    for (int k = 0; outputs && k < m->noutput; k++) {
        fg_puts(p->o, "output ");
        fg_put_quoted(p->o, m->output[k].name);
        fg_putc(p->o, '\n');
    }
}

static void
put_states(printer *p)
{
    const fg_module *m = p->m;
    for (int k = 0; k < m->nstate; k++) {
        const fg_state *s = &m->state[k];
        fg_puts(p->o, "state ");
        fg_put_quoted(p->o, m->input[s->input].name);
        fg_puts(p->o, " -> ");
        fg_put_quoted(p->o, m->output[s->output].name);
        if (s->axis >= 0)
            fg_putf(p->o, " {axis=%d", s->axis);
        if (s->length != FG_E_BAD) {
            fg_puts(p->o, ", length=");
            fg_put_expr(p->o, m->ex, s->length);
            fg_puts(p->o, ", next=");
            fg_put_expr(p->o, m->ex, s->next);
        }
        if (s->at != FG_E_BAD) {
            fg_puts(p->o, ", at=");
            fg_put_expr(p->o, m->ex, s->at);
            fg_putf(p->o, ", keep=%" PRId64, s->keep);
        }
        fg_puts(p->o, s->axis >= 0 ? "}\n" : "\n");
    }
}

void
fg_print(fg_text *o, fg_module *m)
{
    named n = find_named(m, o->a);
    printer p = {o, m, n.weight};
    size_t start = o->n;
    if (m->name && *m->name) {
        fg_puts(o, "module ");
        fg_put_quoted(o, m->name);
        fg_putc(o, '\n');
    }
    if (m->stage != FG_STAGE_TENSOR)
        fg_putf(o, "stage %s\n", fg_stage_text[m->stage]);
    put_symbols(&p, n.symbol);
    put_weights(&p);
    put_ports(&p);
    put_states(&p);
    fg_puts(o, o->n > start ? "\nfunc @main" : "func @main");
    put_params(&p, m->body, 0);
    const fg_inst *last = m->body->last;
    for (int k = 0; last && last->op == FG_OP_ret && k < last->nin; k++) {
        fg_puts(o, k ? ", " : " -> ");
        fg_put_type(o, m->ex, fg_rt(m, last->in[k]));
    }
    fg_puts(o, " {\n");
    put_block(&p, m->body, 1);
    fg_puts(o, "}\n");
}
