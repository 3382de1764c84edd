/* layout.c - fold transposes into products, move views to where they cancel.
 *
 *     %t = transpose %w {perm=[1,0]}
 *     %y = matmul %x, %t               =>    %y = matmul %x, %w {trans_b=1}
 *
 *     %f = reshape %x : [B*S,K]
 *     %g = matmul %f, %w               =>    %h = matmul %x, %w : [B,S,N]
 *     %h = reshape %g : [B,S,N]
 *
 * Both sides of a rule compute the same elements in the same order of additions; only
 * what is a view changes. A transpose in front of a product goes when the product can
 * read its operand turned; it is changed so that the innermost axis in memory stays last.
 * Reshapes sink below products and elementwise operations until they meet another.
 */
#include "passes/algebra.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

typedef struct layout {
    fg_module *m;
    fg_rewrite w;
    fg_report *report;
    const uint32_t *uses; /* of the registers known at the start */
    uint32_t nuses;
    int64_t steps; /* left: rules that undo each other must end */
} layout;

typedef fg_reg rule_fn(layout *l, fg_build *b, fg_inst *i);

static bool
sole_use(const layout *l, fg_reg r)
{
    return r < l->nuses && l->uses[r] == 1;
}

static fg_inst *
operand(const layout *l, const fg_inst *i, int k, fg_op op)
{
    fg_inst *d = i && k < i->nin ? fg_def(l->m, i->in[k]) : NULL;
    return fg_is_op(d, op) ? d : NULL;
}

/* ---- transposes and products ------------------------------------------------------- */

/* The source's innermost axis is the last but one: the product can turn it back. */
static fg_reg
turned_operand(layout *l, fg_build *b, fg_inst *i)
{
    for (int k = 0; k < 2; k++) {
        fg_inst *t = operand(l, i, k, FG_OP_transpose);
        if (!t)
            continue;
        const fg_attr *p = &FG_GET(t, transpose, perm);
        int64_t perm[FG_MAXRANK];
        int last = p->n - 1;
        if (p->is[last - 1] != last)
            continue;
        memcpy(perm, p->is, sizeof *perm * (size_t)p->n);
        perm[last - 1] = p->is[last];
        perm[last] = last;
        fg_reg in[2] = {i->in[0], i->in[1]};
        in[k] = fg_emit_transpose(b, t->in[0], perm);
        return fg_emit_matmul_rounded(
            b, in[0], in[1], (FG_GET(i, matmul, trans_a).i != 0) != (k == 0),
            (FG_GET(i, matmul, trans_b).i != 0) != (k == 1), FG_GET(i, matmul, round).i);
    }
    return 0;
}

/* The transpose of a product nobody else reads is the product of the transposes. */
static fg_reg
turned_product(layout *l, fg_build *b, fg_inst *i)
{
    fg_inst *d = operand(l, i, 0, FG_OP_matmul);
    const fg_attr *p = &FG_GET(i, transpose, perm);
    if (!d || !sole_use(l, i->in[0]) || FG_GET(d, matmul, round).i)
        return 0;
    for (int k = 0; k < p->n; k++)
        if (p->is[k] != (k < p->n - 2 ? k : 2 * p->n - 3 - k))
            return 0;
    return fg_emit_matmul(b, d->in[1], d->in[0], !FG_GET(d, matmul, trans_b).i,
                          !FG_GET(d, matmul, trans_a).i);
}

/* ---- transposes and elementwise operations ----------------------------------------- */

/* transpose(op(transpose x, 1)) = op(transpose(transpose x), 1), where that is x again
 * for every operand, or there is only one. */
static fg_reg
transpose_through(layout *l, fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_def(l->m, i->in[0]);
    const fg_attr *p = &FG_GET(i, transpose, perm);
    fg_reg in[FG_MAXOPERANDS];
    if (!d || !fg_op_is(d->op, FG_T_ELEM) || d->nin > FG_MAXOPERANDS ||
        !sole_use(l, i->in[0]))
        return 0;
    int turned = 0, kept = 0;
    int64_t perm[FG_MAXOPERANDS][FG_MAXRANK];
    for (int k = 0; k < d->nin; k++) {
        fg_inst *t = operand(l, d, k, FG_OP_transpose);
        in[k] = d->in[k];
        if (fg_rt(l->m, in[k])->rank == 0)
            continue;
        if (!t || fg_rt(l->m, in[k])->rank != p->n)
            return 0;
        bool identity = true;
        for (int a = 0; a < p->n; a++) {
            perm[k][a] = FG_GET(t, transpose, perm).is[p->is[a]];
            identity &= perm[k][a] == a;
        }
        in[k] = 0;
        turned++;
        kept += !identity;
    }
    if (!turned || (turned > 1 && kept))
        return 0;
    for (int k = 0; k < d->nin; k++)
        if (!in[k])
            in[k] = fg_emit_transpose(b, fg_def(l->m, d->in[k])->in[0], perm[k]);
    return fg_emit_again(b, d, in);
}

/* op(transpose x, transpose y) = transpose(op(x, y)) for one permutation. */
static fg_reg
transposes_joined(layout *l, fg_build *b, fg_inst *i)
{
    fg_inst *x = i->nin == 2 ? operand(l, i, 0, FG_OP_transpose) : NULL;
    fg_inst *y = x ? operand(l, i, 1, FG_OP_transpose) : NULL;
    if (!y || !fg_op_is(i->op, FG_T_ELEM) || !sole_use(l, i->in[0]) ||
        !sole_use(l, i->in[1]))
        return 0;
    const fg_attr *p = &FG_GET(x, transpose, perm), *q = &FG_GET(y, transpose, perm);
    if (p->n != q->n || memcmp(p->is, q->is, sizeof *p->is * (size_t)p->n))
        return 0;
    fg_reg in[2] = {x->in[0], y->in[0]};
    return fg_emit_transpose(b, fg_emit_again(b, i, in), p->is);
}

/* ---- transposes and lookups -------------------------------------------------------- */

/* transpose(gather(table, index)) = gather(transpose table, index), where the index's axes
 * stay together: what is looked up lies as its readers want it, and turning the table is
 * folded. Biases by relative position are written so. */
static fg_reg
turned_table(layout *l, fg_build *b, fg_inst *i)
{
    fg_inst *d = operand(l, i, 0, FG_OP_gather), *table = operand(l, d, 0, FG_OP_const);
    const fg_attr *p = &FG_GET(i, transpose, perm);
    int64_t perm[FG_MAXRANK];
    if (!table || !sole_use(l, i->in[0]) || !sole_use(l, d->in[0]))
        return 0;
    int64_t axis = FG_GET(d, gather, axis).i, n = fg_rt(l->m, d->in[1])->rank;
    int to = 0, at = 0;
    if (n < 1)
        return 0;
    while (p->is[to] != axis && to < p->n - 1)
        to++;
    for (int k = 0; k < p->n; k++) {
        bool looked = k >= to && k < to + n;
        if (looked && p->is[k] != axis + k - to)
            return 0;
        if (!looked || k == to)
            perm[at++] = p->is[k] < axis + n ? p->is[k] : p->is[k] - n + 1;
    }
    return fg_emit_gather(b, fg_emit_transpose(b, d->in[0], perm), d->in[1], to);
}

/* ---- reshapes ---------------------------------------------------------------------- */

/* Leading axes of x that stay when its last axes are merged to one of size n. */
static int
rows_rank(fg_exprs *ex, const fg_type *x, fg_expr n)
{
    fg_expr e = fg_ec(ex, 1);
    int k = x->rank;
    while (k > 0 && (k == x->rank || e != n))
        e = fg_emul(ex, e, x->dim[--k]);
    return e == n ? k : 0;
}

/* matmul(reshape x, w) = reshape(matmul(x, w)) when the reshape merges rows. */
static fg_reg
rows_through_product(layout *l, fg_build *b, fg_inst *i)
{
    fg_inst *r = operand(l, i, 0, FG_OP_reshape);
    if (!r || FG_GET(i, matmul, trans_a).i || fg_rt(l->m, i->in[1])->rank != 2 ||
        fg_rt(l->m, i->in[0])->rank != 2)
        return 0;
    fg_type x = *fg_rt(l->m, r->in[0]);
    const fg_type y = *fg_rt(l->m, i->out[0]);
    fg_expr inner = fg_rt(l->m, i->in[0])->dim[1];
    int lead = rows_rank(l->m->ex, &x, inner);
    if (lead < 2)
        return 0;
    x.dim[lead] = inner;
    fg_reg p = fg_emit_matmul_rounded(b, fg_emit_reshape(b, r->in[0], lead + 1, x.dim),
                                      i->in[1], false, FG_GET(i, matmul, trans_b).i != 0,
                                      FG_GET(i, matmul, round).i);
    return p ? fg_emit_reshape(b, p, y.rank, y.dim) : 0;
}

static bool
keeps_last_axis(const layout *l, const fg_inst *r)
{
    const fg_type *x = fg_rt(l->m, r->in[0]), *y = fg_rt(l->m, r->out[0]);
    return x->rank >= 1 && y->rank >= 1 && x->dim[x->rank - 1] == y->dim[y->rank - 1];
}

/* op(reshape x, bias) = reshape(op(x, bias)) when the reshape keeps the last axis and the
 * others span at most that, or are reshaped the same way. */
static fg_reg
reshape_through(layout *l, fg_build *b, fg_inst *i)
{
    fg_reg in[FG_MAXOPERANDS];
    const fg_inst *first = NULL;
    const fg_type y = *fg_rt(l->m, i->out[0]);
    if (!fg_op_is(i->op, FG_T_ELEM) || i->nin > FG_MAXOPERANDS)
        return 0;
    for (int k = 0; k < i->nin; k++) {
        const fg_type *t = fg_rt(l->m, i->in[k]);
        fg_inst *r = operand(l, i, k, FG_OP_reshape);
        in[k] = i->in[k];
        if (t->rank == 0 || (t->rank == 1 && y.rank > 1))
            continue;
        if (!r || !sole_use(l, i->in[k]) || t->rank != y.rank ||
            memcmp(t->dim, y.dim, sizeof *t->dim * t->rank) || !keeps_last_axis(l, r))
            return 0;
        const fg_type *x = fg_rt(l->m, r->in[0]),
                      *x0 = first ? fg_rt(l->m, first->in[0]) : x;
        if (x->rank < 2 || x->rank != x0->rank ||
            memcmp(x->dim, x0->dim, sizeof *x->dim * x->rank))
            return 0;
        first = first ? first : r;
        in[k] = r->in[0];
    }
    if (!first)
        return 0;
    fg_reg v = fg_emit_again(b, i, in);
    return v ? fg_emit_reshape(b, v, y.rank, y.dim) : 0;
}

/* Each rule's law, by which the report counts it. */
/* clang-format off */
static const struct { fg_op op; rule_fn *run; const char *law; } rules[] = {
    { FG_OP_matmul,    turned_operand,       "product reads a transpose" },
    { FG_OP_matmul,    rows_through_product, "rows of a product merged after it" },
    { FG_OP_transpose, turned_product,       "product of transposes" },
    { FG_OP_transpose, transpose_through,    "transpose before an operation" },
    { FG_OP_transpose, turned_table,         "table turned for its readers" },
    { FG_OP_NONE,      transposes_joined,    "transposes after an operation" },
    { FG_OP_NONE,      reshape_through,      "reshape after an operation" },
};
/* clang-format on */

/* ---- the walk ---------------------------------------------------------------------- */

static bool
step(layout *l, fg_inst *i)
{
    fg_build b = fg_build_before(i);
    fg_reg fresh = l->m->nreg, x = 0;
    if (i->nout != 1)
        return false;
    for (size_t k = 0; !x && k < sizeof rules / sizeof *rules; k++) {
        if (rules[k].op == i->op || rules[k].op == FG_OP_NONE)
            x = rules[k].run(l, &b, i);
        if (x)
            fg_report_fusion(l->report, rules[k].law);
    }
    if (!x) /* views that met */
        x = fg_rules_apply(&b, i, fg_rules_view);
    if (x)
        fg_rewrite_replace(&l->w, i, x, fresh);
    return x != 0;
}

static void
walk(layout *l, fg_block *b)
{
    for (fg_inst *i = b->first, *next; i; i = next) {
        fg_inst *before = i->prev;
        next = i->next;
        fg_rewrite_operands(&l->w, i);
        if (l->steps > 0 && step(l, i)) {
            l->steps--; /* visit what took its place */
            next = before ? before->next : b->first;
            continue;
        }
        for (int k = 0; k < i->nregion; k++)
            walk(l, i->region[k]);
    }
}

fg_progress
fg_pass_layout(fg_module *m, fg_passctx *cx)
{
    layout l = {
        .m = m,
        .w = fg_rewrite_new(m, cx->scratch),
        .report = cx->report,
        .uses = fg_count_uses(m, cx->scratch),
        .nuses = m->nreg,
        .steps = 16 * ((int64_t)fg_inst_count(m->body) + 16),
    };
    int errors = m->cx->nerror;
    walk(&l, m->body);
    fg_rewrite_done(&l.w);
    if (m->cx->nerror > errors)
        return FG_FAILED;
    return l.w.changed ? FG_CHANGED : FG_SAME;
}
