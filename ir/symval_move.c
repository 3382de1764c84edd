/* symval_move.c - elements that are found elsewhere in an operand, or combine several:
 * slices, gathers, scatters and reductions of shape vectors.
 *
 *     %d = slice %s {start=[2]} : i64[1]         ; element 0 is element 2 of %s
 *     %n = reduce_prod %s {axes=[0]} : i64[]     ; product of all elements
 *
 * Positions must be constants; values may be any expression. A scatter is followed
 * backwards: the last update that hits an element decides it.
 */
#include "ir/symval.h"

static const fg_frac unknown = {FG_E_BAD, 1};
static const int64_t max_scan =
    4096; /* elements of a tensor that is searched or summed */

static void
coordinates(int64_t i, const int64_t *dim, int rank, int64_t *c)
{
    for (int k = rank - 1; k >= 0; k--) {
        c[k] = dim[k] ? i % dim[k] : 0;
        i = dim[k] ? i / dim[k] : 0;
    }
}

/* Elements of a shape; INT64_MAX when there are more. */
static int64_t
count(const int64_t *dim, int rank)
{
    int64_t n = 1;
    for (int k = 0; k < rank; k++)
        if (__builtin_mul_overflow(n, dim[k], &n))
            return INT64_MAX;
    return n;
}

/* Coordinates of result element i, and the strides of operand 0. */
static bool
locate(fg_look *l, const fg_inst *inst, int64_t i, int64_t *c, int64_t *stride)
{
    int64_t dim[FG_MAXRANK];
    if (!fg_look_dims(l->m, inst->out[0], dim) ||
        !fg_look_strides(l->m, inst->in[0], stride))
        return false;
    coordinates(i, dim, fg_rt(l->m, inst->out[0])->rank, c);
    return true;
}

/* Index value as a position below n: negative counts from the end. */
static bool
position(fg_look *l, fg_reg index, int64_t i, fg_expr size, int64_t *at)
{
    int64_t n;
    if (!fg_look_const(l, index, i, at))
        return false;
    bool fixed = fg_e_const(l->ex, size, &n);
    if (*at < 0 && (!fixed || (*at += n) < 0))
        return false;
    return !fixed || *at < n;
}

/* ---- views ------------------------------------------------------------------------- */

fg_frac
fg_elem_transpose(fg_look *l, const fg_inst *inst, int64_t i)
{
    const int64_t *perm = FG_GET(inst, transpose, perm).is;
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], at = 0;
    if (!locate(l, inst, i, c, stride))
        return unknown;
    for (int k = 0; k < fg_rt(l->m, inst->in[0])->rank; k++)
        at += c[k] * stride[perm[k]];
    return fg_look_at(l, inst->in[0], at);
}

fg_frac
fg_elem_slice(fg_look *l, const fg_inst *inst, int64_t i)
{
    const fg_attr *start = &FG_GET(inst, slice, start),
                  *step = &FG_GET(inst, slice, step);
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], at = 0, from, by;
    if (!locate(l, inst, i, c, stride))
        return unknown;
    for (int k = 0; k < start->n; k++) {
        if (!fg_e_const(l->ex, start->es[k], &from))
            return unknown;
        /* In range by construction; a file may lie, and fg_look_at checks again. */
        if (__builtin_mul_overflow(c[k], step->is[k], &by) ||
            __builtin_add_overflow(from, by, &by) ||
            __builtin_mul_overflow(by, stride[k], &by) ||
            __builtin_add_overflow(at, by, &at))
            return unknown;
    }
    return fg_look_at(l, inst->in[0], at);
}

fg_frac
fg_elem_concat(fg_look *l, const fg_inst *inst, int64_t i)
{
    int64_t axis = FG_GET(inst, concat, axis).i, c[FG_MAXRANK], dim[FG_MAXRANK];
    int rank = fg_rt(l->m, inst->out[0])->rank;
    /* The size along the axis is needed only where an outer axis strides over it. */
    if (axis > 0 || rank > 1) {
        if (!fg_look_dims(l->m, inst->out[0], dim))
            return unknown;
        coordinates(i, dim, rank, c);
    } else {
        c[0] = i;
    }
    for (int k = 0; k < inst->nin; k++) {
        int64_t stride[FG_MAXRANK], at = 0, n;
        if (!fg_e_const(l->ex, fg_rt(l->m, inst->in[k])->dim[axis], &n))
            return unknown;
        if (c[axis] >= n) {
            c[axis] -= n;
            continue;
        }
        if (!fg_look_strides(l->m, inst->in[k], stride))
            return unknown;
        for (int d = 0; d < rank; d++)
            at += c[d] * stride[d];
        return fg_look_at(l, inst->in[k], at);
    }
    return unknown;
}

fg_frac
fg_elem_pad(fg_look *l, const fg_inst *inst, int64_t i)
{
    const fg_attr *before = &FG_GET(inst, pad, before);
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], at = 0, from, n;
    if (strcmp(FG_GET(inst, pad, mode).s, "constant") || !locate(l, inst, i, c, stride))
        return unknown;
    for (int k = 0; k < before->n; k++) {
        if (!fg_e_const(l->ex, before->es[k], &from) ||
            !fg_e_const(l->ex, fg_rt(l->m, inst->in[0])->dim[k], &n))
            return unknown;
        if (from < 0 ? c[k] >= n + from : c[k] < from || c[k] - from >= n) {
            if (inst->nin > 1 && inst->in[1])
                return fg_look_at(l, inst->in[1], 0);
            return (fg_frac){fg_ec(l->ex, 0), 1};
        }
        at += (c[k] - from) * stride[k];
    }
    return fg_look_at(l, inst->in[0], at);
}

/* ---- gathers ----------------------------------------------------------------------- */

fg_frac
fg_elem_gather(fg_look *l, const fg_inst *inst, int64_t i)
{
    int axis = (int)FG_GET(inst, gather, axis).i;
    const fg_type *x = fg_rt(l->m, inst->in[0]), *idx = fg_rt(l->m, inst->in[1]);
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], istride[FG_MAXRANK], at = 0, ii = 0, pos;
    if (!locate(l, inst, i, c, stride) || !fg_look_strides(l->m, inst->in[1], istride))
        return unknown;
    for (int k = 0; k < idx->rank; k++)
        ii += c[axis + k] * istride[k];
    if (!position(l, inst->in[1], ii, x->dim[axis], &pos))
        return unknown;
    for (int k = 0; k < x->rank; k++)
        at += (k < axis ? c[k] : k == axis ? pos : c[k - 1 + idx->rank]) * stride[k];
    return fg_look_at(l, inst->in[0], at);
}

fg_frac
fg_elem_gather_elements(fg_look *l, const fg_inst *inst, int64_t i)
{
    int64_t axis = FG_GET(inst, gather_elements, axis).i;
    const fg_type *x = fg_rt(l->m, inst->in[0]);
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], at = 0;
    if (!locate(l, inst, i, c, stride) ||
        !position(l, inst->in[1], i, x->dim[axis], &c[axis]))
        return unknown;
    for (int k = 0; k < x->rank; k++)
        at += c[k] * stride[k];
    return fg_look_at(l, inst->in[0], at);
}

fg_frac
fg_elem_gather_nd(fg_look *l, const fg_inst *inst, int64_t i)
{
    int batch = (int)FG_GET(inst, gather_nd, batch).i;
    const fg_type *x = fg_rt(l->m, inst->in[0]), *idx = fg_rt(l->m, inst->in[1]);
    int64_t c[FG_MAXRANK], stride[FG_MAXRANK], istride[FG_MAXRANK], n, at = 0, ii = 0;
    int lead = idx->rank - 1;
    if (!locate(l, inst, i, c, stride) || !fg_look_strides(l->m, inst->in[1], istride) ||
        !fg_e_const(l->ex, idx->dim[lead], &n))
        return unknown;
    for (int k = 0; k < lead; k++)
        ii += c[k] * istride[k];
    for (int k = 0; k < batch; k++)
        at += c[k] * stride[k];
    for (int64_t k = 0; k < n; k++) {
        int64_t pos;
        if (!position(l, inst->in[1], ii + k, x->dim[batch + k], &pos))
            return unknown;
        at += pos * stride[batch + k];
    }
    for (int k = batch + (int)n; k < x->rank; k++)
        at += c[k - (batch + n) + lead] * stride[k];
    return fg_look_at(l, inst->in[0], at);
}

/* ---- scatters ---------------------------------------------------------------------- */

fg_frac
fg_elem_scatter_elements(fg_look *l, const fg_inst *inst, int64_t i)
{
    int64_t axis = FG_GET(inst, scatter_elements, axis).i;
    const fg_type *x = fg_rt(l->m, inst->in[0]);
    int64_t xd[FG_MAXRANK], ud[FG_MAXRANK], want[FG_MAXRANK], c[FG_MAXRANK];
    if (strcmp(FG_GET(inst, scatter_elements, how).s, "none") ||
        !fg_look_dims(l->m, inst->in[0], xd) || !fg_look_dims(l->m, inst->in[1], ud))
        return unknown;
    if (count(xd, x->rank) > max_scan || count(ud, x->rank) > max_scan)
        return unknown;
    coordinates(i, xd, x->rank, want);
    for (int64_t u = count(ud, x->rank) - 1; u >= 0; u--) {
        bool hit = true;
        coordinates(u, ud, x->rank, c);
        if (!position(l, inst->in[1], u, x->dim[axis], &c[axis]))
            return unknown;
        for (int k = 0; k < x->rank; k++)
            hit &= c[k] == want[k];
        if (hit)
            return fg_look_at(l, inst->in[2], u);
    }
    return fg_look_at(l, inst->in[0], i);
}

fg_frac
fg_elem_scatter_nd(fg_look *l, const fg_inst *inst, int64_t i)
{
    const fg_type *x = fg_rt(l->m, inst->in[0]), *idx = fg_rt(l->m, inst->in[1]);
    int64_t xd[FG_MAXRANK], id[FG_MAXRANK], want[FG_MAXRANK];
    if (strcmp(FG_GET(inst, scatter_nd, how).s, "none") ||
        !fg_look_dims(l->m, inst->in[0], xd) || !fg_look_dims(l->m, inst->in[1], id))
        return unknown;
    if (count(xd, x->rank) > max_scan || count(id, idx->rank) > max_scan)
        return unknown;
    int64_t n = id[idx->rank - 1], inner = count(xd + n, x->rank - (int)n);
    coordinates(i, xd, x->rank, want);
    for (int64_t u = count(id, idx->rank - 1) - 1; u >= 0; u--) {
        bool hit = true;
        for (int64_t k = 0; k < n; k++) {
            int64_t pos;
            if (!position(l, inst->in[1], u * n + k, x->dim[k], &pos))
                return unknown;
            hit &= pos == want[k];
        }
        if (hit)
            return fg_look_at(l, inst->in[2], u * inner + i % inner);
    }
    return fg_look_at(l, inst->in[0], i);
}

/* ---- reductions -------------------------------------------------------------------- */

/* Integers only: a float reduction rounds in an order of its own. */
static fg_expr
integer_at(fg_look *l, fg_reg r, int64_t i)
{
    fg_frac f = fg_look_at(l, r, i);
    return f.den == 1 ? f.num : FG_E_BAD;
}

static fg_expr
combine(fg_look *l, fg_op op, fg_expr a, fg_expr b)
{
    switch (op) {
    case FG_OP_reduce_sum:
        return fg_eadd(l->ex, a, b);
    case FG_OP_reduce_prod:
        return fg_emul(l->ex, a, b);
    case FG_OP_reduce_max:
        return fg_emax(l->ex, a, b);
    default:
        return fg_emin(l->ex, a, b);
    }
}

fg_frac
fg_elem_reduce(fg_look *l, const fg_inst *inst, int64_t i)
{
    const fg_attr *axes = &inst->attr[0];
    const fg_type *x = fg_rt(l->m, inst->in[0]);
    int64_t dim[FG_MAXRANK], c[FG_MAXRANK];
    unsigned over = 0;
    if (fg_is_float((fg_dtype)x->dtype) || !fg_look_dims(l->m, inst->in[0], dim))
        return unknown;
    for (int k = 0; k < axes->n; k++)
        over |= 1u << axes->is[k];
    int64_t n = count(dim, x->rank);
    if (n > max_scan)
        return unknown;
    bool extreme = inst->op == FG_OP_reduce_max || inst->op == FG_OP_reduce_min;
    fg_expr acc = FG_E_BAD;
    if (!extreme)
        acc = fg_ec(l->ex, inst->op == FG_OP_reduce_prod);
    for (int64_t e = 0; e < n; e++) {
        int64_t at = 0;
        coordinates(e, dim, x->rank, c);
        for (int k = 0; k < x->rank; k++)
            at = over >> k & 1 ? at : at * dim[k] + c[k];
        if (at != i)
            continue;
        fg_expr v = integer_at(l, inst->in[0], e);
        if (v == FG_E_BAD)
            return unknown;
        acc = acc == FG_E_BAD && extreme ? v : combine(l, inst->op, acc, v);
        if (acc == FG_E_BAD)
            return unknown;
    }
    return (fg_frac){acc, 1};
}

fg_frac
fg_elem_cumsum(fg_look *l, const fg_inst *inst, int64_t i)
{
    int axis = (int)FG_GET(inst, cumsum, axis).i;
    bool reverse = FG_GET(inst, cumsum, reverse).i != 0;
    bool exclusive = FG_GET(inst, cumsum, exclusive).i != 0;
    int64_t dim[FG_MAXRANK], c[FG_MAXRANK], stride[FG_MAXRANK];
    const fg_type *x = fg_rt(l->m, inst->in[0]);
    if (fg_is_float((fg_dtype)x->dtype) || !fg_look_dims(l->m, inst->in[0], dim) ||
        !fg_look_strides(l->m, inst->in[0], stride))
        return unknown;
    coordinates(i, dim, x->rank, c);
    fg_expr acc = fg_ec(l->ex, 0);
    for (int64_t k = 0; k < dim[axis]; k++) {
        int64_t d = reverse ? k - c[axis] : c[axis] - k;
        if (d < 0 || (exclusive && d == 0))
            continue;
        acc = fg_eadd(l->ex, acc,
                      integer_at(l, inst->in[0], i + (k - c[axis]) * stride[axis]));
        if (acc == FG_E_BAD)
            return unknown;
    }
    return (fg_frac){acc, 1};
}

/* Of a tensor of any size when all its elements are one constant. */
fg_frac
fg_elem_nonzero_count(fg_look *l, const fg_inst *inst, int64_t i)
{
    (void)i;
    int64_t dim[FG_MAXRANK];
    double v;
    const fg_type *x = fg_rt(l->m, inst->in[0]);
    if (fg_const_splat(l->m, inst->in[0], &v))
        return (fg_frac){v != 0 ? fg_type_count(l->ex, x) : fg_ec(l->ex, 0), 1};
    if (!fg_look_dims(l->m, inst->in[0], dim) || count(dim, x->rank) > max_scan)
        return unknown;
    fg_expr acc = fg_ec(l->ex, 0);
    for (int64_t k = count(dim, x->rank) - 1; k >= 0; k--) {
        fg_frac f = fg_look_at(l, inst->in[0], k);
        if (f.num == FG_E_BAD)
            return unknown;
        fg_expr zero = fg_eeq(l->ex, f.num, fg_ec(l->ex, 0));
        acc = fg_eadd(l->ex, acc, fg_esub(l->ex, fg_ec(l->ex, 1), zero));
    }
    return (fg_frac){acc, 1};
}
