/* algebra_cache.c - rules for caches that are written at rows found while running.
 *
 *     scatter_nd %x, (grid of whole axes, rows), %y      => append %x, %y, rows
 *     scatter_elements %x, (expand rows), %y {axis=2}    => append %x, %y, rows {axis=2}
 *     concat (slice %x ..p), %y, (slice %x p+S..)        => append %x, %y, p, p+1, ..
 *     transpose (append (transpose %x), %y, rows)        => append %x, (transpose %y), rows
 *
 * A scatter copies x and so does append, until the states pass finds that x is a cache that
 * nobody else wants. Scatters take positions from the end and clamp those beyond; append
 * drops them, so rows are brought inside first.
 */
#include "passes/algebra.h"

static fg_reg
append(fg_build *b, fg_reg x, fg_reg y, fg_reg rows, int axis)
{
    if (!x || !y || !rows)
        return 0;
    fg_inst *i = fg_inst_begin(b, FG_OP_append, 3, (fg_reg[]){x, y, rows});
    FG_SET(i, append, axis).i = axis;
    return fg_inst_finish(b, i, NULL, 0) ? i->out[0] : 0;
}

/* Positions below n as scatters mean them. */
static fg_reg
brought_inside(fg_build *b, fg_reg rows, fg_expr n)
{
    fg_expr most = fg_esub(b->m->ex, n, fg_ec(b->m->ex, 1));
    fg_reg zero = fg_emit_f(b, FG_i64, 0);
    fg_reg size = fg_emit_symvec(b, 1, &n, FG_i64, true);

    rows = fg_emit_cast(b, rows, FG_i64);
    rows = fg_emit3(b, FG_OP_where, fg_emit2(b, FG_OP_lt, rows, zero),
                    fg_emit2(b, FG_OP_add, rows, size), rows);
    rows = fg_emit2(b, FG_OP_max, rows, zero);
    return fg_emit2(b, FG_OP_min, rows, fg_emit_symvec(b, 1, &most, FG_i64, true));
}

/* ---- scatters ---------------------------------------------------------------------- */

/* The numbers along `axis`, and along axis 0 if they differ there: [S] or [B,S]. They may not
 * differ along other axes, which shows only in what was expanded. `lead` axes of r count. */
static fg_reg
row_numbers(fg_build *b, fg_reg r, int axis, int lead)
{
    fg_module *m = b->m;
    const fg_type t = *fg_rt(m, r);
    fg_inst *d = fg_def(m, r);
    fg_reg from = fg_is_op(d, FG_OP_expand) ? d->in[0] : r;
    const fg_type x = *fg_rt(m, from);
    int shift = t.rank - x.rank;
    bool each = false;

    for (int k = 0; k < x.rank && k + shift < lead; k++) {
        if (k + shift == axis || fg_e_is(m->ex, x.dim[k], 1))
            continue;
        if (k + shift != 0)
            return 0;
        each = true;
    }
    if (axis < shift || x.dim[axis - shift] != t.dim[axis])
        return 0;
    fg_expr dim[2] = {each ? t.dim[0] : t.dim[axis], t.dim[axis]};
    return fg_emit_reshape(b, from, 1 + each, dim);
}

static bool
same_but(const fg_type *a, const fg_type *b, int axis)
{
    if (a->rank != b->rank)
        return false;
    for (int k = 0; k < a->rank; k++)
        if (k != axis && a->dim[k] != b->dim[k])
            return false;
    return true;
}

static fg_reg
scatter_elements_of_rows(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    int axis = (int)FG_GET(i, scatter_elements, axis).i;
    const fg_type *x = fg_rt(m, i->in[0]);

    if (strcmp(FG_GET(i, scatter_elements, how).s, "none") ||
        !same_but(x, fg_rt(m, i->in[2]), axis) || !same_but(x, fg_rt(m, i->in[1]), axis))
        return 0;
    fg_expr n = x->dim[axis];
    fg_reg rows = row_numbers(b, i->in[1], axis, x->rank);
    return rows ? append(b, i->in[0], i->in[2], brought_inside(b, rows, n), axis) : 0;
}

/* Entry k of the tuples is the position along axis k, of all of x. */
static bool
whole_axis(fg_module *m, const fg_inst *tuples, int k, const fg_type *x)
{
    const fg_type *t = fg_rt(m, tuples->in[k]);
    fg_affine f;

    return t->dim[k] == x->dim[k] && fg_find_affine(m, tuples->in[k], &f) &&
           fg_e_is(m->ex, f.start, 0) &&
           (f.n ? f.n == 1 && f.term[0].axis == k && fg_e_is(m->ex, f.term[0].coef, 1)
                : fg_e_is(m->ex, x->dim[k], 1));
}

static fg_reg
scatter_nd_of_rows(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    const fg_type x = *fg_rt(m, i->in[0]), t = *fg_rt(m, i->in[1]);
    int axis = t.rank - 2; /* the last that the tuples name */
    fg_reg last = i->in[1];

    if (strcmp(FG_GET(i, scatter_nd, how).s, "none") || axis < 0 ||
        !fg_e_is(m->ex, t.dim[axis + 1], axis + 1) ||
        !same_but(&x, fg_rt(m, i->in[2]), axis))
        return 0;
    if (axis > 0) {
        const fg_inst *d = fg_def(m, i->in[1]);
        if (!fg_is_op(d, FG_OP_concat) || FG_GET(d, concat, axis).i != axis + 1 ||
            d->nin != axis + 1)
            return 0;
        for (int k = 0; k < axis; k++)
            if (!whole_axis(m, d, k, &x))
                return 0;
        last = d->in[axis];
    }
    fg_reg rows = row_numbers(b, last, axis, axis + 1);
    return rows
               ? append(b, i->in[0], i->in[2], brought_inside(b, rows, x.dim[axis]), axis)
               : 0;
}

/* ---- joins and transposes ------------------------------------------------------------ */

/* What r is a slice of: elements from `start` on of one axis, all of the others. */
static fg_reg
part_of(fg_module *m, fg_reg r, int axis, fg_expr *start)
{
    const fg_inst *d = fg_def(m, r);

    if (!fg_is_op(d, FG_OP_slice) || !same_but(fg_rt(m, d->in[0]), fg_rt(m, r), axis) ||
        FG_GET(d, slice, step).is[axis] != 1)
        return 0;
    *start = FG_GET(d, slice, start).es[axis];
    return d->in[0];
}

static fg_reg
concat_around(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    int axis = (int)FG_GET(i, concat, axis).i;
    fg_expr from, rest, n;
    fg_reg x;

    if (i->nin != 3 || !(x = part_of(m, i->in[0], axis, &from)) ||
        part_of(m, i->in[2], axis, &rest) != x || !fg_e_is(m->ex, from, 0) ||
        !fg_same_type(m, i, x))
        return 0;
    from = fg_rt(m, i->in[0])->dim[axis];
    n = fg_rt(m, i->in[1])->dim[axis];
    if (fg_eadd(m->ex, from, n) != rest || fg_e_lo(m->ex, from) < 0)
        return 0;
    return append(b, x, i->in[1], fg_emit_iota(b, n, from, 1, FG_i64), axis);
}

static fg_reg
append_transposed(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    const int64_t *back = FG_GET(i, transpose, perm).is;
    const fg_inst *w = fg_operand_def(m, i, 0, FG_OP_append);
    const fg_inst *d =
        w && w->nin > 2 && w->in[2] ? fg_operand_def(m, w, 0, FG_OP_transpose) : NULL;

    if (!d)
        return 0;
    const int64_t *perm = FG_GET(d, transpose, perm).is;
    for (int k = 0; k < FG_GET(i, transpose, perm).n; k++)
        if (perm[back[k]] != k)
            return 0;
    int axis = (int)perm[FG_GET(w, append, axis).i];
    if (fg_rt(m, w->in[2])->rank == 2 && (perm[0] != 0 || axis == 0))
        return 0;
    return append(b, d->in[0], fg_emit_transpose(b, w->in[1], back), w->in[2], axis);
}

/* clang-format off */
const fg_rule fg_rules_cache[] = {
    FG_RULE(scatter_elements, scatter_elements_of_rows, NOWHERE, "scatter of rows = append to rows")
    FG_RULE(scatter_nd,       scatter_nd_of_rows,       NOWHERE, "scatter of rows = append to rows")
    FG_RULE(concat,           concat_around,            NOWHERE, "x[..p] y x[p + S..] = append to rows")
    FG_RULE(transpose,        append_transposed,        NOWHERE, "append, transposed = append to x")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};
/* clang-format on */
