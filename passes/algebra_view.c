/* algebra_view.c - rules of views, joins and reductions that only move elements.
 *
 *     transpose(transpose %x {perm=[0,2,1]}) {perm=[0,2,1]} => %x
 *     slice(concat %a, %b) of what came from %b              => slice %b
 *     add %x, (expand %y)                                    => add %x, %y
 *
 * Each function is one rule of the table at the end; the law is in algebra.h.
 */
#include "passes/algebra.h"

static bool
single(fg_module *m, fg_reg r)
{
    return fg_e_is(m->ex, fg_type_count(m->ex, fg_rt(m, r)), 1);
}

/* ---- reshape, transpose, expand ---------------------------------------------------- */

static fg_reg
to_own_type(fg_build *b, fg_inst *i)
{
    return fg_same_type(b->m, i, i->in[0]);
}

static fg_reg
reshape_twice(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_reshape);
    const fg_type *t = fg_rt(b->m, i->out[0]);
    return d ? fg_emit_reshape(b, d->in[0], t->rank, t->dim) : 0;
}

/* Any view of one element repeated is that element repeated. */
static fg_reg
view_of_splat(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_expand);
    const fg_type *t = fg_rt(b->m, i->out[0]);
    if (!d || !single(b->m, d->in[0]))
        return 0;
    return fg_emit_expand(b, fg_emit_reshape(b, d->in[0], 0, NULL), t->rank, t->dim);
}

static fg_reg
transpose_nothing(fg_build *b, fg_inst *i)
{
    const fg_attr *p = &FG_GET(i, transpose, perm);
    for (int k = 0; k < p->n; k++)
        if (p->is[k] != k)
            return 0;
    return fg_same_type(b->m, i, i->in[0]);
}

static fg_reg
transpose_twice(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_transpose);
    int64_t perm[FG_MAXRANK];
    if (!d)
        return 0;
    for (int k = 0; k < fg_rt(b->m, i->out[0])->rank; k++)
        perm[k] = FG_GET(d, transpose, perm).is[FG_GET(i, transpose, perm).is[k]];
    return fg_emit_transpose(b, d->in[0], perm);
}

static fg_reg
expand_twice(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_expand);
    const fg_type *t = fg_rt(b->m, i->out[0]);
    return d ? fg_emit_expand(b, d->in[0], t->rank, t->dim) : 0;
}

/* A reshape that only adds leading axes of size 1 does nothing that expand does not. */
static fg_reg
leading_ones(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_reshape);
    const fg_type *t = fg_rt(b->m, i->out[0]);
    if (!d)
        return 0;
    const fg_type *x = fg_rt(b->m, d->in[0]), *y = fg_rt(b->m, i->in[0]);
    int lead = y->rank - x->rank;
    if (lead <= 0 || memcmp(x->dim, y->dim + lead, sizeof *x->dim * x->rank))
        return 0;
    return fg_emit_expand(b, d->in[0], t->rank, t->dim);
}

/* Axes of x that each axis of y is made of, when y merges neighbours; group[k] is the
 * first. */
static bool
merged_groups(fg_exprs *ex, const fg_type *x, const fg_type *y, int *group)
{
    int at = 0;
    for (int k = 0; k < y->rank; k++) {
        fg_expr n = fg_ec(ex, 1);
        group[k] = at;
        do {
            if (at == x->rank)
                return false;
            n = fg_emul(ex, n, x->dim[at++]);
        } while (n != y->dim[k]);
    }
    group[y->rank] = at;
    return at == x->rank;
}

/* [B,H,T,D] -> [B H,T,D] -> [B H,D,T] -> [B,H,D,T] is a transpose of the whole. */
static fg_reg
heads_turned(fg_build *b, fg_inst *i)
{
    fg_inst *t = fg_operand_def(b->m, i, 0, FG_OP_transpose);
    fg_inst *r = t ? fg_operand_def(b->m, t, 0, FG_OP_reshape) : NULL;
    int group[FG_MAXRANK + 1], n = 0;
    int64_t perm[FG_MAXRANK];
    if (!r)
        return 0;
    const fg_type *x = fg_rt(b->m, r->in[0]), *y = fg_rt(b->m, i->out[0]);
    if (!merged_groups(b->m->ex, x, fg_rt(b->m, r->out[0]), group))
        return 0;
    for (int k = 0; k < fg_rt(b->m, t->out[0])->rank; k++) {
        int64_t from = FG_GET(t, transpose, perm).is[k];
        for (int a = group[from]; a < group[from + 1]; a++)
            perm[n++] = a;
    }
    bool same = y->rank == n;
    for (int k = 0; same && k < n; k++)
        same = y->dim[k] == x->dim[perm[k]];
    return same ? fg_emit_transpose(b, r->in[0], perm) : 0;
}

/* ---- expand beside elementwise operations ------------------------------------------ */

/* op(expand x) = expand(op x), also beside single elements. */
static fg_reg
op_of_expand(fg_build *b, fg_inst *i)
{
    const fg_type *t = fg_rt(b->m, i->out[0]);
    fg_reg in[FG_MAXOPERANDS];
    int at = -1;
    if (!fg_op_is(i->op, FG_T_ELEM) || i->nin > FG_MAXOPERANDS)
        return 0;
    for (int k = 0; k < i->nin; k++) {
        in[k] = i->in[k];
        if (single(b->m, in[k]) && fg_rt(b->m, in[k])->rank == 0)
            continue;
        fg_inst *d = fg_operand_def(b->m, i, k, FG_OP_expand);
        if (!d || at >= 0)
            return 0;
        at = k;
        in[k] = d->in[0];
    }
    return at < 0 ? 0 : fg_emit_expand(b, fg_emit_again(b, i, in), t->rank, t->dim);
}

/* The shape that operands broadcast to, when no symbol has to be solved for that. */
static bool
broadcast_is(fg_module *m, const fg_reg *in, int n, const fg_type *want)
{
    int rank = 0;
    for (int k = 0; k < n; k++)
        rank = fg_rt(m, in[k])->rank > rank ? fg_rt(m, in[k])->rank : rank;
    if (rank != want->rank)
        return false;
    for (int a = 0; a < want->rank; a++) {
        bool reached = false;
        for (int k = 0; k < n; k++) {
            const fg_type *t = fg_rt(m, in[k]);
            int d = a - (want->rank - t->rank);
            if (d < 0 || t->rank > want->rank)
                continue;
            reached |= t->dim[d] == want->dim[a];
            if (t->dim[d] != want->dim[a] && !fg_e_is(m->ex, t->dim[d], 1))
                return false;
        }
        if (!reached && !fg_e_is(m->ex, want->dim[a], 1))
            return false;
    }
    return true;
}

/* op(x, expand y) = op(x, y) when x alone has the shape. */
static fg_reg
operand_expanded(fg_build *b, fg_inst *i)
{
    fg_reg in[FG_MAXOPERANDS];
    if (!fg_op_is(i->op, FG_T_ELEM) || i->nin < 2 || i->nin > FG_MAXOPERANDS)
        return 0;
    bool any = false;
    memcpy(in, i->in, sizeof *in * (size_t)i->nin);
    for (int k = 0; k < i->nin; k++) {
        fg_inst *d = fg_operand_def(b->m, i, k, FG_OP_expand);
        if (!d)
            continue;
        in[k] = d->in[0];
        if (broadcast_is(b->m, in, i->nin, fg_rt(b->m, i->out[0])))
            any = true;
        else
            in[k] = i->in[k];
    }
    return any ? fg_emit_again(b, i, in) : 0;
}

/* ---- slice ------------------------------------------------------------------------- */

static fg_reg
slice_whole(fg_build *b, fg_inst *i)
{
    const fg_attr *start = &FG_GET(i, slice, start), *step = &FG_GET(i, slice, step);
    for (int k = 0; k < start->n; k++) {
        bool one = fg_e_is(b->m->ex, fg_rt(b->m, i->out[0])->dim[k], 1);
        if (!fg_e_is(b->m->ex, start->es[k], 0) || (step->is[k] != 1 && !one))
            return 0;
    }
    return fg_same_type(b->m, i, i->in[0]);
}

static fg_reg
slice_twice(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_slice);
    fg_exprs *ex = b->m->ex;
    fg_expr start[FG_MAXRANK];
    int64_t step[FG_MAXRANK];
    if (!d)
        return 0;
    const fg_attr *s1 = &FG_GET(d, slice, start), *t1 = &FG_GET(d, slice, step);
    const fg_attr *s2 = &FG_GET(i, slice, start), *t2 = &FG_GET(i, slice, step);
    for (int k = 0; k < s1->n; k++) {
        start[k] = fg_eadd(ex, s1->es[k], fg_emul(ex, s2->es[k], fg_ec(ex, t1->is[k])));
        if (start[k] == FG_E_BAD ||
            __builtin_mul_overflow(t1->is[k], t2->is[k], &step[k]))
            return 0;
    }
    return fg_emit_slice(b, d->in[0], start, step, fg_rt(b->m, i->out[0])->dim);
}

static fg_reg
slice_of_concat(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_concat);
    fg_exprs *ex = b->m->ex;
    if (!d)
        return 0;
    const fg_attr *s = &FG_GET(i, slice, start), *t = &FG_GET(i, slice, step);
    const fg_type *y = fg_rt(b->m, i->out[0]);
    int64_t axis = FG_GET(d, concat, axis).i;
    if (t->is[axis] < 1)
        return 0;
    fg_expr span =
        fg_emul(ex, fg_esub(ex, y->dim[axis], fg_ec(ex, 1)), fg_ec(ex, t->is[axis]));
    fg_expr end = fg_eadd(ex, fg_eadd(ex, s->es[axis], span), fg_ec(ex, 1));
    fg_expr at = fg_ec(ex, 0), start[FG_MAXRANK];
    for (int k = 0; k < d->nin; k++) {
        fg_expr next = fg_eadd(ex, at, fg_rt(b->m, d->in[k])->dim[axis]);
        if (fg_e_le(ex, at, s->es[axis]) && fg_e_le(ex, end, next)) {
            memcpy(start, s->es, sizeof *start * (size_t)s->n);
            start[axis] = fg_esub(ex, start[axis], at);
            return fg_emit_slice(b, d->in[k], start, t->is, y->dim);
        }
        at = next;
    }
    return 0;
}

static fg_reg
slice_of_iota(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_iota);
    fg_exprs *ex = b->m->ex;
    if (!d)
        return 0;
    int64_t step = FG_GET(d, iota, step).i, t = FG_GET(i, slice, step).is[0];
    fg_expr from = FG_GET(d, iota, start).e;
    fg_expr skip = fg_emul(ex, FG_GET(i, slice, start).es[0], fg_ec(ex, step));
    from = from == FG_E_BAD ? skip : fg_eadd(ex, from, skip);
    if (from == FG_E_BAD || __builtin_mul_overflow(step, t, &step))
        return 0;
    return fg_emit_iota(b, fg_rt(b->m, i->out[0])->dim[0], from, step,
                        (fg_dtype)fg_rt(b->m, i->out[0])->dtype);
}

/* iota + e is an iota that starts later. */
static fg_reg
iota_shifted(fg_build *b, fg_inst *i)
{
    for (int k = 0; k < 2; k++) {
        fg_inst *d = fg_operand_def(b->m, i, k, FG_OP_iota);
        const fg_reginfo *c = fg_ri(b->m, i->in[1 - k]);
        if (!d || !c->sym || c->nsym != 1 || !fg_same_type(b->m, i, i->in[k]) ||
            fg_is_float((fg_dtype)c->type.dtype) || (i->op == FG_OP_sub && k))
            continue;
        fg_expr from = FG_GET(d, iota, start).e, e = c->sym[0];
        if (from == FG_E_BAD)
            from = fg_ec(b->m->ex, 0);
        from =
            i->op == FG_OP_sub ? fg_esub(b->m->ex, from, e) : fg_eadd(b->m->ex, from, e);
        if (from != FG_E_BAD)
            return fg_emit_iota(b, FG_GET(d, iota, n).e, from, FG_GET(d, iota, step).i,
                                (fg_dtype)c->type.dtype);
    }
    return 0;
}

/* ---- concat, pad, reductions ------------------------------------------------------- */

/* Operands of a concat, nested ones on the same axis opened and empty ones dropped. */
static int
opened(fg_module *m, const fg_inst *i, fg_reg *in, int max)
{
    int64_t axis = FG_GET(i, concat, axis).i;
    int n = 0;
    for (int k = 0; k < i->nin; k++) {
        fg_inst *d = fg_operand_def(m, i, k, FG_OP_concat);
        bool nested = d && FG_GET(d, concat, axis).i == axis;
        const fg_reg *from = nested ? d->in : &i->in[k];
        for (int j = 0; j < (nested ? d->nin : 1); j++) {
            if (fg_e_is(m->ex, fg_rt(m, from[j])->dim[axis], 0))
                continue;
            if (n == max)
                return 0;
            in[n++] = from[j];
        }
    }
    return n;
}

static fg_reg
concat_opened(fg_build *b, fg_inst *i)
{
    fg_reg in[256];
    int n = opened(b->m, i, in, 256);
    if (n == 0 || (n == i->nin && !memcmp(in, i->in, sizeof *in * (size_t)n)))
        return 0;
    return fg_emit_concat(b, n, in, (int)FG_GET(i, concat, axis).i);
}

/* Does slice y go on along axis where slice x ends? */
static bool
adjoins(fg_module *m, const fg_inst *x, const fg_inst *y, int64_t axis)
{
    const fg_attr *sx = &FG_GET(x, slice, start), *sy = &FG_GET(y, slice, start);
    const fg_attr *tx = &FG_GET(x, slice, step), *ty = &FG_GET(y, slice, step);
    if (x->in[0] != y->in[0] || memcmp(tx->is, ty->is, sizeof *tx->is * (size_t)tx->n))
        return false;
    for (int k = 0; k < sx->n; k++) {
        fg_expr size =
            fg_emul(m->ex, fg_rt(m, x->out[0])->dim[k], fg_ec(m->ex, tx->is[k]));
        if (sy->es[k] != (k == axis ? fg_eadd(m->ex, sx->es[k], size) : sx->es[k]))
            return false;
    }
    return true;
}

static fg_reg
concat_of_neighbours(fg_build *b, fg_inst *i)
{
    int64_t axis = FG_GET(i, concat, axis).i;
    for (int k = 0; k + 1 < i->nin; k++) {
        fg_inst *x = fg_operand_def(b->m, i, k, FG_OP_slice);
        fg_inst *y = fg_operand_def(b->m, i, k + 1, FG_OP_slice);
        if (!x || !y || !adjoins(b->m, x, y, axis))
            continue;
        fg_type t = *fg_rt(b->m, i->in[k]);
        t.dim[axis] =
            fg_eadd(b->m->ex, t.dim[axis], fg_rt(b->m, i->in[k + 1])->dim[axis]);
        fg_reg *in = FG_NEWN(b->m->a, fg_reg, (size_t)i->nin);
        memcpy(in, i->in, sizeof *in * (size_t)i->nin);
        in[k] = fg_emit_slice(b, x->in[0], FG_GET(x, slice, start).es,
                              FG_GET(x, slice, step).is, t.dim);
        memmove(in + k + 1, in + k + 2, sizeof *in * (size_t)(i->nin - k - 2));
        return fg_emit_concat(b, i->nin - 1, in, (int)axis);
    }
    return 0;
}

static fg_reg
pad_crops(fg_build *b, fg_inst *i)
{
    const fg_attr *before = &FG_GET(i, pad, before), *after = &FG_GET(i, pad, after);
    fg_exprs *ex = b->m->ex;
    fg_expr start[FG_MAXRANK];
    int64_t one[FG_MAXRANK];

    for (int k = 0; k < before->n; k++) {
        if (fg_e_hi(ex, before->es[k]) > 0 || fg_e_hi(ex, after->es[k]) > 0)
            return 0;
        start[k] = fg_esub(ex, fg_ec(ex, 0), before->es[k]);
        one[k] = 1;
    }
    return fg_emit_slice(b, i->in[0], start, one, fg_rt(b->m, i->out[0])->dim);
}

/* Over no axes, or over axes of size 1. */
static fg_reg
reduce_one(fg_build *b, fg_inst *i)
{
    const fg_type *x = fg_rt(b->m, i->in[0]), *y = fg_rt(b->m, i->out[0]);
    for (int k = 0; k < i->attr[0].n; k++)
        if (!fg_e_is(b->m->ex, x->dim[i->attr[0].is[k]], 1))
            return 0;
    return fg_emit_reshape(b, i->in[0], y->rank, y->dim);
}

/* A product over an inner size of 1 is the product of a column and a row. */
static fg_reg
matmul_outer(fg_build *b, fg_inst *i)
{
    fg_exprs *ex = b->m->ex;
    fg_type x = *fg_rt(b->m, i->in[0]), y = *fg_rt(b->m, i->in[1]);
    bool ta = FG_GET(i, matmul, trans_a).i != 0, tb = FG_GET(i, matmul, trans_b).i != 0;
    if (!fg_e_is(ex, x.dim[x.rank - 1 - ta], 1) || FG_GET(i, matmul, round).i)
        return 0;
    fg_expr m = x.dim[x.rank - 2 + ta], n = y.dim[y.rank - 1 - tb];
    x.dim[x.rank - 2] = m;
    x.dim[x.rank - 1] = y.dim[y.rank - 2] = fg_ec(ex, 1);
    y.dim[y.rank - 1] = n;
    return fg_emit2(b, FG_OP_mul, fg_emit_reshape(b, i->in[0], x.rank, x.dim),
                    fg_emit_reshape(b, i->in[1], y.rank, y.dim));
}

/* clang-format off */
const fg_rule fg_rules_view[] = {
    FG_RULE(reshape,     to_own_type,          NOWHERE, "to its own shape")
    FG_RULE(reshape,     reshape_twice,        NOWHERE, "reshape(reshape x)")
    FG_RULE(reshape,     view_of_splat,        NOWHERE, "of one element repeated")
    FG_RULE(reshape,     heads_turned,         NOWHERE, "axes merged, moved, split again")
    FG_RULE(transpose,   view_of_splat,        NOWHERE, "of one element repeated")
    FG_RULE(slice,       view_of_splat,        NOWHERE, "of one element repeated")
    FG_RULE(transpose,   transpose_nothing,    NOWHERE, "axes in place")
    FG_RULE(transpose,   transpose_twice,      NOWHERE, "permutations compose")
    FG_RULE(expand,      to_own_type,          NOWHERE, "to its own shape")
    FG_RULE(expand,      expand_twice,         NOWHERE, "expand(expand x)")
    FG_RULE(expand,      leading_ones,         NOWHERE, "expand(reshape to [1,..])")
    FG_RULE(slice,       slice_whole,          NOWHERE, "all of x")
    FG_RULE(slice,       slice_twice,          NOWHERE, "slice(slice x)")
    FG_RULE(slice,       slice_of_concat,      NOWHERE, "within one operand")
    FG_RULE(slice,       slice_of_iota,        NOWHERE, "a shorter iota")
    FG_RULE(add,         iota_shifted,         NOWHERE, "iota + e")
    FG_RULE(sub,         iota_shifted,         NOWHERE, "iota - e")
    FG_RULE(concat,      concat_opened,        NOWHERE, "nested or empty operands")
    FG_RULE(concat,      concat_of_neighbours, NOWHERE, "neighbouring slices of one")
    FG_RULE(pad,         pad_crops,            NOWHERE, "by 0 or less = slice")
    FG_RULE(reduce_sum,  reduce_one,           NOWHERE, "over axes of size 1")
    FG_RULE(reduce_mean, reduce_one,           NOWHERE, "over axes of size 1")
    FG_RULE(reduce_prod, reduce_one,           NOWHERE, "over axes of size 1")
    FG_RULE(reduce_max,  reduce_one,           NOWHERE, "over axes of size 1")
    FG_RULE(reduce_min,  reduce_one,           NOWHERE, "over axes of size 1")
    FG_RULE(matmul,      matmul_outer,         ZERO_SIGN, "over one product")
    FG_RULE(NONE,        op_of_expand,         NOWHERE, "expand after, not before")
    FG_RULE(NONE,        operand_expanded,     NOWHERE, "op(x, expand y) = op(x, y)")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};
/* clang-format on */
