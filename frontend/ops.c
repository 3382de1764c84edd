/* ops.c - values, shapes and axis sets for the operator importers.
 *
 * Axes and sizes are nearly always known. Where they are computed from data, a flag
 * per axis says at run time whether it is meant, and the sizes that follow are
 * computed as tensors and read back as run-time symbols.
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
        if (!fg_e_is(n->ex, fg_dim(n, r, a), 1) &&
            !fg_unify(n->m, fg_dim(n, r, a), fg_c(n, 1)))
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
    if (fg_rank(n, r) > 1 ||
        (fg_rank(n, r) == 1 && !fg_e_const(n->ex, fg_dim(n, r, 0), &len)))
        return fg_node_error(n, "operand %d must be a vector of known length, not %s", k,
                             fg_type_text(n->m, fg_rt(n->m, r)));
    if (len > FG_MAXSYM)
        return fg_node_error(n, "operand %d has %lld elements", k, (long long)len);
    lo = lo < -FAR ? -FAR : lo;
    hi = hi > FAR ? FAR : hi;
    r = fg_emit_cast(n->b, r, FG_i64);
    if (lo) /* a size below 0 is a fault of the data, and refused when it is read */
        r = E2(max, r, fg_emit_f(n->b, FG_i64, (double)lo));
    r = E2(min, r, fg_emit_f(n->b, FG_i64, (double)hi));
    if (!r)
        return false;
    const fg_expr *have = fg_ri(n->m, n->in[k])->sym;
    fg_expr *e = FG_NEWN(n->m->a, fg_expr, (size_t)len + 1);
    for (int64_t i = 0; i < len; i++) {
        e[i] = have ? have[i] : FG_E_BAD;
        if (e[i] == FG_E_BAD)
            e[i] = fg_emit_readsym(n->b, r, i, lo, hi);
    }
    *v = e;
    *count = (int)len;
    return true;
}

/* ---- shapes ---------------------------------------------------------------------- */

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
    fg_expr d[2] = {fg_dims_product(n, x, 0, axis),
                    fg_dims_product(n, x, axis, fg_rank(n, x))};
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
        d[a] = a < at           ? fg_dim(n, x, a)
               : a < at + count ? fg_c(n, 1)
                                : fg_dim(n, x, a - count);
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

/* ---- axis sets ------------------------------------------------------------------- */

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

/* Axes computed from data: flag[a] = any entry mod rank is a. */
static bool
axes_from_data(fg_node *n, int k, int rank, fg_axisset *s)
{
    fg_reg r = fg_need(n, k);
    int64_t count = 1, last = 1;

    if (!r)
        return false;
    if (fg_rank(n, r) > 1 ||
        (fg_rank(n, r) == 1 && !fg_e_const(n->ex, fg_dim(n, r, 0), &count)))
        return fg_node_unsupported(n, "an unknown number of axes");
    if (count > rank)
        return fg_node_error(n, "%lld axes for a tensor of rank %d", (long long)count,
                             rank);
    if (count == 0) {
        fg_axisset_make(n, s, rank, 0, NULL);
        return true;
    }
    *s = (fg_axisset){.rank = rank, .count = (int)count, .given = true};
    r = fg_emit_reshape(n->b, fg_emit_cast(n->b, r, FG_i64), 2,
                        (fg_expr[]){fg_c(n, 1), fg_c(n, count)});
    r = E2(mod, r, fg_emit_f(n->b, FG_i64, rank));
    fg_reg named = E2(eq, r, fg_iota_along(n, fg_c(n, rank), 0, 2, FG_i64));
    named = named ? fg_emit_cast(n->b, named, FG_i64) : 0;
    s->flags = fg_emit_reduce(n->b, FG_OP_reduce_max, named, 1, &last, false);
    for (int a = 0; s->flags && a < rank; a++)
        s->flag[a] = fg_emit_readsym(n->b, s->flags, a, 0, 1);
    return s->flags != 0;
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

static fg_reg
running_sum(fg_node *n, fg_reg x, bool exclusive)
{
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_cumsum, 1, &x);
    FG_SET(i, cumsum, exclusive).i = exclusive;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

static bool
read_dims(fg_node *n, fg_reg v, int count, fg_expr *out)
{
    for (int i = 0; v && i < count; i++)
        out[i] = fg_emit_readsym(n->b, v, i, 0, INT64_MAX);
    return v != 0;
}

/* Run time: the sum over axes a of dim[a] where a is the j-th axis kept. */
bool
fg_axisset_drop(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out)
{
    int left = s->rank - s->count, r = 0;
    int64_t last = 1;

    for (int a = 0; s->known && a < s->rank; a++)
        if (fg_e_is(n->ex, s->flag[a], 0))
            out[r++] = dim[a];
    if (s->known)
        return true;
    fg_reg one = fg_emit_f(n->b, FG_i64, 1), zero = fg_emit_f(n->b, FG_i64, 0);
    fg_reg keep = E2(sub, one, s->flags);
    fg_reg place = fg_along(n, running_sum(n, keep, true), 1, 2);
    fg_reg here = E2(eq, place, fg_iota_along(n, fg_c(n, left), 0, 2, FG_i64));
    here = E2(and, here, E2(eq, fg_along(n, keep, 1, 2), one));
    fg_reg dims = fg_along(n, fg_emit_symvec(n->b, s->rank, dim, FG_i64, false), 1, 2);
    fg_reg v = fg_emit_reduce(n->b, FG_OP_reduce_sum, E3(where, here, dims, zero), 1,
                              &last, false);
    return read_dims(n, v, left, out);
}

/* s->rank is the rank of the result. Run time: axis j is 1, or the dim that as many axes
 * before it as are not inserted leave over. */
bool
fg_axisset_insert(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out)
{
    int own = s->rank - s->count, r = 0;

    for (int j = 0; (s->known || own == 0) && j < s->rank; j++)
        out[j] = own == 0 || fg_e_is(n->ex, s->flag[j], 1) ? fg_c(n, 1) : dim[r++];
    if (s->known || own == 0)
        return true;
    fg_reg at = fg_emit_iota(n->b, fg_c(n, s->rank), fg_c(n, 0), 1, FG_i64);
    at = E2(sub, at, running_sum(n, s->flags, true));
    at = E2(min, at, fg_emit_f(n->b, FG_i64, own - 1));
    fg_reg v = fg_emit_gather(n->b, fg_emit_symvec(n->b, own, dim, FG_i64, false), at, 0);
    fg_reg one = fg_emit_f(n->b, FG_i64, 1);
    return read_dims(n, E3(where, E2(eq, s->flags, one), one, v), s->rank, out);
}
