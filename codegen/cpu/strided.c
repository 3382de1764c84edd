/* strided.c - chains of views as strides, and their inverse.
 *
 *     %1 = reshape %x : f32[B,S,12,64]        offset 0, strides [S*768, 768, 64, 1]
 *     %2 = transpose %1 {perm=[0,2,1,3]}      offset 0, strides [S*768, 64, 768, 1]
 *
 * Kernels with an emitter of their own read and write through strides, so that
 * splitting heads, slicing a cache or transposing a weight costs nothing.
 */
#include "codegen/cpu/strided.h"

static fg_strided
row_major(fg_exprs *t, const fg_type *ty)
{
    fg_strided v = {.dtype = ty->dtype, .rank = ty->rank, .offset = fg_ec(t, 0)};
    fg_expr stride = fg_ec(t, 1);
    for (int i = ty->rank; i-- > 0; stride = fg_emul(t, stride, ty->dim[i])) {
        v.dim[i] = ty->dim[i];
        v.stride[i] = stride;
    }
    return v;
}

void
fg_strided_swap(fg_strided *v, int a, int b)
{
    fg_expr dim = v->dim[a], stride = v->stride[a];
    v->dim[a] = v->dim[b];
    v->stride[a] = v->stride[b];
    v->dim[b] = dim;
    v->stride[b] = stride;
}

/* Old axes [i, i1) against new axes [j, j1), which hold equally many elements: the old
 * ones must be one run with a single stride, which the new ones then divide. */
static bool
regroup(fg_exprs *t, const fg_strided *old, int i, int i1, fg_strided *new, int j, int j1)
{
    fg_expr stride = i1 > i ? old->stride[i1 - 1] : fg_ec(t, 0);
    for (int k = i; k + 1 < i1; k++)
        if (old->stride[k] != fg_emul(t, old->stride[k + 1], old->dim[k + 1]))
            return false;
    for (int k = j1; k-- > j; stride = fg_emul(t, stride, new->dim[k]))
        new->stride[k] = stride;
    return true;
}

bool
fg_strided_reshape(fg_exprs *t, fg_strided *v, int rank, const fg_expr *dim)
{
    fg_strided old = *v, new = *v;
    old.rank = 0;
    for (int i = 0; i < v->rank; i++) /* axes of size 1 have no stride to keep */
        if (!fg_e_is(t, v->dim[i], 1)) {
            old.dim[old.rank] = v->dim[i];
            old.stride[old.rank++] = v->stride[i];
        }
    new.rank = rank;
    memcpy(new.dim, dim, (size_t)rank * sizeof *dim);

    /* Cut both where the sizes so far are equal. */
    int i = 0, j = 0;
    fg_expr in = fg_ec(t, 1);
    for (int i1 = 0; i1 <= old.rank; i1++) {
        fg_expr out = fg_ec(t, 1);
        int j1 = 0;
        while (j1 < rank && (out != in || j1 < j || fg_e_is(t, dim[j1], 1)))
            out = fg_emul(t, out, dim[j1++]);
        if (out == in && j1 >= j && (i1 > i || j1 > j)) {
            if (!regroup(t, &old, i, i1, &new, j, j1))
                return false;
            i = i1;
            j = j1;
        }
        if (i1 < old.rank)
            in = fg_emul(t, in, old.dim[i1]);
    }
    if (i != old.rank || j != rank)
        return false;
    *v = new;
    return true;
}

static void
view_slice(fg_em *e, const fg_inst *i, fg_strided *v)
{
    fg_exprs *t = e->m->ex;
    const fg_attr *start = &FG_GET(i, slice, start), *step = &FG_GET(i, slice, step);
    for (int k = 0; k < v->rank; k++) {
        fg_expr at = k < start->n ? start->es[k] : fg_ec(t, 0);
        int64_t by = k < step->n ? step->is[k] : 1;
        v->offset = fg_eadd(t, v->offset, fg_emul(t, at, v->stride[k]));
        v->stride[k] = fg_emul(t, v->stride[k], fg_ec(t, by));
    }
}

/* Axes of size 1 repeat: their stride becomes 0. */
static bool
view_expand(fg_em *e, const fg_type *to, fg_strided *v)
{
    fg_exprs *t = e->m->ex;
    fg_strided out = *v;
    out.rank = to->rank;
    for (int k = to->rank; k-- > 0;) {
        int from = k - (to->rank - v->rank);
        bool same = from >= 0 && v->dim[from] == to->dim[k];
        if (!same && from >= 0 && !fg_e_is(t, v->dim[from], 1))
            return false;
        out.dim[k] = to->dim[k];
        out.stride[k] = same ? v->stride[from] : fg_ec(t, 0);
    }
    *v = out;
    return true;
}

static bool
view_through(fg_em *e, const fg_inst *i, fg_strided *v)
{
    fg_exprs *t = e->m->ex;
    const fg_type *to = fg_rt(e->m, i->out[0]);
    switch (i->op) {
    case FG_OP_copy:
        return true;
    case FG_OP_transpose: {
        fg_strided in = *v;
        for (int k = 0; k < v->rank; k++) {
            int64_t from = FG_GET(i, transpose, perm).is[k];
            v->dim[k] = in.dim[from];
            v->stride[k] = in.stride[from];
        }
        return true;
    }
    case FG_OP_slice:
        view_slice(e, i, v);
        memcpy(v->dim, to->dim, to->rank * sizeof *v->dim);
        return true;
    case FG_OP_expand:
        return view_expand(e, to, v);
    case FG_OP_reshape:
        return fg_strided_reshape(t, v, to->rank, to->dim);
    default:
        return false;
    }
}

bool
fg_strided_of(fg_em *e, fg_reg r, fg_strided *v)
{
    int param = fg_em_param(e, r);
    if (param >= 0) {
        *v = row_major(e->m->ex, fg_rt(e->m, r));
        v->param = param;
        return true;
    }
    const fg_inst *i = fg_def(e->m, r);
    return i && fg_op_is(i->op, FG_T_VIEW) && fg_strided_of(e, i->in[0], v) &&
           view_through(e, i, v);
}

/* The operand of an elementwise instruction that is as large as its result: where the
 * data comes from. */
static fg_reg
main_operand(fg_em *e, const fg_inst *i)
{
    const fg_type *to = fg_rt(e->m, i->out[0]);
    for (int k = 0; k < i->nin; k++) {
        const fg_type *ty = i->in[k] ? fg_rt(e->m, i->in[k]) : NULL;
        if (ty && ty->rank == to->rank &&
            !memcmp(ty->dim, to->dim, to->rank * sizeof *to->dim))
            return i->in[k];
    }
    return 0;
}

bool
fg_strided_source(fg_em *e, fg_reg r, fg_strided *v)
{
    if (fg_strided_of(e, r, v))
        return true;
    const fg_inst *i = fg_def(e->m, r);
    if (!i || fg_em_param(e, r) >= 0)
        return false;
    if (fg_op_is(i->op, FG_T_VIEW))
        return fg_strided_source(e, i->in[0], v) && view_through(e, i, v);
    if (!fg_op_is(i->op, FG_T_ELEM) && i->op != FG_OP_dequantize)
        return false;
    fg_reg from = main_operand(e, i);
    return from && fg_strided_source(e, from, v);
}

bool
fg_varies(fg_em *e, fg_reg r, int axis)
{
    const fg_type *ty = fg_rt(e->m, r);
    if (fg_e_is(e->m->ex, ty->dim[axis], 1))
        return false;
    const fg_inst *i = fg_em_param(e, r) >= 0 ? NULL : fg_def(e->m, r);
    if (i && i->op == FG_OP_transpose)
        return fg_varies(e, i->in[0], (int)FG_GET(i, transpose, perm).is[axis]);
    if (!i || (!fg_op_is(i->op, FG_T_ELEM) && i->op != FG_OP_expand))
        return true;
    /* Operands are aligned from the right; an axis that one lacks is repeated. */
    for (int k = 0; k < i->nin; k++) {
        int at = axis - (ty->rank - fg_rt(e->m, i->in[k])->rank);
        if (at >= 0 && fg_varies(e, i->in[k], at))
            return true;
    }
    return false;
}

/* ---- forward -------------------------------------------------------------------- */

/* The operand of i that stems from `from` element by element; 0: none. */
static fg_reg
step_back(fg_em *e, fg_reg from, fg_reg r)
{
    const fg_inst *i = fg_def(e->m, r);
    if (!i || fg_em_param(e, r) >= 0)
        return 0;
    if (i->op == FG_OP_copy || i->op == FG_OP_transpose || i->op == FG_OP_reshape)
        return fg_forward_known(e, from, i->in[0]) ? i->in[0] : 0;
    if (!fg_op_is(i->op, FG_T_ELEM) && i->op != FG_OP_quantize &&
        i->op != FG_OP_dequantize)
        return 0;
    const fg_type *to = fg_rt(e->m, r);
    for (int k = 0; k < i->nin; k++) {
        const fg_type *ty = i->in[k] ? fg_rt(e->m, i->in[k]) : NULL;
        if (ty && fg_type_count(e->m->ex, ty) == fg_type_count(e->m->ex, to) &&
            fg_forward_known(e, from, i->in[k]))
            return i->in[k];
    }
    return 0;
}

bool
fg_forward_known(fg_em *e, fg_reg from, fg_reg to)
{
    return from == to || step_back(e, from, to) != 0;
}

void
fg_forward(fg_em *e, fg_reg from, fg_reg to, fg_index *ix)
{
    if (from == to)
        return;
    fg_reg back = step_back(e, from, to);
    fg_forward(e, from, back, ix);
    const fg_inst *i = fg_def(e->m, to);
    const fg_type *ty = fg_rt(e->m, to), *tb = fg_rt(e->m, back);
    if (i->op == FG_OP_transpose) {
        fg_index in[FG_MAXRANK];
        memcpy(in, ix, sizeof in);
        for (int k = 0; k < ty->rank; k++)
            ix[k] = in[FG_GET(i, transpose, perm).is[k]];
    } else if (ty->rank != tb->rank ||
               memcmp(ty->dim, tb->dim, ty->rank * sizeof *ty->dim)) {
        fg_ix_unlinear(e, ty->rank, ty->dim, fg_ix_linear(e, tb->rank, tb->dim, ix), ix);
    }
}
