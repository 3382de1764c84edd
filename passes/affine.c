/* affine.c - integer registers that are linear in the position.
 *
 *     %i = iota {n=S} : i64[S]                       ; c0
 *     %r = reshape %i : i64[1,S,1]                   ; c1
 *     %b = mul (reshape (iota B)), %s : i64[B,1,1]   ; S c0
 *     %a = add %r, %b : i64[B,S,1]                   ; S c0 + c1
 *
 * This is how exporters spell index grids and positions. The walk goes from a register to
 * its definition and carries the terms through views, conversions, sums and products with
 * known values. Constants are read element by element, up to a size.
 */
#include "passes/algebra.h"

enum { LARGEST = 1 << 17, MAXLOOKS = 500 };

/* `looks` are those left: one value may be above r in very many ways. */
static bool find(fg_module *m, fg_reg r, int *looks, fg_affine *out);

/* ---- values ------------------------------------------------------------------------ */

typedef struct values { /* element e of a register with constant sizes */
    fg_module *m;
    fg_reg r;
    const fg_expr *sym; /* NULL: a constant */
    int64_t scale, offset;
} values;

static fg_expr
value_at(const values *v, int64_t e)
{
    int64_t x;
    e = e * v->scale + v->offset;
    if (v->sym)
        return v->sym[e];
    return fg_const_i64(v->m, v->r, e, &x) ? fg_ec(v->m->ex, x) : FG_E_BAD;
}

/* Reads the slopes off the neighbours of the first element, then checks every element. */
static bool
fit(const values *v, const int64_t *dim, int rank, fg_affine *out)
{
    fg_exprs *ex = v->m->ex;
    int64_t stride[FG_MAXRANK], count = 1;
    for (int k = rank - 1; k >= 0; k--) {
        stride[k] = count;
        if (__builtin_mul_overflow(count, dim[k], &count) || count > LARGEST)
            return false;
    }
    if (count == 0)
        return false;
    *out = (fg_affine){.start = value_at(v, 0)};
    for (int k = 0; k < rank; k++) {
        fg_expr d =
            dim[k] > 1 ? fg_esub(ex, value_at(v, stride[k]), out->start) : fg_ec(ex, 0);
        if (fg_e_is(ex, d, 0))
            continue;
        if (out->n == FG_AFFINE_TERMS)
            return false;
        out->term[out->n].axis = k;
        out->term[out->n++].coef = d;
    }
    for (int64_t e = 0; e < count; e++) {
        fg_expr want = out->start;
        for (int j = 0; j < out->n; j++) {
            int k = out->term[j].axis;
            want = fg_eadd(
                ex, want,
                fg_emul(ex, out->term[j].coef, fg_ec(ex, e / stride[k] % dim[k])));
        }
        if (want == FG_E_BAD || value_at(v, e) != want)
            return false;
    }
    return true;
}

bool
fg_find_affine_entry(fg_module *m, fg_reg r, int64_t c, fg_affine *out)
{
    int64_t dim[FG_MAXRANK];
    const fg_reginfo *ri = fg_ri(m, r);
    if (!ri->type.rank || !fg_type_static(m->ex, &ri->type, dim) ||
        (!ri->sym && !fg_reg_weight(m, r)))
        return false;
    values v = {m, r, ri->sym, dim[ri->type.rank - 1], c};
    return c < v.scale && fit(&v, dim, ri->type.rank - 1, out);
}

/* ---- through definitions ----------------------------------------------------------- */

/* Where axis `a` of shape x is in shape y: same size, same count of elements before. */
static int
moved_axis(fg_exprs *ex, const fg_type *x, int a, const fg_type *y)
{
    fg_expr before = fg_ec(ex, 1), n = fg_ec(ex, 1);
    for (int k = 0; k < a; k++)
        before = fg_emul(ex, before, x->dim[k]);
    for (int k = 0; k < y->rank; k++) {
        if (n == before && n != FG_E_BAD && y->dim[k] == x->dim[a])
            return k;
        n = fg_emul(ex, n, y->dim[k]);
    }
    return -1;
}

static int
axis_after(fg_module *m, const fg_inst *d, int axis)
{
    const fg_type *x = fg_rt(m, d->in[0]), *y = fg_rt(m, d->out[0]);
    switch (d->op) {
    case FG_OP_reshape:
        return moved_axis(m->ex, x, axis, y);
    case FG_OP_transpose:
        for (int k = 0; k < y->rank; k++)
            if (FG_GET(d, transpose, perm).is[k] == axis)
                return k;
        return -1;
    case FG_OP_expand:
        return axis + y->rank - x->rank;
    default:
        return axis;
    }
}

static bool
through_view(fg_module *m, const fg_inst *d, int *looks, fg_affine *out)
{
    const fg_type *x = fg_rt(m, d->in[0]);
    fg_exprs *ex = m->ex;
    if (!find(m, d->in[0], looks, out))
        return false;
    int n = 0;
    for (int j = 0; j < out->n; j++) {
        int axis = out->term[j].axis;
        fg_expr coef = out->term[j].coef;
        if (fg_e_is(ex, x->dim[axis], 1))
            continue; /* the only position is 0 */
        if (d->op == FG_OP_slice) {
            out->start = fg_eadd(ex, out->start,
                                 fg_emul(ex, coef, FG_GET(d, slice, start).es[axis]));
            coef = fg_emul(ex, coef, fg_ec(ex, FG_GET(d, slice, step).is[axis]));
        }
        axis = axis_after(m, d, axis);
        if (axis < 0 || coef == FG_E_BAD || out->start == FG_E_BAD)
            return false;
        out->term[n].axis = axis;
        out->term[n++].coef = coef;
    }
    out->n = n;
    return true;
}

/* Adds k * x, whose axes are those of a broadcast operand with `lead` fewer axes. */
static bool
accumulate(fg_module *m, fg_affine *sum, const fg_affine *x, fg_expr k, int lead)
{
    fg_exprs *ex = m->ex;
    sum->start = fg_eadd(ex, sum->start, fg_emul(ex, k, x->start));
    for (int j = 0; j < x->n; j++) {
        int at = 0, axis = x->term[j].axis + lead;
        fg_expr coef = fg_emul(ex, k, x->term[j].coef);
        while (at < sum->n && sum->term[at].axis != axis)
            at++;
        if (at == FG_AFFINE_TERMS || coef == FG_E_BAD)
            return false;
        if (at == sum->n)
            sum->term[sum->n++].coef = fg_ec(ex, 0);
        sum->term[at].axis = axis;
        sum->term[at].coef = fg_eadd(ex, sum->term[at].coef, coef);
        if (fg_e_is(ex, sum->term[at].coef, 0))
            sum->term[at] = sum->term[--sum->n];
    }
    return sum->start != FG_E_BAD;
}

static bool
through_sum(fg_module *m, const fg_inst *d, int *looks, fg_affine *out)
{
    fg_affine x[2];
    int rank = fg_rt(m, d->out[0])->rank;
    fg_expr one = fg_ec(m->ex, 1), sign = fg_ec(m->ex, d->op == FG_OP_sub ? -1 : 1);
    if (!find(m, d->in[0], looks, &x[0]) || !find(m, d->in[1], looks, &x[1]))
        return false;
    *out = (fg_affine){.start = fg_ec(m->ex, 0)};
    int lead[2] = {rank - fg_rt(m, d->in[0])->rank, rank - fg_rt(m, d->in[1])->rank};
    if (d->op != FG_OP_mul)
        return accumulate(m, out, &x[0], one, lead[0]) &&
               accumulate(m, out, &x[1], sign, lead[1]);
    for (int k = 0; k < 2; k++)
        if (x[1 - k].n == 0)
            return accumulate(m, out, &x[k], x[1 - k].start, lead[k]);
    return false;
}

static bool
find(fg_module *m, fg_reg r, int *looks, fg_affine *out)
{
    const fg_inst *d = fg_def(m, r);
    const fg_reginfo *ri = fg_ri(m, r);
    int64_t dim[FG_MAXRANK];
    if (!fg_is_int((fg_dtype)ri->type.dtype) || --*looks < 0)
        return false;
    if (ri->sym || fg_reg_weight(m, r)) {
        values v = {m, r, ri->sym, 1, 0};
        return fg_type_static(m->ex, &ri->type, dim) && fit(&v, dim, ri->type.rank, out);
    }
    if (!d)
        return false;
    switch (d->op) {
    case FG_OP_iota:
        *out = (fg_affine){.n = 1, .start = FG_GET(d, iota, start).e};
        out->term[0].coef = fg_ec(m->ex, FG_GET(d, iota, step).i);
        if (out->start == FG_E_BAD)
            out->start = fg_ec(m->ex, 0);
        return true;
    case FG_OP_cast:
    case FG_OP_copy:
    case FG_OP_reshape:
    case FG_OP_expand:
    case FG_OP_transpose:
    case FG_OP_slice:
        return through_view(m, d, looks, out);
    case FG_OP_add:
    case FG_OP_sub:
    case FG_OP_mul:
        return through_sum(m, d, looks, out);
    default:
        return false;
    }
}

bool
fg_find_affine(fg_module *m, fg_reg r, fg_affine *out)
{
    int looks = MAXLOOKS;
    return find(m, r, &looks, out);
}
