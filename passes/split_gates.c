/* split_gates.c - one product that holds gate and value of a gated unit becomes two.
 *
 *     %p = matmul %x, %w : [S,2N]           %g = matmul %x, slice %w {0..N}
 *     %g = slice %p {0..N}             =>   %v = matmul %x, slice %w {N..2N}
 *     %v = slice %p {N..2N}                 %y = mul (silu %g), %v
 *     %y = mul (silu %g), %v
 *
 * A column of a product depends on that column of its right side alone, so the slice may
 * be taken there, where it is a view of a weight. As two, the products are computed in
 * step by one kernel and what lies between is never in memory; as one, the halves would
 * have to be: they lie in columns far apart. Only done when the halves meet in one
 * elementwise instruction and nobody else reads the product.
 */
#include "passes/split_gates.h"

typedef struct splitter {
    fg_module *m;
    fg_passctx *cx;
    uint32_t *uses;
    uint32_t nuses;
    bool changed;
} splitter;

static bool
sole_use(const splitter *s, fg_reg r)
{
    return r < s->nuses && s->uses[r] == 1;
}

/* The slice that r is made of by elementwise instructions of one operand each. */
static fg_inst *
slice_behind(const splitter *s, fg_reg r)
{
    fg_inst *i = fg_def(s->m, r);
    while (i && fg_op_is(i->op, FG_T_ELEM) && i->nin == 1 && sole_use(s, i->out[0]))
        i = fg_def(s->m, i->in[0]);
    return fg_is_op(i, FG_OP_slice) && sole_use(s, i->out[0]) ? i : NULL;
}

/* It takes a run of the last axis and all of the others. */
static bool
takes_columns(const splitter *s, const fg_inst *slice)
{
    const fg_type *from = fg_rt(s->m, slice->in[0]), *to = fg_rt(s->m, slice->out[0]);
    const fg_attr *step = &FG_GET(slice, slice, step);
    for (int k = 0; k < to->rank; k++)
        if (step->is[k] != 1 || (k + 1 < to->rank && to->dim[k] != from->dim[k]))
            return false;
    return true;
}

static bool
same_dims(const fg_type *a, const fg_type *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, a->rank * sizeof *a->dim);
}

static fg_expr
first_column(const fg_inst *slice)
{
    const fg_attr *start = &FG_GET(slice, slice, start);
    return start->es[start->n - 1];
}

static fg_expr
columns(const splitter *s, const fg_inst *slice)
{
    const fg_type *t = fg_rt(s->m, slice->out[0]);
    return t->dim[t->rank - 1];
}

/* The right side can be had without the other columns: of matrices any, of panels whole
 * ones. */
static bool
can_split(const splitter *s, const fg_inst *product, const fg_inst *slice)
{
    const fg_type *w = fg_rt(s->m, product->in[1]);
    fg_exprs *ex = s->m->ex;
    int64_t width;
    if (product->op == FG_OP_matmul)
        return true;
    return product->op == FG_OP_matmul_panels && fg_e_const(ex, w->dim[2], &width) &&
           fg_e_divides(ex, width, first_column(slice)) &&
           fg_e_divides(ex, width, columns(s, slice));
}

static fg_reg
product_of_columns(fg_build *b, const fg_inst *product, fg_expr from, fg_expr n)
{
    fg_exprs *ex = b->m->ex;
    fg_reg in[2] = {product->in[0]};
    if (product->op == FG_OP_matmul) {
        bool trans_a = FG_GET(product, matmul, trans_a).i;
        bool trans_b = FG_GET(product, matmul, trans_b).i;
        int last = fg_rt(b->m, product->in[1])->rank - 1;
        in[1] = fg_emit_slice_axis(b, product->in[1], last - trans_b, from, n);
        return fg_emit_matmul_rounded(b, in[0], in[1], trans_a, trans_b,
                                      FG_GET(product, matmul, round).i);
    }
    fg_expr width = fg_rt(b->m, product->in[1])->dim[2];
    in[1] = fg_emit_slice_axis(b, product->in[1], 0, fg_ediv(ex, from, width),
                               fg_ediv(ex, n, width));
    fg_inst *y = in[1] ? fg_inst_begin(b, FG_OP_matmul_panels, 2, in) : NULL;
    if (!y)
        return 0;
    FG_SET(y, matmul_panels, n).e = n;
    y = fg_inst_finish(b, y, NULL, 0);
    return y ? y->out[0] : 0;
}

/* The product of these columns only, in place of the slice. */
static void
split(splitter *s, fg_inst *slice, const fg_inst *product)
{
    fg_build b = fg_build_before(slice);
    fg_build_add_nodes(&b, product);
    fg_reg y = product_of_columns(&b, product, first_column(slice), columns(s, slice));
    if (y)
        fg_replace_uses(slice->block, slice->out[0], y);
}

static void
try_split(splitter *s, fg_inst *i)
{
    fg_inst *g = slice_behind(s, i->in[0]), *v = slice_behind(s, i->in[1]);
    fg_inst *p = g && v && g != v && g->in[0] == v->in[0] ? fg_def(s->m, g->in[0]) : NULL;
    if (!p || p->out[0] >= s->nuses || s->uses[p->out[0]] != 2 || p->block != i->block ||
        g->block != i->block || v->block != i->block)
        return;
    if (!can_split(s, p, g) || !can_split(s, p, v) || !takes_columns(s, g) ||
        !takes_columns(s, v) ||
        !same_dims(fg_rt(s->m, g->out[0]), fg_rt(s->m, v->out[0])))
        return;
    split(s, g, p);
    split(s, v, p);
    s->changed = true;
    fg_report_fusion(s->cx->report, "gate and value of one product");
}

static void
walk(splitter *s, fg_block *b)
{
    fg_each_inst(b, i) {
        if (i->nin == 2 && fg_op_is(i->op, FG_T_ELEM))
            try_split(s, i);
        for (int k = 0; k < i->nregion; k++)
            walk(s, i->region[k]);
    }
}

bool
fg_split_gates(fg_module *m, fg_passctx *cx)
{
    splitter s = {m, cx, fg_count_uses(m, cx->scratch), m->nreg, false};
    walk(&s, m->body);
    return s.changed;
}
