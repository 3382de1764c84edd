/* ops.c - values, shapes and axis sets for the operator importers.
 *
 * Axes and sizes usually fold to constants. Where they are computed from data, the same
 * code works on expressions over run-time symbols: a flag per axis says whether it is
 * meant, and dims are sums of flag * dim.
 */
#include "frontend/ops.h"

/* Far beyond any size, far from overflow. */
#define FAR ((int64_t)1 << 40)

fg_reg
fg_num(fg_node *n, fg_reg like, double v)
{
    return like ? fg_emit_f(n->b, fg_elem(n, like), v) : 0;
}

fg_reg
fg_sym_scalar(fg_node *n, fg_expr e, fg_dtype to)
{
    fg_dtype hold = fg_is_int(to) ? to : FG_i64;

    return fg_emit_cast(n->b, fg_emit_symvec(n->b, 1, &e, hold, true), to);
}

fg_reg
fg_widen(fg_node *n, fg_reg x)
{
    fg_dtype d = x ? fg_elem(n, x) : FG_NODTYPE;

    return d == FG_f16 || d == FG_bf16 ? fg_emit_cast(n->b, x, FG_f32) : x;
}

fg_reg
fg_narrow(fg_node *n, fg_reg y, fg_reg like)
{
    return y && like ? fg_emit_cast(n->b, y, fg_elem(n, like)) : 0;
}

fg_reg
fg_scalar(fg_node *n, fg_reg r, const char *what)
{
    if (!r)
        return 0;
    for (int a = 0; a < fg_rank(n, r); a++) {
        int64_t d;
        if (fg_e_const(n->ex, fg_dim(n, r, a), &d) && d != 1) {
            fg_node_error(n, "%s must hold one element, not %s", what,
                          fg_type_text(n->m, fg_rt(n->m, r)));
            return 0;
        }
        if (!fg_e_is(n->ex, fg_dim(n, r, a), 1) && !fg_unify(n->m, fg_dim(n, r, a), fg_c(n, 1)))
            return 0;
    }
    return fg_emit_reshape(n->b, r, 0, NULL);
}

bool
fg_in_clamped(fg_node *n, int k, int64_t lo, int64_t hi, const fg_expr **v, int *count)
{
    fg_reg r = fg_need(n, k);
    int64_t len = 1;

    if (!r)
        return false;
    if (fg_in_exprs_opt(n, k, v, count))
        return true;
    if (fg_rank(n, r) > 1 || (fg_rank(n, r) == 1 && !fg_e_const(n->ex, fg_dim(n, r, 0), &len)))
        return fg_node_error(n, "operand %d must be a vector of known length, not %s", k,
                             fg_type_text(n->m, fg_rt(n->m, r)));
    if (len > FG_MAXSYM)
        return fg_node_error(n, "operand %d has %lld elements", k, (long long)len);
    lo = lo < -FAR ? -FAR : lo;
    hi = hi > FAR ? FAR : hi;
    r = fg_emit_cast(n->b, r, FG_i64);
    r = E2(max, r, fg_emit_f(n->b, FG_i64, (double)lo));
    r = E2(min, r, fg_emit_f(n->b, FG_i64, (double)hi));
    if (!r)
        return false;
    fg_expr *e = FG_NEWN(n->m->a, fg_expr, (size_t)len + 1);
    for (int64_t i = 0; i < len; i++)
        e[i] = fg_emit_readsym(n->b, r, i, lo, hi);
    *v = e;
    *count = (int)len;
    return true;
}

/* ---- shapes ------------------------------------------------------------------------- */

fg_expr
fg_dims_product(fg_node *n, fg_reg r, int from, int to)
{
    fg_expr p = fg_c(n, 1);

    for (int a = from; a < to; a++)
        p = fg_emul(n->ex, p, fg_dim(n, r, a));
    return p;
}

fg_reg
fg_flat2(fg_node *n, fg_reg x, int axis)
{
    if (!x)
        return 0;
    fg_expr d[2] = {fg_dims_product(n, x, 0, axis), fg_dims_product(n, x, axis, fg_rank(n, x))};
    return fg_emit_reshape(n->b, x, 2, d);
}

fg_reg
fg_like_shape(fg_node *n, fg_reg x, fg_reg like)
{
    if (!x || !like)
        return 0;
    fg_type t = *fg_rt(n->m, like);
    return fg_emit_reshape(n->b, x, t.rank, t.dim);
}

fg_reg
fg_expand_like(fg_node *n, fg_reg x, fg_reg like)
{
    if (!x || !like)
        return 0;
    fg_type t = *fg_rt(n->m, like);
    return fg_emit_expand(n->b, x, t.rank, t.dim);
}

fg_reg
fg_insert1(fg_node *n, fg_reg x, int at, int count)
{
    fg_expr d[FG_MAXRANK];

    if (!x)
        return 0;
    int rank = fg_rank(n, x);
    if (rank + count > FG_MAXRANK) {
        fg_node_error(n, "rank %d is above the limit of %d", rank + count, FG_MAXRANK);
        return 0;
    }
    for (int a = 0; a < rank + count; a++)
        d[a] = a < at ? fg_dim(n, x, a) : a < at + count ? fg_c(n, 1) : fg_dim(n, x, a - count);
    return fg_emit_reshape(n->b, x, rank + count, d);
}

fg_reg
fg_along(fg_node *n, fg_reg v, int axis, int rank)
{
    fg_expr d[FG_MAXRANK];

    if (!v)
        return 0;
    for (int a = 0; a < rank; a++)
        d[a] = a == axis ? fg_dim(n, v, 0) : fg_c(n, 1);
    return fg_emit_reshape(n->b, v, rank, d);
}

fg_reg
fg_iota_along(fg_node *n, fg_expr len, int axis, int rank, fg_dtype to)
{
    return fg_along(n, fg_emit_iota(n->b, len, fg_c(n, 0), 1, to), axis, rank);
}

fg_reg
fg_part(fg_node *n, fg_reg x, int axis, int64_t start, int64_t size)
{
    return x ? fg_emit_slice_axis(n->b, x, axis, fg_c(n, start), fg_c(n, size)) : 0;
}

/* ---- axis sets ----------------------------------------------------------------------- */

void
fg_axisset_make(fg_node *n, fg_axisset *s, int rank, int count, const int64_t *axis)
{
    *s = (fg_axisset){.rank = rank, .count = count, .given = true, .known = true};
    for (int a = 0; a < rank; a++)
        s->flag[a] = fg_c(n, 0);
    for (int i = 0; i < count; i++) {
        s->axis[i] = axis[i];
        s->flag[axis[i]] = fg_c(n, 1);
    }
}

/* Axes computed from data: flag[a] = sum over the entries of (entry mod rank == a). */
static bool
axes_from_data(fg_node *n, int k, int rank, fg_axisset *s)
{
    const fg_expr *e;
    int count;

    if (!fg_in_clamped(n, k, -rank, rank - 1, &e, &count))
        return false;
    if (count > rank)
        return fg_node_error(n, "%d axes for a tensor of rank %d", count, rank);
    *s = (fg_axisset){.rank = rank, .count = count, .given = true};
    for (int a = 0; a < rank; a++) {
        s->flag[a] = fg_c(n, 0);
        for (int i = 0; i < count; i++)
            s->flag[a] = fg_eadd(n->ex, s->flag[a],
                                 fg_eeq(n->ex, fg_emod(n->ex, e[i], fg_c(n, rank)), fg_c(n, a)));
    }
    return true;
}

bool
fg_axisset_read(fg_node *n, int k, int rank, fg_axisset *s)
{
    int64_t axis[FG_MAXRANK];
    const fg_expr *e;
    int count;

    if (!fg_attr_has(n, "axes") && fg_in(n, k)) {
        if (!fg_in_exprs_opt(n, k, &e, &count) && rank > 0)
            return axes_from_data(n, k, rank, s);
    }
    if (!fg_axes(n, k, rank, axis, &count))
        return false;
    fg_axisset_make(n, s, rank, count < 0 ? 0 : count, axis);
    s->given = count >= 0;
    return true;
}

void
fg_axisset_drop(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out)
{
    fg_exprs *t = n->ex;

    for (int j = 0; j < s->rank - s->count; j++) {
        fg_expr kept = fg_c(n, 0), d = fg_c(n, 0);
        for (int a = 0; a < s->rank; a++) {
            fg_expr keep = fg_esub(t, fg_c(n, 1), s->flag[a]);
            fg_expr here = fg_emul(t, keep, fg_eeq(t, kept, fg_c(n, j)));
            d = fg_eadd(t, d, fg_emul(t, here, dim[a]));
            kept = fg_eadd(t, kept, keep);
        }
        out[j] = d;
    }
}

/* s->rank is the rank of the result. */
void
fg_axisset_insert(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out)
{
    fg_exprs *t = n->ex;
    fg_expr before = fg_c(n, 0);

    for (int j = 0; j < s->rank; j++) {
        fg_expr d = fg_c(n, 0);
        for (int a = 0; a < s->rank - s->count; a++) {
            fg_expr here = fg_eeq(t, fg_esub(t, fg_c(n, j), before), fg_c(n, a));
            d = fg_eadd(t, d, fg_emul(t, here, dim[a]));
        }
        out[j] = fg_eselect(t, s->flag[j], fg_c(n, 1), d);
        before = fg_eadd(t, before, s->flag[j]);
    }
}
